"""The functional layer: arrays in, arrays out, no estimator.

For libraries that want the speed without the models. Everything is checked here, once; the compiled kernels below
check nothing. NaN means a missing value everywhere, infinity in the data is an error.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgen._hmm_recursions import (
    ExpectedTransitions,
    ForwardBackward,
    Viterbi,
    expected_transitions,
    forward_backward,
    log_likelihood,
    viterbi,
)
from fastgen._kernels import _gaussian, _simd
from fastgen._missing import incomplete_rows, patterns
from fastgen._naive_bayes import BinaryTerm, GaussianTerm, LinearTerm, PoissonTerm, TableTerm
from fastgen._naive_bayes_functions import (
    ClassMoments,
    category_counts,
    class_moments,
    class_sums,
    naive_bayes_log_joint,
)
from fastgen._parallel import Body, run_chunks
from fastgen._validation import (
    BLOCK_ROWS,
    Array,
    Data,
    as_data,
    as_floats,
    as_out,
    as_parameters,
    as_weights,
    check_choice,
    refuse_infinity,
)
from fastgen.errors import SingularCovarianceError

if TYPE_CHECKING:
    from fastgen._mixture_em import MixtureStatistics

__all__ = [
    "BinaryTerm",
    "ClassMoments",
    "ExpectedTransitions",
    "ForwardBackward",
    "GaussianTerm",
    "LinearTerm",
    "PoissonTerm",
    "TableTerm",
    "Viterbi",
    "category_counts",
    "class_moments",
    "class_sums",
    "expected_transitions",
    "forward_backward",
    "gaussian_log_density",
    "log_likelihood",
    "logsumexp",
    "mixture_e_step",
    "naive_bayes_log_joint",
    "precision_cholesky",
    "softmax",
    "viterbi",
]

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")
LOG_2PI = float(np.log(2 * np.pi))

# Whitened means further apart than this many standard deviations are not subtracted after whitening but before:
# the difference of two whitened numbers of size s has an error of s times the rounding unit.
_WHITEN_UP_TO = 4096.0

_FMAS_PER_NS = 6.0  # a cautious guess: decides only when to use threads
_EXPS_PER_NS = 0.5


class GaussianFactors(NamedTuple):
    """Gaussians as the kernel reads them; layouts in ``_kernels/gaussian.h``."""

    kind: int
    means: Array
    factors: Array
    log_norm: Array
    centre: Array
    fmas_per_row: float


def covariance_shape(covariance_type: str, K: int, d: int) -> tuple[int, ...]:
    """Shape of the covariances (and precision factors) of K Gaussians of d features."""
    return {"full": (K, d, d), "tied": (d, d), "diag": (K, d), "spherical": (K,)}[covariance_type]


def _not_positive_definite(
    covariance: Array, component: int, subject: str, remedy: str, tolerance: float
) -> ValueError:
    """Why a covariance has no factor."""
    d = len(covariance)
    variances = covariance.diagonal()
    if variances.min() <= 0:
        j = int(variances.argmin())
        return SingularCovarianceError(component, f"the variance of column {j} is {variances[j]:.3g}", subject, remedy)
    sd = np.sqrt(variances)
    if np.any(np.abs(covariance - covariance.T) > 1e-6 * sd * sd[:, None]):
        return ValueError(f"{subject} is not symmetric")
    # The pivots are 1 - R^2 of each column given those before it: what is singular does not depend on units.
    column = _gaussian.cholesky(np.triu(covariance), tolerance * d * 2.0**-52)
    reason = f"column {column} is, up to rounding, a linear combination of the columns before it, or worse"
    return SingularCovarianceError(component, reason, subject, remedy)


def precision_cholesky(
    covariances: ArrayLike,
    covariance_type: str = "full",
    *,
    subject: str = "covariances",
    remedy: str = "Add a multiple of the identity to it.",
    tolerance: float = 4.0,
) -> Array:
    """Cholesky factors of the precisions (inverse covariances).

    Full and tied: U, upper triangular, with inverse(covariance) = U U^T. Diagonal and spherical: 1 / sqrt(variance).

    Parameters
    ----------
    covariances : array
        Full (K, d, d), tied (d, d), diag (K, d), spherical (K,).
    covariance_type : {"full", "tied", "diag", "spherical"}
    subject, remedy : str
        What error messages call the covariances, and advise.
    tolerance : float
        A covariance is singular if, of some column, a share below ``tolerance * d * 2**-52`` of its variance does not
        follow from other columns. 0 for what is derived from a covariance that has passed.

    Returns
    -------
    array of the shape of ``covariances``

    Raises
    ------
    fastgen.errors.SingularCovarianceError
        One is not positive definite, or a column follows from others up to rounding.

    Notes
    -----
    O(K d^3) for full, O(d^3) for tied.
    """
    check_choice(covariance_type, "covariance_type", COVARIANCE_TYPES)
    array = np.asarray(as_floats(covariances, "covariances"), dtype=np.float64, order="C")
    square = covariance_type in ("full", "tied")
    ndim = len(covariance_shape(covariance_type, 1, 1))
    if array.ndim != ndim or array.size == 0 or (square and array.shape[-1] != array.shape[-2]):
        raise ValueError(f"{covariance_type} covariances cannot have shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("covariances must be finite, but hold NaN or infinity")
    if not square:
        if array.min() <= 0:
            where = np.unravel_index(int(array.argmin()), array.shape)
            column = f" of column {where[1]}" if covariance_type == "diag" else ""
            reason = f"the variance{column} is {array[where]:.3g}"
            raise SingularCovarianceError(int(where[0]), reason, f"{subject}[{where[0]}]", remedy)
        return np.asarray(1 / np.sqrt(array))
    matrices = array.reshape(-1, *array.shape[-2:])
    d = matrices.shape[1]
    factors = np.empty(matrices.shape)
    done = _gaussian.factor(matrices, tolerance * d * 2.0**-52, factors, np.empty(d))
    if done < len(matrices):
        name = f"{subject}[{done}]" if covariance_type == "full" else subject
        raise _not_positive_definite(matrices[done], done, name, remedy, tolerance)
    return factors.reshape(array.shape)


def _pack(factors: Array) -> Array:
    """Upper triangular (K, d, d) as the kernel walks them: per four columns, the rows down to the diagonal."""
    K, d, _ = factors.shape
    packed = np.empty((K, sum(min(j + 4, d) * min(4, d - j) for j in range(0, d, 4))))
    _gaussian.pack(factors, packed)
    return packed


def prepare_gaussians(means: Array, factors: Array, covariance_type: str) -> GaussianFactors:
    """Lay out means (K, d) and precision factors (`precision_cholesky`) for the kernel."""
    K, d = means.shape
    centre = np.zeros(d)
    cost = float(K * d)
    constant = -0.5 * d * LOG_2PI
    if covariance_type == "spherical":
        log_norm = constant + d * np.log(factors)
        return GaussianFactors(_gaussian.SPHERICAL, means, factors[None], log_norm[None], centre, cost)
    if covariance_type == "diag":
        log_norm = constant + np.log(factors).sum(axis=1)
        return GaussianFactors(_gaussian.DIAG, means, factors, log_norm[None], centre, 2 * cost)
    log_norm = np.full((1, K), constant)
    log_norm += np.log(factors.diagonal(axis1=-2, axis2=-1)).sum(axis=-1)
    triangle = 0.5 * d * (d + 1)
    if covariance_type == "full":
        return GaussianFactors(_gaussian.FULL, means, _pack(factors), log_norm, centre, K * triangle + cost)
    packed = _pack(factors[None])
    centre = 0.5 * means.min(axis=0) + 0.5 * means.max(axis=0)
    with np.errstate(over="ignore", invalid="ignore"):  # then they are too far apart, too
        whitened = np.ascontiguousarray((means - centre) @ factors)
    if np.abs(whitened).max() <= _WHITEN_UP_TO:
        return GaussianFactors(_gaussian.TIED, whitened, packed, log_norm, centre, triangle + cost)
    packed = np.repeat(packed, K, axis=0)
    return GaussianFactors(_gaussian.FULL, means, packed, log_norm, centre, K * triangle + cost)


def _run_density(prepared: GaussianFactors, X: Data, out: Data, n_threads: int | None) -> bool:
    """Fill ``out`` (n, K); return whether X holds NaN or infinity (then those rows of ``out`` are NaN or worse)."""
    n, d = X.shape
    K = len(prepared.means)
    kernel: Any = _gaussian.log_density_f64
    if X.dtype == np.float32:
        kernel = _gaussian.log_density_f32 if out.dtype == np.float32 else _gaussian.log_density_f32_f64
    kind, means, factors, log_norm, centre, fmas = prepared
    bad = False

    def make_body() -> Body:
        work = np.empty(_gaussian.density_work_size(d, K))

        def body(start: int, stop: int) -> None:
            nonlocal bad
            if kernel(kind, X[start:stop], means, factors, log_norm, centre, out[start:stop], work):
                bad = True

        return body

    run_chunks(make_body, n, _gaussian.TILE, n * (fmas + d + 2 * K) / _FMAS_PER_NS, n_threads)
    return bad


def gaussian_log_density(
    X: ArrayLike,
    means: ArrayLike,
    covariances: ArrayLike | None,
    covariance_type: str = "full",
    *,
    precisions_cholesky: ArrayLike | None = None,
    out: Data | None = None,
    n_threads: int | None = None,
) -> Data:
    """Log-density of every sample under each of K Gaussians, in nats.

    log N(x; mu, Sigma) = -1/2 (d log(2 pi) + log det Sigma + (x - mu)^T Sigma^-1 (x - mu)), with the quadratic
    form as |U^T (x - mu)|^2, U U^T = Sigma^-1: x - mu is never expanded, so an offset costs no accuracy.

    Parameters
    ----------
    X : array (n, d)
        float32 or float64 of any layout, which is not copied; other numbers become float64. NaN is a missing
        value: the row's result is the log-density of its observed part (0 if nothing is observed).
    means : array (K, d), or (d,) for one Gaussian
    covariances : array, or None if ``precisions_cholesky`` is given
        Full (K, d, d), tied (d, d), diag (K, d), spherical (K,). With means (d,), without the K axis.
    covariance_type : {"full", "tied", "diag", "spherical"}
    precisions_cholesky : array of the shape of ``covariances``, optional
        What `precision_cholesky` returns, to save its cost in repeated calls. Covariances are then not looked at.
    out : array (n, K), or (n,) for one Gaussian, optional
        Where to put the result; of its dtype, or float64. Its contents are undefined after an error.
    n_threads : int, optional
        Default: see `fastgen.get_num_threads`. The result does not depend on it.

    Returns
    -------
    array (n, K), or (n,) if means is (d,)
        float32 if X is float32 (computed in float64 and rounded at the end), else float64.

    Raises
    ------
    ValueError
        Wrong shape, infinity in X, or a parameter that is not finite.
    TypeError
        A dtype that would lose something.
    fastgen.errors.SingularCovarianceError
        A covariance is not positive definite.

    Notes
    -----
    O(n K d^2) for full, O(n (d^2 + K d)) for tied, O(n K d) otherwise. Memory beyond X and the result: 16 d
    + 8 K bytes times 32 for each thread. Rows with missing values cost a Cholesky factor for each distinct
    pattern of missing columns (full and tied), and memory for the numbers of these rows.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgen.kernels import gaussian_log_density
    >>> gaussian_log_density([[0.0, 0.0], [1.0, np.nan]], [0.0, 0.0], np.eye(2)).round(4)
    array([-1.8379, -1.4189])
    """
    check_choice(covariance_type, "covariance_type", COVARIANCE_TYPES)
    data = as_data(X)
    n, d = data.shape
    mean_array = as_floats(means, "means")
    one = mean_array.ndim == 1
    if mean_array.ndim not in (1, 2) or mean_array.shape[-1] != d or mean_array.size == 0:
        raise ValueError(f"means must have shape (K, {d}) or ({d},) to match X, got {mean_array.shape}")
    K = 1 if one else len(mean_array)
    mean_array = as_parameters(mean_array.reshape(K, d), "means", (K, d))
    shape = covariance_shape(covariance_type, K, d)
    given = {"covariances": covariances, "precisions_cholesky": precisions_cholesky}
    arrays: dict[str, Array] = {}
    for name, value in given.items():
        if value is not None:
            outer_shape = shape[1:] if one and covariance_type != "tied" else shape
            arrays[name] = as_parameters(value, name, outer_shape).reshape(shape)
    if not arrays:
        raise ValueError("give covariances or precisions_cholesky")
    factors = arrays.get("precisions_cholesky")
    if factors is None:
        factors = precision_cholesky(arrays["covariances"], covariance_type)
    else:
        _check_factors(factors, covariance_type)
    result = density_out(out, (n,) if one else (n, K), data, mean_array, factors)
    prepared = prepare_gaussians(mean_array, factors, covariance_type)
    into = result[:, None] if one else result
    log_density_into(into, data, prepared, mean_array, factors, covariance_type, n_threads)
    return result


def mixture_e_step(
    X: ArrayLike,
    weights: ArrayLike,
    means: ArrayLike,
    covariances: ArrayLike | None,
    covariance_type: str = "full",
    *,
    precisions_cholesky: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    n_threads: int | None = None,
) -> "MixtureStatistics":
    """E-step of EM for a mixture of Gaussians: from a block of data to its sufficient statistics, in one pass.

    Responsibilities r_ik = weight_k N(x_i; k) / p(x_i), and of each component the weight sum r, the mean, and the
    scatter sum r (x - mean)(x - mean)^T, centred throughout. No array of n x K numbers exists on the way.

    Parameters
    ----------
    X : array (n, d)
        float32 or float64 of any layout, which is not copied; NaN is a missing value, marginalised exactly.
    weights : array (K,)
        Probabilities of the components.
    means : array (K, d)
    covariances : array, or None if ``precisions_cholesky`` is given
        Full (K, d, d), tied (d, d), diag (K, d), spherical (K,).
    covariance_type : {"full", "tied", "diag", "spherical"}
    precisions_cholesky : array of the shape of ``covariances``, optional
        What `precision_cholesky` returns.
    sample_weight : array (n,), optional
        A weight of 2 is the same as the row twice.
    n_threads : int, optional
        Default: see `fastgen.get_num_threads`. The result does not depend on it.

    Returns
    -------
    MixtureStatistics
        ``log_likelihood``, a float in nats, and ``components``, with ``weight`` (K,), ``mean`` (K, d) and ``scatter``
        (full (K, d, d), tied (1, d, d), else (K, d)). Statistics of blocks add up with ``+``, exactly but for rounding,
        and can be pickled; ``fastgen.families.Gaussian(...).maximise(statistics.components)`` is the M-step.

    Raises
    ------
    ValueError
        Wrong shape, infinity in X, a row so far from every component that its density is 0 in double precision.
    fastgen.errors.SingularCovarianceError
        A covariance is not positive definite.

    Notes
    -----
    O(n K d^2) for full, O(n (d^2 + K d)) for tied, O(n K d) otherwise. Memory beyond X: about 64 K d^2 bytes for each
    thread (full), less for many features; 128 K d otherwise. Rows with missing values are copied.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgen.kernels import mixture_e_step
    >>> X = np.array([[0.0], [1.0], [9.0], [10.0]])
    >>> s = mixture_e_step(X, [0.5, 0.5], [[0.0], [10.0]], [1.0, 1.0], "spherical")
    >>> s.components.mean.ravel()
    array([0.5, 9.5])
    """
    from fastgen._mixture_em import Mixture
    from fastgen.families import Gaussian

    data = as_data(X)
    mean_array = as_floats(means, "means").astype(np.float64)
    if mean_array.ndim != 2 or mean_array.shape[1] != data.shape[1] or not mean_array.size:
        raise ValueError(f"means must have shape (K, {data.shape[1]}) to match X, got {mean_array.shape}")
    p = as_parameters(weights, "weights", (len(mean_array),))
    if p.min() < 0 or abs(p.sum() - 1) > 1e-8:
        raise ValueError(f"weights must be probabilities that add up to 1, got {p}")
    if precisions_cholesky is None:
        if covariances is None:
            raise ValueError("give covariances or precisions_cholesky")
        family = Gaussian(covariance_type, means=mean_array, covariances=covariances)
    else:
        check_choice(covariance_type, "covariance_type", COVARIANCE_TYPES)
        shape = covariance_shape(covariance_type, *mean_array.shape)
        factors = as_parameters(precisions_cholesky, "precisions_cholesky", shape)
        _check_factors(factors, covariance_type)
        mean_array = as_parameters(mean_array, "means", mean_array.shape)
        family = Gaussian(covariance_type).with_factors(mean_array, factors)
    sample_weights = as_weights(sample_weight, len(data))
    return Mixture(p, family).e_step(data, sample_weights, n_threads=n_threads)


def density_out(out: Data | None, shape: tuple[int, ...], data: Data, *parameters: Array) -> Data:
    """Where log-densities go: of the data's dtype, or float64."""
    dtype = np.dtype(np.float64) if getattr(out, "dtype", None) == np.float64 else data.dtype
    return as_out(out, shape, dtype, data, *parameters)


