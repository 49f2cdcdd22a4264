//! `m3ret inspect`: what a file or folder holds.

use std::io::{BufWriter, Write as _};

use super::write_json_line;
use crate::Outcome;
use crate::cli::InspectArguments;
use crate::out;
use crate::screen::Screen;
use crate::text::{Paint, block};
use m3ret::check::report::Verdict;
use m3ret::inspect::{InspectOptions, inspect};
use m3ret::words::counted;

/// Prints a report on each object as soon as it is read.
pub(crate) fn run(arguments: &InspectArguments, screen: Screen) -> anyhow::Result<Outcome> {
    arguments.reading.start_threads()?;
    let options = InspectOptions {
        paths: arguments.paths.clone(),
        npy: arguments.npy.clone(),
        thumbnail: arguments.thumbnail.clone(),
        is_forced: arguments.force,
        reading: arguments.reading.reading(),
    };
    let mut out = BufWriter::new(out::stdout());
    let paint = Paint {
        is_on: screen.has_colour,
    };
    let summary = inspect(&options, |report| {
        if arguments.json {
            write_json_line(&mut out, report)?;
        } else if report.verdict != Verdict::NotAnImage {
            writeln!(out, "{}", block(report, paint))?;
        }
        out.flush()
    })?;
    if summary.n_not_images > 0 && !arguments.json {
        let n_files = summary.n_not_images as u64;
        let files = counted(n_files, "other file holds", "other files hold");
        writeln!(out, "{}", paint.dim(&format!("{files} no image format")))?;
    }
    out.flush()?;
    Ok(Outcome::of(summary.n_refused == 0))
}
