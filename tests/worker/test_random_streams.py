"""The derivation of random streams: its values are held for all time."""

from __future__ import annotations

import enum
import hashlib
import pathlib
import random
import uuid
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ids import stable

from resilient_exec.worker.random_streams import canonical, derived, key_of_item


class Color(enum.Enum):
    RED = 1


class Number(enum.IntEnum):
    SEVEN = 7


class Text(str):  # noqa: SLOT000  a user's
    def __repr__(self):
        return "another text"


@pytest.mark.parametrize(
    ("seed", "key", "first", "numpys"),
    [
        (0, 0, 16640451021016775605, 4561597680446646175),
        (7, 0, 13774725368959616883, 12137137062781193692),
        (7, 1, 14868079611241424165, 2794192876258183304),
        (-1, 0, 14397878687131579189, 10261490763502527185),
        (2**100, "case 7", 488129720948843429, 13334631399986353199),
        (7, ("a", 1), 4437369084928694637, 5124920630914455086),
        (7, None, 2370184007569248045, 14019359767111508902),
        (7, b"x", 15274277000352450439, 17840698668582985403),
        (7, 0.1, 14077017928254159402, 294845259449030157),
        (7, "\xe4\U0001fae8", 7863908670360650041, 14993909511938140477),
    ],
)
def test_the_values_never_change(seed, key, first, numpys):
    """Whatever fails here would change the results that people have published."""
    assert random.Random(derived(seed, key, "rng")).getrandbits(64) == first
    assert derived(seed, key, "numpy") % 2**64 == numpys


def test_it_is_what_the_documents_say():
    digest = hashlib.blake2b(b"(7, 'case')", digest_size=32, person=b"rng").digest()
    assert derived(7, "case", "rng") == int.from_bytes(digest, "big")
    assert derived(7, "case", "numpy") != derived(7, "case", "rng")


@pytest.mark.parametrize(
    ("key", "plain"),
    [
        (True, 1),
        (7.0, 7),
        (0.5, 0.5),
        (Number.SEVEN, 7),
        (Text("a"), "a"),
        (("a", (7.0, None)), ("a", (7, None))),
        (b"a", b"a"),
        (frozenset("cab"), ("frozenset", "a", "b", "c")),
        (Color.RED, "<Color.RED: 1>"),
        (pathlib.PurePosixPath("a/b"), "PurePosixPath('a/b')"),
        (Decimal("1.5"), "Decimal('1.5')"),
        (uuid.UUID(int=1), "UUID('00000000-0000-0000-0000-000000000001')"),
    ],
    ids=stable,
)
def test_a_key_counts_as_what_it_says(key, plain):
    assert canonical(key) == plain
    assert type(canonical(key)) is type(plain)


def test_a_numpy_number_is_a_number():
    np = pytest.importorskip("numpy")
    assert [canonical(np.int64(7)), canonical(np.float64(7)), canonical(np.str_("a"))] == [7, 7, "a"]
    assert type(canonical(np.int64(7))) is int


@pytest.mark.parametrize("key", [object(), lambda: 0, ("a", object())], ids=["object", "function", "inside"])
def test_a_key_that_is_told_by_its_place_in_memory_is_refused(key):
    with pytest.raises(TypeError, match=r"with seed= a key must be the same in every run.* use a number, a text"):
        canonical(key)


keys = st.recursive(st.none() | st.integers() | st.text() | st.binary() | st.floats(allow_nan=False), st.tuples)


@given(keys, keys)
def test_equal_keys_have_equal_streams_and_others_have_others(one, other):
    assert (derived(1, one, "rng") == derived(1, other, "rng")) == (one == other)


@given(st.integers(), st.integers())
def test_another_seed_gives_other_streams(one, other):
    assert (derived(one, "a", "rng") == derived(other, "a", "rng")) == (one == other)


def test_a_call_in_a_chunk_has_the_key_that_it_would_have_alone():
    assert [key_of_item(5, position) for position in range(3)] == [5, 6, 7]
    assert [key_of_item("a", position) for position in range(3)] == ["a", ("a", 1), ("a", 2)]
