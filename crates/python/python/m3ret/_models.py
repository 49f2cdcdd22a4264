"""Finds the weights that are installed as packages of their own."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from . import _m3ret

_PACKAGES = {"m3ret-tiny": "m3ret_weights_tiny"}
_added = False


def package_folder(name: str) -> Path | None:
    """Returns the folder of a model that is installed as a package."""
    package = _PACKAGES.get(name)
    spec = find_spec(package) if package else None
    for place in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(place) / name
        if (folder / "config.json").is_file():
            return folder
    return None


def add_packages() -> None:
    """Makes the model of an installed package known by its name. A folder of this name comes first."""
    global _added
    if _added:
        return
    _added = True
    for name in _PACKAGES:
        folder = package_folder(name)
        if folder is not None:
            _m3ret.add_model(name, os.fspath(folder))
