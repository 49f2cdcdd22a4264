//! What all fuzz targets check: no panic, no reservation above small limits (libFuzzer's
//! `-rss_limit_mb` and `-malloc_limit_mb` see to that), and sound Volumes.

pub mod dicom;
pub mod gallery;
pub mod input;
pub mod jpeg2000;
pub mod jpeg_ls;
pub mod patch;
pub mod random;
pub mod segments;

use m3ret_imaging::{Format, Limits, ReadOptions, Volume, read_bytes, sniff};

use random::Random;

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

/// Decoders of others whose panics the readers turn into refusals.
const GUARDED: [&str; 10] = [
    "hayro-jpeg2000",
    "dicom-toolkit-jpeg2000",
    "jpeg-decoder",
    "jxl-",
    "image-",
    "image-webp",
    "parquet-",
    "png-",
    "fax-",
    "weezl",
];

/// Lets panics in decoders of others pass: the readers catch them. One that nobody catches still
/// ends the target, as every panic of our own does at once.
pub fn let_decoders_panic() {
    let abort = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map_or("", |location| location.file());
        let is_guarded = |name: &&str| place.contains("/registry/src/") && place.contains(&format!("/{name}"));
        if !GUARDED.iter().any(|name| is_guarded(&name)) {
            abort(panic);
        }
    }));
}

/// Changes a stream behind one byte of choices: as segments mostly, sometimes as any bytes.
pub fn mutate_stream(
    data: &mut [u8],
    [size, max_size]: [usize; 2],
    seed: u32,
    mutate: fn(&[u8], &mut Random) -> Option<Vec<u8>>,
) -> usize {
    let mut random = Random::new(seed);
    let changed = match random.below(8) {
        0 => None,
        _ => data.get(1..size).and_then(|stream| mutate(stream, &mut random)),
    };
    let Some(changed) = changed.filter(|changed| changed.len() < max_size) else {
        return libfuzzer_sys::fuzzer_mutate(data, size, max_size);
    };
    if random.once_in(8) {
        data[0] = random.byte();
    }
    data[1..=changed.len()].copy_from_slice(&changed);
    changed.len() + 1
}
