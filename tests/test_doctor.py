"""`aedr doctor`: what is wrong is said, and nothing of it ends the examination."""

import json
from importlib import metadata

import jax
import pytest

from aedr_jax.api import Attributed, Run, health
from aedr_jax.api.health import Check, Examined
from aedr_jax.cli.main import main
from aedr_jax.scoring.verdicts import Verdict

pytestmark = pytest.mark.usefixtures("two_devices")
REQUIRED = [
    "jax>=0.10",
    "no-such-package>=1",
    'jax[cuda12]>=0.10; extra == "cuda12"',
    'no-such-plotter>=3; extra == "plots"',
    "numpy>=2; extra == 'baselines'",
    'no-such-linter>=1; extra == "dev"',
]


def test_the_installation(monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda name: REQUIRED)
    (installed,) = health._installed()
    assert not installed.ok
    assert f"jax {metadata.version('jax')}" in installed.said
    assert "missing: no-such-package" in installed.said
    extras = next(iter(health._extras()))
    assert extras == Check("extras", None, 'baselines; not here: plots (pip install "aedr-jax[NAME]")')
    monkeypatch.setattr(metadata, "requires", lambda name: REQUIRED[:1])
    (installed,) = health._installed()
    assert installed.ok


def test_what_breaks_is_a_check():
    def look():
        yield Check("devices", True, "one")
        raise RuntimeError("no driver")

    assert health._looked("devices", look) == [
        Check("devices", True, "one"),
        Check("devices", False, "RuntimeError: no driver"),
    ]


def test_missing_weights_are_wrong(monkeypatch):
    found = {check.what: check for check in health._weights()}
    assert found["miniature models"].ok
    assert "mini-vq" in found["calibrations"].said
    monkeypatch.setattr(health, "local_folder", lambda name: None)
    found = {check.what: check for check in health._weights()}
    assert not found["miniature models"].ok
    assert "aedr convert" in found["real generators"].said


def test_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("AEDR_LOCK", str(tmp_path / "lock.json"))
    found = {check.what: check.said for check in health._caches()}
    assert found["compiled programs"] == jax.config.jax_compilation_cache_dir  # the suite's own
    assert found["hashes of downloads"] == f"{tmp_path / 'lock.json'} (not there yet)"


def judged(texture, reconstruction):
    names = {"texture": texture, "reconstruction": reconstruction}
    verdicts = [
        Verdict(f"{name}.png", "", "", text, {}, {health.MODEL: 0.5}, {}, {}, {health.MODEL: text != "none"}, "ok", "")
        for name, text in names.items()
    ]
    return lambda *args, **options: Attributed(verdicts, Run([]))


@pytest.mark.parametrize(
    ("texture", "reconstruction", "right"),
    [
        ("none", health.MODEL, [True, True]),
        (health.MODEL, health.MODEL, [False, True]),
        ("none", "none", [True, False]),
        ("none", "not assessable", [True, False]),
    ],
)
def test_the_self_test_wants_both_verdicts(monkeypatch, texture, reconstruction, right):
    monkeypatch.setattr("aedr_jax.api.decisions.attribute", judged(texture, reconstruction))
    monkeypatch.setattr(health, "_reconstructed", lambda pixels: pixels)
    assert [check.ok for check in health._self_test()] == right


def test_the_command(capsys, monkeypatch):
    """With the real self-test, once."""
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80 or "/" in max(out.splitlines(), key=len)  # a long path
    assert "ok     self-test: a texture: none" in out
    assert f"ok     self-test: reconstruction of {health.MODEL}: {health.MODEL}" in out
    assert "all is well" in out
    broken = Examined((Check("devices", False, "RuntimeError: none"), Check("extras", None, "none")), 1.0)
    monkeypatch.setattr("aedr_jax.api.doctor", lambda: broken)
    assert main(["doctor"]) == 1
    assert "WRONG  devices: RuntimeError: none\n-      extras: none\n\nsomething is wrong" in capsys.readouterr().out
    assert main(["doctor", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["checks"][0] == broken.checks[0]._asdict()
