"""Poisson, Bernoulli and Categorical, whose columns are independent, and products of families."""

import copy
import pickle
import textwrap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import discrete as oracle
from oracle import gaussian as gaussian_oracle
from scipy import stats

from fastgen.errors import ComponentError, EmptyComponentError, UnobservedColumnError
from fastgen.families import Bernoulli, Categorical, Family, Gaussian, Poisson, Product
from fastgen.families.product import ProductStatistics

nan, inf = np.nan, np.inf
NAMES = ("Poisson", "Bernoulli", "Categorical")
SIZES = [4, 2, 3, 6]
"""Categories of the columns; repeated for more columns."""


def sizes_of(d):
    return [SIZES[j % len(SIZES)] for j in range(d)]


def empty(name, d=4, pseudo_count=0.0):
    if name == "Categorical":
        return Categorical(sizes_of(d), pseudo_count)
    return Bernoulli(pseudo_count) if name == "Bernoulli" else Poisson()


def parameters(rng, name, K=3, d=4):
    if name == "Poisson":
        return rng.uniform(0.5, 20, (K, d))
    if name == "Bernoulli":
        return rng.uniform(0.05, 0.95, (K, d))
    sizes = sizes_of(d)
    p = np.zeros((K, d, max(sizes)))
    for j, size in enumerate(sizes):
        p[:, j, :size] = rng.dirichlet(np.ones(size), K)
    return p


def build(name, array, pseudo_count=0.0):
    if name == "Poisson":
        return Poisson(rates=array)
    if name == "Bernoulli":
        return Bernoulli(pseudo_count, probabilities=array)
    return Categorical(sizes_of(array.shape[1]), pseudo_count, probabilities=array)


def data(rng, name, n=60, d=4, missing=0.0):
    if name == "Poisson":
        X = rng.poisson(6, (n, d)).astype(float)
    elif name == "Bernoulli":
        X = rng.integers(0, 2, (n, d)).astype(float)
    else:
        X = rng.integers(0, sizes_of(d), (n, d)).astype(float)
    X[rng.random((n, d)) < missing] = nan
    return X


def arrays_of(value, name=""):
    """All arrays in statistics or families, by name; but for what they derive from their parameters."""
    if isinstance(value, np.ndarray):
        return {name: value}
    if isinstance(value, (tuple, list)):
        return {key: array for i, v in enumerate(value) for key, array in arrays_of(v, f"{name}{i}").items()}
    if hasattr(value, "__dict__"):
        return {
            key: array
            for n, v in vars(value).items()
            if n != "_prepared"
            for key, array in arrays_of(v, f"{name}.{n}").items()
        }
    return {}


def assert_same_bits(one, other):
    mine, others = arrays_of(one), arrays_of(other)
    assert type(one) is type(other)
    assert mine.keys() == others.keys()
    for key, array in mine.items():
        assert np.array_equal(array, others[key], equal_nan=True), key


def assert_close(one, other, rtol=1e-12):
    mine, others = arrays_of(one), arrays_of(other)
    assert mine.keys() == others.keys()
    for key, array in mine.items():
        if key.endswith("mean_rest"):  # of the order of rounding
            continue
        atol = rtol * np.abs(array).max() if key.endswith(("scatter", "covariances")) else 1e-13
        np.testing.assert_allclose(array, others[key], rtol=rtol, atol=atol, err_msg=key)


def mixed():
    return Product([(Gaussian("full"), [4, 0]), (Poisson(), [1, 3]), (Categorical(4, 0.5), [2])])


def mixed_data(rng, n=80, missing=0.0):
    X = np.column_stack(
        [
            rng.standard_normal(n),
            rng.poisson(4, n),
            rng.integers(0, 4, n),
            rng.poisson(40, n),
            1e3 + rng.standard_normal(n),
        ]
    )
    X[rng.random(X.shape) < missing] = nan
    return X


def mixed_fit(rng, K=3):
    X = mixed_data(rng)
    return mixed().maximise(mixed().statistics(X, rng.uniform(0.1, 1, (len(X), K))))


def any_family(rng, name, K=3, d=4):
    return mixed_fit(rng, K) if name == "Product" else build(name, parameters(rng, name, K, d))


def any_data(rng, name, n=60, missing=0.0):
    return mixed_data(rng, n, missing) if name == "Product" else data(rng, name, n, missing=missing)


def any_empty(name):
    return mixed() if name == "Product" else empty(name)


ALL = (*NAMES, "Product")


@pytest.mark.parametrize("name", ALL)
def test_is_a_family(rng, name):
    family = any_family(rng, name)
    assert isinstance(family, Family)
    assert family.n_components == 3
    assert family.n_features == (5 if name == "Product" else 4)


# ---- log-densities -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 5, 17])
@pytest.mark.parametrize("K", [1, 2, 5])
@pytest.mark.parametrize("name", NAMES)
def test_log_density_against_textbook(rng, name, K, d):
    array = parameters(rng, name, K, d)
    for missing in (0.0, 0.3):
        X = data(rng, name, 23, d, missing)
        got = build(name, array).log_density(X)
        np.testing.assert_allclose(got, oracle.log_density(X, array, name), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [1, 4095, 4096, 4097, 9000])
