//! Brings a gallery up to date with an archive: embeds what is new, and removes what is gone.

mod refusals;
mod reuse;
mod sorted;

use m3ret_manifest::{path_of, text_of};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use m3ret_encoder::Model;
use m3ret_manifest::columns::{BODY_PART, DIMS, ID, MODALITY, MODALITY_GUESS};
use m3ret_manifest::{Row, Table};
use m3ret_search::{Gallery, Numbers, RowId, Setup, Writer};
use serde::Serialize;

use super::columns::{self, OwnNames, own_names};
use super::rows::{
    PendingRows, Pseudonyms, RowParts, cell_of_stated, cells_of_manifest, digest_of_cells,
    is_of_erased, notes_of_left_out,
};
use super::{KnownVectors, maker_of};
use crate::embed::ahead::AheadOptions;
use crate::embed::items::{Item, Listing, list};
use crate::embed::work::{Embedded, embed_each};
use crate::embed::{Facts, Outputs};
use crate::options::{FolderChoice, Reading, VolumeViews};
use crate::watch::{Deferral, Stopped, Watch};
use crate::words::counted;
use refusals::{Remembered, unreadable};
pub(crate) use refusals::{forget_gone, forget_moved, refused_as_erased};
use reuse::Followed;
use sorted::SortedRows;

/// What goes into a gallery, and how.
pub(crate) struct UpdateOptions<'a> {
    /// A folder, file or manifest.
    pub source: &'a Path,
    pub gallery: &'a Path,
    pub reading: &'a Reading,
    /// Which files of a folder are read, and what labels their images.
    pub folder: &'a FolderChoice,
    /// Whether the gallery holds the source and nothing else: rows of files that are gone are removed.
    pub is_mirror: bool,
    /// Whether a new image replaces another one with its id, instead of being an error.
    pub replaces: bool,
    /// Whether a small picture of each image is stored.
    pub has_thumbnails: bool,
    /// Of which pictures volumes have further vectors; `None` for projections, and for slices where the gallery has some.
    pub views: Option<VolumeViews>,
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
    /// Number of rows that were removed: their files are gone or changed, or a new image replaced theirs. Rows of files
    /// that were moved are not counted.
    pub n_removed: usize,
    /// Number of images that were found at another place, by the folder that they left (see `left_folder`).
    #[serde(skip)]
    pub(crate) left_folders: HashMap<PathBuf, usize>,
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
    /// Whether it was refused by an earlier run and not read again, because it has not changed since.
    pub is_remembered: bool,
    /// Hash of all values; empty if they could not be read.
    #[serde(skip)]
    pub(crate) pixels: String,
    /// Where the image lies.
    #[serde(skip)]
    pub(crate) file: PathBuf,
}

/// What a row stores of what its image states itself.
pub(crate) struct Stored {
    part: String,
    pub pixels: String,
    content: String,
    modality: String,
    modality_guess: String,
    body_part: String,
    dims: String,
    people: Pseudonyms,
}

impl Stored {
    pub(crate) fn of(facts: &Facts, gallery: &Gallery) -> Self {
        let body_part = facts.body_part.as_deref().unwrap_or_default();
        Self {
            part: facts.part.clone().unwrap_or_default(),
            pixels: format!("{:032x}", facts.traits.pixels),
            content: facts.traits.content.map_or_else(String::new, hexadecimal),
            modality: facts.modality.clone().unwrap_or_default(),
            modality_guess: facts.traits.modality_guess.unwrap_or_default().to_owned(),
            body_part: body_part.to_ascii_lowercase().replace(' ', "-"),
            dims: facts.dims.clone().unwrap_or_default(),
            people: Pseudonyms::of_facts(facts, gallery),
        }
    }
}

impl Stored {
    /// Returns the cells that say where an image lies and what it states itself.
    pub(super) fn placed(
        &self,
        item: &Item,
        place: &Place<'_>,
        own: &OwnNames,
    ) -> Vec<(String, String)> {
        let mut placed = cells([
            (columns::PATH, place.path),
            (own.root, &text_of(place.root)),
            (own.key, &hexadecimal(item.key)),
            (columns::CONTENT, &self.content),
            (columns::CHANGED, &item.changed_ns.to_string()),
        ]);
        placed.extend(self.placed_nowhere(own));
        placed
    }

