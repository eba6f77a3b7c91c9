"""The bytes of an image file without its metadata, and the one field of them that counts: the orientation.

Texts, EXIF, XMP, colour profiles and the like are cut out before a decoder sees the file, so that none of them, huge or
broken, costs an image its pixels. What is left decodes to the same pixels: of a PNG its critical chunks (transparency
goes too: alpha is dropped and stored colours are kept); of a JPEG all but comments and application segments, of which
JFIF's and Adobe's say how colours are stored; of a WebP all but ICCP, EXIF and XMP; of a TIFF the tags of its first
picture that describe samples. Files of other formats stay as they are.

A file is gone through once, and whatever a hostile one claims, the work is bounded by its length.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import NamedTuple

__all__ = ["Bare", "bare", "exif_orientation"]

ORIENTATION = 0x0112
UPRIGHT = 1
MAX_TEXT = 1 << 20  # of a compressed text that may hold the orientation, expanded
MAX_ENTRIES = 1 << 16  # of a TIFF directory
EXIF_HEADER = b"Exif\0\0"
XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\0"
XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_MARKER = re.compile(rb"\xff([^\x00\xff])")
WEBP_METADATA = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}  # and the flags that announce them
INTEGERS = {3: "H", 4: "I", 8: "h", 9: "i"}  # of TIFF's types, those that an orientation is stored as
TIFF_XMP = 700
# What TIFF 6.0 and its supplements say of how samples are stored.
TIFF_SAMPLES = frozenset(
    {254, 255, 256, 257, 258, 259, 262, 266, 273, ORIENTATION, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324}
    | {325, 332, 334, 338, 339, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532}
)


class Bare(NamedTuple):
    """A file without metadata.

    Attributes:
      data: what is left of its bytes.
      orientation: EXIF's, from 1 (upright) to 8; 1 for a TIFF too, which keeps the tag, and which Pillow turns itself.
    """

    data: bytes
    orientation: int


def bare(data: bytes) -> Bare:
    """A file's bytes without metadata. A file that is broken elsewhere is left for its decoder to refuse."""
    if data.startswith(PNG_SIGNATURE):
        return _png(data)
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp(data)
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return Bare(_tiff(data), UPRIGHT)
    return Bare(data, UPRIGHT)


def exif_orientation(exif: bytes) -> int | None:
    """The orientation that EXIF holds, whatever else is in it: the first integer under its last tag in directory 0.

    Returns:
      An integer of any size, as it was found; None where there is none.

    Reference: `PIL.Image.Exif` for EXIF that Pillow can read.
    """
    tiff = exif.removeprefix(EXIF_HEADER).removeprefix(EXIF_HEADER)  # some write it twice
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return None
    found = None
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    if start + 2 > len(tiff):
        return None
    (entries,) = struct.unpack_from(order + "H", tiff, start)
    for at in range(start + 2, min(start + 2 + 12 * entries, len(tiff) - 11), 12):
        tag, kind, count = struct.unpack_from(order + "HHI", tiff, at)
        if tag == ORIENTATION and kind in INTEGERS and 1 <= count <= 4 // struct.calcsize(INTEGERS[kind]):
            (found,) = struct.unpack_from(order + INTEGERS[kind], tiff, at + 8)
    return found


def _orientation(exif: bytes, xmp: bytes) -> int:
    """EXIF's orientation, or else XMP's, as `PIL.Image.Image.getexif` has it; anything but 1 to 8 is upright."""
    found = exif_orientation(exif)
    if found is None and (match := XMP_ORIENTATION.search(xmp)):
        found = int(match[1])
    return found if found is not None and 1 <= found <= 8 else UPRIGHT


def _png(data: bytes) -> Bare:
    """Critical chunks (a capital first letter); the checksums of the others are not looked at."""
    kept, exif, profile, xmp = [PNG_SIGNATURE], b"", (b"tEXt", b""), b""
    at = len(PNG_SIGNATURE)
    while at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 12 + length
        if not kind.isalpha():
            kept.append(data[at:])  # no chunk: the decoder says so
            break
        if kind[:1].isupper():
            kept.append(data[at:end])
        elif kind == b"eXIf":
            exif = data[at + 8 : end - 4]
        elif kind in (b"tEXt", b"zTXt") and data.startswith(b"Raw profile type exif\0", at + 8):
            profile = kind, data[at + 30 : end - 4]
        elif kind == b"iTXt" and data.startswith(b"XML:com.adobe.xmp\0", at + 8):
            xmp = data[at + 26 : end - 4]
        if kind == b"IEND":
            break
        at = end
    # Of several texts the last counts, and only that one is expanded.
    return Bare(b"".join(kept), _orientation(exif or _unhexed(_text(*profile)), _international(xmp)))


