"""The evidence: one file per question, writing CSVs under results/, from which figures and docs/results.md are drawn.

`jobs` trains one network, `table` keeps the rows, `profiles` says how much is trained (smoke, cpu, gpu, imagenet).
Nothing imports this package.
"""
