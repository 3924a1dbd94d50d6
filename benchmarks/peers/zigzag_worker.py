"""Runs in the peer's own Python: one layer on one of ZigZag's example machines; prints a JSON line.

python zigzag_worker.py tpu_like|eyeriss_like loma|salsa LPF_LIMIT
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

UNROLLED = {
    "tpu_like": {"D1": ["K, 32"], "D2": ["C, 32"]},
    "eyeriss_like": {"D1": ["OY, 14"], "D2": ["FY, 3", "K, 4"]},
}
LAYER = {
    "id": 0,
    "name": "layer",
    "operator_type": "Conv",
    "equation": "O[b][k][oy][ox]+=W[k][c][fy][fx]*I[b][c][iy][ix]",
    "dimension_relations": ["ix=1*ox+1*fx", "iy=1*oy+1*fy"],
    "loop_dims": ["B", "K", "C", "OY", "OX", "FY", "FX"],
    "loop_sizes": [1, 128, 128, 28, 28, 3, 3],
    "operand_precision": {"W": 8, "I": 8, "O": 16, "O_final": 8},
    "operand_source": {"I": 0, "W": 0},
    "pr_loop_dims": ["IX", "IY"],
    "pr_loop_sizes": [28, 28],
    "padding": [[1, 1], [1, 1]],
}


def main() -> None:
    """Search, print energy (pJ), cycles, CPU and wall seconds, version."""
    machine, engine, limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
    from importlib.metadata import version
    from importlib.resources import files

    import yaml
    from zigzag.api import get_hardware_performance_zigzag

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        mapping = [
            {
                "name": "default",
                "spatial_mapping": UNROLLED[machine],
                "memory_operand_links": {"O": "O", "W": "I2", "I": "I1"},
            }
        ]
        for name, content in (("mapping.yaml", mapping), ("workload.yaml", [LAYER])):
            with open(name, "w", encoding="utf-8") as file:
                yaml.safe_dump(content, file)
        logging.disable(logging.CRITICAL)
        wall, began = time.perf_counter(), time.process_time()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            energy, cycles, answers = get_hardware_performance_zigzag(
                "workload.yaml",
                str(files("zigzag") / "inputs" / "hardware" / f"{machine}.yaml"),
                "mapping.yaml",
                temporal_mapping_search_engine=engine,
                opt="energy",
                dump_folder="out",
                lpf_limit=limit,
                loma_show_progress_bar=False,
            )
        best = answers[0][0]
        found = {
            "mac_pj": float(best.mac_energy),
            "memories_pj": {str(k): [float(e) for e in v] for k, v in best.mem_energy_breakdown.items()},
            "energy_pj": float(energy),
            "cycles": float(cycles),
            "cpu_s": time.process_time() - began,
            "wall_s": time.perf_counter() - wall,
            "version": version("zigzag-dse"),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
