//! Writes rows again with other cells or another place, and with the vectors that are there.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use m3ret_imaging::ReadOptions;
use m3ret_manifest::columns::{BODY_PART, DIMS, ID, MODALITY};
use m3ret_manifest::{path_of, text_of};
use m3ret_search::RowId;
use rayon::prelude::*;

use super::super::columns::{self, own_names};
use super::super::places::left_folder;
use super::super::rows::{
    Pseudonyms, RowCells, cells_of_manifest, cells_of_row, digest_of_cells, file_of, is_same_place,
    set_cell, stored_parts,
};
use super::sorted::{StaleRow, file_of_item, hash_of, place_of};
use super::{MAX_RELABELLED_NUMBERS, Stored, Update, hexadecimal, with_part};
use crate::embed::items::{Digest, Item};
use crate::watch::{Deferral, Watch};

/// Most rows of one content that are looked at for one file: blank images may have very many copies.
const MAX_COPIES: usize = 256;
/// Number of files that are compared between two looks at whether to stop.
const N_COMPARED_TOGETHER: usize = 256;

/// A row that waits to be added, whose content the gallery has already.
pub(super) struct Followed {
    pub digest: u128,
    pub id: String,
}

/// What has become of the file of rows whose bytes an item has. The earlier a variant stands, the better its rows are
/// for the item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    /// It is the item's own.
    Own,
    /// It is gone: it was moved.
    Gone,
    /// It has other bytes now.
    Changed,
    /// It is another copy.
    Copy,
}

/// Rows whose vectors an item uses, one for each image.
struct Source {
    ids: Vec<String>,
    file: PathBuf,
    /// The folder that the path of the file was relative to.
    root: PathBuf,
    origin: Origin,
}

/// A file that has the bytes of an item.
struct BestFile {
    /// One of its rows.
    row: RowId,
    file: PathBuf,
    origin: Origin,
}

/// Digests of new items by the places of their files; a folder may hold several series.
type NewDigests = HashMap<u128, Vec<Digest>>;

