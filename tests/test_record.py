"""`attribute(record=)` and `verify`: what holds, and that a forgery, a changed pixel and a changed weight do not."""

import dataclasses
import html
import json
import shutil

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import tiny_autoencoder
from make_tiny import QUICK, make_tensors, textured, write_folder
from PIL import Image

import aedr_jax as aedr
from aedr_jax.api import verification
from aedr_jax.api.verification import P_TOLERANCE, TOLERANCE
from aedr_jax.cli.main import main
from aedr_jax.decision.null import Null
from aedr_jax.errors import CalibrationWarning, RunError, SourceError
from aedr_jax.images.codec import MAX_PIXELS
from aedr_jax.inputs.sources import Files
from aedr_jax.scoring import store
from aedr_jax.scoring.job import Measuring
from aedr_jax.scoring.made import Made
from aedr_jax.scoring.record import Record, RecordedImage
from aedr_jax.scoring.recorded import Recorded
from aedr_jax.scoring.store import manifest_of
from aedr_jax.scoring.tables import to_json
from aedr_jax.signal.protocol import told_apart

api = aedr.api

pytestmark = pytest.mark.usefixtures("two_devices", "decoded_here", "one_scorer_for_each_setup")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model, the same with one other weight, two images, and a file that is none."""
    root = tmp_path_factory.mktemp("world")
    tensors = make_tensors(QUICK)
    write_folder(root / "m1", QUICK, tensors)
    tensors["decoder.conv_out.conv.weight"].flat[0] += 0.5
    write_folder(root / "changed", QUICK, tensors)
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(2):
        textured(rng).save(root / "images" / f"{i}.png")
    (root / "images" / "bad.png").write_text("no image")
    return root


@pytest.fixture(scope="module")
def file(world):
    """A record of the folder, as the command writes it."""
    out = world / "record.json"
    assert main(["attribute", str(world / "images"), "--models", str(world / "m1"), "--record", str(out)]) == 0
    return out


@pytest.fixture
def here(world):
    """Where the record's model lies."""
    return {"models": [f"m1={world / 'm1'}"]}


def forged(file, to, change):
    """A record that was changed by somebody who can compute a digest."""
    values = json.loads(file.read_text())
    change(values)
    del values["digest"]
    to.write_text(json.dumps({**values, "digest": told_apart(values)}))
    return to


def test_what_a_record_holds(world, file):
    record, intact = Record.load(file)
    assert intact
    assert record.command == f"aedr attribute {world / 'images'} --models {world / 'm1'} --record {file}"
    assert record.versions["aedr-jax"] == aedr.__version__
    assert {"jax", "flax", "numpy", "python"} <= record.versions.keys()
    assert record.backend.startswith("cpu")
    assert record.null == Null.shipped().digest()
    assert (record.false_names, record.search, record.calibrations) == (0.05, False, {})
    model = record.models["m1"]
    weights = aedr.weights_hash(aedr.load_autoencoder(world / "m1"))
    assert model.protocol.identity.weights_hash == weights
    assert model.fingerprint == model.protocol.fingerprint()
    assert (model.protocol.size_rule, record.measuring.setup()) == ("crop2", api.Setup(aedr.SignalConfig.tiles()))
    assert [image.id for image in record.images] == ["0.png", "1.png", "bad.png"]
    found = api.attribute(world / "images", models=[f"m1={world / 'm1'}"])
    for image, verdict in zip(record.images, found.verdicts, strict=True):
        assert (image.sha256, image.verdict, image.scores) == (verdict.sha256, verdict.verdict, verdict.scores)
        assert image.alignments == verdict.scores
    rest = json.loads(file.read_text())
    del rest["command"]  # which says what was typed
    assert str(world) not in json.dumps(rest)


def test_it_holds(world, file, here):
    found = api.verify(file, world / "images", **here)
    assert found == (True, (), (), 3, (), 0, TOLERANCE)
    part = api.verify(file, world / "images" / "1.png", **here)
    assert (part.holds, part.images, part.unchecked, part.unchecked_count) == (True, 1, ("0.png", "bad.png"), 2)


