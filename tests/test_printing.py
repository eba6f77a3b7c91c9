"""What a table of verdicts says, in 80 columns."""

import dataclasses
import io
import re
import sys

import numpy as np
import pytest

from aedr_jax.api.inventory import MINIATURE_ONLY, miniature_only
from aedr_jax.autoencoders.registry import miniature_models
from aedr_jax.cli.printing import COMPILING, bar
from aedr_jax.cli.verdicts import WIDTH, legend, print_verdicts, three, wrapped
from aedr_jax.decision.attribution import CAVEAT
from aedr_jax.decision.calibration import Calibration
from aedr_jax.scoring.rows import Row
from aedr_jax.scoring.verdicts import Verdict


@pytest.mark.parametrize(
    ("p", "n", "text"),
    [
        (0.01, 99, "<0.010"),
        (float(np.float32(0.05)), 19, "<0.050"),  # p-values are float32's
        (0.02, 99, "0.020"),
        (0.01, 100, "0.010"),
        (1 / 13, 12, "<0.077"),
        (1.0, 99, "1.000"),
        (0.0004, 9999, "<0.001"),
        (0.0005, 9999, "0.001"),
    ],
)
def test_three_decimals_and_no_less_than_the_images_can_tell(p, n, text):
    assert three(p, n) == text


def verdict(text, foreign_p_values, p_values=None, *, belonging=None, image="i", path="i.png", **options):
    accepted = {name: name in re.split(r"[,|: ]+", text) for name in foreign_p_values}
    foreign = 99 if foreign_p_values else 0
    status = "error" if text == "error" else "ok"
    return Verdict(
        image, path, "", text, {}, foreign_p_values, p_values or {}, {}, accepted, status, options.pop("error", ""),
        foreign=foreign, belonging=belonging or {}, **options,
    )  # fmt: skip


