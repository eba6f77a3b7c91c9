"""The site: `python -m sphinx -W --keep-going -b html docs build/site` (extra `docs`)."""

import re

import aedr_jax

project = "aedr_jax"
author = "The aedr_jax authors"
project_copyright = author
version = release = aedr_jax.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3  # pages link to each other's headings
source_suffix = {".md": "markdown"}
html_theme = "furo"
html_title = f"aedr_jax {version}"
html_static_path: list[str] = []
default_role = "code"  # docstrings have names in single backticks, as the sources of JAX do
smartquotes = False

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True  # as written, not as Python prints them
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 88

nitpicky = True
# Types in signatures are other projects', whose sites CI does not reach, or have no page of their own.
nitpick_ignore_regex = [("py:class", ".*")]


def readable(text: str) -> str:
    """A signature in the sources' words: `Float[Array | ndarray, 'n h w 3']` without the modules of its names."""
    text = re.sub(
        r"~?\b(?:jaxtyping|jaxlib\._jax|jax|numpy|np|pathlib|collections\.abc|typing|os)\.(?=[A-Za-z])", "", text
    )
    text = re.sub(r"\baedr_jax\.(?:\w+\.)*(?=[A-Z])", "", text)
    text = re.sub(
        r"(\w+)\[Array, ('[^']*')\] \| \1\[ndarray, \2\]", r"\1[Array | ndarray, \2]", text
    )  # two in jaxtyping
    text = re.sub(r"<function (\w+)(?: at 0x\w+)?>", r"\1", text)
    return text.replace("~", "").replace(" = <factory>", " = ...")


def shorten(app, what, name, obj, options, signature, returned):
    """Of autodoc's signatures."""
    return signature and readable(signature), returned and readable(returned)


def setup(app):
    """Sphinx calls it."""
    app.connect("autodoc-process-signature", shorten)
