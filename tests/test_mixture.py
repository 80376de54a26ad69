"""Gaussian mixtures: agreement with scikit-learn, published numbers, invariances, and what may go wrong."""

import copy
import logging
import pickle
import re
import tracemalloc
import warnings
from contextlib import contextmanager

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn.mixture
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracle import gaussian as gaussian_oracle
from oracle import mixture as oracle
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastgen
from fastgen import GaussianMixture, Mixture, families
from fastgen.errors import CollapsedComponentError, ComponentError

TYPES = ("full", "tied", "diag", "spherical")
nan, inf = np.nan, np.inf


@contextmanager
def quiet():
    """A fit that is not meant to converge."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def blobs(rng, n=200, d=3, K=3, spread=3.0):
    """Gaussian clusters that overlap a little."""
    labels = rng.permutation(np.arange(n) % K)
    shapes = rng.standard_normal((K, d, d)) / np.sqrt(d) + np.eye(d)
    return spread * rng.standard_normal((K, d))[labels] + np.einsum(
        "ij,ijk->ik", rng.standard_normal((n, d)), shapes[labels]
    )


def start(X, K, kind, rng):
    """Starting parameters: rows as means, the covariance of all."""
    filled = np.where(np.isnan(X), np.nanmean(X, axis=0), X).astype(np.float64)
    S = np.cov(filled.T, ddof=0).reshape(X.shape[1], -1)
    covariances = {
        "full": np.stack([S] * K),
        "tied": S,
        "diag": np.stack([S.diagonal()] * K),
        "spherical": np.full(K, np.trace(S) / len(S)),
    }
    return {
        "weights_init": np.full(K, 1 / K),
        "means_init": filled[rng.choice(len(X), K, replace=False)],
        "covariances_init": covariances[kind],
    }


def fitted(X, K=3, kind="full", seed=0, **settings):
    with quiet():
        return GaussianMixture(K, covariance_type=kind, random_state=seed, **settings).fit(X)


def run(X, K, kind, first, steps=10, sample_weight=None, **settings):
    """Exactly so many EM steps from given parameters."""
    settings = {"tol": 0.0, "reg_covar": 0.0, "max_iter": steps} | settings
    with quiet():
        return GaussianMixture(K, covariance_type=kind, **settings | first).fit(X, sample_weight=sample_weight)


def parameters(g):
    return g.weights_, g.means_, g.covariances_


def theta(g):
    """What the oracles take."""
    return *parameters(g), g.covariance_type


def assert_close(one, other, rtol=1e-10):
    """Parameters and history; relative to the largest of each."""
    for a, b in zip(parameters(one), parameters(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(b).max())
    steps = min(len(one.history_), len(other.history_))  # rounding decides when nothing is gained any more
    np.testing.assert_allclose(one.history_[:steps], other.history_[:steps], rtol=rtol, atol=rtol)
    assert one.history_[-1] == pytest.approx(other.history_[-1], rel=rtol)


def assert_same_bits(one, other):
    for a, b in zip(parameters(one), parameters(other), strict=True):
        assert np.array_equal(a, b)
    assert np.array_equal(one.history_, other.history_)


def with_holes(rng, X, share):
    X = X.copy()
    X[rng.random(X.shape) < share] = nan
    return X


# ---- scikit-learn ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "d", "K", "spread", "init_params"),
    [
        (0, 2, 3, 3.0, "kmeans"),
        (1, 5, 4, 3.0, "kmeans"),
        (2, 3, 2, 1.5, "kmeans"),
        (3, 1, 3, 2.0, "kmeans"),
        (4, 9, 2, 1.0, "kmeans"),
        (5, 2, 2, 3.0, "random"),
    ],
)
@pytest.mark.parametrize("kind", TYPES)
def test_scikit_learn_from_the_same_seed(kind, seed, d, K, spread, init_params):
    X = blobs(np.random.default_rng(seed), 300, d, K, spread)
    settings = {
        "covariance_type": kind,
        "init_params": init_params,
        "random_state": seed,
        "max_iter": 1000,
        "tol": 1e-4,
    }
    theirs = sklearn.mixture.GaussianMixture(K, **settings).fit(X)
    ours = GaussianMixture(K, **settings).fit(X)
    assert ours.n_iter_ == theirs.n_iter_
    assert ours.converged_
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        want = getattr(theirs, name)
        np.testing.assert_allclose(getattr(ours, name), want, rtol=1e-8, atol=1e-8 * np.abs(want).max(), err_msg=name)
    np.testing.assert_allclose(ours.score_samples(X), theirs.score_samples(X), rtol=1e-8)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=0, atol=1e-8)
    assert np.array_equal(ours.predict(X), theirs.predict(X))
    for name in ("score", "aic", "bic"):
        assert getattr(ours, name)(X) == pytest.approx(getattr(theirs, name)(X), rel=1e-8)
    # Theirs are of the parameters before each step.
    np.testing.assert_allclose(ours.history_[:-1], theirs.lower_bounds_, rtol=1e-8)
    assert ours.lower_bound_ == ours.history_[-1] == pytest.approx(ours.score(X), rel=1e-12)


@pytest.mark.parametrize("given", [("weights",), ("means",), ("precisions",), ("weights", "means", "precisions")])
@pytest.mark.parametrize("kind", TYPES)
def test_scikit_learn_from_the_same_start(rng, kind, given):
    """What is not given comes from k-means."""
    X = blobs(rng, 150, 2, 3)
    first = start(X, 3, kind, rng)
    S = first["covariances_init"]
    first["precisions_init"] = np.linalg.inv(S) if kind in ("full", "tied") else 1 / S
    first["weights_init"] = [0.5, 0.25, 0.25]
    settings = {"covariance_type": kind, "random_state": 3} | {f"{name}_init": first[f"{name}_init"] for name in given}
    theirs = sklearn.mixture.GaussianMixture(3, **settings).fit(X)
    ours = GaussianMixture(3, **settings).fit(X)
    assert ours.n_iter_ == theirs.n_iter_
    np.testing.assert_allclose(ours.covariances_, theirs.covariances_, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(ours.means_, theirs.means_, rtol=1e-8, atol=1e-9)


def test_all_parameters_given_need_no_start(rng, monkeypatch):
    X = blobs(rng)
    monkeypatch.setattr("fastgen._mixture_em.starting_labels", lambda *_: pytest.fail("a start was looked for"))
    first = start(X, 3, "full", rng)
    g = run(X, 3, "full", first, 0)
    assert np.array_equal(g.means_, first["means_init"])
    assert g.history_ == pytest.approx([oracle.log_prob(X, *theta(g)).mean()], rel=1e-11)


# ---- the textbook ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "weighted", "reg_covar"), [(0, False, 0.0), (0, True, 1e-2), (0.3, False, 1e-2), (0.3, True, 0.0)]
)
@pytest.mark.parametrize(("K", "d"), [(1, 3), (2, 4), (5, 2)])
@pytest.mark.parametrize("kind", TYPES)
def test_em_takes_the_steps_of_the_textbook(rng, kind, K, d, missing, weighted, reg_covar):
    X = blobs(rng, 70, d, K, 1.5)
    if missing:
        X = with_holes(rng, X, missing)
        X[3] = nan
        X[4, 1:] = nan
    w = rng.uniform(0, 2, 70) if weighted else None
    first = start(X, K, kind, rng)
    g = run(X, K, kind, first, 6, w, reg_covar=reg_covar)
    assert g.n_iter_ == 6 or K == 1  # which converges in one step, without missing values
    expected, history = oracle.em(X, tuple(first.values()), kind, g.n_iter_, w, reg_covar)
    np.testing.assert_allclose(g.history_, history, rtol=1e-10)
    for got, want in zip(parameters(g), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-10 * max(1, np.abs(want).max()))
    np.testing.assert_allclose(g.log_prob(X), oracle.log_prob(X, *theta(g)), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(g.posterior(X), oracle.posterior(X, *theta(g)), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", TYPES)
def test_rows_without_any_value_leave_the_optimum_where_it_is(rng, kind):
    X = with_holes(rng, blobs(rng, 300, 2, 2), 0.1)
    X = X[~np.isnan(X).all(axis=1)]
    more = np.insert(X, [0, 7, 7, len(X)], nan, axis=0)
    first = start(X, 2, kind, rng)
    one, other = (run(data, 2, kind, first, 3000, tol=1e-13) for data in (X, more))
    for a, b in zip(parameters(other), parameters(one), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)  # the likelihood is flat at the top
    assert other.score(X) == pytest.approx(one.score(X), rel=1e-9)


# ---- what must not matter -------------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(
    kind=st.sampled_from(TYPES),
    K=st.integers(1, 4),
    n=st.integers(12, 60),
    d=st.integers(1, 4),
    decimals=st.sampled_from([0, 1, 15]),
    missing=st.sampled_from([0.0, 0.0, 0.3]),
    weighted=st.booleans(),
    floor=st.sampled_from([None, None, 0.05]),
    init_params=st.sampled_from(["kmeans", "random", "k-means++", "random_from_data"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_history_never_falls(kind, K, n, d, decimals, missing, weighted, floor, init_params, seed):
    """Duplicates, missing values and all: a step of EM gains, or the fit says that it is degenerate."""
    rng = np.random.default_rng(seed)
    X = with_holes(rng, np.round(blobs(rng, n, d, K, 1.0), decimals), missing)
    assume((~np.isnan(X)).sum(axis=0).min() > 2)
    w = rng.uniform(0.1, 2, n) if weighted else None
    g = GaussianMixture(
        K,
        covariance_type=kind,
        reg_covar=0,
        tol=0,
        max_iter=100,
        init_params=init_params,
        floor=floor,
        random_state=seed % 1000,
    )
    try:
        with quiet():
            g.fit(X, sample_weight=w)
    except ComponentError:
        assume(False)
    assert (np.diff(g.history_) >= -1e-10 * np.maximum(1, np.abs(g.history_[1:]))).all()
    assert np.isfinite(g.history_).all()
    assert g.weights_.sum() == pytest.approx(1, rel=1e-14)
    if max(np.linalg.cond(S) for S in gaussian_oracle.matrices(g.covariances_, kind, K, d)) < 1e6:
        assert g.stop_reason_ in ("converged", "max_iter", "degenerate")  # not "decreased"
        assert g.history_[-1] == pytest.approx(g.score(X, sample_weight=w), rel=1e-8, abs=1e-8)


@settings(max_examples=40)
@given(kind=st.sampled_from(TYPES), missing=st.sampled_from([0.0, 0.2]), seed=st.integers(0, 2**32 - 1))
def test_order_does_not_matter(kind, missing, seed):
    """Of rows, of columns, of components."""
    rng = np.random.default_rng(seed)
    X = with_holes(rng, blobs(rng, 80, 3, 3, 1.5), missing)
    first = start(X, 3, kind, rng)
    g = run(X, 3, kind, first)
    assume(g.stop_reason_ != "degenerate")
    # A small component makes the way of EM sensitive: rounding grows with the condition of its covariance.
    assume(g.weights_.min() > 0.1)
    assert_close(run(X[rng.permutation(80)], 3, kind, first), g, 1e-9)
    order = rng.permutation(3)
    turned = dict(first)
    turned["means_init"] = first["means_init"][:, order]
    if kind in ("full", "tied"):
        turned["covariances_init"] = first["covariances_init"][..., order[:, None], order]
    elif kind == "diag":
        turned["covariances_init"] = first["covariances_init"][:, order]
    h = run(X[:, order], 3, kind, turned)
    np.testing.assert_allclose(h.means_, g.means_[:, order], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(h.history_, g.history_, rtol=1e-9)
    swapped = {
        name: value if kind == "tied" and name == "covariances_init" else value[order] for name, value in first.items()
    }
    h = run(X, 3, kind, swapped)
    np.testing.assert_allclose(h.means_, g.means_[order], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(h.history_, g.history_, rtol=1e-9)


@settings(max_examples=40)
@given(
    kind=st.sampled_from(TYPES),
    missing=st.sampled_from([0.0, 0.2]),
    shift=st.sampled_from([0.0, 1e8, -3e8]),
    exponent=st.sampled_from([0, -20, 20]),
    seed=st.integers(0, 2**32 - 1),
)
def test_units_do_not_matter(kind, missing, shift, exponent, seed):
    """Data on a grid and powers of two: so that the numbers that go in are the same to the last bit."""
    rng = np.random.default_rng(seed)
    X = with_holes(rng, np.round(blobs(rng, 80, 3, 2, 1.5) * 2**20) / 2**20, missing)
    first = start(X, 2, kind, rng)
    first["means_init"] = np.round(first["means_init"] * 2**20) / 2**20
    scale = 2.0**exponent
    g = run(X, 2, kind, first)
    assume(g.stop_reason_ != "degenerate" and g.weights_.min() > 0.1)
    other = first | {
        "means_init": (first["means_init"] + shift) * scale,
        "covariances_init": first["covariances_init"] * scale**2,
    }
    h = run((X + shift) * scale, 2, kind, other)
    tolerance = 1e-9 + 2e-15 * abs(shift)  # the means are rounded to what float64 can tell there
    # Where the objective rises fast, EM amplifies that: as it does the same change of the first means.
    rounding = np.spacing(abs(shift)) * rng.choice([-1, 1])
    changed = run(X, 2, kind, first | {"means_init": first["means_init"] + rounding})
    steps = min(len(g.history_), len(h.history_), len(changed.history_))
    tolerance += 4 * np.abs(changed.history_[:steps] - g.history_[:steps]).max()
    history = h.history_ + 3 * np.log(scale) * (~np.isnan(X)).mean()
    np.testing.assert_allclose(history[:steps], g.history_[:steps], rtol=1e-9, atol=tolerance)
    np.testing.assert_allclose(h.weights_, g.weights_, rtol=0, atol=tolerance)
    assert np.abs(h.covariances_ / scale**2 - g.covariances_).max() <= 10 * tolerance * np.abs(g.covariances_).max()
    np.testing.assert_allclose(h.means_ / scale - shift, g.means_, rtol=0, atol=10 * tolerance)


@pytest.mark.parametrize("kind", ["full", "tied"])
def test_affine_maps_do_not_matter(rng, kind):
    X = blobs(rng, 150, 3, 2)
    A, b = rng.standard_normal((3, 3)), rng.standard_normal(3)
    first = start(X, 2, kind, rng)
    g = run(X, 2, kind, first)
    h = run(
        X @ A + b,
        2,
        kind,
        first | {"means_init": first["means_init"] @ A + b, "covariances_init": A.T @ first["covariances_init"] @ A},
    )
    np.testing.assert_allclose(h.history_ + np.linalg.slogdet(A)[1], g.history_, rtol=1e-10)
    np.testing.assert_allclose(h.covariances_, A.T @ g.covariances_ @ A, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("kind", TYPES)
def test_float32_is_computed_in_float64(rng, kind, missing):
    """With an offset of 1e3, where float32 arithmetic makes variances negative."""
    X = with_holes(rng, blobs(rng, 150, 3, 2) * 1e-2 + 1e3, missing).astype(np.float32)
    first = start(X, 2, kind, rng)
    single, double = run(X, 2, kind, first), run(X.astype(np.float64), 2, kind, first)
    assert np.array_equal(single.history_, double.history_)
    for a, b in zip(parameters(single), parameters(double), strict=True):
        assert a.dtype == np.float32
        assert b.dtype == np.float64
        assert np.array_equal(a, b.astype(np.float32))
    for name in ("precisions_", "precisions_cholesky_"):
        assert getattr(single, name).dtype == np.float32
    variances = single.covariances_ if kind in ("diag", "spherical") else single.covariances_.diagonal(0, -2, -1)
    assert variances.min() > 0
    assert single.log_prob(X).dtype == single.predict_proba(X).dtype == np.float32
    np.testing.assert_allclose(single.log_prob(X), double.log_prob(X.astype(np.float64)), rtol=1e-6, atol=1e-6)
    assert single.score(X) == pytest.approx(single.log_prob(X).mean(dtype=np.float64), rel=1e-15)
    fitted(X, 2, kind)  # k-means and all


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("kind", TYPES)
def test_integer_weights_are_repetitions(rng, kind, missing):
    X = with_holes(rng, blobs(rng, 100, 3, 2), missing)
    counts = rng.integers(0, 4, 100)
    first = start(X, 2, kind, rng)
    g, h = run(X, 2, kind, first, sample_weight=counts), run(np.repeat(X, counts, axis=0), 2, kind, first)
    assert_close(g, h, 1e-9)
    unit = run(X, 2, kind, first, sample_weight=counts * 1e-3)
    assert_close(unit, g, 1e-9)


@pytest.mark.parametrize("missing", [0.0, 0.05])
@pytest.mark.parametrize("kind", TYPES)
def test_threads_change_no_bit(rng, kind, missing):
    X = blobs(rng, 20_000, 4, 3)
    X[rng.random(20_000) < missing, 1] = nan
    results = []
    for n_threads in (1, 2, 7):
        with fastgen.num_threads(n_threads):
            results.append(run(X, 3, kind, start(X, 3, kind, np.random.default_rng(0)), 4))
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


# ---- blocks ---------------------------------------------------------------------------------------------------------


class Stored:
    """Blocks that are read anew each time."""

    def __init__(self, blocks):
        self.blocks = blocks
        self.reads = 0

    def __iter__(self):
        self.reads += 1
        return iter([block.copy() for block in self.blocks])


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", TYPES)
def test_blocks_are_one_array(rng, kind, weighted, missing):
    X = with_holes(rng, blobs(rng, 300, 3, 2), missing)
    w = rng.uniform(size=300) if weighted else None
    blocks = np.split(X, [1, 100, 101, 230])
    first = start(X, 2, kind, rng)
    whole = run(X, 2, kind, first, sample_weight=w)
    for data in (blocks, tuple(blocks), Stored(blocks)):
        assert_close(run(data, 2, kind, first, sample_weight=w), whole, 1e-9)
    g = GaussianMixture(2, covariance_type=kind, random_state=0).fit(blocks, sample_weight=w)
    assert_close(g, GaussianMixture(2, covariance_type=kind, random_state=0).fit(X, sample_weight=w), 1e-7)
    assert np.array_equal(
        GaussianMixture(2, covariance_type=kind, random_state=0).fit_predict(blocks), fitted(X, 2, kind).predict(X)
    )


@pytest.mark.parametrize("init_params", ["kmeans", "k-means++", "random", "random_from_data"])
def test_starts_from_blocks(rng, init_params, monkeypatch):
    X = blobs(rng, 200, 2, 2, 6.0)
    one = fitted(X, 2, init_params=init_params, tol=1e-6)
    other = fitted(np.split(X, 4), 2, init_params=init_params, tol=1e-6)
    assert_close(other, one, 1e-8)
    monkeypatch.setattr("fastgen._mixture_em._START_ROWS", 150)  # from a part of the rows
    part = fitted(Stored(np.split(X, 4)), 2, init_params=init_params, tol=1e-10)
    assert part.converged_
    assert part.score(X) == pytest.approx(one.score(X), abs=1e-3)


def test_a_memory_map_is_an_array(rng, tmp_path):
    X = blobs(rng, 100, 3, 2)
    stored = np.memmap(tmp_path / "X", np.float64, "w+", shape=X.shape)
    stored[:] = X
    stored.flush()
    mapped = np.memmap(tmp_path / "X", np.float64, "r", shape=X.shape)
    assert_same_bits(fitted(mapped, 2), fitted(X, 2))
    assert_close(fitted([mapped[:40], mapped[40:]], 2), fitted(X, 2), 1e-8)
    assert type(fitted(mapped, 2).means_) is np.ndarray
    assert type(fitted(X, 2).log_prob(mapped)) is np.ndarray


def test_an_iterator_is_refused(rng):
    for data in (iter([blobs(rng)]), (block for block in [blobs(rng)])):
        with pytest.raises(TypeError, match="X is an iterator, which can be read only once"):
            GaussianMixture(2).fit(data)


@pytest.mark.parametrize(
    ("blocks", "weights", "message"),
    [
        ([np.ones((3, 2)), np.ones((3, 3))], None, "3 features"),
        ([np.eye(2), np.eye(2)[0]], None, "Expected 2D array"),
        ([np.eye(2), np.full((2, 2), inf)], None, r"infinity \(at row 2, column 0\)"),
        ([np.eye(2), np.eye(2)], [1.0, 1.0, 1.0], "sample_weight has 3 values, but the blocks hold 4 samples"),
        ([np.eye(2), np.eye(2)], [1.0] * 5, "sample_weight has 5 values, but the blocks hold 4 samples"),
        ([np.zeros((0, 2))], None, "0 sample"),
        ([np.array([["a", "b"]])], None, "could not convert|real numbers|must hold"),
    ],
)
def test_bad_blocks(blocks, weights, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(2).fit(blocks, sample_weight=weights)
    assert not hasattr(GaussianMixture(2), "n_features_in_")


def test_a_list_of_rows_is_an_array(rng):
    X = blobs(rng, 50, 2, 2)
    assert_same_bits(fitted(X.tolist(), 2), fitted(X, 2))
    assert_same_bits(fitted(list(X), 2), fitted(X, 2))
    assert_same_bits(fitted(X[:, :1].tolist(), 2), fitted(X[:, :1], 2))


# ---- starts ---------------------------------------------------------------------------------------------------------


def test_the_best_of_several_starts_is_kept(rng):
    X = rng.uniform(size=(120, 2))  # many optima
    shared = np.random.RandomState(5)
    settings = {"init_params": "random_from_data", "tol": 1e-8, "max_iter": 5000}
    single = [GaussianMixture(4, random_state=shared, **settings).fit(X) for _ in range(8)]
    together = GaussianMixture(4, random_state=np.random.RandomState(5), n_init=8, **settings).fit(X)
    bounds = [g.lower_bound_ for g in single]
    assert together.lower_bound_ == max(bounds)
    assert_same_bits(together, single[int(np.argmax(bounds))])
    assert len(together.optima_) > 1
    values, counts = zip(*together.optima_, strict=True)
    assert sum(counts) == 8
    assert values[0] == together.lower_bound_
    assert list(values) == sorted(values, reverse=True)
    assert set(values) <= set(bounds)


@pytest.mark.parametrize("kind", TYPES)
def test_warm_start_goes_on(rng, kind):
    X = blobs(rng, 150, 3, 3, 1.0)
    once = run(X, 3, kind, start(X, 3, kind, np.random.default_rng(1)), 12, reg_covar=1e-6)
    g = GaussianMixture(
        3, covariance_type=kind, warm_start=True, tol=0, max_iter=5, **start(X, 3, kind, np.random.default_rng(1))
    )
    with quiet():
        first = g.fit(X).history_
        g.set_params(max_iter=7).fit(X)
    assert np.array_equal(np.concatenate([first[:-1], g.history_]), once.history_)
    for a, b in zip(parameters(g), parameters(once), strict=True):
        assert np.array_equal(a, b)
    g.set_params(weights_init=None, means_init=None, covariances_init=None)
    with pytest.raises(ValueError, match="warm_start needs the number of components"):
        g.set_params(n_components=2).fit(X)
    with pytest.raises(ValueError, match="warm_start needs the number of components and features"):
        g.set_params(n_components=3).fit(X[:, :2])
    with pytest.raises(ValueError, match="warm_start needs the covariance_type"):
        g.set_params(covariance_type="full" if kind != "full" else "diag").fit(X)
    assert np.array_equal(g.means_, once.means_)


@pytest.mark.parametrize("init_params", ["kmeans", "k-means++", "random", "random_from_data"])
@pytest.mark.parametrize("kind", TYPES)
def test_every_start_gives_every_component_weight(rng, init_params, kind):
    for seed in range(5):
        X = np.round(blobs(np.random.default_rng(seed), 30, 2, 3), 0)  # duplicates
        g = fitted(X, 6, kind, seed, init_params=init_params, max_iter=0)
        assert g.n_iter_ == 0
        assert g.weights_.min() > 0
        assert g.weights_.sum() == pytest.approx(1, rel=1e-15)
        assert len(np.unique(g.predict(X))) > 1 or init_params == "random"


def test_starts_with_missing_values_and_weights(rng):
    X = with_holes(rng, blobs(rng, 100, 3, 2, 6.0), 0.1)
    w = np.r_[np.ones(60), np.zeros(40)]
    X[60:] = rng.uniform(1e3, 1e4, (40, 3))  # of no weight, and no influence
    for init_params in ("kmeans", "k-means++", "random_from_data", "random"):
        g = GaussianMixture(2, init_params=init_params, random_state=0).fit(X, sample_weight=w)
        assert np.abs(g.means_).max() < 1e2, init_params
        assert g.history_[-1] == pytest.approx(g.score(X[:60]), rel=1e-11)


@pytest.mark.parametrize("init_params", ["kmeans", "k-means++", "random", "random_from_data"])
@pytest.mark.parametrize("kind", TYPES)
def test_starts_where_many_cells_are_missing(kind, init_params):
    """Clusters must not be those of rows that miss the same columns."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((90, 3)) + 6 * rng.standard_normal((2, 3))[np.arange(90) % 2]
        X = with_holes(rng, X, [0.3, 0.6][seed % 2])
        g = fitted(X, 2, kind, init_params=init_params)
        assert g.stop_reason_ == "converged"
        assert np.isfinite(g.history_).all()


