//! Several vectors a row: the score of two rows is the best over all pairs of their vectors.

use std::ops::Range;

use super::{Embeddings, products};
use crate::error::{Error, Result};
use crate::kernels::dot;

/// Further vectors of rows of a table, such as projections of volumes.
#[derive(Debug, Clone, Copy, Default)]
pub struct RankedViews<'a> {
    /// The row of each further vector, in ascending order; a row may come several times.
    pub rows: &'a [u32],
    /// Unit vectors, [further vectors, width].
    pub vectors: &'a [f32],
    /// For each row its modality as a number; rows with the same one are compared by their own vectors alone. 0 stands for
    /// an unknown one, and an empty list for rows of which none is known.
    pub modalities: &'a [u32],
    /// What a pair loses, once, if either of its vectors is a further one; 0 or more.
    pub handicap: f32,
}

impl<'a> RankedViews<'a> {
    pub(super) fn check(&self, own: &Embeddings<'_>) -> Result<()> {
        let width = own.width;
        let has_own = |&row: &u32| (row as usize) < own.n_rows() && own.has(row as usize);
        let fault = if self.vectors.len() != self.rows.len() * width {
            format!(
                "{} numbers for {} vectors",
                self.vectors.len(),
                self.rows.len()
            )
        } else if !self.rows.is_sorted() || !self.rows.iter().all(has_own) {
            "rows out of order, or without a vector of their own".to_owned()
        } else if !self.modalities.is_empty() && self.modalities.len() != own.n_rows() {
            format!(
                "{} modalities of {} rows",
                self.modalities.len(),
                own.n_rows()
            )
        } else if !(self.handicap.is_finite() && self.handicap >= 0.0) {
            format!("a handicap of {}", self.handicap)
        } else {
            return crate::embedding::check_unit(self.vectors, width);
        };
        let wanted = "rows in ascending order with own vectors, and a handicap of 0 or more";
        Err(Error::mismatch("further vectors", wanted, fault))
    }

    /// Returns which further vectors a row has.
    fn of(&self, row: u32) -> Range<usize> {
        let start = self.rows.partition_point(|&other| other < row);
        start..self.rows.partition_point(|&other| other <= row)
    }

    /// Returns whether further vectors of two rows are compared.
    fn compares(&self, a: u32, b: u32) -> bool {
        let modality = |row: u32| self.modalities.get(row as usize).copied().unwrap_or(0);
        modality(a) == 0 || modality(a) != modality(b)
    }

    fn vector(&self, idx: usize, width: usize) -> &'a [f32] {
        &self.vectors[idx * width..][..width]
    }
}

/// Further vectors of the items of a task's gallery.
#[derive(Debug, Default)]
pub(super) struct FurtherItems {
    /// The item of each vector.
    items: Vec<usize>,
    /// [further vectors, width]
    vectors: Vec<f32>,
}

impl FurtherItems {
    /// Collects the further vectors of a gallery's items, which are rows of the table.
    pub(super) fn new(rows: &[u32], views: &RankedViews<'_>, width: usize) -> Self {
        let mut further = Self::default();
        for (item, &row) in rows.iter().enumerate() {
            for idx in views.of(row) {
                further.items.push(item);
                further.vectors.extend_from_slice(views.vector(idx, width));
            }
        }
        further
    }

    /// Raises the scores of some queries, [queries, items], to those of pairs with a further vector that are better.
    /// `rows` and `own` have the items' rows and own vectors, [items, width].
    pub(super) fn raise(
        &self,
        queries: &[u32],
        embeddings: &Embeddings<'_>,
        (rows, own): (&[u32], &[f32]),
        scores: &mut [f32],
    ) {
        let (views, width) = (&embeddings.views, embeddings.width);
        if views.rows.is_empty() {
            return;
        }
        let n = own.len() / width;
        let mut raise = |query: usize, item: usize, product: f32| {
            if !views.compares(queries[query], rows[item]) {
                return;
            }
            let place = &mut scores[query * n + item];
            *place = place.max(product - views.handicap);
        };
        let of_queries = queries
            .iter()
            .map(|&query| embeddings.vector(query as usize));
        let of_queries: Vec<&[f32]> = of_queries.collect();
        products(&of_queries, &self.vectors, |query, idx, product| {
            raise(query, self.items[idx], product);
        });
        // The queries' further vectors, with all vectors of the items.
        let mut numbers = Vec::new();
        let mut further = Vec::new();
        for (number, &query) in queries.iter().enumerate() {
            for idx in views.of(query) {
                numbers.push(number);
                further.push(views.vector(idx, width));
            }
        }
        products(&further, own, |idx, item, product| {
            raise(numbers[idx], item, product)
        });
        products(&further, &self.vectors, |query, idx, product| {
            raise(numbers[query], self.items[idx], product);
        });
    }
}

