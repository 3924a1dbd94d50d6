"""Checkpoints: a folder with safetensors for numbers and JSON for everything else; nothing is ever unpickled.

    FOLDER/settings.json               what the network is, how it was quantized and trained, which files belong to it
    FOLDER/weights-<hash>.safetensors  parameters and buffers
    FOLDER/training-<hash>.safetensors momentum and random states, for `--resume` only

`save(folder, model, meta)` replaces settings.json last and atomically: a crash at any moment leaves the old checkpoint
or the new one. `load(folder) -> (model, meta)` rebuilds the network through the zoo and `quant.quantize`.
"""

import dataclasses
import hashlib
import inspect
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as tensor_files
from torch import Tensor, nn

from quant import models
from quant.convert import quantize
from quant.data import Normalisation, write_atomically
from quant.quantizer import RETIRED_BUFFERS
from quant.whole_models import quantizers

SETTINGS = "settings.json"
FORMAT_VERSION = 1
MAX_INPUT = 2**28  # numbers of one sample
LARGEST = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class Meta:
    """What a checkpoint says about its network; every field is plain JSON.

    `model`: a zoo name, or `package.module:factory` for a network of one's own. `quantization`: keyword arguments of
    `quant.quantize`, None for a float network. `input_shape` has no batch. `training`: recipe, history, command.
    """

    model: str
    arguments: dict[str, Any] = field(default_factory=dict)
    quantization: dict[str, Any] | None = None
    input_shape: tuple[int, ...] = ()
    num_classes: int = 0
    data: str = ""
    normalisation: Normalisation | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "Meta":
        """The inverse of `to_dict`; ValueError for unknown or absent keys and wrong kinds."""
        known = {f.name: f for f in dataclasses.fields(cls)}
        unknown = [key for key in raw if key not in known]
        if unknown or not isinstance(raw.get("model"), str):
            raise ValueError(f"settings: expected the keys {', '.join(known)} with a model name, got {sorted(raw)}")
        values = dict(raw)
        kinds = {"arguments": dict, "metrics": dict, "training": dict, "data": str, "num_classes": int}
        for key, kind in kinds.items():
            if key in values and not isinstance(values[key], kind):
                raise ValueError(f"settings: {key}: expected {kind.__name__}, got {values[key]!r}")
        if values.get("quantization") is not None and not isinstance(values["quantization"], dict):
            raise ValueError(f"settings: quantization: expected an object or null, got {values['quantization']!r}")
        scale = values.get("normalisation")
        if scale is not None:
            if not isinstance(scale, dict) or set(scale) != {"mean", "std"}:
                raise ValueError(f"settings: normalisation: expected mean and std, got {scale!r}")
            if not (all(map(_are_numbers, scale.values())) and len(scale["mean"]) == len(scale["std"])):
                raise ValueError(f"settings: normalisation: expected as many means as deviations, got {scale!r}")
            values["normalisation"] = Normalisation(tuple(scale["mean"]), tuple(scale["std"]))
        shape = values.get("input_shape", ())
        whole = isinstance(shape, list | tuple) and all(type(n) is int and n > 0 for n in shape)
        if not whole or math.prod(shape) > MAX_INPUT:
            raise ValueError(f"settings: input_shape: expected positive integers, {MAX_INPUT:,} numbers at most, "
                             f"got {shape!r}")  # fmt: skip
        values["input_shape"] = tuple(shape)
        return cls(**values)


def save(
    folder: str | Path, model: nn.Module, meta: Meta, *, training_state: Mapping[str, Tensor] | None = None
) -> Path:
    """Write a checkpoint of `model`; ValueError, and nothing written, when a parameter in use is not finite."""
    folder = Path(folder)
    state = model.state_dict()
    check_finite(model)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder for the checkpoint, this is a file")
    folder.mkdir(parents=True, exist_ok=True)
    files = {"weights": _write_tensors(folder, "weights", state)}
    if training_state is not None:
        files["training"] = _write_tensors(folder, "training", training_state)
    settings = {
        "format_version": FORMAT_VERSION,
        "identity": identity_of(meta, files),
        **meta.to_dict(),
        "files": files,
    }
    text = json.dumps(settings, indent=2, allow_nan=False)
    write_atomically(folder / SETTINGS, lambda file: file.write(text.encode()))
    for old in folder.glob("*.safetensors"):
        if old.name not in files.values() and old.name.split("-")[0] in ("weights", "training"):
            old.unlink()
    return folder


