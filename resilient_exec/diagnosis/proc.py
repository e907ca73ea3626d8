"""Reads a program's processes from /proc: states, threads, what each waits for, who holds the ends of its pipes.

Only reads; what cannot be read (gone, somebody else's, forbidden) is left empty.  Linux.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from typing import TYPE_CHECKING

from resilient_exec.diagnosis.facts import Process, Thread, Wait
from resilient_exec.diagnosis.syscalls import name_of
from resilient_exec.process.tree import ON_LINUX, identify, tree

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["environment", "glance", "look", "members", "pipe_ends", "start_time"]

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_WITH_FD = frozenset(
    [
        "read",
        "write",
        "pread64",
        "pwrite64",
        "readv",
        "writev",
        "ioctl",
        "accept",
        "accept4",
        "connect",
        "sendto",
        "recvfrom",
        "sendmsg",
        "recvmsg",
        "fcntl",
        "flock",
        "fsync",
    ]
)
_FUTEX_WAKES = {1, 5}  # operations that do not wait


def _read(path: str) -> str:
    with contextlib.suppress(OSError), open(path, "rb", buffering=0) as file:
        data = b""
        while part := file.read(65536):
            data += part
        return data.decode(errors="replace")
    return ""


def start_time(pid: int) -> str:
    """When it started, in clock ticks since boot, as the kernel writes it; ``""``: there is no such process."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()[19] if os.path.exists(f"/proc/{pid}") else ""


def environment(pid: int) -> list[str]:
    """The variables that the process was started with, as ``NAME=value``; empty: nobody may look."""
    return _read(f"/proc/{pid}/environ").split("\0")


def members(root: int) -> list[int]:
    """The program's processes: ``root`` and its descendants, in the order of their birth."""
    found = {who.pid: who.started for who in tree(root)}
    me = identify(root)
    if me is not None:
        found[root] = -1.0
    return sorted(found, key=lambda pid: (found[pid], pid))


def glance(pid: int) -> Process | None:
    """The cheap part: state, times, memory, I/O, command; without threads and descriptors."""
    text = _read(f"/proc/{pid}/stat")
    if not text:
        return None
    fields = text.rpartition(")")[2].split()
    io = _read(f"/proc/{pid}/io")
    counts = [int(value) for value in re.findall(r"^[rw]char: (\d+)", io, re.MULTILINE)]
    command = tuple(part for part in _read(f"/proc/{pid}/cmdline").split("\0") if part)
    now = time.clock_gettime(time.CLOCK_BOOTTIME) if ON_LINUX else 0.0
    exit_code = int(fields[49]) if fields[0] == "Z" and len(fields) > 49 else None
    return Process(
        pid=pid,
        parent=int(fields[1]),
        command=command or (text.partition("(")[2].rpartition(")")[0],),
        state=fields[0],
        started=float(fields[19]),
        age=max(0.0, now - int(fields[19]) / _TICKS),
        cpu=(int(fields[11]) + int(fields[12])) / _TICKS,
        memory=int(fields[21]) * _PAGE,
        io=sum(counts) if counts else None,
        exit_code=None if exit_code is None else -(exit_code & 0x7F) if exit_code & 0x7F else exit_code >> 8,
    )


def look(process: Process) -> Process:
    """Return the process with its threads, what they wait for, and its descriptors."""
    from dataclasses import replace

    pid = process.pid
    fds = _descriptors(pid)
    maps: list[str] = []
    threads = []
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(f"/proc/{pid}/task"), key=int):
            thread = _thread(pid, int(name), fds, maps)
            if thread is not None:
                threads.append(thread)
    status = _read(f"/proc/{pid}/status")
    tracer = re.search(r"^TracerPid:\s+(\d+)", status, re.MULTILINE)
    return replace(process, threads=tuple(threads), fds=fds, tracer=int(tracer[1]) if tracer else 0)


def _descriptors(pid: int) -> dict[int, tuple[str, str]]:
    found = {}
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(f"/proc/{pid}/fd/{name}")
                mode = ""
                if target.startswith(("pipe:", "/dev/pts", "/dev/tty")):
                    flags = re.search(r"^flags:\s+(\d+)", _read(f"/proc/{pid}/fdinfo/{name}"), re.MULTILINE)
                    mode = {0: "r", 1: "w", 2: "rw"}.get(int(flags[1], 8) & 3, "") if flags else ""
                found[int(name)] = (target, mode)
    return found


def _thread(pid: int, tid: int, fds: dict[int, tuple[str, str]], maps: list[str]) -> Thread | None:
    folder = f"/proc/{pid}/task/{tid}"
    text = _read(f"{folder}/stat")
    if not text:
        return None
    fields = text.rpartition(")")[2].split()
    channel = _read(f"{folder}/wchan")
    wait = _wait(pid, _read(f"{folder}/syscall").split(), "" if channel == "0" else channel, fds, maps)
    name = text.partition("(")[2].rpartition(")")[0]
    return Thread(tid, fields[0], wait, name, cpu=(int(fields[11]) + int(fields[12])) / _TICKS)


