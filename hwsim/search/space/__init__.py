"""The space of mappings as the searches see it: lattices of tiles, unrollings, prices and times per crossing."""
