"""Pipes that are full, while those who could empty them wait for the writer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_exec.diagnosis.cause import Cause

if TYPE_CHECKING:
    from resilient_exec.diagnosis.facts import Process, Scene, Thread

__all__ = ["nobody_reads"]

_WRITES = ("write", "writev", "sendto", "sendmsg")
_READS = ("read", "readv", "recvfrom", "recvmsg")
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
            is_local = wait.target.startswith("pipe:") or wait.target in scene.peers
            if wait.call in _WRITES and is_local and thread.state == "S":
                cause = _judge(scene, process, thread)
                if cause is not None:
                    return cause
    return None


def _judge(scene: Scene, writer: Process, thread: Thread) -> Cause | None:
    pipe = scene.peers.get(thread.wait.target, thread.wait.target)
    inside = [process for process in scene.processes if process.pid != writer.pid and _has_end(process, pipe, "r")]
    outside = scene.readers.get(pipe, ())
    is_output = thread.wait.fd in (1, 2)
    first = (
        f"{writer.title} stands in {thread.wait.call}() to {thread.wait.target}, which is full"
        f"{' (its stdout)' if thread.wait.fd == 1 else ' (its stderr)' if thread.wait.fd == 2 else ''}"
        f"{_place(thread)}"
    )
    if is_output and outside and not inside:
        text = f"it is to be read by {', '.join(outside)}, outside of the program, which does not read"
        return Cause("output-not-read", _OUTPUT, (first, text), _OUTPUT_REMEDY)
    joiners = [(process, _joins(scene, process, writer, pipe)) for process in inside]
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


def _has_end(process: Process, end: str, mode: str) -> bool:
    """Whether it has that end of a pipe, or of a pair of sockets, which go both ways."""
    return any(what == end and (mode in its or end.startswith("socket:")) for what, its in process.fds.values())


def _joins(scene: Scene, reader: Process, writer: Process, pipe: str) -> str | None:
    """How the reader waits for the writer in place of reading; ``None``: it does not, or that is not known."""
    if any(thread.wait.target == pipe and thread.wait.call in _READS for thread in reader.threads):
        return None
    if (text := _reads_another(scene, reader, writer)) is not None:
        return text
    joiner = _joiner(reader, writer)
    if joiner is None:
        return _writes_back(scene, reader, writer)
    caller = next((f for f in joiner.frames if not any(f.file.endswith(file) for file, _ in _JOINS)), None)
    where = (
        f" ({caller.file.rpartition('/')[2]}, line {caller.line}{f': {caller.text}' if caller.text else ''})"
        if caller
        else ""
    )
    return f"{reader.title}, which has the reading end, waits for the end of {writer.pid}{where} and does not read"


def _joiner(reader: Process, writer: Process) -> Thread | None:
    """The thread that waits for the end of the writer, if no other one of that process may come to read."""
    others = [thread for thread in reader.threads if thread.wait.child != writer.pid]
    if len(others) < len(reader.threads) and all(map(_is_still, others)):
        return next(thread for thread in reader.threads if thread.wait.child == writer.pid)
    main = reader.main
    if main is None or reader.pid != writer.parent or main.wait.child:
        return None  # a child that it waits for, and which is not the writer, may still end
    is_joining = any(main.find(file, *names) for file, names in _JOINS) or main.wait.call in ("wait4", "waitid")
    return (
        main if is_joining and not any(thread.state == "R" for thread in reader.threads if thread is not main) else None
    )


def _is_still(thread: Thread) -> bool:
    wait = thread.wait
    return thread.state == "S" and not wait.is_timed and wait.call in ("futex", "wait4", "waitid")


def _reads_another(scene: Scene, reader: Process, writer: Process) -> str | None:
    """It reads another pipe first, to whose end, and nobody but the writer could write there or close it."""
    main = reader.main
    if main is None or main.wait.call not in _READS or not main.wait.target.startswith("pipe:"):
        return None
    if any(thread.state == "R" for thread in reader.threads):
        return None
    other = main.wait.target
    writers = [process.pid for process in scene.processes if _has_end(process, other, "w")]
    if writers != [writer.pid]:
        return None
    return f"{reader.title}, which has the reading end, reads {other} first, which only {writer.pid} could end"


def _writes_back(scene: Scene, reader: Process, writer: Process) -> str | None:
    """Both write to each other."""
    for thread in reader.threads:
        target = thread.wait.target
        back = scene.peers.get(target, target if target.startswith("pipe:") else "")
        if back and thread.wait.call in _WRITES and _has_end(writer, back, "r") and thread.tid == reader.pid:
            text = f"itself stands in a write to {writer.pid}: {target} is full, too"
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
