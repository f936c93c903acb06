"""Step 2 of pretraining, over HASP parts, by one trainer or several.

A *round* takes each trainer once through its parts; a trainer with fewer parts than another idles
at the end of the round, so that every part counts alike. N trainers so make the same number of
passes in a N-th of the steps.

A part's titles must stand against those of other parts too, or scores across parts mean nothing.
Where external titles came along, these do, and with a gradient. Else vectors of all other titles
do, as they were a few rounds ago (`Outside`), which is the worse way: they are held to be constant,
but move with the weights that are trained against them.

A part has every concept. Those that none of its titles has send and get nothing in it, so a step
does without them: the gradients are the same.

A trainer's title table holds the titles of its parts only, at home or external, in the order of
their dense ids. Rows of external ones are not trained: they come from where they are at home, with
the vectors.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from model.batch import GraphBatch
from model.crew import Crew
from model.pairs import Anchor, Outside, Pairs, candidates_for, training_loss
from model.positives import Positives
from model.runtime import uses_bf16
from model.semantic_gnn import SemanticGNN
from model.settings import PretrainConfig
from partition.hasp import HaspSubgraph

OUTSIDE_EVERY = 5  # rounds between two looks at the vectors of the others
CLIP = 1.0  # largest norm of the gradient


@dataclass(frozen=True, slots=True)
class Part:
    """A part as its trainer has it.

    Attributes:
        batch: its `titles` are rows of the trainer's title table; concepts without an edge are not
            in it.
        dense: dense id of each title, shape (T,), int64, ascending.
        external: whether it is at home in another part, shape (T,), bool.
        pairs: co-plays to learn from.
        anchor: published vectors to stay near, if any.
    """

    batch: GraphBatch
    dense: Tensor
    external: Tensor
    pairs: Pairs
    anchor: Anchor | None = None

    @classmethod
    def of(
        cls,
        graph: HaspSubgraph,
        positives: Positives,
        table: np.ndarray,
        anchor: Anchor | None = None,
    ) -> "Part":
        """Args: `table`: dense id of each row of the title table, ascending."""
        return cls.with_pairs(graph, Pairs.inside(graph, positives), table, anchor)

    @classmethod
    def with_pairs(
        cls, graph: HaspSubgraph, pairs: Pairs, table: np.ndarray, anchor: Anchor | None = None
    ) -> "Part":
        """As `of`, where the co-plays inside are known already."""
        batch = GraphBatch.of(_tied(graph))
        rows = torch.from_numpy(np.searchsorted(table, graph.titles))
        return cls(
            replace(batch, titles=rows),
            torch.from_numpy(graph.titles.astype(np.int64)),
            torch.from_numpy(graph.external),
            pairs,
            anchor,
        )

    def to(self, device: torch.device) -> "Part":
        """What a step computes with there; pairs are drawn, and titles looked up, on the CPU."""
        anchor = None if self.anchor is None else self.anchor.to(device)
        return replace(self, batch=self.batch.to(device), anchor=anchor)


@dataclass(slots=True)
class Progress:
    """How far training has come, and all that the next step depends on but the weights.

    Attributes:
        step: steps made.
        optimizer: its schedule is a function of `step`.
        generator: of all draws.
        losses: of the steps made so far, NaN where this trainer was idle.
        last: the others' vectors as they were last looked at.
        every: steps between two looks; one who starts after such a step looks first, so that no
            vectors need be kept to go on.
    """

    step: int
    optimizer: torch.optim.AdamW
    generator: torch.Generator
    losses: list[float]
    last: "Last | None" = None
    every: int = 1


@dataclass(frozen=True, slots=True)
class Last:
    """Vectors of all parts' titles at home there, as they were a few rounds ago.

    Attributes:
        titles: dense ids, shape (X,), int64.
    """

    titles: Tensor
    outside: Outside

    def others(self, titles: Tensor) -> Outside:
        """Those that are none of `titles`."""
        keep = ~torch.isin(self.titles, titles)
        return Outside(self.outside.vectors[keep], self.outside.strength[keep])


def begin(model: SemanticGNN, config: PretrainConfig, seed: int) -> Progress:
    """The state before the first step; `seed` must differ from trainer to trainer."""
    others = [one for one in model.parameters() if one is not model.title_TD]
    optimizer = torch.optim.AdamW(
        [{"params": others}, {"params": [model.title_TD]}], weight_decay=config.weight_decay
    )
    return Progress(0, optimizer, torch.Generator().manual_seed(seed), [])


def train_parts(
    model: SemanticGNN,
    parts: Sequence[Part],
    config: PretrainConfig,
    crew: Crew,
    progress: Progress,
    *,
    after_step: Callable[[Progress, int], None] = lambda progress, steps: None,
) -> float:
    """Train; `model` and `progress` are changed.

    Args:
        parts: this trainer's; none of them may have pairs, as long as some trainer's does. One is
            asked for whenever it is needed, and need not stay in memory.
        after_step: called with the progress and the number of steps in all.

    Returns:
        Mean loss of the last tenth of this trainer's steps, NaN where nothing trains.

    Raises:
        TrainerLost: another trainer is gone.
    """
    work = [number for number, part in enumerate(parts) if len(part.pairs)]
    counts = crew.share(len(work), "the count of parts")
    rounds = max(counts)
    if not sum(counts) or not config.steps:
        return math.nan
    steps = math.ceil(config.steps * rounds / sum(counts))
    alone = sum(crew.share(len(parts), "the count of parts")) == 1
    # Vectors are for parts without external titles, rows for external titles of other trainers.
    lonely = sum(not bool(part.external.any()) for part in parts)
    need_vectors = not alone and sum(crew.share(lonely, "the count of parts")) > 0
    need_rows = crew.size > 1 and sum(crew.share(len(parts) - lonely, "the count of parts")) > 0
    looked = False
    schedule = _schedule(progress, config, steps)
    progress.every = OUTSIDE_EVERY * rounds
    model.train()
    for step in range(progress.step, steps):
        what = f"step {step + 1} of {steps}"
        if (need_vectors or need_rows) and (not looked or step % progress.every == 0):
            home = _at_home(parts, crew, what)
            if need_vectors:
                progress.last = _look(model, parts, crew, home, what)
            if need_rows:
                _bring_rows(model, parts, crew, home, what)
            looked = True
        turn = step % rounds
        active = turn < len(work)
        progress.optimizer.zero_grad()
        progress.losses.append(
            _backward(model, parts[work[turn]], config, progress) if active else math.nan
        )
        crew.average_gradients(model, active=active, max_norm=CLIP, what=what)
        progress.optimizer.step()
        schedule.step()
        progress.step = step + 1
        after_step(progress, steps)
    tail = np.array(progress.losses[-max(len(progress.losses) // 10, 1) :])
    return float(np.mean(tail[~np.isnan(tail)])) if not np.isnan(tail).all() else math.nan


def _backward(model: SemanticGNN, part: Part, config: PretrainConfig, progress: Progress) -> float:
    """Gradients of one part's loss; returns the loss."""
    outside = None
    if progress.last is not None and not bool(part.external.any()):
        outside = progress.last.others(part.dense)
    candidates = candidates_for(part.batch, config.loss, outside)
    device = model.title_TD.device
    part = part.to(device)  # anew in each step: the device then holds no part but this one
    loss = training_loss(
        model,
        part.batch,
        [(part.pairs, config.loss.sources)],
        candidates,
        config.loss,
        progress.generator,
        anchor=part.anchor,
        outside=outside,
        bf16=uses_bf16(config.precision, device),
    )
    loss.backward()  # type: ignore[no-untyped-call]
    rows = model.title_TD.grad
    if rows is not None and bool(part.external.any()):
        rows[part.batch.titles[part.external]] = 0.0
    return float(loss.detach())


