"""Design-space exploration: bits per layer, machines, and both at once.

`problem.py` states a choice of bits (what may be chosen, what it costs, what must agree), `allocate.py` solves it
exactly, `bill.py` fills it from a network and a machine, `space.py` and `study.py` search over machines.
"""
