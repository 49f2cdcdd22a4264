//! The entry: sniff the leading bytes (never the file name), pick a reader, apply `Limits`.

use std::fs::File;
use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::error::{Error, Result};
use crate::foreign;
use crate::guess;
use crate::inflate::{gunzip, gunzip_prefix, is_gzip};
use crate::limits::Limits;
use crate::memory;
use crate::reason::Code;
use crate::store::Store;
use crate::volume::Volume;
use crate::zip;
use crate::{dicom, metaimage, mgh, nifti, npy, nrrd, raster, series, video};

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
    /// DICOM Part 10, or a bare data set, plain or gzip.
    Dicom,
    /// NIfTI-1 or NIfTI-2, plain or gzip, single file or header of a pair.
    Nifti,
    /// `FreeSurfer`'s volumes, plain or gzip.
    Mgh,
    /// NRRD, attached or detached.
    Nrrd,
    /// MetaImage, attached or detached.
    MetaImage,
    /// numpy array.
    Npy,
    /// PNG, JPEG, JPEG 2000, TIFF, WebP, BMP or GIF.
    Raster,
    /// A container that ffmpeg reads.
    Video,
    /// An archive of files; documents that are zip files inside are none.
    Zip,
}

/// Fetches a file that a detached header names, by the name in the header.
///
/// A leading `*` stands for the header's own file name without its extension: `*.img`.
/// Implementations refuse names that lead out of the header's own folder.
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
    if is_gzip(head) {
        let inner = gunzip_prefix(head, SNIFF_BYTES as u64);
        // The readers of these two want a file, not its bytes.
        return sniff_plain(&inner).filter(|f| !matches!(f, Format::Video | Format::Zip));
    }
    sniff_plain(head)
}

