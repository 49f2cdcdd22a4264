//! Where the images of a gallery lie: removes rows of files that are gone, and moves rows with their files.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::error::ensure;
use anyhow::Context as _;
use m3ret_files::{place_of, plain_path};
use m3ret_manifest::columns::ID;
use m3ret_manifest::{Row, Table, path_of, text_of};
use m3ret_search::{Gallery, RowId, Writer};
use serde::Serialize;

use super::columns::{self, own_names};
use super::rows::{
    PendingRows, cell_of_stated, cells_of_manifest, cells_of_row, digest_of_cells, file_of,
    is_of_erased, set_cell, stored_parts,
};
use super::{forget_gone, forget_moved, with_part};

/// Most numbers of vectors that wait while rows are written again: 256 MiB.
const MAX_WAITING_NUMBERS: usize = 1 << 26;

/// What `prune` removed and kept.
#[derive(Debug, Default, Serialize)]
pub struct PruneSummary {
    /// The images that were removed because their files are gone.
    pub pruned: Vec<PrunedImage>,
    /// Number of images by folder, for folders that are not there or are empty; these images stay, as a disk may be
    /// away.
    pub away: BTreeMap<String, usize>,
}

/// An image that was removed because its file is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PrunedImage {
    /// The id of its row.
    pub id: String,
    /// Path and part as the archive stores them; the id of a row without an id of the user's.
    pub path: String,
    /// Where the file lay, with the part.
    pub file: String,
}

/// Removes the rows of images whose files are gone.
///
/// A file is gone if its folder is there and holds other files. If the folder is missing or empty, or if no file of
/// the archive is there, a disk may be away: these images stay unless `is_forced`.
///
/// # Errors
/// If the gallery cannot be opened, is damaged, or is locked by another writer.
pub fn prune(folder: &Path, is_forced: bool) -> crate::Result<PruneSummary> {
    Ok(prune_left(folder, |_, _| is_forced)?)
}

/// As `prune`; images of a folder that is away are removed if `is_left` returns true for the folder and their number:
/// the folder was left, and its other images are elsewhere.
pub(crate) fn prune_left(
    folder: &Path,
    is_left: impl Fn(&Path, usize) -> bool,
) -> anyhow::Result<PruneSummary> {
    let mut writer = Writer::open(folder)?;
    forget_gone(&mut writer)?;
    let gallery = writer.gallery();
    let own = own_names(gallery);
    let mut full_roots: HashSet<&str> = HashSet::new();
    // Ids of missing files by root, and by the folder that is away.
    let mut missing: BTreeMap<(&str, Option<PathBuf>), Vec<PrunedImage>> = BTreeMap::new();
    let mut left_folders: HashMap<PathBuf, Option<PathBuf>> = HashMap::new();
    for row in gallery.rows() {
        let root = gallery.value(row, own.root)?;
        if gallery.value(row, columns::PATH)?.is_empty() && root.is_empty() {
            // It never had a file: it came over the network, or its vector was made elsewhere.
            continue;
        }
        let file = file_of(gallery, row)?;
        // A file that cannot be looked up may still exist.
        if file.try_exists().unwrap_or(true) {
            full_roots.insert(root);
            continue;
        }
        let parent = file.parent().unwrap_or(&file).to_owned();
        let left = left_folders
            .entry(parent)
            .or_insert_with(|| left_folder(&file));
        let part = Some(gallery.value(row, columns::PART)?).filter(|part| !part.is_empty());
        let image = PrunedImage {
            id: gallery.id(row)?.to_owned(),
            path: with_part(gallery.value(row, columns::PATH)?, part),
            file: with_part(&text_of(&file), part),
        };
        missing.entry((root, left.clone())).or_default().push(image);
    }
    let mut outcome = PruneSummary::default();
    for ((root, left), images) in missing {
        let away = match left {
            None if full_roots.contains(root) => None,
            None => Some(path_of(root)),
            Some(folder) => Some(folder),
        };
        match away {
            Some(away) if !is_left(&away, images.len()) => {
                *outcome.away.entry(text_of(&away)).or_default() += images.len();
            }
            _ => outcome.pruned.extend(images),
        }
    }
    if !outcome.pruned.is_empty() {
        let ids = outcome.pruned.iter().map(|image| image.id.clone());
        writer.remove(&ids.collect::<Vec<_>>())?;
    }
    Ok(outcome)
}

/// Returns the folder that is away if a file is missing: the topmost one above it that is not there, or its own if
/// that is empty, as the place of a disk is that was taken out. `None` if the folder holds other files.
pub(super) fn left_folder(file: &Path) -> Option<PathBuf> {
    let exists = |folder: &&Path| folder.try_exists().unwrap_or(true);
    let folder = file.parent()?;
    if !exists(&folder) {
        let missing = folder.ancestors().take_while(|folder| !exists(folder));
        return missing.last().map(Path::to_owned);
    }
    let is_empty = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    is_empty.then(|| folder.to_owned())
}

