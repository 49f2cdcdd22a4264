//! Traces of rows: by them, files are searched for bytes of rows that are gone.
//!
//! A trace is a keyed hash of some bytes and a keyed sum of the last of them, not the bytes. So it may be kept where the
//! bytes must not be, and files can still be searched for them at every offset.

use std::collections::HashMap;
use std::io::{self, Read};

use half::f16;
use serde::{Deserialize, Serialize};

use super::segment::{Segment, Vectors};
use super::{Gallery, Key, RowId};
use crate::error::Result;

/// Most bytes that a trace is of.
const MAX_BYTES: usize = 128;
/// Lengths of the ends that a sum is taken of: that of a trace is the longest that fits.
const WINDOWS: [usize; 5] = [8, 16, 32, 64, 128];
/// Bytes that are searched at once.
const CHUNK_BYTES: usize = 1 << 20;
/// Binary bytes with fewer different values, such as zeros, are in every file.
const MIN_VALUES: usize = 8;

/// What hashes of bytes are for.
const DIGEST: &str = "m3ret:trace";
/// What the base of the sums is derived for.
const BASE: &str = "m3ret:trace base";

/// How bytes of a row are recognised without them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// What the bytes are: `vector`, `code`, `attachment`, `id` or a word of the caller's.
    pub kind: String,
    /// How many bytes there are.
    pub n_bytes: u8,
    /// A keyed sum of the last of them; 16 hexadecimal digits in JSON, where many programs read numbers as f64.
    #[serde(with = "digits")]
    pub sum: u64,
    /// Their keyed hash.
    pub digest: String,
}

mod digits {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(sum: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{sum:016x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        let is_plain = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let sum = is_plain.then(|| u64::from_str_radix(&text, 16).ok());
        let wanted = "16 hexadecimal digits are wanted";
        sum.flatten()
            .ok_or_else(|| serde::de::Error::custom(wanted))
    }
}

/// Where bytes of a trace were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hit {
    /// Which trace.
    pub trace: usize,
    /// Where its bytes end, counted from the start.
    pub end: u64,
}

impl Key {
    /// Makes a trace of the last bytes of a text; `None` if there are too few to tell it from others.
    #[must_use]
    pub fn trace_of_text(&self, kind: &str, text: &str) -> Option<Trace> {
        let bytes = text.as_bytes();
        self.trace(kind, &bytes[bytes.len().saturating_sub(MAX_BYTES)..])
    }

    /// Makes a trace of the first bytes of something binary; `None` if they are too few or too uniform to tell it from
    /// others.
    #[must_use]
    pub fn trace_of_bytes(&self, kind: &str, bytes: &[u8]) -> Option<Trace> {
        let bytes = &bytes[..bytes.len().min(MAX_BYTES)];
        let mut is_there = [false; 256];
        bytes
            .iter()
            .for_each(|&byte| is_there[usize::from(byte)] = true);
        let n_values = is_there.into_iter().filter(|is_there| *is_there).count();
        (n_values >= MIN_VALUES).then(|| self.trace(kind, bytes))?
    }

    fn trace(&self, kind: &str, bytes: &[u8]) -> Option<Trace> {
        let window = window_of(bytes.len())?;
        let base = base_of(self);
        let end = &bytes[bytes.len() - window..];
        Some(Trace {
            kind: kind.to_owned(),
            n_bytes: u8::try_from(bytes.len()).ok()?,
            sum: end.iter().fold(0, |sum, &byte| next(sum, base, byte)),
            digest: digest_of(self, bytes),
        })
    }
}

impl Gallery {
    /// Makes a trace of the last bytes of a text; `None` if there are too few to tell it from others.
    #[must_use]
    pub fn trace_of_text(&self, kind: &str, text: &str) -> Option<Trace> {
        self.key.trace_of_text(kind, text)
    }

