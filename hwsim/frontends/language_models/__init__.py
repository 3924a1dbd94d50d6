"""Decoders of language models as workloads of one phase, from a configuration alone: no torch, no weights."""
