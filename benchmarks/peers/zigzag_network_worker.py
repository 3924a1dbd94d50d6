"""Runs in the peer's own Python: one network on one machine by ZigZag's public entry; writes a JSON file.

python zigzag_network_worker.py HARDWARE MAPPING WORKLOAD OUT [exploit_data_locality|enable_mix_spatial_mapping|...]

WORKLOAD: a file, or the name of one that the package ships. Per layer: energy by operand, memory and way (pJ),
cycles, unrolling, and the loops of every operand, innermost first, by the memory in which they run.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
import tempfile
import time
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

WAYS = {"RD_OUT_TO_LOW": "read", "WR_IN_BY_HIGH": "fill", "WR_IN_BY_LOW": "update", "RD_OUT_TO_HIGH": "drain"}


def evaluations(tree: Any, found: dict[int, Any]) -> dict[int, Any]:
    """Evaluations of single layers by identity, in the order of the network."""
    if hasattr(tree, "mem_energy_breakdown_further") and hasattr(tree, "temporal_mapping"):
        found.setdefault(id(tree), tree)
    elif isinstance(tree, (list, tuple)):
        for part in tree:
            evaluations(part, found)
    return found


def operand(evaluated: Any, name: Any) -> list[dict[str, Any]]:
    """Levels of one operand, innermost first."""
    memory_operand = evaluated.memory_operand_links.layer_to_mem_op(name)
    levels = evaluated.accelerator.memory_hierarchy.get_memory_levels(memory_operand)
    loops = evaluated.temporal_mapping.mapping_dic_stationary[name]
    found: list[dict[str, Any]] = []
    for level, inside, energy, accesses in zip(
        levels, loops, evaluated.mem_energy_breakdown_further[name], evaluated.memory_word_access[name], strict=False
    ):
        found.append({
            "memory": level.name, "loops": [[str(dim), float(factor)] for dim, factor in inside],
            "pj": {WAYS[way.name]: float(energy.get(way)) for way in directions()},
            "accesses": {WAYS[way.name]: float(accesses.get(way)) for way in directions()},
        })  # fmt: skip
    return found


def directions() -> Any:
    """The four ways that data take at a memory."""
    from zigzag.hardware.architecture.memory_port import DataDirection

    return DataDirection


def layer(evaluated: Any) -> dict[str, Any]:
    """One layer's answer."""
    unrolled = evaluated.layer.spatial_mapping
    return {
        "name": evaluated.layer.name, "type": str(evaluated.layer.type), "macs": int(evaluated.layer.total_mac_count),
        "energy_pj": float(evaluated.energy_total), "mac_pj": float(evaluated.mac_energy),
        "cycles": float(evaluated.latency_total2),
        "unrolled": {str(axis): [[str(d), float(f)] for d, f in on.items()] for axis, on in unrolled.items()},
        "operands": {str(name): operand(evaluated, name) for name in evaluated.layer.layer_operands},
    }  # fmt: skip


def main() -> None:
    """Search for least latency, write what was found."""
    hardware, mapping, workload, out, *flags = sys.argv[1:]
    from zigzag.api import get_hardware_performance_zigzag

    shipped = files("zigzag") / "inputs" / "workload" / workload
    source = workload if os.path.exists(workload) else str(shipped)
    logging.disable(logging.CRITICAL)
    wall, began = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        answer = get_hardware_performance_zigzag(
            source, hardware, mapping, opt="latency", dump_folder=folder, loma_show_progress_bar=False,
            **dict.fromkeys(flags, True),
        )  # fmt: skip
    found = {
        "version": version("zigzag-dse"), "energy_pj": float(answer[0]), "cycles": float(answer[1]),
        "cpu_s": time.process_time() - began, "wall_s": time.perf_counter() - wall,
        "layers": [layer(evaluated) for evaluated in evaluations(answer[-1], {}).values()],
    }  # fmt: skip
    Path(out).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
