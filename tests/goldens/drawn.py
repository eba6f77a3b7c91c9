"""Random tensors that need not be stored: drawn from NumPy's legacy generator, whose streams are frozen (NEP 19)."""

import numpy as np


def draw(shapes: dict[str, list[int]], seed: int) -> dict[str, np.ndarray]:
    """Tensors for names and shapes: norm scales about 1, a N(0,1) codebook, kernels by their fan-in, small biases."""
    random = np.random.RandomState(seed)
    tensors = {}
    for name, shape in shapes.items():
        value = random.standard_normal(shape)
        layer, kind = name.split(".")[-2:]
        if "norm" in layer:
            value = 0.2 * value + (kind == "weight")
        elif kind == "bias":
            value = 0.1 * value
        elif layer != "embedding":
            value = value / np.sqrt(np.prod(shape[1:]))
        tensors[name] = value.astype(np.float32)
    return tensors
