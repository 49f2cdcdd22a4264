//! Draws an archive as a map on which similar images lie close together.

use std::io::Write as _;
use std::path::PathBuf;

use crate::choices::{columns_of, no_column};
use crate::error::ensure;
use anyhow::Context as _;
use bhtsne::{Neighbor, tSNE};
use m3ret_manifest::columns::{BODY_PART, FINDING, LABEL, MODALITY};
use m3ret_manifest::text_of;
use m3ret_search::{Collection, Queries, RowId, SearchOptions};
use serde_json::json;

use super::duplicates::vectors as unit_vectors;
use super::galleries::{self, Archive, OpenOptions, RowCells};
use crate::files::{check_page, write_whole};
use crate::model_name;
use crate::options::{FolderLabels, ModelChoice, Reading};
use crate::report::shell::Page;
use crate::watch::Watch;
use crate::words::counted;

/// Neighbours of each image that shape the map: t-SNE's usual perplexity, times three.
const PERPLEXITY: usize = 30;
/// Number of images that are searched together.
const BATCH_ROWS: usize = 2048;
/// Number of steps of t-SNE, its usual value.
const N_STEPS: usize = 750;
/// Most images of a map; above, t-SNE takes hours and a page with all points is of no use.
const MAX_POINTS: usize = 50_000;

/// What is drawn, and where it is written.
#[derive(Debug, Clone)]
pub struct MapOptions {
    /// A folder, a manifest or a gallery.
    pub archive: PathBuf,
    /// The page that is written.
    pub html: PathBuf,
    /// Whether a file that m3ret did not write may be replaced.
    pub is_forced: bool,
    /// The folder that files are shown relative to; `None` to show whole paths.
    pub shown_from: Option<PathBuf>,
    /// The column that colours the points.
    pub colour: String,
    /// Folder of the galleries of folders and manifests; `None` for the cache of the user.
    pub cache: Option<PathBuf>,
    /// The model that embeds a folder or manifest.
    pub model: ModelChoice,
    /// How images are read.
    pub reading: Reading,
    /// Where labels of the images of a folder come from.
    pub labels: FolderLabels,
}

/// Counts of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapSummary {
    /// Number of images on the map.
    pub n_points: usize,
    /// Number of images that were refused while the archive was opened; they are not on the map.
    pub n_refused: usize,
}

/// Computes the map of an archive and writes it as a page.
///
/// # Errors
/// If the page would replace what is read, or a file that m3ret did not write; if the archive cannot be opened, has fewer than
/// 5 images or more than 50,000, or lacks the column; if the page cannot be written.
pub fn map(options: &MapOptions, watch: &dyn Watch) -> crate::Result<MapSummary> {
    let mut inputs = vec![options.archive.as_path()];
    let model = model_name::folder_of(&options.model);
    inputs.extend(model.as_deref());
    check_page(&options.html, options.is_forced, &inputs)?;
    let opening = OpenOptions {
        cache: options.cache.clone(),
        model: options.model.clone(),
        reading: Reading {
            // The cache of a folder stores what is shown.
            keep: vec![options.colour.clone()],
            ..options.reading.clone()
        },
        labels: options.labels,
        ..OpenOptions::default()
    };
    let opened = Archive::open(&options.archive, &opening, watch)?;
    let gallery = opened.gallery.as_ref();
    let n_points = gallery.len();
    ensure!(
        n_points >= 5,
        "found {}; a map needs 5 or more",
        counted(n_points as u64, "image", "images")
    );
    ensure!(
        n_points <= MAX_POINTS,
        "found {n_points} images; a map holds at most {MAX_POINTS}: make a gallery of a part"
    );
    if !gallery.columns().contains(&options.colour.as_str()) {
        let option = format!("--color {}", options.colour);
        return Err(no_column(&option, "the gallery", columns_of(gallery)).into());
    }
    watch.step("drawing the map");
    let rows = in_order(gallery)?;
    let places = places(gallery, &rows)?;
    write(options, gallery, &rows, &places)?;
    Ok(MapSummary {
        n_points,
        n_refused: opened.updated.refused.len(),
    })
}

