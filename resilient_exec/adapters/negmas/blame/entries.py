"""Hooks where negmas enters the code of agents, for :mod:`.blame.stage`: functions of negmas, and of the agents' types.

The functions are replaced while one world set runs, and restored afterwards.  Each replacement is short, because a
world calls them some thousand times a second.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from threading import get_ident
from types import FunctionType
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters.negmas.blame.notes import NOT_THEIRS, OnStage
from resilient_exec.adapters.negmas.blame.stage import Watch
from resilient_exec.wire.register import WHICH, Note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


__all__ = ["hook", "hooked", "import_types", "missing", "watch"]

_DIRECT = ("__init__", "before_step")  # worlds call these without a function of negmas that could be hooked


def import_types(watch: Watch, types: Iterable[str]) -> dict[type, str]:
    """Import the types of these full names; those that cannot be imported are left out.

    Each import is noted first, since it may end the process.
    """
    from negmas.helpers import get_class

    found: dict[type, str] = {}
    for name in dict.fromkeys(types):
        watch.notes.hold(Note(OnStage(name, method="import").note()))
        with contextlib.suppress(Exception):  # negmas raises it again when it makes the world
            found[get_class(name)] = name
    return found


def hook(watch: Watch, names: dict[type, str], undo: contextlib.ExitStack) -> None:
    """Hook all entry points until ``undo`` is closed, except those that this negmas lacks (:func:`missing`)."""
    for owner, name, make in _entry_points():
        kind = _class_named(owner)
        if name in vars(kind):
            _replace(kind, name, make(watch, vars(kind)[name]), undo)
    for base, name in _propose_functions():
        _replace(base, name, _hook_propose(watch, vars(base)[name]), undo)
    watch.hook_callbacks = _Callbacks(watch, undo).hook
    for kind in names:
        for name in _DIRECT:
            with contextlib.suppress(Exception):  # the type has no such method, or its metaclass forbids to set it
                _replace(kind, name, _hook_direct(watch, getattr(kind, name)), undo)
        watch.hook_callbacks(kind)


def missing() -> tuple[str, ...]:
    """The entry points that this negmas does not have: calls of agents' code there are not noted."""
    return tuple(f"{owner}.{name}" for owner, name, _ in _entry_points() if name not in vars(_class_named(owner)))


def hooked() -> list[tuple[Any, str]]:
    """The functions of negmas that :func:`hook` replaces, as ``(class, name)``."""
    kinds = [(_class_named(owner), name) for owner, name, _ in _entry_points()]
    return [(kind, name) for kind, name in [*kinds, *_propose_functions()] if name in vars(kind)]


def _entry_points() -> tuple[tuple[str, str, Callable[[Watch, Any], Any]], ...]:
    return (
        ("negmas.situated.World", "call", _hook_call),
        ("negmas.sao.SAOMechanism", "_safe_counter", _hook_safe_counter),
        ("negmas.mechanisms.Mechanism", "add", _hook_add),
    )


def _class_named(owner: str) -> Any:
    """The class of that full name, or ``object`` if this negmas has none."""
    module, _, name = owner.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return object


def _replace(owner: Any, name: str, stand_in: Any, undo: contextlib.ExitStack) -> None:
    own = vars(owner).get(name)
    setattr(owner, name, stand_in)
    if own is None:
        undo.callback(delattr, owner, name)
    else:
        undo.callback(setattr, owner, name, own)


def _propose_functions() -> list[tuple[type, str]]:
    """The ``propose_`` methods of negmas' base classes: the request for an offer after a response."""
    try:
        from negmas.sao.negotiators import base
    except ImportError:
        return []
    kinds = {kind for kind in vars(base).values() if isinstance(kind, type) and kind.__module__ == base.__name__}
    return [(kind, "propose_") for kind in kinds if "propose_" in vars(kind)]


def _hook_call(watch: Watch, original: Callable[..., Any]) -> Callable[..., Any]:
    actors, thread, clock = watch.actors, watch.thread, watch.clock
    which, put = watch.notes.which, watch.notes.put

    @functools.wraps(original)
    def call(self: Any, agent: Any, method: Any, *args: Any, **kwargs: Any) -> Any:  # named as in negmas, for keywords
        if get_ident() != thread:
            return original(self, agent, method, *args, **kwargs)
        key = id(agent)
        actor = actors[key] if key in actors else watch.add_agent(agent, self)
        if actor is None:
            return original(self, agent, method, *args, **kwargs)
        name, calls = getattr(method, "__name__", "?"), actor.calls
        activity = calls[name] if name in calls else actor.add_call(agent, method)
        if activity is None:
            return original(self, agent, method, *args, **kwargs)
        step = self.current_step
        if step != watch.step:
            watch.begin_step(step)
        before = watch.activity  # from here on this is Watch.call_on_stage, inlined for speed
        now = clock()
        before.actor.unshared += now - watch.since
        if now > watch.next_sample:
            watch.sample(now)
        watch.since, watch.activity = now, activity
        which[WHICH] = activity.place or put(activity)
        try:
            return original(self, agent, method, *args, **kwargs)
        except BaseException as error:
            watch.record_exception(error)
            raise
        finally:
            now = clock()
            actor.unshared += now - watch.since
            if now > watch.next_sample:
                watch.sample(now)
            watch.since, watch.activity = now, before
            which[WHICH] = before.place or put(before)

    return call


