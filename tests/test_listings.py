"""Text files that list images: no row is lost in silence, and none is paired with another row's image."""

import csv
import json

import pytest

from aedr_jax.errors import ImageError, RunError, SourceError
from aedr_jax.inputs.containers import open_source


@pytest.fixture
def listing(tmp_path):
    """The items of a file of these bytes, as (id, path below the folder), and what was said at the end."""

    def read(name, content, **columns):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        found, said = [], ""
        try:
            for item in open_source([path], **columns):
                found.append((item.id, item.error or str(item.path).removeprefix(f"{tmp_path}/")))  # noqa: PERF401
        except RunError as error:
            said = str(error)
        return found, said

    return read


GOOD = [(f"k{i}", f"{i}.png") for i in range(4)]


def test_a_stray_quote_pairs_nothing_with_a_wrong_image(listing):
    """quote2.csv of the public reports: a field opens in one row, and the next quote is two rows below."""
    text = 'id,caption,path\nk0,x,0.png\nk1,"5 inch,1.png\nk2,x,2.png\nk3,"6 inch,3.png\n'
    found, said = listing("t.csv", text)
    assert found == GOOD[:1]
    assert "lines 3 to 5: a quote is not closed where its field ends" in said
    assert "write it as JSON lines, or quote as RFC 4180 says" in said
    assert "What lies behind these places has no row" in said


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ('k1,"5 inch,1.png\nk2,x",2.png\n', "lines 3 to 4: a quote joins these lines into one row of 3 fields"),
        ('k1,"5 inch,1.png\nk2,x,2.png\nk3,x",3.png\n', "lines 3 to 5: a quote joins these lines"),
        ('k1,"5 inch,1.png\nk2,x,2.png\n', "lines 3 to 5: a quote is not closed"),
        ('k1,"5" inch,1.png\n', "line 3: a quote is not closed where its field ends"),
        ('k1,"a\nb",1.png,more\n', "lines 3 to 4: a quote joins these lines into one row of 4 fields"),
        ("k1,\0,1.png\n", "line 3 holds NUL bytes"),
    ],
)
def test_what_can_be_read_in_two_ways_is_not_read(listing, rows, reason):
    found, said = listing("t.csv", f"id,caption,path\nk0,x,0.png\n{rows}k9,x,9.png\n")
    assert found == GOOD[:1]
    assert reason in said


def test_captions_of_several_lines_and_with_quotes(listing):
    rows = ['k0,"one\r\ntwo",0.png', 'k1,"5"" inch",1.png', "", 'k2,5" inch,2.png', '"k3","a, b\nc",3.png']
    assert listing("t.csv", "".join(f"{row}\r\n" for row in ["id,caption,path", *rows])) == (GOOD, "")


def test_a_row_of_other_width_is_an_error_row(listing):
    text = "id,path,caption\nk0,0.png,x\nk1,1.png,5,3 inch\nk2,2.png\nk3,3.png,x\n"
    found, said = listing("t.csv", text)
    assert found == [
        GOOD[0],
        ("t.csv/1", "line 3 has 4 fields, the header 3"),
        ("t.csv/2", "line 4 has 2 fields, the header 3"),
        GOOD[3],
    ]
    assert said == ""


def test_a_long_field_stops_nothing(listing):
    """bigfield.csv of the public reports: csv itself ends at 128 KB."""
    rows = "".join(f"k{i},{i}.png,{'x' * (140_000 if i == 1 else 1)}\n" for i in range(4))
    assert listing("t.csv", f"id,path,caption\n{rows}") == (GOOD, "")


def test_a_line_without_an_end_is_not_held(listing, monkeypatch):
    monkeypatch.setattr("aedr_jax.inputs.listings.MAX_FIELD", 1000)
    found, said = listing("t.csv", f"id,path\nk0,0.png\nk1,{'x' * 2000}\n")
    assert found == GOOD[:1]
    assert "line 3 has more than 999 characters" in said


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.tsv", "id\tcaption\tpath\n" + "".join(f"k{i}\ta, b\t{i}.png\n" for i in range(4))),
        ("t.CSV", "id,path\n" + "".join(f"k{i},{i}.png\n" for i in range(4))),
        ("t.jsonl", "".join(json.dumps({"path": f"{i}.png", "id": f"k{i}"}) + "\n\n" for i in range(4))),
        ("t.jsonl", "".join(json.dumps({"image": {"path": f"{i}.png"}, "key": f"k{i}"}) + "\n" for i in range(4))),
        ("bom.csv", b"\xef\xbb\xbfid,path\n" + b"".join(b"k%d,%d.png\n" % (i, i) for i in range(4))),
        ("u16.csv", ("id,path\n" + "".join(f"k{i},{i}.png\n" for i in range(4))).encode("utf-16")),
        ("u16.jsonl", "".join(f'{{"path": "{i}.png", "id": "k{i}"}}\n' for i in range(4)).encode("utf-16")),
        ("mac.csv", "id,path\r" + "".join(f"k{i},{i}.png\r" for i in range(4))),
    ],
)
def test_kinds_and_encodings(listing, name, content):
    columns = {"image_column": "image"} if "image" in str(content) else {}
    assert listing(name, content, **columns) == (GOOD, "")


