"""Columns of arrays and data frames (pandas, polars; neither is imported): numbers, truth values, categories."""

from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array

from fastgen._validation import Array, as_floats

MISSING, UNKNOWN = -1, -2


@dataclass(frozen=True)
class Column:
    """One column."""

    name: Any
    """Of the data frame, or its number"""
    kind: str
    """``float``, ``integer``, ``boolean`` or ``categorical``"""
    values: NDArray[Any]
    """Numbers (NaN where missing), or an object array, or the codes of declared categories (-1 where missing)"""
    declared: tuple[Any, ...] | None = None
    """Categories that the data frame declares"""

    def numbers(self) -> NDArray[Any]:
        """The values, if they are numbers."""
        if self.kind != "categorical":
            return self.values
        if self.declared is None and all(is_missing(v) or isinstance(v, Real) for v in self.values.tolist()):
            return _floats(self.values)
        raise ValueError(f"column {self.name!r} holds categories, not numbers: its family must be 'categorical'")

    def value(self, row: int) -> Any:
        """The value of a row, as the user has it."""
        return self.values[row] if self.declared is None else self.declared[self.values[row]]

    def distinct(self) -> list[Any]:
        """The declared categories, in order; without, the values that occur, sorted."""
        if self.declared is not None:
            return list(self.declared)
        if self.kind != "categorical":
            found = np.unique(self.values)
            return [value.item() for value in found if value == value]
        try:
            values = {value for value in self.values.tolist() if not is_missing(value)}
        except TypeError as error:
            raise TypeError(f"column {self.name!r}: argument must be a string or a number: {error}") from error
        try:
            return sorted(values)
        except TypeError:  # of several types
            return sorted(values, key=lambda value: (type(value).__name__, str(value)))

    def codes(self, known: dict[Any, int]) -> NDArray[np.intp]:
        """Position of each value among the known categories; `MISSING`, or `UNKNOWN`."""
        if self.declared is not None:
            of_code = [known.get(value, UNKNOWN) for value in self.declared]
            table = np.array([*of_code, MISSING], np.intp)  # -1 finds the last
            return table.take(self.values)
        if self.kind != "categorical":
            distinct, inverse = np.unique(self.values, return_inverse=True)
            return _encoded(distinct.tolist(), known)[inverse]
        return _encoded(self.values.tolist(), known)


def _encoded(values: list[Any], known: dict[Any, int]) -> NDArray[np.intp]:
    get = known.get
    codes = np.array([get(value, UNKNOWN) for value in values], np.intp)
    for i in np.flatnonzero(codes == UNKNOWN).tolist():
        if is_missing(values[i]):
            codes[i] = MISSING
    return codes


def is_missing(value: Any) -> bool:
    """Whether a value stands for nothing: None, NaN, NaT, NA."""
    return value is None or type(value).__name__ == "NAType" or bool(value != value)


def is_frame(X: Any) -> bool:
    """Whether X is a data frame of pandas or polars."""
    return (hasattr(X, "iloc") and len(X.shape) == 2) or hasattr(X, "get_columns")


def columns_of(X: Any, estimator: Any) -> list[Column]:
    """The columns of a data frame or 2-d array.

    Raises
    ------
    ValueError, TypeError
        What has not two dimensions, no rows, no columns, or columns of dates, complex numbers, ...
    """
    if is_frame(X):
        n, d = X.shape
        if n == 0 or d == 0:
            what = "sample(s)" if n == 0 else "feature(s)"
            raise ValueError(f"Found array with 0 {what} (shape={n, d}) while a minimum of 1 is required.")
        read = _pandas if hasattr(X, "iloc") else _polars
        series = [X.iloc[:, j] for j in range(d)] if hasattr(X, "iloc") else X.get_columns()
        return [read(name, column) for name, column in zip(X.columns, series, strict=True)]
    if not isinstance(X, np.ndarray) and len(getattr(X, "shape", (0, 0))) == 1:
        raise ValueError(f"Expected 2D array or data frame, got 1D {type(X).__name__} instead")
    if isinstance(X, (list, tuple)) and np.asarray(X).dtype.kind in "US":
        X = np.array(X, dtype=object)  # numbers among text stay numbers
    if isinstance(X, np.ma.MaskedArray):
        X = as_floats(X, "X")
    X = check_array(X, dtype=None, ensure_all_finite=False, estimator=estimator, input_name="X")
    return [_array(j, X[:, j]) for j in range(X.shape[1])]


