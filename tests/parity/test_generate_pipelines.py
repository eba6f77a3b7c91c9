"""`aedr generate` with the real diffusers pipelines, tiny and random.

Reference: the pipeline itself, called as diffusers' own examples call it, and the same command in other batches. The
tolerance is 2 of 255 levels in float32: a batch changes the order of sums (1e-6 of a value near 1), guidance 7.5 and a
random decoder enlarge that, and rounding to 8 bits makes a level of it. What is computed in the same batch is equal.
"""

import json

import diffusers
import numpy as np
import pytest
import torch
from huggingface_hub.errors import GatedRepoError
from PIL import Image
from safetensors.torch import load_file

from aedr_jax.cli.main import main
from aedr_jax.generate.recipes import RECIPES

from . import tiny_pipelines, tiny_pipelines_more, tiny_pipelines_today
from .tiny_pipelines import kandinsky_decoder, kandinsky_prior, save, stable_diffusion

PIPELINES = tiny_pipelines.PIPELINES | tiny_pipelines_today.PIPELINES | tiny_pipelines_more.PIPELINES

LEVELS = 2
PROMPTS = ["a cat", "two dogs in the snow", "3"]

# diffusers' own, in the pipelines that it keeps as they are.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("pipelines")
    (root / "prompts.txt").write_text("\n".join(f"{i}: {prompt}" for i, prompt in enumerate(PROMPTS)))
    for model, (pipeline_of, _) in PIPELINES.items():
        save(pipeline_of, root / model)
    return root


@pytest.fixture
def call(folders):
    def run(model, out, *more, pipeline=None, size=None):
        options = ["--pipeline", pipeline or folders / model, "--size", size or PIPELINES[model][1]]
        options += ["--prompts", folders / "prompts.txt", "--out", out, "--steps", 2]
        return main(["generate", "--model", model, *map(str, [*options, *more])])

    return run


def images(folder):
    found = []
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as file:
            assert file.mode == "RGB"
            found.append(np.asarray(file))
    return np.stack(found).astype(int)


def record(folder):
    return json.loads((folder / "generated.json").read_text())


def apart(a, b):
    return np.abs(a - b).max()


def test_every_class_is_here():
    assert {RECIPES[model].pipeline for model in PIPELINES} == {recipe.pipeline for recipe in RECIPES.values()}


@pytest.mark.parametrize("model", PIPELINES)
def test_images_depend_on_their_seed_and_prompt_alone(model, call, folders, tmp_path):
    side = PIPELINES[model][1]
    plain = ["--dtype", "float32", "--seed", 7]
    assert call(model, tmp_path / "batch", *plain, "-n", 4, "--batch-size", 4) == 0
    assert call(model, tmp_path / "alone", *plain, "-n", 4) == 0
    assert call(model, tmp_path / "parts", *plain, "-n", 1) == 0
    assert call(model, tmp_path / "parts", *plain, "-n", 4, "--batch-size", 2) == 0
    batch = images(tmp_path / "batch")
    assert batch.shape == (4, side, side, 3)
    assert apart(batch, images(tmp_path / "alone")) <= LEVELS
    assert apart(batch, images(tmp_path / "parts")) <= LEVELS
    for i, j in ((0, 1), (0, 3), (1, 2)):  # 0 and 3 share a prompt
        assert apart(batch[i], batch[j]) > 20
    assert batch.std() > 20

    kept = record(tmp_path / "parts")
    (versions,) = kept.pop("versions")
    assert versions["diffusers"] == diffusers.__version__
    assert versions["torch"] == torch.__version__
    assert kept == {
        "model": model,
        "pipeline": RECIPES[model].pipeline,
        "source": str(folders / model),
        "revision": None,
        "prior": None,
        "prior_revision": None,
        "size": side,
        "first_seed": 7,
        "steps": 2,
        "guidance": RECIPES[model].guidance,
        "dtype": "float32",
        "noise": "cpu",
    }
    with Image.open(tmp_path / "parts" / "00003.png") as file:
        assert file.info == {"seed": "10", "prompt": "a cat"}


@pytest.mark.parametrize("model", [model for model in PIPELINES if model != "vqdm"])
def test_images_are_those_of_the_pipeline(model, call, folders, tmp_path):
    side = PIPELINES[model][1]
    pipe = getattr(diffusers, RECIPES[model].pipeline).from_pretrained(folders / model, **RECIPES[model].options)
    guidance = {"true_cfg_scale": 4.5, "negative_prompt": " "} if model == "qwen-image" else {"guidance_scale": 4.5}
    unbinned = {"use_resolution_binning": False}
    special = {
        "wan2.1": {"num_frames": 1, "output_type": "pil"},
        "sana-1.1": unbinned,
        "hunyuandit": unbinned,
        "pixart-sigma": {**unbinned, "clean_caption": False},
    }
    made = pipe(
        prompt=PROMPTS[1],
        generator=torch.Generator("cpu").manual_seed(1),
        num_inference_steps=2,
        height=side,
        width=side,
        **guidance,
        **special.get(model, {}),
    )
    expected = made.frames[0][0] if model == "wan2.1" else made.images[0]
    assert call(model, tmp_path / "out", "--dtype", "float32", "--guidance", 4.5) == 0
    np.testing.assert_array_equal(images(tmp_path / "out")[1], np.asarray(expected))


