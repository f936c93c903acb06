"""Edges as a sparse matrix, and the two products that attention needs, without a row an edge.

An `Adjacency` holds the edges sorted by target, as compressed rows, and the same edges by source
for the way back. `edge_dot` gives <q_target, k_source> for each edge; `edge_sum` gives the weighted
sum of the sources' rows for each target. Neither writes an (E, D) array, which at a hundred
thousand edges costs ten times the arithmetic; so their gradients are written out here.

Shape suffixes: H heads, T targets, S sources, E edges, K channels of a head.
"""

import warnings
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

with warnings.catch_warnings():
    # PyTorch says once a process that CSR tensors are in beta; we use one product of theirs.
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor(
        torch.tensor([0, 0]), torch.zeros(0, dtype=torch.int64), torch.zeros(0), size=(1, 1)
    )


@dataclass(frozen=True, slots=True)
class Adjacency:
    """Edges from sources to targets.

    Attributes:
        num_targets: targets are numbered 0..num_targets - 1.
        num_sources: likewise.
        dst: target of each edge, ascending, shape (E,), int64.
        src: source of each edge, shape (E,), int64.
        relation: message relation of each edge, shape (E,), int64.
        bias: natural logarithm of each edge's weight, shape (E,), float32.
        ptr: edges of target t are ptr[t]:ptr[t + 1], shape (T + 1,), int64.
        back: order of the edges by source, shape (E,), int64.
        back_ptr: as `ptr`, by source, shape (S + 1,), int64.
        back_dst: `dst[back]`.
    """

    num_targets: int
    num_sources: int
    dst: Tensor
    src: Tensor
    relation: Tensor
    bias: Tensor
    ptr: Tensor
    back: Tensor
    back_ptr: Tensor
    back_dst: Tensor

    @classmethod
    def of(
        cls,
        src: Tensor,
        dst: Tensor,
        relation: Tensor,
        bias: Tensor,
        *,
        num_sources: int,
        num_targets: int,
    ) -> "Adjacency":
        """Edges that are sorted by target already, as the columns above."""
        back = torch.argsort(src, stable=True)
        return cls(
            num_targets,
            num_sources,
            dst,
            src,
            relation,
            bias,
            _pointers(dst, num_targets),
            back,
            _pointers(src, num_sources),
            dst[back],
        )

    def to(self, device: torch.device) -> "Adjacency":
        """All of it there."""
        columns: dict[str, Any] = {
            field.name: one.to(device)
            for field in fields(self)
            if isinstance(one := getattr(self, field.name), Tensor)
        }
        return replace(self, **columns)

    def keep(self, chosen: Tensor) -> "Adjacency":
        """The edges where `chosen` (shape (E,), bool)."""
        rows = chosen.nonzero().flatten()
        before = _before(chosen)
        chosen_back = chosen.index_select(0, self.back)
        return Adjacency(
            self.num_targets,
            self.num_sources,
            self.dst[rows],
            self.src[rows],
            self.relation[rows],
            self.bias[rows],
            before[self.ptr],
            before[self.back[chosen_back]],
            _before(chosen_back)[self.back_ptr],
            self.back_dst[chosen_back],
        )

    def to_first(self, num_targets: int) -> "Adjacency":
        """The edges to the first `num_targets` targets: a prefix, since they are sorted."""
        end = int(self.ptr[num_targets])
        chosen_back = self.back < end
        return Adjacency(
            num_targets,
            self.num_sources,
            self.dst[:end],
            self.src[:end],
            self.relation[:end],
            self.bias[:end],
            self.ptr[: num_targets + 1],
            self.back[chosen_back],
            _before(chosen_back)[self.back_ptr],
            self.back_dst[chosen_back],
        )


def edge_dot(q_HTK: Tensor, k_HSK: Tensor, edges: Adjacency) -> Tensor:
    """<q of the edge's target, k of its source>, shape (H, E), float32."""
    q_HTK, k_HSK = q_HTK.float(), k_HSK.float()  # autocast may have made them bfloat16
    out: Tensor = _EdgeDot.apply(q_HTK, k_HSK, edges)  # type: ignore[no-untyped-call]
    return out


