"""`aedr convert --pickle` without PyTorch, or with one that is too old; with it: tests/parity/test_pickled.py."""

import sys
import types

import pytest

from aedr_jax.cli.main import main

PICKLE = b"\x80\x04."


@pytest.mark.parametrize("flag", ["--pickle", "--lpips"])
@pytest.mark.parametrize(
    ("torch", "reason"),
    [
        (None, 'read with PyTorch: pip install "aedr-jax[convert]"'),
        (types.SimpleNamespace(__version__="2.5.1+cpu"), "PyTorch 2.5.1+cpu does not read pickles safely"),
    ],
)
def test_without_a_pytorch_that_reads_them_safely(tmp_path, monkeypatch, capsys, flag, torch, reason):
    (tmp_path / "a.bin").write_bytes(PICKLE)
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert main(["convert", flag, str(tmp_path / "a.bin"), str(tmp_path / "out")]) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_file_and_a_call_that_means_two_things(tmp_path, capsys):
    assert main(["convert", "--pickle", str(tmp_path / "a.bin"), str(tmp_path)]) == 2
    assert "a.bin: no such file; expected one of pickled tensors" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["convert", "--pickle", "--revision", "main", str(tmp_path / "a.bin"), str(tmp_path)])
    assert "not allowed with argument" in capsys.readouterr().err
