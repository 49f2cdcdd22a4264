//! A search of a whole archive: does it find what is right in another modality than the query's?

use rayon::prelude::*;

use super::{Answer, Embeddings, Gallery, Measures, Rule, evaluate, require};
use crate::columns::{Column, Columns, Relevance};
use crate::error::Result;
use crate::metrics::{Metric, as_f64};
use crate::tasks::Task;

/// Hits of a query that are looked at.
pub const MIXED_K: usize = 5;

/// One query that some item of another modality answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MixedAnswer {
    /// Row of the table.
    pub query: u32,
    /// Of the first `MIXED_K` hits, the share that is relevant and of another modality.
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
    /// Queries to which a candidate of another modality is relevant, in the order of ties.
    pub answers: Vec<MixedAnswer>,
    /// Queries with a vector and a label to which none is.
    pub n_without_other: usize,
    /// Gallery items with a vector and a label.
    pub n_gallery: usize,
}

/// Searches a gallery of all modalities for every query of a task.
///
/// Shares are of `MIXED_K` hits even where there are fewer candidates. `measures` says which items are
/// relevant and how ties rank; its metrics and `n_hits` do not count.
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
    let gallery = Gallery::new(task, column, embeddings, &measures);
    let counter = Counter {
        rule: Rule::new(exclude, columns, &gallery)?,
        modality: require(columns, "modality")?,
        relevance: Relevance::new(column),
        column,
        gallery,
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
    rule: Rule<'a>,
    modality: &'a Column,
    column: &'a Column,
    relevance: Relevance<'a>,
    gallery: Gallery,
    least_grade: f32,
}

impl Counter<'_> {
    fn answer(&self, answer: &Answer) -> Option<MixedAnswer> {
        let modality = |row: u32| self.modality.code(row as usize);
        let own = modality(answer.query);
        let mut grades = Vec::new();
        let code = self.column.code(answer.query as usize);
        self.relevance.grade(code, &mut grades);
        let excluded = self.rule.of_query(answer.query);
        let (mut n_own, mut n_right) = (0_usize, 0_usize);
        for (idx, &row) in self.gallery.rows.iter().enumerate() {
            if row == answer.query || excluded.iter().any(|&(code, codes)| codes[idx] == code) {
                continue;
            }
            let is_own = modality(row) == own;
            let is_right = grades[self.gallery.codes[idx] as usize] >= self.least_grade;
            n_own += usize::from(is_own);
            n_right += usize::from(is_right && !is_own);
        }
        if n_right == 0 {
            return None;
        }
        let k = as_f64(MIXED_K);
        let n = as_f64(answer.n_candidates);
        let n_seen = as_f64(answer.n_candidates.min(MIXED_K));
        let share = |is_counted: &dyn Fn(u32, f32) -> bool| {
            let hits = answer.hits.iter();
            as_f64(hits.filter(|hit| is_counted(hit.row, hit.grade)).count()) / k
        };
        Some(MixedAnswer {
            query: answer.query,
            right_of_other_modality: share(&|row, grade| {
                modality(row) != own && grade >= self.least_grade
            }),
            right_of_other_modality_chance: n_seen / k * as_f64(n_right) / n,
            own_modality: share(&|row, _| modality(row) == own),
            own_modality_chance: n_seen / k * as_f64(n_own) / n,
        })
    }
}
