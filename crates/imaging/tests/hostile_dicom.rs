//! Broken DICOM files: every committed file cut at every byte and changed in every byte, and files
//! made to be expensive. Each is read or refused, in time.

#![allow(clippy::unwrap_used, reason = "used by tests alone")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use m3ret_imaging::{Code, Limits, ReadOptions, Volume, read_bytes};
use proptest::prelude::*;

#[path = "oracle/hostile_files.rs"]
mod hostile_files;

fn committed() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/dicom");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "dcm"))
        .collect();
    paths.sort();
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    paths
        .iter()
        .map(|path| (name(path), std::fs::read(path).unwrap()))
        .collect()
}

fn small() -> ReadOptions {
    let limits = Limits {
        max_bytes: 1 << 24,
        max_voxels: 1 << 22,
        ratio_free_bytes: 1 << 22,
        ..Limits::default()
    };
    ReadOptions {
        limits,
        n_frames: None,
    }
}

fn bits(volumes: &[Volume]) -> Vec<u32> {
    volumes
        .iter()
        .flat_map(|v| v.values().iter().map(|x| x.to_bits()))
        .collect()
}

#[test]
fn a_file_cut_anywhere_is_refused_or_loses_nothing() {
    for (name, bytes) in committed() {
        let whole = read_bytes(&bytes, &small()).ok();
        // Every byte of the header and of the ends of pixels; longer pixels in steps.
        let step = bytes.len() / 2000 + 1;
        for length in (0..bytes.len()).filter(|n| n % step == 0 || *n + 300 > bytes.len()) {
            if let Ok(cut) = read_bytes(&bytes[..length], &small()) {
                let whole = whole
                    .as_ref()
                    .unwrap_or_else(|| panic!("{name}: cut at {length}"));
                // Padding and end markers may go, pixels may not.
                assert_eq!(bits(&cut), bits(whole), "{name}: cut at {length}");
            }
        }
    }
}

#[test]
fn a_file_changed_in_any_byte_is_read_or_refused() {
    for (name, mut bytes) in committed() {
        let start = Instant::now();
        for at in 0..bytes.len().min(2500) {
            for change in [0x01, 0x80, 0xFF] {
                bytes[at] ^= change;
                let _ = read_bytes(&bytes, &small());
                bytes[at] ^= change;
            }
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{name}");
    }
}

#[test]
fn expensive_files_are_refused_at_once() {
    for file in hostile_files::all() {
        let start = Instant::now();
        let refused = read_bytes(&file.bytes, &ReadOptions::default());
        let took = start.elapsed();
        let code = refused.map_err(|e| e.code()).map(|volumes| volumes.len());
        assert_eq!(code, Err(file.code), "{}", file.name);
        assert!(took < Duration::from_secs(5), "{}: {took:?}", file.name);
    }
    assert!(
        hostile_files::all()
            .iter()
            .any(|f| f.code == Code::LimitExceeded)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    #[test]
    fn random_changes_are_read_or_refused(
        pick in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
    ) {
        let files = committed();
        let (_, mut bytes) = files[pick.index(files.len())].clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = read_bytes(&bytes, &small());
    }
}
