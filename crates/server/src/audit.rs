//! The audit trail: who asked for what, as lines of JSON that are chained by digests.
//!
//! Each line holds the BLAKE3 digest of the line before it, so a line that is changed, removed or moved breaks the
//! chain. Lines removed at the end are found with the digest of the last line, kept elsewhere. A line is on the disk
//! before the answer that it is about leaves.

use std::fmt;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, bail, ensure};
use m3ret_files::{FolderLock, Locking, lock, make_private_folder, open_regular};
use serde::{Deserialize, Serialize};

use crate::clock;

/// What one line says. Images are named by digests and by hashes with the gallery's key, never by ids or identifiers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Name of the account.
    pub who: String,
    /// Its role.
    pub role: String,
    /// Why, as the client stated it; empty if it did not.
    pub purpose: String,
    /// Code of DICOM (PS3.16, CID 400 and 401) and its meaning, such as `110112 Query`.
    pub action: String,
    /// The gallery; empty if none was asked.
    pub index: String,
    /// Digest of the query's bytes, or the keyed hash of its id; empty if there was none.
    pub query: String,
    /// Keyed hashes of the images that were answered or shown, or of the series that were received.
    pub hits: Vec<String>,
    /// Keyed hashes of their patients, for the guard; not written.
    #[serde(skip)]
    pub patients: Vec<u64>,
}

/// A line of the trail.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Line {
    /// From 0, one more each line.
    seq: u64,
    /// Digest of the line before; zeros for the first.
    prev: String,
    /// In UTC.
    time: String,
    #[serde(flatten)]
    entry: Entry,
}

/// Where a trail ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Head {
    /// Number of lines.
    pub n_lines: u64,
    /// Digest of the last line; zeros if there is none.
    pub digest: String,
}

impl Head {
    fn empty() -> Self {
        Self {
            n_lines: 0,
            digest: "0".repeat(64),
        }
    }

    fn after(&self, line: &[u8]) -> Self {
        Self {
            n_lines: self.n_lines + 1,
            digest: digest(line),
        }
    }
}

/// The file by which room on the disk is proved, and its size: more than a line of 100 hits.
const ROOM: &str = "room";
const ROOM_BYTES: usize = 16 << 10;

fn digest(line: &[u8]) -> String {
    blake3::hash(line).to_hex().to_string()
}

/// Returns the digest of a line, by which the next one names it.
#[must_use]
pub fn digest_of_line(line: &str) -> String {
    digest(line.as_bytes())
}

/// Longest line that is read: a hundred hits take 8 KiB.
const MAX_LINE_BYTES: usize = 1 << 20;
/// How names of files begin and end; the day stands between.
const NAME: (&str, &str) = ("audit-", ".jsonl");

/// The trail that this process writes.
pub(crate) struct Audit {
    folder: PathBuf,
    state: Mutex<Writer>,
    _lock: FolderLock,
}

struct Writer {
    head: Head,
    /// The file of a day.
    open: Option<(String, File)>,
    /// The day of the last line, whose file must be there.
    day: Option<String>,
    /// Bytes of that file.
    n_bytes: u64,
    /// Whether a file was found that is not as it was left: then the trail is proved before it goes on.
    is_doubtful: bool,
    is_well: bool,
}

impl fmt::Debug for Audit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Audit")
    }
}

