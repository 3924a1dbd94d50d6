"""The table operator -> handler; a new operator is one handler and one entry."""

from __future__ import annotations

from hwsim.frontends.lowering import (
    convolutions,
    einsum,
    fourier,
    mac_handlers,
    movement,
    recurrent,
    reductions,
    vector_handlers,
    view_handlers,
)
from hwsim.frontends.lowering.lower import Handler

HANDLERS: dict[str, Handler] = {
    **view_handlers.HANDLERS,
    **vector_handlers.HANDLERS,
    **reductions.HANDLERS,
    **movement.HANDLERS,
    **mac_handlers.HANDLERS,
    **convolutions.HANDLERS,
    **fourier.HANDLERS,
    **einsum.HANDLERS,
    **recurrent.HANDLERS,
}
