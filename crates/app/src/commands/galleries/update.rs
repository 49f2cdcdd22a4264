//! Brings a gallery up to date with an archive: what is new is embedded, what is gone is removed.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use m3ret_encoder::Model;
use m3ret_imaging::manifest::Table;
use m3ret_search::{Batch, Gallery, Numbers, RowId, Setup, Writer};
use serde::Serialize;

use super::rows::{Columns, Pseudonyms, cells_of_manifest, left_out_columns};
use super::{columns, maker_of};
use crate::cli::ReadArguments;
use crate::commands::embed::ahead::Reading;
use crate::commands::embed::items::{Item, Listing, list};
use crate::commands::embed::work::{Embedded, embed_each};
use crate::commands::embed::{Facts, Outputs};
use crate::output::Deferred;
use crate::progress::Progress;

/// What is to be in a gallery.
pub(in crate::commands) struct Wanted<'a> {
    /// A folder, file or manifest.
    pub(in crate::commands) source: &'a Path,
    pub(in crate::commands) gallery: &'a Path,
    pub(in crate::commands) reading: &'a ReadArguments,
    /// The gallery is to hold nothing else.
    pub(in crate::commands) is_mirror: bool,
    pub(in crate::commands) has_thumbnails: bool,
    /// How vectors of a new gallery are stored.
    pub(in crate::commands) numbers: Numbers,
}

/// What was done.
#[derive(Debug, Default, Serialize)]
pub(in crate::commands) struct Updated {
    pub(in crate::commands) n_new: usize,
    pub(in crate::commands) n_kept: usize,
    pub(in crate::commands) n_removed: usize,
    /// Files that hold no image format.
    pub(in crate::commands) n_not_images: usize,
    pub(in crate::commands) refused: Vec<Refused>,
}

/// An image that has no vector.
#[derive(Debug, Serialize)]
pub(in crate::commands) struct Refused {
    pub(in crate::commands) path: String,
    pub(in crate::commands) part: Option<String>,
    pub(in crate::commands) reason: String,
    pub(in crate::commands) message: String,
}

/// How long work may be lost by a power cut.
const SAVE_EVERY: Duration = Duration::from_secs(20);
/// Rows that are added together at most.
const MAX_ROWS: usize = 4096;

/// Embeds what is new and changed, and adds it; an interrupted update goes on where it was.
pub(in crate::commands) fn update(
    wanted: &Wanted<'_>,
    model: &Model,
    progress: &Progress,
) -> anyhow::Result<Updated> {
    let source = wanted
        .source
        .canonicalize()
        .with_context(|| format!("opening {}", wanted.source.display()))?;
    let options = wanted.reading.options();
    let listing = list(&source, &Outputs::default(), &options)?;
    if let Some(table) = &listing.manifest {
        tell_left_out(table, progress);
    }
    if wanted.is_mirror
        && let Some(updated) = is_up_to_date(wanted.gallery, &listing)
    {
        return Ok(updated);
    }
    let writer = open_or_create(wanted, model, progress)?;
    let mut update = Update::new(writer, &source, &listing, wanted.is_mirror)?;
    let left: Vec<&Item> = listing
        .items
        .iter()
        .filter(|item| !update.known.contains(&item.key))
        .collect();
    update.updated.n_kept = listing.items.len() - left.len();
    update.updated.n_not_images = listing.n_foreign;
    progress.count(left.len());
    let deferred = Deferred::start();
    let reading = Reading {
        options: &options,
        n_readers: wanted.reading.n_jobs(),
        has_thumbnails: wanted.has_thumbnails,
    };
    embed_each(&left, model, reading, |done| {
        if let Some((idx, images)) = done {
            update.take(left[idx], images)?;
            progress.advance(update.updated.refused.len());
        }
        if deferred.has_come() {
            update.save()?;
            deferred
                .end("interrupted; what is done is in the gallery, and the same command goes on");
        }
        update.save_if_due()
    })?;
    update.save()?;
    drop(deferred);
    if update.writer.is_calibration_old() {
        progress.announce(", measuring how to search");
        update.writer.compact()?;
    }
    progress.clear();
    Ok(update.updated)
}

fn tell_left_out(table: &Table, progress: &Progress) {
    let names = left_out_columns(table);
    if !names.is_empty() {
        progress.note(&format!(
            "columns that name people are not stored: {}",
            names.join(", ")
        ));
    }
}

