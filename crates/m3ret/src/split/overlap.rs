//! Finds what rows on two sides have in common, without any input or output.

use std::collections::HashMap;

use serde::Serialize;

/// What a row is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Side {
    Pretrain,
    /// Gallery or query.
    Evaluation,
}

/// Returns what a word of the column `split` means; `None` for neither.
pub(super) fn side_of(split: &str) -> Option<Side> {
    match split {
        "pretrain" => Some(Side::Pretrain),
        "gallery" | "query" => Some(Side::Evaluation),
        _ => None,
    }
}

/// Rows of both sides that have something in common.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overlap {
    /// Cosine of the two vectors of near duplicates; `None` for other overlaps.
    pub score: Option<f32>,
    /// Pretrain rows, numbered from 0 through all manifests.
    pub pretrain: Vec<usize>,
    /// Evaluation rows, numbered from 0 through all manifests.
    pub evaluation: Vec<usize>,
}

impl Overlap {
    fn push(&mut self, row: usize, side: Side) {
        match side {
            Side::Pretrain => self.pretrain.push(row),
            Side::Evaluation => self.evaluation.push(row),
        }
    }
}

/// Returns the words that rows of both sides have, in the order of their first rows; empty words are ignored.
pub(super) fn shared<'a>(
    words: impl IntoIterator<Item = &'a str>,
    sides: &[Option<Side>],
) -> Vec<Overlap> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut overlaps: Vec<Overlap> = Vec::new();
    for (row, (word, side)) in words.into_iter().zip(sides).enumerate() {
        let Some(side) = side.filter(|_| !word.is_empty()) else {
            continue;
        };
        let place = *places.entry(word).or_insert_with(|| {
            overlaps.push(Overlap::default());
            overlaps.len() - 1
        });
        overlaps[place].push(row, side);
    }
    overlaps.retain(|overlap| !overlap.pretrain.is_empty() && !overlap.evaluation.is_empty());
    overlaps
}

/// Returns two rows as an overlap, if they are on both sides.
pub(super) fn across([a, b]: [usize; 2], sides: &[Option<Side>]) -> Option<Overlap> {
    let (one, two) = (sides[a]?, sides[b]?);
    let mut overlap = Overlap::default();
    overlap.push(a, one);
    overlap.push(b, two);
    (one != two).then_some(overlap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_on_both_sides_are_shared() {
        let splits = ["pretrain", "gallery", "query", "pretrain", "", "gallery"];
        let sides = splits.map(side_of);
        let words = ["a", "b", "a", "c", "c", "a"];
        let expected = Overlap {
            score: None,
            pretrain: vec![0],
            evaluation: vec![2, 5],
        };
        assert_eq!(shared(words, &sides), [expected]);
        assert_eq!(shared([""; 6], &sides), []);
    }

    #[test]
    fn a_pair_overlaps_only_across_sides() {
        let sides = ["pretrain", "gallery", "query", "", "pretrain"].map(side_of);
        let expected = Overlap {
            score: None,
            pretrain: vec![4],
            evaluation: vec![1],
        };
        assert_eq!(across([1, 4], &sides), Some(expected));
        for pair in [[0, 4], [1, 2], [0, 3]] {
            assert_eq!(across(pair, &sides), None, "{pair:?}");
        }
    }
}
