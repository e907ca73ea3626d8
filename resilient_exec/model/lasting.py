"""Which errors are mistakes in a program, and come again however often it is tried."""

from __future__ import annotations

__all__ = ["is_lasting"]

_MISTAKES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    NotImplementedError,
    SyntaxError,
    TypeError,
    ValueError,
)


def is_lasting(error: BaseException) -> bool:
    """Whether it is a mistake, and no trouble of the world's, which passes: a service, a file, memory, a process."""
    is_mistake = isinstance(error, _MISTAKES) and not isinstance(error, OSError)
    return is_mistake or not isinstance(error, Exception)  # who exits means it
