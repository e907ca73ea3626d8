"""What parent and worker both know of a worker: what it is given at its start, its signals, what its status means.

The parent imports this, and nothing else of a worker that takes its time: see docs/performance.md, *What was tried*.
"""

from __future__ import annotations

import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resilient_exec.worker.preparation import Inherited

__all__ = ["CHANNEL_LOST_STATUS", "SOFT_SIGNAL", "STACKS_SIGNAL", "STATUS_WORDS", "STRAY_STATUS", "Seat"]

CHANNEL_LOST_STATUS = 79  # exit status of a worker whose task closed the pool's own descriptors
STRAY_STATUS = 78  # exit status of a worker in whose own code something of a task's has raised
STATUS_WORDS: dict[int | None, str] = {
    CHANNEL_LOST_STATUS: "the user's code in it closed descriptors that belong to the pool",
    STRAY_STATUS: "a signal handler or a thread that a task left behind raised in the worker's own code",
}
STACKS_SIGNAL = getattr(signal, "SIGUSR1", None)
# One that nobody else is likely to use: SIGUSR2 is some libraries' own.
SOFT_SIGNAL = signal.SIGRTMIN + 7 if hasattr(signal, "SIGRTMIN") else getattr(signal, "SIGUSR2", None)


class Seat:
    """What a worker is given at its start.  Not a dataclass: a forkserver takes 6 ms to import what makes those."""

    def __init__(
        self,
        *,
        channel: Inherited,
        register: Inherited,
        stacks: Inherited,
        parent: int,
        mark: str,
        temporary: str,
        before: Inherited | None,
        output: tuple[Inherited, Inherited] | None,
        captured: bool,
        fresh_locks: bool,
    ) -> None:
        self.channel = channel
        self.register = register
        self.stacks = stacks
        self.parent = parent  # 0: a forkserver, which ends us with the parent, and whose own death we survive
        self.mark = mark  # scratch directories begin with it
        self.temporary = temporary  # the folder where they are looked for when the parent has died
        self.before = before  # what it does before its first attempt: see PickledApart
        self.output = output  # takes the place of stdout and stderr
        self.captured = captured  # in files of their own
        self.fresh_locks = fresh_locks
