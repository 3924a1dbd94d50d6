"""The paths of the quantizer's arithmetic: the same forward bits everywhere, the same gradients, whatever runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import quant
from quant import kernels
from quant.functional import lsq_plus

RANGES = [(0, 15), (-8, 7), (-1, 0), (0, 1), (0, 255), (-32768, 32767)]


def run(path: str, x: Tensor, s: Tensor, beta: Tensor | None, n: int, p: int, rule: str = "strict") -> list[Tensor]:
    """x_hat and the gradients by one path; the gradient that comes in depends on nothing."""
    x, s = x.detach().clone(memory_format=torch.preserve_format).requires_grad_(), s.clone().requires_grad_()
    beta = None if beta is None else beta.clone().requires_grad_()
    with kernels.using(path):
        x_hat = lsq_plus(x, s, beta, n, p, grad_scale=0.5, clip_rule=rule)
        x_hat.backward(torch.linspace(-1, 2, x.numel()).view(x.shape))
    return [x_hat.detach(), x.grad, s.grad, *([] if beta is None else [beta.grad])]


def test_this_machine_has_the_fused_path() -> None:
    """Without a C compiler the rest of this file would compare the plain path with itself."""
    if kernels.library() is None:
        pytest.skip("no C compiler on this machine")
    assert kernels.choose(torch.ones(3), torch.ones(()), None) == "fused"
    assert kernels.choose(torch.ones(3).double(), torch.ones(()).double(), None) == "plain"
    with kernels.using("plain"):
        assert kernels.choose(torch.ones(3), torch.ones(()), None) == "plain"


@pytest.mark.parametrize("rule", ["strict", "inclusive"])
@pytest.mark.parametrize(("n", "p"), RANGES)
def test_fused_equals_plain(n: int, p: int, rule: str) -> None:
    s = torch.tensor(0.0713)
    x = torch.randn(3, 7, 11, 19) * s * max(p - n, 2) / 3
    edges = torch.tensor([n, p, n - 0.5, p + 0.5, 0.5, 1.5, 2.5]) * s
    x.view(-1)[:7] = edges
    for beta in (None, torch.tensor(-0.2371)):
        for laid_out in (x, x.to(memory_format=torch.channels_last)):
            plain, fused = run("plain", laid_out, s, beta, n, p, rule), run("fused", laid_out, s, beta, n, p, rule)
            assert torch.equal(plain[0], fused[0])
            assert fused[0].stride() == laid_out.stride()
            assert torch.equal(plain[1], fused[1])
            for a, b in zip(plain[2:], fused[2:], strict=True):
                torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-3)


def test_fused_rows_equal_plain() -> None:
    """One step per output channel of a weight, rows longer than a block of the kernel."""
    x = torch.randn(5, 600, 3, 3)
    s = (torch.rand(5, 1, 1, 1) + 0.1) / 3
    beta = torch.randn(5, 1, 1, 1) / 10
    for offset in (None, beta):
        assert kernels.choose(x, s, offset) == "fused" or kernels.library() is None
        for a, b in zip(run("plain", x, s, offset, -4, 3), run("fused", x, s, offset, -4, 3), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)
        assert torch.equal(run("plain", x, s, offset, -4, 3)[0], run("fused", x, s, offset, -4, 3)[0])


def test_special_values_take_the_same_way() -> None:
    x = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e-40, 3e38, -3e38] * 9)
    for n, p in ((0, 15), (-8, 7)):
        plain, fused = (run(path, x, torch.tensor(0.3), torch.tensor(0.1), n, p) for path in ("plain", "fused"))
        assert torch.equal(plain[0].nan_to_num(77), fused[0].nan_to_num(77))
        assert plain[0].isnan().sum() == 9
        assert plain[2].isnan()
        assert fused[2].isnan()


def test_step_and_offset_gradients_do_not_depend_on_the_number_of_threads() -> None:
    x = torch.randn(64, 16, 33, 31)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(run("fused", x, torch.tensor(0.1), torch.tensor(-0.2), 0, 15))
    finally:
        torch.set_num_threads(before)
    if kernels.library() is not None:
        assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_only_the_input_is_kept_for_the_backward_pass() -> None:
    x = torch.randn(1000, requires_grad=True)
    s, beta = torch.tensor(0.1, requires_grad=True), torch.tensor(0.0, requires_grad=True)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        lsq_plus(x, s, beta, 0, 15)
    assert sum(t.numel() for t in kept if t.data_ptr() != x.data_ptr()) <= 2


def test_gradients_of_another_layout_are_taken() -> None:
    x = torch.randn(4, 6, 5, 5)
    expected = run("plain", x, torch.tensor(0.1), None, -8, 7)
    x = x.requires_grad_()
    lsq_plus(x, torch.tensor(0.1), None, -8, 7).backward(
        torch.linspace(-1, 2, x.numel()).view(x.shape).to(memory_format=torch.channels_last)
    )
    assert torch.equal(x.grad, expected[1])


@pytest.mark.long
def test_without_a_compiler_the_plain_path_runs(tmp_path: Path) -> None:
    """No compiler, no cache folder: slower, same bits."""
    code = (
        "import torch; from quant import kernels; from quant.functional import lsq_plus; "
        "assert kernels.library() is None; print(lsq_plus(torch.arange(5.), 0.7, -0.1, 0, 3).tolist())"
    )
    environment = {**os.environ, "CC": "/no/such/compiler", "XDG_CACHE_HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(lsq_plus(torch.arange(5.0), 0.7, -0.1, 0, 3).tolist())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_tracers_see_operations_not_constants() -> None:
    """torch.export outside `export_names`, torch.jit.trace and dispatch modes all meet the plain path."""
    model, _ = quant.quantize(nn.Sequential(nn.Conv2d(2, 3, 3, padding=1)), weight_bits=4, act_bits=4, config=4)
    seen, other = torch.randn(2, 2, 6, 6), torch.randn(2, 2, 6, 6) * 2
    quant.initialise(model, [seen]).eval()
    exported = torch.export.export(model, (seen,), strict=False).module()
    traced = torch.jit.trace(model, seen)
    for run in (exported, traced):
        torch.testing.assert_close(run(other), model(other))
    with FlopCounterMode(display=False):
        torch.testing.assert_close(model(other), exported(other))


def test_unknown_paths_are_refused() -> None:
    with pytest.raises(ValueError, match="kernel path: expected one of"), kernels.using("cuda"):
        pass


@pytest.mark.long
def test_triton_kernel_equals_plain_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-c", _TRITON], env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", ["plain", "fused"])
def test_the_inclusive_rule_keeps_its_bounds_where_subnormals_are_flushed(path: str) -> None:
    """A value at code 0 of unsigned codes is in range; a bound moved by a subnormal would be 0 again and clip it."""
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormals to 0")
    try:
        x = torch.tensor([-1.0, 0.0, 0.5, 3.0, 4.0], requires_grad=True)
        s = torch.tensor(1.0, requires_grad=True)
        with kernels.using(path):
            lsq_plus(x, s, None, 0, 3, clip_rule="inclusive").sum().backward()
    finally:
        torch.set_flush_denormal(False)
    assert x.grad.tolist() == [0, 1, 1, 1, 0]
    assert s.grad == 0 + 0 + (0 - 0.5) + 0 + 3  # code - v in range, code where clipped


_TRITON = """
import torch
from quant import kernels, triton_kernel
torch.manual_seed(0)
s = torch.tensor(0.0713)
for n, p in ((0, 15), (-8, 7), (-1, 0), (0, 255), (-32768, 32767)):
    x = torch.randn(3, 7, 11, 9) * s * max(p - n, 2) / 3
    x.view(-1)[:7] = torch.tensor([n, p, n - 0.5, p + 0.5, 0.5, 1.5, 2.5]) * s
    g = torch.randn_like(x)
    for beta in (None, torch.tensor(-0.2371)):
        for dtype in (torch.float32, torch.float16):
            for inclusive in (False, True):
                xs, gs = x.clamp(-6e4, 6e4).to(dtype), g.to(dtype)
                with kernels.using("plain"):
                    problem = kernels.Problem(n, p, 1.0, inclusive)
                    expected, _ = kernels.forward(xs, s, beta, problem)
                    gradients = kernels.backward(gs, None, xs, s, beta, problem)
                    if beta is not None:
                        moved = kernels.Problem(n, p, 1.0, inclusive, kernels.BORDER_OF_ZERO)
                        shifted, _ = kernels.forward(xs, s, beta, moved)
                        around = kernels.border_code(s, beta, moved)
                        assert torch.equal(shifted, triton_kernel.forward(xs, s, beta, around, n, p))
                assert torch.equal(expected, triton_kernel.forward(xs, s, beta, None, n, p))
                *found, total = triton_kernel.backward(gs, xs, s, beta, n, p, inclusive)
                torch.testing.assert_close(total, gs.float().sum(), rtol=1e-4, atol=1e-2)
                assert torch.equal(gradients[0], found[0])
                for a, b in zip(gradients[1:], found[1:]):
                    assert (a is None) == (b is None)
                    if a is not None:
                        torch.testing.assert_close(a, b.to(a.dtype), rtol=2e-4, atol=1e-2)
