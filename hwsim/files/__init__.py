"""Files: appear whole or not at all, and YAML that is read strictly."""
