//! What is said about a run: JSON lines, and the summary for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufWriter, StdoutLock, Write as _};
use std::time::Duration;

use serde::Serialize;

use super::items::Listing;
use super::shards::Settings;
use super::{Facts, Made, Refusal, Row, Written};
use crate::commands::check::tally::{counted, section};
use crate::commands::write_json_line;
use crate::output::Screen;
use crate::progress::Progress;
use crate::report::text::{Paint, printable, rate};
use crate::report::{Report, Verdict};
use crate::watch::Watch as _;

/// Collects the rows of all items, and tells of each as soon as it comes.
pub(super) struct Teller<'a> {
    listing: &'a Listing,
    progress: &'a Progress,
    out: BufWriter<StdoutLock<'static>>,
    is_json: bool,
    /// Nobody reads standard output any more; the file is still wanted.
    is_closed: bool,
    rows: Vec<Vec<Row>>,
    n_embedded: usize,
    n_refused: usize,
}

impl<'a> Teller<'a> {
    pub(super) fn new(is_json: bool, listing: &'a Listing, progress: &'a Progress) -> Self {
        Self {
            listing,
            progress,
            out: BufWriter::new(io::stdout().lock()),
            is_json,
            is_closed: false,
            rows: Vec::with_capacity(listing.items.len()),
            n_embedded: 0,
            n_refused: 0,
        }
    }

    /// Takes the rows of the next item.
    pub(super) fn tell(&mut self, rows: Vec<Row>, is_new: bool) -> anyhow::Result<()> {
        let item_idx = self.rows.len();
        let path = self
            .listing
            .items
            .get(item_idx)
            .map_or("", |item| &item.path);
        for row in &rows {
            let is_refused = row.place.is_err();
            let number = match (&self.listing.manifest, is_refused) {
                (Some(_), _) => Some(item_idx),
                (None, true) => None,
                (None, false) => Some(self.n_embedded),
            };
            if is_refused {
                self.n_refused += 1;
            } else {
                self.n_embedded += 1;
            }
            if self.is_json && !self.is_closed {
                let out = &mut self.out;
                let line = Line::new(number, path, row);
                let write = || {
                    write_json_line(out, &line)?;
                    // Whoever reads along sees each object at once.
                    out.flush()
                };
                self.is_closed = is_closed(self.progress.beside(write))?;
            }
        }
        if is_new {
            self.progress.advance(self.n_refused);
        }
        self.rows.push(rows);
        Ok(())
    }

    /// Returns the rows of every item, in order.
    pub(super) fn rows(&self) -> &[Vec<Row>] {
        &self.rows
    }

    /// Prints the summary.
    pub(super) fn end(
        mut self,
        summary: &Summary,
        refused: &[Report],
        screen: Screen,
    ) -> anyhow::Result<()> {
        if !self.is_closed {
            let written = self.write_end(summary, refused, screen);
            self.is_closed = is_closed(written)?;
        }
        if self.is_closed {
            // What is left in the buffer has nowhere to go.
            let _ = self.out.into_parts();
        }
        Ok(())
    }

    fn write_end(
        &mut self,
        summary: &Summary,
        refused: &[Report],
        screen: Screen,
    ) -> io::Result<()> {
        if self.is_json {
            write_json_line(&mut self.out, &LastLine { summary })?;
        } else {
            let is_on = screen.has_colour;
            let text = text(summary, refused, Paint { is_on });
            self.out.write_all(text.as_bytes())?;
        }
        self.out.flush()
    }
}

/// Tells a pipe whose reader has seen enough from a failure.
fn is_closed(written: io::Result<()>) -> io::Result<bool> {
    match written {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        Err(error) => Err(error),
    }
}

/// One line of JSON.
#[derive(Debug, Serialize)]
struct Line<'a> {
    /// The row of the vector; null where there is none.
    row: Option<usize>,
    path: &'a str,
    #[serde(flatten)]
    facts: &'a Facts,
    verdict: &'static str,
    reason_codes: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn new(number: Option<usize>, path: &'a str, row: &'a Row) -> Self {
        let refusal = row.place.as_ref().err();
        Self {
            row: number,
            path,
            facts: &row.facts,
            verdict: if refusal.is_some() {
                "refused"
            } else {
                "embedded"
            },
            reason_codes: refusal
                .iter()
                .map(|refusal| refusal.code.as_str())
                .collect(),
            error: refusal.map(|refusal| refusal.message.as_str()),
        }
    }
}

/// The last line of JSON.
#[derive(Debug, Serialize)]
struct LastLine<'a> {
    summary: &'a Summary,
}

/// What a run amounts to.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) n_embedded: usize,
    pub(super) n_refused: usize,
    /// Objects that an earlier run had embedded.
    pub(super) n_kept: usize,
    pub(super) n_not_images: usize,
    pub(super) reason_codes: BTreeMap<&'static str, usize>,
    pub(super) model: String,
    pub(super) fingerprint: String,
    pub(super) precision: String,
    pub(super) width: usize,
    /// Null where nothing was embedded.
    pub(super) out: Option<String>,
    pub(super) rows: Option<String>,
    pub(super) seconds: f64,
    pub(super) items_per_second: f64,
}

