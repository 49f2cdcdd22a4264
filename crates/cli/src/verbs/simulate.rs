//! `m3ret simulate`: images of one kind from another, such as radiographs from CT.

use std::io::{BufWriter, Write as _};

use anyhow::Context as _;

use super::LastLine;
use super::write_json_line;
use crate::Outcome;
use crate::cli::{RadiographsArguments, SimulateAction, SimulateArguments};
use crate::out;
use crate::progress::Progress;
use crate::screen::Screen;
use crate::text::{Paint, section};
use m3ret::check::report::Verdict;
use m3ret::simulate::{RadiographOptions, RadiographResult, RadiographSummary, radiographs};
use m3ret::words::counted;
use m3ret::words::printable;

/// Runs the one thing that is simulated.
pub(crate) fn run(arguments: &SimulateArguments, screen: Screen) -> anyhow::Result<Outcome> {
    match &arguments.action {
        SimulateAction::Radiographs(arguments) => run_radiographs(arguments, screen),
    }
}

/// Writes the radiographs; prints a line of JSON for each image, or the totals as text.
fn run_radiographs(arguments: &RadiographsArguments, screen: Screen) -> anyhow::Result<Outcome> {
    arguments.reading.start_threads()?;
    let progress = Progress::start(screen);
    let mut out = BufWriter::new(out::stdout());
    let mut print = |result: &RadiographResult| {
        if !arguments.json {
            return Ok(());
        }
        let write = || {
            write_json_line(&mut out, result)?;
            // A program that reads along gets each object at once.
            out.flush()
        };
        Ok(progress.beside(write)?)
    };
    let summary = radiographs(&options(arguments), &mut print, &progress)?;
    progress.clear();
    if arguments.json {
        write_json_line(&mut out, &LastLine { summary: &summary })?;
    } else {
        let is_on = screen.has_colour;
        out.write_all(text(&summary, Paint { is_on }).as_bytes())?;
    }
    out.flush().context("writing to standard output")?;
    let is_good = summary.n_refused == 0 && summary.n_cts + summary.n_disturbed > 0;
    Ok(Outcome::of(is_good))
}

fn options(arguments: &RadiographsArguments) -> RadiographOptions {
    RadiographOptions {
        sources: arguments.sources.clone(),
        out: arguments.out.clone(),
        is_forced: arguments.force,
        angles: arguments.angles.clone(),
        side_px: arguments.side,
        format: arguments.format.into(),
        is_16_bits: arguments.is_16_bits(),
        window: arguments.window.map(|window| window.ends),
        disturb: arguments.disturb,
        hounsfield: arguments.hounsfield.into(),
        read_options: arguments.reading.options(),
    }
}

/// Renders the refused images, then the totals.
fn text(summary: &RadiographSummary, paint: Paint) -> String {
    let mut text = String::new();
    section(&mut text, paint, Verdict::Refused, &summary.refused);
    let title = match &summary.manifest {
        Some(manifest) if summary.n_cts == 0 => format!(
            "{} disturbed: {}",
            counted(summary.n_disturbed as u64, "radiograph", "radiographs"),
            printable(manifest)
        ),
        Some(manifest) => format!(
            "{} of {}: {}",
            counted(summary.n_radiographs as u64, "radiograph", "radiographs"),
            counted(summary.n_cts as u64, "CT volume", "CT volumes"),
            printable(manifest)
        ),
        None => "no CT volume was projected, and nothing written".to_owned(),
    };
    text.push_str(&paint.bold(&title));
    text.push('\n');
    let mut line = |n: usize, what: &str| {
        if n > 0 {
            text.push_str(&format!("  {n} {what}\n"));
        }
    };
    if summary.n_cts > 0 {
        let what = match summary.n_disturbed {
            1 => "radiograph of the manifest disturbed",
            _ => "radiographs of the manifest disturbed",
        };
        line(summary.n_disturbed, what);
    }
    line(summary.n_refused, "refused");
    line(summary.n_others, "left out: no CT volumes");
    line(
        summary.n_disturbed_before,
        "left out: radiographs that are disturbed already",
    );
    line(summary.n_not_images, "left out: no image format");
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use m3ret_imaging::Code;

    use super::*;
    use m3ret::check::report::Report;

    #[test]
    fn the_end_as_text() {
        let report = Report::refused("in/mr.nii".as_ref(), Code::NotHounsfield, "why".into());
        let summary = RadiographSummary {
            n_cts: 2,
            n_radiographs: 4,
            n_disturbed: 0,
            n_refused: 1,
            n_others: 3,
            n_disturbed_before: 0,
            n_not_images: 0,
            reason_codes: BTreeMap::new(),
            manifest: Some("out/manifest.csv".into()),
            refused: vec![report],
        };
        insta::assert_snapshot!(text(&summary, Paint { is_on: false }), @r"
        Refused (1 object)
          not_hounsfield: why
              in/mr.nii

        4 radiographs of 2 CT volumes: out/manifest.csv
          1 refused
          3 left out: no CT volumes
        ");
    }
}
