//! Images of Python: volumes, bytes and paths.

use std::path::PathBuf;
use std::sync::Arc;

use m3ret::images::{ImageSource, MemoryContent, MemoryImage};
use m3ret::watch::{Stopped, Watch};
use m3ret_imaging::archive::{find_objects, read_object};
use m3ret_imaging::{Affine, Code, Kind, ReadOptions, canonicalise, read_bytes, thumbnail};
use numpy::{PyArray1, PyArray4, PyArrayMethods as _};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::{self, Class};
use crate::reading::ReadingArguments;
use crate::work::Run;

/// One image: numbers with what is known of them.
#[pyclass(frozen, module = "m3ret._m3ret")]
pub(crate) struct Volume {
    pub(crate) volume: Arc<m3ret_imaging::Volume>,
    /// The file that it was read from.
    pub(crate) file: Option<PathBuf>,
}

#[pymethods]
impl Volume {
    /// Copies the values: float32 [C, D, H, W].
    fn values<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray4<f32>>> {
        let values = PyArray1::from_slice(py, self.volume.values());
        values.reshape(self.volume.shape())
    }

    #[getter]
    fn shape(&self) -> [usize; 4] {
        self.volume.shape()
    }

    #[getter]
    fn spacing(&self) -> [Option<f64>; 3] {
        self.volume.spacing
    }

    /// Returns the rows of the 3 x 4 affine.
    fn affine_rows(&self) -> Option<[[f64; 4]; 3]> {
        self.volume.affine.map(|affine| affine.rows)
    }

    #[getter]
    fn kind(&self) -> &'static str {
        match self.volume.kind {
            Kind::Image => "image",
            Kind::Video => "video",
            Kind::Volume => "volume",
        }
    }

    #[getter]
    fn modality(&self) -> Option<&str> {
        self.volume.modality.as_deref()
    }

    #[getter]
    fn body_part(&self) -> Option<&str> {
        self.volume.body_part.as_deref()
    }

    #[getter]
    fn unit(&self) -> Option<&'static str> {
        self.volume.unit
    }

    #[getter]
    fn inverted(&self) -> bool {
        self.volume.inverted
    }

    #[getter]
    fn part(&self) -> Option<&str> {
        self.volume.part.as_deref()
    }

    #[getter]
    fn file(&self) -> Option<PathBuf> {
        self.file.clone()
    }

    /// Returns code, severity and detail of everything unusual.
    #[getter]
    fn reasons(&self) -> Vec<(&'static str, String)> {
        let reasons = self.volume.reasons.iter();
        let told = reasons.map(|reason| (reason.code.as_str(), reason.detail.clone()));
        told.collect()
    }

    /// Returns a picture for people as PNG.
    fn png<'py>(&self, py: Python<'py>, side_px: usize) -> PyResult<Bound<'py, PyBytes>> {
        let volume = Arc::clone(&self.volume);
        let run = Run::default();
        let png = run.go(py, move |_| {
            Ok(thumbnail(&volume, side_px.clamp(1, 4096)).png()?)
        })?;
        Ok(PyBytes::new(py, &png))
    }
}

/// What a caller says of an array, which states nothing but its numbers.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct ArrayFacts {
    spacing: Option<[Option<f64>; 3]>,
    affine: Option<[[f64; 4]; 3]>,
    modality: Option<String>,
    unit: Option<String>,
    kind: Option<String>,
    inverted: bool,
}

/// Makes an image of the bytes of a `.npy` file and what is known of it.
#[pyfunction]
pub(crate) fn volume_of_array(
    py: Python<'_>,
    npy: &[u8],
    facts: ArrayFacts,
    reading: ReadingArguments,
) -> PyResult<Volume> {
    let options = reading.options(py)?;
    let run = Run::default();
    let (affine, unit) = (facts.affine.map(|rows| Affine { rows }), facts.unit);
    let unit = match unit.as_deref() {
        None => None,
        Some("HU") => Some("HU"),
        Some(_) => {
            let sentence = "unit: found another word, wanted \"HU\" or None".to_owned();
            return Err(errors::exception(py, Class::Mismatch, sentence));
        }
    };
    let kind = match facts.kind.as_deref() {
        None => None,
        Some("image") => Some(Kind::Image),
        Some("volume") => Some(Kind::Volume),
        Some("video") => Some(Kind::Video),
        Some(_) => {
            let sentence = "kind: found another word, wanted \"image\", \"volume\" or \"video\"";
            return Err(errors::exception(py, Class::Mismatch, sentence.to_owned()));
        }
    };
    let volume = run.go(py, move |_| {
        let mut volume = one(read_bytes(npy, &options)?)?;
        volume.modality = facts.modality;
        volume.unit = unit;
        volume.inverted = facts.inverted;
        if let Some(kind) = kind {
            volume.kind = kind;
        }
        if let Some(affine) = affine {
            volume.affine = Some(affine);
            volume.spacing = affine.spacing_mm().map(Some);
        }
        if let Some(spacing) = facts.spacing {
            volume.spacing = spacing;
        }
        if volume.spacing.iter().skip(1).all(Option::is_some) {
            volume
                .reasons
                .retain(|reason| reason.code != Code::SpacingUnknown);
        }
        if volume.affine.is_some() || volume.kind == Kind::Video {
            volume
                .reasons
                .retain(|reason| reason.code != Code::StackAxisUnknown);
        }
        Ok(canonicalise(volume)?)
    })?;
    Ok(Volume {
        volume: Arc::new(volume),
        file: None,
    })
}

