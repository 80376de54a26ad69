"""Naive Bayes: published examples, scikit-learn, slow oracles, and every way to say the same thing twice."""

import pickle
from fractions import Fraction
from itertools import product
from math import exp, factorial, lgamma, log, pi

import docstrings
import numpy as np
import pytest
import sklearn.naive_bayes as peer
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import integrate, sparse
from scipy.special import logsumexp
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning

import fastgen
from fastgen import BernoulliNB, CategoricalNB, ComplementNB, GaussianNB, MixedNB, MultinomialNB, _parallel
from fastgen.errors import SingularCovarianceError

nan, inf = np.nan, np.inf
equal, close = np.testing.assert_array_equal, np.testing.assert_allclose
METHODS = ("predict_joint_log_proba", "predict_log_proba", "predict_proba", "predict", "log_prob")
FAMILIES = {0: "gaussian", 1: "poisson", 2: "bernoulli", 3: "categorical"}
MODELS = {
    "gaussian": GaussianNB(var_smoothing=0.0),
    "multinomial": MultinomialNB(),
    "complement": ComplementNB(),
    "bernoulli": BernoulliNB(),
    "categorical": CategoricalNB(),
    "mixed": MixedNB(FAMILIES, var_smoothing=0.0),
}
GENERATIVE = [name for name in MODELS if name != "complement"]
TAKE_NAN = [name for name in GENERATIVE if name != "multinomial"]
TAKE_SPARSE = ["multinomial", "complement", "bernoulli"]
CLASSES = np.array(["ant", "bee", "cow"])
SIXTHS = np.array([1, 2, 3]) / 6
every = pytest.mark.parametrize("name", MODELS)
generative = pytest.mark.parametrize("name", GENERATIVE)


def data(name, rng, n=60, d=4, missing=0.0):
    """Rows of three classes, one, two and three sixths of them, with codes 0 to 4 if they are categories."""
    y = rng.permutation(np.array([0, 1, 1, 2, 2, 2])[np.arange(n) % 6])
    if name == "gaussian":
        X = rng.normal(size=(n, d)) + rng.normal(size=(3, d))[y]
    elif name == "mixed":
        columns = [rng.normal(y), rng.poisson(1 + y), rng.random(n) < 0.2 + 0.3 * y, rng.integers(0, 3 + y)]
        X = np.column_stack(columns).astype(float)
    else:
        X = np.minimum(rng.poisson(rng.gamma(1.0, 1.0, (3, d))[y]), 4).astype(float)
    X[rng.random(X.shape) < missing] = nan
    return X, CLASSES[y]


def results(model, X):
    return {method: getattr(model, method)(X) for method in METHODS if hasattr(model, method)}


def joint(model, X):
    return model.predict_joint_log_proba(X)


# ---- published examples ----------------------------------------------------------------------------------------------

TENNIS = """sunny hot high weak no; sunny hot high strong no; overcast hot high weak yes; rain mild high weak yes;
rain cool normal weak yes; rain cool normal strong no; overcast cool normal strong yes; sunny mild high weak no;
sunny cool normal weak yes; rain mild normal weak yes; sunny mild normal strong yes; overcast mild high strong yes;
overcast hot normal weak yes; rain mild high strong no"""


def test_play_tennis():
    """T. Mitchell (1997), Machine Learning, table 3.2 and section 6.9.1: .0053 for yes, .0206 for no, P(no) .795."""
    table = np.array([row.split() for row in TENNIS.split(";")])
    X, y = table[:, :-1], table[:, -1]
    today = [["sunny", "cool", "high", "strong"]]
    yes = Fraction(9, 14) * Fraction(2, 9) * Fraction(3, 9) * Fraction(3, 9) * Fraction(3, 9)
    no = Fraction(5, 14) * Fraction(3, 5) * Fraction(1, 5) * Fraction(4, 5) * Fraction(3, 5)
    assert (round(float(yes), 4), round(float(no), 4), round(float(no / (yes + no)), 3)) == (0.0053, 0.0206, 0.795)
    codes = np.column_stack([np.unique([*X[:, j], today[0][j]], return_inverse=True)[1] for j in range(4)])
    coded, mixed = CategoricalNB(alpha=0).fit(codes[:-1], y), MixedNB(alpha=0).fit(X, y)
    for model, row in [(mixed, today), (coded, codes[-1:])]:
        close(np.exp(joint(model, row)), [[float(no), float(yes)]], rtol=1e-14)
        close(model.predict_proba(row)[0, 0], float(no / (yes + no)), rtol=1e-14)
        assert model.predict(row) == "no"


def test_information_retrieval():
    """Manning, Raghavan, Schütze (2008), Introduction to Information Retrieval, examples 13.1 and 13.2."""
    documents = ["chinese beijing chinese", "chinese chinese shanghai", "chinese macao", "tokyo japan chinese"]
    words = ("chinese", "beijing", "shanghai", "macao", "tokyo", "japan")

    def count(text):
        return [text.split().count(word) for word in words]

    X, y = [count(text) for text in documents], ["china", "china", "china", "other"]
    test = [count("chinese chinese chinese tokyo japan")]
    china = Fraction(3, 4) * Fraction(3, 7) ** 3 * Fraction(1, 14) ** 2
    other = Fraction(1, 4) * Fraction(2, 9) ** 5
    model = MultinomialNB().fit(X, y)
    close(np.exp(joint(model, test)), [[float(china), float(other)]], rtol=1e-14)
    close(np.exp(joint(model, test)), [[3.0121e-4, 1.3548e-4]], rtol=2e-5)
    assert model.predict(test) == "china"
    china = Fraction(3, 4) * Fraction(4, 5) * Fraction(1, 5) ** 2 * Fraction(3, 5) ** 3
    other = Fraction(1, 4) * Fraction(2, 3) ** 3 * Fraction(2, 3) ** 3
    model = BernoulliNB().fit(X, y)
    close(np.exp(joint(model, test)), [[float(china), float(other)]], rtol=1e-14)
    close(np.exp(joint(model, test)), [[0.005184, 0.0219478738]], rtol=1e-9)
    assert model.predict(test) == "other"


def test_sex_from_height_weight_and_foot_size():
    """Wikipedia, "Naive Bayes classifier", section "Person classification"; its variances have ddof = 1."""
    male = [[6, 180, 12], [5.92, 190, 11], [5.58, 170, 12], [5.92, 165, 10]]
    female = [[5, 100, 6], [5.5, 150, 8], [5.42, 130, 7], [5.75, 150, 9]]
    model = GaussianNB(var_smoothing=0.0).fit(male + female, ["male"] * 4 + ["female"] * 4)
    model.var_ = model.var_ * 4 / 3
    close(model.theta_, [[5.4175, 132.5, 7.5], [5.855, 176.25, 11.25]], rtol=1e-14)
    close(model.var_, [[9.7225e-2, 5.5833e2, 1.6667], [3.5033e-2, 1.2292e2, 9.1667e-1]], rtol=3e-5)
    close(np.exp(joint(model, [[6, 130, 8]])), [[5.37791e-4, 6.19707e-9]], rtol=2e-6)
    assert model.predict([[6, 130, 8]]) == "female"


# ---- scikit-learn ----------------------------------------------------------------------------------------------------


