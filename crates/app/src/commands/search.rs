//! `m3ret search`: the most similar images of an archive.

mod ask;
mod page;
mod why;

use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context as _, ensure};
use m3ret_search::{
    Filter, Gallery, Hit, LeftOut, Method, Queries, RowId, SearchOptions, Statistics,
};
use serde::Serialize;

use self::ask::Asked;
pub(super) use self::page::harmless;
pub(super) use self::why::{base64, read as read_image};
use super::galleries::{self, Opening, Pseudonyms, columns, file_of, short};
use super::index::refused_text;
use super::write_json_line;
use crate::Outcome;
use crate::cli::{ColumnValue, SearchArguments};
use crate::model_name;
use crate::output::Screen;
use crate::progress::Progress;
use crate::report::text::{Paint, printable};

/// What the archive says of a query or a hit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct Labels {
    modality: Option<String>,
    body_part: Option<String>,
    finding: Option<String>,
    dims: Option<String>,
    source: Option<String>,
}

/// One hit, as it is told.
#[derive(Debug, Clone, Serialize)]
struct Found {
    rank: usize,
    id: String,
    path: String,
    part: Option<String>,
    /// Where the file lies.
    file: String,
    score: f32,
    percentile: Option<f64>,
    confident: Option<bool>,
    relation: Relation,
    #[serde(flatten)]
    labels: Labels,
    #[serde(skip)]
    row: RowId,
}

/// How a hit and a query belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Relation {
    SameImage,
    SameSeries,
    SameStudy,
    SamePatient,
    OtherPatient,
    Unknown,
}

/// The answer to one query.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    query_row: usize,
    query: &'a str,
    part: Option<&'a str>,
    #[serde(flatten)]
    labels: &'a Labels,
    confident: Option<bool>,
    hits: Vec<Found>,
}

impl Relation {
    fn name(self) -> &'static str {
        match self {
            Self::SameImage => "same image",
            Self::SameSeries => "same series",
            Self::SameStudy => "same study",
            Self::SamePatient => "same patient",
            Self::OtherPatient => "other patient",
            Self::Unknown => "unknown",
        }
    }

    /// Compares what is known of two images.
    fn of(asked: &Asked, people: &Pseudonyms, pixels: &str) -> Self {
        let same = |a: &str, b: &str| !a.is_empty() && a == b;
        let own = &asked.people;
        if same(&asked.pixels, pixels) {
            Self::SameImage
        } else if same(&own.series, &people.series) {
            Self::SameSeries
        } else if same(&own.study, &people.study) {
            Self::SameStudy
        } else if same(&own.patient, &people.patient) {
            Self::SamePatient
        } else if !own.patient.is_empty() && !people.patient.is_empty() {
            Self::OtherPatient
        } else {
            Self::Unknown
        }
    }
}

impl Labels {
    /// Reads the labels of a row.
    fn of_row(gallery: &Gallery, row: RowId) -> anyhow::Result<Self> {
        let value = |column: &str| -> anyhow::Result<Option<String>> {
            let value = gallery.value(row, column)?;
            Ok((!value.is_empty()).then(|| value.to_owned()))
        };
        Ok(Self {
            modality: value("modality")?,
            body_part: value("body_part")?,
            finding: value("finding")?,
            dims: value("dims")?,
            source: value("source")?,
        })
    }

    /// Joins labels for people.
    fn text(&self) -> String {
        let all = [&self.modality, &self.body_part, &self.finding];
        let all: Vec<&str> = all.into_iter().flatten().map(String::as_str).collect();
        all.join(" ")
    }
}

