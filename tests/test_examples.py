"""The examples in docstrings run, and every public name has one."""

import inspect

import pytest
from docstrings import LATER, examples, failures

import aedr_jax

EXAMPLES = {name: docstring for name, docstring in examples().items() if name.rpartition(":")[2] not in LATER}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not (told := failures(name, EXAMPLES[name])), told


@pytest.mark.parametrize("name", aedr_jax.__all__)
def test_public_names_have_an_example(name):
    value = getattr(aedr_jax, name)
    assert inspect.ismodule(value) or ">>> " in (inspect.getdoc(value) or "")
