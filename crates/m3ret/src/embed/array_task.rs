//! Embeds an archive by many tasks, as Slurm arrays and indexed jobs of Kubernetes run them: each embeds the paths whose
//! hash is its own, and leaves a table and a mark that says what is in it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use m3ret_encoder::Model;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::summary::{EmbedReport, EmbedRow};
use super::{
    EmbedOptions, OutputFile, Outputs, VectorLayout, check_paths, embed_with, precision_name,
    remove_if_there,
};
use crate::error::ensure;
use crate::files::write_whole;
use crate::model_name;
use crate::watch::Watch;

/// Version of a mark.
const FORMAT: u32 = 1;
/// How names of marks end.
const MARK: &str = ".done";
/// Most tasks.
pub const MAX_TASKS: usize = 1_000_000;
/// Largest mark that is read.
const MAX_MARK_BYTES: u64 = 64 << 10;

/// One of several tasks that embed an archive together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArrayTask {
    index: usize,
    n_tasks: usize,
}

impl ArrayTask {
    /// Names task `index` (from 0) of `n_tasks`.
    ///
    /// # Errors
    /// A sentence that says what is wanted.
    pub fn new(index: usize, n_tasks: usize) -> Result<Self, String> {
        match index < n_tasks && n_tasks <= MAX_TASKS {
            true => Ok(Self { index, n_tasks }),
            false => Err(format!(
                "I/N is wanted, such as 0/8: I from 0 to N - 1, N up to {MAX_TASKS}"
            )),
        }
    }

    /// Whether the images of a path below the source are embedded by this task. Every image of a path is embedded by one
    /// task.
    pub(crate) fn has(self, path: &str) -> bool {
        let n_tasks = u64::try_from(self.n_tasks).unwrap_or(u64::MAX);
        usize::try_from(xxh3_64(path.as_bytes()) % n_tasks).is_ok_and(|found| found == self.index)
    }

    fn file(self, folder: &Path, end: &str) -> PathBuf {
        folder.join(format!("{}-of-{}{end}", self.index, self.n_tasks))
    }

    fn table(self, folder: &Path) -> PathBuf {
        self.file(folder, ".parquet")
    }

    /// Reads the name of a mark.
    fn of_mark(name: &str) -> Option<Self> {
        let (index, n_tasks) = name.strip_suffix(MARK)?.split_once("-of-")?;
        Self::new(index.parse().ok()?, n_tasks.parse().ok()?).ok()
    }
}

impl FromStr for ArrayTask {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/');
        let numbers = numbers.and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        // Numbers that are none are as wrong as those that do not fit.
        let (index, n_tasks) = numbers.unwrap_or((0, 0));
        Self::new(index, n_tasks)
    }
}

/// Everything that a source holds, of which a task embeds its part. Tasks that saw something else do not go together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Whole {
    /// Number of objects, or of rows of a manifest.
    pub n_items: usize,
    /// Digest of their paths below the source, in the order of the source.
    pub paths: String,
}

impl Whole {
    pub(crate) fn of<'a>(paths: impl Iterator<Item = &'a str>) -> Self {
        let (mut n_items, mut hasher) = (0, Xxh3::new());
        for path in paths {
            n_items += 1;
            hasher.update(path.as_bytes());
            hasher.update(&[0]);
        }
        Self {
            n_items,
            paths: format!("{:032x}", hasher.digest128()),
        }
    }
}

/// Refuses a list that other tasks of the folder did not see.
pub(super) fn check_whole(table: &Path, whole: &Whole) -> crate::Result<()> {
    let folder = table.parent().unwrap_or(table);
    for (task, mark) in marks(folder)? {
        let Some(mark) = mark.filter(|_| task.table(folder) != table) else {
            continue;
        };
        ensure!(
            mark.whole == *whole,
            "{}: task {} saw {} images or rows, and this one sees {}, or others: the archive changed, or it is another; take \
             another folder",
            folder.display(),
            task.index,
            mark.whole.n_items,
            whole.n_items
        );
    }
    Ok(())
}

