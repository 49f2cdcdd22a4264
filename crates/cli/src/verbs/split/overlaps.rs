//! What is printed of `m3ret split --check`.

use std::io::{self, Write};

use m3ret_manifest::columns::SPLIT;
use serde_json::{Value, json};

use super::super::short;
use super::write_json_line;
use crate::text::Paint;
use crate::verbs::as_printed;
use m3ret::galleries::refused_text;
use m3ret::split::check::SplitCheck;
use m3ret::split::overlap::Overlap;
use m3ret::words::counted;
use m3ret::words::printable;

/// Overlaps of one kind that are listed for a person.
const MAX_LISTED: usize = 10;
/// Rows of one side of an overlap that are listed for a person.
const MAX_ROWS: usize = 3;

/// Overlaps of one kind.
struct Kind<'a> {
    /// The word in the JSON.
    word: &'static str,
    title: &'static str,
    overlaps: &'a [Overlap],
}

fn kinds(check: &SplitCheck) -> [Kind<'_>; 4] {
    let overlaps = &check.overlaps;
    let kind = |word, title, overlaps| Kind {
        word,
        title,
        overlaps,
    };
    [
        kind("patient", "same patient", &overlaps.patients),
        kind("pair", "same pair_id", &overlaps.pairs),
        kind("exact", "same image", &overlaps.exact),
        kind("near", "nearly the same image", &overlaps.near),
    ]
}

/// Returns what a person should know about the comparison beside its result.
pub(super) fn remarks(check: &SplitCheck) -> Vec<String> {
    let mut remarks = Vec::new();
    if check.n_alike_as_numbers > 0 {
        remarks.push(format!(
            "{} on both sides if ids are read as numbers (1, 1.0 and 0001), but not as text: write ids alike",
            counted(check.n_alike_as_numbers as u64, "patient is", "patients are")
        ));
    }
    if check.images.is_none() {
        remarks.push("no image was read (--no-duplicates): only paths were compared".to_owned());
    }
    if check.n_others > 0 {
        let rows = counted(check.n_others as u64, "row is", "rows are");
        remarks.push(format!(
            "{rows} neither pretrain nor gallery nor query, and compared with nothing"
        ));
    }
    remarks
}

/// Prints an object a line for each overlap, then the totals.
pub(super) fn write_json(out: &mut impl Write, check: &SplitCheck) -> io::Result<()> {
    let rows = |rows: &[usize]| -> Vec<Value> {
        let row = |&row: &usize| {
            let row = check.row(row);
            json!({"manifest": row.manifest, "row": row.number, "file": short(&row.file),
                (SPLIT): row.split})
        };
        rows.iter().map(row).collect()
    };
    for Kind { word, overlaps, .. } in kinds(check) {
        for overlap in overlaps {
            let line = json!({"overlap": word, "score": overlap.score.map(as_printed),
                "pretrain": rows(&overlap.pretrain), "evaluation": rows(&overlap.evaluation)});
            write_json_line(out, &line)?;
        }
    }
    let images = check.images.as_ref();
    let refused = images.map(|images| {
        let refused = images.updated.iter().flat_map(|updated| &updated.refused);
        refused.collect::<Vec<_>>()
    });
    let overlaps = &check.overlaps;
    let summary = json!({
        "n_pretrain": check.n_pretrain,
        "n_evaluation": check.n_evaluation,
        "n_evaluation_overlapping": check.n_evaluation_overlapping,
        "n_patients": overlaps.patients.len(),
        "n_pairs": overlaps.pairs.len(),
        "n_exact": overlaps.exact.len(),
        "n_near": images.map(|_| overlaps.near.len()),
        "model": images.map(|images| &images.model),
        "refused": refused,
    });
    write_json_line(out, &json!({"summary": summary}))
}

/// Prints the refused images, the first overlaps of each kind, and the totals.
pub(super) fn write_text(out: &mut impl Write, check: &SplitCheck, paint: Paint) -> io::Result<()> {
    let images = check.images.as_ref();
    for updated in images.map_or(&[][..], |images| &images.updated) {
        out.write_all(refused_text(updated).as_bytes())?;
    }
    for Kind {
        title, overlaps, ..
    } in kinds(check)
    {
        for overlap in overlaps.iter().take(MAX_LISTED) {
            let score = overlap.score.map(|score| format!(" {score:.4}"));
            let title = format!("{title}{}", score.unwrap_or_default());
            writeln!(out, "{}", paint.bold(&title))?;
            write_rows(out, check, &overlap.pretrain, paint)?;
            write_rows(out, check, &overlap.evaluation, paint)?;
        }
        let n_more = overlaps.len().saturating_sub(MAX_LISTED);
        if n_more > 0 {
            let more = format!("... and {n_more} more ({title}); --json lists all");
            writeln!(out, "{}", paint.dim(&more))?;
        }
    }
    write_totals(out, check, paint)
}

fn write_totals(out: &mut impl Write, check: &SplitCheck, paint: Paint) -> io::Result<()> {
    let rows = |n: usize| counted(n as u64, "row", "rows");
    let overlaps = &check.overlaps;
    let n = |overlaps: &[Overlap]| overlaps.len() as u64;
    let near = match check.images {
        Some(_) => counted(n(&overlaps.near), "near duplicate", "near duplicates"),
        None => "near duplicates unknown".to_owned(),
    };
    writeln!(
        out,
        "{} of pretrain and {} of evaluation share {}, {}, {}, {near}",
        rows(check.n_pretrain),
        rows(check.n_evaluation),
        counted(n(&overlaps.patients), "patient", "patients"),
        counted(n(&overlaps.pairs), "pair", "pairs"),
        counted(n(&overlaps.exact), "copied image", "copied images"),
    )?;
    let n_overlapping = check.n_evaluation_overlapping as u64;
    let concerned = counted(n_overlapping, "evaluation row", "evaluation rows");
    writeln!(out, "  {}  {concerned}", paint.dim("concerned"))
}

/// Writes a few of the rows of one side.
fn write_rows(
    out: &mut impl Write,
    check: &SplitCheck,
    rows: &[usize],
    paint: Paint,
) -> io::Result<()> {
    for &row in rows.iter().take(MAX_ROWS) {
        let row = check.row(row);
        let place = format!("{:<8}  row {:<6}", printable(row.split), row.number);
        writeln!(
            out,
            "  {}  {}",
            paint.dim(&place),
            printable(&short(&row.file))
        )?;
    }
    let n_more = rows.len().saturating_sub(MAX_ROWS);
    if n_more > 0 {
        let more = counted(n_more as u64, "row more", "rows more");
        writeln!(out, "  {}", paint.dim(&format!("and {more}")))?;
    }
    Ok(())
}
