"""`python -m aedr_jax.cli`."""

from aedr_jax.cli.main import console

console()
