"""Folders of slices, DICOMDIRs, and what must be said of those that are no volume."""

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from .common import image, pixels, planes, rng, to_bytes, uid
from .geometry import AXIAL, CORONAL, SAGITTAL, Block, oblique, text


def slice_of(block, d, number=None, **fields):
    """One slice as CT writes it."""
    stored = block.values[d]
    ds = image(*stored.shape, 16, stored=12, modality=fields.pop("Modality", "CT"))
    ds.SeriesInstanceUID = uid(1, fields.pop("series", 5))
    instance = f"{block.name}{ds.SeriesInstanceUID}{d}{sorted(fields.items())}"
    ds.SOPInstanceUID = uid(1, 5, *rng(instance).integers(0, 1 << 30, 2))
    ds.ImageOrientationPatient = text(block.axes)
    ds.ImagePositionPatient = text(fields.pop("position", block.position(d)))
    ds.PixelSpacing = text(block.spacing[1:])
    ds.SliceThickness = str(block.spacing[0])
    # In the order of acquisition, which says nothing about space.
    ds.InstanceNumber = int(number if number is not None else 100 - d)
    ds.RescaleSlope, ds.RescaleIntercept = "1", "-1024"
    for keyword, value in fields.items():
        setattr(ds, keyword, value)
    return to_bytes(pixels(ds, stored.astype("<u2").tobytes()))


def folder(name, contents, prefix=""):
    """File names whose order is not the order of the slices."""
    order = rng(name).permutation(len(contents))
    return {f"{prefix}IM{order[i]:04d}": content for i, content in enumerate(contents)}


def volume(cases, block, **more):
    return {"volumes": [block.expected(cases, block.values - 1024.0, **more)], "refused": None}


def refused(code):
    return {"volumes": [], "refused": code}


def slices(block, which=None, **fields):
    return [slice_of(block, d, **fields) for d in (range(len(block.values)) if which is None else which)]


def orders(cases):
    for name, axes in (("axial", AXIAL), ("sagittal", SAGITTAL), ("coronal", CORONAL),
                       ("feet_first", ((1, 0, 0), (0, -1, 0))), ("oblique", oblique(AXIAL)),
                       ("oblique_coronal", oblique(CORONAL))):
        block = Block(f"series_{name}", (8, 12, 10), axes)
        ship = name in ("axial", "sagittal")
        cases.archive(f"series_{name}", folder(name, slices(block)), [volume(cases, block, unit="HU")],
                      ship=ship)
    block = Block("series_tilt", (6, 7, 8), shear=(0, 0.6, 0))
    cases.archive("series_tilt", folder("tilt", slices(block)),
                  [volume(cases, block, reasons=["gantry_tilt"])])
    block = Block("series_jitter", (6, 7, 8))
    jittered = [slice_of(block, d, position=block.position(d) + [0, 0, 0.02 * (d % 2)]) for d in range(6)]
    # The ends lie on the grid of the step from first to last.
    block.step = block.step + np.array([0, 0, 0.02 / 5])
    cases.archive("series_jitter", folder("jitter", jittered), [volume(cases, block)])


def faults(cases):
    block = Block("series_faults", (6, 7, 8))
    everything = slices(block)
    copies = folder("copies", everything + everything[2:4])
    cases.archive("series_copies", copies, [volume(cases, block, reasons=["duplicate_instance"])])
    cases.archive("series_gap", folder("gap", slices(block, (0, 1, 2, 4, 5))), [refused("missing_slices")])
    uneven = [slice_of(block, d, position=block.origin + [0, 0, z]) for d, z in enumerate((0, 1, 2, 3.4, 5, 6.1))]
    cases.archive("series_uneven", folder("uneven", uneven), [refused("mixed_spacing")])
    double = everything + [slice_of(block, 3, number=77, ContentTime="120000")]
    cases.archive("series_double", folder("double", double), [volume(cases, block, reasons=["duplicate_instance"])])
    other = Block("series_faults_other", (6, 7, 8))
    double = everything + [slice_of(other, 3, number=77)]
    cases.archive("series_double_other", folder("double_other", double), [refused("duplicate_position")])
    sideways = [slice_of(block, d, position=block.position(d) + [40 * (d == 3), 0, 0]) for d in range(6)]
    cases.archive("series_sideways", folder("sideways", sideways), [refused("bad_geometry")])
    cut = slices(block)
    cut[2] = cut[2][:-40]
    cases.archive("series_cut", folder("cut", cut), [refused("truncated")])