/// Opens the archive, looks for every query, and tells what was found.
pub(crate) fn run(arguments: &SearchArguments, screen: Screen) -> anyhow::Result<Outcome> {
    arguments.reading.start_threads()?;
    let progress = Progress::start(screen);
    let opening = Opening {
        archive: &arguments.archive,
        cache: arguments.cache.as_deref(),
        model: &arguments.model,
        default_model: model_name::DEFAULT,
        reading: &arguments.reading,
        needs_model: arguments.html.is_some() && arguments.embeddings.is_none(),
    };
    let mut opened = galleries::open(&opening, &progress)?;
    if !opened.updated.refused.is_empty() {
        let n_refused = opened.updated.refused.len();
        progress.note(&format!(
            "{n_refused} images of the archive could not be read and are not searched; `m3ret \
             check` lists them"
        ));
    }
    ensure!(
        !opened.gallery.is_empty(),
        "{} holds no image that can be searched\n{}",
        arguments.archive.display(),
        refused_text(&opened.updated)
    );
    progress.announce("reading queries");
    let (asked, refused) = ask::all(arguments, &mut opened, &progress)?;
    progress.announce("searching");
    let answers = answer(arguments, &opened.gallery, &asked, &progress)?;
    if let Some(html) = &arguments.html {
        progress.announce("drawing the report");
        page::write(html, arguments, &opened, (&asked, &answers))?;
    }
    progress.clear();
    for (path, message) in &refused {
        eprintln!("m3ret: {}: {message}", path.display());
    }
    tell(arguments, &answers, screen)?;
    let is_good = refused.is_empty() && !asked.is_empty();
    Ok(if is_good {
        Outcome::AllGood
    } else {
        Outcome::SomeRefused
    })
}

fn options(arguments: &SearchArguments) -> SearchOptions {
    let mut filters: Vec<Filter> = Vec::new();
    for ColumnValue {
        column,
        value,
        is_negated,
    } in &arguments.filter
    {
        let same =
            |filter: &&mut Filter| filter.column == *column && filter.is_negated == *is_negated;
        match filters.iter_mut().find(same) {
            Some(filter) => filter.values.push(value.clone()),
            None => filters.push(Filter {
                column: column.clone(),
                values: vec![value.clone()],
                is_negated: *is_negated,
            }),
        }
    }
    SearchOptions {
        k: arguments.k.get(),
        method: if arguments.exact {
            Method::Exact
        } else {
            Method::Auto
        },
        filters,
        group_by: arguments.group_by.clone(),
    }
}

/// Patients of a filter are given by name and stored as hashes.
fn with_hashes(gallery: &Gallery, mut options: SearchOptions) -> SearchOptions {
    for filter in &mut options.filters {
        if [columns::PATIENT, columns::STUDY, columns::SERIES].contains(&filter.column.as_str()) {
            for value in &mut filter.values {
                *value = gallery.pseudonym(&filter.column, value);
            }
        }
    }
    options
}

/// Returns what each query leaves out.
fn left_out(
    arguments: &SearchArguments,
    gallery: &Gallery,
    asked: &[Asked],
    progress: &Progress,
) -> anyhow::Result<Vec<LeftOut>> {
    let mut all = Vec::new();
    for name in &arguments.exclude {
        let column = match name.as_str() {
            "same_patient" => columns::PATIENT,
            "same_study" => columns::STUDY,
            "same_series" => columns::SERIES,
            "same_image" => columns::PIXELS,
            other => other,
        };
        ensure!(
            gallery.columns().contains(&column),
            "--exclude {name}: the gallery has no column {column}; it has {}",
            gallery.columns().join(", ")
        );
        let mut values = Vec::with_capacity(asked.len());
        for query in asked {
            let value = query.value(gallery, column)?;
            if value.is_empty() {
                progress.note(&format!(
                    "--exclude {name}: nothing is left out for {}, whose {column} is not known",
                    printable(&query.name)
                ));
            }
            values.push(value);
        }
        all.push(LeftOut {
            column: column.to_owned(),
            values,
        });
    }
    Ok(all)
}

