//! One retrieval task, measured: every query's exact ranking after exclusions, and what it is worth.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;

use crate::columns::{Column, Columns, Relevance};
use crate::error::{Error, Result};
use crate::kernels::{Kernels, LANES};
use crate::metrics::{Metric, Ranking, Vote};
use crate::strata::{Strata, Stratum};
use crate::tasks::Task;

mod constant;
mod mixed;

pub use mixed::{MIXED_K, Mixed, MixedAnswer, mixed};

/// Queries that a thread ranks together.
const GROUP_QUERIES: usize = 32;
/// Rows that are multiplied together.
const PIECE_ROWS: usize = 256;

/// Unit vectors of all rows of a table, [rows, width]; rows without a vector are NaN.
#[derive(Debug, Clone, Copy)]
pub struct Embeddings<'a> {
    values: &'a [f32],
    width: usize,
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
        let embeddings = Self { values, width };
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
    /// For each row its place among equal scores, such as the place of its path in sorted order.
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
    /// The first items, at most `n_hits`; none but under the first rule.
    pub hits: Vec<RankedItem>,
    /// One for each metric; NaN where it is not defined (votes over several labels).
    pub values: Vec<f64>,
    /// What a random ranking would have on average.
    pub chance: Vec<f64>,
    /// What the best ranking would have; NaN for votes.
    pub maximum: Vec<f64>,
    /// The query's class, from 1 in the order of answers; 0 where the mean over queries counts.
    pub class_number: u32,
    /// The class that `knn_accuracy_plain` gives.
    pub class: Option<u32>,
    /// Whether the first two items have equal scores and only one is relevant: names decide.
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
    /// Counted queries, in the order of ties.
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
/// Scores are exact. Ties rank by `tie_order`. Rows without a vector or without a label take no part.
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
    if columns.n_rows() != embeddings.n_rows() || measures.tie_order.len() != columns.n_rows() {
        return Err(Error::mismatch(
            "vectors",
            format!("one for each of {} rows", columns.n_rows()),
            embeddings.n_rows().to_string(),
        ));
    }
    let column = require(columns, &task.relevance)?;
    let gallery = Gallery::new(task, column, embeddings, measures);
    let rules: Vec<Rule<'_>> = rules
        .iter()
        .map(|names| Rule::new(names, columns, &gallery))
        .collect::<Result<_>>()?;
    let ranker = Ranker {
        relevance: Relevance::new(column),
        column,
        is_votable: !column.is_multi_label(),
        commonest: gallery.commonest(column),
        measures,
        gallery,
    };
    let mut evaluations: Vec<Evaluation> = rules
        .iter()
        .map(|rule| Evaluation {
            exclude: rule.names.to_vec(),
            n_gallery: ranker.gallery.rows.len(),
            ..Evaluation::default()
        })
        .collect();
    let queries = ranker.queries(task, embeddings, &mut evaluations);
    let groups: Vec<Vec<Vec<Outcome>>> = queries
        .par_chunks(GROUP_QUERIES)
        .map(|queries| ranker.rank(queries, embeddings, &rules))
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
        evaluation.n_retrieved = ranker.gallery.count_hits(&evaluation.answers);
        ranker.number_classes(task, evaluation);
    }
    if let (Some(first), Some(rule)) = (evaluations.first_mut(), rules.first()) {
        first.constant = constant::values(&ranker, rule, first);
    }
    Ok(evaluations)
}

/// Returns the rows that are relevant to a query under a rule of exclusion, in ascending order.
///
/// `rule` has the columns of the rule, and the grade from which on an item is relevant.
///
/// # Errors
/// As `evaluate`.
pub fn relevant_items(
    task: &Task,
    columns: &Columns,
    embeddings: &Embeddings<'_>,
    query: u32,
    (exclude, least_grade): (&[String], f32),
) -> Result<Vec<u32>> {
    let column = require(columns, &task.relevance)?;
    let mut grades = Vec::new();
    Relevance::new(column).grade(column.code(query as usize), &mut grades);
    let excluded: Vec<&Column> = exclude
        .iter()
        .map(|name| require(columns, name))
        .collect::<Result<_>>()?;
    let is_excluded = |row: u32| {
        let same = |column: &&Column| {
            let code = column.code(query as usize);
            code != 0 && column.code(row as usize) == code
        };
        row == query || excluded.iter().any(same)
    };
    let is_relevant = |&row: &u32| {
        let grade = grades[column.code(row as usize) as usize];
        grade >= least_grade && embeddings.has(row as usize) && !is_excluded(row)
    };
    let mut rows: Vec<u32> = task.gallery.iter().copied().filter(is_relevant).collect();
    rows.sort_unstable();
    Ok(rows)
}

fn require<'a>(columns: &'a Columns, name: &str) -> Result<&'a Column> {
    columns
        .get(name)
        .ok_or_else(|| Error::mismatch("column", name, "a table without it"))
}

/// The items that are ranked, in the order of ties.
struct Gallery {
    rows: Vec<u32>,
    /// The word of each item in the relevance column.
    codes: Vec<u32>,
    /// [items, width]
    vectors: Vec<f32>,
}

