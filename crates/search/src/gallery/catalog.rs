//! The catalog: which segments make up a gallery now. One file a generation; the highest counts.

use std::collections::HashSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::footer::Numbers;
use super::writer::AGREEMENTS;
use super::{Maker, version};
use crate::disk::{Disk, DiskFile as _, read_regular, unfinished_name};
use crate::embedding::MAX_WIDTH;
use crate::error::{Error, Result};
use crate::scan::Calibration;

/// What a gallery consists of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Catalog {
    /// The newest version among those of its segments, or the version that made the gallery.
    pub(crate) version: u32,
    /// Grows by one with every change.
    pub(crate) generation: u64,
    pub(crate) maker: Maker,
    pub(crate) width: usize,
    pub(crate) numbers: Numbers,
    /// What the key must hash to.
    pub(crate) key_check: String,
    /// Number of the next segment.
    pub(crate) next_segment: u64,
    pub(crate) segments: Vec<Entry>,
    /// How to search, and how good that was when it was measured.
    pub(crate) calibration: Option<Calibration>,
    /// The file of `Statistics`, and its checksum; of an older m3ret, samples of scores that nothing reads.
    pub(crate) statistics: Option<Reference>,
    /// The file with images that were refused, and its checksum; a catalog of version 3 may have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refusals: Option<Reference>,
    /// The file with patients who were erased, and its checksum; a catalog of version 5 may have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) erased: Option<Reference>,
}

impl Catalog {
    /// Returns whether it was measured how often first hits agree.
    pub(crate) fn has_agreements(&self) -> bool {
        let file = self.statistics.as_ref();
        file.is_some_and(|file| file.file.starts_with(AGREEMENTS))
    }

    /// Returns how the name of the file of `Statistics` begins.
    pub(crate) fn statistics_kind(&self) -> &'static str {
        match self.has_agreements() {
            true => AGREEMENTS,
            false => STATISTICS,
        }
    }
}

/// One segment of a gallery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) n_rows: u64,
    /// Of the file's end, in hexadecimal.
    pub(crate) digest: String,
    /// The file that says which rows were removed.
    pub(crate) dead: Option<Reference>,
}

impl Entry {
    /// Returns how the names of lists of this segment's removed rows begin.
    pub(crate) fn dead_kind(&self) -> String {
        format!("dead-{:016x}-", self.id)
    }
}

/// How the names of files with samples of scores begin.
pub(crate) const STATISTICS: &str = "statistics-";
/// How the names of files with refused images begin.
pub(crate) const REFUSALS: &str = "refusals-";

/// A file that belongs to a catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reference {
    pub(crate) file: String,
    /// XXH3-128 of its contents, in hexadecimal.
    pub(crate) digest: String,
}

/// Generations and segments have numbers below this, so that the next one never overflows.
pub(super) const MAX_NUMBER: u64 = 1 << 53;

impl Catalog {
    /// Checks the numbers that later arithmetic relies on: a forged catalog has sound checksums, too.
    fn check(&self, path: &Path) -> Result<()> {
        let mut ids = HashSet::new();
        let segments = self.segments.iter();
        let has_sound_segments = self.next_segment <= MAX_NUMBER
            && segments
                .clone()
                .all(|entry| entry.id < self.next_segment && ids.insert(entry.id));
        if !has_sound_segments {
            return Err(Error::damaged(path, "numbers of segments out of range"));
        }
        if !(1..=MAX_WIDTH).contains(&self.width) {
            return Err(Error::damaged(
                path,
                format!("vectors of {} numbers", self.width),
            ));
        }
        match &self.calibration {
            Some(calibration) if !calibration.is_sound() => {
                Err(Error::damaged(path, "a calibration out of range"))
            }
            _ => Ok(()),
        }
    }
}

/// Returns the catalogs in a folder, the newest first.
pub(crate) fn generations(folder: &Path) -> Result<Vec<u64>> {
    let entries = std::fs::read_dir(folder).map_err(Error::io("listing", folder))?;
    let mut generations = Vec::new();
    for entry in entries {
        let name = entry.map_err(Error::io("listing", folder))?.file_name();
        generations.extend(name.to_str().and_then(generation_of));
    }
    generations.sort_unstable_by(|a, b| b.cmp(a));
    Ok(generations)
}

/// Returns the generation that counts; `None` if the folder has no catalog.
pub(crate) fn newest(folder: &Path) -> Result<Option<u64>> {
    Ok(generations(folder)?.first().copied())
}

/// Returns the generation that a file's name tells, if it is a catalog's name.
fn generation_of(name: &str) -> Option<u64> {
    let hexadecimal = name.strip_prefix("catalog-")?.strip_suffix(".json")?;
    let generation = u64::from_str_radix(hexadecimal, 16).ok()?;
    (name == name_of(generation) && generation < MAX_NUMBER).then_some(generation)
}

fn name_of(generation: u64) -> String {
    format!("catalog-{generation:016x}.json")
}

