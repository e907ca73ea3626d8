"""negmas' own marks of who runs which world: which are stale, and what a dead attempt left in the world's folder.

``_run_worlds`` writes ``<world set>/attempts/_running/run<host>.<pid>`` when it starts and removes it when it ends
*well*.  A process that is killed, and a world that raises, leave it; and every later attempt, and every resume,
of that world set sees it and returns without running.  So a marker has to be judged before each attempt:

* of another host: nobody here can tell whether it lives.  It stands, unless somebody who knows has said that no other
  host is at work there (``take_over``).
* of this process, or of a worker of ours that is known to be dead: stale.
* of this host, and its process is gone, or started after the marker was written (the number was used again): stale.
* else a living stranger is at work on this world: it stands.  Two writers in one folder would spoil both.

What a dead attempt left behind would spoil the next one, too.  Most of a world's files are written anew at each
step, but logs, ``negotiations.csv`` and the event log are appended to, and files of agents may be anything.  So an
attempt that is not the first one starts by emptying the folders of its worlds: it then ends with the same files
and the same rows as an undisturbed one.  ``attempts/att_*`` stays: one file for each real start, counting them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

__all__ = ["Marker", "clear_leftovers", "clear_markers", "clear_own_marker", "count_attempts", "set_folder"]

_CLOCKS_DISAGREE = 2.0  # s by which a process's start and a file's time may differ without meaning anything


@dataclass(frozen=True)
class Marker:
    """One ``run<host>.<pid>``."""

    path: Path
    host: str
    pid: int | None

    @classmethod
    def of(cls, path: Path) -> Marker:
        """Read from the name of a marker's file; a name that is not understood has no pid."""
        host, _, pid = path.name.removeprefix("run").rpartition(".")
        return cls(path, host, int(pid) if pid.isdecimal() else None)

    def is_stale(self, dead: Collection[int] = ()) -> bool:
        """Whether whoever wrote it is gone for certain; ``dead`` are processes of ours that are known to be."""
        if self.host != gethostname() or self.pid is None:
            return False
        return self.pid == os.getpid() or self.pid in dead or not self._is_alive(self.pid)

    def _is_alive(self, pid: int) -> bool:
        import psutil  # 30 ms, and most worlds have no marker

        try:
            process = psutil.Process(pid)
            written = self.path.stat().st_mtime
            is_zombie: bool = process.status() == psutil.STATUS_ZOMBIE
            return not is_zombie and process.create_time() <= written + _CLOCKS_DISAGREE
        except (psutil.NoSuchProcess, FileNotFoundError):
            return False
        except psutil.AccessDenied:
            return True

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.pid is not None else f"{self.path.name}"


def set_folder(worlds: Sequence[dict[str, Any]]) -> Path:
    """The folder of a world set: the parent of its worlds' folders, as in negmas."""
    return Path(worlds[0]["__dir_name"]).expanduser().absolute().parent


def clear_markers(folder: Path, dead: Collection[int] = (), *, take_over: bool = False) -> list[Marker]:
    """Remove the stale markers of a world set; the ones that stand are returned.

    Args:
        folder: of the world set.
        dead: processes of ours that are known to be.
        take_over: those of other hosts are stale, too.
    """
    standing = []
    for path in sorted((folder / "attempts" / "_running").glob("run*")):
        marker = Marker.of(path)
        is_foreign = marker.pid is not None and marker.host != gethostname()
        if marker.is_stale(dead) or (take_over and is_foreign):
            path.unlink(missing_ok=True)
        else:
            standing.append(marker)
    return standing


def clear_own_marker(folder: Path) -> None:
    """Remove this process's marker: its attempt is over, however it ended."""
    (folder / "attempts" / "_running" / f"run{gethostname()}.{os.getpid()}").unlink(missing_ok=True)


def count_attempts(folder: Path) -> int:
    """How often the world set was really started, over all runs and hosts."""
    return sum(1 for _ in (folder / "attempts").glob("att_*"))


def clear_leftovers(worlds: Sequence[dict[str, Any]]) -> None:
    """Empty the worlds' folders, if an attempt was made before; for use right before the next one."""
    folder = set_folder(worlds)
    if count_attempts(folder) == 0:
        return
    for world in worlds:
        for name in (world["__dir_name"], world.get("world_params", {}).get("log_folder")):
            # The generator may log elsewhere; what is not below the world set's folder is not ours to remove.
            if name and folder in (place := Path(name).expanduser().absolute()).parents:
                _close_logs(place)
                shutil.rmtree(place, ignore_errors=True)


def _close_logs(place: Path) -> None:
    """Close log files below ``place`` that an attempt in this very process left open.

    negmas names loggers after their files: the next attempt would get the old handler back and write into a file
    that no longer has a name.
    """
    for name, logger in list(logging.Logger.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and place in Path(name).parents:
            for handler in list(logger.handlers):
                logger.removeHandler(handler)
                with contextlib.suppress(OSError):
                    handler.close()
