"""The procedure of AEDR's authors in PyTorch: what `benchmarks.speed` measures this package against.

Two encode and decode passes of diffusers' autoencoder, at the posterior's mode, and the mean squared errors of both.
PyTorch and diffusers are imported when they are asked for: `find` says what is missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

__all__ = ["Authors", "find"]


def find() -> str:
    """What PyTorch rows lack here, in words; empty where nothing is missing."""
    try:
        import diffusers  # noqa: F401
        import torch  # noqa: F401
    except Exception as error:  # a half-installed diffusers raises whatever it likes
        return f"no PyTorch rows: {type(error).__name__}: {error}"
    return ""


class Authors:
    """A random network of diffusers on the fastest device, and the two passes through it.

    Args:
      fields: its `config.json`.
      quantize: whether latents go through the codebook; of no effect without one.
      dtype: "float32" or "bfloat16".
      precision: "highest" forbids TF32; anything else allows it in convolutions and products.
    """

    def __init__(self, fields: Mapping[str, Any], *, quantize: bool, dtype: str, precision: str) -> None:
        import diffusers
        import torch

        torch.manual_seed(0)
        self.torch, self.device = torch, "cuda" if torch.cuda.is_available() else "cpu"
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision != "highest"
        known = {name: value for name, value in fields.items() if not name.startswith("_")}
        self.network = getattr(diffusers, fields["_class_name"])(**known).eval()
        self.has_codebook, self.quantize = fields["_class_name"] == "VQModel", quantize
        self.dtype = getattr(torch, dtype)
        self.fields = fields

    def tensors(self) -> dict[str, np.ndarray]:
        """The weights in float32, for the same network in JAX."""
        return {name: value.float().cpu().numpy() for name, value in self.network.state_dict().items()}

    def to_device(self, images: np.ndarray) -> Any:
        self.network.to(self.device, self.dtype)
        return self.torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(self.device, self.dtype)

    def losses(self, x: Any) -> Any:
        """Both losses of each image, [2, n]."""
        first = self._pass(x)
        second = self._pass(first)
        square = self.torch.square
        return self.torch.stack(
            [square(first - x).float().mean((1, 2, 3)), square(second - first).float().mean((1, 2, 3))]
        )

    def _pass(self, x: Any) -> Any:
        encoded = self.network.encode(x)
        if self.has_codebook:
            return self.network.decode(encoded.latents, force_not_quantize=not self.quantize).sample
        return self.network.decode(encoded.latent_dist.mode()).sample

    def runner(self, x: Any, *, compiled: bool) -> Callable[[], np.ndarray]:
        """A function that waits for the losses; where it is to be compiled, its first call does that too."""
        losses = self.torch.compile(self.losses) if compiled else self.losses

        def run() -> np.ndarray:
            with self.torch.inference_mode():
                return losses(x).cpu().numpy()  # which waits

        return run

    def set_best_threads(self, run: Callable[[], Any], most: int) -> int:
        """Of all cores and half of them, the number with which one call took least; of no effect on a GPU."""
        if self.device == "cuda":
            return 0
        seconds = {}
        for count in dict.fromkeys((most, max(1, most // 2))):
            self.set_threads(count)
            started = time.perf_counter()
            run()
            seconds[count] = time.perf_counter() - started
        return self.set_threads(min(seconds, key=seconds.__getitem__))

    def set_threads(self, count: int) -> int:
        self.torch.set_num_threads(count)
        return count

    def multiply_adds(self, x: Any) -> int:
        """Of convolutions and products in one call, as PyTorch counts them."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter, self.torch.no_grad():
            self.losses(x)
        return counter.get_total_flops() // 2

    def peak_mib(self, run: Callable[[], Any]) -> float | None:
        """Of the GPU's memory in one call; None on a CPU."""
        if self.device != "cuda":
            return None
        self.torch.cuda.empty_cache()
        self.torch.cuda.reset_peak_memory_stats()
        run()
        return self.torch.cuda.max_memory_allocated() / 2**20

    def ceiling(self, side: int, seconds: Callable[[Callable[[], Any]], float]) -> float:
        """Multiply-adds a second of one large product of this dtype and precision."""
        a = self.torch.rand(side, side, dtype=self.dtype, device=self.device)  # equal numbers cost less

        def run() -> None:
            (a @ a)[0, 0].item()

        return side**3 / seconds(run)
