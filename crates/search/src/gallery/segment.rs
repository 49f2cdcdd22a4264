//! A segment: an immutable file with some of a gallery's rows. docs/gallery-format.md has every byte.

pub(crate) mod lookup;
mod short;
pub(crate) mod views;
pub(crate) mod write;

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bytemuck::AnyBitPattern;
use half::slice::HalfBitsSliceExt as _;

use super::blocks::Blocks;
use super::footer::{self, Digest, Footer, Numbers};
use super::source::{Source, View};
use crate::embedding::MAX_WIDTH;
use crate::error::{Error, Result};
use crate::partition::Directions;
use crate::quantise::{Terms, bit_stride, code_stride};
pub(crate) use short::Short;
use views::OWN_VIEW;

/// Most rows, and most vectors, of one segment.
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
    n_vectors: usize,
    width: usize,
    /// Set when what each vector is of was looked at.
    has_good_views: OnceLock<()>,
    /// One bit for each row that was removed.
    dead: Option<Vec<u64>>,
    /// Made of the centroids when they are first asked for.
    directions: OnceLock<Directions>,
    /// Made of the directions of short codes when they are first asked for.
    short: OnceLock<Short>,
}

/// Places of arrays that are not looked up by name.
#[derive(Debug, Default)]
struct Hot {
    vectors: Range<usize>,
    codes: Range<usize>,
    terms: Range<usize>,
    bits: Range<usize>,
    short: Option<ShortPlaces>,
}

/// Places of the arrays of short codes.
#[derive(Debug)]
struct ShortPlaces {
    /// Numbers of a code.
    n_short: usize,
    codes: Range<usize>,
    sums: Range<usize>,
    scales: Range<usize>,
}

/// Vectors as they are stored, [n, width].
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

/// One column: a code for each row, and the values that codes stand for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column<'a> {
    codes: &'a Range<usize>,
    values: Texts<'a>,
}

impl Segment {
    /// Opens a segment file and checks its description, not yet its contents.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let (blocks, footer, digest, has_damaged_copy) = footer::open(path)?;
        let damaged = |found: String| Err(Error::damaged(path, found));
        let n_vectors = footer.n_vectors.unwrap_or(footer.n_rows);
        let (Ok(width), true) = (usize::try_from(footer.width), n_vectors <= MAX_ROWS) else {
            return damaged(format!("{n_vectors} vectors of {}", footer.width));
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
            n_vectors: usize::try_from(n_vectors).unwrap_or(usize::MAX),
            width,
            has_good_views: OnceLock::new(),
            blocks,
            footer,
            digest,
            has_damaged_copy,
            dead: None,
            directions: OnceLock::new(),
            short: OnceLock::new(),
        };
        segment.check_lengths()?;
        segment.hot = Hot {
            vectors: segment.place("vectors")?.clone(),
            codes: segment.place("codes")?.clone(),
            terms: segment.place("terms")?.clone(),
            bits: segment.place("bits")?.clone(),
            short: segment.short_places()?,
        };
        Ok(segment)
    }

    /// Checks that every array is there and has the length that its rows need.
    fn check_lengths(&self) -> Result<()> {
        let n_vector = match self.footer.numbers {
            Numbers::F32 => 4 * self.width,
            Numbers::F16 => 2 * self.width,
        };
        self.check_length("vectors", self.n_vectors, n_vector)?;
        self.check_length("codes", self.n_vectors, code_stride(self.width))?;
        self.check_length("terms", self.n_vectors, size_of::<Terms>())?;
        self.check_length("bits", self.n_vectors, 8 * bit_stride(self.width))?;
        if self.has_views() {
            for name in ["vector/rows", "vector/views", "vector/order"] {
                self.check_length(name, self.n_vectors, 4)?;
            }
            self.check_length("vector/starts", self.n_rows + 1, 4)?;
        }
        let mut per_row = vec![
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
            self.check_length(&name, self.n_rows, n_bytes)?;
        }
        if self.has_sorted_values() {
            for column in 0..self.footer.columns.len() {
                self.check_dictionary(column)?;
            }
        }
        Ok(())
    }

    /// Checks that an array has `n` items of some bytes each.
    fn check_length(&self, name: &str, n: usize, n_bytes: usize) -> Result<()> {
        let found = self.place(name)?.len();
        match n.checked_mul(n_bytes) == Some(found) {
            true => Ok(()),
            false => Err(self.damaged(format!("{found} bytes of {name}"))),
        }
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

    /// Opens a column for reading many cells.
    pub(crate) fn open_column(&self, column: usize) -> Result<Column<'_>> {
        Ok(Column {
            codes: self.place(&format!("column/{column}/codes"))?,
            values: self.dictionary(column)?,
        })
    }

    /// Opens columns by their names; `None` for one that the segment lacks.
    pub(crate) fn open_columns(&self, names: &[&str]) -> Result<Vec<Option<Column<'_>>>> {
        let opened = names.iter().map(|name| {
            let column = self.column(name);
            column.map(|column| self.open_column(column)).transpose()
        });
        opened.collect()
    }

    /// Opens the ids for reading many.
    pub(crate) fn open_ids(&self) -> Result<Texts<'_>> {
        self.texts("ids")
    }

    /// Returns where a column is, by name.
    pub(crate) fn column(&self, name: &str) -> Option<usize> {
        self.footer.columns.iter().position(|other| other == name)
    }

    /// Returns one row's own vector as f32.
    pub(crate) fn vector(&self, row: u32) -> Result<Vec<f32>> {
        self.vector_at(self.own_vector_of(row)?)
    }

    /// Returns the vector at a place as f32.
    pub(crate) fn vector_at(&self, place: u32) -> Result<Vec<f32>> {
        let mut vector = Vec::with_capacity(self.width);
        self.read(&[place], &mut vector)?;
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

impl<'a> Column<'a> {
    /// Returns the cell of a row.
    pub(crate) fn get(&self, row: u32) -> Result<&'a str> {
        let row = row as usize;
        let code: &[u32] = self.values.segment.numbers_at(self.codes, row..row + 1)?;
        self.values.get_str(code[0] as usize)
    }
}

