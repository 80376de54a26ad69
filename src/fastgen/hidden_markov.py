"""Hidden Markov models over any family, with constraints, partial labels, and every kind of inference."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral, Real
from typing import Any, NamedTuple, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.random import sample_without_replacement
from sklearn.utils.validation import check_is_fitted

from fastgen import _mixture_em, families
from fastgen._em import Fit, expectation_maximisation
from fastgen._estimator import FastgenEstimator, atomic
from fastgen._hmm_em import HiddenMarkov, HMMStatistics, Sequences
from fastgen._hmm_recursions import as_chain
from fastgen._kernels import _hmm
from fastgen._missing import Index
from fastgen._mixture_em import MixtureStatistics, Source
from fastgen._progress import Progress
from fastgen._transitions import ChainStep, stationary_distribution
from fastgen._validation import Array, Data, as_floats, as_generator, as_weights, check_choice, check_number
from fastgen.errors import ComponentError, EmptyComponentError
from fastgen.mixture import Mixture, _distinct, _regularised

__all__ = ["HMM", "Decoded", "Filter", "Forecast"]

_INIT_PARAMS = ("kmeans", "k-means++", "random", "random_from_data")
_TOPOLOGIES = ("left-right", "cyclic")
_OF_ALL_ROWS = 0.01
"""Weight of all rows in the start of each component, relative to the weight of its own rows."""


class Decoded(NamedTuple):
    """Paths of states."""

    log_prob: Array
    """log p(path, sequence), in nats: (S,) of each sequence, or (k,) of each path"""
    path: Index
    """(n,), or (k, n); -1 where a path is impossible"""


@dataclass(frozen=True)
class Forecast:
    """What is expected after the end of each sequence."""

    states: Array
    """(S, h, K) p(state 1, ..., h steps after the end)"""
    model: HiddenMarkov

    def density(self, sequence: int = 0, step: int = 1) -> Mixture:
        """p(x) so many steps after the end of a sequence: a fitted `fastgen.Mixture`, to score, sample or condition."""
        S, h, _ = self.states.shape
        if not (0 <= sequence < S and 1 <= step <= h):
            raise ValueError(f"sequence must be 0, ..., {S - 1} and step 1, ..., {h}; got {sequence} and {step}")
        if self.model.fixed is not None:
            raise NotImplementedError("a model with emission_fixed has no density as one mixture: use states")
        weights = self.model.shares(self.states[sequence, step - 1][None])[0]
        family = self.model.family
        result = Mixture(family, len(weights))
        result._mixture = _mixture_em.Mixture(weights, family)
        result._adopt(result._mixture, np.dtype(np.float64))
        result.n_features_in_ = family.n_features
        return result


class HMM(FastgenEstimator):
    """A hidden Markov model: p(z_1) prod_t p(z_t | z_{t-1}) prod_t p(x_t | z_t), with any family of emissions.

    Fitted by EM (Baum-Welch). NaN in X is a value missing at random: it is marginalised exactly, if the family does so.
    A row of NaN is a step at which nothing was seen.

    Parameters
    ----------
    family : a family of `fastgen.families`, optional
        Without parameters: `families.Gaussian("full")` (the default), `Poisson()`, `Categorical()`, `StudentT()`,
        `Product` for columns of different kinds, `Custom` for your own density. With parameters (n_components of them):
        they are the start, and ``init_params`` only serves the chain.
    n_components : int, default=1
        States, K.
    transition_mask : {"left-right", "cyclic"} or bool array (K, K), optional
        Transitions that are possible. left-right: stay or go to the next state, starting in state 0; cyclic: the same,
        and from the last to the first. Impossible ones are exactly 0.
    start_mask : bool array (K,), optional
    startprob_init, transmat_init : arrays (K,), (K, K), optional
        Where EM starts. Zeros stay zeros, whatever the pseudo-counts: they are what the masks do not allow.
    startprob_fixed, transmat_fixed : arrays (K,), (K, K), optional
        Values that are not fitted; NaN where they are.
    startprob_ties, transmat_ties : integer arrays (K,), (K, K), optional
        Entries with the same number (not negative) are equal.
    emission_ties : integer array (K,), optional
        States with the same number share one component of the family.
    emission_fixed : dict, optional
        {state: family with the parameters of one component}: emissions that are not fitted.
    start_pseudo_count, transition_pseudo_count : float or array, default=0
        Added to expected counts (Dirichlet priors with parameters 1 + these), where the masks and the start's zeros
        allow.
    stationary_start : bool, default=False
        The start is the stationary distribution of the chain, in the M-step too.
    tol : float, default=1e-6
        EM makes its last iteration after one that gains less, in mean objective per step.
    max_iter : int, default=1000
    n_init : int, default=1
        Starts; the best result is kept.
    init_params : {"kmeans", "k-means++", "random", "random_from_data"}, default="kmeans"
        First states of the rows, as in `fastgen.Mixture`; their transitions start the chain. States with labels start
        from the rows of these instead. To each state's rows, a little of all rows is added.
    reseed : bool, default=True
        Give a state that is never visited the rows that the model explains least, and transitions to and from it;
        otherwise EM ends there.
    random_state : None, int or RandomState
    warm_start : bool, default=False
        Start from the parameters of the last fit, under the constraints of this one.
    checkpoints : bool, default=False
        Fit in memory for O(sqrt(T) K) numbers beyond X, of a sequence of length T, instead of O(T K): long sequences
        are gone through forward twice. Gaussian emissions without missing values rarely need it: where states are
        forgotten, the E-step works on short pieces anyway.
    verbose : int, default=0
        1 or 2: progress, through the logger ``fastgen``.
    verbose_interval : int, default=10

    Attributes
    ----------
    startprob_, transmat_ : arrays (K,), (K, K)
    family_ : the family with its parameters; with ``emission_ties`` or ``emission_fixed``, of the fitted components
    state_components_ : integer array (K,)
        Which component of ``family_`` each state emits; -1 for the states of ``emission_fixed``.
    converged_, n_iter_, stop_reason_
        ``converged``, ``max_iter``, ``interrupted``, ``degenerate`` (a state's emissions collapsed) or ``decreased``
        (which should not happen).
    history_ : array (n_iter_ + 1,)
        Mean log-likelihood per step (with the logarithms of the priors) at the start and after each iteration.
    lower_bound_ : float
        The last of them: that of the parameters that are returned.
    optima_ : list of (float, int)
        Distinct objectives that the starts ended with, best first, and how many did.
    statistics_ : the statistics under these parameters
    n_features_in_, feature_names_in_

    Examples
    --------
    >>> import numpy as np
    >>> from fastgen import HMM, families
    >>> counts = np.array([1, 0, 2, 1, 9, 11, 10, 8, 12, 0, 1, 2, 0, 1.0])[:, None]
    >>> model = HMM(families.Poisson(), 2, random_state=0).fit(counts)
    >>> model.predict(counts).tolist() in ([0] * 4 + [1] * 5 + [0] * 5, [1] * 4 + [0] * 5 + [1] * 5)
    True
    """

    _model_: HiddenMarkov

    def __init__(
        self,
        family: Any = None,
        n_components: int = 1,
        *,
        transition_mask: Any = None,
        start_mask: ArrayLike | None = None,
        startprob_init: ArrayLike | None = None,
        transmat_init: ArrayLike | None = None,
        startprob_fixed: ArrayLike | None = None,
        transmat_fixed: ArrayLike | None = None,
        startprob_ties: ArrayLike | None = None,
        transmat_ties: ArrayLike | None = None,
        emission_ties: ArrayLike | None = None,
        emission_fixed: Mapping[int, Any] | None = None,
        start_pseudo_count: ArrayLike = 0.0,
        transition_pseudo_count: ArrayLike = 0.0,
        stationary_start: bool = False,
        tol: float = 1e-6,
        max_iter: int = 1000,
        n_init: int = 1,
        init_params: str = "kmeans",
        reseed: bool = True,
        random_state: Any = None,
        warm_start: bool = False,
        checkpoints: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
    ) -> None:
        self.family = family
        self.n_components = n_components
        self.transition_mask = transition_mask
        self.start_mask = start_mask
        self.startprob_init = startprob_init
        self.transmat_init = transmat_init
        self.startprob_fixed = startprob_fixed
        self.transmat_fixed = transmat_fixed
        self.startprob_ties = startprob_ties
        self.transmat_ties = transmat_ties
        self.emission_ties = emission_ties
        self.emission_fixed = emission_fixed
        self.start_pseudo_count = start_pseudo_count
        self.transition_pseudo_count = transition_pseudo_count
        self.stationary_start = stationary_start
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.reseed = reseed
        self.random_state = random_state
        self.warm_start = warm_start
        self.checkpoints = checkpoints
        self.verbose = verbose
        self.verbose_interval = verbose_interval

    # Data -------------------------------------------------------------------------------------------------------------

    def _sequences(
        self,
        X: Any,
        lengths: ArrayLike | None,
        groups: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        labels: Any = None,
        *,
        reset: bool = False,
    ) -> Sequences:
        """X with lengths, with groups, or a list of arrays."""
        parts = X if isinstance(X, (list, tuple)) and all(getattr(part, "ndim", 0) == 2 for part in X) else None
        if parts is not None:
            if lengths is not None or groups is not None:
                raise ValueError("a list of sequences has its own lengths: give no lengths or groups")
            lengths = [len(part) for part in parts]
            if labels is not None and len(labels) == len(parts) and all(np.ndim(part) == 1 for part in labels):
                if [len(part) for part in labels] != lengths:
                    raise ValueError("labels must be as long as their sequences")
                labels = np.concatenate([np.empty(0, np.intp), *(part for part in labels if len(part))])
            full = [np.asarray(part) for part in parts if len(part)]
            if not full:
                return Sequences(np.empty((0, 0 if reset else self.n_features_in_)), lengths)
            if len({part.shape[1] for part in full}) > 1:
                raise ValueError(f"sequences have different numbers of columns: {sorted({p.shape[1] for p in full})}")
            X = np.concatenate(full)
        data = self._check_data(X, reset=reset)
        if groups is not None:
            if lengths is not None:
                raise ValueError("give lengths or groups, not both")
            group = np.asarray(groups)
            if group.shape != (len(data),):
                raise ValueError(f"groups must have shape ({len(data)},), got {group.shape}")
            edges = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1], [True]]))
            lengths = np.diff(edges)
        S = 1 if lengths is None else np.size(lengths)
        weights = as_weights(sample_weight, S) if sample_weight is not None else None
        return Sequences(data, lengths, weights, self._labels(labels, len(data)), checkpoints=self.checkpoints)

    def _labels(self, labels: Any, n: int) -> NDArray[np.intp] | None:
        if labels is None:
            return None
        array = np.asarray(labels)
        if array.shape != (n,) or array.dtype.kind not in "iu":
            raise ValueError(
                f"labels must be {n} integers, a state or -1 for each row, got {array.dtype} {array.shape}"
            )
        if array.size and (array.min() < -1 or array.max() >= self.n_components):
            raise ValueError(f"labels must be states 0, ..., {self.n_components - 1}, or -1 where unknown")
        return np.ascontiguousarray(array, np.intp)

    # Parameters of the fit --------------------------------------------------------------------------------------------

    def _check_parameters(self) -> None:
        check_number(self.n_components, "n_components", Integral, 1)
        check_number(self.tol, "tol", Real, 0)
        check_number(self.max_iter, "max_iter", Integral, 0)
        check_number(self.n_init, "n_init", Integral, 1)
        check_number(self.verbose_interval, "verbose_interval", Integral, 1)
        check_choice(self.init_params, "init_params", _INIT_PARAMS)

    def _chain_step(self) -> ChainStep:
        K = self.n_components
        mask, start_mask = np.ones((K, K), bool), np.ones(K, bool)
        if isinstance(self.transition_mask, str):
            check_choice(self.transition_mask, "transition_mask", _TOPOLOGIES)
            stay = np.eye(K, dtype=bool)
            mask = stay | np.roll(stay, 1, axis=1)
            if self.transition_mask == "left-right":
                mask &= np.triu(mask)
                start_mask = np.arange(K) == 0
        elif self.transition_mask is not None:
            mask = _as_mask(self.transition_mask, "transition_mask", (K, K))
        if self.start_mask is not None:
            start_mask = _as_mask(self.start_mask, "start_mask", (K,))
        if not mask.any(axis=1).all() or not start_mask.any():
            raise ValueError("each state needs a transition that the mask allows, and the start a state")
        fixed = _as_fixed(self.transmat_fixed, "transmat_fixed", mask)
        start_fixed = _as_fixed(self.startprob_fixed, "startprob_fixed", start_mask)
        mask = _without_zeros(mask, self.transmat_init, "transmat_init", fixed)
        start_mask = _without_zeros(start_mask, self.startprob_init, "startprob_init", start_fixed)
        pseudo = np.where(mask, _as_pseudo_count(self.transition_pseudo_count, "transition_pseudo_count", (K, K)), 0.0)
        first = np.where(start_mask, _as_pseudo_count(self.start_pseudo_count, "start_pseudo_count", (K,)), 0.0)
        ties = _as_ties(self.transmat_ties, "transmat_ties", (K, K))
        start_ties = _as_ties(self.startprob_ties, "startprob_ties", (K,))
        constrained = (fixed, start_fixed, ties, start_ties, self.start_mask, self.startprob_init)
        if self.stationary_start and any(part is not None for part in constrained):
            raise ValueError(
                "stationary_start leaves nothing to choose of the start, and does not go with fixed or tied entries"
            )
        return ChainStep(
            start_mask, mask, first, pseudo, start_fixed, fixed, start_ties, ties, bool(self.stationary_start)
        )

    def _emission_map(self) -> tuple[int, Index | None, Any]:
        """Number of fitted components, which component each state emits, and the family of fixed ones."""
        K = self.n_components
        ties = _as_ties(self.emission_ties, "emission_ties", (K,))
        given = dict(self.emission_fixed or {})
        if ties is None and not given:
            return K, None, None
        if any(state not in range(K) for state in given):
            raise ValueError(f"emission_fixed must have states 0, ..., {K - 1} as keys, got {list(given)}")
        if given and ties is not None and any(ties[state] >= 0 for state in given):
            raise ValueError("a state's emission cannot be both tied and fixed")
        numbers = np.arange(K) + K if ties is None else np.where(ties >= 0, ties, np.arange(K) + K + ties.max() + 1)
        free = [state for state in range(K) if state not in given]
        components, emits = np.unique(numbers[free], return_inverse=True)
        result = np.empty(K, np.intp)
        result[free] = emits
        if not len(components):
            raise ValueError("emission_fixed leaves no emission to fit")
        fixed = None
        if given:
            if any(getattr(family, "n_components", 0) != 1 for family in given.values()):
                raise ValueError("each of emission_fixed must be a family with the parameters of one component")
            fixed = _Joined([given[state] for state in sorted(given)])
            result[sorted(given)] = len(components) + np.arange(len(given))
        return len(components), result, fixed

    # Fit --------------------------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        y: object = None,
        *,
        lengths: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        labels: Any = None,
    ) -> Self:
        """Fit by EM.

        Parameters
        ----------
        X : array (n, d), or list of arrays (n_i, d)
            Sequences one after the other, or one by one. NaN is a missing value.
        y : ignored
        lengths : array (S,) of int, optional
            Of the sequences in X. Default: one sequence.
        groups : array (n,), optional
            Instead of ``lengths``: a new sequence begins wherever the value changes. This is what scikit-learn's group
            splitters pass on, if asked to: ``model.set_fit_request(groups=True)``.
        sample_weight : array (S,), optional
            Of sequences. A weight of 2 is the same as the sequence twice.
        labels : integer array (n,), or list of arrays, optional
            States that are known, -1 where they are not.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Infinity in X, parameters that are not what they must be, a sequence that the start gives probability 0 (the
            row is named).

        Notes
        -----
        O(n K (K + cost of a density)) for each iteration. Ctrl-C ends the iterations; what there is is kept.
        """
        self._fit(X, lengths, groups, sample_weight, labels)
        return self

    @atomic
    def _fit(self, X: Any, lengths: Any, groups: Any, sample_weight: Any, labels: Any) -> None:
        warm = self._model() if self.warm_start and hasattr(self, "_model_") else None
        if warm is None:
            self._forget()
        self._check_parameters()
        sequences = self._sequences(X, lengths, groups, sample_weight, labels, reset=True)
        n = len(sequences.X) if sequences.row_weights is None else int(np.count_nonzero(sequences.row_weights))
        if n < 2:
            raise ValueError(f"Found array with {n} sample(s) while a minimum of 2 is required by HMM")
        if n < self.n_components:
            raise ValueError(f"there are {self.n_components} states, but only {n} steps")
        family = families.Gaussian() if self.family is None else self.family
        if not all(hasattr(type(family), name) for name in ("log_density", "statistics", "maximise", "sample")):
            raise TypeError(f"family must be one of fastgen.families, got {family!r}")
        step = self._chain_step()
        given = self.n_components, sequences.X.shape[1]
        if warm is not None and (len(warm.startprob), warm.family.n_features) != given:
            raise ValueError("warm_start needs the number of states and features of the last fit")
        if warm is not None:
            warm = self._go_on(warm, step)
        random_state = check_random_state(self.random_state)
        progress = Progress(self.verbose, self.verbose_interval)
        n_init = 1 if warm is not None else self.n_init
        best: Fit | None = None
        objectives = []
        for number in range(n_init):
            progress.start(number, n_init)
            start = warm if warm is not None else self._start(family, sequences, step, random_state)
            fit = self._run(start, sequences, step, progress)
            objectives.append(fit.history[-1])
            if best is None or fit.history[-1] > best.history[-1]:
                best = fit
            if fit.stop_reason == "interrupted":
                break
        self._finish(cast(Fit, best), objectives)

    def _go_on(self, last: HiddenMarkov, step: ChainStep) -> HiddenMarkov:
        """The last parameters, under the constraints of this fit."""
        _, emits, fixed = self._emission_map()
        model = HiddenMarkov(*step.project(last.startprob, last.transmat), last.family, emits, fixed)
        if not np.array_equal(_state_components(model), _state_components(last)):
            raise ValueError("warm_start needs the emission_ties, and the states of emission_fixed, of the last fit")
        return model

    def _start(self, family: Any, sequences: Sequences, step: ChainStep, random_state: Any) -> HiddenMarkov:
        """One start: states from clusters, transitions from their order."""
        K = self.n_components
        X, weights = sequences.X, sequences.row_weights
        G, emits, fixed = self._emission_map()
        if not _has_parameters(family):
            family = self._start_family(family, sequences, G, emits, random_state)
        elif family.n_components != G:
            raise ValueError(f"family has {family.n_components} components, but {G} are needed")
        model = HiddenMarkov(np.full(K, 1 / K), np.full((K, K), 1 / K), family, emits, fixed)
        first, counts = np.ones(K), np.ones((K, K))
        if K > 1:
            state = model.log_density(Sequences(X, sequences.lengths, None, sequences.labels)).argmax(axis=1)
            w = np.ones(len(X)) if weights is None else weights
            offsets = sequences.layout.offsets
            begins = np.zeros(len(X), bool)
            begins[offsets[:-1][np.diff(offsets) > 0]] = True
            inner = np.flatnonzero(~begins)
            np.add.at(counts, (state[inner - 1], state[inner]), w[inner])
            np.add.at(first, state[begins], w[begins])
        if self.startprob_init is not None:
            first = np.asarray(self.startprob_init, np.float64)
        if self.transmat_init is not None:
            counts = np.asarray(self.transmat_init, np.float64)
        return HiddenMarkov(*step.project(first, counts), family, emits, fixed)

    def _start_family(self, family: Any, sequences: Sequences, G: int, emits: Index | None, random_state: Any) -> Any:
        """Components from the rows that are known to be theirs; without these, from clusters or at random.

        A little of all rows is added to each: few rows have no covariance, and what they lack is not impossible.
        """
        from scipy.optimize import linear_sum_assignment

        X, weights = sequences.X, sequences.row_weights
        known = np.full(len(X), -1) if sequences.labels is None else sequences.labels
        if emits is not None:
            known = np.where((known >= 0) & (emits[known] < G), emits[known], -1)
        if weights is not None:
            known = np.where(weights > 0, known, -1)
        if len(X) > _mixture_em._START_ROWS:
            rows = sample_without_replacement(len(X), _mixture_em._START_ROWS, random_state=random_state)
            more = np.flatnonzero(known >= 0)
            if len(more) > len(rows):
                more = random_state.choice(more, len(rows), replace=False)
            rows = np.union1d(rows, more)
            X, known, weights = X[rows], known[rows], None if weights is None else weights[rows]
        w = np.ones(len(X)) if weights is None else weights
        certain = np.flatnonzero(known >= 0)
        sizes = np.bincount(known[certain], minlength=G)
        shares = np.zeros((len(X), G))
        if sizes.all():
            pass
        elif self.init_params == "random":
            shares = random_state.uniform(size=shares.shape)
            shares /= shares.sum(axis=1, keepdims=True)
        else:
            cluster = _mixture_em.starting_labels(X, weights, G, self.init_params, random_state)
            both = np.zeros((G, G))
            np.add.at(both, (cluster[certain], known[certain]), 1.0)
            component = linear_sum_assignment(both, maximize=True)[1]
            shares[np.arange(len(X)), component[cluster]] = 1.0
        shares[:, sizes > 0] = 0.0
        shares[certain] = np.eye(G)[known[certain]]
        shares *= w[:, None]
        shares += np.outer(w / w.sum(), _OF_ALL_ROWS * np.maximum(shares.sum(axis=0), w.mean()))
        try:
            return family.maximise(family.statistics(X, shares))
        except ComponentError:
            raise
        except ValueError:
            family.statistics(sequences.X)  # where it is in X, not among some of its rows
            raise

    def _run(self, start: HiddenMarkov, sequences: Sequences, step: ChainStep, progress: Progress) -> Fit:
        lengths, weights = sequences.lengths, sequences.weights
        total = float(lengths.sum() if weights is None else weights @ lengths)
        regularised = _regularised(start.family)
        reseeded = False

        def e_step(model: HiddenMarkov) -> tuple[float, HMMStatistics]:
            statistics = model.e_step(sequences)
            prior = step.penalty(model.startprob, model.transmat)
            if not regularised:
                prior += model.family.penalty(statistics.components)
            return (statistics.log_likelihood + prior) / total, statistics

        def m_step(model: HiddenMarkov, statistics: HMMStatistics, **options: Any) -> HiddenMarkov:
            nonlocal reseeded
            components, first, counts = statistics.components, statistics.start, statistics.transitions
            reseeded = False
            empty = _mixture_em.empty_components(MixtureStatistics(0.0, components))
            if len(empty):
                if not self.reseed:
                    raise EmptyComponentError(int(empty[0]), remedy="Use fewer states, another start, or reseed=True.")
                weight = np.maximum(components.weight, 1e-300)
                mixture = _mixture_em.Mixture(_mixture_em.shares(weight), model.family)
                source = Source.of_array(sequences.X, sequences.row_weights)
                components = _mixture_em.reseed(source, mixture, MixtureStatistics(0.0, components), empty).components
                reseeded = True
                first, counts = _visited(statistics, empty if model.emits is None else np.isin(model.emits, empty))
            startprob, transmat = step.maximise(first, counts, model.startprob, model.transmat)
            family = model.family.maximise(components, **options)
            return HiddenMarkov(startprob, transmat, family, model.emits, model.fixed)

        def cautious_step(model: HiddenMarkov, statistics: HMMStatistics) -> HiddenMarkov:
            return m_step(model, statistics, cautious=True)

        fit = expectation_maximisation(
            start,
            e_step,
            m_step,
            tol=self.tol,
            max_iter=self.max_iter,
            may_fall=lambda: reseeded or regularised,
            cautious_step=cautious_step if getattr(start.family, "accelerated", False) else None,
            stop_at_error=True,
            report=progress.iteration,
        )
        progress.end(fit.stop_reason, len(fit.history) - 1, fit.history[-1])
        return fit

    def _finish(self, fit: Fit, objectives: list[float]) -> None:
        self._adopt(fit.parameters)
        self.statistics_ = fit.statistics
        self.history_ = np.array(fit.history)
        self.lower_bound_ = fit.history[-1]
        self.n_iter_ = len(fit.history) - 1
        self.stop_reason_ = fit.stop_reason
        self.converged_ = fit.stop_reason == "converged"
        self.optima_ = _distinct(objectives, 10 * self.tol)
        reason = {
            "interrupted": f"EM was interrupted after {self.n_iter_} iterations: the parameters so far are kept",
            "decreased": "the objective fell, which rounding alone does not explain: the parameters before it are kept",
            "degenerate": f"{fit.error} The parameters before that are kept.",
            "max_iter": f"EM did not converge in {self.n_iter_} iterations: increase max_iter or tol",
        }.get(fit.stop_reason)
        if reason and not (fit.stop_reason == "max_iter" and self.max_iter == 0):
            warnings.warn(reason, ConvergenceWarning, stacklevel=5)

    def _adopt(self, model: HiddenMarkov) -> None:
        self._model_ = model
        self.startprob_ = _constant(model.startprob)
        self.transmat_ = _constant(model.transmat)
        self.family_ = model.family
        self.state_components_ = _constant(_state_components(model))

    @classmethod
    def from_parameters(cls, startprob: ArrayLike, transmat: ArrayLike, family: Any) -> Self:
        """A model with these parameters, which need not be fitted.

        Parameters
        ----------
        startprob, transmat : arrays (K,), (K, K)
        family : a family of `fastgen.families` with the parameters of K components

        Returns
        -------
        HMM
        """
        chain = as_chain(startprob, transmat)
        if not _has_parameters(family) or family.n_components != chain.K:
            raise ValueError(f"family must have the parameters of {chain.K} components")
        model = cls(family, chain.K)
        model._adopt(HiddenMarkov(chain.startprob, chain.transmat, family))
        model.n_features_in_ = family.n_features
        return model

    def _model(self) -> HiddenMarkov:
        check_is_fitted(self)
        return self._model_

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for name in {"startprob_", "transmat_", "state_components_"} & vars(self).keys():
            getattr(self, name).flags.writeable = False  # pickling and copying forget it

    # Use --------------------------------------------------------------------------------------------------------------

    def log_prob(self, X: Any, *, lengths: ArrayLike | None = None, groups: ArrayLike | None = None) -> Array:
        """log p(sequence) of each, in nats.

        Parameters
        ----------
        X, lengths, groups : see `fit`

        Returns
        -------
        array (S,)
            -inf for an impossible sequence.
        """
        return self._model().log_prob(self._sequences(X, lengths, groups))

    def score(
        self,
        X: Any,
        y: object = None,
        *,
        lengths: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> float:
        """Log-likelihood per step, in nats.

        Parameters
        ----------
        X, y, lengths, groups, sample_weight : see `fit`

        Returns
        -------
        float
        """
        model = self._model()
        sequences = self._sequences(X, lengths, groups, sample_weight)
        weights = np.ones(len(sequences.lengths)) if sequences.weights is None else sequences.weights
        log_prob = np.where(weights > 0, model.log_prob(sequences), 0.0)
        return float(weights @ log_prob / max(1.0, float(weights @ sequences.lengths)))

    def predict_proba(
        self, X: Any, *, lengths: ArrayLike | None = None, groups: ArrayLike | None = None, labels: Any = None
    ) -> Array:
        """Smoothing: p(state at each step | its whole sequence).

        Parameters
        ----------
        X, lengths, groups, labels : see `fit`

        Returns
        -------
        array (n, K)

        Raises
        ------
        ValueError
            A sequence is impossible; the row is named.
        """
        return self._model().posterior(self._sequences(X, lengths, groups, None, labels))[1]

    posterior = predict_proba

    def decode(
        self, X: Any, *, lengths: ArrayLike | None = None, groups: ArrayLike | None = None, labels: Any = None
    ) -> Decoded:
        """The most probable path of states of each sequence (Viterbi).

        Parameters
        ----------
        X, lengths, groups, labels : see `fit`

        Returns
        -------
        Decoded
            ``log_prob`` (S,) of path and sequence, ``path`` (n,).
        """
        return Decoded(*self._model().viterbi(self._sequences(X, lengths, groups, None, labels)))

    def predict(
        self, X: Any, *, lengths: ArrayLike | None = None, groups: ArrayLike | None = None, labels: Any = None
    ) -> Index:
        """The most probable path of states of each sequence: see `decode`."""
        return self.decode(X, lengths=lengths, groups=groups, labels=labels).path

    def k_best(self, X: Any, k: int, *, labels: Any = None) -> Decoded:
        """The k most probable paths of one sequence (list Viterbi, Seshadri & Sundberg 1994).

        Parameters
        ----------
        X : array (n, d)
        k : int
        labels : integer array (n,), optional

        Returns
        -------
        Decoded
            ``log_prob`` (k,), descending, and ``path`` (k, n); -inf and -1 where there are fewer paths.

        Notes
        -----
        O(n K^2 k), and 4 n K k bytes.
        """
        check_number(k, "k", Integral, 1)
        model = self._model()
        sequences = self._sequences(X, None, None, None, labels)
        if len(sequences.lengths) != 1:
            raise ValueError(f"k_best takes one sequence, got {len(sequences.lengths)}")
        n, K = len(sequences.X), len(model.startprob)
        logs = np.ascontiguousarray(model.log_density(sequences), np.float64)
        start, log_A = model.chain.logs
        values, paths = np.full(k, -np.inf), np.full((k, n), -1)
        most = k if n * np.log(K) > 40 else min(k, K**n)  # there are no more
        back = np.empty(n * K * most + K, np.int32)
        _hmm.k_best(logs, start, log_A, values[:most], paths[:most], back, np.empty(2 * K * most))
        return Decoded(values, paths)

    def sample_paths(
        self,
        X: Any,
        n_paths: int = 1,
        random_state: Any = None,
        *,
        lengths: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        labels: Any = None,
    ) -> Index:
        """Draw paths from p(path | sequence): forward filtering, backward sampling (Chib 1996).

        Parameters
        ----------
        X, lengths, groups, labels : see `fit`
        n_paths : int
        random_state : None, int, numpy.random.Generator or RandomState
            Default: that of the estimator.

        Returns
        -------
        integer array (n_paths, n)
        """
        check_number(n_paths, "n_paths", Integral, 1)
        model = self._model()
        sequences = self._sequences(X, lengths, groups, None, labels)
        filtered = model.filtered(sequences)
        _refuse_impossible(filtered)
        _, log_A = model.chain.logs
        rng = as_generator(self.random_state if random_state is None else random_state)
        paths = np.empty((n_paths, len(sequences.X)), np.intp)
        work = np.empty(len(model.startprob))
        offsets = sequences.layout.offsets
        for path in paths:
            uniform = rng.random(len(path))
            for start, stop in pairwise(offsets):
                if stop > start:
                    _hmm.sampled_path(filtered[start:stop], log_A, uniform[start:stop], path[start:stop], work)
        return paths

    def filter_proba(
        self, X: Any, *, lengths: ArrayLike | None = None, groups: ArrayLike | None = None, lag: int = 0
    ) -> Array:
        """Filtering: p(state at each step | the sequence up to ``lag`` steps after it).

        Parameters
        ----------
        X, lengths, groups : see `fit`
        lag : int, default=0
            0 is the filter; with more, fixed-lag smoothing.

        Returns
        -------
        array (n, K)

        Notes
        -----
        O(n K^2 (1 + lag)).
        """
        check_number(lag, "lag", Integral, 0)
        model = self._model()
        sequences = self._sequences(X, lengths, groups)
        logs = model.filtered(sequences)
        _refuse_impossible(logs)
        n = len(logs)
        if lag and n:
            _, log_A = model.chain.logs
            density = model.log_density(sequences)
            last = np.repeat(sequences.layout.offsets[1:], sequences.lengths) - 1
            ahead = np.zeros(logs.shape)
            for away in range(min(lag, int(sequences.lengths.max()) - 1), 0, -1):
                rows = np.flatnonzero(np.arange(n) + away <= last)
                w = density[rows + away] + ahead[rows]
                ahead[rows] = _log_times(w, log_A.T)
            logs = logs + ahead
        p = np.exp(logs - logs.max(axis=1, keepdims=True)) if n else logs
        return np.asarray(p / p.sum(axis=1, keepdims=True))

    def predict_next(
        self, X: Any, h: int = 1, *, lengths: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> Forecast:
        """States, and what they emit, 1 to h steps after the end of each sequence.

        Parameters
        ----------
        X, lengths, groups : see `fit`
        h : int

        Returns
        -------
        Forecast
            ``states`` (S, h, K); ``density(sequence, step)`` is a `fastgen.Mixture`.
        """
        check_number(h, "h", Integral, 1)
        model = self._model()
        sequences = self._sequences(X, lengths, groups)
        filtered = model.filtered(sequences)
        _refuse_impossible(filtered)
        offsets = sequences.layout.offsets
        K = len(model.startprob)
        p = np.empty((len(offsets) - 1, K))
        empty = np.diff(offsets) == 0
        p[~empty] = np.exp(filtered[offsets[1:][~empty] - 1]) @ model.transmat
        p[empty] = model.startprob
        states = np.empty((len(p), h, K))
        for step in range(h):
            states[:, step] = p / p.sum(axis=1, keepdims=True)
            p = states[:, step] @ model.transmat
        return Forecast(states, model)

    def filter(self) -> "Filter":
        """A filter for one sequence that arrives step by step.

        Returns
        -------
        Filter
        """
        return Filter(self._model())

    def sample(
        self, n_samples: int = 1, random_state: Any = None, *, first_state: int | None = None
    ) -> tuple[Array, Index]:
        """Simulate one sequence.

        Parameters
        ----------
        n_samples : int
        random_state : None, int, numpy.random.Generator or RandomState
            Default: that of the estimator.
        first_state : int, optional

        Returns
        -------
        X : array (n_samples, d)
        states : integer array (n_samples,)
        """
        check_number(n_samples, "n_samples", Integral, 1)
        model = self._model()
        rng = as_generator(self.random_state if random_state is None else random_state)
        uniform = rng.random(n_samples)
        if first_state is not None and not 0 <= first_state < len(model.startprob):
            raise ValueError(f"first_state must be 0, ..., {len(model.startprob) - 1}, got {first_state}")
        steps = np.cumsum(model.transmat, axis=1)
        steps /= steps[:, -1:]
        begin = np.cumsum(model.startprob)
        states = np.empty(n_samples, np.intp)
        state = first_state
        for t in range(n_samples):
            if t or state is None:
                state = int(np.searchsorted(begin / begin[-1] if t == 0 else steps[state], uniform[t], side="right"))
            states[t] = state
        if model.emits is None:
            return model.family.sample(states, rng), states
        X = np.empty((n_samples, self.n_features_in_))
        component = model.emits[states]
        G = model.family.n_components
        for family, rows, numbers in (
            (model.family, component < G, component),
            (model.fixed, component >= G, component - G),
        ):
            if rows.any():
                X[rows] = family.sample(numbers[rows], rng)
        return X, states

    @property
    def stationary_distribution_(self) -> Array:
        """(K,) the distribution that the states tend to; a ValueError if there is more than one."""
        return stationary_distribution(self._model().transmat)

    @property
    def n_parameters_(self) -> int:
        """Free parameters: without what the masks, fixed values and ties take away."""
        model = self._model()
        K = len(model.startprob)
        step = self._chain_step() if self.n_components == K else None
        total = int(model.family.n_parameters)
        if step is None:
            return total + K - 1 + K * (K - 1)
        if not step.stationary:
            total += _free(step.start_mask[None], step.start_fixed, step.start_ties)
        return total + _free(step.mask, step.fixed, step.ties)

    def aic(self, X: Any, *, lengths: ArrayLike | None = None, groups: ArrayLike | None = None) -> float:
        """Akaike's information criterion, -2 log L + 2 (free parameters): lower is better.

        Parameters
        ----------
        X, lengths, groups : see `fit`

        Returns
        -------
        float
        """
        return -2 * float(self.log_prob(X, lengths=lengths, groups=groups).sum()) + 2 * self.n_parameters_

    def bic(self, X: Any, *, lengths: ArrayLike | None = None, groups: ArrayLike | None = None) -> float:
        """Bayesian information criterion, -2 log L + log(steps) (free parameters): lower is better.

        Parameters
        ----------
        X, lengths, groups : see `fit`

        Returns
        -------
        float
        """
        model = self._model()
        sequences = self._sequences(X, lengths, groups)
        log_likelihood = float(model.log_prob(sequences).sum())
        return -2 * log_likelihood + float(np.log(len(sequences.X))) * self.n_parameters_


class Filter:
    """p(state | what has come up to now) of one sequence, step by step.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgen import HMM, families
    >>> rain = families.Bernoulli(probabilities=[[0.9], [0.2]])  # an umbrella is seen if it rains, or not
    >>> model = HMM.from_parameters([0.5, 0.5], [[0.7, 0.3], [0.3, 0.7]], rain)
    >>> now = model.filter()
    >>> for umbrella in (1.0, 1.0, 0.0):
    ...     print(now.update([umbrella]).round(4))
    [0.8182 0.1818]
    [0.8834 0.1166]
    [0.1907 0.8093]
    """

    def __init__(self, model: HiddenMarkov) -> None:
        self._model = model
        self.reset()

    def reset(self) -> None:
        """Begin a new sequence."""
        self.n_steps = 0
        self.log_likelihood = 0.0
        """log p of what has come, in nats"""
        self.probabilities = self._model.startprob.copy()
        """(K,) p(state); before the first step that of the first"""
        self._logs = self._model.chain.logs[0]

    def update(self, x: ArrayLike) -> Array:
        """Take one more step.

        Parameters
        ----------
        x : array (d,)
            NaN is a missing value; a step at which nothing was seen is all NaN.

        Returns
        -------
        array (K,)
            The new ``probabilities``.

        Raises
        ------
        ValueError
            The step is impossible in every state; the filter stays as it was.
        """
        model = self._model
        row = np.asarray(x, np.float64)[None]
        logs = self._logs
        if self.n_steps:  # in logarithms: what is improbable now may be all that is left later
            terms = logs[:, None] + model.chain.logs[1]
            most = terms.max(axis=0)
            most[most == -np.inf] = 0.0
            with np.errstate(divide="ignore"):
                logs = most + np.log(np.exp(terms - most).sum(axis=0))
        if model.emits is None:
            density = model.family.log_density(row)[0]
        else:
            density = model.log_density(Sequences(row))[0]
        logs = logs + density
        top = logs.max()
        if not top > -np.inf:
            raise ValueError(f"step {self.n_steps} is impossible in every state")
        p = np.exp(logs - top)
        total = p.sum()
        self.log_likelihood += float(top + np.log(total))
        self.n_steps += 1
        self._logs = logs - (top + np.log(total))
        self.probabilities = p / total
        return self.probabilities

    def predict(self, h: int = 1) -> Array:
        """p(state h steps from now), (K,)."""
        p = self.probabilities
        for _ in range(h if self.n_steps else h - 1):
            p = p @ self._model.transmat
        return p


class _Joined:
    """Families of one component each, side by side."""

    def __init__(self, parts: list[Any]) -> None:
        self.parts = parts

    def log_density(self, X: Data, *, n_threads: int | None = None) -> Data:
        return np.concatenate([part.log_density(X, n_threads=n_threads) for part in self.parts], axis=1)

    def sample(self, components: NDArray[np.intp], rng: np.random.Generator) -> Array:
        X = np.empty((len(components), self.parts[0].n_features))
        for k, part in enumerate(self.parts):
            rows = np.flatnonzero(components == k)
            if len(rows):
                X[rows] = part.sample(np.zeros(len(rows), np.intp), rng)
        return X


def _has_parameters(family: Any) -> bool:
    try:
        return bool(family.n_components)
    except AttributeError:
        return False


def _as_mask(value: Any, name: str, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    array = np.asarray(value)
    if array.shape != shape or not np.isin(array, (0, 1)).all():
        raise ValueError(f"{name} must be booleans of shape {shape}, got {array.dtype} {array.shape}")
    return array.astype(bool)


def _as_pseudo_count(value: ArrayLike, name: str, shape: tuple[int, ...]) -> Array:
    array = np.asarray(as_floats(value, name), np.float64)
    if array.ndim and array.shape != shape:
        raise ValueError(f"{name} must be a number, or have shape {shape}, got {array.shape}")
    if not np.isfinite(array).all() or array.min() < 0:
        raise ValueError(f"{name} must be finite and not negative")
    return np.broadcast_to(array, shape).copy()


def _as_fixed(value: ArrayLike | None, name: str, mask: NDArray[np.bool_]) -> Array | None:
    if value is None:
        return None
    array = np.array(as_floats(value, name), np.float64)
    if array.shape != mask.shape:
        raise ValueError(f"{name} must have shape {mask.shape}, NaN where it is to be fitted, got {array.shape}")
    if (array < 0).any() or np.isinf(array).any() or (array[~mask] > 0).any():
        raise ValueError(f"{name} must hold probabilities, 0 where the mask allows nothing, or NaN")
    array[~mask & np.isnan(array)] = 0.0
    total, free = np.nansum(array, axis=-1), np.isnan(array).any(axis=-1)
    if (total > 1 + 1e-9).any() or (np.abs(total - 1)[~free] > 1e-6).any():
        raise ValueError(f"fixed values of {name} must add up to 1 in a row, or to less where some are free")
    return array


def _as_ties(value: ArrayLike | None, name: str, shape: tuple[int, ...]) -> Index | None:
    if value is None:
        return None
    array = np.asarray(value)
    if array.shape != shape or array.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers of shape {shape}, got {array.dtype} {array.shape}")
    return array.astype(np.intp)


def _without_zeros(
    mask: NDArray[np.bool_], value: ArrayLike | None, name: str, fixed: Array | None
) -> NDArray[np.bool_]:
    """The mask without the zeros of a start, which is checked."""
    if value is None:
        return mask
    array = np.asarray(as_floats(value, name), np.float64)
    if array.shape != mask.shape or not np.isfinite(array).all() or array.min() < 0:
        raise ValueError(f"{name} must hold {mask.shape} probabilities, got shape {array.shape}")
    if np.abs(array.sum(axis=-1) - 1).max() > 1e-6:
        raise ValueError(f"{name} must have rows that add up to 1")
    if array[~mask].any():
        raise ValueError(f"{name} is not 0 where the mask allows nothing")
    if fixed is None:
        return mask & (array > 0)
    free = np.isnan(fixed)
    if (free.any(axis=-1) & ~(free & (array > 0)).any(axis=-1) & (np.nansum(fixed, axis=-1) < 1 - 1e-9)).any():
        raise ValueError(
            f"{name} is 0 wherever the fixed values of a row leave something free: the row adds up to less than 1"
        )
    return mask & (~free | (array > 0))


def _visited(statistics: HMMStatistics, states: NDArray[Any]) -> tuple[Array, Array]:
    """Expected starts and transitions; states that are never visited get a tenth of what an average one has."""
    first, counts = statistics.start.copy(), statistics.transitions.copy()
    share = 0.1 / len(first)
    first[states] += share * first.sum()
    counts[:, states] += share * counts.sum(axis=1, keepdims=True)
    counts[states] += share * counts.sum(axis=0)
    return first, counts


def _free(mask: NDArray[np.bool_], fixed: Array | None, ties: Index | None) -> int:
    """Free parameters of stochastic rows."""
    free = mask.copy()
    if fixed is not None:
        free &= np.isnan(np.atleast_2d(fixed))
    rows = int(free.any(axis=1).sum())
    if ties is None:
        return int(free.sum()) - rows
    ties = np.atleast_2d(ties)
    number = np.where(ties >= 0, ties + ties.size, np.arange(ties.size).reshape(ties.shape))
    groups, group = np.unique(number[free], return_inverse=True)
    constraints = np.zeros((len(free), len(groups)))
    np.add.at(constraints, (np.nonzero(free)[0], group), 1.0)
    return len(groups) - int(np.linalg.matrix_rank(constraints))


def _refuse_impossible(filtered: Array) -> None:
    impossible = ~(filtered.max(axis=1) > -np.inf)
    if impossible.any():
        raise ValueError(f"row {impossible.argmax()} is impossible: no state can be at that step")


def _log_times(logs: Array, log_M: Array) -> Array:
    """log(exp(logs) @ exp(log_M)), (n, K)."""
    out = np.empty(logs.shape)
    for j in range(logs.shape[1]):
        terms = logs + log_M[:, j]
        top = terms.max(axis=1)
        shift = np.where(np.isfinite(top), top, 0.0)
        with np.errstate(divide="ignore"):
            out[:, j] = shift + np.log(np.exp(terms - shift[:, None]).sum(axis=1))
    return out


def _state_components(model: HiddenMarkov) -> Index:
    """(K,) which component of the family each state emits; -1 where its emission is not fitted."""
    emits = np.arange(len(model.startprob)) if model.emits is None else model.emits
    return np.where(emits < model.family.n_components, emits, -1)


def _constant(array: NDArray[Any]) -> NDArray[Any]:
    copy = array.copy()
    copy.flags.writeable = False
    return copy
