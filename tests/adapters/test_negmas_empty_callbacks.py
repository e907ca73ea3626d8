"""Which callbacks have nothing in them, with scml's own adapter and agents; and that no others are passed over."""

from __future__ import annotations

import functools
import types
from inspect import signature

import pytest
from negmas.situated import Adapter, World
from negmas_agents import Healthy
from scml.oneshot.sysagents import DefaultOneShotAdapter
from scml.scml2020 import DoNothingAgent

from resilient_exec.adapters.negmas.blame import entries, stage
from resilient_exec.adapters.negmas.blame.empty_callbacks import is_empty
from resilient_exec.adapters.negmas.blame.notes import parse_note
from resilient_exec.wire.register import REGISTER_SIZE, Notes, unpack_note


class Documented(DoNothingAgent):
    """Has the callback, and says only what it would be for."""

    def on_contract_executed(self, contract):
        """Nothing yet."""


class Counting(DoNothingAgent):
    """Does something there."""

    executed = 0

    def on_contract_executed(self, contract):
        self.executed += 1


class Signing(DoNothingAgent):
    """Does something in the other one."""

    def on_contract_signed(self, contract):
        raise RuntimeError(contract)


class Decorated(DoNothingAgent):
    """Has a function around one that is empty."""

    @functools.wraps(DoNothingAgent.on_contract_executed)
    def on_contract_executed(self, contract):
        raise RuntimeError(contract)


class Called(DoNothingAgent):
    """Has no function there, but something that can be called."""

    on_contract_executed = functools.partialmethod(Counting.on_contract_executed)


class Deeper(DoNothingAgent):
    """Does something where negmas keeps its books."""

    def on_contract_signed_(self, contract):
        raise RuntimeError(contract)


class Passing(Adapter, DoNothingAgent):
    """Hands such calls on, as scml's older adapters do."""

    def on_contract_executed(self, contract):
        self._obj.on_contract_executed(contract)


def hidden(kind):
    """That agent in the adapter of scml's present worlds."""
    return DefaultOneShotAdapter(obj=kind(name=kind.__name__), name=kind.__name__)


@pytest.mark.parametrize("name", ["on_contract_executed", "on_contract_signed_"])
@pytest.mark.parametrize("make", [functools.partial(hidden, Healthy), DoNothingAgent, Documented])
def test_what_has_no_code_of_an_agents_is_empty(make, name):
    agent = make()
    assert is_empty(agent, getattr(agent, name))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Counting, "on_contract_executed"),
        (Decorated, "on_contract_executed"),
        (Called, "on_contract_executed"),
        (Signing, "on_contract_signed_"),
        (Deeper, "on_contract_signed_"),
        (functools.partial(Passing, obj=Counting()), "on_contract_executed"),
    ],
)
def test_what_has_some_is_not(kind, name):
    agent = kind()
    assert not is_empty(agent, getattr(agent, name))


@pytest.mark.parametrize(
    "name", ["on_neg_request_accepted_", "on_negotiation_success_", "respond_to_negotiation_request_", "step_", "init_"]
)
def test_what_may_call_other_things_is_not(name):
    agent = hidden(Healthy)
    assert not is_empty(agent, getattr(agent, name))


def test_what_an_agent_has_put_in_its_own_place_is_not():
    agent = DoNothingAgent()
    method = agent.on_contract_signed_
    agent.on_contract_signed = print
    assert not is_empty(agent, method)


@pytest.mark.parametrize("method", [print, len, functools.partial(print), lambda contract: None])
def test_what_is_no_method_is_not(method):
    assert not is_empty(DoNothingAgent(), method)


def test_the_world_puts_on_stage_who_has_something_there_and_nobody_else(monkeypatch):
    page = bytearray(REGISTER_SIZE)
    monkeypatch.setattr(stage, "notes", lambda: Notes(page))
    watch, told = stage.Watch({}), {}

    def call(self, agent, method, *args, **kwargs):
        told[agent.id] = parse_note(unpack_note(bytes(page)))
        method(*args, **kwargs)

    agents = [Documented(), Counting()]
    world = types.SimpleNamespace(agents={agent.id: agent for agent in agents}, current_step=4)
    hooked = entries._hook_call(watch, call)
    for agent in agents:
        hooked(world, agent, agent.on_contract_executed, contract=None)
    watch.close()

    documented, counting = (told[agent.id] for agent in agents)
    assert documented is None
    assert (counting.agent, counting.method, counting.step) == (agents[1].id, "on_contract_executed", 4)
    assert agents[1].executed == 1


def test_the_names_by_which_negmas_may_pass_them_are_those_of_its_own():
    watch = stage.Watch({})
    stand_in = entries._hook_call(watch, World.call)
    watch.close()
    del stand_in.__wrapped__  # which a signature follows
    assert list(signature(stand_in).parameters) == list(signature(World.call).parameters)
