"""The options of a task, and the checks of arguments: each error names the value and the rule."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from resilient_exec.policies import RetryPolicy, as_policy

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

__all__ = ["UNSET", "Options", "as_tuple", "count", "seconds"]

T = TypeVar("T")
_LONGEST = 1e9  # s: thirty years; beyond it the clocks of the operating system overflow


class _Unset:
    def __repr__(self) -> str:
        return "<as the pool has it>"


UNSET: Any = _Unset()


@dataclass(frozen=True)
class Options:
    """How one task is to be run."""

    timeout: float | None = None
    retry: RetryPolicy = RetryPolicy()  # noqa: RUF009  frozen
    key: Hashable = UNSET
    label: str = ""
    priority: float = 0

    def with_(self, **changes: Any) -> Options:
        """The same with ``changes``, checked; what is ``UNSET`` in them stays as it is."""
        given = {name: value for name, value in changes.items() if value is not UNSET}
        if "timeout" in given:
            given["timeout"] = seconds("timeout", given["timeout"])
        if "retry" in given:
            given["retry"] = as_policy(given["retry"])
        if "priority" in given:
            _check_priority(given["priority"])
        if "label" in given and not isinstance(given["label"], str):
            raise TypeError(f"label must be a text; got {given['label']!r}")
        if "key" in given:
            hash(given["key"])  # raises a TypeError that names the type
        return replace(self, **given)


def _check_priority(value: Any) -> None:
    if not isinstance(value, int | float):
        raise TypeError(f"priority must be a number, larger goes first; got {value!r}")
    if math.isnan(value):
        raise ValueError(f"priority must be a number that can be compared; got {value!r}")


def seconds(name: str, value: Any) -> float | None:
    """``value`` as a time, which is finite and more than 0, or ``None``."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds or None; got {value!r}")
    if not 0 < value < _LONGEST:
        raise ValueError(f"{name} must be a finite number of seconds greater than 0, or None; got {value!r}")
    return float(value)


def as_tuple(name: str, value: Iterable[T]) -> tuple[T, ...]:
    """``value``, gone through once, here and now."""
    try:
        return tuple(value)
    except TypeError as error:
        raise TypeError(f"{name} must be a sequence (perhaps a tuple of one?); got {value!r}") from error


def count(name: str, value: Any) -> int:
    """``value`` as a whole number of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number; got {value!r}")
    if value <= 0:
        raise ValueError(f"{name} must be greater than 0, got {value!r}")
    return value
