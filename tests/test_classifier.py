"""Generative classifiers: Bayes' rule over Gaussians and over anything that has fit, log_prob and sample."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from oracle import gaussian as oracle
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import load_iris
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import fastgen
from fastgen import Gaussian, GenerativeClassifier
from fastgen.errors import SingularCovarianceError

TYPES = ("full", "tied", "diag", "spherical")
nan, inf = np.nan, np.inf


def checks_on_singular_data(estimator):
    """Checks whose data have no maximum likelihood estimate: the right answer is SingularCovarianceError."""
    density = estimator.density or Gaussian()
    if density.reg_covar:
        return {}
    constant = "the data are constant within each class in one column"
    few = "15 samples of 30 features in three classes, with random weights, some of them 0"
    failed = {"check_sample_weight_equivalence_on_dense_data": few}
    if density.covariance_type != "spherical":
        failed |= {"check_sample_weights_shape": constant, "check_sample_weights_not_overwritten": constant}
    return failed


@parametrize_with_checks(
    [
        GenerativeClassifier(),
        *(GenerativeClassifier(Gaussian(kind)) for kind in TYPES),
        *(GenerativeClassifier(Gaussian(kind, reg_covar=1e-3)) for kind in TYPES),
    ],
    expected_failed_checks=checks_on_singular_data,
)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


def three_classes(rng, n=300, d=3):
    y = rng.integers(3, size=n)
    y[:15] = np.arange(15) % 3
    X = rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + 2 * y[:, None] * np.arange(1, d + 1)
    return X, y


def joint_by_the_book(X, y, covariance_type, data, weights=None):
    """log p(y) p(x | y), each class by weighted maximum likelihood; tied: pooled within classes (Bishop, eq. 4.78)."""
    w = np.ones(len(X)) if weights is None else weights
    classes = np.unique(y)
    fits = [oracle.fit(X[y == c], w[y == c], covariance_type) for c in classes]
    prior = np.array([w[y == c].sum() for c in classes]) / w.sum()
    covariances = np.array([covariance for _, covariance in fits])
    if covariance_type == "tied":
        covariances = np.tensordot(prior, covariances, 1)
    return oracle.log_density(data, np.array([mean for mean, _ in fits]), covariances, covariance_type) + np.log(prior)


class Uniform:
    """The least a density may have: uniform over the box that the data span. No base class, no get_params."""

    def fit(self, X, sample_weight=None):
        self.low, self.high = X.min(axis=0), X.max(axis=0)
        return self

    def log_prob(self, X):
        inside = ((self.low <= X) & (self.high >= X)).all(axis=1)
        return np.where(inside, -np.log(self.high - self.low).sum(), -inf)

    def sample(self, n, random_state=None):
        return np.random.default_rng(random_state).uniform(self.low, self.high, (n, len(self.low)))


class UniformEstimator(Uniform, BaseEstimator):
    """The same, that scikit-learn can clone."""


class Kernel(BaseEstimator):
    """scikit-learn's KernelDensity under our verbs."""

    def __init__(self, bandwidth=0.5):
        self.bandwidth = bandwidth

    def fit(self, X, sample_weight=None):
        self.kernel_ = KernelDensity(bandwidth=self.bandwidth).fit(X, sample_weight=sample_weight)
        return self

    def log_prob(self, X):
        return self.kernel_.score_samples(X)

    def sample(self, n, random_state=None):
        return self.kernel_.sample(n, random_state=random_state)


# ---- discriminant analysis ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("covariance_type", "joint"), [("full", -188.3756), ("tied", -263.2037)])
def test_published_numbers_of_iris(iris, covariance_type, joint):
    """REFERENCE: "QDA joint ll -188.3756, LDA -263.2037, 3 training errors each"."""
    X, y = iris
    c = GenerativeClassifier(Gaussian(covariance_type)).fit(X, y)
    assert c.predict_joint_log_proba(X)[np.arange(150), y].sum() == pytest.approx(joint, abs=5.1e-5)
    assert (c.predict(X) != y).sum() == 3
    assert c.score(X, y) == pytest.approx(147 / 150)


