"""Constraints of a schedule as YAML: a list of levels, in a spec under `constraints:` or in a file of their own.

Every problem has file, line and key: unknown levels, loops that an axis does not take, operands that a memory has to
keep and may not, rules for one loop in two places.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from hwsim.errors import SpecError
from hwsim.files.strict_yaml import Document, KeyPath, read_document
from hwsim.machine.parts import Accelerator, Array, Memory
from hwsim.machine.ruled_levels import arrays_inside
from hwsim.machine.rules import Limit, Limits, Rule, Rules
from hwsim.machine.yaml_checks import did_you_mean
from hwsim.machine.yaml_keys import ConstraintSpec, ConstraintsSpec, LimitTexts
from hwsim.machine.yaml_messages import explanations, shown

OWN = "own"  # names the constraints of the spec itself


def load_rules(name_or_path: str | Path, machine: Accelerator) -> Rules:
    """The rules of a file, or (`own`) those of the machine's spec. Raises SpecError with every problem at once."""
    if str(name_or_path) == OWN:
        if not machine.constraints:
            raise SpecError(
                f"--constraints own: {machine.name} has no constraints; give a file (accel_specs/README.md says how)"
            )
        return machine.constraints
    path = Path(name_or_path)
    if not path.exists():
        raise SpecError(f"{path}: no such file; expected a YAML file with constraints: [...], or `own`")
    document = read_document(path)
    if not isinstance(document.data, dict):
        raise SpecError(f"{document.place(())}: expected constraints: [...], got {shown(document.data)}")
    try:
        spec = ConstraintsSpec.model_validate(document.data)
    except ValidationError as problem:
        raise SpecError(explanations(document, problem)) from None
    return rules_of(document, spec.constraints, machine)


def rules_of(document: Document, specs: Sequence[ConstraintSpec], machine: Accelerator) -> Rules:
    """The rules of a checked document, for a machine. Raises SpecError."""
    nodes = {node.name: node for node in machine.hierarchy}
    problems: list[str] = []
    for index, spec in enumerate(specs):
        where: KeyPath = ("constraints", index)
        node = nodes.get(spec.level)
        if node is None:
            message = f"no such level {spec.level!r} in {machine.name}{did_you_mean(spec.level, list(nodes))}"
            problems.append(f"{document.place((*where, 'level'))}: {message}")
        else:
            problems += [f"{document.place((*where, *keys))}: {text}" for keys, text in mistakes(spec, node, machine)]
    problems += repeated(document, specs, machine)
    if problems:
        raise SpecError(problems)
    return tuple(rule_of(document, ("constraints", index), spec) for index, spec in enumerate(specs))


def mistakes(spec: ConstraintSpec, node: Memory | Array, machine: Accelerator) -> Iterator[tuple[KeyPath, str]]:
    """What a level cannot keep, with its key."""
    said = [key for key, value in spec if value is not None and key not in ("level", "source")]
    if not said:
        yield (), f"says nothing about {spec.level}: expected order, factors, unroll, min_use, keep, bypass or tile"
    for key in said:
        if isinstance(node, Array) and key in ("keep", "bypass", "tile"):
            yield (key,), f"expected no such key: {node.name} is an array"
        if isinstance(node, Memory) and key in ("unroll", "min_use"):
            yield (key,), f"expected no such key: {node.name} is a memory"
    if spec.order is not None and len(set(spec.order)) < len(spec.order):
        yield ("order",), f"expected each loop once, got {spec.order}"
    if isinstance(node, Array):
        yield from array_mistakes(spec, node)
    else:
        yield from memory_mistakes(spec, node, machine)


def array_mistakes(spec: ConstraintSpec, array: Array) -> Iterator[tuple[KeyPath, str]]:
    """Axes that an array lacks, loops that they do not take, more elements than there are."""
    axes = {axis.name: axis for axis in array.axes}
    for name, limits in (spec.unroll or {}).items():
        if name not in axes:
            yield ("unroll", name), f"no such axis of {array.name}{did_you_mean(name, list(axes))}"
            continue
        for dim, text in limits.items():
            limit = limit_of(text)
            if dim not in axes[name].dims and limit.most != 1:
                yield ("unroll", name, dim), f"expected one of {list(axes[name].dims)}, which {name} takes, got {dim}"
            elif limit.most is not None and limit.exact and limit.most > axes[name].size:
                yield ("unroll", name, dim), f"expected at most the {axes[name].size} elements of {name}, got {text}"


