"""`fastgen.hmm` in the place of hmmlearn's: its own tests, equal results, and each difference that is documented."""

import copy
import importlib.util
import inspect
import logging
import pickle
import re
import sys
import types
from itertools import pairwise
from unittest.mock import patch

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import multivariate_normal, poisson
from sklearn.base import clone
from sklearn.metrics import adjusted_rand_score

from fastgen import hmm

hmmlearn = pytest.importorskip("hmmlearn", reason="hmmlearn is not installed: there is nothing to compare with")
with np.errstate():  # hmmlearn.tests changes the settings of the whole process
    theirs = importlib.import_module("hmmlearn.hmm")
    TheirMonitor = importlib.import_module("hmmlearn.base").ConvergenceMonitor
    importlib.import_module("hmmlearn.tests")

TYPES = ("spherical", "diag", "full", "tied")
GMMS = "sets gmms_, which hmmlearn's own class has not had for years (marked as failing there)"
MODULES = {
    "test_gaussian_hmm": {"test_underflow_from_scaling[scaling]": "wants underflow to be an error; here nothing does"},
    "test_categorical_hmm": {},
    "test_poisson_hmm": {},
    "test_multinomial_hmm": {},
    "test_gmm_hmm": {"test_score_samples_and_decode": GMMS, "test_sample": GMMS, "test_fit": GMMS},
    "test_gmm_hmm_new": {},
    "test_gmm_hmm_multisequence": {},
}


def without(cases, name, test):
    """The test without its excluded cases; where hmmlearn expects to fail, we must not."""
    if hasattr(test, "pytestmark"):
        test.pytestmark = [mark for mark in test.pytestmark if mark.name != "xfail"]
    excluded = [re.fullmatch(rf"{name}\[(\w+)\]", case)[1] for case in cases if case.startswith(f"{name}[")]
    if not excluded:
        return test

    def remaining(self, implementation):
        if implementation in excluded:
            pytest.skip(cases[f"{name}[{implementation}]"])
        test(self, implementation)

    return pytest.mark.parametrize("implementation", ["scaling", "log"])(remaining)


def peer_tests(module, excluded):
    """Tests of a module of hmmlearn, imported anew with our classes in the place of theirs."""
    origin = importlib.util.find_spec(f"hmmlearn.tests.{module}")
    spec = importlib.util.spec_from_file_location(f"hmmlearn.tests.fastgen_{module}", origin.origin)
    loaded = importlib.util.module_from_spec(spec)
    with patch.object(hmmlearn, "hmm", hmm), patch.dict(sys.modules, {"hmmlearn.hmm": hmm}):
        spec.loader.exec_module(loaded)
    found = {}
    for name, value in vars(loaded).items():
        if inspect.isclass(value) and name.startswith("Test"):
            members = {
                member: without(excluded, member, test)
                for base in reversed(value.__mro__[:-1])
                for member, test in vars(base).items()
                if member not in excluded and not member.startswith("__") and member != "pytestmark"
            }
            found[f"Test_{module}_{name}"] = type(name, (), members)
        elif name.startswith("test_"):
            found[f"{name}_of_{module}"] = value
    return found


THEIRS = {name: test for module, excluded in MODULES.items() for name, test in peer_tests(module, excluded).items()}
for found in THEIRS.values():
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")(found)  # of k-means
globals().update(THEIRS)


@pytest.fixture(autouse=True)
def seeded():
    """Their tests draw from NumPy's global generator."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(20240229)  # noqa: NPY002
    yield
    np.random.set_state(before)  # noqa: NPY002


def test_their_tests_were_found():
    names = set(THEIRS)
    assert len(names) >= 17
    assert {f"Test_test_gaussian_hmm_TestGaussianHMMWith{kind}Covars" for kind in ("Full", "Tied")} <= names
    tests = [getattr(t, m) for t in THEIRS.values() if inspect.isclass(t) for m in dir(t) if m.startswith("test_")]
    assert len(tests) >= 90
    used = {id(t.__globals__.get("hmm")) for t in tests if isinstance(t, types.FunctionType)}
    assert id(hmm) in used
    assert id(theirs) not in used
    assert THEIRS["Test_test_gmm_hmm_new_TestGMMHMM_KmeansInit"].test_kmeans.__globals__["GMMHMM"] is hmm.GMMHMM


# ---- the same as hmmlearn --------------------------------------------------------------------------------------------

LENGTHS = [150, 1, 249]
STATES = np.repeat([0, 1, 2, 0, 1], 80)


def gaussian_data(offset=0.0):
    rng = np.random.default_rng(5)
    X = rng.normal(size=(400, 2)) * [[1.0, 0.7]] + np.array([[0, 0], [3, 1], [-2, 4.0]])[STATES]
    return np.round(X * 2**20) / 2**20 + offset  # exact at an offset of 1e8


def data_of(name):
    rng = np.random.default_rng(6)
    if name == "CategoricalHMM":
        p = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.2, 0.6, 0.1], [0.1, 0.1, 0.1, 0.7]])
        return (p[STATES].cumsum(axis=1) < rng.random((400, 1))).sum(axis=1)[:, None]
    if name == "PoissonHMM":
        return rng.poisson(np.array([[1, 9.0], [4, 2], [12, 5]])[STATES])
    if name == "MultinomialHMM":
        p = np.array([[0.7, 0.1, 0.2], [0.1, 0.3, 0.6], [0.3, 0.6, 0.1]])
        return rng.multinomial(rng.integers(1, 9, 400), p[STATES])
    return gaussian_data()


CASES = [
    *(("GaussianHMM", {"covariance_type": kind}) for kind in TYPES),
    *(("GMMHMM", {"covariance_type": kind, "n_mix": 2}) for kind in TYPES),
    ("CategoricalHMM", {}),
    ("PoissonHMM", {}),
    ("MultinomialHMM", {}),
]
PARAMETERS = ("startprob_", "transmat_", "means_", "weights_", "emissionprob_", "lambdas_")
cases = pytest.mark.parametrize(
    ("name", "options"), CASES, ids=[f"{n}-{'-'.join(map(str, o.values()))}" for n, o in CASES]
)


def pair(name, options, **more):
    settings = {"n_components": 3, "random_state": 3, "n_iter": 6, "tol": -np.inf, **options, **more}
    return getattr(hmm, name)(**settings), getattr(theirs, name)(**settings)


def covariances(model):
    """In the shape of ours: hmmlearn's spherical ones have one row too many for each column."""
    if isinstance(model, theirs.GaussianHMM) and model.covariance_type == "spherical":
        d = model.n_features
        return np.asarray(model._covars_).reshape(len(model.means_), -1)[:, :1, None] * np.eye(d)
    return model.covars_


