"""What processes hold and do, what the machine has left, and whether the kernel's OOM killer struck: only reads.

**What a process tree holds.**  The resident set (RSS) of a process counts every page that it maps, so a page shared
by four processes counts four times in their sum.  The proportional set (PSS) divides each page by the number of
those who map it, so its sum is the truth; but the kernel must walk the page tables for it, while it keeps the other.
Hence RSS for the first look, and PSS before anything is done about it: PSS is never the larger one.

**What the machine has left.**  A limit of any memory cgroup above us binds as hard as the end of the RAM, so the
tightest counts.  Page cache is dropped on demand; it counts as available, as in ``MemAvailable``.

Sources: proc(5); the kernel's admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst; its mm/oom_kill.c.  What cannot be
read counts as not there: nothing here raises.  Elsewhere than on Linux psutil is asked.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import time
from typing import TYPE_CHECKING, NamedTuple

from resilient_exec.process.tree import ON_LINUX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import psutil

__all__ = ["Activity", "Machine", "OomWatch", "activity", "machine", "peak"]
__all__ += ["oom_log", "proportional", "proportional_of", "resident", "resident_of"]

_PROC = "/proc"
_KMSG = "/dev/kmsg"
_KEEP = 30.0  # s: how long the list of cgroups is used before it is made anew
_FIRST_PID_NAMESPACE = "pid:[4026531836]"  # fixed by the kernel: PID_NS_INIT_INO, 0xEFFFFFFC
_NOT_KNOWN = "killed from outside; by whom is not known"


def _read(path: str) -> bytes:
    with contextlib.suppress(OSError), open(path, "rb", buffering=0) as file:
        return file.read()
    return b""  # it is not there, or its process is gone by now


def _number(text: bytes, name: bytes) -> int | None:
    """The number behind ``name`` at the beginning of a line."""
    match = re.search(rb"^" + name + rb"\s+(\d+)", text, re.MULTILINE)
    return int(match[1]) if match else None


def _ask(pid: int, question: Callable[[psutil.Process], float]) -> float:
    import psutil

    with contextlib.suppress(psutil.Error, AttributeError):  # gone, or this system does not know it
        return question(psutil.Process(pid))
    return 0


def resident(pid: int) -> int:
    """The resident set in bytes, 0: gone or a zombie; ``statm`` may lag by some pages for each thread and CPU."""
    if not ON_LINUX:
        return int(_ask(pid, lambda process: process.memory_info().rss))
    fields = _read(f"{_PROC}/{pid}/statm").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if len(fields) > 1 else 0


def proportional(pid: int) -> int:
    """The proportional set in bytes, without clean pages of mapped files, which the kernel drops when it needs to.

    Before Linux 5.4 with them; the resident set where the kernel does not tell (older than 4.14, forbidden).
    """
    text = _read(f"{_PROC}/{pid}/smaps_rollup") if ON_LINUX else b""
    own, shared = _number(text, b"Pss_Anon:"), _number(text, b"Pss_Shmem:")
    kilobytes = _number(text, b"Pss:") if own is None or shared is None else own + shared
    return resident(pid) if kilobytes is None else kilobytes * 1024


def resident_of(pids: Iterable[int]) -> int:
    """The sum of the resident sets: cheap, and an upper bound (shared pages count again and again)."""
    return sum(map(resident, pids))


def proportional_of(pids: Iterable[int]) -> int:
    """The sum of the proportional sets: dear, and what they hold (each shared page counts once, if all are asked)."""
    return sum(map(proportional, pids))


def peak(pid: int) -> int:
    """The largest resident set that it ever had, as the kernel notes it (no look can miss it); bytes, 0: not known."""
    if not ON_LINUX:
        return int(_ask(pid, lambda process: getattr(process.memory_info(), "peak_wset", 0)))  # Windows only
    return (_number(_read(f"{_PROC}/{pid}/status"), b"VmHWM:") or 0) * 1024


class Activity(NamedTuple):
    """What some processes have done so far: an idle one has the same figures at the next look."""

    cpu: float  # s, user and system, waited-for children included; in steps of 10 ms
    io: int  # bytes through read() and write() of all kinds, pipes included; 0: not known


def activity(pids: Iterable[int]) -> Activity:
    """The sums over ``pids``.  Compare for equality: a sum falls when a process ends and nobody waits for it.

    ``rchar`` and ``wchar`` count what went through read and write calls, whether a disk was touched or not.  They
    miss ``recv`` and ``send``, and page faults of mapped files; whoever gets data that way uses CPU on it.
    """
    each = [_activity(pid) for pid in pids]
    return Activity(sum(one.cpu for one in each), sum(one.io for one in each))


def _activity(pid: int) -> Activity:
    if not ON_LINUX:
        cpu = _ask(pid, lambda process: sum(process.cpu_times()[:4]))
        return Activity(cpu, int(_ask(pid, lambda process: sum(process.io_counters()[2:4]))))
    # The name, in brackets, may itself hold spaces and brackets. Behind it: utime, stime, cutime, cstime at 11 to 14.
    fields = _read(f"{_PROC}/{pid}/stat").rpartition(b")")[2].split()
    counts = _read(f"{_PROC}/{pid}/io")
    io = (_number(counts, b"rchar:") or 0) + (_number(counts, b"wchar:") or 0)
    return Activity(sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK"), io)


class Machine(NamedTuple):
    """The memory that we may have: the machine's or, where tighter, that of a cgroup which holds us; bytes."""

    available: int  # the least that any of them has left
    total: int  # the smallest of them


