"""Multi-frame objects: stacks, times, dose grids, cines, and what states their spacing."""

import numpy as np
from nibabel import orientations as orient
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from .common import image, pixels, planes, rng, to_bytes

AXIAL = ((1, 0, 0), (0, 1, 0))
SAGITTAL = ((0, 1, 0), (0, 0, -1))
CORONAL = ((1, 0, 0), (0, 0, -1))


def oblique(axes, degrees=(12, -7)):
    """The axes turned about x, then about z."""
    a, b = np.radians(degrees)
    turn = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    return tuple(tuple(turn @ np.array(axis, float)) for axis in axes)


def values(name, shape, bits=12):
    return rng(name).integers(0, 1 << bits, shape)


class Block:
    """A volume in storage order [D, H, W] and where it lies."""

    def __init__(self, name, shape, axes=AXIAL, spacing=(2.5, 0.8, 0.7), shear=(0, 0, 0)):
        self.name = name
        self.values = values(name, shape)
        self.axes = np.array(axes, float)
        self.spacing = spacing  # D, H, W
        normal = np.cross(*self.axes)
        self.step = normal * spacing[0] + np.array(shear, float)
        self.origin = np.array([-30.0, 20.0, 11.0])

    def position(self, d):
        return self.origin + d * self.step

    def affine(self):
        """Voxel (w, h, d) -> LPS."""
        affine = np.eye(4)
        affine[:3, 0] = self.axes[0] * self.spacing[2]
        affine[:3, 1] = self.axes[1] * self.spacing[1]
        affine[:3, 2] = self.step
        affine[:3, 3] = self.origin
        return affine

    def canonical(self, stored=None):
        """Values [D, H, W] and affine with D to superior, H to posterior, W to left (nibabel)."""
        stored = self.values if stored is None else stored
        affine = self.affine()
        ras = np.diag([-1, -1, 1, 1]) @ affine
        now = orient.io_orientation(ras)
        # W to left, H to posterior, D to superior
        wanted = orient.axcodes2ornt("LPS")
        change = orient.ornt_transform(now, wanted)
        whd = orient.apply_orientation(np.moveaxis(stored, (0, 1, 2), (2, 1, 0)), change)
        affine = affine @ orient.inv_ornt_aff(change, stored.shape[::-1])
        return np.moveaxis(whd, (0, 1, 2), (2, 1, 0)), affine

    def expected(self, cases, stored=None, **more):
        array, affine = self.canonical(stored)
        columns = np.linalg.norm(affine[:3, :3], axis=0)
        return cases.expect(planes(array), affine=affine[:3].tolist(), kind="volume",
                            spacing=[columns[2], columns[1], columns[0]], **more)


def text(numbers):
    """DS holds 16 characters."""
    return [f"{number:.9g}" for number in np.ravel(numbers)]


def sequence(**fields):
    item = Dataset()
    for keyword, value in fields.items():
        setattr(item, keyword, value)
    return Sequence([item])


def frame_groups(block, d, **content):
    groups = Dataset()
    groups.PlanePositionSequence = sequence(ImagePositionPatient=text(block.position(d)))
    groups.FrameContentSequence = sequence(**content)
    return groups


def shared_groups(block, rescale=None):
    shared = Dataset()
    shared.PlaneOrientationSequence = sequence(ImageOrientationPatient=text(block.axes))
    shared.PixelMeasuresSequence = sequence(PixelSpacing=text(block.spacing[1:]),
                                            SliceThickness=str(block.spacing[0]))
    if rescale:
        shared.PixelValueTransformationSequence = transformation(*rescale)
    return shared


def transformation(slope, intercept):
    return sequence(RescaleSlope=str(slope), RescaleIntercept=str(intercept), RescaleType="HU")


def enhanced(block, stored, groups, modality="CT", rescale=None):
    ds = image(*stored.shape[1:], 16, stored=12, frames=len(stored), modality=modality)
    ds.SharedFunctionalGroupsSequence = Sequence([shared_groups(block, rescale)])
    ds.PerFrameFunctionalGroupsSequence = Sequence(groups)
    return pixels(ds, stored.astype("<u2").tobytes())


def enhanced_stacks(cases):
    for name, axes in (("axial", AXIAL), ("sagittal", SAGITTAL), ("coronal", CORONAL),
                       ("oblique", oblique(AXIAL)), ("oblique_sagittal", oblique(SAGITTAL))):
        block = Block(f"enhanced_{name}", (6, 9, 8), axes)
        order = rng(name).permutation(6)
        groups = [frame_groups(block, d, StackID="1", InStackPositionNumber=int(d) + 1) for d in order]
        for modality in ("CT", "MR"):
            ds = enhanced(block, block.values[order], groups, modality, (1, -1024))
            hu = {"unit": "HU"} if modality == "CT" else {}
            expected = block.expected(cases, block.values - 1024.0, **hu)
            cases.file(f"enhanced_{modality}_{name}", to_bytes(ds), expected,
                       ship=modality == "CT" and name == "sagittal")
    block = Block("enhanced_rescale", (4, 5, 6))
    groups = [frame_groups(block, d) for d in range(4)]
    for d, group in enumerate(groups):
        group.PixelValueTransformationSequence = transformation(d + 1, -10 * d)
    slopes = np.arange(1, 5)[:, None, None]
    ds = enhanced(block, block.values, groups, "MR", (7, 7))
    cases.file("enhanced_rescale_per_frame", ds,
               block.expected(cases, block.values * slopes - 10.0 * (slopes - 1)))
    two = [Block("stack_a", (3, 5, 6)), Block("stack_b", (4, 5, 6))]
    two[1].origin = two[0].origin + 0.3
    groups = [frame_groups(b, d, StackID=str(n)) for n, b in enumerate(two) for d in range(len(b.values))]
    ds = enhanced(two[0], np.concatenate([b.values for b in two]), groups, "MR")
    cases.file("enhanced_two_stacks", ds, *[b.expected(cases) for b in two])
    times = [Block(f"time_{t}", (3, 5, 6)) for t in range(2)]
    groups = [frame_groups(b, d, StackID="1", TemporalPositionIndex=t + 1)
              for d in range(3) for t, b in enumerate(times)]
    stored = np.stack([b.values[d] for d in range(3) for b in times])
    cases.file("enhanced_temporal", enhanced(times[0], stored, groups, "MR"),
               *[b.expected(cases) for b in times])
    block = Block("enhanced_gap", (5, 5, 6))
    groups = [frame_groups(block, d) for d in (0, 1, 2, 4, 5)]
    cases.file("enhanced_gap", enhanced(block, block.values, groups), refused="missing_slices")
    groups = [frame_groups(block, d) for d in (0, 1, 2, 2, 3)]
    cases.file("enhanced_double", enhanced(block, block.values, groups), refused="duplicate_position")
    groups = [frame_groups(block, d) for d in range(4)]
    cases.file("enhanced_group_missing", enhanced(block, block.values, groups), refused="malformed")