@pytest.mark.parametrize("name", NAMES)
def test_log_density_against_scipy(rng, name, n):
    X, array = data(rng, name, n), parameters(rng, name, 2)
    if name == "Poisson":
        cells = stats.poisson.logpmf(X[:, None], array)
    elif name == "Bernoulli":
        cells = stats.bernoulli.logpmf(X[:, None].astype(int), array)
    else:
        columns = np.arange(4)
        cells = np.stack([np.log(p[columns, X.astype(int)]) for p in array], axis=1)
    np.testing.assert_allclose(build(name, array).log_density(X), cells.sum(axis=2), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_probabilities_add_up_to_1(rng, name):
    family = build(name, parameters(rng, name, 3, 1))
    values = np.arange(200.0 if name == "Poisson" else 2 if name == "Bernoulli" else SIZES[0])[:, None]
    np.testing.assert_allclose(np.exp(family.log_density(values)).sum(axis=0), 1, rtol=1e-12)


def test_what_has_no_probability_is_minus_infinity():
    poisson = Poisson(rates=[[0.0, 2.0], [3.0, 0.0], [0.0, 0.0]])
    X = [[0.0, 1.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0], [nan, 1.0], [1.0, nan], [nan, nan]]
    np.testing.assert_allclose(
        poisson.log_density(X), oracle.log_density(np.array(X), poisson.rates, "Poisson"), rtol=1e-14, atol=1e-14
    )
    assert poisson.log_density([[0.0, 0.0]])[0, 2] == 0
    bernoulli = Bernoulli(probabilities=[[0.0, 1.0], [1.0, 0.25], [0.5, 0.0]])
    np.testing.assert_allclose(
        bernoulli.log_density(X), oracle.log_density(X, bernoulli.probabilities, "Bernoulli"), rtol=1e-14, atol=1e-14
    )
    assert bernoulli.log_density([[0.0, 1.0]])[0].tolist() == [0, -inf, -inf]
    categorical = Categorical([2, 3], probabilities=[[[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]])
    got = categorical.log_density([[0, 0], [0, 1], [1, 1], [2, 1], [0, 3], [nan, 1e300], [7, nan], [nan, nan]])
    assert got[:, 0].tolist() == [-inf, np.log(0.5), -inf, -inf, -inf, -inf, -inf, 0]


def test_padding_is_not_a_category_of_another_column():
    """A code beyond its own column's categories must not read the next column's table."""
    p = [[[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]]
    family = Categorical([2, 3], probabilities=p)
    assert family.log_density([[2.0, 0.0]])[0, 0] == -inf
    assert family.log_density([[3.0, nan]])[0, 0] == -inf


@pytest.mark.parametrize("scale", [70.0, 1e3, 1e5, 1e8, 1e12])
@pytest.mark.parametrize("spread", [0.0, 1e-4, 0.5])
def test_large_counts_do_not_lose_digits(rng, scale, spread):
    """The terms x log(rate), rate and log x! are of the size of the counts, the sum is of size 10 for likely counts."""
    rates = np.floor(scale * np.array([[1.0], [1 + spread]]))
    X = np.floor(rates.ravel()[rng.integers(2, size=20)] + np.sqrt(scale) * rng.uniform(-3, 3, 20))[:, None]
    X[0] = nan
    expected = oracle.log_density(X, rates, "Poisson")
    # Rounding of x - c and of log(rate / c), each relative: the way between the rates is the largest term.
    atol = 1e-15 * (scale * spread + 30 * np.sqrt(scale)) + 1e-13
    np.testing.assert_allclose(Poisson(rates=rates).log_density(X), expected, rtol=1e-12, atol=atol)


def test_small_and_large_rates_side_by_side(rng):
    """Columns that are centred and columns that are not; zeros, the ends of the tables."""
    rates = np.array([[0.1, 100.0, 3e3, 0.0, 2000.0], [1e6, 150.0, 1e-3, 5.0, 2100.0]])
    values = [0, 1, 15, 16, 17, 100, 255, 1023, 1024, 1025, 1e6]
    X = rng.choice(values, (60, 5))
    X[rng.random(X.shape) < 0.2] = nan
    expected = oracle.log_density(X, rates, "Poisson")
    np.testing.assert_allclose(Poisson(rates=rates).log_density(X), expected, rtol=1e-12)
    for k in range(2):
        np.testing.assert_allclose(Poisson(rates=rates[[k]]).log_density(X), expected[:, [k]], rtol=1e-12, atol=1e-11)


def test_counts_that_overflow_have_no_probability_instead_of_nan():
    X = [[1e308, 1.0], [1e300, 1e308], [1e308, nan]]
    for rates in ([[1.0, 1.0], [1e-300, 5.0]], [[1e300, 100.0], [1.2e300, 110.0]], [[0.0, 1e308], [0.0, 1e308]]):
        got = Poisson(rates=rates).log_density(X)
        assert not np.isnan(got).any()
        assert (got < -1e290).all()


def test_extreme_probabilities():
    p = np.array([[1e-300, 1 - 2.0**-53, 5e-324]])
    X = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, 0.0, nan]])
    expected = oracle.log_density(X, p, "Bernoulli")
    np.testing.assert_allclose(Bernoulli(probabilities=p).log_density(X), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", ALL)
def test_log_density_into_out(rng, name):
    family, X = any_family(rng, name), any_data(rng, name, 30, 0.1)
    expected = family.log_density(X)
    out = np.empty((30, 3))
    assert family.log_density(X, out=out) is out
    assert np.array_equal(out, expected)
    wide = np.empty((60, 6))
    family.log_density(X, out=wide[::2, ::2])
    assert np.array_equal(wide[::2, ::2], expected)
    single = X.astype(np.float32)
    exact = family.log_density(single.astype(np.float64))
    assert family.log_density(single).dtype == np.float32
    assert np.array_equal(family.log_density(single), exact.astype(np.float32))  # rounded once
    assert np.array_equal(family.log_density(single, out=out), exact)
    for wrong in (np.empty((30, 2)), np.empty((30, 3), np.float32), [[0.0]]):
        with pytest.raises(ValueError, match="out must be"):
            family.log_density(X, out=wrong)
    with pytest.raises(ValueError, match="overlap"):
        family.log_density(X, out=X[:, :3])


@pytest.mark.parametrize("K", [1, 2, 3, 8, 17])
@pytest.mark.parametrize("name", ALL)
def test_a_result_depends_on_its_row_alone(rng, name, K):
    """To the bit: not on where the row stands, nor on whether others miss values."""
    family, X = any_family(rng, name, K), any_data(rng, name, 5003, 0.05)
    if name == "Poisson":  # one column that is centred, one with counts beyond the table
        more = np.array([0, 1e3, 0, 0])
        family = Poisson(rates=family.rates + more)
        X += more
        X[::50, 2] = 1e5
    whole = family.log_density(X)
    order = rng.permutation(len(X))
    assert np.array_equal(family.log_density(X[order]), whole[order])
    for i in range(0, len(X), 311):
        assert np.array_equal(family.log_density(X[i : i + 1])[0], whole[i])
    complete = ~np.isnan(X).any(axis=1)
    assert np.array_equal(family.log_density(X[complete]), whole[complete])


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 40), d=st.integers(1, 6), K=st.integers(1, 4))
def test_permuted_columns_and_components(name, seed, n, d, K):
    rng = np.random.default_rng(seed)
    array, X = parameters(rng, name, K, d), data(rng, name, n, d, 0.2)
    family = build(name, array)
    columns, components = rng.permutation(d), rng.permutation(K)
    permuted = family.marginal(columns).select(components)
    expected = family.log_density(X)[:, components]
    np.testing.assert_allclose(permuted.log_density(X[:, columns]), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(permuted.log_density(X[:, columns]), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ALL)
@given(seed=st.integers(0, 10**6))
def test_missing_cells_leave_the_marginal(name, seed):
    rng = np.random.default_rng(seed)
    family, X = any_family(rng, name), any_data(rng, name, 12)
    keep = np.flatnonzero(rng.random(X.shape[1]) < 0.6)
    if not len(keep):
        keep = np.array([1])
    only = np.full_like(X, nan)
    only[:, keep] = X[:, keep]
    order = rng.permutation(keep)
    marginal = family.marginal(order)
    assert marginal.n_features == len(keep)
    np.testing.assert_allclose(marginal.log_density(X[:, order]), family.log_density(only), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ALL)
def test_rows_without_any_value_have_density_1(rng, name):
    family = any_family(rng, name)
    assert np.array_equal(family.log_density(np.full((3, family.n_features), nan)), np.zeros((3, 3)))


# ---- statistics and the estimate ---------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("pseudo_count", [0.0, 0.7])
@pytest.mark.parametrize("name", NAMES)
def test_fit_against_textbook(rng, name, pseudo_count, missing):
    X = data(rng, name, 150, missing=missing)
    X[3] = nan
    for weights in (None, rng.uniform(0, 2, 150), rng.uniform(0, 2, (150, 3)), rng.uniform(0, 2, (150, 1))):
        family = empty(name, pseudo_count=pseudo_count)
        fitted = family.maximise(family.statistics(X, weights))
        (got,) = fitted.parameters.values()
        used = 0.0 if name == "Poisson" else pseudo_count
        np.testing.assert_allclose(got, oracle.fit(X, weights, name, SIZES, used), rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_statistics_count_what_is_observed(rng, name):
    X, weights = data(rng, name, 40, missing=0.3), rng.uniform(size=(40, 2))
    X[5] = nan
    statistics = empty(name).statistics(X, weights)
    assert statistics.complete
    np.testing.assert_allclose(statistics.weight, weights.sum(axis=0), rtol=1e-13)
    np.testing.assert_allclose(statistics.count, weights.T @ ~np.isnan(X), rtol=1e-13)


@pytest.mark.parametrize("name", ALL)
def test_no_weights_are_ones(rng, name):
    X = any_data(rng, name, 50)
    family = any_empty(name)
    plain = family.statistics(X)
    assert_close(family.statistics(X, np.ones(50)), plain)
    assert_close(family.statistics(X, np.ones((50, 1))), plain)
    assert_close(
        any_family(rng, name).statistics(X, np.ones(50)), plain
    )  # (n,) is one component, with K parameters too


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 60))
def test_weights_are_repetitions_and_order_does_not_matter(name, seed, n):
    rng = np.random.default_rng(seed)
    X, counts = data(rng, name, n, missing=0.2), rng.integers(0, 4, n)
    counts[0] = 2
    family = empty(name)
    repeated = np.repeat(X, counts, axis=0)
    statistics = family.statistics(X, counts)
    assert_same_bits(family.statistics(repeated), statistics)  # whole numbers: exact
    assert_same_bits(family.statistics(rng.permutation(repeated)), statistics)
    weights = rng.uniform(size=n)
    order = rng.permutation(n)
    assert_close(family.statistics(X[order], weights[order]), family.statistics(X, weights))


