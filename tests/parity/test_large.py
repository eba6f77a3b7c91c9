"""What takes whole processes or heavy extras: runs that are killed, two of a pod, a cluster that loses a machine;
Hugging Face datasets and tensorflow-datasets themselves (`pip install -e ".[datasets,ray,tfds]"`, or these skip)."""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from make_tiny import SMALLEST, make_tensors, write_folder
from PIL import Image

from aedr_jax import SignalConfig, api
from aedr_jax.errors import SourceError
from aedr_jax.inputs.containers import from_hugging_face, from_tfds, open_source
from aedr_jax.inputs.sources import Files
from aedr_jax.scoring.dataset import score_dataset

COUNT = 24
PROGRAMS = tempfile.TemporaryDirectory()
atexit.register(PROGRAMS.cleanup)
ENVIRONMENT = {
    **os.environ,
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
    "JAX_COMPILATION_CACHE_DIR": PROGRAMS.name,  # most of a process's time would be compilation
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}
SCORE = """
import sys
from aedr_jax.scoring.dataset import score_dataset
root, out = sys.argv[1:]
score_dataset(root + "/images", {"m1": root + "/m1"}, out, batch_size=1, workers=1, part_images=4)
"""
ATTRIBUTE = """
import sys
import aedr_jax as aedr
root, out = sys.argv[1:]
setup = aedr.api.Setup(aedr.SignalConfig.tiles(), batch_size=1)
models = {"m1": root + "/m1"}
aedr.api.attribute_dataset(root + "/images", out, models=models, setup=setup, workers=1, part_images=4)
"""
JUDGE = """
import sys, time
from aedr_jax.scoring.dataset import Running, fill
from aedr_jax.scoring.judging import JudgeScores, Judging
from aedr_jax.scoring.scored import Scores

class Slow(Scores):
    def __iter__(self):
        for image in super().__iter__():
            time.sleep(0.05)
            yield image

root, out = sys.argv[1:]
scores = Slow(root + "/whole")
fill(JudgeScores(scores, Judging()), scores, out, Running(part_images=4))
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    write_folder(root / "m1", SMALLEST, make_tensors(SMALLEST))
    (root / "images").mkdir()
    for i in range(COUNT):
        coarse = Image.fromarray(np.random.default_rng(i).integers(0, 256, (5, 5, 3), dtype=np.uint8))
        coarse.resize((64, 64), Image.Resampling.BICUBIC).save(root / "images" / f"{i:02d}.png")
    return root


def rows(folder):
    """By id; NaN, which is not equal to itself, as None."""
    found = pq.read_table(folder).sort_by("id").to_pylist()
    return [{name: None if value != value else value for name, value in row.items()} for row in found]


def parts(folder):
    return len(list(folder.glob("part-*"))) if folder.exists() else 0


@pytest.fixture(scope="module")
def whole(world):
    run(world, world / "whole")
    return rows(world / "whole")


def run(world, out, script=SCORE):
    subprocess.run([sys.executable, "-c", script, str(world), str(out)], env=ENVIRONMENT, check=True)


@pytest.mark.parametrize("script", [SCORE, ATTRIBUTE, JUDGE], ids=["score", "attribute", "attribute-scores"])
def test_killed_and_interrupted_runs_go_on(world, tmp_path, whole, script):
    """Kill -9 after the first part; then Ctrl-C; then to the end: the rows of an undisturbed run, to the bit."""
    if script != SCORE:
        run(world, tmp_path / "whole", script)
        whole = rows(tmp_path / "whole")
        assert len(whole) == COUNT
    out = tmp_path / "killed"
    for number in (signal.SIGKILL, signal.SIGINT, None):
        before = parts(out)
        process = subprocess.Popen([sys.executable, "-c", script, str(world), str(out)], env=ENVIRONMENT)
        while number and process.poll() is None and parts(out) <= before:
            time.sleep(0.01)
        if number:
            process.send_signal(number)
        process.wait(timeout=120)
    assert process.returncode == 0
    assert rows(out) == whole
    assert not list(out.glob(".*"))


def test_a_file_system_that_is_full(world, tmp_path, whole):
    """A limit on the size of files stands in for it: the manifest fits, a part does not."""
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
    call = [sys.executable, "-c", limit + SCORE, str(world), str(tmp_path / "out")]
    done = subprocess.run(call, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert not list((tmp_path / "out").iterdir())
    run(world, tmp_path / "out")
    assert rows(tmp_path / "out") == whole


POD = """
import sys
from aedr_jax.scoring.sharding import pod_share
root, out = sys.argv[1:]
share = pod_share()
import jax
from aedr_jax.scoring.dataset import score_dataset
print(share, len(jax.local_devices()), flush=True)
score_dataset(root + "/images", {"m1": root + "/m1"}, out, batch_size=1, workers=1, part_images=4, shard=share)
"""


def test_processes_of_a_pod_do_not_die_together(world, tmp_path, whole):
    """jax.distributed gives the shares, as under Slurm; one process is killed; the other's rows are complete, and the
    rest follows."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    slurm = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": "2", "JAX_COORDINATOR_PORT": port}
    out = tmp_path / "out"
    pod = [
        subprocess.Popen(
            [sys.executable, "-c", POD, str(world), str(out)],
            env={**ENVIRONMENT, **slurm, "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    assert [process.stdout.readline() for process in pod] == ["(0, 2) 1\n", "(1, 2) 1\n"]
    pod[0].kill()  # the one that holds the coordinator
    assert pod[1].wait(timeout=120) == 0
    for process in pod:
        process.communicate()
    found = {row["id"] for row in rows(out)}
    assert found >= {item.id for item in Files([world / "images"]).share(1, 2)}
    run(world, out)
    assert rows(out) == whole


@pytest.mark.filterwarnings("ignore")
def test_hugging_face(world, tmp_path):
    datasets = pytest.importorskip("datasets")
    files = {item.id: item.read() for item in Files([world / "images"])}
    paths = [str(world / "images" / name) for name in files]
    data = datasets.Dataset.from_dict({"photo": paths, "name": list(files)}).cast_column("photo", datasets.Image())
    source = from_hugging_face(data, name="set", id_column="name")
    assert {item.id: item.read() for item in source} == files
    assert [item.id for item in from_hugging_face(data, name="set").share(1, 12)] == ["set/1", "set/13"]
    with pytest.raises(SourceError, match="expected one column of image bytes, found none"):
        from_hugging_face(data.remove_columns("photo"), name="set")
    (tmp_path / "set").mkdir()
    data.cast_column("photo", datasets.Image()).to_parquet(tmp_path / "set" / "train.parquet")
    embedded = open_source([f"hf:{tmp_path / 'set'}:train"], id_column="name")
    assert {item.id: item.read() for item in embedded} == files


@pytest.mark.filterwarnings("ignore")
def test_columns_of_a_hugging_face_dataset_are_looked_for(tmp_path):
    datasets = pytest.importorskip("datasets")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    rows = {"image": [{"bytes": (tmp_path / "a.png").read_bytes(), "path": None}], "label": [0]}
    dataset = datasets.Dataset.from_dict(rows, features=features)
    for columns in ({"image_column": "nope"}, {"id_column": "nope"}):
        with pytest.raises(SourceError, match="set: no column 'nope'; it has image, label"):
            from_hugging_face(dataset, name="set", **columns)
    with pytest.raises(SourceError, match="set: cannot be loaded: "):
        from_hugging_face(dataset, name="set", image_column="label")
    with pytest.raises(SourceError, match="set: lists no image: it has no row"):
        from_hugging_face(dataset.select([]), name="set")
    assert [item.id for item in from_hugging_face(dataset, name="set", id_column="label")] == ["0"]


@pytest.mark.filterwarnings("ignore")
def test_tensorflow_datasets(world, tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("array_record")
    files = [item.read() for item in Files([world / "images"])]

    class Tiny(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {"image": tfds.features.Image(shape=(None, None, 3)), "number": np.int64}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i, item in enumerate(Files([world / "images"])):
                yield i, {"image": str(item.path), "number": i}

    builder = Tiny(data_dir=str(tmp_path), file_format="array_record")
    builder.download_and_prepare()
    source = builder.as_data_source(split="train", decoders={"image": tfds.decode.SkipDecoding()})
    items = from_tfds(source, name="tiny", id_column="number")
    assert {int(item.id): item.read() for item in items} == dict(enumerate(files))
    assert "tensorflow" not in sys.modules


@pytest.fixture
def cluster(monkeypatch):
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # or other work on this machine starves the actors for minutes
    for name in ENVIRONMENT.keys() - os.environ.keys() | {"XLA_FLAGS"}:
        monkeypatch.setenv(name, ENVIRONMENT[name])
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "resources": {"TPU": 0}})
    nodes.add_node(num_cpus=1, resources={"chip": 1})
    nodes.add_node(num_cpus=1, resources={"chip": 1})
    ray.init(address=nodes.address, log_to_driver=False)
    yield nodes
    ray.shutdown()
    nodes.shutdown()


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_loses_a_machine(world, tmp_path, whole, cluster):
    import threading

    from ray._private.state import available_resources_per_node

    out = tmp_path / "out"
    lost = []

    def lose_one():
        """One whose chip an actor holds, while there are pieces left."""
        while parts(out) < 1:
            time.sleep(0.01)
        free = available_resources_per_node()
        busy = [node for node in cluster.worker_nodes if not free[node.node_id].get("chip")]
        cluster.remove_node(busy[0], allow_graceful=False)
        lost.append(parts(out))

    thief = threading.Thread(target=lose_one, daemon=True)
    thief.start()
    options = {"batch_size": 1, "workers": 1, "part_images": 4, "engine": "ray", "resources": {"chip": 1.0}}
    done = score_dataset(world / "images", {"m1": str(world / "m1")}, out, **options)
    thief.join()
    assert lost
    assert lost[0] < COUNT / options["part_images"]  # or it was lost too late
    assert done.scored == COUNT
    assert_rows_of(whole, out)
    # A process that is not part of the cluster, by the command: it does what is left.
    next(out.glob("part-*")).unlink()
    call = ["score", str(world / "images"), "--model", str(world / "m1"), "--out", str(out), "--batch-size", "1"]
    call += ["--workers", "1", "--engine", "ray", "--address", cluster.address, "--resource", "chip=1", "--json"]
    command = [sys.executable, "-m", "aedr_jax.cli", *call]
    again = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=True)
    counts = json.loads(again.stdout)  # and nothing of what Ray has to say
    assert (counts["scored"], counts["skipped"]) == (4, COUNT - 4)
    assert_rows_of(whole, out)


@pytest.mark.filterwarnings("ignore")
def test_verdicts_on_a_cluster(world, tmp_path, whole, cluster):
    """From scores, for which no actor loads a model, those of this process."""
    options = {"part_images": 4, "engine": "ray", "resources": {"chip": 1.0}}
    scores = api.Scores(world / "whole")
    assert api.attribute_dataset(scores, tmp_path / "here").scored == COUNT
    assert api.attribute_dataset(scores, tmp_path / "there", **options).scored == COUNT
    assert rows(tmp_path / "there") == rows(tmp_path / "here")
    setup = api.Setup(SignalConfig.tiles(), batch_size=1)
    options |= {"models": {"m1": str(world / "m1")}, "setup": setup, "workers": 1}
    assert api.attribute_dataset(world / "images", tmp_path / "images", **options).scored == COUNT
    verdicts = ([row["verdict"] for row in rows(tmp_path / name)] for name in ("images", "here"))
    assert next(verdicts) == next(verdicts)
    assert api.attribute_dataset(world / "images", tmp_path / "images", **options).skipped == COUNT


def assert_rows_of(whole, out):
    found = rows(out)
    assert [row["id"] for row in found] == [row["id"] for row in whole]
    np.testing.assert_allclose([row["signal"] for row in found], [row["signal"] for row in whole], rtol=1e-5)
