"""Text of what was seen: a line for people, values for JSON, the report of a stall (plain and as Markdown)."""

from __future__ import annotations

import getpass
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resilient_exec.diagnosis.activity import waits
from resilient_exec.diagnosis.facts import describe_function, is_library

if TYPE_CHECKING:
    from resilient_exec.diagnosis.cause import Cause
    from resilient_exec.diagnosis.facts import Frame, Scene, Thread

__all__ = ["Finding", "as_json", "line", "markdown", "plain", "shorten", "stacks"]

_WRITES = ("write", "writev", "sendto", "sendmsg")
_FOLD = 3  # frames of libraries in a row, from which on they are folded


@dataclass(frozen=True)
class Finding:
    """What the examination of a program that does not get on has found.

    ``kind``: ``"stall"`` (with or without a cause), ``"active"`` (it does something), ``"quiet"`` (nothing is known
    to be waited for).
    """

    kind: str
    scene: Scene
    cause: Cause | None = None
    activities: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The finding in one sentence."""
        scene = self.scene
        if self.cause is not None:
            return self.cause.title
        if self.kind == "active":
            return (
                f"no future was done for {scene.still:.0f} s, but the program is at work: {'; '.join(self.activities)}"
            )
        if self.kind == "stall":
            return (
                f"nothing has happened for {scene.idle:.0f} s while {scene.unfinished} tasks are waited for; "
                "the cause is "
                "none of those that are recognised"
            )
        return f"nothing has happened for {scene.idle:.0f} s; nothing is known to be waited for{self._place()}"

    def _place(self) -> str:
        root = self.scene.process(self.scene.root)
        main = root.main if root is not None else None
        if main is None or not main.frames:
            return ""
        return f"; its main thread waits for {waits(main)} in {describe_function(main)}"


def _size(count: int) -> str:
    return f"{count / 2**20:.0f} MiB" if count < 2**30 else f"{count / 2**30:.1f} GiB"


def line(scene: Scene, elapsed: float, load: float, rates: dict[int, float]) -> str:
    """Return one look at the program as a line of text."""
    memory = sum(process.memory for process in scene.processes)
    share = sum(scene.busy.values())
    count = len(scene.processes)
    parts = [
        f"{int(elapsed) // 3600:02d}:{int(elapsed) // 60 % 60:02d}:{int(elapsed) % 60:02d}",
        f"load {load:.1f}, {count} process{'es' if count != 1 else ''}, {share:.0%} of a core, {_size(memory)}",
    ]
    for pool in scene.pools:
        text = f"{pool.kind}: {pool.text()}, {rates.get(pool.identity, 0.0):.1f}/s"
        if pool.oldest is not None:
            text += f", oldest {pool.oldest[0]} {pool.oldest[1]:.0f} s"
        parts.append(text)
    odd = [f"{process.pid} is {_STATES[process.state]}" for process in scene.processes if process.state in _STATES]
    return " | ".join([*parts, *odd])


_STATES = {
    "T": "stopped",
    "t": "stopped by a debugger",
    "Z": "dead, and not waited for",
    "D": "in a wait of the kernel's",
}


def as_json(scene: Scene, elapsed: float, load: float, rates: dict[int, float]) -> dict[str, Any]:
    """Return one look at the program as plain values for JSON."""
    return {
        "elapsed": round(elapsed, 3),
        "load": load,
        "idle": round(scene.idle, 3),
        "still": round(scene.still, 3),
        "pools": [
            {
                "pid": pool.pid,
                "kind": pool.kind,
                "done": pool.done,
                "running": pool.running,
                "pending": pool.pending,
                "cancelled": pool.cancelled,
                "rate": round(rates.get(pool.identity, 0.0), 3),
                "oldest": pool.oldest,
                "max_workers": pool.max_workers,
                "max_tasks": pool.max_tasks,
                "workers": pool.workers,
            }
            for pool in scene.pools
        ],
        "processes": [
            {
                "pid": process.pid,
                "parent": process.parent,
                "what": process.role,
                "state": process.state,
                "cpu": process.cpu,
                "busy": round(scene.busy.get(process.pid, 0.0), 3),
                "memory": process.memory,
                "age": round(process.age, 1),
                "waits_for": waits(process.main) if process.main is not None else None,
                "wchan": process.main.wait.channel if process.main is not None else None,
            }
            for process in scene.processes
        ],
    }


def _frame(frame: Frame) -> str:
    return f'File "{frame.file}", line {frame.line}, in {frame.function}'


def _is_idle(thread: Thread) -> bool:
    """Whether it only waits for work: one of ours, or one in which a library waits, and does not write."""
    if thread.name.startswith("resilient-"):  # the supervisor, lanes, the door
        return True
    is_waiting = thread.state != "R" and thread.wait.call not in _WRITES
    return bool(thread.frames) and is_waiting and all(map(is_library, thread.frames))


def _folded(frames: tuple[Frame, ...]) -> list[str]:
    """The frames, the innermost first; runs of library code in the middle in one line."""
    lines: list[str] = []
    run: list[str] = []
    for at, frame in enumerate(frames):
        if is_library(frame) and at > 1:
            run.append(_frame(frame))
            continue
        lines += run if len(run) < _FOLD else [f"... {len(run)} frames of libraries"]
        run = []
        lines.append(_frame(frame) + (f": {frame.text}" if frame.text else ""))
    return lines + (run if len(run) < _FOLD else [f"... {len(run)} frames of libraries"])


def _interest(thread: Thread) -> tuple[int, int]:
    """The thread to read first: the main one, then those in the program's own code, idle ones last."""
    own = sum(not is_library(frame) for frame in thread.frames)
    return (1 if _is_idle(thread) or not thread.frames else 0, -own)


