//! What a Parquet file is about to cost, told by its footer and by the heads of its pages, before the library reserves
//! memory for it: the library believes every size that is declared, and recurses as deep as a schema nests.

use parquet::basic::{Encoding, PageType, Type};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::ChunkReader;
use parquet::schema::types::ColumnDescriptor;

use m3ret_imaging::{Error, Result};

use super::super::FORMAT;
use super::super::bounds::{Bounds, MAX_COLUMNS, charge};
use super::thrift::Thrift;

/// Largest footer: that of 10,000 columns in ten row groups has about as much.
const MAX_FOOTER_BYTES: u64 = 16 << 20;
/// Largest page of text of which every value is built from the one before: such values are copied, not shared.
const MAX_DELTA_BYTES: u64 = 4 << 20;
/// Most values of a column of lists in one row group: one cell may hold all of them.
const MAX_LIST_VALUES: u64 = 16 << 20;
/// What the library keeps of one value of a dictionary.
const DICTIONARY_VALUE_BYTES: u64 = 32;
/// Bytes of a page's head that are looked at; statistics of long values are left out by every writer.
const HEAD_BYTES: usize = 64 << 10;

/// Checks the footer's size, and how many elements the schema has and how deep they nest.
pub(super) fn check_footer(bytes: &impl ChunkReader, bounds: &Bounds) -> Result<()> {
    let n_file_bytes = bytes.len();
    let broken = || {
        Error::malformed(
            FORMAT,
            "Parquet with a broken footer",
            "a whole, undamaged file",
        )
    };
    let read = |start: u64, n_bytes: u64| {
        let n_bytes = usize::try_from(n_bytes).map_err(|_| broken())?;
        bytes
            .get_bytes(start, n_bytes)
            .map_err(|e| super::explain(e, "a broken footer"))
    };
    let tail_start = n_file_bytes.checked_sub(8).ok_or_else(broken)?;
    let tail = read(tail_start, 8)?;
    let n_bytes = tail.first_chunk::<4>().map(|n| u32::from_le_bytes(*n));
    let n_bytes = u64::from(n_bytes.ok_or_else(broken)?);
    charge("bytes of a Parquet footer", n_bytes, MAX_FOOTER_BYTES)?;
    let footer = read(tail_start.checked_sub(n_bytes).ok_or_else(broken)?, n_bytes)?;
    let schema = schema_size(&footer, bounds.max_depth).ok_or_else(broken)?;
    charge("depth of a Parquet schema", schema.depth, bounds.max_depth)?;
    // A list of text is three elements.
    charge(
        "elements of a Parquet schema",
        schema.n_elements,
        4 * MAX_COLUMNS,
    )
}

#[derive(Debug, Default, PartialEq, Eq)]
struct SchemaSize {
    n_elements: u64,
    depth: u64,
}

/// Measures the schema of a footer, up to one level below `max_depth`; `None` if there is none.
fn schema_size(footer: &[u8], max_depth: u64) -> Option<SchemaSize> {
    let mut thrift = Thrift::new(footer);
    let mut last = 0;
    let n_elements = loop {
        let field = thrift.field(&mut last)??;
        if field.id == 2 {
            break thrift.structures(field)?;
        }
        thrift.skip(field)?;
    };
    let mut size = SchemaSize {
        n_elements,
        depth: 0,
    };
    // How many children are still to come of each element that holds this one.
    let mut open: Vec<u64> = Vec::new();
    for _ in 0..n_elements {
        let n_children = children(&mut thrift)?;
        if let Some(left) = open.last_mut() {
            *left -= 1;
        }
        if n_children > 0 {
            open.push(n_children);
            size.depth = size.depth.max(u64::try_from(open.len()).ok()?);
            if size.depth > max_depth {
                break;
            }
        }
        while open.last() == Some(&0) {
            open.pop();
        }
    }
    Some(size)
}

/// Reads one element of a schema and returns how many children it has.
fn children(thrift: &mut Thrift<'_>) -> Option<u64> {
    let (mut last, mut n_children) = (0, 0);
    while let Some(field) = thrift.field(&mut last)? {
        if field.id == 5 {
            n_children = u64::try_from(thrift.whole(field)?).ok()?;
        } else {
            thrift.skip(field)?;
        }
    }
    Some(n_children)
}

/// What the head of a page declares.
#[derive(Debug, Default, PartialEq, Eq)]
struct PageHead {
    n_head_bytes: u64,
    n_bytes: u64,
    n_compressed: u64,
    n_values: u64,
    is_dictionary: bool,
    is_delta: bool,
}

fn page_head(bytes: &[u8]) -> Option<PageHead> {
    let mut thrift = Thrift::new(bytes);
    let (mut head, mut last) = (PageHead::default(), 0);
    while let Some(field) = thrift.field(&mut last)? {
        match field.id {
            2 => head.n_bytes = u64::try_from(thrift.whole(field)?).ok()?,
            3 => head.n_compressed = u64::try_from(thrift.whole(field)?).ok()?,
            // The heads of data pages, dictionaries, and data pages of version 2.
            5 | 7 | 8 => {
                Thrift::structure(field)?;
                read_kind(&mut thrift, field.id, &mut head)?;
            }
            _ => thrift.skip(field)?,
        }
    }
    head.n_head_bytes = u64::try_from(thrift.n_read()).ok()?;
    Some(head)
}

