//! Brings a gallery up to date with an archive: embeds what is new, and removes what is gone.

use m3ret_manifest::{path_of, text_of};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use m3ret_encoder::Model;
use m3ret_imaging::ReadOptions;
use m3ret_manifest::columns::{BODY_PART, DIMS, ID, MODALITY};
use m3ret_manifest::{Row, Table};
use m3ret_search::{Gallery, Numbers, RowId, Setup, Writer};
use rayon::prelude::*;
use serde::Serialize;

use super::columns::{self, own_names};
use super::rows::{
    PendingRows, Pseudonyms, cells_of_manifest, digest_of_cells, file_of, is_same_place,
    left_out_columns, stored_parts,
};
use super::{KnownVectors, maker_of};
use crate::embed::ahead::AheadOptions;
use crate::embed::items::{Item, Listing, list};
use crate::embed::work::{Embedded, embed_each};
use crate::embed::{Facts, Outputs};
use crate::options::Reading;
use crate::watch::{Deferral, Stopped, Watch};

/// What goes into a gallery, and how.
pub(crate) struct UpdateOptions<'a> {
    /// A folder, file or manifest.
    pub source: &'a Path,
    pub gallery: &'a Path,
    pub reading: &'a Reading,
    /// Whether the gallery holds the source and nothing else: rows of files that are gone are removed.
    pub is_mirror: bool,
    /// Whether a new image replaces another one with its id, instead of being an error.
    pub replaces: bool,
    /// Whether a small picture of each image is stored.
    pub has_thumbnails: bool,
    /// How vectors of a new gallery are stored.
    pub numbers: Numbers,
}

/// What an update changed in a gallery.
#[derive(Debug, Default, Serialize)]
pub struct UpdateSummary {
    /// Number of images that were added with a new row.
    pub n_new: usize,
    /// Number of images whose rows were up to date already.
    pub n_kept: usize,
    /// Number of kept rows that were written again because the manifest states something else.
    pub n_relabelled: usize,
    /// Number of images that were not embedded because the gallery had a vector of the same bytes: files that were
    /// moved, copied or touched.
    pub n_reused: usize,
    /// Number of rows that were removed: their files are gone or changed, or a new image replaced theirs. Of a folder
    /// or manifest, rows of files that were moved are counted too.
    pub n_removed: usize,
    /// Folders whose images were found at another place.
    #[serde(skip)]
    pub(crate) left_folders: HashSet<String>,
    /// Number of files that hold no image format.
    pub n_not_images: usize,
    /// Images that have no vector.
    pub refused: Vec<RefusedImage>,
}

/// An image that has no vector, and why.
#[derive(Debug, Serialize)]
pub struct RefusedImage {
    /// The path as the gallery would store it.
    pub path: String,
    /// Which image of the file this is; `None` if the file holds one image.
    pub part: Option<String>,
    /// The reason code, as docs/reason-codes.md lists it.
    pub reason: String,
    /// Why it was refused, as a sentence.
    pub message: String,
    /// Hash of all values; empty if they could not be read.
    #[serde(skip)]
    pub(crate) pixels: String,
    /// Where the image lies.
    #[serde(skip)]
    pub(crate) file: PathBuf,
}

/// What a row stores of what its image states itself.
struct Stored {
    part: String,
    pixels: String,
    content: String,
    modality: String,
    body_part: String,
    dims: String,
    people: Pseudonyms,
}

impl Stored {
    fn of(facts: &Facts, gallery: &Gallery) -> Self {
        let body_part = facts.body_part.as_deref().unwrap_or_default();
        Self {
            part: facts.part.clone().unwrap_or_default(),
            pixels: format!("{:032x}", facts.traits.pixels),
            content: facts.traits.content.map_or_else(String::new, hexadecimal),
            modality: facts.modality.clone().unwrap_or_default(),
            body_part: body_part.to_ascii_lowercase().replace(' ', "-"),
            dims: facts.dims.clone().unwrap_or_default(),
            people: Pseudonyms::of(facts, gallery),
        }
    }
}

