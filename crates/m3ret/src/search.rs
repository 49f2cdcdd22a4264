//! Searches an archive for the images most similar to a query.

mod agreement;
mod ask;
mod page;
mod picture;
mod why;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{bail, ensure};
use m3ret_manifest::columns::{
    BODY_PART, DIMS, FINDING, LABEL, MODALITY, SOURCE, is_patient, meaning,
};
use m3ret_manifest::privacy::{Storage, storage};
use m3ret_manifest::{LABEL_SEPARATOR, text_of};
use m3ret_search::{
    AskedImage, Collection, Filter, LeftOut, Method, RowHit, RowId, SearchOptions, search_across,
};
pub use m3ret_search::{DEFAULT_HANDICAP, Recall, Views};
use serde::Serialize;

use self::agreement::Known;
pub use self::agreement::{Agreement, MeasuredOn};
use self::ask::ReadyQuery;
pub use self::ask::{Example, MAX_EXAMPLES, Queries, UNLIKE_WEIGHT, VectorQueries};
pub use self::page::page;
pub use self::picture::KnownImage;
use self::why::ImageTokens;
pub use self::why::Why;
use super::galleries::columns::{self, own_names};
use super::galleries::{Archive, Pseudonyms, RowCells, file_of, place_below, refused_text};
use crate::choices::{columns_of, no_column, no_value};
use crate::images::MemoryImage;
use crate::options::ColumnValue;
use crate::watch::Watch;
use crate::words::counted;

/// Whether values of a column name a person, a study or a series, or are sealed: a service does not say who is there to
/// whoever guesses a number.
#[must_use]
pub fn names_people(column: &str) -> bool {
    let is_own = column.starts_with("m3ret:") || column == crate::index::UID_SEALED;
    is_own || m3ret_manifest::privacy::identifies_people(column)
}

/// Labels of a query or a hit: from the manifest, else from the file; `None` where neither states one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Labels {
    /// Modality, such as `CT`.
    pub modality: Option<String>,
    /// Body part, such as `chest`.
    pub body_part: Option<String>,
    /// What is to be seen; several labels are joined by `|`.
    pub finding: Option<String>,
    /// The column `label`: the folder that the image lies in, where names of folders are used; absent in JSON where it is
    /// empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// `2d`, `3d` or `video`.
    pub dims: Option<String>,
    /// Data set or site; only manifests state it.
    pub source: Option<String>,
}

/// One image of the archive in the answer to a query.
#[derive(Debug, Clone, Serialize)]
pub struct Hit {
    /// Position among all hits of the query, from 1.
    pub rank: usize,
    /// Id of the image in the gallery.
    pub id: String,
    /// Path as the archive stores it: relative to its folder, or as the manifest writes it.
    pub path: String,
    /// The folder that the path is relative to.
    #[serde(skip)]
    pub root: String,
    /// Which image of the file this is; `None` if the file holds one image.
    pub part: Option<String>,
    /// Where the file lies: root and path. The command line shows it relative to the current folder.
    pub file: String,
    /// Cosine of the two vectors, -1..=1.
    pub score: f32,
    /// The view of the image that is like the query, such as `front` of a CT; `None`: the whole image.
    pub view: Option<String>,
    /// The view of the query that is like it; `None`: the whole query.
    pub query_view: Option<String>,
    /// How the image and the query belong together.
    pub relation: Relation,
    /// Labels of the image.
    #[serde(flatten)]
    pub labels: Labels,
    /// Row of the image in the gallery.
    #[serde(skip)]
    pub(crate) row: RowId,
}

impl Hit {
    /// Returns the row of the image in the gallery.
    pub fn row(&self) -> RowId {
        self.row
    }
}

/// How a hit and its query belong together. Identifiers are compared only with those of the same origin: header with
/// header, manifest with manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// All values are equal.
    SameImage,
    /// One acquisition.
    SameSeries,
    /// One visit, another series or a series that is unknown.
    SameStudy,
    /// One patient, another study or a study that is unknown.
    SamePatient,
    /// Two patients.
    OtherPatient,
    /// Too little is known of one of them.
    Unknown,
}

