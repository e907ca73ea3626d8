"""Ends what the workers had started, when the parent itself is killed; stops the workers while the parent is stopped.

The kernel kills a worker together with its parent (the parent-death signal), but not the worker's own children.  So
one small process, the guard, waits for the parent's death on a pidfd, which nothing can hold open or fake, and then
kills whatever carries the mark of that parent's workers in its environment, and removes the scratch directories that
bear it.  It is started with the first worker and ended with the last lane; it holds nothing of the parent's but the
standard streams' substitutes, and lives in a session of its own, so that no Ctrl-C of the terminal reaches it.

**Ctrl-Z** stops the terminal's foreground group, which the workers are not in (:mod:`resilient_exec.worker.terminal`).
So where a terminal controls the parent, the guard looks four times a second whether it is stopped; then it stops what
bears the mark, and lets that, and nothing else, go on when the parent does.

What it does is in :mod:`.guarding`; ``guard.py`` is the program.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading

from resilient_exec.process import door
from resilient_exec.process.executable import interpreter
from resilient_exec.process.tree import ON_LINUX, identify
from resilient_exec.wire.scratch import parent_mark

__all__ = ["hold", "release", "temporary", "watch"]

_PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guard.py")


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

    def watch(self) -> None:
        with self._lock:
            # Never started, or killed; and somebody will end it.
            if self._holders and (self._process is None or self._process.poll() is not None):
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
        command = [interpreter(), "-I", "-S", _PROGRAM, str(me.pid), str(me.started), parent_mark(), temporary()]
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
    """The folder for temporary files; ``""``: there is none.

    As ``tempfile`` finds it, which takes 4 ms to import.  A worker in which that finds another one leaves a link here.
    """
    chosen: str | bytes | None = getattr(sys.modules.get("tempfile"), "tempdir", None)
    for name in (chosen, *map(os.environ.get, ("TMPDIR", "TEMP", "TMP")), "/tmp", "/var/tmp", "/usr/tmp"):  # noqa: S108
        if name and os.path.isdir(name) and os.access(name, os.W_OK | os.X_OK):
            return os.path.abspath(os.fsdecode(name))
    return ""


_guard = _Guard()


def _forget() -> None:
    """Forget the guard in a forked child: it is the parent's."""
    global _guard  # noqa: PLW0603  one per process
    _guard = _Guard()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def hold() -> None:
    """A lane begins: there is a door now, and a guard from the next call of :func:`watch` on."""
    _guard.hold()
    door.hold()


def watch() -> None:
    """Code of the user's may run in a worker from now on: have the guard run."""
    _guard.watch()


def release() -> None:
    """A lane has ended; with the last one the guard ends, and the door is closed."""
    door.release()
    _guard.release()
