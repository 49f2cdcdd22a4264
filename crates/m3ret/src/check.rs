//! Reads every object of an archive, and counts what it holds and what needs a look.

pub mod report;
pub mod tally;

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use anyhow::Context as _;
use m3ret_imaging::{ReadOptions, Volume};
use xxhash_rust::xxh3::Xxh3;

use crate::check::report::Report;
use crate::objects::{Entry, entries};
use crate::options::Reading;
use crate::watch::Watch;
use tally::Tally;

/// What is checked, and how.
#[derive(Debug, Clone)]
pub struct CheckOptions {
    /// The archive: a folder, a DICOMDIR or a file.
    pub root: PathBuf,
    /// Whether files that hold no image format are refused too.
    pub is_strict: bool,
    /// How objects are read.
    pub reading: Reading,
}

/// One image of an object, without its pixels.
#[derive(Debug)]
pub struct CheckedImage {
    /// What was read of the image, or why it was refused.
    pub report: Report,
    /// Hash of shape and values; `None` if the image was refused.
    pub pixels: Option<u128>,
}

/// Reads every object of an archive and hands the reports to `sink`, in the order of the paths for any number of
/// readers.
///
/// # Errors
/// If the archive cannot be opened; errors of `sink`, which end the walk.
pub fn check(
    options: &CheckOptions,
    watch: &dyn Watch,
    mut sink: impl FnMut(&Report) -> io::Result<()>,
) -> crate::Result<Tally> {
    let (root, reading) = (&options.root, &options.reading);
    let entries = entries(root, &reading.options, options.is_strict, &mut |_| true)
        .with_context(|| format!("opening {}", root.display()))?;
    watch.count(entries.len());
    let mut tally = Tally::default();
    walk(&entries, reading.n_readers, &reading.options, |images| {
        watch.advance(tally.refused.len());
        for image in images {
            sink(&image.report)?;
            tally.add(image);
        }
        Ok(())
    })?;
    Ok(tally)
}

/// Reads every entry on `n_jobs` threads, or on the calling one if that is 0, and hands the results to `sink` in order.
///
/// Each thread holds one object at a time. These threads do not belong to the readers' thread pool, because a worker
/// of the pool that waits for its slices would start the next object.
fn walk(
    entries: &[Entry],
    n_jobs: usize,
    options: &ReadOptions,
    mut sink: impl FnMut(Vec<CheckedImage>) -> io::Result<()>,
) -> io::Result<()> {
    if n_jobs == 0 {
        return entries
            .iter()
            .try_for_each(|entry| sink(read(entry, options)));
    }
    let (next, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..n_jobs.min(entries.len()) {
            let (sender, next, is_over) = (sender.clone(), &next, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let idx = next.fetch_add(1, Ordering::Relaxed);
                    let Some(entry) = entries.get(idx) else { break };
                    if sender.send((idx, read(entry, options))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut waiting = BTreeMap::new();
        let mut n_done = 0;
        for (idx, images) in receiver {
            waiting.insert(idx, images);
            while let Some(images) = waiting.remove(&n_done) {
                n_done += 1;
                sink(images).inspect_err(|_| is_over.store(true, Ordering::Relaxed))?;
            }
        }
        Ok(())
    })
}

/// Reads every image of an entry.
fn read(entry: &Entry, options: &ReadOptions) -> Vec<CheckedImage> {
    match entry {
        Entry::Skipped(report) => vec![CheckedImage {
            report: Report::clone(report),
            pixels: None,
        }],
        Entry::Object(object) => {
            let mut images = Vec::new();
            report::visit(object, options, &mut |report, volume| {
                images.push(CheckedImage {
                    report,
                    pixels: volume.as_ref().map(pixel_hash),
                });
                ControlFlow::Continue(())
            });
            images
        }
    }
}

/// Hashes the shape and the bits of every value.
pub(super) fn pixel_hash(volume: &Volume) -> u128 {
    let mut hasher = Xxh3::new();
    for side in volume.shape() {
        hasher.update(&u64::try_from(side).unwrap_or(u64::MAX).to_le_bytes());
    }
    let mut bytes = [0; 16 << 10];
    for values in volume.values().chunks(bytes.len() / 4) {
        for (four, value) in bytes.chunks_exact_mut(4).zip(values) {
            four.copy_from_slice(&value.to_le_bytes());
        }
        hasher.update(&bytes[..values.len() * 4]);
    }
    hasher.digest128()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::report::Verdict;
    use crate::check::report::tests::ct;
    use crate::watch::Quiet;
    use m3ret_imaging::{Code, Kind};

    fn skipped(name: &str) -> Entry {
        Entry::Skipped(Box::new(Report::refused(
            name.as_ref(),
            Code::Io,
            String::new(),
        )))
    }

    #[test]
    fn results_come_in_the_order_of_the_paths_for_any_number_of_threads() {
        let entries: Vec<Entry> = (0..200).map(|idx| skipped(&idx.to_string())).collect();
        for n_jobs in [1, 2, 7] {
            let mut names = Vec::new();
            walk(&entries, n_jobs, &ReadOptions::default(), |images| {
                names.extend(images.into_iter().map(|image| image.report.path));
                Ok(())
            })
            .unwrap();
            assert_eq!(
                names,
                (0..200).map(|idx| idx.to_string()).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn an_archive_is_counted_and_each_report_handed_over() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["README.md", "scan.png"] {
            std::fs::write(folder.path().join(name), "what this is").unwrap();
        }
        let options = CheckOptions {
            root: folder.path().to_owned(),
            is_strict: false,
            reading: Reading {
                options: ReadOptions::default(),
                n_readers: 2,
                retries_refused: false,
                keep: Vec::new(),
            },
        };
        let mut verdicts = Vec::new();
        let tally = check(&options, &Quiet, |report| {
            verdicts.push(report.verdict);
            Ok(())
        })
        .unwrap();
        assert_eq!(verdicts, [Verdict::NotAnImage, Verdict::Refused]);
        assert_eq!((tally.n_not_images, tally.refused.len()), (1, 1));
    }

    #[test]
    fn a_closed_pipe_ends_the_walk() {
        let entries: Vec<Entry> = (0..50).map(|idx| skipped(&idx.to_string())).collect();
        let mut n_seen = 0;
        let ended = walk(&entries, 2, &ReadOptions::default(), |_| {
            n_seen += 1;
            Err(io::ErrorKind::BrokenPipe.into())
        });
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(n_seen, 1);
    }

    #[test]
    fn the_hash_sees_shape_and_every_bit() {
        let make = |values: Vec<f32>, shape| Volume::new(values, shape, Kind::Image).unwrap();
        let values: Vec<f32> = (0_u16..6000).map(f32::from).collect();
        let wide = make(values.clone(), [1, 1, 60, 100]);
        assert_eq!(pixel_hash(&wide), pixel_hash(&wide.clone()));
        assert_ne!(
            pixel_hash(&wide),
            pixel_hash(&make(values.clone(), [1, 1, 100, 60]))
        );
        for idx in [0, 4095, 4096, 5999] {
            let mut changed = values.clone();
            changed[idx] = -0.5;
            assert_ne!(
                pixel_hash(&wide),
                pixel_hash(&make(changed, [1, 1, 60, 100])),
                "{idx}"
            );
        }
        let mut other_reasons = ct();
        other_reasons.note(Code::LossyCompression, "");
        assert_eq!(pixel_hash(&ct()), pixel_hash(&other_reasons));
    }
}
