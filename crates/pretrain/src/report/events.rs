//! Event files, which `TensorBoard` draws: records of Protocol Buffers messages, each with checksums.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::Entry;
use crate::error::{Error, Result};
use crate::files::sync_folder;

/// The most files that may begin in one second.
const MAX_FILES: usize = 1000;

/// An event file that is being written.
#[derive(Debug)]
pub(crate) struct Events {
    path: PathBuf,
    file: File,
}

impl Events {
    /// Begins a file in a folder, which is made where it is missing.
    ///
    /// The file says that a session starts at `next_step`, so that what older files hold from there on is
    /// not drawn. `wall_time` is in seconds since 1970.
    ///
    /// # Errors
    /// `Io` if the file cannot be written.
    pub(crate) fn begin(folder: &Path, wall_time: f64, next_step: u64) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let (path, file) = create(folder, wall_time).map_err(Error::io(folder))?;
        let mut events = Self { path, file };
        let version = [varint_field(2, 0), bytes_field(3, b"brain.Event:2")].concat();
        let start = [
            varint_field(2, next_step),
            bytes_field(7, &varint_field(1, START)),
        ]
        .concat();
        events.write(&[(wall_time, version), (wall_time, start)])?;
        Ok(events)
    }

    /// Adds the numbers of an entry, by the names of `Entry::numbers`.
    ///
    /// # Errors
    /// `Io` if the file cannot be written.
    pub(crate) fn append(&mut self, wall_time: f64, entry: &Entry) -> Result<()> {
        let values: Vec<u8> = entry
            .numbers()
            .flat_map(|(name, value)| bytes_field(1, &summary_value(name, value)))
            .collect();
        let event = [varint_field(2, entry.step), bytes_field(5, &values)].concat();
        self.write(&[(wall_time, event)])
    }

    /// Makes the file outlive a loss of power.
    ///
    /// # Errors
    /// `Io` if the system cannot.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(Error::io(&self.path))
    }

    fn write(&mut self, events: &[(f64, Vec<u8>)]) -> Result<()> {
        let records: Vec<u8> = events
            .iter()
            .flat_map(|(wall_time, rest)| {
                record(&[&double_field(1, *wall_time), &rest[..]].concat())
            })
            .collect();
        self.file.write_all(&records).map_err(Error::io(&self.path))
    }
}

/// `SessionLog.START`
const START: u64 = 1;

/// Two runs may begin in one second: the second file has another number.
fn create(folder: &Path, wall_time: f64) -> io::Result<(PathBuf, File)> {
    let mut newest = io::Error::other("no name for an event file is free");
    for number in 0..MAX_FILES {
        // Ten digits, so that names sort by time.
        let name = format!(
            "events.out.tfevents.{:010}.m3ret.{number}",
            wall_time.trunc()
        );
        let path = folder.join(name);
        match OpenOptions::new().append(true).create_new(true).open(&path) {
            Ok(file) => {
                sync_folder(folder)?;
                return Ok((path, file));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => newest = error,
            Err(error) => return Err(error),
        }
    }
    Err(newest)
}

/// `Summary.Value`: a tag and an f32.
fn summary_value(tag: &str, value: f64) -> Vec<u8> {
    #[allow(clippy::cast_possible_truncation, reason = "the format stores f32")]
    let value = value as f32;
    let mut bytes = bytes_field(1, tag.as_bytes());
    bytes.push(key(2, 5));
    bytes.extend(value.to_le_bytes());
    bytes
}

/// Returns a field's key; all of ours are below 16, so that it is one byte.
///
/// # Source
/// Protocol Buffers, "Encoding": field number, then wire type (0 varint, 1 eight bytes, 2 a length and bytes,
/// 5 four bytes).
fn key(field: u8, wire_type: u8) -> u8 {
    field << 3 | wire_type
}

fn double_field(field: u8, value: f64) -> Vec<u8> {
    let mut bytes = vec![key(field, 1)];
    bytes.extend(value.to_le_bytes());
    bytes
}

fn bytes_field(field: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![key(field, 2)];
    bytes.extend(varint(content.len() as u64));
    bytes.extend(content);
    bytes
}

fn varint_field(field: u8, value: u64) -> Vec<u8> {
    let mut bytes = vec![key(field, 0)];
    bytes.extend(varint(value));
    bytes
}

/// Seven bits a byte, lowest first; the eighth says that more follow.
fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            bytes.push(low & 0x7f);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// Frames a record: length, its checksum, content, its checksum.
///
/// # Source
/// `TensorFlow`, "`TFRecord` and `tf.train.Example`", section "`TFRecords` format details".
fn record(content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u64).to_le_bytes();
    let mut bytes = length.to_vec();
    bytes.extend(masked_crc(&length).to_le_bytes());
    bytes.extend(content);
    bytes.extend(masked_crc(content).to_le_bytes());
    bytes
}