    /// Returns the cells that say what an image states itself; of one without a file, these are all.
    pub(crate) fn placed_nowhere(&self, own: &OwnNames) -> Vec<(String, String)> {
        cells([
            (columns::PART, self.part.as_str()),
            (own.pixels, &self.pixels),
            (columns::OWN_MODALITY, &self.modality),
            (columns::OWN_MODALITY_GUESS, &self.modality_guess),
            (columns::OWN_BODY_PART, &self.body_part),
            (columns::OWN_DIMS, &self.dims),
            (columns::OWN_PATIENT, &self.people.patient.header),
            (columns::OWN_ISSUED_PATIENT, &self.people.patient.issued),
            (columns::OWN_STUDY, &self.people.study.header),
            (columns::OWN_SERIES, &self.people.series.header),
        ])
    }

    /// Returns the cells that people see where no manifest states others.
    pub(crate) fn shown(&self) -> Vec<(String, String)> {
        cells([
            (MODALITY, &self.modality),
            (MODALITY_GUESS, &self.modality_guess),
            (BODY_PART, &self.body_part),
            (DIMS, &self.dims),
            (columns::PATIENT, self.people.patient.shown()),
            (columns::STUDY, self.people.study.shown()),
            (columns::SERIES, self.people.series.shown()),
        ])
    }
}

/// Where an image lies: the path as a row stores it, and the folder that it is relative to.
pub(super) struct Place<'a> {
    pub path: &'a str,
    pub root: &'a Path,
}

fn cells<const N: usize>(cells: [(&str, &str); N]) -> Vec<(String, String)> {
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    cells.map(owned).to_vec()
}

/// An image that needs a new row, with its vector at unit length.
struct NewImage {
    facts: Facts,
    stored: Stored,
    vector: Vec<f32>,
}

/// Time between saves: what a power cut may lose.
const SAVE_EVERY: Duration = Duration::from_secs(20);
/// Most numbers of vectors that wait while rows are written again with other cells: 256 MiB.
const MAX_RELABELLED_NUMBERS: usize = 1 << 26;
/// Most rows that are added together.
const MAX_ROWS: usize = 4096;

/// Lists what there is, with the columns that the gallery stores, and tells what a person should know of it.
fn listed(
    source: &Path,
    wanted: &UpdateOptions<'_>,
    progress: &dyn Watch,
) -> anyhow::Result<Listing> {
    let options = &wanted.reading.options;
    let listing = list(source, &Outputs::default(), options, wanted.folder)?;
    let listing = listing.keeping(&wanted.reading.keep, wanted.is_mirror)?;
    listing.notes.iter().for_each(|note| progress.note(note));
    if let Some(table) = &listing.table
        && listing.has_rows()
    {
        tell_notes(table, progress);
    }
    Ok(listing)
}

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
    let listing = listed(&source, wanted, progress)?;
    let root = root_of(&source);
    if wanted.is_mirror
        && let Some((updated, left)) = kept_as_it_is(wanted, &listing, &root)
        && left.is_none()
    {
        // What a killed run left in a folder that cannot be written stays there.
        let _ = m3ret_search::collect(wanted.gallery);
        return Ok(updated);
    }
    let is_new = || Gallery::open(wanted.gallery).map_or(true, |there| there.is_empty());
    crate::error::ensure!(
        wanted.is_mirror || !listing.items.is_empty() || !is_new(),
        "found no image in {}, so that no gallery is made; a gallery needs at least one",
        wanted.source.display()
    );
    let writer = match open_or_create(wanted, model, progress) {
        Err(error) if wanted.is_mirror && is_read_only(&error) => {
            let (updated, told) = as_it_is(wanted, &listing, &root, model).ok_or(error)?;
            progress.note(&told);
            return Ok(updated);
        }
        writer => writer?,
    };
    let mut update = Update::new(writer, root, &listing, wanted)?;
    let deferral = Deferral::start(progress);
    let left = update.reuse(options, progress, &deferral)?;
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
        views: views_of(wanted, update.writer.gallery()),
        known: Some(&known),
    };
    embed_each(&left, model, reading, |done| {
        if let Some((idx, images)) = done {
            update.take(left[idx], images)?;
            progress.advance(update.updated.refused.len());
        }
        update.save_if_stopped(&deferral)?;
        update.save_if_due()
    })?;
    // Rows of files that are gone stay until here, so that files that were moved can use their vectors.
    update.remove_gone();
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
    for note in notes_of_left_out(table) {
        progress.note(&note);
    }
}

