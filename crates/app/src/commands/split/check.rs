//! `m3ret split --check`: what pretrain and evaluation rows have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anyhow::ensure;
use m3ret_manifest::columns::{PAIR, SPLIT};
use serde_json::{Value, json};

use super::BATCH_PAIRS;
use super::images::Images;
use super::overlap::{Overlap, Side, across, shared, side_of};
use super::rows::Sources;
use crate::Outcome;
use crate::cli::SplitArguments;
use crate::commands::index::refused_text;
use crate::commands::write_json_line;
use crate::output::Screen;
use crate::progress::Progress;
use crate::report::text::{Paint, printable};
use crate::watch::Watch;
use crate::words::counted;

/// Overlaps of one kind that are listed for a person.
const MAX_LISTED: usize = 10;
/// Rows of one side of an overlap that are listed for a person.
const MAX_ROWS: usize = 3;

/// What rows have in common; the words are those of the JSON.
const KINDS: [(&str, &str); 4] = [
    ("patient", "same patient"),
    ("pair", "same pair_id"),
    ("exact", "same image"),
    ("near", "nearly the same image"),
];

/// Everything that was found.
struct Found<'a> {
    sources: &'a Sources,
    splits: Vec<&'a str>,
    sides: Vec<Option<Side>>,
    /// In the order of `KINDS`.
    overlaps: [Vec<Overlap>; 4],
    images: Option<&'a Images>,
}

/// Compares the rows of a manifest and of others.
pub(super) fn run(
    arguments: &SplitArguments,
    others: &[PathBuf],
    screen: Screen,
) -> anyhow::Result<Outcome> {
    let progress = Progress::start(screen);
    let limits = arguments.reading.options().limits;
    let names = std::iter::once(&arguments.manifest).chain(others);
    let sources = Sources::open(names.map(PathBuf::as_path), &limits, &progress)?;
    let splits = sources.words(SPLIT);
    let sides: Vec<Option<Side>> = splits.iter().map(|split| side_of(split)).collect();
    for (side, what) in [
        (Side::Pretrain, "pretrain"),
        (Side::Evaluation, "gallery or query"),
    ] {
        ensure!(
            sides.contains(&Some(side)),
            "no row has {what} in its column {SPLIT}: there is nothing to compare"
        );
    }
    let images = match arguments.no_duplicates {
        true => None,
        false => Some(Images::open(&sources, arguments, &progress)?),
    };
    progress.step("comparing");
    let overlaps = overlaps(
        &sources,
        &sides,
        images.as_ref(),
        (arguments.near, &progress),
    )?;
    let found = Found {
        sources: &sources,
        splits,
        sides,
        overlaps,
        images: images.as_ref(),
    };
    found.tell(arguments, &progress, screen)?;
    let has_overlap = found.overlaps.iter().any(|overlaps| !overlaps.is_empty());
    let is_good = !has_overlap || arguments.allow_overlap;
    let n_refused = found.images.map_or(0, Images::n_refused);
    Ok(if is_good && n_refused == 0 {
        Outcome::AllGood
    } else {
        Outcome::SomeRefused
    })
}

