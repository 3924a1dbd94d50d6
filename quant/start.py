"""Where a run begins: the float network and its weights, the bits, and the command-line arguments that choose them."""

import argparse
import math
import os
from dataclasses import replace
from typing import Any

from torch import nn

from quant import checkpoint, models, weights
from quant.argument import named
from quant.checkpoint import Meta
from quant.data import NAMES, Dataset, Normalisation
from quant.short_names import short_name, with_short_name
from quant.spec import (
    FORMATS,
    GRANULARITIES,
    INIT_NAMES,
    METHOD_NAMES,
    PADDING_POLICIES,
    POSITIVITY,
    SCALE_RULES,
)


def parse_bits(text: str) -> tuple[int, int] | None:
    """'W4A8' -> (4, 8), 'MXFP4' -> (4, 4), 'float' -> None. ValueError otherwise.

    >>> parse_bits("W2A4"), parse_bits("w8a8"), parse_bits("float")
    ((2, 4), (8, 8), None)
    """
    meant = short_name(text)
    return None if meant is None else (meant["weight_bits"], meant["act_bits"])


def named_source(source: str, weights: str | None) -> tuple[str | None, str]:
    """(zoo name or None, weights) of SOURCE: a checkpoint folder, or a zoo network with weights of its own.

    ValueError where it is neither.
    """
    if checkpoint.is_checkpoint(source):
        return None, source
    try:
        models.info(source)
    except ValueError as unknown:
        place = "holds no checkpoint" if os.path.isdir(source) else "no such checkpoint folder"
        raise ValueError(f"{source}: {place}; {unknown}") from None
    return source, weights or "pretrained"


def starting_point(
    model_name: str | None,
    source: str | None,
    data: Dataset,
    *,
    data_dir: str | None = None,
    model_arguments: dict[str, Any] | None = None,
    normalisation: Normalisation | None = None,
) -> tuple[nn.Module, Meta]:
    """The float network to begin with, loaded, and what is known of it.

    `source`: None (random weights), 'pretrained' (public weights below the data folder), a checkpoint folder of a float
    network, or a file of weights, which needs `normalisation`: how its training scaled the pixels. ValueError when
    network, weights and data do not fit together.
    """
    if source is not None and source != "pretrained" and checkpoint.is_checkpoint(source):
        model, meta = checkpoint.load(source)
        if meta.quantization is not None:
            raise ValueError(f"{source}: this network is already quantized; start from a float one")
        if model_name not in (None, meta.model):
            raise ValueError(f"{source}: holds a {meta.model}, not the {model_name} asked for")
        if meta.num_classes != data.num_classes or meta.input_shape != data.train.shape():
            raise ValueError(
                f"{source}: made for {meta.num_classes} classes of {meta.input_shape}, "
                f"{data.name} has {data.num_classes} of {data.train.shape()}"
            )
        meta = replace(meta, normalisation=agreed(meta.normalisation, normalisation, source))
        return model, replace(meta, metrics={}, training={})
    if model_name is None:
        raise ValueError(f"--model: expected one of {', '.join(models.names())}")
    if source == "pretrained":
        folder = data_dir or os.environ.get("HWSIM_DATA")
        if folder is None:
            raise FileNotFoundError("--weights pretrained: no data folder: pass --data-dir FOLDER or set HWSIM_DATA")
        entry = weights.trained(model_name)
        model = weights.load_pretrained(model_name, folder)
        scale = agreed(entry.normalisation, normalisation, f"the public weights of {model_name}")
        return model, Meta(model_name, {}, None, data.train.shape(), data.num_classes, data.name, scale)
    chosen = fitting_arguments(model_name, data, dict(model_arguments or {}))
    model = models.create(model_name, **chosen)
    if source is not None:
        weights.load_into(model, weights.read_state_dict(source), where=source)
        if normalisation is None:
            raise ValueError(
                f"{source}: a file of weights does not say how the pixels of its training were scaled: give --mean and "
                "--std per channel, of pixels in 0..1 (--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 for ImageNet's)"
            )
    scale = normalisation or data.normalisation
    return model, Meta(model_name, chosen, None, data.train.shape(), data.num_classes, data.name, scale)


def agreed(known: Normalisation | None, given: Normalisation | None, where: str) -> Normalisation | None:
    """What is known of the normalisation, or what was given where nothing is; ValueError where they differ."""
    if known is not None and given is not None and known != given:
        raise ValueError(
            f"{where}: trained with mean {known.mean} and std {known.std}, got {given.mean} and {given.std}: leave out "
            "--mean and --std"
        )
    return known or given


def given_normalisation(arguments: argparse.Namespace) -> Normalisation | None:
    """--mean and --std, or None where neither is given."""
    mean, std = arguments.mean, arguments.std
    if (mean is None) != (std is None):
        raise ValueError(f"--{'std' if std is None else 'mean'}: missing; --mean and --std go together")
    if mean is None:
        return None
    if len(mean) != len(std) or min(std) <= 0 or not all(map(math.isfinite, (*mean, *std))):
        raise ValueError(f"--mean, --std: expected as many finite numbers, std above 0, got {mean} and {std}")
    return Normalisation(tuple(mean), tuple(std))  # a checkpoint gives lists back


