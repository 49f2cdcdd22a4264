//! Compares what is read with what `tools/oracles/make_dicom.py` expects.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "used by tests alone"
)]

use std::path::Path;
use std::process::Command;

use m3ret_imaging::archive::{find_objects, read_object};
use m3ret_imaging::{Kind, ReadOptions, Result, Volume, read_path};
use serde::Deserialize;

/// One file, or one folder of files.
#[derive(Deserialize)]
pub(crate) struct Row {
    name: String,
    path: String,
    is_archive: bool,
    /// What the reading machine must have, e.g. `video`.
    needs: Option<String>,
    objects: Vec<Object>,
    skipped: Vec<String>,
}

/// One object of a row: its Volumes, or the code with which it is refused.
#[derive(Deserialize)]
struct Object {
    volumes: Vec<Expected>,
    refused: Option<String>,
}

#[derive(Deserialize)]
struct Expected {
    values: String,
    shape: [usize; 4],
    tolerance: f32,
    kind: Option<String>,
    unit: Option<String>,
    inverted: Option<bool>,
    full_scale: Option<f32>,
    spacing: Option<[Option<f64>; 3]>,
    affine: Option<[[f64; 4]; 3]>,
    #[serde(default)]
    reasons: Vec<String>,
    /// True if no other reasons may be there.
    #[serde(default)]
    only_reasons: bool,
}

/// Runs the generator; `None`, with a printed line, where Python lacks what it needs.
pub(crate) fn generate(out: &Path) -> Option<Vec<Row>> {
    #[allow(
        clippy::disallowed_methods,
        reason = "a test may be told which Python to use"
    )]
    let python = std::env::var("M3RET_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tools/oracles/make_dicom.py"
    );
    let ran = Command::new(&python)
        .args(["-B", "-W", "ignore", script])
        .arg(out)
        .output();
    let Ok(ran) = ran else {
        println!("skipped: no {python}");
        return None;
    };
    println!("{}", String::from_utf8_lossy(&ran.stdout).trim());
    if !ran.status.success() {
        let text = String::from_utf8_lossy(&ran.stderr);
        assert!(
            text.contains("ModuleNotFoundError"),
            "make_dicom.py failed: {text}"
        );
        println!("skipped: make_dicom.py needs a Python package that is not installed");
        return None;
    }
    Some(rows(out))
}

/// Reads the list beside the files.
pub(crate) fn rows(folder: &Path) -> Vec<Row> {
    let index = std::fs::read(folder.join("index.json")).unwrap();
    serde_json::from_slice(&index).unwrap()
}

/// Reads every row that needs nothing but `has`, and returns how many there were.
pub(crate) fn check_rows(folder: &Path, rows: &[Row], has: Option<&str>) -> usize {
    let chosen: Vec<&Row> = rows
        .iter()
        .filter(|row| row.needs.as_deref() == has)
        .collect();
    let wrong: Vec<String> = chosen
        .iter()
        .filter_map(|row| {
            check_row(row, folder)
                .err()
                .map(|e| format!("{}: {e}", row.name))
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} cases are wrong:\n{}",
        wrong.len(),
        chosen.len(),
        wrong.join("\n")
    );
    chosen.len()
}

fn check_row(row: &Row, folder: &Path) -> std::result::Result<(), String> {
    let path = folder.join(&row.path);
    let options = ReadOptions::default();
    if !row.is_archive {
        return check_object(read_path(&path, &options), &row.objects[0], folder);
    }
    let (objects, skipped) = find_objects(&path, &options).map_err(|e| e.to_string())?;
    let mut codes: Vec<&str> = skipped.iter().map(|s| s.error.code().as_str()).collect();
    codes.sort_unstable();
    if codes != row.skipped {
        return Err(format!("skipped {codes:?}, wanted {:?}", row.skipped));
    }
    if objects.len() != row.objects.len() {
        let files: Vec<usize> = objects.iter().map(|o| o.files.len()).collect();
        let wanted = row.objects.len();
        return Err(format!("objects of {files:?} files, wanted {wanted}"));
    }
    // Objects come in the order of their paths, which the generator shuffles: each expected one
    // must be found, each found one is used once.
    let mut left: Vec<_> = objects.iter().collect();
    for expected in &row.objects {
        let mut whys = Vec::new();
        let hit = left.iter().position(|object| {
            let checked = check_object(read_object(object, &options), expected, folder);
            checked.map_err(|why| whys.push(why)).is_ok()
        });
        match hit {
            Some(index) => drop(left.remove(index)),
            None => return Err(format!("an object is not there; those found: {whys:?}")),
        }
    }
    Ok(())
}

