"""A language model's line of the report: tokens per second, energy per token, memory, and the cache of keys and values.

Everything is summed from the bill of the one pass that was priced; the cache is what tensors of origin `cache` say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hwsim.network.generation import CACHE, NEW, Generation
from hwsim.network.layer import Tensor, operands
from hwsim.network.workload import Workload
from hwsim.pricing.fit import packed, stored_weight_bits
from hwsim.pricing.residents import peak_activation_bits
from hwsim.pricing.stages import fuse
from hwsim.report.quantities import digits, si

if TYPE_CHECKING:
    from hwsim.report.report import Report


def generation_dict(report: Report, generation: Generation) -> dict[str, Any]:
    """The entry `generation` of report.json; memory in bits, energy in pJ, per token of the phase."""
    totals = report.cost.totals
    stored = cache_bits(report)
    read, written = cache_traffic(report)
    weights = weight_bits_held(report, generation)
    others = peak_activation_bits(fuse(report.workload, report.accelerator.capabilities), without=CACHE)
    return {
        "phase": generation.phase,
        "batch": generation.batch,
        "context": generation.context,
        "new_tokens": generation.new,
        "past_tokens": generation.past,
        "tokens_per_pass": generation.tokens,
        "tokens_per_s": generation.tokens / totals.latency_s,
        "pass_s": totals.latency_s,
        "energy_pj_per_token": totals.energy_pj / generation.tokens,
        "weight_bits_held": weights,
        "cache_bits": stored,
        "cache_bits_per_value": cache_width(report.workload),
        "cache_read_bits": read,
        "cache_written_bits": written,
        "memory_bits": weights + stored + others,
        "experts_read": generation.experts_read,
        "experts_held": generation.experts_held,
    }


def caches(workload: Workload) -> list[Tensor]:
    """Every cache, whole: read by attention, or written where keys and values are expanded for this pass alone."""
    found: dict[str, Tensor] = {}
    for layer in workload:
        for tensor in (layer.weight, layer.output):
            if tensor is not None and tensor.origin == CACHE and not tensor.name.endswith(NEW):
                known = found.setdefault(tensor.name, tensor)
                found[tensor.name] = max(known, tensor, key=lambda t: t.elements)  # values may be a part of the latents
    return list(found.values())


def cache_bits(report: Report) -> int:
    """Bits that keys and values of all tokens take, scales included, as the outermost memory packs."""
    return sum(packed(tensor, report.accelerator.outermost) for tensor in caches(report.workload))


def cache_width(workload: Workload) -> float:
    """Bits of one key or value with its share of scales and offsets."""
    known = caches(workload)
    return sum(t.size_bits for t in known) / sum(t.elements for t in known)


def cache_traffic(report: Report) -> tuple[int, int]:
    """Bits of keys and values read from the outermost memory, and written there."""
    outer, read, written = report.accelerator.outermost.name, 0, 0
    for layer, cost in zip(report.workload, report.cost.layers, strict=True):
        reads = layer.weight is not None and layer.weight.origin == CACHE
        writes = layer.output.origin == CACHE
        for moved in cost.moved:
            if moved.memory == outer:
                read += moved.read_words * moved.word_bits * (reads and moved.operand.startswith("weight"))
                written += moved.write_words * moved.word_bits * (writes and moved.operand.startswith("output"))
    return read, written


def weight_bits_held(report: Report, generation: Generation) -> int:
    """Bits of all weights, those of experts that the pass did not read included."""
    outer, found = report.accelerator.outermost, 0
    weights = {t.name: t for layer in report.workload for t in operands(layer) if t.origin == "weight"}
    for name, tensor in weights.items():
        bits = stored_weight_bits(tensor, outer)
        if ".experts." in name and generation.experts_read:
            bits = -(-bits * generation.experts_held // generation.experts_read)
        found += bits
    return found


def generation_rows(report: Report, generation: Generation) -> dict[str, str]:
    """The same for people: name and text."""
    known = generation_dict(report, generation)
    what = (
        f"{generation.batch} x {generation.context:,} tokens at once" if generation.phase == "prefill"
        else f"{generation.batch} sequence{'s' * (generation.batch > 1)}, one token each after {generation.past:,}"
    )  # fmt: skip
    rows = {
        generation.phase: what,
        "tokens": f"{digits(known['tokens_per_s'], 4)} per second, "
        f"{si(known['energy_pj_per_token'] * 1e-12, 'J')} each",
        "keys and values": f"{si(known['cache_bits'] / 8, 'B')} at {known['cache_bits_per_value']:.4g} bits a value, "
        f"{si(known['cache_read_bits'] / 8, 'B')} read, {si(known['cache_written_bits'] / 8, 'B')} written",
        "memory": f"{si(known['memory_bits'] / 8, 'B')}: weights {si(known['weight_bits_held'] / 8, 'B')}, keys and "
        "values, activations at their peak",
    }
    if generation.phase == "decode" and generation.new > 1:
        rows[f"{generation.new} new tokens"] = (
            si(known["pass_s"] * generation.new, "s") + " (the middle step, times that)"
        )
    return rows