def test_of_functions_in_python(world, tmp_path, capsys):
    """No file brings them: it says so, and takes them from who has them."""
    functions = tiny_autoencoder("functions")
    image = str(world / "images" / "1.png")
    file = tmp_path / "record.json"
    api.attribute(image, models={"mine": functions}, record=file)
    assert main(["verify", str(file), image]) == 2
    said = capsys.readouterr().err
    assert "'mine' is an autoencoder of from_functions, which no file can bring" in said
    assert "models={'mine': autoencoder}" in said
    assert api.verify(file, image, models={"mine": functions}).holds
    other = dataclasses.replace(functions, params=jax.tree.map(lambda leaf: 1.1 * leaf, functions.params))
    assert not api.verify(file, image, models={"mine": other}).holds
    with pytest.raises(SourceError, match="no model yours in the record"):
        api.verify(file, image, models={"yours": functions})


def test_a_page_holds_its_record_too(world, file, here, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(f'<!doctype html><title>x</title><pre id="record">{html.escape(file.read_text())}</pre>')
    assert Record.load(page) == Record.load(file)


def test_a_changed_pixel_is_detected(world, file, here, tmp_path):
    pixels = np.array(Image.open(world / "images" / "0.png"))
    pixels[30, 30, 0] ^= 1
    Image.fromarray(pixels).save(tmp_path / "0.png")
    found = api.verify(file, tmp_path / "0.png", **here)
    assert not found.holds
    assert (found.differences[0].of, found.differences[0].what) == ("0.png", "bytes (sha256)")
    Image.fromarray(pixels).save(tmp_path / "unknown.png")
    (other,) = api.verify(file, tmp_path / "unknown.png", **here).differences
    assert (other.of, other.recorded) == ("unknown.png", "not in the record")


def test_a_changed_weight_is_detected_and_said_first(world, file):
    found = api.verify(file, world / "images" / "0.png", models=[f"m1={world / 'changed'}"])
    assert not found.holds
    assert (found.differences[0].of, found.differences[0].what) == ("m1", "weights_hash")
    assert any(one.what == "alignments with m1" for one in found.differences[1:])


@pytest.fixture(scope="module")
def folder(world):
    """A folder of verdicts, as the command writes it, each image a part."""
    out = world / "verdicts"
    source, models = world / "images", [f"m1={world / 'm1'}"]
    api.attribute_dataset(source, out, models=models, workers=0, part_images=1, command="aedr attribute")
    return out


def copied(folder, to):
    """The folder and what lies beside it."""
    shutil.copytree(folder, to)
    shutil.copy(manifest_of(folder), manifest_of(to))
    return to


def test_a_folder_is_its_own_record(world, file, folder, here):
    """It says what a record in one file says, whichever images are asked about."""
    for name in (folder, manifest_of(folder)):
        assert api.verify(name, world / "images", **here) == (True, (), (), 3, (), 0, TOLERANCE)
    part = api.verify(folder, world / "images" / "1.png", **here)
    assert (part.holds, part.images, sorted(part.unchecked), part.unchecked_count) == (True, 1, ["0.png", "bad.png"], 2)
    whole, loaded = Record.load(file)[0], Recorded.load(folder)
    asked = loaded.look_up(whole.images)
    assert sorted(asked.images, key=lambda image: image.id) == list(whole.images)
    assert asked.made[0].command == "aedr attribute"
    assert dataclasses.replace(asked.made[0], created="", command=None) == dataclasses.replace(
        whole.made, created="", command=None
    )
    for name in ("measuring", "false_names", "search", "null", "calibrations"):
        assert getattr(loaded.record, name) == getattr(whole, name)
    assert loaded.record.models["m1"].fingerprint == whole.models["m1"].fingerprint
    assert {path.suffix for path in folder.iterdir()} == {".parquet"}  # so that it reads as one table
    assert str(world) not in manifest_of(folder).read_text()


def test_a_run_that_stopped_and_was_resumed_has_one_record(world, here, tmp_path, monkeypatch):
    """Of what is finished by then; other versions that a later run had are said."""

    class Stopped(Files):
        def __iter__(self):
            yield next(iter(super().__iter__()))
            raise RunError("the disk went away")

    options = {"models": here["models"], "workers": 0, "part_images": 1}
    out = tmp_path / "verdicts"
    with pytest.raises(RunError, match="the disk went away"):
        api.attribute_dataset(Stopped([world / "images"]), out, **options)
    begun = manifest_of(out).read_bytes()
    (first,) = out.iterdir()
    found = api.verify(out, world / "images" / "0.png", **here)
    assert (found.holds, found.unchecked_count) == (True, 0)
    (missing,) = api.verify(out, world / "images" / "1.png", **here).differences
    assert (missing.of, missing.recorded) == ("1.png", "not in the record")

    versions = {**Made.now().versions, "jax": "9"}
    monkeypatch.setattr(store.Made, "now", lambda command=None: Made("", command, versions, "abacus"))
    for share in range(2):
        api.attribute_dataset(world / "images", out, **options, shard=(share, 2))
    monkeypatch.undo()
    assert len(list(out.iterdir())) == 3
    assert first in out.iterdir()
    assert manifest_of(out).read_bytes() == begun
    found = api.verify(out, world / "images", **here)
    assert (found.holds, found.images, found.unchecked_count) == (True, 3, 0)
    assert found.notes[0] == f"jax: recorded with 9, now {jax.__version__}"
    assert found.notes[1].startswith("device: recorded with abacus, now cpu")
    assert api.verify(out, world / "images" / first_image(first), **here).notes == ()


def first_image(part):
    return pq.read_table(part)["id"][0].as_py()


def test_a_changed_pixel_and_a_changed_weight_are_detected_in_a_folder(world, folder, here, tmp_path):
    pixels = np.array(Image.open(world / "images" / "0.png"))
    pixels[30, 30, 0] ^= 1
    Image.fromarray(pixels).save(tmp_path / "0.png")
    found = api.verify(folder, tmp_path / "0.png", **here)
    assert (found.differences[0].of, found.differences[0].what) == ("0.png", "bytes (sha256)")
    found = api.verify(folder, world / "images" / "0.png", models=[f"m1={world / 'changed'}"])
    assert (found.differences[0].of, found.differences[0].what) == ("m1", "weights_hash")
    assert any(one.what == "alignments with m1" for one in found.differences[1:])


def change_part(folder, change, *, digest=True):
    """The rows of 0.png, changed by somebody who can compute a digest, or cannot."""
    (part,) = (path for path in folder.iterdir() if first_image(path) == "0.png")
    table = pq.read_table(part)
    rows = table.to_pylist()
    change(rows[0])
    changed = pa.Table.from_pylist(rows, schema=table.schema)
    if digest:
        metadata = {**table.schema.metadata, store.DIGEST_KEY: store.digest_of(changed).encode()}
        changed = changed.replace_schema_metadata(metadata)
    pq.write_table(changed, part)
    return part


def forge(name, value):
    def change(row):
        row[name] = value if isinstance(value, str) else {"m1": value * row[name]["m1"]}

    return change


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (forge("verdict", "m1"), "verdict"),
        (forge("foreign_p_values", 0.6), "foreign_p_values with m1"),
        (forge("alignments", 2.0), "alignments with m1"),
        (forge("alignment_errors", 2.0), "alignment_errors with m1"),
        (forge("scores", 2.0), "scores with m1"),
    ],
)
def test_a_forged_part_is_detected(world, folder, here, tmp_path, change, what):
    out = copied(folder, tmp_path / "forged")
    part = change_part(out, change)
    found = api.verify(out, world / "images" / "0.png", **here)
    assert (found.differences[0].of, found.differences[0].what) == ("0.png", what)
    assert api.verify(out, world / "images" / "1.png", **here).holds  # nothing is said of what is not asked for
    shutil.copy(folder / part.name, part)
    change_part(out, change, digest=False)
    found = api.verify(out, world / "images" / "0.png", **here)
    assert [(one.of, one.what) for one in found.differences[:2]] == [(part.name, "digest"), ("0.png", what)]
    part.write_bytes(b"")
    with pytest.raises(SourceError, match=rf"{part.name}: cannot be read as verdicts"):
        api.verify(out, world / "images" / "0.png", **here)


