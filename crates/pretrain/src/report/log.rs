//! The log: one JSON object a line, one line an entry.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use super::Entry;
use super::history::History;
use crate::error::{Error, Result};
use crate::files::{folder_of, replace, sync_folder};

/// The log of a run, open for more entries.
///
/// An entry is in the file, whole, once `append` returns, so that a killed run loses none; `sync` makes the
/// file outlive the machine.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    history: History,
    n_unreadable: usize,
}

/// What a file holds, as `Log::open` finds it.
#[derive(Debug, Default)]
struct Found {
    history: History,
    n_unreadable: usize,
    /// Whether every line stays.
    is_clean: bool,
}

impl Log {
    /// Opens a log, or begins one, and keeps its entries of the steps before `next_step`.
    ///
    /// Lines that hold no entry are left out and counted, but for the last, which a killed run may have torn.
    ///
    /// # Errors
    /// `Io` if the file cannot be read or written.
    pub(crate) fn open(path: &Path, next_step: u64) -> Result<Self> {
        let found = find(path, next_step).map_err(Error::io(path))?;
        if !found.is_clean {
            replace(path, |temporary| {
                let mut out = BufWriter::new(File::create(temporary)?);
                each_line(path, &mut |line, entry| match entry {
                    Some(entry) if entry.step < next_step => {
                        out.write_all(line)?;
                        out.write_all(b"\n")
                    }
                    _ => Ok(()),
                })?;
                out.flush()
            })?;
        }
        Ok(Self {
            path: path.to_owned(),
            file: append_to(path).map_err(Error::io(path))?,
            history: found.history,
            n_unreadable: found.n_unreadable,
        })
    }

    /// Adds an entry. A number that is not finite is written as `null`.
    ///
    /// # Errors
    /// `Io` if the file cannot be written.
    pub(crate) fn append(&mut self, entry: &Entry) -> Result<()> {
        let entry = readable(entry);
        let written = serde_json::to_vec(&entry).map_err(io::Error::from);
        let written = written.and_then(|mut line| {
            line.push(b'\n');
            // One call, so that the line is torn only where the disk is full.
            self.file.write_all(&line)
        });
        written.map_err(Error::io(&self.path))?;
        self.history.push(&entry);
        Ok(())
    }

    /// Makes all entries outlive a loss of power.
    ///
    /// # Errors
    /// `Io` if the system cannot.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(Error::io(&self.path))
    }

    /// Returns what the entries amount to, earlier ones included.
    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    /// Returns the number of lines that `open` left out because they hold no entry.
    pub(crate) fn n_unreadable(&self) -> usize {
        self.n_unreadable
    }
}

fn find(path: &Path, next_step: u64) -> io::Result<Found> {
    let mut found = Found {
        is_clean: true,
        ..Found::default()
    };
    let mut is_last_bad = false;
    let walked = each_line(path, &mut |_, entry| {
        found.n_unreadable += usize::from(std::mem::take(&mut is_last_bad));
        match entry {
            Some(entry) if entry.step < next_step => found.history.push(&entry),
            Some(_) => found.is_clean = false,
            None => {
                is_last_bad = true;
                found.is_clean = false;
            }
        }
        Ok(())
    });
    match walked {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(found),
        Err(error) => Err(error),
        Ok(()) => {
            found.is_clean &= ends_with_newline(path)?;
            Ok(found)
        }
    }
}

/// Calls `take` with each line, without its end, and with the entry that it holds.
fn each_line<F>(path: &Path, take: &mut F) -> io::Result<()>
where
    F: FnMut(&[u8], Option<Entry>) -> io::Result<()>,
{
    let mut reader = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        if line.ends_with(b"\n") {
            line.pop();
        }
        take(&line, serde_json::from_slice(&line).ok())?;
        line.clear();
    }
    Ok(())
}

fn ends_with_newline(path: &Path) -> io::Result<bool> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

fn append_to(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    sync_folder(folder_of(path))?;
    Ok(file)
}

