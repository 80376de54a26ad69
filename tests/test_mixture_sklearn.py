"""scikit-learn's own tests of `sklearn.mixture.GaussianMixture`, run with ours in its place, and its contract."""

import importlib.util
import inspect
from unittest.mock import patch

import numpy as np
import pytest
import sklearn.mixture
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastgen import GaussianMixture, Mixture, families

TYPES = ("full", "tied", "diag", "spherical")
PRIVATE = "calls or replaces private functions of scikit-learn's class"
EXCLUDED = {
    "test_gaussian_mixture_precisions_init": PRIVATE,
    "test_gaussian_mixture_all_init_does_not_estimate_gaussian_parameters": PRIVATE,
    "test_gaussian_mixture_array_api_compliance": "arrays of other libraries",
    "test_gaussian_mixture_raises_where_array_api_not_implemented": "arrays of other libraries",
}
FAILS = {
    "test_score[float32]": "asks for 7 digits of a mean that NumPy accumulates in float32; ours is in float64",
}
# Warnings that scikit-learn's own settings let pass: of k-means, of a fit that collapses, of its Bayesian mixtures.
WARNS = {
    "test_regularisation",
    "test_gaussian_mixture_setting_best_params",
    "test_gaussian_mixture_n_iter",
}


def peer_tests(module):
    """The test functions of a module of scikit-learn, imported anew, whose `GaussianMixture` is ours."""
    origin = importlib.util.find_spec(f"sklearn.mixture.tests.{module}")
    spec = importlib.util.spec_from_file_location(f"fastgen_in_place_of_sklearn_{module}", origin.origin)
    loaded = importlib.util.module_from_spec(spec)
    with patch.object(sklearn.mixture, "GaussianMixture", GaussianMixture):
        spec.loader.exec_module(loaded)
    tests = {name: value for name, value in vars(loaded).items() if name.startswith("test_")}
    # What does not name the class, nor gets it as a parameter, tests functions of scikit-learn alone.
    concerned = {
        name: test
        for name, test in tests.items()
        if name not in EXCLUDED
        and ("GaussianMixture" in inspect.unwrap(test).__code__.co_names or "estimator" in str(inspect.signature(test)))
    }
    for name, test in concerned.items():
        if name in WARNS:
            pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")(test)
        if name in FAILS:
            pytest.mark.xfail(strict=True, reason=FAILS[name])(test)
    return concerned


THEIRS = peer_tests("test_gaussian_mixture") | peer_tests("test_mixture")
globals().update(THEIRS)


@pytest.fixture(params=[np.float64, np.float32], ids=["float64", "float32"])
def global_dtype(request):
    name = f"{request.function.__name__}[{np.dtype(request.param)}]"
    if name in FAILS:
        request.applymarker(pytest.mark.xfail(strict=True, reason=FAILS[name]))
    return request.param


@pytest.fixture(params=[42, 7])
def global_random_seed(request):
    return request.param


def test_their_tests_were_found():
    """The number of scikit-learn 1.6, the oldest that we support, less a few."""
    assert len(THEIRS) >= 28
    assert THEIRS["test_bic_1d_1component"].__globals__["GaussianMixture"] is GaussianMixture


def checks_that_must_fail(estimator):
    if isinstance(estimator, Mixture) and estimator.family is None:
        return {"check_sample_weight_equivalence_on_dense_data": "15 samples of 30 features have a singular covariance"}
    if estimator.n_components > 1:
        return {"check_sample_weight_equivalence_on_dense_data": "the start draws random numbers for each row"}
    return {}


@parametrize_with_checks(
    [
        *(GaussianMixture(covariance_type=kind) for kind in TYPES),
        GaussianMixture(3, init_params="random"),
        Mixture(),
        Mixture(families.Gaussian("diag", 1e-6), 2),
    ],
    expected_failed_checks=checks_that_must_fail,
)
def test_scikit_learn_contract(estimator, check):
    check(estimator)
