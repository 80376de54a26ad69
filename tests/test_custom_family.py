"""Custom families: the user's log-density, compiled or not, and the ways of fitting it."""

import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from scipy import stats
from scipy.optimize import brentq
from scipy.special import i0e, i1e

from fastgen._em import fit_labelled
from fastgen.errors import EmptyComponentError
from fastgen.families import Custom, Family, Gaussian, Parameter
from fastgen.families.custom import DataStatistics, SumStatistics
from fastgen.kernels import logsumexp, softmax

nan, inf = np.nan, np.inf
POSITIVE = Parameter(bounds=(0, inf))
ANGLE = Parameter(bounds=(-math.pi, math.pi), periodic=True)


@njit
def von_mises(x, loc, kappa):
    bessel = term = 1.0
    for k in range(1, 1000):
        term *= (kappa / (2 * k)) ** 2
        bessel += term
        if term < 1e-17 * bessel:
            break
    return kappa * math.cos(x[0] - loc) - math.log(2 * math.pi * bessel)


@njit
def normal(x, mean, variances):
    total = 0.0
    for j in range(len(x)):
        total -= 0.5 * (math.log(2 * math.pi * variances[j]) + (x[j] - mean[j]) ** 2 / variances[j])
    return total


@njit
def normal_or_missing(x, mean, variances):
    total = 0.0
    for j in range(len(x)):
        if not math.isnan(x[j]):
            total -= 0.5 * (math.log(2 * math.pi * variances[j]) + (x[j] - mean[j]) ** 2 / variances[j])
    return total


@njit
def exponential(x, rate):
    return math.log(rate) - rate * x[0] if x[0] >= 0 else -math.inf


def von_mises_sums(X, weights):
    return np.array([weights @ np.cos(X[:, 0]), weights @ np.sin(X[:, 0]), weights.sum()])


def von_mises_of_sums(sums):
    cosine, sine, weight = sums
    length = math.hypot(cosine, sine) / weight
    return {"loc": math.atan2(sine, cosine), "kappa": brentq(lambda k: i1e(k) / i0e(k) - length, 0, 600)}


def von_mises_of_rows(X, weights):
    return von_mises_of_sums(von_mises_sums(X, weights))


def draw_von_mises(n, rng, loc, kappa):
    return rng.vonmises(loc, kappa, n)


VON_MISES = {"loc": ANGLE, "kappa": POSITIVE}
WAYS = {
    "numeric": {},
    "fit": {"fit": von_mises_of_rows},
    "sums": {"statistics": von_mises_sums, "maximise": von_mises_of_sums},
}


def wind(way="numeric", **arguments):
    return Custom(von_mises, VON_MISES, sample=draw_von_mises, **WAYS[way], **arguments)


def normals(d, **arguments):
    parameters = {"mean": Parameter((d,)), "variances": Parameter((d,), (0, inf))}
    return Custom(arguments.pop("log_density", normal), parameters, d, **arguments)


def em(family, X, posterior, n_iter=40):
    """The family, the mixture's weights and its history."""
    history = []
    for _ in range(n_iter):
        family = family.maximise(family.statistics(X, posterior))
        weights = posterior.mean(axis=0)
        joint = family.log_density(X) + np.log(weights)
        history.append(logsumexp(joint).mean())
        posterior = softmax(joint)
    return family, weights, np.array(history)


def test_is_a_family():
    assert isinstance(wind(values={"loc": [0.0], "kappa": [1.0]}), Family)


# ---- densities -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [True, False])
def test_log_density(rng, compiled):
    family = Custom(
        von_mises if compiled else von_mises.py_func, VON_MISES, values={"loc": [-1.0, 2.0], "kappa": [0.5, 30.0]}
    )
    X = rng.uniform(-4, 4, (50, 1))
    expected = np.stack([stats.vonmises(0.5, -1).logpdf(X[:, 0]), stats.vonmises(30, 2).logpdf(X[:, 0])], axis=1)
    np.testing.assert_allclose(family.log_density(X), expected, rtol=1e-12, atol=1e-13)


def test_array_parameters_against_the_gaussian_family(rng):
    means, variances = rng.standard_normal((3, 2)), rng.uniform(0.5, 2, (3, 2))
    family = normals(2, values={"mean": means, "variances": variances})
    X = rng.standard_normal((30, 2))
    expected = Gaussian("diag", means=means, covariances=variances).log_density(X)
    np.testing.assert_allclose(family.log_density(X), expected, rtol=1e-12)
    assert family.n_parameters == 12
    assert family.parameters["mean"].shape == (3, 2)
    np.testing.assert_allclose(family.select([2, 0]).log_density(X), expected[:, [2, 0]], rtol=1e-12)


