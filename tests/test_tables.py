"""Rows to files, and back with the readers that people use."""

import csv
import dataclasses
import io
import json
import math
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aedr_jax import api
from aedr_jax.cli.main import main
from aedr_jax.errors import SourceError
from aedr_jax.inputs.sources import find_images
from aedr_jax.scoring.tables import CELL, check_output, for_terminal, to_json, write_csv, write_rows


@dataclasses.dataclass(frozen=True)
class Row:
    id: str
    count: int
    loss: float
    quantize: bool | None
    p_values: dict[str, float]


ROWS = [
    Row('a,"b"\n.png', 1, 0.1 + 0.2, None, {"m": 0.5, "ü": math.nan}),
    Row("写真.png", 2, math.nan, None, {"m": 1e-300}),
]


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("name", "expected"), [("s.parquet", "s.parquet"), ("scores", "scores/part-0.parquet")], ids=["file", "folder"]
)
def test_parquet(tmp_path, name, expected):
    for _ in range(2):  # a second run replaces the first
        write_rows(ROWS, tmp_path / name)
        assert files(tmp_path) == [expected]
    table = pq.read_table(tmp_path / name)
    assert table.column_names == [field.name for field in dataclasses.fields(Row)]
    assert table.column("id").to_pylist() == [row.id for row in ROWS]
    assert table.column("loss").to_pylist()[0] == ROWS[0].loss
    assert math.isnan(table.column("loss").to_pylist()[1])
    assert table.schema.field("quantize").type == pa.bool_()
    assert table.column("quantize").to_pylist() == [None, None]
    assert table.column("p_values").to_pylist()[1]["m"] == 1e-300


def test_column_without_values_joins_one_with(tmp_path):
    folder = tmp_path / "scores"
    write_rows([dataclasses.replace(ROWS[0], quantize=True)], folder)
    write_rows(ROWS, tmp_path / "s.parquet")
    (tmp_path / "s.parquet").rename(folder / "part-1.parquet")
    assert pq.read_table(folder).column("quantize").to_pylist() == [True, None, None]


def test_a_folder_of_a_run_takes_no_other_rows(tmp_path):
    """They would be taken for images that it has finished."""
    folder = tmp_path / "scores"
    folder.mkdir()
    (folder / "part-1.parquet").write_bytes(b"of a run")
    (folder / ".part-0.parquet.1.partial").write_bytes(b"of one that was killed")
    assert check_output(folder) == folder
    with pytest.raises(SourceError, match=r"holds other files, such as part-1\.parquet; name another folder"):
        write_rows(ROWS, folder)
    assert len(files(folder)) == 2
    (folder / "part-1.parquet").unlink()
    write_rows(ROWS, folder)
    write_rows(ROWS[:1], folder)
    assert len(pq.read_table(folder / "part-0.parquet")) == 1


def test_dicts_that_are_all_empty_can_be_written(tmp_path):
    """As where no image could be read, and so none has p-values."""
    write_rows([dataclasses.replace(row, p_values={}) for row in ROWS], tmp_path / "s.parquet")
    table = pq.read_table(tmp_path / "s.parquet")
    assert table.num_rows == 2
    assert table.column("id").to_pylist() == [row.id for row in ROWS]


