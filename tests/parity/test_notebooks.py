"""`.ci/notebooks.py`: pairs that are stale, broken or headed otherwise are found (needs the extra `notebook`)."""

import importlib.util
import shutil
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "https://github.com/someone/aedr"
TEXT = """# %% [markdown]
# # Title

# %% [markdown]
# {head}

# %%
2 + 2

# %%
3 + 3
"""


@pytest.fixture(scope="module")
def notebooks():
    spec = importlib.util.spec_from_file_location("ci_notebooks", ROOT / ".ci/notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pair(notebooks, tmp_path):
    """A pair as `--write` leaves it, but for the kernel that executed it."""
    text = tmp_path / "09_test.py"
    text.write_text(TEXT.format(head=notebooks.head("09_test", None)))
    executed = notebooks.jupytext.read(text)
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    for count, (cell, result) in enumerate(zip(code, "46", strict=True), 1):
        cell.execution_count = count
        cell.outputs = [nbformat.v4.new_output("execute_result", {"text/plain": result}, execution_count=count)]
    nbformat.write(executed, text.with_suffix(".ipynb"))
    return text


def change(text, edit):
    notebook = nbformat.read(text.with_suffix(".ipynb"), as_version=4)
    edit([cell for cell in notebook.cells if cell.cell_type == "code"])
    nbformat.write(notebook, text.with_suffix(".ipynb"))


def outputs(text):
    return [cell.get("outputs") for cell in nbformat.read(text.with_suffix(".ipynb"), as_version=4).cells]


def test_a_whole_pair_has_nothing_wrong(notebooks, pair):
    assert notebooks.wrong_with(pair, None) == []


def test_a_stale_pair(notebooks, pair):
    pair.write_text(pair.read_text().replace("2 + 2", "2 + 3"))
    assert notebooks.wrong_with(pair, None) == ["09_test.py and 09_test.ipynb differ"]


def test_a_pair_without_its_other_half(notebooks, pair):
    pair.with_suffix(".ipynb").unlink()
    assert notebooks.wrong_with(pair, None) == ["09_test.ipynb is absent"]


def test_cells_that_were_not_executed_in_order(notebooks, pair):
    change(pair, lambda code: code[0].update(execution_count=7))
    assert notebooks.wrong_with(pair, None) == ["09_test.ipynb was not executed from its first cell to its last"]


def test_an_error_among_the_outputs(notebooks, pair):
    change(
        pair, lambda code: code[1].update(outputs=[nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])])
    )
    assert notebooks.wrong_with(pair, None) == ["09_test.ipynb holds an error"]


def test_outputs_that_are_too_large(notebooks, pair, monkeypatch):
    monkeypatch.setattr(notebooks, "BYTES", 100)
    (problem,) = notebooks.wrong_with(pair, None)
    assert problem.endswith("more than 100")


def test_an_address_gives_a_badge_and_an_install_line_and_keeps_outputs(notebooks, pair):
    printed = outputs(pair)
    (problem,) = notebooks.wrong_with(pair, ADDRESS)
    assert "--heads" in problem
    notebooks.write_head(pair, ADDRESS)
    assert notebooks.wrong_with(pair, ADDRESS) == []
    assert "colab.research.google.com/github/someone/aedr/blob/main/notebooks/09_test.ipynb" in pair.read_text()
    assert 'pip install "aedr-jax[notebook] @ git+https://github.com/someone/aedr"' in pair.read_text()
    assert outputs(pair) == printed
    notebooks.write_head(pair, None)
    assert notebooks.wrong_with(pair, None) == []
    assert "colab" not in pair.read_text()


def test_an_address_that_no_badge_can_point_to(notebooks, tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    (tmp_path / "pyproject.toml").write_text('[project.urls]\nRepository = "https://example.org/aedr"\n')
    with pytest.raises(ValueError, match=r"example\.org.*expected https://github.com"):
        notebooks.configured_address()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert notebooks.configured_address() is None or notebooks.configured_address().startswith("https://github.com/")


@pytest.mark.parametrize(
    ("last", "well", "said"), [("3 + 3", True, "of a processor"), ("1 / 0", False, "ZeroDivisionError")]
)
def test_a_copy_is_executed_and_an_error_is_told(notebooks, pair, tmp_path, last, well, said):
    pair.write_text(pair.read_text().replace("3 + 3", last))
    home = tmp_path / "home"
    home.mkdir()
    found, line = notebooks.execute_copy(pair, home)
    assert found == well
    assert said in line
    if well:
        assert notebooks.wrong_with(home / pair.name, None) == []


def test_every_notebook_that_ships_is_whole(notebooks):
    texts = sorted((ROOT / "notebooks").glob("[0-9]*.py"))
    assert len(texts) == 5
    assert [notebooks.wrong_with(text, notebooks.configured_address()) for text in texts] == [[]] * 5