def agree(ours, theirs, X, rtol=1e-11):
    """The attributes of a fit, to rounding, and what it says of X."""
    for name, expected in vars(theirs).items():
        if name.endswith("_") and name != "feature_names_in_":
            found = getattr(ours, name)
            parts = zip(found, expected, strict=True) if isinstance(expected, list) else [(found, expected)]
            for one, other in parts:
                if np.asarray(other).dtype.kind in "US":
                    equal(one, other)
                else:
                    close(one, other, rtol=rtol, err_msg=name)
                    assert np.asarray(one).dtype == np.asarray(other).dtype, name
    scale = np.abs(theirs.predict_joint_log_proba(X)).max()
    close(joint(ours, X), theirs.predict_joint_log_proba(X), rtol=rtol, atol=1e-14 * scale)
    close(ours.predict_log_proba(X), theirs.predict_log_proba(X), rtol=rtol, atol=1e-13 * scale)
    best = np.sort(np.insert(theirs.predict_joint_log_proba(X), 0, -inf, axis=1), axis=1)
    clear = best[:, -1] - best[:, -2] > 1e-12 * scale
    assert clear.mean() > 0.95
    equal(ours.predict(X)[clear], theirs.predict(X)[clear])


@pytest.mark.parametrize("load", [load_digits, load_wine, load_breast_cancer])
@pytest.mark.parametrize("weighted", [False, True])
def test_agreement_on_real_data(rng, load, weighted):
    X, y = load(return_X_y=True)
    w = rng.uniform(0.5, 2, len(y)) if weighted else None
    agree(GaussianNB().fit(X, y, w), peer.GaussianNB().fit(X, y, w), X, rtol=1e-9)
    middle = float(np.median(X))
    pairs = [
        (MultinomialNB(alpha=0.3), peer.MultinomialNB(alpha=0.3)),
        (ComplementNB(norm=True), peer.ComplementNB(norm=True)),
        (BernoulliNB(binarize=middle), peer.BernoulliNB(binarize=middle)),
    ]
    for ours, theirs in pairs:
        agree(ours.fit(X, y, w), theirs.fit(X, y, w), X)
    codes = np.floor(16 * (X - X.min(axis=0)) / np.maximum(np.ptp(X, axis=0), 1)).astype(int)
    agree(
        CategoricalNB(alpha=0.5, fit_prior=False).fit(codes, y, w),
        peer.CategoricalNB(alpha=0.5, fit_prior=False).fit(codes, y, w),
        codes,
    )


@pytest.fixture(scope="module")
def corpus():
    return docstrings.bag_of_words()


@pytest.mark.parametrize(
    ("name", "least"),
    [("MultinomialNB", 0.8), ("ComplementNB", 0.8), ("BernoulliNB", 0.58)],
)
def test_documents(corpus, name, least):
    """Which package a module is from, by its docstrings: .85, .85, .66 where it was tried; the largest has .29."""
    X, y, train = corpus
    assert {"python", "numpy", "scipy", "sklearn", "numba"} == set(y)
    ours, theirs = getattr(fastgen, name)().fit(X[train], y[train]), getattr(peer, name)().fit(X[train], y[train])
    agree(ours, theirs, X[~train])
    assert ours.score(X[~train], y[~train]) > least
    some = X[~train][:200].toarray()
    agree(clone(ours).fit(some, y[~train][:200]), clone(theirs).fit(some, y[~train][:200]), some)
    close(joint(ours, some), joint(ours, X[~train][:200]), rtol=1e-11)


# ---- the same thing said twice ---------------------------------------------------------------------------------------


@every
def test_weights_are_repeated_rows(rng, name):
    X, y = data(name, rng, missing=0.1 * (name in TAKE_NAN))
    model, w = MODELS[name], rng.integers(0, 4, 60)
    one, other = clone(model).fit(X, y, w), clone(model).fit(X.repeat(w, axis=0), y.repeat(w))
    equal(one.class_count_, other.class_count_)
    close(joint(one, X), joint(other, X), rtol=1e-12)
    w = rng.uniform(0.1, 3, 60)
    one, other = clone(model).fit(X, y, w), clone(model).fit(np.r_[X, X], np.r_[y, y], np.r_[w, w] / 2)
    close(joint(one, X), joint(other, X), rtol=1e-12)


@every
@pytest.mark.parametrize("weighted", [False, True])
def test_blocks_are_one_fit(rng, name, weighted):
    """The first block has one class and few categories; the fourth class never occurs."""
    X, y = data(name, rng, 97, missing=0.1 * (name in TAKE_NAN))
    order = np.lexsort([X[:, -1], y])
    X, y, w = X[order], y[order], rng.uniform(0.5, 2, 97) if weighted else None
    model, classes = clone(MODELS[name]), [*CLASSES, "dog"]
    if name == "gaussian":
        model.set_params(var_smoothing=0.1)
    fitted, whole = clone(model).fit(X, y, w), clone(model).partial_fit(X, y, classes, w)
    for rows in np.split(np.arange(97), [7, 8, 40, 41]):
        model.partial_fit(X[rows], y[rows], classes, None if w is None else w[rows])
    equal(model.classes_, classes)
    close(joint(model, X), joint(whole, X), rtol=1e-11)
    close(model.class_count_, [*fitted.class_count_, 0], rtol=1e-14)
    if name != "complement":  # its smoothing knows of the fourth class
        close(joint(model, X)[:, :3], joint(fitted, X), rtol=1e-11)
        equal(model.predict(X), fitted.predict(X))
        assert np.isneginf(joint(model, X)[:, 3]).all()
    if name == "gaussian":
        close(model.epsilon_, 0.1 * np.nanvar(X, axis=0).max(), rtol=1e-13)


def test_categories_of_later_blocks():
    model = CategoricalNB().partial_fit([[0], [1]], [0, 1], [0, 1]).partial_fit([[4], [0]], [0, 1])
    assert model.n_categories_ == [5]
    close(model.predict_proba([[4], [3]]), [[2 / 3, 1 / 3], [1 / 2, 1 / 2]], rtol=1e-14)
    model = MixedNB().partial_fit([["b"], ["d"]], [0, 1], [0, 1]).partial_fit([["a"], ["b"]], [0, 1])
    equal(model.categories_[0], ["b", "d", "a"])
    close(model.predict_proba([["a"], ["b"], ["new"]]), [[2 / 3, 1 / 3], [1 / 2, 1 / 2], [1 / 2, 1 / 2]], rtol=1e-14)


@every
def test_order_does_not_matter(rng, name):
    X, y = data(name, rng, missing=0.1 * (name in TAKE_NAN))
    model = clone(MODELS[name]).fit(X, y)
    rows, columns = rng.permutation(60), rng.permutation(4)
    close(joint(clone(model).fit(X[rows], y[rows]), X), joint(model, X), rtol=1e-12)
    shuffled, permuted = clone(model), np.ascontiguousarray(X[:, columns])
    if name == "mixed":
        shuffled.set_params(families={i: FAMILIES[j] for i, j in enumerate(columns)})
    close(joint(shuffled.fit(permuted, y), permuted), joint(model, X), rtol=1e-12)
    rename = {"ant": 7, "bee": -3, "cow": 2}
    renamed = clone(model).fit(X, [rename[label] for label in y])
    equal(renamed.classes_, [-3, 2, 7])
    equal(joint(renamed, X), joint(model, X)[:, [1, 2, 0]])
    best = np.sort(joint(model, X), axis=1)
    clear = best[:, -1] > best[:, -2]  # of equals the first is taken, which is another
    assert clear.mean() > 0.7
    equal(renamed.predict(X[clear]), [rename[label] for label in model.predict(X[clear])])
    assert clone(model).fit(X, y == "bee").predict(X).dtype == bool


def check_threads(model, X, y, w, monkeypatch):
    """The same bits on 1, 2 and 7 threads, which really are at work; and for one row alone."""
    found, run_on, runs, before = [], _parallel._run_on, [], fastgen.get_num_threads()
    monkeypatch.setattr(_parallel, "_run_on", lambda n, *args: (runs.append(n), run_on(n, *args)))
    try:
        for threads in (1, 2, 7):
            fastgen.set_num_threads(threads)
            model.fit(X, y, w)
            assert (len(runs) > 0) == (threads > 1) or isinstance(model, MixedNB)  # it reads few rows at a time
            runs.clear()
            found.append(results(model, X))
            assert (len(runs) >= len(found[0])) == (threads > 1)
            runs.clear()
    finally:
        fastgen.set_num_threads(before)
    for method, values in found[0].items():
        equal(values, found[1][method])
        equal(values, found[2][method])
        equal(values[17:18], getattr(model, method)(X[17:18]))


