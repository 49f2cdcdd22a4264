//! An archive whose gallery is served; shared by the tests of the server.

#![allow(
    dead_code,
    reason = "not every test that shares this file uses all of it"
)]

use crate::binary::{npy, run};
use crate::dicom::dicom;

/// What no answer, no log and no line of the audit trail may hold.
pub(crate) const SECRETS: [&str; 3] = ["MRN-0815-SECRET", "MRN-4711-SECRET", "Doe^Jane"];

/// A picture of 24 x 32: a blob at a place that the seed gives, on a slope.
fn picture(seed: usize) -> Vec<f32> {
    let (y, x) = ((seed * 7 % 24) as f32, (seed * 11 % 32) as f32);
    let value = |i: usize| {
        let (row, column) = ((i / 32) as f32, (i % 32) as f32);
        let near = (row - y).powi(2) + (column - x).powi(2);
        800.0 * (-near / 40.0).exp() + row * seed as f32
    };
    (0..768).map(value).collect()
}

pub(crate) fn image_of(patient: &str, study: &str, seed: usize) -> Vec<u8> {
    let words = [
        (8, 0x60, "CS", "DX"),
        (0x10, 0x10, "PN", "Doe^Jane^Secret"),
        (0x10, 0x20, "LO", patient),
        (0x20, 0x0d, "UI", study),
        (0x20, 0x0e, "UI", study),
    ];
    dicom(&words, &picture(seed))
}

/// An archive `in` with the gallery `g.m3i`, and a query beside it.
pub(crate) fn archive() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::create_dir_all(root.join("in/two")).unwrap();
    let first = SECRETS[0];
    for (name, bytes) in [
        ("in/a.dcm", image_of(first, "1.2.3", 1)),
        ("in/b.dcm", image_of(first, "1.2.4", 2)),
        ("in/two/c.dcm", image_of(SECRETS[1], "1.2.5", 3)),
        ("in/d.npy", npy(&[24, 32], &picture(5))),
        ("query.dcm", image_of(first, "1.2.3", 6)),
    ] {
        std::fs::write(root.join(name), bytes).unwrap();
    }
    let (status, _, told) = run(root, &["index", "build", "g.m3i", "in"]);
    assert_eq!(status, 0, "{told}");
    folder
}
