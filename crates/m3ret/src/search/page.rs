//! The report of a search: one HTML file that needs nothing else.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use m3ret_manifest::columns::PART;
use m3ret_manifest::text_of;
use m3ret_search::{Collection, RowId};
use serde::Serialize;
use serde_json::{Value, json};

use super::why::{ImageTokens, PatchGrid, Why};
use super::{Answer, Ask, Hit};
use crate::galleries::columns::own_names;
use crate::galleries::{Archive, THUMBNAIL, file_of};
use crate::model_name::{HOG, PIXELS};
use crate::report::SEARCH_STYLE;
use crate::report::shell::Page;
use crate::report::viewer::{self, Pictures, assume_hu, hu_levels};

/// What all pictures of a page may take, in characters: browsers open it without waiting.
const PAGE_CHARS: usize = 24 << 20;
/// What one image may take: ten hits and their query stay below 5 MB.
const IMAGE_CHARS: usize = 410_000;
/// What one image needs to be worth a look.
const LEAST_CHARS: usize = 48_000;
/// Images that are read again; of more, only pictures that the gallery holds are shown.
const MAX_READ: usize = 500;
/// Images that are read at once: each is in memory as a whole.
const MAX_READERS: usize = 4;
const SCRIPT: &str = concat!(
    include_str!("../report/web/viewer.js"),
    include_str!("../report/web/hits.js"),
    include_str!("../report/web/search.js")
);
/// The word by which m3ret names its own columns.
const OWN: &str = "m3ret:";

/// A hit on the page.
#[derive(Serialize)]
struct Card<'a> {
    #[serde(flatten)]
    hit: &'a Hit,
    /// Its place among the pictures of the page.
    picture: Option<usize>,
    /// The cells that the gallery holds of it, with their columns.
    columns: Vec<(String, String)>,
    why: Option<Why>,
}

/// One image of the page, and what is known once it was read.
struct Image {
    file: PathBuf,
    part: Option<String>,
    /// A row of the gallery that holds it; `None` for a query that none holds.
    row: Option<RowId>,
    modality: Option<String>,
}

/// What reading an image gave.
#[derive(Default, Serialize)]
struct Seen {
    #[serde(flatten)]
    pictures: Option<Pictures>,
    /// Where the patches of the model lie on the pictures.
    patches: Option<PatchGrid>,
    /// Why the image cannot be read.
    missing: Option<String>,
    #[serde(skip)]
    tokens: Option<ImageTokens>,
}

/// The images of the page, each once.
#[derive(Default)]
struct Images {
    all: Vec<Image>,
    places: HashMap<(PathBuf, Option<String>), usize>,
}

impl Images {
    /// Returns the place of an image, which is added if it is new.
    fn place(&mut self, image: Image) -> usize {
        // A query may be named in another way than the hit that is the same file.
        let file = image.file.canonicalize();
        let key = (
            file.unwrap_or_else(|_| image.file.clone()),
            image.part.clone(),
        );
        if let Some(&place) = self.places.get(&key) {
            if let Some(known) = self.all.get_mut(place) {
                known.row = known.row.or(image.row);
            }
            return place;
        }
        self.all.push(image);
        self.places.insert(key, self.all.len() - 1);
        self.all.len() - 1
    }
}

/// Returns the report of a search as one HTML page: pictures of each query and its hits, and why they match.
///
/// The page needs no network and no other file. Every image is read again, and embedded if the model has patches;
/// of an image that cannot be read, the picture in the gallery is shown, if there is one.
///
/// # Errors
/// If the gallery is damaged or cannot be read.
pub fn page(archive: &Archive, ask: &Ask, answers: &[Answer]) -> crate::Result<String> {
    let gallery = archive.gallery.as_ref();
    let mut images = Images::default();
    let mut places = Vec::with_capacity(answers.len());
    for answer in answers {
        let own = answer.file.clone().map(|file| {
            images.place(Image {
                file,
                part: answer.part.clone(),
                row: None,
                modality: answer.labels.modality.clone(),
            })
        });
        let hits: Vec<usize> = answer
            .hits
            .iter()
            .map(|hit| {
                Ok(images.place(Image {
                    file: file_of(gallery, hit.row)?,
                    part: hit.part.clone(),
                    row: Some(hit.row),
                    modality: hit.labels.modality.clone(),
                }))
            })
            .collect::<anyhow::Result<_>>()?;
        places.push((own, hits));
    }
    let seen = see_all(archive, &images.all)?;
    let mut queries = Vec::with_capacity(answers.len());
    for (answer, (own, hits)) in answers.iter().zip(places) {
        queries.push(query(archive, answer, own, &hits, &seen)?);
    }
    let maker = gallery.maker();
    let filters = ask.filters.iter().map(|filter| {
        let sign = if filter.is_negated { "!=" } else { "=" };
        format!("{}{sign}{}", filter.column, filter.value)
    });
    let report = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "model": maker.model,
        "archive": text_of(&archive.place),
        "n_items": gallery.len(),
        "filters": filters.collect::<Vec<_>>(),
        "excluded": ask.exclude,
        "n_refused": archive.updated.refused.len(),
        "has_patches": ![PIXELS, HOG].contains(&&*maker.model),
        "hu_levels": hu_levels(),
        "pictures": seen,
        "queries": queries,
    });
    let page = Page {
        title: "m3ret search",
        style: &[viewer::STYLE, SEARCH_STYLE].concat(),
        body: include_str!("../report/web/search.html"),
        script: SCRIPT,
        data: Some(&report),
    };
    Ok(page.html())
}

