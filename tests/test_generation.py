"""Generation without PyTorch: prompts, plans, resuming, records, errors; the miniature models with a stand-in."""

import dataclasses
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from aedr_jax.autoencoders.registry import REGISTRY, list_models
from aedr_jax.cli.main import main
from aedr_jax.errors import AedrError, GenerationError, SourceError
from aedr_jax.generate import pipelines
from aedr_jax.generate.folder import Planned, generate, plan_images, read_prompts
from aedr_jax.generate.pipelines import choose_settings
from aedr_jax.generate.recipes import RECIPES, WITHOUT

MINI = "mini-kl4-a"


def paint(model, seeds, *, size=None, steps=20):
    """What the miniature sampler promises: uint8 images, each of its own seed."""
    return np.stack([np.random.default_rng((seed, steps)).integers(0, 256, (*size, 3), np.uint8) for seed in seeds])


@pytest.fixture
def calls(monkeypatch):
    """The seeds of each call of the miniature sampler's stand-in."""
    seen = []

    def sample_images(model, seeds, **options):
        seen.append(list(seeds))
        return paint(model, seeds, **options)

    monkeypatch.setitem(sys.modules, "aedr_jax.generate.miniature", SimpleNamespace(sample_images=sample_images))
    return seen


def mini(out, *more):
    return main(["generate", "--model", MINI, "--out", str(out), "--size", "16", *map(str, more)])


def read(path):
    """An image's pixels and texts."""
    with Image.open(path) as file:
        return np.asarray(file), file.info


def pixels(folder):
    return {path.name: read(path)[0] for path in sorted(folder.glob("*.png"))}


def record(folder):
    return json.loads((folder / "generated.json").read_text())


PAPER = list_models()[:8]


def test_every_model_of_the_paper_has_a_recipe_and_others_say_what_they_lack():
    assert tuple(RECIPES)[:8] == PAPER
    mini = {name for name, entry in REGISTRY.items() if entry.repository is None}
    assert sorted([*RECIPES, *WITHOUT, *mini]) == sorted(REGISTRY)
    with pytest.raises(GenerationError, match=r"holds the autoencoder alone; pass the .* whole SanaPipeline"):
        choose_settings("sana-1.1")
    assert choose_settings("sana-1.1", pipeline="org/sana").source == "org/sana"
    with pytest.raises(GenerationError, match="kolors: how its pipeline is run is not known here: no tiny pipeline of"):
        choose_settings("kolors")
    assert (choose_settings("bria3.2").size, choose_settings("bria3.2", size=512).size) == (1024, 512)


def test_a_size_is_asked_for_where_none_is_known(monkeypatch):
    monkeypatch.setitem(REGISTRY, "bria3.2", dataclasses.replace(REGISTRY["bria3.2"], native_size=None))
    with pytest.raises(GenerationError, match=r"bria3\.2: its native size is not known; give one"):
        choose_settings("bria3.2")
    assert choose_settings("bria3.2", size=1024).steps == 30


def test_the_papers_settings():
    chosen = {name: choose_settings(name) for name in PAPER}
    assert {name for name, s in chosen.items() if s.steps == 35} == {"sd3.5", "flux"}
    assert {s.steps for s in chosen.values()} == {35, 50}
    assert {s.guidance for s in chosen.values()} == {7.5}
    assert all(s.size == REGISTRY[name].native_size for name, s in chosen.items())
    assert all(s.source == REGISTRY[name].repository for name, s in chosen.items())
    assert {name for name, s in chosen.items() if s.dtype == "bfloat16"} == {"sd3.5", "flux"}


def test_nothing_alters_the_pixels_afterwards():
    checked = {name for name, recipe in RECIPES.items() if recipe.options.get("safety_checker", 0) is None}
    assert checked == {"sd1.5", "sd2-base", "sd2.1", "hunyuandit"}
    assert RECIPES["sdxl"].options == RECIPES["playground2.5"].options == {"add_watermarker": False}


@pytest.mark.parametrize(
    ("text", "prompts"),
    [
        ("a cat\n\n  a dog  \n", ["a cat", "a dog"]),
        ("001: a cat\r\n002: a dog\r\n", ["a cat", "a dog"]),
        (
            "3 cats\n12:30 in Rome\n4:3: a screen\nat 5: tea\n7: 8: nine",
            ["3 cats", "12:30 in Rome", "4:3: a screen", "at 5: tea", "8: nine"],
        ),
        ("\ufeff1: ein Hündchen\n2: \n", ["ein Hündchen"]),
        ("one\u2028line", ["one\u2028line"]),
    ],
)
def test_prompts(tmp_path, text, prompts):
    file = tmp_path / "prompts.txt"
    file.write_bytes(text.encode())
    assert read_prompts(file) == prompts


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "holds no prompt"), (b"\n 1: \n", "holds no prompt"), (b"caf\xe9\n", "UTF-8"), (None, "cannot read")],
)
def test_prompts_that_cannot_be_used(tmp_path, data, message):
    file = tmp_path / "prompts.txt"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(SourceError, match=message) as error:
        read_prompts(file)
    assert str(file) in str(error.value)


