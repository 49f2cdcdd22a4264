//! Compares raster files of some 300 variants, written by `tools/oracles/make_raster.py`, with what
//! Pillow, tifffile and numpy make of them. Needs Python with Pillow (and tifffile and imagecodecs
//! for TIFF); `M3RET_PYTHON` names the interpreter, otherwise `python3` is tried.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails and speaks this way"
)]

use std::path::Path;
use std::process::Command;

use m3ret_imaging::{Code, ReadOptions, Volume, read_file};
use serde_json::Value;

/// Reasons that depend on the file; others are not this test's business.
const CHECKED: [Code; 4] = [
    Code::AlphaDropped,
    Code::LossyCompression,
    Code::FramesSampled,
    Code::StackAxisUnknown,
];

#[test]
fn raster_files_equal_an_independent_decoder() {
    let folder = tempfile::tempdir().unwrap();
    let Some(cases) = make_cases(folder.path()) else {
        return;
    };
    let mut faults = Vec::new();
    for case in &cases {
        let name = case["file"].as_str().unwrap();
        if let Err(fault) = check_case(folder.path(), case) {
            faults.push(format!("{name}: {fault}"));
        }
    }
    assert!(
        faults.is_empty(),
        "{} of {}:\n{}",
        faults.len(),
        cases.len(),
        faults.join("\n")
    );
    println!("{} raster files agree with the oracle", cases.len());
}

/// Runs the generator; `None` with a printed line where Python or its packages are absent.
fn make_cases(folder: &Path) -> Option<Vec<Value>> {
    #[allow(
        clippy::disallowed_methods,
        reason = "a test may be told which Python to use"
    )]
    let python = std::env::var_os("M3RET_PYTHON").unwrap_or_else(|| "python3".into());
    let available = Command::new(&python)
        .args(["-c", "import numpy, PIL"])
        .output();
    if !available.is_ok_and(|output| output.status.success()) {
        println!("skipped: no Python with numpy and Pillow (set M3RET_PYTHON)");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/oracles/make_raster.py");
    let output = Command::new(&python)
        .arg(script)
        .arg(folder)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    println!("{}", String::from_utf8_lossy(&output.stdout).trim_end());
    let text = std::fs::read_to_string(folder.join("cases.json")).unwrap();
    Some(serde_json::from_str(&text).unwrap())
}

fn check_case(folder: &Path, case: &Value) -> Result<(), String> {
    let path = folder.join(case["file"].as_str().unwrap());
    let volumes = read_file(&path, &ReadOptions::default()).map_err(|error| error.to_string())?;
    let expected = case["volumes"].as_array().unwrap();
    if volumes.len() != expected.len() {
        return Err(format!(
            "{} volumes, {} expected",
            volumes.len(),
            expected.len()
        ));
    }
    for (volume, expected) in volumes.iter().zip(expected) {
        let (values, shape) = read_npy(&folder.join(expected["npy"].as_str().unwrap()));
        check_values(volume, &values, shape, case["tolerance"].as_f64().unwrap())?;
        check_fields(volume, expected)?;
    }
    Ok(())
}

fn check_values(
    volume: &Volume,
    values: &[f32],
    shape: [usize; 4],
    tolerance: f64,
) -> Result<(), String> {
    if volume.shape() != shape {
        return Err(format!("shape {:?}, {shape:?} expected", volume.shape()));
    }
    let pairs = || volume.values().iter().zip(values);
    let n_unequal = pairs().filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    if tolerance == 0.0 && n_unequal > 0 {
        return Err(format!("{n_unequal} values are not bit-equal"));
    }
    let worst = pairs()
        .map(|(a, b)| f64::from((a - b).abs()))
        .fold(0.0, f64::max);
    if worst > tolerance {
        return Err(format!("off by {worst}, {tolerance} allowed"));
    }
    Ok(())
}

fn check_fields(volume: &Volume, expected: &Value) -> Result<(), String> {
    let found = serde_json::json!({
        "kind": volume.kind,
        "full_scale": volume.full_scale,
        "inverted": volume.inverted,
        "part": volume.part,
    });
    for (key, default) in [
        ("kind", Value::Null),
        ("full_scale", Value::Null),
        ("inverted", false.into()),
        ("part", Value::Null),
    ] {
        let wanted = expected.get(key).cloned().unwrap_or(default);
        let same = found[key] == wanted
            || found[key]
                .as_f64()
                .zip(wanted.as_f64())
                .is_some_and(|(a, b)| close(a, b));
        if !same {
            return Err(format!("{key} is {}, {wanted} expected", found[key]));
        }
    }
    for (axis, spacing) in volume.spacing.iter().enumerate() {
        let wanted = expected["spacing"].get(axis).and_then(Value::as_f64);
        let same = match (spacing, wanted) {
            (Some(a), Some(b)) => close(*a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        if !same {
            return Err(format!(
                "spacing {:?}, {} expected",
                volume.spacing, expected["spacing"]
            ));
        }
    }
    for code in CHECKED {
        let is_noted = volume.reasons.iter().any(|reason| reason.code == code);
        let wanted = expected["codes"]
            .as_array()
            .is_some_and(|codes| codes.contains(&code.as_str().into()));
        if is_noted != wanted {
            return Err(format!("{code} noted: {is_noted}, expected: {wanted}"));
        }
    }
    Ok(())
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-6 * a.abs().max(b.abs())
}

/// Reads what the generator writes: version 1.0, little-endian f4, C order, four axes.
fn read_npy(path: &Path) -> (Vec<f32>, [usize; 4]) {
    let bytes = std::fs::read(path).unwrap();
    let n_header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..10 + n_header]).unwrap();
    assert!(
        header.contains("'<f4'") && header.contains("'fortran_order': False"),
        "{header}"
    );
    let sides = header.split(['(', ')']).nth(1).unwrap();
    let sides: Vec<usize> = sides
        .split(',')
        .filter_map(|side| side.trim().parse().ok())
        .collect();
    let (values, _) = bytes[10 + n_header..].as_chunks::<4>();
    (
        values.iter().map(|raw| f32::from_le_bytes(*raw)).collect(),
        sides.try_into().unwrap(),
    )
}