# ---- data that are degenerate ---------------------------------------------------------------------------------------

ILL_DEFINED = re.escape(
    "Fitting the mixture model failed because some components have ill-defined empirical covariance (for instance "
    "caused by singleton or collapsed samples). Try to decrease the number of components, increase reg_covar, or scale "
    "the input data."
)


def degenerate(rng):
    X = rng.standard_normal((60, 3))
    flat = X.copy()
    flat[:, 2] = X[:, 0] - X[:, 1]
    constant = X.copy()
    constant[:, 1] = 0.1
    return {
        "flat": flat,
        "constant": constant,
        "equal": np.full((60, 3), 0.1),
        "few": X[:3],
        "wide": rng.standard_normal((5, 30)),
    }


@pytest.mark.parametrize("K", [1, 2])
@pytest.mark.parametrize("name", ["flat", "constant", "equal", "few", "wide"])
@pytest.mark.parametrize("kind", TYPES)
def test_degenerate_data(rng, kind, name, K):
    """With reg_covar a fit; without, scikit-learn's error, where there is no maximum likelihood estimate."""
    X = degenerate(rng)[name]
    singular = {
        "full": True,
        "tied": True,
        "diag": name in ("constant", "equal") or (K == 2 and name == "few"),
        "spherical": name == "equal",
    }[kind]
    with quiet():
        g = GaussianMixture(K, covariance_type=kind, random_state=0).fit(X)
    assert np.isfinite(g.history_).all()
    assert np.isfinite(g.log_prob(X)).all()
    assert np.isfinite(g.covariances_).all()
    assert np.linalg.eigvalsh(gaussian_oracle.matrices(g.covariances_, kind, K, X.shape[1])).min() > 0.9e-6
    if singular:
        unfit = GaussianMixture(K, covariance_type=kind, reg_covar=0, random_state=0)
        with pytest.raises(CollapsedComponentError, match=ILL_DEFINED), quiet():
            unfit.fit(X)
        assert not [key for key in vars(unfit) if key.endswith("_")]
        with pytest.raises(ValueError), quiet():
            unfit.fit(X + 1e8)
    elif K == 1:
        GaussianMixture(K, covariance_type=kind, reg_covar=0).fit(X)