impl Segment {
    pub(crate) fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Appends the vectors at some places.
    pub(crate) fn read(&self, places: &[u32], out: &mut Vec<f32>) -> Result<()> {
        for &place in places {
            let place = place as usize;
            match self.vectors(place..place + 1)? {
                Vectors::F32(values) => out.extend_from_slice(values),
                Vectors::F16(values) => out.extend(values.iter().map(|x| x.to_f32())),
            }
        }
        Ok(())
    }

    pub(crate) fn id(&self, row: u32) -> Result<&str> {
        self.texts("ids")?.get_str(row as usize)
    }

    pub(crate) fn columns(&self) -> &[String] {
        &self.footer.columns
    }

    pub(crate) fn value(&self, column: usize, row: u32) -> Result<&str> {
        self.open_column(column)?.get(row)
    }

    pub(crate) fn attachments(&self) -> &[String] {
        &self.footer.attachments
    }

    pub(crate) fn attachment(&self, kind: usize, row: u32) -> Result<&[u8]> {
        self.texts(&format!("attachment/{kind}"))?.get(row as usize)
    }
}

/// The rows of a segment that were not removed, or those of them that are asked for, with their vectors.
pub(crate) struct Chosen<'a> {
    segment: &'a Segment,
    rows: Vec<u32>,
    /// Where the own vector of each chosen row lies; `None`: at the row's number.
    own: Option<Vec<u32>>,
    /// What each further vector is of, with rows counted among the chosen ones, and where it lies.
    further: Vec<(View, u32)>,
    /// What is attached to a row and cannot be read is left out.
    is_lenient: bool,
}

impl<'a> Chosen<'a> {
    pub(crate) fn live(segment: &'a Segment) -> Result<Self> {
        Self::new(segment, segment.live().collect())
    }

