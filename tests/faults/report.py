"""What the scenarios found: one row a promise, what it must be and what it is; and as JSON."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Figure = float | int


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        want: what it must be, in words; empty: it is only told.
        holds: whether it is.
    """

    scenario: str
    name: str
    value: Figure
    want: str = ""
    holds: bool = True


@dataclass(slots=True)
class Report:
    """All figures of a run, and what was found wrong."""

    seed: int
    rows: list[Row] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def exactly(self, scenario: str, name: str, value: Figure, want: Figure = 0) -> None:
        """A figure that must be `want`."""
        self.rows.append(Row(scenario, name, value, f"{want:,}", value == want))

    def at_most(self, scenario: str, name: str, value: Figure, most: Figure) -> None:
        """A figure that may not be above `most`."""
        self.rows.append(Row(scenario, name, value, f"<= {most:,}", value <= most))

    def told(self, scenario: str, name: str, value: Figure) -> None:
        """A figure that has no bound."""
        self.rows.append(Row(scenario, name, value))

    @property
    def holds(self) -> bool:
        return not self.wrong and all(row.holds for row in self.rows)

    def figures(self) -> dict[str, Any]:
        """Every figure by its name."""
        return {row.name: row.value for row in self.rows}

    def write(self, file: Path) -> None:
        told = {
            **self.figures(),
            "holds": self.holds,
            "wrong": self.wrong,
            "seed": self.seed,
            "seconds": {name: round(value, 1) for name, value in self.seconds.items()},
        }
        file.write_text(json.dumps(told, indent=1) + "\n")

    def show(self, console: Console) -> None:
        table = Table("scenario", "figure", "is", "must be", "", box=None, header_style="bold")
        for column in (2, 3):
            table.columns[column].justify = "right"
        last = ""
        for row in self.rows:
            shown = f"{row.value:,.2f}" if isinstance(row.value, float) else f"{row.value:,}"
            mark = "" if not row.want else "yes" if row.holds else "[red]NO[/red]"
            table.add_row(
                "" if row.scenario == last else row.scenario, row.name, shown, row.want, mark
            )
            last = row.scenario
        console.print(table)
        for line in self.wrong:
            console.print(f"wrong: {line}", style="red", markup=False, highlight=False)
