//! Decides whether an output may be written: what is read is never written over, and what m3ret did not write is
//! replaced only where the caller says so.

use std::fmt;
use std::fs::FileType;
use std::path::{Path, PathBuf};

use crate::file_in_the_way;
use crate::paths::{folder_of, place_of};

/// Whether the caller lets an output replace what m3ret did not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// `--force` was given.
    Given,
    /// `--force` was not given.
    Missing,
    /// The command has no `--force`.
    Unsupported,
}

impl Force {
    /// Returns the choice of a command that has `--force`.
    #[must_use]
    pub fn of(is_given: bool) -> Self {
        if is_given { Self::Given } else { Self::Missing }
    }
}

/// What an output replaces without `--force`.
#[derive(Clone, Copy)]
pub enum Replaces<'a> {
    /// Nothing: the name must be free, or the folder empty.
    Nothing,
    /// What m3ret wrote itself.
    Own {
        /// What that is, such as `page`.
        what: &'static str,
        /// Returns whether m3ret wrote what lies at a path.
        is_own: &'a dyn Fn(&Path) -> bool,
    },
}

/// What a command reads. No output takes its place, even with `--force`.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// Files and folders that the caller named.
    pub named: &'a [&'a Path],
    /// Lists further files and folders, such as those that a manifest names; called only if an output might replace
    /// one of them.
    pub listed: &'a dyn Fn() -> Vec<PathBuf>,
}

impl Inputs<'_> {
    /// No input at all.
    pub const NONE: Self = Self {
        named: &[],
        listed: &Vec::new,
    };

    fn any_named(&self, is_met: impl Fn(&Path) -> bool) -> Option<PathBuf> {
        let mut named = self.named.iter();
        let found = named.find(|path| path.canonicalize().is_ok_and(|place| is_met(&place)));
        found.map(|path| path.to_path_buf())
    }

    fn any_listed(&self, is_met: impl Fn(&Path) -> bool) -> Option<PathBuf> {
        let listed = (self.listed)();
        let mut listed = listed.into_iter();
        listed.find(|path| path.canonicalize().is_ok_and(|place| is_met(&place)))
    }
}

/// A file or folder that a command is asked to write.
#[derive(Clone, Copy)]
pub struct Output<'a> {
    /// The file or folder.
    pub path: &'a Path,
    /// What it replaces without `--force`.
    pub replaces: Replaces<'a>,
    /// Whether it replaces anything else.
    pub force: Force,
}

/// An output that is refused: says what was found, what is wanted, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

impl Output<'_> {
    /// Checks a file before anything is written.
    ///
    /// # Errors
    /// If its folder is not there; if a folder or a device is at its place; if it is read itself, or lies there among
    /// what is read; if m3ret did not write what is there, and `--force` was not given.
    pub fn check_file(&self, inputs: &Inputs<'_>) -> Result<(), Refusal> {
        let path = self.path.display();
        let folder = folder_of(self.path);
        if !folder.is_dir() {
            let folder = folder.display();
            return Err(Refusal(if folder_of(self.path).exists() {
                format!(
                    "{folder} is no folder, so that {path} cannot be written; give another name"
                )
            } else {
                format!("no such folder: {folder}; make it first")
            }));
        }
        let kind = std::fs::metadata(self.path).map(|status| status.file_type());
        if let Ok(kind) = kind.as_ref()
            && !kind.is_file()
        {
            return Err(Refusal(irregular(self.path, *kind)));
        }
        if std::fs::symlink_metadata(self.path).is_err() {
            return Ok(());
        }
        let place = self
            .path
            .canonicalize()
            .unwrap_or_else(|_| self.path.to_owned());
        let is_read = || {
            Err(Refusal(format!(
                "{path} is being read; give the result another name"
            )))
        };
        if inputs.any_named(|input| input == place).is_some() {
            return is_read();
        }
        if self.is_own() {
            return Ok(());
        }
        let is_around = |input: &Path| place.starts_with(input);
        if inputs.any_named(is_around).is_some() || inputs.any_listed(is_around).is_some() {
            return is_read();
        }
        self.refuse_unless_forced(&match self.replaces {
            Replaces::Nothing => format!("{path} is there"),
            Replaces::Own { what, .. } => {
                format!("{path} is there and is no {what} that m3ret wrote")
            }
        })
    }

    fn refuse_unless_forced(&self, found: &str) -> Result<(), Refusal> {
        match self.force {
            Force::Given => Ok(()),
            Force::Missing => Err(Refusal(format!(
                "{found}; give another name, or replace it with --force"
            ))),
            Force::Unsupported => Err(Refusal(format!("{found}; give another name"))),
        }
    }

    /// Checks a folder before anything is written. It may be missing.
    ///
    /// # Errors
    /// If a file is at its place, or above it; if it holds what is read or lies in it; if it holds files, no results
    /// of m3ret are among them, and `--force` was not given.
    pub fn check_folder(&self, inputs: &Inputs<'_>) -> Result<(), Refusal> {
        let path = self.path.display();
        if let Some(file) = file_in_the_way(self.path) {
            return Err(Refusal(format!(
                "{} is a file, and a folder is wanted there; choose another name",
                file.display()
            )));
        }
        let place = place_of(self.path).unwrap_or_else(|_| self.path.to_owned());
        let overlaps = |input: &Path| input.starts_with(&place) || place.starts_with(input);
        let input = inputs.any_named(overlaps);
        if let Some(input) = input.or_else(|| inputs.any_listed(overlaps)) {
            return Err(Refusal(format!(
                "results would lie beside what is read: {path} and {}; choose another folder",
                input.display()
            )));
        }
        let mut entries = match std::fs::read_dir(self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Refusal(format!("opening {path}: {error}"))),
        };
        if entries.next().is_none() || self.is_own() {
            return Ok(());
        }
        let found = match self.replaces {
            Replaces::Nothing => format!("{path} is not empty"),
            Replaces::Own { what, .. } => {
                format!("{path} holds files, and is no {what} that m3ret wrote")
            }
        };
        match self.force {
            Force::Given => Ok(()),
            Force::Missing => Err(Refusal(format!(
                "{found}; choose another folder, or replace what has the same names with --force"
            ))),
            Force::Unsupported => Err(Refusal(format!(
                "{found}; choose a folder that is new or empty"
            ))),
        }
    }

    fn is_own(&self) -> bool {
        match self.replaces {
            Replaces::Nothing => false,
            Replaces::Own { is_own, .. } => is_own(self.path),
        }
    }
}

fn irregular(path: &Path, kind: FileType) -> String {
    let found = if kind.is_dir() {
        "is a folder, which is no regular file"
    } else {
        "is there, and is no regular file"
    };
    format!("{} {found}; give the result another name", path.display())
}
