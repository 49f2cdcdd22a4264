//! Lists of rows that lie close together: spherical k-means on 8-bit codes of a sample.
//!
//! Rows and centroids are compared by cosine, through the codes of `quantise`: a search compares queries with
//! the lists in the same way.

use rand::SeedableRng as _;
use rand::seq::index::sample;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::embedding::normalize;
use crate::error::Result;
use crate::kernels::{Kernels, dot};
use crate::quantise::{QueryCodes, code_stride, to_codes};

/// A smaller gallery is one list: scanning all of it takes less time than choosing lists.
const MIN_ROWS: usize = 8192;
/// Rows of the sample for each list.
const SAMPLE_PER_LIST: usize = 16;
/// Rounds of k-means; further rounds change recall by less than its noise.
const N_ROUNDS: usize = 4;
/// Rows that one task reads and assigns.
const CHUNK_ROWS: usize = 1024;
/// Seed of all random choices.
const SEED: u64 = 0x6d33_7265_7400_0002;

/// The rows of a segment divided into lists, with the centroid of each list.
#[derive(Debug)]
pub(crate) struct Partition {
    /// The mean of each list's rows, [lists, width].
    pub(crate) centroids: Vec<f32>,
    /// Where each list begins in `order`, and the end: lists + 1 numbers.
    pub(crate) starts: Vec<u32>,
    /// The list of each row, by the number that the row has before it is put in `order`.
    list_of: Vec<u32>,
}

/// Returns how many lists `n_rows` rows get.
fn n_lists(n_rows: usize) -> usize {
    if n_rows < MIN_ROWS {
        return 1;
    }
    // A query compares itself with all centroids and then with the rows of a few lists. Both costs are of the
    // order of the root of `n_rows` if the number of lists is.
    2 * n_rows.isqrt()
}

impl Partition {
    /// Divides `n_rows` rows; `read` appends the vectors of the rows with some numbers.
    pub(crate) fn of(
        n_rows: usize,
        width: usize,
        read: impl Fn(&[u32], &mut Vec<f32>) -> Result<()> + Sync,
    ) -> Result<Self> {
        let n_lists = n_lists(n_rows);
        let all: Vec<u32> = (0..u32::try_from(n_rows).unwrap_or(u32::MAX)).collect();
        let directions = match n_lists {
            1 => None,
            _ => Some(train(n_rows, n_lists, width, &read)?),
        };
        // [rows of a chunk, width] -> the list of each row. The lists were trained on a sample; every row is
        // assigned here, once, and only one chunk for each thread is in memory.
        let chunks = all.par_chunks(CHUNK_ROWS).map(|rows| {
            let mut vectors = Vec::with_capacity(rows.len() * width);
            read(rows, &mut vectors)?;
            Ok(match &directions {
                Some(directions) => directions.nearest(&QueryCodes::new(&vectors, width)),
                None => vec![0; rows.len()],
            })
        });
        let chunks: Vec<Vec<u32>> = chunks.collect::<Result<_>>()?;
        let list_of = chunks.concat();
        let mut partition = Self {
            centroids: Vec::new(),
            starts: starts(&list_of, n_lists),
            list_of,
        };
        // The trained directions are of a sample, in codes of 8 bits. What is stored, and what 1-bit codes are
        // relative to, is the exact mean of the rows that were assigned: [lists, width].
        partition.centroids = partition.means(width, &read)?;
        Ok(partition)
    }

    /// Returns the rows list by list, in ascending order within a list.
    pub(crate) fn order(&self) -> Vec<u32> {
        // A counting sort: `next` is the first free place of each list.
        let mut next = self.starts.clone();
        let mut order = vec![0; self.list_of.len()];
        for (row, &list) in (0_u32..).zip(&self.list_of) {
            let place = &mut next[list as usize];
            order[*place as usize] = row;
            *place += 1;
        }
        order
    }

    /// Returns which list a row lies in.
    pub(crate) fn list_of(&self, row: u32) -> u32 {
        self.list_of[row as usize]
    }

