"""Image files in: what is read from odd files, and that hostile ones end in an `ImageError` that names them."""

import io
import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from aedr_jax.errors import ImageError
from aedr_jax.images.codec import (
    MAX_PIXELS,
    decode_photo,
    decode_quality,
    decode_size,
    read_bytes,
    read_gray,
    read_image,
)
from aedr_jax.images.pixels import fit_crop, fit_official
from aedr_jax.inputs.decoding import Decoder
from aedr_jax.inputs.sources import Item


def read_photo(path, **options):
    return decode_photo(read_bytes(path), name=path, **options)


def read_size(path, **options):
    return decode_size(read_bytes(path), name=path, **options)


def jpeg_quality(path, **options):
    return decode_quality(read_bytes(path), name=path, **options)


READERS = (read_image, read_gray, read_photo)
HEIGHT, WIDTH = 24, 40  # neither square nor a multiple of the other: a wrong turn shows in the shape

UPRIGHT = {  # EXIF orientation -> what a viewer shows
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def smooth(seed=0):
    """Saturated colours that survive JPEG: luma and the grey of decoded RGB differ on them."""
    small = Image.fromarray(noise(4, 5, 3, seed=seed))
    return np.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def png_gray(rgb):
    red, green, blue = rgb.astype(np.int64).transpose(2, 0, 1)
    return (9797 * red + 19234 * green + 3737 * blue) >> 15


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour_type, rows, *extra):
    """A PNG made by hand, for what Pillow does not write."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + body + png_chunk(b"IEND", b"")


def encoded(image, format_name, **options):
    file = io.BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()


def read_or_error(reader, *args, **options):
    """What is read, or the `ImageError`; anything else that is raised fails the test."""
    try:
        return reader(*args, **options)
    except ImageError as error:
        return error


def exif_bytes(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


@pytest.fixture
def put(tmp_path):
    """Write bytes, or save a Pillow image, under a name; gives the path."""

    def write(content, name="image.png", **options):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content.save(path, **options)
        return path

    return write


@pytest.mark.parametrize("orientation", sorted(UPRIGHT))
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tiff", "a.webp"])
def test_exif_orientation_is_applied_once(put, name, orientation):
    plain, upright = smooth(), UPRIGHT[orientation]
    options = {"lossless": True} if name == "a.webp" else {"quality": 95} if name == "a.jpg" else {}
    unturned = put(Image.fromarray(plain), f"plain-{name}", **options)
    turned = put(Image.fromarray(plain), name, exif=exif_bytes(orientation), **options)
    photo = read_photo(turned)
    np.testing.assert_array_equal(read_image(turned), upright(read_image(unturned)))
    np.testing.assert_array_equal(read_gray(turned), upright(read_gray(unturned)))
    np.testing.assert_array_equal(photo.image, upright(read_image(unturned)))
    np.testing.assert_array_equal(photo.gray, upright(read_gray(unturned)))
    assert read_size(turned) == photo.image.shape[1::-1]


def test_orientation_can_be_ignored(put):
    path = put(Image.fromarray(smooth()), exif=exif_bytes(6))
    np.testing.assert_array_equal(read_image(path, orient=False), smooth())
    assert read_photo(path, orient=False).image.shape == (HEIGHT, WIDTH, 3)


def test_alpha_is_dropped_and_stored_colours_are_kept(put):
    rgba = noise(HEIGHT, WIDTH, 4)
    rgba[:12, :, 3] = 0
    path = put(Image.fromarray(rgba))
    np.testing.assert_array_equal(read_image(path), rgba[..., :3])
    np.testing.assert_array_equal(read_gray(path), png_gray(rgba[..., :3]))


def test_grey_with_alpha(put):
    la = noise(HEIGHT, WIDTH, 2)
    la[:12, :, 1] = 0
    path = put(Image.fromarray(la, "LA"))
    np.testing.assert_array_equal(read_image(path), np.repeat(la[..., :1], 3, axis=-1))
    np.testing.assert_array_equal(read_gray(path), la[..., 0])


@pytest.mark.parametrize("transparency", [None, bytes(range(256)), 3], ids=["opaque", "alpha-table", "one-index"])
def test_palette_is_expanded(put, transparency):
    palette, indices = noise(256, 3), noise(HEIGHT, WIDTH, seed=1)
    indices[0, :8] = 3
    image = Image.fromarray(indices, "L").convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette(palette.ravel().tolist())
    path = put(image, **({} if transparency is None else {"transparency": transparency}))
    with Image.open(path) as stored:
        assert stored.mode == "P"
        assert ("transparency" in stored.info) == (transparency is not None)
    np.testing.assert_array_equal(read_image(path), palette[indices])
    np.testing.assert_array_equal(read_gray(path), png_gray(palette[indices]))


@pytest.mark.parametrize("options", [{}, {"transparency": 7}], ids=["plain", "with-a-transparent-level"])
@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.ppm"])
def test_grey_is_three_equal_channels_and_itself(put, name, options):
    levels = noise(HEIGHT, WIDTH)
    path = put(Image.fromarray(levels), name, **(options if name == "a.png" else {}))
    np.testing.assert_array_equal(read_image(path), np.repeat(levels[..., None], 3, axis=-1))
    np.testing.assert_array_equal(read_gray(path), levels)


def test_one_bit_is_black_and_white(put):
    bits = noise(HEIGHT, WIDTH) > 127
    path = put(Image.fromarray(bits))
    np.testing.assert_array_equal(read_image(path), np.repeat(bits[..., None] * np.uint8(255), 3, axis=-1))
    np.testing.assert_array_equal(read_gray(path), bits * np.uint8(255))


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.ppm"])
def test_high_byte_of_16_bit_grey(put, name):
    levels = noise(HEIGHT, WIDTH, dtype=np.uint16)
    path = put(Image.fromarray(levels), name)
    np.testing.assert_array_equal(read_gray(path), levels >> 8)
    np.testing.assert_array_equal(read_image(path)[..., 1], levels >> 8)


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (6, 4)], ids=["rgb", "rgba"])
def test_high_byte_of_16_bit_colour(put, colour_type, channels):
    samples = noise(HEIGHT, WIDTH, channels, dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    path = put(png(WIDTH, HEIGHT, 16, colour_type, rows))
    np.testing.assert_array_equal(read_image(path), samples[..., :3] >> 8)


def test_cmyk_jpeg_is_converted_by_pillow(put):
    path = put(Image.fromarray(smooth()).convert("CMYK"), "a.jpg", quality=95)
    with Image.open(path) as stored:
        assert stored.mode == "CMYK"
        expected = np.asarray(stored.convert("RGB"))
    np.testing.assert_array_equal(read_image(path), expected)
    assert read_gray(path).shape == (HEIGHT, WIDTH)
    assert read_photo(path).format == "JPEG"


@pytest.mark.parametrize(
    ("name", "options"), [("a.gif", {}), ("a.png", {}), ("a.webp", {"lossless": True}), ("a.tiff", {})]
)
def test_only_the_first_frame_counts(put, name, options):
    frames = [Image.fromarray(np.full((HEIGHT, WIDTH, 3), colour, np.uint8)) for colour in ((255, 0, 0), (0, 255, 0))]
    path = put(frames[0], name, save_all=True, append_images=frames[1:], **options)
    with Image.open(path) as stored:
        assert stored.n_frames == 2
    np.testing.assert_array_equal(read_image(path), np.asarray(frames[0]))


def test_mpo_is_a_jpeg_of_its_first_picture(put):
    first, second = Image.fromarray(smooth(0)), Image.fromarray(smooth(1))
    path = put(first, "a.mpo", save_all=True, append_images=[second], quality=95)
    alone = read_photo(put(first, "alone.jpg", quality=95))
    with Image.open(path) as stored:
        assert stored.format == "MPO"
    photo = read_photo(path)
    assert photo.format == "JPEG"
    np.testing.assert_array_equal(photo.image, alone.image)
    np.testing.assert_array_equal(photo.gray, alone.gray)


# (228,205,35) and (232,240,11) tell OpenCV's TIFF and BMP weights from its general ones, the third libpng's from both.
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", (192, 211, 169)),
        ("a.bmp", (192, 211, 169)),
        ("a.tiff", (192, 211, 169)),
        ("a.ppm", (193, 212, 170)),
        ("a.webp", (193, 212, 170)),
    ],
)
def test_grey_weights_follow_the_format(put, name, expected):
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:, :10], image[:, 10:20], image[:, 20:] = (228, 205, 35), (232, 240, 11), (91, 236, 33)
    gray = read_gray(put(Image.fromarray(image), name, **({"lossless": True} if name == "a.webp" else {})))
    np.testing.assert_array_equal(gray[0, [0, 10, 20]], expected)


def test_libpng_and_bmp_weights_differ(put):
    image = Image.new("RGB", (WIDTH, HEIGHT), (0, 255, 0))
    assert read_gray(put(image, "a.png"))[0, 0] == 149
    assert read_gray(put(image, "a.bmp"))[0, 0] == 150


def test_grey_of_a_png_is_libpngs_formula(put):
    rgb = noise(128, 128, 3)
    np.testing.assert_array_equal(read_gray(put(Image.fromarray(rgb))), png_gray(rgb))


@pytest.mark.parametrize("subsampling", [0, 2], ids=["4:4:4", "4:2:0"])
def test_grey_of_a_jpeg_is_its_stored_luma(put, subsampling):
    path = put(Image.fromarray(smooth()), "a.jpg", quality=80, subsampling=subsampling)
    with Image.open(path) as stored:
        stored.draft("YCbCr", stored.size)
        luma = np.asarray(stored)[..., 0]
    np.testing.assert_array_equal(read_gray(path), luma)
    np.testing.assert_array_equal(read_photo(path).gray, luma)
    assert np.any(luma != png_gray(read_image(path)))  # or the test could not tell them apart


def test_photo_names_the_bytes(put):
    photo = read_photo(put(b"P5 1 1 255 A", "a.ppm"))
    assert photo.format == "PPM"
    assert photo.sha256 == "1c57fc5d66bd2fe6dafacdf6bc67937f1a47647b07bfd0f1457267a45054e561"
    assert photo.gray.tolist() == [[65]]


SIMPLE = Image.fromarray(smooth())
PNG_ROWS = b"".join(b"\0" + row.tobytes() for row in smooth())
HOSTILE = {
    "empty.png": b"",
    "text.png": b"this is no image, whatever its name says\n" * 20,
    "truncated.png": encoded(SIMPLE, "PNG")[:-600],
    "truncated.jpg": encoded(SIMPLE, "JPEG", quality=95)[:-300],
    "truncated.webp": encoded(SIMPLE, "WEBP", lossless=True)[:-300],
    "truncated.tiff": encoded(SIMPLE, "TIFF")[:-300],
    "truncated.bmp": encoded(SIMPLE, "BMP")[:-300],
    "only-a-signature.png": b"\x89PNG\r\n\x1a\n",
    "no-pixels.png": png(0, 0, 8, 2, b""),
    "wrong-checksum.png": png(WIDTH, HEIGHT, 8, 2, PNG_ROWS).replace(b"IDAT", b"IDAT\0", 1),
    "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="99" height="99"/>',
    "layers.psd": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 64, 64, 8, 3) + bytes(64 * 64 * 3 + 14),
    "page.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n%%EndComments\nshowpage\n",
    "icon.ico": encoded(SIMPLE, "ICO"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_file_is_an_error_that_names_it(put, name, reader):
    path = put(HOSTILE[name], name)
    with pytest.raises(ImageError) as caught:
        reader(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("reader", [*READERS, read_size, jpeg_quality])
def test_missing_file_and_folder(tmp_path, reader):
    with pytest.raises(ImageError, match=r"nowhere\.png: no such file"):
        reader(tmp_path / "nowhere.png")
    for url in ("https://a.b/c.png", Path("S3://bucket/c.png")):
        with pytest.raises(ImageError, match=r"c\.png: is a URL, which is not read: download it"):
            reader(url)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageError, match=r"folder\.png: is a folder"):
        reader(tmp_path / "folder.png")
    with pytest.raises(ImageError, match="null byte"):
        reader(f"{tmp_path}/a\0.png")


@pytest.mark.parametrize("reader", [*READERS, read_size, jpeg_quality])
def test_pipe_is_not_waited_for(tmp_path, reader):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match=r"pipe\.png: is a pipe"):
        reader(tmp_path / "pipe.png")


@pytest.mark.parametrize("reader", [*READERS, read_size])
@pytest.mark.parametrize("side", [60_000, 11_586])
def test_decompression_bomb_is_refused_before_anything_is_decoded(put, monkeypatch, reader, side):
    assert side * side > MAX_PIXELS
    path = put(png(side, side, 8, 2, b"\0" * 100), "bomb.png")
    decoded = []
    monkeypatch.setattr(ImageFile.ImageFile, "load_prepare", decoded.append)
    with pytest.raises(ImageError, match=rf"bomb\.png: .*is above the {MAX_PIXELS} pixels that are decoded"):
        reader(path)
    assert decoded == []


def test_a_cap_above_pillows_own_holds(put):
    """Pillow refuses files above 2 * MAX_IMAGE_PIXELS, about 1.8e8, in words of its own."""
    limit = Image.MAX_IMAGE_PIXELS
    most = 200_000_000
    assert 2 * limit < most
    path = put(b"P6 20000 10000 255 ", "large.ppm")
    assert read_size(path, most_pixels=most) == (20_000, 10_000)
    for above in (b"P6 20001 10000 255 ", b"P6 40000 20000 255 "):
        with pytest.raises(ImageError, match="is above the 200000000 pixels that are decoded; crop it first"):
            read_size(put(above, "larger.ppm"), most_pixels=most)
    refused = Decoder(most_decoded=most)(Item("large.ppm", path))
    assert "truncated" in refused.error or "cannot be decoded" in refused.error  # no pixels follow
    tables = put(resized_header(encoded(SIMPLE, "JPEG", quality=83), 20_000, 10_000), "large.jpg")
    assert jpeg_quality(tables, most_pixels=most) == 83
    assert limit == Image.MAX_IMAGE_PIXELS


def resized_header(data, width, height):
    """A JPEG whose frame header says another size."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def test_cap_is_inclusive(put):
    path = put(b"P6 16384 8192 255 ", "large.ppm")
    assert MAX_PIXELS == 16384 * 8192
    assert read_size(path) == (16384, 8192)
    with pytest.raises(ImageError, match=r"truncated|cannot be decoded"):  # no pixels follow
        read_image(path)
    with pytest.raises(ImageError, match="16384×8192 is above the 134217727 pixels that are decoded"):
        read_size(path, most_pixels=MAX_PIXELS - 1)


