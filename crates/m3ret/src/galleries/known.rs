//! Vectors of images that were embedded before, found by the content of their files.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::Path;

use m3ret_search::{Gallery, Maker, Numbers, RowId};

use super::columns;
use super::rows::views_of;
use crate::embed::Views;
use crate::embed::items::Digest;

/// The vectors of other galleries of one encoder, by the digest of their images' content.
#[derive(Debug, Default)]
pub(crate) struct KnownVectors {
    galleries: Vec<Gallery>,
    /// Position of each vector: the gallery, and the row in it.
    places: HashMap<u128, Vec<(usize, RowId)>>,
}

impl KnownVectors {
    /// Collects the vectors of the galleries in the same folder as `gallery`, the folder of all caches. Galleries
    /// that cannot be read are skipped.
    pub(super) fn beside(gallery: &Path, maker: &Maker) -> Self {
        let mut known = Self::default();
        let folder = gallery.parent().unwrap_or(Path::new("."));
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension() == Some(OsStr::new("m3i"))
                && path.file_name() != gallery.file_name()
                // Another user's vectors may be anything.
                && path.symlink_metadata().is_ok_and(|status| status.is_dir())
                && m3ret_files::check_own(&path).is_ok()
                && let Ok(other) = Gallery::open(&path)
                // Vectors of 16 bits are rounded, and differ from those of the encoder.
                && other.maker() == maker
                && other.numbers() == Numbers::F32
                && other.columns().contains(&columns::CONTENT)
            {
                known.add(other);
            }
        }
        known
    }

    fn add(&mut self, gallery: Gallery) {
        for row in gallery.rows() {
            let content = gallery.value(row, columns::CONTENT).ok();
            if let Some(content) = content.and_then(|text| u128::from_str_radix(text, 16).ok()) {
                let place = (self.galleries.len(), row);
                self.places.entry(content).or_default().push(place);
            }
        }
        self.galleries.push(gallery);
    }

    /// Returns the vector of an image and those of its views, if one of this content and part is known.
    pub(crate) fn vectors(&self, digest: Digest, part: Option<&str>) -> Option<(Vec<f32>, Views)> {
        let places = [digest.of(part), digest.whole()];
        let mut places = places.iter().filter_map(|content| self.places.get(content));
        places.find_map(|places| self.vectors_of(places, part.unwrap_or_default()))
    }

    fn vectors_of(&self, places: &[(usize, RowId)], part: &str) -> Option<(Vec<f32>, Views)> {
        places.iter().find_map(|&(idx, row)| {
            let gallery = self.galleries.get(idx)?;
            let is_it = gallery.value(row, columns::PART).ok()? == part;
            if !is_it {
                return None;
            }
            Some((gallery.vector(row).ok()?, views_of(gallery, row).ok()?))
        })
    }
}
