"""Trained weights: `load_pretrained(name, folder)` for known files, `read_state_dict` and `load_into` for a user's own.

Nothing is unpickled: `.th`/`.pt`/`.pth` go through torch's weights-only reader, `.npz` through numpy without objects,
`.safetensors` through its library. `load_into` takes the names of this zoo, of timm, and of torchvision (ResNet,
MobileNetV2, EfficientNet-B0, ViT-B/16), with or without the prefixes that wrappers leave.
"""

import hashlib
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from quant import models
from quant.data import IMAGENET, PIXELS_0_255, UNIT, Normalisation

State = dict[str, Tensor]


@dataclass(frozen=True)
class Trained:
    """A public file of trained weights: its place below the data folder, its input scale, what it reaches."""

    file: str
    sha256_start: str
    convert: Callable[[State], State]
    normalisation: Normalisation
    data: str
    top1_percent: float | None
    source: str


def load_pretrained(name: str, folder: str | Path) -> nn.Module:
    """The zoo's network `name` with its public trained weights, in eval mode.

    `folder` is the data folder (it contains e.g. `pretrained/resnet20-12fca82f.th`) or the one that holds the file.
    ValueError for a name without known weights, FileNotFoundError for an absent file, ValueError for a changed one.
    """
    entry = trained(name)
    path = Path(folder) / entry.file
    if not path.exists():
        path = Path(folder) / Path(entry.file).name
    if not path.exists():
        raise FileNotFoundError(f"{name}: expected {entry.file} (or its last part) in {folder}, from {entry.source}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(entry.sha256_start):
        raise ValueError(
            f"{path}: expected a file with sha256 {entry.sha256_start}..., got {digest[:12]}...: fetch it anew"
        )
    model = models.create(name)
    load_into(model, entry.convert(read_state_dict(path)), where=str(path))
    return model.eval()


def trained(name: str) -> Trained:
    """The entry of a name whose trained weights are known; ValueError with the known names otherwise."""
    if name not in TRAINED:
        raise ValueError(f"no trained weights known for '{name}': known are {', '.join(TRAINED)}")
    return TRAINED[name]


def read_state_dict(path: str | Path) -> State:
    """Tensors by name out of a .th/.pt/.pth (weights only), .npz or .safetensors file, prefixes removed."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a file of weights (.safetensors, .pt, .pth, .th or .npz)")
    try:
        raw = _read(path)
    except Exception as error:  # the readers answer hostile bytes with many kinds (KeyError, struct.error, ...)
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise ValueError(
            f"{path}: expected tensors only (a state dict), could not read it: {reason}. "
            "Save it with torch.save(model.state_dict(), ...) or as safetensors"
        ) from error
    return _unwrap(raw, path)


def _read(path: Path) -> object:
    if path.suffix == ".safetensors":
        return load_file(path)
    if path.suffix == ".npz":
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected pickle protocol")
        return torch.load(path, map_location="cpu", weights_only=True)


def _unwrap(raw: object, path: Path) -> State:
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(raw, Mapping) and isinstance(raw.get(key), Mapping):
            raw = raw[key]
    if not isinstance(raw, Mapping) or not raw:
        raise ValueError(f"{path}: expected a dictionary of tensors by name, got {type(raw).__name__}")
    state: State = {}
    for key, value in raw.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{path}: '{key}': expected a tensor, got {type(value).__name__}")
        state[re.sub(r"^(module\.|_orig_mod\.)+", "", str(key))] = value
    return state


def load_into(model: nn.Module, state: Mapping[str, Tensor], *, where: str = "state dict") -> None:
    """Copy `state` into `model`, all of it and nothing missing; names of timm and torchvision are understood.

    Raises ValueError that lists missing, unexpected and wrongly shaped tensors.
    """
    own = model.state_dict()
    state = _rename(own, dict(state))
    for key, tensor in state.items():
        # timm's resnetv2 classifies with a 1x1 convolution.
        if key in own and tensor.dim() == 4 and own[key].dim() == 2 and tensor.shape[2:] == (1, 1):
            state[key] = tensor.flatten(1)
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in own]
    shapes = [f"{k} {tuple(state[k].shape)} for {tuple(own[k].shape)}" for k in own if k in state]
    wrong = [s for k, s in zip((k for k in own if k in state), shapes, strict=True) if state[k].shape != own[k].shape]
    if missing or unexpected or wrong:
        parts = [
            f"{len(items)} {what} ({', '.join(items[:4])}{', ...' if len(items) > 4 else ''})"
            for what, items in (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong))
            if items
        ]
        raise ValueError(f"{where}: not the weights of this {type(model).__name__}: {'; '.join(parts)}")
    model.load_state_dict(state, strict=False)


def _rename(own: State, state: State) -> State:
    if set(state) <= set(own):
        return state
    if "encoder.pos_embedding" in state:
        return {_vit_name(k): v for k, v in state.items()}
    if "features.0.0.weight" in state:
        return _by_position(own, state)
    return state


_VIT_NAMES = (
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^class_token$", "cls_token"),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.mlp\.(?:0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(?:3|linear_2)\.", ".mlp.fc2."),
    (r"^encoder\.ln\.", "norm."),
    (r"^heads\.head\.", "head."),
)


def _vit_name(name: str) -> str:
    for pattern, ours in _VIT_NAMES:
        name = re.sub(pattern, ours, name)
    return name


def _by_position(own: State, state: State) -> State:
    """torchvision's `features.1.0.block...` in the order of ours: both register layers in the order they are called.

    Accepted only when every tensor's last name (weight, bias, running_mean, ...) and shape agree, one by one.
    """
    kept = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    ours = [k for k in own if not k.endswith("num_batches_tracked")]
    if len(kept) != len(ours):
        return state
    for mine, (theirs, tensor) in zip(ours, kept.items(), strict=True):
        if mine.rsplit(".", 1)[-1] != theirs.rsplit(".", 1)[-1] or own[mine].shape != tensor.shape:
            return state
    return dict(zip(ours, kept.values(), strict=True))


def _same(state: State) -> State:
    return state


def _keras_layer(state: State, theirs: str, ours: str) -> State:
    """One Keras layer: HWIO kernels to (K, C, R, S), depthwise (R, S, C, 1) to (C, 1, R, S), dense (C, K) to (K, C)."""
    names = {
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
        "bias": "bias",
    }
    out: State = {}
    for key, value in state.items():
        layer, _, part = key.rpartition("/")
        if layer != theirs:
            continue
        if part == "kernel":
            out[f"{ours}.weight"] = value.permute(3, 2, 0, 1) if value.dim() == 4 else value.t()
        elif part == "depthwise_kernel":
            out[f"{ours}.weight"] = value.permute(2, 3, 0, 1)
        elif part in names:
            out[f"{ours}.{names[part]}"] = value
        else:
            raise ValueError(f"Keras layer {theirs}: unknown variable '{part}'")
    return {key: value.contiguous() for key, value in out.items()}


def _numbered(base: str, index: int) -> str:
    """Keras numbers the second and later layers of a kind: conv2d, conv2d_1, ..."""
    return base if index == 0 else f"{base}_{index}"


def _from_keras(state: State, pairs: list[tuple[str, str]]) -> State:
    out: State = {}
    for theirs, ours in pairs:
        out |= _keras_layer(state, theirs, ours)
    return out


def resnet8_from_keras(state: State) -> State:
    """mlcommons/tiny `resnet_v1_eembc`: convolutions in call order; the 1x1 shortcuts are conv2d_5 and conv2d_8."""
    conv = {"stem": 0, "blocks.0.first": 1, "blocks.0.second": 2, "blocks.1.first": 3, "blocks.1.second": 4}
    conv |= {"blocks.2.first": 6, "blocks.2.second": 7}
    pairs = [("conv2d_5", "blocks.1.shortcut"), ("conv2d_8", "blocks.2.shortcut"), ("dense", "linear")]
    for norm, (ours, index) in enumerate(conv.items()):
        pairs += [(_numbered("conv2d", index), f"{ours}.conv")]
        pairs += [(_numbered("batch_normalization", norm), f"{ours}.bn")]
    return _from_keras(state, pairs)


def mobilenet_v1_025_from_keras(state: State) -> State:
    """mlcommons/tiny `vww_model`: stem, then 13 pairs depthwise_conv2d_i, conv2d_(i+1), a batch norm after each."""
    pairs = [("conv2d", "stem.conv"), ("batch_normalization", "stem.bn"), ("dense", "linear")]
    for i in range(13):
        pairs += [(_numbered("depthwise_conv2d", i), f"blocks.{i}.0.conv"), (f"conv2d_{i + 1}", f"blocks.{i}.1.conv")]
        pairs += [(f"batch_normalization_{2 * i + 1}", f"blocks.{i}.0.bn")]
        pairs += [(f"batch_normalization_{2 * i + 2}", f"blocks.{i}.1.bn")]
    return _from_keras(state, pairs)


_AKAMASTER = "github.com/akamaster/pytorch_resnet_cifar10, pretrained_models (BSD-2-Clause)"
_TINY = "github.com/mlcommons/tiny, benchmark/training, Keras variables as arrays (Apache-2.0)"
TRAINED: dict[str, Trained] = {
    "resnet20": Trained("pretrained/resnet20-12fca82f.th", "12fca82f", _same, IMAGENET, "cifar10", 91.73, _AKAMASTER),
    "resnet44": Trained("pretrained/resnet44-014dd654.th", "014dd654", _same, IMAGENET, "cifar10", 93.10, _AKAMASTER),
    "resnet56": Trained("pretrained/resnet56-4bfd9763.th", "4bfd9763", _same, IMAGENET, "cifar10", 93.39, _AKAMASTER),
    "resnet8": Trained(
        "mlperf_tiny/ic_resnet8_fp32.npz", "", resnet8_from_keras, PIXELS_0_255, "cifar10", 87.20, _TINY
    ),
    "mobilenet_v1_025": Trained(
        "mlperf_tiny/vww_mobilenetv1_0.25_96_fp32.npz", "", mobilenet_v1_025_from_keras, UNIT, "vww", None, _TINY
    ),
}
