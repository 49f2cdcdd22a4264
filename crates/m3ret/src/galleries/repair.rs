//! Repairs a gallery: keeps what is provable, and embeds again from their files the images whose rows are lost.

use std::collections::BTreeMap;
use std::path::Path;

use m3ret_manifest::columns::OWN_PREFIX;
use m3ret_manifest::{path_of, text_of};
use m3ret_search::{Gallery, LostRow, Repair, Writer};
use serde::Serialize;

use super::columns::{self, OwnNames, own_names_among};
use super::rows::{PendingRows, RowParts, THUMBNAIL, set_cell};
use super::update::{Place, Stored};
use super::{KnownVectors, model_of, with_part};
use crate::embed::ahead::AheadOptions;
use crate::embed::items::{Item, item_of};
use crate::embed::work::{Embedded, embed_each};
use crate::options::{ModelChoice, Reading};
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
    /// Number of images that are lost and of which nothing could be read.
    pub n_unread: usize,
}

impl Repaired {
    /// Returns how many images are lost.
    #[must_use]
    pub fn n_lost(&self) -> usize {
        self.lost.len() + self.n_unread
    }
}

/// An image that is no longer in a gallery.
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
    let outcome = rebuild(folder, &mut wanted, &mut repaired, (choice, reading), watch);
    if let Err(error) = outcome {
        let why = format!("{error:#}");
        let lose = |image: Wanted| image.lost(&why);
        repaired.lost.extend(wanted.into_iter().map(lose));
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

/// A lost image whose file may still be there.
struct Wanted {
    row: LostRow,
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
            Some(item) => Ok(Self { row, item, own }),
            None => lose("its file is not there"),
        }
    }

    fn lost(self, why: &str) -> LostImage {
        LostImage {
            id: self.row.id,
            why: why.to_owned(),
        }
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
        has_views: gallery.is_empty() || !gallery.views().is_empty(),
        known: Some(&KnownVectors::default()),
    };
    let items: Vec<Item> = wanted.iter().map(|image| image.item.clone()).collect();
    let items: Vec<&Item> = items.iter().collect();
    let mut left = std::mem::take(wanted).into_iter();
    let mut pending = PendingRows::default();
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
                    pending.push(image.row.id, cells, parts);
                }
                Err(why) => repaired.lost.push(image.lost(&why)),
            }
            watch.advance(repaired.lost.len());
        }
        if pending.len() >= MAX_ROWS {
            save(&mut pending, &mut writer, &mut repaired.rebuilt)?;
        }
        Ok(())
    });
    wanted.extend(left);
    save(&mut pending, &mut writer, &mut repaired.rebuilt)?;
    outcome
}

fn save(
    pending: &mut PendingRows,
    writer: &mut Writer,
    rebuilt: &mut Vec<String>,
) -> anyhow::Result<()> {
    let ids = pending.ids().to_vec();
    pending.save(writer, &[])?;
    rebuilt.extend(ids);
    Ok(())
}

type Row = (Vec<(String, String)>, RowParts);

/// Returns the row of an image if its file still holds it, else why not.
fn rebuilt(image: &Wanted, images: Vec<Embedded>, gallery: &Gallery) -> Result<Row, String> {
    match gallery.find(&image.row.id) {
        Ok(None) => {}
        Ok(Some(_)) => return Err("another image of the gallery has its id".to_owned()),
        Err(error) => return Err(error.to_string()),
    }
    let first = images.into_iter().next();
    let (facts, outcome) = first.ok_or("its file holds no image")?;
    let vector = outcome.map_err(|refusal| refusal.message)?;
    let stored = Stored::of(&facts, gallery);
    if stored.pixels != image.row.cell(image.own.pixels) {
        return Err("its file holds other pixels now".to_owned());
    }
    let parts = RowParts {
        vector,
        thumbnail: facts.traits.thumbnail,
        views: facts.traits.views,
    };
    Ok((image.cells(&stored), parts))
}
