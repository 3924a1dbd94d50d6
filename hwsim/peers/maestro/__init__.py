"""MAESTRO: networks with dataflows (.m) and hardware files."""