def machine() -> Machine | None:
    """What is left now; ``None``: not known.  Cheap enough to be asked many times a second."""
    if not ON_LINUX:
        import psutil

        figures = psutil.virtual_memory()
        return Machine(figures.available, figures.total)
    text = _read(f"{_PROC}/meminfo")
    available, total = _number(text, b"MemAvailable:"), _number(text, b"MemTotal:")
    known = None if available is None or total is None else Machine(available * 1024, total * 1024)
    for cgroup in _around_us():
        known = cgroup.tighten(known)
    return known


class _Cgroup(NamedTuple):
    """One memory cgroup: where it is, and what its files are called."""

    path: str
    unified: bool  # version 2

    def tighten(self, known: Machine | None) -> Machine | None:
        """``known``, or less where this cgroup has less."""
        # Above memory.high nobody is killed, but all are slowed down to next to nothing: a limit as well.
        names = ("memory.max", "memory.high") if self.unified else ("memory.limit_in_bytes",)
        limits = [int(text) for name in names if (text := _read(f"{self.path}/{name}").strip()).isdigit()]
        used = _read(f"{self.path}/memory.{'current' if self.unified else 'usage_in_bytes'}").strip()
        # "max" in version 2, 2**63 less one page in version 1: no limit.
        if not limits or not used.isdigit() or (limit := min(limits)) >= 1 << 60:
            return known
        available = limit - int(used)
        if known is None or available < known.available:  # only then: its statistics are the dearest file of all
            available = max(available + self._droppable(), 0)
        # The one with the least left need not be the smallest: its other children may use it up.
        return Machine(min(available, known.available), min(limit, known.total)) if known else Machine(available, limit)

    def _droppable(self) -> int:
        """Bytes of page cache, which is dropped on demand; but for what is still to be written.

        All that is read takes room in a cgroup until that is full, and what was read twice is ``active``: neither is
        in use.  (What lies in a tmpfs counts as anonymous memory there.)
        """
        text = _read(f"{self.path}/memory.stat")
        if self.unified:
            cached: tuple[bytes, ...] = (b"active_file", b"inactive_file", b"slab_reclaimable")
            unwritten = (b"file_dirty", b"file_writeback")
        else:
            cached = (b"total_active_file", b"total_inactive_file")
            unwritten = (b"total_dirty", b"total_writeback")
        both = (sum(_number(text, name) or 0 for name in names) for names in (cached, unwritten))
        return max(next(both) - next(both), 0)

    def kills(self) -> int | None:
        """How many of the processes in it were ended by an OOM killer, the machine's or a cgroup's (since 4.13)."""
        return _number(_read(f"{self.path}/memory.{'events' if self.unified else 'oom_control'}"), b"oom_kill")


def _around_us() -> list[_Cgroup]:
    """The memory cgroups that hold this process, the innermost first."""
    return _find_cgroups(int(time.monotonic() / _KEEP))


