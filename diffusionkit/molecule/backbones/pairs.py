"""Networks of pairs of atoms, which take nearly all the time of an equivariant network."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.amp import custom_bwd, custom_fwd
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from diffusionkit.molecule.backbones.graph import Edges, Stretch

Head = Literal["sum", "gate", "number"]
_silu, _silu_backward = torch.ops.aten.silu.out, torch.ops.aten.silu_backward.grad_input


class PairNetwork(nn.Module):
    """m_ij = SiLU(W SiLU(V [h_i, h_j, f_ij])) of every edge, and what becomes of it.

    V is a sum of three products, of which those with h_i and h_j are taken once for each atom and not for each edge. On a CPU the
    rest runs stretch by stretch within the cache (`_Pairs`); elsewhere, it is plain operations on all edges at once.

    Args:
        width: of atoms and edges.
        features: numbers f of an edge.
        head: `sum` adds the m_ij of an atom i; `gate` weighs each by a sigmoid of a linear function of it; `number` gives a linear
            function of each, without bias.
    """

    def __init__(self, width: int, features: int, head: Head) -> None:
        super().__init__()
        self.kind = head
        self.first = nn.Linear(2 * width + features, width)
        self.second = nn.Linear(width, width)
        self.head: Any = None if head == "sum" else nn.Linear(width, 1, bias=head == "gate")

    def forward(self, h: Tensor, features: Tensor, edges: Edges) -> Tensor:
        """Atoms (N, width) and edges (E, F) -> sums (N, width), or with `number` (E,)."""
        of_i, of_j, of_edge = self.first.weight.split([h.shape[1], h.shape[1], features.shape[1]], 1)
        a, b = F.linear(h, of_i, self.first.bias), F.linear(h, of_j)
        if h.device.type == "cpu" and not torch.compiler.is_compiling():
            return self._by_stretches(a, b, features, of_edge, edges)
        m = F.silu(self.second(F.silu(a[edges.i] + b[edges.j] + F.linear(features, of_edge))))
        if self.kind == "number":
            return self.head(m)[:, 0]
        return edges.sum(m if self.head is None else m * torch.sigmoid(self.head(m)))

    def _by_stretches(self, a: Tensor, b: Tensor, features: Tensor, of_edge: Tensor, edges: Edges) -> Tensor:
        low = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        head = (None, None) if self.head is None else (self.head.weight[0], self.head.bias)
        return _Pairs.apply(a, b, features, of_edge, self.second.weight, self.second.bias, *head, edges, self.kind, low)


class _Pairs(Function):
    """A pair network from a = V_i h_i + bias and b = V_j h_j on, with its derivative written out.

    One stretch of edges goes through all layers before the next one, in buffers that are used again. All that is kept for the
    backward pass is the input of the second SiLU; the first layer, which is cheap without its matrix product, is computed again.
    Matrix products of edges are in the precision `low` where one is given.
    """

    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(
        ctx: Any,
        a: Tensor,
        b: Tensor,
        features: Tensor,
        of_edge: Tensor,
        weight: Tensor,
        bias: Tensor,
        head: Any,
        offset: Any,
        edges: Edges,
        kind: Head,
        low: torch.dtype | None,
    ) -> Tensor:
        keep = any(ctx.needs_input_grad)
        stretches = edges.stretches(a.shape[1])
        hidden, (buffer, spare) = a.new_empty(len(edges.j) if keep else 0, a.shape[1]), _buffers(a, stretches, 2)
        out = a.new_empty(len(edges.j)) if kind == "number" else torch.zeros_like(a)
        weight_t = _cast(weight, low).t()
        for s in stretches:
            x = buffer[: s.stop - s.start]
            v = hidden[s.start : s.stop] if keep else spare[: len(x)]
            _first(a, b, features, of_edge, edges, s, x)
            _silu(x, out=x)
            _product(x, weight_t, low, v)
            v += bias
            _silu(v, out=x)
            if kind == "number":
                torch.mv(x, head, out=out[s.start : s.stop])
            elif head is None:
                torch.sum(x.view(-1, s.degree, x.shape[1]), 1, out=out[s.first : s.last])
            else:
                gate = torch.sigmoid(torch.addmv(offset, x, head)).view(-1, 1, s.degree)
                torch.bmm(gate, x.view(-1, s.degree, x.shape[1]), out=out[s.first : s.last].unsqueeze(1))
        if keep:
            ctx.save_for_backward(a, b, features, of_edge, weight, head, offset, hidden)
            ctx.edges, ctx.stretches, ctx.kind, ctx.low = edges, stretches, kind, low
        return out

    @staticmethod
    @once_differentiable
    @custom_bwd(device_type="cpu")
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        a, b, features, of_edge, weight, head, offset, hidden = ctx.saved_tensors
        edges, low = ctx.edges, ctx.low
        buffers = _buffers(a, ctx.stretches, 3)
        d_a, d_b, d_features, d_weight = (torch.zeros_like(x) for x in (a, b, features, weight))
        d_bias, d_of_edge = a.new_zeros(a.shape[1]), a.new_zeros(of_edge.shape[1], of_edge.shape[0])
        d_head, d_offset = (None if x is None else torch.zeros_like(x) for x in (head, offset))
        columns, weight = of_edge.t().contiguous(), _cast(weight, low)
        for s in ctx.stretches:
            u, x, d = (buffer[: s.stop - s.start] for buffer in buffers)
            v = hidden[s.start : s.stop]
            _silu(v, out=x)
            _head_backward(d_out, x, head, offset, s, ctx.kind, d, u, d_head, d_offset)
            _silu_backward(d, v, grad_input=d)
            _first(a, b, features, of_edge, edges, s, u)
            _silu(u, out=x)
            d_bias += d.sum(0)
            d_weight += torch.mm(_cast(d, low).t(), _cast(x, low))
            _product(d, weight, low, x)
            _silu_backward(x, u, grad_input=x)
            torch.sum(x.view(-1, s.degree, x.shape[1]), 1, out=d_a[s.first : s.last])
            d_b.index_add_(0, edges.j[s.start : s.stop], x)
            # Both are many times as fast with the long side of the narrow matrix contiguous.
            d_of_edge.addmm_(features[s.start : s.stop].t(), x)
            torch.mm(x, columns.t(), out=d_features[s.start : s.stop])
        return d_a, d_b, d_features, d_of_edge.t(), d_weight, d_bias, d_head, d_offset, None, None, None


def _buffers(a: Tensor, stretches: list[Stretch], count: int) -> tuple[Tensor, ...]:
    """Room for the edges of one stretch, `count` times."""
    most = max((s.stop - s.start for s in stretches), default=0)
    return a.new_empty(count, most, a.shape[1]).unbind()


def _first(a: Tensor, b: Tensor, features: Tensor, of_edge: Tensor, edges: Edges, s: Stretch, out: Tensor) -> None:
    """The first layer of a stretch: a_i + b_j + f_ij V_f."""
    torch.index_select(b, 0, edges.j[s.start : s.stop], out=out)
    out.addmm_(features[s.start : s.stop], of_edge.t())
    out.view(-1, s.degree, out.shape[1]).add_(a[s.first : s.last].unsqueeze(1))


def _head_backward(
    d_out: Tensor,
    m: Tensor,
    head: Any,
    offset: Any,
    s: Stretch,
    kind: Head,
    d_m: Tensor,
    spare: Tensor,
    d_head: Any,
    d_offset: Any,
) -> None:
    """Writes the derivative by the m of a stretch into d_m, and adds those by the head's parameters."""
    if kind == "number":
        d_logit = d_out[s.start : s.stop]
        torch.outer(d_logit, head, out=d_m)
    elif head is None:
        d_m.view(-1, s.degree, m.shape[1]).copy_(d_out[s.first : s.last].unsqueeze(1))
        return
    else:
        gate = torch.sigmoid(torch.addmv(offset, m, head))
        d_sum, shape = d_out[s.first : s.last].unsqueeze(1), (-1, s.degree, m.shape[1])
        d_gate = torch.mul(m.view(shape), d_sum, out=spare.view(shape)).sum(2).view(-1)
        d_logit = d_gate * gate * (1 - gate)
        torch.mul(gate.view(-1, s.degree, 1), d_sum, out=d_m.view(shape))
        d_m.addmm_(d_logit[:, None], head[None])
        d_offset += d_logit.sum()
    d_head += torch.mv(m.t(), d_logit)


def _cast(x: Tensor, low: torch.dtype | None) -> Tensor:
    return x if low is None else x.to(low)


def _product(x: Tensor, weight: Tensor, low: torch.dtype | None, out: Tensor) -> None:
    if low is None:
        torch.mm(x, weight, out=out)
    else:
        out.copy_(x.to(low) @ weight)
