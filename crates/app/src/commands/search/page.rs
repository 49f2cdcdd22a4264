//! The report of a search: one HTML file that needs nothing else.

use m3ret_manifest::text_of;
use std::io::Write as _;
use std::path::Path;

use serde::Serialize;
use serde_json::json;

use super::ask::Asked;
use super::why::{Plane, Seen, Why, picture};
use super::{Answer, Found};
use crate::cli::SearchArguments;
use crate::commands::galleries::{Opened, file_of};
use crate::model_name::{HOG, PIXELS};
use crate::output::write_whole;

/// The page; data take the place of `PLACE`.
const PAGE: &str = include_str!("page.html");
const PLACE: &str = "/*REPORT_JSON*/null";

/// A hit on the page.
#[derive(Serialize)]
struct Card<'a> {
    #[serde(flatten)]
    found: &'a Found,
    planes: Vec<Plane>,
    /// Why there are no pictures.
    missing: Option<String>,
    why: Option<Why>,
}

/// Writes the report.
pub(super) fn write(
    path: &Path,
    arguments: &SearchArguments,
    opened: &Opened,
    (asked, answers): (&[Asked], &[Answer<'_>]),
) -> anyhow::Result<()> {
    let mut queries = Vec::with_capacity(asked.len());
    for (asked, answer) in asked.iter().zip(answers) {
        queries.push(query(arguments, opened, asked, answer)?);
    }
    let maker = opened.gallery.maker();
    let filters = arguments.filter.iter().map(|filter| {
        let sign = if filter.is_negated { "!=" } else { "=" };
        format!("{}{sign}{}", filter.column, filter.value)
    });
    let report = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "model": maker.model,
        "archive": text_of(&arguments.archive),
        "n_items": opened.gallery.len(),
        "filters": filters.collect::<Vec<_>>(),
        "excluded": arguments.exclude,
        "n_refused": opened.updated.refused.len(),
        "has_patches": ![PIXELS, HOG].contains(&&*maker.model),
        "queries": queries,
    });
    let page = PAGE.replacen(PLACE, &harmless(&report.to_string()), 1);
    write_whole(path, |out| Ok(out.write_all(page.as_bytes())?))
}

/// Keeps data from ending the element that they stand in.
pub(in crate::commands) fn harmless(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

fn query(
    arguments: &SearchArguments,
    opened: &Opened,
    asked: &Asked,
    answer: &Answer<'_>,
) -> anyhow::Result<serde_json::Value> {
    let options = arguments.reading.options();
    let see = |file: &Path, part: Option<&str>| match &opened.model {
        Some(model) => Seen::read(file, part, model, &options),
        None => Err("vectors have no pictures".to_owned()),
    };
    let own = match &asked.file {
        Some(file) => see(file, asked.part.as_deref()),
        None => Err("a vector has no picture".to_owned()),
    };
    let mut cards = Vec::with_capacity(answer.hits.len());
    for found in &answer.hits {
        let seen = see(&file_of(&opened.gallery, found.row)?, found.part.as_deref());
        let why = match (&own, &seen, &opened.model) {
            (Ok(own), Ok(seen), Some(model)) => own.why(seen, model),
            _ => None,
        };
        let stored = opened.gallery.attachment(found.row, "thumbnail")?;
        cards.push(card(found, seen, why, stored));
    }
    let (planes, missing) = shown(own);
    Ok(json!({
        "name": asked.name,
        "part": asked.part,
        "labels": asked.labels,
        "planes": planes,
        "missing": missing,
        "confident": answer.confident,
        "hits": cards,
    }))
}

fn card<'a>(
    found: &'a Found,
    seen: Result<Seen, String>,
    why: Option<Why>,
    stored: &[u8],
) -> Card<'a> {
    let (mut planes, missing) = shown(seen);
    if planes.is_empty() && !stored.is_empty() {
        planes.push(picture(stored));
    }
    Card {
        found,
        planes,
        missing,
        why,
    }
}

/// Splits what was seen into pictures, or the reason why there are none.
fn shown(seen: Result<Seen, String>) -> (Vec<Plane>, Option<String>) {
    match seen {
        Ok(seen) => (seen.planes, None),
        Err(message) => (Vec::new(), Some(message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_one_place_for_data_which_cannot_leave_it() {
        assert_eq!(PAGE.matches(PLACE).count(), 1);
        assert!(PAGE.is_ascii());
        assert!(!PAGE.contains("http://") && !PAGE.contains("https://"));
        assert_eq!(harmless("</script>&"), "\\u003c/script\\u003e\\u0026");
    }
}