/// CRC-32C, rotated and shifted so that checksums of data with checksums stay good.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Knn;

    #[test]
    fn varints_are_as_the_encoding_page_shows() {
        assert_eq!(varint(0), [0]);
        assert_eq!(varint(1), [1]);
        assert_eq!(varint(150), [0x96, 0x01]);
        assert_eq!(varint(u64::MAX).len(), 10);
    }

    /// Every byte by hand, the checksums bit by bit from the reversed polynomial 0x82f63b78.
    const WANTED: [&str; 3] = [
        // 26 bytes: wall time 1.5, step 0, version.
        "1a00000000000000 129bd82d 09000000000000f83f 1000 1a0d 627261696e2e4576656e743a32 d3dc531e",
        // 16 bytes: wall time 1.5, step 300, a session that starts.
        "1000000000000000 95fbfe18 09000000000000f83f 10ac02 3a02 0801 713b788a",
        // 27 bytes: wall time 2, step 300, a summary of one value: tag and f32.
        "1b00000000000000 1a0d9e13 090000000000000040 10ac02 2a0d 0a0b 0a04 6c6f7373 150000003f dfc52b60",
    ];

    #[test]
    fn a_file_is_right_to_the_byte() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = Events::begin(folder.path(), 1.5, 300).unwrap();
        let entry = Entry {
            step: 300,
            loss: Some(0.5),
            epoch: f64::NAN,
            ..Entry::default()
        };
        events.append(2.0, &entry).unwrap();
        events.sync().unwrap();
        let path = folder.path().join("events.out.tfevents.0000000001.m3ret.0");
        let found: String = std::fs::read(path)
            .unwrap()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(found, WANTED.concat().replace(' ', ""));
    }

    #[test]
    fn a_run_that_goes_on_within_a_second_has_a_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..3 {
            Events::begin(folder.path(), 1_700_000_000.9, 0).unwrap();
        }
        let mut names: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let wanted = [0, 1, 2].map(|n| format!("events.out.tfevents.1700000000.m3ret.{n}"));
        assert_eq!(names, wanted);
    }

    /// What `TensorBoard` reads of a folder, `{tag: [[step, value], ...]}`; `None`, with a printed line, where
    /// Python lacks it.
    fn as_tensorboard_reads(folder: &Path) -> Option<serde_json::Value> {
        #[allow(
            clippy::disallowed_methods,
            reason = "a test may be told which Python to use"
        )]
        let python = std::env::var("M3RET_PYTHON").unwrap_or_else(|_| "python3".into());
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tools/oracles/read_events.py"
        );
        let ran = std::process::Command::new(python)
            .args(["-B", "-W", "ignore", script])
            .arg(folder)
            .output();
        match ran {
            Ok(output) if output.status.success() => {
                Some(serde_json::from_slice(&output.stdout).unwrap())
            }
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stderr);
                assert!(text.contains("ModuleNotFoundError"), "{text}");
                println!("skipped: read_events.py needs the Python package tensorboard");
                None
            }
            Err(_) => {
                println!("skipped: read_events.py needs python3");
                None
            }
        }
    }

    #[test]
    fn tensorboard_reads_a_run_that_was_killed_and_went_on() {
        let folder = tempfile::tempdir().unwrap();
        let knn = Knn {
            hit_at_1: 0.75,
            precision_at_5: 0.5,
            n_queries: 8,
            chance_hit_at_1: 0.25,
        };
        for (wall_time, steps, loss) in [(100.0, 0..4, 1.0), (200.0, 2..6, 2.0)] {
            let mut events = Events::begin(folder.path(), wall_time, steps.start).unwrap();
            for step in steps {
                let entry = Entry {
                    step,
                    loss: Some(loss),
                    knn_teacher: (step == 5).then_some(knn),
                    ..Entry::default()
                };
                events.append(wall_time + 1.0, &entry).unwrap();
            }
        }
        if let Some(found) = as_tensorboard_reads(folder.path()) {
            let loss = [(0, 1.0), (1, 1.0), (2, 2.0), (3, 2.0), (4, 2.0), (5, 2.0)];
            assert_eq!(found["loss"], serde_json::json!(loss));
            let hit_at_1 = serde_json::json!([(5, 0.75)]);
            assert_eq!(found["knn_teacher/hit_at_1"], hit_at_1);
            assert_eq!(found["epoch"].as_array().unwrap().len(), 6);
        }
    }
}