impl Summary {
    /// Counts; times are for the caller to fill in.
    pub(super) fn new(made: &Made<'_>, settings: &Settings, written: Written) -> Self {
        let mut reason_codes = BTreeMap::new();
        for (_, refusal) in made.refused() {
            *reason_codes.entry(refusal.code.as_str()).or_default() += 1;
        }
        Self {
            n_embedded: made.n_embedded(),
            n_refused: reason_codes.values().sum(),
            n_kept: 0,
            n_not_images: 0,
            reason_codes,
            model: made.model.name().to_owned(),
            fingerprint: settings.fingerprint.clone(),
            precision: settings.precision.clone(),
            width: settings.width,
            out: written.out,
            rows: written.rows,
            seconds: 0.0,
            items_per_second: 0.0,
        }
    }
}

/// Describes every refused image as `check` does.
pub(super) fn refused_reports(made: &Made<'_>) -> Vec<Report> {
    let reports = made.refused();
    let reports = reports.map(|(placed, refusal)| refused(placed.path, &placed.row.facts, refusal));
    reports.collect()
}

fn refused(path: &str, facts: &Facts, refusal: &Refusal) -> Report {
    let report = Report::refused(path.as_ref(), refusal.code, refusal.message.clone());
    Report {
        part: facts.part.clone(),
        ..report
    }
}

/// Renders the refused objects, then the totals.
fn text(summary: &Summary, refused: &[Report], paint: Paint) -> String {
    let mut text = String::new();
    section(&mut text, paint, Verdict::Refused, refused);
    let vectors = |n: usize| counted(n as u64, "vector", "vectors");
    let title = match &summary.out {
        Some(out) => format!(
            "{} of {} numbers: {}",
            vectors(summary.n_embedded),
            summary.width,
            printable(out)
        ),
        None => "nothing was embedded, and nothing written".to_owned(),
    };
    // Writing to a `String` cannot fail.
    let _ = writeln!(text, "{}", paint.bold(&title));
    let mut line = |label: &str, value: &str| {
        let _ = writeln!(text, "  {} {value}", paint.dim(&format!("{label:<8}")));
    };
    line("objects", &objects(summary, paint));
    if summary.n_not_images > 0 {
        let files = counted(summary.n_not_images as u64, "file holds", "files hold");
        line("others", &format!("{files} no image format"));
    }
    let model = format!("{}, {}", printable(&summary.model), summary.precision);
    line("model", &model);
    if summary.n_embedded > summary.n_kept {
        line("speed", &speed(summary));
    }
    if let Some(rows) = &summary.rows {
        line("rows", &format!("{} says which is which", printable(rows)));
    }
    text
}

fn objects(summary: &Summary, paint: Paint) -> String {
    let mut text = format!("{} embedded", summary.n_embedded);
    if summary.n_refused > 0 {
        let codes: Vec<String> = summary
            .reason_codes
            .iter()
            .map(|(code, n)| format!("{code} {n}"))
            .collect();
        let refused = format!("{} refused", summary.n_refused);
        let refused = paint.verdict(Verdict::Refused, &refused);
        let _ = write!(text, ", {refused} ({})", codes.join(", "));
    }
    if summary.n_kept > 0 {
        let _ = write!(text, ", {} from the run before", summary.n_kept);
    }
    text
}

fn speed(summary: &Summary) -> String {
    let elapsed = Duration::from_secs_f64(summary.seconds.max(0.0));
    let took = if elapsed.as_secs() < 60 {
        format!("{:.1} s", elapsed.as_secs_f64())
    } else {
        indicatif::HumanDuration(elapsed).to_string()
    };
    format!("{} objects/s ({took})", rate(summary.items_per_second))
}

#[cfg(test)]
mod tests {
    use super::*;
    use m3ret_imaging::Code;

    fn summary() -> Summary {
        Summary {
            n_embedded: 12,
            n_refused: 2,
            n_kept: 4,
            n_not_images: 1,
            reason_codes: BTreeMap::from([("no_direction", 1), ("truncated", 1)]),
            model: "random:tiny".into(),
            fingerprint: "random:tiny:0".into(),
            precision: "bf16".into(),
            width: 192,
            out: Some("v.npy".into()),
            rows: Some("v.npy.rows.csv".into()),
            seconds: 2.5,
            items_per_second: 3.2,
        }
    }

    #[test]
    fn a_summary_as_text() {
        let refusal = Refusal {
            code: Code::Truncated,
            message: "npy: found 10 bytes, wanted 20".into(),
        };
        let report = refused("in/cut\n.npy", &Facts::default(), &refusal);
        insta::assert_snapshot!(text(&summary(), &[report], Paint { is_on: false }), @r"
        Refused (1 object)
          truncated: npy: found 10 bytes, wanted 20
              in/cut\n.npy

        12 vectors of 192 numbers: v.npy
          objects  12 embedded, 2 refused (no_direction 1, truncated 1), 4 from the run before
          others   1 file holds no image format
          model    random:tiny, bf16
          speed    3.20 objects/s (2.5 s)
          rows     v.npy.rows.csv says which is which
        ");
    }

    #[test]
    fn a_run_without_any_vector_says_so() {
        let empty = Summary {
            n_embedded: 0,
            n_refused: 0,
            n_kept: 0,
            out: None,
            rows: None,
            ..summary()
        };
        insta::assert_snapshot!(text(&empty, &[], Paint { is_on: false }), @"
        nothing was embedded, and nothing written
          objects  0 embedded
          others   1 file holds no image format
          model    random:tiny, bf16
        ");
    }
}
