"""Reads what the probes in a watched program have written to the watcher's folder."""

from __future__ import annotations

import ast
import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

from resilient_exec.diagnosis.facts import Frame, Lock, Pool, Thread

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Folder", "frames_of"]

_POLL = 0.01  # s
_PLAIN = {"kind", "done", "running", "pending", "cancelled", "max_workers", "max_tasks", "method", "workers", "threads"}


class Folder:
    """The folder of one watch: its probes write there, and are asked there."""

    def __init__(self, path: Path, interval: float) -> None:
        self.path, self.interval = path, interval
        self._asked = 0
        (path / "stacks").touch(0o600)
        (path / "ask").touch(0o600)

    def read(self, pid: int, kind: str) -> dict[str, Any]:
        """Read what the process has told last; empty: nothing."""
        with contextlib.suppress(OSError, ValueError, SyntaxError):
            value = ast.literal_eval((self.path / f"{pid}.{kind}").read_text(encoding="utf-8", errors="replace"))
            return value if isinstance(value, dict) else {}
        return {}

    def pools(self, pid: int) -> tuple[Pool, ...]:
        """The pools of a process."""
        state = self.read(pid, "state")
        pools = [told for told in state.get("pools", ()) if "error" not in told]
        cancelled = state.get("cancelled", 0)
        found = []
        for told in pools:
            more = {name: value for name, value in told.items() if name not in _PLAIN | {"oldest", "id"}}
            plain: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in told.items()
                if name in _PLAIN
            }
            oldest = told.get("oldest")
            pool = Pool(pid=pid, identity=told.get("id", 0), oldest=oldest, more=more, **plain)
            found.append(pool)
        executors = [at for at, pool in enumerate(found) if pool.kind.endswith("Executor") or pool.kind == "loky"]
        if cancelled and len(executors) == 1:  # whose they were is known only if there is one
            from dataclasses import replace

            pool = found[executors[0]]
            # Those that its table does not show: still in the queue of a thread pool, or taken out and dropped.
            unseen = max(0, cancelled - pool.cancelled)
            queued = min(unseen, pool.pending) if pool.kind == "ThreadPoolExecutor" else 0
            done = None if pool.done is None else max(0, pool.done - (unseen - queued))
            found[executors[0]] = replace(pool, cancelled=cancelled, done=done, pending=pool.pending - queued)
        return tuple(found)

    def problems(self, pid: int) -> list[str]:
        """Return what the probe in that process could not read."""
        state = self.read(pid, "state")
        texts = [
            f"a {told['kind']} of process {pid}: {told['error']}" for told in state.get("pools", ()) if "error" in told
        ]
        error = self.read(pid, "error")
        return texts + ([f"the probe in process {pid} has ended: {error['error']}"] if error else [])

    def heard_at(self, pid: int) -> float | None:
        """When its thread was last heard, on the monotonic clock; ``None``: it has none."""
        at = self.read(pid, "state").get("at")
        return float(at) if at is not None else None

    def own_thread(self, pid: int) -> int:
        """The number of the probe's own thread there; 0: it has none."""
        return int(self.read(pid, "state").get("tid", 0))

    def forget(self, pid: int) -> None:
        """Remove what a process that is no more has written."""
        for kind in ("hello", "state", "error", "died"):
            with contextlib.suppress(OSError):
                (self.path / f"{pid}.{kind}").unlink()

    def fresh_deaths(self) -> list[dict[str, Any]]:
        """What processes have said of their end since this was asked last; told once."""
        found = [self.read(int(path.name.partition(".")[0]), "died") for path in self.path.glob("*.died")]
        for words in found:
            if words:
                self.forget(words["pid"])
        return [words for words in found if words]

    def written(self, pid: int) -> int:
        """Bytes that the probe itself has written."""
        return int(self.read(pid, "state").get("written", 0))

    def ask(self) -> int:
        """Ask all probes for the stacks of their threads; the number that their answers carry."""
        os.utime(self.path / "ask")
        self._asked = (self.path / "ask").stat().st_mtime_ns
        return self._asked

    def has_answered(self, pid: int, asked: int) -> bool:
        """Whether the process has told something since it was asked."""
        return bool(self.read(pid, "state").get("heard", 0) >= asked)

    def threads(self, pid: int, asked: int, timeout: float) -> dict[int, Thread] | None:
        """The threads by number, as that probe tells them within ``timeout`` s; ``None``: it does not answer."""
        deadline = time.monotonic() + timeout
        while True:
            state = self.read(pid, "state")
            if not state:
                return None
            if state.get("answers") == asked:
                return {thread.tid: thread for thread in map(frames_of, state["threads"])}
            if time.monotonic() >= deadline:
                return None
            time.sleep(_POLL)


def frames_of(told: dict[str, Any]) -> Thread:
    """A thread as a probe tells it: numbers, name, frames with or without what else is known of them."""
    frames = tuple(_frame(*frame) for frame in told["frames"])
    return Thread(tid=told["tid"] or 0, name=told["name"] or "", frames=frames, ident=told["ident"])


def _frame(file: str, line: int, function: str, more: dict[str, Any] | None = None) -> Frame:
    more = more or {}
    locks = tuple(Lock(*lock) for lock in more.get("locks", ()))
    column, future = more.get("column"), more.get("future")
    return Frame(file, line, function, locks, future, more.get("timeout"), "timeout" in more, more.get("path"), column)