def test_a_path_a_line(listing):
    assert listing("t.txt", "a b.png\r\n\n,c.png\n") == ([("a b.png", "a b.png"), (",c.png", ",c.png")], "")


def test_bytes_that_are_no_text_are_kept(listing):
    """As in file names: the row is there, and is its own."""
    rows = b"".join(b"%05d.png\n" % i for i in range(3000))
    found, said = listing("t.csv", b"path\n" + rows + b"\xe9.png\nlast.png\n")
    assert found[-2:] == [("\udce9.png", "\udce9.png"), ("last.png", "last.png")]
    assert (len(found), said) == (3002, "")


def test_lines_that_are_no_object_are_error_rows(listing):
    lines = ["{bad", '{"path": "1.png", "id": "k1"}', "[1]", '{"path": 3, "id": 7}', '{"id": "k4"}', "[" * 100_000]
    found, said = listing("t.jsonl", "\n".join(lines))
    assert [name for name, _ in found] == ["t.jsonl/0", "k1", "t.jsonl/2", "7", "k4", "t.jsonl/5"]
    assert found[1][1] == "1.png"
    assert "line 1 is not JSON" in found[0][1]
    assert "line 3 is no JSON object" in found[2][1]
    assert "neither bytes nor a path" in found[3][1] == found[4][1]
    assert "line 6 is not JSON" in found[5][1]
    assert said == ""


def test_rows_without_an_id_or_a_path(listing):
    found, _ = listing("t.csv", "id,path\n,0.png\nk1,\nk2,../x/2.png\n")
    assert found[0] == ("t.csv/0", "0.png")
    assert found[1][0] == "k1"
    assert "neither bytes nor a path" in found[1][1]
    assert found[2] == ("k2", "../x/2.png")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "id,path\n", "lists no image: it has no row"),
        ("t.csv", "id,path\n\n\n", "lists no image: it has no row"),
        ("t.csv", "", "found none, and no path"),
        ("t.txt", "\n\n", "lists no image"),
        ("t.jsonl", "", "found none, and no path"),
        ("t.jsonl", "[1]\n", "found none, and no path"),
        ("t.csv", "path,id,path\na,b,c\n", "2 columns are called 'path'"),
        ("t.csv", 'pa"th,"id\n', "cannot be read as a table: line 1: a quote is not closed"),
        ("t.csv", "p\0a\0t\0h\0\n", "cannot be read as a table: line 1 holds NUL bytes"),
        ("t.tsv", "id,path\nk0,0.png\n", r"found none, and no path \(it has id,path\)"),
    ],
)
def test_refusals(listing, name, text, message):
    with pytest.raises(SourceError, match=message):
        listing(name, text)


def test_columns_that_are_named(listing):
    text = "id,path,file\nk,0.png,1.png\n"
    assert listing("t.csv", text, image_column="file", id_column="path") == ([("0.png", "1.png")], "")
    for column in ("image_column", "id_column"):
        with pytest.raises(SourceError, match="no column 'x'; it has id, path, file"):
            listing("t.csv", text, **{column: "x"})


def test_an_image_that_a_list_names_in_vain_is_an_error(tmp_path):
    (tmp_path / "t.csv").write_text("path\nnowhere.png\n")
    (item,) = open_source([tmp_path / "t.csv"])
    with pytest.raises(ImageError, match=r"nowhere\.png: no such file"):
        item.read()
    (tmp_path / "t.csv").write_text("path\nhttps://a.b/c.png\n")
    (item,) = open_source([tmp_path / "t.csv"])
    with pytest.raises(ImageError, match=r"t\.csv::0: https://a\.b/c\.png is a URL, which is not read: download it"):
        item.read()


def test_the_process_keeps_its_own_limit(listing):
    before = csv.field_size_limit(1 << 26)
    try:
        listing("t.csv", "id,path\nk0,0.png\n")
        assert csv.field_size_limit() == 1 << 26
    finally:
        csv.field_size_limit(before)