/// What a task left, written after its table: a table without a mark is not complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoneMark {
    /// The version of this file.
    pub format: u32,
    /// The version of m3ret that wrote it.
    pub m3ret: String,
    /// Number of the task, from 0.
    pub shard: usize,
    /// Number of tasks.
    pub n_shards: usize,
    /// What all tasks embed together.
    pub whole: Whole,
    /// Rows of the table.
    pub n_rows: usize,
    /// Images with a vector.
    pub n_embedded: usize,
    /// Images without one.
    pub n_refused: usize,
    /// Name of the model.
    pub model: String,
    /// Its fingerprint: all tasks must have the same.
    pub fingerprint: String,
    /// Precision in which it ran.
    pub precision: String,
    /// Values of a vector.
    pub width: usize,
    /// Bytes of the table.
    pub n_bytes: u64,
    /// BLAKE3 of the table.
    pub blake3: String,
}

/// What a task did.
#[derive(Debug)]
pub enum TaskReport {
    /// It embedded its part.
    Embedded(EmbedReport),
    /// An earlier run had.
    DoneBefore(DoneMark),
}

/// Embeds the part of a task into a folder: `I-of-N.parquet`, then `I-of-N.done`. Both are written even if the part holds no
/// image, or none that can be read. A part that is done is not embedded again. `options.out` is not used.
///
/// # Errors
/// `Caller` if the folder holds parts of another number of tasks or another model; as `embed`.
pub fn embed_task(
    options: &EmbedOptions,
    task: ArrayTask,
    folder: &Path,
    watch: &dyn Watch,
    sink: impl FnMut(&EmbedRow<'_>) -> io::Result<()>,
) -> crate::Result<TaskReport> {
    let making = || format!("making {}", folder.display());
    std::fs::create_dir_all(folder).with_context(making)?;
    let options = EmbedOptions {
        out: OutputFile {
            path: task.table(folder),
            layout: VectorLayout::Parquet,
        },
        task: Some(task),
        ..options.clone()
    };
    check_paths(&options, &Outputs::of(&options.out.path))?;
    let model = model_name::open(&options.model, watch)?;
    check_others(folder, task, &model)?;
    let mark = task.file(folder, MARK);
    if !options.is_restart
        && let Some(done) = read_mark(&mark)?
        && digest(&options.out.path).is_ok_and(|(_, digest)| digest == done.blake3)
    {
        return Ok(TaskReport::DoneBefore(done));
    }
    remove_if_there(&mark)?;
    let report = embed_with(&options, &model, watch, sink)?;
    let summary = &report.summary;
    let (n_bytes, blake3) = digest(&options.out.path)?;
    let done = DoneMark {
        format: FORMAT,
        m3ret: env!("CARGO_PKG_VERSION").to_owned(),
        shard: task.index,
        n_shards: task.n_tasks,
        whole: report
            .whole
            .clone()
            .unwrap_or_else(|| Whole::of([].into_iter())),
        n_rows: summary.n_rows,
        n_embedded: summary.n_embedded,
        n_refused: summary.n_refused,
        model: summary.model.clone(),
        fingerprint: summary.fingerprint.clone(),
        precision: summary.precision.clone(),
        width: summary.width,
        n_bytes,
        blake3,
    };
    let mut text = serde_json::to_vec_pretty(&done).map_err(io::Error::from)?;
    text.push(b'\n');
    write_whole(&mark, |file| Ok(file.write_all(&text)?))?;
    Ok(TaskReport::Embedded(report))
}

/// Refuses a folder with parts that do not go with those of this task.
fn check_others(folder: &Path, task: ArrayTask, model: &Model) -> crate::Result<()> {
    for (other, mark) in marks(folder)? {
        ensure!(
            other.n_tasks == task.n_tasks,
            "{}: found parts of {} tasks, wanted of {}: the paths would be dealt otherwise; take another folder",
            folder.display(),
            other.n_tasks,
            task.n_tasks
        );
        let Some(mark) = mark.filter(|_| other != task) else {
            continue;
        };
        let own = (model.fingerprint(), precision_name(model.precision()));
        ensure!(
            own == (mark.fingerprint.as_str(), mark.precision.as_str()),
            "{}: found parts of the model {} ({}, {}), wanted of {} ({}, {}): take another folder",
            folder.display(),
            mark.model,
            mark.fingerprint,
            mark.precision,
            model.name(),
            own.0,
            own.1
        );
    }
    Ok(())
}

/// Returns the marks of a folder; `None` for one that is damaged.
fn marks(folder: &Path) -> crate::Result<Vec<(ArrayTask, Option<DoneMark>)>> {
    let listing = || format!("listing {}", folder.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(listing)? {
        let name = entry.with_context(listing)?.file_name();
        if let Some(task) = name.to_str().and_then(ArrayTask::of_mark) {
            found.push((task, read_mark(&task.file(folder, MARK))?));
        }
    }
    found.sort_by_key(|(task, _)| *task);
    Ok(found)
}

/// Reads a mark; `None` if it is not there or damaged, and its part is to be embedded again.
fn read_mark(path: &Path) -> crate::Result<Option<DoneMark>> {
    let reading = || format!("reading {}", path.display());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(anyhow::Error::new(error).context(reading()).into()),
    };
    let mut text = Vec::new();
    let read = file.take(MAX_MARK_BYTES).read_to_end(&mut text);
    read.with_context(reading)?;
    let mark = serde_json::from_slice::<DoneMark>(&text).ok();
    let task = path.file_name().and_then(|name| name.to_str());
    let task = task.and_then(ArrayTask::of_mark);
    let is_its_own = |mark: &DoneMark| {
        task.is_some_and(|task| (task.index, task.n_tasks) == (mark.shard, mark.n_shards))
    };
    Ok(mark.filter(|mark| mark.format == FORMAT && is_its_own(mark)))
}

/// Returns the number of bytes of a file, and their BLAKE3.
fn digest(path: &Path) -> anyhow::Result<(u64, String)> {
    let reading = || format!("reading {}", path.display());
    let mut hasher = blake3::Hasher::new();
    let file = File::open(path).with_context(reading)?;
    hasher.update_reader(file).with_context(reading)?;
    Ok((hasher.count(), hasher.finalize().to_hex().to_string()))
}

/// How far the tasks of a folder are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TaskStatus {
    /// Number of tasks.
    pub n_shards: usize,
    /// Tasks that are done.
    pub n_done: usize,
    /// Tasks that are not, as Slurm takes them: `--array=0,3-5`.
    pub missing: String,
    /// Rows of those that are done.
    pub n_rows: usize,
    /// Images with a vector of those that are done.
    pub n_embedded: usize,
    /// Images without one of those that are done.
    pub n_refused: usize,
}

