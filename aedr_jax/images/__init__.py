"""Pixels: from bytes of a file to arrays, and what may be done to them."""
