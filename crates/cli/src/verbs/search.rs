//! `m3ret search`: the most similar images of an archive.

use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::{short, write_json_line};
use crate::Outcome;
use crate::cli::SearchArguments;
use crate::out;
use crate::progress::Progress;
use crate::screen::Screen;
use crate::text::Paint;
use m3ret::files::{check_page, write_whole};
use m3ret::galleries::{Archive, OpenOptions};
use m3ret::model_name;
use m3ret::options::Reading;
use m3ret::search::{
    Answer, Ask, Hit, Labels, MeasuredOn, Queries, Recall, VectorQueries, Views, page,
};
use m3ret::watch::Watch as _;
use m3ret::words::{counted, printable, printable_path};
use m3ret_search::names::is_slice;

/// Opens the archive, looks for every query, and prints what was found.
pub(crate) fn run(arguments: &SearchArguments, screen: Screen) -> anyhow::Result<Outcome> {
    arguments.reading.start_threads()?;
    let progress = Progress::start(screen);
    if let Some(html) = &arguments.html {
        let model = model_name::folder_of(&arguments.model.choice());
        let inputs = [
            Some(&arguments.archive),
            arguments.embeddings.as_ref(),
            model.as_ref(),
        ];
        let inputs = inputs.into_iter().flatten().chain(&arguments.input);
        let inputs: Vec<&Path> = inputs.map(PathBuf::as_path).collect();
        check_page(html, arguments.force, &inputs)?;
    }
    let archive = Archive::open(&arguments.archive, &opening_of(arguments), &progress)?;
    if !archive.updated.refused.is_empty() {
        let n_refused = archive.updated.refused.len();
        progress.note(&format!(
            "{} not be read and {} not searched; `m3ret check` says why",
            counted(
                n_refused as u64,
                "image of the archive could",
                "images of the archive could"
            ),
            if n_refused == 1 { "is" } else { "are" }
        ));
        note_remembered(&archive, &progress);
    }
    if arguments.html.is_some() && arguments.embeddings.is_none() {
        // Pictures are explained by the model, also where every query is an id.
        archive.open_model(&progress)?;
    }
    let ask = ask_of(arguments);
    let mut found = archive.ask(&queries_of(arguments), &ask, &progress)?;
    for answer in &mut found.answers {
        answer
            .hits
            .iter_mut()
            .for_each(|hit| hit.file = short(&hit.file));
    }
    if let Some(html) = &arguments.html {
        progress.step("drawing the report");
        let page = page(&archive, &ask, &found.answers)?;
        write_whole(html, |out| Ok(out.write_all(page.as_bytes())?))?;
    }
    progress.clear();
    for query in &found.refused {
        let path = printable_path(&query.path);
        out::tell(&format!("{path}: {}", printable(&query.message)));
    }
    print(arguments, &found.answers, screen)?;
    Ok(Outcome::of(
        found.refused.is_empty() && !found.answers.is_empty(),
    ))
}

/// Notes how many refused images were not read again.
fn note_remembered(archive: &Archive, progress: &Progress) {
    let refused = archive.updated.refused.iter();
    let n_remembered = refused.filter(|image| image.is_remembered).count();
    if n_remembered > 0 {
        progress.note(&format!(
            "{} refused before and not read again; --retry does",
            counted(n_remembered as u64, "of them was", "of them were")
        ));
    }
}

fn opening_of(arguments: &SearchArguments) -> OpenOptions {
    // A column that is asked for is stored in the cache of a folder or a manifest.
    let filters = arguments.filter.iter().map(|filter| &filter.column);
    let asked = filters.chain(&arguments.group_by).chain(&arguments.exclude);
    let asked = asked.chain(&arguments.agree);
    let keep = asked.cloned().collect();
    OpenOptions {
        cache: arguments.cache.clone(),
        model: arguments.model.choice(),
        default_model: model_name::DEFAULT,
        reading: Reading {
            keep,
            ..arguments.retry.reading(&arguments.reading)
        },
        folder: arguments.folder.choice(),
    }
}

fn queries_of(arguments: &SearchArguments) -> Queries {
    match &arguments.embeddings {
        Some(path) => Queries::Vectors(VectorQueries {
            path: path.clone(),
            encoder: arguments.encoder.clone(),
            normalizes: arguments.normalize,
        }),
        None => Queries::Images(arguments.input.clone()),
    }
}

