//! Repairs a gallery: keeps what is provable, and embeds again from their files the images whose rows are lost.

use std::collections::BTreeMap;
use std::path::Path;

use m3ret_manifest::columns::OWN_PREFIX;
use m3ret_manifest::{path_of, text_of};
use m3ret_search::{Gallery, LostRow, Repair, Writer};
use serde::Serialize;

use super::columns::{self, OwnNames, own_names_among};
use super::rows::{PendingRows, RowParts, THUMBNAIL, is_of_erased, set_cell, stored_parts};
use super::update::{Place, Stored};
use super::{KnownVectors, model_of, with_part};
use crate::embed::ahead::AheadOptions;
use crate::embed::items::{Item, item_of};
use crate::embed::work::{Embedded, embed_each};
use crate::options::{ModelChoice, Reading, VolumeViews};
use crate::watch::{Deferral, Watch};

/// What `repair` did.
#[derive(Debug, Default)]
pub struct Repaired {
    /// What was wrong, and what was done with files. Its `n_lost` is what was lost before images were embedded again.
    pub repair: Repair,
    /// Ids of images that were lost and are in the gallery again.
    pub rebuilt: Vec<String>,
    /// Number of rebuilt images whose cell in a column could not be proved, by the column. Whoever has the manifest relabels
    /// the gallery.
    pub lost_cells: BTreeMap<String, usize>,
    /// Images that are lost and whose id or path could be read.
    pub lost: Vec<LostImage>,
    /// Ids of images whose further vectors were lost and are in the gallery again.
    pub completed: Vec<String>,
    /// Images that are in the gallery without further vectors that they had: they are found by the others.
    pub incomplete: Vec<LostImage>,
    /// Number of images that are lost and of which nothing could be read.
    pub n_unread: usize,
}

impl Repaired {
    /// Returns how many images are lost.
    #[must_use]
    pub fn n_lost(&self) -> usize {
        self.lost.len() + self.n_unread
    }

    /// Tells why an image was not embedded again.
    fn give_up(&mut self, image: Wanted, why: &str) {
        let (id, why) = (image.row.id, why.to_owned());
        let told = match image.is_there {
            true => &mut self.incomplete,
            false => &mut self.lost,
        };
        told.push(LostImage { id, why });
    }
}

/// An image that is no longer in a gallery, or not with all its vectors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LostImage {
    /// Its id, or its path and part if the id could not be read.
    pub id: String,
    /// Why it was not embedded again, as a sentence.
    pub why: String,
}

/// Most images that wait to be saved.
const MAX_ROWS: usize = 4096;

/// Repairs a gallery.
///
/// Rows whose bytes cannot be proved leave it. Where the file of such a row is still there and holds the same pixels,
/// the image is embedded again under its id. Labels of a manifest come back where they can be proved.
///
/// # Errors
/// If the folder is no gallery, a newer m3ret wrote it, another process writes to it, or nothing of it can be proved.
/// What hinders embedding is no error, but told of each image.
pub fn repair(
    folder: &Path,
    choice: &ModelChoice,
    reading: &Reading,
    watch: &dyn Watch,
) -> crate::Result<Repaired> {
    let mut repair = m3ret_search::repair(folder)?;
    let rows = std::mem::take(&mut repair.lost);
    let mut repaired = Repaired {
        n_unread: repair.n_lost.saturating_sub(rows.len()),
        repair,
        ..Repaired::default()
    };
    let mut wanted = Vec::new();
    for row in rows {
        match Wanted::of(row) {
            Ok(image) => wanted.push(image),
            Err(Some(lost)) => repaired.lost.push(lost),
            Err(None) => repaired.n_unread += 1,
        }
    }
    let incomplete = std::mem::take(&mut repaired.repair.incomplete);
    if !incomplete.is_empty() {
        let gallery = Gallery::open(folder)?;
        for id in incomplete {
            match Wanted::there(&gallery, &id)? {
                Ok(image) => wanted.push(image),
                Err(image) => repaired.incomplete.extend(image),
            }
        }
    }
    let outcome = rebuild(folder, &mut wanted, &mut repaired, (choice, reading), watch);
    if let Err(error) = outcome {
        let why = format!("{error:#}");
        for image in wanted {
            repaired.give_up(image, &why);
        }
        // The next repair tries these again.
        return Ok(repaired);
    }
    m3ret_search::forget_lost(folder)?;
    if !repaired.lost_cells.is_empty() {
        let columns = repaired.lost_cells.iter();
        let columns: Vec<String> = columns.map(|(name, n)| format!("{name} ({n})")).collect();
        repaired.repair.notes.push(format!(
            "images that were embedded again lack cells that could not be proved: {}; `m3ret index relabel` writes them from a \
             manifest",
            columns.join(", ")
        ));
    }
    Ok(repaired)
}