def collapsing(rng):
    """Five equal rows that one component can have for itself."""
    X = rng.standard_normal((100, 2))
    X[:5] = [4.0, 4.0]
    return X


@pytest.mark.parametrize("kind", ["full", "diag", "spherical"])
def test_a_collapse_in_the_middle_keeps_what_there_is(rng, kind):
    """The start is regular; then a component contracts to a point."""
    X = collapsing(rng)
    first = start(X, 2, kind, rng)
    first["means_init"] = [[4.0, 4.0], [0.0, 0.0]]
    first["covariances_init"] = first["covariances_init"] * 0.1 ** np.arange(2, 0, -1).reshape(
        -1, *[1] * (np.ndim(first["covariances_init"]) - 1)
    )
    g = GaussianMixture(2, covariance_type=kind, reg_covar=0, max_iter=500, tol=0, **first)
    with pytest.warns(ConvergenceWarning, match=ILL_DEFINED):
        g.fit(X)
    assert g.stop_reason_ == "degenerate"
    assert not g.converged_
    assert g.history_[-1] == g.lower_bound_ == pytest.approx(g.score(X), rel=1e-9)
    assert (np.diff(g.history_) > 0).all()
    assert g.n_iter_ == len(g.history_) - 1
    assert np.isfinite(g.covariances_).all()


