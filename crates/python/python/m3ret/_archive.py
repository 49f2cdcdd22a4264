"""Archives of images that are searched by image."""

from __future__ import annotations

import base64
import html
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Mapping, Sequence

from . import _m3ret, _models
from ._encoder import Precision, Refusal
from ._errors import MismatchError, Refused
from ._index import _MAX_SCORES, Filter, Hits, _at_least_1, filter_words
from ._inputs import sources_of
from ._progress import Progress, Watch
from ._volume import reading
from ._words import within, words

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Answers(Hits):
    """Hits of images, with what is known of them; ``scores, ids = archive.ask(x)`` unpacks them."""

    def __init__(self, _answers: _m3ret.Answers, k: int) -> None:
        import numpy as np

        self._answers = _answers
        self.answers: list[dict[str, Any]] = json.loads(_answers.json())
        """One for each query, as ``m3ret search --json`` prints it: ``query``, labels, ``agreement`` and ``hits``."""
        self.refused: list[tuple[str, str]] = _answers.refused
        """Queries that could not be read, each with a sentence."""
        if len(self.answers) * k > _MAX_SCORES:
            raise MismatchError(f"k: found {k} for {len(self.answers)} queries, wanted at most {_MAX_SCORES} hits together")
        scores = np.full((len(self.answers), k), np.nan, dtype=np.float32)
        for idx in range(len(self.answers)):
            found = _answers.scores(idx)
            scores[idx, : len(found)] = found
        super().__init__(scores, [[hit["id"] for hit in answer["hits"]] for answer in self.answers])

    @property
    def agreement(self) -> list[dict[str, Any] | None]:
        """How often such first hits agree with their query, for each query; ``None`` where nothing is known."""
        return [answer["agreement"] for answer in self.answers]

    @property
    def view(self) -> list[list[str | None]]:
        """The view of each hit that is like the query, such as ``front`` of a CT; ``None``: the whole image."""
        return [[hit["view"] for hit in answer["hits"]] for answer in self.answers]

    @property
    def relation(self) -> list[list[str]]:
        """How each hit and its query belong together: ``same_image``, ``same_patient``, ``other_patient``, ``unknown``..."""
        return [[hit["relation"] for hit in answer["hits"]] for answer in self.answers]

    def rows(self) -> list[dict[str, Any]]:
        found = []
        for idx, answer in enumerate(self.answers):
            for hit in answer["hits"]:
                found.append({"query": idx, "query_name": answer["query"], **hit})
        return found

    def picture(self, query: int = 0, hit: int | None = None, *, side: int = 128) -> bytes | None:
        """Returns a small picture of a hit (from 0), or of the query, as PNG; ``None`` if it cannot be read."""
        return self._answers.picture(query, hit, side)

    def page(self, path: str | os.PathLike[str] | None = None, *, force: bool = False) -> str:
        """Returns the report of the search, one HTML page that needs nothing else, and writes it to ``path`` if given.

        A page of m3ret is replaced; another file only with ``force``, and what the archive holds or was asked with never.
        """
        place = None if path is None else os.fspath(path)
        return self._answers.page(place, force, None)

    def _repr_html_(self, n_queries: int = 5, n_hits: int = 8) -> str:
        lines = []
        for idx, answer in enumerate(self.answers[:n_queries]):
            cards = [_card(self.picture(idx), "query", answer["query"], answer)]
            for place, hit in enumerate(answer["hits"][:n_hits]):
                title = f"{hit['rank']}. {hit['score']:.3f} {hit['relation'].replace('_', ' ')}"
                cards.append(_card(self.picture(idx, place), title, hit["id"], hit))
            lines.append('<div style="display:flex;flex-wrap:wrap;gap:8px;margin:8px 0">' + "".join(cards) + "</div>")
        n_more = len(self.answers) - n_queries
        if n_more > 0:
            lines.append(f"<p>and {n_more} more queries</p>")
        return "".join(lines)

    def __repr__(self) -> str:
        return f"Answers({len(self)} queries, {sum(len(ids) for ids in self.ids)} hits, {len(self.refused)} refused)"


def _card(png: bytes | None, title: str, name: str, labels: Mapping[str, Any]) -> str:
    words = " ".join(str(labels[key]) for key in ("modality", "body_part", "finding") if labels.get(key))
    picture = ""
    if png is not None:
        picture = f'<img alt="" src="data:image/png;base64,{base64.b64encode(png).decode()}"><br>'
    text = "<br>".join(html.escape(line) for line in (title, os.path.basename(name), words) if line)
    return f'<div style="width:136px;font-size:11px;overflow-wrap:anywhere">{picture}{text}</div>'


