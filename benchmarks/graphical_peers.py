"""Graphical models for benchmarks: published networks, the peers, and what an expert writes in NumPy."""

import gzip
import os
import tempfile
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastgen.graphical import formats


def load(name: str) -> Any:
    """Import a peer, or skip: pyAgrum's C++ part does not survive warnings that are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


def path(name: str) -> Path:
    """The file of a network of the bnlearn repository."""
    folder = Path(os.environ.get("FASTGEN_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
    file = folder / "bif" / f"{name}.bif.gz"
    if not file.exists():
        pytest.skip(f"no published networks in {folder}; FASTGEN_TEST_DATA names another folder")
    return file


@cache
def network(name: str) -> Any:
    """The network, rows normalised."""
    return formats.read_bif(path(name)).normalised()


@cache
def agrum_network(name: str) -> Any:
    """The same for pyAgrum, which cannot read the states of child: they get numbers."""
    gum = load("pyagrum")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{name}.bif"
        if name == "child":
            given = network(name)
            states = tuple(tuple(f"s{i}" for i in range(len(labels))) for labels in given.states)
            formats.write_bif(replace(given, states=states), file)
        else:
            file.write_bytes(gzip.decompress(path(name).read_bytes()))
        return gum.loadBN(str(file))


# ---- NumPy -----------------------------------------------------------------------------------------------------------


def numpy_log_prob(network: Any, logs: Any, X: Any, block: int) -> Any:
    """Log p(x) of rows: fancy indexing of each table, block by block, columns copied first."""
    out = np.empty(len(X))
    for start in range(0, len(X), block):
        columns = np.ascontiguousarray(X[start : start + block].T)
        total = np.zeros(columns.shape[1])
        for i, parents in enumerate(network.parents):
            place = np.zeros(columns.shape[1], np.intp)
            for j in (*parents, i):
                place *= network.cardinalities[j]
                place += columns[j]
            total += logs[i].take(place)
        out[start : start + block] = total
    return out


def numpy_counts(network: Any, X: Any, block: int) -> list[Any]:
    """Counts of all families: one bincount of the mixed radix of each, block by block."""
    counts = [np.zeros(table.size, np.int64) for table in network.tables]
    for start in range(0, len(X), block):
        columns = np.ascontiguousarray(X[start : start + block].T)
        for i, parents in enumerate(network.parents):
            place = np.zeros(columns.shape[1], np.int32)
            for j in (*parents, i):
                place *= network.cardinalities[j]
                place += columns[j]
            counts[i] += np.bincount(place, minlength=len(counts[i]))
    return [count.reshape(table.shape) for count, table in zip(counts, network.tables, strict=True)]


def numpy_sample(network: Any, n: int, block: int, seed: int) -> Any:
    """Ancestral sampling: inverse distribution functions of all rows of a block at once."""
    rng = np.random.default_rng(seed)
    cumulative = [np.cumsum(table.reshape(-1, table.shape[-1]), axis=1)[:, :-1] for table in network.tables]
    X = np.empty((n, len(network.names)), np.uint8)
    for start in range(0, n, block):
        m = min(block, n - start)
        columns = np.empty((len(network.names), m), np.uint8)
        for i in network.order:
            place = np.zeros(m, np.intp)
            for j in network.parents[i]:
                place *= network.cardinalities[j]
                place += columns[j]
            u = rng.random(m)
            state = np.zeros(m, np.uint8)
            for column in cumulative[i].T:
                state += u > column.take(place)
            columns[i] = state
        X[start : start + m] = columns.T
    return X