def test_quadratic_discriminant_analysis_of_scikit_learn(iris):
    """Its covariances divide by n - 1 or, since scikit-learn 1.9, by n as ours do: through Bayes' rule by the book."""
    X, y = iris
    qda = QuadraticDiscriminantAnalysis(store_covariance=True).fit(X, y)
    divided_by = 50 * np.trace(np.cov(X[:50].T, ddof=0)) / np.trace(qda.covariance_[0])
    assert round(divided_by, 6) in (49, 50)
    covariances = np.array(qda.covariance_) * round(divided_by) / 50
    joint = oracle.log_density(X, qda.means_, covariances) + np.log(qda.priors_)
    c = GenerativeClassifier().fit(X, y)
    np.testing.assert_allclose(c.predict_proba(X), oracle.posterior(joint), rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(c.predict_joint_log_proba(X), joint, rtol=1e-10, atol=1e-10)
    if round(divided_by) == 50:
        np.testing.assert_allclose(c.predict_proba(X), qda.predict_proba(X), rtol=1e-9, atol=1e-14)


def test_linear_discriminant_analysis_of_scikit_learn(iris):
    """solver="lsqr" takes the maximum likelihood estimate, as we do."""
    X, y = iris
    keep = np.r_[:50, 60:95, 100:150]  # classes of unequal size
    lda = LinearDiscriminantAnalysis(solver="lsqr").fit(X[keep], y[keep])
    c = GenerativeClassifier(Gaussian("tied")).fit(X[keep], y[keep])
    np.testing.assert_allclose(c.densities_[0].covariance_, lda.covariance_, rtol=1e-11)
    # lda subtracts large numbers (x^T Sigma^-1 mu - ...), so it is good to fewer digits.
    np.testing.assert_allclose(c.predict_proba(X), lda.predict_proba(X), rtol=1e-8, atol=1e-13)
    assert np.array_equal(c.predict(X), lda.predict(X))


def test_gaussian_naive_bayes_of_scikit_learn(iris):
    X, y = iris
    weights = np.random.default_rng(1).uniform(size=150)
    nb = GaussianNB(var_smoothing=0).fit(X, y, sample_weight=weights)
    c = GenerativeClassifier(Gaussian("diag")).fit(X, y, sample_weight=weights)
    np.testing.assert_allclose(c.predict_joint_log_proba(X), nb.predict_joint_log_proba(X), rtol=1e-10)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_against_textbook(rng, covariance_type, weighted):
    X, y = three_classes(rng)
    weights = rng.uniform(size=300) if weighted else None
    c = GenerativeClassifier(Gaussian(covariance_type)).fit(X, y, sample_weight=weights)
    joint = joint_by_the_book(X, y, covariance_type, X, weights)
    np.testing.assert_allclose(c.predict_joint_log_proba(X), joint, rtol=1e-11)
    # A posterior inherits the absolute error of the joint, some 1e3 * 1e-13 at most.
    np.testing.assert_allclose(c.predict_proba(X), oracle.posterior(joint), rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(np.exp(c.predict_log_proba(X)), c.predict_proba(X), rtol=1e-11, atol=1e-300)
    m = joint.max(axis=1)
    np.testing.assert_allclose(c.log_prob(X), m + np.log(np.exp(joint - m[:, None]).sum(axis=1)), rtol=1e-11)
    assert np.array_equal(c.predict(X), joint.argmax(axis=1))
    np.testing.assert_allclose(c.class_prior_.sum(), 1, rtol=1e-15)
    assert c.class_count_.sum() == pytest.approx(300 if weights is None else weights.sum(), rel=1e-13)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_weights_are_repetitions_and_rows_have_no_order(rng, covariance_type):
    X, y = three_classes(rng)
    counts = rng.integers(0, 3, 300)
    counts[:15] = 1
    c = GenerativeClassifier(Gaussian(covariance_type)).fit(X, y, sample_weight=counts)
    again, labels = np.repeat(X, counts, axis=0), np.repeat(y, counts)
    order = rng.permutation(len(labels))
    other = GenerativeClassifier(Gaussian(covariance_type)).fit(again[order], labels[order])
    np.testing.assert_allclose(c.predict_joint_log_proba(X), other.predict_joint_log_proba(X), rtol=1e-11)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_threads_change_no_bit(rng, covariance_type):
    X, y = three_classes(rng, n=30_000)
    results = []
    for n_threads in (1, 2, 7):
        with fastgen.num_threads(n_threads):
            results.append(GenerativeClassifier(Gaussian(covariance_type)).fit(X, y).predict_log_proba(X))
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_float32(rng):
    X, y = three_classes(rng)
    single = X.astype(np.float32)
    c = GenerativeClassifier().fit(single, y)
    exact = GenerativeClassifier().fit(single.astype(np.float64), y)
    assert c.predict_proba(single).dtype == np.float64
    assert np.array_equal(c.predict_proba(single), exact.predict_proba(single.astype(np.float64)))


# ---- missing values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance_type", TYPES)
def test_missing_values_at_prediction(rng, covariance_type):
    X, y = three_classes(rng)
    holes = X.copy()
    holes[rng.random(X.shape) < 0.3] = nan
    holes[4] = nan
    c = GenerativeClassifier(Gaussian(covariance_type)).fit(X, y)
    joint = joint_by_the_book(X, y, covariance_type, holes)
    np.testing.assert_allclose(c.predict_joint_log_proba(holes), joint, rtol=1e-11)
    np.testing.assert_allclose(c.predict_proba(holes)[4], c.class_prior_, rtol=1e-14)  # nothing is known
    assert c.log_prob(holes)[4] == pytest.approx(0, abs=1e-15)


def test_missing_values_in_fit_are_those_of_each_class(rng):
    X, y = three_classes(rng)
    X[rng.random(X.shape) < 0.1] = nan
    c = GenerativeClassifier(Gaussian(tol=0)).fit(X, y)
    for k in range(3):
        alone = Gaussian(tol=0).fit(X[y == k])
        # Their likelihoods are flat at the top: to rounding in them, to its root in the parameters.
        np.testing.assert_allclose(c.densities_[k].mean_, alone.mean_, rtol=0, atol=1e-6)
        np.testing.assert_allclose(c.densities_[k].covariance_, alone.covariance_, rtol=0, atol=1e-5)
    assert (np.diff(c.history_) >= -1e-10 * np.maximum(1, np.abs(c.history_[1:]))).all()


def test_missing_values_in_fit_of_a_shared_covariance(rng):
    """Stationary: no nearby shared covariance, and no nearby mean, has a higher likelihood."""
    X, y = three_classes(rng)
    X[rng.random(X.shape) < 0.1] = nan
    c = GenerativeClassifier(Gaussian("tied", tol=0)).fit(X, y)
    means, covariance = c.family_.means, c.family_.covariances

    def objective(means, covariance):
        return oracle.log_density(X, means, covariance, "tied")[np.arange(300), y].mean()

    for _ in range(5):
        step = rng.standard_normal((3, 3))
        step, shift = 1e-4 * (step + step.T), 1e-4 * rng.standard_normal((3, 3))
        slope = objective(means + shift, covariance + step) - objective(means - shift, covariance - step)
        assert abs(slope) / 2e-4 < 1e-6


@pytest.mark.parametrize("covariance_type", TYPES)
def test_impute_by_the_book(rng, covariance_type):
    """E[x_m | x_o] = sum_y p(y | x_o) E[x_m | x_o, y]."""
    X, y = three_classes(rng)
    c = GenerativeClassifier(Gaussian(covariance_type)).fit(X, y)
    holes = X[:20].copy()
    holes[rng.random(holes.shape) < 0.4] = nan
    holes[0] = nan
    posterior = oracle.posterior(joint_by_the_book(X, y, covariance_type, holes))
    filled = c.impute(holes)
    sigma = oracle.matrices(c.family_.covariances, covariance_type, 3, 3)
    for i, x in enumerate(holes):
        m = np.isnan(x)
        parts = [oracle.conditional(c.family_.means[k], sigma[k], x)[0] for k in range(3)]
        np.testing.assert_allclose(filled[i, m], posterior[i] @ np.array(parts), rtol=1e-9, atol=1e-10)
        assert np.array_equal(filled[i, ~m], x[~m])
    assert np.array_equal(c.impute(X), X)
    assert not np.shares_memory(c.impute(X), X)


# ---- labels and priors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        np.array(["setosa", "versicolor", "virginica"]),
        np.array(["a", "bb", "c"], object),
        np.array([-7, 3, 10**12]),
        np.array([0.0, 1.0, 5.0]),
    ],
    ids=lambda names: str(names.dtype),
)
def test_labels_of_any_kind(iris, names):
    X, y = iris
    expected = GenerativeClassifier().fit(X, y)
    c = GenerativeClassifier().fit(X, names[y])
    assert np.array_equal(c.classes_, names)
    assert np.array_equal(c.predict_proba(X), expected.predict_proba(X))
    assert np.array_equal(c.predict(X), names[expected.predict(X)])
    assert c.predict(X).dtype == names.dtype
    _, labels = c.sample(5, y=names[1], random_state=0)
    assert np.array_equal(labels, [names[1]] * 5)


