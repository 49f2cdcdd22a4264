//! What images say of rows: which are equal, and which are nearly so.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use m3ret_imaging::ReadOptions;
use m3ret_search::{Collection, RowId};
use rayon::prelude::*;

use super::ImageOptions;
use super::rows::{Source, Sources, plain};
use super::summary::ImageSummary;
use crate::duplicates::{CopyVerdict, Reach, Thumbnail, likeness, neighbours, thumbnail, verdict};
use crate::galleries::{Archive, OpenOptions, RowCells, UpdateSummary};
use crate::model_name;
use crate::watch::Watch;
use crate::words::counted;

/// Images of the rows of some manifests.
pub(super) struct Images {
    /// One a manifest, all of one model.
    galleries: Vec<Box<dyn Collection>>,
    /// The number of the row of each image of a gallery.
    numbers: Vec<HashMap<RowId, usize>>,
    /// Hash of all values of each row's image; empty where it could not be read.
    pub(super) pixels: Vec<String>,
    model: String,
    updated: Vec<UpdateSummary>,
    options: ReadOptions,
}

/// Two rows whose vectors are close.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClosePair {
    pub(super) rows: [usize; 2],
    pub(super) score: f32,
    /// Gallery, and row in it.
    places: [(usize, RowId); 2],
}

impl Images {
    /// Reads the images of all rows, except those whose vectors are kept and up to date; `None` if
    /// no image is to be read.
    pub(super) fn open(
        sources: &Sources,
        options: &ImageOptions,
        watch: &dyn Watch,
    ) -> anyhow::Result<Option<Self>> {
        if !options.are_read {
            return Ok(None);
        }
        let mut model = options.model.clone();
        // The model of thumbnails is enough to find copies.
        let name = model
            .name
            .get_or_insert_with(|| model_name::PIXELS.to_owned());
        let name = name.clone();
        let mut images = Self {
            galleries: Vec::new(),
            numbers: Vec::new(),
            pixels: vec![String::new(); sources.n_rows()],
            model: name,
            updated: Vec::new(),
            options: options.reading.options.clone(),
        };
        for source in &sources.0 {
            let opening = OpenOptions {
                cache: options.cache.clone(),
                model: model.clone(),
                default_model: model_name::PIXELS,
                reading: options.reading.clone(),
                ..OpenOptions::default()
            };
            let opened = Archive::open(&source.path, &opening, watch)?;
            let numbers = images.number(source, opened.gallery.as_ref())?;
            images.numbers.push(numbers);
            images.galleries.push(opened.gallery);
            images.updated.push(opened.updated);
        }
        Ok(Some(images))
    }

    /// Finds the rows of a gallery's images, and keeps their hashes.
    fn number(
        &mut self,
        source: &Source,
        gallery: &dyn Collection,
    ) -> anyhow::Result<HashMap<RowId, usize>> {
        let mut rows: HashMap<(PathBuf, &str), Vec<usize>> = HashMap::new();
        for row in source.table.rows() {
            let part = row.part().unwrap_or_default();
            let same = rows.entry((plain(&row.file()), part)).or_default();
            same.push(source.start + row.idx());
        }
        let mut numbers = HashMap::with_capacity(gallery.len());
        let images = gallery.scan()?;
        for (&image, cells) in images.iter().zip(RowCells::of_rows(gallery, &images)?) {
            let part = cells.part().unwrap_or_default();
            let Some(rows) = rows.get(&(plain(&cells.file()), part)) else {
                continue;
            };
            for &row in rows {
                cells.pixels().clone_into(&mut self.pixels[row]);
            }
            numbers.insert(image, rows[0]);
        }
        Ok(numbers)
    }

    /// Returns what the images amount to.
    pub(super) fn into_summary(self) -> ImageSummary {
        ImageSummary {
            n_refused: self.n_refused(),
            model: self.model,
            updated: self.updated,
        }
    }

    /// Returns the number of rows whose image could not be read.
    fn n_refused(&self) -> usize {
        self.pixels
            .iter()
            .filter(|pixels| pixels.is_empty())
            .count()
    }

    /// Finds pairs with a score of `near` or more, the closest first, between the manifests for which
    /// `wants` returns true.
    pub(super) fn close(
        &self,
        near: f32,
        wants: impl Fn(usize, usize) -> bool,
        watch: &dyn Watch,
    ) -> anyhow::Result<Vec<ClosePair>> {
        let mut close = Vec::new();
        let mut n_cut = 0;
        for (from, gallery) in self.galleries.iter().enumerate() {
            for (to, other) in self.galleries.iter().enumerate().skip(from) {
                if !wants(from, to) {
                    continue;
                }
                let found = neighbours(gallery.as_ref(), other.as_ref(), near, Reach::All)?;
                n_cut += found.n_cut;
                for (a, b, score) in found.pairs {
                    if let (Some(&one), Some(&two)) =
                        (self.numbers[from].get(&a), self.numbers[to].get(&b))
                    {
                        close.push(ClosePair {
                            rows: [one, two],
                            score,
                            places: [(from, a), (to, b)],
                        });
                    }
                }
            }
        }
        if n_cut > 0 {
            watch.note(&format!(
                "{} hundreds of others above --near {near}: only the closest were compared; a higher --near, or \
                 another --model, tells more apart",
                counted(n_cut as u64, "image has", "images have")
            ));
        }
        close.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.rows.cmp(&b.rows)));
        Ok(close)
    }

    /// Compares the thumbnails of pairs; `None` for a pair that is not alike.
    pub(super) fn confirm(&self, pairs: &[ClosePair]) -> anyhow::Result<Vec<Option<CopyVerdict>>> {
        let mut thumbnails: BTreeMap<(usize, RowId), Thumbnail> = BTreeMap::new();
        for pair in pairs {
            thumbnails.extend(pair.places.map(|place| (place, Thumbnail::Gone)));
        }
        thumbnails
            .par_iter_mut()
            .try_for_each(|(&(gallery, row), made)| {
                *made = thumbnail(self.galleries[gallery].as_ref(), row, &self.options)?;
                anyhow::Ok(())
            })?;
        let verdicts = pairs.iter().map(|pair| {
            let [a, b] = pair.rows.map(|row| &self.pixels[row]);
            let [one, other] = &pair.places;
            let correlation = likeness(&thumbnails[one], &thumbnails[other]);
            verdict(!a.is_empty() && a == b, correlation)
        });
        Ok(verdicts.collect())
    }
}