@pytest.mark.parametrize("name", ALL)
def test_weights_of_2_are_rows_twice(rng, name):
    X = any_data(rng, name, 70)
    family = any_empty(name)
    twice = family.maximise(family.statistics(np.repeat(X, 2, axis=0)))
    assert_close(family.maximise(family.statistics(X, np.full(70, 2.0))), twice, 1e-11)


@pytest.mark.parametrize("name", ALL)
@given(seed=st.integers(0, 10**6), cut=st.integers(1, 49))
def test_blocks_merge_to_the_whole(name, seed, cut):
    rng = np.random.default_rng(seed)
    X, weights = any_data(rng, name, 50), rng.uniform(0.1, 1, (50, 2))
    family = any_empty(name)
    whole = family.statistics(X, weights)
    one, other = (family.statistics(X[part], weights[part]) for part in (slice(cut), slice(cut, None)))
    kept = pickle.loads(pickle.dumps((one, other)))
    assert_close(one + other, whole, 1e-10)
    assert_close(other + one, whole, 1e-10)
    assert_same_bits((one, other), kept)


@pytest.mark.parametrize("name", ALL)
def test_stack_is_components_side_by_side(rng, name):
    X, weights = any_data(rng, name, 50), rng.uniform(0.1, 1, (50, 3))
    family = any_empty(name)
    whole = family.statistics(X, weights)
    parts = [family.statistics(X, weights[:, k]) for k in range(3)]
    assert_close(type(whole).stack(parts), whole)


@pytest.mark.parametrize("name", ALL)
def test_multiplied_statistics_are_those_of_multiplied_weights(rng, name):
    X, weights = any_data(rng, name, 50), rng.uniform(0.1, 1, (50, 3))
    family = any_empty(name)
    assert_close(family.statistics(X, weights) * 0.25, family.statistics(X, 0.25 * weights))


