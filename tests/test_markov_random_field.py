"""Markov random fields against brute force, Onsager's and Kaufman's exact results, and moments of data."""

import io
import itertools
import pickle
import warnings
from math import cosh, exp, log, sinh, sqrt, tanh
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2

from fastgen import num_threads
from fastgen.graphical import EngineLimitError, FactorGraph, UnnormalisedWarning, formats
from fastgen.graphical._graph_cuts import graph_cut, minimum_cut
from fastgen.graphical.markov_random_field import MarkovRandomField

SETS = 40
METHODS = "likelihood", "pseudo_likelihood", "contrastive_divergence", "persistent_contrastive_divergence"


def all_states(cardinalities: Any) -> np.ndarray:
    states = list(itertools.product(*map(range, cardinalities)))
    return np.array(states, np.int64).reshape(len(states), len(cardinalities))


def random_edges(rng: np.random.Generator, n: int, m: int) -> np.ndarray:
    return np.array([rng.choice(n, 2, replace=False) for _ in range(m)] if n > 1 else [], np.int64).reshape(-1, 2)


def potential(unary: Any, edges: Any, tables: Any, X: np.ndarray) -> np.ndarray:
    """The definition, term by term."""
    tables = np.broadcast_to(tables, (len(edges), *np.shape(tables)[-2:]))
    return np.array(
        [
            sum(unary[i][x[i]] for i in range(len(unary)))
            + sum(table[x[i], x[j]] for (i, j), table in zip(edges, tables, strict=True))
            for x in X
        ]
    )


def random_pairwise(seed: int, K: int = 3, n: int = 5) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    edges = random_edges(rng, n, 7)
    return rng.normal(size=(n, K)), edges, rng.normal(size=(len(edges), K, K))


def general(seed: int = 0) -> MarkovRandomField:
    """Factors of 0 to 3 variables, one with zeros, two of the same scope, and a variable in none."""
    rng = np.random.default_rng(seed)
    sizes = [2, 3, 1, 4, 2]
    factors: list[Any] = [((), 2.5)]
    for scope in ((0,), (1, 0), (3, 0, 1), (1, 0), (2, 3)):
        factors.append((scope, rng.random([sizes[v] for v in scope]) + 0.1))
    factors[3][1][2, 1, 0] = 0.0
    return MarkovRandomField(factors, sizes)


def brute(model: MarkovRandomField) -> tuple[np.ndarray, np.ndarray]:
    X = all_states(model.cardinalities)
    if model.edges is not None:
        return X, potential(model.unary, model.edges, model.pairwise, X)
    logs = np.zeros(len(X))
    with np.errstate(divide="ignore"):
        for factor in model.graph.factors:
            logs += np.log(factor.table[tuple(X[:, v] for v in factor.scope)])
    return X, logs


def small_models() -> dict[str, MarkovRandomField]:
    rng = np.random.default_rng(9)
    return {
        "general": general(),
        "pairwise": MarkovRandomField.from_pairwise(*random_pairwise(1)),
        "shared": MarkovRandomField.from_pairwise(rng.normal(size=(4, 2)), [[0, 1], [3, 1]], rng.normal(size=(2, 2))),
        "ising": MarkovRandomField.ising([[0, 1], [2, 1], [0, 2]], [0.3, -0.4, 1.0], [0.1, 0.0, -0.5, 0.2]),
        "potts": MarkovRandomField.potts([[0, 1], [2, 1]], 3, [0.8, -0.3], [0.1, 0.0, 0.4]),
        "grid": MarkovRandomField.grid((2, 3), coupling=0.4, field=-0.2),
        "torus": MarkovRandomField.grid((2, 3), 3, coupling=0.4, periodic=True),
        "rough": MarkovRandomField.grid((2, 2), coupling=[0.5, -0.3, 0.2, 0.8], field=rng.normal(size=(2, 2))),
        "colours": MarkovRandomField.grid((2, 2), 3, coupling=[0.5, -0.3], field=rng.normal(size=(2, 2, 3))),
        "one": MarkovRandomField.ising([], 1.0, 0.3, n_nodes=1),
        "apart": MarkovRandomField.potts(np.zeros((0, 2), int), 3, n_nodes=3),
    }


@pytest.mark.parametrize("name", small_models())
def test_probabilities_against_brute_force(name: str) -> None:
    model = small_models()[name]
    X, logs = brute(model)
    np.testing.assert_allclose(model.unnormalised_log_prob(X), logs, rtol=1e-13, atol=1e-13)
    np.testing.assert_array_equal(model.energy(X), -model.unnormalised_log_prob(X))
    p = np.exp(logs)
    assert model.log_partition_function() == pytest.approx(log(p.sum()), abs=1e-12)
    np.testing.assert_allclose(np.exp(model.log_prob(X)), p / p.sum(), rtol=1e-11, atol=1e-300)

    evidence = np.full(model.n_variables, -1)
    evidence[0] = 1
    for given in (None, evidence):
        kept = np.ones(len(X), bool) if given is None else X[:, 0] == 1
        result = model.marginals(given)
        assert result.exact
        assert result.method == "exact"
        assert result.log_partition == pytest.approx(log(p[kept].sum()), abs=1e-12)
        for v, size in enumerate(model.cardinalities):
            expected = np.bincount(X[kept, v], p[kept], result.marginals.shape[1]) / p[kept].sum()
            np.testing.assert_allclose(result.marginals[v], expected, atol=1e-12)
            assert not result.marginals[v, size:].any()
        best = model.map(given)
        assert best.exact
        assert best.energy == pytest.approx(-logs[kept].max(), abs=1e-12)
        assert best.lower_bound <= best.energy
        np.testing.assert_allclose(model.energy(best.states[None]), best.energy, rtol=1e-14)
    # rows with missing cells: summed over
    partial = np.array(X[:2])
    partial[:, -1] = -1
    expected = [log(p[(X[:, :-1] == row[:-1]).all(axis=1)].sum() / p.sum()) for row in partial]
    np.testing.assert_allclose(model.log_prob(partial), expected, atol=1e-11)
    as_floats = np.where(partial < 0, np.nan, partial.astype(float))
    np.testing.assert_array_equal(model.log_prob(as_floats), model.log_prob(partial))
    for cells in (np.where(partial < 0, 7, partial), np.maximum(partial, 0).astype(float)):
        masked = np.ma.array(cells, mask=partial < 0)
        np.testing.assert_array_equal(model.log_prob(masked), model.log_prob(partial))
        np.testing.assert_array_equal(model.marginals(masked[0]).marginals, model.marginals(partial[0]).marginals)


def test_rows_of_evidence_are_answered_like_one_row() -> None:
    model = small_models()["pairwise"]
    rows = np.array([[-1, -1, 2, -1, 0], [1, -1, -1, -1, -1], [0, 1, 2, 0, 1]])
    marginals, best = model.marginals(rows), model.map(rows, "exact")
    assert marginals.marginals.shape == (3, 5, 3)
    for r, row in enumerate(rows):
        one, single = model.marginals(row), model.map(row)
        np.testing.assert_array_equal(one.marginals, marginals.marginals[r])
        assert one.log_partition == marginals.log_partition[r]
        np.testing.assert_array_equal(single.states, best.states[r])
        assert single.energy == best.energy[r]
        assert (single.states[row >= 0] == row[row >= 0]).all()


@pytest.mark.parametrize("name", ["pairwise", "ising", "potts", "grid"])
def test_node_permutations_edge_order_and_constants_change_nothing(name: str) -> None:
    model = small_models()[name]
    assert model.edges is not None
    assert model.unary is not None
    assert model.pairwise is not None
    rng = np.random.default_rng(2)
    n, m = model.n_variables, len(model.edges)
    tables = np.broadcast_to(model.pairwise, (m, *model.pairwise.shape[1:]))
    nodes, edges, turned = rng.permutation(n), rng.permutation(m), rng.random(m) < 0.5
    place = np.argsort(nodes)  # new number of each node
    ends, parts = place[model.edges], np.array(tables)
    ends[turned], parts[turned] = ends[turned, ::-1], parts[turned].transpose(0, 2, 1)
    unary = model.unary[nodes] + 3.0
    other = MarkovRandomField.from_pairwise(unary, ends[edges], parts[edges] - 1.5)
    constant = 3.0 * n - 1.5 * m
    assert other.log_partition_function() - constant == pytest.approx(model.log_partition_function(), abs=1e-12)
    X = all_states(model.cardinalities)
    np.testing.assert_allclose(other.log_prob(X[:, nodes]), model.log_prob(X), atol=1e-12)
    np.testing.assert_allclose(other.marginals().marginals, model.marginals().marginals[nodes], atol=1e-12)
    assert other.map().energy + constant == pytest.approx(model.map().energy, abs=1e-12)


