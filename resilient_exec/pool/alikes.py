"""Which tasks may go in one bundle with the last one: those of the same function and options, with plain arguments.

The function goes by its name, and is pickled once; the arguments are numbers and short texts, which nobody can change
before they are sent.  A task with a key, a soft timeout or anything else of its own goes by itself.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from resilient_exec.pool.options import UNSET
from resilient_exec.supervisor.alike import Alike
from resilient_exec.wire.payload import by_name, may_go_with_others, pack_by_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from resilient_exec.pool.task_options import Options
    from resilient_exec.wire.script import Script

__all__ = ["Alikes"]


class Alikes:
    """What the last task of a pool was made with.  ``wanted``: whether tasks of this pool may go in bundles at all."""

    def __init__(self, script: Script | None, *, wanted: bool) -> None:
        self._script, self._wanted = script, wanted
        self._last: Alike | None = None

    def find(
        self, options: Options, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Alike | None:
        """What this task has in common with the last one; ``None``: they do not go together."""
        last = self._last
        if last is None or last.fn is not fn or last.options is not options or not may_go_with_others(args, kwargs):
            return None
        return last

    def note(self, options: Options, fn: Callable[..., Any], label: str) -> None:
        """This is the last one, which goes by itself; the next ones may go together if they are like it."""
        is_by_itself = options.key is not UNSET or options.soft_timeout is not None or options.is_timed
        if not self._wanted or is_by_itself:
            return
        head = by_name(fn, self._script)
        if head is not None:
            call = partial(pack_by_name, fn, head)
            self._last = Alike(fn, head, options, label, options.retry.total, call, options.task)
