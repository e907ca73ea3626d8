"""Processes that begin at the same moment, so that what strikes the machine meanwhile strikes all of them."""

from __future__ import annotations

import multiprocessing
import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess


def start(target: Callable[..., None], *arguments: Any, **keywords: Any) -> tuple[BaseProcess, Connection]:
    """Have ``target(parent, *arguments, **keywords)`` run in a process of its own; it, and the end to talk to it."""
    spawn = multiprocessing.get_context("spawn")
    near, far = spawn.Pipe()
    process = spawn.Process(target=target, args=(far, *arguments), kwargs=keywords)
    process.start()
    far.close()
    return process, near


def wait_for_the_others(parent: Connection) -> None:
    """In a process of :func:`at_once`: begin together, when all are prepared."""
    parent.send("ready")
    parent.recv()


def at_once(target: Callable[..., None], *arguments: Any, sides: list[dict[str, Any]]) -> list[float]:
    """What each side took: a process of its own, told apart by its keywords, that sends what it took and its scores."""
    running = [start(target, *arguments, **keywords) for keywords in sides]
    for _, near in running:
        near.recv()
    for _, near in running:
        near.send("begin")
    took, scores = zip(*(near.recv() for _, near in running), strict=True)
    for process, _ in running:
        process.join()
    if any(each != scores[0] for each in scores):
        raise SystemExit("the scores differ: the sides have not done the same, and are not comparable")
    return list(took)


def compare(rounds: int, target: Callable[..., None], *arguments: Any, sides: list[dict[str, Any]]) -> None:
    """Print what the two sides took, and the second one's in terms of the first one's, in each round."""
    ratios = []
    for index in range(rounds):
        turn = -1 if index % 2 else 1  # who starts first is another one in each round
        first, second = at_once(target, *arguments, sides=sides[::turn])[::turn]
        ratios.append(second / first)
        print(f"{first:8.3f}{second:8.3f}{ratios[-1]:8.3f}", flush=True)
    print(f"ratio: median {statistics.median(ratios):.4f}, from {min(ratios):.4f} to {max(ratios):.4f}", flush=True)