@every
def test_threads_do_not_change_a_bit(rng, name, monkeypatch):
    X, y = data(name, rng, 300_000, 4, missing=0.05 * (name in TAKE_NAN))
    check_threads(clone(MODELS[name]), X, y, rng.uniform(0.5, 2, len(y)), monkeypatch)


@pytest.mark.parametrize("missing", [False, True])
@every
def test_layouts(rng, name, missing, tmp_path):
    """The same bits for a fitted model, and the same fit to rounding, whatever the strides."""
    X, y = data(name, rng, missing=0.1 * (missing and name in TAKE_NAN))
    model = clone(MODELS[name]).fit(X, y)
    expected, spread = results(model, X), np.zeros((180, 8))
    spread[::3, ::2] = X
    np.save(tmp_path / "X.npy", X)
    read_only, labels, weights = X.copy(), y.copy(), np.ones(60)
    for array in (read_only, labels, weights):
        array.flags.writeable = False
    layouts = {
        "Fortran": np.asfortranarray(X),
        "negative": np.ascontiguousarray(X[::-1, ::-1])[::-1, ::-1],
        "strided": spread[::3, ::2],
        "memmap": np.load(tmp_path / "X.npy", mmap_mode="r"),
        "read-only": read_only,
        "big-endian": X.astype(">f8"),
        "objects": X.astype(object),
    }
    for what, layout in layouts.items():
        fitted = clone(model).fit(layout, labels, weights)
        close(joint(fitted, X), expected["predict_joint_log_proba"], rtol=1e-12, err_msg=what)
        for method, values in results(model, layout).items():
            equal(values, expected[method], what)


@every
@pytest.mark.parametrize("dtype", ["f4", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", "f2"])
def test_dtypes(rng, name, dtype):
    """Values that all types hold: the results are those of float64, to the last bit."""
    if dtype == "?" and name == "mixed":
        pytest.skip("its families are numbers")
    X, y = np.minimum(data(name, rng)[0].round().clip(0), 1 if dtype == "?" else 9), CLASSES[np.arange(60) % 3]
    model = clone(MODELS[name])
    if name in ("gaussian", "mixed"):
        model.set_params(var_smoothing=1.0)
    expected, typed = results(model.fit(X, y), X), X.astype(dtype)
    for method, values in results(model, typed).items():
        equal(values, expected[method])
    model.fit(typed, y)
    if name == "gaussian" and dtype in ("f4", "f2"):
        assert (model.theta_.dtype, model.var_.dtype) == (np.float32, np.float32)
        close(joint(model, typed), expected["predict_joint_log_proba"], rtol=1e-5)
    else:
        for method, values in results(model, typed).items():
            equal(values, expected[method])


def test_integers_of_the_other_byte_order(rng):
    X, y = rng.integers(0, 30, (60, 4)), data("categorical", rng)[1]
    for name in ("gaussian", "multinomial", "bernoulli", "categorical"):
        model = clone(MODELS[name])
        equal(joint(model.fit(X.astype(">i4"), y), X.astype(">i2")), joint(model.fit(X, y), X))


def test_threshold_of_float32():
    X = np.array([[0.1], [0.5]], np.float32)
    equal(
        BernoulliNB(binarize=0.1).fit(X, [0, 1]).feature_count_,
        peer.BernoulliNB(binarize=0.1).fit(X, [0, 1]).feature_count_,
    )


@every
def test_inputs_are_not_modified_and_copies_are_the_same(rng, name):
    X, y = data(name, rng, missing=0.1 * (name in TAKE_NAN))
    inputs = [X, y, rng.uniform(0.5, 2, 60), SIXTHS.copy()]
    S = sparse.csr_matrix(np.nan_to_num(X))
    S.indices, S.data = S.indices[::-1].copy(), S.data[::-1].copy()
    inputs += [S.data, S.indices, S.indptr]
    copies = [array.copy() for array in inputs]
    smoothing = {"var_smoothing": 0.5} if name == "gaussian" else {"alpha": 0.5}
    key = "priors" if hasattr(MODELS[name], "priors") else "class_prior"
    model = clone(MODELS[name]).set_params(**{key: inputs[3]}, **smoothing).fit(X, y, inputs[2])
    copy = pickle.loads(pickle.dumps(model))
    for method, values in results(model, X).items():
        equal(values, getattr(copy, method)(X))
    equal(joint(copy.partial_fit(X, y), X), joint(model.partial_fit(X, y), X))
    assert not hasattr(clone(model), "classes_")
    assert {**clone(model).get_params(), key: 0} == {**model.get_params(), key: 0}
    if name in TAKE_SPARSE:
        results(model.fit(S, y), S)
    for array, before in zip(inputs, copies, strict=True):
        equal(array, before)


# ---- failures leave no trace -----------------------------------------------------------------------------------------


def refused(model, match, *args, method="fit", error=ValueError, **kwargs):
    """The call fails, and the model, down to the objects that it holds, is what it was."""
    before, state = dict(vars(model)), pickle.dumps(model)
    with pytest.raises(error, match=match):
        getattr(model, method)(*args, **kwargs)
    assert vars(model).keys() == before.keys()
    assert all(vars(model)[key] is value for key, value in before.items())
    assert pickle.dumps(model) == state


@every
@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_failed_fits_leave_no_trace(rng, name, fitted, method):
    X, y = data(name, rng)
    model, infinite, ones, later = clone(MODELS[name]), X.copy(), np.ones(60), fitted and method == "partial_fit"
    infinite[17, 2] = inf
    if fitted:
        model.fit(X, y)

    def bad(match, *args, error=ValueError, weights=None, **params):
        good = model.get_params()
        more = {"classes": CLASSES} if method == "partial_fit" else {}
        refused(model.set_params(**params), match, *args, sample_weight=weights, method=method, error=error, **more)
        model.set_params(**good)

    bad("infinity", infinite, y)
    bad("infinity|Negative", -infinite, y)
    bad("2D|1 dim", X[:, 0], y)
    bad("inconsistent", X[1:], y)
    bad("inconsistent", X, y[1:])
    for weights in (-ones, nan * ones, inf * ones, 0 * ones, ones[1:]):
        bad("sample_weight", X, y, weights=weights)
    key = "priors" if hasattr(model, "priors") else "class_prior"
    for priors, match in [([0.5, 0.6, 0.1], "should be 1"), ([0.5, 0.5], "match"), ([1.5, -0.5, 0], "non-negative")]:
        bad(match, X, y, **{key: priors})
    smoothing = "var_smoothing" if name == "gaussian" else "alpha"
    for value in (-1.0, nan, inf):
        bad(smoothing, X, y, **{smoothing: value})
    if name not in TAKE_NAN:
        bad("NaN", np.where(X > 3, nan, X), y)
    if name in ("multinomial", "complement", "categorical"):
        bad("Negative", X - 1, y)
    if name == "mixed":
        bad("column 1 is Poisson.* 0.5 at row 3", np.where(np.arange(60)[:, None] == 3, 0.5, X), y)
    if name == "mixed" and not later:
        bad("must be one of", X, y, families={0: "gauss"})
        bad("no feature 'height'", X, y, families={"height": "gaussian"})
        bad("mapping", X, y, families=["gaussian"] * 4, error=TypeError)
    if name in ("gaussian", "mixed") and method == "fit":
        bad(
            "class bee.*column 0",
            np.where(np.outer(y == "bee", np.arange(4) == 0), 3, X),
            y,
            error=SingularCovarianceError,
        )
    if method == "partial_fit":
        bad("do not exist", X, np.where(y == "ant", "elk", y))
    if later:
        refused(model, "not the same", X, y, CLASSES[:2], method=method)
        for call in results(model, X):
            refused(model, "infinity", infinite, method=call)
            refused(model, "features", X[:, :3], method=call)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "mixed"])
