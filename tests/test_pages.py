"""README and docs: every block is marked, what it calls exists, and the pages name what there is.

The blocks run in `parity/test_pages.py` and `.ci/run`. Here their arguments are parsed and their names looked up, of
those that cannot run as well (`needs data`, `needs a cluster`).
"""

import ast
import re
import shlex

import pytest
from pages import ALL, MARKERS, PAGES, ROOT

import aedr_jax
from aedr_jax.cli.arguments import make_parser
from aedr_jax.generate.folder import read_prompts

SHELL = [block for block in ALL if block.language == "sh" and block.marker != "test"]
PYTHON = [block for block in ALL if block.language == "python"]


def name(value):
    return value.where if hasattr(value, "where") else None


@pytest.mark.parametrize("block", ALL, ids=name)
def test_every_block_is_marked(block):
    assert block.marker in MARKERS, f"{block.where}: expected a comment above it, one of {', '.join(MARKERS)}"
    assert block.language in ("sh", "python") or block.marker in ("install-prints", "shows")


def test_ci_finds_its_blocks():
    found = [block.marker for block in ALL if block.page.name == "README.md"]
    assert [found.count(marker) for marker in ("install", "install-prints", "test")] == [1, 1, 1]


def calls(block):
    """The words of each `aedr`, `python -m` and `python FILE` in a shell block."""
    for command in block.commands:
        words = shlex.split(command, comments=True)
        words = words[words.index("do") + 1 :] if "do" in words[:-1] else words
        if words and words[0].rpartition("/")[2] in ("aedr", "python"):
            yield words[0].rpartition("/")[2], words[1:]


@pytest.mark.parametrize("block", SHELL, ids=name)
def test_commands_are_those_there_are(block):
    for program, words in calls(block):
        if program == "aedr":
            make_parser().parse_args(words)  # exits, and says why, on what it does not know
        elif words[0] == "-m" and words[1].startswith("benchmarks."):
            assert (ROOT / f"{words[1].replace('.', '/')}.py").is_file(), block.where
        elif words[0] == "-m":
            assert all((ROOT / word).exists() for word in words if word.startswith("tests")), block.where
        else:
            assert (ROOT / words[0]).is_file(), block.where


def test_all_of_the_command_line_is_shown():
    shown = {words[0] for block in SHELL for program, words in calls(block) if program == "aedr"}
    commands = next(action for action in make_parser()._actions if action.dest == "command").choices
    assert set(commands) - {"demo"} <= shown  # which the text names: it takes a minute


@pytest.mark.parametrize("block", PYTHON, ids=name)
def test_python_blocks_name_what_there_is(block):
    tree = ast.parse(block.text)
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "aedr"
    }
    assert used <= {*aedr_jax.__all__, "api"}, block.where


def test_the_site_has_every_public_name():
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\.\. auto\w+:: aedr_jax\.(\w+)$", text, re.MULTILINE)
    assert sorted(listed) == sorted(set(aedr_jax.__all__) - {"api"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_prompts_that_ship():
    prompts = read_prompts(ROOT / "docs" / "prompts.txt")
    assert len(prompts) == len(set(prompts)) == 100
    assert max(map(len, prompts)) < 77  # letters: fewer tokens than CLIP's 77
