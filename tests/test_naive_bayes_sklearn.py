"""scikit-learn's own tests of `sklearn.naive_bayes`, run with our classes in place of theirs, and its contract."""

import importlib.util
import inspect
from contextlib import ExitStack
from unittest.mock import patch

import numpy as np
import pytest
import sklearn.naive_bayes
from sklearn.utils.estimator_checks import parametrize_with_checks

import fastgen
from fastgen import BernoulliNB, CategoricalNB, ComplementNB, GaussianNB, MixedNB, MultinomialNB

NAMES = ("BernoulliNB", "CategoricalNB", "ComplementNB", "GaussianNB", "MultinomialNB")
EXCLUDED = {
    "test_gnb_check_update_with_no_data": "calls a private function of scikit-learn's class",
    "test_gnb_array_api_compliance": "arrays of other libraries",
}
FAILS = {
    "test_discretenb_provide_prior": "asks that a fit that failed has changed `classes_`",
}
# Warnings that scikit-learn's own settings let pass.
WARNS = {"test_alpha_vector": "ignore:alpha too small:UserWarning"}


def peer_tests():
    """The test functions of scikit-learn's module, imported anew, whose classes are ours."""
    origin = importlib.util.find_spec("sklearn.tests.test_naive_bayes")
    spec = importlib.util.spec_from_file_location("fastgen_in_place_of_sklearn_naive_bayes", origin.origin)
    loaded = importlib.util.module_from_spec(spec)
    with ExitStack() as stack:
        for name in NAMES:
            stack.enter_context(patch.object(sklearn.naive_bayes, name, getattr(fastgen, name)))
        spec.loader.exec_module(loaded)
    tests = {name: value for name, value in vars(loaded).items() if name.startswith("test_")}
    assert tests.keys() >= FAILS.keys()
    for name, reason in FAILS.items():
        pytest.mark.xfail(strict=True, reason=reason)(tests[name])
    for name, ignored in WARNS.items():
        pytest.mark.filterwarnings(ignored)(tests[name])
    return {name: test for name, test in tests.items() if name not in EXCLUDED}


THEIRS = peer_tests()
globals().update(THEIRS)


@pytest.fixture(params=[np.float64, np.float32], ids=["float64", "float32"])
def global_dtype(request):
    return request.param


@pytest.fixture(params=[42, 7])
def global_random_seed(request):
    return request.param


def test_their_tests_were_found():
    """The number of scikit-learn 1.6, the oldest that we support, less a few."""
    assert len(THEIRS) >= 32
    for name in NAMES:
        assert THEIRS["test_gnb"].__globals__[name] is getattr(fastgen, name)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_of_theirs_are_ours(name):
    theirs = inspect.signature(getattr(sklearn.naive_bayes, name)).parameters
    ours = inspect.signature(getattr(fastgen, name)).parameters
    assert {key: (p.default, p.kind) for key, p in theirs.items()}.items() <= {
        key: (p.default, p.kind) for key, p in ours.items()
    }.items()


def checks_that_must_fail(estimator):
    if getattr(estimator, "semi_supervised", False):
        return {"check_classifiers_classes": "has -1 among the labels, which here means that they are unknown"}
    return {}


@parametrize_with_checks(
    [
        GaussianNB(),
        MultinomialNB(),
        ComplementNB(),
        ComplementNB(norm=True),
        BernoulliNB(),
        CategoricalNB(),
        MixedNB(),
        GaussianNB(semi_supervised=True),
    ],
    expected_failed_checks=checks_that_must_fail,
)
def test_scikit_learn_contract(estimator, check):
    check(estimator)
