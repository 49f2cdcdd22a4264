//! `m3ret index`: makes and keeps galleries.

use std::io::{self, Write as _};
use std::time::Instant;

use anyhow::Context as _;
use m3ret_search::{Gallery, Numbers, Report, verify};
use serde::Serialize;
use serde_json::json;

use super::{short, write_json_line};
use crate::Outcome;
use crate::cli::{
    AddArguments, BuildArguments, CachedArguments, ExportArguments, GalleryArguments, IndexAction,
    IndexArguments, MoveArguments, PruneArguments, RelabelArguments, RemoveArguments,
    VerifyArguments, ViewKind,
};
use crate::out;
use crate::progress::Progress;
use crate::screen::Screen;
use m3ret::galleries::{
    self, CachedGallery, PruneSummary, PrunedImage, Repaired, UpdateSummary, refused_text,
};
use m3ret::index::{self, AddOptions, Addition, BuildOptions, GivenVectors, Stats};
use m3ret::options::{Reading, VolumeViews};
use m3ret::words::{counted, printable, printable_path};

/// Runs one action.
pub(crate) fn run(arguments: &IndexArguments, screen: Screen) -> anyhow::Result<Outcome> {
    match &arguments.action {
        IndexAction::Build(build) => add(build, screen, None),
        IndexAction::Add(arguments) => add(&arguments.build, screen, Some(arguments)),
        IndexAction::Relabel(arguments) => relabel(arguments, screen),
        IndexAction::Move(arguments) => move_files(arguments),
        IndexAction::Prune(arguments) => prune(arguments),
        IndexAction::Remove(arguments) => remove(arguments),
        IndexAction::Verify(arguments) => verify_gallery(arguments, screen),
        IndexAction::Compact(arguments) => compact(arguments, screen),
        IndexAction::Stats(arguments) => stats(arguments),
        IndexAction::Export(arguments) => export(arguments),
        IndexAction::Cached(arguments) => {
            let all = galleries::cached(arguments.cache.as_deref())?;
            print_cached(&all, arguments.json, "")
        }
        IndexAction::ClearCache(arguments) => {
            let CachedArguments { cache, json } = &arguments.cached;
            let days = f64::from(arguments.older_than);
            let removed = galleries::clear_cache(cache.as_deref(), days)?;
            print_cached(&removed, *json, "removed: ")
        }
    }
}

fn export(arguments: &ExportArguments) -> anyhow::Result<Outcome> {
    let written = galleries::export(&arguments.gallery, &arguments.out, arguments.force)?;
    print(arguments.json, &written, || {
        format!(
            "{} of {} numbers: {}\n  rows     {} says which is which\n",
            counted(written.n_items as u64, "vector", "vectors"),
            written.width,
            printable_path(&written.vectors),
            printable_path(&written.rows)
        )
    })?;
    Ok(Outcome::AllGood)
}

fn print_cached(all: &[CachedGallery], is_json: bool, before: &str) -> anyhow::Result<Outcome> {
    for cached in all {
        print(is_json, cached, || {
            format!(
                "{before}{}, {}, {} days old: {} ({})\n",
                images(cached.n_items),
                bytes(cached.n_bytes),
                cached.days.floor(),
                printable(&cached.archive),
                printable(&cached.model)
            )
        })?;
    }
    let n_bytes: u64 = all.iter().map(|cached| cached.n_bytes).sum();
    if !is_json {
        let galleries = counted(all.len() as u64, "gallery", "galleries");
        out::stdout().write_all(format!("{galleries}, {}\n", bytes(n_bytes)).as_bytes())?;
    }
    Ok(Outcome::AllGood)
}

/// Prints a value as JSON, or the text that stands for it.
fn print(is_json: bool, value: &impl Serialize, text: impl FnOnce() -> String) -> io::Result<()> {
    let mut out = out::stdout();
    if is_json {
        write_json_line(&mut out, value)
    } else {
        out.write_all(text().as_bytes())
    }
}

