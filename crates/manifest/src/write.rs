//! Writes manifests row by row, whole or not at all.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;

use m3ret_files::{Unfinished, folder_of};
use m3ret_imaging::{Error, Result};

use super::Shared;
use super::columns::Header;
use super::table::{Builder, Table};

/// How a manifest lies on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Text with commas.
    Csv,
    /// Columns, compressed with zstd.
    Parquet,
}

impl Layout {
    /// Chooses the layout for a new file: Parquet for `.parquet` and `.pq`, CSV otherwise.
    #[must_use]
    pub fn for_path(path: &Path) -> Self {
        let extension = path.extension().unwrap_or_default();
        let parquet = ["parquet", "pq"]
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known));
        if parquet { Self::Parquet } else { Self::Csv }
    }
}

/// Rows of one Parquet row group; they are held in memory until it is full.
const GROUP_ROWS: usize = 65_536;

/// Writes a manifest; the file appears under its name in `finish`, and not before.
#[derive(Debug)]
pub struct Writer {
    rows: Rows,
    shared: Arc<Shared>,
}

enum Rows {
    Csv(Box<csv::Writer<Unfinished>>),
    Parquet {
        file: Box<SerializedFileWriter<Unfinished>>,
        pending: Builder,
    },
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Csv(_) => "Csv",
            Self::Parquet { .. } => "Parquet",
        })
    }
}

impl Writer {
    /// Starts a manifest with these columns in a temporary file beside `path`.
    ///
    /// # Errors
    /// `Io`; `Malformed` if there is no column `path`, or a name comes twice.
    pub fn create(path: &Path, layout: Layout, columns: &[&str]) -> Result<Self> {
        let header = Header::new(columns.iter().map(|name| name.trim().to_owned()).collect())?;
        let file =
            Unfinished::create(path).map_err(|e| Error::io("creating the manifest", e.source))?;
        let shared = Arc::new(Shared {
            folder: folder_of(path).to_path_buf(),
            header,
            unread: Vec::new(),
        });
        let rows = match layout {
            Layout::Csv => {
                let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(file);
                writer
                    .write_record(&shared.header.written)
                    .map_err(|e| csv_failed(e.into()))?;
                Rows::Csv(Box::new(writer))
            }
            Layout::Parquet => Rows::Parquet {
                file: Box::new(start_parquet(file, &shared)?),
                pending: Builder::new(Arc::clone(&shared), u64::MAX),
            },
        };
        Ok(Self { rows, shared })
    }

    /// Writes one row, its cells in the order of the columns.
    ///
    /// # Errors
    /// `Io`; `Mismatch` if the number of cells is wrong or the path is empty.
    pub fn push<'a>(&mut self, cells: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let cells: Vec<&str> = cells.into_iter().collect();
        let path = cells
            .get(self.shared.header.path_idx)
            .map_or("", |path| path.trim());
        if cells.len() != self.shared.header.names.len() || path.is_empty() {
            return Err(Error::Mismatch {
                what: "manifest row",
                expected: format!(
                    "{} cells, the path not empty",
                    self.shared.header.names.len()
                ),
                got: format!("{} cells", cells.len()),
            });
        }
        match &mut self.rows {
            Rows::Csv(writer) => writer
                .write_record(&cells)
                .map_err(|e| csv_failed(e.into())),
            Rows::Parquet { file, pending } => {
                for (column_idx, cell) in cells.iter().enumerate() {
                    pending.push(column_idx, cell)?;
                }
                if pending.n_rows() >= GROUP_ROWS {
                    let fresh = Builder::new(Arc::clone(&self.shared), u64::MAX);
                    write_group(file, std::mem::replace(pending, fresh).finish())?;
                }
                Ok(())
            }
        }
    }

    /// Completes the file and gives it its name, replacing an older file.
    ///
    /// # Errors
    /// `Io`; the older file is then still there.
    pub fn finish(self) -> Result<()> {
        let file = match self.rows {
            Rows::Csv(writer) => writer
                .into_inner()
                .map_err(|e| csv_failed(e.into_error()))?,
            Rows::Parquet { mut file, pending } => {
                if pending.n_rows() > 0 {
                    write_group(&mut file, pending.finish())?;
                }
                file.into_inner().map_err(parquet_failed)?
            }
        };
        let finished = file.finish();
        let finished = finished.map_err(|e| Error::io("syncing the manifest", e.source))?;
        let renamed = finished.put();
        renamed.map_err(|e| Error::io("renaming the temporary manifest", e.source))
    }
}

/// Starts a Parquet file: `path` is always there, an empty cell of another column is null.
fn start_parquet(file: Unfinished, shared: &Shared) -> Result<SerializedFileWriter<Unfinished>> {
    let column = |(idx, name): (usize, &String)| {
        let always = idx == shared.header.path_idx;
        let repetition = if always {
            Repetition::REQUIRED
        } else {
            Repetition::OPTIONAL
        };
        Type::primitive_type_builder(name, Physical::BYTE_ARRAY)
            .with_repetition(repetition)
            .with_logical_type(Some(LogicalType::String))
            .build()
            .map(Arc::new)
    };
    let columns: parquet::errors::Result<Vec<_>> = shared
        .header
        .written
        .iter()
        .enumerate()
        .map(column)
        .collect();
    let schema = columns
        .and_then(|columns| {
            Type::group_type_builder("manifest")
                .with_fields(columns)
                .build()
        })
        .map_err(parquet_failed)?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(EnabledStatistics::None)
        .build();
    SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties)).map_err(parquet_failed)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the rows are given up once written"
)]
fn write_group<W: Write + Send>(file: &mut SerializedFileWriter<W>, rows: Table) -> Result<()> {
    write_columns(file, &rows).map_err(parquet_failed)
}

fn write_columns<W: Write + Send>(
    file: &mut SerializedFileWriter<W>,
    rows: &Table,
) -> parquet::errors::Result<()> {
    let mut group = file.next_row_group()?;
    for name in rows.columns() {
        let (Some(mut writer), Some(column)) = (group.next_column()?, rows.column(name)) else {
            continue;
        };
        let column = column.as_written();
        // One shared buffer a word; a null of an optional column is level 0 and no value.
        let words: Vec<ByteArray> = column.words().map(ByteArray::from).collect();
        let word = |row| words.get(column.id(row)?);
        let (mut levels, mut values) = (Vec::with_capacity(rows.len()), Vec::new());
        for value in (0..rows.len()).filter_map(word) {
            levels.push(i16::from(!value.is_empty()));
            if !value.is_empty() {
                values.push(value.clone());
            }
        }
        writer
            .typed::<ByteArrayType>()
            .write_batch(&values, Some(&levels), None)?;
        writer.close()?;
    }
    group.close().map(|_| ())
}

fn csv_failed(source: std::io::Error) -> Error {
    Error::io("writing the manifest", source)
}

fn parquet_failed(error: ParquetError) -> Error {
    let source = match error {
        ParquetError::External(source) => match source.downcast::<std::io::Error>() {
            Ok(source) => *source,
            Err(source) => std::io::Error::other(source),
        },
        error => std::io::Error::other(error),
    };
    Error::io("writing the manifest", source)
}
