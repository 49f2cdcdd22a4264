//! Lists what is to be embedded: the objects of a file or folder, or the rows of a manifest.

mod labels;

use m3ret_manifest::{path_of, text_of};
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use anyhow::Context as _;
use m3ret_imaging::archive::{Object, voxel_files};
use m3ret_imaging::{Code, Format, Limits, ReadOptions, read_head};
use m3ret_manifest::privacy::{Storage, storage};
use m3ret_manifest::{Manifest, Table, is_manifest};
use rayon::prelude::*;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::Outputs;
use super::array_task::{ArrayTask, Whole};
use super::shards::is_work_folder;
use crate::check::report::{Report, Verdict};
use crate::choices::no_column;
use crate::file_patterns::FileChooser;
use crate::images::MemoryImage;
use crate::objects::{Entry, entries};
use crate::options::{FolderChoice, FolderLabels};
use crate::vectors;

/// Deepest folder of a manifest's row that is looked at for changes.
const MAX_DEPTH: usize = 16;

/// One thing to embed.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// Path as reports show it; of a manifest, as it is written there.
    pub path: String,
    pub content: Content,
    /// Hash of the path, and of the size and time of every file.
    pub key: u128,
    /// Newest ctime of the files, in nanoseconds: programs that copy files or set their times cannot set it. 0 if the
    /// system has none.
    pub changed_ns: u128,
    /// Number of earlier rows that name the same image.
    pub again: u64,
}

/// What an item is read from.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// On the heap: it is large, and rows are many.
    Object(Box<Object>),
    /// A row of a manifest: it names one image.
    Row {
        path: PathBuf,
        part: Option<String>,
    },
    /// An image in memory.
    Memory(Arc<MemoryImage>),
    Unreadable {
        code: Code,
        message: String,
    },
}

/// Everything that a source holds.
#[derive(Debug)]
pub(crate) struct Listing {
    pub items: Vec<Item>,
    /// Files of a folder that hold no image format.
    pub n_foreign: usize,
    /// What is stated of the items by a manifest or by names of folders: row `i` is item `i`.
    pub table: Option<Table>,
    /// What a person should know of where labels come from.
    pub notes: Vec<String>,
    /// What the source holds, where only a part of it is listed.
    pub whole: Option<Whole>,
}

/// Lists what a source holds, without our own results; `folder` says what is used of a folder.
pub(crate) fn list(
    source: &Path,
    outputs: &Outputs,
    options: &ReadOptions,
    folder: &FolderChoice,
) -> anyhow::Result<Listing> {
    list_part(source, outputs, options, (folder, None))
}

/// Lists the part of a source that is a task's; everything without a task.
pub(crate) fn list_part(
    source: &Path,
    outputs: &Outputs,
    options: &ReadOptions,
    (folder, task): (&FolderChoice, Option<ArrayTask>),
) -> anyhow::Result<Listing> {
    let doing = || format!("opening {}", source.display());
    crate::error::ensure!(
        source.is_dir() || !folder.files.is_given(),
        "{} is no folder: --include-files and --exclude-files choose files of a folder",
        source.display()
    );
    if let Some(table) = open_manifest(source, options).with_context(doing)? {
        let Some(task) = task else {
            return Ok(rows(table, &options.limits)?);
        };
        // Of a long manifest, no file of another part is looked at.
        let own = rows_of(&table, task, &options.limits)?;
        return Ok(Listing {
            whole: Some(Whole::of(table.rows().map(|row| row.path()))),
            ..rows(own, &options.limits)?
        });
    }
    let mut chooser = FileChooser::new(&folder.files);
    let mut listing = objects(source, outputs, options, &mut chooser).with_context(doing)?;
    listing.notes.extend(chooser.note());
    let listing = match folder.labels {
        _ if !source.is_dir() => Ok(listing),
        FolderLabels::Manifest => {
            listing.with_manifest_of(source, outputs, &folder.files, &options.limits)
        }
        FolderLabels::Folders => listing.with_folder_names(source, &options.limits),
        FolderLabels::None => Ok(listing),
    };
    let listing = listing.with_context(doing)?;
    match task {
        Some(task) => Ok(listing.part_of(task, source, &options.limits)?),
        None => Ok(listing),
    }
}

