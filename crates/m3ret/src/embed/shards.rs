//! The work folder: finished work in shards that appear whole or not at all.
//!
//! `F.part/` holds `settings.json`, `lock`, `shard-000000.m3s` and so on, and `exchanged.json` while results take
//! the place of older ones. A shard is the magic,
//! a JSON header with its length before it, the vectors as f32, and a checksum of all of that;
//! integers and floats are little-endian. A shard never changes: rows that are no longer current
//! (another key) are skipped when the results are written.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::Context as _;
use m3ret_files::{FolderLock, Locking};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{Facts, Row, remove_if_there};
use crate::files::write_whole;

const MAGIC: &[u8; 8] = b"m3shard1";

/// The file with the settings of the shards, which marks the folder as ours.
const SETTINGS: &str = "settings.json";
/// Names the arrays that lie at the place of the result while it is exchanged, without a list that shows whose they are.
const EXCHANGED: &str = "exchanged.json";

/// Most items of one shard; it is written earlier when the time between saves has passed.
const MAX_ITEMS: usize = 1024;

/// Everything that decides the vectors; work of other settings is refused, not mixed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Settings {
    pub(super) format: u32,
    /// Version of m3ret: another version may prepare images in another way.
    #[serde(default)]
    pub(super) version: String,
    pub(super) fingerprint: String,
    pub(super) precision: String,
    pub(super) width: usize,
    /// Frames and limits.
    pub(super) reading: String,
}

/// What an earlier run left.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum EarlierWork {
    Nothing,
    /// Items that need not be embedded again, if their keys come up.
    Items {
        n_damaged: usize,
    },
    /// The earlier work was removed on request.
    Removed,
}

/// Where the vector of a row lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    shard: usize,
    vector: usize,
}

/// The rows of an item that an earlier run embedded.
pub(super) type KeptRows = HashMap<u128, Vec<Row>>;

/// The header of a shard.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    width: usize,
    items: Vec<ShardItem>,
}

/// One item of a shard.
#[derive(Debug, Serialize, Deserialize)]
struct ShardItem {
    /// None if an image of the item was refused: the next run retries it.
    key: Option<String>,
    /// What is known of each image that has a vector.
    rows: Vec<Facts>,
}

/// How a work folder is opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct ShardOptions {
    pub(super) save_every: Duration,
    /// Whether earlier work is removed instead of resumed.
    pub(super) is_restart: bool,
}

/// The open work folder.
pub(super) struct Shards {
    folder: PathBuf,
    width: usize,
    save_every: Duration,
    /// The number of the shard that is being filled.
    current: usize,
    header: Header,
    vectors: Vec<f32>,
    last_save: Instant,
    /// The shard that was read last, kept because rows are mostly read in order.
    open: Option<(usize, File, u64)>,
    /// Held while the folder is in use.
    _lock: FolderLock,
}