def _wait(pid: int, words: list[str], channel: str, fds: dict[int, tuple[str, str]], maps: list[str]) -> Wait:
    if len(words) < 4 or not words[0].lstrip("-").isdigit() or words[0] == "-1":
        return Wait(channel=channel)
    call, args = name_of(int(words[0])), [int(word, 16) for word in words[1:7]]
    if call in _WITH_FD:
        return Wait(call, args[0], fds.get(args[0], ("", ""))[0], channel=channel)
    if call == "futex":
        shared = "" if args[1] & 128 else _mapping(pid, args[0], maps)  # 128: FUTEX_PRIVATE_FLAG
        return Wait(call, address=args[0], is_timed=args[3] != 0, channel=channel, shared=shared)
    timed = {"poll": 2, "select": 4, "pselect6": 4, "ppoll": 2, "epoll_wait": 3, "epoll_pwait": 3, "epoll_pwait2": 3}
    if call in timed:
        value = args[timed[call]] & 0xFFFFFFFF if call in ("poll", "epoll_wait", "epoll_pwait") else args[timed[call]]
        for_ever = value == 0xFFFFFFFF if call in ("poll", "epoll_wait", "epoll_pwait") else value == 0
        return Wait(call, is_timed=not for_ever, channel=channel, target=_polled(pid, call, args, fds))
    child = {"wait4": args[0], "waitid": args[1] if args[0] == 1 else 0}.get(call, 0)  # 1: P_PID
    child = child if child < 1 << 31 else 0  # any child
    return Wait(call, is_timed=call in ("nanosleep", "clock_nanosleep"), channel=channel, child=child)


def _polled(pid: int, call: str, args: list[int], fds: dict[int, tuple[str, str]]) -> str:
    """Return what a thread polls, where it is one thing; of several a connection or port of the network."""
    if call.startswith("epoll"):
        told = re.findall(r"^tfd:\s+(\d+)", _read(f"/proc/{pid}/fdinfo/{args[0]}"), re.MULTILINE)
        targets = [fds.get(int(number), ("", ""))[0] for number in told]
        return next((target for target in targets if target.startswith("socket:") and _is_network(pid, target)), "")
    if call not in ("poll", "ppoll") or args[1] != 1:
        return ""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(args[0])
        return fds.get(int.from_bytes(memory.read(4), "little"), ("", ""))[0]
    return ""


def _is_network(pid: int, target: str) -> bool:
    """Whether a socket is one of the network, and none between or within processes of this machine."""
    inode = target.removeprefix("socket:[").removesuffix("]")
    return any(re.search(rf"\b{inode}\b", _read(f"/proc/{pid}/net/{kind}")) for kind in ("tcp", "tcp6", "udp", "udp6"))


def _mapping(pid: int, address: int, maps: list[str]) -> str:
    """The file that is mapped there: how two processes can tell that they wait for the same semaphore."""
    if not maps:
        maps += _read(f"/proc/{pid}/maps").splitlines()
    for line in maps:
        bounds, _, rest = line.partition(" ")
        low, _, high = bounds.partition("-")
        if int(low, 16) <= address < int(high, 16):
            words = rest.split(None, 4)
            if len(words) == 5 and words[0].endswith("s"):
                return f"{words[4]}#{words[3]}+{int(words[1], 16) + address - int(low, 16)}"
            return ""
    return ""


def pipe_ends(pipes: Iterable[str], without: frozenset[int]) -> dict[str, tuple[str, ...]]:
    """Who, outside the processes ``without``, can read these pipes: ``1234 (less)``; of what this user may see."""
    wanted = set(pipes)
    found: dict[str, list[str]] = {pipe: [] for pipe in wanted}
    if not wanted:
        return {}
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in without:
            continue
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{name}/fd"):
                with contextlib.suppress(OSError):
                    target = os.readlink(f"/proc/{name}/fd/{fd}")
                    if target in wanted and not int(_flags(name, fd), 8) & 1:
                        comm = _read(f"/proc/{name}/comm").strip()
                        state = _read(f"/proc/{name}/stat").rpartition(")")[2].split()[:1]
                        found[target].append(f"{name} ({comm}{', stopped' if state == ['T'] else ''})")
    return {pipe: tuple(dict.fromkeys(who)) for pipe, who in found.items()}


def _flags(pid: str, fd: str) -> str:
    match = re.search(r"^flags:\s+(\d+)", _read(f"/proc/{pid}/fdinfo/{fd}"), re.MULTILINE)
    return match[1] if match else "1"