/// Time between saves: what a power cut may lose.
const SAVE_EVERY: Duration = Duration::from_secs(20);
/// Most numbers of vectors that wait while rows are written again with other cells: 256 MiB.
const MAX_RELABELLED_NUMBERS: usize = 1 << 26;
/// Most rows that are added together.
const MAX_ROWS: usize = 4096;

/// Embeds what is new or changed and adds it to the gallery; an interrupted update resumes where it stopped.
pub(crate) fn update(
    wanted: &UpdateOptions<'_>,
    model: &Model,
    progress: &dyn Watch,
) -> anyhow::Result<UpdateSummary> {
    let source = wanted
        .source
        .canonicalize()
        .with_context(|| format!("opening {}", wanted.source.display()))?;
    let options = &wanted.reading.options;
    let listing = list(&source, &Outputs::default(), options)?;
    if let Some(table) = &listing.manifest {
        tell_notes(table, progress);
    }
    if wanted.is_mirror
        && let Some(updated) = kept_as_it_is(wanted.gallery, &listing)
    {
        return Ok(updated);
    }
    let writer = open_or_create(wanted, model, progress)?;
    let mut update = Update::new(writer, &source, &listing, wanted)?;
    let deferral = Deferral::start(progress);
    let left = update.reuse(options, progress)?;
    update.updated.n_not_images = listing.n_foreign;
    progress.count(left.len());
    let known = match wanted.is_mirror {
        true if !left.is_empty() => KnownVectors::beside(wanted.gallery, &maker_of(model)),
        _ => KnownVectors::default(),
    };
    let reading = AheadOptions {
        options,
        n_readers: wanted.reading.n_readers,
        has_thumbnails: wanted.has_thumbnails,
        known: Some(&known),
    };
    embed_each(&left, model, reading, |done| {
        if let Some((idx, images)) = done {
            update.take(left[idx], images)?;
            progress.advance(update.updated.refused.len());
        }
        if deferral.is_stopped() {
            update.save()?;
            let resumed_by = match wanted.is_mirror {
                true => "the same command resumes",
                false => "`m3ret index add` resumes",
            };
            let saved = format!("interrupted; what is done is in the gallery, and {resumed_by}");
            anyhow::bail!(Stopped { saved });
        }
        update.save_if_due()
    })?;
    // Rows of files that are gone stay until here, so that files that were moved can use their vectors.
    update.removed.extend(update.gone.drain());
    update.save()?;
    drop(deferral);
    if update.writer.is_calibration_old() {
        progress.step(", measuring how to search");
        update.writer.compact()?;
    }
    Ok(update.updated)
}

/// Notes what a person should know of a manifest that goes into a gallery.
pub(crate) fn tell_notes(table: &Table, progress: &dyn Watch) {
    for note in table.notes() {
        progress.note(&note);
    }
    let names = left_out_columns(table);
    if !names.is_empty() {
        progress.note(&format!(
            "columns that name people are not stored: {}",
            names.join(", ")
        ));
    }
}

/// Returns the counts if the gallery already matches the listing, so no writer lock is taken.
fn kept_as_it_is(gallery: &Path, listing: &Listing) -> Option<UpdateSummary> {
    let gallery = Gallery::open(gallery).ok()?;
    let own = own_names(&gallery);
    let wanted = listing.idx_by_key();
    let mut there = HashSet::with_capacity(wanted.len());
    for row in gallery.rows() {
        let key = u128::from_str_radix(gallery.value(row, own.key).ok()?, 16).ok()?;
        let &idx = wanted.get(&key)?;
        let is_in_step = gallery.value(row, columns::CELLS).ok()? == listing.digest(idx, &gallery);
        if !is_in_step || is_changed(&gallery, row, &listing.items[idx]).ok()? {
            return None;
        }
        there.insert(key);
    }
    (there.len() == wanted.len()).then(|| UpdateSummary {
        n_kept: listing.items.len(),
        n_not_images: listing.n_foreign,
        ..UpdateSummary::default()
    })
}