/// As `sniff`, for bytes that are not compressed.
fn sniff_plain(head: &[u8]) -> Option<Format> {
    if head.get(128..132) == Some(b"DICM") {
        Some(Format::Dicom)
    } else if nifti::is_nifti(head) {
        Some(Format::Nifti)
    } else if mgh::is_mgh(head) {
        Some(Format::Mgh)
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
    } else if zip::is_zip(head) && !foreign::is_document(head) {
        Some(Format::Zip)
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

/// Reads a file, or a folder or zip archive that holds one DICOM series or one file.
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
    match sniff(&read_head(path)?) {
        Some(Format::Video) => Ok(vec![with_guess(video::read_file(path, options)?)]),
        Some(Format::Zip) => series::read_folder(path, options),
        _ => read_stored(Store::Disk, path, options),
    }
}

/// Reads every image of one file of a store, with the files that it names.
///
/// # Errors
/// As `read_file`.
pub(crate) fn read_stored(
    store: Store<'_>,
    path: &Path,
    options: &ReadOptions,
) -> Result<Vec<Volume>> {
    let whole = whole_of(store, &options.limits);
    read_with_siblings(
        &whole(path)?,
        &siblings_of(store, path, &options.limits),
        options,
    )
}

fn whole_of(store: Store<'_>, limits: &Limits) -> impl Fn(&Path) -> Result<Vec<u8>> {
    move |path: &Path| {
        let mut bytes = Vec::new();
        store.whole_into(&mut bytes, path, limits)?;
        Ok(bytes)
    }
}

/// Fetches the files that a header names.
fn siblings_of(store: Store<'_>, path: &Path, limits: &Limits) -> impl Fn(&str) -> Result<Vec<u8>> {
    let whole = whole_of(store, limits);
    move |name: &str| whole(&sibling(store, path, name)?)
}

/// Finds a file that a header names, `*` for its own name.
pub(crate) fn sibling(store: Store<'_>, header: &Path, name: &str) -> Result<PathBuf> {
    match name.strip_prefix('*') {
        Some(end) => store.sibling(header, &format!("{}{end}", stem(header))),
        None => store.sibling(header, name),
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
    match sniff(&read_head(path)?) {
        Some(Format::Nifti) => visit_stored(Store::Disk, path, options, visit),
        _ => {
            let _ = read_file(path, options)?.into_iter().try_for_each(visit);
            Ok(())
        }
    }
}

/// As `visit_file`, for a file of a store.
///
/// # Errors
/// As `visit_file`.
pub(crate) fn visit_stored(
    store: Store<'_>,
    path: &Path,
    options: &ReadOptions,
    visit: Visit<'_>,
) -> Result<()> {
    if sniff(&store.head(path)?) != Some(Format::Nifti) {
        let volumes = read_stored(store, path, options)?;
        let _ = volumes.into_iter().try_for_each(visit);
        return Ok(());
    }
    let bytes = whole_of(store, &options.limits)(path)?;
    let siblings = siblings_of(store, path, &options.limits);
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
    let format = sniff(head);
    // These two decompress into the memory of their voxels.
    let reads_gzip = matches!(format, Some(Format::Nifti | Format::Mgh) | None);
    let decompressed;
    let bytes = if is_gzip(bytes) && !reads_gzip {
        decompressed = gunzip(bytes, &options.limits)?;
        &decompressed
    } else {
        bytes
    };
    let volumes = match format {
        Some(Format::Dicom) => return dicom::read(bytes, options),
        Some(Format::Nifti) => nifti::read(bytes, siblings, options),
        Some(Format::Mgh) => mgh::read(bytes, options),
        Some(Format::Nrrd) => nrrd::read(bytes, siblings, options),
        Some(Format::MetaImage) => metaimage::read(bytes, siblings, options),
        Some(Format::Npy) => npy::read(bytes, options),
        Some(Format::Raster) => raster::read(bytes, options),
        Some(Format::Video) => Ok(vec![video::read_bytes(bytes, options)?]),
        Some(Format::Zip) => Err(Error::unsupported(
            "zip",
            "an archive read from bytes alone",
            "pass the path",
        )),
        None => Err(foreign::refusal(head)),
    }?;
    Ok(volumes.into_iter().map(with_guess).collect())
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
    memory::reserve(bytes, n_bytes)?;
    // `take`: a file that grows while it is read stays what it was.
    file.take(n_bytes as u64)
        .read_to_end(bytes)
        .map_err(|e| Error::io("reading the file", e))?;
    Ok(())
}

/// Reads at most `n_wanted` leading bytes of a file, or of what its gzip stream holds, and returns
/// them with whether they are all.
///
/// # Errors
/// `Io`; `Mismatch` as `read_whole`. A broken gzip stream ends where it breaks.
pub(crate) fn read_prefix(path: &Path, n_wanted: u64, limits: &Limits) -> Result<(Vec<u8>, bool)> {
    check_regular(path)?;
    let failed = |e| Error::io("reading the file", e);
    let mut file = File::open(path).map_err(|e| Error::io("opening the file", e))?;
    let mut bytes = Vec::new();
    let n_wanted = n_wanted.min(limits.max_bytes);
    (file.by_ref().take(n_wanted))
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    let n_allowed = if is_gzip(&bytes) {
        let n_stored = file.metadata().map_err(failed)?.len();
        limits.max_decompressed(n_stored)
    } else {
        limits.max_bytes
    };
    let n_wanted = n_wanted.min(n_allowed);
    if is_gzip(&bytes) {
        let stream = std::mem::take(&mut bytes);
        // An error means fewer bytes: a parser of the header says that they are missing.
        let _ = MultiGzDecoder::new(stream.chain(file))
            .take(n_wanted)
            .read_to_end(&mut bytes);
    }
    let is_all = (bytes.len() as u64) < n_wanted || n_wanted == n_allowed;
    Ok((bytes, is_all))
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

/// Finds a file that a header names: another file, in the header's folder or below it, links
/// followed.
///
/// # Errors
/// `Malformed` for names and links that lead out of the folder; `Io` if there is no such file.
pub(crate) fn sibling_path(header: &Path, name: &str) -> Result<PathBuf> {
    let folder = match header.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let is_windows_path = name.contains('\\') && !folder.join(name).exists();
    let name = if is_windows_path {
        name.replace('\\', "/")
    } else {
        name.to_owned()
    };
    check_sibling_name(&name)?;
    let resolved = |path: &Path| {
        path.canonicalize()
            .map_err(|e| Error::io("finding the data file of the header", e))
    };
    let data_file = resolved(&folder.join(name))?;
    if data_file == resolved(header)? {
        return Err(refused_sibling(
            "a header that names itself as its data file",
        ));
    }
    if !data_file.starts_with(resolved(folder)?) {
        return Err(refused_sibling(
            "a link to a data file outside the header's folder",
        ));
    }
    Ok(data_file)
}

/// Refuses the name of a data file that leads out of the header's folder.
///
/// # Errors
/// `Malformed`.
pub(crate) fn check_sibling_name(name: &str) -> Result<()> {
    // `C:/x.raw` is absolute where it was written, and no plain name here.
    if Path::new(name).is_absolute() || name.get(1..3) == Some(":/") {
        return Err(refused_sibling("an absolute path of a data file"));
    }
    let is_plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if Path::new(name).components().all(is_plain) {
        Ok(())
    } else {
        Err(refused_sibling("a data file outside the header's folder"))
    }
}

fn refused_sibling(found: &str) -> Error {
    let wanted = "another file in the header's folder or below it";
    Error::refused("detached header", Code::Malformed, found, wanted)
}
