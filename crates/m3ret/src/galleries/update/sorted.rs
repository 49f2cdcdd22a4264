//! Which rows of a gallery are up to date with a listing.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use m3ret_files::plain_path;
use m3ret_manifest::path_of;
use m3ret_search::{Gallery, RowId};
use xxhash_rust::xxh3::xxh3_128;

use super::super::columns::{self, own_names};
use super::super::rows::file_of;
use super::is_changed;
use crate::embed::items::{Item, Listing};

/// A row of a file that the listing has, which is not up to date.
#[derive(Debug, Clone)]
pub(super) struct StaleRow {
    pub id: String,
    part: String,
}

/// The rows of a gallery, sorted by what a listing says of their images.
#[derive(Debug, Default)]
pub(super) struct SortedRows {
    /// Keys of the items of the listing whose rows are up to date.
    pub known: HashSet<u128>,
    /// Ids of these rows.
    pub current: HashSet<String>,
    /// Rows that are up to date except for what is stated of them: ids, and positions in the listing.
    pub outdated: Vec<(String, usize)>,
    /// Positions of the items of the listing, by the place of their file: a folder may hold several series.
    items_at: HashMap<u128, Vec<usize>>,
    /// Rows of files in the listing that are not up to date, by the place of their file.
    stale: HashMap<u128, Vec<StaleRow>>,
    /// Ids of rows of other files.
    others: Vec<String>,
    /// Ids of rows by the digest of what they were read from.
    contents: HashMap<u128, Vec<String>>,
}

impl SortedRows {
    /// Sorts the rows of a gallery. `idx_of` holds positions of items by their keys; `root` is the folder that paths
    /// of the listing are relative to.
    pub(super) fn of(
        gallery: &Gallery,
        listing: &Listing,
        idx_of: &HashMap<u128, usize>,
        root: &Path,
    ) -> anyhow::Result<Self> {
        let mut sorted = Self::default();
        for (idx, item) in listing.items.iter().enumerate() {
            let place = place_of(item, root);
            sorted.items_at.entry(place).or_default().push(idx);
        }
        for row in gallery.rows() {
            sorted.sort_in(gallery, row, listing, idx_of)?;
        }
        Ok(sorted)
    }

    fn sort_in(
        &mut self,
        gallery: &Gallery,
        row: RowId,
        listing: &Listing,
        idx_of: &HashMap<u128, usize>,
    ) -> anyhow::Result<()> {
        let key = u128::from_str_radix(gallery.value(row, own_names(gallery).key)?, 16).ok();
        let id = gallery.id(row)?.to_owned();
        if let Ok(content) = u128::from_str_radix(gallery.value(row, columns::CONTENT)?, 16) {
            self.add(content, id.clone());
        }
        let found = key.and_then(|key| Some((key, *idx_of.get(&key)?)));
        if let Some((key, idx)) = found
            && !is_changed(gallery, row, &listing.items[idx])?
        {
            if gallery.value(row, columns::CELLS)? != listing.digest(idx, gallery) {
                self.outdated.push((id.clone(), idx));
            }
            self.known.insert(key);
            self.current.insert(id);
            return Ok(());
        }
        let place = hash_of(&file_of(gallery, row)?);
        if self.items_at.contains_key(&place) {
            let part = gallery.value(row, columns::PART)?.to_owned();
            let row = StaleRow { id, part };
            self.stale.entry(place).or_default().push(row);
        } else {
            self.others.push(id);
        }
        Ok(())
    }

    /// Adds the id of a row with this content.
    pub(super) fn add(&mut self, content: u128, id: String) {
        self.contents.entry(content).or_default().push(id);
    }

    /// Returns the ids that a content has or had; a row may have been removed, or have been replaced by one with other
    /// content.
    pub(super) fn ids_of(&self, content: u128) -> impl Iterator<Item = &str> {
        self.contents
            .get(&content)
            .into_iter()
            .flatten()
            .map(String::as_str)
    }

