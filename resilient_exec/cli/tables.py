"""Tables as plain text: right-aligned numbers, one text column at the end, at the width of a terminal or of none."""

from __future__ import annotations

import os
import sys
import textwrap
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from resilient_exec.adapters.text import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Column", "fit_names", "paragraph", "table", "width_of"]

_GAP = "  "
_LEAST_WIDTH = 40


@dataclass(frozen=True)
class Column:
    """A column of numbers.

    Attributes:
        head: its title, with the unit, of one or more lines.
        cells: one for each row.
        weight: when there is no room for all columns those with the least weight are left out.
        is_needed: whether it stays when there is nothing in it.
    """

    head: str
    cells: Sequence[str]
    weight: int = 1
    is_needed: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether it tells nothing: zeros and dashes only."""
        return all(cell.strip() in {"", "0", "-", "0.0"} for cell in self.cells)

    @property
    def lines(self) -> list[str]:
        """The lines of the table's head."""
        return self.head.split("\n")

    @property
    def width(self) -> int:
        """The width of the table in characters."""
        return max(map(len, [*self.lines, *self.cells]))


def width_of(stream: TextIO) -> int | None:
    """The columns of the terminal that ``stream`` is; ``None`` for a pipe or a file, where nothing is cut."""
    try:
        if not stream.isatty():
            return None
    except (AttributeError, ValueError):
        return None
    try:
        columns = int(os.environ.get("COLUMNS") or 0) or os.get_terminal_size(stream.fileno()).columns
    except (ValueError, OSError):
        columns = 0
    return max(_LEAST_WIDTH, columns or 80)


def table(columns: Iterable[Column], title: str, names: Sequence[str], width: int | None) -> list[str]:
    """The lines of a table whose last column are names, which are never cut.

    Args:
        columns: of numbers.
        title: of the column of names.
        names: in the order of the rows; the dotted ones are shortened where there is no room.
        width: of the terminal; ``None``: as wide as it takes.
    """
    shown = [column for column in columns if column.is_needed or not column.is_empty]
    shortest = max((len(name) for name in fit_names(names, 0)), default=0)
    while width is not None and _taken(shown) + min(shortest, width // 2) > width:
        least = min(
            (column for column in shown if not column.is_needed), key=lambda column: column.weight, default=None
        )
        if least is None:
            break
        shown.remove(least)
    room = None if width is None else width - _taken(shown)
    fitted = names if room is None else fit_names(names, room)
    height = max((len(column.lines) for column in shown), default=1)
    heads = [[""] * (height - len(column.lines)) + column.lines for column in shown]
    lines = []
    for i in range(height):
        cells = [head[i].rjust(column.width) for head, column in zip(heads, shown, strict=True)]
        lines.append(_GAP.join([*cells, title if i == height - 1 else ""]).rstrip())
    for row, name in enumerate(fitted):
        lines.append(_GAP.join([*(column.cells[row].rjust(column.width) for column in shown), plain(name)]))
    return lines


def _taken(columns: Iterable[Column]) -> int:
    return sum(column.width + len(_GAP) for column in columns)


def fit_names(names: Sequence[str], room: int) -> list[str]:
    """Dotted names of at most ``room`` characters, if that can be: the package goes first, the class never.

    Two that would look alike keep as much of their package as tells them apart.
    """
    parts = {name: name.split(".") for name in names}
    kept = {name: len(parts[name]) for name in names}
    for name in parts:
        if len(name) > room:
            kept[name] = 1

    def shown(name: str) -> str:
        return ".".join(parts[name][-kept[name] :])

    while alike := {text for text, count in Counter(map(shown, parts)).items() if count > 1}:
        longer = [name for name in parts if shown(name) in alike and kept[name] < len(parts[name])]
        if not longer:
            break
        for name in longer:
            kept[name] += 1
    return [shown(name) for name in names]


def paragraph(text: str, width: int | None, indent: str = "") -> list[str]:
    """Text in lines of at most ``width`` characters, the second and further ones indented; words are not cut."""
    if width is None:
        return [text]
    return textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [""]


def say(text: str) -> None:
    """Print one line for whoever runs the command, on stderr."""
    print(f"resilient-exec: {plain(text)}", file=sys.stderr, flush=True)
