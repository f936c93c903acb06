"""Files into topics, and into a first checkpoint, as an operator brings them in."""

import gzip
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer.testing

from streams.cli import app, main
from streams.events import decode_catalog, decode_coplays, decode_plays
from streams.files import RowFile
from streams.ingest import Ingest
from streams.mapping import Events, RowMap
from streams.replay import PARCEL, Replay
from streams.settings import GraphSettings
from streams.snapshot import load_snapshot
from streams.topics import BrokerUnreachable, TopicSpec, ensure_topics
from tests.servers import wait_until

NOW = 1_700_000_000_000


@pytest.fixture
def program(broker, tmp_path, monkeypatch):
    """The command `upwell`, with topics of this test alone."""
    name = tmp_path.name.replace("test_", "")
    monkeypatch.setenv("UPWELL_KAFKA__BOOTSTRAP", broker.address)
    for kind in ("plays", "coplays", "catalog"):
        monkeypatch.setenv(f"UPWELL_KAFKA__{kind.upper()}", f"{name}-{kind}")
    monkeypatch.setenv("UPWELL_CHECKPOINT__FOLDER", str(tmp_path / "checkpoints"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        done = typer.testing.CliRunner().invoke(app, [str(one) for one in arguments])
        return done.exit_code, done.stdout, done.stderr + str(done.exception or "")

    run.topic = lambda kind: f"{name}-{kind}"
    return run


def messages_of(broker, topic: str, count: int) -> list:
    found = []
    with Ingest(broker.address, [topic]) as ingest:
        wait_until(
            lambda: (
                found.extend(ingest.consume(999, 0.1).messages.get(topic, []))
                or len(found) >= count
            ),
            f"{count} messages",
        )
    return found


def pairs_file(path, count: int):
    rows = [{"src": f"m{n}", "dst": f"m{n + 1}", "ts": 1_000 + n} for n in range(count)]
    path.write_text("src,dst,ts\n" + "".join(f"{r['src']},{r['dst']},{r['ts']}\n" for r in rows))
    return [(row["src"], row["dst"], row["ts"] * 1000) for row in rows]


@pytest.mark.parametrize("content", ["json", "arrow"])
def test_co_plays_of_a_csv_arrive_with_their_columns_mapped(program, broker, tmp_path, content):
    want = pairs_file(tmp_path / "pairs.csv", 1200)
    columns = "a=src,b=dst,time_ms=ts"

    code, out, err = program(
        *("replay", "pairs.csv", "--topic", "coplays", "--columns", columns),
        *("--time-unit", "s", "--content", content),
    )

    assert code == 0, err
    assert out.startswith("1200 coplays delivered")
    found = messages_of(broker, program.topic("coplays"), 1200 if content == "json" else 1)
    decoded = decode_coplays(found)
    assert decoded.dead == []
    pairs = decoded.pairs
    assert sorted(zip(pairs.a, pairs.b, pairs.time_ms.tolist(), strict=True)) == sorted(want)
    if content == "json":
        assert all(one.key == a.encode() for one, a in zip(found, pairs.a, strict=True))


def test_plays_and_titles_arrive_under_their_keys(program, broker, tmp_path):
    plays = [{"user": n % 3, "title": f"m{n}", "time_ms": n, "seconds": 9.5} for n in range(10)]
    pq.write_table(pa.Table.from_pylist(plays), tmp_path / "plays.parquet")
    titles = [{"title": "m1", "time_ms": 5, "concepts": {"genre": ["Crime"]}}]
    (tmp_path / "titles.jsonl.gz").write_bytes(gzip.compress(json.dumps(titles[0]).encode()))

    played = program("replay", "plays.parquet", "--topic", "plays", "--rate", "2000")
    published = program("replay", "titles.jsonl.gz", "--topic", "catalog")

    assert (played[0], published[0]) == (0, 0)
    found = messages_of(broker, program.topic("plays"), 10)
    decoded = decode_plays(found)
    assert sorted(play.title for play in decoded.plays) == [f"m{n}" for n in range(10)]
    assert {play.seconds for play in decoded.plays} == {9.5}
    for one, play in zip(found, decoded.plays, strict=True):
        assert one.key == play.user.encode()
    (entry,) = decode_catalog(messages_of(broker, program.topic("catalog"), 1)).entries
    assert (entry.title, entry.time_ms, entry.concepts) == ("m1", 5, {"genre": ["Crime"]})


def test_a_bad_row_stops_it_and_the_hint_goes_on_without_a_double(program, broker, tmp_path):
    count = PARCEL + 30
    want = pairs_file(tmp_path / "pairs.csv", count)
    lines = (tmp_path / "pairs.csv").read_text().splitlines()
    lines.insert(PARCEL + 11, "m1,m1,5")  # row PARCEL + 11
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    command = ("replay", "pairs.csv", "--topic", "coplays", "--columns", "a=src,b=dst,time_ms=ts")
    command += ("--time-unit", "s")

    code, _, err = program(*command)
    assert code == 1
    assert f"pairs.csv, row {PARCEL + 11}: a and b are both 'm1'" in err
    assert f"go on with --from-row {PARCEL + 11}" in err
    code, out, err = program(*command, "--from-row", PARCEL + 11, "--on-error", "skip")

    assert code == 0
    assert "20 coplays delivered" in out
    assert "1 rows skipped" in out
    assert f"row {PARCEL + 11}" in err
    found = decode_coplays(messages_of(broker, program.topic("coplays"), count)).pairs
    assert sorted(zip(found.a, found.b, found.time_ms.tolist(), strict=True)) == sorted(want)


def test_a_dry_run_sends_nothing_and_says_what_is_wrong(program, tmp_path, monkeypatch):
    (tmp_path / "p.jsonl").write_text('{"a":"1","b":"2","time_ms":1}\n{"a":"1"}\n')
    monkeypatch.setenv("UPWELL_KAFKA__BOOTSTRAP", "127.0.0.1:1")

    stopped = program("replay", "p.jsonl", "--topic", "coplays", "--dry-run")
    code, out, err = program(
        *("replay", "p.jsonl", "--topic", "coplays", "--dry-run", "--on-error", "skip")
    )

    assert stopped[0] == 1
    assert "row 2" in stopped[2]
    assert code == 1
    assert "1 rows are right, 1 are wrong; nothing was sent" in out
    assert "row 2: Object missing required field `b`" in err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("absent.csv", "--topic", "plays"), "No such file"),
        (("p.jsonl", "--topic", "plays", "--content", "arrow"), "only coplays go as Arrow"),
        (("p.jsonl", "--topic", "coplays", "--columns", "a"), "no column map"),
        (("p.jsonl", "--topic", "coplays", "--columns", "user=x"), "no field of coplays"),
        (("p.jsonl", "--topic", "other"), "'other'"),
        (("p.jsonl",), "--topic"),
    ],
)
def test_wrong_use_is_code_2_and_says_what_is_wrong(program, tmp_path, arguments, why):
    (tmp_path / "p.jsonl").write_text("{}\n")

    code, _, err = program("replay", *arguments)

    assert code == 2
    assert why in " ".join(err.replace("\u2502", " ").split())


