"""What a pool sets up in each of its workers: it stands in front of the user's initializer, in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilient_exec.worker import context

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["set_up"]


def set_up(
    seed: int | None,
    forward_logs: Callable[[], object] | None,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
) -> None:
    """Called in each worker when it starts, where the pool has a seed or takes the records of its tasks."""
    if seed is not None:
        context.set_seed(seed)
    if forward_logs is not None:
        forward_logs()
    if initializer is not None:
        initializer(*initargs)
