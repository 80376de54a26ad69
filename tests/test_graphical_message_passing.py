"""Belief propagation, TRW-S, mean field, likelihood weighting: against exact inference and brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_graphical_engine import asia
from test_graphical_rows import random_network

from fastgen.graphical import Engine, FactorGraph, belief_propagation, likelihood_weighting, mean_field, trw_s
from fastgen.graphical import _message_passing as module

SCHEDULES = ["flooding", "sequential", "residual"]


def random_graph(rng, scopes, cards, least=0.05):
    return FactorGraph.of(cards, [(scope, rng.random([cards[v] for v in scope]) + least) for scope in scopes])


def tree(rng, V):
    cards = rng.integers(1, 5, V).tolist()
    scopes = [(int(rng.integers(0, i)), i) for i in range(1, V)] + [(i,) for i in range(V) if rng.random() < 0.5]
    if V > 3:  # a factor over three: two children of one variable at once
        cards += [2, 3]
        scopes.append((0, V, V + 1))
    return random_graph(rng, scopes, cards)


def grid(rng, n, K, shared=True):
    pair = rng.random((K, K)) + 0.2

    def table():
        return pair if shared else rng.random((K, K)) + 0.2

    factors = [((v,), rng.random(K) + 0.1) for v in range(n * n)]
    factors += [((i * n + j, i * n + j + 1), table()) for i in range(n) for j in range(n - 1)]
    factors += [((i * n + j, i * n + j + n), table()) for i in range(n - 1) for j in range(n)]
    return FactorGraph.of([K] * (n * n), factors)


def values(graph):
    """The product of all factors at all states."""
    for x in itertools.product(*map(range, graph.cardinalities)):
        yield x, float(np.prod([factor.table[tuple(x[v] for v in factor.scope)] for factor in graph.factors]))


# ---- belief propagation ----------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(SCHEDULES), st.sampled_from([0.0, 0.3]))
def test_exact_on_trees(seed, schedule, damping):
    rng = np.random.default_rng(seed)
    graph = tree(rng, int(rng.integers(1, 8)))
    evidence = np.where(rng.random(graph.n_variables) < 0.3, 0, -1)
    result = belief_propagation(graph, evidence, schedule=schedule, damping=damping, tol=1e-13, max_iter=500)
    expected, log_evidence = Engine(graph).marginals(evidence[None])
    assert result.converged
    assert result.exact
    assert result.log_z == pytest.approx(log_evidence[0], abs=1e-10)
    for a, b in zip(result.marginals, expected, strict=True):
        np.testing.assert_allclose(a, b[0], atol=1e-10)
    best = belief_propagation(
        graph, evidence, maximum=True, schedule=schedule, damping=damping, tol=1e-13, max_iter=500
    )
    np.testing.assert_array_equal(best.states, Engine(graph).mpe(evidence[None])[0][0])


@pytest.mark.parametrize("K", [1, 2, 3, 5, 8, 9])
@pytest.mark.parametrize("maximum", [False, True])
def test_many_variables_at_a_time_or_factor_by_factor(K, maximum, monkeypatch, rng):
    """The two ways of flooding send the same messages: after any number of sweeps, damped or not."""
    graph = grid(rng, 9, K)
    for sweeps, damping in ((1, 0.0), (5, 0.0), (7, 0.4)):
        options = {"maximum": maximum, "max_iter": sweeps, "damping": damping, "tol": 0.0}
        fast = belief_propagation(graph, **options)
        with monkeypatch.context() as patch:
            patch.setattr(module._Pairs, "of", classmethod(lambda cls, model: None))
            slow = belief_propagation(graph, **options)
        for a, b in zip(fast.marginals, slow.marginals, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9)
        assert fast.residual == pytest.approx(slow.residual, rel=1e-7, abs=1e-14)


def test_the_fast_way_is_taken(rng, monkeypatch):
    for shared in (True, False):
        model = module._Graph(grid(rng, 9, 3, shared), None)
        model.layout()
        pairs = module._Pairs.of(model)
        assert pairs is not None
        assert sum(len(group.nodes) for group in pairs.groups) == 81
        assert any(group.alike for group in pairs.groups) == shared
    monkeypatch.setattr(module, "_MOST_BYTES", 1 << 10)  # for tables of single variables
    assert module._Pairs.of(model) is None


def flooded(unary, edges, tables, sweeps, maximum=False, damping=0.0):
    """Messages along each edge and back (2 m, K), as the definition has them; the largest change in the last sweep."""
    halves = [half for a, b in edges for half in ((a, b), (b, a))]
    old = np.ones((len(halves), unary.shape[1]))
    for _ in range(sweeps):
        new = np.empty_like(old)
        for h, (a, _) in enumerate(halves):
            others = [old[i] for i, (_, end) in enumerate(halves) if end == a and i != h ^ 1]
            product = np.prod([unary[a], *others], axis=0)[:, None]
            entries = product * (tables[h // 2].T if h % 2 else tables[h // 2])
            new[h] = entries.max(axis=0) if maximum else entries.sum(axis=0)
            new[h] = (1 - damping) * new[h] / new[h].max() + damping * old[h]
        old, last = new, old
    return old, abs(old - last).max()


def ragged(rng, V, extra):
    """A random tree of 10 V / 11 variables with further edges, some parallel, and a hub: many different degrees."""
    tree = [(int(rng.integers(0, i)), i) for i in range(1, V - V // 11)]
    more = [tuple(rng.choice(V - V // 11, 2, replace=False).tolist()) for _ in range(extra)]
    hub = [(0, int(i)) for i in rng.choice(np.arange(1, V - V // 11), 11, replace=False)]
    edges = [*tree, *more, *hub, tree[3], tree[3][::-1]]
    return np.array([edges[i] for i in rng.permutation(len(edges))])


@pytest.mark.parametrize("K", range(1, 18))
@pytest.mark.parametrize("maximum", [False, True])
def test_messages_are_those_of_the_definition(K, maximum, rng, monkeypatch):
    """One table, a few, or one for each edge, with zeros; any number of neighbours; the same bits for any threads.

    No term is negative, so that nothing cancels: some 30 roundings for each message, in up to 7 sweeps.
    """
    monkeypatch.setattr(module, "_PART_NS", 300.0)  # many parts, even of a small graph
    V = 90
    edges = ragged(rng, V, 60)
    for number in (1, 3, len(edges)):
        unary = rng.random((V, K)) + 0.05
        unary /= unary.max(axis=1, keepdims=True)
        tables = np.where(rng.random((number, K, K)) < 0.3, 0.0, rng.random((number, K, K)) + 0.1)
        tables[:, range(K), range(K)] = 1.0
        tables[0] = (tables[0] + tables[0].T) / 2
        kind = np.arange(len(edges)) if number == len(edges) else rng.integers(0, number, len(edges))
        pairs = module._Pairs(unary, edges, tables, kind)
        for sweeps, damping in ((1, 0.0), (2, 0.0), (7, 0.0), (5, 0.4)):
            found = [pairs.run(maximum, damping, sweeps, 0.0, threads) for threads in (1, 2, 7)]
            messages, change = flooded(unary, edges, tables[kind], sweeps, maximum, damping)
            np.testing.assert_allclose(found[0][0], messages, rtol=2e-13)
            assert found[0][1] == sweeps or K == 1  # messages with one state never change
            assert found[0][2] == pytest.approx(change, abs=1e-13)
            for other in found[1:]:
                np.testing.assert_array_equal(found[0][0], other[0])
                assert found[0][1:] == other[1:]


@pytest.mark.parametrize(("shape", "K"), [((5, 7), 3), ((30, 30), 2), ((26, 34), 8), ((3, 200), 4), ((1, 300), 5)])
@pytest.mark.parametrize("listed", ["by direction", "by node", "at random"])
@pytest.mark.parametrize("shared", [True, False])
def test_strips_of_grids(shape, K, listed, shared, rng):
    """However edges are listed, and whether or not rows fill the lanes; with one table, or one for each edge."""
    number = np.arange(np.prod(shape)).reshape(shape)
    across, down = (
        np.stack([a.ravel(), b.ravel()], 1) for a, b in ((number[:, :-1], number[:, 1:]), (number[:-1], number[1:]))
    )
    edges = np.concatenate([across, down])
    if listed == "by node":
        edges = edges[np.lexsort((edges[:, 1], edges[:, 0]))]
    elif listed == "at random":
        edges = rng.permutation(edges)
    unary, tables = rng.random((number.size, K)) + 0.1, rng.random((1 if shared else len(edges), K, K)) + 0.1
    kind = np.zeros(len(edges), np.int64) if shared else np.arange(len(edges))
    pairs = module._Pairs(unary, edges, tables, kind)
    messages, n_iter, change = pairs.run(False, 0.0, 6, 0.0, 2)
    # the definition, with all neighbours as arrays
    owner, end = np.stack([edges, edges[:, ::-1]], 1).reshape(-1, 2).T
    old = np.ones((len(owner), K))
    along = np.stack([tables[kind], tables[kind].transpose(0, 2, 1)], 1).reshape(-1, K, K)
    for _ in range(6):
        logs = np.log(unary)
        np.add.at(logs, end, np.log(old))
        product = np.exp(logs[owner] - np.log(old.reshape(-1, 2, K)[:, ::-1].reshape(-1, K)))
        new = np.einsum("hx,hxy->hy", product, along)
        new /= new.max(axis=1, keepdims=True)
        old, last = new, old
    np.testing.assert_allclose(messages, old, rtol=1e-12)
    assert n_iter == 6
    assert change == pytest.approx(abs(old - last).max(), abs=1e-13)


@pytest.mark.parametrize("damping", [0.0, 0.25])
def test_sweeps_stop_where_messages_have_converged(damping, rng, monkeypatch):
    """At the first comparison in which no message changes by more than tol: all sweeps if damped, else every fourth."""
    edges, K = ragged(rng, 60, 10), 3
    unary, tables = rng.random((60, K)) + 1.0, rng.random((1, K, K)) + 2.0
    pairs = module._Pairs(unary / unary.max(axis=1, keepdims=True), edges, tables, np.zeros(len(edges), np.int64))
    compared = [i for i in range(1, 60) if damping or i % 4 == 0]
    changes = {i: flooded(pairs.unary, edges, tables[[0] * len(edges)], i, damping=damping)[1] for i in compared}
    for tol in (1e-3, 1e-7, 1e-11):
        expected = next(i for i in compared if changes[i] <= tol)
        for call, threads in itertools.product((1.0, 1e9), (1, 2)):
            monkeypatch.setattr(module, "_CALL_NS", call)  # few sweeps in a call, or all
            messages, n_iter, change = pairs.run(False, damping, 1000, tol, threads)
            assert n_iter == expected
            assert change == pytest.approx(changes[expected], abs=1e-14)
            np.testing.assert_array_equal(messages, pairs.run(False, damping, n_iter, 0.0, 1)[0])


@pytest.mark.parametrize("threads", [1, 2])
def test_messages_that_change_in_one_place_only(threads, monkeypatch):
    """News travel along a chain, one variable in each sweep; everything else is as in the sweep before, to the bit."""
    monkeypatch.setattr(module, "_PART_NS", 300.0)
    n = 200
    unary = np.ones((n, 2))
    unary[0, 1] = 0.5
    table = np.array([[[31.0, 1.0], [1.0, 31.0]]]) / 32  # sums of rows are 1: what is not known stays (1, 1)
    pairs = module._Pairs(unary, np.stack([np.arange(n - 1), np.arange(1, n)], 1), table, np.zeros(n - 1, np.int64))
    messages, n_iter, change = pairs.run(False, 0.0, 1000, 0.0, threads)
    assert n_iter == n  # the last message has changed in sweep n - 1
    assert change == 0.0
    excess = (1 / 3) * (30 / 32) ** np.arange(1, n)  # of the first state's share over the second's
    np.testing.assert_allclose(messages[0::2], np.stack([np.ones(n - 1), (1 - excess) / (1 + excess)], 1), rtol=1e-12)
    np.testing.assert_array_equal(messages[1::2], 1.0)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_contradictions_are_found_however_late(threads, rng):
    """Both ends of a chain are fixed to different states, all edges ask for equal ones, one leads off the middle."""
    n = 400
    edges = np.stack([np.arange(n), np.arange(1, n + 1)], 1)
    edges[-1] = n // 2, n
    unary = np.ones((n + 1, 2))
    unary[0, 0] = unary[n - 1, 1] = 0.0
    pairs = module._Pairs(unary, edges, np.eye(2)[None], np.zeros(n, np.int64))
    # variable i hears of the first after sweep i, the middle of the last a sweep earlier, and passes it on in the next
    assert pairs.run(False, 0.0, n // 2, 0.0, threads)[1] == n // 2
    for sweeps in (n // 2 + 1, 1000):
        with pytest.raises(ValueError, match="leaves no state"):
            pairs.run(False, 0.0, sweeps, 0.0, threads)
    # what is beyond the last variable of a block does not count: there, messages would die out
    once = np.array([[[0.0, 1.0], [0.0, 0.0]]])
    single = module._Pairs(np.ones((2, 2)), np.array([[0, 1]]), once, np.zeros(1, np.int64))
    messages, _, change = single.run(False, 0.0, 12, 0.0, threads)
    np.testing.assert_array_equal(messages, [[0, 1], [1, 0]])
    assert change == 0.0


def test_messages_near_the_smallest_number():
    """The product of two messages is subnormal in all states: its reciprocal is not finite, the next message is."""
    tiny = np.array([[1.0, 1e-155], [1e-155, 1.0]])
    unary = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    # two messages say opposite things, twice as strongly as can be said with normal numbers
    pairs = module._Pairs(
        unary, np.array([[1, 0], [2, 0], [0, 3]]), np.array([tiny**2, np.ones((2, 2))]), np.array([0, 0, 1])
    )
    messages, _, _ = pairs.run(False, 0.0, 4, 0.0, 1)
    assert np.isfinite(messages).all()
    assert messages[4, 0] == pytest.approx(messages[4, 1], rel=1e-12)
    assert messages[4, 0] > 0


def test_a_failure_in_one_thread_stops_all(rng, monkeypatch):
    monkeypatch.setattr(module, "_PART_NS", 300.0)
    n = 300
    pairs = module._Pairs(
        rng.random((n, 2)) + 0.1,
        np.stack([np.arange(n - 1), np.arange(1, n)], 1),
        np.ones((1, 2, 2)),
        np.zeros(n - 1, int),
    )
    whole, calls = module.kernels.sweep, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(module.kernels, "sweep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pairs.run(False, 0.0, 1000, 0.0, 2)


@pytest.mark.parametrize("maximum", [False, True])
@pytest.mark.parametrize("tables", ["one", "two", "symmetric"])
def test_models_given_as_arrays(maximum, tables, rng, monkeypatch):
    """The same messages as for their factor graph: also with parallel edges, forbidden states, nodes without edges."""
    n, K = 60, 3
    unary = rng.normal(size=(n, K))
    unary[rng.random((n, K)) < 0.1] = -np.inf
    unary[:, 0] = 0.0
    edges = np.array([(i, i + 1) for i in range(40)] + [(i + 5, i) for i in range(30)] + [(3, 4)])
    pair = rng.normal(size=(2, K, K)) * 0.3
    if tables == "symmetric":
        pair = pair + pair.transpose(0, 2, 1)
    given = pair[:1] if tables != "two" else pair[(np.arange(len(edges)) > 40).astype(int)]
    factors = [((i,), np.exp(row)) for i, row in enumerate(unary)]
    factors += [(edge, np.exp(given[e if len(given) > 1 else 0])) for e, edge in enumerate(edges.tolist())]
    graph = FactorGraph.of([K] * n, factors)
    options = {"maximum": maximum, "damping": 0.2, "tol": 0.0, "max_iter": 15}
    found = module.pairwise_belief_propagation(unary, edges, given, **options)
    monkeypatch.setattr(module._Pairs, "of", classmethod(lambda cls, model: None))
    expected = belief_propagation(graph, **options)
    assert found is not None
    assert not found.exact
    for a, b in zip(found.marginals, expected.marginals, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-8)
    np.testing.assert_array_equal(found.states, expected.states)
    if not maximum:
        assert found.log_z == pytest.approx(expected.log_z, abs=1e-7)


def test_trees_given_as_arrays_are_exact(rng):
    n = 150
    unary, pair = rng.normal(size=(n, 2)), rng.normal(size=(1, 2, 2))
    edges = np.array([(i, i + 1) for i in range(n - 1)])
    found = module.pairwise_belief_propagation(unary, edges, pair, tol=1e-13)
    graph = FactorGraph.of(
        [2] * n, [*(((i,), np.exp(row)) for i, row in enumerate(unary)), *((edge, np.exp(pair[0])) for edge in edges)]
    )
    exact, log_z = Engine(graph).marginals(np.full((1, n), -1))
    assert found.exact
    assert found.log_z == pytest.approx(log_z[0], abs=1e-10)
    for a, b in zip(found.marginals, exact, strict=True):
        np.testing.assert_allclose(a, b[0], rtol=1e-12, atol=1e-12)
    each = rng.normal(size=(n - 1, 2, 2))
    found = module.pairwise_belief_propagation(unary, edges, each, tol=1e-13)
    graph = FactorGraph.of(
        [2] * n,
        [*(((i,), np.exp(row)) for i, row in enumerate(unary)), *zip(edges.tolist(), np.exp(each), strict=True)],
    )
    exact, log_z = Engine(graph).marginals(np.full((1, n), -1))
    assert found.exact
    assert found.log_z == pytest.approx(log_z[0], abs=1e-10)
    for a, b in zip(found.marginals, exact, strict=True):
        np.testing.assert_allclose(a, b[0], rtol=1e-12, atol=1e-12)
    assert module.pairwise_belief_propagation(unary, edges[:0], pair) is None
    with pytest.raises(ValueError, match="damping"):
        module.pairwise_belief_propagation(unary, edges, pair, damping=2.0)


def test_schedules_meet_at_a_fixed_point(rng):
    graph = grid(rng, 4, 3)
    results = [belief_propagation(graph, schedule=schedule, tol=1e-12, max_iter=1000) for schedule in SCHEDULES]
    results.append(belief_propagation(graph, damping=0.5, tol=1e-13, max_iter=1000))
    for result in results:
        assert result.converged
        assert not result.exact
        assert result.log_z == pytest.approx(results[0].log_z, abs=1e-8)
        for a, b in zip(result.marginals, results[0].marginals, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-8)
    exact, _ = Engine(graph).marginals(np.full((1, 16), -1))
    assert max(np.abs(a - b[0]).max() for a, b in zip(results[0].marginals, exact, strict=True)) < 0.05


def test_one_loop():
    """Weiss (2000): on a single loop of binary variables the likelier states are found, if not how likely they are."""
    rng = np.random.default_rng(5)
    graph = random_graph(rng, [(0, 1), (1, 2), (2, 3), (3, 0), (0,), (2,)], [2] * 4)
    result = belief_propagation(graph, tol=1e-12)
    exact, _ = Engine(graph).marginals(np.full((1, 4), -1))
    for a, b in zip(result.marginals, exact, strict=True):
        assert a.argmax() == b[0].argmax()


def test_threads_and_order_do_not_matter(rng):
    graph = grid(rng, 24, 4)
    results = [belief_propagation(graph, max_iter=9, tol=0.0, n_threads=threads) for threads in (1, 2, 7)]
    for other in results[1:]:
        for a, b in zip(results[0].marginals, other.marginals, strict=True):
            np.testing.assert_array_equal(a, b)
    order = rng.permutation(len(graph.factors))
    turned = FactorGraph(graph.cardinalities, tuple(graph.factors[i] for i in order))
    again = belief_propagation(turned, max_iter=9, tol=0.0)
    for a, b in zip(results[0].marginals, again.marginals, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_zeros_and_contradictions():
    graph = FactorGraph.of([2, 2], [([0, 1], [[1.0, 0.0], [0.0, 3.0]]), ([0], [0.5, 0.5])])
    result = belief_propagation(graph)
    np.testing.assert_allclose(result.marginals[1], [0.25, 0.75])
    with pytest.raises(ValueError, match="impossible"):
        belief_propagation(graph, [0, 1])
    both = FactorGraph.of([2], [([0], [1.0, 0.0]), ([0], [0.0, 1.0])])
    for schedule in SCHEDULES:
        with pytest.raises(ValueError, match="leaves no state"):
            belief_propagation(both, schedule=schedule)


def test_small_graphs():
    empty = belief_propagation(FactorGraph.of([], []))
    assert empty.marginals == []
    assert empty.log_z == 0
    bare = belief_propagation(FactorGraph.of([3, 2], [([], 2.0)]))
    np.testing.assert_allclose(bare.marginals[0], [1 / 3] * 3)
    assert bare.log_z == pytest.approx(np.log(12))
    observed = belief_propagation(FactorGraph.of([3], [([0], [1.0, 2.0, 4.0])]), [2])
    np.testing.assert_array_equal(observed.marginals[0], [0, 0, 1])
    assert observed.log_z == pytest.approx(np.log(4))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"schedule": "magic"}, "schedule must be one of"),
        ({"damping": 1.0}, "damping must be below 1"),
        ({"damping": -0.1}, "damping"),
        ({"max_iter": 0}, "max_iter"),
        ({"tol": -1}, "tol"),
        ({"evidence": [0]}, "shape"),
        ({"evidence": [0, 2]}, "below 2"),
        ({"evidence": [0.0, 1.0]}, "integers"),
    ],
)
def test_wrong_parameters(options, text):
    graph = FactorGraph.of([2, 2], [([0, 1], np.ones((2, 2)))])
    with pytest.raises(ValueError, match=text):
        belief_propagation(graph, **options)


# ---- mean field ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_mean_field_is_a_bound(seed):
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, [(0, 1), (1, 2), (2, 0), (1, 2, 3), (3,)], [2, 3, 2, 4], 0.2)
    evidence = np.array([-1, -1, 1, -1]) if seed % 2 else None
    log_z = Engine(graph).log_evidence(None if evidence is None else evidence[None])[0]
    result = mean_field(graph, evidence, n_restarts=2, random_state=0)
    assert result.converged
    assert result.elbo <= log_z + 1e-12
    assert log_z - result.elbo < 0.3
    assert np.diff(result.history).min(initial=0) > -1e-12
    total = 0.0  # E log p + entropy, by all states
    for x, value in values(graph):
        q = np.prod([table[s] for table, s in zip(result.marginals, x, strict=True)])
        total += q * (np.log(value) - np.log(q)) if q > 0 else 0.0
    assert result.elbo == pytest.approx(total, abs=1e-10)


def test_mean_field_of_independent_variables_is_exact(rng):
    graph = random_graph(rng, [(0,), (1,), (1,)], [3, 2])
    result = mean_field(graph)
    exact, log_z = Engine(graph).marginals(np.full((1, 2), -1))
    assert result.elbo == pytest.approx(log_z[0], abs=1e-12)
    for a, b in zip(result.marginals, exact, strict=True):
        np.testing.assert_allclose(a, b[0], rtol=1e-12, atol=1e-12)


def test_mean_field_refuses_zeros():
    graph = FactorGraph.of([2, 2], [([0, 1], [[1.0, 0.0], [1.0, 1.0]])])
    with pytest.raises(ValueError, match=r"scope \(0, 1\) has some"):
        mean_field(graph)
    assert mean_field(graph, [1, -1]).elbo == pytest.approx(np.log(2))


# ---- TRW-S -----------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_trw_s_bounds(seed):
    rng = np.random.default_rng(seed)
    cards = rng.integers(1, 4, 6).tolist()
    pairs = [pair for pair in itertools.permutations(range(6), 2) if rng.random() < 0.3]
    graph = random_graph(rng, [*pairs, *((v,) for v in range(6))], cards)
    best = min(-np.log(value) for _, value in values(graph))
    result = trw_s(graph)
    assert result.lower_bound <= best + 1e-9
    assert result.energy >= best - 1e-9
    at = np.prod([factor.table[tuple(result.states[list(factor.scope)])] for factor in graph.factors])
    assert result.energy == pytest.approx(-np.log(at), abs=1e-10)
    assert np.diff(result.history).min(initial=0) > -1e-9


def test_trw_s_is_tight_on_trees_and_attractive_models(rng):
    for _ in range(10):
        cards = rng.integers(2, 5, 7).tolist()
        graph = random_graph(
            rng, [*((int(rng.integers(0, i)), i) for i in range(1, 7)), *((i,) for i in range(7))], cards
        )
        result = trw_s(graph)
        assert result.exact
        assert result.energy == pytest.approx(-Engine(graph).mpe()[1][0], abs=1e-9)
    factors = [((i * 4 + j,), rng.random(2) + 0.1) for i in range(4) for j in range(4)]
    attract = np.exp([[0.4, -0.4], [-0.4, 0.4]])
    factors += [((i * 4 + j, i * 4 + j + 1), attract) for i in range(4) for j in range(3)]
    factors += [((i * 4 + j, i * 4 + j + 4), attract) for i in range(3) for j in range(4)]
    graph = FactorGraph.of([2] * 16, factors)
    result = trw_s(graph, max_iter=5000, tol=1e-12)
    assert result.energy == pytest.approx(-Engine(graph).mpe()[1][0], abs=1e-9)
    assert result.lower_bound == pytest.approx(result.energy, abs=1e-4)


def test_trw_s_with_evidence(rng):
    graph = random_graph(rng, [(0, 1), (1, 2), (2, 0), (0,)], [2, 3, 2])
    evidence = np.array([-1, 2, -1])
    result = trw_s(graph, evidence)
    assert result.states[1] == 2
    states, value = Engine(graph).mpe(evidence[None])
    np.testing.assert_array_equal(result.states, states[0])
    assert result.energy == pytest.approx(-value[0], abs=1e-9)
    with pytest.raises(ValueError, match="at most two variables"):
        trw_s(random_graph(rng, [(0, 1, 2)], [2, 2, 2]))
    with pytest.raises(ValueError, match="without zeros"):
        trw_s(FactorGraph.of([2], [([0], [0.0, 1.0])]))


# ---- likelihood weighting --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_likelihood_weighting(seed):
    """Within five standard errors of the exact marginals: false alarm below 1e-4 for all of them together."""
    rng = np.random.default_rng(seed)
    network = asia() if seed == 0 else random_network(rng, 8, zeros=0)
    evidence = np.full(len(network.names), -1)
    evidence[[1, len(network.names) - 1]] = 0
    exact, log_evidence = Engine(network.factor_graph()).marginals(evidence[None])
    result = likelihood_weighting(network, evidence, 40_000, random_state=seed)
    for found, error, expected in zip(result.marginals, result.standard_errors, exact, strict=True):
        assert (np.abs(found - expected[0]) <= 5 * error + 1e-12).all()
        assert found.sum() == pytest.approx(1)
    assert abs(result.log_evidence - log_evidence[0]) <= 5 * result.log_evidence_error + 1e-12
    assert 0 < result.effective_sample_size <= 40_000
    again = likelihood_weighting(network, evidence, 40_000, random_state=seed)
    np.testing.assert_array_equal(result.marginals[0], again.marginals[0])


def test_likelihood_weighting_without_evidence_and_with_impossible():
    network = asia()
    result = likelihood_weighting(network, n_samples=1000, random_state=0)
    assert result.effective_sample_size == pytest.approx(1000)
    assert result.log_evidence == 0
    impossible = np.full(8, -1)
    impossible[[network.names.index("tub"), network.names.index("either")]] = 1, 0
    with pytest.raises(ValueError, match="impossible"):
        likelihood_weighting(network, impossible, 1000)
    with pytest.raises(ValueError, match="below 2"):
        likelihood_weighting(network, np.full(8, 2), 10)
