//! The tensors of a model folder: memory-mapped safetensors, taken one by one.
//!
//! A family *takes* every tensor it knows by name and shape. A tensor that is missing, has another
//! shape, or remains at the end is an error that names it: a model is loaded whole or not at all.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::Read as _;
use std::ops::{Deref, Range};
use std::path::{Component, Path, PathBuf};

use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensors};
use serde::de::DeserializeOwned;
use serde_json::Value;
use xxhash_rust::xxh3::Xxh3;

use crate::error::{Error, Result};

/// Values that one thread converts and hashes at a time; part of the fingerprint's definition.
const CHUNK: usize = 1 << 16;

/// The largest JSON file of a model that is read.
const MAX_JSON_BYTES: u64 = 64 << 20;

/// Characters of a tensor's name that a message repeats.
const MAX_SHOWN: usize = 200;

/// Every tensor of a model that was not taken yet.
#[derive(Debug)]
pub(crate) struct Weights {
    files: Vec<Mapped>,
    tensors: BTreeMap<String, Place>,
    /// Of the tensors that were taken.
    digests: BTreeMap<String, u128>,
}

#[derive(Debug)]
struct Mapped {
    path: PathBuf,
    bytes: Bytes,
}

/// The bytes of a file.
#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    /// Part of the program.
    Static(&'static [u8]),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(bytes) => bytes,
            Self::Static(bytes) => bytes,
        }
    }
}

/// Where a tensor lies.
#[derive(Debug)]
struct Place {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

impl Weights {
    /// Opens one safetensors file, or the shards that an index names.
    ///
    /// # Errors
    /// `Io` if a file cannot be read; `Malformed` if one breaks the format or two hold one name.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let is_index = path
            .extension()
            .is_some_and(|extension| extension == "json");
        let paths = if is_index {
            shards(path)?
        } else {
            vec![path.to_owned()]
        };
        let mut weights = Self {
            files: Vec::with_capacity(paths.len()),
            tensors: BTreeMap::new(),
            digests: BTreeMap::new(),
        };
        for path in paths {
            let bytes = Bytes::Mapped(map(&path)?);
            weights.add(path, bytes)?;
        }
        Ok(weights)
    }

    /// Takes one safetensors file that is part of the program; `path` is what messages call it.
    ///
    /// # Errors
    /// `Malformed` if it breaks the format.
    pub(crate) fn of_bytes(path: &Path, bytes: &'static [u8]) -> Result<Self> {
        let mut weights = Self {
            files: Vec::new(),
            tensors: BTreeMap::new(),
            digests: BTreeMap::new(),
        };
        weights.add(path.to_owned(), Bytes::Static(bytes))?;
        Ok(weights)
    }

    fn add(&mut self, path: PathBuf, bytes: Bytes) -> Result<()> {
        let (n_header, header) = SafeTensors::read_metadata(&bytes).map_err(|error| {
            Error::malformed(
                &path,
                shown(&format!("a broken safetensors header ({error})")),
                "a whole safetensors file; download or copy it again",
            )
        })?;
        let file = self.files.len();
        for (name, tensor) in header.tensors() {
            // Offsets count from the end of the header, which has its length before it.
            let (start, end) = tensor.data_offsets;
            let place = Place {
                file,
                dtype: tensor.dtype,
                shape: tensor.shape.clone(),
                bytes: start + n_header + 8..end + n_header + 8,
            };
            if self.tensors.insert(name.clone(), place).is_some() {
                return Err(Error::malformed(
                    &path,
                    format!("tensor {} for the second time", shown(&name)),
                    "every tensor in one shard only",
                ));
            }
        }
        self.files.push(Mapped { path, bytes });
        Ok(())
    }

    /// Removes a prefix from every name that has it, because a model saved with a task's head has
    /// one. A name that would then exist twice keeps its prefix.
    pub(crate) fn strip_prefix(&mut self, prefix: &str) {
        let names: Vec<_> = self.tensors.keys().cloned().collect();
        for name in names {
            let short = name.strip_prefix(prefix).filter(|short| !self.has(short));
            if let Some(short) = short.map(str::to_owned)
                && let Some(place) = self.tensors.remove(&name)
            {
                self.tensors.insert(short, place);
            }
        }
    }

