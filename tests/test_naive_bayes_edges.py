"""Naive Bayes: memory safety, memory, values at the edges, labels, messages: each as the documentation promises."""

import copy
import io
import pickle
import subprocess
import sys
import tracemalloc
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn.naive_bayes as peer
from scipy import sparse

import fastgen
from fastgen import BernoulliNB, CategoricalNB, ComplementNB, GaussianNB, MixedNB, MultinomialNB, kernels
from fastgen.errors import SingularCovarianceError

nan = np.nan
equal, close = np.testing.assert_array_equal, np.testing.assert_allclose
LOGS = np.log([[0.3, 0.6], [0.7, 0.2]])


def peak(call):
    """Bytes that a call holds at most, beyond what was there."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# ---- memory safety ---------------------------------------------------------------------------------------------------


def column_beyond():
    """Row 0, of class 0, names the column after the last: this is cell 0 of class 1."""
    return sparse.csr_matrix((np.ones(3), np.array([4, 1, 2]), np.array([0, 1, 2, 3])), shape=(3, 4))


def falling_rows():
    """Row 1 ends before it begins; all entries are in range."""
    S = sparse.csr_matrix((np.ones(3), np.array([0, 1, 2]), np.array([0, 1, 2, 3])), shape=(3, 4))
    S.indptr[1] = 3
    return S


def far_beyond():
    S = column_beyond()
    S.indices[0] = 10**9
    return S


def before_the_first():
    S = column_beyond()
    S.indices[0] = -1
    return S


def too_few_entries():
    S = column_beyond()
    S.indices[0] = 0
    S.data = S.data[:1]
    return S


@pytest.mark.parametrize("broken", [column_beyond, falling_rows, far_beyond, before_the_first, too_few_entries])
@pytest.mark.parametrize(
    "call",
    [
        lambda S: kernels.class_sums(S, [0, 1, 1], 2),
        lambda S: kernels.naive_bayes_log_joint(S, kernels.LinearTerm(None, np.ones((2, 4)), None)),
        lambda S: MultinomialNB().fit(S, [0, 1, 1]),
        lambda S: MultinomialNB().fit(np.eye(4), [0, 1, 1, 0]).predict(S),
    ],
    ids=["class_sums", "naive_bayes_log_joint", "fit", "predict"],
)
def test_broken_sparse_matrices_are_refused(call, broken):
    """An index of 10**9 in place of 4 ends the interpreter."""
    with pytest.raises(ValueError, match=r"ind(ex|ices|ptr)|column"):
        call(broken())


@pytest.mark.parametrize(
    "call",
    [
        "kernels.category_counts(np.zeros((4, 1), int), np.arange(4), 4, [2**62 - 2])",
        "CategoricalNB(min_categories=2**62 - 2).fit(np.zeros((4, 1), int), np.arange(4))",
    ],
)
def test_sizes_of_tables_do_not_overflow(call):
    """(sizes + 2) C is 2**64: the tables have no cell, and counts go to memory of others. In another process."""
    code = f"""
import numpy as np
from fastgen import CategoricalNB, kernels
try:
    {call}
except (ValueError, MemoryError):
    print("refused")
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.stdout.strip() == "refused", (found.returncode, found.stderr)


@pytest.mark.parametrize("rows", [sparse.csr_matrix, np.asarray])
def test_parameters_of_another_shape_are_refused(rows):
    model = MultinomialNB().fit(np.eye(4), [0, 1, 1, 0])
    model.feature_log_prob_ = np.zeros((2, 2))
    with pytest.raises(ValueError, match="2 classes and 4 columns"):
        model.predict(rows(np.eye(4)))


# ---- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["impossible", "missing"])
def test_sparse_rows_are_never_dense_at_once(rng, kind):
    """2000 x 5000: dense, it has 76 MiB. Blocks have 4 MiB."""
    S = sparse.random(2000, 5000, density=0.002, format="csr", random_state=0)
    S.data[:] = 1
    model = BernoulliNB(alpha=0.0 if kind == "impossible" else 1.0).fit(S, rng.integers(0, 2, 2000))
    if kind == "missing":
        S.data[7] = nan
    assert peak(lambda: model.predict(S)) < 20 << 20


def test_missing_values_cost_no_mask_of_all_cells(rng):
    """100000 x 256: a mask has 24 MiB."""
    X = np.zeros((100_000, 256), np.float32)
    X[::7] = 1
    model = GaussianNB(var_smoothing=1.0).fit(X, np.arange(len(X)) % 2)
    X[3, 3] = nan
    assert peak(lambda: model.predict(X)) < 8 << 20


