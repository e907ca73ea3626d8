"""The calls of a chunk on their way out, and their results on the way back: many in one pickle.

What is *plain* (made of numbers, texts and the like, which nobody can change, and which run no code of the user's when
they are unpickled) goes in one pickle with all others.  Whatever else is *sealed*: a pickle of its own inside that one,
which is opened in its turn; so what raises, hangs or kills there is that call's own.

*Results* are staged one by one, as they come.  What is staged is a sequence of pickles, without their first and last
bytes, each of which appends itself to a list: so any number of whole ones is one pickle.  (In protocol 3 a later one
may put to places of the memo what an earlier one had there, since each refers to its own only.)
"""

from __future__ import annotations

import pickle
from itertools import chain
from typing import TYPE_CHECKING, Any

from resilient_exec.model.packed import Packed
from resilient_exec.wire import payload
from resilient_exec.wire.buffers import Pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["LARGE", "PLAIN", "Sealed", "head_of", "is_plain", "load_calls", "load_results", "pack_calls"]
__all__ += ["seal_call", "shared_columns", "size_of", "stage_plain", "stage_sealed", "with_columns"]

LARGE = 8 << 10  # bytes: what is longer does not go with others
PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes})  # nobody can change one of these
_LONGEST_TUPLE = 64
_HEAD, _TAIL = b"\x80\x03]", b"."  # protocol 3, an empty list; the end
_PROTOCOL = 3  # without frames, and with a memo whose places are named
_dumps = pickle.dumps


class Sealed:
    """A pickle inside another, to be opened by itself."""

    __slots__ = ("data",)

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        data = self.data
        return Sealed, (data.joined() if type(data) is Pieces else data,)


class _Result:
    """A sealed result, on its way."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return _unopened, (self.data,)


def _unopened(data: bytes) -> Packed:
    return Packed(data, payload.unpack_value)


# -- calls -------------------------------------------------------------------------------------------------------------


def is_plain(calls: Iterable[tuple[Any, ...]]) -> bool:
    """Whether all arguments of these calls are plain."""
    return _KINDS_ARE_PLAIN(set(map(type, chain.from_iterable(calls))))


_KINDS_ARE_PLAIN = PLAIN.issuperset


def size_of(args: tuple[Any, ...] | Sealed) -> int:
    """About how many bytes these arguments take."""
    if type(args) is Sealed:
        return len(args.data)
    return sum(len(arg) if type(arg) in (str, bytes) else 8 for arg in args)  # type: ignore[union-attr, misc]


def shared_columns(calls: Sequence[tuple[Any, ...]]) -> tuple[int, ...]:
    """Which arguments are the same object in all calls, and not plain: they travel once, with the function."""
    first = calls[0]
    if len(calls) == 1:
        return ()
    return tuple(
        place for place, arg in enumerate(first) if type(arg) not in PLAIN and all(args[place] is arg for args in calls)
    )


def with_columns(args: tuple[Any, ...], places: tuple[int, ...], shared: tuple[Any, ...]) -> tuple[Any, ...]:
    """All arguments of a call: its own, and those that it shares, at their places."""
    whole = list(args)
    for place, value in zip(places, shared, strict=True):
        whole.insert(place, value)
    return tuple(whole)


def head_of(fn: Callable[..., Any], shared: tuple[Any, ...], rules: dict[str, Any]) -> Any:
    """The function, with the arguments that all calls share, as a message."""
    return payload.pack_call(fn, shared, {}, **rules)


def seal_call(fn: Callable[..., Any], args: tuple[Any, ...], rules: dict[str, Any]) -> tuple[Any, ...] | Sealed:
    """The arguments of a call for its way.

    Raises:
        Unsendable: names the argument of ``fn`` that does not pickle, and why.
    """
    if _KINDS_ARE_PLAIN(set(map(type, args))):
        return args
    return Sealed(payload.pack_arguments(fn, args, **rules))


def pack_calls(places: tuple[int, ...], calls: list[tuple[Any, ...] | Sealed]) -> bytes:
    """Calls as bytes; runs none of the user's code."""
    return _dumps((places, calls), pickle.HIGHEST_PROTOCOL)


def load_calls(data: Any) -> tuple[tuple[int, ...], list[tuple[Any, ...] | Sealed]]:
    """The calls again; what is sealed in them stays so."""
    found: tuple[tuple[int, ...], list[tuple[Any, ...] | Sealed]] = pickle.loads(data)
    return found


# -- results -----------------------------------------------------------------------------------------------------------


def stage_plain(value: Any) -> bytes | None:
    """What is staged of a plain result; ``None``: it is not plain, or long."""
    kind = type(value)
    if kind in PLAIN:
        if kind in (str, bytes) and len(value) > LARGE:
            return None
        return _dumps(value, _PROTOCOL)[2:-1] + b"a"
    if kind is tuple and len(value) <= _LONGEST_TUPLE and _KINDS_ARE_PLAIN(set(map(type, value))):
        data = _dumps(value, _PROTOCOL)
        return data[2:-1] + b"a" if len(data) <= LARGE else None
    return None


def stage_sealed(data: bytes) -> bytes:
    """What is staged of a result that was packed by itself."""
    return _dumps(_Result(data), _PROTOCOL)[2:-1] + b"a"


def load_results(data: bytes) -> list[Any]:
    """The results; those that were packed by themselves are so still."""
    found: list[Any] = pickle.loads(b"".join((_HEAD, data, _TAIL)))
    return found
