"""Decoder processes: the same results as here, and what kills them costs one row."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from aedr_jax.errors import RunError
from aedr_jax.images.tiles import AlignmentConfig, Tiling
from aedr_jax.inputs import workers
from aedr_jax.inputs.decoding import Decoded, Decoder, Refused
from aedr_jax.inputs.sources import Item, find_images
from aedr_jax.inputs.workers import decode_all
from aedr_jax.scoring.engine import grouped

# A worker that dies, hangs or lies on some names, in place of a decoder bug that a file sets off.
HOSTILE = """
import os, sys, time
import aedr_jax.inputs.decoding as d
whole = d.Decoder.__call__
def call(self, item):
    if "kill" in item.id: os.kill(os.getpid(), 9)
    if "hang" in item.id: time.sleep(1000)
    if "eat" in item.id: bytearray(1 << 40)
    if "lie" in item.id: os.write(int(os.environ["BACK"]), b'{"shapes": [[99999999, 99999999]]}\\n')
    if "third" in item.id: os.write(int(os.environ["BACK"]), b'{"shapes": [[64, 64, 99999999]]}\\n')
    if "babble" in item.id: os.write(int(os.environ["BACK"]), b'[1]\\n')
    return whole(self, item)
d.Decoder.__call__ = call
dup = os.dup
def remember(fd):
    os.environ["BACK"] = str(dup(fd)); return int(os.environ["BACK"])
