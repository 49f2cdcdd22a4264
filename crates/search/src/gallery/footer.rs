//! The end of a segment file: what lies where, and the checksum of every block. Written twice, so
//! that one flipped bit there does not cost a whole segment.

use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::blocks::{BLOCK_BYTES, Blocks, map};
use super::catalog::MAX_NUMBER;
use super::{Maker, version};
use crate::error::{Error, Result};

/// Begins every segment file.
pub(crate) const MAGIC: [u8; 8] = *b"M3RETSEG";
/// Begins the tail of every segment file.
const TAIL_MAGIC: [u8; 8] = *b"M3RETEND";
/// Bytes of a tail.
const TAIL_BYTES: usize = 64;
/// Largest description that is read: far above what any gallery needs.
const MAX_FOOTER_BYTES: u64 = 64 << 20;

/// What lies in a segment file, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Footer {
    pub(crate) version: u32,
    /// The segment's number, as in its name.
    pub(crate) id: u64,
    pub(crate) n_rows: u64,
    /// As many as rows, or more in version 3. `None` in version 1 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) n_vectors: Option<u64>,
    /// Names of views in ascending order, the empty one first, where there are more vectors than rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) views: Vec<String>,
    /// Numbers of a vector.
    pub(crate) width: u32,
    pub(crate) numbers: Numbers,
    /// Names of the metadata columns, in the order of their sections.
    pub(crate) columns: Vec<String>,
    /// Names of what may be attached to a row, in the order of their sections.
    pub(crate) attachments: Vec<String>,
    pub(crate) sections: Vec<Section>,
    /// Segments whose live rows were merged into this one.
    pub(crate) replaces: Vec<u64>,
    pub(crate) maker: Maker,
}

/// How vectors are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Numbers {
    /// As they came.
    #[default]
    F32,
    /// Rounded to 16 bits: half the space, scores change by about 1e-4.
    F16,
}

/// One array of a segment file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Section {
    pub(crate) name: String,
    /// From the start of the file, in bytes.
    pub(crate) offset: u64,
    /// In bytes.
    pub(crate) length: u64,
}

/// A number that tells a segment file from any other of its name.
pub(crate) type Digest = u128;

/// Where the two copies lie, and their checksum.
struct Tail {
    /// Bytes that the checksums of blocks cover; the first copy begins there.
    n_payload: u64,
    n_blocks: u64,
    n_footer: u64,
    digest: Digest,
}

/// Writes both copies and both tails, and returns their checksum.
pub(crate) fn write_end(
    out: &mut impl Write,
    n_payload: u64,
    sums: &[u64],
    footer: &Footer,
) -> std::io::Result<Digest> {
    let json = serde_json::to_vec(footer)?;
    let mut copy = Vec::with_capacity(sums.len() * 8 + json.len());
    copy.extend(sums.iter().flat_map(|sum| sum.to_le_bytes()));
    copy.extend_from_slice(&json);
    let digest = xxh3_128(&copy);
    let tail = Tail {
        n_payload,
        n_blocks: sums.len() as u64,
        n_footer: json.len() as u64,
        digest,
    };
    for bytes in [&copy[..], &copy, &tail.to_bytes(), &tail.to_bytes()] {
        out.write_all(bytes)?;
    }
    Ok(digest)
}

/// Opens a segment file: its blocks, its description, its digest, and whether one of the copies of
/// its end is damaged. Of the blocks, nothing is read yet.
pub(crate) fn open(path: &Path) -> Result<(Blocks, Footer, Digest, bool)> {
    let map = map(path)?;
    let n = map.len();
    let tails = [1, 2].map(|i| {
        let start = n.checked_sub(i * TAIL_BYTES)?;
        Tail::from_bytes(map.get(start..start + TAIL_BYTES)?)
    });
    let mut is_damaged = tails.iter().any(Option::is_none);
    for tail in tails.iter().flatten() {
        let Some((start, length)) = tail.first_copy(n) else {
            is_damaged = true;
            continue;
        };
        let copies = [start, start + length].map(|start| map.get(start..start + length));
        let good = |copy: &&[u8]| xxh3_128(copy) == tail.digest;
        is_damaged |= !copies.iter().flatten().all(good);
        let Some(copy) = copies.into_iter().flatten().find(|copy| good(copy)) else {
            continue;
        };
        let n_table = copy.len() - as_usize(tail.n_footer);
        let (table, json) = copy.split_at(n_table);
        let sums = table
            .as_chunks()
            .0
            .iter()
            .map(|&sum| u64::from_le_bytes(sum));
        let sums: Vec<u64> = sums.collect();
        version::check(json, version::Of::Segment, path)?;
        let footer = serde_json::from_slice(json)
            .map_err(|error| Error::damaged(path, format!("its description: {error}")))?;
        check(&footer, tail.n_payload, path)?;
        let digest = tail.digest;
        let blocks = Blocks::new(path, map, as_usize(tail.n_payload), sums)?;
        return Ok((blocks, footer, digest, is_damaged));
    }
    Err(Error::damaged(
        path,
        format!("no description with its checksum at the end of its {n} bytes"),
    ))
}

