"""How much time quantization costs, side by side in one run: a quantizer against ReLU, training steps against float.

    python -m benchmarks.quantizer_speed                      # everything, a few minutes (most of it compiling)
    python -m benchmarks.quantizer_speed --parts quantizer    # one quantizer only, half a minute
    python -m benchmarks.quantizer_speed --parts resnet20 --no-compile --threads 1 --out speed.json

All contenders of a part run in turn in every round, so load and clock hit them alike; the figure is the median over the
rounds of the CPU time of the process (wall time means little on a shared machine), or of the device time on CUDA, where
networks run under bf16 autocast in channels-last. Ratios are to the first row of a part. Brevitas joins when installed.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import quant
from quant import kernels
from quant.functional import lsq_plus
from quant.models import create, info
from quant.quantizer import BaseQuantizer

BITS = 4
PARTS = ("quantizer", "resnet20", "efficientnet_b0")


@dataclass(frozen=True)
class Timing:
    """Median and spread (half the distance between the quartiles) of one contender, in milliseconds."""

    part: str
    name: str
    median_ms: float
    spread_ms: float
    ratio: float


# ---- what is compared --------------------------------------------------------------------------------------------


def straight_through(x: Tensor, s: Tensor, beta: Tensor, n: int, p: int, grad_scale: float) -> Tensor:
    """LSQ+ as most repositories write it: detach tricks, a dozen operations, everything saved."""
    s = s * grad_scale + (s - s * grad_scale).detach()
    beta = beta * grad_scale + (beta - beta * grad_scale).detach()
    v = ((x - beta) / s).clamp(n, p)
    return (v + (v.round() - v).detach()) * s + beta


def torch_learnable(x: Tensor, s: Tensor, beta: Tensor, n: int, p: int, grad_scale: float) -> Tensor:
    """torch's own operator (MQBench's too): integer zero point, rounds before it clips, so other gradients."""
    return torch._fake_quantize_learnable_per_tensor_affine(
        x, s.view(1), (-beta / s).clamp(n, p).view(1), n, p, grad_scale
    )


def ours(x: Tensor, s: Tensor, beta: Tensor, n: int, p: int, grad_scale: float) -> Tensor:
    return lsq_plus(x, s, beta, n, p, grad_scale=grad_scale)


class StandIn(nn.Module):
    """Another implementation of the formula in the place of a quantizer, with its spec, step and offset."""

    def __init__(self, source: BaseQuantizer, formula: Callable[..., Tensor]) -> None:
        super().__init__()
        self.spec, self.is_weight, self.formula = source.spec, source.is_weight, formula
        self.s = nn.Parameter(source.step().detach().clone())
        self.beta = nn.Parameter(source.offset().detach().clone(), requires_grad=source.spec.offset)
        self.mode, self.zero_is_exact = "quantize", True  # padding with zeros, as these implementations do

    def forward(self, x: Tensor) -> Tensor:
        features = x.numel() if self.is_weight else x.numel() // x.shape[0]
        return self.formula(x, self.s, self.beta, self.spec.n, self.spec.p, (features * self.spec.magnitude) ** -0.5)


def with_stand_ins(model: nn.Module, make: Callable[[BaseQuantizer], nn.Module]) -> nn.Module:
    for name, quantizer in list(quant.quantizers(model)):
        model.set_submodule(name, make(quantizer))
    return model


def brevitas_quantizer(signed: bool) -> nn.Module | None:
    """Brevitas' learned scale (and integer zero point where unsigned), where it is installed."""
    try:
        from brevitas.nn import QuantIdentity
        from brevitas.quant import Int8ActPerTensorFloat, ShiftedUint8ActPerTensorFloat
    except ImportError:
        return None
    kind = Int8ActPerTensorFloat if signed else ShiftedUint8ActPerTensorFloat
    # Learned from the second batch on: by default 300 batches of (slow) percentiles come first.
    return QuantIdentity(act_quant=kind, bit_width=BITS, collect_stats_steps=1)


class BrevitasStandIn(nn.Module):
    """Brevitas in the place of a quantizer; for weights too, whose learned scale runs the same operations there."""

    def __init__(self, source: BaseQuantizer) -> None:
        super().__init__()
        self.spec, self.mode, self.zero_is_exact = source.spec, "quantize", True
        inner = brevitas_quantizer(source.spec.signed)
        assert inner is not None
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


