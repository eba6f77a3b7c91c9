"""A model that overflows or has broken weights gives error rows that say which pass, and what to do."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
from make_tiny import QUICK, make_tensors, write_folder
from PIL import Image

import aedr_jax as aedr
from aedr_jax.cli.main import main
from aedr_jax.inputs.sources import find_images
from aedr_jax.scoring.dataset import score_dataset
from aedr_jax.scoring.job import Finished
from aedr_jax.scoring.scorer import Candidate, Scorer
from aedr_jax.scoring.tables import write_rows
from aedr_jax.scoring.verdicts import verdict_rows
from aedr_jax.study.run import not_finite

pytestmark = pytest.mark.usefixtures("two_devices", "decoded_here")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Six images, a model, and the same with a weight that float16 does not hold."""
    root = tmp_path_factory.mktemp("world")
    tensors = make_tensors(QUICK)
    write_folder(root / "sound", QUICK, tensors)
    write_folder(
        root / "loud",
        QUICK,
        {k: v * np.float32(3e5) if k == "decoder.conv_in.weight" else v for k, v in tensors.items()},
    )
    (root / "images").mkdir()
    for i in range(6):
        coarse = Image.fromarray(np.random.default_rng(i).integers(0, 200, (5, 5, 3), dtype=np.uint8))
        coarse.resize((64, 64), Image.Resampling.BICUBIC).save(root / "images" / f"{i}.png")
    return root


def _encode(params, x):
    return jnp.broadcast_to(x.mean((1, 2, 3), keepdims=True), (*x[:, ::2, ::2, :1].shape,))


def _decode(params, z):
    """White; not a number where the latents are brighter than a limit."""
    pixels = jnp.where(z > params["limit"], jnp.nan, 1.0)
    return jnp.broadcast_to(pixels.repeat(2, 1).repeat(2, 2), (z.shape[0], 2 * z.shape[1], 2 * z.shape[2], 3))


def scored(world, limit):
    autoencoder = aedr.from_functions(_encode, _decode, {"limit": jnp.float32(limit)}, factor=2)
    (row,) = Scorer([Candidate("tiny", autoencoder, "hash")]).score(find_images([world / "images" / "0.png"]))
    return row


@pytest.mark.parametrize(("limit", "order"), [(-2.0, "first"), (0.9, "second")])
def test_the_row_says_which_pass(world, limit, order):
    row = scored(world, limit)
    assert row.status == "error"
    assert f"0.png: tiny: the {order} pass is not finite in float32; its weights are broken" in row.error
    assert math.isfinite(row.measured.first_loss) == (order == "second")
    assert (row.width, row.used_width) == (64, 64)
    assert len(row.sha256) == 64  # the image was read


def test_a_second_loss_of_0_is_no_error(world):
    row = scored(world, 2.0)
    assert (row.status, row.error, row.measured.second_loss) == ("ok", "", 0.0)
    assert math.isnan(row.measured.ratio)


def test_overflow_of_float16(world, capsys):
    call = ["score", str(world / "images"), "--model", str(world / "loud"), "--dtype", "float16"]
    main([*call, "--out", str(world / "rows.parquet")])
    rows = pq.read_table(world / "rows.parquet").to_pylist()
    assert {row["status"] for row in rows} == {"error"}
    told = "loud: the first pass is not finite in float16; measure in float32 (--dtype float32)"
    assert all(row["error"].endswith(told) for row in rows)
    assert "0 unreadable, 6 on which a model is not finite" in capsys.readouterr().out


def test_calibrate_leaves_such_images_out(world, capsys):
    out = world / "loud.json"
    call = ["calibrate", str(world / "images"), "--model", str(world / "loud"), "--out", str(out)]
    assert main([*call, "--dtype", "float16"]) == 1
    told = capsys.readouterr().err
    assert told.count("left out: ") == 6
    assert "measure in float32" in told
    assert not out.exists()


def test_a_large_run_counts_them(world, capsys):
    models = {name: str(world / name) for name in ("sound", "loud")}
    (world / "images" / "7.png").write_text("no image")
    options = {"workers": 0, "batch_size": 8, "dtype": "float16"}
    done = score_dataset(world / "images", models, world / "scores", **options)
    (world / "images" / "7.png").unlink()
    assert done == Finished(scored=7, unreadable=1, skipped=0, not_finite=6)
    rows = pq.read_table(world / "scores").to_pylist()
    assert {(row["model"], row["status"]) for row in rows if row["id"] != "7.png"} == {
        ("sound", "ok"),
        ("loud", "error"),
    }


def of_row(row):
    told = {name: getattr(row, name) for name in ("weights_hash", "quantize", "dtype", "precision")}
    return {name: None if value == "" else value for name, value in told.items()}


def test_no_verdict_where_a_candidate_is_not_finite(world):
    sound = scored(world, 2.0)
    rows = [dataclasses.replace(sound, model="a"), dataclasses.replace(scored(world, -2.0), model="b")]
    made = aedr.calibrate(np.linspace(-1.2, -0.8, 20), size_rule=sound.size_rule)
    protocol = dataclasses.replace(made.protocol, identity=dataclasses.replace(made.protocol.identity, **of_row(sound)))
    calibrations = dict.fromkeys(("a", "b"), dataclasses.replace(made, protocol=protocol))
    for given in (calibrations, None):
        (verdict,) = verdict_rows(rows, given)
        assert (verdict.verdict, verdict.status) == ("error", "error")
        assert "the first pass is not finite" in verdict.error


@dataclasses.dataclass
class Scored:
    model: str
    method: str
    score: float
    second_loss: float


def test_evaluate_names_scores_that_its_tables_leave_out(tmp_path):
    rows = [
        Scored("m1", "aedr", 1.0, 0.5),
        Scored("m1", "aedr", math.nan, 0.0),  # a ratio over 0
        Scored("m2", "aedr", math.nan, math.nan),
        Scored("m2", "aedr", math.inf, 0.5),
        Scored("m2", "rdd", math.nan, math.nan),
    ]
    write_rows(rows, tmp_path / "scores.parquet")
    found = not_finite(tmp_path / "scores.parquet")
    assert [text.partition(" are not finite")[0] for text in found] == ["m2: 2 scores by aedr", "m2: 1 scores by rdd"]


def test_what_is_infinite_is_not_white():
    images = aedr.prepare(np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), dtype=np.uint8))

    def decode(params, z):
        bright = jnp.array([1.0, jnp.inf])[:, None, None, None] if len(z) == 2 else jnp.inf
        return jnp.broadcast_to(bright, (len(z), 4 * z.shape[1], 4 * z.shape[2], 3))

    ae = aedr.from_functions(lambda params, x: x[:, ::4, ::4], decode, factor=4)
    found = aedr.measure(ae, images)
    assert np.isfinite(found.first_loss).tolist() == [True, False]
    assert np.isnan(found.alignment).all()  # of windows, all infinite here
