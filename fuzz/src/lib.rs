//! What all fuzz targets check: no panic, no reservation above small limits (libFuzzer's
//! `-rss_limit_mb` and `-malloc_limit_mb` see to that), and sound Volumes.

pub mod dicom;

use m3ret_imaging::{Format, Limits, ReadOptions, Volume, read_bytes, sniff};

/// Limits small enough that an honest reader stays below 256 MiB.
pub fn options() -> ReadOptions {
    let limits = Limits {
        max_bytes: 8 << 20,
        max_voxels: 1 << 20,
        max_frames: 256,
        max_parts: 256,
        max_seconds: 2,
        ratio_free_bytes: 1 << 20,
        ..Limits::default()
    };
    ReadOptions {
        limits,
        n_frames: None,
    }
}

/// Reads `bytes` if they are of `format`.
pub fn read_as(format: Format, bytes: &[u8]) {
    if sniff(&bytes[..bytes.len().min(4096)]) == Some(format)
        && let Ok(volumes) = read_bytes(bytes, &options())
    {
        volumes.iter().for_each(check);
    }
}

/// What holds for every Volume that a reader returns.
pub fn check(volume: &Volume) {
    let shape = volume.shape();
    let n_values: usize = shape.iter().product();
    assert!(n_values > 0 && matches!(shape[0], 1 | 3), "{shape:?}");
    assert_eq!(volume.values().len(), n_values);
    assert!(n_values as u64 <= options().limits.max_voxels, "{shape:?}");
    for spacing in volume.spacing.iter().flatten() {
        assert!(spacing.is_finite() && *spacing > 0.0, "{:?}", volume.spacing);
    }
    if let Some(affine) = volume.affine {
        assert!(affine.is_usable(), "{affine:?}");
    }
}
