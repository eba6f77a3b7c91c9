"""What a table of verdicts says of its p-values."""

import re

import numpy as np
import pytest

from aedr_jax.cli.printing import least, print_verdicts, three
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


def verdict(text, foreign_p_values, p_values=None, *, belonging=None, **options):
    accepted = dict.fromkeys(foreign_p_values, text != "none")
    foreign = 99 if foreign_p_values else 0
    return Verdict(
        "i", "i.png", "", text, {}, foreign_p_values, p_values or {}, {}, accepted, "ok", "",
        foreign=foreign, belonging=belonging or {}, **options,
    )  # fmt: skip


def test_without_calibrations_there_is_one_column_of_p_values(capsys):
    verdicts = [verdict("a", {"a": 0.01, "b": 0.5}), verdict("not assessable", {}, reason="a: too small")]
    print_verdicts(verdicts, as_json=False)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["image", "verdict", "foreign", "p"],
        ["i", "a", "a", "<0.010,", "b", "0.500"],
        ["i", "not", "assessable", "a:", "too", "small"],
    ]
    foreign, small = least(verdicts).splitlines()
    assert foreign.startswith("foreign p: of 99 and more images that have nothing to do with the model")
    assert small == '"<" before a p-value: the least that n images can tell, 1/(n + 1)'
    assert least([verdict("error", {})]) == ""


def test_with_calibrations_there_are_two(capsys):
    both = verdict("a", {"a": 0.01, "b": 0.01}, {"a": 0.05, "b": 0.05}, belonging={"a": 19, "b": 99})
    some = verdict("a", {"a": 0.01, "b": 0.01}, {"a": 0.05}, belonging={"a": 19})
    print_verdicts([both, some], as_json=False)
    header, *rows = capsys.readouterr().out.splitlines()
    assert re.split("  +", header)[-1] == "own p"
    assert [re.split("  +", row)[-1] for row in rows] == ["a <0.050, b 0.050", "a <0.050"]
    assert "own p: of the model's 19 calibration images, the share" in least([some])
    assert "own p: of the model's 19 (a), 99 (b) calibration images" in least([both])