@pytest.mark.parametrize("model", PIPELINES)
def test_the_authors_dtype_runs(model, call, tmp_path):
    assert call(model, tmp_path / "out", "-n", 1) == 0
    assert record(tmp_path / "out")["dtype"] == ("bfloat16" if model in ("sd3.5", "flux") else "float32")


@pytest.mark.parametrize("model", PIPELINES)
def test_guidance_and_steps_reach_the_pipeline(model, call, tmp_path):
    assert call(model, tmp_path / "a", "-n", 1) == 0
    assert call(model, tmp_path / "b", "-n", 1, "--guidance", 2) == 0
    assert call(model, tmp_path / "c", "-n", 1, "--steps", 4) == 0
    a, b, c = (images(tmp_path / name) for name in "abc")
    assert apart(a, b) > 0
    assert apart(a, c) > 0


def test_no_safety_checker_is_loaded(call, folders, tmp_path):
    """The index names a checker; had it been asked for, its missing folder would be an error."""
    folder = save(stable_diffusion, tmp_path / "pipeline")
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (folder / "model_index.json").write_text(json.dumps(index))
    assert call("sd1.5", tmp_path / "out", pipeline=folder) == 0
    assert call("sd1.5", tmp_path / "plain") == 0
    assert apart(images(tmp_path / "out"), images(tmp_path / "plain")) == 0


def test_no_watermark_whatever_is_installed(call, monkeypatch, tmp_path):
    from diffusers.pipelines.stable_diffusion_xl import pipeline_stable_diffusion_xl as module

    monkeypatch.setattr(module, "is_invisible_watermark_available", lambda: True)
    monkeypatch.setattr(module, "StableDiffusionXLWatermarker", None, raising=False)  # would fail if it were called
    assert call("sdxl", tmp_path / "out", "-n", 1) == 0


def pickle_weights(folder, *names):
    """The .bin files of an old repository in place of its safetensors."""
    for name in names:
        for path in (folder / name).glob("*.safetensors"):
            old = "pytorch_model.bin" if path.name == "model.safetensors" else "diffusion_pytorch_model.bin"
            torch.save(load_file(path), path.with_name(old))
            path.unlink()


@pytest.mark.parametrize("model", ["sd1.5", "vqdm"])
def test_pickles_are_refused_and_the_remedy_works(model, call, folders, tmp_path, capsys):
    from transformers import CLIPTextModel

    folder = tmp_path / "pipeline"
    save(PIPELINES[model][0], folder)
    networks = {
        "sd1.5": ["unet", "vae"],
        "vqdm": ["vqvae", "transformer", "learned_classifier_free_sampling_embeddings"],
    }
    pickle_weights(folder, "text_encoder", *networks[model])
    assert call(model, tmp_path / "out", pipeline=folder) == 2
    error = capsys.readouterr().err
    assert "Pickled ones are never loaded" in error
    assert "aedr convert --pickle FOLDER/NAME/diffusion_pytorch_model.bin FOLDER/NAME" in error
    assert not (tmp_path / "out" / "generated.json").exists()
    for name in networks[model]:
        network = folder / name
        assert main(["convert", "--pickle", str(network / "diffusion_pytorch_model.bin"), str(network)]) == 0
    CLIPTextModel.from_pretrained(folder / "text_encoder").save_pretrained(folder / "text_encoder")
    assert call(model, tmp_path / "out", pipeline=folder) == 0
    assert call(model, tmp_path / "plain") == 0
    assert apart(images(tmp_path / "out"), images(tmp_path / "plain")) == 0


def test_a_damaged_file_is_not_called_pickled(call, tmp_path, capsys):
    folder = save(stable_diffusion, tmp_path / "pipeline")
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"torn")
    assert call("sd1.5", tmp_path / "out", pipeline=folder) == 2
    error = capsys.readouterr().err
    assert "cannot be loaded" in error
    assert "Pickled" not in error


