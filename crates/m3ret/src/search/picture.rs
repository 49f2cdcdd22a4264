//! A small picture of a query or a hit.

use std::borrow::Cow;

use m3ret_imaging::{Volume, thumbnail};
use m3ret_manifest::columns::MODALITY;

use super::Answer;
use crate::galleries::{Archive, RowCells, THUMBNAIL, file_of};
use crate::panics;
use crate::report::viewer::{self, assume_hu};

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
}

fn drawn(mut volume: Volume, modality: Option<&str>, side_px: usize) -> Option<Vec<u8>> {
    assume_hu(&mut volume, modality);
    let drawn = panics::guard(|| thumbnail(&volume, side_px.max(1)).png());
    drawn.ok().and_then(Result::ok)
}
