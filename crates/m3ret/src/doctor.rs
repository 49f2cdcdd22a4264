//! What this installation can do: versions, processor, models, programs and folders.

use std::ffi::OsStr;

use m3ret_encoder::{Model, RunOptions};
use m3ret_manifest::text_of;
use serde::Serialize;

use crate::embed::precision_name;
use crate::galleries::cache_place_of;
use crate::model_name::{self, DEFAULT};
use crate::options::{ModelChoice, n_cores};

/// What was found of this installation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diagnosis {
    /// Version of m3ret.
    pub version: &'static str,
    /// Operating system and processor family, such as `linux x86_64`.
    pub platform: String,
    /// Features of the processor that m3ret's kernels use, of those that it has.
    pub cpu_features: Vec<&'static str>,
    /// Number of threads that this machine runs at the same time.
    pub n_cores: usize,
    /// Precision that models run in if none is chosen: `f32` or `bf16`.
    pub precision: &'static str,
    /// Folder of the default model; `None` if it is part of the program, or was not found.
    pub weights_folder: Option<String>,
    /// Fingerprint of the default model; `None` if it was not found.
    pub weights: Option<String>,
    /// Path of ffmpeg, which reads videos; `None` if it was not found.
    pub ffmpeg: Option<String>,
    /// Folder of the galleries of folders and manifests; `None` if the user has no folder.
    pub cache: Option<String>,
    /// Whether pretraining is part of the program.
    pub has_training: bool,
}

/// Looks at this installation. Reads the default model; writes nothing. `search_path` holds the folders in which programs
/// are searched, as the environment variable `PATH` does.
///
/// # Errors
/// `Model` if no network can be made on this machine.
pub fn doctor(search_path: &OsStr) -> crate::Result<Diagnosis> {
    let choice = ModelChoice::named(DEFAULT);
    let weights = model_name::open_named(DEFAULT, &choice.run).ok();
    let random = Model::random("tiny", 0, &RunOptions::default())?;
    let programs = std::env::split_paths(search_path).map(|folder| folder.join("ffmpeg"));
    let ffmpeg = programs.into_iter().find(|program| program.is_file());
    Ok(Diagnosis {
        version: env!("CARGO_PKG_VERSION"),
        platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        cpu_features: cpu_features(),
        n_cores: n_cores(),
        precision: precision_name(random.precision()),
        weights_folder: model_name::folder_of(&choice).map(|folder| text_of(&folder)),
        weights: weights.map(|model| model.fingerprint().to_owned()),
        ffmpeg: ffmpeg.map(|path| text_of(&path)),
        cache: cache_place_of(None).ok().map(|folder| text_of(&folder)),
        has_training: cfg!(feature = "training"),
    })
}

#[cfg(target_arch = "x86_64")]
fn cpu_features() -> Vec<&'static str> {
    let all = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ];
    let found = all.into_iter().filter(|(_, has)| *has);
    found.map(|(name, _)| name).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_features() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_installation_has_a_precision_and_cores() {
        let found = doctor(OsStr::new("")).unwrap();
        assert_eq!(found.ffmpeg, None);
        assert!(["f32", "bf16"].contains(&found.precision));
        assert!(found.n_cores > 0);
    }
}
