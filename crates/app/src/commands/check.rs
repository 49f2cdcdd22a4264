//! `m3ret check`: reads every object of an archive and says which need a look.

pub(super) mod tally;

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write as _};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use anyhow::Context as _;
use m3ret_imaging::archive::find_objects;
use m3ret_imaging::{ReadOptions, Volume};
use serde::Serialize;
use xxhash_rust::xxh3::Xxh3;

use super::{Entry, entries, write_json_line};
use crate::Outcome;
use crate::cli::CheckArguments;
use crate::output::Screen;
use crate::progress::Progress;
use crate::report::text::Paint;
use crate::report::{self, Report};
use crate::watch::Watch as _;
use tally::{Summary, Tally};

/// One image of an object, without its pixels.
#[derive(Debug)]
struct Checked {
    report: Report,
    /// Hash of shape and values, where there are any.
    pixels: Option<u128>,
}

/// Tells the summary from the objects before it.
#[derive(Debug, Serialize)]
struct LastLine<'a> {
    summary: Summary<'a>,
}

/// Walks the archive and prints reports in the order of the paths, whatever finishes first.
pub(crate) fn run(arguments: &CheckArguments, screen: Screen) -> anyhow::Result<Outcome> {
    arguments.reading.start_threads()?;
    let options = arguments.reading.options();
    let start = Instant::now();
    let progress = Progress::start(screen);
    let found = find_objects(&arguments.root, &options)
        .with_context(|| format!("opening {}", arguments.root.display()))?;
    let entries = entries(found, arguments.strict);
    progress.count(entries.len());
    let mut out = BufWriter::new(io::stdout().lock());
    let mut tally = Tally::default();
    walk(&entries, arguments.reading.n_jobs(), &options, |images| {
        progress.advance(tally.n_refused());
        for checked in images {
            if arguments.json {
                let write = || {
                    write_json_line(&mut out, &checked.report)?;
                    // Whoever reads along sees each object at once.
                    out.flush()
                };
                progress.beside(write)?;
            }
            tally.add(checked);
        }
        Ok(())
    })?;
    progress.clear();
    if arguments.json {
        write_json_line(
            &mut out,
            &LastLine {
                summary: tally.summary(),
            },
        )?;
    } else {
        let paint = Paint {
            is_on: screen.has_colour,
        };
        out.write_all(tally.text(paint, start.elapsed()).as_bytes())?;
    }
    out.flush()?;
    Ok(if tally.n_refused() > 0 {
        Outcome::SomeRefused
    } else {
        Outcome::AllGood
    })
}

/// Reads every entry on `n_jobs` threads and hands the results to `sink` in order.
///
/// Each thread holds one object at a time. They are no workers of the readers' thread pool: a
/// worker that waits for its slices would start on the next object meanwhile.
fn walk(
    entries: &[Entry],
    n_jobs: usize,
    options: &ReadOptions,
    mut sink: impl FnMut(Vec<Checked>) -> io::Result<()>,
) -> io::Result<()> {
    let (next, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..n_jobs.min(entries.len()) {
            let (sender, next, is_over) = (sender.clone(), &next, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let idx = next.fetch_add(1, Ordering::Relaxed);
                    let Some(entry) = entries.get(idx) else { break };
                    if sender.send((idx, check(entry, options))).is_err() {
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

fn check(entry: &Entry, options: &ReadOptions) -> Vec<Checked> {
    match entry {
        Entry::Skipped(report) => vec![Checked {
            report: Report::clone(report),
            pixels: None,
        }],
        Entry::Object(object) => report::read(object, options)
            .into_iter()
            .map(|(report, volume)| Checked {
                report,
                pixels: volume.as_ref().map(pixel_hash),
            })
            .collect(),
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
    use crate::report::tests::ct;
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
                names.extend(images.into_iter().map(|checked| checked.report.path));
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
