"""Experiments: which signal, how sure, against which rivals and attacks."""
