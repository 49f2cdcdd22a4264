//! Which pairs of images may be duplicates, and how alike two images are.

mod pairs;

use std::collections::HashMap;

use m3ret_encoder::Model;
use m3ret_imaging::ReadOptions;
use m3ret_imaging::archive::read_image;
use m3ret_search::{Collection, Method, Queries, RowId, SearchOptions, Views};
use serde::Serialize;
use xxhash_rust::xxh3::Xxh3;

use super::galleries::RowCells;
use crate::panics;

/// Number of neighbours that are examined for each image.
const N_NEIGHBOURS: usize = 20;
/// Number of neighbours examined for an image whose first `N_NEIGHBOURS` are all near. An image with still more
/// near neighbours belongs to a crowd whose other pairs join it.
const MAX_NEIGHBOURS: usize = 320;
/// Number of images that are searched together.
const BATCH_ROWS: usize = 2048;
/// Largest gallery of which all pairs are found exactly; above, that takes too long.
const MAX_EXACT_ROWS: usize = 1 << 18;
/// Largest gallery of which every two images are compared, if so many are close to each other that nothing is saved.
const MAX_COMPARED_ROWS: usize = 1 << 14;
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
    let mut found = Neighbours::default();
    // Rows with one vector have one answer, so that it is looked for once.
    let groups = groups(from)?;
    if is_one {
        groups
            .iter()
            .for_each(|group| found.add_equal(group, reach));
    }
    if reach == Reach::All && from.len().max(to.len()) <= MAX_EXACT_ROWS {
        let rows = RowVectors::new(from, to, &groups)?;
        if let Some(pairs) = pairs::close_pairs(&rows, near)? {
            found.add_pairs(&rows, pairs);
            return Ok(found.sorted());
        }
    }
    let is_exact = reach == Reach::All && to.len() <= MAX_COMPARED_ROWS;
    let mut options = SearchOptions {
        k: N_NEIGHBOURS,
        method: if is_exact {
            Method::Exact
        } else {
            Method::Auto
        },
        // Copies are alike as a whole.
        views: Views::Own,
        ..SearchOptions::default()
    };
    let mut left: Vec<&Vec<RowId>> = groups.iter().collect();
    loop {
        let mut cut = Vec::new();
        for groups in left.chunks(BATCH_ROWS) {
            let first: Vec<RowId> = groups.iter().map(|group| group[0]).collect();
            let vectors = vectors(from, &first)?;
            let own: Vec<Vec<RowId>> = groups.iter().copied().cloned().collect();
            let queries = Queries {
                vectors: &vectors,
                own: if is_one { &own } else { &[] },
                ..Queries::default()
            };
            for (&group, hits) in groups.iter().zip(to.search(queries, &options)?) {
                let near = hits.iter().filter(|hit| hit.score >= near);
                let near: Vec<(RowId, f32)> = near.map(|hit| (hit.row, hit.score)).collect();
                if near.len() == options.k {
                    cut.push(group);
                }
                found.add_near(&group[..n_paired(group, reach)], &near, is_one);
            }
        }
        if reach == Reach::Closest || cut.is_empty() || options.k == MAX_NEIGHBOURS {
            found.n_cut += cut.iter().map(|group| group.len()).sum::<usize>();
            break;
        }
        (left, options.k) = (cut, MAX_NEIGHBOURS);
    }
    Ok(found.sorted())
}

/// The vectors of one gallery, those that are equal once, or of two galleries one after the other.
struct RowVectors<'a> {
    from: &'a dyn Collection,
    /// `None` within one gallery.
    to: Option<&'a dyn Collection>,
    groups: &'a [Vec<RowId>],
    others: Vec<RowId>,
}

impl<'a> RowVectors<'a> {
    fn new(
        from: &'a dyn Collection,
        to: &'a dyn Collection,
        groups: &'a [Vec<RowId>],
    ) -> anyhow::Result<Self> {
        let to = Some(to).filter(|to| !std::ptr::addr_eq(from, *to));
        Ok(Self {
            from,
            to,
            groups,
            others: to.map_or_else(|| Ok(Vec::new()), Collection::scan)?,
        })
    }
}