def test_mixed_columns_of_floats_are_not_copied(rng):
    """`fit`: "Not copied"; `MixedNB`: only "data frames and arrays with categories are"."""
    X = rng.normal(size=(200_000, 16))
    X[:, 0] = rng.poisson(2.0, len(X))
    y = rng.integers(0, 2, len(X))
    assert peak(lambda: MixedNB({0: "poisson"}).fit(X, y)) < 12 << 20


def test_results_go_into_out_at_once(rng):
    X, out = rng.normal(size=(200_000, 4)), np.empty((200_000, 10))
    term = kernels.GaussianTerm(None, rng.normal(size=(10, 4)), np.ones((10, 4)))
    assert peak(lambda: kernels.naive_bayes_log_joint(X, term, out=out)) < out.nbytes / 4


# ---- values ----------------------------------------------------------------------------------------------------------


def test_floats_above_minus_one_are_truncated_to_zero():
    """`CategoricalNB`: "floats are truncated"; scikit-learn's does it."""
    X, y = [[-0.5], [1.0], [0.0], [0.0]], [0, 1, 0, 1]
    equal(CategoricalNB().fit(X, y).category_count_[0], peer.CategoricalNB().fit(X, y).category_count_[0])


@pytest.mark.parametrize("name", ["GaussianNB", "class_moments"])
def test_variances_do_not_depend_on_which_row_comes_first(rng, name):
    """The first row has next to no weight and lies far away."""
    x, w = rng.normal(size=1000), np.ones(1000)
    x[0], w[0] = 1e8, 1e-20
    exact = np.average((x - np.average(x, weights=w)) ** 2, weights=w)
    if name == "GaussianNB":
        found = GaussianNB(var_smoothing=0.0).fit(x[:, None], np.zeros(1000, int), w).var_
    else:
        moments = kernels.class_moments(x[:, None], np.zeros(1000, int), 1, sample_weight=w)
        found = moments.scatter / moments.cells
    close(found, exact, rtol=1e-9)