/// How many images a gallery lacks or has in another state than a listing.
struct Outdated {
    /// Images that are new, or changed.
    n_missing: usize,
    /// Rows of images that are gone, changed or labelled otherwise.
    n_stale: usize,
}

/// Compares a gallery with a listing, without a lock: returns the counts, and what differs.
fn kept_as_it_is(
    wanted: &UpdateOptions<'_>,
    listing: &Listing,
    root: &Path,
) -> Option<(UpdateSummary, Option<Outdated>)> {
    let gallery = Gallery::open(wanted.gallery).ok()?;
    let own = own_names(&gallery);
    let idx_of = listing.idx_by_key();
    let remembered = Remembered::of(&gallery, listing, wanted.reading, None).ok()?;
    let mut there = HashSet::with_capacity(idx_of.len());
    let mut n_stale = 0;
    for row in gallery.rows() {
        let key = u128::from_str_radix(gallery.value(row, own.key).ok()?, 16).ok();
        let idx = key.and_then(|key| idx_of.get(&key).copied());
        let Some((key, idx)) = key.zip(idx) else {
            n_stale += 1;
            continue;
        };
        let is_in_step = gallery.value(row, columns::CELLS).ok()? == listing.digest(idx, &gallery);
        if is_in_step && !is_changed(&gallery, row, &listing.items[idx]).ok()? {
            there.insert(key);
        } else {
            n_stale += 1;
        }
    }
    let (mut n_missing, mut refused) = (0, Vec::new());
    for item in &listing.items {
        refused.extend(remembered.images_of(item));
        if !there.contains(&item.key) && !remembered.spares(item) {
            let told = unreadable(item, root);
            n_missing += usize::from(told.is_none());
            refused.extend(told);
        }
    }
    let updated = UpdateSummary {
        n_kept: there.len(),
        n_not_images: listing.n_foreign,
        refused,
        ..UpdateSummary::default()
    };
    let is_outdated = n_missing + n_stale > 0;
    Some((
        updated,
        is_outdated.then_some(Outdated { n_missing, n_stale }),
    ))
}

/// Returns whether a gallery cannot be opened for changes because its folder only can be read.
fn is_read_only(error: &anyhow::Error) -> bool {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    let error = error.downcast_ref::<m3ret_search::Error>();
    error.is_some_and(|error| match error {
        m3ret_search::Error::Io { source, .. } => {
            [PermissionDenied, ReadOnlyFilesystem].contains(&source.kind())
        }
        _ => false,
    })
}

/// Takes a gallery that cannot be changed as it is, and tells what it lacks. `None` if there is none of the model.
fn as_it_is(
    wanted: &UpdateOptions<'_>,
    listing: &Listing,
    root: &Path,
    model: &Model,
) -> Option<(UpdateSummary, String)> {
    let there = Gallery::open(wanted.gallery).ok()?;
    there.check_maker(&maker_of(model)).ok()?;
    let (updated, outdated) = kept_as_it_is(wanted, listing, root)?;
    let Outdated { n_missing, n_stale } = outdated?;
    let told = format!(
        "{} cannot be written, so that it is searched as it is: {} new or changed and not searched, {} gone or \
         changed and still searched; name a folder that can be written with --cache",
        wanted.gallery.display(),
        counted(n_missing as u64, "image is", "images are"),
        counted(n_stale as u64, "image is", "images are"),
    );
    Some((updated, told))
}

