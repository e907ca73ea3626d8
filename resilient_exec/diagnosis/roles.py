"""What each process of a program is, in words: from its command, its parent, and the pools that name it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resilient_exec.diagnosis.facts import Pool, Process

__all__ = ["HELPERS", "with_roles"]

HELPERS = ("resource tracker", "forkserver", "orphan guard")
_BY_COMMAND = (  # part of the command, role
    ("multiprocessing.resource_tracker", "resource tracker"),
    ("loky.backend.resource_tracker", "resource tracker"),
    ("multiprocessing.forkserver", "forkserver"),
    ("resilient_exec.worker.forkserver", "forkserver of a ResilientPool"),
    ("resilient_exec/process/guard.py", "orphan guard"),
    ("loky.backend.popen_loky_posix", "loky worker"),
    ("multiprocessing.spawn", "multiprocessing child (spawn)"),
)


def with_roles(processes: tuple[Process, ...], pools: tuple[Pool, ...], root: int) -> tuple[Process, ...]:
    """Return the processes, each with its role."""
    by_pid = {process.pid: process for process in processes}
    owners = {worker: pool for pool in pools for worker in pool.workers}
    return tuple(
        replace(
            process,
            role=_role(process, by_pid, owners, root),
            is_forked=process.is_forked or _is_forked(process, by_pid.get(process.parent)),
        )
        for process in processes
    )


def _is_forked(process: Process, parent: Process | None) -> bool:
    """Whether a Python process shares its parent's command: nobody has called exec in between."""
    is_python = "python" in process.command[0].rpartition("/")[2]
    return parent is not None and is_python and parent.command == process.command


def _role(process: Process, by_pid: dict[int, Process], owners: dict[int, Pool], root: int) -> str:
    if process.pid == root:
        return "the program"
    owner = owners.get(process.pid)
    if owner is not None:
        return f"worker of {owner.kind} in {owner.pid}"
    line = " ".join(process.command)
    parent = by_pid.get(process.parent)
    for part, role in _BY_COMMAND:
        if part in line:
            is_child = parent is not None and parent.command == process.command  # forked by it
            return "multiprocessing child (forkserver)" if is_child and role == "forkserver" else role
    if process.is_forked or _is_forked(process, parent):
        return "forked child"
    return f"child: {line[:60]}"
