//! Compares what the readers return with what a Python oracle wrote beside each file.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "used by tests alone"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use m3ret_imaging::{Kind, ReadOptions, Volume, read_path};

/// One file of `expected.json`.
#[derive(serde::Deserialize)]
struct File {
    file: String,
    volumes: Vec<Expected>,
}

/// One volume of a file.
#[derive(serde::Deserialize)]
struct Expected {
    npy: String,
    shape: [usize; 4],
    kind: String,
    part: Option<String>,
    affine: Option<[[f64; 4]; 3]>,
    spacing: [Option<f64>; 3],
    codes: Vec<String>,
}

/// Returns the folder of committed fixtures of a format.
pub(crate) fn fixtures(format: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../testdata")
        .join(format)
}

/// Runs `tools/oracles/SCRIPT`; `None`, with a printed line, where Python lacks what it needs.
#[allow(dead_code, reason = "not every test that shares this file makes files")]
pub(crate) fn generate(script: &str) -> Option<tempfile::TempDir> {
    let folder = tempfile::tempdir().unwrap();
    run(script, folder.path()).then_some(folder)
}

/// Runs `tools/oracles/SCRIPT FOLDER`; false, with a printed line, where Python lacks what it needs.
pub(crate) fn run(script: &str, folder: &Path) -> bool {
    #[allow(
        clippy::disallowed_methods,
        reason = "a test may be told which Python to use"
    )]
    let python = std::env::var("M3RET_PYTHON").unwrap_or_else(|_| "python3".into());
    let script_path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tools/oracles")
        .join(script);
    let ran = Command::new(python)
        .arg("-B")
        .arg(script_path)
        .arg(folder)
        .output();
    match ran {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(
                text.contains("ModuleNotFoundError"),
                "{script} failed: {text}"
            );
            println!("skipped: {script} needs a Python package that is not installed");
            false
        }
        Err(_) => {
            println!("skipped: {script} needs python3");
            false
        }
    }
}

/// Reads every file of a folder's `expected.json`, and returns their number.
pub(crate) fn check_folder(folder: &Path) -> usize {
    let text = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    let files: Vec<File> = serde_json::from_str(&text).unwrap();
    for file in &files {
        let volumes = read_path(&folder.join(&file.file), &ReadOptions::default())
            .unwrap_or_else(|error| panic!("{}: {error}", file.file));
        assert_eq!(volumes.len(), file.volumes.len(), "{}: parts", file.file);
        for (volume, expected) in volumes.iter().zip(&file.volumes) {
            check_volume(volume, expected, folder, &file.file);
        }
    }
    files.len()
}

fn check_volume(volume: &Volume, expected: &Expected, folder: &Path, file: &str) {
    let kind = match volume.kind {
        Kind::Image => "image",
        Kind::Video => "video",
        Kind::Volume => "volume",
    };
    assert_eq!(kind, expected.kind, "{file}: kind");
    assert_eq!(volume.shape(), expected.shape, "{file}: shape");
    assert_eq!(volume.part, expected.part, "{file}: part");
    let npy = std::fs::read(folder.join(&expected.npy)).unwrap();
    let n_header = 10 + usize::from(u16::from_le_bytes([npy[8], npy[9]]));
    let (wanted, _) = npy[n_header..].as_chunks::<4>();
    assert_eq!(
        volume.values().len(),
        wanted.len(),
        "{file}: number of values"
    );
    for (i, (found, wanted)) in volume.values().iter().zip(wanted).enumerate() {
        let wanted = f32::from_le_bytes(*wanted);
        // Bit equality, apart from the payload of NaN, which no reader defines.
        let is_equal = found.to_bits() == wanted.to_bits() || found.is_nan() && wanted.is_nan();
        assert!(is_equal, "{file}: value {i} is {found}, wanted {wanted}");
    }
    let rows = volume.affine.map(|affine| affine.rows);
    assert_eq!(rows.is_some(), expected.affine.is_some(), "{file}: affine");
    for (found, wanted) in rows
        .iter()
        .flatten()
        .flatten()
        .zip(expected.affine.iter().flatten().flatten())
    {
        assert!(
            is_close(*found, *wanted),
            "{file}: affine {rows:?}, wanted {:?}",
            expected.affine
        );
    }
    for (found, wanted) in volume.spacing.iter().zip(expected.spacing) {
        let is_equal = match (found, wanted) {
            (Some(found), Some(wanted)) => is_close(*found, wanted),
            (found, wanted) => found.is_none() && wanted.is_none(),
        };
        assert!(
            is_equal,
            "{file}: spacing {:?}, wanted {:?}",
            volume.spacing, expected.spacing
        );
    }
    for code in &expected.codes {
        let is_noted = volume
            .reasons
            .iter()
            .any(|reason| reason.code.as_str() == code);
        assert!(is_noted, "{file}: no {code} among {:?}", volume.reasons);
    }
}

/// 1e-9: both sides compute in f64, in different orders.
fn is_close(found: f64, wanted: f64) -> bool {
    (found - wanted).abs() <= 1e-9 * wanted.abs().max(1.0)
}
