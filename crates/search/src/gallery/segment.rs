//! A segment: an immutable file with some of a gallery's rows. docs/gallery-format.md has every byte.

pub(crate) mod lookup;
pub(crate) mod write;

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bytemuck::AnyBitPattern;
use half::slice::HalfBitsSliceExt as _;

use super::blocks::Blocks;
use super::footer::{self, Digest, Footer, Numbers};
use super::source::Source;
use crate::embedding::MAX_WIDTH;
use crate::error::{Error, Result};
use crate::partition::Directions;
use crate::quantise::{Terms, bit_stride, code_stride};

/// Most rows of one segment.
pub(crate) const MAX_ROWS: u64 = u32::MAX as u64 - 1;

/// An open segment. Everything in it is checked against its checksum when it is read first.
#[derive(Debug)]
pub(crate) struct Segment {
    blocks: Blocks,
    footer: Footer,
    digest: Digest,
    /// One of the two copies of the file's end is damaged.
    pub(crate) has_damaged_copy: bool,
    places: HashMap<String, Range<usize>>,
    /// Where the arrays lie that a search reads all the time.
    hot: Hot,
    n_rows: usize,
    width: usize,
    /// One bit for each row that was removed.
    dead: Option<Vec<u64>>,
    /// Made of the centroids when they are first asked for.
    directions: OnceLock<Directions>,
}

/// Places of arrays that are not looked up by name.
#[derive(Debug, Default)]
struct Hot {
    vectors: Range<usize>,
    codes: Range<usize>,
    terms: Range<usize>,
    bits: Range<usize>,
}

/// Vectors as they are stored, [rows, width].
#[derive(Debug, Clone, Copy)]
pub(crate) enum Vectors<'a> {
    F32(&'a [f32]),
    F16(&'a [half::f16]),
}

/// Texts, one after another, and where each ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Texts<'a> {
    segment: &'a Segment,
    text: &'a Range<usize>,
    ends: &'a Range<usize>,
}

