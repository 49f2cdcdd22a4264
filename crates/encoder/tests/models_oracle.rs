//! Model folders as their libraries save them, against what the libraries compute:
//! `tools/oracles/make_models.py`. Skipped, with a line, where Python lacks what it needs.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "used by tests alone"
)]

use std::path::Path;
use std::process::Command;

use m3ret_encoder::{Model, Precision, Prepared, RunOptions};
use m3ret_imaging::{Input, Kind, Volume};

#[derive(serde::Deserialize)]
struct Case {
    kind: String,
    model: String,
    name: String,
    input: Array,
    wanted: Array,
    tolerance: f32,
}

#[derive(serde::Deserialize)]
struct Array {
    file: String,
    shape: Vec<usize>,
}

impl Array {
    fn read(&self, folder: &Path) -> Vec<f32> {
        let bytes = std::fs::read(folder.join(&self.file)).unwrap();
        let floats = bytes.as_chunks().0.iter();
        floats.map(|&bytes| f32::from_le_bytes(bytes)).collect()
    }
}

/// Runs the script; `None`, with a printed line, where Python lacks what it needs.
fn generate(arguments: &[&str]) -> Option<tempfile::TempDir> {
    #[allow(
        clippy::disallowed_methods,
        reason = "a test may be told which Python to use"
    )]
    let python = std::env::var("M3RET_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tools/oracles/make_models.py"
    );
    let folder = tempfile::tempdir().unwrap();
    let ran = Command::new(python)
        .args(["-B", "-W", "ignore", script])
        .arg(folder.path())
        .args(arguments)
        .output();
    match ran {
        Ok(output) if output.status.success() => Some(folder),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(text.contains("ModuleNotFoundError"), "{text}");
            println!("skipped: make_models.py needs a Python package that is not installed");
            None
        }
        Err(_) => {
            println!("skipped: make_models.py needs python3");
            None
        }
    }
}

fn check(folder: &Path) -> usize {
    let text = std::fs::read(folder.join("cases.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&text).unwrap();
    for case in &cases {
        let options = RunOptions {
            precision: Some(Precision::F32),
            n_threads: None,
        };
        let model = Model::open(&folder.join(&case.model), &options)
            .unwrap_or_else(|error| panic!("{}: {error}", case.name));
        match &*case.kind {
            "embed" => check_embed(&model, case, folder),
            _ => check_prepare(&model, case, folder),
        }
    }
    cases.len()
}

fn check_embed(model: &Model, case: &Case, folder: &Path) {
    let &[n, channels, depth, height, width] = &case.input.shape[..] else {
        panic!("{}: shape", case.name);
    };
    let values = case.input.read(folder);
    let objects: Vec<_> = values
        .chunks_exact(values.len() / n)
        .map(|values| {
            let shape = [channels, depth, height, width];
            Prepared::new(vec![Input::new(values.to_vec(), shape).unwrap()])
        })
        .collect();
    let found = model.embed(&objects.iter().collect::<Vec<_>>()).unwrap();
    compare(&found.concat(), case, folder);
}

fn check_prepare(model: &Model, case: &Case, folder: &Path) {
    let &[channels, depth, height, width] = &case.input.shape[..] else {
        panic!("{}: shape", case.name);
    };
    let shape = [channels, depth, height, width];
    let mut volume = Volume::new(case.input.read(folder), shape, Kind::Image).unwrap();
    volume.full_scale = Some(255.0);
    let prepared = model.prepare(&volume).unwrap();
    let input = &prepared.inputs()[0];
    assert_eq!(input.shape()[..], case.wanted.shape[..], "{}", case.name);
    compare(input.values(), case, folder);
}

/// Compares relative to the largest value wanted, which is near 1 in all cases.
fn compare(found: &[f32], case: &Case, folder: &Path) {
    let wanted = case.wanted.read(folder);
    assert_eq!(found.len(), wanted.len(), "{}: number of values", case.name);
    let largest = wanted
        .iter()
        .fold(0.0, |most: f32, value| most.max(value.abs()));
    let worst = found
        .iter()
        .zip(&wanted)
        .map(|(found, wanted)| (found - wanted).abs())
        .fold(0.0, f32::max);
    let allowed = match &*case.kind {
        "embed" => case.tolerance * largest,
        _ => case.tolerance,
    };
    println!("{}: {worst} of {allowed}", case.name);
    assert!(worst <= allowed, "{}: {worst} > {allowed}", case.name);
}

#[test]
fn folders_load_and_prepare_as_their_libraries_do() {
    if let Some(folder) = generate(&[]) {
        assert!(check(folder.path()) > 30);
    }
}

#[test]
#[ignore = "writes 1 GB; run with --run-ignored all and M3RET_PYTHON set to a Python with torch and transformers"]
fn networks_of_real_size_agree_with_their_libraries() {
    if let Some(folder) = generate(&["--full"]) {
        assert!(check(folder.path()) > 30);
    }
}
