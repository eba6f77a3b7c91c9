"""`aedr report`: one file that shows what was found, loads nothing, runs nothing, and believes no name."""

import base64
import dataclasses
import hashlib
import io
import itertools
import json
import re
import sys
from html.parser import HTMLParser

import chromium
import numpy as np
import pytest
from make_tiny import QUICK, make_tensors, textured, write_folder
from PIL import Image

import aedr_jax as aedr
from aedr_jax.api import reporting
from aedr_jax.api.inventory import MINIATURE_ONLY
from aedr_jax.cli.main import main
from aedr_jax.errors import CalibrationWarning, SourceError
from aedr_jax.images.codec import decode_photo
from aedr_jax.pages import facts, pictures, words
from aedr_jax.pages.charts import HEIGHT, WIDTH, histogram
from aedr_jax.pages.page import check_template_engine
from aedr_jax.scoring.record import Record
from aedr_jax.scoring.verdicts import Verdict

api = aedr.api
HOSTILE = '0"><img src=x onerror=alert(1)>&lt;\u202e{{ 7*7 }}.png'

pytestmark = pytest.mark.usefixtures("two_devices", "decoded_here", "one_scorer_for_each_setup")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model, its calibration, an image with a hostile name, a turned JPEG, a flat image, and a file that is none."""
    root = tmp_path_factory.mktemp("world")
    write_folder(root / "m1", QUICK, make_tensors(QUICK))
    rng = np.random.default_rng(0)
    for folder in ("own", "images"):
        (root / folder).mkdir()
    for i in range(6):
        textured(rng).save(root / "own" / f"{i}.png")
    textured(rng).save(root / "images" / (HOSTILE if sys.platform == "linux" else "0.png"))
    exif = Image.Exif()
    exif[0x0112] = 6
    textured(rng).save(root / "images" / "1.jpg", quality=90, exif=exif)
    Image.fromarray(np.full((66, 66, 3), 90, np.uint8)).save(root / "images" / "2-flat.png")
    (root / "images" / "3-bad.png").write_text("no image")
    with pytest.warns(CalibrationWarning):
        api.calibrate(root / "own", f"m1={root / 'm1'}", out=root / "cal" / "m1.json")
    return root


@pytest.fixture(scope="module")
def made(world):
    """The page of all images, as the command writes it."""
    out = world / "page.html"
    call = ["report", str(world / "images"), "--calibrations", str(world / "cal"), "--out", str(out)]
    assert main([*call, "--models", f"m1={world / 'm1'}"]) == 0
    return out


class Elements(HTMLParser):
    """Every element of a page with its attributes, and all its text."""

    def __init__(self, text):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def test_it_loads_nothing_and_runs_nothing(made):
    page = Elements(made.read_text(encoding="utf-8"))
    tags = {name for name, _ in page.found}
    assert not tags & {"script", "link", "iframe", "object", "embed", "form", "base", "input"}
    for name, attributes in page.found:
        assert not [key for key in attributes if key.startswith("on") or key == "style"], name
        for key in ("src", "href", "action", "data", "srcset", "poster"):
            assert (attributes.get(key) or "#").startswith(("#", "data:image/png;base64,")), name
    (policy,) = (m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    (style,) = re.findall(r"<style>(.*?)</style>", made.read_text(encoding="utf-8"), re.DOTALL)
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in policy
    assert "url(" not in style
    assert "@import" not in style


@pytest.mark.skipif(sys.platform != "linux", reason="such names are possible on Linux only")
def test_a_name_is_text_whatever_it_looks_like(made):
    text = made.read_text(encoding="utf-8")
    page = Elements(text)
    assert HOSTILE.replace("\u202e", "\\u202e") in page.text
    assert "\u202e" not in text
    assert all(image["src"].startswith("data:") for image in page.all("img"))
    assert "{{ 7*7 }}" in page.text


def test_what_it_shows(world, made):
    page = Elements(made.read_text(encoding="utf-8"))
    found = api.attribute(world / "images", models=[f"m1={world / 'm1'}"], calibrations=world / "cal")
    first, turned, flat, bad = found.verdicts
    for verdict in found.verdicts:
        assert words.heading(verdict) in page.text
    assert f"{first.scores['m1']:.4f}" in page.text
    assert first.sha256 in page.text
    assert "66 × 66 pixels" in page.text
    assert "6 (turned by 90°, applied)" in page.text
    assert "JPEG, last saved at quality 90" in page.text
    assert "too few blocks with detail" in page.text
    assert "The reason: 3-bad.png: not an image of a known format" in page.text
    assert hashlib.sha256(b"no image").hexdigest() in page.text
    assert MINIATURE_ONLY not in page.text
    for sentence in words.NOT_MEANT:
        assert sentence in page.text
    record = Record.load(made)
    assert record[1]
    assert [image.verdict for image in record[0].images] == [verdict.verdict for verdict in found.verdicts]
    assert record[0].models["m1"].fingerprint in page.text
    assert turned.status == "ok"
    assert (flat.verdict, bad.verdict) == ("not assessable", "error")
    # Of each image that is judged: itself, two reconstructions, two residuals; a map where there is room for blocks.
    pixels = [Image.open(io.BytesIO(base64.b64decode(image["src"].split(",")[1]))) for image in page.all("img")]
    assert len(pixels) >= 10
    assert all(max(one.size) <= pictures.MOST_SIDE and not one.info for one in pixels)
    np.testing.assert_array_equal(pixels[0], aedr.read_image(next((world / "images").glob("0*"))))
    charts = [svg["aria-label"] for svg in page.all("svg") if "values; this image" in svg.get("aria-label", "")]
    assert any(label.startswith("Foreign images on the grid of m1") for label in charts)
    assert any(label.startswith("Images of m1: 6 values") for label in charts)


def test_it_can_be_read_without_eyes_and_used_without_a_mouse(made):
    page = Elements(made.read_text(encoding="utf-8"))
    assert page.all("html") == [{"lang": "en"}]
    assert all(image["alt"].strip() for image in page.all("img"))
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.all("svg"))
    ids = [attributes["id"] for _, attributes in page.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"].removeprefix("#") for link in page.all("a")} <= set(ids)
    assert all(
        div.get("tabindex") == "0" and div["aria-label"] for div in page.all("div") if div.get("class") == "scroll"
    )
    headings = [int(tag[1]) for tag, _ in page.found if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert max(b - a for a, b in itertools.pairwise(headings)) <= 1


def test_verify_takes_the_page(world, made):
    where = {"models": [f"m1={world / 'm1'}"], "calibrations": world / "cal"}
    assert api.verify(made, world / "images", **where).holds


def test_how_many_are_pictured(world, tmp_path, capsys):
    model = ["--models", f"m1={world / 'm1'}", "--most-images", "1", "--json"]
    assert main(["report", str(world / "own"), "--out", str(tmp_path / "p.html"), *model]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["images"], summary["pictured"]) == (6, 1)
    page = Elements((tmp_path / "p.html").read_text(encoding="utf-8"))
    assert "The first 1 images are shown below" in page.text
    assert len([link for link in page.all("a") if link["href"].startswith("#image-")]) == 1
    with pytest.raises(SourceError, match="most_images 0"):
        api.report(world / "own", tmp_path / "p.html", most_images=0)
    with pytest.raises(SourceError, match="expected the name of a file"):
        api.report(world / "own", tmp_path)


def test_what_was_changed_in_between_is_not_shown(world, tmp_path, monkeypatch):
    monkeypatch.setattr(reporting, "decode_photo", lambda *a, **o: decode_photo(*a, **o)._replace(sha256="0" * 64))
    made = api.report(world / "own" / "0.png", tmp_path / "p.html", models=[f"m1={world / 'm1'}"])
    assert made.pictured == 0
    page = Elements(made.out.read_text(encoding="utf-8"))
    assert reporting.CHANGED in page.text
    assert page.all("img") == []


def test_without_jinja2_the_error_names_the_extra(world, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(aedr.AedrError, match=r'pip install "aedr-jax\[report\]"'):
        check_template_engine()
    monkeypatch.setattr(reporting, "attribute", lambda *args, **options: 1 / 0)
    with pytest.raises(aedr.AedrError, match="Jinja2"):  # before anything is measured
        api.report(world / "own", tmp_path / "p.html")


def test_a_large_image_is_shown_in_small_and_its_middle_pixel_by_pixel():
    pixels = np.random.default_rng(0).integers(0, 256, (900, 1300, 3), dtype=np.uint8)
    part, said = reporting._window(pixels, 8)
    assert part.shape == (384, 384, 3)
    places = [(y, x) for y in range(900 - 384) for x in range(1300 - 384) if (pixels[y, x] == part[0, 0]).all()]
    ((top, left),) = [(y, x) for y, x in places if (pixels[y : y + 384, x : x + 384] == part).all()]
    assert (top % 64, left % 64) == (0, 0)
    assert said == "384 × 384 pixels from the middle, of the 1300 × 900 that were measured"
    shown = pictures.picture(pixels, "all")
    assert (shown.width, shown.height) == (512, 354)
    assert reporting._window(pixels, 64)[0].shape[0] >= 512


def test_a_residual_is_white_from_so_many_levels_on():
    one = np.zeros((1, 4, 3))
    other = np.array([[0.0, 8 / 127.5, 16 / 127.5, np.nan]])[..., None].repeat(3, axis=2)
    assert pictures.residual(one, other).tolist() == [[0, 128, 255, 255]]


def test_the_map_lies_where_its_blocks_are():
    pixels = np.full((66, 66, 3), 100, np.uint8)
    blocks = np.array([[-4.0, 0.0], [np.nan, 9.0]])
    shown = pictures.overlay(pixels, blocks, margin=16, block=16).astype(int)
    assert (shown[:16] == 100).all()
    assert (shown[16:32, 32:48] == 100).all()
    assert (shown[32:48, 16:32] == 100).all()
    own, foreign = shown[20, 20], shown[40, 40]
    assert own[2] > own[0]  # blue
    assert foreign[0] > foreign[2]  # orange
    assert (shown[16:32, 16:32] == own).all()
    colours = pictures.legend_colours()
    assert colours[4] == "#808080"
    assert colours[0] != colours[-1]


def test_a_histogram_holds_all_values_and_the_marked_one():
    values = np.linspace(-3, 3, 1000).tolist()
    found = histogram(values, -12.0, -2.0)
    assert found.total == 1000
    assert 0 < found.marker < found.limit < min(bar.x for bar in found.bars if bar.x > found.limit)
    assert max(bar.height for bar in found.bars) == HEIGHT
    assert all(bar.x >= 0 and bar.x + bar.width <= WIDTH + 0.01 for bar in found.bars)
    assert "-10" in [text for _, text in found.ticks]
    alone = histogram([1.0], 1.0, float("-inf"))
    assert (alone.limit, len(alone.bars)) == (None, 1)


def verdict(text, p, accepted=(), **options):
    yes = {name: name in accepted for name in p}
    return Verdict("i", "/x/i", "", text, {}, p, {}, {}, yes, "ok", options.pop("error", ""), foreign=99, **options)


def test_verdicts_in_plain_words():
    named = verdict("a", {"a": 0.01, "b": 0.5}, ["a"])
    assert words.heading(named) == "It fits a"
    assert words.in_words(named)[-1] == "Of the 99 and more foreign images of the reference none fits a so well."
    family = verdict("a|b", {"a": 0.02, "b": 0.02}, ["a", "b"])
    assert words.heading(family) == "It fits a and b"
    assert "share one autoencoder" in words.in_words(family)[1]
    several = verdict("ambiguous: a, b", {"a": 0.01, "b": 0.02}, ["a", "b"])
    assert (several.kind, words.heading(several)) == ("ambiguous", "It fits several candidates: a, b")
    none = verdict("none", {"a": 0.144, "b": 0.5})
    assert words.in_words(none)[0].startswith("No candidate fits better than foreign images do")
    assert words.in_words(none)[-1] == (
        "The nearest is a. Of the 99 and more foreign images of the reference 14 in 100 fit a so well, or better."
    )
    turned_away = dataclasses.replace(none, p_values={"a": 0.01}, belonging={"a": 99})
    assert words.in_words(turned_away)[0].endswith("and no worse than its own images.")
    assert words.in_words(turned_away)[-1] == "Of a's own 99 calibration images none fits as badly."
    little = dataclasses.replace(turned_away, p_values={"a": 0.014})  # of a density: more than the images can tell
    assert words.in_words(little)[-1] == "Of a's own 99 calibration images 1.4 in 100 fit as badly."
    assert words.in_words(verdict("not assessable", {}, reason="a: too small")) == ("The reason: a: too small.",)
    assert verdict("not assessable", {}).kind == "not assessable"
    searched = verdict("a", {"a": 0.01}, ["a"], found="mirrored")
    assert "found after a search: mirrored" in words.in_words(searched)[1]


class Reader:
    """As c2pa-python's, of which version 0.38 was looked at."""

    class Settings:
        from_dict = staticmethod(dict)

    class Context:
        def __init__(self, settings):
            assert settings == {"verify": {"remote_manifest_fetch": False}}  # no picture makes us call anywhere

    class Reader:
        @staticmethod
        def try_create(mime, stream, context):
            data = stream.read()
            if b"broken" in data:
                raise ValueError("a stranger's text")
            return "manifest" if b"c2pa" in data else None


