//! Images that are there more than once: which pairs to look at, and how alike they are.

use m3ret_encoder::Model;
use m3ret_imaging::ReadOptions;
use m3ret_imaging::archive::read_image;
use m3ret_search::{Gallery, Method, Queries, RowId, SearchOptions};
use serde::Serialize;

use super::galleries::{columns, file_of};
use crate::panics;

/// Neighbours of each image that are looked at.
const N_NEIGHBOURS: usize = 20;
/// Neighbours of an image that has more; whoever has still more is one of a crowd, whose pairs hold
/// together by others.
const MAX_NEIGHBOURS: usize = 320;
/// Images that are looked for together.
const BATCH_ROWS: usize = 2048;
/// Above, looking at every vector takes hours.
const MAX_EXACT_ROWS: usize = 1 << 18;
/// What re-encoding at a usual quality leaves of the correlation of two thumbnails.
const REENCODED: f64 = 0.998;
/// Below this correlation two thumbnails are other pictures, whatever the encoder says.
const NEAR: f64 = 0.9;

/// How two images are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All values are equal.
    Exact,
    /// The same picture, compressed, scaled or stored anew.
    Reencoded,
    /// Nearly the same picture: cropped, annotated, or a neighbouring slice or frame.
    Near,
}

/// Two rows, and the score of their vectors.
pub type Candidate = (RowId, RowId, f32);

/// Which neighbours are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The closest ones, as the gallery searches quickly.
    Closest,
    /// All, so that the answer does not depend on how the gallery is stored.
    All,
}

/// Pairs that are worth a look.
#[derive(Debug, Default)]
pub struct Neighbours {
    /// Each once, in order; within one gallery the smaller row first.
    pub pairs: Vec<Candidate>,
    /// Rows that have more neighbours than were looked at.
    pub n_cut: usize,
}

/// Finds the pairs of a row of `from` and a row of `to` with a score from `near` on; the two may be
/// one gallery.
pub fn neighbours(
    from: &Gallery,
    to: &Gallery,
    near: f32,
    reach: Reach,
) -> anyhow::Result<Neighbours> {
    let is_one = std::ptr::eq(from, to);
    let is_exact = reach == Reach::All && to.len() <= MAX_EXACT_ROWS;
    let mut options = SearchOptions {
        k: N_NEIGHBOURS,
        method: if is_exact {
            Method::Exact
        } else {
            Method::Auto
        },
        ..SearchOptions::default()
    };
    let mut found = Neighbours::default();
    let mut left: Vec<RowId> = from.rows().collect();
    loop {
        let mut cut = Vec::new();
        for rows in left.chunks(BATCH_ROWS) {
            let vectors = vectors(from, rows)?;
            let own: Vec<Option<RowId>> = rows.iter().copied().map(Some).collect();
            let queries = Queries {
                vectors: &vectors,
                own: if is_one { &own } else { &[] },
                left_out: &[],
            };
            for (&row, hits) in rows.iter().zip(to.search(queries, &options)?) {
                let near = hits.iter().filter(|hit| hit.score >= near);
                let pairs = near.map(|hit| match is_one {
                    true => (row.min(hit.row), row.max(hit.row), hit.score),
                    false => (row, hit.row, hit.score),
                });
                let n_before = found.pairs.len();
                found.pairs.extend(pairs);
                if found.pairs.len() - n_before == options.k {
                    cut.push(row);
                }
            }
        }
        if reach == Reach::Closest || cut.is_empty() || options.k == MAX_NEIGHBOURS {
            found.n_cut = cut.len();
            break;
        }
        (left, options.k) = (cut, MAX_NEIGHBOURS);
    }
    found.pairs.sort_unstable_by_key(|&(a, b, _)| (a, b));
    found.pairs.dedup_by_key(|&mut (a, b, _)| (a, b));
    Ok(found)
}

/// Returns the unit vectors of rows, [rows, width].
fn vectors(gallery: &Gallery, rows: &[RowId]) -> anyhow::Result<Vec<f32>> {
    let mut vectors = Vec::with_capacity(rows.len() * gallery.width());
    for &row in rows {
        let mut vector = gallery.vector(row)?;
        m3ret_search::normalize(&mut vector)?;
        vectors.extend(vector);
    }
    Ok(vectors)
}

/// Says how two images are alike of which one is a neighbour of the other; `None`: not at all.
///
/// `correlation` is that of the two thumbnails, where both are known.
pub fn verdict(is_exact: bool, correlation: Option<f64>) -> Option<Verdict> {
    match correlation {
        _ if is_exact => Some(Verdict::Exact),
        Some(correlation) if correlation >= REENCODED => Some(Verdict::Reencoded),
        Some(correlation) if correlation < NEAR => None,
        _ => Some(Verdict::Near),
    }
}

/// The 32 x 32 picture of an image.
pub enum Thumbnail {
    /// Without its mean and of unit length, as the model `pixels` makes it.
    Vector(Vec<f32>),
    /// Every pixel is alike: nothing can be correlated.
    Blank,
    /// The file is gone or cannot be read any more.
    Gone,
}

/// Returns how alike two thumbnails are; blank ones are like no other, and `None` says that it is not known.
pub fn likeness(a: &Thumbnail, b: &Thumbnail) -> Option<f64> {
    match (a, b) {
        (Thumbnail::Vector(a), Thumbnail::Vector(b)) => Some(correlate(a, b)),
        (Thumbnail::Gone, _) | (_, Thumbnail::Gone) => None,
        (Thumbnail::Blank, _) | (_, Thumbnail::Blank) => Some(0.0),
    }
}

/// Makes the thumbnail of a row's image.
pub fn thumbnail(
    gallery: &Gallery,
    row: RowId,
    options: &ReadOptions,
) -> anyhow::Result<Thumbnail> {
    let model = Model::pixels();
    if gallery.maker().fingerprint == model.fingerprint() {
        return Ok(Thumbnail::Vector(vectors(gallery, &[row])?));
    }
    let part = gallery.value(row, columns::PART)?;
    let part = (!part.is_empty()).then_some(part);
    let file = file_of(gallery, row)?;
    let made = panics::guard(|| {
        let volume = read_image(&file, part, options).ok()?;
        let prepared = model.prepare(&volume).ok()?;
        // What was prepared has a vector unless it has no direction.
        let vector = model
            .embed(&[&prepared])
            .ok()
            .and_then(|mut made| made.pop());
        Some(vector.map_or(Thumbnail::Blank, Thumbnail::Vector))
    });
    Ok(made.ok().flatten().unwrap_or(Thumbnail::Gone))
}

/// The correlation of two thumbnails without their mean and of unit length.
fn correlate(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(&x, &y)| f64::from(x) * f64::from(y))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thumbnails_confirm_or_refuse_what_vectors_say() {
        for (is_exact, correlation, expected) in [
            (true, Some(0.1), Some(Verdict::Exact)),
            (false, Some(0.999), Some(Verdict::Reencoded)),
            (false, Some(0.95), Some(Verdict::Near)),
            (false, Some(0.89), None),
            (false, None, Some(Verdict::Near)),
        ] {
            assert_eq!(verdict(is_exact, correlation), expected, "{correlation:?}");
        }
    }
}
