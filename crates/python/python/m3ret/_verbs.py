"""Functions over whole archives and manifests."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Iterator, Literal, Sequence, Union

from . import _m3ret, _models
from ._archive import folder_choice, model_choice
from ._encoder import Embeddings, Encoder, Precision
from ._errors import M3retError, MismatchError
from ._index import Filter, filter_words
from ._progress import Progress, Watch
from ._volume import reading
from ._words import ordered, there, within, words

PathLike = Union[str, "os.PathLike[str]"]


class Evaluation:
    """The results of an evaluation: one dictionary for each model, and comparisons with ``pixels``."""

    def __init__(self, models: list[tuple[Path, dict[str, Any]]], comparisons: list[dict[str, Any]], kept: Any) -> None:
        self.folders: dict[str, Path] = {results["model"]: folder for folder, results in models}
        """The folder of each model's files: results.json, TREC files, report.html."""
        self.results: dict[str, dict[str, Any]] = {results["model"]: results for _, results in models}
        """What ``results.json`` holds, by the name of the model."""
        self.comparisons = comparisons
        self._kept = kept

    def __getitem__(self, model: str) -> dict[str, Any]:
        return self.results[model]

    def rows(self) -> list[dict[str, Any]]:
        """Returns one dictionary for each model, task and metric."""
        found = []
        for model, results in self.results.items():
            for task in results["tasks"]:
                for metric, measured in task["metrics"].items():
                    found.append({"model": model, "task": task["task"], "metric": metric, **measured})
        return found

    def to_pandas(self) -> Any:
        """Returns a data frame of pandas with one row for each model, task and metric."""
        import pandas

        return pandas.DataFrame(self.rows())

    def __repr__(self) -> str:
        return f"Evaluation({', '.join(self.results)})"


def evaluate(
    manifest: PathLike,
    embeddings: Any = "m3ret-tiny",
    *,
    out: PathLike | None = None,
    force: bool = False,
    normalize: bool = False,
    relevance: Sequence[str] = (),
    jaccard: float | None = None,
    exclude: Sequence[str] = ("patient_id",),
    k: Sequence[int] = (1, 5, 10),
    filter: Filter | None = None,
    pooled: bool = False,
    allow_overlap: bool = False,
    resamples: int = 2000,
    seed: int = 0,
    precision: Precision | None = None,
    limits: Mapping[str, int] | None = None,
    frames: int | None = None,
    threads: int | None = None,
    progress: Progress = False,
) -> Evaluation:
    """Measures how well models find similar images, as docs/evaluation.md defines it.

    ``embeddings`` is the name or folder of a model, an ``Encoder``, ``Embeddings`` or an array with one vector for each row of
    the manifest, a file of vectors, a gallery (with the projections of volumes), or a list or dictionary (by name) of
    these. Files are written to ``out``; without it, they are removed with the result.

    ``precision`` is what all models compute with: by default that of the encoders that are given, else f32.

    Raises ``MismatchError`` if the manifest has no task, a column is missing, or vectors do not fit it.
    """
    kept = None if out is not None else tempfile.TemporaryDirectory(prefix="m3ret-")
    folder = Path(out) if out is not None else Path(kept.name) / "evaluation" if kept is not None else Path()
    _models.add_packages()
    with tempfile.TemporaryDirectory(prefix="m3ret-") as vectors:
        models, files = _contenders(embeddings, Path(vectors))
        if not models and not files:
            raise MismatchError("embeddings: found none, wanted a model, vectors, or several of them")
        within("resamples", resamples, 100, 1_000_000)
        arguments = {
            "manifest": os.fspath(manifest),
            "out": os.fspath(folder),
            "force": force,
            "models": models,
            "embeddings": files,
            "normalize": normalize,
            "relevance": words("relevance", relevance),
            "jaccard": jaccard,
            "exclude": words("exclude", exclude),
            "k": list(k),
            "filter": filter_words(filter),
            "pooled": pooled,
            "allow_overlap": allow_overlap,
            "resamples": resamples,
            "seed": seed,
            "precision": precision or _precision_of(embeddings),
        }
        with Watch(progress, "evaluating") as watch:
            told, comparisons = _m3ret.evaluate(arguments, reading(limits, frames, threads), watch)
    results = [(Path(place), json.loads(text)) for place, text in told]
    return Evaluation(results, json.loads(comparisons), kept)


