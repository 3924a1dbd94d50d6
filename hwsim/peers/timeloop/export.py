"""The files that let Timeloop price a machine, layers and mappings of ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hwsim.errors import SpecError
from hwsim.files.atomic import write_atomically
from hwsim.machine.parts import Accelerator
from hwsim.nest.mapping import Mapping as Nest
from hwsim.network.workload import Workload
from hwsim.peers.draft import bare_name
from hwsim.peers.report import TranslationReport
from hwsim.peers.timeloop.write import architecture_text, mapping_text, prices_text, problem_text


def export_files(
    machine: Accelerator, workload: Workload | None, mappings: Mapping[str, Nest], report: TranslationReport
) -> dict[str, str]:
    """Contents by file name: arch.yaml, ERT.yaml, a problem and a mapping per layer, and the report.

    A mapping that the format cannot say is listed in the report and left out.
    """
    files = {"arch.yaml": architecture_text(machine, report), "ERT.yaml": prices_text(machine)}
    layers = {layer.name: layer for layer in workload.layers if layer.has_macs} if workload is not None else {}
    unknown = [name for name in mappings if name not in layers]
    if unknown:
        raise SpecError(f"mapping of {unknown[0]!r}: the workload has no such layer with MACs: give its workload, too")
    for name, layer in layers.items():
        stem = bare_name(name, "layer")
        files[f"problem_{stem}.yaml"] = problem_text(layer)
        if name in mappings:
            try:
                files[f"mapping_{stem}.yaml"] = mapping_text(mappings[name], layer, machine)
            except SpecError as problem:
                report.none(name, f"mapping_{stem}", str(problem))
    files["translation.txt"] = report.text()
    return files


def write_files(machine: Accelerator, workload: Workload, mappings: Mapping[str, Nest], folder: Path) -> list[Path]:
    """Write `export_files` below a folder."""
    files = export_files(machine, workload, mappings, TranslationReport())
    for name, text in files.items():
        write_atomically(folder / name, text)
    return [folder / name for name in files]
