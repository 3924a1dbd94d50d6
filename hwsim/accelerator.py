"""`python -m hwsim.accelerator SPEC...` (`hwsim check`): every mistake in accelerator specs, with file, line and key.

`--schema` prints the JSON Schema of a spec, `--keys` the table of its keys. Exit codes: 0; 2 for bad specs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hwsim.errors import SpecError, exit_code_of
from hwsim.files.argument import CommandLine


def check(names: Sequence[str]) -> None:
    """Say what each spec is. Raises SpecError with the mistakes of all of them."""
    from hwsim.machine.load import load_accelerator

    problems: list[str] = []
    for name in names:
        try:
            machine = load_accelerator(name)
            print(f"{name}: ok, {machine.mac_units} MAC units, {len(machine.memories)} memories")
        except SpecError as problem:
            problems += problem.problems
    if problems:
        raise SpecError(problems)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the command: one clear message on stderr for every error that is the input's."""
    parser = CommandLine(prog="hwsim check", description="Check accelerator specs.")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of the YAML")
    parser.add_argument("--keys", action="store_true", help="print the table of keys of accel_specs/README.md")
    parser.add_argument("specs", nargs="*", metavar="SPEC", help="files or bare names to check")
    options = parser.parse_args(arguments)
    if not (options.schema or options.keys or options.specs):
        parser.error("expected SPEC (a file or a shipped spec's name), --schema or --keys")
    from hwsim.machine.yaml_keys import json_schema, key_table  # here, not above: `--help` does not wait for it

    if options.schema:
        sys.stdout.write(json_schema())
    if options.keys:
        sys.stdout.write(key_table())
    return exit_code_of(lambda: check(options.specs))


if __name__ == "__main__":
    sys.exit(main())