def _precision_of(x: Any) -> str:
    """Returns what encoders that are given compute with; f32 for models that are named."""
    several = list(x.values()) if isinstance(x, Mapping) else list(x) if isinstance(x, (list, tuple)) else [x]
    found = {value.precision for value in several if isinstance(value, Encoder)}
    if len(found) > 1:
        raise MismatchError(f"precision: found encoders in {', '.join(sorted(found))}; name one for all")
    return found.pop() if found else "f32"


def _contenders(x: Any, folder: Path) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Returns names and places of models, and names and files of vectors."""
    if isinstance(x, Mapping):
        named = [(str(name), value) for name, value in x.items()]
    elif isinstance(x, (list, tuple)) and not isinstance(x, Embeddings):
        named = [(_name_of(value, idx), value) for idx, value in enumerate(x)]
    else:
        named = [(_name_of(x, 0), x)]
    models: list[tuple[str, str]] = []
    files: list[tuple[str, str]] = []
    for name, value in named:
        if isinstance(value, Encoder):
            place = value._encoder.folder
            models.append((name, os.fspath(place) if place is not None else value.name))
        elif isinstance(value, (str, os.PathLike)):
            text = os.fsdecode(os.fspath(value))
            is_file = text.endswith((".npy", ".safetensors", ".parquet", ".pq", ".m3i"))
            (files if is_file else models).append((name, text))
        else:
            files.append((name, os.fspath(_saved(value, folder / f"{len(files)}.npy"))))
    return models, files


def _name_of(x: Any, idx: int) -> str:
    if isinstance(x, (str, os.PathLike)):
        return os.fsdecode(os.fspath(x))
    if isinstance(x, Encoder):
        return x.name
    model = x.model if isinstance(x, Embeddings) else ""
    return model or f"vectors {idx}"


def _saved(x: Any, path: Path) -> Path:
    """Writes vectors to a file, with a list of their images beside it where these are known."""
    import csv

    import numpy as np

    from ._index import _matrix

    matrix = _matrix(x, normalize=False)
    np.save(path, matrix)
    if isinstance(x, Embeddings) and len(x.paths) == len(matrix) and all(os.path.exists(name) for name in x.paths):
        with Path(f"{path}.rows.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["row", "path", "part", "refused"])
            for row, (name, part) in enumerate(zip(x.paths, x.parts)):
                table.writerow([row, os.path.abspath(name), part or "", ""])
            for refusal in x.refused:
                table.writerow(["", os.path.abspath(refusal.path), refusal.part or "", refusal.reason])
    return path


def compare(
    a: PathLike,
    b: PathLike,
    *,
    pixels: PathLike | None = None,
    metrics: Sequence[str] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compares two evaluations by their folders, task by task, as ``m3ret compare --json`` prints it.

    Raises ``MismatchError`` if the evaluations cannot be compared, ``M3retError`` if a folder holds none.
    """
    places = (os.fspath(a), os.fspath(b))
    other = None if pixels is None else os.fspath(pixels)
    told: dict[str, Any] = json.loads(_m3ret.compare(places, other, words("metrics", metrics), (resamples, seed)))
    return told


