"""Every source gives the same images; damaged and hostile containers."""

import bz2
import csv
import io
import itertools
import json
import os
import struct
import tarfile
import tracemalloc
import uuid
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from aedr_jax.errors import ImageError, RunError, SourceError
from aedr_jax.inputs import listings
from aedr_jax.inputs.archives import Archives
from aedr_jax.inputs.containers import Chain, Rows, Table, from_tfds, open_source
from aedr_jax.inputs.sources import Files, Source

NAMES = [f"{folder}/{i}.png" for folder in ("a", "b") for i in range(4)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for i, name in enumerate(NAMES):
        (root / name).parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (64, 66, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / name)
    return root


@pytest.fixture(scope="module")
def contents(folder):
    return {name: (folder / name).read_bytes() for name in NAMES}


def add(tar, name, data, **about):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in about.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(data))


def write_tar(path, contents, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, data in contents.items():
            add(tar, name, data)
            add(tar, name.replace(".png", ".json"), b"{}")  # as WebDataset has beside each image
    return path


def write_zip(path, contents, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
            archive.writestr(name.replace(".png", ".json"), b"{}")
    return path


def write_parquet(path, contents, **options):
    table = pa.table({"id": list(contents), "image": list(contents.values()), "label": range(len(contents))})
    pq.write_table(table, path, **options)
    return path


KINDS = ["folder", "glob", "csv", "tsv", "jsonl", "txt", "parquet of paths", "parquet", "struct", "rows"]
KINDS += ["tar", "tar.gz", "tar.bz2", "tar.xz", "tar.zst", "zip"]


@pytest.fixture(params=KINDS)
def source(request, folder, contents, tmp_path):
    """The same images from everywhere; ids end in the file's path below the folder, but for globs."""
    kind = request.param
    if kind == "folder":
        return open_source([folder])
    if kind == "glob":
        return open_source([str(folder / "a" / "*.png"), str(folder / "b" / "?.png")])
    if kind == "csv":
        with open(folder / "list.csv", "w", newline="") as file:
            csv.writer(file).writerows([["path", "note"], *([name, "x"] for name in NAMES)])
        return open_source([folder / "list.csv"])
    if kind in ("tsv", "jsonl", "txt"):
        lines = {
            "tsv": ["id\tpath", *(f"{name}\t{name}" for name in NAMES)],
            "jsonl": [json.dumps({"path": name}) for name in NAMES],
            "txt": NAMES,
        }[kind]
        (folder / f"list.{kind}").write_text("\n".join(lines))
        return open_source([folder / f"list.{kind}"])
    if kind == "zip":
        return open_source([write_zip(tmp_path / "t.zip", contents)])
    if kind == "tar.zst":
        plain = write_tar(tmp_path / "t.tar", contents).read_bytes()
        # Frames one after the other, as parallel compressors write them.
        frames = [pa.compress(plain[i : i + 50_000], "zstd", asbytes=True) for i in range(0, len(plain), 50_000)]
        (tmp_path / "t.tar.zst").write_bytes(b"".join(frames))
        return open_source([tmp_path / "t.tar.zst"])
    if kind == "parquet of paths":
        pq.write_table(pa.table({"path": NAMES}), folder / "list.parquet")
        return open_source([folder / "list.parquet"])
    if kind == "parquet":
        return open_source([write_parquet(tmp_path / "t.parquet", contents, row_group_size=3)])
    if kind == "struct":
        values = [{"bytes": data, "path": name} for name, data in contents.items()]
        pq.write_table(pa.table({"key": NAMES, "picture": values}), tmp_path / "t.parquet")
        return open_source([tmp_path / "t.parquet"])
    if kind == "rows":
        rows = [{"image": data, "file": name} for name, data in contents.items()]
        return Rows(rows, name="set", id_column="file")
    return open_source([write_tar(tmp_path / f"t.{kind}", contents, f"w:{kind[4:]}")])


def test_every_source_gives_the_same_images(source, contents):
    items = list(source)
    assert [next(name for name in NAMES if item.id.endswith(name)) for item in items] == NAMES
    assert [item.read() for item in items] == list(contents.values())
    assert [item.id for item in source] == [item.id for item in items]  # can be gone through again
    assert source.count() in (None, 8)


def test_shares_and_pieces_are_the_whole(source):
    whole = [item.id for item in source]
    for of in (1, 2, 3):
        shares = [[item.id for item in source.share(i, of)] for i in range(of)]
        assert sorted(itertools.chain.from_iterable(shares)) == sorted(whole)
        counts = [source.share(i, of).count() for i in range(of)]
        assert None in counts or counts == [len(share) for share in shares]
    assert [item.id for piece in source.pieces(3) for item in piece] == whole


def test_tensorflow_datasets(contents):
    """What a data source is to us: a sequence of rows whose images are bytes."""
    source = from_tfds([{"image": data, "label": 0} for data in contents.values()], name="mnist")
    assert [item.read() for item in source] == list(contents.values())
    assert [item.id for item in source.share(1, 3)] == ["mnist/1", "mnist/4", "mnist/7"]
    for name in ("tfds:mnist", "hf:mnist"):
        with pytest.raises(SourceError, match=f"expected {name[: name.index(':')]}:NAME:SPLIT"):
            open_source([name])


class Damaged(list):
    """Rows of a dataset of which one cannot be read."""

    def __init__(self, rows, damaged=3):
        super().__init__(rows)
        self.damaged = damaged

    def __getitem__(self, number):
        if number == self.damaged:
            raise OSError("shard 3 is damaged")
        return super().__getitem__(number)


def test_a_dataset_that_breaks_off_keeps_what_came_before(contents):
    rows = Damaged({"image": data, "file": name} for name, data in contents.items())
    source, found = from_tfds(rows, name="set", id_column="file"), []
    with pytest.raises(RunError, match=r"could not be read to the end: set::3: shard 3 is damaged"):  # noqa: PT012
        for item in source:
            found.append(item.id)  # noqa: PERF401
    assert found == NAMES[:3]
    with pytest.raises(SourceError, match="set: cannot be loaded: shard 3 is damaged"):
        Rows(rows, name="set", id_column="file", ids=rows).share(0, 2)
    with pytest.raises(RunError, match="set::0: 'picture'"):
        list(Rows(rows, name="set", image_column="picture"))


def test_columns_of_a_dataset_are_looked_for_before_it_is_read(contents):
    rows = [{"image": data, "label": 0} for data in contents.values()]
    for columns in ({"image_column": "nope"}, {"id_column": "nope"}):
        with pytest.raises(SourceError, match="set: no column 'nope'; it has image, label"):
            from_tfds(rows, name="set", **columns)
    with pytest.raises(SourceError, match="set: lists no image: it has no row"):
        from_tfds([], name="set")
    with pytest.raises(SourceError, match="set: cannot be loaded: shard 3 is damaged"):
        from_tfds(Damaged(rows, damaged=0), name="set")


def test_shares_of_rows_follow_their_ids_and_read_no_image_for_it(contents):
    class Dataset(list):
        def __getitem__(self, number):
            fetched.append(number)
            return super().__getitem__(number)

    fetched = []
    names = ["same" if i % 2 else name for i, name in enumerate(NAMES)]
    rows = Dataset({"image": data, "file": name} for name, data in zip(names, contents.values(), strict=True))
    source = Rows(rows, name="set", id_column="file", ids=[{"file": name} for name in names])
    shares = [source.share(i, 3) for i in range(3)]
    assert sorted(number for share in shares for number in share.numbers) == list(range(8))
    assert fetched == []
    assert sum("same" in {item.id for item in share} for share in shares) == 1
    assert sorted(fetched) == list(range(8))


def test_shares_are_whole_archives_where_there_are_enough(contents, tmp_path):
    paths = [write_tar(tmp_path / f"{i}.tar", dict(list(contents.items())[i::3])) for i in range(3)]
    tars = open_source([str(tmp_path / "*.tar")])
    assert tars.share(1, 2).paths == (paths[1],)
    assert len(list(tars)) == 8
    (tmp_path / "x").mkdir()
    assert Archives([paths[0], paths[1], paths[0]]).paths == tuple(paths[:2])
    with pytest.raises(SourceError, match="have one name"):
        Archives([paths[0], write_tar(tmp_path / "x" / "0.tar", contents)])


def test_names_in_an_archive_are_only_names(contents, tmp_path):
    data = contents[NAMES[0]]
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        add(tar, "../../outside.png", data)
        add(tar, "/absolute.png", data)
        add(tar, "link.png", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(tar, "hard.png", b"", type=tarfile.LNKTYPE, linkname="../../outside.png")
        add(tar, "pipe.png", b"", type=tarfile.FIFOTYPE)
        add(tar, "folder.png", b"", type=tarfile.DIRTYPE)
    items = list(Archives([tmp_path / "t.tar"]))
    assert [item.read() for item in items[:2]] == [data, data]
    assert [item.id for item in items[2:]] == ["t.tar/link.png", "t.tar/hard.png", "t.tar/pipe.png"]
    for item in items[2:]:
        with pytest.raises(ImageError, match="is a link or device"):
            item.read()
    assert [path.name for path in tmp_path.iterdir()] == ["t.tar"]


def headers(path):
    with tarfile.open(path) as tar:
        return [member.offset for member in tar]


@pytest.mark.parametrize("damage", ["inside a member", "between members", "a header", "all of it", "no such file"])
def test_damaged_archive_gives_what_it_can_and_is_named(contents, tmp_path, damage):
    path, good = write_tar(tmp_path / "bad.tar", contents), write_tar(tmp_path / "good.tar", contents)
    data, offset = path.read_bytes(), headers(path)[8]  # of the fifth image
    if damage == "no such file":
        path.unlink()
    else:
        path.write_bytes(
            {
                "inside a member": data[: offset + 700],
                "between members": data[:offset],
                "a header": data[:offset] + b"\xff" * 512 + data[offset + 512 :],
                "all of it": b"\xff" * 4096,
            }[damage]
        )
    ids = []
    with pytest.raises(RunError, match=r"bad\.tar: .*every other image has"):  # noqa: PT012
        for item in Chain([Archives([path]), Archives([good])]):
            ids.append(item.id)  # noqa: PERF401
    pieces = Chain([Archives([path]), Archives([good])]).pieces(3)
    assert len(list(pieces)) == 2  # each finds its own damage
    read = 4 if damage in ("inside a member", "between members", "a header") else 0
    assert ids == [*(f"bad.tar/{name}" for name in NAMES[:read]), *(f"good.tar/{name}" for name in NAMES)]
    with pytest.raises(RunError, match=r"bad\.tar"):
        list(Archives([good, path]))


@pytest.mark.parametrize("packed", ["gz", "bz2", "xz"])
def test_packed_archive_that_is_cut_off_is_named(contents, tmp_path, packed):
    path = write_tar(tmp_path / f"t.tar.{packed}", contents, f"w:{packed}")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(RunError, match=rf"t\.tar\.{packed}: "):
        list(Archives([path]))


def test_what_is_in_an_archive_beside_images_is_counted(contents, tmp_path):
    for path in (write_tar(tmp_path / "t.tar", contents), write_zip(tmp_path / "t.zip", contents)):
        source = Chain([open_source([path])])
        assert [len(list(source)), len(list(source))] == [8, 8]
        assert source.passed_over() == {".json": 8}
        list(share := source.share(0, 2))
        assert share.passed_over() == {".json": 8}
    only = write_tar(tmp_path / "texts.tar", {"a.txt": b"x"})
    with pytest.raises(RunError, match=r"texts\.tar: holds no image \(2 passed over: \.txt 2\)"):
        list(open_source([only]))


def test_members_of_a_zip_that_cannot_be_had_are_error_rows(contents, tmp_path):
    data = contents[NAMES[0]]
    path = tmp_path / "t.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../outside.png", data)
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("bad.png", data)
        archive.writestr("secret.png", data)
        archive.writestr("vast.png", data)
        archive.writestr("last.png", data)
        archive.mkdir("folder.png")
        members = {member.filename: member for member in archive.infolist()}
    packed = bytearray(path.read_bytes())
    packed[members["bad.png"].header_offset + 60] ^= 0xFF
    for name, offset, value in (("secret.png", 8, 1), ("vast.png", 24, 1 << 30)):  # of the directory's entry
        entry = packed.index(b"PK\x01\x02", members["last.png"].header_offset + 100)
        while packed[entry + 46 : entry + 46 + len(name)] != name.encode():
            entry = packed.index(b"PK\x01\x02", entry + 4)
        struct.pack_into("<H" if offset == 8 else "<I", packed, entry + offset, value)
    path.write_bytes(packed)
    items = {item.id: item for item in open_source([path])}
    assert list(items) == [f"t.zip/{name}" for name in members if name != "folder.png/"]
    assert items["t.zip/../../outside.png"].data == items["t.zip/last.png"].data == data
    for name, reason in {
        "link": "is a link or device",
        "bad": "cannot be unpacked: ",
        "secret": "is encrypted",
        "vast": "1073741824 bytes; files above",
    }.items():
        with pytest.raises(ImageError, match=reason):
            items[f"t.zip/{name}.png"].read()
    (tmp_path / "cut.zip").write_bytes(packed[:-30])
    with pytest.raises(RunError, match=r"cut\.zip: File is not a zip file"):
        list(open_source([tmp_path / "cut.zip"]))


def test_a_member_that_unpacks_to_more_than_it_states_is_not_read_on(tmp_path):
    path = tmp_path / "t.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(1 << 26))
    packed = bytearray(path.read_bytes())
    entry = packed.index(b"PK\x01\x02")
    struct.pack_into("<I", packed, entry + 24, 100)
    path.write_bytes(packed)
    tracemalloc.start()
    try:
        (item,) = open_source([path])
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert "cannot be unpacked" in item.error


def test_what_unpacks_to_very_much_is_not_held(contents, tmp_path):
    zeros = tarfile.TarInfo("zeros.bin")
    zeros.size = 1 << 25
    with bz2.open(tmp_path / "t.tar.bz2", "wb") as file:
        file.write(zeros.tobuf() + bytes(zeros.size))
        file.write(write_tar(tmp_path / "t.tar", contents).read_bytes())
    tracemalloc.start()
    try:
        assert len(list(Archives([tmp_path / "t.tar.bz2"]))) == 8
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["gnu", "pax"])
def test_map_of_a_sparse_file_is_not_read(tmp_path, kind):
    """It goes on for as long as it likes."""
    member = tarfile.TarInfo("a.png")
    if kind == "gnu":
        member.type = tarfile.GNUTYPE_SPARSE
        header = member.tobuf()
    else:
        member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        header = member.tobuf(tarfile.PAX_FORMAT)
    (tmp_path / "t.tar").write_bytes(header + b"\0" * 4096)
    with pytest.raises(RunError, match=r"t\.tar: a sparse file at byte \d+\."):
        list(Archives([tmp_path / "t.tar"]))


def test_huge_extended_header_is_refused_unread(tmp_path):
    member = tarfile.TarInfo("pax")
    member.type, member.size = tarfile.XHDTYPE, 1 << 32
    (tmp_path / "t.tar").write_bytes(member.tobuf() + b"\0" * 4096)
    with pytest.raises(RunError, match="a header of 4294967296 bytes"):
        list(Archives([tmp_path / "t.tar"]))


def test_rows_that_hold_too_much_are_errors(tmp_path, monkeypatch):
    monkeypatch.setattr(listings, "MAX_FILE_BYTES", 3)
    pq.write_table(pa.table({"image": [b"1234", b"123"]}), tmp_path / "t.parquet")
    large, small = open_source([tmp_path / "t.parquet"])
    assert large.data is None
    assert "4 bytes" in large.error
    assert small.data == b"123"


def test_rows_without_an_image_are_errors(tmp_path):
    table = pa.table({"image": pa.array([b"", None, b"x"], pa.binary())})
    pq.write_table(table, tmp_path / "t.parquet")
    empty, none, _ = items = list(open_source([tmp_path / "t.parquet"]))
    assert [item.id for item in items] == ["t.parquet/0", "t.parquet/1", "t.parquet/2"]
    assert empty.read() == b""
    with pytest.raises(ImageError, match="neither bytes nor a path"):
        none.read()


ENCODED = {
    "binary": pa.binary(),
    "large_binary": pa.large_binary(),
    "binary_view": pa.binary_view(),
    "dictionary": pa.dictionary(pa.int32(), pa.binary()),
    "struct": pa.struct([("bytes", pa.binary_view()), ("path", pa.string_view())]),
}


@pytest.mark.parametrize("kind", ENCODED)
def test_bytes_in_every_encoding_of_parquet(tmp_path, kind):
    images = [b"first", None, b"third"]
    if kind == "struct":
        images = [image and {"bytes": image, "path": None} for image in images]
    pq.write_table(pa.table({"n": range(3), "image": pa.array(images, ENCODED[kind])}), tmp_path / "t.parquet")
    items = list(open_source([tmp_path / "t.parquet"]))
    assert [item.data for item in items] == [b"first", None, b"third"]
    assert "neither bytes nor a path" in items[1].error


UUIDS = [uuid.UUID(int=(255 << 120) + i) for i in range(3)]
OF_IDS = {
    "string_view": (["a", None, "c"], pa.string_view(), ["a", "t.parquet/1", "c"]),
    "large_string": (["a", "", "c"], pa.large_string(), ["a", "t.parquet/1", "c"]),
    "dictionary": (["a", "b", "c"], pa.dictionary(pa.int32(), pa.string()), ["a", "b", "c"]),
    "integers": ([3, None, 1], pa.int64(), ["3", "t.parquet/1", "1"]),
    "binary": (["é".encode(), b"\xff\x00", None], pa.binary(), ["é", "ff00", "t.parquet/2"]),
    "fixed": ([u.bytes for u in UUIDS], pa.binary(16), [u.hex for u in UUIDS]),
    "uuid": ([u.bytes for u in UUIDS], pa.uuid(), [str(u) for u in UUIDS]),
    "nulls": ([None, None, None], pa.null(), [f"t.parquet/{i}" for i in range(3)]),
}


@pytest.mark.parametrize("kind", OF_IDS)
def test_ids_of_every_type_are_texts_of_their_own(tmp_path, kind):
    values, type_, expected = OF_IDS[kind]
    paths = pa.array(["x.png", "y.png", "z.png"], pa.dictionary(pa.int32(), pa.string()))
    pq.write_table(pa.table({"id": pa.array(values, type_), "path": paths}), tmp_path / "t.parquet")
    items = list(open_source([tmp_path / "t.parquet"]))
    assert [item.id for item in items] == expected
    assert [item.path.name for item in items] == ["x.png", "y.png", "z.png"]


def test_paths_that_are_bytes(tmp_path):
    pq.write_table(pa.table({"path": pa.array([b"x.png", b"\xe9.png"])}), tmp_path / "t.parquet")
    assert [item.path for item in open_source([tmp_path / "t.parquet"])] == [
        tmp_path / "x.png",
        tmp_path / "\udce9.png",
    ]


@pytest.mark.parametrize("ending", [".7z", ".json", ".npz", ".h5", ".csv.gz", ".tar.lz4", ".arrow", ".TFRecord"])
def test_what_may_hold_images_and_is_not_read_is_refused(tmp_path, ending):
    (tmp_path / f"t{ending}").write_bytes(b"x")
    with pytest.raises(SourceError, match=rf"t{ending}: is no image, and files of this kind are not read; .*\.zip"):
        open_source([tmp_path / f"t{ending}"])


def test_a_container_that_is_no_file_is_refused(tmp_path):
    (tmp_path / "t.csv").symlink_to("nowhere.csv")
    os.mkfifo(tmp_path / "t.tar")
    for name in ("t.csv", "t.tar", "t.ta*"):
        with pytest.raises(SourceError, match=r"t\..*: is a pipe, a device or a link that leads to no file"):
            open_source([tmp_path / name])


def test_refusals(folder, tmp_path):
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "empty.parquet")
    pq.write_table(pa.table({"id": [["a"]], "image": [b"x"]}), tmp_path / "lists.parquet")
    pq.write_table(pa.table({"a": [b"x"], "b": [b"y"]}), tmp_path / "two.parquet")
    pq.write_table(pa.table({"n": [1]}), tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"no")
    (tmp_path / "x.png").touch()
    for name, message in {
        "two.parquet": r"several \(a, b\); say which with --image-column",
        "none.parquet": "found none, and no path",
        "empty.parquet": "lists no image: it has no row",
        "lists.parquet": "column 'id' holds no ids but list",
        "bad.parquet": "cannot be read as a table",
        "*": "matches archives or tables and other files",
        "nowhere": "no such file or folder",
    }.items():
        with pytest.raises(SourceError, match=message):
            open_source([tmp_path / name])
    with pytest.raises(SourceError, match="no column 'c'"):
        Table(tmp_path / "two.parquet", image_column="c")
    assert [item.data for item in Table(tmp_path / "two.parquet", image_column="b")] == [b"y"]
    assert isinstance(open_source([folder]), Files)


