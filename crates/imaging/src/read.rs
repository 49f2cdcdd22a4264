//! The entry: sniff the leading bytes (never the file name), pick a reader, apply `Limits`.

use std::fs::File;
use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::Path;

use crate::error::{Error, Result};
use crate::guess;
use crate::limits::Limits;
use crate::reason::Code;
use crate::volume::Volume;
use crate::{dicom, metaimage, nifti, npy, nrrd, raster, series, video};

/// Bytes that `sniff` wants to see, where the file has so many.
pub const SNIFF_BYTES: usize = 4096;

/// How to read.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReadOptions {
    /// What one object may cost.
    pub limits: Limits,
    /// Frames to sample, at uniform times, from a video or a DICOM cine. `None` reads every frame
    /// of a DICOM object and `DEFAULT_VIDEO_FRAMES` of a video file.
    pub n_frames: Option<usize>,
}

/// Frames read of a video file when `ReadOptions::n_frames` is `None`.
pub const DEFAULT_VIDEO_FRAMES: usize = 32;

/// A file format, told by content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// DICOM Part 10, or a bare data set.
    Dicom,
    /// NIfTI-1 or NIfTI-2, plain or gzip, single file or header of a pair.
    Nifti,
    /// NRRD, attached or detached.
    Nrrd,
    /// MetaImage, attached or detached.
    MetaImage,
    /// numpy array.
    Npy,
    /// PNG, JPEG, TIFF, WebP, BMP or GIF.
    Raster,
    /// A container that ffmpeg reads.
    Video,
}

/// Fetches a file that a detached header names, by the name in the header.
///
/// A leading `*` stands for the header's own file name without its extension: `*.img`.
/// Implementations refuse names that leave the header's own folder.
pub type Siblings<'a> = &'a dyn Fn(&str) -> Result<Vec<u8>>;

/// Takes one image of an object after the other; `Break` ends the reading.
pub type Visit<'a> = &'a mut dyn FnMut(Volume) -> ControlFlow<()>;

/// Tells the format from the first `SNIFF_BYTES` of a file, or `None`.
#[must_use]
pub fn sniff(head: &[u8]) -> Option<Format> {
    // DICOM's preamble may hold anything, another format's magic too (dual-personality TIFF).
    if head.get(128..132) == Some(b"DICM") {
        return Some(Format::Dicom);
    }
    if nifti::is_nifti(head) {
        Some(Format::Nifti)
    } else if nrrd::is_nrrd(head) {
        Some(Format::Nrrd)
    } else if head.starts_with(b"\x93NUMPY") {
        Some(Format::Npy)
    } else if raster::is_raster(head) {
        Some(Format::Raster)
    } else if video::is_video(head) {
        Some(Format::Video)
    } else if metaimage::is_metaimage(head) {
        Some(Format::MetaImage)
    } else if dicom::is_bare_data_set(head) {
        Some(Format::Dicom)
    } else {
        None
    }
}

/// Reads one file's bytes. Formats whose pixels lie in a second file are refused here.
///
/// # Errors
/// As `read_file`.
pub fn read_bytes(bytes: &[u8], options: &ReadOptions) -> Result<Vec<Volume>> {
    let refuse = |_: &str| {
        Err(Error::unsupported(
            "detached header",
            "reading from bytes alone",
            "pass the path",
        ))
    };
    read_with_siblings(bytes, &refuse, options)
}

/// Reads a file, or a folder that holds one DICOM series.
///
/// # Errors
/// As `read_file`; a folder with several objects is refused with their number.
pub fn read_path(path: &Path, options: &ReadOptions) -> Result<Vec<Volume>> {
    if path.is_dir() {
        series::read_folder(path, options)
    } else {
        read_file(path, options)
    }
}

/// Reads every image of one file: mostly one, several for 4D files.
///
/// # Errors
/// `Io` if the file cannot be opened, `Malformed`, `Unsupported`, `LimitExceeded` as readers find.
pub fn read_file(path: &Path, options: &ReadOptions) -> Result<Vec<Volume>> {
    let head = read_head(path)?;
    if sniff(&head) == Some(Format::Video) {
        return Ok(vec![with_guess(video::read_file(path, options)?)]);
    }
    let bytes = read_whole(path, &options.limits)?;
    read_with_siblings(&bytes, &siblings_of(path, &options.limits), options)
}

/// Fetches the files that a header names.
fn siblings_of(path: &Path, limits: &Limits) -> impl Fn(&str) -> Result<Vec<u8>> {
    let stem = stem(path);
    move |name: &str| match name.strip_prefix('*') {
        Some(end) => read_sibling(path, &format!("{stem}{end}"), limits),
        None => read_sibling(path, name, limits),
    }
}

/// Reads the images of one file and hands them over one by one.
///
/// A NIfTI file over time takes its stored bytes and one volume at a time, and `Limits::max_voxels`
/// bounds each volume alone; of other formats all images are read first.
///
/// # Errors
/// As `read_file`. Nothing was handed over then.
pub fn visit_file(path: &Path, options: &ReadOptions, visit: Visit<'_>) -> Result<()> {
    if sniff(&read_head(path)?) != Some(Format::Nifti) {
        let _ = read_file(path, options)?.into_iter().try_for_each(visit);
        return Ok(());
    }
    let bytes = read_whole(path, &options.limits)?;
    let siblings = siblings_of(path, &options.limits);
    nifti::visit(&bytes, &siblings, options, &mut |volume| {
        visit(with_guess(volume))
    })
}