impl Segment {
    /// Opens a segment file and checks its description, not yet its contents.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let (blocks, footer, digest, has_damaged_copy) = footer::open(path)?;
        let damaged = |found: String| Err(Error::damaged(path, found));
        let (Ok(width), true) = (usize::try_from(footer.width), footer.n_rows <= MAX_ROWS) else {
            return damaged(format!("{} rows of {}", footer.n_rows, footer.width));
        };
        if width == 0 || width > MAX_WIDTH {
            return damaged(format!("vectors of {width} numbers"));
        }
        let sections = footer.sections.iter().map(|section| {
            // `footer::open` knows that every section lies within the file.
            let start = usize::try_from(section.offset).unwrap_or(usize::MAX);
            let length = usize::try_from(section.length).unwrap_or(0);
            (section.name.clone(), start..start + length)
        });
        let mut segment = Self {
            hot: Hot::default(),
            places: sections.collect(),
            n_rows: usize::try_from(footer.n_rows).unwrap_or(usize::MAX),
            width,
            blocks,
            footer,
            digest,
            has_damaged_copy,
            dead: None,
            directions: OnceLock::new(),
        };
        segment.check_lengths()?;
        segment.hot = Hot {
            vectors: segment.place("vectors")?.clone(),
            codes: segment.place("codes")?.clone(),
            terms: segment.place("terms")?.clone(),
            bits: segment.place("bits")?.clone(),
        };
        Ok(segment)
    }

    /// Checks that every array is there and has the length that its rows need.
    fn check_lengths(&self) -> Result<()> {
        let n_vector = match self.footer.numbers {
            Numbers::F32 => 4 * self.width,
            Numbers::F16 => 2 * self.width,
        };
        let mut per_row = vec![
            ("vectors".to_owned(), n_vector),
            ("codes".to_owned(), code_stride(self.width)),
            ("terms".to_owned(), size_of::<Terms>()),
            ("bits".to_owned(), 8 * bit_stride(self.width)),
            ("ids/ends".to_owned(), 8),
            ("ids/order".to_owned(), 4),
            ("ids/rank".to_owned(), 4),
        ];
        for column in 0..self.footer.columns.len() {
            per_row.push((format!("column/{column}/codes"), 4));
            if self.value_order(column).is_some() {
                per_row.push((format!("column/{column}/order"), 4));
            }
        }
        for kind in 0..self.footer.attachments.len() {
            per_row.push((format!("attachment/{kind}/ends"), 8));
        }
        for (name, n_bytes) in per_row {
            let wanted = self.n_rows.checked_mul(n_bytes);
            let found = self.place(&name)?.len();
            if wanted != Some(found) {
                return Err(self.damaged(format!("{found} bytes of {name}")));
            }
        }
        if self.has_sorted_values() {
            for column in 0..self.footer.columns.len() {
                self.check_dictionary(column)?;
            }
        }
        Ok(())
    }

    /// Checks that a column has no more values than rows.
    fn check_dictionary(&self, column: usize) -> Result<()> {
        let Texts { ends, .. } = self.dictionary(column)?;
        if ends.len() % 8 == 0 && ends.len() / 8 <= self.n_rows {
            return Ok(());
        }
        Err(self.damaged(format!("{} bytes of column/{column}/ends", ends.len())))
    }

    pub(crate) fn path(&self) -> &Path {
        self.blocks.path()
    }

    pub(crate) fn footer(&self) -> &Footer {
        &self.footer
    }

    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    pub(crate) fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// Marks the rows that were removed.
    pub(crate) fn with_dead(self, dead: Option<Vec<u64>>) -> Self {
        Self { dead, ..self }
    }

    pub(crate) fn dead_rows(&self) -> Option<&Vec<u64>> {
        self.dead.as_ref()
    }

    pub(crate) fn is_live(&self, row: u32) -> bool {
        let is_dead = self.dead.as_ref().is_some_and(|dead| {
            let word = dead.get(row as usize / 64).copied().unwrap_or(0);
            word >> (row % 64) & 1 == 1
        });
        !is_dead && (row as usize) < self.n_rows
    }

    /// Returns how many rows were not removed.
    pub(crate) fn n_live(&self) -> usize {
        let dead = self.dead.iter().flatten();
        let n_dead: u32 = dead.map(|word| word.count_ones()).sum();
        self.n_rows.saturating_sub(n_dead as usize)
    }

    /// Iterates over the rows that were not removed.
    pub(crate) fn live(&self) -> impl Iterator<Item = u32> {
        let n_rows = u32::try_from(self.n_rows).unwrap_or(u32::MAX);
        (0..n_rows).filter(|&row| self.is_live(row))
    }

    fn damaged(&self, found: impl Into<String>) -> Error {
        Error::damaged(self.path(), found)
    }

    /// Returns where an array lies.
    pub(crate) fn place(&self, name: &str) -> Result<&Range<usize>> {
        let place = self.places.get(name);
        place.ok_or_else(|| self.damaged(format!("the array {name} is missing")))
    }

    /// Returns numbers `items` of an array.
    fn numbers<T: AnyBitPattern>(&self, name: &str, items: Range<usize>) -> Result<&[T]> {
        self.numbers_at(self.place(name)?, items)
    }

    /// Returns numbers `items` of the array at a place.
    #[inline]
    fn numbers_at<T: AnyBitPattern>(
        &self,
        place: &Range<usize>,
        items: Range<usize>,
    ) -> Result<&[T]> {
        let byte = |item: usize| {
            let offset = item.checked_mul(size_of::<T>())?;
            place
                .start
                .checked_add(offset)
                .filter(|&end| end <= place.end)
        };
        let (Some(start), Some(end)) = (byte(items.start), byte(items.end)) else {
            return Err(Error::mismatch(
                "items of an array",
                format!("at most {}", place.len() / size_of::<T>()),
                format!("{items:?}"),
            ));
        };
        let bytes = self.blocks.bytes(start..end.max(start))?;
        bytemuck::try_cast_slice(bytes).map_err(|error| self.damaged(format!("an array: {error}")))
    }

    fn texts(&self, name: &str) -> Result<Texts<'_>> {
        Ok(Texts {
            segment: self,
            text: self.place(&format!("{name}/text"))?,
            ends: self.place(&format!("{name}/ends"))?,
        })
    }

    /// Returns the row with this id, removed or not.
    pub(crate) fn find(&self, id: &str) -> Result<Option<u32>> {
        let (ids, order) = (self.texts("ids")?, self.place("ids/order")?);
        let row =
            |place: usize| -> Result<u32> { Ok(self.numbers_at(order, place..place + 1)?[0]) };
        let id_at = |place: usize| ids.get(row(place)? as usize);
        let place =
            lookup::first_not_before(self.n_rows, |place| Ok(id_at(place)? < id.as_bytes()))?;
        if place == self.n_rows || id_at(place)? != id.as_bytes() {
            return Ok(None);
        }
        row(place).map(Some)
    }

    /// Returns rows in ascending order of their ids.
    pub(crate) fn order(&self) -> Result<&[u32]> {
        self.numbers("ids/order", 0..self.n_rows)
    }

    /// Returns the code of every row's cell in a column: an index in its dictionary.
    pub(crate) fn cells(&self, column: usize) -> Result<&[u32]> {
        self.numbers(&format!("column/{column}/codes"), 0..self.n_rows)
    }

    /// Returns the different values of a column.
    pub(crate) fn dictionary(&self, column: usize) -> Result<Texts<'_>> {
        self.texts(&format!("column/{column}"))
    }

    /// Returns where a column is, by name.
    pub(crate) fn column(&self, name: &str) -> Option<usize> {
        self.footer.columns.iter().position(|other| other == name)
    }

    /// Returns one row's vector as f32.
    pub(crate) fn vector(&self, row: u32) -> Result<Vec<f32>> {
        let mut vector = Vec::with_capacity(self.width);
        self.read(&[row], &mut vector)?;
        Ok(vector)
    }
}