@pytest.mark.parametrize("wrong", [lambda y: [*y, y[0]], lambda y: y.reshape(-1, 2)], ids=["longer", "two columns"])
def test_labels_of_later_blocks_are_checked(rng, name, wrong):
    X, y = data(name, rng)
    refused(clone(MODELS[name]).fit(X, y), "inconsistent|1d", X, wrong(y), method="partial_fit")


def test_labels_of_later_blocks_may_be_a_list():
    X = np.array([[1.0], [2.0], [5.0], [7.0]])
    model = GaussianNB(semi_supervised=True).fit(X, [0, 0, 1, 1])
    equal(model.partial_fit(X, [0, 0, 1, 1]).class_count_, [4, 4])


@pytest.mark.parametrize("alpha", [-1.0, nan, inf])
def test_alpha_of_later_blocks_is_checked(rng, alpha):
    X, y = data("mixed", rng)
    refused(clone(MODELS["mixed"]).fit(X, y).set_params(alpha=alpha), "alpha", X, y, method="partial_fit")


@pytest.mark.parametrize("model", [MultinomialNB(), ComplementNB(), BernoulliNB()])
def test_an_array_of_alpha_is_finite(model):
    refused(clone(model).set_params(alpha=[inf, 1.0]), "alpha", [[1, 2], [3, 4]], [0, 1])


@pytest.mark.parametrize("code", [inf, 1e19, np.uint64(2**63), 2**31])
def test_categories_that_are_no_codes(code):
    refused(CategoricalNB(), "infinity" if code == inf else r"column 0 .*2\*\*31", np.array([[0], [code]]), [0, 1])


def test_fits_that_fail_late_leave_no_trace(rng):
    X, y = data("categorical", rng)
    model, labels = CategoricalNB(semi_supervised=True).fit(X, y).set_params(alpha=0), y.astype(object)
    X[7, 2], labels[7] = 9, -1
    refused(model, "no class allows row 7", X, labels)
    table, y = np.array([["a", 1.0], ["b", 2.0], ["a", 3.0], ["c", 5.0]], dtype=object), [0, 0, 1, 1]
    model = MixedNB(var_smoothing=0).fit(table, y)
    table[0, 0], table[2, 1] = "new", 5.0
    refused(model, "class 1", table, y, error=SingularCovarianceError)
    table[0, 1] = "text"
    refused(model, "column 1 holds categories", table, y, method="partial_fit")
    equal(model.categories_[0], ["a", "b", "c"])


# ---- missing values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TAKE_NAN)
def test_missing_cells_are_left_out(rng, name):
    """A column is fitted to the rows that have it; a row is scored by the columns that it has."""
    X, y = data(name, rng, missing=0.3)
    X[:3] = [[nan] * 4, [nan] * 3 + [1], [1] + [nan] * 3]
    model, total = clone(MODELS[name]).fit(X, y), np.tile(np.log(SIXTHS), (60, 1))
    for j in range(4):
        there = ~np.isnan(X[:, j])
        alone = clone(MODELS[name])
        if name == "mixed":
            alone.set_params(families=FAMILIES[j])
        alone.fit(X[there, j : j + 1], y[there])
        total[there] += joint(alone, X[there, j : j + 1]) - np.log(alone.class_count_ / alone.class_count_.sum())
    close(joint(model, X), total, rtol=1e-12)
    close(model.log_prob(X), logsumexp(total, axis=1), rtol=1e-12, atol=1e-14)
    close(model.predict_proba(X[:1]), [SIXTHS], rtol=1e-14)


def test_a_column_that_a_class_has_never_shown():
    X, y = [[1.0, nan], [2.0, nan], [5.0, 1.0], [7.0, 3.0]], [0, 0, 1, 1]
    model = GaussianNB(var_smoothing=0).fit(X, y)
    equal(model.theta_, [[1.5, 2.0], [6.0, 2.0]])
    equal(model.var_, [[0.25, 1.0], [1.0, 1.0]])
    close(BernoulliNB().fit(X, y).predict_proba([[nan, 1]]), [[0.4, 0.6]], rtol=1e-14)
    close(CategoricalNB().fit(X, y).predict_proba([[nan, 3]]), [[3 / 7, 4 / 7]], rtol=1e-14)


def test_a_column_that_the_first_block_does_not_show():
    X, y = np.array([[1.0, nan], [2.0, nan], [5.0, 1.0], [7.0, 3.0], [0.0, 4.0]]), [0, 1, 0, 1, 0]
    model = GaussianNB().partial_fit(X[:2], y[:2], [0, 1]).partial_fit(X[2:], y[2:])
    close(joint(model, X), joint(GaussianNB().fit(X, y), X), rtol=1e-12)


def test_a_column_that_labelled_rows_do_not_show():
    X = [[1.0, nan], [2.0, nan], [8.0, nan], [9.0, nan], [1.5, 1.0], [0.9, 2.0], [8.5, 5.0], [7.9, 7.0]]
    model = GaussianNB(semi_supervised=True).fit(X, [0, 0, 1, 1, -1, -1, -1, -1])
    close(model.theta_[:, 1], [1.5, 6.0], rtol=1e-6)


@pytest.mark.parametrize("model", [CategoricalNB(), MixedNB({1: "categorical"})])
def test_a_column_of_categories_without_any(model):
    X, y = np.array([[1.0, nan], [0.0, nan], [3.0, nan], [4.0, nan]]), [0, 0, 1, 1]
    model = clone(model).fit(X, y)
    alone = GaussianNB() if isinstance(model, MixedNB) else CategoricalNB()
    close(joint(model, X), joint(alone.fit(X[:, :1], y), X[:, :1]), rtol=1e-12)
    assert np.isfinite(model.sample(5, random_state=0)[0][:, 0]).all()


# ---- sparse rows -----------------------------------------------------------------------------------------------------


def odd_rows(X, rng, integers=np.int32):
    """X in compressed rows: every entry is given in two parts, in any order, with zeros among them."""
    rows, columns = np.nonzero(np.isnan(X) | (X != 0) | (rng.random(X.shape) < 0.2))
    part = np.floor(X[rows, columns] / 2)
    values, rows, columns = np.r_[X[rows, columns] - part, part], np.r_[rows, rows], np.r_[columns, columns]
    order = np.lexsort([rng.random(len(rows)), rows])
    indptr = np.searchsorted(rows[order], np.arange(len(X) + 1))
    S = sparse.csr_matrix(X.shape)
    S.data, S.indices, S.indptr = values[order], columns[order].astype(integers), indptr.astype(integers)
    return S