@pytest.mark.parametrize("model", [GaussianNB(semi_supervised=True), MultinomialNB(semi_supervised=True)])
def test_em_without_weight_on_any_label(model):
    """The priors are 0 / 0: all is NaN, and every label is the first."""
    X = np.array([[0.0], [1.0], [5.0], [6.0], [0.5], [5.5]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="label"):
            model.fit(X, [0, 0, 1, 1, -1, -1], [0, 0, 0, 0, 1, 1])


def test_missing_entries_of_sparse_rows_are_left_out():
    """`naive_bayes_log_joint`: "NaN in X is missing and marginalised"."""
    X, term = np.array([[nan, 1.0], [2.0, 0.0]]), kernels.LinearTerm(None, LOGS, None)
    close(kernels.naive_bayes_log_joint(sparse.csr_matrix(X), term), kernels.naive_bayes_log_joint(X, term))


def test_a_threshold_below_zero_of_sparse_rows():
    """Cells that are not stored are 0, which is above -1."""
    S = sparse.csr_matrix(np.array([[0.0, 1.0], [2.0, 0.0]]))
    with pytest.raises(ValueError, match="threshold must not be negative"):
        kernels.class_sums(S, [0, 1], 2, threshold=-1.0)
    with pytest.raises(ValueError, match="threshold must not be negative"):
        kernels.naive_bayes_log_joint(S, kernels.BinaryTerm(None, LOGS, np.log1p(-np.exp(LOGS)), -1.0))


def test_duplicates_of_sparse_rows_are_one_event():
    S = sparse.csr_matrix((np.ones(2), np.array([0, 0]), np.array([0, 2])), shape=(1, 2))
    term = kernels.BinaryTerm(None, LOGS, np.log1p(-np.exp(LOGS)), 0.0)
    close(kernels.naive_bayes_log_joint(S, term), kernels.naive_bayes_log_joint(S.toarray(), term))


@pytest.mark.parametrize("dtype", [np.longdouble, complex])
def test_sparse_matrices_are_not_cast(dtype):
    """Dense ones of these types are refused."""
    S = sparse.csr_matrix(np.eye(2, dtype=dtype))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises((TypeError, ValueError)):
            kernels.naive_bayes_log_joint(S, kernels.LinearTerm(None, LOGS, None))


def test_large_float32_values(rng):
    """Their variances, 1e50, are no float32."""
    X = (1e25 * rng.normal(size=(50, 2))).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.isfinite(GaussianNB().fit(X, np.arange(50) % 2).predict_proba(X)).all()


def test_probabilities_of_events_may_be_set():
    """As those of `MultinomialNB`, or ``theta_`` and ``var_``, may."""
    ours, theirs = BernoulliNB().fit(np.eye(3), [0, 1, 1]), peer.BernoulliNB().fit(np.eye(3), [0, 1, 1])
    for model in (ours, theirs):
        model.feature_log_prob_ = np.log(np.full((2, 3), 0.25))
    close(ours.predict_joint_log_proba(np.eye(3)), theirs.predict_joint_log_proba(np.eye(3)))


@pytest.mark.parametrize("name", ["GaussianNB", "MultinomialNB", "ComplementNB", "BernoulliNB", "CategoricalNB"])
@pytest.mark.parametrize("way", ["pickle", "deepcopy", "joblib"])
def test_stored_models_give_the_same_bits(rng, name, way):
    """joblib stores an array that two attributes hold twice."""
    X, y = rng.integers(0, 3, (60, 5)).astype(float), np.arange(60) % 3
    model = getattr(fastgen, name)().fit(X, y)
    if way == "joblib":
        file = io.BytesIO()
        joblib.dump(model, file)
        file.seek(0)
        other = joblib.load(file)
    else:
        other = copy.deepcopy(model) if way == "deepcopy" else pickle.loads(pickle.dumps(model))
    equal(other.predict_joint_log_proba(X), model.predict_joint_log_proba(X))


# ---- labels, parameters, frames --------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [[f"c{i}" for i in range(20)], np.arange(20.0)], ids=["text", "floats"])
@pytest.mark.parametrize("name", ["GaussianNB", "MultinomialNB"])
def test_many_classes_are_no_reason_to_warn(rng, name, labels):
    """scikit-learn's does not, and ours does not if they are integers."""
    X, y = rng.poisson(3.0, (30, 3)), np.r_[labels, labels[:10]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        getattr(peer, name)().fit(X, y)
        {"GaussianNB": GaussianNB, "MultinomialNB": MultinomialNB}[name]().fit(X, y)


def test_classes_of_text_in_objects(rng):
    """scikit-learn's, and our partial_fit, make them <U1."""
    X, y = rng.normal(size=(9, 2)), np.array(["a", "b", "c"] * 3, object)
    assert GaussianNB().partial_fit(X, y, ["a", "b", "c"]).classes_.dtype == np.dtype("<U1")
    assert GaussianNB().fit(X, y).classes_.dtype == peer.GaussianNB().fit(X, y).classes_.dtype


def test_labels_of_several_types_stay_an_error_with_unknown_ones(rng):
    """Without the -1 they are; here the class 1 becomes the class "1"."""
    with pytest.raises((TypeError, ValueError)):
        GaussianNB(semi_supervised=True).fit(rng.normal(size=(6, 2)), np.array([1, -1, "b", 1, -1, "b"], object))


def test_known_labels_keep_their_type(rng):
    y = np.array([0, 1, -1, 0, 1, -1], np.int8)
    assert GaussianNB(semi_supervised=True).fit(rng.normal(size=(6, 2)), y).classes_.dtype == np.int8


def test_no_classes():
    with pytest.raises(ValueError):
        GaussianNB().partial_fit(np.eye(3), [0, 1, 1], [])


@pytest.mark.parametrize("key", ["fit_prior", "force_alpha"])
def test_switches_are_truth_values(key):
    """scikit-learn's refuse text; here "no" is yes."""
    with pytest.raises(ValueError, match=key):
        MultinomialNB(**{key: "no"}).fit(np.eye(3), [0, 1, 1])


def test_norm_is_a_truth_value():
    with pytest.raises(ValueError, match="norm"):
        ComplementNB(norm="no").fit(np.eye(3), [0, 1, 1])


def test_the_remedy_for_a_constant_column_helps(rng):
    """var_smoothing is a share of the column's own variance, which is 0."""
    X, y = np.c_[rng.normal(size=40), np.full(40, 3.5)], np.arange(40) % 2
    GaussianNB().fit(X, y)
    remedy = ""
    try:
        MixedNB().fit(X, y)
    except SingularCovarianceError as error:
        remedy = str(error)
    assert "Increase var_smoothing" not in remedy


def test_nullable_integers_are_exact_categories():
    """2**53 and 2**53 + 1 are one float."""
    X = pd.DataFrame({"id": pd.array([2**53, 2**53 + 1] * 20, dtype="Int64")})
    assert len(MixedNB({"id": "categorical"}).fit(X, [0, 1] * 20).categories_[0]) == 2


def test_a_series_is_no_data_frame():
    with pytest.raises(ValueError, match=r"2D|dimension"):
        MixedNB().fit(pd.Series([1.0, 2.0, 3.0]), [0, 1, 0])


def test_an_unseen_category_is_named():
    """By its own name, not by a code of ours."""
    model = MixedNB(alpha=0.0).fit([["a"], ["b"]], [0, 1])
    with pytest.raises(ValueError, match="zz"):
        model.predict([["zz"]])
