"""The log of a training: one `EpochRecord` an epoch, as a line, as CSV, and where TensorBoard writes."""

import csv
import dataclasses
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quant.data import write_atomically


@dataclass(frozen=True)
class EpochRecord:
    """One line of the log. Accuracies in percent; the training ones are of the network while it was changing."""

    epoch: float
    step: int
    learning_rate: float
    train_loss: float
    train_accuracy_percent: float
    validation_accuracy_percent: float | None
    seconds: float


def write_log(path: Path, history: list[EpochRecord]) -> None:
    """The history as CSV, replaced atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [f.name for f in dataclasses.fields(EpochRecord)]
    writer.writerow(names)
    for record in history:
        writer.writerow(["" if getattr(record, n) is None else getattr(record, n) for n in names])
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))


def epoch_line(record: EpochRecord, total_steps: int) -> str:
    validation = record.validation_accuracy_percent
    tail = "" if validation is None else f"  validation {validation:.2f} %"
    return (
        f"epoch {record.epoch:g}  step {record.step}/{total_steps}  loss {record.train_loss:.4f}  "
        f"train {record.train_accuracy_percent:.2f} %{tail}  {record.seconds:.1f} s"
    )


def tensorboard_writer(out: Path | None) -> Any:
    if out is None:
        raise ValueError("tensorboard: needs an output folder")
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError("tensorboard is not installed: pip install 'hwsim[train]'") from error
    return SummaryWriter(str(out / "tensorboard"))
