//! Finding the rows that have a value in a column.
//!
//! A column is a dictionary of its different values and a code for each row: the value's place in
//! the dictionary. From format 2 on the dictionary is sorted, so a binary search finds the code of a
//! value. Where there are many values, the rows sorted by code are stored, too, and a binary search
//! finds the rows of a code.

use std::ops::Range;

use super::super::version;
use super::Segment;
use crate::error::Result;

/// The order of a column's rows is stored if a value has at most this many rows on average. With
/// fewer values, a lookup returns so many rows that comparing all codes costs little more.
const MAX_ROWS_PER_VALUE: usize = 4;

/// Says whether the writer stores the order of a column's rows.
pub(crate) fn stores_order(n_values: usize, n_rows: usize) -> bool {
    n_values.saturating_mul(MAX_ROWS_PER_VALUE) >= n_rows
}

/// Returns rows in ascending order of (code, row); all codes are below `n_values`.
pub(crate) fn order_of(codes: &[u32], n_values: usize) -> Vec<u32> {
    // Where the rows of each code begin, then where the next row of it goes.
    let mut next = vec![0_u32; n_values + 1];
    for &code in codes {
        next[code as usize + 1] += 1;
    }
    for code in 0..n_values {
        next[code + 1] += next[code];
    }
    let mut order = vec![0; codes.len()];
    for (row, &code) in (0_u32..).zip(codes) {
        let place = &mut next[code as usize];
        order[*place as usize] = row;
        *place += 1;
    }
    order
}

/// Returns the first of `n` sorted places that does not come before what is wanted, or `n`. Asks
/// for about log2(n) of them.
pub(super) fn first_not_before(
    n: usize,
    mut comes_before: impl FnMut(usize) -> Result<bool>,
) -> Result<usize> {
    let (mut low, mut high) = (0, n);
    while low < high {
        let middle = low + (high - low) / 2;
        if comes_before(middle)? {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

impl Segment {
    /// Says whether the values of columns stand in ascending order.
    pub(crate) fn has_sorted_values(&self) -> bool {
        self.footer.version >= version::SORTED_VALUES
    }

    /// Returns where the stored order of a column's rows lies, if it has one.
    pub(crate) fn value_order(&self, column: usize) -> Option<&Range<usize>> {
        let order = self.places.get(&format!("column/{column}/order"));
        order.filter(|_| self.has_sorted_values())
    }

    /// Returns all rows in the stored order of a column, if it has one.
    pub(crate) fn rows_by_value(&self, column: usize) -> Result<Option<&[u32]>> {
        let order = self.value_order(column);
        order
            .map(|order| self.numbers_at(order, 0..self.n_rows))
            .transpose()
    }

    /// Returns the code of a value; `None` if no row has it. Reads a few values of a sorted
    /// dictionary, else up to all.
    pub(crate) fn code_of(&self, column: usize, value: &[u8]) -> Result<Option<u32>> {
        let values = self.dictionary(column)?;
        let code = if self.has_sorted_values() {
            first_not_before(values.len(), |code| Ok(values.get(code)? < value))?
        } else {
            let mut code = 0;
            while code < values.len() && values.get(code)? != value {
                code += 1;
            }
            code
        };
        let is_there = code < values.len() && values.get(code)? == value;
        Ok(u32::try_from(code).ok().filter(|_| is_there))
    }

    /// Returns the rows with a value in a column that were not removed, in ascending order.
    pub(crate) fn find_rows(&self, column: usize, value: &str) -> Result<Vec<u32>> {
        let Some(code) = self.code_of(column, value.as_bytes())? else {
            return Ok(Vec::new());
        };
        if let Some(order) = self.value_order(column) {
            return self.rows_of(column, order, code);
        }
        let cells = (0_u32..).zip(self.cells(column)?);
        let rows = cells.filter(|&(row, &cell)| cell == code && self.is_live(row));
        Ok(rows.map(|(row, _)| row).collect())
    }

    /// Returns the rows of a code by the stored order; reads a few codes, and these rows.
    fn rows_of(&self, column: usize, order: &Range<usize>, code: u32) -> Result<Vec<u32>> {
        let cells = self.place(&format!("column/{column}/codes"))?;
        let cell = |place: usize| -> Result<u32> {
            let row = self.numbers_at::<u32>(order, place..place + 1)?[0] as usize;
            if row >= self.n_rows {
                return Err(self.damaged(format!("row {row} in the order of column {column}")));
            }
            Ok(self.numbers_at::<u32>(cells, row..row + 1)?[0])
        };
        let start = first_not_before(self.n_rows, |place| Ok(cell(place)? < code))?;
        let end = first_not_before(self.n_rows, |place| Ok(cell(place)? <= code))?;
        let rows: &[u32] = self.numbers_at(order, start..end.max(start))?;
        let live = rows.iter().copied().filter(|&row| self.is_live(row));
        Ok(live.collect())
    }

    /// Returns the different values that rows which were not removed have in a column.
    ///
    /// Reads the dictionary, and the codes only where rows were removed.
    pub(crate) fn values(&self, column: usize) -> Result<Vec<&str>> {
        let dictionary = self.dictionary(column)?;
        let mut is_used = vec![self.dead.is_none(); dictionary.len()];
        if self.dead.is_some() {
            let cells = self.cells(column)?;
            for row in self.live() {
                let used = is_used.get_mut(cells[row as usize] as usize);
                *used.ok_or_else(|| self.damaged("a cell without a value"))? = true;
            }
        }
        let used = (0..dictionary.len()).filter(|&code| is_used[code]);
        used.map(|code| dictionary.get_str(code)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_order_is_that_of_a_sort(codes in prop::collection::vec(0_u32..9, 0..60)) {
            let mut sorted: Vec<u32> = (0..codes.len() as u32).collect();
            sorted.sort_by_key(|&row| (codes[row as usize], row));
            prop_assert_eq!(order_of(&codes, 9), sorted);
        }

        #[test]
        fn the_first_place_is_that_of_a_scan(n in 0_usize..200, wanted in 0_usize..220) {
            let mut n_read = 0;
            let found = first_not_before(n, |place| {
                n_read += 1;
                Ok(place < wanted)
            });
            prop_assert_eq!(found.unwrap(), wanted.min(n));
            prop_assert!(n_read <= 8);
        }
    }

    #[test]
    fn the_order_is_stored_from_a_value_for_four_rows_on() {
        let cases = [
            (0, 0, true),
            (1, 4, true),
            (1, 5, false),
            (25, 100, true),
            (24, 100, false),
        ];
        for (n_values, n_rows, expected) in cases {
            assert_eq!(
                stores_order(n_values, n_rows),
                expected,
                "{n_values} of {n_rows}"
            );
        }
    }
}
