"""What a model is called, wherever it lies and however it was given."""

import itertools
import json
import os
from pathlib import Path

import pytest
from make_tiny import KL, make_tensors, write_folder

from aedr_jax.autoencoders import loading, names, registry
from aedr_jax.autoencoders.names import locate, match_models, models_here, name_models, split_list
from aedr_jax.autoencoders.registry import REGISTRY
from aedr_jax.errors import AutoencoderError, GenerationError
from aedr_jax.generate.pipelines import choose_settings
from aedr_jax.scoring.scorer import load_candidate


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with some models' folders in it."""
    for folder in ("a/vae", "b/vae", "x/sdxl/vae", "y/sdxl/vae", "plain", "sd1.5", "key=value/vae"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["sd1.5", "mini-vq"], ["sd1.5", "mini-vq"]),
        (["plain"], ["plain"]),
        (["a/vae"], ["a/vae"]),
        (["a/vae", "b/vae"], ["a/vae", "b/vae"]),
        (["x/sdxl/vae", "y/sdxl/vae", "a/vae"], ["x/sdxl/vae", "y/sdxl/vae", "a/vae"]),
        (["x/sdxl/vae"], ["sdxl/vae"]),
        (["org/repo/vae", "org/other"], ["org/repo/vae", "org/other"]),
        (["sd1.5", "./sd1.5"], ["sd1.5", "here/sd1.5"]),
        (["./sd1.5"], ["sd1.5"]),
        (["mine=a/vae", "b/vae"], ["mine", "b/vae"]),
        (["sdxl/vae=org/repo/vae"], None),
        (["mine=org/repo/vae", "org/repo/vae"], ["mine", "org/repo/vae"]),
        (["one=plain", "two=plain"], ["one", "two"]),  # one network twice, on purpose
        (["key=value/vae"], ["key=value/vae"]),  # a path that is there
        (["plain/"], ["plain"]),
    ],
)
def test_names(here, given, names):
    if names is None:
        with pytest.raises(AutoencoderError):
            name_models(given)
        return
    names = [name.replace("here", here.name) for name in names]
    found = name_models(given)
    assert list(found) == names
    assert all(source in REGISTRY or source.startswith("org/") or os.path.isabs(source) for source in found.values())


def test_names_are_unique_whatever_is_given_together(here):
    for folder in ("x/vae", "x/y/vae", "y/vae", "y/x/vae", "vae/vae"):
        (here / folder).mkdir(parents=True, exist_ok=True)
    given = ["x/vae", "x/y/vae", "y/vae", "y/x/vae", "vae/vae", "plain", "./sd1.5", "sd1.5", "x/vae/../../y", "org/y"]
    sources = {model: locate(model).source for model in given}
    for several in itertools.chain.from_iterable(itertools.permutations(given, n) for n in (1, 2, 3)):
        found = name_models(several)
        assert list(found.values()) == [sources[model] for model in several]  # one name each
        for name, source in found.items():
            assert source == name or source.endswith(f"/{name}")
    assert name_models([]) == {}


def test_the_folder_one_is_in_has_a_name(here, monkeypatch):
    monkeypatch.chdir(here / "a" / "vae")
    assert name_models(["."]) == {"a/vae": str(here / "a" / "vae")}
    assert name_models(["../../plain", "../../b/vae"]) == {"plain": str(here / "plain"), "b/vae": str(here / "b/vae")}
    monkeypatch.setenv("HOME", str(here))
    assert name_models(["~/plain"]) == {"plain": str(here / "plain")}


def test_a_link_keeps_the_name_that_the_user_sees(here):
    (here / "latest").symlink_to(here / "plain")
    assert list(name_models(["latest"])) == ["latest"]


def test_a_file_is_named_after_its_folder(here):
    for name in ("model.safetensors", "model.fp16.safetensors"):
        (here / "plain" / name).write_bytes(b"")
    given = ["plain/model.safetensors", "plain/model.fp16.safetensors"]
    assert list(name_models(given)) == given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["plain", "./plain"], "two models of one name: .*plain is given twice"),
        (["sd1.5", "sd1.5"], "two models of one name: sd1.5 is given twice"),
        (["m=plain", "m=a/vae"], "two models of one name: m"),
        (["plain=a/vae", "plain"], None),  # the folder takes a longer name
        (["=plain"], "expected NAME=SOURCE"),
        (["m="], "expected NAME=SOURCE"),
        (["a,b=plain"], "cannot be a model's name"),
        (["a|b=plain"], "cannot be a model's name"),
        (["a\x1b[31m=plain"], "cannot be a model's name"),
        (["none=plain"], "'none' is what a verdict says.*choose one: NAME="),
        (["Error=plain"], "is what a verdict says"),
        (["not assessable=plain"], "is what a verdict says"),
        (["ambiguous: a=plain"], "is what a verdict says"),
        (["all-here=plain"], "is what a verdict says"),
    ],
)
def test_names_that_would_be_mistaken(here, given, message):
    if message is None:
        assert list(name_models(given)) == ["plain", f"{here.name}/plain"]
        return
    with pytest.raises(AutoencoderError, match=message):
        name_models(given)


def test_a_folder_called_like_a_verdict(here):
    (here / "none").mkdir()
    with pytest.raises(AutoencoderError, match="choose one: NAME="):
        name_models(["none"])
    assert list(name_models(["nobody=none", "nonesuch=plain"])) == ["nobody", "nonesuch"]


