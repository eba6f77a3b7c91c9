"""Verdicts of a source of any size, from images and from scores: those of one call, whatever stops a run."""

import dataclasses
import json
import math
import pickle
import shutil
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import patch_decode, patch_encode
from PIL import Image
from test_dataset import Interrupted, LocalRay

import aedr_jax as aedr
from aedr_jax.cli.main import main
from aedr_jax.decision.null import Null
from aedr_jax.errors import CalibrationError, RunError, SourceError
from aedr_jax.images.tiles import AlignmentConfig
from aedr_jax.inputs.sources import Files, Source
from aedr_jax.scoring import judging
from aedr_jax.scoring.dataset import Running, fill
from aedr_jax.scoring.job import Finished, Plan
from aedr_jax.scoring.rows import Row
from aedr_jax.scoring.scored import Kind, Scored, Scores
from aedr_jax.scoring.tables import write_rows
from aedr_jax.scoring.verdict_table import as_record, as_table, columns, count_verdicts, write_verdicts
from aedr_jax.scoring.verdicts import verdict_rows
from aedr_jax.signal.measurement import Measurement

api = aedr.api
pytestmark = pytest.mark.usefixtures("one_scorer_for_each_setup")
COUNT = 9
SMALL = AlignmentConfig(tile=48, tiles=3, block=8, margin=8)
SETUP = api.Setup(dataclasses.replace(aedr.SignalConfig.tiles(), alignment=SMALL), batch_size=2)


def autoencoder(seed, directions=20):
    """Patches of 4×4 pixels on a few directions."""
    basis, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(48, directions)))
    params = {"down": jnp.asarray(basis, jnp.float32), "up": jnp.asarray(basis.T, jnp.float32)}
    return aedr.from_functions(patch_encode, patch_decode, params, factor=4)


@pytest.fixture(scope="module")
def models():
    """Two of one architecture, so that programs are shared."""
    return {"a": autoencoder(0), "b/c": autoencoder(1)}