/// Returns all rows sorted by id, so that a map does not depend on how a gallery is stored.
fn in_order(gallery: &dyn Collection) -> anyhow::Result<Vec<RowId>> {
    let rows: Vec<RowId> = gallery.scan().collect();
    let ids = gallery.ids(&rows)?;
    let mut rows: Vec<_> = ids.into_iter().zip(rows).collect();
    rows.sort_unstable();
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// Returns the position of each row on the map, [rows, 2].
fn places(gallery: &dyn Collection, rows: &[RowId]) -> anyhow::Result<Vec<f32>> {
    let idx_of: std::collections::HashMap<RowId, usize> = rows
        .iter()
        .enumerate()
        .map(|(idx, &row)| (row, idx))
        .collect();
    let options = SearchOptions {
        k: n_neighbours(rows.len()),
        ..SearchOptions::default()
    };
    let mut neighbours: Vec<Vec<Neighbor<f32>>> = Vec::with_capacity(rows.len());
    let mut start = Vec::with_capacity(2 * rows.len());
    for rows in rows.chunks(BATCH_ROWS) {
        let vectors = unit_vectors(gallery, rows)?;
        let places = vectors.chunks_exact(gallery.width()).map(first_place);
        start.extend(places.flatten());
        let own: Vec<Vec<RowId>> = rows.iter().map(|&row| vec![row]).collect();
        let queries = Queries {
            vectors: &vectors,
            own: &own,
            ..Queries::default()
        };
        for hits in gallery.search(queries, &options)? {
            let near = hits
                .iter()
                .filter_map(|hit| Some(neighbour(*idx_of.get(&hit.row)?, hit.score)));
            neighbours.push(near.collect());
        }
    }
    Ok(layout(&neighbours, start))
}

/// Returns how many neighbours of each of `n` images shape a map.
pub(super) fn n_neighbours(n: usize) -> usize {
    3 * perplexity_of(n)
}

fn perplexity_of(n: usize) -> usize {
    PERPLEXITY.min(n.saturating_sub(1) / 3).max(1)
}

/// Returns a neighbour from its position in the list and its cosine.
pub(super) fn neighbour(index: usize, score: f32) -> Neighbor<f32> {
    Neighbor {
        index,
        // Euclidean distance of two unit vectors.
        distance: (2.0 - 2.0 * score).max(0.0).sqrt(),
    }
}

/// Places images so that neighbours lie close together; `start` and the result are [images, 2].
pub(super) fn layout(neighbours: &[Vec<Neighbor<f32>>], start: Vec<f32>) -> Vec<f32> {
    let data: Vec<f32> = vec![0.0; neighbours.len()];
    let mut map = tSNE::<f32, f32, 2>::new(&data);
    #[expect(clippy::cast_precision_loss, reason = "at most 30")]
    map.perplexity(perplexity_of(neighbours.len()) as f32)
        .epochs(N_STEPS)
        .initial_embedding(start);
    map.barnes_hut_with_neighbors(0.5, neighbours);
    map.embedding()
}

/// Returns where an image starts in t-SNE: small projections on two fixed directions, so that a map is the same
/// each time.
pub(super) fn first_place(vector: &[f32]) -> [f32; 2] {
    [0_u64, 1].map(|axis| {
        let terms = (0_u64..).zip(vector).map(|(i, x)| {
            // The top bit of a hash of the position decides the sign.
            let mixed = (2 * i + axis + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            if mixed >> 63 == 1 { -x } else { *x }
        });
        1e-2 * terms.sum::<f32>()
    })
}

fn write(
    options: &MapOptions,
    gallery: &dyn Collection,
    rows: &[RowId],
    places: &[f32],
) -> anyhow::Result<()> {
    let mut points = Vec::with_capacity(rows.len());
    let colours = gallery.rows(rows, &[&options.colour])?;
    let cells = RowCells::of_rows(gallery, rows)?;
    for ((cells, colour), place) in cells.iter().zip(&colours).zip(places.chunks_exact(2)) {
        let file = cells.file();
        let shown = options.shown_from.as_ref();
        let shown = shown.and_then(|folder| file.strip_prefix(folder).ok());
        let name = galleries::with_part(&text_of(shown.unwrap_or(&file)), cells.part());
        let labels = [MODALITY, BODY_PART, FINDING, LABEL].map(|column| cells.get(column));
        let labels: Vec<&str> = labels
            .into_iter()
            .filter(|label| !label.is_empty())
            .collect();
        let colour = colour.first();
        points.push(json!([place[0], place[1], colour, name, labels.join(" ")]));
    }
    let map = json!({
        "archive": text_of(&options.archive),
        "model": gallery.maker().model,
        "color": options.colour,
        "points": points,
    });
    let page = Page {
        title: "m3ret map",
        style: include_str!("report/web/map.css"),
        body: include_str!("report/web/map.html"),
        script: include_str!("report/web/map.js"),
        data: Some(&map),
    };
    let page = page.html();
    write_whole(&options.html, |out| Ok(out.write_all(page.as_bytes())?)).context("writing the map")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_begins_in_two_directions() {
        let place = |i: usize| {
            let mut vector = [0.0; 64];
            vector[i] = 1.0;
            first_place(&vector).map(|x| x > 0.0)
        };
        let n_same = (0..64).filter(|&i| place(i)[0] == place(i)[1]).count();
        assert!((16..48).contains(&n_same), "{n_same} of 64 signs are equal");
    }
}