    /// Returns the shape of a tensor, if it is there.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|place| &place.shape[..])
    }

    /// Returns true if a tensor is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Returns how many layers there are by the numbers that follow a prefix: the largest and one.
    pub(crate) fn n_numbered(&self, prefix: &str) -> usize {
        let names = self.tensors.keys();
        let numbers = names.filter_map(|name| {
            let (number, _) = name.strip_prefix(prefix)?.split_once('.')?;
            number.parse::<usize>().ok()
        });
        numbers.max().map_or(0, |last| last.saturating_add(1))
    }

    /// Takes a tensor as f32, row-major; its pages of the file are given back.
    ///
    /// # Errors
    /// `Malformed`, naming the tensor, if it is not there, has another shape, or holds values that
    /// are not finite; `Unsupported` if it is neither f32, f16 nor bf16.
    pub(crate) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let Some(place) = self.tensors.remove(name) else {
            return Err(self.malformed(
                0,
                format!("no tensor {}", shown(name)),
                format!("one of shape {shape:?}"),
            ));
        };
        if place.shape != shape {
            return Err(self.malformed(
                place.file,
                format!("tensor {} of shape {:?}", shown(name), place.shape),
                format!("shape {shape:?}, by the model's config"),
            ));
        }
        let width = width_of(place.dtype).ok_or_else(|| {
            Error::unsupported(
                format!("tensor {} of type {:?}", shown(name), place.dtype),
                "save the model as F32, F16 or BF16",
            )
        })?;
        let bytes = &self.files[place.file].bytes[place.bytes.clone()];
        let mut values = vec![0.0; bytes.len() / width];
        let chunks = values
            .par_chunks_mut(CHUNK)
            .zip(bytes.par_chunks(CHUNK * width));
        let digests: Option<Vec<u128>> = chunks
            .map(|(values, bytes)| {
                widen(bytes, place.dtype, values);
                let is_finite = values.iter().all(|value| value.is_finite());
                is_finite.then(|| digest(values))
            })
            .collect();
        let Some(digests) = digests else {
            return Err(self.malformed(
                place.file,
                format!("NaN or infinity in tensor {}", shown(name)),
                "finite weights",
            ));
        };
        self.digests
            .insert(name.to_owned(), joined(shape, &digests));
        self.give_back(&place);
        Ok(values)
    }

    /// Checks that nothing is left but tensors whose names begin as listed.
    ///
    /// # Errors
    /// `Malformed` naming the first other tensor.
    pub(crate) fn finish(&self, ignored: &[&str]) -> Result<()> {
        let mut left = self.tensors.iter();
        let is_ignored = |name: &str| ignored.iter().any(|prefix| name.starts_with(prefix));
        match left.find(|(name, _)| !is_ignored(name)) {
            None => Ok(()),
            Some((name, place)) => Err(self.malformed(
                place.file,
                format!("unknown tensor {} of shape {:?}", shown(name), place.shape),
                "only tensors of the model that the config describes",
            )),
        }
    }

    /// Returns the names of the tensors that were not taken, those with one first part as one:
    /// `decoder.*`.
    pub(crate) fn left(&self) -> Vec<String> {
        let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for name in self.tensors.keys() {
            let first = name.split_once('.').map_or(&**name, |(first, _)| first);
            groups.entry(first).or_default().push(name);
        }
        let groups = groups.into_iter().map(|(first, names)| match names[..] {
            [name] => shown(name),
            _ => format!("{}.*", shown(first)),
        });
        groups.collect()
    }

    /// Returns a hash of the tensors that were taken and of `recipe`: 32 hex digits. The order of
    /// files and tensors, and a saved precision that loses nothing, do not change it.
    pub(crate) fn fingerprint(&self, recipe: &str) -> String {
        let mut hasher = Xxh3::new();
        hash_text(&mut hasher, recipe);
        for (name, digest) in &self.digests {
            hash_text(&mut hasher, name);
            hasher.update(&digest.to_le_bytes());
        }
        format!("{:032x}", hasher.digest128())
    }

    /// Advises the system that the pages of a tensor will not be read again.
    #[cfg(unix)]
    #[allow(unsafe_code, reason = "madvise has no safe form that drops pages")]
    fn give_back(&self, place: &Place) {
        let Range { start, end } = place.bytes;
        let Bytes::Mapped(bytes) = &self.files[place.file].bytes else {
            return;
        };
        // SAFETY: the map is private, read-only and of a file: pages dropped here are read from
        // the file again if they are touched again, with the same contents.
        let advised = unsafe {
            bytes.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start)
        };
        // Failure costs memory only: the pages then stay until the map is closed.
        drop(advised);
    }

    #[cfg(not(unix))]
    fn give_back(&self, _place: &Place) {}

    fn malformed(&self, file: usize, found: String, wanted: impl Into<String>) -> Error {
        let path = self.files.get(file).map(|mapped| &mapped.path);
        Error::malformed(
            path.map_or(Path::new("weights"), |path| path),
            found,
            wanted,
        )
    }
}

