"""What is made once, whoever asks: threads, a signal's handler, a finalizer."""

from __future__ import annotations

import signal
import threading

import pytest

from resilient_exec.pool.once import Once


def in_threads(count, fn):
    found = []
    threads = [threading.Thread(target=lambda: found.append(fn())) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, found


def test_it_is_made_by_another_thread_once_for_all_that_ask():
    once, makers, go_on = Once(), [], threading.Event()

    def make():
        makers.append(threading.current_thread())
        go_on.wait(60)
        return object()

    assert not once.has_begun
    threads, found = in_threads(8, lambda: once.get(make))
    while not once.has_begun:
        pass
    go_on.set()
    for thread in threads:
        thread.join()
    assert len(makers) == 1
    assert makers[0] not in threads
    assert set(found) == {once.get(make)}
    assert len(found) == 8
    assert not once.has_failed


def test_what_making_raises_is_raised_by_each_call():
    once = Once()

    def make():
        raise OSError("no descriptor left")

    for _ in range(2):
        with pytest.raises(OSError, match="no descriptor left"):
            once.get(make)
    assert once.has_failed


def test_a_signals_handler_gets_it_while_the_main_thread_waits_for_it():
    once, found, is_inside = Once(), [], threading.Event()

    def make():
        is_inside.wait(60)
        return "made"

    def handler(*_):
        threading.Timer(0.05, is_inside.set).start()
        found.append(once.get(make))

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        found.append(once.get(make))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert found == ["made", "made"]


def test_an_interrupt_ends_the_wait_and_not_the_making():
    once, go_on = Once(), threading.Event()

    def make():
        signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)
        go_on.wait(60)
        return "made"

    def handler(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            once.get(make)
    finally:
        signal.signal(signal.SIGALRM, before)
    go_on.set()
    assert once.get(lambda: "made again") == "made"


def test_without_a_thread_to_be_had_it_is_made_by_whoever_asks(monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert Once().get(threading.get_ident) == threading.get_ident()


def test_who_asks_for_it_while_making_it_is_told_so():
    once = Once()
    with pytest.raises(RuntimeError, match="finalizer"):
        once.get(lambda: once.get(object))
