"""What all worlds of a tournament share, on its way to the workers: packed once, unpacked once in each worker.

negmas names competitors by strings (``"__main__.Mine"``) and looks them up where a world is built.  A script with a
guard is imported by the workers, and has them; what lives in another ``__main__`` (an unguarded script would run again,
and a notebook has nothing to import) is sent *by value* and put into the worker's ``__main__`` under its names.  Scores
name ``__main__.Mine`` either way, as a serial run does: a class of an imported script would name ``__mp_main__``.

They are packed together with the generator, the score calculator and the callback, in one pickle: functions of
``__main__`` that share a global variable share it in the worker, too.

What cannot travel is found here, before the first world, and named: a callback that holds an open file says which.
"""

from __future__ import annotations

import functools
import pickle
import re
import sys
import types
from typing import TYPE_CHECKING, Any

from resilient_exec.model.errors import NotSendable
from resilient_exec.wire import pickling
from resilient_exec.wire.script import IMPORTED, find_script

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from resilient_exec.wire.script import Known

__all__ = ["main_names", "name_as_serial_runs_do", "pack", "unpack"]

_MENTION = re.compile(r"__main__\.([^\W\d]\w*)")
_DEEPEST = 6  # steps from what cannot travel to the reason


def main_names(*places: Any) -> dict[str, Any]:
    """What the strings in ``places`` (nested dicts and lists) name in this program's ``__main__``.

    Raises:
        LookupError: a string is the name of something in ``__main__`` that does not exist.
    """
    main = vars(sys.modules["__main__"])
    found: dict[str, Any] = {}
    for text in _strings(places):
        for name in _MENTION.findall(text):
            if name in main:
                found[name] = main[name]
            elif text == f"__main__.{name}":
                raise LookupError(
                    f"the tournament's configuration names {text!r}, but this program defines no {name!r}: run it "
                    "from the script that created it, or define the class in a module and name it from there"
                )
    return found


def _strings(place: Any) -> Iterator[str]:
    if isinstance(place, str):
        if "__main__" in place:
            yield place
    elif isinstance(place, dict):
        for key, value in place.items():
            yield from _strings(key)
            yield from _strings(value)
    elif isinstance(place, list | tuple):
        for value in place:
            if not isinstance(value, int | float):
                yield from _strings(value)


def pack(main: Mapping[str, Any], shared: Mapping[str, Any]) -> bytes:
    """Both as bytes.

    Args:
        main: what is to be in the worker's ``__main__``, by name.
        shared: what :func:`unpack` is to return, by the name that errors use.

    Raises:
        NotSendable: names what cannot travel, and why.
    """
    script = find_script("auto")  # as the pool to come will find it
    try:
        missing = {name: value for name, value in main.items() if not _is_there(value, script)}
        return pickling.dumps_by_value((missing, dict(shared)), script=script)
    except Exception as error:
        named = {f"the class or function __main__.{name}": value for name, value in main.items()}
        for name, value in {**named, **shared}.items():
            why = _refusal(value, script)
            if why is not None:
                trail = " -> ".join(_trail(value, why, _DEEPEST, script))
                raise NotSendable(
                    f"{name} cannot be sent to a worker process: {why}{f' (found at: {trail})' if trail else ''}. "
                    "Whatever it needs there, it must make there: open files and take locks inside the function, "
                    "or keep them in a module of their own"
                ) from error
        raise NotSendable(f"the tournament cannot be sent to a worker process: {error}") from error


def _is_there(value: Any, script: Known | None) -> bool:
    return script is not None and isinstance(value, type | types.FunctionType) and script.has(value)


def unpack(packed: bytes) -> dict[str, Any]:
    """In the worker: fill ``__main__``, return the rest."""
    name_as_serial_runs_do()
    main, shared = pickle.loads(packed)
    vars(sys.modules["__main__"]).update(main)
    result: dict[str, Any] = shared
    return result


def name_as_serial_runs_do() -> None:
    """In the worker: let the classes of an imported script say that they are from ``__main__``."""
    for value in list(vars(sys.modules["__main__"]).values()):
        if isinstance(value, type) and value.__module__ == IMPORTED:
            value.__module__ = "__main__"


def _refusal(value: Any, script: Known | None) -> str | None:
    try:
        pickling.dumps_by_value(value, script=script)
    except Exception as error:
        return str(error) or type(error).__name__
    return None


def _trail(value: Any, why: str, steps: int, script: Known | None) -> list[str]:
    """The way from ``value`` to the innermost part of it that is refused for the same reason."""
    if steps == 0:
        return []
    for name, part in _parts(value):
        if _refusal(part, script) == why:
            return [name, *_trail(part, why, steps - 1, script)]
    return []


def _parts(value: Any) -> Iterable[tuple[str, Any]]:
    """What pickling ``value`` by value would pickle, each with words for people."""
    if isinstance(value, functools.partial):
        return [("the function of a partial", value.func), *_items(value.args), *_items(value.keywords)]
    if isinstance(value, types.MethodType):
        return [("the object of a bound method", value.__self__)]
    if isinstance(value, types.FunctionType):
        return _parts_of_function(value)
    if isinstance(value, type):
        own = {name: part for name, part in vars(value).items() if name not in {"__dict__", "__weakref__"}}
        return [(f"{value.__name__}.{name}", part) for name, part in own.items()]
    if isinstance(value, dict | list | tuple):
        return list(_items(value))
    return [(f"attribute {name!r}", part) for name, part in getattr(value, "__dict__", {}).items()]


def _parts_of_function(function: types.FunctionType) -> list[tuple[str, Any]]:
    names = _globals_of(function.__code__)
    parts = [(f"global {name!r}", function.__globals__[name]) for name in sorted(names & function.__globals__.keys())]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        parts.append((f"variable {name!r}", cell.cell_contents))
    parts += [("a default value", default) for default in function.__defaults__ or ()]
    return parts


def _globals_of(code: types.CodeType) -> set[str]:
    nested = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*map(_globals_of, nested))


def _items(place: Any) -> Iterator[tuple[str, Any]]:
    pairs = place.items() if isinstance(place, dict) else enumerate(place)
    for key, part in pairs:
        yield f"element {key!r}", part
