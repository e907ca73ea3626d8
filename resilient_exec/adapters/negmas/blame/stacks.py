"""A worker's stacks for people: the thread that ran the world first, without frames of ours, idle threads left out."""

from __future__ import annotations

import os
import re
import sysconfig

__all__ = ["for_people", "users_traceback"]

_CALL = re.compile(r" in (?:run_world_set|_call|run_watched)$")
_OURS = f"{os.sep}resilient_exec{os.sep}"
_STANDARD = tuple(os.path.join(sysconfig.get_paths()[name], "") for name in ("stdlib", "platstdlib"))
_FILE = re.compile(r'^\s*File "(?P<file>.+?)", line \d+')
_INSTALLED = ("site-packages", "dist-packages")


def for_people(stacks: str) -> str:
    """What a reader wants of the stacks of all threads: the one that ran the task, then those that do something."""
    first, others = [], []
    for block in stacks.strip().split("\n\n"):
        head, *frames = block.splitlines() or [""]
        end = next((i for i, frame in enumerate(frames) if _CALL.search(frame)), None)
        kept = [frame for frame in frames[:end] if _OURS not in frame]
        if end is not None:
            first.append("\n".join(["Thread of the task (most recent call first):", *kept]))
        elif any(_is_somebodys(frame) for frame in kept):
            others.append("\n".join([head, *kept]))
    return "\n\n".join(first + others)


def _is_somebodys(frame: str) -> bool:
    """Whether a frame is neither the standard library's nor ours: a thread of nothing else waits."""
    found = _FILE.match(frame)
    if found is None:
        return False
    path = found["file"]
    in_library = path.startswith(_STANDARD) and not any(part in path for part in _INSTALLED)
    return not in_library and _OURS not in path and not path.startswith("<")


def users_traceback(text: str) -> str:
    """A traceback from the worker without the frames of ours at its beginning."""
    lines = text.splitlines()
    kept, skipping = [], False
    for line in lines:
        if _FILE.match(line):
            skipping = _OURS in line
        elif not line.startswith("    "):
            skipping = False
        if not skipping:
            kept.append(line)
    return "\n".join(kept)
