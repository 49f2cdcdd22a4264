//! `m3ret dedup`: images that an archive holds more than once.

use m3ret_manifest::text_of;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufWriter, Write as _};

use m3ret_search::{Gallery, RowId};
use rayon::prelude::*;
use serde::Serialize;
use serde_json::json;

use super::duplicates::{Candidate, Reach, Verdict, likeness, neighbours, thumbnail, verdict};
use super::galleries::columns::{self, own_names};
use super::galleries::{self, Opening, Refused, Updated, file_of, short};
use super::index::refused_text;
use super::write_json_line;
use crate::Outcome;
use crate::cli::DedupArguments;
use crate::model_name;
use crate::output::Screen;
use crate::progress::Progress;
use crate::report::text::{Paint, printable};
use crate::watch::Watch as _;

#[derive(Debug, Serialize)]
struct Pair {
    verdict: Verdict,
    score: f32,
    /// Correlation of the two thumbnails, where both files are there.
    correlation: Option<f64>,
    ids: [String; 2],
    files: [String; 2],
    same_patient: Option<bool>,
}

/// Reports pairs, never chains: each verdict is of two images.
pub(crate) fn run(arguments: &DedupArguments, screen: Screen) -> anyhow::Result<Outcome> {
    arguments.reading.start_threads()?;
    let progress = Progress::start(screen);
    let opening = Opening {
        archive: &arguments.archive,
        cache: arguments.cache.as_deref(),
        model: &arguments.model.choice(),
        default_model: model_name::PIXELS,
        reading: &arguments.reading.reading(),
        needs_model: false,
    };
    let opened = galleries::open(&opening, &progress)?;
    let gallery = &opened.gallery;
    progress.step("comparing");
    let candidates = candidates(gallery, arguments.near)?;
    let options = arguments.reading.options();
    let pairs = candidates
        .par_iter()
        .map(|candidate| judge(gallery, candidate, &options));
    let pairs: Vec<Option<Pair>> = pairs.collect::<anyhow::Result<_>>()?;
    let mut pairs: Vec<Pair> = pairs.into_iter().flatten().collect();
    pairs.extend(without_vector(&opened.updated));
    pairs.sort_by(|a, b| {
        let by_score = b.score.total_cmp(&a.score);
        a.verdict
            .cmp(&b.verdict)
            .then(by_score)
            .then(a.ids.cmp(&b.ids))
    });
    progress.clear();
    let n_refused = opened.updated.refused.len();
    if n_refused > 0 {
        progress.note(&format!(
            "{n_refused} images have no vector; they are compared by their values alone\n{}",
            refused_text(&opened.updated).trim_end()
        ));
    }
    tell(arguments, [gallery.len(), n_refused], &pairs, screen)?;
    let is_good = opened.updated.refused.is_empty() && !gallery.is_empty();
    Ok(if is_good {
        Outcome::AllGood
    } else {
        Outcome::SomeRefused
    })
}

/// Finds pairs with a score from `near` on, and all pairs with equal values.
fn candidates(gallery: &Gallery, near: f32) -> anyhow::Result<Vec<Candidate>> {
    let found = neighbours(gallery, gallery, near, Reach::Closest)?.pairs;
    let found = found.into_iter().map(|(a, b, score)| ((a, b), score));
    let mut pairs: BTreeMap<(RowId, RowId), f32> = found.collect();
    // Of many equal images, each has more than enough neighbours: their pairs follow from the hash.
    let mut by_pixels: HashMap<&str, Vec<RowId>> = HashMap::new();
    let column = own_names(gallery).pixels;
    for row in gallery.rows() {
        let pixels = gallery.value(row, column)?;
        if !pixels.is_empty() {
            by_pixels.entry(pixels).or_default().push(row);
        }
    }
    for rows in by_pixels.values().filter(|rows| rows.len() > 1) {
        // Each with the first: n images of one kind are n - 1 pairs.
        for &other in &rows[1..] {
            pairs
                .entry((rows[0].min(other), rows[0].max(other)))
                .or_insert(1.0);
        }
    }
    Ok(pairs
        .into_iter()
        .map(|((a, b), score)| (a, b, score))
        .collect())
}

