"""Between data as users have them (arrays, data frames; numbers, text, missing cells) and codes of states."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples

from fastgen._bayes import classes_of
from fastgen._frames import MISSING, UNKNOWN, Column, columns_of, is_frame
from fastgen._validation import Array, as_weights
from fastgen.graphical._factors import has_control_characters

Codes = NDArray[np.integer[Any]]
"""States as numbers, (n, V); -1 where a cell is missing."""

_MOST_STATES = 1 << 16
_CHUNK = 64


def extremes(X: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The least (0 for unsigned integers) and the largest value of each column of integers."""
    n, V = X.shape
    whole = n // _CHUNK * _CHUNK if X.flags.c_contiguous else 0
    signed = X.dtype.kind == "i"
    rest = [X[whole:]] if whole < n else []
    lows, highs = [part.min(axis=0) for part in rest], [part.max(axis=0) for part in rest]
    if whole:  # long rows: NumPy then compares many columns at once
        chunks = X[:whole].reshape(-1, _CHUNK * V)
        highs.append(chunks.max(axis=0).reshape(_CHUNK, V).max(axis=0))
        lows.append(chunks.min(axis=0).reshape(_CHUNK, V).min(axis=0) if signed else np.zeros(V, X.dtype))
    return np.min(lows, axis=0), np.max(highs, axis=0)


def with_weight(X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Array | None]:
    """The rows (and labels, if any) that have a weight, and the weights: what has none defines no states."""
    if sample_weight is None:
        return X, y, None
    weights = as_weights(sample_weight, _num_samples(X))
    assert weights is not None
    if weights.all():
        return X, y, weights
    rows = np.flatnonzero(weights)
    return _safe_indexing(X, rows), None if y is None else _safe_indexing(y, rows), weights[rows]


