//! Searches in which projections of volumes are compared across modalities only.
//!
//! A projection of a CT is like a radiograph. It is not like a slice, nor like another CT: there, whole images say more
//! (docs/search.md has the measurement).

use std::collections::BTreeMap;

use crate::collection::Collection;
use crate::error::{Error, Result};
use crate::gallery::RowId;
use crate::names::MODALITY;
use crate::scan::{Filter, LeftOut, Queries, RowHit, SearchOptions, Views, best_of_groups};

/// Searches as `Collection::search` does, but with rows of a query's own modality it compares own vectors alone. Of each
/// query, `modalities` has the modality; where that is empty or no row has it, all vectors are compared.
///
/// # Errors
/// As `Collection::search`; `Mismatch` if there are not as many modalities as queries.
pub fn search_across(
    collection: &dyn Collection,
    queries: Queries<'_>,
    modalities: &[&str],
    options: &SearchOptions,
) -> Result<Vec<Vec<RowHit>>> {
    let has_further =
        !collection.views().is_empty() || queries.further.iter().any(|v| !v.is_empty());
    let is_plain = options.views == Views::Own || !has_further;
    if is_plain || !collection.columns().contains(&MODALITY) {
        return collection.search(queries, options);
    }
    let n_queries = queries.vectors.len() / collection.width();
    if modalities.len() != n_queries {
        let wanted = format!("one for each of {n_queries} queries");
        return Err(Error::mismatch(
            "modalities",
            wanted,
            modalities.len().to_string(),
        ));
    }
    // A row scores at most what it scores if all vectors are compared. So where each of the best hits of that search is of
    // a pair that counts, they are the best of this one, too.
    let mut found = collection.search(queries, options)?;
    let mut by_modality: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (idx, (hits, &modality)) in found.iter().zip(modalities).enumerate() {
        if !modality.is_empty() && has_view_within(collection, modality, hits)? {
            by_modality.entry(modality).or_default().push(idx);
        }
    }
    for (modality, chosen) in by_modality {
        let part = Part::of(queries, &chosen, collection.width());
        let hits = part.search(collection, modality, options)?;
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

    /// Searches for images of one modality: for those of the same modality by own vectors, for the others by all.
    fn search(
        &self,
        collection: &dyn Collection,
        modality: &str,
        options: &SearchOptions,
    ) -> Result<Vec<Vec<RowHit>>> {
        let searched = |is_negated, views| {
            let mut options = SearchOptions {
                views,
                ..options.clone()
            };
            options.filters.push(of_modality(modality, is_negated));
            collection.search(self.queries(), &options)
        };
        let within = searched(false, Views::Own)?;
        let across = searched(true, options.views)?;
        let pairs = within.into_iter().zip(across);
        pairs
            .map(|pair| merged(collection, pair, options))
            .collect()
    }
}

/// Merges the hits of two searches that share no row.
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
    let mut hits: Vec<RowHit> = named.into_iter().map(|(hit, _)| hit).collect();
    if let Some(column) = &options.group_by {
        return best_of_groups(collection, hits, column, options.k);
    }
    hits.truncate(options.k);
    Ok(hits)
}
