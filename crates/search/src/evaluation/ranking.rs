//! One retrieval task, measured: every query's exact ranking after exclusions, and what it is worth.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;

use super::columns::{Column, Columns, Relevance};
use super::metrics::Metric;
use super::strata::{Strata, Stratum};
use super::tasks::Task;
use crate::error::{Error, Result};
use crate::kernels::{Kernels, LANES};
use exclusion::ExclusionRule;
use query::Room;
use views::FurtherItems;

mod collapse;
mod constant;
mod exclusion;
mod mixed;
mod query;
mod views;

pub use collapse::COLLAPSED_RANGE;
pub use mixed::{MIXED_K, Mixed, MixedAnswer, mixed};
pub use views::RankedViews;

/// Queries that a thread ranks together.
const GROUP_QUERIES: usize = 32;
/// Rows that are multiplied together.
const PIECE_ROWS: usize = 256;

/// Unit vectors of all rows of a table, [rows, width]; rows without a vector are NaN.
#[derive(Debug, Clone, Copy)]
pub struct Embeddings<'a> {
    values: &'a [f32],
    width: usize,
    views: RankedViews<'a>,
}

impl<'a> Embeddings<'a> {
    /// Checks that every row is a unit vector, or NaN throughout.
    ///
    /// # Errors
    /// `Mismatch` if a row is neither, there is no vector at all, or all vectors are the same.
    pub fn new(values: &'a [f32], width: usize) -> Result<Self> {
        if width == 0 || !values.len().is_multiple_of(width) {
            return Err(Error::mismatch(
                "vectors",
                format!("rows of {width} numbers"),
                format!("{} numbers", values.len()),
            ));
        }
        let embeddings = Self {
            values,
            width,
            views: RankedViews::default(),
        };
        let mut first: Option<&[f32]> = None;
        let (mut has_two, mut n_vectors) = (false, 0);
        for (row, vector) in values.chunks_exact(width).enumerate() {
            if !embeddings.has(row) {
                continue;
            }
            if let Some(found) = crate::embedding::fault(vector) {
                return Err(Error::mismatch(
                    format!("vector of row {row} (from 0)"),
                    "finite numbers and length 1, or only NaN where there is no vector",
                    found,
                ));
            }
            n_vectors += 1;
            has_two |= first.is_some_and(|first| first != vector);
            first = first.or(Some(vector));
        }
        if !has_two {
            let found = match (first, n_vectors) {
                (None, _) => "no vector",
                (_, 1) => "one",
                _ => "the same vector in every row",
            };
            return Err(Error::mismatch(
                "vectors",
                "at least two different ones",
                found,
            ));
        }
        Ok(embeddings)
    }

    /// Adds further vectors of rows: the score of two rows is then the best over all pairs of their vectors, less the
    /// handicap where either is a further one.
    ///
    /// # Errors
    /// `Mismatch` if rows are not in ascending order or have no own vector, a vector is no unit vector, or the handicap
    /// is negative or not finite.
    pub fn with_views(self, views: RankedViews<'a>) -> Result<Self> {
        views.check(&self)?;
        Ok(Self { views, ..self })
    }

    /// Returns whether a row has a vector.
    #[must_use]
    pub fn has(&self, row: usize) -> bool {
        self.vector(row).iter().any(|x| !x.is_nan())
    }

    /// Returns the vector of a row.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn vector(&self, row: usize) -> &'a [f32] {
        &self.values[row * self.width..][..self.width]
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.values.len() / self.width
    }
}

/// What is measured.
#[derive(Debug, Clone)]
pub struct Measures<'a> {
    /// The numbers to compute.
    pub metrics: &'a [Metric],
    /// Grade from which on an item is relevant where items have several labels; above 0.
    pub least_grade: f32,
    /// Hits of each query that are kept.
    pub n_hits: usize,
    /// For each row its place among queries, such as the place of its path in sorted order.
    pub query_order: &'a [u32],
    /// For each row its place in a random order, from which the order of equal scores in `hits` follows.
    pub tie_order: &'a [u32],
}

