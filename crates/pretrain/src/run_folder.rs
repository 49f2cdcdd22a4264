//! The folder of a run: who may write to it, its checkpoints, and going on from one.
//!
//! ```text
//! OUT/config.toml                       the resolved config
//! OUT/lock                              held while a run writes
//! OUT/checkpoints/step-000000500/       after 500 steps
//!     model/                            the encoder, as `m3ret embed --model` takes it
//!     state.safetensors                 networks and moments
//!     state.json                        the rest, and a checksum of state.safetensors
//! OUT/model/                            the finished model
//! ```
//!
//! A checkpoint is written beside its name, synced and renamed, so it is whole or not there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirEntry, File};
use std::path::{Path, PathBuf};

use m3ret_encoder::ModelConfig;
use m3ret_files::{FolderLock, Force, Inputs, Locking, Output, Replaces};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::checkpoint::{save_model, write_tensors};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::files::{make_private_folder, sync_folder, write_whole};
use crate::monitor::Alarm;
use crate::parameters::{Weight, Weights};
use crate::train::Begin;

/// The layout of a checkpoint; another one is refused.
const VERSION: u32 = 1;

const CONFIG: &str = "config.toml";
const CHECKPOINTS: &str = "checkpoints";
const STEP: &str = "step-";
const STATE: &str = "state.json";
const TENSORS: &str = "state.safetensors";

/// What a run needs to go on, beside tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    version: u32,
    /// The step that comes next.
    pub(crate) next_step: u64,
    /// Steps that the optimiser took: fewer than `next_step` where batches were empty.
    pub(crate) n_optimised: u64,
    /// What the items were made of; another list would change the order.
    pub(crate) items: String,
    /// What tells the frozen teachers from every other; empty without any.
    #[serde(default)]
    pub(crate) teachers: Vec<String>,
    pub(crate) alarm: Alarm,
    pub(crate) best: Option<Best>,
    /// Refused images by the reason's code.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Items in all batches, repeats included.
    pub(crate) n_items_seen: u64,
    /// Synthetic objects in all batches.
    #[serde(default)]
    pub(crate) n_synthetic_seen: u64,
    tensors_xxh3: String,
}

/// The best look at the validation part so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Best {
    /// Steps done then.
    pub(crate) step: u64,
    pub(crate) hit_at_1: f64,
}

impl State {
    pub(crate) fn new(items: String) -> Self {
        Self {
            version: VERSION,
            next_step: 0,
            n_optimised: 0,
            items,
            teachers: Vec::new(),
            alarm: Alarm::default(),
            best: None,
            refused: BTreeMap::new(),
            n_items_seen: 0,
            n_synthetic_seen: 0,
            tensors_xxh3: String::new(),
        }
    }
}

/// What a run goes on from.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) state: State,
    /// Networks and moments, by name.
    pub(crate) tensors: Weights,
}

/// The newest checkpoint that is whole, and what is wrong with newer ones.
#[derive(Debug, Default)]
pub(crate) struct Newest {
    pub(crate) checkpoint: Option<Checkpoint>,
    pub(crate) complaints: Vec<String>,
}

/// The folder of a run that nobody else writes to.
#[derive(Debug)]
pub(crate) struct RunFolder {
    out: PathBuf,
    /// Newest checkpoints that stay.
    n_kept: usize,
    /// Locked until it is dropped.
    _lock: FolderLock,
}

impl RunFolder {
    /// Makes the folder of a new run, or opens that of one to go on with.
    ///
    /// # Errors
    /// `Run` if another process writes to it, it holds a run that is not to go on, holds none where one
    /// is to go on, or the config differs in what decides the numbers; `Io`.
    pub(crate) fn open(config: &Config, begin: Begin) -> Result<Self> {
        let out = &config.out;
        let saved = out.join(CONFIG);
        match (begin, saved.exists()) {
            (Begin::Fresh, true) => {
                return Err(Error::run(
                    out,
                    "found a run, wanted a folder that is new or empty; go on with --resume, or \
                     choose another out",
                ));
            }
            (Begin::Fresh, false) => check_folder(config)?,
            (Begin::Resume, false) => {
                return Err(Error::run(
                    out,
                    "found no run to go on with; start one without --resume",
                ));
            }
            _ => {}
        }
        let folder = out.join(CHECKPOINTS);
        make_private_folder(&folder)?;
        let lock = lock(out)?;
        let run = Self {
            out: out.clone(),
            n_kept: config.train.keep,
            _lock: lock,
        };
        run.remove_unfinished()?;
        if begin == Begin::Resume {
            run.compare(&saved, config)?;
        }
        // Written last, so that a folder with a config is a run.
        write_whole(&saved, config.to_toml()?.as_bytes())?;
        Ok(run)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.out.join(name)
    }

