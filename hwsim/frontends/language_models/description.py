"""What a decoder-only language model is, in numbers, read from a transformers configuration (config.json).

`FAMILIES` says for each `model_type` where its configuration keeps a number and what transformers takes where the key
is absent. Other families are refused by name with the reason; nothing is guessed.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from hwsim.errors import WorkloadError, reason
from hwsim.files.reading import read_text
from hwsim.frontends.language_models.stored import stored_codes

LARGEST = 2**31
MAX_LAYERS = 4096  # the deepest published models have a few hundred
MAX_CONFIG_BYTES = 2**24


@dataclass(frozen=True)
class Latent:
    """Latent attention (MLA, DeepSeek-V2): keys and values of a token come from `rank` numbers that all heads share.

    `query_rank` 0: queries are projected at once. `rope`: numbers of a head, and of the cache, that carry positions;
    `plain`: the others of a query or key; `value`: of a value.
    """

    query_rank: int
    rank: int
    rope: int
    plain: int
    value: int


@dataclass(frozen=True)
class LanguageModel:
    """Sizes of a decoder. `experts` 0: every block has one MLP. `window` 0: attention reaches back to the beginning.

    `gated`: the MLP multiplies an activation by a second projection (SwiGLU). `tied`: the head reads the embedding's
    table. `positions`: learned position vectors (0: rotary). `head_norms`: queries and keys are normalised per head.
    `expert_hidden`: of an expert; `shared` experts serve all tokens, the first `dense` blocks have one MLP.
    """

    name: str
    family: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    hidden: int
    vocabulary: int
    gated: bool
    tied: bool
    norm: str
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    positions: int = 0
    experts: int = 0
    chosen: int = 0
    window: int = 0
    head_norms: bool = False
    limit: int = 0  # tokens that the model's positions reach; 0: not said
    expert_hidden: int = 0
    shared: int = 0
    dense: int = 0
    latent: Latent | None = None
    stored: str = ""  # what is said of the codes of its weights


@dataclass(frozen=True)
class Family:
    """Where a configuration keeps its numbers.

    `defaults`: what transformers takes for absent or null keys; `absent`: for absent ones, where null means something
    else (as many KV heads as heads, no window). `bias`: of all linear layers; None: as `attention_bias` and `mlp_bias`
    say. `qkv_bias`: of queries, keys and values, whatever `bias` says.
    """

    keys: Mapping[str, str]
    gated: bool = True
    norm: str = "rms_norm"
    defaults: Mapping[str, Any] = field(default_factory=dict[str, Any])
    absent: Mapping[str, int] = field(default_factory=dict[str, int])
    bias: bool | None = None
    qkv_bias: bool = False
    learned_positions: bool = False
    head_norms: bool = False
    windowed: bool = False
    every_block: Mapping[str, Any] = field(default_factory=dict[str, Any])  # keys whose other values are not built


LLAMA_KEYS = {
    "layers": "num_hidden_layers", "width": "hidden_size", "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads", "head_width": "head_dim", "hidden": "intermediate_size",
    "vocabulary": "vocab_size", "limit": "max_position_embeddings",
}  # fmt: skip
GPT2_KEYS = {
    "layers": "n_layer", "width": "n_embd", "heads": "n_head", "hidden": "n_inner", "vocabulary": "vocab_size",
    "limit": "n_positions",
}  # fmt: skip
LATENT_KEYS = {
    "query_rank": "q_lora_rank", "rank": "kv_lora_rank", "rope": "qk_rope_head_dim", "plain": "qk_nope_head_dim",
    "value": "v_head_dim",
}  # fmt: skip
DEEPSEEK_KEYS = {
    **LLAMA_KEYS, **LATENT_KEYS, "experts": "n_routed_experts", "chosen": "num_experts_per_tok",
    "expert_hidden": "moe_intermediate_size", "shared": "n_shared_experts", "dense": "first_k_dense_replace",
}  # fmt: skip
BIASED = {"attention_bias": False}
UNTIED, TIED = {"tie_word_embeddings": False}, {"tie_word_embeddings": True}
DEEPSEEK = {"q_lora_rank": 1536}
FAMILIES: dict[str, Family] = {
    "llama": Family(LLAMA_KEYS, defaults={**UNTIED, **BIASED, "mlp_bias": False}),
    "mistral": Family(
        LLAMA_KEYS, defaults=UNTIED, bias=False, windowed=True,
        absent={"num_key_value_heads": 8, "sliding_window": 4096},
    ),
    "qwen2": Family(
        LLAMA_KEYS, defaults={**UNTIED, "use_sliding_window": False}, bias=False, qkv_bias=True,
        absent={"num_key_value_heads": 32},
    ),
    "qwen3": Family(
        LLAMA_KEYS, defaults={**UNTIED, **BIASED, "use_sliding_window": False}, head_norms=True,
        absent={"num_key_value_heads": 32, "head_dim": 128},
    ),
    "gemma": Family(
        LLAMA_KEYS, defaults={**TIED, **BIASED}, absent={"num_key_value_heads": 16, "head_dim": 256}
    ),
    "mixtral": Family(
        {**LLAMA_KEYS, "experts": "num_local_experts", "chosen": "num_experts_per_tok"}, defaults=UNTIED,
        bias=False, windowed=True, absent={"num_key_value_heads": 8},
    ),
    "qwen3_moe": Family(
        {**LLAMA_KEYS, "experts": "num_experts", "chosen": "num_experts_per_tok", "hidden": "moe_intermediate_size"},
        defaults={**UNTIED, **BIASED, "use_sliding_window": False}, head_norms=True,
        every_block={"decoder_sparse_step": 1, "mlp_only_layers": []}, absent={"num_key_value_heads": 4},
    ),
    "phi3": Family(LLAMA_KEYS, defaults=UNTIED, bias=False, windowed=True),
    "starcoder2": Family(
        LLAMA_KEYS, gated=False, norm="layer_norm", defaults=TIED, bias=True, qkv_bias=True, windowed=True,
        every_block={"use_bias": True}, absent={"num_key_value_heads": 2},
    ),
    "deepseek_v2": Family(
        DEEPSEEK_KEYS, defaults={**UNTIED, **BIASED, "mlp_bias": False}, every_block={"moe_layer_freq": 1},
        absent={**DEEPSEEK, "n_shared_experts": 2},
    ),
    "deepseek_v3": Family(
        DEEPSEEK_KEYS, defaults={**UNTIED, **BIASED}, every_block={"moe_layer_freq": 1},
        absent={**DEEPSEEK, "n_shared_experts": 1, "first_k_dense_replace": 3},
    ),
    "gpt2": Family(
        GPT2_KEYS, gated=False, norm="layer_norm", defaults=TIED, bias=True, qkv_bias=True, learned_positions=True
    ),
}  # fmt: skip
ENCODER = "an encoder reads all tokens at once and keeps no cache: price it without --phase"
CROSS = "its decoder reads an encoder's keys and values, which --phase does not build: price one pass without it"
REFUSED: dict[str, str] = {
    **dict.fromkeys(("bert", "roberta", "distilbert", "electra", "deberta-v2", "modernbert"), ENCODER),
    **dict.fromkeys(("vit", "deit", "beit", "swin", "clip", "dinov2"), "an image has no tokens to generate: price it "
                    "without --phase"),
    **dict.fromkeys(("t5", "mt5", "bart", "whisper", "marian", "mbart"), CROSS),
    **dict.fromkeys(("mamba", "mamba2", "rwkv", "falcon_mamba"), "it keeps a state instead of keys and values, and its "
                    "scan has no price here"),
}  # fmt: skip


def read_configuration(argument: str) -> Mapping[str, Any]:
    """The configuration behind `PATH`, a folder with a config.json, or a model type that an installed transformers
    knows. Raises WorkloadError; executes nothing of the file."""
    path = Path(argument)
    path = path / "config.json" if path.is_dir() else path
    if path.suffix != ".json":
        return library_configuration(argument)
    try:
        found = json.loads(read_text(path, MAX_CONFIG_BYTES))
    except (OSError, UnicodeDecodeError) as problem:
        raise WorkloadError(f"{path}: cannot be read: {reason(problem)}") from None
    except (ValueError, RecursionError) as problem:
        raise WorkloadError(f"{path}: not JSON: {problem}") from None
    if not isinstance(found, dict):
        raise WorkloadError(f"{path}: expected an object with model_type, got {type(found).__name__}")
    return cast(Mapping[str, Any], found)


def library_configuration(name: str) -> Mapping[str, Any]:
    """The default configuration of a model type, of the installed transformers."""
    if name in REFUSED:
        return {"model_type": name}
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError:
        raise WorkloadError(
            f"hf:{name}: a model type by name needs transformers (pip install transformers); a config.json does not"
        ) from None
    known: Any = transformers.CONFIG_MAPPING
    if name not in known:
        raise WorkloadError(f"hf:{name}: expected a config.json or a model type; --phase knows {', '.join(FAMILIES)}")
    return {**cast(Mapping[str, Any], known[name]().to_dict()), "model_type": name}


def describe(config: Mapping[str, Any], name: str) -> LanguageModel:
    """The model that a configuration describes. Raises WorkloadError naming the key, or the family and the reason."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        why = REFUSED.get(str(kind), f"--phase knows {', '.join(FAMILIES)}")
        raise WorkloadError(f"hf:{name}: model_type {kind!r}: {why}")
    family = FAMILIES[kind]
    reader = Reader(config, family, name)
    width, heads = reader.number("width"), reader.number("heads")
    head_width = reader.number("head_width", width // heads or None)
    kv_heads = reader.number("kv_heads", heads)
    if heads % kv_heads:
        raise WorkloadError(
            f"hf:{name}: {family.keys['kv_heads']}: expected a divisor of {heads} heads, got {kv_heads}"
        )
    experts = reader.number("experts") if "experts" in family.keys else 0
    chosen = reader.number("chosen") if experts else 0
    if chosen > experts:
        raise WorkloadError(f"hf:{name}: {family.keys['chosen']}: expected at most {experts} experts, got {chosen}")
    reader.require_every_block()
    limit = reader.number("limit")
    biased = reader.flag("attention_bias") if family.bias is None else family.bias
    mlp_bias = family.bias if family.bias is not None else "mlp_bias" in family.defaults and reader.flag("mlp_bias")
    return LanguageModel(
        name=shown_name(name), family=kind, layers=reader.number("layers", most=MAX_LAYERS),
        width=width, heads=heads, kv_heads=kv_heads, head_width=head_width,
        hidden=reader.number("hidden", 4 * width if kind == "gpt2" else None), vocabulary=reader.number("vocabulary"),
        gated=family.gated, tied=reader.flag("tie_word_embeddings"), norm=family.norm,
        qkv_bias=biased or family.qkv_bias, out_bias=biased, mlp_bias=mlp_bias,
        positions=limit if family.learned_positions else 0, experts=experts, chosen=chosen,
        window=reader.window(), head_norms=family.head_norms, limit=limit,
        expert_hidden=reader.number("expert_hidden") if "expert_hidden" in family.keys else 0,
        shared=reader.number("shared", 0) if "shared" in family.keys else 0,
        dense=reader.number("dense", 0) if "dense" in family.keys else 0,
        latent=reader.latent() if "rank" in family.keys else None, stored=stored_codes(config),
    )  # fmt: skip


def shown_name(argument: str) -> str:
    """What a report calls the model: the file's name, or the folder's where the file is its config.json."""
    path = Path(argument)
    return (path.parent.name or "model") if path.name == "config.json" else path.name.removesuffix(".json")


class Reader:
    """Checked values of a configuration."""

    def __init__(self, config: Mapping[str, Any], family: Family, name: str) -> None:
        self.config, self.family, self.name = config, family, name

    def number(self, what: str, fallback: int | None = None, most: int = LARGEST - 1) -> int:
        """A positive whole number; `fallback` where the key is null, or absent and the family says nothing."""
        key = self.family.keys.get(what, what)
        value = self.given(key)
        value = fallback if value is None else value
        least = 0 if fallback == 0 else 1
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise WorkloadError(f"hf:{self.name}: {key}: expected a positive whole number, got {value!r}")
        if value > most:
            raise WorkloadError(f"hf:{self.name}: {key}: expected {least} to {most:,}, got {value:,}")
        return value

    def given(self, key: str) -> Any:
        """The value of a key; of an absent one what transformers takes."""
        return self.config[key] if key in self.config else self.family.absent.get(key)

    def flag(self, key: str) -> bool:
        """True or false; the family's default where the key is absent."""
        value = self.config.get(key)
        value = self.family.defaults.get(key) if value is None else value
        if not isinstance(value, bool):
            raise WorkloadError(f"hf:{self.name}: {key}: expected true or false, got {value!r}")
        return value

    def latent(self) -> Latent:
        """The sizes of latent attention."""
        sizes = {what: self.number(what) for what in ("rank", "rope", "plain", "value")}
        return Latent(query_rank=self.number("query_rank", 0), **sizes)

    def require_every_block(self) -> None:
        """Raises WorkloadError where blocks differ in a way that is not built."""
        for key, wanted in self.family.every_block.items():
            value = self.config.get(key)
            if value is not None and value != wanted:
                raise WorkloadError(f"hf:{self.name}: {key}: {value!r} is not built, {wanted!r} is: blocks differ")

    def window(self) -> int:
        """Tokens that attention reaches back, where all layers have such a window; 0 elsewhere."""
        value = self.given("sliding_window")
        used = self.family.windowed or ("use_sliding_window" in self.config and self.flag("use_sliding_window"))
        if value is None or not used:
            return 0
        if not self.family.windowed:
            raise WorkloadError(f"hf:{self.name}: use_sliding_window: layers with and without a window are not built")
        return self.number("sliding_window")
