//! Which gallery items a query must not see: itself, and those that share a value with it.

use super::require;
use crate::error::Result;
use crate::evaluation::columns::{Column, Columns};

/// Columns whose value a candidate must not share with the query, laid out for some items.
pub(super) struct ExclusionRule<'a> {
    /// For each column its word for each item.
    columns: Vec<(&'a Column, Vec<u32>)>,
}

impl<'a> ExclusionRule<'a> {
    /// Takes the names of columns, and the row of each item.
    ///
    /// # Errors
    /// `Mismatch` if a column is missing.
    pub(super) fn new(names: &[String], columns: &'a Columns, rows: &[u32]) -> Result<Self> {
        let columns = names.iter().map(|name| {
            let column = require(columns, name)?;
            let codes = rows.iter().map(|&row| column.code(row as usize));
            Ok((column, codes.collect()))
        });
        Ok(Self {
            columns: columns.collect::<Result<_>>()?,
        })
    }

    /// Returns what one query must not see; 0, the unknown, excludes nothing.
    pub(super) fn of_query(&self, query: u32) -> Excluded<'_> {
        let own = self.columns.iter().map(|(column, codes)| {
            let code = column.code(query as usize);
            (code, codes.as_slice())
        });
        Excluded {
            query,
            own: own.filter(|&(code, _)| code != 0).collect(),
        }
    }
}

/// The items that one query must not see.
pub(super) struct Excluded<'a> {
    query: u32,
    /// For each column that says something of the query, its word and those of all items.
    own: Vec<(u32, &'a [u32])>,
}

impl Excluded<'_> {
    /// Returns whether an item is among them; `item` is its place in the rule, `row` its row of the table.
    #[inline]
    pub(super) fn has(&self, item: usize, row: u32) -> bool {
        row == self.query || self.own.iter().any(|&(code, codes)| codes[item] == code)
    }
}