for count in (1, 4095, 4096, 4097):  # around one block
    for laid_out in (torch.randn(count), torch.randn(2, 3, count, 1).to(memory_format=torch.channels_last)):
        g = torch.linspace(-1, 2, laid_out.numel()).view(laid_out.shape)  # other strides than x
        with kernels.using("plain"):
            expected, _ = kernels.forward(laid_out, s, None, kernels.Problem(-8, 7))
            gradients = kernels.backward(g, None, laid_out, s, None, kernels.Problem(-8, 7))
        found = triton_kernel.forward(laid_out, s, None, None, -8, 7)
        assert torch.equal(expected, found) and found.stride() == laid_out.stride()
        dx, ds, _, _ = triton_kernel.backward(g, laid_out, s, None, -8, 7, False)
        assert torch.equal(gradients[0], dx)
        torch.testing.assert_close(gradients[1], ds, rtol=2e-4, atol=1e-2)
# bf16 is left out: the interpreter's conversion to it cuts bits off where a GPU rounds to nearest.
x = torch.tensor([float("nan"), float("inf"), -float("inf")])
found = triton_kernel.forward(x, s, None, None, 0, 15)
expected, _ = kernels.forward(x, s, None, kernels.Problem(0, 15))
assert torch.equal(found.nan_to_num(7), expected.nan_to_num(7))
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own imports
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.slow
@pytest.mark.parametrize("rule", ["strict", "inclusive"])
def test_compiled_equals_eager(rule: str) -> None:
    """One graph, no break; the same forward bits and dx, s and beta gradients to float32's accuracy."""
    for n, p in ((0, 15), (-8, 7)):
        compiled = torch.compile(
            lambda x, s, beta, n=n, p=p: lsq_plus(x, s, beta, n, p, grad_scale=0.5, clip_rule=rule), fullgraph=True
        )
        x, s, beta = torch.randn(6, 5, 17, 13), torch.tensor(0.11), torch.tensor(-0.2371)
        expected = run("auto", x, s, beta, n, p, rule)
        inputs = [t.clone().requires_grad_() for t in (x, s, beta)]
        x_hat = compiled(*inputs)
        x_hat.backward(torch.linspace(-1, 2, x.numel()).view(x.shape))
        assert torch.equal(x_hat, expected[0])
        assert torch.equal(inputs[0].grad, expected[1])
        torch.testing.assert_close([t.grad for t in inputs[1:]], expected[2:], rtol=1e-4, atol=1e-3)