def test_a_broker_that_is_away_is_an_error_that_names_it(program, tmp_path, monkeypatch, capsys):
    (tmp_path / "p.jsonl").write_text('{"a":"1","b":"2","time_ms":1}\n')
    monkeypatch.setenv("UPWELL_KAFKA__BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setenv("UPWELL_KAFKA__STARTUP_TIMEOUT_S", "0.3")
    monkeypatch.setattr(sys, "argv", ["upwell", "replay", "p.jsonl", "--topic", "coplays"])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 1
    assert "127.0.0.1:1" in capsys.readouterr().err


class Deaf:
    """A producer whose broker takes the first `good` messages, and no more."""

    failed = 0

    def __init__(self, good: int) -> None:
        self.good, self.values = good, []

    def send(self, topic, *, key, value, delivered, **_):
        if len(self.values) < self.good:
            self.values.append(value)
            delivered()
        else:
            self.failed += 1

    def flush(self):
        if self.failed:
            raise BrokerUnreachable("nowhere:1", 1.0)

    def poll(self):
        pass


def test_after_an_outage_the_safe_row_has_arrived_and_the_next_parcel_has_not(tmp_path):
    pairs_file(tmp_path / "pairs.csv", 5 * PARCEL)
    rows = RowMap("coplays", NOW, {"a": "src", "b": "dst", "time_ms": "ts"})
    producer = Deaf(good=2 * PARCEL + 7)
    replay = Replay(producer, "t", 1)

    with pytest.raises(BrokerUnreachable):
        replay.run(Events(RowFile(tmp_path / "pairs.csv"), rows))

    assert replay.progress.safe == 2 * PARCEL
    assert replay.progress.sent == 3 * PARCEL
    assert replay.progress.delivered == 2 * PARCEL + 7


def test_a_rate_is_kept_by_waiting_between_small_parcels(tmp_path, monkeypatch):
    clock, naps = [0.0], []

    def nap(seconds):
        naps.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr("streams.replay.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("streams.replay.time.sleep", nap)
    pairs_file(tmp_path / "pairs.csv", 200)
    rows = RowMap("coplays", NOW, {"a": "src", "b": "dst", "time_ms": "ts"})
    replay = Replay(Deaf(good=200), "t", 1, rate=100.0)

    replay.run(Events(RowFile(tmp_path / "pairs.csv"), rows))

    assert clock[0] == pytest.approx(2.0)
    assert len(naps) >= 20
    assert replay.progress.delivered == 200


def test_ctrl_c_ends_it_with_code_130_and_where_to_go_on(program, broker, tmp_path):
    pairs_file(tmp_path / "pairs.csv", 10_000)
    command = [sys.executable, "-m", "streams.cli", "replay", "pairs.csv", "--topic", "coplays"]
    command += ["--columns", "a=src,b=dst,time_ms=ts", "--time-unit", "s", "--rate", "200"]
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    ensure_topics(broker.address, [TopicSpec(program.topic("coplays"), 1)])
    running = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root}
    )
    try:
        messages_of(broker, program.topic("coplays"), 20)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    finally:
        running.kill()
        running.wait()

    assert running.returncode == 130
    assert "interrupted" in err
    assert "go on with --from-row" in err


