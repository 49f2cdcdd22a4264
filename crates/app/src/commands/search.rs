//! `m3ret search`: the most similar images of an archive.

mod ask;
mod page;
mod why;

use m3ret_manifest::text_of;
use std::io::{self, BufWriter, Write as _};

use anyhow::{Context as _, ensure};
use m3ret_manifest::columns::{BODY_PART, DIMS, FINDING, MODALITY, SOURCE, meaning};
use m3ret_search::{
    Filter, Gallery, Hit, LeftOut, Method, Queries, RowId, SearchOptions, Statistics,
};
use serde::Serialize;

use self::ask::Asked;
pub(super) use self::page::harmless;
pub(super) use self::why::base64;
use super::galleries::columns::{self, own_names};
use super::galleries::{self, Opening, Pseudonyms, file_of, short};
use super::index::refused_text;
use super::write_json_line;
use crate::Outcome;
use crate::cli::{ColumnValue, SearchArguments};
use crate::model_name;
use crate::output::{Screen, refuse_foreign_page};
use crate::progress::Progress;
use crate::report::text::{Paint, printable};
use crate::watch::Watch;

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

    /// Compares what is known of two images; identifiers only with those of one kind.
    fn of(asked: &Asked, people: &Pseudonyms, pixels: &str) -> Self {
        let own = &asked.people;
        if !pixels.is_empty() && asked.pixels == pixels {
            return Self::SameImage;
        }
        if own.series.is(&people.series) == Some(true) {
            return Self::SameSeries;
        }
        if own.study.is(&people.study) == Some(true) {
            return Self::SameStudy;
        }
        match own.patient.is(&people.patient) {
            Some(true) => Self::SamePatient,
            Some(false) => Self::OtherPatient,
            None => Self::Unknown,
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
            modality: value(MODALITY)?,
            body_part: value(BODY_PART)?,
            finding: value(FINDING)?,
            dims: value(DIMS)?,
            source: value(SOURCE)?,
        })
    }

    /// Joins labels for people.
    fn text(&self) -> String {
        let all = [&self.modality, &self.body_part, &self.finding];
        let all: Vec<String> = all
            .into_iter()
            .flatten()
            .map(|label| printable(label))
            .collect();
        all.join(" ")
    }
}

/// Opens the archive, looks for every query, and tells what was found.
pub(crate) fn run(arguments: &SearchArguments, screen: Screen) -> anyhow::Result<Outcome> {
    arguments.reading.start_threads()?;
    let progress = Progress::start(screen);
    if let Some(html) = &arguments.html {
        refuse_foreign_page(html, arguments.force)?;
    }
    let opening = Opening {
        archive: &arguments.archive,
        cache: arguments.cache.as_deref(),
        model: &arguments.model.choice(),
        default_model: model_name::DEFAULT,
        reading: &arguments.reading.reading(),
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
    progress.step("reading queries");
    let (asked, refused) = ask::all(arguments, &mut opened, &progress)?;
    progress.step("searching");
    let answers = answer(arguments, &opened.gallery, &asked, &progress)?;
    tell_uncompared(arguments, &answers, &progress);
    if let Some(html) = &arguments.html {
        progress.step("drawing the report");
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

/// Returns the gallery's column that a user calls `name`: that of this name, or of its meaning.
fn column_of<'a>(gallery: &Gallery, name: &'a str) -> &'a str {
    if gallery.columns().contains(&name) {
        return name;
    }
    meaning(name).unwrap_or(name)
}

fn options(arguments: &SearchArguments, gallery: &Gallery) -> SearchOptions {
    let mut filters: Vec<Filter> = Vec::new();
    for ColumnValue {
        column,
        value,
        is_negated,
    } in &arguments.filter
    {
        let (column, value) = (column_of(gallery, column), value.trim().to_owned());
        let same =
            |filter: &&mut Filter| filter.column == column && filter.is_negated == *is_negated;
        match filters.iter_mut().find(same) {
            Some(filter) => filter.values.push(value),
            None => filters.push(Filter {
                column: column.to_owned(),
                values: vec![value],
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
        group_by: arguments
            .group_by
            .as_deref()
            .map(|name| column_of(gallery, name).to_owned()),
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
    progress: &dyn Watch,
) -> anyhow::Result<Vec<LeftOut>> {
    let mut all = Vec::new();
    for name in &arguments.exclude {
        let there: Vec<&str> = excluded_columns(name, gallery)
            .into_iter()
            .filter(|column| gallery.columns().contains(column))
            .collect();
        ensure!(
            !there.is_empty(),
            "--exclude {name}: the gallery has no such column; it has {}",
            gallery.columns().join(", ")
        );
        let n_before = all.len();
        for column in there {
            let values: Vec<String> = asked
                .iter()
                .map(|query| query.value(gallery, column))
                .collect::<anyhow::Result<_>>()?;
            all.push(LeftOut {
                column: column.to_owned(),
                values,
            });
        }
        for (idx, query) in asked.iter().enumerate() {
            if all[n_before..]
                .iter()
                .all(|left_out| left_out.values[idx].is_empty())
            {
                progress.note(&format!(
                    "--exclude {name}: nothing is left out for {}, of which it is not known",
                    query.name
                ));
            }
        }
    }
    Ok(all)
}

/// Returns the columns in which a hit must differ from its query.
fn excluded_columns<'a>(name: &'a str, gallery: &Gallery) -> Vec<&'a str> {
    match name {
        "same_patient" => vec![
            columns::PATIENT,
            columns::OWN_PATIENT,
            columns::OWN_ISSUED_PATIENT,
        ],
        "same_study" => vec![columns::STUDY, columns::OWN_STUDY],
        "same_series" => vec![columns::SERIES, columns::OWN_SERIES],
        "same_image" => vec![own_names(gallery).pixels],
        other => vec![column_of(gallery, other)],
    }
}

/// Says where an exclusion of patients could not be applied: identifiers of different kinds are not compared.
fn tell_uncompared(arguments: &SearchArguments, answers: &[Answer<'_>], progress: &dyn Watch) {
    if !arguments.exclude.iter().any(|name| name == "same_patient") {
        return;
    }
    for answer in answers {
        let is_unknown = |hit: &&Found| hit.relation == Relation::Unknown;
        let n_unknown = answer.hits.iter().filter(is_unknown).count();
        if n_unknown > 0 {
            progress.note(&format!(
                "--exclude same_patient could not be applied to {n_unknown} of {} hits of {}: whether they are of \
                 the same patient is not known (identifiers of headers and of manifests are not compared)",
                answer.hits.len(),
                answer.query
            ));
        }
    }
}

fn answer<'a>(
    arguments: &SearchArguments,
    gallery: &Gallery,
    asked: &'a [Asked],
    progress: &dyn Watch,
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
    let options = with_hashes(gallery, options(arguments, gallery));
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
        file: text_of(&short(&file_of(gallery, row)?)),
        score: hit.score,
        percentile: statistics.percentile(hit.score, &from, &to),
        confident: statistics.is_confident(hit.score, &from, &to),
        relation: Relation::of(
            query,
            &people,
            gallery.value(row, own_names(gallery).pixels)?,
        ),
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