/// Returns the folder that paths of a source are relative to.
fn root_of(source: &Path) -> PathBuf {
    match source.parent() {
        Some(parent) if !source.is_dir() => parent.to_owned(),
        _ => source.to_owned(),
    }
}

/// Returns an item's path, relative to the root where it lies below it.
fn stored_path(item: &Item, root: &Path) -> String {
    let path = path_of(&item.path);
    match path.strip_prefix(root) {
        Ok(below) if below != Path::new("") => text_of(below),
        Ok(_) => ".".to_owned(),
        Err(_) => item.path.clone(),
    }
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

    /// Returns whether there are rows of a manifest, which come before other items.
    fn has_rows(&self) -> bool {
        self.items.first().is_some_and(Item::is_row)
    }

    /// Returns what is stated of item `idx` by a manifest or by names of folders.
    fn row(&self, idx: usize) -> Option<Row<'_>> {
        self.table.as_ref()?.row(idx)
    }

    /// Hashes what is stated of an item.
    fn digest(&self, idx: usize, gallery: &Gallery) -> String {
        digest_of_cells(self.row(idx), gallery)
    }
}

/// Returns of which pictures volumes have further vectors: of projections, and of slices where the gallery has some, unless
/// it is said.
fn views_of(wanted: &UpdateOptions<'_>, gallery: &Gallery) -> VolumeViews {
    wanted.views.unwrap_or_else(|| VolumeViews {
        slices: VolumeViews::among(gallery.views()).slices,
        ..VolumeViews::default()
    })
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
            // Of another model: a build that was interrupted before its first image was saved.
            Err(error) if Gallery::open(wanted.gallery).is_ok_and(|there| there.is_empty()) => {
                let name = wanted.gallery.display();
                let advice =
                    format!("{name} holds no image; remove it to build it with this model");
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
    match Writer::create(wanted.gallery, setup) {
        // Another process made the gallery since the look.
        Err(m3ret_search::Error::Mismatch { .. }) if Gallery::open(wanted.gallery).is_ok() => {
            let writer = Writer::open(wanted.gallery)?;
            writer.gallery().check_maker(&maker_of(model))?;
            Ok(writer)
        }
        made => made,
    }
}

/// The state of an update.
struct Update<'a> {
    writer: Writer,
    listing: &'a Listing,
    is_mirror: bool,
    replaces: bool,
    /// The folder that paths are relative to.
    root: PathBuf,
    /// Where the listing has an item, by its key.
    idx_of: HashMap<u128, usize>,
    sorted: SortedRows,
    /// Ids of rows that this update is going to remove; images that come before may take them.
    leaving: HashSet<String>,
    /// Ids that are removed with the next save.
    removed: HashSet<String>,
    /// Those of them whose rows are added again as those of other images.
    moved: HashSet<String>,
    /// The ids that wait to be added.
    waiting: HashSet<String>,
    /// Digests and ids of rows that wait to be added with vectors that are there already.
    followed: Vec<Followed>,
    pending: PendingRows,
    remembered: Remembered,
    saved: Instant,
    updated: UpdateSummary,
}

impl<'a> Update<'a> {
    fn new(
        writer: Writer,
        root: PathBuf,
        listing: &'a Listing,
        wanted: &UpdateOptions<'_>,
    ) -> anyhow::Result<Self> {
        // What a mirror does not list is forgotten.
        let others_of = (!wanted.is_mirror).then_some(root.as_path());
        let remembered = Remembered::of(writer.gallery(), listing, wanted.reading, others_of)?;
        let idx_of = listing.idx_by_key();
        let sorted = SortedRows::of(writer.gallery(), listing, &idx_of, &root)?;
        let mut update = Self {
            listing,
            is_mirror: wanted.is_mirror,
            replaces: wanted.replaces,
            root,
            idx_of,
            sorted,
            leaving: HashSet::new(),
            removed: HashSet::new(),
            moved: HashSet::new(),
            waiting: HashSet::new(),
            followed: Vec::new(),
            pending: PendingRows::default(),
            remembered,
            saved: Instant::now(),
            updated: UpdateSummary::default(),
            writer,
        };
        update.sort_refused();
        update.list_leaving();
        update.relabel_all()?;
        Ok(update)
    }

