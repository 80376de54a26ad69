"""Loopy belief propagation on a grid against NumPy: flooding, 8 states, one table for all edges."""

import numpy as np
import pytest
from versus import Side

from fastgen.graphical import FactorGraph, belief_propagation
from fastgen.graphical import _message_passing as module

K, SWEEPS = 8, 20


def by_numpy(unary, pair, sweeps):
    """Messages to the right, left, down, up, as arrays; each sweep is one matrix product for each direction."""
    H, W, K = unary.shape
    right, left = np.ones((2, H, W, K))  # into each node, from its left and its right neighbour
    down, up = np.ones((2, H, W, K))
    for _ in range(sweeps):
        new = []
        for others, axis, forward in (
            ((right, down, up), 1, True),
            ((left, down, up), 1, False),
            ((right, left, down), 0, True),
            ((right, left, up), 0, False),
        ):
            product = unary * others[0] * others[1] * others[2]
            message = product.reshape(-1, K) @ (pair if forward else pair.T)
            message /= message.max(axis=1, keepdims=True)
            shifted = np.ones((H, W, K))
            message = message.reshape(H, W, K)
            if axis == 1 and forward:
                shifted[:, 1:] = message[:, :-1]
            elif axis == 1:
                shifted[:, :-1] = message[:, 1:]
            elif forward:
                shifted[1:] = message[:-1]
            else:
                shifted[:-1] = message[1:]
            new.append(shifted)
        right, left, down, up = new
    belief = unary * right * left * down * up
    return belief / belief.sum(axis=2, keepdims=True)


@pytest.mark.parametrize("threads", [1, 2])
def test_grid(versus, quick, threads):
    n = 24 if quick else 128
    rng = np.random.default_rng(0)
    unary, pair = rng.random((n, n, K)) + 0.1, rng.random((K, K)) + 0.2
    factors = [((i * n + j,), unary[i, j]) for i in range(n) for j in range(n)]
    factors += [((i * n + j, i * n + j + 1), pair) for i in range(n) for j in range(n - 1)]
    factors += [((i * n + j, i * n + j + n), pair) for i in range(n - 1) for j in range(n)]
    graph = FactorGraph.of([K] * (n * n), factors)
    edges = np.array([factor.scope for factor in graph.factors[n * n :]])
    options = {"max_iter": SWEEPS, "tol": 0.0}
    arguments = np.log(unary.reshape(-1, K)), edges, np.log(pair)[None]
    found, expected = module.pairwise_belief_propagation(*arguments, **options), belief_propagation(graph, **options)
    np.testing.assert_allclose(found.marginals, expected.marginals, rtol=1e-9)
    pairs = module._Pairs(unary.reshape(-1, K), edges, pair[None], np.zeros(len(edges), np.int64))
    messages = 2 * SWEEPS * len(edges)

    def belief(sent):
        out = unary.reshape(-1, K).copy()
        np.multiply.at(out, edges[:, 1], sent[0][0::2])
        np.multiply.at(out, edges[:, 0], sent[0][1::2])
        return (out / out.sum(axis=1, keepdims=True)).reshape(n, n, K)

    versus(
        f"belief propagation, {n} x {n}, {K} states, {messages} messages",
        Side(lambda: pairs.run(False, 0.0, SWEEPS, 0.0, threads), belief),
        {"NumPy": Side(lambda: by_numpy(unary, pair, SWEEPS))},
        rtol=1e-9,
        threads=threads,
        targets=None if quick else {("JAX, scaled",): 4, ("PGMax, scaled",): 15},
        scaled={"JAX": ("NumPy", 52.8 / 133), "PGMax": ("NumPy", 236 / 133)},
    )