/// An image that is to be embedded again, and whose file may still be there.
struct Wanted {
    row: LostRow,
    /// Whether the gallery has it, without all its further vectors.
    is_there: bool,
    item: Item,
    own: &'static OwnNames,
}

impl Wanted {
    /// Finds the file of a row. `None` if nothing that names the image could be read.
    fn of(row: LostRow) -> Result<Self, Option<LostImage>> {
        let cells = row.proved.iter().chain(&row.unproved);
        let names: Vec<&str> = cells.map(|(name, _)| name.as_str()).collect();
        let own = own_names_among(&names);
        let path = row.cell(columns::PATH);
        let part = Some(row.cell(columns::PART)).filter(|part| !part.is_empty());
        let name = match row.id.as_str() {
            "" => with_part(path, part),
            id => id.to_owned(),
        };
        let lose = |why: &str| {
            let (id, why) = (name.clone(), why.to_owned());
            Err((!name.is_empty()).then_some(LostImage { id, why }))
        };
        if path.is_empty() || row.cell(own.pixels).is_empty() {
            return lose("the gallery does not say which image this was");
        }
        let file = path_of(row.cell(own.root)).join(path_of(path));
        if !row.is_id_proved && !is_id_of(&row.id, [path, &text_of(&file)], part) {
            return lose("its id cannot be proved");
        }
        if !file.exists() {
            return lose("its file is not there");
        }
        match item_of(path, file, part.map(str::to_owned)) {
            Some(item) => Ok(Self {
                row,
                is_there: false,
                item,
                own,
            }),
            None => lose("its file is not there"),
        }
    }

    /// Finds the file of a row that the gallery has.
    fn there(gallery: &Gallery, id: &str) -> anyhow::Result<Result<Self, Option<LostImage>>> {
        let Some(row) = gallery.find(id)? else {
            return Ok(Err(None));
        };
        let mut proved = Vec::new();
        for column in gallery.columns() {
            let cell = gallery.value(row, column)?;
            proved.push((column.to_owned(), cell.to_owned()));
        }
        let image = Self::of(LostRow {
            id: id.to_owned(),
            is_id_proved: true,
            proved,
            unproved: Vec::new(),
        });
        Ok(image.map(|image| Self {
            is_there: true,
            ..image
        }))
    }

    /// Returns the columns in which a row had something to say, and has nothing in these cells.
    fn lost_cells<'a>(&'a self, cells: &[(String, String)]) -> Vec<&'a str> {
        let said = self
            .row
            .unproved
            .iter()
            .filter(|(_, cell)| !cell.is_empty());
        let is_kept = |name: &str| {
            cells
                .iter()
                .any(|(kept, cell)| kept == name && !cell.is_empty())
        };
        let names = said.map(|(name, _)| name.as_str());
        names
            .filter(|name| !name.starts_with(OWN_PREFIX) && !is_kept(name))
            .collect()
    }

    /// Returns the cells of the image: those that are proved, and for others what its file says now.
    fn cells(&self, stored: &Stored) -> Vec<(String, String)> {
        let mut cells = self.row.proved.clone();
        let is_proved = |name: &str| self.row.proved.iter().any(|(proved, _)| proved == name);
        let is_whole = self.row.unproved.is_empty();
        if !is_whole {
            // The next update takes the row for one whose labels have changed.
            set_cell(&mut cells, columns::CELLS, String::new());
        }
        let place = Place {
            path: self.row.cell(columns::PATH),
            root: &path_of(self.row.cell(self.own.root)),
        };
        let fresh = stored.placed(&self.item, &place, self.own).into_iter();
        cells.extend(
            fresh
                .chain(stored.shown())
                .filter(|(name, _)| !is_proved(name)),
        );
        if !is_whole && !is_proved(columns::STATED) {
            // Who stated an identifier is not known; that of the file is.
            let identifiers = [columns::PATIENT, columns::STUDY, columns::SERIES];
            let shown = stored.shown().into_iter();
            for (name, value) in shown.filter(|(name, _)| identifiers.contains(&name.as_str())) {
                set_cell(&mut cells, &name, value);
            }
        }
        cells
    }
}

