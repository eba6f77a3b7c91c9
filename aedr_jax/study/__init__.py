"""Experiments: how sure the decision is, against which rivals and attacks."""