    /// Returns the mean of each list, [lists, width]. Sums are in f64 and in the order of the rows, so they do
    /// not depend on the number of threads.
    fn means(
        &self,
        width: usize,
        read: impl Fn(&[u32], &mut Vec<f32>) -> Result<()> + Sync,
    ) -> Result<Vec<f32>> {
        let order = self.order();
        let lists: Vec<_> = self.starts.windows(2).collect();
        let means = lists.par_iter().map(|ends| {
            let rows = &order[ends[0] as usize..ends[1] as usize];
            let mut sums = vec![0.0_f64; width];
            let mut vectors = Vec::new();
            // One thread adds up a whole list; reading it in chunks bounds the memory of a large one.
            for rows in rows.chunks(CHUNK_ROWS) {
                vectors.clear();
                read(rows, &mut vectors)?;
                add_rows(&vectors, &mut sums);
            }
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_precision_loss,
                reason = "f32 is what is stored; rows are fewer than 2^32"
            )]
            let mean = sums
                .iter()
                .map(|sum| (sum / rows.len().max(1) as f64) as f32);
            Ok(mean.collect::<Vec<f32>>())
        });
        Ok(means.collect::<Result<Vec<_>>>()?.concat())
    }
}

/// Adds rows, [n, width], to `sums`, [width].
fn add_rows(vectors: &[f32], sums: &mut [f64]) {
    for vector in vectors.chunks_exact(sums.len()) {
        for (sum, &x) in sums.iter_mut().zip(vector) {
            *sum += f64::from(x);
        }
    }
}

/// Returns where each list begins, and the end: lists + 1 numbers.
fn starts(list_of: &[u32], n_lists: usize) -> Vec<u32> {
    // Counts first, each one place further on, so that their running sum is the start of the next list.
    let mut starts = vec![0; n_lists + 1];
    for &list in list_of {
        starts[list as usize + 1] += 1;
    }
    for list in 0..n_lists {
        starts[list + 1] += starts[list];
    }
    starts
}

/// Unit vectors as 8-bit codes, one for each list.
#[derive(Debug)]
pub(crate) struct Directions {
    width: usize,
    /// [lists, `code_stride`]
    codes: Vec<i8>,
    /// A number of a direction is its code times the scale of its list.
    scales: Vec<f32>,
    /// Sum of the codes of each list.
    sums: Vec<i32>,
    /// Lengths of the centroids, which the unit vectors do not have.
    lengths: Vec<f32>,
}

impl Directions {
    /// Takes centroids, [lists, width]. A centroid of length 0 has no direction and scores 0 for every query.
    pub(crate) fn new(centroids: &[f32], width: usize) -> Self {
        let stride = code_stride(width);
        let n_lists = centroids.len() / width;
        let mut made = Self {
            width,
            codes: vec![0; n_lists * stride],
            scales: vec![0.0; n_lists],
            sums: vec![0; n_lists],
            lengths: vec![0.0; n_lists],
        };
        for (list, centroid) in centroids.chunks_exact(width).enumerate() {
            let mut direction = centroid.to_vec();
            // A mean of unit vectors is shorter than 1, the shorter the more its rows differ. Lists are chosen by
            // direction; the length is kept, because the product with the centroid itself needs it.
            made.lengths[list] = dot(centroid, centroid).sqrt();
            if normalize(&mut direction).is_ok() {
                let codes = &mut made.codes[list * stride..][..stride];
                (made.scales[list], made.sums[list]) = to_codes(&direction, codes);
            }
        }
        made
    }

    /// Returns the number of lists.
    pub(crate) fn len(&self) -> usize {
        self.scales.len()
    }

