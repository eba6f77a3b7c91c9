"""`aedr evaluate`: what is scored, that a run goes on where it stopped, and tables from the Parquet alone."""

import csv
import functools
import hashlib
import json
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import tiny_autoencoder
from make_tiny import QUICK, make_tensors, write_folder
from PIL import Image

import aedr_jax as aedr
from aedr_jax.cli.main import main
from aedr_jax.decision.null import Null
from aedr_jax.images import processing
from aedr_jax.inputs import workers
from aedr_jax.rivals import Limits
from aedr_jax.rivals.registry import make_methods
from aedr_jax.signal.alignment import align
from aedr_jax.signal.protocol import told_apart
from aedr_jax.study import comparison, evaluation
from aedr_jax.study import tables as report
from aedr_jax.study.comparison import contenders, decide, read_scores
from aedr_jax.study.evaluation import evaluate
from aedr_jax.study.folders import find_sources
from aedr_jax.study.metrics import average_precision, balanced_accuracy, tpr_at
from aedr_jax.study.tables import tables, write_tables

pytestmark = pytest.mark.usefixtures("two_devices", "decoded_here")
SIDE = 16
LIMITS = {"latenttracer": Limits(count=4, steps=2), "ronan": Limits(count=10, steps=2, models=("m1",))}
FEW = ("aedr", "aedr-default", "aeroblade-mse", "ronan")


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(comparison, "REPEATS", 20)
    monkeypatch.setattr(report, "REPEATS", 2)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Weights of two models; images of both, photographs of mixed sizes and formats, and one more source."""
    root = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    for seed, source in enumerate(("m1", "m2", "Real", "glow")):
        if source.startswith("m"):
            write_folder(root / "weights" / source, QUICK, make_tensors(QUICK, seed=seed))
        (root / "images" / source).mkdir(parents=True)
        for i in range(13):
            size = (20 + i, 40 - i) if source == "Real" else (SIDE, SIDE)
            ending = ("png", "jpg", "webp")[i % 3] if source == "Real" else "png"
            coarse = Image.fromarray(rng.integers(0, 256, (4 + seed, 5, 3), dtype=np.uint8))
            coarse.resize(size, Image.Resampling.BICUBIC).save(root / "images" / source / f"{i}.{ending}")
    Image.new("RGB", (SIDE, SIDE - 1)).save(root / "images" / "Real" / "small.png")
    (root / "images" / "Real" / "broken.png").write_bytes(b"nothing")
    return root


@pytest.fixture(scope="module")
def models(world):
    return [str(world / "weights" / name) for name in ("m1", "m2")]


def run(world, models, out, names=FEW, **options):
    methods = make_methods(LIMITS)
    chosen = {name: methods[name] for name in names}
    return evaluate(
        world / "images", out, models, methods=chosen, **{"count": 12, "side": SIDE, "batch_size": 6, **options}
    )


@pytest.fixture(scope="module")
def results(world, models, tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    return out, run(world, models, out)


def test_every_image_is_scored_by_every_method_and_model(results):
    out, sources = results
    assert {source: len(items) for source, items in sources.images.items()} == dict.fromkeys(
        ("m1", "m2", "real", "glow"), 12
    )
    rows = pq.read_table(out / "scores.parquet").to_pylist()
    counts = {}
    for row in rows:
        key = row["method"], row["model"], row["source"], row["half"]
        counts[key] = counts.get(key, 0) + 1
    expected = {"aedr": 6, "aedr-default": 6, "aeroblade-mse": 6, "ronan": 5}
    models = {"ronan": ("m1",)}
    assert counts == {
        (method, model, source, half): n
        for method, n in expected.items()
        for model in models.get(method, ("m1", "m2"))
        for source in ("m1", "m2", "real", "glow")
        for half in ("calibration", "test")
    }
    assert {row["format"] for row in rows if row["source"] == "real"} == {"PNG", "JPEG", "WEBP"}
    assert all(np.isfinite(row["score"]) and row["seconds"] > 0 and row["compile_seconds"] > 0 for row in rows)


def test_a_score_is_that_of_the_pure_function(results, world, models):
    out, _ = results
    scores, ae = read_scores(out / "scores.parquet"), aedr.load_autoencoder(models[0])
    measure = jax.jit(functools.partial(aedr.measure, config=aedr.SignalConfig.paper()))
    cell = scores["none", "aedr", "m1", "real"]
    for i in range(3):
        path = world / "images" / "Real" / cell["image"][i]
        pixels, levels = aedr.read_image(path), aedr.read_gray(path)
        # The middle, from a line of the decoder's grid.
        top, left = ((length - SIDE) // 2 // ae.factor * ae.factor for length in levels.shape)
        images = jnp.asarray(pixels[None, top : top + SIDE, left : left + SIDE], jnp.float32) / 127.5 - 1
        gray = jnp.asarray(levels[None, top : top + SIDE, left : left + SIDE])
        expected = measure(ae, images, gray=gray)
        np.testing.assert_allclose(cell["score"][i], expected.signal[0], rtol=1e-4)
        np.testing.assert_allclose(cell["homogeneity"][i], expected.homogeneity[0], rtol=1e-5)
        assert (cell["height"][i], cell["width"][i]) == aedr.read_image(path).shape[:2]
        assert cell["bytes"][i] == path.stat().st_size


def test_an_interrupted_run_goes_on_where_it_stopped(world, models, tmp_path, monkeypatch):
    scored, stop = [], True
    real_rows = evaluation._Task.rows

    def rows(task, *args):
        if stop and len(scored) == 2:
            raise KeyboardInterrupt
        scored.append(task.source)
        return real_rows(task, *args)

    monkeypatch.setattr(evaluation._Task, "rows", rows)
    with pytest.raises(KeyboardInterrupt):
        run(world, models[:1], tmp_path, ["aedr"])
    assert not (tmp_path / "scores.parquet").exists()
    stop = False
    run(world, models[:1], tmp_path, ["aedr"])
    assert scored == ["m1", "real", "glow", "m2"]
    before = (tmp_path / "scores.parquet").read_bytes()
    taken = run(world, models[:1], tmp_path, ["aedr"])
    assert len(scored) == 4
    assert (tmp_path / "scores.parquet").read_bytes() == before
    said = json.loads((tmp_path / "run.json").read_text())
    assert said.pop("digest") == told_apart(said)
    assert [part["versions"] for part in said["parts"]] == [said["made"]["versions"]]  # of four parts alike one
    assert {source: found["count"] for source, found in said["images"].items()} == dict.fromkeys(taken.images, 12)
    hashes = sorted(hashlib.sha256(Path(item.path).read_bytes()).hexdigest() for item in taken.images["m1"])
    assert said["images"]["m1"]["hash"] == hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    assert said["settings"]["methods"].keys() == {"aedr"}
    weights = aedr.weights_hash(aedr.load_autoencoder(models[0]))
    assert said["models"]["m1"]["weights_hash"] == weights
    run(world, models[:1], tmp_path, ["aedr"], count=6)  # other images: other files
    assert len(scored) == 8


def test_tables_come_from_the_parquet_alone(results, tmp_path, monkeypatch):
    out, _ = results
    found = tables(read_scores(out / "scores.parquet"))
    (tmp_path / "scores.parquet").write_bytes((out / "scores.parquet").read_bytes())
    monkeypatch.setattr(aedr, "load_autoencoder", None)
    again = tables(read_scores(tmp_path / "scores.parquet"))
    for folder, records in (("a", found), ("b", again)):
        write_tables(records, tmp_path / folder)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) == 2 * len(found)
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    with open(tmp_path / "a" / "table1_models.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == {
        *("aedr", "aedr without H", "aedr-default", "aeroblade-mse", "aeroblade-mse ×H", "ronan", "ronan ×H")
    }
    for row in rows:
        assert row["n_calibration"] in (("0",) if row["method"] == "aedr-default" else ("5", "6"))
        assert row["n_own"]
        assert row["n_other"]
    assert any(row["method"] == "aeroblade-lpips" and "no weights of LPIPS" in row["note"] for row in found["summary"])
    with pytest.raises(aedr.SourceError, match="no scores there"):
        read_scores(tmp_path / "nothing.parquet")
    table = pq.read_table(out / "scores.parquet")
    earlier = [{"half": "part", "autoencoder": "kind"}.get(name, name) for name in table.column_names]
    pq.write_table(table.rename_columns(earlier), tmp_path / "earlier.parquet")
    with pytest.raises(aedr.SourceError, match="no column autoencoder, half; another version wrote it: run aedr"):
        read_scores(tmp_path / "earlier.parquet")


def test_processed_images(world, models, tmp_path, monkeypatch):
    assert evaluation.GRID is processing.GRID
    monkeypatch.setattr(evaluation, "GRID", tuple(map(processing.Processing.parse, ("none", "jpeg90", "crop0.75"))))
    run(world, models[:1], tmp_path, ["aedr", "aeroblade-mse"], robustness=2, count=12)
    scores = read_scores(tmp_path / "scores.parquet")
    processings = {past for past, method, _, _ in scores if method == "aedr"}
    assert processings == {"none", "jpeg90", "crop0.75"}
    assert {past for past, method, _, _ in scores if method != "aedr"} == {"none"}
    processed, before = scores["jpeg90", "aedr", "m1", "m1"], scores["none", "aedr", "m1", "m1"]
    assert set(processed["half"]) == {"test"}  # what calibrates is not processed, and comes from other images
    assert list(processed["image"]) == list(before["image"][before["half"] == "test"][:2])
    records = tables(scores)["robustness"]
    assert {record["processing"] for record in records} == processings


def synthetic(n=24, shift=3.0):
    """Scores of two models by AEDR and two rivals, drawn; the default's are standings, of errors of a tenth."""
    rng, of_default = np.random.default_rng(1), np.random.default_rng(2)
    scores = {}
    for method in ("aedr", "aedr-default", "aeroblade-mse", "latenttracer"):
        for model in ("a", "b"):
            for source in ("a", "b", "real"):
                second = np.exp(rng.normal(-7, 0.5, n))
                first = second * np.exp((shift if source != model else 0) + rng.normal(0, 0.3, n))
                smooth = np.exp(rng.normal(-0.7, 0.1, n))
                default = method == "aedr-default"
                standing = of_default.normal(-10 if source == model else 0, 0.3, n)
                scores["none", method, model, source] = {
                    "score": standing if default else first / second * smooth,
                    "first_loss": first,
                    "second_loss": second,
                    "homogeneity": smooth,
                    "alignment": 0.1 * standing if default else np.full(n, np.nan),
                    "alignment_error": np.full(n, 0.1 if default else np.nan),
                    "half": np.repeat(["calibration", "test"], n // 2),
                    "image": np.array([f"{i}.png" for i in range(n)]),
                    "autoencoder": np.full(n, f"kind of {model}"),
                    "format": np.full(n, "JPEG" if source == "real" else "PNG"),
                    "bytes": np.full(n, 3000 if source == "real" else 1000) + np.arange(n),
                    "width": np.full(n, 16),
                    "height": np.full(n, 16),
                    "seconds": np.full(n, 0.3 if method == "latenttracer" else 0.1),
                    "compile_seconds": np.full(n, 2.0),
                }
    return scores


def test_separable_sources_are_told_apart():
    found = tables(synthetic())
    summary = {(r["method"], r["against"]): r for r in found["summary"] if "note" not in r}
    assert {"aedr", "aedr without H", "aedr-default", "latenttracer", "latenttracer ×H"} <= {m for m, _ in summary}
    for record in summary.values():
        assert record["auc"] == record["ap"] == record["tpr_at_1"] == 1.0
        assert record["accuracy"] > 0.9
        assert record["accuracy_low"] <= record["accuracy"] <= record["accuracy_high"]
        calibrating = "0" if record["method"] == "aedr-default" else "12"
        assert (record["n_calibration"], record["n_own"], record["n_other"]) == (calibrating, "12", "12")
    assert summary["aedr", "all"]["pairs"] == 4
    for record in found["table1_models"]:
        assert record["alpha_picked"] == (record["alpha"] is not None) == (record["method"] != "aedr-default")
    timed = {(r["method"], r["model"]): r for r in found["table3_seconds"]}
    assert timed["latenttracer", "b"]["times_aedr"] == pytest.approx(3.0)
    assert timed["latenttracer", "b"]["seconds_to_compile"] == 2.0
    assert timed["latenttracer", "b"]["batches_timed"] == 1
    backwards = comparison.Study(dict(reversed(synthetic().items())), ("a",), {}, {})
    times = {record["method"]: record["times_aedr"] for record in report._seconds(backwards)}
    assert times["latenttracer"] == pytest.approx(3.0)
    assert {record["autoencoder"] for record in found["table4_autoencoders"]} == {"kind of a", "kind of b"}
    sizes = {(record["method"], record["model"]): record["n_calibration"] for record in found["calibration_size"]}
    assert sizes == {("aedr", "a"): 10, ("aedr", "b"): 10}
    assert {record["method"] for record in found["alpha"]} == {"aedr"}
    confusion = {(r["source"], r["verdict"]): r["share"] for r in found["attribution"]}
    assert confusion["real", "none"] == confusion["a", "a"] == confusion["b", "b"] == 1.0


def test_the_default_is_judged_with_nothing_calibrated():
    """Its threshold is the null's, whatever own images score; what nothing can be said of is 0, and not accepted."""
    scores = synthetic()
    tau = Null.shipped().threshold(comparison.FALSE_NAMES)
    key = ("none", "aedr-default", "a", "a")
    for calibrating in (-10.0, 3.0, np.nan):  # the halves that calibrate may be foreign, constant or undefined
        changed = {name: values.copy() for name, values in scores[key].items()}
        changed["score"][:12] = calibrating
        changed["score"][12:16] = [np.nextafter(np.float32(tau), np.float32(-np.inf)), tau, 0.0, np.nan]
        decision = decide({**scores, key: changed}, comparison.Contender("aedr-default", "aedr-default"), "a")
        assert (decision.threshold, decision.alpha, decision.picked, len(decision.calibration)) == (tau, None, False, 0)
        assert len(decision.own) == 11  # of twelve the one that is not finite is left out, and counted
        assert decision.tpr == 9 / 11
    flat = {name: values.copy() for name, values in scores[key].items()}
    flat["alignment"][12:14], flat["alignment_error"][12:14] = np.nan, np.inf
    records = tables({**scores, key: flat})["attribution"]
    confusion = {(record["source"], record["verdict"]): record["share"] for record in records}
    assert confusion["a", "not assessable"] == 2 / 12
    assert confusion["a", "a"] == 10 / 12


def test_the_default_is_scored_by_its_standing():
    """0 where nothing can be said, NaN where the model is not finite; alignment and error stand beside it."""
    rng = np.random.default_rng(5)
    images = jnp.asarray(rng.uniform(-0.9, 0.9, (2, 96, 96, 3)), jnp.float32).at[1].set(0.0)
    gray, keys = jnp.zeros((2, 96, 96), jnp.int32), jax.random.split(jax.random.key(0))
    method = make_methods(LIMITS)["aedr-default"]
    sound = tiny_autoencoder("functions")
    broken = aedr.from_functions(
        lambda p, x: x[:, ::2, ::2], lambda p, z: jnp.nan * z.repeat(2, 1).repeat(2, 2), factor=2
    )
    score = jax.jit(functools.partial(method.score, clamp=True))
    found, lost = (score(ae, images, gray, keys) for ae in (sound, broken))
    expected = jax.jit(align)(sound, images[:1])
    np.testing.assert_allclose(found.score[0], expected.alignment[0] / expected.error[0], rtol=1e-3)
    np.testing.assert_allclose(found.alignment[0], expected.alignment[0], rtol=1e-3)
    np.testing.assert_allclose(found.alignment_error[0], expected.error[0], rtol=1e-3)
    assert (found.score[1], found.alignment_error[1]) == (0.0, np.inf)
    assert np.isnan(lost.score[0])
    paper = make_methods(LIMITS)["aedr"]
    assert method.passes > paper.passes


def test_dear_methods_stand_beside_aedr_on_their_images():
    scores = synthetic()
    for key, cell in scores.items():
        if key[1] == "latenttracer":  # fewer, in another order, and in halves of their own
            few = {name: values[[3, 2, 1, 0, 14, 15, 16, 17, 5, 4, 6, 7]] for name, values in cell.items()}
            scores[key] = few | {"half": np.repeat(["calibration", "test"], 6)}
    records = {record["method"]: record for record in tables(scores)["same_images"]}
    assert records.keys() == {"aedr", "aedr without H", "aedr-default", "latenttracer", "latenttracer ×H"}
    assert {(r["images_of"], r["n_own"]) for r in records.values()} == {("latenttracer", "6")}
    assert {name for name, r in records.items() if r["n_calibration"] != "6"} == {"aedr-default"}
    cut = {("none", "aedr", *key[2:]): {**scores["none", "aedr", *key[2:]]} for key in scores if key[1] == "aedr"}
    for key, cell in cut.items():
        wanted = scores["none", "latenttracer", *key[2:]]
        order = [list(cell["image"]).index(image) for image in wanted["image"]]
        cut[key] = {name: values[order] for name, values in cell.items()} | {"half": wanted["half"]}
    alone = next(record for record in tables(cut)["summary"] if record["against"] == "all")
    assert {name: records["aedr"][name] for name in comparison.METRICS} == {n: alone[n] for n in comparison.METRICS}


def test_what_is_absent_says_why():
    found = tables({key: cell for key, cell in synthetic().items() if key[1] in ("aedr", "aeroblade-mse")})
    notes = {record["variant"]: record.get("note", "") for record in found["losses"]}
    assert "no weights of LPIPS" in notes["LPIPS"]
    assert "not measured" in notes["SSIM"]
    assert notes["MSE"] == ""
    assert "--robustness" in found["robustness"][0]["note"]


def test_the_control_finds_a_bias_of_the_files():
    accuracies = {(r["by"], r["other"]): r["accuracy"] for r in tables(synthetic())["control"] if r["model"] == "a"}
    assert accuracies["bytes a pixel", "real"] == accuracies["format", "real"] == 1.0
    assert accuracies["format", "b"] == 0.5


def test_metrics():
    """Reference: scikit-learn."""
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(2)
    own, others = rng.integers(0, 30, 90).astype(float), rng.integers(10, 40, 120).astype(float)  # with ties
    truth, score = np.repeat([1, 0], [90, 120]), -np.concatenate([own, others])
    assert average_precision(own, others) == pytest.approx(metrics.average_precision_score(truth, score), abs=1e-12)
    false, true, _ = metrics.roc_curve(truth, score, drop_intermediate=False)
    for rate in (0.01, 0.05, 0.3):
        assert tpr_at(own, others, rate) == pytest.approx(true[false <= rate].max(), abs=1e-12)
    expected = metrics.balanced_accuracy_score(truth, np.concatenate([own, others]) < 20)
    assert balanced_accuracy(own, others, threshold=20.0) == pytest.approx(expected, abs=1e-12)
    each = [balanced_accuracy(own, some, threshold=20.0) for some in (others[:7], others[7:])]
    assert balanced_accuracy(own, others[:7], others[7:], threshold=20.0) == pytest.approx(np.mean(each), abs=1e-12)


def test_what_too_few_images_do_not_calibrate_says_so():
    scores = synthetic()
    for key, cell in scores.items():
        if key[1] == "latenttracer":  # four calibrate no threshold, and the default has none to calibrate
            few = {name: values[:8] for name, values in cell.items()}
            scores[key] = few | {"half": np.repeat(["calibration", "test"], 4)}
    found = tables({key: cell for key, cell in scores.items() if key[1] in ("aedr-default", "latenttracer")})
    notes = {record["method"]: record.get("note", "") for record in found["same_images"]}
    assert notes["aedr-default"] == ""
    assert "too few" in notes["latenttracer"]
    short = {key: {n: v[::2] for n, v in cell.items()} for key, cell in synthetic(n=16).items()}
    notes = {record["method"]: record.get("note", "") for record in tables(short)["summary"]}
    assert "too few" in notes["aedr"]


def test_too_few_images_calibrate_nothing():
    scores = synthetic(n=8)
    assert decide(scores, contenders(scores)[0], "a") is None
    assert decide(scores, contenders(scores)[0], "c") is None
    assert not decide(synthetic(n=16), contenders(scores)[0], "a").picked


def test_sources_that_are_missing(world, models, tmp_path):
    with pytest.raises(aedr.AutoencoderError, match=r"two models of one name: .*m1 is given twice"):
        evaluate(world / "images", tmp_path, models[:1] * 2, methods={})
    for wrong, least in (({"count": 1}, 2), ({"batch_size": 0}, 1), ({"robustness": -1}, 0)):
        with pytest.raises(aedr.SourceError, match=rf"expected {least} or more"):
            evaluate(world / "images", tmp_path, models, methods={}, **wrong)
    with pytest.raises(aedr.SourceError, match="no such folder"):
        find_sources(tmp_path / "nothing", ["m1"], tmp_path, count=4, side=SIDE)
    (tmp_path / "m1").mkdir()
    with pytest.raises(aedr.SourceError, match=r"no folder real in it, of photographs; there are m1"):
        find_sources(tmp_path, ["m1"], tmp_path, count=4, side=SIDE)
    with pytest.raises(aedr.SourceError, match=r"no folder sd1\.5 in it; make its images with aedr generate"):
        find_sources(world / "images", ["sd1.5"], tmp_path, count=4, side=SIDE)
    with pytest.raises(aedr.SourceError, match="0 images of at least 17 pixels"):
        find_sources(world / "images", ["m1"], tmp_path, count=4, side=SIDE + 1)
    found = find_sources(world / "images", ["m1"], tmp_path, count=20, side=SIDE)
    assert len(found.images["real"]) == 13
    assert any("16×15" in reason for reason in found.left_out)
    assert any("broken.png" in reason for reason in found.left_out)


def test_what_is_no_source_is_left_out_with_the_reason(world, tmp_path):
    for source in ("m1", "Real"):
        shutil.copytree(world / "images" / source, tmp_path / source)
    whole = (tmp_path / "Real" / "0.png").read_bytes()
    (tmp_path / "Real" / "0.png").write_bytes(whole[: len(whole) // 2])  # its header promises an image
    (tmp_path / "notes").mkdir()
    (tmp_path / "one").mkdir()
    shutil.copy(tmp_path / "m1" / "0.png", tmp_path / "one")
    out = tmp_path / "results"
    shutil.copytree(world / "images" / "m1", out / "images" / "m1")
    found = find_sources(tmp_path, ["m1"], out, count=20, side=SIDE)
    assert {source: len(items) for source, items in found.images.items()} == {"m1": 13, "real": 12}
    reasons = ["0.png: ", "16×15", "broken.png: ", "notes: no image in this folder", "one: 1 images of at least 16"]
    assert len(found.left_out) == len(reasons)
    for reason in reasons:
        assert any(reason in text for text in found.left_out), reason


@pytest.mark.usefixtures("decoder_processes")
def test_an_image_that_keeps_its_decoder_busy_is_left_out(world, tmp_path, monkeypatch):
    """Pillow reads a comment byte by byte."""
    for source in ("m1", "Real"):
        shutil.copytree(world / "images" / source, tmp_path / source)
    (tmp_path / "m1" / "busy.ppm").write_bytes(b"P6\n#" + b" " * (48 << 20) + b"\n16 16\n255\n" + bytes(16 * 16 * 3))
    monkeypatch.setattr(workers, "SECONDS", 1.0)
    found = find_sources(tmp_path, ["m1"], tmp_path, count=20, side=SIDE)
    assert {source: len(items) for source, items in found.images.items()} == {"m1": 13, "real": 13}
    assert any("busy.ppm: cannot be decoded: the decoder took more than 1 seconds" in text for text in found.left_out)


def test_missing_images_of_a_miniature_model_are_sampled(world, tmp_path):
    found = find_sources(world / "images", ["mini-kl4-a"], tmp_path, count=2, side=SIDE)
    files = [item.path for item in found.images["mini-kl4-a"]]
    assert sorted(path.relative_to(tmp_path).as_posix() for path in files) == [
        "images/mini-kl4-a/00000.png",
        "images/mini-kl4-a/00001.png",
    ]


def test_every_method_has_a_name_and_the_limits_reach_it():
    methods = make_methods(LIMITS)
    assert {"aedr", "aedr-official", "aedr-default", "aedr-mae", "aedr-ssim", "did-ae"} < set(methods)
    assert {f"{rival}-{distance}" for rival in ("aeroblade", "rdd") for distance in ("mse", "ssim")} < set(methods)
    assert not any("lpips" in name for name in methods)
    assert (methods["ronan"].count, methods["ronan"].models) == (10, ("m1",))
    assert methods["latenttracer-512"].resize is not None
    assert dict(methods["latenttracer"].settings) == {"steps": 2}


def test_methods_of_lpips_know_its_weights():
    weights = [aedr.Lpips((jnp.full((1, 1, 3, 2), value),), (), (), "vgg") for value in (1.0, 1.0, 2.0)]
    found = [{n: m.settings for n, m in make_methods(LIMITS, params).items() if "lpips" in n} for params in weights]
    assert found[0].keys() == {"aedr-lpips", "aeroblade-lpips", "rdd-lpips"}
    assert found[0] == found[1]
    assert all(found[0][name] != found[2][name] for name in found[0])


@pytest.mark.usefixtures("decoder_processes")
def test_the_command(world, models, tmp_path, capsys):
    call = ["evaluate", str(world / "images"), "--out", str(tmp_path / "out"), "--models", ",".join(models)]
    call += ["--side", str(SIDE), "--count", "12", "--batch-size", "6"]
    assert main([*call, "--methods", "aedr,nothing"]) == 2
    assert "method nothing: expected some of aedr, aedr-official" in capsys.readouterr().err
    assert main([*call, "--methods", "aedr,aedr-default"]) == 0
    printed = capsys.readouterr()
    assert "left out: " in printed.err
    assert "| aedr-default | all |" in printed.out
    said = json.loads((tmp_path / "out" / "run.json").read_text())
    assert said["made"]["command"].startswith(f"aedr evaluate {world / 'images'} --out ")
    assert [part["command"] for part in said["parts"]] == [said["made"]["command"]]
    options = {"side": SIDE, "count": 12, "batch_size": 6, "methods": ("aedr", "aedr-default"), "plots": False}
    again = aedr.api.evaluate(world / "images", tmp_path / "out", models, **options)  # from the same parts
    assert printed.out.startswith(again.summary.read_text())
    assert {path.parent for path in again.files} == {tmp_path / "out" / "tables"}
    assert again.images == {"m1": 12, "m2": 12, "real": 12, "glow": 12}
    plots = {path.stem for path in (tmp_path / "out" / "plots").iterdir()}
    assert plots == {"ratio", "roc", "confusion", "alpha", "seconds"}
    for path in (tmp_path / "out" / "plots").iterdir():
        assert min(aedr.read_image(path).shape[:2]) > 300


def test_the_published_images_with_a_tiny_model(shared, world, models, tmp_path):
    """Folders as they come: mixed sizes and formats, two images each, and files of another kind among them."""
    shutil.copytree(shared / "data" / "published" / "images", tmp_path / "sources")
    shutil.copytree(world / "images" / "m1", tmp_path / "sources" / "m1")
    call = ["evaluate", str(tmp_path / "sources"), "--out", str(tmp_path)]
    call += ["--models", models[0], "--count", "12", "--side", str(SIDE), "--methods", "aedr,aedr-default"]
    assert main(call) == 0
    scores = read_scores(tmp_path / "scores.parquet")
    counts = {source: len(cell["score"]) for (_, method, _, source), cell in scores.items() if method == "aedr"}
    assert counts.pop("m1") == 12
    assert {"real", "SD1.5", "VQDM", "FLUX"} <= counts.keys()
    assert set(counts.values()) == {2}
    columns = {name: np.concatenate([cell[name] for cell in scores.values()]) for name in ("score", "width", "format")}
    assert np.isfinite(columns["score"]).all()
    assert len(set(columns["width"])) > 2
    assert set(columns["format"]) == {"PNG", "JPEG"}
    with open(tmp_path / "tables" / "table2_real.csv", newline="") as file:
        assert {(row["n_own"], row["n_other"]) for row in csv.DictReader(file)} == {("6", "1")}
    assert {path.stem for path in (tmp_path / "plots").iterdir()} >= {"ratio", "roc", "confusion"}


def test_without_matplotlib_the_error_names_the_extra(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["evaluate", str(world / "images"), "--out", str(tmp_path / "out")]) == 2
    assert 'pip install "aedr-jax[plots]", or --no-plots' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
