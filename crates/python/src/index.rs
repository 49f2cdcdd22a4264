//! Galleries of plain vectors.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use m3ret::index::{self, PlainRows, StoredColumn, put_plain};
use m3ret::watch::{Stopped, Watch};
use m3ret_search::{
    Filter, Gallery, LeftOut, Maker, Method, Numbers, Queries, RowHit, SearchOptions, verify,
};
use numpy::{
    PyArray1, PyArray2, PyArrayMethods as _, PyReadonlyArray2, PyUntypedArrayMethods as _,
};
use pyo3::prelude::*;

use crate::errors::{self, Class};
use crate::json::to_json;
use crate::work::Run;

/// Queries that are searched before signals are looked at.
const CHUNK_QUERIES: usize = 256;

/// A gallery of unit vectors with ids and columns, in a folder.
#[pyclass(frozen, module = "m3ret._m3ret")]
pub(crate) struct Index {
    path: PathBuf,
    gallery: RwLock<Arc<Gallery>>,
}

/// Rows as Python gives them.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Rows<'py> {
    vectors: PyReadonlyArray2<'py, f32>,
    ids: Vec<String>,
    columns: Vec<(String, Vec<String>)>,
    model: String,
    fingerprint: String,
    precision: String,
}

/// What is looked for, as Python gives it.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct SearchArguments {
    k: usize,
    filter: Vec<String>,
    /// Columns in which a hit must differ from its query, with a value for each query.
    exclude: Vec<(String, Vec<String>)>,
    group_by: Option<String>,
    exact: bool,
    threads: Option<usize>,
}

/// Scores [queries, k], ids of each query.
type Found<'py> = (Bound<'py, PyArray2<f32>>, Vec<Vec<String>>);

