//! Which rows may be hits: filters, removed rows, and what each query leaves out.
//!
//! Passes ask about vectors, by their places in a segment; what is allowed of rows is laid out by vectors once.

use std::ops::Range;
use std::sync::Arc;

use crate::collection::Collection;
use crate::error::{Error, Result};
use crate::gallery::segment::Segment;
use crate::gallery::segment::views::Belonging;
use crate::gallery::{Gallery, RowId};

use super::views::Kinds;
use super::{Queries, SearchOptions};

/// Only rows with one of some values in a column are hits, or only those without.
///
/// A cell with several labels, joined by `|`, has each of them as a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Filter {
    /// The column.
    pub column: String,
    /// The values.
    pub values: Vec<String>,
    /// Rows with these values are no hits.
    pub is_negated: bool,
}

impl Filter {
    /// Adds a condition to others: several values of one column are alternatives.
    pub fn join(filters: &mut Vec<Self>, column: String, value: String, is_negated: bool) {
        let is_same =
            |filter: &&mut Self| filter.column == column && filter.is_negated == is_negated;
        match filters.iter_mut().find(is_same) {
            Some(filter) => filter.values.push(value),
            None => filters.push(Self {
                column,
                values: vec![value],
                is_negated,
            }),
        }
    }

    /// Returns whether a cell is one of the values, or has one of them among its labels.
    #[must_use]
    pub fn names(&self, cell: &[u8]) -> bool {
        let is_wanted = |text: &[u8]| self.values.iter().any(|wanted| wanted.as_bytes() == text);
        is_wanted(cell)
            || cell.contains(&SEPARATOR)
                && cell
                    .split(|&byte| byte == SEPARATOR)
                    .any(|label| is_wanted(label.trim_ascii()))
    }
}

/// `LABEL_SEPARATOR` as a byte of UTF-8.
const SEPARATOR: u8 = b'|';

/// Rows with a query's value in a column are no hits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The column.
    pub column: String,
    /// One for each query; empty leaves out nothing.
    pub values: Vec<String>,
}

/// Stands for a value that no row of the segment has.
const NO_CODE: u32 = u32::MAX;

/// What may be a hit for which query.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    segments: Vec<SegmentRules<'a>>,
    allowed: Arc<AllowedVectors>,
    own: Vec<Vec<RowId>>,
    is_restricted: bool,
}

#[derive(Debug, Clone, Default)]
struct SegmentRules<'a> {
    /// The row of each vector; `None` where each row has one, at its number.
    rows: Option<&'a [u32]>,
    /// Cells of a column, and the cell that each query leaves out.
    left_out: Vec<(&'a [u32], Vec<u32>)>,
}

/// For each segment, one bit for each vector that may be looked at, whose row was not removed and passes all filters;
/// `None`: all of its vectors.
pub(crate) type AllowedVectors = Vec<Option<Vec<u64>>>;

/// The rules for one segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowed<'a> {
    pub(super) allowed: Option<&'a [u64]>,
    rows: Option<&'a [u32]>,
    left_out: &'a [(&'a [u32], Vec<u32>)],
    own: &'a [Vec<RowId>],
    segment: u32,
}

impl<'a> Rules<'a> {
    pub(super) fn new(
        gallery: &'a Gallery,
        queries: Queries<'_>,
        options: &SearchOptions,
    ) -> Result<Self> {
        let (filters, kinds) = (&options.filters, options.views.kinds());
        let find = || allowed(gallery, filters, kinds);
        let allowed = gallery.allowed(filters, kinds, find)?;
        let has_others = gallery.views().iter().any(|view| !kinds.has(view));
        let mut segments = Vec::new();
        for segment in gallery.segments() {
            let mut rules = SegmentRules {
                rows: segment.belonging()?.map(|belonging| belonging.rows),
                ..SegmentRules::default()
            };
            for LeftOut { column, values } in queries.left_out {
                let Some(column) = segment.column(column) else {
                    continue;
                };
                let codes = codes_of(segment, column, values)?;
                rules.left_out.push((segment.cells(column)?, codes));
            }
            segments.push(rules);
        }
        Ok(Self {
            segments,
            allowed,
            own: queries.own.to_vec(),
            is_restricted: !filters.is_empty() || has_others,
        })
    }

    /// Says whether filters, or the choice of some kinds of vectors, may leave few vectors of any list.
    pub(super) fn is_restricted(&self) -> bool {
        self.is_restricted
    }

    pub(super) fn of(&self, segment: usize) -> Allowed<'_> {
        let rules = &self.segments[segment];
        Allowed {
            allowed: self.allowed[segment].as_deref(),
            rows: rules.rows,
            left_out: &rules.left_out,
            own: &self.own,
            segment: u32::try_from(segment).unwrap_or(u32::MAX),
        }
    }

    /// Returns the rules of one query alone.
    pub(super) fn only(&self, query: usize) -> Self {
        let segments = self.segments.iter().map(|rules| SegmentRules {
            rows: rules.rows,
            left_out: rules
                .left_out
                .iter()
                .map(|(cells, codes)| (*cells, vec![codes[query]]))
                .collect(),
        });
        Self {
            segments: segments.collect(),
            allowed: Arc::clone(&self.allowed),
            own: self.own.get(query).cloned().into_iter().collect(),
            is_restricted: self.is_restricted,
        }
    }
}

