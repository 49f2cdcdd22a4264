//! Where the images of a gallery lie: removes rows of files that are gone, and moves rows with their files.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use crate::error::ensure;
use anyhow::Context as _;
use m3ret_manifest::columns::ID;
use m3ret_manifest::{Table, path_of, text_of};
use m3ret_search::{Gallery, RowId, Writer};
use serde::Serialize;

use super::columns::{self, own_names};
use super::rows::{PendingRows, cells_of_manifest, digest_of_cells, file_of, stored_parts};

/// Most numbers of vectors that wait while rows are written again: 256 MiB.
const MAX_WAITING_NUMBERS: usize = 1 << 26;

/// What `prune` removed and kept.
#[derive(Debug, Default, Serialize)]
pub struct PruneSummary {
    /// Ids of the images that were removed because their files are gone.
    pub pruned: Vec<String>,
    /// Number of images by folder, for folders of which no file exists; these images stay, as a disk may be away.
    pub away: BTreeMap<String, usize>,
}

/// Removes the rows of images whose files are gone.
///
/// Images of a folder of which no file exists stay, unless `is_left` returns true for the folder: its images are
/// known to be elsewhere, or are to be removed.
///
/// # Errors
/// If the gallery cannot be opened, is damaged, or is locked by another writer.
pub fn prune(folder: &Path, is_left: impl Fn(&str) -> bool) -> crate::Result<PruneSummary> {
    let mut writer = Writer::open(folder)?;
    let gallery = writer.gallery();
    let own = own_names(gallery);
    let mut n_there: BTreeMap<String, usize> = BTreeMap::new();
    let mut gone: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in gallery.rows() {
        let root = gallery.value(row, own.root)?.to_owned();
        let file = file_of(gallery, row)?;
        // A file that cannot be looked up may still exist.
        if file.try_exists().unwrap_or(true) {
            *n_there.entry(root).or_default() += 1;
        } else {
            let id = gallery.id(row)?.to_owned();
            gone.entry(root).or_default().push(id);
        }
    }
    let mut outcome = PruneSummary::default();
    for (root, ids) in gone {
        if n_there.contains_key(&root) || is_left(&root) {
            outcome.pruned.extend(ids);
        } else {
            outcome.away.insert(root, ids.len());
        }
    }
    if !outcome.pruned.is_empty() {
        writer.remove(&outcome.pruned)?;
    }
    Ok(outcome)
}

/// How many rows `move_files` or `relabel` wrote again.
#[derive(Debug, Default, Serialize)]
pub struct RewriteSummary {
    /// Number of rows that were written again.
    pub n_changed: usize,
    /// Number of rows that were up to date already; only `relabel` counts them.
    pub n_kept: usize,
    /// Of `move_files`: number of images that do not exist at the new place, whose rows stay. Of `relabel`: number of
    /// rows of the manifest without an image in the gallery.
    pub n_missing: usize,
}

/// Writes the rows of images below the folder `from` again, as lying below the folder `to`.
///
/// Ids, labels and vectors stay. An image that does not exist at its new place keeps its row.
///
/// # Errors
/// If `to` is no folder; if no image of the gallery lies below `from`; if the gallery cannot be opened, is damaged,
/// or is locked by another writer.
pub fn move_files(folder: &Path, from: &Path, to: &Path) -> crate::Result<RewriteSummary> {
    let mut rewriter = Rewriter::open(folder)?;
    let to = to
        .canonicalize()
        .with_context(|| format!("opening {}", to.display()))?;
    ensure!(to.is_dir(), "{} is no folder", to.display());
    // The old folder may be gone, and its links can then not be resolved.
    let from = std::path::absolute(from)?;
    let from = from.canonicalize().unwrap_or(from);
    let mut moved = RewriteSummary::default();
    let mut roots = HashSet::new();
    let own = own_names(rewriter.writer.gallery());
    for id in rewriter.ids()? {
        let (row, gallery) = rewriter.row(&id)?;
        let file = file_of(gallery, row)?;
        let root = path_of(gallery.value(row, own.root)?);
        let Ok(below) = file.strip_prefix(&from) else {
            roots.insert(root);
            continue;
        };
        let place = to.join(below);
        if !place.exists() {
            moved.n_missing += 1;
            continue;
        }
        let (root, path) = match root.strip_prefix(&from) {
            Ok(rest) => (
                to.join(rest),
                PathBuf::from(gallery.value(row, columns::PATH)?),
            ),
            Err(_) => (to.clone(), below.to_owned()),
        };
        let path = match root == to && path.is_absolute() {
            true => below.to_owned(),
            false => path,
        };
        let mut cells = rewriter.cells(row)?;
        set(&mut cells, own.root, text_of(&root));
        set(&mut cells, columns::PATH, text_of(&path));
        rewriter.push(row, id, cells)?;
        moved.n_changed += 1;
    }
    ensure!(
        moved.n_changed + moved.n_missing > 0,
        "no image of the gallery lies below {}; its images lie below {}",
        from.display(),
        listed(&roots)
    );
    rewriter.save()?;
    Ok(moved)
}

/// Most folders that an error lists.
const MAX_LISTED: usize = 8;

fn listed(roots: &HashSet<PathBuf>) -> String {
    let mut roots: Vec<String> = roots.iter().map(|root| text_of(root)).collect();
    roots.sort_unstable();
    let n_more = roots.len().saturating_sub(MAX_LISTED);
    roots.truncate(MAX_LISTED);
    match n_more {
        0 => roots.join(", "),
        n => format!("{} and {n} more", roots.join(", ")),
    }
}