/// Returns the rows of a manifest that are a task's.
fn rows_of(table: &Table, task: ArrayTask, limits: &Limits) -> m3ret_imaging::Result<Table> {
    let own = table.rows().filter(|row| task.has(row.path()));
    let own: Vec<usize> = own.map(|row| row.idx()).collect();
    table.with_paths(&own, &[], limits.max_bytes)
}

/// Opens a source as a manifest if it is one.
fn open_manifest(source: &Path, options: &ReadOptions) -> anyhow::Result<Option<Table>> {
    if !source.is_file() {
        return Ok(None);
    }
    if !is_manifest(&read_head(source)?, source) {
        return Ok(None);
    }
    Ok(Some(Manifest::open(source, &options.limits)?.load()?))
}

/// Asks a gallery to store columns of a manifest.
pub(crate) fn keep(table: &mut Table, names: &[String]) -> anyhow::Result<()> {
    if let Some(name) = table.request(names) {
        let columns = table.columns().iter().map(String::as_str);
        let option = format!("--keep {name}");
        return Err(no_column(&option, "the manifest", columns));
    }
    let mut asked = names.iter().filter_map(|name| table.name_of(name));
    let never = asked.find(|name| storage(name) == Storage::Never);
    if let Some(name) = never {
        anyhow::bail!(
            "--keep {name}: the name of the column says that it describes people, and galleries store nothing of that; \
             rename the column if it does not"
        );
    }
    Ok(())
}

impl Listing {
    /// Returns the items that are a task's, with what is stated of them. Paths count from the source, however it is named.
    fn part_of(
        self,
        task: ArrayTask,
        source: &Path,
        limits: &Limits,
    ) -> m3ret_imaging::Result<Self> {
        let begin = text_of(source);
        let below = |item: &'_ Item| {
            let path = item.path.strip_prefix(begin.as_str());
            let path = path.unwrap_or(&item.path).trim_start_matches(['/', '\\']);
            path.to_owned()
        };
        let paths: Vec<String> = self.items.iter().map(below).collect();
        let own = (0..).zip(&paths).filter(|(_, path)| task.has(path));
        let own: Vec<usize> = own.map(|(idx, _)| idx).collect();
        let table = self.table.as_ref();
        let table = table.map(|table| table.with_paths(&own, &[], limits.max_bytes));
        Ok(Self {
            table: table.transpose()?,
            items: own.iter().map(|&idx| self.items[idx].clone()).collect(),
            whole: Some(Whole::of(paths.iter().map(String::as_str))),
            ..self
        })
    }

    /// Lets a gallery store columns of the manifest. A search names columns for its filters, which may be any.
    pub(crate) fn keeping(mut self, names: &[String], is_search: bool) -> anyhow::Result<Self> {
        match &mut self.table {
            Some(table) if is_search => drop(table.request(names)),
            Some(table) => keep(table, names)?,
            None if is_search || names.is_empty() => {}
            None => anyhow::bail!(
                "--keep {}: no manifest says anything of the images",
                names.join(", ")
            ),
        }
        Ok(self)
    }
}

/// About what the heap keeps for the two texts of an item, beside their bytes.
const TEXTS_BYTES: u64 = 32;

/// Lists the rows of a manifest; what that takes in memory counts as the manifest does.
fn rows(table: Table, limits: &Limits) -> m3ret_imaging::Result<Listing> {
    let n_paths: usize = table.rows().map(|row| 2 * row.path().len()).sum();
    // Both lists are there while one is made of the other.
    let of_one = (size_of::<Item>() + size_of::<(String, Content)>()) as u64 + TEXTS_BYTES;
    let n_bytes = of_one.saturating_mul(table.len() as u64);
    limits.bytes(n_bytes.saturating_add(n_paths as u64))?;
    let mut contents = Vec::with_capacity(table.len());
    for row in table.rows() {
        let path = row.file();
        let part = row.part().map(str::to_owned);
        contents.push((row.path().to_owned(), Content::Row { path, part }));
    }
    Ok(Listing {
        items: with_keys(contents),
        n_foreign: 0,
        table: Some(table),
        notes: Vec::new(),
        whole: None,
    })
}

