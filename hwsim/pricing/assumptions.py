"""What the numbers of a bill rest on, in sentences: assumptions, and warnings where the reader must act."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hwsim.machine.mac import adc_bits, lossless_adc_bits
from hwsim.machine.parts import Accelerator, ZeroCoding
from hwsim.network.layer import Layer
from hwsim.pricing.area import ComponentArea
from hwsim.pricing.fit import activations_inside
from hwsim.pricing.layer import LayerCost
from hwsim.pricing.lifetimes import WHOLE_TENSORS, Lifetimes
from hwsim.pricing.moves import MULTIPLIER_BITS, SHIFT_BITS
from hwsim.pricing.offsets import BIAS_BITS
from hwsim.pricing.shares import border_share, whole_tile_share
from hwsim.pricing.stages import Stage
from hwsim.pricing.vector import requantize_ops

CONSTANTS = {
    "multiplier": f"{MULTIPLIER_BITS} + {SHIFT_BITS} bits per scale",
    "shift": f"{SHIFT_BITS} bits per scale",
    "thresholds": f"2^bits - 1 of {BIAS_BITS} bits per scale",
}


def assumptions(
    accelerator: Accelerator,
    areas: tuple[ComponentArea, ...],
    resident: frozenset[str],
    planned: bool = False,
    lifetimes: Lifetimes = WHOLE_TENSORS,
) -> tuple[str, ...]:
    """Every simplification behind the numbers. `planned`: homes and mappings were chosen together."""
    can = accelerator.capabilities
    home = accelerator.activation_memory
    fused = ", ".join(can.fused) or "nothing"
    together = "the slowest of" if accelerator.overlap else "the sum (no overlap) of"
    found = [
        f"latency of a layer: {together} compute, memory ports and vector unit; layers run one after another",
        *(measured_assumptions(accelerator) or modelled_assumptions(accelerator)),
        f"requantization by {can.requantization}: {requantize_ops(can, 8)} vector operations per output; operators "
        "without MACs by the table of vector.py, pooling windows through line buffers (each input read once)",
        f"fused behind a layer, without memory traffic: {fused}; other operators stream their tensors between the "
        "outermost memory and the vector unit",
        f"biases of {BIAS_BITS} bits, requantization constants of {CONSTANTS[can.requantization]}, read once per layer",
    ]
    if home is None:
        found.append("no single on-chip memory keeps inputs and outputs: tensors go through the outermost memory")
    else:
        found.append(
            f"tensors stay in {home.name} from their maker to their last reader where they and the tiles of all other "
            f"operands fit ({len(resident)} tensors do), "
            + ("chosen together with the mappings" if planned else "chosen to save most energy under these mappings")
        )
        outer = accelerator.outermost
        if activations_inside(accelerator):
            found.append(
                f"{outer.name} may hold no tensor of activations between layers; the network's own inputs are read and "
                f"its outputs written at {outer.name}'s prices, once: no price of what is outside is known"
            )
        if "weight" in home.keeps and planned:
            found.append(
                f"a weight that several layers multiply (time steps, tied ones) may stay in {home.name}, too: the "
                "first of them fetches it whole before it begins"
            )
        if lifetimes != WHOLE_TENSORS:
            found.append(f"lifetimes: {lifetimes.sentence}; sizes are summed, addresses are left to the compiler")
    guessed = [area.name for area in areas if area.estimated]
    if guessed:
        found.append(f"area or leakage estimated (CACTI, Horowitz, Stillmaker; 10 mW/mm2) for: {', '.join(guessed)}")
    return tuple(found)


def border_assumptions(
    workload: Iterable[Layer], accelerator: Accelerator, layers: Iterable[LayerCost]
) -> tuple[str, ...]:
    """Who makes the border around inputs, and what reading it costs."""
    shares = [share for layer in workload if (share := border_share(layer))]
    if not shares or accelerator.mac.measurements is not None:
        return ()
    holders = [memory for memory in accelerator.memories if "input" in memory.keeps]
    stored = ", ".join(memory.name for memory in holders if memory.padding == "stored")
    made = ", ".join(memory.name for memory in holders if memory.padding == "inserted")
    layers_text = "1 layer" if len(shares) == 1 else f"{len(shares)} layers"
    percent = 100 * float(max(shares))
    found = [f"the border around inputs is up to {percent:.3g} % of the points they count ({layers_text})"]
    if made:
        found.append(f"made on the way out of {made}, which read as much less, spread evenly over the reads")
    if stored:
        found.append(f"stored in and read like any code from {stored} (a spec says otherwise by `padding: inserted`)")
    sentences = ["; ".join(found)]
    needed = sum(layer.offset.kind == "padded_copy" for layer in layers)
    if needed:
        sentences.append(
            f"inputs that need a border of codes other than 0 ({needed} layers, class padded_copy) are stored "
            "inside it by their maker: the border is written once per layer where the input lies, the input is not "
            "copied again"
        )
    return tuple(sentences)


def compression_assumptions(accelerator: Accelerator) -> tuple[str, ...]:
    """What a spec says is compressed."""
    fixed, by_zeros = list[str](), list[str]()
    for memory in accelerator.memories:
        for operand, coded in memory.compression:
            if isinstance(coded, ZeroCoding):
                coding = "a bitmap" if coded.coding == "bitmap" else f"run lengths of {coded.run_bits} bits"
                by_zeros.append(f"{operand}s of {memory.name} by {coding}, {100 * coded.zeros:g} % of them zeros")
            else:
                fixed.append(f"{operand}s of {memory.name} to {100 * coded:g} %")
    said: list[str] = []
    if fixed:
        said.append(f"compressed, whatever their values: {', '.join(fixed)} of their bits; coding costs nothing")
    if by_zeros:
        said.append(
            f"written without their zeros, as many in every layer and each on its own: {', '.join(by_zeros)}; plain "
            "where that is shorter; coding costs nothing"
        )
    return tuple(said)


def ideal_assumptions(accelerator: Accelerator) -> tuple[str, ...]:
    """Registers that a spec takes to be ideal."""
    free = [m.name for m in accelerator.memories if 0 in (m.read_energy_pj, m.write_energy_pj)]
    if not free or accelerator.mac.measurements is not None:
        return ()
    return (f"ideal, with accesses that cost no energy, says the spec: {', '.join(free)}",)


def whole_tile_assumptions(workload: Iterable[Layer], accelerator: Accelerator) -> tuple[str, ...]:
    """What an array that loads whole tiles adds to the weights on their way."""
    loading = [array.name for array in accelerator.arrays if array.loads_whole_tiles]
    matrices = [layer for layer in workload if layer.has_macs]
    if not loading or not matrices:
        return ()
    moved = {layer.name: float(whole_tile_share(layer, accelerator, accelerator.outermost)) for layer in matrices}
    worst = max(moved, key=lambda name: moved[name])
    return (
        f"weights go to {loading[0]} in whole tiles, of which a layer takes the fewest that hold its matrix: up to "
        f"{moved[worst]:.3g} times its own weights move ({worst}); room on chip is counted without the zeros",
    )


def gating_assumptions(accelerator: Accelerator, shares: Mapping[str, float]) -> tuple[str, ...]:
    """What zero codes save here."""
    if not shares:
        return ()
    if "input" not in accelerator.capabilities.zero_gating:
        return (f"shares of zero codes were given; {accelerator.name} gates no multiplier, so they save nothing",)
    return (
        f"zero input codes gate {100 * accelerator.capabilities.zero_gating_saving:g} % of a MAC's energy, by the "
        f"shares given for {len(shares)} layers",
    )


def group_assumptions(layers: Iterable[LayerCost]) -> tuple[str, ...]:
    """What depth-first groups rest on."""
    groups = list(dict.fromkeys(layer.group for layer in layers if layer.group))
    if not groups:
        return ()
    return (
        f"depth-first groups ({len(groups)}): after the first step of a strip all stages of a group are under way at "
        "once, a step takes as long as its busiest resource; where the maps' memory is not double-buffered they take "
        "turns; constants that stay with their weights take no room on chip",
    )


def modelled_assumptions(accelerator: Accelerator) -> list[str]:
    """What stands behind layers whose accesses are counted."""
    return [
        f"port loads spread evenly over the instances in use; {first_fills(accelerator)}",
        lanes_assumption(accelerator),
        f"partial sums have the width the layer needs, at most the machine's {accelerator.mac.accumulator_bits} bits",
        "adding partial sums between array elements is part of the MAC energy",
    ]


def lanes_assumption(accelerator: Accelerator) -> str:
    """What fills a unit that does several products at once."""
    if not accelerator.mac.lanes:
        return "a MAC unit does one product at a time; operands are counted per MAC"
    loops = ", ".join(accelerator.mac.lanes)
    return (
        f"a MAC unit that does several products at once works on as many as its lanes ({loops}) have at a step, the "
        "others idle at no cost; operands are still counted per MAC"
    )


def first_fills(accelerator: Accelerator) -> str:
    """What the first tiles of a layer wait for."""
    exposed = ", ".join(memory.name for memory in accelerator.memories if memory.first_fill == "exposed")
    text = "first fills of double-buffered levels overlap the layer before"
    return f"{text}, but for {exposed}, whose first tiles are waited for" if exposed else text


def measured_assumptions(accelerator: Accelerator) -> list[str]:
    """What stands behind measured layers; empty for a machine that is modelled."""
    table = accelerator.mac.measurements
    if table is None:
        return []
    return [
        f"layers with MACs are measured, not modelled: {table.describe()}",
        "a measured layer contains its memory traffic (not reported), its biases and its requantization",
    ]


def warnings(stages: tuple[Stage, ...], accelerator: Accelerator) -> tuple[str, ...]:
    """What a reader must not overlook."""
    mac = accelerator.mac
    found: list[str] = []
    narrow = [
        s.layer.name for s in stages if s.layer.has_macs and s.layer.accumulator_bits_needed() > mac.accumulator_bits
    ]
    if narrow:
        number = "1 layer" if len(narrow) == 1 else f"{len(narrow)} layers"
        found.append(
            f"{accelerator.name} accumulates in {mac.accumulator_bits} bits; worst-case sums of {number} "
            f"need more ({', '.join(narrow[:3])}{', ...' if len(narrow) > 3 else ''}): they may overflow or be rounded"
        )
    if mac.measurements is not None:
        known = [(s.layer.name, mac.measurements.predict(s.layer).how) for s in stages if s.layer.has_macs]
        beyond = [name for name, how in known if how == "extrapolated"]
        if beyond:
            found.append(
                f"{len(beyond)} of {len(known)} layers lie outside the shapes that {mac.measurements.name} measured "
                f"({', '.join(beyond[:3])}{', ...' if len(beyond) > 3 else ''}): they are extrapolated"
            )
    if mac.style == "in_memory" and adc_bits(mac) < lossless_adc_bits(mac):
        found.append(
            f"{accelerator.name} converts with {adc_bits(mac)} of {lossless_adc_bits(mac)} bits: results are not "
            "exact, accuracy must come from a simulation that truncates alike"
        )
    return tuple(found)