def test_bombs_in_profile_and_text_are_not_expanded(put):
    profile = b"name\0\0" + zlib.compress(bytes(1 << 26), 9)
    text = b"Comment\0\0" + zlib.compress(bytes(1 << 26), 9)
    path = put(png(WIDTH, HEIGHT, 8, 2, PNG_ROWS, png_chunk(b"iCCP", profile), png_chunk(b"zTXt", text)))
    tracemalloc.start()
    image = read_image(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(image, smooth())
    assert most < 1 << 24


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0garbage that is no TIFF header",
        b"Exif\0\0MM\0*\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\xff\xff\xff\xff" * 4,
        b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\x63\0\0\0\0\0\0",
    ],
    ids=["garbage", "offset-outside", "cut", "orientation-99"],
)
def test_broken_exif_is_read_upright(put, name, exif):
    options = {"lossless": True} if name == "a.webp" else {}
    plain = read_image(put(SIMPLE, f"plain-{name}", **options))
    path = put(SIMPLE, name, exif=exif, **options)
    photo = read_photo(path)
    np.testing.assert_array_equal(photo.image, plain)
    assert photo.gray.shape == plain.shape[:2]


FUZZED = {
    "PNG": encoded(SIMPLE, "PNG", exif=exif_bytes(6)),
    "PNG palette": encoded(SIMPLE.quantize(16), "PNG", transparency=2),
    "JPEG": encoded(SIMPLE, "JPEG", exif=exif_bytes(8)),
    "WEBP": encoded(SIMPLE, "WEBP", exif=exif_bytes(3)),
    "BMP": encoded(SIMPLE.quantize(16), "BMP"),
    "TIFF": encoded(SIMPLE, "TIFF", compression="tiff_lzw"),
    "GIF": encoded(SIMPLE, "GIF"),
    "PPM": encoded(SIMPLE, "PPM"),
}