/// Returns whether an id is one that m3ret gives: a path, a part, and a number for an image that is listed again.
fn is_id_of(id: &str, paths: [&str; 2], part: Option<&str>) -> bool {
    paths.iter().any(|path| {
        let rest = id.strip_prefix(&with_part(path, part));
        rest.is_some_and(|rest| {
            let number = rest.strip_prefix("#row=");
            rest.is_empty() || number.is_some_and(|number| number.parse::<u64>().is_ok())
        })
    })
}

/// Embeds images again and adds their rows; those that are done leave `wanted`.
fn rebuild(
    folder: &Path,
    wanted: &mut Vec<Wanted>,
    repaired: &mut Repaired,
    (choice, reading): (&ModelChoice, &Reading),
    watch: &dyn Watch,
) -> anyhow::Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let mut writer = Writer::open(folder)?;
    let model = model_of(writer.gallery(), choice, watch)?;
    let deferral = Deferral::start(watch);
    watch.step("embedding lost images again");
    watch.count(wanted.len());
    let gallery = writer.gallery();
    let has_thumbnails = gallery.attachments().contains(&THUMBNAIL);
    let ahead = AheadOptions {
        options: &reading.options,
        n_readers: reading.n_readers,
        has_thumbnails,
        views: match gallery.is_empty() && repaired.repair.views.is_empty() {
            true => VolumeViews::default(),
            false => {
                let before = repaired.repair.views.iter().map(String::as_str);
                VolumeViews::among(gallery.views().into_iter().chain(before))
            }
        },
        known: Some(&KnownVectors::default()),
    };
    let items: Vec<Item> = wanted.iter().map(|image| image.item.clone()).collect();
    let items: Vec<&Item> = items.iter().collect();
    let mut left = std::mem::take(wanted).into_iter();
    let (mut pending, mut there) = (PendingRows::default(), Vec::new());
    let outcome = embed_each(&items, &model, ahead, |done| {
        anyhow::ensure!(!deferral.is_stopped(), "interrupted");
        if let Some((_, images)) = done
            && let Some(image) = left.next()
        {
            match rebuilt(&image, images, writer.gallery()) {
                Ok((cells, parts)) => {
                    for name in image.lost_cells(&cells) {
                        *repaired.lost_cells.entry(name.to_owned()).or_default() += 1;
                    }
                    if image.is_there {
                        there.push(image.row.id.clone());
                    }
                    pending.push(image.row.id, cells, parts);
                }
                Err(why) => repaired.give_up(image, &why),
            }
            watch.advance(repaired.lost.len() + repaired.incomplete.len());
        }
        if pending.len() >= MAX_ROWS {
            save(&mut pending, &mut there, &mut writer, repaired)?;
        }
        Ok(())
    });
    wanted.extend(left);
    save(&mut pending, &mut there, &mut writer, repaired)?;
    outcome
}

/// Adds rows in the place of those `there` that have their ids.
fn save(
    pending: &mut PendingRows,
    there: &mut Vec<String>,
    writer: &mut Writer,
    repaired: &mut Repaired,
) -> anyhow::Result<()> {
    let ids = pending.ids().to_vec();
    pending.save(writer, there)?;
    let is_new = |id: &String| !there.contains(id);
    repaired.rebuilt.extend(ids.into_iter().filter(is_new));
    repaired.completed.append(there);
    Ok(())
}

type Row = (Vec<(String, String)>, RowParts);

/// Returns the row of an image if its file still holds it, else why not.
fn rebuilt(image: &Wanted, images: Vec<Embedded>, gallery: &Gallery) -> Result<Row, String> {
    let row = gallery.find(&image.row.id);
    let row = row.map_err(|error| error.to_string())?;
    if row.is_some() != image.is_there {
        return Err("another image of the gallery has its id".to_owned());
    }
    let first = images.into_iter().next();
    let (facts, outcome) = first.ok_or("its file holds no image")?;
    let vector = outcome.map_err(|refusal| refusal.message)?;
    let stored = Stored::of(&facts, gallery);
    if stored.pixels != image.row.cell(image.own.pixels) {
        return Err("its file holds other pixels now".to_owned());
    }
    let views = facts.traits.views;
    let is_erased = |cells: &[(String, String)]| match is_of_erased(gallery, cells) {
        true => Err("its patient was erased (erased)".to_owned()),
        false => Ok(()),
    };
    let Some(row) = row else {
        let parts = RowParts {
            vector,
            thumbnail: facts.traits.thumbnail,
            views,
        };
        let cells = image.cells(&stored);
        is_erased(&cells)?;
        return Ok((cells, parts));
    };
    let there = stored_parts(gallery, row).map_err(|error| format!("{error:#}"))?;
    Ok((image.row.proved.clone(), RowParts { views, ..there }))
}
