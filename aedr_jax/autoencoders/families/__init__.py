"""Every family of autoencoders that this package rebuilds: its class' name -> its record.

A new family is a new file here and its line in the table. The file holds its architecture, its network, and a `Family`
record with its key rules; layers that families share stand one room up (`blocks`, `norms`, `grouped`, `quantizer`,
`vae`).
"""

from __future__ import annotations

from aedr_jax.autoencoders.families.dc import DC
from aedr_jax.autoencoders.families.emu3 import EMU3
from aedr_jax.autoencoders.families.flux2 import FLUX2
from aedr_jax.autoencoders.families.hunyuan import HUNYUAN_IMAGE
from aedr_jax.autoencoders.families.janus import JANUS
from aedr_jax.autoencoders.families.kl import KL
from aedr_jax.autoencoders.families.paella import PAELLA
from aedr_jax.autoencoders.families.tiny import TINY
from aedr_jax.autoencoders.families.vq import VQ
from aedr_jax.autoencoders.families.wan import QWEN_IMAGE, QWEN_IMAGE_21, WAN
from aedr_jax.autoencoders.family import Family

__all__ = ["FAMILIES"]

FAMILIES: dict[str, Family] = {
    family.class_name: family
    for family in (
        KL,
        TINY,
        VQ,
        FLUX2,
        WAN,
        QWEN_IMAGE,
        QWEN_IMAGE_21,
        DC,
        HUNYUAN_IMAGE,
        PAELLA,
        JANUS,
        EMU3,
    )
}
