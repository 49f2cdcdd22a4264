//! Which pairs of images may be duplicates, and how alike two images are.

use m3ret_encoder::Model;
use m3ret_imaging::ReadOptions;
use m3ret_imaging::archive::read_image;
use m3ret_search::{Collection, Method, Queries, RowId, SearchOptions};
use serde::Serialize;

use super::galleries::RowCells;
use crate::panics;

/// Number of neighbours that are examined for each image.
const N_NEIGHBOURS: usize = 20;
/// Number of neighbours examined for an image whose first `N_NEIGHBOURS` are all near. An image with still more
/// near neighbours belongs to a crowd whose other pairs join it.
const MAX_NEIGHBOURS: usize = 320;
/// Number of images that are searched together.
const BATCH_ROWS: usize = 2048;
/// Largest gallery that is searched exactly; above, that takes hours.
const MAX_EXACT_ROWS: usize = 1 << 18;
/// Smallest correlation of two thumbnails of which one is the other, encoded again at a usual quality.
const REENCODED: f64 = 0.998;
/// Smallest correlation of two thumbnails of near duplicates, for any score of the encoder.
const NEAR: f64 = 0.9;

/// How two images are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyVerdict {
    /// All values are equal.
    Exact,
    /// The same picture, compressed, scaled or stored again.
    Reencoded,
    /// Nearly the same picture: cropped, annotated, or a neighbouring slice or frame.
    Near,
}

/// Two rows, and the score of their vectors.
pub(crate) type Candidate = (RowId, RowId, f32);

/// Which neighbours are searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The closest ones, as the gallery searches quickly.
    Closest,
    /// All, so that the answer does not depend on how the gallery is stored.
    All,
}

/// Pairs of rows that may be duplicates.
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    /// Each pair once, sorted; within one gallery, the smaller row comes first.
    pub pairs: Vec<Candidate>,
    /// Number of rows that have more near neighbours than were examined.
    pub n_cut: usize,
}

/// Returns the pairs of a row of `from` and a row of `to` with a score of at least `near`; the two may be one
/// gallery.
pub(crate) fn neighbours(
    from: &dyn Collection,
    to: &dyn Collection,
    near: f32,
    reach: Reach,
) -> anyhow::Result<Neighbours> {
    let is_one = std::ptr::addr_eq(from, to);
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
    let mut left: Vec<RowId> = from.scan().collect();
    loop {
        let mut cut = Vec::new();
        for rows in left.chunks(BATCH_ROWS) {
            let vectors = vectors(from, rows)?;
            let own: Vec<Vec<RowId>> = rows.iter().copied().map(|row| vec![row]).collect();
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
pub(crate) fn vectors(gallery: &dyn Collection, rows: &[RowId]) -> anyhow::Result<Vec<f32>> {
    let mut vectors = gallery.vectors(rows)?;
    for vector in vectors.chunks_exact_mut(gallery.width()) {
        m3ret_search::normalize(vector)?;
    }
    Ok(vectors)
}

/// Judges how two neighbouring images are alike; `None` if they are not.
///
/// `correlation` is that of the two thumbnails; `None` if one of them is unknown.
pub(crate) fn verdict(is_exact: bool, correlation: Option<f64>) -> Option<CopyVerdict> {
    match correlation {
        _ if is_exact => Some(CopyVerdict::Exact),
        Some(correlation) if correlation >= REENCODED => Some(CopyVerdict::Reencoded),
        Some(correlation) if correlation < NEAR => None,
        _ => Some(CopyVerdict::Near),
    }
}

/// The 32 x 32 picture of an image.
pub(crate) enum Thumbnail {
    /// Zero mean and unit length, as the model `pixels` makes it.
    Vector(Vec<f32>),
    /// All pixels are equal, so that no correlation is defined.
    Blank,
    /// The file is gone or can no longer be read.
    Gone,
}

/// Returns the correlation of two thumbnails: 0 if one is blank, `None` if one is unknown.
pub(crate) fn likeness(a: &Thumbnail, b: &Thumbnail) -> Option<f64> {
    match (a, b) {
        (Thumbnail::Vector(a), Thumbnail::Vector(b)) => Some(correlate(a, b)),
        (Thumbnail::Gone, _) | (_, Thumbnail::Gone) => None,
        (Thumbnail::Blank, _) | (_, Thumbnail::Blank) => Some(0.0),
    }
}

/// Makes the thumbnail of a row's image.
pub(crate) fn thumbnail(
    gallery: &dyn Collection,
    row: RowId,
    options: &ReadOptions,
) -> anyhow::Result<Thumbnail> {
    let model = Model::pixels();
    if gallery.maker().fingerprint == model.fingerprint() {
        return Ok(Thumbnail::Vector(vectors(gallery, &[row])?));
    }
    let cells = RowCells::of_row(gallery, row)?;
    let made = panics::guard(|| {
        let volume = read_image(&cells.file(), cells.part(), options).ok()?;
        let prepared = model.prepare(&volume).ok()?;
        // A prepared image has a vector unless the vector has no direction.
        let vector = model
            .embed(&[&prepared])
            .ok()
            .and_then(|mut made| made.pop());
        Some(vector.map_or(Thumbnail::Blank, Thumbnail::Vector))
    });
    Ok(made.ok().flatten().unwrap_or(Thumbnail::Gone))
}

/// Returns the correlation of two thumbnails of zero mean and unit length.
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
            (true, Some(0.1), Some(CopyVerdict::Exact)),
            (false, Some(0.999), Some(CopyVerdict::Reencoded)),
            (false, Some(0.95), Some(CopyVerdict::Near)),
            (false, Some(0.89), None),
            (false, None, Some(CopyVerdict::Near)),
        ] {
            assert_eq!(verdict(is_exact, correlation), expected, "{correlation:?}");
        }
    }
}
