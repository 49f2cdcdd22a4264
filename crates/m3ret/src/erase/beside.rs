//! Looks for the patient in what waits beside a gallery: objects that `m3ret receive` and `sync` keep until, and for a while
//! after, they are rows.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use m3ret_manifest::text_of;

use super::Patient;
use super::receipt::Scan;
use super::scan::files_below;
use crate::index::{received_beside, spool_beside};

/// Bytes of a file in which the patient is looked for: the header of an object.
const HEAD_BYTES: u64 = 256 << 10;
/// Deflated objects show nothing of their header.
const DEFLATED: &[u8] = b"1.2.840.10008.1.2.1.99";

/// Adds to a scan which files beside a gallery name the patient, but for folders that the caller empties. Of images by id,
/// nothing tells which file is one (`Receipt::not_reached`).
pub(super) fn look(
    gallery: &Path,
    patient: &Patient,
    settled: &[PathBuf],
    scan: &mut Scan,
) -> crate::Result<()> {
    let folders = [received_beside(gallery), spool_beside(gallery)].into_iter();
    let folders =
        folders.filter(|folder| folder.is_dir() && folder != gallery && !settled.contains(folder));
    for folder in folders {
        let (files, _) = files_below(&folder)?;
        let objects = files
            .iter()
            .filter(|file| file.file_name().is_some_and(|name| name != "lock"));
        for file in objects {
            let Some(head) = head_of(file)? else {
                continue;
            };
            let holds = |text: &[u8]| head.windows(text.len()).any(|window| window == text);
            scan.n_files += 1;
            scan.n_bytes += u64::try_from(head.len()).unwrap_or(u64::MAX);
            if holds(patient.number.as_bytes()) {
                scan.n_found += 1;
                scan.found_in.push(text_of(file));
            } else if holds(DEFLATED) {
                scan.not_searched.push(text_of(file));
            }
        }
    }
    Ok(())
}

/// Reads the begin of a file; `None` if it is gone meanwhile.
fn head_of(file: &PathBuf) -> crate::Result<Option<Vec<u8>>> {
    let reading = || format!("reading {}", file.display());
    let opened = match File::open(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.with_context(reading)?,
    };
    let mut head = Vec::new();
    let read = opened.take(HEAD_BYTES).read_to_end(&mut head);
    read.with_context(reading)?;
    Ok(Some(head))
}
