"""What a process that is started now would inherit: for a worker that is forked from one that was started earlier.

Two kinds.  *Circumstances* cannot be given to a process that runs already (whose it is, which session it is in, what
the interpreter read when it started): when they change, the forkserver is replaced.  *Surroundings* are sent along
with each request, and the forked worker takes them on.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys

from resilient_exec.process.executable import interpreter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

__all__ = ["circumstances", "surroundings"]

# Of variables with these names the values count when a process starts, not later.
_READ_AT_START = ("PYTHON", "LD_", "MALLOC_", "GLIBC_", "LANG", "LC_")
_numbers = itertools.count(1)  # of workers, in their names


def circumstances(env: Mapping[str, str]) -> tuple[Any, ...]:
    """What a running process cannot take over from this one.

    Args:
        env: variables that workers get besides this process's own.
    """
    variables = {**os.environ, **env}
    read = sorted((name, value) for name, value in variables.items() if name.startswith(_READ_AT_START))
    ids = (os.getresuid(), os.getresgid(), tuple(os.getgroups()), os.getsid(0))
    return (interpreter(), ids, tuple(read))


def surroundings(give: Callable[[int], int]) -> dict[str, Any]:
    """What a worker takes on in place of the forkserver's own.

    Args:
        give: has the worker given a descriptor; returns the number that it will have there.
    """
    from multiprocessing import process, resource_tracker, util

    folder: str | None = process.ORIGINAL_DIR  # type: ignore[attr-defined]
    tracker: Any = resource_tracker._resource_tracker
    found: dict[str, Any] = {
        # By these names multiprocessing.spawn.prepare knows them.
        "name": f"ResilientWorker-{next(_numbers)}",
        "authkey": bytes(process.current_process().authkey),
        "sys_path": [entry or folder or "" for entry in sys.path if isinstance(entry, str)],
        "sys_argv": list(sys.argv),
        "orig_dir": folder,
        "log_to_stderr": util._log_to_stderr,  # type: ignore[attr-defined]
        # and these are ours
        "parent": (process.current_process().name, os.getpid()),
        "tracker": give(tracker.getfd()),
        "affinity": os.sched_getaffinity(0),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "umask": _umask(),
        "limits": _limits(),
    }
    with contextlib.suppress(FileNotFoundError):  # it has been removed; the worker stays where the forkserver is
        found["dir"] = os.getcwd()
    if util._logger is not None:  # type: ignore[attr-defined]
        found["log_level"] = util._logger.getEffectiveLevel()  # type: ignore[attr-defined]
    return found


def _umask() -> int | None:
    """This process's umask; ``None`` where the kernel does not tell (asking by ``os.umask`` changes it for all)."""
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"Umask:"):
                return int(line[6:], 8)
    return None


def _limits() -> list[tuple[int, tuple[int, int]]]:
    """The limits of this process by their numbers."""
    import resource

    numbers = {getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}
    return [(number, resource.getrlimit(number)) for number in sorted(numbers)]
