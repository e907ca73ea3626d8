"""The help of each subcommand: its own, grouped, with examples, and readable at 80 columns."""

from __future__ import annotations

import pytest

from resilient_exec.cli import main, parser


def paths(command, words=()):
    """The words of each subcommand that can be run."""
    subcommands = [
        action for action in command._actions if hasattr(action, "choices") and isinstance(action.choices, dict)
    ]
    if not subcommands:
        return [(words, command)]
    return [found for name, one in subcommands[0].choices.items() for found in paths(one, (*words, name))]


COMMANDS = {" ".join(words): command for words, command in paths(parser())}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_subcommand_has_a_help_of_its_own_with_examples(name, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"usage: resilient-exec {name} " in shown
    assert f"  resilient-exec {name} " in shown.partition("examples:")[2]
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("track", ["std", "oneshot"])
@pytest.mark.parametrize("words", ["A B --steps 7", "--steps 7 A B", "A --steps 7 B"])
def test_options_may_stand_before_between_and_behind_competitors(track, words):
    arguments = parser().parse_args(["scml", track, *words.split()])
    assert (arguments.competitors, arguments.steps) == (["A", "B"], 7)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("5m", 300), ("1h", 3600), ("1h30m", 5400), ("1.5", 1.5)])
def test_durations_may_have_units(text, seconds):
    assert parser().parse_args(["scml", "std", "--timeout", text]).timeout == seconds


@pytest.mark.parametrize("text", ["0", "-5", "5x", "m", "", "inf", "nan", "1h30", "5 m x"])
def test_what_is_no_duration_is_refused_with_what_would_be_one(text, capsys):
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(["scml", "std", f"--timeout={text}"])
    assert ended.value.code == 2
    assert "--timeout" in (err := capsys.readouterr().err)
    assert "5m" in err
