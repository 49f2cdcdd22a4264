//! `m3ret split`: a manifest into pretrain, gallery and query, by patient.

mod overlaps;
mod summary;

use std::io::{BufWriter, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::json;

use super::write_json_line;
use crate::Outcome;
use crate::cli::SplitArguments;
use crate::out;
use crate::progress::Progress;
use crate::screen::Screen;
use crate::text::Paint;
use m3ret::split::check::{CheckSplitOptions, check_split};
use m3ret::split::{ImageOptions, SplitOptions, split};
use m3ret::watch::Watch as _;

/// Splits a manifest, or checks a split.
pub(crate) fn run(arguments: &SplitArguments, screen: Screen) -> anyhow::Result<Outcome> {
    if let Some(others) = &arguments.check {
        arguments.reading.start_threads()?;
        return run_check(arguments, others, screen);
    }
    arguments.refuse_impossible_shares();
    arguments.reading.start_threads()?;
    run_split(arguments, screen)
}

fn run_split(arguments: &SplitArguments, screen: Screen) -> anyhow::Result<Outcome> {
    let options = SplitOptions {
        manifest: arguments.manifest.clone(),
        out: arguments.out.clone().context("--out is missing")?,
        seed: arguments.seed,
        query: arguments.query,
        pretrain: arguments.pretrain,
        stratify: arguments.stratify.clone(),
        is_overwriting: arguments.overwrite,
        is_forced: arguments.force,
        images: image_options(arguments),
    };
    let progress = Progress::start(screen);
    let result = split(&options, &progress)?;
    for remark in summary::remarks(&result) {
        progress.note(&remark);
    }
    progress.clear();
    let mut out = out::stdout();
    if arguments.json {
        let summary = result.as_json(&options);
        write_json_line(&mut out, &json!({"summary": summary}))?;
    } else {
        let is_on = screen.has_colour;
        out.write_all(summary::text(&options, &result, Paint { is_on }).as_bytes())?;
    }
    out.flush()?;
    let n_refused = result.images.map_or(0, |images| images.n_refused);
    Ok(Outcome::of(n_refused == 0))
}

fn run_check(
    arguments: &SplitArguments,
    others: &[PathBuf],
    screen: Screen,
) -> anyhow::Result<Outcome> {
    let manifests = std::iter::once(&arguments.manifest).chain(others);
    let options = CheckSplitOptions {
        manifests: manifests.cloned().collect(),
        images: image_options(arguments),
    };
    let progress = Progress::start(screen);
    let check = check_split(&options, &progress)?;
    for remark in overlaps::remarks(&check) {
        progress.note(&remark);
    }
    progress.clear();
    let mut out = BufWriter::new(out::stdout());
    if arguments.json {
        overlaps::write_json(&mut out, &check)?;
    } else {
        let is_on = screen.has_colour;
        overlaps::write_text(&mut out, &check, Paint { is_on })?;
    }
    out.flush()?;
    let is_good = check.overlaps.is_empty() || arguments.allow_overlap;
    let n_refused = check.images.map_or(0, |images| images.n_refused);
    Ok(Outcome::of(is_good && n_refused == 0))
}

fn image_options(arguments: &SplitArguments) -> ImageOptions {
    ImageOptions {
        are_read: !arguments.no_duplicates,
        near: arguments.near,
        cache: arguments.cache.clone(),
        model: arguments.model.choice(),
        reading: arguments.reading.reading(),
    }
}
