"""The package as a whole: lazy imports, documented names, a fast command line."""

import ast
import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import aedr_jax

ROOT = Path(aedr_jax.__file__).parent
MODULES = sorted(m.name for m in pkgutil.walk_packages([str(ROOT)], "aedr_jax.") if "weights" not in m.name)
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
    "Statistic",
    "fit_statistic",
    "attribute",
    "Attribution",
    "make_sharded",
    "score_dataset",
    "ImageError",
    "ArgumentError",
    "RangeWarning",
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
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
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
    code = (
        "import sys, aedr_jax.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\nprint('jax' in sys.modules)"
    )
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
    if name.split(".")[-1] == "autoencoders":
        return
    for export in module.__all__:
        value = getattr(module, export)
        if inspect.isfunction(value) or inspect.isclass(value):
            assert inspect.getdoc(value), f"{name}.{export} has no docstring"


def test_layout_follows_the_data():
    """A module imports only from those before it."""
    order = [
        "errors",
        "files",
        "interruption",
        "tables",
        "arrays",
        "metadata",
        "samples",
        "images",
        "processing",
        "autoencoders.config",
        "autoencoders.blocks",
        "autoencoders.quantizer",
        "autoencoders.models",
        "autoencoders.checkpoints",
        "autoencoders.adapters",
        "autoencoders.registry",
        "autoencoders.names",
        "autoencoders.tensors",
        "autoencoders.hub",
        "autoencoders.loading",
        "reconstruction",
        "losses",
        "perceptual",
        "texture",
        "intervals",
        "threshold",
        "signal",
        "protocol",
        "domain",
        "attacks",
        "statistic",
        "validation",
        "agreement",
        "typed",
        "calibration",
        "attribution",
        "baselines.aeroblade",
        "baselines.inversion",
        "baselines.latenttracer",
        "baselines.ronan",
        "baselines.rdd",
        "baselines.did",
        "baselines",
        "experiments",
        "comparison",
        "report",
        "plots",
        "methods",
        "sharding",
        "ids",
        "sources",
        "archives",
        "listings",
        "containers",
        "decoding",
        "workers",
        "scoring",
        "verdicts",
        "plan",
        "parts",
        "cluster",
        "dataset",
        "miniature",
        "pipelines",
        "generation",
        "evaluation",
        "demo",
        "cli",
    ]
    assert sorted(f"aedr_jax.{name}" for name in order) == [m for m in MODULES if m != "aedr_jax.autoencoders"]
    for name in order:
        path = ROOT / name.replace(".", "/")
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        imported = {
            node.module.removeprefix("aedr_jax.")
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("aedr_jax.")
        }
        late = {other for other in imported if order.index(other) >= order.index(name)}
        assert not late, f"{name} imports {late}"


def test_version_is_that_of_the_distribution():
    from importlib import metadata

    assert metadata.version("aedr-jax") == aedr_jax.__version__
    assert (ROOT / "py.typed").exists()
