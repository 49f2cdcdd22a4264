//! Zip archives: the list of members, and the bytes of one member at a time.
//!
//! Nothing is written to disk and no name of a member becomes a path on it. The list is read once;
//! a member is decompressed when it is asked for. A zip inside a zip is not opened.
//!
//! # Source
//! PKWARE APPNOTE.TXT 6.3.10, sections 4.3 to 4.5. Stored and deflated members are read; others are
//! refused by name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::Crc;
use flate2::read::DeflateDecoder;

use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::reason::Code;

const FORMAT: &str = "zip";
/// The end record without its comment, and the longest comment.
const END_BYTES: u64 = 22;
const MAX_COMMENT: u64 = 65_535;
const LOCATOR_BYTES: u64 = 20;
const LOCAL_BYTES: usize = 30;
const ENTRY_BYTES: usize = 46;
/// Longest list of members: 16,384 of them with names of 4 KiB.
const MAX_LIST_BYTES: u64 = 64 << 20;

/// An archive whose list of members was read and charged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Zip {
    path: PathBuf,
    /// By name: plain components joined by `/`.
    members: BTreeMap<PathBuf, Member>,
}

/// Where the bytes of a member lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Member {
    method: u16,
    is_encrypted: bool,
    checksum: u32,
    n_stored: u64,
    n_bytes: u64,
    /// Offset of the local header.
    at: u64,
}

/// Returns true if `head` starts like an archive with members.
pub(crate) fn is_zip(head: &[u8]) -> bool {
    head.starts_with(b"PK\x03\x04")
}

/// Returns the name of the first member, as far as it lies in `head`.
pub(crate) fn first_name(head: &[u8]) -> Option<&[u8]> {
    let n_bytes = usize::from(Fields(head).u16(26)?);
    head.get(LOCAL_BYTES..)?.get(..n_bytes)
}

impl Zip {
    /// Reads the list of members and charges what they declare.
    ///
    /// # Errors
    /// `Io`; `Malformed` for a broken or cut list and for two members of one name; `LimitExceeded`.
    pub(crate) fn open(path: &Path, limits: &Limits) -> Result<Self> {
        let mut file = File::open(path).map_err(opening)?;
        let n_file = file.metadata().map_err(reading)?.len();
        let list = List::find(&mut file, n_file)?;
        limits.parts(list.n_members)?;
        let n_bytes = usize::try_from(list.n_bytes.min(MAX_LIST_BYTES + 1)).unwrap_or(usize::MAX);
        if list.n_bytes > MAX_LIST_BYTES {
            return Err(Error::LimitExceeded {
                what: "bytes of a zip archive's list of members",
                allowed: MAX_LIST_BYTES,
                asked: list.n_bytes,
            });
        }
        let bytes = read_at(&mut file, list.at, n_bytes)?;
        let members = parse_list(&bytes, list.n_members)?;
        // What all members together may give is bounded by the file, not by one object's limit:
        // they are read one at a time.
        let by_ratio = n_file.saturating_mul(limits.max_decompression_ratio);
        let allowed = by_ratio.max(limits.ratio_free_bytes);
        let sizes = members.values().map(|member| member.n_bytes);
        let asked = sizes.fold(0, u64::saturating_add);
        if asked > allowed {
            return Err(Error::LimitExceeded {
                what: "decompressed bytes of a zip archive",
                allowed,
                asked,
            });
        }
        Ok(Self {
            path: path.to_owned(),
            members,
        })
    }