    /// Makes the traces of everything binary that a row holds, removed or not: of each vector in both number formats,
    /// of its code, and of what is attached. Returns how many were too short or too uniform, too.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn traces_of_row(&self, row: RowId) -> Result<(Vec<Trace>, usize)> {
        let (mut traces, mut n_left_out) = (Vec::new(), 0);
        self.each_part(
            row,
            &mut |kind, bytes| match self.key.trace_of_bytes(kind, bytes) {
                Some(trace) => traces.push(trace),
                None => n_left_out += 1,
            },
        )?;
        Ok((traces, n_left_out))
    }

    /// Calls `take` with the kind and the first bytes of everything binary that a row holds.
    fn each_part(&self, row: RowId, take: &mut dyn FnMut(&str, &[u8])) -> Result<()> {
        let segment = self.segment(row)?;
        for &place in segment.vectors_of(row.row)?.as_slice() {
            let place = place as usize;
            let [single, half] = both_formats(segment, place)?;
            take("vector", &single);
            take("vector", &half);
            take(
                "code",
                bytemuck::cast_slice(segment.codes(place..place + 1)?),
            );
        }
        for kind in 0..segment.attachments().len() {
            let attached = segment.attachment(kind, row.row)?;
            if !attached.is_empty() {
                take("attachment", &attached[..attached.len().min(MAX_BYTES)]);
            }
        }
        Ok(())
    }

    /// Searches what the rows of the gallery hold, and returns which traces are there: bytes that an image shares with
    /// one that is gone, and texts that contain those of another.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn shared_traces(&self, scanner: &Scanner) -> Result<Vec<bool>> {
        let mut is_there = vec![false; scanner.n_traces];
        let mut find =
            |bytes: &[u8]| scanner.search(bytes, 0, &mut |hit| is_there[hit.trace] = true);
        for row in self.rows() {
            self.each_part(row, &mut |_, bytes| find(bytes))?;
        }
        for segment in self.segments() {
            let mut ids = String::new();
            for row in segment.live() {
                ids.push_str(segment.id(row)?);
            }
            find(ids.as_bytes());
            for column in 0..segment.columns().len() {
                let values = segment.dictionary(column)?;
                let mut text = String::new();
                for value in 0..values.len() {
                    text.push_str(values.get_str(value)?);
                }
                find(text.as_bytes());
            }
        }
        for refusal in self.refusals()? {
            find(
                serde_json::to_string(&refusal)
                    .unwrap_or_default()
                    .as_bytes(),
            );
        }
        Ok(is_there)
    }
}

/// Returns the first bytes of a vector as 32 and as 16 bits, one of which is how it is stored.
fn both_formats(segment: &Segment, place: usize) -> Result<[Vec<u8>; 2]> {
    let single: Vec<f32> = match segment.vectors(place..place + 1)? {
        Vectors::F32(values) => values.to_vec(),
        Vectors::F16(values) => values.iter().map(|x| x.to_f32()).collect(),
    };
    let half = single.iter().take(MAX_BYTES / 2);
    let half = half.flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect();
    let single = single.iter().take(MAX_BYTES / 4);
    Ok([single.flat_map(|x| x.to_le_bytes()).collect(), half])
}

/// Returns of how many last bytes the sum is taken; `None` for too few bytes.
fn window_of(n_bytes: usize) -> Option<usize> {
    let mut windows = WINDOWS.into_iter().filter(|&window| window <= n_bytes);
    windows.next_back()
}

fn base_of(key: &Key) -> u64 {
    let digest = key.digest(BASE, &[]);
    let (first, _) = digest.as_bytes().split_at(8);
    // Even numbers would push old bytes out.
    first
        .iter()
        .fold(0, |base, &byte| base << 8 | u64::from(byte))
        | 1
}

fn digest_of(key: &Key, bytes: &[u8]) -> String {
    key.digest(DIGEST, bytes).to_hex()[..32].to_owned()
}

/// Appends a byte to a sum.
fn next(sum: u64, base: u64, byte: u8) -> u64 {
    sum.wrapping_mul(base).wrapping_add(u64::from(byte) + 1)
}

