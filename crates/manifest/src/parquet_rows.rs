//! Rows of a Parquet manifest, one batch of one row group at a time.

mod pages;
mod thrift;

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, ConvertedType, LogicalType, TimeUnit, Type};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::{ByteArray, DataType, FixedLenByteArray, Int96};
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{ChunkReader, FileReader, Length};
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::schema::types::{ColumnDescriptor, Type as Schema};

use m3ret_imaging::{Error, Result};

use super::bounds::{self, Bounds, MAX_CELL_BYTES};
use super::table::Builder;
use super::{FORMAT, LABEL_SEPARATOR};
use pages::{CheckedPages, GroupCost};

pub(super) struct ParquetRows {
    file: Box<dyn Groups>,
    columns: Vec<Leaf>,
    next_group: usize,
    group: Vec<ColumnReader>,
    n_left: usize,
    n_before: u64,
}

/// A file of any kind, with the check of its row groups.
trait Groups: Send {
    fn reader(&self) -> &dyn FileReader;

    /// Checks what a column of a row group costs.
    fn charge(&self, cost: &mut GroupCost, chunk: &ColumnChunkMetaData) -> Result<()>;

    fn n_file_bytes(&self) -> u64;
}

struct File<R: ChunkReader> {
    bytes: Arc<R>,
    reader: SerializedFileReader<Shared<R>>,
    bounds: Bounds,
}

impl<R: ChunkReader + 'static> Groups for File<R> {
    fn reader(&self) -> &dyn FileReader {
        &self.reader
    }

    fn charge(&self, cost: &mut GroupCost, chunk: &ColumnChunkMetaData) -> Result<()> {
        cost.add(self.bytes.as_ref(), chunk, &self.bounds)
    }

    fn n_file_bytes(&self) -> u64 {
        self.bytes.len()
    }
}

/// The same bytes for the library and for the checks.
struct Shared<R>(Arc<R>);

impl<R: ChunkReader> Length for Shared<R> {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl<R: ChunkReader> ChunkReader for Shared<R> {
    type T = R::T;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        self.0.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        self.0.get_bytes(start, length)
    }
}

/// A column that can be rendered as text.
#[derive(Debug, Clone, Copy)]
struct Leaf {
    leaf_idx: usize,
    /// Definition level of a value that is there; 0 where every value is.
    present: i16,
    /// Cells are lists, whose values are joined.
    is_list: bool,
    meaning: Meaning,
}

/// What the stored numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Plain,
    Unsigned,
    Date,
    /// Ticks of this many nanoseconds since 1970.
    Timestamp(i64),
    /// Units of 10 to minus this.
    Decimal(u32),
    Uuid,
    /// Bytes of a fixed number: text, or else hexadecimal.
    Binary,
}

/// Rows of text that are read together.
const STEP_ROWS: usize = 128;
/// Digits of the largest decimal that an i128 holds.
const MAX_DECIMAL_DIGITS: i32 = 38;

impl ParquetRows {
    /// Reads the footer and returns the names of the usable and of the ignored columns.
    pub(super) fn open(
        bytes: impl ChunkReader + 'static,
        bounds: Bounds,
    ) -> Result<(Self, Vec<String>, Vec<String>)> {
        pages::check_footer(&bytes, &bounds)?;
        let bytes = Arc::new(bytes);
        let file = SerializedFileReader::new(Shared(Arc::clone(&bytes)))
            .map_err(|e| explain(e, "a broken footer"))?;
        let n_leaves = file.metadata().file_metadata().schema_descr().num_columns();
        bounds::columns(n_leaves)?;
        let (mut columns, mut names, mut ignored) = (Vec::new(), Vec::new(), Vec::new());
        let schema = file.metadata().file_metadata().schema_descr_ptr();
        for (leaf_idx, column) in schema.columns().iter().enumerate() {
            let name = column.path().parts().first().cloned().unwrap_or_default();
            let is_list = is_list_of_values(schema.get_column_root(leaf_idx), column);
            match meaning(column, is_list) {
                Some(meaning) => {
                    columns.push(Leaf {
                        leaf_idx,
                        present: column.max_def_level(),
                        is_list,
                        meaning,
                    });
                    names.push(name);
                }
                None if ignored.last() != Some(&name) => ignored.push(name),
                None => {}
            }
        }
        let groups = file.metadata().row_groups().iter();
        let n_rows = groups.map(|group| u64::try_from(group.num_rows()).unwrap_or(0));
        bounds.rows(n_rows.fold(0, u64::saturating_add), columns.len())?;
        let (next_group, group, n_left, n_before) = (0, Vec::new(), 0, 0);
        let file = File {
            bytes,
            reader: file,
            bounds,
        };
        let rows = Self {
            file: Box::new(file),
            columns,
            next_group,
            group,
            n_left,
            n_before,
        };
        Ok((rows, names, ignored))
    }

