//! `m3ret inspect`: what a file or folder holds.

use m3ret_manifest::text_of;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use m3ret_imaging::archive::find_objects;
use m3ret_imaging::{Code, ReadOptions, Volume, thumbnail, write_npy};

use super::{Entry, entries, write_json_line};
use crate::Outcome;
use crate::cli::InspectArguments;
use crate::output::{Screen, write_whole};
use crate::report::text::{Paint, block};
use crate::report::{self, Report, Verdict};

/// Longest side of a thumbnail.
const THUMBNAIL_SIDE_PX: usize = 768;

/// Reads the objects one after the other and reports on each as soon as it is read.
pub(crate) fn run(arguments: &InspectArguments, screen: Screen) -> anyhow::Result<Outcome> {
    arguments.reading.start_threads()?;
    let options = arguments.reading.options();
    let entries: Vec<Entry> = arguments
        .paths
        .iter()
        .flat_map(|path| found_at(path, &options))
        .collect();
    let mut files = Files::new(arguments, &entries);
    let mut out = BufWriter::new(io::stdout().lock());
    let paint = Paint {
        is_on: screen.has_colour,
    };
    let (mut n_foreign, mut outcome) = (0_usize, Outcome::AllGood);
    for entry in entries {
        let images = match entry {
            Entry::Object(object) => report::read(&object, &options),
            Entry::Skipped(report) => vec![(*report, None)],
        };
        files.is_numbered |= images.len() > 1;
        for (mut report, volume) in images {
            if let Some(volume) = volume {
                files.write(&mut report, &volume)?;
            }
            if report.verdict == Verdict::Refused {
                outcome = Outcome::SomeRefused;
            }
            if arguments.json {
                write_json_line(&mut out, &report)?;
            } else if report.verdict == Verdict::NotAnImage {
                n_foreign += 1;
            } else {
                writeln!(out, "{}", block(&report, paint))?;
            }
            out.flush()?;
        }
    }
    if n_foreign > 0 {
        let files = if n_foreign == 1 {
            "other file holds"
        } else {
            "other files hold"
        };
        writeln!(
            out,
            "{}",
            paint.dim(&format!("{n_foreign} {files} no image format"))
        )?;
    }
    out.flush()?;
    Ok(outcome)
}

/// Lists a path; a path without anything to read is a refusal.
fn found_at(path: &Path, options: &ReadOptions) -> Vec<Entry> {
    match find_objects(path, options) {
        Ok((objects, skipped)) if objects.is_empty() && skipped.is_empty() => {
            let message = "the folder holds no file".to_owned();
            vec![refused(path, Code::NoPixels, message)]
        }
        Ok(found) => entries(found, false),
        Err(e) => vec![refused(path, e.code(), e.to_string())],
    }
}

fn refused(path: &Path, code: Code, message: String) -> Entry {
    Entry::Skipped(Box::new(Report::refused(path, code, message)))
}

/// The files that were asked for beside the report.
struct Files<'a> {
    npy: Option<&'a Path>,
    thumbnail: Option<&'a Path>,
    /// What is being read, with links resolved: never written to.
    inputs: Vec<PathBuf>,
    is_numbered: bool,
    n_written: usize,
}

impl<'a> Files<'a> {
    fn new(arguments: &'a InspectArguments, entries: &[Entry]) -> Self {
        let n_objects = entries
            .iter()
            .filter(|e| matches!(e, Entry::Object(_)))
            .count();
        Self {
            npy: arguments.npy.as_deref(),
            thumbnail: arguments.thumbnail.as_deref(),
            inputs: inputs(arguments, entries),
            is_numbered: n_objects > 1,
            n_written: 0,
        }
    }

    /// Refuses to write over what is read, or over the other result.
    fn check(&self, path: &Path) -> anyhow::Result<()> {
        if self.npy.is_some() && self.npy == self.thumbnail {
            anyhow::bail!("--npy and --thumbnail name the same file; give each its own");
        }
        let is_input = path
            .canonicalize()
            .is_ok_and(|path| self.inputs.contains(&path));
        if is_input {
            anyhow::bail!(
                "{} is being read; give the result another name",
                path.display()
            );
        }
        Ok(())
    }

    /// Writes what was asked for and notes the names in the report.
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

fn inputs(arguments: &InspectArguments, entries: &[Entry]) -> Vec<PathBuf> {
    if arguments.npy.is_none() && arguments.thumbnail.is_none() {
        return Vec::new();
    }
    let objects = entries.iter().filter_map(|entry| match entry {
        Entry::Object(object) => Some(object.files.iter()),
        Entry::Skipped(_) => None,
    });
    objects
        .flatten()
        .filter_map(|file| file.canonicalize().ok())
        .collect()
}

fn write_picture(out: &mut impl Write, volume: &Volume) -> anyhow::Result<()> {
    let picture = thumbnail(volume, THUMBNAIL_SIDE_PX);
    let (width, height) = (
        u32::try_from(picture.width)?,
        u32::try_from(picture.height)?,
    );
    let encoder = image::codecs::png::PngEncoder::new(out);
    let colour = image::ExtendedColorType::Rgb8;
    image::ImageEncoder::write_image(encoder, &picture.rgb, width, height, colour)?;
    Ok(())
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
