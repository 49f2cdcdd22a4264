//! What is known of the evaluated images: columns of text, and how relevance follows from them.

use std::collections::BTreeMap;

use super::metrics::as_f64;
use crate::error::{Error, Result};

/// Between the labels of an item that has several.
pub const LABEL_SEPARATOR: char = '|';

/// One column: every row's text as a number.
///
/// Numbers follow the order of the texts; 0 is the empty text, which says that nothing is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Column {
    codes: Vec<u32>,
    words: Vec<String>,
}

impl Column {
    /// Numbers the texts of all rows.
    ///
    /// # Panics
    /// With 2^32 rows or more.
    #[must_use]
    pub fn new<'a>(rows: impl IntoIterator<Item = &'a str>) -> Self {
        let rows: Vec<&str> = rows.into_iter().collect();
        let mut distinct = rows.clone();
        distinct.push("");
        distinct.sort_unstable();
        distinct.dedup();
        let codes = rows.iter().map(|row| {
            let place = distinct.binary_search(row).expect("every text is listed");
            u32::try_from(place).expect("a table has fewer than 2^32 rows")
        });
        Self {
            codes: codes.collect(),
            words: distinct.into_iter().map(str::to_owned).collect(),
        }
    }

    /// Joins columns, row by row; a row of which one text is empty has none.
    fn joined(parts: &[&Self]) -> Self {
        let n_rows = parts.first().map_or(0, |part| part.codes.len());
        let texts: Vec<String> = (0..n_rows)
            .map(|row| {
                let texts: Vec<&str> = parts.iter().map(|part| part.text(row)).collect();
                if texts.contains(&"") {
                    String::new()
                } else {
                    texts.join("+")
                }
            })
            .collect();
        Self::new(texts.iter().map(String::as_str))
    }

    /// Returns the number of a row's text.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn code(&self, row: usize) -> u32 {
        self.codes[row]
    }

    /// Returns a row's text.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn text(&self, row: usize) -> &str {
        self.word(self.codes[row])
    }

    /// Returns the text that a number stands for.
    ///
    /// # Panics
    /// If there is no such text.
    #[must_use]
    pub fn word(&self, code: u32) -> &str {
        &self.words[code as usize]
    }

    /// Returns how many numbers there are, 0 included.
    #[must_use]
    pub fn n_words(&self) -> usize {
        self.words.len()
    }

    /// Returns whether some row has several labels.
    #[must_use]
    pub fn is_multi_label(&self) -> bool {
        self.words.iter().any(|word| word.contains(LABEL_SEPARATOR))
    }

    /// Returns the number of a text, if a row has it.
    #[must_use]
    pub fn find(&self, text: &str) -> Option<u32> {
        let place = self.words.binary_search_by(|word| word.as_str().cmp(text));
        place.ok().and_then(|place| u32::try_from(place).ok())
    }
}

/// All columns of a table, by name.
#[derive(Debug, Clone, Default)]
pub struct Columns {
    n_rows: usize,
    by_name: BTreeMap<String, Column>,
}

impl Columns {
    /// Starts a table of so many rows.
    #[must_use]
    pub fn new(n_rows: usize) -> Self {
        Self {
            n_rows,
            by_name: BTreeMap::new(),
        }
    }

    /// Adds a column.
    ///
    /// # Errors
    /// `Mismatch` if it has another number of rows.
    pub fn insert(&mut self, name: &str, column: Column) -> Result<()> {
        if column.codes.len() != self.n_rows {
            return Err(Error::mismatch(
                format!("column {name}"),
                format!("{} rows", self.n_rows),
                column.codes.len().to_string(),
            ));
        }
        self.by_name.insert(name.to_owned(), column);
        Ok(())
    }

    /// Adds what several columns say together, where a name such as `modality+body_part` asks for it.
    ///
    /// # Errors
    /// `Mismatch` if there is no such column; lists those there are.
    pub fn require(&mut self, name: &str) -> Result<()> {
        if self.by_name.contains_key(name) {
            return Ok(());
        }
        let parts: Option<Vec<&Column>> =
            name.split('+').map(|part| self.by_name.get(part)).collect();
        let column = match parts {
            Some(parts) if parts.len() > 1 => Column::joined(&parts),
            _ => {
                let names: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
                return Err(Error::mismatch(
                    "column",
                    format!("one of {}, or several joined by +", names.join(", ")),
                    name.to_owned(),
                ));
            }
        };
        self.by_name.insert(name.to_owned(), column);
        Ok(())
    }

    /// Returns a column.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Column> {
        self.by_name.get(name)
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Returns a row's text, empty where there is no such column.
    #[must_use]
    pub fn text(&self, name: &str, row: usize) -> &str {
        self.get(name).map_or("", |column| column.text(row))
    }
}