# ---- missing values, soft evidence, joint queries, files -------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float64, object])
def test_what_is_masked_is_missing(dtype: Any) -> None:
    model = MarkovRandomField.grid((2, 3), coupling=0.3, field=0.1)
    rng = np.random.default_rng(0)
    X, mask = model.sample(8, 0), rng.random((8, 6)) < 0.4
    mask[0] = False
    masked, missing = np.ma.masked_array(X.astype(dtype), mask), np.where(mask, -1, X)
    assert np.ma.masked_array(X, mask).mask[1:].any()
    np.testing.assert_array_equal(model.log_prob(masked), model.log_prob(missing))
    np.testing.assert_array_equal(model.marginals(masked).marginals, model.marginals(missing).marginals)
    np.testing.assert_array_equal(model.map(masked[3], "icm").states, model.map(missing[3], "icm").states)
    np.testing.assert_array_equal(model.map(masked[3]).states, model.map(missing[3]).states)
    np.testing.assert_array_equal(model.sample(5, 0, evidence=masked[3]), model.sample(5, 0, evidence=missing[3]))
    fits = [MarkovRandomField.grid((2, 3)).fit(data, l2=0.1).coupling for data in (masked, missing)]
    np.testing.assert_array_equal(*fits)
    for call in (model.energy, model.unnormalised_log_prob, lambda X: model.map(method="icm", start=X[1])):
        with pytest.raises(ValueError, match="complete"):
            call(masked)


def test_evidence_as_a_mapping() -> None:
    model = small_models()["pairwise"]
    row = [-1, 2, -1, -1, 0]
    for given in ({1: 2, 4: 0}, {np.int64(4): np.int8(0), 1: 2}):
        np.testing.assert_array_equal(model.marginals(given).marginals, model.marginals(row).marginals)
        np.testing.assert_array_equal(model.map(given).states, model.map(row).states)
    for wrong, error in (({5: 0}, "variables 0 to 4"), ({-1: 0}, "variables 0 to 4"), ({"a": 0}, "variables 0 to 4"),
                         ({True: 0}, "variables 0 to 4"), ({0: 3}, "states from 0 to 2"), ({0: 1.0}, "as integers"),
                         ({0: True}, "as integers")):  # fmt: skip
        with pytest.raises(ValueError, match=error):
            model.marginals(wrong)


def with_soft(logs: np.ndarray, X: np.ndarray, soft: Any) -> np.ndarray:
    """Log-potentials of all states, with likelihoods multiplied in."""
    with np.errstate(divide="ignore"):
        return logs + sum(np.log(np.asarray(likelihood)[X[:, v]]) for v, likelihood in soft.items())


@pytest.mark.parametrize("name", ["general", "pairwise", "ising", "potts", "one"])
def test_soft_evidence_is_a_further_factor(name: str) -> None:
    model = small_models()[name]
    X, logs = brute(model)
    rng = np.random.default_rng(3)
    variables = [v for v in (0, 2, 3) if v < model.n_variables]
    soft = {v: rng.random(model.cardinalities[v]) * 1e3 for v in variables}
    soft[0] = soft[0] * np.where(np.arange(len(soft[0])) == 0, 0.0, 1.0)  # rules out one state
    tilted = with_soft(logs, X, soft)
    p = np.exp(tilted)
    found = model.marginals(soft=soft)
    assert found.exact
    assert found.log_partition == pytest.approx(log(p.sum()), abs=1e-12)
    for v, size in enumerate(model.cardinalities):
        np.testing.assert_allclose(
            found.marginals[v, :size], np.bincount(X[:, v], p, size) / p.sum(), rtol=1e-12, atol=1e-12
        )
    best = model.map(soft=soft)
    assert best.energy == pytest.approx(-tilted.max(), abs=1e-12)
    assert model.map(method="icm", soft=soft, n_starts=20, random_state=0).energy == pytest.approx(
        -tilted.max(), abs=1e-12
    )  # 20 starts meet the best of at most 300 states
    draws = model.sample(20_000, 0, soft=soft)
    for v, size in enumerate(model.cardinalities):
        q = np.bincount(X[:, v], p, size) / p.sum()
        share = np.bincount(draws[:, v], minlength=size) / 20_000
        assert (np.abs(share - q) <= 4.9 * np.sqrt(q * (1 - q) / 20_000)).all()  # one in 10^6 for each state


def test_soft_evidence_of_approximate_methods_and_of_rows() -> None:
    tree = random_tree(0)
    rng = np.random.default_rng(1)
    evidence = np.where(rng.random((3, 7)) < 0.3, 1, -1)
    soft = {0: rng.random((3, 3)), 5: rng.random(3)}
    exact, loopy = tree.marginals(evidence, soft=soft), tree.marginals(evidence, "loopy", soft=soft)
    np.testing.assert_allclose(loopy.marginals, exact.marginals, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(loopy.log_partition, exact.log_partition, rtol=1e-9, atol=1e-8)
    for r in range(3):
        one = tree.marginals(evidence[r], soft={0: soft[0][r], 5: soft[5]})
        np.testing.assert_array_equal(one.marginals, exact.marginals[r])
    same = {0: soft[0][0], 5: soft[5]}
    np.testing.assert_array_equal(
        tree.map(evidence, "max_product", soft=same).states, tree.map(evidence, "exact", soft=same).states
    )
    graph = MarkovRandomField.from_factor_graph(tree.graph)  # the path of general factors
    np.testing.assert_allclose(
        graph.marginals(evidence, "loopy", soft=soft, schedule="sequential").marginals, exact.marginals, atol=1e-9
    )
    free = tree.marginals(soft=same)
    gibbs = tree.marginals(method="gibbs", soft=same, n_samples=20_000, random_state=0)
    assert np.abs(gibbs.marginals - free.marginals).max() < 0.02  # 80,000 draws, fewer by their correlation
    bound = tree.marginals(method="mean_field", soft=same).log_partition
    assert free.log_partition - 3 < bound <= free.log_partition
    for wrong, error in (({0: [1.0, 2.0]}, r"soft\[0\] must have shape"), ({0: [1.0, -1.0, 0.0]}, "not negative"),
                         ({0: [1.0, np.nan, 0.0]}, "finite"), ({9: [1.0]}, "variables 0 to 6")):  # fmt: skip
        with pytest.raises(ValueError, match=error):
            tree.marginals(soft=wrong)
    with pytest.raises(TypeError, match="mapping"):
        tree.marginals(soft=[[1.0, 2.0, 3.0]])
    assert np.isnan(tree.marginals(soft={0: np.zeros(3)}).marginals).all()


@pytest.mark.parametrize("name", ["general", "pairwise", "torus", "one", "apart"])
def test_joint_queries_against_brute_force(name: str) -> None:
    model = small_models()[name]
    X, logs = brute(model)
    sizes = model.cardinalities
    total = np.logaddexp.reduce(logs)
    rng = np.random.default_rng(7)
    for n_targets in range(1, min(3, len(sizes)) + 1):
        targets = rng.permutation(len(sizes))[:n_targets].tolist()
        seen = int(rng.integers(len(sizes)))
        soft = {int(rng.integers(len(sizes))): None}
        (v,) = soft
        soft = {v: rng.random(sizes[v]) + 0.1}
        for evidence in ({}, {seen: 0}):
            tilted = with_soft(logs, X, soft)
            for u, state in evidence.items():
                tilted = np.where(X[:, u] == state, tilted, -np.inf)
            p = np.exp(tilted)
            expected = np.zeros([sizes[t] for t in targets])
            np.add.at(expected, tuple(X[:, t] for t in targets), p / p.sum())
            answer = model.query(targets, evidence, soft=soft)
            np.testing.assert_allclose(answer.probabilities, expected, rtol=1e-12, atol=1e-12)
            assert answer.exact
            assert answer.variables == tuple(targets)
            assert answer.states == tuple(tuple(range(sizes[t])) for t in targets)
            assert answer.log_evidence == pytest.approx(log(p.sum()) - total, abs=1e-11)
    one = model.query(0)
    np.testing.assert_allclose(one.probabilities, model.marginals().marginals[0][: sizes[0]], rtol=1e-12, atol=1e-14)
    assert one.log_evidence == pytest.approx(0.0, abs=1e-12)


def test_joint_queries_refuse() -> None:
    model = MarkovRandomField([], [2] * 66)
    for size in (40, 66):
        with pytest.raises(EngineLimitError, match="joint distribution of"):
            model.query(range(size))
    np.testing.assert_array_equal(model.query(range(3)).probabilities, np.full((2, 2, 2), 1 / 8))
    with pytest.raises(EngineLimitError, match="joint"):
        MarkovRandomField([], [10**12]).query(0)
    with pytest.raises(EngineLimitError, match="multiplications"):
        MarkovRandomField.grid((12, 12)).query(range(21))
    apart = MarkovRandomField.from_pairwise(np.zeros((2, 2)), [[0, 1]], [[-np.inf, 0.0], [0.0, -np.inf]])
    np.testing.assert_array_equal(apart.query([0, 1], {1: 1}).probabilities, [[0.0, 1.0], [0.0, 0.0]])
    with pytest.raises(ValueError, match="impossible"):
        apart.query(0, {0: 1, 1: 1})
    with pytest.raises(ValueError, match="impossible"):
        apart.query(0, {0: 1}, soft={1: [0.0, 1.0]})
    for targets, error in (([], "each once"), ([0, 0], "each once"), ([2], "variables 0 to 1"), ("a", "variables 0")):
        with pytest.raises(ValueError, match=error):
            apart.query(targets)
    with pytest.raises(ValueError, match="one row"):
        apart.query(0, [[0, 1], [1, 0]])
    # the sum over what is observed is much cheaper than log Z
    wide = MarkovRandomField.grid((40, 40), coupling=0.3, field=0.1, limit=10**6)
    rest = wide.query([0, 1], dict.fromkeys(range(2, 1600), 1))
    assert np.isnan(rest.log_evidence)
    assert rest.probabilities[1, 1] / rest.probabilities[0, 1] == pytest.approx(exp(2 * (2 * 0.3 + 0.1)), rel=1e-12)


def test_factor_graphs_and_files() -> None:
    models = small_models()
    for name in ("general", "pairwise", "ising"):
        model = models[name]
        X, logs = brute(model)
        text = io.StringIO()
        model.write(text)
        for other in (
            MarkovRandomField.read(io.StringIO(text.getvalue())),
            MarkovRandomField.from_factor_graph(formats.read_uai(io.StringIO(text.getvalue())), limit=10**6),
        ):
            np.testing.assert_allclose(other.unnormalised_log_prob(X), logs, rtol=1e-12, atol=1e-13)
            assert other.log_partition_function() == pytest.approx(model.log_partition_function(), abs=1e-12)
        assert other.limit == 10**6
    graph = FactorGraph.of([2, 3], [([1], [1.0, 2.0, 4.0])])
    model = MarkovRandomField.from_factor_graph(graph)
    assert model.graph.factors[0] is graph.factors[0]
    assert model.log_partition_function() == pytest.approx(log(14), abs=1e-15)
    # a directed model: Z is 1
    network = formats.read_uai(io.StringIO("BAYES 2 2 2 2 1 0 2 0 1 2 0.25 0.75 4 0.5 0.5 0.125 0.875"))
    directed = MarkovRandomField.from_factor_graph(network)
    assert directed.log_partition_function() == pytest.approx(0.0, abs=1e-15)
    assert directed.log_prob([[1, 1]])[0] == pytest.approx(log(0.75 * 0.875), abs=1e-15)
    # constants beyond the range of float64
    large = MarkovRandomField.from_pairwise([[0.0, 600.0], [900.0, 901.0]], [[0, 1]], [[-2000.0, -2001.0]] * 2)
    text = io.StringIO()
    large.write(text)
    again = MarkovRandomField.read(io.StringIO(text.getvalue()))
    assert again.log_partition_function() == pytest.approx(large.log_partition_function(), abs=1e-12)
    for wrong in (graph.factors, None, "model.uai"):
        with pytest.raises(TypeError, match="must be a FactorGraph"):
            MarkovRandomField.from_factor_graph(wrong)


# ---- published results -----------------------------------------------------------------------------------------------


def kaufman(rows: int, columns: int, K: float) -> float:
    """log Z of the Ising model on a torus without field: B. Kaufman, Phys. Rev. 76, 1232 (1949)."""
    gamma = [2 * K + log(tanh(K))]  # of k = 0: may be negative
    for k in range(1, 2 * columns):
        c = cosh(2 * K) * cosh(2 * K) / sinh(2 * K) - np.cos(np.pi * k / columns)
        gamma.append(float(np.arccosh(c)))
    odd, even = np.array(gamma[1::2]), np.array(gamma[0::2])
    parts = [
        np.prod(f(rows * g / 2)) for f in (lambda x: 2 * np.cosh(x), lambda x: 2 * np.sinh(x)) for g in (odd, even)
    ]
    return float(rows * columns / 2 * log(2 * sinh(2 * K)) + log(sum(parts) / 2))


@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (4, 3), (4, 4), (5, 6), (8, 8)])
@pytest.mark.parametrize("K", [0.1, 0.4406867935097715, 0.7])
def test_ising_tori_have_kaufmans_partition_function(rows: int, columns: int, K: float) -> None:
    model = MarkovRandomField.grid((rows, columns), coupling=K, periodic=True)
    assert model.log_partition_function() == pytest.approx(kaufman(rows, columns, K), rel=1e-12)


