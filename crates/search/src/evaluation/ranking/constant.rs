//! What needs no query: the value of one fixed ranking of the gallery for all queries of a task.

use rayon::prelude::*;

use super::exclusion::ExclusionRule;
use super::{Answer, Evaluation, GROUP_QUERIES, Ranker};
use crate::evaluation::metrics::{Block, Metric, Ranking, as_f64};

/// Returns for each metric what the better of two fixed rankings has; NaN for votes.
///
/// `w_q` is the weight of query q in the task's mean, `rel(q, g)` whether item g is relevant to it, and
/// `R_q` how many candidates are. One ranking is by falling `sum_q w_q rel(q, g)`, the other by falling
/// `sum_q w_q rel(q, g) / R_q`; equal sums rank by the other sum, then by label, and items of one label are worth the same.
/// From either, each query's own exclusions are taken out. Without exclusions no fixed ranking has more
/// `precision_at_k` or `hit_at_1` than the first, nor more `recall_at_k` than the second; for other
/// metrics the better one is a lower bound of the best.
pub(super) fn values(
    ranker: &Ranker<'_>,
    rule: &ExclusionRule<'_>,
    evaluation: &Evaluation,
) -> Vec<f64> {
    let metrics = ranker.measures.metrics;
    let mut best = vec![f64::NAN; metrics.len()];
    if evaluation.answers.is_empty() {
        return best;
    }
    let weights = evaluation.strata.weights();
    for order in orders(ranker, &evaluation.answers, &weights) {
        let ranking = FixedRanking {
            ranker,
            rule,
            order: &order,
        };
        let queries: Vec<(&Answer, f64)> = evaluation
            .answers
            .iter()
            .zip(weights.iter().copied())
            .collect();
        // Sums over groups of a fixed size do not depend on threads.
        let sums: Vec<Vec<f64>> = queries
            .par_chunks(GROUP_QUERIES)
            .map(|queries| ranking.sums(queries))
            .collect();
        for (idx, best) in best.iter_mut().enumerate() {
            // A NaN gives way.
            *best = best.max(sums.iter().map(|sums| sums[idx]).sum());
        }
    }
    best
}

/// Lists the gallery's items in the order of either ranking.
fn orders(ranker: &Ranker<'_>, answers: &[Answer], weights: &[f64]) -> [Vec<u32>; 2] {
    let n_words = ranker.column.n_words();
    // Of the queries with each word: all weights, and all weights over R.
    let mut of_queries = vec![[0.0; 2]; n_words];
    for (answer, weight) in answers.iter().zip(weights) {
        let own = &mut of_queries[ranker.column.code(answer.query as usize) as usize];
        own[0] += weight;
        own[1] += weight / as_f64(answer.n_relevant);
    }
    let mut of_items = vec![[0.0; 2]; n_words];
    for (code, own) in (0..).zip(&of_queries).filter(|(_, own)| own[0] > 0.0) {
        let least_grade = ranker.measures.least_grade;
        ranker
            .relevance
            .for_each_relevant(code, least_grade, |word| {
                of_items[word][0] += own[0];
                of_items[word][1] += own[1];
            });
    }
    [0, 1].map(|first| {
        let codes = &ranker.gallery.codes;
        let mut order: Vec<u32> = (0..).take(codes.len()).collect();
        order.sort_by(|&a, &b| {
            let [a_code, b_code] = [a, b].map(|item| codes[item as usize]);
            let [a_sums, b_sums] = [a_code, b_code].map(|code| of_items[code as usize]);
            let falling = |idx: usize| falling(a_sums[idx], b_sums[idx]);
            falling(first)
                .then(falling(1 - first))
                .then(a_code.cmp(&b_code))
                .then(a.cmp(&b))
        });
        order
    })
}

/// Compares sums, the larger first; sums that differ by rounding are equal.
fn falling(a: f64, b: f64) -> std::cmp::Ordering {
    let rounded = |x: f64| (x * 1e12).round();
    rounded(b).total_cmp(&rounded(a))
}

/// One ranking of the gallery that answers all queries.
struct FixedRanking<'a> {
    ranker: &'a Ranker<'a>,
    /// Which candidates are taken out for each query.
    rule: &'a ExclusionRule<'a>,
    /// The gallery's items, best first.
    order: &'a [u32],
}

impl FixedRanking<'_> {
    /// Adds up what the ranking is worth to some queries, by their weights.
    fn sums(&self, queries: &[(&Answer, f64)]) -> Vec<f64> {
        let ranker = self.ranker;
        let metrics = ranker.measures.metrics;
        let mut sums = vec![0.0; metrics.len()];
        let (mut grades, mut taken, mut ideal) = (Vec::new(), Vec::new(), Vec::new());
        for &(answer, weight) in queries {
            let code = ranker.column.code(answer.query as usize);
            ranker.relevance.grade(code, &mut grades);
            self.fill(answer, &grades, &mut taken);
            ideal.clone_from(&taken);
            ideal.retain(|&grade| grade > 0.0);
            ideal.sort_unstable_by(|a, b| b.total_cmp(a));
            if ranker.is_votable {
                ideal.clear();
                ideal.resize(answer.n_relevant, 1.0);
            }
            // A fixed ranking has no ties: items of one sum are of one word, or in the order of words.
            let blocks = Block::of_order(&taken, ranker.measures.least_grade);
            let ranking = Ranking {
                blocks: &blocks,
                n_candidates: answer.n_candidates,
                n_relevant: answer.n_relevant,
                ideal: &ideal,
                total_grade: 0.0,
            };
            for (sum, &metric) in sums.iter_mut().zip(metrics) {
                *sum += weight * ranking.value(metric).unwrap_or(f64::NAN);
            }
        }
        sums
    }

    /// Writes the grades of the ranking's first candidates for a query to `taken`: as many as metrics look
    /// at, or all where the best order of grades has to be known. `grades` has the grade of each word.
    fn fill(&self, answer: &Answer, grades: &[f32], taken: &mut Vec<f32>) {
        let ranker = self.ranker;
        let metrics = ranker.measures.metrics.iter();
        let ranked = metrics.filter(|metric| !metric.is_vote());
        let depth = ranked.map(|metric: &Metric| metric.depth(answer.n_relevant));
        let depth = if ranker.is_votable {
            depth.max().unwrap_or_default()
        } else {
            usize::MAX
        };
        let excluded = self.rule.of_query(answer.query);
        let is_candidate = |item: usize| !excluded.has(item, ranker.gallery.rows[item]);
        taken.clear();
        let items = self.order.iter().map(|&item| item as usize);
        let items = items.filter(|&item| is_candidate(item)).take(depth);
        taken.extend(items.map(|item| grades[ranker.gallery.codes[item] as usize]));
    }
}
