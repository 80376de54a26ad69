"""What an expert writes in pure NumPy: the rival that fastgen has to beat.

Fair, because everything is done that NumPy allows:

- Data is walked over in blocks that stay in cache, every temporary is a buffer that is used again, and results
  go straight into the output: the textbook one-liner, with temporaries as large as the data, takes several
  times as long and hundreds of megabytes.
- Matrix products are left to BLAS: those of all components together, in one.
- Blocks can be held sample by sample or feature by feature (``by_feature``), where NumPy's inner loops run along
  the samples: several times faster for few features, and slower for many.
- Blocks can be shared out among ``threads`` (then BLAS is best left with one thread): NumPy releases the GIL.
- Block size, layout and threads are parameters. The benchmarks try all and compare with the fastest.

And it is correct to rounding, as fastgen is: data is centred first, squares of x - mean are never expanded, and
covariances are those of centred blocks. The exception is `mixture_em_step`, which may expand them, for speed. Each
function does the whole job of its counterpart, Cholesky factors included, but checks nothing and knows no missing
values; `missing_em` does.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

BLOCKS = (1024, 4096, 16384)
LOG_2PI = np.log(2 * np.pi)

Body = Callable[[int, int], None]


@cache
def _pool(threads):
    return ThreadPoolExecutor(threads)


def over_blocks(make_body: Callable[[], Body], n: int, block: int, threads: int) -> None:
    """Call ``body(start, stop)`` for all blocks of ``n`` rows; ``make_body`` makes one, with buffers, per thread."""

    def work(first):
        body = make_body()
        for start in range(first * block, n, threads * block):
            body(start, min(n, start + block))

    if threads == 1:
        work(0)
    else:
        list(_pool(threads).map(work, range(threads)))


def _whitening(covariances):
    """inverse(L) of covariances L L^T, and the logarithm of its determinant."""
    W = np.linalg.inv(np.linalg.cholesky(covariances))
    return W, np.log(np.diagonal(W, axis1=-2, axis2=-1)).sum(axis=-1)


def _full(X, means, covariances, dtype, block, by_feature):
    """All components in one matrix product: W_k (x - c) - W_k (mean_k - c), with c amid the means."""
    K, d = means.shape
    W, log_det = _whitening(covariances)
    centre = means.mean(axis=0)
    offset = np.matmul(W, (means - centre)[:, :, None]).astype(dtype).reshape(-1, 1)
    stacked = np.ascontiguousarray(W.reshape(K * d, d), dtype=dtype)
    centre = centre.astype(dtype)
    log_norm = log_det - 0.5 * d * LOG_2PI

    def make_quadratic():
        z_buffer, y_buffer = np.empty(block * d, dtype), np.empty(block * K * d, dtype)

        def quadratic(start, stop, q):
            m = stop - start
            if by_feature:
                z, y = z_buffer[: m * d].reshape(d, m), y_buffer[: m * K * d].reshape(K * d, m)
                np.subtract(X[start:stop].T, centre[:, None], out=z)
                np.matmul(stacked, z, out=y)
                if K > 1:
                    np.subtract(y, offset, out=y)
                np.multiply(y, y, out=y)
                np.add.reduce(y.reshape(K, d, m), axis=1, out=q)
            else:
                z, y = z_buffer[: m * d].reshape(m, d), y_buffer[: m * K * d].reshape(m, K * d)
                np.subtract(X[start:stop], centre, out=z)
                np.matmul(z, stacked.T, out=y)
                if K > 1:
                    np.subtract(y, offset.T, out=y)
                y = y.reshape(m, K, d)
                np.einsum("ikj,ikj->ik", y, y, out=q)

        return quadratic

    return make_quadratic, log_norm


def _by_component(X, means, W, inverse_variances, log_norm, dtype, block, by_feature):
    """Component by component, sum_j (x_j - mean_kj)^2 / variance_kj; of whitened x if W is given (tied)."""
    K, d = means.shape
    centre = None
    if W is not None:
        centre = means.mean(axis=0)
        means = (means - centre) @ W.T
        W, centre = W.astype(dtype), centre.astype(dtype)
    means = means.astype(dtype)
    if inverse_variances is not None:
        inverse_variances = inverse_variances.astype(dtype)

    def make_quadratic():
        x_buffer, z_buffer = np.empty(block * d, dtype), np.empty(block * d, dtype)

        def quadratic(start, stop, q):
            m = stop - start
            shape = (d, m) if by_feature else (m, d)
            x, z = x_buffer[: m * d].reshape(shape), z_buffer[: m * d].reshape(shape)
            rows = X[start:stop].T if by_feature else X[start:stop]
            if W is not None:
                np.subtract(rows, centre[:, None] if by_feature else centre, out=z)
                np.matmul(W, z, out=x) if by_feature else np.matmul(z, W.T, out=x)
            elif by_feature or X.dtype != dtype:
                np.copyto(x, rows)
            else:
                x = rows
            for k in range(K):
                to = q[k] if by_feature else q[:, k]
                np.subtract(x, means[k, :, None] if by_feature else means[k], out=z)
                if inverse_variances is None and not by_feature:
                    np.einsum("ij,ij->i", z, z, out=to)
                    continue
                np.multiply(z, z, out=z)
                if inverse_variances is None:
                    np.add.reduce(z, axis=0, out=to)
                elif by_feature:
                    np.matmul(inverse_variances[k], z, out=to)
                else:
                    np.matmul(z, inverse_variances[k], out=to)

        return quadratic

    return make_quadratic, log_norm


def _prepare(X, means, covariances, covariance_type, dtype, block, by_feature):
    K, d = means.shape
    constant = -0.5 * d * LOG_2PI
    if covariance_type == "full":
        make_quadratic, log_norm = _full(X, means, covariances, dtype, block, by_feature)
        return make_quadratic, log_norm, np.ones(K)
    W = inverse_variances = None
    scale = np.ones(K)
    if covariance_type == "tied":
        W, log_det = _whitening(covariances)
        log_norm = np.full(K, constant + log_det)
    elif covariance_type == "diag":
        inverse_variances = 1 / covariances
        log_norm = constant - 0.5 * np.log(covariances).sum(axis=1)
    else:
        scale = 1 / covariances
        log_norm = constant - 0.5 * d * np.log(covariances)
    make_quadratic, log_norm = _by_component(X, means, W, inverse_variances, log_norm, dtype, block, by_feature)
    return make_quadratic, log_norm, scale


def _posterior(q, axis):
    """In place: joint log-probabilities to posterior probabilities."""
    np.subtract(q, q.max(axis=axis, keepdims=True), out=q)
    np.exp(q, out=q)
    np.divide(q, q.sum(axis=axis, keepdims=True), out=q)


def gaussian_log_density(
    X,
    means,
    covariances,
    covariance_type="full",
    *,
    out=None,
    log_prior=None,
    posterior=False,
    dtype=np.float64,
    block=4096,
    by_feature=False,
    threads=1,
):
    """Log-density (n, K), as `fastgen.kernels.gaussian_log_density`.

    Fair: one pass over X, nothing as large as X or the result is allocated but the result itself. Full
    covariances: one matrix product per block for all components. Tied: X is whitened once, for all components.

    Parameters
    ----------
    X : array (n, d), any layout
    means : array (K, d)
    covariances : array
        Full (K, d, d), tied (d, d), diag (K, d), spherical (K,).
    covariance_type : {"full", "tied", "diag", "spherical"}
    out : array (n, K), optional
    log_prior : array (K,), optional
        Added to each row.
    posterior : bool
        Return exp(row) / sum(exp(row)) instead, computed while the block is in cache.
    dtype : dtype
        Of the arithmetic. For float32 data, float32 is faster, and less accurate than fastgen is.
    block, by_feature, threads
        See the module.

    Returns
    -------
    array (n, K), of the dtype of X
    """
    n, K = len(X), len(means)
    if out is None:
        out = np.empty((n, K), X.dtype)
    make_quadratic, log_norm, scale = _prepare(X, means, covariances, covariance_type, dtype, block, by_feature)
    factor = (-0.5 * scale).astype(dtype)
    constant = (log_norm if log_prior is None else log_norm + log_prior).astype(dtype)
    if by_feature:
        factor, constant = factor[:, None], constant[:, None]
    direct = out.dtype == dtype and (K == 1 or not by_feature)  # no need for a buffer

    def make_body():
        quadratic = make_quadratic()
        q_buffer = None if direct else np.empty(block * K, dtype)

        def body(start, stop):
            m = stop - start
            if direct:
                q = out[start:stop].T if by_feature else out[start:stop]
            else:
                q = q_buffer[: m * K].reshape((K, m) if by_feature else (m, K))
            quadratic(start, stop, q)
            np.multiply(q, factor, out=q)
            np.add(q, constant, out=q)
            if posterior:
                _posterior(q, 0 if by_feature else 1)
            if not direct:
                out[start:stop] = q.T if by_feature else q

        return body

    over_blocks(make_body, n, block, threads)
    return out


def gaussian_scorer(mean, covariance):
    """The log-density of one Gaussian as a function of X (n, d), for small batches.

    Fair: everything that does not depend on X is done beforehand, and four calls to NumPy are left.
    """
    W, log_det = _whitening(covariance)
    W = W.T.copy()
    log_norm = log_det - 0.5 * len(mean) * LOG_2PI

    def score(X):
        y = (X - mean) @ W
        return log_norm - 0.5 * np.vecdot(y, y)

    return score


def logsumexp(a, *, out=None, softmax=False, block=4096, by_feature=False, threads=1):
    """log sum_k exp(a[i, k]) (n,), or the softmax (n, K).

    Fair: blocks in cache and no temporaries; held feature by feature, sums and maxima run along the samples.
    """
    n, K = a.shape
    if out is None:
        out = np.empty((n, K) if softmax else n, a.dtype)
    axis = 0 if by_feature else 1

    def make_body():
        buffer = np.empty(block * K, a.dtype)

        def body(start, stop):
            m = stop - start
            q = buffer[: m * K].reshape((K, m) if by_feature else (m, K))
            np.copyto(q, a[start:stop].T if by_feature else a[start:stop])
            if softmax:
                _posterior(q, axis)
                out[start:stop] = q.T if by_feature else q
            else:
                largest = q.max(axis=axis, keepdims=True)
                np.subtract(q, largest, out=q)
                np.exp(q, out=q)
                to = out[start:stop]
                np.add.reduce(q, axis=axis, out=to)
                np.log(to, out=to)
                np.add(to, largest.ravel(), out=to)

        return body

    over_blocks(make_body, n, block, threads)
    return out


def _merge(total, part):
    """Weight, mean, scatter of two parts together (Chan, Golub & LeVeque 1983)."""
    weight = total[0] + part[0]
    delta = part[1] - total[1]
    share = part[0] / weight
    return weight, total[1] + share * delta, total[2] + part[2] + total[0] * share * np.outer(delta, delta)


def gaussian_fit(X, *, block=4096, by_feature=False, threads=1):
    """Mean (d,) and maximum likelihood covariance (d, d).

    Fair: one pass over X; each block is centred about its own mean while it is in cache, its scatter is one
    symmetric BLAS product (NumPy calls syrk), and blocks are merged by the exact shift formula. Means are merged
    relative to the first row, with what rounding left in them, so that a large offset costs nothing.
    """
    n, d = X.shape
    origin = X[0].astype(np.float64)
    parts = []

    def make_body():
        buffer, ones = np.empty(block * d), np.ones(block)
        total = [(0.0, np.zeros(d), np.zeros((d, d)))]
        parts.append(total)

        def body(start, stop):
            m = stop - start
            x = X[start:stop].astype(np.float64, copy=False)
            if by_feature:
                z = buffer[: m * d].reshape(d, m)
                np.copyto(z, x.T)
                mean = z @ ones[:m] / m
                np.subtract(z, mean[:, None], out=z)
                rest, scatter = z @ ones[:m] / m, z @ z.T
            else:
                z = buffer[: m * d].reshape(m, d)
                mean = ones[:m] @ x / m
                np.subtract(x, mean, out=z)
                rest, scatter = ones[:m] @ z / m, z.T @ z
            scatter -= m * np.outer(rest, rest)
            total[0] = _merge(total[0], (float(m), (mean - origin) + rest, scatter))

        return body

    over_blocks(make_body, n, block, threads)
    weight, mean, scatter = parts[0][0]
    for part in parts[1:]:
        if part[0][0]:
            weight, mean, scatter = _merge((weight, mean, scatter), part[0])
    return origin + mean, scatter / weight


class GenerativeClassifier:
    """One full Gaussian per class, as `fastgen.GenerativeClassifier`.

    Fair: rows are gathered class by class once, and the posterior is computed block by block together with the
    log-densities, so that the joint log-probabilities never leave the cache.
    """

    def fit(self, X, y, **options):
        """Mean and covariance of each class; ``options`` are those of `gaussian_fit`."""
        self.classes, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
        self.log_prior = np.log(counts / len(y))
        members = np.split(np.argsort(codes, kind="stable"), np.cumsum(counts)[:-1])
        fits = [gaussian_fit(X[rows], **options) for rows in members]
        self.means = np.stack([mean for mean, _ in fits])
        self.covariances = np.stack([covariance for _, covariance in fits])
        return self

    def predict_joint_log_proba(self, X, **options):
        """log p(x, y) (n, K); ``options`` are those of `gaussian_log_density`."""
        return gaussian_log_density(X, self.means, self.covariances, log_prior=self.log_prior, **options)

    def predict_proba(self, X, **options):
        """p(y | x) (n, K)."""
        return self.predict_joint_log_proba(X, posterior=True, **options)


def missing_em(X, n_iter):
    """Mean and covariance after ``n_iter`` iterations of EM over X with NaN, and the log-likelihood of each.

    The algorithm of `fastgen.Gaussian.fit` (Little & Rubin, sec. 11.2) from the same start: means and variances
    of what is observed, and one M-step. Fair: rows are grouped by pattern of missing columns once, and each group is
    reduced to the mean and scatter of its observed columns, which are all that EM needs: an iteration does not
    look at the data, and costs O(d^3) per pattern, however many rows.

    Parameters
    ----------
    X : array (n, d)
    n_iter : int

    Returns
    -------
    mean : array (d,)
    covariance : array (d, d)
    history : list
        Mean log-likelihood per row: of the start and after each iteration.
    """
    n, d = X.shape
    seen = ~np.isnan(X)
    keys = seen @ (1 << np.arange(d))
    order = np.argsort(keys, kind="stable")
    groups = []
    for rows in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
        observed = np.flatnonzero(seen[rows[0]])
        if len(observed):
            part = X[np.ix_(rows, observed)]
            mean = part.mean(axis=0)
            part -= mean
            groups.append((float(len(rows)), observed, np.flatnonzero(~seen[rows[0]]), mean, part.T @ part))

    def e_step(mean, covariance):
        log_likelihood, total = 0.0, (0.0, np.zeros(d), np.zeros((d, d)))
        for weight, o, m, centre, scatter in groups:
            S_oo, S_om = covariance[np.ix_(o, o)], covariance[np.ix_(o, m)]
            delta = centre - mean[o]
            B = np.linalg.solve(S_oo, np.column_stack([S_om, scatter + weight * np.outer(delta, delta)]))
            log_det = np.linalg.slogdet(S_oo)[1]
            log_likelihood -= 0.5 * (weight * (len(o) * LOG_2PI + log_det) + np.trace(B[:, len(m) :]))
            B = B[:, : len(m)]
            filled_mean, filled = np.empty(d), np.empty((d, d))
            filled_mean[o], filled_mean[m] = centre, mean[m] + delta @ B
            filled[np.ix_(o, o)] = scatter
            filled[np.ix_(o, m)] = scatter @ B
            filled[np.ix_(m, o)] = filled[np.ix_(o, m)].T
            filled[np.ix_(m, m)] = B.T @ scatter @ B + weight * (covariance[np.ix_(m, m)] - S_om.T @ B)
            total = _merge(total, (weight, filled_mean, filled))
        return log_likelihood / n, total

    _, (weight, mean, scatter) = e_step(np.nanmean(X, axis=0), np.diag(np.nanvar(X, axis=0)))
    log_likelihood, (weight, next_mean, next_scatter) = e_step(mean, scatter / weight)
    covariance = scatter / weight
    history = [log_likelihood]
    for _ in range(n_iter):
        mean, covariance = next_mean, next_scatter / weight
        log_likelihood, (weight, next_mean, next_scatter) = e_step(mean, covariance)
        history.append(log_likelihood)
    return mean, covariance, history


def _view(buffer, rows, m, by_feature):
    """The buffer as (rows, m): feature by feature, or sample by sample, which is the same transposed."""
    return buffer[: rows * m].reshape(rows, m) if by_feature else buffer[: rows * m].reshape(m, rows).T


def _responsibilities(log_joint):
    """In place: (K, m) joint log-probabilities to responsibilities; returns the sum of log p(x)."""
    top = log_joint.max(axis=0)
    np.subtract(log_joint, top, out=log_joint)
    np.exp(log_joint, out=log_joint)
    total = log_joint.sum(axis=0)
    np.divide(log_joint, total, out=log_joint)
    np.log(total, out=total)
    return total.sum() + top.sum()


def _whitened_e_step(X, log_weights, means, covariances, block, by_feature, threads):
    """Full covariances: log-likelihood, and weight (K,), mean (K, d), scatter (K, d, d) of the components."""
    (n, d), K = X.shape, len(means)
    W, log_det = _whitening(covariances)
    constant = log_weights + log_det - 0.5 * d * LOG_2PI
    centre = means.mean(axis=0)
    offset = np.matmul(W, (means - centre)[:, :, None]).reshape(-1, 1)
    stacked = W.reshape(K * d, d)
    parts = []

    def make_body():
        z_buffer, y_buffer, l_buffer, u_buffer = (np.empty(block * size) for size in (d, K * d, K, d))
        part = [0.0, np.zeros(K), np.zeros((K, d)), np.zeros((K * d, d))]
        parts.append(part)

        def body(start, stop):
            m = stop - start
            z, y = _view(z_buffer, d, m, by_feature), _view(y_buffer, K * d, m, by_feature)
            u, r = _view(u_buffer, d, m, by_feature), _view(l_buffer, K, m, by_feature)
            np.subtract(X[start:stop].T, centre[:, None], out=z)
            np.matmul(stacked, z, out=y)
            np.subtract(y, offset, out=y)
            each = y.reshape(K, d, m)
            if by_feature:
                for k in range(K):
                    np.multiply(each[k], each[k], out=u)
                    np.add.reduce(u, axis=0, out=r[k])
            else:
                rows = each.transpose(2, 0, 1)
                np.einsum("ikj,ikj->ik", rows, rows, out=r.T)
            np.multiply(r, -0.5, out=r)
            np.add(r, constant[:, None], out=r)
            part[0] += _responsibilities(r)
            part[1] += r.sum(axis=1)
            part[2] += r @ z.T
            np.multiply(r[:, None, :], z, out=each)
            part[3] += y @ z.T

        return body

    over_blocks(make_body, n, block, threads)
    log_likelihood, weight, first, second = (sum(values) for values in zip(*parts, strict=True))
    new = first / weight[:, None]
    scatter = second.reshape(K, d, d) - weight[:, None, None] * new[:, :, None] * new[:, None, :]
    return log_likelihood, weight, centre + new, scatter


def _expanded_e_step(X, log_weights, means, covariances, covariance_type, block, by_feature, threads):
    """The log-density is linear in 1, z and the products of z = x - c: two matrix products with these features."""
    (n, d), K = X.shape, len(means)
    centre = means.mean(axis=0)
    shifted = means - centre
    i, j = np.triu_indices(d)
    if covariance_type == "full":
        W, log_det = _whitening(covariances)
        P = W.mT @ W
        linear = (P @ shifted[:, :, None])[:, :, 0]
        squares = np.where(i == j, -0.5, -1.0) * P[:, i, j]
    else:
        if covariance_type == "tied":
            W, log_det = _whitening(covariances)
            variances, shifted = np.ones((K, d)), shifted @ W.T
        else:
            variances = covariances if covariance_type == "diag" else np.repeat(covariances[:, None], d, axis=1)
            log_det = -0.5 * np.log(variances).sum(axis=1)
        linear = shifted / variances
        squares = -0.5 / (variances if covariance_type == "diag" else variances[:, :1])
    constant = log_weights + log_det - 0.5 * d * LOG_2PI - 0.5 * (linear * shifted).sum(axis=1)
    coefficients = np.column_stack([constant, linear, squares])
    F = coefficients.shape[1]
    parts = []

    def make_body():
        f_buffer, l_buffer, z_buffer = (np.empty(block * size) for size in (F, K, d))
        part = [0.0, np.zeros((K, F))]
        parts.append(part)

        def body(start, stop):
            m = stop - start
            features, log_joint = _view(f_buffer, F, m, by_feature), _view(l_buffer, K, m, by_feature)
            z, second = features[1 : d + 1], features[d + 1 :]
            features[0] = 1.0
            if covariance_type == "tied":
                x = _view(z_buffer, d, m, by_feature)
                np.subtract(X[start:stop].T, centre[:, None], out=x)
                np.matmul(W, x, out=z)
            else:
                np.subtract(X[start:stop].T, centre[:, None], out=z)
            if covariance_type == "full":
                for row in range(d):
                    at = row * d - row * (row - 1) // 2
                    np.multiply(z[row], z[row:], out=second[at : at + d - row])
            elif covariance_type == "diag":
                np.multiply(z, z, out=second)
            else:
                np.einsum("jm,jm->m", z, z, out=second[0])
            np.matmul(coefficients, features, out=log_joint)
            part[0] += _responsibilities(log_joint)
            part[1] += log_joint @ features.T

        return body

    over_blocks(make_body, n, block, threads)
    log_likelihood, sums = (sum(values) for values in zip(*parts, strict=True))
    weight, first, second = sums[:, 0], sums[:, 1 : d + 1], sums[:, d + 1 :]
    new = first / weight[:, None]
    if covariance_type == "tied":
        return log_likelihood, weight, centre + np.linalg.solve(W, new.T).T, None
    if covariance_type == "full":
        moments = np.empty((K, d, d))
        moments[:, i, j] = moments[:, j, i] = second
        scatter = moments - weight[:, None, None] * new[:, :, None] * new[:, None, :]
    elif covariance_type == "diag":
        scatter = second - weight[:, None] * new**2
    else:
        scatter = second[:, 0] - weight * (new**2).sum(axis=1)
    return log_likelihood, weight, centre + new, scatter


def mixture_em_step(
    X,
    weights,
    means,
    covariances,
    covariance_type="full",
    *,
    reg_covar=1e-6,
    expanded=True,
    total=None,
    block=4096,
    by_feature=False,
    threads=1,
):
    """One iteration of EM for a mixture of Gaussians: E-step and M-step.

    Fair: one pass over X in blocks, and nothing as large as n x K exists. Log-densities of all components are one
    matrix product per block, and so are their moments. Tied covariance: the total scatter, which does not depend on
    the parameters, is found beforehand.

    Parameters
    ----------
    X : array (n, d)
    weights : array (K,)
    means : array (K, d)
    covariances : array
        Full (K, d, d), tied (d, d), diag (K, d), spherical (K,).
    covariance_type : {"full", "tied", "diag", "spherical"}
    reg_covar : float
    expanded : bool
        The log-density as a linear function of the products of x - c, whose means are all that the M-step needs. Few
        operations, but digits are lost where components are narrow and far apart. Otherwise (full only) deviations
        are whitened, then squared.
    total : tuple of arrays (d,) and (d, d), for tied
        Mean and covariance of X.
    block, by_feature, threads
        See the module.

    Returns
    -------
    log_likelihood : float
        Of the parameters given.
    weights, means, covariances : arrays
        The next.
    """
    n, d = X.shape
    log_weights = np.log(weights)
    if expanded:
        log_likelihood, weight, mean, scatter = _expanded_e_step(
            X, log_weights, means, covariances, covariance_type, block, by_feature, threads
        )
    else:
        log_likelihood, weight, mean, scatter = _whitened_e_step(
            X, log_weights, means, covariances, block, by_feature, threads
        )
    if covariance_type == "tied":
        delta = mean - total[0]
        covariance = total[1] - (delta.T * weight) @ delta / n + reg_covar * np.eye(d)
    elif covariance_type == "full":
        covariance = scatter / weight[:, None, None] + reg_covar * np.eye(d)
    elif covariance_type == "diag":
        covariance = scatter / weight[:, None] + reg_covar
    else:
        covariance = scatter / (d * weight) + reg_covar
    return log_likelihood, weight / n, mean, covariance
