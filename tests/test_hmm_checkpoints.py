"""Checkpoints: the E-step in memory for the square root of the steps gives what it gives without."""

import tracemalloc

import numpy as np
import pytest

from fastgen import HMM
from fastgen._hmm_em import HiddenMarkov, Sequences
from fastgen._hmm_recursions import Chain, Layout, Recursions
from fastgen._kernels import _hmm
from fastgen.families import Categorical, Gaussian, Poisson, Product, StudentT

nan = np.nan


def chain_of(kind, K, rng):
    """Chains whose sequences are not cut: they never forget, or are not safe in scaled numbers."""
    A = rng.dirichlet(np.ones(K), K)
    if kind == "never forgets":
        A = np.full((K, K), 1e-30)
        np.fill_diagonal(A, 1 - (K - 1) * 1e-30)
    elif kind == "left-right":
        A = np.triu(A)
        A /= A.sum(axis=1, keepdims=True)
    return Chain(rng.dirichlet(np.ones(K)), A)


def record(outcome):
    return outcome.log_likelihoods, outcome.start, outcome.transitions


@pytest.mark.parametrize("kind", ["never forgets", "left-right"])
@pytest.mark.parametrize("n", [1025, 2048, 2049, 5000])
@pytest.mark.parametrize("K", [1, 3, 9])
@pytest.mark.parametrize("weights", [None, [0.3, 2.0]])
def test_blocks_have_the_bits_of_the_whole(kind, n, K, weights):
    """Sums of the wide kernel are of logarithms that are not split in blocks either."""
    rng = np.random.default_rng(n + K)
    chain = chain_of(kind, K, rng)
    rows = n + 700
    emissions = _hmm.Emissions(_hmm.LOGS, 0.01 * rng.normal(size=(rows, K)), K)
    found = []
    for blocks in (False, True):
        parts = []
        w = None if weights is None else np.array(weights)
        layout = Layout(np.array([0, n, rows]), w, blocks=blocks)
        layout.warm = {"narrow": 0, "wide": 0}  # no cuts
        keep = parts.append
        outcome = Recursions(emissions, chain, layout, n_threads=1).forward_backward(
            transitions=True, reduce=lambda i, j, p, keep=keep: keep((i, j, p.copy()))
        )
        posterior = np.full((rows, K), nan)
        for first, stop, part in parts:
            posterior[first:stop] = part
        assert len(parts) == (2 if not blocks else -(-n // 1024) + 1)
        found.append((*record(outcome), posterior, Recursions(emissions, chain, layout).log_likelihoods()))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def data_of(family, n, rng):
    states = np.cumsum(rng.random(n) < 0.05) % 3
    if isinstance(family, Categorical):
        return rng.binomial(6, np.array([0.2, 0.5, 0.8])[states])[:, None]
    if isinstance(family, Poisson):
        return rng.poisson(np.array([1.0, 5.0, 12.0])[states])[:, None].astype(float)
    return 4.0 * states[:, None] + rng.standard_t(4.0, (n, 2))


CASES = {
    "poisson": (Poisson(), {}),
    "categorical": (Categorical(), {}),
    "student t": (StudentT(), {}),
    "full, missing values": (Gaussian("full"), {"missing": True}),
    "full": (Gaussian("full"), {}),
    "left-right": (Gaussian("diag"), {"transition_mask": "left-right"}),
    "ties": (Gaussian("diag"), {"emission_ties": [0, 1, 1]}),
    "product": (Product([(Gaussian("diag"), [0]), (Gaussian("diag"), [1])]), {}),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("case", CASES)
def test_a_fit_is_the_same(case):
    """One sequence that is too long to be held, many short ones, and one of nothing."""
    family, options = CASES[case]
    rng = np.random.default_rng(5)
    lengths = [70_000, 0, *[1000] * 70, 3]
    X = data_of(family, sum(lengths), rng)
    options = dict(options)
    if options.pop("missing", False):
        X[rng.random(X.shape) < 0.1] = nan
    fits = [
        HMM(family, 3, max_iter=2, tol=0.0, random_state=0, checkpoints=checkpoints, **options)
        for checkpoints in (False, True)
    ]
    weights = rng.uniform(0.5, 2.0, len(lengths))
    for model in fits:
        model.fit(X, lengths=lengths, sample_weight=weights)
    one, other = fits
    np.testing.assert_allclose(other.history_, one.history_, rtol=1e-12)
    np.testing.assert_allclose(other.startprob_, one.startprob_, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(other.transmat_, one.transmat_, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(
        other.family_.log_density(X[:100]), one.family_.log_density(X[:100]), rtol=1e-11, atol=1e-11
    )


def test_the_impossible_row_is_named():
    X = np.zeros((70_000 + 2_000, 1))
    X[71_500] = 3.0
    table = np.array([[[0.6, 0.4, 0.0, 0.0]], [[0.3, 0.7, 0.0, 0.0]]])
    model = HiddenMarkov(np.array([0.5, 0.5]), np.full((2, 2), 0.5), Categorical(probabilities=table))
    for checkpoints in (False, True):
        sequences = Sequences(X, [70_000, 1_000, 1_000], checkpoints=checkpoints)
        with pytest.raises(ValueError, match="row 71500 is impossible: no state can be at that step of sequence 2"):
            model.e_step(sequences)


@pytest.mark.parametrize("kind", ["poisson", "left-right"])
def test_memory(kind):
    """2 MB instead of 77, and more for posteriors and whatever the statistics take."""
    n, K = 400_000, 8
    rng = np.random.default_rng(0)
    if kind == "poisson":
        family, X = Poisson(rates=np.arange(1.0, K + 1)[:, None]), rng.poisson(4.0, (n, 1)).astype(float)
        chain = chain_of("dense", K, rng)
    else:
        family = Gaussian("diag", means=rng.normal(size=(K, 2)), covariances=np.ones((K, 2)))
        X, chain = rng.normal(size=(n, 2)), chain_of("left-right", K, rng)
    model = HiddenMarkov(chain.startprob, chain.transmat, family)
    peaks = []
    for checkpoints in (False, True):
        sequences = Sequences(X, checkpoints=checkpoints)
        tracemalloc.start()
        try:
            model.e_step(sequences)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[0] > 8 * n * K
    assert peaks[1] < 4e6
