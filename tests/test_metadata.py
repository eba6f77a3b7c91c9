"""Metadata cost no image its pixels: huge, broken or hostile, they are cut out; only the orientation is read."""

import io
import struct
import time
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from aedr_jax.errors import ImageError
from aedr_jax.images.codec import decode_photo, decode_quality, decode_size
from aedr_jax.images.metadata import bare, exif_orientation

HEIGHT, WIDTH = 24, 40
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def picture():
    coarse = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def encoded(format_name, image=None, **options):
    file = io.BytesIO()
    (image or picture()).save(file, format_name, **options)
    return file.getvalue()


def chunk(kind, data=b"", *, checksum=None):
    total = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", total)


def png(*chunks, behind=(), **options):
    """A PNG with chunks before its pixels and behind them."""
    data = encoded("PNG", **options)
    return data[:33] + b"".join(chunks) + data[33:-12] + b"".join(behind) + data[-12:]


def jpeg(*segments, **options):
    """A JPEG with segments (marker, body) at its beginning."""
    data = encoded("JPEG", quality=90, **options)
    made = b"".join(b"\xff" + bytes([m]) + struct.pack(">H", len(body) + 2) + body for m, body in segments)
    return data[:2] + made + data[2:]


def webp(*chunks, flags=0x2C):
    """An extended WebP with chunks behind its pixels."""
    made = b"".join(k + struct.pack("<I", len(d)) + d + b"\0" * (len(d) % 2) for k, d in chunks)
    sides = (WIDTH - 1).to_bytes(3, "little") + (HEIGHT - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes([flags, 0, 0, 0]) + sides
    body += encoded("WEBP", lossless=True)[12:] + made
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff(*entries, following=0):
    """A TIFF with further entries (tag, type, count, value) in its directory."""
    data = encoded("TIFF")
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    old = [struct.unpack_from("<HHII", data, at + 2 + 12 * i) for i in range(count)]
    new = sorted(old + list(entries))
    directory = struct.pack("<H", len(new)) + b"".join(struct.pack("<HHII", *entry) for entry in new)
    where = len(data) + len(data) % 2
    data = data.ljust(where, b"\0") + directory + struct.pack("<I", where if following else 0)
    return data[:4] + struct.pack("<I", where) + data[8:]


def exif(*entries, order="<"):
    """EXIF of entries (tag, type, count, value of four bytes)."""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order]
    directory = b"".join(struct.pack(order + "HHI", *entry[:3]) + entry[3] for entry in entries)
    return head + struct.pack(order + "IH", 8, len(entries)) + directory + bytes(4)


TURNED = exif((0x112, 3, 1, struct.pack("<HH", 6, 0)))
NEGATIVE = exif((0x112, 3, 1, struct.pack("<HH", 1, 0)), (0x11A, 10, 1, struct.pack("<I", 38))) + struct.pack(
    "<ii", -1, 0
)
EXIF, PHOTOSHOP = b"Exif\0\0", b"Photoshop 3.0\0"
LONG = zlib.compress(bytes(3 << 20), 9)

