"""What workers print: into capped files, and from there to the parent's own stdout and stderr as far as somebody reads.

A worker that inherits the parent's stdout stands still when nobody reads it, in the middle of its task; one
that writes into a pipe of ours stands still when we are busy.  A file never blocks its writer.  So each worker
appends to two files of its own (:func:`redirect_output`, run in the worker), and one thread in the parent
(:class:`WorkerOutput`) carries what is new to the parent's descriptors 1 and 2:

* It never blocks: pipes and terminals are opened a second time without blocking (the parent's own descriptor
  keeps its mode), so a full pipe delays what is forwarded and nothing else.
* It never fills the disk: a file that is longer than ``limit`` is cut to nothing, and what had not been read of
  it by then is gone; how much is said on the parent's stderr.  (Between two looks, a tenth of a second, a
  worker that floods writes what its disk allows.  What is written in the very instant of the cut is lost uncounted.)
* It keeps lines whole: output of several workers is mixed line by line, not byte by byte.
* It leaves nothing: the files are removed at the end, those of dead workers as soon as they have been read.

Where what a task prints is to be kept, it prints into a file of its own (:mod:`.task_output`), which is capped here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import shutil
import socket
import stat
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from resilient_exec.adapters.task_output import TaskFile, without_escapes
from resilient_exec.wire.scratch import parent_mark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

__all__ = ["WorkerOutput", "redirect_output", "tell_stderr"]

_logger = logging.getLogger(__name__)

DEFAULT_LIMIT = 16 * 2**20  # bytes, of each file
_CHUNK = 2**20  # bytes read of one file in one turn
_BUSY_PAUSE = 0.005  # s between two turns while there is something to carry
_IDLE_PAUSE = 0.1  # s otherwise; each turn is at a time when its code is in no cache, and costs half a millisecond
_SWEEP_EVERY = 1.0  # s between two looks for files of dead workers
_DRAIN_STILL = 1.0  # s without progress after which the final drain gives up: nobody reads
_DRAIN_LONGEST = 5.0  # s for the final drain in all
_STREAMS = {"out": 1, "err": 2}


def redirect_output(folder: str) -> None:
    """Make this process append what it prints to two files in ``folder``; for use as a worker's initializer.

    Descriptors 1 and 2 themselves are replaced, so that C code and child processes are covered too.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
    for name, descriptor in _STREAMS.items():
        path = Path(folder) / f"{os.getpid()}.{name}"
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if opened != descriptor:
            os.dup2(opened, descriptor)
            os.close(opened)
    for stream in (sys.stdout, sys.stderr):
        # Text to a file is buffered in blocks; a killed worker would take its last words with it.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]