@pytest.mark.parametrize("integers", [np.int32, np.int64])
@pytest.mark.parametrize("name", TAKE_SPARSE)
def test_odd_sparse_matrices(rng, name, integers, monkeypatch):
    """Duplicates, explicit zeros, columns in any order, empty rows, columns that are never seen."""
    X, y = data(name, rng, 200, 12)
    X[:, [0, 7]], X[[0, 50, 199]] = 0, 0
    if name == "bernoulli":
        X = np.minimum(X, 1)
    S = odd_rows(X, rng, integers)
    w = rng.uniform(0.5, 2, 200)
    dense, model = clone(MODELS[name]).fit(X, y, w), clone(MODELS[name]).fit(S, y, w)
    close(model.feature_count_, dense.feature_count_, rtol=1e-13)
    close(joint(model, S), joint(dense, X), rtol=1e-12)
    close(joint(model, X), joint(dense, X), rtol=1e-12)
    for other in (sparse.csc_array(X), sparse.coo_matrix(X), sparse.csr_array(X.astype(np.int8)), S.astype(np.float32)):
        close(joint(clone(model).fit(other, y, w), other), joint(dense, X), rtol=1e-12)
    check_threads(clone(model), sparse.vstack([S] * 500).tocsr(), np.tile(y, 500), np.tile(w, 500), monkeypatch)
    nothing = sparse.csr_matrix((3, 4))
    close(clone(model).fit(nothing, CLASSES).predict_proba(nothing), np.full((3, 3), 1 / 3), rtol=1e-14)


@pytest.mark.parametrize("binarize", [1.0, None])
def test_duplicates_add_up_before_they_are_binarised(binarize):
    values = [0.5, 0.75, 2.0] if binarize else [0.5, 0.5, 1.0]
    S = sparse.csr_matrix((values, [0, 0, 1], [0, 2, 3]), shape=(2, 2))
    sparse_fit = BernoulliNB(binarize=binarize).fit(S, [0, 1])
    dense_fit = BernoulliNB(binarize=binarize).fit(S.toarray(), [0, 1])
    equal(sparse_fit.feature_count_, dense_fit.feature_count_)
    equal(joint(sparse_fit, S), joint(dense_fit, S.toarray()))


def test_missing_cells_of_sparse_rows(rng):
    X, y = data("bernoulli", rng, missing=0.2)
    X[X == 0] = 0
    model = BernoulliNB().fit(sparse.csr_matrix(X), y)
    close(model.feature_log_prob_, BernoulliNB().fit(X, y).feature_log_prob_, rtol=1e-13)
    close(joint(model, sparse.csr_matrix(X)), joint(model, X), rtol=1e-12)


def test_infinity_in_sparse_rows_is_located():
    refused(BernoulliNB(), "at row 1, column 2", sparse.csr_matrix([[1.0, 1, 1], [0, 0, inf]]), [0, 1])


# ---- no smoothing ----------------------------------------------------------------------------------------------------


def test_without_smoothing_impossible_is_impossible():
    """Class 0 has word 0 alone, class 1 word 1 alone; nobody has word 2."""
    X, y = np.array([[2.0, 0, 0], [0, 3, 0]]), [0, 1]
    test = np.array([[5.0, 0, 0], [0, 0.001, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]])
    h = np.log(0.5)
    expected = [[h, -inf], [-inf, h], [-inf, -inf], [-inf, -inf], [h, h]]
    for layout in (np.asarray, sparse.csr_matrix):
        model = MultinomialNB(alpha=0, class_prior=[0.25, 0.75]).fit(layout(X), y)
        equal(joint(model, layout(test)) - np.log([0.25, 0.75]), np.array(expected) - h)
        equal(model.predict(layout(test)), [0, 1, 1, 1, 1])
        equal(np.isnan(model.predict_proba(layout(test))).any(axis=1), [False, False, True, True, False])
        equal(model.log_prob(layout(test))[2:4], [-inf, -inf])
        model = BernoulliNB(alpha=0).fit(layout(X), y)
        equal(joint(model, layout(test)), [[h, -inf], [-inf, h], [-inf, -inf], [-inf, -inf], [-inf, -inf]])
    model = CategoricalNB(alpha=0).fit([[0, 1], [2, 1]], y)
    equal(joint(model, [[0, 1], [2, 1], [1, 1], [0, 0]]), [[h, -inf], [-inf, h], [-inf, -inf], [-inf, -inf]])
    refused(model, "row 1 holds category 3.0 in column 0", [[0.0, 1], [3, 1]], method="predict")
    model = MixedNB("poisson", alpha=0).fit([[0], [3]], y)
    close(joint(model, [[0], [1]]), [[h, h - 3], [-inf, h + np.log(3) - 3]], rtol=1e-14)
    for model in (MultinomialNB(alpha=0), BernoulliNB(alpha=[0.0, 0.0]), ComplementNB(alpha=0), CategoricalNB(alpha=0)):
        with pytest.warns(UserWarning, match="alpha too small"):
            small = clone(model).set_params(force_alpha=False).fit([[2, 0], [0, 3]], y)
        close(joint(small, [[2, 0]]), joint(clone(model).set_params(alpha=1e-10).fit([[2, 0], [0, 3]], y), [[2, 0]]))


def test_certain_events_are_certain_whatever_the_weights(rng):
    """Sums of weights round, but an event that always was there has no share for its absence."""
    X = np.where(rng.random((20_000, 2)) < 0.5, nan, 1.0)
    model = BernoulliNB(alpha=0).fit(X, np.arange(20_000) % 3, rng.uniform(0.1, 1, 20_000))
    assert np.isneginf(joint(model, [[0.0, 1.0]])).all()
    close(joint(model, [[1.0, nan]]), joint(model, [[nan, nan]]), rtol=1e-14)


@pytest.mark.parametrize("count", [1e-12, 1e-300])
def test_tiny_counts_of_impossible_words(count):
    model = MultinomialNB(alpha=0).fit([[1, 0], [0, 1]], [0, 1])
    equal(model.predict_proba([[count, 0.0]]), [[1, 0]])
    equal(joint(model, [[count, 0.0]])[0, 1], -inf)


def test_normalised_complement_without_smoothing():
    """The limit for alpha -> 0: all weight on the words that other classes have never."""
    model = ComplementNB(alpha=0, norm=True).fit([[1, 0, 1], [0, 1, 1]], [0, 1])
    equal(model.feature_log_prob_, [[1, 0, 0], [0, 1, 0]])
    equal(model.predict([[1, 0, 0], [0, 1, 0]]), [0, 1])


# ---- extremes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["GaussianNB", "MultinomialNB", "ComplementNB", "BernoulliNB", "CategoricalNB"])
@pytest.mark.parametrize("C", [1, 1000])
def test_one_class_and_a_thousand(rng, name, C):
    X, y = rng.poisson(0.7, (3 * C + 5, 30)).astype(float), np.arange(3 * C + 5) % C
    ours, theirs = getattr(fastgen, name)(), getattr(peer, name)()
    if name == "GaussianNB":
        ours, theirs, X = (
            GaussianNB(var_smoothing=0.1),
            peer.GaussianNB(var_smoothing=0.1),
            X + rng.normal(size=X.shape),
        )
    agree(ours.fit(X, y), theirs.fit(X, y), X, rtol=1e-10)
    close(ours.predict_proba(X).sum(axis=1), 1, rtol=1e-13)


def test_gaussian_far_from_zero(rng):
    X, y = np.round(rng.normal(size=(200, 3)) * 1024) / 1024, rng.integers(0, 3, 200)
    near, far = GaussianNB(var_smoothing=0).fit(X, y), GaussianNB(var_smoothing=0).fit(X + 1e8, y)
    close(far.var_, near.var_, rtol=1e-12)
    close(far.theta_ - 1e8, near.theta_, atol=1.5e-8, rtol=0)
    close(joint(far, X + 1e8), joint(near, X), atol=1e-6, rtol=0)
    blocks = GaussianNB(var_smoothing=0)
    for rows in np.split(np.arange(200), [10, 11, 150]):
        blocks.partial_fit(X[rows] + 1e8, y[rows], [0, 1, 2])
    close(blocks.var_, near.var_, rtol=1e-7)


