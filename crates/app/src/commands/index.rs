//! `m3ret index`: makes and keeps galleries.

use m3ret_manifest::text_of;
use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use m3ret_imaging::Limits;
use m3ret_manifest::columns::ID;
use m3ret_manifest::columns::{BODY_PART, DIMS, MODALITY, SOURCE};
use m3ret_manifest::{Manifest, Table};
use m3ret_search::{
    Batch, Calibration, Gallery, Maker, Numbers, Repair, Report, Setup, Writer, repair, verify,
};
use serde::Serialize;
use serde_json::json;

use super::galleries::columns::{self, own_names};
use super::galleries::{self, Gone, Updated, Wanted, update};
use super::vectors::{self, VectorFile, Vectors};
use super::write_json_line;
use crate::Outcome;
use crate::cli::{
    AddArguments, BuildArguments, GalleryArguments, IndexAction, IndexArguments, MoveArguments,
    PruneArguments, RelabelArguments, RemoveArguments, VerifyArguments,
};
use crate::model_name;
use crate::output::Screen;
use crate::progress::Progress;
use crate::report::text::printable;
use crate::watch::Watch;

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
    }
}

/// Prints a value as JSON, or the text that stands for it.
fn tell(is_json: bool, value: &impl Serialize, text: impl FnOnce() -> String) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if is_json {
        write_json_line(&mut out, value)
    } else {
        out.write_all(text().as_bytes())
    }
}

/// Makes a gallery, or adds to one as `adding` says.
fn add(
    arguments: &BuildArguments,
    screen: Screen,
    adding: Option<&AddArguments>,
) -> anyhow::Result<Outcome> {
    let is_new = adding.is_none();
    let replaces = adding.is_some_and(|adding| adding.replace);
    let name = arguments.gallery.display();
    let exists = std::fs::symlink_metadata(&arguments.gallery).is_ok();
    let is_gallery = Gallery::open(&arguments.gallery);
    match (is_new, exists) {
        (true, true) if is_gallery.as_ref().is_ok_and(|gallery| !gallery.is_empty()) => bail!(
            "{name} is there already; `m3ret index add` adds what is new, or give another name"
        ),
        (false, false) => bail!("{name} is not there; `m3ret index build` makes it"),
        (false, true) => {
            is_gallery?;
        }
        _ => {}
    }
    arguments.reading.start_threads()?;
    let progress = Progress::start(screen);
    let start = Instant::now();
    if let Some(embeddings) = &arguments.embeddings {
        let updated = add_vectors(arguments, embeddings, replaces, &progress)?;
        return told(arguments, adding, &updated, start);
    }
    let model = if is_new || arguments.model.model.is_some() {
        model_name::open(&arguments.model.choice(), &progress)?
    } else {
        let opening = galleries::Opening {
            archive: &arguments.gallery,
            cache: None,
            model: &arguments.model.choice(),
            reading: &arguments.reading.reading(),
            default_model: model_name::DEFAULT,
            needs_model: true,
        };
        galleries::open(&opening, &progress)?
            .model
            .context("the gallery needs a model")?
    };
    let wanted = Wanted {
        source: &arguments.source,
        gallery: &arguments.gallery,
        reading: &arguments.reading.reading(),
        is_mirror: false,
        replaces,
        has_thumbnails: arguments.thumbnails,
        numbers: numbers(arguments),
    };
    let updated = update(&wanted, &model, &progress)?;
    told(arguments, adding, &updated, start)
}

fn numbers(arguments: &BuildArguments) -> Numbers {
    if arguments.f16 {
        Numbers::F16
    } else {
        Numbers::F32
    }
}

