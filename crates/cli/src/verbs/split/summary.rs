//! What is printed of a split.

use std::fmt::Write as _;

use m3ret_manifest::text_of;

use crate::text::Paint;
use m3ret::galleries::refused_text;
use m3ret::split::SplitOptions;
use m3ret::split::shares::{CellCounts, MIN_GROUPS, Split};
use m3ret::split::summary::{JoinCounts, KindCounts, SplitCount, SplitCounts, SplitSummary};
use m3ret::words::counted;
use m3ret::words::printable;

/// Images of a group that make it worth a remark.
const CROWD: usize = 20;

/// Returns what a person should know about a split beside its numbers.
pub(super) fn remarks(summary: &SplitSummary) -> Vec<String> {
    let mut remarks = Vec::new();
    if summary.images.is_none() {
        remarks.push(
            "no image was read (--no-duplicates): copies and near duplicates of an image may lie \
             in several splits"
                .to_owned(),
        );
    }
    if summary.n_without_patient > 0 {
        let rows = counted(summary.n_without_patient as u64, "row has", "rows have");
        remarks.push(format!(
            "{rows} no patient_id: each is taken for another patient, unless it is joined to others"
        ));
    }
    if let Some(images) = &summary.images
        && images.n_refused > 0
    {
        let images = counted(images.n_refused as u64, "image", "images");
        remarks.push(format!(
            "{images} could not be read, nor compared with others"
        ));
    }
    remarks.extend(crowd(summary));
    remarks.extend(small_cells(summary));
    if summary.n_unseen_in_pretrain > 0 {
        let rows = counted(
            summary.n_unseen_in_pretrain as u64,
            "row of MR or PET is",
            "rows of MR or PET are",
        );
        remarks.push(format!(
            "{rows} in pretrain: m3ret pretrain leaves them out unless images.allow_mr is set"
        ));
    }
    remarks
}

/// Returns a remark if near duplicates chain until a group holds much of everything.
fn crowd(summary: &SplitSummary) -> Option<String> {
    let SplitSummary {
        n_items, n_largest, ..
    } = *summary;
    let is_crowd = summary.joins.near > 0 && n_largest >= CROWD && n_largest > n_items / 5;
    is_crowd.then(|| {
        format!(
            "one group holds {n_largest} of {n_items} images, {} joined by near duplicates: a higher \
             --near, or another --model, tells more apart",
            counted(summary.joins.near as u64, "group was", "groups were")
        )
    })
}

/// Returns a remark if cells were too small to be cut in three.
fn small_cells(summary: &SplitSummary) -> Option<String> {
    let CellCounts {
        n_cells,
        n_small_cells,
        n_small_groups,
        ref n_pooled,
        n_left,
    } = summary.cells;
    if n_small_cells == 0 {
        return None;
    }
    let groups = |n: usize| counted(n as u64, "group", "groups");
    let of = match &summary.stratify[..] {
        [] => String::new(),
        columns => format!(" of {}", columns.join(", ")),
    };
    let mut sentence = format!(
        "{n_small_cells} of {n_cells} cells{of} hold fewer than {MIN_GROUPS} groups ({} in all)",
        groups(n_small_groups)
    );
    for (&n_columns, &n_groups) in n_pooled.iter().rev() {
        let alike = match n_columns {
            0 => "whatever they are".to_owned(),
            _ => format!("that agree in {}", summary.stratify[..n_columns].join(", ")),
        };
        let _ = write!(sentence, "; {} put together {alike}", groups(n_groups));
    }
    if n_left > 0 {
        let _ = write!(
            sentence,
            "; {} left over, of which none becomes a query",
            groups(n_left)
        );
    }
    Some(sentence)
}

/// Renders the refused images, then the totals and a table.
pub(super) fn text(options: &SplitOptions, summary: &SplitSummary, paint: Paint) -> String {
    let mut text = String::new();
    let images = summary.images.as_ref();
    let updated = images.map_or(&[][..], |images| &images.updated);
    text.extend(updated.iter().map(refused_text));
    let items = counted(summary.n_items as u64, "image", "images");
    let groups = counted(summary.n_groups as u64, "group", "groups");
    let title = format!("{}: {items} in {groups}", printable(&text_of(&options.out)));
    // Writing to a `String` cannot fail.
    let _ = writeln!(text, "{}", paint.bold(&title));
    let JoinCounts {
        patient,
        pair,
        exact,
        near,
    } = summary.joins;
    let joined = format!("{patient} by patient, {pair} by pair, {exact} as copies, {near} as near");
    let _ = writeln!(text, "  {}   {joined}", paint.dim("joined"));
    let largest = counted(summary.n_largest as u64, "image", "images");
    let _ = writeln!(text, "  {}  a group of {largest}", paint.dim("largest"));
    let _ = writeln!(text);
    let mut columns = Split::ALL.to_vec();
    columns.retain(|&split| split != Split::Pretrain || options.pretrain > 0.0);
    table(&mut text, summary, &columns, paint);
    text
}

/// Writes a line for each modality and dims, and one for all; `columns` are the splits that are shown.
fn table(text: &mut String, summary: &SplitSummary, columns: &[Split], paint: Paint) {
    let lines: Vec<(String, &SplitCounts)> = summary
        .kinds
        .iter()
        .map(|kind| (label(kind), &kind.splits))
        .chain([("all".to_owned(), &summary.splits)])
        .collect();
    let width = lines.iter().map(|(label, _)| label.chars().count()).max();
    let width = width.unwrap_or_default();
    let heads: Vec<String> = columns
        .iter()
        .map(|split| format!("{:>16}", split.word()))
        .collect();
    let units = vec![format!("{:>8}{:>8}", "images", "groups"); columns.len()];
    for line in [heads.concat(), units.concat()] {
        let _ = writeln!(text, "  {:width$}{}", "", paint.dim(&line));
    }
    for (label, counts) in lines {
        let cell = |split| {
            let SplitCount { n_items, n_groups } = counts.get(split).copied().unwrap_or_default();
            format!("{n_items:>8}{n_groups:>8}")
        };
        let cells: Vec<String> = columns.iter().map(cell).collect();
        let line = format!("  {label:width$}{}", cells.concat());
        let line = if label == "all" {
            paint.bold(&line)
        } else {
            line
        };
        let _ = writeln!(text, "{line}");
    }
}

/// Returns the name of a line of the table.
fn label(kind: &KindCounts) -> String {
    let words = [kind.modality.as_str(), kind.dims.as_str()];
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    match words.is_empty() {
        true => "(unknown)".to_owned(),
        false => printable(&words.join(" ")),
    }
}
