//! The rows that a run uses, in memory: which are trained on, and which are kept for validation.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use m3ret_imaging::{Input, InputConfig, Limits, prepare};
use m3ret_manifest::columns::{LICENSE, MODALITY, PATIENT, SOURCE, SPLIT};
use m3ret_manifest::{Column, Manifest, Row, Table, is_unknown_modality, is_unseen};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::reading::{MR_REFUSED, Place, Refused, read};
use super::{Facts, Part};
use crate::config::{Config, ImageSettings};
use crate::error::{Error, Result};
use crate::files::plain_path;

/// The images of a run, numbered in the order of the manifests.
///
/// Beside the compact tables of the manifests an item takes 12 bytes.
#[derive(Debug)]
pub struct Items {
    sheets: Vec<Sheet>,
    /// The row of each item, counted through all manifests.
    rows: Vec<u32>,
    train: Vec<u32>,
    validation: Vec<u32>,
    facts: Facts,
}

/// One manifest.
#[derive(Debug)]
struct Sheet {
    table: Table,
    /// Its file name.
    name: String,
    /// Rows of the manifests before it.
    n_before: usize,
}

impl Sheet {
    /// Refuses a split that somebody asked for where the manifest has no column of splits.
    fn refuse_missing_split(&self, split: &str) -> Result<()> {
        if self.table.column(SPLIT).is_some() || split == ImageSettings::default().split {
            return Ok(());
        }
        Err(Error::config(
            "images.split",
            format!(
                "a column split in {}, which has {}",
                self.name,
                self.table.columns().join(", ")
            ),
            format!("{split:?} and no such column"),
        ))
    }
}

impl Items {
    /// Reads the manifests of a run and picks its rows.
    ///
    /// A patient is wholly in one part: the part follows from the seed and `patient_id`, or the path
    /// where there is none. The same `patient_id` in two sources counts as one patient, which at worst
    /// keeps strangers together.
    ///
    /// # Errors
    /// `Imaging` if a manifest cannot be read; `Config` for a senseless share; `Images` if nothing is
    /// left to train on.
    pub fn load(config: &Config) -> Result<Self> {
        let images = &config.images;
        if !(0.0..=0.5).contains(&images.validation) {
            return Err(Error::config(
                "images.validation",
                "0 to 0.5",
                images.validation.to_string(),
            ));
        }
        let mut items = Self {
            sheets: Vec::new(),
            rows: Vec::new(),
            train: Vec::new(),
            validation: Vec::new(),
            facts: Facts::default(),
        };
        for path in &config.manifests {
            items.add_sheet(path)?;
        }
        let n_wanted = items.pick_rows(images)?;
        items.divide(config.seed, images.validation);
        items.count();
        if items.train.is_empty() {
            return Err(nothing_left(&items, images, n_wanted));
        }
        Ok(items)
    }

    /// Returns what there is, in numbers.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Returns how many items there are, for training and validation.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns whether there is no item.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns how many items are trained on.
    #[must_use]
    pub fn n_train(&self) -> usize {
        self.train.len()
    }

    /// Iterates over the items that are trained on.
    pub fn train(&self) -> impl ExactSizeIterator<Item = usize> {
        self.train.iter().map(|&item| item as usize)
    }

    /// Iterates over the items of the validation part.
    pub fn validation(&self) -> impl ExactSizeIterator<Item = usize> {
        self.validation.iter().map(|&item| item as usize)
    }

    /// Returns our own name of an item, for messages: neither a path nor an identifier.
    #[must_use]
    pub fn name(&self, item: usize) -> String {
        match self.place(item) {
            Some((sheet, row)) => format!("row {} of {}", row.idx() + 1, sheet.name),
            None if self.is_synthetic(item) => format!("synthetic object {}", item - self.len()),
            None => format!("item {item}"),
        }
    }

    /// Returns whether a number is that of a synthetic object: those are counted from `len` on.
    #[must_use]
    pub fn is_synthetic(&self, item: usize) -> bool {
        item >= self.len()
    }

    /// Returns the file or folder of an item; never to be shown.
    #[must_use]
    pub fn path(&self, item: usize) -> PathBuf {
        self.place_of(item).path
    }

    /// Returns where an item lies; never to be shown.
    pub(super) fn place_of(&self, item: usize) -> Place {
        let row = self.place(item).map(|(_, row)| row);
        Place {
            path: row.map_or_else(PathBuf::new, |row| row.file()),
            part: row.and_then(|row| row.part()).map(str::to_owned),
        }
    }

    /// Returns the modality; empty where unknown.
    #[must_use]
    pub fn modality(&self, item: usize) -> &str {
        self.cell(item, MODALITY)
    }