PNGS = {
    "compressed text above 1 MB": png(chunk(b"zTXt", b"workflow\0\0" + LONG)),
    "the same behind the pixels": png(behind=[chunk(b"zTXt", b"workflow\0\0" + LONG)]),
    "compressed international text above 1 MB": png(chunk(b"iTXt", b"prompt\0\1\0\0\0" + LONG)),
    "texts of 66 MB": png(*[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 20), 9))] * 66),
    "text with a wrong checksum": png(chunk(b"tEXt", b"Comment\0hello", checksum=7)),
    "EXIF with a wrong checksum": png(chunk(b"eXIf", b"II*\0", checksum=7)),
    "transparency with a wrong checksum": png(chunk(b"tRNS", bytes(6), checksum=7)),
    "transparency too short": png(chunk(b"tRNS", b"\0")),
    "an unknown chunk with a wrong checksum": png(chunk(b"caBX", bytes(99), checksum=7)),
    "a profile that does not expand": png(chunk(b"iCCP", b"name\0\0no profile")),
    "a profile of another method": png(chunk(b"iCCP", b"name\0\7" + LONG)),
    "a profile without a name": png(chunk(b"iCCP", b"")),
    "empty gamma, primaries, intent and resolution": png(*map(chunk, (b"gAMA", b"cHRM", b"sRGB", b"pHYs"))),
    "an animation of no frames": png(chunk(b"acTL", bytes(8)), chunk(b"fcTL", b"")),
    "EXIF that is none": png(chunk(b"eXIf", b"no TIFF")),
    "an old profile that is no EXIF": png(chunk(b"tEXt", b"Raw profile type exif\0\nexif\n8\nxyz")),
}
JPEGS = {
    "a negative resolution": jpeg((0xE1, EXIF + NEGATIVE)),
    "EXIF that is none": jpeg((0xE1, EXIF + b"garbage that is no TIFF")),
    "EXIF of a resolution without a value": jpeg((0xE1, EXIF + exif((0x11A, 5, 1, b"\xff\xff\xff\xff")))),
    "a profile's piece without a number": jpeg((0xE2, b"ICC_PROFILE\0")),
    "an index of pictures that is none": jpeg((0xE2, b"MPF\0" + b"II*\0\x08\0\0\0\xff\xff")),
    "an index of pictures outside": jpeg(
        (0xE2, b"MPF\0" + exif((0xB001, 4, 1, b"\2\0\0\0"), (0xB002, 7, 32, b"\xff" * 4)))
    ),
    "Photoshop's blocks cut short": jpeg((0xED, PHOTOSHOP + b"8BIM")),
    "JFIF cut short": jpeg((0xE0, b"JFIF")),
    "Adobe cut short": jpeg((0xEE, b"Adobe")),
    "a comment": jpeg((0xFE, b"\xff\xd8\xff" * 99)),
}
WEBPS = {
    "EXIF that is none": webp((b"EXIF", b"garbage that is no TIFF header")),
    "EXIF outside": webp((b"EXIF", b"MM\0*\xff\xff\xff\xff")),
    "EXIF cut short": webp((b"EXIF", bytes(100)))[:-60],
    "a profile that is none": webp((b"ICCP", b"no"), (b"XMP ", b"\xff")),
    "flags of what is not there": webp(),
}
TIFFS = {
    "a resolution outside": tiff((282, 5, 1, 0xFFFFFFFF)),
    "a resolution without values": tiff((282, 5, 0, 0), (283, 5, 0, 0)),
    "XMP as a text": tiff((700, 2, 4, 0x41414141)),
    "EXIF outside": tiff((34665, 4, 1, 0x7FFFFFFF)),
    "EXIF that is the directory itself": tiff((34665, 4, 1, 8)),
    "a profile outside": tiff((34675, 7, 1 << 31, 8)),
    "an orientation that is a text": tiff((274, 2, 1, 0x36)),
    "an unknown type": tiff((50000, 99, 1, 8)),
    "directories in a ring": tiff(following=1),
}
KINDS = {"PNG": PNGS, "JPEG": JPEGS, "WEBP": WEBPS, "TIFF": TIFFS}
OPTIONS = {"JPEG": {"quality": 90}, "WEBP": {"lossless": True}}


@pytest.mark.parametrize(("format_name", "what"), [(f, what) for f, kinds in KINDS.items() for what in kinds])
def test_pixels_are_read_whatever_the_metadata_say(format_name, what):
    data = KINDS[format_name][what]
    plain = decode_photo(encoded(format_name, **OPTIONS.get(format_name, {})), name="plain")
    photo = decode_photo(data, name="odd")
    np.testing.assert_array_equal(photo.image, plain.image)
    np.testing.assert_array_equal(photo.gray, plain.gray)
    assert photo.format == plain.format
    assert decode_size(data, name="odd") == (WIDTH, HEIGHT)
    if format_name == "JPEG":
        assert decode_quality(data, name="odd") == 90


RAW = b"Raw profile type exif\0"
HEXED = b"\nexif\n%8d\n" % len(TURNED) + TURNED.hex().encode() + b"\n"
ORIENTED = {
    "PNG's EXIF": png(chunk(b"eXIf", TURNED)),
    "PNG's EXIF behind the pixels": png(behind=[chunk(b"eXIf", TURNED)]),
    "PNG's old profile": png(chunk(b"tEXt", RAW + HEXED)),
    "PNG's old profile, compressed": png(chunk(b"zTXt", RAW + b"\0" + zlib.compress(HEXED))),
    "PNG's XMP": png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)),
    "PNG's XMP, compressed": png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP))),
    "PNG's EXIF against its XMP": png(
        chunk(b"eXIf", exif((0x112, 3, 1, b"\3\0\0\0"))), chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)
    ),
    "JPEG's EXIF": jpeg((0xE1, EXIF + TURNED)),
    "JPEG's EXIF in two pieces": jpeg((0xE1, EXIF + TURNED[:15]), (0xE1, EXIF + TURNED[15:])),
    "JPEG's EXIF, the header twice": jpeg((0xE1, EXIF + EXIF + TURNED)),
    "JPEG's EXIF as a long, big-endian": jpeg((0xE1, EXIF + exif((0x112, 4, 1, struct.pack(">I", 8)), order=">"))),
    "JPEG's XMP": jpeg((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)),
    "JPEG's orientation 99": jpeg((0xE1, EXIF + exif((0x112, 3, 1, b"\x63\0\0\0")))),
    "JPEG's orientation with one too many": jpeg((0xE1, EXIF + exif((0x112, 3, 2, b"\6\0\6\0")))),
    "WebP's EXIF": webp((b"EXIF", TURNED)),
    "WebP's XMP": webp((b"XMP ", XMP)),
    "TIFF's tag": tiff((274, 3, 1, 8)),
    "TIFF's tag 99": tiff((274, 3, 1, 99)),
}


