"""The keys that users give to their tasks: no two unsettled ones may have the same.

A key's ``__hash__``, ``__eq__`` and ``__repr__`` are the user's code: they run here, in the thread that submits, and
nowhere below.  There tasks are numbers, and a key is only passed on to whoever is told something.
"""

from __future__ import annotations

import itertools
import pickle
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from resilient_exec.model.summary import named

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from resilient_exec.core.lane_port import ChunkParcel, Parcel

__all__ = ["IN_USE", "Keys", "name_of", "packed", "take"]

IN_USE = "an unsettled task has the key {} already; wait for it, or give this one another key"

_PLAIN = frozenset({int, str, float, bool, bytes, type(None)})  # printing one of these runs nobody's code
_SPARE = 256  # keys of settled tasks that may be left over


class _Key:
    """A key whose hash was asked for once: one that changes it later is still found, or not, in the same way."""

    __slots__ = ("hash", "key")

    def __init__(self, key: Hashable) -> None:
        self.key, self.hash = key, hash(key)

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        try:
            return isinstance(other, _Key) and (self.key is other.key or bool(self.key == other.key))
        except Exception:  # another task's key, which need not know what to do with this one
            return False


class Keys:
    """The keys in use.  A task has its key until it settles, when its parcel lets go of its future."""

    def __init__(self) -> None:
        self._users: dict[_Key, weakref.ref[Parcel | ChunkParcel]] = {}
        self._sweep_at = _SPARE
        self._lock = threading.RLock()  # a signal handler may submit, too

    def claim(self, key: Hashable, parcel: Parcel | ChunkParcel) -> None:
        """Let the task have that key.

        Raises:
            ValueError: an unsettled task has it.
        """
        wrapped = _Key(key)
        with self._lock:
            if _is_unsettled(self._users.get(wrapped)):
                raise ValueError(IN_USE.format(named(key)))
            self._users.pop(wrapped, None)  # else the old key would stay, and only its user be another
            self._users[wrapped] = weakref.ref(parcel)
            if len(self._users) > self._sweep_at:
                self._users = {k: ref for k, ref in self._users.items() if _is_unsettled(ref)}
                self._sweep_at = 2 * len(self._users) + _SPARE

    def is_any_taken(self, numbers: range) -> bool:
        """Whether unsettled tasks have been given some of these numbers as their keys."""
        return bool(self._users) and any(map(self.is_taken, numbers))

    def is_taken(self, number: int) -> bool:
        """Whether an unsettled task has been given that number as its key."""
        return bool(self._users) and _is_unsettled(self._users.get(_Key(number)))


def _is_unsettled(user: weakref.ref[Parcel | ChunkParcel] | None) -> bool:
    parcel = user() if user is not None else None
    return parcel is not None and parcel.future is not None


def take(numbers: Iterator[int], count: int) -> int:
    """The first of so many numbers, one after the other, of which nobody else is given any.

    It is done in C, so that neither another thread nor a signal's handler comes in between.
    """
    return deque(itertools.islice(numbers, count), 1)[0] - count + 1


def name_of(key: Hashable) -> str:
    """The key as a text; empty where printing it runs nobody's code, and may be done later."""
    return "" if type(key) in _PLAIN else named(key)


def packed(key: Any) -> bytes | None:
    """The key as it travels to a worker; ``None``: it does not, and the task sees its text."""
    try:
        data = pickle.dumps(key)
    except KeyboardInterrupt:
        raise
    except BaseException:  # a SystemExit in its __reduce__ is no reason to exit
        return None
    return data if b"main__" not in data or _is_plain(key) else None


def _is_plain(key: Any) -> bool:
    """Whether it is made of built-in values alone, so that what it mentions is a text and no name in a module."""
    return type(key) in _PLAIN or (type(key) in (tuple, frozenset) and all(map(_is_plain, key)))
