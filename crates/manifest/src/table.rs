//! Rows in memory: every column's distinct words once, and small numbers that point at them.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::path::PathBuf;
use std::sync::Arc;

use hashbrown::HashTable;

use m3ret_imaging::{Error, Result};

use super::bounds::Account;
use super::place::path_of;
use super::privacy::Storage;
use super::words::Kind;
use super::{Shared, columns, notes};

/// Rows of a manifest in memory.
///
/// Most columns have few distinct words, so a row costs about the length of its path and one to
/// four bytes a column.
#[derive(Debug, Clone)]
pub struct Table {
    shared: Arc<Shared>,
    columns: Vec<Column>,
    n_rows: usize,
    /// Our names of columns that a gallery stores on request.
    requested: Vec<String>,
}

impl Table {
    /// Returns the number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.n_rows
    }

    /// Returns whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.n_rows == 0
    }

    /// Returns the names of the columns, in the order of the file; those with a meaning have our names.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.shared.header.names
    }

    /// Returns the names of the columns as they are written in the manifest.
    #[must_use]
    pub fn written_columns(&self) -> &[String] {
        &self.shared.header.written
    }

    /// Returns our name of the column that a user calls `name`, if the manifest has it: as it is written
    /// there, or any other spelling of a column with a meaning.
    #[must_use]
    pub fn name_of(&self, name: &str) -> Option<&str> {
        let header = &self.shared.header;
        let place = |wanted: &str| header.names.iter().position(|ours| ours == wanted);
        let written = || header.written.iter().position(|written| written == name);
        let idx = place(name)
            .or_else(written)
            .or_else(|| place(columns::meaning(name)?))?;
        header.names.get(idx).map(String::as_str)
    }

    /// Asks for columns to be stored, in any spelling; returns the first name of no column.
    pub fn request<'a>(&mut self, names: &'a [String]) -> Option<&'a str> {
        let mut unknown = None;
        for name in names {
            match self.name_of(name).map(str::to_owned) {
                Some(ours) => self.requested.push(ours),
                None => unknown = unknown.or(Some(name.as_str())),
            }
        }
        unknown
    }

    /// Iterates over our names of the columns and what a gallery does with them.
    pub fn storage(&self) -> impl Iterator<Item = (&str, Storage)> {
        let header = &self.shared.header;
        let columns = header.names.iter().zip(&header.storage);
        columns.map(|(name, storage)| {
            let storage = storage.clone();
            match self.requested.contains(name) {
                true => (name.as_str(), storage.requested()),
                false => (name.as_str(), storage),
            }
        })
    }

    /// Returns the column of that name, if the manifest has it.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Column> {
        let names = &self.shared.header.names;
        self.columns
            .get(names.iter().position(|candidate| candidate == name)?)
    }

    /// Returns the names of the columns whose type cannot be read as text; rows have no cells of them.
    #[must_use]
    pub fn unread_columns(&self) -> &[String] {
        &self.shared.unread
    }

    /// Returns what a user should know of the table: columns with other names than ours, columns that
    /// are not read, and words in cells that stand for no value. None names a cell's own text.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        notes::of(self)
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) fn column_at(&self, idx: usize) -> Option<&Column> {
        self.columns.get(idx)
    }

    /// Returns the row at `idx`, or `None` past the end.
    #[must_use]
    pub fn row(&self, idx: usize) -> Option<Row<'_>> {
        (idx < self.n_rows).then_some(Row { table: self, idx })
    }

    /// Returns a table of some of the rows, in the order given, followed by rows of which only the path is known.
    ///
    /// # Errors
    /// `LimitExceeded` if the table would take more than `max_bytes`.
    pub fn with_paths(&self, rows: &[usize], paths: &[String], max_bytes: u64) -> Result<Self> {
        let mut builder = Builder::new(Arc::clone(&self.shared), max_bytes);
        for row in rows.iter().filter_map(|&idx| self.row(idx)) {
            for (column_idx, cell) in row.written_cells().enumerate() {
                builder.push(column_idx, cell)?;
            }
        }
        for path in paths {
            for column_idx in 0..self.columns.len() {
                let is_path = column_idx == builder.path_idx();
                builder.push(column_idx, if is_path { path } else { "" })?;
            }
        }
        let mut table = builder.finish();
        table.requested.clone_from(&self.requested);
        Ok(table)
    }

    /// Iterates over the rows in the order of the file.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = Row<'_>> {
        (0..self.n_rows).map(|idx| Row { table: self, idx })
    }

    fn cell(&self, column_idx: usize, row_idx: usize) -> &str {
        self.columns
            .get(column_idx)
            .and_then(|column| column.get(row_idx))
            .unwrap_or_default()
    }
}