/// The answer to one query.
#[derive(Debug, Clone, Serialize)]
pub struct Answer {
    /// Number of the query, from 0.
    pub query_row: usize,
    /// Path or id of the query as it was given; `row N` (from 0) for a vector.
    pub query: String,
    /// Which image of the file the query is; `None` if the file holds one image.
    pub part: Option<String>,
    /// Labels of the query.
    #[serde(flatten)]
    pub labels: Labels,
    /// How often such first hits agree with their query; `None` without hits of other patients, or where nothing is
    /// known.
    pub agreement: Option<Agreement>,
    /// Hits with descending scores; equal scores are in ascending order of ids.
    pub hits: Vec<Hit>,
    /// Where the query's image lies; `None` for a vector, and for an image in memory.
    #[serde(skip)]
    pub file: Option<PathBuf>,
    /// The query's image, if it was given in memory.
    #[serde(skip)]
    pub image: Option<Arc<MemoryImage>>,
    /// Whether the query's patient is known.
    #[serde(skip)]
    has_patient: bool,
}

/// How an archive is searched.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Largest number of hits of a query.
    pub k: usize,
    /// Conditions that a hit meets in every column; several values of one column are alternatives.
    pub filters: Vec<ColumnValue>,
    /// `same_patient`, `same_study`, `same_series`, `same_image`, or columns in which a hit must differ from its
    /// query.
    pub exclude: Vec<String>,
    /// Column of which each value has one hit, its best image; `None` not to group.
    pub group_by: Option<String>,
    /// Share of the exact hits that the search is to find; `None` for what the collection was measured for (0.995 in a
    /// gallery), `Recall::ALL` to score every vector instead of those that the codes select.
    pub recall: Option<Recall>,
    /// Column of which it is told how often first hits have the query's cell; `None` for `body_part`.
    pub agree: Option<String>,
    /// Number of best hits that are left out, to page through an answer.
    pub offset: usize,
    /// Least score of a hit, -1..=1; `None` for any.
    pub min_score: Option<f32>,
    /// Which vectors are compared, where images have several.
    pub views: Views,
}

impl Default for Ask {
    /// Asks for ten hits among all images.
    fn default() -> Self {
        Self {
            k: 10,
            filters: Vec::new(),
            exclude: Vec::new(),
            group_by: None,
            recall: None,
            agree: None,
            offset: 0,
            min_score: None,
            views: Views::default(),
        }
    }
}

/// The answers, and the queries that have none.
#[derive(Debug, Clone)]
pub struct Answers {
    /// One answer for each query that could be read, in their order.
    pub answers: Vec<Answer>,
    /// Queries that could not be read.
    pub refused: Vec<RefusedQuery>,
}

/// A query that could not be read, and why.
#[derive(Debug, Clone)]
pub struct RefusedQuery {
    /// The file or folder of the query, or the id that was not found.
    pub path: PathBuf,
    /// Why it was refused, as a sentence.
    pub message: String,
}

impl Hit {
    /// Returns the file or folder that the image lies in.
    #[must_use]
    pub fn place(&self) -> PathBuf {
        place_below(&self.root, &self.path)
    }
}

impl Relation {
    /// Returns the relation in words, such as `same patient`.
    pub fn name(self) -> &'static str {
        match self {
            Self::SameImage => "same image",
            Self::SameSeries => "same series",
            Self::SameStudy => "same study",
            Self::SamePatient => "same patient",
            Self::OtherPatient => "other patient",
            Self::Unknown => "unknown",
        }
    }

    /// Compares what is known of two images; identifiers only with those of the same origin. Of a query of several images
    /// it is the closest.
    fn of(asked: &ReadyQuery, people: &Pseudonyms, pixels: &str) -> Self {
        let others = asked.others.iter();
        let others = others.map(|other| Self::of(other, people, pixels));
        // Where one of them is unknown, it may be the same patient.
        let nearness = |relation: &Self| match relation {
            Self::SameImage => 0,
            Self::SameSeries => 1,
            Self::SameStudy => 2,
            Self::SamePatient => 3,
            Self::Unknown => 4,
            Self::OtherPatient => 5,
        };
        if let Some(closest) = others.min_by_key(nearness) {
            return closest;
        }
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
    /// Returns the labels of a row.
    fn of(cells: &RowCells<'_>) -> Self {
        let value = |column: &str| Some(cells.get(column)).filter(|value| !value.is_empty());
        let value = |column: &str| value(column).map(str::to_owned);
        Self {
            modality: value(MODALITY),
            body_part: value(BODY_PART),
            finding: value(FINDING),
            label: value(LABEL),
            dims: value(DIMS),
            source: value(SOURCE),
        }
    }
}

