//! Draws an archive as a map on which similar images lie close together.

mod page;
mod tiles;

use std::path::PathBuf;

use crate::choices::{columns_of, no_column};
use crate::error::ensure;
use bhtsne::{Neighbor, tSNE};
use m3ret_search::{Collection, Queries, RowId, SearchOptions, Views};

use super::duplicates::vectors as unit_vectors;
use super::galleries::{Archive, OpenOptions};
use crate::files::check_page;
use crate::model_name;
use crate::options::{FolderChoice, ModelChoice, Reading};
use crate::watch::Watch;
use crate::words::counted;

/// Neighbours of each image that shape the map: t-SNE's usual perplexity, times three.
const PERPLEXITY: usize = 30;
/// Number of images that are searched together.
const BATCH_ROWS: usize = 2048;
/// Number of steps of t-SNE, its usual value.
const N_STEPS: usize = 750;
/// Most images of a map, since t-SNE of more takes hours; of more, evenly spaced ones are shown.
const MAX_POINTS: usize = 50_000;
/// Nearest images that the page shows beside one.
const N_NEAR: usize = 8;
/// Largest factor by which more neighbours are searched where only some images are shown.
const MAX_MORE: usize = 4;

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
    /// Which files of a folder are read, and what labels their images.
    pub folder: FolderChoice,
}

/// Counts of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapSummary {
    /// Number of images on the map.
    pub n_points: usize,
    /// Number of images of the archive; more than `n_points` where only some of them are shown.
    pub n_all: usize,
    /// Number of images that were refused while the archive was opened; they are not on the map.
    pub n_refused: usize,
}

/// Computes the map of an archive and writes it as a page.
///
/// # Errors
/// If the page would replace what is read, or a file that m3ret did not write; if the archive cannot be opened, has fewer than
/// 5 images, or lacks the column; if the page cannot be written.
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
        folder: options.folder.clone(),
        ..OpenOptions::default()
    };
    let opened = Archive::open(&options.archive, &opening, watch)?;
    let gallery = opened.gallery.as_ref();
    let n_all = gallery.len();
    ensure!(
        n_all >= 5,
        "found {}; a map needs 5 or more",
        counted(n_all as u64, "image", "images")
    );
    if !gallery.columns().contains(&options.colour.as_str()) {
        let option = format!("--color {}", options.colour);
        return Err(no_column(&option, "the gallery", columns_of(gallery)).into());
    }
    watch.step("drawing the map");
    let rows = some_of(&in_order(gallery)?, MAX_POINTS);
    let drawing = Drawing::of(gallery, &rows)?;
    watch.step("drawing small pictures");
    page::write(options, &opened, &rows, &drawing)?;
    Ok(MapSummary {
        n_points: rows.len(),
        n_all,
        n_refused: opened.updated.refused.len(),
    })
}

/// Returns at most `n` of all, evenly spaced.
fn some_of<T: Copy>(all: &[T], n: usize) -> Vec<T> {
    let n = all.len().min(n);
    let at = |i: usize| all.get(i * all.len() / n);
    (0..n).filter_map(at).copied().collect()
}

/// Returns all rows sorted by id, so that a map does not depend on how a gallery is stored.
fn in_order(gallery: &dyn Collection) -> anyhow::Result<Vec<RowId>> {
    let rows = gallery.scan()?;
    let ids = gallery.ids(&rows)?;
    let mut rows: Vec<_> = ids.into_iter().zip(rows).collect();
    rows.sort_unstable();
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// Where the images lie on the map, and which are nearest to each in the full space.
struct Drawing {
    /// [images, 2]
    places: Vec<f32>,
    /// For each image the positions of its nearest ones, the nearest first.
    near: Vec<Vec<usize>>,
}

impl Drawing {
    fn of(gallery: &dyn Collection, rows: &[RowId]) -> anyhow::Result<Self> {
        let positions = rows.iter().enumerate();
        let idx_of: std::collections::HashMap<RowId, usize> =
            positions.map(|(idx, &row)| (row, idx)).collect();
        // Hits that are not shown do not count, so that more are asked for.
        let n_more = gallery.len().div_ceil(rows.len().max(1)).min(MAX_MORE);
        let n_shaping = n_neighbours(rows.len());
        let options = SearchOptions {
            k: n_shaping.max(N_NEAR.min(rows.len() - 1)) * n_more,
            // Places are those of whole images.
            views: Views::Own,
            ..SearchOptions::default()
        };
        let mut neighbours: Vec<Vec<Neighbor<f32>>> = Vec::with_capacity(rows.len());
        let mut near = Vec::with_capacity(rows.len());
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
                let shown = hits
                    .iter()
                    .filter_map(|hit| Some(neighbour(*idx_of.get(&hit.row)?, hit.score)));
                let mut shown: Vec<Neighbor<f32>> = shown.collect();
                near.push(shown.iter().take(N_NEAR).map(|one| one.index).collect());
                shown.truncate(n_shaping);
                neighbours.push(shown);
            }
        }
        Ok(Self {
            places: layout(&neighbours, start),
            near,
        })
    }
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
    #[test]
    fn a_part_of_all_is_evenly_spaced() {
        let all: Vec<usize> = (0..10).collect();
        assert_eq!(some_of(&all, 4), [0, 2, 5, 7]);
        assert_eq!(some_of(&all, 50), all);
    }
}