impl TaskStatus {
    /// Says how far the tasks of a folder are. A part is done if its mark is whole and its table has the size that the mark
    /// states.
    ///
    /// # Errors
    /// `Caller` if the folder holds no mark, or marks of several numbers of tasks or several models; `Io`.
    pub fn of(folder: &Path) -> crate::Result<Self> {
        let marks = marks(folder)?;
        let first = marks.first().map(|(task, _)| *task);
        let Some(first) = first else {
            return Err(anyhow::anyhow!(
                "{}: found no mark of a task, wanted files such as 0-of-8.done, as m3ret embed --shard 0/8 --out {} writes them",
                folder.display(),
                folder.display()
            )
            .into());
        };
        let mut done = BTreeSet::new();
        let mut status = Self {
            n_shards: first.n_tasks,
            ..Self::default()
        };
        let mut model: Option<DoneMark> = None;
        for (task, mark) in marks {
            ensure!(
                task.n_tasks == first.n_tasks,
                "{}: found parts of {} and of {} tasks; they do not go together",
                folder.display(),
                first.n_tasks,
                task.n_tasks
            );
            let size = std::fs::metadata(task.table(folder)).map(|table| table.len());
            let Some(mark) = mark.filter(|mark| size.as_ref().ok() == Some(&mark.n_bytes)) else {
                continue;
            };
            let known = model.get_or_insert_with(|| mark.clone());
            ensure!(
                (&known.fingerprint, &known.precision) == (&mark.fingerprint, &mark.precision),
                "{}: found parts of the models {} and {}; they do not go together",
                folder.display(),
                known.fingerprint,
                mark.fingerprint
            );
            ensure!(
                known.whole == mark.whole,
                "{}: found parts of several archives, or of one that changed; they do not go together",
                folder.display()
            );
            done.insert(task.index);
            status.n_rows += mark.n_rows;
            status.n_embedded += mark.n_embedded;
            status.n_refused += mark.n_refused;
        }
        status.n_done = done.len();
        status.missing = ranges((0..first.n_tasks).filter(|index| !done.contains(index)));
        Ok(status)
    }
}

