"""Which callbacks of an agent are empty functions: calls of these are neither noted nor measured.

A world tells each agent about each contract when it is signed and when it is executed, and most agents have an empty
function there.  To note such a call would cost more than the call itself.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any

from resilient_exec.adapters.negmas.blame.notes import NOT_THEIRS

__all__ = ["is_empty"]

# With a "_" at the end these are negmas' own functions, which do bookkeeping and call the one without it.  That is not
# so for other callbacks: on_negotiation_success_ and the like also exist in adapters, which then call more of an agent.
_PLAIN = frozenset({"on_contract_executed", "on_contract_signed"})


def is_empty(agent: Any, method: Any) -> bool:
    """Whether a call of that bound method of an agent runs no code of a competitor.

    Args:
        agent: as the world holds it; this may be an adapter, which is not empty if it forwards the call to its agent.
        method: what the world calls.
    """
    name = getattr(method, "__name__", "")
    plain = name.removesuffix("_")
    own = getattr(type(agent), plain, None)
    if plain not in _PLAIN or plain in getattr(agent, "__dict__", {}) or not isinstance(own, FunctionType):
        return False
    called = getattr(method, "__func__", None)
    if called is not own and not (getattr(called, "__module__", None) or "").startswith(NOT_THEIRS):
        return False
    return own.__code__.co_code in _EMPTY_CODE


def _empty() -> None: ...


def _empty_documented() -> None:
    """The docstring is a constant, so that None is another one and the byte code differs."""


_EMPTY_CODE = frozenset(function.__code__.co_code for function in (_empty, _empty_documented))