/// Adds what the values suggest to an image of a format whose files need not state the modality.
fn with_guess(mut volume: Volume) -> Volume {
    volume.modality_guess = guess::modality(&volume);
    volume
}

/// Returns a path's file name without `.gz` and without its last extension.
fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    name.rsplit_once('.')
        .map_or(name, |(stem, _)| stem)
        .to_owned()
}

fn read_with_siblings(
    bytes: &[u8],
    siblings: Siblings<'_>,
    options: &ReadOptions,
) -> Result<Vec<Volume>> {
    let head = bytes.get(..SNIFF_BYTES).unwrap_or(bytes);
    let volumes = match sniff(head) {
        Some(Format::Dicom) => return dicom::read(bytes, options),
        Some(Format::Nifti) => nifti::read(bytes, siblings, options),
        Some(Format::Nrrd) => nrrd::read(bytes, siblings, options),
        Some(Format::MetaImage) => metaimage::read(bytes, siblings, options),
        Some(Format::Npy) => npy::read(bytes, options),
        Some(Format::Raster) => raster::read(bytes, options),
        Some(Format::Video) => Ok(vec![video::read_bytes(bytes, options)?]),
        None => Err(unknown_format(bytes)),
    }?;
    Ok(volumes.into_iter().map(with_guess).collect())
}

/// Says that the leading bytes are those of no image.
pub(crate) fn unknown_format(bytes: &[u8]) -> Error {
    let found = if bytes.is_empty() {
        "an empty file".to_owned()
    } else {
        "leading bytes of no known format".to_owned()
    };
    let wanted = "DICOM, NIfTI, NRRD, MetaImage, npy, PNG, JPEG, TIFF, WebP, BMP, GIF or a video";
    Error::refused("file", Code::UnknownFormat, found, wanted)
}

/// Reads the first `SNIFF_BYTES` of a file, or all of a shorter one.
///
/// # Errors
/// `Io`.
pub fn read_head(path: &Path) -> Result<Vec<u8>> {
    check_regular(path)?;
    let file = File::open(path).map_err(|e| Error::io("opening the file", e))?;
    let mut head = Vec::with_capacity(SNIFF_BYTES);
    file.take(SNIFF_BYTES as u64)
        .read_to_end(&mut head)
        .map_err(|e| Error::io("reading the file", e))?;
    Ok(head)
}

/// Reads a whole regular file, after its size was agreed.
///
/// # Errors
/// `Io`; `LimitExceeded` above `max_bytes`; `Mismatch` for pipes and devices, which have no size.
pub fn read_whole(path: &Path, limits: &Limits) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read_whole_into(&mut bytes, path, limits)?;
    Ok(bytes)
}

/// As `read_whole`, replacing what `bytes` held.
///
/// # Errors
/// As `read_whole`.
pub(crate) fn read_whole_into(bytes: &mut Vec<u8>, path: &Path, limits: &Limits) -> Result<()> {
    check_regular(path)?;
    let file = File::open(path).map_err(|e| Error::io("opening the file", e))?;
    let status = file
        .metadata()
        .map_err(|e| Error::io("asking for the file's size", e))?;
    let n_bytes = limits.bytes(status.len())?;
    bytes.clear();
    bytes.reserve_exact(n_bytes);
    // `take`: a file that grows while it is read stays within the limit.
    file.take(limits.max_bytes)
        .read_to_end(bytes)
        .map_err(|e| Error::io("reading the file", e))?;
    Ok(())
}

/// Refuses pipes and devices before they are opened: opening a pipe can wait for ever.
fn check_regular(path: &Path) -> Result<()> {
    let status = std::fs::metadata(path).map_err(|e| Error::io("opening the file", e))?;
    if status.is_file() {
        return Ok(());
    }
    Err(Error::Mismatch {
        what: "path",
        expected: "a regular file or a folder".into(),
        got: "neither".into(),
    })
}

/// Reads a file beside a header: a plain name, another file, and no link out of the folder.
fn read_sibling(header: &Path, name: &str, limits: &Limits) -> Result<Vec<u8>> {
    let folder = match header.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut parts = Path::new(name).components();
    let plain = matches!(
        (parts.next(), parts.next()),
        (Some(std::path::Component::Normal(_)), None)
    );
    if !plain {
        return Err(Error::refused(
            "detached header",
            Code::Malformed,
            "a data file outside the header's folder",
            "a plain file name beside the header",
        ));
    }
    let resolved = |path: &Path| {
        path.canonicalize()
            .map_err(|e| Error::io("finding the data file beside the header", e))
    };
    let data_file = resolved(&folder.join(name))?;
    if data_file.parent() != Some(&resolved(folder)?) || data_file == resolved(header)? {
        return Err(Error::refused(
            "detached header",
            Code::Malformed,
            "a data file that is the header itself or a link out of its folder",
            "another file in the header's folder",
        ));
    }
    read_whole(&data_file, limits)
}