fn read_kind(thrift: &mut Thrift<'_>, kind: i16, head: &mut PageHead) -> Option<()> {
    head.is_dictionary |= kind == 7;
    let encoding_id = if kind == 8 { 4 } else { 2 };
    let mut last = 0;
    while let Some(field) = thrift.field(&mut last)? {
        if field.id == 1 {
            let n_values = u64::try_from(thrift.whole(field)?).ok()?;
            head.n_values = head.n_values.max(n_values);
        } else if field.id == encoding_id {
            // DELTA_LENGTH_BYTE_ARRAY and DELTA_BYTE_ARRAY.
            head.is_delta |= (6..=7).contains(&thrift.whole(field)?);
        } else {
            thrift.skip(field)?;
        }
    }
    Some(())
}

/// What the columns of one row group cost so far.
#[derive(Debug, Default)]
pub(super) struct GroupCost {
    /// Dictionaries, which stay while the row group is read.
    n_dictionary_bytes: u64,
}

impl GroupCost {
    /// Checks every page of a column by its head.
    pub(super) fn add(
        &mut self,
        file: &impl ChunkReader,
        chunk: &ColumnChunkMetaData,
        bounds: &Bounds,
    ) -> Result<()> {
        let broken = || {
            let found = "Parquet with a broken page";
            Error::malformed(FORMAT, found, "a whole, undamaged file")
        };
        let is_list = chunk.column_descr().max_rep_level() > 0;
        let (mut at, n_bytes) = chunk.byte_range();
        let end = at.checked_add(n_bytes).ok_or_else(broken)?;
        let mut n_values = 0_u64;
        while at < end {
            let n_left = usize::try_from(end - at).unwrap_or(usize::MAX);
            // Most heads are a few dozen bytes.
            let short = head_at(file, at, n_left.min(256))?;
            let head = match short {
                Some(head) => Some(head),
                None => head_at(file, at, n_left.min(HEAD_BYTES))?,
            };
            let head = head.ok_or_else(broken)?;
            let cost = if head.is_dictionary {
                let values = head.n_values.saturating_mul(DICTIONARY_VALUE_BYTES);
                self.n_dictionary_bytes = self
                    .n_dictionary_bytes
                    .saturating_add(head.n_bytes)
                    .saturating_add(values);
                0
            } else {
                n_values = n_values.saturating_add(head.n_values);
                head.n_bytes
            };
            bounds.decompressed(self.n_dictionary_bytes.saturating_add(cost))?;
            bounds.values(n_values)?;
            if is_list {
                let what = "values of a Parquet column of lists";
                charge(what, n_values, MAX_LIST_VALUES)?;
            }
            if head.is_delta {
                let what = "bytes of a delta-encoded Parquet page";
                charge(what, head.n_bytes, MAX_DELTA_BYTES)?;
            }
            at = at
                .checked_add(head.n_head_bytes)
                .and_then(|at| at.checked_add(head.n_compressed))
                .filter(|&at| at <= end)
                .ok_or_else(broken)?;
        }
        Ok(())
    }
}

fn head_at(file: &impl ChunkReader, at: u64, n_bytes: usize) -> Result<Option<PageHead>> {
    let bytes = file
        .get_bytes(at, n_bytes)
        .map_err(|e| super::explain(e, "a broken page"))?;
    Ok(page_head(&bytes))
}

/// Pages of which none makes the library panic or reserve what its values do not fill.
pub(super) struct CheckedPages {
    pages: Box<dyn PageReader>,
    has_dictionary: bool,
    is_text: bool,
    has_repeats: bool,
    has_levels: bool,
}

impl CheckedPages {
    pub(super) fn new(pages: Box<dyn PageReader>, column: &ColumnDescriptor) -> Self {
        Self {
            pages,
            has_dictionary: false,
            is_text: matches!(
                column.physical_type(),
                Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY
            ),
            has_repeats: column.max_rep_level() > 0,
            has_levels: column.max_def_level() > 0,
        }
    }

    fn check(&mut self, page: &Page) -> Option<()> {
        match (page.page_type(), page.encoding()) {
            (PageType::DICTIONARY_PAGE, _) => {
                self.has_dictionary = true;
                // Every value takes a byte at least.
                let n_values = usize::try_from(page.num_values()).ok()?;
                (n_values <= page.buffer().len()).then_some(())
            }
            (_, Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY) => {
                self.has_dictionary.then_some(())
            }
            (_, encoding @ (Encoding::DELTA_LENGTH_BYTE_ARRAY | Encoding::DELTA_BYTE_ARRAY)) => {
                let values = page.buffer().get(self.values_start(page)?..)?;
                let mut stream = Thrift::new(values);
                let n_values = u64::from(page.num_values());
                if encoding == Encoding::DELTA_BYTE_ARRAY {
                    pass_delta(&mut stream, n_values)?;
                }
                self.is_text.then_some(())?;
                pass_delta(&mut stream, n_values)
            }
            _ => Some(()),
        }
    }

