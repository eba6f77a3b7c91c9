"""Rows of a source of any size: each image once, whatever stops a run and however it is divided."""

import csv
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make_tiny import QUICK, make_tensors, write_folder
from PIL import Image

from aedr_jax.cli.main import main
from aedr_jax.errors import AutoencoderError, RunError, SourceError
from aedr_jax.files import whole_file
from aedr_jax.inputs.containers import Rows, open_source
from aedr_jax.inputs.ids import Ids
from aedr_jax.inputs.sources import Files, Item, Listed, Source
from aedr_jax.scoring.cluster import Cluster
from aedr_jax.scoring.dataset import progress_bar, score_dataset
from aedr_jax.scoring.job import SCORES, Finished, Setup
from aedr_jax.scoring.store import Parts

COUNT = 13


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    for name, seed in (("m1", 0), ("m2", 1)):
        write_folder(root / name, QUICK, make_tensors(QUICK, seed=seed))
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
def loaded(world, one_scorer_for_each_setup):
    return {name: str(world / name) for name in ("m1", "m2")}


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
    assert schema.metadata[b"aedr_jax.schema_version"] == b"5"
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


@pytest.mark.parametrize("kind", ["csv", "parquet", "tar", "rows"])
def test_every_source_gives_the_same_rows(score, tmp_path, world, whole, kind):
    contents = {item.id: item.read() for item in Files([world / "images"])}
    source = tmp_path / f"t.{kind}"
    if kind == "csv":
        with open(source, "w", newline="") as file:
            csv.writer(file).writerows([["path", "id"], *([world / "images" / name, name] for name in contents)])
    elif kind == "parquet":
        pq.write_table(pa.table({"id": list(contents), "image": list(contents.values())}), source)
    elif kind == "tar":
        with tarfile.open(source, "w") as tar:
            for name in contents:
                tar.add(world / "images" / name, name)
    else:  # what Hugging Face and tensorflow-datasets are to us
        source = Rows([{"image": data, "id": name} for name, data in contents.items()], name="set", id_column="id")
    score(source=source)

    def plain(row):  # the reason of an error row names the place
        return repr({**row, "id": row["id"].removeprefix("t.tar/"), "error": row["error"] and "..."})

    assert [plain(row) for row in rows(tmp_path / "scores")] == [plain(row) for row in rows(world / "whole")]


def test_parts_are_small_and_named_by_what_is_in_them(score, tmp_path):
    score("a", part_images=8)
    assert len(files(tmp_path / "a")) == 2
    part = pq.read_table(tmp_path / "a" / files(tmp_path / "a")[0]).to_pylist()
    keys = [(row["id"], row["model"]) for row in part]
    assert Parts(tmp_path / "a", tag="", layout=SCORES).name(reversed(keys)) in files(tmp_path / "a")
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


def named(world, *pairs):
    return Listed([Item(name, world / "images" / file) for name, file in pairs])


def paths(folder):
    """Of the images that have rows."""
    return sorted({(row["id"], Path(row["path"]).name) for row in pq.read_table(folder).to_pylist()})


@pytest.mark.parametrize("shares", [1, 2, 3, 5])
@pytest.mark.parametrize("workers", [0, 2])
def test_equal_ids_are_said_whatever_the_number_of_shares(score, tmp_path, world, shares, workers):
    source = named(world, *(("a", f"{3 * i}.png") for i in range(3)), ("b", "bad.png"))
    for again in range(2):  # a later run says it as well, and takes none of them for finished
        said = []
        for i in range(shares):
            try:
                score(source=source, shard=(i, shares), workers=workers)
            except RunError as error:
                said.append(str(error))
        assert len(said) == 1
        assert "2 images have an id that another has too, such as a (" in said[0], again
        assert paths(tmp_path / "scores") == [("a", "0.png"), ("b", "bad.png")]


def test_an_id_that_an_earlier_run_gave_to_another_image_is_not_finished(score, tmp_path, world):
    score(source=named(world, ("a", "0.png"), ("b", "bad.png")))
    with pytest.raises(RunError, match=r"2 images have an id that another has too, such as a \(.*3\.png\)"):
        score(source=named(world, ("a", "3.png"), ("b", "6.png"), ("c", "9.png")))
    assert paths(tmp_path / "scores") == [("a", "0.png"), ("b", "bad.png"), ("c", "9.png")]


