"""Other tools' descriptions and printed results beside ours: `python -m experiments.peers --data DIR`."""