impl Shards {
    /// Opens or makes the folder, and reads its shards.
    pub(super) fn open(
        folder: &Path,
        settings: &Settings,
        opening: ShardOptions,
    ) -> anyhow::Result<(Self, KeptRows, EarlierWork)> {
        let doing = || format!("opening the work folder {}", folder.display());
        refuse_foreign(folder).with_context(doing)?;
        match m3ret_files::make_one_private_folder(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).with_context(doing);
            }
            _ => {}
        }
        let lock = lock(folder)?;
        m3ret_files::remove_leftovers(folder);
        let mut shards = Self {
            folder: folder.to_owned(),
            width: settings.width,
            save_every: opening.save_every,
            current: 0,
            header: Header {
                width: settings.width,
                items: Vec::new(),
            },
            vectors: Vec::new(),
            last_save: Instant::now(),
            open: None,
            _lock: lock,
        };
        let (kept, found) = shards
            .take_over(settings, opening.is_restart)
            .with_context(doing)?;
        Ok((shards, kept, found))
    }

    /// Reads the shards of an earlier run; fails if it had other settings.
    fn take_over(
        &mut self,
        settings: &Settings,
        is_restart: bool,
    ) -> anyhow::Result<(KeptRows, EarlierWork)> {
        let path = self.folder.join(SETTINGS);
        let earlier = settings_in(&self.folder);
        let numbers = self.numbers()?;
        if is_restart {
            for &number in &numbers {
                std::fs::remove_file(self.path(number))?;
            }
        } else if !numbers.is_empty() {
            let what = match &earlier {
                Some(earlier) => settings.difference_from(earlier),
                None => Some("settings that cannot be read".to_owned()),
            };
            if let Some(what) = what {
                anyhow::bail!(
                    "its work is of {what}; run the same command as before to go on with it, \
                     or add --restart to remove it and begin anew"
                );
            }
        }
        if earlier.as_ref() != Some(settings) {
            write_whole(&path, |out| {
                Ok(serde_json::to_writer_pretty(out, settings)?)
            })?;
        }
        if is_restart && !numbers.is_empty() {
            return Ok((KeptRows::new(), EarlierWork::Removed));
        }
        let (mut kept, mut n_damaged) = (KeptRows::new(), 0);
        for &number in &numbers {
            self.current = number + 1;
            match self.read(number) {
                Ok(header) => add(&mut kept, number, header),
                Err(_) => n_damaged += 1,
            }
        }
        let found = if numbers.is_empty() {
            EarlierWork::Nothing
        } else {
            EarlierWork::Items { n_damaged }
        };
        Ok((kept, found))
    }

    /// Lists the numbers of the shards that are there.
    fn numbers(&self) -> anyhow::Result<Vec<usize>> {
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(number_of);
            numbers.extend(number);
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn path(&self, number: usize) -> PathBuf {
        self.folder.join(shard_name(number))
    }

    /// Reads and checks a shard, and returns its header.
    fn read(&self, number: usize) -> anyhow::Result<Header> {
        let bytes = std::fs::read(self.path(number))?;
        let (content, checksum) = bytes.split_last_chunk::<8>().context("too short")?;
        anyhow::ensure!(xxh3_64(content) == u64::from_le_bytes(*checksum), "damaged");
        let rest = content.strip_prefix(MAGIC).context("no shard")?;
        let (n_header, rest) = rest.split_first_chunk::<8>().context("too short")?;
        let n_header = usize::try_from(u64::from_le_bytes(*n_header))?;
        let (header, vectors) = rest.split_at_checked(n_header).context("too short")?;
        let header: Header = serde_json::from_slice(header)?;
        let n_rows: usize = header.items.iter().map(|item| item.rows.len()).sum();
        let n_bytes = n_rows.checked_mul(4 * self.width);
        anyhow::ensure!(header.width == self.width, "another width");
        anyhow::ensure!(n_bytes == Some(vectors.len()), "another number of vectors");
        Ok(header)
    }

    /// Keeps the images of an item, in their order, and returns where their vectors will lie.
    ///
    /// With `key`, a later run need not embed the item again.
    pub(super) fn push(&mut self, key: Option<u128>, images: Vec<(Facts, Vec<f32>)>) -> Vec<Place> {
        let mut rows = Vec::with_capacity(images.len());
        let mut places = Vec::with_capacity(images.len());
        for (facts, vector) in images {
            places.push(Place {
                shard: self.current,
                vector: self.vectors.len() / self.width,
            });
            rows.push(facts);
            self.vectors.extend(vector);
        }
        if !rows.is_empty() {
            let key = key.map(|key| format!("{key:032x}"));
            self.header.items.push(ShardItem { key, rows });
        }
        places
    }

    /// Writes what is not yet on disk, if it is large or old enough.
    pub(super) fn save_if_due(&mut self) -> anyhow::Result<()> {
        let is_due = self.last_save.elapsed() >= self.save_every;
        if is_due || self.header.items.len() >= MAX_ITEMS {
            self.save()?;
        }
        Ok(())
    }

    /// Writes what is not yet on disk.
    pub(super) fn save(&mut self) -> anyhow::Result<()> {
        self.last_save = Instant::now();
        if self.header.items.is_empty() {
            return Ok(());
        }
        let header = serde_json::to_vec(&self.header)?;
        let mut bytes = Vec::with_capacity(header.len() + 4 * self.vectors.len() + 24);
        bytes.extend(MAGIC);
        bytes.extend((header.len() as u64).to_le_bytes());
        bytes.extend(header);
        bytes.extend(self.vectors.iter().flat_map(|value| value.to_le_bytes()));
        bytes.extend(xxh3_64(&bytes).to_le_bytes());
        write_whole(&self.path(self.current), |out| Ok(out.write_all(&bytes)?))?;
        self.header.items.clear();
        self.vectors.clear();
        self.current += 1;
        Ok(())
    }

    /// Reads one saved vector.
    pub(super) fn vector(&mut self, place: Place) -> anyhow::Result<Vec<f32>> {
        let path = self.path(place.shard);
        let doing = || format!("reading {}", path.display());
        if self.open.as_ref().is_none_or(|open| open.0 != place.shard) {
            let mut file = File::open(&path).with_context(doing)?;
            let mut start = [0; 16];
            file.read_exact(&mut start).with_context(doing)?;
            let (_, n_header) = start.split_at(8);
            let n_header = u64::from_le_bytes(n_header.try_into()?);
            self.open = Some((place.shard, file, 16 + n_header));
        }
        let (_, file, first) = self.open.as_mut().context("a shard is open")?;
        let mut bytes = vec![0; 4 * self.width];
        let offset = *first + (place.vector * bytes.len()) as u64;
        file.seek(SeekFrom::Start(offset)).with_context(doing)?;
        file.read_exact(&mut bytes).with_context(doing)?;
        let (values, _) = bytes.as_chunks::<4>();
        Ok(values
            .iter()
            .map(|&value| f32::from_le_bytes(value))
            .collect())
    }

    /// Notes the array that is about to be replaced, if there is one, and the one that takes its place: a run that ends in
    /// between leaves one of them without its list, and the next run may replace it.
    pub(super) fn note_exchange(&self, arrays: [&Path; 2]) -> anyhow::Result<()> {
        let stamps: Vec<String> = arrays.into_iter().filter_map(stamp_of).collect();
        write_whole(&self.folder.join(EXCHANGED), |out| {
            Ok(serde_json::to_writer(out, &stamps)?)
        })?;
        Ok(())
    }

    /// Removes the folder once the results are on disk; files that are not ours stay.
    pub(super) fn remove(self) -> anyhow::Result<()> {
        let doing = || format!("removing the work folder {}", self.folder.display());
        for number in self.numbers().with_context(doing)? {
            std::fs::remove_file(self.path(number)).with_context(doing)?;
        }
        remove_if_there(&self.folder.join(EXCHANGED))?;
        for name in [SETTINGS, "lock"] {
            std::fs::remove_file(self.folder.join(name)).with_context(doing)?;
        }
        match std::fs::remove_dir(&self.folder) {
            Err(error) if error.kind() != ErrorKind::DirectoryNotEmpty => {
                Err(error).with_context(doing)
            }
            _ => Ok(()),
        }
    }
}

