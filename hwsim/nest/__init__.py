"""Loop nests: the mapping format, what is legal, and exact counts of what moves."""
