"""Functions and classes by value, where cloudpickle's own way loses something: their source, and annotations.

* cloudpickle calls the file of all code that it sends ``<dynamic-code>``.  Here it keeps its name, so that tracebacks
  and stacks show file, line and source.  Of what is in no file (the cell of a notebook, the line of a session) the text
  goes along, to where tracebacks look for it.
* From Python 3.14 annotations are evaluated when they are asked for, and fail where they name what is imported under
  ``TYPE_CHECKING`` only.  Those travel as texts.
* ``NewType``, ``ParamSpec`` and the like pickle as a name in ``__main__``, which is not there; they are made anew.

It is for what lives in ``__main__`` of a child of multiprocessing's, ``__mp_main__``, as for ``__main__`` itself.
"""

from __future__ import annotations

import functools
import importlib
import linecache
import os
import pickle
import sys
import typing
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

import cloudpickle as public
from cloudpickle import cloudpickle

from resilient_exec.wire.script import IMPORTED, MAIN_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_exec.wire.script import Known

__all__ = ["by_value_pickler", "make_code", "with_script"]

_CALLED_BY_CLOUDPICKLE = "<dynamic-code>"
_EVALUATES_LATE = sys.version_info >= (3, 14)  # annotations
_LONGEST_SOURCE = 1 << 20  # characters of a cell that go along


@functools.lru_cache(maxsize=32)
def by_value_pickler(
    script: Known | None,
    reducers: Callable[[], dict[type, Callable[[Any], Any]]],
    make_table: Callable[[dict[type, Any], dict[type, Any]], dict[type, Any]],
) -> type[pickle.Pickler]:
    """The class of the pickler; called as ``pickler(file, protocol, buffer_callback=...)``.

    Args:
        script: what the other side has of ``__main__``.
        reducers: gives further ones, which go before cloudpickle's own.
        make_table: makes one table of these two.
    """
    base: Any = public.Pickler

    class ByValuePickler(base):  # type: ignore[misc]
        def __init__(self, file: Any, protocol: int | None = None, buffer_callback: Any = None) -> None:
            super().__init__(file, protocol, buffer_callback)
            # Nothing of the table may lead back to the pickler, whose memo holds all that it has pickled.
            code = functools.partial(_reduce_code, base.dispatch_table[CodeType], set())
            table = make_table({**base.dispatch_table, **_of_typing(), CodeType: code}, reducers())
            # By the slot itself, which the class attribute of cloudpickle's hides; the attribute is for who reads it.
            vars(pickle.Pickler)["dispatch_table"].__set__(self, table)
            self.dispatch_table = table

        def _dynamic_function_reduce(self, function: FunctionType) -> Any:
            return super()._dynamic_function_reduce(_presentable(function))

    return with_script(ByValuePickler, script)


def with_script(base: Any, script: Known | None) -> type[pickle.Pickler]:
    """The same pickler, a class, which sends by reference what ``script`` has, and all else of the script by value."""

    class ScriptPickler(base):  # type: ignore[misc]
        def reducer_override(self, thing: Any) -> Any:
            kind = type(thing)
            is_class = issubclass(kind, type)
            if is_class or kind is FunctionType:
                home = thing.__module__
                if home in MAIN_NAMES and script is not None and script.has(thing):
                    return NotImplemented  # by name
                if home == IMPORTED:  # cloudpickle knows the other name alone
                    return _reduce_class(thing) if is_class else self._dynamic_function_reduce(thing)
            override = getattr(super(), "reducer_override", None)
            reduced = NotImplemented if override is None else override(thing)
            return _with_annotations(thing, reduced) if is_class else reduced

    return ScriptPickler


def _reduce_class(cls: type) -> Any:
    return _with_annotations(cls, cloudpickle._dynamic_class_reduce(cls))


# -- the source --------------------------------------------------------------------------------------------------------


