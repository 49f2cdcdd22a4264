//! Model folders and files of tensors, as a run leaves them on disk.

use std::borrow::Cow;
use std::path::Path;

use m3ret_encoder::ModelConfig;
use safetensors::{Dtype, SafeTensorError, View};

use crate::error::{Error, Result};
use crate::files::{replace, write_whole};
use crate::parameters::{Weight, Weights};

/// Writes a model folder that `m3ret_encoder::Model::open` takes: `config.json`, then
/// `model.safetensors`. A folder without the latter holds no model yet; in one that holds a model
/// already, each file is replaced as a whole, and others stay.
///
/// # Errors
/// `Mismatch` if the config makes no sense; `Io` if a file cannot be written.
pub(crate) fn save_model(folder: &Path, config: &ModelConfig, weights: &Weights) -> Result<()> {
    config.validate()?;
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let path = folder.join("config.json");
    let text = serde_json::to_string_pretty(config).map_err(|error| Error::Io {
        path: path.clone(),
        source: error.into(),
    })?;
    write_whole(&path, format!("{text}\n").as_bytes())?;
    write_tensors(&folder.join("model.safetensors"), weights)
}

/// Writes tensors as one safetensors file of f32.
///
/// # Errors
/// `Io` if it cannot be written.
pub(crate) fn write_tensors(path: &Path, weights: &Weights) -> Result<()> {
    replace(path, |temporary| {
        safetensors::serialize_to_file(weights, None, temporary).map_err(|error| match error {
            SafeTensorError::IoError(error) => error,
            other => std::io::Error::other(other),
        })
    })
}

/// Bytes are made one tensor at a time.
impl View for &Weight {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let bytes = self.values.iter().flat_map(|value| value.to_le_bytes());
        Cow::Owned(bytes.collect())
    }

    fn data_len(&self) -> usize {
        self.values.len() * size_of::<f32>()
    }
}

#[cfg(test)]
mod tests {
    use m3ret_encoder::VitConfig;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_model_folder_holds_whole_files_and_keeps_others() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("run/model");
        let config = ModelConfig::new(VitConfig::tiny());
        for values in [vec![1.0, -0.0], vec![f32::MIN_POSITIVE, 2.0]] {
            let shape = vec![2, 1];
            let weight = Weight { shape, values };
            let weights: Weights = [("cls_token".to_owned(), weight)].into();
            save_model(&folder, &config, &weights).unwrap();
            std::fs::write(folder.join("README.md"), "a card").unwrap();
            let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let saved = file.tensor("cls_token").unwrap();
            let wanted = &weights["cls_token"];
            assert_eq!(saved.shape(), wanted.shape);
            assert_eq!(saved.data(), wanted.data().as_ref());
        }
        let wanted = ["README.md", "config.json", "model.safetensors"];
        assert_eq!(names(&folder), wanted);
        let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
        assert_eq!(serde_json::from_str::<ModelConfig>(&text).unwrap(), config);
    }

    #[test]
    fn a_config_that_makes_no_sense_writes_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("model");
        let mut config = ModelConfig::new(VitConfig::tiny());
        config.vit.num_heads = 7;
        assert!(save_model(&folder, &config, &Weights::new()).is_err());
        assert!(!folder.exists());
    }
}
