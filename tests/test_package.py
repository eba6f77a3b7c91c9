"""The package as a whole: lazy imports, documented names, a fast command line."""

import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

import aedr_jax
from aedr_jax.files import shipped

ROOT = Path(aedr_jax.__file__).parent
CHECKOUT = Path(__file__).resolve().parents[1]
MODULES = sorted(
    m.name
    for m in pkgutil.walk_packages([str(ROOT)], "aedr_jax.")
    if not {"weights", "__main__"} & set(m.name.split("."))
)
CONTRACT = [
    "load_autoencoder",
    "from_functions",
    "from_flax_diffusers",
    "list_models",
    "weights_hash",
    "read_image",
    "read_gray",
    "double_reconstruct",
    "mse",
    "mae",
    "psnr",
    "ssim",
    "lpips",
    "prepare",
    "cooccurrence_matrix",
    "homogeneity",
    "Measurement",
    "measure",
    "SignalConfig",
    "kde_cdf",
    "kde_quantile",
    "kde_threshold",
    "calibrate",
    "Calibration",
    "CalibrationWarning",
    "AlignmentConfig",
    "Null",
    "alignment_map",
    "attribute",
    "Attribution",
    "make_sharded",
    "score_dataset",
    "ImageError",
    "ArgumentError",
    "RangeWarning",
    "FactorWarning",
    "CheckpointWarning",
    "Identity",
    "Protocol",
]


def run(code):
    environment = {**os.environ, "XLA_FLAGS": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return done.stdout.strip()


@pytest.mark.parametrize("name", CONTRACT)
def test_public_names(name):
    value = getattr(aedr_jax, name)
    assert name in aedr_jax.__all__
    assert inspect.getdoc(value)


def test_unknown_name():
    with pytest.raises(AttributeError, match="attribute nothing"):
        aedr_jax.nothing  # noqa: B018


def test_importing_starts_nothing():
    heavy = ("jax", "flax", "scipy", "PIL", "pyarrow", "huggingface_hub", "numpy")
    assert run(f"import sys, aedr_jax; print([m for m in {heavy} if m in sys.modules])") == "[]"


def test_using_everything_starts_no_device_and_no_scipy():
    code = """
import sys, aedr_jax
for name in aedr_jax.__all__:
    getattr(aedr_jax, name)
import jax
from jax._src import xla_bridge
print(xla_bridge.backends_are_initialized(), jax.config.jax_enable_x64, "scipy.stats" in sys.modules)
"""
    assert run(code) == "False False False"


def test_help_is_instant_and_needs_no_jax():
    code = """
import sys
import aedr_jax.cli.main as c
try:
    c.main(["--help"])
except SystemExit:
    pass
print("jax" in sys.modules)
"""
    start = time.perf_counter()
    out = run(code)
    assert out.endswith("False")
    assert time.perf_counter() - start < 5  # half a second on an idle machine; this one may be busy
    assert all(
        command in out for command in ("models", "convert", "generate", "score", "calibrate", "attribute", "evaluate")
    )


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_documented_and_say_what_they_export(name):
    module = importlib.import_module(name)
    assert inspect.getdoc(module)
    for export in getattr(module, "__all__", ()):  # a room's own file says what the room is for
        value = getattr(module, export)
        if inspect.isfunction(value) or inspect.isclass(value):
            assert inspect.getdoc(value), f"{name}.{export} has no docstring"


def test_folders_that_come_with_the_package_are_in_the_wheel():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included["examples"] == "aedr_jax/examples"
    assert {name for name in included if name.startswith("docs/")} == {"docs/decision.md", "docs/results.md"}
    assert all((CHECKOUT / name).exists() and inside == f"aedr_jax/{name}" for name, inside in included.items())
    assert shipped("docs").joinpath("results.md").is_file()
    with pytest.raises(FileNotFoundError, match="no folder 'nothing-of-this-name'"):
        shipped("nothing-of-this-name")


def test_version_is_that_of_the_distribution():
    from importlib import metadata

    assert metadata.version("aedr-jax") == aedr_jax.__version__
    assert (ROOT / "py.typed").exists()
    assert (ROOT / "__init__.pyi").exists()


def test_a_checkout_that_was_not_installed_knows_its_version(monkeypatch):
    """PYTHONPATH, or a copy in another project; the same goes for packages it needs."""
    from importlib import metadata

    import numpy as np

    from aedr_jax.api import health
    from aedr_jax.scoring.made import Made

    known = metadata.distribution

    def distribution(name):
        if name in ("aedr-jax", "dm-pix"):
            raise metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(metadata, "distribution", distribution)
    calibration = aedr_jax.calibrate(np.linspace(1.0, 1.2, 40), method="mine")
    for versions in (calibration.provenance.versions, Made.now().versions):
        assert versions["aedr-jax"] == aedr_jax.__version__
        assert versions["dm-pix"] == "unknown"
        assert versions["numpy"] == np.__version__
    (installed,) = health._installed()
    assert installed.ok is None
    assert f"aedr-jax {aedr_jax.__version__} in Python" in installed.said
    assert "not installed as a package" in installed.said
