"""Where a layer's operands lie before and after it: in the outermost memory, or whole in the activation memory."""

from __future__ import annotations

from dataclasses import dataclass

from hwsim.machine.parts import Accelerator, Operand


@dataclass(frozen=True)
class Homes:
    """Operands whose tensors lie in the activation memory (their home), and the bits that all tensors leave there.

    An input at home is read where it lies; an output at home is finished there. Neither has a tile of its own, but
    for partial sums of an output, which are wider. `room_bits` None: nothing lies there.
    """

    operands: tuple[Operand, ...] = ()
    room_bits: int | None = None


NOWHERE = Homes()


def can_be_home(accelerator: Accelerator) -> bool:
    """Whether the activation memory is the first to hold inputs and outputs below the outermost one, outside arrays."""
    home = accelerator.activation_memory
    if home is None or home.size_bits is None:
        return False
    between = accelerator.hierarchy[1 : accelerator.hierarchy.index(home)]
    return not any(node not in accelerator.memories or {"input", "output"} & set(node.keeps) for node in between)  # type: ignore[union-attr]
