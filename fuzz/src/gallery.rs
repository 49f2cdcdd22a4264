//! A good gallery taken to pieces, so that single pieces can be patched and sealed with new checksums.

use std::path::Path;

use m3ret_search::{Batch, Maker, Numbers, Refusal, Setup, View, ViewVectors, Writer};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::input::Input;
use crate::patch;

/// Numbers of a vector.
const WIDTH: usize = 4;
/// Bytes that one checksum of a segment covers.
const BLOCK_BYTES: usize = 64 << 10;
/// Bytes of one tail of a segment.
const TAIL_BYTES: usize = 64;
/// Texts that a patched description may hold.
const TEXTS: [&str; 10] = ["", "../beside", "/", "..", "quarantine", "key", "vectors", "ids/ends", "f16", "path"];

/// One file of a gallery.
#[derive(Clone)]
pub struct Piece {
    /// Its name.
    pub name: String,
    /// What the checksums cover first: JSON, rows or removed rows.
    inner: Vec<u8>,
    /// The description at the end of a segment.
    footer: Vec<u8>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// JSON, twice with its checksum.
    Copies,
    Segment,
    Dead,
    Plain,
}

/// Makes a gallery of two segments with removed rows, refusals and samples of scores.
pub fn make(folder: &Path) -> Vec<Piece> {
    write(folder).expect("a gallery in a temporary folder");
    let entries = std::fs::read_dir(folder).expect("a readable folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
    names.sort();
    let pieces = names.into_iter().map(|name| {
        let bytes = std::fs::read(folder.join(&name)).expect("a readable file");
        Piece::new(name, &bytes)
    });
    let pieces: Vec<Piece> = pieces.collect();
    let kinds = [Kind::Copies, Kind::Segment, Kind::Dead];
    assert!(kinds.iter().all(|kind| pieces.iter().any(|piece| piece.kind == *kind)));
    pieces
}

fn write(folder: &Path) -> m3ret_search::Result<()> {
    let maker = Maker { fingerprint: "test:1".into(), model: "test".into(), precision: "f32".into() };
    let setup = Setup { maker, width: WIDTH, numbers: Numbers::F32 };
    let mut writer = Writer::create(folder, setup)?;
    add(&mut writer, 0..90)?;
    writer.compact()?;
    writer.remove(&["row/3".to_owned(), "row/8".to_owned()])?;
    add(&mut writer, 100..103)?;
    let text = |text: &str| text.to_owned();
    writer.keep_refusals(&[Refusal {
        key: text("k"),
        changed: text("1"),
        reader: text("r"),
        path: text("a.dcm"),
        file: text("/a.dcm"),
        part: None,
        reason: text("malformed"),
        message: text("broken"),
        pixels: String::new(),
    }])
}

fn add(writer: &mut Writer, numbers: std::ops::Range<usize>) -> m3ret_search::Result<()> {
    let vector = |i: usize| {
        let angle = i as f32;
        [angle.cos() * 0.6, angle.sin() * 0.6, 0.8 * (3.0 * angle).cos(), 0.8 * (3.0 * angle).sin()]
    };
    let column = |name: &str, cell: fn(usize) -> String| (name.to_owned(), numbers.clone().map(cell).collect());
    let vectors: Vec<f32> = numbers.clone().flat_map(vector).collect();
    let ids: Vec<String> = numbers.clone().map(|i| format!("row/{i}")).collect();
    let columns = [
        column("modality", |i| ["CT", "MR", "DX"][i % 3].to_owned()),
        column("path", |i| format!("{i}.dcm")),
        column("m3ret:key", |i| format!("key{i}")),
    ];
    // Every third row has two further vectors.
    let named = |row: u32| (0..if row.is_multiple_of(3) { 2 } else { 0 }).map(move |name| View { row, name });
    let of: Vec<View> = (0..numbers.len() as u32).flat_map(named).collect();
    let further: Vec<f32> = (0..of.len()).flat_map(|i| vector(100 + i)).collect();
    let attached = numbers.clone().map(|i| vec![i as u8; i % 5]).collect();
    writer.add(Batch {
        vectors: &vectors,
        ids: &ids,
        columns: &columns,
        attachments: &[("thumbnail".to_owned(), attached)],
        views: ViewVectors { names: &["front".to_owned(), "side".to_owned()], of: &of, vectors: &further },
    })
}

impl Piece {
    fn new(name: String, bytes: &[u8]) -> Self {
        let (kind, inner, footer) = if name.ends_with(".json") {
            let n = bytes.iter().position(|byte| *byte == b'\n').expect("a line");
            (Kind::Copies, &bytes[..n], &[][..])
        } else if name.ends_with(".m3s") {
            let tail = &bytes[bytes.len() - TAIL_BYTES..];
            let number = |at: usize| u64::from_le_bytes(*tail[at..].first_chunk().expect("a tail")) as usize;
            let (payload, after) = bytes.split_at(number(8));
            (Kind::Segment, payload, &after[8 * number(16)..][..number(24)])
        } else if name.ends_with(".bits") {
            (Kind::Dead, &bytes[..bytes.len() / 2 - 16], &[][..])
        } else {
            (Kind::Plain, bytes, &[][..])
        };
        Self { name, inner: inner.to_vec(), footer: footer.to_vec(), kind }
    }

    /// Says whether this is the catalog.
    fn is_catalog(&self) -> bool {
        self.name.starts_with("catalog-")
    }

    /// Changes what the checksums cover.
    pub fn patch(&mut self, input: &mut Input<'_>) {
        let is_json = self.kind == Kind::Copies;
        let json = if is_json { &mut self.inner } else { &mut self.footer };
        match input.byte() % 8 {
            0 | 1 => patch::number(json, input),
            2 => patch::text(json, input, &TEXTS),
            3 => patch::bytes(json, input),
            4 => patch::length(json, input),
            5 if !is_json => patch::length(&mut self.inner, input),
            6 => patch::bytes(&mut self.inner, input),
            _ => self.patch_array(input),
        }
    }

    /// Changes a number of one of the arrays, which are short and lie far apart.
    fn patch_array(&mut self, input: &mut Input<'_>) {
        if self.kind != Kind::Segment {
            patch::word(&mut self.inner, input);
            return;
        }
        let n_arrays = self.inner.len().div_ceil(4096);
        let start = 4096 * input.below(n_arrays);
        let array = self.inner.get_mut(start..).unwrap_or_default();
        let used = array.iter().take(4096).rposition(|byte| *byte != 0).unwrap_or(0);
        let end = (used + 9).min(array.len());
        patch::word(&mut array[..end], input);
    }

    /// Returns the file with sound checksums, and the digest that the catalog holds.
    fn seal(&self) -> (Vec<u8>, String) {
        match self.kind {
            Kind::Copies => {
                let sum = format!("\n{:032x}\n", xxh3_128(&self.inner));
                let bytes = [&self.inner[..], sum.as_bytes()].concat().repeat(2);
                let digest = format!("{:032x}", xxh3_128(&bytes));
                (bytes, digest)
            }
            Kind::Segment => self.seal_segment(),
            Kind::Dead => {
                let digest = xxh3_128(&self.inner);
                let copy = [&self.inner[..], &digest.to_le_bytes()].concat();
                (copy.repeat(2), format!("{digest:032x}"))
            }
            Kind::Plain => (self.inner.clone(), String::new()),
        }
    }

    fn seal_segment(&self) -> (Vec<u8>, String) {
        let sums: Vec<u64> = self.inner.chunks(BLOCK_BYTES).map(xxh3_64).collect();
        let mut copy: Vec<u8> = sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        copy.extend_from_slice(&self.footer);
        let digest = xxh3_128(&copy);
        let mut tail = b"M3RETEND".to_vec();
        for n in [self.inner.len(), sums.len(), self.footer.len()] {
            tail.extend((n as u64).to_le_bytes());
        }
        tail.extend(digest.to_le_bytes());
        tail.extend(xxh3_64(&tail).to_le_bytes());
        tail.extend([0; 8]);
        ([&self.inner[..], &copy, &copy, &tail, &tail].concat(), format!("{digest:032x}"))
    }
}

/// Seals patched pieces: the catalog names their new digests in the place of the `good` ones.
pub fn seal(good: &[Piece], patched: &[Piece]) -> Vec<(String, Vec<u8>)> {
    let mut catalog = None;
    let mut files = Vec::new();
    let mut digests = Vec::new();
    for (old, new) in good.iter().zip(patched) {
        if new.is_catalog() {
            catalog = Some(new.clone());
            continue;
        }
        let (bytes, digest) = new.seal();
        digests.push((old.seal().1, digest));
        files.push((new.name.clone(), bytes));
    }
    if let Some(mut catalog) = catalog {
        for (old, new) in digests.iter().filter(|(old, new)| old != new) {
            let n = old.len();
            let place = catalog.inner.windows(n.max(1)).position(|text| text == old.as_bytes());
            if let Some(at) = place {
                catalog.inner[at..at + n].copy_from_slice(new.as_bytes());
            }
        }
        files.push((catalog.name.clone(), catalog.seal().0));
    }
    files
}