@pytest.fixture(scope="module")
def world(tmp_path_factory, models):
    """Own images of both models, foreign ones, a flat one, and a file that is none."""
    root = tmp_path_factory.mktemp("world")
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(COUNT - 2):
        pixels = rng.integers(20, 236, (96, 112, 3), dtype=np.uint8)
        if i < 4:
            one = list(models.values())[i % 2]
            made = one.decode(one.encode(jnp.asarray(aedr.prepare(pixels))))[0]
            pixels = np.asarray(jnp.clip(jnp.round((made + 1) * 127.5), 0, 255)).astype(np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{i}.png")
    Image.new("RGB", (96, 112)).save(root / "images" / "black.png")
    (root / "images" / "bad.png").write_text("no image")
    return root


@pytest.fixture
def attribute(world, tmp_path, models):
    def run(out="verdicts", source=None, **options):
        options = {"workers": 0, "setup": SETUP, "models": models, **options}
        return api.attribute_dataset(source or world / "images", tmp_path / out, **options)

    return run


@pytest.fixture(scope="module")
def scores(world, models):
    """What `score_dataset` wrote of the same images."""
    settings = {**vars(SETUP), "workers": 0, "part_images": 3}
    aedr.score_dataset(world / "images", models, world / "scores", **settings)
    return world / "scores"


@pytest.fixture(scope="module")
def whole(world, models):
    """The verdicts of one call in memory."""
    found = api.attribute(world / "images", models=models, setup=SETUP, workers=0)
    return texts(found.verdicts, models)


def texts(verdicts, models):
    return texts_of(as_table(sorted(verdicts, key=lambda verdict: verdict.id), list(models)))


def texts_of(table):
    """NaN differs from itself."""
    return [repr(row) for row in table.sort_by("id").to_pylist()]


def read(folder):
    return texts_of(pq.read_table(folder))


def test_verdicts_in_a_folder_are_those_of_one_call(attribute, tmp_path, whole, models):
    assert attribute(part_images=3) == Finished(COUNT, 1, 0)
    assert read(tmp_path / "verdicts") == whole
    assert len(list((tmp_path / "verdicts").iterdir())) == 3
    assert count_verdicts(tmp_path / "verdicts") == {"a": 2, "b/c": 2, "none": 3, "not assessable": 1, "error": 1}
    assert attribute() == Finished(0, 0, COUNT)
    manifest = json.loads((tmp_path / "verdicts.run.json").read_text())["settings"]
    assert (manifest["kind"], set(manifest["models"]), manifest["null"]) == (
        "verdicts",
        set(models),
        Null.shipped().digest(),
    )


def test_scores_give_the_verdicts_of_the_images(attribute, tmp_path, whole, scores, monkeypatch):
    """And no image is opened, no model loaded."""
    monkeypatch.setattr(api.Setup, "scorer", None)
    monkeypatch.setattr("aedr_jax.inputs.sources.Item.read", None)
    assert attribute(source=api.Scores(scores), models=None, part_images=2) == Finished(COUNT, 1, 0)
    assert read(tmp_path / "verdicts") == whole
    assert attribute(source=api.Scores(scores), models=None) == Finished(0, 0, COUNT)
    alone = api.attribute(api.Scores(scores), models=["b/c"], out=tmp_path / "v.parquet")
    assert {v.verdict for v in alone.verdicts} == {"b/c", "none", "not assessable", "error"}
    assert pq.read_schema(tmp_path / "v.parquet").field("scores").type == pa.struct({"b/c": pa.float64()})
    assert alone.run.counts == (COUNT, 1, 0, COUNT)
    assert b"aedr_jax.made" in pq.read_schema(tmp_path / "v.parquet").metadata


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_scores_in_files_give_the_same(world, scores, whole, models, tmp_path, ending):
    """To the last bit; JSON has no infinity, and its null is one where alignments were measured."""
    file = tmp_path / f"scores.{ending}"
    rows = [row for image in Scores(scores) for row in image.rows]
    if ending == "jsonl":
        write_rows(rows, file)
        with pytest.raises(SourceError, match="do not say all of settings 'custom'"):
            api.Scores(file)
        rows = [dataclasses.replace(row, preset="tiles") for row in rows]
    write_rows(rows, file)
    again = [row for image in Scores(file) for row in image.rows]
    assert list(map(repr, again)) == list(map(repr, rows))
    assert texts(api.attribute(api.Scores(file)).verdicts, models) == whole


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RunError("shard 7 is gone")])
def test_what_stops_a_run_costs_no_verdict(attribute, tmp_path, world, whole, scores, error):
    with pytest.raises(type(error)):
        attribute(source=Interrupted(Files([world / "images"]), 5, error), part_images=3)
    done = len(read(tmp_path / "verdicts"))
    if not isinstance(error, KeyboardInterrupt):
        assert done == 5
    finished = attribute()
    assert (finished.scored, finished.skipped) == (COUNT - done, done)
    assert read(tmp_path / "verdicts") == whole
    work = judging.JudgeScores(Scores(scores), judging.Judging())
    with pytest.raises(type(error)):
        fill(work, Interrupted(Scores(scores), 5, error), tmp_path / "judged", Running(part_images=3))
    assert len(read(tmp_path / "judged")) == 5
    assert fill(work, work.scores, tmp_path / "judged").skipped == 5
    assert read(tmp_path / "judged") == whole


@pytest.mark.parametrize("shares", [2, 5])
def test_shares_of_scores(attribute, tmp_path, whole, scores, shares):
    """Of as many files as shares whole files; else by ids."""
    source = api.Scores(scores)
    assert len(source.files) == 3
    done = [attribute(source=source, models=None, shard=(i, shares)) for i in range(shares)]
    assert sum(finished.scored for finished in done) == COUNT
    assert read(tmp_path / "verdicts") == whole


def test_scores_are_read_as_they_are_asked_for(scores, monkeypatch):
    """A run of any size holds some thousand rows: nothing is read ahead of the first part that is full."""
    read_rows, opened = [], []
    real = pq.ParquetFile.iter_batches

    def counted(self, *args, **options):
        opened.append(self)
        for batch in real(self, 2, **options):
            read_rows.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    source = Scores(scores)
    assert sum(read_rows) <= 4  # the first image's, and what ends them
    images = iter(source)
    next(images)
    assert len(opened) == 2
    assert sum(read_rows) <= 8
    assert len(list(images)) == COUNT - 1
    assert len(opened) == 1 + len(source.files)


def test_a_source_is_not_drained_before_verdicts_are_written(attribute, tmp_path, world):
    written = []

    class Watched(Source):
        def __iter__(self):
            for item in Files([world / "images"]):
                written.append(len(list((tmp_path / "verdicts").glob("part-*"))))
                yield item

    attribute(source=Watched(), part_images=2)
    assert written == sorted(written)
    assert written[-1] >= 2  # of four: two batches of two are under way, and the one that fills up