/// Drops what is gone, if that was asked for, and says what was added.
fn told(
    arguments: &BuildArguments,
    adding: Option<&AddArguments>,
    updated: &Updated,
    start: Instant,
) -> anyhow::Result<Outcome> {
    let gone = match adding {
        Some(adding) if adding.prune => {
            let is_left = |folder: &str| updated.left_folders.contains(folder);
            galleries::prune(&arguments.gallery, is_left)?
        }
        _ => Gone::default(),
    };
    let gallery = Gallery::open(&arguments.gallery)?;
    let summary = json!({
        "gallery": arguments.gallery,
        "n_items": gallery.len(),
        "n_added": updated.n_new,
        "n_kept": updated.n_kept,
        "n_relabelled": updated.n_relabelled,
        "n_reused": updated.n_reused,
        "n_pruned": gone.pruned.len(),
        "n_replaced": updated.n_removed,
        "n_not_images": updated.n_not_images,
        "refused": updated.refused,
        "seconds": start.elapsed().as_secs_f64(),
    });
    tell(arguments.json, &summary, || {
        let mut text = refused_text(updated);
        text += &format!(
            "{}: {} images, {} of them new ({:.1} s)\n",
            arguments.gallery.display(),
            gallery.len(),
            updated.n_new,
            start.elapsed().as_secs_f64()
        );
        if updated.n_relabelled > 0 {
            text += &format!(
                "{} of them have other labels than before\n",
                updated.n_relabelled
            );
        }
        if updated.n_reused > 0 {
            text += &format!(
                "{} of them were not embedded: the gallery had their bytes under another path or time\n",
                updated.n_reused
            );
        }
        text += &gone_text(&gone);
        text
    })?;
    let is_good = updated.refused.is_empty() && !gallery.is_empty();
    Ok(if is_good {
        Outcome::AllGood
    } else {
        Outcome::SomeRefused
    })
}

/// Lists refused images.
pub(super) fn refused_text(updated: &Updated) -> String {
    let lines = updated.refused.iter().map(|refused| {
        let part = refused
            .part
            .as_deref()
            .map_or(String::new(), |part| format!(" [{}]", printable(part)));
        format!(
            "refused: {}{part}: {} ({})\n",
            printable(&refused.path),
            printable(&refused.message),
            refused.reason
        )
    });
    lines.collect()
}

/// Adds the rows of a manifest with vectors from elsewhere.
fn add_vectors(
    arguments: &BuildArguments,
    embeddings: &Path,
    replaces: bool,
    progress: &dyn Watch,
) -> anyhow::Result<Updated> {
    let source = &arguments.source;
    let doing = || format!("opening {}", source.display());
    let table = Manifest::open(source, &Limits::default()).and_then(Manifest::load);
    let table = table.with_context(doing)?;
    let file = vectors::read(embeddings)?;
    let maker = maker_of(arguments, &file, progress)?;
    let (mut vectors, join) = file.rows_of(embeddings, &table)?;
    let width = vectors.width;
    progress.note(&join.told(embeddings));
    let mut writer = writer_for(arguments, maker, width)?;
    galleries::tell_notes(&table, progress);
    let kept = kept_rows(arguments, &mut vectors)?;
    let root = source.canonicalize().with_context(doing)?;
    let root = text_of(root.parent().unwrap_or(Path::new("/")));
    let (ids, cells) = rows_of(&table, &kept, &root, writer.gallery());
    progress.step("writing");
    let mut replaced = Vec::new();
    if replaces {
        for id in &ids {
            if writer.gallery().find(id)?.is_some() {
                replaced.push(id.clone());
            }
        }
    }
    let batch = Batch {
        vectors: &vectors.values,
        ids: &ids,
        columns: &cells,
        attachments: &[],
    };
    let added = writer.replace(batch, &replaced);
    added.with_context(|| match table.column(ID) {
        None => "the manifest has no column id, so that paths are ids".to_owned(),
        Some(_) => doing(),
    })?;
    if writer.is_calibration_old() {
        progress.step("measuring how to search");
        writer.compact()?;
    }
    Ok(Updated {
        n_new: ids.len(),
        n_removed: replaced.len(),
        ..Updated::default()
    })
}

/// What vectors were made by where nobody says so.
const UNNAMED: &str = "external";

/// Returns what made the vectors: what the file says, or the name that a person gives. Nothing tells two encoders
/// of one width apart but their names, so vectors are added only under a name.
fn maker_of(
    arguments: &BuildArguments,
    file: &VectorFile,
    progress: &dyn Watch,
) -> anyhow::Result<Maker> {
    if let Some(maker) = &file.maker {
        if let Some(encoder) = &arguments.encoder {
            ensure!(
                *encoder == maker.model,
                "--encoder {encoder}: the file says that {} made its vectors; leave --encoder out",
                maker.model
            );
        }
        return Ok(maker.clone());
    }
    let there = Gallery::open(&arguments.gallery).ok();
    let encoder = match (&arguments.encoder, there.filter(|there| !there.is_empty())) {
        (Some(name), _) => name.clone(),
        (None, Some(gallery)) => bail!(
            "--encoder is missing: say what made these vectors; those of the gallery were made by {}",
            gallery.maker().model
        ),
        (None, None) => {
            progress.note(
                "--encoder is not given: whether later vectors are of the same encoder cannot be checked",
            );
            UNNAMED.to_owned()
        }
    };
    Ok(Maker {
        fingerprint: format!("external:{encoder}:{}", file.vectors.width),
        model: encoder,
        precision: "unknown".to_owned(),
    })
}

