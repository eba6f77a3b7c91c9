"""Rows of a source of any size: each image once, whatever stops a run and however it is divided."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from make_tiny import SMALLEST, make_tensors, write_folder
from PIL import Image

import aedr_jax as aedr
from aedr_jax.cli import main
from aedr_jax.dataset import score_dataset
from aedr_jax.errors import RunError, SourceError
from aedr_jax.parts import Ids, Parts
from aedr_jax.plan import Finished, Plan
from aedr_jax.sources import Files, Item, Listed, Source

COUNT = 13


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    for name, seed in (("m1", 0), ("m2", 1)):
        write_folder(root / name, SMALLEST, make_tensors(SMALLEST, seed=seed))
    (root / "images" / "deep").mkdir(parents=True)
    for i in range(COUNT - 1):
        coarse = Image.fromarray(np.random.default_rng(i).integers(0, 256, (5, 5, 3), dtype=np.uint8))
        name = f"deep/{i}.png" if i % 3 else f"{i}.png"
        coarse.resize((64, 64), Image.Resampling.BICUBIC).save(root / "images" / name)
    (root / "images" / "bad.png").write_text("no image")
    return root


@pytest.fixture
def score(world, tmp_path, loaded):
    """Score the world's images into a folder; the models are loaded and compiled once for all tests."""

    def run(out="scores", source=None, **options):
        options = {"workers": 0, "batch_size": 8, **options}
        return score_dataset(source or world / "images", loaded, tmp_path / out, **options)

    return run


@pytest.fixture(scope="module")
def loaded(world):
    models = {name: str(world / name) for name in ("m1", "m2")}
    scorer = Plan(models, aedr.SignalConfig(), batch_size=8).scorer()
    patch = pytest.MonkeyPatch()
    real = Plan.scorer

    def cached(plan):
        return scorer if (plan.models, plan.config, plan.multiple) == (models, scorer.config, None) else real(plan)

    patch.setattr(Plan, "scorer", cached)
    yield models
    patch.undo()


def rows(folder):
    found = pq.read_table(folder).to_pylist()
    return sorted(({**row, "path": ""} for row in found), key=lambda row: (row["id"], row["model"]))


def texts(folder):
    return [repr(row) for row in rows(folder)]  # NaN differs from itself


