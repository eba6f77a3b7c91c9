"""From what the user named to a list of image files."""

import inspect
import os
import sys

import pytest
from PIL import Image

from aedr_jax.errors import ImageError, SourceError
from aedr_jax.images.codec import FORMATS
from aedr_jax.inputs.containers import open_source
from aedr_jax.inputs.sources import SUFFIXES, Files, Item, find_images, said_of_passed_over


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A folder of images and other things, as the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.JPG", "deep/er/c.webp", "deep/d.tif", "notes.txt", "deep/scores.csv", "noending"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "photos" / "album.png").mkdir()
    return tmp_path


def ids(inputs):
    return [item.id for item in find_images(inputs)]


def test_folder_is_searched_whole(tree):
    expected = ["a.JPG", "b.png", "deep/d.tif", "deep/er/c.webp"]
    items = find_images(["photos"])
    assert [item.id for item in items] == expected
    assert [item.path for item in items] == [tree.__class__("photos") / name for name in expected]
    assert [item.id for item in find_images([tree / "photos"])] == expected


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_ending_counts_in_either_case(tmp_path, suffix):
    for name in (f"a{suffix}", f"b{suffix.upper()}", f"c{suffix}.txt"):
        (tmp_path / name).touch()
    assert ids([tmp_path]) == [f"a{suffix}", f"b{suffix.upper()}"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("photos/*.png", ["photos/b.png"]),
        ("photos/**/*.[wt]*", ["photos/deep/d.tif", "photos/deep/er/c.webp", "photos/notes.txt"]),
        ("photos/deep/?.tif", ["photos/deep/d.tif"]),
        ("*/no*", ["photos/noending", "photos/notes.txt"]),
    ],
)
def test_pattern_gives_files_only(tree, pattern, expected):
    assert ids([pattern]) == expected


def test_single_file_is_taken_whatever_its_ending(tree):
    assert find_images(["photos/notes.txt"]) == [Item("notes.txt", tree.__class__("photos/notes.txt"))]
    assert ids([tree / "photos" / "noending", "photos/b.png"]) == ["noending", "b.png"]


def test_name_that_looks_like_a_pattern_is_the_file(tree):
    (tree / "a[1].png").touch()
    (tree / "a1.png").touch()
    assert ids(["a[1].png"]) == ["a[1].png"]


def test_each_file_once_under_its_first_name(tree):
    """A link is a name of its own."""
    os.symlink(tree / "photos" / "b.png", tree / "photos" / "z-link.png")
    inputs = ["photos/b.png", "photos", "photos/*.png", "photos/../photos/a.JPG", "photos/b.png"]
    expected = ["b.png", "a.JPG", "deep/d.tif", "deep/er/c.webp", "z-link.png"]
    assert ids(inputs) == [item.id for item in open_source(inputs)] == expected
    assert Files(inputs).count() == 5


def test_every_ending_of_the_formats_that_are_read():
    Image.init()
    known = {ending for ending, name in Image.EXTENSION.items() if name in (*FORMATS, "MPO")}
    assert set(SUFFIXES) == known
    assert {".jfif", ".pgm", ".apng"} < set(SUFFIXES)


def test_what_looks_like_an_image_is_an_item_and_the_rest_is_counted(tree):
    photos = tree / "photos"
    (photos / "self.png").symlink_to("self.png")
    (photos / "deep" / "dangling.png").symlink_to("nowhere.png")
    (photos / "ring.jpg").symlink_to(".")
    (photos / "ring").symlink_to("..")
    (photos / "good.pgm").symlink_to("b.png")
    os.mkfifo(photos / "pipe.gif")
    files = Files(["photos"])
    items = {item.id: item for item in files}
    assert list(items) == [
        *("a.JPG", "b.png", "deep/d.tif", "deep/dangling.png", "deep/er/c.webp", "good.pgm", "pipe.gif", "self.png"),
    ]
    assert files.passed_over() == {".txt": 1, ".csv": 1, "without an ending": 1, "links to folders": 2}
    assert said_of_passed_over(files.passed_over()) == (
        "5 passed over: links to folders 2, .csv 1, .txt 1, without an ending 1"
    )
    assert files.count() == len(items)
    for name, reason in {
        "self.png": "is a link that leads to no file",
        "deep/dangling.png": "is a link that leads to no file",
        "pipe.gif": "is a pipe or device",
    }.items():
        with pytest.raises(ImageError, match=reason):
            items[name].read()
    assert items["good.pgm"].read() == b""
    for given in (["photos/self.png"], ["photos/sel*.png"]):
        (item,) = find_images(given)
        assert item.error


def test_folders_deeper_than_the_stack(tmp_path):
    deep = tmp_path.joinpath(*"d" * 200)
    deep.mkdir(parents=True)
    (deep / "a.png").touch()
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 150)
    try:
        assert [item.id for item in Files([tmp_path])] == ["d/" * 200 + "a.png"]
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "nowhere: no such file or folder, and nothing matches it"),
        ("https://a.b/c.png", "https://a.b/c.png: is a URL, which is not read: download it, and give the file"),
        ("photos/*.heic", "nothing matches it as a pattern"),
        ("empty", r"empty: no image in this folder \(looked for \.png.*; 1 passed over: \.txt 1\)"),
    ],
)
def test_input_that_names_nothing_is_an_error(tree, name, message):
    (tree / "empty").mkdir()
    (tree / "empty" / "text.txt").touch()
    with pytest.raises(SourceError, match=message):
        find_images(["photos", name])
    with pytest.raises(SourceError, match=message):  # before the images of the others are gone through
        open_source(["photos", name])