    /// Returns the source; empty where unknown.
    #[must_use]
    pub fn source(&self, item: usize) -> &str {
        self.cell(item, SOURCE)
    }

    /// Returns the cell of any column, e.g. that of `monitor.knn_relevance`; empty where unknown.
    #[must_use]
    pub fn cell(&self, item: usize, column: &str) -> &str {
        let cell = self
            .place(item)
            .and_then(|(sheet, row)| row.get(sheet.table.name_of(column)?));
        cell.unwrap_or_default()
    }

    /// Returns a number that is equal for items of one patient, and else differs; never to be shown.
    #[must_use]
    pub fn patient(&self, item: usize) -> u64 {
        self.place(item).map_or(0, |(_, row)| patient(&row))
    }

    /// Returns what tells this list of items from every other: paths, parts, and what draws depend on.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        for part in [&self.train, &self.validation] {
            hash.update(&(part.len() as u64).to_le_bytes());
            for &item in part {
                let Some((_, row)) = self.place(item as usize) else {
                    continue;
                };
                for cell in [Some(row.path()), row.get(MODALITY), row.get(SOURCE)] {
                    hash.update(cell.unwrap_or_default().as_bytes());
                    hash.update(&[0]);
                }
                if let Some(part) = row.part() {
                    hash.update(part.as_bytes());
                    hash.update(&[1]);
                }
            }
        }
        format!("{:032x}", hash.digest128())
    }

    /// Reads the image of an item, or the first of several, in at most `allowed_bytes`, as the model's input.
    /// Images of MR and PET are refused unless `allow_mr`.
    ///
    /// # Errors
    /// The code of the reason why it cannot be read, or `mr_not_allowed`.
    pub fn prepared(
        &self,
        item: usize,
        input: &InputConfig,
        allow_mr: bool,
        allowed_bytes: u64,
    ) -> std::result::Result<Input, &'static str> {
        let code = |error: m3ret_imaging::Error| error.code().as_str();
        let volumes =
            read(&self.place_of(item), allowed_bytes).map_err(|refused| match refused {
                Refused::For(code) => code,
                Refused::Needs(_) => m3ret_imaging::Code::LimitExceeded.as_str(),
            })?;
        let volume = volumes.into_iter().next();
        let volume = volume.ok_or(m3ret_imaging::Code::NoPixels.as_str())?;
        if !allow_mr && volume.modality.as_deref().is_some_and(is_unseen) {
            return Err(MR_REFUSED);
        }
        prepare(&volume, input).map_err(code)
    }

    /// Returns the number of a row's words in two columns, where one manifest uses the same number for
    /// the same word; with the manifest's own number.
    pub(super) fn word_ids(&self, item: usize, columns: [&str; 2]) -> [usize; 3] {
        let Some(sheet_idx) = self.sheet_idx(item) else {
            return [usize::MAX; 3];
        };
        let Some((sheet, row)) = self.place(item) else {
            return [usize::MAX; 3];
        };
        let id = |name: &str| {
            let column = sheet.table.column(name);
            column
                .and_then(|column| column.id(row.idx()))
                .unwrap_or(usize::MAX)
        };
        let [first, second] = columns;
        [sheet_idx, id(first), id(second)]
    }

    fn sheet_idx(&self, item: usize) -> Option<usize> {
        let row = *self.rows.get(item)? as usize;
        let n_begun = self.sheets.partition_point(|sheet| sheet.n_before <= row);
        n_begun.checked_sub(1)
    }

    fn place(&self, item: usize) -> Option<(&Sheet, Row<'_>)> {
        let sheet = self.sheets.get(self.sheet_idx(item)?)?;
        let row = *self.rows.get(item)? as usize;
        Some((sheet, sheet.table.row(row - sheet.n_before)?))
    }

    fn add_sheet(&mut self, path: &Path) -> Result<()> {
        let table = Manifest::open(path, &Limits::default())
            .and_then(Manifest::load)
            .map_err(|error| Error::run(path, error.to_string()))?;
        let n_before = self
            .sheets
            .last()
            .map_or(0, |sheet| sheet.n_before + sheet.table.len());
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let notes = table
            .notes()
            .into_iter()
            .map(|note| format!("{name}: {note}"));
        self.facts.notes.extend(notes);
        self.sheets.push(Sheet {
            table,
            name,
            n_before,
        });
        Ok(())
    }

    /// Keeps the rows of the split, and no MR or PET unless it is allowed; returns how many the split has.
    fn pick_rows(&mut self, images: &ImageSettings) -> Result<usize> {
        let mut n_wanted = 0;
        for sheet in &self.sheets {
            sheet.refuse_missing_split(&images.split)?;
            let splits = Marked::new(&sheet.table, SPLIT, |word| word == images.split);
            let mr = Marked::new(&sheet.table, MODALITY, is_unseen);
            let unknown = Marked::new(&sheet.table, MODALITY, is_unknown_modality);
            for row in 0..sheet.table.len() {
                if !splits.has(row).unwrap_or(true) {
                    continue;
                }
                n_wanted += 1;
                let is_mr = mr.has(row) == Some(true);
                if is_mr && !images.allow_mr {
                    self.facts.n_mr_left_out += 1;
                    continue;
                }
                self.facts.n_mr += usize::from(is_mr);
                self.facts.n_unknown_modality += usize::from(unknown.has(row) != Some(false));
                let row = u32::try_from(sheet.n_before + row).map_err(|_| Error::Images {
                    what: "more than 4,294,967,295 rows".to_owned(),
                    advice: "train on fewer".to_owned(),
                })?;
                self.rows.push(row);
            }
        }
        Ok(n_wanted)
    }

    /// Puts whole patients into the validation part.
    fn divide(&mut self, seed: u64, share: f64) {
        let mut parts = [Vec::new(), Vec::new()];
        for item in 0..self.rows.len() {
            let drawn = xxh3_64_with_seed(&self.patient(item).to_le_bytes(), seed);
            #[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
            let drawn = (drawn >> 11) as f64 / 9_007_199_254_740_992.0;
            #[allow(clippy::cast_possible_truncation, reason = "rows were counted in u32")]
            parts[usize::from(drawn < share)].push(item as u32);
        }
        [self.train, self.validation] = parts;
    }

    fn count(&mut self) {
        self.facts.n_train = self.train.len();
        self.facts.n_validation = self.validation.len();
        let mut by_ids: BTreeMap<[usize; 4], usize> = BTreeMap::new();
        let mut examples = BTreeMap::new();
        for item in self.train() {
            let [sheet, source, modality] = self.word_ids(item, [SOURCE, MODALITY]);
            let [_, license, _] = self.word_ids(item, [LICENSE, LICENSE]);
            let ids = [sheet, source, modality, license];
            *by_ids.entry(ids).or_default() += 1;
            examples.entry(ids).or_insert(item);
        }
        let mut parts: BTreeMap<[String; 3], usize> = BTreeMap::new();
        for (ids, n_items) in by_ids {
            let Some(&item) = examples.get(&ids) else {
                continue;
            };
            let words = [SOURCE, MODALITY, LICENSE];
            let words = words.map(|column| self.cell(item, column).to_owned());
            *parts.entry(words).or_default() += n_items;
        }
        let part = |([source, modality, license], n_items): ([String; 3], usize)| Part {
            source,
            modality,
            license,
            n_items,
        };
        self.facts.parts = parts.into_iter().map(part).collect();
    }
}

