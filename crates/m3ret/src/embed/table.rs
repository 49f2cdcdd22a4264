//! Writes vectors as a Parquet table with the labels of each row, and the list of rows beside an array.

use m3ret_manifest::{path_of, text_of};
use std::borrow::Cow;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use m3ret_manifest::Table;
use m3ret_manifest::columns::{BODY_PART, DIMS, EMBEDDING, MODALITY, PART, PATH};
use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, FloatType};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{ColumnPath, Type};

use super::{EmbedResult, PlacedRow};
use crate::vectors::{REFUSED, VECTOR};

/// Rows of one row group; their vectors are in memory until it is written.
const GROUP_ROWS: usize = 4096;

/// Writes which row is which object, as CSV.
///
/// Objects that have no row are listed too, with an empty cell in the column `row`.
pub(super) fn write_rows(out: &mut impl Write, result: &EmbedResult<'_>) -> anyhow::Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    let columns = columns_of_folder();
    let names = columns.iter().map(|column| column.name.as_str());
    writer.write_record(std::iter::once(VECTOR).chain(names))?;
    let here = Path::new("");
    let numbered = result.rows.iter().enumerate();
    let numbered = numbered.map(|(idx, row)| (idx.to_string(), row));
    let others = result.without_row.iter().map(|row| (String::new(), row));
    for (number, row) in numbered.chain(others) {
        let cells = columns.iter().map(|column| column.cell(row, None, here));
        let number = Cow::Borrowed(number.as_str());
        writer.write_record(
            std::iter::once(number)
                .chain(cells)
                .map(|cell| cell.into_owned()),
        )?;
    }
    writer.flush()?;
    Ok(())
}

/// Writes the manifest's columns, or what readers know, then `refused` and `embedding`.
///
/// `embedding` is a list of floats of one length, or null where the object was refused.
pub(super) fn write_parquet(
    out: &mut (impl Write + Send),
    result: &EmbedResult<'_>,
    mut vectors: impl Iterator<Item = anyhow::Result<Option<Vec<f32>>>>,
) -> anyhow::Result<()> {
    let columns = match result.table {
        Some(table) if result.is_folder => columns_of_labelled_folder(table)?,
        Some(table) => columns_of_manifest(table)?,
        None => columns_of_folder(),
    };
    let metadata = result.metadata().into_iter();
    let metadata = metadata.map(|(name, value)| KeyValue::new(name.to_owned(), value));
    let vector_path = ColumnPath::new([EMBEDDING, "list", "element"].map(str::to_owned).to_vec());
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(EnabledStatistics::None)
        // Unit vectors neither repeat nor compress.
        .set_column_dictionary_enabled(vector_path.clone(), false)
        .set_column_compression(vector_path, Compression::UNCOMPRESSED)
        .set_key_value_metadata(Some(metadata.collect()))
        .build();
    let schema = Arc::new(schema(&columns)?);
    let mut file = SerializedFileWriter::new(out, schema, Arc::new(properties))?;
    for rows in result.rows.chunks(GROUP_ROWS) {
        let mut group = file.next_row_group()?;
        for column in &columns {
            let cells = rows
                .iter()
                .map(|row| column.cell(row, result.table, &result.way));
            write_cells(&mut group, column.is_always_there(), cells)?;
        }
        write_vectors(&mut group, vectors.by_ref().take(rows.len()))?;
        group.close()?;
    }
    file.close()?;
    Ok(())
}

/// A column of text.
struct Column {
    name: String,
    source: Source,
}

/// Where a column's cells come from.
#[derive(Clone, Copy)]
enum Source {
    Path,
    Part,
    Modality,
    BodyPart,
    Dims,
    /// A column of the table, by its own name.
    Table,
    Refused,
}

impl Column {
    fn new(name: &str, source: Source) -> Self {
        Self {
            name: name.to_owned(),
            source,
        }
    }

    fn is_always_there(&self) -> bool {
        self.name == PATH
    }

    /// Returns the cell of a row; `way` is put before paths.
    fn cell<'a>(
        &self,
        row: &'a PlacedRow<'_>,
        table: Option<&'a Table>,
        way: &Path,
    ) -> Cow<'a, str> {
        let facts = &row.row.facts;
        let path = |path: &'a str| match way.as_os_str().is_empty() {
            true => Cow::Borrowed(path),
            false => Cow::Owned(text_of(&way.join(path_of(path)))),
        };
        let cell = match self.source {
            Source::Path => return path(row.path),
            Source::Part => &facts.part,
            Source::Modality => &facts.modality,
            Source::BodyPart => &facts.body_part,
            Source::Dims => &facts.dims,
            Source::Table => {
                let column = table.and_then(|table| table.column(&self.name));
                let cell = column.and_then(|column| column.get(row.item_idx));
                let cell = cell.unwrap_or_default();
                return if self.name == PATH {
                    path(cell)
                } else {
                    Cow::Borrowed(cell)
                };
            }
            Source::Refused => {
                let refusal = row.row.place.as_ref().err();
                return Cow::Borrowed(refusal.map_or("", |refusal| refusal.code.as_str()));
            }
        };
        // What a table states of an object of a folder takes precedence over what its file says.
        let column = table.and_then(|table| table.column(&self.name));
        let stated = column.and_then(|column| column.get(row.item_idx));
        let stated = stated.filter(|cell| !cell.is_empty());
        Cow::Borrowed(stated.or(cell.as_deref()).unwrap_or_default())
    }
}

