//! Folders whose whole content is ours, and may be erased.

use std::io::Write as _;
use std::path::Path;

use crate::{Error, Locking, Result, lock, make_private_folder, open_regular};

/// Makes or opens a folder that only this program fills, and locks it. Its file `lock` holds `mark`. A folder that holds
/// anything else without that is refused, and nothing in it is changed: what is in such a folder may be erased.
///
/// # Errors
/// If the folder is of others; if it cannot be made or opened.
pub fn own_folder(folder: &Path, mark: &str) -> Result<Locking> {
    let failed = |doing, source| Error {
        doing,
        path: folder.to_owned(),
        source,
    };
    make_private_folder(folder)?;
    let is_marked = || {
        let mut text = Vec::new();
        let read = open_regular(&folder.join("lock"));
        let read = read.and_then(|mut file| std::io::Read::read_to_end(&mut file, &mut text));
        read.is_ok() && text.trim_ascii() == mark.as_bytes()
    };
    let mut entries = std::fs::read_dir(folder).map_err(|error| failed("listing", error))?;
    let is_marked = is_marked();
    if !is_marked && entries.next().is_some() {
        let told = format!("found files of others, wanted an empty folder or a {mark}");
        let kind = std::io::ErrorKind::AlreadyExists;
        return Err(failed("using", std::io::Error::new(kind, told)));
    }
    let locked = lock(folder)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(folder, mode).map_err(|error| failed("closing", error))?;
    }
    if !is_marked && !matches!(locked, Locking::Taken) {
        let mut options = std::fs::File::options();
        let file = options.write(true).open(folder.join("lock"));
        file.and_then(|mut file| {
            file.write_all(mark.as_bytes())?;
            file.sync_all()
        })
        .map_err(|error| failed("marking", error))?;
    }
    Ok(locked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_folder_or_one_of_ours_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("one");
        let first = own_folder(&place, "a spool").unwrap();
        assert!(matches!(
            own_folder(&place, "a spool").unwrap(),
            Locking::Taken
        ));
        std::fs::write(place.join("file"), "ours").unwrap();
        drop(first);
        assert!(own_folder(&place, "a spool").is_ok());
        assert!(own_folder(&place, "another").is_err());
        for name in ["lock", "file"] {
            let theirs = folder.path().join(format!("with-{name}"));
            std::fs::create_dir(&theirs).unwrap();
            std::fs::write(theirs.join(name), "").unwrap();
            assert!(own_folder(&theirs, "a spool").is_err(), "{name}");
        }
    }
}
