"""Pickling: calls on their way out, values and exceptions on their way back.

*Calls.*  Plain pickle first (2.5 µs where cloudpickle takes 10), cloudpickle for what plain pickle refuses and for
whatever mentions ``__main__``: what lives there travels by value, unless the workers import it (:mod:`script`).

*Values.*  A result whose unpickling raises, hangs or ends the process must do so in the worker, under the
attempt's own deadline, and not in the parent among everybody's results.  So unless it is made of plain built-in
or numpy types, it **proves itself**: the worker unpickles its own pickle before sending it.

*Exceptions* come back as they were: same type, same ``args``, the remote traceback as ``__cause__``.  One that its
own class cannot rebuild travels as type, ``args`` and ``__dict__``; one that cannot travel at all arrives as a
``NotSendable`` with its type's name, its text and its traceback.

*What cannot travel* is named with the way to it, ``agent._logger._lock`` (:mod:`explanation`).  With ``fresh_locks``
plain locks travel, too (:mod:`locks`).
"""

from __future__ import annotations

import contextlib
import pickle
import traceback
from types import BuiltinFunctionType, FunctionType, ModuleType

from resilient_exec.model.worker_errors import NotSendable
from resilient_exec.wire import buffers, pickling
from resilient_exec.wire.buffers import Pieces, pieces
from resilient_exec.wire.explanation import Rules, blame, reason_of, text_of, type_name
from resilient_exec.wire.pickling import PROTOCOL
from resilient_exec.wire.script import MAIN_NAMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from resilient_exec.wire.script import Known

__all__ = [
    "RemoteTraceback",
    "Unsendable",
    "by_name",
    "may_go_with_others",
    "pack_arguments",
    "pack_by_name",
    "pack_call",
    "pack_exception",
    "pack_value",
    "text_of",
    "trace_of",
    "unpack_arguments",
    "unpack_call",
    "unpack_exception",
    "unpack_value",
]

_MAIN = b"main__"  # in whatever names __main__ or __mp_main__
_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray})
_NUMBERS = frozenset({type(None), bool, int, float, complex})
_PLAIN = _NUMBERS | {str, bytes}
_SHORT = 4 << 10  # bytes or characters
_CONTAINERS = frozenset({list, tuple, set, frozenset, dict})
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
    fn: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    fresh_locks: bool = False,
    script: Known | None = None,
    named: Callable[..., Any] | None = None,
) -> bytes | Pieces:
    """The call as a message, in which large buffers are still where the caller has them.

    Args:
        fn: what to call.
        args: its positional arguments.
        kwargs: its keyword arguments.
        fresh_locks: whether plain locks in all of this travel as new, free ones.
        script: what the workers have of ``__main__``; what they do not have travels by value.
        named: what errors call the function, if it is another one.

    Raises:
        Unsendable: names the function or the argument that does not pickle, and why.
    """
    call = (fn, tuple(args), dict(kwargs))
    plain = _dumps_plain_call(call, script)
    if plain is not None:
        return plain
    rules = Rules(fresh_locks, script)
    data = None
    if script is not None or not _is_plainly_of_main((fn, *args)):
        try:
            data = _dumps_call(call, rules)
        except KeyboardInterrupt:
            raise
        except BaseException:
            # Whatever plain pickle refuses may still be fine by value; SystemExit in a __reduce__ is no reason to exit.
            data = None
    if data is not None and not _by_value_wanted():
        return data
    try:
        found: list[memoryview] = []
        return pieces(pickling.dumps_by_value(call, **rules.as_arguments(), buffers=found), found)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise Unsendable(blame(named or fn, args, kwargs, error, rules)) from error


def by_name(fn: Callable[..., Any], script: Known | None) -> bytes | None:
    """A call of a function without arguments, if that goes by its name; ``None``: it does not."""
    return _dumps_plain_call((fn, (), {}), script)


class _Named:
    """A call of a function that went by its name when it was pickled, and does so no more: another has that now."""

    def __init__(self, head: bytes, args: tuple[Any, ...]) -> None:
        self._head, self._args = head, args

    def __reduce__(self) -> tuple[Any, ...]:
        return _call_of, (self._head, self._args)


