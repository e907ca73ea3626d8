"""Processes that begin at the same moment, so that what strikes the machine meanwhile strikes all of them."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

K = TypeVar("K")


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


def at_once(sides: dict[K, tuple[BaseProcess, Connection]]) -> dict[K, Any]:
    """Let them begin, and take what each sends at its end."""
    for _, near in sides.values():
        near.recv()
    for _, near in sides.values():
        near.send("begin")
    told = {key: near.recv() for key, (_, near) in sides.items()}
    for process, _ in sides.values():
        process.join()
    return told
