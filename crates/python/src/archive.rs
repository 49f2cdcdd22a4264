//! An archive of images that is searched.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use m3ret::files::{check_page, write_whole};
use m3ret::galleries::{self, OpenOptions};
use m3ret::search::{Answer, Ask, DEFAULT_HANDICAP, Hit, Queries, Recall, Views, page};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::{self, Class};
use crate::images::Source;
use crate::json::to_json;
use crate::reading::{FolderArguments, ModelArguments, ReadingArguments, filters};
use crate::work::Run;

/// A folder, manifest or gallery of images, ready to be searched.
#[pyclass(frozen, module = "m3ret._m3ret")]
pub(crate) struct Archive {
    archive: Arc<galleries::Archive>,
    place: PathBuf,
    n_threads: Option<usize>,
}

/// Answers of one search, with what is needed to explain them.
#[pyclass(frozen, module = "m3ret._m3ret")]
pub(crate) struct Answers {
    answers: Vec<Answer>,
    refused: Vec<(String, String)>,
    ask: Ask,
    archive: Arc<galleries::Archive>,
    n_threads: Option<usize>,
}

/// Path, part, reason code and sentence of an image that was refused.
type RefusedRow = (String, Option<String>, String, String);

/// How an archive is searched, as Python says it.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct AskArguments {
    k: usize,
    filter: Vec<String>,
    exclude: Vec<String>,
    group_by: Option<String>,
    exact: bool,
    agree: Option<String>,
    offset: usize,
    min_score: Option<f32>,
    whole: bool,
    handicap: Option<f32>,
}

impl AskArguments {
    fn ask(self, py: Python<'_>) -> PyResult<Ask> {
        Ok(Ask {
            k: self.k,
            filters: filters(py, &self.filter)?,
            exclude: self.exclude,
            group_by: self.group_by,
            recall: self.exact.then_some(Recall::ALL),
            agree: self.agree,
            offset: self.offset,
            min_score: self.min_score,
            views: match self.whole {
                true => Views::Own,
                false => Views::Projections {
                    handicap: self.handicap.unwrap_or(DEFAULT_HANDICAP),
                },
            },
        })
    }
}

/// How an archive is opened, as Python says it.
pub(crate) fn opening(
    py: Python<'_>,
    cache: Option<PathBuf>,
    model: &ModelArguments,
    reading: &ReadingArguments,
    folder: &FolderArguments,
) -> PyResult<OpenOptions> {
    Ok(OpenOptions {
        cache,
        model: model.choice(py)?,
        reading: reading.reading(py)?,
        folder: folder.choice(py)?,
        ..OpenOptions::default()
    })
}

impl Archive {
    /// Opens an archive.
    pub(crate) fn opened(
        py: Python<'_>,
        place: PathBuf,
        options: OpenOptions,
        n_threads: Option<usize>,
        watch: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let run = Run { watch, n_threads };
        let path = place.clone();
        let archive = run.go(py, move |watch| {
            galleries::Archive::open(&path, &options, watch)
        })?;
        Ok(Self {
            archive: Arc::new(archive),
            place,
            n_threads,
        })
    }
}

#[pymethods]
impl Archive {
    #[new]
    fn open(
        py: Python<'_>,
        place: PathBuf,
        cache: Option<PathBuf>,
        model: ModelArguments,
        reading: ReadingArguments,
        folder: FolderArguments,
        watch: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let options = opening(py, cache, &model, &reading, &folder)?;
        Self::opened(py, place, options, reading.threads(), watch.as_ref())
    }

    #[getter]
    fn place(&self) -> PathBuf {
        self.place.clone()
    }

    /// Returns number of images, width, columns, model, fingerprint and precision.
    fn description(&self) -> (usize, usize, Vec<String>, String, String, String) {
        let gallery = self.archive.gallery.as_ref();
        let maker = gallery.maker().clone();
        let columns = gallery.columns().into_iter().map(str::to_owned).collect();
        (
            gallery.len(),
            gallery.width(),
            columns,
            maker.model,
            maker.fingerprint,
            maker.precision,
        )
    }

    /// Returns path, part, reason code and sentence of every image that was refused when the archive was opened.
    fn refused(&self) -> Vec<RefusedRow> {
        let refused = self.archive.updated.refused.iter().map(|image| {
            let message = image.message.clone();
            (
                image.path.clone(),
                image.part.clone(),
                image.reason.clone(),
                message,
            )
        });
        refused.collect()
    }

