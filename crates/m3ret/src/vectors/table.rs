//! `.parquet`: a table with a column `embedding`, a list of numbers in each row.

use std::fs::File;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use m3ret_imaging::Limits;
use m3ret_manifest::Manifest;
use m3ret_manifest::columns::{EMBEDDING, PATH};
use m3ret_search::Maker;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::file::reader::{FileReader as _, SerializedFileReader};

use super::{NamedBy, Names, VectorFile, Vectors, maker_of, name_of};

/// Numbers that are read at once.
const CHUNK: usize = 1 << 20;

/// Returns what made the vectors of a table, if it is one and says so.
pub(super) fn maker(path: &Path) -> Option<Maker> {
    let reader = SerializedFileReader::new(File::open(path).ok()?).ok()?;
    maker_of_table(&reader)
}

fn maker_of_table(reader: &SerializedFileReader<File>) -> Option<Maker> {
    let words = reader.metadata().file_metadata().key_value_metadata();
    maker_of(|name| {
        let word = words?.iter().find(|word| word.key == name);
        word?.value.clone()
    })
}

pub(super) fn read(path: &Path) -> anyhow::Result<VectorFile> {
    let reader = SerializedFileReader::new(File::open(path)?)?;
    let schema = reader.metadata().file_metadata().schema_descr();
    let is_vector = |idx: &usize| schema.column(*idx).path().parts()[0] == EMBEDDING;
    let mut leaves = (0..schema.num_columns()).filter(is_vector);
    let leaf = leaves
        .next()
        .with_context(|| format!("found no column {EMBEDDING}; a list of numbers is wanted"))?;
    let max_levels = (
        schema.column(leaf).max_def_level(),
        schema.column(leaf).max_rep_level(),
    );
    ensure!(
        max_levels.1 == 1 && leaves.next().is_none(),
        "found a column {EMBEDDING} of another kind; a list of numbers is wanted"
    );
    let has_path = schema.columns().iter().any(|column| column.name() == PATH);
    let mut rows = Rows::new(max_levels.0);
    for group in 0..reader.num_row_groups() {
        match reader.get_row_group(group)?.get_column_reader(leaf)? {
            ColumnReader::FloatColumnReader(column) => rows.take(column, |value| value)?,
            #[expect(clippy::cast_possible_truncation, reason = "galleries store f32")]
            ColumnReader::DoubleColumnReader(column) => {
                rows.take(column, |value: f64| value as f32)?
            }
            _ => bail!("found a column {EMBEDDING} of another kind; FLOAT or DOUBLE is wanted"),
        }
    }
    let vectors = rows.finish()?;
    let maker = maker_of_table(&reader);
    let names = if has_path {
        let table = Manifest::open(path, &Limits::default()).and_then(Manifest::load)?;
        let names = table.rows().map(|row| name_of(row, NamedBy::File));
        Names::Images {
            names: names.enumerate().collect(),
            named_by: NamedBy::File,
        }
    } else {
        Names::None
    };
    Ok(VectorFile {
        further: Vec::new(),
        lacks_refused: false,
        vectors,
        maker,
        names,
    })
}

/// Vectors that are read from a column, row by row.
struct Rows {
    /// Definition level of a number that is there.
    max_def: i16,
    values: Vec<f32>,
    /// Numbers of each row.
    lengths: Vec<usize>,
}

impl Rows {
    fn new(max_def: i16) -> Self {
        Self {
            max_def,
            values: Vec::new(),
            lengths: Vec::new(),
        }
    }

    fn take<T: DataType>(
        &mut self,
        mut column: ColumnReaderImpl<T>,
        as_f32: impl Fn(T::T) -> f32,
    ) -> anyhow::Result<()> {
        let (mut values, mut defs, mut reps) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            values.clear();
            defs.clear();
            reps.clear();
            // A chunk ends between rows; the reader reads at least one row.
            let read = column.read_records(CHUNK, Some(&mut defs), Some(&mut reps), &mut values);
            let (n_rows, _, n_levels) = read?;
            if n_rows == 0 && n_levels == 0 {
                return Ok(());
            }
            let mut numbers = values.drain(..);
            for (&def, &rep) in defs.iter().zip(&reps) {
                // Repetition level 0 begins a row.
                if rep == 0 {
                    self.lengths.push(0);
                }
                if def == self.max_def {
                    let value = numbers.next().context("fewer numbers than are declared")?;
                    self.values.push(as_f32(value));
                    if let Some(length) = self.lengths.last_mut() {
                        *length += 1;
                    }
                }
            }
        }
    }

    /// Returns the vectors; a row without one is NaN.
    fn finish(self) -> anyhow::Result<Vectors> {
        let width = self.lengths.iter().copied().max().unwrap_or(0);
        ensure!(width > 0, "found no vector");
        if let Some(row) = self.lengths.iter().position(|&n| n != 0 && n != width) {
            bail!(
                "found {} numbers in row {row} (from 0), and {width} in another; vectors of one length are wanted",
                self.lengths[row]
            );
        }
        if self.values.len() == width * self.lengths.len() {
            return Ok(Vectors {
                values: self.values,
                width,
            });
        }
        let mut values = Vec::with_capacity(width * self.lengths.len());
        let mut vectors = self.values.chunks_exact(width);
        for length in &self.lengths {
            match length {
                0 => values.resize(values.len() + width, f32::NAN),
                _ => values.extend(vectors.next().into_iter().flatten()),
            }
        }
        Ok(Vectors { values, width })
    }
}
