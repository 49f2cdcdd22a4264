//! Pictures of a query or a hit, and what is known of images by their ids.

use std::borrow::Cow;

use anyhow::anyhow;
use m3ret_imaging::{Volume, thumbnail};
use m3ret_manifest::columns::MODALITY;
use serde::Serialize;

use super::{Answer, Labels};
use crate::galleries::{Archive, RowCells, THUMBNAIL, file_of};
use crate::panics;
use crate::report::viewer::{self, assume_hu};

/// What the gallery knows of one of its images.
#[derive(Debug, Clone, Serialize)]
pub struct KnownImage {
    /// Its id.
    pub id: String,
    /// Which image of the file it is; `None` if the file holds one image.
    pub part: Option<String>,
    /// Its labels.
    #[serde(flatten)]
    pub labels: Labels,
}

impl Archive {
    /// Draws the query of an answer, or one of its hits, as PNG with a longer side of at most `side_px`.
    ///
    /// Reads the image again; of a hit that cannot be read, returns the picture that the gallery holds. `None` if there is
    /// none, for a vector, and for a hit that the answer does not have.
    pub fn picture(
        &self,
        answer: &Answer,
        hit_idx: Option<usize>,
        side_px: usize,
    ) -> Option<Vec<u8>> {
        let options = &self.reading.options;
        let gallery = self.gallery.as_ref();
        let Some(hit_idx) = hit_idx else {
            let part = answer.part.as_deref();
            let volume = match (&answer.image, &answer.file) {
                (Some(image), _) => image.read_part(part, options),
                (None, Some(file)) => viewer::read(file, part, options),
                (None, None) => return None,
            };
            return drawn(volume.ok()?, answer.labels.modality.as_deref(), side_px);
        };
        let hit = answer.hits.get(hit_idx)?;
        let file = file_of(gallery, hit.row).ok()?;
        let volume = viewer::read(&file, hit.part.as_deref(), options).ok();
        let fresh =
            volume.and_then(|volume| drawn(volume, hit.labels.modality.as_deref(), side_px));
        let stored = || gallery.attachment(hit.row, THUMBNAIL).ok();
        let stored = || stored().map(Cow::into_owned).filter(|png| !png.is_empty());
        fresh.or_else(stored)
    }

    /// Draws an image of the gallery as PNG: the picture that the gallery holds, else one of the file with a longer side
    /// of at most `side_px`. `None` if the gallery has no image with this id, or neither picture can be had.
    ///
    /// # Errors
    /// `Gallery` if the gallery is damaged.
    pub fn thumbnail(&self, id: &str, side_px: usize) -> crate::Result<Option<Vec<u8>>> {
        let gallery = self.gallery.as_ref();
        let Some(row) = gallery.find(id)? else {
            return Ok(None);
        };
        let stored = gallery.attachment(row, THUMBNAIL).ok();
        if let Some(png) = stored.filter(|png| !png.is_empty()) {
            return Ok(Some(png.into_owned()));
        }
        let cells = RowCells::of_row(gallery, row)?;
        let volume = viewer::read(&cells.file(), cells.part(), &self.reading.options);
        let modality = Some(cells.get(MODALITY)).filter(|modality| !modality.is_empty());
        Ok(volume
            .ok()
            .and_then(|volume| drawn(volume, modality, side_px)))
    }

    /// Reads an image of the gallery from its file, for people to look at; `None` if the gallery has no image with this
    /// id. Values of a CT whose file states no unit count as HU where some are below -200.
    ///
    /// # Errors
    /// `Gallery` if the gallery is damaged; `Caller` if the file cannot be read any more.
    pub fn volume(&self, id: &str) -> crate::Result<Option<Volume>> {
        let gallery = self.gallery.as_ref();
        let Some(row) = gallery.find(id)? else {
            return Ok(None);
        };
        let cells = RowCells::of_row(gallery, row)?;
        let volume = viewer::read(&cells.file(), cells.part(), &self.reading.options);
        let mut volume = volume.map_err(|message| anyhow!(message))?;
        let modality = Some(cells.get(MODALITY)).filter(|modality| !modality.is_empty());
        assume_hu(&mut volume, modality);
        Ok(Some(volume))
    }

    /// Returns what the gallery knows of images, in the order of their ids; `None` for ids that it does not have.
    ///
    /// # Errors
    /// `Gallery` if the gallery is damaged.
    pub fn known_images(&self, ids: &[String]) -> crate::Result<Vec<Option<KnownImage>>> {
        let gallery = self.gallery.as_ref();
        let known = ids.iter().map(|id| {
            let Some(row) = gallery.find(id)? else {
                return Ok(None);
            };
            let cells = RowCells::of_row(gallery, row)?;
            Ok(Some(KnownImage {
                id: id.clone(),
                part: cells.part().map(str::to_owned),
                labels: Labels::of(&cells),
            }))
        });
        known.collect()
    }
}

fn drawn(mut volume: Volume, modality: Option<&str>, side_px: usize) -> Option<Vec<u8>> {
    assume_hu(&mut volume, modality);
    let drawn = panics::guard(|| thumbnail(&volume, side_px.max(1)).png());
    drawn.ok().and_then(Result::ok)
}
