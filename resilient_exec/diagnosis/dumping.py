"""A program's processes with their stacks, and our pools with their lanes: read once, without stopping them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resilient_exec.diagnosis import own, proc, render
from resilient_exec.diagnosis.follow import Follower
from resilient_exec.diagnosis.told import Folder, frames_of
from resilient_exec.process import door

if TYPE_CHECKING:
    from resilient_exec.diagnosis.facts import Scene, Thread

__all__ = ["dump", "pools_here"]


def pools_here(uid: int | None) -> list[str]:
    """The programs on this machine that have a ResilientPool at work, a line each and one for each of their pools."""
    lines = []
    for pid in door.doors(uid):
        process = proc.glance(pid)
        if process is None:
            continue
        told = door.ask(pid, _owner(pid))
        lines.append(f"{pid}  {' '.join(process.command)[:120]}")
        lines += [f"    {pool['text'].splitlines()[0]}" for pool in told.get("pools", ())]
        if not told:
            lines.append("    it does not answer: stopped, or something holds its GIL")
    return lines


def _owner(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return -1


def dump(pid: int) -> tuple[str, bool]:
    """The text, and whether any stack is in it."""
    follower = Follower(pid, _folder_of(pid))
    scene = follower.look()
    if scene is None:
        return f"process {pid} has ended", False
    scene = follower.with_stacks(scene)
    lines, answers = [], {}
    for process in scene.processes:
        if told := door.ask(process.pid, _owner(process.pid)):
            answers[process.pid] = told
            lines += _pools(told)
    scene = scene.with_(processes=tuple(_with_answer(process, answers.get(process.pid)) for process in scene.processes))
    lines += [f"{pool.kind} in process {pool.pid}: {pool.text()}" for pool in scene.pools]
    lines += render.stacks(scene)
    lines += [f"not known: {text}" for text in _unknown(scene, answers)]
    is_known = any(thread.frames for process in scene.processes for thread in process.threads)
    return "\n".join(lines), is_known


def _folder_of(pid: int) -> Folder | None:
    """Of the watch under which the program runs, if it does: its probes answer us as well."""
    for word in proc.environment(pid):
        if word.startswith("RESILIENT_WATCH="):
            given = word.partition("=")[2].rsplit("|", 2)
            if len(given) == 3 and Path(given[0]).is_dir():
                return Folder(Path(given[0]), float(given[1]))
    return None


def _with_answer(process: Any, told: dict[str, Any] | None) -> Any:
    """With the stacks that it has told itself, where they were not known otherwise."""
    if told is None or any(thread.frames for thread in process.threads):
        return process
    found: dict[int, Thread] = {thread["tid"]: frames_of(thread) for thread in told.get("threads", ())}
    threads = [
        replace(thread, frames=found[thread.tid].frames, name=found[thread.tid].name) if thread.tid in found else thread
        for thread in process.threads
    ]
    return replace(process, threads=tuple(threads))


def _unknown(scene: Scene, answers: dict[int, Any]) -> list[str]:
    return [
        text
        for text in scene.unknown
        if not text.startswith("the futures of its pools") and not any(f" {pid} " in text for pid in answers)
    ]


def _pools(told: dict[str, Any]) -> list[str]:
    lines = []
    for pool in told.get("pools", ()):
        first, *lanes = pool["text"].splitlines()
        lines.append(f"ResilientPool in process {told['pid']}: {first}")
        for text, lane in zip(lanes, pool["lanes"], strict=False):
            lines.append(f"  {text}")
            if lane["pid"] and lane["attempt"]:
                if said := own.note(lane["pid"]):
                    lines.append(f"    last note: {said}")
                lines += [f"    printed: {line}" for line in own.last_lines(lane["pid"])]
    return lines