@dataclass(frozen=True)
class Coding:
    """The variables, and which values their states stand for.

    Parameters
    ----------
    names : tuple
        Of the columns: text, or numbers from 0.
    categories : tuple of tuples
        The values of each variable, in the order of its states.
    frame : str or None
        What data came as: ``pandas``, ``polars`` or None.
    ordered : frozenset of int
        The variables whose columns were ordered categoricals (pandas) or Enums (polars).
    """

    names: tuple[Any, ...]
    categories: tuple[tuple[Any, ...], ...]
    frame: str | None = None
    ordered: frozenset[int] = frozenset()

    @classmethod
    def of(cls, X: Any, states: Mapping[Any, Sequence[Any]] | None, estimator: Any) -> tuple[Self, Codes]:
        """The coding of data, and the codes.

        Arrays of integers, and of floats that are integers or NaN, hold codes: the states are 0 to the largest that
        occurs, and -1 is missing. Other columns have the categories that they declare, or the values that occur,
        sorted.

        Parameters
        ----------
        X : array or data frame (n, V)
        states : mapping, optional
            For some columns, all values that may occur, in the order that they are to have.
        estimator : object
            Named in errors.
        """
        states = dict(states or {})
        frame = _frame_of(X)
        plain = _as_codes(X) if frame is None else None
        columns = columns_of(X, estimator) if plain is None else []
        names: tuple[Any, ...] = tuple(column.name for column in columns)
        if plain is not None:
            names = tuple(range(plain.shape[1]))
        if frame is None and len(states) == len(names) and not set(states) <= set(names):
            names = tuple(states)  # columns of arrays have no names: these do it
        for name, values in states.items():
            if name not in names:
                raise ValueError(f"states names {name!r}, which is no column of X: these are {list(names)}")
            if len(set(values)) < len(values):
                raise ValueError(f"states of {name!r} are not distinct: {list(values)}")
        if plain is not None and all(_is_coded(values) for values in states.values()):
            found = extremes(plain)
            highs = found[1].tolist()
            ranges = [
                tuple(states[name]) if name in states else range(high + 1)
                for name, high in zip(names, highs, strict=True)
            ]
            for name, values in zip(names, ranges, strict=True):
                _check_size(name, len(values))
            coding = cls(names, tuple(map(tuple, ranges)))
            return coding, coding._checked(plain, *found)
        columns = _renamed(columns or columns_of(X, estimator), names)
        categories = []
        for column in columns:
            _refuse_infinity(column)
            _refuse_merging(column)
            values = tuple(states[column.name]) if column.name in states else tuple(_distinct(column))
            _check_size(column.name, len(values))
            categories.append(values)
        coding = cls(names, tuple(categories), frame, _ordered(X, frame))
        return coding, coding._encode(columns, "error")

    @cached_property
    def position(self) -> dict[Any, int]:
        """The number of each variable."""
        return {name: i for i, name in enumerate(self.names)}

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The number of states of each variable."""
        return tuple(map(len, self.categories))

    @cached_property
    def plain(self) -> bool:
        """Whether integers are codes: the states are numbers from 0, or text."""
        return all(map(_is_coded, self.categories))

    @cached_property
    def state_names(self) -> tuple[tuple[str, ...], ...]:
        """The states as text, all different, without control characters."""
        named = []
        for values in self.categories:
            texts = tuple(map(str, values))
            if len(set(texts)) < len(texts) or "" in texts or any(map(has_control_characters, texts)):
                texts = tuple(f"{i}: {value!r}" for i, value in enumerate(values))
            named.append(texts)
        return tuple(named)

    def encode(self, X: Any, unknown: str = "error", estimator: Any = None) -> Codes:
        """The codes of data, -1 where a cell is missing.

        Parameters
        ----------
        X : array (n, V) or data frame
            A data frame may have its columns in any order; those that it lacks are missing in all rows.
        unknown : {"error", "missing"}
            What values are that no state stands for.
        estimator : object, optional

        Raises
        ------
        ValueError
            Another number of columns, a column that is no variable, or an unknown value.
        """
        if not is_frame(X) and self.plain and (codes := _as_codes(X)) is not None:
            self._check_width(codes.shape[1], estimator)
            if unknown == "error":
                return self._checked(codes, *extremes(codes))
            return np.where((codes < 0) | (codes >= np.array(self.sizes)), MISSING, codes)
        columns = columns_of(X, estimator)
        if not is_frame(X):
            self._check_width(len(columns), estimator)
            columns = _renamed(columns, self.names)
        return self._encode(columns, unknown)

    def _check_width(self, width: int, estimator: Any) -> None:
        if width != len(self.names):
            who = type(estimator).__name__ if estimator is not None else "the network"
            raise ValueError(f"X has {width} features, but {who} is expecting {len(self.names)} features as input")

    def _checked(self, codes: Codes, lows: NDArray[Any], highs: NDArray[Any]) -> Codes:
        """The codes, if all of them are states."""
        for i, (low, high) in enumerate(zip(lows.tolist(), highs.tolist(), strict=True)):
            if low < MISSING or high >= self.sizes[i]:
                column = codes[:, i]
                row = int(np.flatnonzero((column < MISSING) | (column >= self.sizes[i]))[0])
                raise ValueError(
                    f"column {self.names[i]!r} holds {column[row]} in row {row}: its states are numbered 0 to "
                    f"{self.sizes[i] - 1}, and -1 is a missing value"
                )
        return codes

    def _encode(self, columns: Sequence[Column], unknown: str) -> Codes:
        kind = np.result_type(np.int8, np.min_scalar_type(-max(self.sizes)))
        codes = np.full((len(columns[0].values), len(self.names)), MISSING, kind, order="F")
        seen = set()
        for column in columns:
            i = self.position.get(column.name)
            if i is None:
                raise ValueError(f"column {column.name!r} is no variable of the network: these are {list(self.names)}")
            if i in seen:
                raise ValueError(f"there are two columns {column.name!r}")
            seen.add(i)
            _refuse_infinity(column)
            if not all(isinstance(value, str) for value in self.categories[i]):
                _refuse_merging(column)
            if column.declared == self.categories[i]:
                codes[:, i] = column.values
                continue
            found = _codes_of(column, self.categories[i])
            if (found == UNKNOWN).any():
                row = int(np.flatnonzero(found == UNKNOWN)[0])
                if unknown == "error":
                    raise ValueError(
                        f"column {column.name!r} holds {_value(column, row)!r} in row {row}, "
                        f"which is no state: {list(self.categories[i])}"
                    )
                found = np.where(found == UNKNOWN, MISSING, found)
            codes[:, i] = found
        return codes

    def decode(
        self, codes: Codes, columns: Sequence[int] | None = None, as_frame: bool | None = None, like: Any = None
    ) -> Any:
        """Values for codes: a data frame if data came as one (or ``as_frame``), otherwise an array.

        Missing cells are NaN, None in a column of text, -1 in an array of codes. Rows of a data frame of pandas are
        called as those of ``like``, if that is one too.
        """
        chosen = list(range(len(self.names)) if columns is None else columns)
        frame = (self.frame or "pandas") if as_frame or (as_frame is None and self.frame) else None
        if frame == "pandas":
            pandas = import_module("pandas")
            return pandas.DataFrame(
                {
                    self.names[i]: pandas.Categorical.from_codes(
                        codes[:, k], categories=list(self.categories[i]), ordered=i in self.ordered
                    )
                    for k, i in enumerate(chosen)
                },
                index=like.index if _frame_of(like) == "pandas" else None,
            )
        if frame == "polars":
            polars = import_module("polars")
            return polars.DataFrame(
                [
                    polars.Series(
                        self.names[i],
                        self._values(codes[:, k], i).tolist(),
                        polars.Enum(list(self.categories[i])) if i in self.ordered else None,
                    )
                    for k, i in enumerate(chosen)
                ]
            )
        if all(_is_range(self.categories[i]) for i in chosen):
            return codes
        out = np.empty((len(codes), len(chosen)), object)
        for k, i in enumerate(chosen):
            out[:, k] = self._values(codes[:, k], i)
        return out

    def _values(self, codes: Codes, i: int) -> NDArray[Any]:
        table = np.empty(self.sizes[i] + 1, object)
        table[:-1] = self.categories[i]
        table[-1] = None if any(isinstance(v, str) for v in self.categories[i]) else np.nan
        return table[codes]

    def state(self, name: Any, value: Any) -> tuple[int, int]:
        """The numbers of a variable and of one of its states, which may be given by its value or its text."""
        i = self.variable(name)
        for values in (self.categories[i], self.state_names[i]):
            if value in values:
                return i, values.index(value)
        if self.plain and isinstance(value, (int, np.integer)) and 0 <= value < self.sizes[i]:
            return i, int(value)
        raise ValueError(f"{value!r} is no state of {name!r}: these are {list(self.categories[i])}")

    def variable(self, name: Any) -> int:
        """The number of a variable."""
        try:
            return self.position[name]
        except (KeyError, TypeError):
            if isinstance(name, (int, np.integer)) and 0 <= name < len(self.names):
                return int(name)
            raise ValueError(f"there is no variable {name!r}: the network has {list(self.names)}") from None

    def variables(self, names: Any) -> list[int]:
        """The numbers of one variable, or of several, which must be different."""
        one = isinstance(names, str) or not isinstance(names, Iterable)
        if one or (isinstance(names, tuple) and _known(names, self.position)):
            return [self.variable(names)]
        listed = list(names)
        found = [self.variable(name) for name in listed]
        if len(set(found)) < len(found):
            raise ValueError(f"variables must be given each once, got {listed}")
        return found


def _known(name: Any, position: Mapping[Any, int]) -> bool:
    try:
        return name in position
    except TypeError:  # holds what has no hash
        return False


def _frame_of(X: Any) -> str | None:
    return None if not is_frame(X) else "pandas" if hasattr(X, "iloc") else "polars"


def _ordered(X: Any, frame: str | None) -> frozenset[int]:
    """The columns that are ordered categoricals (pandas) or Enums (polars)."""
    if frame == "pandas":
        return frozenset(i for i, dtype in enumerate(X.dtypes) if getattr(dtype, "ordered", False))
    if frame == "polars":
        return frozenset(i for i, dtype in enumerate(X.dtypes) if str(dtype).startswith("Enum"))
    return frozenset()


def _as_codes(X: Any) -> Codes | None:
    """An array of integers, or of floats that are integers or NaN, as integers; None for anything else."""
    if isinstance(X, np.ma.MaskedArray):
        if X.dtype.kind not in "iu" or X.ndim != 2:
            return None
        return np.where(np.ma.getmaskarray(X), MISSING, X.data.astype(np.int64))
    array = np.asarray(X)
    if array.ndim != 2 or 0 in array.shape:
        return None
    if array.dtype.kind == "b":
        return array.view(np.uint8)
    if array.dtype.kind in "iu":
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind != "f":
        return None
    missing = np.isnan(array)
    filled = np.where(missing, MISSING, array)
    if not (np.abs(filled) < 2**31).all() or (filled[~missing] < 0).any():
        return None
    codes = filled.astype(np.int32)
    return codes if np.array_equal(codes, filled) else None


def _is_range(values: Sequence[Any]) -> bool:
    return all(type(value) is int and value == i for i, value in enumerate(values))


def _is_coded(values: Sequence[Any]) -> bool:
    """Whether integers stand for the positions of these."""
    return _is_range(values) or all(isinstance(value, str) for value in values)


def _renamed(columns: Sequence[Column], names: Sequence[Any]) -> list[Column]:
    return [replace(column, name=name) for column, name in zip(columns, names, strict=True)]


def _refuse_infinity(column: Column) -> None:
    if column.values.dtype.kind == "f" and np.isinf(column.values).any():
        row = int(np.flatnonzero(np.isinf(column.values))[0])
        raise ValueError(f"Input X contains infinity (at row {row}, column {column.name!r})")


def _refuse_merging(column: Column) -> None:
    """Raise ``ValueError`` if the column holds 1 and True, or 0 and False: Python takes these for equal."""
    if column.kind != "categorical" or column.declared is not None:
        return
    values = column.values.tolist()
    if {type(value) for value in values}.isdisjoint((bool, np.bool_)):
        return
    truth = {bool(value) for value in values if type(value) in (bool, np.bool_)}
    for row, value in enumerate(values):
        if type(value) is not bool and isinstance(value, Real) and value in truth:
            raise ValueError(
                f"column {column.name!r} holds {value!r} (in row {row}) and {bool(value)!r}, which are equal to "
                "Python: convert the column to text, or to numbers"
            )


def _check_size(name: Any, size: int) -> None:
    if size == 0:
        raise ValueError(f"column {name!r} has no observed value: name its states")
    if size > _MOST_STATES:
        raise ValueError(f"column {name!r} has {size} states: at most {_MOST_STATES} are possible; is it continuous?")


def _distinct(column: Column) -> list[Any]:
    if column.kind == "boolean":
        found = column.distinct()
        return [bool(value) for value in found]
    if column.kind == "integer" and column.values.dtype.kind in "iu":
        return [int(value) for value in classes_of(column.values)[0]]
    values = column.distinct()
    return [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]


def _codes_of(column: Column, categories: Sequence[Any]) -> NDArray[np.intp]:
    """Positions among the categories; text stands for states that are text."""
    known = {value: i for i, value in enumerate(categories)}
    values = column.values
    if column.kind == "integer" and values.dtype.kind in "iu" and len(values):
        low, high = int(values.min()), int(values.max())
        if high - low < max(1024, len(values)):  # a table instead of sorting
            table = np.array([known.get(value, UNKNOWN) for value in range(low, high + 1)], np.intp)
            return table[values.astype(np.intp) - low]
    return column.codes(known)


def _value(column: Column, row: int) -> Any:
    value = column.values[row]
    return column.declared[value] if column.declared is not None else getattr(value, "item", lambda: value)()
