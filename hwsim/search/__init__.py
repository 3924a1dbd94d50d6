"""The engine behind `hwsim.search`: lattices of tile sizes, prices per crossing element, shortest paths, nests.

`problem` turns (layer, accelerator) into operands' chains of holders with a price per element that crosses between two
of them; `unrolling` lists the spatial unrollings; `lattice` holds the tile sizes of every dim and their divisibility.
Quick: `chains` finds the cheapest chain of tiles of one unrolling. Proven: `certify` follows the least bound,
`closed_form` bounds all unrollings at once, `native` and kernel/ find bounds of lattices and cheapest paths, `prices`
and `timing` say what they add up.
`longer_loops` searches temporal tiles that do not divide; `any_tiles` bounds every legal mapping; `write` turns a
chain or a path into a Mapping.
"""