def test_plans_go_through_the_prompts_again_with_new_seeds():
    settings = choose_settings("sd1.5", seed=10)
    assert plan_images(settings, ["a", "b"]) == [Planned("00000.png", 10, "a"), Planned("00001.png", 11, "b")]
    assert [tuple(image) for image in plan_images(settings, ["a", "b"], 5)][2:] == [
        ("00002.png", 12, "a"),
        ("00003.png", 13, "b"),
        ("00004.png", 14, "a"),
    ]
    assert plan_images(settings, ["a", "b", "c"], 1) == [Planned("00000.png", 10, "a")]
    assert plan_images(choose_settings(MINI), n=1) == [Planned("00000.png", 0, None)]


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("sd9", {}, "no model of the registry"),
        ("sd1.5", {"size": 500}, "multiple of 8"),
        ("sd1.5", {"size": 0}, "size 0"),
        ("flux", {"size": 1000}, "multiple of 16"),
        ("kandinsky2.1", {"size": 520}, "multiple of 64"),
        (MINI, {"size": 20}, "multiple of 8"),
        ("vqdm", {"dtype": "bfloat16"}, "runs in float32, float16"),
        ("sdxl", {"steps": 0}, "0 steps"),
        ("sdxl", {"seed": -1}, "seed -1"),
        ("sdxl", {"pipeline": "nowhere"}, "no such folder, and no hub path"),
        ("sdxl", {"pipeline": "a/b/c"}, "no such folder, and no hub path"),
        ("sdxl", {"pipeline": "./a"}, "no such folder, and no hub path"),
        ("sdxl", {"pipeline": ".", "revision": "main"}, "no revision"),
        (MINI, {"guidance": 7.5, "revision": "main"}, "no --guidance, --revision"),
    ],
)
def test_settings_that_cannot_be(model, options, message):
    with pytest.raises(GenerationError, match=message):
        choose_settings(model, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (["--model", "sd9"], "no model of the registry"),
        (["--model", "sd1.5"], "needs prompts"),
        (["--model", "sd1.5", "--prompts", "EMPTY"], "holds no prompt"),
        (["--model", "sd1.5", "--prompts", "LATIN"], "not UTF-8"),
        (["--model", "sd1.5", "--prompts", "GOOD", "-n", "0"], "0 images"),
        (["--model", "sd1.5", "--prompts", "GOOD", "--seed", str(2**32)], "last of 1 seeds"),
        (["--model", "sd1.5", "--prompts", "GOOD", "--size", "100"], "multiple of 8"),
        (["--model", MINI], "say -n N"),
        (["--model", MINI, "-n", "1", "--device", "cpu"], "leave out --device"),
    ],
)
def test_wrong_calls_exit_with_2_and_one_reason(tmp_path, capsys, call, message):
    (tmp_path / "EMPTY").write_text("\n")
    (tmp_path / "LATIN").write_bytes(b"caf\xe9")
    (tmp_path / "GOOD").write_text("a cat")
    call = [str(tmp_path / word) if (tmp_path / word).exists() else word for word in call]
    assert main(["generate", "--out", str(tmp_path / "out"), *call]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


EXTRA = ("accelerate", "torch", "diffusers", "transformers")


@pytest.mark.parametrize("missing", EXTRA)
def test_a_missing_extra_is_named(tmp_path, capsys, monkeypatch, missing):
    for name in EXTRA:
        monkeypatch.setitem(sys.modules, name, None if name == missing else SimpleNamespace())
    (tmp_path / "prompts").write_text("a cat")
    call = ["--model", "sd1.5", "--prompts", str(tmp_path / "prompts"), "--out", str(tmp_path / "out")]
    assert main(["generate", *call]) == 2
    assert 'pip install "aedr-jax[generate]"' in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_a_diffusers_without_the_pipeline_is_named(monkeypatch):
    for name in EXTRA:
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(__version__="9.9"))
    with pytest.raises(GenerationError, match=r"diffusers 9\.9 has no VQDiffusionPipeline: .*0\.39\.0"):
        pipelines.open_pipeline(choose_settings("vqdm"))