def change_folder_settings(values):
    values["settings"]["models"]["m1"]["settings"]["alignment"]["tiles"] = 9


def change_folder_null(values):
    values["settings"]["null"] = "ab" * 32


@pytest.mark.parametrize(
    ("change", "of", "what"), [(change_folder_settings, "m1", "tiles"), (change_folder_null, "null", "hash")]
)
def test_forged_settings_of_a_folder_are_detected(world, folder, here, tmp_path, change, of, what):
    out = copied(folder, tmp_path / "forged")
    forged(manifest_of(folder), manifest_of(out), change)
    found = api.verify(out, world / "images" / "1.png", **here)
    assert [(one.of, one.what) for one in found.differences] == [(of, what)]
    values = json.loads(manifest_of(folder).read_text())
    change(values)
    manifest_of(out).write_text(json.dumps(values))  # by hand, without a new digest
    found = api.verify(out, world / "images" / "1.png", **here)
    assert [(one.of, one.what) for one in found.differences] == [("record", "digest"), (of, what)]


def test_verdicts_from_scores_have_a_record_too(world, folder, here, tmp_path):
    """Whatever the scores lie in; images are measured as they were."""
    models, setup = {"m1": str(world / "m1")}, {"config": aedr.SignalConfig.tiles(), "multiple": 4}
    aedr.score_dataset(world / "images", models, tmp_path / "scores", **setup, workers=0)
    api.score(world / "images", [f"m1={world / 'm1'}"], setup=api.Setup(**setup), out=tmp_path / "scores.parquet")
    for name in ("scores", "scores.parquet"):
        out, own = tmp_path / "verdicts" / name.replace(".", "-"), world / "images" / "0.png"
        out.parent.mkdir(exist_ok=True)
        api.attribute_dataset(api.Scores(tmp_path / name), out)
        measured = Recorded.load(out).record.measuring.setup()
        assert dataclasses.replace(measured, dtype=None) == api.Setup(**setup)  # rows say that it was float32
        assert api.verify(out, own, **here).holds
        api.attribute(api.Scores(tmp_path / name), record=tmp_path / "r.json")
        assert api.verify(tmp_path / "r.json", own, **here).holds
        assert not api.verify(out, own, models=[f"m1={world / 'changed'}"]).holds
    with pytest.raises(SourceError, match=r"scores\.run\.json: no record that can be read: it is of scores"):
        api.verify(tmp_path / "scores", own, **here)