def assert_same_parameters(ours, other, rtol=1e-8, atol=1e-11):
    for name in PARAMETERS:
        assert hasattr(ours, name) == hasattr(other, name)
        if hasattr(ours, name):
            assert_allclose(getattr(ours, name), getattr(other, name), rtol, atol, err_msg=name)
    if hasattr(other, "covars_"):
        assert_allclose(covariances(ours), covariances(other), rtol, atol)


def constructors(module):
    return [
        getattr(module, name) for name in ("GaussianHMM", "GMMHMM", "CategoricalHMM", "MultinomialHMM", "PoissonHMM")
    ]


def test_same_constructors():
    for ours, other in zip(constructors(hmm), constructors(theirs), strict=True):
        ours, other = (inspect.signature(cls).parameters.values() for cls in (ours, other))
        assert [(p.name, p.kind, p.default) for p in ours] == [(p.name, p.kind, p.default) for p in other]
    assert set(theirs.__all__) <= set(hmm.__all__)


@cases
def test_same_fit(name, options):
    X = data_of(name)
    ours, other = pair(name, options)
    assert ours.fit(X, LENGTHS) is ours
    other.fit(X, LENGTHS)
    assert_same_parameters(ours, other)
    assert_allclose(ours.history_, other.monitor_.history, rtol=1e-12)
    assert_allclose(ours.monitor_.history, other.monitor_.history, rtol=1e-12)
    assert ours.monitor_.iter == other.monitor_.iter == 6
    assert ours.n_features == other.n_features
    assert ours.log_likelihood_ == pytest.approx(other.score(X, LENGTHS), rel=1e-12)
    assert ours.log_likelihood_ == ours.score(X, LENGTHS)


@cases
def test_same_fit_from_given_parameters(name, options):
    X = data_of(name)
    ours, other = pair(name, options, init_params="", n_iter=3)
    ours, start = pair(name, options, n_iter=1)[0], pair(name, options, n_iter=1)[1]
    start.fit(X)
    other = copy.deepcopy(start)
    ours.init_params = other.init_params = ""
    for parameter in PARAMETERS:
        if hasattr(start, parameter):
            setattr(ours, parameter, getattr(start, parameter).tolist())  # lists will do
    if hasattr(start, "covars_"):
        ours.covars_ = getattr(start, "_covars_", None) if name == "GaussianHMM" else start.covars_
    if name == "MultinomialHMM":
        ours.n_trials = None
    ours.fit(X, LENGTHS)
    other.fit(X, LENGTHS)
    assert_same_parameters(ours, other)


@cases
def test_same_use(name, options):
    X = data_of(name)
    ours, other = (model.fit(X, LENGTHS) for model in pair(name, options))
    assert ours.score(X, LENGTHS) == pytest.approx(other.score(X, LENGTHS), rel=1e-11)
    assert ours.score(X) == pytest.approx(other.score(X), rel=1e-11)
    for mine, yours in zip(ours.score_samples(X, LENGTHS), other.score_samples(X, LENGTHS), strict=True):
        assert_allclose(mine, yours, rtol=1e-7, atol=1e-11)
    assert_allclose(ours.predict_proba(X), other.predict_proba(X), rtol=1e-7, atol=1e-11)
    log_prob, path = ours.decode(X, LENGTHS)
    assert log_prob == pytest.approx(other.decode(X, LENGTHS)[0], rel=1e-11)
    assert_array_equal(path, other.decode(X, LENGTHS)[1])
    assert_array_equal(ours.predict(X), other.predict(X))
    assert_array_equal(ours.decode(X, LENGTHS, "map")[1], other.decode(X, LENGTHS, "map")[1])
    assert_allclose(ours.get_stationary_distribution(), other.get_stationary_distribution(), rtol=1e-8)
    assert isinstance(ours.score(X), float)
    assert isinstance(log_prob, float)


@cases
def test_same_samples(name, options):
    X = data_of(name)
    ours, other = (model.fit(X) for model in pair(name, options))
    if name == "MultinomialHMM":
        ours.n_trials = other.n_trials = 7
    if name == "GaussianHMM" and options["covariance_type"] == "spherical":
        other._covars_ = other._covars_[:, 0]
    for settings in ({"n_samples": 60}, {"n_samples": 5, "currstate": 2}, {}):
        mine, yours = (model.sample(random_state=11, **settings) for model in (ours, other))
        assert_allclose(mine[0], yours[0], rtol=1e-9, atol=1e-9)
        assert_array_equal(mine[1], yours[1])
        assert mine[0].shape == yours[0].shape
        assert mine[0].dtype == yours[0].dtype
    assert_array_equal(ours.sample(4)[0], ours.sample(4)[0])  # the model's own seed