def _check_factors(factors: Array, covariance_type: str) -> None:
    triangular = covariance_type in ("full", "tied")
    if triangular and np.tril(factors, -1).any():
        raise ValueError("precisions_cholesky must be upper triangular: U with U U^T = inverse(covariance)")
    if not (factors.diagonal(axis1=-2, axis2=-1) if triangular else factors).min() > 0:
        raise ValueError("precisions_cholesky must have a positive diagonal")


def log_density_into(
    out: Data,
    X: Data,
    prepared: GaussianFactors,
    means: Array,
    factors: Array,
    covariance_type: str,
    n_threads: int | None,
) -> None:
    """`gaussian_log_density` of checked arrays, into ``out`` (n, K)."""
    if not _run_density(prepared, X, out, n_threads):
        return
    refuse_infinity(X)
    rows = incomplete_rows(X)
    _undefined_to_zero(out, rows)
    if covariance_type in ("diag", "spherical"):
        if covariance_type == "spherical":
            factors = np.ascontiguousarray(np.broadcast_to(factors[:, None], means.shape))
        feature_norm = LOG_2PI - 2 * np.log(factors)
        columnwise = prepared._replace(kind=_gaussian.DIAG_MISSING, factors=factors, log_norm=feature_norm)
        for start in range(0, len(rows), BLOCK_ROWS):
            group = rows[start : start + BLOCK_ROWS]
            part = np.empty((len(group), len(means)), out.dtype)
            _run_density(columnwise, X[group], part, n_threads)
            out[group] = part
        return
    covariances = covariances_of(factors)
    for group, observed in patterns(X, rows):
        if not len(observed):
            out[group] = 0.0
            continue
        part = np.empty((len(group), len(means)), out.dtype)
        marginal = prepare_gaussians(
            np.ascontiguousarray(means[:, observed]),
            precision_cholesky(covariances[..., observed[:, None], observed], covariance_type, tolerance=0.0),
            covariance_type,
        )
        _run_density(marginal, X[np.ix_(group, observed)], part, n_threads)
        out[group] = part


