# pyright: basic
"""A checkpoint proven or refuted: its codes against the float64 network's, its accuracies, its padding policies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hwsim.errors import RequestError, WorkloadError
from hwsim.integer.lowering.lower import lower
from hwsim.integer.proof.accuracy import FORMS, accuracies
from hwsim.integer.proof.certificate import UNLIMITED, Certificate, certify
from hwsim.integer.proof.images import test_images
from hwsim.integer.run import Mode
from hwsim.machine.parts import Accelerator
from quant import checkpoint
from quant.data import Normalisation


@dataclasses.dataclass(frozen=True)
class Proof:
    """What a proof looks at. `accuracy_images` 0: no accuracies. `random`: noise instead of images of the data set.

    `accumulator_bits` and `adc_bits`: also the accuracy with accumulators of that width (`overflow` says what they do
    then), and with a converter that keeps so many bits after `adc_rows` products.
    """

    images: int = 64
    accuracy_images: int = 1000
    data_dir: Path | None = None
    random: bool = False
    accumulator_bits: int | None = None
    overflow: str = "wrap"
    adc_bits: int | None = None
    adc_rows: int = 256
    device: str = "cpu"
    nonlinear: str = "float"  # the integer method of softmax and norms (`hwsim.integer.lowering.lower`)
    data: str = ""  # a data set other than the one that the checkpoint names: a name, a path, package.module:function
    normalisation: Normalisation | None = None  # of its pixels; None: the one that the network was trained with

    def __post_init__(self) -> None:
        """No images prove nothing. Raises RequestError."""
        if self.images < 1 or self.accuracy_images < 0:
            raise RequestError(
                f"expected 1 or more images and 0 or more for accuracies, got {self.images} and {self.accuracy_images}"
            )

    @property
    def forms(self) -> dict[str, Mode]:
        """Every form of the network whose accuracy is measured."""
        forms = dict(FORMS)
        if self.accumulator_bits:
            mode = Mode(accumulator_bits=self.accumulator_bits, overflow=self.overflow)
            forms[f"accumulator_{self.accumulator_bits}_{self.overflow}"] = mode
        if self.adc_bits:
            forms[f"adc_{self.adc_bits}_bits_{self.adc_rows}_rows"] = Mode(
                adc_bits=self.adc_bits, adc_rows=self.adc_rows
            )
        return forms


def verify_checkpoint(
    folder: Path,
    machine: Accelerator | None = None,
    proof: Proof | None = None,
    progress: Callable[[str, float, int], None] = lambda name, percent, images: None,
) -> Certificate:
    """The certificate of a trained network; `machine`'s capabilities decide the offsets' classes (default: any can).

    Raises WorkloadError for what is no quantized checkpoint and for accuracies without labelled images.
    """
    proof = proof or Proof()
    try:
        model, meta = checkpoint.load(folder)
        if meta.quantization is None:
            raise WorkloadError(
                f"{folder}: a float network, it has no quantizers; quantize it with "
                "hwsim calibrate or hwsim train --bits W4A4"
            )
        wanted = max(proof.images, 0 if proof.random else proof.accuracy_images, 1)
        images, labels = test_images(folder, proof.data_dir, wanted, proof.random, proof.data, proof.normalisation)
    except (ValueError, FileNotFoundError) as problem:
        raise WorkloadError(str(problem)) from problem
    for option in ("accumulator_bits", "adc_bits"):
        if getattr(proof, option) and (labels is None or proof.accuracy_images <= 0):
            name = option.replace("_", "-")
            raise WorkloadError(
                f"--{name} measures an accuracy, and there are no labelled images: leave out --random, and give "
                "--accuracy-images and a checkpoint that names its data set"
            )
    chosen: dict[str, Any] = {"capabilities": UNLIMITED, "nonlinear": proof.nonlinear}
    if machine is not None:
        chosen |= {"capabilities": machine.capabilities, "machine": machine.name}
    result = certify(model, images[: proof.images], name=meta.model, **chosen)
    result = dataclasses.replace(result, identity=checkpoint.identity(folder))
    if labels is None or proof.accuracy_images <= 0:
        return result
    count = proof.accuracy_images
    lowered = lower(model, images[:1], name=meta.model, nonlinear=proof.nonlinear)
    measured = accuracies(
        model, lowered, images[:count], labels[:count], forms=proof.forms, device=proof.device,
        progress=lambda name, percent: progress(name, percent, min(count, len(images))),
    )  # fmt: skip
    return dataclasses.replace(result, accuracies=measured)