/// Reads a JSON file of a model.
///
/// # Errors
/// `Io` if it cannot be read, `LimitExceeded` if it is too long, `Malformed` if it is not JSON of
/// the wanted form.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let mut text = Vec::new();
    let mut file = open_file(path)?.take(MAX_JSON_BYTES + 1);
    file.read_to_end(&mut text).map_err(|e| unread(path, e))?;
    if text.len() as u64 > MAX_JSON_BYTES {
        return Err(Error::LimitExceeded {
            what: "bytes of a JSON file of the model",
            allowed: MAX_JSON_BYTES,
            asked: text.len() as u64,
        });
    }
    json_of(path, &text)
}

/// Reads a JSON text; `path` is what messages call it.
///
/// # Errors
/// `Malformed` if it is not JSON of the wanted form.
pub(crate) fn json_of<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T> {
    // Some editors begin a file with a byte order mark.
    let json = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let value = serde_json::from_slice(json).map_err(|error| {
        Error::malformed(
            path,
            shown(&error.to_string()),
            "the JSON that its library writes",
        )
    })?;
    parse_json(path, &value)
}

/// Reads the fields that are known of a file's JSON, or of a part of it.
///
/// # Errors
/// `Malformed`, naming the field that is wrong, what it holds, and what was wanted.
pub(crate) fn parse_json<T: DeserializeOwned>(path: &Path, value: &Value) -> Result<T> {
    T::deserialize(value).map_err(|error| {
        let error = error.to_string();
        let Some((field, value)) = culprit::<T>(value, &error) else {
            return Error::malformed(
                path,
                shown(&error),
                "the fields that the model's library writes",
            );
        };
        let wanted = match error.rsplit_once(", expected ") {
            Some((_, "usize" | "u32" | "u64")) => "a whole number, not negative",
            Some((_, "f32" | "f64")) => "a number",
            Some((_, wanted)) => wanted,
            None => &error,
        };
        let found = shown(&format!("{field} {value}"));
        Error::malformed(path, found, shown(wanted))
    })
}

/// Returns the field without which an object would not have an error.
fn culprit<'a, T: DeserializeOwned>(
    value: &'a Value,
    error: &str,
) -> Option<(&'a String, &'a Value)> {
    if error.starts_with("missing field") {
        return None;
    }
    let fields = value.as_object().filter(|fields| fields.len() <= 256)?;
    fields.iter().find(|(name, _)| {
        let others = fields.iter().filter(|(other, _)| other != name);
        let others: serde_json::Map<_, _> = others.map(|(k, v)| (k.clone(), v.clone())).collect();
        T::deserialize(Value::Object(others)).map_or_else(|e| e.to_string() != error, |_| true)
    })
}

