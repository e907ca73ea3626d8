"""The evidence about a task, attempt by attempt: outcome, stacks, last output, memory.

A dossier is computed from the task's story alone, so it can also be computed from a stored story.  A traceback shows
``str(dossier)`` below the error's message.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from resilient_exec.model.events import ENDS
from resilient_exec.model.exit_status import signal_name
from resilient_exec.model.summary import named

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from resilient_exec.model.events import Event

__all__ = ["AttemptReport", "Dossier", "as_html", "reason", "users_frames"]

_WORKER_MODULE = os.path.join("resilient_exec", "worker", "serving.py")
_MAX_LINES = 40  # of each text when rendered; the dossier's attributes hold the whole text
_MAX_LINE_LENGTH = 500  # characters, when rendered


@dataclass(frozen=True)
class AttemptReport:
    """What is known about one attempt.

    Attributes:
        number: 1 for the first attempt that began; 0 for an attempt that never began.
        outcome: ``returned raised died timed_out out_of_memory evicted killed outrun not_sent lost``; ``""``: still
            running.
        reason: the outcome in words.
        lane: the lane's number.
        pid: of the worker.
        started: when the attempt began, in seconds since the pool was made.
        duration: seconds from the attempt's begin to its end.
        exitcode: of the worker, if it died; negative for a signal.
        signal: that signal's name, such as ``"SIGSEGV"``.
        stacks: Python stacks of all threads of the worker, taken just before it was killed.
        stdout, stderr: the last lines that the attempt printed, with ``output="capture"``.
        memory: samples ``(seconds since it was sent, bytes resident)`` of the worker and its descendants.
        peak_memory: the largest sample, in bytes; 0 if the attempt ended before the first sample.
        traceback: where the task's own exception was raised, as text.
        remark: other findings, such as whether the kernel's OOM killer ended the worker.
        note: the last ``task_context().note(...)`` of the task; not kept for attempts that returned.
    """

    number: int
    outcome: str = ""
    reason: str = "still running"
    lane: int | None = None
    pid: int | None = None
    started: float = 0.0
    duration: float = 0.0
    exitcode: int | None = None
    signal: str | None = None
    stacks: str = ""
    stdout: str = ""
    stderr: str = ""
    memory: Sequence[tuple[float, int]] = ()
    peak_memory: int = 0
    traceback: str = ""
    remark: str = ""
    note: str = ""

    def __str__(self) -> str:
        where = f", worker {self.pid}" if self.pid is not None else ""
        began = f"began at {self.started:.3f} s, " if self.number else ""
        lines = [f"attempt {self.number}: {self.reason} ({began}lasted {self.duration:.3g} s{where})"]
        if self.remark:
            lines.append(f"  {self.remark}")
        if self.note:
            lines.append(f"  the task noted last: {self.note[:_MAX_LINE_LENGTH]}")
        if self.peak_memory:
            samples = ", ".join(f"{size / 2**20:.0f} at {at:.1f} s" for at, size in self.memory[-5:])
            lines.append(f"  memory: at most {self.peak_memory / 2**20:.0f} MiB" + (f" ({samples})" if samples else ""))
        for name, text in (
            ("stacks just before the kill", users_frames(self.stacks)),
            ("traceback", self.traceback),
            ("last lines of stdout", self.stdout),
            ("last lines of stderr", self.stderr),
        ):
            if text.strip():
                lines += [f"  {name}:", _block(text)]
        return "\n".join(lines)


@dataclass(frozen=True)
class Dossier:
    """All that is known about one task.

    Attributes:
        key: the task's key.
        label: the task's name for people.
        arguments: a short text about its arguments, made without running code of theirs.
        attempts: the reports of its attempts, in the order in which they began.
    """

    key: Hashable
    label: str = ""
    arguments: str = ""
    attempts: tuple[AttemptReport, ...] = ()

    @classmethod
    def of(cls, key: Hashable, label: str, arguments: str, story: Iterable[Event]) -> Dossier:
        """The dossier of a task, from its events so far."""
        return cls(key, label, arguments, tuple(sorted(_reports(story), key=lambda one: one.started)))

    def __str__(self) -> str:
        return "\n".join([self._head(), *map(str, self.attempts)])

    def _head(self) -> str:
        return f"dossier of task {named(self.key)}: {self.label}({self.arguments})"

    def _repr_html_(self) -> str:
        """What a notebook shows: a line for each attempt, which opens on what is known about it."""
        attempts = []
        for attempt in self.attempts:
            line, _, rest = str(attempt).partition("\n")
            attempts.append(f"<details><summary>{as_html(line)}</summary><pre>{as_html(rest)}</pre></details>")
        return f"<div><code>{as_html(self._head())}</code>{''.join(attempts)}</div>"


def as_html(text: str) -> str:
    """The text with its markup escaped."""
    from html import escape  # few dossiers are shown in a notebook

    return escape(text)


def users_frames(stacks: str) -> str:
    """The stacks of a worker without the outer frames, which belong to this package and are the same for every task.

    The frames of a block stand innermost first; what follows the worker's ``_call`` is left out.
    """
    blocks = stacks.split("\n\n")
    return "\n\n".join("\n".join(takewhile(_is_inside_the_call, block.splitlines())) for block in blocks)


def _is_inside_the_call(line: str) -> bool:
    return not (line.endswith(" in _call") and _WORKER_MODULE in line)


def _block(text: str) -> str:
    lines = text.rstrip().splitlines()
    cut = [f"[{len(lines) - _MAX_LINES} lines before these are in the dossier]"] if len(lines) > _MAX_LINES else []
    return "\n".join(f"    | {line[:_MAX_LINE_LENGTH]}" for line in [*cut, *lines[-_MAX_LINES:]])


def _reports(story: Iterable[Event]) -> Iterable[AttemptReport]:
    sent: dict[int, Event] = {}  # by attempt: two may run at once
    begun: dict[int, Event] = {}
    for event in story:
        if event.kind == "sent":
            sent[event.attempt] = event
        elif event.kind == "begun":
            begun[event.attempt] = event
        elif event.kind in ENDS and event.attempt in sent:
            yield _report(sent.pop(event.attempt), begun.pop(event.attempt, None), event)
    for one in begun.values():
        yield AttemptReport(one.attempt, lane=one.lane, pid=one.detail.get("pid"), started=one.at)


def _report(sent: Event, begun: Event | None, end: Event) -> AttemptReport:
    start, evidence = begun or sent, end.evidence
    exitcode = end.detail.get("exitcode")
    return AttemptReport(
        number=end.attempt if begun is not None else 0,
        outcome=end.kind,
        reason=reason(end.kind, end.detail),
        lane=sent.lane,
        pid=start.detail.get("pid", end.detail.get("pid")),
        started=start.at,
        duration=end.at - start.at,
        exitcode=exitcode,
        signal=signal_name(exitcode),
        stacks=evidence.stacks,
        stdout=evidence.stdout,
        stderr=evidence.stderr,
        memory=evidence.memory,
        peak_memory=evidence.peak_memory,
        traceback=evidence.traceback,
        remark=evidence.remark,
        note=evidence.note,
    )


def reason(kind: str, detail: Mapping[str, Any]) -> str:
    """An outcome in words: what happened to the attempt.

    Args:
        kind: the kind of the event, such as ``"died"``.
        detail: the event's detail (:func:`resilient_exec.model.task.detail_of`).
    """
    worker = f"its worker (pid {detail.get('pid')})"
    limit = detail.get("limit", 0)
    match kind:
        case "raised":
            return f"raised {detail['exception']}"
        case "died":
            return f"failed because {worker} {_death(detail)}"
        case "timed_out":
            return _timeout(detail["what"], limit, worker)
        case "out_of_memory":
            used = detail["used"] / 2**20
            return f"held {used:.0f} MiB, more than its memory_limit of {limit / 2**20:.0f} MiB; {worker} was killed"
        case "evicted":
            return f"was evicted to free memory for other attempts: {detail['why']}; {worker} was killed"
        case "killed":
            return f"was ended by {detail['why']}"
        case "outrun":
            return f"was outrun: {detail['why']}; {worker} was killed"
        case "lost":
            return f"never began: its worker was lost before that ({detail['why']})"
        case "not_sent":
            return str(detail["why"])
    return kind


def _timeout(what: str, limit: float, worker: str) -> str:
    if what == "stall_timeout":
        return f"used no CPU and did no I/O for {limit:.3g} s; {worker} was killed"
    if what == "soft_timeout":
        return f"ended with the SoftTimeout that was raised in it after its soft_timeout of {limit:g} s"
    return f"was still running after its timeout of {limit:g} s; {worker} was killed"


def _death(detail: Mapping[str, Any]) -> str:
    exitcode, why = detail.get("exitcode"), detail.get("why")
    how = signal_name(exitcode)
    if how is not None:
        text = f"was killed by {how}"
    elif exitcode is not None:
        text = f"exited with status {exitcode}"
    else:
        text = "ended with an unknown exit status"
    return f"{text}: {why}" if why else text
