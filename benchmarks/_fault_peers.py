"""The pools that `fault_matrix.py` compares, behind the same interface; it runs in the peer's own environment.

Each pool is used as its documentation recommends, with its default start method, and with a time limit for each task
if it has an argument for that.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

WORKERS = 2


@dataclass
class Settings:
    """What a pool is made with.

    Attributes:
        limit: seconds for each task.
        memory_limit: bytes for each worker; None: no limit.
        initializer: called in each worker; None: none.
        initargs: its arguments.
    """

    limit: float
    memory_limit: int | None
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]


class Pool(Protocol):
    """The interface of each pool."""

    def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Submit a call; returns a handle of it."""

    def outcome(self, handle: Any) -> Any:
        """Wait for a call; returns its value, or raises its error."""

    def close(self) -> None:
        """Wait for all calls and end the pool, as its documentation recommends."""


def _initializing(settings: Settings) -> dict[str, Any]:
    return {"initializer": settings.initializer, "initargs": settings.initargs} if settings.initializer else {}


class OfFutures:
    """A pool that is a `concurrent.futures.Executor`, without a limit for a task."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
        """See `Pool`."""
        return self.pool.submit(fn, *args)

    def outcome(self, handle: Any) -> Any:
        """See `Pool`."""
        return handle.result()

    def close(self) -> None:
        """See `Pool`."""
        self.pool.shutdown()


class Deadpool(OfFutures):
    """Deadpool takes the limit as an argument of `submit`."""

    def __init__(self, settings: Settings) -> None:
        memory = {"max_worker_memory_bytes": settings.memory_limit} if settings.memory_limit else {}
        module = importlib.import_module("deadpool")
        super().__init__(module.Deadpool(max_workers=WORKERS, **memory, **_initializing(settings)))
        self.limit = settings.limit

    def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
        """See `Pool`."""
        return self.pool.submit(fn, *args, deadpool_timeout=self.limit)


class Pebble(OfFutures):
    """Pebble takes the limit as an argument of `schedule`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(importlib.import_module("pebble").ProcessPool(WORKERS, **_initializing(settings)))
        self.limit = settings.limit

    def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
        """See `Pool`."""
        return self.pool.schedule(fn, args=args, timeout=self.limit)

    def close(self) -> None:
        """See `Pool`."""
        self.pool.close()
        self.pool.join()


class Billiard:
    """Billiard takes the limit as an argument of the pool, and the time after which a lost worker is reported."""

    def __init__(self, settings: Settings) -> None:
        pool = importlib.import_module("billiard.pool").Pool
        self.pool = pool(WORKERS, timeout=settings.limit, lost_worker_timeout=0.5, **_initializing(settings))

    def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
        """See `Pool`."""
        return self.pool.apply_async(fn, args)

    def outcome(self, handle: Any) -> Any:
        """See `Pool`. Billiard wraps exceptions of its own threads."""
        try:
            return handle.get()
        except Exception as error:
            raise getattr(error, "exc", error) from None

    def close(self) -> None:
        """See `Pool`."""
        self.pool.close()
        self.pool.join()


class Mpire:
    """mpire takes the limits and the initializer as arguments of `apply_async`."""

    def __init__(self, settings: Settings) -> None:
        self.pool = importlib.import_module("mpire").WorkerPool(n_jobs=WORKERS)
        self.settings = settings

    def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
        """See `Pool`."""
        given: dict[str, Any] = {"task_timeout": self.settings.limit}
        if self.settings.initializer:
            given |= {"worker_init": _Initializer(self.settings), "worker_init_timeout": self.settings.limit}
        return self.pool.apply_async(fn, args, **given)

    def outcome(self, handle: Any) -> Any:
        """See `Pool`."""
        return handle.get()

    def close(self) -> None:
        """See `Pool`."""
        self.pool.stop_and_join()


class _Initializer:
    """The initializer with its arguments, since mpire calls its `worker_init` without any."""

    def __init__(self, settings: Settings) -> None:
        self.call = (settings.initializer, settings.initargs)

    def __call__(self) -> None:
        fn, args = self.call
        if fn is not None:
            fn(*args)


class Joblib:
    """joblib has no `submit`: all calls that are submitted before the first wait are one call of `Parallel`."""

    def __init__(self, settings: Settings) -> None:
        self.joblib = importlib.import_module("joblib")
        self.settings = settings
        self.waiting: list[dict[str, Any]] = []

    def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
        """See `Pool`."""
        handle = {"call": self.joblib.delayed(fn)(*args)}
        self.waiting.append(handle)
        return handle

    def outcome(self, handle: Any) -> Any:
        """See `Pool`."""
        if self.waiting:
            batch, self.waiting = self.waiting, []
            parallel = self.joblib.Parallel(WORKERS, timeout=self.settings.limit, **_initializing(self.settings))
            try:
                for one, value in zip(batch, parallel(one["call"] for one in batch), strict=True):
                    one["value"] = value
            except BaseException as error:
                for one in batch:
                    one["error"] = error
        if "error" in handle:
            raise handle["error"]
        return handle["value"]

    def close(self) -> None:
        """See `Pool`."""
        importlib.import_module("joblib.externals.loky").get_reusable_executor().shutdown()


def _ours(settings: Settings) -> OfFutures:
    pool = importlib.import_module("resilient_exec").ResilientPool
    memory = {"memory_limit": settings.memory_limit} if settings.memory_limit else {}
    # The start of a worker has a separate limit, of two minutes by default.
    return OfFutures(
        pool(WORKERS, timeout=settings.limit, start_timeout=2, retry=1, **memory, **_initializing(settings))
    )


def _stdlib(settings: Settings) -> OfFutures:
    return OfFutures(
        importlib.import_module("concurrent.futures").ProcessPoolExecutor(WORKERS, **_initializing(settings))
    )


def _loky(settings: Settings) -> OfFutures:
    return OfFutures(
        importlib.import_module("loky").get_reusable_executor(max_workers=WORKERS, **_initializing(settings))
    )


PEERS: dict[str, Callable[[Settings], Pool]] = {
    "resilient_exec": _ours,
    "deadpool": Deadpool,
    "billiard": Billiard,
    "pebble": Pebble,
    "mpire": Mpire,
    "loky": _loky,
    "stdlib": _stdlib,
    "joblib": Joblib,
}