class Archive:
    """A folder, manifest or gallery of images, ready to be searched. ``m3ret.open`` opens one."""

    def __init__(self, _archive: _m3ret.Archive) -> None:
        self._archive = _archive
        self._description = _archive.description()

    @property
    def path(self) -> Path:
        """The folder, manifest or gallery, as it was given."""
        return Path(self._archive.place)

    def __len__(self) -> int:
        return self._description[0]

    @property
    def width(self) -> int:
        """Number of values of a vector."""
        return self._description[1]

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return self._description[2]

    @property
    def model(self) -> str:
        """Name of the model that made the vectors."""
        return self._description[3]

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the model that made the vectors."""
        return self._description[4]

    @property
    def refused(self) -> list[Refusal]:
        """Images that were refused when the archive was opened."""
        return [Refusal(0, *image) for image in self._archive.refused()]

    def ask(
        self,
        queries: Any,
        k: int = 10,
        *,
        filter: Filter | None = None,
        exclude: str | Sequence[str] = (),
        group_by: str | None = None,
        exact: bool = False,
        agree: str | None = None,
        offset: int = 0,
        min_score: float | None = None,
        whole: bool = False,
        handicap: float | None = None,
        spacing: Sequence[float | None] | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        progress: Progress = False,
    ) -> Answers:
        """Finds the ``k`` images of the archive that are most similar to each query.

        ``queries`` is everything that ``Encoder.embed`` takes, or ids of images of the archive. ``exclude`` names what a hit
        must not share with its query: ``same_patient``, ``same_study``, ``same_series``, ``same_image`` or columns.
        ``whole=True`` compares no projections of volumes. The other arguments are those of ``m3ret search``.

        Raises ``Refused`` for the first query that cannot be read, unless ``on_error="skip"``; ``MismatchError`` if a column
        or value is not there.
        """
        if on_error not in ("raise", "skip"):
            raise MismatchError('on_error: found another word, wanted "raise" or "skip"')
        k = _at_least_1("k", k)
        within("min_score", min_score, -1, 1)
        within("handicap", handicap, 0, 2)
        within("offset", offset, 0, 1 << 62)
        arguments = {
            "k": k,
            "filter": filter_words(filter),
            "exclude": words("exclude", exclude),
            "group_by": group_by,
            "exact": exact,
            "agree": agree,
            "offset": offset,
            "min_score": min_score,
            "whole": whole,
            "handicap": handicap,
        }
        with Watch(progress, "searching") as watch:
            found = self._archive.ask(sources_of(queries, spacing), arguments, watch)
        answers = Answers(found, k)
        if answers.refused and on_error == "raise":
            path, message = answers.refused[0]
            raise Refused(f"{path}: {message}")
        return answers

    def explain(self, answers: Answers, query: int = 0, hit: int = 0) -> dict[str, Any] | None:
        """Says why a hit (from 0) matches its query: patches that look alike to the model, and the score without them.

        Reads and embeds both images again. Returns ``None`` for a model without patches. Keys: ``matches`` (patch of the
        query, patch of the hit, cosine), ``score``, ``score_without``, ``n_left_out``, ``n_patches``, ``note``.
        """
        why = answers._answers.explain(query, hit)
        return None if why is None else json.loads(why)

    def duplicates(self, near: float = 0.98, *, progress: Progress = False) -> list[dict[str, Any]]:
        """Returns pairs of images that may be one, as ``m3ret dedup --json`` prints them."""
        with Watch(progress, "comparing") as watch:
            pairs: list[dict[str, Any]] = json.loads(self._archive.duplicates(near, watch))
        return pairs

    def __repr__(self) -> str:
        return f"Archive({str(self.path)!r}, {len(self)} images, {self.model!r})"


def model_choice(model: str | os.PathLike[str] | None, precision: Precision) -> dict[str, Any]:
    """Returns which model is used; adds the packages of weights first."""
    _models.add_packages()
    return {"model": None if model is None else os.fsdecode(os.fspath(model)), "precision": precision}


def folder_choice(labels: str | None, include: Sequence[str], exclude: Sequence[str]) -> dict[str, Any]:
    """Returns which files of a folder are read."""
    return {"labels": labels, "include": words("include", include), "exclude": words("exclude", exclude), "masks": False}


def open(
    place: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    precision: Precision = "auto",
    cache: str | os.PathLike[str] | None = None,
    labels: Literal["manifest", "folders", "none"] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    keep: Sequence[str] = (),
    retry: bool = False,
    limits: Mapping[str, int] | None = None,
    frames: int | None = None,
    threads: int | None = None,
    progress: Progress = False,
) -> Archive:
    """Opens a folder of images, a manifest or a gallery to be searched.

    Images of a folder or manifest that are new or changed are embedded first; their gallery is kept in ``cache``, by default
    the cache of the user. ``labels`` says where labels of a folder come from; ``keep`` names further columns of a manifest.
    ``retry`` reads images again that were refused before.

    Raises ``FileError`` (no such place), ``M3retError`` (no model), ``DamagedError``, ``LockedError``.
    """
    with Watch(progress, "embedding") as watch:
        archive = _m3ret.Archive(
            os.fspath(place),
            None if cache is None else os.fspath(cache),
            model_choice(model, precision),
            reading(limits, frames, threads, keep, retry),
            folder_choice(labels, include, exclude),
            watch,
        )
    return Archive(archive)
