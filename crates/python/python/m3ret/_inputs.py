"""Turns what researchers hold in their hands into images of m3ret. Nothing of other packages is imported: an object is
known by what it can do."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Sequence, Union

from . import _m3ret
from ._errors import MismatchError
from ._volume import Volume, _npy, _plain_array

Source = Union[str, "_m3ret.Image"]

_VOXELS = {
    "int8": "MET_CHAR",
    "uint8": "MET_UCHAR",
    "int16": "MET_SHORT",
    "uint16": "MET_USHORT",
    "int32": "MET_INT",
    "uint32": "MET_UINT",
    "int64": "MET_LONG_LONG",
    "uint64": "MET_ULONG_LONG",
    "float32": "MET_FLOAT",
    "float64": "MET_DOUBLE",
}


def is_dataset(x: Any) -> bool:
    """Tells a data set of pydicom."""
    return hasattr(x, "save_as") and hasattr(x, "to_json_dict")


def _is_nibabel(x: Any) -> bool:
    return hasattr(x, "dataobj") and hasattr(x, "affine") and hasattr(x, "header")


def _is_simple_itk(x: Any) -> bool:
    return hasattr(x, "GetDirection") and hasattr(x, "GetNumberOfComponentsPerPixel")


def _is_array(x: Any) -> bool:
    return hasattr(x, "__array__") or hasattr(x, "__dlpack__") or hasattr(x, "__array_interface__")


def _is_single(x: Any) -> bool:
    if isinstance(x, (str, os.PathLike, bytes, bytearray, memoryview, Volume)) or hasattr(x, "read"):
        return True
    return is_dataset(x) or _is_nibabel(x) or _is_simple_itk(x) or _is_array(x)


def _is_list_of_words(x: Any) -> bool:
    """Tells arrays and columns of data frames that hold paths."""
    kind = getattr(getattr(x, "dtype", None), "kind", "")
    return kind in ("O", "U", "T") and getattr(x, "ndim", 0) == 1


def sources_of(x: Any, spacing: Sequence[float | None] | None = None) -> list[Source]:
    """Returns what is to be embedded, one for each image that was given."""
    if _is_list_of_words(x):
        x = list(x)
    if isinstance(x, Mapping):
        raise MismatchError(f"found a {type(x).__name__}, wanted {_WANTED}")
    if _is_single(x):
        return [_source_of(x, 0, spacing)]
    if not isinstance(x, Iterable):
        raise MismatchError(f"found {type(x).__name__}, wanted {_WANTED}")
    items = list(x)
    if items and all(is_dataset(item) for item in items):
        return [image_of(items)]
    return [_source_of(item, idx, spacing) for idx, item in enumerate(items)]


_WANTED = (
    "a path, bytes, a Volume, a pydicom data set or a list of them, an image of nibabel or SimpleITK, a 2-D array, or a "
    "list of these"
)


def _source_of(x: Any, idx: int, spacing: Sequence[float | None] | None) -> Source:
    if isinstance(x, (str, os.PathLike)):
        return os.fsdecode(os.fspath(x))
    return image_of(x, idx, spacing)


def image_of(x: Any, idx: int = 0, spacing: Sequence[float | None] | None = None) -> _m3ret.Image:
    """Returns one image in memory."""
    if isinstance(x, Volume):
        name = os.fspath(x.path) if x.path is not None else f"volume {idx}"
        return _m3ret.Image.of_volumes(name, [x._volume])
    if isinstance(x, (bytes, bytearray, memoryview)):
        return _m3ret.Image.of_files(f"bytes {idx}", [bytes(x)])
    if is_dataset(x):
        return _m3ret.Image.of_files(f"data set {idx}", [_dicom_bytes(x)])
    if isinstance(x, (list, tuple)) and x and all(is_dataset(item) for item in x):
        return _m3ret.Image.of_files(f"series {idx}", [_dicom_bytes(item) for item in x])
    if _is_nibabel(x):
        return _nibabel_image(x, f"nibabel image {idx}")
    if _is_simple_itk(x):
        return _m3ret.Image.of_files(f"SimpleITK image {idx}", [_metaimage_bytes(x)])
    if hasattr(x, "read") and not _is_array(x):
        return _m3ret.Image.of_files(f"open file {idx}", [_file_bytes(x)])
    if _is_array(x):
        return _array_image(x, f"array {idx}", spacing)
    raise MismatchError(f"found {type(x).__name__}, wanted {_WANTED}")


def _file_bytes(x: Any) -> bytes:
    try:
        content = x.read()
    except ValueError as error:
        raise MismatchError("found a file that is closed, wanted an open one") from error
    if not isinstance(content, bytes):
        raise MismatchError("found a file of text, wanted one that is open in binary mode")
    return content


def _array_image(x: Any, name: str, spacing: Sequence[float | None] | None) -> _m3ret.Image:
    if hasattr(x, "mode") and hasattr(x, "convert") and x.mode not in ("1", "L", "RGB", "RGBA", "I", "I;16", "F"):
        # Numbers of a palette are no grey values.
        x = x.convert("RGB")
    array = _plain_array(x)
    is_colour = array.ndim == 3 and array.shape[2] in (3, 4) and array.dtype.name in ("uint8", "uint16")
    if array.ndim != 2 and not is_colour and spacing is None:
        raise MismatchError(
            f"found an array of shape {array.shape}, of which nobody says what its axes are and how far its voxels lie "
            "apart; wanted [H, W], or spacing=(D, H, W) in mm, or m3ret.Volume.from_array(a, spacing=..., affine=...)"
        )
    if spacing is None:
        return _m3ret.Image.of_files(name, [_npy(array)])
    volume = Volume.from_array(array, spacing=spacing)
    return _m3ret.Image.of_volumes(name, [volume._volume])


def _dicom_bytes(dataset: Any) -> bytes:
    """Writes a data set as a DICOM file: m3ret's own reader then says what it means."""
    out = io.BytesIO()
    try:
        try:
            dataset.save_as(out, enforce_file_format=True)
        except TypeError:
            out = io.BytesIO()
            dataset.save_as(out, write_like_original=False)
    except Exception as error:
        # The text of the error may hold values of a patient.
        raise MismatchError(
            f"found a data set that pydicom cannot write ({type(error).__name__}), wanted one with file_meta and a "
            "transfer syntax, as pydicom.dcmread returns it"
        ) from None
    return out.getvalue()