fn options_of(arguments: &BuildArguments) -> BuildOptions {
    let vectors = arguments.embeddings.as_ref().map(|path| GivenVectors {
        path: path.clone(),
        encoder: arguments.encoder.clone(),
        normalizes: arguments.normalize,
        skips_nan: arguments.skip_nan,
    });
    BuildOptions {
        gallery: arguments.gallery.clone(),
        source: arguments.source.clone(),
        vectors,
        numbers: if arguments.f16 {
            Numbers::F16
        } else {
            Numbers::F32
        },
        has_thumbnails: arguments.thumbnails,
        views: arguments.views.as_deref().map(views_of),
        model: arguments.model.choice(),
        reading: Reading {
            keep: arguments.keep.clone(),
            ..arguments.reading.reading()
        },
        folder: arguments.folder.choice(),
    }
}

fn views_of(kinds: &[ViewKind]) -> VolumeViews {
    VolumeViews {
        projections: kinds.contains(&ViewKind::Projections),
        slices: kinds.contains(&ViewKind::Slices),
    }
}

/// Makes a gallery, or adds to one as `adding` says.
fn add(
    arguments: &BuildArguments,
    screen: Screen,
    adding: Option<&AddArguments>,
) -> anyhow::Result<Outcome> {
    arguments.reading.start_threads()?;
    let progress = Progress::start(screen);
    let start = Instant::now();
    let mut options = options_of(arguments);
    options.reading.retries_refused = adding.is_some_and(|adding| adding.retry.retry);
    let addition = match adding {
        None => index::build(&options, &progress)?,
        Some(adding) => {
            let adding = AddOptions {
                replaces: adding.replace,
                prunes: adding.prune,
            };
            index::add(&options, adding, &progress)?
        }
    };
    progress.clear();
    print_addition(arguments, &addition, start.elapsed().as_secs_f64())?;
    let is_good = addition.updated.refused.is_empty() && addition.n_items > 0;
    Ok(Outcome::of(is_good))
}

fn print_addition(arguments: &BuildArguments, addition: &Addition, seconds: f64) -> io::Result<()> {
    let Addition {
        n_items,
        updated,
        gone,
    } = addition;
    let summary = json!({
        "gallery": arguments.gallery,
        "n_items": n_items,
        "n_added": updated.n_new,
        "n_kept": updated.n_kept,
        "n_relabelled": updated.n_relabelled,
        "n_reused": updated.n_reused,
        "n_pruned": gone.pruned.len(),
        "n_replaced": updated.n_removed,
        "n_not_images": updated.n_not_images,
        "refused": updated.refused,
        "seconds": seconds,
    });
    print(arguments.json, &summary, || {
        let mut text = refused_text(updated);
        text += &format!(
            "{}: {}, {} ({seconds:.1} s)\n",
            printable_path(&arguments.gallery),
            images(*n_items),
            changes(updated),
        );
        if updated.n_relabelled > 0 {
            text += &format!(
                "{} other labels than before\n",
                counted(updated.n_relabelled as u64, "image has", "images have")
            );
        }
        if updated.n_reused > 0 {
            text += &format!(
                "{} not embedded: the gallery had the bytes under another path or time\n",
                counted(updated.n_reused as u64, "image was", "images were")
            );
        }
        text + &gone_text(gone)
    })
}

/// Says how many images came, went and stayed.
fn changes(updated: &UpdateSummary) -> String {
    let mut text = format!("{} new", updated.n_new);
    for (n, what) in [
        (updated.n_removed, "replaced or removed"),
        (updated.n_kept, "unchanged"),
    ] {
        if n > 0 {
            text += &format!(", {n} {what}");
        }
    }
    if updated.n_not_images > 0 {
        let files = counted(updated.n_not_images as u64, "file holds", "files hold");
        text += &format!("; {files} no image format");
    }
    text
}