@pytest.mark.parametrize("kind", TYPES)
def test_floor_keeps_a_component_alive(rng, kind):
    X = collapsing(rng)
    if kind == "tied":
        X[:, 1] = 2 * X[:, 0] + 1  # a shared covariance collapses only with all the data
    floor = 1e-3
    g = GaussianMixture(
        2,
        covariance_type=kind,
        reg_covar=0,
        floor=floor,
        max_iter=1000,
        tol=1e-9,
        means_init=[[4.0, 4.0], [0.0, 0.0]],
        random_state=0,
    )
    with pytest.warns(ConvergenceWarning, match=r"the smallest variance of component .* is held up by floor"):
        g.fit(X)
    assert g.converged_
    assert g.floored_.any()
    assert (np.diff(g.history_) >= -1e-12).all()  # it is the maximum under the constraint
    least = floor * X.var(axis=0)
    for k, S in enumerate(gaussian_oracle.matrices(g.covariances_, kind, 2, 2)):
        if kind == "spherical":
            value = S[0, 0] / least.mean()
        else:
            value = np.linalg.eigvalsh(S / np.sqrt(least[:, None] * least)).min()
        assert value == pytest.approx(1, rel=1e-9) if g.floored_[k] else value > 1
    # Units do not matter to it.
    units = np.array([1e-3, 1e4]) if kind != "spherical" else np.array([1e4, 1e4])
    with quiet():
        h = clone(g).set_params(means_init=np.array([[4.0, 4.0], [0.0, 0.0]]) * units).fit(X * units)
    if kind != "spherical":
        np.testing.assert_allclose(h.means_, g.means_ * units, rtol=1e-5)
    assert h.floored_.tolist() == g.floored_.tolist()


def test_floor_that_holds_nothing_changes_nothing(rng):
    X = blobs(rng, 200, 2, 2, 6.0)
    for kind in TYPES:
        g = GaussianMixture(2, covariance_type=kind, floor=1e-6, random_state=0).fit(X)
        assert_same_bits(g, GaussianMixture(2, covariance_type=kind, random_state=0).fit(X))
        assert g.floored_.tolist() == [False, False]


@pytest.mark.parametrize("missing", [0.0, 0.1])
@pytest.mark.parametrize("kind", TYPES)
def test_an_empty_component_is_seeded_again(rng, kind, missing):
    """A mean so far away that it gets no weight at all."""
    X = np.concatenate([rng.standard_normal((100, 2)), rng.standard_normal((30, 2)) + 8])
    X = with_holes(rng, X, missing)
    X[np.isnan(X).all(axis=1)] = 0  # such rows would follow the component wherever it is
    first = start(X, 2, kind, rng)
    first["covariances_init"] = first["covariances_init"] / np.trace(
        gaussian_oracle.matrices(first["covariances_init"], kind, 2, 2)[0]
    )
    first["means_init"] = [[0.0, 0.0], [1e5, -1e5]]
    settings = {"covariance_type": kind, "tol": 1e-8, "max_iter": 1000} | first
    g = GaussianMixture(2, **settings).fit(X)
    assert g.stop_reason_ == "converged"
    assert np.sort(g.weights_) == pytest.approx([30 / 130, 100 / 130], abs=0.03)
    assert np.linalg.norm(g.means_[1] - 8) < 1
    with pytest.warns(ConvergenceWarning, match=r"component 1 has no weight.*reseed=True"):
        h = GaussianMixture(2, reseed=False, **settings).fit(X)
    assert h.stop_reason_ == "degenerate"
    assert h.n_iter_ == 0
    several = dict(
        settings, means_init=np.r_[first["means_init"], [[1e5, 1e5], [-1e5, -1e5]]], weights_init=np.full(4, 0.25)
    )
    if kind != "tied":
        several["covariances_init"] = np.concatenate([first["covariances_init"]] * 2)
    g = GaussianMixture(4, **several).fit(X)
    assert g.weights_.min() > 0
    assert np.isfinite(g.history_).all()


@pytest.mark.parametrize("kind", TYPES)
def test_reseeding_looks_only_at_rows_that_have_weight(rng, kind):
    X = np.concatenate([rng.standard_normal((100, 2)), rng.standard_normal((30, 2)) + 8, np.full((5, 2), 500.0)])
    w = np.r_[np.ones(130), np.zeros(5)]
    first = start(X[:130], 2, kind, rng) | {"means_init": [[0.0, 0.0], [1e5, -1e5]]}
    g = GaussianMixture(2, covariance_type=kind, tol=1e-8, max_iter=1000, **first).fit(X, sample_weight=w)
    assert np.abs(g.means_).max() < 20