def _undefined_to_zero(out: Data, incomplete: NDArray[np.intp]) -> None:
    """Give complete rows density 0 where inf - inf made it NaN: they are beyond the range of doubles."""
    for start in range(0, len(out), BLOCK_ROWS):
        block = out[start : start + BLOCK_ROWS]
        undefined = np.isnan(block)
        first, last = np.searchsorted(incomplete, [start, start + BLOCK_ROWS])
        undefined[incomplete[first:last] - start] = False
        block[undefined] = -np.inf


def covariances_of(factors: Array) -> Array:
    """Covariances (..., d, d) of upper triangular precision factors."""
    roots = factors.reshape(-1, *factors.shape[-2:]).copy()
    for root in roots:
        _gaussian.inverse(root, np.empty(len(root)))
    return (roots.mT @ roots).reshape(factors.shape)


def _reduce_rows(a: ArrayLike, make: Callable[[Data], tuple[Data | None, Data | None]], n_threads: int | None) -> Any:
    array = as_data(a, "a")
    n, K = array.shape
    lse, posterior = make(array)
    kernel: Any = _simd.logsumexp_f32 if array.dtype == np.float32 else _simd.logsumexp_f64

    def make_body() -> Body:
        work = np.empty(K * _simd.TILE + 8)

        def body(start: int, stop: int) -> None:
            rows = slice(start, stop)
            kernel(
                array[rows], None if lse is None else lse[rows], None if posterior is None else posterior[rows], work
            )

        return body

    run_chunks(make_body, n, _simd.TILE, n * K / _EXPS_PER_NS, n_threads)
    return lse if posterior is None else posterior


