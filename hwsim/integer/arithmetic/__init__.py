"""Integer arithmetic: geometry, kernels, requantization and the rules of each operator."""
