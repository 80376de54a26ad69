"""Multinomial emissions: against SciPy, as a family, and in mixtures."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import multinomial

from fastgen import GenerativeClassifier, Mixture, errors, families
from fastgen.families import Multinomial

P = np.array([[0.2, 0.3, 0.5], [0.6, 0.1, 0.3]])


def data(n=200, seed=0, trials=20):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    return rng.multinomial(rng.integers(0, trials, n), P[labels]).astype(float), labels


def scipys(X, p):
    return np.stack([multinomial.logpmf(X, X.sum(axis=1), row) for row in p], axis=1)


def test_log_density_is_scipys():
    X, _ = data()
    family = Multinomial(probabilities=P)
    assert isinstance(family, families.Family)
    assert_allclose(family.log_density(X), scipys(X, P), rtol=1e-11, atol=1e-12)
    assert_allclose(family.log_density(X.astype(np.float32)), scipys(X, P), rtol=1e-6)
    assert family.log_density(X.astype(np.float32)).dtype == np.float32
    out = np.empty((len(X), 2))
    assert family.log_density(X.astype(int), out=out) is out
    assert_allclose(np.exp(family.log_density([[0, 0, 0]])), 1)


def test_probabilities_add_up_to_one():
    X = np.array([[i, j, 6 - i - j] for i in range(7) for j in range(7 - i)])
    assert_allclose(np.exp(Multinomial(probabilities=P).log_density(X)).sum(axis=0), 1, rtol=1e-13)


@given(st.lists(st.integers(0, 10**6), min_size=3, max_size=3))
def test_large_counts(counts):
    X = np.array([counts])
    assert_allclose(Multinomial(probabilities=P).log_density(X), scipys(X, P), rtol=1e-9, atol=1e-7)


def test_zero_probabilities():
    family = Multinomial(probabilities=[[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
    with np.errstate(all="raise"):
        found = family.log_density([[0, 3, 0], [1, 0, 1], [1, 3, 0], [0, 0, 0]])
    assert_allclose(found, [[0, -np.inf], [-np.inf, np.log(0.5)], [-np.inf, -np.inf], [0, 0]])


def test_fit():
    X, _ = data()
    w = np.random.default_rng(1).random((len(X), 2))
    family = Multinomial().maximise(Multinomial().statistics(X, w))
    total = w.T @ X
    assert_allclose(family.probabilities, total / total.sum(axis=1, keepdims=True), rtol=1e-13)
    smooth = Multinomial(2.0)
    smooth = smooth.maximise(smooth.statistics(X, w))
    assert_allclose(smooth.probabilities, (total + 2) / (total + 2).sum(axis=1, keepdims=True), rtol=1e-13)
    assert smooth.penalty(None) == pytest.approx(2 * np.log(smooth.probabilities).sum())
    assert family.penalty(None) == 0
    assert family.n_parameters == 4
    assert (family.n_components, family.n_features) == (2, 3)
    assert family.parameters.keys() == {"probabilities"}


def test_statistics_merge():
    X, _ = data()
    w = np.random.default_rng(1).random((len(X), 2))
    empty = Multinomial()
    whole = empty.statistics(X, w)
    parts = empty.statistics(X[:70], w[:70]) + empty.statistics(X[70:], w[70:])
    assert_allclose(parts.total, whole.total, rtol=1e-13)
    assert_allclose(parts.weight, whole.weight, rtol=1e-13)
    assert_allclose((whole * 2.0).total, 2 * whole.total)
    stacked = type(whole).stack([empty.statistics(X, w[:, k]) for k in range(2)])
    assert_allclose(stacked.total, whole.total, rtol=1e-13)
    one = empty.statistics(X)
    assert_allclose(one.total, [X.sum(axis=0)])
    assert whole.complete


def test_the_same_bits_for_any_number_of_threads():
    X, _ = data(20_000)
    family = Multinomial(probabilities=P)
    w = np.random.default_rng(1).random((len(X), 2))
    for n_threads in (2, 3):
        assert_array_equal(family.log_density(X, n_threads=n_threads), family.log_density(X, n_threads=1))
        assert_array_equal(
            family.statistics(X, w, n_threads=n_threads).total, family.statistics(X, w, n_threads=1).total
        )


def test_refused():
    family = Multinomial(probabilities=P)
    for use in (family.log_density, family.statistics, Multinomial().statistics):
        with pytest.raises(ValueError, match=r"NaN at row 1, column 2.*number of trials"):
            use([[1, 2, 3], [1, 2, np.nan]])
        with pytest.raises(ValueError, match="infinity"):
            use([[1, 2, np.inf]])
        for wrong in (-1.0, 0.5):
            with pytest.raises(ValueError, match=r"row 0, column 1: counts of outcomes"):
                use([[1, wrong, 2]])
    with pytest.raises(ValueError, match="features"):
        family.log_density([[1, 2]])
    with pytest.raises(ValueError, match="add up to 1"):
        Multinomial(probabilities=[[0.5, 0.4]])
    with pytest.raises(ValueError, match="shape"):
        Multinomial(probabilities=[0.5, 0.5])
    for settings in ({"pseudo_count": -1}, {"n_trials": -1}, {"n_trials": 2.5}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            Multinomial(**settings)
    with pytest.raises(TypeError, match="MultinomialStatistics"):
        family.maximise(families.Poisson().statistics([[1.0]]))


def test_nothing_is_known_about_a_component():
    empty = Multinomial()
    with pytest.raises(errors.EmptyComponentError, match="no weight"):
        empty.maximise(empty.statistics([[1, 2]], [[1.0, 0.0]]))
    with pytest.raises(errors.EmptyComponentError, match="all its counts are 0"):
        empty.maximise(empty.statistics([[1, 2], [0, 0]], np.eye(2)))
    smooth = Multinomial(1.0)
    assert_allclose(smooth.maximise(smooth.statistics([[0, 0]])).probabilities, [[0.5, 0.5]])


def test_sample():
    family = Multinomial(n_trials=50, probabilities=P)
    components = np.arange(4000) % 2
    X = family.sample(components, np.random.default_rng(0))
    assert X.dtype == np.float64
    assert_array_equal(X.sum(axis=1), 50)
    for k in range(2):
        assert_allclose(X[components == k].mean(axis=0) / 50, P[k], atol=0.01)
    with pytest.raises(ValueError, match="n_trials"):
        Multinomial(probabilities=P).sample(components, np.random.default_rng(0))


def test_parts_of_the_family():
    family = Multinomial(0.5, 7, probabilities=P)
    chosen = family.select([1])
    assert_array_equal(chosen.probabilities, P[1:])
    assert (chosen.pseudo_count, chosen.n_trials) == (0.5, 7)
    for part in (lambda: family.marginal([0]), lambda: family.condition({0: 1.0})):
        with pytest.raises(NotImplementedError, match="number of trials"):
            part()
    X = np.ones((2, 3))
    assert_array_equal(family.impute(X, np.full((2, 2), 0.5)), X)
    with pytest.raises(ValueError, match="number of trials"):
        family.impute(np.array([[1.0, np.nan, 2.0]]), np.full((1, 2), 0.5))


def test_a_value():
    family = Multinomial(0.5, 7, probabilities=P)
    again = pickle.loads(pickle.dumps(family))
    assert_array_equal(again.probabilities, P)
    assert repr(again) == repr(family) == "families.Multinomial(pseudo_count=0.5, n_trials=7, 2 components, 3 features)"
    assert repr(Multinomial()) == "families.Multinomial(pseudo_count=0)"
    with pytest.raises(ValueError, match="read-only"):
        again.probabilities[0, 0] = 1
    with pytest.raises(AttributeError, match="no parameters"):
        Multinomial().probabilities  # noqa: B018


def test_mixture():
    X, labels = data(2000, trials=40)
    model = Mixture(Multinomial(), 2, random_state=0, n_init=3).fit(X)
    assert np.diff(model.history_).min() > -1e-12
    found = model.family_.probabilities
    order = np.argsort(found[:, 0])
    assert_allclose(found[order], P, atol=0.03)
    assert (model.predict(X) == order[labels]).mean() > 0.85


def test_classifier():
    X, labels = data(1000, trials=40)
    model = GenerativeClassifier(Mixture(Multinomial(), 1)).fit(X, labels)
    assert model.score(X, labels) > 0.85


def test_one_trial_is_categorical():
    codes = np.random.default_rng(0).integers(0, 3, 30)
    one_hot = np.eye(3)[codes]
    categorical = families.Categorical(probabilities=P[:, None])
    assert_allclose(
        Multinomial(probabilities=P).log_density(one_hot), categorical.log_density(codes[:, None]), rtol=1e-14
    )
