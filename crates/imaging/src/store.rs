//! Where files are read from: the disk, a zip archive, or memory.

use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};
use crate::inflate::{gunzip, gunzip_prefix, is_gzip};
use crate::limits::Limits;
use crate::memory;
use crate::read::{self, SNIFF_BYTES};
use crate::zip::Zip;

/// A place with files.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Store<'a> {
    /// Paths are those of the file system.
    Disk,
    /// Paths are the names of members.
    Zip(&'a Zip),
    /// Paths are those of `MemoryFiles::names`.
    Memory(MemoryFiles<'a>),
}

/// Whole files that lie in memory, named by their places.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MemoryFiles<'a>(pub(crate) &'a [&'a [u8]]);

impl<'a> MemoryFiles<'a> {
    /// Returns the name of each file; their order is that of the files.
    pub(crate) fn names(self) -> Vec<PathBuf> {
        let names = (0..self.0.len()).map(|idx| PathBuf::from(format!("file {idx:09}")));
        names.collect()
    }

    fn bytes(self, name: &Path) -> Result<&'a [u8]> {
        let name = name.to_str().unwrap_or_default();
        let idx = name.strip_prefix("file ").and_then(|idx| idx.parse().ok());
        let found = idx.and_then(|idx: usize| self.0.get(idx));
        found.copied().ok_or_else(missing)
    }
}

/// Returns at most `n_wanted` leading bytes.
fn start_of(bytes: &[u8], n_wanted: u64) -> &[u8] {
    let n_wanted = usize::try_from(n_wanted).unwrap_or(usize::MAX);
    bytes.get(..n_wanted).unwrap_or(bytes)
}

/// Returns the error for a file that a store does not have.
fn missing() -> Error {
    let missing = std::io::ErrorKind::NotFound.into();
    Error::io("finding the data file of the header", missing)
}

impl<'a> Store<'a> {
    /// Reads the first `SNIFF_BYTES` of a file, or all of a shorter one.
    ///
    /// # Errors
    /// As `read::read_head`.
    pub(crate) fn head(self, path: &Path) -> Result<Vec<u8>> {
        match self {
            Self::Disk => read::read_head(path),
            Self::Zip(zip) => zip.prefix(path, SNIFF_BYTES as u64),
            Self::Memory(files) => Ok(start_of(files.bytes(path)?, SNIFF_BYTES as u64).to_vec()),
        }
    }

    /// Reads at most `n_wanted` leading bytes of a file, or of what its gzip stream holds, and
    /// returns them with whether they are all.
    ///
    /// # Errors
    /// As `read::read_prefix`.
    pub(crate) fn prefix(
        self,
        path: &Path,
        n_wanted: u64,
        limits: &Limits,
    ) -> Result<(Vec<u8>, bool)> {
        let n_stored = match self {
            Self::Disk => return read::read_prefix(path, n_wanted, limits),
            Self::Zip(zip) => zip.size(path)?,
            Self::Memory(files) => files.bytes(path)?.len() as u64,
        };
        let n_allowed = limits.max_decompressed(n_stored);
        let n_wanted = n_wanted.min(n_allowed);
        let mut bytes = match self {
            Self::Disk => Vec::new(),
            Self::Zip(zip) => zip.prefix(path, n_wanted)?,
            Self::Memory(files) => start_of(files.bytes(path)?, n_wanted).to_vec(),
        };
        if is_gzip(&bytes) {
            bytes = gunzip_prefix(&bytes, n_wanted);
        }
        let is_end = n_stored <= n_wanted && (bytes.len() as u64) < n_wanted;
        Ok((bytes, is_end || n_wanted == n_allowed))
    }

    /// Reads a whole file, replacing what `bytes` held, and decompresses a gzip stream.
    ///
    /// # Errors
    /// As `read::read_whole` and `inflate::gunzip`.
    pub(crate) fn plain_into(
        self,
        bytes: &mut Vec<u8>,
        path: &Path,
        limits: &Limits,
    ) -> Result<()> {
        self.whole_into(bytes, path, limits)?;
        if is_gzip(bytes) {
            *bytes = gunzip(bytes, limits)?;
        }
        Ok(())
    }

    /// Reads a whole file, replacing what `bytes` held.
    ///
    /// # Errors
    /// As `read::read_whole`.
    pub(crate) fn whole_into(
        self,
        bytes: &mut Vec<u8>,
        path: &Path,
        limits: &Limits,
    ) -> Result<()> {
        match self {
            Self::Disk => read::read_whole_into(bytes, path, limits),
            Self::Zip(zip) => zip.whole_into(bytes, path, limits),
            Self::Memory(files) => {
                let whole = files.bytes(path)?;
                bytes.clear();
                memory::reserve(bytes, limits.bytes(whole.len() as u64)?)?;
                bytes.extend_from_slice(whole);
                Ok(())
            }
        }
    }

    /// Finds a file that a header names: another file, in the header's folder or below it.
    ///
    /// # Errors
    /// `Malformed` for names that lead out of the folder; `Io` if there is no such file.
    pub(crate) fn sibling(self, header: &Path, name: &str) -> Result<PathBuf> {
        let zip = match self {
            Self::Disk => return read::sibling_path(header, name),
            Self::Zip(zip) => zip,
            Self::Memory(_) => return Err(missing()),
        };
        let folder = header.parent().unwrap_or(Path::new(""));
        let name = name.replace('\\', "/");
        read::check_sibling_name(&name)?;
        let is_part = |part: &Component<'_>| *part != Component::CurDir;
        let path: PathBuf = folder
            .components()
            .chain(Path::new(&name).components())
            .filter(is_part)
            .collect();
        if zip.has(&path) && path != header {
            return Ok(path);
        }
        Err(missing())
    }
}