@pytest.mark.parametrize("kind", TYPES)
def test_means_that_start_far_away(rng, kind):
    """1e8 standard deviations: everything goes to one of them, the other is seeded again."""
    X = blobs(rng, 100, 2, 2)
    first = start(X, 2, kind, rng)
    first["means_init"] = [[1e8, 1e8], [1e8, -1e8]]
    g = run(X, 2, kind, first, 300, tol=1e-9)
    assert np.isfinite(g.history_).all()
    assert np.abs(g.means_).max() < 100
    assert g.weights_.min() > 0
    assert g.history_[-1] > fitted(X, 1, kind).lower_bound_ - 1e-3
    one = run(
        X,
        1,
        kind,
        {name: value if kind == "tied" and name == "covariances_init" else value[:1] for name, value in first.items()}
        | {"weights_init": [1.0]},
        1,
    )
    np.testing.assert_allclose(one.means_[0], X.mean(axis=0), rtol=1e-10)
    expected = gaussian_oracle.fit(X, covariance_type=kind)[1]
    np.testing.assert_allclose(np.squeeze(one.covariances_), expected, rtol=1e-9)


@pytest.mark.parametrize("scale", [1e150, 1e-150])
@pytest.mark.parametrize("kind", TYPES)
def test_huge_and_tiny_values(rng, kind, scale):
    scale = 2.0 ** np.round(np.log2(scale))
    X = blobs(rng, 60, 2, 2)
    settings = {"covariance_type": kind, "reg_covar": 0, "init_params": "random", "tol": 1e-4}
    one = GaussianMixture(2, random_state=1, **settings).fit(X)
    other = GaussianMixture(2, random_state=1, **settings).fit(X * scale)
    np.testing.assert_allclose(other.means_ / scale, one.means_, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(other.covariances_ / scale / scale, one.covariances_, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(other.history_ + 2 * np.log(scale), one.history_, rtol=1e-9)
    with pytest.raises(ValueError, match=r"overflow|scale"), np.errstate(all="ignore"):
        GaussianMixture(2, random_state=1, **settings).fit(X * 2.0**520)


def test_as_many_components_as_rows(rng):
    X = rng.standard_normal((12, 2))
    for kind in TYPES:
        g = fitted(X, 12, kind)
        assert sorted(g.predict(X)) == list(range(12)) or kind == "tied"
        assert np.isfinite(g.history_).all()


@pytest.mark.parametrize("kind", TYPES)
def test_many_components(rng, kind):
    X = rng.standard_normal((1000, 2))
    g = fitted(X, 200, kind, init_params="k-means++", max_iter=5)
    assert g.means_.shape == (200, 2)
    assert g.predict_proba(X).sum(axis=1) == pytest.approx(np.ones(1000), rel=1e-12)
    assert g.history_[-1] > g.history_[0]


# ---- one fit, told and interrupted ----------------------------------------------------------------------------------


def test_what_a_fit_says(rng):
    X = blobs(rng)
    g = GaussianMixture(3, random_state=0).fit(X)
    assert g.stop_reason_ == "converged"
    assert g.converged_ is True
    assert len(g.history_) == g.n_iter_ + 1
    assert g.lower_bounds_ == g.history_[1:].tolist()
    assert abs(g.history_[-2] - g.history_[-3]) < 1e-3 <= abs(g.history_[-3] - g.history_[-4])
    with pytest.warns(ConvergenceWarning, match="Best performing initialization did not converge"):
        h = GaussianMixture(3, random_state=0, max_iter=2, tol=0).fit(X)
    assert h.stop_reason_ == "max_iter"
    assert h.converged_ is False
    assert np.array_equal(h.history_, g.history_[:3])
    zero = GaussianMixture(3, random_state=0, max_iter=0).fit(X)  # no warning
    assert zero.n_iter_ == 0
    assert np.array_equal(zero.history_, g.history_[:1])
    assert zero.converged_ is False


def interrupting(monkeypatch, at):
    """Ctrl-C in the E-step that has this number, from 1 on."""
    e_step, calls = families.Gaussian.e_step, []

    def interrupted(self, *args, **kwargs):
        calls.append(self)
        if len(calls) == at:
            raise KeyboardInterrupt
        return e_step(self, *args, **kwargs)

    monkeypatch.setattr(families.Gaussian, "e_step", interrupted)
    return calls


def test_an_interrupt_keeps_the_parameters(rng, monkeypatch):
    X = blobs(rng)
    two = fitted(X, max_iter=1)
    calls = interrupting(monkeypatch, 3)
    g = GaussianMixture(3, random_state=0, n_init=5, tol=0)
    with pytest.warns(ConvergenceWarning, match="interrupted after 1 iterations"):
        g.fit(X)
    assert len(calls) == 3  # and no other start
    assert g.stop_reason_ == "interrupted"
    assert not g.converged_
    assert_same_bits(g, two)


def test_an_interrupt_of_a_later_start_keeps_the_best(rng, monkeypatch):
    X = blobs(rng)
    first = fitted(X, tol=1e-7, max_iter=1000)
    interrupting(monkeypatch, first.n_iter_ + 1 + 2)
    g = GaussianMixture(3, random_state=0, n_init=5, tol=1e-7, max_iter=1000)
    with quiet():
        g.fit(X)
    assert_same_bits(g, first)
    assert sum(count for _, count in g.optima_) == 2


def test_an_interrupt_before_there_is_anything_leaves_no_trace(rng, monkeypatch):
    X = blobs(rng)
    interrupting(monkeypatch, 1)
    g = GaussianMixture(3, random_state=0)
    with pytest.raises(KeyboardInterrupt):
        g.fit(X)
    assert not [key for key in vars(g) if key.endswith("_")]


def test_ctrl_c_in_a_long_fit(python):
    """A signal, as a terminal sends it, in the middle of kernels on several threads."""
    done = python(
        """
import os, signal, threading, time, warnings
import numpy as np
from fastgen import GaussianMixture
warnings.simplefilter("ignore")
X = np.random.default_rng(0).standard_normal((300_000, 16))
first = dict(weights_init=np.full(16, 1 / 16), means_init=X[:16], covariances_init=np.stack([np.eye(16)] * 16))
g = GaussianMixture(16, tol=0, max_iter=10**6, **first)
sent = []
def send():
    sent.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)
threading.Timer(1.0, send).start()
g.fit(X)
print(time.monotonic() - sent[0], g.stop_reason_, g.n_iter_, len(g.history_) - 1, np.isfinite(g.means_).all())
"""
    )
    seconds, reason, n_iter, history, finite = done.stdout.split()
    assert float(seconds) < 2
    assert reason == "interrupted"
    assert int(n_iter) == int(history) > 0
    assert finite == "True"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"X": np.full((50, 3), inf)}, ValueError),
        ({"X": np.ones((1, 3))}, ValueError),
        ({"X": np.ones((50, 3)), "reg_covar": 0}, CollapsedComponentError),
        ({"X": np.ones(3)}, ValueError),
        ({"X": [["a", "b"]] * 5}, ValueError),
        ({"X": iter([1])}, TypeError),
        ({"tol": -1}, ValueError),
        ({"weights": [1.0]}, ValueError),
        ({"means_init": [[0.0, 0.0, 0.0]]}, ValueError),
    ],
)
def test_a_failed_fit_leaves_no_trace(rng, change, error):
    X = blobs(rng, 50)
    g = GaussianMixture(2, random_state=0).fit(pd.DataFrame(X, columns=list("abc")))
    fresh = GaussianMixture(2, random_state=0)
    settings = {key: value for key, value in change.items() if key not in ("X", "weights")}
    before = dict(vars(g)) | settings
    for model in (g, fresh):
        model.set_params(**settings)
        with pytest.raises(error), quiet():
            model.fit(change.get("X", X), sample_weight=change.get("weights"))
    assert vars(g).keys() == before.keys()
    assert all(vars(g)[key] is before[key] for key in before)
    assert not [key for key in vars(fresh) if key.endswith("_")]
    with pytest.raises(NotFittedError):
        fresh.predict(X)


def test_progress_is_logged(rng, caplog):
    X = blobs(rng)
    with caplog.at_level(logging.INFO, "fastgen"):
        fitted(X, 3, verbose=0)
        assert not caplog.records
        g = fitted(X, 3, verbose=1, verbose_interval=2, n_init=2, tol=1e-6)
        text = caplog.text
        assert "start 1 of 2" in text
        assert "start 2 of 2" in text
        assert "iteration 2: objective" in text
        assert "iteration 3" not in text
        assert f"converged after {g.n_iter_} iterations" in text
        caplog.clear()
        fitted(X, 3, verbose=2, verbose_interval=1)
        assert "iteration 1:" in caplog.text
        assert "gain" in caplog.text
    assert {record.name for record in caplog.records} == {"fastgen"}


