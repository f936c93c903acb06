"""Titles by their names: whatever the case and spaces, with or without the year of a film."""

import difflib
from collections.abc import Mapping

_SUGGESTIONS = 5


class UnknownTitle(ValueError):
    """No title has that id or name; the text offers close ones. `suggestions`: names or ids."""

    def __init__(self, query: str, suggestions: list[str]) -> None:
        hint = f"; do you mean {', '.join(suggestions)}?" if suggestions else ""
        super().__init__(f"no title has the id or name {query!r}{hint}")
        self.suggestions = suggestions


class NameIndex:
    """Which titles have a name.

    Args:
        names: name by title; None: it has none.
    """

    def __init__(self, names: Mapping[str, str | None]) -> None:
        self._plain: dict[str, set[str]] = {}
        self._short: dict[str, set[str]] = {}
        for title, name in names.items():
            self.add(title, name)

    def add(self, title: str, name: str | None) -> None:
        for index, key in self._places(name):
            index.setdefault(key, set()).add(title)

    def remove(self, title: str, name: str | None) -> None:
        for index, key in self._places(name):
            titles = index.get(key, set())
            titles.discard(title)
            if not titles:
                index.pop(key, None)

    def find(self, query: str) -> str | None:
        """The first title by id with this name, else with this name but for its year."""
        wanted = plain(query)
        for index in (self._plain, self._short):
            if wanted in index:
                return min(index[wanted])
        return None

    def close_to(self, query: str) -> list[str]:
        """Titles with names like `query`, the likeliest first; of those of one name, the first."""
        wanted = plain(query)
        close = difflib.get_close_matches(wanted, self._plain, n=_SUGGESTIONS, cutoff=0.6)
        within = [name for name in self._plain if wanted and wanted in name]
        names = dict.fromkeys([*close, *sorted(within, key=len)])
        return [min(self._plain[name]) for name in names][:_SUGGESTIONS]

    def _places(self, name: str | None) -> list[tuple[dict[str, set[str]], str]]:
        if name is None:
            return []
        return [(self._plain, plain(name)), (self._short, without_year(name))]


def plain(name: str) -> str:
    """A name without what people leave out: case, and more than one space."""
    return " ".join(name.casefold().split())


def without_year(name: str) -> str:
    """A plain name without the "(1995)" at its end."""
    whole = plain(name)
    head, _, year = whole.rpartition(" (")
    return head if head and year.endswith(")") and year[:-1].isdigit() else whole
