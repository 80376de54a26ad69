"""Hidden Markov models with the interface of hmmlearn.

Write ``from fastgen import hmm`` in place of ``from hmmlearn import hmm``. Constructors, attributes, random
starts, priors and the rule by which EM stops are those of hmmlearn 0.3.3, and so are the parameters after the same
number of iterations, to rounding. Where hmmlearn is wrong, these classes differ:

==================================  ======================================  ==========================================
what                                hmmlearn 0.3.3                          here
==================================  ======================================  ==========================================
``monitor_.converged``              also True after ``n_iter`` iterations,  True only if the last gain was in
                                    or where the likelihood fell            [0, ``tol``), up to rounding; the iterations
                                                                            stop where hmmlearn's do
``decode(algorithm="map")``         returns the sum of the posteriors       returns log p(X, path) of the path, which is
                                                                            -inf if a transition of it is impossible
states never visited                rows of zeros in ``transmat_``, NaN in  what nothing is known about keeps its value
                                    means and rates: the next call fails
``aic``, ``bic``                    count parameters that are not fitted    count what was free: letters in ``params``
                                    and zeros that cannot change; ``n_mix   without the zeros ``startprob_`` and
                                    - 1`` weights for all states together   ``transmat_`` began with; all weights
`PoissonHMM` with a prior           the data of each state is multiplied    (``lambdas_prior`` + sum x) /
                                    by the weight of all states             (``lambdas_weight`` + n), of each state
`GaussianHMM`, ``params`` with      divides sums of squares by 1e-5         covariances about the means as they are
"c" but not "m"
`GaussianHMM`, spherical            ``covars_`` has d matrices per state    ``covars_`` is (K, d, d), ``_covars_`` (K,)
                                    after a fit; `sample` uses others'
`GaussianHMM`, spherical,           ``covars_prior`` (K,) is spread over    is one for each state, as documented; so are
priors of shape (K,)                the columns                             weights of priors of this shape
`GMMHMM`, spherical, no prior       divides by ``d n + d - n_mix``, which   divides by ``d n``: maximum likelihood
                                    may be negative
`GMMHMM`, start of a small cluster  draws from NumPy's global generator     draws from ``random_state``
`GMMHMM`, ``weights_prior`` < 1     weights may become negative             weights that would are 0
data far from 0                     variances from uncentred squares: at    centred first: an offset of 1e8 changes
                                    an offset of 1e8 nothing is left        nothing but the means
an impossible observation           NaN, in parameters too                  `score` is -inf; `fit`, and what needs a
                                                                            posterior, is a ValueError naming the row
NaN in ``X``                        refused                                 a missing value, marginalised (but not in
                                                                            multinomial counts); codes may be floats
``implementation="scaling"``        underflows                              both names give the same, correct result
a fit that fails                    leaves parts of a fit                   leaves the estimator as it was
``random_state``, priors            are overwritten by a fit                are left alone, so that a second fit from an
                                                                            integer ``random_state`` repeats the first
``tol``, ``n_iter``, ``verbose``    do not reach ``monitor_``               reach ``monitor_``, unless it was replaced
set after construction
``verbose``, warnings               to stderr; logger ``hmmlearn``          through the logger ``fastgen``
`MultinomialHMM`                    logs a notice wherever one is made      does not
==================================  ======================================  ==========================================

Kept, though surprising. `GaussianHMM` has a prior by default, ``covars_prior=1e-2, covars_weight=1``: it adds 0.01 to
each state's sum of squares, of "full" and "tied" covariances to all elements, which inflates small variances, and the
likelihood may then fall at the end of a fit. ``GaussianHMM(covars_prior=0)`` (with ``covars_weight`` at most 1, or at
most d for "full" and "tied") is maximum likelihood; scale your data if variances are small. ``min_covar`` is only used
for the start. `GMMHMM` fits covariances about the means of the iteration before.
"""

import copy
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted

from fastgen import families
from fastgen._estimator import FastgenEstimator, atomic
from fastgen._hmm_em import HiddenMarkov, HMMStatistics, Sequences
from fastgen._hmm_recursions import expected_transitions
from fastgen._missing import Index
from fastgen._mixture_em import filled
from fastgen._progress import _audible, logger
from fastgen._transitions import stationary_distribution
from fastgen._validation import Array, Data, as_floats, check_choice, check_number
from fastgen.errors import SingularCovarianceError
from fastgen.kernels import logsumexp, precision_cholesky

__all__ = ["GMMHMM", "CategoricalHMM", "ConvergenceMonitor", "GaussianHMM", "MultinomialHMM", "PoissonHMM"]

COVARIANCE_TYPES = frozenset(("spherical", "diag", "full", "tied"))
DECODER_ALGORITHMS = frozenset(("viterbi", "map"))

_TINY = float(np.finfo(np.float64).tiny)
_OFF = 1.001e-5  # of sums of probabilities from 1, at most
_SINGULAR = 1e-7  # what hmmlearn adds to a covariance that is not positive definite
_ROUNDING = 1e-10  # of the log-likelihood: a fall beyond it has another cause

Sampler = Callable[[int, np.random.RandomState], Any]


def _may_be_rounding(fall: float, log_prob: float) -> bool:
    return bool(fall <= max(2.0**-26, _ROUNDING * abs(log_prob)))


class ConvergenceMonitor:
    """Keeps the log-likelihoods of a fit, and says when it is to stop.

    Subclass it, define ``converged``, and set a model's ``monitor_`` to an instance before the fit: the fit then stops
    once ``converged`` is True.

    Parameters
    ----------
    tol : float
        EM stops where it gains less.
    n_iter : int
        Largest number of iterations.
    verbose : bool
        Whether each iteration is reported, through the logger ``fastgen``.

    Attributes
    ----------
    history : deque
        Log-likelihood before each iteration.
    iter : int
        Iterations that were made.
    """

    _template = "{iter:>10d} {log_prob:>16.8f} {delta:>+16.8f}"

    def __init__(self, tol: float, n_iter: int, verbose: bool) -> None:
        self.tol = tol
        self.n_iter = n_iter
        self.verbose = verbose
        self.history: deque[float] = deque()
        self.iter = 0

    def __repr__(self) -> str:
        settings = sorted({**vars(self), "history": list(self.history)}.items())
        return f"{type(self).__name__}(\n" + "".join(f"    {name}={value},\n" for name, value in settings) + ")"

    def _reset(self) -> None:
        """Forget the last fit."""
        self.iter = 0
        self.history.clear()

    @property
    def _gain(self) -> float | None:
        return self.history[-1] - self.history[-2] if len(self.history) >= 2 else None

    def report(self, log_prob: float) -> None:
        """Take note of an iteration.

        Parameters
        ----------
        log_prob : float
            Log-likelihood before it.
        """
        delta = log_prob - self.history[-1] if self.history else np.nan
        if self.verbose:
            _audible()
            logger.info(self._template.format(iter=self.iter + 1, log_prob=log_prob, delta=delta))
        if self.history and delta < 0 and not _may_be_rounding(-delta, log_prob):
            logger.warning(
                "Model is not converging.  Current: %s is not greater than %s. Delta is %s",
                log_prob,
                self.history[-1],
                delta,
            )
        self.history.append(log_prob)
        self.iter += 1

    @property
    def converged(self) -> bool:
        """Whether the last iteration gained less than ``tol``, and lost nothing but rounding."""
        gain = self._gain
        return gain is not None and gain < self.tol and _may_be_rounding(-gain, self.history[-1])

    @property
    def _stop(self) -> bool:
        """Whether hmmlearn would stop."""
        gain = self._gain
        return self.iter == self.n_iter or (gain is not None and gain < self.tol)


def _stops(monitor: Any) -> bool:
    """Whether a fit is to stop: what the monitor says, if its author defined it."""
    if isinstance(monitor, ConvergenceMonitor) and type(monitor).converged is ConvergenceMonitor.converged:
        return monitor._stop
    return bool(monitor.converged)


@contextmanager
def _restored_on_error(monitor: Any) -> Iterator[None]:
    """Put a monitor's attributes back if what happens inside fails."""
    before = {name: copy.copy(value) for name, value in getattr(monitor, "__dict__", {}).items()}
    try:
        yield
    except BaseException:
        if before:
            monitor.__dict__.clear()
            monitor.__dict__.update(before)
        raise


class _Settings(NamedTuple):
    """What a monitor was made from."""

    tol: Any
    n_iter: Any
    verbose: Any