/// One item of a query's ranking.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RankedItem {
    /// Row of the table.
    pub row: u32,
    /// Cosine.
    pub score: f32,
    /// How relevant it is, from 0 to 1.
    pub grade: f32,
}

/// One query's result.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Row of the table.
    pub query: u32,
    /// Gallery items after exclusions.
    pub n_candidates: usize,
    /// Relevant ones among them.
    pub n_relevant: usize,
    /// The first items, at most `n_hits`; none but under the first rule. Equal scores are in an order
    /// of their own for each query.
    pub hits: Vec<RankedItem>,
    /// Further candidates with the score of the last hit.
    pub n_beyond: usize,
    /// One for each metric, the mean over all orders of equal scores; NaN where it is not defined
    /// (votes over several labels).
    pub values: Vec<f64>,
    /// What a random ranking would have on average.
    pub chance: Vec<f64>,
    /// What the best ranking would have; NaN for votes.
    pub maximum: Vec<f64>,
    /// The query's class, from 1 in the order of answers; 0 where the mean over queries counts.
    pub class_number: u32,
    /// The class that `knn_accuracy_plain` gives, with equal scores in the order of `hits`.
    pub class: Option<u32>,
    /// Whether the last item that a metric looks at has the score of the next one, and relevant and other
    /// candidates have that score.
    pub is_tied: bool,
}

/// Queries that are not counted, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeftOutQueries {
    /// The image could not be read.
    pub n_without_vector: usize,
    /// The relevance column says nothing of them.
    pub n_unlabelled: usize,
    /// No candidate is relevant.
    pub n_without_relevant: usize,
    /// Every candidate is relevant, so that no ranking is wrong.
    pub n_only_relevant: usize,
}

/// The queries of a task under one rule of exclusion.
#[derive(Debug, Clone, Default)]
pub struct Evaluation {
    /// Columns whose value a candidate must not share with the query; the query itself never counts.
    pub exclude: Vec<String>,
    /// Counted queries, in `query_order`.
    pub answers: Vec<Answer>,
    /// The others.
    pub left_out: LeftOutQueries,
    /// Gallery items with a vector and a label.
    pub n_gallery: usize,
    /// For each of them, its row and how many counted queries have it among their hits.
    pub n_retrieved: Vec<(u32, u32)>,
    /// How the mean over the answers is taken.
    pub strata: Strata,
    /// Classes of the counted queries, and of the gallery.
    pub n_classes: [usize; 2],
    /// What the best of two fixed rankings has, one for each metric; NaN for votes. Empty but under the
    /// first rule.
    pub constant: Vec<f64>,
    /// The score that all pairs of a query and a gallery item have, where the vectors are collapsed: all
    /// scores lie within `COLLAPSED_RANGE`.
    pub common_score: Option<f32>,
}

impl Evaluation {
    /// Returns the mean of a number of each counted query: over the queries of a class, then over
    /// classes, or over all queries.
    #[must_use]
    pub fn mean(&self, number: impl Fn(&Answer) -> f64) -> f64 {
        let numbers: Vec<f64> = self.answers.iter().map(number).collect();
        self.strata.mean(&numbers)
    }
}

