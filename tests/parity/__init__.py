"""Parity with the reference implementations: `python -m pytest tests/parity --override-ini addopts=-ra`."""
