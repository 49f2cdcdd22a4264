//! Folders that belong to this user alone, and files that are opened without following links.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::path::Path;

use crate::{Error, Result, make_folder};

/// Makes a folder and those above it that only this user may enter, unless they are there.
///
/// # Errors
/// If a file is in the way, or the machine refuses.
pub fn make_private_folder(path: &Path) -> Result<()> {
    match private_folders().recursive(true).create(path) {
        Ok(()) => Ok(()),
        // Says what is in the way.
        Err(_) => make_folder(path),
    }
}

/// Makes a folder that only this user may enter; the folder above it must be there.
///
/// # Errors
/// The machine's own; `AlreadyExists` if anything has that name.
pub fn make_one_private_folder(path: &Path) -> io::Result<()> {
    private_folders().create(path)
}

fn private_folders() -> DirBuilder {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

/// Fails unless a folder belongs to this user or to the system, and others cannot put files there: a cache is read
/// again, and who writes to it decides what is found.
///
/// # Errors
/// If the folder belongs to another user, or others may write to it; if it cannot be looked up.
pub fn check_own(folder: &Path) -> Result<()> {
    let status = std::fs::metadata(folder);
    let checked = status.and_then(|status| match foreign(&status, folder) {
        Some(found) => Err(io::Error::new(io::ErrorKind::PermissionDenied, found)),
        None => Ok(()),
    });
    checked.map_err(|source| Error {
        doing: "using the cache",
        path: folder.to_owned(),
        source,
    })
}

/// Returns the user of this process.
#[cfg(unix)]
fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Says whether a file belongs to the user of this process.
#[cfg(unix)]
pub(crate) fn is_own(status: &Metadata) -> bool {
    std::os::unix::fs::MetadataExt::uid(status) == user()
}

#[cfg(not(unix))]
pub(crate) fn is_own(_: &Metadata) -> bool {
    true
}

/// Returns who else may write to a folder, and what to do.
#[cfg(unix)]
fn foreign(status: &Metadata, folder: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    let user = user();
    if !is_own(status) && status.uid() != 0 {
        return Some(format!(
            "it belongs to user {} and this is user {user}, who could be given wrong results; name a folder of your own",
            status.uid()
        ));
    }
    let is_sticky = status.mode() & 0o1000 != 0;
    let is_open = status.mode() & 0o022 != 0 && !is_sticky;
    is_open.then(|| {
        format!(
            "its mode {:03o} lets others write to it, who could give wrong results; take that away with chmod go-w {}, \
             or name another folder",
            status.mode() & 0o777,
            folder.display()
        )
    })
}

#[cfg(not(unix))]
fn foreign(_: &Metadata, _: &Path) -> Option<String> {
    None
}

/// Returns the permissions of new files in a folder: who may not read the folder may not read them either. The user's
/// umask takes more away.
#[cfg(unix)]
pub(crate) fn mode_in(folder: &Path) -> io::Result<u32> {
    Ok(std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(folder)?) & 0o666)
}

/// Opens a regular file for reading. Links are not followed, and a pipe or device is refused without waiting for it.
///
/// # Errors
/// The machine's own; `InvalidInput` if something else than a regular file has the name.
pub fn open_regular(path: &Path) -> io::Result<File> {
    open_regular_as(OpenOptions::new().read(true), path)
}

pub(crate) fn open_regular_as(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt as _;
        let kept = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        options.custom_flags(kept.bits().cast_signed());
    }
    let file = options.open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "found a folder, pipe or device, wanted a regular file",
        )),
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use super::*;

    fn mode_of(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn folder_of_mode(parent: &Path, mode: u32) -> PathBuf {
        let folder = parent.join(format!("{mode:o}"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(mode)).unwrap();
        folder
    }

    #[test]
    fn private_folders_are_entered_by_their_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        make_private_folder(&inner).unwrap();
        make_private_folder(&inner).unwrap();
        assert_eq!(
            (mode_of(&inner), mode_of(&folder.path().join("a"))),
            (0o700, 0o700)
        );
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = make_private_folder(&file.join("below")).unwrap_err();
        assert!(
            error.source.to_string().contains("is a file"),
            "{}",
            error.source
        );
        crate::replace(&inner.join("new"), |place| std::fs::write(place, "x")).unwrap();
        assert_eq!(mode_of(&inner.join("new")), 0o600);
        let one = inner.join("one");
        make_one_private_folder(&one).unwrap();
        crate::lock(&one).unwrap();
        assert_eq!((mode_of(&one), mode_of(&one.join("lock"))), (0o700, 0o600));
        assert!(make_one_private_folder(&one).is_err());
        assert!(make_one_private_folder(&one.join("no/where")).is_err());
    }

    #[test]
    fn a_folder_that_others_write_to_is_no_cache() {
        let folder = tempfile::tempdir().unwrap();
        for (mode, is_good) in [
            (0o700, true),
            (0o755, true),
            (0o1777, true),
            (0o1770, true),
            (0o770, false),
            (0o702, false),
            (0o777, false),
            (0o2775, false),
        ] {
            let path = folder_of_mode(folder.path(), mode);
            let checked = check_own(&path);
            assert_eq!(checked.is_ok(), is_good, "{mode:o}");
            if let Err(error) = checked {
                assert!(
                    error.source.to_string().contains("chmod go-w"),
                    "{}",
                    error.source
                );
            }
        }
        assert!(check_own(Path::new("/")).is_ok(), "the system's");
        assert!(check_own(&folder.path().join("nothing")).is_err());
    }

    #[test]
    fn a_lock_follows_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        std::os::unix::fs::symlink(&victim, folder.path().join("lock")).unwrap();
        assert!(crate::lock(folder.path()).is_err());
        assert!(!victim.exists());
        assert!(open_regular(&folder.path().join("lock")).is_err());
        assert!(open_regular(folder.path()).is_err());
        assert!(open_regular(Path::new("/dev/null")).is_err());
    }
}