def test_what_is_no_folder_of_a_run_is_refused(world, folder, tmp_path):
    with pytest.raises(SourceError, match=r"images\.run\.json: no record that can be read"):
        api.verify(world / "images", world / "images" / "0.png")
    for change in (
        lambda values: values.pop("made"),
        lambda values: values["measuring"].update(most_decoded="many"),
        lambda values: values["settings"].update(models=[]),
    ):
        forged(manifest_of(folder), tmp_path / "x.run.json", change)
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(SourceError, match=r"x\.run\.json: no record that can be read"):
            api.verify(tmp_path / "x", world / "images" / "0.png")


def change_verdict(values):
    values["images"][0]["verdict"] = "m1"


def change_p_value(values):
    values["images"][0]["foreign_p_values"]["m1"] /= 1.5


def change_alignment(values):
    image = values["images"][0]
    image["alignments"]["m1"] -= 0.3
    image["scores"]["m1"] -= 0.3


def change_error(values):
    values["images"][0]["alignment_errors"]["m1"] *= 2


def leave_a_score_out(values):
    values["images"][0]["scores"] = {}


def change_null(values):
    values["null"] = "ab" * 32


def change_fingerprint(values):
    values["models"]["m1"]["fingerprint"] = "0" * 16


def change_settings(values):
    values["models"]["m1"]["protocol"]["settings"]["alignment"]["tiles"] = 9