def mutated(data, rng):
    """Some bytes replaced, a stretch cut out or repeated, or the end missing; headers are hit most."""
    changed = bytearray(data)
    reach = len(data) if rng.random() < 0.3 else min(len(data), 200)
    kind = rng.integers(4)
    if kind == 0:
        del changed[rng.integers(len(data)) :]
    elif kind == 1:
        start = rng.integers(reach)
        del changed[start : start + rng.integers(1, 40)]
    elif kind == 2:
        start = rng.integers(reach)
        changed[start:start] = changed[start : start + rng.integers(1, 40)]
    for _ in range(rng.integers(1, 6)):
        if changed:
            changed[rng.integers(min(reach, len(changed)))] = rng.integers(256)
    return bytes(changed)


def with_checksums(data):
    """A PNG with its chunks' checksums made right, so that mutations reach what lies behind them."""
    repaired, at = data[:8], 8
    while at + 8 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        repaired += data[at:end] + struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return repaired


def test_mutated_files_are_read_or_refused():
    rng = np.random.default_rng(0)
    refused, read = 0, set()
    for trial in range(320):
        name = sorted(FUZZED)[trial % len(FUZZED)]
        data = mutated(FUZZED[name], rng)
        if name.startswith("PNG") and rng.random() < 0.7:
            data = with_checksums(data)
        photo = read_or_error(decode_photo, data, name=f"{name} {trial}")
        if isinstance(photo, ImageError):
            refused += 1
            assert str(photo).startswith(f"{name} {trial}: ")
        else:
            read.add(name)
            assert photo.image.dtype == photo.gray.dtype == np.uint8
            assert photo.image.shape == (*photo.gray.shape, 3)
    assert refused > 100
    assert len(read) > 4  # or the mutations are too wild to reach the decoders