def test_threads_layouts_and_float32(rng):
    X = rng.uniform(-3, 3, (20_001, 1))
    family = wind(values={"loc": [-1.0, 2.0], "kappa": [0.5, 30.0]})
    expected = family.log_density(X, n_threads=1)
    for n_threads in (2, 7, None):
        assert np.array_equal(family.log_density(X, n_threads=n_threads), expected)
    wide = np.zeros((40_002, 3))
    wide[::2, 1:2] = X
    frozen = X.copy()
    frozen.flags.writeable = False
    for layout in (wide[::2, 1:2], frozen, X.astype(">f8")):
        assert np.array_equal(family.log_density(layout), expected)
    single = X.astype(np.float32)
    got = family.log_density(single)
    assert got.dtype == np.float32
    assert np.array_equal(got, family.log_density(single.astype(np.float64)).astype(np.float32))
    out = np.empty((20_001, 2))
    assert family.log_density(X, out=out) is out


def test_a_function_that_writes_changes_nothing(rng):
    @njit
    def vandal(x, mean, variances):
        x[0] = mean[0] = variances[0] = 7.0
        return 0.0

    X = rng.standard_normal((20, 2))
    copy = X.copy()
    family = normals(2, log_density=vandal, values={"mean": np.zeros((1, 2)), "variances": np.ones((1, 2))})
    family.log_density(X)
    family.maximise(family.statistics(X))
    assert np.array_equal(X, copy)
    assert (family.parameters["mean"] == 0).all()


@pytest.mark.parametrize(("value", "text"), [(nan, "nan"), (inf, "inf")])
def test_nan_and_infinity_are_errors_that_name_the_row(rng, value, text):
    @njit
    def bad(x, scale):
        return value if x[0] > 5 else -scale * x[0]

    X = rng.uniform(0, 1, (9000, 1))
    X[8000] = X[5001] = 6.0
    family = Custom(bad, {"scale": POSITIVE}, values={"scale": [1.0, 2.0]})
    for n_threads in (1, 3):
        with pytest.raises(ValueError, match=rf"returned {text} for row 5001 of X under component 0 \(scale = 1.0\)"):
            family.log_density(X, n_threads=n_threads)
    X[:] = 0.5
    assert np.isfinite(family.log_density(X)).all()


def test_minus_infinity_is_a_row_that_cannot_be():
    family = Custom(exponential, {"rate": POSITIVE}, values={"rate": [2.0]})
    assert family.log_density([[-1.0], [0.0]]).tolist() == [[-inf], [math.log(2)]]


def test_missing_and_infinite_values(rng):
    X = rng.standard_normal((30, 2))
    X[7, 1] = nan
    values = {"mean": np.zeros((1, 2)), "variances": np.ones((1, 2))}
    for call in (normals(2, values=values).log_density, normals(2).statistics):
        with pytest.raises(ValueError, match=r"X contains NaN \(at row 7, column 1\).*handles_missing=True"):
            call(X)
    family = normals(2, log_density=normal_or_missing, handles_missing=True, values=values)
    expected = Gaussian("diag", means=values["mean"], covariances=values["variances"]).log_density(X)
    np.testing.assert_allclose(family.log_density(X), expected, rtol=1e-12)
    fitted = family.maximise(family.statistics(X))
    gaussian = Gaussian("diag").maximise(Gaussian("diag").statistics(X))
    np.testing.assert_allclose(fitted.parameters["mean"], gaussian.means, atol=1e-6)
    np.testing.assert_allclose(fitted.parameters["variances"], gaussian.covariances, rtol=1e-5)
    X[3, 0] = inf
    for call in (family.log_density, family.statistics):
        with pytest.raises(ValueError, match=r"X contains infinity \(at row 3, column 0\)"):
            call(X)


