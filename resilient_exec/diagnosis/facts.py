"""What is seen of a program, as values: processes, threads, pools, deaths, and what changed between two looks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

_OURS = __file__.rpartition("/diagnosis/")[0] + "/"

__all__ = ["Death", "Frame", "Lock", "Pool", "Process", "Scene", "Thread", "Wait", "describe_function", "is_library"]


@dataclass(frozen=True)
class Lock:
    """A lock that a frame names; ``owner`` is the identity of the thread that holds it, where the lock knows it."""

    name: str
    kind: str
    identity: int
    is_locked: bool
    owner: int | None = None


@dataclass(frozen=True)
class Frame:
    """One level of a Python stack."""

    file: str
    line: int
    function: str
    locks: tuple[Lock, ...] = ()
    future: tuple[int, str] | None = None  # that it waits for: identity and state
    timeout: float | None = None  # s; of the wait
    has_timeout: bool = False  # whether ``timeout`` is known: ``None`` then means for ever
    path: str | None = None  # a tournament's folder
    column: int | None = None  # of what it executes on the line; None: not known
    text: str = ""  # the source line, where it was read
    holds: tuple[tuple[int, str], ...] = ()  # locks, and where the source says that it has taken them
    wants: int | None = None  # the lock that the line asks for

    @property
    def name(self) -> str:
        """The function's own name."""
        return self.function.rpartition(".")[2]

    def is_in(self, file: str, *names: str) -> bool:
        """Whether it is one of these functions in a file whose path ends so."""
        return self.file.endswith(file) and (not names or self.name in names)


@dataclass(frozen=True)
class Wait:
    """Where the kernel has a thread: ``call`` is the system call's name, ``target`` what its descriptor is."""

    call: str = ""  # "" where it runs, or is not known
    fd: int | None = None
    target: str = ""  # pipe:[123], socket:[55], a path
    address: int = 0  # of a futex
    is_timed: bool = False  # it ends by itself
    channel: str = ""  # wchan
    shared: str = ""  # what the futex lies in, where processes share it
    child: int = 0  # whose end it waits for; 0: any child's, or not known


@dataclass(frozen=True)
class Thread:
    """One thread; its frames innermost first, empty where they are not known."""

    tid: int
    state: str = "S"
    wait: Wait = Wait()
    name: str = ""
    frames: tuple[Frame, ...] = ()
    ident: int | None = None
    has_gil: bool = False
    cpu: float = 0.0  # s

    def find(self, file: str, *names: str) -> Frame | None:
        """The innermost frame of one of these functions in that file."""
        return next((frame for frame in self.frames if frame.is_in(file, *names)), None)


@dataclass(frozen=True)
class Process:
    """One process of the program."""

    pid: int
    parent: int
    command: tuple[str, ...]
    role: str = ""
    state: str = "S"  # as in ps
    started: float = 0.0  # clock ticks since boot
    age: float = 0.0  # s
    cpu: float = 0.0  # s, its own
    memory: int = 0  # bytes
    io: int | None = None  # bytes; None: not known
    threads: tuple[Thread, ...] = ()
    fds: dict[int, tuple[str, str]] = field(default_factory=dict)  # number -> what it is, "r", "w" or "rw"
    exit_code: int | None = None  # of a zombie
    version: tuple[int, ...] = ()  # of its Python, where known
    is_forked: bool = False  # from a Python process, without exec
    lost_threads: int | None = None  # that its parent had when it was forked, besides the one that forked
    is_heard: bool = True  # the probe's thread in it, if there is one, runs
    tracer: int = 0

    @property
    def main(self) -> Thread | None:
        """The main thread of the process."""
        return next((thread for thread in self.threads if thread.tid == self.pid), None)

    @property
    def title(self) -> str:
        """Pid and role, for people."""
        return f"{self.pid} ({self.role or 'process'})"


