# pyright: basic
"""What a MODEL argument may be, and the workload behind it: `load_model_argument(text, input_shape)`.

Files are read as data and never executed. `package.module:factory`, `timm:` and `hf:` import and run code by design:
that is what they name. Networks of the zoo are built on the meta device, so no weight is ever allocated.
"""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hwsim.errors import WorkloadError
from hwsim.files import plugins
from hwsim.frontends.files.onnx_graph import read_onnx
from hwsim.frontends.files.pt2 import read_pt2
from hwsim.frontends.files.tflite import read_tflite_graph
from hwsim.frontends.files.tflite_file import IDENTIFIER
from hwsim.frontends.forms import FORMS
from hwsim.frontends.hugging_face import from_transformers
from hwsim.frontends.lowering.lower import lower
from hwsim.frontends.lowering.table import HANDLERS
from hwsim.frontends.torch_export import extract, first_line
from hwsim.network.layer import MAX_ELEMENTS
from hwsim.network.saved import load_workload
from hwsim.network.workload import FORMAT, Workload
from quant import checkpoint, models
from quant.own_code import own_module
from quant.tracing import no_logs

Shape = tuple[int, ...]
Shapes = Shape | Mapping[str, Shape] | None
FILE_SUFFIXES = (
    ".json",
    ".pt2",
    ".pt",
    ".pth",
    ".th",
    ".ckpt",
    ".bin",
    ".safetensors",
    ".npz",
    ".npy",
    ".gguf",
    ".onnx",
    ".tflite",
    ".h5",
    ".pb",
)


def load_model_argument(text: str, input_shape: Shapes = None, *, allow_uncosted: bool = False) -> Workload:
    """The workload that MODEL names. `input_shape` includes the batch; None means the model's own default; shapes by an
    input's name where there are several.

    Raises WorkloadError, with what was expected and the nearest names, for anything that is none of the forms;
    UnsupportedOp where operators have no price.
    """
    text = text.strip()
    if not text or "\0" in text:
        raise WorkloadError(f"MODEL: expected {FORMS}; got {text!r}")
    check_shapes(input_shape)
    prefix, colon, rest = text.partition(":")
    if colon and prefix in LIBRARIES:
        return from_library(prefix, rest, input_shape, allow_uncosted)
    read = plugins.importer(prefix) if colon else None
    if read is not None:
        return from_plugin(text, read, input_shape, allow_uncosted)
    path = Path(text)
    if path.exists() or path.suffix.lower() in FILE_SUFFIXES or text.endswith("/"):
        return from_path(path, input_shape, allow_uncosted)
    if colon:
        return from_factory(text, input_shape, allow_uncosted)
    if text in models.names():
        return from_zoo(text, one_shape(text, input_shape), allow_uncosted)
    near = difflib.get_close_matches(text, models.names(), 3)
    gone = "there is no such file or folder; " if len(path.parts) > 1 else ""
    hint = f"{gone}did you mean {', '.join(near)}? " if near else gone
    raise WorkloadError(f"MODEL {text!r}: {hint}expected {FORMS}; the zoo has {', '.join(models.names())}")


def check_shapes(shapes: Shapes) -> None:
    """Sizes are positive, and within what counts can hold. Raises WorkloadError."""
    given = [shapes] if isinstance(shapes, tuple) else list((shapes or {}).values())
    for shape in given:
        if not shape or any(n < 1 for n in shape):
            raise WorkloadError(f"--input: expected positive sizes, got {shape}")
        if math.prod(shape) > MAX_ELEMENTS:
            raise WorkloadError(
                f"--input: {shape} are {math.prod(shape):,} elements; up to {MAX_ELEMENTS:,} are counted"
            )


def one_shape(text: str, shapes: Shapes) -> Shape | None:
    """The only shape, for models with one input. Raises WorkloadError where shapes are given by name."""
    if shapes is None or isinstance(shapes, tuple):
        return shapes
    raise WorkloadError(f"{text}: --input by name is for files, hf: and factories; here give one shape")


# -- files -------------------------------------------------------------------------------------------------------------


