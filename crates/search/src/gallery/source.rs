//! Rows on their way into a segment: new ones, or those of older segments.

use std::collections::HashSet;

use super::Numbers;
use crate::embedding::fault;
use crate::error::{Error, Result};

/// New rows for a gallery, column by column.
#[derive(Debug, Clone, Copy, Default)]
pub struct Batch<'a> {
    /// Unit vectors, [n, width].
    pub vectors: &'a [f32],
    /// One for each row; none may be in the gallery already.
    pub ids: &'a [String],
    /// Metadata: name, and one value for each row; empty where it is unknown.
    pub columns: &'a [(String, Vec<String>)],
    /// What is attached to rows, e.g. thumbnails: name, and bytes for each row; empty for none.
    pub attachments: &'a [(String, Vec<Vec<u8>>)],
    /// Further vectors of rows.
    pub views: ViewVectors<'a>,
}

/// Further vectors of rows of a batch, each of a view of the row's object.
#[derive(Debug, Clone, Copy, Default)]
pub struct ViewVectors<'a> {
    /// Names of the views, each once; none is empty.
    pub names: &'a [String],
    /// What each further vector is of; no two are of one view of one row.
    pub of: &'a [View],
    /// Unit vectors, [further vectors, width].
    pub vectors: &'a [f32],
}

/// What a further vector is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct View {
    /// The row.
    pub row: u32,
    /// The name of the view, as its place among the names.
    pub name: u32,
}

/// Most views of one batch.
const MAX_VIEWS: usize = 4096;
/// Longest name of a view in bytes.
const MAX_VIEW_BYTES: usize = 255;

impl ViewVectors<'_> {
    fn check(&self, n_rows: usize, width: usize) -> Result<()> {
        let wanted = "different names, none empty";
        let unlike =
            |what: String, wanted: String, got: String| Err(Error::mismatch(what, wanted, got));
        if self.names.len() > MAX_VIEWS {
            return Err(Error::LimitExceeded {
                what: "views of one batch",
                allowed: MAX_VIEWS as u64,
                asked: self.names.len() as u64,
            });
        }
        let mut seen = HashSet::new();
        for name in self.names {
            if name.is_empty() || name.len() > MAX_VIEW_BYTES || !seen.insert(name) {
                let wanted = format!("{wanted}, of at most {MAX_VIEW_BYTES} bytes");
                return unlike("names of views".to_owned(), wanted, format!("{name:?}"));
            }
        }
        if self.vectors.len() != self.of.len() * width {
            let wanted = format!("{} x {width}", self.of.len());
            let what = "numbers of all further vectors".to_owned();
            return unlike(what, wanted, self.vectors.len().to_string());
        }
        let mut seen = HashSet::with_capacity(self.of.len());
        for (idx, (view, vector)) in self
            .of
            .iter()
            .zip(self.vectors.chunks_exact(width))
            .enumerate()
        {
            let what = format!("further vector {idx} (from 0)");
            let is_there = (view.row as usize) < n_rows && (view.name as usize) < self.names.len();
            if !is_there || !seen.insert(view) {
                let wanted = "a row and a name of the batch, and no view of a row twice";
                return unlike(what, wanted.to_owned(), format!("{view:?}"));
            }
            if let Some(found) = fault(vector) {
                return unlike(what, "finite numbers and length 1".to_owned(), found);
            }
        }
        Ok(())
    }
}

impl Batch<'_> {
    /// Checks that all parts have the same number of rows, and the further vectors; returns the number of rows.
    ///
    /// # Errors
    /// `Mismatch`; `LimitExceeded` for thousands of views.
    pub fn check(&self, width: usize) -> Result<usize> {
        let n_rows = self.ids.len();
        let lengths = [("vectors", self.vectors.len() / width.max(1))].into_iter();
        let columns = self
            .columns
            .iter()
            .map(|(name, values)| (&name[..], values.len()));
        let attached = self.attachments.iter();
        let attached = attached.map(|(name, values)| (&name[..], values.len()));
        for (what, got) in lengths.chain(columns).chain(attached) {
            if got != n_rows {
                return Err(Error::mismatch(
                    format!("rows of {what}"),
                    format!("{n_rows}, as there are ids"),
                    got.to_string(),
                ));
            }
        }
        if self.vectors.len() != n_rows * width {
            return Err(Error::mismatch(
                "numbers of all vectors",
                format!("{n_rows} x {width}"),
                self.vectors.len().to_string(),
            ));
        }
        self.views.check(n_rows, width)?;
        Ok(n_rows)
    }
}