@pytest.mark.parametrize("name", NAMES)
def test_structural_zeros_and_ones_are_exact(rng, name):
    """Whatever the weights: what was never seen has probability 0, to the bit."""
    X, weights = data(rng, name, 5000), rng.uniform(size=(5000, 3))
    X[:, 0], X[:, 1] = 0, 1
    (got,) = empty(name).maximise(empty(name).statistics(X, weights)).parameters.values()
    if name == "Categorical":
        assert (got[:, 0] == [1, 0, 0, 0, 0, 0]).all()
        assert (got[:, 1] == [0, 1, 0, 0, 0, 0]).all()
        assert (got[:, 2, 3:] == 0).all()
    else:
        assert (got[:, 0] == 0).all()
        np.testing.assert_allclose(got[:, 1], 1, rtol=0, atol=1e-14 if name == "Poisson" else 0)


@pytest.mark.parametrize("pseudo_count", [0.0, 0.4])
@pytest.mark.parametrize("name", NAMES)
def test_the_estimate_beats_its_neighbours(rng, name, pseudo_count):
    X, weights = data(rng, name, 80, missing=0.2), rng.uniform(size=(80, 2))
    family = empty(name, pseudo_count=pseudo_count)
    statistics = family.statistics(X, weights)
    best = family.maximise(statistics)
    (array,) = best.parameters.values()

    def objective(candidate):
        return (weights * candidate.log_density(X)).sum() + candidate.penalty(statistics)

    top = objective(best)
    for _ in range(40):
        near = array * np.exp(1e-3 * rng.standard_normal(array.shape))
        if name == "Categorical":
            near /= near.sum(axis=2, keepdims=True)
        assert objective(build(name, near, pseudo_count)) < top


def test_penalty_by_the_book(rng):
    """Logarithm of the Beta(1 + a, 1 + a) and Dirichlet(1 + a) densities, but for their constants."""
    p = parameters(rng, "Bernoulli", 2)
    expected = stats.beta.logpdf(p, 1.3, 1.3).sum() - 8 * stats.beta.logpdf(0.5, 1.3, 1.3) + 8 * 0.6 * np.log(0.5)
    assert build("Bernoulli", p, 0.3).penalty(None) == pytest.approx(expected, rel=1e-12)
    p = parameters(rng, "Categorical", 2)
    expected = sum(0.3 * np.log(p[k, j, :size]).sum() for k in range(2) for j, size in enumerate(SIZES))
    assert build("Categorical", p, 0.3).penalty(None) == pytest.approx(expected, rel=1e-12)
    for name in NAMES:
        assert build(name, parameters(rng, name)).penalty(None) == 0
    assert Bernoulli(1, probabilities=[[0.0, 0.5]]).penalty(None) == -inf
    assert Bernoulli(1, probabilities=[[1.0, 0.5]]).penalty(None) == -inf
    assert Categorical(pseudo_count=1, probabilities=[[[0.0, 1.0]]]).penalty(None) == -inf


def test_categories_are_inferred_and_grow():
    family = Categorical()
    small, large = family.statistics([[0.0, 2.0], [1.0, nan]]), family.statistics([[4.0, 0.0], [0.0, 0.0]])
    assert small.n_categories.tolist() == [2, 3]
    assert large.n_categories.tolist() == [5, 1]
    merged = small + large
    assert merged.n_categories.tolist() == [5, 3]
    assert_same_bits(merged, family.statistics([[0.0, 2.0], [1.0, nan], [4.0, 0.0], [0.0, 0.0]]))
    stacked = type(small).stack([small, large])
    assert stacked.counts.shape == (2, 2, 5)
    fitted = family.maximise(merged)
    assert fitted.sizes.tolist() == [5, 3]
    assert fitted.n_parameters == 4 + 2
    np.testing.assert_array_equal(fitted.probabilities[0], [[0.5, 0.25, 0, 0, 0.25], [2 / 3, 0, 1 / 3, 0, 0]])
    # What the family knows already stays a category, so that EM on blocks keeps its shapes.
    assert fitted.statistics([[0.0, 0.0]]).n_categories.tolist() == [5, 3]
    assert fitted.statistics([[6.0, 0.0]]).n_categories.tolist() == [7, 3]


def test_pseudo_counts_go_to_the_own_categories_of_a_column():
    family = Categorical([2, 4], 1.0)
    got = family.maximise(family.statistics([[0.0, 3.0]])).probabilities[0]
    np.testing.assert_allclose(got, [[2 / 3, 1 / 3, 0, 0], [0.2, 0.2, 0.2, 0.4]], rtol=1e-15)


def test_number_of_parameters(rng):
    assert build("Poisson", parameters(rng, "Poisson")).n_parameters == 12
    assert build("Bernoulli", parameters(rng, "Bernoulli")).n_parameters == 12
    assert build("Categorical", parameters(rng, "Categorical")).n_parameters == 3 * (3 + 1 + 2 + 5)
    # Gaussian: 2 means, 3 covariances; 2 rates; 3 free probabilities
    assert mixed_fit(rng).n_parameters == 3 * (2 + 3 + 2 + 3)


@pytest.mark.parametrize("missing", [0.0, 0.1])
@pytest.mark.parametrize("name", ALL)
def test_threads_change_no_bit(rng, name, missing):
    family = any_family(rng, name)
    X, weights = any_data(rng, name, 40_000, missing), rng.uniform(size=(40_000, 3))
    densities = family.log_density(X, n_threads=1)
    statistics = [family.statistics(X, w, n_threads=1) for w in (weights, weights[:, 0])]
    for n_threads in (2, 7):
        assert np.array_equal(family.log_density(X, n_threads=n_threads), densities)
        for w, expected in zip((weights, weights[:, 0]), statistics, strict=True):
            assert_same_bits(family.statistics(X, w, n_threads=n_threads), expected)
    with pytest.raises(ValueError, match="n_threads must be"):
        family.log_density(X, n_threads=0)


