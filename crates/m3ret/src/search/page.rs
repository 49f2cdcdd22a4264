//! The report of a search: one HTML file that needs nothing else.

use std::path::Path;

use m3ret_manifest::text_of;
use serde::Serialize;
use serde_json::json;

use super::why::{ImageTokens, Plane, Why, picture};
use super::{Answer, Ask, Hit};
use crate::galleries::{Archive, file_of};
use crate::model_name::{HOG, PIXELS};
use crate::report::shell::Page;

/// A hit on the page.
#[derive(Serialize)]
struct Card<'a> {
    #[serde(flatten)]
    hit: &'a Hit,
    planes: Vec<Plane>,
    /// Why there are no pictures.
    missing: Option<String>,
    why: Option<Why>,
}

/// Returns the report of a search as one HTML page: pictures of each query and its hits, and why they match.
///
/// The page needs no network and no other file. Every image is read again, and embedded if the model has patches;
/// an image that cannot be read has no picture.
///
/// # Errors
/// If the gallery is damaged or cannot be read.
pub fn page(archive: &Archive, ask: &Ask, answers: &[Answer]) -> crate::Result<String> {
    let mut queries = Vec::with_capacity(answers.len());
    for answer in answers {
        queries.push(query(archive, answer)?);
    }
    let maker = archive.gallery.maker();
    let filters = ask.filters.iter().map(|filter| {
        let sign = if filter.is_negated { "!=" } else { "=" };
        format!("{}{sign}{}", filter.column, filter.value)
    });
    let report = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "model": maker.model,
        "archive": text_of(&archive.place),
        "n_items": archive.gallery.len(),
        "filters": filters.collect::<Vec<_>>(),
        "excluded": ask.exclude,
        "n_refused": archive.updated.refused.len(),
        "has_patches": ![PIXELS, HOG].contains(&&*maker.model),
        "queries": queries,
    });
    let page = Page {
        title: "m3ret search",
        style: include_str!("../report/web/search.css"),
        body: include_str!("../report/web/search.html"),
        script: include_str!("../report/web/search.js"),
        data: Some(&report),
    };
    Ok(page.html())
}

fn query(archive: &Archive, answer: &Answer) -> anyhow::Result<serde_json::Value> {
    let gallery = archive.gallery.as_ref();
    let see = |file: &Path, part: Option<&str>| match &archive.model {
        Some(model) => ImageTokens::read(file, part, model, &archive.reading.options),
        None => Err("vectors have no pictures".to_owned()),
    };
    let own = match &answer.file {
        Some(file) => see(file, answer.part.as_deref()),
        None => Err("a vector has no picture".to_owned()),
    };
    let mut cards = Vec::with_capacity(answer.hits.len());
    for hit in &answer.hits {
        let seen = see(&file_of(gallery, hit.row)?, hit.part.as_deref());
        let why = match (&own, &seen, &archive.model) {
            (Ok(own), Ok(seen), Some(model)) => own.why(seen, model),
            _ => None,
        };
        let stored = gallery.attachment(hit.row, "thumbnail")?;
        cards.push(card(hit, seen, why, &stored));
    }
    let (planes, missing) = shown(own);
    Ok(json!({
        "name": answer.query,
        "part": answer.part,
        "labels": answer.labels,
        "planes": planes,
        "missing": missing,
        "agreement": answer.agreement,
        "hits": cards,
    }))
}

fn card<'a>(
    hit: &'a Hit,
    seen: Result<ImageTokens, String>,
    why: Option<Why>,
    stored: &[u8],
) -> Card<'a> {
    let (mut planes, missing) = shown(seen);
    if planes.is_empty() && !stored.is_empty() {
        planes.push(picture(stored));
    }
    Card {
        hit,
        planes,
        missing,
        why,
    }
}

/// Returns the pictures of an image, or the reason why it has none.
fn shown(seen: Result<ImageTokens, String>) -> (Vec<Plane>, Option<String>) {
    match seen {
        Ok(seen) => (seen.planes, None),
        Err(message) => (Vec::new(), Some(message)),
    }
}