# ---- the fit -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("loc", "kappa"), [(0.5, 3.0), (3.1, 0.8), (-3.1, 100.0)])
def test_one_component_against_scipy(rng, way, loc, kappa):
    """scipy.stats.vonmises.fit solves the likelihood equations. Directions around pi: the parameter wraps."""
    X = rng.vonmises(loc, kappa, (500, 1))
    family = wind(way)
    fitted = family.maximise(family.statistics(X))
    expected_kappa, expected_loc, _ = stats.vonmises.fit(X[:, 0], fscale=1)
    assert fitted.parameters["kappa"][0] == pytest.approx(expected_kappa, rel=1e-6)
    assert math.remainder(fitted.parameters["loc"][0] - expected_loc, 2 * math.pi) == pytest.approx(0, abs=1e-6)
    assert -math.pi <= fitted.parameters["loc"][0] < math.pi


@pytest.mark.parametrize("way", WAYS)
def test_a_mixture_is_recovered(rng, way):
    X = np.concatenate([rng.vonmises(-2, 4, 3000), rng.vonmises(1, 8, 2000)])[:, None]
    posterior = np.eye(2)[(X[:, 0] > 0).astype(int)]
    fitted, weights, history = em(wind(way), X, posterior)
    assert (np.diff(history) > -1e-12).all()
    # Standard errors of loc: 1 / sqrt(n kappa A(kappa)), about 0.01; of kappa a few percent.
    np.testing.assert_allclose(fitted.parameters["loc"], [-2, 1], atol=0.05)
    np.testing.assert_allclose(fitted.parameters["kappa"], [4, 8], rtol=0.12)
    np.testing.assert_allclose(weights, [0.6, 0.4], atol=0.02)
    exact, _, exact_history = em(wind("sums" if way == "fit" else "fit"), X, posterior)  # another way, never the same
    for name in VON_MISES:
        np.testing.assert_allclose(fitted.parameters[name], exact.parameters[name], rtol=1e-4)
    np.testing.assert_allclose(history[-1], exact_history[-1], rtol=1e-9)


@given(st.integers(0, 10**6), st.sampled_from([(1.0, 0.0), (1e-6, 0.0), (1.0, 1e8), (1e6, -1e9)]))
@settings(max_examples=15)
def test_numeric_steps_never_lower_the_likelihood(seed, units):
    """Whatever the units and the origin of the data."""
    rng = np.random.default_rng(seed)
    scale, shift = units
    X = scale * rng.standard_t(4, (60, 2)) + shift
    posterior = rng.dirichlet([1, 1], 60)
    start = {"mean": X[rng.integers(60, size=2)], "variances": np.full((2, 2), scale**2 * rng.uniform(0.1, 10))}
    family = normals(2, values=start, max_steps=int(rng.integers(1, 6)))
    for _ in range(3):
        before = (posterior * family.log_density(X)).sum()
        family = family.maximise(family.statistics(X, posterior))
        after = (posterior * family.log_density(X)).sum()
        assert after >= before - 1e-12 * abs(before)


@pytest.mark.parametrize("units", [(1.0, 0.0), (1e-6, 0.0), (1.0, 1e8), (1e6, 0.0)])
def test_numeric_optimisation_finds_the_maximum_in_any_units(rng, units):
    scale, shift = units
    X = scale * rng.integers(-50, 50, (200, 2)) + shift
    weights = rng.uniform(size=200)
    start = {"mean": X[:1], "variances": np.full((1, 2), scale**2)}
    fitted = normals(2, values=start)
    fitted = fitted.maximise(fitted.statistics(X, weights))
    gaussian = Gaussian("diag").maximise(Gaussian("diag").statistics(X, weights))
    np.testing.assert_allclose((fitted.parameters["mean"] - gaussian.means) / scale, 0, atol=1e-4)
    np.testing.assert_allclose(fitted.parameters["variances"], gaussian.covariances, rtol=1e-5)


def test_every_kind_of_bounds(rng):
    @njit
    def parabola(x, a, b, c, d):
        return -((a - 1.5) ** 2) - (b - 0.25) ** 2 - (c + 3) ** 2 - (d - 1e3) ** 2

    parameters = {
        "a": Parameter(bounds=(1, inf)),
        "b": Parameter(bounds=(0, 1)),
        "c": Parameter(bounds=(-inf, -2)),
        "d": Parameter(),
    }
    family = Custom(parabola, parameters)
    fitted = family.maximise(family.statistics([[0.0]]))
    np.testing.assert_allclose([v[0] for v in fitted.parameters.values()], [1.5, 0.25, -3, 1e3], rtol=1e-6)
    again = fitted.maximise(fitted.statistics([[0.0]]))
    np.testing.assert_allclose([v[0] for v in again.parameters.values()], [1.5, 0.25, -3, 1e3], rtol=1e-6)
    # a maximum on the bound is approached, and a start on it is left
    parameters = {"a": Parameter(bounds=(2, inf), start=2), "b": Parameter(bounds=(0.5, 1), start=1)}
    parameters |= {"c": Parameter(bounds=(-inf, 0), start=0), "d": Parameter(start=990)}
    family = Custom(parabola, parameters)
    for _ in range(3):
        family = family.maximise(family.statistics([[0.0]]))
    np.testing.assert_allclose([v[0] for v in family.parameters.values()], [2, 0.5, -3, 1e3], atol=1e-3)


