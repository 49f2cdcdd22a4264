//! What is evaluated side by side: models and files of vectors, by name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::ensure;

use super::COMPARISON;
use super::options::{EvaluateOptions, NamedModel};
use crate::model_name::{DEFAULT, PIXELS};

/// Where the vectors of one evaluation come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    Model(String),
    File(PathBuf),
}

/// Something that is evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contender {
    pub(super) name: String,
    pub(super) source: Source,
}

impl Contender {
    fn of_model(model: &NamedModel) -> Self {
        Self {
            name: model.name.clone(),
            source: Source::Model(model.place.clone()),
        }
    }

    fn built_in(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            source: Source::Model(name.to_owned()),
        }
    }

    pub(super) fn is_pixels(&self) -> bool {
        self.name == PIXELS
    }
}

/// Lists what is evaluated, in the order in which it was named.
///
/// If there are several, `pixels` is added as the first unless it is named, provided the images exist.
pub(super) fn contenders(
    options: &EvaluateOptions,
    has_images: bool,
) -> anyhow::Result<Vec<Contender>> {
    let mut all: Vec<Contender> = options.models.iter().map(Contender::of_model).collect();
    all.extend(options.embeddings.iter().map(|vectors| Contender {
        name: vectors.name.clone(),
        source: Source::File(vectors.path.clone()),
    }));
    if all.is_empty() {
        all.push(Contender::built_in(DEFAULT));
    }
    let pixels = Contender::built_in(PIXELS);
    ensure!(
        all.iter()
            .all(|contender| !contender.is_pixels() || *contender == pixels),
        "{PIXELS} is the name of the built-in model; give the vectors another one: NAME=F"
    );
    let has_pixels = all.iter().any(Contender::is_pixels);
    if all.len() > 1 && has_images && !has_pixels {
        all.insert(0, pixels);
    }
    let names = all.iter().map(|contender| folder_name(&contender.name));
    let names: BTreeSet<String> = names.collect();
    ensure!(
        names.len() == all.len(),
        "two models have the same name; name them with NAME=MODEL or NAME=F"
    );
    ensure!(
        !names
            .iter()
            .any(|name| name.is_empty() || name.starts_with(COMPARISON)),
        "a model has a name that is no name of a folder; name it with NAME=MODEL or NAME=F"
    );
    Ok(all)
}

/// Turns a model's name, which may be a path, into the name of a folder.
pub(super) fn folder_name(name: &str) -> String {
    let name = name.trim_end_matches('/');
    let last = Path::new(name)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name: String = last
        .chars()
        .map(|c| if is_plain(c) { c } else { '-' })
        .collect();
    name.trim_start_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_become_names_of_folders() {
        for (name, wanted) in [
            ("random:tiny", "random-tiny"),
            ("../models/dino v2/", "dino-v2"),
            ("pixels", "pixels"),
            ("../..", ""),
        ] {
            assert_eq!(folder_name(name), wanted, "{name}");
        }
    }
}