def _text(kind: bytes, text: bytes) -> bytes:
    return text if kind == b"tEXt" else _inflated(text[1:])


def _international(text: bytes) -> bytes:
    """The text of an iTXt chunk after its keyword: two bytes on compression, language, translated keyword, text."""
    parts = text[2:].split(b"\0", 2)
    return b"" if len(parts) < 3 else _inflated(parts[2]) if text[0] else parts[2]


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, MAX_TEXT)
    except zlib.error:
        return b""


def _unhexed(profile: bytes) -> bytes:
    """EXIF as ImageMagick writes it into a text: three lines, and then hexadecimal digits."""
    try:
        return bytes.fromhex(b"".join(profile[:MAX_TEXT].split(b"\n")[3:]).decode("ascii"))
    except ValueError:
        return b""


def _jpeg(data: bytes) -> Bare:
    """Segments up to the first scan, and all that follows it."""
    kept, exif, xmp = [data[:2]], [], b""
    at = 2
    while match := JPEG_MARKER.search(data, at):
        at, marker = match.start(), match[1][0]
        if marker in (0xD9, 0xDA):  # the end; a scan
            kept.append(data[at:])
            break
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # these stand alone
            kept.append(data[at : at + 2])
            at += 2
            continue
        end = at + 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
        body = data[at + 4 : end]
        if _describes_pixels(marker, body):
            kept.append(data[at:end])
        elif marker == 0xE1 and body.startswith(EXIF_HEADER):  # a long one comes in pieces
            exif.append(body[len(EXIF_HEADER) :])
        elif marker == 0xE1 and body.startswith(XMP_HEADER):
            xmp = body[len(XMP_HEADER) :]
        at = end
    return Bare(b"".join(kept), _orientation(b"".join(exif), xmp))


def _describes_pixels(marker: int, body: bytes) -> bool:
    """Whether a JPEG decoder needs a segment. Shorter ones of JFIF and Adobe are not recognized by libjpeg either."""
    if marker == 0xE0:
        return body.startswith(b"JFIF\0") and len(body) >= 14
    if marker == 0xEE:
        return body.startswith(b"Adobe") and len(body) >= 12
    return not (0xE0 <= marker <= 0xEF or marker == 0xFE)


def _webp(data: bytes) -> Bare:
    """Chunks within the length that the file claims. The new claim is what is left; a cut chunk is longer."""
    kept, found = [], dict.fromkeys(WEBP_METADATA, b"")
    at, end = 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    while at + 8 <= end:
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        chunk = data[at : min(at + 8 + length, end)]
        if kind in WEBP_METADATA:
            found[kind] = found[kind] or chunk[8:]
        else:
            if kind == b"VP8X" and len(chunk) > 8:
                chunk = chunk[:8] + bytes([chunk[8] & ~sum(WEBP_METADATA.values())]) + chunk[9:]
            whole = len(chunk) == 8 + length
            kept.append(chunk + b"\0" if whole and length % 2 else chunk)
        at += 8 + length + length % 2
    size = (4 + sum(map(len, kept))).to_bytes(4, "little")
    return Bare(b"".join([b"RIFF", size, b"WEBP", *kept]), _orientation(found[b"EXIF"], found[b"XMP "]))


def _tiff(data: bytes) -> bytes:
    """The directory of the first picture with the tags that describe its samples, and no directory after it."""
    order = "<" if data.startswith(b"II") else ">"
    big = 43 in data[2:4]
    word, long, width = ("Q", "Q", 20) if big else ("H", "I", 12)
    if len(data) < 16:
        return data
    (start,) = struct.unpack_from(order + long, data, 8 if big else 4)
    first = start + struct.calcsize(order + word)
    if first > len(data):
        return data
    (count,) = struct.unpack_from(order + word, data, start)
    if count > MAX_ENTRIES or first + width * count + struct.calcsize(order + long) > len(data):
        return data
    entries = (data[at : at + width] for at in range(first, first + width * count, width))
    kept = {entry[:2]: entry for entry in entries if _describes_samples(entry, order + "HH" + long)}  # each tag once
    directory = struct.pack(order + word, len(kept)) + b"".join(kept.values()) + struct.pack(order + long, 0)
    return data[:start] + directory + data[start + len(directory) :]


def _describes_samples(entry: bytes, form: str) -> bool:
    tag, kind, count = struct.unpack_from(form, entry)
    if tag == ORIENTATION:
        return kind in INTEGERS and count == 1
    if tag == TIFF_XMP:  # where Pillow looks for an orientation; as a text it would trip over it
        return kind in (1, 7)
    return tag in TIFF_SAMPLES
