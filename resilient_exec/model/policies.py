"""Retry policies: whether a failed task gets another attempt, and after how many seconds.

Each cause of failure has a separate budget, so that failures of one cause do not use up the attempts of
another.  With the defaults, a task that dies, dies, times out and dies again is settled with ``WorkerDied``
after four attempts, because the third death exceeds the budget of two.

The delay, the stop condition and the choice among the user's exceptions are tenacity's strategies.  They are
evaluated on a ``RetryCallState`` that is built here; tenacity's own loop, which sleeps, is not used.

tenacity's random strategies draw from the global ``random``, which would change a seeded simulation in this
process.  So in a thread that evaluates one they draw from a generator of their own instead, which is seeded
from the task's key and attempt.  The default strategy below uses no generator at all.
"""

from __future__ import annotations

import importlib
import logging
import math
import threading
from dataclasses import dataclass, field
from numbers import Integral
from typing import TYPE_CHECKING, Any, Protocol

from resilient_exec.model.packed import Packed
from resilient_exec.model.summary import named

try:
    from _blake2 import blake2b  # where hashlib has it from, which takes 3 ms to import OpenSSL besides
except ImportError:
    from hashlib import blake2b

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tenacity import RetryCallState

    from resilient_exec.model.ports import Failure

__all__ = ["RetryPolicy", "as_policy"]

_logger = logging.getLogger(__name__)

_BUDGET_OF = {"died": "deaths", "timed_out": "timeouts", "out_of_memory": "memory", "raised": "errors"}
_FIRST_WAIT = 0.1  # s
_LONGEST_WAIT = 30.0  # s


class _Strategy(Protocol):
    def __call__(self, retry_state: RetryCallState, /) -> Any: ...


def hashed_fraction(*parts: object) -> float:
    """A number in [0, 1) that depends on ``parts`` alone: jitter without a random generator."""
    digest = blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _name(failure: Failure) -> str:
    return failure.name or named(failure.key)


def default_wait(failure: Failure) -> float:
    """Seconds before the next attempt: 0.1, 0.2, 0.4 … 30 by the number of failures, less up to half by a hash."""
    failures = sum(failure.counts.values())
    longest: float = min(_FIRST_WAIT * 2 ** min(failures - 1, 20), _LONGEST_WAIT)
    return longest * (1 - hashed_fraction(_name(failure), failures) / 2)


@dataclass(frozen=True)
class RetryPolicy:
    """Further attempts granted to a task, per cause of failure.

    Args:
        deaths: after the death of the worker (signal, exit, crash).
        timeouts: after a ``timeout``.
        memory: after a ``memory_limit``.
        errors: after an exception of the task's own, if ``retry_if`` accepts it.
        retry_if: a tenacity ``retry_if_*`` predicate on the task's own exceptions; ``None`` accepts every
            ``Exception``, but neither ``SystemExit`` nor ``KeyboardInterrupt``.
        wait: a tenacity ``wait_*`` strategy (s); ``None``: exponential from 0.1 s to 30 s with jitter from a
            hash of key and attempt.
        stop: a tenacity ``stop_*`` strategy, asked before each further attempt; ``None``: the budgets alone decide.
        total: attempts in all, whatever the causes of failure; ``None``: the budgets alone decide.

    Raises:
        ValueError: a budget is negative or not a whole number, or ``total`` is not a whole number from 1.
        TypeError: ``retry_if``, ``wait`` or ``stop`` is not callable.

    A task's own exceptions are not tried again unless you say so: ``RetryPolicy(errors=2)``, or for some of them only,
    ``RetryPolicy(errors=2, retry_if=tenacity.retry_if_exception_type(ConnectionError))``.  ``retry=3`` does not cover
    them: it is ``RetryPolicy(deaths=2, timeouts=2, memory=2, total=3)``.
    """

    deaths: int = 2
    timeouts: int = 1
    memory: int = 1
    errors: int = 0
    retry_if: Callable[[RetryCallState], Any] | None = field(default=None, kw_only=True)
    wait: Callable[[RetryCallState], Any] | None = field(default=None, kw_only=True)
    stop: Callable[[RetryCallState], Any] | None = field(default=None, kw_only=True)
    total: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("deaths", "timeouts", "memory", "errors"):
            budget = getattr(self, name)
            if not _is_whole(budget) or budget < 0:
                raise ValueError(f"{name} must be a whole number of further attempts, 0 or more; got {budget!r}")
            object.__setattr__(self, name, int(budget))
        total = self.total
        if total is not None:
            if not _is_whole(total) or total < 1:
                raise ValueError(f"total must be a whole number of attempts in all, 1 or more, or None; got {total!r}")
            object.__setattr__(self, "total", int(total))
        for name in ("retry_if", "wait", "stop"):
            strategy = getattr(self, name)
            if strategy is not None and not callable(strategy):
                raise TypeError(f"{name} must be one of tenacity's strategies (a callable); got {strategy!r}")

    @property
    def asks_user(self) -> bool:
        """Whether it has strategies, which are code that the user has given."""
        return self.retry_if is not None or self.wait is not None or self.stop is not None

    def next_delay(self, failure: Failure) -> float | None:
        """Seconds to wait before the next attempt, or ``None``: no further attempt."""
        budget = _BUDGET_OF.get(failure.cause)
        if budget is None or failure.counts[failure.cause] > getattr(self, budget):
            return None
        if self.total is not None and failure.attempts >= self.total:
            return None
        try:
            return self._ask_strategies(failure)
        except Exception:
            # An exception of a user's strategy must neither replace the task's outcome nor end the supervisor.
            _logger.exception("a retry strategy raised; task %s is not tried again", _name(failure))
            return None

    def _ask_strategies(self, failure: Failure) -> float | None:
        if failure.cause == "raised" and not self._accepts(failure):
            return None
        delay = default_wait(failure) if self.wait is None else float(_evaluate(self.wait, failure))
        if not math.isfinite(delay):
            raise ValueError(f"the wait strategy gave {delay!r}; it must give a finite number of seconds")
        if self.stop is not None and _evaluate(self.stop, failure, delay):
            return None
        return max(0.0, delay)

    def _accepts(self, failure: Failure) -> bool:
        if self.retry_if is None:
            return failure.ordinary or isinstance(failure.exception, Exception)
        return bool(_evaluate(self.retry_if, failure))


