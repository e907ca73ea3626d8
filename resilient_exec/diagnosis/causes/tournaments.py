"""The negmas forms of a cause: which tournament it is, how far it is, and the command that goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resilient_exec.diagnosis.cause import Cause
    from resilient_exec.diagnosis.facts import Frame, Scene

__all__ = ["told_of"]


def told_of(cause: Cause, scene: Scene) -> Cause:
    """The cause with what is known of the tournament, if the program holds one."""
    frames = [
        frame
        for process in scene.processes
        for thread in process.threads
        for frame in thread.frames
        if "/negmas/tournaments/" in frame.file or "/scml/" in frame.file
    ]
    pools = [pool for pool in scene.pools if pool.oldest is not None and pool.oldest[0].startswith("negmas.")]
    if not frames and not pools:
        return cause
    what = "negotiations" if any("cartesian" in frame.file for frame in frames) else "worlds"
    pool = max(pools or scene.pools, key=lambda pool: pool.unfinished, default=None)
    evidence = list(cause.evidence)
    counts = f": {pool.done} {what} done, {pool.unfinished} pending" if pool is not None else ""
    evidence.append(f"a negmas tournament{_where(frames)}{counts}")
    return replace(cause, evidence=tuple(evidence), remedy=(_go_on(scene), *cause.remedy))


def _where(frames: list[Frame]) -> str:
    path = next((frame.path for frame in frames if frame.path), None)
    return f" in {path}" if path else ""


def _go_on(scene: Scene) -> str:
    root = scene.process(scene.root)
    words = list(root.command) if root is not None else []
    script = next((at for at, word in enumerate(words) if word.endswith(".py")), None)
    module = words.index("-m") if "-m" in words else None
    if script is not None and module is None:
        return f"run the same tournament on a pool that does not stop: resilient-exec run {' '.join(words[script:])}"
    if module is not None:
        return f"run the same tournament on a pool that does not stop: resilient-exec run {' '.join(words[module:])}"
    return "run the same tournament on a pool that does not stop: resilient-exec run SCRIPT.py"