impl Archive {
    /// Returns the most similar images of the archive for each query.
    ///
    /// A query that cannot be read is refused and costs no other query its answer. The model of the archive is opened
    /// for the first query that is an image.
    ///
    /// # Errors
    /// If the archive holds no image; if a filter, an exclusion or the grouping names a column or value that the
    /// archive lacks; if vectors were made by another model; if the model cannot be opened or the gallery is damaged.
    pub fn ask(&self, queries: &Queries, ask: &Ask, watch: &dyn Watch) -> crate::Result<Answers> {
        ensure!(
            !self.gallery.is_empty(),
            "{} holds no image that can be searched{}\n{}",
            self.place.display(),
            if self.is_chosen {
                ", among the files that --include-files and --exclude-files leave"
            } else {
                ""
            },
            refused_text(&self.updated)
        );
        let gallery = self.gallery.as_ref();
        let agree = ask.agree.as_deref().map(|name| column_of(gallery, name));
        check_columns(&options(ask, gallery), agree, gallery)?;
        watch.step("reading queries");
        let (ready, refused) = ask::all(queries, ask, self, watch)?;
        watch.step("searching");
        let answers = answer(ask, self.gallery.as_ref(), ready, watch)?;
        note_uncompared(ask, &answers, watch);
        Ok(Answers { answers, refused })
    }
}

impl Archive {
    /// Says why a hit matches its query: which patches look alike to the encoder, and what the score is without them.
    ///
    /// Reads and embeds both images again. Returns `None` for a model without patches, and for a query that is a vector.
    ///
    /// # Errors
    /// `Image` or `Caller` if one of the two cannot be read, or the answer has no such hit.
    pub fn explain(&self, answer: &Answer, hit_idx: usize) -> crate::Result<Option<Why>> {
        let Some(hit) = answer.hits.get(hit_idx) else {
            bail!(
                "hit {hit_idx} (from 0) was asked for, and the answer has {}",
                answer.hits.len()
            );
        };
        let own = QueryImage {
            image: answer.image.as_ref(),
            file: answer.file.as_deref(),
            part: answer.part.as_deref(),
        };
        let hit_file = file_of(self.gallery.as_ref(), hit.row)?;
        self.compare(&own, &hit_file, hit.part.as_deref())
    }

    /// Says why an image of the gallery matches the first of some queries, whether or not a search found it.
    ///
    /// Returns `None` if the gallery has no image with this id, and as `explain` does.
    ///
    /// # Errors
    /// `Image` or `Caller` if one of the two cannot be read; `Gallery` if the gallery is damaged.
    pub fn explain_pair(
        &self,
        queries: &Queries,
        id: &str,
        watch: &dyn Watch,
    ) -> crate::Result<Option<Why>> {
        let gallery = self.gallery.as_ref();
        let Some(row) = gallery.find(id)? else {
            return Ok(None);
        };
        let cells = RowCells::of_row(gallery, row)?;
        let (ready, refused) = ask::all(queries, &Ask::default(), self, watch)?;
        let Some(query) = ready.into_iter().next() else {
            let message = refused.into_iter().next().map(|query| query.message);
            bail!(
                "{}",
                message.unwrap_or_else(|| "no query was given".to_owned())
            );
        };
        let own = QueryImage {
            image: query.image.as_ref(),
            file: query.file.as_deref(),
            part: query.part.as_deref(),
        };
        self.compare(&own, &cells.file(), cells.part())
    }

