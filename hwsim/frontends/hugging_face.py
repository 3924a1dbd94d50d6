# pyright: basic
"""`hf:CONFIG`, `hf:path/config.json`, `hf:NAME[task]`: a transformers model with its head, by its configuration.

The class is the first of the configuration's `architectures`, or the task's; weights are never loaded. Example inputs
are those that the configuration implies: tokens, images, audio frames, or several of them.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hwsim.errors import WorkloadError
from hwsim.files.reading import read_text
from hwsim.frontends.language_models.stored import stored_codes

Shape = tuple[int, ...]
Shapes = Shape | Mapping[str, Shape] | None
TOKENS = 128
MAX_CONFIG_BYTES = 2**24
# Auto classes by the name of the task, as transformers' pipelines call them.
TASKS = {
    "text-generation": "AutoModelForCausalLM",
    "fill-mask": "AutoModelForMaskedLM",
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "text2text-generation": "AutoModelForSeq2SeqLM",
    "image-classification": "AutoModelForImageClassification",
    "object-detection": "AutoModelForObjectDetection",
    "image-segmentation": "AutoModelForSemanticSegmentation",
    "automatic-speech-recognition": "AutoModelForSpeechSeq2Seq",
    "speech-ctc": "AutoModelForCTC",
    "audio-classification": "AutoModelForAudioClassification",
    "feature-extraction": "AutoModel",
}


USUAL_HEADS = (
    "AutoModelForSpeechSeq2Seq", "AutoModelForSeq2SeqLM", "AutoModelForMaskedLM", "AutoModelForCausalLM",
    "AutoModelForImageClassification", "AutoModelForCTC",
)  # fmt: skip


def from_transformers(transformers: Any, name: str, shapes: Shapes) -> tuple[nn.Module, Any, str]:
    """The model without weights, an example input, and a note. `shapes`: of its main input, or by keyword."""
    plain, task = split_task(name)
    config = configuration(transformers, plain)
    for part in parts_of(config):
        if hasattr(part, "use_cache"):
            part.use_cache = False
    model = build(transformers, config, plain, task)
    return model, example_of(model, config, plain, shapes), stored_codes(config.to_dict())


def split_task(name: str) -> tuple[str, str]:
    """`NAME[task]` as (NAME, task); the task is "" where none is given. Raises WorkloadError for an unknown one."""
    found = re.fullmatch(r"(.*)\[([^\[\]]+)\]", name)
    if found is None:
        return name, ""
    if found[2] not in TASKS:
        raise WorkloadError(f"hf:{name}: unknown task {found[2]!r}; known: {', '.join(TASKS)}")
    return found[1], found[2]


def configuration(transformers: Any, name: str) -> Any:
    """The configuration of a folder, a config.json, a model type (`gpt2`) or a hub's name; no code of others runs."""
    path = Path(name)
    if path.suffix == ".json" or path.is_file():
        return from_file(transformers, path)
    if name in transformers.CONFIG_MAPPING and not path.is_dir():
        with contextlib.suppress(OSError):
            return transformers.AutoConfig.from_pretrained(name, trust_remote_code=False, local_files_only=True)
        return transformers.CONFIG_MAPPING[name]()
    try:
        return transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
    except OSError as problem:
        near = difflib.get_close_matches(name, list(transformers.CONFIG_MAPPING.keys()), 3)
        hint = f"did you mean {', '.join(near)}? " if near else ""
        why = next((line for line in str(problem).splitlines() if line.strip()), type(problem).__name__).rstrip(".")
        raise WorkloadError(
            f"hf:{name}: {hint}expected a model type such as gpt2, a folder, a config.json or a hub's name ({why})"
        ) from None


def from_file(transformers: Any, path: Path) -> Any:
    """The configuration that a config.json holds. Raises WorkloadError for anything else."""
    try:
        found = json.loads(read_text(path, MAX_CONFIG_BYTES))
    except OSError as problem:
        raise WorkloadError(f"{path}: cannot be read: {problem.strerror or problem}") from None
    except (ValueError, RecursionError) as problem:
        raise WorkloadError(f"{path}: not JSON: {problem}") from None
    kind = found.get("model_type") if isinstance(found, dict) else None
    if not isinstance(kind, str) or kind not in transformers.CONFIG_MAPPING:
        raise WorkloadError(
            f"{path}: model_type: expected one that transformers {transformers.__version__} knows, got {kind!r}"
        )
    return transformers.CONFIG_MAPPING[kind].from_dict(found)


