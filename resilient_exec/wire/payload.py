"""Pickling: calls on their way out, values and exceptions on their way back.

*Calls.*  Plain pickle first (2.5 µs where cloudpickle takes 10), cloudpickle for what plain pickle refuses and for
whatever mentions ``__main__``: a worker has no ``__main__`` of the user's, so what lives there travels by value.

*Values.*  A result whose unpickling raises, hangs or ends the process must do so in the worker, under the
attempt's own deadline, and not in the parent among everybody's results.  So unless it is made of plain built-in
or numpy types, it **proves itself**: the worker unpickles its own pickle before sending it.

*Exceptions* come back as they were: same type, same ``args``, the remote traceback as ``__cause__``.  One that its
own class cannot rebuild travels as type, ``args`` and ``__dict__``; one that cannot travel at all arrives as a
``NotSendable`` with its type's name, its text and its traceback.

*What cannot travel* is named with the way to it, ``agent._logger._lock``; the search for it (:mod:`culprit`) begins
only where pickling has failed.  With ``fresh_locks`` plain locks travel, too (:mod:`locks`).
"""

from __future__ import annotations

import contextlib
import pickle
import traceback
from types import FunctionType
from typing import TYPE_CHECKING, Any

from resilient_exec.model.errors import NotSendable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = [
    "RemoteTraceback",
    "Unsendable",
    "explain",
    "pack_call",
    "pack_exception",
    "pack_value",
    "text_of",
    "unpack_call",
    "unpack_exception",
    "unpack_value",
]

_PROTOCOL = 5
_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray})
_CONTAINERS = frozenset({list, tuple, set, frozenset, dict})
_LONGEST_TEXT = 1000  # of an error in a line
_LONGEST_TRACE = 64 << 10  # characters: the message of an exception may be as long as a file
_LOOK_AT = 256  # elements looked at before a container is taken for one that has to prove itself


class Unsendable(Exception):
    """Something cannot travel; the text says what and why, ``__cause__`` is the pickler's own error."""