fn objects(
    source: &Path,
    outputs: &Outputs,
    options: &ReadOptions,
    chooser: &mut FileChooser<'_>,
) -> anyhow::Result<Listing> {
    let is_walk = source.is_dir();
    let is_result = |file: &Path| outputs.own(file) || (is_walk && is_of_earlier_run(file));
    let found = entries(source, options, false, &mut |way| chooser.chooses(way))?;
    let mut contents = Vec::with_capacity(found.len());
    let mut n_foreign = 0;
    for entry in found {
        match entry {
            Entry::Object(object) => {
                if !object.files.iter().any(|file| is_result(file)) {
                    let path = text_of(&object.path);
                    contents.push((path, Content::Object(Box::new(object))));
                }
            }
            Entry::Skipped(report) if is_result(&path_of(&report.path)) => {}
            Entry::Skipped(report) if report.verdict == Verdict::NotAnImage => n_foreign += 1,
            Entry::Skipped(report) => contents.push(unreadable(*report)),
        }
    }
    Ok(Listing {
        items: with_keys(contents),
        n_foreign,
        table: None,
        notes: Vec::new(),
        whole: None,
    })
}

fn unreadable(report: Report) -> (String, Content) {
    let code = report.reason_codes.first().copied().unwrap_or(Code::Io);
    let message = report.error.unwrap_or_default();
    (report.path, Content::Unreadable { code, message })
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    // Resolving every path is slow, so only files of one name are compared. A link of another name is harmless:
    // results are renamed into place, and the file that is read stays unchanged.
    one.file_name() == other.file_name()
        && match (one.canonicalize(), other.canonicalize()) {
            (Ok(one), Ok(other)) => one == other,
            _ => false,
        }
}

/// Returns whether a file of the walk is a result of any run, or its unfinished work.
fn is_of_earlier_run(file: &Path) -> bool {
    let (Some(name), Some(folder)) = (file.file_name(), file.parent()) else {
        return false;
    };
    let name = name.to_string_lossy();
    let has_list = |name: &str| {
        let name = name.to_ascii_lowercase();
        name.ends_with(".npy") || name.ends_with(".safetensors")
    };
    if let Some(name) = name.strip_suffix(".rows.csv") {
        return has_list(name) && vectors::is_list_of_embed(file);
    }
    let is_listed = || vectors::is_of_embed(file);
    let is_work = || folder.extension() == Some(OsStr::new("part")) && is_work_folder(folder);
    (has_list(&name) && is_listed()) || is_work()
}

impl Outputs {
    /// Returns whether a file of the walk is one of our own results.
    fn own(&self, file: &Path) -> bool {
        let is_in = |folder: &Path| match (file.canonicalize(), folder.canonicalize()) {
            (Ok(file), Ok(folder)) => file.starts_with(folder),
            _ => false,
        };
        let has = |name: Option<&OsStr>| file.iter().any(|part| Some(part) == name);
        is_same_file(file, &self.out)
            || is_same_file(file, &self.rows)
            || (has(self.work.file_name()) && is_in(&self.work))
    }
}

impl Listing {
    /// Lists one image in memory.
    pub(crate) fn of_memory(image: Arc<MemoryImage>) -> Self {
        let content = (image.name.clone(), Content::Memory(image));
        Self {
            items: with_keys(vec![content]),
            n_foreign: 0,
            table: None,
            notes: Vec::new(),
            whole: None,
        }
    }
}

