//! `m3ret dedup`: images that an archive holds more than once.

use std::io::{BufWriter, Write as _};

use serde_json::json;

use super::{short, write_json_line};
use crate::Outcome;
use crate::cli::DedupArguments;
use crate::out;
use crate::progress::Progress;
use crate::screen::Screen;
use crate::text::Paint;
use m3ret::dedup::Pair;
use m3ret::duplicates::CopyVerdict;
use m3ret::galleries::{Archive, OpenOptions, refused_text};
use m3ret::model_name;
use m3ret::watch::Watch as _;
use m3ret::words::{counted, printable};

/// Opens the archive, compares its images, and prints the pairs.
pub(crate) fn run(arguments: &DedupArguments, screen: Screen) -> anyhow::Result<Outcome> {
    arguments.reading.start_threads()?;
    let progress = Progress::start(screen);
    let opening = OpenOptions {
        cache: arguments.cache.clone(),
        model: arguments.model.choice(),
        default_model: model_name::PIXELS,
        reading: arguments.retry.reading(&arguments.reading),
        folder: arguments.folder.choice(),
    };
    let archive = Archive::open(&arguments.archive, &opening, &progress)?;
    let mut pairs = archive.duplicates(arguments.near, &progress)?;
    for pair in &mut pairs {
        pair.files.iter_mut().for_each(|file| *file = short(file));
    }
    progress.clear();
    let n_refused = archive.updated.refused.len();
    if n_refused > 0 {
        progress.note(&format!(
            "{} without a vector, compared by values alone\n{}",
            counted(n_refused as u64, "image", "images"),
            refused_text(&archive.updated).trim_end()
        ));
    }
    print(arguments, &archive, &pairs, screen)?;
    Ok(Outcome::of(
        archive.updated.refused.is_empty() && !archive.gallery.is_empty(),
    ))
}

fn print(
    arguments: &DedupArguments,
    archive: &Archive,
    pairs: &[Pair],
    screen: Screen,
) -> anyhow::Result<()> {
    let (n_items, n_refused) = (archive.gallery.len(), archive.updated.refused.len());
    let mut out = BufWriter::new(out::stdout());
    let count = |verdict| pairs.iter().filter(|pair| pair.verdict == verdict).count();
    let counts = [
        CopyVerdict::Exact,
        CopyVerdict::Reencoded,
        CopyVerdict::Near,
    ]
    .map(count);
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
            CopyVerdict::Exact => "exact",
            CopyVerdict::Reencoded => "re-encoded",
            CopyVerdict::Near => "near",
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
        "{}: {} exact, {} re-encoded, {} near pairs",
        counted((n_items + n_refused) as u64, "image", "images"),
        counts[0],
        counts[1],
        counts[2]
    )?;
    Ok(out.flush()?)
}