class _BaseHMM(FastgenEstimator):
    """What does not depend on the emissions."""

    _letters = "st"
    """The parameters that can be fitted."""

    n_components: int
    startprob_prior: Any
    transmat_prior: Any
    algorithm: str
    random_state: Any
    n_iter: int
    tol: float
    verbose: bool
    params: str
    init_params: str
    implementation: str
    n_features: Any

    startprob_: Array
    transmat_: Array
    monitor_: Any
    history_: Array
    stop_reason_: str

    def _initialise(self) -> None:
        """End of every constructor."""
        self.monitor_ = ConvergenceMonitor(self.tol, self.n_iter, self.verbose)
        self._own_monitor = self.monitor_
        self._settings = _Settings(self.tol, self.n_iter, self.verbose)

    def __getstate__(self) -> Any:
        state = dict(super().__getstate__())
        state.pop("_returned", None)  # holds the data
        return state

    # ---- what each kind of emissions brings --------------------------------------------------------------------------

    @abstractmethod
    def _family(self) -> Any:
        """The states' emissions."""

    @abstractmethod
    def _sampler(self) -> Sampler:
        """What draws an observation of a state."""

    @abstractmethod
    def _get_n_fit_scalars_per_param(self) -> dict[str, int]:
        """Number of free parameters behind each letter."""

    def _model(self) -> HiddenMarkov:
        """The parameters as they are now."""
        return HiddenMarkov(_distributions(self.startprob_), _distributions(self.transmat_), self._family())

    def _arrange(self, X: Any, lengths: Any) -> tuple[Any, Any]:
        """X with one row for each step, and the lengths in rows."""
        return X, lengths

    # ---- checks ------------------------------------------------------------------------------------------------------

    def _check_input(self, X: Any, lengths: Any) -> tuple[Any, Index]:
        """X of any dtype of numbers, and the lengths of its sequences. The families look for infinity."""
        if isinstance(X, np.ma.MaskedArray):
            X = as_floats(X, "X")
        if not (type(X) is np.ndarray and X.dtype.kind in "fiu" and X.ndim == 2 and X.size):
            X = check_array(X, ensure_all_finite=False)
        X, lengths = self._arrange(X, lengths)
        if lengths is None:
            return X, np.array([len(X)])
        given = np.atleast_1d(np.asarray(lengths))
        if given.ndim != 1 or given.dtype.kind not in "iu" or given.min(initial=0) < 0 or not given.all():
            raise ValueError(f"lengths must be positive integers, got {lengths}")
        if given.sum() != len(X):
            raise ValueError(f"lengths array {lengths} doesn't sum to {len(X)} samples")
        return X, given.astype(np.intp)

    def _sequences(self, X: Any, lengths: Any) -> Sequences:
        """Data for an existing model."""
        data, checked = self._check_input(X, lengths)
        return Sequences(as_floats(data, "X"), checked)

    def _check_and_set_n_features(self, X: Any) -> None:
        """Compare the number of columns with that of the model, or set it."""
        n_features = X.shape[1]
        known = getattr(self, "n_features", n_features)
        if known != n_features:
            raise ValueError(f"Unexpected number of dimensions, got {n_features} but expected {known}")
        self.n_features = n_features

    def _check_sum_1(self, name: str) -> None:
        """Check that an array describes distributions."""
        array = getattr(self, name)
        sums = array.sum(axis=-1)
        if not np.abs(sums - 1).max() <= _OFF:
            got = (
                f"must sum to 1 (got {sums:.4f})" if sums.ndim == 0 else f"rows must sum to 1 (got row sums of {sums})"
            )
            raise ValueError(f"{name} {got}")
        if array.min() < 0:
            raise ValueError(f"{name} must not be negative, got {array.min()}")

    def _check(self) -> None:
        """Check settings and parameters; these become arrays."""
        check_number(self.n_components, "n_components", Integral, 1)
        check_choice(self.implementation, "implementation", ("log", "scaling"))
        unknown = set(self.params) - set(self._letters)
        if unknown:
            raise ValueError(f"params may have the letters {self._letters!r}, got {self.params!r}")
        self.startprob_ = np.asarray(self.startprob_)
        if self.startprob_.shape != (self.n_components,):
            raise ValueError("startprob_ must have length n_components")
        self._check_sum_1("startprob_")
        self.transmat_ = np.asarray(self.transmat_)
        if self.transmat_.shape != (self.n_components, self.n_components):
            raise ValueError("transmat_ must have shape (n_components, n_components)")
        self._check_sum_1("transmat_")

    def _fitted_model(self) -> HiddenMarkov:
        check_is_fitted(self, "startprob_")
        self._check()
        return self._model()

    # ---- fit ---------------------------------------------------------------------------------------------------------

    def _needs_init(self, code: str, name: str) -> bool:
        if code in self.init_params:
            if hasattr(self, name):
                logger.warning(
                    "Even though the %r attribute is set, it will be overwritten during initialization because "
                    "'init_params' contains %r",
                    name,
                    code,
                )
            return True
        return not hasattr(self, name)

    def _init(self, X: Any, lengths: Any = None) -> None:
        """Set the parameters that a fit starts from: those that ``init_params`` names, and those that are not set."""
        check_number(self.n_components, "n_components", Integral, 1)
        self._check_and_set_n_features(X)
        K = self.n_components
        random_state = check_random_state(self.random_state)
        if self._needs_init("s", "startprob_"):
            self.startprob_ = random_state.dirichlet(np.full(K, 1.0 / K))
        if self._needs_init("t", "transmat_"):
            self.transmat_ = random_state.dirichlet(np.full(K, 1.0 / K), size=K)
        self._zeros = np.asarray(self.startprob_) == 0, np.asarray(self.transmat_) == 0
        free = self._n_free()
        if X.size < free:
            logger.warning(
                "Fitting a model with %d free scalar parameters with only %d data points will result in a degenerate "
                "solution.",
                free,
                X.size,
            )

    def _prepare_monitor(self) -> Any:
        """The monitor, with the settings as they are now if it is our own."""
        settings = _Settings(self.tol, self.n_iter, self.verbose)
        if self.monitor_ is self._own_monitor:
            for name in _Settings._fields:
                if getattr(settings, name) != getattr(self._settings, name):
                    setattr(self.monitor_, name, getattr(settings, name))
            self._settings = settings
        return self.monitor_

    def fit(self, X: ArrayLike, lengths: Any = None) -> Self:
        """Estimate the parameters by EM.

        Parameters
        ----------
        X : array (n_samples, n_features)
            The sequences, one after the other. NaN is a missing value.
        lengths : sequence of ints, optional
            Length of each; they add up to ``n_samples``. Default: one sequence.

        Returns
        -------
        self
            With ``history_`` (log-likelihood before each iteration) and ``stop_reason_`` ("converged", "max_iter" or
            "decreased").

        Raises
        ------
        ValueError
            The data is not legal, or impossible under the parameters. The estimator is then as it was before.
        """
        with _restored_on_error(self.monitor_):
            return self._fit(X, lengths)

    @atomic
    def _fit(self, X: ArrayLike, lengths: Any) -> Self:
        data, checked = self._check_input(X, lengths)
        self._init(data, checked)
        self._check()
        monitor = self._prepare_monitor()
        monitor._reset()
        sequences = Sequences(as_floats(data, "X"), checked)
        model = self._model()
        history: list[float] = []
        stopped = False
        for _ in range(self.n_iter):
            statistics = self._do_estep(model, sequences)
            self._do_mstep(statistics)
            model = self._model()
            history.append(statistics.log_likelihood)
            monitor.report(statistics.log_likelihood)
            stopped = _stops(monitor)
            if stopped:
                break
        self.history_ = np.array(history)
        self.stop_reason_ = self._reason(history, monitor, stopped)
        self.__dict__.pop("_log_likelihood", None)
        self._returned = model, sequences
        return self

    def _reason(self, history: list[float], monitor: Any, stopped: bool) -> str:
        gain = history[-1] - history[-2] if len(history) >= 2 else np.nan
        if gain < 0 and not _may_be_rounding(-gain, history[-1]):
            return "decreased"
        of_their_own = isinstance(monitor, ConvergenceMonitor) and not monitor._stop
        if gain < getattr(monitor, "tol", self.tol) or (stopped and of_their_own):
            return "converged"
        return "max_iter"

    @property
    def log_likelihood_(self) -> float:
        """Log-likelihood of the data of the last fit under the parameters that it returned: found when asked for."""
        if "_log_likelihood" not in self.__dict__:
            if "_returned" not in self.__dict__:
                raise AttributeError("the data of the fit is not there (any more): use score(X, lengths)")
            model, sequences = self._returned
            self._log_likelihood = float(model.log_prob(sequences).sum())
            del self._returned
        return self._log_likelihood

    def _do_estep(self, model: HiddenMarkov, sequences: Sequences) -> HMMStatistics:
        statistics = model.e_step(sequences)
        if not np.isfinite(statistics.log_likelihood):
            raise ValueError(f"the log-likelihood is {statistics.log_likelihood}: scale the data")
        return statistics

    def _do_mstep(self, statistics: HMMStatistics) -> None:
        """Zeros stay zeros; what nothing is known about stays as it is."""
        if "s" in self.params:
            self.startprob_ = _updated(self.startprob_, self.startprob_prior, statistics.start)
        if "t" in self.params:
            self.transmat_ = _updated(self.transmat_, self.transmat_prior, statistics.transitions)

    # ---- use ---------------------------------------------------------------------------------------------------------

    def score(self, X: ArrayLike, lengths: Any = None) -> float:
        """log p(X), summed over the sequences; -inf if it is impossible.

        Parameters
        ----------
        X : array (n_samples, n_features)
        lengths : sequence of ints, optional

        Returns
        -------
        float
        """
        model = self._fitted_model()
        return float(model.log_prob(self._sequences(X, lengths)).sum())

    def score_samples(self, X: ArrayLike, lengths: Any = None) -> tuple[float, Array]:
        """log p(X), and p(state | sequence) of each sample.

        Parameters
        ----------
        X : array (n_samples, n_features)
        lengths : sequence of ints, optional

        Returns
        -------
        log_prob : float
        posteriors : array (n_samples, n_components)

        Raises
        ------
        ValueError
            A sequence is impossible: it has no posterior.
        """
        model = self._fitted_model()
        return _posterior(model, self._sequences(X, lengths))

    def predict_proba(self, X: ArrayLike, lengths: Any = None) -> Array:
        """p(state | sequence) of each sample; see `score_samples`.

        Parameters
        ----------
        X : array (n_samples, n_features)
        lengths : sequence of ints, optional

        Returns
        -------
        array (n_samples, n_components)
        """
        return self.score_samples(X, lengths)[1]

    def decode(self, X: ArrayLike, lengths: Any = None, algorithm: str | None = None) -> tuple[float, Index]:
        """The most probable states.

        Parameters
        ----------
        X : array (n_samples, n_features)
        lengths : sequence of ints, optional
        algorithm : {"viterbi", "map"}, optional
            "viterbi": the most probable path. "map": the most probable state of each sample; this path may be
            impossible. Default: ``self.algorithm``.

        Returns
        -------
        log_prob : float
            log p(X, path), summed over the sequences.
        state_sequence : array (n_samples,)
            -1 where a sequence is impossible ("viterbi"; "map" raises an error).
        """
        model = self._fitted_model()
        algorithm = algorithm or self.algorithm
        if algorithm not in DECODER_ALGORITHMS:
            raise ValueError(f"Unknown decoder {algorithm!r}")
        sequences = self._sequences(X, lengths)
        if algorithm == "viterbi":
            log_probs, path = model.viterbi(sequences)
            return float(log_probs.sum()), path
        path = np.asarray(_posterior(model, sequences)[1].argmax(axis=1), np.intp)
        return _log_joint(model, sequences, path), path

    def predict(self, X: ArrayLike, lengths: Any = None) -> Index:
        """The most probable states; see `decode`.

        Parameters
        ----------
        X : array (n_samples, n_features)
        lengths : sequence of ints, optional

        Returns
        -------
        array (n_samples,)
        """
        return self.decode(X, lengths)[1]

    def sample(self, n_samples: int = 1, random_state: Any = None, currstate: int | None = None) -> tuple[Any, Index]:
        """Draw one sequence.

        Parameters
        ----------
        n_samples : int
        random_state : int or RandomState, optional
            Default: ``self.random_state``.
        currstate : int, optional
            State of the first sample. Default: drawn from ``startprob_``.

        Returns
        -------
        X : array (n_samples, n_features)
        state_sequence : array (n_samples,)
        """
        check_is_fitted(self, "startprob_")
        self._check()
        generator = check_random_state(self.random_state if random_state is None else random_state)
        rows = np.cumsum(self.transmat_, axis=1)
        draw = self._sampler()
        if currstate is None:
            currstate = _first_above(np.cumsum(self.startprob_), generator.rand())
        states, X = [currstate], [draw(currstate, generator)]
        for _ in range(n_samples - 1):
            currstate = _first_above(rows[currstate], generator.rand())
            states.append(currstate)
            X.append(draw(currstate, generator))
        return np.atleast_2d(X), np.array(states, dtype=int)

    def get_stationary_distribution(self) -> Array:
        """The distribution of states that a transition does not change, (n_components,)."""
        check_is_fitted(self, "transmat_")
        A = np.asarray(self.transmat_, np.float64)
        with suppress(ValueError):  # there are several: one of them
            return stationary_distribution(A)
        values, vectors = np.linalg.eig(A.T)
        vector = np.real(vectors[:, np.argmax(values.real)])
        return cast(Array, vector / vector.sum())

    def _compute_log_likelihood(self, X: ArrayLike) -> Array:
        """log p(x | state) of each sample, (n, K)."""
        return np.asarray(self._family().log_density(as_floats(X, "X")), np.float64)

    # ---- criteria ----------------------------------------------------------------------------------------------------

    def _free_probabilities(self) -> dict[str, int]:
        """Free elements of ``startprob_`` and ``transmat_``: those that a fit began with as 0 cannot change."""
        counts = {}
        names = {"s": "startprob_", "t": "transmat_"}
        for (letter, name), zeros in zip(names.items(), getattr(self, "_zeros", (None, None)), strict=True):
            array = np.asarray(getattr(self, name))
            structural = array == 0
            if zeros is not None and zeros.shape == array.shape:
                structural &= zeros
            counts[letter] = int(np.maximum((~structural).sum(axis=-1) - 1, 0).sum())
        return counts

    def _n_free(self) -> int:
        counts = self._get_n_fit_scalars_per_param()
        unknown = set(self.params) - set(counts)
        if unknown:
            raise ValueError(f"params may have the letters {self._letters!r}, got {self.params!r}")
        return sum(counts[letter] for letter in set(self.params))

    def aic(self, X: ArrayLike, lengths: Any = None) -> float:
        """Akaike's criterion, -2 log p(X) + 2 k with k free parameters: the lower the better.

        Parameters
        ----------
        X : array (n_samples, n_features)
        lengths : sequence of ints, optional

        Returns
        -------
        float
        """
        return -2 * self.score(X, lengths=lengths) + 2 * self._n_free()

    def bic(self, X: ArrayLike, lengths: Any = None) -> float:
        """The Bayesian criterion, -2 log p(X) + k log(n_samples) with k free parameters: the lower the better.

        Parameters
        ----------
        X : array (n_samples, n_features)
        lengths : sequence of ints, optional

        Returns
        -------
        float
        """
        n_samples = len(self._check_input(X, lengths)[0])
        return float(-2 * self.score(X, lengths=lengths) + self._n_free() * np.log(n_samples))


