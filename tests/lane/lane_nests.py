"""Nests: objects that hold another one in every way that pickling follows, and a reader of the paths to it."""

from __future__ import annotations

import collections
import dataclasses
import functools
import re
import types
import typing

import cloudpickle


class Box:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)

    def method(self):
        return self


class Slots:
    __slots__ = ("__private", "inner")

    def __init__(self, inner):
        self.inner = None
        self.__private = inner


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Frozen:
    number: int
    inner: object


class Rewritten:
    """Its state is not its attributes."""

    def __init__(self, inner):
        self.hidden = Box(inner=inner)

    def __getstate__(self):
        return {"version": 2, "parts": [1, {"inner": self.hidden.inner}]}

    def __setstate__(self, state):
        self.hidden = Box(inner=state["parts"][1]["inner"])


class Reduced:
    """It is made again by a call."""

    def __init__(self, inner):
        self.hidden = Box(inner=inner)

    def __reduce__(self):
        return Reduced, (self.hidden.inner,)


class NestError(Exception):
    pass


class SubTuple(tuple):
    __slots__ = ()


class SubList(list):
    pass


class SubDict(dict):
    pass


class SubSet(set):
    pass


class Pair(typing.NamedTuple):
    left: object
    right: object


def with_default(inner):
    return lambda number=1, held=inner: (number, held)


def with_keyword_default(inner):
    return lambda *, held=inner: held


def with_global(inner):
    namespace = {"KEPT": inner, "__name__": "__main__"}
    exec("def function():\n    return KEPT", namespace)  # noqa: S102
    return namespace["function"]


def with_attribute(inner):
    def function():
        return None

    function.held = inner
    return function


def class_with(inner):
    class Local:
        held = inner

    return Local


def instance_of_class_with(inner):
    return class_with(inner)()


def partly_filled_closure(inner):
    def function():
        return inner, later

    if not function:
        later = None
    return function


WAYS = [
    lambda inner: Box(number=1, inner=inner),
    lambda inner: Box(**{"not a name": inner, "class": 2}),
    lambda inner: Box(**{"not a name" * 10: inner}),
    lambda inner: Box(held=inner).method,
    Slots,
    lambda inner: Frozen(1, inner),
    Rewritten,
    Reduced,
    lambda inner: [1, "two", inner],
    lambda inner: (inner, 3.0),
    lambda inner: {"key": inner, 2: 3},
    lambda inner: {(1, None): inner},
    lambda inner: {3: {"it's": inner}},
    lambda inner: {"k" * 100: inner},
    lambda inner: {Box(): inner},
    lambda inner: {Box(inner=inner): 1},
    lambda inner: {1, Box(inner=inner)},
    lambda inner: frozenset([Box(inner=inner)]),
    lambda inner: SubSet([Box(inner=inner), 4]),
    lambda inner: SubTuple((1, inner)),
    lambda inner: SubList([inner]),
    lambda inner: SubDict(key=inner),
    lambda inner: Pair(1, inner),
    lambda inner: types.SimpleNamespace(inner=inner),
    lambda inner: types.MappingProxyType({"key": inner}),
    lambda inner: collections.deque([1, inner], maxlen=5),
    lambda inner: collections.OrderedDict(key=inner),
    lambda inner: collections.defaultdict(list, key=inner),
    lambda inner: collections.ChainMap({"key": inner}),
    lambda inner: functools.partial(print, 1, inner),
    lambda inner: functools.partial(print, key=inner),
    lambda inner: NestError("text", inner),
    lambda inner: lambda: inner,
    with_default,
    with_keyword_default,
    with_global,
    with_attribute,
    class_with,
    instance_of_class_with,
    partly_filled_closure,
]

_PHRASE = re.compile(
    r"(closure variable|global variable|a key|an item|the reduction|the value of the key|the value of a key)"
    r"\b(.*?) (?:of|in) (.*)"
)


def follow(path, root):
    """All that a path may lead to, for its phrases do not always say which key or item."""
    if found := _PHRASE.fullmatch(path):
        kind, which, owner_path = found.groups()
        if kind == "the value of a key":
            owner_path = re.sub(r"^type \w+ in ", "", owner_path)
        return [part for owner in follow(owner_path, root) for part in _named(kind, which.strip(" '"), owner)]
    for start in (found.end() for found in re.finditer(r"\(", path)):
        if _PHRASE.match(path[start:]):
            end = _closing(path, start)
            rest = f"{path[: start - 1]}(here){path[end + 1 :]}"
            return [part for here in follow(path[start:end], root) for part in _evaluated(rest, here=here)]
    return _evaluated(path, root=root)


def _evaluated(path, **names):
    try:
        return [eval(path, names)]  # noqa: S307
    except (AttributeError, TypeError, LookupError):  # that was another item
        return []


def _closing(path, start):
    depth = 1
    for i in range(start, len(path)):
        depth += {"(": 1, ")": -1}.get(path[i], 0)
        if depth == 0:
            return i
    raise ValueError(path)


def _named(kind, which, owner):
    if kind == "closure variable":
        return [owner.__closure__[owner.__code__.co_freevars.index(which)].cell_contents]
    if kind == "global variable":
        return [owner.__globals__[which]]
    if kind == "the reduction":
        return [cloudpickle.Pickler.dispatch_table[type(owner)](owner)]
    if kind.startswith("the value"):
        return list(owner.values()) if isinstance(owner, dict) else []
    return list(owner)