/// Finds images with equal values among those that have no vector, such as blank ones.
fn without_vector(updated: &Updated) -> Vec<Pair> {
    let mut first: HashMap<&str, &Refused> = HashMap::new();
    let mut pairs = Vec::new();
    for image in updated
        .refused
        .iter()
        .filter(|image| !image.pixels.is_empty())
    {
        let Some(&earlier) = first.get(image.pixels.as_str()) else {
            first.insert(&image.pixels, image);
            continue;
        };
        let named = |image: &Refused, path: &str| galleries::with_part(path, image.part.as_deref());
        let file = |image: &Refused| named(image, &text_of(&short(&image.file)));
        pairs.push(Pair {
            verdict: Verdict::Exact,
            score: 1.0,
            correlation: None,
            ids: [earlier, image].map(|image| named(image, &image.path)),
            files: [earlier, image].map(file),
            same_patient: None,
        });
    }
    pairs
}

/// Says how two images are alike; `None`: not at all.
fn judge(
    gallery: &Gallery,
    &(a, b, score): &Candidate,
    options: &m3ret_imaging::ReadOptions,
) -> anyhow::Result<Option<Pair>> {
    let pixels = |row| gallery.value(row, own_names(gallery).pixels);
    let is_exact = !pixels(a)?.is_empty() && pixels(a)? == pixels(b)?;
    let correlation = match is_exact {
        true => Some(1.0),
        false => likeness(
            &thumbnail(gallery, a, options)?,
            &thumbnail(gallery, b, options)?,
        ),
    };
    let Some(verdict) = verdict(is_exact, correlation) else {
        return Ok(None);
    };
    let id = |row| gallery.id(row).map(str::to_owned);
    let file = |row| -> anyhow::Result<String> {
        let part = gallery.value(row, columns::PART)?;
        let file = text_of(&short(&file_of(gallery, row)?));
        Ok(galleries::with_part(&file, Some(part)))
    };
    let patients = [
        gallery.value(a, columns::PATIENT)?,
        gallery.value(b, columns::PATIENT)?,
    ];
    let known = patients.iter().all(|patient| !patient.is_empty());
    Ok(Some(Pair {
        verdict,
        score,
        correlation,
        ids: [id(a)?, id(b)?],
        files: [file(a)?, file(b)?],
        same_patient: known.then(|| patients[0] == patients[1]),
    }))
}

fn tell(
    arguments: &DedupArguments,
    [n_items, n_refused]: [usize; 2],
    pairs: &[Pair],
    screen: Screen,
) -> anyhow::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let count = |verdict| pairs.iter().filter(|pair| pair.verdict == verdict).count();
    let counts = [Verdict::Exact, Verdict::Reencoded, Verdict::Near].map(count);
    if arguments.json {
        for pair in pairs {
            write_json_line(&mut out, pair)?;
        }
        let summary = json!({"n_items": n_items, "n_without_vector": n_refused, "n_exact": counts[0], "n_reencoded": counts[1],
            "n_near": counts[2]});
        write_json_line(&mut out, &json!({"summary": summary}))?;
        return Ok(out.flush()?);
    }
    let paint = Paint {
        is_on: screen.has_colour,
    };
    for pair in pairs {
        let verdict = match pair.verdict {
            Verdict::Exact => "exact",
            Verdict::Reencoded => "re-encoded",
            Verdict::Near => "near",
        };
        let patient = match pair.same_patient {
            Some(false) => ", other patients",
            _ => "",
        };
        let line = format!("{verdict:<10} {:.4}{patient}", pair.score);
        writeln!(out, "{}", paint.bold(&line))?;
        for file in &pair.files {
            writeln!(out, "  {}", printable(file))?;
        }
    }
    writeln!(
        out,
        "{} images: {} exact, {} re-encoded, {} near pairs",
        n_items + n_refused,
        counts[0],
        counts[1],
        counts[2]
    )?;
    Ok(out.flush()?)
}
