"""A copy that processes share: read once, brought up to date by any, right after kills."""

import fcntl
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from redis import Redis

from serve import local_copy, spaces
from serve.connection import RedisFailed, connect
from serve.local_copy import CopyLocked, LocalCopy
from serve.publisher import Publisher
from serve.reader import EmbeddingReader
from serve.similar import SimilarTitles
from tests.serve.library import live, made, put, rows, times
from tests.servers import wait_until

PROCESSES = multiprocessing.get_context("spawn")


class NoSnapshot(EmbeddingReader):
    """A reader for whom to read the whole space is a failure."""

    def snapshot(self):
        raise AssertionError("the whole space was read")


def titles_of(copy: LocalCopy) -> dict[str, list[float]]:
    titles, _, unit = copy.all()
    return dict(zip(titles, unit.round(3).tolist(), strict=True))


def direction(degrees: float) -> np.ndarray:
    radians = np.radians(degrees)
    return np.array([[np.cos(radians), np.sin(radians), 0]], np.float32)


def test_who_comes_later_goes_on_from_the_file(redis_client: Redis, tmp_path: Path) -> None:
    publisher = live(redis_client)
    publisher.publish(["a", "b"], rows(1, 2), seq=1, step=1, time_ms=times(2), names=["A", None])
    first = LocalCopy(EmbeddingReader(redis_client), tmp_path / "new" / "folder")
    first.refresh()
    put(publisher, "c", 3, 2)

    later = LocalCopy(NoSnapshot(redis_client), tmp_path / "new" / "folder")
    assert later.refresh() == 3

    assert titles_of(later).keys() == {"a", "b", "c"}
    assert later.name("a") == "A"
    assert later.take_new() == ["c"] or later.take_new() == []
    assert first.refresh() == 1
    assert titles_of(first) == titles_of(later)
    assert first.take_new() == ["c"]


def test_what_one_brings_in_all_have(redis_client: Redis, tmp_path: Path) -> None:
    publisher = live(redis_client)
    put(publisher, "a", 1, 1)
    copies = [LocalCopy(EmbeddingReader(redis_client), tmp_path) for _ in range(2)]
    for copy in copies:
        copy.refresh()

    for seq in range(2, 12):
        publisher.publish(
            [f"t{seq % 4}"], direction(seq), seq=seq, step=1, time_ms=times(1), names=[f"N{seq}"]
        )
        if seq % 3 == 0:
            publisher.retire([f"t{(seq - 1) % 4}"], seq=seq, time_ms=1)
        copies[seq % 2].refresh()
        # The other sees the vectors at once, and learns the names when it refreshes.
        near = [copy.nearest(direction(0)[0], 9, ()) for copy in copies]
        assert near[0] == near[1]
    for copy in copies:
        copy.refresh()

    reader = EmbeddingReader(redis_client)
    want = dict(zip(*reader.all(), strict=True))
    for copy in copies:
        assert titles_of(copy).keys() == want.keys()
        for title in want:
            assert copy.name(title) == reader.names([title])[0]
            assert title == "a" or copy.names.find(copy.name(title)) == title


def test_a_copy_grows_under_those_who_have_it_open(redis_client: Redis, tmp_path: Path) -> None:
    publisher = live(redis_client)
    put(publisher, "a", 1, 1)
    copies = [LocalCopy(EmbeddingReader(redis_client), tmp_path) for _ in range(2)]
    for copy in copies:
        copy.refresh()
    many = [f"m{number}" for number in range(3000)]
    matrix = np.random.default_rng(0).standard_normal((3000, 3)).astype(np.float32)

    names = [title * 20 for title in many]
    publisher.publish(many, matrix, seq=2, step=1, time_ms=times(3000), names=names)
    copies[0].refresh()

    assert len(copies[1].nearest(direction(0)[0], 9, ())) == 1  # what it knew
    assert copies[1].refresh() > 0
    assert len(copies[1]) == 3001
    assert copies[1].take_new() == many
    for copy in copies:
        best = copy.nearest(direction(10)[0], 1, ())[0]
        scores = matrix @ direction(10)[0] / np.linalg.norm(matrix, axis=1)
        assert (best[0], best[1]) == (many[scores.argmax()], names[scores.argmax()])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "main.vectors"]


def test_a_switch_leads_all_to_the_new_space_and_dropped_ones_leave_no_file(
    redis_client: Redis, tmp_path: Path
) -> None:
    put(live(redis_client), "a", 1, 1)
    copies = [LocalCopy(EmbeddingReader(redis_client), tmp_path) for _ in range(2)]
    for copy in copies:
        copy.refresh()

    other = made(redis_client, "other")
    put(other, "b", 1, 1)
    other.switch()
    copies[0].refresh()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "lock",
        "main.vectors",
        "other.vectors",
    ]
    copies[1]._reader = NoSnapshot(redis_client)
    copies[1].refresh()

    assert [list(titles_of(copy)) for copy in copies] == [["b"], ["b"]]
    assert copies[0].take_new() == ["b"]
    spaces.rollback(redis_client)
    for copy in copies:
        copy.refresh()
        assert list(titles_of(copy)) == ["a"]
    spaces.drop(redis_client, "other")
    redis_client.flushall()
    put(live(redis_client, "third"), "c", 1, 1)
    for copy in copies:
        copy.refresh()
        assert list(titles_of(copy)) == ["c"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "third.vectors"]


