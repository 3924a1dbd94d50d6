"""What a run says, as data: JSON with a published schema.

Numbers come from pricing/ unchanged; this file only arranges them. Every simplification behind them is listed under
`assumptions`.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.errors import RequestError, reason
from hwsim.files.identity import Identity, content_hash, identity
from hwsim.machine.parts import Accelerator
from hwsim.nest.text import Together, entries, to_lists
from hwsim.network.generation import Generation
from hwsim.network.layer import Layer
from hwsim.network.workload import Workload
from hwsim.pricing.interval import Interval, TimeInterval
from hwsim.pricing.layer import LayerCost
from hwsim.pricing.network import NetworkCost, Totals
from hwsim.report.files import html_fragment, write_report
from hwsim.report.generation import generation_dict
from hwsim.report.picture import change_dict, home_dict, machine_dict, occupancy, peak_macs_per_cycle, traffic_dict
from hwsim.report.screen import screenful
from hwsim.report.widths import Change, narrower
from hwsim.search.objective import Objective
from hwsim.search.passes import Batch, Pass, Passes
from hwsim.search.result import FUSED, RULED, Found, NetworkCertificate, less_at_most
from hwsim.tables.mapped import Side

if TYPE_CHECKING:
    import pandas

SCHEMA_VERSION = 1
SCHEMA_FILE = Path(__file__).parent / "report.schema.json"


@dataclass(frozen=True)
class LayerReport:
    """One layer of a report: the layer itself, its cost, and its mapping where it has MACs."""

    layer: Layer
    cost: LayerCost
    found: Found | None
    report: Report = field(repr=False)

    @property
    def energy_pj(self) -> float:
        """Energy of the layer."""
        return self.cost.total_energy_pj

    @property
    def latency_cycles(self) -> int:
        """Cycles of the layer; 0 where it runs behind another."""
        return self.cost.latency_cycles

    @property
    def bottleneck(self) -> str:
        """What bounds its cycles."""
        return self.cost.bottleneck

    def to_dict(self) -> dict[str, Any]:
        """Its entry of `layers` in report.json: its bill, what it moves, and what narrower operands would change."""
        changes = self.report.narrower.get(self.layer.name, {})
        return {
            **layer_dict(self.layer, self.cost, self.found),
            "traffic_bits": traffic_dict(self.cost),
            "peak_macs_per_cycle": peak_macs_per_cycle(self.layer, self.report.accelerator),
            "narrower": {side: change_dict(change) for side, change in changes.items()},
        }


class LayerReports(Mapping[str, LayerReport]):
    """Layers by name, in the order of execution."""

    def __init__(self, report: Report) -> None:
        self.entries = {
            layer.name: LayerReport(layer, cost, report.found.get(layer.name), report)
            for layer, cost in zip(report.workload, report.cost.layers, strict=True)
        }

    def __getitem__(self, name: str) -> LayerReport:
        if name not in self.entries:
            near = difflib.get_close_matches(name, self.entries, 3) or list(self.entries)[:3]
            raise KeyError(f"no layer {name!r}; did you mean {', '.join(near)}?")
        return self.entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        return f"{len(self)} layers: {', '.join(map(repr, self))}"


def interval_dict(interval: Interval) -> dict[str, Any]:
    """Where the energy lies, and what leaves it open, widest first."""
    return {
        "low_pj": interval.low_pj,
        "high_pj": interval.high_pj,
        "origins": [
            {
                "name": origin.name,
                "components": list(origin.components),
                "energy_pj": origin.energy_pj,
                "down_pj": origin.down_pj,
                "up_pj": origin.up_pj,
            }
            for origin in interval.origins
        ],
    }


def time_interval_dict(interval: TimeInterval) -> dict[str, Any]:
    """Where the latency lies, and which rates leave it open, widest first."""
    return {
        "low_s": interval.low_s,
        "high_s": interval.high_s,
        "rates": [dataclasses.asdict(rate) for rate in interval.rates],
    }


@dataclass(frozen=True, repr=False)
class Report:
    """One network on one accelerator: costs, mappings, and what they rest on. It prints itself in a screenful."""

    workload: Workload
    accelerator: Accelerator
    cost: NetworkCost
    found: Mapping[str, Found]
    objective: str
    by_objective: Mapping[Objective, Totals] = field(default_factory=dict[Objective, Totals])
    generation: Generation | None = None  # of a language model's phase
    certificate: NetworkCertificate | None = None  # of the network's plan: homes and mappings chosen together
    command: str = ""  # that makes it again; empty where it was made from Python
    schedules: Mapping[str, Totals] = field(default_factory=dict[str, Totals])  # best, and own or constrained
    no_own: str = ""  # why the machine's own schedule does not run this network
    groups: tuple[Together, ...] = ()  # layers that run depth first
    unfused: Totals | None = None  # the plan without groups, where groups were looked for
    untried_groups: str = ""  # that groups were not looked for, and how to; empty where there are none
    batch: Batch | None = None  # how a batch of several images runs: at once, or in passes

    def __repr__(self) -> str:
        return screenful(self)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return html_fragment(self)

    @property
    def totals(self) -> Totals:
        """The network's totals: energy, latency, MACs, memory, area."""
        return self.cost.totals

    @property
    def tells_groups(self) -> bool:
        """Whether there is something to say of depth-first groups."""
        return bool(self.groups or self.unfused or self.untried_groups)

    @property
    def passes(self) -> Passes:
        """Passes of a batch that does not run at once; nests and tensors on chip of this report are the first one's."""
        return () if self.batch is None else self.batch.passes

    @property
    def mapped_workload(self) -> Workload:
        """The network that the nests of this report are of: that of a pass where the batch runs in passes."""
        return self.passes[0].workload if self.passes else self.workload

    @property
    def energy_pj(self) -> float:
        """Energy of one inference."""
        return self.totals.energy_pj

    @property
    def latency_s(self) -> float:
        """Time of one inference."""
        return self.totals.latency_s

    @cached_property
    def layers(self) -> LayerReports:
        """Every layer by name: `report.layers["conv1"].energy_pj`."""
        return LayerReports(self)

    def to_frame(self) -> pandas.DataFrame:
        """One row per layer (`to_rows`) as a pandas data frame. Raises RequestError without pandas."""
        try:
            import pandas  # as heavy as all else together; only this method needs it
        except ImportError as problem:
            raise RequestError(f"to_frame needs pandas ({problem}): pip install pandas; or use to_rows()") from None
        return pandas.DataFrame(self.to_rows())

    def save(self, folder: str | Path) -> list[Path]:
        """Write report.json, layers.csv, mappings.yaml, a figure and a page; their paths. Raises RequestError."""
        try:
            place = Path(folder)
        except TypeError:
            raise RequestError(f"save: expected a folder, got {folder!r}") from None
        try:
            return write_report(self, place)
        except OSError as problem:
            raise RequestError(f"save: {folder}: cannot be written: {reason(problem)}") from None

    @cached_property
    def assumptions(self) -> list[str]:
        """Every simplification and choice behind the numbers: of extractor, cost model, spec and search."""
        spaces = Counter(found.certificate.space for found in self.found.values())
        return [
            *self.workload.notes,
            *self.cost.assumptions,
            *(f"spec: {note}" for note in self.accelerator.notes),
            *([f"network: {self.certificate.space}"] if self.certificate else []),
            *(f"mapping search, {count} layer{'s' * (count > 1)}: {space}" for space, count in sorted(spaces.items())),
            *self.distance_from_any_mapping,
        ]

    @property
    def distance_from_any_mapping(self) -> list[str]:
        """How much less any legal mapping could cost, by the certificates."""
        proven = [found.certificate for found in self.found.values() if found.certificate.space != FUSED]
        below = [100 * less_at_most(certificate.any_tiles_gap) for certificate in proven]
        if not below:
            return []
        ruled = any(RULED in found.certificate.space for found in self.found.values())
        kind = "mapping that keeps the constraints" if ruled else "mapping"
        return [
            f"No {kind}, whatever its tile sizes, can be more than {max(below):.2f} % below this {self.objective} in "
            f"any layer (median {statistics.median(below):.2f} % of {len(below)} layers)."
        ]

    @cached_property
    def warnings(self) -> list[str]:
        """What a reader must not overlook: uncosted operators first."""
        uncosted = [
            f"uncosted operator {item.op} ({item.name}, {item.elements:,} elements, "
            f"{'MACs unknown' if item.macs is None else f'{item.macs:,} MACs'}): its cost is missing here"
            for item in self.workload.coverage.uncosted
        ]
        lacking = [f"the machine's own schedule does not run this network: {self.no_own}"] if self.no_own else []
        return [*uncosted, *self.cost.warnings, *lacking]

    @cached_property
    def identity(self) -> Identity:
        """Hashes of everything that the numbers follow from: network and bits, machine, mappings, version."""
        return identity(
            workload=self.workload.to_dict(),
            accelerator=self.accelerator,
            objective=self.objective,
            mappings={
                **{name: to_lists(found.mapping) for name, found in self.found.items()},
                **({"groups": [str(group) for group in self.groups]} if self.groups else {}),
                **({"passes": [pass_dict(each) for each in self.passes]} if self.passes else {}),
            },
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready data, sealed by the hash of its content; see hwsim/report/report.schema.json."""
        data = self.content()
        return {**data, "seal": content_hash(data)}

    def content(self) -> dict[str, Any]:
        """Everything but the seal."""
        return {
            "schema_version": SCHEMA_VERSION,
            "identity": self.identity.to_dict(),
            "model": {
                "name": self.workload.name,
                "layers": len(self.workload),
                **({"identity": self.workload.identity} if self.workload.identity else {}),
            },
            "accelerator": {
                "name": self.accelerator.name,
                "clock_mhz": self.accelerator.clock_mhz,
                "node_nm": self.accelerator.node_nm,
                "sources": list(self.accelerator.sources),
                **machine_dict(self.accelerator),
                "activation_memory": home_dict(self.accelerator),
            },
            "command": self.command,
            "objective": self.objective,
            "certificate": self.certificate.to_dict() if self.certificate else None,
            "by_objective": {
                objective: {
                    "energy_pj": totals.energy_pj,
                    "latency_cycles": totals.latency_cycles,
                    "edp_pj_s": totals.edp_pj_s,
                }
                for objective, totals in self.by_objective.items()
            },
            "schedules": {
                name: {
                    "energy_pj": totals.energy_pj,
                    "latency_cycles": totals.latency_cycles,
                    "edp_pj_s": totals.edp_pj_s,
                }
                for name, totals in self.schedules.items()
            },
            **({"fusion": fusion_dict(self)} if self.tells_groups else {}),
            **({"batch": batch_dict(self.batch)} if self.batch else {}),
            "totals": self.cost.totals.to_dict(),
            "energy_interval": interval_dict(self.cost.energy_interval),
            "latency_interval": time_interval_dict(self.cost.latency_interval),
            **({"generation": generation_dict(self, self.generation)} if self.generation is not None else {}),
            "energy_pj_by_component": dict(self.cost.energy_pj_by_component),
            "layers": [layer.to_dict() for layer in self.layers.values()],
            "occupancy": occupancy(
                self.mapped_workload,
                self.accelerator,
                frozenset(self.cost.resident),
                self.cost.lifetimes,
                {name: found.mapping for name, found in self.found.items()},
            ),
            "coverage": coverage_dict(self.workload),
            "assumptions": self.assumptions,
            "warnings": self.warnings,
        }

    @cached_property
    def narrower(self) -> dict[str, dict[Side, Change]]:
        """What the next narrower width of either operand changes, by layer; see widths.py."""
        resident = frozenset(self.cost.resident)
        alone = {name: found for name, found in self.found.items() if found.certificate.space != FUSED}
        return narrower(self.mapped_workload, self.accelerator, alone, resident, self.objective)

    def to_json(self) -> str:
        """The report as text; NaN or infinity would be a bug and raise."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def to_rows(self) -> list[dict[str, Any]]:
        """One flat row per layer, for layers.csv and data frames; energies per component in pJ."""
        components = [component for component, _ in self.cost.energy_pj_by_component]
        rows: list[dict[str, Any]] = []
        for layer, cost in zip(self.workload, self.cost.layers, strict=True):
            weight, activation, output, accumulator = layer.bits_key()
            energies = cost.energy_pj
            rows.append(
                {
                    "name": layer.name,
                    "op": layer.op,
                    **layer.loops.as_dict(),
                    "weight_bits": weight,
                    "input_bits": activation,
                    "output_bits": output,
                    "accumulator_bits": accumulator,
                    "macs": layer.macs,
                    "energy_pj": cost.total_energy_pj,
                    **{f"energy_{component}_pj": energies.get(component, 0.0) for component in components},
                    "latency_cycles": cost.latency_cycles,
                    "bottleneck": cost.bottleneck,
                    "offset_class": cost.offset.kind,
                }
            )
        return rows


def layer_dict(layer: Layer, cost: LayerCost, found: Found | None) -> dict[str, Any]:
    """One entry of `layers`."""
    weight, activation, output, accumulator = layer.bits_key()
    return {
        "name": layer.name,
        "op": layer.op,
        "loops": layer.loops.as_dict(),
        "bits": {"weight": weight, "input": activation, "output": output, "accumulator": accumulator},
        "macs": layer.macs,
        "energy_pj": {"total": cost.total_energy_pj, **cost.energy_pj},
        "latency_cycles": cost.latency_cycles,
        "cycles": dict(cost.cycles),
        "bottleneck": cost.bottleneck,
        "mac_mode": cost.mac_mode,
        "mapping": list(entries(found.mapping)) if found else None,
        "certificate": found.certificate.to_dict() if found else None,
        "counts": counts_dict(found) if found and not cost.group else {},
        "offset": cost.offset.to_dict(),
        "resident": list(cost.resident),
        "fused_into": cost.fused_into,
        **({"group": cost.group} if cost.group else {}),
    }


def fusion_dict(report: Report) -> dict[str, Any]:
    """The depth-first groups, and the totals without any where they were looked for."""
    without = report.unfused
    return {
        "groups": [dataclasses.asdict(group) for group in report.groups],
        "without": without
        and {
            "energy_pj": without.energy_pj,
            "latency_cycles": without.latency_cycles,
            "edp_pj_s": without.edp_pj_s,
            "outermost_traffic_bits": without.outermost_traffic_bits,
        },
        **({"not_tried": report.untried_groups} if report.untried_groups else {}),
    }


def batch_dict(batch: Batch) -> dict[str, Any]:
    """How a batch runs, what each pass costs, and what the batch costs at once."""
    once = batch.at_once
    return {
        "images": batch.images,
        "passes": [pass_dict(each) for each in batch.passes],
        "at_once": once
        and {
            "energy_pj": once.energy_pj,
            "latency_cycles": once.latency_cycles,
            "edp_pj_s": once.edp_pj_s,
            "outermost_traffic_bits": once.outermost_traffic_bits,
        },
        **({"not_tried": batch.not_tried} if batch.not_tried else {}),
    }


def pass_dict(each: Pass) -> dict[str, Any]:
    """One kind of pass: its bill and its nests."""
    totals = each.plan.cost.totals
    return {
        "images": each.images,
        "times": each.times,
        "energy_pj": totals.energy_pj,
        "latency_cycles": totals.latency_cycles,
        "resident": list(each.plan.cost.resident),
        "mappings": {name: list(entries(found.mapping)) for name, found in each.plan.found.items()},
    }


def counts_dict(found: Found) -> dict[str, dict[str, dict[str, int]]]:
    """memory -> operand -> reads and writes, in elements, partial sums and finished outputs apart."""
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for entry in found.counts.traffic:
        operand = entry.operand if entry.kind != "partial" else f"{entry.operand}_partial"
        place = counts.setdefault(entry.memory, {}).setdefault(operand, {"reads": 0, "writes": 0})
        place["reads"] += entry.reads
        place["writes"] += entry.writes
    return counts


def coverage_dict(workload: Workload) -> dict[str, Any]:
    """Costed shares of the network, the operators that have no price, and those that cost nothing and why."""
    shares, coverage = workload.shares, workload.coverage
    return {
        "macs_share": shares.macs,
        "elements_share": shares.elements,
        "operators_share": shares.operators,
        "operators_total": coverage.ops_total,
        "uncosted": [{"name": u.name, "op": u.op, "elements": u.elements, "macs": u.macs} for u in coverage.uncosted],
        "free": [{"op": f.op, "count": f.count, "why": f.why} for f in coverage.free],
    }
