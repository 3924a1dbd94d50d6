"""Bits of every layer under budgets: an exact integer programme over sensitivities and prices."""
