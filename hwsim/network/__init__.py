"""The network as the cost model sees it: layers with loop bounds and bit-widths in a networkx DiGraph."""