def _distributions(array: Any) -> Array:
    """Distributions that add up to 1 more exactly than `_check_sum_1` asks for."""
    p = np.asarray(array, np.float64)
    total = p.sum(axis=-1, keepdims=True)
    return np.asarray(p / np.where(np.abs(total - 1) < 1e-9, 1.0, total))


def _updated(old: Array, prior: Any, counts: Array) -> Array:
    """Distributions by counts and Dirichlet priors; rows without counts stay as they are."""
    new = np.where(np.asarray(old) == 0, 0.0, np.maximum(np.asarray(prior, np.float64) - 1 + counts, 0))
    total = new.sum(axis=-1, keepdims=True)
    return _ratio(new, total, old)


def _shares(old: Array, counts: Array) -> Array:
    """Counts over their sums; rows without counts stay as they are."""
    total = counts.sum(axis=-1, keepdims=True)
    return _ratio(counts, total, old)


def _ratio(numerator: Any, denominator: Any, otherwise: Any) -> Array:
    """The ratio where the denominator is positive."""
    numerator, denominator, otherwise = np.broadcast_arrays(numerator, denominator, otherwise)
    result: Array = np.divide(numerator, denominator, where=denominator > 0, out=np.array(otherwise, np.float64))
    return result


def _first_above(cumulated: Array, u: float) -> int:
    """The state that a uniform number draws; the last that is possible where the sum is below 1 by rounding."""
    found = int(np.searchsorted(cumulated, u, side="right"))
    return found if found < len(cumulated) else int(np.searchsorted(cumulated, cumulated[-1]))