def test_a_parameter_without_effect_and_one_at_the_edge_of_the_support(rng):
    @njit
    def uniform(x, width, idle):
        return -math.log(width) if x[0] <= width else -math.inf

    X = rng.uniform(0, 3, (50, 1))
    family = Custom(uniform, {"width": Parameter(bounds=(0, inf), start=10), "idle": Parameter()})
    fitted = family.maximise(family.statistics(X))
    assert X.max() <= fitted.parameters["width"][0] < 10


@pytest.mark.parametrize("way", WAYS)
def test_weights_are_repetitions_and_blocks_merge(rng, way):
    X, counts = rng.vonmises(1, 2, (300, 1)), rng.integers(0, 4, (300, 2))
    family = wind(way)
    whole = family.maximise(family.statistics(X, counts))
    cuts = [slice(0, 100), slice(100, 130), slice(130, 300)]
    parts = [family.statistics(X[cut], counts[cut]) for cut in cuts]
    merged = parts[0] + parts[1] + parts[2]
    assert type(merged) is (SumStatistics if way == "sums" else DataStatistics)
    assert merged.complete
    alone = [family.maximise(family.statistics(np.repeat(X, counts[:, k], axis=0))).parameters for k in range(2)]
    stacked = type(merged).stack([family.statistics(X, counts[:, k]) for k in range(2)])
    order = rng.permutation(300)
    permuted = family.statistics(X[order], counts[order])
    rtol = 1e-5 if way == "numeric" else 1e-9
    for statistics in (merged, stacked, permuted, pickle.loads(pickle.dumps(merged))):
        np.testing.assert_allclose(statistics.weight, counts.sum(axis=0), rtol=1e-13)
        fitted = family.maximise(statistics)
        for name in VON_MISES:
            np.testing.assert_allclose(fitted.parameters[name], whole.parameters[name], rtol=rtol)
            np.testing.assert_allclose(fitted.parameters[name], [a[name][0] for a in alone], rtol=rtol)


def test_labelled_fits_have_a_closed_form(rng):
    X = np.concatenate([rng.vonmises(-2, 4, 300), rng.vonmises(1, 8, 200)])[:, None]
    for way in WAYS:
        fit = fit_labelled(wind(way), X, None, [np.arange(300), np.arange(300, 500)], tol=1e-6, max_iter=10)
        assert fit.stop_reason == "closed form"
        np.testing.assert_allclose(fit.parameters.parameters["loc"], [-2, 1], atol=0.2)


def test_statistics_of_data_are_values(rng):
    X, weights = rng.vonmises(1, 2, (30, 1)), rng.uniform(size=(30, 1))
    family = wind("fit")
    statistics = family.statistics(X, weights)
    before = family.maximise(statistics).parameters
    X += 1
    weights *= rng.uniform(size=(30, 1))
    after = family.maximise(statistics).parameters
    assert all(np.array_equal(before[name], after[name]) for name in before)
    with pytest.raises(ValueError, match="read-only"):
        statistics.blocks[0][0][0][...] = 0