def fitting_arguments(name: str, data: Dataset, given: dict[str, Any]) -> dict[str, Any]:
    """Zoo arguments that fit the data (classes, channels, image size) where the family takes them; `given` wins."""
    entry = models.info(name)
    known = entry.arguments()
    channels, height, _ = data.train.shape()
    wanted = {"num_classes": data.num_classes, "in_channels": channels, "image_size": height}
    chosen = {key: value for key, value in wanted.items() if key in known and value != known[key]}
    chosen |= given
    models.create(name, **chosen)
    return chosen


def add_start_arguments(group: Any) -> None:
    """--model-arg, --data and the like, common to training and calibration."""
    group.add_argument("--model-arg", type=_model_argument, action="append", metavar="NAME=NUMBER")
    group.add_argument(
        "--data", type=named, default="digits",
        help=f"{', '.join(NAMES)}, a .npz of arrays, a folder of images (train/CLASS, val/CLASS), or "
        "package.module:function that returns a quant.data.Dataset (default: %(default)s)",
    )  # fmt: skip
    group.add_argument("--image-size", type=int, help="side of the images cut out of a folder's (default: 224)")
    group.add_argument("--mean", type=numbers, metavar="M[,M,M]", help="per channel, of pixels scaled to 0..1")
    group.add_argument("--std", type=numbers, metavar="S[,S,S]", help="per channel, of pixels scaled to 0..1")
    group.add_argument("--data-dir", type=named, help="folder of the data (default: $HWSIM_DATA)")
    group.add_argument("--validation", type=int, help="training images kept apart (default: a tenth, at most 5,000)")
    group.add_argument("--data-seed", type=int, default=0, help="seed of the validation split")


def add_quantization_arguments(group: Any, bits: str, init: str) -> None:
    """--bits and what goes with it; `bits` and `init` are the defaults."""
    group.add_argument("--bits", default=bits, help="W4A4, W4g64A16, MXFP4, ... or float")
    group.add_argument("--config", default="auto", choices=["auto", "1", "2", "3", "4"], help="LSQ+ Table 1")
    group.add_argument(
        "--first-last", default="8bit", choices=["8bit", "same"], help="bits of the first and last layer"
    )
    group.add_argument("--elementwise-bits", default="8", help="of additions and products: a number, same, or float")
    group.add_argument("--padding-policy", default="pad_code", choices=PADDING_POLICIES)
    group.add_argument("--weight-granularity", default="tensor", choices=GRANULARITIES)
    group.add_argument(
        "--weight-group", type=int, default=0, metavar="G", help="weights along the input channels that share a step"
    )
    group.add_argument(
        "--weight-scale", choices=("fp32", "fp16"), default="fp32", help="numbers that steps per channel or group are"
    )
    group.add_argument("--weight-offset", action="store_true", help="an offset for each step of the weights")
    for side in ("weight", "act"):
        group.add_argument(f"--{side}-format", default="", choices=[*FORMATS], help="in place of the bits of --bits")
    group.add_argument(
        "--scale-rule", default="floor", choices=SCALE_RULES, help="of MX scales (default: the standard's)"
    )
    group.add_argument("--method", default="lsqplus", choices=METHOD_NAMES)
    group.add_argument(
        "--init", default=init, choices=INIT_NAMES, help="first steps and offsets (default: %(default)s)"
    )
    group.add_argument(
        "--positivity", default="absolute", choices=POSITIVITY,
        help="what keeps s positive: |s| after each step, or nothing, as LSQ is printed (default: %(default)s)",
    )  # fmt: skip
    group.add_argument("--overrides", type=named, help="YAML file: {layer name pattern: {choice: value}}")


def numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected numbers such as 0.485,0.456,0.406, got '{text}'") from error


def _model_argument(text: str) -> tuple[str, int | float]:
    key, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected NAME=NUMBER such as width=0.5, got '{text}'") from error
    return key, int(number) if number.is_integer() and "." not in value else number


def quantize_arguments(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Keyword arguments of `quant.quantize`, or None for float training."""
    elementwise = arguments.elementwise_bits
    if elementwise not in ("same", "float") and not elementwise.isdigit():
        raise ValueError(f"--elementwise-bits: expected a number, same, or float, got '{elementwise}'")
    given = {
        "config": arguments.config if arguments.config == "auto" else int(arguments.config),
        "first_last": arguments.first_last,
        "elementwise_bits": elementwise if elementwise in ("same", "float") else int(elementwise),
        "padding_policy": arguments.padding_policy,
        "weight_granularity": arguments.weight_granularity,
        "weight_group": arguments.weight_group,
        "weight_offset": arguments.weight_offset,
        "weight_format": arguments.weight_format,
        "act_format": arguments.act_format,
        "scale_rule": arguments.scale_rule,
        "weight_scale": arguments.weight_scale,
        "method": arguments.method,
        "init": arguments.init,
        "positivity": arguments.positivity,
        "overrides": arguments.overrides,
    }
    return with_short_name(arguments.bits, given, "--{}")