@pytest.mark.parametrize("folder", [True, False])
def test_a_flushed_and_refilled_space_replaces_the_copy(
    redis_client: Redis, tmp_path: Path, folder: bool
) -> None:
    put(live(redis_client), "a", 1, 1)
    copies = [
        LocalCopy(EmbeddingReader(redis_client), tmp_path if folder else None) for _ in range(2)
    ]
    for copy in copies:
        copy.refresh()

    redis_client.flushall()
    for copy in copies:
        with pytest.raises(spaces.NoSpace):
            copy.refresh()
        assert list(titles_of(copy)) == ["a"]  # until there is something to replace it
    publisher = live(redis_client)
    for title in ("b", "c"):
        put(publisher, title, 1, 1)

    for copy in copies:
        copy.refresh()
        assert list(titles_of(copy)) == ["b", "c"]
        assert "a" not in copy
        assert copy.take_new() == ["b", "c"]


@pytest.mark.parametrize("folder", [True, False])
def test_a_failure_in_the_middle_loses_no_update(
    redis_client: Redis, tmp_path: Path, folder: bool
) -> None:
    publisher = live(redis_client)
    put(publisher, "a", 1, 1)
    reader = EmbeddingReader(redis_client)
    copy = LocalCopy(reader, tmp_path if folder else None)
    copy.refresh()
    put(publisher, "b", 1, 2)

    def fail(_):
        raise RedisFailed("gone")

    reader.get_many, right = fail, reader.get_many
    with pytest.raises(RedisFailed):
        copy.refresh()
    reader.get_many = right
    copy.refresh()

    assert list(titles_of(copy)) == ["a", "b"]


def test_a_switch_there_and_back_while_updates_are_read_loses_none(
    redis_client: Redis, tmp_path: Path
) -> None:
    publisher = live(redis_client)
    put(publisher, "a", 1, 1)
    other = made(redis_client, "other")
    reader = EmbeddingReader(redis_client)
    copy = LocalCopy(reader, tmp_path)
    copy.refresh()
    put(publisher, "b", 1, 2)

    def elsewhere(titles):
        other.switch()
        batch = right(titles)
        publisher.switch()
        reader.get_many = right
        return batch

    reader.get_many, right = elsewhere, reader.get_many
    copy.refresh()

    assert list(titles_of(copy)) == ["a", "b"]


def test_a_damaged_file_is_made_anew(redis_client: Redis, tmp_path: Path) -> None:
    put(live(redis_client), "a", 1, 1)
    (tmp_path / "main.vectors").write_bytes(b"torn")
    (tmp_path / "main.new").write_bytes(b"left by somebody who was killed")

    copy = LocalCopy(EmbeddingReader(redis_client), tmp_path)

    assert copy.refresh() == 1
    assert list(titles_of(copy)) == ["a"]


def test_a_lock_that_is_not_let_go_is_told_and_what_is_there_serves(
    redis_client: Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publisher = live(redis_client)
    put(publisher, "a", 1, 1)
    copy, late = (LocalCopy(EmbeddingReader(redis_client), tmp_path) for _ in range(2))
    copy.refresh()
    put(publisher, "b", 1, 2)
    monkeypatch.setattr(local_copy, "LOCK_S", 0.02)

    with open(tmp_path / "lock") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert copy.refresh() == 0
        with pytest.raises(CopyLocked, match="another process"):
            late.refresh()

    assert list(titles_of(copy)) == ["a"]
    assert "is it stopped?" in caplog.text
    assert copy.refresh() == 1


def follow_for_ever(url: str, folder: Path, found) -> None:
    """Refresh and search; say what was found that cannot be."""
    similar = SimilarTitles(url, folder=folder)
    query = np.ones(SIZE, np.float32)
    while True:
        similar.refresh()
        for one in similar.near(query, 200):
            if abs(abs(one.score) - 1) > 1e-3:
                found.put((one.title, one.score))


SIZE = 256


def publish_turned(publisher: Publisher, seq: int, rng: np.random.Generator) -> dict[str, float]:
    """Some titles point one way now, some the other: half a vector would be seen."""
    titles = [f"m{number}" for number in rng.choice(400, 60, replace=False).tolist()]
    signs = rng.choice([-1.0, 1.0], 60)
    matrix = np.repeat(signs[:, None], SIZE, axis=1).astype(np.float32)
    publisher.publish(titles, matrix, seq=seq, step=1, time_ms=times(60))
    return dict(zip(titles, signs.tolist(), strict=True))


def test_processes_that_are_killed_leave_a_copy_that_is_whole(
    redis_url: str, tmp_path: Path
) -> None:
    client = connect(redis_url)
    publisher = Publisher(client, "main")
    publisher.create_space(SIZE)
    rng = np.random.default_rng(0)
    want = publish_turned(publisher, 1, rng)
    publisher.switch()
    found = PROCESSES.Queue()
    seq = 1

    def start():
        process = PROCESSES.Process(target=follow_for_ever, args=(redis_url, tmp_path, found))
        process.start()
        return process

    lasting, doomed = start(), start()
    try:
        wait_until(lambda: (tmp_path / "main.vectors").exists(), "the file", within_s=120)
        for kill in range(3):
            for _ in range(20):
                seq += 1
                want |= publish_turned(publisher, seq, rng)
            os.kill(doomed.pid, signal.SIGKILL)
            doomed.join()
            if kill < 2:
                doomed = start()
        copy = LocalCopy(NoSnapshot(client), tmp_path)
        copy.refresh()
    finally:
        for process in (lasting, doomed):
            process.kill()
            process.join()

    titles, _, unit = copy.all()
    assert dict(zip(titles, np.sign(unit[:, 0]).tolist(), strict=True)) == want
    np.testing.assert_allclose(unit, np.repeat(unit[:, :1], SIZE, axis=1))
    assert found.empty()
    found.close()
    client.close()
