"""Examples in docstrings and in the README run, and versions agree."""

import doctest
import importlib
import re
import tomllib
from pathlib import Path

import pytest

import fastgen

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    str(path.relative_to(ROOT / "src").with_suffix("")).replace("/", ".").removesuffix(".__init__")
    for path in (ROOT / "src" / "fastgen").rglob("*.py")
    if path.name != "__main__.py" and not path.parent.name.startswith(("_baseline", "_v"))
)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    assert doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


def test_public_api_has_examples():
    finder = doctest.DocTestFinder()
    found = [finder.find(getattr(fastgen, name)) for name in ("Gaussian", "GenerativeClassifier")]
    assert all(any(test.examples for test in tests) for tests in found)


def test_readme_examples():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert citation is not None
    assert project["version"] == fastgen.__version__ == citation[1]
