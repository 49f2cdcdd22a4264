//! One query's ranking: candidates, the best of them, equal scores, and what that is worth.

use super::exclusion::ExclusionRule;
use super::{Answer, Outcome, RankedItem, Ranker};
use crate::evaluation::metrics::{Block, KNN_K, Metric, Ranking, Vote};

/// What is reused from query to query.
#[derive(Default)]
pub(super) struct Room {
    pub(super) grades: Vec<f32>,
    keys: Vec<u64>,
    ideal: Vec<f32>,
}

/// A query's candidates, counted.
struct Candidates {
    n: usize,
    n_relevant: usize,
    total_grade: f64,
    keys: KeyOrder,
}

/// The best part of a query's ranking.
struct Ranked {
    /// Gallery items, the best first.
    items: Vec<(usize, RankedItem)>,
    /// Gallery items that follow with the score of the last one.
    beyond: Vec<usize>,
}

/// How a query's keys sort: by falling score, then by the item's number with some bits inverted.
///
/// Items are numbered in `tie_order`, which is random; with other bits for each query, no item comes
/// first among equal scores in all rankings.
#[derive(Debug, Clone, Copy)]
struct KeyOrder {
    bits: u32,
}

impl KeyOrder {
    fn of_query(place: u32) -> Self {
        // An odd factor (2^32 over the golden ratio) spreads neighbouring places over all bits.
        Self {
            bits: place.wrapping_mul(0x9e37_79b1),
        }
    }

    fn key(self, score: f32, item: usize) -> u64 {
        u64::from(!ordered(score)) << 32 | (item as u64 ^ u64::from(self.bits))
    }

    /// Returns the gallery item of a key.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the lower half is the item"
    )]
    fn item(self, key: u64) -> usize {
        (key as u32 ^ self.bits) as usize
    }
}

