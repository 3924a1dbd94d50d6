"""The engine behind `hwsim.search`: lattices of tile sizes, prices per crossing element, chain programmes, nests.

`problem` turns (layer, accelerator) into operands' chains of holders with a price per element that crosses between two
of them; `lattice` holds the tile sizes of every dim and their divisibility; `chains` finds the cheapest chain of tiles
for one spatial unrolling; `unrolling` lists the spatial unrollings; `nest` writes a chain as a Mapping.
"""
