"""From counts to costs: energy, latency, memory and area of layers and networks.

Read from the bottom: `mac`, `vector` and `offsets` price one kind of work, `moves` what crosses the memory ports,
`latency` and `area` follow from both; `layer_cost` is a layer's bill and `cost` the network's, after `stages` has said
which operators are fused and which tensors stay on chip. `unit_prices` is the same bill as a linear function of counts.
"""
