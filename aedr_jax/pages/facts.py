"""What a file says of itself: hash, format, size, orientation, and whether it carries content credentials (C2PA)."""

from __future__ import annotations

import hashlib
import io

from aedr_jax.images.codec import Photo
from aedr_jax.images.metadata import bare

__all__ = ["Facts", "content_credentials", "facts_of"]

ORIENTATIONS = {
    1: "upright",
    2: "mirrored",
    3: "turned by 180°",
    4: "mirrored upside down",
    5: "mirrored and turned",
    6: "turned by 90°",
    7: "mirrored and turned",
    8: "turned by 270°",
}
MIME = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "WEBP": "image/webp",
    "TIFF": "image/tiff",
    "GIF": "image/gif",
}
Facts = tuple[tuple[str, str], ...]  # pairs of a name and what is known, in the order to show them


def facts_of(data: bytes, photo: Photo | None, *, quality: int = 0) -> Facts:
    """The facts of a file.

    Args:
      data: its bytes.
      photo: what it was decoded to; None for a file that was refused, of which nothing more is read.
      quality: that a JPEG was last saved at; 0 for other formats.
    """
    sha256 = ("sha256", hashlib.sha256(data).hexdigest())
    if photo is None:
        return sha256, ("Size", f"{len(data):,} bytes")
    height, width = photo.gray.shape
    orientation = bare(data).orientation
    turned = f"{orientation} ({ORIENTATIONS[orientation]}{'' if orientation == 1 else ', applied'})"
    if photo.format == "TIFF":
        turned = "as its tag says, applied"
    return (
        sha256,
        ("Format", f"{photo.format}, last saved at quality {quality}" if quality else photo.format),
        ("Size", f"{width} × {height} pixels, {len(data):,} bytes"),
        ("Orientation (EXIF)", turned),
        ("Content credentials (C2PA)", content_credentials(data, photo.format)),
    )


def content_credentials(data: bytes, format_name: str) -> str:
    """Whether a file carries a C2PA manifest; what it claims is not read, nor is its signature checked.

    Needs a reader, the package `c2pa-python`, which is not among the extras. Nothing is fetched: manifests that lie
    elsewhere are not looked for.
    """
    try:
        import c2pa
    except ImportError:
        return "not looked for: no reader is installed (pip install c2pa-python)"
    if format_name not in MIME:
        return f"not looked for in {format_name}"
    try:
        offline = c2pa.Context(c2pa.Settings.from_dict({"verify": {"remote_manifest_fetch": False}}))
        reader = c2pa.Reader.try_create(MIME[format_name], io.BytesIO(data), context=offline)
    except Exception as error:  # a manifest that is broken, or a reader of another version
        return f"cannot be read: {type(error).__name__}"
    return "none" if reader is None else "present; what they claim was not checked"