@dataclass(frozen=True)
class Pool:
    """One pool or executor; counts are of its tasks."""

    pid: int
    kind: str
    identity: int = 0
    done: int | None = None
    running: int | None = 0  # None: it does not know which of its tasks are running, and all are pending
    pending: int = 0
    cancelled: int = 0
    max_workers: int | None = None
    max_tasks: int | None = None  # that a worker does before it is replaced
    method: str | None = None  # of starting processes
    workers: tuple[int, ...] = ()  # pids, as the pool has them
    threads: tuple[int, ...] = ()  # identities
    oldest: tuple[str, float] | None = None  # function, s
    is_fresh: bool = True  # told when it was asked for; else it may be older than what is seen of the processes
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def unfinished(self) -> int:
        """Tasks that are waited for."""
        return (self.running or 0) + self.pending

    def text(self) -> str:
        """Counts, for people."""
        done = "?" if self.done is None else str(self.done)
        cancelled = f", {self.cancelled} cancelled" if self.cancelled else ""
        left = f"{self.pending} not done" if self.running is None else f"{self.running} running, {self.pending} pending"
        return f"{done} done, {left}{cancelled}"


@dataclass(frozen=True)
class Death:
    """A process of the program that is no more."""

    pid: int
    at: float  # s, of the watcher's clock
    role: str = ""
    parent: int = 0
    exit_code: int | None = None  # negative: by that signal; None: not known
    age: float = 0.0  # s
    last_words: str = ""  # what it raised
    position: str = ""  # what it did when it was last seen


@dataclass(frozen=True)
class Scene:
    """All that is known at one moment, and what has happened since the last progress."""

    at: float
    root: int
    processes: tuple[Process, ...]
    pools: tuple[Pool, ...] = ()
    deaths: tuple[Death, ...] = ()  # since the watch began
    births: int = 0  # since the last progress
    still: float = 0.0  # s for which no future was done
    idle: float = 0.0  # s for which nothing at all has happened
    busy: dict[int, float] = field(default_factory=dict)  # pid -> share of a core since the last look
    reading: dict[int, int] = field(default_factory=dict)  # pid -> bytes of I/O since the last look
    oom_kills: int = 0  # by the kernel since the watch began
    oom_victims: dict[int, str] = field(default_factory=dict)  # pid -> what the kernel's log says; empty: not known
    throttled: str = ""  # by the cgroup, in words
    unknown: tuple[str, ...] = ()  # what could not be found out
    readers: dict[str, tuple[str, ...]] = field(default_factory=dict)  # pipe -> who outside the program reads it
    peers: dict[str, str] = field(default_factory=dict)  # local socket -> its other end

    def process(self, pid: int) -> Process | None:
        """The process with that pid."""
        return next((process for process in self.processes if process.pid == pid), None)

    @property
    def fresh_pools(self) -> tuple[Pool, ...]:
        """The pools that are known as they are now."""
        return tuple(pool for pool in self.pools if pool.is_fresh)

    @property
    def unfinished(self) -> int:
        """Tasks of all pools that are waited for."""
        return sum(pool.unfinished for pool in self.pools)

    def with_(self, **changes: Any) -> Scene:
        """Return a copy with some values replaced."""
        return replace(self, **changes)


def describe_function(thread: Thread) -> str:
    """The innermost frame of the user's own code, as a place: ``task (script.py, line 7)``."""
    frame = next((frame for frame in thread.frames if not is_library(frame)), None)
    frame = frame or (thread.frames[0] if thread.frames else None)
    return (
        f"{frame.function} ({frame.file.rpartition('/')[2]}, line {frame.line})"
        if frame
        else "a place that is not known"
    )


def is_library(frame: Frame) -> bool:
    """Whether it is code of Python's own library, an installed package, ours, or frozen in."""
    file = frame.file
    return file.startswith(("<frozen", _OURS)) or "/site-packages/" in file or _in_standard_library(file)


def _in_standard_library(file: str) -> bool:
    folder = file.rpartition("/")[0]
    return any(part.startswith("python3.") for part in folder.split("/")) and "/lib" in file