class WorkerOutput:
    """A folder for the files of workers, and the thread that forwards and caps them.

    Args:
        limit: bytes that one worker's stdout (or stderr) may occupy before it is cut.
        stdout: descriptor to which the workers' stdout goes; ``None``: nowhere.
        stderr: the same for their stderr.
        without_escapes: leave out what a terminal would obey.

    Start workers with :func:`redirect_output` on :attr:`folder` as initializer while the ``with`` block is
    entered, and end them before it is left.
    """

    def __init__(
        self,
        limit: int = DEFAULT_LIMIT,
        *,
        stdout: int | None = 1,
        stderr: int | None = 2,
        without_escapes: bool = False,
    ) -> None:
        self.limit = limit
        self._without_escapes = without_escapes
        self._kept: dict[Path, TaskFile] = {}
        self._lock = threading.Lock()  # tasks end in other threads
        self.folder = tempfile.mkdtemp(prefix=f"{parent_mark()}output-")  # found when this process is killed
        self._sinks = {"out": _Sink(stdout), "err": _Sink(stderr)}
        self._tails: dict[Path, _Tail] = {}
        self._changed = -1  # when the folder was, at the last look (ns)
        self._is_to_list = True
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="resilient-exec-output", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Forward what is left, as far as somebody reads it within seconds, and remove the files."""
        self._stopping.set()
        self._thread.join(_DRAIN_LONGEST + _DRAIN_STILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def keep(self, path: Path, *, forward: bool = False) -> None:
        """Cap that file of a task's (:mod:`.task_output`), which a worker is going to make.

        Args:
            path: of the file.
            forward: to the parent's stdout, too.
        """
        with self._lock:
            self._kept[path] = TaskFile(path, self._tail(path, 0, "out") if forward else None)

    def kept(self, path: Path) -> int:
        """The task has ended: stop capping its file; the bytes that were left out of it."""
        with self._lock:
            one = self._kept.pop(path, None)
            return 0 if one is None else one.finish(self.limit)

    def _tail(self, path: Path, pid: int, stream: str) -> _Tail:
        clean = without_escapes if self._without_escapes else bytes
        return _Tail(path, pid, self._sinks[stream], self._sinks["err"], f"std{stream}", clean)

    # -- what follows runs on the thread

    def _run(self) -> None:
        swept = time.monotonic()
        while not self._stopping.is_set():
            moved = self._turn()
            if time.monotonic() - swept > _SWEEP_EVERY:
                self._sweep()
                swept = time.monotonic()
            self._stopping.wait(_BUSY_PAUSE if moved else _IDLE_PAUSE)
        self._drain()
        for sink in self._sinks.values():
            sink.close()

    def _turn(self, *, last: bool = False) -> bool:
        """Carry one chunk of each file and cut what is too long; whether anything moved."""
        moved = False
        try:
            with self._lock:
                for tail in self._list():
                    if tail.has_news():
                        moved |= tail.forward(last=last)
                        tail.cut(self.limit)
                for one in self._kept.values():
                    moved |= one.look(self.limit)
        except Exception:
            # Output is a courtesy: whatever goes wrong with it must not reach those who run the tasks.
            _logger.exception("the output of workers could not be forwarded")
        return moved

    def _list(self) -> Iterable[_Tail]:
        changed = os.stat(self.folder).st_mtime_ns
        if changed != self._changed or self._is_to_list:
            # Once more the next time: another file may be made within the same tick of the clock.
            self._is_to_list, self._changed = changed != self._changed, changed
            before = self._tails
            self._tails = {}
            for path in sorted(Path(self.folder).iterdir()):
                pid, _, stream = path.name.partition(".")
                self._tails[path] = before.get(path) or self._tail(path, int(pid), stream)
        return self._tails.values()

    def _sweep(self) -> None:
        for path, tail in list(self._tails.items()):
            if tail.is_read() and not _exists(tail.pid):
                tail.say_total()
                path.unlink()
                del self._tails[path]

    def _drain(self) -> None:
        begin = still = time.monotonic()
        while True:
            now = time.monotonic()
            if self._turn(last=True):
                still = now
            elif all(tail.is_read() for tail in self._tails.values()) and not any(
                sink.pending for sink in self._sinks.values()
            ):
                break
            if now - still > _DRAIN_STILL or now - begin > _DRAIN_LONGEST:
                break
            time.sleep(_BUSY_PAUSE)
        for tail in self._tails.values():
            tail.say_total()


def tell_stderr(text: str) -> None:
    """Print ``text`` to stderr, but wait no longer than a second for a reader that does not read."""
    stream = sys.__stderr__
    if sys.stderr is not stream and sys.stderr is not None:
        # Replaced (a notebook, a test, a redirection): whoever replaced it decides.
        sys.stderr.write(text)
        return
    if stream is None:  # no console
        return
    sink = _Sink(stream.fileno())
    sink.send(text.encode(errors="backslashreplace"))
    still = time.monotonic()
    while sink.pending and time.monotonic() - still < _DRAIN_STILL:
        if sink.flush():
            still = time.monotonic()
        else:
            time.sleep(_BUSY_PAUSE)
    sink.close()


@dataclass
class _Tail:
    """The reading end of one worker's file."""

    path: Path
    pid: int
    sink: _Sink
    complaints: _Sink
    stream: str
    clean: Callable[[bytes], bytes] = bytes
    offset: int = 0
    dropped: int = 0
    _size_before: int = -1
    _said: int = 0

    def __post_init__(self) -> None:
        self._name = str(self.path)

    def has_news(self) -> bool:
        """Whether there is anything to forward or to cut: a file that nobody writes to costs one system call."""
        if self.sink.pending or self._size_before != self.offset:
            return True
        return os.stat(self._name).st_size != self.offset

    def is_read(self) -> bool:
        return self.offset >= self.path.stat().st_size

    def forward(self, *, last: bool) -> bool:
        """Hand the next whole lines to the sink, unless it is still busy; whether anything moved."""
        moved = False
        while self.sink.flush():
            moved = True
        size = self.path.stat().st_size
        paused = last or size == self._size_before
        self._size_before = size
        if self.sink.pending or size <= self.offset:
            return moved
        chunk = self._read(paused=paused)
        self.offset += len(chunk)
        self.sink.send(self.clean(chunk))
        return moved or bool(chunk)

    def _read(self, *, paused: bool) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.offset)
            chunk = file.read(_CHUNK)
        full = len(chunk) == _CHUNK
        if paused and not full:
            return chunk
        # A line that is still being written waits for its end, unless its writer pauses in it.
        whole = chunk[: chunk.rfind(b"\n") + 1]
        return whole or (chunk if full else b"")

    def cut(self, limit: int) -> None:
        """Empty the file if it is longer than ``limit``; what has not been read of it is lost."""
        size = self.path.stat().st_size
        if size <= limit:
            return
        os.truncate(self.path, 0)
        lost = max(0, size - self.offset)
        self.offset = 0
        if lost and not self.dropped:
            self._say(f"prints faster than it is read; over {limit / 2**20:.0f} MiB, {self.stream} is dropped")
        self.dropped += lost

    def say_total(self) -> None:
        if self.dropped > self._said:
            self._said = self.dropped
            self._say(f"{self.dropped / 2**20:.1f} MiB of {self.stream} were dropped")

    def _say(self, text: str) -> None:
        self.complaints.send(f"resilient_exec: worker {self.pid}: {text}\n".encode())


