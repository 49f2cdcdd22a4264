//! The page of a map: points, what is known of each image, and small pictures.

use std::collections::{BTreeSet, HashMap};
use std::io::Write as _;

use anyhow::Context as _;
use m3ret_manifest::columns::{BODY_PART, FINDING, LABEL, MODALITY, PART, PATH};
use m3ret_manifest::text_of;
use m3ret_search::RowId;
use serde_json::{Value, json};

use super::tiles::{Atlas, Source};
use super::{Drawing, MapOptions};
use crate::files::write_whole;
use crate::galleries::columns::own_names;
use crate::galleries::{self, Archive, RowCells};
use crate::report::shell::Page;
use crate::report::viewer;

/// Most values of a column that have a place in its legend; the rest is `other`.
const MAX_VALUES: usize = 40;
/// A column of numbers with more values than this is coloured as a scale.
const MAX_NUMBERS: usize = 12;
/// The word by which m3ret names its own columns.
const OWN: &str = "m3ret:";

/// Writes the page.
pub(super) fn write(
    options: &MapOptions,
    archive: &Archive,
    rows: &[RowId],
    drawing: &Drawing,
) -> anyhow::Result<()> {
    let gallery = archive.gallery.as_ref();
    let cells = RowCells::of_rows(gallery, rows)?;
    let (mut names, mut labels) = (Vec::new(), Vec::new());
    for cells in &cells {
        let file = cells.file();
        let shown = options.shown_from.as_ref();
        let shown = shown.and_then(|folder| file.strip_prefix(folder).ok());
        let name = text_of(shown.unwrap_or(&file));
        names.push(galleries::with_part(&name, cells.part()));
        let told = [MODALITY, BODY_PART, FINDING, LABEL].map(|column| cells.get(column));
        let told: Vec<&str> = told.into_iter().filter(|label| !label.is_empty()).collect();
        labels.push(told.join(" "));
    }
    let sources: Vec<Source<'_>> = rows
        .iter()
        .zip(&cells)
        .map(|(&row, cells)| Source { row, cells })
        .collect();
    let atlas = Atlas::draw(archive, &sources)?;
    let ids = gallery.ids(rows)?;
    let places = drawing.places.iter();
    let places: Vec<f64> = places
        .map(|&x| (f64::from(x) * 1e3).round() / 1e3)
        .collect();
    let map = json!({
        "archive": text_of(&options.archive),
        "model": gallery.maker().model,
        "color": options.colour,
        "n_all": gallery.len(),
        "places": places,
        "ids": ids,
        "names": names,
        "labels": labels,
        "near": drawing.near,
        "columns": columns(options, archive, rows)?,
        "tiles": atlas,
    });
    let page = Page {
        title: "m3ret map",
        style: &[viewer::STYLE, include_str!("../report/web/map.css")].concat(),
        body: include_str!("../report/web/map.html"),
        script: concat!(
            include_str!("../report/web/viewer.js"),
            include_str!("../report/web/map.js")
        ),
        data: Some(&map),
    };
    let page = page.html();
    write_whole(&options.html, |out| Ok(out.write_all(page.as_bytes())?)).context("writing the map")
}

/// Returns the columns by which points can be coloured: those of the gallery with more than one value, and the one asked
/// for.
fn columns(options: &MapOptions, archive: &Archive, rows: &[RowId]) -> anyhow::Result<Vec<Value>> {
    let gallery = archive.gallery.as_ref();
    let own = own_names(gallery);
    let mut names = gallery.columns();
    names.retain(|&name| {
        let is_own = name.starts_with(OWN) || [own.root, own.key, own.pixels].contains(&name);
        name == options.colour || !(is_own || [PATH, PART].contains(&name))
    });
    let cells = gallery.rows(rows, &names)?;
    let columns = names.iter().enumerate().filter_map(|(place, name)| {
        let cells: Option<Vec<&str>> = cells
            .iter()
            .map(|row| row.get(place).map(AsRef::as_ref))
            .collect();
        column(name, &cells?, *name == options.colour)
    });
    Ok(columns.collect())
}

/// Returns one column as numbers, or as places in a list of its values, the most frequent first; `None` where colours
/// would say nothing: one value, or nearly as many values as images.
fn column(name: &str, cells: &[&str], is_wanted: bool) -> Option<Value> {
    let distinct: BTreeSet<&str> = cells.iter().copied().collect();
    let is_telling = distinct.len() > 1;
    if !is_telling && !is_wanted {
        return None;
    }
    let number = |cell: &str| cell.parse::<f64>().ok().filter(|x| x.is_finite());
    let has_numbers = distinct
        .iter()
        .all(|cell| cell.is_empty() || number(cell).is_some());
    if has_numbers && distinct.len() > MAX_NUMBERS {
        let cells: Vec<Option<f64>> = cells.iter().map(|cell| number(cell)).collect();
        return Some(json!({"name": name, "kind": "numbers", "cells": cells}));
    }
    if distinct.len() > MAX_VALUES && 2 * distinct.len() > cells.len() && !is_wanted {
        return None;
    }
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for &cell in cells {
        *counts.entry(cell).or_default() += 1;
    }
    let mut values: Vec<(&str, usize)> = counts.into_iter().collect();
    values.sort_by(|one, other| other.1.cmp(&one.1).then(one.0.cmp(other.0)));
    values.truncate(MAX_VALUES);
    let places: HashMap<&str, usize> = values
        .iter()
        .enumerate()
        .map(|(place, (value, _))| (*value, place))
        .collect();
    let cells = cells.iter().map(|cell| places.get(cell).copied());
    // What is not in the list lies one past its end.
    let cells: Vec<usize> = cells.map(|place| place.unwrap_or(values.len())).collect();
    let values: Vec<&str> = values.into_iter().map(|(value, _)| value).collect();
    Some(json!({
        "name": name,
        "kind": "words",
        "values": values,
        "n_distinct": distinct.len(),
        "cells": cells,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_lists_of_values_or_numbers() {
        let words = column("m", &["CT", "MR", "", "CT"], false).unwrap();
        assert_eq!(words["kind"], "words");
        assert_eq!(words["values"], json!(["CT", "", "MR"]));
        assert_eq!(words["cells"], json!([0, 2, 1, 0]));
        let ages: Vec<String> = (0..20).map(|i| i.to_string()).collect();
        let mut ages: Vec<&str> = ages.iter().map(String::as_str).collect();
        ages.push("");
        let numbers = column("age", &ages, false).unwrap();
        assert_eq!(numbers["kind"], "numbers");
        assert_eq!(numbers["cells"][3], json!(3.0));
        assert_eq!(numbers["cells"][20], Value::Null);
        // Few numbers are classes.
        assert_eq!(
            column("grade", &["1", "2", "1"], false).unwrap()["kind"],
            "words"
        );
    }

    #[test]
    fn columns_that_say_nothing_are_left_out_unless_they_are_asked_for() {
        assert!(column("dims", &["2d", "2d"], false).is_none());
        assert!(column("dims", &["2d", "2d"], true).is_some());
        let ids: Vec<String> = (0..100).map(|i| format!("id{i}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        assert!(column("id", &ids, false).is_none());
        let wanted = column("id", &ids, true).unwrap();
        assert_eq!(wanted["values"].as_array().unwrap().len(), MAX_VALUES);
        assert_eq!(wanted["n_distinct"], 100);
    }
}
