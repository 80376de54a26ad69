"""Other libraries: a Cython module that cimports from the installed package, Numba code that calls a kernel."""

import ctypes
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import fastgen

DOWNSTREAM = """
# cython: language_level=3, freethreading_compatible=True
from libc.stdlib cimport free, malloc
from fastgen cimport (
    GAUSSIAN_SPHERICAL, gaussian_log_density, gaussian_work_size, logsumexp_row, markov_forward_backward,
    markov_viterbi, markov_work_size, softmax_row, vector_exp, vector_log)


def density(const double[:, ::1] X, const double[::1] mean, double inverse_sd, double log_norm):
    cdef double[1] factor = [inverse_sd]
    cdef double[1] norm = [log_norm]
    cdef Py_ssize_t n = X.shape[0], d = X.shape[1], i
    cdef double* out = <double*> malloc(n * sizeof(double))
    cdef double* work = <double*> malloc(gaussian_work_size(d, 1) * sizeof(double))
    cdef int bad
    with nogil:
        bad = gaussian_log_density(GAUSSIAN_SPHERICAL, &X[0, 0], False, n, d, d, 1, 1, &mean[0], factor, 1, norm,
                                   &mean[0], out, False, 1, 1, work)
    result = [out[i] for i in range(n)]
    free(out)
    free(work)
    return bad, result


def row(const double[::1] a, double[::1] p):
    return logsumexp_row(&a[0], a.shape[0]), softmax_row(&a[0], &p[0], a.shape[0])


def forward_backward(const double[:, ::1] logs, const double[::1] start, const double[:, ::1] A,
                     double[:, ::1] posteriors, double[::1] first, double[:, ::1] transitions):
    cdef Py_ssize_t n = logs.shape[0], K = logs.shape[1]
    cdef double* work = <double*> malloc(markov_work_size(n, K) * sizeof(double))
    cdef double score, total
    with nogil:
        score = markov_forward_backward(&logs[0, 0], n, K, &start[0], &A[0, 0], NULL, NULL, NULL, work)
        total = markov_forward_backward(&logs[0, 0], n, K, &start[0], &A[0, 0], &posteriors[0, 0], &first[0],
                                        &transitions[0, 0], work)
    free(work)
    return score, total


def viterbi(const double[:, ::1] logs, const double[::1] start, const double[:, ::1] A, Py_ssize_t[::1] path):
    cdef Py_ssize_t n = logs.shape[0], K = logs.shape[1]
    cdef double* work = <double*> malloc(markov_work_size(n, K) * sizeof(double))
    result = markov_viterbi(&logs[0, 0], n, K, &start[0], &A[0, 0], &path[0], work)
    free(work)
    return result


def exp_log(const double[::1] x, double[::1] out):
    vector_exp(&x[0], &out[0], x.shape[0])
    vector_log(&out[0], &out[0], x.shape[0])
"""


def include_paths() -> list[Path]:
    """Where the package's .pxd files lie: installed, or in the source tree of an editable install."""
    return [Path(str(fastgen.__file__)).parents[1]]


@pytest.fixture(scope="module")
def downstream(tmp_path_factory):
    folder = tmp_path_factory.mktemp("downstream")
    (folder / "downstream.pyx").write_text(DOWNSTREAM)
    includes = [argument for path in include_paths() for argument in ("-I", str(path))]
    subprocess.run([sys.executable, "-m", "cython", *includes, "downstream.pyx"], cwd=folder, check=True)
    headers = [sysconfig.get_path("include")]
    if not (Path(headers[0]) / "Python.h").exists():
        unpacked = Path(sys.prefix) / "include-python" / "usr" / "include"
        headers = [*map(str, unpacked.glob("python3*")), str(unpacked)]
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    command = [
        "cc",
        "-O1",
        "-fPIC",
        "-shared",
        *(f"-I{h}" for h in headers),
        "downstream.c",
        "-o",
        f"downstream{suffix}",
    ]
    subprocess.run(command, cwd=folder, check=True)
    sys.path.insert(0, str(folder))
    try:
        import downstream as module
    finally:
        sys.path.remove(str(folder))
    return module