LETTERS = [
    (name, options, letter)
    for name, options in CASES
    for letter in getattr(hmm, name)._letters
    if (name, letter) != ("GaussianHMM", "c")  # wrong in hmmlearn: see below
]


@pytest.mark.parametrize(("name", "options", "letter"), LETTERS)
def test_same_fit_of_some_parameters(name, options, letter):
    X = data_of(name)
    ours, other = (model.fit(X, LENGTHS) for model in pair(name, options, params=letter, n_iter=3))
    assert_same_parameters(ours, other)


PRIORS = {
    "GaussianHMM": {
        "means_prior": [1.0, -1.0], "means_weight": 3.0, "covars_prior": 0.4, "covars_weight": 5.0,
    },
    "GMMHMM": {"weights_prior": 2.0, "means_prior": 0.5, "means_weight": 2.0},
    "CategoricalHMM": {"emissionprob_prior": 1.7},
    "MultinomialHMM": {},
    "PoissonHMM": {},
}  # fmt: skip
GMM_COVARIANCE_PRIORS = {
    "spherical": (0.5, 0.3),
    "diag": (0.5, 0.3),
    "full": (0.5 * np.eye(2), 4.0),
    "tied": (0.5 * np.eye(2), 4.0),
}


@cases
def test_same_priors(name, options):
    X = data_of(name)
    priors = {"startprob_prior": [1.5, 2.0, 0.7], "transmat_prior": 0.5 + np.eye(3), **PRIORS[name]}
    if name == "GMMHMM":
        priors["covars_prior"], priors["covars_weight"] = GMM_COVARIANCE_PRIORS[options["covariance_type"]]
    if name == "GaussianHMM" and options["covariance_type"] == "full":
        priors["covars_prior"] = np.stack([np.eye(2) * scale for scale in (0.1, 0.2, 0.3)])
    settings = options | {key: np.asarray(value) for key, value in priors.items()}
    if name == "GaussianHMM":
        settings["covars_weight"] = 5.0
    ours, other = (model.fit(X, LENGTHS) for model in pair(name, settings))
    assert_same_parameters(ours, other)


def test_same_fit_where_iterations_stop():
    X = gaussian_data()
    for n_iter, tol in ((200, 1e-2), (200, 1e-6), (3, 1e-2)):
        ours, other = (m.fit(X, LENGTHS) for m in pair("GaussianHMM", {}, n_iter=n_iter, tol=tol, covars_prior=0))
        assert ours.monitor_.iter == other.monitor_.iter
        assert_same_parameters(ours, other)
        assert ours.stop_reason_ == ("max_iter" if n_iter == 3 else "converged")


def test_float32_and_lists():
    X = gaussian_data().astype(np.float32)
    ours, other = pair("GaussianHMM", {})
    ours.fit(X, LENGTHS)
    other.fit(X.astype(float), LENGTHS)
    assert_same_parameters(ours, other, rtol=1e-4, atol=1e-4)
    assert ours.means_.dtype == np.float64
    again = clone(ours).fit(X.tolist(), LENGTHS)
    assert_allclose(again.means_, ours.means_, rtol=1e-3, atol=1e-4)


@cases
@pytest.mark.parametrize("implementation", ["log", "scaling"])
def test_implementations_give_the_same_bits(name, options, implementation):
    X = data_of(name)
    ours = pair(name, options, n_iter=2)[0].fit(X)
    other = pair(name, options, n_iter=2, implementation=implementation)[0].fit(X)
    assert_array_equal(ours.transmat_, other.transmat_)


def test_unknown_settings():
    X = gaussian_data()
    for settings, message in (
        ({"implementation": "logs"}, "implementation"),
        ({"params": "stx"}, "params"),
        ({"n_components": 0}, "n_components"),
        ({"covariance_type": "round"}, "covariance_type"),
    ):
        with pytest.raises(ValueError, match=message):
            hmm.GaussianHMM(**settings).fit(X)
    model = hmm.GaussianHMM(2).fit(X)
    with pytest.raises(ValueError, match="Unknown decoder"):
        model.decode(X, algorithm="best")
    for lengths in ([100, 100], [400, 0], [-1, 401], [200.5, 199.5]):
        with pytest.raises(ValueError, match="lengths"):
            model.score(X, lengths)
    model.transmat_ = [[1.5, -0.5], [0.5, 0.5]]
    with pytest.raises(ValueError, match="negative"):
        model.score(X)


def test_deprecated_shape_of_symbols():
    ours, other = (model.fit(data_of("CategoricalHMM")) for model in pair("CategoricalHMM", {}))
    row = np.array([[0, 1, 2, 3, 3]])
    with pytest.warns(DeprecationWarning, match="n_samples, 1"):
        mine = ours.score(row)
    assert mine == ours.score(row.T) == pytest.approx(other.score(row.T))


# ---- where hmmlearn is wrong: each row of the table ------------------------------------------------------------------


def test_converged_only_if_the_last_gain_was_small():
    X = gaussian_data()
    ours, other = (model.fit(X) for model in pair("GaussianHMM", {}, n_iter=2, tol=1e-9))
    assert other.monitor_.converged
    assert not ours.monitor_.converged
    assert ours.stop_reason_ == "max_iter"
    ours, other = hmm.ConvergenceMonitor(1e-2, 10, False), TheirMonitor(1e-2, 10, False)
    for monitor in (ours, other):
        for log_prob in (-100.0, -50.0, -60.0):
            monitor.report(log_prob)
    assert other.converged
    assert not ours.converged
    assert ours._stop
    ours.report(-60.0 - 1e-9)  # rounding
    assert ours.converged
    assert "history=[-100.0" in repr(ours)