    fn compare(
        &self,
        own: &QueryImage<'_>,
        hit_file: &Path,
        hit_part: Option<&str>,
    ) -> crate::Result<Option<Why>> {
        let Some(model) = self.model() else {
            return Ok(None);
        };
        if model.tokens(&[]).is_err() {
            return Ok(None);
        }
        let see = |file: &Path, part: Option<&str>| {
            let seen = ImageTokens::read(file, part, model, &self.reading.options);
            seen.map_err(|message| anyhow::anyhow!("{}: {message}", file.display()))
        };
        let own = match (own.image, own.file) {
            (Some(image), _) => {
                let volume = image.read_part(own.part, &self.reading.options);
                volume.and_then(|volume| ImageTokens::of(&volume, model))
            }
            .map_err(|message| anyhow::anyhow!("{}: {message}", image.name))?,
            (None, Some(file)) => see(file, own.part)?,
            (None, None) => return Ok(None),
        };
        let other = see(hit_file, hit_part)?;
        Ok(own.why(&other, model))
    }
}

/// Where the image of a query is.
struct QueryImage<'a> {
    image: Option<&'a Arc<MemoryImage>>,
    file: Option<&'a Path>,
    part: Option<&'a str>,
}

/// Hits that are looked for, even if fewer are wanted.
const MIN_HITS: usize = 10;

/// Returns the column of the gallery that `name` means: the one with this name, else the one with its meaning.
fn column_of<'a>(gallery: &dyn Collection, name: &'a str) -> &'a str {
    if gallery.columns().contains(&name) {
        return name;
    }
    match is_patient(name) {
        true => columns::PATIENT,
        false => meaning(name).unwrap_or(name),
    }
}

fn options(ask: &Ask, gallery: &dyn Collection) -> SearchOptions {
    let mut filters: Vec<Filter> = Vec::new();
    for ColumnValue {
        column,
        value,
        is_negated,
    } in &ask.filters
    {
        let (column, value) = (column_of(gallery, column), value.trim());
        Filter::join(
            &mut filters,
            column.to_owned(),
            value.to_owned(),
            *is_negated,
        );
    }
    SearchOptions {
        // Agreement looks for the first hit of another patient.
        k: ask.k.saturating_add(ask.offset).max(MIN_HITS),
        method: ask.recall.map_or(Method::Auto, Method::Recall),
        filters,
        group_by: ask
            .group_by
            .as_deref()
            .map(|name| column_of(gallery, name).to_owned()),
        views: ask.views,
    }
}

/// Refuses filters, a grouping and an agreement by columns that the gallery does not have.
fn check_columns(
    options: &SearchOptions,
    agree: Option<&str>,
    gallery: &dyn Collection,
) -> anyhow::Result<()> {
    let filters = options.filters.iter();
    let mut asked: Vec<(String, &str)> = filters
        .map(|filter| (option_of(filter), filter.column.as_str()))
        .collect();
    if let Some(column) = &options.group_by {
        asked.push((format!("--group-by {column}"), column));
    }
    if let Some(column) = agree {
        let option = format!("--agree {column}");
        let is_label = !column.starts_with(columns::OWN)
            && !matches!(
                storage(column),
                Storage::Hashed(_) | Storage::HashedOnRequest(_)
            )
            && ![columns::PATH, columns::PART, own_names(gallery).root].contains(&column);
        ensure!(
            is_label,
            "{option}: a column of labels is wanted, such as finding"
        );
        asked.push((option, column));
    }
    for (option, column) in asked {
        if !gallery.columns().contains(&column) {
            ensure!(
                !matches!(storage(column), Storage::Never),
                "{option}: no gallery stores {column}, which describes people"
            );
            return Err(no_column(&option, "the gallery", columns_of(gallery)));
        }
    }
    Ok(())
}

/// Returns a filter as it is asked for on the command line.
fn option_of(filter: &Filter) -> String {
    let sign = if filter.is_negated { "!=" } else { "=" };
    let Filter { column, values, .. } = filter;
    format!("--filter {column}{sign}{}", values.join(" or "))
}