@pytest.mark.parametrize(
    ("change", "of", "what"),
    [
        (change_verdict, "0.png", "verdict"),
        (change_p_value, "0.png", "foreign_p_values with m1"),
        (change_alignment, "0.png", "alignments with m1"),
        (change_error, "0.png", "alignment_errors with m1"),
        (leave_a_score_out, "0.png", "scores with m1"),
        (change_null, "null", "hash"),
        (change_fingerprint, "m1", "fingerprint"),
        (change_settings, "m1", "tiles"),
    ],
)
def test_a_forged_record_is_detected(world, file, here, tmp_path, change, of, what):
    found = api.verify(forged(file, tmp_path / "f.json", change), world / "images" / "0.png", **here)
    assert not found.holds
    assert (found.differences[0].of, found.differences[0].what) == (of, what)
    # By hand, without a new digest, it is noticed before anything is measured.
    values = json.loads(file.read_text())
    change(values)
    (tmp_path / "g.json").write_text(json.dumps(values))
    assert not Record.load(tmp_path / "g.json")[1]


def test_an_edited_file_is_said_first(world, file, here, tmp_path):
    (tmp_path / "r.json").write_text(file.read_text().replace('"search": false', '"search": false, "note": ""'))
    with pytest.raises(SourceError, match="note unknown"):
        Record.load(tmp_path / "r.json")
    (tmp_path / "r.json").write_text(file.read_text().replace("aedr attribute", "aedr  attribute"))
    found = api.verify(tmp_path / "r.json", world / "images" / "0.png", **here)
    assert [(one.of, one.what) for one in found.differences] == [("record", "digest")]


def image(**values):
    empty = RecordedImage("i", "ab", "m", "ok", "", "", {}, {}, {}, {}, {})
    return dataclasses.replace(empty, **values)


@pytest.mark.parametrize(
    ("field", "tolerance"), [("alignments", TOLERANCE), ("scores", TOLERANCE), ("p_values", P_TOLERANCE)]
)
def test_figures_may_differ_by_the_tolerance_and_no_more(field, tolerance):
    def compared(other):
        return verification._of_image(image(**{field: {"m": 0.5}}), image(**{field: {"m": other}}))

    assert compared(0.5 + 0.9 * tolerance) == []
    assert [one.what for one in compared(0.5 + 1.1 * tolerance)] == [f"{field} with m"]
    assert compared(float("nan"))


def test_no_place_is_taken_from_a_record(world, file, tmp_path, monkeypatch):
    def load(self, models, **options):
        raise AssertionError("models are loaded")

    monkeypatch.setattr(api.Setup, "scorer", load)
    own = world / "images" / "0.png"
    with pytest.raises(SourceError, match="'m1' is none whose weights are here by that name, and nothing is down"):
        api.verify(file, own)
    with pytest.raises(SourceError, match=r"no model m2 in the record \(there are: m1\)"):
        api.verify(file, own, models=[f"m2={world / 'm1'}"])

    def rename(to):
        return lambda values: values.update(models={to: values["models"]["m1"]})

    for name in (str(world / "m1"), "stranger/weights/vae", f"m1={world / 'm1'}"):
        with pytest.raises(SourceError, match="none whose weights are here"):
            api.verify(forged(file, tmp_path / "p.json", rename(name)), own)
    with pytest.raises(SourceError, match=r"say where it is: --models flux$"):  # nor is a registry's model downloaded
        api.verify(forged(file, tmp_path / "p.json", rename("flux")), own)
    with pytest.raises(SourceError, match="a record without a model"):
        api.verify(forged(file, tmp_path / "p.json", lambda values: values.update(models={})), own)