os.dup = remember
from aedr_jax.inputs.workers import main
main()
"""


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i in range(8):
        pixels = np.random.default_rng(i).integers(0, 256, (64 + i % 2, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    (folder / "bad.png").write_bytes(b"no image")
    data = (folder / "0.png").read_bytes()
    return [
        *find_images([folder]),
        Item("memory", "x.tar::memory", data),
        Item("gone", "x.tar::gone", error="is a link"),
    ]


def same(a, b):
    assert type(a) is type(b)
    assert a[:2] == b[:2]
    if isinstance(a, Refused):
        assert a == b
    else:
        assert a[:6] == b[:6]
        np.testing.assert_array_equal(a.gray, b.gray)
        for x, y in zip(a.images, b.images, strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
    "decoder",
    [Decoder(2), Decoder(8, crops=(2, 8)), Decoder(1, ((8, None), (8, 96)), "jpeg75")],
    ids=["crop", "crops", "official"],
)
def test_workers_give_what_this_process_gives(items, decoder):
    here = {result.id: result for result in decode_all(decoder, items, workers=0)}
    there = list(decode_all(decoder, items, workers=2))
    assert len(there) == len(here) == 11
    for result in there:
        same(result, here[result.id])
    assert "is a link" in here["gone"].error
    assert isinstance(here["memory"], Decoded)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("kill", "was killed by signal 9"),
        ("eat", "not enough memory|MemoryError|ended with code 1"),
        ("hang", "took more than 1 seconds"),
        ("lie", "an impossible size, (99999999, 99999999)"),
        ("third", "an impossible size, (64, 64, 99999999)"),
        ("babble", "gave no sensible answer"),
    ],
)
def test_a_hostile_image_costs_one_row(items, monkeypatch, what, reason):
    monkeypatch.setattr(workers, "BOOTSTRAP", HOSTILE)
    monkeypatch.setattr(workers, "SECONDS", 1.0)
    good = [item for item in items if item.id[0].isdigit()]
    hostile = good[0]._replace(id=what)
    results = list(decode_all(Decoder(), [*good[:4], hostile, *good[4:]], workers=2))
    assert sorted(result.id for result in results) == sorted([*(item.id for item in good), what])
    (refused,) = [result for result in results if isinstance(result, Refused)]
    assert refused.id == what
    assert any(part in refused.error for part in reason.split("|")), refused.error


@pytest.mark.parametrize(
    "decoder",
    [
        Decoder(8, crops=(8,), tilings=(Tiling(AlignmentConfig(tiles=200), 8),)),
        Decoder(8, side=1536),
        Decoder(1, ((8, 1536),)),
    ],
    ids=["tiles", "side", "size"],
)
def test_as_much_as_a_decoder_is_told_to_give_is_no_impossible_size(tmp_path, decoder):
    side = 800 if decoder.fits else 1536
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "large.bmp")
    item = Item("large.bmp", tmp_path / "large.bmp")
    (here,), (there,) = (list(decode_all(decoder, [item], workers=workers)) for workers in (0, 1))
    assert isinstance(here, Decoded)
    same(there, here)


def test_a_worker_that_is_killed_from_outside_costs_nothing(items):
    good = [item for item in items if item.id[0].isdigit()]
    pool = workers._Pool(Decoder(), good * 4, 1)
    results = pool.results()
    first = [next(results) for _ in range(3)]
    os.kill(pool.workers[0].process.pid, signal.SIGKILL)
    found = first + list(results)
    pool.close()
    assert len(found) == 32
    assert all(isinstance(result, Decoded) for result in found)


def test_a_worker_that_hangs_ends_though_its_run_was_killed(items):
    """A run that was killed cannot end its workers; one that waits for work sees its input end."""
    patience = "import aedr_jax.inputs.workers as w; w.SECONDS = 1.0\n"
    call = [sys.executable, "-c", patience + HOSTILE, json.dumps(dataclasses.asdict(Decoder()))]
    with subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout.readline() == workers.READY
        path = next(str(item.path) for item in items if item.id == "0.png")

        def ask(name):
            head = {"id": name, "path": path, "error": "", "size": None}
            worker.stdin.write(json.dumps(head).encode() + b"\n")
            worker.stdin.flush()

        ask("fine")
        assert isinstance(workers._read_result(worker.stdout, Item("fine", path), 1 << 24), Decoded)
        time.sleep(2.5)  # for work it waits as long as that takes
        ask("hang")
        assert worker.wait(timeout=30) == -signal.SIGALRM


def test_a_worker_may_finish_while_it_is_asked_whether_it_is_late():
    class Finishing(workers._Worker):
        def __init__(self):
            self.answers = [time.monotonic(), None]

        since = property(lambda self: self.answers.pop(0))

    assert not Finishing().overdue()


def test_what_the_source_raises_comes_after_all_before_it(items):
    def source():
        yield from items
        raise RunError("the shard ended")

    results = []
    with pytest.raises(RunError, match="the shard ended"):  # noqa: PT012
        for result in decode_all(Decoder(), source(), workers=2):
            results.append(result.id)  # noqa: PERF401
    assert sorted(results) == sorted(item.id for item in items)


def test_queues_are_bounded_and_closing_ends_the_workers(items):
    taken = 0

    def endless():
        nonlocal taken
        for item in itertools.cycle(items[:1]):
            taken += 1
            yield item

    threads = threading.active_count()
    results = decode_all(Decoder(), endless(), workers=2)
    next(results)
    time.sleep(0.5)
    assert taken <= 1 + 4 * 2
    results.close()
    assert threading.active_count() == threads


def test_workers_that_cannot_start_are_an_error(items, monkeypatch):
    monkeypatch.setattr(workers, "BOOTSTRAP", "import sys; sys.exit(3)")
    with pytest.raises(RunError, match=r"could not be started \(exit code 3\)"):
        list(decode_all(Decoder(), items, workers=2))


def decoded(name, side):
    image = np.zeros((side, side, 3), np.uint8)
    return Decoded(name, name, "", "PNG", side, side, image[..., 0], (image,))


def test_batches_by_size():
    stream = [decoded("a", 8), decoded("b", 9), Refused("x", "x", "no"), decoded("c", 8), decoded("d", 8)]
    names = [g.id if isinstance(g, Refused) else "".join(image.id for image in g) for g in grouped(stream, 2)]
    assert names == ["x", "ac", "d", "b"]


def test_images_that_wait_are_bounded():
    stream = [decoded(str(i), 10 + i) for i in range(50)]  # no two of one size
    waiting = 0
    for group, taken in zip(grouped(stream, 4, most_bytes=20_000), range(50), strict=False):
        waiting = max(waiting, taken)
        assert len(group) == 1
    assert len([*grouped(stream, 4, most_bytes=20_000)]) == 50
    assert [g[0].id for g in grouped(stream, 4, most_bytes=20_000)][:3] == ["0", "1", "2"]  # the first first


@pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX")
def test_a_signal_to_every_process_of_a_job_leaves_workers_to_the_run(items):
    worker = workers._Worker(Decoder(8))
    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            worker.process.send_signal(number)
        assert isinstance(worker.decode(items[0]), Decoded)
    finally:
        worker.end()
