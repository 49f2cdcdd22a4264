//! The passes of a search over one segment, for some queries together.

use std::ops::Range;
use std::sync::OnceLock;

use rayon::prelude::*;

use super::best::{Best, Candidate};
use super::calibrate::Plan;
use super::merge;
use super::rules::Allowed;
use crate::error::Result;
use crate::gallery::segment::{Segment, Vectors};
use crate::gallery::source::Source as _;
use crate::kernels::{Kernels, LANES, dot};
use crate::quantise::{QueryBits, QueryCodes, Rotation, Terms, code_stride, score_of_codes};

/// Rows that are looked at together: their codes stay in cache while queries pass by.
const PIECE_ROWS: usize = 256;
/// The same where rows are 1-bit codes, and where filters leave few of them.
const SPARSE_PIECE_ROWS: usize = 4096;
/// Queries that are multiplied together.
const GROUP_QUERIES: usize = 64;
/// A pass over 1-bit codes pays if it leaves one row in so many.
const BITS_SAVE_FROM: usize = 8;
/// Products below which threads cost more than they save.
const MIN_PARALLEL: usize = 1 << 24;

/// Some queries, in every form that a pass may want.
pub(super) struct Chunk<'a> {
    vectors: &'a [f32],
    width: usize,
    /// Number of the first one among all queries.
    start: usize,
    padded: OnceLock<Vec<f32>>,
    codes: OnceLock<QueryCodes>,
    bits: OnceLock<Vec<QueryBits>>,
}

impl<'a> Chunk<'a> {
    pub(super) fn new(vectors: &'a [f32], width: usize, start: usize) -> Self {
        Self {
            vectors,
            width,
            start,
            padded: OnceLock::new(),
            codes: OnceLock::new(),
            bits: OnceLock::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.vectors.len() / self.width
    }

    /// Returns one query alone.
    pub(super) fn only(&self, idx: usize) -> Chunk<'_> {
        Chunk::new(self.query(idx), self.width, self.start + idx)
    }

    fn query(&self, idx: usize) -> &[f32] {
        &self.vectors[idx * self.width..][..self.width]
    }

    /// Returns all queries with zeros up to a multiple of the kernels' lanes.
    fn padded(&self) -> &[f32] {
        self.padded.get_or_init(|| {
            let stride = self.width.next_multiple_of(LANES);
            let mut padded = vec![0.0; self.len() * stride];
            for (idx, query) in padded.chunks_exact_mut(stride).enumerate() {
                query[..self.width].copy_from_slice(self.query(idx));
            }
            padded
        })
    }

    fn codes(&self) -> &QueryCodes {
        self.codes
            .get_or_init(|| QueryCodes::new(self.vectors, self.width))
    }

    fn bits(&self) -> &[QueryBits] {
        self.bits.get_or_init(|| {
            let rotation = Rotation::new(self.width);
            let queries = self.vectors.par_chunks_exact(self.width).with_min_len(16);
            queries
                .map(|query| QueryBits::new(query, &rotation))
                .collect()
        })
    }
}

/// The first pass over a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    /// Over the vectors of all rows; nothing comes after it.
    Exact,
    /// Over the 8-bit codes of the nearest lists, or of all.
    Codes {
        n_probe: Option<usize>,
        depth: usize,
    },
    /// The same over 1-bit codes, of the rows that are allowed.
    Bits {
        n_probe: Option<usize>,
        depth: usize,
    },
}

/// Rows that are looked at together, and by which queries.
struct Piece<'a> {
    rows: Range<usize>,
    queries: &'a [u32],
}

impl First {
    /// Chooses what a plan means for one segment.
    pub(super) fn choose(segment: &Segment, plan: Plan, is_restricted: bool) -> Result<Self> {
        if plan == Plan::EXACT {
            return Ok(Self::Exact);
        }
        let n_lists = segment.starts()?.len() - 1;
        let n_probe = plan.n_probe.filter(|&n_probe| n_probe < n_lists);
        let n_looked_at = segment.n_rows() * n_probe.unwrap_or(n_lists) / n_lists;
        // Looking for thousands among a few thousand saves nothing; filters leave few rows to look
        // at, wherever they lie.
        let is_worth_it = plan.depth_bits * BITS_SAVE_FROM <= n_looked_at;
        Ok(if is_worth_it || (is_restricted && n_probe.is_none()) {
            Self::Bits {
                n_probe,
                depth: plan.depth_bits,
            }
        } else {
            Self::Codes {
                n_probe,
                depth: plan.depth_codes,
            }
        })
    }

