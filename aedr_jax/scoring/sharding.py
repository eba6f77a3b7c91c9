"""Batches over every local device, or over the CPUs of one, each image computed where it lies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from aedr_jax.compilation import compiler_options, cpus
from aedr_jax.errors import ArgumentError, SourceError
from aedr_jax.interruption import kept_handlers
from aedr_jax.scoring.lanes import Lanes, holds_a_callback, may_be_taken

__all__ = ["Replicated", "Sharded", "local_mesh", "make_sharded", "pod_share"]


def local_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A one-axis mesh over devices, by default this process's (Auto axes: group norm's reshapes fail on Explicit
    ones)."""
    devices = jax.local_devices() if devices is None else devices
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def pod_share(**options: Any) -> tuple[int, int]:
    """This process's number and how many there are, from `jax.distributed`, which is then left again: processes that
    stay joined die together, and nothing here needs the others.

    Args:
      options: of `jax.distributed.initialize`; none on a TPU pod or under Slurm, which it asks itself.

    Raises:
      SourceError: where it finds no cluster.
    """
    with kept_handlers():
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
      lanes: how many programs run at once: one for each CPU where the mesh is one CPU device, else one.
      jitted: the compiled program, `jitted(replicate(shared), batches, named)`, for batches that the devices divide: a
        tuple of those given by place, and a dictionary of those given by name (or nothing).
    """

    def __init__(self, fn: Callable[..., Any], mesh: Mesh) -> None:
        (axis,) = mesh.axis_names
        self.mesh = mesh
        self._everywhere = NamedSharding(mesh, PartitionSpec())
        self._split = NamedSharding(mesh, PartitionSpec(axis))

        def per_device(shared: Replicated, batches: tuple[Any, ...], named: dict[str, Any]) -> Any:
            return fn(shared.whole(), *batches, **named)

        whole, split = PartitionSpec(), PartitionSpec(axis)
        mapped = jax.shard_map(per_device, mesh=mesh, in_specs=(whole, split, split), out_specs=split)

        def program(shared: Replicated, batches: tuple[Any, ...], named: dict[str, Any] | None = None) -> Any:
            return mapped(shared, batches, named or {})

        platform = mesh.devices.flat[0].platform
        self.jitted: Any = jax.jit(program, compiler_options=compiler_options(platform, mesh.size))
        self.lanes = cpus() if platform == "cpu" and mesh.size == 1 else 1
        self._of_lane = jax.jit(program, compiler_options=compiler_options(platform, self.lanes))
        self._lanes = Lanes(self.lanes)
        self._is_cpu = platform == "cpu"
        self._alone = (
            Sharded(fn, Mesh(mesh.devices.flat[:1], mesh.axis_names)) if self._is_cpu and mesh.size > 1 else self
        )
        self._whole = self.jitted  # where `jitted` becomes more than that
        self._calls_back: dict[Any, bool] = {}

    def replicate(self, shared: Any) -> Replicated:
        """Copy a pytree to every device: do it once, and calls with the result copy nothing."""
        leaves, structure = jax.tree.flatten(shared)
        return Replicated(jax.device_put(leaves, self._everywhere), structure)

    def __call__(self, shared: Any, *batches: Any, **named: Any) -> Any:
        n = _number_of_images(batches, named)
        shared = self._there(shared)
        if self.lanes <= n and self._takes_lanes(shared, batches, named):
            return self._in_parts(shared, (batches, named), n)
        if self._alone is not self and self.calls_back(shared, *batches, **named):
            return self._alone(shared.whole(), *batches, **named)
        batches, named = _filled_up((batches, named), -n % self.mesh.size)
        out = self.jitted(shared, *jax.device_put((batches, named), self._split))
        return jax.tree.map(lambda x: self._cut_back(x, n), out) if n % self.mesh.size else out

    def beside(self, most: int, shared: Any, *batches: Any, **named: Any) -> Any:
        """The same, beside what was asked for before: at most so many calls at once, and no more than there are lanes.
        Each takes the memory that it takes alone.

        >>> half = aedr.make_sharded(lambda scale, images: scale * images.mean((1, 2, 3)))
        >>> first, second = (half.beside(2, jnp.float32(0.5), np.full((1, 4, 4, 3), x, np.float32)) for x in (1.0, 2.0))
        >>> float(first[0]), float(second[0])
        (0.5, 1.0)
        """
        n = _number_of_images(batches, named)
        shared = self._there(shared)
        if n >= self.lanes or not self._takes_lanes(shared, batches, named):
            return self(shared, *batches, **named)
        arguments = shared, *jax.device_put((batches, named), self._split)
        return self._lanes.next(min(most, self.lanes), self.jitted, *arguments)

    def calls_back(self, shared: Any, *batches: Any, **named: Any) -> bool:
        """Whether the program calls Python (`jax.pure_callback` and its like), where that can hang: on CPU devices.

        XLA calls Python on one of the threads that it computes with, and there the callback waits for its arguments,
        which another of them hands over (jax-ml/jax#24255). Programs side by side can keep all of them busy until each
        waits for another. So a program that calls Python takes no lanes and one device alone, and nothing should run
        beside it.

        >>> half = aedr.make_sharded(lambda scale, images: scale * images.mean((1, 2, 3)))
        >>> half.calls_back(jnp.float32(0.5), np.ones((1, 4, 4, 3), np.float32))
        False
        """
        if not self._is_cpu or _is_traced((shared, batches, named)):
            return False
        shared, given = self._there(shared), (batches, named)
        leaves, structure = jax.tree.flatten((shared, given))
        key = structure, *map(jax.typeof, leaves)
        if key not in self._calls_back:
            program, n = self._whole, _number_of_images(batches, named)
            given = _filled_up(given, -n % self.mesh.size)
            if 1 < self.lanes <= n and may_be_taken():  # what a lane is given, so that this is traced just once
                program, size = self._of_lane, -(-n // self.lanes)
                given = jax.tree.map(lambda x: _cut(x, 0, size), given)
            traced = program.trace(shared, *jax.device_put(given, self._split))
            self._calls_back[key] = holds_a_callback(traced.jaxpr.jaxpr)
        return self._calls_back[key]

    def _takes_lanes(self, shared: Any, batches: Any, named: Any) -> bool:
        may_be = self.lanes > 1 and not _is_traced((shared, batches, named)) and may_be_taken()
        return may_be and not self.calls_back(shared, *batches, **named)

    def _there(self, shared: Any) -> Replicated:
        return shared if isinstance(shared, Replicated) else self.replicate(shared)

    def _in_parts(self, shared: Replicated, batches: Any, n: int) -> Any:
        size = -(-n // self.lanes)
        whole = _filled_up(batches, -n % size)
        parts = [jax.tree.map(lambda x, i=i: _cut(x, i, i + size), whole) for i in range(0, n, size)]
        return self._lanes.together(self._of_lane, [(shared, *jax.device_put(part, self._split)) for part in parts], n)

    def _cut_back(self, x: jax.Array, n: int) -> jax.Array:
        # On one device: slicing an array that lies on all of them is a program with a collective, and several of those
        # at once can wait for each other without end (XLA's CPU client ends the process after 40 seconds).
        return jax.device_put(x, self.mesh.devices.flat[0])[:n]


def make_sharded(fn: Callable[..., Any], *, mesh: Mesh | None = None) -> Sharded:
    """Compile a per-image function so that its batch is spread over a mesh, with no communication.

    Args:
      fn: `fn(replicated, *batches, **batches) -> per-image pytree`. The first argument (an autoencoder, say) is copied
        to every device. Every other argument, given by place or by name, is a pytree of arrays [n, ...], as is the
        result. The result for an image must not depend on the others. Close over settings:
        `make_sharded(lambda ae, x: measure(ae, x, config=config))`.
      mesh: one axis, any name; None: every local device.

    Returns:
      A function of the same arguments. If the number of devices does not divide a batch, the batch is padded with its
      last image and the result is cut back, both outside the compiled program. On one CPU device a batch of at least as
      many images as this process has CPUs is computed in so many parts at once, where the main thread asks for it. The
      function raises `ArgumentError` on an argument that is no batch of arrays, and on batches of different sizes.

    >>> brightness = aedr.make_sharded(lambda scale, images: scale * images.mean(axis=(1, 2, 3)))
    >>> brightness(jnp.float32(2), np.ones((3, 4, 4, 3), np.float32))
    Array([2., 2., 2.], dtype=float32)
    """
    return Sharded(fn, local_mesh() if mesh is None else mesh)


def _is_traced(arguments: Any) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arguments))


def _number_of_images(batches: tuple[Any, ...], named: dict[str, Any]) -> int:
    sizes: dict[str, int] = {}  # by argument: messages name them
    for name, batch in [*((f"batch {i}", batch) for i, batch in enumerate(batches)), *named.items()]:
        for leaf in jax.tree.leaves(batch):
            if not isinstance(leaf, jax.Array | np.ndarray) or leaf.ndim == 0:
                raise ArgumentError(
                    f"{name}: {type(leaf).__name__} has no axis of images. Settings are closed over, such as "
                    "make_sharded(lambda ae, x: measure(ae, x, config=config)); a key is given for each image"
                )
            if sizes.setdefault(name, leaf.shape[0]) != leaf.shape[0] or len(set(sizes.values())) > 1:
                raise ArgumentError(f"{name}: an array of {leaf.shape[0]} images: batches of different sizes, {sizes}")
    if not sizes:
        raise ArgumentError("no batch of images was given")
    return next(iter(sizes.values()))


def _cut(x: Any, start: int, end: int) -> Any:
    return jax.lax.slice_in_dim(x, start, end) if isinstance(x, jax.Array) else x[start:end]


def _filled_up(batches: Any, times: int) -> Any:
    """Pad with copies of the last image: real pixels, so that no NaN or infinity is computed for nothing."""

    def longer(x: Any) -> Any:
        numpy = jnp if isinstance(x, jax.Array) else np
        return numpy.concatenate([x, numpy.repeat(x[-1:], times, axis=0)])

    return jax.tree.map(longer, batches) if times else batches