impl Gallery {
    fn new(
        task: &Task,
        column: &Column,
        embeddings: &Embeddings<'_>,
        measures: &Measures<'_>,
    ) -> Self {
        let takes_part =
            |&row: &u32| column.code(row as usize) != 0 && embeddings.has(row as usize);
        let mut rows: Vec<u32> = task.gallery.iter().copied().filter(takes_part).collect();
        rows.sort_by_key(|&row| (measures.tie_order[row as usize], row));
        let codes = rows.iter().map(|&row| column.code(row as usize));
        let vectors = rows
            .iter()
            .flat_map(|&row| embeddings.vector(row as usize).iter().copied());
        Self {
            codes: codes.collect(),
            vectors: vectors.collect(),
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

/// Which candidates a query must not see.
struct Rule<'a> {
    names: &'a [String],
    /// For each name the column, and its word for each gallery item.
    columns: Vec<(&'a Column, Vec<u32>)>,
}

impl<'a> Rule<'a> {
    fn new(names: &'a [String], columns: &'a Columns, gallery: &Gallery) -> Result<Self> {
        let columns = names.iter().map(|name| {
            let column = require(columns, name)?;
            let codes = gallery.rows.iter().map(|&row| column.code(row as usize));
            Ok((column, codes.collect()))
        });
        Ok(Self {
            names,
            columns: columns.collect::<Result<_>>()?,
        })
    }

    /// Returns the query's own words; 0, the unknown, excludes nothing.
    fn of_query(&self, query: u32) -> Vec<(u32, &[u32])> {
        let own = self.columns.iter().map(|(column, codes)| {
            let code = column.code(query as usize);
            (code, codes.as_slice())
        });
        own.filter(|&(code, _)| code != 0).collect()
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
    gallery: Gallery,
    column: &'a Column,
    relevance: Relevance<'a>,
    is_votable: bool,
    /// The class that most gallery items have.
    commonest: u32,
    measures: &'a Measures<'a>,
}

/// What is reused from query to query.
#[derive(Default)]
struct Room {
    grades: Vec<f32>,
    keys: Vec<u64>,
    ideal: Vec<f32>,
}

/// A query's candidates, counted.
struct Candidates {
    n: usize,
    n_relevant: usize,
    total_grade: f64,
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
        queries.sort_by_key(|&row| (self.measures.tie_order[row as usize], row));
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
        rules: &[Rule<'_>],
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

    /// Computes the cosines of some queries with all items, [queries, items].
    fn scores(&self, queries: &[u32], embeddings: &Embeddings<'_>) -> Vec<f32> {
        let (width, n) = (embeddings.width, self.gallery.rows.len());
        let stride = width.next_multiple_of(LANES);
        let mut padded = vec![0.0; queries.len() * stride];
        for (place, &query) in padded.chunks_exact_mut(stride).zip(queries) {
            place[..width].copy_from_slice(embeddings.vector(query as usize));
        }
        let mut scores = vec![0.0; queries.len() * n];
        let mut part = Vec::new();
        let kernels = Kernels::get();
        for (piece, rows) in self.gallery.vectors.chunks(PIECE_ROWS * width).enumerate() {
            let n_rows = rows.len() / width;
            part.resize(queries.len() * n_rows, 0.0);
            (kernels.dots_f32)(&padded, rows, width, &mut part);
            let start = piece * PIECE_ROWS;
            for (all, part) in scores.chunks_exact_mut(n).zip(part.chunks_exact(n_rows)) {
                // 0 and -0 are one score.
                let places = all[start..start + n_rows].iter_mut().zip(part);
                places.for_each(|(place, score)| *place = score + 0.0);
            }
        }
        scores
    }

    fn answer(&self, query: u32, scores: &[f32], rule: &Rule<'_>, room: &mut Room) -> Outcome {
        let candidates = self.candidates(query, scores, rule, room);
        if candidates.n_relevant == 0 {
            return Outcome::WithoutRelevant;
        }
        if candidates.n_relevant == candidates.n {
            return Outcome::OnlyRelevant;
        }
        self.fill_ideal(&candidates, room);
        let metrics = self.measures.metrics.iter();
        let depth = metrics
            .map(|metric| metric.depth(candidates.n_relevant))
            .chain([self.measures.n_hits, crate::metrics::KNN_K, 2])
            .max()
            .unwrap_or_default();
        let items = self.best(&mut room.keys, scores, depth, &room.grades);
        Outcome::Counted(self.measure(query, &candidates, items, &room.ideal))
    }

    /// Writes a key for each item that the rule allows, which sorts by score, then by the order of
    /// ties; counts them.
    fn candidates(
        &self,
        query: u32,
        scores: &[f32],
        rule: &Rule<'_>,
        room: &mut Room,
    ) -> Candidates {
        let own = rule.of_query(query);
        let mut candidates = Candidates {
            n: 0,
            n_relevant: 0,
            total_grade: 0.0,
        };
        room.keys.clear();
        for (idx, (&row, &score)) in self.gallery.rows.iter().zip(scores).enumerate() {
            if row == query || own.iter().any(|&(code, codes)| codes[idx] == code) {
                continue;
            }
            let grade = room.grades[self.gallery.codes[idx] as usize];
            candidates.n_relevant += usize::from(grade >= self.measures.least_grade);
            candidates.total_grade += f64::from(grade);
            room.keys
                .push(u64::from(!ordered(score)) << 32 | idx as u64);
        }
        candidates.n = room.keys.len();
        candidates
    }

    /// Writes the largest grades that candidates have.
    fn fill_ideal(&self, candidates: &Candidates, room: &mut Room) {
        let metrics = self.measures.metrics.iter();
        let depth = metrics
            .filter_map(|metric| match metric {
                Metric::NdcgAt(k) => Some(*k),
                _ => None,
            })
            .max()
            .unwrap_or_default();
        room.ideal.clear();
        if self.is_votable {
            // One label each: every relevant item has grade 1.
            room.ideal.resize(depth.min(candidates.n_relevant), 1.0);
            return;
        }
        let grades = room.keys.iter().map(|&key| {
            let code = self.gallery.codes[item_of(key)];
            room.grades[code as usize]
        });
        room.ideal.extend(grades.filter(|&grade| grade > 0.0));
        room.ideal.sort_unstable_by(|a, b| b.total_cmp(a));
        room.ideal.truncate(depth);
    }

    /// Returns the first `depth` items in order.
    fn best(
        &self,
        keys: &mut Vec<u64>,
        scores: &[f32],
        depth: usize,
        grades: &[f32],
    ) -> Vec<(usize, RankedItem)> {
        if depth < keys.len() {
            keys.select_nth_unstable(depth);
            keys.truncate(depth);
        }
        keys.sort_unstable();
        let items = keys.iter().map(|&key| {
            let idx = item_of(key);
            let item = RankedItem {
                row: self.gallery.rows[idx],
                score: scores[idx],
                grade: grades[self.gallery.codes[idx] as usize],
            };
            (idx, item)
        });
        items.collect()
    }

    fn measure(
        &self,
        query: u32,
        candidates: &Candidates,
        items: Vec<(usize, RankedItem)>,
        ideal: &[f32],
    ) -> Answer {
        let grades: Vec<f32> = items.iter().map(|(_, item)| item.grade).collect();
        let ranking = Ranking {
            grades: &grades,
            least_grade: self.measures.least_grade,
            n_candidates: candidates.n,
            n_relevant: candidates.n_relevant,
            ideal,
            total_grade: candidates.total_grade,
        };
        let nearest = &items[..items.len().min(self.vote_depth())];
        let classes: Vec<u32> = nearest
            .iter()
            .map(|&(idx, _)| self.gallery.codes[idx])
            .collect();
        let near_scores: Vec<f32> = nearest.iter().map(|(_, item)| item.score).collect();
        let vote = self.is_votable.then_some(Vote {
            classes: &classes,
            scores: &near_scores,
        });
        let own = self.column.code(query as usize);
        let is_right = |class: Option<u32>| f64::from(u8::from(class == Some(own)));
        let values = self.measures.metrics.iter().map(|&metric| {
            let voted = || Some(is_right(vote?.decide(metric)));
            ranking.value(metric).or_else(voted).unwrap_or(f64::NAN)
        });
        let chance = self.measures.metrics.iter().map(|&metric| {
            let prior = || vote.map(|_| is_right(Some(self.commonest)));
            ranking.chance(metric).or_else(prior).unwrap_or(f64::NAN)
        });
        let maximum = self.measures.metrics.iter();
        let maximum = maximum.map(|&metric| ranking.maximum(metric).unwrap_or(f64::NAN));
        let is_relevant = |item: &RankedItem| item.grade >= self.measures.least_grade;
        let is_tied = matches!(
            items[..], [(_, a), (_, b), ..]
                if a.score.to_bits() == b.score.to_bits() && is_relevant(&a) != is_relevant(&b)
        );
        Answer {
            query,
            n_candidates: candidates.n,
            n_relevant: candidates.n_relevant,
            values: values.collect(),
            chance: chance.collect(),
            maximum: maximum.collect(),
            class_number: 0,
            class: vote.and_then(|vote| vote.decide(Metric::KnnAccuracyPlain)),
            is_tied,
            hits: items
                .into_iter()
                .take(self.measures.n_hits)
                .map(|(_, item)| item)
                .collect(),
        }
    }

    /// Returns how many neighbours votes look at.
    fn vote_depth(&self) -> usize {
        let votes = self
            .measures
            .metrics
            .iter()
            .filter(|metric| metric.is_vote());
        votes
            .map(|metric| metric.depth(0))
            .max()
            .unwrap_or_default()
            .max(crate::metrics::KNN_K)
    }
}

/// Returns the gallery item of a key.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the lower half is the item"
)]
fn item_of(key: u64) -> usize {
    key as u32 as usize
}

/// Maps scores to integers of the same order.
fn ordered(score: f32) -> u32 {
    let bits = score.to_bits();
    if bits >> 31 == 0 {
        bits | 1 << 31
    } else {
        !bits
    }
}

#[cfg(test)]
mod tests;