/// Ranks the gallery for every query of a task, once for each rule of exclusion.
///
/// Scores are exact. Metrics are means over all orders of equal scores; hits with equal scores are in an
/// order that follows from `tie_order` and the query. Where all scores of the task lie within
/// `COLLAPSED_RANGE`, all are equal. Rows without a vector or without a label take no part.
///
/// # Errors
/// `Mismatch` if a column is missing, or the table has not as many rows as there are vectors.
pub fn evaluate(
    task: &Task,
    columns: &Columns,
    embeddings: &Embeddings<'_>,
    measures: &Measures<'_>,
    rules: &[Vec<String>],
) -> Result<Vec<Evaluation>> {
    let orders = [measures.query_order, measures.tie_order];
    let has_orders = orders.iter().all(|order| order.len() == columns.n_rows());
    if columns.n_rows() != embeddings.n_rows() || !has_orders {
        return Err(Error::mismatch(
            "vectors",
            format!("one for each of {} rows", columns.n_rows()),
            embeddings.n_rows().to_string(),
        ));
    }
    let column = require(columns, &task.relevance)?;
    let gallery = TaskGallery::new(task, column, embeddings, measures);
    let exclusions: Vec<ExclusionRule<'_>> = rules
        .iter()
        .map(|names| ExclusionRule::new(names, columns, &gallery.rows))
        .collect::<Result<_>>()?;
    let mut ranker = Ranker {
        relevance: Relevance::new(column),
        column,
        is_votable: !column.is_multi_label(),
        commonest: gallery.commonest(column),
        measures,
        gallery,
        common_score: None,
    };
    let mut evaluations: Vec<Evaluation> = rules
        .iter()
        .map(|names| Evaluation {
            exclude: names.clone(),
            n_gallery: ranker.gallery.rows.len(),
            ..Evaluation::default()
        })
        .collect();
    let queries = ranker.queries(task, embeddings, &mut evaluations);
    ranker.common_score = collapse::common_score(&ranker, &queries, embeddings);
    let groups: Vec<Vec<Vec<Outcome>>> = queries
        .par_chunks(GROUP_QUERIES)
        .map(|queries| ranker.rank(queries, embeddings, &exclusions))
        .collect();
    for outcomes in groups.into_iter().flatten() {
        for (evaluation, outcome) in evaluations.iter_mut().zip(outcomes) {
            match outcome {
                Outcome::Counted(answer) => evaluation.answers.push(answer),
                Outcome::WithoutRelevant => evaluation.left_out.n_without_relevant += 1,
                Outcome::OnlyRelevant => evaluation.left_out.n_only_relevant += 1,
            }
        }
    }
    for evaluation in &mut evaluations {
        evaluation.common_score = ranker.common_score;
        evaluation.n_retrieved = ranker.gallery.count_hits(&evaluation.answers);
        ranker.number_classes(task, evaluation);
    }
    if let (Some(first), Some(rule)) = (evaluations.first_mut(), exclusions.first()) {
        first.constant = constant::values(&ranker, rule, first);
    }
    Ok(evaluations)
}

/// Which items of a gallery count as relevant to a query.
#[derive(Debug, Clone, Copy)]
pub struct RelevanceRule<'a> {
    /// Columns whose value an item must not share with the query.
    pub exclude: &'a [String],
    /// Grade from which on an item is relevant; above 0.
    pub least_grade: f32,
}

/// Returns the rows that are relevant to a query under a rule, in ascending order.
///
/// # Errors
/// As `evaluate`.
pub fn relevant_items(
    task: &Task,
    columns: &Columns,
    embeddings: &Embeddings<'_>,
    query: u32,
    rule: RelevanceRule<'_>,
) -> Result<Vec<u32>> {
    let column = require(columns, &task.relevance)?;
    let mut grades = Vec::new();
    Relevance::new(column).grade(column.code(query as usize), &mut grades);
    // Grades first: they leave few rows whose vectors are looked at.
    let is_relevant = |&row: &u32| {
        let grade = grades[column.code(row as usize) as usize];
        grade >= rule.least_grade && takes_part(row, column, embeddings)
    };
    let rows: Vec<u32> = task.gallery.iter().copied().filter(is_relevant).collect();
    let exclusion = ExclusionRule::new(rule.exclude, columns, &rows)?;
    let excluded = exclusion.of_query(query);
    let items = rows.into_iter().enumerate();
    let allowed = items.filter(|&(item, row)| !excluded.has(item, row));
    let mut rows: Vec<u32> = allowed.map(|(_, row)| row).collect();
    rows.sort_unstable();
    Ok(rows)
}

fn require<'a>(columns: &'a Columns, name: &str) -> Result<&'a Column> {
    columns
        .get(name)
        .ok_or_else(|| Error::mismatch("column", name, "a table without it"))
}

