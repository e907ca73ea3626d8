"""A call's arguments in short, for people; no code of theirs is run for it: a ``__repr__`` may be slow, or hang.

A key, which its user has chosen to be told by, is printed as it prints itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["named", "summary"]

_MOST_ARGUMENTS = 6
_MOST_ITEMS = 4
_MOST_TEXT = 40  # characters of a string
_MOST_BITS = 256  # of a whole number: the digits of a huge one take seconds


def named(key: object) -> str:
    """A key for people, whatever its ``__repr__`` does: no supervisor may fail of that."""
    try:
        return repr(key)
    except BaseException:
        return f"<{type(key).__module__}.{type(key).__qualname__}, whose repr raises>"


def summary(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Such as ``7, 'fast', <app.Agent>, limit=3``."""
    if not args and not kwargs:
        return ""
    parts = [_short(value) for value in args[:_MOST_ARGUMENTS]]
    parts += [f"{name}={_short(value)}" for name, value in list(kwargs.items())[: _MOST_ARGUMENTS - len(parts)]]
    left = len(args) + len(kwargs) - len(parts)
    return ", ".join([*parts, f"… {left} more"] if left else parts)


def _short(value: Any, *, inside: bool = False) -> str:
    kind = type(value)
    if kind is int:
        return repr(value) if value.bit_length() <= _MOST_BITS else f"<int of {value.bit_length()} bits>"
    if value is None or kind is bool or kind is float or kind is complex:
        return repr(value)
    if kind is str:
        return repr(value) if len(value) <= _MOST_TEXT else f"{value[:_MOST_TEXT]!r}… ({len(value)} characters)"
    if kind in (bytes, bytearray):
        return f"<{kind.__name__} of {len(value)}>"
    if kind in (list, tuple, set, frozenset, dict):
        return _container(value, inside=inside)
    if kind.__module__ == "numpy" and kind.__name__ == "ndarray":
        return f"<numpy.ndarray {value.shape} {value.dtype}>"
    if kind is type or kind.__module__ == "builtins":  # classes, functions, methods: their names run no user code
        return f"<{getattr(value, '__qualname__', kind.__qualname__)}>"
    return _of(kind)


def _of(kind: type) -> str:
    return f"<{kind.__module__}.{kind.__qualname__}>"


def _container(value: Any, *, inside: bool) -> str:
    kind = type(value)
    if kind in (list, tuple) and len(value) <= _MOST_ITEMS and not inside:
        items = ", ".join(_short(item, inside=True) for item in value)
        return f"[{items}]" if kind is list else f"({items})"
    return f"<{kind.__name__} of {len(value)}>"
