"""The picklers: plain, and by value; with whose reducers, and what of ``__main__`` goes by reference.

*Plain* is Python's own pickler with what multiprocessing's ``ForkingPickler`` knows besides (shared objects, and what
users have registered there).  *By value* is cloudpickle's, for what plain pickling refuses and for what lives in
``__main__``: unless the workers import the script (:mod:`script`), and have it.

Large buffers (protocol 5: numpy's arrays, and what is made of them) are not copied into the pickle, if the caller asks
for that, but stay references to the memory that they are in (:mod:`buffers`).
"""

from __future__ import annotations

import copyreg
import functools
import io
import pickle
import sys
import threading
from types import FunctionType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from resilient_exec.wire.script import Known

__all__ = ["PROTOCOL", "ByValue", "by_value_pickler", "dumps", "dumps_by_value", "has_handles", "start_pickler"]

PROTOCOL = 5
_LARGE = 64 << 10  # bytes; a smaller buffer is copied into the pickle, which costs less than to send it apart


def dumps(
    value: object,
    *,
    fresh_locks: bool = False,
    script: Known | None = None,
    buffers: list[memoryview] | None = None,
) -> bytes:
    """Pickle plainly.

    Args:
        value: what to pickle.
        fresh_locks: whether plain locks travel as new, free ones.
        script: what the other side has of ``__main__``; ``None``: that is not looked at.
        buffers: takes the large buffers, which are not in the pickle then; ``None``: all is in it.

    Raises:
        ByValue: a function or class of ``__main__`` is not among what ``script`` has.
    """
    file = io.BytesIO()
    kind = pickle.Pickler if script is None else _by_reference_pickler(script)
    pickler = kind(file, PROTOCOL, buffer_callback=_collector(buffers))
    pickler.dispatch_table = _Table(copyreg.dispatch_table, _reducers_with_locks() if fresh_locks else _reducers())
    pickler.dump(value)
    return file.getvalue()


def dumps_by_value(
    value: object,
    *,
    fresh_locks: bool = False,
    script: Known | None = None,
    buffers: list[memoryview] | None = None,
) -> bytes:
    """Pickle by value what cannot be imported, and of ``__main__`` what ``script`` does not have."""
    file = io.BytesIO()
    pickler: Any = by_value_pickler(fresh_locks, script)
    pickler(file, PROTOCOL, buffer_callback=_collector(buffers)).dump(value)
    return file.getvalue()


class ByValue(Exception):
    """Plain pickling would name what is not there."""


@functools.lru_cache(maxsize=32)
def _by_reference_pickler(script: Known) -> type[pickle.Pickler]:
    """The class of the plain pickler that refuses what of ``__main__`` the other side does not have."""
    from resilient_exec.wire.script import MAIN_NAMES

    class ByReferencePickler(pickle.Pickler):
        def reducer_override(self, thing: Any) -> Any:
            kind = type(thing)
            is_named = kind is FunctionType or issubclass(kind, type)
            if is_named and thing.__module__ in MAIN_NAMES and not script.has(thing):
                raise ByValue
            return NotImplemented

    return ByReferencePickler


def _collector(buffers: list[memoryview] | None) -> Callable[[pickle.PickleBuffer], bool] | None:
    if buffers is None:
        return None

    def collect(buffer: pickle.PickleBuffer) -> bool:
        """Whether the buffer is to be in the pickle."""
        raw = buffer.raw()
        if raw.nbytes < _LARGE:
            return True
        buffers.append(raw)
        return False

    return collect


_handles = threading.local()


def has_handles() -> bool:
    """Whether this thread has pickled, since it was last asked, descriptors that may be fetched once.

    (``multiprocessing.reduction.DupFd``, by reducers that users have registered.)
    """
    found: bool = _handles.__dict__.pop("found", False)
    return found


class _Table(dict[type, "Any"]):
    """Reducers by type: the first ones, then the second ones, and what multiprocessing knows whatever the type."""

    def __init__(self, first: dict[type, Any], second: dict[type, Any]) -> None:
        super().__init__(first)
        self.update(second)

    def __missing__(self, kind: type) -> Any:
        if kind.__module__ == "multiprocessing.resource_sharer":
            return _reduce_handle
        connection: Any = sys.modules.get("multiprocessing.connection")
        if connection is not None and issubclass(kind, connection._ConnectionBase):
            return _refuse_connection
        raise KeyError(kind)

    def get(self, kind: type, default: Any = None) -> Any:
        """As the pickler finds it."""
        try:
            return self[kind]
        except KeyError:
            return default


def _reduce_handle(handle: Any) -> Any:
    _handles.found = True
    return handle.__reduce_ex__(PROTOCOL)


def _reducers() -> dict[type, Callable[[Any], Any]]:
    """What reduces objects besides their own methods and copyreg."""
    found: dict[type, Callable[[Any], Any]] = {}
    reduction: Any = sys.modules.get("multiprocessing.reduction")
    if reduction is not None:
        registered = reduction.ForkingPickler._extra_reducers
        found = {kind: reduce for kind, reduce in registered.items() if not _is_left_out(reduce)}
        found.pop(getattr(sys.modules.get("multiprocessing.connection"), "Connection", object), None)
    return found


def _is_left_out(reduce: Any) -> bool:
    """Multiprocessing's own, of methods and partials, are from before Python pickled these by itself, and better.
    torch's put a tensor into memory that the worker then shares with the caller: it could not be sent a second time.
    """
    home = str(getattr(reduce, "__module__", ""))
    return home == "multiprocessing.reduction" or home.partition(".")[0] == "torch"


def _reducers_with_locks() -> dict[type, Callable[[Any], Any]]:
    from resilient_exec.wire import locks

    return {**_reducers(), **locks.REDUCERS}


def _refuse_connection(connection: Any) -> Any:
    raise TypeError(
        f"cannot pickle {type(connection).__name__!r} object: it is the number of a descriptor of this process"
    )


# -- by value --------------------------------------------------------------------------------------------------------


def by_value_pickler(fresh_locks: bool, script: Known | None) -> type[pickle.Pickler]:  # noqa: FBT001  as in Rules
    """The class of the pickler that pickles by value; called as ``pickler(file, protocol, buffer_callback=...)``."""
    from resilient_exec.wire import by_value

    return by_value.by_value_pickler(script, _reducers_with_locks if fresh_locks else _reducers, _Table)


def start_pickler(script: Known | None) -> type[pickle.Pickler]:
    """The class of the pickler for what a worker starts with: loky's, since multiprocessing's locks travel then."""
    from loky.backend.reduction import get_loky_pickler

    from resilient_exec.wire import by_value

    base: Any = get_loky_pickler()

    class StartPickler(base):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            # It does not know shared memory, nor what users have registered; what it knows it knows better.
            for kind, reduce in _reducers().items():
                if kind not in self.dispatch_table:
                    self.register(kind, reduce)

    return by_value.with_script(StartPickler, script)