class RemoteTraceback(Exception):
    """The traceback of an exception where it was raised, as text: the ``__cause__`` of what comes back."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def pack_call(
    fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], *, fresh_locks: bool = False
) -> bytes:
    """The call as bytes.

    Args:
        fn: what to call.
        args: its positional arguments.
        kwargs: its keyword arguments.
        fresh_locks: whether plain locks in all of this travel as new, free ones.

    Raises:
        Unsendable: names the function or the argument that does not pickle, and why.
    """
    call = (fn, tuple(args), dict(kwargs))
    try:
        data = _dumps_with_fresh_locks(call) if fresh_locks else pickle.dumps(call, _PROTOCOL)
    except KeyboardInterrupt:
        raise
    except BaseException:
        # Whatever plain pickle refuses may still be fine by value; SystemExit in a __reduce__ is no reason to exit.
        data = b"__main__"
    if b"__main__" not in data and not _by_value_wanted():
        return data
    try:
        return _dumps_by_value(call, fresh_locks=fresh_locks)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise Unsendable(_blame(fn, args, kwargs, error, fresh_locks=fresh_locks)) from error


def _dumps_with_fresh_locks(value: object) -> bytes:
    from resilient_exec.wire import locks

    return locks.dumps(value, _PROTOCOL)


def _dumps_by_value(value: object, *, fresh_locks: bool) -> bytes:
    if fresh_locks:
        from resilient_exec.wire import locks

        return locks.dumps_by_value(value, _PROTOCOL)
    import cloudpickle

    return bytes(cloudpickle.dumps(value, _PROTOCOL))


def _by_value_wanted() -> bool:
    """Whether the user has asked cloudpickle to send some module by value, which plain pickle would not know."""
    import sys

    cloudpickle = sys.modules.get("cloudpickle")
    return cloudpickle is not None and bool(cloudpickle.list_registry_pickle_by_value())


def _blame(
    fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], error: BaseException, *, fresh_locks: bool
) -> str:
    parts: list[tuple[str, str, object]] = [("the function", "the function", fn)]
    for i, (name, arg) in enumerate(zip(_positional_names(fn, len(args)), args, strict=True)):
        parts.append(
            (f"argument {i + 1} ({name!r})" if name else f"argument {i + 1}", name or f"argument {i + 1}", arg)
        )
    parts += [(f"argument {name!r}", name, arg) for name, arg in kwargs.items()]
    for what, name, part in parts:
        try:
            _dumps_by_value(part, fresh_locks=fresh_locks)
        except KeyboardInterrupt:
            raise
        except BaseException as cause:
            why = _why(part, name, cause, fresh_locks=fresh_locks, returned=False)
            return f"{what}, of type {_type_name(part)}, cannot be pickled: {why}"
    return f"the call cannot be pickled: {text_of(error)}"


def _positional_names(fn: Callable[..., Any], count: int) -> list[str]:
    """What the function calls its first ``count`` positional arguments; empty texts where that is not known."""
    import inspect

    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except KeyboardInterrupt:
        raise
    except BaseException:  # not known, or a __signature__ of the user's that raises
        parameters = []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [one.name for one in parameters if one.kind in kinds][:count]
    rest = next((one.name for one in parameters if one.kind is inspect.Parameter.VAR_POSITIONAL), "")
    return names + [f"{rest}[{i}]" if rest else "" for i in range(count - len(names))]


def _why(part: object, name: str, error: BaseException, *, fresh_locks: bool, returned: bool) -> str:
    if fresh_locks:
        return explain(part, name, error, _fresh_locks_pickler, returned=returned)
    return explain(part, name, error, _pickler, for_locks="use fresh_locks=True", returned=returned)


def _pickler() -> type[pickle.Pickler]:
    import cloudpickle

    by_value: type[pickle.Pickler] = cloudpickle.Pickler
    return by_value


def _fresh_locks_pickler() -> type[pickle.Pickler]:
    from resilient_exec.wire import locks

    return locks.by_value_pickler()


def explain(
    part: object,
    name: str,
    error: BaseException,
    pickler: Callable[[], type[pickle.Pickler]],
    *,
    for_locks: str = "",
    returned: bool = False,
) -> str:
    """In one line: what in ``part`` does not pickle, where it is, why, and what to do about it.

    Args:
        part: what does not pickle.
        name: what the path to the culprit begins with.
        error: what pickling ``part`` has raised.
        pickler: gives the class of the pickler that raised it.
        for_locks: what else may be done about a plain lock.
        returned: whether ``part`` comes back from a worker.
    """
    try:
        from resilient_exec.wire import culprit

        if isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError):
            nesting = culprit.find_nesting(part, name, pickler())
            if nesting:
                return f"it is nested too deeply, along {nesting} ({text_of(error)}); {culprit.FLATTEN}"
        found = culprit.find(part, name, pickler())
        if found is None:
            return text_of(error)
        remedy = culprit.remedy(found, part, for_locks=for_locks, returned=returned)
        if found.value is part:
            return f"{text_of(found.error)}{remedy}"
        return f"{found.path} is a {_type_name(found.value)} ({text_of(found.error)}){remedy}"
    except KeyboardInterrupt:
        raise
    except BaseException:  # no descriptor left for an import, no stack left for a search
        return text_of(error)


def unpack_call(data: bytes | memoryview) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """The call again, in the worker."""
    call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]] = pickle.loads(data)
    return call


def _dumps(value: object, *, fresh_locks: bool) -> bytes:
    try:
        return _dumps_with_fresh_locks(value) if fresh_locks else pickle.dumps(value, _PROTOCOL)
    except Exception:
        return _dumps_by_value(value, fresh_locks=fresh_locks)  # carries local classes and functions back


def pack_value(value: object, *, fresh_locks: bool = False) -> bytes:
    """A result as bytes, proven to unpickle.

    Args:
        value: the result.
        fresh_locks: whether plain locks in it travel as new, free ones.

    Raises:
        Unsendable: it does not pickle, or what it pickles to does not unpickle.
    """
    try:
        data = _dumps(value, fresh_locks=fresh_locks)
    except Exception as error:
        why = _why(value, "result", error, fresh_locks=fresh_locks, returned=True)
        raise Unsendable(f"the result, of type {_type_name(value)}, cannot be pickled: {why}") from error
    if not _is_plain(value):
        try:
            pickle.loads(data)
        except Exception as error:
            text = f"the result, of type {_type_name(value)}, pickles but cannot be unpickled: {text_of(error)}"
            raise Unsendable(text) from error
    return data


def _is_plain(value: object) -> bool:
    """Whether unpickling ``value`` runs nothing but the unpickler's and numpy's own code."""
    kind = type(value)
    if kind in _ATOMS:
        return True
    if kind in _CONTAINERS:
        return _all_atoms(value)
    if kind.__module__ == "numpy":
        return not getattr(getattr(value, "dtype", None), "hasobject", True)
    return False


def _all_atoms(value: Any) -> bool:
    if len(value) > _LOOK_AT:
        return False
    if type(value) is dict:
        return all(type(k) in _ATOMS and type(v) in _ATOMS for k, v in value.items())
    return all(type(item) in _ATOMS for item in value)


def unpack_value(data: bytes | memoryview) -> Any:
    """A result again, in the parent (in the thread of its lane)."""
    return pickle.loads(data)


def pack_exception(error: BaseException, *, fresh_locks: bool = False) -> bytes:
    """An exception as bytes that are proven to unpickle, with its traceback as text; raises nothing.

    Args:
        error: the exception.
        fresh_locks: whether plain locks that it holds travel as new, free ones.
    """
    trace = _trace(error)
    for recipe, is_as_good in ((_whole, _is_same), (_parts, _is_of_type), (_whole, _is_of_type)):
        with contextlib.suppress(BaseException):  # methods of the user's run: a SystemExit of theirs is no exit of ours
            how, parts = recipe(error)
            packed = how, _dumps(parts, fresh_locks=fresh_locks)
            if is_as_good(_rebuild(*packed), error):
                return pickle.dumps((*packed, trace), _PROTOCOL)
    text = f"the task raised {_type_name(error)}, which cannot travel between processes; it said: {text_of(error)}"
    with contextlib.suppress(BaseException):
        text += _reason(error, fresh_locks=fresh_locks)
    return pickle.dumps(("stand-in", text.encode(errors="replace"), trace), _PROTOCOL)


def _whole(error: BaseException) -> tuple[str, object]:
    return "whole", error


def _parts(error: BaseException) -> tuple[str, object]:
    return "parts", (type(error), error.args, dict(error.__dict__))


def _reason(error: BaseException, *, fresh_locks: bool) -> str:
    """Why an exception cannot travel, where that is because it does not pickle."""
    try:
        _dumps(error, fresh_locks=fresh_locks)
    except Exception as cause:
        return f"; it cannot be pickled: {_why(error, 'error', cause, fresh_locks=fresh_locks, returned=True)}"
    return ""


def _is_of_type(rebuilt: BaseException, error: BaseException) -> bool:
    return type(rebuilt) is type(error)


def _is_same(rebuilt: BaseException, error: BaseException) -> bool:
    """Whether it came back as it was.  One that says by itself how it is pickled is taken at its word."""
    by_itself = any(isinstance(getattr(type(error), name), FunctionType) for name in ("__reduce__", "__reduce_ex__"))
    return _is_of_type(rebuilt, error) and (by_itself or bool(rebuilt.args == error.args))


def _rebuild(how: str, data: bytes) -> BaseException:
    if how == "stand-in":
        return NotSendable(data.decode(errors="replace"))
    rebuilt = pickle.loads(data)
    if how == "whole":
        whole: BaseException = rebuilt
        return whole
    cls, args, state = rebuilt
    error: BaseException = cls.__new__(cls, *args)
    # By the slot itself: a frozen dataclass that is an exception refuses setattr.
    vars(BaseException)["args"].__set__(error, args)
    error.__dict__.update(state)
    return error


def unpack_exception(data: bytes | memoryview) -> BaseException:
    """The exception again, with the remote traceback as its ``__cause__``."""
    how, packed, trace = pickle.loads(data)
    error = _rebuild(how, packed)
    # By the slot itself: a frozen dataclass that is an exception refuses setattr.
    vars(BaseException)["__cause__"].__set__(error, RemoteTraceback(trace))
    return error


def _trace(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))[-_LONGEST_TRACE:]
    except BaseException:  # a __str__ or __repr__ of the user's that raises
        return f"{_type_name(error)} (its traceback could not be rendered)\n"


def _type_name(value: object) -> str:
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def text_of(error: BaseException) -> str:
    """The error in one line."""
    try:
        text = " ".join(f"{type(error).__name__}: {error}".split())
    except BaseException:  # a __str__ of the user's that raises
        return type(error).__name__
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."
