"""The examples in docstrings, for `test_examples.py` here and in `parity/`."""

import ast
import doctest
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import aedr_jax

ROOT = Path(aedr_jax.__file__).parent
ASSUMED = {"np": np, "jax": jax, "jnp": jnp, "aedr": aedr_jax}  # what an example may take to be imported
# They need diffusers, or compile a whole network: with the parity suite.
LATER = ("attribute_dataset", "from_flax_diffusers", "score_dataset")


def examples() -> dict[str, str]:
    """Module and name of whatever has an example -> its docstring, by the source alone: nothing is imported for it."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                docstring = ast.get_docstring(node) or ""
                if ">>> " in docstring:
                    found[f"{path.relative_to(ROOT).as_posix()}:{getattr(node, 'name', '')}"] = docstring
    return found


def failures(name: str, docstring: str) -> str:
    """Run one docstring's examples; what doctest says of those that fail."""
    test = doctest.DocTestParser().get_doctest(docstring, dict(ASSUMED), name, None, 0)
    told: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False).run(test, out=told.append)
    return "".join(told)
