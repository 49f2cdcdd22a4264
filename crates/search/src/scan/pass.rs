//! The passes of a search over one segment, for some queries together.
//!
//! The first pass scores many rows by vectors or codes and keeps some candidates of each query. After 1-bit
//! codes, `refine` orders them by their 8-bit codes; after any codes, `finish.rs` computes the exact scores.
//!
//! What is scored are vectors, by their places in the segment. Where each row has one vector, they are the rows; else
//! `finish.rs` makes rows of them.

use std::ops::Range;
use std::sync::OnceLock;

use rayon::prelude::*;

use super::best::{Best, Candidate};
use super::merge;
use super::plan::Plan;
use super::rules::Allowed;
use super::views::{Handicap, QueryVector};
use crate::error::Result;
use crate::gallery::segment::views::OWN_VIEW;
use crate::gallery::segment::{Segment, Vectors};
use crate::kernels::{BLOCK_ROWS, Kernels, LANES};
use crate::partition::Directions;
use crate::quantise::{QueryBits, QueryCodes, Rotation, Terms, code_stride, score_of_codes};

/// Rows that are looked at together: their codes stay in cache while all queries are compared with them.
const PIECE_ROWS: usize = 256;
/// Rows that are looked at together by their 1-bit codes, which are smaller, and of which filters may leave few.
const SPARSE_PIECE_ROWS: usize = 4096;
/// Rows that are looked at together by their short codes, where a query looks at all of them.
const SHORT_PIECE_ROWS: usize = 1024;
/// Queries that are multiplied together.
const GROUP_QUERIES: usize = 64;
/// A pass over 1-bit codes pays if it leaves at most one row in this many.
const BITS_SAVE_FROM: usize = 8;
/// Multiplications below which threads cost more than they save.
const MIN_PARALLEL: usize = 1 << 24;

/// Some query vectors, in every form that a pass may need; each form is computed when a pass first asks for it.
///
/// Forms are computed by several threads, so a pass asks for its form before it divides its work: a thread that
/// waits for its part of a form may run any other work of the pool, and must not come back here and wait for itself.
pub(super) struct Chunk<'a> {
    /// [queries, width]
    vectors: &'a [f32],
    width: usize,
    /// What each vector is of.
    of: &'a [QueryVector],
    /// What pairs lose in which a vector is a further one.
    handicap: f32,
    /// [queries, width rounded up to `LANES`]
    padded: OnceLock<Vec<f32>>,
    codes: OnceLock<QueryCodes>,
    /// One for each query.
    bits: OnceLock<Vec<QueryBits>>,
}

impl<'a> Chunk<'a> {
    pub(super) fn new(
        vectors: &'a [f32],
        width: usize,
        of: &'a [QueryVector],
        handicap: f32,
    ) -> Self {
        Self {
            vectors,
            width,
            of,
            handicap,
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
        let of = &self.of[idx..=idx];
        Chunk::new(self.query(idx), self.width, of, self.handicap)
    }

    /// Returns which of its query's further vectors one is; `None`: the query's own.
    pub(super) fn query_vector(&self, idx: usize) -> Option<u32> {
        self.of[idx].further
    }

    /// Returns the number of a vector's query among all.
    #[inline]
    fn number(&self, idx: u32) -> usize {
        self.of[idx as usize].query as usize
    }

    /// Returns what pairs with a vector lose.
    #[inline]
    pub(super) fn handicap(&self, idx: usize) -> Handicap {
        Handicap::new(self.of[idx], self.handicap)
    }

    pub(super) fn query(&self, idx: usize) -> &[f32] {
        &self.vectors[idx * self.width..][..self.width]
    }

    /// Returns all queries with zeros up to a multiple of the kernels' lanes.
    fn padded(&self) -> &[f32] {
        made_once::<Vec<f32>>(&self.padded, || {
            let stride = self.width.next_multiple_of(LANES);
            let mut padded = vec![0.0; self.len() * stride];
            for (idx, query) in padded.chunks_exact_mut(stride).enumerate() {
                query[..self.width].copy_from_slice(self.query(idx));
            }
            padded
        })
    }

    fn codes(&self) -> &QueryCodes {
        made_once(&self.codes, || QueryCodes::new(self.vectors, self.width))
    }

    fn bits(&self) -> &[QueryBits] {
        made_once::<Vec<QueryBits>>(&self.bits, || {
            let rotation = Rotation::new(self.width);
            let queries = self.vectors.par_chunks_exact(self.width).with_min_len(16);
            queries
                .map(|query| QueryBits::new(query, &rotation))
                .collect()
        })
    }
}

/// Returns what a cell holds, made first if it holds nothing. The cell is not locked meanwhile.
fn made_once<T>(cell: &OnceLock<T>, make: impl FnOnce() -> T) -> &T {
    if let Some(made) = cell.get() {
        return made;
    }
    let made = make();
    cell.get_or_init(|| made)
}

/// The first pass over a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    /// Over the vectors of all rows; its scores are exact.
    Exact,
    /// Over the 8-bit codes of the nearest lists, or of all.
    Codes {
        n_probe: Option<usize>,
        depth: usize,
    },
    /// Over the short codes of the nearest lists, or of all.
    Short {
        n_probe: Option<usize>,
        depth: usize,
    },
    /// Over the 1-bit codes of those rows of the nearest lists, or of all, that pass the filters.
    Bits {
        n_probe: Option<usize>,
        depth: usize,
    },
}