/// The traces whose sums are of one length.
struct Window {
    length: usize,
    /// What a byte counts in a sum when it leaves the window.
    weight: u64,
    /// One bit for each of the highest 16 bits of a sum that a trace has.
    filter: Vec<u64>,
    traces: HashMap<u64, Vec<usize>>,
}

/// Searches bytes for those of traces.
pub struct Scanner {
    key: Key,
    base: u64,
    n_traces: usize,
    /// Length and digest of each trace.
    wanted: Vec<(usize, String)>,
    windows: Vec<Window>,
}

impl std::fmt::Debug for Scanner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Scanner({} traces)", self.n_traces)
    }
}

impl Scanner {
    /// Prepares a search for traces that this gallery made. A trace of an impossible length is never found.
    #[must_use]
    pub fn new(gallery: &Gallery, traces: &[Trace]) -> Self {
        Self::with_key(&gallery.key, traces)
    }

    /// Prepares a search for traces that were made with this key.
    #[must_use]
    pub fn with_key(key: &Key, traces: &[Trace]) -> Self {
        let key = key.clone();
        let base = base_of(&key);
        let mut windows: Vec<Window> = Vec::new();
        for (idx, trace) in traces.iter().enumerate() {
            let Some(length) = window_of(usize::from(trace.n_bytes)) else {
                continue;
            };
            let place = windows.iter().position(|window| window.length == length);
            let place = place.unwrap_or_else(|| {
                windows.push(Window::new(length, base));
                windows.len() - 1
            });
            windows[place].add(trace.sum, idx);
        }
        let wanted = traces.iter().map(|trace| {
            let n_bytes = usize::from(trace.n_bytes).min(MAX_BYTES);
            (n_bytes, trace.digest.clone())
        });
        Self {
            key,
            base,
            n_traces: traces.len(),
            wanted: wanted.collect(),
            windows,
        }
    }

    /// Searches everything that a reader gives; returns how many bytes that were.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn scan(&self, mut reader: impl Read, found: &mut dyn FnMut(Hit)) -> io::Result<u64> {
        let mut bytes = Vec::with_capacity(CHUNK_BYTES + MAX_BYTES);
        // How many of the bytes were searched already, and how many there were before them.
        let (mut n_old, mut n_before) = (0, 0_u64);
        loop {
            let chunk = CHUNK_BYTES as u64;
            let n_read = reader.by_ref().take(chunk).read_to_end(&mut bytes)?;
            if n_read == 0 {
                return Ok(n_before + n_old as u64);
            }
            self.search(&bytes, n_old, &mut |hit| {
                let end = hit.end + n_before;
                found(Hit { end, ..hit });
            });
            let n_gone = bytes.len().saturating_sub(MAX_BYTES - 1);
            bytes.drain(..n_gone);
            n_before += n_gone as u64;
            n_old = bytes.len();
        }
    }

    /// Searches bytes, and tells what ends behind the first `n_old`.
    fn search(&self, bytes: &[u8], n_old: usize, found: &mut dyn FnMut(Hit)) {
        for window in &self.windows {
            let (length, mut sum) = (window.length, 0);
            for (idx, &byte) in bytes.iter().enumerate() {
                sum = next(sum, self.base, byte);
                if idx >= length {
                    let gone = u64::from(bytes[idx - length]) + 1;
                    sum = sum.wrapping_sub(gone.wrapping_mul(window.weight));
                }
                if idx + 1 >= length && idx >= n_old && window.may_have(sum) {
                    self.compare(window, sum, &bytes[..=idx], found);
                }
            }
        }
    }

    /// Tells the traces whose bytes end `bytes`.
    #[cold]
    fn compare(&self, window: &Window, sum: u64, bytes: &[u8], found: &mut dyn FnMut(Hit)) {
        for &trace in window.traces.get(&sum).into_iter().flatten() {
            let (n_bytes, digest) = &self.wanted[trace];
            let tail = bytes.len().checked_sub(*n_bytes).map(|at| &bytes[at..]);
            if tail.is_some_and(|tail| digest_of(&self.key, tail) == *digest) {
                let end = bytes.len() as u64;
                found(Hit { trace, end });
            }
        }
    }
}