    fn ask(
        &self,
        py: Python<'_>,
        queries: Vec<Source<'_>>,
        arguments: AskArguments,
        watch: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Answers> {
        let queries = Queries::Sources(queries.into_iter().map(Source::source).collect());
        let ask = arguments.ask(py)?;
        let run = Run {
            watch: watch.as_ref(),
            n_threads: self.n_threads,
        };
        let found = run.go(py, |watch| self.archive.ask(&queries, &ask, watch))?;
        let refused = found.refused.into_iter();
        let refused =
            refused.map(|query| (query.path.to_string_lossy().into_owned(), query.message));
        Ok(Answers {
            answers: found.answers,
            refused: refused.collect(),
            ask,
            archive: Arc::clone(&self.archive),
            n_threads: self.n_threads,
        })
    }

    /// Returns pairs of images that may be one, as JSON.
    fn duplicates(
        &self,
        py: Python<'_>,
        near: f32,
        watch: Option<Bound<'_, PyAny>>,
    ) -> PyResult<String> {
        let run = Run {
            watch: watch.as_ref(),
            n_threads: self.n_threads,
        };
        let pairs = run.go(py, |watch| self.archive.duplicates(near, watch))?;
        to_json(py, &pairs)
    }
}

impl Answers {
    fn quiet(&self) -> Run<'static> {
        Run {
            n_threads: self.n_threads,
            ..Run::default()
        }
    }

    fn answer(&self, py: Python<'_>, idx: usize) -> PyResult<&Answer> {
        self.answers.get(idx).ok_or_else(|| {
            let n = self.answers.len();
            let sentence = format!("answer {idx} (from 0) was asked for, and there are {n}");
            errors::exception(py, Class::Mismatch, sentence)
        })
    }
}

#[pymethods]
impl Answers {
    fn __len__(&self) -> usize {
        self.answers.len()
    }

    /// Returns path and sentence of queries that could not be read.
    #[getter]
    fn refused(&self) -> Vec<(String, String)> {
        self.refused.clone()
    }

    /// Returns all answers as JSON, each as `m3ret search --json` prints it.
    fn json(&self, py: Python<'_>) -> PyResult<String> {
        to_json(py, &self.answers)
    }

    /// Returns the scores of an answer.
    fn scores(&self, py: Python<'_>, idx: usize) -> PyResult<Vec<f32>> {
        let hits = self.answer(py, idx)?.hits.iter();
        Ok(hits.map(|hit| hit.score).collect())
    }

    /// Says why a hit matches, as JSON; `None` for a model without patches.
    fn explain(&self, py: Python<'_>, idx: usize, hit_idx: usize) -> PyResult<Option<String>> {
        let answer = self.answer(py, idx)?;
        let explained = self
            .quiet()
            .go(py, |_| self.archive.explain(answer, hit_idx));
        let why = explained?;
        why.map(|why| to_json(py, &why)).transpose()
    }

    /// Returns a picture of a hit as PNG, or of the query without a hit; `None` if it cannot be read.
    fn picture<'py>(
        &self,
        py: Python<'py>,
        idx: usize,
        hit_idx: Option<usize>,
        side_px: usize,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let answer = self.answer(py, idx)?;
        let side_px = side_px.clamp(1, 1024);
        let drawn = self
            .quiet()
            .go(py, |_| Ok(self.archive.picture(answer, hit_idx, side_px)));
        let png = drawn?;
        Ok(png.map(|png| PyBytes::new(py, &png)))
    }

    /// Returns the report of the search as a page.
    fn page(
        &self,
        py: Python<'_>,
        place: Option<PathBuf>,
        force: bool,
        watch: Option<Bound<'_, PyAny>>,
    ) -> PyResult<String> {
        let run = Run {
            watch: watch.as_ref(),
            n_threads: self.n_threads,
        };
        let archive = self.archive.as_ref();
        run.go(py, |watch| {
            if let Some(place) = &place {
                let asked = self.answers.iter().filter_map(|answer| answer.file.clone());
                let hits = self.answers.iter().flat_map(|answer| &answer.hits);
                let found = hits.map(Hit::place);
                let inputs: Vec<PathBuf> = asked.chain(found).collect();
                let inputs = inputs.iter().map(PathBuf::as_path);
                let inputs = std::iter::once(archive.place.as_path()).chain(inputs);
                check_page(place, force, &inputs.collect::<Vec<_>>())?;
            }
            archive.open_model(watch)?;
            let html = page(archive, &self.ask, &self.answers)?;
            if let Some(place) = &place {
                write_whole(place, |file| Ok(file.write_all(html.as_bytes())?))?;
            }
            Ok(html)
        })
    }
}