def test_miniature_images_and_their_record(tmp_path, calls, capsys):
    prompts = tmp_path / "prompts"
    prompts.write_text("a cat")
    out = tmp_path / "deep" / "own"
    assert mini(out, "-n", 3, "--seed", 5, "--steps", 4, "--prompts", prompts, "--json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"out": str(out), "model": MINI, "images": 3, "made": 3, "kept": 0}
    assert "takes no text" in printed.err
    assert calls == [[5, 6, 7]]
    for i, (name, image) in enumerate(pixels(out).items()):
        assert name == f"0000{i}.png"
        assert read(out / name)[1] == {"seed": str(5 + i)}
        np.testing.assert_array_equal(image, paint(MINI, [5 + i], size=(16, 16), steps=4)[0])
    kept = record(out)
    versions = kept.pop("versions")
    assert {name: value for name, value in kept.items() if value is not None} == {
        "model": MINI,
        "pipeline": "aedr_jax.generate.miniature.sample_images",
        "size": 16,
        "first_seed": 5,
        "steps": 4,
    }
    assert [set(v) for v in versions] == [{"aedr-jax", "jax", "flax"}]
    assert len(list(out.iterdir())) == 4  # nothing unfinished stays


def test_resuming_makes_what_is_missing_and_no_more(tmp_path, calls, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert mini(whole, "-n", 7, "--batch-size", 3) == 0
    assert mini(parts, "-n", 2) == 0
    (parts / "00000.png").unlink()
    capsys.readouterr()
    assert mini(parts, "-n", 7) == 0
    assert "7 images of mini-kl4-a, 6 made, 1 there already" in capsys.readouterr().out
    assert calls == [[0, 1, 2], [3, 4, 5], [6], [0, 1], [0, 2, 3, 4, 5, 6]]
    for name, image in pixels(whole).items():
        np.testing.assert_array_equal(image, pixels(parts)[name])
    assert len(record(parts)["versions"]) == 1
    assert mini(parts, "-n", 7) == 0
    assert len(calls) == 5  # nothing to do, nothing loaded


def test_a_run_with_other_versions_is_added_to_the_record(tmp_path, calls):
    assert mini(tmp_path, "-n", 1) == 0
    earlier = {**record(tmp_path), "versions": [{"jax": "0.0"}]}
    (tmp_path / "generated.json").write_text(json.dumps(earlier))
    assert mini(tmp_path, "-n", 2) == 0
    first, second = record(tmp_path)["versions"]
    assert first == {"jax": "0.0"}
    assert set(second) == {"aedr-jax", "jax", "flax"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--size", "24"], "size 16, now 24"),
        (["--seed", "1"], "first_seed 0, now 1"),
        (["--steps", "3"], "steps None, now 3"),
        (["--model", "mini-kl4-b"], "model 'mini-kl4-a', now 'mini-kl4-b'"),
    ],
)
def test_resuming_with_other_settings_says_which(tmp_path, calls, capsys, change, message):
    assert mini(tmp_path, "-n", 1) == 0
    assert mini(tmp_path, "-n", 2, *change) == 2
    assert message in capsys.readouterr().err
    assert len(calls) == 1


def test_other_files_are_never_taken_for_own(tmp_path, calls, capsys):
    Image.new("RGB", (16, 16)).save(tmp_path / "00001.png")
    assert mini(tmp_path, "-n", 1) == 2
    assert "holds 00001.png but no generated.json" in capsys.readouterr().err
    (tmp_path / "00001.png").unlink()
    assert mini(tmp_path, "-n", 1) == 0
    Image.new("RGB", (16, 16)).save(tmp_path / "00001.png")
    assert mini(tmp_path, "-n", 2) == 2
    assert "00001.png: was made with another seed (None, now '1')" in capsys.readouterr().err
    (tmp_path / "00001.png").write_text("no image")
    assert mini(tmp_path, "-n", 2) == 2
    assert "no readable image" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", "[]", '{"model": "sd1.5"}', "[" * 100_000])
def test_a_damaged_record_is_an_error(tmp_path, calls, capsys, text):
    (tmp_path / "generated.json").write_text(text)
    assert mini(tmp_path, "-n", 1) == 2
    assert "generated.json" in capsys.readouterr().err


def test_a_file_is_no_folder(tmp_path, calls, capsys):
    (tmp_path / "file").write_text("")
    assert mini(tmp_path / "file", "-n", 1) == 2
    assert "cannot be the folder" in capsys.readouterr().err


def test_interruption_loses_nothing_finished(tmp_path, calls, capsys, monkeypatch):
    def interrupted(model, seeds, **options):
        if 4 in seeds:
            raise KeyboardInterrupt
        return paint(model, seeds, **options)

    stand_in = sys.modules["aedr_jax.generate.miniature"]
    monkeypatch.setattr(stand_in, "sample_images", interrupted)
    assert mini(tmp_path, "-n", 6, "--batch-size", 2) == 130
    assert "finished images are kept" in capsys.readouterr().err
    assert sorted(pixels(tmp_path)) == [f"0000{i}.png" for i in range(4)]
    monkeypatch.setattr(stand_in, "sample_images", paint)
    assert mini(tmp_path, "-n", 6) == 0
    assert "2 made, 4 there already" in capsys.readouterr().out


def test_an_interrupted_write_leaves_no_file(tmp_path, calls, monkeypatch):
    def interrupted(self, path, **options):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupted)
    assert mini(tmp_path, "-n", 1) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["generated.json"]


class FakePipeline:
    """`open_pipeline` without PyTorch: grey images that tell their prompt's length; the commit is known once open."""

    def __init__(self, commit="c" * 40, noise="cpu"):
        self.commit, self.noise, self.asked, self.batches = commit, noise, [], []

    def __call__(self, settings, device=None):
        self.asked.append(settings.revision)

        def make(prompts, seeds):
            self.batches.append(len(seeds))
            return np.stack([np.full((16, 16, 3), len(prompt) % 256, np.uint8) for prompt in prompts])

        return make, dataclasses.replace(settings, revision=self.commit, noise=self.noise)


@pytest.fixture
def text_model(monkeypatch, tmp_path):
    """A call of `generate` with a fake pipeline, in tmp_path/out."""

    def call(fake, prompts=("a", "bb"), n=None, model="sd1.5", batch_size=None, **options):
        monkeypatch.setattr("aedr_jax.generate.folder.open_pipeline", fake)
        settings = choose_settings(model, size=16, **options)
        return generate(settings, plan_images(settings, prompts, n), tmp_path / "out", batch_size=batch_size)

    return call


def test_prompts_lie_in_the_files(text_model, tmp_path):
    long = "«" + "x" * 5000 + "»\tünï"
    assert text_model(FakePipeline(), ("a", long), 3) == (3, 0)
    texts = [read(tmp_path / "out" / f"0000{i}.png")[1]["prompt"] for i in range(3)]
    assert texts == ["a", long, "a"]
    assert text_model(FakePipeline(), ("a", long), 3) == (0, 3)
    with pytest.raises(SourceError, match="another prompt"):
        text_model(FakePipeline(), ("a", "b"), 3)


def test_a_resumed_run_asks_for_the_recorded_commit(text_model, tmp_path):
    pipeline = FakePipeline()
    text_model(pipeline, n=1)
    assert record(tmp_path / "out")["revision"] == pipeline.commit
    text_model(pipeline, n=2)
    text_model(pipeline, n=3, revision="main")
    assert pipeline.asked == [None, pipeline.commit, "main"]
    with pytest.raises(SourceError, match=r"revision 'c+', now 'd+'"):
        text_model(FakePipeline("d" * 40), n=4, revision="main")
    assert record(tmp_path / "out")["revision"] == pipeline.commit


@pytest.mark.parametrize(
    ("change", "name"),
    [({"guidance": 3.0}, "guidance"), ({"dtype": "float16"}, "dtype"), ({"pipeline": "."}, "source")],
)
def test_text_settings_are_compared_before_anything_is_loaded(text_model, change, name):
    text_model(FakePipeline(), n=1)
    later = FakePipeline()
    with pytest.raises(SourceError, match=name):
        text_model(later, n=2, **change)
    assert later.asked == []


def test_a_pipeline_that_takes_one_generator_gets_one_image_at_a_time(text_model):
    one, many = FakePipeline(noise="cuda"), FakePipeline()
    text_model(one, n=3, model="vqdm", batch_size=3)
    assert one.batches == [1, 1, 1]
    with pytest.raises(SourceError, match="noise 'cuda', now 'cpu'"):
        text_model(many, n=4, model="vqdm")


def test_batches_default_to_one(text_model):
    pipeline = FakePipeline()
    text_model(pipeline, n=2)
    text_model(pipeline, n=5, batch_size=2)
    assert pipeline.batches == [1, 1, 2, 1]


def test_what_is_no_image_is_refused():
    settings = choose_settings("sd1.5", size=8, dtype="float16")
    good = np.full((1, 8, 8, 3), 0.5, np.float32)
    np.testing.assert_array_equal(pipelines._to_uint8(good, settings), 128)
    with pytest.raises(AedrError, match="float16: try another --dtype"):
        pipelines._to_uint8(good * np.nan, settings)
    with pytest.raises(AedrError, match=r"4×8 images, asked for 8"):
        pipelines._to_uint8(good[:, :, :4], settings)
