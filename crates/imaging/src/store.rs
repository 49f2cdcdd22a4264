//! Where files are read from: the disk, or a zip archive.

use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};
use crate::inflate::{gunzip, gunzip_prefix, is_gzip};
use crate::limits::Limits;
use crate::read::{self, SNIFF_BYTES};
use crate::zip::Zip;

/// A place with files.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Store<'a> {
    /// Paths are those of the file system.
    Disk,
    /// Paths are the names of members.
    Zip(&'a Zip),
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
        let zip = match self {
            Self::Disk => return read::read_prefix(path, n_wanted, limits),
            Self::Zip(zip) => zip,
        };
        let n_stored = zip.size(path)?;
        let n_allowed = limits.max_decompressed(n_stored);
        let n_wanted = n_wanted.min(n_allowed);
        let mut bytes = zip.prefix(path, n_wanted)?;
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
        let missing = std::io::ErrorKind::NotFound.into();
        Err(Error::io("finding the data file of the header", missing))
    }
}
