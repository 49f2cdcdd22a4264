//! Files that are checksummed in blocks: a reader maps the file, and checks a block the first time
//! that anything in it is read.
//!
//! So opening costs nothing that grows with the file, and no byte is used that was not checked.

use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::Mmap;
use xxhash_rust::xxh3::xxh3_64;

use crate::disk::open_regular;
use crate::error::{Error, Result};

/// Bytes of one block.
pub(crate) const BLOCK_BYTES: usize = 64 << 10;

/// Passes bytes on and computes the checksum of every block.
pub(crate) struct BlockWriter<W> {
    out: W,
    block: Vec<u8>,
    n_bytes: u64,
    sums: Vec<u64>,
}

impl<W: Write> BlockWriter<W> {
    pub(crate) fn new(out: W) -> Self {
        Self {
            out,
            block: Vec::with_capacity(BLOCK_BYTES),
            n_bytes: 0,
            sums: Vec::new(),
        }
    }

    /// Returns how many bytes were written.
    pub(crate) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.n_bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let n = bytes.len().min(BLOCK_BYTES - self.block.len());
            let (now, later) = bytes.split_at(n);
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == BLOCK_BYTES {
                self.end_block()?;
            }
        }
        Ok(())
    }

    /// Fills up with zeros to a multiple of `alignment`.
    pub(crate) fn align(&mut self, alignment: u64) -> io::Result<()> {
        let n = self.n_bytes.next_multiple_of(alignment) - self.n_bytes;
        self.write(&vec![0; usize::try_from(n).unwrap_or(0)])
    }

    fn end_block(&mut self) -> io::Result<()> {
        self.sums.push(xxh3_64(&self.block));
        self.out.write_all(&self.block)?;
        self.block.clear();
        Ok(())
    }

    /// Ends the last block and returns the file and all checksums.
    pub(crate) fn finish(mut self) -> io::Result<(W, Vec<u64>)> {
        if !self.block.is_empty() {
            self.end_block()?;
        }
        Ok((self.out, self.sums))
    }
}

/// A mapped file and the checksums of its blocks.
#[derive(Debug)]
pub(crate) struct Blocks {
    path: PathBuf,
    map: Mmap,
    /// Bytes that the checksums cover.
    n_bytes: usize,
    sums: Vec<u64>,
    /// One bit for each block: it was checked.
    is_checked: Vec<AtomicU64>,
}

/// Maps a file for reading.
pub(crate) fn map(path: &Path) -> Result<Mmap> {
    let file = open_regular(path).map_err(Error::io("opening", path))?;
    #[expect(unsafe_code, reason = "a map is a slice only by promise")]
    // SAFETY: files of a gallery are never changed once they have their name; a writer makes new
    // ones. Whoever truncates a gallery's file by hand ends its readers with SIGBUS.
    let map = unsafe { Mmap::map(&file) };
    map.map_err(Error::io("mapping", path))
}

