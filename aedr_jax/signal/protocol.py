"""What was measured, and how: everything that can move a score, as one object to compare, write down and go by.

A threshold holds for scores that were measured as its own were, and rows of one folder are measured alike. So a
calibration, a run's settings and the parts of an evaluation hold a `Protocol`, and compare all of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from aedr_jax.autoencoders.checkpoints import weights_hash
from aedr_jax.errors import AedrError, AutoencoderError

__all__ = ["Identity", "Protocol", "deciding", "differences", "told_apart"]

NOT_COMPARED = ("name", "rounded_hash")  # of an identity: for people, and what follows from another field


@dataclasses.dataclass(frozen=True)
class Identity:
    """Which model was measured: whatever of it can move a score. A field is None where it is not known.

    Attributes:
      name: the model's name, for people. It is not compared.
      weights_hash: the hash of the autoencoder's weights (`weights_hash`).
      quantize: whether the model decodes codebook entries; None without a codebook.
      dtype: what the autoencoder computes in.
      precision: the precision of its products.
      rounded_hash: the hash of the weights rounded to bfloat16. It follows from the weights and is not compared; it
        says which models are one family (`shares_family`). None also where a hash was handed over instead of computed.

    >>> aedr.Identity("sd1.5", weights_hash="ab" * 32).family == aedr.Identity("mine", weights_hash="ab" * 32).family
    True
    """

    name: str | None = None
    weights_hash: str | None = None
    quantize: bool | None = None
    dtype: str | None = None
    precision: str | None = None
    rounded_hash: str | None = dataclasses.field(default=None, metadata={"later": True})

    @classmethod
    def of(cls, autoencoder: Any, *, name: str | None = None, weights: str | None = None) -> Identity:
        """The identity of a loaded autoencoder. Functions that close over their weights have no hash.

        Args:
          autoencoder: what `load_autoencoder` or `from_functions` gives; None: nothing is known.
          name: the model's name.
          weights: the hash of its weights, where it is known already.
        """
        if autoencoder is None:
            return cls(name)
        numerics = getattr(autoencoder, "numerics", None)
        return cls(
            name,
            _hash_or_none(autoencoder) if weights is None else weights,
            getattr(autoencoder, "quantize_on_decode", None),
            None if numerics is None else jnp.dtype(numerics.dtype).name,
            None if numerics is None else numerics.precision or "default",
            _hash_or_none(autoencoder, rounded=True) if weights is None else None,
        )

    @property
    def family(self) -> tuple[str, bool | None] | None:
        """Weights and quantization. Two models of one family cannot be told apart by any method that looks at the
        autoencoder. None without a hash. The dtype and precision of a measurement are not part of it."""
        return None if self.weights_hash is None else (self.weights_hash, self.quantize)

    def shares_family(self, other: Identity) -> bool | None:
        """Whether two models are one family: equal quantization, and weights that are equal or, where both are known
        rounded to bfloat16, equal then. None where a hash is missing, and of `from_functions` with equal weights: which
        functions take them is not known.

        So a float32 file and its bfloat16 copy are one family, although their scores differ by the rounding: which of
        the two ran is no question about the model.
        """
        if self.family is None or other.family is None:
            return None
        rounded = self.rounded_hash is not None and self.rounded_hash == other.rounded_hash
        alike = self.quantize == other.quantize and (rounded or self.weights_hash == other.weights_hash)
        return None if alike and None in (self.dtype, other.dtype) else alike  # a network computes in some dtype


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What is measured, with which model, and how.

    Attributes:
      identity: which model.
      method: "aedr", or a rival's name.
      settings: `SignalConfig.describe()`, or a rival's own; JSON values.
      size_rule: how images are brought to a size that the model takes; None where it was not told.
      processing: what is done to the images before they are measured (`processing.Processing`), or "none".

    >>> one = aedr.Protocol(aedr.Identity(dtype="float32"), settings=aedr.SignalConfig().describe())
    >>> other = aedr.Protocol(aedr.Identity(dtype="bfloat16"), settings=aedr.SignalConfig().describe())
    >>> one.differences(other), one.fingerprint() == other.fingerprint()
    ({'identity.dtype': ('float32', 'bfloat16')}, False)
    """

    identity: Identity
    method: str = "aedr"
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    size_rule: str | None = None
    processing: str = "none"

    def describe(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return dataclasses.asdict(self)

    def record(self) -> dict[str, Any]:
        """The same values as `describe`, for a file that another process compares.

        Raises:
          AedrError: where the loss has no name that tells it from others: a lambda, a local or a partial function.
        """
        loss = str(self.settings.get("loss", ""))
        if "<" in loss:
            raise AedrError(f"loss {loss}: no name tells it from another; define it with def, outside of functions")
        return self.describe()

    def fingerprint(self) -> str:
        """16 hexadecimal digits. Two protocols have the same ones if they differ in the model's name at most."""
        values = self.describe()
        for name in NOT_COMPARED:
            del values["identity"][name]
        return told_apart(values)[:16]

    def differences(self, other: Protocol) -> dict[str, tuple[Any, Any]]:
        """What differs: dotted names -> this one's value and the other's. Left out are `NOT_COMPARED`, and what is
        measured beside an alignment where both have one (`deciding`)."""
        one, two = (protocol.describe() for protocol in (self, other))
        one["settings"], two["settings"] = deciding(one["settings"], two["settings"])
        found = differences(one, two)
        return {
            name: both for name, both in found.items() if name not in {f"identity.{field}" for field in NOT_COMPARED}
        }


def deciding(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What has to be equal of two settings: all of them, or where both have an alignment, just that."""
    alignments = [settings.get("alignment") for settings in (one, other)]
    if None in alignments:
        return one, other
    return {"alignment": alignments[0]}, {"alignment": alignments[1]}


def differences(one: Any, other: Any, name: str = "") -> dict[str, tuple[Any, Any]]:
    """What differs between two JSON values: dotted names -> both values; None stands for what is not there."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        found: dict[str, tuple[Any, Any]] = {}
        for key in dict.fromkeys([*one, *other]):
            found |= differences(one.get(key), other.get(key), f"{name}.{key}" if name else str(key))
        return found
    return {} if one == other else {name: (one, other)}


def told_apart(values: Any) -> str:
    """sha256 over JSON values as canonical text: sorted keys, no spaces, no NaN."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _hash_or_none(autoencoder: Any, *, rounded: bool = False) -> str | None:
    try:
        return weights_hash(autoencoder, rounded=rounded)
    except AutoencoderError:  # functions that close over their weights: there is nothing to hash
        return None
