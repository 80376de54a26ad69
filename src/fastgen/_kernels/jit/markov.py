"""Log-linear models over discrete variables, laid out flat. Numba: the caller allocates, nothing is checked twice.

The logarithms of all tables lie in one array. Factor f begins at offset[f], is multiplied by weight[f], and has the
slots first[f] : first[f + 1], one for each variable of its scope: which variable, and the step of its state. Factors
may share a table. The slots of variable v are slot[own[v] : own[v + 1]], and owner[s] is the factor of slot s. These
arrays, in this order, are the tuple `model`: cardinality, first, variable, stride, offset, weight, table, own, slot,
owner.
"""

from collections.abc import Callable
from math import exp, inf, log
from typing import Any

import numba

jit: Callable[[Any], Any] = numba.njit(nogil=True, cache=True, error_model="numpy")


@jit
def _place(x, f, except_slot, model):  # type: ignore[no-untyped-def]
    """The entry of factor f at states x, as if the variable of one slot had state 0."""
    _, first, variable, stride, offset, _, _, _, _, _ = model
    place = offset[f]
    for s in range(first[f], first[f + 1]):
        if s != except_slot:
            place += stride[s] * x[variable[s]]
    return place


@jit
def _conditional(x, v, model, local, bad, at):  # type: ignore[no-untyped-def]
    """local[k], bad[k] <- sum of the finite log-potentials of v's factors when v has state k, number of the others.

    at[i] <- the entry of its i-th factor when v has state 0.
    """
    cardinality, _, _, stride, _, weight, table, own, slot, owner = model
    size = cardinality[v]
    for k in range(size):
        local[k] = 0.0
        bad[k] = 0
    for i in range(own[v], own[v + 1]):
        s = slot[i]
        f = owner[s]
        place, step, w = _place(x, f, s, model), stride[s], weight[f]
        at[i - own[v]] = place
        for k in range(size):
            term = w * table[place + step * k]
            if term > -inf:
                local[k] += term
            else:
                bad[k] += 1
    return size


@jit
def log_potential(X, model, start, stop, out):  # type: ignore[no-untyped-def]
    """out[start:stop] <- sum of all log-potentials of these rows."""
    offset, weight, table = model[4], model[5], model[6]
    for r in range(start, stop):
        x = X[r]
        total = 0.0
        for f in range(len(offset)):
            total += weight[f] * table[_place(x, f, -1, model)]
        out[r] = total


@jit
def count(X, weights, model, out):  # type: ignore[no-untyped-def]
    """Add the weight of each row to the entries of the tables that it meets."""
    for r in range(len(X)):
        for f in range(len(model[4])):
            out[_place(X[r], f, -1, model)] += weights[r]


@jit
def icm(x, free, max_sweeps, model, local, bad, at):  # type: ignore[no-untyped-def]
    """Iterated conditional modes, in place: each free variable in turn takes its best state, if that is better.

    Returns the number of sweeps; more than max_sweeps if the last one still changed something.
    """
    for sweep in range(max_sweeps):
        changed = False
        for v in free:
            size = _conditional(x, v, model, local, bad, at)
            best = x[v]
            for k in range(size):
                if bad[k] < bad[best] or (bad[k] == bad[best] and local[k] > local[best]):
                    best = k
            if best != x[v]:
                x[v] = best
                changed = True
        if not changed:
            return sweep + 1
    return max_sweeps + 1


@jit
def _distribution(x, v, model, local, bad, at):  # type: ignore[no-untyped-def]
    """local <- unnormalised conditional probabilities of v, the largest of them 1; returns their sum and the log of 1.

    The sum is 0 if no state is possible.
    """
    size = _conditional(x, v, model, local, bad, at)
    top = -inf
    for k in range(size):
        if bad[k] == 0 and local[k] > top:
            top = local[k]
    total = 0.0
    for k in range(size):
        local[k] = exp(local[k] - top) if bad[k] == 0 else 0.0
        total += local[k]
    return total, top


@jit
def sweep(X, uniform, model, start, stop, local, bad, at):  # type: ignore[no-untyped-def]
    """One Gibbs sweep over the variables of each of these rows, in place. uniform (rows, V), in [0, 1).

    Returns whether each variable had a possible state.
    """
    for r in range(start, stop):
        for v in range(X.shape[1]):
            total, _ = _distribution(X[r], v, model, local, bad, at)
            if total == 0.0:
                return False
            rest = uniform[r, v] * total
            k = 0
            while rest >= local[k] and k < model[0][v] - 1:
                rest -= local[k]
                k += 1
            while local[k] == 0.0:  # where rounding went past the last possible state
                k -= 1
            X[r, v] = k
    return True


@jit
def pseudo_likelihood(X, weights, model, start, stop, gradient, local, bad, at):  # type: ignore[no-untyped-def]
    """Sum over rows and variables of weight * log p(x_v | rest); its gradient by the tables is added to `gradient`."""
    stride, weight, table, own, slot, owner = model[3], model[5], model[6], model[7], model[8], model[9]
    objective = 0.0
    for r in range(start, stop):
        x = X[r]
        for v in range(X.shape[1]):
            size = model[0][v]
            total, top = _distribution(x, v, model, local, bad, at)
            for k in range(size):
                local[k] *= weights[r] / total
            value = 0.0
            for i in range(own[v], own[v + 1]):
                s = slot[i]
                place, step, w = at[i - own[v]], stride[s], weight[owner[s]]
                value += w * table[place + step * x[v]]
                gradient[place + step * x[v]] += w * weights[r]
                for k in range(size):
                    gradient[place + step * k] -= w * local[k]
            objective += weights[r] * (value - top - log(total))
    return objective
