"""Files to rows: sizes, errors, batches, and that a row does not depend on its company."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mesh_of
from make_tiny import KL, QUICK, VQ, make_tensors, write_folder
from PIL import Image

import aedr_jax as aedr
from aedr_jax.inputs import workers
from aedr_jax.inputs.decoding import Decoder
from aedr_jax.inputs.sources import find_images
from aedr_jax.scoring import engine
from aedr_jax.scoring.engine import Batch, Engine, Measured
from aedr_jax.scoring.rows import column_types, rows_to_measurement
from aedr_jax.scoring.scorer import Scorer, load_candidate
from aedr_jax.scoring.scorer import _homogeneity as homogeneity_program
from aedr_jax.scoring.tables import as_record
from aedr_jax.signal.alignment import align_together

pytestmark = pytest.mark.usefixtures("two_devices", "decoded_here")
# Attention takes memory and time with the square of the positions, and these models work at the images' own size.
KL, VQ = ({**config, "mid_block_add_attention": False} for config in (KL, VQ))
LOSSES = aedr.SignalConfig(alignment=None)  # where the alignment is not what a test is about: a third less to compile
# Small tiles: these models decode as many positions as an image has pixels.
TILES = dataclasses.replace(aedr.SignalConfig.tiles(), alignment=aedr.AlignmentConfig(tile=48, block=8, margin=8))
CONTRACT = [
    "id",
    "path",
    "sha256",
    "width",
    "height",
    "format",
    "used_width",
    "used_height",
    "size_rule",
    "model",
    "weights_hash",
    "rounded_hash",
    "preset",
    "dtype",
    "precision",
    "quantize",
    "first_loss",
    "second_loss",
    "ratio",
    "homogeneity",
    "signal",
    "status",
    "error",
    "schema_version",
]


@pytest.fixture(scope="module")
def candidates(tmp_path_factory):
    """Of the factors 2 and 1, the second with a codebook."""
    root = tmp_path_factory.mktemp("models")
    configs = {"dc": QUICK, "vq": VQ}
    return [
        load_candidate(str(write_folder(root / name, c, make_tensors(c))), name=name) for name, c in configs.items()
    ]


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """Of the factor 2, with a posterior to draw from."""
    two_level = {
        **KL,
        "block_out_channels": [8, 8],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
    }
    folder = write_folder(tmp_path_factory.mktemp("models") / "kl", two_level, make_tensors(two_level))
    return load_candidate(str(folder), name="kl")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, size in {
        "a.png": (70, 64),
        "b.png": (71, 65),
        "c.jpg": (70, 64),
        "d.png": (80, 66),
        "e.png": (70, 64),
    }.items():
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(folder / name)
    Image.new("RGB", (63, 200)).save(folder / "small.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    return folder


@pytest.fixture(scope="module")
def rows(candidates, photos):
    done = []
    scorer = Scorer(candidates, batch_size=2, multiple=2)
    rows = list(scorer.score(find_images([photos]), on_progress=done.append))
    assert sum(done) == 7
    return {(row.id, row.model): row for row in rows}


def test_columns_are_the_contracts():
    assert [name for name in column_types() if name in CONTRACT] == CONTRACT  # and columns beside these


def test_one_row_for_each_image_and_model(rows, photos):
    names = sorted(path.name for path in photos.iterdir())
    assert sorted(rows) == sorted((name, model) for name in names for model in ("dc", "vq"))


def test_values_are_those_of_the_pure_functions(rows, photos, candidates):
    measure = jax.jit(functools.partial(aedr.measure, config=LOSSES))
    for name in ("b.png", "c.jpg"):
        pixels = aedr.read_image(photos / name)[:64, :70]  # cropped right and bottom to even sides
        images = jnp.asarray(pixels[None], jnp.float32) / 127.5 - 1
        homogeneity = jax.jit(aedr.homogeneity)(aedr.read_gray(photos / name)[None])  # in the original size
        for candidate in candidates:
            expected = measure(candidate.autoencoder, images, homogeneity=homogeneity)
            row = rows[name, candidate.name]
            for column in ("first_loss", "second_loss", "ratio", "homogeneity", "signal"):
                np.testing.assert_allclose(getattr(row.measured, column), getattr(expected, column)[0], rtol=1e-4)
            assert (row.width, row.height, row.used_width, row.used_height, row.size_rule) == (
                (71, 65, 70, 64, "crop2") if name == "b.png" else (70, 64, 70, 64, "crop2")
            )
            assert (row.status, row.error, row.format) == ("ok", "", "PNG" if name == "b.png" else "JPEG")


def test_latents_are_the_mode_unless_samples_are_asked_for(sampled, photos):
    (row,) = Scorer([sampled], config=LOSSES, batch_size=1).score(find_images([photos / "a.png"]))
    images = jnp.asarray(aedr.prepare(aedr.read_image(photos / "a.png")[: row.used_height, : row.used_width]))
    expected = jax.jit(functools.partial(aedr.measure, config=LOSSES))(sampled.autoencoder, images)
    for column in ("first_loss", "second_loss"):
        np.testing.assert_allclose(getattr(row.measured, column), getattr(expected, column)[0], rtol=1e-4)


def test_errors_are_rows(rows):
    for model in ("dc", "vq"):
        small, broken = rows["small.png", model], rows["broken.png", model]
        assert "63×200" in small.error
        assert "broken.png" in broken.error
        for row in (small, broken):
            assert row.status == "error"
            assert math.isnan(row.measured.signal)


@pytest.mark.usefixtures("decoder_processes")
def test_an_image_that_keeps_its_decoder_busy_is_an_error_row(candidates, tmp_path, monkeypatch):
    """Pillow reads a comment byte by byte: for seconds, and of a larger one for minutes."""
    monkeypatch.setattr(workers, "SECONDS", 0.5)
    (tmp_path / "a.ppm").write_bytes(b"P6\n#" + b" " * (24 << 20) + b"\n64 64\n255\n" + bytes(64 * 64 * 3))
    (row,) = Scorer(candidates[:1]).score(find_images([tmp_path]))
    assert (row.status, row.id) == ("error", "a.ppm")
    assert "the decoder took more than 0.5 seconds" in row.error


def test_provenance_columns(rows, candidates):
    row = rows["a.png", "vq"]
    assert row.weights_hash == aedr.weights_hash(candidates[1].autoencoder)
    assert (row.preset, row.dtype, row.precision, row.quantize) == ("default", "float32", "highest", True)
    assert rows["a.png", "dc"].quantize is None


def test_a_row_does_not_depend_on_its_company(rows, photos, candidates):
    alone = list(Scorer(candidates, batch_size=2, multiple=2).score(find_images([photos / "e.png"])))
    for row in alone:
        # The same program on the same numbers: equal to the bit.
        np.testing.assert_equal({**as_record(row), "path": ""}, {**as_record(rows["e.png", row.model]), "path": ""})


def test_a_crop_does_not_depend_on_other_candidates(candidates, tmp_path):
    """Calibrations are made of one model, and judge it beside models of other factors."""
    pixels = np.random.default_rng(0).integers(0, 256, (67, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "odd.png")
    together = Scorer(candidates, config=LOSSES, batch_size=1)
    for candidate in candidates:  # of the factors 2 and 1
        assert together.protocol(candidate) == Scorer([candidate], config=LOSSES, batch_size=1).protocol(candidate)
    assert [together.protocol(c).size_rule for c in candidates] == ["crop2", "crop1"]
    for photo in (together.decoder(item) for item in find_images([tmp_path])):
        assert photo.shapes == ((66, 70, 3), (67, 70, 3))
    (row, other) = together.score(find_images([tmp_path]))
    assert (row.used_width, row.used_height, row.size_rule) == (70, 66, "crop2")
    assert (other.used_width, other.used_height, other.size_rule) == (70, 67, "crop1")
    assert Scorer(candidates, multiple=64).decoder.crops == (64,)


def test_few_programs_for_many_sizes(candidates, photos):
    before = homogeneity_program._cache_size()
    scorer = Scorer(candidates, config=aedr.SignalConfig(gamma=0.25), batch_size=2, multiple=64)
    rows = list(scorer.score(find_images([photos])))
    assert {(r.used_width, r.used_height) for r in rows if r.status == "ok"} == {(64, 64)}
    assert {r.size_rule for r in rows} == {"crop64"}
    assert scorer.engine._program.jitted._cache_size() == len(candidates)
    assert homogeneity_program._cache_size() - before <= 2  # heights to 64 and above it
    again = Scorer(candidates, config=aedr.SignalConfig(gamma=0.25), batch_size=2, multiple=64)
    assert again.engine._program is scorer.engine._program  # of equal settings: compiled once


def test_no_collective_in_what_is_scored_with(sampled):
    scorer = Scorer([sampled], config=aedr.SignalConfig.official(), batch_size=8)
    batch = Batch(np.zeros((8, 64, 64, 3), np.uint8), np.arange(8, dtype=np.uint32), np.ones(8, np.float32))
    text = scorer.engine._program.jitted.lower(scorer.engine._weights[0], (batch,)).compile().as_text()
    for collective in ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
        assert collective not in text


def test_a_batch_is_fetched_after_the_next_is_sent(candidates, photos, monkeypatch):
    scorer = Scorer(candidates, batch_size=1)
    events = []
    monkeypatch.setattr(scorer.engine, "_launch", lambda group: events.append("send") or group)
    monkeypatch.setattr(engine, "_fetch", lambda group, sent: events.append("fetch") or Measured([], ()))
    list(scorer.score_decoded(map(scorer.decoder, find_images([photos / "*.jpg", photos / "[ab].png"]))))
    assert events == ["send", "send", "fetch", "send", "fetch", "fetch"]


def test_what_is_computed_of_an_image_is_computed_once(photos):
    """Though two models see different crops of it, and a batch is filled up; over all eight devices."""
    asked = []

    def extra(photo):
        asked.append(photo.id)
        return {"width": jnp.float32(photo.width), "gray": photo.gray[0, 0]}

    def seen(offset, batch):
        return {"width": batch.extra["width"] + offset, "gray": batch.extra["gray"], "pixels": batch.pixels[:, 0, 0, 0]}

    decoder = Decoder(2, crops=(1, 2))
    program = aedr.make_sharded(seen, mesh=mesh_of(8))
    engine = Engine(program, [jnp.float32(0), jnp.float32(1)], batch_size=4, fit_of=[0, 1], extra=extra)
    files = [photos / name for name in ("a.png", "c.jpg", "e.png")]
    (measured,) = engine(map(decoder, find_images(files)))
    assert asked == ["a.png", "c.jpg", "e.png"]
    pixels = [aedr.read_image(file)[0, 0, 0] for file in files]
    for offset, columns in enumerate(measured.columns):
        np.testing.assert_array_equal(columns["width"], np.full(3, 70 + offset))
        np.testing.assert_array_equal(columns["gray"], [aedr.read_gray(file)[0, 0] for file in files])
        np.testing.assert_array_equal(columns["pixels"], pixels)
    filled = engine.batch(measured.photos, 1)
    assert filled.extra["gray"].tolist() == [
        *(photo.gray[0, 0] for photo in measured.photos),
        measured.photos[-1].gray[0, 0],
    ]


def test_official_preset(sampled, photos, tmp_path):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (65, 90, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    scorer = Scorer([sampled], config=aedr.SignalConfig.official(), batch_size=1)
    (row,) = scorer.score(find_images([tmp_path]))
    # The losses ignore the orientation, and 65 becomes round(65 / 2) * 2 = 64.
    assert (row.width, row.height, row.used_width, row.used_height, row.size_rule) == (90, 65, 90, 64, "official")
    gray = aedr.read_gray(tmp_path / "turned.jpg")
    assert gray.shape == (90, 65)
    expected = aedr.homogeneity(gray[None], kind="inverse_difference_moment")[0]
    np.testing.assert_allclose(row.measured.homogeneity, round(float(expected), 6), atol=1e-6)
    again, other = scorer.score(find_images([tmp_path, photos / "a.png"]))
    # The noise comes from the file's content.
    assert row.measured.signal in (again.measured.signal, other.measured.signal)


def test_signals_of_rows(rows):
    chosen = [rows["a.png", "dc"], rows["d.png", "dc"]]
    measured = rows_to_measurement(chosen)
    np.testing.assert_array_equal(measured.signal, [row.measured.signal for row in chosen])
    assert np.isnan(measured.latent_error).all()
    assert np.isfinite(rows_to_measurement([rows["a.png", "vq"]]).latent_error).all()  # it has a codebook


def test_refusals(candidates):
    with pytest.raises(aedr.SourceError, match="two models of one name"):
        Scorer([candidates[0], candidates[0]])
    with pytest.raises(aedr.SourceError, match="no multiple"):
        Scorer(candidates, multiple=3)
    for wrong in ({"batch_size": 0}, {"batch_size": -1}, {"multiple": 0}, {"multiple": -2}):
        with pytest.raises(aedr.SourceError, match="expected 1 or more"):
            Scorer(candidates, **wrong)


def test_official_dtype_and_quantization_come_from_the_registry(monkeypatch):
    asked = {}

    def load(model, **options):
        asked[model] = options
        raise aedr.AutoencoderError("stop")

    monkeypatch.setattr("aedr_jax.scoring.scorer.load_autoencoder", load)
    for model in ("flux", "kandinsky2.1", "sd1.5"):
        with pytest.raises(aedr.AutoencoderError, match="stop"):
            load_candidate(model, config=aedr.SignalConfig.official())
    assert asked["flux"]["dtype"] == "bfloat16"
    assert asked["kandinsky2.1"] == {"dtype": "float32", "precision": "highest", "quantize": True}
    assert asked["sd1.5"]["quantize"] is None
    with pytest.raises(aedr.AutoencoderError, match="stop"):
        load_candidate("kandinsky2.1")
    assert asked["kandinsky2.1"]["quantize"] is None  # the registry entry decides: not quantized


def test_where_no_image_may_be_missing_the_first_refused_one_ends_the_run(candidates, photos):
    scorer = Scorer(candidates)
    with pytest.raises(aedr.ImageError, match=r"small\.png: 63×200"):
        list(scorer.engine.measured(map(scorer.decoder, find_images([photos / "small.png"]))))


def test_models_that_are_one_are_computed_once(tmp_path):
    """Two names of the same weights; the same weights used otherwise are another model."""
    write_folder(tmp_path / "vq", VQ, make_tensors(VQ))
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "0.png")
    asked = {"a": None, "b": None, "c": not load_candidate(str(tmp_path / "vq")).autoencoder.quantize_on_decode}
    scorer = Scorer(
        [load_candidate(str(tmp_path / "vq"), name=name, quantize=quantize) for name, quantize in asked.items()],
        config=LOSSES,
    )
    assert [len(group) for group in scorer.engine.autoencoders] == [1, 1]
    rows = list(scorer.score(find_images([tmp_path])))
    assert [row.model for row in rows] == ["a", "b", "c"]
    assert rows[0].measured.first_loss == rows[1].measured.first_loss != rows[2].measured.first_loss
    assert [row.quantize for row in rows] == [scorer.protocol(c).identity.quantize for c in scorer.candidates]


def test_models_that_share_an_encoder_encode_once(tmp_path, monkeypatch):
    """A decoder that was trained further: its alignments are those of the model alone, and both encode once."""
    tensors = make_tensors(QUICK)
    other = {key: value * np.float32(1.01) if key.startswith("decoder.") else value for key, value in tensors.items()}
    write_folder(tmp_path / "parent", QUICK, tensors)
    write_folder(tmp_path / "tuned", QUICK, other)
    write_folder(tmp_path / "stranger", QUICK, make_tensors(QUICK, seed=1))
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 160, 3), np.uint8)).save(tmp_path / "0.png")
    load = {name: load_candidate(str(tmp_path / name)) for name in ("parent", "tuned", "stranger")}
    config = dataclasses.replace(TILES, alignment=dataclasses.replace(TILES.alignment, least_turned=None))
    scorer = Scorer(list(load.values()), config=config)
    assert [len(group) for group in scorer.engine.autoencoders] == [2, 1]
    together = {row.model: row.measured for row in scorer.score(find_images([tmp_path]))}
    assert np.isfinite([measured.alignment for measured in together.values()]).all()
    assert together["parent"].alignment != together["tuned"].alignment
    for name, candidate in load.items():
        (alone,) = Scorer([candidate], config=config).score(find_images([tmp_path]))
        np.testing.assert_allclose(together[name].alignment, alone.measured.alignment, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(together[name].alignment_error, alone.measured.alignment_error, rtol=1e-4)
    encoded = []
    encode = type(load["parent"].autoencoder).encode
    monkeypatch.setattr(
        type(load["parent"].autoencoder), "encode", lambda *args: (encoded.append(len(args[1])), encode(*args))[1]
    )
    pair = [load["parent"].autoencoder, load["tuned"].autoencoder]
    jax.eval_shape(lambda tiles: align_together(pair, tiles, config=TILES.alignment), jnp.zeros((1, 4, 48, 48, 3)))
    assert len(encoded) == 1
    # What is computed in is the encoder's too: no row says float32 of what ran in bfloat16.
    half = load_candidate(str(tmp_path / "tuned"), name="half", dtype="bfloat16")
    assert [len(group) for group in Scorer([half, *load.values()], config=TILES).engine.autoencoders] == [1, 2, 1]
