"""Arguments of words and numbers, checked before anything is done with them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from ._errors import FileError, MismatchError


def words(name: str, given: Any) -> list[str]:
    """Returns one word or several as a list: a string is one word, and never its letters."""
    if given is None:
        return []
    if isinstance(given, (str, os.PathLike)):
        return [os.fspath(given)]
    if not isinstance(given, Iterable) or isinstance(given, (bytes, bytearray)):
        raise MismatchError(f"{name}: found {type(given).__name__}, wanted words")
    found = list(given)
    for word in found:
        if not isinstance(word, (str, os.PathLike)):
            raise MismatchError(f"{name}: found {type(word).__name__} among the words")
    return [os.fspath(word) for word in found]


def cells(name: str, given: Any) -> list[str]:
    """Returns the cells of a column, one for each row."""
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise MismatchError(f"{name}: found one value, wanted one for each row")
    return [cell(value) for value in given]


def cell(value: Any) -> str:
    """Returns a value as galleries store it; a missing one is empty, and 1.0 is 1, as data frames make it of whole numbers."""
    if value is None:
        return ""
    try:
        if bool(value != value):
            return ""
    except (TypeError, ValueError):
        # The missing value of pandas has no truth; an array has several.
        if type(value).__name__ == "NAType":
            return ""
        raise MismatchError(f"found {type(value).__name__} in a column, wanted a word or a number") from None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def within(name: str, value: float | None, low: float, high: float) -> None:
    """Checks a number, unless it is not given."""
    if value is not None and not low <= value <= high:
        raise MismatchError(f"{name}: found {value}, wanted a number from {low} to {high}")


def there(path: str | os.PathLike[str]) -> None:
    """Checks that there is a file or folder."""
    if not os.path.lexists(path):
        raise FileError(f"{os.fspath(path)}: found no file or folder there")


def ordered(name: str, pair: Sequence[float] | None) -> None:
    """Checks that the first of two numbers is below the second, unless they are not given."""
    if pair is not None and (len(pair) != 2 or not float("-inf") < pair[0] < pair[1] < float("inf")):
        raise MismatchError(f"{name}: found {tuple(pair)}, wanted two numbers, the lower first")
