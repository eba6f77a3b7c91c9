"""What the registry says of each model fits together, and says where it is from."""

import re

import pytest

from aedr_jax.autoencoders.families import FAMILIES
from aedr_jax.autoencoders.family import CodebookNetwork
from aedr_jax.autoencoders.names import locate
from aedr_jax.autoencoders.registry import REGISTRY, Entry, entry_of, list_models, miniature_models, read_entries

SHIPPED = [name for name, entry in REGISTRY.items() if entry.repository is None]
TODAY = list_models()[8 + len(SHIPPED) :]


def test_the_papers_models_come_first_then_those_that_ship_then_todays():
    assert list_models()[:8] == ("sd1.5", "sd2-base", "sd2.1", "sdxl", "sd3.5", "flux", "vqdm", "kandinsky2.1")
    assert list_models()[8 : -len(TODAY)] == (*miniature_models(), "mini-wan", "mini-dc") == tuple(SHIPPED)
    assert len(TODAY) >= 30
    assert len({(entry.repository, entry.subfolder) for entry in REGISTRY.values() if entry.repository}) == len(
        REGISTRY
    ) - len(SHIPPED)


@pytest.mark.parametrize("name", REGISTRY)
def test_an_entry_fits_its_family(name):
    entry = REGISTRY[name]
    network = FAMILIES[entry.family].network
    assert (entry.quantize is not None) == issubclass(network, CodebookNetwork)
    assert entry.image_channels in (3, 4)
    assert entry.factor in (None, 4, 8, 16, 32)
    assert entry.image_range in (None, (0.0, 1.0))
    assert entry.native_size is None or entry.native_size % (entry.factor or 1) == 0
    assert locate(name) == ("registry", name)
    assert not set(name) & set(",|=/")


@pytest.mark.parametrize("name", TODAY)
def test_an_entry_of_today_says_where_it_is_from_and_whose_it_is(name):
    entry = REGISTRY[name]
    assert re.fullmatch(r"[\w-]+(\.[\w-]+)*/[\w.-]+", entry.repository)
    assert entry_of(entry.repository, entry.subfolder or "") is entry
    assert entry.source
    assert None not in (entry.latent_channels, entry.factor)
    assert entry.saved_apart == (entry.family in {"JanusVQVAE", "Emu3VQVAE"})
    if entry.same_as is not None:
        other = REGISTRY[entry.same_as]
        assert other.same_as is None
        for field in ("family", "latent_channels", "factor", "image_range", "image_channels", "quantize"):
            assert getattr(other, field) == getattr(entry, field), field


def test_flux2s_usual_decoder_can_be_had_without_a_licence_click():
    same = [name for name, entry in REGISTRY.items() if entry.same_as == "flux2" and entry.gated is False]
    assert same == ["flux2-klein-4b"]


def test_what_is_not_given_is_not_known():
    text = '["a"]\nrepository = "o/a"\nimage_range = [0.0, 1.0]'
    assert read_entries(text) == {"a": Entry("o/a", None, None, gated=None, image_range=(0.0, 1.0))}
    with pytest.raises(TypeError, match="nativesize"):
        read_entries(f"{text}\nnativesize = 3")