def test_a_fall_stops_and_is_told(caplog):
    """With a prior the likelihood may fall."""
    rng = np.random.default_rng(0)
    X = 1e-3 * rng.normal(size=(60, 1))
    settings = {"n_components": 1, "covars_prior": 1.0, "init_params": "st", "tol": 1e-2}
    ours, other = hmm.GaussianHMM(**settings), theirs.GaussianHMM(**settings)
    for model in (ours, other):
        model.means_, model.covars_ = [[0.0]], [[1e-6]]
        model.fit(X)
    assert ours.monitor_.iter == other.monitor_.iter == 2
    assert other.monitor_.converged
    assert not ours.monitor_.converged
    assert ours.stop_reason_ == "decreased"
    assert any("not converging" in r.getMessage() and r.name == "fastgen" for r in caplog.records)


def test_map_returns_the_probability_of_its_path():
    X = data_of("CategoricalHMM")
    ours, other = (model.fit(X, LENGTHS) for model in pair("CategoricalHMM", {}))
    log_prob, path = ours.decode(X, LENGTHS, algorithm="map")
    expected, start = 0.0, 0
    for length in LENGTHS:
        part = path[start : start + length]
        expected += np.log(ours.startprob_[part[0]])
        expected += np.log(ours.transmat_[part[:-1], part[1:]]).sum()
        expected += np.log(ours.emissionprob_[part, X[start : start + length, 0]]).sum()
        start += length
    assert log_prob == pytest.approx(expected, rel=1e-12)
    assert log_prob <= ours.decode(X, LENGTHS)[0]
    assert other.decode(X, LENGTHS, algorithm="map")[0] > 0


def test_map_path_that_is_impossible():
    model = hmm.CategoricalHMM(3)
    model.startprob_, model.transmat_ = [0.3, 0.4, 0.3], [[0, 0, 1], [0, 1, 0], [0, 0, 1]]
    model.emissionprob_ = [[1.0], [1.0], [1.0]]
    log_prob, path = model.decode([[0], [0]], algorithm="map")
    assert_array_equal(path, [1, 2])  # each the most probable; from 1 to 2: never
    assert log_prob == -np.inf


@cases
def test_states_never_visited_keep_their_parameters(name, options):
    X = data_of(name)
    model = pair(name, options, n_iter=4, covars_prior=0.0)[0] if name == "GaussianHMM" else pair(name, options)[0]
    model.fit(X)
    model.init_params = ""
    model.startprob_ = [0.5, 0.5, 0.0]
    model.transmat_ = [[0.8, 0.2, 0], [0.3, 0.7, 0], [0.2, 0.3, 0.5]]  # state 2 cannot be reached
    before = copy.deepcopy(model)
    model.fit(X, LENGTHS)
    assert_array_equal(model.transmat_[2], [0.2, 0.3, 0.5])
    for parameter in ("means_", "emissionprob_", "lambdas_", "weights_"):
        if hasattr(model, parameter):
            assert_array_equal(getattr(model, parameter)[2], getattr(before, parameter)[2])
            assert (getattr(model, parameter)[:2] != getattr(before, parameter)[:2]).any()
    if hasattr(model, "covars_") and not (name == "GaussianHMM" and options["covariance_type"] == "tied"):
        assert_array_equal(model.covars_[2], before.covars_[2])
    assert np.isfinite(model.score(X))
    assert model.startprob_[2] == 0


def test_hmmlearn_fails_after_a_state_was_never_visited():
    """So that the row of the table goes once this is no longer so."""
    other = theirs.CategoricalHMM(2, init_params="e", n_iter=3, random_state=0)
    other.startprob_, other.transmat_ = np.array([1.0, 0]), np.array([[1.0, 0], [0.5, 0.5]])
    X = data_of("CategoricalHMM")
    other.fit(X)
    with pytest.raises(ValueError, match="sum to 1"):
        other.score(X)


def test_criteria_count_what_is_free():
    X = gaussian_data()
    n = len(X)

    def free(model):
        by_aic = round((model.aic(X) + 2 * model.score(X)) / 2, 6)
        assert by_aic == pytest.approx((model.bic(X) + 2 * model.score(X)) / np.log(n))
        return by_aic

    assert free(hmm.GaussianHMM(3, "full", random_state=0).fit(X)) == 2 + 6 + 6 + 9
    assert free(hmm.GaussianHMM(3, "full", params="mt", random_state=0).fit(X)) == 6 + 6
    model = hmm.GaussianHMM(3, "diag", init_params="mc", random_state=0)
    model.startprob_, model.transmat_ = [1, 0, 0], [[0.5, 0.5, 0], [0, 0.5, 0.5], [0, 0, 1]]
    assert free(model.fit(X)) == 0 + 2 + 6 + 6
    for kind, c in (("spherical", 6), ("diag", 12), ("full", 18), ("tied", 6)):
        ours, other = pair("GMMHMM", {"n_components": 2, "n_mix": 3, "covariance_type": kind})
        assert free(ours.fit(X)) == 1 + 2 + 12 + c + 2 * 2
        with np.errstate(divide="ignore"):
            other.fit(X)
            assert round((other.aic(X) + 2 * other.score(X)) / 2) == 1 + 2 + 12 + c + 2
    # What became 0 in the fit was free.
    model = hmm.GaussianHMM(3, "full", random_state=0, n_iter=200).fit(X)
    model.startprob_ = [1.0, 0, 0]
    assert free(model) == 2 + 6 + 6 + 9


