"""What kinds of edges there are."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Relation:
    """A kind of edge.

    Attributes:
        name: as users know it.
        head: vertex type from which edges go.
        tail: vertex type to which they go.
        symmetric: an edge goes both ways; head and tail are of one type.

    Raises:
        ValueError: a symmetric relation between different types, or an empty name.
    """

    name: str
    head: str
    tail: str
    symmetric: bool = False

    def __post_init__(self) -> None:
        if not (self.name and self.head and self.tail):
            raise ValueError(f"{self!r}: name, head and tail must not be empty")
        if self.symmetric and self.head != self.tail:
            raise ValueError(
                f"relation {self.name!r} is symmetric, but goes from {self.head!r} to {self.tail!r}"
            )