/// Returns whether the ctime of a file has changed since the row was written; its size and time have not. Rows of
/// older galleries store no ctime and count as unchanged.
fn is_changed(gallery: &Gallery, row: RowId, item: &Item) -> m3ret_search::Result<bool> {
    let stored = gallery.value(row, columns::CHANGED)?;
    Ok(!stored.is_empty() && stored != item.changed_ns.to_string())
}

fn hexadecimal(hash: u128) -> String {
    format!("{hash:032x}")
}

impl Listing {
    /// Returns where each item is, by its key.
    fn idx_by_key(&self) -> HashMap<u128, usize> {
        let items = self.items.iter().enumerate();
        items.map(|(idx, item)| (item.key, idx)).collect()
    }

    /// Returns the row of the manifest that item `idx` is.
    fn row(&self, idx: usize) -> Option<Row<'_>> {
        self.manifest.as_ref()?.row(idx)
    }

    /// Hashes the cells of the manifest for an item.
    fn digest(&self, idx: usize, gallery: &Gallery) -> String {
        digest_of_cells(self.row(idx), gallery)
    }
}

/// Time between two attempts to lock the gallery for writing.
const PATIENCE: Duration = Duration::from_millis(250);

fn open_or_create(
    wanted: &UpdateOptions<'_>,
    model: &Model,
    progress: &dyn Watch,
) -> anyhow::Result<Writer> {
    let mut has_told = false;
    loop {
        let outcome = open_once(wanted, model);
        match outcome {
            // Two searches of one folder: the first embeds it, the second waits.
            Err(m3ret_search::Error::Locked { .. }) if wanted.is_mirror => {
                if !has_told {
                    progress.note("another process embeds this archive; waiting for it");
                    has_told = true;
                }
                std::thread::sleep(PATIENCE);
            }
            Err(error @ m3ret_search::Error::Damaged { .. }) if wanted.is_mirror => {
                let cache = wanted.gallery.display();
                let advice = format!("{cache} can be made again: remove it and repeat the search");
                return Err(anyhow::Error::new(error).context(advice));
            }
            outcome => return Ok(outcome?),
        }
    }
}

fn open_once(wanted: &UpdateOptions<'_>, model: &Model) -> m3ret_search::Result<Writer> {
    let has_catalog = match Gallery::open(wanted.gallery) {
        Ok(_) => true,
        // A folder without a catalog, or none: to be made.
        Err(m3ret_search::Error::Unsupported { .. } | m3ret_search::Error::Io { .. }) => false,
        Err(error) => return Err(error),
    };
    if has_catalog {
        let writer = Writer::open(wanted.gallery)?;
        writer.gallery().check_maker(&maker_of(model))?;
        return Ok(writer);
    }
    let setup = Setup {
        maker: maker_of(model),
        width: model.width(),
        numbers: wanted.numbers,
    };
    Writer::create(wanted.gallery, setup)
}

/// Rows whose vectors an item uses.
struct ReusedRows {
    ids: Vec<String>,
    /// Whether the rows become those of the item, because no other file has them.
    is_free: bool,
    /// The folder in which their files lay.
    root: String,
}

/// The state of an update.
struct Update<'a> {
    writer: Writer,
    listing: &'a Listing,
    /// The folder that paths are relative to.
    root: PathBuf,
    /// Where the listing has an item, by its key.
    idx_of: HashMap<u128, usize>,
    /// Keys of the images that are in the gallery.
    known: HashSet<u128>,
    /// Ids of rows of older states of files, by path: they are removed when the new state is added.
    older: HashMap<String, Vec<String>>,
    /// Ids of rows by the digest of what they were read from.
    contents: HashMap<u128, Vec<String>>,
    /// Ids of the images that are in the gallery as the listing has them.
    current: HashSet<String>,
    /// Ids of images that the archive no longer has; they are removed at the end.
    gone: HashSet<String>,
    /// Ids that are removed with the next save.
    removed: HashSet<String>,
    replaces: bool,
    /// The ids that wait to be added.
    waiting: HashSet<String>,
    pending: PendingRows,
    saved: Instant,
    updated: UpdateSummary,
}

