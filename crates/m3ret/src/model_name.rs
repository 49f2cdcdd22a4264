//! Finds the model that a name means.

use std::fmt::Write as _;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use anyhow::Context as _;
use m3ret_encoder::{Model, ModelBytes, RunOptions};

use crate::options::ModelChoice;
use crate::watch::Watch;

/// The model used if none is named.
pub const DEFAULT: &str = "m3ret-tiny";

/// The built-in model of 32 x 32 thumbnails, which finds copies and is the baseline of every evaluation.
pub const PIXELS: &str = "pixels";

/// The built-in model of gradients by orientation, which learns nothing: a baseline for trained networks.
pub(crate) const HOG: &str = "hog";

/// Number of folders above the program in which `weights` is searched: in a checkout, the program lies in
/// `target/release`.
const N_ABOVE: usize = 2;

/// The file of a model's folder that says how often first hits agreed on images that were kept apart from training.
const AGREEMENT: &str = "agreement.json";
/// Largest such file.
const MAX_AGREEMENT_BYTES: u64 = 1 << 20;

/// Files of which a model folder has at least one.
const CONFIGS: [&str; 2] = ["config.json", "open_clip_config.json"];

/// What a name means.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Named {
    Pixels,
    Hog,
    Random {
        preset: String,
        seed: u64,
    },
    Folder(PathBuf),
    /// Part of the program.
    BuiltIn(&'static BuiltIn),
}

/// A trained model that is part of the program.
#[derive(Debug, PartialEq, Eq)]
pub struct BuiltIn {
    /// Its files.
    pub bytes: ModelBytes,
    /// What `agreement.json` in its folder says; empty if there is none.
    pub agreement: &'static str,
}

static BUILT_IN: OnceLock<&'static [BuiltIn]> = OnceLock::new();

/// Makes models known that are part of the program. A folder of the same name comes first. Of several calls, the first
/// counts.
pub fn build_in(models: &'static [BuiltIn]) {
    let _ = BUILT_IN.set(models);
}

/// Returns the model of a name that is part of the program.
fn built_in(name: &str) -> Option<&'static BuiltIn> {
    let models = BUILT_IN.get().copied().unwrap_or_default();
    models.iter().find(|model| model.bytes.name == name)
}

/// Returns what a model says of its agreement (docs/search.md): one that is part of the program, or lies in a folder of
/// models under this plain name. The name may come from a stranger's gallery, so it is no path, and only a regular file is
/// read. `None` if it says nothing.
pub(crate) fn agreement_of(name: &str) -> Option<String> {
    if let Some(model) = built_in(name) {
        return Some(model.agreement.to_owned());
    }
    let mut parts = Path::new(name).components();
    let is_name = matches!(
        (parts.next(), parts.next()),
        (Some(Component::Normal(_)), None)
    );
    let models = Places::of_this_machine().models.filter(|_| is_name)?;
    let path = models.join(name).join(AGREEMENT);
    let status = std::fs::symlink_metadata(&path).ok()?;
    let is_small = status.is_file() && status.len() <= MAX_AGREEMENT_BYTES;
    is_small.then(|| std::fs::read_to_string(&path).ok())?
}

/// Folders in which models are searched, beside the name itself.
#[derive(Debug, Clone, Default)]
struct Places {
    /// `$M3RET_MODELS`
    models: Option<PathBuf>,
    /// The folder of the running program.
    program: Option<PathBuf>,
}

/// Opens the model of a choice, or the default model.
pub(crate) fn open(choice: &ModelChoice, progress: &dyn Watch) -> anyhow::Result<Model> {
    open_or(DEFAULT, choice, progress)
}

/// Opens the model of a choice, or the model `default` with a note that none was named.
pub(crate) fn open_or(
    default: &str,
    choice: &ModelChoice,
    progress: &dyn Watch,
) -> anyhow::Result<Model> {
    if let Some(name) = choice.name.as_deref() {
        return open_named(name, &choice.run);
    }
    let model = open_named(default, &choice.run)
        .with_context(|| {
            format!(
                "no --model given, and the default {default} cannot be opened; name another one, or set \
                 M3RET_MODELS to the folder that holds the folder {default} (weights/ of the sources)"
            )
        })?;
    progress.note(&taken_for_granted(default));
    Ok(model)
}

