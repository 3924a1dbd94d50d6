"""A small language model on a text whose entropy is known, trained in several number formats."""
