"""The restricted Boltzmann machine: binary visible and hidden units, and weights between the two layers alone."""

from contextlib import nullcontext
from importlib import import_module
from numbers import Integral, Real
from typing import Any, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from threadpoolctl import threadpool_limits

from fastgen._estimator import FastgenEstimator, atomic
from fastgen._validation import Array, as_generator, check_choice, check_number
from fastgen.graphical._sampling import _generators

__all__ = ["RestrictedBoltzmannMachine"]

_MOST_ENUMERATED = 20
_BLOCK = 1 << 20  # numbers of a temporary
_MOST_SERIAL = 1 << 23  # multiplications of a product that BLAS's threads would make slower


def _few_threads(size: int) -> Any:
    return threadpool_limits(1, "blas") if size < _MOST_SERIAL else nullcontext()


class _Units:
    """Draws units and applies the functions of a machine; holds work space and generators, for one call."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.kernels = import_module("fastgen._kernels.jit.sampling")
        self.G = _generators(rng, self.kernels.TILE)
        self.work = np.zeros((2, self.kernels.TILE)), np.empty(self.kernels.TILE, np.int64)
        self.gradient = np.empty((0, 0))

    def sigmoid(self, a: Array, drawn: Array | None = None) -> Array:
        """a <- probabilities, in place; drawn <- 0 and 1."""
        into = np.empty(0) if drawn is None else drawn.reshape(-1)
        self.kernels.sigmoid_draw(a.reshape(-1), into, self.G, *self.work)
        return a

    def softplus(self, a: Array) -> Array:
        """Sums of log(1 + exp(a)) over rows."""
        out = np.empty(len(a))
        self.kernels.softplus_sums(a, out, *self.work)
        return out


class RestrictedBoltzmannMachine(ClassNamePrefixFeaturesOutMixin, TransformerMixin, FastgenEstimator):  # type: ignore[misc]
    """Restricted Boltzmann machine: p(v, h) ~ exp(b'v + c'h + h'Wv), v and h binary.

    The parameters and methods of scikit-learn's ``BernoulliRBM`` mean the same here. On top come `log_prob` (exact, or
    by annealed importance sampling), `sample`, contrastive divergence, momentum and weight decay.

    Parameters
    ----------
    n_components : int, default=256
        Hidden units.
    learning_rate : float, default=0.1
    schedule : {"linear", "constant"}, default="linear"
        Whether `fit` lowers the learning rate to zero in the course of all steps, as persistent chains need it
        (Tieleman 2008), or keeps it, as scikit-learn does.
    batch_size : int, default=10
        Rows for each step, and persistent chains.
    n_iter : int, default=10
        Passes over the data, each in a new random order.
    method : {"pcd", "cd"}, default="pcd"
        Where the chains for the gradient start: where those of the last step ended (persistent contrastive divergence,
        Tieleman 2008), or at the data (contrastive divergence, Hinton 2002).
    k : int, default=1
        Gibbs steps for each gradient.
    momentum : float, default=0.0
        In [0, 1).
    l2 : float, default=0.0
        Weight decay: ``l2 / 2 * sum(components_ ** 2)`` is subtracted from the mean log-likelihood.
    binarize : float, optional
        Values above are 1, all others 0. Default: values are taken as they are, and must be in [0, 1]; those between
        are probabilities.
    random_state : None, int, numpy.random.Generator or RandomState

    Attributes
    ----------
    components_ : array (n_components, d)
        Weights W.
    intercept_hidden_ : array (n_components,)
        c.
    intercept_visible_ : array (d,)
        b; it starts at the log odds of the data (Hinton 2012, section 8).
    base_intercept_ : array (d,)
        The log odds of the data: where `sample` and annealed importance sampling begin.
    h_samples_ : array (batch_size, n_components)
        Hidden units of the persistent chains.

    Raises
    ------
    ValueError
        By all methods: NaN, infinity, or values outside [0, 1] where ``binarize`` is None. By `fit`: the learning rate
        is so high that the weights have become infinite.

    Examples
    --------
    >>> X = np.random.default_rng(0).integers(0, 2, (100, 6))
    >>> RestrictedBoltzmannMachine(n_components=3, random_state=0).fit(X).transform(X).shape
    (100, 3)
    """

    components_: Array
    intercept_hidden_: Array
    intercept_visible_: Array
    base_intercept_: Array
    h_samples_: Array

    def __init__(
        self,
        n_components: int = 256,
        *,
        learning_rate: float = 0.1,
        schedule: str = "linear",
        batch_size: int = 10,
        n_iter: int = 10,
        method: str = "pcd",
        k: int = 1,
        momentum: float = 0.0,
        l2: float = 0.0,
        binarize: float | None = None,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.batch_size = batch_size
        self.n_iter = n_iter
        self.method = method
        self.k = k
        self.momentum = momentum
        self.l2 = l2
        self.binarize = binarize
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = False
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    # ---- learning --------------------------------------------------------------------------------------------------

    def _check_parameters(self) -> None:
        for name in ("n_components", "batch_size", "n_iter", "k"):
            check_number(getattr(self, name), name, Integral, 1)
        for name in ("learning_rate", "momentum", "l2"):
            check_number(getattr(self, name), name, Real, 0)
        if self.learning_rate == 0 or self.momentum >= 1:
            raise ValueError(
                f"learning_rate must be positive and momentum below 1, got {self.learning_rate!r} and {self.momentum!r}"
            )
        check_choice(self.method, "method", ("pcd", "cd"))
        check_choice(self.schedule, "schedule", ("linear", "constant"))

    def _visible(self, X: ArrayLike, *, reset: bool = False) -> Array:
        """X as float64 in [0, 1]."""
        if self.binarize is not None:
            check_number(self.binarize, "binarize", Real, -np.inf)
        data = self._check_data(X, reset=reset)
        if not np.isfinite(data).all():
            what = "NaN" if np.isnan(data).any() else "infinity"
            raise ValueError(f"Input X contains {what}: a restricted Boltzmann machine needs all values")
        if self.binarize is not None:
            return np.ascontiguousarray(data > self.binarize, np.float64)
        if data.min() < 0 or data.max() > 1:
            raise ValueError(
                f"X must be in [0, 1], got values from {data.min()} to {data.max()}: scale it, or set binarize"
            )
        return np.ascontiguousarray(data, np.float64)

    def _start(self, V: Array, rng: np.random.Generator) -> None:
        shape = self.n_components, V.shape[1]
        share = (V.sum(axis=0) + 0.5) / (len(V) + 1)
        self.components_ = rng.normal(0, 0.01, shape)
        self.intercept_hidden_ = np.zeros(shape[0])
        self.base_intercept_ = np.log(share / (1 - share))
        self.intercept_visible_ = self.base_intercept_.copy()
        self.h_samples_ = np.zeros((self.batch_size, shape[0]))
        self._velocity = np.zeros(shape), np.zeros(shape[0]), np.zeros(shape[1])

    @atomic
    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Learn from X, from new random weights.

        Parameters
        ----------
        X : array (n, d)
        y : ignored

        Returns
        -------
        self
            O(n_iter n d n_components k).
        """
        self._check_parameters()
        self._forget()
        V = self._visible(X, reset=True)
        rng = as_generator(self.random_state)
        self._start(V, rng)
        self.__dict__.pop("_rng", None)
        units = _Units(rng)
        starts = range(0, len(V), self.batch_size)
        with _few_threads(self.batch_size * self.components_.size):
            for epoch in range(self.n_iter):
                order = rng.permutation(len(V))
                for number, begin in enumerate(starts):
                    left = 1.0
                    if self.schedule == "linear":
                        left -= (epoch + number / len(starts)) / self.n_iter
                    self._step(V[order[begin : begin + self.batch_size]], units, left * self.learning_rate)
        return self._finite()

    @atomic
    def partial_fit(self, X: ArrayLike, y: Any = None) -> Self:
        """One step on all of X as one batch; the first call starts from random weights.

        Parameters
        ----------
        X : array (n, d)
        y : ignored

        Returns
        -------
        self
        """
        self._check_parameters()
        first = not hasattr(self, "components_")
        V = self._visible(X, reset=first)
        if first:
            self._rng = as_generator(self.random_state)
            self._start(V, self._rng)
        elif not hasattr(self, "_rng"):
            self._rng = as_generator(self.random_state)
        # what a step changes in place must be as it was if it fails
        self.components_, self.intercept_hidden_ = self.components_.copy(), self.intercept_hidden_.copy()
        self.intercept_visible_ = self.intercept_visible_.copy()
        self._velocity = cast(tuple[Array, Array, Array], tuple(part.copy() for part in self._velocity))
        self._step(V, _Units(self._rng), self.learning_rate)
        return self._finite()

    def _finite(self) -> Self:
        if not all(np.isfinite(p).all() for p in (self.components_, self.intercept_hidden_, self.intercept_visible_)):
            raise ValueError("the weights have become infinite: lower learning_rate, or set l2 below 1 / learning_rate")
        return self

    def _step(self, V: Array, units: _Units, rate: float) -> None:
        """One ascent along the estimated gradient of the mean log-likelihood."""
        W, b, c = self.components_, self.intercept_visible_, self.intercept_hidden_
        n, m = len(V), len(V) if self.method == "cd" else len(self.h_samples_)
        # data above, chains below, so that one product has both terms of the gradient
        v, p = np.empty((n + m, len(b))), np.empty((n + m, len(c)))
        v[:n] = V
        h = np.empty((m, len(c)))
        np.matmul(V, W.T, out=p[:n])
        p[:n] += c
        units.sigmoid(p[:n], h if self.method == "cd" else None)
        if self.method == "pcd":
            h[:] = self.h_samples_
        for _ in range(self.k):
            a = h @ W
            a += b
            units.sigmoid(a, v[n:])
            np.matmul(v[n:], W.T, out=p[n:])
            p[n:] += c
            units.sigmoid(p[n:], h)
        if self.method == "pcd":
            self.h_samples_ = h
        share = np.repeat([rate / n, -rate / m], [n, m])
        hidden, visible = share @ p, share @ v
        p *= share[:, None]
        if units.gradient.shape != W.shape:
            units.gradient = np.empty_like(W)
        gradient = np.matmul(p.T, v, out=units.gradient)
        if self.l2:
            gradient -= rate * self.l2 * W
        for parameter, velocity, part in zip((W, c, b), self._velocity, (gradient, hidden, visible), strict=True):
            if self.momentum:
                velocity *= self.momentum
                velocity += part
                part = velocity
            parameter += part

    def _generator(self, random_state: Any) -> np.random.Generator:
        """The caller's, or that of the estimator."""
        return as_generator(self.random_state if random_state is None else random_state)

    # ---- the model -------------------------------------------------------------------------------------------------

    def _fitted(self, X: ArrayLike) -> tuple[Array, _Units]:
        check_is_fitted(self, "components_")
        return self._visible(X), _Units(np.random.default_rng(0))

    def _inputs(self, V: Array) -> Array:
        """Of the hidden units."""
        return np.asarray(V @ self.components_.T + self.intercept_hidden_)

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def transform(self, X: ArrayLike) -> NDArray[Any]:
        """p(h_j = 1 | v) of each row.

        Parameters
        ----------
        X : array (n, d)

        Returns
        -------
        array (n, n_components)
            float32 if X is. O(n d n_components).
        """
        V, units = self._fitted(X)
        found = units.sigmoid(self._inputs(V))
        return found.astype(np.float32) if getattr(X, "dtype", None) == np.float32 else found

    def free_energy(self, X: ArrayLike) -> Array:
        """F(v) = -b'v - sum_j log(1 + exp(c_j + W_j v)): p(v) = exp(-F(v)) / Z.

        Parameters
        ----------
        X : array (n, d)

        Returns
        -------
        array (n,)
        """
        V, units = self._fitted(X)
        return self._free_energy(V, units)

    def _free_energy(self, V: Array, units: _Units) -> Array:
        return np.asarray(-(V @ self.intercept_visible_) - units.softplus(self._inputs(V)))

    def score_samples(self, X: ArrayLike) -> Array:
        """Pseudo-log-likelihood of each row: ``sum_i log p(v_i | all other v)``.

        Parameters
        ----------
        X : array (n, d)
            Binary.

        Returns
        -------
        array (n,)
            Exact, where scikit-learn estimates it from one feature chosen at random. O(n d n_components).
        """
        V, units = self._fitted(X)
        _refuse_grey(V, "score_samples")
        out = np.empty(len(V))
        columns = np.ascontiguousarray(self.components_.T)
        units.kernels.log_pseudo_likelihood(V, self._inputs(V), columns, self.intercept_visible_, out, *units.work)
        return out

    def log_prob(
        self, X: ArrayLike, method: str = "exact", *, n_runs: int = 100, n_betas: int = 1000, random_state: Any = None
    ) -> Array:
        """log p(v) of each row, in nats.

        Parameters
        ----------
        X : array (n, d)
            Binary.
        method, n_runs, n_betas, random_state
            How the partition function is found: see `log_partition`, which also tells its standard error. Every row
            has the same error.

        Returns
        -------
        array (n,)
            The exact method takes O(2^min(d, n_components) d n_components) for the partition function.
        """
        V, units = self._fitted(X)
        _refuse_grey(V, "log_prob")
        log_z, _ = self.log_partition(method, n_runs=n_runs, n_betas=n_betas, random_state=random_state)
        return -self._free_energy(V, units) - log_z

    def log_partition(
        self, method: str = "exact", *, n_runs: int = 100, n_betas: int = 1000, random_state: Any = None
    ) -> tuple[float, float]:
        """log Z, and its standard error.

        Parameters
        ----------
        method : {"exact", "ais"}
            The sum over all states of the smaller layer, of at most 20 units; or annealed importance sampling
            (Salakhutdinov and Murray 2008), from independent units with the log odds of the data.
        n_runs : int
            Independent runs of annealed importance sampling.
        n_betas : int
            Temperatures of each.
        random_state : None, int, numpy.random.Generator or RandomState
            Default: that of the estimator.

        Returns
        -------
        log_z : float
        standard_error : float
            0.0 if exact; else of log Z, from the spread of the weights: too small where runs that did not occur would
            have dominated them.

        Raises
        ------
        ValueError
            Both layers have more than 20 units and method is "exact".
        """
        check_is_fitted(self, "components_")
        check_choice(method, "method", ("exact", "ais"))
        check_number(n_runs, "n_runs", Integral, 2)
        check_number(n_betas, "n_betas", Integral, 1)
        if method == "exact":
            return self._enumerate(), 0.0
        log_w = self._anneal(n_runs, n_betas, self._generator(random_state))
        m = len(self.components_)
        log_base = np.logaddexp(0, self.base_intercept_).sum() + m * np.log(2)
        weight = np.exp(log_w - log_w.max())
        error = weight.std(ddof=1) / weight.mean() / np.sqrt(n_runs)
        return float(log_base + log_w.max() + np.log(weight.mean())), float(error)

    def _enumerate(self) -> float:
        W, outer, inner = self.components_, self.intercept_hidden_, self.intercept_visible_
        if len(inner) < len(outer):
            W, outer, inner = W.T, inner, outer
        size = len(outer)
        if size > _MOST_ENUMERATED:
            raise ValueError(
                f"exact values need a layer of at most {_MOST_ENUMERATED} units, but they have {W.shape[0]} and "
                f"{W.shape[1]}: use method='ais'"
            )
        units = _Units(np.random.default_rng(0))
        block = max(1, _BLOCK // max(W.shape))
        parts = []
        for begin in range(0, 1 << size, block):
            codes = np.arange(begin, min(1 << size, begin + block))
            states = (codes[:, None] >> np.arange(size) & 1).astype(np.float64)
            parts.append(logsumexp(states @ outer + units.softplus(states @ W + inner)))
        return float(logsumexp(parts))

    def _anneal(self, n_runs: int, n_betas: int, rng: np.random.Generator, weights: bool = True) -> Any:
        """Go from the base model to this one: log weights of the runs, or the last visible units."""
        W, b, c, base = self.components_, self.intercept_visible_, self.intercept_hidden_, self.base_intercept_
        units = _Units(rng)
        log_w = np.zeros(n_runs)
        v, h = np.empty((n_runs, len(b))), np.empty((n_runs, len(c)))
        units.sigmoid(np.tile(base, (n_runs, 1)), v)
        last = 0.0
        with _few_threads(n_runs * W.size):
            for beta in np.arange(1, n_betas + 1) / n_betas:
                a = v @ W.T
                a += c
                if weights:  # under the new temperature, against the old one
                    log_w += (beta - last) * (v @ (b - base)) + units.softplus(beta * a) - units.softplus(last * a)
                a *= beta
                units.sigmoid(a, h)
                a = h @ W
                a *= beta
                a += beta * b + (1 - beta) * base
                units.sigmoid(a, v)
                last = beta
        return log_w if weights else v

    def gibbs(self, v: ArrayLike, random_state: Any = None) -> Array:
        """One step of Gibbs sampling: hidden units given v, then visible units given those.

        Parameters
        ----------
        v : array (n, d)
        random_state : None, int, numpy.random.Generator or RandomState
            Default: that of the estimator.

        Returns
        -------
        array (n, d)
            0.0 and 1.0.
        """
        V, _ = self._fitted(v)
        rng = self._generator(random_state)
        return self._gibbs(V, 1, _Units(rng))

    def _gibbs(self, V: Array, n_steps: int, units: _Units) -> Array:
        v, h = V.copy(), np.empty((len(V), len(self.components_)))
        for _ in range(n_steps):
            units.sigmoid(self._inputs(v), h)
            units.sigmoid(h @ self.components_ + self.intercept_visible_, v)
        return v

    def sample(self, n_samples: int = 1, n_steps: int = 1000, random_state: Any = None) -> Array:
        """Draw rows, each from a chain of its own.

        Parameters
        ----------
        n_samples : int
        n_steps : int
            Gibbs steps. During the first half the model is annealed from independent units, which finds more of its
            modes than a chain that starts among random ones. Draws are approximate: better for more steps.
        random_state : None, int, numpy.random.Generator or RandomState
            Default: that of the estimator; if it is an int, each call returns the same rows.

        Returns
        -------
        array (n_samples, d)
            0.0 and 1.0. O(n_samples n_steps d n_components).
        """
        check_is_fitted(self, "components_")
        check_number(n_samples, "n_samples", Integral, 1)
        check_number(n_steps, "n_steps", Integral, 1)
        rng = self._generator(random_state)
        v = self._anneal(n_samples, max(1, n_steps // 2), rng, weights=False)
        return self._gibbs(v, n_steps - max(1, n_steps // 2), _Units(rng))


def _refuse_grey(V: Array, name: str) -> None:
    grey = (V > 0) & (V < 1)
    if grey.any():
        row, column = np.argwhere(grey)[0]
        raise ValueError(
            f"{name} needs binary data, got {V[row, column]} at row {row}, column {column}: set binarize=0.5, or draw "
            "bits with these probabilities"
        )
