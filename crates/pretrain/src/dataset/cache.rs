//! Prepared objects on disk, for faster epochs. They hold pixels and no names.
//!
//! A file is named by a hash of what it was made from: path, size and time of the image, and how it was
//! scaled. So a changed image or setting finds nothing, and is prepared again. Whatever is damaged or
//! foreign is prepared again as well.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `M3RETSO3` |
//! | 16 | the key, which is also the name |
//! | 4 | objects of the image, of which this is one |
//! | 4 | which, from 0 |
//! | 1 | kind: 0 image, 1 video, 2 volume |
//! | 1 | 1 if the header of the image says MR or PET |
//! | 2 | 0 |
//! | 16 | C, D, H, W |
//! | 4 | f32: distance of planes in pixels |
//! | 4 | CRC-32C of all other bytes |
//! | | f16 values, W fastest |
//!
//! Numbers are little-endian.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use half::f16;
use half::slice::HalfFloatSliceExt as _;
use m3ret_imaging::{InputConfig, Kind, Scaled};
use xxhash_rust::xxh3::Xxh3;

use crate::error::{Error, Result};
use crate::files::{check_own, make_private_folder, open_regular};

const MAGIC: &[u8; 8] = b"M3RETSO3";
const N_HEADER: usize = 60;

/// Values that are converted at a time.
const N_AT_ONCE: usize = 1024;

/// A folder with prepared objects.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    folder: PathBuf,
    /// How objects are scaled, as text.
    settings: String,
}

/// One prepared object, and what its image is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kept {
    pub(super) object: Scaled,
    pub(super) n_objects: usize,
    pub(super) is_unseen: bool,
}

/// What became of a look into the cache.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    Object(Kept),
    /// Reading it takes so many bytes of memory, more than allowed.
    Needs(u64),
    Nothing,
}

/// Names an image in its present state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key(u128);

impl Cache {
    /// Opens a folder, and makes it if it is not there.
    pub(super) fn open(folder: &Path, input: &InputConfig) -> Result<Self> {
        make_private_folder(folder)?;
        check_own(folder)?;
        // Written now, so that a folder without permission or space is told before the first step.
        tempfile::NamedTempFile::new_in(folder).map_err(Error::io(folder))?;
        Ok(Self {
            folder: folder.to_path_buf(),
            settings: serde_json::to_string(input).unwrap_or_default(),
        })
    }

    /// Returns the key of an image, or `None` if it cannot be looked at.
    pub(super) fn key(&self, path: &Path, part: Option<&str>) -> Option<Key> {
        let mut hash = Xxh3::new();
        hash.update(MAGIC);
        hash.update(self.settings.as_bytes());
        if let Some(part) = part {
            hash.update(&[1]);
            hash.update(part.as_bytes());
            hash.update(&[0]);
        }
        let path = std::path::absolute(path).ok()?;
        hash.update(path.as_os_str().as_encoded_bytes());
        let mut files = vec![path.clone()];
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).ok()?;
            files = entries
                .map(|entry| entry.map(|e| e.path()))
                .collect::<std::io::Result<_>>()
                .ok()?;
            files.sort_unstable();
        }
        for file in files {
            let status = std::fs::metadata(&file).ok()?;
            let changed = status.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
            hash.update(&[0]);
            hash.update(file.as_os_str().as_encoded_bytes());
            hash.update(&status.len().to_le_bytes());
            hash.update(&changed.as_nanos().to_le_bytes());
        }
        Some(Key(hash.digest128()))
    }

    /// Reads an object in at most so many bytes of memory.
    pub(super) fn find(&self, key: Key, idx: usize, allowed_bytes: u64) -> Found {
        self.read(key, idx, allowed_bytes).unwrap_or(Found::Nothing)
    }

    fn read(&self, key: Key, idx: usize, allowed_bytes: u64) -> Option<Found> {
        let mut file = open_regular(&self.file(key, idx)).ok()?;
        let n_bytes = file.metadata().ok()?.len();
        // The file, and its values as f32.
        let needed = n_bytes.checked_mul(3)?;
        if needed > allowed_bytes {
            return Some(Found::Needs(needed));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(n_bytes).ok()?);
        (&mut file).take(n_bytes).read_to_end(&mut bytes).ok()?;
        parsed(&bytes, key, idx).map(Found::Object)
    }

    /// Keeps an object. What cannot be written is only missing later.
    pub(super) fn keep(&self, key: Key, idx: usize, kept: &Kept) {
        // The cache serves speed alone: a full disk must not end a run.
        let _ = self.write(key, idx, kept);
    }

    fn write(&self, key: Key, idx: usize, kept: &Kept) -> std::io::Result<()> {
        let path = self.file(key, idx);
        let folder = path.parent().unwrap_or(&self.folder);
        make_private_folder(folder).map_err(std::io::Error::other)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&encoded(key, idx, kept))?;
        file.persist(path)?;
        Ok(())
    }

    /// A million files in one folder would slow every look: 256 folders share them.
    fn file(&self, key: Key, idx: usize) -> PathBuf {
        let name = format!("{:032x}", key.0);
        let (head, _) = name.split_at(2);
        self.folder.join(head).join(format!("{name}-{idx}.scaled"))
    }
}