    /// Appends the next rows; fewer than `max_rows` at the end of a row group, 0 at the end.
    pub(super) fn fill(&mut self, builder: &mut Builder, max_rows: usize) -> Result<usize> {
        while self.n_left == 0 {
            if !self.open_next_group()? {
                return Ok(0);
            }
        }
        let n_rows = max_rows.min(self.n_left);
        for (column_idx, (leaf, reader)) in self.columns.iter().zip(&mut self.group).enumerate() {
            let is_path = column_idx == builder.path_idx();
            let mut row = self.n_before;
            let mut sink = |cell: &str| {
                row += 1;
                if is_path && cell.trim().is_empty() {
                    let found = format!("row {row}: an empty path");
                    return Err(Error::malformed(FORMAT, found, "a path in every row"));
                }
                builder.push(column_idx, cell)
            };
            let n_read = read_cells(reader, *leaf, n_rows, &mut sink)?;
            if n_read != n_rows {
                return Err(Error::malformed(
                    FORMAT,
                    format!(
                        "Parquet column {} with {n_read} of {n_rows} rows",
                        column_idx + 1
                    ),
                    "as many rows as the row group declares",
                ));
            }
        }
        self.n_left -= n_rows;
        self.n_before = self
            .n_before
            .saturating_add(u64::try_from(n_rows).unwrap_or(u64::MAX));
        Ok(n_rows)
    }

    fn open_next_group(&mut self) -> Result<bool> {
        let file = self.file.reader();
        if self.next_group >= file.num_row_groups() {
            return Ok(false);
        }
        let group = file
            .get_row_group(self.next_group)
            .map_err(|e| explain(e, "a broken row group"))?;
        self.next_group += 1;
        self.group.clear();
        let mut cost = GroupCost::default();
        for leaf in &self.columns {
            let chunk = group.metadata().columns().get(leaf.leaf_idx);
            let chunk = check_chunk(chunk, self.file.n_file_bytes())?;
            self.file.charge(&mut cost, chunk)?;
            let pages = group
                .get_column_page_reader(leaf.leaf_idx)
                .map_err(|e| explain(e, "a broken column"))?;
            let column = group.metadata().schema_descr().column(leaf.leaf_idx);
            let pages = Box::new(CheckedPages::new(pages, &column));
            self.group.push(get_column_reader(column, pages));
        }
        self.n_left = usize::try_from(group.metadata().num_rows()).map_err(|_| {
            Error::malformed(
                FORMAT,
                "a row group with a negative number of rows",
                "0 or more",
            )
        })?;
        Ok(true)
    }
}

/// Returns whether a column's cells are lists of single values.
fn is_list_of_values(root: &Schema, column: &ColumnDescriptor) -> bool {
    let info = root.get_basic_info();
    let is_list = info.converted_type() == ConvertedType::LIST
        || info.logical_type_ref() == Some(&LogicalType::List);
    is_list && column.max_rep_level() == 1 && matches!(column.path().parts().len(), 2 | 3)
}

