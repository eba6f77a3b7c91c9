"""What moves a score is one object: it is compared whole, and both sides of a difference are named."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_autoencoder, tiny_architecture, tiny_autoencoder
from PIL import Image

import aedr_jax as aedr
from aedr_jax.autoencoders.blocks import Numerics
from aedr_jax.images.processing import Processing
from aedr_jax.inputs.sources import Item, find_images
from aedr_jax.rivals.registry import make_methods
from aedr_jax.scoring.job import Setup, settings
from aedr_jax.scoring.record import protocols_of
from aedr_jax.scoring.scorer import Candidate, Scorer, load_candidate
from aedr_jax.signal.protocol import Identity, Protocol, differences
from aedr_jax.study.evaluation import _Task

VQ = tiny_architecture("vq")
SAME_WEIGHTS = {  # what differs -> two autoencoders with one hash
    "quantize": [random_autoencoder(VQ, quantize=q) for q in (True, False)],
    "dtype": [random_autoencoder(VQ, numerics=Numerics(jnp.dtype(d), "highest")) for d in ("float32", "bfloat16")],
    "precision": [random_autoencoder(VQ, numerics=Numerics(jnp.float32, p)) for p in ("highest", "default")],
}


@pytest.fixture(params=SAME_WEIGHTS)
def twins(request):
    autoencoders = SAME_WEIGHTS[request.param]
    hashes = [aedr.weights_hash(autoencoder) for autoencoder in autoencoders]
    assert len(set(hashes)) == 1
    return request.param, [Candidate("m", ae, weights) for ae, weights in zip(autoencoders, hashes, strict=True)]


def test_models_of_one_hash_differ_by_what_they_compute(twins):
    what, (one, other) = twins
    assert list(one.identity.__dict__) == [
        "name",
        "weights_hash",
        "quantize",
        "dtype",
        "precision",
        "rounded_hash",
    ]
    first, second = (Scorer([candidate]).protocol(candidate) for candidate in (one, other))
    assert list(first.differences(second)) == [f"identity.{what}"]
    assert first.fingerprint() != second.fingerprint()
    assert (one.identity.family == other.identity.family) == (what != "quantize")


def test_a_calibration_is_refused_on_each_of_them_and_names_both_sides(twins, rng):
    what, (one, other) = twins
    made = aedr.calibrate(rng.lognormal(0, 0.1, 60), autoencoder=one.autoencoder, size_rule="crop2")
    made.check_against(Scorer([one]).protocol(one))
    sides = [getattr(candidate.identity, what) for candidate in (one, other)]
    with pytest.raises(aedr.CalibrationError, match=f"{what}: calibrated {sides[0]!r}, now {sides[1]!r}"):
        made.check_against(Scorer([other]).protocol(other))


def test_no_two_of_them_share_a_part_of_an_evaluation(twins, tmp_path):
    _, candidates = twins
    (tmp_path / "a.png").write_bytes(b"any")
    items = [("test", Item("a.png", tmp_path / "a.png"))]
    methods = {"aedr": make_methods()["aedr"]}
    files = {_Task(methods, c, Processing("none"), "real", items, 16, 2, 1).file(tmp_path, {}) for c in candidates}
    assert len(files) == 2


def test_no_two_of_them_go_on_in_one_folder(twins):
    what, candidates = twins
    first, second = (json.loads(json.dumps(settings(Scorer([c])))) for c in candidates)
    assert list(differences(first, second)) == [f"models.m.identity.{what}"]


def test_names_are_for_people_and_everything_else_counts():
    protocol = Protocol(Identity("m", "0" * 64, None, "float32", "highest"), settings={"gamma": 1.0}, size_rule="crop8")
    renamed = dataclasses.replace(protocol, identity=dataclasses.replace(protocol.identity, name="n"))
    assert renamed.differences(protocol) == {}
    assert renamed.fingerprint() == protocol.fingerprint()
    changes = {"method": "ronan", "settings": {"gamma": 2.0}, "size_rule": "crop64", "processing": "jpeg75"}
    changed = [dataclasses.replace(protocol, **{name: value}) for name, value in changes.items()]
    assert [list(protocol.differences(other)) for other in changed] == [
        ["method"],
        ["settings.gamma"],
        ["size_rule"],
        ["processing"],
    ]
    assert len({other.fingerprint() for other in (protocol, *changed)}) == 5
    assert protocol.differences(changed[1]) == {"settings.gamma": (1.0, 2.0)}


def test_the_authors_size_of_a_model_is_part_of_its_size_rule():
    """Kandinsky 2.1 is brought to 512 pixels by name, a folder of the same weights is not."""
    autoencoder = random_autoencoder(VQ)
    weights = aedr.weights_hash(autoencoder)
    by_name, by_folder = Candidate("k", autoencoder, weights, 512), Candidate("k", autoencoder, weights)
    rules = [Scorer([c], config=aedr.SignalConfig.official()).protocol(c).size_rule for c in (by_name, by_folder)]
    assert rules == ["official512", "official"]


def test_losses_without_a_name_are_compared_by_nobody(rng, tmp_path):
    """Two lambdas of one module describe themselves alike."""
    one, other = (aedr.SignalConfig(loss=loss) for loss in (lambda a, b: aedr.mse(a, b), lambda a, b: aedr.mae(a, b)))
    assert one.describe() == other.describe()
    made = aedr.calibrate(rng.lognormal(0, 0.1, 60), config=one)
    with pytest.raises(aedr.AedrError, match="<lambda>: no name tells it from another"):
        made.save(tmp_path / "m.json")
    autoencoder = tiny_autoencoder("functions")
    scorer = Scorer([Candidate("m", autoencoder, aedr.weights_hash(autoencoder))], config=one)
    with pytest.raises(aedr.AedrError, match="<lambda>: no name tells it from another"):
        settings(scorer)
    assert not list(tmp_path.iterdir())


def test_families_by_either_hash():
    a = Identity("a", "0" * 64, True, "float32", rounded_hash="1" * 64)
    copy = dataclasses.replace(a, weights_hash="2" * 64)
    older, unknown = dataclasses.replace(a, rounded_hash=None), Identity("x")
    assert a.shares_family(copy)
    assert a.shares_family(older)
    assert not copy.shares_family(older)  # by the weights alone they differ, and more is not known
    assert not dataclasses.replace(copy, rounded_hash=None).shares_family(older)
    assert not a.shares_family(dataclasses.replace(copy, quantize=False))
    assert a.shares_family(unknown) is unknown.shares_family(a) is None
    functions = dataclasses.replace(a, dtype=None)  # no network: which functions take these weights nobody knows
    assert functions.shares_family(functions) is functions.shares_family(a) is None
    assert functions.shares_family(dataclasses.replace(functions, weights_hash="3" * 64, rounded_hash=None)) is False
    # It follows from the weights: where they are equal it is no difference of what was measured.
    assert Protocol(a).differences(Protocol(older)) == {}
    assert Protocol(a).fingerprint() == Protocol(older).fingerprint() != Protocol(copy).fingerprint()
    assert list(Protocol(a).differences(Protocol(copy))) == ["identity.weights_hash"]
    loaded = tiny_autoencoder("vq")
    assert Identity.of(loaded).rounded_hash == aedr.weights_hash(loaded, rounded=True)


def test_functions_that_close_over_their_weights_have_no_identity():
    closed = Identity.of(aedr.from_functions(lambda p, x: x, lambda p, z: z))
    assert closed.weights_hash is closed.rounded_hash is closed.family is None
    assert Identity.of(tiny_autoencoder("functions")).family is not None
    given = load_candidate(aedr.from_functions(lambda p, x: x, lambda p, z: z), name="m")
    assert given.identity == dataclasses.replace(closed, name="m")


def test_a_network_that_is_handed_over_has_both_hashes():
    """By the rounded one it is one family with its bfloat16 copy."""
    loaded = random_autoencoder(VQ)
    assert load_candidate(loaded, name="m").identity == Identity.of(loaded, name="m")


def test_rows_know_as_much_of_a_model_as_its_candidate(tmp_path):
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    closed = aedr.from_functions(lambda p, x: x[:, ::8, ::8], lambda p, z: z.repeat(8, 1).repeat(8, 2), factor=8)
    for autoencoder in (closed, tiny_autoencoder("functions")):
        candidate = load_candidate(autoencoder, name="m")
        scorer = Scorer([candidate])
        (row,) = scorer.score(find_images([tmp_path]), workers=0)
        assert row.identity == candidate.identity
        assert protocols_of([row], Setup()) == {"m": scorer.protocol(candidate)}
    assert Identity.of(None, name="m") == Identity("m")
