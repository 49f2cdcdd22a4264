"""Finds similar medical images: X-rays, CT, MR, ultrasound and video as unit vectors, searched by image.

Research use only; m3ret is no medical device. docs/python.md is the guide.
"""

from __future__ import annotations

import os as _os

from . import _m3ret
from ._archive import Answers, Archive, open
from ._encoder import Embeddings, Encoder, Refusal, load
from ._errors import DamagedError, FileError, LockedError, M3retError, MismatchError, Refused
from ._index import Hits, Index
from ._verbs import (
    CheckReport,
    Evaluation,
    Run,
    check,
    compare,
    dedup,
    doctor,
    evaluate,
    map,
    pretrain,
    simulate,
    split,
)
from ._volume import Volume, read

__version__: str = _m3ret.__version__

__all__ = [
    "Answers",
    "Archive",
    "CheckReport",
    "DamagedError",
    "Embeddings",
    "Encoder",
    "Evaluation",
    "FileError",
    "Hits",
    "Index",
    "LockedError",
    "M3retError",
    "MismatchError",
    "Refusal",
    "Refused",
    "Run",
    "Volume",
    "check",
    "compare",
    "dedup",
    "doctor",
    "evaluate",
    "load",
    "map",
    "open",
    "pretrain",
    "read",
    "simulate",
    "split",
]

if hasattr(_os, "register_at_fork"):
    # A fork copies no threads: the child starts its own when it needs them.
    _os.register_at_fork(after_in_child=_m3ret.after_fork)