/// Opens the gallery that vectors of a maker go into, or makes it.
fn writer_for(arguments: &BuildArguments, maker: Maker, width: usize) -> anyhow::Result<Writer> {
    if Gallery::open(&arguments.gallery).is_ok() {
        let writer = Writer::open(&arguments.gallery)?;
        writer.gallery().check_maker(&maker)?;
        return Ok(writer);
    }
    let setup = Setup {
        maker,
        width,
        numbers: numbers(arguments),
    };
    Ok(Writer::create(&arguments.gallery, setup)?)
}

/// Gives vectors unit length and drops rows of NaN, where that was asked for; returns what is left.
fn kept_rows(arguments: &BuildArguments, vectors: &mut Vectors) -> anyhow::Result<Vec<usize>> {
    let width = vectors.width;
    let n_rows = vectors.values.len() / width;
    let mut kept = Vec::with_capacity(n_rows);
    for row in 0..n_rows {
        let vector = &mut vectors.values[row * width..][..width];
        if arguments.skip_nan && vector.iter().all(|x| x.is_nan()) {
            continue;
        }
        if arguments.normalize {
            m3ret_search::normalize(vector).with_context(|| format!("row {row} (from 0)"))?;
        }
        if kept.len() != row {
            vectors
                .values
                .copy_within(row * width..(row + 1) * width, kept.len() * width);
        }
        kept.push(row);
    }
    vectors.values.truncate(kept.len() * width);
    let checked = m3ret_search::check_unit(&vectors.values, width);
    checked
        .context("--normalize gives vectors unit length, and --skip-nan leaves out rows of NaN")?;
    Ok(kept)
}

type Cells = Vec<(String, Vec<String>)>;

/// Returns ids and cells of some rows of a manifest.
fn rows_of(table: &Table, kept: &[usize], root: &str, gallery: &Gallery) -> (Vec<String>, Cells) {
    let mut all = galleries::Columns::default();
    let mut ids = Vec::with_capacity(kept.len());
    for &idx in kept {
        let Some(row) = table.row(idx) else { continue };
        let part = row.part().unwrap_or_default();
        let id = row.get(ID).filter(|id| !id.is_empty());
        ids.push(id.map_or_else(
            || galleries::with_part(row.path(), Some(part)),
            str::to_owned,
        ));
        let mut cells = vec![
            (columns::PATH.to_owned(), row.path().to_owned()),
            (columns::PART.to_owned(), part.to_owned()),
            (own_names(gallery).root.to_owned(), root.to_owned()),
            (
                columns::CELLS.to_owned(),
                galleries::digest_of_cells(Some(row), gallery),
            ),
        ];
        cells.extend(galleries::cells_of_manifest(table, idx, gallery));
        all.push(cells);
    }
    (ids, all.take())
}

fn relabel(arguments: &RelabelArguments, screen: Screen) -> anyhow::Result<Outcome> {
    let manifest = &arguments.manifest;
    let table = Manifest::open(manifest, &Limits::default()).and_then(Manifest::load);
    let table = table.with_context(|| format!("opening {}", manifest.display()))?;
    let progress = Progress::start(screen);
    galleries::tell_notes(&table, &progress);
    progress.step("writing");
    let moved = galleries::relabel(&arguments.gallery, &table)?;
    progress.clear();
    tell(arguments.json, &moved, || {
        let mut text = format!(
            "{} images have other labels than before, {} have the same\n",
            moved.n_changed, moved.n_kept
        );
        if moved.n_missing > 0 {
            text += &format!(
                "{} rows of the manifest name no image of the gallery; `m3ret index add` adds them\n",
                moved.n_missing
            );
        }
        text
    })?;
    let n_found = moved.n_changed + moved.n_kept;
    Ok(if n_found > 0 || table.is_empty() {
        Outcome::AllGood
    } else {
        Outcome::SomeRefused
    })
}

