"""What is known of the competitors' conduct, on the disk: so that a tournament that is resumed knows it, too.

Two kinds of files, each written when what it tells of becomes final, since the program may be killed at any moment:

* ``resilient-measured.json`` beside the results of a world set: what each agent took.  The worker writes it, right
  before ``results.json``; so whenever the results are there, it is.
* ``resilient-conduct.jsonl`` in the tournament's folder: a line for each attempt that failed with somebody on stage,
  appended as soon as it has failed, and one for each world set that has failed for good.

A line that was cut short is passed over, and the next one does not continue it.  A file that cannot be written (a full
disk) costs what it would have said, and no result.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from array import array
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters.negmas.blame.notes import OnStage
from resilient_exec.adapters.negmas.blame.stage import Measured

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["CONDUCT", "MEASURED", "Chronicle", "Line", "measured_in", "save_measured"]

MEASURED = "resilient-measured.json"
CONDUCT = "resilient-conduct.jsonl"

_logger = logging.getLogger(__name__)


# -- of a world set that has ended


def save_measured(folder: Path, measured: Iterable[Measured]) -> None:
    """Beside where its results will lie."""
    plain = [{**vars(one), "cpu": list(one.cpu), "wall": list(one.wall)} for one in measured]
    draft = folder / f"{MEASURED}.tmp"
    try:
        draft.write_text(json.dumps(plain) + "\n", encoding="utf-8", errors="replace")
        draft.replace(folder / MEASURED)
    except OSError as error:
        _logger.warning("what the agents took could not be written to %s: %s", folder / MEASURED, error)


def measured_in(folder: Path) -> list[Measured]:
    """What was measured in the world set whose results lie in ``folder``; nothing, where nobody has left it."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, OverflowError):
        plain = json.loads((folder / MEASURED).read_bytes())
        return [_measured(**one) for one in plain]
    return []


def _measured(competitor: str, cpu: list[float], wall: list[float], **counts: int) -> Measured:
    return Measured(str(competitor), array("d", cpu), array("d", wall), **{k: int(v) for k, v in counts.items()})


# -- of attempts that failed


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes:
        place: name of the world set's folder.
        competitors: the competitors in it.
        on_stage: who was, in an attempt that failed; of a world set that failed for good: in its last attempt.
            ``None``: nobody knows.
        held: the most bytes that the process of the attempt had held.
        final: whether the world set has failed for good.
    """

    place: str
    competitors: tuple[str, ...]
    on_stage: OnStage | None = None
    held: int = 0
    final: bool = False


class Chronicle:
    """The file of lines of one tournament: read as it was found, and appended to.

    Args:
        folder: of the tournament; ``None``: nothing is read or written.
    """

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / CONDUCT

    def lines(self) -> Iterator[Line]:
        """All that can be read."""
        try:
            data = b"" if self._path is None else self._path.read_bytes()
        except OSError:
            return
        for text in data.split(b"\n"):
            with contextlib.suppress(ValueError, TypeError, KeyError):
                yield _line(**json.loads(text))

    def append(self, lines: Iterable[Line]) -> None:
        """Put them behind the others, in one write."""
        text = "".join(f"{json.dumps(asdict(line))}\n" for line in lines)
        if self._path is None or not text:
            return
        try:
            with open(self._path, "ab+", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
                    text = f"\n{text}"  # somebody was killed in the middle of a line
                file.write(text.encode(errors="replace"))
        except OSError as error:
            _logger.warning("what is known of the competitors could not be added to %s: %s", self._path, error)


def _line(
    place: str, competitors: list[str], on_stage: dict[str, Any] | None, *, held: int, final: bool, **_: object
) -> Line:
    who = None if on_stage is None else OnStage(**on_stage)
    return Line(str(place), tuple(map(str, competitors)), who, int(held), bool(final))
