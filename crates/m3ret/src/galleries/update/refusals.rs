//! Images that were refused before: they are not read again before they change.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use m3ret_imaging::Code;
use m3ret_manifest::{path_of, text_of};
use m3ret_search::{Gallery, Refusal, Writer};
use xxhash_rust::xxh3::xxh3_128;

use super::super::rows::{RowParts, is_of_erased};
use super::sorted::{file_of_item, hash_of};
use super::{RefusedImage, Update, hexadecimal, stored_path};
use crate::embed::items::{Content, Item, Listing};
use crate::options::Reading;
use crate::words::printable;

/// Most characters of a message that is kept.
const MAX_MESSAGE: usize = 400;

/// What a gallery remembers of images that were refused.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// Of items in their present state, by the key of the item.
    by_key: HashMap<u128, Vec<Refusal>>,
    /// Of files that the listing does not have.
    others: Vec<Refusal>,
    /// What decides beside the file: the program's version, and how it reads.
    reader: String,
    /// Whether items that were refused, and have no row, are read again.
    is_retried: bool,
    /// Whether the gallery holds something else.
    is_changed: bool,
}

impl Remembered {
    /// Sorts what a gallery remembers by what a listing has. A mirror forgets the files that the listing lacks.
    pub(super) fn of(
        gallery: &Gallery,
        listing: &Listing,
        reading: &Reading,
        root: Option<&Path>,
    ) -> m3ret_search::Result<Self> {
        let reader = reader_of(reading);
        let mut remembered = Self {
            is_retried: reading.retries_refused,
            ..Self::default()
        };
        let idx_of = listing.idx_by_key();
        let place = |item: &Item| root.map(|root| hash_of(&file_of_item(item, root)));
        let places: HashSet<u128> = listing.items.iter().filter_map(place).collect();
        for refusal in gallery.refusals()? {
            let key = u128::from_str_radix(&refusal.key, 16).ok();
            let idx = key.and_then(|key| idx_of.get(&key));
            let item = idx.and_then(|&idx| listing.items.get(idx));
            match item {
                Some(item)
                    if refusal.changed == item.changed_ns.to_string()
                        && refusal.reader == reader =>
                {
                    let of_item = remembered.by_key.entry(item.key).or_default();
                    of_item.push(refusal);
                }
                None if root.is_some() && !places.contains(&hash_of(&path_of(&refusal.file))) => {
                    remembered.others.push(refusal);
                }
                // Its file, or how it is read, has changed since.
                _ => remembered.is_changed = true,
            }
        }
        remembered.reader = reader;
        Ok(remembered)
    }

    /// Returns whether an item need not be read although it has no row.
    pub(super) fn spares(&self, item: &Item) -> bool {
        !self.is_retried && self.by_key.contains_key(&item.key)
    }

    /// Returns the refused images of an item that is not read again.
    pub(super) fn images_of(&self, item: &Item) -> impl Iterator<Item = RefusedImage> {
        let refusals = self.by_key.get(&item.key).into_iter().flatten();
        refusals.map(|refusal| RefusedImage {
            path: match refusal.path.as_str() {
                "" => item.path.clone(),
                path => path.to_owned(),
            },
            part: refusal.part.clone(),
            reason: refusal.reason.clone(),
            message: match refusal.reason == Code::Erased.as_str() {
                true => ERASED.to_owned(),
                false => refusal.message.clone(),
            },
            is_remembered: true,
            pixels: refusal.pixels.clone(),
            file: path_of(&refusal.file),
        })
    }

    /// Remembers an image of a patient who was erased by the key of its file alone.
    fn keep_erased(&mut self, item: &Item) {
        let of_item = self.by_key.entry(item.key).or_default();
        of_item.push(Refusal {
            key: hexadecimal(item.key),
            changed: item.changed_ns.to_string(),
            reader: self.reader.clone(),
            path: String::new(),
            file: String::new(),
            part: None,
            reason: Code::Erased.to_string(),
            message: String::new(),
            pixels: String::new(),
        });
        self.is_changed = true;
    }

    /// Forgets an item that is read again.
    pub(super) fn forget(&mut self, item: &Item) {
        self.is_changed |= self.by_key.remove(&item.key).is_some();
    }

