"""Good mappings in milliseconds, unproven."""
