//! Embeds images to vectors in memory, without a file of results.

use m3ret_encoder::Model;

use super::ahead::AheadOptions;
use super::items::{Item, Listing, list};
use super::work::embed_each;
use super::{Outputs, Refusal};
use crate::images::ImageSource;
use crate::options::{FolderChoice, Reading, VolumeViews};
use crate::watch::{Stopped, Watch};

/// One image of a source: its vector, or why there is none.
#[derive(Debug, Clone)]
pub struct EmbeddedImage {
    /// Which source the image is of, from 0.
    pub source_idx: usize,
    /// The file as reports show it, or the name of the image in memory.
    pub path: String,
    /// Which image of the path this is; `None` if the path holds one image.
    pub part: Option<String>,
    /// The unit vector, or the reason code and a sentence.
    pub outcome: Result<Vec<f32>, (&'static str, String)>,
}

/// Embeds every image of some sources, in their order.
///
/// A source that cannot be listed, such as a file that is not there, is a refused image.
///
/// # Errors
/// `Stopped` if the watcher stopped the work.
pub fn embed_sources(
    sources: &[ImageSource],
    model: &Model,
    reading: &Reading,
    folder: &FolderChoice,
    watch: &dyn Watch,
) -> crate::Result<Vec<EmbeddedImage>> {
    let mut images = Vec::new();
    let mut listed: Vec<(usize, Item)> = Vec::new();
    for (source_idx, source) in sources.iter().enumerate() {
        match listing_of(source, reading, folder) {
            Ok(listing) => {
                listing.notes.iter().for_each(|note| watch.note(note));
                listed.extend(listing.items.into_iter().map(|item| (source_idx, item)));
            }
            Err(refusal) => images.push(EmbeddedImage::refused(source_idx, source, refusal)),
        }
    }
    let items: Vec<&Item> = listed.iter().map(|(_, item)| item).collect();
    watch.count(items.len());
    let ahead = AheadOptions {
        options: &reading.options,
        n_readers: reading.n_readers,
        has_thumbnails: false,
        views: VolumeViews::NONE,
        known: None,
    };
    let mut n_refused = images.len();
    embed_each(&items, model, ahead, |done| {
        Stopped::check(watch, "interrupted; no vector is returned")?;
        let Some((idx, parts)) = done else {
            return Ok(());
        };
        let (source_idx, item) = &listed[idx];
        for (facts, outcome) in parts {
            n_refused += usize::from(outcome.is_err());
            images.push(EmbeddedImage {
                source_idx: *source_idx,
                path: item.path.clone(),
                part: facts.part,
                outcome: outcome.map_err(|refusal| (refusal.code.as_str(), refusal.message)),
            });
        }
        watch.advance(n_refused);
        Ok(())
    })?;
    images.sort_by_key(|image| image.source_idx);
    Ok(images)
}

impl EmbeddedImage {
    fn refused(source_idx: usize, source: &ImageSource, refusal: Refusal) -> Self {
        let path = match source {
            ImageSource::Path(path) => m3ret_manifest::text_of(path),
            ImageSource::Memory(image) => image.name.clone(),
        };
        Self {
            source_idx,
            path,
            part: None,
            outcome: Err((refusal.code.as_str(), refusal.message)),
        }
    }
}

/// Lists the images of a source.
fn listing_of(
    source: &ImageSource,
    reading: &Reading,
    folder: &FolderChoice,
) -> Result<Listing, Refusal> {
    match source {
        ImageSource::Path(path) => {
            let listing = list(path, &Outputs::default(), &reading.options, folder);
            listing.map_err(|error| Refusal::of_listing(&error))
        }
        ImageSource::Memory(image) => Ok(Listing::of_memory(image.clone())),
    }
}
