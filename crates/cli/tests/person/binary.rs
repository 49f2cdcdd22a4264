//! The binary as a person would run it; shared by the tests that do.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Returns the command `m3ret WORDS`, to be run in a folder.
pub(crate) fn m3ret(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_m3ret"));
    command.current_dir(folder).args(words).env("NO_COLOR", "1");
    // The default model, wherever the program was built.
    let weights = concat!(env!("CARGO_MANIFEST_DIR"), "/../../weights");
    command.env("M3RET_MODELS", weights);
    command
}

/// Runs it to its end: exit status, standard output, standard error.
pub(crate) fn run(folder: &Path, words: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = m3ret(folder, words).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[allow(dead_code, reason = "not every test that shares this file reads JSON")]
pub(crate) fn json_lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[allow(
    dead_code,
    reason = "not every test that shares this file writes arrays"
)]
/// A numpy file of f32 with one value a voxel.
pub(crate) fn npy(shape: &[usize], values: &[f32]) -> Vec<u8> {
    let sides: Vec<String> = shape.iter().map(usize::to_string).collect();
    let sides = sides.join(", ");
    let dict = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({sides}), }}");
    let header = format!("{dict:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

/// Lists what a folder holds, in order.
#[allow(
    dead_code,
    reason = "not every test that shares this file lists folders"
)]
pub(crate) fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
