//! A sound committed series, broken in the ways of archives.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};

use m3ret_imaging::{Code, ReadOptions, Volume, read_path};

/// A copy of the committed series in a folder of its own, and its files.
fn series() -> (tempfile::TempDir, Vec<PathBuf>) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/dicom/series_axial");
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for entry in std::fs::read_dir(source).unwrap() {
        let entry = entry.unwrap();
        let target = folder.path().join(entry.file_name());
        std::fs::copy(entry.path(), &target).unwrap();
        files.push(target);
    }
    files.sort();
    (folder, files)
}

fn read(folder: &Path) -> Result<Volume, Code> {
    let volumes = read_path(folder, &ReadOptions::default()).map_err(|e| e.code())?;
    let [volume] = <[Volume; 1]>::try_from(volumes).unwrap();
    Ok(volume)
}

#[test]
fn equal_copies_are_told_and_unequal_ones_refused() {
    let (folder, files) = series();
    let sound = read(folder.path()).unwrap();
    let copy = folder.path().join("copy");
    let mut bytes = std::fs::read(&files[3]).unwrap();
    std::fs::write(&copy, &bytes).unwrap();
    let copied = read(folder.path()).unwrap();
    assert_eq!(copied.values(), sound.values());
    assert!(
        copied
            .reasons
            .iter()
            .any(|r| r.code == Code::DuplicateInstance)
    );
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&copy, &bytes).unwrap();
    assert_eq!(read(folder.path()), Err(Code::DuplicatePosition));
}

#[test]
fn a_missing_slice_is_refused_and_a_missing_end_is_a_shorter_series() {
    let (folder, mut files) = series();
    let by_position = |path: &PathBuf| {
        let volumes = read_path(path, &ReadOptions::default()).unwrap();
        let z = volumes[0].affine.unwrap().rows[2][3];
        (z * 1000.0).round()
    };
    files.sort_by(|a, b| by_position(a).total_cmp(&by_position(b)));
    std::fs::remove_file(files.first().unwrap()).unwrap();
    assert_eq!(read(folder.path()).unwrap().shape()[1], 7);
    std::fs::remove_file(&files[4]).unwrap();
    assert_eq!(read(folder.path()), Err(Code::MissingSlices));
}

#[test]
fn a_slice_cut_short_refuses_the_series() {
    let (folder, files) = series();
    let bytes = std::fs::read(&files[2]).unwrap();
    std::fs::write(&files[2], &bytes[..bytes.len() - 10]).unwrap();
    assert_eq!(read(folder.path()), Err(Code::Truncated));
}

#[test]
fn values_are_called_hounsfield_only_after_a_rescale() {
    let (folder, files) = series();
    let mut bytes = std::fs::read(&files[0]).unwrap();
    let sound = read_path(&files[0], &ReadOptions::default()).unwrap();
    assert_eq!(sound[0].unit, Some("HU"));
    // RescaleSlope (0028,1053), explicit little endian: its value becomes zero.
    let tag = [0x28, 0, 0x53, 0x10, b'D', b'S'];
    let at = bytes.windows(6).position(|w| w == tag).unwrap();
    let length = usize::from(u16::from_le_bytes([bytes[at + 6], bytes[at + 7]]));
    bytes[at + 8..at + 8 + length].fill(b'0');
    let broken = folder.path().join("broken");
    std::fs::write(&broken, &bytes).unwrap();
    let volume = &read_path(&broken, &ReadOptions::default()).unwrap()[0];
    assert_eq!(volume.unit, None);
    for code in [Code::HeaderRepaired, Code::NotHounsfield] {
        assert!(volume.reasons.iter().any(|r| r.code == code), "{code}");
    }
}