def test_criteria_of_models_of_counts():
    assert hmm.PoissonHMM(2, random_state=0).fit(data_of("PoissonHMM"))._n_free() == 1 + 2 + 4
    assert hmm.CategoricalHMM(2, random_state=0).fit(data_of("CategoricalHMM"))._n_free() == 1 + 2 + 6
    assert hmm.MultinomialHMM(2, random_state=0).fit(data_of("MultinomialHMM"))._n_free() == 1 + 2 + 4


def test_poisson_prior_is_weighed_against_each_states_own_data():
    X = data_of("PoissonHMM")
    ours, other = pair("PoissonHMM", {}, n_iter=1, lambdas_prior=[5.0, 6.0, 7.0], lambdas_weight=2.0)
    ours._init(X)
    start = copy.deepcopy(ours)
    posterior = start.predict_proba(X)
    ours.fit(X)
    expected = (np.array([[5.0], [6.0], [7.0]]) + posterior.T @ X) / (2.0 + posterior.sum(axis=0)[:, None])
    assert_allclose(ours.lambdas_, expected, rtol=1e-10)
    other.lambdas_prior = np.array([[5.0], [6.0], [7.0]])
    assert np.abs(other.fit(X).lambdas_ - expected).max() > 1e-3


@pytest.mark.parametrize("kind", TYPES)
def test_covariances_about_means_that_are_not_fitted(kind):
    X = gaussian_data()
    ours, other = pair("GaussianHMM", {"covariance_type": kind}, params="c", covars_prior=0.0, n_iter=1)
    ours._init(X)
    posterior = ours.predict_proba(X)
    ours.fit(X)
    centred = X - ours.means_[:, None, :]
    full = np.einsum("nk,kni,knj->kij", posterior, centred, centred)
    weight = posterior.sum(axis=0)
    expected = {
        "full": full / weight[:, None, None],
        "diag": full / weight[:, None, None] * np.eye(2),
        "spherical": np.trace(full, axis1=1, axis2=2)[:, None, None] / weight[:, None, None] / 2 * np.eye(2),
        "tied": np.tile(full.sum(axis=0) / weight.sum(), (3, 1, 1)),
    }[kind]
    assert_allclose(ours.covars_, expected, rtol=1e-9, atol=1e-12)
    with np.errstate(all="ignore"):
        other.fit(X)
        assert not np.abs(covariances(other) - expected).max() < 1


def test_spherical_covariances_have_one_matrix_for_each_state():
    X = gaussian_data()
    ours, other = (model.fit(X) for model in pair("GaussianHMM", {"covariance_type": "spherical"}))
    assert other.covars_.shape == (6, 2, 2)
    assert ours.covars_.shape == (3, 2, 2)
    assert ours._covars_.shape == (3,)
    ours.means_, ours.covars_ = np.zeros((3, 2)), [1.0, 100.0, 10_000.0]
    samples, states = ours.sample(3000, random_state=0)
    for k, sd in enumerate((1.0, 10.0, 100.0)):
        assert samples[states == k].std() == pytest.approx(sd, rel=0.2)
    for given in ([1.0, 2.0, 3.0], [[1.0], [2.0], [3.0]], [[1.0, 1], [2, 2], [3, 3]]):
        ours.covars_ = given
        assert_array_equal(ours._covars_, [1.0, 2.0, 3.0])
    for wrong in ([[1.0, 2], [2, 2], [3, 3]], [1.0, 2.0], [1.0, 0.0, 2.0], [1.0, np.nan, 2.0]):
        with pytest.raises(ValueError, match="spherical"):
            ours.covars_ = wrong


def test_priors_of_one_number_for_each_state():
    rng = np.random.default_rng(3)
    X = np.c_[gaussian_data(), rng.normal(size=400)]  # as many columns as states: then hmmlearn spreads over columns
    settings = {
        "covariance_type": "spherical",
        "n_iter": 1,
        "params": "mc",
        "covars_prior": np.array([1.0, 50.0, 900.0]),
    }
    ours, other = pair("GaussianHMM", settings)
    column = clone(ours).set_params(covars_prior=settings["covars_prior"][:, None])
    assert_allclose(ours.fit(X).covars_, column.fit(X).covars_, rtol=1e-12)
    assert not np.allclose(covariances(other.fit(X)), ours.covars_, rtol=1e-2)
    weights = np.array([1.0, 10.0, 100.0])
    ours = pair("GaussianHMM", {}, n_iter=1, means_weight=weights)[0].fit(X)
    column = pair("GaussianHMM", {}, n_iter=1, means_weight=weights[:, None])[0].fit(X)
    assert_array_equal(ours.means_, column.means_)


@pytest.mark.parametrize("kind", TYPES)
def test_mixtures_without_prior_are_maximum_likelihood(kind):
    """The covariances of one iteration, whatever the number of Gaussians."""
    X = gaussian_data()[:, :1]
    ours = hmm.GMMHMM(1, 3, covariance_type=kind, random_state=0, n_iter=1, params="c")
    ours._init(X)
    before = copy.deepcopy(ours)
    ours.fit(X)
    variances = np.broadcast_to(before.covars_.reshape(-1), (3,))
    density = before.weights_[0] * np.exp(-0.5 * (X - before.means_[0, :, 0]) ** 2 / variances) / np.sqrt(variances)
    posterior = density / density.sum(axis=1, keepdims=True)
    squares = (posterior * (X - before.means_[0, :, 0]) ** 2).sum(axis=0)
    if kind == "tied":
        expected = np.array([squares.sum() / len(X)])
    else:
        expected = squares / posterior.sum(axis=0)
    assert_allclose(ours.covars_.ravel(), expected, rtol=1e-9)


