"""The best mapping of a network: which tensors stay on chip and every layer's nest, chosen together."""
