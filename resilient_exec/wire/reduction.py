"""What an object's parts are to a pickler, by the names that its user knows them by.

An object is pickled *by itself*, with everything that it refers to stubbed out (a ``persistent_id`` for all but the
object): what fails then fails for its own sake, and what it is reduced to says which parts come next.  It is the
pickler's own code that judges, with all its reducers, so that nothing is blamed which the pickler would have sent.
Reading a name runs no code of the user's, other than what the pickler has to run anyway.
"""

from __future__ import annotations

import copyreg
import io
import keyword
from types import CellType, FunctionType, GetSetDescriptorType, MemberDescriptorType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import pickle
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Label", "opener", "quietly"]

_PROTOCOL = 5
_LONGEST_KEY = 60
_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray, type(...), type(NotImplemented)})
_TEMPORARY = frozenset({tuple, list, dict})  # what a reduction is made of
_REDUCTION_LEVELS = 3  # (None, {"slot": value}) is two
# Attributes of built-in types that hold what they show; others may make it, at any cost.
_HELD = {"args", "cell_contents", "__self__", "__defaults__", "__kwdefaults__", "__annotations__"}


class Label(NamedTuple):
    """How a part is reached from its owner: what stands before the owner's text, and what behind it."""

    before: str
    after: str
    is_phrase: bool = False  # words, which are put in brackets when something follows

    def then(self, after: str) -> Label:
        """The way on from here, which is no phrase."""
        return Label(self.before, f"{self.after}{after}")


_TYPE = Label("type(", ")")
_KEY = Label("a key of ", "", is_phrase=True)
_ITEM = Label("an item of ", "", is_phrase=True)


def _attribute(name: object) -> Label:
    if type(name) is str and name.isidentifier() and not keyword.iskeyword(name):
        return Label("", f".{name}")
    item = _item(name)
    return Label(f"{item.before}vars(", f"){item.after}", item.is_phrase)


def _item(key: object) -> Label:
    """How the value of a key is reached.  A ``__repr__`` of the user's is not called."""
    kind = type(key)
    plain = kind in _ATOMS or (kind is tuple and all(type(part) in _ATOMS for part in key))  # type: ignore[attr-defined]
    text = repr(key) if plain else ""
    if text and len(text) <= _LONGEST_KEY:
        return Label("", f"[{text}]")
    words = f"the key {text[:_LONGEST_KEY]}..." if text else f"a key of type {kind.__qualname__}"
    return Label(f"the value of {words} in ", "", is_phrase=True)


# -- one part by itself ----------------------------------------------------------------------------------------------


class _Reduction(NamedTuple):
    """What the pickler makes of an object: a callable, its arguments, a state, items; and who said so."""

    pieces: tuple[Any, ...]
    by_reducer: bool  # not the object itself


def opener(pickler: type[pickle.Pickler]) -> Callable[[object], tuple[Iterable[tuple[Label, object]], Any]]:
    """A function that gives the parts of an object, or the error if it does not pickle even without them."""
    probe_class = _probe_class(pickler)

    def open_(value: object) -> tuple[Iterable[tuple[Label, object]], BaseException | None]:
        kind = type(value)
        if kind in _CONTAINERS:
            return _CONTAINERS[kind](value), None
        try:
            probe = probe_class(io.BytesIO(), protocol=_PROTOCOL)
            probe.target = value
            probe.dump(value)
            return (() if probe.reduction is None else _parts(value, probe.reduction)), None
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            cause = error.__cause__  # cloudpickle words it anew
            failure = cause if isinstance(cause, RecursionError) else error
            return (), failure.with_traceback(None)  # whose frames would hold on to all of this

    return open_


def _probe_class(pickler: type[pickle.Pickler]) -> Any:
    base: Any = pickler

    class Probe(base):  # type: ignore[misc]
        """Pickles its target, and stubs of all that the target refers to."""

        target: object = None
        is_begun = False
        reduction: _Reduction | None = None

        def persistent_id(self, value: object) -> int | None:
            if value is self.target and not self.is_begun:
                self.is_begun = True
                return None
            return 0

        def reducer_override(self, value: Any) -> Any:
            """As the pickler itself goes about it, except that what comes of it is kept."""
            override = getattr(super(), "reducer_override", None)
            reduced = NotImplemented if override is None else override(value)
            by_reducer = reduced is not NotImplemented
            if not by_reducer:
                kind = type(value)
                if issubclass(kind, type) or kind is FunctionType:
                    return NotImplemented  # by name
                reducer = getattr(self, "dispatch_table", copyreg.dispatch_table).get(kind)
                by_reducer = reducer is not None
                reduced = value.__reduce_ex__(_PROTOCOL) if reducer is None else reducer(value)
            if type(reduced) is not tuple:
                return reduced
            # Iterators can be read only once: by us, and then the pickler reads the lists.
            pieces = tuple(list(piece) if _is_iterator(piece) else piece for piece in reduced)
            self.reduction = _Reduction(pieces, by_reducer)
            return tuple(iter(new) if new is not old else old for new, old in zip(pieces, reduced, strict=True))

    return Probe


def _is_iterator(value: object) -> bool:
    return hasattr(type(value), "__next__")


# -- what comes next -------------------------------------------------------------------------------------------------


def quietly(parts: Iterable[tuple[Label, object]]) -> Iterator[tuple[Label, object]]:
    """The parts, but for atoms; those of what raises or is changed meanwhile end early."""
    try:
        yield from (part for part in parts if type(part[1]) not in _ATOMS)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException:
        return


