"""Which widths of a network may be chosen: one choice per weight and per group of activations that must agree.

Groups follow from the network (`bits.sharing_groups`: inputs of an addition, a concatenation, a pooling), widths from
the request, from limits by name and from what the machine can run. The width of a tensor that nothing judges (no
sensitivity covers it) is not free: it keeps `KEPT_BITS`, and so does everything under the first/last policy.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hwsim.errors import CapabilityError, SpecError, shortened
from hwsim.explore.bits.problem import Choice
from hwsim.explore.words import FIRST_LAST
from hwsim.machine.parts import Accelerator
from hwsim.network.bits_file import MAX_BITS, SAME, is_formats, priced_alone
from hwsim.network.layer import FLOAT_BITS, Layer, activation_inputs
from hwsim.network.rounding import ELEMENTWISE
from hwsim.network.sharing import sharing_groups
from hwsim.network.workload import Workload
from hwsim.pricing.mac import known_widths

KEPT_BITS = 8
# Operators whose inputs a quantized network rounds: those with MACs, and sums and products of activations.
QUANTIZING = ("conv", "linear", "matmul", "add", "sub", "mul", "concat")
LIMIT = re.compile(r"(?P<pattern>[^=\s]+)\.(?P<operand>weight|input)=(?P<widths>[0-9.,]+)")


@dataclass(frozen=True)
class Limit:
    """Widths allowed for one operand of the layers whose names match."""

    pattern: str
    operand: str
    widths: tuple[int, ...]
    place: str = "limit"


@dataclass(frozen=True)
class Freedom:
    """What the user lets vary. `first_last` "8bit" keeps the first and last layer with weights at 8 bits;
    `elementwise_bits` keeps the inputs of additions, products and concatenations, "same" lets them vary. `tied`: all
    readers of an array that vary share a width, so that no combination asks for more than what is stored."""

    weight_widths: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8)
    activation_widths: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8)
    first_last: str = "8bit"
    limits: tuple[Limit, ...] = ()
    elementwise_bits: int | str = KEPT_BITS
    tied: bool = False


@dataclass(frozen=True)
class Site:
    """A place where a network rounds: an operand ("weight" or "input") of a layer."""

    layer: str
    operand: str


@dataclass(frozen=True)
class Freed:
    """A choice, and the places whose rounding it decides."""

    choice: Choice
    sites: tuple[Site, ...]


def parse_widths(text: str, place: str) -> tuple[int, ...]:
    """`2..8` or `2,4,8,16` as widths. Raises SpecError.

    >>> parse_widths("2..4,8", "widths")
    (2, 3, 4, 8)
    """
    found: set[int] = set()
    for part in text.split(","):
        low, dots, high = part.strip().partition("..")
        if not low.isdecimal() or (dots and not high.isdecimal()):
            hint = f": {priced_alone(text)}" if is_formats(text) else ""
            raise SpecError(f"{place}: expected widths like 2..8 or 2,4,8, got {text!r}{hint}")
        ends = [end for end in (low, high) if end]
        if any(len(end) > 9 for end in ends) or max(map(int, ends)) > MAX_BITS:  # before a range of that length is made
            raise SpecError(f"{place}: widths must be 1 to {MAX_BITS}, got {shortened(max(ends, key=len), 20)}")
        found.update(range(int(low), int(high if dots else low) + 1))
    if not found:
        raise SpecError(f"{place}: the range {text!r} is empty: expected widths like 2..8")
    wrong = [width for width in sorted(found) if not 1 <= width <= MAX_BITS]
    if wrong:
        raise SpecError(f"{place}: widths must be 1 to {MAX_BITS}, got {wrong[0]}")
    return tuple(sorted(found))


def parse_limit(text: str, place: str = "--limit") -> Limit:
    """`blocks.*.weight=2..4` as a limit. Raises SpecError."""
    match = LIMIT.fullmatch(text.strip())
    if match is None:
        raise SpecError(f"{place}: expected LAYERS.weight=WIDTHS or LAYERS.input=WIDTHS, got {text!r}")
    return Limit(
        match["pattern"], match["operand"], parse_widths(match["widths"], f"{place} {text}"), f"{place} {text}"
    )


def free_choices(
    workload: Workload, accelerator: Accelerator, freedom: Freedom, judged: Collection[Site] | None = None
) -> tuple[Freed, ...]:
    """All choices, in order of execution; those with one width are decided already.

    `judged`: the sites that a sensitivity covers (default: all). Raises SpecError for limits that match nothing or
    contradict each other within a group, CapabilityError where the machine runs none of the widths allowed.
    """
    return Chooser(workload, accelerator, freedom, judged).choices()


class Groups:
    """Names in groups, each in the order given."""

    def __init__(self, names: Iterable[str]) -> None:
        self.group_of = {name: [name] for name in names}

    def join(self, names: Sequence[str]) -> None:
        """Put all of some names into one group."""
        for name in names[1:]:
            first, other = self.group_of[names[0]], self.group_of[name]
            if first is not other:
                first += other
                self.group_of.update(dict.fromkeys(other, first))

    def found(self) -> list[list[str]]:
        """Every group, in the order of its first name."""
        place = {name: i for i, name in enumerate(self.group_of)}
        groups = {id(group): group for group in self.group_of.values()}
        return [sorted(group, key=place.__getitem__) for group in groups.values()]


class Chooser:
    """Collects choices and every problem with them."""

    def __init__(
        self, workload: Workload, accelerator: Accelerator, freedom: Freedom, judged: Collection[Site] | None
    ) -> None:
        if freedom.first_last not in FIRST_LAST:
            raise SpecError(f"first_last: expected one of {', '.join(FIRST_LAST)}, got {freedom.first_last!r}")
        self.workload, self.machine, self.freedom = workload, accelerator, freedom
        self.judged = judged
        self.ends = [layer.name for layer in workload if has_weight(layer)]
        self.ends = [*self.ends[:1], *self.ends[-1:]] if freedom.first_last == "8bit" else []
        self.between = {layer.name for layer in workload if layer.op in ELEMENTWISE}
        self.problems: list[str] = []

    def choices(self) -> tuple[Freed, ...]:
        """Every choice. Raises SpecError with all problems."""
        self.check_limits()
        found = [*self.weights(), *self.activations()]
        if self.problems:
            raise SpecError(self.problems)
        return tuple(found)

    def check_limits(self) -> None:
        """A limit that names nothing is a mistake."""
        names = [layer.name for layer in self.workload]
        for limit in self.freedom.limits:
            if not any(fnmatch.fnmatchcase(name, limit.pattern) for name in names):
                near = difflib.get_close_matches(limit.pattern, names, 3) or names[:3]
                self.problems.append(f"{limit.place}: matches no layer; did you mean {', '.join(near)}?")

    def weights(self) -> list[Freed]:
        """One choice per weight tensor."""
        users: dict[str, list[Layer]] = {}
        for layer in self.workload:
            if has_weight(layer) and layer.weight is not None:
                users.setdefault(layer.weight.name, []).append(layer)
        return [self.choice([name], [Site(layer.name, "weight") for layer in layers], "weight")
                for name, layers in users.items()]  # fmt: skip

    def activations(self) -> list[Freed]:
        """One choice per activation, or per group of activations that share their width."""
        readers: dict[str, list[Site]] = {}
        order: dict[str, None] = {}
        weights = {layer.weight.name for layer in self.workload if layer.weight and not layer.weight_is_activation}
        for layer in self.workload:
            for tensor in (*activation_inputs(layer), layer.output):
                if tensor.name not in weights and tensor.origin != "index" and tensor.bits < FLOAT_BITS:
                    order.setdefault(tensor.name)
            if layer.op in QUANTIZING:
                for tensor in activation_inputs(layer):
                    readers.setdefault(tensor.name, []).append(Site(layer.name, "input"))
        joined = Groups(order)
        for group in sharing_groups(self.workload):
            joined.join([name for name in group if name in order])

        def sites(group: Sequence[str]) -> list[Site]:
            return list(dict.fromkeys(site for member in group for site in readers.get(member, ())))

        if self.freedom.tied:
            kept = {name for group in joined.found() if self.kept(sites(group)) for name in group}
            for layer in self.workload:
                forms = [layer.inputs[0].name, layer.output.name]
                if layer.op == "requantize" and not kept & set(forms) and forms[0] in order:
                    joined.join(forms)
        return [self.choice(group, sites(group), "activation") for group in joined.found()]

    def kept(self, sites: Sequence[Site]) -> bool:
        """Whether a policy decides the width: the first and last layer's, or that of additions and products."""
        return any(site.layer in self.ends for site in sites) or self.between_only(sites)

    def between_only(self, sites: Sequence[Site]) -> bool:
        """Whether additions, products and concatenations alone read some tensors, at bits of their own."""
        fixed = self.freedom.elementwise_bits != SAME
        return fixed and bool(sites) and all(site.layer in self.between for site in sites)

    def choice(self, tensors: Sequence[str], sites: list[Site], kind: str) -> Freed:
        """The widths left for some tensors by policy, limits and machine."""
        free = self.freedom.weight_widths if kind == "weight" else self.freedom.activation_widths
        kept = any(site.layer in self.ends for site in sites)
        unjudged = not sites or (self.judged is not None and not any(site in self.judged for site in sites))
        fixed = self.between_only(sites)
        between = {int(self.freedom.elementwise_bits)} if fixed else set[int]()
        widths = between or ({KEPT_BITS} if kept or unjudged else set(free))
        limits = [
            limit for limit in self.freedom.limits for site in sites
            if site.operand == limit.operand and fnmatch.fnmatchcase(site.layer, limit.pattern)
        ]  # fmt: skip
        asked = set(range(1, MAX_BITS + 1))
        for limit in dict.fromkeys(limits):
            asked &= set(limit.widths)
        if limits and not asked:
            places = " and ".join(dict.fromkeys(limit.place for limit in limits))
            self.problems.append(f"{places}: contradict each other about tensors that share one width: "
                                 f"{', '.join(tensors)}")  # fmt: skip
            asked = set(limits[0].widths)
        if limits:
            widths = asked if kept or unjudged or fixed else (widths & asked or asked)
        able = self.able(tensors, kind)
        if not widths & able:
            raise CapabilityError(
                f"{self.machine.name} runs {tensors[0]} at {known_widths(tuple(sorted(able))) or 'no width'} bits, "
                f"allowed are {known_widths(tuple(sorted(widths)))}: allow one that it runs"
            )
        name = tensors[0] if len(tensors) == 1 else f"{tensors[0]} (+{len(tensors) - 1})"
        return Freed(Choice(name, tuple(sorted(widths & able)), tuple(tensors), kind), tuple(sites))

    def able(self, tensors: Sequence[str], kind: str) -> set[int]:
        """Widths that the machine's capabilities allow for all of some tensors."""
        can, names = self.machine.capabilities, set(tensors)
        able = set(range(1, MAX_BITS + 1))
        for layer in self.workload:
            if not layer.has_macs or layer.weight is None:
                continue
            if layer.weight.name in names:
                able &= set(can.weight_bits)
            if layer.inputs[0].name in names:
                able &= set(can.activation_bits)
            if layer.output.name in names:
                able &= set(can.output_bits)
        return able


def has_weight(layer: Layer) -> bool:
    """Whether a layer multiplies by weights of its own."""
    return layer.has_macs and layer.weight is not None and not layer.weight_is_activation


def spread(freed: Sequence[Freed], sensitivities: Mapping[Site, Mapping[int, float]]) -> list[dict[int, float]]:
    """Loss of each choice at each of its widths: the sum over its sites. Raises SpecError for widths not measured."""
    found: list[dict[int, float]] = []
    missing: list[str] = []
    for entry in freed:
        known = [(site, sensitivities[site]) for site in entry.sites if site in sensitivities]
        losses: dict[int, float] = {}
        for width in entry.choice.widths:
            lacking = [site for site, table in known if width not in table]
            if lacking and len(entry.choice.widths) > 1:
                missing.append(f"{lacking[0].layer}.{lacking[0].operand} at {width} bits")
            losses[width] = sum(table.get(width, 0.0) for _, table in known)
        found.append(losses)
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise SpecError(f"sensitivities: not measured: {', '.join(missing[:3])}{more}: measure these widths, or "
                        "allow fewer")  # fmt: skip
    return found