/// A part that a task completed.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its table.
    pub table: PathBuf,
    /// What its mark says.
    pub mark: DoneMark,
}

impl Part {
    /// Returns what tells the run of this part from every other: all parts of a run have it.
    #[must_use]
    pub fn run(&self) -> String {
        let DoneMark {
            n_shards,
            whole,
            fingerprint,
            precision,
            ..
        } = &self.mark;
        let told = format!(
            "{} {} {n_shards} {fingerprint} {precision}",
            whole.n_items, whole.paths
        );
        blake3::hash(told.as_bytes()).to_hex()[..16].to_owned()
    }

    /// Compares the table with its digest.
    ///
    /// # Errors
    /// `Caller` if the table is not the one that the task wrote; `Io`.
    pub fn check(&self) -> crate::Result<()> {
        let (_, found) = digest(&self.table)?;
        ensure!(
            found == self.mark.blake3,
            "{}: its BLAKE3 is not the one that its mark states; embed the part again",
            self.table.display()
        );
        Ok(())
    }
}

/// The parts of a folder.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    /// Those that are done, by their numbers.
    pub parts: Vec<Part>,
    /// Those that are not, as Slurm takes them.
    pub missing: String,
}

/// Lists the parts of a folder.
///
/// # Errors
/// As `TaskStatus::of`.
pub fn parts(folder: &Path) -> crate::Result<Parts> {
    let status = TaskStatus::of(folder)?;
    let mut parts = Vec::new();
    for (task, mark) in marks(folder)? {
        let table = task.table(folder);
        let size = std::fs::metadata(&table).map(|table| table.len());
        let whole = mark.filter(|mark| size.as_ref().ok() == Some(&mark.n_bytes));
        parts.extend(whole.map(|mark| Part { table, mark }));
    }
    Ok(Parts {
        parts,
        missing: status.missing,
    })
}

/// Writes ascending numbers as Slurm takes them: `0,3-5`.
fn ranges(numbers: impl Iterator<Item = usize>) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let texts = runs.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    texts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_of_one_task_and_each_task_gets_its_share() {
        let tasks: Vec<ArrayTask> = (0..8).map(|i| ArrayTask::new(i, 8).unwrap()).collect();
        let mut counts = [0; 8];
        for number in 0..8000 {
            let path = format!("archive/{number}.dcm");
            let of: Vec<usize> = (0..8).filter(|&i| tasks[i].has(&path)).collect();
            assert_eq!(of.len(), 1, "{path}");
            counts[of[0]] += 1;
        }
        assert!(counts.iter().all(|n| (850..1150).contains(n)), "{counts:?}");
    }

    #[test]
    fn tasks_are_numbers_that_fit() {
        assert_eq!("3/8".parse(), ArrayTask::new(3, 8));
        for wrong in ["", "8/8", "1", "-1/8", "0/0", "a/8", "1/8/2", "0/1000001"] {
            assert!(wrong.parse::<ArrayTask>().is_err(), "{wrong}");
        }
        assert_eq!(ArrayTask::of_mark("3-of-8.done"), ArrayTask::new(3, 8).ok());
        for wrong in ["3-of-8.parquet", "8-of-8.done", "x-of-8.done", "3.done"] {
            assert_eq!(ArrayTask::of_mark(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn missing_tasks_are_written_as_schedulers_take_them() {
        assert_eq!(ranges([].into_iter()), "");
        assert_eq!(ranges([4].into_iter()), "4");
        assert_eq!(ranges([0, 3, 4, 5, 7].into_iter()), "0,3-5,7");
    }
}
