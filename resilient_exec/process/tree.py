"""Processes as the kernel knows them: who lives, who descends from whom, and how to end a whole tree.

**The process is the truth.**  Pipes may be held open by a forked child, futures may fail late or not at all; so a
worker's death is read from a pidfd, which turns readable at that moment and never means another process.

**Trees.**  A worker on Linux is a child subreaper: what its children leave behind becomes its own child, not init's.
While it lives its descendants are found by walking down from it, and remembered by pid and start time.  When it
has died by itself, those that it left are found by that memory, and by a mark in the environment that was set when
it was started (a forked child keeps it, an exec'd one inherits it).  What escapes: a process that both left the
tree before it was seen there and was started with an environment of its own.

Elsewhere than on Linux there is neither pidfd nor mark: psutil walks the tree and is asked who lives.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "ON_LINUX",
    "Identity",
    "Watch",
    "catches",
    "end_tree",
    "has_terminal",
    "identify",
    "is_alive",
    "marked",
    "moment",
    "signal_state",
    "state",
    "tree",
]

ON_LINUX = sys.platform == "linux"
_PROC = "/proc"  # no pathlib here: Python 3.11 interns every part of every path, and pids never end
_ROUNDS = 50  # of looking for what was forked while others were being stopped
_EXEC_TIMEOUT = 1.0  # s for a process between two programs, which takes a millisecond, or some more on a busy machine
_ENVIRONMENT = slice(47, 49)  # of the fields of stat: where it begins and ends; both 0: it is not there yet
_KILL_AGAIN = 0.2  # s: a SIGKILL may not land at once (a process in an uninterruptible wait)


class Identity(NamedTuple):
    """One process for ever: a pid alone is used again for others."""

    pid: int
    started: float  # clock ticks since boot on Linux, seconds since the epoch elsewhere


def _read(name: str) -> bytes:
    with open(f"{_PROC}/{name}", "rb", buffering=0) as file:
        return file.read()


def _stat_fields(pid: int) -> list[str] | None:
    try:
        text = _read(f"{pid}/stat").decode(errors="replace")
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()  # the name, in brackets, may itself hold spaces and brackets


def identify(pid: int) -> Identity | None:
    """The process that has ``pid`` now, zombies included; ``None``: there is none."""
    if ON_LINUX:
        fields = _stat_fields(pid)
        return Identity(pid, float(fields[19])) if fields is not None else None
    import psutil

    try:
        return Identity(pid, psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def moment() -> float:
    """Now, on the clock of :attr:`Identity.started` (which ticks a hundred times a second)."""
    if ON_LINUX:
        return time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")
    return time.time()


def state(pid: int) -> str:
    """One letter as in ``ps``: R, S, D, T (stopped), Z (zombie) …; ``""``: there is no such process."""
    if ON_LINUX:
        fields = _stat_fields(pid)
        return fields[0] if fields is not None else ""
    import psutil

    try:
        status = psutil.Process(pid).status()
    except psutil.Error:
        return ""
    return {"zombie": "Z", "stopped": "T"}.get(status, "R")


def has_terminal(pid: int) -> bool:
    """Whether a terminal controls the process, whose Ctrl-Z stops it (Linux)."""
    fields = _stat_fields(pid) if ON_LINUX else None
    return fields is not None and fields[4] != "0"


def is_alive(who: Identity) -> bool:
    """Whether exactly that process still runs (a zombie does not)."""
    return identify(who.pid) == who and state(who.pid) not in ("Z", "X", "")


def signal_state(pid: int, number: int) -> tuple[bool, frozenset[str]]:
    """Whether the signal is still to be handled, and the threads that block it: a handler that runs does (Linux)."""
    bit = 1 << (number - 1)
    is_pending, blocking = False, set()
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"{_PROC}/{pid}/task"):
            with contextlib.suppress(OSError):  # a thread that has just ended
                for line in _read(f"{pid}/task/{thread}/status").decode(errors="replace").splitlines():
                    if line.startswith(("SigPnd:", "ShdPnd:")) and int(line[7:], 16) & bit:
                        is_pending = True
                    elif line.startswith("SigBlk:") and int(line[7:], 16) & bit:
                        blocking.add(thread)
    return is_pending, frozenset(blocking)


def catches(pid: int, number: int) -> bool:
    """Whether the process has a handler for the signal (Linux; elsewhere: yes)."""
    if not ON_LINUX:
        return True
    with contextlib.suppress(OSError):
        for line in _read(f"{pid}/status").decode(errors="replace").splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line[7:], 16) & 1 << (number - 1))
    return False


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        threads = os.listdir(f"{_PROC}/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        with contextlib.suppress(OSError):
            found += map(int, _read(f"{pid}/task/{thread}/children").split())
    return found


def tree(pid: int, without: frozenset[Identity] = frozenset()) -> set[Identity]:
    """The descendants of ``pid``, itself not included, nor those ``without`` and theirs, as the kernel shows them."""
    if not ON_LINUX:
        return _tree_by_psutil(pid) - without
    found: set[Identity] = set()
    todo = _children(pid)
    while todo:
        who = identify(todo.pop())
        if who is not None and who not in found and who not in without:
            found.add(who)
            todo += _children(who.pid)
    return found


def _tree_by_psutil(pid: int) -> set[Identity]:
    import psutil

    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return set()
    found = (identify(child.pid) for child in children)
    return {who for who in found if who is not None}


def marked(mark: str) -> set[Identity]:
    """All processes of this user with a variable in their environment whose name begins with ``mark`` (Linux).

    One that becomes another program at this moment has no environment yet: it is waited for, 1 s at most.
    """
    if not ON_LINUX:
        return set()
    wanted = b"\0" + mark.encode()
    found: set[Identity] = set()
    names: list[str] = []
    with contextlib.suppress(OSError):  # no descriptor left: the caller has other means
        names = os.listdir(_PROC)
    own = str(os.getpid())
    names = [name for name in names if name.isdigit() and name != own]
    deadline = 0.0
    while True:
        names = [name for name in names if _is_changing(name, wanted, found)]
        now = time.monotonic()
        deadline = deadline or now + _EXEC_TIMEOUT
        if not names or now > deadline:
            return found
        time.sleep(0.001)


def _is_changing(name: str, wanted: bytes, found: set[Identity]) -> bool:
    """Put the process among the ``found`` if its environment has that; whether it is about to have another one."""
    with contextlib.suppress(OSError):  # gone, or somebody else's
        environment = _read(f"{name}/environ")
        if environment:
            who = identify(int(name)) if wanted in b"\0" + environment else None
            if who is not None:
                found.add(who)
        else:
            os.readlink(f"{_PROC}/{name}/exe")  # of a thread of the kernel's, or of a zombie, there is none
            fields = _stat_fields(int(name))
            start, end = fields[_ENVIRONMENT] if fields is not None else ("1", "1")
            return end == "0" or start != end  # the kernel is about to write it, or has done so behind our look
    return False


def send_signal(who: Identity, number: int) -> None:
    """Signal exactly that process; nothing happens if it is gone."""
    if identify(who.pid) == who:
        with contextlib.suppress(OSError):
            os.kill(who.pid, number)


def end_tree(find: Callable[[], Iterable[Identity]], timeout: float, worker: Identity | None = None) -> set[Identity]:
    """Kill every process that ``find`` finds, and what they fork meanwhile; those still alive after ``timeout`` s.

    The descendants of a ``worker`` are reaped where they are children of this process by now (as PID 1 of a container,
    or as a subreaper, it inherits them); but not itself, whose exit status somebody waits for.

    All are stopped before any is killed, and looked for again until no new one turns up: what is stopped can
    neither fork nor flee, and a dead parent's children can no longer be found by walking down from it.
    """
    found: set[Identity] = set()
    for _ in range(_ROUNDS):
        new = set(find()) - found
        if not new:
            break
        for who in new:
            send_signal(who, signal.SIGSTOP if hasattr(signal, "SIGSTOP") else signal.SIGTERM)
        found |= new
    alive = _kill(found, timeout)
    if worker is not None:
        for who in found - alive - {worker}:
            _reap(who)
    return alive


def _reap(who: Identity) -> None:
    fields = _stat_fields(who.pid) if ON_LINUX else None
    if fields is not None and fields[:2] == ["Z", str(os.getpid())] and float(fields[19]) == who.started:
        with contextlib.suppress(OSError):
            os.waitpid(who.pid, os.WNOHANG)


def _kill(found: set[Identity], timeout: float) -> set[Identity]:
    kill = getattr(signal, "SIGKILL", signal.SIGTERM)
    deadline = time.monotonic() + timeout
    alive = {who for who in found if is_alive(who)}
    kill_at, pause = 0.0, 0.0005
    while alive:
        now = time.monotonic()
        if now >= kill_at:
            kill_at = now + _KILL_AGAIN
            for who in alive:
                send_signal(who, kill)
        time.sleep(pause)
        pause = min(pause * 2, 0.02)
        alive = {who for who in alive if is_alive(who)}
        if time.monotonic() >= deadline:
            break
    return alive


class Watch:
    """Tells when one child process of ours is dead, and how it died.

    ``fileno()`` turns readable at that moment; it is -1 where there is no pidfd (``poll_interval`` then says how
    often to ask ``is_gone()``).
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.identity = identify(pid)
        self._fd = -1
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):  # dead and reaped already, or no descriptor left: ask instead
                self._fd = os.pidfd_open(pid)
        self.poll_interval: float | None = None if self._fd >= 0 else 0.05

    def fileno(self) -> int:
        """The pidfd, or -1."""
        return self._fd

    def is_gone(self) -> bool:
        """Whether the process is dead."""
        if self._fd >= 0:
            poller = select.poll()
            poller.register(self._fd, select.POLLIN)
            return bool(poller.poll(0))
        return self.identity is None or not is_alive(self.identity)

    def wait(self, timeout: float) -> bool:
        """Wait until it is dead, at most ``timeout`` s; whether it is."""
        if self._fd >= 0:
            poller = select.poll()
            poller.register(self._fd, select.POLLIN)
            return bool(poller.poll(timeout * 1000))
        deadline = time.monotonic() + timeout
        while not self.is_gone():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.005)
        return True

    def signal(self, number: int) -> None:
        """Send a signal, unless it is dead."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._fd, number)
        elif self.identity is not None:
            send_signal(self.identity, number)

    def exitcode(self) -> int | None:
        """The exit code of the dead process, negative for a signal; ``None`` where somebody else has reaped it."""
        if self._fd < 0 or not hasattr(os, "P_PIDFD"):
            return None
        try:
            # WNOWAIT: only looks. Reaping is the business of whoever started the process (loky).
            info = os.waitid(os.P_PIDFD, self._fd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except OSError:
            return None
        if info is None:
            return None
        return info.si_status if info.si_code == os.CLD_EXITED else -info.si_status

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
