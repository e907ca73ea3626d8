"""The environment of a long run, and what is wrong with it: pure judgements on what was read.

Each check gives one line: ``ok``, ``warn`` (it may cost something) or ``bad`` (it will fail, or hang), with the remedy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["Check", "Environment", "judge", "meets", "pandas_objection"]

_MIB = 2**20
_PER_LANE = 256 * _MIB  # of memory, below which a worker with scientific libraries does not fit
_COMFORT = 4  # times as much is no reason for a word
_ROOM = 100 * _MIB  # of disk
_FILES_PER_LANE, _FILES = 15, 64  # descriptors, and those that a program has anyway
_OTHER_PROCESSES = 16
_THREAD_AT_EXIT = ((3, 12, 0), (3, 12, 1))
_SKEW = 5.0  # s
_OLDEST = 1_700_000_000  # s since 1970: when this was written, no clock can be earlier


@dataclass(frozen=True)
class Check:
    """One line of the doctor: what was looked at, how it is, what to do."""

    name: str
    level: str  # ok, warn, bad
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class Environment:
    """What was read; ``None``: not known, or without a limit.  Sizes in bytes."""

    lanes: int = 1
    python: tuple[int, int, int] = (3, 13, 0)
    replaces_workers: bool = True  # gh-115634 is mended
    start_method: str = "forkserver"
    versions: dict[str, str] = field(default_factory=dict)  # of negmas, scml, scml-agents, pandas, where installed
    requirements: dict[str, tuple[str, ...]] = field(default_factory=dict)  # package -> what it says of negmas
    max_tasks: int | None = None  # negmas's MAX_TASKS_PER_CHILD
    negmas_pool: str = ""  # the pool that negmas uses
    available_memory: int | None = None
    cgroup_memory: int | None = None
    cgroup_cpus: float | None = None
    cgroup_pids: int | None = None  # that are left
    cpus: int = 1
    folders: dict[str, int | None] = field(default_factory=dict)  # path -> free bytes; None: not writable
    open_files: int | None = None
    processes: int | None = None  # that this user may have more
    file_size: int | None = None
    blas: dict[str, str] = field(default_factory=dict)  # variables of the thread pools of BLAS
    has_numpy: bool = False
    clock: float = 2e9  # s since 1970
    skew: float = 0.0  # s, of the file system's clock
    stdout: str = "a terminal"
    stdin: str = "a terminal"
    missing: tuple[str, ...] = ()  # means of ours that cannot be used here
    hindered: tuple[str, ...] = ()  # what of watch and dump cannot be used here
    agents: dict[str, str] = field(default_factory=dict)  # competitor -> what is wrong with it; "": nothing


def judge(seen: Environment) -> list[Check]:
    """Return all lines, in the order in which they are shown."""
    return [
        _python(seen),
        *_negmas(seen),
        _start_method(seen),
        _cgroup(seen),
        _memory(seen),
        *(_folder(seen, path, free) for path, free in seen.folders.items()),
        _limits(seen),
        _blas(seen),
        _clock(seen),
        _streams(seen),
        _means(seen),
        _watch(seen),
        *(_agent(name, problem) for name, problem in seen.agents.items()),
    ]


def _python(seen: Environment) -> Check:
    version = ".".join(map(str, seen.python))
    if seen.python in _THREAD_AT_EXIT:
        text = f"Python {version} refuses new threads while it exits: pools that work on then fail (gh-113964)"
        return Check("python", "bad", text, "Python 3.12.2 or newer")
    if not seen.replaces_workers:
        text = f"Python {version} has gh-115634: executors with max_tasks_per_child lose their workers and hang"
        return Check("python", "warn", text, "do not use max_tasks_per_child of concurrent.futures with it")
    return Check("python", "ok", f"Python {version}")


def _negmas(seen: Environment) -> list[Check]:
    if "negmas" not in seen.versions:
        return []
    version, found = seen.versions["negmas"], []
    if seen.max_tasks is not None and not seen.replaces_workers:
        text = (
            f"negmas {version} gives max_tasks_per_child={seen.max_tasks} to a pool that this Python lets "
            "hang (gh-115634)"
        )
        remedy = (
            "parallelism='resilient', or `resilient-exec run SCRIPT.py`, for every parallel tournament; "
            "or a newer negmas"
        )
        found.append(Check("negmas", "bad", text, remedy))
    else:
        found.append(
            Check("negmas", "ok", f"negmas {version}, which runs tournaments on {seen.negmas_pool or 'a pool'}")
        )
    objection = pandas_objection(version, seen.versions.get("pandas", ""))
    if objection is not None:
        found.append(Check("pandas", "bad", objection, 'pip install "pandas<3", or a newer negmas'))
    elif "pandas" in seen.versions:
        found.append(Check("pandas", "ok", f"pandas {seen.versions['pandas']}"))
    for package, wanted in seen.requirements.items():
        unmet = [text for text in wanted if not meets(version, text)]
        if unmet:
            text = f"{package} {seen.versions.get(package, '?')} needs negmas{','.join(unmet)}; installed is {version}"
            found.append(Check(package, "bad", text, f"pip install -U {package} negmas"))
        else:
            found.append(Check(package, "ok", f"{package} {seen.versions.get(package, '?')}"))
    return found


def pandas_objection(negmas: str, pandas: str) -> str | None:
    """What is wrong with these two versions together, if anything is; one that is not known is not refused."""
    if () < _numbers(negmas) < (0, 15) and _numbers(pandas) >= (3,):
        return (
            f"negmas {negmas} cannot combine the results of a tournament with pandas {pandas}: it would fail after "
            'the last world, with KeyError. Install an older pandas (pip install "pandas<3") or a newer negmas'
        )
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:4])


def meets(version: str, wanted: str) -> bool:
    """Whether a version meets one requirement, such as ``>=0.11`` (of its numbers: releases only)."""
    match = re.fullmatch(r"\s*(>=|<=|==|!=|~=|>|<)\s*([\w.*+!-]+)\s*", wanted)
    if match is None:
        return True  # of a kind that is not judged here
    have, need = _numbers(version), _numbers(match[2])
    size = max(len(have), len(need))
    a, b = have + (0,) * (size - len(have)), need + (0,) * (size - len(need))
    if match[2].endswith(".*"):
        return (have[: len(need)] == need) == (match[1] == "==")
    if match[1] == "~=":
        return a >= b and have[: len(need) - 1] == need[:-1]
    return {">=": a >= b, "<=": a <= b, "==": a == b, "!=": a != b, ">": a > b, "<": a < b}[match[1]]


def _start_method(seen: Environment) -> Check:
    if seen.start_method == "fork":
        text = "multiprocessing forks by default: with threads in the program its children deadlock now and then"
        return Check(
            "start method", "warn", text, "multiprocessing.set_start_method('forkserver') (ours does not fork)"
        )
    return Check("start method", "ok", f"multiprocessing starts processes by {seen.start_method}")


def _cgroup(seen: Environment) -> Check:
    remedy = "a larger limit of the container or unit, or fewer workers (--workers)"
    if seen.cgroup_memory is not None and seen.cgroup_memory < seen.lanes * _PER_LANE:
        text = f"the cgroup allows {_mib(seen.cgroup_memory)} of memory: too little for {seen.lanes} workers"
        return Check("cgroup", "bad", text, remedy)
    if seen.cgroup_pids is not None and seen.cgroup_pids < 2 * seen.lanes + _OTHER_PROCESSES:
        text = (
            f"the cgroup has room for {seen.cgroup_pids} more processes and threads: too few for {seen.lanes} workers"
        )
        return Check("cgroup", "bad", text, remedy)
    if seen.cgroup_cpus is not None and seen.cgroup_cpus < 0.75 * seen.lanes:
        text = f"the cgroup allows {seen.cgroup_cpus:g} CPUs for {seen.lanes} workers: they will wait for each other"
        return Check("cgroup", "warn", text, remedy)
    limits = {
        "memory": seen.cgroup_memory and _mib(seen.cgroup_memory),
        "CPUs": seen.cgroup_cpus,
        "pids": seen.cgroup_pids,
    }
    known = ", ".join(f"{name} {value}" for name, value in limits.items() if value is not None)
    return Check("cgroup", "ok", f"limits of the cgroup: {known or 'none'}")


def _memory(seen: Environment) -> Check:
    free = seen.available_memory
    if free is None:
        return Check("memory", "warn", "how much memory is free is not known", "look at it yourself: free -m")
    text = f"{_mib(free)} of memory are free for {seen.lanes} workers"
    if free < seen.lanes * _PER_LANE:
        return Check("memory", "bad", text, "end other programs, or take fewer workers (--workers)")
    if free < seen.lanes * _PER_LANE * _COMFORT:
        return Check("memory", "warn", text, "a memory_limit, so that one task cannot take it all")
    return Check("memory", "ok", text)


def _folder(seen: Environment, path: str, free: int | None) -> Check:
    name = f"disk {path}"
    if free is None:
        return Check(name, "bad", f"nothing can be written to {path}", "another folder, or other rights")
    if free < _ROOM:
        return Check(name, "bad", f"{_mib(free)} are free in {path}", "make room, or take another folder")
    if free < _ROOM * max(1, seen.lanes):
        return Check(
            name, "warn", f"{_mib(free)} are free in {path}", "worlds with all their logs need up to 35 MB each"
        )
    return Check(name, "ok", f"{_mib(free)} are free in {path}")


def _limits(seen: Environment) -> Check:
    needed = seen.lanes * _FILES_PER_LANE + _FILES
    if seen.open_files is not None and seen.open_files < needed:
        text = f"ulimit -n is {seen.open_files}; {seen.lanes} workers need about {needed} descriptors"
        return Check("ulimit", "bad", text, f"ulimit -n {max(4096, needed)}")
    if seen.processes is not None and seen.processes < 2 * seen.lanes + _OTHER_PROCESSES:
        text = f"ulimit -u leaves {seen.processes} more processes; {seen.lanes} workers need about {2 * seen.lanes}"
        return Check("ulimit", "bad", text, "a larger ulimit -u, or fewer workers (--workers)")
    if seen.file_size is not None and seen.file_size < _ROOM:
        text = f"ulimit -f allows files of {_mib(seen.file_size)}: logs and tables of results will not fit"
        return Check("ulimit", "bad", text, "ulimit -f unlimited")
    return Check("ulimit", "ok", f"ulimit -n is {seen.open_files or 'unlimited'}, enough for {seen.lanes} workers")


def _blas(seen: Environment) -> Check:
    given = {name: int(value) for name, value in seen.blas.items() if value.isdigit()}
    most = max(given.values(), default=0)
    if most * seen.lanes > 2 * seen.cpus and seen.lanes > 1:
        names = ", ".join(f"{name}={value}" for name, value in given.items())
        text = f"{names}: {most} threads in each of {seen.lanes} workers, on {seen.cpus} CPUs"
        return Check("BLAS threads", "bad", text, f"OMP_NUM_THREADS={max(1, seen.cpus // seen.lanes)}")
    if not given and seen.has_numpy and seen.lanes > 1:
        text = f"numpy's BLAS starts {seen.cpus} threads in each worker of pools that do not limit it (ours does)"
        return Check("BLAS threads", "warn", text, f"OMP_NUM_THREADS={max(1, seen.cpus // seen.lanes)}")
    return Check("BLAS threads", "ok", f"at most {most or seen.cpus} threads in each worker")


def _clock(seen: Environment) -> Check:
    if seen.clock < _OLDEST:
        return Check("clock", "bad", "the clock stands in the past", "set it (timedatectl, ntpd)")
    if abs(seen.skew) > _SKEW:
        text = f"the clock of the file system differs by {seen.skew:.0f} s: ages of files will be wrong"
        return Check("clock", "warn", text, "the same time server for both machines")
    return Check("clock", "ok", "set, and the file system agrees")


def _streams(seen: Environment) -> Check:
    if seen.stdout == "closed":
        return Check("stdout", "bad", "stdout is closed: what prints fails", "> night.log 2>&1")
    if seen.stdout == "a pipe":
        text = "stdout is a pipe: whoever stops reading at its end (a pager, a closed terminal) stops the program"
        return Check("stdout", "warn", text, "> night.log 2>&1, and tail -f night.log")
    if seen.stdout == "a terminal":
        text = "stdout is a terminal: the program ends with it, and Ctrl-S stops it"
        return Check("stdout", "warn", text, "tmux, or nohup ... > night.log 2>&1 &")
    return Check("stdout", "ok", f"stdout is {seen.stdout}")


def _means(seen: Environment) -> Check:
    if seen.missing:
        text = f"cannot be used here: {', '.join(seen.missing)}; ResilientPool has slower or weaker ways in their place"
        return Check("resilient-exec", "warn", text, "Linux 5.4 or newer, with /proc mounted, is what it is tested on")
    return Check("resilient-exec", "ok", "pidfd, memfd, forkserver, signals: all can be used here")


def _watch(seen: Environment) -> Check:
    if seen.hindered:
        text = f"resilient-exec watch and dump see less here: {'; '.join(seen.hindered)}"
        return Check("watch", "warn", text, "pip install 'resilient-exec[watch]'; docker run --cap-add SYS_PTRACE")
    return Check("watch", "ok", "watch and dump can look into other programs of yours")


def _agent(name: str, problem: str) -> Check:
    if problem:
        return Check(name, "bad", f"{name} {problem}", "mend it, or leave it out: its worlds would all be lost")
    return Check(name, "ok", f"{name} can be imported in a worker")


def _mib(size: int) -> str:
    return f"{size / _MIB:.0f} MiB" if size < 10 * 2**30 else f"{size / 2**30:.0f} GiB"
