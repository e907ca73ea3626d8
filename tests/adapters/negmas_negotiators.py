"""Negotiators for the tests, and a small negotiation tournament that stock negmas of 2024 does not survive."""

from __future__ import annotations

import inspect
import os
import random
import signal
import time

import numpy as np
from negmas.inout import Scenario
from negmas.outcomes import make_issue, make_os
from negmas.preferences import LinearAdditiveUtilityFunction
from negmas.sao import AspirationNegotiator, BoulwareTBNegotiator, ConcederTBNegotiator, RandomNegotiator
from negmas.tournaments.neg.simple import cartesian

HEALTHY = (AspirationNegotiator, BoulwareTBNegotiator, ConcederTBNegotiator)


class Killer(AspirationNegotiator):
    """Kills its process."""

    def propose(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)


class Sleeper(AspirationNegotiator):
    """Never answers."""

    def propose(self, *args, **kwargs):
        while True:
            time.sleep(0.1)


class Quitter(AspirationNegotiator):
    """Raises what no ``except Exception`` catches."""

    def propose(self, *args, **kwargs):
        raise KeyboardInterrupt("not the user's")


class Stumbler(RandomNegotiator):
    """Kills its process where the file named in ``STUMBLE`` lies, and takes it away; draws its offers."""

    def propose(self, *args, **kwargs):
        stone = os.environ.get("STUMBLE")
        if stone and os.path.exists(stone):
            os.unlink(stone)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().propose(*args, **kwargs)


def scenarios(n):
    """Two issues, linear utilities; the same ones each time."""
    rng = np.random.default_rng(7)
    found = []
    for i in range(n):
        space = make_os([make_issue(6, "price"), make_issue(5, "quantity")], name=f"scenario{i}")
        values = [{"price": _table(rng, 6), "quantity": _table(rng, 5)} for _ in range(2)]
        ufuns = tuple(
            LinearAdditiveUtilityFunction(v, outcome_space=space, reserved_value=0.0, name=f"u{i}{j}")
            for j, v in enumerate(values)
        )
        found.append(Scenario(outcome_space=space, ufuns=ufuns))
    return found


def _table(rng, n):
    return {k: float(rng.random()) for k in range(n)}


def tournament(competitors=HEALTHY, n_scenarios=2, njobs=0, drawn=7, **kwargs):
    """Its records: every pair of negotiators, in both roles, in each scenario; in an order that is ``drawn``."""
    random.seed(drawn)
    np.random.seed(drawn)  # noqa: NPY002  it is the one that negmas draws from
    settings = {"n_repetitions": 1, "n_steps": 20, "njobs": njobs, "verbosity": 0, "plot_fraction": 0, **kwargs}
    if "save_scenario_figs" in inspect.signature(cartesian.cartesian_tournament).parameters:
        settings["save_scenario_figs"] = False  # it downloads a browser
    # By the module: so that nothing is bound before the adapter is installed.
    return cartesian.cartesian_tournament(competitors, scenarios=scenarios(n_scenarios), **settings)


def records(results):
    """What happened in each negotiation, without times and ids, in an order of its own."""
    return sorted(
        (str(r["scenario"]), str(r["partners"]), str(r["agreement"]), tuple(np.round(list(r["utilities"]), 6)))
        for r in results.details.to_dict("records")
    )
