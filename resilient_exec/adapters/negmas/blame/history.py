"""The competitors' conduct on the disk, so that a resumed tournament has it, too.

There are two kinds of files.  Each is written as soon as its content is final, since the program may be killed at any
moment:

* ``measured.json`` (in ``resilient/``, see ``places.py``) beside the results of a world set: what was measured of each
  agent.  The worker writes it right before ``results.json``, so that it exists whenever the results do.
* ``conduct.jsonl`` in the tournament's folder: one line for each attempt that failed with an agent on stage,
  appended as soon as it has failed, and one for each world set that has failed for good.

A line that a kill has cut short is ignored, and the next line is not joined to it.  If a file cannot be written (a full
disk), its content is lost and a warning is logged; no result of a world is lost.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from array import array
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters import places
from resilient_exec.adapters.negmas.blame.notes import OnStage
from resilient_exec.adapters.negmas.blame.stage import Measured

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["CONDUCT", "MEASURED", "ConductLog", "Line", "load_measured", "save_measured"]

MEASURED = "measured.json"
CONDUCT = "conduct.jsonl"

_logger = logging.getLogger(__name__)


# -- measurements of a world set that has ended


def save_measured(folder: Path, measured: Iterable[Measured]) -> None:
    """Write the measurements of a world set into its folder, before its results are written there."""
    plain = [{**vars(one), "cpu": list(one.cpu), "wall": list(one.wall)} for one in measured]
    try:
        places.replace(folder, MEASURED, json.dumps(plain) + "\n")
    except OSError as error:
        _logger.warning("the measurements of the agents could not be written into %s: %s", folder, error)


def load_measured(folder: Path) -> list[Measured]:
    """The measurements of the world set in ``folder``; empty if there is no file or it cannot be read."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, OverflowError):
        plain = json.loads(places.to_read(folder, MEASURED).read_bytes())
        return [_measured(**one) for one in plain]
    return []


def _measured(competitor: str, cpu: list[float], wall: list[float], **counts: int) -> Measured:
    return Measured(str(competitor), array("d", cpu), array("d", wall), **{k: int(v) for k, v in counts.items()})


# -- attempts that failed


@dataclass(frozen=True)
class Line:
    """One line of the conduct log.

    Attributes:
        place: name of the world set's folder.
        competitors: the competitors in the world set.
        on_stage: who was on stage in the failed attempt (``final``: in the last one); ``None``: not known.
        held: peak memory of the attempt's process, in bytes.
        final: whether the line says that the world set has failed for good, and not that one attempt has failed.
    """

    place: str
    competitors: tuple[str, ...]
    on_stage: OnStage | None = None
    held: int = 0
    final: bool = False


class ConductLog:
    """The file of lines of one tournament, which is only appended to.

    Args:
        folder: of the tournament; ``None``: nothing is read or written.
    """

    def __init__(self, folder: Path | None) -> None:
        # The file of an earlier version is gone on with where it is.
        self._path = None if folder is None else places.to_read(folder, CONDUCT)

    def lines(self) -> Iterator[Line]:
        """All lines that can be parsed."""
        try:
            data = b"" if self._path is None else self._path.read_bytes()
        except OSError:
            return
        for text in data.split(b"\n"):
            with contextlib.suppress(ValueError, TypeError, KeyError):
                yield _line(**json.loads(text))

    def append(self, lines: Iterable[Line]) -> None:
        """Append these lines in one write; a failure is logged."""
        text = "".join(f"{json.dumps(asdict(line))}\n" for line in lines)
        if self._path is None or not text:
            return
        try:
            self._path.parent.mkdir(exist_ok=True)
            with open(self._path, "ab+", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
                    text = f"\n{text}"  # an earlier run was killed while it wrote a line
                file.write(text.encode(errors="replace"))
        except OSError as error:
            _logger.warning("the conduct of competitors could not be appended to %s: %s", self._path, error)


def _line(
    place: str, competitors: list[str], on_stage: dict[str, Any] | None, *, held: int, final: bool, **_: object
) -> Line:
    who = None if on_stage is None else OnStage(**on_stage)
    return Line(str(place), tuple(map(str, competitors)), who, int(held), bool(final))
