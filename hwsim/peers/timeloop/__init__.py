"""Timeloop v4 and v3: templates, documents, architecture, mapping, and its accounting of accesses and energy."""