fn overlaps(
    sources: &Sources,
    sides: &[Option<Side>],
    images: Option<&Images>,
    (near, progress): (f32, &dyn Watch),
) -> anyhow::Result<[Vec<Overlap>; 4]> {
    let patients = shared(sources.patients(), sides);
    let pairs = shared(sources.words(PAIR), sides);
    let mut contents = sources.files();
    let Some(images) = images else {
        let exact = shared(contents.iter().map(String::as_str), sides);
        return Ok([patients, pairs, exact, Vec::new()]);
    };
    for (content, pixels) in contents.iter_mut().zip(&images.pixels) {
        if !pixels.is_empty() {
            content.clone_from(pixels);
        }
    }
    let exact = shared(contents.iter().map(String::as_str), sides);
    let has = |source: usize, side: Side| {
        let source = &sources.0[source];
        sides[source.start..][..source.table.len()].contains(&Some(side))
    };
    let wants = |a: usize, b: usize| {
        has(a, Side::Pretrain) && has(b, Side::Evaluation)
            || has(a, Side::Evaluation) && has(b, Side::Pretrain)
    };
    let mut close = images.close(near, wants, progress)?;
    close.retain(|pair| {
        let [a, b] = pair.rows;
        across(pair.rows, sides).is_some() && contents[a] != contents[b]
    });
    let mut found = Vec::new();
    for pairs in close.chunks(BATCH_PAIRS) {
        for (pair, verdict) in pairs.iter().zip(images.confirm(pairs)?) {
            let overlap = verdict.and_then(|_| across(pair.rows, sides));
            found.extend(overlap.map(|overlap| Overlap {
                score: Some(pair.score),
                ..overlap
            }));
        }
    }
    Ok([patients, pairs, exact, found])
}

/// Counts the patients of one side who are on the other under another spelling of the same number.
fn n_alike_as_numbers(patients: &[&str], sides: &[Option<Side>]) -> usize {
    let of = |side: Side| -> BTreeMap<String, BTreeSet<&str>> {
        let mut by_number = BTreeMap::<String, BTreeSet<&str>>::new();
        let rows = patients
            .iter()
            .zip(sides)
            .filter(|(_, own)| **own == Some(side));
        for (patient, _) in rows {
            if let Some(number) = as_number(patient) {
                by_number.entry(number).or_default().insert(patient);
            }
        }
        by_number
    };
    let (pretrain, evaluation) = (of(Side::Pretrain), of(Side::Evaluation));
    let differs = |(number, words): &(&String, &BTreeSet<&str>)| {
        evaluation
            .get(*number)
            .is_some_and(|others| words.is_disjoint(others))
    };
    pretrain.iter().filter(differs).count()
}

/// Returns the whole number that an identifier is, without zeros in front and without decimals of 0.
fn as_number(identifier: &str) -> Option<String> {
    let whole = match identifier.split_once('.') {
        Some((whole, decimals)) if decimals.bytes().all(|byte| byte == b'0') => whole,
        Some(_) => return None,
        None => identifier,
    };
    let is_number = !whole.is_empty() && whole.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| whole.trim_start_matches('0').to_owned())
}