impl Audit {
    /// Opens the trail in a folder, which is made if it is not there, and proves what it holds.
    ///
    /// # Errors
    /// If another process writes there, the chain is broken, or the folder cannot be written.
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        make_private_folder(folder)?;
        let lock = match lock(folder)? {
            Locking::Locked(lock) | Locking::Unsupported(lock) => lock,
            Locking::Taken => bail!("another server writes the audit trail {}", folder.display()),
        };
        cut_unfinished_line(folder)?;
        let head = verify(folder)?;
        let newest = files(folder)?.pop();
        Ok(Self {
            folder: folder.to_owned(),
            state: Mutex::new(Writer {
                head,
                open: None,
                day: newest.as_deref().and_then(day_of),
                n_bytes: newest.map_or(Ok(0), |path| path.metadata().map(|file| file.len()))?,
                is_doubtful: false,
                is_well: true,
            }),
            _lock: lock,
        })
    }

    /// Writes a line and waits until the disk has it.
    pub(crate) fn write(&self, entry: Entry) -> anyhow::Result<()> {
        let mut writer = self.writer();
        let written = writer.write(&self.folder, entry);
        writer.is_well = written.is_ok();
        written
    }

    /// Whether the last line could be written; if not, whether the next one can.
    pub(crate) fn is_well(&self) -> bool {
        let mut writer = self.writer();
        if !writer.is_well {
            let now = clock::now();
            let day = writer.day_of_line(&now);
            writer.open = None;
            let opened = writer.open_day(&self.folder, &day);
            writer.is_well = opened.is_ok() && has_room(&self.folder).is_ok();
        }
        writer.is_well
    }

    /// Returns where the trail ends.
    pub(crate) fn head(&self) -> Head {
        self.writer().head.clone()
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    fn write(&mut self, folder: &Path, entry: Entry) -> anyhow::Result<()> {
        let time = clock::now();
        let day = self.day_of_line(&time);
        let line = Line {
            seq: self.head.n_lines,
            prev: self.head.digest.clone(),
            time,
            entry,
        };
        let line = serde_json::to_vec(&line)?;
        if self.open.as_ref().is_none_or(|(open, _)| *open != day) {
            self.open = Some((day.clone(), self.open_day(folder, &day)?));
        }
        let Some((_, file)) = &mut self.open else {
            bail!("no file of the audit trail is open");
        };
        // A file that was moved away would take the lines with it; one that was cut, by a program that rotates logs, lost
        // some.
        let end = file.seek(SeekFrom::End(0))?;
        let is_continued = self.day.as_ref() != Some(&day) || end == self.n_bytes;
        if !is_same(file, &folder.join(name_of(&day))) || !is_continued {
            (self.open, self.is_doubtful) = (None, true);
            bail!("the file of the audit trail is gone, or is not as it was left");
        }
        let written = file
            .write_all(&[line.as_slice(), b"\n"].concat())
            .and_then(|()| file.sync_data());
        if let Err(error) = written {
            // What was written of the line is no line.
            let _ = file.set_len(end);
            self.open = None;
            return Err(error.into());
        }
        self.head = self.head.after(&line);
        self.n_bytes = end + u64::try_from(line.len() + 1)?;
        self.day = Some(day);
        Ok(())
    }

    /// Returns the day whose file a line goes into. Files follow each other as their lines do, also if the clock was set
    /// back over midnight.
    fn day_of_line(&self, time: &str) -> String {
        let day = time.get(..10).unwrap_or_default();
        let newest = self.day.as_deref().unwrap_or_default();
        day.max(newest).to_owned()
    }

    /// Opens the file of a day, and makes it unless it held lines: lines that are gone must not go unnoticed.
    fn open_day(&mut self, folder: &Path, day: &str) -> anyhow::Result<File> {
        if self.is_doubtful {
            ensure!(
                verify(folder)? == self.head,
                "the audit trail is not as it was left"
            );
            self.is_doubtful = false;
        }
        let path = folder.join(name_of(day));
        m3ret_files::refuse_irregular(&path)?;
        let mut options = File::options();
        options
            .append(true)
            .create(self.day.as_deref() != Some(day));
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path).context("opening the audit trail")?;
        m3ret_files::sync_folder(folder)?;
        Ok(file)
    }
}

/// Whether a file that is open is the one of this name.
fn is_same(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), path.symlink_metadata()) else {
        return false;
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        (open.dev(), open.ino()) == (named.dev(), named.ino())
    }
    #[cfg(not(unix))]
    {
        open.is_file() && named.is_file()
    }
}

/// Returns the day of a file of the trail.
fn day_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let day = name.strip_prefix(NAME.0)?.strip_suffix(NAME.1)?;
    Some(day.to_owned())
}

fn name_of(day: &str) -> String {
    format!("{}{day}{}", NAME.0, NAME.1)
}