impl<'a> Texts<'a> {
    pub(crate) fn len(&self) -> usize {
        self.ends.len() / 8
    }

    /// Returns the bytes of one text.
    pub(crate) fn get(&self, idx: usize) -> Result<&'a [u8]> {
        let end = |idx: usize| -> Result<usize> {
            let start = self.ends.start + 8 * idx;
            let bytes = self.segment.blocks.bytes(start..start + 8)?;
            let end = bytes.first_chunk().map(|&bytes| u64::from_le_bytes(bytes));
            let end = end.and_then(|end| usize::try_from(end).ok());
            let is_good = |end: &usize| *end <= self.text.len();
            end.filter(is_good)
                .ok_or_else(|| self.segment.damaged("a text ends outside its array"))
        };
        if idx >= self.len() {
            return Err(self
                .segment
                .damaged(format!("text {idx} of {}", self.len())));
        }
        let start = if idx == 0 { 0 } else { end(idx - 1)? };
        let end = end(idx)?;
        if start > end {
            return Err(self.segment.damaged("a text ends before it begins"));
        }
        self.segment
            .blocks
            .bytes(self.text.start + start..self.text.start + end)
    }

    /// Returns one text.
    pub(crate) fn get_str(&self, idx: usize) -> Result<&'a str> {
        let not_text = |_| self.segment.damaged("a text that is not UTF-8");
        std::str::from_utf8(self.get(idx)?).map_err(not_text)
    }
}

impl Source for Segment {
    fn n_rows(&self) -> usize {
        self.n_rows
    }

    fn read(&self, rows: &[u32], out: &mut Vec<f32>) -> Result<()> {
        for &row in rows {
            let row = row as usize;
            match self.vectors(row..row + 1)? {
                Vectors::F32(values) => out.extend_from_slice(values),
                Vectors::F16(values) => out.extend(values.iter().map(|x| x.to_f32())),
            }
        }
        Ok(())
    }

    fn id(&self, row: u32) -> Result<&str> {
        self.texts("ids")?.get_str(row as usize)
    }

    fn columns(&self) -> &[String] {
        &self.footer.columns
    }

    fn value(&self, column: usize, row: u32) -> Result<&str> {
        let row = row as usize;
        let name = format!("column/{column}/codes");
        let code: &[u32] = self.numbers(&name, row..row + 1)?;
        self.dictionary(column)?.get_str(code[0] as usize)
    }

    fn attachments(&self) -> &[String] {
        &self.footer.attachments
    }

    fn attachment(&self, kind: usize, row: u32) -> Result<&[u8]> {
        self.texts(&format!("attachment/{kind}"))?.get(row as usize)
    }
}

/// The rows of a segment that were not removed, or those of them that are asked for.
pub(crate) struct Chosen<'a> {
    segment: &'a Segment,
    rows: Vec<u32>,
    /// What is attached to a row and cannot be read is left out.
    is_lenient: bool,
}

impl<'a> Chosen<'a> {
    pub(crate) fn live(segment: &'a Segment) -> Self {
        Self {
            rows: segment.live().collect(),
            segment,
            is_lenient: false,
        }
    }

