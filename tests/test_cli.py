"""The command line, in process: outputs by ending, JSON, exit codes, interruption."""

import csv
import dataclasses
import io
import itertools
import json
import os
import re
import signal
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make_tiny import QUICK, make_tensors, textured, write_folder
from PIL import Image

from aedr_jax import Calibration, __version__, api
from aedr_jax.api import decisions
from aedr_jax.api.scores import numbered
from aedr_jax.cli.main import console, main
from aedr_jax.decision.null import Null
from aedr_jax.inputs.sources import Item, Listed, until_failure
from aedr_jax.interruption import deferred, interruptible, kept_handlers
from aedr_jax.scoring import scorer as scoring
from aedr_jax.scoring.job import Finished, Setup

pytestmark = pytest.mark.usefixtures("two_devices", "decoded_here")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two models in the order of a fresh user: weights, own images, photographs."""
    root = tmp_path_factory.mktemp("world")
    for name, seed in (("m1", 0), ("m2", 1)):
        write_folder(root / name, QUICK, make_tensors(QUICK, seed=seed))
    rng = np.random.default_rng(0)
    for i in range(6):
        (root / "own").mkdir(exist_ok=True)
        textured(rng).save(root / "own" / f"{i}.png")
    (root / "bad.png").write_text("no image")
    return root


@pytest.fixture(scope="module")
def calibrations(world):
    for name in ("m1", "m2"):
        code = main(
            [
                "calibrate",
                str(world / "own"),
                "--model",
                str(world / name),
                "--out",
                str(world / "cal" / f"{name}.json"),
            ]
        )
        assert code == 0
    return world / "cal"


@pytest.fixture(scope="module")
def of_paper(world):
    """A calibration of the paper's signal, for m1."""
    call = ["calibrate", str(world / "own"), "--model", str(world / "m1"), "--preset", "paper", "--out"]
    assert main([*call, str(world / "paper" / "m1.json")]) == 0
    return ["--preset", "paper", "--calibrations", str(world / "paper")]


def test_score_to_a_file(world, tmp_path, capsys, monkeypatch):
    """Into each ending the command itself writes; the images are measured for the first."""
    whole, measured = scoring.Scorer.score, []

    def once(self, items, on_progress, workers):
        if measured:
            assert len(list(items)) == len(measured)
        else:
            measured.extend(whole(self, items, on_progress=on_progress, workers=workers))
        yield from measured

    monkeypatch.setattr(scoring.Scorer, "score", once)
    inputs = [str(world / "own" / "*.png"), str(world / "bad.png")]
    readers = {
        "parquet": lambda file: pq.read_table(file).to_pylist(),
        "csv": lambda file: list(csv.DictReader(io.StringIO(file.read_text()))),
        "jsonl": lambda file: [json.loads(line) for line in file.read_text().splitlines()],
    }
    for ending, read in readers.items():
        out = tmp_path / f"scores.{ending}"
        assert main(["score", *inputs, "--model", str(world / "m1"), "--out", str(out)]) == 0
        assert "7 images, 1 unreadable, 7 rows" in capsys.readouterr().out
        rows = read(out)
        assert [row["status"] for row in rows] == ["ok"] * 6 + ["error"]
        assert [row["id"] for row in rows][-1].endswith("bad.png")  # the order of the inputs
        assert all(float(row["signal"]) > 0 for row in rows[:6])
    made = json.loads(pq.read_schema(tmp_path / "scores.parquet").metadata[b"aedr_jax.made"])
    assert made["command"].startswith("aedr score ")
    assert made["versions"]["aedr-jax"] == __version__