impl Settings {
    /// Names the first setting that is not the same, as it was and as it is now.
    fn difference_from(&self, other: &Self) -> Option<String> {
        let (what, was, is) = if self.fingerprint != other.fingerprint {
            let (was, is) = (other.fingerprint.clone(), self.fingerprint.clone());
            ("another model", was, is)
        } else if self.precision != other.precision {
            let (was, is) = (other.precision.clone(), self.precision.clone());
            ("another precision", was, is)
        } else if self.reading != other.reading {
            let (was, is) = differing_words(&other.reading, &self.reading);
            ("other reading options", was, is)
        } else if self.version != other.version {
            let (was, is) = (other.version.clone(), self.version.clone());
            ("another version of m3ret", was, is)
        } else if self != other {
            return Some("another layout of shards".to_owned());
        } else {
            return None;
        };
        Some(format!("{what} ({was}, now {is})"))
    }
}

/// Returns the words in which two lists differ, place by place.
fn differing_words(one: &str, other: &str) -> (String, String) {
    let (ones, others): (Vec<&str>, Vec<&str>) =
        (one.split(", ").collect(), other.split(", ").collect());
    if ones.len() != others.len() {
        return (one.to_owned(), other.to_owned());
    }
    let pairs = ones
        .into_iter()
        .zip(others)
        .filter(|(one, other)| one != other);
    let (ones, others): (Vec<&str>, Vec<&str>) = pairs.unzip();
    (ones.join(", "), others.join(", "))
}