/// Returns what a column's numbers mean, or `None` if it cannot be rendered as text.
fn meaning(column: &ColumnDescriptor, is_list: bool) -> Option<Meaning> {
    if !is_list && (column.path().parts().len() != 1 || column.max_rep_level() != 0) {
        return None;
    }
    let (logical, converted) = (column.logical_type_ref(), column.converted_type());
    if matches!(logical, Some(LogicalType::Decimal(_))) || converted == ConvertedType::DECIMAL {
        let scale = u32::try_from(column.type_scale()).ok()?;
        let is_small = (1..=MAX_DECIMAL_DIGITS).contains(&column.type_precision());
        return is_small.then_some(Meaning::Decimal(scale));
    }
    match column.physical_type() {
        // Lists of floats are vectors, not labels.
        Type::FLOAT | Type::DOUBLE => (!is_list).then_some(Meaning::Plain),
        Type::BOOLEAN => Some(Meaning::Plain),
        Type::BYTE_ARRAY => match (logical, converted) {
            (Some(LogicalType::String | LogicalType::Enum | LogicalType::Json), _)
            | (
                None,
                ConvertedType::NONE
                | ConvertedType::UTF8
                | ConvertedType::ENUM
                | ConvertedType::JSON,
            ) => Some(Meaning::Plain),
            _ => None,
        },
        Type::INT32 | Type::INT64 => match (logical, converted) {
            (None, ConvertedType::NONE) => Some(Meaning::Plain),
            (Some(LogicalType::Integer(integer)), _) => Some(if integer.is_signed {
                Meaning::Plain
            } else {
                Meaning::Unsigned
            }),
            (Some(LogicalType::Date), _) => Some(Meaning::Date),
            (Some(LogicalType::Timestamp(stamp)), _) => {
                Some(Meaning::Timestamp(match stamp.unit {
                    TimeUnit::MILLIS => 1_000_000,
                    TimeUnit::MICROS => 1_000,
                    TimeUnit::NANOS => 1,
                }))
            }
            _ => None,
        },
        Type::INT96 => Some(Meaning::Timestamp(1)),
        Type::FIXED_LEN_BYTE_ARRAY => match (logical, converted) {
            (Some(LogicalType::Uuid), _) => Some(Meaning::Uuid),
            (None, ConvertedType::NONE) => Some(Meaning::Binary),
            _ => None,
        },
    }
}