def test_a_cluster_gives_the_verdicts_of_one_machine(attribute, tmp_path, whole, scores, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", LocalRay({"CPU": 2.0}))
    assert attribute(engine="ray", part_images=4) == Finished(COUNT, 1, 0)
    assert read(tmp_path / "verdicts") == whole
    assert attribute("judged", api.Scores(scores), models=None, engine="ray", part_images=2) == Finished(COUNT, 1, 0)
    assert read(tmp_path / "judged") == whole
    names = sorted(path.name for path in (tmp_path / "judged").iterdir())
    attribute("again", api.Scores(scores), models=None, engine="ray", part_images=2)
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == names  # a retry writes the same parts
    assert len(pickle.dumps(judging.JudgeScores(Scores(scores), judging.Judging()))) < 10_000


def test_other_settings_are_refused(attribute, tmp_path, scores, world, models):
    attribute(source=api.Scores(scores), models=None)
    for changed, named in (({"false_names": 0.01}, "false_names"), ({"models": ["a"]}, "models.b/c")):
        with pytest.raises(SourceError, match=rf"holds rows of other settings \({named}"):
            attribute(source=api.Scores(scores), **{"models": None, **changed})
    with pytest.raises(SourceError, match="holds rows of other settings"):
        api.attribute_dataset(world / "images", scores, models=models, setup=SETUP, workers=0)  # among scores
    with pytest.raises(SourceError, match="no column "):
        api.Scores(tmp_path / "verdicts")
    with pytest.raises(SourceError, match="a search needs the images"):
        attribute(source=api.Scores(scores), models=None, search=True)
    with pytest.raises(SourceError, match=r"no rows of x \(there are: a, b/c\)"):
        attribute(source=api.Scores(scores), models=["x"])
    with pytest.raises(SourceError, match="attribute_dataset writes folders"):
        api.attribute(api.Scores(scores), out=tmp_path / "folder")


def test_verdicts_on_rows_of_another_version_are_not_gone_on_with(attribute, tmp_path, monkeypatch):
    write_rows([row("x", "a")], tmp_path / "scores.parquet")
    source = api.Scores(tmp_path / "scores.parquet")
    with monkeypatch.context() as older:
        older.setattr(judging, "VERSION_OF_ROWS", 4)
        attribute(source=source, models=None)
    with pytest.raises(SourceError, match=r"holds rows of other settings \(schema_version"):
        attribute(source=source, models=None)


def row(image, model, alignment=0.0, *, size_rule="crop8", **changed):
    measured = dict.fromkeys(Measurement._fields, math.nan) | {"alignment": alignment, "alignment_error": 0.1}
    known = {"sha256": "0" * 64, "used_width": 96, "used_height": 96, "status": "ok"}
    told = {"weights_hash": model, "preset": "tiles", "dtype": "float32", "precision": "highest", "quantize": None}
    values = {**known, **told, "size_rule": size_rule, "measured": Measurement(**measured), **changed}
    return Row(id=image, path=f"{image}.png", model=model, **values)


def test_what_scores_have_to_be(tmp_path, attribute):
    """Rows of an image together, of each model measured alike; what is not has no verdict, and is said."""
    file = tmp_path / "scores.parquet"
    write_rows([row("x", "a"), row("x", "b"), row("y", "a"), row("z", "b"), row("y", "b"), row("z", "a")], file)
    with pytest.raises(RunError, match=r"4 images do not have a row .* such as y \(y\.png\), none of b"):
        attribute(source=api.Scores(file), models=None)
    assert len(read(tmp_path / "verdicts")) == 1
    assert api.attribute(api.Scores(file), models=["a"]).run.problems
    write_rows([row("x", "a"), row("x", "a"), row("y", "a", size_rule="crop8, middle"), row("z", "a", dtype="f")], file)
    with pytest.raises(RunError, match=r"the row of z \(z\.png\) with a was measured otherwise than the first image's"):
        attribute("otherwise", api.Scores(file), models=None)
    assert len(read(tmp_path / "otherwise")) == 2
    write_rows([row("x", "a", schema_version=1)], file)
    with pytest.raises(SourceError, match="rows of version 1, expected 5; score the images again"):
        api.Scores(file)
    write_rows([row("x", "a", preset="paper")], file)
    with pytest.raises(CalibrationError, match="scores without alignment; verdicts then need calibrations"):
        attribute("unaligned", api.Scores(file), models=None)
    (tmp_path / "folder").mkdir()
    for where, message in (("none", "no such file"), ("folder", "no Parquet"), ("verdicts.run.json", "expected a fo")):
        with pytest.raises(SourceError, match=message):
            api.Scores(tmp_path / where)
    with pytest.raises(SourceError, match="given twice"):
        Scores(file, models=["a", "a"])


def test_a_damaged_part_of_scores_costs_its_images_alone(attribute, tmp_path, scores):
    shutil.copytree(scores, tmp_path / "scores")
    first, second, _ = sorted((tmp_path / "scores").iterdir())
    lost = len(pq.read_table(second)) // 2
    source = api.Scores(tmp_path / "scores")
    second.write_bytes(second.read_bytes()[:200])
    with pytest.raises(RunError, match=rf"could not be read to the end: .*{second.name}: cannot be read as scores"):
        attribute(source=source, models=None)
    assert len(read(tmp_path / "verdicts")) == COUNT - lost
    first.write_bytes(b"")
    with pytest.raises(SourceError, match=rf"{first.name}: cannot be read as scores"):
        api.Scores(tmp_path / "scores")


def test_scores_are_compared_with_calibrations(attribute, tmp_path, scores):
    """All of the settings where the run's lie beside the folder, else what is in the rows."""
    images = [image for image in Scores(scores) if image.rows[0].status == "ok"]
    own = np.linspace(-3.0, -1.0, 60)
    protocol = Scores(scores).protocols()["a"]
    fitting = dataclasses.replace(aedr.calibrate(own, config=SETUP.config, model="a"), protocol=protocol)
    assert attribute(source=api.Scores(scores), models=None, calibrations={"a": fitting}).scored == COUNT
    table = pq.read_table(tmp_path / "verdicts")
    assert table.schema.field("p_values").type == pa.struct({"a": pa.float64()})
    said = [p for p, why in zip(table["p_values"].to_pylist(), table["verdict"].to_pylist(), strict=True) if why == "a"]
    assert len(said) == 2
    assert all(0 < p["a"] <= 1 for p in said)
    assert json.loads((tmp_path / "verdicts.run.json").read_text())["settings"]["calibrations"] == {
        "a": [fitting.digest()]
    }
    identity = dataclasses.replace(protocol.identity, weights_hash="0" * 64)
    other = dataclasses.replace(fitting, protocol=dataclasses.replace(protocol, identity=identity))
    with pytest.raises(CalibrationError, match="made with other weights or settings"):
        attribute("other", api.Scores(scores), models=None, calibrations={"a": other})
    write_rows([row for image in images for row in image.rows], tmp_path / "scores.parquet")
    with pytest.raises(CalibrationError, match="made with other weights or settings"):
        api.attribute(api.Scores(tmp_path / "scores.parquet"), calibrations={"a": other})
    with pytest.raises(SourceError, match=r"no rows of a model with a calibration \(there are: x\)"):
        attribute(source=api.Scores(scores), models=None, calibrations={"x": fitting})


def test_a_table_of_verdicts_has_the_same_columns_whatever_is_in_it(tmp_path):
    lowest = min(min(group) for group in Null.shipped().groups.values())
    verdicts = verdict_rows([row("x", "a", lowest / 5), row("x", "b"), row("y", "a", error="broken", status="error")])
    named, failed = verdicts
    record = as_record(named)
    assert (record["verdict"], record["model"], record["score"]) == ("a", "a", pytest.approx(lowest / 5))
    assert record["foreign_p_value"] == named.foreign_p_values["a"] == pytest.approx(Null.shipped().least)
    assert record["p_value"] is record["likelihood_ratio"] is None
    assert (as_record(failed)["model"], as_record(failed)["verdict"]) == (None, "error")
    tables = [as_table(some, ["a", "b"]) for some in (verdicts, [failed], [])]
    assert tables[0].schema == tables[1].schema == tables[2].schema
    assert tables[0].schema.names == columns() == list(record)
    assert tables[0].schema.metadata == {b"aedr_jax.verdicts_schema_version": b"2"}
    for ending in ("parquet", "csv", "jsonl"):
        write_verdicts(verdicts, ["a", "b"], tmp_path / f"v.{ending}")
    assert pq.read_table(tmp_path / "v.parquet").equals(tables[0])
    assert (tmp_path / "v.csv").read_text().splitlines()[0] == ",".join(columns())
    assert list(json.loads((tmp_path / "v.jsonl").read_text().splitlines()[1])) == columns()


def test_a_search_is_part_of_the_run(attribute, tmp_path, world, monkeypatch):
    """What no model accepts is looked at again while its item is at hand; whatever stops the writing, nothing that was
    found is lost."""
    asked = []

    def found(verdict, item, scorer, *, false_names, families):
        asked.append((verdict.id, Path(item.path).name, false_names, sorted(families)))
        return dataclasses.replace(verdict, verdict="a", found="mirrored")

    monkeypatch.setattr(judging, "searched", found)
    real = judging._ImageJudge.kept
    calls = []

    def stopped(self, rows):
        kept = real(self, rows)
        calls.append(len(kept))
        if len(calls) == 1:
            raise KeyboardInterrupt
        return kept

    monkeypatch.setattr(judging._ImageJudge, "kept", stopped)
    with pytest.raises(KeyboardInterrupt):
        attribute(search=True, part_images=8)
    attribute(search=True)
    assert sorted(asked) == [(f"{i}.png", f"{i}.png", 0.025, ["a", "b/c"]) for i in (4, 5, 6)]
    assert count_verdicts(tmp_path / "verdicts") == {"a": 5, "b/c": 2, "not assessable": 1, "error": 1}
    table = pq.read_table(tmp_path / "verdicts").sort_by("id")
    assert [name for name, how in zip(*(table[c].to_pylist() for c in ("id", "found")), strict=True) if how] == [
        "4.png",
        "5.png",
        "6.png",
    ]


def test_functions_of_equal_params_are_two_models(world, models):
    """Which functions take them no row says: an own image of one was named by both."""
    moved = aedr.from_functions(
        lambda p, x: patch_encode(p, jnp.roll(x, 2, 1)),
        lambda p, z: jnp.roll(patch_decode(p, z), -2, 1),
        models["a"].params,
        factor=4,
    )
    asked = {"a": models["a"], "moved": moved}
    found = api.attribute(world / "images" / "0.png", models=asked, setup=SETUP)
    assert found.verdicts[0].verdict == "a"


def test_command_line(scores, tmp_path, capsys, world, monkeypatch):
    out = tmp_path / "verdicts"
    call = ["attribute", "--scores", str(scores), "--out", str(out)]
    assert main([*call, "--shard", "0/2"]) == 0
    assert main([*call, "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["scored"] + said["skipped"], said["not_finite"], sum(said["verdicts"].values())) == (COUNT, 0, COUNT)
    assert "none of these candidates" in said["caveat"]
    assert main(call) == 0
    printed = capsys.readouterr().out
    assert f"0 images judged, 0 of them unreadable, {COUNT} there already\n3 none\n" in printed
    assert "none of these candidates" in printed
    assert main([*call[:3], "--models", "a"]) == 0
    assert "foreign p" in capsys.readouterr().out
    for wrong, message in (
        ([], "either INPUT or --scores"),
        ([str(world / "images"), "--scores", str(scores)], "either INPUT or --scores"),
        (["--scores", str(scores), "--dtype", "float16"], "--dtype is of images"),
        (["--scores", str(scores), "--precision", "highest"], "--precision is of images"),
        (["--scores", str(scores), "--preset", "tiles"], "--preset is of images"),
        (["--scores", str(scores), "--engine", "ray"], "--engine needs a folder"),
        (["--scores", str(scores), "--search", "--out", str(out)], "a search needs the images"),
    ):
        assert main(["attribute", *wrong]) == 2
        assert message in capsys.readouterr().err
    asked = {}

    def noted(source, out, **options):
        asked.update(options)
        return Finished(1, 0, 0)

    monkeypatch.setattr(api, "attribute_dataset", noted)
    folder = ["attribute", str(world / "images"), "--out", str(out), "--workers", "3", "--search"]
    assert main([*folder, "--models", "mini-vq"]) == 0
    assert (asked["workers"], asked["search"], asked["models"]) == (3, True, ["mini-vq"])
    assert asked["setup"].config.name == "tiles"


def test_kinds_are_compared_without_an_images_own_cut():
    assert Kind.of(row("x", "a", size_rule="crop8, middle 512×512")) == Kind.of(row("y", "a"))
    assert Kind.of(row("x", "a", precision="high")) != Kind.of(row("x", "a"))
    assert Scored.of([row("x", "a")]).sha256() == "0" * 64
    plan = Plan({"a": autoencoder(0)}, SETUP)
    assert judging.JudgeImages(plan, judging.Judging()).layout.key(verdict_rows([row("x", "a")])[0]) == ("x",)