def test_images_that_were_moved_are_finished(score, tmp_path, world):
    score(source=named(world, ("a", "0.png"), ("b", "3.png")))
    moved = [Item(name, "elsewhere", (world / "images" / file).read_bytes()) for name, file in (("a", "0.png"),)]
    moved.append(Item("b", os.path.relpath(world / "images" / "3.png")))
    assert score(source=Listed(moved)) == Finished(0, 0, 2)


def test_rows_that_processes_wrote_without_seeing_each_other_are_said(score, tmp_path, world):
    """As on a file system without locks, or with sources that differ; every later run says it too."""
    score(source=named(world, ("a", "0.png")))
    score("other", source=named(world, ("a", "3.png"), ("b", "6.png")))
    for part in (tmp_path / "other").iterdir():
        part.rename(tmp_path / "scores" / part.name)
    for _ in range(2):
        with pytest.raises(RunError, match=r"1 ids have rows of several images, such as a \(.*\.png and .*\.png\)"):
            score(source=named(world, ("a", "0.png"), ("b", "6.png")))
    with pytest.raises(RunError, match=r"gone; .*1 ids have rows of several"):
        score(source=Interrupted(named(world, ("c", "9.png")), 0, RunError("gone")))


def test_other_settings_are_refused(score, tmp_path, world, loaded):
    score(source=Listed([Item("a", world / "images" / "0.png")]))
    with pytest.raises(
        SourceError, match=r"\(models\.m1\.size_rule: there 'crop2', now 'crop64'; .*see scores\.run\.json\)"
    ):
        score(multiple=64)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(SourceError, match=r"holds files, but other\.run\.json is not beside it"):
        score("other")
    with pytest.raises(SourceError, match="does not exist"):
        score("no/where")
    (tmp_path / "torn.run.json").write_text('{"settings":')
    with pytest.raises(SourceError, match=r"torn\.run\.json: does not hold the settings of a run"):
        score("torn")
    for options, message in (
        ({"shard": (2, 2)}, "expected I/N"),
        ({"workers": -1}, "workers -1: expected 0 or more"),
        ({"part_images": 0}, "part_images 0: expected 1 or more"),
        ({"engine": "spark"}, "expected local or ray"),
        ({"engine": "ray", "shard": (0, 2)}, "divides the work itself"),
    ):
        with pytest.raises(SourceError, match=message):
            score(**options)


@pytest.mark.parametrize("models", ["mini-kl4-a", ["mini-kl4-a"], {}, None])
def test_models_are_told_what_to_be(tmp_path, models):
    score = score_dataset.__wrapped__  # as a user has it, without the suite's type checks
    with pytest.raises(SourceError, match=r"models .*: expected names and what to load, such as {'mini"):
        score(tmp_path, models, tmp_path / "scores", batch_size=8)


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


def test_of_two_that_begin_at_once_one_writes_the_settings(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda path: False)  # as both saw it
    path = tmp_path / "scores.run.json"
    for text in ("first", "second"):
        with whole_file(path, keep=True) as partial:
            partial.write_text(text)
    assert path.read_text() == "first"
    assert os.listdir(tmp_path) == ["scores.run.json"]


def test_progress_has_a_rate_and_the_time_left(capsys, monkeypatch):
    monkeypatch.setattr("aedr_jax.scoring.dataset.LINE_SECONDS", 0.0)
    with progress_bar(Listed([Item("a", "a")] * 4), True) as advance:
        for _ in range(4):
            advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert any("50%|2/4 [00:00<00:00" in line and "image/s]" in line for line in lines), lines


class LocalRay:
    """What `Cluster` asks of Ray, done here; with Ray itself it is in tests/parity."""

    ObjectRef = type("ObjectRef", (), {})
    TaskError = type("TaskError", (Exception,), {})  # as whatever an actor raises comes back

    def __init__(self, *machines):
        self.machines, self.asked = machines, []
        self.data = SimpleNamespace(
            DataContext=SimpleNamespace(get_current=SimpleNamespace), ActorPoolStrategy=dict, from_items=self.from_items
        )

    def is_initialized(self):
        return True

    def cluster_resources(self):
        names = {name for machine in self.machines for name in machine}
        return {name: sum(machine.get(name, 0) for machine in self.machines) for name in names}

    def nodes(self):
        return [{"Alive": True, "Resources": machine} for machine in self.machines]

    def put(self, value):
        return value

    def get(self, value):
        return value

    def remote(self, **options):
        return lambda fn: SimpleNamespace(remote=fn)

    def from_items(self, items, override_num_blocks):
        def map_batches(actor, *, fn_constructor_args, **options):
            self.asked.append(options)
            one = actor(*fn_constructor_args)

            def iter_rows():
                for item in items:
                    try:
                        done = one({"piece": [pickle.loads(pickle.dumps(item["piece"]))]})
                    except Exception as error:
                        raise self.TaskError(str(error)) from error
                    yield {name: value for name, (value,) in done.items()}

            return SimpleNamespace(iter_rows=iter_rows)

        return SimpleNamespace(map_batches=map_batches)