fn check_object(
    read: Result<Vec<Volume>>,
    expected: &Object,
    folder: &Path,
) -> std::result::Result<(), String> {
    match (read, &expected.refused) {
        (Err(error), Some(code)) if error.code().as_str() == code => Ok(()),
        (Err(error), wanted) => Err(format!("{}: {error}; wanted {wanted:?}", error.code())),
        (Ok(_), Some(code)) => Err(format!("was read, wanted {code}")),
        (Ok(volumes), None) => {
            if volumes.len() != expected.volumes.len() {
                let (found, wanted) = (volumes.len(), expected.volumes.len());
                return Err(format!("{found} volumes, wanted {wanted}"));
            }
            let mut pairs = volumes.iter().zip(&expected.volumes);
            pairs.try_for_each(|(found, wanted)| check_volume(found, wanted, folder))
        }
    }
}

fn check_volume(
    found: &Volume,
    wanted: &Expected,
    folder: &Path,
) -> std::result::Result<(), String> {
    if found.shape() != wanted.shape {
        return Err(format!(
            "shape {:?}, wanted {:?}",
            found.shape(),
            wanted.shape
        ));
    }
    check_values(found.values(), wanted, folder)?;
    let kind = match found.kind {
        Kind::Image => "image",
        Kind::Video => "video",
        Kind::Volume => "volume",
    };
    same("kind", Some(kind), wanted.kind.as_deref())?;
    same("unit", found.unit, wanted.unit.as_deref())?;
    same("inverted", Some(found.inverted), wanted.inverted)?;
    let full_scale = found.full_scale.map(f32::to_bits);
    same(
        "full scale",
        full_scale,
        wanted.full_scale.map(f32::to_bits),
    )?;
    for (a, b) in found.spacing.iter().zip(wanted.spacing.iter().flatten()) {
        if a.is_some() != b.is_some() || a.zip(*b).is_some_and(|(a, b)| (a - b).abs() > 1e-4) {
            return Err(format!(
                "spacing {:?}, wanted {:?}",
                found.spacing, wanted.spacing
            ));
        }
    }
    let rows = found.affine.map(|affine| affine.rows).unwrap_or_default();
    let pairs = rows
        .iter()
        .flatten()
        .zip(wanted.affine.iter().flatten().flatten());
    if pairs.into_iter().any(|(a, b)| (a - b).abs() > 1e-4) {
        return Err(format!("affine {rows:?}, wanted {:?}", wanted.affine));
    }
    let codes: Vec<&str> = found.reasons.iter().map(|r| r.code.as_str()).collect();
    let missing = wanted
        .reasons
        .iter()
        .any(|code| !codes.contains(&code.as_str()));
    if missing || wanted.only_reasons && codes.len() != wanted.reasons.len() {
        return Err(format!("reasons {codes:?}, wanted {:?}", wanted.reasons));
    }
    Ok(())
}

/// A property that the row does not state is not checked.
fn same<T: PartialEq + Copy + std::fmt::Debug>(
    what: &str,
    found: Option<T>,
    wanted: Option<T>,
) -> std::result::Result<(), String> {
    if wanted.is_some() && found != wanted {
        return Err(format!("{what} {found:?}, wanted {wanted:?}"));
    }
    Ok(())
}

fn check_values(
    found: &[f32],
    wanted: &Expected,
    folder: &Path,
) -> std::result::Result<(), String> {
    let bytes = std::fs::read(folder.join(&wanted.values)).unwrap();
    let (raw, _) = bytes.as_chunks::<4>();
    if raw.len() != found.len() {
        return Err(format!("{} values, wanted {}", found.len(), raw.len()));
    }
    let is_close = |a: f32, b: f32| {
        let equal = a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
        equal || (a - b).abs() <= wanted.tolerance
    };
    let mut pairs = found
        .iter()
        .zip(raw)
        .map(|(a, b)| (*a, f32::from_le_bytes(*b)));
    let n_wrong = pairs.clone().filter(|&(a, b)| !is_close(a, b)).count();
    match pairs.position(|(a, b)| !is_close(a, b)) {
        None => Ok(()),
        Some(at) => Err(format!(
            "{n_wrong} of {} values differ; number {at} is {}, wanted {}",
            found.len(),
            found[at],
            f32::from_le_bytes(raw[at])
        )),
    }
}
