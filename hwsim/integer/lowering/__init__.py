"""From a trained network to integers: operators, constants and the walk over the graph."""