fn encoded(key: Key, idx: usize, kept: &Kept) -> Vec<u8> {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
    let kind = match kept.object.kind() {
        Kind::Image => 0,
        Kind::Video => 1,
        Kind::Volume => 2,
    };
    let values = kept.object.values();
    let mut bytes = Vec::with_capacity(N_HEADER + 2 * values.len());
    bytes.extend(MAGIC);
    bytes.extend(key.0.to_le_bytes());
    bytes.extend(number(kept.n_objects));
    bytes.extend(number(idx));
    bytes.extend([kind, u8::from(kept.is_unseen), 0, 0]);
    bytes.extend(kept.object.shape().into_iter().flat_map(number));
    bytes.extend(rounded_step(&kept.object).to_le_bytes());
    bytes.extend([0; 4]);
    let mut halves = [f16::ZERO; N_AT_ONCE];
    for chunk in values.chunks(halves.len()) {
        let halves = &mut halves[..chunk.len()];
        halves.convert_from_f32_slice(chunk);
        bytes.extend(halves.iter().flat_map(|half| half.to_le_bytes()));
    }
    let sum = checksum(&bytes);
    bytes[N_HEADER - 4..N_HEADER].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Reads what `encoded` wrote; `None` for anything else.
fn parsed(bytes: &[u8], key: Key, idx: usize) -> Option<Kept> {
    let (header, payload) = bytes.split_at_checked(N_HEADER)?;
    let number = |start: usize| {
        let four = header.get(start..start + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(four)).ok()
    };
    let is_ours = header.starts_with(MAGIC)
        && header.get(8..24) == Some(&key.0.to_le_bytes())
        && number(28) == Some(idx)
        && number(N_HEADER - 4) == usize::try_from(checksum(bytes)).ok();
    if !is_ours {
        return None;
    }
    let kind = match header.get(32)? {
        0 => Kind::Image,
        1 => Kind::Video,
        2 => Kind::Volume,
        _ => return None,
    };
    let (pairs, _) = payload.as_chunks::<2>();
    let mut values = vec![0.0; pairs.len()];
    let mut halves = [f16::ZERO; N_AT_ONCE];
    for (pairs, values) in pairs.chunks(N_AT_ONCE).zip(values.chunks_mut(N_AT_ONCE)) {
        for (half, &pair) in halves.iter_mut().zip(pairs) {
            *half = f16::from_le_bytes(pair);
        }
        halves[..values.len()].convert_to_f32_slice(values);
    }
    let shape = [number(36)?, number(40)?, number(44)?, number(48)?];
    let depth_step = f32::from_le_bytes(header.get(52..56)?.try_into().ok()?);
    let object = Scaled::new(values, shape, kind).ok()?;
    Some(Kept {
        object: object.with_depth_step(f64::from(depth_step)),
        n_objects: number(24)?,
        is_unseen: header.get(33)? == &1,
    })
}

/// CRC-32C of everything but the place of the checksum.
fn checksum(bytes: &[u8]) -> u32 {
    let (head, rest) = bytes.split_at(N_HEADER - 4);
    crc32c::crc32c_append(crc32c::crc32c(head), &rest[4..])
}

/// Rounds an object as the cache does, so that views do not depend on whether there is one.
pub(super) fn rounded(object: Scaled) -> m3ret_imaging::Result<Scaled> {
    let (shape, kind) = (object.shape(), object.kind());
    let depth_step = f64::from(rounded_step(&object));
    let mut values = object.into_values();
    let mut halves = [f16::ZERO; N_AT_ONCE];
    for chunk in values.chunks_mut(halves.len()) {
        let halves = &mut halves[..chunk.len()];
        halves.convert_from_f32_slice(chunk);
        halves.convert_to_f32_slice(chunk);
    }
    Ok(Scaled::new(values, shape, kind)?.with_depth_step(depth_step))
}

#[allow(clippy::cast_possible_truncation, reason = "a ratio of 1e-3 to 1e3")]
fn rounded_step(object: &Scaled) -> f32 {
    object.depth_step() as f32
}
