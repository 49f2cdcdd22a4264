//! What can be searched: a set of unit vectors, each with an id and cells in named columns.

use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::gallery::{Gallery, Maker, Numbers, RowId};
use crate::scan::{Queries, RowHit, SearchOptions};
use crate::statistics::Statistics;

/// Rows whose cells are read at once.
const ROWS_TOGETHER: usize = 4096;

/// A set of unit vectors of one width, each with an id, cells in named columns and attachments, as one state that does
/// not change while it is open.
///
/// `Gallery` is the collection in a local folder. Another one may keep its rows far away: callers that need many cells
/// ask for them together, with `rows` and `vectors`.
pub trait Collection: Send + Sync {
    /// Returns the number of rows.
    fn len(&self) -> usize;

    /// Returns whether there is no row.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of values of a vector.
    fn width(&self) -> usize;

    /// Returns the number format in which vectors are stored.
    fn numbers(&self) -> Numbers;

    /// Returns what made the vectors.
    fn maker(&self) -> &Maker;

    /// Fails unless vectors of this maker can be compared with those of the collection.
    ///
    /// # Errors
    /// `Mismatch` if the fingerprints differ.
    fn check_maker(&self, maker: &Maker) -> Result<()> {
        let own = self.maker();
        if own.fingerprint == maker.fingerprint {
            return Ok(());
        }
        Err(Error::mismatch(
            "encoder",
            format!(
                "{} ({}), which made the gallery",
                own.model, own.fingerprint
            ),
            format!("{} ({})", maker.model, maker.fingerprint),
        ))
    }

    /// Returns the names of all columns.
    fn columns(&self) -> Vec<&str>;

    /// Returns every row.
    ///
    /// # Errors
    /// `Io` where rows lie far away.
    fn scan(&self) -> Result<Vec<RowId>>;

    /// Calls `visit` with every row, in the order of `scan`, and its cells in some columns.
    ///
    /// # Errors
    /// `Damaged`; `Io` where rows lie far away.
    fn each_row(
        &self,
        columns: &[&str],
        visit: &mut (dyn FnMut(RowId, &[Cow<'_, str>]) + Send),
    ) -> Result<()> {
        for rows in self.scan()?.chunks(ROWS_TOGETHER) {
            for (row, cells) in rows.iter().zip(self.rows(rows, columns)?) {
                visit(*row, &cells);
            }
        }
        Ok(())
    }

    /// Returns about how many searches may be made to measure the collection: the more one costs, the fewer.
    fn n_measuring(&self) -> usize {
        usize::MAX
    }

    /// Finds the row of an id.
    ///
    /// # Errors
    /// `Damaged`.
    fn find(&self, id: &str) -> Result<Option<RowId>>;

    /// Returns the rows whose cell in a column is `value`, in the order of `scan`. A row without the column has an
    /// empty cell.
    ///
    /// # Errors
    /// `Damaged`.
    fn find_rows(&self, column: &str, value: &str) -> Result<Vec<RowId>>;

    /// Returns the different cells of a column in ascending order of bytes, the empty one included.
    ///
    /// # Errors
    /// `Damaged`.
    fn values(&self, column: &str) -> Result<Vec<Cow<'_, str>>>;

    /// Returns the ids of rows, in their order.
    ///
    /// # Errors
    /// `Damaged`.
    fn ids(&self, rows: &[RowId]) -> Result<Vec<Cow<'_, str>>>;

    /// Returns the cells of rows in some columns: for each row in their order, one for each column in their order;
    /// empty where the row or the collection has none.
    ///
    /// # Errors
    /// `Damaged`.
    fn rows(&self, rows: &[RowId], columns: &[&str]) -> Result<Vec<Vec<Cow<'_, str>>>>;

    /// Returns the own vectors of rows as they are stored, [rows, width]; in 16 bits, rounding changes their length a little.
    ///
    /// # Errors
    /// `Damaged`.
    fn vectors(&self, rows: &[RowId]) -> Result<Vec<f32>>;

    /// Returns the names of the views that rows have further vectors of, in ascending order: a `ViewId` is a place
    /// among them.
    fn views(&self) -> Vec<&str> {
        Vec::new()
    }

    /// Returns the further vectors of a row as they are stored, each with the name of its view.
    ///
    /// # Errors
    /// `Damaged`.
    fn view_vectors(&self, _row: RowId) -> Result<Vec<(Cow<'_, str>, Vec<f32>)>> {
        Ok(Vec::new())
    }

    /// Returns what is attached to a row under a name, e.g. `thumbnail`; empty for nothing.
    ///
    /// # Errors
    /// `Damaged`.
    fn attachment(&self, row: RowId, name: &str) -> Result<Cow<'_, [u8]>>;

    /// Finds the best hits of each query, best first; of equal scores, the smaller id first.
    ///
    /// # Errors
    /// `Mismatch` if a vector does not have the width or is no unit vector, or a filter names a column or value that
    /// no row has; `Damaged`.
    fn search(&self, queries: Queries<'_>, options: &SearchOptions) -> Result<Vec<Vec<RowHit>>>;

    /// Returns the samples of scores that say how rare a score is; `None` where there are too few rows for them.
    ///
    /// # Errors
    /// `Damaged`.
    fn statistics(&self) -> Result<Option<&Statistics>>;

    /// Returns the hash under which an identifier of a kind (`patient_id`) is stored; empty for an empty identifier.
    fn pseudonym(&self, kind: &str, identifier: &str) -> String;

    /// Returns the id of a row.
    ///
    /// # Errors
    /// `Damaged`.
    fn id(&self, row: RowId) -> Result<Cow<'_, str>> {
        Ok(self.ids(&[row])?.pop().unwrap_or_default())
    }

    /// Returns a row's cell in a column; empty where the row or the collection has none.
    ///
    /// # Errors
    /// `Damaged`.
    fn value(&self, row: RowId, column: &str) -> Result<Cow<'_, str>> {
        let mut cells = self.rows(&[row], &[column])?.pop().unwrap_or_default();
        Ok(cells.pop().unwrap_or_default())
    }
}

impl Collection for Gallery {
    fn len(&self) -> usize {
        Self::len(self)
    }

    fn width(&self) -> usize {
        Self::width(self)
    }

    fn numbers(&self) -> Numbers {
        Self::numbers(self)
    }

    fn maker(&self) -> &Maker {
        Self::maker(self)
    }

    fn columns(&self) -> Vec<&str> {
        Self::columns(self)
    }

    fn scan(&self) -> Result<Vec<RowId>> {
        Ok(Self::rows(self).collect())
    }

    fn find(&self, id: &str) -> Result<Option<RowId>> {
        Self::find(self, id)
    }

    fn find_rows(&self, column: &str, value: &str) -> Result<Vec<RowId>> {
        Self::find_rows(self, column, value)
    }

    fn values(&self, column: &str) -> Result<Vec<Cow<'_, str>>> {
        let values = Self::values(self, column)?.into_iter();
        Ok(values.map(Cow::Borrowed).collect())
    }

    fn ids(&self, rows: &[RowId]) -> Result<Vec<Cow<'_, str>>> {
        let ids = Self::ids(self, rows)?.into_iter();
        Ok(ids.map(Cow::Borrowed).collect())
    }

