"""Keys are the user's: nothing below ``submit`` compares, hashes or prints one, and none harms another task."""

from __future__ import annotations

import threading

import pool_notes as notes
import pool_tasks as tasks
import pytest

from resilient_exec import RetryPolicy
from resilient_exec.pool.keys import packed

threads = set()


class Watched:
    """Tells in which threads it is asked for its hash, compared and printed."""

    def __init__(self, name):
        self.name = name

    def __hash__(self):
        threads.add(threading.current_thread().name)
        return hash(self.name)

    def __eq__(self, other):
        threads.add(threading.current_thread().name)
        return self.name == other.name

    def __repr__(self):
        threads.add(threading.current_thread().name)
        return f"<{self.name}>"


def test_no_thread_of_the_pool_compares_hashes_or_prints_a_key(make_pool):
    threads.clear()
    told = []
    pool = make_pool(2, observers=[told.append], retry=RetryPolicy(deaths=1, wait=lambda _: 0.0))
    futures = [pool.options(key=Watched(n)).submit(tasks.same, n) for n in range(5)]
    futures.append(pool.options(key=Watched("dies")).submit(tasks.leave, 3))
    futures.append(pool.options(key=Watched("hangs"), timeout=0.2).submit(tasks.hang))
    futures[-2].exception(60)
    futures[-1].exception(60)
    assert [future.result(60) for future in futures[:5]] == list(range(5))
    pool.shutdown()
    assert not any(name.startswith("resilient-") for name in threads), threads


class HatesOthers:
    """Compares with its like only, and has the hash of a number."""

    def __hash__(self):
        return 3

    def __eq__(self, other):
        return self.name == other.name

    name = "x"


def test_a_key_that_cannot_be_compared_with_others_harms_no_other_task(make_pool, tmp_path):
    pool = make_pool(1)
    go, here = str(tmp_path / "go"), str(tmp_path / "here")
    first = pool.options(key=HatesOthers()).submit(tasks.meet, here, go, "met")
    others = [pool.submit(tasks.same, n) for n in range(6)]
    tasks.note(go, "now")
    assert first.result(60) == "met"
    assert [other.result(60) for other in others] == list(range(6))


class ChangesItsHash:
    value = 0

    def __hash__(self):
        self.value += 1
        return self.value

    def __eq__(self, other):
        return self is other


def test_a_key_whose_hash_changes_harms_nobody(make_pool):
    pool = make_pool(1)
    assert pool.options(key=ChangesItsHash()).submit(tasks.same, 1).result(60) == 1
    assert [pool.submit(tasks.same, n).result(60) for n in range(4)] == list(range(4))


def test_a_task_with_the_key_none_is_ended_by_its_timeout_and_by_a_kill(make_pool):
    pool = make_pool(1, retry=1)
    view = pool.options(key=None, timeout=0.3)
    assert "timeout of 0.3 s" in str(view.submit(tasks.hang).exception(60))
    killed = pool.options(key=None).submit(tasks.hang)
    killed.kill()
    assert "future.kill()" in str(killed.exception(60))


@pytest.mark.parametrize("key", ["pkg.__main__:run", ("a", "__main__"), 7, None, frozenset(["__mp_main__"])])
def test_a_key_of_plain_values_arrives_as_it_is(make_pool, key):
    pool = make_pool(1)
    assert pool.options(key=key).submit(notes.own_key).result(60) == key
    assert packed(key) is not None