fn add(kept: &mut KeptRows, shard: usize, header: Header) {
    let mut vector = 0;
    for item in header.items {
        let mut rows = Vec::with_capacity(item.rows.len());
        for facts in item.rows {
            let place = Ok(Place { shard, vector });
            rows.push(Row { facts, place });
            vector += 1;
        }
        let key = item.key.and_then(|key| u128::from_str_radix(&key, 16).ok());
        if let Some(key) = key {
            kept.insert(key, rows);
        }
    }
}

/// Returns whether an array is one that a run was exchanging when it ended, as its work folder says.
pub(super) fn is_exchanged(folder: &Path, array: &Path) -> bool {
    let noted = std::fs::read(folder.join(EXCHANGED)).ok();
    let stamps: Option<Vec<String>> = noted.and_then(|text| serde_json::from_slice(&text).ok());
    let is_noted = |stamp| stamps.is_some_and(|stamps| stamps.contains(&stamp));
    is_work_folder(folder) && stamp_of(array).is_some_and(is_noted)
}

/// Returns the size and the time of a file, which a new name does not change.
fn stamp_of(path: &Path) -> Option<String> {
    let status = std::fs::metadata(path).ok()?;
    let since = status.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(format!("{} bytes, {} ns", status.len(), since.as_nanos()))
}

/// Returns whether a folder is a work folder of any run.
pub(super) fn is_work_folder(folder: &Path) -> bool {
    settings_in(folder).is_some()
}

fn settings_in(folder: &Path) -> Option<Settings> {
    let text = std::fs::read(folder.join(SETTINGS)).ok()?;
    serde_json::from_slice(&text).ok()
}

fn shard_name(number: usize) -> String {
    format!("shard-{number:06}.m3s")
}

fn number_of(name: &str) -> Option<usize> {
    let digits = name.strip_prefix("shard-")?.strip_suffix(".m3s")?;
    let number = digits.parse().ok()?;
    // The next one must have a number too, and each its one name.
    (number < usize::MAX && shard_name(number) == name).then_some(number)
}

/// Returns whether m3ret made a work folder, or left it behind before its first save.
pub(crate) fn is_own(folder: &Path) -> bool {
    folder.is_dir() && refuse_foreign(folder).is_ok()
}

/// Refuses a folder that m3ret did not make, so that nothing in it is lost.
fn refuse_foreign(folder: &Path) -> anyhow::Result<()> {
    match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
        Ok(entries) => {
            let names = entries.map(|entry| Ok(entry?.file_name()));
            let names = names.collect::<std::io::Result<Vec<OsString>>>()?;
            let is_shard = |name: &OsString| name.to_str().and_then(number_of).is_some();
            let is_ours = is_work_folder(folder)
                || (names.iter().any(|name| name == SETTINGS) && names.iter().any(is_shard))
                || names.iter().all(|name| is_of_first_moment(folder, name));
            anyhow::ensure!(
                is_ours,
                "found a folder that m3ret did not make; rename it, or give the result another name"
            );
            Ok(())
        }
    }
}

