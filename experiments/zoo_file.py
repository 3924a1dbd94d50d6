"""`python -m experiments.zoo_file`: the zoo as workloads, hwsim/network/zoo.json.xz, after a change of a network.

`hwsim evaluate resnet18` reads its network from there, without torch.
"""

from __future__ import annotations

from hwsim.console import wrote
from hwsim.files.atomic import write_atomically
from hwsim.frontends.argument import from_zoo
from hwsim.network import zoo
from quant import models


def main() -> int:
    """Extract every network anew. Exit code: 0."""
    made = {name: from_zoo(name, None, allow_uncosted=False) for name in models.names()}
    write_atomically(zoo.FILE, zoo.packed(made))
    wrote(zoo.FILE, f"{len(made)} networks")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