def _call_of(head: bytes, args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    return pickle.loads(head)[0], args, {}


def pack_by_name(fn: Callable[..., Any], head: bytes, args: tuple[Any, ...]) -> bytes:
    """A call of a function of which :func:`by_name` has made ``head``, with plain arguments; it never fails."""
    try:
        return pickle.dumps((fn, args, {}), PROTOCOL)
    except Exception:
        return pickle.dumps(_Named(head, args), PROTOCOL)


def may_go_with_others(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether these arguments are short, nobody can change them, and nobody's code is run when they are pickled."""
    kinds = set(map(type, args))
    if kwargs or not _PLAIN.issuperset(kinds):
        return False
    return _NUMBERS.issuperset(kinds) or sum(len(arg) for arg in args if type(arg) in (str, bytes)) <= _SHORT


def pack_arguments(
    fn: Callable[..., Any], args: Sequence[Any], *, fresh_locks: bool = False, script: Known | None = None
) -> bytes | Pieces:
    """The arguments of a call of ``fn`` by themselves, as :func:`pack_call` packs them with it; raises as that does."""
    return pack_call(_take, args, {}, fresh_locks=fresh_locks, script=script, named=fn)


def unpack_arguments(data: bytes | memoryview | Pieces) -> tuple[Any, ...]:
    """The arguments again, in the worker."""
    return unpack_call(data)[1]


def _take(*args: Any) -> tuple[Any, ...]:
    return args


def _is_plainly_of_main(parts: tuple[Any, ...]) -> bool:
    """Whether one of them is a function of ``__main__``: no need to find that out by pickling all of them first."""
    return any(type(part) is FunctionType and part.__module__ in MAIN_NAMES for part in parts)


def _dumps_plain_call(call: tuple[Any, tuple[Any, ...], dict[str, Any]], script: Known | None) -> bytes | None:
    """Pickle a function that goes by its name, with arguments without reducers; ``None``: it is another call."""
    fn, args, kwargs = call
    kind = type(fn)
    if kind is not FunctionType and not (kind is BuiltinFunctionType and type(fn.__self__) is ModuleType):
        return None  # a method, or what has reducers of its own
    if not _ATOMS.issuperset(map(type, args)):
        return None
    if kwargs and not _ATOMS.issuperset(map(type, kwargs.values())):
        return None
    if (fn.__module__ in MAIN_NAMES and (script is None or not script.has(fn))) or _by_value_wanted():
        return None
    try:
        return pickle.dumps(call, PROTOCOL)
    except Exception:  # it is not what its name stands for
        return None


def _dumps_call(call: tuple[Any, tuple[Any, ...], dict[str, Any]], rules: Rules) -> bytes | Pieces | None:
    """Pickle plainly; ``None``: it may name what is not there."""
    found: list[memoryview] = []
    data = pickling.dumps(call, **rules.as_arguments(), buffers=found)
    return pieces(data, found) if rules.script is not None or _MAIN not in data else None


def _by_value_wanted() -> bool:
    """Whether the user has asked cloudpickle to send some module by value, which plain pickle would not know."""
    import sys

    cloudpickle: Any = sys.modules.get("cloudpickle")
    return cloudpickle is not None and bool(cloudpickle.list_registry_pickle_by_value())


def unpack_call(data: bytes | memoryview | Pieces) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """The call again, in the worker; its large buffers are those of the message."""
    call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]] = buffers.loads(data)
    return call


def _dumps(value: object, rules: Rules, found: list[memoryview] | None = None) -> bytes:
    try:
        return pickling.dumps(value, fresh_locks=rules.fresh_locks, buffers=found)
    except Exception:
        if found:
            found.clear()
        return pickling.dumps_by_value(value, **rules.as_arguments(), buffers=found)  # local classes and functions, too


def pack_value(value: object, *, fresh_locks: bool = False, script: Known | None = None) -> bytes | Pieces:
    """A result as a message, proven to unpickle, in which large buffers are still where the task has them.

    Args:
        value: the result.
        fresh_locks: whether plain locks in it travel as new, free ones.
        script: what the parent has of ``__main__``.

    Raises:
        Unsendable: it does not pickle, or what it pickles to does not unpickle.
    """
    if type(value) in _ATOMS:
        return pickle.dumps(value, PROTOCOL)
    rules = Rules(fresh_locks, script)
    try:
        found: list[memoryview] = []
        data = pieces(_dumps(value, rules, found), found)
    except Exception as error:
        why = reason_of(value, "result", error, rules, returned=True)
        raise Unsendable(f"the result, of type {type_name(value)}, cannot be pickled: {why}") from error
    if not _is_plain(value) and not pickling.has_handles():  # these can be fetched once: by who gets it
        try:
            _prove(data)
        except Exception as error:
            text = f"the result, of type {type_name(value)}, pickles but cannot be unpickled: {text_of(error)}"
            raise Unsendable(text) from error
    return data


def _prove(data: bytes | Pieces) -> None:
    if isinstance(data, Pieces):
        with contextlib.suppress(Exception):  # what writes into its buffers, as it may, is to do so to a copy
            buffers.loads_readonly(data)
            return
    buffers.loads(data)