    /// Lists the names of the members, in their order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Path> {
        self.members.keys().map(PathBuf::as_path)
    }

    /// Returns true if there is a member of this name.
    pub(crate) fn has(&self, name: &Path) -> bool {
        self.members.contains_key(name)
    }

    /// Reads at most `n_wanted` leading bytes of a member.
    ///
    /// # Errors
    /// `Io`, `Malformed`, `Unsupported`.
    pub(crate) fn prefix(&self, name: &Path, n_wanted: u64) -> Result<Vec<u8>> {
        let (mut stream, _) = self.stream(name)?;
        let mut bytes = Vec::new();
        let outcome = stream.by_ref().take(n_wanted).read_to_end(&mut bytes);
        outcome.map_err(|_| damaged())?;
        Ok(bytes)
    }

    /// Returns the size of a member.
    ///
    /// # Errors
    /// `Io` if there is none of this name.
    pub(crate) fn size(&self, name: &Path) -> Result<u64> {
        self.member(name).map(|member| member.n_bytes)
    }

    /// Reads a whole member, replacing what `bytes` held.
    ///
    /// # Errors
    /// `Io`; `Malformed` for a damaged member; `Unsupported`; `LimitExceeded`.
    pub(crate) fn whole_into(
        &self,
        bytes: &mut Vec<u8>,
        name: &Path,
        limits: &Limits,
    ) -> Result<()> {
        let (stream, member) = self.stream(name)?;
        let n_bytes = limits.decompressed(member.n_stored, member.n_bytes)?;
        bytes.clear();
        bytes.try_reserve_exact(n_bytes).map_err(|_| {
            let what = "bytes of memory that the machine can give";
            Error::LimitExceeded {
                what,
                allowed: 0,
                asked: member.n_bytes,
            }
        })?;
        // One byte more tells a member that is longer than its list says.
        let outcome = stream.take(member.n_bytes + 1).read_to_end(bytes);
        outcome.map_err(|_| damaged())?;
        if bytes.len() as u64 != member.n_bytes {
            let found = format!("a member of {} bytes or more", bytes.len());
            return Err(Error::malformed(
                FORMAT,
                found,
                format!("{}", member.n_bytes),
            ));
        }
        let mut checksum = Crc::new();
        checksum.update(bytes);
        if checksum.sum() == member.checksum {
            Ok(())
        } else {
            Err(damaged())
        }
    }

    fn member(&self, name: &Path) -> Result<Member> {
        self.members.get(name).copied().ok_or_else(|| {
            let missing = std::io::ErrorKind::NotFound.into();
            Error::io("finding the file in the zip archive", missing)
        })
    }

    /// Opens the decompressed bytes of a member.
    fn stream(&self, name: &Path) -> Result<(Box<dyn Read>, Member)> {
        let member = self.member(name)?;
        let unpack = "unpack the archive and pass the folder";
        if member.is_encrypted {
            return Err(Error::unsupported(FORMAT, "an encrypted member", unpack));
        }
        let mut file = File::open(&self.path).map_err(opening)?;
        let head = read_at(&mut file, member.at, LOCAL_BYTES)?;
        let fields = Fields(&head);
        let (Some(n_name), Some(n_extra), true) = (fields.u16(26), fields.u16(28), is_zip(&head))
        else {
            return Err(damaged());
        };
        let skip = i64::from(n_name) + i64::from(n_extra);
        file.seek(SeekFrom::Current(skip)).map_err(reading)?;
        let stored = file.take(member.n_stored);
        let stream: Box<dyn Read> = match member.method {
            0 => Box::new(stored),
            8 => Box::new(DeflateDecoder::new(std::io::BufReader::new(stored))),
            other => {
                let name = match other {
                    9 => "Deflate64",
                    12 => "bzip2",
                    14 => "LZMA",
                    93 => "zstd",
                    95 => "xz",
                    _ => "another method",
                };
                let feature = format!("a member compressed by {name} ({other})");
                return Err(Error::unsupported(FORMAT, feature, unpack));
            }
        };
        Ok((stream, member))
    }
}

/// Where the list of members lies.
struct List {
    at: u64,
    n_bytes: u64,
    n_members: u64,
}

impl List {
    /// Finds the end record, and the one of 64 bits in front of it where it is needed.
    fn find(file: &mut File, n_file: u64) -> Result<Self> {
        let n_tail = n_file.min(END_BYTES + MAX_COMMENT);
        let tail_at = n_file - n_tail;
        let n_read = usize::try_from(n_tail).unwrap_or(usize::MAX);
        let tail = read_at(file, tail_at, n_read)?;
        let missing = || {
            let found = "no list of members that ends with the file";
            Error::refused(FORMAT, Code::Truncated, found, "a whole archive")
        };
        // The comment may hold the signature too: the record must end with the file.
        let is_end = |at: &usize| {
            let record = Fields(tail.get(*at..).unwrap_or_default());
            let n_comment = record.u16(20).map_or(usize::MAX, usize::from);
            record.u32(0) == Some(0x0605_4b50)
                && n_comment.checked_add(*at + 22) == Some(tail.len())
        };
        let at = (0..tail.len()).rev().find(is_end).ok_or_else(missing)?;
        let end = Fields(tail.get(at..).unwrap_or_default());
        let (Some(n_members), Some(n_bytes), Some(list_at)) =
            (end.u16(10), end.u32(12), end.u32(16))
        else {
            return Err(missing());
        };
        let mut list = Self {
            at: list_at.into(),
            n_bytes: n_bytes.into(),
            n_members: n_members.into(),
        };
        let end_at = tail_at + at as u64;
        if n_members == u16::MAX || n_bytes == u32::MAX || list_at == u32::MAX {
            list = Self::find_64(file, end_at)?.unwrap_or(list);
        }
        match list.at.checked_add(list.n_bytes) {
            Some(behind) if behind <= end_at => Ok(list),
            _ => Err(missing()),
        }
    }