def test_code_in_a_folder_is_not_run(call, tmp_path, capsys):
    folder = save(stable_diffusion, tmp_path / "pipeline")
    index = json.loads((folder / "model_index.json").read_text())
    index["unet"] = ["mine", "Unet"]
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "unet" / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert call("sd1.5", tmp_path / "out", pipeline=folder) == 2
    assert "cannot be loaded" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("model", "pipeline", "more", "message"),
    [
        ("sdxl", "sd1.5", [], "holds a StableDiffusionPipeline; sdxl is made by StableDiffusionXLPipeline"),
        ("kandinsky2.1", "sd1.5", ["--size", 64], "holds a StableDiffusionPipeline; kandinsky2.1 is made by"),
        ("sd1.5", "sd1.5/vae", [], "no diffusers pipeline"),
        ("sd1.5", "sd1.5", ["--device", "cuda:9"], "device cuda:9"),
        ("sd1.5", "sd1.5", ["--device", "abacus"], "device abacus"),
        ("vqdm", "vqdm", ["--size", 32], "makes 16×16 images, asked for 32"),
    ],
)
def test_wrong_pipelines(model, pipeline, more, message, call, folders, tmp_path, capsys):
    assert call(model, tmp_path / "out", *more, pipeline=folders / pipeline) == 2
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())  # nor a record that would hinder the next try


def test_what_is_not_a_number_is_refused(call, folders, monkeypatch, tmp_path, capsys):
    folder = save(stable_diffusion, tmp_path / "pipeline")
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    torch.nn.init.constant_(pipe.vae.decoder.conv_out.bias, float("nan"))
    pipe.save_pretrained(folder)
    assert call("sd1.5", tmp_path / "out", pipeline=folder) == 2
    assert "not a number" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_the_hub_gives_a_commit_and_kandinskys_prior(call, monkeypatch, tmp_path):
    """The two halves from repositories of their own, as on the hub, make what the combined pipeline makes."""
    halves = {"org/decoder": (kandinsky_decoder, "d" * 40), RECIPES["kandinsky2.1"].prior: (kandinsky_prior, "p" * 40)}
    torch.manual_seed(0)
    built = {name: pipeline_of() for name, (pipeline_of, _) in halves.items()}
    asked = []
    for name, (_, commit) in halves.items():
        built[name].save_pretrained(tmp_path / "hub" / name / "snapshots" / commit)
    prior = {f"prior_{name}": part for name, part in built[RECIPES["kandinsky2.1"].prior].components.items()}
    whole = diffusers.KandinskyCombinedPipeline(**built["org/decoder"].components, **prior)
    whole.save_pretrained(tmp_path / "whole")

    def download(source, *, revision, use_safetensors, trust_remote_code):
        assert use_safetensors
        assert not trust_remote_code
        asked.append((source, revision))
        return str(tmp_path / "hub" / source / "snapshots" / halves[source][1])

    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", staticmethod(download))
    assert call("kandinsky2.1", tmp_path / "out", "-n", 1, pipeline="org/decoder") == 0
    assert call("kandinsky2.1", tmp_path / "out", "-n", 2, pipeline="org/decoder") == 0
    assert call("kandinsky2.1", tmp_path / "one", "-n", 2, pipeline=tmp_path / "whole") == 0
    assert apart(images(tmp_path / "out"), images(tmp_path / "one")) == 0
    kept = record(tmp_path / "out")
    names = ("source", "revision", "prior", "prior_revision")
    assert [kept[name] for name in names] == ["org/decoder", "d" * 40, RECIPES["kandinsky2.1"].prior, "p" * 40]
    assert asked == [
        ("org/decoder", None),
        (RECIPES["kandinsky2.1"].prior, None),
        ("org/decoder", "d" * 40),
        (RECIPES["kandinsky2.1"].prior, "p" * 40),
    ]


def test_vq_diffusion_is_fetched_without_its_pickles(call, folders, monkeypatch, tmp_path):
    import huggingface_hub

    (tmp_path / "snapshots").mkdir()
    (tmp_path / "snapshots" / ("v" * 40)).symlink_to(folders / "vqdm")

    def snapshot_download(source, *, revision, allow_patterns):
        assert not any(pattern.endswith(("bin", "*", "py")) for pattern in allow_patterns)
        return str(tmp_path / "snapshots" / ("v" * 40))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert call("vqdm", tmp_path / "out", "-n", 1, pipeline="org/vq") == 0
    assert record(tmp_path / "out")["revision"] == "v" * 40


def test_a_gated_model_says_where_to_click(call, monkeypatch, tmp_path, capsys):
    import httpx

    def download(source, **options):
        response = httpx.Response(403, request=httpx.Request("GET", "https://example.org"))
        raise GatedRepoError("403", response=response)

    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", staticmethod(download))
    assert call("flux", tmp_path / "out", pipeline="org/gated") == 2
    assert "Accept its licence" in capsys.readouterr().err