impl Index {
    fn gallery(&self) -> Arc<Gallery> {
        Arc::clone(&self.gallery.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs a change of the files, then opens their new state.
    fn change<T: Send>(
        &self,
        py: Python<'_>,
        watch: Option<&Bound<'_, PyAny>>,
        change: impl FnOnce(&std::path::Path, &dyn Watch) -> m3ret::Result<T> + Send,
    ) -> PyResult<T> {
        let run = Run {
            watch,
            ..Run::default()
        };
        let path = self.path.clone();
        let (outcome, gallery) = run.go(py, move |watch| {
            let outcome = change(&path, watch)?;
            Ok((outcome, Gallery::open(&path)?))
        })?;
        *self.gallery.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(gallery);
        Ok(outcome)
    }
}

#[pymethods]
impl Index {
    #[new]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let run = Run::default();
        let place = path.clone();
        let gallery = run.go(py, move |_| Ok(Gallery::open(&place)?))?;
        Ok(Self {
            path,
            gallery: RwLock::new(Arc::new(gallery)),
        })
    }

    /// Makes a gallery.
    #[staticmethod]
    fn build(
        py: Python<'_>,
        path: PathBuf,
        rows: Rows<'_>,
        numbers: &str,
        watch: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let numbers = match numbers {
            "f16" => Numbers::F16,
            "f32" => Numbers::F32,
            _ => {
                let sentence = "numbers: found another word, wanted \"f16\" or \"f32\"".to_owned();
                return Err(errors::exception(py, Class::Mismatch, sentence));
            }
        };
        put(py, &path, &rows, Some(numbers), watch.as_ref())?;
        Self::open(py, path)
    }

    /// Adds rows.
    fn add(&self, py: Python<'_>, rows: Rows<'_>, watch: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        put(py, &self.path, &rows, None, watch.as_ref())?;
        self.change(py, None, |_, _| Ok(()))
    }

    fn remove(&self, py: Python<'_>, ids: Vec<String>) -> PyResult<usize> {
        self.change(py, None, move |path, _| index::remove(path, &ids))
    }

    fn compact(&self, py: Python<'_>, watch: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        self.change(py, watch.as_ref(), |path, watch| {
            index::compact(path, watch).map(drop)
        })
    }

    /// Reads every byte; returns findings, each with whether it is harmless.
    fn verify(&self, py: Python<'_>) -> PyResult<(bool, usize, u64, Vec<String>)> {
        let run = Run::default();
        let path = self.path.clone();
        let report = run.go(py, move |_| Ok(verify(&path)?))?;
        let findings = report.findings.iter();
        let findings = findings.map(|finding| format!("{}: {}", finding.file, finding.what));
        let findings = findings.collect();
        Ok((report.is_good(), report.n_rows, report.n_bytes, findings))
    }

    /// Describes the gallery as `m3ret index stats --json` does.
    fn stats(&self, py: Python<'_>) -> PyResult<String> {
        let run = Run::default();
        let path = self.path.clone();
        let stats = run.go(py, move |_| index::stats(&path))?;
        to_json(py, &stats)
    }

    fn __len__(&self) -> usize {
        self.gallery().len()
    }

    #[getter]
    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    #[getter]
    fn width(&self) -> usize {
        self.gallery().width()
    }

    #[getter]
    fn columns(&self) -> Vec<String> {
        let gallery = self.gallery();
        gallery.columns().into_iter().map(str::to_owned).collect()
    }

    #[getter]
    fn fingerprint(&self) -> String {
        self.gallery().maker().fingerprint.clone()
    }

    #[getter]
    fn model(&self) -> String {
        self.gallery().maker().model.clone()
    }

    /// Returns ids and vectors of all rows, as they are stored.
    fn rows<'py>(&self, py: Python<'py>) -> PyResult<(Vec<String>, Bound<'py, PyArray2<f32>>)> {
        let gallery = self.gallery();
        let run = Run::default();
        let width = gallery.width();
        let (ids, values) = run.go(py, move |_| {
            let (mut ids, mut values) = (Vec::new(), Vec::new());
            for row in gallery.rows() {
                ids.push(gallery.id(row)?.to_owned());
                values.extend(gallery.vector(row)?);
            }
            Ok((ids, values))
        })?;
        let shape = [ids.len(), width];
        Ok((ids, PyArray1::from_vec(py, values).reshape(shape)?))
    }

    /// Returns the cells of a column for ids; empty where nothing is known.
    fn cells(&self, py: Python<'_>, ids: Vec<String>, column: String) -> PyResult<Vec<String>> {
        let gallery = self.gallery();
        let run = Run::default();
        run.go(py, move |_| {
            let column = StoredColumn::of(&column)?.name;
            let cell = |id: &String| match gallery.find(id)? {
                Some(row) => gallery.value(row, &column).map(str::to_owned),
                None => Ok(String::new()),
            };
            let cells: Result<Vec<String>, m3ret_search::Error> = ids.iter().map(cell).collect();
            Ok(cells?)
        })
    }

    /// Searches for vectors, [queries, width].
    fn search<'py>(
        &self,
        py: Python<'py>,
        queries: PyReadonlyArray2<'py, f32>,
        arguments: SearchArguments,
        watch: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Found<'py>> {
        let gallery = self.gallery();
        let [n_queries, width] = [queries.shape()[0], queries.shape()[1]];
        if width != gallery.width() {
            let sentence = format!(
                "queries: found {width} numbers a vector, wanted {}, the width of the index",
                gallery.width()
            );
            return Err(errors::exception(py, Class::Mismatch, sentence));
        }
        let run = Run {
            watch: watch.as_ref(),
            n_threads: arguments.threads,
        };
        let k = arguments.k;
        let values = queries.as_slice()?;
        let found = run.go(py, move |watch| search(&gallery, values, &arguments, watch))?;
        let mut scores = Vec::with_capacity(n_queries * k);
        let mut ids = Vec::with_capacity(n_queries);
        for hits in found {
            scores.extend(hits.iter().map(|(score, _)| *score));
            scores.resize((ids.len() + 1) * k, f32::NAN);
            ids.push(hits.into_iter().map(|(_, id)| id).collect());
        }
        let scores = PyArray1::from_vec(py, scores).reshape([n_queries, k])?;
        Ok((scores, ids))
    }
}