def test_log_density_from_cython(downstream):
    X = np.random.default_rng(0).normal(size=(70, 5))
    mean = np.arange(5.0)
    log_norm = -2.5 * np.log(2 * np.pi) + 5 * np.log(0.5)
    bad, result = downstream.density(X, mean, 0.5, log_norm)
    expected = fastgen.kernels.gaussian_log_density(X, mean[None], np.array([4.0]), "spherical")[:, 0]
    assert bad == 0
    np.testing.assert_array_equal(result, expected)


def test_nan_is_reported_to_cython(downstream):
    X = np.zeros((3, 2))
    X[1, 1] = np.nan
    bad, result = downstream.density(X, np.zeros(2), 1.0, 0.0)
    assert bad == 1
    assert np.isnan(result).tolist() == [False, True, False]


def test_row_helpers_from_cython(downstream):
    a = np.log(np.arange(1.0, 12.0))
    p = np.empty(11)
    lse, same = downstream.row(a, p)
    assert lse == same == pytest.approx(np.log(66), rel=1e-15)
    np.testing.assert_allclose(p, np.arange(1, 12) / 66, rtol=1e-14)


def test_exp_and_log_from_cython(downstream):
    x = np.linspace(-3, 3, 21)
    out = np.empty_like(x)
    downstream.exp_log(x, out)
    np.testing.assert_allclose(out, x, rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("K", [1, 2, 5, 8, 17, 300])
@pytest.mark.parametrize("n", [1, 31, 32, 200])
@pytest.mark.parametrize("zeros", [False, True])
def test_forward_backward_from_cython(downstream, n, K, zeros):
    rng = np.random.default_rng(n * K)
    logs, start, A = rng.normal(size=(n, K)), rng.dirichlet(np.ones(K)), rng.dirichlet(np.ones(K), K)
    if zeros:
        A = np.triu(A) / np.triu(A).sum(axis=1, keepdims=True)
    posteriors, first, transitions, path = np.empty((n, K)), np.empty(K), np.empty((K, K)), np.empty(n, np.intp)
    score, total = downstream.forward_backward(logs, start, A, posteriors, first, transitions)
    expected = fastgen.kernels.expected_transitions(logs, start, A)
    assert score == total == pytest.approx(expected.log_likelihoods[0], rel=1e-13)
    np.testing.assert_allclose(posteriors, expected.posteriors, rtol=1e-11, atol=1e-300)
    np.testing.assert_allclose(first, expected.start, rtol=1e-11, atol=1e-300)
    np.testing.assert_allclose(transitions, expected.transitions, rtol=1e-11, atol=1e-300)
    log_prob = downstream.viterbi(logs, start, A, path)
    best = fastgen.kernels.viterbi(logs, start, A)
    assert log_prob == pytest.approx(best.log_probs[0], rel=1e-13)
    np.testing.assert_array_equal(path, best.paths)


@pytest.mark.parametrize("A", [np.full((2, 2), 0.5), np.eye(2)])
def test_impossible_sequences_and_nan_from_cython(downstream, A):
    results = np.empty((4, 2)), np.empty(2), np.empty((2, 2))
    for bad, expected in ((-np.inf, -np.inf), (np.nan, np.nan), (np.inf, np.nan)):
        logs = np.zeros((4, 2))
        logs[2] = bad
        found = downstream.forward_backward(logs, np.full(2, 0.5), A, *results)
        np.testing.assert_array_equal(found, [expected, expected])


def test_row_helper_from_numba():
    extending = pytest.importorskip("numba.extending")
    numba = pytest.importorskip("numba")
    address = extending.get_cython_function_address("fastgen._kernels._simd", "logsumexp_row")
    signature = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_void_p, ctypes.c_ssize_t)
    logsumexp_row = signature(address)

    @numba.njit
    def total(a):
        return logsumexp_row(a.ctypes, a.size)

    assert total(np.log(np.arange(1.0, 5.0))) == pytest.approx(np.log(10), rel=1e-15)