impl Allowed<'_> {
    /// Says whether the row of a vector was not removed and passes the filters.
    #[inline]
    pub(super) fn passes(&self, vector: u32) -> bool {
        match self.allowed {
            None => true,
            Some(words) => words[vector as usize / 64] >> (vector % 64) & 1 == 1,
        }
    }

    /// Returns the row of a vector.
    #[inline]
    pub(super) fn row_of(&self, vector: u32) -> u32 {
        match self.rows {
            None => vector,
            Some(rows) => rows[vector as usize],
        }
    }

    /// Says whether so many vectors of the lists nearest to a query are no hits for it that the best
    /// hits may lie in other lists: a quarter of all, or half of the nearest list.
    ///
    /// `starts` says where each list begins; `nearest` are the lists that the query looks at, and `scores`
    /// how near it is to each list.
    pub(super) fn thins_out(
        &self,
        query: usize,
        starts: &[u32],
        nearest: &[u32],
        scores: &[f32],
    ) -> bool {
        let leaves_out = |codes: &[u32]| codes.get(query).is_some_and(|&code| code != NO_CODE);
        if self.allowed.is_none() && !self.left_out.iter().any(|(_, codes)| leaves_out(codes)) {
            return false;
        }
        let count = |list: u32| {
            let vectors = starts[list as usize]..starts[list as usize + 1];
            let n_vectors = vectors.len();
            let is_hidden = |&vector: &u32| !self.may_be_hit(query, vector, self.row_of(vector));
            (n_vectors, vectors.filter(is_hidden).count())
        };
        let score = |list: &u32| scores[*list as usize];
        let first = nearest.iter().max_by(|a, b| score(a).total_cmp(&score(b)));
        if first.is_some_and(|&list| matches!(count(list), (n, n_hidden) if 2 * n_hidden > n)) {
            return true;
        }
        let all = nearest.iter().map(|&list| count(list));
        let (n, n_hidden) = all.fold((0, 0), |sum, list| (sum.0 + list.0, sum.1 + list.1));
        4 * n_hidden > n
    }

    /// Says whether a row was not removed, passes the filters and is not left out by a query; `vector` is of it.
    #[inline]
    fn may_be_hit(&self, query: usize, vector: u32, row: u32) -> bool {
        self.passes(vector)
            && self
                .left_out
                .iter()
                .all(|(cells, codes)| cells[row as usize] != codes[query])
    }

    /// Collects those of some vectors whose rows pass, counted from the first.
    pub(super) fn passing(&self, places: &Range<usize>, passing: &mut Vec<u32>) {
        passing.clear();
        let Some(words) = self.allowed else {
            passing.extend(0..u32::try_from(places.len()).unwrap_or(u32::MAX));
            return;
        };
        let first = places.start / 64;
        for (idx, &word) in words[first..places.end.div_ceil(64)].iter().enumerate() {
            let (word_idx, mut word) = (first + idx, word);
            while word != 0 {
                let place = 64 * word_idx + word.trailing_zeros() as usize;
                if places.contains(&place) {
                    passing.extend(u32::try_from(place - places.start));
                }
                word &= word - 1;
            }
        }
    }

    /// Says whether a row may be a hit for a query; `vector` is of it.
    #[inline]
    pub(super) fn allows(&self, query: usize, vector: u32, row: u32) -> bool {
        let place = RowId {
            segment: self.segment,
            row,
        };
        self.own.get(query).is_none_or(|own| !own.contains(&place))
            && self.may_be_hit(query, vector, row)
    }
}

/// Finds the vectors of some kinds of the rows that were not removed and pass all filters.
fn allowed(gallery: &Gallery, filters: &[Filter], kinds: Kinds) -> Result<AllowedVectors> {
    for filter in filters {
        check_filter(gallery, filter)?;
    }
    let segments = gallery.segments().iter().map(|segment| {
        let dead = segment.dead_rows();
        let mut allowed = dead.map(|dead| dead.iter().map(|word| !word).collect());
        for filter in filters {
            let Some(column) = segment.column(&filter.column) else {
                let passes = filter.values.iter().any(String::is_empty) != filter.is_negated;
                keep(&mut allowed, segment.n_rows(), |_| passes);
                continue;
            };
            let passing = passing(segment, column, filter)?;
            let cells = segment.cells(column)?;
            keep(&mut allowed, segment.n_rows(), |row| {
                passing
                    .get(cells[row] as usize)
                    .is_some_and(|&passes| passes)
            });
        }
        match segment.belonging()? {
            None => Ok(allowed),
            Some(belonging) => {
                let views = segment.footer().views.iter();
                let is_asked: Vec<bool> = views.map(|view| kinds.has(view)).collect();
                Ok(by_vectors(allowed.as_deref(), belonging, &is_asked))
            }
        }
    });
    segments.collect()
}