def from_path(path: Path, input_shape: Shapes, allow_uncosted: bool) -> Workload:
    """A checkpoint folder or a network file, told apart by content."""
    if path.is_dir():
        if checkpoint.is_checkpoint(path):
            return from_checkpoint(path, one_shape(str(path), input_shape), allow_uncosted)
        raise WorkloadError(f"{path}: a folder without {checkpoint.SETTINGS} is no checkpoint; expected {FORMS}")
    if not path.exists():
        raise WorkloadError(f"{path}: no such file; MODEL is {FORMS}")
    if not path.is_file():
        raise WorkloadError(f"{path}: a device or pipe: expected {FORMS}")
    try:
        with path.open("rb") as file:
            start = file.read(256)
    except OSError as problem:
        raise WorkloadError(f"{path}: cannot be read: {problem.strerror or problem}") from None
    if not start:
        raise WorkloadError(f"{path}: file is empty: expected {FORMS}")
    if start[:4] == b"PK\x03\x04" and path.suffix.lower() != ".npz":
        return lower(read_pt2(path, one_shape(str(path), input_shape)), HANDLERS, allow_uncosted)
    suffix = path.suffix.lower()
    if start[4:8] == IDENTIFIER or suffix == ".tflite":
        return lower(read_tflite_graph(path, input_shape), HANDLERS, allow_uncosted)
    if suffix in (".onnx", ".qonnx"):
        return lower(read_onnx(path, input_shape), HANDLERS, allow_uncosted)
    if suffix == ".json" or FORMAT.encode() in start:
        return load_workload(path)
    if suffix == ".pt2":
        raise WorkloadError(f"{path}: not a .pt2 archive (it is no zip file): truncated, or another kind of file")
    if start[:1] == b"\x80" or suffix in (".pt", ".pth", ".th", ".ckpt", ".bin"):
        raise WorkloadError(
            f"{path}: looks like a pickled file; it is not loaded, because unpickling runs what the file contains. "
            "Weights do not change the cost: give the network's zoo name, or package.module:factory"
        )
    if suffix in (".npz", ".npy", ".safetensors", ".gguf", ".h5"):
        raise WorkloadError(
            f"{path}: holds weights without a network; weights do not change the cost: give the network's zoo name, or "
            "package.module:factory, and load the weights there if their bits matter"
        )
    raise WorkloadError(f"{path}: not a network file this version reads; MODEL is {FORMS}")


def from_checkpoint(folder: Path, input_shape: Shape | None, allow_uncosted: bool) -> Workload:
    """A checkpoint of ours, with the bits it was trained with."""
    try:
        model, meta = checkpoint.load(folder)
    except (ValueError, OSError) as problem:
        raise WorkloadError(f"{problem}") from None
    if input_shape is None and not meta.input_shape:
        raise WorkloadError(f"{folder}: its settings name no input shape: give one with --input 1,3,224,224")
    shape = input_shape or (1, *meta.input_shape)
    name = f"{meta.model} ({folder.name})"
    found = extract(model, torch.zeros(shape), name=name, allow_uncosted=allow_uncosted)
    return found.with_identity(checkpoint.identity(folder))


# -- networks by name --------------------------------------------------------------------------------------------------


def from_zoo(name: str, input_shape: Shape | None, allow_uncosted: bool) -> Workload:
    """A network of the zoo, at its default input or another that its arguments allow."""
    entry = models.info(name)
    shape = input_shape or (1, *entry.input_shape)
    if len(shape) != 1 + len(entry.input_shape):
        like = ",".join(str(n) for n in (1, *entry.input_shape))
        raise WorkloadError(f"{name}: --input: expected {1 + len(entry.input_shape)} sizes like {like}, got {shape}")
    try:
        with torch.device("meta"):
            model = models.create(name, **arguments_for(entry, shape[1:]))
    except ValueError as problem:
        raise WorkloadError(f"{name}: cannot be built for an input of shape {shape}: {problem}") from None
    with torch.device("meta"):
        return extract(model, torch.zeros(shape), name=name, allow_uncosted=allow_uncosted)


