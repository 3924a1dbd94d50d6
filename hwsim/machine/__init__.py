"""The accelerator: its parts, the strict YAML that describes it, packing of codes into words, measured tables."""