impl<'a> Update<'a> {
    fn new(
        writer: Writer,
        source: &Path,
        listing: &'a Listing,
        wanted: &UpdateOptions<'_>,
    ) -> anyhow::Result<Self> {
        let is_folder = source.is_dir();
        let root = match source.parent() {
            Some(parent) if !is_folder => parent.to_owned(),
            _ => source.to_owned(),
        };
        let mut update = Self {
            listing,
            root,
            idx_of: listing.idx_by_key(),
            known: HashSet::new(),
            older: HashMap::new(),
            contents: HashMap::new(),
            current: HashSet::new(),
            gone: HashSet::new(),
            removed: HashSet::new(),
            replaces: wanted.replaces,
            waiting: HashSet::new(),
            pending: PendingRows::default(),
            saved: Instant::now(),
            updated: UpdateSummary::default(),
            writer,
        };
        let rows: Vec<RowId> = update.writer.gallery().rows().collect();
        let mut outdated = Vec::new();
        for row in rows {
            update.sort_in(row, wanted.is_mirror, &mut outdated)?;
        }
        update.updated.n_removed = update.gone.len();
        update.relabel_all(&outdated)?;
        Ok(update)
    }

    /// Sorts a row of the gallery by what the listing has: current, current with other cells, an older file, or gone.
    fn sort_in(
        &mut self,
        row: RowId,
        is_mirror: bool,
        outdated: &mut Vec<(String, usize)>,
    ) -> anyhow::Result<()> {
        let gallery = self.writer.gallery();
        let own = own_names(gallery);
        let key = u128::from_str_radix(gallery.value(row, own.key)?, 16).ok();
        let id = gallery.id(row)?.to_owned();
        let content = u128::from_str_radix(gallery.value(row, columns::CONTENT)?, 16).ok();
        if let Some(content) = content {
            self.contents.entry(content).or_default().push(id.clone());
        }
        let found = key.and_then(|key| Some((key, *self.idx_of.get(&key)?)));
        let path = gallery.value(row, columns::PATH)?;
        match found {
            Some((key, idx)) if !is_changed(gallery, row, &self.listing.items[idx])? => {
                if gallery.value(row, columns::CELLS)? != self.listing.digest(idx, gallery) {
                    outdated.push((id.clone(), idx));
                }
                self.known.insert(key);
                self.current.insert(id);
            }
            Some(_) => self.older.entry(path.to_owned()).or_default().push(id),
            None if is_mirror => _ = self.gone.insert(id),
            None if gallery.value(row, own.root)? == text_of(&self.root) => {
                self.older.entry(path.to_owned()).or_default().push(id);
            }
            None => {}
        }
        Ok(())
    }

