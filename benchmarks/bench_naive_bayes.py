"""Naive Bayes against scikit-learn, expert NumPy and Numba: predictions, probabilities, fits, memory.

Data come from the models: Gaussian classes with means N(0, 0.5^2); documents whose words follow a power law; tables of
categories; bits. scikit-learn and fastgen are fitted to the same data, and must agree.
"""

import gc
import time
import tracemalloc
from typing import Any, NamedTuple

import docstrings
import machine
import naive_bayes_reference as reference
import numpy as np
import pytest
from bench_gaussian import shape
from scipy import sparse
from sklearn import naive_bayes as theirs
from versus import Side

import fastgen
from fastgen import naive_bayes as ours


class Data(NamedTuple):
    """Rows and their classes."""

    X: Any
    y: Any


def gaussian_data(n, d=32, C=10):
    rng = np.random.default_rng(0)
    y = rng.integers(0, C, n)
    X = rng.standard_normal((n, d))
    X += rng.normal(0, 0.5, (C, d))[y]
    return Data(X, y)


def categorical_data(n, d=20, M=16, C=10):
    rng = np.random.default_rng(1)
    y = rng.integers(0, C, n)
    cumulative = np.cumsum(rng.dirichlet(np.ones(M), (C, d)), axis=2)
    X = np.empty((n, d), np.int64)
    for j in range(d):
        u = rng.random(n)
        X[:, j] = np.minimum((u[:, None] > cumulative[y, j]).sum(axis=1), M - 1)
    return Data(X, y)


def sparse_data(n, d=100_000, words=100, C=20):
    rng = np.random.default_rng(2)
    indices = (d * rng.random((n, words)) ** 3).astype(np.int32)
    indices.sort(axis=1)
    data = 1.0 + rng.poisson(0.5, n * words)
    indptr = np.arange(0, n * words + 1, words, dtype=np.int32)
    X = sparse.csr_matrix((data, indices.ravel(), indptr), shape=(n, d))
    X.sum_duplicates()
    return Data(X, rng.integers(0, C, n))


def dense_data(n, d=1000, C=20):
    rng = np.random.default_rng(3)
    y = rng.integers(0, C, n)
    X = rng.poisson(rng.gamma(0.3, 1.0, (C, d))[y]).astype(np.float64)
    return Data(X, y)


MAKERS = {"gaussian": gaussian_data, "categorical": categorical_data, "sparse": sparse_data, "dense": dense_data}


def gaussian_rivals(method, data, model, threads):
    if method == "fit":
        return {"NumPy + pool": lambda: reference.gaussian_fit(*data, len(model.classes_), threads)}
    what = "predict" if method == "predict" else "proba"
    parameters = model.theta_, model.var_, np.log(model.class_prior_)
    return {"NumPy + pool": lambda: reference.gaussian(data.X, *parameters, what, threads)}


def categorical_rivals(method, data, model, threads):
    C, M = len(model.classes_), int(model.n_categories_.max())
    if method == "fit":
        return {"Numba": lambda: reference.category_counts(*data, C, M, threads)}
    tables = np.ascontiguousarray(np.stack([table.T for table in model.feature_log_prob_]))
    return {"Numba": lambda: reference.table_predict(data.X, tables, model.class_log_prior_)}


def multinomial_rivals(method, data, model, threads):
    X, y = data
    if method == "fit" and sparse.issparse(X):
        return {"NumPy": lambda: reference.sparse_sums(X, y, len(model.classes_))}
    if method == "fit":
        return {"NumPy + pool": lambda: reference.sums(X, y, len(model.classes_), threads)}
    if sparse.issparse(X):
        table = np.ascontiguousarray(model.feature_log_prob_.T)
        return {"Numba": lambda: reference.sparse_predict(X.data, X.indices, X.indptr, table, model.class_log_prior_)}
    return {"NumPy + pool": lambda: reference.linear(X, model.feature_log_prob_, model.class_log_prior_, threads)}