/// How many rows `move_files` or `relabel` wrote again.
#[derive(Debug, Default, Serialize)]
pub struct RewriteSummary {
    /// Number of rows that were written again.
    pub n_changed: usize,
    /// Number of rows that were up to date already. Of `move_files`: of images that the gallery has at the new place
    /// as well, whose rows stay.
    pub n_kept: usize,
    /// Of `move_files`: number of images that do not exist at the new place, whose rows stay. Of `relabel`: number of
    /// rows of the manifest without an image in the gallery.
    pub n_missing: usize,
    /// Of `relabel`: number of rows of images that the manifest lists fewer times than the gallery. They keep their cells.
    pub n_surplus: usize,
    /// Of `relabel`: number of rows that keep their cells because the manifest says that they are of a patient who was
    /// erased.
    pub n_refused: usize,
}

/// Writes the rows of images below the folder `from` again, as lying below the folder `to`.
///
/// Ids, labels and vectors stay. An image that does not exist at its new place keeps its row, and so does one that
/// the gallery already has there.
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
    // Rows may name the folder itself, or links that lead to it.
    let from = [real_path(from), plain_path(from)];
    let mut moved = RewriteSummary::default();
    let mut places = HashSet::new();
    let mut leaving = Vec::new();
    let mut roots = HashSet::new();
    for id in rewriter.ids()? {
        let (row, gallery) = rewriter.row(&id)?;
        let file = plain_path(&file_of(gallery, row)?);
        let part = gallery.value(row, columns::PART)?;
        let below = from
            .iter()
            .find_map(|from| Some((from, file.strip_prefix(from).ok()?)));
        if let Some((from, below)) = below {
            leaving.push((id, from, below.to_owned()));
        } else {
            places.insert((file, part.to_owned()));
            roots.insert(path_of(gallery.value(row, own_names(gallery).root)?));
        }
    }
    ensure!(
        !leaving.is_empty(),
        "no image of the gallery lies below {}; its images lie below {}",
        from[0].display(),
        listed(&roots)
    );
    for (id, from, below) in leaving {
        let (row, gallery) = rewriter.row(&id)?;
        let place = joined(&to, &below);
        let part = gallery.value(row, columns::PART)?.to_owned();
        if !place.exists() {
            moved.n_missing += 1;
        } else if places.contains(&(place, part)) {
            moved.n_kept += 1;
        } else {
            rewriter.move_row(id, from, &to, &below)?;
            moved.n_changed += 1;
        }
    }
    rewriter.save()?;
    forget_moved(&mut rewriter.writer, &from)?;
    Ok(moved)
}

/// Returns a path through no links, as far as its folders exist, and without detours.
fn real_path(path: &Path) -> PathBuf {
    plain_path(&place_of(path).unwrap_or_else(|_| path.to_owned()))
}

