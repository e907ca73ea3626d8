"""What is secured about an attempt that failed."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NO_EVIDENCE", "Evidence"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the lane has secured about an attempt that failed; plain values, so that it can be stored.

    Attributes:
        stacks: Python stacks of all threads of the worker, taken just before it was killed.
        stdout, stderr: the last lines that the attempt printed (where output is captured).
        memory: ``(seconds since it was sent, bytes resident)``, at most a few dozen, of the worker and what it started.
        peak_memory: the most that was seen, in bytes; 0 if it was over before anybody looked.
        traceback: where the task's own exception was raised, as text.
        remark: what else was found out, such as whether the kernel's OOM killer did it.
        note: what the task itself has noted last (``task_context().note``).
    """

    stacks: str = ""
    stdout: str = ""
    stderr: str = ""
    memory: tuple[tuple[float, int], ...] = ()
    peak_memory: int = 0
    traceback: str = ""
    remark: str = ""
    note: str = ""


NO_EVIDENCE = Evidence()
