"""The blocks of README and docs run, page by page, each page in a folder of its own that starts with what ships.

`run`: as it stands. `needs a hub`, `needs a GPU`: on stand-ins, from which follows that the commands go together and
end well, and nothing about real models: a loopback server that speaks the hub's protocol and holds tiny random
autoencoders under the real names, and for `aedr generate` of a real model a tiny random pipeline, six images of a step.
"""

import json
import os
import re
import subprocess
import sys

import pytest
from make_tiny import SMALLEST, WEIGHTS, make_tensors
from pages import ALL, PAGES, ROOT, RUN
from safetensors.numpy import save
from test_hub import FIRST, Hub, Repository, environment

from aedr_jax.autoencoders.registry import REGISTRY

from .tiny_pipelines import PIPELINES
from .tiny_pipelines import save as save_pipeline

NAMED = {name for name in ("sd1.5", "sdxl", "flux") if any(name in block.text for block in ALL if block.marker in RUN)}
PRELUDE = """
python() { "$PYTHON" "$@"; }
aedr() {
    if [ "$1" = generate ] && [[ " $* " != *" mini-"* ]]; then set -- "$@" $STAND_IN; fi
    python -m aedr_jax.cli "$@"
}
"""


@pytest.fixture(scope="module")
def hub():
    hub = Hub()
    for seed, name in enumerate(sorted(NAMED)):
        entry = REGISTRY[name]
        config = {**SMALLEST, "latent_channels": entry.latent_channels}
        files = {"config.json": json.dumps(config).encode(), WEIGHTS: save(make_tensors(config, seed=seed))}
        folder = {f"{entry.subfolder}/{file}": data for file, data in files.items()}
        hub.repositories[entry.repository] = Repository({FIRST: folder})
    yield hub
    hub.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Of all pages: what is compiled for one is there for the next."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline") / "sd1.5"
    save_pipeline(PIPELINES["sd1.5"][0], folder)
    return folder


def pattern(line):
    """What is shown of a run, with any figures and hashes."""
    return "^" + re.sub(r"\b\d[0-9a-f]*\b(?=[ ;])", "[0-9a-f]+", re.escape(line).replace("\\ ", " ")) + "$"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(b.page == page and b.marker in RUN for b in ALL)], ids=str
)
def test_blocks_run(page, hub, home, pipeline, tmp_path):
    for name in ("examples", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    stand_in = f"--pipeline {pipeline} --size 96 --steps 1 -n 6 --device cpu"
    env = environment(home, hub.url) | {"PYTHON": sys.executable, "STAND_IN": stand_in}
    env |= {"PYTHONPATH": os.pathsep.join(paths), "AEDR_LOCK": str(tmp_path / "lock.json")}
    printed = ""
    for block in (block for block in ALL if block.page == page):
        if block.marker == "shows":
            for line in block.text.splitlines():
                assert re.search(pattern(line), printed, re.MULTILINE), f"{block.where}\n{line}\n{printed}"
        if block.marker not in RUN:
            continue
        shell = ["bash", "-euo", "pipefail", "-c", PRELUDE + block.text]
        command = shell if block.language == "sh" else [sys.executable, "-W", "error", "-c", block.text]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{block.where}\n{done.stdout}\n{done.stderr}"
        printed += done.stdout


def test_the_stand_ins_are_asked_for_what_the_pages_name():
    """A name in a page without a stand-in would be asked for over the network."""
    asked = {name for block in ALL if block.marker in RUN for name in re.findall(r"[\w.-]+", block.text)}
    assert asked & {name for name, entry in REGISTRY.items() if entry.repository} == NAMED
