//! Which rows of a segment were removed: a file of its own, written anew with every removal.

use std::path::Path;

use xxhash_rust::xxh3::xxh3_128;

use super::catalog::{Reference, put};
use crate::disk::{Disk, read_regular};
use crate::error::{Error, Result};

const MAGIC: [u8; 8] = *b"M3RETDEL";
/// Magic, version and padding, the number of rows.
const HEADER_BYTES: usize = 24;

/// Writes the rows that were removed, twice, each time with its checksum.
pub(crate) fn write<D: Disk>(
    disk: &D,
    path: &Path,
    n_rows: usize,
    dead: &[u64],
) -> Result<Reference> {
    let mut copy = Vec::with_capacity(HEADER_BYTES + 8 * dead.len() + 16);
    copy.extend_from_slice(&MAGIC);
    copy.extend_from_slice(&1_u64.to_le_bytes());
    copy.extend_from_slice(&(n_rows as u64).to_le_bytes());
    copy.extend(dead.iter().flat_map(|word| word.to_le_bytes()));
    let digest = xxh3_128(&copy);
    copy.extend_from_slice(&digest.to_le_bytes());
    put(disk, path, &copy.repeat(2))?;
    Ok(Reference {
        file: path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        digest: format!("{digest:032x}"),
    })
}

/// Returns the checksum of a list that has a good copy.
pub(crate) fn digest_of(path: &Path, n_rows: usize) -> Option<String> {
    let bytes = read_regular(path, max_bytes(n_rows)).ok()?;
    let n_content = HEADER_BYTES + 8 * n_rows.div_ceil(64);
    bytes.chunks(n_content + 16).find_map(|copy| {
        let digest = format!("{:032x}", xxh3_128(copy.get(..n_content)?));
        read(path, n_rows, &digest).ok().map(|_| digest)
    })
}

/// Returns how much of a list is read: one byte more than it has, so that a grown file is told.
fn max_bytes(n_rows: usize) -> u64 {
    2 * (HEADER_BYTES + 8 * n_rows.div_ceil(64) + 16) as u64 + 1
}

/// Reads the rows that were removed, and says whether a copy is damaged.
pub(crate) fn read(path: &Path, n_rows: usize, digest: &str) -> Result<(Vec<u64>, bool)> {
    let bytes = read_regular(path, max_bytes(n_rows)).map_err(Error::io("reading", path))?;
    let n_words = n_rows.div_ceil(64);
    let n_copy = HEADER_BYTES + 8 * n_words + 16;
    let good = |copy: &&[u8]| {
        copy.len() == n_copy && {
            let (content, sum) = copy.split_at(n_copy - 16);
            let found = xxh3_128(content);
            content.starts_with(&MAGIC)
                && sum == found.to_le_bytes()
                && format!("{found:032x}") == digest
        }
    };
    let copies: Vec<&[u8]> = bytes.chunks(n_copy).filter(good).collect();
    let is_damaged = copies.len() != 2 || bytes.len() != 2 * n_copy;
    let Some(copy) = copies.first() else {
        return Err(Error::damaged(
            path,
            "none of its two copies has its checksum",
        ));
    };
    let words = copy[HEADER_BYTES..n_copy - 16].as_chunks().0.iter();
    Ok((
        words.map(|&word| u64::from_le_bytes(word)).collect(),
        is_damaged,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    #[test]
    fn one_good_copy_is_enough_and_damage_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dead-1-2.bits");
        let dead = [3_u64, 1 << 40];
        let reference = write(&RealDisk, &path, 100, &dead).unwrap();
        assert_eq!(reference.file, "dead-1-2.bits");
        let read = |n_rows| read(&path, n_rows, &reference.digest).ok();
        assert_eq!(read(100), Some((dead.to_vec(), false)));
        assert_eq!(read(10), None);
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            std::fs::write(&path, flipped).unwrap();
            assert_eq!(read(100), Some((dead.to_vec(), true)), "{at}");
        }
        std::fs::write(&path, &bytes[..20]).unwrap();
        assert_eq!(read(100), None);
    }
}
