"""The calls of a chunk on their way out, and their results on the way back: many in one pickle.

What is *plain* (made of numbers, texts and the like, which nobody can change, and which run no code of the user's when
they are unpickled) goes in one pickle with all others.  Whatever else is *sealed*: a pickle of its own inside that one,
which is opened in its turn; so what raises, hangs or kills there is that call's own.

*Results* are staged one by one, as they come: as a sequence of pickles.  They are sent as one pickle of them all, which
takes a fifth of the time, where nobody can have changed one meanwhile; else as they are staged.
"""

from __future__ import annotations

import io
import pickle
from itertools import chain

from resilient_exec.model.packed import Packed
from resilient_exec.wire import payload
from resilient_exec.wire.buffers import Pieces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

__all__ = ["LARGE", "PLAIN", "NotPlain", "PlainPickler", "Sealed", "SealedResult", "head_of", "kinds_of"]
__all__ += ["join_results", "load_calls", "load_joined", "load_staged", "pack_calls", "seal_call", "shared_columns"]
__all__ += ["size_of", "stage_plain", "stage_sealed", "with_columns"]

LARGE = 8 << 10  # bytes: what is longer does not go with others
PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes})  # nobody can change one of these
_LONGEST_TUPLE = 64
_PROTOCOL = 3  # without frames, which are of no use for what is short
_dumps = pickle.dumps


class Sealed:
    """A pickle inside another, to be opened by itself."""

    __slots__ = ("data",)

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        data = self.data
        return Sealed, (data.joined() if type(data) is Pieces else data,)


class SealedResult:
    """The same of a result."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return _unopened, (self.data,)


def _unopened(data: bytes) -> Packed:
    return Packed(data, payload.unpack_value)


# -- calls -------------------------------------------------------------------------------------------------------------


def kinds_of(calls: Iterable[tuple[Any, ...]]) -> set[type]:
    """The types of their arguments."""
    return set(map(type, chain.from_iterable(calls)))


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
        return _dumps(value, _PROTOCOL)
    if kind is tuple and len(value) <= _LONGEST_TUPLE and _KINDS_ARE_PLAIN(set(map(type, value))):
        data = _dumps(value, _PROTOCOL)
        return data if len(data) <= LARGE else None
    return None


def stage_sealed(sealed: SealedResult) -> bytes:
    """What is staged of a result that was packed by itself."""
    return _dumps(sealed, _PROTOCOL)


class NotPlain(Exception):
    """It is pickled by code of its own."""


class PlainPickler(pickle.Pickler):
    """Stages one plain result after the other in a file; whatever is pickled by code of its own is refused."""

    def __init__(self, file: Any) -> None:
        super().__init__(file, _PROTOCOL)
        self.fast = True  # without a memo: each is a pickle of its own

    def reducer_override(self, thing: Any) -> Any:
        """Called for what is not built in."""
        raise NotPlain(type(thing))


def join_results(values: list[Any]) -> bytes:
    """Results that nobody can have changed, as one pickle."""
    return _dumps(values, pickle.HIGHEST_PROTOCOL)


def load_joined(data: bytes, count: int) -> list[Any]:
    """The first of them again; those that were packed by themselves are so still."""
    found: list[Any] = pickle.loads(data)
    return found[:count] if count < len(found) else found


def load_staged(data: bytes, count: int) -> list[Any]:
    """The same of results as they are staged."""
    load = pickle.Unpickler(io.BytesIO(data)).load
    return [load() for _ in range(count)]
