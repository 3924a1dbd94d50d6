"""Whether the integer machine's codes equal float64's, layer by layer, and what it means for accuracy."""
