"""Spans of a batch, as a collector gets them over HTTP."""

import gzip
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from streams.settings import TracesSettings
from streams.traces import Step, TracesUnavailable, open_traces

BATCH = [Step("decode", 100.0, 101.0), Step("fold", 101.0, 103.0)]
REFRESH = [Step("embed", 104.0, 105.0), Step("publish", 105.0, 106.5)]


@pytest.fixture
def collector():
    """Takes OTLP over HTTP; `spans` are what came."""
    proto = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            told = proto.ExportTraceServiceRequest.FromString(body)
            server.paths.append(self.path)
            for resource in told.resource_spans:
                server.names.update(
                    {one.key: one.value.string_value for one in resource.resource.attributes}
                )
                for scope in resource.scope_spans:
                    server.spans.extend(scope.spans)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.spans, server.names, server.paths = [], {}, []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def settings(server: HTTPServer, share: float = 1.0) -> TracesSettings:
    return TracesSettings(endpoint=f"http://127.0.0.1:{server.server_port}", share=share)


def test_a_batch_is_one_trace_from_decoding_to_its_refresh(collector):
    traces = open_traces(settings(collector), "upwell-worker", "worker-7")

    traces.batch(500, BATCH)
    traces.batch(20, [Step("decode", 103.0, 103.1), Step("fold", 103.1, 103.2)])
    traces.refresh(80, REFRESH)
    traces.close()

    assert set(collector.paths) == {"/v1/traces"}
    assert collector.names["service.name"] == "upwell-worker"
    assert collector.names["service.instance.id"] == "worker-7"
    batches = {one.span_id: one for one in collector.spans if one.name == "batch"}
    (refresh,) = (one for one in collector.spans if one.name == "refresh")
    whole = batches[refresh.parent_span_id]
    assert whole.attributes[0].value.int_value == 500
    assert (whole.start_time_unix_nano, whole.end_time_unix_nano) == (100 * 10**9, 103 * 10**9)
    (other,) = (one for one in batches.values() if one is not whole)
    assert [one.span_id for one in refresh.links] == [other.span_id]
    of_whole = {one.name for one in collector.spans if one.parent_span_id == whole.span_id}
    assert of_whole == {"decode", "fold", "refresh"}
    of_refresh = {one.name for one in collector.spans if one.parent_span_id == refresh.span_id}
    assert of_refresh == {"embed", "publish"}
    assert {one.trace_id for one in collector.spans if one.name == "embed"} == {whole.trace_id}


def test_a_batch_that_came_after_the_embedding_waits_for_the_next_refresh(collector):
    traces = open_traces(settings(collector), "upwell-worker", "worker-7")

    traces.batch(500, [Step("decode", 104.0, 105.5), Step("fold", 105.5, 106.0)])
    traces.refresh(80, REFRESH)
    traces.refresh(9, [Step("embed", 107.0, 108.0), Step("publish", 108.0, 109.0)])
    traces.close()

    (refresh,) = (one for one in collector.spans if one.name == "refresh")
    assert refresh.start_time_unix_nano == 107 * 10**9


def test_what_is_not_in_the_share_leaves_no_span(collector):
    traces = open_traces(settings(collector, share=0.0), "upwell-worker", "worker-7")

    traces.batch(500, BATCH)
    traces.refresh(80, REFRESH)
    traces.close()

    assert collector.spans == []


def test_traces_are_off_without_an_endpoint():
    assert open_traces(TracesSettings(), "upwell-worker", "worker-7") is None


def test_without_the_extra_the_error_says_what_to_install(monkeypatch):
    for name in [one for one in sys.modules if one.startswith("opentelemetry")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)

    with pytest.raises(TracesUnavailable, match=r"extra `otel`, or unset traces\.endpoint"):
        open_traces(TracesSettings(endpoint="http://h:4318"), "upwell-worker", "worker-7")