/// Lays out by vectors which rows are allowed, and takes out the vectors of views that are not asked for.
fn by_vectors(
    rows: Option<&[u64]>,
    belonging: Belonging<'_>,
    is_asked: &[bool],
) -> Option<Vec<u64>> {
    if rows.is_none() && is_asked.iter().all(|&is_asked| is_asked) {
        return None;
    }
    let is_allowed = |row: u32| match rows {
        None => true,
        Some(words) => words[row as usize / 64] >> (row % 64) & 1 == 1,
    };
    let mut allowed = None;
    keep(&mut allowed, belonging.rows.len(), |vector| {
        is_asked[belonging.views[vector] as usize] && is_allowed(belonging.rows[vector])
    });
    allowed
}

/// Says of each value of a column whether its rows pass.
fn passing(segment: &Segment, column: usize, filter: &Filter) -> Result<Vec<bool>> {
    let dictionary = segment.dictionary(column)?;
    let mut passing = Vec::with_capacity(dictionary.len());
    for code in 0..dictionary.len() {
        passing.push(filter.names(dictionary.get(code)?) != filter.is_negated);
    }
    Ok(passing)
}

/// Keeps those allowed ones of `n` that pass.
fn keep(allowed: &mut Option<Vec<u64>>, n: usize, passes: impl Fn(usize) -> bool) {
    let words = allowed.get_or_insert_with(|| vec![u64::MAX; n.div_ceil(64)]);
    for (idx, word) in words.iter_mut().enumerate() {
        let items = 64 * idx..n.min(64 * idx + 64);
        let bits = items.fold(0, |bits, item| {
            bits | u64::from(passes(item)) << (item % 64)
        });
        *word &= bits;
    }
}

/// Returns the code of each value: few are searched in a sorted dictionary; for many, or in another
/// one, the dictionary is walked once.
fn codes_of(segment: &Segment, column: usize, values: &[String]) -> Result<Vec<u32>> {
    let mut wanted: std::collections::HashMap<&[u8], u32> = std::collections::HashMap::new();
    for value in values.iter().filter(|value| !value.is_empty()) {
        wanted.insert(value.as_bytes(), NO_CODE);
    }
    let dictionary = segment.dictionary(column)?;
    let n_steps = dictionary.len().checked_ilog2().unwrap_or(0) as usize + 1;
    if segment.has_sorted_values() && wanted.len().saturating_mul(n_steps) < dictionary.len() {
        for (value, place) in &mut wanted {
            *place = segment.code_of(column, value)?.unwrap_or(NO_CODE);
        }
    } else if !wanted.is_empty() {
        for code in 0..dictionary.len() {
            if let Some(place) = wanted.get_mut(dictionary.get(code)?) {
                *place = u32::try_from(code).unwrap_or(NO_CODE);
            }
        }
    }
    let code = |value: &String| wanted.get(value.as_bytes()).copied().unwrap_or(NO_CODE);
    Ok(values.iter().map(code).collect())
}

/// Most values that an error lists.
const MAX_LISTED: usize = 12;

/// Fails if no row has the column or any of the values: a misspelt filter is no empty answer.
fn check_filter(gallery: &Gallery, filter: &Filter) -> Result<()> {
    if gallery.is_empty() {
        return Ok(());
    }
    if !gallery.columns().contains(&filter.column.as_str()) {
        return Err(no_column(gallery, &filter.column));
    }
    let mut known = Vec::new();
    for segment in gallery.segments() {
        let Some(column) = segment.column(&filter.column) else {
            continue;
        };
        let dictionary = segment.dictionary(column)?;
        for code in 0..dictionary.len() {
            let value = dictionary.get(code)?;
            if filter.names(value) {
                return Ok(());
            }
            if known.len() <= MAX_LISTED {
                known.push(String::from_utf8_lossy(value).into_owned());
            }
        }
    }
    // Rows of segments without the column have an empty cell.
    if filter.values.iter().any(String::is_empty) {
        return Ok(());
    }
    Err(no_value(filter, known))
}

/// Says that no row has a value of a filter, and which values there are: some of them, at least one more than are listed
/// if there are more.
#[must_use]
pub fn no_value(filter: &Filter, mut known: Vec<String>) -> Error {
    known.sort();
    known.dedup();
    let listed = match known.len() {
        n if n > MAX_LISTED => format!("{n} or more others"),
        _ => known.join(", "),
    };
    Error::mismatch(
        format!("filter on {}", filter.column),
        format!("a value that some row has: {listed}"),
        filter.values.join(", "),
    )
}

/// Says which columns there are.
pub fn no_column(collection: &dyn Collection, column: &str) -> Error {
    let columns = collection.columns();
    let listed = match columns.len() {
        0 => "none; the gallery has no metadata".to_owned(),
        _ => columns.join(", "),
    };
    Error::mismatch("column", format!("one of the gallery's: {listed}"), column)
}
