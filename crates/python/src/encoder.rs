//! An open model.

use std::path::PathBuf;
use std::sync::Arc;

use m3ret::embed::{EmbeddedImage, embed_sources, precision_name};
use m3ret::images::ImageSource;
use m3ret::model_name;
use m3ret_encoder::Model;
use numpy::{PyArray1, PyArray2, PyArray4, PyArrayMethods as _};
use pyo3::prelude::*;

use crate::images::{Source, Volume};
use crate::reading::{FolderArguments, ModelArguments, ReadingArguments};
use crate::work::Run;

/// A model that turns images into unit vectors.
#[pyclass(frozen, module = "m3ret._m3ret")]
pub(crate) struct Encoder {
    model: Arc<Model>,
    /// The folder of its files; `None` for a model that is part of the package.
    folder: Option<PathBuf>,
}

/// One image of a result: place of its source, path, part, reason code and sentence of a refusal.
type ImageRow = (
    usize,
    String,
    Option<String>,
    Option<(&'static str, String)>,
);

#[pymethods]
impl Encoder {
    #[new]
    fn open(
        py: Python<'_>,
        model: ModelArguments,
        threads: Option<usize>,
        watch: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let choice = model.choice(py)?;
        let run = Run {
            watch: watch.as_ref(),
            n_threads: threads,
        };
        let folder = model_name::folder_of(&choice);
        let model = run.go(py, move |watch| model_name::open_model(&choice, watch))?;
        Ok(Self {
            model: Arc::new(model),
            folder,
        })
    }

    #[getter]
    fn name(&self) -> &str {
        self.model.name()
    }

    #[getter]
    fn fingerprint(&self) -> &str {
        self.model.fingerprint()
    }

    #[getter]
    fn width(&self) -> usize {
        self.model.width()
    }

    #[getter]
    fn precision(&self) -> &'static str {
        precision_name(self.model.precision())
    }

    #[getter]
    fn folder(&self) -> Option<PathBuf> {
        self.folder.clone()
    }

    /// Returns the network's inputs of an image, float32 [C, D, H, W] each.
    fn prepare<'py>(
        &self,
        py: Python<'py>,
        volume: PyRef<'py, Volume>,
    ) -> PyResult<Vec<Bound<'py, PyArray4<f32>>>> {
        let (model, volume) = (Arc::clone(&self.model), Arc::clone(&volume.volume));
        let run = Run::default();
        let prepared = run.go(py, move |_| Ok(model.prepare(&volume)?))?;
        let arrays = prepared.inputs().iter().map(|input| {
            let values = PyArray1::from_slice(py, input.values());
            values.reshape(input.shape())
        });
        arrays.collect()
    }

    /// Embeds sources; returns the vectors of images that have one, and a row for every image.
    fn embed<'py>(
        &self,
        py: Python<'py>,
        sources: Vec<Source<'py>>,
        reading: ReadingArguments,
        folder: FolderArguments,
        watch: Option<Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyArray2<f32>>, Vec<ImageRow>)> {
        let sources: Vec<ImageSource> = sources.into_iter().map(Source::source).collect();
        let (options, folder) = (reading.reading(py)?, folder.choice(py)?);
        let run = Run {
            watch: watch.as_ref(),
            n_threads: reading.threads(),
        };
        let model = Arc::clone(&self.model);
        let (values, rows) = run.go(py, move |watch| {
            let images = embed_sources(&sources, &model, &options, &folder, watch)?;
            Ok(parted(images, model.width()))
        })?;
        let n_vectors = values.len() / self.model.width();
        let vectors = PyArray1::from_vec(py, values).reshape([n_vectors, self.model.width()])?;
        Ok((vectors, rows))
    }
}

/// Puts vectors side by side, and tells what became of each image.
fn parted(images: Vec<EmbeddedImage>, width: usize) -> (Vec<f32>, Vec<ImageRow>) {
    let mut values = Vec::with_capacity(images.len() * width);
    let mut rows = Vec::with_capacity(images.len());
    for image in images {
        let refusal = match image.outcome {
            Ok(vector) => {
                values.extend(vector);
                None
            }
            Err(refusal) => Some(refusal),
        };
        rows.push((image.source_idx, image.path, image.part, refusal));
    }
    (values, rows)
}
