"""What cancels the code around a pool: an exception that leaves its ``with`` block to end at once.

asyncio answers the first Ctrl-C by cancelling the main task, and raises no ``KeyboardInterrupt``.  Neither asyncio nor
trio is imported here.
"""

from __future__ import annotations

import sys

from resilient_exec.model.errors import SoftTimeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["cancelling_task", "cancels"]


def cancels(exception: type[BaseException] | None) -> bool:
    """Whether code that is left by an exception of that type was cancelled, and is not to wait for what still runs."""
    if exception is None:
        return False
    kinds: list[type[BaseException]] = [KeyboardInterrupt, SoftTimeout]
    for module, name in (("asyncio", "CancelledError"), ("trio", "Cancelled")):
        kind = getattr(sys.modules.get(module), name, None)
        if isinstance(kind, type) and issubclass(kind, BaseException):
            kinds.append(kind)
    return issubclass(exception, tuple(kinds))


def cancelling_task() -> Any:
    """The asyncio task that runs this code; ``None``: none does.

    Its ``cancelling()`` is more than 0 when it has been cancelled, of which it hears only when it awaits something.
    """
    asyncio: Any = sys.modules.get("asyncio")
    try:
        return asyncio.current_task() if asyncio is not None else None
    except (RuntimeError, AttributeError):  # no loop runs in this thread; or it is not all there yet
        return None
