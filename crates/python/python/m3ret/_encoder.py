"""Models, and the vectors that they make."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator, Literal, Mapping, Sequence, cast, overload

from . import _m3ret, _models
from ._errors import MismatchError, Refused
from ._inputs import sources_of
from ._progress import Progress, Watch
from ._volume import Volume, read, reading
from ._words import words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Precision = Literal["auto", "f32", "bf16", "int8"]

FILES = ("config.json", "model.safetensors", "agreement.json", "README.md")


@dataclass(frozen=True)
class Refusal:
    """An image without a vector."""

    source: int
    """Which of the inputs it is of, from 0."""
    path: str
    part: str | None
    reason: str
    """A code of docs/reason-codes.md, such as ``truncated``."""
    message: str


class Embeddings:
    """Unit vectors, float32 ``[n, width]``, with the images that they are of."""

    def __init__(
        self,
        vectors: NDArray[np.float32],
        *,
        paths: Sequence[str] = (),
        parts: Sequence[str | None] = (),
        sources: Sequence[int] = (),
        refused: Sequence[Refusal] = (),
        model: str = "",
        fingerprint: str = "",
        precision: str = "unknown",
    ) -> None:
        self._vectors = vectors
        self.paths: list[str] = list(paths)
        """File or name of each image."""
        self.parts: list[str | None] = list(parts)
        """Which image of its file each is; ``None`` if the file holds one."""
        self.sources: list[int] = list(sources)
        """Which of the inputs each image is of, from 0."""
        self.refused: list[Refusal] = list(refused)
        """Images without a vector; empty unless they were to be skipped."""
        self.model = model
        """Name of the model."""
        self.fingerprint = fingerprint
        """Vectors of different fingerprints cannot be compared."""
        self.precision = precision
        """What the network computed with."""

    @property
    def width(self) -> int:
        """Number of values of a vector."""
        return int(self._vectors.shape[1])

    @property
    def ids(self) -> list[str]:
        """Path and part of each image, as galleries name it."""
        names = zip(self.paths, self.parts)
        return [path if part is None else f"{path} [{part}]" for path, part in names]

    def numpy(self) -> NDArray[np.float32]:
        """Returns the vectors, float32 ``[n, width]``, without a copy."""
        return self._vectors

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if dtype is not None and self._vectors.dtype != dtype:
            return self._vectors.astype(dtype)
        return self._vectors.copy() if copy else self._vectors

    def __dlpack__(self, **arguments: Any) -> Any:
        return self._vectors.__dlpack__(**arguments)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __len__(self) -> int:
        return len(self._vectors)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return iter(self._vectors)

    @overload
    def __getitem__(self, idx: int) -> NDArray[np.float32]: ...
    @overload
    def __getitem__(self, idx: slice | Sequence[int] | NDArray[Any]) -> Embeddings: ...
    def __getitem__(self, idx: int | slice | Sequence[int] | NDArray[Any]) -> NDArray[np.float32] | Embeddings:
        """Returns one vector, or those at some places with their images: a slice, places, or one truth for each image."""
        import numpy as np

        if isinstance(idx, tuple):
            raise MismatchError("found two indices, wanted one; numpy() has the array")
        chosen = np.asarray(idx) if not isinstance(idx, slice) else idx
        if not isinstance(chosen, slice) and chosen.size == 0:
            chosen = chosen.astype(np.intp)
        places = np.arange(len(self))[chosen]
        if places.ndim == 0:
            return cast("NDArray[np.float32]", self._vectors[int(places)])
        return Embeddings(
            self._vectors[places],
            paths=[self.paths[place] for place in places],
            parts=[self.parts[place] for place in places],
            sources=[self.sources[place] for place in places],
            model=self.model,
            fingerprint=self.fingerprint,
            precision=self.precision,
        )

    def to_arrow(self) -> Any:
        """Returns a table of pyarrow: ``path``, ``part`` and ``embedding``, a list of fixed size; vectors are not copied."""
        from ._table import vectors_table

        return vectors_table(self)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
        from ._table import one_batch

        return one_batch(self.to_arrow()).__arrow_c_array__(requested_schema)

    def __arrow_c_schema__(self) -> Any:
        return self.to_arrow().schema.__arrow_c_schema__()

    def to_pandas(self) -> Any:
        """Returns a data frame of pandas with the columns ``path``, ``part`` and ``embedding``."""
        import pandas

        columns = {"path": self.paths, "part": self.parts, "embedding": list(self._vectors)}
        return pandas.DataFrame(columns)

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Writes a table that every verb of m3ret reads as vectors: with the model's name and fingerprint."""
        from ._table import write_vectors

        write_vectors(self, path)

    def __repr__(self) -> str:
        refused = f", {len(self.refused)} refused" if self.refused else ""
        return f"Embeddings({len(self)} x {self.width}, {self.model!r}{refused})"


