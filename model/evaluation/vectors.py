"""Arms of known models: TransE over the concepts alone, and LightGCN over the co-plays alone.

    transe     titles at the vectors that TransE gave them; one that came later at the mean of
               c - r over its concepts; scores are cosines
    lightgcn   ids of titles, smoothed over the co-play graph; trained at the cut to convergence
               and some steps more a window on the graph of now; scores are dot products

Sources: A. Bordes et al., "Translating Embeddings for Modeling Multi-relational Data", NeurIPS
2013; X. He et al., "LightGCN: Simplifying and Powering Graph Convolution Network for
Recommendation", SIGIR 2020 (PyTorch Geometric's layers; ours: titles only, no users).

Shape suffixes: N dense ids, T titles of the stream, D width, E edges.
"""

import math
import warnings

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from model.align import drift
from model.evaluation.arms import dot_scorer, unit
from model.evaluation.queries import Scorer
from model.evaluation.world import World
from model.settings import PretrainConfig
from model.transe import Progress, train_transe, triples

with warnings.catch_warnings():
    # PyTorch Geometric calls what PyTorch deprecates, as it is imported.
    warnings.simplefilter("ignore", DeprecationWarning)
    from torch_geometric.nn import LightGCN

Float32s = npt.NDArray[np.float32]

NEIGHBOURS = 16  # co-plays of a title that LightGCN smooths over: as many as ours looks at
NEGATIVES = 512


class TransEOnly:
    """See above."""

    def __init__(
        self, dim: int, config: PretrainConfig, seed: int, progress: Progress | None = None
    ) -> None:
        self.drift = math.nan
        self._dim, self._config, self._seed, self._progress = dim, config, seed, progress

    def start(self, world: World) -> None:
        known = triples(world.graph)
        config = self._config
        made = train_transe(
            known,
            dim=self._dim,
            steps=config.transe_steps,
            batch=config.transe_batch,
            lr=config.transe_lr,
            margin=config.margin,
            seed=self._seed,
            progress=self._progress,
        )
        self._concept_CD = made.concept_CD.numpy()
        self._relation_RD = made.relation_RD.numpy()
        self._title_ND = made.title_TD.numpy().copy()
        tied = np.zeros(len(self._title_ND), bool)
        tied[known.title] = True
        self._title_ND[~tied] = 0.0
        self._place(world)

    def update(self, world: World) -> None:
        self.drift = 1.0
        self._place(world)

    def scorer(self, world: World) -> Scorer:
        return dot_scorer(self._vectors_TD)

    def _place(self, world: World) -> None:
        known = triples(world.graph)
        inside = known.concept < len(self._concept_CD)
        title = known.title[inside]
        from_concept = (
            self._concept_CD[known.concept[inside]] - self._relation_RD[known.relation[inside]]
        )
        place_ND = np.zeros((known.num_titles, self._dim), np.float32)
        np.add.at(place_ND, title, from_concept)
        place_ND[: len(self._title_ND)] = self._title_ND
        self._vectors_TD = unit(world.by_title(place_ND))


class LightGCNOnly:
    """See above.

    Args:
        steps: of the training at the cut; a twentieth of them follow in each window.
    """

    def __init__(
        self,
        dim: int,
        *,
        steps: int,
        seed: int,
        layers: int = 2,
        lr: float = 5e-3,
        batch: int = 2048,
        progress: Progress | None = None,
    ) -> None:
        self.drift = math.nan
        self._dim, self._steps, self._layers, self._lr = dim, steps, layers, lr
        self._batch, self._progress = batch, progress
        self._generator = torch.Generator().manual_seed(seed)
        self._table_ND = torch.zeros(0, dim)
        self._vectors_ND: Float32s = np.zeros((0, dim), np.float32)

    def start(self, world: World) -> None:
        self._train(world, self._steps)

    def update(self, world: World) -> None:
        before = self._vectors_ND
        self._train(world, max(self._steps // 20, 1))
        self.drift = drift(self._vectors_ND, before).mean_cosine

    def scorer(self, world: World) -> Scorer:
        return dot_scorer(world.by_title(self._vectors_ND))

    def _train(self, world: World, steps: int) -> None:
        heads, tails, weights = world.graph.edges(0)
        nodes = world.graph.ids["title"].capacity
        played = np.zeros(nodes, bool)
        played[heads] = True
        if not len(heads):
            self._vectors_ND = np.zeros((nodes, self._dim), np.float32)
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=self._generator)))
            model = LightGCN(nodes, self._dim, self._layers)
        rows = min(len(self._table_ND), nodes)
        with torch.no_grad():
            model.embedding.weight[:rows] = self._table_ND[:rows]
        pair_2P = torch.from_numpy(np.stack([heads, tails]).astype(np.int64))
        chance = torch.cumsum(torch.from_numpy(weights).double(), 0)
        edge_2E, weight_E = _heaviest(world, nodes)
        adam = torch.optim.Adam(model.parameters(), lr=self._lr)
        for step in range(steps):
            loss = self._loss(model, edge_2E, weight_E, pair_2P, chance)
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
            if self._progress is not None and (step % 20 == 0 or step == steps - 1):
                self._progress("lightgcn", step + 1, steps, {"loss": float(loss.detach())})
        with torch.no_grad():
            vectors_ND = model.get_embedding(edge_2E, weight_E).numpy().copy()
        vectors_ND[~played] = 0.0  # an untrained row is noise
        self._table_ND = model.embedding.weight.detach().clone()
        self._vectors_ND = vectors_ND

    def _loss(
        self, model: LightGCN, edge_2E: Tensor, weight_E: Tensor, pair_2P: Tensor, chance: Tensor
    ) -> Tensor:
        """Softmax of each drawn pair against titles drawn evenly."""
        u = torch.rand(self._batch, generator=self._generator, dtype=torch.float64) * chance[-1]
        pick = torch.searchsorted(chance, u, right=True).clamp(max=len(chance) - 1)
        a, b = pair_2P[:, pick]
        out_ND: Tensor = model.get_embedding(edge_2E, weight_E)
        other = torch.randint(len(out_ND), (NEGATIVES,), generator=self._generator)
        logit_BK = torch.cat(
            [
                (out_ND[a] * out_ND[b]).sum(1, keepdim=True),
                (out_ND[a] @ out_ND[other].T).masked_fill(other == b[:, None], -torch.inf),
            ],
            dim=1,
        )
        return F.cross_entropy(logit_BK, torch.zeros(len(a), dtype=torch.int64))


def _heaviest(world: World, nodes: int) -> tuple[Tensor, Tensor]:
    """Edges over which states are smoothed: each title's heaviest, and their weights."""
    ids, weights = world.graph.top_k(0, np.arange(nodes, dtype=np.int32), NEIGHBOURS)
    target, column = np.nonzero(ids >= 0)
    edge_2E = np.stack([ids[target, column].astype(np.int64), target])
    return torch.from_numpy(edge_2E), torch.from_numpy(weights[target, column])
