"""One proof for many machines: tables over boxes of energies and bandwidths, for declared sizes of memories."""
