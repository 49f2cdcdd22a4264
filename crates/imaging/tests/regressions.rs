//! Files on which a reader once failed: a panic, a hang, or too much memory. Each is read or
//! refused, in time. How they got there: fuzz/regression.py.

#![allow(clippy::unwrap_used, reason = "used by tests alone")]

use std::path::Path;
use std::time::{Duration, Instant};

use m3ret_imaging::archive::{find_objects, read_object};
use m3ret_imaging::{Limits, ReadOptions, read_bytes, read_file};

#[test]
fn files_that_once_broke_a_reader_are_read_or_refused_in_time() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/regressions");
    let limits = Limits {
        max_bytes: 1 << 24,
        max_voxels: 1 << 22,
        max_seconds: 2,
        ..Limits::default()
    };
    let options = ReadOptions {
        limits,
        n_frames: None,
    };
    let mut n_files = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let start = Instant::now();
        for volume in read_bytes(&bytes, &options).into_iter().flatten() {
            let is_sound = |mm: &f64| mm.is_finite() && *mm > 0.0;
            let spacing = volume.spacing;
            assert!(
                spacing.iter().flatten().all(is_sound),
                "{spacing:?} in {}",
                path.display()
            );
        }
        let _ = read_file(&path, &options);
        if let Ok((objects, _)) = find_objects(&path, &options) {
            objects
                .iter()
                .for_each(|object| drop(read_object(object, &options)));
        }
        let took = start.elapsed();
        assert!(
            took < Duration::from_secs(4),
            "{}: {took:?}",
            path.display()
        );
        n_files += 1;
    }
    assert!(n_files > 0);
}