class Encoder:
    """A model that turns images into unit vectors. ``m3ret.load`` opens one."""

    def __init__(self, _encoder: _m3ret.Encoder, _threads: int | None) -> None:
        self._encoder = _encoder
        self._threads = _threads

    @property
    def name(self) -> str:
        """Name of the model."""
        return self._encoder.name

    @property
    def fingerprint(self) -> str:
        """Vectors of different fingerprints cannot be compared."""
        return self._encoder.fingerprint

    @property
    def width(self) -> int:
        """Number of values of a vector."""
        return self._encoder.width

    @property
    def precision(self) -> str:
        """What the network computes with: ``f32``, ``bf16`` or ``int8``."""
        return self._encoder.precision

    def embed(
        self,
        x: Any,
        *,
        spacing: Sequence[float | None] | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        progress: Progress = False,
        limits: Mapping[str, int] | None = None,
        frames: int | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        masks: bool = False,
    ) -> Embeddings:
        """Embeds images.

        ``x`` is one of these, or a list of them: a path of a file, a folder or a manifest; bytes of a file; a ``Volume``;
        a pydicom data set; an image of nibabel or SimpleITK; a 2-D array or tensor. A list of pydicom data sets is one
        series. Arrays ``[D, H, W]`` need ``spacing``, the distances of neighbours along D, H, W in mm. ``include`` and
        ``exclude`` are patterns of file names of a folder; ``masks`` reads masks by the usual names, too.

        Shapes: returns float32 ``[n, width]``, one unit vector for each image, in the order of the inputs.

        Raises ``Refused`` for the first image that has no vector, unless ``on_error="skip"``.
        """
        if on_error not in ("raise", "skip"):
            raise MismatchError('on_error: found another word, wanted "raise" or "skip"')
        sources = sources_of(x, spacing)
        patterns = (words("include", include), words("exclude", exclude))
        folder = {"labels": None, "include": patterns[0], "exclude": patterns[1], "masks": masks}
        with Watch(progress, "embedding") as watch:
            vectors, rows = self._encoder.embed(
                sources, reading(limits, frames, self._threads), folder, watch
            )
        kept = [row for row in rows if row[3] is None]
        refused = [Refusal(row[0], row[1], row[2], *row[3]) for row in rows if row[3] is not None]
        if refused and on_error == "raise":
            first = refused[0]
            raise Refused(f"{first.path}: {first.message}", first.reason)
        return Embeddings(
            vectors,
            paths=[row[1] for row in kept],
            parts=[row[2] for row in kept],
            sources=[row[0] for row in kept],
            refused=refused,
            model=self.name,
            fingerprint=self.fingerprint,
            precision=self.precision,
        )

    def prepare(self, x: Any) -> list[NDArray[np.float32]]:
        """Returns what the network sees of one image, float32 ``[C, D, H, W]``; several arrays for a network of pictures that
        averages the vectors of slices or frames. ``x`` is a ``Volume``, or what ``m3ret.read`` takes."""
        volumes = [x] if isinstance(x, Volume) else read(x)
        if len(volumes) != 1:
            raise MismatchError(f"found {len(volumes)} images, wanted 1")
        return self._encoder.prepare(volumes[0]._volume)

    def __call__(self, x: Any, **arguments: Any) -> Embeddings:
        return self.embed(x, **arguments)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Copies the model into a folder, which ``m3ret.load`` opens, and returns the folder.

        Raises ``MismatchError`` for a model without files, such as ``pixels``, and for a folder that holds another.
        """
        source = self._folder()
        target = Path(folder)
        if (target / FILES[0]).exists():
            raise MismatchError(f"{target} holds a model already; give another name")
        target.mkdir(parents=True, exist_ok=True)
        for file in sorted(source.iterdir()):
            if file.is_file() and (file.name in FILES or file.suffix in (".json", ".safetensors", ".txt")):
                shutil.copyfile(file, target / file.name)
        return target

    save_pretrained = save

    @staticmethod
    def from_pretrained(folder: str | os.PathLike[str], **arguments: Any) -> Encoder:
        """Opens a folder, as ``m3ret.load`` does."""
        return load(folder, **arguments)

    def _folder(self) -> Path:
        folder = self._encoder.folder or _models.package_folder(self.name)
        if folder is None:
            raise MismatchError(f"the model {self.name} has no files; load one from a folder")
        return Path(folder)

    def __repr__(self) -> str:
        return f"Encoder({self.name!r}, width={self.width}, precision={self.precision!r})"


def load(
    model: str | os.PathLike[str] = "m3ret-tiny",
    *,
    precision: Precision = "auto",
    threads: int | None = None,
) -> Encoder:
    """Opens a model: a folder, the name of one, or ``pixels``, ``hog`` or ``random:PRESET``.

    Names are looked for in ``$M3RET_MODELS`` and ``./weights``, then among installed packages of weights
    (``m3ret-weights-tiny``). ``precision="auto"`` takes the fastest that the processor computes in hardware.
    ``threads`` is the number of threads that read and compute; ``None`` for one for each core.

    Raises ``M3retError`` if there is no such model.
    """
    reading(threads=threads)
    _models.add_packages()
    choice = {"model": os.fsdecode(os.fspath(model)), "precision": precision}
    return Encoder(_m3ret.Encoder(choice, threads, None), threads)