def test_boolean_labels(iris):
    X, y = iris
    c = GenerativeClassifier().fit(X, y == 1)
    assert c.predict(X).dtype == bool
    assert c.classes_.tolist() == [False, True]


def test_labels_in_a_column_warn(iris):
    X, y = iris
    with pytest.warns(DataConversionWarning, match="column-vector y was passed"):
        c = GenerativeClassifier().fit(X, y[:, None])
    assert np.array_equal(c.predict(X), GenerativeClassifier().fit(X, y).predict(X))


def test_pandas_labels(iris):
    X, y = iris
    names = pd.Series(np.array(["x", "y", "z"])[y], dtype="category")
    c = GenerativeClassifier().fit(pd.DataFrame(X, columns=list("abcd")), names)
    assert c.classes_.tolist() == ["x", "y", "z"]


@pytest.mark.parametrize("y", [None, np.linspace(0, 1, 150), np.zeros(149), np.zeros((150, 2)), np.full(150, nan)])
def test_wrong_labels(iris, y):
    X, _ = iris
    with pytest.raises(ValueError, match=r"y|label|samples|NaN"):
        GenerativeClassifier().fit(X, y)


def test_priors(iris):
    X, y = iris
    equal = GenerativeClassifier().fit(X, y)
    c = GenerativeClassifier(priors=[0.5, 0.3, 0.2]).fit(X, y)
    assert c.class_prior_.tolist() == [0.5, 0.3, 0.2]
    shift = np.log([0.5, 0.3, 0.2]) - np.log(1 / 3)
    np.testing.assert_allclose(c.predict_joint_log_proba(X), equal.predict_joint_log_proba(X) + shift, rtol=1e-12)


