"""Images as numbers."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Mapping, Sequence, cast

from . import _m3ret
from ._errors import MismatchError
from ._words import there, words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Kind = Literal["image", "volume", "video"]


def reading(
    limits: Mapping[str, int] | None = None,
    frames: int | None = None,
    threads: int | None = None,
    keep: Sequence[str] = (),
    retry: bool = False,
) -> dict[str, Any]:
    """Joins the arguments that say how images are read."""
    if threads is not None and threads < 1:
        raise MismatchError(f"threads: found {threads}, wanted 1 or more, or None for one for each core")
    return {
        "limits": dict(limits) if limits is not None else None,
        "frames": frames,
        "threads": threads,
        "keep": words("keep", keep),
        "retry": retry,
    }


class Volume:
    """One image of any kind, float32 ``[C, D, H, W]``; C is 1 (grey) or 3 (RGB).

    D is 1 for a picture, time for a video and space for a volume, which is stored from the feet to the head (D), from
    the front to the back (H) and from the right to the left (W) of the patient where its orientation is known.
    """

    __slots__ = ("_array", "_volume")

    def __init__(self, _volume: _m3ret.Volume) -> None:
        self._volume = _volume
        self._array: NDArray[np.float32] | None = None

    @staticmethod
    def from_array(
        a: Any,
        *,
        spacing: Sequence[float | None] | None,
        affine: Any | None = None,
        modality: str | None = None,
        kind: Kind | None = None,
        inverted: bool = False,
        unit: Literal["HU"] | None = None,
        space: Literal["LPS", "RAS"] = "LPS",
        order: Literal["DHW", "WHD"] = "DHW",
        limits: Mapping[str, int] | None = None,
    ) -> Volume:
        """Makes a volume of an array of any real type, as m3ret reads the same array from a ``.npy`` file.

        Shapes: ``a`` is ``[H, W]``, ``[H, W, 3]`` (RGB), ``[D, H, W]``, ``[1 or 3, D, H, W]`` or ``[D, H, W, 3]``; with
        ``order="WHD"`` its axes are those of NIfTI, ``[W, H]`` or ``[W, H, D]``.

        Units: ``spacing`` has the distances of neighbours along D, H, W (or H, W of a picture) in mm, and seconds along D
        of a video; ``None`` if ``affine`` says them or nobody knows. ``affine``, 4 x 4, maps the indices ``(w, h, d, 1)``
        to mm in the LPS system of DICOM, or in RAS with ``space="RAS"``; the volume is then turned as a file would be.

        Raises ``MismatchError`` if arguments do not fit each other, ``Refused`` if the array cannot be an image.
        """
        array = _plain_array(a)
        if order == "WHD":
            if array.ndim not in (2, 3):
                raise MismatchError(f'order="WHD": found {array.ndim} axes, wanted 2 or 3')
            array = array.transpose()
        elif order != "DHW":
            raise MismatchError('order: found another word, wanted "DHW" or "WHD"')
        sides, rows = _spacing(spacing), _affine(affine, space)
        _check_agree(sides, rows)
        facts = {
            "spacing": sides,
            "affine": rows,
            "modality": modality,
            "unit": unit,
            "kind": kind,
            "inverted": bool(inverted),
        }
        return Volume(_m3ret.volume_of_array(_npy(array), facts, reading(limits)))

    def numpy(self) -> NDArray[np.float32]:
        """Returns the values, float32 ``[C, D, H, W]``, read-only; they are copied once."""
        if self._array is None:
            array = self._volume.values()
            array.flags.writeable = False
            self._array = array
        return self._array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    def __dlpack__(self, **arguments: Any) -> Any:
        # numpy exports no read-only arrays to older consumers.
        return self.numpy().copy().__dlpack__(**arguments)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """``(C, D, H, W)``."""
        c, d, h, w = self._volume.shape
        return (c, d, h, w)

    @property
    def spacing(self) -> tuple[float | None, float | None, float | None]:
        """Distances of neighbours along D, H, W in mm; seconds along D of a video; ``None`` where unknown."""
        d, h, w = self._volume.spacing
        return (d, h, w)

    @property
    def affine(self) -> NDArray[np.float64] | None:
        """4 x 4, maps ``(w, h, d, 1)`` to mm in the LPS system of DICOM; ``None`` where unknown."""
        rows = self._volume.affine_rows()
        if rows is None:
            return None
        import numpy as np

        return np.array([*rows, [0.0, 0.0, 0.0, 1.0]])

    @property
    def kind(self) -> Kind:
        """``image``, ``volume`` or ``video``."""
        return cast(Kind, self._volume.kind)

    @property
    def modality(self) -> str | None:
        """DICOM modality, such as ``CT``, where the file states it."""
        return self._volume.modality

    @property
    def body_part(self) -> str | None:
        """DICOM BodyPartExamined, where the file states it."""
        return self._volume.body_part

    @property
    def unit(self) -> str | None:
        """``HU`` where the values are Hounsfield units."""
        return self._volume.unit

    @property
    def inverted(self) -> bool:
        """Whether low values are to be shown bright; the values themselves are never inverted."""
        return self._volume.inverted

    @property
    def part(self) -> str | None:
        """Which image of its file this is, such as ``t=3``; ``None`` if the file holds one."""
        return self._volume.part

    @property
    def path(self) -> Path | None:
        """The file or folder that it was read from; ``None`` for one from memory."""
        file = self._volume.file
        return Path(file) if file is not None else None

    @property
    def reasons(self) -> list[tuple[str, str]]:
        """Codes of docs/reason-codes.md and what was found, of everything unusual."""
        return self._volume.reasons

    def png(self, side: int = 256) -> bytes:
        """Returns a picture for people as PNG, at most ``side`` pixels wide and high."""
        return self._volume.png(side)

    def _repr_png_(self) -> bytes:
        return self.png()

    def __repr__(self) -> str:
        shape = " x ".join(str(side) for side in self.shape)
        return f"Volume({self.kind}, {shape}, modality={self.modality!r})"


def _plain_array(a: Any) -> NDArray[Any]:
    """Returns anything that is an array of numbers as numpy's, without a copy where that is possible."""
    import numpy as np

    if isinstance(a, Volume):
        raise MismatchError("found a Volume, wanted an array; it need not be converted")
    if hasattr(a, "detach") and hasattr(a, "cpu"):
        a = a.detach().cpu()
        try:
            a = a.numpy()
        except TypeError:
            # numpy has no bfloat16.
            a = a.float().numpy()
    elif not isinstance(a, np.ndarray) and hasattr(a, "__dlpack__"):
        a = np.from_dlpack(a)
    if isinstance(a, np.ma.MaskedArray) and np.ma.is_masked(a):
        raise MismatchError("found a masked array, wanted plain numbers; fill it with the value that means no image")
    try:
        array = np.asarray(a)
    except Exception as error:
        raise MismatchError(f"found {type(a).__name__}, which numpy cannot make an array of") from error
    if array.dtype.kind not in "biuf":
        raise MismatchError(f"found an array of {array.dtype.name}, wanted real numbers")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    return array


