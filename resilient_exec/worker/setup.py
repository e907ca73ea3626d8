"""What a pool sets up in each of its workers: it stands in front of the user's initializer, in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilient_exec.worker import context

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["set_up"]


def set_up(seed: int, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
    """Called in each worker, of a pool that has a seed, when it starts."""
    context.set_seed(seed)
    if initializer is not None:
        initializer(*initargs)