    /// Writes rows for items whose bytes the gallery has under another path or time, and returns the items that are
    /// left to embed.
    fn reuse(
        &mut self,
        options: &ReadOptions,
        progress: &dyn Watch,
    ) -> anyhow::Result<Vec<&'a Item>> {
        let items = self.listing.items.iter();
        let new: Vec<&Item> = items
            .filter(|item| !self.known.contains(&item.key))
            .collect();
        self.updated.n_kept = self.listing.items.len() - new.len();
        if self.contents.is_empty() || new.is_empty() {
            return Ok(new);
        }
        progress.step("comparing files with those of the gallery");
        let digests: Vec<Option<u128>> = new.par_iter().map(|item| item.digest(options)).collect();
        let n_together = MAX_RELABELLED_NUMBERS / self.writer.gallery().width().max(1);
        let mut left = Vec::new();
        for (item, digest) in new.into_iter().zip(digests) {
            if !self.follow(item, digest)? {
                left.push(item);
            }
            if self.pending.len() > n_together {
                self.save()?;
            }
        }
        self.save()?;
        Ok(left)
    }

    /// Writes the rows of the same content again for an item, if there are any. The older rows are removed if their
    /// file is gone or is the item's own, and stay if it is another copy.
    fn follow(&mut self, item: &Item, digest: Option<u128>) -> anyhow::Result<bool> {
        let (Some(digest), Some(&idx)) = (digest, self.idx_of.get(&item.key)) else {
            return Ok(false);
        };
        let path = self.path_of(item);
        let Some(source) = self.source_of(digest, &self.root.join(path_of(&path)))? else {
            return Ok(false);
        };
        if source.is_free {
            for id in &source.ids {
                if self.gone.remove(id) {
                    // It moved, and is not removed.
                    self.updated.n_removed -= 1;
                }
                self.removed.insert(id.clone());
            }
            self.updated.left_folders.insert(source.root);
        }
        for id in &source.ids {
            self.write_again(id, idx)?;
            self.updated.n_reused += 1;
        }
        if let Some(older) = self.older.remove(&path) {
            let older = older.into_iter().filter(|id| !source.ids.contains(id));
            self.removed.extend(older);
        }
        Ok(true)
    }

    /// Returns the rows of a content, one for each image. Rows that may be moved come first: those of the same file,
    /// or of a file that is gone.
    fn source_of(&self, digest: u128, own_file: &Path) -> anyhow::Result<Option<ReusedRows>> {
        let gallery = self.writer.gallery();
        // Files of this content, each with its rows by the part that they are.
        let mut files: Vec<(PathBuf, BTreeMap<String, String>)> = Vec::new();
        let mut free_files = files.clone();
        for id in self.contents.get(&digest).into_iter().flatten() {
            let Some(row) = gallery.find(id)?.filter(|_| !self.removed.contains(id)) else {
                continue;
            };
            let file = file_of(gallery, row)?;
            let part = gallery.value(row, columns::PART)?.to_owned();
            let all = match self.current.contains(id) {
                true => &mut files,
                false => &mut free_files,
            };
            // Of several rows of one image, as lists with a row a finding have them, one is enough.
            match all.iter_mut().find(|(other, _)| *other == file) {
                Some((_, ids)) => _ = ids.entry(part).or_insert_with(|| id.clone()),
                None => all.push((file, BTreeMap::from([(part, id.clone())]))),
            }
        }
        let is_free = |file: &Path| {
            is_same_place(file, own_file) || file.try_exists().is_ok_and(|is_there| !is_there)
        };
        let free = free_files.iter().find(|(file, _)| is_free(file));
        let is_some_free = free.is_some();
        let found = free.or(free_files.first()).or(files.first());
        let Some((_, ids)) = found else {
            return Ok(None);
        };
        let ids: Vec<String> = ids.values().cloned().collect();
        let first = ids
            .first()
            .map(|id| gallery.find(id))
            .transpose()?
            .flatten();
        let root = match first {
            Some(row) => gallery.value(row, own_names(gallery).root)?.to_owned(),
            None => String::new(),
        };
        Ok(Some(ReusedRows {
            ids,
            is_free: is_some_free,
            root,
        }))
    }

    /// Writes rows again whose cells of the manifest have changed. `outdated` holds ids and positions in the listing.
    fn relabel_all(&mut self, outdated: &[(String, usize)]) -> anyhow::Result<()> {
        // Saves may move rows, so these are known by their ids; they are saved together, so that ids may
        // be exchanged between them.
        let n_together = (MAX_RELABELLED_NUMBERS / self.writer.gallery().width().max(1)).max(1);
        for outdated in outdated.chunks(n_together) {
            self.removed
                .extend(outdated.iter().map(|(id, _)| id.clone()));
            for (id, idx) in outdated {
                self.write_again(id, *idx)?;
                self.updated.n_relabelled += 1;
            }
            self.save()?;
        }
        Ok(())
    }

    /// Writes a row again with the current path and cells of its image and the stored vector.
    fn write_again(&mut self, id: &str, idx: usize) -> anyhow::Result<()> {
        let item = &self.listing.items[idx];
        let gallery = self.writer.gallery();
        let row = gallery.find(id)?.context("a row that was listed")?;
        let own = own_names(gallery);
        let value = |column: &str| gallery.value(row, column).map(str::to_owned);
        let is_older = value(columns::CELLS)?.is_empty();
        let said = |column: &str, shown: &str| {
            // An older gallery keeps only what is shown, which a manifest may have said.
            let is_own = !is_older || self.listing.manifest.is_none();
            value(if is_older && is_own { shown } else { column })
        };
        let stored = Stored {
            part: value(columns::PART)?,
            pixels: value(own.pixels)?,
            content: value(columns::CONTENT)?,
            modality: said(columns::OWN_MODALITY, MODALITY)?,
            body_part: said(columns::OWN_BODY_PART, BODY_PART)?,
            dims: said(columns::OWN_DIMS, DIMS)?,
            people: match (is_older, &self.listing.manifest) {
                (true, Some(_)) => Pseudonyms::default(),
                _ => Pseudonyms::of_row(gallery, row)?.of_header(),
            },
        };
        let (vector, thumbnail) = stored_parts(gallery, row)?;
        let path = self.path_of(item);
        let facts = Facts {
            part: Some(stored.part.clone()).filter(|part| !part.is_empty()),
            ..Facts::default()
        };
        let id = self.id_of(item, &path, &facts, &mut HashSet::new())?;
        let cells = self.cells_of(item, &path, &stored);
        self.waiting.insert(id.clone());
        self.pending.push(id, &vector, cells, thumbnail);
        Ok(())
    }

    /// Adds what became of one item.
    fn take(&mut self, item: &Item, images: Vec<Embedded>) -> anyhow::Result<()> {
        let path = self.path_of(item);
        if let Some(older) = self.older.remove(&path) {
            self.updated.n_removed += older.len();
            self.removed.extend(older);
        }
        let mut taken = HashSet::new();
        for (facts, outcome) in images {
            match outcome {
                Ok(vector) => {
                    let id = self.id_of(item, &path, &facts, &mut taken)?;
                    let stored = Stored::of(&facts, self.writer.gallery());
                    let cells = self.cells_of(item, &path, &stored);
                    self.waiting.insert(id.clone());
                    let thumbnail = facts.traits.thumbnail;
                    self.pending.push(id, &vector, cells, thumbnail);
                    self.updated.n_new += 1;
                }
                Err(refusal) => self.updated.refused.push(RefusedImage {
                    path: path.clone(),
                    part: facts.part,
                    reason: refusal.code.to_string(),
                    message: refusal.message,
                    pixels: match facts.traits.pixels {
                        0 => String::new(),
                        pixels => format!("{pixels:032x}"),
                    },
                    file: self.root.join(path_of(&path)),
                }),
            }
        }
        Ok(())
    }

    /// Returns an item's path, relative to the root where it lies below it.
    fn path_of(&self, item: &Item) -> String {
        let path = path_of(&item.path);
        match path.strip_prefix(&self.root) {
            Ok(below) if below != Path::new("") => text_of(below),
            Ok(_) => ".".to_owned(),
            Err(_) => item.path.clone(),
        }
    }

    /// Returns the id of an image: the manifest's, or its path and part.
    fn id_of(
        &mut self,
        item: &Item,
        path: &str,
        facts: &Facts,
        taken: &mut HashSet<String>,
    ) -> anyhow::Result<String> {
        let row = self
            .idx_of
            .get(&item.key)
            .and_then(|&idx| self.listing.row(idx));
        let named = row.and_then(|row| row.get(ID)).filter(|id| !id.is_empty());
        let mut id = named.map_or_else(|| with_part(path, facts.part.as_deref()), str::to_owned);
        if named.is_none() && item.again > 0 {
            id += &format!("#row={}", item.again + 1);
        }
        let gallery = self.writer.gallery();
        let is_waiting = |id: &str| taken.contains(id) || self.waiting.contains(id);
        let is_there = |id: &str| -> anyhow::Result<bool> {
            let is_leaving = self.removed.contains(id) || self.gone.contains(id);
            Ok(!is_leaving && gallery.find(id)?.is_some())
        };
        if named.is_none() && (is_waiting(&id) || is_there(&id)?) {
            // Another folder has a file of the same name.
            id = with_part(
                &text_of(&self.root.join(path_of(path))),
                facts.part.as_deref(),
            );
        }
        let is_replaced = is_there(&id)?;
        if is_waiting(&id) || (is_replaced && !self.replaces) {
            anyhow::bail!(
                "duplicate id {id}: add a column id that distinguishes the images, or replace the older one \
                 with --replace"
            );
        }
        if is_replaced || self.gone.remove(&id) {
            self.removed.insert(id.clone());
            self.updated.n_removed += usize::from(is_replaced);
        }
        taken.insert(id.clone());
        Ok(id)
    }

    /// Returns the cells of one image.
    fn cells_of(&self, item: &Item, path: &str, stored: &Stored) -> Vec<(String, String)> {
        let gallery = self.writer.gallery();
        let own = own_names(gallery);
        let idx = self.idx_of.get(&item.key).copied();
        let row = idx.and_then(|idx| self.listing.row(idx));
        let cell = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut cells = vec![
            cell(columns::PATH, path),
            cell(columns::PART, &stored.part),
            cell(own.root, &text_of(&self.root)),
            cell(own.key, &format!("{:032x}", item.key)),
            cell(own.pixels, &stored.pixels),
            cell(columns::CELLS, &digest_of_cells(row, gallery)),
            cell(columns::CONTENT, &stored.content),
            cell(columns::CHANGED, &item.changed_ns.to_string()),
            cell(columns::OWN_MODALITY, &stored.modality),
            cell(columns::OWN_BODY_PART, &stored.body_part),
            cell(columns::OWN_DIMS, &stored.dims),
            cell(columns::OWN_PATIENT, &stored.people.patient.header),
            cell(columns::OWN_ISSUED_PATIENT, &stored.people.patient.issued),
            cell(columns::OWN_STUDY, &stored.people.study.header),
            cell(columns::OWN_SERIES, &stored.people.series.header),
        ];
        // Cells of the manifest take precedence over what the file states.
        if let (Some(table), Some(idx)) = (&self.listing.manifest, idx) {
            let stated = cells_of_manifest(table, idx, gallery).into_iter();
            cells.extend(stated.filter(|(_, value)| !value.is_empty()));
        }
        cells.extend([
            cell(MODALITY, &stored.modality),
            cell(BODY_PART, &stored.body_part),
            cell(DIMS, &stored.dims),
            cell(columns::PATIENT, stored.people.patient.shown()),
            cell(columns::STUDY, stored.people.study.shown()),
            cell(columns::SERIES, stored.people.series.shown()),
        ]);
        cells
    }

    fn save_if_due(&mut self) -> anyhow::Result<()> {
        if self.pending.len() >= MAX_ROWS || self.saved.elapsed() >= SAVE_EVERY {
            self.save()?;
        }
        Ok(())
    }

    /// Writes the rows since the last save, and removes those that they replace.
    fn save(&mut self) -> anyhow::Result<()> {
        let removed: Vec<String> = self.removed.drain().collect();
        self.pending.save(&mut self.writer, &removed)?;
        self.waiting.clear();
        self.saved = Instant::now();
        Ok(())
    }
}

/// Joins a path and the name of an image in it.
pub(crate) fn with_part(path: &str, part: Option<&str>) -> String {
    match part {
        None | Some("") => path.to_owned(),
        Some(part) => format!("{path}#{part}"),
    }
}