def test_gaussian_posteriors_have_no_units(rng):
    X, y = data("gaussian", rng, 200)
    expected = GaussianNB(var_smoothing=0).fit(X, y).predict_log_proba(X)
    scale, shift = np.array([2.0**-60, 1e-3, 7.0, 2.0**70]), np.array([0.0, 1e-3, 50.0, -(2.0**71)])
    moved = X * scale + shift
    close(GaussianNB(var_smoothing=0).fit(moved, y).predict_log_proba(moved), expected, rtol=1e-11, atol=1e-11)
    expected = GaussianNB(var_smoothing=0.3).fit(X, y)
    moved = GaussianNB(var_smoothing=0.3).fit(X * 2.0**80, y)
    equal(moved.theta_, expected.theta_ * 2.0**80)
    equal(moved.var_, expected.var_ * 2.0**160)


# ---- log p(x) and draws ----------------------------------------------------------------------------------------------


@generative
def test_probabilities_add_up_to_one(rng, name):
    X, y = data(name, rng, d=3)
    cells = np.array(list(product(range(5), repeat=3)), float)
    coefficient = 0.0
    if name == "gaussian":
        model = GaussianNB().fit(X[:, :1], y)
        total, _ = integrate.quad(lambda x: exp(model.log_prob([[x]])[0]), -30, 30, epsabs=1e-12, limit=200)
        assert abs(total - 1) < 1e-10
        return
    if name == "bernoulli":
        cells = cells[cells.max(axis=1) < 2]
    elif name == "multinomial":
        cells = cells[cells.sum(axis=1) == 4]
        coefficient = np.array([log(factorial(4)) - sum(lgamma(k + 1) for k in row) for row in cells])
    elif name == "mixed":
        X, cells = X[:, 1:], np.array(list(product(range(80), range(2), range(5))), float)
    model = clone(MODELS[name])
    if name == "mixed":
        model.set_params(families={0: "poisson", 1: "bernoulli", 2: "categorical"})
    model.fit(np.r_[X, np.full((1, 3), 4 if name == "categorical" else 1)], np.r_[y, y[:1]])
    close(np.exp(model.log_prob(cells) + coefficient).sum(), 1, rtol=1e-12)
    close(model.log_prob(cells), logsumexp(joint(model, cells), axis=1), rtol=1e-13)
    equal(model.score_samples(cells), model.log_prob(cells))


def column_means(name, model):
    """(C, d), from the attributes."""
    if name == "gaussian":
        return model.theta_
    if name == "multinomial":
        lengths = np.rint(model.feature_count_.sum(axis=1) / model.class_count_)
        return np.exp(model.feature_log_prob_) * lengths[:, None]
    if name == "bernoulli":
        return np.exp(model.feature_log_prob_)
    if name == "categorical":
        return np.stack([np.exp(table) @ np.arange(table.shape[1]) for table in model.feature_log_prob_], axis=1)
    normal, poisson, bernoulli, categorical = model.parameters_
    of_codes = categorical["probabilities"] @ np.array(model.categories_[3], float)
    return np.stack([normal["mean"], poisson["rate"], bernoulli["probability"], of_codes], axis=1)


@generative
def test_draws(rng, name):
    """Means of columns, shares of classes, variances of Gaussians: within 5 standard errors."""
    X, y = data(name, rng)
    model = clone(MODELS[name]).fit(X, y)
    drawn, labels = model.sample(30_000, random_state=1)
    for again in (1, np.random.default_rng(1)):
        equal(model.sample(30_000, random_state=again)[0], drawn)
    assert drawn.shape == (30_000, 4)
    share = np.array([(labels == label).mean() for label in CLASSES])
    p = SIXTHS
    assert np.all(np.abs(share - p) < 5 * np.sqrt(p * (1 - p) / 30_000))
    for c, label in enumerate(CLASSES):
        own = drawn[labels == label].astype(float)
        error = own.std(axis=0) / np.sqrt(len(own))
        assert np.all(np.abs(own.mean(axis=0) - column_means(name, model)[c]) < 5 * error)
        if name == "gaussian":
            assert np.all(np.abs(own.var(axis=0) / model.var_[c] - 1) < 5 * np.sqrt(2 / len(own)))
    assert np.isfinite(model.log_prob(drawn)).all()
    wanted = ["cow", "ant", "ant"]
    equal(model.sample(y=wanted, random_state=0)[1], wanted)
    equal(model.sample(2, y="bee", random_state=0)[1], ["bee"] * 2)
    refused(model, "not among the classes", y=["dog"], method="sample")
    refused(model, "must be one label or 2", 2, wanted, method="sample")
    if name == "multinomial":
        equal(model.sample(50, random_state=0, length=7)[0].sum(axis=1), 7)


# ---- rows without labels ---------------------------------------------------------------------------------------------


def semi_supervised(name):
    more = {"min_categories": 5} if name == "categorical" else {}
    return clone(MODELS[name]).set_params(semi_supervised=True, **more)


@pytest.mark.parametrize("name", GENERATIVE)
def test_em_is_the_fit_to_rows_in_part_of_each_class(rng, name):
    """Each iteration: as many copies of the unlabelled rows as there are classes, weighted by their posteriors."""
    X, y = data(name, rng, 90, missing=0.1 * (name in TAKE_NAN))
    w, known = rng.uniform(0.5, 2, 90), np.arange(90) < 45
    labels = np.where(known, np.searchsorted(CLASSES, y), -1)
    model = semi_supervised(name).set_params(max_iter=4, tol=0)
    with pytest.warns(ConvergenceWarning, match="did not converge in 4"):
        model.fit(X, labels, w)
    expected = clone(model).set_params(semi_supervised=False).fit(X[known], labels[known], w[known])
    rest = X[~known]
    stacked, classes = np.r_[X[known], rest, rest, rest], np.r_[labels[known], np.repeat([0, 1, 2], 45)]
    for _ in range(4):
        posterior = expected.predict_proba(rest) * w[~known][:, None]
        expected = clone(expected).fit(stacked, classes, np.r_[w[known], posterior.T.ravel()])
    close(joint(model, X), joint(expected, X), rtol=1e-9)
    assert (model.n_iter_, len(model.history_), model.stop_reason_) == (4, 5, "max_iter")


@pytest.mark.parametrize("name", GENERATIVE)
def test_em_climbs_and_the_last_objective_is_that_of_the_fit(rng, name):
    X, y = data(name, rng, 300, missing=0.1 * (name in TAKE_NAN))
    labels = np.where(np.arange(300) < 30, y.astype(object), -1)
    known, w = labels != -1, rng.uniform(0.5, 2, 300)
    model = semi_supervised(name)
    if name != "gaussian":
        model.set_params(alpha=0.5)
    model.fit(X, labels, w)
    assert model.stop_reason_ == "converged"
    assert len(model.history_) == model.n_iter_ + 1 > 3
    assert np.diff(model.history_).min() > -1e-12 * np.abs(model.history_).max()
    equal(model.classes_, CLASSES)
    if name != "mixed":
        own = joint(model, X[known])[np.arange(30), np.searchsorted(CLASSES, y[known])]
        objective = w[known] @ own + w[~known] @ model.log_prob(X[~known])
        if name != "gaussian":
            objective += 0.5 * np.sum(model.feature_log_prob_)
        if name == "bernoulli":
            objective += 0.5 * np.log1p(-np.exp(model.feature_log_prob_)).sum()
        close(model.history_[-1], objective / w.sum(), rtol=1e-11)


@generative
def test_em_with_all_labels_is_the_fit(rng, name):
    X, y = data(name, rng)
    model = semi_supervised(name).fit(X, y)
    equal(joint(model, X), joint(clone(model).set_params(semi_supervised=False).fit(X, y), X))
    equal(model.history_, [])
    model.partial_fit(X, y)
    refused(model, "needs labels", X, np.where(np.arange(60) < 9, -1, y.astype(object)), method="partial_fit")
    refused(model, "at least one label", X, np.full(60, -1))
    refused(model, "as text", X, np.where(np.arange(60) < 9, "-1", y))


