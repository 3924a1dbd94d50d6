"""One pass of a language model as a workload: `n` new tokens of each sequence after `past` tokens in the cache.

Per token and layer the products are d dh (2H + 2Hk) for projections, 3 d f (2 d f without a gate) for the MLP, and for
n tokens over L = past + n keys 2 B H dh n L for attention, whose causal half a machine may skip. Keys and values are
tensors of their own (origin `cache`): read whole by attention, once per KV head, written once per new token. Fused as
kernels have it: q, k, v in one product, gate and up in one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

from hwsim.errors import WorkloadError
from hwsim.frontends.language_models.description import LanguageModel, Latent
from hwsim.network.generation import CACHE, NEW, Generation
from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.network.workload import Workload

EXACT_TOKENS = 4096


@dataclass(frozen=True)
class Pass:
    """What runs through the model at once. `logits`: tokens of each sequence whose logits are made."""

    batch: int
    past: int
    new: int
    logits: int = 1
    experts: str = "expected"

    @property
    def tokens(self) -> int:
        """New tokens of all sequences."""
        return self.batch * self.new

    @property
    def keys(self) -> int:
        """Tokens that attention sees, the new ones included."""
        return self.past + self.new


def expected_experts(model: LanguageModel, tokens: int) -> Fraction:
    """Experts that at least one of `tokens` tokens chooses, on average: E (1 - (1 - k/E)^T), choices even and apart.
    Exact up to EXACT_TOKENS; beyond, as near as floats are."""
    chance = 1 - Fraction(model.chosen, model.experts)
    missed = chance**tokens if tokens <= EXACT_TOKENS else Fraction(float(chance) ** tokens)
    return model.experts * (1 - missed)


def touched_experts(model: LanguageModel, run: Pass) -> int:
    """Experts whose weights are read: the expected number rounded up, or min(E, T k)."""
    if run.experts == "worst":
        return min(model.experts, run.tokens * model.chosen)
    return min(model.experts, math.ceil(expected_experts(model, run.tokens)))


def build(model: LanguageModel, run: Pass) -> Workload:
    """The workload of one pass. Raises WorkloadError beyond the model's positions."""
    require_reach(model, run.keys)
    return Builder(model, run).workload()


def build_phase(
    model: LanguageModel, phase: str, batch: int, context: int, new: int = 1, experts: str = "expected"
) -> tuple[Workload, Generation]:
    """The workload of a phase and what it means; see `Generation`."""
    meant = Generation(phase, batch, context, new)
    run = Pass(batch, 0, context, 1, experts) if phase == "prefill" else Pass(batch, meant.past, 1, 1, experts)
    if phase == "decode":  # the last step must be within reach, not only the one in the middle
        require_reach(model, context + new)
    if experts == "worst" and not model.experts:
        raise WorkloadError(f"{model.name}: experts worst: {model.family} has no experts: leave it out")
    if model.experts:
        meant = replace(meant, experts_held=model.experts, experts_read=touched_experts(model, run))
    return build(model, run), meant


def require_reach(model: LanguageModel, tokens: int) -> None:
    """Raises WorkloadError beyond the model's positions."""
    if model.limit and tokens > model.limit:
        raise WorkloadError(f"{model.name}: {tokens:,} tokens are more than its {model.limit:,} positions")