/// What a segment is written from: rows by number, from 0, and vectors by number. Each row's own vector has the number
/// of the row; further vectors follow.
pub(crate) trait Source: Sync {
    fn n_rows(&self) -> usize;
    fn n_vectors(&self) -> usize;
    /// Appends the vectors with some numbers.
    fn read(&self, vectors: &[u32], out: &mut Vec<f32>) -> Result<()>;
    /// Returns names of views, each once; more than those of further vectors, perhaps.
    fn views(&self) -> &[String];
    /// Returns what a further vector is of; they count from 0.
    fn further(&self, idx: usize) -> View;
    fn id(&self, row: u32) -> Result<&str>;
    fn columns(&self) -> &[String];
    /// Returns a cell of the column with that index in `columns`.
    fn value(&self, column: usize, row: u32) -> Result<&str>;
    fn attachments(&self) -> &[String];
    fn attachment(&self, kind: usize, row: u32) -> Result<&[u8]>;
}

/// A checked batch.
pub(crate) struct NewRows<'a> {
    batch: Batch<'a>,
    width: usize,
    columns: Vec<String>,
    attachments: Vec<String>,
}

impl<'a> NewRows<'a> {
    pub(crate) fn new(batch: Batch<'a>, width: usize) -> Self {
        Self {
            batch,
            width,
            columns: batch.columns.iter().map(|(name, _)| name.clone()).collect(),
            attachments: batch
                .attachments
                .iter()
                .map(|(name, _)| name.clone())
                .collect(),
        }
    }
}

impl Source for NewRows<'_> {
    fn n_rows(&self) -> usize {
        self.batch.ids.len()
    }

    fn n_vectors(&self) -> usize {
        self.n_rows() + self.batch.views.of.len()
    }

    fn read(&self, vectors: &[u32], out: &mut Vec<f32>) -> Result<()> {
        let n_own = self.n_rows();
        for &vector in vectors {
            let (values, idx) = match (vector as usize).checked_sub(n_own) {
                None => (self.batch.vectors, vector as usize),
                Some(idx) => (self.batch.views.vectors, idx),
            };
            out.extend_from_slice(&values[idx * self.width..][..self.width]);
        }
        Ok(())
    }

    fn views(&self) -> &[String] {
        self.batch.views.names
    }

    fn further(&self, idx: usize) -> View {
        self.batch.views.of[idx]
    }

    fn id(&self, row: u32) -> Result<&str> {
        Ok(&self.batch.ids[row as usize])
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn value(&self, column: usize, row: u32) -> Result<&str> {
        Ok(&self.batch.columns[column].1[row as usize])
    }

    fn attachments(&self) -> &[String] {
        &self.attachments
    }

    fn attachment(&self, kind: usize, row: u32) -> Result<&[u8]> {
        Ok(&self.batch.attachments[kind].1[row as usize])
    }
}

/// Several sources, one after another; columns are the union of theirs.
pub(crate) struct Joined<'a> {
    parts: Vec<&'a dyn Source>,
    /// Rows before each part, and of all.
    starts: Vec<usize>,
    /// Further vectors before each part, and of all.
    further_starts: Vec<usize>,
    columns: Names,
    attachments: Names,
    views: Names,
}

/// Names of all parts, and where each part has them.
struct Names {
    all: Vec<String>,
    /// [part][name of all]: its place in the part.
    places: Vec<Vec<Option<usize>>>,
    /// [part][name of the part]: its place among all.
    numbers: Vec<Vec<u32>>,
}