impl Ranker<'_> {
    /// Ranks the gallery for a query whose grades are in `room`, and measures the ranking.
    pub(super) fn answer(
        &self,
        query: u32,
        scores: &[f32],
        rule: &ExclusionRule<'_>,
        room: &mut Room,
    ) -> Outcome {
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
            .chain([self.measures.n_hits, KNN_K, 2])
            .max()
            .unwrap_or_default();
        let ranked = self.best(depth, &candidates, scores, room);
        Outcome::Counted(self.measure(query, &candidates, ranked, room))
    }

    /// Writes a key for each item that the rule allows; counts them.
    fn candidates(
        &self,
        query: u32,
        scores: &[f32],
        rule: &ExclusionRule<'_>,
        room: &mut Room,
    ) -> Candidates {
        let excluded = rule.of_query(query);
        let mut candidates = Candidates {
            n: 0,
            n_relevant: 0,
            total_grade: 0.0,
            keys: KeyOrder::of_query(self.measures.tie_order[query as usize]),
        };
        room.keys.clear();
        for (idx, (&row, &score)) in self.gallery.rows.iter().zip(scores).enumerate() {
            if excluded.has(idx, row) {
                continue;
            }
            let grade = room.grades[self.gallery.codes[idx] as usize];
            candidates.n_relevant += usize::from(grade >= self.measures.least_grade);
            candidates.total_grade += f64::from(grade);
            room.keys.push(candidates.keys.key(score, idx));
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
            let code = self.gallery.codes[candidates.keys.item(key)];
            room.grades[code as usize]
        });
        room.ideal.extend(grades.filter(|&grade| grade > 0.0));
        room.ideal.sort_unstable_by(|a, b| b.total_cmp(a));
        room.ideal.truncate(depth);
    }

    /// Returns the first `depth` items in order, and what ties with the last of them.
    fn best(
        &self,
        depth: usize,
        candidates: &Candidates,
        scores: &[f32],
        room: &mut Room,
    ) -> Ranked {
        let item = |&key: &u64| candidates.keys.item(key);
        let keys = &mut room.keys;
        let mut beyond = Vec::new();
        if depth < keys.len() {
            let (first, next, rest) = keys.select_nth_unstable(depth);
            // Keys of one score have the same upper half; none of the rest is below `next`.
            let cut = *next >> 32;
            if first.iter().any(|key| key >> 32 == cut) {
                beyond.push(item(next));
                beyond.extend(rest.iter().filter(|&key| key >> 32 == cut).map(item));
            }
            keys.truncate(depth);
        }
        keys.sort_unstable();
        let items = keys.iter().map(|key| {
            let idx = item(key);
            let item = RankedItem {
                row: self.gallery.rows[idx],
                score: scores[idx],
                grade: room.grades[self.gallery.codes[idx] as usize],
            };
            (idx, item)
        });
        Ranked {
            items: items.collect(),
            beyond,
        }
    }

    fn measure(&self, query: u32, candidates: &Candidates, ranked: Ranked, room: &Room) -> Answer {
        let metrics = self.measures.metrics;
        let blocks = self.blocks(&ranked, room);
        let ranking = Ranking {
            blocks: &blocks,
            n_candidates: candidates.n,
            n_relevant: candidates.n_relevant,
            ideal: &room.ideal,
            total_grade: candidates.total_grade,
        };
        let code = |&idx: &usize| self.gallery.codes[idx];
        let classes: Vec<u32> = ranked.items.iter().map(|(idx, _)| code(idx)).collect();
        let scores: Vec<f32> = ranked.items.iter().map(|(_, item)| item.score).collect();
        let beyond: Vec<u32> = ranked.beyond.iter().map(code).collect();
        let vote = self.is_votable.then_some(Vote {
            classes: &classes,
            scores: &scores,
            beyond: &beyond,
        });
        let own = self.column.code(query as usize);
        let values = metrics.iter().map(|&metric| {
            let voted = || vote?.share_of(metric, own);
            ranking.value(metric).or_else(voted).unwrap_or(f64::NAN)
        });
        let chance = metrics.iter().map(|&metric| {
            let prior = || vote.map(|_| f64::from(u8::from(self.commonest == own)));
            ranking.chance(metric).or_else(prior).unwrap_or(f64::NAN)
        });
        let maximum = metrics
            .iter()
            .map(|&metric| ranking.maximum(metric).unwrap_or(f64::NAN));
        let is_tied = metrics
            .iter()
            .any(|metric| ranking.is_cut_in_tie(metric.depth(candidates.n_relevant)));
        let n_hits = self.measures.n_hits.min(ranked.items.len());
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
            n_beyond: n_beyond(&scores, n_hits, beyond.len()),
            hits: ranked
                .items
                .into_iter()
                .take(n_hits)
                .map(|(_, item)| item)
                .collect(),
        }
    }

    /// Lists the blocks of equal scores; the last one with all its items.
    fn blocks(&self, ranked: &Ranked, room: &Room) -> Vec<Block> {
        let grade = |idx: &usize| room.grades[self.gallery.codes[*idx] as usize];
        let items = ranked.items.iter();
        let last = items.clone().next_back().map(|(_, item)| item.score);
        let tied = ranked.beyond.iter().filter_map(|_| last);
        let scores: Vec<f32> = items
            .clone()
            .map(|(_, item)| item.score)
            .chain(tied)
            .collect();
        let grades: Vec<f32> = items
            .map(|(_, item)| item.grade)
            .chain(ranked.beyond.iter().map(grade))
            .collect();
        Block::of_scores(&scores, &grades, self.measures.least_grade)
    }
}

/// Counts the candidates that follow the first `n_hits` scores with the score of the last of these;
/// `n_more` candidates follow all scores with the last one's.
fn n_beyond(scores: &[f32], n_hits: usize, n_more: usize) -> usize {
    let (hits, rest) = scores.split_at(n_hits);
    let Some(last) = hits.last() else {
        return 0;
    };
    let is_same = |score: &&f32| score.to_bits() == last.to_bits();
    let n = rest.iter().take_while(is_same).count();
    if n == rest.len() { n + n_more } else { n }
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
