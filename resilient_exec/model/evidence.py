"""Evidence: what the lane secures about an attempt that failed."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NO_EVIDENCE", "Evidence"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the lane has secured about an attempt that failed; plain values, so that it can be stored.

    Attributes:
        stacks: Python stacks of all threads of the worker, taken just before it was killed.
        stdout, stderr: the last lines that the attempt printed, with ``output="capture"``.
        memory: samples ``(seconds since it was sent, bytes resident)``, at most a few dozen, of the worker and its
            descendants.
        peak_memory: the largest sample, in bytes; 0 if the attempt ended before the first sample.
        traceback: where the task's own exception was raised, as text.
        remark: other findings, such as whether the kernel's OOM killer ended the worker.
        note: the last ``task_context().note(...)`` of the task.
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
