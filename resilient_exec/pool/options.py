"""The checks of arguments: each error names the value and the rule."""

from __future__ import annotations

import math
import re
from numbers import Integral, Real

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    T = TypeVar("T")
    from collections.abc import Iterable

__all__ = [
    "LONGEST",
    "UNSET",
    "WrongSetting",
    "as_float",
    "as_tuple",
    "check_order",
    "choice",
    "count",
    "environment",
    "module_names",
    "seconds",
    "size",
]

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {"KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_LEAST_SIZE = 1 << 20  # bytes: what is less is a number of megabytes, or a slip
_MOST_SIZE = 1 << 50  # bytes: no machine has them, and the kernel's limits overflow not far beyond
LONGEST = 1e9
"""Seconds, thirty years: beyond it the clocks of the operating system overflow."""


class WrongSetting(ValueError):
    """A variable of the environment has a value that cannot be; the text names it, the value, the rule, the remedy."""


class _Unset:
    def __repr__(self) -> str:
        return "<as the pool has it>"


UNSET: Any = _Unset()


def as_float(value: Any) -> float:
    """A number as a ``float``; what is too large for one is infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def seconds(name: str, value: Any) -> float | None:
    """``value`` as a time, which is finite and more than 0, or ``None``."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number of seconds or None; got {value!r}")
    number = as_float(value)
    if not 0 < number < LONGEST:
        raise ValueError(f"{name} must be a finite number of seconds greater than 0, or None; got {value!r}")
    return number


def check_order(soft: float | None, hard: float | None) -> None:
    """Refuse a ``soft_timeout`` that would not come before the ``timeout``."""
    if soft is not None and hard is not None and soft >= hard:
        raise ValueError(
            f"soft_timeout ({soft:g} s) must be less than timeout ({hard:g} s): it comes first, and leaves the "
            "task the time between them; soft_timeout=None takes it away"
        )


def as_tuple(name: str, value: Iterable[T]) -> tuple[T, ...]:
    """``value``, gone through once, here and now."""
    try:
        return tuple(value)
    except TypeError as error:
        raise TypeError(f"{name} must be a sequence (perhaps a tuple of one?); got {value!r}") from error


def count(name: str, value: Any) -> int:
    """``value`` as a whole number of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number; got {value!r}")
    if value <= 0:
        raise ValueError(f"{name} must be greater than 0, got {value!r}")
    return int(value)


def size(name: str, value: Any) -> int | None:
    """``value`` in bytes: a whole number, or a text such as ``"512MB"``, ``"2 GiB"``, ``"1.5G"``; ``None`` stays."""
    if value is None:
        return None
    rule = f'{name} must be a number of bytes or a text such as "512MB" or "2GiB", at least 1 MiB, or None'
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?\s*", value.upper())
        if match is None or match[2] not in _UNITS:
            raise ValueError(f"{rule}; got {value!r}")
        number = int(min(float(match[1]) * _UNITS[match[2]], 2.0 * _MOST_SIZE))
    elif isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{rule}; got {value!r}")
    else:
        number = int(value)
    if number < _LEAST_SIZE:
        raise ValueError(f"{rule}; got {value!r}")
    if number > _MOST_SIZE:
        raise ValueError(f"{name} must be at most 1024 TiB (None: no limit); got {value!r}")
    return number


def environment(name: str, value: Any) -> dict[str, str]:
    """``value`` as a copy of a mapping from names of variables to their texts; ``None`` is an empty one."""
    rule = f"{name} must be a mapping from names of variables to texts"
    try:
        pairs = dict(value or {})
    except (TypeError, ValueError) as error:
        raise TypeError(f"{rule}; got {value!r}") from error
    for variable, text in pairs.items():
        if not isinstance(variable, str) or not isinstance(text, str):
            raise TypeError(f"{rule}; got {variable!r}: {text!r}")
        if not variable or "=" in variable or "\0" in variable + text:
            raise ValueError(f"{rule}, none empty, with '=' in its name, or with a null character; got {variable!r}")
    return pairs


def module_names(name: str, value: Any) -> tuple[str, ...]:
    """``value`` as names of modules, as ``import`` takes them, each with or without a ``?`` behind it."""
    rule = f"{name} must be a sequence of names of modules, such as ('numpy', 'my.model?')"
    if isinstance(value, str):
        raise TypeError(f"{rule}; got the text {value!r}: put it into a tuple, ({value!r},)")
    names = as_tuple(name, value)
    for module in names:
        if not isinstance(module, str):
            raise TypeError(f"{rule}; got {module!r}")
        if not all(part.isidentifier() for part in module.removesuffix("?").split(".")):
            raise ValueError(f"{rule}; got {module!r}")
    return names


def choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """``value``, which is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")
    return str(value)