/// Lists the files that an index names, each once.
fn shards(index: &Path) -> Result<Vec<PathBuf>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let Index { weight_map } = read_json(index)?;
    let mut names: Vec<_> = weight_map.into_values().collect();
    names.sort_unstable();
    names.dedup();
    let folder = index.parent().unwrap_or(Path::new(""));
    names
        .into_iter()
        .map(|name| {
            let mut parts = Path::new(&name).components();
            let is_plain = matches!(
                (parts.next(), parts.next()),
                (Some(Component::Normal(_)), None)
            );
            if is_plain && name.ends_with(".safetensors") {
                return Ok(folder.join(name));
            }
            Err(Error::malformed(
                index,
                format!("shard {}", shown(&name)),
                "the name of a .safetensors file beside the index, without a folder",
            ))
        })
        .collect()
}

/// Opens a regular file: a pipe or device would wait or never end.
fn open_file(path: &Path) -> Result<File> {
    let checked = |metadata: std::io::Result<Metadata>| {
        let metadata = metadata.map_err(|e| unread(path, e))?;
        if metadata.is_file() {
            return Ok(());
        }
        Err(Error::malformed(
            path,
            "something that is no file",
            "a file",
        ))
    };
    // The check before avoids opening a pipe, which waits; the one after covers a file that was
    // replaced in between.
    checked(std::fs::metadata(path))?;
    let file = File::open(path).map_err(|e| unread(path, e))?;
    checked(file.metadata())?;
    Ok(file)
}

fn unread(path: &Path, error: std::io::Error) -> Error {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Error::io(format!("reading {name} of the model folder"), error)
}

#[allow(unsafe_code, reason = "mapping a file has no safe form")]
fn map(path: &Path) -> Result<Mmap> {
    let file = open_file(path)?;
    // SAFETY: the map is private and read-only. Another program that shortens the file while it is
    // being loaded would end this one; model folders are not written to in place, and the map is
    // closed when loading ends.
    unsafe { Mmap::map(&file) }.map_err(|e| unread(path, e))
}

fn width_of(dtype: Dtype) -> Option<usize> {
    match dtype {
        Dtype::F32 => Some(4),
        Dtype::F16 | Dtype::BF16 => Some(2),
        _ => None,
    }
}

/// Converts little-endian floats, as far as both reach.
fn widen(bytes: &[u8], dtype: Dtype, values: &mut [f32]) {
    match dtype {
        Dtype::F16 => {
            let halves = bytes.as_chunks().0.iter();
            let halves = halves.map(|&half| half::f16::from_le_bytes(half).to_f32());
            values
                .iter_mut()
                .zip(halves)
                .for_each(|(v, half)| *v = half);
        }
        Dtype::BF16 => {
            let halves = bytes.as_chunks().0.iter();
            let halves = halves.map(|&half| half::bf16::from_le_bytes(half).to_f32());
            values
                .iter_mut()
                .zip(halves)
                .for_each(|(v, half)| *v = half);
        }
        _ => {
            let floats = bytes.as_chunks().0.iter();
            let floats = floats.map(|&float| f32::from_le_bytes(float));
            values
                .iter_mut()
                .zip(floats)
                .for_each(|(v, float)| *v = float);
        }
    }
}

/// Hashes the bits of one chunk.
fn digest(values: &[f32]) -> u128 {
    let mut hasher = Xxh3::new();
    let mut bytes = [[0; 4]; 1024];
    for values in values.chunks(bytes.len()) {
        for (bytes, value) in bytes.iter_mut().zip(values) {
            *bytes = value.to_bits().to_le_bytes();
        }
        hasher.update(bytes[..values.len()].as_flattened());
    }
    hasher.digest128()
}

/// Hashes a tensor's shape and the digests of its chunks.
fn joined(shape: &[usize], digests: &[u128]) -> u128 {
    let mut hasher = Xxh3::new();
    for &side in shape {
        hasher.update(&(side as u64).to_le_bytes());
    }
    for digest in digests {
        hasher.update(&digest.to_le_bytes());
    }
    hasher.digest128()
}

/// The length goes first, so that no two lists of texts give the same bytes.
fn hash_text(hasher: &mut Xxh3, text: &str) {
    hasher.update(&(text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}

/// Makes text from a file fit for a message: one line, no control characters, not long.
pub(crate) fn shown(text: &str) -> String {
    let mut line: String = text
        .chars()
        .take(MAX_SHOWN)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        line.push_str("...");
    }
    line
}

#[cfg(test)]
mod tests;