@pytest.mark.parametrize("name", ALL)
def test_layouts_give_the_same_bits(rng, name):
    family, X = any_family(rng, name), any_data(rng, name, 300)
    n, d = X.shape
    weights = rng.uniform(size=(n, 3))
    wide = np.zeros((2 * n, 2 * d))
    wide[::2, ::2] = X
    frozen, frozen_weights = X.copy(), weights.copy()
    frozen.flags.writeable = frozen_weights.flags.writeable = False
    densities, statistics = family.log_density(X), family.statistics(X, weights)
    layouts = (np.asfortranarray(X), wide[::2, ::2], X[::-1].copy()[::-1], frozen, X.astype(">f8"), X.tolist())
    for layout in layouts:
        assert np.array_equal(family.log_density(layout), densities)
        for w in (weights, np.asfortranarray(weights), frozen_weights, weights[::-1].copy()[::-1], weights.tolist()):
            # Gaussians read rows in place; matrix products may differ by the last bit.
            assert_close(family.statistics(layout, w), statistics)
    assert np.array_equal(frozen, X)
    if name != "Product":
        assert_same_bits(family.statistics(X.astype(np.float32), weights), statistics)  # small integers: exact
        assert_same_bits(family.statistics(X.astype(np.int64), weights), statistics)
    single = weights.astype(np.float32)
    assert_close(family.statistics(X, single), family.statistics(X, single.astype(np.float64)))


# ---- samples and imputation --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_samples_recover_the_parameters(rng, name):
    """False alarms: some 50 numbers beyond 6 standard errors, about 1e-7 in all; the seed is fixed."""
    array = parameters(rng, name, 2)
    family = build(name, array)
    components = rng.integers(2, size=40_000)
    X = family.sample(components, rng)
    assert X.dtype == np.float64
    fitted = empty(name).maximise(empty(name).statistics(X, np.eye(2)[components]))
    (got,) = fitted.parameters.values()
    n = np.bincount(components).reshape((2,) + (1,) * (array.ndim - 1))
    variance = array if name == "Poisson" else array * (1 - array)
    assert (np.abs(got - array) <= 6 * np.sqrt(variance / n)).all()  # and 0 where it is 0
    again = family.sample(components[:9], np.random.default_rng(3))
    assert np.array_equal(again, family.sample(components[:9], np.random.default_rng(3)))
    assert family.sample(np.array([], np.intp), rng).shape == (0, 4)


def test_samples_never_have_probability_0(rng):
    p = np.array([[[0.0, 0.5, 0.0, 0.5, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0]]])
    X = Categorical(probabilities=p).sample(np.zeros(5000, np.intp), rng)
    assert set(X[:, 0]) == {1.0, 3.0}
    assert set(X[:, 1]) == {2.0}
    X = Bernoulli(probabilities=[[0.0, 1.0]]).sample(np.zeros(5000, np.intp), rng)
    assert (X == [0, 1]).all()
    assert not Poisson(rates=[[0.0]]).sample(np.zeros(100, np.intp), rng).any()


def test_impute_the_mean_or_the_most_probable(rng):
    posterior = np.array([[0.25, 0.75], [1.0, 0.0]])
    poisson = Poisson(rates=[[4.0, 1.0], [8.0, 3.0]])
    X = np.array([[nan, 5.0], [nan, nan]])
    np.testing.assert_allclose(poisson.impute(X, posterior), [[7.0, 5.0], [4.0, 1.0]])
    bernoulli = Bernoulli(probabilities=[[0.9, 0.5], [0.3, 0.5]])
    np.testing.assert_array_equal(bernoulli.impute(X, posterior), [[0, 5.0], [1, 0]])  # .45; .9 and a tie
    p = [[[0.6, 0.4, 0.0], [0.4, 0.4, 0.2]], [[0.1, 0.2, 0.7], [0.1, 0.1, 0.8]]]
    categorical = Categorical(probabilities=p)
    np.testing.assert_array_equal(categorical.impute(X, posterior), [[2, 5.0], [0, 0]])  # .225 .25 .525; .6; a tie
    assert np.isnan(X).sum() == 3  # X is what it was


@pytest.mark.parametrize("name", ALL)
def test_impute_keeps_what_is_observed(rng, name):
    family, X = any_family(rng, name), any_data(rng, name, 60, 0.3)
    posterior = rng.dirichlet(np.ones(3), 60)
    for kind in (np.float64, np.float32):
        given_X = X.astype(kind)
        for generator in (None, rng):
            filled = family.impute(given_X, posterior, generator)
            assert filled.dtype == kind
            assert not np.isnan(filled).any()
            assert np.array_equal(filled[~np.isnan(given_X)], given_X[~np.isnan(given_X)])
            if generator is not None:  # a mean is no count
                assert not np.isnan(family.log_density(filled)).any()
    with pytest.raises(ValueError, match="3 components need a posterior"):
        family.impute(X)
    assert not np.isnan(family.select([1]).impute(X)).any()


@pytest.mark.parametrize("name", NAMES)
def test_draws_come_from_the_components_of_the_posterior(rng, name):
    array = parameters(rng, name, 2)
    family = build(name, array)
    n = 30_000
    X = np.full((n, 4), nan)
    drawn = family.impute(X, np.tile([0.3, 0.7], (n, 1)), rng)
    (got,) = empty(name).maximise(empty(name).statistics(drawn)).parameters.values()
    mixture = 0.3 * array[0] + 0.7 * array[1]
    if name == "Poisson":
        variance = mixture + 0.21 * (array[0] - array[1]) ** 2
    else:
        variance = mixture * (1 - mixture)
    assert (np.abs(got[0] - mixture) <= 6 * np.sqrt(variance / n)).all()


# ---- parameters --------------------------------------------------------------------------------------------------


def test_without_parameters():
    assert repr(Poisson()) == "families.Poisson()"
    assert repr(Bernoulli(0.5)) == "families.Bernoulli(pseudo_count=0.5)"
    assert repr(Categorical([2, 3], 1)) == "families.Categorical(n_categories=[2, 3], pseudo_count=1)"
    for family in (Poisson(), Bernoulli(), Categorical()):
        for attribute in ("n_components", "n_parameters", "parameters", "n_features"):
            with pytest.raises(AttributeError, match="no parameters yet"):
                getattr(family, attribute)
        with pytest.raises(AttributeError, match="no parameters yet"):
            family.log_density([[0.0]])


