"""Pipes that are full, while those who could empty them wait for the writer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_exec.diagnosis.cause import Cause

if TYPE_CHECKING:
    from resilient_exec.diagnosis.facts import Process, Scene, Thread

__all__ = ["nobody_reads"]

_WRITES = ("write", "writev", "sendto", "sendmsg")
_JOINS = (  # file, functions: the thread waits for the end of a process or thread
    ("multiprocessing/popen_fork.py", ("wait", "poll")),
    ("multiprocessing/process.py", ("join",)),
    ("subprocess.py", ("wait", "_wait", "call", "run", "check_call")),
    ("threading.py", ("join", "_wait_for_tstate_lock", "_shutdown")),
)
_ENOUGH = 1.0  # s


def nobody_reads(scene: Scene) -> Cause | None:
    """A thread stands in a write to a pipe, and nobody will ever read from it."""
    if scene.idle < _ENOUGH and not scene.still:
        return None
    for process in scene.processes:
        for thread in process.threads:
            wait = thread.wait
            if wait.call in _WRITES and wait.target.startswith("pipe:") and thread.state == "S":
                cause = _judge(scene, process, thread)
                if cause is not None:
                    return cause
    return None


def _judge(scene: Scene, writer: Process, thread: Thread) -> Cause | None:
    pipe = thread.wait.target
    inside = [
        process
        for process in scene.processes
        if process.pid != writer.pid and any(what == pipe and "r" in mode for what, mode in process.fds.values())
    ]
    outside = scene.readers.get(pipe, ())
    is_output = thread.wait.fd in (1, 2)
    first = (
        f"{writer.title} stands in {thread.wait.call}() to {pipe}, which is full"
        f"{' (its stdout)' if thread.wait.fd == 1 else ' (its stderr)' if thread.wait.fd == 2 else ''}"
        f"{_place(thread)}"
    )
    if is_output and outside and not inside:
        text = f"it is to be read by {', '.join(outside)}, outside of the program, which does not read"
        return Cause("output-not-read", _OUTPUT, (first, text), _OUTPUT_REMEDY)
    joiners = [(process, _joins(process, writer, pipe)) for process in inside]
    if outside or any(text is None for _, text in joiners):
        return None  # somebody may still come to read
    if not joiners:
        text = "no other process has its reading end: those who were to read from it are gone"
        return Cause("full-pipe", "a pipe is full, and nobody is left to read from it", (first, text), _FULL_REMEDY)
    texts = [str(text) for _, text in joiners]
    name, title = ("output-not-read", _OUTPUT) if is_output else ("full-pipe", _FULL)
    return Cause(name, title, (first, *texts), _OUTPUT_REMEDY if is_output else _FULL_REMEDY)


def _place(thread: Thread) -> str:
    if thread.find("/queues.py", "_feed"):
        return ", in the feeder thread of a queue"
    frame = next((frame for frame in thread.frames), None)
    return f", in {frame.function} ({frame.file.rpartition('/')[2]}, line {frame.line})" if frame else ""


def _joins(reader: Process, writer: Process, pipe: str) -> str | None:
    """How the reader waits for the writer in place of reading; ``None``: it does not, or that is not known."""
    if any(thread.wait.target == pipe and thread.wait.call == "read" for thread in reader.threads):
        return None
    main = reader.main
    if main is None or reader.pid != writer.parent:
        return _writes_back(reader, writer)
    frame = next((found for file, names in _JOINS if (found := main.find(file, *names))), None)
    if frame is None and main.wait.call not in ("wait4", "waitid"):
        return _writes_back(reader, writer)
    others = [thread for thread in reader.threads if thread is not main and thread.state == "R"]
    if others:
        return None
    caller = next((f for f in main.frames if not any(f.file.endswith(file) for file, _ in _JOINS)), None)
    where = (
        f" ({caller.file.rpartition('/')[2]}, line {caller.line}{f': {caller.text}' if caller.text else ''})"
        if caller
        else ""
    )
    return f"{reader.title}, which has the reading end, waits for the end of {writer.pid}{where} and does not read"


def _writes_back(reader: Process, writer: Process) -> str | None:
    """Both write to each other."""
    for thread in reader.threads:
        back = thread.wait.target
        ends = any(what == back and "r" in mode for what, mode in writer.fds.values())
        if thread.wait.call in _WRITES and back.startswith("pipe:") and ends and thread.tid == reader.pid:
            text = f"itself stands in a write to {writer.pid}: {back} is full, too"
            return f"{reader.title}, which has the reading end, {text}"
    return None


_OUTPUT = "the output of the program goes to a pipe that is full, and nobody reads from it"
_OUTPUT_REMEDY = (
    (
        "read what it prints while it runs (subprocess: communicate(), or a thread that reads), or send it to "
        "a file or to "
        "DEVNULL"
    ),
    "a pager, a stopped terminal (Ctrl-S) or a stopped reader at the other end of `|` holds it up in the same way",
)
_FULL = "a pipe is full: its writer waits for a reader that waits for the writer's end"
_FULL_REMEDY = (
    (
        "take everything out of a queue or pipe before join(): a process that has put much into a queue ends "
        "only when all "
        "of it was taken (or call cancel_join_thread() on the queue, and lose it)"
    ),
    "for results of tasks use a pool, which reads while it waits",
)