fn relabel(arguments: &RelabelArguments, screen: Screen) -> anyhow::Result<Outcome> {
    let progress = Progress::begin(screen, "reading the manifest");
    let moved = index::relabel(&arguments.gallery, &arguments.manifest, &progress)?;
    progress.clear();
    print(arguments.json, &moved, || {
        let mut text = format!(
            "{} relabelled, {} unchanged\n",
            images(moved.n_changed),
            moved.n_kept
        );
        if moved.n_missing > 0 {
            text += &format!(
                "{} no image of the gallery; `m3ret index add` adds it\n",
                counted(
                    moved.n_missing as u64,
                    "row of the manifest names",
                    "rows of the manifest name"
                )
            );
        }
        if moved.n_surplus > 0 {
            text += &format!(
                "{} not in the manifest, which has the same image in another row: `m3ret index add` removes {}\n",
                counted(
                    moved.n_surplus as u64,
                    "row of the gallery is",
                    "rows of the gallery are"
                ),
                if moved.n_surplus == 1 { "it" } else { "them" },
            );
        }
        text
    })?;
    Ok(Outcome::of(moved.n_changed + moved.n_kept > 0))
}

fn move_files(arguments: &MoveArguments) -> anyhow::Result<Outcome> {
    let moved = galleries::move_files(&arguments.gallery, &arguments.from, &arguments.to)?;
    print(arguments.json, &moved, || {
        let mut text = format!(
            "{} moved to {}\n",
            images(moved.n_changed),
            printable_path(&arguments.to)
        );
        if moved.n_kept > 0 {
            text += &format!(
                "{} not moved: the gallery has the file at the new place already; `m3ret index prune` drops what is \
                 gone\n",
                images(moved.n_kept)
            );
        }
        if moved.n_missing > 0 {
            text += &format!(
                "{} not moved: no file is at the new place; `m3ret index prune` drops what is gone\n",
                images(moved.n_missing)
            );
        }
        text
    })?;
    Ok(if moved.n_missing == 0 {
        Outcome::AllGood
    } else {
        Outcome::SomeRefused
    })
}

fn prune(arguments: &PruneArguments) -> anyhow::Result<Outcome> {
    let gone = galleries::prune(&arguments.gallery, arguments.force)?;
    let n_items = Gallery::open(&arguments.gallery)?.len();
    let summary = json!({
        "n_items": n_items,
        "n_pruned": gone.pruned.len(),
        "pruned_ids": gone.pruned.iter().map(|image| &image.id).collect::<Vec<_>>(),
        "pruned_files": gone.pruned.iter().map(|image| short(&image.file)).collect::<Vec<_>>(),
        "away": gone.away,
    });
    print(arguments.json, &summary, || {
        let text = gone_text(&gone);
        format!("{text}{} left\n", images(n_items))
    })?;
    Ok(if gone.away.is_empty() {
        Outcome::AllGood
    } else {
        Outcome::SomeRefused
    })
}

/// Says what was dropped, and what was not.
fn gone_text(gone: &PruneSummary) -> String {
    let mut text = String::new();
    for PrunedImage { id, path, file } in gone.pruned.iter().take(MAX_LISTED) {
        let file = printable(&short(file));
        text += &match id == path {
            true => format!("gone: {file}\n"),
            false => format!("gone: {file} (id {})\n", printable(id)),
        };
    }
    if gone.pruned.len() > MAX_LISTED {
        text += &format!("gone: {} more\n", gone.pruned.len() - MAX_LISTED);
    }
    for (root, n_images) in &gone.away {
        text += &format!(
            "kept: {} of {}, where no file is now; after a move, `m3ret index move` follows; \
             `m3ret index prune --force` drops what is gone\n",
            images(*n_images),
            printable(root)
        );
    }
    text
}

