"""Competitors by name: what is meant is found or suggested; what a module does at its import costs a worker at most."""

from __future__ import annotations

import sys
import warnings

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # importing all of scml says this and that about other libraries
    pytest.importorskip("scml.utils")

from resilient_exec.cli.parsing import CommandError
from resilient_exec.cli.scml import competitors
from resilient_exec.cli.scml.competitors import Look, Named, look, look_at, parse, refuse

MINE = """
from scml.oneshot.agents import GreedyOneShotAgent
import time

class Zeta(GreedyOneShotAgent): ...
class Mine(GreedyOneShotAgent): ...
class _Private(GreedyOneShotAgent): ...
class Helper: ...
a_number = 7
"""
MODULES = {
    "cli_mine": MINE,
    "cli_exits": "import sys\nsys.exit(0)\n",
    "cli_exits_with_words": "import sys\nsys.exit('no \\x1b[31mlicence')\n",
    "cli_os_exits": "import os\nos._exit(5)\n",
    "cli_hangs": "import time\n\nwhile True:\n    time.sleep(0.1)\n",
    "cli_raises": "x = 1\nraise ValueError('no weights')\n",
    "cli_misses": "import no_such_module_anywhere\n",
    "cli_syntax": "def :\n",
    "cli_interrupts": "raise KeyboardInterrupt\n",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "team").mkdir()
    (tmp_path / "team" / "agent.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    yield tmp_path
    sys.path[:] = before
    for name in [*MODULES, "team", "team.agent"]:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("text", "module", "name"),
    [
        ("cli_mine:Mine", "cli_mine", "Mine"),
        ("cli_mine.Mine", "cli_mine", "Mine"),
        ("./cli_mine.py:Mine", "cli_mine", "Mine"),
        ("cli_mine.py:Mine", "cli_mine", "Mine"),
        ("team/agent.py:Mine", "team.agent", "Mine"),
        ("team/agent:Mine", "team.agent", "Mine"),
        ("./team/../cli_mine.py:Mine", "cli_mine", "Mine"),
        ("team.agent:Mine", "team.agent", "Mine"),
        ("team.agent.Mine", "team.agent", "Mine"),
        ("GreedyOneShotAgent", "", "GreedyOneShotAgent"),
    ],
)
def test_a_competitor_may_be_named_in_each_of_the_usual_ways(text, module, name, folder):
    assert parse(text) == Named(text, module, name)


def test_a_file_elsewhere_is_found_by_its_folder(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "cli_theirs.py").write_text("")
    assert parse(f"{other}/cli_theirs.py:Agent").module == "cli_theirs"
    assert str(other) in sys.path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cli_mine.py", ["say which class", "cli_mine.py:CLASS", "Zeta, Mine, _Private, Helper"]),
        ("./nowhere.py:Mine", ["there is no file", "nowhere.py"]),
        ("cli_mine:", ["names no class", "MODULE:CLASS"]),
        ("no-such:X", ["names no class"]),
        ("a:b:c", ["names no class"]),
        ("", ["names no class"]),
    ],
)
def test_what_names_no_class_is_told_so(text, words, folder):
    with pytest.raises(CommandError) as refused:
        parse(text)
    for word in words:
        assert word in str(refused.value)


def told_of(text, track="oneshot"):
    """The refusal of a competitor whose module is looked at in this process."""
    named = parse(text)
    with pytest.raises(CommandError) as refused:
        if named.module:
            refuse({named: look_at(named.module, [named.name], ".")[0]})
        else:
            competitors.scml_agents_named(named, track)
    assert len(str(refused.value).splitlines()) == 1
    return str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cli_mine:Mime", ["has no class 'Mime'", "did you mean cli_mine:Mine?", "has Mine, Zeta, GreedyOneShotAgent"]),
        ("cli_mine:mine", ["did you mean cli_mine:Mine?"]),
        ("cli_mnie:Mine", ["there is no module 'cli_mnie'", "did you mean cli_mine:Mine?"]),
        ("no_such_thing:Whatever", ["there is no module 'no_such_thing'"]),
        ("Mine", ["scml has no oneshot agent of this name", "did you mean cli_mine:Mine?"]),
        ("GredyOneShotAgent", ["did you mean GreedyOneShotAgent?"]),
        ("Nobody", ["it has", "RandomOneShotAgent", "MODULE:CLASS"]),
        ("cli_mine:Helper", ["cli_mine:Helper is not an agent"]),
        ("json:JSONDecoder", ["json:JSONDecoder is not an agent"]),
        ("cli_mine:a_number", ["something that is no class"]),
        ("cli_exits:Mine", ["importing cli_exits ends the program (sys.exit(0))", "(cli_exits.py:2)"]),
        ("cli_exits_with_words:Mine", ["ends the program"]),
        ("cli_raises:Mine", ["importing cli_raises raises ValueError: no weights (cli_raises.py:2)"]),
        (
            "cli_misses:Mine",
            ["importing cli_misses raises ModuleNotFoundError: No module named 'no_such_module_anywhere'"],
        ),
        ("cli_syntax:Mine", ["importing cli_syntax raises SyntaxError", "line 1"]),
        ("cli_interrupts:Mine", ["importing cli_interrupts raises KeyboardInterrupt"]),
    ],
)
def test_what_cannot_play_is_refused_in_one_line_with_what_may_be_meant(text, words, folder):
    told = told_of(text)
    for word in words:
        assert word in told
    assert "\x1b" not in told


def test_a_file_is_read_and_not_run_when_names_are_looked_for(folder):
    (folder / "cli_bomb.py").write_text("raise SystemExit\nclass Bomb: ...\n")
    assert "did you mean cli_bomb:Bomb?" in told_of("Bomb")


def test_an_agent_is_known_with_its_full_name_and_its_track(folder):
    (found,) = look_at("cli_mine", ["Mine"], ".")
    assert (found.name, found.track, found.error) == ("cli_mine.Mine", "oneshot", "")
    (found,) = look_at("scml.std.agents", ["GreedyStdAgent"], ".")
    assert found.track == "std"


def test_modules_that_end_or_stop_their_process_cost_a_worker_each(folder):
    """In real workers, all at once: those that hang are told with the line at which they stood."""
    names = [Named(f"{module}:A", module, "A") for module in ("cli_os_exits", "cli_hangs", "cli_exits")]
    found = look(names, start_timeout=4.0)
    assert [found[name].error for name in names] == [
        "importing cli_os_exits ends the program: the worker that imported it ended with status 5",
        "importing cli_hangs took longer than 4 s (--start-timeout); it stood in cli_hangs.py:4",
        "importing cli_exits ends the program (sys.exit(0)) (cli_exits.py:2)",
    ]


def test_what_is_well_is_not_refused():
    refuse({Named("a:A", "a", "A"): Look(name="a.A")})