/// JSON has no NaN: where a number must be there, it becomes 0, and a kNN with one is left out.
fn readable(entry: &Entry) -> Entry {
    Entry {
        epoch: if entry.epoch.is_finite() {
            entry.epoch
        } else {
            0.0
        },
        knn_student: entry.knn_student.filter(super::Knn::is_finite),
        knn_teacher: entry.knn_teacher.filter(super::Knn::is_finite),
        ..entry.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(step: u64) -> Entry {
        Entry {
            step,
            loss: Some(crate::schedule::as_f64(step)),
            ..Entry::default()
        }
    }

    fn entries(path: &Path) -> Vec<Entry> {
        let mut entries = Vec::new();
        each_line(path, &mut |_, entry| {
            entries.extend(entry);
            Ok(())
        })
        .unwrap();
        entries
    }

    /// Writes `before`, opens it at `next_step`, adds that step, and returns the steps of the file.
    fn check(before: &str, next_step: u64, expected: (&[u64], usize)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        std::fs::write(&path, before).unwrap();
        let mut log = Log::open(&path, next_step).unwrap();
        assert_eq!(log.n_unreadable(), expected.1, "{before:?}");
        log.append(&entry(next_step)).unwrap();
        log.sync().unwrap();
        let steps: Vec<_> = entries(&path).iter().map(|entry| entry.step).collect();
        assert_eq!(steps, expected.0, "{before:?}");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.lines()
                .all(|line| line.starts_with('{') && line.ends_with('}')),
            "{text}"
        );
        assert_eq!(text.lines().count(), steps.len());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_resumed_log_keeps_the_steps_before_and_no_torn_line() {
        let lines = "{\"step\":0}\n{\"step\":1}\n{\"step\":2}\n";
        check(lines, 3, (&[0, 1, 2, 3], 0));
        check(lines, 1, (&[0, 1], 0));
        check(lines, 0, (&[0], 0));
        check("", 0, (&[0], 0));
        check("{\"step\":0}\n{\"step\":1", 2, (&[0, 2], 0));
        check("{\"step\":0}\n{\"step\":1}", 2, (&[0, 1, 2], 0));
        check("{\"step\":0}\n\0\0\0\0\0", 2, (&[0, 2], 0));
        check(
            "{\"step\":0}\nnonsense\n\n{\"step\":1}\n{\"st",
            2,
            (&[0, 1, 2], 2),
        );
    }

    #[test]
    fn a_log_that_is_cut_at_any_byte_opens_with_whole_entries() {
        let lines = "{\"step\":0,\"loss\":0.5}\n{\"step\":1,\"loss\":0.25}\n";
        for end in 0..=lines.len() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("log.jsonl");
            std::fs::write(&path, &lines[..end]).unwrap();
            let log = Log::open(&path, 2).unwrap();
            let found = entries(&path);
            let n_whole = usize::from(end >= 21) + usize::from(end >= 44);
            assert_eq!((found.len(), log.n_unreadable()), (n_whole, 0), "{end}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_log_that_needs_no_change_is_not_written_again() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        Log::open(&path, 0).unwrap().append(&entry(0)).unwrap();
        let inode = std::fs::metadata(&path).unwrap().ino();
        drop(Log::open(&path, 1).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode);
    }

    #[test]
    fn numbers_that_are_not_finite_do_not_break_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let knn = super::super::Knn {
            hit_at_1: f64::NAN,
            precision_at_5: 0.5,
            n_queries: 3,
            chance_hit_at_1: 0.1,
        };
        let mut log = Log::open(&path, 0).unwrap();
        log.append(&Entry {
            epoch: f64::INFINITY,
            loss: Some(f64::NAN),
            gradient_norm: Some(f64::NEG_INFINITY),
            knn_student: Some(knn),
            lr: Some(0.1),
            ..Entry::default()
        })
        .unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("\"loss\":null"), "{text}");
        drop(Log::open(&path, 1).unwrap());
        let found = entries(&path);
        let wanted = Entry {
            lr: Some(0.1),
            ..Entry::default()
        };
        assert_eq!(found, [wanted]);
    }

    #[test]
    fn history_goes_on_where_the_log_did() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let mut log = Log::open(&path, 0).unwrap();
        for step in 0..5 {
            log.append(&entry(step)).unwrap();
        }
        let resumed = Log::open(&path, 4).unwrap();
        assert_eq!(resumed.history().last().map(|entry| entry.step), Some(3));
        assert_eq!(log.history().last().map(|entry| entry.step), Some(4));
    }
}