def _array(name: Any, values: NDArray[Any]) -> Column:
    kind = values.dtype.kind
    if kind == "f":
        return Column(name, "float", _wide(values))
    if kind in "iu":
        return Column(name, "integer", values)
    if kind == "b":
        return Column(name, "boolean", values.view(np.uint8))
    if kind in "US":
        return Column(name, "categorical", values.astype(object))
    if kind != "O":
        raise TypeError(f"column {name!r} has dtype {values.dtype}: convert it to numbers or categories")
    types = {type(value) for value in values.tolist() if not is_missing(value)}
    if types and all(issubclass(t, (bool, np.bool_)) for t in types):
        return Column(name, "boolean", _floats(values))
    if types and all(issubclass(t, (int, np.integer)) and not issubclass(t, bool) for t in types):
        return Column(name, "integer", _floats(values))
    if types and all(issubclass(t, (int, float, np.integer, np.floating)) and not issubclass(t, bool) for t in types):
        return Column(name, "float", _floats(values))
    return Column(name, "categorical", values)


def _pandas(name: Any, series: Any) -> Column:
    dtype = series.dtype
    if dtype.name == "category":
        return Column(name, "categorical", series.cat.codes.to_numpy(), tuple(series.cat.categories))
    kind = getattr(dtype, "kind", "O")
    if kind in "fiub":
        what = "float" if kind == "f" else "boolean" if kind == "b" else "integer"
        if not isinstance(dtype, np.dtype):  # nullable
            if kind in "iu":
                present = series.dropna().to_numpy(dtype=np.uint64 if kind == "u" else np.int64)
                return Column(name, what, _integers(name, present, series.isna().to_numpy()))
            values = series.to_numpy(dtype=np.float64, na_value=np.nan)
        else:
            values = series.to_numpy()
        return Column(name, what, values.view(np.uint8) if values.dtype.kind == "b" else _wide(values))
    if kind in "OUST":
        values = np.array(series.tolist(), dtype=object)
        values[series.isna().to_numpy()] = None
        return Column(name, "categorical", values)
    raise TypeError(f"column {name!r} has dtype {dtype}: convert it to numbers or categories")


def _polars(name: Any, series: Any) -> Column:
    dtype = series.dtype
    if dtype.is_float():
        return Column(name, "float", _wide(series.to_numpy()))
    if dtype.is_integer():
        return Column(name, "integer", _integers(name, series.drop_nulls().to_numpy(), series.is_null().to_numpy()))
    text = str(dtype)
    if text == "Boolean":
        values = series.to_numpy()
        return Column(name, "boolean", values.view(np.uint8) if values.dtype.kind == "b" else _floats(values))
    if text.startswith("Enum"):
        declared = tuple(dtype.categories.to_list())
        return Column(name, "categorical", _positions(series.to_list(), declared), declared)
    if text.startswith(("String", "Categorical", "Object", "Null")):  # Categorical: others' categories may be declared
        return Column(name, "categorical", np.array(series.to_list(), dtype=object))
    raise TypeError(f"column {name!r} has dtype {dtype}: convert it to numbers or categories")


def _positions(values: list[Any], declared: tuple[Any, ...]) -> NDArray[np.intp]:
    known = {value: i for i, value in enumerate(declared)}
    return np.array([MISSING if value is None else known[value] for value in values], np.intp)


def _integers(name: Any, present: NDArray[Any], missing: NDArray[np.bool_]) -> NDArray[Any]:
    """Those that are there, and NaN, if that takes no digits."""
    if not missing.any():
        return present
    if len(present) and max(abs(int(present.min())), abs(int(present.max()))) > 2**53:
        raise ValueError(
            f"column {name!r} holds integers above 2**53 and missing values, which have no common exact type: make "
            "them categories or text"
        )
    values = np.full(len(missing), np.nan)
    values[~missing] = present
    return values


def _wide(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(np.float64) if values.dtype.kind == "f" and values.dtype.itemsize not in (4, 8) else values


def _floats(values: NDArray[Any]) -> Array:
    return np.array([np.nan if is_missing(value) else float(value) for value in values.tolist()])
