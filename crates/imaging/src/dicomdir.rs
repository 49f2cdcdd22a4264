//! DICOMDIR: the files that an index names, none of them outside its folder.
//!
//! # Source
//! DICOM PS3.3 annex F, PS3.10 section 8.

use std::path::{Path, PathBuf};

use dicom_dictionary_std::tags;

use crate::archive::Skipped;
use crate::dicom;
use crate::error::{Error, Result};
use crate::read::{ReadOptions, read_whole};
use crate::reason::Code;

/// Lists the files that a DICOMDIR refers to; those missing or outside are skipped with a reason.
///
/// # Errors
/// `Io` or `Malformed` if the index itself cannot be read.
pub(crate) fn referenced_files(
    index: &Path,
    skipped: &mut Vec<Skipped>,
    options: &ReadOptions,
) -> Result<Vec<PathBuf>> {
    let bytes = read_whole(index, &options.limits)?;
    let file = dicom::File::open(&bytes, &options.limits)?;
    let set = file.data_set(&options.limits)?;
    // The parent of a bare name is empty, which no system call takes for the current folder.
    let folder = match index.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut files = Vec::new();
    for record in set.items(tags::DIRECTORY_RECORD_SEQUENCE)? {
        let Some(name) = record.text(tags::REFERENCED_FILE_ID) else {
            continue;
        };
        match resolve(folder, &name) {
            Ok(path) => files.push(path),
            // The name is the index's own text: it is not repeated in the message.
            Err(error) => skipped.push(Skipped {
                path: index.to_owned(),
                error,
            }),
        }
    }
    files.sort();
    files.dedup();
    Ok(files)
}

/// Joins the components of a file identifier to the folder, whatever their case on disk.
fn resolve(folder: &Path, name: &str) -> Result<PathBuf> {
    let mut path = folder.to_owned();
    for component in name.split('\\').map(str::trim_end) {
        let is_plain = !component.is_empty()
            && !matches!(component, "." | "..")
            && !component.contains(['/', '\0']);
        if !is_plain {
            return Err(Error::refused(
                "dicomdir",
                Code::Malformed,
                "a reference that leaves the folder of the index",
                "plain names below it",
            ));
        }
        let lower = path.join(component.to_lowercase());
        let stated = path.join(component);
        path = if !stated.exists() && lower.exists() {
            lower
        } else {
            stated
        };
    }
    let inside = path.canonicalize().ok().zip(folder.canonicalize().ok());
    match inside {
        Some((file, root)) if file.starts_with(&root) && file.is_file() => Ok(path),
        Some(_) => Err(Error::malformed(
            "dicomdir",
            "a link out of the folder",
            "a file below it",
        )),
        None => Err(Error::malformed(
            "dicomdir",
            "a reference to a missing file",
            "every file it names",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_cannot_leave_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("inside"), "x").unwrap();
        assert!(resolve(folder.path(), "INSIDE").is_ok());
        for name in [
            "..\\etc\\passwd",
            "/etc/passwd",
            "",
            "a\\..\\..\\b",
            "MISSING",
        ] {
            assert!(resolve(folder.path(), name).is_err(), "{name}");
        }
    }
}
