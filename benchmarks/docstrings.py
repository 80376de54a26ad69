"""A corpus of text that every installation holds: docstrings of the standard library and of what fastgen depends on."""

import importlib.util
import re
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import CountVectorizer

PACKAGES = ("python", "numpy", "scipy", "sklearn", "numba")
LEAST_WORDS = 20
_OTHERS = {"site-packages", "dist-packages", "test", "tests", "idlelib", "_vendor", "externals", "_bundled"}
_DOCSTRING = re.compile(r'^[ \t]*[rRuU]?"""(.*?)"""', re.DOTALL | re.MULTILINE)  # a parser would take a minute


def _modules(package: str) -> Iterator[Path]:
    """Source files of a package, in a fixed order, without tests and what others wrote."""
    if package == "python":
        root = Path(sysconfig.get_paths()["stdlib"])
    else:
        root = Path(str(importlib.util.find_spec(package).origin)).parent  # type: ignore[union-attr]
    for path in sorted(root.rglob("*.py")):
        if not _OTHERS.intersection(path.relative_to(root).parts):
            yield path


@cache
def documents() -> tuple[list[str], list[str]]:
    """All docstrings of each module, as one text, and the package that it belongs to."""
    texts, labels = [], []
    for package in PACKAGES:
        for path in _modules(package):
            text = "\n".join(_DOCSTRING.findall(path.read_text("utf-8", "replace")))
            if len(text.split()) >= LEAST_WORDS:
                texts.append(text)
                labels.append(package)
    return texts, labels


@cache
def bag_of_words() -> tuple[Any, NDArray[np.str_], NDArray[np.bool_]]:
    """Counts of words (n, d) in compressed rows, labels (n,), and whether a document is for training: two in three.

    The names of the packages are left out: they would give them away.
    """
    texts, labels = documents()
    vectorizer = CountVectorizer(token_pattern=r"[a-z]{2,}", stop_words=list(PACKAGES), dtype=np.float64)
    train = np.arange(len(texts)) % 3 != 0
    vectorizer.fit([text for text, here in zip(texts, train, strict=True) if here])
    return vectorizer.transform(texts), np.array(labels), train
