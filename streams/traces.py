"""Traces of a batch's way, from decoding to Redis. Off unless an endpoint is set.

    batch                       from Kafka's hands to the graph; attribute `messages`
    ├─ decode
    ├─ fold                     with the wait for the lock
    └─ refresh                  the first refresh after it; attribute `titles`; links to the other
       ├─ embed                 batches that it made visible
       └─ publish

A share of the batches is traced, whole or not at all. Spans are written when their step is over, so
that an untraced step costs one comparison. The only file that knows OpenTelemetry, which comes with
the extra `otel`. Times are seconds since the Unix epoch.
"""

import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from streams.settings import TracesSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_NS: Final = 1_000_000_000
_WAITING: Final = 64  # batches that wait for their refresh; older ones go without


class TracesUnavailable(RuntimeError):
    """Traces are asked for, and cannot be made: why, and what to do."""


class Step(NamedTuple):
    """What was done from `start_s` to `end_s`."""

    name: str
    start_s: float
    end_s: float


class Traces:
    """Writes the spans of one process, whose threads all may call."""

    def __init__(self, provider: "TracerProvider") -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("upwell")
        self._lock = threading.Lock()
        self._waiting: deque[Any] = deque(maxlen=_WAITING)

    def batch(self, messages: int, steps: Sequence[Step]) -> None:
        """A batch was folded in."""
        span = self._write(Step("batch", steps[0].start_s, steps[-1].end_s), {"messages": messages})
        if not span.is_recording():
            return
        self._write_all(steps, span)
        with self._lock:
            self._waiting.append(span)
        span.end(_ns(steps[-1].end_s))

    def refresh(self, titles: int, steps: Sequence[Step]) -> None:
        """All that was folded in before is visible; nothing is written where none was traced."""
        with self._lock:
            batches = [one for one in self._waiting if one.end_time <= _ns(steps[0].end_s)]
            for one in batches:
                self._waiting.remove(one)
        if not batches:
            return
        whole = Step("refresh", steps[0].start_s, steps[-1].end_s)
        span = self._write(whole, {"titles": titles}, parent=batches[0], links=batches[1:])
        self._write_all(steps, span)
        span.end(_ns(whole.end_s))

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()

    def _write_all(self, steps: Sequence[Step], parent: Any) -> None:
        for step in steps:
            self._write(step, {}, parent=parent).end(_ns(step.end_s))

    def _write(
        self,
        step: Step,
        attributes: dict[str, int],
        *,
        parent: Any = None,
        links: Sequence[Any] = (),
    ) -> Any:
        from opentelemetry import context, trace

        within = context.Context()
        if parent is not None:
            within = trace.set_span_in_context(parent, within)
        return self._tracer.start_span(
            step.name,
            within,
            attributes=attributes,
            links=[trace.Link(one.get_span_context()) for one in links],
            start_time=_ns(step.start_s),
        )


def open_traces(settings: TracesSettings, service: str, instance: str) -> Traces | None:
    """Traces to the endpoint of the settings; None where there is none.

    Args:
        service, instance: what a viewer calls this process.

    Raises:
        TracesUnavailable: OpenTelemetry is not installed.
    """
    if settings.endpoint is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ImportError as error:
        raise TracesUnavailable(
            f"traces.endpoint = {settings.endpoint}, but OpenTelemetry is not installed ({error}); "
            "install Upwell with its extra `otel`, or unset traces.endpoint"
        ) from error
    names = {"service.name": service, "service.instance.id": instance}
    provider = TracerProvider(
        resource=Resource.create(names), sampler=ParentBased(TraceIdRatioBased(settings.share))
    )
    exporter = OTLPSpanExporter(endpoint=settings.endpoint.rstrip("/") + "/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Traces(provider)


def _ns(seconds: float) -> int:
    return int(seconds * _NS)