@pytest.mark.parametrize(
    "priors",
    [
        [0.5, 0.5],
        [0.5, 0.6, -0.1],
        [0.5, 0.3, 0.3],
        [nan, 0.5, 0.5],
        [[0.5, 0.3, 0.2]],
        1.0,
        [0.0, 0.0, 0.0],
        [inf, 0, 0],
    ],
)
def test_wrong_priors(iris, priors):
    with pytest.raises(ValueError, match="priors must"):
        GenerativeClassifier(priors=priors).fit(*iris)


def test_wrong_type_of_priors(iris):
    with pytest.raises((ValueError, TypeError), match="priors must"):
        GenerativeClassifier(priors="uniform").fit(*iris)


def test_a_prior_of_zero_rules_a_class_out(iris):
    X, y = iris
    c = GenerativeClassifier(priors=[0.5, 0.0, 0.5]).fit(X, y)
    assert (c.predict_proba(X)[:, 1] == 0).all()
    assert (c.predict_log_proba(X)[:, 1] == -inf).all()
    assert (c.predict(X) != 1).all()
    assert np.isfinite(c.log_prob(X)).all()
    assert (c.sample(200, random_state=0)[1] != 1).all()


def test_priors_are_not_modified_by_use(iris):
    priors = np.array([0.5, 0.3, 0.2])
    c = GenerativeClassifier(priors=priors).fit(*iris)
    before = c.predict_proba(iris[0])
    priors[:] = [0.1, 0.1, 0.8]
    assert np.array_equal(c.predict_proba(iris[0]), before)