def _npy(array: NDArray[Any]) -> bytes:
    """Returns an array as the bytes of a ``.npy`` file."""
    import numpy as np

    if array.size > 1 << 40 or array.nbytes == 0 and array.size > 0:
        raise MismatchError("found an array without memory of its own, wanted one that fits into memory")
    out = io.BytesIO()
    np.lib.format.write_array(out, np.ascontiguousarray(array), allow_pickle=False)
    return out.getvalue()


def _spacing(spacing: Sequence[float | None] | None) -> list[float | None] | None:
    if spacing is None:
        return None
    if isinstance(spacing, (str, bytes, Mapping)):
        raise MismatchError(f"spacing: found {type(spacing).__name__}, wanted numbers in mm")
    if not isinstance(spacing, Sequence):
        spacing = list(spacing)
    if len(spacing) == 2:
        spacing = [None, *spacing]
    if len(spacing) != 3:
        raise MismatchError(f"spacing: found {len(spacing)} numbers, wanted 3 (D, H, W in mm), or 2 (H, W) of a picture")
    sides = [None if side is None else float(side) for side in spacing]
    for side in sides:
        if side is not None and not 0.0 < side < float("inf"):
            raise MismatchError("spacing: found a number that is not above 0, wanted mm")
    return sides


def _check_agree(spacing: list[float | None] | None, affine: list[list[float]] | None) -> None:
    """Checks that spacing and affine say the same distances, where both are given."""
    if spacing is None or affine is None:
        return
    for axis, column in enumerate((2, 1, 0)):
        said, length = spacing[axis], sum(row[column] ** 2 for row in affine) ** 0.5
        if said is not None and abs(said - length) > 1e-3 * max(said, length):
            raise MismatchError(f"spacing: found {said} mm along {'DHW'[axis]}, and {length:g} mm in the affine; give one of both")


def _affine(affine: Any, space: str) -> list[list[float]] | None:
    import numpy as np

    if space not in ("LPS", "RAS"):
        raise MismatchError('space: found another word, wanted "LPS" or "RAS"')
    if affine is None:
        return None
    if hasattr(affine, "detach"):
        affine = affine.detach().cpu()
    matrix = np.asarray(affine, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.array_equal(matrix[3], [0, 0, 0, 1]):
        raise MismatchError("affine: wanted 4 x 4 numbers with the last row 0, 0, 0, 1")
    rows: list[list[float]] = matrix[:3].tolist()
    if space == "RAS":
        rows = [[-value for value in rows[0]], [-value for value in rows[1]], rows[2]]
    return rows


def read(
    source: Any,
    *,
    limits: Mapping[str, int] | None = None,
    frames: int | None = None,
    threads: int | None = None,
) -> list[Volume]:
    """Reads every image of a file or folder, of any format that m3ret knows (docs/formats.md).

    ``source`` may also be bytes, an open binary file, a pydicom data set, a list of them (a series), an image of nibabel or
    SimpleITK. ``limits`` has the names of docs/formats.md, such as ``{"max_voxels": 10**8}``; ``frames`` says how many
    frames are read of a video.

    Raises ``Refused`` (an image that cannot be read), ``FileError`` (no such file).
    """
    how = reading(limits, frames, threads)
    if isinstance(source, (str, os.PathLike)):
        there(source)
        volumes = _m3ret.read_path(os.fspath(source), how)
    else:
        from ._inputs import image_of

        volumes = image_of(source).volumes(how)
    return [Volume(volume) for volume in volumes]