def test_free_energy_at_the_critical_point_tends_to_onsagers() -> None:
    # Onsager 1944: log Z / N -> log(2) / 2 + 2 G / pi = 0.929695398..., with Catalan's constant G; for tori the next
    # term is log(2^(1/4) + 2^(-1/2)) / N (Ferdinand and Fisher 1969, Phys. Rev. 185, 832)
    K, G = log(1 + sqrt(2)) / 2, 0.915965594177219015
    limit = log(2) / 2 + 2 * G / np.pi
    assert limit == pytest.approx(0.9296953983416103, abs=1e-15)
    z = MarkovRandomField.grid((10, 10), coupling=K, periodic=True).log_partition_function()
    assert z / 100 - limit == pytest.approx(log(2**0.25 + 2**-0.5) / 100, abs=2e-5)


def test_ising_ring_and_potts_tree_have_their_closed_forms() -> None:
    n, J, h = 9, 0.6, 0.25  # Ising 1925: eigenvalues of the transfer matrix
    ring = MarkovRandomField.ising([(i, (i + 1) % n) for i in range(n)], J, h)
    root = sqrt(exp(2 * J) * sinh(h) ** 2 + exp(-2 * J))
    assert ring.log_partition_function() == pytest.approx(
        log((exp(J) * cosh(h) + root) ** n + (exp(J) * cosh(h) - root) ** n), abs=1e-11
    )
    tree = MarkovRandomField.potts([(0, i) for i in range(1, 6)], 4, 0.9)
    assert tree.log_partition_function() == pytest.approx(log(4) + 5 * log(exp(0.9) + 3), abs=1e-12)


# ---- grids and shapes ------------------------------------------------------------------------------------------------


def grid_neighbours(shape: tuple[int, ...], periodic: bool, diagonal: bool) -> set[frozenset[int]]:
    found = set()
    for p, q in itertools.permutations(list(np.ndindex(shape)), 2):
        gaps = [abs(a - b) for a, b in zip(p, q, strict=True)]
        if periodic:
            gaps = [min(gap, size - gap) for gap, size in zip(gaps, shape, strict=True)]
        if sum(gaps) == 1 or (diagonal and max(gaps) == 1):
            found.add(frozenset((int(np.ravel_multi_index(p, shape)), int(np.ravel_multi_index(q, shape)))))
    return found


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (2, 2), (2, 3), (3, 4), (2, 2, 2), (3, 1, 2), (3, 3, 4)])
@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("diagonal", [False, True])
def test_grids_have_each_pair_of_neighbours_once(shape: tuple[int, ...], periodic: bool, diagonal: bool) -> None:
    if diagonal and len(shape) == 3:
        with pytest.raises(ValueError, match="connectivity must be one of"):
            MarkovRandomField.grid(shape, connectivity=8)
        return
    edges = MarkovRandomField.grid(shape, periodic=periodic, connectivity=8 if diagonal else None).edges
    assert edges is not None
    pairs = [frozenset(edge) for edge in edges.tolist()]
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == grid_neighbours(shape, periodic, diagonal)


def test_one_coupling_for_each_direction() -> None:
    model = MarkovRandomField.grid((3, 4), coupling=[0.5, -1.0])
    assert model.edges is not None
    vertical = model.edges[:, 1] - model.edges[:, 0] == 4
    np.testing.assert_array_equal(model.coupling, np.where(vertical, 0.5, -1.0))
    assert MarkovRandomField.ising((3, 4)).edges is not None
    field = np.arange(24.0).reshape(3, 4, 2)
    np.testing.assert_array_equal(MarkovRandomField.potts((3, 4), 2, field=field).unary, field.reshape(12, 2))


