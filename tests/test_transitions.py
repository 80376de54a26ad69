"""The M-step of Markov chains: constraints, against constrained optimisation by SciPy; stationary distributions."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import linprog, minimize

from fastgen._transitions import ChainStep, maximise_rows, stationary_distribution

nan = np.nan


def random_chain(rng, K, holes=0.0):
    """A stochastic matrix; some entries are 0, but not those from each state to the next."""
    A = rng.dirichlet(np.ones(K), K)
    A[(rng.random((K, K)) < holes) & ~np.roll(np.eye(K, dtype=bool), 1, axis=1)] = 0.0
    return A / A.sum(axis=1, keepdims=True)


def objective(counts, p):
    """Sum of counts log p."""
    some = counts > 0
    return float(counts[some] @ np.log(p[some]))


def best_by_slsqp(counts, free, fixed, ties):
    """The maximum of sum counts log p over free entries, with rows that add up to 1 and equal tied entries."""
    R, K = counts.shape
    number = np.where(ties >= 0, ties + R * K, np.arange(R * K).reshape(R, K))
    groups, group = np.unique(number[free], return_inverse=True)
    rows = np.nonzero(free)[0]
    mass = 1 - np.where(free, 0.0, fixed).sum(axis=1)
    M = np.zeros((R, len(groups)))
    np.add.at(M, (rows, group), 1.0)
    N = np.bincount(group, counts[free], len(groups))
    scale = N.sum()
    start = np.linalg.lstsq(M, mass, rcond=None)[0]
    found = minimize(
        lambda theta: -(N @ np.log(theta)) / scale,
        np.maximum(start, 1e-3),
        jac=lambda theta: -N / theta / scale,
        method="SLSQP",
        bounds=[(1e-9, 1.0)] * len(groups),
        constraints={"type": "eq", "fun": lambda theta: M @ theta - mass, "jac": lambda theta: M},
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    p = np.where(free, 0.0, fixed)
    p[free] = found.x[group]
    return p


# ---- stationary distributions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("K", [1, 2, 3, 7, 20])
def test_stationary_distribution_is_that_of_exact_arithmetic(rng, K):
    A = random_chain(rng, K, holes=0.3)
    pi = stationary_distribution(A)
    assert_allclose(pi @ A, pi, rtol=1e-13)
    assert pi.sum() == pytest.approx(1, rel=1e-15)
    # Gauss with fractions: the equations (I - A^T) pi = 0 but one, and sum pi = 1; rows of A are made to add up exactly
    exact = [[Fraction(p) for p in row] for row in A]
    for row in exact:
        total = sum(row)
        row[:] = [p / total for p in row]
    system = [[Fraction(int(i == j)) - exact[j][i] for j in range(K)] + [Fraction(0)] for i in range(K - 1)]
    system.append([Fraction(1)] * (K + 1))
    for i in range(K):
        pivot = next(r for r in range(i, K) if system[r][i] != 0)
        system[i], system[pivot] = system[pivot], system[i]
        system[i] = [v / system[i][i] for v in system[i]]
        for r in range(K):
            if r != i and system[r][i] != 0:
                factor = system[r][i]
                system[r] = [v - factor * w for v, w in zip(system[r], system[i], strict=True)]
    assert_allclose(pi, [float(row[-1]) for row in system], rtol=1e-13)


def test_stationary_distribution_has_relative_precision():
    """Nearly decomposable: pi_1 / pi_0 = a / b of [[1 - a, a], [b, 1 - b]], whatever their size."""
    for a, b in ((1e-200, 0.5), (1e-17, 1e-18), (0.3, 1e-300)):
        pi = stationary_distribution(np.array([[1 - a, a], [b, 1 - b]]))
        assert_allclose(pi[1] / pi[0], a / b, rtol=1e-14)


def test_stationary_distribution_of_a_birth_death_chain():
    """Detailed balance: pi_i p = pi_i+1 q, so pi_i = r^i (1 - r) / (1 - r^K)."""
    K, p, q = 30, 0.1, 0.4
    A = np.diag(np.full(K - 1, p), 1) + np.diag(np.full(K - 1, q), -1)
    A += np.diag(1 - A.sum(axis=1))
    r = p / q
    assert_allclose(stationary_distribution(A), r ** np.arange(K) * (1 - r) / (1 - r**K), rtol=1e-13)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_stationary_distribution_of_two_classes_is_an_error(order):
    A = np.array([[1.0, 0, 0], [0, 1.0, 0], [0.3, 0.3, 0.4]])[np.ix_(order, order)]
    with pytest.raises(ValueError, match="no unique stationary distribution"):
        stationary_distribution(A)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]])
def test_stationary_distribution_with_transient_states(order):
    """One absorbing state: all probability ends there, wherever it stands."""
    A = np.array([[0.5, 0.5, 0], [0, 0.5, 0.5], [0, 0, 1.0]])[np.ix_(order, order)]
    assert_allclose(stationary_distribution(A), np.array([0, 0, 1.0])[order], atol=1e-16)


def test_stationary_distribution_does_not_change_its_argument():
    A = np.array([[0.9, 0.1], [0.2, 0.8]])
    before = A.copy()
    stationary_distribution(A)
    assert_array_equal(A, before)


# ---- rows -----------------------------------------------------------------------------------------------------------


def test_rows_without_constraints_are_shares(rng):
    counts = rng.gamma(1.0, size=(4, 5))
    counts[2] = 0
    old = rng.dirichlet(np.ones(5), 4)
    p = maximise_rows(counts, old)
    some = [0, 1, 3]
    assert_allclose(p[some], counts[some] / counts[some].sum(axis=1, keepdims=True), rtol=1e-15)
    assert_array_equal(p[2], old[2])  # nothing is known of it


def test_tiny_counts_are_counts():
    assert_allclose(maximise_rows(np.array([[1e-310, 3e-310]]), np.array([[0.5, 0.5]])), [[0.25, 0.75]], rtol=1e-9)


def test_fixed_entries_stay_and_the_others_share_the_rest(rng):
    """The maximum of sum n log p under p_0 = f: p_j = (1 - f) n_j / sum of the free n."""
    counts = rng.gamma(1.0, size=(3, 4))
    fixed = np.full((3, 4), nan)
    fixed[0, 1], fixed[1] = 0.3, [0.1, 0.2, 0.3, 0.4]
    old = np.full((3, 4), 0.25)
    old[0], old[1] = [0.7 / 3, 0.3, 0.7 / 3, 0.7 / 3], fixed[1]
    p = maximise_rows(counts, old, fixed)
    assert p[0, 1] == 0.3
    free = [0, 2, 3]
    assert_allclose(p[0, free], 0.7 * counts[0, free] / counts[0, free].sum(), rtol=1e-14)
    assert_array_equal(p[1], fixed[1])
    assert_allclose(p[2], counts[2] / counts[2].sum(), rtol=1e-14)


def test_a_free_entry_beside_fixed_ones_that_take_all_is_zero():
    for values in ([0.7, 0.2, 0.1], [0.1, 0.2, 0.7], [0.33, 0.33, 0.34], [1 / 3, 1 / 3, 1 / 3 + 5e-10]):
        fixed = np.array([[*values, nan]])
        p = maximise_rows(np.ones((1, 4)), np.array([[*values, 1e-17]]), fixed)
        assert_array_equal(p[0, :3], values)
        assert 0 <= p[0, 3] < 1e-15


def test_fixed_values_hold_whatever_was_before():
    """As when a warm start gets new constraints."""
    fixed = np.array([[0.2, nan, nan], [nan, nan, nan]])
    old = np.full((2, 3), 1 / 3)
    counts = np.array([[1.0, 3, 1], [1, 1, 2]])
    p = maximise_rows(counts, old, fixed)
    assert_allclose(p, [[0.2, 0.6, 0.2], [0.25, 0.25, 0.5]], rtol=1e-15)


# ---- ties -----------------------------------------------------------------------------------------------------------


def test_ties_within_a_row():
    """Two equal entries share their counts: theta = N / (2 n)."""
    p = maximise_rows(np.array([[6.0, 1.0, 3.0]]), np.full((1, 3), 1 / 3), None, np.array([[-1, 4, 4]]))
    assert_allclose(p, [[0.6, 0.2, 0.2]], rtol=1e-14)


def test_ties_of_a_symmetric_two_state_chain():
    """p stay, 1 - p change in both rows: p = stays / all (a closed form)."""
    counts = np.array([[7.0, 2.0], [3.0, 8.0]])
    for ties in ([[0, 1], [1, 0]], [[0, -1], [-1, 0]], [[-1, 5], [5, -1]]):
        p = maximise_rows(counts, np.full((2, 2), 0.5), None, np.array(ties))
        assert_allclose(p, [[0.75, 0.25], [0.25, 0.75]], rtol=1e-13)


def test_ties_of_whole_rows_pool_their_counts(rng):
    counts = rng.gamma(1.0, size=(3, 4))
    ties = np.array([[0, 1, 2, 3], [0, 1, 2, 3], [-1, -1, -1, -1]])
    p = maximise_rows(counts, np.full((3, 4), 0.25), None, ties)
    pooled = counts[:2].sum(axis=0)
    assert_allclose(p[:2], np.tile(pooled / pooled.sum(), (2, 1)), rtol=1e-13)
    assert_allclose(p[2], counts[2] / counts[2].sum(), rtol=1e-13)


@pytest.mark.parametrize("seed", range(20))
def test_random_ties_against_slsqp(seed):
    """Every row keeps an entry of its own, so that any ties can be satisfied."""
    rng = np.random.default_rng(seed)
    K = int(rng.integers(2, 6))
    ties = rng.integers(-2, 3, (K, K))
    ties[np.arange(K), rng.integers(0, K, K)] = -1
    ties[rng.random((K, K)) < 0.1] = -1
    counts = rng.gamma(0.7, 10.0, (K, K)) + 1e-3
    free = np.ones((K, K), bool)
    p = maximise_rows(counts, np.full((K, K), 1 / K), None, ties)
    assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    assert p.min() >= 0
    for number in np.unique(ties[ties >= 0]):
        assert np.ptp(p[ties == number]) < 1e-15
    theirs = best_by_slsqp(counts, free, np.zeros((K, K)), ties)
    assert objective(counts, p) >= objective(counts, theirs) - 1e-9 * counts.sum()
    assert_allclose(p, theirs, atol=2e-5)


@pytest.mark.parametrize("seed", range(12))
def test_random_ties_with_fixed_entries_against_slsqp(seed):
    rng = np.random.default_rng(seed)
    K = int(rng.integers(3, 6))
    fixed = np.full((K, K), nan)
    columns = rng.integers(1, K, K)
    fixed[np.arange(K), columns] = rng.uniform(0, 0.4, K)
    ties = rng.integers(-1, 2, (K, K))
    ties[:, 0] = -1
    free = np.isnan(fixed)
    counts = rng.gamma(0.7, 10.0, (K, K)) + 1e-3
    old = np.where(free, ((1 - np.nansum(fixed, axis=1)) / (K - 1))[:, None], fixed)
    p = maximise_rows(counts, old, fixed, ties)
    assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    assert_array_equal(p[~free], fixed[~free])
    for number in (0, 1):
        some = (ties == number) & free
        assert not some.any() or np.ptp(p[some]) < 1e-15
    theirs = best_by_slsqp(counts, free, np.where(free, 0.0, fixed), ties)
    assert objective(counts * free, p) >= objective(counts * free, theirs) - 1e-9 * counts.sum()
    assert_allclose(p, theirs, atol=2e-5)


@st.composite
def tied_counts(draw):
    """Counts with zeros, ties, fixed values and structural zeros, which need not go together."""
    R = draw(st.integers(1, 4))
    K = draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    counts = rng.gamma(0.7, 10.0, (R, K)) * (rng.random((R, K)) < draw(st.sampled_from([0.3, 0.7, 1.0])))
    ties = rng.integers(-2, 3, (R, K))
    fixed = np.where(rng.random((R, K)) < draw(st.sampled_from([0.0, 0.2])), rng.choice([0.0, 0.1, 0.25], (R, K)), nan)
    may_be = (rng.random((R, K)) < draw(st.sampled_from([0.7, 1.0]))) | (np.arange(K) == rng.integers(K))
    fixed[:, 0] = np.where(np.isnan(fixed).any(axis=1), fixed[:, 0], nan)
    may_be |= ~np.isnan(fixed) | ~(may_be & np.isnan(fixed)).any(axis=1, keepdims=True)
    old = np.where(may_be, rng.gamma(1.0, size=(R, K)) + 0.05, 0.0)
    return counts * may_be, old / old.sum(axis=1, keepdims=True), fixed, ties


@given(tied_counts())
def test_ties_against_linear_programmes(problem):
    """Rows exist where SciPy's linear programme finds some, and no others are better: the objective is concave.

    At the maximum, the derivative sum N_g (x_g - theta_g) / theta_g towards each other x is not positive, where counts
    are. Where N_g = 0, the term is 0. The linear programme maximises it over all x.
    """
    counts, old, fixed, ties = problem
    R, K = counts.shape
    free = np.isnan(fixed) & (old > 0)
    number = np.where(ties >= 0, ties + R * K, np.arange(R * K).reshape(R, K))
    groups, group = np.unique(number[free], return_inverse=True)
    M = np.zeros((R, len(groups)))
    np.add.at(M, (np.nonzero(free)[0], group), 1.0)
    N = np.bincount(group, counts[free], len(groups))
    mass = 1 - np.nansum(fixed, axis=1)
    if linprog(np.zeros(len(groups)), A_eq=M, b_eq=mass).status != 0:
        with pytest.raises(ValueError, match="remove some of the ties"):
            maximise_rows(counts, old, fixed, ties)
        return
    p = maximise_rows(counts, old, fixed, ties)
    assert p.min() >= 0
    assert_allclose(p.sum(axis=1), 1, rtol=0, atol=1e-14)
    assert_array_equal(p[~np.isnan(fixed)], fixed[~np.isnan(fixed)])
    assert_array_equal(p[(old == 0) & np.isnan(fixed)], 0)
    theta = np.array([p[free][group == g][0] for g in range(len(groups))])
    assert_array_equal(p[free], theta[group])
    forced = theta == 0  # with counts: it can be nothing else
    for g in np.flatnonzero(forced & (N > 0)):
        assert -linprog(-np.eye(len(groups))[g], A_eq=M, b_eq=mass).fun < 1e-9
    slope = np.divide(N, theta, out=np.zeros_like(N), where=~forced)
    best = linprog(-slope, A_eq=M, b_eq=mass)
    assert -best.fun - N[~forced].sum() <= 1e-6 * max(1.0, N.sum())


def test_tied_entries_beside_fixed_ones_that_take_all_are_zero():
    for values in ([0.7, 0.2, 0.1], [0.1, 0.2, 0.7], [1 / 3, 1 / 3, 1 / 3 - 1e-16]):
        fixed = np.array([[*values, nan, nan], [nan] * 5])
        ties = np.array([[-1, -1, -1, 0, 0], [-1, -1, -1, -1, 0]])
        for rows in ([0], [0, 1]):
            p = maximise_rows(np.ones((len(rows), 5)), np.full((len(rows), 5), 0.2), fixed[rows], ties[rows])
            assert_allclose(p, [[*values, 0, 0], [0.25, 0.25, 0.25, 0.25, 0]][: len(rows)], rtol=1e-13)


@pytest.mark.parametrize("power", [-100, -20, 0, 20, 100])
def test_ties_do_not_depend_on_the_scale_of_the_counts(power):
    counts = np.array([[5.0, 1.0, 2.0], [1.0, 9.0, 4.0], [2.0, 2.0, 3.0]])
    ties = np.array([[0, 1, -1], [1, 0, -1], [-1, 1, 0]])
    old = np.full((3, 3), 1 / 3)
    expected = maximise_rows(counts, old, None, ties)
    assert_allclose(maximise_rows(counts * 10.0**power, old, None, ties), expected, rtol=1e-11)


def test_unbalanced_counts_of_tied_entries():
    """Counts of very different sizes: the first-order conditions hold, theta = N / sum of multipliers."""
    counts = np.array([[1e8, 1.0, 1e-6], [1e-6, 1e3, 1.0], [1.0, 1e-3, 1e8]])
    ties = np.array([[-1, 0, -1], [0, -1, 1], [1, -1, -1]])
    p = maximise_rows(counts, np.full((3, 3), 1 / 3), None, ties)
    assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    multipliers = np.array([counts[0, 0] / p[0, 0], counts[1, 1] / p[1, 1], counts[2, 2] / p[2, 2]])
    tied = counts[0, 1] + counts[1, 0]
    assert_allclose(p[0, 1], tied / (multipliers[0] + multipliers[1]), rtol=1e-8)
    tied = counts[1, 2] + counts[2, 0]
    assert_allclose(p[1, 2], tied / (multipliers[1] + multipliers[2]), rtol=1e-8)


def test_a_tie_does_not_decide_a_row_that_has_another_entry():
    """a_01 = a_10. Of row 1 only the tied entry has counts; a_11 takes what is left: p = (5, 1 + 2) of row 0.

    max 5 log(1 - a) + 3 log a: a = 3/8.
    """
    counts = np.array([[5.0, 1.0], [2.0, 0.0]])
    p = maximise_rows(counts, np.full((2, 2), 0.5), None, np.array([[-1, 0], [0, -1]]))
    assert_allclose(p, [[5 / 8, 3 / 8], [3 / 8, 5 / 8]], rtol=1e-12)


def test_a_row_without_counts_follows_its_ties():
    """a_01 = a_10, row 1 was never left: row 0 decides, and row 1 has the rest in a_11."""
    counts = np.array([[3.0, 1.0], [0.0, 0.0]])
    p = maximise_rows(counts, np.full((2, 2), 0.5), None, np.array([[-1, 0], [0, -1]]))
    assert_allclose(p, [[0.75, 0.25], [0.25, 0.75]], rtol=1e-12)
    counts = np.array([[3.0, 0.0], [0.0, 0.0]])  # the tied entry may become 0
    p = maximise_rows(counts, np.full((2, 2), 0.5), None, np.array([[-1, 0], [0, -1]]))
    assert_allclose(p, [[1, 0], [0, 1]], atol=1e-12)


def test_ties_that_cannot_be_are_an_error():
    """Row 0 wants a = 1/2, row 1 (a, with 0.2 fixed) a = 0.8."""
    fixed = np.array([[nan, nan], [nan, 0.2]])
    ties = np.array([[0, 0], [0, -1]])
    old = np.array([[0.5, 0.5], [0.8, 0.2]])
    with pytest.raises(ValueError, match="tie"):
        maximise_rows(np.ones((2, 2)), old, fixed, ties)


def test_ties_of_entries_that_may_not_be():
    """An entry of probability 0 without counts stays 0; those that it is tied to do not."""
    old = np.array([[0.5, 0.5, 0.0], [0.25, 0.5, 0.25], [0.0, 0.5, 0.5]])
    counts = np.array([[4.0, 1.0, 0.0], [1.0, 6.0, 1.0], [0.0, 2.0, 2.0]])
    ties = np.array([[-1, 0, 1], [0, -1, 0], [1, 0, -1]])
    p = maximise_rows(counts, old, None, ties)
    assert p[0, 2] == p[2, 0] == 0
    assert_allclose(p.sum(axis=1), 1, rtol=1e-13)
    assert np.ptp(p[[0, 1, 1, 2], [1, 0, 2, 1]]) < 1e-15


# ---- the whole step -------------------------------------------------------------------------------------------------


def step(K, **options):
    defaults = {
        "start_mask": np.ones(K, bool),
        "mask": np.ones((K, K), bool),
        "start_pseudo": np.zeros(K),
        "pseudo": np.zeros((K, K)),
    }
    return ChainStep(**(defaults | options))


def test_pseudo_counts_are_counts(rng):
    pseudo, start_pseudo = rng.gamma(1.0, size=(3, 3)), rng.gamma(1.0, size=3)
    counts, first = rng.gamma(1.0, size=(3, 3)), rng.gamma(1.0, size=3)
    one = step(3, pseudo=pseudo, start_pseudo=start_pseudo)
    start, A = one.maximise(first, counts, np.full(3, 1 / 3), np.full((3, 3), 1 / 3))
    assert_allclose(start, (first + start_pseudo) / (first + start_pseudo).sum(), rtol=1e-14)
    assert_allclose(A, (counts + pseudo) / (counts + pseudo).sum(axis=1, keepdims=True), rtol=1e-14)
    assert one.penalty(start, A) == pytest.approx(
        (start_pseudo @ np.log(start)) + (pseudo * np.log(A)).sum(), rel=1e-13
    )


def test_pseudo_counts_maximise_likelihood_and_prior(rng):
    """Against SLSQP, under ties."""
    pseudo, counts = rng.gamma(1.0, size=(3, 3)), rng.gamma(2.0, size=(3, 3))
    ties = np.array([[0, -1, 1], [-1, 0, 1], [-1, -1, 0]])
    one = step(3, pseudo=pseudo, ties=ties)
    _, A = one.maximise(np.ones(3), counts, np.full(3, 1 / 3), np.full((3, 3), 1 / 3))
    theirs = best_by_slsqp(counts + pseudo, np.ones((3, 3), bool), np.zeros((3, 3)), ties)
    assert_allclose(A, theirs, atol=2e-6)
    value = objective(counts, A) + one.penalty(np.full(3, 1 / 3), A)
    assert value >= objective(counts, theirs) + one.penalty(np.full(3, 1 / 3), theirs) - 1e-12


def test_penalty_of_nothing_is_nothing():
    A = np.array([[1.0, 0.0], [0.5, 0.5]])
    assert step(2).penalty(np.array([1.0, 0.0]), A) == 0.0
    assert step(2, pseudo=np.ones((2, 2))).penalty(np.ones(2), A) == -math.inf


def test_masks_win_over_counts():
    """Rounding, or pseudo-counts, cannot open what is closed."""
    mask = np.array([[True, False], [True, True]])
    one = step(2, mask=mask, start_mask=np.array([True, False]))
    start, A = one.maximise(np.ones(2), np.ones((2, 2)), np.array([1.0, 0.0]), np.array([[1.0, 0.0], [0.5, 0.5]]))
    assert_array_equal(start, [1, 0])
    assert_array_equal(A, [[1, 0], [0.5, 0.5]])


def test_projecting_keeps_what_the_constraints_allow(rng):
    A, start = random_chain(rng, 3), rng.dirichlet(np.ones(3))
    for projected, expected in zip(step(3).project(start, A), (start, A), strict=True):
        assert_allclose(projected, expected, rtol=1e-15)
    mask = np.array([[True, True, False], [False, True, True], [True, False, True]])
    fixed = np.array([[nan, 0.25, 0.0], [nan] * 3, [nan] * 3])
    ties = np.array([[-1, -1, -1], [-1, 0, -1], [-1, -1, 0]])
    only = np.array([False, True, False])
    one = step(3, mask=mask, fixed=np.where(mask, fixed, 0.0), ties=ties, start_mask=only)
    start, P = one.project(np.array([1.0, 0, 0]), A)
    assert_array_equal(start, only)
    assert_array_equal(P[0], [0.75, 0.25, 0.0])
    assert_array_equal(P[~mask], 0)
    assert_allclose(P.sum(axis=1), 1, rtol=1e-15)
    # max of n log t + m log(1 - t): t = n / (n + m)
    tied, rest = A[1, 1] + A[2, 2], A[1, 2] + A[2, 0]
    assert_allclose([P[1, 1], P[2, 2]], tied / (tied + rest), rtol=1e-13)


def stationary_objective(first, counts, A):
    return objective(counts, A) + objective(first, stationary_distribution(A))


@pytest.mark.parametrize("seed", range(8))
def test_stationary_start_against_slsqp(seed):
    """Maximises sum n log a + sum m log pi(A); SLSQP gets pi from the eigenvector, and numerical gradients."""
    rng = np.random.default_rng(seed)
    K = int(rng.integers(2, 5))
    first, counts = rng.gamma(1.0, 5.0, K), rng.gamma(1.0, 3.0, (K, K)) + 0.1
    old = rng.dirichlet(np.ones(K), K)
    pi, A = step(K, stationary=True).maximise(first, counts, stationary_distribution(old), old)
    assert_allclose(A.sum(axis=1), 1, rtol=1e-14)
    assert_allclose(pi, stationary_distribution(A), rtol=1e-14)

    def negative(flat):
        M = flat.reshape(K, K)
        system = np.vstack([np.eye(K) - M.T, np.ones(K)])
        stationary = np.linalg.lstsq(system, np.r_[np.zeros(K), 1.0], rcond=None)[0]
        return -(counts.ravel() @ np.log(flat) + first @ np.log(np.maximum(stationary, 1e-12))) / counts.sum()

    found = minimize(
        negative,
        (counts / counts.sum(axis=1, keepdims=True)).ravel(),
        method="SLSQP",
        bounds=[(1e-9, 1.0)] * K**2,
        constraints={"type": "eq", "fun": lambda flat: flat.reshape(K, K).sum(axis=1) - 1},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    theirs = found.x.reshape(K, K) / found.x.reshape(K, K).sum(axis=1, keepdims=True)
    mine = stationary_objective(first, counts, A)
    assert mine >= stationary_objective(first, counts, theirs) - 1e-8 * counts.sum()
    assert mine >= stationary_objective(first, counts, old)


def test_stationary_start_is_never_worse(rng):
    """From a point that is the maximum already, to rounding."""
    first, counts = np.array([3.0, 1.0, 2.0]), rng.gamma(1.0, 4.0, (3, 3))
    one = step(3, stationary=True)
    A = np.full((3, 3), 1 / 3)
    values = []
    for _ in range(8):
        _, A = one.maximise(first, counts, stationary_distribution(A), A)
        values.append(stationary_objective(first, counts, A))
    assert np.diff(values).min() >= -1e-13 * abs(values[-1])
    # The derivative along any direction that keeps the rows' sums is 0: that of SciPy's optimum, by differences
    for _ in range(20):
        direction = rng.normal(size=(3, 3))
        direction -= direction.mean(axis=1, keepdims=True)
        above, below = (stationary_objective(first, counts, A + sign * 1e-5 * direction) for sign in (1, -1))
        assert abs(above - below) / 2e-5 < 2e-3 * counts.sum() ** 0.5


def test_stationary_start_keeps_the_mask(rng):
    mask = np.eye(4, dtype=bool) | np.roll(np.eye(4, dtype=bool), 1, axis=1)
    old = np.where(mask, 0.5, 0.0)
    pi, A = step(4, mask=mask, stationary=True).maximise(
        np.array([1.0, 0, 0, 0]), rng.gamma(2.0, 5.0, (4, 4)) * mask, np.full(4, 0.25), old
    )
    assert_array_equal(A[~mask], 0.0)
    assert_allclose(pi @ A, pi, rtol=1e-13)