/// Returns whether a row of the gallery has a label and a vector.
fn takes_part(row: u32, column: &Column, embeddings: &Embeddings<'_>) -> bool {
    column.code(row as usize) != 0 && embeddings.has(row as usize)
}

/// The items that are ranked, in `tie_order`.
struct TaskGallery {
    rows: Vec<u32>,
    /// The word of each item in the relevance column.
    codes: Vec<u32>,
    /// [items, width]
    vectors: Vec<f32>,
    further: FurtherItems,
}

impl TaskGallery {
    fn new(
        task: &Task,
        column: &Column,
        embeddings: &Embeddings<'_>,
        measures: &Measures<'_>,
    ) -> Self {
        let rows = task.gallery.iter().copied();
        let mut rows: Vec<u32> = rows
            .filter(|&row| takes_part(row, column, embeddings))
            .collect();
        rows.sort_by_key(|&row| (measures.tie_order[row as usize], row));
        let codes = rows.iter().map(|&row| column.code(row as usize));
        let vectors = rows
            .iter()
            .flat_map(|&row| embeddings.vector(row as usize).iter().copied());
        Self {
            codes: codes.collect(),
            vectors: vectors.collect(),
            further: FurtherItems::new(&rows, &embeddings.views, embeddings.width),
            rows,
        }
    }

    /// Returns the word that most items have, the first of several.
    fn commonest(&self, column: &Column) -> u32 {
        let mut counts = vec![0_usize; column.n_words()];
        for &code in &self.codes {
            counts[code as usize] += 1;
        }
        let codes = 0..u32::try_from(counts.len()).unwrap_or(u32::MAX);
        codes
            .rev()
            .max_by_key(|&code| counts[code as usize])
            .unwrap_or(0)
    }

    fn count_hits(&self, answers: &[Answer]) -> Vec<(u32, u32)> {
        let mut counts: Vec<(u32, u32)> = self.rows.iter().map(|&row| (row, 0)).collect();
        counts.sort_unstable();
        for hit in answers.iter().flat_map(|answer| &answer.hits) {
            if let Ok(place) = counts.binary_search_by_key(&hit.row, |&(row, _)| row) {
                counts[place].1 += 1;
            }
        }
        counts
    }
}

enum Outcome {
    Counted(Answer),
    WithoutRelevant,
    OnlyRelevant,
}

impl Outcome {
    fn without_hits(self) -> Self {
        match self {
            Self::Counted(answer) => Self::Counted(Answer {
                hits: Vec::new(),
                ..answer
            }),
            other => other,
        }
    }
}

struct Ranker<'a> {
    gallery: TaskGallery,
    column: &'a Column,
    relevance: Relevance<'a>,
    is_votable: bool,
    /// The class that most gallery items have.
    commonest: u32,
    measures: &'a Measures<'a>,
    /// The score of all pairs, where the vectors are collapsed.
    common_score: Option<f32>,
}