    /// Refuses settings that would make another run of it.
    fn compare(&self, saved: &Path, config: &Config) -> Result<()> {
        let text = std::fs::read_to_string(saved).map_err(Error::io(saved))?;
        let before = Config::from_toml(&text, Path::new(""), &[])?;
        let changed = changed_settings(&before, config)?;
        if changed.is_empty() {
            return Ok(());
        }
        Err(Error::run(
            &self.out,
            format!(
                "the run has other settings of {}; go on with those of its config.toml, or start \
                 another run",
                changed.join(", ")
            ),
        ))
    }

    /// Saves a checkpoint with the encoder as a model, and removes older ones but the newest and the best.
    ///
    /// # Errors
    /// `Io`; what was there before is still there then.
    pub(crate) fn save(
        &self,
        state: &mut State,
        tensors: &Weights,
        model: &ModelConfig,
        encoder: &Weights,
    ) -> Result<()> {
        let folder = self.out.join(CHECKPOINTS);
        let name = format!("{STEP}{:09}", state.next_step);
        let unfinished = folder.join(format!(".{name}"));
        remove_folder(&unfinished)?;
        std::fs::create_dir(&unfinished).map_err(Error::io(&unfinished))?;
        save_model(&unfinished.join("model"), model, encoder)?;
        let path = unfinished.join(TENSORS);
        write_tensors(&path, tensors)?;
        state.tensors_xxh3 = digest_of(&path)?;
        let json = serde_json::to_vec_pretty(&state)
            .map_err(|error| Error::io(&path)(std::io::Error::other(error)))?;
        write_whole(&unfinished.join(STATE), &json)?;
        sync_folder(&unfinished).map_err(Error::io(&unfinished))?;
        let place = folder.join(name);
        remove_folder(&place)?;
        std::fs::rename(&unfinished, &place).map_err(Error::io(&place))?;
        sync_folder(&folder).map_err(Error::io(&folder))?;
        let best = state.best.map(|best| best.step);
        // Those of later steps are none of this run's; `newest` has put them aside.
        let own = self
            .steps()?
            .into_iter()
            .filter(|&step| step <= state.next_step);
        let own: Vec<u64> = own.collect();
        for old in own.into_iter().rev().skip(self.n_kept) {
            if Some(old) != best {
                remove_folder(&folder.join(format!("{STEP}{old:09}")))?;
            }
        }
        Ok(())
    }

    /// Removes what a killed process left half-written.
    fn remove_unfinished(&self) -> Result<()> {
        let folder = self.out.join(CHECKPOINTS);
        for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder))? {
            let name = entry.map_err(Error::io(&folder))?.file_name();
            if name.to_string_lossy().starts_with(&format!(".{STEP}")) {
                remove_folder(&folder.join(name))?;
            }
        }
        Ok(())
    }

    /// Returns the steps that checkpoints were saved after, ascending.
    fn steps(&self) -> Result<Vec<u64>> {
        let folder = self.out.join(CHECKPOINTS);
        let mut steps = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder))? {
            let name = entry.map_err(Error::io(&folder))?.file_name();
            let step = name.to_str().and_then(|name| name.strip_prefix(STEP));
            steps.extend(step.and_then(|step| step.parse::<u64>().ok()));
        }
        steps.sort_unstable();
        Ok(steps)
    }

    /// Reads the newest checkpoint that is whole; of others, says what is wrong.
    ///
    /// # Errors
    /// `Io` if the folder cannot be listed; `Run` if there are checkpoints and none is whole.
    pub(crate) fn newest(&self) -> Result<Newest> {
        let (mut complaints, mut damaged) = (Vec::new(), Vec::<PathBuf>::new());
        for step in self.steps()?.into_iter().rev() {
            let folder = self.out.join(CHECKPOINTS).join(format!("{STEP}{step:09}"));
            match read_checkpoint(&folder) {
                Ok(checkpoint) => {
                    damaged.iter().try_for_each(|folder| put_aside(folder))?;
                    return Ok(Newest {
                        checkpoint: Some(checkpoint),
                        complaints,
                    });
                }
                Err(error) => {
                    complaints.push(error.to_string());
                    damaged.push(folder);
                }
            }
        }
        match complaints.first() {
            Some(complaint) => Err(Error::run(
                &self.out,
                format!("no checkpoint is whole; the newest: {complaint}"),
            )),
            None => Ok(Newest::default()),
        }
    }
}

/// Renames a damaged checkpoint, so that it neither counts as one nor is lost.
fn put_aside(folder: &Path) -> Result<()> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let aside = folder.with_file_name(format!("damaged-{name}"));
    remove_folder(&aside)?;
    std::fs::rename(folder, &aside).map_err(Error::io(folder))
}