impl Embeddings<'_> {
    /// Returns the score of two rows.
    pub(super) fn score(&self, query: u32, row: u32) -> f32 {
        let vectors = |row: u32| {
            let further = self.views.of(row);
            let further = further.map(|idx| self.views.vector(idx, self.width));
            std::iter::once(self.vector(row as usize)).chain(further)
        };
        // 0 and -0 are one score.
        let mut best = dot(self.vector(query as usize), self.vector(row as usize)) + 0.0;
        if !self.views.compares(query, row) {
            return best;
        }
        for (a_idx, a) in vectors(query).enumerate() {
            for (_, b) in vectors(row)
                .enumerate()
                .filter(|(b_idx, _)| a_idx + b_idx > 0)
            {
                best = best.max(dot(a, b) + 0.0 - self.views.handicap);
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Measures, evaluate};
    use super::*;
    use crate::evaluation::metrics::Metric;
    use crate::evaluation::{Column, Columns, Task};
    use crate::testing::{TestViews, vectors};

    const WIDTH: usize = 20;

    #[test]
    fn rankings_with_views_are_those_of_the_best_pairs() {
        let n = 40_u32;
        let mut own = vectors(1, n as usize, WIDTH, 3);
        own[7 * WIDTH..8 * WIDTH].fill(f32::NAN);
        let mut further = TestViews::new(1, n as usize, WIDTH, 3);
        further.of.retain(|view| view.row != 7);
        further.vectors.truncate(further.of.len() * WIDTH);
        let rows: Vec<u32> = further.of.iter().map(|view| view.row).collect();
        let labels: Vec<String> = (0..n).map(|row| format!("l{}", row % 4)).collect();
        let mut columns = Columns::new(n as usize);
        let labels = Column::new(labels.iter().map(String::as_str));
        columns.insert("label", labels).unwrap();
        let task = Task {
            name: "all/label".to_owned(),
            queries: (0..n).collect(),
            gallery: (0..n).collect(),
            relevance: "label".to_owned(),
            query_modality: None,
            gallery_modality: None,
            has_unseen: false,
        };
        let order: Vec<u32> = (0..n).collect();
        let measures = Measures {
            metrics: &[Metric::HitAt(1)],
            least_grade: f32::MIN_POSITIVE,
            n_hits: n as usize,
            query_order: &order,
            tie_order: &order,
        };
        let some: Vec<u32> = (0..n).map(|row| row % 3).collect();
        for (handicap, modalities) in [(0.0, &[][..]), (0.1, &[]), (0.5, &[]), (0.1, &some)] {
            let views = RankedViews {
                rows: &rows,
                vectors: &further.vectors,
                modalities,
                handicap,
            };
            let embeddings = Embeddings::new(&own, WIDTH).unwrap();
            let embeddings = embeddings.with_views(views).unwrap();
            let rules = [Vec::new()];
            let evaluation = evaluate(&task, &columns, &embeddings, &measures, &rules);
            let evaluation = evaluation.unwrap().remove(0);
            assert_eq!(evaluation.answers.len(), 39);
            for answer in &evaluation.answers {
                let found: Vec<(u32, f32)> =
                    answer.hits.iter().map(|hit| (hit.row, hit.score)).collect();
                let others = (0..n).filter(|&row| row != answer.query && row != 7);
                let all = others.map(|row| (row, best_pair(&own, &views, answer.query, row)));
                let mut expected: Vec<(u32, f32)> = all.collect();
                expected.sort_by(|a, b| b.1.total_cmp(&a.1));
                assert_eq!(found, expected, "{handicap}");
                for (row, score) in found {
                    assert_eq!(embeddings.score(answer.query, row), score);
                }
            }
        }
    }

    /// The best over all pairs, as it is defined.
    fn best_pair(own: &[f32], views: &RankedViews<'_>, a: u32, b: u32) -> f32 {
        let vectors = |row: u32| {
            let further = views.rows.iter().zip(views.vectors.chunks(WIDTH));
            let further = further.filter(move |&(&other, _)| other == row);
            let mut all = vec![&own[row as usize * WIDTH..][..WIDTH]];
            all.extend(further.map(|(_, vector)| vector));
            all
        };
        let modality = |row: u32| views.modalities.get(row as usize).copied();
        let is_within = modality(a) == modality(b) && modality(a).is_some_and(|m| m > 0);
        let mut best = f32::NEG_INFINITY;
        for (a_idx, a) in vectors(a).into_iter().enumerate() {
            for (b_idx, b) in vectors(b).into_iter().enumerate() {
                let is_own = a_idx == 0 && b_idx == 0;
                if is_within && !is_own {
                    continue;
                }
                best = best.max(dot(a, b) - if is_own { 0.0 } else { views.handicap });
            }
        }
        best
    }

    #[test]
    fn further_vectors_that_do_not_fit_are_errors() {
        let mut own = vectors(1, 6, WIDTH, 0);
        own[2 * WIDTH..3 * WIDTH].fill(f32::NAN);
        let further = vectors(2, 3, WIDTH, 0);
        let check = |rows: &[u32], vectors: &[f32], handicap: f32| {
            let embeddings = Embeddings::new(&own, WIDTH).unwrap();
            let views = RankedViews {
                rows,
                vectors,
                modalities: &[],
                handicap,
            };
            embeddings.with_views(views).is_ok()
        };
        assert!(check(&[0, 3, 3], &further, 0.2));
        assert!(check(&[], &[], 0.0));
        assert!(!check(&[3, 0, 3], &further, 0.2));
        assert!(!check(&[0, 2, 3], &further, 0.2));
        assert!(!check(&[0, 3, 6], &further, 0.2));
        assert!(!check(&[0, 3], &further, 0.2));
        assert!(!check(&[0, 3, 3], &further, -0.2));
        assert!(!check(&[0, 3, 3], &further, f32::NAN));
        assert!(!check(&[0, 3, 3], &vec![0.0; 3 * WIDTH], 0.2));
    }
}
