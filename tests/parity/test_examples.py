"""The examples in docstrings that need diffusers or compile a whole network."""

import pytest
from docstrings import LATER, examples, failures


@pytest.mark.parametrize("name", LATER)
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (docstring,) = (text for where, text in examples().items() if where.endswith(f":{name}"))
    assert not (told := failures(name, docstring)), told