/// One row of a `Table`.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    table: &'a Table,
    idx: usize,
}

impl<'a> Row<'a> {
    /// Returns the position in the table, from 0.
    #[must_use]
    pub fn idx(&self) -> usize {
        self.idx
    }

    /// Returns the path as it is written in the manifest.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.table.cell(self.table.shared.header.path_idx, self.idx)
    }

    /// Returns the path to open: relative paths start at the manifest's folder.
    ///
    /// Space around a path is part of the name where a file has that name, and else is not.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        let (folder, path) = (&self.table.shared.folder, self.path());
        let (file, trimmed) = (folder.join(path_of(path)), path.trim());
        if trimmed == path || file.exists() {
            return file;
        }
        folder.join(path_of(trimmed))
    }

    /// Returns which image of the file is meant, if the row says so.
    #[must_use]
    pub fn part(&self) -> Option<&'a str> {
        self.get(columns::PART).filter(|part| !part.is_empty())
    }

    /// Returns the cell of a column: empty where nothing is known, `None` if there is no such
    /// column.
    #[must_use]
    pub fn get(&self, column: &str) -> Option<&'a str> {
        self.table.column(column)?.get(self.idx)
    }

    /// Returns the table that the row is of.
    #[must_use]
    pub fn table(&self) -> &'a Table {
        self.table
    }

    /// Iterates over our names of the columns and the cells in them.
    pub fn named_cells(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let names = self.table.columns().iter().map(String::as_str);
        names.zip(self.cells())
    }

    /// Iterates over the cells in the order of the columns.
    pub fn cells(&self) -> impl ExactSizeIterator<Item = &'a str> {
        let (table, idx) = (self.table, self.idx);
        table
            .columns
            .iter()
            .map(move |column| column.get(idx).unwrap_or_default())
    }

    /// Iterates over the cells as they stand in the file, in the order of the columns: with the space around them,
    /// and with words that stand for no value.
    pub fn written_cells(&self) -> impl ExactSizeIterator<Item = &'a str> {
        let (table, idx) = (self.table, self.idx);
        let columns = table.columns.iter().map(Column::as_written);
        columns.map(move |column| column.get(idx).unwrap_or_default())
    }
}

/// One column of a `Table`: numbered words, and the number of each row's word.
///
/// The words are distinct in every column but `path`, where row `i` simply has word `i`.
#[derive(Debug, Clone, Default)]
pub struct Column {
    words: Arena,
    ids: Ids,
    /// Cells with a word that stands for no value.
    n_emptied: usize,
    /// The cells as they stand in the file; `None` if all are what they are read as.
    written: Option<Box<Column>>,
}

impl Column {
    /// Returns the cell of a row, or `None` past the end.
    #[must_use]
    pub fn get(&self, row_idx: usize) -> Option<&str> {
        self.words.get(self.id(row_idx)?)
    }

    /// Returns the number of a row's word, or `None` past the end.
    #[must_use]
    pub fn id(&self, row_idx: usize) -> Option<usize> {
        match &self.ids {
            Ids::Same => (row_idx < self.words.len()).then_some(row_idx),
            Ids::Narrow(ids) => ids.get(row_idx).map(|&id| usize::from(id)),
            Ids::Medium(ids) => ids.get(row_idx).map(|&id| usize::from(id)),
            Ids::Wide(ids) => ids.get(row_idx).and_then(|&id| usize::try_from(id).ok()),
        }
    }

