"""Each task's own streams of random numbers: what they are derived from, and how.

A stream depends on the pool's ``seed``, on the task's key and on nothing else: not on the worker, the order, the
attempt, the number of workers or the size of chunks.  **The derivation never changes**: results that somebody has
published must come out again (tests/worker/test_random_streams.py holds its values).
"""

from __future__ import annotations

import operator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["canonical", "derived", "key_of_item"]


def derived(seed: int, key: object, purpose: str) -> int:
    """A number of 256 bits for one purpose (``rng`` or ``numpy``), by BLAKE2b from ``ascii((seed, key))``.

    Raises:
        TypeError: the key has no text of its own (see :func:`canonical`).
    """
    text = ascii((seed, canonical(key)))
    import hashlib  # it takes as long as all else of this module, and most tasks ask for no numbers

    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=32, person=purpose.encode()).digest(), "big")


def canonical(key: object) -> Any:
    """The key as plain numbers, texts and tuples: equal keys give equal ones, in every process and version of Python.

    Whole numbers of all types (``7.0``, numpy's) become an ``int``; other keys but texts, bytes, floats, ``None`` and
    tuples count as what ``repr`` says of them.

    Raises:
        TypeError: that says where the object lies in memory, and not what it is.
    """
    if key is None or type(key) in (int, str, bytes):
        return key
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, bytes):
        return bytes(key)
    if isinstance(key, tuple):
        return tuple(map(canonical, key))
    if isinstance(key, frozenset):
        return ("frozenset", *sorted(map(canonical, key), key=ascii))
    if isinstance(key, float):
        return int(key) if key.is_integer() else float(key)
    try:
        return operator.index(key)  # type: ignore[arg-type]
    except TypeError:
        text = repr(key)
    if type(key).__repr__ is object.__repr__ or " at 0x" in text:
        kind = f"{type(key).__module__}.{type(key).__qualname__}"
        raise TypeError(
            f"with seed= a key must be the same in every run, and this one of type {kind} is told by its place in "
            f"memory only ({text}): use a number, a text, or a tuple of them"
        )
    return text


def key_of_item(key: object, position: int) -> object:
    """The key of a call in a chunk: where the chunk is known by a number, the number that the call would have alone."""
    if isinstance(key, int):
        return key + position
    return (key, position) if position else key