# ---- most probable states --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(SETS))
def test_graph_cuts_are_exact(seed: int) -> None:
    """Random submodular energies: ties, weights of many magnitudes, hard constraints."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 9))
    edges = random_edges(rng, n, int(rng.integers(0, 14)))
    m = len(edges)
    if seed % 4 == 0:  # ties
        unary, tables = rng.integers(-2, 3, (n, 2)).astype(float), rng.integers(-3, 4, (m, 2, 2)).astype(float)
    else:
        unary = rng.normal(size=(n, 2)) * 10.0 ** rng.integers(-7, 7)
        tables = rng.normal(size=(m, 2, 2)) * 10.0 ** rng.integers(-7, 7, (m, 1, 1))
    tables[:, 0, 1] += np.maximum(0, tables[:, 0, 0] + tables[:, 1, 1] - tables[:, 0, 1] - tables[:, 1, 0])
    if seed % 4 >= 2:
        unary[rng.random((n, 2)) < 0.15] = np.inf
        tables[(rng.random((m, 2, 2)) < 0.2) & [[False, True], [True, False]]] = np.inf
    if seed % 4 == 3:
        tables[rng.random(m) < 0.3, int(rng.integers(2))] = np.inf
    X = all_states([2] * n)
    energies = -potential(-unary, edges, -tables, X)
    scale = np.abs(unary[np.isfinite(unary)]).sum() + np.abs(tables[np.isfinite(tables)]).sum()
    if np.isinf(energies.min()):
        try:
            states = graph_cut(unary, edges, tables).states
        except ValueError as error:
            assert "no states are possible" in str(error)  # noqa: PT017
        else:
            assert np.isinf(-potential(-unary, edges, -tables, states[None])[0])
        with pytest.raises(ValueError, match=r"impossible|possible"):
            MarkovRandomField.from_pairwise(-unary, edges, -tables).map(method="graph_cut")
        return
    cut = graph_cut(unary, edges, tables)
    found = -potential(-unary, edges, -tables, cut.states[None])[0]
    assert found - energies.min() <= 1e-14 * scale
    assert 0 <= cut.gap <= 1e-14 * scale
    best = MarkovRandomField.from_pairwise(-unary, edges, -tables).map()
    assert best.method == "graph_cut"
    assert best.exact
    assert best.energy == pytest.approx(energies.min(), abs=1e-14 * scale)


def test_minimum_cuts_resolve_capacities_of_any_range() -> None:
    """Two parts of one graph, whose capacities differ by 2^60: each is solved as if it were alone."""
    rng = np.random.default_rng(5)
    parts = []
    for _ in range(2):
        edges = random_edges(rng, 30, 70)
        parts.append((rng.random(30), rng.random(30), edges, rng.random(70), rng.random(70)))
    alone = [minimum_cut(*part)[0] for part in parts]
    (s0, t0, e0, f0, b0), (s1, t1, e1, f1, b1) = parts
    small = 2.0**-60
    joined = (np.concatenate(pair) for pair in ((s0, s1 * small), (t0, t1 * small), (e0, e1 + 30)))
    side, gap = minimum_cut(*joined, np.concatenate([f0, f1 * small]), np.concatenate([b0, b1 * small]))
    np.testing.assert_array_equal(side[:30], alone[0])
    np.testing.assert_array_equal(side[30:], alone[1])
    assert gap <= 1e-14


def test_edges_that_are_not_submodular_are_named() -> None:
    model = MarkovRandomField.ising([[0, 1], [1, 2]], [1.0, -1.0], 0.1)
    with pytest.raises(ValueError, match=r"edge 1, \(1, 2\), is not submodular"):
        model.map(method="graph_cut")
    assert model.map().method == "exact"
    assert model.map().exact
    with pytest.raises(ValueError, match="needs 2 states, got 3"):
        MarkovRandomField.potts([[0, 1]], 3).map(method="graph_cut")
    with pytest.raises(ValueError, match="needs a pairwise model"):
        general().map(method="graph_cut")
    with pytest.raises(ValueError, match="a metric"):
        MarkovRandomField.potts([[0, 1]], 3, -1.0, [0.1, 0.2, 0.0]).map(method="alpha_expansion", start=[0, 1])


@pytest.mark.parametrize("seed", range(12))
def test_alpha_expansion_falls_and_is_within_twice_the_least(seed: int) -> None:
    rng = np.random.default_rng(seed)
    K, shape = 3, (3, 3)
    unary = -rng.random((*shape, K)) * 2
    model = MarkovRandomField.grid(shape, K, coupling=rng.random(12), field=unary)
    _, logs = brute(model)
    constant = float(np.sum(model.coupling))  # E >= 0: the couplings count neighbours that differ
    least = -logs.max() + constant
    for start in (None, rng.integers(0, K, 9)):
        result = model.map(method="alpha_expansion", start=start)
        energies = np.array(result.details.energies)
        assert (np.diff(energies) < 0).all()
        assert energies[-1] == result.energy
        assert result.converged
        assert least - 1e-12 <= result.energy + constant <= 2 * least
        # no single expansion lowers it: brute force over all moves
        for alpha in range(K):
            moves = np.where(all_states([2] * 9) == 1, alpha, result.states)
            assert model.energy(moves).min() >= result.energy - 1e-12
    evidence = np.where(rng.random(9) < 0.4, rng.integers(0, K, 9), -1)
    clamped = model.map(evidence, "alpha_expansion")
    assert (clamped.states[evidence >= 0] == evidence[evidence >= 0]).all()


@pytest.mark.parametrize("name", small_models())
def test_icm_ends_in_a_local_optimum_and_keeps_the_evidence(name: str) -> None:
    model = small_models()[name]
    evidence = np.full(model.n_variables, -1)
    evidence[0] = 0
    for given in (None, evidence):
        result = model.map(given, "icm", n_starts=3, random_state=0)
        assert result.converged
        assert not result.exact
        assert result.lower_bound == -np.inf
        for v, size in enumerate(model.cardinalities):
            if given is None or v:
                others = np.repeat(result.states[None], size, axis=0)
                others[:, v] = np.arange(size)
                assert model.energy(others).min() >= result.energy - 1e-14
        if given is not None:
            assert result.states[0] == 0


def grid_of_colours(shape: tuple[int, int], K: int, unary: Any = 0.0) -> MarkovRandomField:
    """Neighbours differ."""
    edges = MarkovRandomField.grid(shape).edges
    n = shape[0] * shape[1]
    return MarkovRandomField.from_pairwise(np.broadcast_to(unary, (n, K)), edges, np.where(np.eye(K) > 0, -np.inf, 0.0))


@pytest.mark.parametrize("K", [3, 5])
def test_map_of_large_models_with_forbidden_pairs(K: int) -> None:
    """Neither a cut, nor the engine, nor TRW-S takes them: the result says what was done."""
    rng = np.random.default_rng(0)
    model = grid_of_colours((46, 46), K, rng.normal(size=(46 * 46, K)))
    found = model.map()
    assert np.isfinite(found.energy)
    assert found.energy == model.energy(found.states[None])[0]
    assert found.method == "icm"
    assert found.details.startswith("start: ")
    assert not found.exact
    assert found.energy <= model.map(method="icm").energy
    assert found.energy <= model.map(method="max_product").energy < np.inf
    for v in range(0, 46 * 46, 97):  # no change of one node is better
        others = np.repeat(found.states[None], K, axis=0)
        others[:, v] = np.arange(K)
        assert model.energy(others).min() >= found.energy - 1e-12
    evidence = np.full(46 * 46, -1)
    evidence[:4] = [0, 1, 2, 1]
    rows = model.map(np.array([evidence, np.full(46 * 46, -1)]))
    np.testing.assert_array_equal(rows.states[0, :4], [0, 1, 2, 1])
    np.testing.assert_array_equal(rows.states[1], found.states)
    with pytest.raises(ValueError, match="row 0 is impossible"):
        model.map({0: 1, 1: 1})


def test_map_of_wide_models_with_large_factors() -> None:
    """Parity checks of four variables each: the engine is refused, TRW-S takes two at most."""
    rng = np.random.default_rng(2)
    factors: list[Any] = [((v,), rng.random(2) + 0.1) for v in range(60)]
    even = (np.indices((2,) * 4).sum(axis=0) % 2 == 0).astype(float)
    factors += [(tuple(rng.choice(60, 4, replace=False).tolist()), even) for _ in range(40)]
    model = MarkovRandomField(factors, [2] * 60, limit=10**4)
    found = model.map()
    assert found.method == "icm"
    assert np.isfinite(found.energy)
    odd = np.array([tuple(factor[0]) for factor in factors[60:]])
    assert not (found.states[odd].sum(axis=1) % 2).any()
    impossible = MarkovRandomField([*factors, (factors[-1][0], 1 - even)], [2] * 60, limit=10**4)
    with pytest.raises(ValueError, match="impossible"):
        impossible.map()


def random_hard_model(rng: np.random.Generator) -> MarkovRandomField:
    """With forbidden combinations; exact inference is refused in half of them."""
    n, limit, zeros = int(rng.integers(1, 7)), int(rng.choice([1, 10**9])), float(rng.choice([0.2, 0.4]))
    if rng.random() < 0.4:
        sizes = rng.integers(1, 4, n).tolist()
        factors: list[Any] = [((v,), rng.random(sizes[v]) + 0.01) for v in range(n)]
        for _ in range(int(rng.integers(0, 8))):
            scope = tuple(rng.permutation(n)[: rng.integers(1, 4)].tolist())
            table = rng.random([sizes[v] for v in scope]) + 0.01
            factors.append((scope, table * (rng.random(table.shape) > zeros)))
        return MarkovRandomField(factors, sizes, limit=limit)
    K = int(rng.integers(1, 4))
    edges = random_edges(rng, n, int(rng.integers(0, 9)))
    unary, tables = rng.normal(size=(n, K)), rng.normal(size=(len(edges), K, K))
    unary[rng.random(unary.shape) < zeros / 2] = -np.inf
    tables[rng.random(tables.shape) < zeros] = -np.inf
    return MarkovRandomField.from_pairwise(unary, edges, tables, limit=limit)


@pytest.mark.parametrize("seed", range(SETS))
def test_hard_models_with_all_kinds_of_evidence_against_brute_force(seed: int) -> None:
    """Automatic choices and max-product find possible states whenever there are any; energies, bounds, draws."""
    rng = np.random.default_rng(seed)
    model = random_hard_model(rng)
    sizes, n = np.array(model.cardinalities), model.n_variables
    X, logs = brute(model)
    evidence = np.where(rng.random(n) < 0.3, rng.integers(0, sizes), -1)
    variables = rng.permutation(n)[: rng.integers(0, 3)].tolist()
    soft = {v: rng.random(sizes[v]) * (rng.random(sizes[v]) > 0.2) for v in variables}
    logs = with_soft(logs, X, soft)
    logs[((evidence >= 0) & (evidence != X)).any(axis=1)] = -np.inf
    least = -logs.max()
    if least == np.inf:
        for method in ("auto", "max_product"):
            with pytest.raises(ValueError, match=r"impossible|possible"):
                model.map(evidence, method, soft=soft)
        with pytest.raises(ValueError, match=r"probability|impossible"):
            model.sample(3, 0, evidence=evidence, soft=soft)
        return
    for method in ("auto", "max_product"):
        found = model.map(evidence, method, soft=soft)
        assert -logs[(found.states == X).all(axis=1)][0] == pytest.approx(found.energy, abs=1e-12)
        assert found.lower_bound <= least + 1e-9
        assert least - 1e-12 <= found.energy < np.inf
        assert not found.exact or found.energy <= least + 1e-8
    for draw in model.sample(20, 0, evidence=evidence, soft=soft, burn_in=3):
        assert logs[(draw == X).all(axis=1)][0] > -np.inf


def test_options_of_automatic_choices() -> None:
    small, wide = MarkovRandomField.grid((2, 3)), MarkovRandomField.grid((12, 12), 3, coupling=-0.4, limit=10**4)
    for model in (small, wide):
        with pytest.raises(TypeError, match="nonsense"):
            model.marginals(nonsense=1)
        with pytest.raises(TypeError, match="nonsense"):
            model.map(nonsense=1)
        for method in ("exact", "loopy", "mean_field", "gibbs"):
            with pytest.raises(TypeError):
                model.marginals(method=method, nonsense=1)
        with pytest.raises(ValueError, match="burn_in"):
            model.sample(2, burn_in=-1)
        for method in ("exact", "swendsen_wang"):
            with pytest.raises(TypeError, match="no start"):
                model.sample(1, method=method, start=np.zeros(model.n_variables, int))
    assert small.marginals(damping=0.5, max_iter=7).exact
    assert wide.marginals(max_iter=1).details.n_iter == 1
    assert wide.map(max_iter=1, n_starts=3).details.n_iter == 1


def test_states_of_max_product_are_polished() -> None:
    """A spin glass without field: messages say nothing of any spin, and so tell no states; Onsager's phase too."""
    rng = np.random.default_rng(0)
    for model in (
        MarkovRandomField.grid((30, 30), coupling=rng.normal(size=1740)),
        MarkovRandomField.grid((4, 4), coupling=rng.normal(size=24)),
        MarkovRandomField.from_factor_graph(MarkovRandomField.grid((4, 4), coupling=rng.normal(size=24)).graph),
    ):
        found = model.map(method="max_product")
        told = np.asarray(found.details.states)
        assert found.details.converged
        assert not found.converged
        assert found.polished
        assert found.energy < model.energy(told[None])[0]
        assert found.energy == model.map(method="icm", start=told).energy
        flips = np.repeat(found.states[None], model.n_variables, axis=0)
        np.fill_diagonal(flips, 1 - np.diagonal(flips))
        assert model.energy(flips).min() >= found.energy - 1e-12
    tree = random_tree(0).map(method="max_product")
    assert tree.converged
    assert not tree.polished
    pair = MarkovRandomField.ising([[0, 1]], -1.0).map(np.array([[-1, -1], [0, -1]]), "max_product")
    np.testing.assert_array_equal(pair.energy, [-1.0, -1.0])  # ties: (0, 0) was told first, of energy 1
    np.testing.assert_array_equal(pair.polished, [True, False])