    pub(super) fn has_contents(&self) -> bool {
        !self.contents.is_empty()
    }

    /// Returns the ids of rows of an item's file that are not up to date.
    pub(super) fn stale_ids_at(&self, item: &Item, root: &Path) -> impl Iterator<Item = &str> {
        let rows = self.stale.get(&place_of(item, root)).into_iter().flatten();
        rows.map(|row| row.id.as_str())
    }

    /// Returns the rows that are older states of an item's images, and forgets them.
    pub(super) fn take_stale(
        &mut self,
        item: &Item,
        listing: &Listing,
        root: &Path,
    ) -> Vec<StaleRow> {
        let place = place_of(item, root);
        let Some(mut rows) = self.stale.remove(&place) else {
            return Vec::new();
        };
        let taken = rows.extract_if(.., |row| self.is_state_of(row, item, place, listing));
        let taken = taken.collect();
        self.stale.insert(place, rows);
        taken
    }

    /// As `take_stale` for some items; returns the ids alone.
    pub(super) fn stale_of<'a>(
        &self,
        items: impl Iterator<Item = &'a Item>,
        listing: &Listing,
        root: &Path,
    ) -> HashSet<String> {
        let mut ids = HashSet::new();
        for item in items {
            let place = place_of(item, root);
            let rows = self.stale.get(&place).into_iter().flatten();
            let rows = rows.filter(|row| self.is_state_of(row, item, place, listing));
            ids.extend(rows.map(|row| row.id.clone()));
        }
        ids
    }

    /// Returns whether a row of the same place is an older state of an image of an item.
    fn is_state_of(&self, row: &StaleRow, item: &Item, place: u128, listing: &Listing) -> bool {
        if item.may_hold(&row.part) {
            return true;
        }
        // A folder lists every image, so that a series of another name is one that is gone. A manifest may leave out
        // parts of a file.
        let at = self.items_at.get(&place).into_iter().flatten();
        let is_of_other = || {
            at.map(|&idx| &listing.items[idx])
                .any(|item| item.may_hold(&row.part))
        };
        item.named_part().is_none() && !is_of_other()
    }

    /// Returns the ids of rows of images that a manifest lists fewer times than the gallery, once every item that is
    /// not up to date has taken its older states. An object of a folder is no row, and leaves those of its image.
    pub(super) fn surplus(&self, listing: &Listing) -> Vec<String> {
        let mut ids = Vec::new();
        for (place, rows) in &self.stale {
            let at = self.items_at.get(place).into_iter().flatten();
            let items = at.map(|&idx| &listing.items[idx]);
            let items: Vec<&Item> = items.filter(|item| item.is_row()).collect();
            let is_listed = |row: &&StaleRow| items.iter().any(|item| item.may_hold(&row.part));
            ids.extend(rows.iter().filter(is_listed).map(|row| row.id.clone()));
        }
        ids
    }

    /// Returns the ids of rows whose images the listing does not have, or no longer has so.
    pub(super) fn not_listed(&self) -> impl Iterator<Item = String> {
        let stale = self.stale.values().flatten().map(|row| &row.id);
        stale.chain(&self.others).cloned()
    }
}

impl StaleRow {
    /// Returns whether this is the row of an image of its file.
    pub(super) fn is_of(&self, part: &str) -> bool {
        self.part == part
    }
}

/// Returns the place of an item's file: equal for all names of one path.
pub(super) fn place_of(item: &Item, root: &Path) -> u128 {
    hash_of(&file_of_item(item, root))
}

/// Returns the file or folder of an item.
pub(super) fn file_of_item(item: &Item, root: &Path) -> PathBuf {
    root.join(path_of(&item.path))
}

/// Hashes a path without detours.
pub(super) fn hash_of(file: &Path) -> u128 {
    xxh3_128(plain_path(file).as_os_str().as_encoded_bytes())
}
