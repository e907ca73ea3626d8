"""The pools that `speed.py` compares, behind the same interface, each with two workers by default.

Each is used as its documentation recommends, and started by spawn where it can be (as the standard library's
guidelines ask for in a program with threads), unless another safe way is its default: deadpool has a forkserver.
A module that is not installed leaves its sides out.
"""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

WORKERS = 2


class OfFutures:
    """A `concurrent.futures.Executor`, or a pool with the same `submit`."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Submit a call; returns a handle of it."""
        return self.pool.submit(fn, *args)

    def wait(self, handle: Any) -> Any:
        """Wait for a call; returns its value."""
        return handle.result()

    def map(self, fn: Callable[[Any], Any], items: list[Any], chunk: int) -> Iterable[Any]:
        """All values, by the fastest way that the pool has; `chunk` is the chunk size for pools that need one."""
        return self.pool.map(fn, items, chunksize=chunk)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Wait for all calls and end the pool."""
        self.pool.shutdown()


class Ours(OfFutures):
    """This package's pool, which chooses chunk sizes itself."""

    def __init__(self, workers: int, **options: Any) -> None:
        from resilient_exec import ResilientPool

        super().__init__(ResilientPool(workers, **options))

    def map(self, fn: Callable[[Any], Any], items: list[Any], chunk: int) -> Iterable[Any]:
        """See `OfFutures`."""
        del chunk
        return self.pool.map(fn, items, chunksize=None)  # type: ignore[no-any-return]


