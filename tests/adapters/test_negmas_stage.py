"""What is laid at whose door: the arithmetic of `Watch`, under clocks that the test sets."""

from __future__ import annotations

import contextlib
import types

import pytest
from negmas.preferences import LinearAdditiveUtilityFunction
from negmas.sao import RandomNegotiator, SAOController, SAOMechanism

from resilient_exec.adapters.negmas.blame import entries, stage
from resilient_exec.adapters.negmas.blame.notes import NOBODY, parse_note
from resilient_exec.wire.register import REGISTER_SIZE, WHICH, Notes, unpack_note


class Clocks:
    """The clock on the wall and the process's CPU time."""

    def __init__(self):
        self.wall = self.cpu = 100.0

    def pass_by(self, wall, cpu=None):
        self.wall += wall
        self.cpu += wall if cpu is None else cpu


class Spied(Notes):
    """Keeps what a reader would have seen."""

    def __init__(self):
        self.page, self.told = bytearray(REGISTER_SIZE), []
        super().__init__(self.page)
        self._which, self.which = self.which, self

    def __getitem__(self, where):
        return self._which[where]

    def __setitem__(self, where, what):
        self._which[where] = what
        if where == WHICH:
            self.told.append(unpack_note(bytes(self.page)))


class Agent:
    def __init__(self, name):
        self.id = name


@pytest.fixture
def clocks(monkeypatch):
    clocks = Clocks()
    monkeypatch.setattr(stage, "_now", lambda: clocks.wall)
    monkeypatch.setattr(stage, "time", types.SimpleNamespace(process_time=lambda: clocks.cpu))
    return clocks


@pytest.fixture
def notes(monkeypatch):
    """What is noted, one after the other."""
    spied = Spied()
    monkeypatch.setattr(stage, "notes", lambda: spied)
    return spied.told


@pytest.fixture
def watch(clocks, notes):
    watch = stage.Watch({Agent: "theirs.Agent"})
    watch.begin_step(0)
    yield watch
    watch.close()


@pytest.fixture
def cast(watch):
    world = types.SimpleNamespace(agents={"a": ..., "b": ...})
    return watch.add_agent(Agent("a"), world), watch.add_agent(Agent("b"), world)


def measured(watch):
    return [(pytest.approx(list(one.cpu)), pytest.approx(list(one.wall))) for one in watch.measured()]


def stay(watch, clocks, actor, wall, cpu=None, method="step"):
    watch.call_on_stage(actor, method, clocks.pass_by, (wall, cpu), {})


def test_who_is_called_by_the_world_has_the_time_until_it_returns(watch, clocks, cast):
    a, b = cast
    stay(watch, clocks, a, 0.002)
    clocks.pass_by(0.5)  # the world's own
    stay(watch, clocks, b, 0.25)
    assert measured(watch) == [([0.002], [0.002]), ([0.25], [0.25])]


def test_who_is_called_by_another_agent_has_its_own_time(watch, clocks, cast):
    a, b = cast

    def calls_the_other():
        clocks.pass_by(0.01)
        stay(watch, clocks, b, 0.4)
        clocks.pass_by(0.02)

    watch.call_on_stage(a, "respond", calls_the_other, (), {})
    assert measured(watch) == [([0.03], [0.03]), ([0.4], [0.4])]


def test_who_waits_takes_no_cpu_and_threads_may_take_more_than_the_time(watch, clocks, cast):
    a, b = cast
    stay(watch, clocks, a, 2.0, 0.0)
    clocks.pass_by(0.01)
    watch.attribute_until_now()  # asks for the CPU time, so that the two are not mixed
    stay(watch, clocks, b, 1.0, 2.0)
    assert measured(watch) == [([0.0], [2.0]), ([2.0], [1.0])]


def test_short_stays_share_the_cpu_time_by_how_long_they_were(watch, clocks, cast):
    a, b = cast
    for _ in range(100):  # on a machine that is busy with something else half of the time
        stay(watch, clocks, a, 0.0003, 0.00015)
        stay(watch, clocks, b, 0.0001, 0.00005)
    assert measured(watch) == [([0.015], [0.03]), ([0.005], [0.01])]


def test_all_that_was_measured_is_somebodys(watch, clocks, cast):
    for number in range(1, 40):
        stay(watch, clocks, cast[number % 2], 0.001 * number, 0.0007 * number)
        clocks.pass_by(0.002)
    watch.attribute_until_now()
    assert sum(actor.cpu for actor in watch._all_actors) == pytest.approx(clocks.cpu - 100)
    assert sum(actor.wall for actor in watch._all_actors) == pytest.approx(clocks.wall - 100)