def check_finite(model: nn.Module) -> None:
    """ValueError naming the first parameter with NaN or infinity; unset quantizers (NaN by design) do not count."""
    unset = {id(p) for _, q in quantizers(model) if not bool(q.initialized) for p in q.parameters()}
    for name, parameter in model.named_parameters():
        if id(parameter) not in unset and not bool(torch.isfinite(parameter).all()):
            raise ValueError(f"{name}: not finite (NaN or infinity); the checkpoint was not written")


def load(folder: str | Path, *, factory: Callable[..., nn.Module] | None = None) -> tuple[nn.Module, Meta]:
    """The network of a checkpoint, in eval mode, and what its settings say.

    `factory` builds networks that are not in the zoo; without it a checkpoint that names one is refused, because its
    settings would decide which code runs. FileNotFoundError, or ValueError with file, expectation and way out.
    """
    folder = Path(folder)
    meta, files, said = _settings(folder)
    if factory is not None:
        model = factory(**meta.arguments)
    elif ":" in meta.model:
        raise ValueError(f"{folder}: its network is {meta.model}, not of the zoo: pass its factory to checkpoint.load")
    else:
        stored = _read_tensors(folder, files, "weights")
        _check_size(meta, stored, folder)
        model = models.create(meta.model, **meta.arguments)
    if meta.quantization is not None:
        model = _rebuild_quantized(model, meta, folder)
    _load_weights(model, _read_tensors(folder, files, "weights"), folder, meta)
    _check_identity(folder, meta, files, said)
    return model.eval(), meta


def _check_size(meta: Meta, stored: Mapping[str, Tensor], folder: Path) -> None:
    """ValueError where the settings ask for more parameters than the file holds: built without memory first."""
    with torch.device("meta"):
        asked = sum(p.numel() for p in models.create(meta.model, **meta.arguments).parameters())
    there = sum(t.numel() for t in stored.values())
    if asked > there:
        raise ValueError(
            f"{folder / SETTINGS}: arguments: {meta.model} with {meta.arguments} has {asked:,} parameters, the file of "
            f"weights {there:,} numbers: the tensors are of another network"
        )


def load_into(folder: str | Path, model: nn.Module) -> None:
    """The tensors of a checkpoint into a network of the same structure; ValueError when it is another one."""
    folder = Path(folder)
    meta, files, _ = _settings(folder)
    _load_weights(model, _read_tensors(folder, files, "weights"), folder, meta)


def _rebuild_quantized(model: nn.Module, meta: Meta, folder: Path) -> nn.Module:
    """`quant.quantize` with the recorded arguments; initialisation comes from the tensors, never from data."""
    known = set(inspect.signature(quantize).parameters) - {"model", "example"}
    unknown = [key for key in meta.quantization or {} if key not in known]
    if unknown:
        raise ValueError(
            f"{folder / SETTINGS}: quantization: unknown '{unknown[0]}': expected {', '.join(sorted(known))}"
        )
    example = torch.zeros(1, *meta.input_shape) if meta.input_shape else None
    try:
        return quantize(model, **(meta.quantization or {}), example=example)[0]
    except (TypeError, AttributeError, KeyError) as error:  # a value of another kind than `quantize` takes
        raise ValueError(f"{folder / SETTINGS}: quantization: {error}") from error


def load_training_state(folder: str | Path) -> dict[str, Tensor]:
    """Momentum and random states; FileNotFoundError when the checkpoint was written without them."""
    folder = Path(folder)
    _, files, _ = _settings(folder)
    if "training" not in files:
        raise FileNotFoundError(
            f"{folder}: this checkpoint holds weights only and cannot be resumed; train from it anew"
        )
    return _read_tensors(folder, files, "training")


def load_meta(folder: str | Path) -> Meta:
    """The settings alone."""
    return _settings(Path(folder))[0]


def identity(folder: str | Path) -> str:
    """The hash that ties whatever is made from a trained network to it: reports, certificates, exported files.

    It depends on the network, its quantization, its input and every number of its weights; not on names of folders,
    accuracies or the history of the training.
    """
    meta, files, said = _settings(Path(folder))
    _check_identity(Path(folder), meta, files, said)
    return identity_of(meta, files)