    /// Tells the refused images of items that are not read again, and forgets those of items that are.
    fn sort_refused(&mut self) {
        let new: HashSet<u128> = self.new_items().map(|item| item.key).collect();
        for item in &self.listing.items {
            match new.contains(&item.key) {
                true => self.remembered.forget(item),
                false => {
                    let images = self.remembered.images_of(item);
                    self.updated.refused.extend(images);
                }
            }
        }
    }

    /// Lists the ids that are going to be free.
    fn list_leaving(&mut self) {
        let (new, root) = (self.new_items(), &self.root);
        let mut leaving = self.sorted.stale_of(new, self.listing, root);
        if self.is_mirror {
            leaving.extend(self.sorted.not_listed());
        }
        leaving.extend(self.sorted.surplus(self.listing));
        self.leaving = leaving;
    }

    /// Returns the items of the listing that have no row that is up to date, and were not refused as they are.
    fn new_items(&self) -> impl Iterator<Item = &'a Item> + '_ {
        let items = self.listing.items.iter();
        items.filter(|item| !self.sorted.known.contains(&item.key) && !self.remembered.spares(item))
    }

    /// Removes a row whose image is gone or was replaced. Its id may be that of another image by now, which stays.
    fn remove(&mut self, id: &str) {
        if self.leaving.remove(id) {
            self.removed.insert(id.to_owned());
            self.updated.n_removed += 1;
        }
    }

    /// Removes what a mirror no longer lists, and rows of images that a manifest lists fewer times than before.
    fn remove_gone(&mut self) {
        for id in self.sorted.surplus(self.listing) {
            self.remove(&id);
        }
        if self.is_mirror {
            self.updated.n_removed += self.leaving.len();
            self.removed.extend(self.leaving.drain());
        }
    }

    /// Adds what became of one item.
    fn take(&mut self, item: &Item, images: Vec<Embedded>) -> anyhow::Result<()> {
        let path = self.path_of(item);
        let mut stale = self.sorted.take_stale(item, self.listing, &self.root);
        let mut new = Vec::new();
        for (facts, outcome) in images {
            match outcome {
                Ok(vector) => {
                    let stored = Stored::of(&facts, self.writer.gallery());
                    if !self.keep_stale(item, &stored, &mut stale)? {
                        new.push(NewImage {
                            facts,
                            stored,
                            vector,
                        });
                    }
                }
                Err(refusal) => {
                    let image = RefusedImage {
                        path: path.clone(),
                        part: facts.part,
                        reason: refusal.code.to_string(),
                        message: refusal.message,
                        is_remembered: false,
                        pixels: match facts.traits.pixels {
                            0 => String::new(),
                            pixels => format!("{pixels:032x}"),
                        },
                        file: self.root.join(path_of(&path)),
                    };
                    self.remembered.keep(item, refusal.code, &image);
                    self.updated.refused.push(image);
                }
            }
        }
        // These leave before the new images come, whose ids may be the same, and after every image that stays was found.
        stale.iter().for_each(|row| self.remove(&row.id));
        for NewImage {
            facts,
            stored,
            vector,
        } in new
        {
            let cells = self.cells_of(item, &path, &stored);
            if is_of_erased(self.writer.gallery(), &cells) {
                self.refuse_erased(item, &path, facts.part);
                continue;
            }
            let id = self.new_id(item, &path, facts.part.as_deref())?;
            let parts = RowParts {
                vector,
                thumbnail: facts.traits.thumbnail,
                views: facts.traits.views,
            };
            self.pending.push(id, cells, parts);
            self.updated.n_new += 1;
        }
        Ok(())
    }

