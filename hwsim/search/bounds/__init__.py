"""Lower bounds of a layer's cost: simple ones, in closed form, for every legal mapping."""
