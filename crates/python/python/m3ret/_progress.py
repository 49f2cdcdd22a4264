"""Shows how far work is."""

from __future__ import annotations

import logging
import sys
from typing import Any, Callable, Protocol, Union

_LOG = logging.getLogger("m3ret")


class Bar(Protocol):
    """What a bar of tqdm can do."""

    def update(self, n: int) -> object: ...
    def close(self) -> object: ...


Progress = Union[bool, Callable[..., Bar]]
"""``False``: nothing is shown. ``True``: a bar of tqdm if it is installed, else lines on standard error. A callable:
called as ``progress(total=n, desc=text)``, it returns a bar with ``update(n)`` and ``close()``, as ``tqdm.tqdm`` does."""


class _Line:
    """A bar for terminals without tqdm."""

    def __init__(self, total: int, desc: str) -> None:
        self._total, self._desc, self._n = total, desc, 0

    def update(self, n: int) -> None:
        self._n += n
        if self._n == self._total or self._n % max(self._total // 20, 1) == 0:
            print(f"{self._desc}: {self._n} of {self._total}", file=sys.stderr)

    def close(self) -> None:
        pass


def _factory(progress: Progress) -> Callable[..., Bar] | None:
    if progress is False or progress is None:
        return None
    if progress is not True:
        return progress
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return _Line
    made: Callable[..., Bar] = tqdm
    return made


class Watch:
    """Follows the work: bars for people, notes for the log ``m3ret``."""

    def __init__(self, progress: Progress, desc: str) -> None:
        self._factory = _factory(progress)
        self._desc = desc
        self._bar: Bar | None = None

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: Any) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None

    def step(self, name: str) -> None:
        _LOG.debug("%s", name.lstrip(", "))

    def count(self, n_objects: int) -> None:
        self._close()
        if self._factory is not None:
            self._bar = self._factory(total=n_objects, desc=self._desc)

    def advance(self, n_refused: int) -> None:
        if self._bar is not None:
            self._bar.update(1)

    def note(self, sentence: str) -> None:
        _LOG.info("%s", sentence)