impl<'a> Update<'a> {
    /// Writes rows for items whose bytes the gallery has under another path or time, and returns the items that are
    /// left to embed.
    pub(super) fn reuse(
        &mut self,
        options: &ReadOptions,
        progress: &dyn Watch,
        deferral: &Deferral<'_>,
    ) -> anyhow::Result<Vec<&'a Item>> {
        let new: Vec<&Item> = self.new_items().collect();
        let is_spared =
            |item: &&Item| !self.sorted.known.contains(&item.key) && self.remembered.spares(item);
        let n_spared = self.listing.items.iter().filter(is_spared).count();
        self.updated.n_kept = self.listing.items.len() - new.len() - n_spared;
        if !self.sorted.has_contents() || new.is_empty() {
            return Ok(new);
        }
        progress.step("comparing files with those of the gallery");
        let mut digests: Vec<Option<Digest>> = Vec::with_capacity(new.len());
        for some in new.chunks(N_COMPARED_TOGETHER) {
            digests.par_extend(some.par_iter().map(|item| item.digest(options)));
            self.save_if_stopped(deferral)?;
        }
        let mut new_digests: NewDigests = HashMap::new();
        for (item, digest) in new.iter().zip(&digests) {
            let place = place_of(item, &self.root);
            new_digests.entry(place).or_default().extend(digest);
        }
        let n_together = MAX_RELABELLED_NUMBERS / self.writer.gallery().width().max(1);
        let (mut left, mut followed) = (Vec::new(), Vec::new());
        for (item, digest) in new.into_iter().zip(digests) {
            let is_followed = match digest {
                Some(digest) => self.follow(item, digest, &new_digests)?,
                None => false,
            };
            match is_followed {
                true => followed.push(item),
                false => left.push(item),
            }
            if self.pending.len() > n_together {
                self.save()?;
            }
            if deferral.is_stopped() {
                break;
            }
        }
        // The other rows of their files leave only now, so that files that exchanged their bytes find theirs.
        for item in followed {
            for row in self.sorted.take_stale(item, self.listing, &self.root) {
                self.remove(&row.id);
            }
        }
        self.save()?;
        self.save_if_stopped(deferral)?;
        Ok(left)
    }

    /// Writes the rows of the same content again for an item, if there are any. The older rows are removed unless
    /// their file is another copy.
    fn follow(
        &mut self,
        item: &Item,
        digest: Digest,
        new_digests: &NewDigests,
    ) -> anyhow::Result<bool> {
        let Some(source) = self.source_of(item, digest, new_digests)? else {
            return Ok(false);
        };
        if source.origin == Origin::Gone {
            let folder = left_folder(&source.file).unwrap_or(source.root);
            *self.updated.left_folders.entry(folder).or_default() += source.ids.len();
        }
        if source.origin != Origin::Copy {
            for id in &source.ids {
                self.move_row(id);
            }
        }
        let digest = digest.of(item.named_part());
        for id in &source.ids {
            let id = if source.origin == Origin::Copy || self.states_all(item) {
                self.write_again(id, item, Some(digest), source.origin)?
            } else {
                self.restamp(id, item, Some(digest), source.origin)?
            };
            self.followed.push(Followed { digest, id });
            self.updated.n_reused += 1;
        }
        Ok(true)
    }

    /// Removes a row that is added again as that of another image.
    fn move_row(&mut self, id: &str) {
        self.leaving.remove(id);
        if !self.removed.insert(id.to_owned()) {
            // Another image took its id, and it counted as removed.
            self.updated.n_removed -= 1;
        }
        self.moved.insert(id.to_owned());
    }

    /// Returns whether the labels of an item's rows are those of the listing and no others. Otherwise they stay as they
    /// were, but for those that names of folders state: a folder takes no label away.
    fn states_all(&self, item: &Item) -> bool {
        self.is_mirror || item.is_row()
    }

    /// Returns what names of folders state of an object.
    fn stated_by_folders(&self, item: &Item) -> Vec<(String, String)> {
        let idx = self.idx_of.get(&item.key);
        match (&self.listing.table, idx) {
            (Some(table), Some(&idx)) if !self.listing.has_rows() => {
                cells_of_manifest(table, idx, self.writer.gallery())
            }
            _ => Vec::new(),
        }
    }

    /// Finds the rows of an item's content in the file that suits it best, one for each image.
    fn source_of(
        &self,
        item: &Item,
        digest: Digest,
        new_digests: &NewDigests,
    ) -> anyhow::Result<Option<Source>> {
        let gallery = self.writer.gallery();
        let Some(best) = self.best_file(item, digest, new_digests)? else {
            return Ok(None);
        };
        let root = gallery.value(best.row, own_names(gallery).root)?;
        let mut ids: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for row in gallery.find_rows(columns::PATH, gallery.value(best.row, columns::PATH)?)? {
            let id = gallery.id(row)?;
            let is_usable = best.origin == Origin::Copy || !self.is_taken(id);
            let is_there = gallery.value(row, own_names(gallery).root)? == root;
            if is_usable && is_there && self.content_of(row, item, digest)?.is_some() {
                let part = gallery.value(row, columns::PART)?;
                ids.entry(part).or_default().push(id.to_owned());
            }
        }
        if item.is_row() && ids.len() > 1 {
            // The row of a manifest is one image, and it does not say which one.
            return Ok(None);
        }
        // Of several rows of one image, as lists with a row for each finding have them, one is enough, unless the
        // listing says nothing of them.
        let n_each = match best.origin == Origin::Copy || self.states_all(item) {
            true => 1,
            false => usize::MAX,
        };
        let ids = ids.into_values();
        Ok(Some(Source {
            ids: ids.flat_map(|ids| ids.into_iter().take(n_each)).collect(),
            file: best.file,
            root: path_of(root),
            origin: best.origin,
        }))
    }

    /// Finds the file with an item's content that suits it best: of equally good ones, the first.
    fn best_file(
        &self,
        item: &Item,
        digest: Digest,
        new_digests: &NewDigests,
    ) -> anyhow::Result<Option<BestFile>> {
        let gallery = self.writer.gallery();
        let own_file = file_of_item(item, &self.root);
        let ids = [digest.whole(), digest.of(item.named_part())]
            .map(|content| self.sorted.ids_of(content));
        let ids = self
            .sorted
            .stale_ids_at(item, &self.root)
            .chain(ids.into_iter().flatten());
        let mut best: Option<BestFile> = None;
        let mut n_seen = 0;
        for id in ids {
            let Some(row) = gallery.find(id)? else {
                continue;
            };
            let Some(content) = self.content_of(row, item, digest)? else {
                continue;
            };
            let file = file_of(gallery, row)?;
            let origin = match new_digests.get(&hash_of(&file)) {
                _ if self.is_taken(id) => Origin::Copy,
                Some(there) if is_other(there, content, gallery.value(row, columns::PART)?) => {
                    Origin::Changed
                }
                _ => origin_of(&file, &own_file),
            };
            if best.as_ref().is_none_or(|best| origin < best.origin) {
                best = Some(BestFile { row, file, origin });
            }
            n_seen += 1;
            if origin == Origin::Own || n_seen == MAX_COPIES {
                break;
            }
        }
        Ok(best)
    }

    /// Returns whether a row belongs to another image that is up to date.
    fn is_taken(&self, id: &str) -> bool {
        self.moved.contains(id) || self.sorted.current.contains(id)
    }

    /// Returns the content of a row if it is that of an item, and the row may be one of its images.
    fn content_of(&self, row: RowId, item: &Item, digest: Digest) -> anyhow::Result<Option<u128>> {
        let gallery = self.writer.gallery();
        let content = u128::from_str_radix(gallery.value(row, columns::CONTENT)?, 16).ok();
        let contents = [digest.whole(), digest.of(item.named_part())];
        let may_be = item.may_hold(gallery.value(row, columns::PART)?);
        Ok(content.filter(|content| may_be && contents.contains(content)))
    }

    /// Writes rows again of which other labels are stated than before; an object of which none are stated keeps its own.
    pub(super) fn relabel_all(&mut self) -> anyhow::Result<()> {
        let mut outdated = std::mem::take(&mut self.sorted.outdated);
        outdated.retain(|(_, idx)| {
            let item = &self.listing.items[*idx];
            self.states_all(item) || !self.stated_by_folders(item).is_empty()
        });
        // Saves may move rows, so these are known by their ids; they are saved together, so that ids may
        // be exchanged between them.
        let listing = self.listing;
        let n_together = (MAX_RELABELLED_NUMBERS / self.writer.gallery().width().max(1)).max(1);
        for outdated in outdated.chunks(n_together) {
            self.removed
                .extend(outdated.iter().map(|(id, _)| id.clone()));
            for (id, idx) in outdated {
                let item = &listing.items[*idx];
                let id = match self.states_all(item) {
                    true => self.write_again(id, item, None, Origin::Own)?,
                    false => {
                        let content = self.stored_content(id)?;
                        self.restamp(id, item, content, Origin::Own)?
                    }
                };
                self.sorted.current.insert(id);
                self.updated.n_relabelled += 1;
            }
            self.save()?;
        }
        Ok(())
    }

    /// Writes a row again with the path and cells of an item and the stored vector; returns its id. Without a digest,
    /// that of the row stays.
    fn write_again(
        &mut self,
        id: &str,
        item: &Item,
        content: Option<u128>,
        origin: Origin,
    ) -> anyhow::Result<String> {
        let gallery = self.writer.gallery();
        let row = gallery.find(id)?.context("a row that was listed")?;
        let own = own_names(gallery);
        let value = |column: &str| gallery.value(row, column).map(str::to_owned);
        let is_older = value(columns::CELLS)?.is_empty();
        let said = |column: &str, shown: &str| {
            // An older gallery keeps only what is shown, which a manifest may have said.
            let is_own = !is_older || !item.is_row();
            value(if is_older && is_own { shown } else { column })
        };
        let stored = Stored {
            part: value(columns::PART)?,
            pixels: value(own.pixels)?,
            content: content.map_or_else(
                || value(columns::CONTENT),
                |content| Ok(hexadecimal(content)),
            )?,
            modality: said(columns::OWN_MODALITY, MODALITY)?,
            modality_guess: value(columns::OWN_MODALITY_GUESS)?,
            body_part: said(columns::OWN_BODY_PART, BODY_PART)?,
            dims: said(columns::OWN_DIMS, DIMS)?,
            people: match is_older && item.is_row() {
                true => Pseudonyms::default(),
                false => Pseudonyms::of(&RowCells::of_row(gallery, row)?).of_header(),
            },
        };
        let parts = stored_parts(gallery, row)?;
        let path = self.path_of(item);
        let id = self.id_again(id, item, &stored.part, origin)?;
        let cells = self.cells_of(item, &path, &stored);
        self.push_again(item, &id, cells, parts);
        Ok(id)
    }

    /// Returns the digest of what a row was read from.
    fn stored_content(&self, id: &str) -> anyhow::Result<Option<u128>> {
        let gallery = self.writer.gallery();
        let row = gallery.find(id)?.context("a row that was listed")?;
        Ok(u128::from_str_radix(gallery.value(row, columns::CONTENT)?, 16).ok())
    }

    /// Writes a row again as that of an item, with its own labels and those of its folder; returns its id.
    fn restamp(
        &mut self,
        id: &str,
        item: &Item,
        content: Option<u128>,
        origin: Origin,
    ) -> anyhow::Result<String> {
        let gallery = self.writer.gallery();
        let row = gallery.find(id)?.context("a row that was listed")?;
        let own = own_names(gallery);
        let part = gallery.value(row, columns::PART)?.to_owned();
        let mut cells = cells_of_row(gallery, row)?;
        let parts = stored_parts(gallery, row)?;
        let path = self.path_of(item);
        set_cell(&mut cells, columns::PATH, path);
        set_cell(&mut cells, own.root, text_of(&self.root));
        set_cell(&mut cells, own.key, hexadecimal(item.key));
        set_cell(&mut cells, columns::CHANGED, item.changed_ns.to_string());
        set_cell(
            &mut cells,
            columns::CONTENT,
            content.map_or_else(String::new, hexadecimal),
        );
        let stated = self.stated_by_folders(item);
        if !stated.is_empty() {
            let row = self.idx_of.get(&item.key);
            let row = row.and_then(|&idx| self.listing.row(idx));
            let digest = digest_of_cells(row, self.writer.gallery());
            set_cell(&mut cells, columns::CELLS, digest);
        }
        for (name, value) in stated {
            set_cell(&mut cells, &name, value);
        }
        let id = self.id_again(id, item, &part, origin)?;
        self.push_again(item, &id, cells, parts);
        Ok(id)
    }

    /// Returns the id of a row that is written again, and takes it.
    ///
    /// The id stays with the image as far as the listing allows it: a manifest may name another, and in a mirror it is
    /// the one that a new row would have. The id of a path stays with the path if that has other bytes now.
    fn id_again(
        &mut self,
        id: &str,
        item: &Item,
        part: &str,
        origin: Origin,
    ) -> anyhow::Result<String> {
        let row = self.idx_of.get(&item.key);
        let row = row.and_then(|&idx| self.listing.row(idx));
        let is_named = row
            .and_then(|row| row.get(ID))
            .is_some_and(|id| !id.is_empty());
        let stays = match origin {
            Origin::Own | Origin::Gone => true,
            Origin::Changed => !self.is_named_by_path(id)?,
            Origin::Copy => false,
        };
        let is_free = !self.waiting.contains(id);
        if !self.is_mirror && !is_named && stays && is_free {
            self.waiting.insert(id.to_owned());
            return Ok(id.to_owned());
        }
        let path = self.path_of(item);
        self.new_id(item, &path, Some(part))
    }

    /// Returns whether the id of a row is that of its path.
    fn is_named_by_path(&self, id: &str) -> anyhow::Result<bool> {
        let gallery = self.writer.gallery();
        let row = gallery.find(id)?.context("a row that was listed")?;
        let part = Some(gallery.value(row, columns::PART)?);
        let path = with_part(gallery.value(row, columns::PATH)?, part);
        let whole = with_part(&text_of(&file_of(gallery, row)?), part);
        let is_of = |name: &str| {
            let rest = id.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("#row="))
        };
        Ok(is_of(&path) || is_of(&whole))
    }

    /// Writes rows again whose image was read from changed bytes and is the same, so that its labels stay; returns
    /// whether there were any. Rows that a manifest or mirror labels are new ones.
    pub(super) fn keep_stale(
        &mut self,
        item: &Item,
        stored: &Stored,
        stale: &mut Vec<StaleRow>,
    ) -> anyhow::Result<bool> {
        if self.states_all(item) || stored.pixels.is_empty() {
            return Ok(false);
        }
        let mut kept = Vec::new();
        for row in stale.iter().filter(|row| row.is_of(&stored.part)) {
            let gallery = self.writer.gallery();
            if !self.leaving.contains(&row.id) {
                continue;
            }
            let found = gallery.find(&row.id)?;
            let Some(place) = found else { continue };
            if gallery.value(place, own_names(gallery).pixels)? == stored.pixels {
                kept.push(row.id.clone());
            }
        }
        stale.retain(|row| !kept.contains(&row.id));
        for id in &kept {
            self.move_row(id);
            let content = u128::from_str_radix(&stored.content, 16).ok();
            self.restamp(id, item, content, Origin::Own)?;
            self.updated.n_kept += 1;
        }
        Ok(!kept.is_empty())
    }
}

/// Returns what has become of the file of a row whose bytes are known to be elsewhere.
fn origin_of(file: &Path, own_file: &Path) -> Origin {
    if hash_of(file) == hash_of(own_file) || is_same_place(file, own_file) {
        Origin::Own
    } else if file.try_exists().is_ok_and(|is_there| !is_there) {
        Origin::Gone
    } else {
        Origin::Copy
    }
}

/// Returns whether a file with these digests is another one than that of a row.
fn is_other(digests: &[Digest], content: u128, part: &str) -> bool {
    let is_it = |digest: &Digest| [digest.whole(), digest.of(Some(part))].contains(&content);
    !digests.is_empty() && !digests.iter().any(is_it)
}
