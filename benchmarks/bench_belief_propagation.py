"""Loopy belief propagation on a grid against NumPy and JAX: flooding, 8 states, one table for all edges."""

import numpy as np
import pytest
from graphical_peers import load
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


def jax_sides(unary, pair, sweeps):
    """The same compiled by XLA: products of matrices for each direction, or for the two that share a matrix."""
    try:
        jax = load("jax")
    except pytest.skip.Exception:
        return {}
    jax.config.update("jax_enable_x64", True)
    jnp = jax.numpy

    def moved(message, axis, forward):
        padding = [(0, 0, 0)] * 3
        padding[axis] = (1, -1, 0) if forward else (-1, 1, 0)
        return jax.lax.pad(message, jnp.ones((), message.dtype), padding)

    def sent(products, matrix):
        message = jnp.stack(products).reshape(-1, K) @ matrix
        return (message / message.max(axis=1, keepdims=True)).reshape(len(products), *products[0].shape)

    def side(together, unroll):
        def sweep(unary, pair, messages):
            right, left, down, up = messages
            across, along = unary * (down * up), unary * (right * left)
            forward, backward = (across * right, along * down), (across * left, along * up)
            if together:
                forward, backward = sent(forward, pair), sent(backward, pair.T)
            else:
                forward, backward = ([sent([p], m)[0] for p in ps] for ps, m in ((forward, pair), (backward, pair.T)))
            return (
                moved(forward[0], 1, True), moved(backward[0], 1, False),
                moved(forward[1], 0, True), moved(backward[1], 0, False),
            )  # fmt: skip

        @jax.jit
        def run(unary, pair):  # arguments, not constants: XLA would work out the result when it compiles
            messages = (jnp.ones_like(unary),) * 4
            messages = jax.lax.fori_loop(0, sweeps, lambda _, old: sweep(unary, pair, old), messages, unroll=unroll)
            belief = unary * messages[0] * messages[1] * messages[2] * messages[3]
            return belief / belief.sum(axis=2, keepdims=True)

        how = f"{'two directions' if together else 'each direction'} at once, {unroll} sweeps unrolled"
        return Side(lambda: run(*given).block_until_ready(), np.asarray, how=how)

    given = jnp.asarray(unary), jnp.asarray(pair)
    return {"JAX": [side(together, unroll) for together in (False, True) for unroll in (1, 2, sweeps)]}


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

    rivals = {"NumPy": Side(lambda: by_numpy(unary, pair, SWEEPS)), **jax_sides(unary, pair, SWEEPS)}
    versus(
        f"belief propagation, {n} x {n}, {K} states, {messages} messages",
        Side(lambda: pairs.run(False, 0.0, SWEEPS, 0.0, threads), belief),
        rivals,
        rtol=1e-9,
        threads=threads,
        # each state of a message: a sum of K products, two products with what others say, one with its scale
        n_flops=2.0 * messages * K * (K + 3),
        targets=None if quick or threads == 1 or "JAX" not in rivals else {("JAX",): 4, ("PGMax, scaled",): 15},
        scaled={"PGMax": ("NumPy", 236 / 133)},
    )
