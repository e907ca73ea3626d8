"""Ends what the workers had started, when the parent itself is killed; stops the workers while the parent is stopped.

The kernel kills a worker together with its parent (the parent-death signal), but not the worker's own children.  So
one small process, the guard, waits for the parent's death on a pidfd, which nothing can hold open or fake, and then
kills whatever carries the mark of that parent's workers in its environment, and removes the scratch directories that
bear it.  It is started with the first lane and
ended with the last; it holds nothing of the parent's but the standard streams' substitutes, and lives in a session of
its own, so that no Ctrl-C of the terminal reaches it.

**Ctrl-Z** stops the terminal's foreground group, which the workers are not in (:mod:`resilient_exec.worker.terminal`).
So where a terminal controls the parent, the guard looks four times a second whether it is stopped; then it stops what
bears the mark, and lets that, and nothing else, go on when the parent does.

Run as a script, this file *is* the guard: ``python -I -S guard.py PID STARTED MARK FOLDER``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

if __name__ == "__main__":  # -I and -S: no site, no path but the standard library's
    sys.path.insert(0, os.path.abspath(__file__).rsplit(os.sep, 3)[0])

from resilient_exec.process.executable import interpreter
from resilient_exec.process.tree import (
    ON_LINUX,
    Identity,
    Watch,
    end_tree,
    has_terminal,
    identify,
    marked,
    send_signal,
    state,
)
from resilient_exec.wire.scratch import parent_mark, remove_all

__all__ = ["hold", "release", "temporary"]

_SWEEP_TIMEOUT = 3.0  # s for one sweep
_SWEEPS = 20  # at most, with a pause between: what is just being started shows its mark a moment later
_PAUSE = 0.05  # s
_WATCH_INTERVAL = 1.0  # s, where there is no pidfd
_LOOK_INTERVAL = 0.25  # s, between two looks whether the parent is stopped
_STOP_ROUNDS = 5  # of looking for what was started while others were being stopped


class _Guard:
    """The guard of this process, and how many lanes want it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # the collector may end a pool in between
        self._owner = os.getpid()
        self._holders = 0
        self._process: subprocess.Popen[bytes] | None = None

    def hold(self) -> None:
        with self._lock:
            self._holders += 1
            if self._process is None or self._process.poll() is not None:  # never started, or killed
                self._start()

    def release(self) -> None:
        with self._lock:
            self._holders -= 1
            if self._holders == 0 and self._process is not None:
                process, self._process = self._process, None
                if self._owner == os.getpid():
                    process.kill()
                    process.wait()

    def _start(self) -> None:
        me = identify(os.getpid())
        if not ON_LINUX or me is None:
            return
        command = [interpreter(), "-I", "-S", __file__, str(me.pid), str(me.started), parent_mark(), temporary()]
        # Without a guard (no process slot, no descriptor) the pool works all the same, until its parent is killed.
        with contextlib.suppress(OSError):
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )


def temporary() -> str:
    """The folder for temporary files; ``""``: there is none."""
    with contextlib.suppress(OSError):
        return tempfile.gettempdir()
    return ""


_guard = _Guard()


def _forget() -> None:
    """Forget the guard in a forked child: it is the parent's."""
    global _guard  # noqa: PLW0603  one per process
    _guard = _Guard()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def hold() -> None:
    """A lane begins: from now on there is a guard, and a door."""
    from resilient_exec.process import door  # the guard itself, which is this file, has no use for it

    _guard.hold()
    door.hold()


def release() -> None:
    """A lane has ended; with the last one the guard ends, and the door is closed."""
    from resilient_exec.process import door

    door.release()
    _guard.release()


def _wait_for_death(pid: int, started: float, mark: str) -> None:
    watch = Watch(pid)
    if watch.identity is None or watch.identity.started != started:
        return  # it died before we looked, and its number may be another's by now
    interval = _LOOK_INTERVAL if has_terminal(pid) else 3600 if watch.fileno() >= 0 else _WATCH_INTERVAL
    stopped: set[Identity] = set()
    while not watch.wait(interval):
        if interval != _LOOK_INTERVAL:
            continue
        if state(pid) != "T":
            _resume(stopped)
        elif not stopped:
            stopped = _stop(mark)


def _stop(mark: str) -> set[Identity]:
    """Stop all that bear the mark, and were not stopped by somebody else."""
    stopped: set[Identity] = set()
    for _ in range(_STOP_ROUNDS):
        new = {who for who in marked(mark) - stopped if state(who.pid) != "T"}
        if not new:
            break
        for who in new:
            send_signal(who, signal.SIGSTOP)
        stopped |= new
    return stopped


def _resume(stopped: set[Identity]) -> None:
    while stopped:
        send_signal(stopped.pop(), signal.SIGCONT)


def _sweep(mark: str) -> None:
    clean = 0
    for _ in range(_SWEEPS):
        found = marked(mark)
        clean = 0 if found else clean + 1
        if clean == 2:
            return
        end_tree(lambda: marked(mark), _SWEEP_TIMEOUT)
        time.sleep(_PAUSE)


if __name__ == "__main__":
    _wait_for_death(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3])
    _sweep(sys.argv[3])
    remove_all(sys.argv[4], sys.argv[3])