impl pairs::Vectors for RowVectors<'_> {
    fn len(&self) -> usize {
        self.groups.len() + self.others.len()
    }

    fn width(&self) -> usize {
        self.from.width()
    }

    fn read(&self, items: &[usize]) -> anyhow::Result<Vec<f32>> {
        // Items are in order: those of the first gallery come first.
        let n_first = items.partition_point(|&item| item < self.groups.len());
        let (first, others) = items.split_at(n_first);
        let first: Vec<RowId> = first.iter().map(|&item| self.groups[item][0]).collect();
        let mut read = vectors(self.from, &first)?;
        if let Some(to) = self.to {
            let others = others
                .iter()
                .map(|&item| self.others[item - self.groups.len()]);
            read.extend(vectors(to, &others.collect::<Vec<_>>())?);
        }
        Ok(read)
    }

    fn wants(&self, one: usize, other: usize) -> bool {
        let is_first = |item: usize| item < self.groups.len();
        self.to.is_none() || is_first(one) != is_first(other)
    }
}

impl Neighbours {
    /// Sorts the pairs and keeps each once.
    fn sorted(mut self) -> Self {
        self.pairs.sort_unstable_by_key(|&(a, b, _)| (a, b));
        self.pairs.dedup_by_key(|&mut (a, b, _)| (a, b));
        self
    }

    /// Adds close pairs of vectors as pairs of the rows that have them.
    fn add_pairs(&mut self, rows: &RowVectors<'_>, pairs: Vec<(usize, usize, f32)>) {
        let n_groups = rows.groups.len();
        for (one, other, score) in pairs {
            if other >= n_groups {
                let near = [(rows.others[other - n_groups], score)];
                self.add_near(&rows.groups[one], &near, false);
                continue;
            }
            let [one, other] = [one, other].map(|group| {
                let group = rows.groups[group].as_slice();
                &group[..n_paired(group, Reach::All)]
            });
            let near: Vec<(RowId, f32)> = other.iter().map(|&row| (row, score)).collect();
            self.add_near(one, &near, true);
        }
    }

    /// Adds the pairs of rows that have one vector: all of them, or of many the pairs with the first, which join them.
    fn add_equal(&mut self, group: &[RowId], reach: Reach) {
        let n_first = n_paired(group, reach);
        if n_first < group.len() && reach == Reach::All {
            self.n_cut += group.len();
        }
        for (idx, &one) in group[..n_first].iter().enumerate() {
            let others = group[idx + 1..].iter();
            self.pairs.extend(others.map(|&other| (one, other, 1.0)));
        }
    }

    /// Adds the pairs of some rows with the rows near to all of them.
    fn add_near(&mut self, group: &[RowId], near: &[(RowId, f32)], is_one: bool) {
        for &row in group {
            let pairs = near.iter().map(|&(other, score)| match is_one {
                true => (row.min(other), row.max(other), score),
                false => (row, other, score),
            });
            self.pairs.extend(pairs);
        }
    }
}

/// Returns how many rows of one vector are paired with others: all, or of many the first, to which the others are joined.
fn n_paired(group: &[RowId], reach: Reach) -> usize {
    let most = match reach {
        Reach::Closest => N_NEIGHBOURS,
        Reach::All => MAX_NEIGHBOURS,
    };
    if group.len() > most { 1 } else { group.len() }
}