def bernoulli_rivals(method, data, model, threads):
    X, y = data
    if sparse.issparse(X):
        return {}
    if method == "fit":
        return {"NumPy + pool": lambda: reference.sums(X, y, len(model.classes_), threads, 0.0)}
    log_q = np.log1p(-np.exp(model.feature_log_prob_))
    constant = model.class_log_prior_ + log_q.sum(axis=1)
    return {"NumPy + pool": lambda: reference.linear(X, model.feature_log_prob_ - log_q, constant, threads, 0.0)}


RIVALS = {
    "GaussianNB": gaussian_rivals,
    "CategoricalNB": categorical_rivals,
    "MultinomialNB": multinomial_rivals,
    "BernoulliNB": bernoulli_rivals,
}
FITTED = {
    "GaussianNB": lambda model: (model.theta_, model.var_),
    "CategoricalNB": lambda model: tuple(model.category_count_),
    "MultinomialNB": lambda model: (model.feature_count_,),
    "BernoulliNB": lambda model: (model.feature_count_,),
}
REFERENCE_FITTED = {
    "GaussianNB": tuple,
    "CategoricalNB": tuple,
    "MultinomialNB": lambda r: (r,),
    "BernoulliNB": lambda r: (r,),
}


@pytest.mark.parametrize(
    ("name", "kind", "n", "method", "targets"),
    [
        ("GaussianNB", "gaussian", 1_000_000, "predict", (80, 6)),
        ("GaussianNB", "gaussian", 1_000_000, "predict_proba", (60, 6)),
        ("GaussianNB", "gaussian", 1_000_000, "fit", (25, 5)),
        ("CategoricalNB", "categorical", 1_000_000, "predict", (30, 4)),
        ("CategoricalNB", "categorical", 1_000_000, "fit", (80, 1.2)),
        ("MultinomialNB", "sparse", 200_000, "predict", (4, 1.6)),
        ("MultinomialNB", "sparse", 200_000, "fit", (5, 2.5)),
        ("MultinomialNB", "dense", 100_000, "predict", (4, 3)),
        ("BernoulliNB", "dense", 100_000, "predict", (20, 3)),
        ("BernoulliNB", "dense", 100_000, "fit", (15, 2)),
        ("BernoulliNB", "sparse", 200_000, "predict", (4, None)),
        ("BernoulliNB", "sparse", 200_000, "fit", (4, None)),
    ],
)
def test_naive_bayes(versus, size, quick, name, kind, n, method, targets):
    threads = fastgen.get_num_threads()
    data = MAKERS[kind](size(n))
    mine, other = getattr(ours, name)(), getattr(theirs, name)()
    mine.fit(*data)
    other.fit(*data)
    rivals = RIVALS[name](method, data, other, threads)
    if method == "fit":
        side = Side(lambda: mine.fit(*data), FITTED[name])
        sides = {"scikit-learn": Side(lambda: other.fit(*data), FITTED[name])}
        sides |= {title: Side(call, REFERENCE_FITTED[name], blas_threads=1) for title, call in rivals.items()}
    else:
        side = Side(lambda: getattr(mine, method)(data.X))
        sides = {"scikit-learn": Side(lambda: getattr(other, method)(data.X))}
        sides |= {title: Side(call, blas_threads=1) for title, call in rivals.items()}
    wanted = {("scikit-learn",): targets[0]} | {(title,): targets[1] for title in rivals if targets[1]}
    d, C = data.X.shape[1], len(mine.classes_)
    versus(
        f"{name}.{method}, {'CSR ' if kind == 'sparse' else ''}{shape(len(data.y))} x {d}, {C} classes",
        side,
        sides,
        rtol=1e-6,
        atol=1e-6,
        n_bytes=0.0 if sparse.issparse(data.X) else data.X.nbytes,
        targets=None if quick else wanted,
        n=len(data.y),
        d=d,
    )


