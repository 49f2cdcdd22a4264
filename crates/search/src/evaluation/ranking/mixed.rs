//! A search of a whole archive: does it find what is right in another modality than the query's?

use rayon::prelude::*;

use super::exclusion::ExclusionRule;
use super::{Answer, Embeddings, Measures, TaskGallery, evaluate, require};
use crate::error::Result;
use crate::evaluation::columns::{Column, Columns, Relevance};
use crate::evaluation::metrics::{Metric, as_f64};
use crate::evaluation::tasks::Task;
use crate::names::MODALITY;

/// Hits of a query that are looked at.
pub const MIXED_K: usize = 5;

/// One query that some item of another modality answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MixedAnswer {
    /// Row of the table.
    pub query: u32,
    /// Of the first `MIXED_K` hits, the share that is relevant and of another modality: the mean over all
    /// orders of equal scores, as the next one but one.
    pub right_of_other_modality: f64,
    /// What a random ranking has of it on average.
    pub right_of_other_modality_chance: f64,
    /// Of the first `MIXED_K` hits, the share of the query's own modality.
    pub own_modality: f64,
    /// What a random ranking has of it on average.
    pub own_modality_chance: f64,
}

/// The queries of a task over all modalities.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mixed {
    /// Queries to which a candidate of another modality is relevant, in `query_order`.
    pub answers: Vec<MixedAnswer>,
    /// Queries with a vector and a label to which none is.
    pub n_without_other: usize,
    /// Gallery items with a vector and a label.
    pub n_gallery: usize,
}

/// Searches a gallery of all modalities for every query of a task.
///
/// Shares are of `MIXED_K` hits even where there are fewer candidates. `measures` says which items are
/// relevant; its metrics and `n_hits` do not count.
///
/// # Errors
/// `Mismatch` as `evaluate`, and if there is no column `modality`.
pub fn mixed(
    task: &Task,
    columns: &Columns,
    embeddings: &Embeddings<'_>,
    measures: &Measures<'_>,
    exclude: &[String],
) -> Result<Mixed> {
    let measures = Measures {
        metrics: &[Metric::PrecisionAt(MIXED_K)],
        n_hits: MIXED_K,
        ..measures.clone()
    };
    let rules = [exclude.to_vec()];
    let evaluation = evaluate(task, columns, embeddings, &measures, &rules)?;
    let evaluation = evaluation.into_iter().next().unwrap_or_default();
    let column = require(columns, &task.relevance)?;
    let gallery = TaskGallery::new(task, column, embeddings, &measures);
    let counter = Counter {
        rule: ExclusionRule::new(exclude, columns, &gallery.rows)?,
        modality: require(columns, MODALITY)?,
        relevance: Relevance::new(column),
        column,
        gallery,
        embeddings,
        common_score: evaluation.common_score,
        least_grade: measures.least_grade,
    };
    let answers = evaluation.answers.par_iter();
    let answers: Vec<MixedAnswer> = answers
        .filter_map(|answer| counter.answer(answer))
        .collect();
    let left_out = &evaluation.left_out;
    Ok(Mixed {
        n_without_other: evaluation.answers.len() - answers.len()
            + left_out.n_without_relevant
            + left_out.n_only_relevant,
        n_gallery: evaluation.n_gallery,
        answers,
    })
}

/// Counts a query's candidates by modality.
struct Counter<'a> {
    rule: ExclusionRule<'a>,
    modality: &'a Column,
    column: &'a Column,
    relevance: Relevance<'a>,
    gallery: TaskGallery,
    embeddings: &'a Embeddings<'a>,
    /// The score of all pairs, where the vectors are collapsed.
    common_score: Option<f32>,
    least_grade: f32,
}

/// Items of a kind: all, relevant ones of another modality, those of the query's own.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    n: usize,
    n_right: usize,
    n_own: usize,
}

impl Counts {
    fn add(&mut self, is_own: bool, is_relevant: bool) {
        self.n += 1;
        self.n_right += usize::from(is_relevant && !is_own);
        self.n_own += usize::from(is_own);
    }
}

impl Counter<'_> {
    fn answer(&self, answer: &Answer) -> Option<MixedAnswer> {
        let all = self.count(answer, |_| true);
        if all.n_right == 0 {
            return None;
        }
        // Hits above the score of the last one are certain; of the items with that score, so many are
        // drawn as there are hits left.
        let last = answer.hits.last().map(|hit| hit.score);
        let is_cut = answer.n_beyond > 0;
        let is_certain = |score: f32| !is_cut || Some(score) > last;
        let mut certain = Counts::default();
        for hit in answer.hits.iter().filter(|hit| is_certain(hit.score)) {
            certain.add(self.is_own(answer, hit.row), hit.grade >= self.least_grade);
        }
        let tied = if is_cut {
            self.count(answer, |item| Some(self.score(answer.query, item)) == last)
        } else {
            Counts::default()
        };
        let k = as_f64(MIXED_K);
        let chance = |of: fn(&Counts) -> usize| {
            let n_seen = as_f64(all.n.min(MIXED_K));
            n_seen / k * as_f64(of(&all)) / as_f64(all.n)
        };
        let share = |of: fn(&Counts) -> usize| {
            if !is_cut {
                return as_f64(of(&certain)) / k;
            }
            if tied.n == all.n {
                return chance(of);
            }
            let n_drawn = as_f64(answer.hits.len() - certain.n);
            (as_f64(of(&certain)) + n_drawn * as_f64(of(&tied)) / as_f64(tied.n)) / k
        };
        Some(MixedAnswer {
            query: answer.query,
            right_of_other_modality: share(|counts| counts.n_right),
            right_of_other_modality_chance: chance(|counts| counts.n_right),
            own_modality: share(|counts| counts.n_own),
            own_modality_chance: chance(|counts| counts.n_own),
        })
    }

    /// Counts the query's candidates among some gallery items.
    fn count(&self, answer: &Answer, is_counted: impl Fn(usize) -> bool) -> Counts {
        let mut grades = Vec::new();
        let code = self.column.code(answer.query as usize);
        self.relevance.grade(code, &mut grades);
        let excluded = self.rule.of_query(answer.query);
        let mut counts = Counts::default();
        for (idx, &row) in self.gallery.rows.iter().enumerate() {
            if excluded.has(idx, row) || !is_counted(idx) {
                continue;
            }
            let grade = grades[self.gallery.codes[idx] as usize];
            counts.add(self.is_own(answer, row), grade >= self.least_grade);
        }
        counts
    }

    fn is_own(&self, answer: &Answer, row: u32) -> bool {
        self.modality.code(row as usize) == self.modality.code(answer.query as usize)
    }

    fn score(&self, query: u32, item: usize) -> f32 {
        self.common_score.unwrap_or_else(|| {
            let row = self.gallery.rows[item];
            self.embeddings.score(query, row)
        })
    }
}