def test_csv_holds_dicts_as_json(tmp_path):
    write_rows(ROWS, tmp_path / "s.csv")
    assert files(tmp_path) == ["s.csv"]
    with open(tmp_path / "s.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [field.name for field in dataclasses.fields(Row)]
    assert [row["id"] for row in rows] == [row.id for row in ROWS]
    assert float(rows[0]["loss"]) == ROWS[0].loss
    assert rows[1]["loss"] == "nan"
    assert rows[0]["quantize"] == ""
    assert json.loads(rows[0]["p_values"]) == {"m": 0.5, "ü": None}


def test_json_lines_are_strict(tmp_path):
    write_rows(ROWS, tmp_path / "s.jsonl")
    assert files(tmp_path) == ["s.jsonl"]

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    lines = (tmp_path / "s.jsonl").read_text(encoding="utf-8").splitlines()
    first, second = (json.loads(line, parse_constant=refuse) for line in lines)
    assert first == {**dataclasses.asdict(ROWS[0]), "p_values": {"m": 0.5, "ü": None}}
    assert second == {**dataclasses.asdict(ROWS[1]), "loss": None}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_has_null_for_what_is_no_number(value):
    assert to_json({"a": [value, (1.5, value)], "b": {"c": value}}) == '{"a": [null, [1.5, null]], "b": {"c": null}}'


@pytest.mark.parametrize("name", ["s.parquet", "s.csv", "s.jsonl", "s"])
def test_no_rows_is_a_file_without_rows(tmp_path, name):
    write_rows([], tmp_path / name)
    if name in ("s.parquet", "s"):
        assert pq.read_table(tmp_path / name).num_rows == 0
    else:
        assert (tmp_path / name).read_text().strip() == ""


@pytest.mark.parametrize("name", ["s.xlsx", "s.json", "s.parquet.gz", "s.PARQUET"])
def test_other_endings_are_refused(tmp_path, name):
    for act in (check_output, lambda path: write_rows(ROWS, path)):
        with pytest.raises(SourceError, match=r"expected an ending of \.parquet, \.csv, \.jsonl"):
            act(tmp_path / name)
    assert files(tmp_path) == []


def test_missing_folder_is_named_before_the_work(tmp_path):
    with pytest.raises(SourceError, match=r"s\.csv: the folder .*nowhere does not exist"):
        check_output(tmp_path / "nowhere" / "s.csv")
    assert check_output(str(tmp_path / "s.csv")) == tmp_path / "s.csv"


def test_file_in_place_of_a_folder_and_the_reverse_are_named_before_the_work(tmp_path):
    (tmp_path / "scores").touch()
    (tmp_path / "scores.csv").mkdir()
    with pytest.raises(SourceError, match="scores: is a file"):
        check_output(tmp_path / "scores")
    with pytest.raises(SourceError, match=r"scores\.csv: is a folder"):
        check_output(tmp_path / "scores.csv")


@pytest.mark.parametrize("name", ["s.parquet", "s.csv", "s.jsonl"])
def test_failure_leaves_the_old_file_and_nothing_else(tmp_path, name):
    (tmp_path / name).write_text("old")
    with pytest.raises((TypeError, pa.ArrowException)):
        write_rows([ROWS[0], dataclasses.replace(ROWS[1], p_values={"m": object()})], tmp_path / name)
    assert files(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "old"


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
@pytest.mark.parametrize("name", ["s.parquet", "s.csv", "s.jsonl"])
def test_file_name_that_is_no_text_can_be_written(tmp_path, name):
    with open(bytes(tmp_path) + b"/\xff.png", "w"):
        pass
    (item,) = find_images([tmp_path])
    write_rows([dataclasses.replace(ROWS[0], id=item.id)], tmp_path / name)
    if name == "s.parquet":
        written = pq.read_table(tmp_path / name).column("id").to_pylist()[0]
    else:
        written = (tmp_path / name).read_text(encoding="utf-8")
    assert "udcff.png" in written


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", r"a\nb"),
        ("a\r\tb", r"a\r\tb"),
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("\x7f\x85\x9b1m", r"\x7f\x85\x9b1m"),  # DEL, and C1 controls, of which 9b alone begins a sequence
        ("\u2028\u2029", r"\u2028\u2029"),
        ("gnp.\u202egpj", r"gnp.\u202egpj"),
        ("\u2066\u2069\u200f\u061c", r"\u2066\u2069\u200f\u061c"),
        ("\udcff", r"\udcff"),
        ("写真 é\u202f👩\u200d🎨 \\n.png", "写真 é\u202f👩\u200d🎨 \\n.png"),  # of people's own names, nothing
    ],
)
def test_what_would_command_a_terminal_is_escaped(text, shown):
    assert for_terminal(text) == shown


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(st.characters(codec="utf-8"), max_size=8))
def test_json_is_one_line_that_commands_nothing_and_says_the_same(text):
    line = to_json({"id": text})
    assert for_terminal(line) == line
    assert json.loads(line) == {"id": text}


FORMULAS = ["=1+1", "+1", "-2", "@x", "\t=1", "\r=1", "\n=1", "＝1", "'=1", "''-1"]


def unquoted(cell):
    """What README says gives the text back."""
    return cell[1:] if cell.startswith("'") and CELL.match(cell) else cell


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.one_of(st.sampled_from(FORMULAS), st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)))
def test_no_cell_is_a_formula_and_the_text_comes_back(text):
    file = io.StringIO(newline="")
    write_csv([{"id": text, "loss": -0.5, "count": -3}], file)
    (row,) = csv.DictReader(io.StringIO(file.getvalue(), newline=""))
    assert row["id"][:1] not in tuple("=+-@\t\r\n＝＋－＠")
    assert unquoted(row["id"]) == text
    assert (row["loss"], row["count"]) == ("-0.5", "-3")  # numbers stay numbers


