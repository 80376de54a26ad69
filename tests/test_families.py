"""The Gaussian family: statistics, their merge, the maximum likelihood estimate; K components at once."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import gaussian as oracle

import fastgen
from fastgen.errors import SingularCovarianceError
from fastgen.families import Family, Gaussian

TYPES = ("full", "tied", "diag", "spherical")
EPS = np.finfo(np.float64).eps
nan = np.nan


def arrays_of(statistics):
    return {name: value for name, value in vars(statistics).items() if isinstance(value, np.ndarray)}


def assert_same_bits(one, other):
    assert type(one) is type(other)
    for name, value in arrays_of(one).items():
        assert np.array_equal(value, getattr(other, name)), name


def assert_close(one, other, rtol=1e-12, apart_from=()):
    """Scatter relative to its largest element: off the diagonal it may cancel to any extent."""
    assert type(one) is type(other)
    for name, value in arrays_of(one).items():
        if name in apart_from:
            continue
        expected = getattr(other, name)
        atol = rtol * np.abs(expected).max() if name == "scatter" else rtol
        np.testing.assert_allclose(value, expected, rtol=rtol, atol=atol, err_msg=name)


def correlated(rng, n, d):
    return rng.standard_normal((n, d)) @ np.linalg.cholesky(oracle.random_covariance(rng, d)).T + rng.uniform(-3, 3, d)


def test_is_a_family():
    assert isinstance(Gaussian(means=[[0.0]], covariances=[[[1.0]]]), Family)


# ---- the estimate ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 3, 7, 8, 9, 16, 17, 33])
@pytest.mark.parametrize("n", [64, 65, 130, 1500])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_fit_against_textbook(rng, covariance_type, n, d):
    X = correlated(rng, n, d)
    for weights in (None, rng.uniform(0, 2, n)):
        mean, covariance = oracle.fit(X, weights, covariance_type)
        family = Gaussian(covariance_type)
        fitted = family.maximise(family.statistics(X, weights))
        np.testing.assert_allclose(fitted.means[0], mean, rtol=1e-12, atol=1e-14)
        got = fitted.covariances if covariance_type == "tied" else fitted.covariances[0]
        np.testing.assert_allclose(got, covariance, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_several_components_are_fitted_each_with_its_weights(rng, covariance_type):
    X, weights = correlated(rng, 300, 4), rng.uniform(size=(300, 3))
    family = Gaussian(covariance_type)
    statistics = family.statistics(X, weights)
    fitted = family.maximise(statistics)
    parts = [oracle.fit(X, weights[:, k], "full") for k in range(3)]
    np.testing.assert_allclose(statistics.weight, weights.sum(axis=0), rtol=1e-13)
    np.testing.assert_allclose(fitted.means, [mean for mean, _ in parts], rtol=1e-12)
    if covariance_type == "tied":  # pooled within components (Bishop, eq. 4.78)
        expected = sum(w * c for w, (_, c) in zip(weights.sum(axis=0), parts, strict=True)) / weights.sum()
    else:
        expected = np.array([oracle.fit(X, weights[:, k], covariance_type)[1] for k in range(3)])
    np.testing.assert_allclose(fitted.covariances, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_maximum_likelihood_beats_its_neighbours(rng, covariance_type):
    """Also with reg_covar, whose objective is log-likelihood - reg_covar / 2 * weight * trace(inverse covariance)."""
    X = correlated(rng, 80, 3)
    for reg_covar in (0.0, 0.3):
        family = Gaussian(covariance_type, reg_covar)
        statistics = family.statistics(X)
        best = family.maximise(statistics)

        def objective(candidate, statistics=statistics):
            return candidate.log_density(X).sum() + candidate.penalty(statistics)

        top = objective(best)
        for _ in range(30):
            step = 1e-3 * rng.standard_normal(best.covariances.shape)
            if covariance_type in ("full", "tied"):
                step = step + np.swapaxes(step, -1, -2)
            near = Gaussian(
                covariance_type,
                reg_covar,
                means=best.means + 1e-3 * rng.standard_normal(best.means.shape),
                covariances=best.covariances + step,
            )
            assert objective(near) < top


@pytest.mark.parametrize("covariance_type", TYPES)
def test_penalty_by_the_book(rng, covariance_type):
    means, covariances = oracle.random_parameters(rng, covariance_type, 3, 4)
    X, weights = rng.standard_normal((50, 4)), rng.uniform(size=(50, 3))
    family = Gaussian(covariance_type, 0.7, means=means, covariances=covariances)
    sigma = oracle.matrices(covariances, covariance_type, 3, 4)
    expected = sum(-0.35 * weights[:, k].sum() * np.trace(np.linalg.inv(sigma[k])) for k in range(3))
    assert family.penalty(family.statistics(X, weights)) == pytest.approx(expected, rel=1e-12)
    assert Gaussian(covariance_type, means=means, covariances=covariances).penalty(family.statistics(X, weights)) == 0


@pytest.mark.parametrize("covariance_type", TYPES)
def test_number_of_parameters(rng, covariance_type):
    means, covariances = oracle.random_parameters(rng, covariance_type, 3, 4)
    # 3 means of 4; 10 distinct elements in a symmetric 4 x 4 matrix
    expected = 12 + {"full": 30, "tied": 10, "diag": 12, "spherical": 3}[covariance_type]
    assert Gaussian(covariance_type, means=means, covariances=covariances).n_parameters == expected


# ---- statistics --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_weights_are_repetitions(rng, covariance_type):
    X, counts = correlated(rng, 400, 5), rng.integers(0, 4, 400)
    family = Gaussian(covariance_type)
    # Repeated rows are more rows, but tell no more about a covariance.
    repeated = family.statistics(np.repeat(X, counts, axis=0))
    assert_close(family.statistics(X, counts), repeated, apart_from=["rows"])
    assert_close(family.statistics(X, np.ones(400)), family.statistics(X))
    assert_close(family.statistics(X, counts[:, None]), family.statistics(X, counts))


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_scaled_weights_scale_the_statistics_and_not_the_fit(rng, covariance_type):
    X, weights = correlated(rng, 200, 3), rng.uniform(size=200)
    family = Gaussian(covariance_type)
    fitted = family.maximise(family.statistics(X, weights))
    for scale in (2.0**-40, 2.0**40):
        scaled = family.maximise(family.statistics(X, scale * weights))
        assert np.array_equal(scaled.means, fitted.means)  # powers of two are exact
        assert np.array_equal(scaled.covariances, fitted.covariances)


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_rows_without_weight_do_not_count_whatever_they_hold(rng, covariance_type):
    X, weights = correlated(rng, 200, 3), np.ones(200)
    weights[::3] = 0
    family = Gaussian(covariance_type)
    expected = family.statistics(X[weights > 0])
    X[::3] = 1e150
    assert_close(family.statistics(X, weights), expected)


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_blocks_merge_to_the_whole(rng, covariance_type):
    X = correlated(rng, 1000, 4) + np.linspace(0, 50, 1000)[:, None]
    weights = rng.uniform(size=1000)
    weights[100:200] = 0
    family = Gaussian(covariance_type)
    whole = family.statistics(X, weights)
    total = None
    for start in range(0, 1000, 100):
        part = slice(start, start + 100)
        if weights[part].any():
            block = family.statistics(X[part], weights[part])
            total = block if total is None else total + block
    assert_close(total, whole)


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_merge_is_commutative_associative_and_keeps_its_operands(rng, covariance_type):
    family = Gaussian(covariance_type)
    a, b, c = (family.statistics(correlated(rng, n, 3)) for n in (10, 500, 3))
    copies = [pickle.loads(pickle.dumps(s)) for s in (a, b, c)]
    assert_close(a + b, b + a)
    assert_close((a + b) + c, a + (b + c))
    for s, copy in zip((a, b, c), copies, strict=True):
        assert_same_bits(s, copy)  # and the copy is a faithful one


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_merge_with_a_component_that_has_no_weight(rng, covariance_type):
    family = Gaussian(covariance_type)
    X = correlated(rng, 50, 2) + 1e6
    weights = np.ones((50, 2))
    weights[:, 1] = 0
    part = family.statistics(X, weights)
    other = family.statistics(X, weights[:, ::-1])
    for merged in (part + other, other + part):
        alone = family.statistics(X)
        for k in range(2):
            np.testing.assert_array_equal(merged.mean[k], alone.mean[0])
            np.testing.assert_array_equal(merged.scatter[k], alone.scatter[0])


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_merge_of_different_sizes_is_an_error(rng, covariance_type):
    family = Gaussian(covariance_type)
    with pytest.raises(ValueError, match=r"shapes \(1, 2\) and \(1, 3\) cannot be merged"):
        family.statistics(np.zeros((3, 2))) + family.statistics(np.zeros((3, 3)))


def test_merge_with_something_else_is_a_type_error(rng):
    full, diag = (Gaussian(kind).statistics(correlated(rng, 9, 2)) for kind in ("full", "diag"))
    for other in (diag, 1, None, "x"):
        with pytest.raises(TypeError):
            full + other


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_threads_change_no_bit(rng, covariance_type, missing):
    X, weights = correlated(rng, 20_000, 5), rng.uniform(size=20_000)
    X[rng.random(X.shape) < missing] = nan
    family = Gaussian(covariance_type)
    for w in (None, weights):
        one = family.statistics(X, w, n_threads=1)
        for n_threads in (2, 7):
            assert_same_bits(family.statistics(X, w, n_threads=n_threads), one)


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_layouts_give_the_same_bits(rng, covariance_type):
    X, weights = correlated(rng, 300, 5), rng.uniform(size=300)
    wide = np.zeros((600, 10))
    wide[::2, ::2] = X
    frozen = X.copy()
    frozen.flags.writeable = False
    family = Gaussian(covariance_type)
    expected = family.statistics(X, weights)
    spread = np.zeros(600)
    spread[::2] = weights
    for layout in (np.asfortranarray(X), wide[::2, ::2], X[::-1].copy()[::-1], frozen, X.astype(">f8"), X.tolist()):
        for w in (weights, spread[::2], weights[::-1].copy()[::-1], weights.tolist()):
            assert_same_bits(family.statistics(layout, w), expected)
    single = X.astype(np.float32)
    assert_same_bits(family.statistics(single), family.statistics(single.astype(np.float64)))
    assert_same_bits(family.statistics(np.asfortranarray(single)), family.statistics(single))


# ---- numerics ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["shuffled", "sorted"])
@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_an_offset_of_1e8_changes_the_mean_alone(rng, covariance_type, order):
    """Whole numbers: the shift is exact, so is the scatter about the true mean. Sorted rows make blocks differ."""
    X = rng.integers(-50, 50, (30_000, 3)).astype(float)
    if order == "sorted":
        X.sort(axis=0)
    family = Gaussian(covariance_type)
    plain, shifted = family.statistics(X), family.statistics(X + 1e8)
    # The mean is a double of size 1e8: half an ulp is 7.5e-9, and merges may add a few.
    np.testing.assert_allclose(shifted.mean - 1e8, plain.mean, rtol=0, atol=3e-8)
    assert_close_scatter = np.abs(shifted.scatter - plain.scatter).max() / np.abs(plain.scatter).max()
    # "Adding 1e8 to every value changes nothing but the means": rounding of 30 000 additions, not of the offset.
    assert assert_close_scatter < 1e-12


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("scale", [1e-6, 1e6, 1e-100, 1e100])
def test_scale(rng, covariance_type, scale):
    X = correlated(rng, 500, 4)
    family = Gaussian(covariance_type)
    fitted, scaled = family.maximise(family.statistics(X)), family.maximise(family.statistics(X * scale))
    np.testing.assert_allclose(scaled.means / scale, fitted.means, rtol=1e-12)
    np.testing.assert_allclose(scaled.covariances / scale**2, fitted.covariances, rtol=1e-12, atol=1e-13)


def test_float32_with_an_offset_of_1e3(rng):
    X = (1e3 + rng.standard_normal((5000, 3))).astype(np.float32)
    for covariance_type in TYPES:
        family = Gaussian(covariance_type)
        fitted = family.maximise(family.statistics(X))
        mean, covariance = oracle.fit(X, None, covariance_type)
        np.testing.assert_allclose(fitted.means[0], mean, rtol=1e-14)
        got = fitted.covariances if covariance_type == "tied" else fitted.covariances[0]
        np.testing.assert_allclose(got, covariance, rtol=1e-12, atol=1e-13)


@given(st.integers(1, 200), st.integers(1, 9), st.integers(0, 10**6), st.sampled_from(["full", "diag"]))
def test_permuted_rows(n, d, seed, covariance_type):
    rng = np.random.default_rng(seed)
    X, weights = rng.standard_normal((n, d)), rng.uniform(0.1, 1, n)
    order = rng.permutation(n)
    family = Gaussian(covariance_type)
    assert_close(family.statistics(X[order], weights[order]), family.statistics(X, weights), rtol=1e-11)


# ---- missing values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance_type", ["diag", "spherical"])
def test_diagonal_types_count_each_column_by_itself(rng, covariance_type):
    X, weights = correlated(rng, 200, 4), rng.uniform(size=200)
    X[rng.random(X.shape) < 0.3] = nan
    X[7] = nan
    family = Gaussian(covariance_type)
    for w in (None, weights):
        mean, covariance = oracle.fit_columns(X, covariance_type, w)
        fitted = family.maximise(family.statistics(X, w))
        np.testing.assert_allclose(fitted.means[0], mean, rtol=1e-12)
        np.testing.assert_allclose(fitted.covariances[0], covariance, rtol=1e-12)


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_one_e_step_by_the_book(rng, covariance_type):
    """Little & Rubin (2002), eq. 11.4, 11.5: filled means, and conditional covariances added to the scatter."""
    means, covariances = oracle.random_parameters(rng, covariance_type, 2, 4)
    X, weights = rng.standard_normal((60, 4)), rng.uniform(size=(60, 2))
    X[rng.random(X.shape) < 0.4] = nan
    X[3] = nan
    got = Gaussian(covariance_type, means=means, covariances=covariances).statistics(X, weights)
    assert not got.complete
    sigma = oracle.matrices(covariances, covariance_type, 2, 4)
    keep = ~np.isnan(X).all(axis=1)
    for k in range(2):
        filled, extra = X.copy(), np.zeros((4, 4))
        for i in np.flatnonzero(keep):
            m = np.isnan(X[i])
            filled[i, m], residual = oracle.conditional(means[k], sigma[k], X[i])
            extra[np.ix_(m, m)] += weights[i, k] * residual
        w = weights[keep, k]
        mean = w @ filled[keep] / w.sum()
        scatter = ((filled[keep] - mean).T * w) @ (filled[keep] - mean) + extra
        assert got.weight[k] == pytest.approx(w.sum(), rel=1e-13)
        np.testing.assert_allclose(got.mean[k], mean, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(got.scatter[k], scatter, rtol=1e-11, atol=1e-12)


def test_a_column_never_observed_is_an_error(rng):
    X = rng.standard_normal((20, 3))
    X[:, 1] = nan
    for covariance_type in TYPES:
        family = Gaussian(covariance_type)
        with pytest.raises(ValueError, match="column 1 has no observed value"):
            family.maximise(family.statistics(X))


@pytest.mark.parametrize("covariance_type", TYPES)
def test_infinity_is_an_error_that_says_where(rng, covariance_type):
    X = rng.standard_normal((300, 3))
    X[5, 0] = nan
    X[211, 2] = -np.inf
    for data in (X, X[6:].copy()):
        row = 211 if data is X else 205
        with pytest.raises(ValueError, match=rf"X contains infinity \(at row {row}, column 2\)"):
            Gaussian(covariance_type).statistics(data)


# ---- parameters --------------------------------------------------------------------------------------------------


def test_without_parameters():
    family = Gaussian("tied", 0.5)
    assert repr(family) == "families.Gaussian('tied', reg_covar=0.5)"
    for name in ("means", "covariances", "precisions_cholesky", "n_components", "n_features", "n_parameters"):
        with pytest.raises(AttributeError, match="no parameters yet"):
            getattr(family, name)
    with pytest.raises(AttributeError, match="no parameters yet"):
        family.log_density([[0.0]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"covariance_type": "round"}, "covariance_type must be one of"),
        ({"reg_covar": -1e-9}, "reg_covar must be a finite number"),
        ({"reg_covar": nan}, "reg_covar must be a finite number"),
        ({"reg_covar": np.inf}, "reg_covar must be a finite number"),
        ({"means": [[0.0]]}, "give both means and covariances"),
        ({"covariances": [[[1.0]]]}, "give both means and covariances"),
        ({"means": [0.0], "covariances": [[[1.0]]]}, "means must have shape"),
        ({"means": [[0.0]], "covariances": [[1.0]]}, "covariances must have shape"),
        ({"means": [[nan]], "covariances": [[[1.0]]]}, "means must be finite"),
        ({"means": [[0.0]], "covariances": [[[0.0]]]}, "not positive definite"),
    ],
)
def test_wrong_parameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        Gaussian(**arguments)


@pytest.mark.parametrize(
    "weights",
    [
        np.ones(4),
        np.ones((4, 2)),
        -np.ones(5),
        np.full(5, nan),
        np.zeros(5),
        np.array([1, 1, 1, 1, np.inf]),
        np.full((5, 2), -1.0),
        np.full((5, 2), nan),
        np.ones((5, 2, 1)),
        np.ones((5, 0)),
    ],
    ids=lambda w: f"{w.shape}-{w.ravel()[-1:]}",
)
def test_wrong_weights(weights):
    with pytest.raises(ValueError, match="weights must"):
        Gaussian().statistics(np.zeros((5, 2)), weights)


def test_wrong_number_of_features(rng):
    means, covariances = oracle.random_parameters(rng, "full", 1, 3)
    family = Gaussian(means=means, covariances=covariances)
    with pytest.raises(ValueError, match="X has 2 features, but 3 were expected"):
        family.statistics(np.zeros((4, 2)))


def test_a_component_without_weight_or_spread_is_named(rng):
    X, weights = rng.standard_normal((50, 2)), np.ones((50, 3))
    weights[:, 1] = 0
    for covariance_type in TYPES:
        family = Gaussian(covariance_type)
        with pytest.raises(ValueError, match="component 1 has no weight"):
            family.maximise(family.statistics(X, weights))
    weights[:, 1] = np.arange(50) == 0
    for covariance_type in ("full", "diag", "spherical"):
        with pytest.raises(SingularCovarianceError, match=r"covariances\[1\].*Increase reg_covar") as caught:
            Gaussian(covariance_type).maximise(Gaussian(covariance_type).statistics(X, weights))
        assert caught.value.component == 1
        again = pickle.loads(pickle.dumps(caught.value))
        assert str(again) == str(caught.value)
        assert again.component == 1
        family = Gaussian(covariance_type, 1e-3)
        family.maximise(family.statistics(X, weights))  # the remedy


@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_family_is_a_value(rng, covariance_type):
    """What it was made of may change, and what it returns: the family does not."""
    means, covariances = oracle.random_parameters(rng, covariance_type, 2, 3)
    X = rng.standard_normal((20, 3))
    family = Gaussian(covariance_type, means=means, covariances=covariances)
    before = family.log_density(X)
    kept = family.means.copy(), family.covariances.copy()
    means += 7
    covariances *= 5
    assert np.array_equal(family.log_density(X), before)
    assert np.array_equal(family.means, kept[0])
    assert np.array_equal(family.covariances, kept[1])


@pytest.mark.parametrize("covariance_type", TYPES)
def test_pickle_and_select(rng, covariance_type):
    means, covariances = oracle.random_parameters(rng, covariance_type, 3, 4)
    family = Gaussian(covariance_type, 0.25, means=means, covariances=covariances)
    X = rng.standard_normal((30, 4))
    again = pickle.loads(pickle.dumps(family))
    assert np.array_equal(again.log_density(X), family.log_density(X))
    assert repr(again) == f"families.Gaussian({covariance_type!r}, reg_covar=0.25, 3 components, 4 features)"
    chosen = family.select([2, 0])
    expected = oracle.log_density(
        X, means[[2, 0]], covariances if covariance_type == "tied" else covariances[[2, 0]], covariance_type
    )
    np.testing.assert_allclose(chosen.log_density(X), expected, rtol=1e-12)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_marginal_and_condition_of_components(rng, covariance_type):
    means, covariances = oracle.random_parameters(rng, covariance_type, 2, 4)
    family = Gaussian(covariance_type, means=means, covariances=covariances)
    x = rng.standard_normal((10, 4))
    only = x.copy()
    only[:, [0, 2]] = nan
    marginal = family.marginal(np.array([3, 1]))
    np.testing.assert_allclose(
        marginal.log_density(x[:, [3, 1]]), oracle.log_density(only, means, covariances, covariance_type), rtol=1e-12
    )
    # p(x) = p(x_1, x_3) p(x_0, x_2 | x_1, x_3)
    whole = oracle.log_density(x, means, covariances, covariance_type)
    for i in range(10):
        conditional = family.condition({1: x[i, 1], 3: x[i, 3]})
        parts = conditional.log_density(x[i : i + 1, [0, 2]]) + marginal.log_density(x[i : i + 1, [3, 1]])
        np.testing.assert_allclose(parts[0], whole[i], rtol=1e-12)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_samples_have_the_moments_of_their_component(rng, covariance_type):
    """False alarms: 2 * (3 + 6) numbers beyond 6 standard errors, less than 1e-7 in all; the seed is fixed."""
    means, covariances = oracle.random_parameters(rng, covariance_type, 2, 3)
    family = Gaussian(covariance_type, means=means, covariances=covariances)
    components = rng.integers(2, size=40_000)
    X = family.sample(components, rng)
    sigma = oracle.matrices(covariances, covariance_type, 2, 3)
    for k in range(2):
        part = X[components == k]
        n, sd = len(part), np.sqrt(np.diag(sigma[k]))
        assert (np.abs(part.mean(axis=0) - means[k]) < 6 * sd / np.sqrt(n)).all()
        # Var of a sample covariance: (s_ii s_jj + s_ij^2) / n (Anderson 2003, sec. 3.4)
        error = np.sqrt((np.outer(sd, sd) ** 2 + sigma[k] ** 2) / n)
        assert (np.abs(np.cov(part.T, ddof=0) - sigma[k]) < 6 * error).all()
    assert np.array_equal(
        family.sample([0, 1, 1], np.random.default_rng(3)), family.sample([0, 1, 1], np.random.default_rng(3))
    )


def test_threads_of_the_context_change_no_bit(rng):
    X = correlated(rng, 50_000, 4)
    results = []
    for n_threads in (1, 2, 7):
        with fastgen.num_threads(n_threads):
            results.append(Gaussian().statistics(X))
    assert_same_bits(results[0], results[1])
    assert_same_bits(results[0], results[2])


@pytest.mark.parametrize("missing", [False, True])
def test_weights_of_another_number_of_components(rng, missing):
    means, covariances = oracle.random_parameters(rng, "full", 2, 3)
    family = Gaussian(means=means, covariances=covariances)
    X = rng.standard_normal((20, 3))
    if missing:
        X[0, 0] = nan
    for weights in (np.ones((20, 5)), np.ones((20, 1))):
        with pytest.raises(ValueError, match="weights must"):
            family.statistics(X, weights)
