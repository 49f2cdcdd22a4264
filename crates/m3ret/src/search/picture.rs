//! A small picture of a query or a hit.

use std::borrow::Cow;

use m3ret_imaging::{Volume, thumbnail};

use super::Answer;
use crate::galleries::{Archive, file_of};
use crate::panics;
use crate::report::viewer::{self, assume_hu};

/// The name under which galleries hold small pictures.
const THUMBNAIL: &str = "thumbnail";

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
}

fn drawn(mut volume: Volume, modality: Option<&str>, side_px: usize) -> Option<Vec<u8>> {
    assume_hu(&mut volume, modality);
    let drawn = panics::guard(|| thumbnail(&volume, side_px.max(1)).png());
    drawn.ok().and_then(Result::ok)
}