/// Returns the note that no model was named and `default` is used.
pub(crate) fn taken_for_granted(default: &str) -> String {
    let what = if default == PIXELS {
        "which finds copies and knows no medicine"
    } else {
        "for research use only"
    };
    format!("no --model given; using {default}, {what}")
}

/// Opens the model of a choice, or the default model with a note that none was named.
///
/// # Errors
/// `Model` or `Caller` if there is no such model, or its files cannot be read.
pub fn open_model(choice: &ModelChoice, watch: &dyn Watch) -> crate::Result<Model> {
    Ok(open(choice, watch)?)
}

/// Opens the model that a name means.
pub(crate) fn open_named(name: &str, options: &RunOptions) -> anyhow::Result<Model> {
    let named = find(name, &Places::of_this_machine())?;
    named.open(options).with_context(|| match &named {
        Named::Folder(folder) => format!("opening the model {name}, {}", folder.display()),
        _ => format!("opening the model {name}"),
    })
}

/// Returns the folder of the model of a choice; `None` for a built-in model, without a name, or if there is none.
pub fn folder_of(choice: &ModelChoice) -> Option<PathBuf> {
    folder_named(choice.name.as_deref()?)
}

/// Returns the folder of the model that a name means; `None` for a built-in model, or if there is none.
pub(crate) fn folder_named(name: &str) -> Option<PathBuf> {
    match find(name, &Places::of_this_machine()).ok()? {
        Named::Folder(folder) => Some(folder),
        _ => None,
    }
}

impl Named {
    fn open(&self, options: &RunOptions) -> m3ret_encoder::Result<Model> {
        match self {
            Self::Pixels => Ok(Model::pixels()),
            Self::Hog => Ok(Model::hog()),
            Self::Random { preset, seed } => Model::random(preset, *seed, options),
            Self::Folder(folder) => Model::open(folder, options),
            Self::BuiltIn(model) => Model::from_bytes(&model.bytes, options),
        }
    }
}

impl Places {
    #[expect(
        clippy::disallowed_methods,
        reason = "one of the two places that read the environment: where models lie"
    )]
    fn of_this_machine() -> Self {
        let set = std::env::var_os("M3RET_MODELS").filter(|value| !value.is_empty());
        // A link to the program is followed: models lie beside the program itself.
        let program = std::env::current_exe().and_then(|path| path.canonicalize());
        Self {
            models: set.map(PathBuf::from),
            program: program
                .ok()
                .and_then(|path| path.parent().map(Path::to_owned)),
        }
    }

    /// Lists the folders that a name may mean, in the order in which they are tried.
    fn candidates(&self, name: &str) -> Vec<PathBuf> {
        let mut candidates = vec![PathBuf::from(name)];
        let mut parts = Path::new(name).components();
        // `../x`, `./x` and `/x` are paths and nothing else.
        if parts.all(|part| matches!(part, Component::Normal(_))) {
            candidates.extend(self.models.iter().map(|folder| folder.join(name)));
            candidates.push(Path::new("weights").join(name));
            if let Some(folder) = &self.program {
                candidates.push(folder.join(name));
                let above = folder.ancestors().take(1 + N_ABOVE);
                candidates.extend(above.map(|folder| folder.join("weights").join(name)));
            }
        }
        candidates
    }
}