# ---- parts -------------------------------------------------------------------------------------------------------


def quantizer_part(device: str, compile_too: bool) -> dict[str, Callable[[], object]]:
    """Forward and backward (dx, ds, dbeta) of one quantizer on SiLU outputs; ReLU is the floor of memory traffic."""
    shape = (64, 64, 32, 32) if device == "cpu" else (256, 64, 56, 56)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    x = F.silu(torch.randn(shape, device=device)).to(dtype).requires_grad_()
    g = torch.randn_like(x)
    s, beta = (torch.tensor(v, device=device, requires_grad=True) for v in (0.19, -0.25))
    p, scale = 2**BITS - 1, (x[0].numel() * (2**BITS - 1)) ** -0.5

    def run(forward: Callable[[], Tensor]) -> Callable[[], None]:
        def step() -> None:
            forward().backward(g)
            x.grad = s.grad = beta.grad = None

        return step

    def plain() -> Tensor:
        with kernels.using("plain"):
            return ours(x, s, beta, 0, p, scale)

    contenders = {
        "relu (the floor)": run(lambda: F.relu(x)),
        "ours": run(lambda: ours(x, s, beta, 0, p, scale)),
        "ours, plain torch operations": run(plain),
        "straight-through detach": run(lambda: straight_through(x, s, beta, 0, p, scale)),
        "torch learnable fake-quantize": run(lambda: torch_learnable(x.float(), s, beta, 0, p, scale).to(dtype)),
    }
    if compile_too:
        compiled_ours, compiled_naive = torch.compile(ours), torch.compile(straight_through)
        contenders["ours, compiled"] = run(lambda: compiled_ours(x, s, beta, 0, p, scale))
        contenders["straight-through detach, compiled"] = run(lambda: compiled_naive(x, s, beta, 0, p, scale))
    peer = brevitas_quantizer(signed=False)
    if peer is not None:
        peer = peer.to(device).train()
        for _ in range(2):
            peer(x.detach().float())
        contenders["brevitas"] = run(lambda: peer(x.float()).to(dtype))
    return contenders


def network_part(name: str, device: str, compile_too: bool) -> dict[str, Callable[[], object]]:
    """One training step (forward, backward, SGD with momentum): float, and every convolution and linear at W4A4.

    Additions stay in float except in the row that names them, as in the implementations compared with.
    """
    torch.manual_seed(0)
    batch = {"cpu": {"resnet20": 64, "efficientnet_b0": 8}, "cuda": {"resnet20": 1024, "efficientnet_b0": 128}}
    size = {"resnet20": 32, "efficientnet_b0": 96 if device == "cpu" else 224}[name]
    x = torch.randn(batch[device][name], 3, size, size, device=device)
    y = torch.randint(0, info(name).num_classes, (len(x),), device=device)
    if device == "cuda":
        x = x.contiguous(memory_format=torch.channels_last)

    def float_model() -> nn.Module:
        torch.manual_seed(0)
        return create(name)

    def quantized(**choices: object) -> nn.Module:
        choices = {"elementwise_bits": "float", "init": "minmax", **choices}
        model, _ = quant.quantize(float_model(), weight_bits=BITS, act_bits=BITS, **choices)
        return quant.initialise(model.to(device), [x[:8]])

    def step(model: nn.Module, compiled: bool = False) -> Callable[[], None]:
        model = model.to(device).train()
        if device == "cuda":
            model = model.to(memory_format=torch.channels_last)
        # Rate 0 is the same work: untrained networks would run away under some of the gradients compared.
        optimizer = torch.optim.SGD(quant.parameter_groups(model, 1e-4), lr=0.0, momentum=0.9)
        run = torch.compile(model) if compiled else model

        def once() -> None:
            optimizer.zero_grad()
            with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
                loss = F.cross_entropy(run(x), y)
            loss.backward()
            optimizer.step()

        return once

    contenders = {
        "float": step(float_model()),
        "ours": step(quantized()),
        "ours, additions and gates at 8 bits too": step(quantized(elementwise_bits=8)),
        "straight-through detach": step(with_stand_ins(quantized(), lambda q: StandIn(q, straight_through))),
        "torch learnable fake-quantize": step(with_stand_ins(quantized(), lambda q: StandIn(q, torch_learnable))),
    }
    if brevitas_quantizer(signed=True) is not None:
        contenders["brevitas"] = step(with_stand_ins(quantized(), BrevitasStandIn))
    if compile_too:
        contenders["float, compiled"] = step(float_model(), compiled=True)
        contenders["ours, compiled"] = step(quantized(), compiled=True)
        contenders["straight-through detach, compiled"] = step(
            with_stand_ins(quantized(), lambda q: StandIn(q, straight_through)), compiled=True
        )
    return contenders