def test_memory_is_looked_at_behind_who_was_busy_for_long_and_not_who_waited_for_a_cpu(
    watch, clocks, cast, monkeypatch
):
    looked = []
    monkeypatch.setattr(watch, "sample_memory", lambda actor: looked.append(actor.agent))
    a, b = cast
    stay(watch, clocks, a, 0.02, 0.002)
    clocks.pass_by(0.001)
    stay(watch, clocks, b, 0.006)
    clocks.pass_by(0.001)
    stay(watch, clocks, a, 0.004)
    assert looked == ["b"]


def test_each_step_has_its_own_time(watch, clocks, cast):
    a, b = cast
    for step, took in ((0, 0.1), (1, 0.2), (3, 0.4)):
        watch.begin_step(step)
        stay(watch, clocks, a, took)
    watch.begin_step(4)
    stay(watch, clocks, b, 0.8)
    assert measured(watch) == [([0.1, 0.2, 0.4], [0.1, 0.2, 0.4]), ([0.8], [0.8])]


def test_what_is_noted_follows_the_stage(watch, clocks, cast, notes):
    a, b = cast
    notes.clear()

    answer = entries._hook_propose(watch, lambda: stay(watch, clocks, b, 0, method="on_bankrupt"))
    watch.begin_step(3)
    notes.clear()
    watch.call_on_stage(a, "respond", answer, (), {})
    told = [(who.agent, who.method, who.step) if (who := parse_note(note)) else note for note in notes]
    mine = [("a", "respond", 3), ("a", "propose", 3)]
    assert told == [*mine, ("b", "on_bankrupt", 3), mine[1], mine[0], NOBODY]


def test_who_raises_is_known_also_when_another_let_it_through(watch, cast, notes):
    a, b = cast
    problem = ValueError("mine")

    def fails():
        raise problem

    with pytest.raises(ValueError, match="mine"):
        watch.call_on_stage(a, "respond", watch.call_on_stage, (b, "step", fails, (), {}), {})
    watch.note_raiser(problem)
    assert parse_note(notes[-1]).agent == "b"


# -- what a mechanism calls --------------------------------------------------------------------------------------------


class Own(RandomNegotiator):
    """Has callbacks of its own."""

    def on_negotiation_start(self, state):
        super().on_negotiation_start(state)

    def on_round_start(self, state):
        super().on_round_start(state)

    @staticmethod
    def on_nothing():
        """No callback: it has no self."""


class Heir(Own):
    """Has those of its base."""


class Manager(SAOController):
    """Has one of its own, for all of its negotiators."""

    def on_negotiation_end(self, negotiator_id, state):
        super().on_negotiation_end(negotiator_id, state)

    def propose(self, negotiator_id, state, dest=None):
        return self.negotiators[negotiator_id][0].nmi.random_outcome()


def called(notes, competitor):
    told = [parse_note(note) for note in notes]
    return {who.method for who in told if who is not None and who.competitor.endswith(competitor)}


def negotiate(*negotiators):
    mechanism = SAOMechanism(outcomes=10, n_steps=3)
    for negotiator in negotiators:
        mechanism.add(negotiator, ufun=LinearAdditiveUtilityFunction.random(mechanism.outcome_space, reserved_value=0))
    mechanism.run()


def test_callbacks_of_a_negotiator_s_or_a_controller_s_own_are_on_stage_and_no_others(notes):
    before = {kind: dict(vars(kind)) for kind in (Own, Heir, Manager, RandomNegotiator, SAOController)}
    with entries.watch([]):
        negotiate(Heir(), RandomNegotiator(), Manager().create_negotiator())
        Own.on_nothing()
        Own().on_nothing()
    assert {"join", "on_negotiation_start", "on_round_start"} <= called(notes, ".Heir")
    assert not [name for name in called(notes, ".RandomNegotiator") if name.startswith("on_")]
    assert [name for name in called(notes, ".Manager") if name.startswith("on_")] == ["on_negotiation_end"]
    assert before == {kind: dict(vars(kind)) for kind in before}


def test_a_callback_that_is_inherited_is_hooked_once(watch, notes):
    with contextlib.ExitStack() as undo:
        callbacks = entries._Callbacks(watch, undo)
        for kind in (Own, Heir, Own):
            callbacks.hook(kind)
        assert "on_round_start" not in vars(Heir)
        assert not hasattr(Own.on_round_start.__wrapped__, "__wrapped__")
    assert not hasattr(Own.on_round_start, "__wrapped__")
