"""Complete rows of discrete networks: log p(x) against the product of the tables, draws against p(x)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from fastgen.graphical._factors import DiscreteNetwork
from fastgen.graphical._rows import NetworkRows


def random_network(rng, V, most=4, zeros=0.2):
    """Nodes in any order, up to three parents each."""
    rank, cards = rng.permutation(V), rng.integers(1, most + 1, V)
    parents, tables = [], []
    for i in range(V):
        before = np.flatnonzero(rank < rank[i])
        chosen = tuple(map(int, rng.permutation(before)[: rng.integers(0, 4)]))
        table = rng.random((*cards[list(chosen)], cards[i])) * (rng.random((*cards[list(chosen)], cards[i])) > zeros)
        table[..., 0] += table.sum(axis=-1) == 0
        parents.append(chosen)
        tables.append(table / table.sum(axis=-1, keepdims=True))
    states = tuple(tuple(f"s{k}" for k in range(card)) for card in cards)
    return DiscreteNetwork(tuple(f"n{i}" for i in range(V)), states, tuple(parents), tuple(tables))


def expected(network, X):
    with np.errstate(divide="ignore"):
        logs = [np.log(table) for table in network.tables]
    return np.array(
        [
            sum(
                log[(*(row[p] for p in parents), row[i])]
                for i, (parents, log) in enumerate(zip(network.parents, logs, strict=True))
            )
            for row in X
        ]
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.sampled_from([1, 127, 128, 300]))
def test_log_prob_is_the_product_of_the_tables(seed, V, n):
    rng = np.random.default_rng(seed)
    network = random_network(rng, V)
    rows = NetworkRows(network)
    X = np.stack([rng.integers(0, card, n) for card in network.cardinalities], axis=1)
    wanted = expected(network, X)
    for array in (X, X.astype(np.uint8), np.asfortranarray(X.astype(np.int16)), X[::-1].copy()[::-1]):
        found = rows.log_prob(array)
        np.testing.assert_allclose(found, wanted, rtol=1e-13)
    drawn = rows.draw(n, rng)
    assert drawn.dtype == np.uint8
    assert (rows.log_prob(drawn) > -np.inf).all()  # what is impossible is never drawn


@pytest.mark.parametrize("seed", range(4))
def test_draws_follow_the_model(seed):
    """Pearson's test over all cells of the joint; false alarm: 4 x 1e-6."""
    rng = np.random.default_rng(seed)
    network, n = random_network(rng, 5, most=3), 200_000
    drawn = NetworkRows(network).draw(n, rng)
    cells = np.stack(np.unravel_index(np.arange(np.prod(network.cardinalities)), network.cardinalities), axis=1)
    p = np.exp(expected(network, cells))
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-12)
    counts = np.bincount(np.ravel_multi_index(drawn.T.astype(int), network.cardinalities), minlength=len(cells))
    common = n * p > 5
    statistic = ((counts - n * p)[common] ** 2 / (n * p)[common]).sum()
    assert statistic < chi2.isf(1e-6, common.sum())
    assert counts[p == 0].sum() == 0


def test_threads_do_not_change_a_bit():
    rng = np.random.default_rng(7)
    rows = NetworkRows(random_network(rng, 20))
    draws = [rows.draw(50_001, np.random.default_rng(3), threads) for threads in (1, 2, 7)]
    for other in draws[1:]:
        np.testing.assert_array_equal(draws[0], other)
    one, two = (rows.log_prob(draws[0], threads) for threads in (1, 2))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one[:1000], [rows.log_prob(row[None])[0] for row in draws[0][:1000]])
    assert not np.array_equal(draws[0], rows.draw(50_001, np.random.default_rng(4)))


def test_many_states_and_certain_ones():
    p = np.zeros(1000)
    p[[3, 998]] = [1e-9, 1 - 1e-9]
    network = DiscreteNetwork(("a", "b"), (tuple(map(str, range(1000))), ("0",)), ((), (0,)), (p, np.ones((1000, 1))))
    drawn = NetworkRows(network).draw(20_000, np.random.default_rng(0))
    assert drawn.dtype == np.uint16
    assert set(drawn[:, 0].tolist()) <= {3, 998}
    assert (drawn[:, 1] == 0).all()


def test_tables_that_sum_to_one_only_as_printed():
    """0.33 three times: draws are in proportion, log p(x) is of the numbers as they are."""
    network = DiscreteNetwork(("a",), (("x", "y", "z"),), ((),), ([0.33, 0.33, 0.33],))
    rows = NetworkRows(network)
    counts = np.bincount(rows.draw(300_000, np.random.default_rng(0))[:, 0])
    assert ((counts - 1e5) ** 2 / 1e5).sum() < chi2.isf(1e-6, 2)
    np.testing.assert_allclose(rows.log_prob(np.array([[2]])), np.log(0.33), rtol=1e-15)


def test_what_is_refused():
    rows = NetworkRows(random_network(np.random.default_rng(0), 4))
    good = rows.draw(500, np.random.default_rng(0)).astype(int)
    for row, value in ((499, 4), (130, -1)):
        bad = good.copy()
        bad[row, 2] = value
        with pytest.raises(ValueError, match=f"row {row} holds {value} for 'n2', whose states are 0 to"):
            rows.log_prob(bad)
    for bad in (good[0], good[:, :3], good.astype(float)):
        with pytest.raises(ValueError, match="integers of shape"):
            rows.log_prob(bad)
    assert rows.draw(0, np.random.default_rng(0)).shape == (0, 4)
    assert rows.log_prob(good[:0]).shape == (0,)
