"""A door through which another process of this user can ask what the pools in this one are doing.

``resilient-exec dump`` knocks.  Until somebody does, there is a thread asleep in ``accept()`` and one descriptor, from
the first worker to the end of the last: no file, no timer, nothing done for a task.  The socket has a name in the
abstract namespace of Linux, which is gone with the process however that ends; elsewhere there is no door.  Whoever
knocks is known by the kernel: only this user, and root, are answered.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import sys
import threading
from typing import TYPE_CHECKING, Any

from resilient_exec.process.tree import ON_LINUX

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["answer_with", "ask", "doors", "hold", "release"]

_NAME = "\0resilient-exec:{uid}:{pid}"
_TIMEOUT = 1.0  # s, for a question and its answer
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
_MOST_FRAMES = 100


def _nothing() -> dict[str, Any]:
    return {}


class _Door:
    """The door of this process, and how many workers keep it open."""

    def __init__(self, answer: Callable[[], dict[str, Any]] = _nothing) -> None:
        self.answer = answer
        self._lock = threading.Lock()
        self._holders = 0
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def hold(self) -> None:
        with self._lock:
            self._holders += 1
            if self._holders == 1 and ON_LINUX:
                self._open()

    def release(self) -> None:
        with self._lock:
            self._holders -= 1
            if self._holders or self._socket is None:
                return
            ours, thread, self._socket, self._thread = self._socket, self._thread, None, None
        with contextlib.suppress(OSError):
            ours.shutdown(socket.SHUT_RDWR)  # wakes the thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(2 * _TIMEOUT)
        ours.close()

    def forget(self) -> None:
        """Forget the door in a forked child: it is the parent's."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()

    def _open(self) -> None:
        # Without one (no descriptor, no thread left) the pool works all the same.
        with contextlib.suppress(OSError, RuntimeError), contextlib.ExitStack() as undo:
            ours = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            ours.bind(_NAME.format(uid=os.geteuid(), pid=os.getpid()))
            ours.listen(4)
            thread = threading.Thread(target=_serve, args=(ours, self), name="resilient-door", daemon=True)
            thread.start()
            undo.pop_all()
            self._socket, self._thread = ours, thread


def _serve(ours: socket.socket, door: _Door) -> None:
    while True:
        try:
            visitor, _ = ours.accept()
        except OSError:
            return  # it was closed
        with visitor, contextlib.suppress(Exception):  # whatever a visitor does, the next one is welcome
            visitor.settimeout(_TIMEOUT)
            if _user_of(visitor) in (0, os.geteuid()):
                visitor.sendall(json.dumps(_answer(door), default=repr).encode())


def _answer(door: _Door) -> dict[str, Any]:
    told: dict[str, Any] = {"pid": os.getpid(), "python": sys.version_info[:3], "threads": _stacks()}
    try:
        return {**told, **door.answer()}
    except Exception as error:  # a pool that ends in this very moment
        return {**told, "problem": f"{type(error).__name__}: {error}"}


def _stacks() -> list[dict[str, Any]]:
    """All threads of this process but this one: number, name, frames (the innermost first)."""
    by_ident = {thread.ident: thread for thread in threading.enumerate()}
    found = []
    for ident, frame in sys._current_frames().items():
        thread = by_ident.get(ident)
        if ident == threading.get_ident():
            continue
        frames: list[tuple[str, int, str]] = []
        one = frame
        while one is not None and len(frames) < _MOST_FRAMES:
            code = one.f_code
            frames.append((code.co_filename, one.f_lineno or 0, code.co_qualname))
            one = one.f_back  # type: ignore[assignment]
        name, number = (thread.name, thread.native_id) if thread is not None else ("", 0)
        found.append({"ident": ident, "tid": number, "name": name, "frames": frames})
    return found


def _user_of(visitor: socket.socket) -> int:
    _, uid, _ = _CREDENTIALS.unpack(visitor.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(uid)


_door = _Door()


def _forget() -> None:
    global _door  # noqa: PLW0603  one per process
    _door.forget()
    _door = _Door(_door.answer)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def answer_with(answer: Callable[[], dict[str, Any]]) -> None:
    """Set what a visitor is told besides the stacks of this process."""
    _door.answer = answer


def hold() -> None:
    """A worker begins: from now on there is a door."""
    _door.hold()


def release() -> None:
    """A worker has ended; with the last one the door is closed."""
    _door.release()


# -- the other side


def doors(uid: int | None) -> list[int]:
    """The pids of the processes here that have one; of that user, or of all (``None``)."""
    found = []
    with contextlib.suppress(OSError), open("/proc/net/unix", encoding="utf-8", errors="replace") as table:
        for line in table:
            name = line.split()[-1]
            parts = name.split(":")
            if parts[0] == "@resilient-exec" and len(parts) == 3 and (uid is None or parts[1] == str(uid)):
                found.append(int(parts[2]))
    return sorted(set(found))


def ask(pid: int, uid: int) -> dict[str, Any]:
    """What that process tells; empty: it has no door, or does not answer within 2 s."""
    with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as ours:
        ours.settimeout(2 * _TIMEOUT)
        ours.connect(_NAME.format(uid=uid, pid=pid))
        data = b""
        while part := ours.recv(1 << 16):
            data += part
        told = json.loads(data)
        return told if isinstance(told, dict) else {}
    return {}
