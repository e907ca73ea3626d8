"""Installs the backend in negmas by replacing functions of negmas, and removes it again.

negmas has no registry of backends, and silently does nothing for a value of ``parallelism=`` that it does not know.  So
these functions of negmas are replaced, after :mod:`.compatibility` has checked that they fit:

* ``run_tournament``: the replacement turns ``"resilient:0.5"`` into ``"parallel:resilient:0.5"``, which negmas' own
  code passes to ``_run_parallel``.
* ``_run_parallel``: the replacement runs such a call on our pool, and passes any other to the original.
* with ``negotiations=True``: the process pool of the module ``cartesian`` (of which the name depends on the version),
  and the functions that run negotiation tournaments and single negotiations.

Modules that have executed ``from negmas.tournaments import run_tournament`` hold the original in their own namespace.
So the first two are replaced in every imported module; modules that are imported later get the replacement.
``uninstall`` restores the originals in every module in the same way.  (References that are not in a module's namespace,
such as in a ``functools.partial``, are not replaced.)
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import math
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters import places, signals
from resilient_exec.adapters.negmas import checks, compatibility, folder_lock, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["install", "uninstall"]

_OURS = "resilient"
_DASK = ("dist", "distributed", "dask", "d")
_SERIAL = ("none", "serial", "s")
_PROCESSES = ("local", "parallel", "par", "p")


@dataclass
class _Patch:
    """One function of negmas and its replacement.

    Attributes:
        original: the function of negmas.
        stand_in: its replacement.
        home: the module that defines it.
        everywhere: whether it is replaced in all modules, and not only in ``home``.
    """

    original: Any
    stand_in: Any
    home: ModuleType
    everywhere: bool = True

    def apply(self) -> None:
        self._swap(self.original, self.stand_in)

    def revert(self) -> None:
        self._swap(self.stand_in, self.original)

    def _swap(self, old: Any, new: Any) -> None:
        for namespace in _namespaces() if self.everywhere else (vars(self.home),):
            for name, value in list(namespace.items()):
                if value is old:
                    namespace[name] = new


def _namespaces() -> Iterator[dict[str, Any]]:
    # Read from the slot, since to ask a lazy module for its __dict__ may make it import everything.
    slot: Any = vars(ModuleType)["__dict__"]
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType):
            yield slot.__get__(module)


@dataclass
class _Installed:
    """What is installed.

    Attributes:
        patches: by the name of the function.
        parallel: whether ``parallelism="parallel"`` is sent through our pool, too.
        lock: held during each change.
    """

    patches: dict[str, _Patch] = field(default_factory=dict)
    parallel: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)

    def add(self, name: str, patch: _Patch) -> None:
        if name not in self.patches:
            self.patches[name] = patch
            patch.apply()


_installed = _Installed()


def install(*, negotiations: bool = False, parallel: bool = False) -> None:
    """Make ``parallelism="resilient"`` work in world tournaments; this is also done when the package is imported.

    Another call adds to what is installed.

    Args:
        negotiations: run the negotiations of ``cartesian_tournament`` on our pool, too.
        parallel: run ``parallelism="parallel"`` (and its synonyms in negmas) on our pool, too.

    Raises:
        RuntimeError: this version of negmas lacks something that is needed; the message names it.
        WrongSetting: a ``RESILIENT_EXEC_*`` variable of the environment has a wrong value.
    """
    settings.from_environment()
    with _installed.lock:
        tournaments = importlib.import_module("negmas.tournaments.tournaments")
        if not _installed.patches:
            compatibility.check(tournaments)
        _installed.add("run_tournament", _wrapped(tournaments, "run_tournament", _run_tournament))
        _installed.add("_run_parallel", _wrapped(tournaments, "_run_parallel", _run_parallel))
        _installed.parallel = _installed.parallel or parallel
        if negotiations:
            _install_negotiations()


def uninstall() -> None:
    """Restore negmas: each name is bound to its original function again."""
    with _installed.lock:
        for patch in _installed.patches.values():
            patch.revert()
        _installed.patches.clear()
        _installed.parallel = False


def _wrapped(module: ModuleType, name: str, body: Callable[..., Any]) -> _Patch:
    original = getattr(module, name)
    signature = inspect.signature(original)

    @functools.wraps(original)
    def stand_in(*args: Any, **kwargs: Any) -> Any:
        patch = _installed.patches.get(name)
        if patch is None or patch.stand_in is not stand_in:  # uninstalled, but a reference to it was kept
            return original(*args, **kwargs)
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        return body(module, original, call)

    return _Patch(original, stand_in, module)


# -- world tournaments


def _run_tournament(tournaments: Any, original: Callable[..., Any], call: inspect.BoundArguments) -> Any:
    from resilient_exec.adapters.negmas.blame import conduct, history  # see _run_parallel
    from resilient_exec.adapters.negmas.report import report
    from resilient_exec.adapters.negmas.worlds import plan

    path = Path(call.arguments["tournament_path"]).expanduser().absolute()
    wanted = call.arguments["parallelism"]
    if wanted is None:
        wanted = (tournaments.load(path / tournaments.PARAMS_FILE) or {}).get("parallelism")
    if wanted in _SERIAL and settings.current().seed is not None:
        return _run_serial(tournaments, original, call, path)
    if not isinstance(wanted, str) or _lanes(wanted) is None:
        return original(*call.args, **call.kwargs)
    checks.check_pandas()
    chosen = settings.current()
    if wanted.startswith(_OURS):
        call.arguments["parallelism"] = f"parallel:{wanted}"
    _complete_arguments(tournaments, path, call, chosen.seed)
    before = report.last_report()
    with signals.with_report(), folder_lock.claim(path, take_over=chosen.take_over):
        if call.arguments["override_ran_worlds"]:
            for world in tournaments.get_world_paths(tournament_path=path):
                (world.parent / tournaments.RESULTS_FILE).unlink(missing_ok=True)
                places.remove(world.parent, history.MEASURED)
            places.remove(path, history.CONDUCT)
        result = original(*call.args, **call.kwargs)
    if report.last_report() is before:
        params = tournaments.load(path / tournaments.PARAMS_FILE) or {}
        who = plan.competitors_by_folder(tournaments, path)
        health = conduct.of_finished(path, params, who, chosen.step_timeout)
        report.all_scored_before(path, params, who, health)
    return result


def _complete_arguments(tournaments: Any, path: Path, call: inspect.BoundArguments, seed: int | None) -> None:
    from resilient_exec.adapters.negmas.worlds import provenance  # see _run_parallel

    provenance.complete(tournaments, path, call.arguments, seed)


def _run_serial(tournaments: Any, original: Callable[..., Any], call: inspect.BoundArguments, path: Path) -> Any:
    """Run a tournament serially, as negmas does, but with the seed of the options."""
    from resilient_exec.adapters.negmas.worlds import seeding  # see _run_parallel

    _complete_arguments(tournaments, path, call, settings.current().seed)
    with seeding.serial_run(call.arguments["world_generator"]):
        return original(*call.args, **call.kwargs)


def _run_parallel(tournaments: Any, original: Callable[..., Any], call: inspect.BoundArguments) -> Any:
    lanes = _lanes(call.arguments["parallelism"])
    if lanes is None:
        return original(*call.args, **call.kwargs)
    # Imported here, since a worker imports this package, too, and needs neither the pool nor loky.
    from resilient_exec.adapters.negmas.worlds import runner as worlds

    return worlds.run(tournaments, call.arguments, lanes)


def _lanes(parallelism: str) -> int | None:
    """The number of workers that a value of ``parallelism=`` asks for; ``None``: it is left to negmas.

    Raises:
        ValueError: it begins like one of ours, but is wrong.
    """
    ours = parallelism.removeprefix("parallel:")
    if ours.startswith(_OURS):
        return _cpus(_fraction(ours))
    if not _installed.parallel or parallelism in _DASK or not parallelism.startswith(_PROCESSES):
        return None
    _, colon, fraction = parallelism.rpartition(":")
    try:
        return _cpus(float(fraction) if colon else 1.0)
    except ValueError:
        raise ValueError(f"parallelism={parallelism!r}: what follows the colon must be a number") from None


def _fraction(ours: str) -> float:
    name, colon, text = ours.partition(":")
    try:
        fraction = float(text) if colon else 1.0
    except ValueError:
        fraction = math.nan
    if name != _OURS or not 0 < fraction <= 1:
        raise ValueError(
            f'parallelism={ours!r}: must be "resilient", or "resilient:" and the fraction of the CPUs to use, more '
            'than 0 and at most 1 ("resilient:0.5"); for a number of workers use options(max_workers=...)'
        )
    return fraction


def _cpus(fraction: float) -> int:
    import loky  # see _run_parallel

    return max(1, int(fraction * loky.cpu_count()))


# -- negotiation tournaments


def _install_negotiations() -> None:
    from resilient_exec.adapters.negmas.negotiations import runner as negotiations  # see _run_parallel

    cartesian: Any = importlib.import_module("negmas.tournaments.neg.simple.cartesian")
    name = "run_isolated_tasks" if hasattr(cartesian, "run_isolated_tasks") else "ProcessPoolExecutor"
    if name in _installed.patches:
        return
    _install_stand_in_for_pool(cartesian, name, negotiations)
    compatibility.parameters(cartesian, "cartesian_tournament")
    _installed.add("cartesian_tournament", _wrapped(cartesian, "cartesian_tournament", _cartesian_tournament))
    for parameter in ("s", "partners", "partner_names", "rep"):
        if parameter not in compatibility.parameters(cartesian, "run_negotiation"):
            compatibility.refuse(f"the parameter {parameter!r} of {cartesian.__name__}.run_negotiation")
    if hasattr(cartesian, "continue_cartesian_tournament"):
        continuing = _wrapped(cartesian, "continue_cartesian_tournament", _continue_cartesian_tournament)
        _installed.add("continue_cartesian_tournament", continuing)
    run_negotiation = _wrapped(cartesian, "run_negotiation", _run_negotiation)
    run_negotiation.everywhere = False  # a call outside of a tournament has no seed
    _installed.add("run_negotiation", run_negotiation)


def _cartesian_tournament(_: Any, original: Callable[..., Any], call: inspect.BoundArguments) -> Any:
    from resilient_exec.adapters.negmas.negotiations import seeding as negotiation_seeds  # see _run_parallel

    is_serial = call.arguments.get("njobs", 0) < 0
    if not is_serial:
        checks.check_plots(call.arguments)
    in_threads = call.arguments.get("executor") == "thread" and not is_serial
    # If there is a time limit, newer versions run a serial tournament in one worker, which can be killed.
    lanes = settings.options(max_workers=1) if is_serial else contextlib.nullcontext()
    with lanes, negotiation_seeds.seeded(settings.current().seed, in_threads=in_threads):
        return original(*call.args, **call.kwargs)


def _continue_cartesian_tournament(_: Any, original: Callable[..., Any], call: inspect.BoundArguments) -> Any:
    # Checked before, since negmas turns every exception into None, and writes other scenarios before it runs any.
    folder = Path(call.arguments["path"])
    if not any(folder.glob("details.*")):  # with such a file it is complete, and is only loaded
        checks.check_begun(folder)
    return original(*call.args, **call.kwargs)


def _run_negotiation(_: Any, original: Callable[..., Any], call: inspect.BoundArguments) -> Any:
    """Run a negotiation in this process; in a worker negmas' own function is called."""
    from resilient_exec.adapters.negmas.negotiations import seeding as negotiation_seeds  # see _run_parallel

    seeds = negotiation_seeds.current()
    return original(**call.arguments) if seeds is None else seeds.run_here(original, call.arguments)


def _install_stand_in_for_pool(cartesian: Any, name: str, negotiations: Any) -> None:
    if name == "run_isolated_tasks":
        ours = inspect.signature(negotiations.run_isolated_tasks).parameters
        for parameter in compatibility.parameters(cartesian, name):
            if parameter not in ours:
                compatibility.refuse(f"{cartesian.__name__}.{name} without the parameter {parameter!r}")
        stand_in = negotiations.run_isolated_tasks
        _installed.add(name, _Patch(getattr(cartesian, name), stand_in, cartesian, everywhere=False))
        return
    compatibility.parameters(cartesian, "failed_run_record")
    code = cartesian.cartesian_tournament.__code__
    if not hasattr(cartesian, name):
        compatibility.refuse(f"{cartesian.__name__}.run_isolated_tasks, or an older version's ProcessPoolExecutor")
    if "timeout" not in {*code.co_varnames, *code.co_cellvars}:
        compatibility.refuse(f"the variable 'timeout' of {cartesian.__name__}.cartesian_tournament")
    stand_in = functools.partial(negotiations.NegotiationPool, cartesian)
    _installed.add(name, _Patch(getattr(cartesian, name), stand_in, cartesian, everywhere=False))