def history(tmp_path, kind: str) -> list[str]:
    """A catalogue and 40 users' plays, or their co-plays, as files; options that name them."""
    rng = np.random.default_rng(2)
    titles = "movieId,title,genres\n"
    titles += "".join(f"{n},Film {n},{'Crime|Drama' if n % 2 else 'Comedy'}\n" for n in range(30))
    (tmp_path / "movies.csv").write_text(titles)
    options = ["--catalog", "movies.csv", "--steps", "20"]
    options += ["--catalog-columns", "title=movieId,name=title,concepts.genre=genres"]
    if kind == "plays":
        at = [(n % 40, rng.integers(30), 1_000_000 + n) for n in range(600)]
        lines = ["userId,movieId,timestamp", *(f"{u},{t},{s}" for u, t, s in at)]
        columns = "user=userId,title=movieId,time_ms=timestamp"
    else:
        ends = [(rng.integers(30), rng.integers(30), n) for n in range(900)]
        lines = ["x,y,timestamp", *(f"{a},{b},{s}" for a, b, s in reversed(ends) if a != b)]
        columns = "a=x,b=y,time_ms=timestamp"
    (tmp_path / "history.csv").write_text("\n".join(lines))
    return [*options, f"--{kind}", "history.csv", "--columns", columns, "--time-unit", "s"]


@pytest.mark.parametrize("kind", ["plays", "coplays"])
def test_a_checkpoint_made_of_files_holds_catalogue_and_co_plays(program, tmp_path, kind):
    code, out, err = program("bootstrap", *history(tmp_path, kind))
    again = program("bootstrap", *history(tmp_path, kind))

    assert code == 0, err
    assert "checkpoint" in out
    snapshot = load_snapshot(tmp_path / "checkpoints", GraphSettings())
    state = snapshot.state
    assert len(state.catalog) == 30
    assert state.catalog.names_of(["7"]) == ["Film 7"]
    assert state.graph.num_edges(0) > 100
    assert state.positions == {}
    assert len(state.dirty) == 0
    assert (again[0], "holds checkpoints already" in again[2]) == (1, True)
    assert (np.diff(snapshot.trainer.reservoir.pairs.time_ms) >= 0).any()


def test_bootstrap_wants_one_history_and_tells_of_bad_rows(program, tmp_path):
    options = history(tmp_path, "coplays")
    with (tmp_path / "history.csv").open("a") as file:
        file.write("\n5,5,1")

    both = program("bootstrap", *options, "--plays", "history.csv")
    stopped = program("bootstrap", *options)
    skipped = program("bootstrap", *options, "--on-error", "skip")

    assert both[0] == 2
    assert stopped[0] == 1
    assert "history.csv, row" in stopped[2]
    assert skipped[0] == 0, skipped[2]
    assert "1 rows of history.csv were passed over" in skipped[2]