    /// Computes the score of each query and each list: [queries, `code_stride`] -> [queries, lists]. Scores of
    /// different queries do not compare.
    #[expect(
        clippy::cast_precision_loss,
        reason = "lists are compared, not measured"
    )]
    pub(crate) fn scores(&self, queries: &[u8], scores: &mut Vec<f32>) {
        let stride = code_stride(self.width);
        let n_queries = queries.len() / stride;
        let mut products = vec![0; n_queries * self.len()];
        (Kernels::get().dots_i8)(queries, &self.codes, stride, &mut products);
        // Codes of queries are shifted by 128 so that none is negative, which adds 128 times the sum of a list's
        // codes to every product. The scale of the query is left out: it does not change the order of lists.
        scores.clear();
        for products in products.chunks_exact(self.len()) {
            let lists = products.iter().zip(&self.sums).zip(&self.scales);
            scores
                .extend(lists.map(|((product, sum), scale)| (product - 128 * sum) as f32 * scale));
        }
    }

    /// Returns the length of a list's centroid.
    pub(crate) fn length(&self, list: usize) -> f32 {
        self.lengths[list]
    }

    /// Returns the nearest list of each query; of equal ones, the first.
    fn nearest(&self, queries: &QueryCodes) -> Vec<u32> {
        let mut nearest = Vec::with_capacity(queries.scales.len());
        let mut scores = Vec::new();
        // Groups of 64 queries bound the memory for [queries, lists].
        for queries in queries.codes.chunks(64 * code_stride(self.width)) {
            self.scores(queries, &mut scores);
            for scores in scores.chunks_exact(self.len()) {
                let mut best = (0, f32::NEG_INFINITY);
                for (list, &score) in (0_u32..).zip(scores) {
                    if score > best.1 {
                        best = (list, score);
                    }
                }
                nearest.push(best.0);
            }
        }
        nearest
    }
}

/// Finds the directions that rows of a sample gather around.
fn train(
    n_rows: usize,
    n_lists: usize,
    width: usize,
    read: impl Fn(&[u32], &mut Vec<f32>) -> Result<()> + Sync,
) -> Result<Directions> {
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let n_sample = n_rows.min(n_lists * SAMPLE_PER_LIST);
    let chosen = sample(&mut random, n_rows, n_sample).into_iter();
    let chosen: Vec<u32> = chosen
        .map(|row| u32::try_from(row).unwrap_or(u32::MAX))
        .collect();
    let mut first = Vec::new();
    // k-means starts from random rows. The sample is in random order, so its first rows are such a choice.
    read(&chosen[..n_lists.min(n_sample)], &mut first)?;
    let mut directions = Directions::new(&first, width);
    // [sample, `code_stride`]: all rounds work on the codes, which take a quarter of the memory of the vectors.
    let mut codes = QueryCodes::default();
    for rows in chosen.chunks(CHUNK_ROWS) {
        let mut vectors = Vec::with_capacity(rows.len() * width);
        read(rows, &mut vectors)?;
        let mut more = QueryCodes::new(&vectors, width);
        codes.codes.append(&mut more.codes);
        codes.scales.append(&mut more.scales);
    }
    for _ in 0..N_ROUNDS {
        directions = improve(&directions, &codes, n_lists);
    }
    Ok(directions)
}