/// Finds what a name means.
fn find(name: &str, places: &Places) -> anyhow::Result<Named> {
    if name == PIXELS {
        return Ok(Named::Pixels);
    }
    if name == HOG {
        return Ok(Named::Hog);
    }
    if let Some(random) = name.strip_prefix("random:") {
        return random_of(random);
    }
    let candidates = if name.is_empty() {
        Vec::new()
    } else {
        places.candidates(name)
    };
    let is_model = |folder: &&PathBuf| CONFIGS.iter().any(|config| folder.join(config).is_file());
    if let Some(folder) = candidates.iter().find(is_model) {
        return Ok(Named::Folder(folder.clone()));
    }
    if let Some(model) = built_in(name) {
        return Ok(Named::BuiltIn(model));
    }
    let mut message = format!("found no model named {name:?}; looked for");
    for candidate in &candidates {
        let found = if candidate.is_dir() {
            "a folder without config.json"
        } else if candidate.exists() {
            "a file; name the folder that holds it"
        } else {
            "not there"
        };
        // Writing to a `String` cannot fail.
        let _ = write!(message, "\n  {}: {found}", candidate.display());
    }
    if places.models.is_none() {
        message.push_str("\n  $M3RET_MODELS is not set");
    }
    message.push_str("\nBuilt in are pixels, hog and random:PRESET (tiny, small, base or large).");
    anyhow::bail!(message)
}

/// `tiny` or `tiny:3`.
fn random_of(text: &str) -> anyhow::Result<Named> {
    let (preset, seed) = text.split_once(':').unwrap_or((text, "0"));
    let seed = seed
        .parse()
        .ok()
        .with_context(|| format!("random:PRESET:SEED: found {seed:?}, wanted a whole number"))?;
    Ok(Named::Random {
        preset: preset.to_owned(),
        seed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model_in(folder: &Path) -> PathBuf {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("config.json"), "{}").unwrap();
        folder.to_owned()
    }

    #[test]
    fn built_in_models_need_no_folder() {
        let named = |name: &str| find(name, &Places::default()).ok();
        let random = |preset: &str, seed| {
            let preset = preset.to_owned();
            Some(Named::Random { preset, seed })
        };
        assert_eq!(named("pixels"), Some(Named::Pixels));
        assert_eq!(named("hog"), Some(Named::Hog));
        assert_eq!(named("random:tiny"), random("tiny", 0));
        assert_eq!(named("random:base:7"), random("base", 7));
        assert_eq!(named("random:tiny:x"), None);
        assert_eq!(named(""), None);
        let unknown = Named::Random {
            preset: "huge".into(),
            seed: 0,
        };
        let error = unknown.open(&RunOptions::default()).unwrap_err();
        assert!(error.to_string().contains("tiny, small"), "{error}");
    }

    #[test]
    fn folders_are_tried_in_the_stated_order() {
        let root = tempfile::tempdir().unwrap();
        let places = Places {
            models: Some(root.path().join("models")),
            program: Some(root.path().join("bin")),
        };
        let named = |name: &str| find(name, &places).ok();
        let places_last_first = [
            root.path().join("weights/org/m"),
            root.path().join("bin/weights/org/m"),
            root.path().join("bin/org/m"),
            root.path().join("models/org/m"),
        ];
        for folder in places_last_first {
            let folder = model_in(&folder);
            assert_eq!(named("org/m"), Some(Named::Folder(folder)));
        }
        let path = model_in(&root.path().join("here"));
        assert_eq!(named(path.to_str().unwrap()), Some(Named::Folder(path)));
        assert_eq!(named("../models/org/m"), None, "a path is no name");
    }

    #[test]
    fn an_unknown_name_lists_where_it_was_looked_for() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("m")).unwrap();
        let places = Places {
            models: Some(root.path().to_owned()),
            program: Some("/nowhere/target/release".into()),
        };
        let message = find("m", &places).unwrap_err().to_string();
        let message = message.replace(root.path().to_str().unwrap(), "ROOT");
        insta::assert_snapshot!(message, @r#"
        found no model named "m"; looked for
          m: not there
          ROOT/m: a folder without config.json
          weights/m: not there
          /nowhere/target/release/m: not there
          /nowhere/target/release/weights/m: not there
          /nowhere/target/weights/m: not there
          /nowhere/weights/m: not there
        Built in are pixels, hog and random:PRESET (tiny, small, base or large).
        "#);
    }
}