/// Reads every image once, some at a time.
fn see_all(archive: &Archive, images: &[Image]) -> anyhow::Result<Vec<Seen>> {
    let n_read = images.len().min(MAX_READ);
    let max_chars = (PAGE_CHARS / images.len().max(1)).clamp(LEAST_CHARS, IMAGE_CHARS);
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<Option<Seen>>> = Mutex::new((0..images.len()).map(|_| None).collect());
    // Plain threads: a worker of the readers' pool that waits would start on the next image.
    std::thread::scope(|scope| {
        for _ in 0..archive.reading.n_readers.min(MAX_READERS).min(n_read) {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(image) = images.get(place).filter(|_| place < n_read) else {
                        return;
                    };
                    let seen = see(archive, image, max_chars);
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(slot) = done.get_mut(place) {
                        *slot = Some(seen);
                    }
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let gallery = archive.gallery.as_ref();
    let all = done.into_iter().zip(images).map(|(seen, image)| {
        let mut seen = seen.unwrap_or_else(|| Seen {
            missing: Some(format!(
                "only the first {MAX_READ} images of a page are read"
            )),
            ..Seen::default()
        });
        if let (None, Some(row)) = (&seen.pictures, image.row) {
            seen.pictures = Pictures::stored(&gallery.attachment(row, THUMBNAIL)?);
        }
        Ok(seen)
    });
    all.collect()
}

fn see(archive: &Archive, image: &Image, max_chars: usize) -> Seen {
    let options = &archive.reading.options;
    let mut volume = match viewer::read(&image.file, image.part.as_deref(), options) {
        Ok(volume) => volume,
        Err(message) => {
            return Seen {
                missing: Some(message),
                ..Seen::default()
            };
        }
    };
    let model = archive.model();
    let tokens = model.and_then(|model| ImageTokens::of(&volume, model).ok());
    let patches = tokens
        .as_ref()
        .and_then(|tokens| tokens.patch_grid(&volume));
    assume_hu(&mut volume, image.modality.as_deref());
    let (pictures, missing) = match Pictures::of(&volume, max_chars) {
        Ok(pictures) => (Some(pictures), None),
        Err(message) => (None, Some(message)),
    };
    Seen {
        pictures,
        patches,
        missing,
        tokens,
    }
}

/// Returns what the page says of one query; `own` and `hits` are places of its images.
fn query(
    archive: &Archive,
    answer: &Answer,
    own: Option<usize>,
    hits: &[usize],
    seen: &[Seen],
) -> anyhow::Result<Value> {
    let tokens_at = |place: Option<usize>| seen.get(place?)?.tokens.as_ref();
    let can_show = |place: Option<usize>| place.and_then(|place| seen.get(place)?.patches.as_ref());
    let rows: Vec<RowId> = answer.hits.iter().map(|hit| hit.row).collect();
    let columns = columns_of(archive.gallery.as_ref(), &rows)?;
    let cards = answer.hits.iter().zip(hits).zip(columns);
    let cards = cards.map(|((hit, &place), columns)| {
        let why = archive.model().and_then(|model| {
            can_show(own)?;
            can_show(Some(place))?;
            let why = tokens_at(own)?.why(tokens_at(Some(place))?, model)?;
            why.says_something().then_some(why)
        });
        Card {
            hit,
            picture: Some(place),
            columns,
            why,
        }
    });
    Ok(json!({
        "name": answer.query,
        "part": answer.part,
        "labels": answer.labels,
        "picture": own,
        "agreement": answer.agreement,
        "hits": cards.collect::<Vec<_>>(),
    }))
}

/// Returns for each row the cells that are not empty, with their columns; m3ret's own are left out.
fn columns_of(
    gallery: &dyn Collection,
    rows: &[RowId],
) -> anyhow::Result<Vec<Vec<(String, String)>>> {
    let own = own_names(gallery);
    let is_own =
        |name: &str| name.starts_with(OWN) || [own.root, own.key, own.pixels, PART].contains(&name);
    let mut names = gallery.columns();
    names.retain(|name| !is_own(name));
    let rows = gallery.rows(rows, &names)?.into_iter();
    let told = rows.map(|cells| {
        let cells = names.iter().zip(cells).filter(|(_, cell)| !cell.is_empty());
        cells
            .map(|(name, cell)| ((*name).to_owned(), cell.into_owned()))
            .collect()
    });
    Ok(told.collect())
}
