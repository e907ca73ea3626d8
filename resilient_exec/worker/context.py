"""What a running task can learn about itself, and say: which attempt it is, how long it may run, what it is at."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import pickle
import time
from functools import cached_property

from resilient_exec.wire import scratch
from resilient_exec.wire.register import REGISTER_SIZE, Note, Notes
from resilient_exec.worker.random_streams import derived, key_of_item

TYPE_CHECKING = False
if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Hashable, Sequence
    from pathlib import Path
    from typing import Any, NoReturn

    from numpy.random import SeedSequence

    from resilient_exec.wire.register import Register

__all__ = ["TaskContext", "task_context"]

_SHORT = ("/tmp", "/var/tmp")  # noqa: S108  where the folder for temporary files has too long a path


class TaskContext:
    """The attempt under way in this process.  Two that say the same are equal.

    Attributes:
        key: the task's key in its pool; ``None`` outside a pool.
        attempt: 1 for the first attempt, 2 for the second, …; 1 outside a pool.
        previous_pids: process ids of the workers in which earlier attempts of this task began.  All of them were
            dead, with what they had started, before this attempt was sent.
    """

    key: Hashable
    attempt: int
    previous_pids: tuple[int, ...]
    _limits: tuple[float, ...]
    _serial: int
    _began: float
    _position: int | None

    # Not a dataclass: what makes those takes a forkserver 6 ms to import.
    def __init__(
        self,
        key: Hashable = None,
        attempt: int = 1,
        previous_pids: tuple[int, ...] = (),
        *,
        limits: tuple[float, ...] = (),  # s, from the begin
        serial: int = 0,  # of the attempt in this worker
        began: float | None = None,
        position: int | None = None,  # of the call, in a chunk
    ) -> None:
        said = {"key": key, "attempt": attempt, "previous_pids": previous_pids}
        self.__dict__.update(said, _limits=limits, _serial=serial, _began=began or time.monotonic(), _position=position)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a task cannot change its context: {name!r} is what its pool has said")

    def __repr__(self) -> str:
        return f"TaskContext(key={self.key!r}, attempt={self.attempt!r}, previous_pids={self.previous_pids!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TaskContext):
            return NotImplemented
        mine, theirs = ((one.key, one.attempt, one.previous_pids) for one in (self, other))
        return mine == theirs

    def __hash__(self) -> int:
        return hash((self.key, self.attempt, self.previous_pids))

    def time_left(self) -> float:
        """Seconds until the next limit of this attempt strikes: ``soft_timeout``, then ``timeout``.

        ``inf`` where there is none, and outside a pool; 0 when the last one is over (the kill is on its way).
        """
        if not self._limits:
            return math.inf
        ran = time.monotonic() - self._began
        return max(0.0, min((limit for limit in self._limits if limit > ran), default=ran) - ran)

    @property
    def scratch_dir(self) -> Path:
        """A directory of this attempt's own, made when it is first asked for and removed with the attempt.

        However the attempt ends it is removed, by the pool if not by the worker.  What the task starts may use it, too.
        Outside a pool it is removed when the interpreter exits.

        Where the path of the folder for temporary files (``TMPDIR``) is longer than some 900 bytes it is in ``/tmp``.

        Raises:
            OSError: the folder for temporary files is missing, full or not writable.
        """
        from pathlib import Path

        return Path(_place.get(self._serial))

    @cached_property
    def rng(self) -> random.Random:
        """A ``random.Random`` of this task's own.

        With ``ResilientPool(seed=...)`` its numbers depend on the seed and the task's key alone (without a key, on the
        task's number): they are the same in each attempt, in whatever worker, order and chunk.  Without a seed, and
        outside a pool, they are new each time.
        """
        import random

        return random.Random(self._entropy("rng"))

    @cached_property
    def seed_sequence(self) -> SeedSequence:
        """The same for numpy: ``numpy.random.default_rng(task_context().seed_sequence)``.

        Raises:
            ImportError: numpy is not installed where the task runs.
        """
        try:
            from numpy.random import SeedSequence
        except ImportError as error:
            raise ImportError(
                "task_context().seed_sequence is numpy's, and numpy cannot be imported here: install it, or use "
                "task_context().rng, which needs nothing"
            ) from error
        return SeedSequence(self._entropy("numpy"))

    def _entropy(self, purpose: str) -> int | None:
        if _seed is None or self is _outside:
            return None
        key = self.key if self._position is None else key_of_item(self.key, self._position)
        return derived(_seed, key, purpose)

    def note(self, text: str) -> None:
        """Say in a short text what the task is at: should the attempt fail, the dossier has what was noted last.

        It is kept in memory that the worker shares with its pool, and survives however the process ends: a simulation
        that notes whose code it is about to call is known to have died there.  Costs about a microsecond, and nothing
        more if the attempt ends well; about 1,500 bytes are kept.  Outside a pool, and in a thread that has outlived
        its attempt, it does nothing.
        """
        if self is _current:
            _notes.hold(Note(text))

    def disown(self, pid: int) -> None:
        """Leave a process that this task has started alone: for a server that tasks share.

        What a task starts is killed with its worker, when the attempt raises, times out or dies, or the worker is
        replaced or no longer needed.  This process, and what it starts itself, is not: it lives on behind the pool, and
        counts for no ``memory_limit``.  Whoever needs it no more is to end it.  When the program itself is killed, it
        ends as well.  Outside a pool this does nothing.

        Args:
            pid: its process id, as of ``subprocess.Popen``.

        Raises:
            ValueError: there is no such process, or it was not started by this worker.
            OSError: this worker has disowned 63 already; or it can disown none (other systems than Linux, no ``/proc``,
                a limit on files).
        """
        if _disown is None:
            return
        if isinstance(pid, bool) or not isinstance(pid, int):
            raise TypeError(f"pid must be the number of a process, as of subprocess.Popen(...).pid; got {pid!r}")
        found = _ancestors(pid)
        if os.getpid() not in found:
            what = "is not one that this worker has started" if found else "does not exist"
            raise ValueError(f"process {pid} {what}, and cannot be disowned")
        if not _disown(pid, found[pid]):
            raise OSError(errno.ENOSPC, f"no room to note that process {pid} is disowned: end it with the task instead")


def _ancestors(pid: int) -> dict[int, float]:
    """The process and those that it descends from, with the times of their begin; empty: there is none.

    Raises:
        OSError: the system does not say (it is not Linux, or there is no ``/proc``).
    """
    found: dict[int, float] = {}
    if not os.path.exists(f"/proc/{os.getpid()}/stat"):
        raise OSError(errno.ENOSYS, "no process can be disowned on this system: it has no /proc")
    while pid > 0 and pid not in found:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            break
        found[pid], pid = float(fields[19]), int(fields[1])
    return found


class _Place:
    """Where the scratch directories of this worker are; outside a pool, the one of this process."""

    def __init__(self) -> None:
        self.mark = ""
        self.note: Callable[[str], object] | None = None  # tells the parent, which looks there when the worker is dead
        self.noted: Callable[[], str] | None = None  # what was told last, by this process or a child of its own
        self.home = ""
        self.known = ""  # the folder in which the parent's guard looks
        self._outside = ""

    def get(self, serial: int) -> str:
        if self.note is None:
            return self._get_outside()
        if not self._folder():
            self._choose(self.note)
        return scratch.make(self._folder(), f"{self.mark}{serial}")

    def _choose(self, note: Callable[[str], object]) -> None:
        import tempfile

        wanted = os.path.abspath(tempfile.gettempdir())
        for folder in (wanted, self.known, *_SHORT):
            note(os.path.join(folder, self.mark))
            if self._folder() and os.access(folder, os.W_OK):
                scratch.tell_where(self.known, folder, self.mark)
                return
        raise OSError(
            errno.ENOENT,
            "no folder for temporary files can be used (they are missing, read-only, or their paths too long); set "
            "TMPDIR to another",
            wanted,
        )

    def _folder(self) -> str:
        """Where all those of this worker are: what was the folder for temporary files when the first one was made."""
        return os.path.dirname(self.noted()) if self.noted is not None else ""

    def _get_outside(self) -> str:
        if not self._outside:
            import atexit
            import tempfile

            self._outside = tempfile.mkdtemp(prefix="resilient-exec-")
            atexit.register(scratch.remove_tree, self._outside)
        return self._outside

    def clear(self, serial: int) -> None:
        if self.noted is None or not self.noted():
            return  # none was ever made
        folder = self._folder()
        path = os.path.join(folder, f"{self.mark}{serial}")
        if not os.path.lexists(path):
            return
        here = ""
        with contextlib.suppress(OSError):
            here = os.getcwd()
        if not here or os.path.realpath(here).startswith(os.path.realpath(path)):
            with contextlib.suppress(OSError):  # the next task must not stand in a folder that is gone
                os.chdir(self.home)
        scratch.remove_tree(path)


_place = _Place()
_notes = Notes(bytearray(REGISTER_SIZE))  # outside a pool nobody reads it
_current: TaskContext | None = None
_given: Sequence[Any] | None = None  # what the attempt under way was sent with: its context is made when asked for
_outside = TaskContext()
_seed: int | None = None  # of the pool
_after_attempt: Callable[[], object] | None = None
_disown: Callable[[int, float], bool] | None = None  # ``None`` outside a pool


def task_context() -> TaskContext:
    """The attempt that runs in this worker; outside a pool, a first attempt without a key and without limits."""
    global _current  # noqa: PLW0603  one attempt runs in a process at a time
    given = _given
    if given is None:
        return _outside
    if _current is None or _current._serial != given[0]:  # another call of a chunk
        _current = _make(given)
    return _current


def _make(given: Sequence[Any]) -> TaskContext:
    serial, number, attempt, limits, about, began, *chunk = given
    if chunk:
        chunk[2]()
    ahead = serial - chunk[0] if chunk else 0  # calls before this one, in what the worker was sent at once
    key: Hashable = number + ahead
    pids: tuple[int, ...] = ()
    position = None
    if about:
        packed, name, pids, numbered = pickle.loads(about)
        if packed is not None:
            try:
                key = pickle.loads(packed)
            except Exception:  # a key is never a task's own error
                key = name
        elif name is not None:
            key = name
        if numbered:
            key += ahead  # type: ignore[operator]
        elif chunk and (packed is not None or name is not None):
            position = chunk[1] + ahead
    limits = tuple(limit for limit in limits if limit)
    return TaskContext(key, attempt, pids, limits=limits, serial=serial, began=began, position=position)


def ran() -> float:
    """Seconds since the attempt under way has begun."""
    return time.monotonic() - task_context()._began


def enter(*given: Any) -> None:
    """Called when an attempt begins, with its serial, number, attempt, limits (s; 0: none), key and pids, begin."""
    enter_chunk(given)


def enter_chunk(given: Sequence[Any]) -> None:
    """The same for the calls of a chunk; behind that: serial and position of the first, what to call when one is made.

    For each the worker writes its serial and its begin into ``given``, and says when it is over (:func:`leave_call`).
    """
    global _given, _current
    _given, _current = given, None


def was_asked() -> bool:
    """Whether the call under way has asked for its context."""
    return _current is not None


def leave_call() -> None:
    """A call of a chunk is over."""
    global _current  # noqa: PLW0603  one attempt runs in a process at a time
    if _given is not None:
        _place.clear(_given[0])
    _current = None


def is_running() -> bool:
    """Whether an attempt is under way in this process."""
    return _given is not None


def leave() -> None:
    """Called by the worker when the attempt is over and told: removing a large scratch directory takes its time."""
    global _given, _current
    given, _given, _current = _given, None, None
    if given is not None:
        after_attempt()
        _place.clear(given[0])


def after_attempt() -> None:
    """Do what is to be done behind each attempt, or every now and then in a chunk."""
    if _after_attempt is not None:
        _after_attempt()


def set_scratch(mark: str, known: str, note: Callable[[str], object], noted: Callable[[], str]) -> None:
    """Called by the worker at its start.

    Args:
        mark: what its scratch directories begin with.
        known: the folder in which the parent's guard looks for them.
        note: tells the lane where they are, if the path is not too long for that.
        noted: what was told.
    """
    _place.mark, _place.known, _place.note, _place.noted = mark, known, note, noted
    with contextlib.suppress(OSError):
        _place.home = os.getcwd()


def set_after_attempt(call: Callable[[], object]) -> None:
    """Called by the worker at its start: what is to be called behind each attempt."""
    global _after_attempt  # noqa: PLW0603  a process is one worker
    _after_attempt = call


def set_seed(seed: int) -> None:
    """Called by the worker at its start: the pool's."""
    global _seed  # noqa: PLW0603  a process is one worker
    _seed = seed


def set_disown(call: Callable[[int, float], bool]) -> None:
    """Called by the worker at its start: notes that a process, of that id and begin, is not to be killed with it."""
    global _disown  # noqa: PLW0603  a process is one worker
    _disown = call


def set_notes(register: Register) -> None:
    """Called by the worker at its start: where notes go."""
    global _notes  # noqa: PLW0603  a process is one worker
    _notes = register.notes


def notes() -> Notes:
    """Where notes go: for what notes often, and keeps its :class:`~resilient_exec.wire.register.Note` objects."""
    return _notes