def _posterior(model: HiddenMarkov, sequences: Sequences) -> tuple[float, Array]:
    log_probs, posteriors = model.posterior(sequences)
    return float(log_probs.sum()), posteriors


def _log_joint(model: HiddenMarkov, sequences: Sequences, path: Index) -> float:
    """log p(X, path)."""
    emissions = model.family.log_density(sequences.X.astype(np.float64, copy=False))
    starts = np.cumsum(sequences.lengths) - sequences.lengths
    with np.errstate(divide="ignore"):
        steps = np.log(model.transmat)[np.r_[0, path[:-1]], path]
        steps[starts] = np.log(model.startprob)[path[starts]]
    return float((emissions[np.arange(len(path)), path] + steps).sum())


# ---- Gaussians -------------------------------------------------------------------------------------------------------


def _gaussians(covariance_type: str, means: Array, covariances: Array) -> families.Gaussian:
    """The family; where a covariance is singular, as hmmlearn: the smallest variance, or 1e-7 on the diagonal."""
    if covariance_type in ("diag", "spherical"):
        covariances = np.maximum(covariances, _TINY)
        return families.Gaussian(covariance_type, means=means, covariances=covariances)
    try:
        return families.Gaussian(covariance_type, means=means, covariances=covariances)
    except SingularCovarianceError:
        raised = np.array(covariances, np.float64).reshape(-1, *covariances.shape[-2:])
    for k, covariance in enumerate(raised):
        for attempt in (0, 1):
            try:
                precision_cholesky(covariance, "tied")
            except SingularCovarianceError as error:
                if attempt:
                    raise SingularCovarianceError(
                        k,
                        error.reason,
                        f"covariance {k}",
                        "Use fewer states, a covars_prior, or another covariance_type.",
                    ) from None
                covariance[np.diag_indices_from(covariance)] += _SINGULAR
    return families.Gaussian(covariance_type, means=means, covariances=raised.reshape(covariances.shape))


def _count(components: Any) -> Array:
    """Weight of each component's columns: (K, d), or (K, 1) if it is the same for all."""
    return cast(Array, components.count if hasattr(components, "count") else components.weight[:, None])


def _per_state(value: Any, K: int) -> Array:
    """A prior's setting; of shape (K,), as a column."""
    array = np.asarray(value, np.float64)
    return array[:, None] if array.shape == (K,) else array


def _check_covariances(covariances: Array, covariance_type: str, K: int) -> Array:
    """Return the array that is kept of what ``covars_`` is set to."""
    if covariance_type == "spherical":
        if len(covariances) != K:
            raise ValueError("'spherical' covars have length n_components")
        flat = covariances.reshape(K, -1)
        if not (flat == flat[:, :1]).all():
            raise ValueError("'spherical' covars must have one variance for each component")
        if not flat.min(initial=np.inf) > 0:
            raise ValueError("'spherical' covars must be positive")
        return flat[:, 0].copy()
    if covariance_type == "diag":
        if covariances.ndim != 2:
            raise ValueError("'diag' covars must have shape (n_components, n_dim)")
        if not covariances.min(initial=np.inf) > 0:
            raise ValueError("'diag' covars must be positive")
        return covariances
    if covariance_type not in COVARIANCE_TYPES:
        raise ValueError(f"covariance_type must be one of {sorted(COVARIANCE_TYPES)}")
    ndim = 2 if covariance_type == "tied" else 3
    if covariances.ndim != ndim or covariances.shape[-1] != covariances.shape[-2]:
        shape = "(n_dim, n_dim)" if covariance_type == "tied" else "(n_components, n_dim, n_dim)"
        raise ValueError(f"{covariance_type!r} covars must have shape {shape}")
    for n, covariance in enumerate(covariances.reshape(-1, *covariances.shape[-2:])):
        if not np.allclose(covariance, covariance.T) or not np.linalg.eigvalsh(covariance).min() > 0:
            whose = "'tied' covars" if covariance_type == "tied" else f"component {n} of 'full' covars"
            raise ValueError(f"{whose} must be symmetric, positive-definite")
    return covariances


def _start_covariance(X: Data, min_covar: float) -> Array:
    """Covariance of all the data."""
    d = X.shape[1]
    return np.asarray(np.cov(X.T) + min_covar * np.eye(d)).reshape(d, d)


def _kmeans(X: Any, n_clusters: int, random_state: Any) -> Any:
    from sklearn.cluster import KMeans

    return KMeans(n_clusters=n_clusters, random_state=random_state, n_init=10).fit(X)


def _normal(mean: Array, root: Array, generator: np.random.RandomState) -> Array:
    """What ``generator.multivariate_normal`` draws, with the root of the covariance found once."""
    return mean + generator.standard_normal(len(mean)) @ root


def _roots(covariances: Array) -> Array:
    """The roots that NumPy's legacy ``multivariate_normal`` uses."""
    _, s, vt = np.linalg.svd(covariances)
    return cast(Array, np.sqrt(s)[..., :, None] * vt)