def test_unlabelled_rows_help(rng):
    y = np.arange(3000) % 3
    X = rng.normal(size=(3000, 12)) + 0.8 * rng.normal(size=(3, 12))[y]
    labels = np.where(np.arange(3000) < 9, y, -1)
    few, all_rows = GaussianNB(var_smoothing=0.1).fit(X[:9], y[:9]), GaussianNB().fit(X, y)
    model = GaussianNB(semi_supervised=True, var_smoothing=0.1).fit(X, labels)
    assert few.score(X, y) < 0.95 * all_rows.score(X, y)
    assert model.score(X, y) > 0.99 * all_rows.score(X, y)


def test_categories_that_only_unlabelled_rows_have():
    X, labels = [[0.0], [1.0], [5.0], [6.0], [7.0]], [0, 1, -1, -1, -1]
    model = CategoricalNB(semi_supervised=True).fit(X, labels)
    expected = CategoricalNB(semi_supervised=True, min_categories=8).fit(X, labels)
    close(joint(model, X), joint(expected, X), rtol=1e-6)


def test_em_climbs_if_unlabelled_counts_are_smaller():
    X = np.r_[[[1000], [1000]], np.zeros((10, 1))]
    history = MixedNB("poisson", semi_supervised=True).fit(X, np.r_[0, 1, np.full(10, -1)]).history_
    assert np.diff(history).min() > -1e-12 * np.abs(history).max()


# ---- columns of different kinds --------------------------------------------------------------------------------------

COLUMNS = {
    "height": ([1.8, 1.7, None, 1.6, 1.5, 1.9], "gaussian"),
    "eyes": (["blue", None, "grey", "blue", "brown", "grey"], "categorical"),
    "smokes": ([True, False, True, None, False, True], "bernoulli"),
    "children": ([0, 2, None, 3, 1, 2], "poisson"),
    "member": ([1, 0, 1, 1, None, 0], "bernoulli"),
    "celsius": ([-3, 5, 20, 11, 3, 8], "gaussian"),
    "steps": ([900, 7000, 100, 12000, 5, 300], "gaussian"),
    "size": (["S", "L", "L", None, "S", "L"], "categorical"),
}
CODES = {"blue": 0, "brown": 1, "grey": 2, "S": 0, "M": 1, "L": 2, None: nan}
PEOPLE = np.array(["a", "a", "b", "b", "b", "a"])


def people(kind):
    values = {name: column for name, (column, _) in COLUMNS.items()}
    if kind == "array":
        return np.array(list(values.values()), dtype=object).T
    if kind == "polars":
        pl = pytest.importorskip("polars")
        return pl.DataFrame(values).with_columns(pl.col("size").cast(pl.Enum(["S", "M", "L"])))
    pd = pytest.importorskip("pandas")
    types = {"smokes": "boolean", "children": "Int64", "member": "Int8", "eyes": "string", "height": "Float64"}
    if kind == "pandas objects":
        types = dict.fromkeys(types, object)
    return pd.DataFrame(values, index=[5] * 6).astype({**types, "size": pd.CategoricalDtype(["S", "M", "L"])})


@pytest.mark.parametrize("kind", ["array", "pandas", "pandas objects", "polars"])
def test_frames(kind):
    """Each column as its own estimator has it, from codes made by hand."""
    X, families, declared = people(kind), [family for _, family in COLUMNS.values()], kind != "array"
    named = {name: family for name, (_, family) in COLUMNS.items()} if kind == "pandas objects" else None
    model, total = MixedNB(named).fit(X, PEOPLE), np.full((6, 2), np.log(0.5))
    assert model.families_ == families
    equal(model.categories_[1], ["blue", "brown", "grey"])
    equal(model.categories_[7], ["S", "M", "L"] if declared else ["L", "S"])
    own = {"gaussian": GaussianNB, "poisson": lambda: MixedNB("poisson"), "bernoulli": BernoulliNB}
    for j, (values, family) in enumerate(COLUMNS.values()):
        column = np.array([[CODES.get(value, value)] for value in values], float)
        if j == 7 and not declared:
            column /= 2
        there = ~np.isnan(column[:, 0])
        y, column = PEOPLE[there], column[there]
        alone = own[family]() if family in own else CategoricalNB(min_categories=2 if j == 7 and not declared else 3)
        total[there] += joint(alone.fit(column, y), column) - np.log([(y == "a").mean(), (y == "b").mean()])
    close(joint(model, X), total, rtol=1e-12)
    assert {"blue", "brown", "grey"} == set(model.sample(100, random_state=0)[0][:, 1])
    if declared:
        equal(model.feature_names_in_, list(COLUMNS))
        refused(model, "feature names", X[list(COLUMNS)[::-1]], method="predict")


def test_unknown_categories():
    """alpha / (weight + alpha M), whatever the value is; missing is not unknown."""
    X, y = np.array([["a"], ["b"], ["a"], ["c"]], dtype=object), [0, 0, 0, 1]
    model, row = MixedNB(alpha=0.5).fit(X, y), np.empty((1, 1), object)
    for value in ("z", "", 7, 1.5, True, ("a",), None, nan, np.float32(nan)):
        row[0, 0] = value
        missing = value is None or value != value
        expected = [0.75, 0.25] if missing else [0.75 * 0.5 / 4.5, 0.25 * 0.5 / 2.5]
        close(np.exp(joint(model, row)), [expected], rtol=1e-14)
    refused(MixedNB(alpha=0).fit(X, y), "column 0", np.array([["z"]], dtype=object), method="predict")
    model = MixedNB({0: "categorical"}).fit([[10, 1.5], [-4, 2.5], [10, 3.0]], ["u", "v", "v"])
    equal(model.categories_[0], [-4, 10])
    assert set(model.sample(50, random_state=0)[0][:, 0]) == {-4, 10}


def test_the_choice_of_families():
    """Counts are Poisson unless they spread, within the classes, twice as much as their mean."""
    y = np.repeat([0, 1], 4)
    columns = {
        "poisson": [[0, 1, 2, 1, 3, 5, 4, 2], [100] * 4 + [0] * 4, [0, 0, 0, 0, 0, 0, 0, 2]],
        "gaussian": [[0, 9, 0, 9, 0, 9, 0, 9], [-1, 0, 1, 0, 1, 0, 1, 0], [0, 100] * 4],
        "bernoulli": [[0, 1] * 4, [0] * 7 + [1]],
    }
    for family, made in columns.items():
        for column in made:
            X = np.array(column)[:, None]
            families = [MixedNB(var_smoothing=1.0).fit(X.astype(t), y).families_ for t in ("i1", "i8", object, "f8")]
            assert families == [[family]] * 3 + [["gaussian"]]
    assert MixedNB().fit(np.array([[True], [False]]), [0, 1]).families_ == ["bernoulli"]


@pytest.mark.parametrize("weighted", [False, True])
def test_many_rows_of_different_kinds(rng, weighted):
    """Beyond the rows that are read at a time: as the columns' own estimators have it."""
    X, y = data("mixed", rng, 70_000, missing=0.05)
    w = rng.uniform(0.5, 2, 70_000) if weighted else None
    normal, poisson, bernoulli, categorical = MixedNB(FAMILIES).fit(X, y, w).parameters_
    alone = GaussianNB().fit(X[:, :1].copy(), y, w)
    close([normal["mean"], normal["variance"]], [alone.theta_[:, 0], alone.var_[:, 0]], rtol=1e-12)
    close(poisson["rate"], MixedNB("poisson").fit(X[:, 1:2].copy(), y, w).parameters_[0]["rate"], rtol=1e-12)
    close(bernoulli["probability"], np.exp(BernoulliNB().fit(X[:, 2:3], y, w).feature_log_prob_[:, 0]), rtol=1e-12)
    close(categorical["probabilities"], np.exp(CategoricalNB().fit(X[:, 3:], y, w).feature_log_prob_[0]), rtol=1e-12)