def parts_of(config: Any) -> list[Any]:
    """A configuration and those inside it (text, vision, audio)."""
    inside = [
        getattr(config, key, None) for key in ("text_config", "vision_config", "audio_config", "encoder", "decoder")
    ]
    return [config, *(part for part in inside if part is not None and hasattr(part, "to_dict"))]


def build(transformers: Any, config: Any, name: str, task: str) -> nn.Module:
    """The class that `architectures` names, or the task's auto class; on the meta device."""
    wanted = (getattr(config, "architectures", None) or [None])[0]
    if task:
        make = getattr(transformers, TASKS[task]).from_config
    elif wanted is not None:
        found = getattr(transformers, wanted, None)
        if found is None:
            raise WorkloadError(
                f"hf:{name}: architectures: transformers {transformers.__version__} has no {wanted}; choose a head "
                f"with hf:{name}[TASK], one of {', '.join(TASKS)}"
            )
        make = getattr(found, "_from_config", found)
    else:
        make = usual_head(transformers, config).from_config
    try:
        with torch.device("meta"):
            return make(config).eval().to("meta")  # weight norms leave some of their tensors elsewhere
    except Exception:  # a constructor that needs values fails in its own way; the real build reports what is wrong
        return make(config).eval()


def usual_head(transformers: Any, config: Any) -> Any:
    """The auto class for a configuration that names no architecture: the first head that its type has."""
    for name in USUAL_HEADS:
        auto = getattr(transformers, name, None)
        if auto is not None and type(config) in auto._model_mapping:
            return auto
    return transformers.AutoModel


def example_of(model: Any, config: Any, name: str, shapes: Shapes) -> dict[str, torch.Tensor]:
    """Zeros for every argument that the model's forward needs."""
    arguments = inspect.signature(model.forward).parameters
    main = model.main_input_name
    given = {main: shapes} if isinstance(shapes, tuple) else dict(shapes or {})
    if "" in given:
        given.setdefault(main, given.pop(""))
    strange = [key for key in given if key not in arguments]
    if strange:
        raise WorkloadError(
            f"hf:{name}: --input {strange[0]}=...: no such argument; it has {', '.join(list(arguments)[:12])}"
        )
    needed = [main]
    if "decoder_input_ids" in arguments and getattr(config, "is_encoder_decoder", False):
        needed.append("decoder_input_ids")
    if (main == "pixel_values" and "input_ids" in arguments) or (main == "input_ids" and "pixel_values" in arguments):
        needed = ["input_ids", "pixel_values"]
    made: dict[str, torch.Tensor] = {}
    for key in dict.fromkeys([*needed, *given]):
        shape = given.get(key) or default_shape(config, key)
        if shape is None:
            raise WorkloadError(f"hf:{name}: give the shape of its {key} with --input {key}=1,...")
        whole = key.endswith(("ids", "mask"))
        made[key] = torch.zeros(shape, dtype=torch.long if whole else torch.float32, device=device_of(model))
    return made


def device_of(model: nn.Module) -> torch.device:
    """Where the model's parameters are."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def default_shape(config: Any, key: str) -> Shape | None:
    """The shape that a configuration implies for an argument; None: it implies none."""
    parts = parts_of(config)
    if key.endswith(("ids", "mask")):
        limits = [getattr(part, "max_position_embeddings", None) for part in parts]
        return (1, min([TOKENS, *(n for n in limits if isinstance(n, int) and n > 0)]))
    if key == "pixel_values":
        for part in parts:
            size = getattr(part, "image_size", None)
            size = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, list | tuple) else None
            if size is not None:
                return (1, getattr(part, "num_channels", 3), *size)
    if key == "input_features" and hasattr(config, "num_mel_bins"):
        return (1, config.num_mel_bins, 2 * getattr(config, "max_source_positions", 1500))
    if key == "input_values":
        return (1, 16000)
    return None