fn columns_of_folder() -> Vec<Column> {
    vec![
        Column::new(PATH, Source::Path),
        Column::new(PART, Source::Part),
        Column::new(MODALITY, Source::Modality),
        Column::new(BODY_PART, Source::BodyPart),
        Column::new(DIMS, Source::Dims),
        Column::new(REFUSED, Source::Refused),
    ]
}

fn columns_of_manifest(table: &Table) -> anyhow::Result<Vec<Column>> {
    let names = table.columns().iter().filter(|name| *name != REFUSED);
    let mut columns: Vec<Column> = names.map(|name| Column::new(name, Source::Table)).collect();
    if columns.iter().any(|column| column.name == EMBEDDING) {
        anyhow::bail!("the manifest has a column {EMBEDDING} of text; give it another name");
    }
    columns.push(Column::new(REFUSED, Source::Refused));
    Ok(columns)
}

/// Returns the columns of a folder, and those that a table adds.
fn columns_of_labelled_folder(table: &Table) -> anyhow::Result<Vec<Column>> {
    let mut columns = columns_of_folder();
    let refused = columns.pop();
    let known: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
    let stated = columns_of_manifest(table)?.into_iter();
    let stated = stated.filter(|column| !known.contains(&column.name));
    columns.extend(stated.filter(|column| column.name != REFUSED));
    columns.extend(refused);
    Ok(columns)
}

fn schema(columns: &[Column]) -> anyhow::Result<Type> {
    let mut fields = Vec::with_capacity(columns.len() + 1);
    for column in columns {
        let repetition = if column.is_always_there() {
            Repetition::REQUIRED
        } else {
            Repetition::OPTIONAL
        };
        let field = Type::primitive_type_builder(&column.name, Physical::BYTE_ARRAY)
            .with_repetition(repetition)
            .with_logical_type(Some(LogicalType::String))
            .build()?;
        fields.push(Arc::new(field));
    }
    let element = Type::primitive_type_builder("element", Physical::FLOAT)
        .with_repetition(Repetition::REQUIRED)
        .build()?;
    let list = Type::group_type_builder("list")
        .with_repetition(Repetition::REPEATED)
        .with_fields(vec![Arc::new(element)])
        .build()?;
    let embedding = Type::group_type_builder(EMBEDDING)
        .with_repetition(Repetition::OPTIONAL)
        .with_logical_type(Some(LogicalType::List))
        .with_fields(vec![Arc::new(list)])
        .build()?;
    fields.push(Arc::new(embedding));
    Ok(Type::group_type_builder("embeddings")
        .with_fields(fields)
        .build()?)
}

fn write_cells<'a, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    is_always_there: bool,
    cells: impl Iterator<Item = Cow<'a, str>>,
) -> anyhow::Result<()> {
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    for cell in cells {
        let is_there = is_always_there || !cell.is_empty();
        // Level 0 is a null, and has no value.
        levels.push(i16::from(is_there));
        if is_there {
            values.push(ByteArray::from(&*cell));
        }
    }
    let mut writer = group.next_column()?.context("a column too few")?;
    let levels = (!is_always_there).then_some(&levels[..]);
    writer
        .typed::<ByteArrayType>()
        .write_batch(&values, levels, None)?;
    Ok(writer.close()?)
}

fn write_vectors<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    vectors: impl Iterator<Item = anyhow::Result<Option<Vec<f32>>>>,
) -> anyhow::Result<()> {
    // Definition: 0 no vector, 2 a number. Repetition: 0 starts a row, 1 goes on with it.
    let (mut definitions, mut repetitions, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for vector in vectors {
        let vector = vector?.unwrap_or_default();
        let n_levels = vector.len().max(1);
        let definition = if vector.is_empty() { 0 } else { 2 };
        definitions.resize(definitions.len() + n_levels, definition);
        repetitions.push(0);
        repetitions.resize(definitions.len(), 1);
        values.extend(vector);
    }
    let mut writer = group.next_column()?.context("a column too few")?;
    writer
        .typed::<FloatType>()
        .write_batch(&values, Some(&definitions), Some(&repetitions))?;
    Ok(writer.close()?)
}