def memory_mistakes(spec: ConstraintSpec, memory: Memory, machine: Accelerator) -> Iterator[tuple[KeyPath, str]]:
    """Operands that a memory cannot keep or cannot leave out."""
    for operand in spec.keep or ():
        if operand not in memory.keeps:
            yield ("keep",), f"{memory.name} cannot keep {operand}: its keeps are {list(memory.keeps)}"
    for operand in spec.bypass or ():
        if operand in (spec.keep or ()):
            yield ("bypass",), f"{operand} is in keep, too"
        elif operand in memory.keeps and operand not in memory.bypass:
            yield ("bypass",), f"{memory.name} always keeps {operand}: its bypass is {list(memory.bypass)}"
    if spec.tile is not None and memory is machine.outermost:
        yield ("tile",), f"{memory.name} is the outermost memory: it holds whole tensors"


def repeated(document: Document, specs: Sequence[ConstraintSpec], machine: Accelerator) -> list[str]:
    """A level named twice; loops inside an array that a memory's entry speaks of, too."""
    problems: list[str] = []
    nodes = {node.name: node for node in machine.hierarchy}
    known: dict[str, int] = {}
    inside: dict[int, int] = {}
    for index, spec in enumerate(specs):
        place = document.place(("constraints", index, "level"))
        if spec.level in known:
            problems.append(f"{place}: {spec.level} has constraints in constraints[{known[spec.level]}] already")
        known.setdefault(spec.level, index)
        if isinstance(nodes.get(spec.level), Array) and (spec.order or any_may_run(spec)):
            inside[arrays_inside(machine, spec.level)] = index
    for index, spec in enumerate(specs):
        if isinstance(nodes.get(spec.level), Memory) and (spec.order or spec.factors):
            other = inside.get(arrays_inside(machine, spec.level))
            if other is not None:
                place = document.place(("constraints", index, "level"))
                problems.append(
                    f"{place}: the loops of {spec.level} are inside {specs[other].level}, and constraints[{other}] "
                    "speaks of those: give one of them, or factors of 1 there alone (loops that are in no such memory)"
                )
    return problems


def any_may_run(spec: ConstraintSpec) -> bool:
    """Whether an entry limits loops other than by keeping them from running."""
    return any(limit_of(text).most != 1 for text in (spec.factors or {}).values())


def rule_of(document: Document, where: KeyPath, spec: ConstraintSpec) -> Rule:
    """One entry, with the places of its keys."""
    keys: dict[str, KeyPath] = {key: (key,) for key in ("order", "min_use", "keep", "bypass")}
    keys |= {f"{key}.{dim}": (key, dim) for key in ("factors", "tile") for dim in getattr(spec, key) or {}}
    keys |= {
        f"unroll.{axis}.{dim}": ("unroll", axis, dim) for axis, limits in (spec.unroll or {}).items() for dim in limits
    }
    return Rule(
        level=spec.level,
        order=tuple(spec.order or ()),
        factors=limits_of(spec.factors),
        unroll=tuple((axis, limits_of(limits)) for axis, limits in (spec.unroll or {}).items()),
        min_use=spec.min_use or 0.0,
        keep=tuple(spec.keep or ()),
        bypass=tuple(spec.bypass or ()),
        tile=limits_of(spec.tile),
        places=tuple((key, document.place((*where, *path))) for key, path in keys.items()),
    )


def limits_of(texts: LimitTexts | None) -> Limits:
    """Limits by dim."""
    return tuple((dim, limit_of(text)) for dim, text in (texts or {}).items())


def limit_of(text: str) -> Limit:
    """`4`, `<=4` or `all`."""
    if text == "all":
        return Limit(None)
    return Limit(int(text.removeprefix("<=")), exact=not text.startswith("<="))