def test_icm_leaves_impossible_states() -> None:
    chain = np.full((3, 3), -np.inf)
    chain[[0, 1, 2], [1, 2, 0]] = 0.0  # each state has one successor
    model = MarkovRandomField.from_pairwise(np.zeros((6, 3)), [(i, i + 1) for i in range(5)], chain)
    result = model.map(method="icm", start=[0, 1, 0, 0, 1, 2])
    np.testing.assert_array_equal(result.states, [0, 1, 2, 0, 1, 2])
    assert result.energy == 0.0
    stuck = MarkovRandomField.from_pairwise([[0.0, -np.inf], [-np.inf, 0.0]], [[0, 1]], [[0.0, -np.inf]] * 2)
    assert stuck.map(method="icm").energy == np.inf
    assert not stuck.map(method="icm").exact


# ---- messages --------------------------------------------------------------------------------------------------------


def random_tree(seed: int) -> MarkovRandomField:
    rng = np.random.default_rng(seed)
    edges = [(int(rng.integers(i)), i) for i in range(1, 7)]
    return MarkovRandomField.from_pairwise(rng.normal(size=(7, 3)) + 2, edges, rng.normal(size=(6, 3, 3)) - 1)


def test_belief_propagation_is_exact_on_trees() -> None:
    model = random_tree(0)
    evidence = np.full(7, -1)
    evidence[2] = 1
    for given in (None, evidence):
        loopy, exact = model.marginals(given, "loopy"), model.marginals(given)
        assert loopy.exact
        assert loopy.converged
        np.testing.assert_allclose(loopy.marginals, exact.marginals, rtol=1e-9, atol=1e-9)
        assert loopy.log_partition == pytest.approx(exact.log_partition, abs=1e-8)
        best = model.map(given, "max_product")
        assert best.exact
        np.testing.assert_array_equal(best.states, model.map(given, "exact").states)
        assert best.lower_bound == best.energy
    rows = model.marginals(np.array([evidence, evidence]), "loopy")
    np.testing.assert_array_equal(rows.marginals[1], model.marginals(evidence, "loopy").marginals)


def test_approximations_say_that_they_are_some_and_bounds_hold() -> None:
    rng = np.random.default_rng(8)
    model = MarkovRandomField.grid((4, 4), coupling=rng.normal(size=24) * 0.25, field=rng.normal(size=(4, 4)) * 0.3)
    exact, best = model.marginals(), model.map(method="exact")
    for method, options, error in (("loopy", {"damping": 0.3}, 0.05), ("mean_field", {}, 0.2),
                                   ("gibbs", {"random_state": 0}, 0.03)):  # fmt: skip
        result = model.marginals(method=method, **options)
        assert not result.exact
        assert result.method == method
        assert np.abs(result.marginals - exact.marginals).max() < error
        if method == "loopy":
            assert result.log_partition == pytest.approx(exact.log_partition, abs=0.1)
        elif method == "mean_field":
            assert exact.log_partition - 2 < result.log_partition < exact.log_partition
        else:
            assert np.isnan(result.log_partition)
    found = model.map(method="trw_s")
    assert found.lower_bound <= best.energy + 1e-9 <= found.energy + 2e-9
    assert found.exact == (found.energy - found.lower_bound <= 1e-9 * abs(found.energy))
    assert model.map(method="max_product", damping=0.5).energy >= best.energy - 1e-9
    with pytest.raises(TypeError, match="no options"):
        model.marginals(method="exact", damping=0.3)


def test_automatic_choices_for_models_that_are_too_wide() -> None:
    rng = np.random.default_rng(1)
    wide = MarkovRandomField.grid((12, 12), coupling=rng.normal(size=264) * 0.2, field=0.1, limit=10**5)
    assert wide.marginals().method == "loopy"
    assert not wide.marginals().exact
    assert wide.map().method == "trw_s"
    potts = MarkovRandomField.grid((12, 12), 3, coupling=0.2, field=rng.normal(size=(12, 12, 3)), limit=10**5)
    assert potts.map().method == "alpha_expansion"
    bound = potts.map(method="trw_s").lower_bound
    assert bound <= potts.map().energy
    assert wide.sample(3, 0).shape == (3, 144)


# ---- samples ---------------------------------------------------------------------------------------------------------