/// Rows that are looked at together, and the queries that look at them.
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
        if let Some(depth) = plan.depth_short
            && segment.short()?.is_some()
        {
            return Ok(Self::Short { n_probe, depth });
        }
        let n_looked_at = segment.n_vectors() * n_probe.unwrap_or(n_lists) / n_lists;
        // A pass that keeps most of the rows it looks at saves nothing over 8-bit codes. With filters and without
        // lists it is chosen anyway: it skips rows that do not pass one by one, where the pass over 8-bit codes
        // computes the products of whole pieces.
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

    /// Returns how many candidates of each query the pass keeps.
    fn depth(self, k: usize) -> usize {
        match self {
            Self::Exact => k,
            Self::Codes { depth, .. } | Self::Bits { depth, .. } | Self::Short { depth, .. } => {
                depth
            }
        }
    }

    /// Runs the pass; `k` is the number of hits.
    pub(super) fn run(
        self,
        segment: &Segment,
        chunk: &Chunk<'_>,
        rules: &Allowed<'_>,
        k: usize,
    ) -> Result<Passed> {
        let starts = segment.starts()?;
        let all: Vec<u32> = (0..u32::try_from(chunk.len()).unwrap_or(u32::MAX)).collect();
        // [queries, lists]: first how near each list is, which decides what is looked at, then in place the
        // products with the centroids, which scores of 1-bit codes begin with.
        let short = self.short_queries(segment, chunk)?;
        let mut nearness = self.nearness(segment, chunk, short.as_ref())?;
        let lists = self.lists(segment, chunk, rules, &nearness)?;
        self.into_centres(segment, chunk, &mut nearness)?;
        let pieces = match &lists {
            None => self.pieces(segment.n_vectors(), &all),
            Some(looking) => pieces_of_lists(starts, &looking.lists),
        };
        let work = Work {
            queries: match self {
                Self::Exact => Form::Vectors(chunk.padded()),
                Self::Codes { .. } => Form::Codes(chunk.codes()),
                Self::Bits { .. } => Form::Bits(chunk.bits()),
                Self::Short { .. } => Form::Short(short.as_ref().unwrap_or(&NO_QUERIES)),
            },
            segment,
            chunk,
            rules,
            ranks: segment.ranks()?,
            views: segment.belonging()?.map(|belonging| belonging.views),
            starts,
            centres: nearness,
        };
        // One `Best` for each query and part of the pieces. Which candidates are the best does not depend on the
        // order in which they come, so results do not depend on the threads.
        let new = || vec![Best::new(self.depth(k), segment.has_views()); chunk.len()];
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
            // Four parts for each thread, because pieces differ in how much work they are.
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
            // Rows that do not pass are skipped, so a piece may be much smaller than it looks.
            Self::Bits { .. } => SPARSE_PIECE_ROWS,
            Self::Exact | Self::Codes { .. } => PIECE_ROWS,
            Self::Short { .. } => SHORT_PIECE_ROWS,
        };
        let starts = (0..n_rows).step_by(n_together);
        let pieces = starts.map(|start| Piece {
            rows: start..n_rows.min(start + n_together),
            queries,
        });
        pieces.collect()
    }

    /// Returns how many lists each query looks at; `None`: all.
    fn n_probe(self) -> Option<usize> {
        match self {
            Self::Exact => None,
            Self::Codes { n_probe, .. }
            | Self::Bits { n_probe, .. }
            | Self::Short { n_probe, .. } => n_probe,
        }
    }

    /// Returns how near each query is to the direction of each list, [queries, lists]; empty where the pass
    /// needs neither lists nor centroids.
    fn nearness(
        self,
        segment: &Segment,
        chunk: &Chunk<'_>,
        short: Option<&QueryCodes>,
    ) -> Result<Vec<f32>> {
        if self.n_probe().is_none() && !matches!(self, Self::Bits { .. }) {
            return Ok(Vec::new());
        }
        let (directions, queries): (&Directions, _) = match (short, segment.short()?) {
            (Some(queries), Some(short)) => (&short.directions, queries),
            _ => (segment.directions()?, chunk.codes()),
        };
        // [group of queries, `code_stride`] -> [group, lists], appended group by group.
        let (mut nearness, mut scores) = (Vec::new(), Vec::new());
        let stride = queries.codes.len() / chunk.len().max(1);
        for queries in queries.codes.chunks(GROUP_QUERIES * stride) {
            directions.scores(queries, &mut scores);
            nearness.extend_from_slice(&scores);
        }
        Ok(nearness)
    }

    /// Returns the short codes of the queries, where the pass compares them.
    fn short_queries(self, segment: &Segment, chunk: &Chunk<'_>) -> Result<Option<QueryCodes>> {
        let (Self::Short { .. }, Some(short)) = (self, segment.short()?) else {
            return Ok(None);
        };
        // [queries, width] -> [queries, short]
        let projected = short.basis.project(chunk.vectors);
        Ok(Some(QueryCodes::new(&projected, short.basis.n_short())))
    }

    /// Returns which queries look at which list; `None` if all queries look at all rows.
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
            // Only the set of the nearest lists matters, not their order: a selection is enough. Of equally near
            // lists the first counts as nearer, so the set does not depend on the selection.
            order.clear();
            order.extend(0..u32::try_from(n_lists).unwrap_or(u32::MAX));
            order.select_nth_unstable_by(n_probe - 1, |&a, &b| {
                let (left, right) = (scores[a as usize], scores[b as usize]);
                right.total_cmp(&left).then(a.cmp(&b))
            });
            let number = chunk.number(query);
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

    /// Turns nearness, [queries, lists], into the products of queries and centroids in place.
    fn into_centres(
        self,
        segment: &Segment,
        chunk: &Chunk<'_>,
        nearness: &mut [f32],
    ) -> Result<()> {
        if !matches!(self, Self::Bits { .. }) {
            return Ok(());
        }
        // A score of `directions` lacks two factors: the scale of the query's codes, which does not matter for
        // the order of lists, and the length of the centroid, whose direction it is of.
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

/// Divides the rows of every list that some query looks at; each piece lies in one list.
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
    /// For each list, the queries that look at it.
    lists: Vec<Vec<u32>>,
    /// Queries that the plan was not measured for, because most of the rows near them are no hits. They look at
    /// no list.
    thinned: Vec<u32>,
}

