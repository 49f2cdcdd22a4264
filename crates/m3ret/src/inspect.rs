//! Reports what files and folders hold, object by object.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use m3ret_imaging::archive::Object;
use m3ret_imaging::{Code, Pixels, ReadOptions, Volume, encode_png, thumbnail, write_npy};
use m3ret_manifest::text_of;

use crate::check::report::{self, Report, Verdict};
use crate::files::{check_new_file, write_whole};
use crate::objects::{Entry, entries};
use crate::options::Reading;

/// Longest side of a thumbnail, in pixels.
const THUMBNAIL_SIDE_PX: usize = 768;

/// What is inspected, and which files are written beside the reports.
#[derive(Debug, Clone)]
pub struct InspectOptions {
    /// Files or folders; of a folder, every object is inspected.
    pub paths: Vec<PathBuf>,
    /// Where the values are written as an array, f32 [C, D, H, W]; `None` to write none. The files of several objects
    /// are numbered.
    pub npy: Option<PathBuf>,
    /// Where a picture is drawn as PNG; `None` to draw none. The files of several objects are numbered.
    pub thumbnail: Option<PathBuf>,
    /// Whether files that are there may be replaced.
    pub is_forced: bool,
    /// How objects are read.
    pub reading: Reading,
}

/// Counts of what was not read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InspectSummary {
    /// Number of images and files that were refused.
    pub n_refused: usize,
    /// Number of files of folders that hold no image format.
    pub n_not_images: usize,
}

/// Reads the objects one after another, and hands the report on each image to `sink` as soon as its files are
/// written.
///
/// # Errors
/// If a file cannot be written or would replace a file that is read; if both results have one name; errors of `sink`.
pub fn inspect(
    options: &InspectOptions,
    mut sink: impl FnMut(&Report) -> io::Result<()>,
) -> crate::Result<InspectSummary> {
    let reading = &options.reading.options;
    let paths = options.paths.iter();
    let entries: Vec<Entry> = paths.flat_map(|path| found_at(path, reading)).collect();
    let mut files = Files::new(options, &entries);
    let mut summary = InspectSummary::default();
    for entry in entries {
        let mut take = |mut report: Report, volume: Option<Volume>, files: &mut Files<'_>| {
            if let Some(volume) = volume {
                files.write(&mut report, &volume)?;
            }
            match report.verdict {
                Verdict::Refused => summary.n_refused += 1,
                Verdict::NotAnImage => summary.n_not_images += 1,
                Verdict::Ok | Verdict::Warning => {}
            }
            sink(&report)?;
            crate::Result::Ok(())
        };
        match entry {
            Entry::Object(object) => inspect_object(&object, reading, &mut files, &mut take)?,
            Entry::Skipped(report) => take(*report, None, &mut files)?,
        }
    }
    Ok(summary)
}

/// Writes the files of one image and reports on it.
type Take<'a> = &'a mut dyn FnMut(Report, Option<Volume>, &mut Files<'_>) -> crate::Result<()>;

/// Hands over the images of one object, each a step late: files are numbered if a second one follows.
fn inspect_object(
    object: &Object,
    reading: &ReadOptions,
    files: &mut Files<'_>,
    take: Take<'_>,
) -> crate::Result<()> {
    let mut waiting: Option<(Report, Option<Volume>)> = None;
    let mut outcome = Ok(());
    report::visit(object, reading, &mut |report, volume| {
        if let Some((report, volume)) = waiting.replace((report, volume)) {
            files.is_numbered = true;
            outcome = take(report, volume, files);
        }
        match outcome {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    });
    outcome?;
    match waiting {
        Some((report, volume)) => take(report, volume, files),
        None => Ok(()),
    }
}

/// Lists a path; a path without anything to read is refused.
fn found_at(path: &Path, options: &ReadOptions) -> Vec<Entry> {
    match entries(path, options, false, &mut |_| true) {
        Ok(found) if found.is_empty() => {
            let message = "the folder holds no file".to_owned();
            vec![refused(path, Code::NoPixels, message)]
        }
        Ok(found) => found,
        Err(e) => vec![refused(path, e.code(), e.to_string())],
    }
}

fn refused(path: &Path, code: Code, message: String) -> Entry {
    Entry::Skipped(Box::new(Report::refused(path, code, message)))
}

/// The files that are written beside the reports.
struct Files<'a> {
    npy: Option<&'a Path>,
    thumbnail: Option<&'a Path>,
    /// What is read; it is never written to.
    inputs: &'a [PathBuf],
    is_forced: bool,
    is_numbered: bool,
    n_written: usize,
}

impl<'a> Files<'a> {
    fn new(options: &'a InspectOptions, entries: &[Entry]) -> Self {
        let n_objects = entries
            .iter()
            .filter(|e| matches!(e, Entry::Object(_)))
            .count();
        Self {
            npy: options.npy.as_deref(),
            thumbnail: options.thumbnail.as_deref(),
            inputs: &options.paths,
            is_forced: options.is_forced,
            is_numbered: n_objects > 1,
            n_written: 0,
        }
    }

    /// Refuses to write over what is read, over the other result, or over what is there.
    fn check(&self, path: &Path) -> anyhow::Result<()> {
        if self.npy.is_some() && self.npy == self.thumbnail {
            crate::error::bail!("--npy and --thumbnail name the same file; give each its own");
        }
        let inputs: Vec<&Path> = self.inputs.iter().map(PathBuf::as_path).collect();
        Ok(check_new_file(path, self.is_forced, &inputs)?)
    }

    /// Writes the files and enters their names in the report.
    fn write(&mut self, report: &mut Report, volume: &Volume) -> anyhow::Result<()> {
        let number = self.is_numbered.then_some(self.n_written);
        self.n_written += 1;
        if let Some(path) = self.npy {
            let path = numbered(path, number);
            self.check(&path)?;
            write_whole(&path, |out| Ok(write_npy(out, volume)?))?;
            report.npy = Some(text_of(&path));
        }
        if let Some(path) = self.thumbnail {
            let path = numbered(path, number);
            self.check(&path)?;
            write_whole(&path, |out| write_picture(out, volume))?;
            report.thumbnail = Some(text_of(&path));
        }
        Ok(())
    }
}

fn write_picture(out: &mut impl Write, volume: &Volume) -> anyhow::Result<()> {
    let picture = thumbnail(volume, THUMBNAIL_SIDE_PX);
    let png = encode_png(Pixels::Rgb8(&picture.rgb), picture.height, picture.width)?;
    Ok(out.write_all(&png)?)
}

/// `OUT.npy` and 3 -> `OUT.3.npy`.
fn numbered(path: &Path, number: Option<usize>) -> PathBuf {
    let Some(number) = number else {
        return path.to_path_buf();
    };
    match path.extension() {
        Some(extension) => {
            let mut last = std::ffi::OsString::from(number.to_string());
            last.push(".");
            last.push(extension);
            path.with_extension(last)
        }
        None => path.with_added_extension(number.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_before_the_extension() {
        let check = |path: &str, number, expected: &str| {
            assert_eq!(numbered(path.as_ref(), number), Path::new(expected));
        };
        check("a/out.npy", None, "a/out.npy");
        check("a/out.npy", Some(0), "a/out.0.npy");
        check("out.v2.npy", Some(12), "out.v2.12.npy");
        check("out", Some(1), "out.1");
    }
}
