"""Which competitor has taken the memory that ran out: it need not be the one that was on stage at that moment.

While a world runs, the worker writes into a file in the world set's folder by how much the process grew in each
competitor's methods, each time that it has grown by another 32 MiB.  After a worker was killed at its memory limit, the
competitor that has taken the largest part is to blame; what came after the last writing counts for the one on stage.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING

from resilient_exec.adapters import places
from resilient_exec.adapters.negmas.blame.notes import OnStage

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Growth", "blame", "file_name"]

_STEP = 32 << 20  # bytes of growth between two writings
_MUCH = 64 << 20  # bytes: whoever took less is not to blame for it
_Table = dict[tuple[str, str], int]  # bytes, by competitor and method


def file_name(attempt: int) -> str:
    """The name of the file of an attempt."""
    return f"growth-{attempt}.json"


class Growth:
    """In a worker: keeps by how much the process grew in whose code.

    Args:
        folder: of the world set, which exists.
        attempt: the number of the attempt.
    """

    def __init__(self, folder: Path, attempt: int) -> None:
        self._folder, self._name = folder, file_name(attempt)
        self._table: _Table = {}
        self._since = 0
        self._is_written = False

    def add(self, competitor: str, method: str, grown: int, held: int) -> None:
        """The process grew by ``grown`` bytes, to ``held``, while this method of the competitor was running."""
        key = (competitor, method)
        self._table[key] = self._table.get(key, 0) + grown
        self._since += grown
        if self._since < _STEP:
            return
        self._since, self._is_written = 0, True
        rows = [[*key, size] for key, size in self._table.items()]
        with contextlib.suppress(OSError):  # a full disk costs this evidence only
            places.replace(self._folder, self._name, json.dumps({"held": held, "by": rows}) + "\n")

    def close(self) -> None:
        """The world has ended: the file has served its purpose."""
        if self._is_written:
            with contextlib.suppress(OSError):
                places.remove(self._folder, self._name)


def _load(folder: Path, attempt: int) -> tuple[int, _Table]:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        plain = json.loads(places.to_read(folder, file_name(attempt)).read_bytes())
        return int(plain["held"]), {(str(who), str(method)): int(size) for who, method, size in plain["by"]}
    return 0, {}


def blame(folder: Path, who: OnStage | None, attempt: int, peak: int) -> OnStage | None:
    """Who is to blame for an attempt that was killed at its memory limit.

    Args:
        folder: of the world set.
        who: was on stage when it was killed; ``None``: not known.
        attempt: its number.
        peak: the most bytes that its worker held.
    """
    held, table = _load(folder, attempt)
    if not table:
        return who
    if who is not None:  # what came after the last writing
        key = (who.competitor, who.method)
        table[key] = table.get(key, 0) + max(0, peak - held)
    sums: dict[str, int] = {}
    for (competitor, _), size in table.items():
        if competitor:  # else it is the world's own
            sums[competitor] = sums.get(competitor, 0) + size
    most = max(sums, key=lambda name: sums[name], default="")
    if not most or sums[most] < _MUCH or 2 * sums[most] < sum(table.values()):
        return who
    if who is not None and who.competitor == most:
        return who
    method = max((key for key in table if key[0] == most), key=lambda key: table[key])[1]
    place = _place(most, method)
    return OnStage(most, method=method, known_by="growth", attempt=attempt, fault="out_of_memory", place=place)


def _place(competitor: str, method: str) -> str:
    """File and line where the competitor defines that method; ``""`` if it does not, or is not imported here."""
    module_name, _, name = competitor.rpartition(".")
    module = sys.modules.get(module_name)
    code = getattr(getattr(getattr(module, name, None), method, None), "__code__", None)
    if code is None or code.co_filename != getattr(module, "__file__", None):
        return ""
    return f"{os.path.basename(code.co_filename)}:{code.co_firstlineno}"
