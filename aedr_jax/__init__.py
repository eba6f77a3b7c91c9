"""Which generative model made this image? AEDR in JAX."""
__version__="0.1.0"
