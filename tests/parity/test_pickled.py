"""`aedr convert --pickle` against `torch.save`: every tensor as it was, and nothing but tensors is taken.

Values and dtypes are equal; nothing is computed.
"""

import json

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file

import aedr_jax as aedr
from aedr_jax.autoencoders.pickled import convert_pickle, convert_pickles
from aedr_jax.cli.main import main


class Payload:
    """Unpickled in full, it would write a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_tensors_come_as_they_were(tmp_path, capsys):
    whole = torch.arange(6.0).reshape(2, 3)
    state = {
        "whole": whole,
        "row": whole[1],  # of the same memory
        "turned": whole.T,  # likewise, and not contiguous
        "half": torch.ones(2, dtype=torch.bfloat16),
        "number": torch.tensor(3),
        "classifier.0.weight": torch.zeros(2, 2),
    }
    torch.save(state, tmp_path / "a.pth")
    assert main(["convert", "--json", "--pickle", str(tmp_path / "a.pth"), str(tmp_path / "out")]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"file": str(tmp_path / "out" / "a.safetensors"), "tensors": list(state)}
    found = load_file(tmp_path / "out" / "a.safetensors")
    assert found.keys() == state.keys()
    for name, value in state.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)
    assert main(["convert", "--lpips", str(tmp_path / "a.pth"), str(tmp_path)]) == 0
    assert "5 tensors" in capsys.readouterr().out
    assert load_file(tmp_path / "a.safetensors").keys() == state.keys() - {"classifier.0.weight"}


def test_what_is_more_than_tensors_is_refused_and_not_run(tmp_path):
    cases = {
        "code": ({"a": Payload(tmp_path / "ran")}, "not a file of pickled tensors alone"),
        "nested": ({"state_dict": {"a": torch.zeros(1)}, 3: torch.zeros(1)}, "state_dict, 3: no tensors"),
        "single": (torch.zeros(1), "holds one Tensor; expected tensors by name"),
        "empty": ({}, "no tensors to write"),
    }
    for name, (content, _) in cases.items():
        torch.save(content, tmp_path / f"{name}.bin")
    (tmp_path / "damaged.bin").write_bytes((tmp_path / "nested.bin").read_bytes()[:100])
    (tmp_path / "ran").unlink(missing_ok=True)
    reasons = {name: reason for name, (_, reason) in cases.items()} | {"damaged": "nothing was written"}
    for name, reason in reasons.items():
        with pytest.raises(aedr.AutoencoderError, match=f"{name}.bin: .*{reason}"):
            convert_pickle(tmp_path / f"{name}.bin", tmp_path / "out")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()


def test_a_folder_of_shards_keeps_its_index(tmp_path):
    """As diffusers writes it with `safe_serialization=False`."""
    sizes = {"block_out_channels": (8, 16), "norm_num_groups": 4, "latent_channels": 4}
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    network = AutoencoderKL(**sizes, **blocks)
    network.save_pretrained(tmp_path, safe_serialization=False, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.bin"))) > 1
    written = convert_pickles(tmp_path, tmp_path)
    assert sum(len(names) for _, names in written) == len(network.state_dict())
    ours = aedr.load_autoencoder(tmp_path)
    (tmp_path / "whole").mkdir()
    network.save_pretrained(tmp_path / "whole")
    assert aedr.weights_hash(ours) == aedr.weights_hash(aedr.load_autoencoder(tmp_path / "whole"))