    fn rows(&self, rows: &[RowId], columns: &[&str]) -> Result<Vec<Vec<Cow<'_, str>>>> {
        let rows = self.cells(rows, columns)?.into_iter();
        let cells = rows.map(|cells| cells.into_iter().map(Cow::Borrowed).collect());
        Ok(cells.collect())
    }

    fn vectors(&self, rows: &[RowId]) -> Result<Vec<f32>> {
        let mut vectors = Vec::with_capacity(rows.len() * self.width());
        for &row in rows {
            vectors.extend(Self::vector(self, row)?);
        }
        Ok(vectors)
    }

    fn views(&self) -> Vec<&str> {
        Self::views(self)
    }

    fn view_vectors(&self, row: RowId) -> Result<Vec<(Cow<'_, str>, Vec<f32>)>> {
        let vectors = Self::view_vectors(self, row)?.into_iter();
        let named = vectors.map(|(name, vector)| (Cow::Borrowed(name), vector));
        Ok(named.collect())
    }

    fn attachment(&self, row: RowId, name: &str) -> Result<Cow<'_, [u8]>> {
        Self::attachment(self, row, name).map(Cow::Borrowed)
    }

    fn search(&self, queries: Queries<'_>, options: &SearchOptions) -> Result<Vec<Vec<RowHit>>> {
        Self::search(self, queries, options)
    }

    fn statistics(&self) -> Result<Option<&Statistics>> {
        Self::statistics(self)
    }

    fn pseudonym(&self, kind: &str, identifier: &str) -> String {
        Self::pseudonym(self, kind, identifier)
    }

    fn id(&self, row: RowId) -> Result<Cow<'_, str>> {
        Self::id(self, row).map(Cow::Borrowed)
    }

    fn value(&self, row: RowId, column: &str) -> Result<Cow<'_, str>> {
        Self::value(self, row, column).map(Cow::Borrowed)
    }
}