    /// Returns an item's path, relative to the root where it lies below it.
    fn path_of(&self, item: &Item) -> String {
        stored_path(item, &self.root)
    }

    /// Returns the id of a new image: the manifest's, or its path and part. The id is then taken, and a row that has it
    /// is replaced.
    fn new_id(&mut self, item: &Item, path: &str, part: Option<&str>) -> anyhow::Result<String> {
        let row = self
            .idx_of
            .get(&item.key)
            .and_then(|&idx| self.listing.row(idx));
        let named = row.and_then(|row| row.get(ID)).filter(|id| !id.is_empty());
        let again = match item.again {
            0 => String::new(),
            n => format!("#row={}", n + 1),
        };
        let mut id = named.map_or_else(|| with_part(path, part) + &again, str::to_owned);
        if named.is_none() && (self.waiting.contains(&id) || self.is_in_use(&id)?) {
            // Another folder has a file of the same name.
            let whole = text_of(&self.root.join(path_of(path)));
            id = with_part(&whole, part) + &again;
        }
        let is_there = self.is_in_use(&id)?;
        // A row that the listing has as well is not an older state of this image.
        let may_replace = self.replaces && !self.sorted.current.contains(&id);
        if self.waiting.contains(&id) || (is_there && !may_replace) {
            anyhow::bail!(
                "duplicate id {id}: add a column id that distinguishes the images, or replace the older one \
                 with --replace"
            );
        }
        if is_there {
            self.leaving.insert(id.clone());
        }
        self.remove(&id);
        self.waiting.insert(id.clone());
        Ok(id)
    }

    /// Returns whether the gallery has a row of this id that stays.
    fn is_in_use(&self, id: &str) -> anyhow::Result<bool> {
        let is_leaving = self.removed.contains(id) || self.leaving.contains(id);
        Ok(!is_leaving && self.writer.gallery().find(id)?.is_some())
    }

    /// Returns the cells of one image.
    fn cells_of(&self, item: &Item, path: &str, stored: &Stored) -> Vec<(String, String)> {
        let gallery = self.writer.gallery();
        let idx = self.idx_of.get(&item.key).copied();
        let row = idx.and_then(|idx| self.listing.row(idx));
        let root = &self.root;
        let mut cells = stored.placed(item, &Place { path, root }, own_names(gallery));
        cells.push((columns::CELLS.to_owned(), digest_of_cells(row, gallery)));
        // What is stated takes precedence over what the file says.
        if let (Some(table), Some(idx)) = (&self.listing.table, idx) {
            let stated = cells_of_manifest(table, idx, gallery).into_iter();
            cells.extend(stated.filter(|(_, value)| !value.is_empty()));
        }
        cells.push(cell_of_stated(&cells));
        cells.extend(stored.shown());
        cells
    }

    fn save_if_due(&mut self) -> anyhow::Result<()> {
        if self.pending.len() >= MAX_ROWS || self.saved.elapsed() >= SAVE_EVERY {
            self.save()?;
        }
        Ok(())
    }

    /// Saves and ends the update if its watcher stopped it.
    fn save_if_stopped(&mut self, deferral: &Deferral<'_>) -> anyhow::Result<()> {
        if deferral.is_stopped() {
            self.save()?;
            let resumed_by = match self.is_mirror {
                true => "the same command resumes",
                false => "`m3ret index add` resumes",
            };
            let saved = format!("interrupted; what is done is in the gallery, and {resumed_by}");
            anyhow::bail!(Stopped { saved });
        }
        Ok(())
    }

    /// Writes the rows since the last save, and removes those that they replace.
    fn save(&mut self) -> anyhow::Result<()> {
        let removed: Vec<String> = self.removed.drain().collect();
        self.pending.save(&mut self.writer, &removed)?;
        // After the rows: whoever is not remembered is only read again.
        self.remembered.save(&mut self.writer)?;
        self.waiting.clear();
        self.moved.clear();
        for Followed { digest, id } in self.followed.drain(..) {
            self.sorted.add(digest, id.clone());
            self.sorted.current.insert(id);
        }
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