def load_variant(name: str, resolution: int | None = None, width: float | None = None) -> Workload:
    """A zoo network at another resolution or width multiplier. Raises WorkloadError where it has no such argument."""
    if name not in models.names():
        raise WorkloadError(
            f"{name}: only networks of the zoo vary in resolution and width: {', '.join(models.names())}"
        )
    entry = models.info(name)
    if width is not None and "width" not in entry.arguments():
        raise WorkloadError(f"{name}: has no width multiplier; its arguments: {', '.join(entry.arguments())}")
    shape = entry.input_shape if resolution is None else (*entry.input_shape[:-2], resolution, resolution)
    chosen = arguments_for(entry, shape) | ({} if width is None else {"width": width})
    label = name + (f"@{resolution}" if resolution else "") + (f" x{width:g}" if width is not None else "")
    try:
        with torch.device("meta"):
            return extract(models.create(name, **chosen), torch.zeros((1, *shape)), name=label)
    except ValueError as problem:
        raise WorkloadError(f"{label}: cannot be built: {problem}") from None


def arguments_for(entry: models.ModelInfo, shape: Shape) -> dict[str, Any]:
    """The factory's arguments (in_channels, image_size, ...) that make it expect this input, as far as it has them."""
    chosen: dict[str, Any] = {}
    probe = 7919  # a size that is no default
    for key, default in entry.arguments().items():
        if not isinstance(default, int) or isinstance(default, bool):
            continue
        moved = entry.input_shape_for(**{key: probe})
        axes = [i for i, (old, new) in enumerate(zip(entry.input_shape, moved, strict=True)) if old != new]
        sizes = {shape[i] for i in axes}
        if len(sizes) == 1 and shape[axes[0]] != entry.input_shape[axes[0]]:
            chosen[key] = shape[axes[0]]
    return chosen


def from_factory(text: str, input_shape: Shapes, allow_uncosted: bool) -> Workload:
    """`package.module:factory`: imports the module and calls the factory, which returns a torch module, or a pair
    (module, example input)."""
    module_name, _, attribute = text.partition(":")
    if not module_name or not attribute.replace(".", "").isidentifier():
        raise WorkloadError(f"MODEL {text!r}: expected package.module:factory; or {FORMS}")
    try:
        module = own_module(module_name)
    except Exception as problem:  # an imported module may fail in any way
        raise WorkloadError(f"{text}: importing {module_name} failed: {type(problem).__name__}: {problem}") from None
    factory: Any = module
    for part in attribute.split("."):
        if not hasattr(factory, part):
            near = difflib.get_close_matches(part, [n for n in dir(factory) if not n.startswith("_")], 3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise WorkloadError(f"{text}: {module_name} has no {part!r}{hint}")
        factory = getattr(factory, part)
    try:
        made = factory() if not isinstance(factory, nn.Module) else factory
    except Exception as problem:  # a factory is the user's code
        raise WorkloadError(f"{text}: calling it failed: {type(problem).__name__}: {first_line(problem)}") from None
    model, example = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(model, nn.Module):
        raise WorkloadError(f"{text}: expected it to return a torch.nn.Module, got {type(model).__name__}")
    if isinstance(input_shape, tuple):
        example = torch.zeros(input_shape)
    elif input_shape is not None:
        example = {**(example if isinstance(example, dict) else {}), **by_keyword(text, input_shape)}
    if example is None:
        raise WorkloadError(
            f"{text}: give the input's shape with --input 1,3,224,224, or let the factory return (module, example)"
        )
    return extract(model, example, name=text, allow_uncosted=allow_uncosted)


def from_plugin(text: str, read: Callable[[str, Any], Any], input_shape: Shapes, allow_uncosted: bool) -> Workload:
    """What an installed plug-in makes of the words behind its prefix: a Workload, or (torch module, example input)."""
    try:
        made = read(text.partition(":")[2], input_shape)
    except WorkloadError:
        raise
    except Exception as problem:  # a plug-in is somebody else's code
        raise WorkloadError(f"{text}: its plug-in failed: {type(problem).__name__}: {first_line(problem)}") from None
    if isinstance(made, Workload):
        return made
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module):
        return extract(*made, name=text, allow_uncosted=allow_uncosted)
    raise WorkloadError(f"{text}: its plug-in returned {type(made).__name__}; expected a Workload or (module, example)")


