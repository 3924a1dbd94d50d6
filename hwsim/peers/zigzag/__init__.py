"""ZigZag 3.9: hardware, mapping and workload files."""
