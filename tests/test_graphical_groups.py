"""Families that share a table: every family is in one group, tables can be put in and got back."""

import numpy as np
import pytest
from test_graphical_rows import expected, random_network

from fastgen.graphical import _families, pair_counts
from fastgen.graphical._families import family_counts
from fastgen.graphical._groups import group_families
from fastgen.graphical._rows import NetworkRows


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("most", [0, 10, 100, None])
def test_groups(seed, most):
    rng = np.random.default_rng(seed)
    network = random_network(rng, int(rng.integers(1, 40)))
    cards = network.cardinalities
    families = [(*parents, i) for i, parents in enumerate(network.parents)]
    groups = group_families(cards, families, most)
    assert sorted(i for group in groups for i in group.families) == list(range(len(families)))
    if most == 0:
        assert len(groups) == len(families)
    for group in groups:
        shape = tuple(cards[j] for j in group.scope)
        assert len(set(group.scope)) == len(group.scope)
        assert set(group.scope) == {j for i in group.families for j in families[i]}
        assert len(group.families) == 1 or np.prod(shape, dtype=float) <= (512 if most is None else most)
        if np.prod(shape) > 1 << 16:
            continue
        cells = np.indices(shape).reshape(len(shape), -1)
        for i in group.families:
            table = rng.random([cards[j] for j in families[i]])
            places = tuple(cells[group.scope.index(j)] for j in families[i])
            spread = np.broadcast_to(group.spread(table, families[i]), shape)
            np.testing.assert_array_equal(spread.ravel(), table[places])
            counts = rng.integers(0, 9, shape)
            sums = np.zeros(table.shape)
            np.add.at(sums, places, counts.ravel())
            np.testing.assert_array_equal(group.marginal(counts, families[i]), sums)


@pytest.mark.parametrize("V", [3, 7, 8, 9, 16, 23])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.int64, np.uint64, bool])
@pytest.mark.parametrize("n", [1, 7, 8, 255, 256, 1001])
def test_layouts(V, dtype, n, monkeypatch):
    """Bytes are transposed eight by eight, other rows one by one: counts and log p(x) are the same in any layout.

    The first code that is no state is found wherever it is.
    """
    monkeypatch.setattr(_families, "_MANY_ROWS", 500)
    rng = np.random.default_rng(V * n)
    network = random_network(rng, V, most=2 if dtype is bool else 4)
    cards = network.cardinalities
    X = np.stack([rng.integers(0, card, n) for card in cards], axis=1).astype(dtype)
    wide = np.zeros((n, V + 3), dtype)
    wide[:, 2 : V + 2] = X
    rows = NetworkRows(network)
    logs = expected(network, X.astype(int))
    for array in (X, np.asfortranarray(X), X[::-1].copy()[::-1], wide[:, 2 : V + 2], np.repeat(X, 2, axis=1)[:, ::2]):
        codes = array.view(np.uint8) if dtype is bool else array
        np.testing.assert_allclose(rows.log_prob(codes), logs, rtol=1e-13)
        counts = family_counts(codes, cards, network.parents)
        for i, (parents, found) in enumerate(zip(network.parents, counts, strict=True)):
            wanted = np.zeros([cards[j] for j in (*parents, i)])
            np.add.at(wanted, tuple(codes[:, j] for j in (*parents, i)), 1)
            np.testing.assert_array_equal(found, wanted)
        for wrong in (None, np.iinfo(codes.dtype).max, np.iinfo(codes.dtype).min or 255):
            r, i = int(rng.integers(n)), int(rng.integers(V))
            value = cards[i] if wrong is None else wrong
            bad = codes.copy(order="K")
            bad[r, i] = value
            with pytest.raises(ValueError, match=f"X holds {value} in row {r}, column {i}, whose"):
                family_counts(bad, cards, network.parents)
            with pytest.raises(ValueError, match=f"row {r} holds {value} for 'n{i}'"):
                rows.log_prob(bad)
            with pytest.raises(ValueError, match=f"X holds {value} in row {r}, column {i}, whose"):
                pair_counts(bad, cards)


def test_codes_of_more_than_a_byte():
    """300 states do not fit into bytes; 256 do, and 255 is the last of them."""
    rng = np.random.default_rng(0)
    for states, dtype in ((300, np.uint16), (256, np.uint8), (200, np.int16)):
        cards = (states, *[2] * 8)
        X = np.stack([rng.integers(0, card, 1000) for card in cards], axis=1).astype(dtype)
        X[0, 0] = states - 1
        parents = ((), *[(0,)] * 8)
        counts = family_counts(X, cards, parents)
        wanted = np.zeros((states, 2))
        np.add.at(wanted, (X[:, 0], X[:, 8]), 1)
        np.testing.assert_array_equal(counts[8], wanted)
        np.testing.assert_array_equal(counts[0], np.bincount(X[:, 0], minlength=states))
        if states < 256:
            X[3, 0] = -100
            with pytest.raises(ValueError, match="X holds -100 in row 3, column 0"):
                family_counts(X, cards, parents)
