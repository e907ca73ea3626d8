"""Where everything of ours lies in a tournament's folder: in ``resilient/``, beside negmas' own files.

In the tournament's folder: ``report.json``, ``health.json`` and ``.csv``, ``progress.json``, ``conduct.jsonl``,
``provenance.json``, ``command.json``, ``lock``.  In the folder of a world set: ``measured.json``, ``output.txt``
(what it printed), ``attempt-1.txt`` (the evidence of an attempt that failed).

Versions before 0.2 wrote them beside negmas' files, as ``resilient-report.json`` and so on; these are still read.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FOLDER", "output_name", "remove", "replace", "to_read", "to_write"]

FOLDER = "resilient"
_BEFORE = "resilient-"  # what the names began with when there was no such folder


def output_name(attempt: int) -> str:
    """Return the name of the file with what an attempt at a world set prints."""
    return "output.txt" if attempt <= 1 else f"output-{attempt}.txt"


def to_write(folder: Path, name: str) -> Path:
    """The path for the file of that name, in a folder of ours that is there.

    Raises:
        OSError: it cannot be made.
    """
    path = folder / FOLDER / name
    path.parent.mkdir(exist_ok=True)
    return path


def to_read(folder: Path, name: str) -> Path:
    """The path of the file of that name, or of an earlier version's; where it would be, if there is none."""
    path, old = folder / FOLDER / name, folder / f"{_BEFORE}{name}"
    return old if old.exists() and not path.exists() else path


def replace(folder: Path, name: str, text: str) -> Path:
    """Write the file of that name anew: whoever reads it finds the old text or the new one, never a part.

    Raises:
        OSError: it cannot be written; the old one is still there.
    """
    path = to_write(folder, name)
    draft = path.with_name(f"{name}.tmp")
    try:
        draft.write_text(text, encoding="utf-8", errors="replace")
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    return path


def remove(folder: Path, name: str) -> None:
    """Remove the file of that name, whichever version wrote it."""
    for path in (folder / FOLDER / name, folder / f"{_BEFORE}{name}"):
        path.unlink(missing_ok=True)