/// Hands `n_rows` cells of a column to `sink` and returns how many there were.
fn read_cells(
    reader: &mut ColumnReader,
    leaf: Leaf,
    n_rows: usize,
    sink: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<usize> {
    let text = |value: &ByteArray, cell: &mut String| {
        if let Meaning::Decimal(scale) = leaf.meaning {
            return show_decimal(cell, signed(value.data()), scale);
        }
        let value = std::str::from_utf8(value.data()).map_err(|_| {
            Error::malformed(FORMAT, "a Parquet cell that is not UTF-8", "text in UTF-8")
        })?;
        cell.push_str(value);
        Ok(())
    };
    match reader {
        ColumnReader::ByteArrayColumnReader(reader) => render(reader, leaf, n_rows, text, sink),
        ColumnReader::BoolColumnReader(reader) => {
            let bool = |value: &bool, cell: &mut String| show(cell, value);
            render(reader, leaf, n_rows, sure(bool), sink)
        }
        ColumnReader::Int32ColumnReader(reader) => {
            let int = |value: &i32, cell: &mut String| match leaf.meaning {
                Meaning::Unsigned => {
                    show(cell, value.cast_unsigned());
                    Ok(())
                }
                meaning => show_integer(cell, i64::from(*value), meaning),
            };
            render(reader, leaf, n_rows, int, sink)
        }
        ColumnReader::Int64ColumnReader(reader) => {
            let int = |value: &i64, cell: &mut String| show_integer(cell, *value, leaf.meaning);
            render(reader, leaf, n_rows, int, sink)
        }
        ColumnReader::FloatColumnReader(reader) => {
            let float = |value: &f32, cell: &mut String| show_float(cell, value.is_nan(), value);
            render(reader, leaf, n_rows, sure(float), sink)
        }
        ColumnReader::DoubleColumnReader(reader) => {
            let float = |value: &f64, cell: &mut String| show_float(cell, value.is_nan(), value);
            render(reader, leaf, n_rows, sure(float), sink)
        }
        ColumnReader::Int96ColumnReader(reader) => {
            let time = |value: &Int96, cell: &mut String| {
                show_integer(cell, value.to_nanos(), leaf.meaning)
            };
            render(reader, leaf, n_rows, time, sink)
        }
        ColumnReader::FixedLenByteArrayColumnReader(reader) => {
            let bytes = |value: &FixedLenByteArray, cell: &mut String| {
                show_bytes(cell, value.data(), leaf.meaning)
            };
            render(reader, leaf, n_rows, bytes, sink)
        }
    }
}

/// Turns a rendering that cannot fail into one that could.
fn sure<T>(write: impl Fn(&T, &mut String)) -> impl Fn(&T, &mut String) -> Result<()> {
    move |value, cell| {
        write(value, cell);
        Ok(())
    }
}

/// Reads cells a few at a time: values that are built from the one before are copied before they are seen here.
fn render<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    leaf: Leaf,
    n_rows: usize,
    write: impl Fn(&T::T, &mut String) -> Result<()>,
    sink: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<usize> {
    let step = match T::get_physical_type() {
        Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY => STEP_ROWS,
        _ => n_rows,
    };
    let mut n_cells = 0;
    while n_cells < n_rows {
        let wanted = step.min(n_rows - n_cells);
        let n_read = render_some(reader, leaf, wanted, &write, sink)?;
        n_cells += n_read;
        if n_read < wanted {
            break;
        }
    }
    Ok(n_cells)
}

fn render_some<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    leaf: Leaf,
    n_rows: usize,
    write: &impl Fn(&T::T, &mut String) -> Result<()>,
    sink: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<usize> {
    let (mut levels, mut repeats, mut values) = (Vec::new(), Vec::new(), Vec::new());
    let repetition = leaf.is_list.then_some(&mut repeats);
    // The library panics on differences of text that do not add up. Its reader is not used after an error.
    let read = catch_unwind(AssertUnwindSafe(|| {
        reader.read_records(n_rows, Some(&mut levels), repetition, &mut values)
    }));
    let read = read.unwrap_or_else(|_| Err(ParquetError::General("a broken page".into())));
    let (_, n_values, n_levels) = read.map_err(|e| explain(e, "a broken page"))?;
    // A cell begins at each level that repeats nothing; a required value has no levels at all.
    let n_levels = if leaf.present == 0 {
        n_values
    } else {
        n_levels
    };
    let mut values = values.iter();
    let mut cell = String::new();
    let mut n_cells = 0;
    for at in 0..n_levels {
        let begins = !leaf.is_list || repeats.get(at) == Some(&0);
        if begins && at > 0 {
            sink(&cell)?;
            cell.clear();
            n_cells += 1;
        }
        let is_present = leaf.present == 0 || levels.get(at) == Some(&leaf.present);
        if let Some(value) = is_present.then(|| values.next()).flatten() {
            if !begins && !cell.is_empty() {
                cell.push(LABEL_SEPARATOR);
            }
            write(value, &mut cell)?;
            if cell.len() > MAX_CELL_BYTES {
                return Err(too_long(cell.len()));
            }
        }
    }
    if n_levels > 0 {
        sink(&cell)?;
        n_cells += 1;
    }
    Ok(n_cells)
}

fn too_long(n_bytes: usize) -> Error {
    Error::LimitExceeded {
        what: "bytes of one manifest cell",
        allowed: u64::try_from(MAX_CELL_BYTES).unwrap_or(u64::MAX),
        asked: u64::try_from(n_bytes).unwrap_or(u64::MAX),
    }
}

fn show(cell: &mut String, value: impl std::fmt::Display) {
    write!(cell, "{value}").expect("a String takes every write");
}

/// pandas writes a missing number as NaN, so NaN is an empty cell.
fn show_float(cell: &mut String, is_nan: bool, value: impl std::fmt::Display) {
    if !is_nan {
        show(cell, value);
    }
}

/// Returns the number that big-endian bytes in two's complement stand for; `None` above 16 bytes.
fn signed(bytes: &[u8]) -> Option<i128> {
    let (&first, _) = bytes.split_first()?;
    let sign = if first >= 0x80 { 0xff } else { 0 };
    let mut all = [sign; 16];
    let start = all.len().checked_sub(bytes.len())?;
    all.get_mut(start..)?.copy_from_slice(bytes);
    Some(i128::from_be_bytes(all))
}

/// Writes a decimal as floats are written: `12.50` as `12.5`, `12.00` as `12`.
fn show_decimal(cell: &mut String, units: Option<i128>, scale: u32) -> Result<()> {
    let per_one = 10_i128.checked_pow(scale);
    let (Some(units), Some(per_one)) = (units, per_one) else {
        return Err(Error::malformed(
            FORMAT,
            "a Parquet decimal of more than 38 digits",
            "at most 38 digits",
        ));
    };
    let (whole, rest) = (
        units.unsigned_abs() / per_one.unsigned_abs(),
        units.unsigned_abs() % per_one.unsigned_abs(),
    );
    show(
        cell,
        format_args!("{}{whole}", if units < 0 { "-" } else { "" }),
    );
    if rest > 0 {
        let width = usize::try_from(scale).unwrap_or(0);
        let digits = format!("{rest:0width$}");
        show(cell, format_args!(".{}", digits.trim_end_matches('0')));
    }
    Ok(())
}

/// Writes bytes of a fixed number.
fn show_bytes(cell: &mut String, bytes: &[u8], meaning: Meaning) -> Result<()> {
    if let Meaning::Decimal(scale) = meaning {
        return show_decimal(cell, signed(bytes), scale);
    }
    // Text that is shorter than its field is filled up with zeros.
    let text = std::str::from_utf8(bytes).map(|text| text.trim_end_matches('\0'));
    if let (Meaning::Binary, Ok(text)) = (meaning, text)
        && !text.contains(char::is_control)
    {
        cell.push_str(text);
        return Ok(());
    }
    for (idx, byte) in bytes.iter().enumerate() {
        if meaning == Meaning::Uuid && [4, 6, 8, 10].contains(&idx) {
            cell.push('-');
        }
        show(cell, format_args!("{byte:02x}"));
    }
    Ok(())
}

fn show_integer(cell: &mut String, value: i64, meaning: Meaning) -> Result<()> {
    const DAY_S: i64 = 86_400;
    match meaning {
        Meaning::Decimal(scale) => return show_decimal(cell, Some(i128::from(value)), scale),
        // Bytes are no integers.
        Meaning::Plain | Meaning::Uuid | Meaning::Binary => show(cell, value),
        Meaning::Unsigned => show(cell, value.cast_unsigned()),
        Meaning::Date => show_date(cell, value),
        Meaning::Timestamp(tick_ns) => {
            let per_s = 1_000_000_000 / tick_ns;
            let (seconds, ticks) = (value.div_euclid(per_s), value.rem_euclid(per_s));
            show_date(cell, seconds.div_euclid(DAY_S));
            let s = seconds.rem_euclid(DAY_S);
            show(
                cell,
                format_args!("T{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60),
            );
            if ticks != 0 {
                let fraction = format!("{:09}", ticks * tick_ns);
                show(cell, format_args!(".{}", fraction.trim_end_matches('0')));
            }
        }
    }
    Ok(())
}

/// Writes a day since 1970 as `2024-02-29`, in the Gregorian calendar.
fn show_date(cell: &mut String, day: i64) {
    // Years are counted from March, so that a leap day ends its year; 400 years repeat exactly.
    const DAYS_OF_400_YEARS: i64 = 146_097;
    const MARCH_1_OF_YEAR_0: i64 = -719_468;
    let since = day.saturating_sub(MARCH_1_OF_YEAR_0);
    let (cycle, of_cycle) = (
        since.div_euclid(DAYS_OF_400_YEARS),
        since.rem_euclid(DAYS_OF_400_YEARS),
    );
    let year_of_cycle =
        (of_cycle - of_cycle / 1_460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let of_year = of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = cycle * 400 + year_of_cycle + i64::from(month <= 2);
    show(cell, format_args!("{year:04}-{month:02}-{day_of_month:02}"));
}

/// Checks what the library takes for granted: it panics on a negative size or offset.
fn check_chunk(
    chunk: Option<&ColumnChunkMetaData>,
    n_file_bytes: u64,
) -> Result<&ColumnChunkMetaData> {
    let start = |chunk: &ColumnChunkMetaData| {
        chunk
            .dictionary_page_offset()
            .unwrap_or_else(|| chunk.data_page_offset())
    };
    let end = chunk.and_then(|chunk| {
        let start = u64::try_from(start(chunk)).ok()?;
        let n_values = u64::try_from(chunk.num_values()).ok();
        let n_bytes = u64::try_from(chunk.compressed_size()).ok()?;
        n_values.and(start.checked_add(n_bytes))
    });
    let (Some(chunk), Some(true)) = (chunk, end.map(|end| end <= n_file_bytes)) else {
        return Err(Error::malformed(
            FORMAT,
            "a Parquet column outside the file",
            "a whole, undamaged file",
        ));
    };
    let name = match chunk.compression() {
        Compression::UNCOMPRESSED
        | Compression::SNAPPY
        | Compression::GZIP(_)
        | Compression::ZSTD(_) => return Ok(chunk),
        Compression::BROTLI(_) => "Brotli",
        Compression::LZ4 | Compression::LZ4_RAW => "LZ4",
        Compression::LZO => "LZO",
    };
    let advice = "write it with snappy, gzip or zstd";
    Err(Error::unsupported(
        FORMAT,
        format!("Parquet compression {name}"),
        advice,
    ))
}

/// Explains a failed read; the library's own words could repeat a cell, so they are left out.
fn explain(error: ParquetError, found: &str) -> Error {
    if let ParquetError::External(source) = error
        && let Ok(source) = source.downcast::<std::io::Error>()
    {
        return Error::io("reading the manifest", *source);
    }
    Error::malformed(
        FORMAT,
        format!("Parquet with {found}"),
        "a whole, undamaged file",
    )
}