def test_what_fit_may_return(rng):
    X = rng.exponential(0.5, (100, 1))
    expected = 1 / X.mean()
    for returned in (
        lambda X, w: w.sum() / (w @ X[:, 0]),
        lambda X, w: (w.sum() / (w @ X[:, 0]),),
        lambda X, w: {"rate": w.sum() / (w @ X[:, 0])},
    ):
        family = Custom(exponential, {"rate": POSITIVE}, fit=returned)
        assert family.maximise(family.statistics(X)).parameters["rate"][0] == pytest.approx(expected, rel=1e-12)
    one = normals(2, fit=lambda X, w: (X.mean(axis=0), X.var(axis=0)))
    assert one.maximise(one.statistics(np.arange(8.0).reshape(4, 2))).parameters["mean"].tolist() == [[3, 4]]
    alone = Custom(normal, {"mean": Parameter((2,))}, 2, fit=lambda X, w: X.mean(axis=0))
    assert alone.maximise(alone.statistics(np.arange(8.0).reshape(4, 2))).parameters["mean"].tolist() == [[3, 4]]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({"lok": 0.0, "kappa": 1.0}, r"fit must return values for \['loc', 'kappa'\], got \['lok', 'kappa'\]"),
        ((0.0,), "fit must return values for"),
        (None, "fit must return values for"),
        ((0.0, -1.0), r"kappa, as fit returned it for component 0, must be within \[0, inf\]"),
        ((0.0, nan), "kappa, as fit returned it for component 0, must be finite"),
        ((0.0, [1.0]), "kappa, as fit returned it for component 0, must have shape"),
    ],
)
def test_wrong_results_of_the_users_fit(returned, message):
    family = Custom(von_mises, VON_MISES, fit=lambda X, w: returned)
    with pytest.raises(ValueError, match=message):
        family.maximise(family.statistics([[0.0]]))


# ---- the rest --------------------------------------------------------------------------------------------------------


def test_samples(rng):
    """False alarms: 1e-6 each; the seed is fixed."""
    family = wind(values={"loc": [-2.0, 1.0], "kappa": [4.0, 8.0]})
    components = rng.integers(2, size=4000)
    X = family.sample(components, rng)
    assert X.shape == (4000, 1)
    for k, (loc, kappa) in enumerate([(-2, 4), (1, 8)]):
        assert stats.kstest(X[components == k, 0], stats.vonmises(kappa, loc).cdf).pvalue > 1e-6
    again = [family.sample([0, 1, 0], np.random.default_rng(1)) for _ in range(2)]
    assert np.array_equal(*again)
    values = {"loc": [0.0], "kappa": [1.0]}
    with pytest.raises(NotImplementedError, match="give it sample="):
        Custom(von_mises, VON_MISES, values=values).sample([0], rng)
    with pytest.raises(ValueError, match=r"sample must return an array of shape \(3, 1\), got \(2,\)"):
        Custom(von_mises, VON_MISES, values=values, sample=lambda *_: [0.0, 1.0]).sample([0, 0, 0], rng)


def test_parts_that_are_not_known(rng):
    family = normals(2, values={"mean": np.zeros((1, 2)), "variances": np.ones((1, 2))})
    X = rng.standard_normal((5, 2))
    for same in (family.marginal([0, 1]), family.condition({})):
        assert np.array_equal(same.log_density(X), family.log_density(X))
    assert np.array_equal(family.impute(X), X)
    assert family.penalty(family.statistics(X)) == 0
    X[0, 0] = nan
    for call in (lambda: family.marginal([1]), lambda: family.condition({0: 1.0}), lambda: family.impute(X)):
        with pytest.raises(NotImplementedError, match="not known"):
            call()


def test_a_family_is_a_value_and_can_be_pickled(rng):
    loc, kappa = np.array([0.0, 2.0]), np.array([1.0, 4.0])
    X = rng.uniform(-3, 3, (20, 1))
    for density in (von_mises, von_mises.py_func):
        family = Custom(density, VON_MISES, values={"loc": loc, "kappa": kappa})
        before = family.log_density(X)
        loc += 1
        assert np.array_equal(family.log_density(X), before)
        loc -= 1
        if density is von_mises:  # py_func is not what its name refers to
            again = pickle.loads(pickle.dumps(family))
            assert np.array_equal(again.log_density(X), before)
            with pytest.raises(ValueError, match="read-only"):
                again.parameters["loc"][0] = 1
        assert repr(family) == "families.Custom(von_mises, 2 components, 1 features)"
    wrapped = Custom(von_mises, VON_MISES, values={"loc": [math.pi, 7.0], "kappa": kappa}).parameters["loc"]
    np.testing.assert_allclose(wrapped, [-math.pi, 7 - 2 * math.pi], rtol=1e-14)