pub(crate) fn path_of(folder: &Path, generation: u64) -> PathBuf {
    folder.join(name_of(generation))
}

/// What every version of a catalog has, and other JSON hardly ever.
#[derive(Deserialize)]
struct Beginning {
    #[serde(rename = "version")]
    _version: u32,
    #[serde(rename = "generation")]
    _generation: u64,
}

/// Bytes that are read of a file that may be a catalog: far above what one has.
const MAX_LOOKED_AT_BYTES: u64 = 1 << 20;

/// Bytes that are read of a catalog or of a file in two copies that it names; one of a million segments has fewer.
pub(super) const MAX_BYTES: u64 = 256 << 20;

/// Says whether a file begins as a catalog. The second copy counts, too: the first may be damaged.
fn begins_as_catalog(path: &Path) -> bool {
    let bytes = read_regular(path, MAX_LOOKED_AT_BYTES).unwrap_or_default();
    // JSON, checksum, JSON, checksum.
    let mut copies = bytes.split(|&byte| byte == b'\n').take(3).step_by(2);
    copies.any(|copy| serde_json::from_slice::<Beginning>(copy).is_ok())
}

/// Says whether a folder is a gallery: whether a file `catalog-GENERATION.json` in it begins as a
/// catalog does. Reads the beginnings of such files only, and does not check that the gallery can
/// be opened.
#[must_use]
pub fn is_gallery(folder: &Path) -> bool {
    let generations = generations(folder).unwrap_or_default();
    let mut catalogs = generations
        .into_iter()
        .map(|generation| path_of(folder, generation));
    catalogs.any(|path| begins_as_catalog(&path))
}

/// Reads the catalog of one generation, and says whether one of its copies is damaged.
pub(crate) fn read(folder: &Path, generation: u64) -> Result<(Catalog, bool)> {
    let path = path_of(folder, generation);
    let bytes = read_regular(&path, MAX_BYTES).map_err(Error::io("reading", &path))?;
    let (json, is_damaged) = good_copy(&bytes, &path)?;
    version::check(json, version::Of::Gallery, &path)?;
    let catalog: Catalog = parse(json, &path)?;
    if catalog.generation != generation {
        return Err(Error::damaged(&path, "a catalog of another generation"));
    }
    catalog.check(&path)?;
    Ok((catalog, is_damaged))
}

/// Writes a value twice, each time with its checksum: two lines a copy.
pub(crate) fn to_copies(value: &impl Serialize) -> std::io::Result<Vec<u8>> {
    Ok(copies(&serde_json::to_vec(value)?))
}

/// Reads a file of two copies that no catalog names.
pub(crate) fn read_copies<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = read_regular(path, MAX_BYTES).map_err(Error::io("reading", path))?;
    let (json, _) = good_copy(&bytes, path)?;
    parse(json, path)
}

/// Returns both copies of some JSON.
fn copies(json: &[u8]) -> Vec<u8> {
    let sum = format!("\n{:032x}\n", xxh3_128(json));
    [json, sum.as_bytes()].concat().repeat(2)
}

/// The contents of a file that a catalog names: known to be those that it names, and not yet parsed.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) path: PathBuf,
    json: Vec<u8>,
    /// Another copy is damaged.
    pub(crate) is_damaged: bool,
}

impl Named {
    /// Reads the first good copy of a file of a kind.
    pub(crate) fn read(folder: &Path, reference: &Reference, kind: &str) -> Result<Self> {
        let path = reference.path_in(folder, kind)?;
        let bytes = read_regular(&path, MAX_BYTES).map_err(Error::io("reading", &path))?;
        let (json, is_damaged) = named_copy(&bytes, &reference.digest, &path)?;
        let json = json.to_vec();
        Ok(Self {
            path,
            json,
            is_damaged,
        })
    }

    /// Writes both copies again if one is damaged.
    pub(crate) fn mend<D: Disk>(&self, disk: &D) -> Result<()> {
        match self.is_damaged {
            true => put(disk, &self.path, &copies(&self.json)),
            false => Ok(()),
        }
    }

    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        parse(&self.json, &self.path)
    }
}

impl Reference {
    /// Writes a value as a file of a gallery, which survives a power cut.
    pub(crate) fn put<D: Disk>(
        disk: &D,
        folder: &Path,
        file: String,
        value: &impl Serialize,
    ) -> Result<Self> {
        let path = folder.join(&file);
        let bytes = to_copies(value).map_err(Error::io("writing", &path))?;
        put(disk, &path, &bytes)?;
        let digest = format!("{:032x}", xxh3_128(&bytes));
        Ok(Self { file, digest })
    }

    /// Names a file that holds a value already.
    pub(crate) fn of(file: String, value: &impl Serialize) -> std::io::Result<Self> {
        let digest = format!("{:032x}", xxh3_128(&to_copies(value)?));
        Ok(Self { file, digest })
    }