def dose(cases):
    for first in (0.0, 11.0):
        block = Block(f"dose_{first}", (4, 6, 5))
        ds = image(6, 5, 16, frames=4, modality="RTDOSE")
        ds.ImageOrientationPatient, ds.ImagePositionPatient = text(block.axes), text(block.origin)
        ds.PixelSpacing = text(block.spacing[1:])
        # Offsets from 0, or the z of each plane itself (PS3.3 C.8.8.3.2).
        ds.GridFrameOffsetVector = text(first + 2.5 * np.arange(4))
        ds.DoseGridScaling = "0.001"
        pixels(ds, block.values.astype("<u2").tobytes())
        cases.file(f"dose_{first:.0f}", ds, block.expected(cases, block.values * 0.001), ship=first == 0)


def cines(cases):
    def cine(name, spacing, modality="US", **fields):
        stored = values(name, (4, 5, 6), 8)
        ds = image(5, 6, 8, frames=4, modality=modality)
        for keyword, value in fields.items():
            setattr(ds, keyword, value)
        pixels(ds, stored.astype("u1").tobytes())
        kind = "volume" if spacing == "unknown" else "video"
        reasons = ["stack_axis_unknown"] if spacing == "unknown" else []
        spacing = None if spacing == "unknown" else spacing
        cases.file(name, ds, cases.expect(planes(stored), kind=kind, spacing=[spacing, None, None],
                                          reasons=["spacing_unknown", *reasons]))

    cine("cine_frame_time", 0.04, FrameTime="40")
    cine("cine_vector_even", 0.033, FrameTimeVector=["0", "33", "33", "33"])
    cine("cine_vector_uneven", None, FrameTimeVector=["0", "33", "60", "33"])
    cine("cine_rate", 0.05, CineRate="20")
    cine("cine_display_rate", 0.1, RecommendedDisplayFrameRate="10")
    cine("cine_untold", None)
    cine("cine_zero_time", None, FrameTime="0")
    cine("frames_of_unknown_axis", "unknown", modality="NM")


def region(dx, dy, unit=3, spatial=1):
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType, item.RegionFlags = spatial, 1, 0
    item.RegionLocationMinX0 = item.RegionLocationMinY0 = 0
    item.RegionLocationMaxX1 = item.RegionLocationMaxY1 = 4
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = unit
    item.PhysicalDeltaX, item.PhysicalDeltaY = dx, dy
    return item


def spacings(cases):
    def case(name, spacing, reasons, **fields):
        stored = values(name, (1, 5, 6), 8)
        ds = image(5, 6, 8, modality=fields.pop("modality", "DX"))
        for keyword, value in fields.items():
            setattr(ds, keyword, value)
        pixels(ds, stored.astype("u1").tobytes())
        cases.file(name, ds, cases.expect(planes(stored), kind="image", reasons=reasons, only_reasons=True,
                                          spacing=[None, *spacing]))

    detector, unknown = ["spacing_at_detector"], ["spacing_unknown"]
    case("spacing_pixel", (0.2, 0.1), [], PixelSpacing=["0.2", "0.1"])
    case("spacing_both", (0.2, 0.1), [], PixelSpacing=["0.2", "0.1"], ImagerPixelSpacing=["0.4", "0.2"])
    case("spacing_imager", (0.4, 0.2), detector, ImagerPixelSpacing=["0.4", "0.2"])
    case("spacing_film", (0.4, 0.2), detector, NominalScannedPixelSpacing=["0.4", "0.2"])
    case("spacing_zero", (None, None), unknown, PixelSpacing=["0", "0"])
    case("spacing_none", (None, None), unknown)
    case("spacing_us", (0.5, 0.25), [], modality="US",
         SequenceOfUltrasoundRegions=Sequence([region(0.025, 0.05), region(0.025, 0.05)]))
    case("spacing_us_doppler", (0.5, 0.25), [], modality="US",
         SequenceOfUltrasoundRegions=Sequence([region(0.025, 0.05), region(0.001, 2.0, unit=4)]))
    case("spacing_us_disagree", (None, None), unknown, modality="US",
         SequenceOfUltrasoundRegions=Sequence([region(0.025, 0.05), region(0.03, 0.05)]))


def add(cases):
    enhanced_stacks(cases)
    dose(cases)
    cines(cases)
    spacings(cases)
