//! Writes a segment from start to end, once, with little memory.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use super::super::Maker;
use super::super::blocks::BlockWriter;
use super::super::footer::{Digest, Footer, MAGIC, Numbers, Section, write_end};
use super::super::source::{Source, View, round};
use super::super::text_hash::TextHashes;
use super::super::version;
use super::MAX_ROWS;
use super::lookup::{order_of, stores_order};
use super::views::{OWN_VIEW, order_of_vectors};
use crate::disk::DiskFile;
use crate::error::{Error, Result};
use crate::partition::Partition;
use crate::quantise::Encoder;
use crate::short::{self, Basis, ShortCodes};

/// Arrays begin at pages, so that they are aligned for every number.
const ALIGNMENT: u64 = 4096;

/// Rows that are in memory at once.
const CHUNK_ROWS: usize = 4096;

/// What a segment says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Heading {
    pub(crate) id: u64,
    pub(crate) width: usize,
    pub(crate) numbers: Numbers,
    pub(crate) replaces: Vec<u64>,
    pub(crate) maker: Maker,
}

/// A file that grows array by array.
struct Arrays<'a, F> {
    out: BlockWriter<F>,
    sections: Vec<Section>,
    path: &'a Path,
}

impl<'a, F: DiskFile> Arrays<'a, F> {
    /// Begins a file with its header.
    fn new(file: F, path: &'a Path, version: u32) -> Result<Self> {
        let mut out = BlockWriter::new(file);
        let mut header = [0; 64];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&version.to_le_bytes());
        out.write(&header).map_err(Error::io("writing", path))?;
        Ok(Self {
            out,
            sections: Vec::new(),
            path,
        })
    }

    fn begin(&mut self, name: impl Into<String>) -> Result<()> {
        self.out
            .align(ALIGNMENT)
            .map_err(Error::io("writing", self.path))?;
        self.sections.push(Section {
            name: name.into(),
            offset: self.out.n_bytes(),
            length: 0,
        });
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some(section) = self.sections.last_mut() {
            section.length += bytes.len() as u64;
        }
        self.out
            .write(bytes)
            .map_err(Error::io("writing", self.path))
    }

    /// Writes a whole array.
    fn array<T: bytemuck::NoUninit>(
        &mut self,
        name: impl Into<String>,
        values: &[T],
    ) -> Result<()> {
        self.begin(name)?;
        self.write(bytemuck::cast_slice(values))
    }

    /// Writes texts, then where each ends.
    fn texts<'t>(
        &mut self,
        name: &str,
        texts: impl Iterator<Item = Result<&'t [u8]>>,
    ) -> Result<()> {
        let (mut ends, mut end) = (Vec::new(), 0_u64);
        self.begin(format!("{name}/text"))?;
        for text in texts {
            let text = text?;
            self.write(text)?;
            end += text.len() as u64;
            ends.push(end);
        }
        self.array(format!("{name}/ends"), &ends)
    }
}

