//! Images in memory, which are embedded and searched with as files are.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use m3ret_imaging::archive::read_series_bytes;
use m3ret_imaging::{ReadOptions, Volume, read_bytes};

/// Where an image comes from.
#[derive(Debug, Clone)]
pub enum ImageSource {
    /// A file, a folder or a manifest.
    Path(PathBuf),
    /// An image in memory.
    Memory(Arc<MemoryImage>),
}

/// An image in memory.
#[derive(Clone, PartialEq)]
pub struct MemoryImage {
    /// What answers call it.
    pub name: String,
    /// The file that it was read from: an archive's image of this file is the same image. `None` if it was not read
    /// from a file, or is another image now.
    pub file: Option<PathBuf>,
    /// Its bytes or its values.
    pub content: MemoryContent,
}

/// What is in memory of an image.
#[derive(Clone, PartialEq)]
pub enum MemoryContent {
    /// The bytes of one file of any format, or those of each file of one DICOM series.
    Files(Vec<Vec<u8>>),
    /// Images that were read already: those of one file.
    Volumes(Vec<Arc<Volume>>),
}

impl fmt::Debug for MemoryImage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n_parts = match &self.content {
            MemoryContent::Files(files) => files.len(),
            MemoryContent::Volumes(volumes) => volumes.len(),
        };
        write!(formatter, "MemoryImage({:?}, {n_parts} parts)", self.name)
    }
}

impl MemoryImage {
    /// Reads every image.
    ///
    /// # Errors
    /// As `read_bytes` and `read_series_bytes` of `m3ret_imaging`.
    pub fn volumes(&self, options: &ReadOptions) -> m3ret_imaging::Result<Vec<Arc<Volume>>> {
        if let MemoryContent::Volumes(volumes) = &self.content {
            return Ok(volumes.clone());
        }
        let volumes = self.read(options)?.into_iter();
        Ok(volumes
            .map(|volume| Arc::new(volume.into_owned()))
            .collect())
    }

    /// Reads every image, without a copy of those that were read already.
    ///
    /// # Errors
    /// As `read_bytes` and `read_series_bytes` of `m3ret_imaging`.
    pub(crate) fn read(
        &self,
        options: &ReadOptions,
    ) -> m3ret_imaging::Result<Vec<Cow<'_, Volume>>> {
        let volumes = match &self.content {
            MemoryContent::Files(files) => match files.as_slice() {
                [file] => read_bytes(file, options)?,
                files => {
                    let files: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
                    read_series_bytes(&files, options)?
                }
            },
            MemoryContent::Volumes(volumes) => {
                let volumes = volumes.iter().map(|volume| Cow::Borrowed(&**volume));
                return Ok(volumes.collect());
            }
        };
        Ok(volumes.into_iter().map(Cow::Owned).collect())
    }

    /// Reads the image of a name, as `Volume::part` has it; without a name, the only one.
    ///
    /// # Errors
    /// A sentence if it cannot be read.
    pub(crate) fn read_part(
        &self,
        part: Option<&str>,
        options: &ReadOptions,
    ) -> Result<Volume, String> {
        let volumes = self.read(options).map_err(|error| error.to_string())?;
        let mut volumes = volumes.into_iter();
        let found = volumes.find(|volume| volume.part.as_deref() == part);
        let found = found.map(Cow::into_owned);
        found.ok_or_else(|| "the image in memory has no such part".to_owned())
    }
}