CHOICES = [
    {"power_of_two": True},
    {"weight_granularity": "channel", "padding_policy": "pad_beta", "config": 3},
    {"padding_policy": "snap_offset", "config": 4},
    {"offset_mode": "fixed_min", "config": 3},
    {"method": "pact"},
    {"method": "dsq"},
    {"method": "qil"},
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.slow
@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_networks_of_every_kind_compile_without_a_break(choices: dict) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 64, 5),
    )  # fmt: skip
    model, _ = quant.quantize(model, weight_bits=3, act_bits=3, first_last="same", **choices)
    x = torch.randn(16, 3, 8, 8)
    quant.initialise(model, [x]).eval()
    found = []
    for run in (model, torch.compile(model, fullgraph=True)):
        model.zero_grad()
        y = run(x)
        y.square().mean().backward()
        found.append((y.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    (eager, wanted), (compiled, gradients) = found
    torch.testing.assert_close(compiled, eager)
    for a, b in zip(gradients, wanted, strict=True):
        assert (a - b).norm() <= 1e-3 * b.norm() + 1e-9


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("n", "p"), RANGES)
def test_gpu_paths_equal_the_cpu(n: int, p: int, dtype: torch.dtype) -> None:
    """CPU, CUDA plain, Triton, and torch.compile with EXACT_COMPILE_OPTIONS give the same forward bits."""
    s, beta = torch.tensor(0.0713), torch.tensor(-0.2371)
    x = (torch.randn(16, 33, 29) * s * max(p - n, 2) / 3).to(dtype)
    with kernels.using("plain"):
        expected = lsq_plus(x, s, beta, n, p)
    on_gpu = [t.cuda() for t in (x, s, beta)]
    for path in ("plain", "triton"):
        with kernels.using(path):
            assert torch.equal(lsq_plus(*on_gpu, n, p).cpu(), expected), path
    compiled = torch.compile(lambda x, s, beta: lsq_plus(x, s, beta, n, p), options=kernels.EXACT_COMPILE_OPTIONS)
    assert torch.equal(compiled(*on_gpu).cpu(), expected)


@pytest.mark.gpu
def test_gpu_gradients_are_the_same_in_every_run() -> None:
    x = torch.randn(64, 64, 56, 56, device="cuda")
    found = []
    for _ in range(5):
        s, beta = (torch.tensor(v, device="cuda", requires_grad=True) for v in (0.1, -0.2))
        lsq_plus(x, s, beta, 0, 15).sum().backward()
        found.append((s.grad.item(), beta.grad.item()))
    assert len(set(found)) == 1
