"""Reads the environment that the doctor judges: versions, limits, room, streams.  Only reads; imports none of it."""

from __future__ import annotations

import concurrent.futures.process
import contextlib
import importlib.util
import multiprocessing
import os
import re
import stat
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resilient_exec.diagnosis.environment import Environment
from resilient_exec.diagnosis.limits import folders_of
from resilient_exec.diagnosis.stacks import find_py_spy
from resilient_exec.process import memory

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["read"]

_BLAS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")
_PACKAGES = ("negmas", "scml", "scml-agents", "pandas")


def read(lanes: int, folders: Sequence[Path]) -> Environment:
    """Read what the doctor judges about this process's environment.

    Args:
        lanes: the workers that are to run.
        folders: where results are to go.
    """
    versions = {name: version for name in _PACKAGES if (version := _version(name))}
    max_tasks, pool = _negmas_pool() if "negmas" in versions else (None, "")
    places = [*folders, Path(tempfile.gettempdir()), Path("/dev/shm")]  # noqa: S108  it is looked at only
    return Environment(
        lanes=lanes,
        python=(sys.version_info[0], sys.version_info[1], sys.version_info[2]),
        replaces_workers=hasattr(concurrent.futures.process._ExecutorManagerThread, "_replace_dead_worker"),
        start_method=multiprocessing.get_all_start_methods()[0],  # the default stands first
        versions=versions,
        requirements={name: found for name in ("scml", "scml-agents") if (found := _requirements(name))},
        max_tasks=max_tasks,
        negmas_pool=pool,
        available_memory=machine.available if (machine := memory.machine()) is not None else None,
        **_cgroup(),
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        folders={str(path): _free(path) for path in dict.fromkeys(places) if path.exists()},
        **_limits(),
        blas={name: os.environ[name] for name in _BLAS if name in os.environ},
        has_numpy=importlib.util.find_spec("numpy") is not None,
        clock=time.time(),
        skew=_skew(),
        stdout=_stream(1),
        stdin=_stream(0),
        missing=tuple(_missing()),
        hindered=tuple(_hindered()),
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _requirements(package: str) -> tuple[str, ...]:
    """Return what the package requires of negmas: ``>=0.11``, ..."""
    if not _version(package):
        return ()
    for text in metadata.requires(package) or ():
        match = re.match(r"negmas(?:\[[^\]]*\])?\s*\(?([^;)]*)\)?", text)
        if match and "extra ==" not in text:
            return tuple(part.strip() for part in match[1].split(",") if part.strip())
    return ()


def _negmas_pool() -> tuple[int | None, str]:
    """Its MAX_TASKS_PER_CHILD, and the pool that it uses, by its source: importing it takes seconds."""
    spec = importlib.util.find_spec("negmas")
    if spec is None or not spec.submodule_search_locations:
        return None, ""
    folder = Path(next(iter(spec.submodule_search_locations)))
    text = ""
    for name in ("helpers/parallel.py", "tournaments/tournaments.py"):
        with contextlib.suppress(OSError):
            text += (folder / name).read_text(encoding="utf-8", errors="replace")
    numbers = re.findall(r"^MAX_TASKS_PER_CHILD\b[^=\n]*=\s*(\d+)", text, re.MULTILINE)
    pool = "pebble" if "pebble" in text else "concurrent.futures" if "ProcessPoolExecutor" in text else ""
    return (int(numbers[0]) if numbers and pool != "pebble" else None), pool


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").strip()
    return ""


def _cgroup() -> dict[str, Any]:
    found: dict[str, Any] = {"cgroup_memory": None, "cgroup_cpus": None, "cgroup_pids": None}
    for folder in folders_of(os.getpid()):
        limit = _text(folder / "memory.max") or _text(folder / "memory.limit_in_bytes")
        if limit.isdigit() and int(limit) < 1 << 60:
            found["cgroup_memory"] = int(limit)
        quota, period = [*_text(folder / "cpu.max").split(), "", ""][:2]
        if not quota:
            quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):
            found["cgroup_cpus"] = int(quota) / int(period)
        most, now = _text(folder / "pids.max"), _text(folder / "pids.current")
        if most.isdigit() and now.isdigit():
            found["cgroup_pids"] = max(0, int(most) - int(now))
    return found


def _limits() -> dict[str, Any]:
    found: dict[str, Any] = {"open_files": None, "processes": None, "file_size": None}
    with contextlib.suppress(ImportError):
        import resource

        def limit(number: int) -> int | None:
            soft = resource.getrlimit(number)[0]
            return None if soft == resource.RLIM_INFINITY else soft

        found["open_files"], found["file_size"] = limit(resource.RLIMIT_NOFILE), limit(resource.RLIMIT_FSIZE)
        most = limit(resource.RLIMIT_NPROC)
        if most is not None and os.geteuid() != 0:  # root has no such limit
            found["processes"] = max(0, most - _threads_of_mine())
    return found


def _threads_of_mine() -> int:
    me, count = os.geteuid(), 0
    for name in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else ()):
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{name}").st_uid == me:
                count += len(os.listdir(f"/proc/{name}/task"))
    return count


def _free(path: Path) -> int | None:
    """Bytes that this user may still write there; ``None``: nothing can be written."""
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"x")
            file.flush()
        figures = os.statvfs(path)
    except OSError:
        return None
    return figures.f_bavail * figures.f_frsize


def _skew() -> float:
    with contextlib.suppress(OSError), tempfile.NamedTemporaryFile() as file:
        os.utime(file.name)
        return os.stat(file.name).st_mtime - time.time()
    return 0.0


def _stream(number: int) -> str:
    try:
        mode = os.fstat(number).st_mode
    except OSError:
        return "closed"
    if os.isatty(number):
        return "a terminal"
    return "a pipe" if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else "a file" if stat.S_ISREG(mode) else "a device"


def _missing() -> list[str]:
    """Return what ResilientPool would use here and does not find."""
    found = []
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        found.append("pidfd_open")
    try:
        os.close(os.memfd_create("resilient-doctor"))
    except (AttributeError, OSError):
        found.append("memfd_create")
    if "forkserver" not in multiprocessing.get_all_start_methods():
        found.append("forkserver")
    if not os.path.exists("/proc/self/stat"):
        found.append("/proc")
    return found


def _hindered() -> list[str]:
    """Return what hinders watch and dump here."""
    found = []
    if find_py_spy() is None:
        found.append("py-spy is not installed: no stacks of programs that were not started by `watch --`")
    scope = _text(Path("/proc/sys/kernel/yama/ptrace_scope"))
    if scope.isdigit() and int(scope) > (0 if os.geteuid() else 2):
        found.append(f"kernel.yama.ptrace_scope is {scope}: only children, or nothing, can be looked into")
    try:
        with open("/proc/self/syscall", "rb") as file:
            file.read()
    except OSError:
        found.append("/proc/PID/syscall cannot be read: what threads wait for is not known")
    return found
