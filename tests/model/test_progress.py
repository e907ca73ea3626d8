"""The state of a task in a few words, from stories made by hand."""

from __future__ import annotations

import pytest

from resilient_exec.model.events import Event
from resilient_exec.model.progress import progress, span

QUEUED = Event(0.0, "queued", "k")
SENT = Event(1.0, "sent", "k", 1, 0)
BEGUN = Event(2.0, "begun", "k", 1, 0)
DIED = Event(5.0, "died", "k", 1, 0, {"exitcode": -9})
BACK = Event(5.0, "backing_off", "k", 1, None, {"delay": 1.0})
SENT_2, BEGUN_2 = Event(6.0, "sent", "k", 2, 0), Event(6.1, "begun", "k", 2, 0)


TWO = (QUEUED, SENT, BEGUN, Event(6.0, "speculated", "k", 1, 0), SENT_2, BEGUN_2)
OUTRUN = (
    Event(7.0, "returned", "k", 2, 1),
    Event(7.0, "doomed", "k", 1, 0),
    Event(7.1, "outrun", "k", 1, 0),
    Event(7.1, "settled", "k", 2, None, {"how": "done"}),
)


def end(kind, **detail):
    return Event(4.0, kind, "k", 1, 0, detail), Event(4.0, "settled", "k", 1, None, {"how": "failed"})


@pytest.mark.parametrize(
    ("story", "words"),
    [
        ((), "queued"),
        ((QUEUED,), "queued"),
        ((QUEUED, SENT), "sent, attempt 1 of 3"),
        ((QUEUED, SENT, BEGUN), "running, attempt 1 of 3, 8.0 s"),
        ((QUEUED, SENT, BEGUN, Event(3.0, "stalled", "k", 1, 0)), "running, attempt 1 of 3, 8.0 s"),
        ((QUEUED, SENT, BEGUN, Event(3.0, "doomed", "k", 1, 0)), "being ended, attempt 1 of 3, 8.0 s"),
        ((QUEUED, SENT, BEGUN, DIED, BACK), "backing off, attempt 1 of 3"),
        ((QUEUED, SENT, BEGUN, DIED, BACK, SENT_2), "sent, attempt 2 of 3"),
        ((QUEUED, SENT, BEGUN, DIED, BACK, SENT_2, BEGUN_2), "running, attempt 2 of 3, 3.9 s"),
        ((QUEUED, SENT, BEGUN, Event(3.0, "evicted", "k", 1, 0), QUEUED), "queued, attempt 1 of 3"),
        ((QUEUED, SENT, BEGUN, *end("returned")), "returned, attempt 1 of 3, 2.0 s"),
        ((QUEUED, SENT, BEGUN, *end("raised", exception="ValueError")), "raised ValueError, attempt 1 of 3, 2.0 s"),
        ((QUEUED, SENT, BEGUN, *end("timed_out", limit=2)), "timed out, attempt 1 of 3, 2.0 s"),
        ((QUEUED, SENT, BEGUN, DIED, *end("died")), "its worker died, attempt 1 of 3, 2.0 s"),
        ((QUEUED, Event(1.0, "settled", "k", 0, None, {"how": "cancelled"})), "cancelled"),
        ((*TWO,), "running, attempt 2 of 3, 3.9 s"),
        ((*TWO, Event(7.0, "died", "k", 2, 1)), "running, attempt 1 of 3, 8.0 s"),
        ((*TWO, DIED), "running, attempt 2 of 3, 3.9 s"),
        ((*TWO, *OUTRUN[:2]), "being ended, attempt 1 of 3, 8.0 s"),
        ((*TWO, *OUTRUN), "returned, attempt 2 of 3, 0.9 s"),
        ((QUEUED, Event(1.0, "settled", "k", 0, None, {"how": "failed"})), "failed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_story_in_a_few_words(story, words):
    assert progress(story, 10.0, 3) == words


def test_a_twin_is_none_of_the_attempts_that_are_granted():
    assert progress(TWO, 10.0, 1) == "running, attempt 2, 3.9 s"


def test_without_a_limit_no_number_of_attempts_in_all_is_told():
    assert progress((QUEUED, SENT, BEGUN), 2.5) == "running, attempt 1, 0.5 s"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0.000 s"), (0.0123, "0.012 s"), (4.12, "4.1 s"), (-1, "0.000 s")])
def test_a_span_is_short(seconds, text):
    assert span(seconds) == text