def chi_square(X: np.ndarray, model: MarkovRandomField, n_independent: float) -> None:
    """False alarms: one in 10,000."""
    states = all_states(model.cardinalities)
    p = np.exp(model.log_prob(states))
    codes = X @ np.cumprod([1, *model.cardinalities[:0:-1]])[::-1]
    counts = np.bincount(codes, minlength=len(states))
    assert not counts[p == 0].any()
    kept = p > 0
    statistic = ((counts - len(X) * p)[kept] ** 2 / (len(X) * p[kept])).sum() * n_independent / len(X)
    assert statistic < chi2.ppf(1 - 1e-4, kept.sum() - 1)


@pytest.mark.parametrize("name", ["general", "pairwise", "ising", "torus"])
def test_exact_samples_have_the_right_frequencies(name: str) -> None:
    model = small_models()[name]
    X = model.sample(20_000, 0)
    chi_square(X, model, 20_000)
    np.testing.assert_array_equal(X, model.sample(20_000, 0))


@pytest.mark.parametrize(("name", "method"), [("ising", "gibbs"), ("grid", "gibbs"), ("general", "gibbs"),
                                              ("torus", "gibbs"), ("grid", "swendsen_wang"),
                                              ("torus", "swendsen_wang"), ("rough", "gibbs"),
                                              ("colours", "gibbs")])  # fmt: skip
def test_chains_have_the_right_frequencies(name: str, method: str) -> None:
    model = small_models()[name]
    X = model.sample(8_000, 1, method, thin=20)
    assert X.shape == (8_000, model.n_variables)
    chi_square(X, model, 8_000)  # 20 sweeps apart, draws of these models are independent


@pytest.mark.parametrize("n_states", [None, 3])
def test_gibbs_on_a_torus_has_the_couplings_where_they_belong(n_states: int | None) -> None:
    rng = np.random.default_rng(3)
    model = MarkovRandomField.grid((3, 4), n_states, coupling=rng.normal(size=24) * 0.5, periodic=True)
    assert model.edges is not None
    exact, drawn = model.sample(20_000, 0), model.sample(20_000, 1, "gibbs", thin=10)
    i, j = model.edges.T
    gap = (exact[:, i] == exact[:, j]).mean(axis=0) - (drawn[:, i] == drawn[:, j]).mean(axis=0)
    assert np.abs(gap).max() < 5 * sqrt(0.5 / 20_000)  # one in 100,000


def test_gibbs_of_large_models_that_are_no_square_lattice() -> None:
    cube = MarkovRandomField.grid((15, 15, 15), coupling=0.0, field=0.4)
    X = cube.sample(40, 0)
    p = 1 / (1 + exp(-0.8))
    assert abs(X.mean() - p) < 4.5 * sqrt(p * (1 - p) / X.size)  # one in 100,000
    evidence = np.full(cube.n_variables, -1)
    evidence[:100] = 0
    assert not cube.sample(3, 0, evidence=evidence)[:, :100].any()
    shares = cube.marginals(evidence, "gibbs", n_samples=100, burn_in=0, random_state=0)
    assert not shares.exact
    np.testing.assert_allclose(shares.marginals.sum(axis=1), 1.0)
    assert (shares.marginals[:100] == [1, 0]).all()
    assert np.abs(shares.marginals[100:, 1] - p).max() < 5.5 * sqrt(p * (1 - p) / 400)  # one in 10,000


@pytest.mark.parametrize("K", [3, 4])
def test_gibbs_of_large_colourings(K: int) -> None:
    """More than 2000 nodes: a start is searched for."""
    model = grid_of_colours((46, 46), K)
    evidence = np.full(46 * 46, -1)
    evidence[:3] = [0, 1, 0]
    X = model.sample(6, 0, evidence=evidence, n_chains=3, burn_in=2)
    assert (model.energy(X) == 0).all()
    assert (X[:, :3] == [0, 1, 0]).all()
    assert (X[0] != X[2]).any()  # of other chains
    np.testing.assert_array_equal(X, model.sample(6, 0, evidence=evidence, n_chains=3, burn_in=2))
    shares = model.marginals(evidence, "gibbs", n_samples=5, burn_in=1, random_state=0)
    np.testing.assert_allclose(shares.marginals.sum(axis=1), 1.0)
    assert (shares.marginals[:3, :2] == [[1, 0], [0, 1], [1, 0]]).all()
    start = model.map().states
    still = model.sample(2, 0, "gibbs", start=start, n_chains=1, burn_in=0)
    assert (still[0] != start).mean() < 0.8
    assert (model.energy(still) == 0).all()
    for call in (model.sample, lambda n, **given: model.marginals(method="gibbs", **given)):
        with pytest.raises(ValueError, match="probability zero"):
            call(1, evidence={0: 1, 1: 1})
        with pytest.raises(ValueError, match="start is impossible"):
            call(1, start=np.zeros(46 * 46, int))


# ---- learning --------------------------------------------------------------------------------------------------------


def moments(model: MarkovRandomField, X: np.ndarray, weights: Any = None) -> np.ndarray:
    """Means of what the parameters multiply, for each edge and node: of data, or of the model for X = None."""
    assert model.edges is not None
    K = model.cardinalities[0]
    pairs = [np.bincount(X[:, i] * K + X[:, j], weights, K * K) for i, j in model.edges]
    singles = [np.bincount(X[:, i], weights, K) for i in range(model.n_variables)]
    total = len(X) if weights is None else np.sum(weights)
    return np.concatenate([*pairs, *singles]) / total


def model_moments(model: MarkovRandomField) -> np.ndarray:
    X = all_states(model.cardinalities)
    return moments(model, X, np.exp(model.log_prob(X)))