def _exists(pid: int) -> bool:
    # psutil costs 30 ms to import, and workers import this module.
    import psutil

    return psutil.pid_exists(pid)


class _Writer(Protocol):
    def __call__(self, data: bytes, /) -> int: ...


class _Sink:
    """A descriptor of the parent's, written to without ever waiting; ``pending`` is what it has not taken yet."""

    def __init__(self, descriptor: int | None) -> None:
        self.pending = b""
        self._closing = contextlib.ExitStack()
        self._write: _Writer | None = None
        if descriptor is not None:
            # Closed, or not a descriptor at all (no console): there is nobody to forward to.
            with contextlib.suppress(OSError):
                self._write = _writer(descriptor, self._closing)

    def send(self, data: bytes) -> None:
        if self._write is not None:
            self.pending += data
            self.flush()

    def flush(self) -> bool:
        """Write what the descriptor takes at once; whether it took anything."""
        if not self.pending or self._write is None:
            return False
        try:
            taken = self._write(self.pending)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:  # the reader is gone
            self._write = None
            self.pending = b""
            return False
        self.pending = self.pending[taken:]
        return taken > 0

    def close(self) -> None:
        self._write = None
        self._closing.close()


def _writer(descriptor: int, closing: contextlib.ExitStack) -> _Writer:
    """A function that writes to ``descriptor``'s file and never waits, with no effect on the descriptor's own mode."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISSOCK(mode):
        copy = closing.enter_context(socket.socket(fileno=os.dup(descriptor)))
        return lambda data: copy.send(data, socket.MSG_DONTWAIT)
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        with contextlib.suppress(OSError):
            # O_NONBLOCK belongs to the open file, which the parent's print() shares: so open it anew.
            anew = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
            closing.callback(os.close, anew)
            return lambda data: os.write(anew, data)
    same = os.dup(descriptor)
    closing.callback(os.close, same)
    if stat.S_ISREG(mode) or os.name == "nt":
        return lambda data: os.write(same, data)
    return lambda data: os.write(same, data[:512]) if select.select([], [same], [], 0)[1] else 0