    /// Returns the column as it stands in the file.
    pub(super) fn as_written(&self) -> &Self {
        self.written.as_deref().unwrap_or(self)
    }

    /// Returns how much memory a copy of the column takes.
    fn n_bytes(&self) -> usize {
        let n_bytes = self.ids.n_bytes() + self.words.text.len();
        n_bytes.saturating_add(self.words.len().saturating_mul(size_of::<usize>()))
    }

    pub(super) fn n_emptied(&self) -> usize {
        self.n_emptied
    }

    /// Iterates over the words by number, in the order in which they first came.
    pub fn words(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.words.len()).map(|id| self.words.get(id).unwrap_or_default())
    }
}

/// Strings end to end.
#[derive(Debug, Clone, Default)]
struct Arena {
    text: String,
    ends: Vec<usize>,
}

impl Arena {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, id: usize) -> Option<&str> {
        let end = *self.ends.get(id)?;
        let start = id
            .checked_sub(1)
            .and_then(|before| self.ends.get(before))
            .map_or(0, |&e| e);
        self.text.get(start..end)
    }

    fn push(&mut self, word: &str, account: &mut Account) -> Result<()> {
        account.reserve_text(&mut self.text, word.len())?;
        account.reserve(&mut self.ends, 1)?;
        self.text.push_str(word);
        self.ends.push(self.text.len());
        Ok(())
    }
}

/// One word number a row, in as few bytes as the number of words allows.
#[derive(Debug, Clone, Default)]
enum Ids {
    #[default]
    Same,
    Narrow(Vec<u8>),
    Medium(Vec<u16>),
    Wide(Vec<u32>),
}

impl Ids {
    fn push(&mut self, id: u32, account: &mut Account) -> Result<()> {
        loop {
            match self {
                Self::Same => return Ok(()),
                Self::Narrow(ids) => match u8::try_from(id) {
                    Ok(id) => return push(ids, id, account),
                    Err(_) => *self = Self::Medium(widened(ids, account)?),
                },
                Self::Medium(ids) => match u16::try_from(id) {
                    Ok(id) => return push(ids, id, account),
                    Err(_) => *self = Self::Wide(widened(ids, account)?),
                },
                Self::Wide(ids) => return push(ids, id, account),
            }
        }
    }

    fn n_bytes(&self) -> usize {
        match self {
            Self::Same => 0,
            Self::Narrow(ids) => ids.len(),
            Self::Medium(ids) => ids.len().saturating_mul(2),
            Self::Wide(ids) => ids.len().saturating_mul(4),
        }
    }
}

fn push<T>(ids: &mut Vec<T>, id: T, account: &mut Account) -> Result<()> {
    account.reserve(ids, 1)?;
    ids.push(id);
    Ok(())
}

fn widened<T: Copy, U: From<T>>(ids: &[T], account: &mut Account) -> Result<Vec<U>> {
    let mut wide = Vec::new();
    account.reserve(&mut wide, ids.len() + 1)?;
    wide.extend(ids.iter().map(|&id| U::from(id)));
    account.release(size_of_val(ids));
    Ok(wide)
}

/// Grows a `Table`, by rows or by columns.
#[derive(Debug)]
pub(super) struct Builder {
    shared: Arc<Shared>,
    columns: Vec<Growing>,
    account: Account,
}

#[derive(Debug)]
struct Growing {
    kind: Kind,
    column: Column,
    index: HashTable<u32>,
    last: u32,
    /// The column as it stands in the file, from the first cell on that is read otherwise.
    written: Option<Box<Growing>>,
}