/// Which words of a column have a property; asked once a word, not once a row.
struct Marked<'a> {
    column: Option<&'a Column>,
    marks: Vec<bool>,
}

impl<'a> Marked<'a> {
    fn new(table: &'a Table, name: &str, is_marked: impl Fn(&str) -> bool) -> Self {
        let column = table.column(name);
        let marks = column.map(|column| column.words().map(is_marked));
        Self {
            column,
            marks: marks.map(Iterator::collect).unwrap_or_default(),
        }
    }

    /// Returns whether a row's word has it; `None` without the column.
    fn has(&self, row: usize) -> Option<bool> {
        let id = self.column?.id(row)?;
        self.marks.get(id).copied()
    }
}

/// Hashes who an image shows, as far as the row tells; different purposes never meet.
fn patient(row: &Row<'_>) -> u64 {
    match row.get(PATIENT) {
        Some(id) if !id.is_empty() => xxh3_64_with_seed(id.as_bytes(), 1),
        _ => xxh3_64(plain_path(&row.file()).as_os_str().as_encoded_bytes()),
    }
}

fn nothing_left(items: &Items, images: &ImageSettings, n_wanted: usize) -> Error {
    let n_rows: usize = items.sheets.iter().map(|sheet| sheet.table.len()).sum();
    let what = format!(
        "no image is left to train on: {n_rows} rows, {n_wanted} of them in the split {:?}, {} left \
         out as MR or PET, {} kept for validation",
        images.split, items.facts.n_mr_left_out, items.facts.n_validation
    );
    let advice = if n_rows == 0 {
        "name manifests with rows in `manifests`"
    } else if n_wanted == 0 {
        "set `images.split` to a word of the column split"
    } else if items.facts.n_validation > 0 {
        "lower `images.validation`, or add patients"
    } else {
        "add images that are not MR, or set `images.allow_mr` if MR is not to stay unseen"
    };
    Error::Images {
        what,
        advice: advice.to_owned(),
    }
}