impl Window {
    fn new(length: usize, base: u64) -> Self {
        Self {
            length,
            weight: (0..length).fold(1, |weight: u64, _| weight.wrapping_mul(base)),
            filter: vec![0; 1 << 10],
            traces: HashMap::new(),
        }
    }

    fn add(&mut self, sum: u64, trace: usize) {
        let (word, bit) = place_in_filter(sum);
        self.filter[word] |= 1 << bit;
        self.traces.entry(sum).or_default().push(trace);
    }

    fn may_have(&self, sum: u64) -> bool {
        let (word, bit) = place_in_filter(sum);
        self.filter[word] >> bit & 1 == 1
    }
}

/// Returns word and bit of the highest 16 bits of a sum: the lowest depend on few bytes.
fn place_in_filter(sum: u64) -> (usize, u64) {
    let place = sum >> 48;
    (usize::try_from(place >> 6).unwrap_or(0), place & 63)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gallery::Numbers;
    use crate::testing::{gallery, vectors};

    fn found(scanner: &Scanner, bytes: &[u8]) -> Vec<Hit> {
        let mut hits = Vec::new();
        let n_bytes = scanner.scan(bytes, &mut |hit| hits.push(hit)).unwrap();
        assert_eq!(n_bytes, bytes.len() as u64);
        hits.sort_unstable();
        hits
    }

    #[test]
    fn bytes_are_found_at_every_offset_and_across_chunks() {
        let folder = tempfile::tempdir().unwrap();
        let writer = gallery(&folder.path().join("g.m3i"), 8, Numbers::F32, &[]);
        let gallery = writer.gallery();
        let long: Vec<u8> = (0..200_u8).map(|i| i.wrapping_mul(7)).collect();
        let texts = ["12345678", "123456789", "archive/0000017.dcm"];
        let mut traces = vec![gallery.key.trace_of_bytes("x", &long).unwrap()];
        traces.extend(texts.map(|text| gallery.trace_of_text("id", text).unwrap()));
        let scanner = Scanner::new(gallery, &traces);
        for before in [
            0,
            1,
            127,
            128,
            CHUNK_BYTES - 60,
            CHUNK_BYTES,
            2 * CHUNK_BYTES - 1,
        ] {
            for (idx, pattern) in [&long[..128], texts[0].as_bytes(), texts[2].as_bytes()]
                .into_iter()
                .enumerate()
            {
                let trace = [0, 1, 3][idx];
                let mut bytes = vec![0; before];
                bytes.extend(pattern);
                let end = bytes.len() as u64;
                bytes.extend([0; 300]);
                assert_eq!(found(&scanner, &bytes), [Hit { trace, end }], "{before}");
                // One byte less is another text.
                bytes[before] ^= 0x80;
                assert_eq!(found(&scanner, &bytes), [], "{before}");
            }
        }
        // A text that ends another is found in it.
        let hits = found(&scanner, b"0123456789");
        assert_eq!(hits.iter().map(|hit| hit.trace).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn what_is_short_or_uniform_has_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        let parts = [vectors(0, 3, 8, 0)];
        let writer = gallery(&folder.path().join("g.m3i"), 8, Numbers::F16, &parts);
        let gallery = writer.gallery();
        assert_eq!(gallery.trace_of_text("id", "1234567"), None);
        assert_eq!(gallery.key.trace_of_bytes("x", &[0; 128]), None);
        let row = gallery.find("row/2").unwrap().unwrap();
        let (traces, n_left_out) = gallery.traces_of_row(row).unwrap();
        let kinds: Vec<&str> = traces.iter().map(|trace| trace.kind.as_str()).collect();
        assert_eq!(kinds, ["vector", "vector", "code"]);
        assert_eq!(n_left_out, 1, "two bytes are attached");
        let scanner = Scanner::new(gallery, &traces);
        assert_eq!(gallery.shared_traces(&scanner).unwrap(), [true; 3]);
    }
}
