"""Properties of every reader: rows in are rows out. Each item comes once, with its own id and image, in its order, in
exactly one share; what does not come is counted or said. Only names and bytes are generated: nothing is decoded."""

import csv
import io
import itertools
import json
import string
import tarfile
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from aedr_jax.errors import ImageError, RunError
from aedr_jax.inputs.containers import open_source
from aedr_jax.inputs.ids import Done
from aedr_jax.inputs.sources import SUFFIXES, Item, Listed, Source
from aedr_jax.scoring.store import Fresh

CHEAP = settings(max_examples=40, deadline=None, derandomize=True, database=None)
SHARES = st.integers(1, 5)
# What quoting, delimiters, line ends and encodings are made of.
CAPTIONS = st.text(st.sampled_from("ab \",;\t\r\n'\\é🙂"), max_size=12)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=1, max_size=8)
NAMES = st.text(string.ascii_letters + "é🙂 .-_", min_size=1, max_size=8).filter(lambda name: set(name) != {"."})
ENDINGS = st.sampled_from([*SUFFIXES, ".PNG", ".Jpg", ".txt", ".json", "", ".pngx"])


def is_image(name):
    return name.lower().endswith(SUFFIXES)


def all_of(source):
    """Items and what was said at the end."""
    found, said = [], ""
    try:
        for item in source:
            found.append(item)
    except RunError as error:
        said = str(error)
    return found, said


def check_shares(source, shares):
    """Together they are the whole, each item once and in its order; equal ids are together. So are pieces."""
    whole, _ = all_of(source)
    parts = [all_of(source.share(i, shares))[0] for i in range(shares)]
    assert Counter(itertools.chain.from_iterable(parts)) == Counter(whole)
    owner = {item.id: i for i, part in enumerate(parts) for item in part}
    for i, part in enumerate(parts):
        assert all(owner[item.id] == i for item in part)
        assert part == [item for item in whole if item in part]
        assert source.share(i, shares).count() in (None, len(part))
    assert source.count() in (None, len(whole))
    assert [item for piece in source.pieces(3) for item in piece] == whole


@CHEAP
@given(
    st.lists(st.tuples(TEXTS, CAPTIONS), min_size=1, max_size=8), st.sampled_from([",", "\t"]), SHARES, st.booleans()
)
def test_tables_that_are_quoted_as_they_should_be(rows, delimiter, shares, path_first):
    """Each row is its own; what could be read as several rows is refused, after all rows before it."""
    header, order = ["id", "caption", "path"], (2, 0, 1) if path_first else (0, 1, 2)
    lines = [header, *([name, caption, f"{i}.png"] for i, (name, caption) in enumerate(rows))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("t.csv" if delimiter == "," else "t.tsv")
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter=delimiter).writerows([[line[i] for i in order] for line in lines])
        source = open_source([path])
        found, said = all_of(source)
        assert [(item.id, item.path) for item in found] == [
            (name, Path(folder) / f"{i}.png") for i, (name, _) in enumerate(rows[: len(found)])
        ]
        if len(found) < len(rows):
            assert "a quote joins these lines" in said
            assert set(rows[len(found)][1]) & set("\r\n")
        else:
            assert said == ""
            check_shares(source, shares)


@CHEAP
@given(st.lists(st.text(st.sampled_from('ab "'), max_size=6), min_size=1, max_size=10), st.sampled_from(["\n", "\r\n"]))
def test_stray_quotes_pair_nothing_with_a_wrong_image(captions, end):
    """Written without any quoting: each image comes as its own, or not at all and that is said."""
    text = end.join(["id,caption,path", *(f"k{i},{caption},{i}.png" for i, caption in enumerate(captions)), ""])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_bytes(text.encode())
        found, said = all_of(open_source([path]))
    assert [(item.id, item.path, item.error) for item in found] == [
        (f"k{i}", Path(folder) / f"{i}.png", "") for i in range(len(found))
    ]
    assert (len(found) < len(captions)) == bool(said)
    if not any(caption.lstrip(" ").startswith('"') for caption in captions):
        assert len(found) == len(captions)