def test_score_prints_csv_or_json(world, capsys):
    assert main(["score", str(world / "own" / "0.png"), "--model", str(world / "m1")]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert main(["score", str(world / "own" / "0.png"), "--model", str(world / "m1"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["signal"] == float(row["signal"])


def test_calibrate_records_its_provenance(world, calibrations, capsys):
    calibration = Calibration.load(calibrations / "m1.json")
    assert (calibration.model, len(calibration.scores), calibration.alpha) == ("m1", 6, 0.05)
    assert calibration.provenance.source == str(world / "m1")
    assert calibration.protocol.size_rule == "crop2"
    assert calibration.aligned
    assert len(calibration.provenance.images_hash) == 64
    out = calibrations.parent / "again.json"
    main(
        [
            "calibrate",
            str(world / "own"),
            str(world / "bad.png"),
            "--model",
            str(world / "m1"),
            "--out",
            str(out),
            "--json",
        ]
    )
    summary = json.loads(capsys.readouterr().out)
    assert (summary["images"], summary["left_out"]) == (6, 1)
    assert Calibration.load(out).provenance.images_hash == calibration.provenance.images_hash


def test_attribute_prints_a_table_with_the_caveat(world, calibrations, capsys):
    inputs = [str(world / "own" / "1.png"), str(world / "bad.png")]
    assert main(["attribute", *inputs, "--calibrations", str(calibrations)]) == 0
    out = capsys.readouterr().out
    header, own, bad, why, *rest = out.splitlines()
    assert re.split("  +", header) == ["image", "verdict", "foreign p (+others)", "own p"]
    assert re.search(r" m[12] \S+ \(\+1\) ", own)
    assert "error" in bad
    assert why.startswith("  | ")
    assert "bad.png" in why + rest[0]
    assert "not an image of a known format" in f"{why} {rest[0].removeprefix('  | ')}"
    assert "own p: share of 6 own images" in " ".join(rest)
    assert "does not mean a real photograph" in " ".join(rest)


def test_attribute_json_and_files(world, calibrations, tmp_path, capsys):
    inputs = [str(world / "own"), str(world / "bad.png")]
    call = ["attribute", *inputs, "--calibrations", str(calibrations), "--models", "m1,m2"]
    assert main([*call, "--json"]) == 0
    verdicts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(verdicts) == 7
    for verdict in verdicts[:6]:
        accepted = [name for name, yes in verdict["accepted"].items() if yes]
        expected = accepted[0] if len(accepted) == 1 else f"ambiguous: {', '.join(accepted)}" if accepted else "none"
        assert verdict["verdict"] == expected
        assert set(verdict["p_values"]) == set(verdict["foreign_p_values"]) == {"m1", "m2"}
        assert verdict["foreign"] == round(1 / Null.shipped().least) - 1
        assert "photograph" in verdict["caveat"]
        assert verdict["belonging"] == {"m1": 6, "m2": 6}
    assert verdicts[6]["verdict"] == "error"
    assert main([*call, "--out", str(tmp_path / "verdicts.parquet")]) == 0
    table = pq.read_table(tmp_path / "verdicts.parquet").to_pylist()
    assert [row["verdict"] for row in table] == [row["verdict"] for row in verdicts]


def test_attribute_needs_no_calibration(world, tmp_path, capsys, monkeypatch):
    models = ",".join(str(world / name) for name in ("m1", "m2"))
    call = ["attribute", str(world / "own" / "1.png"), "--models", models]
    assert main([*call, "--json"]) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert set(verdict["foreign_p_values"]) == set(verdict["scores"]) == {"m1", "m2"}
    assert verdict["p_values"] == verdict["belonging"] == verdict["likelihood_ratios"] == {}
    accepted = [name for name, p in verdict["foreign_p_values"].items() if p <= 0.025]
    assert verdict["accepted"] == {name: name in accepted for name in ("m1", "m2")}
    assert main(call) == 0
    header, row, *rest = capsys.readouterr().out.splitlines()
    assert re.split("  +", header) == ["image", "verdict", "foreign p (+others)"]
    assert re.search(r" m[12] \S+ \(\+1\)$", row)
    assert "foreign p: share of" in " ".join(rest)
    assert "own p" not in " ".join(rest)
    # By default the candidates are those whose weights are here.
    monkeypatch.setattr(decisions, "default_models", lambda: ["m1", "m2"])
    monkeypatch.setattr(decisions, "local_folder", {"m1": world / "m1", "m2": None}.get)
    monkeypatch.setattr(decisions, "named", lambda models: 1 / 0)
    monkeypatch.setattr(Setup, "scorer", lambda self, places: places["m2"])
    assert main(["attribute", str(world / "own")]) == 1
    assert "KeyError: 'm2'" in capsys.readouterr().err


def test_what_only_a_search_finds_is_told_once(world, capsys, monkeypatch):
    run = api.Run([], problems=("before",))

    def attributed(inputs, *, on_run, **options):
        on_run(run)
        return api.Attributed([], run._replace(problems=("before", "after")))

    monkeypatch.setattr(api, "attribute", attributed)
    assert main(["attribute", str(world / "own"), "--models", str(world / "m1"), "--search"]) == 1
    errors = capsys.readouterr().err
    assert errors.count("before") == errors.count("after") == 1


def test_calibrations_that_ship_are_used_on_request(world, calibrations, capsys, monkeypatch):
    monkeypatch.setattr(decisions, "list_models", lambda: ["m1", "m2", "m3"])
    files = {name: calibrations / f"{name}.json" for name in ("m1", "m2")}
    monkeypatch.setattr(decisions, "calibration_file", files.get)
    image = str(world / "own" / "1.png")
    found = []
    for where in ("shipped", str(calibrations)):
        assert main(["attribute", image, "--calibrations", where, "--models", "m1", "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1]
    assert found[0]["belonging"] == {"m1": 6}


def test_models_from_elsewhere_keep_their_names(world, tmp_path, capsys, monkeypatch):
    """Two folders called "vae", one given by a relative path; attributed from elsewhere, with a space in a list."""
    for name in ("p", "q"):
        write_folder(world / name / "vae", QUICK, make_tensors(QUICK))
    image = str(world / "own" / "1.png")
    monkeypatch.chdir(world)
    assert main(["calibrate", "own", "--model", "p/vae", "--out", f"{tmp_path}/cal/p.json"]) == 0
    made = Calibration.load(tmp_path / "cal" / "p.json")
    assert (made.model, made.provenance.source) == ("p/vae", str(world / "p" / "vae"))
    elsewhere = dataclasses.replace(made.provenance, source=str(world / "moved" / "vae"))
    mine = dataclasses.replace(made.protocol, identity=dataclasses.replace(made.protocol.identity, name="mine"))
    dataclasses.replace(made, protocol=mine, provenance=elsewhere).save(tmp_path / "cal" / "q.json")

    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    call = ["attribute", image, "--calibrations", "cal", "--json"]
    assert main([*call, "--models", f"mine={world}/q/vae, p/vae"]) == 0
    assert set(json.loads(capsys.readouterr().out)["p_values"]) == {"p/vae", "mine"}
    assert main(call) == 2
    message = capsys.readouterr().err
    assert f"calibration of mine: its model '{world}/moved/vae' is neither in the registry nor a folder here" in message
    assert "--models mine=FOLDER" in message
    assert main([*call, "--models", "p/vae, nobody"]) == 2
    assert "no calibration of nobody (there are: p/vae, mine)" in capsys.readouterr().err


def test_scores_go_by_the_same_names_into_a_file_and_a_folder(world, tmp_path, monkeypatch):
    monkeypatch.chdir(world)
    given = []

    def stopped(self, models):
        given.append(models)
        raise KeyboardInterrupt

    def finished(source, models, *args, **options):
        given.append(models)
        return Finished(0, 0, 0)

    monkeypatch.setattr(Setup, "scorer", stopped)
    monkeypatch.setattr("aedr_jax.api.score_dataset", finished)
    models = ["--model", "m1", "--model", "b=./m2", "--model", "org/repo/vae"]
    assert main(["score", "own", *models]) == 130
    assert main(["score", "own", *models, "--out", str(tmp_path / "large")]) == 0
    assert given == [{"m1": str(world / "m1"), "b": str(world / "m2"), "org/repo/vae": "org/repo/vae"}] * 2


@pytest.fixture(scope="module")
def photographs(world):
    rng = np.random.default_rng(1)
    (world / "photographs").mkdir()
    (world / "more").mkdir()
    for i in range(6):
        textured(rng).save(world / "more" / f"{i}.png")
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (66, 66, 3), dtype=np.uint8)).save(world / "photographs" / f"{i}.png")
    return world / "photographs"


def test_validation_images_pick_alpha_and_bound_false_names(world, of_paper, photographs, tmp_path, capsys):
    out = tmp_path / "cal" / "m1.json"
    options = ["--preset", "paper", "--model", str(world / "m1"), "--out", str(out)]
    few = ["calibrate", str(world / "own"), *options]
    assert main([*few, "--validation", str(photographs)]) == 2
    assert "6 belonging images; picking alpha takes at least 10" in capsys.readouterr().err
    call = ["calibrate", str(world / "own"), str(world / "more"), *options]
    assert main([*call, "--validation", str(photographs), "--json"]) == 0
    printed = capsys.readouterr()
    summary = json.loads(printed.out)
    assert "warning: 12 belonging images" in printed.err
    calibration = Calibration.load(out)
    assert summary["alpha"] == calibration.alpha
    assert summary["validation"]["images"] == len(calibration.validation.scores) == 12
    assert summary["acceptance_interval"] == list(calibration.acceptance_interval)
    kept = str(tmp_path / "kept.json")
    assert main([*call[:-1], kept, "--validation", str(photographs), "--alpha", "0.1"]) == 0
    fixed = Calibration.load(kept)
    assert (fixed.alpha, fixed.validation.objective) == (0.1, "fixed alpha")
    assert main([*call, "--validation", str(photographs), "--alpha", "0.1", "--false-accepts", "0.1"]) == 2
    assert "none to pick" in capsys.readouterr().err
    inputs = ["attribute", str(world / "own"), "--json", "--preset", "paper", "--calibrations"]
    assert main([*inputs, str(out.parent), "--false-names", "0.05"]) == 0
    strict = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    # The smallest foreign p-value that 12 validation images allow is 1/13.
    assert [verdict["verdict"] for verdict in strict] == ["none"] * 6
    assert {verdict["foreign"] for verdict in strict} == {12}
    assert main(["attribute", str(world / "own"), "--json", *of_paper]) == 0  # nothing is known of foreign images
    free = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {(verdict["verdict"], verdict["foreign"]) for verdict in free} == {("m1", 0)}
    assert main([*call, "--false-accepts", "0.1"]) == 2
    assert "needs validation images" in capsys.readouterr().err


def test_calibrations_of_several_pasts(world, calibrations, tmp_path, capsys):
    folder = tmp_path / "cal"
    for past in ("none", "jpeg60"):
        call = ["calibrate", str(world / "own"), "--model", str(world / "m1"), "--processing", past]
        assert main([*call, "--out", str(folder / f"m1-{past}.json")]) == 0
    plain, jpeg = (Calibration.load(folder / f"m1-{past}.json") for past in ("none", "jpeg60"))
    assert (plain.protocol.processing, jpeg.protocol.processing) == ("none", "jpeg60")
    assert plain.scores == Calibration.load(calibrations / "m1.json").scores
    assert plain.scores != jpeg.scores
    capsys.readouterr()
    assert main(["attribute", str(world / "own"), "--calibrations", str(folder), "--json"]) == 0
    found = [json.loads(line)["p_values"]["m1"] for line in capsys.readouterr().out.splitlines()]
    assert main(["attribute", str(world / "own"), "--calibrations", str(calibrations), "--models", "m1", "--json"]) == 0
    alone = [json.loads(line)["p_values"]["m1"] for line in capsys.readouterr().out.splitlines()]
    assert all(both >= one for both, one in zip(found, alone, strict=True))
    with pytest.raises(SystemExit, match="2"):
        main([*call[:-1], "sharpen2", "--out", str(folder / "no.json")])
    assert "processing 'sharpen'" in capsys.readouterr().err
    (folder / "twice.json").write_text((folder / "m1-none.json").read_text())
    assert main(["attribute", str(world / "own"), "--calibrations", str(folder)]) == 2
    assert "two calibrations of m1 (processing none)" in capsys.readouterr().err


def test_images_that_nothing_can_be_said_of(world, calibrations, of_paper, tmp_path, capsys):
    Image.new("RGB", (66, 66), (90, 120, 40)).save(tmp_path / "flat.png")
    Image.open(world / "own" / "0.png").save(tmp_path / "crushed.jpg", quality=20)
    Image.open(world / "own" / "0.png").save(tmp_path / "fine.jpg", quality=90)

    def verdicts(*options):
        assert main(["attribute", str(tmp_path), *options, "--json"]) == 0
        return {v["id"]: v for v in map(json.loads, capsys.readouterr().out.splitlines())}

    for options in (["--models", str(world / "m1")], ["--calibrations", str(calibrations), "--models", "m1"]):
        found = verdicts(*options)
        assert found["flat.png"]["verdict"] == "not assessable"
        assert found["flat.png"]["reason"].startswith("m1: too small, or too few blocks with detail")
        assert found["flat.png"]["foreign_p_values"] == found["flat.png"]["p_values"] == {}
        assert found["fine.jpg"]["reason"] == ""
        assert "quality" not in found["crushed.jpg"]["reason"]  # it is compared with itself
    found = verdicts(*of_paper)
    assert found["crushed.jpg"]["verdict"] == found["flat.png"]["verdict"] == "not assessable"
    assert "quality 20" in found["crushed.jpg"]["reason"]
    assert "homogeneity 1.000" in found["flat.png"]["reason"]
    assert "quality" not in found["fine.jpg"]["reason"]


@pytest.fixture
def containers(world, tmp_path):
    """The same images in everything that holds images, by ending; one is flat, one is broken."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in (2, 0):
        (folder / f"{i}.png").write_bytes((world / "own" / f"{i}.png").read_bytes())
    Image.new("RGB", (66, 66), (90, 120, 40)).save(folder / "flat.jpg")
    (folder / "bad.png").write_text("no image")
    (folder / "notes.txt").write_text("no image")
    files = sorted(path for path in folder.iterdir() if path.suffix != ".txt")
    lines = [json.dumps({"path": str(path), "id": f"jsonl/{path.name}"}) for path in files]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    (tmp_path / "t.txt").write_text("\n".join(map(str, files)))
    for name, mark in (("csv", ","), ("tsv", "\t")):
        rows = [f"id{mark}path", *(f"{name}/{path.name}{mark}{path}" for path in files)]
        (tmp_path / f"t.{name}").write_text("\n".join(rows))
    images = {f"parquet/{path.name}": path.read_bytes() for path in files}
    pq.write_table(pa.table({"id": list(images), "image": list(images.values())}), tmp_path / "t.parquet")
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for path in [*files, folder / "notes.txt"]:
            tar.add(path, path.name)
    (tmp_path / "t.tar.zst").write_bytes(pa.compress((tmp_path / "t.tar").read_bytes(), "zstd", asbytes=True))
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        for path in files:
            archive.write(path, path.name)
    return tmp_path


@pytest.mark.usefixtures("decoder_processes")
def test_attribute_reads_every_container(calibrations, containers, capsys):
    endings = ("csv", "tsv", "jsonl", "txt", "parquet", "tar", "tar.zst", "zip")
    inputs = [str(containers / "images"), *(str(containers / f"t.{ending}") for ending in endings)]
    call = ["--calibrations", str(calibrations), "--models", "m1", "--json"]
    assert main(["attribute", *inputs, *call]) == 0
    printed = capsys.readouterr()
    assert "3 passed over: .txt 3" in printed.err  # of the folder and two archives
    found = [json.loads(line) for line in printed.out.splitlines()]
    first, *others = (found[i : i + 4] for i in range(0, len(found), 4))
    assert [v["id"] for v in first] == ["0.png", "2.png", "bad.png", "flat.jpg"]
    assert [v["verdict"] for v in first[2:]] == ["error", "not assessable"]
    assert "too few blocks" in first[3]["reason"]
    assert len(others) == len(endings)
    for group in others:
        assert [Path(v["id"]).name for v in group] == [v["id"] for v in first]
        for name in ("p_values", "foreign_p_values", "verdict", "reason", "sha256"):
            assert [v[name] for v in group] == [v[name] for v in first]
    (containers / "t.7z").touch()
    assert main(["attribute", str(containers / "t.7z"), *call]) == 2
    assert "files of this kind are not read" in capsys.readouterr().err


def test_score_and_calibrate_read_containers(world, calibrations, tmp_path, capsys):
    with tarfile.open(tmp_path / "own.tar", "w") as tar:
        for i in range(6):
            tar.add(world / "own" / f"{i}.png", f"{i}.png")
    fit = ["calibrate", str(tmp_path / "own.tar"), "--model", str(world / "m1"), "--out", str(tmp_path / "c.json")]
    assert main(fit) == 0
    found, wanted = (Calibration.load(path) for path in (tmp_path / "c.json", calibrations / "m1.json"))
    assert (found.scores, found.provenance.images_hash) == (wanted.scores, wanted.provenance.images_hash)
    (tmp_path / "t.csv").write_text(f"name,path\nfirst,{world / 'own' / '0.png'}\nagain,{world / 'own' / '0.png'}\n")
    call = ["score", str(tmp_path / "t.csv"), "--model", str(world / "m1"), "--out", str(tmp_path / "s.csv")]
    assert main([*call, "--id-column", "name"]) == 0
    assert "2 images, 0 unreadable, 2 rows" in capsys.readouterr().out
    first, again = csv.DictReader(io.StringIO((tmp_path / "s.csv").read_text()))
    assert (first["id"], again["id"]) == ("first", "again")
    assert first["signal"] == again["signal"]


def test_what_was_read_before_the_damage_has_its_rows(world, calibrations, containers, tmp_path, capsys):
    (tmp_path / "t.csv").write_text('id,path\na,images/2.png\nb,images/2.png\nc,"images/0.png\n')
    inputs = [str(tmp_path / "t.csv"), str(tmp_path / "t.zip")]
    assert main(["attribute", *inputs, "--calibrations", str(calibrations), "--models", "m1", "--json"]) == 1
    printed = capsys.readouterr()
    found = [json.loads(line)["id"] for line in printed.out.splitlines()]
    assert found == ["a", "b", *(f"t.zip/{name}" for name in ("0.png", "2.png", "bad.png", "flat.jpg"))]
    assert "t.csv: line 4: a quote is not closed" in printed.err
    fit = ["calibrate", str(tmp_path / "t.csv"), "--model", str(world / "m1"), "--out", str(tmp_path / "c.json")]
    assert main(fit) == 1
    assert "no calibration is made of a part" in capsys.readouterr().err
    assert not (tmp_path / "c.json").exists()


def test_images_of_one_id_and_path_are_said():
    items = [Item("t.tar/a.png", "t.tar::a.png", data) for data in (b"1", b"2")]
    items.insert(1, Item("t.tar/a.png", "other/t.tar::a.png"))
    order, failures = {}, []
    assert list(until_failure(numbered(Listed(items), order), failures)) == items[:2]
    assert list(order.values()) == [0, 1]
    assert "1 images have another's id and path, such as t.tar/a.png" in str(failures[0])


def test_attribute_refuses_other_weights_and_settings(world, calibrations, tmp_path, capsys, monkeypatch):
    def moved(source):
        made = Calibration.load(calibrations / "m1.json")
        provenance = dataclasses.replace(made.provenance, source=source)
        dataclasses.replace(made, provenance=provenance).save(tmp_path / "cal" / "m1.json")

    moved(str(tmp_path / "m1"))
    write_folder(tmp_path / "m1", QUICK, make_tensors(QUICK, seed=5))
    call = ["attribute", str(world / "own"), "--calibrations"]
    assert main([*call, str(tmp_path / "cal")]) == 2
    assert "weights_hash: calibrated" in capsys.readouterr().err
    for options, message in (
        (["--preset", "paper"], "settings.clip: calibrated True, now False"),
        (["--dtype", "bfloat16"], "dtype: calibrated 'float32', now 'bfloat16'"),
        (["--precision", "default"], "precision: calibrated 'highest', now 'default'"),
        (["--multiple", "8"], "size_rule: calibrated 'crop2', now 'crop8'"),
    ):
        assert main([*call, str(calibrations), *options]) == 2
        assert message in capsys.readouterr().err
    # What a file says is not downloaded; what the user says is looked for.
    moved("stranger/weights/vae")
    monkeypatch.setattr(scoring, "load_autoencoder", lambda model, **options: 1 / 0)
    assert main([*call, str(tmp_path / "cal")]) == 2
    assert "nothing is downloaded on a file's word; say where it is (--models m1=FOLDER), or" in capsys.readouterr().err
    assert main([*call, str(tmp_path / "cal"), "--models", "stranger/weights/vae"]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_sizes_of_no_calibration_are_not_assessable_where_the_signal_decides(world, of_paper, tmp_path, capsys):
    Image.open(world / "own" / "0.png").resize((128, 128), Image.Resampling.BICUBIC).save(tmp_path / "large.png")
    assert main(["attribute", str(tmp_path), *of_paper, "--json"]) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert (verdict["verdict"], verdict["status"]) == ("not assessable", "ok")
    assert verdict["reason"].startswith("m1: 128×128 pixels; calibrated on 66×66: crop it to such a size")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (["score", "missing.png", "--model", "M"], "no such file"),
        (["score", "OWN", "--model", "sd9"], "no model of the registry"),
        (["score", "OWN", "--model", "M", "--out", "scores.xlsx"], "ending"),
        (["score", "OWN", "--model", "M", "--model", "M"], "two models of one name"),
        (["calibrate", "OWN", "--model", "M", "--out", "x.json", "--alpha", "2"], "alpha"),
        (["calibrate", "OWN/0.png", "--model", "M", "--out", "x.json"], "1 given"),
        (["attribute", "OWN", "--calibrations", "OWN"], "no calibration"),
        (["attribute", "OWN", "--calibrations", "CAL", "--models", "m1,m7"], "no calibration of m7"),
        (
            ["attribute", "OWN", "--models", "M", "--preset", "paper"],
            "settings 'paper' have no alignment: verdicts then",
        ),
        (["attribute", "OWN", "--models", "M", "--preset", "official"], "need calibrations (aedr calibrate, and"),
        (["attribute", "OWN", "--models", "M", "--false-names", "1"], "false names 1.0: expected a share in (0, 1)"),
        (["evaluate", "OWN", "--out", "x", "--models", "M", "--ronan-models", "m1, m7"], "--ronan-models m7"),
    ],
)
def test_wrong_calls_exit_with_2_and_one_reason(world, calibrations, capsys, monkeypatch, tmp_path, call, message):
    monkeypatch.chdir(tmp_path)
    places = {
        "OWN": str(world / "own"),
        "OWN/0.png": str(world / "own" / "0.png"),
        "M": str(world / "m1"),
        "CAL": str(calibrations),
    }
    assert main([places.get(word, word) for word in call]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_usage_errors_exit_with_2(capsys):
    evaluate = ["evaluate", "x", "--out", "y", "--count", "1"]
    for call in ([], ["score"], ["paint"], ["score", "x", "--model", "m", "--batch-size", "0"], evaluate):
        with pytest.raises(SystemExit) as stop:
            main(call)
        assert stop.value.code == 2
    capsys.readouterr()


def test_a_failed_run_exits_with_1(world, capsys, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("the device went away")

    monkeypatch.setattr(scoring.Scorer, "score", fail)
    assert main(["score", str(world / "own"), "--model", str(world / "m1")]) == 1
    assert "the device went away" in capsys.readouterr().err


@pytest.mark.usefixtures("decoder_processes")
def test_interruption_keeps_what_is_finished(world, capsys, monkeypatch, tmp_path):
    whole = scoring.Scorer.score

    def interrupted(self, items, **options):
        for i, row in enumerate(whole(self, items, **options)):
            if i == 3:
                raise KeyboardInterrupt
            yield row

    monkeypatch.setattr(scoring.Scorer, "score", interrupted)
    out = tmp_path / "scores.csv"
    assert main(["score", str(world / "own"), "--model", str(world / "m1"), "--out", str(out)]) == 130
    assert "3 of 6 rows are done and kept" in capsys.readouterr().err
    assert len(out.read_text().splitlines()) == 4
    calibration = tmp_path / "c.json"
    assert main(["calibrate", str(world / "own"), "--model", str(world / "m1"), "--out", str(calibration)]) == 130
    assert not calibration.exists()


def test_models(capsys):
    assert main(["models", "--json"]) == 0
    rows = {row["model"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows)[:8] == ["sd1.5", "sd2-base", "sd2.1", "sdxl", "sd3.5", "flux", "vqdm", "kandinsky2.1"]
    assert rows["kandinsky2.1"]["quantize"] is False
    assert rows["mini-kl4-a"]["weights"]
    assert rows["amused-512"]["image_range"] == [0.0, 1.0]
    assert rows["wan2.2-5b"]["native_size"] is rows["wan2.2-5b"]["gated"] is None
    assert rows["sd-ft-mse"]["source"] == "stabilityai/sd-vae-ft-mse"
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert "what the facts about a model are from is in --json (facts)\n" in out
    assert rows["flux2"]["facts"]
    lines = [line.split() for line in out.splitlines()]
    table = lines[1 : lines.index([])]
    assert len(table) == len(rows)
    classes = [line[0] for line in table]
    assert sum(a != b for a, b in itertools.pairwise(classes)) + 1 == len(set(classes))  # grouped
    assert ["AutoencoderKL", "16c", "/8", "z-image", "1024", "to", "download", "-", "flux's?"] in [x[:9] for x in table]
    assert {row["model"] for row in rows.values() if row["saved_apart"]} == {"janus", "emu3"}
    assert [line[3:8] for line in table if line[3] == "emu3"] == [["emu3", "720", "to", "save", "apart"]]


EVIL = "a\nforged  none  m1 1.000\x1b[2J\u202egnp.png"


@pytest.mark.skipif(sys.platform != "linux", reason="such names are possible on Linux only")
def test_a_name_neither_forges_a_line_nor_commands_the_terminal(world, calibrations, tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / EVIL).write_bytes((world / "own" / "0.png").read_bytes())
    (folder / f"bad {EVIL}").write_text("no image")
    (folder / "=1+1.png").write_text("no image")
    model = ["--model", str(world / "m1")]
    calls = {
        "score": (["score", str(folder), *model], 4),
        "json": (["score", str(folder), *model, "--json"], 3),
        "attribute": (["attribute", str(folder), "--calibrations", str(calibrations)], 4),
        "missing": (["score", str(folder / f"missing {EVIL}"), *model], 0),
        "calibrate": (["calibrate", str(folder), *model, "--out", str(tmp_path / "c.json")], 0),
    }
    for name, (call, lines) in calls.items():
        main(call)
        printed = capsys.readouterr()
        for text in printed:
            assert not set(text) & set("\x1b\u202e"), name
            assert not any(line.startswith("forged") for line in text.splitlines()), name
        rows = printed.out.split("\n\n")[0].splitlines()  # the table
        assert len([line for line in rows if not line.startswith("  | ")]) == lines, name
        assert r"\x1b[2J\u202e" in printed.out + printed.err or "\\u001b[2J\\u202e" in printed.out, name
        if name == "score":
            assert {row["id"][:6] for row in csv.DictReader(io.StringIO(printed.out))} == {
                "'=1+1.",
                r"a\nfor",
                "bad a\\",
            }
        if name == "json":
            assert {json.loads(line)["id"] for line in printed.out.splitlines()} == {EVIL, f"bad {EVIL}", "=1+1.png"}
    with pytest.raises(SystemExit):
        main(["score", "--batch-size", EVIL, *calls])
    assert r"a\nforged" in capsys.readouterr().err


def test_where_nothing_could_be_scored_the_run_has_failed(world, calibrations, tmp_path, capsys):
    bad, model = str(world / "bad.png"), ["--model", str(world / "m1")]
    calls = {
        "printed": ["score", bad, *model],
        "file": ["score", bad, *model, "--out", str(tmp_path / "s.csv")],
        "folder": ["score", bad, *model, "--out", str(tmp_path / "s"), "--workers", "0"],
        "attribute": ["attribute", bad, "--calibrations", str(calibrations), "--out", str(tmp_path / "v.csv")],
        "calibrate": ["calibrate", bad, *model, "--out", str(tmp_path / "c.json")],
        "validation": ["calibrate", str(world / "own"), *model, "--out", str(tmp_path / "c.json"), "--validation", bad],
    }
    for name, call in calls.items():
        assert main(call) == 1, name
        assert "none of the 1 images could be scored" in capsys.readouterr().err, name
    assert not (tmp_path / "c.json").exists()
    for name in ("s.csv", "v.csv"):  # an error row is a row
        assert "not an image" in (tmp_path / name).read_text()


def test_a_program_that_was_started_without_outputs_works(world, monkeypatch):
    monkeypatch.setattr("sys.argv", ["aedr", "attribute", str(world / "own" / "1.png"), "--models", str(world / "m1")])
    monkeypatch.setattr("sys.stdout", None)
    monkeypatch.setattr("sys.stderr", None)
    with pytest.raises(SystemExit) as ended:
        console()
    assert ended.value.code == 0
    sys.stdout.close(), sys.stderr.close()


@pytest.fixture
def terminal():
    """Signals as in a terminal: `nohup` starts what it is given with SIGHUP ignored, `&` in a script with SIGINT."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX")
@pytest.mark.usefixtures("decoder_processes", "terminal")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_what_is_finished_is_kept_where_a_signal_ends_the_run(world, tmp_path, capsys, monkeypatch, name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    whole = scoring.Scorer.score_decoded

    def killed(self, stream):
        for i, batch in enumerate(whole(self, stream)):
            if i == 2:
                os.kill(os.getpid(), number)
            yield batch

    monkeypatch.setattr(scoring.Scorer, "score_decoded", killed)
    call = ["score", str(world / "own"), "--model", str(world / "m1"), "--batch-size", "1", "--out"]
    assert main([*call, str(tmp_path / "s.csv")]) == 128 + number
    assert "2 of 6 rows are done and kept" in capsys.readouterr().err
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 3
    assert main([*call, str(tmp_path / "s"), "--workers", "0"]) == 128 + number
    assert "the same command goes on with the rest" in capsys.readouterr().err
    assert pq.read_table(tmp_path / "s").num_rows == 2
    assert signal.getsignal(number) == before


@pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX")
def test_a_second_signal_does_not_disturb_the_writing_and_handlers_of_others_stay():
    def mine(number, frame):
        raise AssertionError

    with interruptible() as received:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # as some batch systems do
        os.kill(os.getpid(), signal.SIGHUP)
    assert received == [signal.SIGTERM]
    before = signal.signal(signal.SIGTERM, mine)
    try:
        with interruptible():
            assert signal.getsignal(signal.SIGTERM) is mine
        with kept_handlers():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Ray and jax.distributed set theirs
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_waits_for_native_code(name, terminal):
    """No exception of a handler passes through XLA's dispatch."""
    events = []

    def asked(*signals):
        with deferred():
            with deferred():
                for number in signals:
                    os.kill(os.getpid(), number)
                events.append("inner")
            events.append("outer")
        events.append("never")

    with interruptible() as received:
        with pytest.raises(KeyboardInterrupt):
            asked(getattr(signal, name))
        with deferred():  # nothing is left of it
            events.append("later")
    assert events == ["inner", "outer", "later"]
    assert received == ([signal.SIGTERM] if name == "SIGTERM" else [])
    with interruptible(), pytest.raises(KeyboardInterrupt):
        asked(signal.SIGINT, signal.SIGINT)  # who asks twice does not want to wait
    assert events[-1] == "later"