@pytest.mark.parametrize(
    ("measuring", "message"),
    [({"preset": "custom"}, "settings 'custom'"), ({"most_decoded": 2 * MAX_PIXELS}, "on a file's word")],
)
def test_what_no_file_can_ask_for(measuring, message):
    made = dataclasses.replace(Measuring.of(api.Setup()), **measuring)
    with pytest.raises(SourceError, match=message):
        made.setup()


@pytest.mark.parametrize("text", ["", "{}", "[]", "<html></html>", '{"format": "aedr_jax record 1"}', "[" * 100_000])
def test_what_is_no_record_is_refused(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(SourceError, match=r"r\.json: no record that can be read"):
        Record.load(tmp_path / "r.json")
    with pytest.raises(SourceError, match="no record that can be read"):
        Record.load(tmp_path / "missing.json")


def test_with_calibrations(world, tmp_path):
    with pytest.warns(CalibrationWarning):
        made = api.calibrate(_more(tmp_path), f"m1={world / 'm1'}")
    made.save(tmp_path / "cal" / "m1.json")
    assert json.loads((tmp_path / "cal" / "m1.json").read_text())["digest"] == made.digest()
    out, own = tmp_path / "r.json", world / "images" / "0.png"
    api.attribute(own, calibrations=tmp_path / "cal", record=out)
    assert Record.load(out)[0].calibrations == {"m1": (made.digest(),)}
    here = {"models": [f"m1={world / 'm1'}"]}
    with pytest.raises(SourceError, match="its verdicts are with calibrations; say where"):
        api.verify(out, own, **here)
    assert api.verify(out, own, calibrations=tmp_path / "cal", **here).holds
    api.attribute_dataset(own, tmp_path / "verdicts", calibrations=tmp_path / "cal", workers=0)
    assert Recorded.load(tmp_path / "verdicts").record.calibrations == {"m1": (made.digest(),)}
    assert api.verify(tmp_path / "verdicts", own, calibrations=tmp_path / "cal", **here).holds
    provenance = dataclasses.replace(made.provenance, created="yesterday")
    other = dataclasses.replace(made, provenance=provenance)
    (difference,) = api.verify(out, own, calibrations={"m1": other}, **here).differences
    assert (difference.of, difference.what) == ("m1", "calibrations")


def _more(folder):
    (folder / "own").mkdir()
    rng = np.random.default_rng(3)
    for i in range(6):
        textured(rng).save(folder / "own" / f"{i}.png")
    return folder / "own"


def test_the_command(world, file, tmp_path, capsys):
    model = ["--models", f"m1={world / 'm1'}"]
    assert main(["verify", str(file), str(world / "images"), *model]) == 0
    assert capsys.readouterr().out == "the record holds for 3 images, alignments within 0.005\n"
    path = forged(file, tmp_path / "f.json", change_verdict)
    call = ["verify", str(path), str(world / "images" / "0.png"), *model]
    assert main(call) == 1
    told = capsys.readouterr().out
    assert told.startswith("0.png: verdict: recorded m1, now ")
    assert "not given, so not checked: 1.png, bad.png" in told
    assert told.endswith("the record does not hold (1 image measured again)\n")
    assert main([*call, "--json"]) == 1
    found = api.verify(path, world / "images" / "0.png", models=[f"m1={world / 'm1'}"])
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(
        to_json({**found._asdict(), "differences": [one._asdict() for one in found.differences]})
    )
    assert main(["verify", str(tmp_path / "missing.json"), "x.png"]) == 2


def test_a_run_that_breaks_off_is_no_verification(world, file, here, monkeypatch):
    run = api.Run([], problems=("the disk went away",))
    monkeypatch.setattr(verification, "attribute", lambda *args, **options: api.Attributed([], run))
    with pytest.raises(RunError, match="the disk went away"):
        api.verify(file, world / "images", **here)
    stopped = api.Attributed([], run._replace(interrupted=True))
    monkeypatch.setattr(verification, "attribute", lambda *args, **options: stopped)
    with pytest.raises(KeyboardInterrupt):
        api.verify(file, world / "images", **here)