_OWN = re.compile(rb"^\d+:(?:(?:[^:\n]*,)?(memory)(?:,[^:\n]*)?)?:(/.*)$", re.MULTILINE)  # "memory" or "", path
_MOUNT = re.compile(rb"^\S+ \S+ \S+ (\S+) (\S+) .* - (cgroup2?) \S+ (\S+)$", re.MULTILINE)  # root, point, type, options


@functools.lru_cache(maxsize=1)
def _find_cgroups(_period: int) -> list[_Cgroup]:
    """Walk from our own up to what is mounted: the machine's root, or that of our container."""
    found: list[_Cgroup] = []
    own = dict(_OWN.findall(_read(f"{_PROC}/self/cgroup")))
    for root, point, kind, options in _MOUNT.findall(_read(f"{_PROC}/self/mountinfo")):
        unified = kind == b"cgroup2"
        path, top = own.get(b"" if unified else b"memory", b""), _unescape(root).rstrip(b"/")
        if not (unified or b"memory" in options.split(b",")) or not (path + b"/").startswith(top + b"/"):
            continue
        parts = path.removeprefix(top).rstrip(b"/").split(b"/")
        paths = [_unescape(point) + b"/".join(parts[:end]) for end in range(len(parts), 0, -1)]
        found += [_Cgroup(os.fsdecode(path), unified) for path in paths]
    return found


def _unescape(text: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), text)


class OomWatch:
    """Who ended it?  Made when a worker starts, asked after a SIGKILL that was not ours.

    The kernel counts each kill of its OOM killer, for the machine and for the victim's cgroup, and then names the
    victim in its log.  So no place in the log need be remembered: of N kills since then, the last N lines tell.  The
    log can be read with the right to, and its pids are those of the machine, which a container does not know.
    A killer that is a program (earlyoom, systemd-oomd) leaves no trace in either.
    """

    def __init__(self) -> None:
        # The innermost that counts is the victim's: version 2 leaves out those for which memory is not switched on.
        self._cgroup = next((cgroup for cgroup in _around_us() if cgroup.kills() is not None), None)
        self._before = self._kills()

    def _kills(self) -> tuple[int | None, int | None]:
        """Return the number of OOM kills so far, on the machine and in the cgroup."""
        return _number(_read(f"{_PROC}/vmstat"), b"oom_kill"), self._cgroup.kills() if self._cgroup else None

    def verdict(self, pid: int) -> str:
        """What can be known of the end of ``pid``, our worker since this watch was made; in words."""
        pairs = zip(self._kills(), self._before, strict=True)
        on_machine, in_cgroup = (None if now is None or then is None else now - then for now, then in pairs)
        logged = oom_log()[-on_machine:] if on_machine else []
        for line, victim in logged:
            if victim == pid:
                return f"the kernel's OOM killer ended it (its log says: {line})"
        if on_machine and len(logged) == on_machine:
            return f"{_NOT_KNOWN} (the kernel's OOM killer has struck meanwhile, but its log names others)"
        if count := on_machine if in_cgroup is None else in_cgroup:
            where, likely = ("on this machine", "perhaps") if in_cgroup is None else ("in its cgroup", "most likely")
            times = "once" if count == 1 else f"{count} times"
            return f"the kernel's OOM killer has struck {times} {where} meanwhile: {likely} it"
        return _NOT_KNOWN


# Priorities below 8 are the kernel's own: whoever may write into its log is given others.
_KILLED = re.compile(rb"^[0-7],\d+,\d+,[^;\n]*;(.*Killed process (\d+)\b.*)$", re.MULTILINE)


def oom_log() -> list[tuple[str, int]]:
    """The victims of OOM killers that the kernel's log still names, the latest last: line and pid.

    Empty where it cannot be read, and in a container, whose pids are others than those in the log.
    """
    text = b""
    with contextlib.suppress(OSError):
        if os.readlink(f"{_PROC}/self/ns/pid") != _FIRST_PID_NAMESPACE:
            return []
        with open(_KMSG, "rb", buffering=0, opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as log:
            for _ in range(100_000):  # at most: it may be written as fast as it is read
                with contextlib.suppress(BrokenPipeError):  # overwritten before it was read: on with what is left
                    if not (record := log.read(8192)):
                        break
                    text += record
    return [(line.decode(errors="replace"), int(pid)) for line, pid in _KILLED.findall(text)]