def test_table_that_breaks_off_is_named(contents, tmp_path):
    path = write_parquet(tmp_path / "t.parquet", contents, row_group_size=2)
    data = bytearray(path.read_bytes())
    start = data.index(contents[NAMES[4]])
    data[start - 60 : start] = b"\xff" * 60  # the page's header
    path.write_bytes(data)
    items = []
    with pytest.raises(RunError, match=r"t\.parquet"):  # noqa: PT012
        for item in Table(path):
            items.append(item.id)  # noqa: PERF401
    assert items == NAMES[:4]


class Failing(Source):
    def __init__(self, source, after):
        self.source, self.after = source, after

    def __iter__(self):
        yield from itertools.islice(self.source, self.after)
        raise RunError("the rest is gone")


def test_pieces_of_what_fails_hold_all_before_it(folder):
    ids = []
    with pytest.raises(RunError, match="the rest is gone"):  # noqa: PT012
        for piece in Chain([Failing(Files([folder]), 5), Files([folder / "b"])]).pieces(3):
            ids += [item.id for item in piece]
    assert ids == [*NAMES[:5], *(name[2:] for name in NAMES[4:])]


def test_row_groups_are_not_held_whole(tmp_path):
    count, size = 256, 1 << 17
    images = [np.random.default_rng(i).bytes(size) for i in range(count)]
    table = pa.table({"image": images})
    pq.write_table(table, tmp_path / "t.parquet", compression="none", use_dictionary=False, write_batch_size=8)
    del table, images
    assert pq.read_metadata(tmp_path / "t.parquet").num_row_groups == 1
    before = pa.total_allocated_bytes()
    most = max(pa.total_allocated_bytes() for _ in Table(tmp_path / "t.parquet"))
    assert most - before < count * size // 2
