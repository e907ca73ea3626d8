"""Which callbacks of an agent have nothing in them: nobody comes on stage for these.

A world tells each agent of each contract that it is signed, and that it is executed; most agents have an empty function
there.  To note that they come and go costs more than all that happens in between.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any

from resilient_exec.adapters.negmas.blame.notes import NOT_THEIRS

__all__ = ["is_empty"]

# With "_" behind them these are negmas' own, which keeps its books and calls the one without.  Of others that can't be
# said: on_negotiation_success_ and the like are an adapter's, too, which asks its agent for more than that.
_PLAIN = frozenset({"on_contract_executed", "on_contract_signed"})


def is_empty(agent: Any, method: Any) -> bool:
    """Whether a call of that bound method of an agent runs nothing that a competitor has written.

    Args:
        agent: as the world knows it; an adapter that hands such a call on has something in it.
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
    return own.__code__.co_code in _NOTHING


def _nothing() -> None: ...


def _nothing_documented() -> None:
    """It has a docstring, so that what it returns is another one of its constants."""


_NOTHING = frozenset(function.__code__.co_code for function in (_nothing, _nothing_documented))