    /// Remembers an image, unless the reason may be gone without a change of its file: a disk that failed, a program
    /// that is not installed. What the listing refuses costs no reading.
    pub(super) fn keep(&mut self, item: &Item, code: Code, image: &RefusedImage) {
        if code == Code::Io || matches!(item.content, Content::Unreadable { .. }) {
            return;
        }
        let message: String = printable(&image.message)
            .chars()
            .take(MAX_MESSAGE)
            .collect();
        let of_item = self.by_key.entry(item.key).or_default();
        of_item.push(Refusal {
            key: hexadecimal(item.key),
            changed: item.changed_ns.to_string(),
            reader: self.reader.clone(),
            path: image.path.clone(),
            file: text_of(&image.file),
            part: image.part.clone(),
            reason: image.reason.clone(),
            message,
            pixels: image.pixels.clone(),
        });
        self.is_changed = true;
    }

    /// Writes what is remembered now.
    pub(super) fn save(&mut self, writer: &mut Writer) -> m3ret_search::Result<()> {
        if !self.is_changed {
            return Ok(());
        }
        let all = self.by_key.values().flatten().chain(&self.others);
        let mut all: Vec<Refusal> = all.cloned().collect();
        all.sort_by(|a, b| (&a.file, &a.part, &a.key).cmp(&(&b.file, &b.part, &b.key)));
        writer.keep_refusals(&all)?;
        self.is_changed = false;
        Ok(())
    }
}

/// Why an image of a patient who was erased is refused.
const ERASED: &str = "its patient was erased from the gallery; remove the file from the archive";

/// Describes an image of a patient who was erased, whose file is told and not kept.
pub(crate) fn refused_as_erased(path: String, part: Option<String>, file: PathBuf) -> RefusedImage {
    RefusedImage {
        path,
        part,
        reason: Code::Erased.to_string(),
        message: ERASED.to_owned(),
        is_remembered: false,
        pixels: String::new(),
        file,
    }
}

impl Update<'_> {
    /// Refuses an image of a patient who was erased.
    pub(super) fn refuse_erased(&mut self, item: &Item, path: &str, part: Option<String>) {
        self.remembered.keep_erased(item);
        let file = self.root.join(path_of(path));
        let refused = refused_as_erased(path.to_owned(), part, file);
        self.updated.refused.push(refused);
    }

    /// Adds a row that is written again, unless its patient was erased in the meantime.
    pub(super) fn push_again(
        &mut self,
        item: &Item,
        id: &str,
        cells: Vec<(String, String)>,
        parts: RowParts,
    ) {
        if is_of_erased(self.writer.gallery(), &cells) {
            let path = self.path_of(item);
            self.refuse_erased(item, &path, item.named_part().map(str::to_owned));
        } else {
            self.pending.push(id.to_owned(), cells, parts);
        }
    }
}

/// Names what decides, beside the file and the model, whether an image is refused.
fn reader_of(reading: &Reading) -> String {
    let options = format!("{:?}", reading.options);
    format!(
        "{} {:032x}",
        env!("CARGO_PKG_VERSION"),
        xxh3_128(options.as_bytes())
    )
}

/// Returns the refusal of an item that the listing could not read; nothing of it is decoded.
pub(super) fn unreadable(item: &Item, root: &Path) -> Option<RefusedImage> {
    let Content::Unreadable { code, message } = &item.content else {
        return None;
    };
    let path = stored_path(item, root);
    Some(RefusedImage {
        file: root.join(path_of(&path)),
        path,
        part: None,
        reason: code.to_string(),
        message: message.clone(),
        is_remembered: false,
        pixels: String::new(),
    })
}

/// Forgets refused images whose files are gone.
pub(crate) fn forget_gone(writer: &mut Writer) -> m3ret_search::Result<()> {
    // A file that cannot be looked up may still exist.
    forget(writer, |file| !file.try_exists().unwrap_or(true))
}

/// Forgets refused images below folders whose images lie elsewhere now: they are read again at their new place.
pub(crate) fn forget_moved(writer: &mut Writer, from: &[PathBuf]) -> m3ret_search::Result<()> {
    forget_gone(writer)?;
    forget(writer, |file| {
        from.iter().any(|folder| file.starts_with(folder))
    })
}

fn forget(writer: &mut Writer, is_gone: impl Fn(&Path) -> bool) -> m3ret_search::Result<()> {
    let mut refusals = writer.gallery().refusals()?;
    refusals.retain(|refusal| !is_gone(&path_of(&refusal.file)));
    writer.keep_refusals(&refusals)
}
