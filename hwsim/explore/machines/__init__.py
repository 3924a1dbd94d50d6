"""Studies over machines and bits together, resumable, on processes or a cluster."""
