//! Searches in which projections of volumes are compared across modalities only, and slices within one.
//!
//! A projection of a CT is like a radiograph. It is not like a slice, nor like another CT: there, whole images say more
//! (docs/search.md has the measurement). A slice of a CT is like a picture of one slice of a CT.

use std::collections::{BTreeMap, HashSet};

use crate::collection::Collection;
use crate::error::{Error, Result};
use crate::gallery::RowId;
use crate::names::{MODALITY, is_slice};
use crate::scan::{Filter, LeftOut, Queries, RowHit, SearchOptions, Views, best_of_groups};

/// What is known of the image of a query.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct AskedImage<'a> {
    /// Its modality; empty where that is not known.
    pub modality: &'a str,
    /// Whether it is a picture that may show one slice of a volume.
    pub is_flat: bool,
}

/// Searches as `Collection::search` does, but compares each query with rows of its own modality by own vectors alone, and
/// by slices where its image is flat; with rows of other modalities by all vectors but slices. Where the modality of a
/// query is not known or no row has one, both are done with all rows. `images` has what is known of each query.
///
/// # Errors
/// As `Collection::search`; `Mismatch` if there are not as many images as queries.
pub fn search_across(
    collection: &dyn Collection,
    queries: Queries<'_>,
    images: &[AskedImage<'_>],
    options: &SearchOptions,
) -> Result<Vec<Vec<RowHit>>> {
    let has_slices = collection.views().into_iter().any(is_slice);
    let has_further =
        !collection.views().is_empty() || queries.further.iter().any(|v| !v.is_empty());
    if options.views == Views::Own || !has_further {
        return collection.search(queries, options);
    }
    let n_queries = queries.vectors.len() / collection.width();
    if images.len() != n_queries {
        let wanted = format!("one for each of {n_queries} queries");
        return Err(Error::mismatch(
            "images of queries",
            wanted,
            images.len().to_string(),
        ));
    }
    let has_modalities = collection.columns().contains(&MODALITY);
    // A row scores at most what it scores if all vectors but slices are compared. So where each of the best hits of that
    // search is of a pair that counts, and no slice does, they are the best of this one, too.
    let mut found = collection.search(queries, options)?;
    let mut alike: BTreeMap<AskedImage<'_>, Vec<usize>> = BTreeMap::new();
    for (idx, (hits, image)) in found.iter().zip(images).enumerate() {
        let image = AskedImage {
            modality: if has_modalities { image.modality } else { "" },
            is_flat: image.is_flat && has_slices,
        };
        let is_known = !image.modality.is_empty();
        if image.is_flat || is_known && has_view_within(collection, image.modality, hits)? {
            alike.entry(image).or_default().push(idx);
        }
    }
    for (image, chosen) in alike {
        if !image.modality.is_empty() && !has_modality(collection, image.modality)? {
            // All rows are of other modalities, which is what was searched.
            continue;
        }
        let part = Part::of(queries, &chosen, collection.width());
        let hits = part.search(collection, image, options)?;
        for (idx, hits) in chosen.into_iter().zip(hits) {
            found[idx] = hits;
        }
    }
    Ok(found)
}

/// Returns whether one of the hits of a query is of its modality, and of a pair with a further vector.
fn has_view_within(collection: &dyn Collection, modality: &str, hits: &[RowHit]) -> Result<bool> {
    let by_view = hits
        .iter()
        .filter(|hit| hit.view.is_some() || hit.query_vector.is_some());
    let rows: Vec<RowId> = by_view.map(|hit| hit.row).collect();
    let cells = collection.rows(&rows, &[MODALITY])?;
    let within = of_modality(modality, false);
    Ok(cells
        .iter()
        .flatten()
        .any(|cell| within.names(cell.as_bytes())))
}

/// Returns whether some row is of a modality.
fn has_modality(collection: &dyn Collection, modality: &str) -> Result<bool> {
    let wanted = of_modality(modality, false);
    let values = collection.values(MODALITY)?;
    Ok(values.iter().any(|value| wanted.names(value.as_bytes())))
}

/// Returns the filter that images of a modality pass, or all others.
pub(crate) fn of_modality(modality: &str, is_negated: bool) -> Filter {
    Filter {
        column: MODALITY.to_owned(),
        values: vec![modality.to_owned()],
        is_negated,
    }
}

/// Some of several queries.
struct Part {
    vectors: Vec<f32>,
    own: Vec<Vec<RowId>>,
    left_out: Vec<LeftOut>,
    further: Vec<Vec<f32>>,
}

impl Part {
    fn of(all: Queries<'_>, chosen: &[usize], width: usize) -> Self {
        fn some<T: Clone>(all: &[T], chosen: &[usize]) -> Vec<T> {
            let some = chosen.iter().filter_map(|&idx| all.get(idx));
            some.cloned().collect()
        }
        let vectors = chosen.iter().map(|idx| idx * width);
        let vectors = vectors.filter_map(|start| all.vectors.get(start..start + width));
        let left_out = all.left_out.iter().map(|column| LeftOut {
            column: column.column.clone(),
            values: some(&column.values, chosen),
        });
        Self {
            vectors: vectors.flatten().copied().collect(),
            own: some(all.own, chosen),
            left_out: left_out.collect(),
            further: some(all.further, chosen),
        }
    }

    fn queries(&self) -> Queries<'_> {
        Queries {
            vectors: &self.vectors,
            own: &self.own,
            left_out: &self.left_out,
            further: &self.further,
        }
    }

    /// Searches for images of which the same is known.
    fn search(
        &self,
        collection: &dyn Collection,
        image: AskedImage<'_>,
        options: &SearchOptions,
    ) -> Result<Vec<Vec<RowHit>>> {
        let searched = |is_negated, views| {
            let mut options = SearchOptions {
                views,
                ..options.clone()
            };
            if !image.modality.is_empty() {
                let filter = of_modality(image.modality, is_negated);
                options.filters.push(filter);
            }
            collection.search(self.queries(), &options)
        };
        let views = if image.is_flat {
            Views::Slices
        } else {
            Views::Own
        };
        let within = searched(false, views)?;
        let across = searched(true, options.views)?;
        let pairs = within.into_iter().zip(across);
        pairs
            .map(|pair| merged(collection, pair, options))
            .collect()
    }
}

/// Merges the hits of two searches; of a row that both found, the better hit stays.
fn merged(
    collection: &dyn Collection,
    (mut hits, more): (Vec<RowHit>, Vec<RowHit>),
    options: &SearchOptions,
) -> Result<Vec<RowHit>> {
    if more.is_empty() {
        return Ok(hits);
    }
    hits.extend(more);
    let rows: Vec<RowId> = hits.iter().map(|hit| hit.row).collect();
    let mut named: Vec<_> = hits.into_iter().zip(collection.ids(&rows)?).collect();
    named.sort_by(|(a, a_id), (b, b_id)| {
        let by_score = b.score.total_cmp(&a.score);
        by_score.then_with(|| a_id.cmp(b_id))
    });
    let mut seen = HashSet::new();
    let hits = named.into_iter().map(|(hit, _)| hit);
    let mut hits: Vec<RowHit> = hits.filter(|hit| seen.insert(hit.row)).collect();
    if let Some(column) = &options.group_by {
        return best_of_groups(collection, hits, column, options.k);
    }
    hits.truncate(options.k);
    Ok(hits)
}