def test_maximum_likelihood_matches_all_moments() -> None:
    rng = np.random.default_rng(3)
    X, w = rng.integers(0, 3, (60, 4)), rng.random(60) + 0.1
    edges = [[0, 1], [1, 2], [3, 0]]
    model = MarkovRandomField.from_pairwise(np.zeros((4, 3)), edges, np.zeros((3, 3, 3)))
    assert model.fit(X, sample_weight=w, tol=1e-9) is model
    assert model.converged_
    np.testing.assert_allclose(model_moments(model), moments(model, X, w), atol=3e-7)
    assert model.objective_ == pytest.approx(w @ model.log_prob(X) / w.sum(), abs=1e-12)
    ising = MarkovRandomField.ising([[0, 1], [1, 2], [2, 3], [0, 3]], np.zeros(4), np.zeros(4))
    Y = np.minimum(X, 1)
    ising.fit(Y, tol=1e-9)
    s, t = 2 * Y - 1, 2 * all_states([2] * 4) - 1
    p = np.exp(ising.log_prob((t + 1) // 2))
    for i, j in [*np.asarray(ising.edges).tolist()]:
        assert p @ (t[:, i] * t[:, j]) == pytest.approx(np.mean(s[:, i] * s[:, j]), abs=3e-7)
    np.testing.assert_allclose(p @ t, s.mean(axis=0), atol=3e-7)


def test_tied_parameters_match_the_mean_of_their_moments() -> None:
    rng = np.random.default_rng(4)
    X = rng.integers(0, 2, (50, 6))
    model = MarkovRandomField.grid((2, 3)).fit(X, tol=1e-9)
    assert np.shape(model.coupling) == np.shape(model.field) == ()
    s, t = 2 * X - 1, 2 * all_states([2] * 6) - 1
    p = np.exp(model.log_prob((t + 1) // 2))
    i, j = np.asarray(model.edges).T
    assert p @ (t[:, i] * t[:, j]).sum(axis=1) == pytest.approx((s[:, i] * s[:, j]).sum(axis=1).mean(), abs=1e-6)
    assert p @ t.sum(axis=1) == pytest.approx(s.sum(axis=1).mean(), abs=1e-6)
    potts = MarkovRandomField.grid((2, 3), 3).fit(rng.integers(0, 3, (50, 6)), tol=1e-9)
    assert np.shape(potts.coupling) == ()
    assert np.shape(potts.field) == (3,)
    assert potts.shape == (2, 3)
    shared = MarkovRandomField.from_pairwise(np.zeros((6, 2)), model.edges, np.zeros((2, 2))).fit(X, tol=1e-9)
    assert np.shape(shared.pairwise) == (1, 2, 2)
    of_data, of_model = moments(shared, X), model_moments(shared)
    np.testing.assert_allclose(
        of_model[:28].reshape(7, 4).sum(axis=0), of_data[:28].reshape(7, 4).sum(axis=0), atol=1e-7
    )


def test_general_factors_are_learned_and_zeros_stay() -> None:
    true = general()
    X = true.sample(3000, 0)
    model = general(1)
    model.fit(X, tol=1e-8)
    states = all_states(true.cardinalities)
    p, counts = np.exp(model.log_prob(states)), np.zeros(len(states))
    assert not p[true.unnormalised_log_prob(states) == -np.inf].any()
    for row in X:
        counts[np.flatnonzero((states == row).all(axis=1))[0]] += 1 / len(X)
    for factor in model.graph.factors:
        for states_of in all_states([true.cardinalities[v] for v in factor.scope]):
            hit = (states[:, list(factor.scope)] == states_of).all(axis=1)
            assert p[hit].sum() == pytest.approx(counts[hit].sum(), abs=1e-6)


def test_missing_cells_are_summed_over_in_the_fit() -> None:
    rng = np.random.default_rng(6)
    chain = MarkovRandomField.ising([[0, 1], [1, 2]], [0.8, -0.5], [0.2, 0.0, 0.1])
    X = chain.sample(400, 0)
    X[rng.random(X.shape) < 0.2] = -1
    model = MarkovRandomField.ising([[0, 1], [1, 2]], np.zeros(2), np.zeros(3)).fit(X, tol=1e-8)
    best = model.log_prob(X).mean()
    assert model.objective_ == pytest.approx(best, abs=1e-12)
    for k in range(2):  # a stationary point of the likelihood of what is observed
        for step in (-1e-3, 1e-3):
            couplings = np.array(model.coupling)
            couplings[k] += step
            assert MarkovRandomField.ising(model.edges, couplings, model.field).log_prob(X).mean() < best
    with pytest.raises(ValueError, match="X must be complete here, but variable"):
        model.fit(X, method="pseudo_likelihood")


def test_penalty_and_weights() -> None:
    rng = np.random.default_rng(7)
    X = rng.integers(0, 2, (40, 4))
    edges = [[0, 1], [1, 2], [2, 3]]
    for method in METHODS[:2]:
        once = MarkovRandomField.ising(edges, np.zeros(3), np.zeros(4)).fit(X, method=method, l2=0.1, tol=1e-9)
        twice = MarkovRandomField.ising(edges, np.zeros(3), np.zeros(4)).fit(
            np.concatenate([X, X[:10]]), sample_weight=[1.0] * 30 + [0.5] * 0 + [1.0] * 10 + [0.0] * 10,
            method=method, l2=0.1, tol=1e-9,
        )  # fmt: skip
        np.testing.assert_allclose(once.coupling, twice.coupling, atol=1e-5)
        theta = np.concatenate([once.coupling, once.field])
        free = MarkovRandomField.ising(edges, np.zeros(3), np.zeros(4)).fit(X, method=method, tol=1e-9)
        assert np.abs(theta).sum() < np.abs(np.concatenate([free.coupling, free.field])).sum()


def test_pseudo_likelihood_is_the_sum_of_conditionals_and_at_its_top() -> None:
    true = small_models()["pairwise"]
    X = true.sample(60, 1)
    assert true.edges is not None
    assert true.pairwise is not None
    shape, l2 = np.shape(true.pairwise), 0.05

    def objective(unary: np.ndarray, tables: np.ndarray) -> float:
        total = -l2 / 2 * float((unary**2).sum() + (tables**2).sum())
        for v in range(5):
            others = np.repeat(X[:, None], 3, axis=1)
            others[:, :, v] = np.arange(3)
            logs = potential(unary, true.edges, tables, others.reshape(-1, 5)).reshape(-1, 3)
            total += float((logs[np.arange(len(X)), X[:, v]] - np.log(np.exp(logs).sum(axis=1))).mean())
        return total

    model = MarkovRandomField.from_pairwise(np.zeros((5, 3)), true.edges, np.zeros(shape))
    model.fit(X, method="pseudo_likelihood", l2=l2)
    unary, tables = np.array(model.unary), np.array(model.pairwise)
    assert model.objective_ == pytest.approx(objective(unary, tables), abs=1e-12)
    rng = np.random.default_rng(0)
    for _ in range(5):
        step = 1e-3 * rng.normal(size=unary.shape), 1e-3 * rng.normal(size=shape)
        assert objective(unary + step[0], tables + step[1]) < model.objective_


@pytest.mark.parametrize("method", METHODS)
def test_estimators_are_consistent(method: str) -> None:
    """Of 20,000 draws: standard errors are about 0.007."""
    coupling, field = np.array([0.5, -0.3, 0.4, 0.2]), np.array([0.1, -0.2, 0.0, 0.3])
    edges = [[0, 1], [1, 2], [2, 3], [3, 0]]
    X = MarkovRandomField.ising(edges, coupling, field).sample(20_000, 0)
    options = {"max_iter": 1000, "n_chains": 500} if method.endswith("divergence") else {}
    model = MarkovRandomField.ising(edges, np.zeros(4), np.zeros(4)).fit(X, method=method, random_state=0, **options)
    np.testing.assert_allclose(model.coupling, coupling, atol=0.025)
    np.testing.assert_allclose(model.field, field, atol=0.025)


@pytest.mark.parametrize("method", METHODS[1:])
def test_tied_parameters_of_large_lattices_are_found(method: str) -> None:
    X = MarkovRandomField.grid((20, 20), coupling=0.3, field=0.1).sample(200, 0, "gibbs", thin=30)
    options = {"max_iter": 150, "n_chains": 40} if method.endswith("divergence") else {}
    model = MarkovRandomField.grid((20, 20)).fit(X, method=method, random_state=0, **options)
    assert model.coupling == pytest.approx(0.3, abs=0.015)  # 152,000 edges were seen
    assert model.field == pytest.approx(0.1, abs=0.015)


@pytest.mark.parametrize("method", METHODS)
def test_results_do_not_depend_on_threads(method: str) -> None:
    X = MarkovRandomField.grid((5, 5), coupling=0.3).sample(2000, 0)
    results = []
    for threads in (1, 2, 7):
        with num_threads(threads):
            model = MarkovRandomField.grid((5, 5), coupling=np.zeros(40)).fit(
                X, method=method, max_iter=20, tol=1e-3, random_state=0
            )
            results.append((np.array(model.coupling), model.energy(X), model.sample(50, 0)))
    for one in results[1:]:
        for a, b in zip(one, results[0], strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_failed_fit_leaves_no_trace() -> None:
    model = MarkovRandomField.grid((2, 2), coupling=0.3, field=0.1)
    before = dict(model.__dict__)
    for X, error in (
        (np.zeros((3, 5)), "shape"),
        ([[0, 1, 2, 0]], "states from 0 to 1"),
        (np.zeros((0, 4)), "one row"),
    ):
        with pytest.raises(ValueError, match=error):
            model.fit(X)
    with pytest.raises(ValueError, match="method must be one of"):
        model.fit([[0, 1, 1, 0]], method="guess")
    hard = MarkovRandomField([([0, 1], [[1.0, 0.0], [1.0, 1.0]])], [2, 2])
    for method in METHODS:
        with pytest.raises(ValueError, match="probability 0 whatever the parameters"):
            hard.fit([[0, 1]], method=method, max_iter=3)
    assert {k: v for k, v in model.__dict__.items() if k in before} == before
    assert not hasattr(model, "n_iter_")


# ---- limits and wrong input ------------------------------------------------------------------------------------------


def test_what_is_too_large_is_refused_with_the_alternative() -> None:
    model = MarkovRandomField.grid((12, 12), coupling=0.3, field=0.1, limit=10**5)
    X = np.zeros((2, 144), int)
    with pytest.raises(
        EngineLimitError, match=r"partition function of a model of 144 .*unnormalised_log_prob"
    ) as caught:
        model.log_prob(X)
    assert caught.value.cost.width >= 12
    assert model.unnormalised_log_prob(X)[0] == pytest.approx(0.3 * 2 * 12 * 11 - 0.1 * 144)
    for call in (
        model.log_partition_function,
        lambda: model.marginals(method="exact"),
        lambda: model.map(method="exact"),
        lambda: model.sample(1, method="exact"),
    ):
        with pytest.raises(EngineLimitError, match="limit"):
            call()
    with pytest.raises(EngineLimitError, match="pseudo_likelihood"):
        model.fit(X)
    assert MarkovRandomField.grid((4, 4), limit=100).map(method="icm").energy < 0
    evidence = np.zeros(144, int)
    evidence[::13] = -1  # what is left falls apart
    assert model.marginals(evidence).exact
    assert model.sample(3, 0, evidence=evidence)[:, evidence == 0].sum() == 0
    large = MarkovRandomField.grid((100, 100), coupling=0.3, field=0.1)  # not even forecast
    assert large.map().exact
    path = MarkovRandomField.potts([(i, i + 1) for i in range(2999)], 2, -0.5)  # a forest is
    assert path.marginals().exact
    assert path.log_partition_function() == pytest.approx(log(2) + 2999 * log(1 + exp(-0.5)), rel=1e-12)


def test_log_prob_is_never_unnormalised_in_silence() -> None:
    small, wide = MarkovRandomField.grid((3, 3), coupling=0.3), MarkovRandomField.grid((12, 12), limit=10**5)
    large = MarkovRandomField.grid((300, 300))  # not even forecast
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        X = all_states([2] * 9)[:20]
        X[3, 4] = -1
        np.testing.assert_array_equal(small.log_prob(X, normalised="auto"), small.log_prob(X))
        plain = small.log_prob(X, normalised=False)
        np.testing.assert_allclose(plain - small.log_partition_function(), small.log_prob(X), rtol=1e-12, atol=1e-13)
        np.testing.assert_array_equal(plain[:3], small.unnormalised_log_prob(X[:3]))
    for model in (wide, large):
        Y = np.ones((2, model.n_variables), int)
        if model is wide:
            with pytest.raises(EngineLimitError, match="normalised='auto'"):
                model.log_prob(Y)
        with pytest.warns(UnnormalisedWarning, match="log Z of a model"):
            values = model.log_prob(Y, normalised="auto")
        np.testing.assert_array_equal(values, model.unnormalised_log_prob(Y))
        np.testing.assert_array_equal(values, model.log_prob(Y, normalised=False))
    Y = np.ones((1, 144), int)
    Y[0, 5] = -1  # both states of one node: with 3 neighbours that are up
    with pytest.warns(UnnormalisedWarning):
        values = wide.log_prob(Y, normalised="auto")
    assert values[0] == pytest.approx(2 * 12 * 11 - 3 + log(2 * cosh(3)), abs=1e-10)
    for wrong in ("yes", None, 2):
        with pytest.raises(ValueError, match="normalised must be"):
            small.log_prob(X, normalised=wrong)


def test_variables_of_too_many_states_are_refused() -> None:
    model = MarkovRandomField([], [2, 10**12])
    for call in (
        model.marginals, model.map, model.log_partition_function, lambda: model.sample(1),
        lambda: model.log_prob([[0, 3]]), lambda: model.query([0, 1]), lambda: model.query(1),
        *(lambda method=method: model.marginals(method=method) for method in ("exact", "loopy", "mean_field", "gibbs")),
        *(lambda method=method: model.map(method=method) for method in ("exact", "max_product", "icm", "trw_s")),
        *(lambda method=method: model.sample(1, 0, method) for method in ("exact", "gibbs")),
    ):  # fmt: skip
        with pytest.raises(EngineLimitError) as caught:
            call()
        assert caught.value.cost.bytes > model.limit
    assert model.energy([[1, 10**9]])[0] == 0.0
    with pytest.raises(ValueError, match=r"below 2\*\*31"):
        model.energy([[1, 3 * 10**9]])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(value: float) -> None:
    for make in (
        lambda: MarkovRandomField.ising([[0, 1]], value),
        lambda: MarkovRandomField.ising([[0, 1]], 1.0, value),
        lambda: MarkovRandomField.potts([[0, 1]], 2, 1.0, [0.0, value]),
        lambda: MarkovRandomField.from_pairwise([[0.0, value]], np.zeros((0, 2), int), np.zeros((2, 2))),
        lambda: MarkovRandomField.from_pairwise(np.zeros((2, 2)), [[0, 1]], [[0.0, value], [0.0, 0.0]]),
        lambda: MarkovRandomField([([0], [1.0, value])], [2]),
    ):
        with pytest.raises(ValueError, match=r"finite|NaN"):
            make()
    with pytest.raises(ValueError, match="finite"):
        MarkovRandomField.ising([[0, 1]], -np.inf)


def test_wrong_input() -> None:
    zeros = np.zeros((2, 2))
    for make, error in (
        (lambda: MarkovRandomField.from_pairwise(np.zeros(3), [[0, 1]], zeros), "unary must have shape"),
        (
            lambda: MarkovRandomField.from_pairwise(zeros, [[0, 2]], zeros),
            "edge 0 must join two different nodes from 0",
        ),
        (lambda: MarkovRandomField.from_pairwise(zeros, [[0, 1], [1, 1]], zeros), "edge 1 must join"),
        (lambda: MarkovRandomField.from_pairwise(zeros, [[0, 1]], np.zeros((3, 3))), "pairwise must have shape"),
        (lambda: MarkovRandomField.from_pairwise(zeros, [[0, 1, 0]], zeros), r"edges must have shape \(m, 2\)"),
        (lambda: MarkovRandomField.ising([[0, 1]], [1.0, 2.0]), r"coupling must have shape \(\) or \(1,\)"),
        (lambda: MarkovRandomField.ising([[0, 1]], 1.0, [0.0]), "edge 0 must join"),
        (lambda: MarkovRandomField.ising([]), "n_nodes must be given"),
        (lambda: MarkovRandomField.potts([[0, 1]], 3, 1.0, [0.0, 1.0]), "field must have shape"),
        (lambda: MarkovRandomField.potts([[0, 1]], 0), "n_states must be an integer"),
        (lambda: MarkovRandomField.grid((3,)), "2 or 3 sizes"),
        (lambda: MarkovRandomField.grid((3, 0)), "each size"),
        (lambda: MarkovRandomField.grid((3, 3), connectivity=5), "connectivity"),
        (lambda: MarkovRandomField.grid((3, 3), limit=0), "limit"),
    ):
        with pytest.raises(ValueError, match=error):
            make()
    with pytest.raises(TypeError, match="edges must be integers"):
        MarkovRandomField.ising([[0.0, 1.0]])
    model = small_models()["pairwise"]
    for X, error in (
        (np.zeros((2, 4), int), r"X must have shape \(n, 5\)"),
        (np.zeros(5, int), r"X must have shape \(n, 5\)"),
        ([[0, 1, 2, 3, 0]], "from 0 to 2 of variable 3, got 3 in row 0"),
        ([[0, 1, 2, -2, 0]], "got -2"),
        ([[0.0, 0.5, 0, 0, 0]], "numbered from 0, got 0.5"),
        ([[0.0, np.inf, 0, 0, 0]], "infinity"),
    ):
        with pytest.raises(ValueError, match=error):
            model.log_prob(X)
    with pytest.raises(ValueError, match="complete"):
        model.energy([[0, 1, -1, 0, 0]])
    for method in ("marginals", "map", "sample"):
        with pytest.raises(ValueError, match="method must be one of"):
            getattr(model, method)(*([3] if method == "sample" else []), method="best")
    with pytest.raises(ValueError, match="one row"):
        model.sample(3, evidence=np.zeros((2, 5), int))
    with pytest.raises(ValueError, match="swendsen_wang"):
        model.sample(3, method="swendsen_wang")
    with pytest.raises(ValueError, match="n must be an integer"):
        model.sample(-1)
    assert model.sample(0).shape == (0, 5)
    assert model.energy(np.zeros((0, 5), int)).shape == (0,)


def test_impossible_models_and_evidence() -> None:
    nothing = MarkovRandomField.from_pairwise([[-np.inf, -np.inf]], np.zeros((0, 2), int), np.zeros((2, 2)))
    assert nothing.log_partition_function() == -np.inf
    with pytest.raises(ValueError, match="no states are possible"):
        nothing.log_prob([[0]])
    for method in ("exact", "graph_cut", "auto"):
        with pytest.raises(ValueError, match=r"impossible|no states"):
            nothing.map(method=method)
    apart = MarkovRandomField.from_pairwise(np.zeros((2, 2)), [[0, 1]], [[-np.inf, 0.0], [0.0, -np.inf]])
    assert np.isnan(apart.marginals([1, 1]).marginals).all()
    assert apart.energy([[1, 1]])[0] == np.inf
    np.testing.assert_array_equal(apart.map([1, -1]).states, [1, 0])
    wide = MarkovRandomField.from_pairwise([[0.0, 800.0]], np.zeros((0, 2), int), np.zeros((2, 2)))
    assert wide.energy([[1]])[0] == -800.0
    with pytest.raises(ValueError, match="differ by 800, more than the range"):
        wide.log_partition_function()


def test_inputs_are_copied_and_views_are_taken() -> None:
    unary, edges, tables = random_pairwise(1)
    model = MarkovRandomField.from_pairwise(unary, edges, tables)
    X = np.asfortranarray(all_states([3] * 5).astype(np.uint8))
    X.flags.writeable = False
    before = model.unnormalised_log_prob(X)
    views = MarkovRandomField.from_pairwise(np.asfortranarray(unary), edges[:, ::1], np.asfortranarray(tables))
    for array in (unary, edges, tables):
        array[:] = 0
    np.testing.assert_array_equal(model.unnormalised_log_prob(X), before)
    np.testing.assert_array_equal(views.unnormalised_log_prob(X[::1]), before)
    model.fit(X, l2=0.1)
    model.map(method="icm", start=X[3])
    model.map(method="alpha_expansion", start=X[3]) if not model.edges.size else None


def test_a_model_of_nothing() -> None:
    model = MarkovRandomField([((), 2.0)], [])
    assert model.log_partition_function() == log(2)
    assert model.map().states.shape == (0,)
    assert model.marginals().marginals.shape == (0, 0)
    assert model.sample(2).shape == (2, 0)
    with pytest.raises(ValueError, match="one row and one column"):
        model.fit(np.zeros((3, 0), int))


def test_pickles() -> None:
    for model in small_models().values():
        model.map()
        model.log_partition_function()
        other = pickle.loads(pickle.dumps(model))
        X = all_states(model.cardinalities)
        np.testing.assert_array_equal(model.log_prob(X), other.log_prob(X))