def split(
    manifest: PathLike,
    out: PathLike,
    *,
    seed: int = 0,
    query: float = 0.2,
    pretrain: float = 0.0,
    stratify: Sequence[str] | None = None,
    overwrite: bool = False,
    force: bool = False,
    duplicates: bool = True,
    near: float = 0.98,
    model: PathLike | None = None,
    precision: Precision = "auto",
    cache: PathLike | None = None,
    limits: Mapping[str, int] | None = None,
    frames: int | None = None,
    threads: int | None = None,
    progress: Progress = False,
) -> dict[str, Any]:
    """Splits a manifest by patient into pretrain, gallery and query, writes it to ``out``, and returns counts, as
    ``m3ret split --json`` prints them.

    Shares ``query`` and ``pretrain`` are of groups, 0 to 1. ``duplicates=False`` reads no image.

    Raises ``MismatchError`` if a column is missing or the manifest has a split, unless ``overwrite``.
    """
    within("query", query, 0, 1)
    within("pretrain", pretrain, 0, 1)
    within("near", near, 0, 1)
    arguments = {
        "manifest": os.fspath(manifest),
        "out": os.fspath(out),
        "seed": seed,
        "query": query,
        "pretrain": pretrain,
        "stratify": None if stratify is None else words("stratify", stratify),
        "overwrite": overwrite,
        "force": force,
        "duplicates": duplicates,
        "near": near,
        "cache": None if cache is None else os.fspath(cache),
    }
    with Watch(progress, "splitting") as watch:
        told = _m3ret.split(arguments, model_choice(model, precision), reading(limits, frames, threads), watch)
    summary: dict[str, Any] = json.loads(told)
    return summary


def dedup(
    place: PathLike,
    *,
    near: float = 0.98,
    model: PathLike | None = None,
    precision: Precision = "auto",
    cache: PathLike | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    limits: Mapping[str, int] | None = None,
    frames: int | None = None,
    threads: int | None = None,
    progress: Progress = False,
) -> list[dict[str, Any]]:
    """Finds images that an archive holds more than once; returns pairs as ``m3ret dedup --json`` prints them.

    Without ``model``, thumbnails are compared (the model ``pixels``).
    """
    within("near", near, 0, 1)
    with Watch(progress, "comparing") as watch:
        archive = _m3ret.open_for_dedup(
            os.fspath(place),
            None if cache is None else os.fspath(cache),
            model_choice(model, precision),
            reading(limits, frames, threads),
            folder_choice(None, include, exclude),
            watch,
        )
        pairs: list[dict[str, Any]] = json.loads(archive.duplicates(near, watch))
    return pairs


def map(
    place: PathLike,
    html: PathLike,
    *,
    color: str = "modality",
    force: bool = False,
    model: PathLike | None = None,
    precision: Precision = "auto",
    cache: PathLike | None = None,
    labels: Literal["manifest", "folders", "none"] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    limits: Mapping[str, int] | None = None,
    frames: int | None = None,
    threads: int | None = None,
    progress: Progress = False,
) -> Path:
    """Draws an archive as a page on which similar images lie close together, and returns the page's path.

    Raises ``MismatchError`` for fewer than 5 images or a column that is not there.
    """
    with Watch(progress, "drawing") as watch:
        _m3ret.map(
            (os.fspath(place), os.fspath(html)),
            color,
            force,
            None if cache is None else os.fspath(cache),
            (
                model_choice(model, precision),
                reading(limits, frames, threads),
                folder_choice(labels, include, exclude),
            ),
            watch,
        )
    return Path(html)


class CheckReport:
    """What an archive holds, and what needs a look."""

    def __init__(self, reports: list[dict[str, Any]], summary: dict[str, Any]) -> None:
        self.reports = reports
        """One for each image, as ``m3ret check --json`` prints it."""
        self.summary = summary
        """Counts, as the last line of ``m3ret check --json`` has them."""

    @property
    def refused(self) -> list[dict[str, Any]]:
        """Reports on images that cannot be used."""
        return [report for report in self.reports if report["verdict"] == "refused"]

    def to_pandas(self) -> Any:
        """Returns a data frame of pandas with one row for each image."""
        import pandas

        return pandas.DataFrame(self.reports)

    def __repr__(self) -> str:
        counts = self.summary
        return f"CheckReport({counts['n_ok']} ok, {counts['n_warning']} warnings, {counts['n_refused']} refused)"


def check(
    place: PathLike,
    *,
    strict: bool = False,
    limits: Mapping[str, int] | None = None,
    frames: int | None = None,
    threads: int | None = None,
    progress: Progress = False,
) -> CheckReport:
    """Reads every image of a folder, a DICOMDIR or a file, and reports on each. ``strict`` refuses files without an image."""
    there(place)
    with Watch(progress, "checking") as watch:
        reports, summary = _m3ret.check(os.fspath(place), strict, reading(limits, frames, threads), watch)
    return CheckReport(json.loads(reports), json.loads(summary))