class GaussianHMM(_BaseHMM):
    """Hidden Markov model with Gaussian emissions, as ``hmmlearn.hmm.GaussianHMM``.

    Parameters
    ----------
    n_components : int
        Number of states, K.
    covariance_type : {"spherical", "diag", "full", "tied"}
        "tied": all states share one full covariance.
    min_covar : float
        Added to the variances that the fit starts from.
    startprob_prior : float or array (K,)
        Parameters of the Dirichlet prior of ``startprob_``; 1 for none.
    transmat_prior : float or array (K, K)
        The same of the rows of ``transmat_``.
    means_prior, means_weight : float or array
        Mean of the normal prior of ``means_``, and its weight in observations. ``means_prior`` may have shape (d,) or
        (K, d), ``means_weight`` (K,).
    covars_prior, covars_weight : float or array
        Prior of the covariances: inverse gamma ("spherical", "diag") or inverse Wishart. The default inflates small
        variances; ``covars_prior=0`` is maximum likelihood (see the notes of the module).
    algorithm : {"viterbi", "map"}
        What `decode` and `predict` use.
    random_state : int, RandomState or None
    n_iter : int
        Largest number of EM iterations.
    tol : float
        EM stops where an iteration gains less log-likelihood.
    verbose : bool
        Report each iteration through the logger ``fastgen``.
    params, init_params : str
        What is fitted, and what is set at random before: "s" ``startprob_``, "t" ``transmat_``, "m" ``means_``,
        "c" ``covars_``.
    implementation : {"log", "scaling"}
        Accepted for compatibility: the result is the same.

    Attributes
    ----------
    startprob_ : array (K,)
    transmat_ : array (K, K)
    means_ : array (K, d)
    covars_ : array (K, d, d)
        Set it in the shape of the type: (K,), (K, d), (K, d, d), tied (d, d).
    n_features : int
    monitor_ : ConvergenceMonitor
    history_ : array
        Log-likelihood before each iteration.
    stop_reason_ : {"converged", "max_iter", "decreased"}
        Why the iterations ended. "decreased": the log-likelihood fell, as it may with a prior.
    log_likelihood_ : float
        Log-likelihood of the data under the fitted parameters.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgen.hmm import GaussianHMM
    >>> X = np.array([[0.1], [-0.2], [0.0], [5.1], [4.9], [5.0], [0.2], [-0.1]])
    >>> model = GaussianHMM(n_components=2, random_state=0).fit(X)
    >>> model.predict(X) == model.predict(X)[0]
    array([ True,  True,  True, False, False, False,  True,  True])
    """

    _letters = "stmc"
    means_: Any
    _covars_: Any

    def __init__(
        self,
        n_components: int = 1,
        covariance_type: str = "diag",
        min_covar: float = 1e-3,
        startprob_prior: Any = 1.0,
        transmat_prior: Any = 1.0,
        means_prior: Any = 0,
        means_weight: Any = 0,
        covars_prior: Any = 1e-2,
        covars_weight: Any = 1,
        algorithm: str = "viterbi",
        random_state: Any = None,
        n_iter: int = 10,
        tol: float = 1e-2,
        verbose: bool = False,
        params: str = "stmc",
        init_params: str = "stmc",
        implementation: str = "log",
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.min_covar = min_covar
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.means_prior = means_prior
        self.means_weight = means_weight
        self.covars_prior = covars_prior
        self.covars_weight = covars_weight
        self.algorithm = algorithm
        self.random_state = random_state
        self.n_iter = n_iter
        self.tol = tol
        self.verbose = verbose
        self.params = params
        self.init_params = init_params
        self.implementation = implementation
        self._initialise()

    @property
    def covars_(self) -> Array:
        """Covariances as matrices, (K, d, d)."""
        kept = np.asarray(self._covars_)
        if self.covariance_type == "full":
            return kept
        if self.covariance_type == "tied":
            return np.tile(kept, (self.n_components, 1, 1))
        d = self.n_features if hasattr(self, "n_features") else np.shape(self.means_)[1]
        return np.broadcast_to(_columns(kept), (self.n_components, d))[:, :, None] * np.eye(d)

    @covars_.setter
    def covars_(self, covars: ArrayLike) -> None:
        self._covars_ = _check_covariances(np.array(covars, np.float64), self.covariance_type, self.n_components)

    def _init(self, X: Any, lengths: Any = None) -> None:
        super()._init(X, lengths)
        if self.covariance_type not in COVARIANCE_TYPES:
            raise ValueError(f"covariance_type must be one of {sorted(COVARIANCE_TYPES)}")
        complete: Any = None
        if self._needs_init("m", "means_"):
            complete = filled(as_floats(X, "X"), None)
            self.means_ = np.asarray(_kmeans(complete, self.n_components, self.random_state).cluster_centers_)
        if self._needs_init("c", "covars_"):
            if complete is None:
                complete = filled(as_floats(X, "X"), None)
            covariance = _start_covariance(complete, self.min_covar)
            shape = len(self.means_), X.shape[1]
            self.covars_ = {
                "spherical": np.full(shape, covariance.mean()),
                "diag": np.tile(covariance.diagonal(), (shape[0], 1)),
                "full": np.tile(covariance, (shape[0], 1, 1)),
                "tied": covariance,
            }[self.covariance_type]

    def _check(self) -> None:
        super()._check()
        self.means_ = np.asarray(self.means_)
        if self.means_.ndim != 2 or len(self.means_) != self.n_components:
            raise ValueError(f"means_ must have shape (n_components, n_features), got {self.means_.shape}")
        self.n_features = self.means_.shape[1]
        if self.covariance_type not in COVARIANCE_TYPES:
            raise ValueError(f"covariance_type must be one of {sorted(COVARIANCE_TYPES)}")

    def _get_n_fit_scalars_per_param(self) -> dict[str, int]:
        K, d = self.n_components, self.n_features
        triangle = d * (d + 1) // 2
        covariances = {"spherical": K, "diag": K * d, "full": K * triangle, "tied": triangle}
        return {**self._free_probabilities(), "m": K * d, "c": covariances.get(self.covariance_type, 0)}

    def _family(self) -> Any:
        kept = np.asarray(self._covars_, np.float64)
        if self.covariance_type == "spherical":
            kept = _check_covariances(kept, "spherical", self.n_components)
        return _gaussians(self.covariance_type, self.means_, kept)

    def _do_mstep(self, statistics: HMMStatistics) -> None:
        super()._do_mstep(statistics)
        K, found = self.n_components, statistics.components
        count, old = _count(found), np.asarray(self.means_, np.float64)
        weight, prior = _per_state(self.means_weight, K), np.asarray(self.means_prior, np.float64)
        if prior.shape == (K,) != (self.n_features,):
            prior = prior[:, None]
        if "m" in self.params:
            share = _ratio(weight, weight + count, 0.0)
            mean = np.where(count > 0, found.mean, np.where(weight > 0, prior, old))
            self.means_ = mean + share * (prior - mean)
        if "c" not in self.params:
            return
        off = found.mean - self.means_  # of the state's own mean from that of the model
        pull = np.sqrt(np.broadcast_to(weight, old.shape)) * (self.means_ - prior)
        if self.covariance_type in ("spherical", "diag"):
            scatter = found.scatter + count * off**2 + pull**2
            spread = np.asarray(self.covars_prior, np.float64)
            if self.covariance_type == "spherical":
                spread = _per_state(spread, K)
            degrees = np.maximum(_per_state(self.covars_weight, K) - 1, 0) + count
            degrees = np.where(degrees > 0, np.maximum(degrees, 1e-5), 0.0)
            total = np.broadcast_to(spread + scatter, old.shape)
            degrees = np.broadcast_to(degrees, old.shape)
            kept = _columns(self._covars_)
            if self.covariance_type == "diag":
                self._covars_ = _ratio(total, degrees, kept)
            else:
                self._covars_ = _ratio(total.sum(axis=1), degrees.sum(axis=1), kept[:, 0])
            return
        n = found.weight
        shift = n[:, None, None] * off[:, :, None] * off[:, None, :] + pull[:, :, None] * pull[:, None, :]
        degrees = np.maximum(np.asarray(self.covars_weight, np.float64) - self.n_features, 0)
        spread = np.asarray(self.covars_prior, np.float64)
        if self.covariance_type == "tied":
            scatter = found.scatter.sum(axis=0) + shift.sum(axis=0)
            self._covars_ = _ratio(spread + scatter, degrees + n.sum(), self._covars_)
        else:
            scatter = found.scatter + shift
            self._covars_ = _ratio(spread + scatter, (degrees + n)[:, None, None], self._covars_)

    def _sampler(self) -> Sampler:
        means, roots = np.asarray(self.means_, np.float64), _roots(self.covars_)
        return lambda state, generator: _normal(means[state], roots[state], generator)


def _columns(kept: Any) -> Array:
    """Variances (K, d), or (K, 1) for spherical ones."""
    array = np.asarray(kept, np.float64)
    return array[:, None] if array.ndim == 1 else array


# ---- mixtures of Gaussians -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _StateMixtures:
    """Mixtures of Gaussians, one for each state: what `HiddenMarkov` asks of a family for log-probabilities."""

    weights: Array
    """(K, M)"""
    gaussians: families.Gaussian
    """K * M components"""

    def joint(self, X: Data, n_threads: int | None = None) -> Array:
        """log p(x, mixture component | state), (n, K, M)."""
        K, M = self.weights.shape
        result = np.empty((len(X), K * M))
        self.gaussians.log_density(X, out=result, n_threads=n_threads)
        with np.errstate(divide="ignore"):
            result += np.log(self.weights).ravel()
        return result.reshape(-1, K, M)

    @property
    def n_components(self) -> int:
        """K."""
        return len(self.weights)

    def log_density(self, X: ArrayLike, *, out: Array | None = None, n_threads: int | None = None) -> Array:
        """log p(x | state), (n, K)."""
        result = _sum_logs(self.joint(as_floats(X, "X"), n_threads))
        if out is not None:
            out[...] = result
        return result


def _sum_logs(joint: Array) -> Array:
    n, K, M = joint.shape
    return np.asarray(logsumexp(joint.reshape(n * K, M)), np.float64).reshape(n, K)


class _GMMHiddenMarkov(HiddenMarkov):
    """Its E-step finds the responsibilities of the mixtures' components."""

    def e_step(self, sequences: Sequences, n_threads: int | None = None) -> HMMStatistics:
        mixtures: _StateMixtures = self.family
        joint = mixtures.joint(sequences.X, n_threads)
        logs = _sum_logs(joint)
        found = expected_transitions(logs, self.startprob, self.transmat, sequences.lengths, n_threads=n_threads)
        logs[np.isneginf(logs)] = 0.0
        joint -= logs[:, :, None]
        np.exp(joint, out=joint)
        joint *= np.asarray(found.posteriors)[:, :, None]
        components = mixtures.gaussians.statistics(sequences.X, joint.reshape(len(joint), -1), n_threads=n_threads)
        return HMMStatistics(float(np.sum(found.log_likelihoods)), found.start, found.transitions, components)


class _GMMPriors(NamedTuple):
    """Priors in full shape: see the class."""

    weights: Array
    means: Array
    means_weight: Array
    covars: Array
    covars_weight: Array


class GMMHMM(_BaseHMM):
    """Hidden Markov model whose states have mixtures of Gaussians, as ``hmmlearn.hmm.GMMHMM``.

    Parameters
    ----------
    n_components : int
        Number of states, K.
    n_mix : int
        Number of Gaussians of each state, M.
    min_covar : float
        Added to the variances that the fit starts from.
    startprob_prior : float or array (K,)
        Parameters of the Dirichlet prior of ``startprob_``; 1 for none.
    transmat_prior : float or array (K, K)
        The same of the rows of ``transmat_``.
    weights_prior : float or array (K, M)
        The same of the rows of ``weights_``.
    means_prior, means_weight : float or array (K, M, d), (K, M)
        Mean of the normal prior of ``means_``, and its weight in observations.
    covars_prior, covars_weight : float or array, optional
        Prior of the covariances: "spherical" (K, M) and "diag" (K, M, d): parameters alpha and beta of the inverse
        gamma distribution; "full" (K, M, d, d) and (K, M), "tied" (K, d, d) and (K,): matrix and degrees of freedom
        of the inverse Wishart distribution. Default: none.
    algorithm : {"viterbi", "map"}
        What `decode` and `predict` use.
    covariance_type : {"spherical", "diag", "full", "tied"}
        "tied": the Gaussians of a state share one full covariance.
    random_state : int, RandomState or None
    n_iter : int
        Largest number of EM iterations.
    tol : float
        EM stops where an iteration gains less log-likelihood.
    verbose : bool
        Report each iteration through the logger ``fastgen``.
    params, init_params : str
        What is fitted, and what is set at random before: "s" ``startprob_``, "t" ``transmat_``, "m" ``means_``,
        "c" ``covars_``, "w" ``weights_``.
    implementation : {"log", "scaling"}
        Accepted for compatibility: the result is the same.

    Attributes
    ----------
    startprob_ : array (K,)
    transmat_ : array (K, K)
    weights_ : array (K, M)
    means_ : array (K, M, d)
    covars_ : array
        "spherical" (K, M), "diag" (K, M, d), "full" (K, M, d, d), "tied" (K, d, d).
    n_features : int
    monitor_ : ConvergenceMonitor
    history_, stop_reason_, log_likelihood_
        See `GaussianHMM`.
    """

    _letters = "stmcw"
    weights_: Any
    means_: Any
    covars_: Any

    def __init__(
        self,
        n_components: int = 1,
        n_mix: int = 1,
        min_covar: float = 1e-3,
        startprob_prior: Any = 1.0,
        transmat_prior: Any = 1.0,
        weights_prior: Any = 1.0,
        means_prior: Any = 0.0,
        means_weight: Any = 0.0,
        covars_prior: Any = None,
        covars_weight: Any = None,
        algorithm: str = "viterbi",
        covariance_type: str = "diag",
        random_state: Any = None,
        n_iter: int = 10,
        tol: float = 1e-2,
        verbose: bool = False,
        params: str = "stmcw",
        init_params: str = "stmcw",
        implementation: str = "log",
    ) -> None:
        self.n_components = n_components
        self.n_mix = n_mix
        self.min_covar = min_covar
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.weights_prior = weights_prior
        self.means_prior = means_prior
        self.means_weight = means_weight
        self.covars_prior = covars_prior
        self.covars_weight = covars_weight
        self.algorithm = algorithm
        self.covariance_type = covariance_type
        self.random_state = random_state
        self.n_iter = n_iter
        self.tol = tol
        self.verbose = verbose
        self.params = params
        self.init_params = init_params
        self.implementation = implementation
        self._initialise()

    def _covariance_shape(self) -> tuple[int, ...]:
        K, M, d = self.n_components, self.n_mix, self.n_features
        return {"spherical": (K, M), "diag": (K, M, d), "full": (K, M, d, d), "tied": (K, d, d)}[self.covariance_type]

    def _init(self, X: Any, lengths: Any = None) -> None:
        super()._init(X, lengths)
        K, M = self.n_components, self.n_mix
        if self.covariance_type not in COVARIANCE_TYPES:
            raise ValueError(f"covariance_type must be one of {sorted(COVARIANCE_TYPES)}")
        complete = filled(as_floats(X, "X"), None)
        if self._needs_init("w", "weights_"):
            self.weights_ = np.full((K, M), 1 / M)
        if self._needs_init("m", "means_"):
            self.means_ = self._start_means(complete)
        if self._needs_init("c", "covars_"):
            covariance = _start_covariance(complete, self.min_covar)
            template = {"spherical": covariance.mean(), "diag": covariance.diagonal()}
            template = template.get(self.covariance_type, covariance)
            self.covars_ = np.broadcast_to(template, self._covariance_shape()).copy()

    def _start_means(self, X: Data) -> Array:
        """Centres of clusters of clusters; of small ones, drawn from the distribution of all the data."""
        M = self.n_mix
        main = _kmeans(X, self.n_components, self.random_state)
        random_state, means = None, []
        for label in range(self.n_components):
            cluster = X[main.labels_ == label]
            if len(cluster) >= M:
                means.append(_kmeans(cluster, M, self.random_state).cluster_centers_)
                continue
            if random_state is None:
                random_state = check_random_state(self.random_state)
            centre = np.mean(main.cluster_centers_, axis=0)
            means.append(random_state.multivariate_normal(centre, _start_covariance(X, self.min_covar), size=M))
        return np.stack(means).astype(np.float64)

    def _priors(self) -> _GMMPriors:
        K, M, d = self.n_components, self.n_mix, self.n_features
        kind = self.covariance_type
        flat, flat_weight = {
            "full": (0.0, -(1.0 + d + 1.0)),
            "tied": (0.0, -(M + d + 1.0)),
            "diag": (-1.5, 0.0),
            "spherical": (-(d + 2.0) / 2.0, 0.0),
        }[kind]
        weight_shape = {"full": (K, M), "tied": (K,), "diag": (K, M, d), "spherical": (K, M)}[kind]

        def filled_in(value: Any, default: float, shape: tuple[int, ...]) -> Array:
            return np.broadcast_to(np.asarray(default if value is None else value, np.float64), shape)

        return _GMMPriors(
            filled_in(self.weights_prior, 1.0, (K, M)),
            filled_in(self.means_prior, 0.0, (K, M, d)),
            filled_in(self.means_weight, 0.0, (K, M)),
            filled_in(self.covars_prior, flat, self._covariance_shape()),
            filled_in(self.covars_weight, flat_weight, weight_shape),
        )

    def _check(self) -> None:
        super()._check()
        if not hasattr(self, "n_features"):
            self.n_features = np.shape(self.means_)[2]
        K, M, d = self.n_components, self.n_mix, self.n_features
        if self.covariance_type not in COVARIANCE_TYPES:
            raise ValueError(f"covariance_type must be one of {sorted(COVARIANCE_TYPES)}")
        self.weights_ = np.array(self.weights_)
        if self.weights_.shape != (K, M):
            raise ValueError(f"weights_ must have shape (n_components, n_mix), actual shape: {self.weights_.shape}")
        self._check_sum_1("weights_")
        self.means_ = np.array(self.means_)
        if self.means_.shape != (K, M, d):
            raise ValueError(
                f"means_ must have shape (n_components, n_mix, n_features), actual shape: {self.means_.shape}"
            )
        self.covars_ = np.array(self.covars_)
        if self.covars_.shape != self._covariance_shape():
            raise ValueError(
                f"{self.covariance_type!r} mixture covars must have shape {self._covariance_shape()}, "
                f"actual shape: {self.covars_.shape}"
            )
        if self.covariance_type in ("spherical", "diag"):
            if not self.covars_.min() >= 0:
                raise ValueError(f"{self.covariance_type!r} mixture covars must be non-negative")
            if not self.covars_.all():
                logger.warning("Degenerate mixture covariance")
            return
        for index in np.ndindex(self.covars_.shape[:-2]):
            covariance = self.covars_[index]
            whose = f"Covariance of state #{index[0]}" + (f", mixture #{index[1]}" if len(index) > 1 else "")
            if not np.allclose(covariance, covariance.T):
                raise ValueError(f"{whose} is not symmetric")
            least = np.linalg.eigvalsh(covariance).min()
            if least < 0 and not -least <= _SINGULAR:  # beyond what the density adds
                raise ValueError(f"{whose} is not positive definite")
            if least <= 0:
                logger.warning("%s has a null eigenvalue.", whose)

    def _get_n_fit_scalars_per_param(self) -> dict[str, int]:
        K, M, d = self.n_components, self.n_mix, self.n_features
        triangle = d * (d + 1) // 2
        covariances = {"spherical": K * M, "diag": K * M * d, "full": K * M * triangle, "tied": K * triangle}
        return {
            **self._free_probabilities(),
            "m": K * M * d,
            "c": covariances.get(self.covariance_type, 0),
            "w": K * (M - 1),
        }

    def _family(self) -> _StateMixtures:
        K, M, d = self.n_components, self.n_mix, self.n_features
        kind, covariances = self.covariance_type, np.asarray(self.covars_, np.float64)
        if kind == "tied":
            kind, covariances = "full", np.repeat(covariances, M, axis=0)
        else:
            covariances = covariances.reshape(K * M, *covariances.shape[2:])
        means = np.asarray(self.means_, np.float64).reshape(K * M, d)
        return _StateMixtures(np.asarray(self.weights_, np.float64), _gaussians(kind, means, covariances))

    def _model(self) -> HiddenMarkov:
        return _GMMHiddenMarkov(_distributions(self.startprob_), _distributions(self.transmat_), self._family())

    def _do_mstep(self, statistics: HMMStatistics) -> None:
        super()._do_mstep(statistics)
        K, M, d = self.n_components, self.n_mix, self.n_features
        found, priors, kind = statistics.components, self._priors(), self.covariance_type
        n = found.weight.reshape(K, M)
        count = _count(found).reshape(K, M, -1)
        mean = found.mean.reshape(K, M, d)
        before = np.asarray(self.means_, np.float64)
        pull = priors.means_weight[:, :, None]
        if "w" in self.params:
            self.weights_ = _shares(self.weights_, np.maximum(n + (priors.weights - 1), 0))
        if "m" in self.params:
            share = _ratio(pull, pull + count, 0.0)
            own = np.where(count > 0, mean, np.where(pull > 0, priors.means, before))
            self.means_ = own + share * (priors.means - own)
        if "c" not in self.params:
            return
        off, away = mean - before, self.means_ - priors.means
        if kind in ("diag", "spherical"):
            scatter = found.scatter.reshape(K, M, d) + count * off**2 + pull * away**2
            if kind == "diag":
                scatter = scatter + 2 * priors.covars_weight
                degrees = count + 1 + 2 * (priors.covars + 1)
            else:
                scatter = scatter.sum(axis=2) + 2 * priors.covars_weight
                degrees = np.broadcast_to(count, mean.shape).sum(axis=2) + d + 2 * (priors.covars + 1)
            self.covars_ = _ratio(scatter, degrees, self.covars_)
            return
        scatter = found.scatter.reshape(K, M, d, d) + n[:, :, None, None] * off[..., :, None] * off[..., None, :]
        scatter += pull[..., None] * away[..., :, None] * away[..., None, :]
        if kind == "tied":
            scatter = scatter.sum(axis=1)
            degrees = n.sum(axis=1) + M + priors.covars_weight + d + 1
        else:
            degrees = n + 1 + priors.covars_weight + d + 1
        self.covars_ = _ratio(priors.covars.mT + scatter, degrees[..., None, None], self.covars_)

    def _sampler(self) -> Sampler:
        d, covariances = self.n_features, np.asarray(self.covars_, np.float64)
        means, kind = np.asarray(self.means_, np.float64), self.covariance_type
        edges = self.weights_.cumsum(axis=1)
        edges /= edges[:, -1:]
        if kind == "spherical":
            covariances = covariances[:, :, None, None] * np.eye(d)
        elif kind == "diag":
            covariances = covariances[..., None] * np.eye(d)
        elif kind == "tied":
            covariances = np.repeat(covariances[:, None], self.n_mix, axis=1)
        roots = _roots(covariances)

        def draw(state: int, generator: np.random.RandomState) -> Array:
            component = int(np.searchsorted(edges[state], generator.random_sample(), side="right"))
            return _normal(means[state, component], roots[state, component], generator)

        return draw


# ---- counts and codes ------------------------------------------------------------------------------------------------


def _codes(X: Any, what: str) -> NDArray[Any]:
    """The values that are not missing, which must be integers; floats only where some are missing."""
    if np.issubdtype(X.dtype, np.integer):
        return np.asarray(X)
    values = X[~np.isnan(X)] if X.dtype.kind == "f" else X
    if X.dtype.kind != "f" or values.size == X.size or not values.size or (np.floor(values) != values).any():
        raise ValueError(f"{what} should be integers")
    return np.asarray(values)


class CategoricalHMM(_BaseHMM):
    """Hidden Markov model with categorical emissions, as ``hmmlearn.hmm.CategoricalHMM``.

    ``X`` has shape (n_samples, 1) and holds codes 0, 1, ..., n_features - 1.

    Parameters
    ----------
    n_components : int
        Number of states, K.
    startprob_prior : float or array (K,)
        Parameters of the Dirichlet prior of ``startprob_``; 1 for none.
    transmat_prior : float or array (K, K)
        The same of the rows of ``transmat_``.
    emissionprob_prior : float or array (K, n_features)
        The same of the rows of ``emissionprob_``.
    n_features : int, optional
        Number of codes. Default: the largest code of the first fit plus 1, which is kept.
    algorithm : {"viterbi", "map"}
        What `decode` and `predict` use.
    random_state : int, RandomState or None
    n_iter : int
        Largest number of EM iterations.
    tol : float
        EM stops where an iteration gains less log-likelihood.
    verbose : bool
        Report each iteration through the logger ``fastgen``.
    params, init_params : str
        What is fitted, and what is set at random before: "s" ``startprob_``, "t" ``transmat_``, "e"
        ``emissionprob_``.
    implementation : {"log", "scaling"}
        Accepted for compatibility: the result is the same.

    Attributes
    ----------
    startprob_ : array (K,)
    transmat_ : array (K, K)
    emissionprob_ : array (K, n_features)
    monitor_ : ConvergenceMonitor
    history_, stop_reason_, log_likelihood_
        See `GaussianHMM`.
    """

    _letters = "ste"
    emissionprob_: Any

    def __init__(
        self,
        n_components: int = 1,
        startprob_prior: Any = 1.0,
        transmat_prior: Any = 1.0,
        *,
        emissionprob_prior: Any = 1.0,
        n_features: int | None = None,
        algorithm: str = "viterbi",
        random_state: Any = None,
        n_iter: int = 10,
        tol: float = 1e-2,
        verbose: bool = False,
        params: str = "ste",
        init_params: str = "ste",
        implementation: str = "log",
    ) -> None:
        self.n_components = n_components
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.emissionprob_prior = emissionprob_prior
        self.n_features = n_features
        self.algorithm = algorithm
        self.random_state = random_state
        self.n_iter = n_iter
        self.tol = tol
        self.verbose = verbose
        self.params = params
        self.init_params = init_params
        self.implementation = implementation
        self._initialise()

    def _arrange(self, X: Any, lengths: Any) -> tuple[Any, Any]:
        if X.shape[1] == 1:
            return X, lengths
        import warnings

        warnings.warn("Inputs of shape other than (n_samples, 1) are deprecated.", DeprecationWarning, stacklevel=5)
        return X.reshape(-1, 1), None if lengths is None else np.asarray(lengths) * X.shape[1]

    def _check_and_set_n_features(self, X: Any) -> None:
        values = _codes(X, "Symbols")
        if values.min() < 0:
            raise ValueError("Symbols should be nonnegative")
        largest = int(values.max())
        if self.n_features is None:
            self.n_features = largest + 1
        elif self.n_features - 1 < largest:
            raise ValueError(
                f"Largest symbol is {largest} but the model only emits symbols up to {self.n_features - 1}"
            )

    def _init(self, X: Any, lengths: Any = None) -> None:
        super()._init(X, lengths)
        if self._needs_init("e", "emissionprob_"):
            random_state = check_random_state(self.random_state)
            p = random_state.rand(self.n_components, self.n_features)
            self.emissionprob_ = p / p.sum(axis=1, keepdims=True)

    def _check(self) -> None:
        super()._check()
        self.emissionprob_ = np.atleast_2d(self.emissionprob_)
        if self.n_features is None:
            self.n_features = self.emissionprob_.shape[1]
        if self.emissionprob_.shape != (self.n_components, self.n_features):
            raise ValueError(f"emissionprob_ must have shape ({self.n_components}, {self.n_features})")
        self._check_sum_1("emissionprob_")

    def _get_n_fit_scalars_per_param(self) -> dict[str, int]:
        return {**self._free_probabilities(), "e": self.n_components * (self.n_features - 1)}

    def _family(self) -> Any:
        return families.Categorical(probabilities=_distributions(self.emissionprob_)[:, None, :])

    def _do_mstep(self, statistics: HMMStatistics) -> None:
        super()._do_mstep(statistics)
        if "e" in self.params:
            counts = statistics.components.counts[:, 0]
            counts = np.pad(counts, [(0, 0), (0, self.n_features - counts.shape[1])])
            self.emissionprob_ = _shares(
                self.emissionprob_, np.maximum(np.asarray(self.emissionprob_prior, np.float64) - 1 + counts, 0)
            )

    def _sampler(self) -> Sampler:
        edges = np.cumsum(self.emissionprob_, axis=1)
        return lambda state, generator: [_first_above(edges[state], generator.rand())]


class MultinomialHMM(_BaseHMM):
    """Hidden Markov model with multinomial emissions, as ``hmmlearn.hmm.MultinomialHMM``.

    ``X`` has shape (n_samples, n_features): how often each outcome came up in the trials of each sample.

    Parameters
    ----------
    n_components : int
        Number of states, K.
    n_trials : int or array (n_samples,), optional
        Trials of each sample. Default: the sums of the rows of the first fit, which are kept. To `sample`, all must be
        the same.
    startprob_prior : float or array (K,)
        Parameters of the Dirichlet prior of ``startprob_``; 1 for none.
    transmat_prior : float or array (K, K)
        The same of the rows of ``transmat_``.
    algorithm : {"viterbi", "map"}
        What `decode` and `predict` use.
    random_state : int, RandomState or None
    n_iter : int
        Largest number of EM iterations.
    tol : float
        EM stops where an iteration gains less log-likelihood.
    verbose : bool
        Report each iteration through the logger ``fastgen``.
    params, init_params : str
        What is fitted, and what is set at random before: "s" ``startprob_``, "t" ``transmat_``, "e"
        ``emissionprob_``.
    implementation : {"log", "scaling"}
        Accepted for compatibility: the result is the same.

    Attributes
    ----------
    startprob_ : array (K,)
    transmat_ : array (K, K)
    emissionprob_ : array (K, n_features)
    n_features : int
    monitor_ : ConvergenceMonitor
    history_, stop_reason_, log_likelihood_
        See `GaussianHMM`.
    """

    _letters = "ste"
    emissionprob_: Any

    def __init__(
        self,
        n_components: int = 1,
        n_trials: Any = None,
        startprob_prior: Any = 1.0,
        transmat_prior: Any = 1.0,
        algorithm: str = "viterbi",
        random_state: Any = None,
        n_iter: int = 10,
        tol: float = 1e-2,
        verbose: bool = False,
        params: str = "ste",
        init_params: str = "ste",
        implementation: str = "log",
    ) -> None:
        self.n_components = n_components
        self.n_trials = n_trials
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.algorithm = algorithm
        self.random_state = random_state
        self.n_iter = n_iter
        self.tol = tol
        self.verbose = verbose
        self.params = params
        self.init_params = init_params
        self.implementation = implementation
        self._initialise()

    def _check_and_set_n_features(self, X: Any) -> None:
        super()._check_and_set_n_features(X)
        if not np.issubdtype(X.dtype, np.integer) or X.min() < 0:
            raise ValueError("Symbol counts should be nonnegative integers")
        trials = X.sum(axis=1)
        if self.n_trials is None:
            self.n_trials = trials
        elif np.ndim(self.n_trials) and np.shape(self.n_trials) != trials.shape:
            raise ValueError(f"n_trials has shape {np.shape(self.n_trials)}, but X has {len(X)} samples")
        elif not (trials == self.n_trials).all():
            raise ValueError("Total count for each sample should add up to the number of trials")

    def _init(self, X: Any, lengths: Any = None) -> None:
        super()._init(X, lengths)
        if self._needs_init("e", "emissionprob_"):
            random_state = check_random_state(self.random_state)
            p = random_state.rand(self.n_components, self.n_features)
            self.emissionprob_ = p / p.sum(axis=1, keepdims=True)

    def _check(self) -> None:
        super()._check()
        self.emissionprob_ = np.atleast_2d(self.emissionprob_)
        n_features = getattr(self, "n_features", self.emissionprob_.shape[1])
        if self.emissionprob_.shape != (self.n_components, n_features):
            raise ValueError("emissionprob_ must have shape (n_components, n_features)")
        self.n_features = n_features
        self._check_sum_1("emissionprob_")
        if self.n_trials is None:
            raise ValueError("n_trials must be set")

    def _get_n_fit_scalars_per_param(self) -> dict[str, int]:
        return {**self._free_probabilities(), "e": self.n_components * (self.n_features - 1)}

    def _family(self) -> Any:
        return families.Multinomial(probabilities=_distributions(self.emissionprob_))

    def _do_mstep(self, statistics: HMMStatistics) -> None:
        super()._do_mstep(statistics)
        if "e" in self.params:
            self.emissionprob_ = _shares(self.emissionprob_, statistics.components.total)

    def _sampler(self) -> Sampler:
        trials = np.unique(self.n_trials)
        if len(trials) != 1:
            raise ValueError("For sampling, a single n_trials must be given")
        p = np.array(self.emissionprob_, np.float64)
        p[:, -1] = np.maximum(1 - p[:, :-1].sum(axis=1), 0)  # as scipy.stats.multinomial does
        return lambda state, generator: generator.multinomial(trials[0], p[state])


class PoissonHMM(_BaseHMM):
    """Hidden Markov model with independent Poisson emissions, as ``hmmlearn.hmm.PoissonHMM``.

    Parameters
    ----------
    n_components : int
        Number of states, K.
    startprob_prior : float or array (K,)
        Parameters of the Dirichlet prior of ``startprob_``; 1 for none.
    transmat_prior : float or array (K, K)
        The same of the rows of ``transmat_``.
    lambdas_prior, lambdas_weight : float or array (K,) or (K, d)
        Prior of the rates: they are (``lambdas_prior`` + sum of the counts) / (``lambdas_weight`` + number of
        observations), the mean under a gamma prior with these parameters alpha and beta. Default: maximum likelihood.
    algorithm : {"viterbi", "map"}
        What `decode` and `predict` use.
    random_state : int, RandomState or None
    n_iter : int
        Largest number of EM iterations.
    tol : float
        EM stops where an iteration gains less log-likelihood.
    verbose : bool
        Report each iteration through the logger ``fastgen``.
    params, init_params : str
        What is fitted, and what is set at random before: "s" ``startprob_``, "t" ``transmat_``, "l" ``lambdas_``.
    implementation : {"log", "scaling"}
        Accepted for compatibility: the result is the same.

    Attributes
    ----------
    startprob_ : array (K,)
    transmat_ : array (K, K)
    lambdas_ : array (K, d)
    n_features : int
    monitor_ : ConvergenceMonitor
    history_, stop_reason_, log_likelihood_
        See `GaussianHMM`.
    """

    _letters = "stl"
    lambdas_: Any

    def __init__(
        self,
        n_components: int = 1,
        startprob_prior: Any = 1.0,
        transmat_prior: Any = 1.0,
        lambdas_prior: Any = 0.0,
        lambdas_weight: Any = 0.0,
        algorithm: str = "viterbi",
        random_state: Any = None,
        n_iter: int = 10,
        tol: float = 1e-2,
        verbose: bool = False,
        params: str = "stl",
        init_params: str = "stl",
        implementation: str = "log",
    ) -> None:
        self.n_components = n_components
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.lambdas_prior = lambdas_prior
        self.lambdas_weight = lambdas_weight
        self.algorithm = algorithm
        self.random_state = random_state
        self.n_iter = n_iter
        self.tol = tol
        self.verbose = verbose
        self.params = params
        self.init_params = init_params
        self.implementation = implementation
        self._initialise()

    def _init(self, X: Any, lengths: Any = None) -> None:
        super()._init(X, lengths)
        if self._needs_init("l", "lambdas_"):
            values = X[~np.isnan(X)] if X.dtype.kind == "f" and np.isnan(X).any() else X
            mean, variance = float(np.mean(values)), float(np.var(values))
            shape = self.n_components, self.n_features
            if not 0 < mean < np.inf or not variance > 0:
                self.lambdas_ = np.full(shape, mean)
            else:
                random_state = check_random_state(self.random_state)
                self.lambdas_ = random_state.gamma(mean**2 / variance, variance / mean, shape)

    def _check(self) -> None:
        super()._check()
        self.lambdas_ = np.atleast_2d(self.lambdas_)
        n_features = getattr(self, "n_features", self.lambdas_.shape[1])
        if self.lambdas_.shape != (self.n_components, n_features):
            raise ValueError("lambdas_ must have shape (n_components, n_features)")
        self.n_features = n_features

    def _get_n_fit_scalars_per_param(self) -> dict[str, int]:
        return {**self._free_probabilities(), "l": self.n_components * self.n_features}

    def _family(self) -> Any:
        return families.Poisson(rates=self.lambdas_)

    def _do_mstep(self, statistics: HMMStatistics) -> None:
        super()._do_mstep(statistics)
        if "l" in self.params:
            K, found = self.n_components, statistics.components
            alpha, beta = _per_state(self.lambdas_prior, K), _per_state(self.lambdas_weight, K)
            self.lambdas_ = _ratio(alpha + found.total, beta + found.count, self.lambdas_)

    def _sampler(self) -> Sampler:
        rates = np.asarray(self.lambdas_, np.float64)
        return lambda state, generator: generator.poisson(rates[state])