/// Writes rows: into a new gallery, if a number format is given.
fn put(
    py: Python<'_>,
    path: &std::path::Path,
    rows: &Rows<'_>,
    numbers: Option<Numbers>,
    watch: Option<&Bound<'_, PyAny>>,
) -> PyResult<usize> {
    let run = Run {
        watch,
        ..Run::default()
    };
    let maker = Maker {
        fingerprint: rows.fingerprint.clone(),
        model: rows.model.clone(),
        precision: rows.precision.clone(),
    };
    let rows = PlainRows {
        maker: &maker,
        vectors: rows.vectors.as_slice()?,
        width: rows.vectors.shape()[1],
        ids: &rows.ids,
        columns: &rows.columns,
    };
    let is_new = numbers.is_some();
    let numbers = numbers.unwrap_or(Numbers::F16);
    run.go(py, move |watch| {
        put_plain(path, rows, is_new, numbers, watch)
    })
}

fn search(
    gallery: &Gallery,
    values: &[f32],
    arguments: &SearchArguments,
    watch: &dyn Watch,
) -> m3ret::Result<Vec<Vec<(f32, String)>>> {
    let options = options(gallery, arguments)?;
    let exclude = arguments.exclude.iter().map(|(name, cells)| {
        let column = StoredColumn::of(name)?;
        let cells = cells.iter().map(|cell| column.cell(gallery, cell));
        let cells = cells.collect();
        Ok((column.name, cells))
    });
    let exclude: Vec<(String, Vec<String>)> = exclude.collect::<m3ret::Result<_>>()?;
    let n_queries = values.len() / gallery.width();
    watch.count(n_queries);
    let mut found = Vec::with_capacity(n_queries);
    for (chunk_idx, vectors) in values.chunks(CHUNK_QUERIES * gallery.width()).enumerate() {
        Stopped::check(watch, "interrupted; nothing is returned")?;
        let first = chunk_idx * CHUNK_QUERIES;
        let n_here = vectors.len() / gallery.width();
        let left_out: Vec<LeftOut> = exclude
            .iter()
            .map(|(column, cells)| LeftOut {
                column: column.clone(),
                values: cells
                    .get(first..first + n_here)
                    .unwrap_or_default()
                    .to_vec(),
            })
            .collect();
        let queries = Queries {
            vectors,
            left_out: &left_out,
            ..Queries::default()
        };
        for hits in gallery.search(queries, &options)? {
            let named = |hit: &RowHit| Ok((hit.score, gallery.id(hit.row)?.to_owned()));
            let hits: Result<Vec<(f32, String)>, m3ret_search::Error> =
                hits.iter().map(named).collect();
            found.push(hits?);
            watch.advance(0);
        }
    }
    Ok(found)
}

fn options(gallery: &Gallery, arguments: &SearchArguments) -> m3ret::Result<SearchOptions> {
    let mut filters: Vec<Filter> = Vec::new();
    for word in &arguments.filter {
        let asked: m3ret::options::ColumnValue =
            word.parse()
                .map_err(|sentence| m3ret_search::Error::Mismatch {
                    what: "filter".to_owned(),
                    expected: "COLUMN=VALUE or COLUMN!=VALUE".to_owned(),
                    got: sentence,
                })?;
        let column = StoredColumn::of(&asked.column)?;
        let value = column.cell(gallery, asked.value.trim());
        Filter::join(&mut filters, column.name, value, asked.is_negated);
    }
    let group_by = arguments.group_by.as_deref();
    let group_by = group_by.map(StoredColumn::of).transpose()?;
    Ok(SearchOptions {
        k: arguments.k,
        method: match arguments.exact {
            true => Method::Exact,
            false => Method::Auto,
        },
        filters,
        group_by: group_by.map(|column| column.name),
        ..SearchOptions::default()
    })
}
