"""``logs="forward"``: what tasks log reaches the parent's handlers, and delays nobody."""

from __future__ import annotations

import logging
import os
import sys
import threading

import pool_logs as tasks
import pool_tasks
import pytest
from pool_wait import until

from resilient_exec import ResilientPool

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no Unix sockets")


class Keeper(logging.Handler):
    """Keeps the records, and the threads that it was called on."""

    def __init__(self):
        super().__init__()
        self.records, self.threads = [], set()

    def emit(self, record):
        self.threads.add(threading.current_thread().name)
        self.records.append(record)

    def texts(self):
        return [record.getMessage() for record in self.records]


def seen(keeper):
    return [(record.name, record.levelname) for record in keeper.records]


@pytest.fixture
def keeper():
    """A handler at the root, where INFO and above is wanted; all is as before afterwards."""
    root, handler = logging.getLogger(), Keeper()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)
    for name in ("model", "model.step", "quiet"):
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture(params=[(), pytest.param(("json",), marks=pytest.mark.skipif(sys.platform != "linux", reason="fork"))])
def preload(request):
    """Workers started by themselves, and forked."""
    return request.param


def test_records_arrive_with_key_label_and_attempt(keeper, preload):
    with ResilientPool(2, logs="forward", preload=preload) as pool:
        pool.options(key=("case", 7), label="the case").submit(tasks.say, "hello", step=3).result(60)
        numbered = pool.submit(tasks.say, "number")
        numbered.result(60)
    case, number = keeper.records
    assert (case.name, case.levelname, case.getMessage(), case.step) == ("model.step", "INFO", "hello", 3)
    assert (case.task_key, case.task_label, case.task_attempt) == (("case", 7), "the case", 1)
    assert (number.task_key, number.task_label, number.task_attempt) == (numbered.key, "say", 1)
    assert case.funcName == "say"
    assert case.process != os.getpid()
    assert keeper.threads == {"resilient-logs"}


def test_all_that_was_said_is_there_when_the_pool_has_ended_in_order_of_each_task(keeper, preload):
    with ResilientPool(2, logs="forward", preload=preload) as pool:
        pool.submit(pool_tasks.same, 1).result(60)
        assert list(pool.map(tasks.say_much, [300] * 6)) == ["returned"] * 6
        assert pool.snapshot()["dropped_logs"] == 0
    for key in range(1, 7):
        said = [record.getMessage() for record in keeper.records if record.task_key == key]
        assert said == [str(number) for number in range(300)]


def test_what_a_task_said_before_its_worker_died_arrives(keeper):
    with ResilientPool(1, logs="forward") as pool:
        pool.submit(tasks.say_in_each_attempt, 3).result(60)
    assert [(record.getMessage(), record.task_attempt) for record in keeper.records] == [
        ("attempt 1", 1),
        ("attempt 2", 2),
        ("attempt 3", 3),
    ]


def test_an_exception_arrives_as_text(keeper):
    with ResilientPool(1, logs="forward") as pool:
        assert pool.submit(tasks.say_and_fail).result(60) == "returned"
    (record,) = keeper.records
    assert record.exc_info is None
    text = logging.Formatter().format(record)
    assert text.startswith("it failed\nTraceback (most recent call last):")
    assert text.endswith("ValueError: mine")


def test_levels_are_those_of_the_parent(keeper):
    logging.getLogger("quiet").setLevel(logging.ERROR)
    with ResilientPool(1, logs="forward") as pool:
        pool.submit(tasks.say_all).result(60)
        until(lambda: len(keeper.records) == 4)
        assert seen(keeper) == [
            ("model.step", "INFO"),
            ("model.step", "WARNING"),
            ("model.step", "ERROR"),
            ("quiet", "ERROR"),
        ]
        keeper.records.clear()
        logging.getLogger("model").setLevel(logging.ERROR)  # raised while the workers run
        pool.submit(tasks.say_all).result(60)
    assert seen(keeper) == [("model.step", "ERROR"), ("quiet", "ERROR")]


def test_handlers_of_a_logger_that_does_not_propagate_are_called(keeper):
    logger, mine = logging.getLogger("model"), Keeper()
    logger.addHandler(mine)
    logger.propagate = False
    try:
        with ResilientPool(1, logs="forward") as pool:
            pool.submit(tasks.say, "hello").result(60)
    finally:
        logger.removeHandler(mine)
        logger.propagate = True
    assert mine.texts() == ["hello"]
    assert keeper.texts() == []


