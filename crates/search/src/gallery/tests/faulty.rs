//! A disk that fails at a chosen moment, and forgets what was not synced when the power goes.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::disk::{Disk, DiskFile};

/// How a disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// One write takes only a part, as the operating system may.
    ShortWrite,
    /// From now on, nothing more fits.
    NoSpace,
    /// One operation fails.
    Io,
    /// One operation fails, and a renaming that fails has happened.
    TornRename,
    /// From now on, everything fails.
    PowerCut,
}

/// A change of a folder that is not yet safe.
#[derive(Debug)]
enum Unsafe {
    Created(PathBuf),
    Renamed(PathBuf, PathBuf),
    Removed(PathBuf, Vec<u8>),
}

#[derive(Debug)]
struct State {
    fault: Fault,
    at: usize,
    n_operations: usize,
    has_failed: bool,
    changes: Vec<Unsafe>,
    /// Bytes of each file that are safe.
    synced: HashMap<PathBuf, u64>,
}

/// The disk.
#[derive(Debug, Clone)]
pub(super) struct FaultyDisk(Arc<Mutex<State>>);

/// A file of it.
#[derive(Debug)]
pub(super) struct FaultyFile {
    disk: FaultyDisk,
    path: PathBuf,
    file: std::fs::File,
}

impl FaultyDisk {
    /// Makes a disk whose operation number `at` fails, from 0.
    pub(super) fn new(fault: Fault, at: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            fault,
            at,
            n_operations: 0,
            has_failed: false,
            changes: Vec::new(),
            synced: HashMap::new(),
        })))
    }

    pub(super) fn has_failed(&self) -> bool {
        self.0.lock().unwrap().has_failed
    }

    /// Counts an operation and says whether it fails; `is_write` tells those that need space.
    fn operate(&self, is_write: bool) -> io::Result<Option<Fault>> {
        let mut state = self.0.lock().unwrap();
        let number = state.n_operations;
        state.n_operations += 1;
        let is_now = number == state.at;
        let is_later = number > state.at;
        let fails = match state.fault {
            Fault::ShortWrite => is_now && is_write,
            Fault::NoSpace => (is_now || is_later) && is_write,
            Fault::Io | Fault::TornRename => is_now,
            Fault::PowerCut => is_now || is_later,
        };
        state.has_failed |= is_now;
        match (fails, state.fault) {
            (false, _) => Ok(None),
            (true, Fault::NoSpace) => Err(io::Error::from_raw_os_error(28)),
            (true, fault @ (Fault::ShortWrite | Fault::TornRename)) => Ok(Some(fault)),
            (true, _) => Err(io::Error::from_raw_os_error(5)),
        }
    }

    fn operate_plainly(&self, is_write: bool) -> io::Result<()> {
        match self.operate(is_write)? {
            None | Some(Fault::ShortWrite) => Ok(()),
            Some(_) => Err(io::Error::from_raw_os_error(5)),
        }
    }

    /// Does what a power cut may do: of the changes of folders the later half is lost, and of
    /// files what was not synced.
    pub(super) fn forget_what_was_not_synced(&self) {
        let mut state = self.0.lock().unwrap();
        let n_kept = state.n_operations % (state.changes.len() + 1);
        for change in state.changes.split_off(n_kept).into_iter().rev() {
            match change {
                Unsafe::Created(path) => {
                    let _ = std::fs::remove_file(path);
                }
                Unsafe::Renamed(from, to) => {
                    std::fs::rename(&to, &from).unwrap();
                    let synced = state.synced.remove(&to).unwrap_or(0);
                    state.synced.insert(from, synced);
                }
                Unsafe::Removed(path, bytes) => std::fs::write(path, bytes).unwrap(),
            }
        }
        for (path, &n_bytes) in &state.synced {
            if let Ok(file) = std::fs::File::options().write(true).open(path) {
                file.set_len(n_bytes.min(file.metadata().unwrap().len()))
                    .unwrap();
            }
        }
    }
}

impl Disk for FaultyDisk {
    type File = FaultyFile;

    fn create(&self, path: &Path) -> io::Result<FaultyFile> {
        self.operate_plainly(true)?;
        let file = std::fs::File::create(path)?;
        let mut state = self.0.lock().unwrap();
        state.changes.push(Unsafe::Created(path.to_owned()));
        state.synced.insert(path.to_owned(), 0);
        drop(state);
        Ok(FaultyFile {
            disk: self.clone(),
            path: path.to_owned(),
            file,
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let is_torn = self.operate(false)? == Some(Fault::TornRename);
        std::fs::rename(from, to)?;
        let mut state = self.0.lock().unwrap();
        state
            .changes
            .push(Unsafe::Renamed(from.to_owned(), to.to_owned()));
        let synced = state.synced.remove(from).unwrap_or(0);
        state.synced.insert(to.to_owned(), synced);
        match is_torn {
            true => Err(io::Error::from_raw_os_error(5)),
            false => Ok(()),
        }
    }

    fn sync_folder(&self, _folder: &Path) -> io::Result<()> {
        self.operate_plainly(false)?;
        self.0.lock().unwrap().changes.clear();
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.operate_plainly(false)?;
        let bytes = std::fs::read(path)?;
        std::fs::remove_file(path)?;
        let mut state = self.0.lock().unwrap();
        state.changes.push(Unsafe::Removed(path.to_owned(), bytes));
        Ok(())
    }
}

impl Write for FaultyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.disk.operate(true)? {
            None => self.file.write(bytes),
            Some(Fault::ShortWrite) => self.file.write(&bytes[..bytes.len().div_ceil(2)]),
            Some(_) => Err(io::Error::from_raw_os_error(5)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for FaultyFile {
    fn sync(&mut self) -> io::Result<()> {
        self.disk.operate_plainly(true)?;
        let n_bytes = self.file.metadata()?.len();
        self.disk
            .0
            .lock()
            .unwrap()
            .synced
            .insert(self.path.clone(), n_bytes);
        Ok(())
    }
}
