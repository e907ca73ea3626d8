"""Takes the Python stacks of a process: through py-spy, by ``faulthandler`` on a signal, or read from a text.

Whoever is asked must not be changed by it: py-spy reads memory from outside (without stopping the process), and the
signal goes only to a process that has a handler for it and does not wait in a call which a signal would end.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from resilient_exec.diagnosis.facts import Frame, Thread
from resilient_exec.process.tree import catches, signal_state

if TYPE_CHECKING:
    from pathlib import Path

    from resilient_exec.diagnosis.facts import Process

__all__ = ["by_py_spy", "by_signal", "find_py_spy", "from_text", "handled_signals", "merge"]

ENDED_BY_SIGNALS = ("pause", "rt_sigsuspend", "rt_sigtimedwait")
_PAUSE = 0.002  # s


def find_py_spy() -> str | None:
    """The command; ``None``: it is not installed."""
    beside = os.path.join(os.path.dirname(sys.executable), "py-spy")
    return beside if os.access(beside, os.X_OK) else shutil.which("py-spy")


def by_py_spy(command: str, pid: int, timeout: float = 10.0) -> tuple[dict[int, Thread], str]:
    """The threads by number, and what went wrong (``""``: nothing)."""
    try:
        done = subprocess.run(
            [command, "dump", "--nonblocking", "--json", "--pid", str(pid)],
            capture_output=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        told = json.loads(done.stdout) if done.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        return {}, f"py-spy: {type(error).__name__}"
    if told is None:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        return {}, f"py-spy: {lines[-1].strip() if lines else f'status {done.returncode}'}"
    found = {}
    for thread in told:
        frames = tuple(Frame(frame["filename"], frame["line"], frame["name"]) for frame in thread["frames"])
        tid = thread.get("os_thread_id") or 0
        found[tid] = Thread(
            tid=tid,
            name=thread.get("thread_name") or "",
            frames=frames,
            ident=thread.get("thread_id"),
            has_gil=bool(thread.get("owns_gil")),
        )
    return found, ""


def by_signal(process: Process, file: Path, timeout: float = 2.0) -> tuple[dict[int, Thread], str]:
    """Ask the handler that the probe has registered; threads in the order of the text, the main one under its pid."""
    pid, number = process.pid, signal.SIGURG
    main = process.main
    if not catches(pid, number):
        return {}, "it has no handler for the signal that asks for stacks"
    if process.state in "Tt":
        return {}, "it is stopped, and answers no signal"
    if main is not None and main.wait.call in ENDED_BY_SIGNALS:
        return {}, f"a signal would end its {main.wait.call}()"
    before = file.stat().st_size
    _, blocking = signal_state(pid, number)
    try:
        os.kill(pid, number)
    except OSError as error:
        return {}, str(error)
    size, deadline = before, time.monotonic() + timeout
    while time.monotonic() < deadline:
        time.sleep(_PAUSE)
        size, last = file.stat().st_size, size
        is_pending, now_blocking = signal_state(pid, number)
        if size > before and size == last and not is_pending and now_blocking <= blocking:
            break
    with file.open("rb") as stacks:
        stacks.seek(before)
        text = stacks.read().decode(errors="replace")
    threads = from_text(text, pid)
    return threads, "" if threads else "it did not answer the signal that asks for stacks"


def handled_signals(pid: int) -> str:
    """The signals that may have faulthandler's handler, in words; ``""``: none.

    They are not sent: from outside nobody can tell that handler from one which ends the program or reads its settings.
    """
    names = [number.name for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT) if catches(pid, number)]
    if not names:
        return ""
    told = " and ".join(names)
    return (
        f"it handles {told}: if that is faulthandler.register(), `kill -{names[0][3:]} {pid}` has it print them itself"
    )


_HEAD = re.compile(r"^(?:Current thread|Thread) 0x([0-9a-f]+)(?: \[([^\]]*)\])?(?: \(most recent call first\))?:")
_LINE = re.compile(r'^  File "(.*)", line (\d+)(?: in (.*))?$')


def from_text(text: str, pid: int) -> dict[int, Thread]:
    """What faulthandler writes.  Its last thread is the main one; of the others the numbers are not known (-1, ...)."""
    threads: list[tuple[int, str, list[Frame]]] = []
    for line in text.splitlines():
        if head := _HEAD.match(line):
            threads.append((int(head[1], 16), head[2] or "", []))
        elif (place := _LINE.match(line)) and threads:
            threads[-1][2].append(Frame(place[1], int(place[2]), place[3] or "?"))
    found = {}
    for at, (ident, name, frames) in enumerate(threads):
        tid = pid if at == len(threads) - 1 else -at - 1
        found[tid] = Thread(tid=tid, name=name, frames=tuple(frames), ident=ident)
    return found


def merge(process: Process, known: dict[int, Thread]) -> Process:
    """The process with these stacks at its threads; what the kernel shows of them stays."""
    from dataclasses import replace

    threads = []
    left = dict(known)
    for thread in process.threads:
        told = left.pop(thread.tid, None)
        if told is not None:
            name = told.name or thread.name
            frames, ident, has_gil = told.frames, told.ident, told.has_gil
            threads.append(replace(thread, name=name, frames=frames, ident=ident, has_gil=has_gil))
        else:
            threads.append(thread)
    # Threads whose numbers are not known: each is still better shown than not.
    bare = [at for at, thread in enumerate(threads) if not thread.frames and thread.tid != process.pid]
    for at, told in zip(bare, [thread for tid, thread in left.items() if tid <= 0], strict=False):
        threads[at] = replace(threads[at], frames=told.frames, ident=told.ident, name=told.name or threads[at].name)
    return replace(process, threads=tuple(threads))