/// Settings that may differ when a run goes on: they change no number of it.
const FREE: [&str; 9] = [
    "out",
    "images.cache",
    "images.readers",
    // Where they lie; their fingerprints must be the same.
    "salt.teachers",
    "train.checkpoint_every",
    "train.keep",
    "model.whitening",
    "model.directions_out",
    "monitor",
];

/// Refuses a folder with files, since a run would write among them.
fn check_folder(config: &Config) -> Result<()> {
    let output = Output {
        path: &config.out,
        replaces: Replaces::Own {
            what: "run",
            is_own: &|out| is_left_by_a_start(out, config.images.cache.as_deref()),
        },
        force: Force::Unsupported,
    };
    Ok(output.check_folder(&Inputs::NONE)?)
}

/// Returns whether a folder holds only the cache of images, and what a run leaves that ends before its config is
/// written.
fn is_left_by_a_start(out: &Path, cache: Option<&Path>) -> bool {
    let is_left = |entry: DirEntry| match entry.file_name().to_str() {
        Some(CHECKPOINTS) => {
            std::fs::read_dir(entry.path()).is_ok_and(|mut steps| steps.next().is_none())
        }
        Some("lock") => entry.metadata().is_ok_and(|lock| lock.len() == 0),
        Some(name) => name.starts_with(".m3ret-") || cache == Some(&entry.path()),
        None => false,
    };
    let entries = std::fs::read_dir(out);
    entries.is_ok_and(|mut entries| entries.all(|entry| entry.is_ok_and(is_left)))
}

fn changed_settings(before: &Config, now: &Config) -> Result<Vec<String>> {
    let table = |config: &Config| -> Result<toml::Table> {
        toml::Table::try_from(config)
            .map_err(|error| Error::run(&config.out, format!("a config that is no TOML: {error}")))
    };
    let (before, now) = (table(before)?, table(now)?);
    let mut changed = Vec::new();
    differences("", &before, &now, &mut changed);
    changed.retain(|name| {
        !FREE
            .iter()
            .any(|free| name == free || name.strip_prefix(free).is_some_and(|r| r.starts_with('.')))
    });
    Ok(changed)
}

/// Lists the keys whose values differ, in full.
fn differences(prefix: &str, a: &toml::Table, b: &toml::Table, names: &mut Vec<String>) {
    let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    for key in keys {
        let name = format!("{prefix}{key}");
        match (a.get(key), b.get(key)) {
            (Some(toml::Value::Table(a)), Some(toml::Value::Table(b))) => {
                differences(&format!("{name}."), a, b, names);
            }
            (a, b) if a != b => names.push(name),
            _ => {}
        }
    }
}

fn lock(out: &Path) -> Result<FolderLock> {
    let locking = m3ret_files::lock(out);
    match locking.map_err(|error| Error::io(&error.path)(error.source))? {
        Locking::Locked(lock) => Ok(lock),
        Locking::Taken => Err(Error::run(
            out,
            "another process trains here; wait for it, or choose another out",
        )),
        Locking::Unsupported(_) => Err(Error::run(
            out,
            "its disk knows no locks, so that two runs could write there at once; choose another out",
        )),
    }
}

fn read_checkpoint(folder: &Path) -> Result<Checkpoint> {
    let path = folder.join(STATE);
    let json = std::fs::read(&path).map_err(Error::io(&path))?;
    let state: State = serde_json::from_slice(&json)
        .map_err(|error| Error::run(&path, format!("no state of a run: {error}")))?;
    if state.version != VERSION {
        let found = state.version;
        return Err(Error::run(
            &path,
            format!("found version {found}, wanted {VERSION}"),
        ));
    }
    let path = folder.join(TENSORS);
    if digest_of(&path)? != state.tensors_xxh3 {
        return Err(Error::run(
            &path,
            "the checksum differs: the file is damaged",
        ));
    }
    let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|error| Error::run(&path, format!("no safetensors file: {error}")))?;
    let tensors = file.tensors().into_iter().map(|(name, view)| {
        let (chunks, _) = view.data().as_chunks();
        let values = chunks.iter().map(|&bytes| f32::from_le_bytes(bytes));
        let weight = Weight {
            shape: view.shape().to_vec(),
            values: values.collect(),
        };
        (name, weight)
    });
    Ok(Checkpoint {
        state,
        tensors: tensors.collect(),
    })
}

fn remove_folder(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(folder)(error)),
        _ => Ok(()),
    }
}

fn digest_of(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let mut hash = Xxh3::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match std::io::Read::read(&mut file, &mut buffer).map_err(Error::io(path))? {
            0 => return Ok(format!("{:032x}", hash.digest128())),
            n => hash.update(&buffer[..n]),
        }
    }
}