/// Returns the error of a search, or that of a filter whose values no row has.
///
/// `asked` has the values as they were asked for, `hashed` as the gallery stores them.
fn explain(
    error: m3ret_search::Error,
    gallery: &dyn Collection,
    asked: &SearchOptions,
    hashed: &SearchOptions,
) -> anyhow::Error {
    if !matches!(error, m3ret_search::Error::Mismatch { .. }) {
        return error.into();
    }
    for (asked, hashed) in asked.filters.iter().zip(&hashed.filters) {
        let Ok(cells) = gallery.values(&asked.column) else {
            continue;
        };
        let is_wanted = |label: &str| hashed.values.iter().any(|value| value == label);
        let has_any = cells.iter().any(|cell| {
            is_wanted(cell)
                || cell
                    .split(LABEL_SEPARATOR)
                    .any(|label| is_wanted(label.trim()))
        });
        if !has_any {
            let cells = cells.iter().map(AsRef::as_ref);
            return no_value(&option_of(asked), &asked.column, cells);
        }
    }
    error.into()
}

/// Replaces patients, studies and series in filters by the hashes that the gallery stores.
fn with_hashes(gallery: &dyn Collection, mut options: SearchOptions) -> SearchOptions {
    for filter in &mut options.filters {
        let stored = storage(&filter.column).requested();
        if let Storage::Hashed(kind) = stored {
            for value in &mut filter.values {
                *value = gallery.pseudonym(&kind, value);
            }
        }
    }
    options
}

/// Returns the values that exclude rows for each query.
fn left_out(
    ask: &Ask,
    gallery: &dyn Collection,
    asked: &[ReadyQuery],
    watch: &dyn Watch,
) -> anyhow::Result<Vec<LeftOut>> {
    let mut all = Vec::new();
    for name in &ask.exclude {
        let there: Vec<&str> = excluded_columns(name, gallery)
            .into_iter()
            .filter(|column| gallery.columns().contains(column))
            .collect();
        if there.is_empty() {
            let option = format!("--exclude {name}");
            return Err(no_column(&option, "the gallery", columns_of(gallery)));
        }
        let n_before = all.len();
        for column in there {
            // A query of several images leaves out what each of them leaves out.
            let n_images = asked.iter().map(|query| query.others.len()).max();
            for image_idx in 0..n_images.unwrap_or(0).max(1) {
                let value = |query: &ReadyQuery| match query.others.get(image_idx) {
                    Some(other) => other.value(gallery, column),
                    None if image_idx == 0 => query.value(gallery, column),
                    None => Ok(String::new()),
                };
                let values = asked.iter().map(value).collect::<anyhow::Result<_>>()?;
                all.push(LeftOut {
                    column: column.to_owned(),
                    values,
                });
            }
        }
        for (idx, query) in asked.iter().enumerate() {
            if all[n_before..]
                .iter()
                .all(|left_out| left_out.values[idx].is_empty())
            {
                watch.note(&format!(
                    "--exclude {name}: nothing is left out for {}, of which it is not known",
                    query.name
                ));
            }
        }
    }
    Ok(all)
}

/// Returns the columns in which a hit must differ from its query.
fn excluded_columns<'a>(name: &'a str, gallery: &dyn Collection) -> Vec<&'a str> {
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

/// Notes where patients could not be excluded because identifiers of different origins are not compared. A query whose
/// patient is not known has its note already.
fn note_uncompared(ask: &Ask, answers: &[Answer], watch: &dyn Watch) {
    if !ask.exclude.iter().any(|name| name == "same_patient") {
        return;
    }
    for answer in answers.iter().filter(|answer| answer.has_patient) {
        let is_unknown = |hit: &&Hit| hit.relation == Relation::Unknown;
        let n_unknown = answer.hits.iter().filter(is_unknown).count();
        if n_unknown > 0 {
            watch.note(&format!(
                "--exclude same_patient could not be applied to {n_unknown} of {} of {}: whether it is the same \
                 patient is not known (identifiers of headers and of manifests are not compared)",
                counted(answer.hits.len() as u64, "hit", "hits"),
                answer.query
            ));
        }
    }
}

