"""Published and simulated results next to what the cost model says, one file per source.

Each file offers functions that return a `rows.Study`: rows of (published, ours), what was calibrated, what explains the
worst row. `python -m experiments.validate` runs them all. Data with their sources: experiments/data/README.md.
"""
