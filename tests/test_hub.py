"""Downloads with huggingface_hub as it is, from a small loopback server that speaks enough of the hub's protocol.

The client runs in processes of its own: huggingface_hub reads where the hub and the cache are when it is imported.
"""

import dataclasses
import hashlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock
from make_tiny import KL, MOVQ, WEIGHTS, make_tensors, with_old_attention
from safetensors.numpy import save

from aedr_jax.autoencoders import hub as hub_module
from aedr_jax.errors import AutoencoderError

ROOT = Path(__file__).resolve().parents[1]
FIRST, SECOND = "a" * 40, "b" * 40
FP16 = WEIGHTS.replace(".safetensors", ".fp16.safetensors")
CONFIG = json.dumps(KL).encode()

DOWNLOAD = """
import json, sys, warnings
from aedr_jax.autoencoders.hub import download
from aedr_jax.errors import AutoencoderError
for arguments in json.loads(sys.argv[1]):
    try:
        with warnings.catch_warnings(record=True) as caught:
            found = download(*arguments)
        said = [f"{warning.category.__name__}: {warning.message}" for warning in caught]
        print(json.dumps(["ok", str(found.parent), found.name, *said]))
    except AutoencoderError as error:
        print(json.dumps(["error", str(error)]))
assert "jax" not in sys.modules
"""

LOAD = """
import json, sys
import aedr_jax
for name in json.loads(sys.argv[1]):
    ae = aedr_jax.load_autoencoder(name)
    print(json.dumps([aedr_jax.weights_hash(ae), getattr(ae, "quantize_on_decode", None)]))
"""


CACHED = """
import json, sys
from aedr_jax.autoencoders.hub import cached
print(json.dumps([cached(*arguments) for arguments in json.loads(sys.argv[1])]))
"""


@dataclasses.dataclass
class Repository:
    """Branches name commits, commits hold files; `error` (status, code) is what every request gets instead."""

    commits: dict[str, dict[str, bytes]]
    branches: dict[str, str] = dataclasses.field(default_factory=lambda: {"main": FIRST})
    error: tuple[int, str] | None = None


class Hub:
    """The server, what it holds, and what it was asked for."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.log: list[str] = []
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                status, headers, body = hub.answer(self.command, self.path)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_GET = do_HEAD  # noqa: N815

            def log_message(self, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, method: str, path: str) -> tuple[int, dict[str, str], bytes]:
        self.log.append(f"{method} {path}")
        organisation, name, resolve, revision, *rest = path.strip("/").split("/")
        assert resolve == "resolve", path
        repository = self.repositories.get(f"{organisation}/{name}")
        if repository is None:
            return 401, {"X-Error-Code": "RepoNotFound"}, b""
        if repository.error:
            return repository.error[0], {"X-Error-Code": repository.error[1]}, b""
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        headers = {"X-Repo-Commit": commit}
        body = repository.commits[commit].get("/".join(rest))
        if body is None:
            return 404, {**headers, "X-Error-Code": "EntryNotFound"}, b""
        return 200, {**headers, "ETag": f'"{hashlib.sha256(body).hexdigest()}"'}, body

    def asked(self) -> list[str]:
        """The requests since this was last called."""
        log, self.log = self.log, []
        return log

    def close(self) -> None:
        if self.thread.is_alive():
            self.server.shutdown()
            self.thread.join()
            self.server.server_close()


@pytest.fixture
def hub():
    hub = Hub()
    yield hub
    hub.close()


def environment(folder, url):
    """Of a client with an empty cache of its own, and nothing from ours that would change what it asks for."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
        "HF_HOME": str(folder / "hf"),
        "HF_ENDPOINT": url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "AEDR_LOCK": str(folder / "lock" / "lock.json"),
        "JAX_PLATFORMS": "cpu",
        "NO_PROXY": "*",
    }


