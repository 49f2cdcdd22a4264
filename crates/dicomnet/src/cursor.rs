//! How far a source was synced: a small file that holds no identifier, not even the address of the PACS.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::day::Day;
use crate::error::{Error, Result};
use crate::source::Selection;

/// Version of the file.
const FORMAT: u32 = 1;
/// Rounds in which a series may fail before it is given up.
pub(crate) const MAX_ROUNDS: u32 = 10;

/// A series that could not be fetched or added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// One word, as `Error::code` gives it.
    pub reason: String,
    /// Number of rounds in which it failed.
    pub rounds: u32,
}

/// How far a source was synced. Series are named by keyed hashes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    format: u32,
    /// Which series were taken so far; `None` where no round ended.
    #[serde(default)]
    pub taken: Option<Taken>,
    /// Orthanc's number of the last change that was taken.
    pub change: u64,
    /// The last day of studies that was taken, `YYYYMMDD`; `None` until everything was listed once.
    pub day: Option<String>,
    /// Seconds since 1970 of the last comparison with everything that the source has.
    pub reconciled: u64,
    /// Series without an image that can be embedded, with the number of their objects.
    pub without_images: BTreeMap<String, usize>,
    /// Series that failed, and are tried again with the next round.
    pub failed: BTreeMap<String, Failure>,
}

/// The series among which all up to a position were taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Taken {
    /// The oldest day of a study, `YYYYMMDD`; `None` for everything.
    pub since: Option<String>,
    /// DICOM codes of modalities; empty for all.
    pub modalities: Vec<String>,
}

impl Taken {
    fn of(selection: &Selection) -> Self {
        Self {
            since: selection.since.map(Day::to_dicom),
            modalities: selection.modalities.clone(),
        }
    }

    /// Whether every series of a selection is among these.
    fn holds(&self, selection: &Selection) -> bool {
        let since = selection.since.map(Day::to_dicom);
        // Days as `YYYYMMDD` are in the order of their texts; nothing is before everything.
        let has_days = self.since.is_none() || since >= self.since;
        let has = |modality: &String| self.modalities.contains(modality);
        let has_modalities = match selection.modalities.as_slice() {
            [] => self.modalities.is_empty(),
            wanted => self.modalities.is_empty() || wanted.iter().all(has),
        };
        has_days && has_modalities
    }
}

impl Cursor {
    /// Begins anew if a selection has series that were passed over so far; those that are known are not fetched again.
    pub(crate) fn select(&mut self, selection: &Selection) {
        let is_taken = |taken: &Taken| taken.holds(selection);
        if !self.taken.as_ref().is_some_and(is_taken) {
            (self.change, self.day) = (0, None);
        }
        self.taken = Some(Taken::of(selection));
    }

    /// Notes that a series failed in a round.
    pub fn fail(&mut self, name: &str, error: &Error) {
        let failure = self.failed.entry(name.to_owned()).or_insert(Failure {
            reason: String::new(),
            rounds: 0,
        });
        error.code().clone_into(&mut failure.reason);
        failure.rounds += 1;
    }

    /// Returns whether a series failed so often that it is not tried again.
    #[must_use]
    pub fn has_given_up(&self, name: &str) -> bool {
        let failure = self.failed.get(name);
        failure.is_some_and(|failure| failure.rounds >= MAX_ROUNDS)
    }

    /// Returns whether a series failed and is to be tried again.
    #[must_use]
    pub fn has_open_failures(&self) -> bool {
        let mut failures = self.failed.values();
        failures.any(|failure| failure.rounds < MAX_ROUNDS)
    }
}

/// A cursor and its file.
#[derive(Debug)]
pub struct CursorFile {
    path: PathBuf,
    /// What the file says, or is going to say with the next save.
    pub cursor: Cursor,
}

impl CursorFile {
    /// Reads a file; without one, nothing was synced.
    ///
    /// # Errors
    /// `Io`; `Malformed` if the file is damaged or of another version.
    pub fn open(path: &Path) -> Result<Self> {
        let cursor = match std::fs::read(path) {
            Ok(text) => {
                let cursor = serde_json::from_slice::<Cursor>(&text).ok();
                let cursor = cursor.filter(|cursor| cursor.format == FORMAT);
                cursor.ok_or_else(|| {
                    Error::malformed(
                        "cursor of a sync",
                        format!("a damaged or foreign file, {}", path.display()),
                        "a file of this version; remove it to list everything again",
                    )
                })?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Cursor {
                format: FORMAT,
                ..Cursor::default()
            },
            Err(error) => return Err(Error::io("reading", path)(error)),
        };
        Ok(Self {
            path: path.to_owned(),
            cursor,
        })
    }

    /// Writes the file whole.
    ///
    /// # Errors
    /// `Io`.
    pub fn save(&self) -> Result<()> {
        let text = serde_json::to_vec_pretty(&self.cursor).map_err(|error| Error::Io {
            doing: "writing a cursor".to_owned(),
            source: error.into(),
        })?;
        m3ret_files::write_whole(&self.path, |out| {
            out.write_all(&text)
                .map_err(Error::io("writing", &self.path))
        })
    }
}

impl From<m3ret_files::Error> for Error {
    fn from(error: m3ret_files::Error) -> Self {
        Self::Io {
            doing: error.to_string(),
            source: error.source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_with_series_that_were_passed_over_begins_anew() {
        let selection = |since: Option<&str>, modalities: &[&str]| Selection {
            since: since.map(|day| Day::of_dicom(day).unwrap()),
            modalities: modalities.iter().map(|&code| code.to_owned()).collect(),
        };
        let (old, new) = (Some("20250101"), Some("20260101"));
        let mut cursor = Cursor::default();
        for (wanted, is_anew) in [
            (selection(None, &[]), true),
            (selection(None, &[]), false),
            (selection(old, &["CT", "MR"]), false),
            (selection(new, &["MR"]), false),
            (selection(new, &["MR", "CT"]), true),
            (selection(old, &["MR"]), true),
            (selection(old, &[]), true),
            (selection(None, &[]), true),
        ] {
            (cursor.change, cursor.day) = (7, Some("20260201".to_owned()));
            cursor.select(&wanted);
            assert_eq!(cursor.change == 0, is_anew, "{wanted:?}");
            assert_eq!(cursor.day.is_none(), is_anew, "{wanted:?}");
        }
    }

    #[test]
    fn a_cursor_comes_back_and_a_damaged_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one.json");
        let mut file = CursorFile::open(&path).unwrap();
        assert_eq!(file.cursor.change, 0);
        file.cursor.change = 7;
        for _ in 0..MAX_ROUNDS {
            assert!(!file.cursor.has_given_up("a"));
            file.cursor.fail("a", &Error::Stopped);
        }
        assert!(file.cursor.has_given_up("a") && !file.cursor.has_open_failures());
        file.save().unwrap();
        assert_eq!(CursorFile::open(&path).unwrap().cursor, file.cursor);
        let text = std::fs::read(&path).unwrap();
        for n_bytes in 0..text.len() - 1 {
            std::fs::write(&path, &text[..n_bytes]).unwrap();
            assert!(CursorFile::open(&path).is_err(), "{n_bytes}");
        }
    }
}