/// Says what there is, if a gallery holds exactly what is listed: then nobody needs to write.
fn is_up_to_date(gallery: &Path, listing: &Listing) -> Option<Updated> {
    let gallery = Gallery::open(gallery).ok()?;
    let wanted: HashSet<u128> = listing.items.iter().map(|item| item.key).collect();
    let mut there = HashSet::with_capacity(wanted.len());
    for row in gallery.rows() {
        let key = gallery.value(row, columns::KEY).ok()?;
        there.insert(u128::from_str_radix(key, 16).ok()?);
    }
    (there == wanted).then(|| Updated {
        n_kept: listing.items.len(),
        n_not_images: listing.n_foreign,
        ..Updated::default()
    })
}

/// How long to wait between two attempts to become the writer.
const PATIENCE: Duration = Duration::from_millis(250);

fn open_or_create(
    wanted: &Wanted<'_>,
    model: &Model,
    progress: &Progress,
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

fn open_once(wanted: &Wanted<'_>, model: &Model) -> m3ret_search::Result<Writer> {
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

/// An update at work.
struct Update<'a> {
    writer: Writer,
    listing: &'a Listing,
    /// The folder that paths are relative to.
    root: PathBuf,
    /// Row numbers of the manifest, by the key of the item.
    row_of: HashMap<u128, usize>,
    /// Keys of the images that are in the gallery.
    known: HashSet<u128>,
    /// Rows of older states of files, by path: they go when the new state is added.
    older: HashMap<String, Vec<String>>,
    removed: HashSet<String>,
    ids: Vec<String>,
    /// The ids that wait to be added.
    waiting: HashSet<String>,
    vectors: Vec<f32>,
    cells: Columns,
    thumbnails: Vec<Vec<u8>>,
    saved: Instant,
    updated: Updated,
}

impl<'a> Update<'a> {
    fn new(
        writer: Writer,
        source: &Path,
        listing: &'a Listing,
        is_mirror: bool,
    ) -> anyhow::Result<Self> {
        let is_folder = source.is_dir();
        let root = match source.parent() {
            Some(parent) if !is_folder => parent.to_owned(),
            _ => source.to_owned(),
        };
        let keys: HashMap<u128, usize> = listing
            .items
            .iter()
            .enumerate()
            .map(|(idx, item)| (item.key, idx))
            .collect();
        let mut update = Self {
            listing,
            root,
            row_of: match listing.manifest {
                Some(_) => keys.clone(),
                None => HashMap::new(),
            },
            known: HashSet::new(),
            older: HashMap::new(),
            removed: HashSet::new(),
            ids: Vec::new(),
            waiting: HashSet::new(),
            vectors: Vec::new(),
            cells: Columns::default(),
            thumbnails: Vec::new(),
            saved: Instant::now(),
            updated: Updated::default(),
            writer,
        };
        let rows: Vec<RowId> = update.writer.gallery().rows().collect();
        for row in rows {
            let gallery = update.writer.gallery();
            let key = u128::from_str_radix(gallery.value(row, columns::KEY)?, 16).ok();
            let id = gallery.id(row)?.to_owned();
            match key.filter(|key| keys.contains_key(key)) {
                Some(key) => _ = update.known.insert(key),
                None if is_mirror => _ = update.removed.insert(id),
                None if gallery.value(row, columns::ROOT)? == update.root.to_string_lossy() => {
                    let path = gallery.value(row, columns::PATH)?.to_owned();
                    update.older.entry(path).or_default().push(id);
                }
                None => {}
            }
        }
        update.updated.n_removed = update.removed.len();
        Ok(update)
    }

    /// Takes what became of one item.
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
                    self.push(item, &path, id, (facts, vector));
                }
                Err(refusal) => self.updated.refused.push(Refused {
                    path: path.clone(),
                    part: facts.part,
                    reason: refusal.code.to_string(),
                    message: refusal.message,
                }),
            }
        }
        Ok(())
    }

    /// Returns an item's path, relative to the root where it lies below it.
    fn path_of(&self, item: &Item) -> String {
        let below = Path::new(&item.path).strip_prefix(&self.root);
        match below {
            Ok(below) if below != Path::new("") => below.to_string_lossy().into_owned(),
            Ok(_) => ".".to_owned(),
            Err(_) => item.path.clone(),
        }
    }

    /// Returns the id of an image: the manifest's, or its path and part.
    fn id_of(
        &self,
        item: &Item,
        path: &str,
        facts: &Facts,
        taken: &mut HashSet<String>,
    ) -> anyhow::Result<String> {
        let table = self.listing.manifest.as_ref();
        let row = table.and_then(|table| table.row(*self.row_of.get(&item.key)?));
        let named = row
            .and_then(|row| row.get("id"))
            .filter(|id| !id.is_empty());
        let mut id = named.map_or_else(|| with_part(path, facts.part.as_deref()), str::to_owned);
        let gallery = self.writer.gallery();
        let is_taken = |id: &str| -> anyhow::Result<bool> {
            Ok(taken.contains(id)
                || self.waiting.contains(id)
                || (gallery.find(id)?.is_some() && !self.removed.contains(id)))
        };
        if named.is_none() && is_taken(&id)? {
            // Another folder has a file of the same name.
            id = with_part(
                &self.root.join(path).to_string_lossy(),
                facts.part.as_deref(),
            );
        }
        if is_taken(&id)? {
            anyhow::bail!(
                "the id {id} comes twice; name images apart by a column id, or remove the older one"
            );
        }
        taken.insert(id.clone());
        Ok(id)
    }

    fn push(&mut self, item: &Item, path: &str, id: String, (facts, vector): (Facts, Vec<f32>)) {
        let gallery = self.writer.gallery();
        let mut cells = vec![
            (columns::PATH.to_owned(), path.to_owned()),
            (
                columns::PART.to_owned(),
                facts.part.clone().unwrap_or_default(),
            ),
            (
                columns::ROOT.to_owned(),
                self.root.to_string_lossy().into_owned(),
            ),
            (columns::KEY.to_owned(), format!("{:032x}", item.key)),
            (
                columns::PIXELS.to_owned(),
                format!("{:032x}", facts.traits.pixels),
            ),
        ];
        // What the manifest says counts more than what the file says.
        if let (Some(table), Some(&row)) = (&self.listing.manifest, self.row_of.get(&item.key)) {
            let stated = cells_of_manifest(table, row, gallery).into_iter();
            cells.extend(stated.filter(|(_, value)| !value.is_empty()));
        }
        let people = Pseudonyms::of(&facts, gallery);
        let body_part = facts.body_part.unwrap_or_default();
        cells.extend([
            ("modality".to_owned(), facts.modality.unwrap_or_default()),
            (
                "body_part".to_owned(),
                body_part.to_ascii_lowercase().replace(' ', "-"),
            ),
            ("dims".to_owned(), facts.dims.unwrap_or_default()),
            (columns::PATIENT.to_owned(), people.patient),
            (columns::STUDY.to_owned(), people.study),
            (columns::SERIES.to_owned(), people.series),
        ]);
        self.waiting.insert(id.clone());
        self.ids.push(id);
        self.vectors.extend(vector);
        self.cells.push(cells);
        self.thumbnails.push(facts.traits.thumbnail);
        self.updated.n_new += 1;
    }

    fn save_if_due(&mut self) -> anyhow::Result<()> {
        if self.ids.len() >= MAX_ROWS || self.saved.elapsed() >= SAVE_EVERY {
            self.save()?;
        }
        Ok(())
    }

    /// Adds what came since the last save, and removes what it stands for.
    fn save(&mut self) -> anyhow::Result<()> {
        let cells = self.cells.take();
        let thumbnails = std::mem::take(&mut self.thumbnails);
        let has_any = thumbnails.iter().any(|thumbnail| !thumbnail.is_empty());
        let attachments = [("thumbnail".to_owned(), thumbnails)];
        let batch = Batch {
            vectors: &self.vectors,
            ids: &self.ids,
            columns: &cells,
            attachments: if has_any { &attachments } else { &[] },
        };
        let removed: Vec<String> = self.removed.drain().collect();
        self.writer.replace(batch, &removed)?;
        self.ids.clear();
        self.waiting.clear();
        self.vectors.clear();
        self.saved = Instant::now();
        Ok(())
    }
}

/// Joins a path and the name of an image in it.
pub(in crate::commands) fn with_part(path: &str, part: Option<&str>) -> String {
    match part {
        None | Some("") => path.to_owned(),
        Some(part) => format!("{path}#{part}"),
    }
}
