"""Exact inference agrees with pgmpy's on published networks (skipped where these, or pgmpy, are not there)."""

import gzip
import logging
import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from fastgen.graphical import BayesianNetwork


@pytest.fixture(scope="module")
def pgmpy():
    """pgmpy warns about itself when it is imported, and when it runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = pytest.importorskip("pgmpy.inference"), pytest.importorskip("pgmpy.readwrite")
        logging.getLogger("pgmpy").setLevel(logging.ERROR)
        yield found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["asia", "child", "alarm", "insurance"])
def test_marginals(pgmpy, name):
    inference, readwrite = pgmpy
    folder = Path(os.environ.get("FASTGEN_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
    path = folder / "bif" / f"{name}.bif.gz"
    if not path.exists():
        pytest.skip(f"no published networks in {folder}; FASTGEN_TEST_DATA names another folder")
    theirs = readwrite.BIFReader(string=gzip.decompress(path.read_bytes()).decode()).get_model()
    engine = inference.VariableElimination(theirs)
    ours = BayesianNetwork.read(path)
    rng = np.random.default_rng(1)
    for row in ours.sample(2, rng):
        seen = rng.choice(len(row), 3, replace=False)
        names = ours.network_.names
        evidence = {names[i]: row[i] for i in seen}
        found = ours.infer(evidence).marginals
        asked = [names[i] for i in rng.permutation(np.setdiff1d(np.arange(len(row)), seen))[:12]]
        for variable in asked:
            answer = engine.query([variable], evidence=evidence, show_progress=False)
            order = [answer.state_names[variable].index(state) for state in ours.categories_[variable]]
            np.testing.assert_allclose(found[variable][0], answer.values[order], atol=1e-10)