def test_progress_is_seen_without_any_configuration(python):
    code = """
import numpy as np
from fastgen import GaussianMixture
X = np.arange(40.0).reshape(20, 2) % 7
for verbose in (0, 1):
    GaussianMixture(2, verbose=verbose, verbose_interval=1, random_state=0).fit(X)
    print("silent before" if not verbose else "end")
"""
    out = python(code).stdout
    assert out.startswith("silent before")
    assert "iteration 1: objective" in out


# ---- parameters, attributes, copies ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_components": 0}, "n_components must be an integer of at least 1"),
        ({"n_components": 2.0}, "n_components must be an integer"),
        ({"n_components": 51}, "Expected n_samples >= n_components but got n_components = 51, n_samples = 50"),
        ({"covariance_type": "banana"}, "covariance_type must be one of"),
        ({"tol": -1e-9}, "tol must be"),
        ({"tol": nan}, "tol must be"),
        ({"reg_covar": -1}, "reg_covar must be"),
        ({"max_iter": -1}, "max_iter must be"),
        ({"n_init": 0}, "n_init must be"),
        ({"init_params": "bad"}, "init_params must be one of"),
        ({"verbose_interval": 0}, "verbose_interval must be"),
        ({"floor": -1.0}, "floor must be"),
        ({"weights_init": [0.5, 0.6]}, "The parameter 'weights' should be normalized"),
        ({"weights_init": [1.5, -0.5]}, r"The parameter 'weights' should be in the range \[0, 1\]"),
        ({"weights_init": [1.0]}, r"The parameter 'weights' should have the shape of \(2,\), but got \(1,\)"),
        ({"weights_init": [nan, 1.0]}, "finite"),
        ({"means_init": [[0.0], [1.0]]}, r"The parameter 'means' should have the shape of \(2, 3\), but got \(2, 1\)"),
        ({"means_init": [[0.0, 0.0, nan], [1.0, 1.0, 1.0]]}, "finite"),
        ({"precisions_init": np.eye(3)}, r"The parameter 'full precision' should have the shape of \(2, 3, 3\)"),
        ({"precisions_init": -np.stack([np.eye(3)] * 2)}, "'full precision' should be symmetric, positive-definite"),
        ({"precisions_init": [[1.0, 0, 1.0]] * 2, "covariance_type": "diag"}, "'diag precision' should be positive"),
        ({"covariances_init": np.eye(3)}, r"should have the shape of \(2, 3, 3\)"),
        ({"covariances_init": -np.eye(3), "covariance_type": "tied"}, "not positive definite|ill-defined"),
        ({"covariances_init": [1.0, 1.0], "precisions_init": [1.0, 1.0], "covariance_type": "spherical"}, "not both"),
    ],
)
def test_wrong_parameters(rng, parameters, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(**{"n_components": 2, "random_state": 0} | parameters).fit(blobs(rng, 50))


@pytest.mark.parametrize("weights", [[1.0], np.ones((50, 2)), [-1.0] + [1.0] * 49, [nan] + [1.0] * 49, np.zeros(50)])
def test_wrong_weights(rng, weights):
    with pytest.raises(ValueError, match="sample_weight"):
        GaussianMixture(2).fit(blobs(rng, 50), sample_weight=weights)


@pytest.mark.parametrize("init_params", ["kmeans", "k-means++", "random", "random_from_data"])
def test_fewer_rows_with_weight_than_components(rng, init_params):
    X, w = blobs(rng, 50), np.zeros(50)
    w[[3, 9]] = 1
    with pytest.raises(ValueError, match="Expected n_samples >= n_components but got n_components = 4, n_samples = 2"):
        GaussianMixture(4, init_params=init_params).fit(X, sample_weight=w)
    w[[5, 8, 40]] = 1
    assert np.isfinite(fitted_with(X, 4, w, init_params=init_params).history_).all()


def fitted_with(X, K, sample_weight, **settings):
    with quiet():
        return GaussianMixture(K, random_state=0, **settings).fit(X, sample_weight=sample_weight)


def test_infinity_is_named(rng):
    X = blobs(rng, 50)
    g = fitted(X)
    X[17, 2] = -inf
    X[30, 0] = nan
    message = r"Input X contains infinity \(at row 17, column 2\)"
    first = start(np.zeros((9, 3)) + rng.standard_normal((9, 3)), 3, "full", rng)
    for call in (
        GaussianMixture(3).fit,
        GaussianMixture(3, **first).fit,
        g.predict,
        g.log_prob,
        g.predict_proba,
        g.impute,
        g.partial_fit,
    ):
        with pytest.raises(ValueError, match=message):
            call(X)


@pytest.mark.parametrize("kind", TYPES)
def test_parameters_set_by_hand_are_used(rng, kind):
    X = blobs(rng, 60, 2, 2)
    g = fitted(X, 2, kind)
    g.weights_, g.means_ = np.array([0.9, 0.1]), np.array(g.means_[::-1])
    np.testing.assert_allclose(g.log_prob(X), oracle.log_prob(X, *theta(g)), rtol=1e-9)
    factors = np.array(g.precisions_cholesky_) * 2
    g.precisions_cholesky_ = factors
    quarter = (0.9, 0.1), g.means_, g.covariances_ / 4, kind
    np.testing.assert_allclose(g.predict_proba(X), oracle.posterior(X, *quarter), rtol=0, atol=1e-9)
    np.testing.assert_allclose(g.family_.covariances, g.covariances_ / 4, rtol=1e-10)
    fresh = GaussianMixture(2, covariance_type=kind)
    fresh.weights_, fresh.means_, fresh.precisions_cholesky_ = g.weights_, g.means_, factors
    theirs = sklearn.mixture.GaussianMixture(2, covariance_type=kind)
    theirs.weights_, theirs.means_, theirs.precisions_cholesky_ = g.weights_, g.means_, factors
    np.testing.assert_allclose(fresh.score_samples(X), theirs.score_samples(X), rtol=1e-9)
    assert np.array_equal(fresh.predict(X), theirs.predict(X))
    with pytest.raises(ValueError, match="read-only"):  # it would not be seen
        fresh.means_[0] = 0.0
    X_new, _ = fresh.sample(10, random_state=0)
    assert X_new.shape == (10, 2)
    fresh.weights_ = np.ones(3) / 3
    with pytest.raises(ValueError, match="weights_"):
        fresh.predict(X)
    fresh.weights_, fresh.means_ = g.weights_, np.zeros((2, 3)) if kind != "spherical" else np.zeros((3, 2))
    with pytest.raises(ValueError, match="precisions_cholesky_"):
        fresh.predict(np.zeros((1, 3)))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda g: pickle.loads(pickle.dumps(g)), copy.copy, lambda g: g])
@pytest.mark.parametrize("kind", TYPES)
def test_attributes_are_constant_and_copies_are_equal(rng, kind, copied):
    X = with_holes(rng, blobs(rng, 80, 3, 2), 0.1)
    original = fitted(X, 2, kind)
    g = copied(original)
    assert_same_bits(g, original)
    assert np.array_equal(g.log_prob(X), original.log_prob(X))
    assert repr(g) == repr(original)
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(g, name)[..., 0] = 1.0
    other = copy.deepcopy(original)
    assert_same_bits(g.partial_fit(X), other.partial_fit(X))
    bare = clone(g)
    assert not hasattr(bare, "means_")
    assert bare.get_params() == original.get_params()


def test_not_fitted():
    g = GaussianMixture()
    for call in (g.predict, g.log_prob, g.predict_proba, g.impute, g.score, g.aic, g.bic, g.icl):
        with pytest.raises(NotFittedError):
            call(np.zeros((2, 2)))
    for call in (
        g.sample,
        lambda: g.marginal([0]),
        lambda: g.condition({0: 1.0}),
        lambda: g.predict_given([[0.0]], [0]),
    ):
        with pytest.raises(NotFittedError):
            call()