@pytest.fixture
def ray(monkeypatch):
    ray = LocalRay({"node:head": 1.0}, {"CPU": 8.0, "TPU": 4.0})
    monkeypatch.setitem(sys.modules, "ray", ray)
    return ray


def test_a_cluster_gives_the_rows_of_one_machine(score, tmp_path, whole, ray):
    assert score(engine="ray", part_images=4) == Finished(COUNT, 1, 0)
    assert texts(tmp_path / "scores") == whole
    names = files(tmp_path / "scores")
    assert len(names) == 4
    (asked,) = ray.asked
    assert asked["compute"] == {"min_size": 1, "max_size": 4}
    assert (asked["num_cpus"], asked["num_gpus"], asked["resources"]) == (1, 0, {"TPU": 1.0})
    score("again", engine="ray", part_images=4, resources={"CPU": 2.0})
    assert files(tmp_path / "again") == names  # a retry writes the same parts
    assert score(engine="ray") == Finished(0, 0, COUNT)


def test_what_archives_hold_beside_images_is_counted_on_a_cluster(score, tmp_path, world, ray):
    for name in ("a", "b"):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as tar:
            tar.add(world / "images" / "0.png", "0.png")
            tar.add(world / "images" / "bad.png", "notes.txt")
    (tmp_path / "more").mkdir()
    shutil.copy(world / "images" / "3.png", tmp_path / "more")
    (tmp_path / "more" / "list.csv").write_text("")
    source = open_source([tmp_path / "a.tar", tmp_path / "more", tmp_path / "b.tar"])
    assert score(source=source, engine="ray") == Finished(3, 0, 0)
    assert source.passed_over() == {".txt": 2, ".csv": 1}
    assert score(source=source, engine="ray") == Finished(0, 0, 3)
    assert source.passed_over() == {".txt": 2, ".csv": 1}
    assert Listed([]).passed_over() == {}


@pytest.mark.parametrize(
    ("machine", "given", "options"),
    [
        ({"CPU": 8.0}, None, {"num_cpus": 8.0, "num_gpus": 0, "resources": None}),
        ({"CPU": 8.0, "GPU": 2.0}, None, {"num_cpus": 1, "num_gpus": 1.0, "resources": None}),
        ({"CPU": 8.0, "TPU": 4.0}, {"TPU": 4.0}, {"num_cpus": 1, "num_gpus": 0, "resources": {"TPU": 4.0}}),
    ],
)
def test_what_an_actor_takes(monkeypatch, machine, given, options):
    """The head does no work: it has no CPU to give."""
    monkeypatch.setitem(sys.modules, "ray", LocalRay({"node:head": 1.0}, machine))
    assert Cluster(None, given).options() == options
    with pytest.raises(SourceError, match="the cluster has"):
        Cluster(None, {"GPU": 64.0})
    with pytest.raises(SourceError, match="above 0"):
        Cluster(None, {"GPU": 0.0})


@pytest.mark.parametrize("there", [True, False])
def test_a_connection_is_closed_by_whoever_opened_it(score, ray, monkeypatch, there):
    done = []
    monkeypatch.setattr(ray, "is_initialized", lambda: there)
    monkeypatch.setattr(ray, "init", lambda address: done.append(address), raising=False)
    monkeypatch.setattr(ray, "shutdown", lambda: done.append("left"), raising=False)
    score(engine="ray", address="head:6379")
    assert done == ([] if there else ["head:6379", "left"])


class OnePiece(Interrupted):
    def pieces(self, size):
        yield self


@pytest.mark.parametrize(
    ("kind", "error", "raised"),
    [
        (Interrupted, RunError("a folder is shut"), RunError),
        (OnePiece, RunError("shard 7 is gone"), RunError),
        (OnePiece, OSError("no network"), LocalRay.TaskError),
    ],
)
def test_what_fails_on_a_cluster_costs_no_row(score, tmp_path, world, whole, ray, kind, error, raised):
    images = Files([world / "images"])
    with pytest.raises(raised, match=str(error)):
        score(source=kind(images, 11, error), engine="ray", part_images=20)
    assert len(rows(tmp_path / "scores")) == 2 * 11
    assert score(engine="ray") == Finished(COUNT - 11, 0, 11)
    assert texts(tmp_path / "scores") == whole