def stacks(scene: Scene) -> list[str]:
    """Return the stacks of all threads of all processes, parents first."""
    lines = []
    for process in scene.processes:
        lines.append(
            f"process {process.pid}, {process.role or 'process'}: state {process.state}, {process.age:.0f} s old, "
            f"{process.cpu:.1f} s of CPU, {_size(process.memory)}"
        )
        main = process.main
        threads = sorted((thread for thread in process.threads if thread is not main), key=_interest)
        silent = [thread for thread in threads if not thread.frames]
        idle = [thread for thread in threads if thread.frames and _is_idle(thread)]
        for thread in ([main] if main is not None else []) + threads:
            if thread in silent or thread in idle:
                continue
            label = "main thread" if thread is main else f"thread {thread.name or thread.tid}"
            lines.append(f"  {label}: waits for {waits(thread)}" if thread.state != "R" else f"  {label}: runs")
            lines += [f"    {text}" for text in _folded(thread.frames)]
            if not thread.frames:
                lines.append("    its Python stack is not known")
        if idle:
            lines.append(
                f"  {len(idle)} in which libraries wait: "
                f"{', '.join(thread.name or str(thread.tid) for thread in idle[:8])}"
            )
        if silent:
            kinds = ", ".join(sorted({waits(thread) for thread in silent}))
            lines.append(f"  {len(silent)} without a Python stack, which wait for: {kinds}")
    return lines


def _sections(finding: Finding) -> list[tuple[str, list[str]]]:
    scene, cause = finding.scene, finding.cause
    found: list[tuple[str, list[str]]] = []
    if cause is not None:
        found += [("Evidence", [*cause.evidence]), ("What to do", [*cause.remedy])]
    elif finding.activities:
        found.append(("What it does", list(finding.activities)))
    pools = [f"{pool.kind} in process {pool.pid}: {pool.text()}" + _oldest(pool.oldest) for pool in scene.pools]
    found.append(("Pools", pools or ["none is known"]))
    if scene.deaths:
        from resilient_exec.diagnosis.causes.deaths import how

        found.append(("Processes that have died", [how(death) for death in scene.deaths[-10:]]))
    if scene.unknown:
        found.append(("What could not be found out", list(scene.unknown)))
    return found


def _oldest(oldest: tuple[str, float] | None) -> str:
    return f"; the oldest, {oldest[0]}, for {oldest[1]:.0f} s" if oldest is not None else ""


def _head(finding: Finding) -> str:
    words = {"stall": "STALL", "active": "no stall", "quiet": "quiet"}
    name = f" [{finding.cause.name}]" if finding.cause is not None else ""
    return f"{words[finding.kind]}{name}: {finding.sentence}"


def plain(finding: Finding) -> str:
    """The report for a terminal."""
    lines = [_head(finding)]
    for title, texts in _sections(finding):
        lines += [f"  {title}:", *(f"    - {text}" for text in texts)]
    return "\n".join([*lines, "  Stacks, innermost frame first:", *(f"    {text}" for text in stacks(finding.scene))])


def markdown(finding: Finding, context: list[str]) -> str:
    """The report for an issue; personal paths are shortened."""
    lines = [f"## {_head(finding)}", "", *(f"- {text}" for text in context)]
    for title, texts in _sections(finding):
        lines += ["", f"### {title}", "", *(f"- {text}" for text in texts)]
    lines += ["", "### Stacks, innermost frame first", "", "```text", *stacks(finding.scene), "```", ""]
    return shorten("\n".join(lines))


def shorten(text: str) -> str:
    """Without what is personal in paths: the home folder is ``~``, installed packages begin at their name."""
    home = os.path.expanduser("~")
    text = re.sub(r"(?<![\w.])/[^\s\"':]*/(site-packages|dist-packages)/", r".../\1/", text)
    text = re.sub(r"(?<![\w.])/[^\s\"':]*/lib/(python3\.\d+)/", r".../\1/", text)
    if len(home) > 1:
        text = text.replace(home + "/", "~/")
    text = re.sub(r"/(home|Users)/[^/\s\"':]+", r"/\1/USER", text)
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):
        user = ""
    return (
        re.sub(rf"/(tmp|run/user)/[^\s\"':]*\b{re.escape(user)}\b", r"/\1/USER", text)
        if user and user != "root"
        else text
    )
