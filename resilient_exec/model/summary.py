"""A call's arguments and a task's key as short texts, for people.

No code of the arguments is run for this, since a ``__repr__`` may be slow or hang.  A key is shown by its ``repr``,
since users choose keys to recognize their tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Summary", "named", "summary"]

_MAX_ARGUMENTS = 6
_MAX_ITEMS = 4
_MAX_TEXT = 40  # characters of a string
_MAX_BITS = 256  # of an int: to compute the digits of a huge one takes seconds
_CONSTANT = frozenset({int, float, bool, complex, type(None)})  # small, and what they are stays so


class Summary:
    """The summary of a call, made when it is read where that will give the same: most calls are never shown."""

    __slots__ = ("_args", "_text")

    def __init__(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        is_constant = not kwargs and _CONSTANT.issuperset(map(type, args))
        self._args: Sequence[Any] | None = args if is_constant else None
        self._text = "" if is_constant else summary(args, kwargs)

    def __str__(self) -> str:
        return self._text if self._args is None else summary(self._args, {})


def named(key: object) -> str:
    """The ``repr`` of a key, or a placeholder if that raises: an exception here would end the supervisor."""
    try:
        return repr(key)
    except BaseException:
        return f"<{type(key).__module__}.{type(key).__qualname__}, whose repr raises>"


def summary(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """The arguments of a call in one line, such as ``7, 'fast', <app.Agent>, limit=3``."""
    if not args and not kwargs:
        return ""
    parts = [_short(value) for value in args[:_MAX_ARGUMENTS]]
    parts += [f"{name}={_short(value)}" for name, value in list(kwargs.items())[: _MAX_ARGUMENTS - len(parts)]]
    left = len(args) + len(kwargs) - len(parts)
    return ", ".join([*parts, f"… {left} more"] if left else parts)


def _short(value: Any, *, inside: bool = False) -> str:
    kind = type(value)
    if kind is int:
        return repr(value) if value.bit_length() <= _MAX_BITS else f"<int of {value.bit_length()} bits>"
    if value is None or kind is bool or kind is float or kind is complex:
        return repr(value)
    if kind is str:
        return repr(value) if len(value) <= _MAX_TEXT else f"{value[:_MAX_TEXT]!r}… ({len(value)} characters)"
    if kind in (bytes, bytearray):
        return f"<{kind.__name__} of {len(value)}>"
    if kind in (list, tuple, set, frozenset, dict):
        return _container(value, inside=inside)
    if kind.__module__ == "numpy" and kind.__name__ == "ndarray":
        return f"<numpy.ndarray {value.shape} {value.dtype}>"
    if kind is type or kind.__module__ == "builtins":  # classes, functions, methods: to read their names is safe
        return f"<{getattr(value, '__qualname__', kind.__qualname__)}>"
    return f"<{kind.__module__}.{kind.__qualname__}>"


def _container(value: Any, *, inside: bool) -> str:
    kind = type(value)
    if kind in (list, tuple) and len(value) <= _MAX_ITEMS and not inside:
        items = ", ".join(_short(item, inside=True) for item in value)
        return f"[{items}]" if kind is list else f"({items})"
    return f"<{kind.__name__} of {len(value)}>"