/// Writes all rows of a source as a segment; vectors lie in the order of the partition's lists, rows in that of
/// their own vectors.
/// Returns what tells the file from any other, and its version.
pub(crate) fn write<F: DiskFile>(
    file: F,
    path: &Path,
    source: &dyn Source,
    heading: &Heading,
) -> Result<(Digest, u32)> {
    let (n_rows, n_vectors) = (source.n_rows(), source.n_vectors());
    if n_vectors as u64 > MAX_ROWS {
        return Err(Error::LimitExceeded {
            what: "vectors of one segment",
            allowed: MAX_ROWS,
            asked: n_vectors as u64,
        });
    }
    let version = match n_vectors > n_rows {
        true => version::SEVERAL_VECTORS,
        false => version::ONE_VECTOR,
    };
    let io = |error: io::Error| Error::io("writing", path)(error);
    let partition = Partition::of(n_vectors, heading.width, |vectors, out| {
        append(source, heading, vectors, out)
    })?;
    let order = partition.order();
    let mut arrays = Arrays::new(file, path, version)?;
    write_vectors(&mut arrays, source, heading, &order)?;
    write_codes(&mut arrays, source, heading, &order, &partition)?;
    write_short(&mut arrays, source, heading, &order)?;
    arrays.array("lists/centroids", &partition.centroids)?;
    arrays.array("lists/starts", &partition.starts)?;
    let is_own = |vector: &u32| (*vector as usize) < n_rows;
    let rows: Vec<u32> = order.iter().copied().filter(is_own).collect();
    let views = match n_vectors > n_rows {
        true => write_views(&mut arrays, source, &order, &rows)?,
        false => Vec::new(),
    };
    drop(order);
    write_rows(&mut arrays, source, &rows)?;
    let Arrays { out, sections, .. } = arrays;
    let n_payload = out.n_bytes();
    let (mut file, sums) = out.finish().map_err(io)?;
    let footer = Footer {
        version,
        id: heading.id,
        n_rows: n_rows as u64,
        n_vectors: Some(n_vectors as u64),
        views,
        width: u32::try_from(heading.width).unwrap_or(u32::MAX),
        numbers: heading.numbers,
        columns: source.columns().to_vec(),
        attachments: source.attachments().to_vec(),
        sections,
        replaces: heading.replaces.clone(),
        maker: heading.maker.clone(),
    };
    let digest = write_end(&mut file, n_payload, &sums, &footer).map_err(io)?;
    file.flush().map_err(io)?;
    file.sync().map_err(io)?;
    Ok((digest, version))
}

/// Reads vectors as they will be stored.
fn read(source: &dyn Source, heading: &Heading, rows: &[u32], out: &mut Vec<f32>) -> Result<()> {
    out.clear();
    append(source, heading, rows, out)
}

/// Reads vectors as they will be stored, after those that are there.
fn append(source: &dyn Source, heading: &Heading, rows: &[u32], out: &mut Vec<f32>) -> Result<()> {
    let start = out.len();
    source.read(rows, out)?;
    round(&mut out[start..], heading.numbers);
    Ok(())
}

fn write_vectors<F: DiskFile>(
    arrays: &mut Arrays<'_, F>,
    source: &dyn Source,
    heading: &Heading,
    order: &[u32],
) -> Result<()> {
    let mut vectors = Vec::new();
    arrays.begin("vectors")?;
    for rows in order.chunks(CHUNK_ROWS) {
        read(source, heading, rows, &mut vectors)?;
        match heading.numbers {
            Numbers::F32 => arrays.write(bytemuck::cast_slice(&vectors))?,
            Numbers::F16 => {
                let halves = vectors.iter().map(|&x| half::f16::from_f32(x).to_bits());
                arrays.write(bytemuck::cast_slice(&halves.collect::<Vec<u16>>()))?;
            }
        }
    }
    Ok(())
}

/// Writes all codes: those of 8 bits as they come; the others are small and wait for their turn.
fn write_codes<F: DiskFile>(
    arrays: &mut Arrays<'_, F>,
    source: &dyn Source,
    heading: &Heading,
    order: &[u32],
    partition: &Partition,
) -> Result<()> {
    let encoder = Encoder::new(heading.width, &partition.centroids);
    let (mut vectors, mut bits, mut terms) = (Vec::new(), Vec::new(), Vec::new());
    arrays.begin("codes")?;
    for rows in order.chunks(CHUNK_ROWS) {
        read(source, heading, rows, &mut vectors)?;
        let lists: Vec<u32> = rows.iter().map(|&row| partition.list_of(row)).collect();
        let mut encoded = encoder.encode(&vectors, &lists);
        arrays.write(bytemuck::cast_slice(&encoded.codes))?;
        bits.append(&mut encoded.bits);
        terms.append(&mut encoded.terms);
    }
    arrays.array("bits", &bits)?;
    arrays.array("terms", &terms)
}