/// Makes an item of one image of a file; `path` is what reports show.
pub(crate) fn item_of(path: &str, file: PathBuf, part: Option<String>) -> Option<Item> {
    let content = Content::Row { path: file, part };
    with_keys(vec![(path.to_owned(), content)]).pop()
}

fn with_keys(contents: Vec<(String, Content)>) -> Vec<Item> {
    let contents = contents.into_par_iter();
    let items = contents.map(|(path, content)| {
        let (key, changed_ns) = stamps(&path, &content);
        Item {
            key,
            changed_ns,
            path,
            content,
            again: 0,
        }
    });
    let mut items: Vec<Item> = items.collect();
    // An image in several rows, as in a list with one row for each finding, is one item for each row.
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|&idx| items[idx].key);
    let (mut last, mut n_before) = (None, 0_u64);
    for idx in order {
        let item = &mut items[idx];
        n_before = match last == Some(item.key) {
            true => n_before + 1,
            false => 0,
        };
        last = Some(item.key);
        if n_before > 0 {
            let mut words = item.key.to_le_bytes().to_vec();
            words.extend(n_before.to_le_bytes());
            item.again = n_before;
            item.key = xxh3_128(&words);
        }
    }
    items
}

impl Content {
    /// Returns every file that is read for it, in order, those with the voxels of a header too.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        match self {
            Self::Object(object) => files.extend(object.files.iter().cloned()),
            Self::Row { path, .. } => collect_files(path, MAX_DEPTH, &mut files),
            Self::Memory(_) | Self::Unreadable { .. } => {}
        }
        let may_lack_voxels = match self {
            Self::Object(object) => {
                [Format::Nifti, Format::Nrrd, Format::MetaImage].contains(&object.format)
            }
            Self::Row { .. } | Self::Memory(_) | Self::Unreadable { .. } => true,
        };
        if may_lack_voxels {
            let voxels: Vec<PathBuf> = files.iter().flat_map(|file| voxel_files(file)).collect();
            files.extend(voxels);
        }
        files.sort();
        files.dedup();
        files
    }
}

/// Digest of what decides the images of an item: the bytes of all files, and the number of frames that are read of a
/// video. Names and times of files are not hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digest(u128);

impl Digest {
    /// Returns the digest of files of which every image is listed.
    pub(crate) fn whole(self) -> u128 {
        self.0
    }

    /// Returns the digest of one image, if a row of a manifest names it as a part of its file.
    pub(crate) fn of(self, part: Option<&str>) -> u128 {
        match part {
            None | Some("") => self.0,
            Some(part) => {
                let mut words = self.0.to_le_bytes().to_vec();
                words.extend(part.as_bytes());
                xxh3_128(&words)
            }
        }
    }
}

impl Item {
    /// Hashes what the images are read from. `None` if a file cannot be read.
    pub(crate) fn digest(&self, options: &ReadOptions) -> Option<Digest> {
        let files = self.content.files().into_iter();
        let digests = files.map(|file| digest_of(&file).ok());
        let mut digests = digests.collect::<Option<Vec<u128>>>()?;
        if digests.is_empty() {
            return None;
        }
        digests.sort_unstable();
        let mut hasher = Xxh3::new();
        hasher.update(&(options.n_frames.unwrap_or(0) as u64).to_le_bytes());
        for digest in digests {
            hasher.update(&digest.to_le_bytes());
        }
        Some(Digest(hasher.digest128()))
    }

    /// Returns whether this is a row of a manifest, which states all labels of its image.
    pub(crate) fn is_row(&self) -> bool {
        matches!(self.content, Content::Row { .. })
    }

    /// Returns the part of the file that a row of a manifest names.
    pub(crate) fn named_part(&self) -> Option<&str> {
        match &self.content {
            Content::Row { part, .. } => part.as_deref(),
            Content::Object(_) | Content::Memory(_) | Content::Unreadable { .. } => None,
        }
    }

