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
    GAUSSIAN_SPHERICAL, gaussian_log_density, gaussian_work_size, logsumexp_row, softmax_row, vector_exp, vector_log)


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