impl Builder {
    pub(super) fn new(shared: Arc<Shared>, max_bytes: u64) -> Self {
        let grow = |(idx, name): (usize, &String)| {
            let mut growing = Growing {
                kind: Kind::of(name),
                column: Column::default(),
                index: HashTable::new(),
                last: 0,
                written: None,
            };
            if idx != shared.header.path_idx {
                growing.column.ids = Ids::Narrow(Vec::new());
            }
            growing
        };
        let columns = shared.header.names.iter().enumerate().map(grow).collect();
        Self {
            shared,
            columns,
            account: Account::new(max_bytes),
        }
    }

    /// Returns the number of complete rows, if rows are pushed in whole.
    pub(super) fn n_rows(&self) -> usize {
        let path = self.columns.get(self.shared.header.path_idx);
        path.map_or(0, |growing| growing.column.words.len())
    }

    pub(super) fn path_idx(&self) -> usize {
        self.shared.header.path_idx
    }

    /// Appends a cell to a column; the caller has checked that a path is not empty.
    pub(super) fn push(&mut self, column_idx: usize, cell: &str) -> Result<()> {
        let is_path = column_idx == self.shared.header.path_idx;
        let Some(growing) = self.columns.get_mut(column_idx) else {
            return Ok(());
        };
        if is_path {
            growing.column.words.push(cell, &mut self.account)
        } else {
            growing.push_both(cell, &mut self.account)
        }
    }

    pub(super) fn finish(self) -> Table {
        let n_rows = self.n_rows();
        let columns = self.columns.into_iter().map(Growing::finish).collect();
        Table {
            shared: self.shared,
            columns,
            n_rows,
            requested: Vec::new(),
        }
    }
}

impl Growing {
    fn finish(self) -> Column {
        let written = self.written.map(|written| Box::new(written.column));
        Column {
            written,
            ..self.column
        }
    }

    /// Appends a cell, as it is read and as it stands in the file.
    fn push_both(&mut self, cell: &str, account: &mut Account) -> Result<()> {
        let read = self.kind.read(cell);
        self.column.n_emptied += usize::from(read.is_empty() && !cell.trim().is_empty());
        if read != cell && self.written.is_none() {
            // So far, all cells were read as they stand there.
            account.charge(self.column.n_bytes() + self.index.allocation_size())?;
            self.written = Some(Box::new(Self {
                kind: self.kind,
                column: self.column.clone(),
                index: self.index.clone(),
                last: self.last,
                written: None,
            }));
        }
        if let Some(written) = &mut self.written {
            written.push(cell, account)?;
        }
        self.push(read, account)
    }

    fn push(&mut self, cell: &str, account: &mut Account) -> Result<()> {
        let Self {
            column: Column { words, ids, .. },
            index,
            last,
            kind: _,
            written: _,
        } = self;
        // Neighbouring rows mostly agree, which saves the search.
        if usize::try_from(*last).ok().and_then(|id| words.get(id)) == Some(cell) {
            return ids.push(*last, account);
        }
        let word = |words: &Arena, id: u32| -> u64 {
            let id = usize::try_from(id).unwrap_or(usize::MAX);
            hash(words.get(id).unwrap_or_default())
        };
        let is_cell =
            |id: &u32| usize::try_from(*id).ok().and_then(|id| words.get(id)) == Some(cell);
        let found = index.find(hash(cell), is_cell).copied();
        let id = match found {
            Some(id) => id,
            None => {
                let id = u32::try_from(words.len()).map_err(|_| Error::LimitExceeded {
                    what: "distinct words of one manifest column",
                    allowed: u64::from(u32::MAX),
                    asked: u64::MAX,
                })?;
                if index.len() == index.capacity() {
                    // The table doubles, and is there twice while it moves.
                    account.charge(index.allocation_size().max(64))?;
                    let grown = index.try_reserve(1, |&id| word(words, id));
                    grown.map_err(|_| account.out_of_memory())?;
                }
                index.insert_unique(hash(cell), id, |&id| word(words, id));
                words.push(cell, account)?;
                id
            }
        };
        *last = id;
        ids.push(id, account)
    }
}

fn hash(word: &str) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(word)
}