/// Writes the cells of a manifest into the rows of its images: by id if the manifest has that column, else by file
/// and part. Embeds, adds and removes nothing.
pub(crate) fn relabel(folder: &Path, table: &Table) -> anyhow::Result<RewriteSummary> {
    let mut rewriter = Rewriter::open(folder)?;
    let has_ids = table.column(ID).is_some();
    let mut ids_of: BTreeMap<(PathBuf, String), Vec<String>> = BTreeMap::new();
    if !has_ids {
        for id in rewriter.ids()? {
            let (row, gallery) = rewriter.row(&id)?;
            let part = gallery.value(row, columns::PART)?.to_owned();
            let file = file_of(gallery, row)?;
            let file = file.canonicalize().unwrap_or(file);
            ids_of.entry((file, part)).or_default().push(id);
        }
        // Several rows of one image are in the order in which they were added.
        ids_of.values_mut().for_each(|ids| ids.reverse());
    }
    let mut moved = RewriteSummary::default();
    for row in table.rows() {
        let id = if has_ids {
            let id = row.get(ID).unwrap_or_default().to_owned();
            let is_there = rewriter.writer.gallery().find(&id)?.is_some();
            is_there.then_some(id)
        } else {
            let file = row.file();
            let file = file.canonicalize().unwrap_or(file);
            let key = (file, row.part().unwrap_or_default().to_owned());
            ids_of.get_mut(&key).and_then(Vec::pop)
        };
        let Some(id) = id else {
            moved.n_missing += 1;
            continue;
        };
        let (place, gallery) = rewriter.row(&id)?;
        let digest = digest_of_cells(Some(row), gallery);
        if gallery.value(place, columns::CELLS)? == digest {
            moved.n_kept += 1;
            continue;
        }
        let mut cells = rewriter.cells(place)?;
        // Cells of the older manifest are dropped, even where this one is empty.
        let own = own_names(gallery);
        let kept = [own.root, own.key, own.pixels, columns::PATH, columns::PART];
        let is_own = |name: &str| name.starts_with(columns::OWN) || kept.contains(&name);
        cells.retain(|(name, _)| is_own(name));
        set(&mut cells, columns::CELLS, digest);
        let stated = cells_of_manifest(table, row.idx(), gallery);
        let stated = stated.into_iter().filter(|(_, value)| !value.is_empty());
        cells.extend(stated.chain(shown_by_itself(gallery, place)?));
        rewriter.push(place, id, cells)?;
        moved.n_changed += 1;
    }
    rewriter.save()?;
    Ok(moved)
}

/// Returns the cells that a row shows without a manifest.
fn shown_by_itself(gallery: &Gallery, row: RowId) -> anyhow::Result<Vec<(String, String)>> {
    let is_older = !gallery.columns().contains(&columns::CELLS);
    let mut cells = Vec::new();
    for (shown, own) in columns::SHOWN {
        // An older gallery keeps only what is shown.
        let value = gallery.value(row, if is_older { shown } else { own })?;
        if !value.is_empty() {
            cells.push((shown.to_owned(), value.to_owned()));
        }
    }
    Ok(cells)
}

/// Replaces the value of a cell, or adds the cell.
fn set(cells: &mut Vec<(String, String)>, name: &str, value: String) {
    match cells.iter_mut().find(|(other, _)| other == name) {
        Some((_, cell)) => *cell = value,
        None => cells.push((name.to_owned(), value)),
    }
}

/// Writes rows of a gallery again with other cells and the same vectors and pictures.
struct Rewriter {
    writer: Writer,
    pending: PendingRows,
}

impl Rewriter {
    fn open(folder: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            writer: Writer::open(folder)?,
            pending: PendingRows::default(),
        })
    }

    /// Returns the ids of all rows. A save moves rows, but keeps ids.
    fn ids(&self) -> anyhow::Result<Vec<String>> {
        let gallery = self.writer.gallery();
        let ids = gallery.rows().map(|row| Ok(gallery.id(row)?.to_owned()));
        ids.collect()
    }

    fn row(&self, id: &str) -> anyhow::Result<(RowId, &Gallery)> {
        let gallery = self.writer.gallery();
        let row = gallery.find(id)?.context("a row that was listed")?;
        Ok((row, gallery))
    }

    /// Returns all cells of a row.
    fn cells(&self, row: RowId) -> anyhow::Result<Vec<(String, String)>> {
        let gallery = self.writer.gallery();
        let names = gallery.columns().into_iter();
        let cells = names.map(|name| Ok((name.to_owned(), gallery.value(row, name)?.to_owned())));
        cells.collect()
    }

    fn push(&mut self, row: RowId, id: String, cells: Vec<(String, String)>) -> anyhow::Result<()> {
        let (vector, thumbnail) = stored_parts(self.writer.gallery(), row)?;
        self.pending.push(id, &vector, cells, thumbnail);
        if self.pending.n_numbers() >= MAX_WAITING_NUMBERS {
            self.save()?;
        }
        Ok(())
    }

    fn save(&mut self) -> anyhow::Result<()> {
        if self.pending.len() == 0 {
            return Ok(());
        }
        // Each row takes the place of the one with its id.
        let replaced = self.pending.ids().to_vec();
        self.pending.save(&mut self.writer, &replaced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_set_once() {
        let mut cells = vec![("a".to_owned(), "1".to_owned())];
        set(&mut cells, "a", "2".to_owned());
        set(&mut cells, "b", "3".to_owned());
        let wanted = [("a", "2"), ("b", "3")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(cells, wanted);
    }
}
