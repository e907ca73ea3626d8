"""The negmas forms of a cause: which tournament it is, how far it is, and the command that goes on."""

from __future__ import annotations

import re
import shlex
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
    again = f"run the same tournament on a pool that does not stop: resilient-exec run {_command(scene)}"
    remedy = (*_go_on(frames), again, *cause.remedy)
    return replace(cause, evidence=tuple(evidence), remedy=remedy)


def _path(frames: list[Frame]) -> str | None:
    return next((frame.path for frame in frames if frame.path), None)


def _where(frames: list[Frame]) -> str:
    path = _path(frames)
    return f" in {path}" if path else ""


def _go_on(frames: list[Frame]) -> tuple[str, ...]:
    """How the worlds that are done are kept: known for tournaments that were begun by a function of scml."""
    path = _path(frames)
    track = next((found[1] for frame in frames if (found := re.fullmatch(r"anac2024_(std|oneshot)", frame.name))), None)
    if path is None or track is None:
        return ()
    folder = shlex.quote(path.rstrip("/").rpartition("/")[0] or "/")
    command = f"resilient-exec scml {track} --resume --output {folder}"
    return (f"end the program, and go on with the worlds that are not done: {command}",)


def _command(scene: Scene) -> str:
    """The program's script or module with its arguments."""
    root = scene.process(scene.root)
    words = list(root.command) if root is not None else []
    script = next((at for at, word in enumerate(words) if word.endswith(".py")), None)
    begin = words.index("-m") if "-m" in words else script
    return shlex.join(words[begin:]) if begin is not None else "SCRIPT.py"