/// Returns whether a run that is killed before it writes its settings may leave this file.
fn is_of_first_moment(folder: &Path, name: &OsString) -> bool {
    let name = name.to_string_lossy();
    let is_empty = || std::fs::metadata(folder.join("lock")).is_ok_and(|lock| lock.len() == 0);
    (name == "lock" && is_empty()) || (name.starts_with(".m3ret-") && name.ends_with(".part"))
}

fn lock(folder: &Path) -> anyhow::Result<FolderLock> {
    match m3ret_files::lock(folder)? {
        Locking::Taken => anyhow::bail!(
            "another m3ret is working in {}; wait for it, or give the result another name",
            folder.display()
        ),
        // Some network file systems have no locks.
        Locking::Locked(lock) | Locking::Unsupported(lock) => Ok(lock),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            format: 1,
            version: "1.0.0".into(),
            fingerprint: "f".into(),
            precision: "f32".into(),
            width: 2,
            reading: "a: 1, b: 2".into(),
        }
    }

    const GO_ON: ShardOptions = ShardOptions {
        save_every: Duration::ZERO,
        is_restart: false,
    };

    fn open(folder: &Path, settings: &Settings) -> (Shards, KeptRows, EarlierWork) {
        Shards::open(folder, settings, GO_ON).unwrap()
    }

    fn refusal(folder: &Path, settings: &Settings) -> String {
        let error = Shards::open(folder, settings, GO_ON).err().unwrap();
        format!("{error:#}")
    }

    fn facts(part: &str) -> Facts {
        Facts {
            part: Some(part.into()),
            ..Facts::default()
        }
    }

    #[test]
    fn what_was_saved_is_found_again_and_what_was_refused_is_not() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("work");
        let (mut shards, kept, found) = open(&folder, &settings());
        assert_eq!((kept.len(), found), (0, EarlierWork::Nothing));
        let images = vec![(facts("a"), vec![1.0, 2.0]), (facts("b"), vec![3.0, 4.0])];
        shards.push(Some(7), images);
        shards.save_if_due().unwrap();
        let places = shards.push(None, vec![(facts("c"), vec![5.0, 6.0])]);
        shards.save().unwrap();
        assert_eq!(shards.vector(places[0]).unwrap(), [5.0, 6.0]);
        shards.push(Some(8), Vec::new());
        drop(shards);
        let (mut shards, kept, found) = open(&folder, &settings());
        assert_eq!(found, EarlierWork::Items { n_damaged: 0 });
        assert_eq!(kept.keys().collect::<Vec<_>>(), [&7]);
        let rows = &kept[&7];
        assert_eq!(rows[1].facts, facts("b"));
        assert_eq!(
            shards.vector(*rows[1].place.as_ref().unwrap()).unwrap(),
            [3.0, 4.0]
        );
        // New shards never replace old ones.
        let places = shards.push(Some(9), vec![(facts("d"), vec![7.0, 8.0])]);
        assert_eq!(places[0].shard, 2);
        shards.remove().unwrap();
        assert!(!folder.exists());
    }

    #[test]
    fn an_array_that_was_being_exchanged_is_known_by_its_size_and_time() {
        let root = tempfile::tempdir().unwrap();
        let (folder, array) = (root.path().join("work"), root.path().join("v.npy"));
        let (shards, ..) = open(&folder, &settings());
        std::fs::write(&array, "old").unwrap();
        let new = root.path().join("new");
        std::fs::write(&new, "newer").unwrap();
        assert!(!is_exchanged(&folder, &array));
        shards.note_exchange([&array, &new]).unwrap();
        assert!(is_exchanged(&folder, &array));
        std::fs::rename(&new, &array).unwrap();
        assert!(is_exchanged(&folder, &array));
        std::fs::write(&array, "by the user").unwrap();
        assert!(!is_exchanged(&folder, &array));
        std::fs::remove_file(&array).unwrap();
        assert!(!is_exchanged(&folder, &array));
        shards.remove().unwrap();
        assert!(!folder.exists());
    }

    #[test]
    fn a_damaged_shard_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        let (mut shards, ..) = open(root.path(), &settings());
        for key in [1, 2] {
            shards.push(Some(key), vec![(facts("a"), vec![1.0, 2.0])]);
            shards.save().unwrap();
        }
        let path = shards.path(0);
        drop(shards);
        let bytes = std::fs::read(&path).unwrap();
        for n_bytes in 0..bytes.len() {
            std::fs::write(&path, &bytes[..n_bytes]).unwrap();
            let (_, kept, found) = open(root.path(), &settings());
            assert_eq!(found, EarlierWork::Items { n_damaged: 1 });
            assert_eq!(kept.keys().collect::<Vec<_>>(), [&2], "{n_bytes} bytes");
        }
    }

    #[test]
    fn work_of_other_settings_stays_unless_a_restart_is_asked_for() {
        type Change = fn(&mut Settings);
        let root = tempfile::tempdir().unwrap();
        let (mut shards, ..) = open(root.path(), &settings());
        shards.push(Some(1), vec![(facts("a"), vec![0.0; 2])]);
        shards.save().unwrap();
        drop(shards);
        let changes: [(Change, &str); 5] = [
            (|s| s.fingerprint = "g".into(), "another model (f, now g)"),
            (
                |s| s.precision = "int8".into(),
                "another precision (f32, now int8)",
            ),
            (
                |s| s.reading = "a: 1, b: 3".into(),
                "other reading options (b: 2, now b: 3)",
            ),
            (
                |s| s.version = "1.0.1".into(),
                "another version of m3ret (1.0.0, now 1.0.1)",
            ),
            (|s| s.width = 3, "another layout of shards"),
        ];
        for (change, what) in changes {
            let mut other = settings();
            change(&mut other);
            let error = refusal(root.path(), &other);
            assert!(error.contains(what), "{error}");
            assert!(error.contains("--restart"), "{error}");
        }
        assert_eq!(open(root.path(), &settings()).1.len(), 1);
        std::fs::write(root.path().join("settings.json"), "{").unwrap();
        let error = refusal(root.path(), &settings());
        assert!(error.contains("settings that cannot be read"), "{error}");
        let restart = ShardOptions {
            is_restart: true,
            ..GO_ON
        };
        let (shards, kept, found) = Shards::open(root.path(), &settings(), restart).unwrap();
        assert_eq!((kept.len(), found), (0, EarlierWork::Removed));
        drop(shards);
        assert_eq!(open(root.path(), &settings()).2, EarlierWork::Nothing);
    }

    #[test]
    fn a_folder_of_others_and_one_in_use_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let (shards, ..) = open(root.path(), &settings());
        let error = refusal(root.path(), &settings());
        assert!(error.contains("another m3ret"), "{error}");
        shards.remove().unwrap();
        for names in [&["thesis.txt"][..], &["lock"], &["lock", SETTINGS]] {
            let other = tempfile::tempdir().unwrap();
            for name in names {
                std::fs::write(other.path().join(name), "mine").unwrap();
            }
            let error = refusal(other.path(), &settings());
            assert!(error.contains("did not make"), "{error}");
            for name in names {
                let text = std::fs::read_to_string(other.path().join(name)).unwrap();
                assert_eq!(text, "mine");
            }
            let n_files = std::fs::read_dir(other.path()).unwrap().count();
            assert_eq!(n_files, names.len());
        }
    }

    #[test]
    fn a_run_that_was_killed_at_its_first_step_left_nothing_in_the_way() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("lock"), "").unwrap();
        std::fs::write(root.path().join(".m3ret-x.part"), "{").unwrap();
        assert_eq!(open(root.path(), &settings()).2, EarlierWork::Nothing);
    }

    #[test]
    fn a_shard_has_one_name() {
        for (name, number) in [
            ("shard-000007.m3s", Some(7)),
            ("shard-1234567.m3s", Some(1_234_567)),
            ("shard-7.m3s", None),
            ("shard-+00007.m3s", None),
            ("shard-18446744073709551615.m3s", None),
        ] {
            assert_eq!(number_of(name), number, "{name}");
        }
    }
}
