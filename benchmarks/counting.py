"""Multiply-adds of a traced program: what XLA's own count misses in loops and in calls of cuDNN."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["count_multiply_adds"]


def count_multiply_adds(jaxpr: Any, platform: str) -> int:
    """Of the convolutions and products of a traced program, in the branches that are lowered for `platform`."""
    total = 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            summed = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += math.prod(equation.outvars[0].aval.shape) * summed
        elif name == "conv_general_dilated":
            kernel, numbers = equation.invars[1].aval.shape, params["dimension_numbers"]
            summed = math.prod(kernel) // kernel[numbers.rhs_spec[0]]
            zeros = math.prod(params["lhs_dilation"])  # of a gradient: what is spread with zeros costs no more for it
            total += math.prod(equation.outvars[0].aval.shape) * summed // zeros
        elif name == "cond":
            branches = params["branches"]
            if (platforms := params.get("branches_platforms")) is not None:
                named = [i for i, names in enumerate(platforms) if names and platform in names]
                branches = [branches[named[0] if named else -1]]
            total += max(count_multiply_adds(branch.jaxpr, platform) for branch in branches)
        else:
            inner = sum(count_multiply_adds(one, platform) for one in _inner(params))
            total += inner * (params["length"] if name == "scan" else 1)
    return total


def _inner(params: Mapping[str, Any]) -> list[Any]:
    found = [getattr(value, "jaxpr", value) for value in params.values()]
    return [value for value in found if hasattr(value, "eqns")]