def _reduce_code(reduce: Callable[[CodeType], Any], sent: set[str], code: CodeType) -> tuple[Any, ...]:
    """As ``reduce``, cloudpickle's own, does, with the file's name, and its text unless that is in ``sent``."""
    make, parts = reduce(code)
    if make is not CodeType or _CALLED_BY_CLOUDPICKLE not in parts:
        return make, parts  # another version of cloudpickle's
    text = "" if code.co_filename in sent else _text_of(code.co_filename)
    sent.add(code.co_filename)
    at = parts.index(_CALLED_BY_CLOUDPICKLE)
    return make_code, (text, at, (*parts[:at], code.co_filename, *parts[at + 1 :]))


def make_code(text: str, at: int, parts: tuple[Any, ...]) -> CodeType:
    """The code again; its file's name is ``parts[at]``, and its text, if it is in no file of this system, ``text``."""
    name = parts[at]
    if text and name not in linecache.cache:
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    return CodeType(*parts)


def _text_of(name: str) -> str:
    if os.path.exists(name):
        return ""
    text = "".join(linecache.getlines(name))
    return text if len(text) <= _LONGEST_SOURCE else ""


# -- typing ------------------------------------------------------------------------------------------------------------


@functools.cache
def _of_typing() -> dict[type, Callable[[Any], Any]]:
    found: dict[type, Callable[[Any], Any]] = {typing.NewType: _reduce_new_type}
    kinds = (typing.ParamSpec, typing.TypeVarTuple, getattr(typing, "TypeAliasType", None))  # the last is from 3.12
    found.update({kind: _reduce_named for kind in kinds if kind is not None})
    if _EVALUATES_LATE:
        found[typing.ForwardRef] = lambda ref: (typing.ForwardRef, (ref.__forward_arg__,))
    return found


def _reduce_new_type(kind: Any) -> Any:
    if kind.__module__ not in MAIN_NAMES:
        return kind.__reduce__()
    return typing.NewType, (kind.__name__, kind.__supertype__)


def _reduce_named(thing: Any) -> Any:
    if thing.__module__ not in MAIN_NAMES:
        return thing.__reduce__()
    if type(thing) in (typing.ParamSpec, typing.TypeVarTuple):
        return type(thing), (thing.__name__,)
    return type(thing), (thing.__name__, thing.__name__)  # an alias, which may name itself: its name stands for it


# -- annotations -------------------------------------------------------------------------------------------------------


def _presentable(function: FunctionType) -> FunctionType:
    """The function, or a copy with annotations that can be sent."""
    if not _EVALUATES_LATE:
        return function
    try:
        function.__annotations__  # noqa: B018  evaluated here
    except Exception:
        copy = FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
        )
        copy.__dict__.update(function.__dict__)
        copy.__kwdefaults__, copy.__doc__ = function.__kwdefaults__, function.__doc__
        copy.__qualname__, copy.__module__ = function.__qualname__, function.__module__
        copy.__annotations__ = _annotations_of(function)
        return copy
    return function


def _with_annotations(cls: type, reduced: Any) -> Any:
    """The reduction of a class with its annotations, of which cloudpickle sends none from Python 3.14."""
    setter = getattr(cloudpickle, "_class_setstate", None)
    if not _EVALUATES_LATE or type(reduced) is not tuple or len(reduced) != 6 or reduced[5] is not setter:
        return reduced
    annotations = _annotations_of(cls)
    attributes, slots = reduced[2]
    if annotations and "__annotations__" not in attributes:
        reduced = (*reduced[:2], ({**attributes, "__annotations__": annotations}, slots), *reduced[3:])
    return reduced


def _annotations_of(thing: Any) -> dict[str, Any]:
    """The values of annotations as far as they have one, and else their texts."""
    annotationlib: Any = importlib.import_module("annotationlib")  # from 3.14
    try:
        values = annotationlib.get_annotations(thing, format=annotationlib.Format.FORWARDREF)
        texts = annotationlib.get_annotations(thing, format=annotationlib.Format.STRING)
        return {name: texts.get(name, "") if "ForwardRef(" in repr(value) else value for name, value in values.items()}
    except Exception:  # an annotation that raises something else
        return {}
