"""Proven mappings: the kernel in C, the search over unrollings around it, longer loops after it."""