fn move_files(arguments: &MoveArguments) -> anyhow::Result<Outcome> {
    let moved = galleries::move_files(&arguments.gallery, &arguments.from, &arguments.to)?;
    tell(arguments.json, &moved, || {
        let mut text = format!(
            "{} images now lie below {}\n",
            moved.n_changed,
            printable(&text_of(&arguments.to))
        );
        if moved.n_missing > 0 {
            text += &format!(
                "{} are not there, and stay as they were; `m3ret index prune` drops what is gone\n",
                moved.n_missing
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
    let gone = galleries::prune(&arguments.gallery, |_| arguments.force)?;
    let n_items = Gallery::open(&arguments.gallery)?.len();
    let summary = json!({
        "n_items": n_items,
        "n_pruned": gone.pruned.len(),
        "pruned_ids": gone.pruned,
        "away": gone.away,
    });
    tell(arguments.json, &summary, || {
        let text = gone_text(&gone);
        format!("{text}{n_items} images are left\n")
    })?;
    Ok(if gone.away.is_empty() {
        Outcome::AllGood
    } else {
        Outcome::SomeRefused
    })
}

/// Says what was dropped, and what was not.
fn gone_text(gone: &Gone) -> String {
    let mut text = String::new();
    for id in gone.pruned.iter().take(MAX_LISTED) {
        text += &format!("gone: {}\n", printable(id));
    }
    if gone.pruned.len() > MAX_LISTED {
        text += &format!("gone: {} more\n", gone.pruned.len() - MAX_LISTED);
    }
    for (root, n_images) in &gone.away {
        text += &format!(
            "kept: {n_images} images of {}, where none is there now; if they were moved, `m3ret index move` \
             follows, and `m3ret index prune --force` drops them\n",
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
    let mut writer = Writer::open(&arguments.gallery)?;
    for id in &ids {
        ensure!(
            writer.gallery().find(id)?.is_some(),
            "no image of the gallery has the id {id}; nothing was removed"
        );
    }
    writer.remove(&ids)?;
    let n_items = writer.gallery().len();
    tell(
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
    let progress = Progress::start(screen);
    progress.step("writing the gallery anew");
    let mut writer = Writer::open(&arguments.gallery)?;
    let before = folder_bytes(&arguments.gallery)?;
    writer.compact()?;
    progress.clear();
    let after = folder_bytes(&arguments.gallery)?;
    let n_items = writer.gallery().len();
    tell(
        arguments.json,
        &json!({"n_items": n_items, "bytes_before": before, "bytes_after": after}),
        || {
            format!(
                "{n_items} images; {} before, {} now\n",
                bytes(before),
                bytes(after)
            )
        },
    )?;
    Ok(Outcome::AllGood)
}

fn folder_bytes(folder: &Path) -> anyhow::Result<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(folder)? {
        total += entry?.metadata()?.len();
    }
    Ok(total)
}

fn verify_gallery(arguments: &VerifyArguments, screen: Screen) -> anyhow::Result<Outcome> {
    let progress = Progress::start(screen);
    progress.step("reading every byte");
    let folder = &arguments.gallery;
    let (report, repaired) = if arguments.repair {
        let repaired = repair(folder)?;
        (repaired.report.clone(), Some(repaired))
    } else {
        (verify(folder)?, None)
    };
    progress.clear();
    let is_good = report.is_good();
    tell(
        arguments.json,
        &report_json(&report, repaired.as_ref()),
        || report_text(&report, repaired.as_ref()),
    )?;
    let is_mended = repaired.is_some_and(|repair| repair.n_lost == 0);
    Ok(if is_good || is_mended {
        Outcome::AllGood
    } else {
        Outcome::SomeRefused
    })
}

fn report_json(report: &Report, repaired: Option<&Repair>) -> serde_json::Value {
    let findings = report.findings.iter().map(|finding| {
        json!({"file": finding.file, "what": finding.what, "is_harmless": finding.is_harmless})
    });
    json!({
        "is_good": report.is_good(),
        "n_items": report.n_rows,
        "n_bytes": report.n_bytes,
        "findings": findings.collect::<Vec<_>>(),
        "leftovers": report.leftovers,
        "repair": repaired.map(|repair| json!({
            "quarantined": repair.quarantined,
            "n_lost": repair.n_lost,
            "lost_ids": repair.lost,
            "notes": repair.notes,
        })),
    })
}

/// Most ids that are listed for a person.
const MAX_LISTED: usize = 20;

fn report_text(report: &Report, repaired: Option<&Repair>) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let harm = if finding.is_harmless {
            " (a second copy is good)"
        } else {
            ""
        };
        text += &format!("damaged: {}: {}{harm}\n", finding.file, finding.what);
    }
    if report.is_good() {
        text += &format!(
            "good: {} images, {} read, and everything agrees\n",
            report.n_rows,
            bytes(report.n_bytes)
        );
    } else if repaired.is_none() {
        text += "`m3ret index verify --repair` rebuilds what is provable\n";
    }
    let Some(repair) = repaired.filter(|_| !report.is_good()) else {
        return text;
    };
    text += &format!(
        "repaired; {} images could not be proved and are gone\n",
        repair.n_lost
    );
    for id in repair.lost.iter().take(MAX_LISTED) {
        text += &format!("lost: {id}\n");
    }
    for note in &repair.notes {
        text += &format!("note: {note}\n");
    }
    if !repair.quarantined.is_empty() {
        text += &format!("moved to quarantine: {}\n", repair.quarantined.join(", "));
    }
    text
}

fn bytes(n: u64) -> String {
    indicatif::HumanBytes(n).to_string()
}

/// What a person or a program wants to know of a gallery.
#[derive(Serialize)]
struct Stats<'a> {
    n_items: usize,
    width: usize,
    numbers: Numbers,
    model: &'a str,
    fingerprint: &'a str,
    precision: &'a str,
    generation: u64,
    n_segments: usize,
    n_bytes: u64,
    columns: Vec<&'a str>,
    attachments: Vec<&'a str>,
    calibration: Option<&'a Calibration>,
    /// Measured now, on images of the gallery.
    recall_at_10: Option<f64>,
    recall_at_10_filtered: Option<f64>,
    /// How often each value comes, the most frequent first.
    counts: BTreeMap<&'static str, Vec<(String, usize)>>,
    has_damaged_copy: bool,
}

fn stats(arguments: &GalleryArguments) -> anyhow::Result<Outcome> {
    let gallery = Gallery::open(&arguments.gallery)?;
    let recall = gallery.measure_recall()?;
    let maker = gallery.maker();
    let mut counts = BTreeMap::new();
    for column in [MODALITY, BODY_PART, DIMS, SOURCE] {
        let counted = count(&gallery, column)?;
        if !counted.is_empty() {
            counts.insert(column, counted);
        }
    }
    let stats = Stats {
        n_items: gallery.len(),
        width: gallery.width(),
        numbers: gallery.numbers(),
        model: &maker.model,
        fingerprint: &maker.fingerprint,
        precision: &maker.precision,
        generation: gallery.generation(),
        n_segments: gallery.n_segments(),
        n_bytes: folder_bytes(&arguments.gallery)?,
        columns: gallery.columns(),
        attachments: gallery.attachments(),
        calibration: gallery.calibration(),
        recall_at_10: recall.map(|[recall, _]| recall),
        recall_at_10_filtered: recall.map(|[_, filtered]| filtered),
        counts,
        has_damaged_copy: gallery.has_damaged_copy(),
    };
    tell(arguments.json, &stats, || stats.text())?;
    Ok(Outcome::AllGood)
}

impl Stats<'_> {
    fn text(&self) -> String {
        let mut text = format!(
            "{} images, vectors of {} numbers, {} in {} segments\n",
            self.n_items,
            self.width,
            bytes(self.n_bytes),
            self.n_segments
        );
        text += &format!(
            "{:<9} {} in {} ({})\n",
            "model", self.model, self.precision, self.fingerprint
        );
        for (column, counted) in &self.counts {
            let listed = counted.iter().take(8);
            let listed: Vec<String> = listed
                .map(|(value, n)| format!("{} {n}", printable(value)))
                .collect();
            text += &format!("{column:<9} {}\n", listed.join(", "));
        }
        text += &match (self.recall_at_10, self.recall_at_10_filtered) {
            (Some(recall), Some(filtered)) => format!(
                "{:<9} codes first; recall@10 {recall:.4} of the exact search, {filtered:.4} with \
                 filters, measured on its own images\n",
                "search"
            ),
            _ => format!("{:<9} exact: the gallery is small\n", "search"),
        };
        if self.has_damaged_copy {
            text += "one copy of a description is damaged; `m3ret index verify` says which\n";
        }
        text
    }
}

/// Counts the values of a column, the most frequent first.
fn count(gallery: &Gallery, column: &str) -> anyhow::Result<Vec<(String, usize)>> {
    let mut counts: std::collections::HashMap<&str, usize> = std::collections::HashMap::new();
    for row in gallery.rows() {
        let value = gallery.value(row, column)?;
        if !value.is_empty() {
            *counts.entry(value).or_default() += 1;
        }
    }
    let counts = counts.into_iter().map(|(value, n)| (value.to_owned(), n));
    let mut counts: Vec<(String, usize)> = counts.collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    Ok(counts)
}