/// Writes the short codes of all vectors, and the directions that they are of, if few keep nearly all of the vectors.
fn write_short<F: DiskFile>(
    arrays: &mut Arrays<'_, F>,
    source: &dyn Source,
    heading: &Heading,
    order: &[u32],
) -> Result<()> {
    let find = |vectors: &[u32], out: &mut Vec<f32>| append(source, heading, vectors, out);
    let Some(basis) = Basis::find(order.len(), heading.width, find)? else {
        return Ok(());
    };
    let (mut vectors, mut codes) = (Vec::new(), ShortCodes::new(basis.n_short()));
    for rows in order.chunks(CHUNK_ROWS) {
        read(source, heading, rows, &mut vectors)?;
        codes.push(&basis.project(&vectors));
    }
    arrays.array(short::BASIS, basis.directions())?;
    for (name, bytes) in codes.arrays() {
        arrays.array(name, bytes)?;
    }
    Ok(())
}

/// Writes which row and view each vector is of, and the vectors of each row; returns the names of the views.
///
/// `order` has the source's vectors as they lie in the file, `rows` its rows.
fn write_views<F: DiskFile>(
    arrays: &mut Arrays<'_, F>,
    source: &dyn Source,
    order: &[u32],
    rows: &[u32],
) -> Result<Vec<String>> {
    let n_rows = source.n_rows();
    // Views that only rows had which are gone are left out.
    let further = 0..source.n_vectors() - n_rows;
    let mut is_used = vec![false; source.views().len()];
    for idx in further {
        is_used[source.further(idx).name as usize] = true;
    }
    let named = (0_usize..).zip(source.views());
    let mut names: Vec<(usize, &String)> = named.filter(|&(name, _)| is_used[name]).collect();
    names.sort_by_key(|&(_, name)| name);
    let mut view_of = vec![0; is_used.len()];
    for (view, &(name, _)) in (1_u32..).zip(&names) {
        view_of[name] = view;
    }
    let mut place_of = vec![0; n_rows];
    for (place, &row) in (0_u32..).zip(rows) {
        place_of[row as usize] = place;
    }
    // [vectors]: row and view, as they are numbered in the file.
    let belongs = order
        .iter()
        .map(|&vector| match (vector as usize).checked_sub(n_rows) {
            None => (place_of[vector as usize], OWN_VIEW),
            Some(idx) => {
                let View { row, name } = source.further(idx);
                (place_of[row as usize], view_of[name as usize])
            }
        });
    let belongs: Vec<(u32, u32)> = belongs.collect();
    let of_rows: Vec<u32> = belongs.iter().map(|&(row, _)| row).collect();
    let of_views: Vec<u32> = belongs.iter().map(|&(_, view)| view).collect();
    let (by_row, starts) = order_of_vectors(&of_rows, &of_views, n_rows);
    arrays.array("vector/rows", &of_rows)?;
    arrays.array("vector/views", &of_views)?;
    arrays.array("vector/order", &by_row)?;
    arrays.array("vector/starts", &starts)?;
    let further = names.into_iter().map(|(_, name)| name.clone());
    Ok(std::iter::once(String::new()).chain(further).collect())
}

/// Writes what rows have but vectors: ids, cells and what is attached.
fn write_rows<F: DiskFile>(
    arrays: &mut Arrays<'_, F>,
    source: &dyn Source,
    rows: &[u32],
) -> Result<()> {
    write_ids(arrays, source, rows)?;
    write_columns(arrays, source, rows)?;
    for kind in 0..source.attachments().len() {
        let attached = rows.iter().map(|&row| source.attachment(kind, row));
        arrays.texts(&format!("attachment/{kind}"), attached)?;
    }
    Ok(())
}

