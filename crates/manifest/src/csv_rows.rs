//! Rows of a CSV manifest, one at a time.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use csv::StringRecord;

use m3ret_imaging::{Error, Result};

use super::FORMAT;
use super::bounds;
use super::columns::{PATH, meaning};
use super::table::Builder;

/// Bytes of the first line that are looked at for the separator.
const HEAD_BYTES: u64 = 64 << 10;

/// What may stand between cells.
const SEPARATORS: [u8; 3] = [b',', b';', b'\t'];

/// Largest row; a quote that never closes would otherwise take in the rest of the file.
const MAX_ROW_BYTES: u64 = 16 << 20;

pub(super) struct CsvRows {
    reader: csv::Reader<Metered>,
    row: StringRecord,
    /// Where `row` starts, or the last row at the end of the file.
    start: csv::Position,
    n_columns: usize,
    separator: u8,
    n_since_row: Arc<AtomicU64>,
}

/// Text from disk or from memory.
pub(super) trait Text: Read + Seek + Send {}

impl<T: Read + Seek + Send> Text for T {}

/// A text that fails once too many bytes were read for one row.
struct Metered {
    text: Box<dyn Text>,
    n_since_row: Arc<AtomicU64>,
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n_read = self.text.read(buffer)?;
        let n_new = u64::try_from(n_read).unwrap_or(u64::MAX);
        let before = self.n_since_row.fetch_add(n_new, Ordering::Relaxed);
        if before > MAX_ROW_BYTES {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        Ok(n_read)
    }
}

impl CsvRows {
    /// Reads the first line and returns the names in it, without the space around them.
    pub(super) fn open(mut text: Box<dyn Text>) -> Result<(Self, Vec<String>)> {
        let mut head = Vec::new();
        (&mut text)
            .take(HEAD_BYTES)
            .read_to_end(&mut head)
            .and_then(|_| text.rewind())
            .map_err(|e| Error::io("reading the manifest", e))?;
        let separator = separator(&head).unwrap_or(b',');
        let n_since_row = Arc::new(AtomicU64::new(0));
        let metered = Metered {
            text,
            n_since_row: Arc::clone(&n_since_row),
        };
        let reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(separator)
            .buffer_capacity(1 << 16)
            .from_reader(metered);
        let (row, start) = (StringRecord::new(), csv::Position::new());
        let mut rows = Self {
            reader,
            row,
            start,
            n_columns: 0,
            separator,
            n_since_row,
        };
        if !rows.advance()? {
            return Err(Error::malformed(
                FORMAT,
                "an empty file",
                "a first line that names the columns",
            ));
        }
        bounds::columns(rows.row.len())?;
        let names: Vec<String> = rows.row.iter().map(|name| name.trim().to_owned()).collect();
        rows.n_columns = names.len();
        Ok((rows, names))
    }

    pub(super) fn fill(&mut self, builder: &mut Builder, max_rows: usize) -> Result<usize> {
        for n_rows in 0..max_rows {
            if !self.advance()? {
                return Ok(n_rows);
            }
            if self.row.len() != self.n_columns {
                return Err(Error::malformed(
                    FORMAT,
                    format!("line {}: {} cells", self.line(), self.row.len()),
                    format!("{}, as many as columns", self.n_columns),
                ));
            }
            let path = self.row.get(builder.path_idx()).unwrap_or_default();
            if path.trim().is_empty() {
                let found = format!("line {}: an empty path", self.line());
                return Err(Error::malformed(FORMAT, found, "a path in every row"));
            }
            for (column_idx, cell) in self.row.iter().enumerate() {
                builder.push(column_idx, cell)?;
            }
        }
        Ok(max_rows)
    }

    /// Reads the next row; `false` at the end of the file.
    fn advance(&mut self) -> Result<bool> {
        self.n_since_row.store(0, Ordering::Relaxed);
        let more = match self.reader.read_record(&mut self.row) {
            Ok(more) => more,
            Err(error) => return Err(self.explain(error)),
        };
        if more {
            self.start = self
                .row
                .position()
                .cloned()
                .unwrap_or_else(csv::Position::new);
            return Ok(true);
        }
        let rest = self.read_again(&self.start.clone(), 2 * MAX_ROW_BYTES)?;
        if ends_inside_quotes(&rest, self.separator) {
            // Rows may have vanished in the open cell.
            let found = format!("line {}: a quoted cell that never ends", self.line());
            return Err(Error::malformed(FORMAT, found, "a closing quote"));
        }
        Ok(false)
    }

    /// Reads from `start` on; the reader is of no use afterwards.
    fn read_again(&mut self, start: &csv::Position, max_bytes: u64) -> Result<Vec<u8>> {
        let text = &mut self.reader.get_mut().text;
        let mut bytes = Vec::new();
        text.seek(SeekFrom::Start(start.byte()))
            .and_then(|_| text.take(max_bytes).read_to_end(&mut bytes))
            .map_err(|e| Error::io("reading the manifest", e))?;
        Ok(bytes)
    }

    /// Returns the line on which the row that was read last starts; for errors only.
    fn line(&mut self) -> u64 {
        self.line_from(&self.start.clone())
    }

    /// Passes over the empty lines that the reader counts as the start of the next row.
    fn line_from(&mut self, start: &csv::Position) -> u64 {
        let line = start.line();
        let bytes = self.read_again(start, 1 << 16).unwrap_or_default();
        let blank = bytes
            .iter()
            .take_while(|byte| matches!(byte, b'\r' | b'\n'));
        blank.fold(line, |line, &byte| line + u64::from(byte == b'\n'))
    }

    /// Explains a failed read without repeating the cells.
    fn explain(&mut self, error: csv::Error) -> Error {
        let start = error.position().cloned().unwrap_or_else(csv::Position::new);
        match error.into_kind() {
            csv::ErrorKind::Io(source) if source.kind() == io::ErrorKind::FileTooLarge => {
                Error::LimitExceeded {
                    what: "bytes of one manifest row (is a quote left open?)",
                    allowed: MAX_ROW_BYTES,
                    asked: MAX_ROW_BYTES + 1,
                }
            }
            csv::ErrorKind::Io(source) => Error::io("reading the manifest", source),
            _ => Error::malformed(
                FORMAT,
                format!("line {}: bytes that are not UTF-8", self.line_from(&start)),
                "CSV text in UTF-8, or Parquet",
            ),
        }
    }
}

/// Returns what stands between the names of the first line, one of which is `path`.
pub(super) fn separator(head: &[u8]) -> Option<u8> {
    let first_line = head.split(|&byte| matches!(byte, b'\n' | b'\r')).next()?;
    let first_line = first_line
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(first_line);
    SEPARATORS.into_iter().find(|&separator| {
        let mut names = first_line.split(|&byte| byte == separator);
        names.any(|name| {
            let name = String::from_utf8_lossy(name);
            meaning(name.trim().trim_matches('"').trim()) == Some(PATH)
        })
    })
}

fn ends_inside_quotes(row: &[u8], separator: u8) -> bool {
    let (mut inside, mut at_start) = (false, true);
    for &byte in row {
        match byte {
            // A doubled quote closes and opens again, which leaves `inside` as it was.
            b'"' if inside || at_start => (inside, at_start) = (!inside, inside),
            _ => at_start = !inside && (byte == separator || matches!(byte, b'\n' | b'\r')),
        }
    }
    inside
}