def test_content_credentials(monkeypatch):
    monkeypatch.setitem(sys.modules, "c2pa", None)
    assert facts.content_credentials(b"", "PNG").startswith("not looked for: no reader is installed")
    monkeypatch.setitem(sys.modules, "c2pa", Reader)
    assert facts.content_credentials(b"x", "PNG") == "none"
    assert facts.content_credentials(b"c2pa", "JPEG") == "present; what they claim was not checked"
    assert facts.content_credentials(b"broken", "PNG") == "cannot be read: ValueError"
    assert facts.content_credentials(b"x", "PPM") == "not looked for in PPM"


def test_facts(world):
    data = (world / "images" / "1.jpg").read_bytes()
    found = dict(facts.facts_of(data, decode_photo(data, name="1.jpg"), quality=90))
    assert found["sha256"] == hashlib.sha256(data).hexdigest()
    assert found["Size"] == f"66 × 66 pixels, {len(data):,} bytes"
    refused = facts.facts_of(b"no image", None)
    assert refused == (("sha256", hashlib.sha256(b"no image").hexdigest()), ("Size", "8 bytes"))


CHROMIUM = chromium.find()

CONTRAST = """
(() => {
  const linear = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = c => {
    const [r, g, b] = c.match(/[\\d.]+/g).map(Number);
    return .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);
  };
  const ground = e => {
    for (; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (!/^rgba\\(.* 0\\)$/.test(colour)) return colour;
    }
  };
  let least = 99;
  for (const e of document.querySelectorAll("body *")) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) || !e.checkVisibility()) continue;
    const style = getComputedStyle(e);
    const [a, b] = [light(e instanceof SVGElement ? style.fill : style.color), light(ground(e))].sort((x, y) => y - x);
    least = Math.min(least, (a + .05) / (b + .05));
  }
  return least;
})()
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)")
def test_in_a_browser(made):
    with chromium.browser(CHROMIUM) as page:
        for width, dark, phone in ((1280, False, False), (360, False, True), (360, True, True), (1280, True, False)):
            page.open(made, width=width, dark=dark, phone=phone)
            assert page.value("document.documentElement.scrollWidth <= window.innerWidth"), width  # none goes sideways
            assert page.value("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
            assert page.value("document.body.innerText.includes('What this does not mean')")
            # All of the style is there: its hash is the policy's.
            ground = page.value("getComputedStyle(document.documentElement).backgroundColor")
            assert ground == ("rgb(18, 22, 27)" if dark else "rgb(255, 255, 255)")
            page.value("document.querySelectorAll('details').forEach(one => one.open = true)")
            assert page.value("document.documentElement.scrollWidth <= window.innerWidth"), width
            assert page.value(CONTRAST) >= 4.5  # WCAG 2.1, AA
            asked = [
                event["params"]["request"]["url"]
                for event in page.events
                if event["method"] == "Network.requestWillBeSent"
            ]
            assert [url for url in asked if not url.startswith("data:")] == [made.resolve().as_uri()]
            assert not [
                event for event in page.events if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")
            ]
        page.open(made, width=1280)
        seen = []
        for _ in range(60):
            page.press("Tab")
            seen.append(page.value("document.activeElement.tagName"))
            if seen[-1] == "BODY":
                break
            assert page.value("parseFloat(getComputedStyle(document.activeElement).outlineWidth)") >= 2  # can be seen
            if seen[-1] == "SUMMARY":
                page.press("Enter", "\r")
                assert page.value("document.activeElement.parentElement.open")
        assert {"A", "SUMMARY", "DIV", "PRE"} <= set(seen)