def test_repr_with_parameters(rng):
    assert repr(Poisson(rates=[[1.0, 2.0]])) == "families.Poisson(1 components, 2 features)"
    family = build("Bernoulli", parameters(rng, "Bernoulli"), 0.25)
    assert repr(family) == "families.Bernoulli(pseudo_count=0.25, 3 components, 4 features)"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Poisson(rates=[1.0]), r"rates must have shape \(K, d\)"),
        (lambda: Poisson(rates=[[-1e-9]]), "rates must not be negative"),
        (lambda: Poisson(rates=[[nan]]), "rates must be finite"),
        (lambda: Poisson(rates=[[inf]]), "rates must be finite"),
        (lambda: Poisson(rates=np.ones((0, 3))), "rates must have shape"),
        (lambda: Bernoulli(-1), "pseudo_count must be a finite number"),
        (lambda: Bernoulli(nan), "pseudo_count must be a finite number"),
        (lambda: Bernoulli(probabilities=[[1.1]]), "probabilities must be between 0 and 1"),
        (lambda: Bernoulli(probabilities=[[-0.1]]), "probabilities must be between 0 and 1"),
        (lambda: Categorical(0), "n_categories must be an integer"),
        (lambda: Categorical([2, 2.5]), "n_categories must be an integer"),
        (lambda: Categorical([]), "n_categories must list"),
        (lambda: Categorical(pseudo_count=inf), "pseudo_count must be a finite number"),
        (lambda: Categorical(probabilities=[[0.5, 0.5]]), r"probabilities must have shape \(K, d, C\)"),
        (lambda: Categorical(probabilities=[[[0.5, 0.4]]]), "probabilities must add up to 1"),
        (lambda: Categorical(probabilities=[[[1.5, -0.5]]]), "probabilities must be between 0 and 1"),
        (lambda: Categorical(3, probabilities=[[[0.5, 0.5]]]), "probabilities must have 3 categories"),
        (lambda: Categorical([1, 2], probabilities=[[[0.5, 0.5], [0.5, 0.5]]]), "probabilities must be 0 beyond"),
        (lambda: Categorical([2, 2], probabilities=[[[0.5, 0.5]]]), "n_categories lists 2 columns, but there are 1"),
        (lambda: Categorical([2, 2]).statistics([[0.0]]), "n_categories lists 2 columns, but there are 1"),
    ],
)
def test_wrong_parameters(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", ALL)
def test_a_family_is_a_value(rng, name):
    family, X = any_family(rng, name), any_data(rng, name, 20)
    before = family.log_density(X)
    for array in arrays_of(family).values():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    for same in (pickle.loads(pickle.dumps(family)), copy.deepcopy(family), copy.copy(family)):
        assert np.array_equal(same.log_density(X), before)
        assert repr(same) == repr(family)
        for array in arrays_of(same).values():
            assert not array.flags.writeable
    if name != "Product":
        array = parameters(rng, name)
        kept = array.copy()
        other = build(name, array)
        array += 1
        (got,) = other.parameters.values()
        assert np.array_equal(got, kept)


@pytest.mark.parametrize("name", ALL)
def test_fitting_keeps_the_options_and_the_old_family(rng, name):
    family, X = any_family(rng, name), any_data(rng, name, 50)
    before = pickle.dumps(family.parameters)
    again = family.maximise(family.statistics(X))
    assert pickle.dumps(family.parameters) == before
    assert again.n_components == 1
    if name == "Categorical":
        assert again.n_categories == tuple(SIZES)
        assert family.marginal([3, 0]).n_categories == (6, 4)
        assert family.marginal([1, 2]).probabilities.shape == (3, 2, 3)


@pytest.mark.parametrize("name", ALL)
def test_select_and_condition(rng, name):
    family, X = any_family(rng, name), any_data(rng, name, 15)
    np.testing.assert_allclose(
        family.select([2, 0]).log_density(X), family.log_density(X)[:, [2, 0]], rtol=1e-12, atol=1e-12
    )
    # p(x) = p(x_1, x_3) p(rest | x_1, x_3)
    rest = [0, 2, 4] if name == "Product" else [0, 2]
    for x in X:
        conditional = family.condition({3: x[3], 1: x[1]})
        parts = conditional.log_density(x[None, rest]) + family.marginal([1, 3]).log_density(x[None, [1, 3]])
        np.testing.assert_allclose(parts, family.log_density(x[None]), rtol=1e-11, atol=1e-11)
    for wrong in ([3], [-1], [0.5]):
        with pytest.raises(ValueError, match="components must be"):
            family.select(wrong)
    with pytest.raises(ValueError, match="columns must be"):
        family.marginal([7])


# ---- errors ------------------------------------------------------------------------------------------------------

ILLEGAL = [
    ("Poisson", -1.0, "Poisson counts are 0, 1, 2"),
    ("Poisson", 2.5, "Poisson counts are 0, 1, 2"),
    ("Bernoulli", 0.5, "Bernoulli values are 0 and 1"),
    ("Bernoulli", 2.0, "Bernoulli values are 0 and 1"),
    ("Bernoulli", -1.0, "Bernoulli values are 0 and 1"),
    ("Categorical", -1.0, "integers from 0 to 2"),
    ("Categorical", 0.5, "integers from 0 to 2"),
    ("Categorical", 3.0, "integers from 0 to 2"),
]


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize(("name", "value", "message"), ILLEGAL)
def test_illegal_values_are_named(rng, name, value, message, n_threads):
    X = data(rng, name, 9000, missing=0.01)
    X[8123, 2] = X[8500, 1] = value  # the first is named
    family = build(name, parameters(rng, name))
    calls = [lambda: family.statistics(X, n_threads=n_threads), lambda: empty(name).statistics(X, n_threads=n_threads)]
    if name != "Categorical" or value != 3:
        calls.append(lambda: family.log_density(X, n_threads=n_threads))
    for call in calls:
        with pytest.raises(ValueError, match=rf"X has {value:g} at row 8123, column 2: .*{message}") as caught:
            call()
        again = pickle.loads(pickle.dumps(caught.value))
        assert str(again) == str(caught.value)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("value", [inf, -inf])
def test_infinity_is_an_error_that_says_where(rng, name, value):
    X = any_data(rng, name, 300)
    X[5, 0] = nan
    X[211, 3] = value
    for call in (any_empty(name).statistics, any_family(rng, name).log_density):
        with pytest.raises(ValueError, match=r"X contains infinity \(at row 211, column 3\)"):
            call(X)


def test_huge_codes_are_refused_before_memory_is():
    with pytest.raises(ValueError, match=r"X has 1e\+12 at row 1, column 0"):
        Categorical().statistics([[0.0], [1e12]])


@pytest.mark.parametrize("name", ALL)
def test_a_component_without_weight_is_named(rng, name):
    X, weights = any_data(rng, name, 60), np.ones((60, 3))
    weights[:, 1] = 0
    family = any_empty(name)
    with pytest.raises(EmptyComponentError, match="component 1 has no weight") as caught:
        family.maximise(family.statistics(X, weights))
    assert caught.value.component == 1


@pytest.mark.parametrize("pseudo_count", [0.0, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_a_column_never_observed_is_named(rng, name, pseudo_count):
    X, weights = data(rng, name, 60), np.zeros((60, 2))
    weights[:30, 0] = weights[30:, 1] = 1
    X[30:, 2] = nan
    family = empty(name, pseudo_count=pseudo_count)
    with pytest.raises(UnobservedColumnError, match=r"column 2 has no observed value in component 1\.") as caught:
        family.maximise(family.statistics(X, weights))
    assert caught.value.component == 1


@pytest.mark.parametrize("name", ALL)
def test_wrong_weights_and_shapes(rng, name):
    X, family = any_data(rng, name, 5), any_family(rng, name)
    wrong = [np.ones(4), np.ones((4, 3)), -np.ones(5), np.full(5, nan), np.zeros(5), np.full((5, 3), -1.0)]
    wrong += [np.ones((5, 2)), np.ones((5, 3, 1)), np.ones((5, 0)), np.full((5, 3), inf)]
    for weights in wrong:
        with pytest.raises(ValueError, match="weights must"):
            family.statistics(X, weights)
    for call in (family.statistics, family.log_density):
        with pytest.raises(ValueError, match=f"X has 2 features, but {family.n_features} were expected"):
            call(np.zeros((4, 2)))


def test_statistics_of_other_families_or_sizes(rng):
    statistics = {name: empty(name).statistics(data(rng, name)) for name in NAMES}
    for one in NAMES:
        for other in NAMES:
            if one != other:
                with pytest.raises(TypeError):
                    statistics[one] + statistics[other]
                with pytest.raises(TypeError, match="Statistics are needed"):
                    empty(one).maximise(statistics[other])
        with pytest.raises(ValueError, match="cannot be merged"):
            statistics[one] + empty(one, 3).statistics(data(rng, one, d=3))
    with pytest.raises(ValueError, match="column 0 has 2 categories, but its statistics have 4"):
        Categorical(2).maximise(statistics["Categorical"])
    with pytest.raises(TypeError, match="ProductStatistics of 3 parts"):
        mixed().maximise(statistics["Poisson"])
    with pytest.raises(ValueError, match="different products"):
        ProductStatistics(np.ones(1), (1, 2)) + ProductStatistics(np.ones(1), (1,))
    with pytest.raises(TypeError):
        ProductStatistics(np.ones(1), (1, 2)) + 1


def test_sums_that_overflow_are_an_error():
    with pytest.raises(ValueError, match="overflow"):
        Poisson().maximise(Poisson().statistics([[1e308], [1e308]]))


def test_neither_scipy_nor_sklearn_nor_numba_is_imported(python):
    code = """
        import sys
        from fastgen.families import Bernoulli, Categorical, Poisson, Product
        Poisson(rates=[[2.0]]).log_density([[3.0]])
        Bernoulli(probabilities=[[0.5]]).log_density([[1.0]])
        Poisson().statistics([[1.0]])
        assert not {"scipy", "sklearn", "numba"} & set(sys.modules)
    """
    python(textwrap.dedent(code))


# ---- products ----------------------------------------------------------------------------------------------------


def test_product_is_the_product(rng):
    family, X = mixed_fit(rng), mixed_data(rng, 5000, 0.1)
    gaussian, poisson, categorical = family.families
    expected = (
        gaussian_oracle.log_density(X[:50][:, [4, 0]], gaussian.means, gaussian.covariances)
        + oracle.log_density(X[:50][:, [1, 3]], poisson.rates, "Poisson")
        + oracle.log_density(X[:50][:, [2]], categorical.probabilities, "Categorical")
    )
    np.testing.assert_allclose(family.log_density(X)[:50], expected, rtol=1e-12, atol=1e-12)
    assert list(family.parameters) == ["0.means", "0.covariances", "1.rates", "2.probabilities"]
    assert np.array_equal(family.parameters["1.rates"], poisson.rates)
    assert [columns.tolist() for columns in family.columns] == [[4, 0], [1, 3], [2]]


def test_product_fits_each_part(rng):
    X, weights = mixed_data(rng), rng.uniform(0.1, 1, (80, 2))
    statistics = mixed().statistics(X, weights)
    assert statistics.complete
    np.testing.assert_allclose(statistics.weight, weights.sum(axis=0), rtol=1e-14)
    fitted = mixed().maximise(statistics)
    for (family, columns), part in zip(
        [(Gaussian("full"), [4, 0]), (Poisson(), [1, 3]), (Categorical(4, 0.5), [2])], fitted.families, strict=True
    ):
        alone = family.maximise(family.statistics(X[:, columns], weights))
        assert_close(part.parameters, alone.parameters)
    assert fitted.penalty(statistics) == pytest.approx(fitted.families[2].penalty(statistics.parts[2]), rel=1e-14)


def test_products_nest_and_their_columns_may_stand_in_any_order(rng):
    flat = Product([(Poisson(), [3, 0]), (Bernoulli(), [1]), (Categorical(3), [2])])
    nested = Product([(Product([(Poisson(), [2, 0]), (Bernoulli(), [1])]), [0, 1, 3]), (Categorical(3), [2])])
    X = np.column_stack([rng.poisson(3, 50), rng.integers(2, size=50), rng.integers(3, size=50), rng.poisson(9, 50)])
    weights = rng.uniform(size=(50, 2))
    one, other = (family.maximise(family.statistics(X, weights)) for family in (flat, nested))
    np.testing.assert_allclose(one.log_density(X), other.log_density(X), rtol=1e-12)
    marginals = one.marginal([3, 1]), other.marginal([3, 1])
    np.testing.assert_allclose(*(family.log_density(X[:, [3, 1]]) for family in marginals), rtol=1e-12)
    assert one.n_parameters == other.n_parameters == 2 * (2 + 1 + 2)
    X = X.astype(float)
    X[17, 1] = 0.5
    with pytest.raises(ValueError, match=r"X has 0\.5 at row 17, column 1"):
        nested.statistics(X)


def test_product_samples_have_their_components_parameters(rng):
    """6 standard errors, as above."""
    family = Product(
        [
            (Gaussian("diag", means=[[0.0], [50.0]], covariances=[[1.0], [4.0]]), [1]),
            (Poisson(rates=[[3.0], [9.0]]), [0]),
        ]
    )
    z = rng.integers(2, size=20_000)
    X = family.sample(z, rng)
    for k, mean in enumerate([[3.0, 0.0], [9.0, 50.0]]):
        part = X[z == k]
        assert (np.abs(part.mean(axis=0) - mean) < 6 * np.array([mean[0] ** 0.5, 1 + k]) / np.sqrt(len(part))).all()


def test_product_draws_one_component_for_all_parts(rng):
    family = Product([(Poisson(rates=[[0.0], [500.0]]), [0]), (Bernoulli(probabilities=[[0.0], [1.0]]), [1])])
    X = np.full((4000, 2), nan)
    drawn = family.impute(X, np.full((4000, 2), 0.5), rng)
    assert np.array_equal(drawn[:, 0] > 0, drawn[:, 1] == 1)
    assert 0.4 < drawn[:, 1].mean() < 0.6


def test_product_conditions_gaussians_on_their_own_columns(rng):
    family, x = mixed_fit(rng), mixed_data(rng, 1)[0]
    conditional = family.condition({0: x[0], 2: x[2]})  # [1, 3, 4] are left: the Gaussian's 4 given 0
    expected = family.families[0].condition({1: x[0]})
    assert [columns.tolist() for columns in conditional.columns] == [[2], [0, 1]]
    assert np.array_equal(conditional.families[0].means, expected.means)


def test_product_em_on_missing_values(rng):
    """`observe` and `expect`: log-likelihood of the observed cells, and the statistics that each part expects."""
    X, weights = mixed_data(rng, 60, 0.25), rng.uniform(size=60)
    family = mixed_fit(rng, 1)
    assert not family.statistics(X).complete
    for w in (None, weights):
        value, statistics = family.expect(family.observe(X, w))
        density = family.log_density(X)[:, 0]
        assert value == pytest.approx((density if w is None else w * density).sum(), rel=1e-11)
        expected = family.statistics(X, w)
        assert statistics.weight == pytest.approx(expected.weight, rel=1e-14)
        assert not statistics.complete
        np.testing.assert_allclose(statistics.parts[0].mean, expected.parts[0].mean, rtol=1e-11)
        np.testing.assert_allclose(statistics.parts[0].scatter, expected.parts[0].scatter, rtol=1e-9, atol=1e-9)
        assert_close(statistics.parts[1:], expected.parts[1:])
        better = family.maximise(statistics)  # a step of EM does not lower the objective
        again, _ = better.expect(better.observe(X, w))
        assert again + better.penalty(statistics) >= value + family.penalty(statistics) - 1e-9


def test_product_counts_rows_of_which_a_part_observes_nothing(rng):
    """The weight is that of the rows, though a Gaussian does not count rows without any of its columns."""
    X = mixed_data(rng, 40)
    X[:10, [0, 4]] = nan
    assert mixed().statistics(X).weight == 40


def test_product_errors_name_the_columns_of_the_product(rng):
    X = mixed_data(rng, 9000)
    X[8200, 3] = -2
    for call in (mixed().statistics, mixed_fit(rng).log_density):
        with pytest.raises(ValueError, match="X has -2 at row 8200, column 3: Poisson"):
            call(X)
    X = mixed_data(rng, 60)
    X[:, 3] = nan
    with pytest.raises(ComponentError, match=r"column 1 has no observed value \(counted among columns \[1, 3\]\)"):
        mixed().maximise(mixed().statistics(X))


def test_wrong_products(rng):
    fitted, other = Poisson(rates=[[1.0]]), Poisson(rates=[[1.0], [2.0]])
    for parts, message in [
        ([], "at least one part"),
        ([(Poisson(), [0]), (Poisson(), [0])], "columns must cover"),
        ([(Poisson(), [0]), (Poisson(), [2])], "columns must be a list of integers from 0 to 1"),
        ([(Poisson(), [0]), (Poisson(), [])], "columns must cover"),
        ([(Poisson(), [])], "columns must cover"),
        ([(fitted, [0]), (Poisson(), [1])], "the same number of components"),
        ([(fitted, [0]), (other, [1])], "the same number of components"),
        ([(fitted, [0, 1])], "part 0 has 1 features, but 2 columns"),
    ]:
        with pytest.raises(ValueError, match=message):
            Product(parts)
    for parts in ([Poisson()], [(Poisson(),)], [(1, [0])], ["ab"]):
        with pytest.raises(TypeError, match="parts must"):
            Product(parts)
    family = mixed_fit(rng)
    with pytest.raises(ValueError, match="no column is left"):
        family.marginal([])
    with pytest.raises(ValueError, match="no column is left"):
        family.condition(dict.fromkeys(range(5), 1.0))


def test_product_without_parameters():
    family = Product([(Poisson(), [1]), (Bernoulli(), [0])])
    assert repr(family) == "families.Product([(families.Poisson(), [1]), (families.Bernoulli(pseudo_count=0), [0])])"
    assert family.n_features == 2
    for attribute in ("n_components", "n_parameters", "parameters"):
        with pytest.raises(AttributeError, match="no parameters yet"):
            getattr(family, attribute)
