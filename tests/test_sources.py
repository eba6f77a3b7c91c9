"""From what the user named to a list of image files."""

import os

import pytest

from aedr_jax.errors import SourceError
from aedr_jax.sources import SUFFIXES, Item, find_images


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
    os.symlink(tree / "photos" / "b.png", tree / "photos" / "z-link.png")
    assert ids(["photos/b.png", "photos", "photos/*.png", "photos/../photos/a.JPG"]) == [
        "b.png",
        "a.JPG",
        "deep/d.tif",
        "deep/er/c.webp",
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "nowhere: no such file or folder, and nothing matches it"),
        ("photos/*.heic", "nothing matches it as a pattern"),
        ("empty", r"empty: no image in this folder \(looked for \.png"),
    ],
)
def test_input_that_names_nothing_is_an_error(tree, name, message):
    (tree / "empty").mkdir()
    (tree / "empty" / "text.txt").touch()
    with pytest.raises(SourceError, match=message):
        find_images(["photos", name])