    fn depth(self, k: usize) -> usize {
        match self {
            Self::Exact => k,
            Self::Codes { depth, .. } | Self::Bits { depth, .. } => depth,
        }
    }

    /// Runs the pass.
    pub(super) fn run(
        self,
        segment: &Segment,
        chunk: &Chunk<'_>,
        rules: &Allowed<'_>,
        k: usize,
    ) -> Result<Passed> {
        let starts = segment.starts()?;
        let all: Vec<u32> = (0..u32::try_from(chunk.len()).unwrap_or(u32::MAX)).collect();
        let mut nearness = self.nearness(segment, chunk)?;
        let lists = self.lists(segment, chunk, rules, &nearness)?;
        self.into_centres(segment, chunk, &mut nearness)?;
        let pieces = match &lists {
            None => self.pieces(segment.n_rows(), &all),
            Some(looking) => pieces_of_lists(starts, &looking.lists),
        };
        let work = Work {
            first: self,
            segment,
            chunk,
            rules,
            ranks: segment.ranks()?,
            starts,
            centres: nearness,
        };
        let new = || vec![Best::new(self.depth(k)); chunk.len()];
        let products = pieces
            .iter()
            .map(|piece| piece.rows.len() * piece.queries.len());
        let products = products.sum::<usize>().saturating_mul(chunk.width);
        let run = |pieces: &[Piece<'_>]| {
            let (mut best, mut scratch) = (new(), Scratch::default());
            for piece in pieces {
                work.look_at(piece, &mut best, &mut scratch)?;
            }
            Ok(best)
        };
        let n_threads = rayon::current_num_threads();
        let best = if products < MIN_PARALLEL || n_threads == 1 {
            run(&pieces)?
        } else {
            let parts = pieces.par_chunks(pieces.len().div_ceil(4 * n_threads).max(1));
            parts
                .map(run)
                .try_reduce(new, |all, more| Ok(merge(all, more)))?
        };
        let thinned = lists.map(|looking| looking.thinned).unwrap_or_default();
        Ok(Passed { best, thinned })
    }