def test_hmmlearns_spherical_mixtures_are_not():
    X = gaussian_data()[:, :1]
    other = theirs.GMMHMM(1, 3, covariance_type="spherical", random_state=0, n_iter=1, params="c").fit(X)
    ours = hmm.GMMHMM(1, 3, covariance_type="spherical", random_state=0, n_iter=1, params="c").fit(X)
    assert np.abs(other.covars_ / ours.covars_ - 1).max() > 1e-3


def test_small_clusters_start_from_the_models_own_seed():
    rng = np.random.default_rng(0)
    X = np.r_[rng.uniform(0, 1, (100, 2)), rng.uniform(50, 51, (5, 2))]
    starts = []
    for _ in range(2):
        model = hmm.GMMHMM(2, 10, random_state=0)
        model._init(X)
        starts.append(model.means_)
    assert_array_equal(*starts)
    starts = []
    for seed in (0, 0):
        other = theirs.GMMHMM(2, 10, random_state=seed)
        other._init(X)
        starts.append(other.means_)
    assert not np.array_equal(*starts)


def test_weights_do_not_become_negative():
    X = gaussian_data()
    ours, other = pair(
        "GMMHMM", {"n_mix": 4, "covariance_type": "spherical"}, weights_prior=[1.0, 1.0, 1.0, -60.0], n_iter=1
    )
    ours.fit(X)
    assert other.fit(X).weights_.min() < 0
    assert ours.weights_.min() == 0
    assert_allclose(ours.weights_.sum(axis=1), 1)
    assert np.isfinite(ours.score(X))


@pytest.mark.parametrize("name", ["GaussianHMM", "GMMHMM"])
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("start", ["random", "given"])
def test_an_offset_changes_nothing_but_the_means(name, kind, start):
    offset = 1e8
    models = []
    for shift in (0.0, offset):
        model = getattr(hmm, name)(3, covariance_type=kind, random_state=0, n_iter=8, tol=-np.inf)
        if start == "given":
            model._init(gaussian_data())
            model.means_, model.init_params = model.means_ + shift, ""
        models.append(model.fit(gaussian_data(shift), LENGTHS))
    near, far = models
    assert_allclose(far.transmat_, near.transmat_, rtol=1e-5, atol=1e-9)
    assert_allclose(far.means_ - offset, near.means_, atol=1e-6)
    assert_allclose(far.covars_, near.covars_, rtol=1e-5, atol=1e-7)
    assert far.log_likelihood_ == pytest.approx(near.log_likelihood_, rel=1e-8)
    assert_array_equal(far.predict(gaussian_data(offset)), near.predict(gaussian_data()))


def test_hmmlearn_loses_variances_far_from_zero():
    X = gaussian_data(1e8)
    other = theirs.GaussianHMM(3, random_state=0, n_iter=2)
    ours = hmm.GaussianHMM(3, random_state=0, n_iter=2).fit(X)
    with np.errstate(all="ignore"):
        other.fit(X)
    assert not np.allclose(other._covars_, ours._covars_, rtol=0.1)


def test_impossible_observations():
    model = hmm.CategoricalHMM(2, init_params="", n_features=3)
    model.startprob_, model.transmat_ = [0.5, 0.5], [[0.9, 0.1], [0.2, 0.8]]
    model.emissionprob_ = [[0.5, 0.5, 0], [0.4, 0.6, 0]]
    X = np.array([[0], [1], [0], [2], [1]])
    assert model.score(X) == -np.inf
    assert model.score(X, [2, 3]) == -np.inf
    assert model.decode(X)[0] == -np.inf
    assert_array_equal(model.predict(X, [2, 3])[2:], -1)
    for use in (model.fit, model.score_samples, model.predict_proba, lambda X: model.decode(X, algorithm="map")):
        with pytest.raises(ValueError, match="row 3"):
            use(X)
    assert model.score([[7]]) == -np.inf  # a symbol that the model does not know
    other = theirs.CategoricalHMM(2, n_features=3)
    for name in ("startprob_", "transmat_", "emissionprob_"):
        setattr(other, name, np.asarray(getattr(model, name)))
    with np.errstate(all="ignore"):
        assert np.isnan(other.predict_proba(X)).any()


def test_impossible_transitions():
    model = hmm.PoissonHMM(2, init_params="")
    model.startprob_, model.transmat_ = [1.0, 0.0], [[1.0, 0.0], [0.5, 0.5]]
    model.lambdas_ = [[0.0], [5.0]]
    assert model.score([[0], [0], [3]]) == -np.inf
    with pytest.raises(ValueError, match="row 2"):
        model.fit([[0], [0], [3]])


@pytest.mark.parametrize("kind", TYPES)
def test_missing_values_are_marginalised(kind):
    X = gaussian_data()
    model = hmm.GaussianHMM(3, kind, random_state=0).fit(X)
    short = X[:5].copy()
    short[1, 0], short[3] = np.nan, np.nan
    total = 0.0
    for path in np.ndindex(3, 3, 3, 3, 3):
        p = model.startprob_[path[0]] * np.prod([model.transmat_[i, j] for i, j in pairwise(path)])
        for t, k in enumerate(path):
            seen = np.flatnonzero(~np.isnan(short[t]))
            if len(seen):
                normal = multivariate_normal(model.means_[k, seen], model.covars_[k][np.ix_(seen, seen)])
                p *= normal.pdf(short[t, seen])
        total += p
    assert model.score(short) == pytest.approx(np.log(total), rel=1e-10)
    with pytest.raises(ValueError, match="NaN"):
        theirs.GaussianHMM(3).fit(short)


