"""One stated rule for each kind of stored samples, or a refusal that says what to do: never black, never noise."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from aedr_jax.errors import ImageError
from aedr_jax.images.codec import decode_photo
from aedr_jax.images.samples import describe_tiff

HEIGHT, WIDTH = 24, 40
FORMATS = {"u": 1, "i": 2, "f": 3}


def tiff(samples, *, bits=None, photometric=1, planes=False, sample_format=None, order="<"):
    """A TIFF made by hand, for what Pillow does not write: uncompressed, [h,w] or [h,w,c]."""
    height, width, channels = (*samples.shape, 1)[:3]
    dtype = samples.dtype.newbyteorder(order)
    pixels = (np.moveaxis(samples, -1, 0) if planes else samples).astype(dtype).tobytes()
    pieces = channels if planes else 1
    tail = 8 + 2 + 12 * 10 + 4
    each = len(pixels) // pieces
    lists = {258: [bits or 8 * dtype.itemsize] * channels, 273: [0] * pieces, 279: [each] * pieces}
    lists[339] = [sample_format or FORMATS[dtype.kind]] * channels
    start = tail + sum(4 * len(values) for values in lists.values())
    lists[273] = [start + each * i for i in range(pieces)]
    single = {256: width, 257: height, 259: 1, 262: photometric, 277: channels, 284: 2 if planes else 1}
    directory, spilled = b"", b""
    for tag in sorted(lists | single):
        values = lists.get(tag) or [single[tag]]
        packed = struct.pack(f"{order}{len(values)}I", *values)
        inline = packed if len(values) == 1 else struct.pack(order + "I", tail + len(spilled))
        spilled += b"" if len(values) == 1 else packed
        directory += struct.pack(order + "HHI", tag, 4, len(values)) + inline
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 10)
    return (head + directory + bytes(4) + spilled).ljust(start, b"\0") + pixels


def encoded(image, format_name):
    file = io.BytesIO()
    image.save(file, format_name)
    return file.getvalue()


def noise(dtype, *shape):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (HEIGHT, WIDTH, *shape), dtype, endpoint=True)


def floats(*shape):
    values = np.random.default_rng(0).random((HEIGHT, WIDTH, *shape), np.float32)
    values.flat[:2] = 0, 1
    return values


def assert_reads(data, expected):
    """The grey and each channel, or the three channels."""
    photo = decode_photo(data, name="a.tif")
    expected = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, -1)
    np.testing.assert_array_equal(photo.image, expected)
    if (expected == expected[..., :1]).all():
        np.testing.assert_array_equal(photo.gray, expected[..., 0])


@pytest.mark.parametrize("order", ["<", ">"])
def test_floats_from_0_to_1_are_scaled(order):
    levels = np.rint(floats() * np.float32(255)).astype(np.uint8)
    assert {0, 255} <= set(levels.flat)
    assert_reads(tiff(floats(), order=order), levels)
    assert_reads(tiff(floats(), order=order, photometric=0), 255 - levels)
    assert_reads(encoded(Image.fromarray(floats()), "TIFF"), levels)


def test_floats_of_a_pfm_are_scaled():
    assert_reads(encoded(Image.fromarray(floats()), "PPM"), np.rint(floats() * np.float32(255)).astype(np.uint8))


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (np.nan, "from nan to nan"),
        (np.inf, "from 0 to inf"),
        (1.001, "from 0 to 1.001"),
        (-0.5, "from -0.5 to 1"),
        (255, "from 0 to 255"),
    ],
)
@pytest.mark.parametrize("format_name", ["TIFF", "PPM"])
def test_other_floats_are_refused(value, told, format_name):
    values = floats()
    values[3, 4] = value
    with pytest.raises(ImageError, match=rf"a\.tif: .*float samples {told}; expected 0 to 1: scale them"):
        decode_photo(encoded(Image.fromarray(values), format_name), name="a.tif")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("shape", [(), (3,)], ids=["grey", "colour"])
def test_high_byte_of_16_bits(order, shape):
    samples = noise(np.uint16, *shape)
    assert_reads(tiff(samples, order=order, photometric=2 if shape else 1), (samples >> 8).astype(np.uint8))


def test_white_is_zero_is_inverted():
    assert_reads(tiff(noise(np.uint8), photometric=0), 255 - noise(np.uint8))
    samples = noise(np.uint16)
    assert_reads(tiff(samples, photometric=0), (~samples >> 8).astype(np.uint8))


def test_12_bits_are_not_taken_for_16():
    samples = noise(np.uint16) >> 4
    pairs = samples.reshape(-1, 2).astype(np.uint32)
    packed = (pairs[:, 0] << 12 | pairs[:, 1])[:, None] >> np.array([16, 8, 0], np.uint32)
    data = tiff(packed.astype(np.uint8).reshape(HEIGHT, -1), bits=12)
    data = data.replace(struct.pack("<HHII", 256, 4, 1, WIDTH * 3 // 2), struct.pack("<HHII", 256, 4, 1, WIDTH))
    assert_reads(data, (samples >> 4).astype(np.uint8))


@pytest.mark.parametrize("maximum", [100, 255, 1000, 65535])
def test_largest_value_of_a_pgm(maximum):
    levels = np.linspace(0, maximum, HEIGHT * WIDTH).round().astype(np.uint32).reshape(HEIGHT, WIDTH)
    stored = levels.astype(">u2" if maximum > 255 else "u1").tobytes()
    photo = decode_photo(b"P5 %d %d %d\n" % (WIDTH, HEIGHT, maximum) + stored, name="a.pgm")
    assert np.abs(photo.gray - levels * 255 / maximum).max() <= 1  # the high byte is rounded down
    assert photo.gray.min() == 0
    assert photo.gray.max() == 255


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.uint32])
def test_integers_of_no_stated_range_are_refused(dtype):
    told = f"{8 * np.dtype(dtype).itemsize}-bit.*nothing says which range.*save 8"
    with pytest.raises(ImageError, match=rf"a\.tif: .*{told}"):
        decode_photo(tiff(noise(np.dtype(dtype))), name="a.tif")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (tiff(floats(3), photometric=2), r" \(32\+32\+32-bit float, photometric 2\)"),
        (tiff(floats().astype(np.float64)), r" \(64-bit float, photometric 1\)"),
        (tiff(floats().astype(np.float16)), r" \(16-bit float, photometric 1\)"),
        (tiff(noise(np.uint32, 3), photometric=2), r" \(32\+32\+32-bit unsigned, photometric 2\)"),
        (b"II*\0" + bytes(40), ""),
    ],
    ids=["float colour", "float64", "float16", "uint32 colour", "no directory"],
)
def test_what_pillow_does_not_read_is_refused_by_name(data, told):
    with pytest.raises(
        ImageError, match=rf"a\.tif: a TIFF file that is broken or of a kind that is not read{told}; save it"
    ):
        decode_photo(data, name="a.tif")


def test_16_bit_planes_are_refused_and_8_bit_ones_read():
    """Pillow reads wrong pixels from the former."""
    with pytest.raises(ImageError, match="16-bit planes"):
        decode_photo(tiff(noise(np.uint16, 3), photometric=2, planes=True), name="a.tif")
    assert_reads(tiff(noise(np.uint8, 3), photometric=2, planes=True), noise(np.uint8, 3))


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB"])
def test_other_colours_are_converted_by_pillow(mode):
    """Reference: `PIL.Image.Image.convert`, exact."""
    image = Image.fromarray(noise(np.uint8, len(Image.new(mode, (1, 1)).getbands())), mode)
    with Image.open(io.BytesIO(encoded(image, "TIFF"))) as stored:
        assert stored.mode == mode
        expected = np.asarray(stored.convert("RGB"))
    assert_reads(encoded(image, "TIFF"), expected)


def test_description_of_nothing():
    assert describe_tiff(b"") == describe_tiff(b"II*\0\xff\xff\xff\xff") == ""