def _at_home(parts: Sequence[Part], crew: Crew, what: str) -> Tensor:
    """Dense ids of all trainers' titles where they are at home, in the order of their parts."""
    nobody = torch.zeros(0, dtype=torch.int64)
    return crew.gather(torch.cat([nobody, *(part.dense[~part.external] for part in parts)]), what)


def _look(model: SemanticGNN, parts: Sequence[Part], crew: Crew, home: Tensor, what: str) -> Last:
    """Vectors of the titles `home`."""
    vectors, strength = [model.title_TD.new_zeros(0, model.config.dim)], [torch.zeros(0)]
    with torch.no_grad():
        model.eval()
        for part in parts:
            vectors.append(model(part.batch.to(model.title_TD.device))[~part.external])
            strength.append(part.batch.strength[~part.external])
        model.train()
    gathered = (crew.gather(torch.cat(one), what) for one in (vectors, strength))
    return Last(home, Outside(*gathered))


def _bring_rows(
    model: SemanticGNN, parts: Sequence[Part], crew: Crew, home: Tensor, what: str
) -> None:
    """Set the external titles' rows to those where they are at home."""
    rows = [model.title_TD.new_zeros(0, model.config.dim)]
    with torch.no_grad():
        rows += [model.title_TD[part.batch.titles[~part.external]] for part in parts]
        _take_rows(model, parts, home, crew.gather(torch.cat(rows), what))


def _take_rows(model: SemanticGNN, parts: Sequence[Part], titles: Tensor, rows: Tensor) -> None:
    """Set the external titles' rows to those of `titles`, which are in any order."""
    order = torch.argsort(titles)
    for part in parts:
        mine = part.dense[part.external]
        at = order[torch.searchsorted(titles[order], mine).clamp(max=max(len(order) - 1, 0))]
        known = titles[at] == mine
        model.title_TD[part.batch.titles[part.external][known]] = rows[at[known]]


def _schedule(
    progress: Progress, config: PretrainConfig, steps: int
) -> torch.optim.lr_scheduler.OneCycleLR:
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        progress.optimizer,
        [config.lr, config.lr * config.id_lr],
        total_steps=steps,
        pct_start=0.3 if steps == 5 else 0.2,  # a rise of one step is a division by zero there
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the steps that it wants were made by another process
        for _ in range(progress.step):
            schedule.step()
    return schedule


def _tied(graph: HaspSubgraph) -> HaspSubgraph:
    """The same subgraph without concepts that have no edge in it."""
    titles = len(graph.titles)
    used = np.zeros(graph.num_nodes, bool)
    used[:titles] = True
    used[graph.edge_index.ravel()] = True
    place = np.cumsum(used) - 1
    return replace(
        graph, concepts=graph.concepts[used[titles:]], edge_index=place[graph.edge_index]
    )
