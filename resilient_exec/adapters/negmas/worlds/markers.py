"""negmas' markers of running world sets: which are stale, and how to remove what a failed attempt has left.

negmas' ``_run_worlds`` writes the marker ``<world set>/attempts/_running/run<host>.<pid>`` when it starts, and removes
it only when it *returns*.  A process that is killed and a world that raises leave it, and every later attempt and
resume of that world set then returns without running.  So each marker is examined before an attempt:

* It is of another host: it cannot be seen here whether that process is alive.  The marker is valid, unless the user has
  stated by ``take_over`` that no other host is at work there.
* It is of this process, or of a worker of ours that is known to be dead: stale.
* It is of this host, and its process is gone, or started after the marker was written (the pid was reused): stale.
* Otherwise another living process runs this world set: valid.  Two processes that write into one folder would corrupt
  each other's files.

The files of a failed attempt would corrupt the next one, too.  Most of a world's files are rewritten at each step, but
logs, ``negotiations.csv`` and the event log are appended to, and agents may write any file.  So each attempt but the
first one begins by emptying the folders of its worlds, and ends with the same files and rows as an undisturbed one.
``attempts/att_*`` is kept: it holds one file for each start, by which the attempts are counted.
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

_CLOCK_TOLERANCE = 2.0  # s by which the start time of a process may be later than the time of the file that it wrote


@dataclass(frozen=True)
class Marker:
    """One marker, a file ``run<host>.<pid>``."""

    path: Path
    host: str
    pid: int | None

    @classmethod
    def of(cls, path: Path) -> Marker:
        """The marker of a file, from its name; ``pid`` is ``None`` for a name of another form."""
        host, _, pid = path.name.removeprefix("run").rpartition(".")
        return cls(path, host, int(pid) if pid.isdecimal() else None)

    def is_stale(self, dead: Collection[int] = ()) -> bool:
        """Whether the process that wrote it has certainly ended.

        Args:
            dead: pids of workers of ours that are known to be dead.
        """
        if self.host != gethostname() or self.pid is None:
            return False
        return self.pid == os.getpid() or self.pid in dead or not self._is_alive(self.pid)

    def _is_alive(self, pid: int) -> bool:
        import psutil  # imported here, since it takes 30 ms and most worlds have no marker

        try:
            process = psutil.Process(pid)
            written = self.path.stat().st_mtime
            is_zombie: bool = process.status() == psutil.STATUS_ZOMBIE
            return not is_zombie and process.create_time() <= written + _CLOCK_TOLERANCE
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
    """Remove the stale markers of a world set, and return the valid ones.

    Args:
        folder: of the world set.
        dead: pids of workers of ours that are known to be dead.
        take_over: whether markers of other hosts are stale, too.
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
    """Remove this process's marker; to be called whenever its attempt has ended."""
    (folder / "attempts" / "_running" / f"run{gethostname()}.{os.getpid()}").unlink(missing_ok=True)


def count_attempts(folder: Path) -> int:
    """How often the world set was started, over all runs and hosts."""
    return sum(1 for _ in (folder / "attempts").glob("att_*"))


def clear_leftovers(worlds: Sequence[dict[str, Any]]) -> None:
    """Empty the worlds' folders if an attempt was made before; to be called right before the next one."""
    folder = set_folder(worlds)
    if count_attempts(folder) == 0:
        return
    for world in worlds:
        for name in (world["__dir_name"], world.get("world_params", {}).get("log_folder")):
            # The generator may log elsewhere; only folders below the world set's folder are removed.
            if name and folder in (place := Path(name).expanduser().absolute()).parents:
                _close_logs(place)
                shutil.rmtree(place, ignore_errors=True)


def _close_logs(place: Path) -> None:
    """Close log files below ``place`` that an attempt in this same process has left open.

    negmas names loggers after their files, so the next attempt would get the old handler and write into a deleted
    file.
    """
    for name, logger in list(logging.Logger.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and place in Path(name).parents:
            for handler in list(logger.handlers):
                logger.removeHandler(handler)
                with contextlib.suppress(OSError):
                    handler.close()