impl Tail {
    fn to_bytes(&self) -> [u8; TAIL_BYTES] {
        let mut bytes = [0; TAIL_BYTES];
        bytes[..8].copy_from_slice(&TAIL_MAGIC);
        bytes[8..16].copy_from_slice(&self.n_payload.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.n_blocks.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.n_footer.to_le_bytes());
        bytes[32..48].copy_from_slice(&self.digest.to_le_bytes());
        let sum = xxh3_64(&bytes[..48]);
        bytes[48..56].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let word = |start: usize| Some(u64::from_le_bytes(*bytes.get(start..)?.first_chunk()?));
        let is_good = bytes.starts_with(&TAIL_MAGIC)
            && word(48)? == xxh3_64(bytes.get(..48)?)
            && word(56)? == 0;
        if !is_good {
            return None;
        }
        Some(Self {
            n_payload: word(8)?,
            n_blocks: word(16)?,
            n_footer: word(24)?,
            digest: u128::from_le_bytes(*bytes.get(32..)?.first_chunk()?),
        })
    }

    /// Returns where the first copy begins and how long each is, if both fit the file.
    fn first_copy(&self, n_file: usize) -> Option<(usize, usize)> {
        let length = self.n_blocks.checked_mul(8)?.checked_add(self.n_footer)?;
        let wanted = length
            .checked_mul(2)?
            .checked_add(self.n_payload)?
            .checked_add(2 * TAIL_BYTES as u64)?;
        let fits = wanted == n_file as u64
            && self.n_footer <= MAX_FOOTER_BYTES
            && self.n_blocks == self.n_payload.div_ceil(BLOCK_BYTES as u64);
        fits.then(|| (as_usize(self.n_payload), as_usize(length)))
    }
}

/// Checks that the number of vectors and the names of views are those that the version allows.
fn check_vectors(footer: &Footer, path: &Path) -> Result<()> {
    let is_several = footer.version == version::SEVERAL_VECTORS;
    if footer.n_vectors.is_some() != (footer.version >= version::N_VECTORS) {
        return Err(Error::damaged(
            path,
            "its description does not fit its version",
        ));
    }
    let n_vectors = footer.n_vectors.unwrap_or(footer.n_rows);
    if !is_several && n_vectors != footer.n_rows {
        return Err(Error::Unsupported {
            path: path.to_owned(),
            found: format!("{n_vectors} vectors for {} rows", footer.n_rows),
            wanted: "a segment of its version has one vector a row; use a newer m3ret".to_owned(),
        });
    }
    let views = &footer.views;
    let are_names = views.first().is_some_and(String::is_empty) && views.is_sorted_by(|a, b| a < b);
    let fits = match is_several {
        true => n_vectors > footer.n_rows && are_names,
        false => views.is_empty(),
    };
    match fits {
        true => Ok(()),
        false => Err(Error::damaged(
            path,
            format!(
                "{n_vectors} vectors of {} views for {} rows",
                views.len(),
                footer.n_rows
            ),
        )),
    }
}

/// Checks the numbers of vectors and views, and that sections lie one after another within the payload.
fn check(footer: &Footer, n_payload: u64, path: &Path) -> Result<()> {
    check_vectors(footer, path)?;
    if footer.id >= MAX_NUMBER {
        return Err(Error::damaged(path, format!("the number {}", footer.id)));
    }
    let mut end = MAGIC.len() as u64;
    for section in &footer.sections {
        let next = section.offset.checked_add(section.length);
        if section.offset < end || next.is_none_or(|next| next > n_payload) {
            return Err(Error::damaged(
                path,
                format!("the array {} lies outside its place", section.name),
            ));
        }
        end = next.unwrap_or(end);
    }
    Ok(())
}

/// Converts a size of a mapped file.
fn as_usize(size: u64) -> usize {
    usize::try_from(size).expect("a size that fits a file that is mapped fits memory")
}