def mixtures(cases):
    a, b = Block("mixed_a", (5, 7, 8)), Block("mixed_b", (4, 6, 9), SAGITTAL)
    files = folder("mixed_a", slices(a)) | {f"X{k}": v for k, v in folder("b", slices(b, series=6)).items()}
    cases.archive("series_two", files, [volume(cases, a), volume(cases, b)])
    files |= {"notes.txt": b"a text, no image\n", "sub/empty": b"", "sub/deep/er": b"\0" * 300,
              "half.dcm": slice_of(a, 0)[:460]}
    cases.archive("series_two_and_others", files, [volume(cases, a), volume(cases, b)],
                  skipped=["unknown_format"] * 3 + ["truncated"])
    spread = {f"{'ab'[i % 2]}/{i}": content for i, content in enumerate(slices(a))}
    cases.archive("series_over_folders", spread, [volume(cases, a)])
    echoes = [Block(f"echo_{e}", (4, 7, 8)) for e in range(2)]
    files = [slice_of(block, d, Modality="MR", EchoTime=str(10 + 20 * e), EchoNumbers=str(e + 1))
             for e, block in enumerate(echoes) for d in range(4)]
    cases.archive("series_echoes", folder("echoes", files), [volume(cases, block) for block in echoes])
    runs = [Block(f"run_{r}", (4, 7, 8)) for r in range(2)]
    files = [slice_of(block, d, AcquisitionNumber=str(r + 1)) for r, block in enumerate(runs) for d in range(4)]
    cases.archive("series_overlapping_runs", folder("runs", files), [volume(cases, block) for block in runs])
    block = Block("series_numbered", (5, 7, 8))
    files = [slice_of(block, d, AcquisitionNumber=str(d + 1)) for d in range(5)]
    cases.archive("series_run_per_slice", folder("numbered", files), [volume(cases, block)])
    times = [Block(f"phase_{t}", (4, 7, 8)) for t in range(3)]
    files = [slice_of(block, d, TriggerTime=str(100 * t)) for t, block in enumerate(times) for d in range(4)]
    cases.archive("series_phases", folder("phases", files), [volume(cases, block) for block in times])
    # Heart phases whose times vary from slice to slice, so that equal times are other phases.
    files = [slice_of(block, d, number=10 * t + d, TriggerTime=str((30 + 15 * (d % 2)) * t))
             for t, block in enumerate(times) for d in range(4)]
    cases.archive("series_phases_jitter", folder("phases_jitter", files), [volume(cases, block) for block in times])
    directions = [Block(f"direction_{i}", (4, 7, 8)) for i in range(3)]
    files = [slice_of(block, d, number=10 * i + d, Modality="MR", DiffusionBValue=700.0,
                      DiffusionGradientOrientation=[float(i == j) for j in range(3)])
             for i, block in enumerate(directions) for d in range(4)]
    cases.archive("series_directions", folder("directions", files), [volume(cases, block) for block in directions])
    patients = [Block(f"patient_{i}", (3, 7, 8)) for i in range(2)]
    patients[1].origin = patients[0].position(3)
    files = [slice_of(block, d, number=3 * i + d, PatientID=f"synthetic {i}")
             for i, block in enumerate(patients) for d in range(3)]
    cases.archive("series_two_patients", folder("patients", files), [volume(cases, block) for block in patients])
    planes_of_three = [Block(f"scout_{i}", (1, 7, 8), axes) for i, axes in enumerate((AXIAL, SAGITTAL, CORONAL))]
    files = [slice_of(block, 0, number=i) for i, block in enumerate(planes_of_three)]
    expected = [{"volumes": [cases.expect(planes(block.values - 1024.0), kind="image")], "refused": None}
                for block in planes_of_three]
    cases.archive("series_localizer", folder("localizer", files), expected)
    # Numbers written with other digits in each file: the same grid.
    block = Block("series_digits", (4, 7, 8), oblique(AXIAL, (12.3456, 0)), spacing=(2.5, 0.97655, 0.97655))
    files = []
    for d in range(4):
        other = Block("series_digits", (4, 7, 8), spacing=(2.5, 0.97655 - 4e-6 * d, 0.97655 + 3e-6 * d))
        other.axes = np.round(block.axes, 4 + d)
        files.append(slice_of(other, d, position=block.position(d)))
    row = volume(cases, block)
    del row["volumes"][0]["affine"]
    cases.archive("series_digits", folder("digits", files), [row])


def directory(names):
    ds = image(1, 1, 8)
    for keyword in [element.keyword for element in ds if element.keyword not in ("SOPClassUID", "SOPInstanceUID")]:
        delattr(ds, keyword)
    ds.SOPClassUID = "1.2.840.10008.1.3.10"
    ds.FileSetID = "TEST"
    records = []
    for name in names:
        record = Dataset()
        record.OffsetOfTheNextDirectoryRecord = 0
        record.RecordInUseFlag = 0xFFFF
        record.DirectoryRecordType = "IMAGE" if name else "SERIES"
        if name:
            record.ReferencedFileID = name
        records.append(record)
    ds.DirectoryRecordSequence = Sequence(records)
    return to_bytes(ds)


def directories(cases):
    block = Block("dicomdir", (4, 7, 8))
    files = {f"DISC/{k}": v for k, v in folder("dicomdir", slices(block)).items()}
    names = [None] + [name.split("/") for name in files]
    good = volume(cases, block)
    cases.archive("dicomdir_good", files | {"DICOMDIR": directory(names)}, [good], root="dicomdir_good/DICOMDIR")
    # The folder itself holds the same object once.
    cases.archive("dicomdir_folder", files | {"DICOMDIR": directory(names)}, [good])
    lower = {name.lower(): content for name, content in files.items()}
    cases.archive("dicomdir_lower_case", lower | {"DICOMDIR": directory(names)}, [good],
                  root="dicomdir_lower_case/DICOMDIR")
    bad = names + [["..", "series_axial", "IM0000"], ["DISC", "GONE"], ["DICOMDIR"], ["DISC"]]
    cases.archive("dicomdir_bad", files | {"DICOMDIR": directory(bad)}, [good], root="dicomdir_bad/DICOMDIR",
                  skipped=["malformed"] * 3)
    cases.archive("dicomdir_empty", {"DICOMDIR": directory([None])}, [], root="dicomdir_empty/DICOMDIR")


def add(cases):
    orders(cases)
    faults(cases)
    mixtures(cases)
    directories(cases)
