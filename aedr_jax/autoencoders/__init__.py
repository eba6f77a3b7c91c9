"""Flax autoencoders: the networks, their checkpoints, and where to find them."""