class Stdlib(OfFutures):
    """`concurrent.futures.ProcessPoolExecutor`, by spawn."""

    def __init__(self, workers: int) -> None:
        from concurrent.futures import ProcessPoolExecutor

        super().__init__(ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")))


class Loky(OfFutures):
    """loky, on which this package is built."""

    def __init__(self, workers: int) -> None:
        super().__init__(importlib.import_module("loky").ProcessPoolExecutor(workers))


class Deadpool(OfFutures):
    """Deadpool with its forkserver, the default; a limit is an argument of `submit`."""

    def __init__(self, workers: int, timeout: float | None = None) -> None:
        super().__init__(importlib.import_module("deadpool").Deadpool(max_workers=workers))
        self.options = {"deadpool_timeout": timeout} if timeout else {}

    def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
        """See `OfFutures`."""
        return self.pool.submit(fn, *args, **self.options)


class Pebble(OfFutures):
    """Pebble with spawn; a limit is an argument of `schedule`."""

    def __init__(self, workers: int, timeout: float | None = None) -> None:
        pool = importlib.import_module("pebble").ProcessPool
        super().__init__(pool(workers, context=multiprocessing.get_context("spawn")))
        self.timeout = timeout

    def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
        """See `OfFutures`."""
        return self.pool.schedule(fn, args=args, timeout=self.timeout)

    def map(self, fn: Callable[[Any], Any], items: list[Any], chunk: int) -> Iterable[Any]:
        """See `OfFutures`."""
        return self.pool.map(fn, items, chunksize=chunk).result()  # type: ignore[no-any-return]

    def close(self) -> None:
        """See `OfFutures`."""
        self.pool.close()
        self.pool.join()


class OldPool:
    """`multiprocessing.Pool` by spawn, and billiard's, which grew out of it."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
        """See `OfFutures`."""
        return self.pool.apply_async(fn, args)

    def wait(self, handle: Any) -> Any:
        """See `OfFutures`."""
        return handle.get()

    def map(self, fn: Callable[[Any], Any], items: list[Any], chunk: int) -> Iterable[Any]:
        """See `OfFutures`."""
        return self.pool.imap_unordered(fn, items, chunksize=chunk)  # type: ignore[no-any-return]

    def close(self) -> None:
        """See `OfFutures`."""
        self.pool.close()
        self.pool.join()


class Mpire(OldPool):
    """mpire with spawn."""

    def __init__(self, workers: int) -> None:
        super().__init__(importlib.import_module("mpire").WorkerPool(n_jobs=workers, start_method="spawn"))

    def map(self, fn: Callable[[Any], Any], items: list[Any], chunk: int) -> Iterable[Any]:
        """See `OfFutures`."""
        return self.pool.imap_unordered(fn, items, chunk_size=chunk)  # type: ignore[no-any-return]

    def close(self) -> None:
        """See `OfFutures`."""
        self.pool.stop_and_join()


class Joblib:
    """joblib has no `submit`: it is compared by its map, with automatic batches."""

    def __init__(self, workers: int) -> None:
        self.joblib = importlib.import_module("joblib")
        self.parallel = self.joblib.Parallel(workers, return_as="generator_unordered").__enter__()

    def map(self, fn: Callable[[Any], Any], items: list[Any], chunk: int) -> Iterable[Any]:
        """See `OfFutures`."""
        del chunk
        call = self.joblib.delayed(fn)
        return self.parallel(call(item) for item in items)  # type: ignore[no-any-return]

    def close(self) -> None:
        """See `OfFutures`."""
        self.parallel.__exit__(None, None, None)
        importlib.import_module("joblib.externals.loky").get_reusable_executor().shutdown()


class Dask(OfFutures):
    """`distributed` with a process for each worker, one thread in each."""

    def __init__(self, workers: int) -> None:
        distributed = importlib.import_module("distributed")
        options = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
        super().__init__(distributed.Client(distributed.LocalCluster(**options)))

    def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
        """See `OfFutures`."""
        return self.pool.submit(fn, *args, pure=False)

    def close(self) -> None:
        """See `OfFutures`."""
        cluster = self.pool.cluster
        self.pool.close()
        cluster.close()


class Ray:
    """Ray with that many CPUs; each remote call is a task."""

    def __init__(self, workers: int) -> None:
        self.ray = importlib.import_module("ray")
        self.ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
        self.remote: dict[Any, Any] = {}

    def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
        """See `OfFutures`."""
        if fn not in self.remote:
            self.remote[fn] = self.ray.remote(fn)
        return self.remote[fn].remote(*args)

    def wait(self, handle: Any) -> Any:
        """See `OfFutures`."""
        return self.ray.get(handle)

    def close(self) -> None:
        """See `OfFutures`."""
        self.ray.shutdown()


@dataclass(frozen=True)
class Side:
    """A pool to compare.

    Attributes:
        make: makes it, with so many workers and such options.
        module: what has to be installed.
        options: what it is made with.
    """

    make: Callable[..., Any]
    module: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def is_installed(self) -> bool:
        """Whether it is installed here."""
        return not self.module or importlib.util.find_spec(self.module) is not None

    def open(self, workers: int = WORKERS) -> Any:
        """The pool."""
        return self.make(workers, **self.options)


def _old(method: str) -> Callable[[int], OldPool]:
    def make(workers: int) -> OldPool:
        library: Any = multiprocessing if method == "multiprocessing" else importlib.import_module("billiard")
        return OldPool(library.get_context("spawn").Pool(workers))

    return make


LIMIT = 60  # s, for pools that support one; it is never reached
OURS = "resilient_exec"
PROTECTED = "resilient_exec, protected"
LEARNED = "resilient_exec, cost learned"
SIDES: dict[str, Side] = {
    OURS: Side(Ours),
    PROTECTED: Side(Ours, options={"timeout": LIMIT, "memory_limit": "4GiB", "output": "capture"}),
    LEARNED: Side(Ours),
    "stdlib": Side(Stdlib),
    "loky": Side(Loky, "loky"),
    "pebble": Side(Pebble, "pebble"),
    "pebble, timeout": Side(Pebble, "pebble", {"timeout": LIMIT}),
    "deadpool": Side(Deadpool, "deadpool"),
    "deadpool, timeout": Side(Deadpool, "deadpool", {"timeout": LIMIT}),
    "mp.Pool": Side(_old("multiprocessing")),
    "mpire": Side(Mpire, "mpire"),
    "billiard": Side(_old("billiard"), "billiard"),
    "joblib": Side(Joblib, "joblib"),
    "dask": Side(Dask, "distributed"),
    "ray": Side(Ray, "ray"),
}