def _nibabel_image(image: Any, name: str) -> _m3ret.Image:
    try:
        block = _nifti_bytes(image)
    except Exception as error:
        raise MismatchError(f"found an image that nibabel cannot give ({type(error).__name__})") from None
    if block is not None:
        return _m3ret.Image.of_files(name, [block])
    import numpy as np

    array = np.asanyarray(image.dataobj)
    if array.ndim not in (2, 3):
        raise MismatchError(f"found a nibabel image with {array.ndim} axes, wanted 2 or 3; or save it as NIfTI")
    volume = Volume.from_array(array, spacing=None, affine=image.affine, space="RAS", order="WHD")
    return _m3ret.Image.of_volumes(name, [volume._volume])


def _nifti_bytes(image: Any) -> bytes | None:
    """Writes a NIfTI image as one file with its stored numbers and their scale; ``None`` for another format."""
    import numpy as np

    header = image.header
    starts = {348: (352, b"n+1"), 540: (544, b"n+2\0\r\n\x1a\n")}
    n_bytes = int(header["sizeof_hdr"]) if "sizeof_hdr" in getattr(header, "keys", list)() else 0
    if n_bytes not in starts or "magic" not in header.keys():
        return None
    if hasattr(image, "update_header"):
        image.update_header()
    header = header.copy()
    proxy = image.dataobj
    slope, inter = 1.0, 0.0
    if hasattr(proxy, "get_unscaled"):
        raw = np.asanyarray(proxy.get_unscaled())
        slope, inter = float(proxy.slope), float(proxy.inter)
    else:
        raw = np.asanyarray(proxy)
        if raw.dtype == np.bool_:
            raw = raw.astype(np.uint8)
        elif raw.dtype == np.float16:
            raw = raw.astype(np.float32)
        header.set_data_dtype(raw.dtype)
    header.set_data_shape(raw.shape)
    offset, magic = starts[n_bytes]
    header["vox_offset"], header["magic"] = offset, magic
    header["scl_slope"], header["scl_inter"] = slope, inter
    voxels = raw.astype(header.get_data_dtype(), copy=False).tobytes(order="F")
    block = bytes(header.binaryblock)
    return b"".join([block, bytes(offset - len(block)), voxels])


def _metaimage_bytes(image: Any) -> bytes:
    """Writes an image of SimpleITK as one MetaImage file."""
    import numpy as np

    module = sys.modules.get("SimpleITK")
    if module is None:
        raise MismatchError("found an image of SimpleITK, and the module SimpleITK is not loaded")
    array = np.ascontiguousarray(module.GetArrayViewFromImage(image))
    voxel = _VOXELS.get(array.dtype.name)
    if voxel is None:
        raise MismatchError(f"found an image of {array.dtype.name}, wanted real numbers; cast it with SimpleITK.Cast")
    n_dims = image.GetDimension()
    direction = np.asarray(image.GetDirection()).reshape(n_dims, n_dims)
    fields: list[tuple[str, Any]] = [
        ("ObjectType", "Image"),
        ("NDims", n_dims),
        ("BinaryData", "True"),
        ("BinaryDataByteOrderMSB", "False"),
        ("CompressedData", "False"),
        ("TransformMatrix", _words(direction.T.ravel().tolist())),
        ("Offset", _words(image.GetOrigin())),
        ("ElementSpacing", _words(image.GetSpacing())),
        ("DimSize", _words(image.GetSize())),
    ]
    if image.HasMetaDataKey("Modality"):
        fields.append(("Modality", image.GetMetaData("Modality")))
    n_channels = image.GetNumberOfComponentsPerPixel()
    if n_channels > 1:
        fields.append(("ElementNumberOfChannels", n_channels))
    fields += [("ElementType", voxel), ("ElementDataFile", "LOCAL")]
    header = "".join(f"{name} = {value}\n" for name, value in fields)
    return header.encode() + array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _words(numbers: Iterable[float]) -> str:
    return " ".join(repr(number) for number in numbers)
