"""Depth-first groups: which stages run tile by tile together, how tall the tiles are, and every tile's nest."""
