//! What is said about a split.

use m3ret_manifest::text_of;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;

use m3ret_manifest::columns::{DIMS, MODALITY};
use m3ret_manifest::is_unseen;
use serde::Serialize;
use serde_json::json;

use super::images::Images;
use super::rows::Sources;
use super::shares::{Assigned, MIN_GROUPS, Split};
use crate::cli::SplitArguments;
use crate::commands::index::refused_text;
use crate::commands::write_json_line;
use crate::output::Screen;
use crate::progress::Progress;
use crate::report::text::{Paint, printable};
use crate::watch::Watch as _;
use crate::words::counted;

/// Images of a group that make it worth a remark.
const CROWD: usize = 20;

/// How many groups went into others, by what joined them first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Joined {
    pub(super) patient: usize,
    pub(super) pair: usize,
    pub(super) exact: usize,
    pub(super) near: usize,
}

/// A split that is written.
pub(super) struct Made<'a> {
    pub(super) arguments: &'a SplitArguments,
    pub(super) out: &'a Path,
    pub(super) sources: &'a Sources,
    pub(super) columns: &'a [String],
    pub(super) images: Option<&'a Images>,
    /// The rows of each group.
    pub(super) members: &'a [Vec<usize>],
    pub(super) joined: Joined,
    pub(super) assigned: &'a Assigned,
    /// Of each row.
    pub(super) splits: &'a [Split],
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Count {
    n_items: usize,
    n_groups: usize,
}

/// One line of the table: what there is in each split.
type Counts = BTreeMap<Split, Count>;

/// Says what was written, and what may not be as one expects.
pub(super) fn tell(made: &Made<'_>, progress: &Progress, screen: Screen) -> anyhow::Result<()> {
    for sentence in remarks(made) {
        progress.note(&sentence);
    }
    progress.clear();
    let mut out = io::stdout().lock();
    if made.arguments.json {
        write_json_line(&mut out, &json!({"summary": summary(made)}))?;
    } else {
        let is_on = screen.has_colour;
        out.write_all(text(made, Paint { is_on }).as_bytes())?;
    }
    Ok(out.flush()?)
}

fn remarks(made: &Made<'_>) -> Vec<String> {
    let mut remarks = Vec::new();
    if made.images.is_none() {
        remarks.push(
            "no image was read (--no-duplicates): copies and near duplicates of an image may lie \
             in several splits"
                .to_owned(),
        );
    }
    let n_without = n_without_patient(made);
    if n_without > 0 {
        let rows = counted(n_without as u64, "row has", "rows have");
        remarks.push(format!(
            "{rows} no patient_id: each is taken for another patient, unless it is joined to others"
        ));
    }
    if let Some(images) = made.images
        && images.n_refused() > 0
    {
        let images = counted(images.n_refused() as u64, "image", "images");
        remarks.push(format!(
            "{images} could not be read, nor compared with others"
        ));
    }
    remarks.extend(crowd(made));
    remarks.extend(small_cells(made));
    let modalities = made.sources.words(MODALITY);
    let in_pretrain = modalities.iter().zip(made.splits);
    let n_unseen = in_pretrain
        .filter(|(word, split)| is_unseen(word) && **split == Split::Pretrain)
        .count();
    if n_unseen > 0 {
        let rows = counted(
            n_unseen as u64,
            "row of MR or PET is",
            "rows of MR or PET are",
        );
        remarks.push(format!(
            "{rows} in pretrain: m3ret pretrain leaves them out unless images.allow_mr is set"
        ));
    }
    remarks
}

/// Says so if near duplicates chain until a group holds much of everything.
fn crowd(made: &Made<'_>) -> Option<String> {
    let (n_items, n_largest) = (made.splits.len(), n_largest(made));
    let is_crowd = made.joined.near > 0 && n_largest >= CROWD && n_largest > n_items / 5;
    is_crowd.then(|| {
        format!(
            "one group holds {n_largest} of {n_items} images, {} groups were joined by near \
             duplicates: a higher --near, or another --model, tells more apart",
            made.joined.near
        )
    })
}

fn n_without_patient(made: &Made<'_>) -> usize {
    let patients = made.sources.patients();
    patients.iter().filter(|word| word.is_empty()).count()
}

