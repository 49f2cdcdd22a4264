//! `m3ret map`: an archive as a map, similar images close together.

use std::io::Write as _;

use anyhow::Context as _;

use crate::Outcome;
use crate::cli::MapArguments;
use crate::out;
use crate::progress::Progress;
use crate::screen::Screen;
use m3ret::map::{MapOptions, map};
use m3ret::words::{counted, printable_path};

/// Writes the map, and says how many images it shows.
pub(crate) fn run(arguments: &MapArguments, screen: Screen) -> anyhow::Result<Outcome> {
    arguments.reading.start_threads()?;
    let progress = Progress::start(screen);
    let options = MapOptions {
        archive: arguments.archive.clone(),
        html: arguments.html.clone(),
        is_forced: arguments.force,
        shown_from: std::env::current_dir().ok(),
        colour: arguments.color.clone(),
        cache: arguments.cache.clone(),
        model: arguments.model.choice(),
        reading: arguments.retry.reading(&arguments.reading),
        folder: arguments.folder.choice(),
    };
    let summary = map(&options, &progress)?;
    progress.clear();
    let shown = counted(summary.n_points as u64, "image", "images");
    let html = printable_path(&options.html);
    let told = match summary.n_all > summary.n_points {
        true => writeln!(
            out::stdout(),
            "{shown} of {} on {html}, evenly spaced by id",
            summary.n_all
        ),
        false => writeln!(out::stdout(), "{shown} on {html}"),
    };
    told.context("writing to standard output")?;
    Ok(Outcome::of(summary.n_refused == 0))
}