def identity_of(meta: Meta, files: Mapping[str, str]) -> str:
    """`identity` of settings; the name of the file of weights holds the hash of its bytes."""
    said = meta.to_dict()
    parts = {key: said[key] for key in ("model", "arguments", "quantization", "input_shape", "normalisation")}
    text = json.dumps([parts, files["weights"]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_checkpoint(path: str | Path) -> bool:
    """Whether the path is a folder with settings."""
    return (Path(path) / SETTINGS).is_file()


def _settings(folder: Path) -> tuple[Meta, dict[str, str], object]:
    """What settings.json says: the network, its files, its identity (None in those older than identities)."""
    file = folder / SETTINGS
    if not folder.exists():
        raise FileNotFoundError(f"{folder}: no such checkpoint folder")
    if not file.is_file():
        raise FileNotFoundError(f"{folder}: not a checkpoint: it has no {SETTINGS}")
    try:
        raw = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: expected JSON, could not read it: {error}") from error
    if not isinstance(raw, dict) or raw.pop("format_version", None) != FORMAT_VERSION:
        raise ValueError(f"{file}: expected format_version {FORMAT_VERSION}; written by another version?")
    said = raw.pop("identity", None)
    files = raw.pop("files", None)
    if not isinstance(files, dict) or not all(_plain_name(name) for name in files.values()) or "weights" not in files:
        raise ValueError(f"{file}: files: expected names of files in this folder, among them 'weights', got {files!r}")
    try:
        meta = Meta.from_dict(raw)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    return meta, files, said


def _check_identity(folder: Path, meta: Meta, files: Mapping[str, str], said: object) -> None:
    """ValueError where the settings name another identity than their own content has."""
    if said not in (None, identity_of(meta, files)):
        raise ValueError(
            f"{folder / SETTINGS}: identity: {said!r} is not that of these settings and weights "
            f"({identity_of(meta, files)}): they were edited or belong to another network; restore them, or take the "
            "line out"
        )


def _are_numbers(values: object) -> bool:
    """Numbers that float32 holds: an integer of JSON may have a thousand digits, which `isfinite` cannot take."""
    return isinstance(values, list | tuple) and all(type(v) in (int, float) and abs(v) <= LARGEST for v in values)


def _plain_name(name: object) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and Path(name).name == name


def _write_tensors(folder: Path, kind: str, tensors: Mapping[str, Tensor]) -> str:
    # A copy of each: shared quantizers occur under several names, and safetensors stores no aliases.
    content = tensor_files.save({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()})
    name = f"{kind}-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
    if not (folder / name).exists():
        write_atomically(folder / name, lambda file: file.write(content))
    return name


def _read_tensors(folder: Path, files: Mapping[str, str], kind: str) -> dict[str, Tensor]:
    path = folder / files[kind]
    if not path.is_file():
        raise FileNotFoundError(f"{path}: named by {SETTINGS} but absent; restore it or train anew")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:16]
    if digest not in path.name:
        raise ValueError(f"{path}: its content has changed (sha256 {digest}...): truncated or edited; restore it")
    try:
        return tensor_files.load(content)
    except SafetensorError as error:
        raise ValueError(f"{path}: expected safetensors, could not read it: {error}") from error


def _load_weights(model: nn.Module, stored: Mapping[str, Tensor], folder: Path, meta: Meta) -> None:
    own = model.state_dict()
    state = {k: v for k, v in stored.items() if k in own or k.rpartition(".")[2] not in RETIRED_BUFFERS}
    missing = [k for k in own if k not in state]
    unexpected = [k for k in state if k not in own]
    wrong = [
        f"{k} {tuple(state[k].shape)} for {tuple(own[k].shape)}"
        for k in own
        if k in state and own[k].shape != state[k].shape
    ]
    if missing or unexpected or wrong:
        parts = [
            f"{len(found)} {what} ({', '.join(found[:3])}{', ...' if len(found) > 3 else ''})"
            for what, found in (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong))
            if found
        ]
        raise ValueError(f"{folder}: the tensors are of another network than '{meta.model}': {'; '.join(parts)}")
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:] if line.strip()] or [str(error)]
        raise ValueError(f"{folder}: {'; '.join(lines[:3])}") from error