impl Found<'_> {
    fn tell(
        &self,
        arguments: &SplitArguments,
        progress: &Progress,
        screen: Screen,
    ) -> anyhow::Result<()> {
        let n_alike = n_alike_as_numbers(&self.sources.patients(), &self.sides);
        if n_alike > 0 {
            progress.note(&format!(
                "{n_alike} patients of one side are those of the other if their ids are read as numbers (1, 1.0 and \
                 0001), but not as text: write them alike, or these patients stay on both sides"
            ));
        }
        if self.images.is_none() {
            progress.note("no image was read (--no-duplicates): only paths were compared");
        }
        let n_others = self.sides.iter().filter(|side| side.is_none()).count();
        if n_others > 0 {
            let rows = counted(n_others as u64, "row is", "rows are");
            progress.note(&format!(
                "{rows} neither pretrain nor gallery nor query, and compared with nothing"
            ));
        }
        progress.clear();
        let mut out = BufWriter::new(io::stdout().lock());
        if arguments.json {
            self.write_json(&mut out)?;
        } else {
            let is_on = screen.has_colour;
            self.write_text(&mut out, Paint { is_on })?;
        }
        Ok(out.flush()?)
    }

    fn n_rows(&self, side: Side) -> usize {
        let own = self.sides.iter().filter(|&&other| other == Some(side));
        own.count()
    }

    /// Counts the evaluation rows that have something in common with pretrain rows.
    fn n_touched(&self) -> usize {
        let overlaps = self.overlaps.iter().flatten();
        let rows: BTreeSet<usize> = overlaps.flat_map(|o| o.evaluation.clone()).collect();
        rows.len()
    }

    fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        let rows = |rows: &[usize]| -> Vec<Value> {
            let row = |&row: &usize| {
                let (source, idx) = self.sources.place(row);
                json!({"manifest": source.name, "row": idx + 1, "file": self.sources.shown(row),
                    "split": self.splits[row]})
            };
            rows.iter().map(row).collect()
        };
        for ((kind, _), overlaps) in KINDS.iter().zip(&self.overlaps) {
            for overlap in overlaps {
                let line = json!({"overlap": kind, "score": overlap.score,
                    "pretrain": rows(&overlap.pretrain), "evaluation": rows(&overlap.evaluation)});
                write_json_line(out, &line)?;
            }
        }
        let refused = self.images.map(|images| {
            let refused = images.updated.iter().flat_map(|updated| &updated.refused);
            refused.collect::<Vec<_>>()
        });
        let [patients, pairs, exact, near] = self.overlaps.each_ref().map(Vec::len);
        let summary = json!({
            "n_pretrain": self.n_rows(Side::Pretrain),
            "n_evaluation": self.n_rows(Side::Evaluation),
            "n_evaluation_overlapping": self.n_touched(),
            "n_patients": patients,
            "n_pairs": pairs,
            "n_exact": exact,
            "n_near": self.images.map(|_| near),
            "model": self.images.map(|images| &images.model),
            "refused": refused,
        });
        write_json_line(out, &json!({"summary": summary}))
    }

    fn write_text(&self, out: &mut impl Write, paint: Paint) -> io::Result<()> {
        for updated in self.images.map_or(&[][..], |images| &images.updated) {
            out.write_all(refused_text(updated).as_bytes())?;
        }
        for ((_, title), overlaps) in KINDS.iter().zip(&self.overlaps) {
            for overlap in overlaps.iter().take(MAX_LISTED) {
                let score = overlap.score.map(|score| format!(" {score:.4}"));
                let title = format!("{title}{}", score.unwrap_or_default());
                writeln!(out, "{}", paint.bold(&title))?;
                self.write_rows(out, &overlap.pretrain, paint)?;
                self.write_rows(out, &overlap.evaluation, paint)?;
            }
            let n_more = overlaps.len().saturating_sub(MAX_LISTED);
            if n_more > 0 {
                let more = format!("... and {n_more} more ({title}); --json lists all");
                writeln!(out, "{}", paint.dim(&more))?;
            }
        }
        let rows = |side| counted(self.n_rows(side) as u64, "row", "rows");
        let [patients, pairs, exact, near] = self.overlaps.each_ref().map(|all| all.len() as u64);
        let near = match self.images {
            Some(_) => counted(near, "near duplicate", "near duplicates"),
            None => "near duplicates unknown".to_owned(),
        };
        writeln!(
            out,
            "{} of pretrain and {} of evaluation share {}, {}, {}, {near}",
            rows(Side::Pretrain),
            rows(Side::Evaluation),
            counted(patients, "patient", "patients"),
            counted(pairs, "pair", "pairs"),
            counted(exact, "copied image", "copied images"),
        )?;
        let n_touched = counted(self.n_touched() as u64, "evaluation row", "evaluation rows");
        writeln!(out, "  {}  {n_touched}", paint.dim("concerned"))
    }

    fn write_rows(&self, out: &mut impl Write, rows: &[usize], paint: Paint) -> io::Result<()> {
        for &row in rows.iter().take(MAX_ROWS) {
            let (_, idx) = self.sources.place(row);
            let place = format!("{:<8}  row {:<6}", printable(self.splits[row]), idx + 1);
            let file = printable(&self.sources.shown(row));
            writeln!(out, "  {}  {file}", paint.dim(&place))?;
        }
        let n_more = rows.len().saturating_sub(MAX_ROWS);
        if n_more > 0 {
            let more = counted(n_more as u64, "row more", "rows more");
            writeln!(out, "  {}", paint.dim(&format!("and {more}")))?;
        }
        Ok(())
    }
}
