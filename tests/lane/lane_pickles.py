"""Values and exceptions that resist their pickling, in every way there is."""

from __future__ import annotations

import dataclasses
import threading


class Calls:
    """Unpickling it calls ``fn(*args)``."""

    def __init__(self, fn, *args):
        self.call = (fn, args)

    def __reduce__(self):
        return self.call


class CallsWhenPickled:
    """Pickling it calls ``fn(*args)``."""

    def __init__(self, fn, *args):
        self.call = (fn, args)

    def __reduce__(self):
        fn, args = self.call
        fn(*args)
        return int, ()


def give(what):
    return what


def give_call(fn, *args):
    return Calls(fn, *args)


def give_pickling_call(fn, *args):
    return CallsWhenPickled(fn, *args)


def give_lock():
    return threading.Lock()


def fail_to_load():
    raise ValueError("it does not load")


def raise_class(cls, *args):
    raise cls(*args)


def raise_with(cls, args, kwargs):
    raise cls(*args, **kwargs)


def raise_from(cause, cls, *args):
    raise cls(*args) from cause


class PlainError(Exception):
    pass


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    code: int
    reason: str


class KeywordOnlyError(Exception):
    def __init__(self, *, code):
        super().__init__(f"code {code}")
        self.code = code


class DecoratingError(Exception):
    """Made again from its own args, it says something else."""

    def __init__(self, name):
        super().__init__(f"no such name: {name}")


class ReducingError(Exception):
    def __init__(self, code):
        super().__init__("it reduces itself", object())
        self.code = code

    def __reduce__(self):
        return ReducingError, (self.code,)


class HoldsLockError(Exception):
    def __init__(self):
        super().__init__("holds a lock")
        self.lock = threading.Lock()


class LoadsBadlyError(Exception):
    def __reduce__(self):
        return fail_to_load, ()


class ExitsWhenPickledError(Exception):
    def __reduce__(self):
        raise SystemExit(4)


class InterruptsWhenPickledError(Exception):
    def __reduce__(self):
        raise KeyboardInterrupt


class CallsWhenLoadedError(Exception):
    """Unpickling it calls ``fn(*args)``."""

    def __init__(self, fn, *args):
        super().__init__("it calls when it is loaded")
        self.call = (fn, args)

    def __reduce__(self):
        return self.call


class UnprintableError(Exception):
    def __str__(self):
        raise SystemExit(6)

    __repr__ = __str__

    def __reduce__(self):
        raise TypeError("no")