def test_without_parameters():
    family = wind()
    assert family.n_features == 1
    assert repr(family) == "families.Custom(von_mises, 1 features)"
    for name in ("n_components", "n_parameters", "parameters"):
        with pytest.raises(AttributeError, match="no parameters yet"):
            getattr(family, name)
    with pytest.raises(AttributeError, match="no parameters yet"):
        family.log_density([[0.0]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parameters": {}}, "declare at least one parameter"),
        ({"parameters": {"loc": 3}}, "loc must be declared by a Parameter"),
        ({"log_density": 3}, "log_density must be a function"),
        ({"n_features": 0}, "n_features must be an integer"),
        ({"max_steps": 0}, "max_steps must be an integer"),
        ({"statistics": von_mises_sums}, "give both statistics and maximise"),
        ({"maximise": von_mises_sums}, "give both statistics and maximise"),
        ({"fit": len, "maximise": len, "statistics": len}, "give fit, or statistics and maximise"),
        ({"values": {"loc": [0.0]}}, r"values must be given for \['loc', 'kappa'\]"),
        ({"values": {"loc": [0.0], "kappa": [1.0, 2.0]}}, r"kappa must have shape \(1,\)"),
        ({"values": {"loc": [0.0], "kappa": [-1.0]}}, r"kappa must be within \[0, inf\]"),
        ({"values": {"loc": [nan], "kappa": [1.0]}}, "loc must be finite"),
        ({"values": {"loc": [], "kappa": []}}, "at least one component"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Custom(**({"log_density": von_mises, "parameters": VON_MISES} | arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bounds": (1, 1)}, "low < high"),
        ({"bounds": (nan, 1)}, "low < high"),
        ({"periodic": True}, "finite bounds"),
        ({"shape": 3}, "shape must be a tuple"),
        ({"shape": (0,)}, "shape must be a tuple"),
        ({"bounds": (0, 1), "start": 2}, "start must be within"),
        ({"shape": (2,), "start": [1.0]}, "start must have shape"),
    ],
)
def test_wrong_declarations(arguments, message):
    with pytest.raises(ValueError, match=message):
        Parameter(**arguments)


def test_wrong_data_weights_and_statistics(rng):
    values = {"loc": [0.0, 1.0], "kappa": [1.0, 1.0]}
    X = rng.uniform(-1, 1, (10, 1))
    family = wind(values=values)
    with pytest.raises(ValueError, match="X has 2 features, but 1 were expected"):
        family.log_density(np.zeros((3, 2)))
    for weights in (None, np.ones(10), np.ones((10, 3)), -np.ones((10, 2)), np.ones((9, 2))):
        with pytest.raises(ValueError, match="weights must"):
            family.statistics(X, weights)
    for way in WAYS:
        weights = np.ones((10, 2))
        weights[:, 1] = 0
        with pytest.raises(EmptyComponentError, match="component 1 has no weight"):
            wind(way).maximise(wind(way).statistics(X, weights))
    with pytest.raises(TypeError, match="needs DataStatistics"):
        wind().maximise(wind("sums").statistics(X))
    with pytest.raises(TypeError, match="needs SumStatistics"):
        wind("sums").maximise(wind().statistics(X))
    with pytest.raises(ValueError, match="statistics of 1 components"):
        family.maximise(wind().statistics(X))
    one, two = wind().statistics(X), wind().statistics(X, np.ones((10, 2)))
    with pytest.raises(ValueError, match="statistics of 1 and 2 components"):
        one + two
    sums, other = wind("sums").statistics(X), wind("sums").statistics(X, np.ones((10, 2)))
    with pytest.raises(ValueError, match="cannot be merged"):
        sums + other
    for wrong in (sums, 1, None):
        with pytest.raises(TypeError):
            one + wrong
    for returned in (np.ones((2, 2)), [nan], 3.0):
        bad = Custom(von_mises, VON_MISES, statistics=lambda X, w, r=returned: r, maximise=von_mises_of_sums)
        with pytest.raises(ValueError, match="statistics must return a finite array"):
            bad.statistics(X)
    with pytest.raises(ValueError, match=r"not finite where optimisation starts \(rate = 1.0\)"):
        Custom(exponential, {"rate": POSITIVE}).maximise(Custom(exponential, {"rate": POSITIVE}).statistics([[-1.0]]))


def test_numba_is_imported_only_if_it_is_used(python):
    code = """
import sys, math
import fastgen.families as families
def density(x, rate):
    return math.log(rate) - rate * x[0]
family = families.Custom(density, {"rate": families.Parameter(bounds=(0, math.inf))}, values={"rate": [2.0]})
family.log_density([[1.0]])
families.StudentT().maximise(families.StudentT().statistics([[0.0], [1.0], [3.0]])).log_density([[1.0]])
assert not {"numba", "scipy", "sklearn"} & set(sys.modules), "imported"
"""
    python(code)