    /// Divides all rows, for all queries.
    fn pieces<'q>(self, n_rows: usize, queries: &'q [u32]) -> Vec<Piece<'q>> {
        let n_together = match self {
            // Few of them may pass.
            Self::Bits { .. } => SPARSE_PIECE_ROWS,
            Self::Exact | Self::Codes { .. } => PIECE_ROWS,
        };
        let starts = (0..n_rows).step_by(n_together);
        let pieces = starts.map(|start| Piece {
            rows: start..n_rows.min(start + n_together),
            queries,
        });
        pieces.collect()
    }

    fn n_probe(self) -> Option<usize> {
        match self {
            Self::Exact => None,
            Self::Codes { n_probe, .. } | Self::Bits { n_probe, .. } => n_probe,
        }
    }

    /// Returns how near each query is to the direction of each list, [queries, lists], where that
    /// is of use.
    fn nearness(self, segment: &Segment, chunk: &Chunk<'_>) -> Result<Vec<f32>> {
        if self.n_probe().is_none() && !matches!(self, Self::Bits { .. }) {
            return Ok(Vec::new());
        }
        let directions = segment.directions()?;
        let (mut nearness, mut scores) = (Vec::new(), Vec::new());
        for queries in chunk
            .codes()
            .codes
            .chunks(GROUP_QUERIES * code_stride(chunk.width))
        {
            directions.scores(queries, &mut scores);
            nearness.extend_from_slice(&scores);
        }
        Ok(nearness)
    }

    /// Returns which queries look at which list; `None`: all at all.
    fn lists(
        self,
        segment: &Segment,
        chunk: &Chunk<'_>,
        rules: &Allowed<'_>,
        nearness: &[f32],
    ) -> Result<Option<Looking>> {
        let starts = segment.starts()?;
        let n_lists = starts.len() - 1;
        let Some(n_probe) = self.n_probe() else {
            return Ok(None);
        };
        let (mut lists, mut thinned) = (vec![Vec::new(); n_lists], Vec::new());
        let mut order = Vec::new();
        let queries = 0..u32::try_from(chunk.len()).unwrap_or(u32::MAX);
        for (query, scores) in queries.zip(nearness.chunks_exact(n_lists)) {
            order.clear();
            order.extend(0..u32::try_from(n_lists).unwrap_or(u32::MAX));
            order.select_nth_unstable_by(n_probe - 1, |&a, &b| {
                let (left, right) = (scores[a as usize], scores[b as usize]);
                right.total_cmp(&left).then(a.cmp(&b))
            });
            let number = chunk.start + query as usize;
            let nearest = &order[..n_probe];
            if rules.thins_out(number, starts, nearest, scores) {
                // The plan was measured where few rows are hidden. If removed and left-out rows are most of those
                // near a query, its hits lie in other lists, and the caller searches exactly.
                thinned.push(query);
                continue;
            }
            for &list in nearest {
                lists[list as usize].push(query);
            }
        }
        Ok(Some(Looking { lists, thinned }))
    }

    /// Turns nearness into the products of queries and centroids.
    fn into_centres(
        self,
        segment: &Segment,
        chunk: &Chunk<'_>,
        nearness: &mut [f32],
    ) -> Result<()> {
        if !matches!(self, Self::Bits { .. }) {
            return Ok(());
        }
        let directions = segment.directions()?;
        let queries = nearness.chunks_exact_mut(directions.len());
        for (scores, scale) in queries.zip(&chunk.codes().scales) {
            for (list, score) in scores.iter_mut().enumerate() {
                *score *= scale * directions.length(list);
            }
        }
        Ok(())
    }
}

/// Divides the rows of every list that a query looks at.
fn pieces_of_lists<'q>(starts: &[u32], lists: &'q [Vec<u32>]) -> Vec<Piece<'q>> {
    let mut pieces = Vec::new();
    for (ends, queries) in starts.windows(2).zip(lists) {
        let end = ends[1] as usize;
        for start in (ends[0] as usize..end).step_by(PIECE_ROWS) {
            if !queries.is_empty() {
                pieces.push(Piece {
                    rows: start..end.min(start + PIECE_ROWS),
                    queries,
                });
            }
        }
    }
    pieces
}

/// Which queries look at which list.
struct Looking {
    lists: Vec<Vec<u32>>,
    /// Queries around which the plan was not measured, because most near rows are no hits: they
    /// look at no list.
    thinned: Vec<u32>,
}

/// What a pass found.
pub(super) struct Passed {
    /// The best candidates of each query.
    pub(super) best: Vec<Best>,
    /// Queries that must be answered exactly.
    pub(super) thinned: Vec<u32>,
}

/// What all threads of a pass share.
struct Work<'a> {
    first: First,
    segment: &'a Segment,
    chunk: &'a Chunk<'a>,
    rules: &'a Allowed<'a>,
    ranks: &'a [u32],
    /// Where the lists begin.
    starts: &'a [u32],
    /// [queries, lists]
    centres: Vec<f32>,
}

/// Memory that is used again.
#[derive(Default)]
struct Scratch {
    scores: Vec<f32>,
    products: Vec<i32>,
    common: Vec<u32>,
    queries: Vec<u8>,
    vectors: Vec<f32>,
    rows: Vec<u32>,
}