/// Says what was done about cells that are too small to be cut.
fn small_cells(made: &Made<'_>) -> Vec<String> {
    let Assigned {
        n_cells,
        n_small_cells,
        n_small_groups,
        ref n_pooled,
        n_left,
        ..
    } = *made.assigned;
    if n_small_cells == 0 {
        return Vec::new();
    }
    let groups = |n: usize| counted(n as u64, "group", "groups");
    let mut sentence = format!(
        "{n_small_cells} of {n_cells} cells of {} hold fewer than {MIN_GROUPS} groups ({} in all)",
        made.columns.join(", "),
        groups(n_small_groups)
    );
    for (&n_columns, &n_groups) in n_pooled.iter().rev() {
        let alike = match n_columns {
            0 => "whatever they are".to_owned(),
            _ => format!("that agree in {}", made.columns[..n_columns].join(", ")),
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
    vec![sentence]
}

/// Counts what there is in each split, in all and for each modality and dims.
fn counts(made: &Made<'_>) -> (Counts, BTreeMap<(String, String), Counts>) {
    let (modalities, dims) = (made.sources.words(MODALITY), made.sources.words(DIMS));
    let mut all: Counts = Split::ALL.map(|split| (split, Count::default())).into();
    let mut by_kind: BTreeMap<(String, String), Counts> = BTreeMap::new();
    for (members, &split) in made.members.iter().zip(&made.assigned.splits) {
        let total = all.entry(split).or_default();
        total.n_groups += 1;
        total.n_items += members.len();
        let mut kinds = BTreeSet::new();
        for &row in members {
            let kind = (modalities[row].to_owned(), dims[row].to_owned());
            let counts = by_kind.entry(kind.clone()).or_default();
            let count = counts.entry(split).or_default();
            count.n_items += 1;
            count.n_groups += usize::from(kinds.insert(kind));
        }
    }
    (all, by_kind)
}

fn n_largest(made: &Made<'_>) -> usize {
    made.members.iter().map(Vec::len).max().unwrap_or_default()
}

fn summary(made: &Made<'_>) -> serde_json::Value {
    let arguments = made.arguments;
    let (all, by_kind) = counts(made);
    let by_kind = by_kind.iter().map(
        |((modality, dims), counts)| json!({"modality": modality, "dims": dims, "splits": counts}),
    );
    let refused = made.images.map(|images| {
        let refused = images.updated.iter().flat_map(|updated| &updated.refused);
        refused.collect::<Vec<_>>()
    });
    json!({
        "out": made.out,
        "n_items": made.splits.len(),
        "n_groups": made.members.len(),
        "n_largest": n_largest(made),
        "n_without_patient": n_without_patient(made),
        "n_joined": made.joined,
        "splits": all,
        "by_modality_dims": by_kind.collect::<Vec<_>>(),
        "seed": arguments.seed,
        "query": arguments.query,
        "pretrain": arguments.pretrain,
        "stratify": made.columns,
        "cells": made.assigned,
        "model": made.images.map(|images| &images.model),
        "near": made.images.map(|_| arguments.near),
        "refused": refused,
    })
}

fn text(made: &Made<'_>, paint: Paint) -> String {
    let mut text = String::new();
    let updated = made.images.map_or(&[][..], |images| &images.updated);
    text.extend(updated.iter().map(refused_text));
    let items = counted(made.splits.len() as u64, "image", "images");
    let groups = counted(made.members.len() as u64, "group", "groups");
    let title = format!("{}: {items} in {groups}", printable(&text_of(made.out)));
    // Writing to a `String` cannot fail.
    let _ = writeln!(text, "{}", paint.bold(&title));
    let Joined {
        patient,
        pair,
        exact,
        near,
    } = made.joined;
    let joined = format!("{patient} by patient, {pair} by pair, {exact} as copies, {near} as near");
    let _ = writeln!(text, "  {}   {joined}", paint.dim("joined"));
    let largest = counted(n_largest(made) as u64, "image", "images");
    let _ = writeln!(text, "  {}  a group of {largest}", paint.dim("largest"));
    let _ = writeln!(text);
    table(&mut text, made, paint);
    text
}

/// Writes a line for each modality and dims, and one for all.
fn table(text: &mut String, made: &Made<'_>, paint: Paint) {
    let (all, by_kind) = counts(made);
    let label = |(modality, dims): &(String, String)| {
        let words = [modality.as_str(), dims.as_str()];
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        match words.is_empty() {
            true => "(unknown)".to_owned(),
            false => printable(&words.join(" ")),
        }
    };
    let lines: Vec<(String, &Counts)> = by_kind
        .iter()
        .map(|(kind, counts)| (label(kind), counts))
        .chain([("all".to_owned(), &all)])
        .collect();
    let width = lines.iter().map(|(label, _)| label.chars().count()).max();
    let width = width.unwrap_or_default();
    let mut splits = Split::ALL.to_vec();
    splits.retain(|&split| split != Split::Pretrain || made.arguments.pretrain > 0.0);
    let heads: Vec<String> = splits
        .iter()
        .map(|split| format!("{:>16}", split.word()))
        .collect();
    let units = vec![format!("{:>8}{:>8}", "images", "groups"); splits.len()];
    for line in [heads.concat(), units.concat()] {
        let _ = writeln!(text, "  {:width$}{}", "", paint.dim(&line));
    }
    for (label, counts) in lines {
        let cell = |split| {
            let Count { n_items, n_groups } = counts.get(split).copied().unwrap_or_default();
            format!("{n_items:>8}{n_groups:>8}")
        };
        let cells: Vec<String> = splits.iter().map(cell).collect();
        let line = format!("  {label:width$}{}", cells.concat());
        let line = if label == "all" {
            paint.bold(&line)
        } else {
            line
        };
        let _ = writeln!(text, "{line}");
    }
}
