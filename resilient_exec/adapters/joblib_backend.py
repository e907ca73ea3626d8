"""The resilient pool as joblib's backend for processes: one pool for each call of ``Parallel``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from joblib import register_parallel_backend
from joblib.parallel import AutoBatchingMixin, FallbackToBackend, LokyBackend, ParallelBackendBase, SequentialBackend

from resilient_exec.pool.pool import ResilientPool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["register"]


def register(options: Mapping[str, Any], on_pool: Callable[[], None]) -> None:
    """Have joblib's backends ``loky`` (its default) and ``multiprocessing`` use the resilient pool.

    Args:
        options: of the pool; they win over what a call of ``Parallel`` asks for.
        on_pool: is called when a pool is made.
    """

    def make(**how: Any) -> ResilientBackend:
        return ResilientBackend(dict(options), on_pool, **how)

    for name in ("loky", "multiprocessing"):
        register_parallel_backend(name, make)


class ResilientBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """The backend of one ``Parallel``; joblib calls its methods."""

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    effective_n_jobs = LokyBackend.effective_n_jobs

    def __init__(self, options: dict[str, Any], on_pool: Callable[[], None], **how: Any) -> None:
        super().__init__(**how)
        self._options, self._on_pool = options, on_pool
        self._pool: ResilientPool | None = None

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_: Any) -> int:
        """Make the pool; the number of lanes."""
        lanes = int(self.effective_n_jobs(n_jobs))
        if lanes == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        lanes = int(self._options.get("max_workers") or lanes)
        env = {name: str(value) for name, value in self._prepare_worker_env(n_jobs=lanes).items()}
        self._on_pool()
        self._pool = ResilientPool(**{"env": env, **self._options, "max_workers": lanes})
        self.parallel = parallel
        return lanes

    def submit(self, func: Callable[..., Any], callback: Callable[..., Any] | None = None) -> Any:
        """Send a batch of calls."""
        if self._pool is None:
            raise RuntimeError("this call of Parallel has ended; make another one")
        future = self._pool.submit(func)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    apply_async = submit  # its name before joblib 1.5

    def retrieve_result_callback(self, out: Any) -> Any:
        """The results of a batch."""
        return out.result()

    def terminate(self) -> None:
        """The call of ``Parallel`` has ended."""
        self._end(kill=False)
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:  # noqa: FBT001, FBT002  joblib's signature
        """A task has failed: nobody wants the others."""
        self._end(kill=True)
        if ensure_ready:
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel)

    def _end(self, *, kill: bool) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=kill, kill=kill)