def _is_plain(value: Any) -> bool:
    """Whether unpickling ``value`` runs nothing but the unpickler's and numpy's own code."""
    kind = type(value)
    if kind in _CONTAINERS:
        return len(value) <= _LOOK_AT and (
            all(map(_is_atom, value)) and (kind is not dict or all(map(_is_atom, value.values())))
        )
    return _is_atom(value)


def _is_atom(value: object) -> bool:
    kind = type(value)
    if kind.__module__ == "numpy":
        return not getattr(getattr(value, "dtype", None), "hasobject", True)
    return kind in _ATOMS


def unpack_value(data: bytes | memoryview | Pieces) -> Any:
    """A result again, in the parent; its large buffers are those of the message."""
    return buffers.loads(data)


def pack_exception(error: BaseException, *, fresh_locks: bool = False, script: Known | None = None) -> bytes:
    """An exception as bytes that are proven to unpickle, with its traceback as text; raises nothing.

    Args:
        error: the exception.
        fresh_locks: whether plain locks that it holds travel as new, free ones.
        script: what the parent has of ``__main__``.
    """
    rules = Rules(fresh_locks, script)
    trace = _trace(error)
    said = f"{type_name(error)}, said: {text_of(error)}"
    for recipe, is_as_good in ((_whole, _is_same), (_parts, _is_of_type), (_whole, _is_of_type)):
        with contextlib.suppress(BaseException):  # methods of the user's run: a SystemExit of theirs is no exit of ours
            how, parts = recipe(error)
            packed = how, _dumps(parts, rules)
            if pickling.has_handles() or is_as_good(_rebuild(*packed), error):
                return _pack(*packed, trace, said)
    text = f"the task raised {type_name(error)}, which cannot travel between processes; it said: {text_of(error)}"
    with contextlib.suppress(BaseException):
        text += _reason(error, rules)
    return _pack("stand-in", text.encode(errors="replace"), trace, said)


def _pack(how: str, data: bytes, trace: str, said: str) -> bytes:
    return pickle.dumps((how, data, trace, said), PROTOCOL)


def _whole(error: BaseException) -> tuple[str, object]:
    return "whole", error


def _parts(error: BaseException) -> tuple[str, object]:
    return "parts", (type(error), error.args, dict(error.__dict__))


def _reason(error: BaseException, rules: Rules) -> str:
    """Why an exception cannot travel, where that is because it does not pickle."""
    try:
        _dumps(error, rules)
    except Exception as cause:
        return f"; it cannot be pickled: {reason_of(error, 'error', cause, rules, returned=True)}"
    return ""


def _is_of_type(rebuilt: BaseException, error: BaseException) -> bool:
    return type(rebuilt) is type(error)


def _is_same(rebuilt: BaseException, error: BaseException) -> bool:
    """Whether it came back as it was.  One that says by itself how it is pickled is taken at its word."""
    by_itself = any(isinstance(getattr(type(error), name), FunctionType) for name in ("__reduce__", "__reduce_ex__"))
    return _is_of_type(rebuilt, error) and (by_itself or bool(rebuilt.args == error.args))


def _rebuild(how: str, data: bytes) -> BaseException:
    if how == "stand-in":
        return _stand_in(data.decode())
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
    """The exception again, with the remote traceback as its ``__cause__``.

    One that cannot be made again here (its class can be imported in the worker alone) is a ``NotSendable`` that says
    what it was, and said.
    """
    how, packed, trace, said = pickle.loads(data)
    try:
        error = _rebuild(how, packed)
    except Exception as problem:
        text = f"the task raised {said}; it cannot be made again in this process: {text_of(problem)}"
        error = _stand_in(text)
    # By the slot itself: a frozen dataclass that is an exception refuses setattr.
    vars(BaseException)["__cause__"].__set__(error, RemoteTraceback(trace))
    return error


def _stand_in(text: str) -> NotSendable:
    error = NotSendable(text)
    error.__dict__["is_incomplete"] = True  # who knows the task adds its key, and what is known of it
    return error


def trace_of(data: bytes | memoryview) -> str:
    """The remote traceback of a packed exception, which is not unpickled for it."""
    return str(pickle.loads(data)[2])


def _trace(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))[-_LONGEST_TRACE:]
    except BaseException:  # a __str__ or __getattribute__ of the user's that raises
        lines = traceback.format_tb(vars(BaseException)["__traceback__"].__get__(error))
        return f"{''.join(lines)[-_LONGEST_TRACE:]}{type_name(error)} (the rest of its traceback cannot be rendered)\n"