impl Blocks {
    /// Joins a map and the checksums of its first `n_bytes`, which `new` does not check.
    pub(crate) fn new(path: &Path, map: Mmap, n_bytes: usize, sums: Vec<u64>) -> Result<Self> {
        if n_bytes > map.len() || sums.len() != n_bytes.div_ceil(BLOCK_BYTES) {
            return Err(Error::damaged(
                path,
                format!(
                    "{} checksums for {n_bytes} bytes of {}",
                    sums.len(),
                    map.len()
                ),
            ));
        }
        let n_words = sums.len().div_ceil(64);
        Ok(Self {
            path: path.to_owned(),
            map,
            n_bytes,
            sums,
            is_checked: (0..n_words).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    /// Returns bytes, once the blocks that they lie in are known to be as they were written.
    pub(crate) fn bytes(&self, range: Range<usize>) -> Result<&[u8]> {
        let Some(bytes) = self.map.get(range.clone()) else {
            return Err(self.damaged(format!(
                "it ends at {}, {range:?} are wanted",
                self.map.len()
            )));
        };
        if bytes.is_empty() {
            return Ok(bytes);
        }
        for block in range.start / BLOCK_BYTES..=(range.end - 1) / BLOCK_BYTES {
            let (word, bit) = (block / 64, 1_u64 << (block % 64));
            let is_checked = match self.is_checked.get(word) {
                Some(word) => word.load(Ordering::Relaxed) & bit != 0,
                None => false,
            };
            if !is_checked {
                self.check(block)?;
            }
        }
        Ok(bytes)
    }

    /// Compares one block with its checksum.
    #[cold]
    pub(crate) fn check(&self, block: usize) -> Result<()> {
        let start = block * BLOCK_BYTES;
        let bytes = self.map.get(start..self.n_bytes.min(start + BLOCK_BYTES));
        if bytes.map(xxh3_64) != self.sums.get(block).copied() || bytes.is_none() {
            return Err(self.damaged(format!(
                "bytes {start} to {} do not have the checksum that was written with them",
                self.n_bytes.min(start + BLOCK_BYTES)
            )));
        }
        if let Some(word) = self.is_checked.get(block / 64) {
            word.fetch_or(1 << (block % 64), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes all blocks as checked, to look at bytes that are known to be damaged.
    pub(crate) fn trust_all(&self) {
        for word in &self.is_checked {
            word.store(u64::MAX, Ordering::Relaxed);
        }
    }

    pub(crate) fn n_blocks(&self) -> usize {
        self.sums.len()
    }

    /// Returns how many blocks were read so far.
    #[cfg(test)]
    pub(crate) fn n_checked(&self) -> u32 {
        let words = self.is_checked.iter();
        words
            .map(|word| word.load(Ordering::Relaxed).count_ones())
            .sum()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn damaged(&self, found: String) -> Error {
        Error::damaged(&self.path, found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(bytes: &[u8]) -> (tempfile::TempDir, PathBuf, Vec<u64>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut writer = BlockWriter::new(std::fs::File::create(&path).unwrap());
        for piece in bytes.chunks(50_000) {
            writer.write(piece).unwrap();
        }
        assert_eq!(writer.n_bytes(), bytes.len() as u64);
        let (_, sums) = writer.finish().unwrap();
        (folder, path, sums)
    }

    #[test]
    fn a_block_is_checked_when_it_is_read_and_only_then() {
        let bytes: Vec<u8> = (0..200_000_u32).map(|i| (i % 251) as u8).collect();
        let (_folder, path, sums) = written(&bytes);
        let open = || Blocks::new(&path, map(&path).unwrap(), bytes.len(), sums.clone()).unwrap();
        let whole = open();
        assert_eq!(whole.n_blocks(), 4);
        assert_eq!(whole.bytes(0..bytes.len()).unwrap(), bytes);
        assert_eq!(whole.bytes(7..7).unwrap(), b"");
        assert!(whole.bytes(0..bytes.len() + 1).is_err());

        let mut flipped = bytes.clone();
        flipped[70_000] ^= 4;
        std::fs::write(&path, &flipped).unwrap();
        let damaged = open();
        assert!(damaged.bytes(0..60_000).is_ok());
        assert!(damaged.bytes(65_530..65_540).is_err());
        let error = damaged.bytes(70_000..70_001).unwrap_err().to_string();
        assert!(
            error.contains("65536") && error.contains("verify"),
            "{error}"
        );
        assert!(damaged.bytes(140_000..200_000).is_ok());
    }

    #[test]
    fn checksums_must_fit_the_file() {
        let (_folder, path, sums) = written(&[7; 1000]);
        for (n_bytes, sums) in [(2000, sums.clone()), (1000, vec![]), (1000, vec![0; 2])] {
            assert!(Blocks::new(&path, map(&path).unwrap(), n_bytes, sums).is_err());
        }
    }
}