/// Joins a folder and the way below it, which may be empty.
fn joined(folder: &Path, below: &Path) -> PathBuf {
    match below == Path::new("") {
        true => folder.to_owned(),
        false => folder.join(below),
    }
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

/// Writes the cells of a manifest into the rows of its images: by id where the manifest states one, else by file and
/// part. Embeds, adds and removes nothing.
pub(crate) fn relabel(folder: &Path, table: &Table) -> anyhow::Result<RewriteSummary> {
    let mut rewriter = Rewriter::open(folder)?;
    let mut moved = RewriteSummary::default();
    let named = rewriter.named_rows(table)?;
    moved.n_surplus = named.n_surplus;
    for (row, id) in table.rows().zip(named.ids) {
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
        let mut cells = cells_of_row(gallery, place)?;
        // Cells of the older manifest are dropped, even where this one is empty.
        let own = own_names(gallery);
        let kept = [own.root, own.key, own.pixels, columns::PATH, columns::PART];
        let is_own = |name: &str| name.starts_with(columns::OWN) || kept.contains(&name);
        cells.retain(|(name, _)| is_own(name));
        set_cell(&mut cells, columns::CELLS, digest);
        let stated = cells_of_manifest(table, row.idx(), gallery);
        let (name, value) = cell_of_stated(&stated);
        set_cell(&mut cells, &name, value);
        let stated = stated.into_iter().filter(|(_, value)| !value.is_empty());
        cells.extend(stated.chain(shown_by_itself(gallery, place)?));
        if is_of_erased(gallery, &cells) {
            moved.n_refused += 1;
            continue;
        }
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

/// The rows of a gallery that a manifest names.
struct NamedRows {
    /// The id of each row of the manifest, if the gallery has its image.
    ids: Vec<Option<String>>,
    /// Number of other rows of the same images.
    n_surplus: usize,
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

    /// Finds the row of the gallery that each row of a manifest names: by the id that it states, else by file and part.
    fn named_rows(&self, table: &Table) -> anyhow::Result<NamedRows> {
        let stated = |row: &Row<'_>| row.get(ID).filter(|id| !id.is_empty()).map(str::to_owned);
        let mut found: Vec<Option<String>> = table.rows().map(|row| stated(&row)).collect();
        let gallery = self.writer.gallery();
        // Rows of the manifest without an id, by what they name.
        let mut unnamed: HashMap<(PathBuf, String), Vec<Row<'_>>> = HashMap::new();
        for row in table.rows() {
            match &mut found[row.idx()] {
                Some(id) if gallery.find(id)?.is_none() => found[row.idx()] = None,
                Some(_) => {}
                None => {
                    let part = row.part().unwrap_or_default().to_owned();
                    let key = (real_path(&row.file()), part);
                    unnamed.entry(key).or_default().push(row);
                }
            }
        }
        let mut n_surplus = 0;
        if unnamed.is_empty() {
            return Ok(NamedRows {
                ids: found,
                n_surplus,
            });
        }
        let mut ids: HashMap<(PathBuf, String), Vec<String>> = HashMap::new();
        for id in self.ids()? {
            let (row, gallery) = self.row(&id)?;
            let part = gallery.value(row, columns::PART)?.to_owned();
            let key = (real_path(&file_of(gallery, row)?), part);
            if unnamed.contains_key(&key) {
                ids.entry(key).or_default().push(id);
            }
        }
        for (key, rows) in unnamed {
            let mut ids = ids.remove(&key).unwrap_or_default();
            // Shorter first: `#row=2` comes before `#row=10`.
            ids.sort_unstable_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
            // Of several rows of one image, as a list with a row for each finding has them, those that have not
            // changed keep their places, whatever their order.
            let mut left = Vec::new();
            for row in rows {
                let digest = digest_of_cells(Some(row), gallery);
                let mut there = ids.iter();
                match there.position(|id| self.has_cells(id, &digest)) {
                    Some(place) => found[row.idx()] = Some(ids.remove(place)),
                    None => left.push(row),
                }
            }
            n_surplus += ids.len().saturating_sub(left.len());
            for (row, id) in left.into_iter().zip(ids) {
                found[row.idx()] = Some(id);
            }
        }
        Ok(NamedRows {
            ids: found,
            n_surplus,
        })
    }

    fn has_cells(&self, id: &str, digest: &str) -> bool {
        let found = self.row(id).ok();
        found.is_some_and(|(row, gallery)| gallery.value(row, columns::CELLS).ok() == Some(digest))
    }

    /// Writes a row whose file is `below` the folder `from` as one whose file is below `to`.
    fn move_row(&mut self, id: String, from: &Path, to: &Path, below: &Path) -> anyhow::Result<()> {
        let (row, gallery) = self.row(&id)?;
        let own = own_names(gallery);
        let root = plain_path(&path_of(gallery.value(row, own.root)?));
        let path = path_of(gallery.value(row, columns::PATH)?);
        let (root, path) = match root.strip_prefix(from) {
            Ok(rest) if !path.is_absolute() => (joined(to, rest), path),
            // A list elsewhere names the file: it is now known by the new folder.
            _ => (to.to_owned(), below.to_owned()),
        };
        let mut cells = cells_of_row(gallery, row)?;
        set_cell(&mut cells, own.root, text_of(&root));
        set_cell(&mut cells, columns::PATH, text_of(&path));
        self.push(row, id, cells)
    }

    fn push(&mut self, row: RowId, id: String, cells: Vec<(String, String)>) -> anyhow::Result<()> {
        let parts = stored_parts(self.writer.gallery(), row)?;
        self.pending.push(id, cells, parts);
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
    fn a_folder_that_is_missing_or_empty_is_away() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        std::fs::create_dir_all(root.join("full/empty")).unwrap();
        std::fs::write(root.join("full/1"), "one").unwrap();
        for (file, wanted) in [
            ("full/2", None),
            ("full/empty/2", Some("full/empty")),
            ("full/gone/deep/2", Some("full/gone")),
        ] {
            let left = left_folder(&root.join(file));
            assert_eq!(left, wanted.map(|wanted| root.join(wanted)), "{file}");
        }
    }

    #[test]
    fn a_real_path_has_no_links_as_far_as_it_exists() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("there")).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(root.join("there"), root.join("link")).unwrap();
        #[cfg(unix)]
        assert_eq!(
            real_path(&root.join("link/gone/1")),
            root.join("there/gone/1")
        );
        assert_eq!(real_path(&root.join("there/../gone")), root.join("gone"));
        assert_eq!(real_path(&root.join("there")), root.join("there"));
    }
}