    /// Returns whether one of its images may have this name of a part.
    pub(crate) fn may_hold(&self, part: &str) -> bool {
        match &self.content {
            // A folder with one series does not name it.
            Content::Object(object) => {
                let has_series = object.part.is_some() || !part.starts_with("series=");
                has_series && object.may_hold(part)
            }
            Content::Row { part: named, .. } => named.as_ref().is_none_or(|named| named == part),
            Content::Memory(_) | Content::Unreadable { .. } => false,
        }
    }
}

/// Number of bytes of a file that are hashed at a time.
const CHUNK_BYTES: usize = 1 << 18;

/// Hashes the bytes of a file.
fn digest_of(path: &Path) -> io::Result<u128> {
    let mut file = File::open(path)?;
    if !file.metadata()?.is_file() {
        // A pipe may never end, and gives other bytes each time.
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut hasher = Xxh3::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hasher.digest128()),
            n_bytes => hasher.update(&chunk[..n_bytes]),
        }
    }
}

/// Hashes the path, the part, and the name, size and time of every file; also returns the newest ctime.
fn stamps(path: &str, content: &Content) -> (u128, u128) {
    let mut hasher = Xxh3::new();
    let mut word = |word: &[u8]| {
        hasher.update(&(word.len() as u64).to_le_bytes());
        hasher.update(word);
    };
    word(path.as_bytes());
    match content {
        Content::Object(object) => word(object.part.as_deref().unwrap_or_default().as_bytes()),
        Content::Row { part, .. } => word(part.as_deref().unwrap_or_default().as_bytes()),
        Content::Memory(_) | Content::Unreadable { .. } => {}
    }
    let mut changed_ns = 0;
    for file in content.files() {
        word(file.as_os_str().as_encoded_bytes());
        if let Ok(status) = std::fs::metadata(&file) {
            word(&stamp(&status));
            changed_ns = changed_ns.max(ctime_ns(&status));
        }
    }
    (hasher.digest128(), changed_ns)
}

#[cfg(unix)]
fn ctime_ns(status: &Metadata) -> u128 {
    use std::os::unix::fs::MetadataExt as _;
    let seconds = u128::try_from(status.ctime()).unwrap_or(0);
    seconds * 1_000_000_000 + u128::try_from(status.ctime_nsec()).unwrap_or(0)
}

#[cfg(not(unix))]
fn ctime_ns(_: &Metadata) -> u128 {
    0
}

fn collect_files(path: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) if depth > 0 => entries,
        _ => return files.push(path.to_owned()),
    };
    for entry in entries.flatten() {
        // As in a walk, links to folders are not followed.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_files(&entry.path(), depth - 1, files);
        } else {
            files.push(entry.path());
        }
    }
}

fn stamp(status: &Metadata) -> [u8; 24] {
    let modified = status.modified().ok();
    let nanoseconds = modified
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .map_or(0, |since| since.as_nanos());
    let mut stamp = [0; 24];
    stamp[..8].copy_from_slice(&status.len().to_le_bytes());
    stamp[8..].copy_from_slice(&nanoseconds.to_le_bytes());
    stamp
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_changes_with_any_file_below_a_row() {
        let folder = tempfile::tempdir().unwrap();
        let row = |part: Option<&str>| Content::Row {
            path: folder.path().to_owned(),
            part: part.map(str::to_owned),
        };
        std::fs::create_dir(folder.path().join("series")).unwrap();
        let file = folder.path().join("series/1");
        std::fs::write(&file, "one").unwrap();
        let key = |path: &str, content: &Content| stamps(path, content).0;
        let before = key("a", &row(None));
        assert_eq!(key("a", &row(None)), before);
        assert_ne!(key("b", &row(None)), before);
        assert_ne!(key("a", &row(Some("time=1"))), before);
        std::fs::write(&file, "longer").unwrap();
        let longer = key("a", &row(None));
        assert_ne!(longer, before);
        let later = UNIX_EPOCH + std::time::Duration::from_secs(9);
        let open = File::options().write(true).open(&file).unwrap();
        open.set_modified(later).unwrap();
        assert_ne!(key("a", &row(None)), longer);
    }
}