def test_inputs_are_not_changed(rng):
    X = with_holes(rng, blobs(rng, 80), 0.1)
    for order in "CF":
        data = np.array(X, order=order)
        data.flags.writeable = False
        w = np.ones(80)
        w.flags.writeable = False
        first = start(X, 2, "full", rng)
        kept = {name: np.array(value) for name, value in first.items()}
        for value in first.values():
            value.flags.writeable = False
        g = run(data, 2, "full", first, 3, w)
        assert all(np.array_equal(getattr(g, name), kept[name]) for name in kept)
        assert g.means_init is first["means_init"]
        for call in (g.predict, g.predict_proba, g.log_prob, g.impute, g.partial_fit):
            call(data)
        assert np.array_equal(data, X, equal_nan=True)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames_and_feature_names(rng, library):
    X = blobs(rng, 60, 3, 2)
    names = ["a", "b", "c"]
    frame = pd.DataFrame(X, columns=names) if library == "pandas" else pl.DataFrame(X, schema=names)
    g, plain = fitted(frame, 2), fitted(X, 2)
    assert_same_bits(g, plain)
    assert g.feature_names_in_.tolist() == names
    assert np.array_equal(g.predict(frame), plain.predict(X))
    m = g.marginal(["c", "a"])
    assert m.feature_names_in_.tolist() == ["c", "a"]
    assert np.array_equal(m.log_prob(frame[["c", "a"]]), plain.marginal([2, 0]).log_prob(X[:, [2, 0]]))
    c = g.condition({"b": 0.25})
    assert c.feature_names_in_.tolist() == ["a", "c"]
    assert np.array_equal(c.means_, plain.condition({1: 0.25}).means_)
    assert np.array_equal(g.predict_given(X[:, [2, 0]], ["c", "a"]), plain.predict_given(X[:, [2, 0]], [2, 0]))
    with pytest.raises(ValueError, match=r"there is no feature 'd'"):
        g.marginal(["d"])
    with pytest.raises(ValueError, match="feature names should match"):
        g.log_prob(frame[["b", "a", "c"]])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        g.log_prob(X)
    assert not hasattr(g.fit(X), "feature_names_in_")


def test_pipeline_and_grid_search(rng):
    X = blobs(rng, 150, 2, 3)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), GaussianMixture(random_state=0)),
        {"gaussianmixture__n_components": [1, 2, 3], "gaussianmixture__covariance_type": TYPES},
        error_score="raise",
    )
    with quiet():
        search.fit(X)
    assert search.best_params_["gaussianmixture__n_components"] > 1
    assert search.predict(X).shape == (150,)
    assert search.score(X) == pytest.approx(search.best_estimator_.score(X), rel=1e-13)


# ---- what a fitted mixture can tell ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TYPES)
def test_criteria(rng, kind):
    X = blobs(rng, 90, 3, 2, 1.5)
    g = fitted(X, 2, kind)
    free = 1 + 2 * 3 + {"full": 2 * 6, "tied": 6, "diag": 2 * 3, "spherical": 2}[kind]
    log_likelihood = oracle.log_prob(X, *theta(g)).sum()
    assert g.aic(X) == pytest.approx(-2 * log_likelihood + 2 * free, rel=1e-11)
    assert g.bic(X) == pytest.approx(-2 * log_likelihood + np.log(90) * free, rel=1e-11)
    completed = oracle.joint(X, *theta(g)).max(axis=1).sum()  # log p(x, most probable z)
    assert g.icl(X) == pytest.approx(-2 * completed + np.log(90) * free, rel=1e-11)
    assert g.icl(X) > g.bic(X)
    w = rng.uniform(size=90)
    assert g.score(X, sample_weight=w) == pytest.approx(np.average(g.log_prob(X), weights=w), rel=1e-13)


@pytest.mark.parametrize("kind", TYPES)
def test_samples_have_the_moments_of_the_mixture(rng, kind):
    g = fitted(blobs(rng, 200, 2, 3), 3, kind)
    X, y = g.sample(200_000, random_state=3)
    assert (np.diff(y) >= 0).all()
    sigma = gaussian_oracle.matrices(g.covariances_, kind, 3, 2)
    mean, covariance = oracle.moments(g.weights_, g.means_, sigma)
    sd = np.sqrt(covariance.diagonal())
    np.testing.assert_allclose(X.mean(axis=0), mean, rtol=0, atol=5 * sd.max() / np.sqrt(2e5))
    np.testing.assert_allclose(np.cov(X.T), covariance, rtol=0, atol=0.02 * covariance.max())
    np.testing.assert_allclose(np.bincount(y) / 2e5, g.weights_, rtol=0, atol=5 * 0.5 / np.sqrt(2e5))
    for k in range(3):
        np.testing.assert_allclose(np.cov(X[y == k].T), sigma[k], rtol=0, atol=0.04 * sigma[k].max())
    for state in (3, np.random.default_rng(3)):
        assert np.array_equal(g.sample(5, random_state=state)[0], g.sample(5, random_state=3)[0])
    assert np.array_equal(g.sample(5)[0], g.sample(5)[0])  # the estimator's own seed
    for n in (0, -1, 1.5):
        with pytest.raises(ValueError, match="Invalid value for 'n_samples'"):
            g.sample(n)


@pytest.mark.parametrize("kind", TYPES)
def test_marginal(rng, kind):
    X = blobs(rng, 60, 4, 2)
    g = fitted(X, 2, kind)
    masked = X.copy()
    masked[:, [0, 2]] = nan
    for columns in ([3, 1], [-1, 1]):
        np.testing.assert_allclose(
            g.marginal(columns).log_prob(X[:, [3, 1]]), oracle.log_prob(masked, *theta(g)), rtol=1e-10
        )
    m = g.marginal(slice(1, None, 2))
    assert np.array_equal(m.means_, g.means_[:, 1::2])
    assert np.array_equal(g.marginal([False, True, False, True]).means_, m.means_)
    assert m.n_features_in_ == 2
    assert m.covariance_type == kind
    for bad in ([], [4], [0, 0], [True], ["a"]):
        with pytest.raises(ValueError, match=r"column|mask|feature|distinct"):
            g.marginal(bad)