def test_a_full_disk_stops_a_cluster(score, ray, monkeypatch):
    def full(table, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(RunError, match="cannot be written: No space left on device"):
        score(engine="ray", part_images=8)


def test_a_dtype_is_kept_by_its_name(score, tmp_path, world):
    """As `load_autoencoder` takes it; a wrong one is said before there is a folder."""
    assert Setup(dtype=jnp.bfloat16) == Setup(dtype=np.dtype(jnp.bfloat16)) == Setup(dtype="bfloat16")
    with pytest.raises(AutoencoderError, match="dtype 'int8': expected one of float32"):
        score("other", dtype="int8")
    assert not (tmp_path / "other").exists()
    black = Listed([Item("a", world / "images" / "0.png")])
    for dtype in (jnp.bfloat16, "bfloat16"):
        score(source=black, dtype=dtype)
    assert json.loads((tmp_path / "scores.run.json").read_text())["measuring"]["dtype"] == "bfloat16"


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
from aedr_jax.scoring.job import SCORES
from aedr_jax.scoring.store import Parts
from pathlib import Path
with Parts(Path(sys.argv[1]), tag="x", layout=SCORES).going_on({}, (0, 2)):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_do_not_do_the_same_share(tmp_path):
    """One holds the first half, and this one asks."""

    def going_on(*share):
        return Parts(tmp_path / "s", tag="x", layout=SCORES).going_on({}, share)

    call = [sys.executable, "-c", HOLD, str(tmp_path / "s")]
    with subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with going_on(1, 2):
            pass
        with pytest.raises(SourceError, match="another run is writing into it, share 0/2"), going_on(0, 2):
            pass
        with pytest.raises(SourceError, match="share of another N"), going_on(0, 1):
            pass
        other.kill()
    with going_on(0, 1):  # the kernel gave the locks back
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="locks of a handle, not of a process, are Linux's")
def test_a_share_is_done_once_in_a_process_too(tmp_path):
    """And whoever reads the settings meanwhile takes no lock away."""

    def going_on(*share):
        return Parts(tmp_path / "s", tag="x", layout=SCORES).going_on({}, share)

    def asked_elsewhere():
        call = [sys.executable, "-c", HOLD, str(tmp_path / "s")]
        return subprocess.run(call, input="", capture_output=True, text=True, check=False)

    with going_on(0, 2):
        with pytest.raises(SourceError, match="another run is writing into it, share 0/2"), going_on(0, 2):
            pass
        with pytest.raises(SourceError, match="share of another N"), going_on(0, 3):
            pass
        with going_on(1, 2):
            pass
        assert Parts(tmp_path / "s", tag="x", layout=SCORES).settings() == {}
        assert "another run is writing into it, share 0/2" in asked_elsewhere().stderr
    assert asked_elsewhere().stdout == "held\n"


def test_command_line(world, tmp_path, capsys, loaded, monkeypatch):
    out = tmp_path / "scores"
    call = ["score", str(world / "images"), "--model", str(world / "m1"), "--model", str(world / "m2")]
    call += ["--batch-size", "8", "--workers", "0", "--out", str(out)]
    assert main([*call, "--shard", "0/2"]) == 0
    assert "6 images scored" in capsys.readouterr().out
    assert main([*call, "--json"]) == 0
    counts = {"scored": 7, "unreadable": 0, "skipped": 6, "not_finite": 0}
    assert json.loads(capsys.readouterr().out) == {"out": str(out), **counts, "passed_over": {}}
    assert main([*call[:-1], str(tmp_path / "s.csv"), "--shard", "0/2"]) == 2
    assert "--shard needs a folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*call, "--shard", "x"])
    with pytest.raises(SystemExit):
        main([*call, "--resource", "GPU"])
    with monkeypatch.context() as pod:
        pod.setattr("aedr_jax.scoring.dataset.pod_share", lambda: (1, 2))
        assert main([*call[:-1], str(tmp_path / "pod"), "--shard", "auto"]) == 0
    assert "7 images scored" in capsys.readouterr().out

    def interrupted(*given, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr("aedr_jax.api.score_dataset", interrupted)
        assert main(call) == 130
    assert "the same command goes on" in capsys.readouterr().err
    capsys.readouterr()
    (world / "bad.tar").write_bytes(b"\\xff" * 4096)
    assert main(["score", str(world / "bad.tar"), *call[1:]]) == 1
    assert "bad.tar" in capsys.readouterr().err
    (world / "bad.tar").unlink()
