//! Rows on their way into a segment: new ones, or those of older segments.

use super::Numbers;
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
}

impl Batch<'_> {
    /// Checks that all parts have the same number of rows, and returns it.
    pub(crate) fn check(&self, width: usize) -> Result<usize> {
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
        Ok(n_rows)
    }
}

/// What a segment is written from: rows by number, from 0.
pub(crate) trait Source: Sync {
    fn n_rows(&self) -> usize;
    /// Appends the vectors of some rows.
    fn read(&self, rows: &[u32], out: &mut Vec<f32>) -> Result<()>;
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

    fn read(&self, rows: &[u32], out: &mut Vec<f32>) -> Result<()> {
        for &row in rows {
            let start = row as usize * self.width;
            out.extend_from_slice(&self.batch.vectors[start..start + self.width]);
        }
        Ok(())
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
    columns: Names,
    attachments: Names,
}

/// Names of all parts, and where each part has them.
struct Names {
    all: Vec<String>,
    /// [part][name]
    places: Vec<Vec<Option<usize>>>,
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
        Self { all, places }
    }
}

impl<'a> Joined<'a> {
    pub(crate) fn new(parts: Vec<&'a dyn Source>) -> Self {
        let mut starts = vec![0];
        for part in &parts {
            starts.push(starts[starts.len() - 1] + part.n_rows());
        }
        Self {
            columns: Names::join(&parts, |part| part.columns()),
            attachments: Names::join(&parts, |part| part.attachments()),
            parts,
            starts,
        }
    }

    /// Returns which part a row lies in, and where there.
    fn place(&self, row: u32) -> (usize, u32) {
        let part = self.starts.partition_point(|&start| start <= row as usize) - 1;
        let within = row as usize - self.starts[part];
        (part, u32::try_from(within).unwrap_or(u32::MAX))
    }
}

impl Source for Joined<'_> {
    fn n_rows(&self) -> usize {
        self.starts[self.parts.len()]
    }

    fn read(&self, rows: &[u32], out: &mut Vec<f32>) -> Result<()> {
        for &row in rows {
            let (part, row) = self.place(row);
            self.parts[part].read(&[row], out)?;
        }
        Ok(())
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
