"""The words by which a search is asked, without the search: the help of a command must not wait for it."""

from __future__ import annotations

from typing import Literal, get_args

Objective = Literal["energy", "latency", "edp"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
Effortful = Literal["quick", "perfect", "proven", "auto"]
