"""What can go wrong, by who must act."""

from __future__ import annotations


class M3retError(Exception):
    """Every error of m3ret."""


class Refused(M3retError):
    """An image that cannot be read or embedded.

    ``reason`` is a code of docs/reason-codes.md, such as ``truncated``.
    """

    def __init__(self, message: str, reason: str = "unsupported") -> None:
        super().__init__(message)
        self.reason: str = reason

    def __reduce__(self) -> tuple[type[Refused], tuple[str, str]]:
        return type(self), (str(self), self.reason)


class MismatchError(M3retError, ValueError):
    """Arguments that do not fit each other, the index, or the archive."""


class DamagedError(M3retError):
    """A gallery whose files are not what was written."""


class LockedError(M3retError):
    """A gallery that another process writes to."""


class FileError(M3retError, OSError):
    """A file or folder that cannot be read or written."""
