"""The authors' own published figures, to the digit. See ../shared/data/published/README.md for where they come from."""

import numpy as np
import pytest

import aedr_jax as aedr

pytestmark = pytest.mark.usefixtures("two_devices")
# model folder -> the number of published images with a published homogeneity
IMAGES = ("FLUX", "KD2.1", "Real", "SD2base", "SD3.5", "SDXL", "VQDM")


@pytest.fixture(scope="module")
def measured(shared):
    """500 images of SD1.5 and 500 of SD2.1 under SD1.5's autoencoder, from losses and homogeneities."""
    published = shared / "data" / "published"
    found = {}
    for name in ("sd1.5", "sd2.1"):
        first, second = np.loadtxt(published / "losses" / f"sd1.5_on_{name}.txt").T
        texture = np.loadtxt(published / "homogeneity" / f"{name}.txt")
        found[name] = aedr.Measurement.from_losses(first, second, texture)
    return found


@pytest.fixture(scope="module")
def rows(shared):
    """Signals of 500 images of SD1.5 and 500 of SD2.1 under SD1.5's autoencoder, from losses and homogeneities."""
    published = shared / "data" / "published"
    signals = {}
    for name in ("sd1.5", "sd2.1"):
        losses = np.loadtxt(published / "losses" / f"sd1.5_on_{name}.txt")
        texture = np.loadtxt(published / "homogeneity" / f"{name}.txt")
        assert losses.shape == (500, 2)
        signals[name] = losses[:, 0] / losses[:, 1] * texture
    return signals


@pytest.mark.parametrize("model", IMAGES)
def test_homogeneity(shared, model):
    folder = shared / "data" / "published" / "images" / model
    published = np.loadtxt(folder / "homogeneity.txt")
    files = sorted(path for path in folder.iterdir() if path.stem in ("001", "002"))
    assert len(files) == len(published) == 2
    for path, value in zip(files, published, strict=True):
        gray = aedr.read_gray(path)[None]
        found = float(aedr.homogeneity(gray, kind="inverse_difference_moment")[0])
        assert f"{found:.6f}" == f"{value:.6f}"


@pytest.mark.parametrize(
    ("alpha", "threshold", "digits", "accepted"),
    [(0.05, 1.0364583773111364, 1e-6, (477, 8)), (0.015, 1.1490, 5e-5, (493, 15))],
)
def test_threshold_and_acceptance(rows, alpha, threshold, digits, accepted):
    found = aedr.kde_threshold(rows["sd1.5"], alpha=alpha, method="grid")
    assert found == pytest.approx(threshold, abs=digits)
    assert tuple(int((signals < found).sum()) for signals in rows.values()) == accepted
    exact = aedr.kde_threshold(rows["sd1.5"], alpha=alpha)
    assert exact == pytest.approx(found, abs=1e-4)  # the grid's step is 2e-4


def test_the_same_through_the_public_path(measured):
    """Measurement, calibration and attribution in place of arithmetic: the same 477 and 8."""
    calibration = aedr.calibrate(measured["sd1.5"], config=aedr.SignalConfig.paper(), rule="grid", model="sd1.5")
    for name, count in (("sd1.5", 477), ("sd2.1", 8)):
        result = aedr.attribute({"sd1.5": measured[name]}, {"sd1.5": calibration})
        assert result.verdicts.count("sd1.5") == count
        assert result.verdicts.count("none") == 500 - count


def test_published_images_go_through_the_command_line(shared, tmp_path):
    """Mixed sizes and formats without hand-holding; a quick model, since only files are tested here."""
    from make_tiny import QUICK, make_tensors, write_folder

    from aedr_jax.inputs.sources import find_images
    from aedr_jax.scoring.scorer import Scorer, load_candidate

    candidate = load_candidate(str(write_folder(tmp_path / "m", QUICK, make_tensors(QUICK))))
    items = find_images([shared / "data" / "published" / "images" / name for name in ("VQDM", "Real")])
    rows = list(Scorer([candidate], batch_size=2, multiple=256).score(items))
    assert {row.status for row in rows} == {"ok"}
    assert {row.format for row in rows} == {"PNG", "JPEG"}
