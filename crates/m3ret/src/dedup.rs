//! Finds images that an archive holds more than once.

use std::collections::{BTreeMap, HashMap};

use m3ret_manifest::text_of;
use m3ret_search::{Collection, RowId};
use rayon::prelude::*;
use serde::Serialize;

use super::duplicates::{Candidate, CopyVerdict, Reach, likeness, neighbours, thumbnail, verdict};
use super::galleries::columns::own_names;
use super::galleries::{self, Archive, Pseudonyms, RefusedImage, RowCells, UpdateSummary};
use crate::watch::Watch;

/// Two images of an archive that may be one.
#[derive(Debug, Clone, Serialize)]
pub struct Pair {
    /// How the two images are alike.
    pub verdict: CopyVerdict,
    /// Cosine of the two vectors; 1 for images without a vector that have equal values.
    pub score: f32,
    /// Correlation of the two thumbnails, -1..=1; `None` if a file cannot be read.
    pub correlation: Option<f64>,
    /// Ids in the gallery; of images without a vector, path and part.
    pub ids: [String; 2],
    /// Where the files lie, with their parts. The command line shows them relative to the current folder.
    pub files: [String; 2],
    /// Whether both images are of one patient; `None` where that is not known, as between the number in a header and
    /// the pseudonym in a manifest.
    pub same_patient: Option<bool>,
}

impl Archive {
    /// Compares each image with its closest others and returns the pairs that may be one image.
    ///
    /// Each verdict is about two images; verdicts are never chained. `near` is the smallest cosine of a near
    /// duplicate. Pairs are sorted by verdict, then by descending score, then by ids.
    ///
    /// # Errors
    /// If the gallery is damaged or cannot be read.
    pub fn duplicates(&self, near: f32, watch: &dyn Watch) -> crate::Result<Vec<Pair>> {
        watch.step("comparing");
        let gallery = self.gallery.as_ref();
        let candidates = candidates(gallery, near)?;
        let pairs = candidates
            .par_iter()
            .map(|candidate| judge(gallery, candidate, &self.reading.options));
        let pairs: Vec<Option<Pair>> = pairs.collect::<anyhow::Result<_>>()?;
        let mut pairs: Vec<Pair> = pairs.into_iter().flatten().collect();
        pairs.extend(without_vector(&self.updated));
        pairs.sort_by(|a, b| {
            let by_score = b.score.total_cmp(&a.score);
            a.verdict
                .cmp(&b.verdict)
                .then(by_score)
                .then(a.ids.cmp(&b.ids))
        });
        Ok(pairs)
    }
}

/// Returns the pairs with a score of at least `near`, and pairs with equal values.
fn candidates(gallery: &dyn Collection, near: f32) -> anyhow::Result<Vec<Candidate>> {
    let found = neighbours(gallery, gallery, near, Reach::Closest)?.pairs;
    let found = found.into_iter().map(|(a, b, score)| ((a, b), score));
    let mut pairs: BTreeMap<(RowId, RowId), f32> = found.collect();
    // A search returns too few neighbours to cover many equal images, so their pairs come from the hash.
    let mut by_pixels: HashMap<String, Vec<RowId>> = HashMap::new();
    let column = own_names(gallery).pixels;
    let rows = gallery.scan()?;
    for (&row, mut cells) in rows.iter().zip(gallery.rows(&rows, &[column])?) {
        let pixels = cells.remove(0).into_owned();
        if !pixels.is_empty() {
            by_pixels.entry(pixels).or_default().push(row);
        }
    }
    for rows in by_pixels.values().filter(|rows| rows.len() > 1) {
        // Each is paired with the first, so that n equal images give n - 1 pairs.
        for &other in &rows[1..] {
            pairs
                .entry((rows[0].min(other), rows[0].max(other)))
                .or_insert(1.0);
        }
    }
    Ok(pairs
        .into_iter()
        .map(|((a, b), score)| (a, b, score))
        .collect())
}

/// Returns pairs with equal values among the images that have no vector, such as blank ones.
fn without_vector(updated: &UpdateSummary) -> Vec<Pair> {
    let mut first: HashMap<&str, &RefusedImage> = HashMap::new();
    let mut pairs = Vec::new();
    for image in updated
        .refused
        .iter()
        .filter(|image| !image.pixels.is_empty())
    {
        let Some(&earlier) = first.get(image.pixels.as_str()) else {
            first.insert(&image.pixels, image);
            continue;
        };
        let named =
            |image: &RefusedImage, path: &str| galleries::with_part(path, image.part.as_deref());
        let file = |image: &RefusedImage| named(image, &text_of(&image.file));
        pairs.push(Pair {
            verdict: CopyVerdict::Exact,
            score: 1.0,
            correlation: None,
            ids: [earlier, image].map(|image| named(image, &image.path)),
            files: [earlier, image].map(file),
            same_patient: None,
        });
    }
    pairs
}

/// Judges how two images are alike; `None` if they are not.
fn judge(
    gallery: &dyn Collection,
    &(a, b, score): &Candidate,
    options: &m3ret_imaging::ReadOptions,
) -> anyhow::Result<Option<Pair>> {
    let cells = [RowCells::of_row(gallery, a)?, RowCells::of_row(gallery, b)?];
    if cells[0].file() == cells[1].file() && cells[0].part() == cells[1].part() {
        // A manifest lists the image twice.
        return Ok(None);
    }
    let pixels = cells.each_ref().map(RowCells::pixels);
    let is_exact = !pixels[0].is_empty() && pixels[0] == pixels[1];
    let correlation = match is_exact {
        true => Some(1.0),
        false => likeness(
            &thumbnail(gallery, a, options)?,
            &thumbnail(gallery, b, options)?,
        ),
    };
    let Some(verdict) = verdict(is_exact, correlation) else {
        return Ok(None);
    };
    let id = |row| gallery.id(row).map(std::borrow::Cow::into_owned);
    let file = |cells: &RowCells<'_>| galleries::with_part(&text_of(&cells.file()), cells.part());
    let people = cells.each_ref().map(Pseudonyms::of);
    Ok(Some(Pair {
        verdict,
        score,
        correlation,
        ids: [id(a)?, id(b)?],
        files: cells.each_ref().map(file),
        same_patient: people[0].patient.is(&people[1].patient),
    }))
}