fn write_ids<F: DiskFile>(
    arrays: &mut Arrays<'_, F>,
    source: &dyn Source,
    order: &[u32],
) -> Result<()> {
    let ids: Vec<&str> = order
        .iter()
        .map(|&row| source.id(row))
        .collect::<Result<_>>()?;
    arrays.texts("ids", ids.iter().map(|id| Ok(id.as_bytes())))?;
    let mut by_id: Vec<u32> = (0..u32::try_from(ids.len()).unwrap_or(u32::MAX)).collect();
    sort_by_text(&mut by_id, |&row| ids[row as usize]);
    let twice = by_id
        .windows(2)
        .find(|pair| ids[pair[0] as usize] == ids[pair[1] as usize]);
    if twice.is_some() {
        return Err(Error::mismatch(
            "ids",
            "no id twice",
            "two rows with the same id",
        ));
    }
    let mut ranks = vec![0; by_id.len()];
    for (rank, &row) in (0_u32..).zip(&by_id) {
        ranks[row as usize] = rank;
    }
    arrays.array("ids/order", &by_id)?;
    arrays.array("ids/rank", &ranks)
}

/// Writes every column as a sorted dictionary and one code for each row, and the rows in the order
/// of their codes where that is worth it.
fn write_columns<F: DiskFile>(
    arrays: &mut Arrays<'_, F>,
    source: &dyn Source,
    order: &[u32],
) -> Result<()> {
    for column in 0..source.columns().len() {
        let (values, codes) = dictionary_of(source, column, order)?;
        let bytes = values.iter().map(|value| Ok(value.as_bytes()));
        arrays.texts(&format!("column/{column}"), bytes)?;
        arrays.array(format!("column/{column}/codes"), &codes)?;
        if stores_order(values.len(), codes.len()) {
            let rows = order_of(&codes, values.len());
            arrays.array(format!("column/{column}/order"), &rows)?;
        }
    }
    Ok(())
}

/// Sorts by texts that differ, in ascending order of bytes. Most comparisons need only the first bytes, which are
/// copied beside the values: the texts lie all over the memory.
fn sort_by_text<'t, T: Copy>(values: &mut [T], text: impl Fn(&T) -> &'t str) {
    let first_bytes = |value: &T| {
        let bytes = text(value).as_bytes();
        let mut first = [0; 8];
        let n = bytes.len().min(8);
        first[..n].copy_from_slice(&bytes[..n]);
        u64::from_be_bytes(first)
    };
    let mut keyed: Vec<(u64, T)> = values
        .iter()
        .map(|value| (first_bytes(value), *value))
        .collect();
    keyed.sort_unstable_by(|(a_first, a), (b_first, b)| {
        a_first.cmp(b_first).then_with(|| text(a).cmp(text(b)))
    });
    for (value, (_, sorted)) in values.iter_mut().zip(keyed) {
        *value = sorted;
    }
}

/// Returns the different values of a column in ascending order, and the place of each row's value.
fn dictionary_of<'s>(
    source: &'s dyn Source,
    column: usize,
    order: &[u32],
) -> Result<(Vec<&'s str>, Vec<u32>)> {
    // Numbered by first use, because the order is known only at the end.
    let mut known: HashMap<&str, u32, TextHashes> = HashMap::with_hasher(TextHashes::new());
    let mut codes = Vec::with_capacity(order.len());
    for &row in order {
        let next = u32::try_from(known.len()).unwrap_or(u32::MAX);
        codes.push(*known.entry(source.value(column, row)?).or_insert(next));
    }
    let mut sorted: Vec<(&str, u32)> = known.into_iter().collect();
    sort_by_text(&mut sorted, |&(value, _)| value);
    let mut places = vec![0; sorted.len()];
    for (place, &(_, number)) in (0_u32..).zip(&sorted) {
        places[number as usize] = place;
    }
    for code in &mut codes {
        *code = places[*code as usize];
    }
    Ok((sorted.into_iter().map(|(value, _)| value).collect(), codes))
}