def printed(capsys, verdicts):
    print_verdicts(verdicts, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= WIDTH
    return lines


def test_the_named_model_or_the_nearest_has_its_p_value(capsys):
    verdicts = [
        verdict("a", {"b": 0.5, "a": 0.01}),
        verdict("none", {"a": 0.7, "b": 0.5, "c": 0.6}, image="j"),
        verdict("b", {"a": 0.01, "b": 0.02}, image="k"),  # another's is smaller, and yet this one is named
        verdict("none", {"a": 0.7}, image="l"),
    ]
    assert [re.split("  +", line) for line in printed(capsys, verdicts)] == [
        ["image", "verdict", "foreign p (+others)"],
        ["i", "a", "a <0.010 (+1)"],
        ["j", "none", "b 0.500 (+2)"],
        ["k", "b", "b 0.020 (+1)"],
        ["l", "none", "a 0.700"],
    ]


def test_a_line_behind_says_why_there_is_no_verdict_and_what_has_no_room(capsys):
    long = " ".join(["much"] * 30)
    verdicts = [
        verdict("not assessable", {"a": 0.5}, reason="a: too small"),
        verdict("error", {}, error=f"i.png: {long}", image="j"),
        verdict("ambiguous: a, b", {"a": 0.01, "b": 0.01}, image="k", found="mirrored"),
        verdict("not assessable", {"a": 0.5}, image="l"),
    ]
    lines = printed(capsys, verdicts)
    assert lines[:3] == ["image  verdict         foreign p (+others)", "i      not assessable", "  | a: too small"]
    assert lines[3] == "j      error"
    behind = [line for line in lines[4:] if "much" in line]
    assert len(behind) > 1
    assert all(line.startswith("  | ") for line in behind)
    assert " ".join(line.removeprefix("  | ") for line in behind) == f"i.png: {long}"
    assert lines[-5:] == [
        "k      ambiguous       a <0.010 (+1)",
        "  | ambiguous: a, b",
        "  | found mirrored",
        "l      not assessable",
        "  | a model gives it no defined score",
    ]


def test_with_calibrations_there_are_two(capsys):
    both = verdict("a", {"a": 0.01, "b": 0.01}, {"a": 0.05, "b": 0.05}, belonging={"a": 19, "b": 99})
    some = verdict("a", {"a": 0.01, "b": 0.01}, {"a": 0.05}, belonging={"a": 19}, image="j")
    header, *rows = printed(capsys, [both, some])
    assert re.split("  +", header)[-1] == "own p"
    assert [re.split("  +", row)[-1] for row in rows] == ["<0.050", "<0.050"]
    assert "own p: share of 19 own images" in legend([some])
    assert "own p: share of 19+ own images" in legend([both])
    paper = verdict("a", {}, {"a": 0.05, "b": 0.5}, belonging={"a": 99, "b": 99})
    alone = Verdict(**{**vars(paper), "accepted": {"a": True, "b": False}})
    assert re.split("  +", printed(capsys, [alone])[1]) == ["i", "a", "a 0.050"]


def test_the_legend_is_one_line_and_no_line_is_wider_than_a_terminal():
    shown = [verdict("a", {"a": 0.01}, {"a": 0.05}, belonging={"a": 1000, "b": 99999}, image="i")]
    shown.append(dataclasses.replace(shown[0], foreign=1_000_000))
    lines = legend(shown).splitlines()
    assert len(legend([verdict("a", {"a": 0.01})]).splitlines()) == 1
    assert max(map(len, [*lines, MINIATURE_ONLY, *wrapped(CAVEAT).splitlines()])) <= WIDTH
    assert "1000000+ foreign images" in lines[0]
    assert wrapped(CAVEAT).replace("\n", " ") == CAVEAT
    assert legend([verdict("error", {})]) == ""


def test_images_of_equal_names_are_told_apart(capsys):
    pairs = [("a.png", "x/a.png"), ("a.png", "y/a.png"), ("b.png", "z/b.png")]
    rows = [verdict("none", {"m": 0.5}, image=name, path=path) for name, path in pairs]
    assert [line.split()[0] for line in printed(capsys, rows)[1:]] == ["x/a.png", "y/a.png", "b.png"]
    deep = "/".join(["folder"] * 20)
    rows = [verdict("none", {"m" * 40: 0.5}, image=f"{i}/{deep}.png") for i in range(3)]
    rows.append(verdict("none", {"m": 0.5}, image="…older/folder.png #1"))
    names = [line.split("  ")[0] for line in printed(capsys, rows)[1:]]
    assert len(set(names)) == 4
    assert all(re.search(r"folder\.png( #1)? #[1-4]$", name) for name in names)


def test_what_is_too_wide_loses_its_middle_and_never_its_p_value(capsys):
    wide = "\u5bb6" * 60  # two columns each
    print_verdicts([verdict("none", {"n" * 90: 0.5, "b": 0.7}, image=f"{wide}.png")], as_json=False)
    row = capsys.readouterr().out.splitlines()[1]
    assert len(row) + row.count("\u5bb6") <= WIDTH
    assert re.search(r"n… 0\.500 \(\+1\)$", row)
    assert row.startswith("…\u5bb6")
    assert ".png" in row


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("file", "environment", "coloured"),
    [
        (Terminal, {}, True),
        (io.StringIO, {}, False),
        (Terminal, {"NO_COLOR": "1"}, False),
        (Terminal, {"TERM": "dumb"}, False),
    ],
)
def test_colours_are_for_terminals(monkeypatch, file, environment, coloured):
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", file())
    verdicts = [
        verdict("a", {"a": 0.01}),
        verdict("none", {"a": 0.5}, image="j"),
        verdict("error", {}, error="gone", image="k"),
    ]
    print_verdicts(verdicts, as_json=False)
    text = sys.stdout.getvalue()
    assert ("\x1b" in text) == coloured
    header, named, none, error, why = text.splitlines()
    assert (header, why) == ("image  verdict  foreign p (+others)", "  | gone")
    assert "\x1b" not in none
    if coloured:
        assert named == "i      \x1b[32ma      \x1b[0m  a <0.010"
        assert "\x1b[31merror" in error


def rows_of(*weights):
    common = {"path": "", "size_rule": "", "preset": "", "dtype": "", "precision": "", "quantize": None}
    return [Row(id="i", model=f"m{i}", weights_hash=hash_, **common) for i, hash_ in enumerate(weights)]


def test_who_asked_miniature_models_alone_is_told_so():
    from aedr_jax.autoencoders.registry import calibration_file

    shipped = [Calibration.load(calibration_file(name)).protocol.identity.weights_hash for name in miniature_models()]
    assert miniature_only(rows_of(*shipped)) == MINIATURE_ONLY
    assert miniature_only(rows_of(*shipped, "ab" * 32)) == ""
    assert miniature_only([]) == ""


def test_until_the_first_image_is_done_it_says_that_it_compiles(capsys, monkeypatch):
    with bar(3, "3 images") as advance:
        advance(1)
    assert capsys.readouterr().err == f"3 images ({COMPILING})\n"
    monkeypatch.setattr(sys, "stderr", Terminal())
    with bar(3, "3 images") as advance:
        before = sys.stderr.getvalue()
        advance(1)
        advance(2)
    assert COMPILING in before
    assert COMPILING not in sys.stderr.getvalue()[len(before) :]