def test_one_class(rng):
    X = rng.standard_normal((20, 2))
    c = GenerativeClassifier().fit(X, ["a"] * 20)
    assert (c.predict_proba(X) == 1).all()
    assert (c.predict(X) == "a").all()
    np.testing.assert_allclose(c.log_prob(X), Gaussian().fit(X).log_prob(X), rtol=1e-13)


def test_a_thousand_classes(rng):
    K = 1000
    y = np.repeat(np.arange(K), 4)
    X = rng.standard_normal((4 * K, 2)) * 0.01 + np.c_[y // 32, y % 32]
    c = GenerativeClassifier(Gaussian("tied")).fit(X, y)
    assert (c.predict(X) == y).all()
    np.testing.assert_allclose(c.predict_proba(X[:50]).sum(axis=1), 1, rtol=1e-12)


# ---- errors ------------------------------------------------------------------------------------------------------


def test_a_class_of_one_sample_is_named(iris):
    X, y = iris
    names = np.array(["setosa", "rare", "virginica"])[y]
    keep = np.r_[:51, 100:150]
    with pytest.raises(
        SingularCovarianceError, match=r"the covariance of class 'rare' \(1 sample\) is not positive"
    ) as e:
        GenerativeClassifier().fit(X[keep], names[keep])
    assert "Increase reg_covar, use more samples, or a simpler covariance_type" in str(e.value)
    for remedy in (Gaussian(reg_covar=1e-3), Gaussian("tied")):
        c = GenerativeClassifier(remedy).fit(X[keep], names[keep])
        assert np.isfinite(c.predict_proba(X)).all()


def test_a_singular_class_is_named(iris):
    X, y = iris
    X = X.copy()
    X[y == 2, 3] = X[y == 2, 0]
    with pytest.raises(SingularCovarianceError, match=r"class 2 \(50 samples\).*column 3 is, up to rounding, a linear"):
        GenerativeClassifier().fit(X, y)
    X[:, 3] = X[:, 0]
    with pytest.raises(SingularCovarianceError, match=r"the covariance of all classes together \(150 samples\)"):
        GenerativeClassifier(Gaussian("tied")).fit(X, y)
    X[y == 1, 2] = 4.5
    with pytest.raises(SingularCovarianceError, match=r"class 1 \(50 samples\).*the variance of column 2 is 0"):
        GenerativeClassifier(Gaussian("diag")).fit(X, y)


def test_a_class_whose_column_is_never_observed_is_named(iris):
    X, y = iris
    X = X.copy()
    X[y == 1, 2] = nan
    for kind in TYPES:
        with pytest.raises(ValueError, match="column 2 has no observed value in class 1"):
            GenerativeClassifier(Gaussian(kind)).fit(X, np.array([0, 1, 2])[y])


def test_a_class_without_weight_is_named(iris):
    X, y = iris
    with pytest.raises(ValueError, match="class 1 has no weight"):
        GenerativeClassifier().fit(X, y, sample_weight=(y != 1).astype(float))


def test_infinity_is_an_error_that_says_where(iris):
    """In the rows of X as they were given, not of the class."""
    X, y = iris
    X = X.copy()
    X[120, 3] = inf
    with pytest.raises(ValueError, match=r"X contains infinity \(at row 120, column 3\)"):
        GenerativeClassifier().fit(X, y)
    c = GenerativeClassifier().fit(*iris)
    for density in (Gaussian(), UniformEstimator()):
        c = GenerativeClassifier(density).fit(*iris)
        with pytest.raises(ValueError, match=r"X contains infinity \(at row 120, column 3\)"):
            c.predict(X)


@pytest.mark.parametrize("what", ["infinity", "singular", "labels", "priors"])
def test_a_failed_fit_leaves_no_trace(iris, what):
    X, y = iris
    c = GenerativeClassifier().fit(X[:, :3], y)
    before, attributes = pickle.dumps(c), dict(vars(c))
    bad = X.copy()
    labels, error = y, ValueError
    if what == "infinity":
        bad[3, 3] = inf
    elif what == "singular":
        bad[:, 1] = 0
    elif what == "labels":
        labels = np.linspace(0, 1, 150)
    else:
        c.set_params(priors=[1.0])
        before, attributes = pickle.dumps(c), dict(vars(c))
    with pytest.raises(error):
        c.fit(bad, labels)
    assert vars(c).keys() == attributes.keys()
    assert all(vars(c)[name] is value for name, value in attributes.items())
    assert pickle.dumps(c) == before


def test_not_fitted(iris):
    c = GenerativeClassifier()
    for name in ("predict", "predict_proba", "predict_log_proba", "predict_joint_log_proba", "log_prob", "impute"):
        with pytest.raises(NotFittedError):
            getattr(c, name)(iris[0])
    with pytest.raises(NotFittedError):
        c.sample(3)


def test_inputs_are_not_modified_and_may_be_read_only(iris):
    X, y = (array.copy() for array in iris)
    weights = np.linspace(0.5, 1.5, 150)
    for array in (X, y, weights):
        array.flags.writeable = False
    density = Gaussian()
    c = GenerativeClassifier(density).fit(X, y, sample_weight=weights)
    c.predict_proba(X)
    assert vars(density) == vars(Gaussian())  # cloned, not fitted
    assert np.array_equal(X, iris[0])


# ---- other densities ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [Uniform(), UniformEstimator(), Kernel()], ids=lambda d: type(d).__name__)
def test_any_density_with_fit_log_prob_and_sample(rng, density):
    """ "anything with fit(X), log_prob(X) and sample(n, random_state)"."""
    X, y = three_classes(rng, d=2)
    c = GenerativeClassifier(density).fit(X, y)
    expected = np.stack([type(density)().fit(X[y == k]).log_prob(X) for k in range(3)], axis=1)
    with np.errstate(divide="ignore"):
        expected += np.log(np.bincount(y) / 300)
    np.testing.assert_allclose(c.predict_joint_log_proba(X), expected, rtol=1e-13)
    np.testing.assert_allclose(c.predict_proba(X), oracle.posterior(expected), rtol=1e-12, atol=1e-300)
    sample, labels = c.sample(300, random_state=1)
    assert sample.shape == (300, 2)
    again, labels_again = c.sample(300, random_state=1)
    assert np.array_equal(sample, again)
    assert np.array_equal(labels, labels_again)
    assert not hasattr(density, "low")  # what was given is not what is fitted
    assert not hasattr(density, "kernel_")


def test_weights_are_passed_on(rng):
    X, y = three_classes(rng, d=2)
    weights = rng.uniform(0.1, 1, 300)
    c = GenerativeClassifier(Kernel()).fit(X, y, sample_weight=weights)
    expected = Kernel().fit(X[y == 1], sample_weight=weights[y == 1]).log_prob(X)
    prior = weights[y == 1].sum() / weights.sum()
    np.testing.assert_allclose(c.predict_joint_log_proba(X)[:, 1], expected + np.log(prior), rtol=1e-12)


def test_samples_that_no_class_can_have(rng):
    """There is no posterior: NaN; predict falls back on the priors, log_prob is -inf. And no warning."""
    X, y = three_classes(rng, d=2)
    y[:20] = 1
    c = GenerativeClassifier(UniformEstimator()).fit(X, y)
    far = np.array([[1e6, 1e6], X[0]])
    assert np.isnan(c.predict_proba(far)[0]).all()
    assert np.isnan(c.predict_log_proba(far)[0]).all()
    assert c.log_prob(far)[0] == -inf
    assert c.predict(far)[0] == np.bincount(y).argmax()
    assert np.isfinite(c.predict_proba(far)[1]).all()


def test_samples_so_far_that_every_density_underflows(iris):
    X, y = iris
    c = GenerativeClassifier().fit(X, y)
    assert np.array_equal(c.log_prob(np.full((1, 4), 1e200)), [-inf])
    p = c.predict_proba(np.full((1, 4), 1e5))  # exp underflows, the posterior does not
    assert p.sum() == pytest.approx(1)


def test_no_density_of_another_kind(iris):
    with pytest.raises((TypeError, ValueError, AttributeError), match=r"density|fit|log_prob"):
        GenerativeClassifier("gaussian").fit(*iris)


# ---- samples -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance_type", TYPES)
def test_samples_have_the_moments_of_their_class(iris, covariance_type):
    """False alarms: 3 * (1 + 4) numbers beyond 6 standard errors, less than 1e-7 in all; the seed is fixed."""
    X, y = iris
    c = GenerativeClassifier(Gaussian(covariance_type), priors=[0.5, 0.3, 0.2]).fit(X, y)
    n = 30_000
    sample, labels = c.sample(n, random_state=8)
    sigma = oracle.matrices(c.family_.covariances, covariance_type, 3, 4)
    for k, prior in enumerate([0.5, 0.3, 0.2]):
        part = sample[labels == k]
        assert abs(len(part) - n * prior) < 6 * np.sqrt(n * prior * (1 - prior))
        error = np.sqrt(np.diag(sigma[k]) / len(part))
        assert (np.abs(part.mean(axis=0) - c.family_.means[k]) < 6 * error).all()


def test_samples_of_given_classes(iris):
    X, y = iris
    names = np.array(["setosa", "versicolor", "virginica"])
    c = GenerativeClassifier().fit(X, names[y])
    sample, labels = c.sample(random_state=0)
    assert sample.shape == (1, 4)
    assert labels.shape == (1,)
    sample, labels = c.sample(4, "virginica", random_state=0)
    assert sample.shape == (4, 4)
    assert labels.tolist() == ["virginica"] * 4
    assert c.sample(y="setosa")[0].shape == (1, 4)
    wanted = ["virginica", "setosa", "virginica"]
    for form in (wanted, np.array(wanted), pd.Series(wanted), np.array(wanted, object)):
        sample, labels = c.sample(y=form, random_state=0)
        assert labels.tolist() == wanted
        assert sample.shape == (3, 4)
    assert c.sample(3, wanted)[1].tolist() == wanted
    assert c.sample(0)[0].shape == (0, 4)


@pytest.mark.parametrize(
    ("n_samples", "y"),
    [
        (None, "rose"),
        (None, ["setosa", "rose"]),
        (2, ["setosa"]),
        (None, [["setosa"]]),
        (None, 0),
        (None, [0, 1]),
        (None, nan),
        (None, {}),
        (-1, None),
        (1.5, None),
        (-1, "setosa"),
    ],
)
def test_samples_of_classes_that_are_not(iris, n_samples, y):
    X, target = iris
    c = GenerativeClassifier().fit(X, np.array(["setosa", "versicolor", "virginica"])[target])
    with pytest.raises((ValueError, TypeError)):
        c.sample(n_samples, y)


def test_samples_of_numbers_that_are_no_class(iris):
    c = GenerativeClassifier().fit(*iris)
    for y in ("a", ["a", "b"], 3, -1, 0.5, [0, 7], nan):
        with pytest.raises((ValueError, TypeError)):
            c.sample(y=y)


# ---- scikit-learn, pandas, polars --------------------------------------------------------------------------------


def test_pickle_clone_and_repr(iris):
    X, y = iris
    c = GenerativeClassifier(Gaussian("tied", reg_covar=0.25), priors=[0.2, 0.3, 0.5])
    assert repr(c) == (
        "GenerativeClassifier(density=Gaussian(covariance_type='tied', reg_covar=0.25),\n"
        "                     priors=[0.2, 0.3, 0.5])"
    )
    fitted = clone(c).fit(X, y)
    assert np.array_equal(pickle.loads(pickle.dumps(fitted)).predict_proba(X), fitted.predict_proba(X))
    assert c.get_params()["density__reg_covar"] == 0.25
    c.set_params(density__covariance_type="diag")
    assert c.density.covariance_type == "diag"


def test_fitted_densities_are_densities(iris):
    X, y = iris
    for kind in TYPES:
        c = GenerativeClassifier(Gaussian(kind)).fit(X, y)
        joint = np.stack([g.log_prob(X) for g in c.densities_], axis=1) + np.log(c.class_prior_)
        np.testing.assert_allclose(joint, c.predict_joint_log_proba(X), rtol=1e-12)
        assert c.densities_[1].marginal([0, 1]).n_features_in_ == 2


def test_pipeline_and_grid_search(iris):
    X, y = iris
    pipeline = make_pipeline(StandardScaler(), GenerativeClassifier(Gaussian()))
    grid = {"generativeclassifier__density__reg_covar": [0.0, 1e-2, 1e4]}
    search = GridSearchCV(pipeline, grid, cv=3, n_jobs=2).fit(X, y)
    assert search.best_score_ > 0.95
    alone = GridSearchCV(pipeline, grid, cv=3).fit(X, y)
    assert np.array_equal(search.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"])


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames_and_feature_names(iris, library):
    X, y = iris
    names = ["a", "b", "c", "d"]
    frame = pd.DataFrame(X, columns=names) if library == "pandas" else pl.DataFrame(X, schema=names)
    c = GenerativeClassifier().fit(frame, pd.Series(y) if library == "pandas" else pl.Series(y))
    assert c.feature_names_in_.tolist() == names
    assert c.densities_[0].feature_names_in_.tolist() == names
    assert np.array_equal(c.predict_proba(frame), GenerativeClassifier().fit(X, y).predict_proba(X))
    assert np.array_equal(c.impute(frame), X)
    with pytest.raises(ValueError, match="feature names should match"):
        c.predict(frame[["b", "a", "c", "d"]])


@pytest.mark.parametrize("density", [UniformEstimator(), Kernel()], ids=lambda d: type(d).__name__)
def test_data_frames_reach_other_densities_without_warnings(iris, density):
    X, y = iris
    frame = pd.DataFrame(X, columns=list("abcd"))
    c = GenerativeClassifier(density).fit(frame, y)
    assert np.array_equal(
        c.predict_joint_log_proba(frame), GenerativeClassifier(density).fit(X, y).predict_joint_log_proba(X)
    )


def test_methods_that_need_an_imputing_density_say_so(rng):
    X, y = three_classes(rng, d=2)
    c = GenerativeClassifier(UniformEstimator()).fit(X, y)
    X[0, 0] = nan
    with pytest.raises((AttributeError, TypeError, ValueError), match="impute"):
        c.impute(X)