def edge_sum(weight_HE: Tensor, v_HSK: Tensor, edges: Adjacency) -> Tensor:
    """Sum over a target's edges of weight times v of the source, shape (H, T, K), float32."""
    weight_HE, v_HSK = weight_HE.float(), v_HSK.float()
    out: Tensor = _EdgeSum.apply(weight_HE, v_HSK, edges)  # type: ignore[no-untyped-call]
    return out


def edge_softmax(logit_HE: Tensor, edges: Adjacency) -> Tensor:
    """Softmax over each target's edges, shape (H, E)."""
    heads = logit_HE.shape[0]
    index_HE = edges.dst.expand(heads, -1)
    top_HT = logit_HE.new_full((heads, edges.num_targets), -torch.inf)
    top_HT.scatter_reduce_(1, index_HE, logit_HE.detach(), "amax")
    weight_HE = torch.exp(logit_HE - top_HT.index_select(1, edges.dst))
    total_HT = logit_HE.new_zeros(heads, edges.num_targets).index_add(1, edges.dst, weight_HE)
    return weight_HE / total_HT.index_select(1, edges.dst)


def _before(chosen: Tensor) -> Tensor:
    """How many are chosen in front of each place, and in all, shape (E + 1,), int64."""
    before = torch.zeros(len(chosen) + 1, dtype=torch.int64, device=chosen.device)
    torch.cumsum(chosen, 0, out=before[1:])
    return before


def _pointers(sorted_or_not: Tensor, size: int) -> Tensor:
    ptr = torch.zeros(size + 1, dtype=torch.int64, device=sorted_or_not.device)
    torch.cumsum(torch.bincount(sorted_or_not, minlength=size), 0, out=ptr[1:])
    return ptr


def _spmm(weight_E: Tensor, index: Tensor, ptr: Tensor, table: Tensor) -> Tensor:
    out: Tensor = F.embedding_bag(
        index, table, ptr, mode="sum", per_sample_weights=weight_E, include_last_offset=True
    )
    return out


def _sddmm(a_TK: Tensor, b_SK: Tensor, edges: Adjacency) -> Tensor:
    pattern = torch.sparse_csr_tensor(
        edges.ptr,
        edges.src,
        a_TK.new_zeros(edges.src.shape[0]),
        size=(edges.num_targets, edges.num_sources),
        check_invariants=False,
    )
    out: Tensor = torch.sparse.sampled_addmm(pattern, a_TK, b_SK.T, beta=0.0).values()
    return out


class _EdgeDot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_HTK: Tensor, k_HSK: Tensor, edges: Adjacency) -> Tensor:
        q_HTK, k_HSK = q_HTK.contiguous(), k_HSK.contiguous()
        ctx.save_for_backward(q_HTK, k_HSK)
        ctx.edges = edges
        return torch.stack([_sddmm(q, k, edges) for q, k in zip(q_HTK, k_HSK, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (grad_HE,) = grads
        q_HTK, k_HSK = ctx.saved_tensors
        edges: Adjacency = ctx.edges
        grad_HE = grad_HE.contiguous()
        back_HE = grad_HE.index_select(1, edges.back)
        heads = range(len(grad_HE))
        grad_q = [_spmm(grad_HE[h], edges.src, edges.ptr, k_HSK[h]) for h in heads]
        grad_k = [_spmm(back_HE[h], edges.back_dst, edges.back_ptr, q_HTK[h]) for h in heads]
        return torch.stack(grad_q), torch.stack(grad_k), None


class _EdgeSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight_HE: Tensor, v_HSK: Tensor, edges: Adjacency) -> Tensor:
        weight_HE, v_HSK = weight_HE.contiguous(), v_HSK.contiguous()
        ctx.save_for_backward(weight_HE, v_HSK)
        ctx.edges = edges
        heads = range(len(v_HSK))
        return torch.stack([_spmm(weight_HE[h], edges.src, edges.ptr, v_HSK[h]) for h in heads])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (grad_HTK,) = grads
        weight_HE, v_HSK = ctx.saved_tensors
        edges: Adjacency = ctx.edges
        grad_HTK = grad_HTK.contiguous()
        back_HE = weight_HE.index_select(1, edges.back)
        heads = range(len(v_HSK))
        grad_weight = [_sddmm(grad_HTK[h], v_HSK[h], edges) for h in heads]
        grad_v = [_spmm(back_HE[h], edges.back_dst, edges.back_ptr, grad_HTK[h]) for h in heads]
        return torch.stack(grad_weight), torch.stack(grad_v), None