fn ask_of(arguments: &SearchArguments) -> Ask {
    Ask {
        k: arguments.k.get(),
        filters: arguments.filter.clone(),
        exclude: arguments.exclude.clone(),
        group_by: arguments.group_by.clone(),
        recall: if arguments.exact {
            Some(Recall::ALL)
        } else {
            arguments.recall
        },
        agree: arguments.agree.clone(),
        offset: arguments.offset,
        min_score: arguments.min_score,
        views: if arguments.whole {
            Views::Own
        } else {
            Views::Projections {
                handicap: arguments.handicap,
            }
        },
    }
}

fn print(arguments: &SearchArguments, answers: &[Answer], screen: Screen) -> anyhow::Result<()> {
    let mut out = BufWriter::new(out::stdout());
    let paint = Paint {
        is_on: screen.has_colour,
    };
    for answer in answers {
        if arguments.json {
            write_json_line(&mut out, answer)?;
        } else {
            out.write_all(text(answer, arguments, paint).as_bytes())?;
        }
    }
    if let (Some(html), false) = (&arguments.html, arguments.json) {
        writeln!(out, "report    {}", printable_path(html))?;
    }
    out.flush().context("writing to standard output")
}

/// Joins labels for people.
fn labels_text(labels: &Labels) -> String {
    let all = [
        &labels.modality,
        &labels.body_part,
        &labels.finding,
        &labels.label,
    ];
    let all: Vec<String> = all
        .into_iter()
        .flatten()
        .map(|label| printable(label))
        .collect();
    all.join(" ")
}

/// Says how often such searches find what the query shows.
fn agreement_text(answer: &Answer, paint: Paint) -> String {
    let Some(found) = &answer.agreement else {
        return format!("  {}\n", paint.dim("agreement: unknown"));
    };
    let text = format!(
        "  agreement: {} {:.2} [{:.2}, {:.2}], n {} ({}{})\n",
        printable(&found.column),
        found.value,
        found.low,
        found.high,
        found.n,
        printable(&found.searches),
        match found.measured_on {
            MeasuredOn::Archive => "",
            MeasuredOn::Model => ", on images kept apart for the model",
        }
    );
    if found.is_reliable {
        return text;
    }
    let searches = printable(&found.searches);
    text + &format!(
        "  {}\n",
        paint.bold(&format!("the encoder is not reliable: {searches}"))
    )
}

/// Writes an answer for a person: a line for each hit.
fn text(answer: &Answer, arguments: &SearchArguments, paint: Paint) -> String {
    let mut name = printable(&answer.query);
    if let Some(part) = &answer.part {
        name += &format!(" [{}]", printable(part));
    }
    let labels = labels_text(&answer.labels);
    let mut text = match labels.as_str() {
        "" => format!("{}\n", paint.bold(&name)),
        labels => format!("{}  {}\n", paint.bold(&name), paint.dim(labels)),
    };
    if answer.hits.is_empty() {
        let told = match arguments.offset {
            0 => "nothing was found",
            _ => "no hit is left after those that --offset leaves out",
        };
        return text + &format!("  {told}\n\n");
    }
    text += &agreement_text(answer, paint);
    let what = |hit: &Hit| labels_text(&hit.labels);
    let width = answer
        .hits
        .iter()
        .map(|hit| what(hit).chars().count())
        .max()
        .unwrap_or(0);
    let width = width.clamp(4, 32);
    let heading = format!(
        "  {:>3}  {:>6}  {:<13}  {:<width$}  file",
        "#", "score", "relation", "what"
    );
    text += &format!("{}\n", paint.dim(&heading));
    for hit in &answer.hits {
        let mut file = printable(&hit.file);
        if let Some(part) = &hit.part {
            file += &format!(" [{}]", printable(part));
        }
        if let Some(view) = &hit.view {
            let seen = if is_slice(view) { "at" } else { "seen from:" };
            file += &format!(" {seen} {}", printable(view));
        }
        text += &format!(
            "  {:>3}  {:>6.4}  {:<13}  {:<width$}  {file}\n",
            hit.rank,
            hit.score,
            hit.relation.name(),
            what(hit)
        );
    }
    text + "\n"
}