# ---- measuring ---------------------------------------------------------------------------------------------------


def keep_freed_memory() -> None:
    """Tell glibc not to return freed memory: page faults of large tensors would drown what is measured."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 2**31 - 1)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def once(run: Callable[[], object], device: str) -> float:
    """Milliseconds of one call: CPU time of all threads, or time on the CUDA device."""
    if device == "cpu":
        start = time.process_time()
        run()
        return (time.process_time() - start) * 1e3
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end)


def measure(part: str, contenders: dict[str, Callable[[], object]], rounds: int, device: str) -> list[Timing]:
    """Medians over the rounds after two rounds of warming up (compiling happens there)."""
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(rounds + 2):
        for name, run in contenders.items():
            elapsed = once(run, device)
            if i >= 2:
                samples[name].append(elapsed)
            elif i == 0:
                print(f"  {part}: {name} ready", file=sys.stderr)
    floor = statistics.median(next(iter(samples.values())))
    timings = []
    for name, values in samples.items():
        low, median, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
        timings.append(Timing(part, name, median, (high - low) / 2, median / floor))
    return timings


def report(timings: list[Timing]) -> str:
    """The table, and for networks the ratio of the compiled steps."""
    lines = [f"{'':38}{'ms':>10}{'+-':>8}{'ratio':>8}"]
    for part in dict.fromkeys(t.part for t in timings):
        rows = {t.name: t for t in timings if t.part == part}
        lines.append(f"{part}:")
        lines += [f"  {t.name:36}{t.median_ms:10.2f}{t.spread_ms:8.2f}{t.ratio:8.2f}" for t in rows.values()]
        if "float, compiled" in rows:
            base = rows["float, compiled"].median_ms
            for name in (n for n in ("ours, compiled", "straight-through detach, compiled") if n in rows):
                lines.append(f"  {name} over float, compiled: {rows[name].median_ms / base:.3f}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> list[Timing]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--contenders", nargs="+", metavar="NAME", help="only these rows; the first is the floor")
    parser.add_argument("--no-compile", action="store_true", help="leave out what torch.compile makes")
    parser.add_argument("--out", type=Path, help="write the timings and the environment as JSON")
    chosen = parser.parse_args(arguments)
    if chosen.rounds < 1:
        parser.error(f"--rounds: expected at least 1, got {chosen.rounds}")
    torch.set_num_threads(chosen.threads)
    keep_freed_memory()
    timings: list[Timing] = []
    for part in chosen.parts:
        make = quantizer_part if part == "quantizer" else lambda d, c, part=part: network_part(part, d, c)
        contenders = make(chosen.device, not chosen.no_compile)
        names = list(chosen.contenders or contenders)
        if unknown := [name for name in names if name not in contenders]:
            parser.error(f"--contenders: {part} has no row {unknown[0]!r}; it has {', '.join(map(repr, contenders))}")
        timings += measure(part, {name: contenders[name] for name in names}, chosen.rounds, chosen.device)
    environment = {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if chosen.device == "cuda" else platform.machine(),
        "threads": chosen.threads,
        "rounds": chosen.rounds,
        "fused_cpu_kernel": kernels.library() is not None,
        "command": " ".join(["python -m benchmarks.quantizer_speed", *(arguments or sys.argv[1:])]),
    }
    print(f"{environment['device']}, torch {torch.__version__}, {chosen.threads} threads, {chosen.rounds} rounds")
    print(report(timings))
    if chosen.out is not None:
        chosen.out.write_text(
            json.dumps({**environment, "timings": [asdict(t) for t in timings]}, indent=1) + "\n", encoding="utf-8"
        )
    return timings


if __name__ == "__main__":
    main()