/// Computes one round of k-means; a list without rows gets a row of the largest list.
fn improve(directions: &Directions, sample: &QueryCodes, n_lists: usize) -> Directions {
    let (width, stride) = (directions.width, code_stride(directions.width));
    // The assignment: [sample, `code_stride`] -> the nearest list of each row.
    let chunks = sample.codes.par_chunks(CHUNK_ROWS * stride);
    let chunks = chunks.zip(sample.scales.par_chunks(CHUNK_ROWS));
    let nearest = chunks.map(|(codes, scales)| {
        directions.nearest(&QueryCodes {
            codes: codes.to_vec(),
            scales: scales.to_vec(),
        })
    });
    let list_of = nearest.collect::<Vec<_>>().concat();
    // Only the grouping of a partition is used; its centroids are what this round computes.
    let parts = Partition {
        centroids: Vec::new(),
        starts: starts(&list_of, n_lists),
        list_of,
    };
    let order = parts.order();
    let lists: Vec<&[u32]> = parts
        .starts
        .windows(2)
        .map(|ends| &order[ends[0] as usize..ends[1] as usize])
        .collect();
    let largest = lists.iter().copied().max_by_key(|rows| rows.len());
    let largest = largest.unwrap_or_default();
    // Empty lists take different rows of the largest list, in the order of the lists, so the result does not
    // depend on which thread finds which list.
    let n_empty_before = |list: usize| lists[..list].iter().filter(|rows| rows.is_empty()).count();
    let centroids = lists.par_iter().enumerate().map(|(list, rows)| {
        let mut sums = vec![0.0_f32; width];
        let stand_in;
        let rows = if rows.is_empty() {
            let place = n_empty_before(list) % largest.len().max(1);
            stand_in = largest.get(place).copied();
            stand_in.as_slice()
        } else {
            rows
        };
        // The update: the sum of the rows of a list, [width]. A mean would have the same direction, and only the
        // direction is used.
        for &row in rows {
            let codes = &sample.codes[row as usize * stride..][..width];
            let scale = sample.scales[row as usize];
            for (sum, &code) in sums.iter_mut().zip(codes) {
                *sum += scale * (f32::from(code) - 128.0);
            }
        }
        sums
    });
    Directions::new(&centroids.collect::<Vec<_>>().concat(), width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt as _;

    #[test]
    fn every_row_lies_in_one_list_and_rows_of_a_cluster_together() {
        let (n_rows, width, n_clusters) = (10_000, 24, 20);
        let mut random = ChaCha8Rng::seed_from_u64(9);
        let mut unit = || -> Vec<f32> {
            let mut vector: Vec<f32> = (0..width).map(|_| random.random::<f32>() - 0.5).collect();
            normalize(&mut vector).unwrap();
            vector
        };
        let centres: Vec<Vec<f32>> = (0..n_clusters).map(|_| unit()).collect();
        let rows: Vec<Vec<f32>> = (0..n_rows)
            .map(|row| {
                let noise = unit();
                let centre = &centres[row % n_clusters];
                let mut vector: Vec<f32> = centre
                    .iter()
                    .zip(&noise)
                    .map(|(c, x)| c + 0.05 * x)
                    .collect();
                normalize(&mut vector).unwrap();
                vector
            })
            .collect();
        let read = |wanted: &[u32], out: &mut Vec<f32>| {
            wanted
                .iter()
                .for_each(|&row| out.extend(&rows[row as usize]));
            Ok(())
        };
        let divide = |n_threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(n_threads)
                .build()
                .unwrap();
            pool.install(|| Partition::of(n_rows, width, read).unwrap())
        };
        let partition = divide(1);
        let mut order = partition.order();
        assert_eq!(partition.starts.len() - 1, n_lists(n_rows));
        let mut n_mixed = 0;
        for ends in partition.starts.windows(2) {
            let list = &order[ends[0] as usize..ends[1] as usize];
            let first = list.first().map(|&row| row as usize % n_clusters);
            n_mixed += usize::from(
                list.iter()
                    .any(|&row| Some(row as usize % n_clusters) != first),
            );
        }
        assert!(
            n_mixed <= 2,
            "{n_mixed} lists hold rows of several clusters"
        );
        let again = divide(3);
        assert_eq!(again.starts, partition.starts);
        assert_eq!(again.centroids, partition.centroids);
        assert_eq!(again.order(), order);
        order.sort_unstable();
        assert!(order.iter().enumerate().all(|(i, &row)| i == row as usize));
    }

    #[test]
    fn few_rows_are_one_list_and_none_are_an_empty_one() {
        let read = |wanted: &[u32], out: &mut Vec<f32>| {
            wanted.iter().for_each(|_| out.extend([0.6_f32, 0.8]));
            Ok(())
        };
        let partition = Partition::of(5, 2, read).unwrap();
        assert_eq!(
            (partition.starts, partition.centroids),
            (vec![0, 5], vec![0.6, 0.8])
        );
        let none = Partition::of(0, 2, read).unwrap();
        assert_eq!((none.starts, none.centroids), (vec![0, 0], vec![0.0, 0.0]));
    }
}