/// What a pass found.
pub(super) struct Passed {
    /// The best candidates of each query.
    pub(super) best: Vec<Best>,
    /// Queries that must be answered exactly.
    pub(super) thinned: Vec<u32>,
}

/// All queries in the form that a pass compares.
#[derive(Clone, Copy)]
enum Form<'a> {
    /// [queries, width rounded up to `LANES`]
    Vectors(&'a [f32]),
    Codes(&'a QueryCodes),
    /// One for each query.
    Bits(&'a [QueryBits]),
    /// In the directions of the segment's short codes.
    Short(&'a QueryCodes),
}

/// Stands for the codes of queries that a pass does not compare.
static NO_QUERIES: QueryCodes = QueryCodes {
    codes: Vec::new(),
    scales: Vec::new(),
};

/// What all threads of a pass share.
struct Work<'a> {
    queries: Form<'a>,
    segment: &'a Segment,
    chunk: &'a Chunk<'a>,
    rules: &'a Allowed<'a>,
    /// Places of the rows in the order of ids.
    ranks: &'a [u32],
    /// The view of each vector; `None` where each row has one vector.
    views: Option<&'a [u32]>,
    /// Where the lists begin, and the end of the last.
    starts: &'a [u32],
    /// Products of queries and centroids, [queries, lists], for 1-bit codes only.
    centres: Vec<f32>,
}

/// Memory of one thread that every piece uses again.
#[derive(Default)]
struct Scratch {
    /// [queries, rows of the piece], or the rows alone where one query comes at a time.
    scores: Vec<f32>,
    /// Products of 8-bit codes, [queries, rows of the piece].
    products: Vec<i32>,
    /// Bits that a query has in common with each passing row.
    common: Vec<u32>,
    /// Codes of the queries that look at a piece, side by side.
    queries: Vec<u8>,
    /// Their scales.
    scales: Vec<f32>,
    /// The vectors of a piece, if they are stored in 16 bits.
    vectors: Vec<f32>,
    /// Rows that pass the filters, counted from the first of the piece.
    rows: Vec<u32>,
}

impl Work<'_> {
    /// Scores the rows of a piece for its queries and keeps the best.
    fn look_at(&self, piece: &Piece<'_>, best: &mut [Best], scratch: &mut Scratch) -> Result<()> {
        match self.queries {
            Form::Vectors(padded) => self.exact(padded, piece, best, scratch),
            Form::Codes(codes) => self.codes(codes, piece, best, scratch),
            Form::Bits(bits) => self.bits(bits, piece, best, scratch),
            Form::Short(codes) => self.short(codes, piece, best, scratch),
        }
    }

    /// Says whether the scores of a query are the products themselves: no vector is a further one.
    #[inline]
    fn is_plain(&self, query: u32) -> bool {
        self.views.is_none() && self.chunk.of[query as usize].further.is_none()
    }

    /// Takes the handicap off the scores of some vectors for a query.
    fn take_handicap(&self, query: u32, places: impl Iterator<Item = usize>, scores: &mut [f32]) {
        let handicap = self.chunk.handicap(query as usize);
        match self.views {
            None => scores
                .iter_mut()
                .for_each(|score| *score -= handicap.of_own),
            Some(views) => {
                for (score, place) in scores.iter_mut().zip(places) {
                    *score -= handicap.of(views[place]);
                }
            }
        }
    }

    /// Offers every vector whose score may be among the best; `scores` has one for each vector from `first` on.
    #[inline]
    fn offer(&self, query: u32, first: usize, scores: &mut [f32], best: &mut [Best]) {
        if !self.is_plain(query) {
            self.take_handicap(query, first.., scores);
        }
        let best = &mut best[query as usize];
        for (group_idx, group) in scores.chunks(16).enumerate() {
            // Most scores are far below the threshold. Comparing 16 of them together takes one comparison of
            // vectors, and most groups end there.
            let threshold = best.threshold;
            if !group
                .iter()
                .fold(false, |any, &score| any | (score >= threshold))
            {
                continue;
            }
            for (idx, &score) in group.iter().enumerate() {
                if score >= best.threshold {
                    let vector = first + 16 * group_idx + idx;
                    self.push(query, vector, score, best);
                }
            }
        }
    }

    /// Keeps a vector as a candidate, if the rules allow its row for the query.
    #[inline]
    fn push(&self, query: u32, vector: usize, score: f32, best: &mut Best) {
        // The rules are asked last: few vectors reach the threshold, and a rule reads memory for each.
        let vector = u32::try_from(vector).unwrap_or(u32::MAX);
        let row = self.rules.row_of(vector);
        if self.rules.allows(self.chunk.number(query), vector, row) {
            best.push(Candidate {
                score,
                rank: self.ranks[row as usize],
                vector,
            });
        }
    }

    /// Scores by the vectors themselves.
    fn exact(
        &self,
        padded: &[f32],
        piece: &Piece<'_>,
        best: &mut [Best],
        scratch: &mut Scratch,
    ) -> Result<()> {
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
        // All queries look at all rows here, so `padded` lies in the order of the numbers. A group's scores are
        // [queries of the group, rows of the piece].
        let groups = padded.chunks(GROUP_QUERIES * stride);
        for (queries, numbers) in groups.zip(piece.queries.chunks(GROUP_QUERIES)) {
            scratch.scores.resize(numbers.len() * n_rows, 0.0);
            (Kernels::get().dots_f32)(queries, vectors, self.chunk.width, &mut scratch.scores);
            let scores = scratch.scores.chunks_exact_mut(n_rows);
            for (&query, scores) in numbers.iter().zip(scores) {
                self.offer(query, piece.rows.start, scores, best);
            }
        }
        Ok(())
    }

    /// Scores by 8-bit codes.
    fn codes(
        &self,
        all: &QueryCodes,
        piece: &Piece<'_>,
        best: &mut [Best],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let n_rows = piece.rows.len();
        let codes = self.segment.codes(piece.rows.clone())?;
        let terms = self.segment.terms(piece.rows.clone())?;
        let stride = code_stride(self.chunk.width);
        for numbers in piece.queries.chunks(GROUP_QUERIES) {
            // The queries of a list are scattered over the chunk; the kernel wants them side by side.
            scratch.queries.clear();
            for &query in numbers {
                let start = query as usize * stride;
                scratch
                    .queries
                    .extend_from_slice(&all.codes[start..start + stride]);
            }
            scratch.products.resize(numbers.len() * n_rows, 0);
            // [queries, code_stride] x [rows, code_stride] -> integers [queries, rows]; the scales of query and row
            // then turn one query's products into scores, [rows].
            (Kernels::get().dots_i8)(&scratch.queries, codes, stride, &mut scratch.products);
            scratch.scores.resize(n_rows, 0.0);
            for (&query, products) in numbers.iter().zip(scratch.products.chunks_exact(n_rows)) {
                let scale = all.scales[query as usize];
                to_scores(products, scale, terms, &mut scratch.scores);
                self.offer(query, piece.rows.start, &mut scratch.scores, best);
            }
        }
        Ok(())
    }

    /// Scores by short codes.
    fn short(
        &self,
        all: &QueryCodes,
        piece: &Piece<'_>,
        best: &mut [Best],
        scratch: &mut Scratch,
    ) -> Result<()> {
        // Lists begin and end within blocks; the rows around them are scored, and not offered.
        let start = piece.rows.start / BLOCK_ROWS * BLOCK_ROWS;
        let rows = start..piece.rows.end.next_multiple_of(BLOCK_ROWS);
        let n_rows = rows.len();
        let blocks = self.segment.short_blocks(rows)?;
        let stride = all.codes.len() / all.scales.len().max(1);
        for numbers in piece.queries.chunks(GROUP_QUERIES) {
            scratch.queries.clear();
            scratch.scales.clear();
            for &query in numbers {
                let query = query as usize;
                let codes = &all.codes[query * stride..][..stride];
                scratch.queries.extend_from_slice(codes);
                scratch.scales.push(all.scales[query]);
            }
            // [queries, short] x [rows, short] -> [queries, rows]
            scratch.scores.resize(numbers.len() * n_rows, 0.0);
            let scores = &mut scratch.scores[..];
            (Kernels::get().short_scores)(&scratch.queries, &scratch.scales, blocks, scores);
            for (&query, scores) in numbers.iter().zip(scores.chunks_exact_mut(n_rows)) {
                let scores = &mut scores[piece.rows.start - start..][..piece.rows.len()];
                self.offer(query, piece.rows.start, scores, best);
            }
        }
        Ok(())
    }

    /// Scores the rows that pass the filters by 1-bit codes.
    fn bits(
        &self,
        forms: &[QueryBits],
        piece: &Piece<'_>,
        best: &mut [Best],
        scratch: &mut Scratch,
    ) -> Result<()> {
        self.rules.passing(&piece.rows, &mut scratch.rows);
        if scratch.rows.is_empty() {
            return Ok(());
        }
        let bits = self.segment.bits(piece.rows.clone())?;
        let terms = self.segment.terms(piece.rows.clone())?;
        scratch.common.resize(scratch.rows.len(), 0);
        // [rows that pass], for one query at a time.
        let n_lists = self.centres.len() / self.chunk.len();
        let first_list = self.list_of(piece.rows.start);
        for &query in piece.queries {
            let form = &forms[query as usize];
            (Kernels::get().common)(&form.planes, bits, &scratch.rows, &mut scratch.common);
            let best = &mut best[query as usize];
            let centres = &self.centres[query as usize * n_lists..][..n_lists];
            let mut list = first_list;
            let mut done = 0;
            while done < scratch.rows.len() {
                // A 1-bit code is of the difference between a row and the centroid of its list, so each score begins
                // with the query's product with that centroid, which the rows of a list share.
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
                if !self.is_plain(query) {
                    let places = rows.iter().map(|&row| piece.rows.start + row as usize);
                    self.take_handicap(query, places, &mut scratch.scores);
                }
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

/// Turns products of 8-bit codes into scores; all are [rows].
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
    let views = segment.belonging()?.map(|belonging| belonging.views);
    let queries = best.into_par_iter().enumerate().with_min_len(8);
    let refined = queries.map(|(query, best)| {
        let own = &codes.codes[query * stride..][..stride];
        let mut kept = Best::new(depth, views.is_some());
        let handicap = chunk.handicap(query);
        let mut candidates = best.into_candidates();
        // The codes lie in a mapped file, so they are read in the order of memory.
        candidates.sort_unstable_by_key(|candidate| candidate.vector);
        for candidate in candidates {
            let place = candidate.vector as usize;
            let mut product = [0];
            let row_codes = segment.codes(place..place + 1)?;
            (Kernels::get().dots_i8)(own, row_codes, stride, &mut product);
            let terms = &segment.terms(place..place + 1)?[0];
            let view = views.map_or(OWN_VIEW, |views| views[place]);
            let score = score_of_codes(product[0], codes.scales[query], terms) - handicap.of(view);
            if score >= kept.threshold {
                kept.push(Candidate { score, ..candidate });
            }
        }
        Ok(kept)
    });
    refined.collect()
}
