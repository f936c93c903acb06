"""A cycle to be tried: settings that let all pass, and a model that has published."""

import threading

import numpy as np

from model.inference import Embedder
from model.settings import LossConfig, MicroConfig

CONFIG = MicroConfig(  # its gate lets all finite models pass: they start untrained here
    steps=4,
    parts=1,
    reservoir=500,
    lr=5e-3,
    id_lr=1.0,
    min_cosine=-1.0,
    max_norm_ratio=1e6,
    max_loss_of_recall=1.0,
    loss=LossConfig(sources=16, targets=4, hide_title=0.15, drop_edges=0.1),
)


def published_in(two_camps, make_model):
    """Graph, pairs, model, and the vectors that it published."""
    graph, positives = two_camps
    model = make_model(graph)
    embedder = Embedder(model.clone())
    embedder.full(graph)
    return graph, positives, model, embedder.vectors(np.arange(20))


def run(trainer, scene, **changes):
    graph, positives, model, published = scene
    given = {"fresh": positives, "published": published, "model": model, "graph": graph, **changes}
    return trainer.cycle(
        given["model"], given["graph"], threading.Lock(), given["fresh"], given["published"]
    )