def by_keyword(text: str, shapes: Mapping[str, Shape]) -> dict[str, torch.Tensor]:
    """Zeros for each named argument; whole numbers where the name says that they are positions or masks."""
    if "" in shapes:
        raise WorkloadError(f"{text}: --input: name every shape (NAME=1,128), or give one shape alone")
    whole = ("ids", "mask", "index", "indices", "tokens", "positions", "labels")
    return {
        name: torch.zeros(shape, dtype=torch.long if name.endswith(whole) else torch.float32)
        for name, shape in shapes.items()
    }


def from_library(prefix: str, name: str, input_shape: Shapes, allow_uncosted: bool) -> Workload:
    """timm, torchvision or transformers, where they are installed."""
    package, builder = LIBRARIES[prefix]
    try:
        with no_logs():  # some log what they miss, beside the error that they raise
            library = importlib.import_module(package)
    except Exception as problem:  # beside another build of torch an import may fail in any way
        raise not_importable(prefix, name, package, problem) from None
    if not name:
        raise WorkloadError(f"{prefix}: expected a name after the colon")
    try:
        model, example, note = builder(library, name, input_shape)
    except WorkloadError:
        raise
    except ImportError as problem:  # libraries import the module behind a name when it is asked for
        raise not_importable(prefix, name, package, problem) from None
    except Exception as problem:  # libraries answer unknown names and offline machines in their own ways
        raise WorkloadError(f"{prefix}:{name}: {type(problem).__name__}: {first_line(problem)}") from None
    made = extract(model, example, name=name, allow_uncosted=allow_uncosted)
    return Workload(made.name, list(made), made.coverage, (*made.notes, note)) if note else made


def not_importable(prefix: str, name: str, package: str, problem: BaseException) -> WorkloadError:
    """One message for every import that failed, with the reason at its root: often a torchvision for another torch."""
    while (under := problem.__cause__ or problem.__context__) is not None:
        problem = under
    return WorkloadError(
        f"{prefix}:{name}: needs {package}, which cannot be imported ({type(problem).__name__}: "
        f"{first_line(problem)}): pip install 'hwsim[zoo]', in a version that fits torch {torch.__version__}"
    )


def from_timm(timm: Any, name: str, shapes: Shapes) -> tuple[nn.Module, Any, str]:
    """A timm model without weights, at the input size of its default configuration."""
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 3)
        raise WorkloadError(f"timm:{name}: no such model; did you mean {', '.join(near) or 'another name'}?")
    model: Any = without_weights(lambda: timm.create_model(name, pretrained=False))
    return model, like(model, one_shape(f"timm:{name}", shapes) or (1, *model.default_cfg["input_size"])), ""


def from_torchvision(torchvision: Any, name: str, shapes: Shapes) -> tuple[nn.Module, Any, str]:
    """A torchvision model without weights, at 224 x 224."""
    known = torchvision.models.list_models()
    if name not in known:
        near = difflib.get_close_matches(name, known, 3)
        raise WorkloadError(f"torchvision:{name}: no such model; did you mean {', '.join(near) or 'another name'}?")
    model = without_weights(lambda: torchvision.models.get_model(name, weights=None))
    return model, like(model, one_shape(f"torchvision:{name}", shapes) or (1, 3, 224, 224)), ""


def without_weights(build: Callable[[], nn.Module]) -> nn.Module:
    """The model on the meta device; with real weights where its constructor computes with values."""
    try:
        with torch.device("meta"):
            return build()
    except Exception:  # any constructor that needs values fails in its own way; the real build reports what is wrong
        return build()


def like(model: nn.Module, shape: Shape) -> torch.Tensor:
    """Zeros on the device of the model's parameters."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    return torch.zeros(shape, device=device)


LIBRARIES: dict[str, tuple[str, Callable[[Any, str, Shapes], tuple[nn.Module, Any, str]]]] = {
    "timm": ("timm", from_timm),
    "torchvision": ("torchvision", from_torchvision),
    "hf": ("transformers", from_transformers),
}
