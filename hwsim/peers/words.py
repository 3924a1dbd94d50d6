"""The tools whose files are read, without their readers: the help of a command must not wait for them."""

from __future__ import annotations

TOOLS = ("timeloop", "zigzag", "scalesim", "maestro")
