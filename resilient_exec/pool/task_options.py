"""The options of a task."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from resilient_exec.model.policies import RetryPolicy, as_policy
from resilient_exec.model.task import Task
from resilient_exec.pool.options import UNSET, as_float, check_order, seconds, size

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["LEARNED", "Options"]

LEARNED = "learned"
"""As the cost of a task: how long others with its label take."""


@dataclass(frozen=True)
class Options:
    """How one task is to be run."""

    timeout: float | None = None
    retry: RetryPolicy = RetryPolicy()  # noqa: RUF009  frozen
    key: Hashable = UNSET
    label: str = ""
    priority: float = 0
    soft_timeout: float | None = None
    memory_limit: int | None = None
    cost: float | str = 0  # or LEARNED
    speculate: bool = False

    def task(self, number: int, label: str, key: Hashable, name: str, cargo: Any) -> Task:
        """A task that is to be run so."""
        return Task(
            number,
            self.retry,
            self.timeout,
            self.priority,
            label,
            self.soft_timeout,
            self.memory_limit,
            key,
            name,
            None if self.cost == LEARNED else self.cost,  # type: ignore[arg-type]
            cargo,
            speculate=self.speculate,
            timed=self.is_timed,
        )

    @property
    def is_timed(self) -> bool:
        """Whether it is to be learned how long its attempts take."""
        return self.speculate or self.cost == LEARNED

    def with_(self, **changes: Any) -> Options:
        """The same with ``changes``, checked; what is ``UNSET`` in them stays as it is."""
        given = {name: value for name, value in changes.items() if value is not UNSET}
        for name, value in given.items():
            given[name] = _CHECKS[name](name, value)
        changed = replace(self, **given)
        check_order(changed.soft_timeout, changed.timeout)
        return changed


def _key(_: str, key: Any) -> Any:
    """A key must be hashable, equal to itself (a NaN is not), and printable: it is looked up and told by everybody."""
    hash(key)  # raises a TypeError that names the type
    kind = f"{type(key).__module__}.{type(key).__qualname__}"
    try:
        same, text = bool(key == key), repr(key)  # noqa: PLR0124  that is the question
    except Exception as error:
        raise TypeError(
            f"a key of type {kind} cannot be used: comparing or printing it raised {type(error).__name__}: {error}; "
            "use a number or a text"
        ) from error
    if not same:
        raise ValueError(f"a key must be equal to itself, else it can never be found again; got {text}")
    return key


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a text; got {value!r}")
    return str.__str__(value)  # one of a subclass has methods that are the user's code


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False; got {value!r}")
    return value


def _number(name: str, value: Any) -> int | float:
    rule = f"{name} must be a number, larger goes first"
    if not isinstance(value, Real):
        raise TypeError(f"{rule}; got {value!r}")
    number = int(value) if isinstance(value, Integral) else float(value)
    if math.isnan(as_float(number)):
        raise ValueError(f"{name} must be a number that can be compared; got {value!r}")
    return number


def _cost(name: str, value: Any) -> Any:
    if isinstance(value, str) and value == LEARNED:
        return LEARNED
    if not isinstance(value, Real):
        raise TypeError(f'{name} must be a number, larger goes first, or "{LEARNED}"; got {value!r}')
    return _number(name, value)


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "timeout": seconds,
    "soft_timeout": seconds,
    "memory_limit": size,
    "retry": lambda _, value: as_policy(value),
    "priority": _number,
    "cost": _cost,
    "speculate": _flag,
    "label": _text,
    "key": _key,
}