def test_random_bytes_are_refused():
    rng = np.random.default_rng(0)
    signatures = [data[:12] for data in FUZZED.values()]
    for trial in range(40):
        data = signatures[trial % len(signatures)] + rng.bytes(300)
        with pytest.raises(ImageError, match=f"^noise {trial}: "):
            decode_photo(data, name=f"noise {trial}")


@pytest.mark.parametrize(("height", "width", "multiple"), [(71, 64, 8), (64, 95, 64), (127, 129, 32)])
def test_crop_keeps_the_top_left_corner(height, width, multiple):
    image = noise(height, width, 3)
    cropped = fit_crop(image, multiple)
    assert cropped.shape[0] % multiple == cropped.shape[1] % multiple == 0
    assert 0 <= height - cropped.shape[0] < multiple
    assert 0 <= width - cropped.shape[1] < multiple
    np.testing.assert_array_equal(cropped, image[: cropped.shape[0], : cropped.shape[1]])
    np.testing.assert_array_equal(fit_crop(image[..., 0], multiple), cropped[..., 0])


@pytest.mark.parametrize(
    ("side", "expected"),
    [(64, 64), (67, 64), (68, 64), (69, 72), (75, 72), (76, 80), (77, 80), (84, 80), (92, 96), (36, 32), (44, 48)],
)
def test_official_size_is_the_nearest_multiple_halves_to_even(side, expected):
    assert fit_official(noise(side, 64, 3)).shape == (expected, 64, 3)
    assert fit_official(noise(64, side, 3)).shape == (64, expected, 3)