fn answer<'a>(
    arguments: &SearchArguments,
    gallery: &Gallery,
    asked: &'a [Asked],
    progress: &Progress,
) -> anyhow::Result<Vec<Answer<'a>>> {
    let vectors: Vec<f32> = asked
        .iter()
        .flat_map(|query| query.vector.iter().copied())
        .collect();
    let own: Vec<Option<RowId>> = asked.iter().map(|query| query.own).collect();
    let left_out = left_out(arguments, gallery, asked, progress)?;
    let queries = Queries {
        vectors: &vectors,
        own: &own,
        left_out: &left_out,
    };
    let options = with_hashes(gallery, options(arguments));
    let hits = gallery.search(queries, &options)?;
    let statistics = gallery.statistics()?.unwrap_or_default();
    let answers = asked
        .iter()
        .zip(hits)
        .enumerate()
        .map(|(query_row, (query, hits))| {
            let hits = hits.iter().enumerate();
            let hits = hits.map(|(idx, hit)| found(gallery, &statistics, query, (idx, hit)));
            let hits: Vec<Found> = hits.collect::<anyhow::Result<_>>()?;
            Ok(Answer {
                query_row,
                query: &query.name,
                part: query.part.as_deref(),
                labels: &query.labels,
                confident: hits.first().and_then(|hit| hit.confident),
                hits,
            })
        });
    answers.collect()
}

fn found(
    gallery: &Gallery,
    statistics: &Statistics,
    query: &Asked,
    (idx, hit): (usize, &Hit),
) -> anyhow::Result<Found> {
    let row = hit.row;
    let labels = Labels::of_row(gallery, row)?;
    let modality = |labels: &Labels| labels.modality.clone().unwrap_or_default();
    let (from, to) = (modality(&query.labels), modality(&labels));
    let people = Pseudonyms::of_row(gallery, row)?;
    let part = gallery.value(row, columns::PART)?;
    Ok(Found {
        rank: idx + 1,
        id: gallery.id(row)?.to_owned(),
        path: gallery.value(row, columns::PATH)?.to_owned(),
        part: (!part.is_empty()).then(|| part.to_owned()),
        file: short(&file_of(gallery, row)?)
            .to_string_lossy()
            .into_owned(),
        score: hit.score,
        percentile: statistics.percentile(hit.score, &from, &to),
        confident: statistics.is_confident(hit.score, &from, &to),
        relation: Relation::of(query, &people, gallery.value(row, columns::PIXELS)?),
        labels,
        row,
    })
}

fn tell(arguments: &SearchArguments, answers: &[Answer<'_>], screen: Screen) -> anyhow::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let paint = Paint {
        is_on: screen.has_colour,
    };
    for answer in answers {
        if arguments.json {
            write_json_line(&mut out, answer)?;
        } else {
            out.write_all(text(answer, paint).as_bytes())?;
        }
    }
    if let (Some(html), false) = (&arguments.html, arguments.json) {
        writeln!(out, "report    {}", html.display())?;
    }
    out.flush().context("writing to standard output")
}

/// Writes an answer for a person: a line for each hit.
fn text(answer: &Answer<'_>, paint: Paint) -> String {
    let mut name = printable(answer.query);
    if let Some(part) = answer.part {
        name += &format!(" [{}]", printable(part));
    }
    let labels = answer.labels.text();
    let mut text = match labels.as_str() {
        "" => format!("{}\n", paint.bold(&name)),
        labels => format!("{}  {}\n", paint.bold(&name), paint.dim(labels)),
    };
    if answer.hits.is_empty() {
        return text + "  nothing was found\n\n";
    }
    if answer.confident == Some(false) {
        text += "  No confident match: images of this archive that have a similar one among other \
                 patients score higher.\n";
    }
    let what = |hit: &Found| hit.labels.text();
    let width = answer
        .hits
        .iter()
        .map(|hit| what(hit).chars().count())
        .max()
        .unwrap_or(0);
    let width = width.clamp(4, 32);
    let heading = format!(
        "  {:>3}  {:>6}  {:>6}  {:<13}  {:<width$}  file",
        "#", "score", "pct", "relation", "what"
    );
    text += &format!("{}\n", paint.dim(&heading));
    for hit in &answer.hits {
        let percentile = hit
            .percentile
            .map_or("-".to_owned(), |value| format!("{value:.1}"));
        let mut file = printable(&hit.file);
        if let Some(part) = &hit.part {
            file += &format!(" [{}]", printable(part));
        }
        text += &format!(
            "  {:>3}  {:>6.4}  {:>6}  {:<13}  {:<width$}  {file}\n",
            hit.rank,
            hit.score,
            percentile,
            hit.relation.name(),
            what(hit)
        );
    }
    text + "\n"
}

/// Says whether two paths are one place.
fn is_same_place(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}
