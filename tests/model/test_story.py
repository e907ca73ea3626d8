"""A story as its reader has it: a tuple of events that prints well."""

from __future__ import annotations

import pickle

from resilient_exec import Event, TaskStory

EVENTS = (Event(0.0, "queued", "k"), Event(1.25, "begun", "k", 1, 0, {"pid": 7}), Event(2.0, "settled", "k", 1))


def test_a_story_is_a_tuple_that_prints_as_one_line_for_each_event():
    story = TaskStory(EVENTS)
    assert story == EVENTS
    assert story[1:] == EVENTS[1:]
    assert str(story).splitlines() == [
        "     0.000 s  queued",
        "     1.250 s  begun (attempt 1 on lane 0) pid=7",
        "     2.000 s  settled (attempt 1)",
    ]
    assert repr(story) == "<TaskStory of 3 events: queued, begun, settled>"
    assert repr(TaskStory(EVENTS * 5)).startswith("<TaskStory of 15 events: 5 earlier, settled, queued, begun,")
    assert (str(TaskStory()), repr(TaskStory())) == ("", "<TaskStory of 0 events: >")


def test_a_story_travels():
    story = pickle.loads(pickle.dumps(TaskStory(EVENTS)))
    assert (type(story), story) == (TaskStory, EVENTS)