@pytest.mark.parametrize("given", [[0], [2], [0, 2], [3, 1, 0]])
@pytest.mark.parametrize("kind", TYPES)
def test_condition_by_the_book(rng, kind, given):
    X = blobs(rng, 100, 4, 3, 1.0)
    g = fitted(X, 3, kind)
    x = np.full(4, nan)
    x[given] = X[0, given] + 0.3
    weights, means, covariances = oracle.condition(*theta(g), x)
    c = g.condition({column: x[column] for column in given})
    np.testing.assert_allclose(c.weights_, weights, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(c.means_, means, rtol=1e-9, atol=1e-10)
    d = 4 - len(given)
    np.testing.assert_allclose(gaussian_oracle.matrices(c.covariances_, kind, 3, d), covariances, rtol=1e-8, atol=1e-10)
    assert c.n_features_in_ == d
    # Bayes' rule: p(rest | given) = p(all) / p(given)
    rest = np.setdiff1d(np.arange(4), given)
    full = np.tile(x, (20, 1))
    full[:, rest] = X[:20, rest]
    expected = oracle.log_prob(full, *theta(g)) - oracle.log_prob(x[None], *theta(g))
    np.testing.assert_allclose(c.log_prob(X[:20, rest]), expected, rtol=1e-8)
    # Regression: its mean and covariance.
    mean, covariance = g.predict_given(np.tile(x[given], (3, 1)), given, return_covariance=True)
    want_mean, want_covariance = oracle.moments(weights, means, covariances)
    np.testing.assert_allclose(mean, np.tile(want_mean, (3, 1)), rtol=1e-9)
    np.testing.assert_allclose(covariance, np.tile(want_covariance, (3, 1, 1)), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(g.predict_given(np.tile(x[given], (3, 1)), given), mean, rtol=1e-14)
    # Imputation fills in the same.
    holes = np.tile(x, (3, 1))
    np.testing.assert_allclose(g.impute(holes)[:, rest], mean, rtol=1e-9)
    assert np.array_equal(g.impute(holes)[:, given], holes[:, given])


@pytest.mark.parametrize("kind", TYPES)
def test_regression_by_numerical_integration(rng, kind):
    g = fitted(blobs(rng, 100, 2, 3, 1.0), 3, kind)
    for x0 in (-1.0, 0.5, 4.0):
        at = np.linspace(-60, 60, 24_001)  # the rectangle rule is exact to rounding for Gaussians
        p = np.exp(oracle_density_on_a_line(g, x0, at))
        mean = (p * at).sum() / p.sum()
        variance = (p * (at - mean) ** 2).sum() / p.sum()
        got, covariance = g.predict_given([[x0]], [0], return_covariance=True)
        assert got[0, 0] == pytest.approx(mean, rel=1e-9)
        assert covariance[0, 0, 0] == pytest.approx(variance, rel=1e-9)
        conditional = g.condition({0: x0})
        assert np.exp(conditional.log_prob(at[:, None])).sum() * (at[1] - at[0]) == pytest.approx(1, rel=1e-9)


def oracle_density_on_a_line(g, x0, at):
    """log p(x0, x1) on a grid of x1, by two-dimensional densities."""
    sigma = gaussian_oracle.matrices(g.covariances_, g.covariance_type, len(g.weights_), 2)
    X = np.column_stack([np.full(len(at), x0), at])
    joint = []
    for w, m, S in zip(g.weights_, g.means_, sigma, strict=True):
        z = X - m
        joint.append(
            np.log(w) - 0.5 * ((z @ np.linalg.inv(S)) * z).sum(axis=1) - 0.5 * np.log(np.linalg.det(2 * np.pi * S))
        )
    return np.logaddexp.reduce(joint)


def test_conditions_that_cannot_be(rng):
    X = blobs(rng, 60)
    g = fitted(X)
    for values, message in (
        ({}, None),
        ({0: 1.0, 1: 1.0, 2: 1.0}, "at least one must not be given"),
        ({0: nan}, "finite"),
        ({0: inf}, "finite"),
        ({5: 0.0}, "no column 5"),
        ({0: 1e200}, "density 0 under every component"),
    ):
        if message is None:
            assert np.array_equal(g.condition(values).means_, g.means_)
            continue
        with pytest.raises(ValueError, match=message):
            g.condition(values)
    for X_given, columns, message in (
        ([[1.0, 2.0]], [0], r"X must have shape \(n, 1\)"),
        ([1.0], [0], "X must have shape"),
        ([[nan]], [0], "finite"),
        ([[1.0, 1.0, 1.0]], [0, 1, 2], "at least one must not"),
        (np.zeros((2, 0)), [], "at least one column must be given"),
    ):
        with pytest.raises(ValueError, match=message):
            g.predict_given(X_given, columns)


@pytest.mark.parametrize("kind", TYPES)
def test_impute_by_the_book(rng, kind):
    X = with_holes(rng, blobs(rng, 60, 3, 2), 0.4)
    X[7] = nan
    g = fitted(X, 2, kind)
    filled = g.impute(X)
    for x, row in zip(X, filled, strict=True):
        if np.isnan(x).any():
            mean, _ = oracle.moments(*oracle.condition(*theta(g), x))
            np.testing.assert_allclose(row[np.isnan(x)], mean, rtol=1e-8, atol=1e-10)
        assert np.array_equal(row[~np.isnan(x)], x[~np.isnan(x)])
    assert g.impute(X.astype(np.float32)).dtype == np.float32
    assert np.isnan(X).any()
    with pytest.raises(ValueError, match="method must be one of"):
        g.impute(X, "median")


def test_imputed_draws_have_the_conditional_moments(rng):
    g = fitted(blobs(rng, 200, 3, 3, 1.5))
    x = np.array([nan, 0.5, nan])
    mean, covariance = oracle.moments(*oracle.condition(*theta(g), x))
    draws = g.impute(np.tile(x, (100_000, 1)), "sample", random_state=1)[:, [0, 2]]
    np.testing.assert_allclose(draws.mean(axis=0), mean, rtol=0, atol=5 * np.sqrt(covariance.max() / 1e5))
    np.testing.assert_allclose(np.cov(draws.T), covariance, rtol=0, atol=0.03 * covariance.max())


# ---- online ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("kind", TYPES)
def test_a_step_of_size_one_is_a_step_of_em(rng, kind, missing):
    X = with_holes(rng, blobs(rng, 200, 3, 2, 1.5), missing)
    w = rng.uniform(size=200)
    first = start(X, 2, kind, rng)
    g = run(X, 2, kind, first, 1, reg_covar=1e-6)
    other = X[rng.permutation(200)[:120]]
    expected = run(other, 2, kind, dict(zip(first, parameters(g), strict=True)), 1, w[:120], reg_covar=1e-6)
    before = g.score(other, sample_weight=w[:120])
    g.partial_fit(other, sample_weight=w[:120], step_size=1)
    for a, b in zip(parameters(g), parameters(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)
    assert g.lower_bound_ == pytest.approx(before, rel=1e-11)
    assert g.stop_reason_ == "partial_fit"


@pytest.mark.parametrize("kind", TYPES)
def test_a_stream_comes_near_the_optimum(kind):
    rng = np.random.default_rng(8)
    truth = fitted(blobs(rng, 300, 2, 3, 4.0), 3, kind)
    test, _ = truth.sample(20_000, random_state=1)
    data = rng.permutation(truth.sample(50_000, random_state=2)[0])
    batch = fitted(data, 3, kind, tol=1e-6, max_iter=500)
    g = GaussianMixture(3, covariance_type=kind, random_state=0)
    for i, block in enumerate(np.split(data, 100)):
        g.partial_fit(block)
        assert g.n_steps_ == i
        if i == 0:
            early = g.score(test)
    assert len(g.history_) == 99
    assert batch.score(test) - g.score(test) < 2e-3
    assert g.score(test) > early


def test_step_sizes_and_weights_of_a_stream(rng):
    """Weights count within a block; blocks by their step size, (t + 1) ** -0.6 unless another is given."""
    X = blobs(rng, 300, 2, 2)
    first, second, third = np.split(X, 3)
    counts = rng.integers(1, 4, 100)
    g = GaussianMixture(2, random_state=0).partial_fit(first)
    start = copy.deepcopy(g)
    g.partial_fit(second).partial_fit(third)
    by_hand = copy.deepcopy(start).partial_fit(second, step_size=2**-0.6).partial_fit(third, step_size=3**-0.6)
    assert_same_bits(g, by_hand)
    weighted = copy.deepcopy(start).partial_fit(second, sample_weight=counts)
    repeated = copy.deepcopy(start).partial_fit(np.repeat(second, counts, axis=0))
    heavy = copy.deepcopy(start).partial_fit(second, sample_weight=counts * 50.0)
    for other in (repeated, heavy):
        for a, b in zip(parameters(weighted), parameters(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11)
    small = copy.deepcopy(start).partial_fit(second, step_size=1e-12)
    np.testing.assert_allclose(small.means_, start.means_, rtol=1e-2)
    for step_size in (0, -1, 1.5, nan, "a"):
        with pytest.raises(ValueError, match="step_size must be"):
            g.partial_fit(second, step_size=step_size)
    with pytest.raises(ValueError, match="2 features"):
        g.partial_fit(np.ones((5, 3)))
    before = dict(vars(g))
    with pytest.raises(ValueError, match="infinity"):
        g.partial_fit(np.full((5, 2), inf))
    assert vars(g) == before


# ---- memory, other families -----------------------------------------------------------------------------------------


def test_memory_of_a_fit(rng):
    """Nothing of size n x K (20 MB), nor copies of X (6.4 MB), but for what the start needs."""
    X = blobs(rng, 200_000, 4, 4)
    first = start(X, 13, "full", rng)
    run(X[:200], 13, "full", first, 2)
    for data in (X, np.asfortranarray(X), X.astype(np.float32)):
        tracemalloc.start()
        run(data, 13, "full", first, 2)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 1e6


@pytest.mark.parametrize("kind", TYPES)
def test_mixture_of_the_gaussian_family(rng, kind):
    X = blobs(rng, 150, 3, 2, 1.5)
    g = GaussianMixture(2, covariance_type=kind, reg_covar=0, tol=1e-6, max_iter=1000, random_state=0).fit(X)
    m = Mixture(families.Gaussian(kind), 2, random_state=0).fit(X)
    assert np.array_equal(m.history_, g.history_)
    assert np.array_equal(m.family_.means, g.means_)
    assert np.array_equal(m.predict_proba(X), g.predict_proba(X))
    assert m.bic(X) == g.bic(X)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", TYPES)
def test_without_the_fused_step(rng, kind, weighted, monkeypatch):
    """Through log-densities, responsibilities and statistics, as other families go."""
    X = blobs(rng, 150, 3, 2, 1.5)
    w = rng.uniform(size=150) if weighted else None
    monkeypatch.setattr("fastgen._mixture_em._ROWS", 64)
    settings = {"tol": 1e-9, "random_state": 0}
    fused = Mixture(families.Gaussian(kind), 2, **settings).fit(X, sample_weight=w)
    for name in ("e_step", "prepare", "mixture_log_prob", "mixture_posterior", "mixture_predict"):
        monkeypatch.delattr(families.Gaussian, name)
    plain = Mixture(families.Gaussian(kind), 2, **settings).fit(X, sample_weight=w)
    assert plain.n_iter_ == fused.n_iter_
    np.testing.assert_allclose(plain.history_, fused.history_, rtol=1e-10)
    np.testing.assert_allclose(plain.family_.means, fused.family_.means, rtol=1e-8)
    proba = plain.predict_proba(X)
    monkeypatch.undo()
    np.testing.assert_allclose(proba, fused.predict_proba(X), rtol=0, atol=1e-8)
