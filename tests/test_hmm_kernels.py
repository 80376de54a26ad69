"""Hidden Markov models' recursions against the textbook, every path, closed forms and published numbers."""

import inspect
import re
from concurrent.futures import ThreadPoolExecutor
from math import fsum, log

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracle import hmm as oracle

from fastgen.kernels import expected_transitions, forward_backward, log_likelihood, viterbi

FUNCTIONS = (log_likelihood, forward_backward, viterbi, expected_transitions)
nan, inf = np.nan, np.inf
FLOOR = 1e-200
"""Posteriors below this may lose digits."""
FLOOR_OF_PAIRS = 1e-200
"""What expected transitions may be off by in each step."""

# ---- models ------------------------------------------------------------------------------------------------------

CHAINS = (
    *("mixing", "independent", "sticky", "slow", "identity", "cycle", "lazy cycle", "left-right", "banded"),
    *("absorbing", "two classes", "sparse", "tiny"),
)
EMISSIONS = ("normal", "flat", "faint", "strong", "extreme", "holes", "offsets")


def rows_of(weights):
    return weights / weights.sum(axis=-1, keepdims=True)


def chain(rng, kind, K):
    """startprob (K,) and transmat (K, K)."""
    start, eye, shift = rng.dirichlet(np.full(K, 2.0)), np.eye(K), np.roll(np.eye(K), 1, axis=1)
    A = rng.dirichlet(np.full(K, 2.0), K)
    i, j = np.indices((K, K))
    if kind == "independent":
        A[:] = A[0]
    elif kind == "sticky":
        A = 0.95 * eye + 0.05 * A
    elif kind == "slow":
        A = 0.99999 * eye + 0.00001 * A
    elif kind == "identity":
        A = eye
    elif kind == "cycle":
        A = shift
    elif kind == "lazy cycle":
        A = 0.5 * eye + 0.5 * shift
    elif kind == "left-right":
        A, start = rows_of(np.where((j == i) | (j == i + 1), A, 0)), eye[0]
    elif kind == "banded":
        A = rows_of(np.where(abs(i - j) <= 1, A, 0))
    elif kind == "absorbing":
        A[-1], start[-1] = eye[-1], 0 if K > 1 else 1
        start = rows_of(start)
    elif kind == "two classes":
        A = rows_of(np.where((i < K // 2) == (j < K // 2), A, 0))
    elif kind == "sparse":
        A = rows_of(np.where((rng.random((K, K)) < 0.3) | (j == (i + 1) % K), A, 0))
        start = rows_of(np.where(rng.random(K) < 0.5, start, 0) + eye[rng.integers(K)])
    elif kind == "tiny":
        A = np.where((j == (i + 1) % K) | (rng.random((K, K)) < 0.4), A, 10.0 ** rng.integers(-300, -3, (K, K)))
        A, start = rows_of(A), rows_of(np.where(np.arange(K) == K // 2, 1, 10.0 ** rng.integers(-300, -3, K)))
    return start, A


def walk(rng, start, A, n):
    """A path that the chain may take."""
    path = np.empty(n, np.intp)
    rows = [(np.cumsum(p), np.flatnonzero(p)[-1]) for p in (*A, start)]
    state = -1
    for t, u in enumerate(rng.random(n)):
        p, last = rows[state]
        state = path[t] = min(np.searchsorted(p, u, side="right"), last)
    return path


def grid(a):
    """Rounded to multiples of 2^-10: differences of numbers up to 1e6 are then exact, in any kernel."""
    return np.round(a * 1024) / 1024


def emissions(rng, kind, n, start, A, lengths=None):
    """Log-likelihoods (n, K): some path of each sequence has none that is -inf."""
    K = len(start)
    b = rng.normal(0, 2, (n, K))
    if kind == "flat":
        return np.full((n, K), -1.25)
    if kind == "faint":
        return 1e-3 * b
    if kind == "strong":
        return grid(30 * b)
    if kind == "extreme":
        return grid(rng.uniform(-1e5, 0, (n, K)) * rng.choice([1, 1e-4], (n, 1)))
    if kind == "holes":
        path = np.concatenate([walk(rng, start, A, T) for T in ([n] if lengths is None else lengths)])
        return np.where((rng.random((n, K)) < 0.4) & (np.arange(K) != path[:, None]), -inf, b)
    if kind == "offsets":
        return grid(b) + rng.choice([-1e6, 1e6], (n, 1))
    return b


def ragged(rng, n):
    """Lengths with 0, 1, 2, 3, 7 among them that add up to n."""
    lengths = []
    while sum(lengths) < n:
        lengths.append(int(rng.choice([0, 1, 2, 3, 7, 20, 50])))
    lengths[-1] -= sum(lengths) - n
    return [*lengths, 0]


def problem(rng, kind, K, n, emission="normal", lengths=None):
    start, A = chain(rng, kind, K)
    return emissions(rng, emission, n, start, A, lengths), start, A


# ---- comparisons -------------------------------------------------------------------------------------------------


def uncertainty(b, lengths):
    """What log p of each sequence may be off by: rounding of a sum of all its rows' contributions."""
    with np.errstate(invalid="ignore"):
        top = np.abs(np.asarray(b, np.float64).max(axis=1)) if len(b) else np.zeros(0)
    top[~np.isfinite(top)] = 0
    ends = np.cumsum(lengths)
    return np.array([4e-15 * T + 1e-15 * top[e - T : e].sum() for e, T in zip(ends, lengths, strict=True)])


def assert_logs(got, want, b, lengths):
    want = np.asarray(want, np.float64)
    assert got.dtype == np.float64
    assert got.shape == want.shape
    assert np.array_equal(got == -inf, want == -inf)
    assert not np.isnan(got).any()
    ok = want > -inf
    error = np.abs(got[ok] - want[ok])
    assert (error <= 1e-12 * np.abs(want[ok]) + uncertainty(b, lengths)[ok]).all(), error.max()


def assert_close(got, want, rtol, name=""):
    """Relative to each entry above the floor; what is impossible must be 0."""
    want = np.asarray(want)
    assert got.dtype == np.float64, name
    assert got.shape == want.shape, name
    assert (got[want == 0] == 0).all(), name
    large = want >= FLOOR
    np.testing.assert_allclose(got[large], want[large].astype(np.float64), rtol=rtol, atol=0, err_msg=name)
    assert (got[~large] >= 0).all(), name
    assert (got[~large] <= 2 * FLOOR).all(), name


def assert_transitions(got, want, steps, rtol=1e-10):
    """Relative to each entry but for the floor; what is impossible must be 0. ``steps`` may be weighted."""
    want = np.asarray(want)
    assert got.dtype == np.float64
    assert got.shape == want.shape
    assert (got >= 0).all()
    assert (got[want == 0] == 0).all()
    np.testing.assert_allclose(got, want.astype(np.float64), rtol=rtol, atol=FLOOR_OF_PAIRS * steps)


def assert_posteriors(got, want, weights=None, rtol=1e-11):
    assert_close(got, want, rtol, name="posteriors")
    np.testing.assert_allclose(got.sum(axis=1), 1.0 if weights is None else weights, rtol=1e-13)


def assert_paths(found, b, start, A, lengths):
    """Each path has the log-probability that is returned, and no path has a larger one."""
    assert found.paths.dtype == np.intp
    assert found.paths.shape == (len(b),)
    maxima = oracle.viterbi(b, start, A, lengths)
    assert_logs(found.log_probs, maxima, b, lengths)
    ends = np.cumsum(lengths)
    along = np.zeros(len(lengths))
    for s, (end, T) in enumerate(zip(ends, lengths, strict=True)):
        path = found.paths[end - T : end]
        if maxima[s] == -inf:
            assert (path == -1).all()
            along[s] = -inf
        else:
            assert ((path >= 0) & (path < len(start))).all()
            along[s] = oracle.path_log_prob(b[end - T : end], start, A, path)
    assert_logs(along, maxima, b, lengths)


def check(b, start, A, lengths=None, weights=None, **options):
    """All functions against the oracle: of sequences that are possible or not."""
    arguments = (b, start, A) if lengths is None else (b, start, A, lengths)
    logs = np.asarray(b) if options.get("log", True) else oracle.log(b)
    lengths = [len(b)] if lengths is None else list(lengths)
    impossible = oracle.impossible_row(logs, start, A, lengths)
    log_p = log_likelihood(*arguments, **options)
    assert_paths(viterbi(*arguments, **options), logs, start, A, lengths)
    if (impossible >= 0).any():
        assert_logs(log_p, oracle.log_likelihood(logs, start, A, lengths), logs, lengths)
        where = rf"\brow {impossible[impossible >= 0][0]}\b"
        for function in (forward_backward, expected_transitions):
            with pytest.raises(ValueError, match=where):
                function(*arguments, **options)
        return None
    want = oracle.expected(logs, start, A, lengths)
    row_weights = None
    assert_logs(log_p, want.log_likelihoods, logs, lengths)
    both = forward_backward(*arguments, **options)
    assert_logs(both.log_likelihoods, want.log_likelihoods, logs, lengths)
    assert_posteriors(both.posteriors, want.posteriors)
    if weights is not None:
        want = oracle.expected(logs, start, A, lengths, weights)
        options["weights"], row_weights = weights, np.repeat(weights, lengths)
    found = expected_transitions(*arguments, **options)
    assert_logs(found.log_likelihoods, want.log_likelihoods, logs, lengths)
    assert_posteriors(found.posteriors, want.posteriors, row_weights)
    assert_close(found.start, want.start, 1e-11, name="start")
    w = np.ones(len(lengths)) if weights is None else np.asarray(weights, np.float64)
    steps = fsum(w * np.maximum(np.array(lengths) - 1, 0))
    assert_transitions(found.transitions, want.transitions, steps)
    assert found.transitions.sum() == pytest.approx(steps, rel=1e-12)
    assert found.start.sum() == pytest.approx(fsum(w * (np.array(lengths) > 0)), rel=1e-12)
    return found


def results(*arguments, **options):
    """All arrays of all functions, by name."""
    weights = options.pop("weights", None)
    a, v = forward_backward(*arguments, **options), viterbi(*arguments, **options)
    e = expected_transitions(*arguments, weights=weights, **options)
    found = {"log_likelihood": log_likelihood(*arguments, **options)}
    for result in (a, v, e):
        found |= {f"{type(result).__name__}.{name}": value for name, value in result._asdict().items()}
    return found


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert np.array_equal(value, other[name]), name


# ---- every path --------------------------------------------------------------------------------------------------

PROBABILITIES = st.sampled_from([0.0, 1e-300, 1e-20, 1e-5, 0.5, 1.0, 1.0, 2.0, 3.0])
LOGS = st.one_of(st.integers(-5000, 5000).map(lambda i: i / 1024), st.sampled_from([-inf, 0.0, -700.0, -1e5, 1e5, 1e6]))
LIKELIHOODS = st.one_of(st.floats(0.01, 10), st.sampled_from([0.0, 5e-324, 1e-300, 1e-160, 1.0, 1e160, 1.7e308]))


@st.composite
def small_problems(draw, values):
    K = draw(st.integers(1, 4))
    T = draw(st.integers(1, {1: 8, 2: 7, 3: 5, 4: 4}[K]))
    rows = st.lists(PROBABILITIES, min_size=K, max_size=K).filter(any)
    start, *A = (rows_of(np.array(draw(rows))) for _ in range(K + 1))
    b = [draw(st.lists(values, min_size=K, max_size=K)) for _ in range(T)]
    return np.array(b), start, np.array(A)


def check_against_every_path(b, start, A, is_log):
    want = oracle.every_path(oracle.exponentials(b) if is_log else b.tolist(), start, A)
    options = {} if is_log else {"log": False}
    logs = b if is_log else oracle.log(b).astype(float)
    log_p, best = log_likelihood(b, start, A, **options), viterbi(b, start, A, **options)
    if want is None:
        assert log_p.tolist() == best.log_probs.tolist() == [-inf]
        assert (best.paths == -1).all()
        for function in (forward_backward, expected_transitions):
            with pytest.raises(ValueError, match=r"\brow \d+\b"):
                function(b, start, A, **options)
        return
    total, posterior, transitions, largest = want
    both, found = forward_backward(b, start, A, **options), expected_transitions(b, start, A, **options)
    for log_ps in (log_p, both.log_likelihoods, found.log_likelihoods):
        assert_logs(log_ps, [total], logs, [len(b)])
    for got in (both.posteriors, found.posteriors):
        assert_posteriors(got, posterior)
    assert_close(found.start, posterior[0], 1e-11)
    assert_transitions(found.transitions, transitions, len(b))
    assert_logs(best.log_probs, [largest], logs, [len(b)])
    assert_logs(np.array([oracle.path_log_prob(logs, start, A, best.paths)], float), [largest], logs, [len(b)])


@settings(max_examples=150)
@given(small_problems(LOGS))
def test_every_path(problem):
    check_against_every_path(*problem, is_log=True)


@settings(max_examples=150)
@given(small_problems(LIKELIHOODS))
def test_every_path_of_likelihoods(problem):
    check_against_every_path(*problem, is_log=False)


@settings(max_examples=60)
@given(small_problems(LOGS))
def test_the_oracle_itself(problem):
    b, start, A = problem
    want = oracle.every_path(oracle.exponentials(b), start, A)
    assert (want is None) == (oracle.impossible_row(b, start, A, [len(b)])[0] >= 0)
    assume(want is not None)
    got = oracle.expected(b, start, A, [len(b)])
    assert_logs(got.log_likelihoods.astype(float), [want[0]], b, [len(b)])
    assert_posteriors(got.posteriors.astype(float), want[1], rtol=1e-12)  # long doubles of up to 1e6
    assert_transitions(got.transitions.astype(float), want[2], len(b), 1e-12)
    assert_logs(oracle.viterbi(b, start, A, [len(b)]).astype(float), [want[3]], b, [len(b)])


@settings(max_examples=100)
@given(small_problems(LOGS), st.lists(st.integers(0, 8), min_size=1, max_size=30), st.integers(0, 2**32 - 1))
def test_many_sequences_of_small_problems(problem, lengths, seed):
    """Rows of one problem in any order, as sequences of any lengths: what is possible next to what is not."""
    b, start, A = problem
    rng = np.random.default_rng(seed)
    check(b[rng.integers(len(b), size=sum(lengths))], start, A, lengths, rng.integers(1, 4, len(lengths)))


# ---- published ---------------------------------------------------------------------------------------------------


def test_umbrella_world():
    """Russell & Norvig, *Artificial Intelligence: A Modern Approach* (3rd ed. 2010), sec. 15.2; P(rain_0) = 0.5.

    Filtered P(rain_1) = 0.818, P(rain_2) = 0.883, smoothed P(rain_1 | u_1, u_2) = 0.883 stand in the text. The smoothed
    values of u, u, no u, u, u stand in Wikipedia, "Forward-backward algorithm", example.
    """
    start, A = [0.5, 0.5], [[0.7, 0.3], [0.3, 0.7]]
    umbrella, none = [0.9, 0.2], [0.1, 0.8]
    b = [umbrella, umbrella, none, umbrella, umbrella]
    found = forward_backward(b, start, A, log=False)
    np.testing.assert_allclose(found.posteriors[:, 0], [0.8673, 0.8204, 0.3075, 0.8204, 0.8673], atol=5e-5)
    np.testing.assert_allclose(found.log_likelihoods, [-3.372502], atol=5e-7)
    for T, filtered in ((1, 0.818), (2, 0.883)):
        assert forward_backward(b[:T], start, A, log=False).posteriors[-1, 0] == pytest.approx(filtered, abs=5e-4)
    assert forward_backward(b[:2], start, A, log=False).posteriors[0, 0] == pytest.approx(0.883, abs=5e-4)
    # ibid., fig. 15.5: the most likely sequence is rain, rain, no rain, rain, rain
    assert viterbi(b, start, A, log=False).paths.tolist() == [0, 0, 1, 0, 0]


def test_walk_shop_clean():
    """Wikipedia, "Viterbi algorithm" (before 2012) and "Hidden Markov model", weather guessing game: rainy, sunny.

    Path sunny, rainy, rainy with 0.01344; likelihood 0.033612 (the example of several packages); posteriors by hand.
    """
    start, A = [0.6, 0.4], [[0.7, 0.3], [0.4, 0.6]]
    walk_, shop, clean = np.transpose([[0.1, 0.4, 0.5], [0.6, 0.3, 0.1]])
    b = [walk_, shop, clean]
    found = viterbi(b, start, A, log=False)
    assert found.paths.tolist() == [1, 0, 0]
    assert np.exp(found.log_probs[0]) == pytest.approx(0.01344, rel=1e-14)
    assert np.exp(log_likelihood(b, start, A, log=False)[0]) == pytest.approx(0.033612, rel=1e-14)
    posteriors = forward_backward(b, start, A, log=False).posteriors
    np.testing.assert_allclose(posteriors[:, 0], [0.231703, 0.624063, 0.863977], atol=5e-7)


def test_healthy_or_fever():
    """Wikipedia, "Viterbi algorithm", example: normal, cold, dizzy; path healthy, healthy, fever with 0.01512.

    Likelihood 0.03628: the sum over the 8 paths, by hand.
    """
    start, A = [0.6, 0.4], [[0.7, 0.3], [0.4, 0.6]]
    b = np.transpose([[0.5, 0.4, 0.1], [0.1, 0.3, 0.6]])
    found = viterbi(b, start, A, log=False)
    assert found.paths.tolist() == [0, 0, 1]
    assert np.exp(found.log_probs[0]) == pytest.approx(0.01512, rel=1e-14)
    assert np.exp(log_likelihood(b, start, A, log=False)[0]) == pytest.approx(0.03628, rel=1e-14)


def test_ice_cream():
    """Jurafsky & Martin, *Speech and Language Processing* (3rd ed. draft), app. A, figs. A.2, A.5, A.8: cold, hot.

    Trellis of 3, 1: alpha = 0.069, 0.0404 (so p = 0.1094), Viterbi 0.064, 0.0384. Of 3, 1, 3: p = 0.028562 by hand.
    """
    start, A = [0.2, 0.8], [[0.5, 0.5], [0.4, 0.6]]
    ices = {1: (0.5, 0.2), 2: (0.4, 0.4), 3: (0.1, 0.4)}
    b = np.array([ices[3], ices[1], ices[3]])
    assert np.exp(log_likelihood(b[:2], start, A, log=False)[0]) == pytest.approx(0.069 + 0.0404, rel=1e-14)
    posterior = forward_backward(b[:2], start, A, log=False).posteriors[-1]
    np.testing.assert_allclose(posterior, [0.069 / 0.1094, 0.0404 / 0.1094], rtol=1e-14)
    best = viterbi(b[:2], start, A, log=False)
    assert np.exp(best.log_probs[0]) == pytest.approx(0.064, rel=1e-14)
    assert best.paths.tolist() == [1, 0]
    assert np.exp(log_likelihood(b, start, A, log=False)[0]) == pytest.approx(0.028562, rel=1e-14)


def test_weather_that_is_observed():
    """Rabiner (1989), sec. II: P(S3 S3 S3 S1 S1 S3 S2 S3 | S3 first) = 1.536e-4, of rain, cloudy, sunny."""
    A = np.array([[0.4, 0.3, 0.3], [0.2, 0.6, 0.2], [0.1, 0.1, 0.8]])
    states = np.array([2, 2, 2, 0, 0, 2, 1, 2])
    b, start = np.where(np.eye(3)[states] > 0, 0.0, -inf), [0.0, 0.0, 1.0]
    found = expected_transitions(b, start, A)
    assert np.exp(found.log_likelihoods[0]) == pytest.approx(1.536e-4, rel=1e-14)
    np.testing.assert_allclose(found.posteriors, np.eye(3)[states], rtol=1e-15)
    counts = np.zeros((3, 3))
    np.add.at(counts, (states[:-1], states[1:]), 1)
    np.testing.assert_allclose(found.transitions, counts, rtol=1e-15)
    assert np.array_equal(viterbi(b, start, A).paths, states)


# ---- every kind, every size --------------------------------------------------------------------------------------


@pytest.mark.parametrize("emission", EMISSIONS)
@pytest.mark.parametrize("kind", CHAINS)
def test_every_kind_of_chain_and_emission(rng, kind, emission):
    for K in (2, 5, 9):
        check(*problem(rng, kind, K, 60, emission))
        lengths = ragged(rng, 100)
        check(*problem(rng, kind, K, 100, emission, lengths), lengths, rng.uniform(0.1, 3, len(lengths)))


LENGTHS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129, 255, 257)


@pytest.mark.parametrize("K", [*range(1, 10), 12, 16, 17])
def test_every_number_of_states_and_steps(rng, K):
    for i, n in enumerate(LENGTHS):
        check(*problem(rng, ("mixing", "sticky", "tiny")[i % 3], K, n))


@pytest.mark.parametrize("kind", ["mixing", "banded", "left-right", "slow"])
@pytest.mark.parametrize(("K", "n"), [(12, 400), (16, 400), (17, 300), (33, 200), (64, 90)])
def test_many_states(rng, K, n, kind):
    check(*problem(rng, kind, K, n))
    lengths = ragged(rng, n // 2)
    check(*problem(rng, kind, K, n // 2, "extreme" if kind == "slow" else "holes", lengths), lengths)


@pytest.mark.parametrize(("kind", "n"), [("mixing", 100), ("sparse", 40), ("cycle", 40)])
def test_hundreds_of_states(rng, kind, n):
    check(*problem(rng, kind, 200, n, "normal"))


@pytest.mark.parametrize("K", [1, 2, 4, 5, 8])
@pytest.mark.parametrize("T", [1, 2, 3, 7, 8])
def test_many_sequences_of_one_length(rng, T, K):
    """Numbers of sequences around multiples of 8; a single one that is longer at the end."""
    for S in (1, 7, 8, 9, 63, 65, 400):
        lengths = [T] * S + ([50] if S == 65 else [])
        b, start, A = problem(rng, "mixing" if T % 2 else "sparse", K, sum(lengths), "holes", lengths)
        check(b, start, A, lengths, rng.uniform(0.5, 2, len(lengths)))


@pytest.mark.parametrize("kind", ["mixing", "slow", "cycle", "tiny"])
def test_long_and_short_sequences_together(rng, kind):
    lengths = [1, 1500, 0, 2, 3, *[7] * 40, 1000, 0, 0, 5, 2500, 1]
    check(*problem(rng, kind, 3, sum(lengths), "normal"), lengths, rng.uniform(0.5, 2, len(lengths)))


# ---- long sequences ----------------------------------------------------------------------------------------------

LONG = ("mixing", "slow", "lazy cycle", "tiny")


@pytest.fixture(scope="module")
def long_problems():
    """100 003 steps of four chains, and what the oracle says of them: it takes them side by side."""
    rng = np.random.default_rng(7)
    n, K = 100_003, 3
    problems = [problem(rng, kind, K, n, "faint" if kind == "slow" else "normal") for kind in LONG]
    b = np.stack([p[0] for p in problems], axis=1).astype(np.longdouble)
    log_start, log_A = (oracle.log(np.stack([p[i] for p in problems])) for i in (1, 2))
    log_p, posteriors, xi = oracle.recursions(b, log_start, log_A)
    maxima = oracle.best(b, log_start, log_A)
    wants = [(log_p[i : i + 1], posteriors[:, i], xi[i], maxima[i : i + 1]) for i in range(len(LONG))]
    return {kind: (p, want) for kind, p, want in zip(LONG, problems, wants, strict=True)}


@pytest.mark.parametrize("kind", LONG)
def test_a_long_sequence(long_problems, kind):
    (b, start, A), (log_p, posteriors, xi, maximum) = long_problems[kind]
    n = [len(b)]
    assert_logs(log_likelihood(b, start, A), log_p, b, n)
    both, found = forward_backward(b, start, A), expected_transitions(b, start, A)
    for result in (both, found):
        assert_logs(result.log_likelihoods, log_p, b, n)
        assert_posteriors(result.posteriors, posteriors)
    assert_close(found.start, posteriors[0], 1e-11)
    assert_transitions(found.transitions, xi, len(b))
    best = viterbi(b, start, A)
    assert_logs(best.log_probs, maximum, b, n)
    assert_logs(np.array([oracle.path_log_prob(b, start, A, best.paths)], float), maximum, b, n)


@pytest.mark.parametrize("kind", CHAINS)
@pytest.mark.parametrize("emission", ["faint", "flat", "extreme", "holes"])
def test_every_kind_for_thousands_of_steps(rng, kind, emission):
    """Cut into segments that start with a warm-up: which is enough for some of these and never for others."""
    check(*problem(rng, kind, 4, 2051, emission))


@pytest.mark.parametrize("K", [1, 2, 5, 8, 9, 12])
def test_where_mixing_changes_along_the_sequence(rng, K):
    """Emissions that say nothing for 1000 steps, then all: a warm-up that is enough here is not enough there."""
    start, A = chain(rng, "slow", K)
    b = 1e-4 * rng.standard_normal((3000, K))
    b[:300] = rng.normal(0, 3, (300, K))
    b[2000:2100] = rng.normal(0, 3, (100, K))
    check(b, start, A)
    b[1000] = np.where(np.arange(K) == K - 1, 0.0, -inf)  # one row that says it all
    check(b, start, A)


def test_a_million_steps(rng):
    """Log-likelihood of two states by scaled recursion; errors do not accumulate, and logs are summed exactly."""
    n = 1_000_000
    start, A = [0.3, 0.7], [[0.9, 0.1], [0.2, 0.8]]
    b = rng.uniform(0.05, 1.0, (n, 2))
    p, q, logs = 0.3 * b[0, 0], 0.7 * b[0, 1], []
    (a00, a01), (a10, a11) = A
    for x, y in b[1:].tolist():
        total = p + q
        logs.append(total)
        p, q = p / total, q / total
        p, q = (p * a00 + q * a10) * x, (p * a01 + q * a11) * y
    want = fsum(map(log, logs)) + log(p + q)
    assert log_likelihood(b, start, A, log=False)[0] == pytest.approx(want, rel=1e-13)
    assert log_likelihood(np.log(b), start, A)[0] == pytest.approx(want, rel=1e-13)


# ---- extremes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("K", [2, 3, 4, 5, 9, 16, 17])
@pytest.mark.parametrize("kind", ["identity", "slow", "cycle", "left-right", "absorbing", "two classes", "tiny"])
def test_evidence_that_swings_and_comes_back(rng, kind, K):
    """Each step favours a state by e^1e5; later steps take it back: scaled recursions in linear space lose states."""
    start, A = chain(rng, kind, K)
    half = grid(rng.uniform(-1e5, 0, (30, K)))
    for b in (np.concatenate([half, -half]), np.concatenate([half, -half[::-1], half[:5], -half[:5]])):
        b = b + grid(rng.normal(0, 1, b.shape))
        check(b, start, A)
        check(np.tile(b, (3, 1)), start, A, [len(b)] * 3)
    check(np.concatenate([half, -half, half, -half]), start, A, [60, 0, 17, 30, 1, 12])


@pytest.mark.parametrize("size", [1.0, 40.0, 700.0, 750.0, 1e3, 1e4, 1e5])
@pytest.mark.parametrize("kind", ["identity", "cycle", "mixing", "slow"])
def test_swings_of_every_size(rng, kind, size):
    """Around exp(-745), the smallest float64, within a step; and over many steps that each are harmless."""
    start, A = chain(rng, kind, 4)
    half = grid(rng.uniform(-size, size, (400, 4)))
    tail = grid(rng.normal(0, 1, (9, 4)))
    check(np.concatenate([half, -half, tail]), start, A)


def logsumexp(values):
    """Exact but for the exponentials."""
    top = max(values)
    return top + log(fsum(np.exp(np.array(values) - top)))


@pytest.mark.parametrize("n", [1, 5, 100, 3000])
@pytest.mark.parametrize("K", [1, 2, 5, 17])
def test_identity_in_closed_form(rng, n, K):
    """The state never changes: log p = logsumexp(log pi_k + sum_t b_tk), and the posterior is that of all steps."""
    start = rng.dirichlet(np.ones(K))
    b = grid(rng.normal(0, 1e4, (n, K)))
    b[-1] -= [fsum(b[:, k]) for k in range(K)]  # all the evidence cancels
    b[-1] += grid(rng.normal(0, 1, K))
    joint = np.array([fsum([log(start[k]), *b[:, k]]) for k in range(K)])
    found = expected_transitions(b, start, np.eye(K))
    assert_logs(found.log_likelihoods, [logsumexp(joint)], b, [n])
    posterior = np.exp(joint - logsumexp(joint))
    assert_posteriors(found.posteriors, np.tile(posterior, (n, 1)))
    assert_transitions(found.transitions, (n - 1) * np.diag(posterior), n)
    best = viterbi(b, start, np.eye(K))
    assert (best.paths == joint.argmax()).all()
    assert_logs(best.log_probs, [joint.max()], b, [n])


@pytest.mark.parametrize("n", [1, 5, 100, 3000])
@pytest.mark.parametrize("K", [2, 5, 17])
def test_cycle_in_closed_form(rng, n, K):
    start, A = rng.dirichlet(np.ones(K)), np.roll(np.eye(K), 1, axis=1)
    b = grid(rng.normal(0, 0.05 if n == 3000 else 1, (n, K)))
    steps = np.arange(n)
    joint = np.array([fsum([log(start[k]), *b[steps, (k + steps) % K]]) for k in range(K)])
    found = expected_transitions(b, start, A)
    assert_logs(found.log_likelihoods, [logsumexp(joint)], b, [n])
    posterior = np.exp(joint - logsumexp(joint))
    want = posterior[(np.arange(K) - steps[:, None]) % K]
    assert_posteriors(found.posteriors, want)
    assert_transitions(found.transitions, A * want[:-1].sum(axis=0)[:, None], n)
    best = viterbi(b, start, A)
    assert np.array_equal(best.paths, (joint.argmax() + steps) % K)


@pytest.mark.parametrize("n", [1, 40, 2000])
@pytest.mark.parametrize("K", [1, 3, 8, 17])
def test_independent_steps_are_a_mixture(rng, n, K):
    p = rng.dirichlet(np.ones(K))
    b = rng.normal(0, 3, (n, K))
    joint = b.astype(np.longdouble) + oracle.log(p)
    found = forward_backward(b, p, np.tile(p, (K, 1)))
    assert_logs(found.log_likelihoods, [oracle.log_sum_exp(joint, 1).sum()], b, [n])
    assert_posteriors(found.posteriors, oracle.softmax(joint, 1), rtol=1e-13)
    assert np.array_equal(viterbi(b, p, np.tile(p, (K, 1))).paths, joint.argmax(axis=1))


@pytest.mark.parametrize("kind", ["mixing", "sticky", "cycle", "left-right", "absorbing"])
def test_without_information_the_posterior_is_the_prior(rng, kind):
    start, A = chain(rng, kind, 5)
    n = 300
    want = np.empty((n, 5), np.longdouble)
    want[0] = start
    for t in range(1, n):
        want[t] = want[t - 1] @ A.astype(np.longdouble)
    found = expected_transitions(np.zeros((n, 5)), start, A)
    assert found.log_likelihoods[0] == pytest.approx(0, abs=n * 1e-15)
    assert_posteriors(found.posteriors, want)
    assert_transitions(found.transitions, want[:-1].sum(axis=0)[:, None] * A, n, 1e-11)


@pytest.mark.parametrize("c", [1e6, -1e6, 123.0])
@pytest.mark.parametrize("kind", ["mixing", "slow", "identity", "tiny"])
def test_offsets_of_rows(rng, kind, c):
    """exp(c) times all likelihoods of a row: nothing changes but log p, by c."""
    b, start, A = problem(rng, kind, 4, 900)
    lengths, b = [400, 0, 1, 2, 497], grid(b)
    rows = rng.random(900) < 0.5
    there = b + c * rows[:, None]
    one, other = (expected_transitions(x, start, A, lengths) for x in (b, there))
    added = np.array([c * part.sum() for part in np.split(rows, np.cumsum(lengths)[:-1])])
    assert_logs(other.log_likelihoods, one.log_likelihoods + added, there, lengths)
    assert_posteriors(other.posteriors, one.posteriors, rtol=1e-12)
    assert_transitions(other.transitions, one.transitions, 900, 1e-12)
    first, second = viterbi(b, start, A, lengths), viterbi(there, start, A, lengths)
    assert np.array_equal(first.paths, second.paths)
    assert_logs(second.log_probs, first.log_probs + added, there, lengths)


def test_values_at_the_ends_of_the_range(rng):
    """Log-likelihoods that exp knows nothing of; what is lost in a step of a chain that mixes does not come back."""
    start, A = chain(rng, "mixing", 3)
    b = rng.normal(0, 1, (50, 3))
    b[::5, 1] = -1e300
    b[1::5, 0] = -1e15
    b[2::5, 2] = -np.finfo(float).max
    found = check(b, start, A)
    assert (found.posteriors[::5, 1] == 0).all()


@pytest.mark.parametrize("n", [1, 30, 1000])
def test_likelihoods_from_denormal_to_overflow(rng, n):
    values = np.array([0.0, 5e-324, 1e-310, 1e-300, 1e-100, 1.0, 1e100, 1e300, 1.7e308])
    for kind in ("mixing", "slow", "cycle", "tiny"):
        start, A = chain(rng, kind, 4)
        b = values[rng.integers(0, 9, (n, 4))]
        b[np.arange(n), walk(rng, start, A, n)] = rng.choice(values[1:], n)
        check(b, start, A, log=False)


@pytest.mark.parametrize("kind", CHAINS)
def test_likelihoods_or_their_logs(rng, kind):
    for K in (1, 2, 5, 17):
        lengths = [300, 0, 1, 5, 94]
        logs, start, A = problem(rng, kind, K, 400, "holes", lengths)
        likelihoods = np.exp(logs)
        check(likelihoods, start, A, lengths, log=False)
        one = expected_transitions(logs, start, A, lengths)
        other = expected_transitions(likelihoods, start, A, lengths, log=False)
        np.testing.assert_allclose(one.log_likelihoods, other.log_likelihoods, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(one.posteriors, other.posteriors, rtol=1e-10, atol=FLOOR)


@pytest.mark.parametrize("emission", ["normal", "extreme"])
@pytest.mark.parametrize("K", [3, 5, 17])
def test_structural_zeros(rng, K, emission):
    """What start, transitions and emissions exclude is exactly 0, before and behind as well."""
    start, A = chain(rng, "left-right", K)
    found = check(emissions(rng, emission, 40, start, A), start, A)
    unreachable = np.arange(K) > np.arange(40)[:, None]
    assert (found.posteriors[unreachable] == 0).all()
    assert (found.transitions[A == 0] == 0).all()
    assert (found.start[1:] == 0).all()
    b = emissions(rng, emission, 40, start, A)
    b[-1, : K - 1] = -inf  # it ends in the last state
    found = check(b, start, A)
    late = np.arange(K) < K - 1 - np.arange(39, -1, -1)[:, None]
    assert late.any()
    assert (found.posteriors[late] == 0).all()


@pytest.mark.parametrize("p", [1e-5, 1e-100, 1e-300, 5e-324])
def test_the_only_way_is_improbable(p):
    """Every transition or start has probability p, however small: nothing is impossible."""
    A = np.array([[1.0 - p, p], [p, 1.0 - p]])
    n = 600
    b = np.where(np.arange(n)[:, None] % 2 == [0, 1], 0.0, -inf)
    found = check(b, [p, 1 - p], A)
    assert found.log_likelihoods[0] == pytest.approx(n * log(p), rel=1e-12)
    np.testing.assert_allclose(found.posteriors, np.exp(b), rtol=1e-15)


@pytest.mark.parametrize("e", [-30, -300, -600, -700, -740, -1000])
@pytest.mark.parametrize("p", [1e-5, 1e-15, 1e-150, 1e-300])
def test_small_factors_multiply(rng, p, e):
    """Start, transition and emission are representable; their product, which is all that rows leave, need not be."""
    for K, lengths in ((2, [2]), (2, [2, 3, 3, 1, 30]), (3, [10] * 9), (5, [300]), (9, [40]), (17, [20, 1])):
        n = sum(lengths)
        start = np.full(K, p)
        start[0] = 1 - p * (K - 1)
        A = np.full((K, K), p) + np.eye(K) * (1 - p * K)
        b = rng.choice([0.0, e, -inf], (n, K), p=[0.2, 0.5, 0.3])
        b[np.arange(n), rng.integers(K, size=n)] = e
        check(b, start, A, lengths, np.arange(1.0, len(lengths) + 1))
        check(b, start, A[:, ::-1].copy(), lengths)


@pytest.mark.parametrize(
    ("b", "start", "A"),
    [
        ([[-inf, 0], [0, 0], [-inf, 0]], [1, 1e-295], [[1, 1e-15], [1, 1e-15]]),
        ([[-inf, 0], [-inf, 0]], [1, 1e-295], [[0.5, 0.5], [1, 1e-15]]),
        ([[-700, 0], [-inf, 0]], [1, 1e-295], [[1, 1e-15], [1, 1e-15]]),
        ([[-700, 0], [-inf, 0]], [1, 0], [[1, 1e-15], [0.5, 0.5]]),
        ([[-700, 0], [0, 0]], [1, 0], [[1e-15, 1], [0.5, 0.5]]),
    ],
)
def test_small_factors_that_once_failed(b, start, A):
    """What `test_every_path` found: the start is as improbable as nothing else, or the largest emission is excluded."""
    b, start, A = (np.array(a, float) for a in (b, start, A))
    check_against_every_path(b, start, A, is_log=True)
    check_against_every_path(np.exp(b), start, A, is_log=False)
    check(np.tile(b, (9, 1)), start, A, [len(b)] * 9)


# ---- impossible sequences ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [0, 1, 7, 8, 100, 1249, 1250, 5000, 9998, 9999])
@pytest.mark.parametrize("kind", ["mixing", "slow", "cycle"])
def test_a_row_that_no_state_allows(rng, kind, row):
    b, start, A = problem(rng, kind, 3, 10_000)
    b[row] = -inf
    assert log_likelihood(b, start, A).tolist() == [-inf]
    found = viterbi(b, start, A)
    assert found.log_probs.tolist() == [-inf]
    assert (found.paths == -1).all()
    for function in (forward_backward, expected_transitions):
        with pytest.raises(ValueError, match=rf"\brow {row}\b"):
            function(b, start, A)


@pytest.mark.parametrize("K", [2, 5, 9])
@pytest.mark.parametrize("row", [1, 2, 63, 700, 1999])
def test_a_row_that_the_chain_does_not_allow(rng, row, K):
    """All rows but few leave every state possible; the states of these rows cannot follow each other."""
    start, A = chain(rng, "cycle", K)
    b = rng.normal(0, 1, (2000, K))
    b[row - 1] = np.where(np.arange(K) == 0, 0.0, -inf)
    b[row] = np.where(np.arange(K) == 0, 0.0, -inf)
    assert oracle.impossible_row(b, start, A, [2000]) == [row]
    check(b, start, A)
    check(np.concatenate([b, b]), start, A, [2000, 2000])


def test_impossible_from_the_start():
    """No state that can be first can emit the first row."""
    A = np.full((2, 2), 0.5)
    b = [[-inf, 0.0], [0.0, 0.0]]
    assert log_likelihood(b, [1.0, 0.0], A).tolist() == [-inf]
    for lengths, row in (([2, 2], 0), ([1, 1, 2], 0)):
        with pytest.raises(ValueError, match=rf"\brow {row}\b"):
            forward_backward(np.concatenate([b, b]), [1.0, 0.0], A, lengths)
    with pytest.raises(ValueError, match=r"\brow 3\b"):
        expected_transitions(np.concatenate([np.zeros((3, 2)), b]), [1.0, 0.0], A, [3, 2])


@pytest.mark.parametrize("T", [1, 3, 8, 300])
def test_impossible_sequences_leave_the_others_alone(rng, T):
    S = 41
    b, start, A = problem(rng, "mixing", 4, S * T)
    clean = results(b, start, A, [T] * S)
    bad = [0, 3, 17, 40]
    b[[s * T + s % T for s in bad]] = -inf
    log_p, found = log_likelihood(b, start, A, [T] * S), viterbi(b, start, A, [T] * S)
    good = np.setdiff1d(np.arange(S), bad)
    assert (log_p[bad] == -inf).all()
    assert (found.log_probs[bad] == -inf).all()
    np.testing.assert_allclose(log_p[good], clean["log_likelihood"][good], rtol=1e-13)
    np.testing.assert_allclose(found.log_probs[good], clean["Viterbi.log_probs"][good], rtol=1e-13)
    paths = found.paths.reshape(S, T)
    assert (paths[bad] == -1).all()
    assert np.array_equal(paths[good], clean["Viterbi.paths"].reshape(S, T)[good])
    check(b, start, A, [T] * S)


@pytest.mark.parametrize("transmat", [np.eye(2), np.full((2, 2), 0.5)])
def test_an_impossible_sequence_of_weight_zero_counts_for_nothing(transmat):
    b = np.log([[0.3, 0.6], [0.2, 0.2], [0.1, 0.9]])
    b[1] = -inf
    found = expected_transitions(b, [0.5, 0.5], transmat, [1, 1, 1], [1.0, 0.0, 2.0])
    np.testing.assert_allclose(found.log_likelihoods, [np.log(0.45), -inf, np.log(0.5)], rtol=1e-15)
    np.testing.assert_allclose(found.posteriors, [[1 / 3, 2 / 3], [0, 0], [0.2, 1.8]], rtol=1e-15)
    np.testing.assert_allclose(found.start, [1 / 3 + 0.2, 2 / 3 + 1.8], rtol=1e-15)
    with pytest.raises(ValueError, match=r"\brow 1\b"):
        expected_transitions(b, [0.5, 0.5], transmat, [1, 1, 1], [1.0, 1e-9, 2.0])


# ---- sequences, weights, states ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CHAINS)
@pytest.mark.parametrize("K", [1, 3, 9])
def test_sequences_together_or_one_by_one(rng, kind, K):
    lengths = [0, 1, 2, 3, 7, 0, 150, 1, 40, 700, 8, 0]
    b, start, A = problem(rng, kind, K, sum(lengths), "holes", lengths)
    together = expected_transitions(b, start, A, lengths)
    best = viterbi(b, start, A, lengths)
    parts = np.split(b, np.cumsum(lengths)[:-1])
    apart = [expected_transitions(part, start, A, [len(part)]) for part in parts]
    assert_logs(together.log_likelihoods, np.concatenate([p.log_likelihoods for p in apart]), b, lengths)
    assert_posteriors(together.posteriors, np.concatenate([p.posteriors for p in apart]))
    assert_close(together.start, sum(p.start for p in apart), 1e-11)
    assert_transitions(together.transitions, sum(p.transitions for p in apart), len(b))
    single = [viterbi(part, start, A, [len(part)]) for part in parts]
    assert_logs(best.log_probs, np.concatenate([p.log_probs for p in single]), b, lengths)
    assert (together.log_likelihoods[np.array(lengths) == 0] == 0).all()
    assert (best.log_probs[np.array(lengths) == 0] == 0).all()


@pytest.mark.parametrize("K", [2, 8])
def test_weights_are_repetitions(rng, K):
    lengths = np.array([3, 50, 1, 0, 7, 2, 400])
    b, start, A = problem(rng, "sticky", K, lengths.sum(), "normal")
    counts = np.array([2, 1, 5, 3, 0, 1, 3])
    weighted = check(b, start, A, lengths, counts)
    parts = np.split(b, np.cumsum(lengths)[:-1])
    repeated = np.concatenate([part for part, c in zip(parts, counts, strict=True) for _ in range(c)])
    found = check(repeated, start, A, np.repeat(lengths, counts))
    assert_close(weighted.start, found.start, 1e-12)
    assert_transitions(weighted.transitions, found.transitions, len(repeated), 1e-11)
    ones = expected_transitions(b, start, A, lengths, np.ones(7))
    plain = expected_transitions(b, start, A, lengths)
    for one, other in zip(ones, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-14)
    assert np.array_equal(weighted.log_likelihoods, plain.log_likelihoods)
    assert (weighted.posteriors[54:61] == 0).all()


@pytest.mark.parametrize("weight", [1e-200, 1e-6, 1e9, 1e200])
def test_weights_of_any_size(rng, weight):
    lengths = [100, 5, 1]
    b, start, A = problem(rng, "mixing", 3, 106)
    one = expected_transitions(b, start, A, lengths, [0.5, 1.0, 2.0])
    other = expected_transitions(b, start, A, lengths, np.multiply([0.5, 1.0, 2.0], weight))
    for name in ("start", "transitions", "posteriors"):
        np.testing.assert_allclose(getattr(other, name), weight * getattr(one, name), rtol=1e-13, err_msg=name)


@pytest.mark.parametrize("kind", ["mixing", "slow", "tiny"])
def test_order_of_sequences(rng, kind):
    lengths = np.array([5, 0, 300, 1, 1, 2, 90, 7, 7, 7, 30])
    b, start, A = problem(rng, kind, 4, lengths.sum())
    weights = rng.uniform(0.5, 2, len(lengths))
    order = rng.permutation(len(lengths))
    rows = np.concatenate([np.split(np.arange(len(b)), np.cumsum(lengths)[:-1])[s] for s in order])
    one = expected_transitions(b, start, A, lengths, weights)
    other = expected_transitions(b[rows], start, A, lengths[order], weights[order])
    assert_logs(other.log_likelihoods, one.log_likelihoods[order], b[rows], lengths[order])
    assert_close(other.posteriors, one.posteriors[rows], 1e-11)
    assert_close(other.start, one.start, 1e-11)
    assert_transitions(other.transitions, one.transitions, 2 * len(b))
    first, second = viterbi(b, start, A, lengths), viterbi(b[rows], start, A, lengths[order])
    assert np.array_equal(second.paths, first.paths[rows])


@pytest.mark.parametrize("kind", CHAINS)
@pytest.mark.parametrize("K", [2, 5, 9, 17])
def test_order_of_states(rng, kind, K):
    b, start, A = problem(rng, kind, K, 400, "normal")
    order = rng.permutation(K)
    one = expected_transitions(b, start, A)
    other = expected_transitions(b[:, order], start[order], A[np.ix_(order, order)])
    assert_logs(other.log_likelihoods, one.log_likelihoods, b, [400])
    assert_posteriors(other.posteriors, one.posteriors[:, order])
    assert_transitions(other.transitions, one.transitions[np.ix_(order, order)], 400)
    first, second = viterbi(b, start, A), viterbi(b[:, order], start[order], A[np.ix_(order, order)])
    assert np.array_equal(order[second.paths], first.paths)


@pytest.mark.parametrize("kind", CHAINS)
@pytest.mark.parametrize("K", [1, 3, 8])
def test_split_states(rng, kind, K):
    """Every state twice, with half of its probability each: the sum over copies is what it was."""
    lengths = [250, 1, 0, 9]
    b, start, A = problem(rng, kind, K, 260, "normal")
    one = expected_transitions(b, start, A, lengths)
    halves = np.concatenate([start, start]) / 2, np.block([[A, A], [A, A]]) / 2
    other = expected_transitions(np.concatenate([b, b], axis=1), *halves, lengths)
    assert_logs(other.log_likelihoods, one.log_likelihoods, b, lengths)
    assert_posteriors(other.posteriors[:, :K] + other.posteriors[:, K:], one.posteriors)
    merged = other.transitions.reshape(2, K, 2, K).sum(axis=(0, 2))
    assert_transitions(merged, one.transitions, 4 * len(b))


@pytest.mark.parametrize("K", [2, 4, 5, 9])
def test_states_that_never_occur(rng, K):
    """More states, of probability 0: those there were do not notice."""
    b, start, A = problem(rng, "sticky", K, 500)
    one = expected_transitions(b, start, A)
    wide = np.zeros((K + 3, K + 3))
    wide[:K, :K], wide[K:, 0] = A, 1
    more = np.concatenate([b, rng.normal(0, 1e3, (500, 3))], axis=1)
    other = expected_transitions(more, np.append(start, [0, 0, 0]), wide)
    assert_logs(other.log_likelihoods, one.log_likelihoods, more, [500])
    assert_posteriors(other.posteriors[:, :K], one.posteriors)
    assert (other.posteriors[:, K:] == 0).all()
    assert_transitions(other.transitions[:K, :K], one.transitions, 500)
    assert not other.transitions[K:].any()
    assert not other.transitions[:, K:].any()


@pytest.mark.parametrize("kind", ["mixing", "sticky", "banded", "slow"])
@pytest.mark.parametrize("K", [2, 5, 9])
def test_backwards_in_time(rng, kind, K):
    """The sequence read backwards is one of the reversed chain, if the chain starts in its stationary distribution."""
    _, A = chain(rng, kind, K)
    p = np.linalg.solve((np.eye(K) - A + 1).T, np.ones(K))
    p = rows_of(p)
    back = rows_of(A.T * p)
    b = rng.normal(0, 1, (1500, K))
    one, other = expected_transitions(b, p, A), expected_transitions(b[::-1], p, back)
    rtol = 1e-10 if kind != "slow" else 1e-7  # the error of p, which is that of a matrix of condition 1e5
    assert other.log_likelihoods[0] == pytest.approx(one.log_likelihoods[0], rel=rtol)
    np.testing.assert_allclose(other.posteriors[::-1], one.posteriors, rtol=rtol)
    np.testing.assert_allclose(other.transitions.T, one.transitions, rtol=rtol)


def test_a_model_of_one_state(rng):
    """K = 1: log p is the sum."""
    lengths = [100, 0, 1, 899]
    b = rng.normal(0, 100, (1000, 1))
    found = check(b, [1.0], [[1.0]], lengths)
    want = [fsum(part[:, 0]) for part in np.split(b, np.cumsum(lengths)[:-1])]
    assert_logs(found.log_likelihoods, want, b, lengths)
    assert (found.posteriors == 1).all()
    assert found.start.tolist() == [3.0]
    assert found.transitions.tolist() == [[99 + 898]]
    assert (viterbi(b, [1.0], [[1.0]], lengths).paths == 0).all()


@pytest.mark.parametrize("K", [1, 3, 9])
def test_nothing(K):
    """No sequences, or only empty ones."""
    start, A = np.full(K, 1 / K), np.full((K, K), 1 / K)
    for lengths in ([], np.zeros(0, np.intp), [0], [0, 0, 0]):
        S = len(lengths)
        b = np.empty((0, K))
        both, best = forward_backward(b, start, A, lengths), viterbi(b, start, A, lengths)
        found = expected_transitions(b, start, A, lengths, np.ones(S))
        for log_p in (log_likelihood(b, start, A, lengths), *(r[0] for r in (both, best, found))):
            assert log_p.shape == (S,)
            assert log_p.dtype == np.float64
            assert (log_p == 0).all()
        assert both.posteriors.shape == found.posteriors.shape == (0, K)
        assert best.paths.shape == (0,)
        assert best.paths.dtype == np.intp
        assert found.start.shape == (K,)
        assert not found.start.any()
        assert found.transitions.shape == (K, K)
        assert not found.transitions.any()


def test_a_tie_is_a_path():
    """Everything is equally probable: any path will do, but it must be one."""
    found = viterbi(np.zeros((50, 3)), np.full(3, 1 / 3), np.full((3, 3), 1 / 3), [20, 30])
    np.testing.assert_allclose(found.log_probs, [20 * log(1 / 3), 30 * log(1 / 3)], rtol=1e-14)
    assert ((found.paths >= 0) & (found.paths < 3)).all()


# ---- threads -----------------------------------------------------------------------------------------------------

CASES = {
    "long": ("mixing", 3, 200_000, "normal", None),
    "long, many states": ("mixing", 17, 20_000, "normal", None),
    "slow": ("slow", 4, 50_000, "faint", None),
    "zeros": ("banded", 5, 20_000, "holes", None),
    "extreme": ("slow", 3, 10_000, "extreme", None),
    "swings": ("identity", 3, 10_000, "extreme", None),
    "short": ("mixing", 4, 60_000, "normal", 6),
    "short, extreme": ("left-right", 4, 12_000, "extreme", 6),
    "middling": ("sticky", 2, 60_000, "normal", 3000),
    "many states": ("sparse", 64, 1500, "normal", 100),
}


@pytest.mark.parametrize("case", CASES)
def test_threads_change_no_bit(rng, case):
    kind, K, n, emission, length = CASES[case]
    b, start, A = problem(rng, kind, K, n, emission)
    lengths = [n] if length is None else [length] * (n // length)
    weights = rng.uniform(0.5, 2, len(lengths))
    one = results(b, start, A, lengths, weights=weights, n_threads=1)
    for n_threads in (2, 7, None):
        assert_same_bits(results(b, start, A, lengths, weights=weights, n_threads=n_threads), one)


def test_threads_change_no_bit_of_ragged_sequences(rng):
    lengths = [*ragged(rng, 20_000), 30_000, 1, 0, 5000]
    b, start, A = problem(rng, "mixing", 4, sum(lengths), "holes", lengths)
    weights = rng.uniform(0.5, 2, len(lengths))
    one = results(b, start, A, lengths, weights=weights, n_threads=1)
    for n_threads in (2, 7):
        assert_same_bits(results(b, start, A, lengths, weights=weights, n_threads=n_threads), one)


@pytest.mark.parametrize("n_threads", [1, 2, 7])
def test_the_same_row_is_named_for_any_number_of_threads(rng, n_threads):
    b, start, A = problem(rng, "mixing", 3, 40_000)
    b[[30_011, 12_345, 39_999]] = -inf
    for lengths in (None, [4] * 10_000, [20_000, 20_000]):
        with pytest.raises(ValueError, match=r"\brow 12345\b"):
            forward_backward(b, start, A, lengths, n_threads=n_threads)


def test_calls_from_several_threads(rng):
    problems = [problem(rng, kind, K, 3000) for kind, K in (("mixing", 3), ("slow", 5), ("tiny", 9), ("cycle", 2)) * 4]
    alone = [results(*p) for p in problems]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda p: results(*p), problems))
    for one, other in zip(alone, together, strict=True):
        assert_same_bits(one, other)


# ---- what arguments may be ---------------------------------------------------------------------------------------


def layouts(a):
    """The same numbers, otherwise in memory."""
    wide = np.full(tuple(3 * length for length in a.shape), 77, a.dtype)
    wide[tuple(slice(None, None, 3) for _ in a.shape)] = a
    back = (slice(None, None, -1),) * a.ndim
    read_only = a.copy()
    read_only.flags.writeable = False
    return {
        "Fortran": np.asfortranarray(a),
        "strided": wide[tuple(slice(None, None, 3) for _ in a.shape)],
        "backwards": a[back].copy()[back],
        "read-only": read_only,
        "unaligned": np.frombuffer(b"x" + a.tobytes(), np.uint8)[1:].view(a.dtype).reshape(a.shape),
        "other byte order": a.astype(a.dtype.newbyteorder()),
        "list": a.tolist(),
    }


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("K", "kind"), [(1, "mixing"), (3, "mixing"), (4, "slow"), (9, "sparse"), (17, "mixing")])
def test_layouts_change_no_bit(rng, K, kind, dtype):
    lengths, weights = np.array([500, 1, 0, 3, 3, 3, 90]), rng.uniform(0.5, 2, 7)
    b, start, A = problem(rng, kind, K, 600, "holes", lengths)
    b = b.astype(dtype)
    plain = (b, start, A, lengths)
    expected = results(*plain, weights=weights)
    for name in layouts(b):
        arguments = [layouts(a)[name] for a in plain]
        w = layouts(weights)[name]
        before = [np.array(a) for a in (*arguments, w)]
        assert_same_bits(results(*arguments, weights=w), expected)
        for a, copy in zip((*arguments, w), before, strict=True):
            assert np.array_equal(np.array(a), copy), name


@pytest.mark.parametrize("is_log", [True, False])
def test_float32_is_widened(rng, is_log):
    """The results are those of the same numbers in float64, to the bit; and are float64."""
    b, start, A = problem(rng, "mixing", 4, 3000)
    single = (b if is_log else np.exp(b)).astype(np.float32)
    options = {"lengths": [2000, 10, 0, 990], "log": is_log}
    assert_same_bits(results(single, start, A, **options), results(single.astype(np.float64), start, A, **options))
    check(single, start, A, options["lengths"], log=is_log)


def test_integers_and_lists():
    b = [[0, -1], [-2, 0], [0, 0]]
    want = results(np.array(b, float), [0.5, 0.5], np.eye(2), [2, 1], weights=[1.0, 2.0])
    for dtype in (np.int8, np.int64, np.float32):
        got = results(np.array(b, dtype), [0.5, 0.5], np.eye(2, dtype=np.int8), np.array([2, 1], np.uint8))
        assert np.array_equal(got["log_likelihood"], want["log_likelihood"])
    assert_same_bits(results(b, (0.5, 0.5), [[1, 0], [0, 1]], (2, 1), weights=(1, 2)), want)
    assert_same_bits(results(np.array(b, bool), [1, 0], np.eye(2)), results(np.array(b, bool) * 1.0, [1, 0], np.eye(2)))


@pytest.mark.parametrize("error", [5e-7, -5e-7])
def test_sums_may_be_off_by_a_millionth(rng, error):
    """Probabilities are taken as they are."""
    b, start, A = problem(rng, "mixing", 3, 20)
    check(b, start * (1 + error), A * (1 - error))


def test_zeros_of_either_sign(rng):
    b, start, A = problem(rng, "left-right", 3, 200)
    assert_same_bits(results(b, np.where(start == 0, -0.0, start), np.where(A == 0, -0.0, A)), results(b, start, A))
    p = np.exp(b)
    p[5, 1] = 0.0
    zero = np.where(p == 0, -0.0, p)
    assert_same_bits(results(zero, start, A, log=False), results(p, start, A, log=False))


def test_signatures_and_results():
    names = ["log_likelihoods", "startprob", "transmat", "lengths"]
    for function in FUNCTIONS:
        parameters = inspect.signature(function).parameters
        extra = ["weights"] if function is expected_transitions else []
        assert list(parameters) == [*names, *extra, "log", "out", "n_threads"]
        assert all(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in ("log", "out", "n_threads"))
    b, A = np.zeros((2, 1)), [[1.0]]
    assert forward_backward(b, [1.0], A)._fields == ("log_likelihoods", "posteriors")
    assert viterbi(b, [1.0], A)._fields == ("log_probs", "paths")
    assert expected_transitions(b, [1.0], A)._fields == ("log_likelihoods", "start", "transitions", "posteriors")
    names = {type(f(b, [1.0], A)).__name__ for f in FUNCTIONS[1:]}
    assert names == {"ForwardBackward", "Viterbi", "ExpectedTransitions"}


# ---- out ---------------------------------------------------------------------------------------------------------


def written(function, result):
    """What of the result is written into `out`."""
    if function is log_likelihood:
        return result
    return result.paths if function is viterbi else result.posteriors


def places(shape, dtype):
    """Arrays that results can be written into."""
    wide = np.full(tuple(3 * length for length in shape), 5, dtype)
    back = (slice(None, None, -1),) * len(shape)
    return [
        np.full(shape, 5, dtype),
        np.full(shape, 5, dtype, order="F"),
        wide[tuple(slice(None, None, 3) for _ in shape)],
        np.full(shape, 5, dtype)[back],
    ]


@pytest.mark.parametrize(("kind", "K"), [("mixing", 3), ("slow", 4), ("mixing", 9), ("left-right", 17)])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_out(rng, function, kind, K):
    lengths = [300, 0, 1, 2, 7, 90]
    for emission in ("normal", "extreme"):
        b, start, A = problem(rng, kind, K, 400, emission)
        plain = function(b, start, A, lengths)
        want = written(function, plain)
        for out in places(want.shape, want.dtype):
            result = function(b, start, A, lengths, out=out, n_threads=2)
            assert written(function, result) is out
            assert np.array_equal(out, want)
            if out.base is not None and out.base.size > out.size:
                assert (out.base.ravel() == 5).sum() >= out.base.size - out.size
            for one, other in zip(result, plain, strict=True):
                assert np.array_equal(one, other)


def illegal(shape, dtype):
    read_only = np.empty(shape, dtype)
    read_only.flags.writeable = False
    return {
        "too long": np.empty((shape[0] + 1, *shape[1:]), dtype),
        "too short": np.empty((shape[0] - 1, *shape[1:]), dtype),
        "wrong ndim": np.empty((*shape, 1), dtype),
        "float32": np.empty(shape, np.float32),
        "int32": np.empty(shape, np.int32),
        "other kind": np.empty(shape, np.intp if dtype == np.float64 else np.float64),
        "read-only": read_only,
        "stride 0": np.lib.stride_tricks.as_strided(np.empty(1, dtype), shape, (0,) * len(shape)),
        "list": np.empty(shape, dtype).tolist(),
        "byte order": np.empty(shape, np.dtype(dtype).newbyteorder()),
    }


@pytest.mark.parametrize("what", illegal((3,), np.float64))
@pytest.mark.parametrize("function", FUNCTIONS)
def test_out_of_an_illegal_kind(rng, function, what):
    b, start, A = problem(rng, "mixing", 3, 20)
    lengths = [10, 5, 5]
    want = written(function, function(b, start, A, lengths))
    with pytest.raises(ValueError, match=r"^out "):
        function(b, start, A, lengths, out=illegal(want.shape, want.dtype)[what])


def test_out_that_overlaps_an_input(rng):
    """Of any input, in whole or in part: inputs are never modified."""
    K = 3
    b, start, A = problem(rng, "mixing", K, K)
    lengths, weights = np.ones(K, np.intp), np.ones(K)
    cases = [(log_likelihood, out) for out in (b[:, 0], b[0], b.ravel()[1:4], start, A[1], A[:, 2])]
    cases += [(f, out) for f in (forward_backward, expected_transitions) for out in (b, b[::-1], b.T, A, A.T)]
    cases += [(viterbi, lengths), (viterbi, lengths[::-1])]
    cases += [(expected_transitions, np.lib.stride_tricks.as_strided(weights, (1, 3), (24, 8)))]
    for function, out in cases:
        before = [a.copy() for a in (b, start, A, lengths, weights)]
        arguments = (b, start, A, lengths)
        if out.shape == (1, 3):
            arguments = (b[:1], start, A, [1, 0, 0])
        extra = {"weights": weights} if function is expected_transitions else {}
        with pytest.raises(ValueError, match=r"^out "):
            function(*arguments, **extra, out=out)
        for a, copy in zip((b, start, A, lengths, weights), before, strict=True):
            assert np.array_equal(a, copy)
    both = np.zeros((2 * K, K))
    both[:K] = b
    with pytest.raises(ValueError, match=r"^out "):
        forward_backward(both[:K], start, A, out=both[1 : K + 1])
    forward_backward(both[:K], start, A, out=both[K:])  # beside is fine
    assert np.array_equal(both[:K], b)


# ---- errors ------------------------------------------------------------------------------------------------------


def refused(match, *arguments, functions=FUNCTIONS, **options):
    for function in functions:
        with pytest.raises(ValueError, match=match):
            function(*arguments, **options)


@pytest.mark.parametrize("row", [0, 1, 7, 8, 5000, 9999])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("is_log", [True, False])
def test_nan_is_named(rng, is_log, dtype, row):
    b, start, A = problem(rng, "mixing", 3, 10_000)
    b = (b if is_log else np.exp(b)).astype(dtype)
    b[row, row % 3] = nan
    b[row + 1 :: 3, 1] = nan
    for lengths in (None, [1] * 10_000, [5000, 0, 5000]):
        refused(rf"(?i)(?=.*nan)(?=.*\brow {row}\b)", b, start, A, lengths, log=is_log)


@pytest.mark.parametrize("where", ["startprob", "transmat"])
@pytest.mark.parametrize("value", [nan, inf, -inf, -0.1, -1e-300])
def test_bad_probabilities(rng, where, value):
    for K in (1, 3, 9):
        b, start, A = problem(rng, "mixing", K, 10)
        (start if where == "startprob" else A[-1])[0] = value
        if value < 0:
            (start if where == "startprob" else A[-1])[-1] += 0.1
        refused(where, b, start, A)


@pytest.mark.parametrize("error", [1e-5, -1e-5, -1.0, 1.0])
@pytest.mark.parametrize("K", [1, 4])
def test_probabilities_that_do_not_add_up(rng, K, error):
    b, start, A = problem(rng, "mixing", K, 10)
    refused("startprob", b, start * (1 + error), A)
    wrong = A.copy()
    wrong[-1] *= 1 + error
    refused("transmat", b, start, wrong)
    refused("transmat", np.empty((0, K)), start, wrong, [])
    if K > 1:  # rows, not columns
        refused("transmat", b, start, np.tile(rows_of(np.arange(1.0, K + 1))[:, None], (1, K)))


@pytest.mark.parametrize("row", [0, 5, 9999])
@pytest.mark.parametrize("K", [1, 4, 9])
def test_infinite_log_likelihoods(rng, K, row):
    b, start, A = problem(rng, "mixing", K, 10_000)
    b[row, K // 2] = inf
    refused("(?i)inf", b, start, A)
    refused("(?i)inf", b, start, A, [1] * 10_000)
    b[row] = inf
    refused("(?i)inf", b.astype(np.float32), start, A)


def test_bad_likelihoods(rng):
    b, start, A = problem(rng, "mixing", 3, 100)
    for value in (-1.0, -5e-324, inf, -inf, nan):
        p = np.exp(b)
        p[70, 1] = value
        refused(r"\brow 70\b", p, start, A, log=False)


def test_an_infinity_that_no_path_reaches(rng):
    """It is refused nevertheless: also in a state that is impossible, and behind an impossible step."""
    b, start, A = problem(rng, "left-right", 3, 10)
    b[0, 2] = inf
    refused("(?i)inf", b, start, A)
    b[0, 2], b[3], b[8, 1] = 0.0, -inf, inf
    refused("(?i)inf", b, start, A)
    b[8, 1] = nan
    refused(r"\brow 8\b", b, start, A)


@pytest.mark.parametrize(
    "lengths",
    [
        [19],
        [21],
        [10, 11],
        [],
        [25, -5],
        [-1, 21],
        [20, 0, 1],
        [[20]],
        20,
        [2.5, 17.5],
        [nan, 20],
        [inf],
        "20",
        [None],
        [2**62] * 4 + [20],  # 2^64 + 20
        np.array([2**63, 2**63, 20], np.uint64),
        [2**70],
    ],
)
def test_bad_lengths(rng, lengths):
    b, start, A = problem(rng, "mixing", 3, 20)
    for function in FUNCTIONS:
        with pytest.raises((ValueError, TypeError), match="lengths"):
            function(b, start, A, lengths)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64, np.int64])
def test_lengths_of_any_integer_type(rng, dtype):
    """Also of those whose sum does not fit into them."""
    b, start, A = problem(rng, "mixing", 3, 600)
    lengths = [100, 0, 120, 120, 127, 1, 32, 100]
    assert_same_bits(results(b, start, A, np.array(lengths, dtype)), results(b, start, A, lengths))


@pytest.mark.parametrize(
    ("b", "start", "A", "name"),
    [
        (np.zeros(3), [0.5, 0.5], np.eye(2), "log_likelihoods"),
        (np.zeros((3, 2, 1)), [0.5, 0.5], np.eye(2), "log_likelihoods"),
        (0.0, [1.0], [[1.0]], "log_likelihoods"),
        (np.zeros((3, 0)), [], np.zeros((0, 0)), "log_likelihoods"),
        (np.zeros((3, 2)), [1.0], np.eye(2), "startprob|transmat"),
        (np.zeros((3, 2)), [[0.5, 0.5]], np.eye(2), "startprob"),
        (np.zeros((3, 2)), 1.0, np.eye(2), "startprob"),
        (np.zeros((3, 2)), [0.5, 0.5], np.eye(3), "transmat"),
        (np.zeros((3, 2)), [0.5, 0.5], [0.5, 0.5], "transmat"),
        (np.zeros((3, 2)), [0.5, 0.5], [[0.5, 0.5]], "transmat"),
        (np.zeros((3, 2)), [0.5, 0.5], [[0.5, 0.5, 0.0]] * 2, "transmat"),
    ],
)
def test_bad_shapes(b, start, A, name):
    refused(f"{name}|startprob" if np.size(start) == 0 else name, b, start, A)


@pytest.mark.parametrize("dtype", [complex, np.longdouble, str])
def test_bad_dtypes(dtype):
    for function in FUNCTIONS:
        for i, name in enumerate(("log_likelihoods", "startprob", "transmat")):
            arguments = [np.zeros((3, 2)), np.array([0.5, 0.5]), np.eye(2)]
            arguments[i] = arguments[i].astype(dtype)
            with pytest.raises((ValueError, TypeError), match=name):
                function(*arguments)
    with pytest.raises((ValueError, TypeError), match="weights"):
        expected_transitions(np.zeros((3, 2)), [0.5, 0.5], np.eye(2), None, np.ones(1, dtype))


@pytest.mark.parametrize(
    "weights", [[1.0], [1.0] * 4, [[1.0] * 3], [1.0, -1.0, 1.0], [1.0, nan, 1.0], [1.0, inf, 1.0], ["a", None, 1.0]]
)
def test_bad_weights(rng, weights):
    b, start, A = problem(rng, "mixing", 2, 20)
    refused("weights", b, start, A, [10, 0, 10], weights, functions=[expected_transitions])


@pytest.mark.parametrize("n_threads", [0, -1, 1.5, "2", True])
def test_bad_n_threads(n_threads):
    refused("n_threads must be a positive integer", np.zeros((3, 1)), [1.0], [[1.0]], n_threads=n_threads)


def test_failed_calls_modify_nothing(rng):
    b, start, A = problem(rng, "mixing", 3, 2000)
    b[1500] = -inf
    before = [a.copy() for a in (b, start, A)]
    for function in (forward_backward, expected_transitions):
        with pytest.raises(ValueError, match=re.escape("row 1500")):
            function(b, start, A)
    for a, copy in zip((b, start, A), before, strict=True):
        assert np.array_equal(a, copy)


# ---- at the edges ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stay", [0.999, 1 - 1e-9])
@pytest.mark.parametrize("K", [2, 9])
def test_counts_of_rejected_cuts_are_not_kept(stay, K):
    """Informative at first, then flat: cuts are tried, and given up."""
    n = 20_000
    A = np.full((K, K), (1 - stay) / (K - 1))
    np.fill_diagonal(A, stay)
    b = np.zeros((n, K))
    b[0, 1:] = -5
    found = expected_transitions(b, np.eye(K)[0], A)
    np.testing.assert_allclose(found.transitions.sum(), n - 1, rtol=1e-12)
    np.testing.assert_allclose(found.start, np.eye(K)[0], atol=1e-15)
    np.testing.assert_allclose(found.transitions.sum(axis=1), found.posteriors[:-1].sum(axis=0), rtol=1e-9)


@pytest.mark.parametrize("lengths", [[9], [9] * 40])
@pytest.mark.parametrize("offset", [0.0, -1e9, 1e18, -1e40, -1e306])
def test_rows_that_are_far_from_all_states(offset, lengths):
    """Only differences within a row matter, also where transitions are impossible: 1e18 leaves no digits of others."""
    x = np.array([0, 0.1, -0.2, 5, 6.0, 4.9, 10, 10.2, 9.9])
    b = np.tile(grid(-0.5 * (x[:, None] - [0, 5.0, 10]) ** 2), (len(lengths), 1))
    A = [[0.9, 0.1, 0], [0, 0.9, 0.1], [0, 0, 1]]
    b[4::9] = 0.0  # rows without evidence
    plain = expected_transitions(b, [1, 0, 0], A, lengths)
    b[4::9] += offset
    moved = expected_transitions(b, [1, 0, 0], A, lengths)
    np.testing.assert_allclose(moved.posteriors, plain.posteriors, rtol=1e-13)
    np.testing.assert_allclose(moved.transitions, plain.transitions, rtol=1e-13)
    np.testing.assert_allclose(moved.log_likelihoods, plain.log_likelihoods + offset, rtol=1e-15)
    np.testing.assert_allclose(viterbi(b, [1, 0, 0], A, lengths).log_probs, moved.log_likelihoods, rtol=0.2)


def cuts_of(n, lanes):
    return np.r_[0, np.arange(1, lanes) * n // lanes, n]


def test_faint_evidence_in_a_chain_that_never_forgets():
    """A flat start at each cut would be right to 1e-13 there, and wrong by the sum of all."""
    K, n = 2, 400_000
    A = np.full((K, K), 1e-39)
    A[np.diag_indices(K)] = 1
    lanes = 8 * round(n / (8192 // K * 8))
    edges = cuts_of(n, lanes)
    b = np.zeros((n, K))
    b[(edges[1:] + edges[:-1]) // 2, 0] = 0.9e-13
    total = lanes * 0.9e-13
    found = forward_backward(b, np.full(K, 1 / K), A).posteriors[:, 0]
    np.testing.assert_allclose(found, np.exp(total) / (np.exp(total) + K - 1), rtol=1e-13)


def test_the_probability_of_a_path_is_that_of_the_path():
    """The same for paths: evidence so faint that a cut would not notice it."""
    n = 400_000
    for lanes in (8 * round(n / (4096 * 8)), 8 * round(n / (2048 * 8))):
        edges = cuts_of(n, lanes)
        b = np.zeros((n, 2))
        b[edges[1:-1] - 10, 1] = b[edges[1:-1] + 10, 1] = 0.3e-10
        b[(edges[1:] + edges[:-1]) // 2, 0] = 0.9e-10
        found = viterbi(b, [0.5, 0.5], np.eye(2))
        own = np.log(0.5) + fsum(b[np.arange(n), found.paths])
        np.testing.assert_allclose(found.log_probs, own, rtol=1e-15)
        assert found.log_probs[0] == pytest.approx(np.log(0.5) + max(fsum(column) for column in b.T), rel=1e-15)