def _call_state(failure: Failure) -> RetryCallState:
    # Imported here, since it takes 50 ms and is needed only where strategies are given.
    from tenacity import Future, RetryCallState

    # tenacity's stubs require a retrying object, but its strategies use none (its own tests build the state like this).
    state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]
    state.attempt_number = failure.attempts
    state.start_time = 0.0
    state.outcome_timestamp = failure.elapsed
    outcome = Future(failure.attempts)
    exception = failure.exception
    raised: BaseException | None = exception.unpack() if isinstance(exception, Packed) else exception
    outcome.set_exception(raised or RuntimeError(failure.cause))
    state.outcome = outcome
    return state


def _evaluate(strategy: _Strategy, failure: Failure, delay: float = 0.0) -> Any:
    state = _call_state(failure)
    state.upcoming_sleep = delay  # read by stop_before_delay
    import random  # here, as tenacity: it is needed only where strategies are given

    tenacitys: Any = importlib.import_module("tenacity.wait")
    if tenacitys.random is random:
        tenacitys.random = _Draws()
    _here.generator = random.Random(f"{_name(failure)}/{failure.attempts}")
    try:
        return strategy(state)
    finally:
        _here.generator = None


class _Here(threading.local):
    """Of this thread: what strategies draw from, while one is evaluated."""

    generator: random.Random | None = None


_here = _Here()


class _Draws:
    """The module ``random`` as tenacity's strategies see it: in other threads, and otherwise, the real one."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_here.generator or importlib.import_module("random"), name)


def _is_whole(number: Any) -> bool:
    """Whether it is a whole number, of whatever library; a truth value is none."""
    return isinstance(number, Integral) and not isinstance(number, bool)


def as_policy(retry: RetryPolicy | int) -> RetryPolicy:
    """``retry`` as a policy: a number means that many attempts in all over deaths, timeouts and memory.

    Raises:
        ValueError: a number below 1.
        TypeError: neither a number nor a policy.
    """
    if isinstance(retry, RetryPolicy):
        return retry
    if not _is_whole(retry):
        raise TypeError(f"retry must be a RetryPolicy or a number of attempts in all; got {retry!r}")
    retry = int(retry)
    if retry < 1:
        raise ValueError(f"retry must be at least 1 (attempts in all; 1: none again); got {retry!r}")
    return RetryPolicy(deaths=retry - 1, timeouts=retry - 1, memory=retry - 1, total=retry)