def _sequence_parts(value: Any) -> Iterator[tuple[Label, object]]:
    return ((Label("", f"[{i}]"), item) for i, item in enumerate(value) if type(item) not in _ATOMS)


def _set_parts(value: Any) -> Iterator[tuple[Label, object]]:
    return ((_ITEM, item) for item in value if type(item) not in _ATOMS)


def _pair_parts(pairs: Iterable[tuple[object, object]]) -> Iterator[tuple[Label, object]]:
    for key, item in pairs:
        if type(key) not in _ATOMS:
            yield _KEY, key
        if type(item) not in _ATOMS:
            yield _item(key), item


_CONTAINERS: dict[type, Callable[[Any], Iterator[tuple[Label, object]]]] = {
    list: _sequence_parts,
    tuple: _sequence_parts,
    set: _set_parts,
    frozenset: _set_parts,
    dict: lambda value: _pair_parts(value.items()),
}


def _parts(owner: object, reduction: _Reduction) -> Iterator[tuple[Label, object]]:
    """The parts of what is not a plain container, by the names that its user knows them by."""
    pieces = reduction.pieces
    if type(owner) is FunctionType:
        yield from _function_parts(owner, pieces)
        return
    known = _names(owner)
    for number, piece in enumerate(pieces):
        origin = _origin(owner, number, by_reducer=reduction.by_reducer)
        if number == 3 and piece is not None:
            yield from _sequence_parts(piece)
        elif number == 4 and piece is not None:
            yield from _pair_parts(piece)
        else:
            yield from _spread(owner, known, piece, origin)


def _origin(owner: object, number: int, *, by_reducer: bool) -> Label:
    """The way to a piece of a reduction that has no name of its own."""
    if by_reducer:
        return Label("(the reduction of ", f")[{number}]")
    kind = type(owner)
    is_default = kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ is object.__reduce__
    if number == 2 and is_default and kind.__getstate__ is not object.__getstate__:
        return Label("", ".__getstate__()")
    return Label("", f".__reduce_ex__({_PROTOCOL})[{number}]")


def _spread(
    owner: object, known: dict[int, tuple[Label, object]], piece: Any, way: Label, level: int = 0
) -> Iterator[tuple[Label, object]]:
    """The parts in a piece of a reduction, past the tuples and dictionaries that were made for the occasion."""
    kind = type(piece)
    if kind in _ATOMS:
        return
    if id(piece) in known:
        yield known[id(piece)]
    elif piece is type(owner):
        yield _TYPE, piece
    elif kind not in _TEMPORARY or level == _REDUCTION_LEVELS:
        yield way, piece
    else:
        for label, part in _CONTAINERS[kind](piece):
            if label.is_phrase and id(part) not in known:
                yield way, piece  # words lead on from it
            else:
                yield from _spread(owner, known, part, way.then(label.after), level + 1)


def _names(owner: object) -> dict[int, tuple[Label, object]]:
    """What ``owner`` holds, by identity (the values are kept, so the numbers stay theirs)."""
    known: dict[int, tuple[Label, object]] = {}
    for parts in (_attributes(owner), _items(owner)):
        for label, value in quietly(parts):
            known.setdefault(id(value), (label, value))
    return known


def _attributes(owner: Any) -> Iterator[tuple[Label, object]]:
    """Attributes, as far as reading them runs no code of the user's."""
    held: Any = (type if issubclass(type(owner), type) else object).__getattribute__
    try:
        attributes = list(held(owner, "__dict__").items())
    except AttributeError:
        attributes = []
    yield from ((_attribute(name), value) for name, value in attributes)
    for cls in type(owner).__mro__[:-1]:  # `object` holds nothing
        for name, entry in list(vars(cls).items()):
            is_held = isinstance(entry, GetSetDescriptorType) and name in _HELD
            if is_held or isinstance(entry, MemberDescriptorType):
                try:
                    yield _attribute(name), entry.__get__(owner)
                except (AttributeError, ValueError):  # a slot without a value, a cell without content
                    continue


def _items(owner: Any) -> Iterator[tuple[Label, object]]:
    """Items of what is derived from a container that is reduced to its constructor's arguments."""
    kind = type(owner)
    if issubclass(kind, tuple):
        fields = vars(kind).get("_fields")
        for i, item in enumerate(tuple.__iter__(owner)):
            yield (_attribute(fields[i]) if type(fields) is tuple else Label("", f"[{i}]")), item
    elif issubclass(kind, set | frozenset):
        yield from _set_parts((set if issubclass(kind, set) else frozenset).__iter__(owner))


def _function_parts(function: FunctionType, pieces: tuple[Any, ...]) -> Iterator[tuple[Label, object]]:
    """Of a function that is pickled by value: what it has closed over, the globals that it uses, what is set on it."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        yield from _cell_parts(name, cell)
    for state in (state for state in pieces[2] if type(state) is dict):
        for name, value in list(state.get("__globals__", {}).items()):
            yield Label(f"global variable {name!r} of ", "", is_phrase=True), value
    for label, value in _attributes(function):
        if label.after not in (".__closure__", ".__globals__", ".__builtins__", ".__code__"):
            yield label, value


def _cell_parts(name: str, cell: CellType) -> Iterator[tuple[Label, object]]:
    try:
        content = cell.cell_contents
    except ValueError:  # nothing is in it yet
        return
    yield Label(f"closure variable {name!r} of ", "", is_phrase=True), content
