"""`--help`: its examples are calls that the parser takes, and fit into a terminal."""

import shlex

import pytest

from aedr_jax.cli.arguments import COMMANDS, make_parser
from aedr_jax.cli.examples import EXAMPLES, FIRST
from aedr_jax.cli.main import main


def test_every_command_has_examples():
    assert list(EXAMPLES) == list(COMMANDS)


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_an_example_is_a_call(line):
    program, command, *rest = shlex.split(line)
    assert (program, line in EXAMPLES[command]) == ("aedr", True)
    assert make_parser().parse_args([command, *rest]).command == command
    assert len(f"  {line}") <= 80


@pytest.mark.parametrize("call", [["--help"], ["attribute", "--help"]])
def test_help_ends_with_them(capsys, monkeypatch, call):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(call)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    end = FIRST if call == ["--help"] else "\n".join(f"  {line}" for line in EXAMPLES["attribute"])
    assert text.endswith(f"{end}\n")