/// Writes a file as large as a long line, and removes it.
fn has_room(folder: &Path) -> std::io::Result<()> {
    let path = folder.join(ROOM);
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&path).and_then(|mut file| {
        file.write_all(&[b' '; ROOM_BYTES])?;
        file.sync_all()
    });
    let removed = std::fs::remove_file(&path);
    written.and(removed)
}

/// Returns the files of a trail in the order of their days.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("opening the audit trail {}", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(NAME.0) && name.ends_with(NAME.1) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Cuts off what a killed server left of a line whose answer never left.
fn cut_unfinished_line(folder: &Path) -> anyhow::Result<()> {
    let Some(newest) = files(folder)?.pop() else {
        return Ok(());
    };
    let bytes = read(&newest)?;
    let end = bytes
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |at| at + 1);
    if end < bytes.len() {
        let file = File::options().write(true).open(&newest)?;
        file.set_len(u64::try_from(end)?)?;
        file.sync_all()?;
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file = open_regular(path)
        .with_context(|| format!("opening the audit trail {}", path.display()))?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Proves that each line of a trail follows the one before, and returns where it ends.
///
/// # Errors
/// If a line was changed, removed, added or moved: the first that does not follow is named. If the trail cannot be read.
pub fn verify(folder: &Path) -> anyhow::Result<Head> {
    each_line(folder, &mut |_| Ok(()))
}

/// Proves a trail, and passes each line on, as it stands.
///
/// # Errors
/// As `verify`, and those of `take`.
pub fn each_line(
    folder: &Path,
    take: &mut dyn FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<Head> {
    let mut head = Head::empty();
    for path in files(folder)? {
        let bytes = read(&path)?;
        let mut lines = bytes.split(|&byte| byte == b'\n');
        // What follows the last line break is empty.
        let rest = lines.next_back().unwrap_or_default();
        for (place, line) in lines.chain((!rest.is_empty()).then_some(rest)).enumerate() {
            let text = check(line, &head)
                .with_context(|| format!("{}: line {} (from 1)", path.display(), place + 1))?;
            take(text)?;
            head = head.after(line);
        }
        ensure!(rest.is_empty(), "{}: the last line is cut", path.display());
    }
    Ok(head)
}

fn check<'a>(line: &'a [u8], head: &Head) -> anyhow::Result<&'a str> {
    ensure!(line.len() <= MAX_LINE_BYTES, "the line is too long");
    let text = std::str::from_utf8(line).context("the line is no text")?;
    let Ok(Line { seq, prev, .. }) = serde_json::from_str(text) else {
        bail!("found no line of an audit trail");
    };
    ensure!(
        seq == head.n_lines,
        "found line number {seq}, wanted {}: lines were removed or moved",
        head.n_lines
    );
    ensure!(
        prev == head.digest,
        "the line before was changed: its digest is {}, and {prev} is wanted",
        head.digest
    );
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trail(n_lines: usize) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::open(folder.path()).unwrap();
        for i in 0..n_lines {
            let entry = Entry {
                who: "ann".to_owned(),
                query: i.to_string(),
                ..Entry::default()
            };
            audit.write(entry).unwrap();
        }
        folder
    }

    fn only_file(folder: &Path) -> PathBuf {
        files(folder).unwrap().pop().unwrap()
    }

    type Change = dyn Fn(&mut Vec<String>);

    /// Writes the lines anew, as `change` leaves them, and returns what `verify` says.
    fn verify_changed(change: &Change) -> anyhow::Result<Head> {
        let folder = trail(5);
        let path = only_file(folder.path());
        let text = std::fs::read_to_string(&path).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        change(&mut lines);
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        verify(folder.path())
    }

    #[test]
    fn a_changed_removed_moved_or_added_line_is_found() {
        let whole = verify_changed(&|_| {}).unwrap();
        assert_eq!(whole.n_lines, 5);
        let changes: [&Change; 7] = [
            &|lines| lines[1] = lines[1].replace("ann", "bob"),
            &|lines| drop(lines.remove(0)),
            &|lines| drop(lines.remove(2)),
            &|lines| lines.swap(1, 2),
            &|lines| lines.insert(3, lines[2].clone()),
            &|lines| lines[3].push(' '),
            &|lines| lines[2] = String::new(),
        ];
        for (idx, change) in changes.iter().enumerate() {
            assert!(verify_changed(*change).is_err(), "change {idx}");
        }
        // What is removed at the end is found by the head, which is kept elsewhere.
        let cut = verify_changed(&|lines| drop(lines.pop())).unwrap();
        assert_eq!(cut.n_lines, 4);
        assert_ne!(cut, whole);
    }

    #[test]
    fn a_trail_goes_on_after_a_restart_and_after_a_cut_line() {
        let folder = trail(3);
        let path = only_file(folder.path());
        let audit = Audit::open(folder.path()).unwrap();
        assert!(Audit::open(folder.path()).is_err(), "two writers");
        audit.write(Entry::default()).unwrap();
        let head = audit.head();
        drop(audit);
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"{\"seq\":4,\"pr").unwrap();
        assert!(verify(folder.path()).is_err());
        let audit = Audit::open(folder.path()).unwrap();
        assert_eq!(audit.head(), head);
        audit.write(Entry::default()).unwrap();
        assert_eq!(verify(folder.path()).unwrap(), audit.head());
        assert_eq!(audit.head().n_lines, 5);
    }

    #[test]
    fn a_trail_that_cannot_be_written_says_so() {
        let folder = trail(1);
        let other = folder.path().with_extension("other");
        let mut audit = Audit::open(folder.path()).unwrap();
        audit.write(Entry::default()).unwrap();
        // The file is gone, or another is in its place: the trail must not go on without the lines.
        let file = only_file(folder.path());
        let kept = folder.path().join("kept");
        std::fs::rename(&file, &kept).unwrap();
        assert!(audit.write(Entry::default()).is_err() && !audit.is_well());
        assert!(audit.write(Entry::default()).is_err(), "nor at once again");
        assert!(!file.exists(), "no empty file hides that");
        std::fs::rename(&kept, &file).unwrap();
        assert!(audit.is_well());
        audit.write(Entry::default()).unwrap();
        std::fs::copy(&file, &kept).unwrap();
        std::fs::rename(&kept, &file).unwrap();
        assert!(audit.write(Entry::default()).is_err(), "a copy");
        audit.write(Entry::default()).unwrap();
        // Cut in place, as programs that rotate logs do, and changed in place.
        let whole = std::fs::read(&file).unwrap();
        for changed in [Vec::new(), [&b"x"[..], &whole].concat()] {
            std::fs::write(&file, changed).unwrap();
            for _ in 0..2 {
                assert!(audit.write(Entry::default()).is_err() && !audit.is_well());
            }
            std::fs::write(&file, &whole).unwrap();
            assert!(audit.is_well(), "it is as it was left");
            audit.write(Entry::default()).unwrap();
            std::fs::write(&file, &whole).unwrap();
            assert!(audit.write(Entry::default()).is_err(), "a line is missing");
            assert!(!audit.is_well());
            drop(std::mem::replace(&mut audit, Audit::open(&other).unwrap()));
            audit = Audit::open(folder.path()).unwrap();
        }
        std::fs::remove_dir_all(folder.path()).unwrap();
        assert!(audit.write(Entry::default()).is_err() && !audit.is_well());
        std::fs::remove_dir_all(other).unwrap();
    }

    #[test]
    fn a_clock_that_was_set_back_breaks_no_trail() {
        let folder = trail(2);
        let file = only_file(folder.path());
        std::fs::rename(&file, folder.path().join(name_of("2999-12-31"))).unwrap();
        let audit = Audit::open(folder.path()).unwrap();
        audit.write(Entry::default()).unwrap();
        drop(audit);
        assert_eq!(verify(folder.path()).unwrap().n_lines, 3);
        assert_eq!(files(folder.path()).unwrap().len(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn only_its_user_reads_a_trail() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = trail(1);
        let status = std::fs::metadata(only_file(folder.path())).unwrap();
        assert_eq!(status.permissions().mode() & 0o777, 0o600);
    }
}
