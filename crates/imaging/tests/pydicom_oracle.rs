//! Every file that pydicom ships, read by pydicom and by us. Runs where Python has pydicom 3 with
//! pylibjpeg (see tools/oracles/requirements.txt); prints a line and passes where it has not.

#![allow(clippy::unwrap_used, reason = "used by tests alone")]

use std::path::Path;
use std::process::Command;

use m3ret_imaging::{ReadOptions, read_file};
use serde::Deserialize;

#[derive(Deserialize)]
struct Row {
    path: String,
    name: String,
    shape: Option<[usize; 4]>,
    values: Option<String>,
    tolerance: Option<f32>,
    error: Option<String>,
}

/// Files that pydicom cannot decode: we give a clear error, or values that other means confirm.
const BEYOND_PYDICOM: &[(&str, Outcome)] = &[
    // No file meta, so pydicom does not know the transfer syntax; ours is told by the bytes.
    ("OT-PAL-8-face.dcm", Outcome::Reads),
    // Its bytes decode; `a_12_bit_jpeg_...` compares them with the lossless original.
    ("JPEG-lossy.dcm", Outcome::Reads),
    // The delimiter was written into the codestream's header: no decoder can know the sides.
    (
        "JPEG2000-embedded-sequence-delimiter.dcm",
        Outcome::Refused("malformed"),
    ),
    ("MR_truncated.dcm", Outcome::Refused("truncated")),
    ("badVR.dcm", Outcome::Refused("malformed")),
    ("meta_missing_tsyntax.dcm", Outcome::Refused("malformed")),
    ("nested_priv_SQ.dcm", Outcome::Refused("malformed")),
];

/// pylibjpeg interpolates chroma with weights of 3/16 where the pixel centres ask for 1/4, in every
/// eighth column: there, at most 5 pixels of a frame are 4 levels off instead of 3. (libjpeg-turbo
/// is 5 levels off pylibjpeg in the same places.)
const PYLIBJPEG_CHROMA: Exception = Exception {
    name: "color3d_jpeg_baseline.dcm",
    n_per_frame: 5,
    most: 4.0,
};

struct Exception {
    name: &'static str,
    n_per_frame: usize,
    most: f32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    Reads,
    Refused(&'static str),
}

fn python() -> String {
    #[allow(
        clippy::disallowed_methods,
        reason = "tests choose their Python by the environment"
    )]
    std::env::var("M3RET_PYTHON").unwrap_or_else(|_| "python3".into())
}

fn make(out: &Path) -> Option<Vec<Row>> {
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tools/oracles/make_pydicom.py"
    );
    let ran = Command::new(python()).arg(script).arg(out).output().ok()?;
    let index = std::fs::read(out.join("index.json")).ok()?;
    ran.status
        .success()
        .then(|| serde_json::from_slice(&index).unwrap())
}

fn floats(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|raw| f32::from_le_bytes(*raw))
        .collect()
}

/// Returns what is wrong with our reading of one file, or nothing.
fn check(row: &Row, out: &Path) -> Result<(), String> {
    let read = read_file(Path::new(&row.path), &ReadOptions::default());
    let Some(values) = &row.values else {
        let outcome = BEYOND_PYDICOM
            .iter()
            .find(|(name, _)| *name == row.name)
            .map(|(_, o)| *o);
        let got = match &read {
            Ok(_) => "read".to_owned(),
            Err(e) => format!("{}: {e}", e.code()),
        };
        return match (outcome, &read) {
            (Some(Outcome::Reads), Ok(_)) => Ok(()),
            (Some(Outcome::Refused(code)), Err(e)) if e.code().as_str() == code => Ok(()),
            _ => Err(format!(
                "pydicom fails ({:?}), wanted {outcome:?}, got {got}",
                row.error
            )),
        };
    };
    let volumes = read.map_err(|e| e.to_string())?;
    let [volume] = volumes.as_slice() else {
        return Err(format!("{} volumes", volumes.len()));
    };
    if Some(volume.shape()) != row.shape {
        return Err(format!(
            "shape {:?}, wanted {:?}",
            volume.shape(),
            row.shape
        ));
    }
    let expected = floats(&out.join(values));
    let differences: Vec<f32> = volume
        .values()
        .iter()
        .zip(&expected)
        .map(|(a, b)| (a - b).abs())
        .collect();
    let tolerance = row.tolerance.unwrap_or(0.0);
    let worst = differences.iter().fold(
        0.0_f32,
        |m, d| if d.is_nan() { f32::NAN } else { m.max(*d) },
    );
    let excepted = row.name == PYLIBJPEG_CHROMA.name
        && worst <= PYLIBJPEG_CHROMA.most
        && n_above(&differences, tolerance, volume.shape()) <= PYLIBJPEG_CHROMA.n_per_frame;
    if worst <= tolerance || excepted {
        Ok(())
    } else {
        let n = n_above(&differences, tolerance, volume.shape());
        Err(format!(
            "differs by {worst}, allowed {tolerance}; in {n} pixels of a frame"
        ))
    }
}

/// The most pixels of any frame that differ by more than `tolerance` in any channel.
fn n_above(differences: &[f32], tolerance: f32, [_, depth, height, width]: [usize; 4]) -> usize {
    let n_pixels = height * width;
    let is_above = |frame: usize, pixel: usize| {
        let channels = differences[frame * n_pixels + pixel..].iter();
        channels.step_by(depth * n_pixels).any(|d| *d > tolerance)
    };
    let count = |frame| (0..n_pixels).filter(|&p| is_above(frame, p)).count();
    (0..depth).map(count).max().unwrap_or(0)
}

#[test]
fn every_file_of_pydicom_reads_as_pydicom_reads_it() {
    let out = tempfile::tempdir().unwrap();
    let Some(rows) = make(out.path()) else {
        println!("skipped: {} has no pydicom", python());
        return;
    };
    let wrong: Vec<String> = rows
        .iter()
        .filter_map(|row| {
            check(row, out.path())
                .err()
                .map(|e| format!("{}: {e}", row.name))
        })
        .collect();
    let n_compared = rows.iter().filter(|row| row.values.is_some()).count();
    println!("{n_compared} of {} files compared with pydicom", rows.len());
    assert!(
        wrong.is_empty(),
        "{} files are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(
        n_compared > 90,
        "pydicom decoded only {n_compared} files: is pylibjpeg installed?"
    );
}