@pytest.fixture
def few_here(here, monkeypatch):
    """Two models of the registry with weights, a folder beside them that is none of its, and one without a config."""
    for folder in ("sd1.5", "sdxl", "tuned", "empty"):
        (here / "weights" / folder).mkdir(parents=True)
        if folder != "empty":
            (here / "weights" / folder / "config.json").write_text("{}")
    monkeypatch.setattr(registry, "weight_roots", lambda: [here / "weights", here / "other"])
    monkeypatch.setattr(names, "cached", lambda repository, subfolder, revision: repository == "fal/AuraFlow")
    return here / "weights"


def test_all_here(few_here):
    tuned = str(few_here / "tuned")
    assert models_here() == ["sd1.5", "sdxl", "auraflow", tuned]
    everything = {"sd1.5": "sd1.5", "sdxl": "sdxl", "auraflow": "auraflow", "tuned": tuned}
    assert name_models(["all-here"]) == everything
    assert name_models(["sdxl", "mine=plain", "all-here"]).keys() == {"mine", *everything}  # given once, not twice
    known = {"sdxl": "sdxl", "flux": "flux", "tuned": tuned}
    assert match_models(["all-here"], known) == {"sdxl": None}
    assert match_models(["flux", "all-here"], known) == {"flux": None, "sdxl": None}


def test_a_folder_whose_name_would_be_mistaken(here):
    (here / "a, b|c").mkdir()
    with pytest.raises(AutoencoderError, match="choose one: NAME="):
        name_models(["a, b|c"])
    assert list(name_models(["abc=a, b|c"])) == ["abc"]


@pytest.mark.parametrize(
    "name",
    [
        "./nothing",
        "../nothing",
        "~/nothing/vae",
        "/nowhere/at/all",
        "plain\\vae",
        "C:\\models\\vae",
        "a/vea",  # a/ is here
        "org/name/",
        "~nobody-of-that-name/vae",
        "/" + "x" * 300,
        "org/name/model.safetensors",
        "vae.ckpt",
        "data/models/sd/v1-5/vae",
        "a/../b/vea",
        Path("org/name"),
    ],
    ids=str,
)
def test_a_mistyped_local_path_is_never_sought_on_the_hub(here, name, monkeypatch):
    monkeypatch.setattr(loading, "download", lambda *_: pytest.fail("asked the hub"))
    with pytest.raises(AutoencoderError, match="no such f"):
        loading.load_autoencoder(name)


def test_a_mistyped_path_says_how_far_it_is_right(here):
    with pytest.raises(AutoencoderError, match=rf"no such folder \({here} is there, and in it plain\)"):
        locate(str(here / "plian" / "vae"))
    with pytest.raises(AutoencoderError, match=r"did you mean mini-vq\?"):
        locate("mini-qv")


def test_hub_paths_are_those_that_the_hub_can_have(here):
    for name in ("org/name", "org/name/vae", "org/name/a/b", "Org-1/na.me_2/vae_1_0"):
        assert locate(name) == ("hub", name)
    for name in ("org", "org//name", "org/na me", "org/-name", "org/.hidden", "https://huggingface.co/org/name"):
        with pytest.raises(AutoencoderError):
            locate(name)


def test_a_mistyped_pipeline_is_never_sought_on_the_hub(here):
    for name in ("a/vea", "plain\\vae", "./nothing"):
        with pytest.raises(GenerationError, match="no such folder"):
            choose_settings("sd1.5", pipeline=name)


def test_comma_lists():
    assert split_list("A, B ,C") == ["A", "B", "C"]
    assert split_list(" A,,") == ["A"]
    assert split_list(" , ") == []


def test_which_calibrations_are_meant(here):
    known = {"plain": None, "mine": str(here / "b" / "vae"), "org/repo/vae": "org/repo/vae", "hubs": "org/x"}
    found = match_models(["mine", "plain=a/vae", "org/repo/vae"], known)
    assert found == {"mine": None, "plain": str(here / "a" / "vae"), "org/repo/vae": None}
    assert match_models(["./plain"], known) == {"plain": str(here / "plain")}
    assert match_models(["b/vae", "org/x"], known) == {"mine": str(here / "b" / "vae"), "hubs": "org/x"}
    for wanted, message in (
        (["a/vae"], "no calibration of a/vae"),
        (["other"], r"no calibration of other \(there are: plain, mine, org/repo/vae, hubs\)"),
        (["mine=./nothing"], "no such folder"),
        (["mine", "mine=plain"], "mine: given twice"),
    ):
        with pytest.raises(AutoencoderError, match=message):
            match_models(wanted, known)


def test_rows_get_the_name_and_the_source_is_loaded(here, monkeypatch):
    write_folder(here / "a" / "vae", KL, make_tensors(KL))
    by_default, chosen = load_candidate("a/vae"), load_candidate("mine=a/vae")
    assert (by_default.name, chosen.name) == ("a/vae", "mine")
    assert load_candidate("a/vae", name="x").name == "x"
    assert by_default.weights_hash == chosen.weights_hash
    monkeypatch.setattr(loading, "download", lambda *_: here / "a" / "vae" / "diffusion_pytorch_model.safetensors")
    assert load_candidate("org/repo/vae").name == "org/repo/vae"
    manifest = {"quantize": None, "source": "elsewhere"}
    (here / "a" / "vae" / "manifest.json").write_text(json.dumps(manifest))
    assert loading.resolve("a/vae").origin == str(here / "a" / "vae")