def _hook_safe_counter(watch: Watch, original: Callable[..., Any]) -> Callable[..., Any]:
    actors, thread, look_up, clock = watch.actors, watch.thread, object.__getattribute__, watch.clock
    which, put = watch.notes.which, watch.notes.put

    @functools.wraps(original)
    def safe_counter(mechanism: Any, negotiator: Any, state: Any, *args: Any, **kwargs: Any) -> Any:
        if get_ident() != thread:
            return original(mechanism, negotiator, state, *args, **kwargs)
        try:  # read directly, since negotiators of controllers look up every attribute in Python code
            actor = actors[id(look_up(negotiator, "_Negotiator__owner"))]
        except (AttributeError, KeyError):
            actor = watch.actor_of_negotiator(negotiator)
        if actor is None:
            return original(mechanism, negotiator, state, *args, **kwargs)
        if state.current_offer is None:
            activity = actor.proposes or actor.activity("propose")
        else:
            activity = actor.responds or actor.activity("respond")
        before = watch.activity  # from here on this is Watch.call_on_stage, inlined for speed
        now = clock()
        before.actor.unshared += now - watch.since
        if now > watch.next_sample:
            watch.sample(now)
        watch.since, watch.activity = now, activity
        which[WHICH] = activity.place or put(activity)
        try:
            return original(mechanism, negotiator, state, *args, **kwargs)
        except BaseException as error:
            watch.record_exception(error)
            raise
        finally:
            now = clock()
            actor.unshared += now - watch.since
            if now > watch.next_sample:
                watch.sample(now)
            watch.since, watch.activity = now, before
            which[WHICH] = before.place or put(before)

    return safe_counter


def _hook_propose(watch: Watch, original: Callable[..., Any]) -> Callable[..., Any]:
    # The negotiator is on stage already, and only the method that is noted changes: so nothing is measured here.
    which, put = watch.notes.which, watch.notes.put

    @functools.wraps(original)
    def propose(*args: Any, **kwargs: Any) -> Any:
        before = watch.activity
        activity = before.actor.proposes or before.actor.activity("propose")
        if activity is before:
            return original(*args, **kwargs)
        watch.activity = activity
        which[WHICH] = activity.place or put(activity)
        try:
            return original(*args, **kwargs)
        finally:
            watch.activity = before
            which[WHICH] = before.place or put(before)

    return propose


def _hook_add(watch: Watch, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def add(mechanism: Any, negotiator: Any, *args: Any, **kwargs: Any) -> Any:
        actor = watch.actor_of_negotiator(negotiator) if get_ident() == watch.thread else None
        if actor is None:
            return original(mechanism, negotiator, *args, **kwargs)
        watch.hook_callbacks(type(negotiator))
        watch.hook_callbacks(type(getattr(negotiator, "parent", None)))
        return watch.call_on_stage(actor, "join", original, (mechanism, negotiator, *args), kwargs)

    return add


class _Callbacks:
    """Hooks the callbacks of negotiators and controllers that a mechanism calls, such as ``on_negotiation_start``.

    They are hooked in the classes of competitors that define one.  Most do not, and to hook every call in negmas
    would cost as much as all other hooks together, since two are made for each negotiator in each round.
    """

    def __init__(self, watch: Watch, undo: contextlib.ExitStack) -> None:
        self._watch, self._undo = watch, undo
        self._seen: set[type] = set()

    def hook(self, kind: type) -> None:
        """Hook the callbacks of that class and its bases, each once, except those of negmas and scml."""
        if kind in self._seen:
            return
        for base in kind.__mro__:
            if base in self._seen or base.__module__.startswith(NOT_THEIRS):
                continue
            for name, function in list(vars(base).items()):
                is_callback = name.startswith("on_") and isinstance(function, FunctionType)
                if is_callback and not (function.__module__ or "").startswith(NOT_THEIRS):
                    with contextlib.suppress(Exception):  # its metaclass forbids to set it
                        _replace(base, name, _hook_callback(self._watch, function), self._undo)
        self._seen.update(kind.__mro__)


def _hook_callback(watch: Watch, original: Callable[..., Any]) -> Callable[..., Any]:
    name = original.__name__

    @functools.wraps(original)
    def callback(one: Any, *args: Any, **kwargs: Any) -> Any:
        actor = watch.actor_of_negotiator(one) if get_ident() == watch.thread else None
        if actor is None:
            return original(one, *args, **kwargs)
        return watch.call_on_stage(actor, name, original, (one, *args), kwargs)

    return callback


def _hook_direct(watch: Watch, original: Callable[..., Any]) -> Callable[..., Any]:
    name = original.__name__

    @functools.wraps(original)
    def direct(one: Any, *args: Any, **kwargs: Any) -> Any:
        if get_ident() != watch.thread:
            return original(one, *args, **kwargs)
        actor = watch.actors.get(id(one)) or watch.new_actor(one)
        return watch.call_on_stage(actor, name, original, (one, *args), kwargs)

    return direct


@contextlib.contextmanager
def watch(types: list[str]) -> Iterator[Watch]:
    """Note and measure which agents are on stage in this process, until the block ends.

    Args:
        types: full names of the agents' own types.
    """
    watching = Watch({})
    with contextlib.ExitStack() as stack:
        stack.callback(watching.close)
        names = import_types(watching, types)
        watching.add_names(names)
        hook(watching, names, stack)
        try:
            yield watching
        except BaseException as error:
            watching.note_raiser(error)
            raise
