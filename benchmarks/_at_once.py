"""Compares processes that run at the same time, so that changes of the machine's speed affect all of them."""

from __future__ import annotations

import multiprocessing
import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess


def start(target: Callable[..., None], *arguments: Any, **keywords: Any) -> tuple[BaseProcess, Connection]:
    """Run ``target(parent, *arguments, **keywords)`` in a process of its own.

    Returns:
        The process, and the connection to it.
    """
    spawn = multiprocessing.get_context("spawn")
    near, far = spawn.Pipe()
    process = spawn.Process(target=target, args=(far, *arguments), kwargs=keywords)
    process.start()
    far.close()
    return process, near


def wait_for_the_others(parent: Connection) -> None:
    """In a process of :func:`at_once`: wait until all of them are prepared."""
    parent.send("ready")
    parent.recv()


def at_once(target: Callable[..., None], *arguments: Any, sides: list[dict[str, Any]]) -> list[float]:
    """What each side took, such as seconds.

    Args:
        target: runs in a process for each side, and sends ``(what it took, scores)``.
        *arguments: of ``target``, equal for all sides.
        sides: the keyword arguments of each side.
    """
    running = [start(target, *arguments, **keywords) for keywords in sides]
    for _, near in running:
        near.recv()
    for _, near in running:
        near.send("begin")
    took, scores = zip(*(near.recv() for _, near in running), strict=True)
    for process, _ in running:
        process.join()
    if any(each != scores[0] for each in scores):
        raise SystemExit("the scores differ, so the sides have not done the same work and cannot be compared")
    return list(took)


def compare(rounds: int, target: Callable[..., None], *arguments: Any, sides: list[dict[str, Any]]) -> None:
    """Print what the two sides took in each round, and the ratio of the second one to the first one."""
    ratios = []
    for index in range(rounds):
        turn = -1 if index % 2 else 1  # the sides start first in turn
        first, second = at_once(target, *arguments, sides=sides[::turn])[::turn]
        ratios.append(second / first)
        print(f"{first:8.3f}{second:8.3f}{ratios[-1]:8.3f}", flush=True)
    print(f"ratio: median {statistics.median(ratios):.4f}, from {min(ratios):.4f} to {max(ratios):.4f}", flush=True)