@cases
def test_fits_of_data_with_missing_values(name, options):
    X = data_of(name).astype(float)
    rng = np.random.default_rng(8)
    holes = X.copy()
    holes[rng.random(X.shape) < 0.15] = np.nan
    model = pair(name, options, n_iter=20, tol=1e-3)[0]
    if name == "GaussianHMM":
        model.covars_prior = 0.0
    if name == "MultinomialHMM":
        with pytest.raises(ValueError):
            model.fit(holes)
        return
    model.fit(holes, LENGTHS)
    if name != "GMMHMM":
        assert np.diff(model.history_).min() > -1e-6
    assert np.isfinite(model.log_likelihood_)
    assert adjusted_rand_score(model.predict(holes), STATES) > 0.4
    missing = np.full((3, X.shape[1]), np.nan)
    assert model.score(missing) == pytest.approx(0.0, abs=1e-12)


def test_infinity_is_an_error():
    X = gaussian_data()
    X[7, 1] = np.inf
    for model in (hmm.GaussianHMM(2), hmm.GMMHMM(2), hmm.GaussianHMM(2, init_params="st")):
        model.means_, model.covars_ = np.zeros((2, 2)), np.ones((2, 2))
        with pytest.raises(ValueError, match="infinity"):
            model.fit(X)
    with pytest.raises(ValueError, match="infinity"):
        hmm.GaussianHMM(2, random_state=0).fit(gaussian_data()).score(X)


@pytest.mark.parametrize("kind", TYPES)
def test_scaling_does_not_underflow(kind):
    X = np.r_[gaussian_data(), [[1e6, 1e6]]]
    model = hmm.GaussianHMM(3, kind, random_state=0, implementation="scaling").fit(gaussian_data())
    expected = theirs.GaussianHMM(3, kind)
    expected.startprob_, expected.transmat_, expected.means_ = model.startprob_, model.transmat_, model.means_
    expected.covars_ = model._covars_
    assert model.score(X) == pytest.approx(expected.score(X), rel=1e-10)
    assert np.isfinite(model.predict_proba(X)).all()
    expected.implementation = "scaling"
    with pytest.raises(ValueError, match="underflow"):
        expected.score(X)


@cases
def test_a_fit_that_fails_changes_nothing(name, options):
    X = data_of(name)
    model = pair(name, options)[0].fit(X)
    before, identical = pickle.loads(pickle.dumps(model)), dict(vars(model))

    class Stop(Exception):
        pass

    def explode(*args, **kwargs):
        raise Stop

    for target in ("_do_estep", "_do_mstep", "_init", "_check"):
        with patch.object(model, target, explode), pytest.raises(Stop):
            model.fit(X, LENGTHS)
        vars(model).pop(target, None)
    calls = []
    original = type(model)._do_mstep

    def second_time(self, statistics):
        if calls:
            raise Stop
        calls.append(1)
        original(self, statistics)

    with patch.object(type(model), "_do_mstep", second_time), pytest.raises(Stop):
        model.fit(X, LENGTHS)
    assert vars(model).keys() == identical.keys()
    assert all(vars(model)[attribute] is value for attribute, value in identical.items())
    for attribute, value in vars(before).items():
        if isinstance(value, np.ndarray):
            assert_array_equal(vars(model)[attribute], value, err_msg=attribute)
    assert model.monitor_.history == before.monitor_.history
    assert model.monitor_.iter == before.monitor_.iter
    fresh = clone(model)
    names = set(vars(fresh))
    with pytest.raises(ValueError):
        fresh.fit(X[:, :0])
    assert set(vars(fresh)) == names


@cases
def test_settings_are_left_alone(name, options):
    X = data_of(name)
    model = pair(name, options)[0]
    before = {key: value for key, value in model.get_params().items() if key not in ("n_features", "n_trials")}
    first = copy.deepcopy(model.fit(X))
    assert {key: value for key, value in model.get_params().items() if key in before} == before
    assert_array_equal(model.fit(X).transmat_, first.transmat_)


def test_settings_reach_the_monitor():
    X = gaussian_data()
    model = hmm.GaussianHMM(3, random_state=0, n_iter=2).set_params(n_iter=7, tol=-1.0).fit(X)
    assert model.monitor_.iter == 7
    model.monitor_ = hmm.ConvergenceMonitor(1e9, 5, False)
    model.set_params(tol=0.0, n_iter=3).fit(X)
    assert (model.monitor_.tol, model.monitor_.n_iter, model.monitor_.iter) == (1e9, 5, 2)
    model = hmm.GaussianHMM(3, random_state=0)
    model.monitor_.tol = 1e9  # by hand
    assert model.fit(X).monitor_.iter == 2


def test_progress_goes_through_logging(caplog, capsys):
    with caplog.at_level(logging.INFO, "fastgen"):
        hmm.GaussianHMM(3, random_state=0, n_iter=3, tol=-1.0, verbose=True).fit(gaussian_data())
    assert sum(record.levelno == logging.INFO and record.name == "fastgen" for record in caplog.records) == 3
    assert capsys.readouterr().err == ""


# ---- the documented prior, monitors, scikit-learn --------------------------------------------------------------------


