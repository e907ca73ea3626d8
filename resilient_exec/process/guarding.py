"""What the guard does (:mod:`.orphan_guard`): waits for the parent's death, and ends what it has left."""

from __future__ import annotations

import signal
import time

from resilient_exec.process.tree import Identity, Watch, end_tree, has_terminal, marked, send_signal, state
from resilient_exec.wire.scratch import remove_all

__all__ = ["guard"]

_SWEEP_TIMEOUT = 3.0  # s for one sweep
_SWEEPS = 20  # at most, with a pause between: what is just being started shows its mark a moment later
_PAUSE = 0.05  # s
_WATCH_INTERVAL = 1.0  # s, where there is no pidfd
_LOOK_INTERVAL = 0.25  # s, between two looks whether the parent is stopped
_STOP_ROUNDS = 5  # of looking for what was started while others were being stopped


def guard(pid: int, started: float, mark: str, folder: str) -> None:
    """Wait for the death of a process, then end what bears its mark.

    Args:
        pid: of that process.
        started: when it began, as :class:`.tree.Identity` has it.
        mark: with what the marks of its workers and the names of its scratch directories begin.
        folder: where those are.
    """
    _wait_for_death(pid, started, mark)
    _sweep(mark)
    remove_all(folder, mark)


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