impl Names {
    fn join(parts: &[&dyn Source], of: impl Fn(&dyn Source) -> &[String]) -> Self {
        let mut all: Vec<String> = Vec::new();
        for name in parts.iter().flat_map(|&part| of(part)) {
            if !all.contains(name) {
                all.push(name.clone());
            }
        }
        let places = parts.iter().map(|&part| {
            let place = |name: &String| of(part).iter().position(|other| other == name);
            all.iter().map(place).collect()
        });
        let places = places.collect();
        let numbers = parts.iter().map(|&part| {
            let number = |name: &String| all.iter().position(|other| other == name);
            let numbers = of(part).iter().map(number);
            numbers
                .map(|number| as_u32(number.unwrap_or(usize::MAX)))
                .collect()
        });
        Self {
            numbers: numbers.collect(),
            places,
            all,
        }
    }
}

impl<'a> Joined<'a> {
    pub(crate) fn new(parts: Vec<&'a dyn Source>) -> Self {
        let starts = |n: &dyn Fn(&dyn Source) -> usize| {
            let ends = parts.iter().scan(0, |end, &part| {
                *end += n(part);
                Some(*end)
            });
            std::iter::once(0).chain(ends).collect()
        };
        Self {
            starts: starts(&|part| part.n_rows()),
            further_starts: starts(&|part| part.n_vectors() - part.n_rows()),
            columns: Names::join(&parts, |part| part.columns()),
            attachments: Names::join(&parts, |part| part.attachments()),
            views: Names::join(&parts, |part| part.views()),
            parts,
        }
    }

    /// Returns which part a row lies in, and where there.
    fn place(&self, row: u32) -> (usize, u32) {
        let (part, within) = place_in(&self.starts, row as usize);
        (part, as_u32(within))
    }
}

/// Returns which part the item of a number lies in, and where there.
fn place_in(starts: &[usize], number: usize) -> (usize, usize) {
    let part = starts.partition_point(|&start| start <= number) - 1;
    (part, number - starts[part])
}

fn as_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl Source for Joined<'_> {
    fn n_rows(&self) -> usize {
        self.starts[self.parts.len()]
    }

    fn n_vectors(&self) -> usize {
        self.n_rows() + self.further_starts[self.parts.len()]
    }

    fn read(&self, vectors: &[u32], out: &mut Vec<f32>) -> Result<()> {
        let n_own = self.n_rows();
        for &vector in vectors {
            let (part, number) = match (vector as usize).checked_sub(n_own) {
                None => self.place(vector),
                Some(idx) => {
                    let (part, within) = place_in(&self.further_starts, idx);
                    (part, as_u32(self.parts[part].n_rows() + within))
                }
            };
            self.parts[part].read(&[number], out)?;
        }
        Ok(())
    }

    fn views(&self) -> &[String] {
        &self.views.all
    }

    fn further(&self, idx: usize) -> View {
        let (part, within) = place_in(&self.further_starts, idx);
        let View { row, name } = self.parts[part].further(within);
        View {
            row: as_u32(self.starts[part] + row as usize),
            name: self.views.numbers[part][name as usize],
        }
    }

    fn id(&self, row: u32) -> Result<&str> {
        let (part, row) = self.place(row);
        self.parts[part].id(row)
    }

    fn columns(&self) -> &[String] {
        &self.columns.all
    }

    fn value(&self, column: usize, row: u32) -> Result<&str> {
        let (part, row) = self.place(row);
        match self.columns.places[part][column] {
            Some(column) => self.parts[part].value(column, row),
            None => Ok(""),
        }
    }

    fn attachments(&self) -> &[String] {
        &self.attachments.all
    }

    fn attachment(&self, kind: usize, row: u32) -> Result<&[u8]> {
        let (part, row) = self.place(row);
        match self.attachments.places[part][kind] {
            Some(kind) => self.parts[part].attachment(kind, row),
            None => Ok(&[]),
        }
    }
}

/// Rounds vectors as they are going to be stored.
pub(crate) fn round(vectors: &mut [f32], numbers: Numbers) {
    if numbers == Numbers::F16 {
        for x in vectors {
            *x = half::f16::from_f32(*x).to_f32();
        }
    }
}
