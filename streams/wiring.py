"""From settings to the parameters of the rooms, which know nothing of settings."""

from model.settings import MicroConfig
from streams.coplay import Pairing
from streams.settings import KafkaSettings, SessionsSettings, TrainingSettings
from streams.topics import DEAD, TopicSpec


def pairing_of(settings: SessionsSettings) -> Pairing:
    """Which plays make a pair."""
    return Pairing(settings.previous, settings.gap_s, settings.max_per_hour)


def topics_of(settings: KafkaSettings) -> list[TopicSpec]:
    """The topics that must be there."""
    names = (settings.plays, settings.coplays, settings.catalog)
    return [
        *(TopicSpec(one, settings.partitions, compacted=one == settings.catalog) for one in names),
        *(TopicSpec(one + DEAD, 1) for one in names),
    ]


def micro_config_of(settings: TrainingSettings) -> MicroConfig:
    """How a cycle trains."""
    return MicroConfig(
        steps=settings.steps,
        lr=settings.learning_rate,
        replay=settings.replay,
        distillation=settings.distillation,
        parts=settings.parts,
        trainers=settings.trainers,
        cutter=settings.cutter,
        device=settings.device,
        precision=settings.precision,
        recut_loss=settings.recut_loss,
    )