fn remove(arguments: &RemoveArguments) -> anyhow::Result<Outcome> {
    let mut ids = arguments.id.clone();
    if let Some(file) = &arguments.ids {
        let text = std::fs::read_to_string(file);
        let text = text.with_context(|| format!("reading {}", file.display()))?;
        ids.extend(
            text.lines()
                .filter(|line| !line.is_empty())
                .map(str::to_owned),
        );
    }
    ids.sort();
    ids.dedup();
    let n_items = index::remove(&arguments.gallery, &ids)?;
    print(
        arguments.json,
        &json!({"n_removed": ids.len(), "n_items": n_items}),
        || {
            format!(
                "{} removed, {n_items} left; `m3ret index compact` takes their data off the disk\n",
                ids.len()
            )
        },
    )?;
    Ok(Outcome::AllGood)
}

fn compact(arguments: &GalleryArguments, screen: Screen) -> anyhow::Result<Outcome> {
    let progress = Progress::begin(screen, "rewriting the gallery");
    let compaction = index::compact(&arguments.gallery, &progress)?;
    progress.clear();
    let (n_items, before, after) = (
        compaction.n_items,
        compaction.bytes_before,
        compaction.bytes_after,
    );
    print(
        arguments.json,
        &json!({"n_items": n_items, "bytes_before": before, "bytes_after": after}),
        || {
            format!(
                "{}; {} before, {} now\n",
                images(n_items),
                bytes(before),
                bytes(after)
            )
        },
    )?;
    Ok(Outcome::AllGood)
}

fn verify_gallery(arguments: &VerifyArguments, screen: Screen) -> anyhow::Result<Outcome> {
    let progress = Progress::begin(screen, "reading every byte");
    let folder = &arguments.gallery;
    let (report, repaired) = if arguments.repair {
        arguments.reading.start_threads()?;
        let (choice, reading) = (arguments.model.choice(), arguments.reading.reading());
        let mut repaired = galleries::repair(folder, &choice, &reading, &progress)?;
        (std::mem::take(&mut repaired.repair.report), Some(repaired))
    } else {
        (verify(folder)?, None)
    };
    progress.clear();
    let is_good = report.is_good();
    print(
        arguments.json,
        &report_json(&report, repaired.as_ref()),
        || report_text(&report, repaired.as_ref()),
    )?;
    let is_whole = |repaired: Repaired| {
        repaired.n_lost() == 0 && repaired.lost_cells.is_empty() && repaired.incomplete.is_empty()
    };
    let is_mended = repaired.is_some_and(is_whole);
    Ok(if is_good || is_mended {
        Outcome::AllGood
    } else {
        Outcome::SomeRefused
    })
}

fn report_json(report: &Report, repaired: Option<&Repaired>) -> serde_json::Value {
    let findings = report.findings.iter().map(|finding| {
        json!({"file": finding.file, "what": finding.what, "is_harmless": finding.is_harmless})
    });
    json!({
        "is_good": report.is_good(),
        "n_items": report.n_rows,
        "n_bytes": report.n_bytes,
        "findings": findings.collect::<Vec<_>>(),
        "leftovers": report.leftovers,
        "repair": repaired.map(|repaired| json!({
            "quarantined": repaired.repair.quarantined,
            "rebuilt_ids": repaired.rebuilt,
            "n_lost": repaired.n_lost(),
            "lost": repaired.lost,
            "lost_cells": repaired.lost_cells,
            "completed_ids": repaired.completed,
            "incomplete": repaired.incomplete,
            "notes": repaired.repair.notes,
        })),
    })
}

/// Most ids that are listed for a person.
const MAX_LISTED: usize = 20;