    /// Returns where the file lies: in the gallery itself, and named as files of its kind, so that a forged catalog
    /// names nothing elsewhere and nothing that serves another purpose. `kind` begins the name.
    pub(crate) fn path_in(&self, folder: &Path, kind: &str) -> Result<PathBuf> {
        let path = folder.join(&self.file);
        if path.parent() != Some(folder) || path.file_name() != Some(self.file.as_ref()) {
            return Err(Error::damaged(
                folder,
                "its catalog names a file outside the gallery",
            ));
        }
        if !self.file.starts_with(kind) {
            let found = format!("its catalog names a file that is none of `{kind}`");
            return Err(Error::damaged(folder, found));
        }
        Ok(path)
    }
}

/// Returns the JSON of the first good copy, if it is of the file with this digest, and whether another is damaged.
fn named_copy<'a>(bytes: &'a [u8], digest: &str, path: &Path) -> Result<(&'a [u8], bool)> {
    let (json, is_damaged) = good_copy(bytes, path)?;
    // The digest is that of both copies, and one of them may be damaged here.
    if format!("{:032x}", xxh3_128(&copies(json))) != digest {
        return Err(Error::damaged(path, "not the file that the catalog names"));
    }
    Ok((json, is_damaged))
}

/// Returns the JSON of the first good copy, and whether another is damaged.
fn good_copy<'a>(bytes: &'a [u8], path: &Path) -> Result<(&'a [u8], bool)> {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let is_whole = first == second && json_of(first).is_some();
    // Of a file that was cut, the first two lines may be a copy.
    let n_lines = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let cut = n_lines.map(|(at, _)| &bytes[..=at]).nth(1);
    let all = [first, second].into_iter().chain(cut);
    let Some(json) = all.filter_map(json_of).next() else {
        return Err(Error::damaged(
            path,
            "none of its two copies has its checksum",
        ));
    };
    Ok((json, !is_whole))
}

fn parse<T: DeserializeOwned>(json: &[u8], path: &Path) -> Result<T> {
    serde_json::from_slice(json)
        .map_err(|error| Error::damaged(path, format!("its description: {error}")))
}

/// Returns the JSON of a copy that has its checksum.
fn json_of(copy: &[u8]) -> Option<&[u8]> {
    let (json, sum) = copy.split_at_checked(copy.len().checked_sub(34)?)?;
    (sum == format!("\n{:032x}\n", xxh3_128(json)).as_bytes()).then_some(json)
}

/// Gives a complete file its name, so that it and the name survive a power cut.
pub(crate) fn put<D: Disk>(disk: &D, path: &Path, bytes: &[u8]) -> Result<()> {
    let write = |temporary: &Path| -> std::io::Result<()> {
        let mut file = disk.create(temporary)?;
        file.write_all(bytes)?;
        file.flush()?;
        file.sync()?;
        drop(file);
        disk.rename(temporary, path)?;
        disk.sync_folder(path.parent().unwrap_or(Path::new(".")))
    };
    let temporary = unfinished_name(path).map_err(Error::io("naming", path))?;
    let written = write(&temporary).inspect_err(|_| {
        // What cannot be removed now is removed by the next writer.
        let _ = disk.remove(&temporary);
    });
    written.map_err(Error::io("writing", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_good_copy_is_enough_and_damage_is_told() {
        let path = Path::new("x");
        let bytes = to_copies(&"value").unwrap();
        let digest = format!("{:032x}", xxh3_128(&bytes));
        let read = |bytes: &[u8]| {
            let (json, is_damaged) = named_copy(bytes, &digest, path).ok()?;
            Some((parse::<String>(json, path).ok()?, is_damaged))
        };
        assert_eq!(read(&bytes), Some(("value".to_owned(), false)));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert_eq!(read(&flipped), Some(("value".to_owned(), true)), "{at}");
            let whole_copy = at >= bytes.len() / 2;
            let expected = whole_copy.then(|| ("value".to_owned(), true));
            assert_eq!(read(&bytes[..at]), expected, "cut at {at}");
        }
        assert_eq!(read(&to_copies(&"another").unwrap()), None);
    }

    #[test]
    fn a_gallery_is_recognised_by_how_its_catalog_begins() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_gallery(folder.path()) && !is_gallery(&folder.path().join("nothing")));
        let catalog = r#"{"version":9,"generation":3,"later":1}"#;
        let damaged = format!("{{\"version\":#\nsum\n{catalog}\nsum\n");
        for (name, text, expected) in [
            ("catalog-2024.json", catalog, false),
            ("catalog-000000000000000G.json", catalog, false),
            ("catalog-+000000000000003.json", catalog, false),
            ("catalog-0000000000000003.json.bak", catalog, false),
            ("catalog-0000000000000003.json", "", false),
            (
                "catalog-0000000000000003.json",
                "{\"version\": \"2\"}",
                false,
            ),
            ("catalog-0000000000000003.json", "[\n{}]", false),
            ("catalog-0000000000000003.json", catalog, true),
            ("catalog-0000000000000003.json", &damaged, true),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            assert_eq!(is_gallery(folder.path()), expected, "{name}: {text}");
            std::fs::remove_file(&path).unwrap();
        }
    }
}
