"""`read_gray` against `cv2.imread(path, cv2.IMREAD_GRAYSCALE)` of OpenCV 5.0: equal, pixel by pixel.

Nothing is rounded twice on the way from a file to its grey levels, so no tolerance is needed.
"""

import cv2
import numpy as np
import pytest
from PIL import Image

import aedr_jax

SIZE = (77, 53)  # width and height: no multiple of a JPEG block


@pytest.fixture(scope="module")
def photo():
    """A smooth colour image with noise: every conversion and chroma subsampling has something to work on."""
    random = np.random.default_rng(5)
    coarse = Image.fromarray(random.integers(0, 256, (7, 10, 3), dtype=np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    noisy = np.asarray(coarse).astype(int) + random.integers(-20, 21, (SIZE[1], SIZE[0], 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def assert_equal_gray(path):
    expected = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert expected is not None, "OpenCV cannot read this"
    np.testing.assert_array_equal(aedr_jax.read_gray(path), expected)


def with_alpha(photo, mode):
    image = photo.convert("L" if mode == "LA" else "RGB").convert(mode)
    image.putalpha(Image.fromarray(np.random.default_rng(6).integers(0, 256, SIZE[::-1], dtype=np.uint8)))
    return image


PNG = {
    "rgb": lambda photo: photo,
    "rgba": lambda photo: with_alpha(photo, "RGBA"),
    "palette": lambda photo: photo.quantize(200),
    "grey": lambda photo: photo.convert("L"),
    "grey and alpha": lambda photo: with_alpha(photo, "LA"),
    "1 bit": lambda photo: photo.convert("1"),
    "16 bit grey": lambda photo: Image.fromarray(
        np.random.default_rng(7).integers(0, 1 << 16, SIZE[::-1], dtype=np.uint16)
    ),
}


@pytest.mark.parametrize("kind", PNG)
def test_png(photo, tmp_path, kind):
    """Reference: OpenCV's grey reader, exact."""
    path = tmp_path / "image.png"
    PNG[kind](photo).save(path)
    assert_equal_gray(path)


@pytest.mark.parametrize("transparency", [3, bytes(range(0, 200, 2))], ids=["one colour", "many alphas"])
def test_png_palette_with_transparency(photo, tmp_path, transparency):
    """Reference: OpenCV's grey reader, exact: the stored colours count, whatever their alpha."""
    path = tmp_path / "image.png"
    photo.quantize(100).save(path, transparency=transparency)
    assert_equal_gray(path)


def test_png_colour_key(photo, tmp_path):
    """Reference: OpenCV's grey reader, exact: a transparent colour (tRNS of an RGB or grey file) changes nothing."""
    for number, image in enumerate((photo, photo.convert("L"))):
        path = tmp_path / f"{number}.png"
        image.save(path, transparency=image.getpixel((5, 5)))
        assert_equal_gray(path)


@pytest.mark.parametrize("quality", [35, 75, 95])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_colour(photo, tmp_path, quality, subsampling, progressive):
    """Reference: OpenCV's grey reader, exact: both return the stored luma channel."""
    path = tmp_path / "image.jpg"
    photo.save(path, quality=quality, subsampling=subsampling, progressive=progressive)
    assert_equal_gray(path)


def test_jpeg_grey(photo, tmp_path):
    """Reference: OpenCV's grey reader, exact."""
    path = tmp_path / "image.jpg"
    photo.convert("L").save(path, quality=85)
    assert_equal_gray(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", ["jpg", "png"])
def test_exif_orientation(photo, tmp_path, extension, orientation):
    """Reference: OpenCV's grey reader, which turns and mirrors as EXIF says; exact."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"image.{extension}"
    photo.save(path, exif=exif)
    assert_equal_gray(path)


OTHERS = {
    "webp lossless": ("webp", "RGB", {"lossless": True}),
    "webp lossy": ("webp", "RGB", {"quality": 80}),
    "webp with alpha": ("webp", "RGBA", {"lossless": True, "exact": True}),
    "bmp": ("bmp", "RGB", {}),
    "bmp grey": ("bmp", "L", {}),
    "bmp palette": ("bmp", "P", {}),
    "tiff": ("tiff", "RGB", {}),
    "tiff deflate": ("tiff", "RGB", {"compression": "tiff_adobe_deflate"}),
    "tiff grey": ("tiff", "L", {}),
    "gif": ("gif", "P", {}),
    "gif grey": ("gif", "L", {}),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_formats(photo, tmp_path, kind):
    """Reference: OpenCV's grey reader, exact; its weights differ by format."""
    extension, mode, options = OTHERS[kind]
    image = {"RGBA": lambda: with_alpha(photo, "RGBA"), "P": lambda: photo.quantize(256)}.get(
        mode, lambda: photo.convert(mode)
    )()
    path = tmp_path / f"image.{extension}"
    image.save(path, **options)
    assert_equal_gray(path)