    /// Reads the end record of 64 bits, if its locator lies in front of `end_at`.
    fn find_64(file: &mut File, end_at: u64) -> Result<Option<Self>> {
        let Some(locator_at) = end_at.checked_sub(LOCATOR_BYTES) else {
            return Ok(None);
        };
        let locator = read_at(file, locator_at, 20)?;
        let locator = Fields(&locator);
        let (Some(0x0706_4b50), Some(record_at)) = (locator.u32(0), locator.u64(8)) else {
            return Ok(None);
        };
        let record = read_at(file, record_at, 56)?;
        let record = Fields(&record);
        match (
            record.u32(0),
            record.u64(32),
            record.u64(40),
            record.u64(48),
        ) {
            (Some(0x0606_4b50), Some(n_members), Some(n_bytes), Some(at)) => Ok(Some(Self {
                at,
                n_bytes,
                n_members,
            })),
            _ => Err(damaged()),
        }
    }
}

/// Parses the list; folders are left out.
fn parse_list(bytes: &[u8], n_members: u64) -> Result<BTreeMap<PathBuf, Member>> {
    let mut members = BTreeMap::new();
    let mut rest = bytes;
    for _ in 0..n_members {
        let fields = Fields(rest);
        let lengths = [28, 30, 32].map(|at| fields.u16(at).map(usize::from));
        let (Some(0x0201_4b50), [Some(n_name), Some(n_extra), Some(n_comment)]) =
            (fields.u32(0), lengths)
        else {
            return Err(damaged());
        };
        let behind = rest.get(ENTRY_BYTES..).unwrap_or_default();
        let (Some(name), Some(extra)) =
            (behind.get(..n_name), behind.get(n_name..n_name + n_extra))
        else {
            return Err(damaged());
        };
        if !name.ends_with(b"/") {
            let member = Member::parse(&fields, extra).ok_or_else(damaged)?;
            if members.insert(plain_name(name), member).is_some() {
                let wanted = "one name a member";
                return Err(Error::malformed(FORMAT, "two members of one name", wanted));
            }
        }
        let n_entry = n_name + n_extra + n_comment;
        rest = behind.get(n_entry..).ok_or_else(damaged)?;
    }
    Ok(members)
}

impl Member {
    /// Parses an entry of the list and its field of 64-bit sizes.
    fn parse(fields: &Fields<'_>, extra: &[u8]) -> Option<Self> {
        let mut wide = Fields(zip64_field(extra));
        // Each number that does not fit its 32 bits lies in the field, in this order.
        let mut number = |at| {
            let narrow = fields.u32(at)?;
            if narrow != u32::MAX {
                return Some(u64::from(narrow));
            }
            let value = wide.u64(0)?;
            wide = Fields(wide.0.get(8..)?);
            Some(value)
        };
        let (n_bytes, n_stored, at) = (number(24)?, number(20)?, number(42)?);
        Some(Self {
            method: fields.u16(10)?,
            is_encrypted: fields.u16(8)? & 1 == 1,
            checksum: fields.u32(16)?,
            n_stored,
            n_bytes,
            at,
        })
    }
}

/// Returns the body of the extra field with sizes of 64 bits; empty without one.
fn zip64_field(extra: &[u8]) -> &[u8] {
    let mut rest = extra;
    while let (Some(id), Some(n_bytes)) = (Fields(rest).u16(0), Fields(rest).u16(2)) {
        let body = rest.get(4..).unwrap_or_default();
        if id == 1 {
            return body.get(..usize::from(n_bytes)).unwrap_or_default();
        }
        rest = body.get(usize::from(n_bytes)..).unwrap_or_default();
    }
    &[]
}

/// Returns a name as plain components: one that leads anywhere else does not.
fn plain_name(raw: &[u8]) -> PathBuf {
    let text = match str::from_utf8(raw) {
        Ok(text) => text.to_owned(),
        // The code page of another system: one character a byte keeps names apart.
        Err(_) => raw.iter().copied().map(char::from).collect(),
    };
    text.split(['/', '\\'])
        .filter(|part| !matches!(*part, "" | "." | ".."))
        .collect()
}

/// Little-endian numbers at fixed offsets.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..)?.first_chunk::<N>().copied()
    }

    fn u16(&self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_le_bytes)
    }
}

/// Reads `n_bytes` at an offset; fewer where the file ends.
fn read_at(file: &mut File, at: u64, n_bytes: usize) -> Result<Vec<u8>> {
    file.seek(SeekFrom::Start(at)).map_err(reading)?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(n_bytes).unwrap_or(u64::MAX);
    file.take(limit).read_to_end(&mut bytes).map_err(reading)?;
    Ok(bytes)
}

fn opening(error: std::io::Error) -> Error {
    Error::io("opening the zip archive", error)
}

fn reading(error: std::io::Error) -> Error {
    Error::io("reading the zip archive", error)
}

fn damaged() -> Error {
    Error::malformed(FORMAT, "a damaged archive", "members with their checksums")
}

#[cfg(test)]
mod tests;
