# pyright: basic
"""Products of the integer network as layers of the cost model, with what only it knows: bits, offset, accumulator."""

from __future__ import annotations

from fractions import Fraction

import torch

from hwsim.integer import graph
from hwsim.integer.arithmetic import kernels
from hwsim.integer.arithmetic.forms import Form, at
from hwsim.integer.graph import IntegerModel, Node
from hwsim.network.formats import Format
from hwsim.network.layer import Layer, Loops
from hwsim.network.layer import Tensor as Operand


def workload_layer(model: IntegerModel, node: graph.Convolve) -> Layer:
    """The layer as the cost model sees it, with what the integer network knows better: bits, offset, accumulator."""
    x = model.node(node.x)
    assert x.code is not None
    forms = [n.form for n in model.nodes if isinstance(n, (graph.Requantize, graph.Evaluate))]
    forms += [model.output] if isinstance(model.output, Form) else []
    bias = any(has_bias(model, node, form) for form in forms if node.name in form.sources)
    parts = model.shares(node)
    weight_bits = max(1, *(n.weight_bits for n in parts))
    shape = tuple(node.weight.shape) if node.share is None else node.share.whole
    source = Operand(node.x, x.shape, bits_of(x), x.code.n < 0, x.code.beta != 0)
    if node.window is None:
        count = elements_of(node) // shape[0]
        loops = Loops(N=1, K=shape[0], C=shape[1], P=count)
        op, padding, stride, dilation = "linear", (0, 0, 0, 0), (1, 1), (1, 1)
    else:
        w, g = node.window, node.window.groups
        rows, columns = node.shape[2:]
        loops = Loops(1, g, shape[0] // g, shape[1], rows, columns, w.kernel[0], w.kernel[1])
        op, padding, stride, dilation = "conv", w.padding, w.stride, w.dilation
    return Layer(
        node.layer or node.name, op, (source,), Operand(f"{node.name}.out", node.shape, 32),
        Operand(f"{node.name}.weight", shape, weight_bits, offset=bool(node.share and node.share.offset),
                format=shared_steps(node.share, weight_bits)), loops, stride, dilation, padding,
        node.padding.policy if node.padding.policy != "none" else "", bias,
        max(kernels.bits_for(n.range.least, n.range.largest) for n in parts),
        pad_code=x.code.zero_code if any(padding) else None,
    )  # fmt: skip


def shared_steps(share: graph.Share | None, bits: int) -> Format | None:
    """How the weights of a layer share their steps; None: one for the tensor or for each output, outside the sums."""
    if share is None:
        return None
    sharing = "group" if share.group else "channel"
    return Format("int", bits, sharing, share.group, "fp32", "fp32" if share.offset else "")


def product_layer(model: IntegerModel, node: graph.MatMul) -> Layer:
    """A product of two activations as the cost model sees it: the second in the weights' place."""
    a, b = model.node(node.a), model.node(node.b)
    operands = []
    for x in (a, b):
        assert x.code is not None
        operands.append(Operand(x.name, x.shape, bits_of(x), x.code.n < 0, x.code.beta != 0))
    loops = Loops(G=elements_of(node) // (node.shape[-2] * node.shape[-1]), K=node.shape[-1], C=a.shape[-1],
                  P=node.shape[-2])  # fmt: skip
    return Layer(
        node.layer, "matmul", (operands[0],), Operand(f"{node.name}.out", node.shape, 32), operands[1], loops,
        accumulator_bits=kernels.bits_for(node.range.least, node.range.largest), weight_is_activation=True,
    )  # fmt: skip


def has_bias(model: IntegerModel, node: graph.Convolve, form: Form) -> bool:
    """Whether a constant is added to these sums anyway (a bias, a batch norm), beside what Eq. 5 folds into it."""
    code = model.node(node.x).code
    if code is None or form.border is not None:
        return any(form.intercepts)
    folded = [Fraction(0)] * node.shape[1 if node.window is not None else -1]
    for part in model.shares(node):
        slopes = next(t.slopes for t in form.terms if part.name in t.nodes)
        if len(slopes) not in (1, len(folded)):
            return any(form.intercepts)
        sums = tuple(map(Fraction, part.weight.to(torch.int64).flatten(1).sum(1).tolist()))
        folded = [v + at(slopes, k) * code.beta / code.s * at(sums, k) for k, v in enumerate(folded)]
    return any(at(form.intercepts, k) != value for k, value in enumerate(folded))


def bits_of(node: Node) -> int:
    if node.code is None:
        return kernels.bits_for(node.range.least, node.range.largest)
    return (node.code.p - node.code.n).bit_length()


def elements_of(node: Node) -> int:
    count = 1
    for n in node.shape:
        count *= n
    return count