/// How relevant the items of a column are to each other.
#[derive(Debug)]
pub(crate) struct Relevance<'a> {
    column: &'a Column,
    /// For each word its labels in ascending order, where some word has several.
    sets: Option<Vec<Vec<&'a str>>>,
}

impl<'a> Relevance<'a> {
    pub(crate) fn new(column: &'a Column) -> Self {
        let sets = column.is_multi_label().then(|| {
            let sets = column.words.iter().map(|word| {
                let labels = word.split(LABEL_SEPARATOR).map(str::trim);
                let mut labels: Vec<&str> = labels.filter(|label| !label.is_empty()).collect();
                labels.sort_unstable();
                labels.dedup();
                labels
            });
            sets.collect()
        });
        Self { column, sets }
    }

    /// Returns the class of a word: the first word with the same set of labels.
    pub(crate) fn class(&self, code: u32) -> u32 {
        let Some(sets) = &self.sets else {
            return code;
        };
        let own = &sets[code as usize];
        let first = sets.iter().position(|other| other == own);
        first
            .and_then(|place| u32::try_from(place).ok())
            .unwrap_or(code)
    }

    /// Calls `visit` with every word that is relevant to a query with the word `code`.
    pub(crate) fn for_each_relevant(
        &self,
        code: u32,
        least_grade: f32,
        mut visit: impl FnMut(usize),
    ) {
        let Some(sets) = &self.sets else {
            return visit(code as usize);
        };
        let own = &sets[code as usize];
        // Word 0 is the empty text, of which nothing is known.
        for (place, other) in sets.iter().enumerate().skip(1) {
            if jaccard(own, other) >= least_grade {
                visit(place);
            }
        }
    }

    /// Writes the grade of every word for a query with the word `code`.
    pub(crate) fn grade(&self, code: u32, grades: &mut Vec<f32>) {
        grades.clear();
        grades.resize(self.column.n_words(), 0.0);
        match &self.sets {
            None => grades[code as usize] = 1.0,
            Some(sets) => {
                let own = &sets[code as usize];
                for (grade, other) in grades.iter_mut().zip(sets) {
                    *grade = jaccard(own, other);
                }
            }
        }
        // Nothing is known of the empty text.
        grades[0] = 0.0;
    }
}

/// The share of labels that both sets have among those that one has; 0 for two empty sets.
fn jaccard(a: &[&str], b: &[&str]) -> f32 {
    let n_common = a
        .iter()
        .filter(|label| b.binary_search(label).is_ok())
        .count();
    let n_all = a.len() + b.len() - n_common;
    if n_all == 0 {
        return 0.0;
    }
    let share = as_f64(n_common) / as_f64(n_all);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a share is well within f32"
    )]
    let share = share as f32;
    share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_numbered_in_their_order_and_the_empty_one_is_0() {
        let column = Column::new(["b", "", "a", "b"]);
        let codes: Vec<u32> = (0..4).map(|row| column.code(row)).collect();
        assert_eq!(codes, [2, 0, 1, 2]);
        assert_eq!((column.text(3), column.n_words()), ("b", 3));
        assert_eq!((column.find("a"), column.find("c")), (Some(1), None));
    }

    #[test]
    fn joined_columns_are_known_where_all_parts_are() {
        let mut columns = Columns::new(3);
        columns
            .insert("m", Column::new(["CT", "CT", "MR"]))
            .unwrap();
        columns
            .insert("b", Column::new(["head", "", "head"]))
            .unwrap();
        columns.require("m+b").unwrap();
        let texts: Vec<&str> = (0..3).map(|row| columns.text("m+b", row)).collect();
        assert_eq!(texts, ["CT+head", "", "MR+head"]);
        let error = columns.require("organ").unwrap_err().to_string();
        assert!(
            error.contains("one of b, m, m+b") && error.contains("organ"),
            "{error}"
        );
        assert!(columns.insert("short", Column::new(["a"])).is_err());
    }

    #[test]
    fn several_labels_are_compared_by_jaccard() {
        let column = Column::new(["a|b", "b", "c", "", "b | a", "a|b|c|d"]);
        let relevance = Relevance::new(&column);
        let mut grades = Vec::new();
        relevance.grade(column.code(0), &mut grades);
        let of_rows: Vec<f32> = (0..6)
            .map(|row| grades[column.code(row) as usize])
            .collect();
        assert_eq!(of_rows, [1.0, 0.5, 0.0, 0.0, 1.0, 0.5]);
        // The order of labels makes no other class.
        let class = |row: usize| relevance.class(column.code(row));
        assert!(class(0) == class(4) && class(0) != class(1) && class(1) != class(5));
        let mut relevant = Vec::new();
        relevance.for_each_relevant(column.code(0), 0.6, |word| relevant.push(word));
        let rows = [0, 4].map(|row| column.code(row) as usize);
        assert!(relevant.len() == 2 && rows.iter().all(|word| relevant.contains(word)));
    }
}