impl Work<'_> {
    fn look_at(&self, piece: &Piece<'_>, best: &mut [Best], scratch: &mut Scratch) -> Result<()> {
        match self.first {
            First::Exact => self.exact(piece, best, scratch),
            First::Codes { .. } => self.codes(piece, best, scratch),
            First::Bits { .. } => self.bits(piece, best, scratch),
        }
    }

    /// Hands over every row of a piece whose score may be among the best.
    #[inline]
    fn offer(&self, query: u32, first_row: usize, scores: &[f32], best: &mut [Best]) {
        let best = &mut best[query as usize];
        for (group_idx, group) in scores.chunks(16).enumerate() {
            // Most rows are far below; looking at 16 together is one comparison of vectors.
            let threshold = best.threshold;
            if !group
                .iter()
                .fold(false, |any, &score| any | (score >= threshold))
            {
                continue;
            }
            for (idx, &score) in group.iter().enumerate() {
                if score >= best.threshold {
                    let row = first_row + 16 * group_idx + idx;
                    self.push(query, row, score, best);
                }
            }
        }
    }

    #[inline]
    fn push(&self, query: u32, row: usize, score: f32, best: &mut Best) {
        let row_number = u32::try_from(row).unwrap_or(u32::MAX);
        if self
            .rules
            .allows(self.chunk.start + query as usize, row_number)
        {
            best.push(Candidate {
                score,
                rank: self.ranks[row],
                row: row_number,
            });
        }
    }

    fn exact(&self, piece: &Piece<'_>, best: &mut [Best], scratch: &mut Scratch) -> Result<()> {
        let n_rows = piece.rows.len();
        let vectors = match self.segment.vectors(piece.rows.clone())? {
            Vectors::F32(vectors) => vectors,
            Vectors::F16(halves) => {
                scratch.vectors.clear();
                scratch.vectors.extend(halves.iter().map(|x| x.to_f32()));
                &scratch.vectors
            }
        };
        let stride = self.chunk.width.next_multiple_of(LANES);
        // Here all queries look at all rows.
        let groups = self.chunk.padded().chunks(GROUP_QUERIES * stride);
        for (queries, numbers) in groups.zip(piece.queries.chunks(GROUP_QUERIES)) {
            scratch.scores.resize(numbers.len() * n_rows, 0.0);
            (Kernels::get().dots_f32)(queries, vectors, self.chunk.width, &mut scratch.scores);
            for (&query, scores) in numbers.iter().zip(scratch.scores.chunks_exact(n_rows)) {
                self.offer(query, piece.rows.start, scores, best);
            }
        }
        Ok(())
    }

    fn codes(&self, piece: &Piece<'_>, best: &mut [Best], scratch: &mut Scratch) -> Result<()> {
        let n_rows = piece.rows.len();
        let codes = self.segment.codes(piece.rows.clone())?;
        let terms = self.segment.terms(piece.rows.clone())?;
        let stride = code_stride(self.chunk.width);
        let all = self.chunk.codes();
        for numbers in piece.queries.chunks(GROUP_QUERIES) {
            scratch.queries.clear();
            for &query in numbers {
                let start = query as usize * stride;
                scratch
                    .queries
                    .extend_from_slice(&all.codes[start..start + stride]);
            }
            scratch.products.resize(numbers.len() * n_rows, 0);
            (Kernels::get().dots_i8)(&scratch.queries, codes, stride, &mut scratch.products);
            scratch.scores.resize(n_rows, 0.0);
            for (&query, products) in numbers.iter().zip(scratch.products.chunks_exact(n_rows)) {
                let scale = all.scales[query as usize];
                to_scores(products, scale, terms, &mut scratch.scores);
                self.offer(query, piece.rows.start, &scratch.scores, best);
            }
        }
        Ok(())
    }

    fn bits(&self, piece: &Piece<'_>, best: &mut [Best], scratch: &mut Scratch) -> Result<()> {
        self.rules.passing(&piece.rows, &mut scratch.rows);
        if scratch.rows.is_empty() {
            return Ok(());
        }
        let bits = self.segment.bits(piece.rows.clone())?;
        let terms = self.segment.terms(piece.rows.clone())?;
        scratch.common.resize(scratch.rows.len(), 0);
        let n_lists = self.centres.len() / self.chunk.len();
        let first_list = self.list_of(piece.rows.start);
        for &query in piece.queries {
            let form = &self.chunk.bits()[query as usize];
            (Kernels::get().common)(&form.planes, bits, &scratch.rows, &mut scratch.common);
            let best = &mut best[query as usize];
            let centres = &self.centres[query as usize * n_lists..][..n_lists];
            let mut list = first_list;
            let mut done = 0;
            while done < scratch.rows.len() {
                // The rows of one list share their centre.
                let end = self.starts[list + 1] as usize;
                let in_list = |&row: &u32| piece.rows.start + (row as usize) < end;
                let until = done + scratch.rows[done..].partition_point(in_list);
                let rows = &scratch.rows[done..until];
                let common = &scratch.common[done..until];
                scratch.scores.clear();
                scratch
                    .scores
                    .extend(rows.iter().zip(common).map(|(&row, &common)| {
                        form.score(common, &terms[row as usize], centres[list])
                    }));
                for (&row, &score) in rows.iter().zip(&scratch.scores) {
                    if score >= best.threshold {
                        self.push(query, piece.rows.start + row as usize, score, best);
                    }
                }
                (done, list) = (until, list + 1);
            }
        }
        Ok(())
    }

    /// Returns the list that a row lies in.
    fn list_of(&self, row: usize) -> usize {
        let n_before = self.starts.partition_point(|&start| start as usize <= row);
        n_before - 1
    }
}