    pub(crate) fn new(segment: &'a Segment, rows: Vec<u32>) -> Result<Self> {
        let (mut own, mut further) = (None, Vec::new());
        if segment.has_views() {
            let mut places_of_own = Vec::with_capacity(rows.len());
            for (number, &row) in (0_u32..).zip(&rows) {
                let places = segment.vectors_of(row)?;
                for &place in places.as_slice() {
                    match segment.view_at(place)? {
                        OWN_VIEW => places_of_own.push(place),
                        name => further.push((View { row: number, name }, place)),
                    }
                }
                if places_of_own.len() != number as usize + 1 {
                    return Err(segment.damaged(format!("row {row} does not have one own vector")));
                }
            }
            own = Some(places_of_own);
        }
        Ok(Self {
            segment,
            rows,
            own,
            further,
            is_lenient: false,
        })
    }

    /// Takes rows whose vectors are known to be good, without what is attached to them and cannot be read.
    pub(crate) fn lenient(segment: &'a Segment, rows: &[ProvedRow]) -> Self {
        let mut further = Vec::new();
        for (number, row) in (0_u32..).zip(rows) {
            let views = row.further.iter();
            further.extend(views.map(|&(name, place)| (View { row: number, name }, place)));
        }
        Self {
            segment,
            own: Some(rows.iter().map(|row| row.own).collect()),
            rows: rows.iter().map(|row| row.row).collect(),
            further,
            is_lenient: true,
        }
    }
}

/// A row of a damaged segment, and where those of its vectors lie that can be read.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProvedRow {
    pub(crate) row: u32,
    /// The place of its own vector.
    pub(crate) own: u32,
    /// View and place of each further one.
    pub(crate) further: Vec<(u32, u32)>,
}

impl Source for Chosen<'_> {
    fn n_rows(&self) -> usize {
        self.rows.len()
    }

    fn n_vectors(&self) -> usize {
        self.rows.len() + self.further.len()
    }

    fn read(&self, vectors: &[u32], out: &mut Vec<f32>) -> Result<()> {
        let place = |&vector: &u32| match (vector as usize).checked_sub(self.rows.len()) {
            None => self.own.as_ref().unwrap_or(&self.rows)[vector as usize],
            Some(idx) => self.further[idx].1,
        };
        let places: Vec<u32> = vectors.iter().map(place).collect();
        self.segment.read(&places, out)
    }

    fn views(&self) -> &[String] {
        &self.segment.footer.views
    }

    fn further(&self, idx: usize) -> View {
        self.further[idx].0
    }

    fn id(&self, row: u32) -> Result<&str> {
        self.segment.id(self.rows[row as usize])
    }

    fn columns(&self) -> &[String] {
        self.segment.columns()
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

    /// Returns the vectors at some places.
    pub(crate) fn vectors(&self, places: Range<usize>) -> Result<Vectors<'_>> {
        let items = places.start * self.width..places.end * self.width;
        Ok(match self.footer.numbers {
            Numbers::F32 => Vectors::F32(self.numbers_at(&self.hot.vectors, items)?),
            Numbers::F16 => {
                let bits: &[u16] = self.numbers_at(&self.hot.vectors, items)?;
                Vectors::F16(bits.reinterpret_cast())
            }
        })
    }

    /// Returns the 8-bit codes of some vectors.
    pub(crate) fn codes(&self, places: Range<usize>) -> Result<&[i8]> {
        let stride = code_stride(self.width);
        self.numbers_at(&self.hot.codes, places.start * stride..places.end * stride)
    }

    /// Returns what turns sums of codes into scores.
    pub(crate) fn terms(&self, places: Range<usize>) -> Result<&[Terms]> {
        self.numbers_at(&self.hot.terms, places)
    }

    /// Returns the 1-bit codes of some vectors.
    pub(crate) fn bits(&self, places: Range<usize>) -> Result<&[u64]> {
        let stride = bit_stride(self.width);
        self.numbers_at(&self.hot.bits, places.start * stride..places.end * stride)
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

    /// Returns where each list of vectors begins, and the end.
    pub(crate) fn starts(&self) -> Result<&[u32]> {
        let n_starts = self.place("lists/starts")?.len() / 4;
        let starts: &[u32] = self.numbers("lists/starts", 0..n_starts)?;
        let is_good = starts.len() > 1
            && starts.first() == Some(&0)
            && starts.is_sorted()
            && starts
                .last()
                .is_some_and(|&end| end as usize == self.n_vectors);
        if !is_good {
            return Err(self.damaged("lists that do not cover the vectors"));
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