@CHEAP
@given(st.lists(st.text(st.sampled_from("ab,"), max_size=6), min_size=1, max_size=8))
def test_lines_of_any_width_are_rows(lines):
    """A line has its item, as it stands or as an error row, and empty ones have none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_text("\n".join(["path,caption", "first.png,x", *lines]))
        found, said = all_of(open_source([path]))
    wanted = [line.split(",") for line in lines if line]
    assert [item.id for item in found[1:]] == [
        fields[0] if len(fields) == 2 and fields[0] else f"t.csv/{i}" for i, fields in enumerate(wanted, 1)
    ]
    assert [bool(item.error) for item in found[1:]] == [len(fields) != 2 or not fields[0] for fields in wanted]
    assert said == ""


@CHEAP
@given(st.lists(st.tuples(TEXTS, st.text(min_size=1, max_size=8)), min_size=1, max_size=8), SHARES)
def test_json_lines_and_plain_lists(rows, shares):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.jsonl"
        path.write_text("".join(json.dumps({"id": name, "path": file}) + "\n" for name, file in rows))
        source = open_source([path])
        assert [(item.id, item.path) for item in source] == [(name, Path(folder) / file) for name, file in rows]
        check_shares(source, shares)
        path = Path(folder) / "t.txt"
        path.write_bytes("".join(f"{name}\n" for name, _ in rows).encode())
        source = open_source([path])
        assert [(item.id, item.path) for item in source] == [(name, Path(folder) / name) for name, _ in rows]
        check_shares(source, shares)


@CHEAP
@given(
    st.lists(st.tuples(st.none() | st.text(max_size=4), st.none() | st.binary(max_size=4)), min_size=1, max_size=9),
    st.sampled_from([pa.binary(), pa.large_binary(), pa.binary_view(), pa.dictionary(pa.int32(), pa.binary())]),
    st.sampled_from([pa.string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()), pa.binary()]),
    st.integers(1, 4),
    SHARES,
)
def test_parquet_tables(rows, of_images, of_ids, group, shares):
    names = [name if of_ids != pa.binary() or name is None else name.encode() for name, _ in rows]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.parquet"
        images = pa.array([data for _, data in rows], of_images)
        pq.write_table(pa.table({"id": pa.array(names, of_ids), "image": images}), path, row_group_size=group)
        source = open_source([path])
        found = list(source)
        assert [(item.id, item.data) for item in found] == [
            (name or f"t.parquet/{i}", data) for i, (name, data) in enumerate(rows)
        ]
        assert [bool(item.error) for item in found] == [data is None for _, data in rows]
        check_shares(source, shares)


MEMBERS = st.lists(
    st.tuples(st.lists(NAMES, min_size=1, max_size=3).map("/".join), ENDINGS, st.binary(max_size=600)), max_size=8
)


def pack(kind, members):
    packed = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(packed, "w") as archive:
            for name, data in members:
                archive.writestr(zipfile.ZipInfo(name), data)
    else:
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name, data in members:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


@CHEAP
@given(MEMBERS, st.sampled_from(["tar", "zip"]), SHARES, st.integers(0, 10_000))
def test_archives(generated, kind, shares, cut):
    members = list({f"{stem}{ending}": data for stem, ending, data in generated}.items())
    images = [(f"t.{kind}/{name}", data) for name, data in members if is_image(name)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"t.{kind}"
        path.write_bytes(pack(kind, members))
        source = open_source([path])
        found, said = all_of(source)
        assert [(item.id, item.data) for item in found] == images
        assert sum(source.passed_over().values()) == len(members) - len(images)
        assert bool(said) == (not images)
        if images:
            check_shares(source, shares)
        path.write_bytes(path.read_bytes()[: cut % (path.stat().st_size - 21)])  # a zip may end 21 bytes early
        found, said = all_of(open_source([path]))
        assert [(item.id, item.data) for item in found] == images[: len(found)]
        assert said or kind == "tar"
        assert said or len(found) == len(images)


@CHEAP
@given(st.lists(st.tuples(st.lists(NAMES, max_size=2), NAMES, ENDINGS, st.sampled_from("fld"))), SHARES)
def test_folders(generated, shares):
    """f: a file, l: a link to one, d: a dangling one."""
    with tempfile.TemporaryDirectory() as folder:
        root, target = Path(folder) / "root", Path(folder) / "target"
        root.mkdir()
        target.write_bytes(b"x")
        made = {}
        for folders, stem, ending, kind in generated:
            path = root.joinpath(*folders, stem + ending)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if path.exists() or path.is_symlink():
                    continue
                if kind == "f":
                    path.write_bytes(b"x")
                else:
                    path.symlink_to(target if kind == "l" else "nowhere")
            except OSError:  # a file is where a folder should be, or the reverse
                continue
            made[path.relative_to(root).as_posix()] = kind
        (root / "last.png").write_bytes(b"x")
        made["last.png"] = "f"
        source = open_source([root])
        found = {item.id: item for item in source}
        assert set(found) == {name for name in made if is_image(name)}
        assert sum(source.passed_over().values()) == len(made) - len(found)
        for name, item in found.items():
            try:
                assert item.read() == b"x"
                assert made[name] != "d"
            except ImageError:
                assert made[name] == "d"
        check_shares(source, shares)


class Whole(Source):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


@CHEAP
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 9)), max_size=20), SHARES, SHARES, st.booleans())
def test_an_id_is_given_once_and_the_others_are_said_whatever_the_shares(pairs, shares, later, light):
    """The first image of an id is scored, in whichever share; the others are counted, then and by every later run."""
    items = [Item(name, f"{i}.png", bytes([data])) for i, (name, data) in enumerate(pairs)]
    first = {item.id: item for item in reversed(items)}
    source = Listed(items) if light else Whole(items)
    check_shares(source, shares)

    def run(shares, done):
        fresh = [Fresh(source.share(i, shares), done) for i in range(shares)]
        return [item for part in fresh for item in part], sum(part.doubles for part in fresh), fresh

    scored, doubles, _ = run(shares, Done())
    assert sorted(scored) == sorted(first.values())
    assert doubles == len(items) - len(first)
    done = Done([[(item.id, str(item.path), "")] for item in scored])
    again, said, parts = run(later, done)
    assert (again, said, sum(part.skipped for part in parts)) == ([], doubles, len(first))
    assert len(done.doubles()) == 0
    assert len(Done([[(item.id, str(item.path), "")] for item in items]).doubles()) == sum(
        count > 1 for count in Counter(item.id for item in items).values()
    )