    pub(crate) fn new(segment: &'a Segment, rows: Vec<u32>) -> Self {
        Self {
            segment,
            rows,
            is_lenient: false,
        }
    }

    pub(crate) fn lenient(segment: &'a Segment, rows: Vec<u32>) -> Self {
        Self {
            segment,
            rows,
            is_lenient: true,
        }
    }
}

impl Source for Chosen<'_> {
    fn n_rows(&self) -> usize {
        self.rows.len()
    }

    fn read(&self, rows: &[u32], out: &mut Vec<f32>) -> Result<()> {
        let rows: Vec<u32> = rows.iter().map(|&row| self.rows[row as usize]).collect();
        self.segment.read(&rows, out)
    }

    fn id(&self, row: u32) -> Result<&str> {
        self.segment.id(self.rows[row as usize])
    }

    fn columns(&self) -> &[String] {
        Source::columns(self.segment)
    }

    fn value(&self, column: usize, row: u32) -> Result<&str> {
        self.segment.value(column, self.rows[row as usize])
    }

    fn attachments(&self) -> &[String] {
        self.segment.attachments()
    }

    fn attachment(&self, kind: usize, row: u32) -> Result<&[u8]> {
        match self.segment.attachment(kind, self.rows[row as usize]) {
            Err(_) if self.is_lenient => Ok(&[]),
            attachment => attachment,
        }
    }
}

impl Segment {
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Returns the vectors of some rows.
    pub(crate) fn vectors(&self, rows: Range<usize>) -> Result<Vectors<'_>> {
        let items = rows.start * self.width..rows.end * self.width;
        Ok(match self.footer.numbers {
            Numbers::F32 => Vectors::F32(self.numbers_at(&self.hot.vectors, items)?),
            Numbers::F16 => {
                let bits: &[u16] = self.numbers_at(&self.hot.vectors, items)?;
                Vectors::F16(bits.reinterpret_cast())
            }
        })
    }

    /// Returns the 8-bit codes of some rows.
    pub(crate) fn codes(&self, rows: Range<usize>) -> Result<&[i8]> {
        let stride = code_stride(self.width);
        self.numbers_at(&self.hot.codes, rows.start * stride..rows.end * stride)
    }

    /// Returns what turns sums of codes into scores.
    pub(crate) fn terms(&self, rows: Range<usize>) -> Result<&[Terms]> {
        self.numbers_at(&self.hot.terms, rows)
    }

    /// Returns the 1-bit codes of some rows.
    pub(crate) fn bits(&self, rows: Range<usize>) -> Result<&[u64]> {
        let stride = bit_stride(self.width);
        self.numbers_at(&self.hot.bits, rows.start * stride..rows.end * stride)
    }

    /// Returns the place of each row in the order of ids.
    pub(crate) fn ranks(&self) -> Result<&[u32]> {
        self.numbers("ids/rank", 0..self.n_rows)
    }

    /// Returns the means of all lists, [lists, width].
    pub(crate) fn centroids(&self) -> Result<&[f32]> {
        let n_lists = self.starts()?.len() - 1;
        self.numbers("lists/centroids", 0..n_lists * self.width)
    }

    /// Returns where each list of rows begins, and the end.
    pub(crate) fn starts(&self) -> Result<&[u32]> {
        let n_starts = self.place("lists/starts")?.len() / 4;
        let starts: &[u32] = self.numbers("lists/starts", 0..n_starts)?;
        let is_good = starts.len() > 1
            && starts.first() == Some(&0)
            && starts.is_sorted()
            && starts
                .last()
                .is_some_and(|&end| end as usize == self.n_rows);
        if !is_good {
            return Err(self.damaged("lists that do not cover the rows"));
        }
        Ok(starts)
    }

    /// Returns what queries are compared with to choose lists.
    pub(crate) fn directions(&self) -> Result<&Directions> {
        if let Some(directions) = self.directions.get() {
            return Ok(directions);
        }
        let made = Directions::new(self.centroids()?, self.width);
        Ok(self.directions.get_or_init(|| made))
    }
}

/// Returns the path of a segment in its gallery.
pub(crate) fn path_of(folder: &Path, id: u64) -> PathBuf {
    folder.join(format!("segment-{id:016x}.m3s"))
}