@pytest.fixture(scope="module", autouse=True)
def unreachable(tmp_path_factory):
    """A client whose hub refuses connections, started first: huggingface_hub tries again for twenty seconds."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        command = [sys.executable, "-c", DOWNLOAD, '[["org/name", "vae"]]']
        folder = tmp_path_factory.mktemp("unreachable")
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        with subprocess.Popen(command, env=environment(folder, url), **streams) as process:
            yield process
            process.kill()


@pytest.fixture
def run(hub, tmp_path):
    """Run Python with this hub; gives the lines that it prints, parsed."""

    def run_python(arguments, **extra):
        env = environment(tmp_path, hub.url) | extra
        done = subprocess.run(
            [sys.executable, *arguments], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run_python


@pytest.fixture
def client(run):
    return lambda *steps, **environment: run(["-c", DOWNLOAD, json.dumps(steps)], **environment)


@pytest.fixture
def lock(tmp_path):
    path = tmp_path / "lock" / "lock.json"
    return lambda: json.loads(path.read_text())


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def requests(repository, revision, *files):
    return [f"{method} /{repository}/resolve/{revision}/{file}" for file in files for method in ("HEAD", "GET")]


def test_two_files_of_one_commit_are_fetched_once_and_recorded(hub, client, lock):
    files = {"vae/config.json": CONFIG, f"vae/{WEIGHTS}": b"weights", f"vae/{FP16}": b"half", "vae/README.md": b"no"}
    repository = hub.repositories["org/name"] = Repository({FIRST: {**files, "unet/config.json": b"{}"}})

    ((status, folder, name),) = client(("org/name", "vae"))
    assert (status, name) == ("ok", WEIGHTS)
    assert sorted(path.name for path in Path(folder).iterdir()) == sorted(["config.json", WEIGHTS])
    assert (Path(folder) / WEIGHTS).read_bytes() == b"weights"
    # The weights are asked for at the commit that the config came from, not at a branch that may have moved.
    expected = requests("org/name", "main", "vae/config.json") + requests("org/name", FIRST, f"vae/{WEIGHTS}")
    assert hub.asked() == expected
    recorded = {"config.json": sha256(CONFIG), WEIGHTS: sha256(b"weights")}
    assert lock() == {"org/name/vae@default": {"commit": FIRST, "sha256": recorded}}

    # The branch moves: the recorded commit still counts, and its files are here.
    repository.commits[SECOND] = {"vae/config.json": CONFIG, f"vae/{WEIGHTS}": b"newer"}
    repository.branches["main"] = SECOND
    assert client(("org/name", "vae"), ("org/name", "vae", FIRST)) == [["ok", folder, WEIGHTS]] * 2
    assert hub.asked() == []

    # Nor does a fresh cache follow the branch; a revision that is named does.
    (again, newer) = client(("org/name", "vae"), ("org/name", "vae", "main"), HF_HOME=f"{folder}-fresh")
    assert again[0] == newer[0] == "ok"
    assert Path(again[1]).parent.name == FIRST
    assert Path(newer[1]).parent.name == SECOND
    assert hub.asked()[:2] == requests("org/name", FIRST, "vae/config.json")
    assert lock()["org/name/vae@main"]["commit"] == SECOND
    assert lock()["org/name/vae@default"]["commit"] == FIRST

    # Other content under the recorded commit is refused, from whatever cache.
    repository.commits[FIRST][f"vae/{WEIGHTS}"] = b"forged!"
    ((status, message),) = client(("org/name", "vae"), HF_HOME=f"{folder}-third")
    assert status == "error"
    assert "org/name/vae: the files are not those that were recorded" in message
    assert sha256(b"forged!") in message

    # Without the hub.
    hub.close()
    assert client(("org/name", "vae")) == [["ok", folder, WEIGHTS]]
    assert client(("org/name", "vae"), HF_HUB_OFFLINE="1") == [["ok", folder, WEIGHTS]]

    # A cached file that was changed afterwards.
    (Path(folder) / WEIGHTS).resolve().write_bytes(b"altered")
    ((status, message),) = client(("org/name", "vae"))
    assert status == "error"
    assert sha256(b"weights") in message
    assert sha256(b"altered") in message


def test_half_precision_where_there_is_no_other(hub, client, lock):
    hub.repositories["org/half"] = Repository({FIRST: {"config.json": CONFIG, FP16: b"half"}})
    ((status, folder, name),) = client(("org/half", ""))
    assert (status, name) == ("ok", FP16)
    assert Path(folder).name == FIRST
    assert lock()["org/half@default"]["sha256"] == {"config.json": sha256(CONFIG), FP16: sha256(b"half")}
    hub.close()
    assert client(("org/half", ""), HF_HUB_OFFLINE="1") == [["ok", folder, FP16]]


def test_a_snapshot_that_another_program_cached(hub, client, tmp_path):
    """diffusers with variant="fp16" leaves the config and one file: without the hub they are found, and said to be
    another choice; nothing is recorded, since the float32 file may well exist."""
    hub.repositories["org/name"] = Repository({FIRST: {"vae/config.json": CONFIG, f"vae/{FP16}": b"half"}})
    ((_, folder, name),) = client(("org/name", "vae"))
    (tmp_path / "lock" / "lock.json").unlink()
    hub.repositories["org/name"].commits[FIRST][f"vae/{WEIGHTS}"] = b"whole"
    marker = next((tmp_path / "hf").glob("hub/*/.no_exist"))
    marker.rename(tmp_path / "gone")  # that program did not ask for the other files
    ((status, again, found, warning),) = client(("org/name", "vae"), HF_HUB_OFFLINE="1")
    assert (status, again, found) == ("ok", folder, name) == ("ok", folder, FP16)
    assert warning.startswith(f"CheckpointWarning: org/name/vae: the hub cannot be reached; loaded {FP16}")
    assert not (tmp_path / "lock" / "lock.json").exists()
    ((_, _, found),) = client(("org/name", "vae"))  # with it
    assert found == WEIGHTS


def test_other_variants_are_found(hub, client, lock):
    names = {variant: WEIGHTS.replace(".safetensors", f".{variant}.safetensors") for variant in ("non_ema", "bf16")}
    for variant, name in names.items():
        hub.repositories[f"org/{variant}"] = Repository({FIRST: {"vae/config.json": CONFIG, f"vae/{name}": b"weights"}})
    found = client(*((f"org/{variant}", "vae") for variant in names))
    assert [(status, name) for status, _, name in found] == [("ok", name) for name in names.values()]
    for variant, name in names.items():
        assert sorted(lock()[f"org/{variant}/vae@default"]["sha256"]) == sorted(["config.json", name])


def test_shards_are_fetched_recorded_and_enforced(hub, client, run, lock):
    index = f"{WEIGHTS}.index.json"
    tensors = make_tensors(KL)
    shards = [f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    halves = [dict(sorted(tensors.items())[i::2]) for i in range(2)]
    mapping = {key: name for name, half in zip(shards, halves, strict=True) for key in half}
    files = {"config.json": CONFIG, index: json.dumps({"weight_map": mapping}).encode()}
    files |= {name: save(half) for name, half in zip(shards, halves, strict=True)}
    here = {f"vae/{name}": body for name, body in files.items()}
    hub.repositories["org/name"] = Repository({FIRST: {**here, f"vae/{WEIGHTS[:-12]}-unused.safetensors": b"no"}})

    ((status, folder, name),) = client(("org/name", "vae"))
    assert (status, name) == ("ok", index)
    assert sorted(path.name for path in Path(folder).iterdir()) == sorted(files)
    assert lock()["org/name/vae@default"]["sha256"] == {name: sha256(body) for name, body in files.items()}
    hub.repositories["org/root"] = Repository({FIRST: {"config.json": CONFIG, WEIGHTS: save(tensors)}})
    sharded, whole = run(["-c", LOAD, '["org/name/vae", "org/root"]'])
    assert sharded == whole
    assert whole[1] is None

    (Path(folder) / shards[1]).resolve().write_bytes(b"altered")
    ((status, message),) = client(("org/name", "vae"))
    assert status == "error"
    assert sha256(b"altered") in message

    wrong = {"config.json": CONFIG, index: json.dumps({"weight_map": {"a": "../../secret.safetensors"}}).encode()}
    hub.repositories["org/escaping"] = Repository({FIRST: wrong})
    hub.repositories["org/lacking"] = Repository(
        {FIRST: {name: files[name] for name in ("config.json", index, shards[0])}}
    )
    hub.asked()
    (_, escaping), (_, lacking) = client(("org/escaping", ""), ("org/lacking", ""))
    assert "no safetensors file beside the index" in escaping
    assert not [line for line in hub.asked() if "secret" in line]
    assert f"the repository holds no {shards[1]}" in lacking


def test_what_cannot_be_downloaded_is_explained(hub, client, tmp_path):
    pickled = {"vae/config.json": CONFIG, "vae/diffusion_pytorch_model.bin": b"\x80\x04.", "vae/model.ckpt": b"\x80"}
    hub.repositories["org/pickled"] = Repository({FIRST: pickled})
    whole = {"config.json": b'{"architectures": ["Emu3ForConditionalGeneration"]}', "model.safetensors": b""}
    hub.repositories["org/whole"] = Repository({FIRST: {f"vqmodel/{name}": data for name, data in whole.items()}})
    hub.repositories["org/gated"] = Repository({}, error=(401, "GatedRepo"))
    hub.repositories["org/forbidden"] = Repository({}, error=(403, "GatedRepo"))
    hub.repositories["org/disabled"] = Repository({}, error=(403, ""))
    cases = {
        ("org/pickled", "vae"): "aedr convert --pickle FOLDER FOLDER",
        ("org/whole", "vqmodel"): "a model of transformers, of which nothing is downloaded here. Save its tokenizer",
        ("org/pickled", "unet"): "holds no config.json; is the subfolder right?",
        ("org/pickled", "vae", "v9"): "the download failed",
        ("org/gated", "vae"): "Accept its licence on its hub page",
        ("org/forbidden", "vae"): "Accept its licence on its hub page",
        ("org/disabled", "vae"): "org/disabled/vae: ",
        ("org/nothing", "vae"): "no such repository",
        ("org/bad name", "vae"): "the download failed",
        ("org/" + "x" * 200, "vae"): "the download failed",
    }
    for (arguments, expected), (status, message) in zip(cases.items(), client(*cases), strict=True):
        assert status == "error"
        assert message.startswith(f"{arguments[0]}/{arguments[1]}: ")
        assert expected in message
    log = hub.asked()
    assert f"HEAD /org/pickled/resolve/{FIRST}/vae/{FP16}" in log
    assert not [line for line in log if ".bin" in line or ".ckpt" in line]
    assert not (tmp_path / "lock").exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"org/name/vae@default": 3}', '{"org/name/vae@default": {}}'])
def test_damaged_lock_file_is_named(hub, client, tmp_path, content):
    hub.repositories["org/name"] = Repository({FIRST: {"vae/config.json": CONFIG, f"vae/{WEIGHTS}": b"weights"}})
    path = tmp_path / "damaged.json"
    path.write_text(content)
    ((status, message),) = client(("org/name", "vae"), AEDR_LOCK=str(path))
    assert status == "error"
    assert message.startswith(f"{path}: ")
    assert "repair or delete it" in message
    assert path.read_text() == content


@pytest.mark.parametrize("trouble", ["a folder", "below a file", "no text"])
def test_lock_file_that_cannot_be_used_is_named_with_a_remedy(hub, client, tmp_path, trouble):
    hub.repositories["org/name"] = Repository({FIRST: {"vae/config.json": CONFIG, f"vae/{WEIGHTS}": b"weights"}})
    path = tmp_path / "trouble" / "lock.json"
    if trouble == "a folder":
        path.mkdir(parents=True)
    elif trouble == "below a file":
        path.parent.write_text("")
    else:
        path.parent.mkdir()
        path.write_bytes(b"\xff\xfe{}")
    ((status, message),) = client(("org/name", "vae"), AEDR_LOCK=str(path))
    assert status == "error"
    assert message.startswith(f"{path}: ")
    assert "repair or delete it" in message if trouble == "no text" else "AEDR_LOCK" in message


def test_processes_that_record_at_once_lose_nothing(tmp_path):
    """Threads with locks of their own stand for processes: each reads, adds its entry, and writes."""
    path, entry = tmp_path / "new" / "lock.json", {"commit": FIRST, "sha256": {"config.json": "0"}}
    keys = [f"org/{i}@default" for i in range(24)]
    with ThreadPoolExecutor(len(keys)) as pool:
        list(pool.map(lambda key: hub_module.record(path, key, entry), keys))
    assert sorted(json.loads(path.read_text())) == sorted(keys)
    second = {"commit": SECOND, "sha256": {}}
    assert hub_module.record(path, keys[0], second) == entry  # whoever came first
    assert json.loads(path.read_text())[keys[0]] == entry


def test_lock_held_by_another_process_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(hub_module, "LOCK_SECONDS", 0.1)
    with FileLock(tmp_path / "lock.json.lock"), pytest.raises(AutoencoderError, match=r"lock\.json\.lock: held by"):
        hub_module.record(tmp_path / "lock.json", "org/a@default", {"commit": FIRST, "sha256": {}})


def test_converted_download_keeps_how_the_model_generates(hub, run, tmp_path):
    """`aedr convert kandinsky2.1`, then by folder and by name without a hub."""
    tensors = with_old_attention(make_tensors(MOVQ))
    files = {"movq/config.json": json.dumps(MOVQ).encode(), f"movq/{WEIGHTS}": save(tensors)}
    hub.repositories["kandinsky-community/kandinsky-2-1"] = Repository({FIRST: files})
    hub.repositories["org/root"] = Repository({FIRST: {"config.json": CONFIG, WEIGHTS: save(make_tensors(KL))}})
    out, root = tmp_path / "weights" / "kandinsky2.1", tmp_path / "weights" / "root"
    convert = "import json, sys; from aedr_jax.autoencoders.loading import convert\n" + (
        "for pair in json.loads(sys.argv[1]): print(json.dumps(convert(*pair)))"
    )
    pairs = [("kandinsky2.1", str(out)), ("org/root", str(root))]
    manifest, of_root = run(["-c", convert, json.dumps(pairs)])
    assert manifest["source"] == "kandinsky2.1"
    assert manifest["source_file"] == WEIGHTS
    assert manifest["source_sha256"] == sha256(files[f"movq/{WEIGHTS}"])
    assert manifest["source_commit"] == of_root["source_commit"] == FIRST
    assert manifest["quantize"] is False

    hub.close()
    names = ["kandinsky2.1", str(out), str(root)]
    by_name, by_folder, loaded_root = run(["-c", LOAD, json.dumps(names)], AEDR_WEIGHTS=str(out.parent))
    assert by_name == by_folder == [manifest["weights_hash"], False]
    assert loaded_root == [of_root["weights_hash"], None]


def test_no_network_and_nothing_cached(unreachable, client):
    (offline,) = client(("org/name", "vae"), HF_HUB_OFFLINE="1")
    output, _ = unreachable.communicate(timeout=120)
    for status, message in (offline, json.loads(output)):
        assert status == "error"
        assert "org/name/vae: not in the local cache, and the hub cannot be reached" in message


def test_what_was_downloaded_is_known_without_asking(hub, client, run):
    hub.repositories["org/name"] = Repository({FIRST: {"vae/config.json": CONFIG, f"vae/{WEIGHTS}": b"weights"}})
    asked = ["-c", CACHED, json.dumps([["org/name", "vae"], ["org/name", ""], ["org/other", "vae"]])]
    assert run(asked) == [[False, False, False]]
    ((_, folder, name),) = client(("org/name", "vae"))
    hub.asked()
    assert run(asked) == [[True, False, False]]
    (Path(folder) / name).unlink()
    assert run(asked) == [[False, False, False]]
    assert hub.asked() == []
