"""`aedr demo`: images are made, attributed and counted; it runs without the photographs of its extra."""

import json

import numpy as np
import pytest
from PIL import Image

import aedr_jax as aedr
from aedr_jax.cli.main import main
from aedr_jax.generate import demo
from aedr_jax.scoring.tables import to_json
from aedr_jax.scoring.verdicts import Verdict

pytestmark = pytest.mark.usefixtures("two_devices")


def verdict(source, text, accepted=()):
    return Verdict("i", f"/x/{source}/1.png", "", text, {}, {}, {}, {}, dict.fromkeys(accepted, True), "ok", "")


def test_outcome_counts_right_ambiguous_and_wrong():
    verdicts = [
        verdict("a", "a"),
        verdict("a", "ambiguous: a, b", ("a", "b")),
        verdict("c", "ambiguous: a, b", ("a", "b")),
        verdict("c", "ambiguous: a, b", ("a", "b", "c")),  # it accepts the image, but others stand more firmly
        verdict("d", "ambiguous: a, c|d", ("a", "c", "d")),
        verdict("a", "none"),
        verdict("photographs", "none"),
        verdict("photographs", "b"),
    ]
    assert demo.outcome(verdicts) == demo.Outcome(right=2, ambiguous=2, wrong=4)


@pytest.mark.parametrize("size", [(400, 300), (128, 500), (192, 192)])
def test_the_middle_of_a_photograph(tmp_path, size):
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[size[1] // 2 :, :, 0] = 255
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    found = demo.middle(tmp_path / "photo.png")
    assert found.shape == (128, 128, 3)
    assert found[0, 0, 0] == 0
    assert found[-1, -1, 0] == 255


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("aedr_jax.api.making.miniature_models", lambda: ("mini-kl4-a",))
    monkeypatch.setattr(demo, "SHIPPED", {"no_such_package": ("a.png",)})
    returned, call = [], aedr.api.demo

    def heard(*args, **options):
        returned.append(call(*args, **options))
        return returned[-1]

    monkeypatch.setattr(aedr.api, "demo", heard)
    assert main(["demo", "-n", "2", "--out", str(tmp_path), "--json"]) == 0
    printed = capsys.readouterr()
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert [row["id"] for row in rows] == ["mini-kl4-a/7000000.png", "mini-kl4-a/7000001.png"]
    right = sum(row["verdict"] == "mini-kl4-a" for row in rows)
    assert f"{right} of 2 right, 0 more name" in printed.err
    assert 'pip install "aedr-jax[demo]"' in printed.err
    assert "does not mean a real photograph" in printed.err
    (found,) = returned  # what a caller in Python has
    assert [json.loads(to_json(vars(verdict))) for verdict in found.verdicts] == rows
    assert (found.outcome.right, found.photographs) == (right, 0)


def test_photographs_of_installed_packages(tmp_path, monkeypatch):
    package = tmp_path / "pictures"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    Image.new("RGB", (200, 200)).save(package / "a.png")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(demo, "SHIPPED", {"pictures": ("a.png", "gone.png")})
    assert [file.name for file in demo.photograph_files()] == ["a.png"]
    written = list(demo.write_images(tmp_path / "out", (), 1))
    assert [file.relative_to(tmp_path).as_posix() for file in written] == ["out/photographs/a.png"]


def test_other_images_are_not_judged(tmp_path):
    (tmp_path / "mine.png").touch()
    with pytest.raises(aedr.SourceError, match=r"holds other files, such as mine\.png"):
        aedr.api.demo(1, out=tmp_path)
