"""The pool in place of the standard library's process pool and of joblib's, for scripts that are run unchanged."""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.process
import functools
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Use", "count_stock_pools", "put_in_place"]


class Use:
    """How many pools a script has made.

    Attributes:
        stock: of the standard library.
        ours: in their place.
    """

    def __init__(self) -> None:
        self.stock = 0
        self.ours = 0

    def count_ours(self) -> None:
        """Count one more task that goes through a pool of ours."""
        self.ours += 1


def count_stock_pools(use: Use) -> None:
    """Count each ``ProcessPoolExecutor`` that is made from now on; it works as before."""
    kind = concurrent.futures.process.ProcessPoolExecutor
    original = kind.__init__

    @functools.wraps(original)
    def counting(self: Any, *args: Any, **kwargs: Any) -> None:
        use.stock += 1
        original(self, *args, **kwargs)

    kind.__init__ = counting  # type: ignore[method-assign]


def put_in_place(options: Mapping[str, Any], use: Use) -> None:
    """Have ``concurrent.futures.ProcessPoolExecutor``, and joblib where it is installed, use the resilient pool.

    Modules that have been imported before keep the class that they have.

    Args:
        options: of the pool; they win over what the script asks for.
        use: is counted up with each pool.
    """
    kind = _executor_class(dict(options), use)
    concurrent.futures.process.ProcessPoolExecutor = kind  # type: ignore[assignment, misc]
    concurrent.futures.ProcessPoolExecutor = kind  # type: ignore[assignment, misc]
    if importlib.util.find_spec("joblib") is not None:
        from resilient_exec.adapters import joblib_backend  # which imports joblib

        joblib_backend.register(options, use.count_ours)


def _executor_class(options: dict[str, Any], use: Use) -> type:
    from resilient_exec import ResilientPool

    class ProcessPoolExecutor(ResilientPool):
        """``concurrent.futures.ProcessPoolExecutor`` on the resilient pool.

        Args:
            max_workers: as there; so are ``initializer`` and ``initargs``.
            mp_context: accepted, and without effect: workers are started as the resilient pool starts them.
            max_tasks_per_child: as there.
        """

        def __init__(
            self,
            max_workers: int | None = None,
            mp_context: Any = None,  # noqa: ARG002  the standard library's signature
            initializer: Callable[..., object] | None = None,
            initargs: tuple[Any, ...] = (),
            *,
            max_tasks_per_child: int | None = None,
        ) -> None:
            use.count_ours()
            asked: dict[str, Any] = {"max_workers": max_workers, "max_tasks_per_worker": max_tasks_per_child}
            super().__init__(initializer=initializer, initargs=tuple(initargs), **{**asked, **options})

    ProcessPoolExecutor.__qualname__ = ProcessPoolExecutor.__name__
    return ProcessPoolExecutor