def logsumexp(a: ArrayLike, *, out: Data | None = None, n_threads: int | None = None) -> Data:
    """log sum_k exp(a[i, k]) for every row i, without overflow.

    Parameters
    ----------
    a : array (n, K)
        float32 or float64 of any layout. A row of -inf gives -inf; NaN gives NaN.
    out : array (n,), C-contiguous, optional
        Where to put the result, of its dtype.
    n_threads : int, optional
        Default: see `fastgen.get_num_threads`.

    Returns
    -------
    array (n,)
        Within 4 ulp of the exact value of the largest term plus log(sum), for K up to thousands. O(n K).

    Examples
    --------
    >>> from fastgen.kernels import logsumexp
    >>> logsumexp([[-1000.0, -1000.0]]).round(4)
    array([-999.3069])
    """

    def make(array: Data) -> tuple[Data, None]:
        result = as_out(out, (len(array),), array.dtype, array)
        if not result.flags.c_contiguous:
            raise ValueError("out must be C-contiguous")
        return result, None

    result: Data = _reduce_rows(a, make, n_threads)
    return result


def softmax(a: ArrayLike, *, out: Data | None = None, n_threads: int | None = None) -> Data:
    """exp(a[i, k]) / sum_k exp(a[i, k]): posterior probabilities from joint log-probabilities, row by row.

    Parameters
    ----------
    a : array (n, K)
        float32 or float64 of any layout. A row of -inf has no posterior and gives NaN.
    out : array (n, K), optional
        Where to put the result, of its dtype; may be ``a`` itself.
    n_threads : int, optional
        Default: see `fastgen.get_num_threads`.

    Returns
    -------
    array (n, K)
        Rows add up to 1 within rounding. O(n K).

    Examples
    --------
    >>> import numpy as np
    >>> from fastgen.kernels import softmax
    >>> softmax(np.log([[1.0, 3.0]])).round(4)
    array([[0.25, 0.75]])
    """
    result: Data = _reduce_rows(
        a, lambda array: (None, as_out(out, array.shape, array.dtype, array, in_place=True)), n_threads
    )
    return result