fn answer(
    ask: &Ask,
    gallery: &dyn Collection,
    asked: Vec<ReadyQuery>,
    watch: &dyn Watch,
) -> anyhow::Result<Vec<Answer>> {
    let vectors: Vec<f32> = asked
        .iter()
        .flat_map(|query| query.vector.iter().copied())
        .collect();
    let own: Vec<Vec<RowId>> = asked.iter().map(|query| query.own.clone()).collect();
    let left_out = left_out(ask, gallery, &asked, watch)?;
    let of_views = |query: &ReadyQuery| {
        let views = query.views.iter().flat_map(|(_, vector)| vector);
        views.copied().collect()
    };
    let further: Vec<Vec<f32>> = asked.iter().map(of_views).collect();
    let queries = m3ret_search::Queries {
        vectors: &vectors,
        own: &own,
        left_out: &left_out,
        further: &further,
    };
    let asked_options = options(ask, gallery);
    let options = with_hashes(gallery, asked_options.clone());
    let images: Vec<AskedImage<'_>> = asked.iter().map(ReadyQuery::asked).collect();
    let found = search_across(gallery, queries, &images, &options);
    let found = found.map_err(|error| explain(error, gallery, &asked_options, &options))?;
    let agree = ask.agree.as_deref().map(|name| column_of(gallery, name));
    let known = match ask.exclude.iter().all(|name| name.starts_with("same_")) {
        true => Known::of(gallery, agree, &asked_options)?,
        // What hits must differ in was not measured.
        false => Known::default(),
    };
    let views = gallery.views();
    // The cells of all hits are read together, as each reading may cost a way to another machine.
    let rows: Vec<RowId> = found.iter().flatten().map(|hit| hit.row).collect();
    let mut cells = RowCells::of_rows(gallery, &rows)?.into_iter();
    let mut ids = gallery.ids(&rows)?.into_iter();
    let mut answers = Vec::with_capacity(asked.len());
    for (query_row, (query, row_hits)) in asked.into_iter().zip(&found).enumerate() {
        let told = row_hits.iter().zip(cells.by_ref()).zip(ids.by_ref());
        let hits = told.enumerate().map(|(idx, ((row_hit, cells), id))| Hit {
            rank: idx + 1,
            id: id.into_owned(),
            ..hit_of(&query, row_hit, &cells, &views)
        });
        let mut hits: Vec<Hit> = hits.collect();
        let modality = query.labels.modality.as_deref().unwrap_or_default();
        answers.push(Answer {
            query_row,
            agreement: known
                .agreement(modality, &hits)
                .filter(|_| !query.is_composed),
            hits: {
                hits.retain(|hit| ask.min_score.is_none_or(|least| hit.score >= least));
                hits.truncate(ask.k.saturating_add(ask.offset));
                hits.split_off(ask.offset.min(hits.len()))
            },
            has_patient: query.has_patient(),
            query: query.name,
            part: query.part,
            labels: query.labels,
            file: query.file,
            image: query.image,
        });
    }
    Ok(answers)
}

/// Builds a hit from the cells of its row; the caller sets rank and id.
fn hit_of(query: &ReadyQuery, hit: &RowHit, cells: &RowCells<'_>, views: &[&str]) -> Hit {
    let of_row = hit.view.and_then(|view| views.get(view.0 as usize));
    let of_query = hit
        .query_vector
        .and_then(|view| query.views.get(view as usize));
    Hit {
        rank: 0,
        id: String::new(),
        root: cells.root().to_owned(),
        path: cells.get(columns::PATH).to_owned(),
        part: cells.part().map(str::to_owned),
        file: text_of(&cells.file()),
        score: hit.score,
        view: of_row.map(|name| (*name).to_owned()),
        query_view: of_query.map(|(name, _)| name.clone()),
        relation: Relation::of(query, &Pseudonyms::of(cells), cells.pixels()),
        labels: Labels::of(cells),
        row: hit.row,
    }
}
