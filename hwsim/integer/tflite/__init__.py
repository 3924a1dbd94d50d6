"""TFLite files run on integers with that runtime's own rules."""