fn to_scores(products: &[i32], scale: f32, terms: &[Terms], scores: &mut [f32]) {
    for ((score, &product), terms) in scores.iter_mut().zip(products).zip(terms) {
        *score = score_of_codes(product, scale, terms);
    }
}

/// Orders candidates by their 8-bit codes and keeps the best.
pub(super) fn refine(
    segment: &Segment,
    chunk: &Chunk<'_>,
    best: Vec<Best>,
    depth: usize,
) -> Result<Vec<Best>> {
    let stride = code_stride(chunk.width);
    let codes = chunk.codes();
    let queries = best.into_par_iter().enumerate().with_min_len(8);
    let refined = queries.map(|(query, best)| {
        let own = &codes.codes[query * stride..][..stride];
        let mut kept = Best::new(depth);
        let mut candidates = best.into_candidates();
        // In the order of memory.
        candidates.sort_unstable_by_key(|candidate| candidate.row);
        for candidate in candidates {
            let row = candidate.row as usize;
            let mut product = [0];
            let row_codes = segment.codes(row..row + 1)?;
            (Kernels::get().dots_i8)(own, row_codes, stride, &mut product);
            let terms = &segment.terms(row..row + 1)?[0];
            let score = score_of_codes(product[0], codes.scales[query], terms);
            if score >= kept.threshold {
                kept.push(Candidate { score, ..candidate });
            }
        }
        Ok(kept)
    });
    refined.collect()
}

/// Gives candidates their exact scores and returns the best, in order.
pub(super) fn finish(
    segment: &Segment,
    chunk: &Chunk<'_>,
    best: Vec<Best>,
    k: usize,
    is_exact: bool,
) -> Result<Vec<Vec<Candidate>>> {
    let queries = best.into_par_iter().enumerate().with_min_len(8);
    let finished = queries.map(|(query, best)| {
        let mut candidates = best.into_candidates();
        if !is_exact {
            candidates.sort_unstable_by_key(|candidate| candidate.row);
            let mut vector = Vec::new();
            for candidate in &mut candidates {
                candidate.score =
                    exact_score(segment, chunk.query(query), candidate.row, &mut vector)?;
            }
        }
        candidates.sort_unstable_by(Candidate::order);
        candidates.truncate(k);
        Ok(candidates)
    });
    finished.collect()
}

fn exact_score(segment: &Segment, query: &[f32], row: u32, vector: &mut Vec<f32>) -> Result<f32> {
    let row = row as usize;
    Ok(match segment.vectors(row..row + 1)? {
        Vectors::F32(values) => one_product(query, values),
        Vectors::F16(halves) => {
            vector.clear();
            vector.extend(halves.iter().map(|x| x.to_f32()));
            one_product(query, vector)
        }
    })
}

/// Computes one product with the kernels where the width fits them, else plainly: the same bits.
fn one_product(query: &[f32], row: &[f32]) -> f32 {
    if query.len().is_multiple_of(LANES) {
        let mut product = [0.0];
        (Kernels::get().dots_f32)(query, row, query.len(), &mut product);
        return product[0];
    }
    dot(query, row)
}
