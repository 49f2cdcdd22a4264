//! What a manifest may cost, beside the size of its file: charged before memory is reserved.
//!
//! Compressed tables can declare billions of cells in a few bytes, as compressed images can declare pixels. So rows
//! and cells are bounded by the bytes of the file, and the memory of a table is charged by what its vectors reserve.

use m3ret_imaging::{Error, Limits, Result};

/// Most columns of one manifest; tables of radiomics have a few thousand.
pub(super) const MAX_COLUMNS: u64 = 16_384;
/// Largest cell, as the largest row of CSV.
pub(super) const MAX_CELL_BYTES: usize = 16 << 20;
/// Most rows for each byte of the file. Distinct paths take one byte a row at least, however well they compress.
const ROWS_PER_BYTE: u64 = 64;
/// Rows that no file is too small for.
const FREE_ROWS: u64 = 1 << 20;
/// Cells that no file is too small for.
const FREE_CELLS: u64 = 64 << 20;

/// The bounds of one manifest, which follow from the size of its file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    max_rows: u64,
    max_cells: u64,
    /// Bytes of one table in memory, and of what one row group decompresses to.
    pub(super) max_bytes: u64,
    /// Deepest nesting of a schema.
    pub(super) max_depth: u64,
}

impl Bounds {
    pub(super) fn new(n_file_bytes: u64, limits: &Limits) -> Self {
        let by_cells = n_file_bytes.saturating_mul(limits.max_decompression_ratio);
        Self {
            max_rows: n_file_bytes.saturating_mul(ROWS_PER_BYTE).max(FREE_ROWS),
            max_cells: by_cells.max(FREE_CELLS),
            max_bytes: limits.max_decompressed(n_file_bytes),
            max_depth: limits.max_depth,
        }
    }

    /// Checks a number of rows, and of the cells in them.
    pub(super) fn rows(&self, n_rows: u64, n_columns: usize) -> Result<()> {
        charge("rows of a manifest of this size", n_rows, self.max_rows)?;
        let n_columns = u64::try_from(n_columns).unwrap_or(u64::MAX);
        let n_cells = n_rows.saturating_mul(n_columns);
        charge("cells of a manifest of this size", n_cells, self.max_cells)
    }

    /// Checks the number of values of one Parquet column in one row group.
    pub(super) fn values(&self, n_values: u64) -> Result<()> {
        charge(
            "values of a Parquet column of this size",
            n_values,
            self.max_cells,
        )
    }

    /// Checks what the pages of one row group decompress to.
    pub(super) fn decompressed(&self, n_bytes: u64) -> Result<()> {
        charge("decompressed bytes", n_bytes, self.max_bytes)
    }
}

/// Checks a number of columns.
pub(super) fn columns(n_columns: usize) -> Result<()> {
    let asked = u64::try_from(n_columns).unwrap_or(u64::MAX);
    charge("columns of one manifest", asked, MAX_COLUMNS)
}

pub(super) fn charge(what: &'static str, asked: u64, allowed: u64) -> Result<()> {
    if asked > allowed {
        return Err(Error::LimitExceeded {
            what,
            allowed,
            asked,
        });
    }
    Ok(())
}

/// The memory that a table has reserved, and may reserve.
#[derive(Debug)]
pub(super) struct Account {
    n_bytes: u64,
    max_bytes: u64,
}

impl Account {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self {
            n_bytes: 0,
            max_bytes,
        }
    }

    /// Charges bytes that are about to be reserved.
    pub(super) fn charge(&mut self, n_bytes: usize) -> Result<()> {
        let n_bytes = u64::try_from(n_bytes).unwrap_or(u64::MAX);
        let asked = self.n_bytes.saturating_add(n_bytes);
        charge("bytes of the manifest in memory", asked, self.max_bytes)?;
        self.n_bytes = asked;
        Ok(())
    }

    /// Gives back what was charged for a vector that is gone.
    pub(super) fn release(&mut self, n_bytes: usize) {
        let n_bytes = u64::try_from(n_bytes).unwrap_or(u64::MAX);
        self.n_bytes = self.n_bytes.saturating_sub(n_bytes);
    }

    /// Makes room for more items of a vector.
    pub(super) fn reserve<T>(&mut self, items: &mut Vec<T>, n_more: usize) -> Result<()> {
        if let Some(n_new) = n_to_reserve(items.len(), items.capacity(), n_more) {
            self.charge_growth(items.capacity(), items.len() + n_new, size_of::<T>())?;
            let reserved = items.try_reserve_exact(n_new);
            return reserved.map_err(|_| self.out_of_memory());
        }
        Ok(())
    }

    /// Makes room for more text.
    pub(super) fn reserve_text(&mut self, text: &mut String, n_more: usize) -> Result<()> {
        if let Some(n_new) = n_to_reserve(text.len(), text.capacity(), n_more) {
            self.charge_growth(text.capacity(), text.len() + n_new, 1)?;
            let reserved = text.try_reserve_exact(n_new);
            return reserved.map_err(|_| self.out_of_memory());
        }
        Ok(())
    }

    fn charge_growth(&mut self, before: usize, after: usize, n_bytes: usize) -> Result<()> {
        self.charge(after.saturating_sub(before).saturating_mul(n_bytes))
    }

    /// The machine has less memory than the limit allows.
    pub(super) fn out_of_memory(&self) -> Error {
        Error::LimitExceeded {
            what: "bytes of memory that the machine has for the manifest",
            allowed: 0,
            asked: self.n_bytes,
        }
    }
}

/// Returns how many items beyond `len` are to be reserved so that `n_more` fit; `None` if they fit already.
fn n_to_reserve(len: usize, capacity: usize, n_more: usize) -> Option<usize> {
    let wanted = len.saturating_add(n_more);
    if wanted <= capacity {
        return None;
    }
    // Growth by a half keeps pushes cheap, and what is reserved near what is used.
    let capacity = wanted.max(capacity.saturating_add(capacity / 2)).max(16);
    Some(capacity - len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_vector_reserves_is_what_is_charged() {
        let mut account = Account::new(10_000);
        let (mut numbers, mut text) = (Vec::<u32>::new(), String::new());
        let mut n_pushed = 0;
        let refused = loop {
            let reserved = account
                .reserve(&mut numbers, 1)
                .and_then(|()| account.reserve_text(&mut text, 3));
            if let Err(refused) = reserved {
                break refused;
            }
            numbers.push(n_pushed);
            text.push_str("abc");
            n_pushed += 1;
            let reserved = 4 * numbers.capacity() + text.capacity();
            assert_eq!(account.n_bytes, u64::try_from(reserved).unwrap());
        };
        assert!(n_pushed > 500, "{n_pushed}");
        assert!(matches!(
            refused,
            Error::LimitExceeded {
                allowed: 10_000,
                ..
            }
        ));
        assert!(4 * numbers.capacity() + text.capacity() <= 10_000);
    }

    #[test]
    fn rows_and_cells_are_bounded_by_the_bytes_of_the_file() {
        let bounds = Bounds::new(30_000, &Limits::default());
        assert!(bounds.rows(1_000_000, 40).is_ok());
        assert!(bounds.rows(10_000_000, 1).is_err(), "rows");
        assert!(bounds.rows(1_000_000, 70).is_err(), "cells");
        let bounds = Bounds::new(20_000_000, &Limits::default());
        assert!(bounds.rows(10_000_000, 40).is_ok());
    }
}
