"""Texts of the command line to values; what cannot be one is an `ArgumentTypeError`, which the parser says."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aedr_jax.images.processing import Processing

__all__ = ["names", "positive", "processing", "resource", "several", "share"]


def processing(text: str) -> Processing:
    """A processing by its name, such as jpeg75."""
    from aedr_jax.images.processing import Processing

    try:
        return Processing.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def positive(text: str) -> int:
    """A number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a positive number")
    return value


def several(text: str) -> int:
    """A number from 2 on."""
    if (value := positive(text)) < 2:
        raise argparse.ArgumentTypeError(f"{text}: expected 2 or more")
    return value


def names(text: str) -> list[str]:
    """Names with commas between them."""
    from aedr_jax.autoencoders.names import split_list

    found = split_list(text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r}: expected names with commas between them")
    return found


def share(text: str) -> tuple[int, int] | str:
    """I/N, or auto."""
    if text == "auto":
        return text
    try:
        index, shares = map(int, text.split("/"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: expected I/N, such as 0/4, or auto") from None
    return index, shares


def resource(text: str) -> dict[str, float]:
    """NAME=N."""
    name, _, amount = text.partition("=")
    try:
        return {name: float(amount)}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: expected NAME=N, such as GPU=1") from None
