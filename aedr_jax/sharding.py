"""Batches over every local device, each image computed where it lies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from aedr_jax.errors import SourceError

__all__ = ["Replicated", "Sharded", "local_mesh", "make_sharded", "pod_share"]


def local_mesh() -> Mesh:
    """A one-axis mesh over this process's devices (Auto axes: group norm's reshapes fail on Explicit ones)."""
    return jax.make_mesh(
        (jax.local_device_count(),), ("data",), axis_types=(AxisType.Auto,), devices=jax.local_devices()
    )


def pod_share(**options: Any) -> tuple[int, int]:
    """This process's number and how many there are, from `jax.distributed`, which is then left again: processes that
    stay joined die together, and nothing here needs the others.

    Args:
      options: of `jax.distributed.initialize`; none on a TPU pod or under Slurm, which it asks itself.

    Raises:
      SourceError: where it finds no cluster.
    """
    try:
        jax.distributed.initialize(**options)
    except (RuntimeError, ValueError) as error:
        raise SourceError(f"jax.distributed: {error} Give each process its share instead, as I/N") from error
    share = jax.process_index(), jax.process_count()
    jax.distributed.shutdown()
    return share


@jax.tree_util.register_pytree_node_class
class Replicated:
    """A pytree that lies on every device of a mesh, taken apart: JAX walks a list faster than modules."""

    def __init__(self, leaves: Any, structure: Any) -> None:
        self.leaves, self.structure = leaves, structure

    def tree_flatten(self) -> tuple[Any, Any]:
        """The leaves; what they are part of is static."""
        return self.leaves, self.structure

    @classmethod
    def tree_unflatten(cls, structure: Any, leaves: Any) -> Replicated:
        """The reverse."""
        return cls(leaves, structure)

    def whole(self) -> Any:
        """The pytree itself."""
        return jax.tree.unflatten(self.structure, self.leaves)


class Sharded:
    """A compiled per-image function whose batch is spread over a mesh; what `make_sharded` returns.

    Attributes:
      mesh: the devices.
      jitted: the compiled program, `jitted(replicate(shared), batches)`, for batches that the devices divide.
    """

    def __init__(self, fn: Callable[..., Any], mesh: Mesh) -> None:
        (axis,) = mesh.axis_names
        self.mesh = mesh
        self._everywhere = NamedSharding(mesh, PartitionSpec())
        self._split = NamedSharding(mesh, PartitionSpec(axis))

        def per_device(shared: Replicated, batches: tuple[Any, ...]) -> Any:
            return fn(shared.whole(), *batches)

        specs = (PartitionSpec(), PartitionSpec(axis))
        self.jitted = jax.jit(jax.shard_map(per_device, mesh=mesh, in_specs=specs, out_specs=specs[1]))

    def replicate(self, shared: Any) -> Replicated:
        """Copy a pytree to every device: do it once, and calls with the result copy nothing."""
        leaves, structure = jax.tree.flatten(shared)
        return Replicated(jax.device_put(leaves, self._everywhere), structure)

    def __call__(self, shared: Any, *batches: Any) -> Any:
        sizes = {np.shape(leaf)[0] for leaf in jax.tree.leaves(batches)}
        if len(sizes) != 1:
            raise ValueError(f"batches of different sizes: {sorted(sizes)}")
        (n,) = sizes
        padding = -n % self.mesh.size
        if padding:
            batches = jax.tree.map(lambda x: _repeat_last(x, padding), batches)
        replicated = shared if isinstance(shared, Replicated) else self.replicate(shared)
        out = self.jitted(replicated, jax.device_put(batches, self._split))
        return jax.tree.map(lambda x: x[:n], out) if padding else out


def make_sharded(fn: Callable[..., Any], *, mesh: Mesh | None = None) -> Sharded:
    """Compile a per-image function so that its batch is spread over a mesh, with no communication.

    Args:
      fn: `fn(replicated, *batches) -> per-image pytree`: the first argument (an autoencoder, say) is copied to every
        device; every other argument is a pytree of arrays [n, ...], as is the result. What it computes for an image
        must not depend on the others.
      mesh: one axis, any name; None: every local device.

    Returns:
      A function of the same arguments. A batch that the devices do not divide is padded with its last image and the
      result cut back, both outside the compiled program.
    """
    return Sharded(fn, local_mesh() if mesh is None else mesh)


def _repeat_last(x: Any, times: int) -> Any:
    """Pad with copies of the last image: real pixels, so that no NaN or infinity is computed for nothing."""
    numpy = jnp if isinstance(x, jax.Array) else np
    return numpy.concatenate([x, numpy.repeat(x[-1:], times, axis=0)])
