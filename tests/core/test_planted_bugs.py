"""The tests of the core are worth something: they catch bugs that are planted on purpose."""

from __future__ import annotations

from collections import Counter

import pytest
from plant_bugs import one_of_each, read_plants, try_all

PLANTS = read_plants()


def _survivors(plants: list) -> list[str]:
    return [verdict.plant.name for verdict in try_all(plants) if not verdict.caught]


def test_bugs_are_planted_against_each_law_of_the_core_and_each_family_of_moves() -> None:
    about = Counter(plant.about for plant in PLANTS)
    laws = {"law 1", "law 2", "law 4", "law 8", "law 9"}
    families = {"late words", "kills", "cancels", "limits", "memory", "the end", "keys", "speculation", "costs"}
    assert laws | families <= set(about)
    assert len({plant.name for plant in PLANTS}) == len(PLANTS) >= 120


@pytest.mark.slow
def test_some_bugs_of_each_kind_are_caught() -> None:
    assert _survivors(one_of_each(PLANTS)) == []


@pytest.mark.slow
def test_every_bug_is_caught() -> None:
    assert _survivors(PLANTS) == []
