"""Which generative model made this image? AEDR (AAAI 2026) in JAX, with Flax autoencoders.

Arrays are NHWC; images are float32 in [-1, 1] unless a name says otherwise; one score for each image; small means
that the image belongs to the model. Functions are pure and un-jitted. Importing this package starts no device and no
network: a name is imported when it is first used. `__init__.pyi` lists the names.

Examples in docstrings assume `import jax, jax.numpy as jnp, numpy as np, aedr_jax as aedr`.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