def simulate(
    sources: PathLike | Sequence[PathLike],
    out: PathLike,
    *,
    angles: Sequence[int] = (0, 90),
    side: int | None = None,
    format: Literal["png", "dicom"] = "png",
    bits: Literal[8, 16] = 8,
    window: tuple[float, float] | None = None,
    disturb: int | None = None,
    hounsfield: bool = False,
    force: bool = False,
    limits: Mapping[str, int] | None = None,
    threads: int | None = None,
    progress: Progress = False,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Simulates radiographs of CT volumes and writes them with a manifest (docs/simulate.md).

    ``angles`` are whole degrees, 0 from the front and 90 from the left; ``side`` is the longer side in pixels; ``hounsfield``
    reads all volumes of unknown unit as HU. Returns one dictionary for each image, and the counts, as
    ``m3ret simulate radiographs --json`` prints them.
    """
    if format not in ("png", "dicom") or bits not in (8, 16):
        raise MismatchError('format: wanted "png" or "dicom", and bits 8 or 16')
    places = words("sources", sources)
    ordered("window", window)
    if not angles:
        raise MismatchError("angles: found none, wanted whole degrees from 0 to 359")
    for angle in angles:
        within("angles", angle, 0, 359)
    arguments = {
        "sources": [os.fspath(place) for place in places],
        "out": os.fspath(out),
        "force": force,
        "angles": list(angles),
        "side": side,
        "dicom": format == "dicom",
        "bits": bits,
        "window": None if window is None else list(window),
        "disturb": disturb,
        "hounsfield": hounsfield,
    }
    with Watch(progress, "projecting") as watch:
        results, summary = _m3ret.simulate(arguments, reading(limits, None, threads), watch)
    return json.loads(results), json.loads(summary)


class Run:
    """A training run: iterating it trains, and gives one dictionary for each step (docs/pretraining.md)."""

    def __init__(self, _training: Any) -> None:
        self._training = _training

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for entry in self._training:
            yield json.loads(entry)

    def stop(self) -> None:
        """Asks the run to save a checkpoint and to end; ``resume=True`` goes on from there."""
        self._training.stop()

    @property
    def facts(self) -> dict[str, Any] | None:
        """What is known before the first step: ``n_steps``, ``n_items``, ``n_parameters``..."""
        facts = self._training.facts
        return None if facts is None else json.loads(facts)

    @property
    def notes(self) -> list[str]:
        """What a person should know, such as refused images."""
        return list(self._training.notes)

    @property
    def model(self) -> Path | None:
        """The folder of the finished model, which ``m3ret.load`` opens; ``None`` before, or if the run was stopped."""
        model = self._training.model
        return None if model is None else Path(model)


def pretrain(
    config: PathLike,
    *,
    set: Mapping[str, Any] | Sequence[str] = (),
    resume: bool = False,
    threads: int | None = None,
) -> Run:
    """Trains an encoder as a TOML file says; ``set`` changes settings, such as ``{"train.steps": 100}``.

    The run goes on in a thread of its own while its log is iterated: ``for entry in m3ret.pretrain("tiny.toml"): ...``

    Raises ``M3retError`` if a setting makes no sense, the images cannot serve, or the loss is no number.
    """
    if not hasattr(_m3ret, "Training"):
        raise M3retError("this build of m3ret has no training; install one with the feature training")
    changes = [f"{key}={_toml(value)}" for key, value in set.items()] if isinstance(set, Mapping) else list(set)
    return Run(_m3ret.Training(os.fspath(config), changes, resume, threads))


def _toml(value: Any) -> str:
    return str(value) if isinstance(value, os.PathLike) else json.dumps(value)


def doctor() -> dict[str, Any]:
    """Describes this installation: versions, processor, models, ffmpeg and folders; reads the default model."""
    import platform

    _models.add_packages()
    found: dict[str, Any] = json.loads(_m3ret.doctor(os.environ.get("PATH", "")))
    found["python"] = platform.python_version()
    try:
        import numpy

        found["numpy"] = numpy.__version__
    except ImportError:
        found["numpy"] = None
    return found