class Builder:
    """Writes the layers in order; `x` is the residual stream."""

    def __init__(self, model: LanguageModel, run: Pass) -> None:
        self.model, self.run = model, run
        self.layers: list[Layer] = []
        self.t = run.tokens

    def workload(self) -> Workload:
        """All blocks, the last norm and the head."""
        m, run = self.model, self.run
        x = self.embed()
        for i in range(m.layers):
            x = self.block(i, x)
        rows = run.batch * run.logits
        last = self.vector("norm", m.norm, (Tensor(x.name, (rows, m.width), origin="add"),), (rows, m.width), m.width)
        table = "embed.weight" if m.tied else "head.weight"
        self.linear("head", last, m.vocabulary, weight=table)
        return Workload(m.name, self.layers, notes=self.notes())

    def notes(self) -> tuple[str, ...]:
        """What the report should say of this pass."""
        m, run = self.model, self.run
        said = [
            f"{m.family}: {run.batch} sequences, {run.new} new tokens after {run.past} in the cache; logits of "
            f"{run.logits} token(s) of each; q, k, v and gate, up are one product each",
            "attention reads a KV head once for all queries that share it; scores count as written and read where they "
            "do not stay on chip",
        ]
        if m.stored:
            said.append(m.stored)
        if m.latent is not None:
            said.append(
                "latent attention: the cache holds latents, expanded for every head in this pass" if not run.past else
                "latent attention: the cache holds latents, which attention reads itself (expansion absorbed), once as "
                "keys and once as values"
            )  # fmt: skip
        if m.experts:
            exact = float(expected_experts(m, self.t))
            said.append(
                f"experts: {touched_experts(m, run)} of {m.experts} read ({run.experts}; {exact:.2f} expected where "
                "tokens choose evenly and apart; routers are skewed)"
            )
        return tuple(said)

    # ---- pieces ------------------------------------------------------------------------------------------------------

    def add(self, layer: Layer) -> Tensor:
        """Append a layer; its output."""
        self.layers.append(layer)
        return layer.output

    def linear(
        self, name: str, x: Tensor, out: int, *, bias: bool = False, origin: str = "linear", weight: str = ""
    ) -> Tensor:
        """x (rows, in) times weights (out, in)."""
        rows, width = x.shape
        made = Tensor(f"{name}.out", (rows, out), origin=origin)
        held = Tensor(weight or f"{name}.weight", (out, width), origin="weight")
        return self.add(Layer(name, "linear", (x,), made, held, Loops(N=rows, K=out, C=width), bias=bias))

    def vector(
        self, name: str, op: str, inputs: tuple[Tensor, ...], shape: tuple[int, ...], weight: int = 0, origin: str = ""
    ) -> Tensor:
        """An operator without products, with `weight` parameters."""
        held = Tensor(f"{name}.weight", (weight,), origin="weight") if weight else None
        return self.add(Layer(name, op, inputs, Tensor(f"{name}.out", shape, origin=origin or op), held))

    def embed(self) -> Tensor:
        """Rows of the table, one for each token, and learned positions where there are any."""
        m, run = self.model, self.run
        tokens = Tensor("tokens", (run.batch, run.new), origin="index")
        table = Tensor("embed.weight", (m.vocabulary, m.width), origin="weight")
        x = self.add(
            Layer("embed", "embedding", (tokens,), Tensor("embed.out", (self.t, m.width), origin="embedding"), table)
        )
        if not m.positions:
            return x
        places = Tensor("places", (run.new,), origin="index")
        held = Tensor("positions.weight", (m.positions, m.width), origin="weight")
        made = Tensor("positions.out", (run.new, m.width), origin="embedding")
        return self.vector("embed.add", "add", (x, self.add(Layer("positions", "embedding", (places,), made, held))),
                           (self.t, m.width))  # fmt: skip

    def block(self, index: int, x: Tensor) -> Tensor:
        """Attention and MLP, each behind a norm and added to the residual stream."""
        at = f"layers.{index}"
        m, shape = self.model, (self.t, self.model.width)
        normed = self.vector(f"{at}.attn.norm", m.norm, (x,), shape, m.width)
        seen = self.attention(f"{at}.attn", normed) if m.latent is None else self.latent(f"{at}.attn", normed, m.latent)
        x = self.vector(f"{at}.attn.add", "add", (x, seen), shape)
        normed = self.vector(f"{at}.mlp.norm", m.norm, (x,), shape, m.width)
        sparse = m.experts and index >= m.dense
        made = self.experts(f"{at}.mlp", normed) if sparse else self.mlp(f"{at}.mlp", normed, m.hidden)
        return self.vector(f"{at}.mlp.add", "add", (x, made), shape)

    def attention(self, at: str, x: Tensor) -> Tensor:
        """Projections, the new rows of the cache, scores, softmax, the sum of values, the output projection."""
        m, run = self.model, self.run
        queries, keys = m.heads * m.head_width, m.kv_heads * m.head_width
        qkv = self.linear(f"{at}.qkv", x, queries + 2 * keys, bias=m.qkv_bias)
        q = Tensor(qkv.name, (self.t, queries + keys), origin=qkv.origin)
        if m.head_norms:
            q = self.vector(f"{at}.head_norm", m.norm, (q,), q.shape, 2 * m.head_width)
        if not m.positions:
            q = self.vector(f"{at}.rope", "rope", (q,), q.shape)
        seen = min(run.keys, m.window) if m.window and run.past else run.keys  # a prefill masks the whole square
        held = (m.kv_heads, m.head_width)
        k = self.cached(f"{at}.keys", Tensor(q.name, (self.t, keys), origin=q.origin), seen, *held)
        v = self.cached(f"{at}.values", Tensor(qkv.name, (self.t, keys), origin=qkv.origin), seen, *held)
        groups, rows = run.batch * m.kv_heads, run.new * (m.heads // m.kv_heads)
        asked = Tensor(q.name, (groups, rows, m.head_width), origin=q.origin)
        made = self.products(at, asked, k, v, (self.t, queries))
        return self.linear(f"{at}.out", made, m.width, bias=m.out_bias)

    def products(self, at: str, asked: Tensor, k: Tensor, v: Tensor, shape: tuple[int, ...]) -> Tensor:
        """softmax(q k^T) v: `asked` (groups, rows, width) over keys and values (..., keys, width), in `shape`."""
        (groups, rows, width), (seen, wide) = asked.shape, (v.shape[-2], v.shape[-1])
        causal = self.run.new if self.run.new > 1 and seen == self.run.keys else 0
        scores = self.add(Layer(
            f"{at}.scores", "matmul", (asked,), Tensor(f"{at}.scores.out", (groups, rows, seen), origin="linear"), k,
            Loops(N=rows, G=groups, K=seen, C=width), weight_is_activation=True, causal_rows=causal,
        ))  # fmt: skip
        shares = self.vector(f"{at}.softmax", "softmax", (scores,), scores.shape)
        return self.add(Layer(
            f"{at}.context", "matmul", (shares,), Tensor(f"{at}.context.out", shape, origin="linear"), v,
            Loops(N=rows, G=groups, K=wide, C=seen), weight_is_activation=True, causal_rows=causal, causal_over="C",
        ))  # fmt: skip

    def latent(self, at: str, x: Tensor, sizes: Latent) -> Tensor:
        """Latent attention: a prefill expands keys and values of every head, a step with a cache reads the latents.

        There the expansion is absorbed: into the queries before the scores, and behind the sum of latents (an exact
        identity). Products of a step: t H rank (plain + value) and H n L (2 rank + rope).
        """
        m, run, wide = self.model, self.run, sizes.rank + sizes.rope
        down = self.linear(f"{at}.down", x, sizes.query_rank + wide, bias=m.qkv_bias)
        source = x
        if sizes.query_rank:
            part = Tensor(down.name, (self.t, sizes.query_rank), origin=down.origin)
            source = self.vector(f"{at}.query_norm", m.norm, (part,), part.shape, sizes.query_rank)
        q = self.linear(f"{at}.query", source, m.heads * (sizes.plain + sizes.rope))
        part = Tensor(down.name, (self.t, sizes.rank), origin=down.origin)
        c = self.vector(f"{at}.latent_norm", m.norm, (part,), part.shape, sizes.rank)
        turned = (self.t, (m.heads + 1) * sizes.rope)
        q = self.vector(f"{at}.rope", "rope", (Tensor(q.name, turned, origin=q.origin),), turned)
        held = self.cached(f"{at}.latents", Tensor(c.name, (self.t, wide), origin=c.origin), run.keys, 1, wide)
        made = self.absorbed(at, q, held, sizes) if run.past else self.expanded(at, q, c, sizes)
        return self.linear(f"{at}.out", made, m.width, bias=m.out_bias)

    def expanded(self, at: str, q: Tensor, c: Tensor, sizes: Latent) -> Tensor:
        """Keys and values of every head, then attention as usual."""
        m, run = self.model, self.run
        both = self.linear(f"{at}.expand", c, m.heads * (sizes.plain + sizes.value))
        each = sizes.plain + sizes.rope
        k = Tensor(both.name, (run.batch, m.heads, run.keys, each), origin=both.origin)
        v = Tensor(both.name, (run.batch, m.heads, run.keys, sizes.value), origin=both.origin)
        asked = Tensor(q.name, (run.batch * m.heads, run.new, each), origin=q.origin)
        return self.products(at, asked, k, v, (self.t, m.heads * sizes.value))

    def absorbed(self, at: str, q: Tensor, held: Tensor, sizes: Latent) -> Tensor:
        """All heads ask the same latents, which are the values, too."""
        m, run, wide = self.model, self.run, sizes.rank + sizes.rope
        plain = Tensor(q.name, (self.t, m.heads * sizes.plain), origin=q.origin)
        asked = self.per_head(f"{at}.absorb_keys", plain, sizes.rank, sizes.plain)
        asked = Tensor(asked.name, (run.batch, run.new * m.heads, wide), origin=asked.origin)
        values = Tensor(held.name, (*held.shape[:-1], sizes.rank), origin=held.origin)
        mixed = self.products(at, asked, held, values, (self.t, m.heads * sizes.rank))
        return self.per_head(f"{at}.absorb_values", mixed, sizes.value, sizes.rank)

    def per_head(self, name: str, x: Tensor, out: int, width: int) -> Tensor:
        """A product of its own for every head."""
        heads = self.model.heads
        held = Tensor(f"{name}.weight", (heads * out, width), origin="weight")
        made = Tensor(f"{name}.out", (self.t, heads * out), origin="linear")
        return self.add(Layer(name, "linear", (x,), made, held, Loops(N=self.t, G=heads, K=out, C=width)))

    def cached(self, at: str, rows: Tensor, seen: int, heads: int, width: int) -> Tensor:
        """Write the new rows at the cache's bits; the cache that attention reads, whole."""
        run = self.run
        shape = (run.batch, heads, seen, width)
        if not run.past and seen == run.new:  # all there is was made in this pass
            return self.add(Layer(f"{at}.write", "requantize", (rows,), Tensor(at, shape, origin=CACHE)))
        new = Tensor(f"{at}{NEW}", (run.batch, heads, run.new, width), origin=CACHE)
        self.add(Layer(f"{at}.write", "requantize", (rows,), new))
        return Tensor(at, shape, origin=CACHE)

    def mlp(self, at: str, x: Tensor, hidden: int) -> Tensor:
        """SwiGLU, or one projection and GELU."""
        m = self.model
        if m.gated:
            both = self.linear(f"{at}.gate_up", x, 2 * hidden, bias=m.mlp_bias)
            inner = self.vector(f"{at}.act", "swiglu", (both,), (self.t, hidden), origin="mul")
        else:
            inner = self.vector(f"{at}.act", "gelu", (self.linear(f"{at}.up", x, hidden, bias=m.mlp_bias),),
                                (self.t, hidden))  # fmt: skip
        return self.linear(f"{at}.down", inner, m.width, bias=m.mlp_bias)

    def experts(self, at: str, x: Tensor) -> Tensor:
        """A router, the touched experts, as evenly loaded as whole tokens allow, and the weighted sum."""
        m = self.model
        routed = self.linear(f"{at}.router", x, m.experts)
        gates = self.vector(f"{at}.gates", "softmax", (routed,), routed.shape)
        touched, rows = touched_experts(m, self.run), self.t * m.chosen
        parts = [(rows % touched, rows // touched + 1), (touched - rows % touched, rows // touched)]
        made: list[Tensor] = []
        for place, (count, each) in enumerate((c, e) for c, e in parts if c and e):
            made.append(self.expert_group(f"{at}.experts.{place}", x, count, each))
        if m.shared:
            made.append(self.mlp(f"{at}.shared", x, m.shared * (m.expert_hidden or m.hidden)))
        return self.vector(f"{at}.combine", "combine", (*made, gates), (self.t, m.width))

    def expert_group(self, at: str, x: Tensor, count: int, rows: int) -> Tensor:
        """`count` experts with `rows` tokens each: grouped products."""
        m, hidden = self.model, self.model.expert_hidden or self.model.hidden
        inner = (2 if m.gated else 1) * hidden

        def product(name: str, source: Tensor, out: int, width: int) -> Tensor:
            held = Tensor(f"{name}.weight", (count * out, width), origin="weight")
            made = Tensor(f"{name}.out", (count * rows, out), origin="linear")
            read = Tensor(source.name, (count * rows, width), origin=source.origin)
            return self.add(Layer(name, "linear", (read,), made, held, Loops(N=rows, G=count, K=out, C=width)))

        both = product(f"{at}.gate_up", x, inner, m.width)
        acted = self.vector(f"{at}.act", "swiglu" if m.gated else "gelu", (both,), (count * rows, hidden), origin="mul")
        return product(f"{at}.down", acted, m.width, hidden)