/// Returns the rows of a gallery, those with equal vectors together, in the order of their first rows.
fn groups(gallery: &dyn Collection) -> anyhow::Result<Vec<Vec<RowId>>> {
    let rows = gallery.scan()?;
    let mut places: HashMap<u128, usize> = HashMap::with_capacity(rows.len());
    let mut groups: Vec<Vec<RowId>> = Vec::new();
    for rows in rows.chunks(BATCH_ROWS) {
        let vectors = gallery.vectors(rows)?;
        for (&row, vector) in rows.iter().zip(vectors.chunks_exact(gallery.width())) {
            let mut hasher = Xxh3::new();
            for number in vector {
                hasher.update(&number.to_le_bytes());
            }
            let place = *places.entry(hasher.digest128()).or_insert(groups.len());
            match groups.get_mut(place) {
                Some(group) => group.push(row),
                None => groups.push(vec![row]),
            }
        }
    }
    for group in &mut groups {
        group.sort_unstable();
    }
    Ok(groups)
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
    use m3ret_search::{Batch, Gallery, Maker, Numbers, Setup, Writer};

    /// A gallery of vectors of 8 numbers, in a folder that lives as long as it.
    fn gallery(vectors: &[[f32; 8]]) -> (tempfile::TempDir, Gallery) {
        let folder = tempfile::tempdir().unwrap();
        let maker = Maker {
            model: "m".to_owned(),
            precision: "f32".to_owned(),
            fingerprint: "f".to_owned(),
        };
        let setup = Setup {
            maker,
            width: 8,
            numbers: Numbers::F32,
        };
        let mut writer = Writer::create(&folder.path().join("g"), setup).unwrap();
        let ids: Vec<String> = (0..vectors.len()).map(|idx| format!("{idx:06}")).collect();
        let batch = Batch {
            vectors: &vectors.concat(),
            ids: &ids,
            ..Batch::default()
        };
        writer.replace(batch, &[]).unwrap();
        let gallery = Gallery::open(&folder.path().join("g")).unwrap();
        (folder, gallery)
    }

    /// Unit vectors that follow from their numbers; some are near to another, and some equal it.
    fn some_vectors(n_vectors: usize) -> Vec<[f32; 8]> {
        let vector = |seed: usize, shift: f32| {
            let mut vector = [0.0; 8];
            for (place, number) in vector.iter_mut().enumerate() {
                let seeds = [seed.to_le_bytes(), place.to_le_bytes()].concat();
                let hash = xxhash_rust::xxh3::xxh3_64(&seeds);
                *number = (hash % 1000) as f32 / 500.0 - 1.0 + shift * place as f32;
            }
            m3ret_search::normalize(&mut vector).unwrap();
            vector
        };
        let of = |idx: usize| match idx % 5 {
            1 => vector(idx / 5, 0.01),
            2 => vector(idx / 5, 0.0),
            3 => vector(7, 0.0),
            _ => vector(idx / 5, idx as f32 % 2.0 * 0.3),
        };
        (0..n_vectors).map(of).collect()
    }

    #[test]
    fn the_pairs_are_those_of_comparing_every_two() {
        let near = 0.97;
        let vectors = some_vectors(400);
        let (_folder, gallery) = gallery(&vectors);
        let found = neighbours(&gallery, &gallery, near, Reach::All).unwrap();
        let found: Vec<(String, String)> = found
            .pairs
            .iter()
            .map(|&(a, b, _)| {
                (
                    gallery.id(a).unwrap().to_owned(),
                    gallery.id(b).unwrap().to_owned(),
                )
            })
            .collect();
        let mut wanted = Vec::new();
        for (a, one) in vectors.iter().enumerate() {
            for (b, other) in vectors.iter().enumerate().skip(a + 1) {
                if correlate(one, other) >= f64::from(near) {
                    wanted.push((format!("{a:06}"), format!("{b:06}")));
                }
            }
        }
        assert!(wanted.len() > 3000, "{}", wanted.len());
        let mut found: Vec<_> = found
            .into_iter()
            .map(|(a, b)| if a < b { (a, b) } else { (b, a) })
            .collect();
        found.sort();
        let differs = found
            .iter()
            .zip(&wanted)
            .find(|(found, wanted)| found != wanted);
        assert_eq!((differs, found.len()), (None, wanted.len()));
    }

    #[test]
    fn the_pairs_between_galleries_are_those_of_comparing_every_two() {
        let vectors = some_vectors(300);
        let (one, other) = vectors.split_at(100);
        let (_folder, one_gallery) = gallery(one);
        let (_other_folder, other_gallery) = gallery(other);
        for near in [0.9, 0.999] {
            let found = neighbours(&one_gallery, &other_gallery, near, Reach::All).unwrap();
            let id = |gallery: &Gallery, row| gallery.id(row).unwrap().parse::<usize>().unwrap();
            let mut found: Vec<(usize, usize)> = found
                .pairs
                .iter()
                .map(|&(a, b, _)| (id(&one_gallery, a), id(&other_gallery, b)))
                .collect();
            found.sort_unstable();
            let mut wanted = Vec::new();
            for (a, one) in one.iter().enumerate() {
                let is_near = |other: &[f32; 8]| correlate(one, other) >= f64::from(near);
                let others = other.iter().enumerate().filter(|(_, other)| is_near(other));
                wanted.extend(others.map(|(b, _)| (a, b)));
            }
            assert!(wanted.len() > 100, "{}", wanted.len());
            assert!(
                found == wanted,
                "{near}: {} of {}",
                found.len(),
                wanted.len()
            );
        }
    }

    #[test]
    fn many_equal_images_are_joined_by_as_many_pairs() {
        let (_folder, gallery) = gallery(&vec![some_vectors(1)[0]; 2000]);
        for reach in [Reach::Closest, Reach::All] {
            let found = neighbours(&gallery, &gallery, 0.9, reach).unwrap();
            assert_eq!(found.pairs.len(), 1999, "{reach:?}");
        }
    }

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