def files(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def whole(world, loaded):
    """The rows of an undisturbed run."""
    score_dataset(world / "images", loaded, world / "whole", workers=0, batch_size=8)
    return texts(world / "whole")


def test_a_row_for_each_image_and_model(score, tmp_path, world):
    assert score() == Finished(scored=COUNT, unreadable=1, skipped=0)
    found = rows(tmp_path / "scores")
    assert len({(row["id"], row["model"]) for row in found}) == len(found) == 2 * COUNT
    assert {row["status"] for row in found if row["id"] != "bad.png"} == {"ok"}
    assert all("not an image of a known format" in row["error"] for row in found if row["id"] == "bad.png")
    manifest = json.loads((tmp_path / "scores.run.json").read_text())
    assert set(manifest["settings"]["models"]) == {"m1", "m2"}
    schema = pq.read_schema(next((tmp_path / "scores").iterdir()))
    assert schema.metadata[b"aedr_jax.schema_version"] == b"1"
    assert str(schema.field("quantize").type) == "bool"


def test_again_does_nothing_and_goes_on_with_what_is_new(score, tmp_path, world, whole):
    deep = Listed([item for item in Files([world / "images"]) if item.id.startswith("deep")])
    first = score(source=deep)
    assert first.scored == 8
    before = files(tmp_path / "scores")
    assert score(source=deep) == Finished(0, 0, 8)
    assert files(tmp_path / "scores") == before
    assert score() == Finished(COUNT - 8, 1, 8)
    assert texts(tmp_path / "scores") == whole


def test_shares_give_the_rows_of_one(score, tmp_path, whole):
    shares = 3
    done = [score(shard=(i, shares), part_images=2) for i in range(shares)]
    assert sum(finished.scored for finished in done) == COUNT
    assert texts(tmp_path / "scores") == whole
    assert score() == Finished(0, 0, COUNT)  # one process takes them all for finished


def test_decoder_processes_give_the_same_rows(score, tmp_path, whole):
    score(workers=2)
    assert texts(tmp_path / "scores") == whole


def test_parts_are_small_and_named_by_what_is_in_them(score, tmp_path):
    score("a", part_images=8)
    assert len(files(tmp_path / "a")) == 2
    part = pq.read_table(tmp_path / "a" / files(tmp_path / "a")[0]).to_pylist()
    keys = [(row["id"], row["model"]) for row in part]
    assert Parts(tmp_path / "a", tag="").name(reversed(keys)) in files(tmp_path / "a")
    score("c", part_seconds=0.0)
    assert len(files(tmp_path / "c")) == 3  # the error row, a batch, the rest


class Interrupted(Source):
    def __init__(self, source, after, error):
        self.source, self.after, self.error = source, after, error

    def __iter__(self):
        for i, item in enumerate(self.source):
            if i == self.after:
                raise self.error
            yield item


@pytest.mark.parametrize(
    ("error", "workers"),
    [(KeyboardInterrupt(), 0), (KeyboardInterrupt(), 2), (RunError("shard 7 is gone"), 2), (OSError("no network"), 0)],
)
def test_what_stops_a_run_costs_no_row(score, tmp_path, world, whole, error, workers):
    images = Files([world / "images"])
    with pytest.raises(type(error)):
        score(source=Interrupted(images, 11, error), workers=workers, part_images=3)
    done = len(rows(tmp_path / "scores")) // 2
    if not isinstance(error, KeyboardInterrupt):
        assert done == 11
    finished = score()
    assert (finished.scored, finished.skipped) == (COUNT - done, done)
    assert texts(tmp_path / "scores") == whole


def test_an_id_that_comes_twice_has_one_row_and_is_named(score, tmp_path, world):
    image = world / "images" / "0.png"
    source = Listed([Item("a", image), Item("a", world / "images" / "3.png")])
    with pytest.raises(RunError, match=r"1 images have an id that another has too, such as a \(.*3\.png\)"):
        score(source=source)
    assert len(rows(tmp_path / "scores")) == 2


def test_other_settings_are_refused(score, tmp_path, world, loaded):
    score(source=Listed([Item("a", world / "images" / "0.png")]))
    with pytest.raises(SourceError, match=r"rows of other settings \(size_rule, see scores\.run\.json\)"):
        score(multiple=64)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(SourceError, match=r"holds files, but other\.run\.json is not beside it"):
        score("other")
    with pytest.raises(SourceError, match="does not exist"):
        score("no/where")
    for options, message in (
        ({"shard": (2, 2)}, "expected I/N"),
        ({"engine": "spark"}, "expected local or ray"),
        ({"engine": "ray", "shard": (0, 2)}, "divides the work itself"),
    ):
        with pytest.raises(SourceError, match=message):
            score(**options)


def test_a_damaged_part_is_named(score, tmp_path):
    score()
    part = next((tmp_path / "scores").iterdir())
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(SourceError, match=rf"{part.name}: cannot be read .* remove it"):
        score()
    part.unlink()
    assert score().scored == COUNT


def test_a_full_disk_costs_the_part_and_no_other(score, tmp_path, whole, monkeypatch):
    real, calls = pq.write_table, []

    def full(table, path):
        calls.append(path)
        if len(calls) == 2:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(table, path)

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(RunError, match=r"cannot be written: No space left on device\. Every part before it is whole"):
        score(part_images=8)
    assert not list((tmp_path / "scores").glob(".*"))
    monkeypatch.setattr(pq, "write_table", real)
    assert 0 < score().skipped < COUNT
    assert texts(tmp_path / "scores") == whole


def test_left_over_halves_are_swept(score, tmp_path, world):
    score()
    for tag in ("0-of-1", "1-of-2"):
        (tmp_path / "scores" / f".{tag}.abc.partial").touch()
    score()
    assert not list((tmp_path / "scores").glob(".*"))


def test_ids_in_little_memory():
    ids = Ids(str(i) for i in range(12_000))
    assert len(ids.sorted) >= 10_000
    assert not ids.add("5")
    assert not ids.add("11999")
    assert ids.add("12000")
    assert len(ids) == 12_001
    assert "1234" in ids
    assert "x" not in ids


HOLD = """
import sys
from aedr_jax.parts import Parts
from pathlib import Path
index, shares = int(sys.argv[2]), int(sys.argv[3])
try:
    with Parts(Path(sys.argv[1]), tag="x").going_on({}, (index, shares)):
        print("held", flush=True)
        sys.stdin.read()
except Exception as error:
    print(error, flush=True)
"""


def test_two_processes_do_not_do_the_same_share(tmp_path):
    def start(index, shares):
        call = [sys.executable, "-c", HOLD, str(tmp_path / "s"), str(index), str(shares)]
        process = subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return process, process.stdout.readline()

    first, said = start(0, 2)
    assert said == "held\n"
    others = {share: start(*share) for share in ((1, 2), (0, 2), (0, 1))}
    assert others[1, 2][1] == "held\n"
    assert "another process is scoring into it, share 0/2" in others[0, 2][1]
    assert "share of another N" in others[0, 1][1]
    for process in (first, *(process for process, _ in others.values())):
        process.kill()
        process.communicate()
    process, said = start(0, 1)  # the kernel gave the locks back
    assert said == "held\n"
    process.communicate("")


def test_command_line(world, tmp_path, capsys, loaded):
    out = tmp_path / "scores"
    call = ["score", str(world / "images"), "--model", str(world / "m1"), "--model", str(world / "m2")]
    call += ["--batch-size", "8", "--workers", "0", "--out", str(out)]
    assert main([*call, "--shard", "0/2"]) == 0
    assert "7 images scored" in capsys.readouterr().out
    assert main([*call, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"out": str(out), "scored": 6, "unreadable": 0, "skipped": 7}
    assert main([*call[:-1], str(tmp_path / "s.csv"), "--shard", "0/2"]) == 2
    assert "--shard needs a folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*call, "--shard", "x"])
    with pytest.raises(SystemExit):
        main([*call, "--resource", "GPU"])
    capsys.readouterr()
    (world / "bad.tar").write_bytes(b"\\xff" * 4096)
    assert main(["score", str(world / "bad.tar"), *call[1:]]) == 1
    assert "bad.tar" in capsys.readouterr().err
    (world / "bad.tar").unlink()
