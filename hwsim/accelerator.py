"""`python -m hwsim.accelerator --schema | --keys`: the JSON Schema of a spec and the table of its keys."""

from __future__ import annotations

import argparse
import sys

from hwsim.errors import SpecError
from hwsim.machine.load import load_accelerator
from hwsim.machine.yaml_keys import (
    json_schema,
    key_table,
)


def main(arguments: list[str] | None = None) -> int:
    """Print the JSON Schema, the key table, or check spec files."""
    parser = argparse.ArgumentParser(prog="python -m hwsim.accelerator", description="Check accelerator specs.")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of the YAML")
    parser.add_argument("--keys", action="store_true", help="print the table of keys of accel_specs/README.md")
    parser.add_argument("specs", nargs="*", help="files or bare names to check")
    options = parser.parse_args(arguments)
    if options.schema:
        sys.stdout.write(json_schema())
    if options.keys:
        sys.stdout.write(key_table())
    try:
        for name in options.specs:
            machine = load_accelerator(name)
            print(f"{name}: ok, {machine.mac_units} MAC units, {len(machine.memories)} memories")
    except SpecError as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