def test_formulas_in_a_file_of_rows(tmp_path):
    rows = [dataclasses.replace(ROWS[0], id="=cmd|' /C calc'!A0", loss=-1.5)]
    write_rows(rows, tmp_path / "s.csv")
    with open(tmp_path / "s.csv", newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["id"], row["loss"]) == ("'=cmd|' /C calc'!A0", "-1.5")
    write_rows(rows, tmp_path / "s.jsonl")
    assert json.loads((tmp_path / "s.jsonl").read_text())["id"] == rows[0].id


def test_no_file_is_written_over_one_that_is_read(tmp_path, capsys):
    table = tmp_path / "list.csv"
    table.write_text("path\na.png\n")
    for call in (
        ["attribute", str(table), "--models", "mini-vq", "--out", str(table)],
        ["score", str(table), "--model", "mini-vq", "--out", str(tmp_path / "." / "list.csv")],
        ["attribute", str(table), "--models", "mini-vq", "--record", str(table)],
        ["attribute", str(table), "--models", "mini-vq", "--out", "v.csv", "--record", "v.csv"],
    ):
        assert main(call) == 2
        assert "too; name another file" in capsys.readouterr().err
    assert table.read_text() == "path\na.png\n"


def test_nor_by_a_call_in_python(tmp_path, monkeypatch):
    """However the list was named: by a pattern, among others, or opened already."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.csv").write_text("path\na.png\n")
    pq.write_table(pa.table({"path": ["a.png"]}), "list.parquet")
    (tmp_path / "shards.zip").write_bytes(b"")
    for names, out in (
        ("*.csv", "list.csv"),
        (["list.parquet", "list.csv"], tmp_path / "list.csv"),
        ("list.parquet", "list.parquet"),
        (api.open_source(["list.csv"]), "list.csv"),
    ):
        for call in (
            lambda names, out: api.score(names, "mini-vq", out=out),
            lambda names, out: api.attribute(names, models=["mini-vq"], out=out),
            lambda names, out: api.attribute(names, models=["mini-vq"], record=out),
            lambda names, out: api.calibrate(names, "mini-vq", out=out),
            lambda names, out: api.calibrate("shards.zip", "mini-vq", validation=names, out=out),
        ):
            with pytest.raises(SourceError, match=r"is an input, .*list.*, too; name another file"):
                call(names, out)
    with pytest.raises(SourceError, match=r"v\.csv: is another output too; name another file"):
        api.attribute("list.csv", models=["mini-vq"], out="v.csv", record="./v.csv")
    for fill in (api.attribute_dataset, api.score_dataset):
        with pytest.raises(SourceError, match="is an input"):
            fill("shards.zip", models={"m": "mini-vq"}, out="shards.zip", workers=0)
    assert (tmp_path / "list.csv").read_text() == "path\na.png\n"


@pytest.mark.parametrize("place", [".", "/"])
def test_a_folder_that_is_there_is_no_name(place, capsys):
    assert main(["score", "x.png", "--model", "mini-vq", "--out", place]) == 2
    assert "expected a name" in capsys.readouterr().err


def test_a_folder_that_nobody_may_write_to_is_told_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    for call in (
        lambda out: check_output(out / "rows.csv"),
        lambda out: api.report("x.png", out / "page.html"),
        lambda out: api.calibrate("x.png", "mini-vq", out=out / "made" / "too" / "mini-vq.json"),
        lambda out: api.attribute("x.png", models=["mini-vq"], record=out / "record.json"),
        lambda out: api.demo(1, out=out / "images"),
    ):
        with pytest.raises(SourceError, match=f"the folder {tmp_path} cannot be written to"):
            call(tmp_path)


def test_what_is_no_place_for_an_output_is_told_before_the_work(tmp_path):
    """Before inputs are looked at: there are none here."""
    (tmp_path / "file").touch()
    (tmp_path / "folder.html").mkdir()
    for call, message in (
        (lambda: api.calibrate("x.png", "mini-vq", out=tmp_path / "file" / "m.json"), "the folder .*file is a file"),
        (lambda: api.demo(1, out=tmp_path / "file"), "the folder .*file is a file"),
        (lambda: api.attribute("x.png", models=["mini-vq"], record=tmp_path), "is a folder; expected the name of a fi"),
        (lambda: api.report("x.png", tmp_path / "folder.html"), "is a folder; expected the name of a file"),
        (lambda: api.report("x.png", tmp_path / "none" / "x.html"), "the folder .*none does not exist"),
        (lambda: api.report("x.png", tmp_path / "page.txt"), r"page\.txt: expected an ending of \.html, \.htm"),
    ):
        with pytest.raises(SourceError, match=message):
            call()