# ---- textbook --------------------------------------------------------------------------------------------------------


def ln(p):
    return log(p) if p > 0 else -inf


def share(part, whole, alpha, M):
    return ln((part + alpha) / (whole + alpha * M)) if whole + alpha * M > 0 else -log(M)


def total(pairs, of=lambda x: 1.0):
    return sum(w * of(x) for x, w in pairs)


def log_cell(family, x, own, everyone, alpha, epsilon):
    """log p(x), by pairs (x, w) of a class and of all classes."""
    weight = total(own)
    if family == "bernoulli":
        return share(total(own, lambda v: (v > 0) == (x > 0)), weight, alpha, 2)
    if family == "categorical":
        return share(total(own, lambda v: v == x), weight, alpha, 1 + max(v for v, _ in everyone))
    if family == "poisson":
        centre = (total(everyone, float) + alpha) / (total(everyone) + alpha)
        rate = (total(own, float) + alpha * centre) / (weight + alpha) if weight + alpha > 0 else centre
        return (x * ln(rate) if x else 0.0) - rate - lgamma(x + 1)
    rows = own if weight > 0 else everyone
    mean = total(rows, float) / total(rows)
    variance = total(rows, lambda v: (v - mean) ** 2) / total(rows) + epsilon
    return -0.5 * log(2 * pi * variance) - (x - mean) ** 2 / (2 * variance)


def log_words(row, pairs, alpha):
    counts = [total(pairs, lambda r, j=j: r[j]) for j in range(len(row))]
    return sum(x * share(count, sum(counts), alpha, len(row)) for x, count in zip(row, counts, strict=True) if x)


def textbook(family, X, y, w, alpha, var_smoothing):
    """log p(x, y) of the rows that it is fitted to."""
    rows, classes = list(zip(X, w, y, strict=True)), sorted(set(y))
    columns = [[(x[j], v, c) for x, v, c in rows if x[j] is not None] for j in range(len(X[0]))]
    means = [sum(x for x, _, _ in column) / len(column) for column in columns]
    variances = [sum((x - m) ** 2 for x, _, _ in c) / len(c) for c, m in zip(columns, means, strict=True)]

    def score(row, c):
        log_prior = ln(sum(v for _, v, k in rows if k == c) / sum(w))
        if family == "multinomial":
            return log_prior + log_words(row, [(x, v) for x, v, k in rows if k == c], alpha)
        if family == "complement":
            others = log_words(row, [(x, v) for x, v, k in rows if k != c], alpha)
            return -others + (log_prior if len(classes) == 1 else 0.0)
        cells = []
        for x, column in zip(row, columns, strict=True):
            own, everyone = [(z, v) for z, v, k in column if k == c], [(z, v) for z, v, _ in column]
            if x is not None:
                cells.append(log_cell(family, x, own, everyone, alpha, var_smoothing * max(variances)))
        return log_prior + sum(cells)

    return [[score(row, c) for c in classes] for row in X]


@st.composite
def tables(draw):
    n, d = draw(st.integers(1, 9)), draw(st.integers(1, 3))
    cell = st.one_of(st.integers(0, 3), st.none()) if draw(st.booleans()) else st.integers(0, 3)
    X = draw(st.lists(st.lists(cell, min_size=d, max_size=d), min_size=n, max_size=n))
    y = draw(st.lists(st.integers(-1, 2), min_size=n, max_size=n))
    w = draw(st.lists(st.sampled_from([0.25, 1.0, 2.5, 3.0]), min_size=n, max_size=n))
    return X, y, w, draw(st.sampled_from([0.0, 0.5, 1.0, 3.0]))


@pytest.mark.parametrize("family", ["gaussian", "poisson", "bernoulli", "categorical", "multinomial", "complement"])
@settings(max_examples=80)
@given(table=tables())
def test_textbook(family, table):
    X, y, w, alpha = table
    if family in ("multinomial", "complement"):
        X = [[x or 0 for x in row] for row in X]
    values = [{x for x in column if x is not None} for column in zip(*X, strict=True)]
    assume(all(values) and (family != "gaussian" or any(len(seen) > 1 for seen in values)))
    models = {
        "gaussian": [GaussianNB(var_smoothing=0.5)],
        "poisson": [MixedNB("poisson", alpha=alpha)],
        "bernoulli": [BernoulliNB(alpha=alpha), MixedNB("bernoulli", alpha=alpha)],
        "categorical": [CategoricalNB(alpha=alpha)],
        "multinomial": [MultinomialNB(alpha=alpha)],
        "complement": [ComplementNB(alpha=alpha)],
    }[family]
    if family == "categorical" and all(len(seen) == 1 + max(seen) for seen in values):  # else the codes are others
        models.append(MixedNB("categorical", alpha=alpha))
    expected, array = textbook(family, X, y, w, alpha, 0.5), np.array(X, dtype=float)
    for model in models:
        close(joint(model.fit(array, y, w), array), expected, rtol=1e-11, atol=1e-12)
        if family != "complement":
            close(model.log_prob(array), logsumexp(expected, axis=1), rtol=1e-11, atol=1e-12)


# ---- memory that is not in one piece ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MultinomialNB", "ComplementNB", "BernoulliNB"])
def test_sparse_parts_that_are_strided(name, rng):
    """SciPy keeps them so: the real part of a complex matrix, reversed or big-endian parts."""
    dense = rng.poisson(0.5, (50, 8)).astype(float)
    y = np.arange(50) % 3
    X = sparse.csr_matrix(dense)
    views = [X.astype(complex).real]
    for stretch in (
        lambda a: np.repeat(a, 2)[::2],
        lambda a: a[::-1].copy()[::-1],
        lambda a: a.astype(a.dtype.newbyteorder(">")),
    ):
        other = X.copy()
        other.data, other.indices, other.indptr = map(stretch, (X.data, X.indices, X.indptr))
        views.append(other)
    assert any(not view.data.flags.c_contiguous for view in views)
    expected = getattr(fastgen, name)().fit(X, y)
    for view in views:
        model = getattr(fastgen, name)().fit(view, y)
        np.testing.assert_array_equal(model.feature_count_, expected.feature_count_)
        np.testing.assert_array_equal(expected.predict_joint_log_proba(view), expected.predict_joint_log_proba(dense))


@pytest.mark.parametrize("name", ["GaussianNB", "MultinomialNB", "ComplementNB", "BernoulliNB", "CategoricalNB"])
def test_strided_weights(name, rng):
    X, y, w = rng.integers(0, 3, (40, 4)), np.arange(40) % 2, rng.random(80)[::2]
    mine, other = (getattr(fastgen, name)().fit(X, y, weights) for weights in (w, w.copy()))
    np.testing.assert_array_equal(mine.predict_proba(X), other.predict_proba(X))


def test_layout_of_counts_does_not_change_bits(rng):
    X, y = rng.poisson(3, (40, 63)), np.arange(40) % 2
    model = MixedNB("poisson").fit(X, y)
    np.testing.assert_array_equal(model.log_prob(X), model.log_prob(np.asfortranarray(X)))
    np.testing.assert_array_equal(model.log_prob(X), np.concatenate([model.log_prob(X[i : i + 1]) for i in range(40)]))


def test_many_classes_in_a_first_block():
    """No warning that there are many: integers are classes."""
    BernoulliNB().partial_fit(np.eye(30), np.arange(30), classes=np.arange(40))