fn report_text(report: &Report, repaired: Option<&Repaired>) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let harm = if finding.is_harmless {
            " (a second copy is good)"
        } else {
            ""
        };
        text += &format!(
            "damaged: {}: {}{harm}\n",
            printable(&finding.file),
            printable(&finding.what)
        );
    }
    if report.is_good() {
        text += &format!(
            "good: {}, {} read, and everything agrees\n",
            images(report.n_rows),
            bytes(report.n_bytes)
        );
    } else if let Some(repaired) = repaired {
        text += &repaired_text(repaired);
    } else {
        text += "`m3ret index verify --repair` rebuilds what is provable\n";
    }
    text
}

fn repaired_text(repaired: &Repaired) -> String {
    let mut text = format!(
        "repaired: {} embedded again from their files, {} lost\n",
        images(repaired.rebuilt.len()),
        images(repaired.n_lost())
    );
    for id in repaired.rebuilt.iter().take(MAX_LISTED) {
        text += &format!("embedded again: {}\n", printable(id));
    }
    text += &more(repaired.rebuilt.len());
    if !repaired.completed.is_empty() {
        text += &format!(
            "further vectors embedded again: {}\n",
            images(repaired.completed.len())
        );
    }
    for image in repaired.incomplete.iter().take(MAX_LISTED) {
        text += &format!(
            "further vectors lost: {}: {}\n",
            printable(&image.id),
            printable(&image.why)
        );
    }
    text += &more(repaired.incomplete.len());
    for image in repaired.lost.iter().take(MAX_LISTED) {
        text += &format!(
            "lost: {}: {}\n",
            printable(&image.id),
            printable(&image.why)
        );
    }
    text += &more(repaired.lost.len());
    if repaired.n_unread > 0 {
        text += &format!(
            "lost: {} whose ids cannot be read\n",
            images(repaired.n_unread)
        );
    }
    if repaired.n_lost() > 0 {
        text += "`m3ret index add` adds what is lost and still there\n";
    }
    for note in &repaired.repair.notes {
        text += &format!("note: {}\n", printable(note));
    }
    if !repaired.repair.quarantined.is_empty() {
        let files = printable(&repaired.repair.quarantined.join(", "));
        text += &format!("moved to quarantine: {files}\n");
    }
    text
}

/// Says how many of `n` are not listed.
fn more(n: usize) -> String {
    match n.saturating_sub(MAX_LISTED) {
        0 => String::new(),
        n => format!("and {n} more; --json lists all\n"),
    }
}

fn images(n: usize) -> String {
    counted(n as u64, "image", "images")
}

fn bytes(n: u64) -> String {
    indicatif::HumanBytes(n).to_string()
}

fn stats(arguments: &GalleryArguments) -> anyhow::Result<Outcome> {
    let stats = index::stats(&arguments.gallery)?;
    print(arguments.json, &stats, || stats_text(&stats))?;
    Ok(Outcome::AllGood)
}

fn stats_text(stats: &Stats) -> String {
    let mut text = format!(
        "{}, vectors of {} numbers, {} in {}\n",
        images(stats.n_items),
        stats.width,
        bytes(stats.n_bytes),
        counted(stats.n_segments as u64, "segment", "segments")
    );
    text += &format!(
        "{:<9} {} in {} ({})\n",
        "model",
        printable(&stats.model),
        printable(&stats.precision),
        printable(&stats.fingerprint)
    );
    for (column, counted) in &stats.counts {
        let listed = counted.iter().take(8);
        let listed: Vec<String> = listed
            .map(|(value, n)| format!("{} {n}", printable(value)))
            .collect();
        text += &format!("{column:<9} {}\n", listed.join(", "));
    }
    text += &match (stats.recall_at_10, stats.recall_at_10_filtered) {
        (Some(recall), Some(filtered)) => format!(
            "{:<9} codes first; recall@10 {recall:.4} of the exact search, {filtered:.4} with \
                 filters, measured on its own images\n",
            "search"
        ),
        _ => format!("{:<9} exact: the gallery is small\n", "search"),
    };
    if stats.has_damaged_copy {
        text += "one copy of a description is damaged; `m3ret index verify` says which\n";
    }
    text
}