def test_odd_records_harm_nobody(keeper):
    with ResilientPool(1, logs="forward") as pool:
        assert pool.submit(tasks.say_odd_things).result(60) == "returned"
        assert pool.submit(tasks.say, "and on").result(60) == "and on"
    texts = keeper.texts()
    assert "two %s %s [its arguments could not be formatted: TypeError" in texts[0]
    assert "no text" in texts[1]
    assert (texts[2], keeper.records[2].number) == ("with a thing", 7)
    assert "HangsInReduce" in keeper.records[2].thing
    assert texts[3].startswith("xxx")
    assert texts[3].endswith("[... cut]")
    assert texts[4:] == ["surrogate \udc80 and \n a line, and a null \0", "and on"]


def test_a_handler_that_blocks_delays_no_task_and_what_is_too_much_is_counted(keeper):
    go = threading.Event()
    keeper.addFilter(lambda record: go.wait(60) or True)
    try:
        with ResilientPool(1, logs="forward") as pool:
            assert pool.submit(tasks.say_much, 30_000).result(60) == "returned"
            assert pool.submit(pool_tasks.same, 1).result(60) == 1
            go.set()
            until(lambda: keeper.records)
    finally:
        go.set()
    said = [record for record in keeper.records if record.name == "model.step"]
    dropped = pool.snapshot()["dropped_logs"]
    assert dropped > 0
    assert len(said) + dropped == 30_000
    assert any("log records of tasks were dropped" in text for text in keeper.texts())


def test_a_handler_that_raises_or_exits_loses_its_own_record_only(keeper):
    def filter_(record):
        if record.getMessage() in ("raises", "exits"):
            raise ValueError("mine") if record.getMessage() == "raises" else SystemExit(3)
        return True

    keeper.addFilter(filter_)
    with ResilientPool(1, logs="forward") as pool:
        for text in ("raises", "exits", "fine"):
            pool.submit(tasks.say, text).result(60)
    assert "fine" in keeper.texts()
    assert keeper.texts().count("a log record of a task could not be handled") == 2


def test_a_task_may_log_in_a_child(keeper):
    with ResilientPool(1, logs="forward", retry=1) as pool:
        pool.submit(tasks.say_in_a_child).result(60)
    assert keeper.texts() == ["child", "worker"]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_no_record_is_written_into_a_file_of_the_tasks(keeper, tmp_path):
    path = tmp_path / "file"
    with ResilientPool(1, logs="forward", retry=1) as pool:
        pool.submit(tasks.say_behind_closed_descriptors, str(path)).exception(60)
        pool.submit(tasks.say, "and on").result(60)
    assert path.read_bytes() == b""
    assert keeper.texts() == ["low ones are closed", "and on"]


def test_an_initializer_may_set_up_more(keeper, tmp_path):
    path = tmp_path / "log"
    with ResilientPool(1, logs="forward", initializer=tasks.set_level_and_handler, initargs=(str(path),)) as pool:
        pool.submit(tasks.say_all).result(60)
    assert [record for record in seen(keeper) if record[0] == "model.step"] == [("model.step", "ERROR")]
    assert path.read_text() == "said\n"


def test_with_a_seed_as_well(keeper):
    with ResilientPool(1, logs="forward", seed=7) as pool:
        pool.map(tasks.say, ["a", "b", "c"], chunksize=3)
    assert keeper.texts() == ["a", "b", "c"]


def test_without_it_nothing_is_forwarded(keeper):
    with ResilientPool(1) as pool:
        pool.submit(tasks.say, "hello", logging.INFO).result(60)
    assert keeper.records == []


def test_a_script_s_own_handlers_write_once_and_all_is_written_at_exit(start_script):
    script = start_script(
        """
        import logging
        from resilient_exec import ResilientPool

        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")  # in workers, too: they import it

        def task(number):
            logging.info("task %d", number)

        if __name__ == "__main__":
            pool = ResilientPool(1, logs="forward")
            for number in range(100):
                pool.submit(task, number)
        """
    )
    assert script.wait() == 0
    assert script.err.splitlines() == [f"INFO task {number}" for number in range(100)]


def test_a_pool_that_is_dropped_leaves_nothing(keeper):
    pool = ResilientPool(1, logs="forward")
    pool.submit(tasks.say, "hello")
    del pool
    until(lambda: keeper.texts() == ["hello"])