    /// Returns where the values of a page begin, after their levels.
    fn values_start(&self, page: &Page) -> Option<usize> {
        if let Page::DataPageV2 {
            def_levels_byte_len,
            rep_levels_byte_len,
            ..
        } = page
        {
            let n_bytes = def_levels_byte_len.checked_add(*rep_levels_byte_len)?;
            return usize::try_from(n_bytes).ok();
        }
        let n_levels = usize::from(self.has_repeats) + usize::from(self.has_levels);
        (0..n_levels).try_fold(0_usize, |start, _| {
            let n_bytes = page.buffer().get(start..)?.first_chunk::<4>()?;
            let n_bytes = usize::try_from(u32::from_le_bytes(*n_bytes)).ok()?;
            start.checked_add(4)?.checked_add(n_bytes)
        })
    }
}

/// Passes over numbers that are encoded by their differences; `None` if they are more than `max_values`, or broken.
fn pass_delta(stream: &mut Thrift<'_>, max_values: u64) -> Option<()> {
    let (block, n_minis) = (stream.number()?, stream.number()?);
    let n_values = stream.number()?;
    stream.integer()?;
    let per_mini = block.checked_div(n_minis)?;
    (n_values <= max_values && per_mini > 0).then_some(())?;
    let mut left = n_values.saturating_sub(1);
    while left > 0 {
        stream.integer()?;
        let mut widths = Vec::new();
        for _ in 0..n_minis {
            widths.push(stream.byte()?);
        }
        for width in widths {
            if left > 0 {
                stream.pass(per_mini.checked_mul(u64::from(width))? / 8)?;
            }
            left = left.saturating_sub(per_mini);
        }
    }
    Some(())
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> parquet::errors::Result<Option<Page>> {
        let page = self.pages.get_next_page()?;
        if let Some(page) = &page {
            self.check(page)
                .ok_or_else(|| ParquetError::General("a broken page".into()))?;
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> parquet::errors::Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> parquet::errors::Result<()> {
        self.pages.skip_next_page()
    }
}

impl Iterator for CheckedPages {
    type Item = parquet::errors::Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A footer whose schema is a chain of groups.
    fn chain(depth: usize) -> Vec<u8> {
        let mut bytes = vec![0x15, 4, 0x19, 0xfc];
        bytes.extend([
            u8::try_from(depth % 128).unwrap() | 0x80,
            u8::try_from(depth / 128).unwrap(),
        ]);
        for _ in 1..depth {
            bytes.extend([0x48, 1, b'a', 0x15, 2, 0]);
        }
        bytes.extend([0x15, 2, 0x38, 1, b'a', 0, 0]);
        bytes
    }

    #[test]
    fn a_schema_is_measured_without_following_it() {
        for (depth, found) in [(4, 3), (33, 32), (10_000, 33)] {
            let size = schema_size(&chain(depth), 32).unwrap();
            assert_eq!((size.n_elements, size.depth), (depth as u64, found));
        }
        assert_eq!(schema_size(&chain(9)[..20], 32), None);
    }

    #[test]
    fn the_head_of_a_page_tells_its_cost() {
        // A dictionary of 300 values, 2^30 bytes of 7 compressed ones.
        let bytes = [
            0x15, 4, 0x15, 0x80, 0x80, 0x80, 0x80, 0x08, 0x15, 14, 0x4c, 0x15, 0xd8, 0x04, 0x15, 0,
            0, 0,
        ];
        let head = page_head(&bytes).unwrap();
        assert_eq!(
            head,
            PageHead {
                n_head_bytes: 18,
                n_bytes: 1 << 30,
                n_compressed: 7,
                n_values: 300,
                is_dictionary: true,
                is_delta: false,
            }
        );
        assert_eq!(page_head(&bytes[..17]), None);
    }

    #[test]
    fn differences_for_more_values_than_a_page_has_are_refused() {
        // Blocks of 128 values in 4 parts; 3 values: 0, and two differences of 1 without bits.
        let three = [0x80, 1, 4, 3, 0, 2, 0, 0, 0, 0];
        let passed = |bytes: &[u8], max: u64| {
            let mut stream = Thrift::new(bytes);
            pass_delta(&mut stream, max).map(|()| stream.n_read())
        };
        assert_eq!(passed(&three, 3), Some(10));
        assert_eq!(passed(&three, 2), None);
        assert_eq!(
            passed(&[0x80, 1, 4, 0xff, 0xff, 0xff, 0xff, 0x0f, 0], 5),
            None
        );
        assert_eq!(passed(&[0x80, 1, 0, 3, 0], 5), None);
        assert_eq!(
            passed(&[0x80, 1, 4, 3, 0, 2, 8, 0, 0, 0, 1], 5),
            None,
            "too short"
        );
    }
}