impl Ranker<'_> {
    /// Lists the queries that can be asked, and counts the others.
    fn queries(
        &self,
        task: &Task,
        embeddings: &Embeddings<'_>,
        evaluations: &mut [Evaluation],
    ) -> Vec<u32> {
        let mut left_out = LeftOutQueries::default();
        let mut can_be_asked = |&row: &u32| {
            let is_labelled = self.column.code(row as usize) != 0;
            let has_vector = embeddings.has(row as usize);
            left_out.n_unlabelled += usize::from(!is_labelled);
            left_out.n_without_vector += usize::from(is_labelled && !has_vector);
            is_labelled && has_vector
        };
        let queries = task.queries.iter().copied();
        let mut queries: Vec<u32> = queries.filter(&mut can_be_asked).collect();
        // Sums must not depend on the order of rows, not even in their last bits.
        queries.sort_by_key(|&row| (self.measures.query_order[row as usize], row));
        for evaluation in evaluations {
            evaluation.left_out = left_out;
        }
        queries
    }

    /// Counts classes, and numbers those of the answers where the mean over classes counts.
    fn number_classes(&self, task: &Task, evaluation: &mut Evaluation) {
        let mut numbers = HashMap::new();
        let mut strata = Vec::with_capacity(evaluation.answers.len());
        for answer in &mut evaluation.answers {
            let class = self
                .relevance
                .class(self.column.code(answer.query as usize));
            // By the first query, as words may be identifiers of people.
            let n_before = u32::try_from(numbers.len()).unwrap_or(u32::MAX - 1);
            let number = *numbers.entry(class).or_insert(n_before + 1);
            if task.is_mean_of_classes() {
                answer.class_number = number;
            }
            strata.push(Stratum {
                task: 0,
                class: answer.class_number,
            });
        }
        evaluation.strata = Strata::new(&strata);
        let mut codes = self.gallery.codes.clone();
        codes.sort_unstable();
        codes.dedup();
        let classes = codes.into_iter().map(|code| self.relevance.class(code));
        let of_gallery: HashSet<u32> = classes.collect();
        evaluation.n_classes = [numbers.len(), of_gallery.len()];
    }

    /// Ranks for some queries; one outcome for each rule.
    fn rank(
        &self,
        queries: &[u32],
        embeddings: &Embeddings<'_>,
        rules: &[ExclusionRule<'_>],
    ) -> Vec<Vec<Outcome>> {
        let scores = self.scores(queries, embeddings);
        let mut room = Room::default();
        let mut outcomes = Vec::with_capacity(queries.len());
        for (idx, &query) in queries.iter().enumerate() {
            let n = self.gallery.rows.len();
            let scores = &scores[idx * n..][..n];
            let code = self.column.code(query as usize);
            self.relevance.grade(code, &mut room.grades);
            // Hits are for people, who see the first rule's.
            let of_rules = rules.iter().enumerate().map(|(rule_idx, rule)| {
                let outcome = self.answer(query, scores, rule, &mut room);
                if rule_idx == 0 {
                    outcome
                } else {
                    outcome.without_hits()
                }
            });
            outcomes.push(of_rules.collect());
        }
        outcomes
    }

    /// Computes the scores of some queries with all items, [queries, items].
    fn scores(&self, queries: &[u32], embeddings: &Embeddings<'_>) -> Vec<f32> {
        let n = self.gallery.rows.len();
        if let Some(score) = self.common_score {
            return vec![score; queries.len() * n];
        }
        let own = queries
            .iter()
            .map(|&query| embeddings.vector(query as usize));
        let own: Vec<&[f32]> = own.collect();
        let mut scores = vec![0.0; queries.len() * n];
        products(&own, &self.gallery.vectors, |query, item, score| {
            scores[query * n + item] = score;
        });
        self.gallery.further.raise(
            queries,
            embeddings,
            (&self.gallery.rows, &self.gallery.vectors),
            &mut scores,
        );
        scores
    }
}

/// Computes the products of queries and rows, [n, width], and hands each on with the numbers of both.
fn products(queries: &[&[f32]], rows: &[f32], mut put: impl FnMut(usize, usize, f32)) {
    let Some(width) = queries.first().map(|query| query.len()) else {
        return;
    };
    let stride = width.next_multiple_of(LANES);
    let mut padded = vec![0.0; queries.len() * stride];
    for (place, query) in padded.chunks_exact_mut(stride).zip(queries) {
        place[..width].copy_from_slice(query);
    }
    let mut part = Vec::new();
    let kernels = Kernels::get();
    for (piece, rows) in rows.chunks(PIECE_ROWS * width).enumerate() {
        let n_rows = rows.len() / width;
        part.resize(queries.len() * n_rows, 0.0);
        (kernels.dots_f32)(&padded, rows, width, &mut part);
        for (query, scores) in part.chunks_exact(n_rows).enumerate() {
            for (idx, score) in scores.iter().enumerate() {
                // 0 and -0 are one score.
                put(query, piece * PIECE_ROWS + idx, score + 0.0);
            }
        }
    }
}

#[cfg(test)]
mod tests;