@pytest.mark.parametrize("kind", TYPES)
def test_maximum_likelihood_without_the_default_prior(kind):
    X = 1e-3 * gaussian_data()
    settings = {"covariance_type": kind, "n_iter": 1}
    ours = pair("GaussianHMM", settings, covars_prior=0)[0]
    ours._init(X)
    posterior = ours.predict_proba(X)
    ours.fit(X)
    weight = posterior.sum(axis=0)
    means = posterior.T @ X / weight[:, None]
    centred = X - means[:, None, :]
    full = np.einsum("nk,kni,knj->kij", posterior, centred, centred)
    expected = {
        "full": full / weight[:, None, None],
        "diag": full / weight[:, None, None] * np.eye(2),
        "spherical": np.trace(full, axis1=1, axis2=2)[:, None, None] / weight[:, None, None] / 2 * np.eye(2),
        "tied": np.tile(full.sum(axis=0) / weight.sum(), (3, 1, 1)),
    }[kind]
    assert_allclose(ours.means_, means, rtol=1e-10)
    assert_allclose(ours.covars_, expected, rtol=1e-9, atol=1e-16)
    weight = 2 if kind in ("full", "tied") else 0.5
    other = pair("GaussianHMM", settings, covars_prior=0, covars_weight=weight)[0].fit(X)
    assert_array_equal(other.covars_, ours.covars_)
    inflated = pair("GaussianHMM", settings)[0].fit(X)
    assert np.diagonal(inflated.covars_[0]).min() > 5 * np.diagonal(expected[0]).max()


class Threshold(hmm.ConvergenceMonitor):
    """Stops at a log-likelihood."""

    @property
    def converged(self):
        return self.history[-1] >= self.tol


class Foreign:
    """Not one of ours, nor of hmmlearn."""

    def __init__(self):
        self.history, self.iter, self.resets = [], 0, 0

    def _reset(self):
        self.resets += 1
        self.history, self.iter = [], 0

    def report(self, log_prob):
        self.history.append(log_prob)
        self.iter += 1

    @property
    def converged(self):
        return self.iter == 4


def test_monitors_of_the_user():
    X = gaussian_data()
    model = hmm.GaussianHMM(3, random_state=0, n_iter=50, tol=-np.inf).fit(X)
    history = model.history_
    model.monitor_ = Threshold(history[5], 50, False)
    assert model.fit(X).monitor_.iter == 6
    assert model.stop_reason_ == "converged"
    model.monitor_ = Foreign()
    assert model.fit(X).monitor_.iter == 4
    assert model.monitor_.resets == 1
    assert_allclose(model.monitor_.history, history[:4])
    model.monitor_ = TheirMonitor(-np.inf, 3, False)
    assert model.fit(X).monitor_.iter == 3
    assert_allclose(model.history_, history[:3])


@cases
def test_clone_pickle_and_copies(name, options):
    X = data_of(name)
    model = pair(name, options)[0].fit(X)
    for copied in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert copied.score(X) == model.score(X)
        assert_array_equal(copied.history_, model.history_)
        with pytest.raises(AttributeError, match="score"):
            copied.log_likelihood_  # noqa: B018
        assert copied.fit(X).monitor_ is copied.monitor_
    assert model.log_likelihood_ == model.score(X)
    assert pickle.loads(pickle.dumps(model)).log_likelihood_ == model.log_likelihood_
    assert len(pickle.dumps(model)) < 20_000
    again = clone(model)
    assert not hasattr(again, "startprob_")
    assert_array_equal(again.fit(X).transmat_, model.transmat_)


def test_attributes_of_an_unfitted_model():
    from sklearn.exceptions import NotFittedError

    X = gaussian_data()
    model = hmm.GaussianHMM(2)
    for use in (model.score, model.predict, model.decode, model.predict_proba, model.aic):
        with pytest.raises(NotFittedError):
            use(X)
    with pytest.raises(NotFittedError):
        model.sample(3)
    assert not hasattr(model, "covars_")
    assert not hasattr(model, "log_likelihood_")


def test_no_iterations():
    X = gaussian_data()
    model = hmm.GaussianHMM(2, n_iter=0, random_state=0).fit(X)
    assert model.history_.shape == (0,)
    assert model.stop_reason_ == "max_iter"
    assert model.log_likelihood_ == model.score(X)


@pytest.mark.parametrize("kind", TYPES)
def test_degenerate_mixtures_go_on(kind):
    """Gaussians on single points: variances of 0 are legal, as in hmmlearn."""
    rng = np.random.default_rng(0)
    X = np.repeat(rng.integers(0, 3, (12, 2)), 3, axis=0).astype(float)
    model = hmm.GMMHMM(2, 3, covariance_type=kind, random_state=0, n_iter=5)
    model.fit(X)
    assert np.isfinite(model.means_).all()
    assert np.isfinite(model.score(X))


def test_poisson_score_is_scipys():
    X = data_of("PoissonHMM")[:1]
    model = hmm.PoissonHMM(1, random_state=0).fit(data_of("PoissonHMM"))
    assert model.score(X) == pytest.approx(poisson.logpmf(X, model.lambdas_).sum(), rel=1e-12)


def test_poisson_starts_of_constant_data():
    model = hmm.PoissonHMM(2, random_state=0).fit(np.full((20, 2), 3))
    assert_allclose(model.lambdas_, 3.0)
    model = hmm.PoissonHMM(2, random_state=0).fit(np.zeros((20, 2), int))
    assert_allclose(model.lambdas_, 0.0)


def test_trials_of_other_data():
    X = data_of("MultinomialHMM")
    model = hmm.MultinomialHMM(2, random_state=0).fit(X)
    assert_array_equal(model.n_trials, X.sum(axis=1))
    with pytest.raises(ValueError, match="n_trials has shape"):
        model.fit(X[:50])
    assert np.isfinite(model.score(X[:50]))


def test_probabilities_that_are_rounded():
    model = hmm.CategoricalHMM(3)
    model.startprob_ = [0.333333, 0.333333, 0.333333]
    model.transmat_ = np.full((3, 3), 0.333333)
    model.emissionprob_ = np.full((3, 3), 0.333333)
    assert model.score([[0], [1]]) == pytest.approx(2 * np.log(1 / 3), abs=1e-5)
