//! What the tests of several crates share: reference cases made by other programs, and comparison within a tolerance.
//!
//! The folder of cases is `M3RET_GOLDEN` where it is set, else `testdata/golden`; testdata/README.md says what
//! each case holds. Every function panics where a file is not what a test needs. Only tests name this crate.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test may panic, and the crate's own text says so once"
)]

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Returns the folder of all cases.
#[must_use]
pub fn folder() -> PathBuf {
    #[allow(
        clippy::disallowed_methods,
        reason = "a test may be told where other cases of the same layout lie"
    )]
    let chosen = std::env::var_os("M3RET_GOLDEN");
    chosen.map_or_else(own_folder, PathBuf::from)
}

/// Returns the folder of a case: that of this repository where `M3RET_GOLDEN` names an older set without it.
#[must_use]
pub fn folder_with(name: &str) -> PathBuf {
    let chosen = folder();
    if chosen.join(format!("{name}.json")).is_file() {
        chosen
    } else {
        own_folder()
    }
}

fn own_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden")
}

/// Returns what the file `name`.json of a folder says.
#[must_use]
pub fn sizes<T: DeserializeOwned>(folder: &Path, name: &str) -> T {
    let path = folder.join(format!("{name}.json"));
    serde_json::from_slice(&read(&path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Returns the folder to open of a public model among the cases: that of the case or, where the case states what the
/// model's config cannot, a copy of it with `m3ret.json`, which lives as long as what is returned beside it.
#[must_use]
pub fn model_folder(name: &str) -> (PathBuf, Option<tempfile::TempDir>) {
    let folder = folder().join("c08_external").join(name);
    let io: Value = sizes(&folder, "io");
    let Some(trunk) = io.get("trunk_config") else {
        return (folder, None);
    };
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    let text = json!({ "trunk_config": trunk }).to_string();
    std::fs::write(copy.path().join("m3ret.json"), text).unwrap();
    (copy.path().to_owned(), Some(copy))
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The tensors of one case.
#[derive(Debug)]
pub struct Case {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Case {
    /// Reads the file `name`.safetensors of a folder.
    #[must_use]
    pub fn open(folder: &Path, name: &str) -> Self {
        let path = folder.join(format!("{name}.safetensors"));
        let bytes = read(&path);
        Self { path, bytes }
    }

    /// Returns where the file lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the file's tensors, of any type.
    #[must_use]
    pub fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap()
    }

    /// Returns the shape of a tensor.
    #[must_use]
    pub fn shape(&self, name: &str) -> Vec<usize> {
        self.tensors().tensor(name).unwrap().shape().to_vec()
    }

    /// Returns a whole tensor of f32.
    #[must_use]
    pub fn floats(&self, name: &str) -> Vec<f32> {
        self.numbers(name, safetensors::Dtype::F32, f32::from_le_bytes)
    }

    /// Returns a whole tensor of f64.
    #[must_use]
    pub fn doubles(&self, name: &str) -> Vec<f64> {
        self.numbers(name, safetensors::Dtype::F64, f64::from_le_bytes)
    }

    /// Returns a whole tensor of i64.
    #[must_use]
    pub fn integers(&self, name: &str) -> Vec<i64> {
        self.numbers(name, safetensors::Dtype::I64, i64::from_le_bytes)
    }

    fn numbers<const N: usize, T>(
        &self,
        name: &str,
        dtype: safetensors::Dtype,
        value: fn([u8; N]) -> T,
    ) -> Vec<T> {
        let tensors = self.tensors();
        let tensor = tensors
            .tensor(name)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(tensor.dtype(), dtype, "{name}");
        let values = tensor.data().as_chunks().0.iter();
        values.map(|&bytes| value(bytes)).collect()
    }
}

/// How far a value may lie from what is wanted: by `atol + rtol * size`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(from = "Stated")]
pub struct Tolerance {
    /// Whatever the size.
    pub atol: f64,
    /// Relative to the size.
    pub rtol: f64,
    /// The size is the largest absolute value of the whole tensor, not that of the wanted value.
    pub of_largest: bool,
}

impl Tolerance {
    /// Returns a tolerance relative to each wanted value.
    #[must_use]
    pub const fn new(atol: f64, rtol: f64) -> Self {
        Self {
            atol,
            rtol,
            of_largest: false,
        }
    }
}

/// A tolerance as cases state it.
#[derive(Deserialize)]
struct Stated {
    atol: f64,
    rtol: f64,
    relative_to: Option<String>,
}

impl From<Stated> for Tolerance {
    fn from(stated: Stated) -> Self {
        Self {
            atol: stated.atol,
            rtol: stated.rtol,
            of_largest: stated.relative_to.as_deref() == Some("tensor_max"),
        }
    }
}

/// Fails at the first value that is not close to what is wanted, or where their numbers differ; NaN is close to nothing.
pub fn close<T: Copy + Into<f64>>(found: &[T], wanted: &[T], tolerance: Tolerance, what: &str) {
    assert_eq!(found.len(), wanted.len(), "{what}: number of values");
    let sizes = wanted.iter().map(|&value| value.into().abs());
    let largest = sizes.fold(0.0_f64, f64::max);
    for (i, (&found, &wanted)) in found.iter().zip(wanted).enumerate() {
        let (found, wanted): (f64, f64) = (found.into(), wanted.into());
        let size = if tolerance.of_largest {
            largest
        } else {
            wanted.abs()
        };
        let allowed = tolerance.atol + tolerance.rtol * size;
        assert!(
            (found - wanted).abs() <= allowed,
            "{what}: value {i} is {found}, wanted {wanted} within {allowed}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_close(found: &[f32], wanted: &[f32], tolerance: &str) -> bool {
        let tolerance: Tolerance = serde_json::from_str(tolerance).unwrap();
        std::panic::catch_unwind(|| close(found, wanted, tolerance, "test")).is_ok()
    }

    #[test]
    fn each_value_has_its_own_size_unless_the_case_says_otherwise() {
        let relative = r#"{"atol": 0, "rtol": 0.1}"#;
        let of_largest = r#"{"atol": 0, "rtol": 0.1, "relative_to": "tensor_max"}"#;
        assert!(is_close(&[1.05, 10.5], &[1.0, 10.0], relative));
        assert!(!is_close(&[1.5, 10.0], &[1.0, 10.0], relative));
        assert!(is_close(&[1.5, 10.0], &[1.0, 10.0], of_largest));
        assert!(is_close(&[0.5], &[0.0], r#"{"atol": 0.5, "rtol": 0}"#));
        assert!(!is_close(&[1.0], &[1.0, 1.0], relative));
        assert!(!is_close(&[f32::NAN], &[1.0], relative));
    }
}
