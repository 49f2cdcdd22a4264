//! `m3ret embed`: every object of a file, folder or manifest as a unit vector.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::CommandFactory as _;
use clap::error::ErrorKind;

use super::LastLine;
use super::write_json_line;
use crate::Outcome;
use crate::cli::{Cli, EmbedArguments, ShardChoice};
use crate::out;
use crate::progress::Progress;
use crate::screen::Screen;
use crate::text::{Paint, rate, section};
use m3ret::check::report::{Report, Verdict};
use m3ret::embed::array_task::{DoneMark, TaskReport, TaskStatus, embed_task};
use m3ret::embed::summary::{EmbedReport, EmbedRow, EmbedSummary};
use m3ret::embed::{EmbedOptions, OutputFile, VectorLayout, embed};
use m3ret::words::counted;
use m3ret::words::printable;

/// Embeds, prints each image as soon as it is done, and sums up.
pub(crate) fn run(arguments: &EmbedArguments, screen: Screen) -> anyhow::Result<Outcome> {
    if let Some(folder) = &arguments.status {
        return status(folder, arguments.json);
    }
    let out = arguments.out.clone().unwrap_or_default();
    let task = arguments.shard.map(ShardChoice::task).transpose()?;
    let file = match task {
        Some(_) => OutputFile {
            path: PathBuf::new(),
            layout: VectorLayout::Parquet,
        },
        None => OutputFile::new(out.clone()).unwrap_or_else(|wanted| {
            let told = format!("--out {}: {wanted}", out.display());
            Cli::command()
                .error(ErrorKind::ValueValidation, told)
                .exit()
        }),
    };
    arguments.reading.start_threads()?;
    let options = EmbedOptions {
        source: arguments.source.clone().unwrap_or_default(),
        out: file,
        model: arguments.model.choice(),
        save_every: Duration::from_secs(arguments.save_every),
        is_restart: arguments.restart,
        is_forced: arguments.force,
        reading: arguments.reading.reading(),
        folder: arguments.folder.choice(),
        task,
    };
    let progress = Progress::start(screen);
    let mut lines = Lines::new(arguments.json);
    let sink = |row: &EmbedRow<'_>| lines.print(row, &progress);
    let report = match task {
        None => embed(&options, &progress, sink)?,
        Some(task) => match embed_task(&options, task, &out, &progress, sink)? {
            TaskReport::Embedded(report) => report,
            TaskReport::DoneBefore(mark) => {
                progress.clear();
                tell_done(&mark, arguments.json)?;
                return Ok(Outcome::AllGood);
            }
        },
    };
    progress.clear();
    lines.end(&report, screen)?;
    let summary = &report.summary;
    // A scheduler runs a task again that fails, and a part that was written would be the same again.
    let is_good = task.is_some() || (summary.n_refused == 0 && summary.n_embedded > 0);
    Ok(Outcome::of(is_good))
}

fn tell_done(mark: &DoneMark, is_json: bool) -> io::Result<()> {
    let mut out = out::stdout();
    match is_json {
        true => write_json_line(&mut out, mark)?,
        false => writeln!(
            out,
            "part {} of {} was done before: {} embedded, {} refused",
            mark.shard, mark.n_shards, mark.n_embedded, mark.n_refused
        )?,
    }
    out.flush()
}

/// Says how far the tasks of a folder are.
fn status(folder: &Path, is_json: bool) -> anyhow::Result<Outcome> {
    let status = TaskStatus::of(folder)?;
    let mut out = out::stdout();
    if is_json {
        write_json_line(&mut out, &status)?;
    } else {
        let (n_done, n_all) = (status.n_done, status.n_shards);
        writeln!(
            out,
            "{n_done} of {n_all} parts are done: {} embedded, {} refused",
            status.n_embedded, status.n_refused
        )?;
        if !status.missing.is_empty() {
            writeln!(out, "  missing  --array={}", status.missing)?;
        }
    }
    out.flush()?;
    Ok(Outcome::of(status.missing.is_empty()))
}

/// Standard output, as long as somebody reads it.
struct Lines {
    out: BufWriter<out::Stdout>,
    is_json: bool,
    /// Nobody reads standard output any more; the file is still wanted.
    is_closed: bool,
}

impl Lines {
    fn new(is_json: bool) -> Self {
        Self {
            out: BufWriter::new(out::stdout()),
            is_json,
            is_closed: false,
        }
    }

    /// Prints what became of an image.
    fn print(&mut self, row: &EmbedRow<'_>, progress: &Progress) -> io::Result<()> {
        if !self.is_json || self.is_closed {
            return Ok(());
        }
        let out = &mut self.out;
        let write = || {
            write_json_line(out, row)?;
            // Whoever reads along sees each object at once.
            out.flush()
        };
        self.is_closed = is_closed(progress.beside(write))?;
        Ok(())
    }

    /// Prints the summary.
    fn end(mut self, report: &EmbedReport, screen: Screen) -> anyhow::Result<()> {
        if !self.is_closed {
            let written = self.write_end(report, screen);
            self.is_closed = is_closed(written)?;
        }
        if self.is_closed {
            // What is left in the buffer has nowhere to go.
            let _ = self.out.into_parts();
        }
        Ok(())
    }

    fn write_end(&mut self, report: &EmbedReport, screen: Screen) -> io::Result<()> {
        let summary = &report.summary;
        if self.is_json {
            write_json_line(&mut self.out, &LastLine { summary })?;
        } else {
            let is_on = screen.has_colour;
            let text = text(summary, &report.refused, Paint { is_on });
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

/// Renders the refused objects, then the totals.
fn text(summary: &EmbedSummary, refused: &[Report], paint: Paint) -> String {
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

fn objects(summary: &EmbedSummary, paint: Paint) -> String {
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

fn speed(summary: &EmbedSummary) -> String {
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
    use std::collections::BTreeMap;

    fn summary() -> EmbedSummary {
        EmbedSummary {
            n_rows: 12,
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
        let message = "npy: found 10 bytes, wanted 20".to_owned();
        let report = Report::refused("in/cut\n.npy".as_ref(), Code::Truncated, message);
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
        let empty = EmbedSummary {
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