/// Returns the only image of an array.
fn one(mut volumes: Vec<m3ret_imaging::Volume>) -> m3ret_imaging::Result<m3ret_imaging::Volume> {
    match (volumes.pop(), volumes.len()) {
        (Some(volume), 0) => Ok(volume),
        (_, n_others) => Err(m3ret_imaging::Error::Mismatch {
            what: "images of an array",
            expected: "1".to_owned(),
            got: (n_others + 1).to_string(),
        }),
    }
}

/// Reads every image of a file or folder.
#[pyfunction]
pub(crate) fn read_path(
    py: Python<'_>,
    path: PathBuf,
    reading: ReadingArguments,
) -> PyResult<Vec<Volume>> {
    let options = reading.options(py)?;
    let run = Run::default();
    let place = path.clone();
    let volumes = run.go(py, move |watch| read_all(&place, &options, watch))?;
    let with_file = |volume| Volume {
        volume: Arc::new(volume),
        file: Some(path.clone()),
    };
    Ok(volumes.into_iter().map(with_file).collect())
}

fn read_all(
    path: &std::path::Path,
    options: &ReadOptions,
    watch: &dyn Watch,
) -> m3ret::Result<Vec<m3ret_imaging::Volume>> {
    let (objects, mut skipped) = find_objects(path, options)?;
    if objects.is_empty() && !skipped.is_empty() {
        return Err(skipped.swap_remove(0).error.into());
    }
    let mut volumes = Vec::new();
    for object in &objects {
        Stopped::check(watch, "interrupted; nothing is returned")?;
        for mut volume in read_object(object, options)? {
            volume.part = object.name_of(&volume);
            volumes.push(volume);
        }
    }
    Ok(volumes)
}

/// An image in memory, ready to be embedded or searched with.
#[pyclass(frozen, module = "m3ret._m3ret")]
pub(crate) struct Image(pub(crate) Arc<MemoryImage>);

#[pymethods]
impl Image {
    /// Takes the bytes of a file, or of the files of one DICOM series.
    #[staticmethod]
    fn of_files(name: String, files: Vec<Vec<u8>>) -> Self {
        let content = MemoryContent::Files(files);
        Self(Arc::new(MemoryImage {
            name,
            file: None,
            content,
        }))
    }

    /// Takes images that were read.
    #[staticmethod]
    fn of_volumes(name: String, volumes: Vec<PyRef<'_, Volume>>) -> Self {
        let file = volumes.first().and_then(|volume| volume.file.clone());
        let volumes = volumes.iter().map(|volume| Arc::clone(&volume.volume));
        Self(Arc::new(MemoryImage {
            name,
            file,
            content: MemoryContent::Volumes(volumes.collect()),
        }))
    }

    /// Reads the images.
    fn volumes(&self, py: Python<'_>, reading: ReadingArguments) -> PyResult<Vec<Volume>> {
        let options = reading.options(py)?;
        let image = Arc::clone(&self.0);
        let run = Run::default();
        let volumes = run.go(py, move |_| Ok(image.volumes(&options)?))?;
        let whole = |volume| Volume { volume, file: None };
        Ok(volumes.into_iter().map(whole).collect())
    }
}

/// A source as Python gives it.
#[derive(FromPyObject)]
pub(crate) enum Source<'py> {
    Image(PyRef<'py, Image>),
    Path(PathBuf),
}

impl Source<'_> {
    pub(crate) fn source(self) -> ImageSource {
        match self {
            Self::Image(image) => ImageSource::Memory(Arc::clone(&image.0)),
            Self::Path(path) => ImageSource::Path(path),
        }
    }
}