def test_reading_once(table, size, quick):
    """GaussianNB.predict on two threads, against the time that memory needs to deliver X to two threads."""
    limits = machine.measure()
    if limits is None:
        pytest.skip("needs a C compiler")
    data = gaussian_data(size(1_000_000))
    model = ours.GaussianNB().fit(*data)
    times = []
    with fastgen.num_threads(2):
        for _ in range(3 if quick else 21):
            start = time.perf_counter()
            model.predict(data.X)
            times.append(1e3 * (time.perf_counter() - start))
    found, once = float(np.median(times)), 1e-6 * data.X.nbytes / limits["read_gbs_2"]
    n, d = data.X.shape
    multiply_adds = 1e-6 * 2 * 2 * n * d * len(model.classes_) / (2 * limits["fma_gflops"])
    head = ["", "fastgen ms", "reading X once ms", "ratio", "target", "its multiply-adds at the peak ms"]
    row = [f"{found:.1f}", f"{once:.1f}", f"{found / once:.2f}", "2.5", f"{multiply_adds:.1f}"]
    table("Naive Bayes: what bounds predictions", head, [f"GaussianNB.predict, {shape(n, d)}, 10 classes", *row])


@pytest.mark.parametrize(
    ("name", "kind", "n", "methods"),
    [
        ("GaussianNB", "gaussian", 1_000_000, ("predict", "predict_proba", "fit")),
        ("CategoricalNB", "categorical", 1_000_000, ("predict", "fit")),
        ("MultinomialNB", "sparse", 200_000, ("predict", "fit")),
        ("MultinomialNB", "dense", 100_000, ("predict", "fit")),
        ("BernoulliNB", "dense", 100_000, ("predict", "fit")),
    ],
)
def test_memory(table, size, name, kind, n, methods):
    """Arrays beyond X and what is returned, or what the model holds after the fit."""
    data = MAKERS[kind](size(n))
    model = getattr(ours, name)().fit(*data)
    for method in methods:
        gc.collect()
        tracemalloc.start()
        if method == "fit":
            kept = getattr(ours, name)().fit(*data)
            left = tracemalloc.get_traced_memory()[0]
        else:
            kept = getattr(model, method)(data.X)
            left = kept.nbytes
        most = (tracemalloc.get_traced_memory()[1] - left) / 2**20
        tracemalloc.stop()
        del kept
        title = f"{name}.{method}, {shape(len(data.y))} x {data.X.shape[1]}{', CSR' if kind == 'sparse' else ''}"
        table(
            "Naive Bayes: memory beyond X and the result, MiB", ["", "fastgen", "target"], [title, f"{most:.2f}", "8"]
        )
        assert most < 8


def test_docstrings(table, quick):
    """A text corpus: the package that a module is from, by its docstrings."""
    X, y, train = docstrings.bag_of_words()
    parts = X[train], X[~train], y[train], y[~train]
    for name in ("MultinomialNB", "ComplementNB", "BernoulliNB"):
        mine, other = getattr(ours, name)(), getattr(theirs, name)()
        times = {}
        for which, model in (("fastgen", mine), ("scikit-learn", other)):
            spent = []
            for _ in range(3 if quick else 15):
                start = time.perf_counter()
                model.fit(parts[0], parts[2]).predict(parts[1])
                spent.append(1e3 * (time.perf_counter() - start))
            times[which] = float(np.median(spent))
        np.testing.assert_array_equal(mine.predict(parts[1]), other.predict(parts[1]))
        ratio = times["scikit-learn"] / times["fastgen"]
        share = np.mean(mine.predict(parts[1]) == parts[3])
        row = [f"{times['fastgen']:.2f}", f"{times['scikit-learn']:.2f}", f"{ratio:.1f}", f"{share:.3f}"]
        head = ["", "fastgen ms", "scikit-learn ms", "ratio", "accuracy"]
        title = f"{name}, fit and predict, {X.shape[0]} modules x {X.shape[1]} words"
        table("Naive Bayes: docstrings of installed packages", head, [title, *row])