@pytest.mark.parametrize("what", ORIENTED)
def test_orientation_is_pillows(what):
    """Reference: `ImageOps.exif_transpose`, exact."""
    with warnings.catch_warnings(), Image.open(io.BytesIO(ORIENTED[what])) as image:
        warnings.simplefilter("ignore")  # of one that is too many
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(decode_photo(ORIENTED[what], name="turned").image, expected)
    assert decode_size(ORIENTED[what], name="turned") == expected.shape[1::-1]


def test_orientation_survives_what_is_broken_beside_it():
    broken = [(0x11A, 10, 1, b"\xff" * 4), (0x112, 3, 1, b"\6\0\0\0"), (0x8769, 4, 1, b"\x08\0\0\0")]
    negative = exif((0x112, 3, 1, b"\6\0\0\0"), (0x11A, 10, 1, b"\x26\0\0\0")) + struct.pack("<ii", -1, 0)
    for data in (
        png(chunk(b"eXIf", exif(*broken), checksum=7)),
        jpeg((0xE1, EXIF + exif(*broken))),
        jpeg((0xE1, EXIF + negative)),
    ):
        assert decode_photo(data, name="turned").image.shape == (WIDTH, HEIGHT, 3)
    assert exif_orientation(exif(*broken)[:40]) == 6  # cut in the third entry


@pytest.mark.parametrize(
    "data", [b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\7\0", b"no EXIF", EXIF], ids=repr
)
def test_exif_without_an_orientation(data):
    assert exif_orientation(data) is None


@pytest.mark.parametrize("format_name", KINDS)
def test_a_file_cut_anywhere_is_whole_or_an_error(format_name):
    """What is cut out must not hide that pixels are missing."""
    data = {
        "PNG": png(chunk(b"tEXt", b"a\0b"), behind=[chunk(b"eXIf", NEGATIVE)]),
        "JPEG": jpeg((0xE1, EXIF + NEGATIVE), (0xFE, b"hello")),
        "WEBP": webp((b"EXIF", NEGATIVE)),
        "TIFF": tiff((282, 5, 1, 8)),
    }[format_name]
    whole = decode_photo(data, name="whole").image
    refused = 0
    for end in np.linspace(0, len(data) - 1, 80, dtype=int):
        try:
            image = decode_photo(data[:end], name="cut").image
        except ImageError:
            refused += 1
        else:
            np.testing.assert_array_equal(image, whole)
    assert refused > 40


HOSTILE = {
    "EXIF that claims itself 65,535 times": png(
        chunk(
            b"eXIf",
            b"MM\0*\0\0\0\x08\xff\xff" + (b"\x90\0\0\7" + struct.pack(">II", 1 << 20, 8)) * 65_535 + bytes(1 << 20),
        )
    ),
    "a million fill bytes": encoded("JPEG", quality=90)[:2] + b"\xff" * 1_000_000 + encoded("JPEG", quality=90)[2:],
    "a million escaped bytes": encoded("JPEG", quality=90)[:2] + b"\xff\0" * 500_000 + encoded("JPEG", quality=90)[2:],
    "20,000 pieces of EXIF": jpeg(*[(0xE1, EXIF + bytes(100))] * 20_000),
    "5,000 texts that expand to 1 MB": png(
        *[chunk(b"zTXt", RAW + b"\0" + zlib.compress(bytes(1 << 20), 9))] * 5_000,
        *[chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(1 << 20), 9))] * 5_000,
    ),
    "100,000 empty chunks": png(*[chunk(b"tEXt")] * 100_000),
    "XMP that nearly matches": png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b"tiff:Orientation" * 200_000)),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_work_is_bounded_by_the_length(what):
    start = time.perf_counter()
    bare(HOSTILE[what])
    assert time.perf_counter() - start < 5.0  # a tenth of a second; what grows with the square takes minutes
    assert decode_photo(HOSTILE[what], name="hostile").image.shape == (HEIGHT, WIDTH, 3)