def test_official_resizing_is_pillows_bicubic():
    image = noise(70, 90, 3)
    expected = np.asarray(Image.fromarray(image).resize((88, 72), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(fit_official(image), expected)
    assert fit_official(image, size=512).shape == (512, 512, 3)
    fitting = noise(72, 88, 3)
    np.testing.assert_array_equal(fit_official(fitting), fitting)


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}, {"exif": exif_bytes(6)}])
def test_jpeg_quality_of_libjpegs_files_is_exact(put, options):
    found = [jpeg_quality(put(SIMPLE, "a.jpg", quality=quality, **options)) for quality in range(1, 101)]
    assert found == list(range(1, 101))


def test_jpeg_quality_of_grey_and_of_several_pictures(put):
    assert jpeg_quality(put(SIMPLE.convert("L"), "a.jpg", quality=83)) == 83
    path = put(SIMPLE, "several.jpg", format="MPO", save_all=True, append_images=[SIMPLE], quality=83)
    with Image.open(path) as image:
        assert image.format == "MPO"
    assert jpeg_quality(path) == 83


def test_jpeg_quality_of_other_tables_is_the_nearest(put):
    with Image.open(put(SIMPLE, "a.jpg", quality=60)) as image:
        tables = [image.quantization[i] for i in range(2)]
    tables[0] = [step + (i % 3 == 0) for i, step in enumerate(tables[0])]
    assert jpeg_quality(put(SIMPLE, "b.jpg", qtables=tables)) in (59, 60)
    assert jpeg_quality(put(SIMPLE, "c.jpg", qtables=[[1] * 64] * 2)) == 100
    assert jpeg_quality(put(SIMPLE, "d.jpg", qtables=[[255] * 64] * 2)) == 1


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.bmp", "a.tiff", "a.gif", "a.ppm"])
def test_jpeg_quality_of_other_formats(put, name):
    assert jpeg_quality(put(SIMPLE, name)) is None


def test_jpeg_quality_needs_no_pixels(put):
    assert jpeg_quality(put(HOSTILE["truncated.jpg"], "a.jpg")) == 95


def without_tables(data):
    """A JPEG whose quantization tables are cut out."""
    while (start := data.find(b"\xff\xdb")) >= 0:
        data = data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]
    return data


def test_jpeg_without_tables_has_no_quality(put):
    path = put(without_tables(encoded(SIMPLE, "JPEG")), "bare.jpg")
    with pytest.raises(ImageError, match=r"bare\.jpg: a JPEG without quantization tables"):
        jpeg_quality(path)


def test_jpeg_quality_of_mutated_files_is_a_number_or_an_error_that_names_them(put):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(200):
        path = put(mutated(FUZZED["JPEG"], rng), "mutated.jpg")
        quality = read_or_error(jpeg_quality, path)
        found.append(quality)
        if isinstance(quality, ImageError):
            assert str(quality).startswith(f"{path}: ")
        else:
            assert quality is None or 1 <= quality <= 100
    assert {isinstance(quality, ImageError) for quality in found} == {True, False}
