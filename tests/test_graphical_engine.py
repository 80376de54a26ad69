"""Exact inference: the engine against sums over all states, published numbers, and itself in other batches.

Published networks are looked for in the folder that FASTGEN_TEST_DATA names, or in ../shared/data beside the project;
what needs them is skipped where they are not.
"""

import copy
import itertools
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

import fastgen
from fastgen.graphical._engine import Engine, EngineLimitError
from fastgen.graphical._factors import DiscreteNetwork, FactorGraph
from fastgen.graphical._posterior import class_posteriors
from fastgen.graphical._triangulation import contract, eliminate
from fastgen.graphical.formats import read_bif, read_uai, read_uai_evidence, read_uai_solution

FORMS = list(itertools.product(["lanes", "runs"], ["indicators", "slices"]))


@pytest.fixture(scope="module")
def data():
    """The folder of published networks."""
    folder = Path(os.environ.get("FASTGEN_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not (folder / "uai").is_dir():
        pytest.skip(f"no published networks in {folder}; FASTGEN_TEST_DATA names another folder")
    return folder


def engine_of(graph, form=("lanes", "indicators"), **options):
    """An engine that is made to work in this form: rows side by side or not, evidence by indicators or slices."""
    engine = Engine(graph, **options)
    engine._lanes_from = 1 if form[0] == "lanes" else 10**9
    engine._generic_operations = (1 << 40) if form[1] == "indicators" else -1
    return engine


# ---- the oracle: all states at once ----------------------------------------------------------------------------------


def joint(graph):
    table = np.ones(graph.cardinalities)
    for factor in graph.factors:
        shape = [1] * graph.n_variables
        for variable in factor.scope:
            shape[variable] = graph.cardinalities[variable]
        ordered = factor.table.transpose(np.argsort(factor.scope)) if factor.scope else factor.table
        table = table * ordered.reshape(shape)
    return table


def given_row(table, row, soft=None):
    """The joint with what contradicts the row set to 0."""
    table = table.copy()
    for variable, code in enumerate(row):
        weights = np.ones(table.shape[variable])
        if code >= 0:
            weights = np.eye(table.shape[variable])[code]
        if soft is not None and soft.get(variable) is not None:
            weights = weights * soft[variable]
        table *= weights.reshape([-1 if axis == variable else 1 for axis in range(table.ndim)])
    return table


def others(table, *kept):
    return tuple(axis for axis in range(table.ndim) if axis not in kept)


def family(table, scope):
    """The sum over all other variables, axes in the order of the scope."""
    kept = table.sum(axis=others(table, *scope))
    return kept.transpose(np.argsort(np.argsort(scope))) if scope else kept


def log(value):
    with np.errstate(divide="ignore"):
        return np.log(value)


@st.composite
def graphs(draw, most=6):
    """Graphs with cycles, constants, isolated variables, variables of one state, zeros, repeated scopes."""
    cardinalities = draw(st.lists(st.integers(1, 4), min_size=1, max_size=most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    zeros = draw(st.sampled_from([0.0, 0.2]))
    factors = []
    for _ in range(draw(st.integers(0, 8))):
        scope = rng.permutation(len(cardinalities))[: draw(st.integers(0, 3))]
        table = rng.random([cardinalities[variable] for variable in scope]) * 10.0 ** rng.integers(-3, 4)
        factors.append((scope, table * (rng.random(table.shape) >= zeros)))
    return FactorGraph.of(cardinalities, factors)


def rows_for(graph, rng, n, missing=0.6):
    codes = np.stack([rng.integers(0, card, n) for card in graph.cardinalities], axis=1)
    return np.where(rng.random(codes.shape) < missing, -1, codes)


def grid(rng, height, width, card=2):
    """A square lattice with random factors: cyclic."""
    number = np.arange(height * width).reshape(height, width)
    pairs = [*zip(number[:, :-1].flat, number[:, 1:].flat, strict=True)]
    pairs += zip(number[:-1].flat, number[1:].flat, strict=True)
    factors = [(pair, rng.random((card, card)) + 0.05) for pair in pairs]
    return FactorGraph.of([card] * (height * width), factors)


def asia():
    """The chest clinic of Lauritzen and Spiegelhalter (1988), J. R. Statist. Soc. B 50, table 1; states no, yes."""

    def yes(probability):
        probability = np.asarray(probability)
        return np.stack([1 - probability, probability], axis=-1)

    names = ["asia", "tub", "smoke", "lung", "bronc", "either", "xray", "dysp"]
    return DiscreteNetwork.of(
        {name: ["no", "yes"] for name in names},
        {
            "asia": yes(0.01),
            "tub": yes([0.01, 0.05]),
            "smoke": yes(0.5),
            "lung": yes([0.01, 0.1]),
            "bronc": yes([0.3, 0.6]),
            "either": yes([[0.0, 1.0], [1.0, 1.0]]),
            "xray": yes([0.05, 0.98]),
            "dysp": yes([[0.1, 0.8], [0.7, 0.9]]),
        },
        {
            "tub": ["asia"],
            "lung": ["smoke"],
            "bronc": ["smoke"],
            "either": ["lung", "tub"],
            "xray": ["either"],
            "dysp": ["either", "bronc"],
        },
    )


# ---- against the sum over all states ---------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS, ids="-".join)
@given(graph=graphs(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_all_queries(form, graph, seed):
    rng = np.random.default_rng(seed)
    engine = engine_of(graph, form)
    table = joint(graph)
    rows = rows_for(graph, rng, 4)
    marginals, log_evidence = engine.marginals(rows)
    np.testing.assert_allclose(engine.log_evidence(rows), log_evidence, rtol=1e-12, atol=1e-12)
    states, log_value = engine.mpe(rows)
    for row in range(len(rows)):
        at = given_row(table, rows[row])
        total = at.sum()
        np.testing.assert_allclose(log_evidence[row], log(total), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(log_value[row], log(at.max()), rtol=1e-12, atol=1e-12)
        if total == 0:
            assert all(np.isnan(one[row]).all() for one in marginals)
            assert (states[row] == rows[row]).all()
            continue
        np.testing.assert_allclose(at[tuple(states[row])], at.max(), rtol=1e-12)
        for variable, one in enumerate(marginals):
            np.testing.assert_allclose(one[row], at.sum(axis=others(at, variable)) / total, atol=1e-13)


@pytest.mark.parametrize("form", FORMS, ids="-".join)
@given(graph=graphs(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_expected_counts(form, graph, seed):
    rng = np.random.default_rng(seed)
    engine = engine_of(graph, form)
    table = joint(graph)
    rows = rows_for(graph, rng, 5)
    weights = rng.random(5)
    totals = [given_row(table, row).sum() for row in rows]
    weights[np.array(totals) == 0] = 0
    if not weights.any():
        return
    counts, log_evidence = engine.expected_counts(rows, weights)
    np.testing.assert_allclose(log_evidence, log(totals), rtol=1e-12, atol=1e-12)
    for factor, count in zip(graph.factors, counts, strict=True):
        expected = np.zeros(factor.table.shape)
        for row, total, weight in zip(rows, totals, weights, strict=True):
            if weight:
                expected += weight * family(given_row(table, row), factor.scope) / total
        np.testing.assert_allclose(count, expected, atol=1e-12)


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_expected_counts_are_derivatives(form, rng):
    graph = grid(rng, 3, 3, card=3)
    rows = rows_for(graph, rng, 6)
    counts, _ = engine_of(graph, form).expected_counts(rows)
    step = 1e-6
    for number in (0, 5, 11):
        for cell in np.ndindex(graph.factors[number].table.shape):
            totals = []
            for sign in (-1, 1):
                factors = list(graph.factors)
                changed = factors[number].table.copy()
                changed[cell] *= np.exp(sign * step)
                factors[number] = type(factors[number])(factors[number].scope, changed)
                totals.append(
                    engine_of(FactorGraph(graph.cardinalities, tuple(factors)), form).log_evidence(rows).sum()
                )
            assert (totals[1] - totals[0]) / (2 * step) == pytest.approx(counts[number][cell], abs=1e-7)


@pytest.mark.parametrize("form", FORMS, ids="-".join)
@given(graph=graphs(most=4), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_soft_evidence(form, graph, seed):
    rng = np.random.default_rng(seed)
    engine = engine_of(graph, form)
    table = joint(graph)
    rows = rows_for(graph, rng, 4)
    soft = {
        variable: rng.random((4, card)) * (rng.random((4, card)) > 0.1) * 1e-5
        for variable, card in enumerate(graph.cardinalities)
        if rng.random() < 0.5
    }
    marginals, log_evidence = engine.marginals(rows, soft)
    for row in range(4):
        at = given_row(table, rows[row], {variable: weights[row] for variable, weights in soft.items()})
        total = at.sum()
        np.testing.assert_allclose(log_evidence[row], log(total), rtol=1e-12, atol=1e-12)
        for variable, one in enumerate(marginals):
            if total > 0:
                np.testing.assert_allclose(one[row], at.sum(axis=others(at, variable)) / total, atol=1e-13)


def test_all_patterns_of_missing_cells(rng):
    graph = FactorGraph.of(
        [2, 3, 2, 4], [([0, 1], rng.random((2, 3))), ([1, 2], rng.random((3, 2))), ([2, 3, 0], rng.random((2, 4, 2)))]
    )
    table = joint(graph)
    rows = np.array(list(itertools.product(*(range(-1, card) for card in graph.cardinalities))))
    expected = np.log([given_row(table, row).sum() for row in rows])
    for form in FORMS:
        np.testing.assert_allclose(engine_of(graph, form).log_evidence(rows), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_targets(form, rng):
    graph = asia().factor_graph()
    engine = engine_of(graph, form)
    rows = rows_for(graph, rng, 20)
    every, log_evidence = engine.marginals(rows)
    some, same = engine.marginals(rows, targets=[6, 1])
    assert len(some) == 2
    np.testing.assert_allclose(some[0], every[6], atol=1e-14)
    np.testing.assert_allclose(some[1], every[1], atol=1e-14)
    np.testing.assert_allclose(same, log_evidence, rtol=1e-13)


# ---- the same bits ---------------------------------------------------------------------------------------------------


def assert_same_bits(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_rows_alone_and_together(form, rng):
    graph = grid(rng, 3, 4, card=3)
    engine = engine_of(graph, form)
    rows = rows_for(graph, rng, 37)
    rows[20] = rows[3]
    marginals, log_evidence = engine.marginals(rows)
    states, log_value = engine.mpe(rows)
    for row in range(len(rows)):
        alone, log_alone = engine.marginals(rows[row])
        assert_same_bits([one[row : row + 1] for one in marginals], alone)
        assert log_alone[0] == log_evidence[row]
        states_alone, log_value_alone = engine.mpe(rows[row])
        assert (states_alone[0] == states[row]).all()
        assert log_value_alone[0] == log_value[row]
    order = rng.permutation(len(rows))
    shuffled, _ = engine.marginals(rows[order])
    assert_same_bits([one[order] for one in marginals], shuffled)


@pytest.mark.parametrize("evidence", ["indicators", "slices"])
@given(graph=graphs(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_rows_side_by_side_or_not(evidence, graph, seed):
    """Both forms of the kernels add up in the same order; which is used depends on the number of rows."""
    rng = np.random.default_rng(seed)
    rows = rows_for(graph, rng, 3)
    results = []
    for form in ("lanes", "runs"):
        engine = engine_of(graph, (form, evidence))
        marginals, log_evidence = engine.marginals(rows)
        possible = rows[log_evidence > -np.inf]
        results.append([*marginals, log_evidence, *engine.mpe(rows), engine.sample(3, possible, 0)])
        if len(possible):
            results[-1] += engine.expected_counts(possible)[0]
    assert_same_bits(*results)


@pytest.mark.parametrize("card", [2, 3, 5, 9, 17, 40])
def test_rows_side_by_side_or_not_with_long_runs(card, rng):
    graph = grid(rng, 2, 3, card) if card > 5 else grid(rng, 3, 5, card)
    rows = rows_for(graph, rng, 21, missing=0.8)
    one, other = (engine_of(graph, (form, "indicators")).marginals(rows) for form in ("lanes", "runs"))
    assert_same_bits([*one[0], one[1]], [*other[0], other[1]])
    usual = Engine(graph)
    for count in (1, 3, 5, 16, 21):
        marginals, log_evidence = usual.marginals(rows[:count])
        assert_same_bits([*marginals, log_evidence], [*(table[:count] for table in one[0]), one[1][:count]])


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_threads(form, rng):
    graph = grid(rng, 4, 4, card=3)
    engine = engine_of(graph, form)
    rows = rows_for(graph, rng, 300, missing=0.5 if form[1] == "indicators" else 0.02)
    results = []
    for threads in (1, 2, 7):
        with fastgen.num_threads(threads):
            marginals, log_evidence = engine.marginals(rows)
            counts, _ = engine.expected_counts(rows)
            samples = engine.sample(5, rows, 3)
            results.append([*marginals, log_evidence, *counts, samples, *engine.mpe(rows)])
    assert_same_bits(results[0], results[1])
    assert_same_bits(results[0], results[2])


# ---- samples ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_samples(form, rng):
    """Chi-square over all states; seeds are fixed, and a right sampler would fail for one seed in 10^6."""
    graph = FactorGraph.of(
        [2, 3, 1, 2, 3],
        [
            ([0, 1], rng.random((2, 3))),
            ([1, 3], [[1.0, 0.0], [0.3, 0.2], [0.5, 2.0]]),
            ([3, 0], rng.random((2, 2))),
            ([4], [0.2, 0.0, 0.5]),
        ],
    )
    table = joint(graph)
    n = 50_000
    for row in ([-1] * 5, [-1, 2, -1, -1, -1], [1, -1, -1, -1, 2]):
        samples = engine_of(graph, form).sample(n, row, 1)
        assert samples.shape == (n, 5)
        at = given_row(table, row)
        expected = (at / at.sum() * n).ravel()
        found = np.bincount(np.ravel_multi_index(samples.T, at.shape), minlength=at.size)
        assert not found[expected == 0].any()
        seen = expected > 0
        statistic = ((found - expected)[seen] ** 2 / expected[seen]).sum()
        assert statistic < chi2.isf(1e-6, seen.sum() - 1)


def test_samples_for_many_rows(rng):
    graph = grid(rng, 3, 3)
    rows = rows_for(graph, rng, 7)
    samples = Engine(graph).sample(11, rows, 5)
    assert samples.shape == (7, 11, 9)
    assert ((samples == rows[:, None]) | (rows[:, None] < 0)).all()
    assert Engine(graph).sample(0, rows).shape == (7, 0, 9)
    np.testing.assert_array_equal(samples, Engine(graph).sample(11, rows, np.random.default_rng(5)))


# ---- numbers: far from 1, impossible ---------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS, ids="-".join)
@pytest.mark.parametrize("scale", [1e-300, 1e300, 5e-324])
def test_products_beyond_the_range_of_floats(form, scale, rng):
    """A chain of 60 tables: the partition function is far outside of what a float can hold."""
    tables = [rng.integers(1, 5, (3, 3)) * scale if scale < 1 else rng.random((3, 3)) * scale for _ in range(60)]
    graph = FactorGraph.of([3] * 61, [([i, i + 1], tables[i]) for i in range(60)])
    exact = 0.0
    message = np.ones(3)
    for table in tables:
        message = message @ (table / scale)
        exact += np.log(message.sum()) + np.log(scale)
        message /= message.sum()
    marginals, log_evidence = engine_of(graph, form).marginals()
    np.testing.assert_allclose(log_evidence, exact, rtol=1e-13)
    np.testing.assert_allclose(marginals[60][0], message, rtol=1e-12)


def contradictions(m, p=0.01):
    """A cause of 2m effects, all of which are seen: half say that it is there, and half that it is not.

    In a product of one half, the two states are a factor of 99^m apart.
    """
    no, yes = [[p, 1 - p], [1 - p, p]], [[1 - p, p], [p, 1 - p]]
    factors = [([0], [0.5, 0.5])] + [([0, 1 + i], no if i < m else yes) for i in range(2 * m)]
    return FactorGraph.of([2] * (2 * m + 1), factors), np.array([-1] + [1] * (2 * m))


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_entries_that_would_vanish(form, rng):
    """99^400 is beyond the range of floats; both states are as likely in the end."""
    m, p = 400, 0.01
    graph, row = contradictions(m, p)
    engine = engine_of(graph, form)
    rows = np.stack([np.full(len(row), -1), row, row, row])
    rows[3, 1:20] = -1
    expected = m * (np.log(p) + np.log1p(-p))
    marginals, log_evidence = engine.marginals(rows)
    np.testing.assert_allclose(log_evidence[1], expected, rtol=1e-13)
    np.testing.assert_allclose(marginals[0][1], [0.5, 0.5], rtol=1e-10)  # 800 logarithms are added up
    np.testing.assert_allclose(marginals[7], [[0.5, 0.5], [0, 1], [0, 1], [1 - p, p]], rtol=1e-10)
    np.testing.assert_allclose(marginals[0][0], [0.5, 0.5], rtol=1e-14)
    states, log_value = engine.mpe(rows)
    np.testing.assert_allclose(log_value[1], expected + np.log(0.5), rtol=1e-13)
    assert states[3].tolist() == [1, *[0] * 19, *[1] * (2 * m - 19)]
    counts, _ = engine.expected_counts(row)
    np.testing.assert_allclose(counts[5], [[0, 0.5], [0, 0.5]], rtol=1e-10)
    np.testing.assert_allclose(counts[0], [0.5, 0.5], rtol=1e-10)
    samples = engine.sample(1000, row, 0)[:, 0]
    assert abs(samples.sum() - 500) < 5 * np.sqrt(250)  # a right sampler fails for one seed in 10^6
    for threads in (1, 2):
        with fastgen.num_threads(threads):
            assert_same_bits(engine.marginals(rows)[0], marginals)
    alone, _ = engine.marginals(rows[3])
    assert_same_bits([one[3:] for one in marginals], alone)


@pytest.mark.parametrize("form", FORMS, ids="-".join)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_entries_far_apart(form, seed):
    """Entries between 10^-300 and 1, some 0: against sums of logarithms over all states."""
    rng = np.random.default_rng(seed)
    cardinalities = rng.integers(1, 4, rng.integers(1, 6))
    factors = []
    for _ in range(rng.integers(1, 9)):
        scope = rng.permutation(len(cardinalities))[: rng.integers(0, 4)]
        table = 10.0 ** rng.uniform(-300 * rng.random(), 0, cardinalities[scope])
        factors.append((scope, table * (rng.random(table.shape) > 0.1)))
    graph = FactorGraph.of(cardinalities, factors)
    logs = np.zeros(graph.cardinalities)
    for factor in graph.factors:
        at = joint(FactorGraph(graph.cardinalities, (factor,)))
        logs = logs + log(at)
    engine = engine_of(graph, form)
    rows = rows_for(graph, rng, 5)
    rows[4] = -1
    soft = {0: 10.0 ** rng.uniform(-200, 0, (5, cardinalities[0]))} if rng.random() < 0.5 else None
    marginals, log_evidence = engine.marginals(rows, soft)
    states, log_value = engine.mpe(rows, soft)
    counts = [np.zeros(factor.table.shape) for factor in graph.factors]
    for row in range(5):
        at = logs + log(given_row(np.ones(graph.cardinalities), rows[row], soft and {0: soft[0][row]}))
        top = at.max()
        assert log_value[row] == pytest.approx(top, rel=1e-12)
        if top == -np.inf:
            assert log_evidence[row] == -np.inf
            continue
        shares = np.exp(at - top)
        assert log_evidence[row] == pytest.approx(top + np.log(shares.sum()), rel=1e-12)
        assert at[tuple(states[row])] == pytest.approx(top, rel=1e-12)
        shares /= shares.sum()
        for variable, one in enumerate(marginals):
            np.testing.assert_allclose(one[row], shares.sum(axis=others(shares, variable)), rtol=1e-12, atol=1e-12)
        for count, factor in zip(counts, graph.factors, strict=True):
            count += family(shares, factor.scope)
    possible = log_evidence > -np.inf
    if possible.any():
        given_soft = soft and {0: soft[0][possible]}
        for one, other in zip(engine.expected_counts(rows[possible], soft=given_soft)[0], counts, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)
        samples = engine.sample(20, rows[possible], 0, given_soft)
        assert (logs[tuple(np.moveaxis(samples, -1, 0))] > -np.inf).all()


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_impossible_evidence(form):
    engine = engine_of(asia().factor_graph(), form)
    row = np.full(8, -1)
    row[[1, 5]] = 1, 0  # tuberculosis, but neither that nor cancer
    rows = np.stack([row, np.full(8, -1)])
    marginals, log_evidence = engine.marginals(rows)
    assert log_evidence[0] == -np.inf
    assert all(np.isnan(one[0]).all() and np.isfinite(one[1]).all() for one in marginals)
    states, log_value = engine.mpe(rows)
    assert log_value[0] == -np.inf
    assert (states[0] == row).all()
    assert (states[1] >= 0).all()
    with pytest.raises(ValueError, match="row 0 has probability 0"):
        engine.sample(3, rows)
    with pytest.raises(ValueError, match="row 0 has probability 0"):
        engine.expected_counts(rows)
    counts, _ = engine.expected_counts(rows, [0, 2])
    assert counts[0].sum() == pytest.approx(2)


def test_no_variables_and_no_rows():
    empty = Engine(FactorGraph.of([], [([], 2.5)]))
    marginals, log_evidence = empty.marginals()
    assert marginals == []
    assert log_evidence == pytest.approx(np.log([2.5]))
    graph = FactorGraph.of([2, 3], [([0], [1.0, 2.0])])
    marginals, log_evidence = Engine(graph).marginals(np.empty((0, 2), int))
    assert [one.shape for one in marginals] == [(0, 2), (0, 3)]
    assert log_evidence.shape == (0,)


def test_masked_cells_are_missing(rng):
    graph = FactorGraph.of([2, 3], [([0, 1], rng.random((2, 3)))])
    engine = Engine(graph)
    expected = engine.log_evidence([[1, -1], [0, 2]])
    for hidden in (0, 2, 99, -7):
        rows = np.ma.array([[1, hidden], [0, 2]], mask=[[False, True], [False, False]])
        before = rows.copy()
        np.testing.assert_array_equal(engine.log_evidence(rows), expected)
        assert (rows.mask == before.mask).all()
        assert (rows.data == before.data).all()
    np.testing.assert_array_equal(engine.log_evidence(np.ma.array([0, 2])), expected[1:])


@pytest.mark.parametrize(
    ("evidence", "match"),
    [
        ([0, 0, 0], r"shape \(n, 2\)"),
        ([[0, 3]], r"variable 1 must be below 3, or -1 where it is missing, got 3 in row 0"),
        ([[0, 0], [-2, 0]], "got -2 in row 1"),
        ([[0.0, 1.0]], "integers"),
    ],
)
def test_evidence_is_checked(evidence, match):
    engine = Engine(FactorGraph.of([2, 3], []))
    with pytest.raises((ValueError, TypeError), match=match):
        engine.marginals(evidence)


@pytest.mark.parametrize(
    ("soft", "match"),
    [({0: [1.0, 2.0, 3.0]}, r"soft\[0\]"), ({1: [1.0, -1.0, 0.0]}, "not negative"), ({2: [1.0]}, "below 2")],
)
def test_soft_evidence_is_checked(soft, match):
    engine = Engine(FactorGraph.of([2, 3], []))
    with pytest.raises(ValueError, match=match):
        engine.marginals(None, soft)


# ---- orders and costs ------------------------------------------------------------------------------------------------


def test_costs_of_known_graphs(rng):
    chain = Engine(FactorGraph.of([3] * 10, [([i, i + 1], np.ones((3, 3))) for i in range(9)]))
    assert (chain.cost.width, chain.cost.states) == (1, 81)
    cycle = Engine(FactorGraph.of([2] * 6, [([i, (i + 1) % 6], np.ones((2, 2))) for i in range(6)]))
    assert (cycle.cost.width, cycle.cost.states) == (2, 32)
    assert Engine(grid(rng, 6, 6)).cost.width == 6
    assert Engine(FactorGraph.of([2, 3], [])).cost.width == 0


@given(graph=graphs(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_the_tree_sums_each_variable_once(graph, seed):
    scopes = [factor.scope for factor in graph.factors] + [(v,) for v in range(graph.n_variables)]
    order = eliminate(graph.cardinalities, scopes, range(graph.n_variables)).order
    assert sorted(order) == list(range(graph.n_variables))
    tree = contract(graph.cardinalities, scopes, [False] * len(scopes), order)
    assert sorted(variable for summed in tree.summed for variable in summed) == list(range(graph.n_variables))
    used = sorted(child for pair in tree.children for child in pair if child >= 0)
    assert used == [node for node in range(len(tree.scopes)) if node != tree.root]
    for (left, right), scope, summed in zip(tree.children, tree.scopes, tree.summed, strict=True):
        if left >= 0:
            union = {*tree.scopes[left], *(tree.scopes[right] if right >= 0 else ())}
            assert union == {*scope, *summed}
            assert not {*scope} & {*summed}


@pytest.mark.parametrize("rule", [0, 1, 2])
def test_each_step_takes_the_cheapest_vertex(rule, rng):
    """What the rules count is kept up to date: against counting again at each step."""
    from fastgen._kernels.jit.compilation import greedy_order

    for n, share in ((1, 0.5), (9, 0.0), (12, 0.3), (40, 0.1), (70, 0.06), (130, 0.02)):
        pairs = [(a, b) for a, b in itertools.combinations(range(n), 2) if rng.random() < share]
        sizes = np.log2(rng.integers(2, 6, n))
        order = np.empty(n, np.int64)
        pointers, members = np.arange(0, 2 * len(pairs) + 1, 2), np.array(pairs, np.int64).reshape(-1)
        total = greedy_order(n, pointers, members, sizes, rule, 0, np.inf, order)
        assert sorted(order) == list(range(n))
        around = {v: set() for v in range(n)}
        for a, b in pairs:
            around[a].add(b)
            around[b].add(a)

        def score(v, around=around, sizes=sizes):
            new = [pair for pair in itertools.combinations(around[v], 2) if pair[1] not in around[pair[0]]]
            clique = sizes[[v, *around[v]]].sum()
            return (-1, len(new), clique, sum(sizes[a] * sizes[b] for a, b in new))[rule + 1 if new else 0], clique

        states = 0.0
        for v in order:
            scores = {other: score(other) for other in around}
            np.testing.assert_allclose(scores[v], min(scores.values()), rtol=0, atol=1e-6)
            states += 2.0 ** scores[v][1]
            for a, b in itertools.permutations(around[v], 2):
                around[a].add(b)
            for a in around.pop(v):
                around[a].discard(v)
        assert total == pytest.approx(states, rel=1e-12)


def test_orders_are_looked_for_as_often_as_told(rng):
    graph = grid(rng, 40, 40)
    assert Engine(graph, rounds=4).cost.states < Engine(graph).cost.states  # by default, one is enough to refuse
    assert pickle.loads(pickle.dumps(Engine(graph, rounds=3))).rounds == 3
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        Engine(graph, rounds=0)


def test_the_order_does_not_depend_on_what_was_asked_before(data):
    """Near the limit, where the search gives up depends on the limit; it must not on the query."""
    graph, row = read_problem(data, "linkage_25")
    one, other = Engine(graph), Engine(graph)
    with pytest.raises(EngineLimitError) as first:
        one.marginals(row)
    with pytest.raises(EngineLimitError):
        other.log_evidence(row)
    assert other.forecast() == one.forecast() == first.value.cost


def test_large_costs_are_exact():
    """A clique of 70 binary variables: floats would round."""
    pairs = itertools.combinations(range(70), 2)
    engine = Engine(FactorGraph.of([2] * 70, [(pair, np.ones((2, 2))) for pair in pairs]))
    assert (engine.cost.width, engine.cost.states) == (69, 2**70)


def test_targets_in_any_order(rng):
    graph = FactorGraph.of([2, 3, 4], [((0, 1), rng.random((2, 3))), ((1, 2), rng.random((3, 4)))])
    engine = Engine(graph)
    every, log_evidence = engine.marginals([-1, -1, 2])
    some, again = engine.marginals([-1, -1, 2], targets=(i for i in (2, 0, 2, 1)))
    assert [len(part[0]) for part in some] == [4, 2, 4, 3]
    for part, variable in zip(some, (2, 0, 2, 1), strict=True):
        np.testing.assert_allclose(part, every[variable], atol=1e-15)
    np.testing.assert_allclose(again, log_evidence, rtol=1e-15)


# ---- complete rows: the posterior of one variable --------------------------------------------------------------------


@pytest.fixture
def blanket(rng):
    """Variable 2 has two parents, two children, a child's other parent, and some who do not matter; zeros."""
    parents = [(), (), (0, 1), (2, 4), (), (3, 2), (5,)]
    cardinalities = [2, 3, 4, 2, 3, 2, 2]
    tables = []
    for i, above in enumerate(parents):
        table = rng.random([*(cardinalities[j] for j in above), cardinalities[i]])
        table[rng.random(table.shape) < 0.25] = 0.0
        table[..., 0] += 0.1 * (table.sum(axis=-1) == 0)
        tables.append(table / table.sum(axis=-1, keepdims=True))
    states = [[f"s{k}" for k in range(cardinality)] for cardinality in cardinalities]
    names = [f"v{i}" for i in range(len(parents))]
    return DiscreteNetwork(tuple(names), tuple(map(tuple, states)), tuple(parents), tuple(tables))


@pytest.mark.parametrize("node", [0, 2, 4, 6])
def test_posteriors_of_one_variable(blanket, node, rng):
    """All rows there are, in an order of their own: against the engine, and products of tables."""
    graph = blanket.factor_graph()
    every = np.indices(graph.cardinalities).reshape(graph.n_variables, -1).T
    X = every[rng.permutation(len(every))]
    own = [factor for factor in graph.factors if node in factor.scope]  # all others are the same for each state
    product = joint(FactorGraph(graph.cardinalities, tuple(own)))
    with np.errstate(invalid="ignore"):
        table = np.moveaxis(product, node, -1)
        expected = (table / table.sum(axis=-1, keepdims=True))[tuple(np.delete(X, node, axis=1).T)]
    seen = X.copy()
    seen[:, node] = -1
    by_engine = Engine(graph).marginals(seen, targets=[node])[0][0]
    found = class_posteriors(blanket, X, node)
    assert np.isnan(expected).any() or node != 2
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)  # NaN where it is NaN
    possible = ~np.isnan(by_engine[:, 0])  # the engine looks at all of the row
    assert 0 < possible.sum() < len(X)
    np.testing.assert_allclose(found[possible], by_engine[possible], rtol=0, atol=1e-14)
    best = class_posteriors(blanket, X, node, predict=True)
    impossible = np.isnan(found[:, 0])
    np.testing.assert_array_equal(best == -1, impossible)
    np.testing.assert_array_equal(best[~impossible], found[~impossible].argmax(axis=1))


def test_posteriors_of_one_variable_in_other_layouts(blanket, rng):
    X = np.stack([rng.integers(0, c, 3000) for c in blanket.cardinalities], axis=1)
    expected = class_posteriors(blanket, X, 2, n_threads=1)
    wide = np.full((3000, 14), 99, np.uint8)
    wide[:, ::2] = X
    wide.flags.writeable = False
    for other, columns in (
        (np.asfortranarray(X, np.int32), None),
        (wide, range(0, 14, 2)),
        (X[:, ::-1], range(6, -1, -1)),
    ):
        np.testing.assert_array_equal(class_posteriors(blanket, other, 2, columns, n_threads=2), expected)
    for i in (0, 255, 256, 2999):
        np.testing.assert_array_equal(class_posteriors(blanket, X[i : i + 1], 2)[0], expected[i])
    assert class_posteriors(blanket, X[:0], 2).shape == (0, 4)
    X[:, 2] = 99  # not looked at
    np.testing.assert_array_equal(class_posteriors(blanket, X, 2), expected)
    X[700, 4] = 3
    with pytest.raises(ValueError, match=r"row 700 holds 3 for .*, whose states are 0 to 2"):
        class_posteriors(blanket, X, 2)


def test_too_large_is_refused_before_it_is_tried(rng):
    graph = grid(rng, 60, 60)
    engine = Engine(graph)
    start = time.perf_counter()
    assert engine.cost.width >= 55
    with pytest.raises(EngineLimitError, match=r"bytes, above limit=") as caught:
        engine.marginals()
    assert caught.value.cost == engine.cost
    assert time.perf_counter() - start < 60
    small = Engine(grid(rng, 4, 4), operation_limit=10)
    with pytest.raises(EngineLimitError, match="operation_limit=10"):
        small.log_evidence()


def test_unobserved_leaves_cost_nothing(rng):
    """A network of which only one node is asked for: what is below it is left out."""
    n = 30
    tables = [rng.dirichlet(np.ones(3), size=(3, 3)[: min(node, 2)]) for node in range(n)]
    network = DiscreteNetwork(
        tuple(f"x{node}" for node in range(n)),
        (("a", "b", "c"),) * n,
        tuple(tuple(range(max(0, node - 2), node)) for node in range(n)),
        tuple(tables),
    )
    engine = engine_of(network.factor_graph(), ("lanes", "slices"))
    assert engine.forecast(targets=[0]).states == 3
    assert engine.forecast(targets=[n - 1]).states == 27 * (n - 2)
    marginals, log_evidence = engine.marginals(targets=[0])
    np.testing.assert_allclose(marginals[0][0], network.tables[0], rtol=1e-15)
    assert log_evidence == pytest.approx([0], abs=1e-14)


def test_compiled_patterns(rng):
    graph = grid(rng, 4, 4)
    engine = Engine(graph)
    rows = rows_for(graph, rng, 50)
    before, log_before = engine.marginals(rows)
    cost = engine.compile(np.flatnonzero(rows[7] >= 0))
    assert cost.operations < engine.cost.operations
    after, log_after = engine.marginals(rows)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-14)
    np.testing.assert_allclose(log_before, log_after, rtol=1e-13)


def test_other_tables(rng):
    """What EM does: the same structure, other numbers."""
    graph = grid(rng, 3, 4, card=3)
    engine = Engine(graph)
    rows = rows_for(graph, rng, 30)
    engine.compile(np.flatnonzero(rows[7] >= 0))
    engine.expected_counts(rows)
    engine.marginals(rows)
    for _ in range(2):
        graph = FactorGraph.of(graph.cardinalities, [(f.scope, rng.random(f.table.shape)) for f in graph.factors])
        engine = engine.with_tables(graph)
        new = Engine(graph)
        new.compile(np.flatnonzero(rows[7] >= 0))
        assert_same_bits(engine.expected_counts(rows)[0], new.expected_counts(rows)[0])
        assert_same_bits(engine.marginals(rows)[0], new.marginals(rows)[0])
        assert_same_bits(engine.mpe(rows), new.mpe(rows))
    with pytest.raises(ValueError, match="cardinalities and scopes"):
        engine.with_tables(FactorGraph.of(graph.cardinalities, graph.factors[1:]))


def test_pickled_and_copied(rng):
    engine = Engine(grid(rng, 3, 3))
    rows = rows_for(engine.graph, rng, 9)
    engine.compile(np.flatnonzero(rows[2] >= 0))
    for other in (pickle.loads(pickle.dumps(engine)), copy.deepcopy(engine)):
        assert_same_bits(engine.marginals(rows)[0], other.marginals(rows)[0])
    error = EngineLimitError("text", engine.cost)
    assert pickle.loads(pickle.dumps(error)).cost == engine.cost


def test_calls_from_several_threads(rng):
    graph = grid(rng, 4, 4)
    engine = engine_of(graph, ("lanes", "slices"))
    rows = rows_for(graph, rng, 40, missing=0.1)
    expected = engine_of(graph, ("lanes", "slices")).log_evidence(rows)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: engine.log_evidence(rows), range(8)):
            np.testing.assert_array_equal(found, expected)


# ---- published numbers -----------------------------------------------------------------------------------------------


def test_chest_clinic():
    """Marginals before a visit to Asia and dyspnoea are known, and after: from the sum over all states."""
    network = asia()
    engine = Engine(network.factor_graph())
    marginals, log_evidence = engine.marginals()
    assert log_evidence == pytest.approx([0], abs=1e-14)
    found = {name: one[0, 1] for name, one in zip(network.names, marginals, strict=True)}
    expected = {"asia": 0.01, "tub": 0.0104, "smoke": 0.5, "lung": 0.055, "bronc": 0.45, "either": 0.064828}
    for name, value in {**expected, "xray": 0.11029004, "dysp": 0.4359706}.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name
    row = np.full(8, -1)
    row[[0, 7]] = 1
    marginals, log_evidence = engine.marginals(row)
    at = given_row(joint(network.factor_graph()), row)
    assert np.exp(log_evidence[0]) == pytest.approx(at.sum(), rel=1e-14)
    for variable, one in enumerate(marginals):
        np.testing.assert_allclose(one[0], at.sum(axis=others(at, variable)) / at.sum(), atol=1e-15)


UAI = {
    "Alchemy_11": 606.279198988, "Pedigree_13": -15.212864446, "Promedus_13": -4.507028261, "Promedus_15": -3.636672002,
    "Promedus_21": -5.580117285, "Promedus_27": -8.135758242, "Promedus_29": -10.452678159, "Promedus_31": -1.799790352,
    "Promedus_33": -2.808655798, "Promedus_35": -1.742949767, "Segmentation_11": -23.996092195,
    "Segmentation_13": -33.368772286,
}  # fmt: skip


def read_problem(data, name):
    model = read_uai(data / "uai" / f"{name}.uai.gz")
    graph = model.factor_graph() if isinstance(model, DiscreteNetwork) else model
    row = np.full(graph.n_variables, -1)
    for variable, state in read_uai_evidence(data / "uai" / f"{name}.uai.evid").items():
        row[variable] = state
    return graph, row


@pytest.mark.parametrize("name", UAI)
def test_competition_problems(data, name):
    """UAI 2014: log10 of the partition function to nine digits, marginals as published."""
    graph, row = read_problem(data, name)
    marginals, log_evidence = Engine(graph).marginals(row)
    assert log_evidence[0] / np.log(10) == pytest.approx(UAI[name], abs=2e-9)
    published = read_uai_solution(data / "uai" / f"{name}.uai.MAR").marginals
    assert len(published) == len(marginals)
    for one, other in zip(marginals, published, strict=True):
        np.testing.assert_allclose(one[0], other, atol=2e-6)


LARGER = ["CSP_11", "DBN_11", "DBN_13", "DBN_15", "Grids_11", "Grids_13", "ObjectDetection_11", "Pedigree_11"]


@pytest.mark.parametrize("name", [*LARGER, "Segmentation_15", "linkage_19", "linkage_21"])
def test_larger_published_problems(data, name):
    """UAI 2014: the other nine within the reach of one machine, and two beyond in another order; all printed digits."""
    graph, row = read_problem(data, name)
    marginals, log_evidence = Engine(graph, limit=1 << 32).marginals(row)
    digits = read_uai_solution(data / "uai" / f"{name}.uai.PR").log10_partition
    assert log_evidence[0] / np.log(10) == pytest.approx(
        digits, abs=0.51 * 10.0 ** (np.floor(np.log10(abs(digits))) - 5)
    )
    published = read_uai_solution(data / "uai" / f"{name}.uai.MAR").marginals
    for one, other in zip(marginals, published, strict=True):
        np.testing.assert_allclose(one[0], other, rtol=0, atol=0.51e-6)


@pytest.mark.parametrize("number", range(11, 28, 2))
def test_linkage_problems_are_refused_at_once(data, number):
    """With 64 MB, all nine; by default some of them can be done, although other orders have 2^43 states."""
    graph, row = read_problem(data, f"linkage_{number}")
    engine = Engine(graph, limit=1 << 26)
    start = time.perf_counter()
    with pytest.raises(EngineLimitError, match=r"above limit=6.71e\+07"):
        engine.marginals(row)
    assert time.perf_counter() - start < 30  # a second at most, were the machine ours alone


@pytest.mark.parametrize("number", [11, 13, 15, 17, 23, 25])
def test_linkage_problems_that_cannot_be_done(data, number):
    """The best orders known to us need 2.5e9 (13) to 3e11 bytes: above the default of 2^31."""
    graph, row = read_problem(data, f"linkage_{number}")
    engine = Engine(graph)
    cost = engine.forecast(np.flatnonzero(row >= 0))
    assert cost.bytes > 2**31
    with pytest.raises(
        EngineLimitError, match=r"cliques have up to \d+ variables.* loopy belief propagation"
    ) as caught:
        engine.marginals(row)
    assert caught.value.cost == cost


def test_a_linkage_problem_that_can_be_done(data):
    """linkage_21, with 2^32 states in the cliques of another order: log10 p(evidence) as published."""
    graph, row = read_problem(data, "linkage_21")
    published = read_uai_solution(data / "uai" / "linkage_21.uai.PR").log10_partition
    assert Engine(graph).log_evidence(row)[0] / np.log(10) == pytest.approx(published, abs=1e-4)


def test_published_networks_agree_with_sums_in_another_order(data, rng):
    """p(evidence) two ways: at once, and as a product of conditional distributions of one variable after another."""
    for name in ("alarm", "child", "insurance"):
        graph = read_bif(data / "bif" / f"{name}.bif.gz").normalised().factor_graph()
        engine = Engine(graph)
        (row,) = engine.sample(1, random_state=4)
        total = 0.0
        evidence = np.full(graph.n_variables, -1)
        for variable in rng.permutation(graph.n_variables):
            marginals, _ = engine.marginals(evidence, targets=[variable])
            total += np.log(marginals[0][0, row[variable]])
            evidence[variable] = row[variable]
        assert engine.log_evidence(row)[0] == pytest.approx(total, rel=1e-12)
        states, log_value = engine.mpe(row)
        assert (states[0] == row).all()
        assert log_value[0] == pytest.approx(total, rel=1e-12)


def test_nothing_is_imported_before_it_is_needed(python):
    python("import sys, fastgen.graphical._engine; assert 'numba' not in sys.modules")
