//! Files that appear whole or not at all.

use std::fs::File;
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};

/// Writes a file beside its name, and gives it the name once it is on disk.
///
/// # Errors
/// `Io` if that fails; what was there before is still there then.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, |temporary| std::fs::write(temporary, bytes))
}

/// Lets `write` fill a temporary file beside `path`, which then takes its place: after a crash, there is
/// the old file or the new one.
///
/// # Errors
/// `Io` if that fails; the temporary file is removed.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
    let folder = folder_of(path);
    let mut builder = tempfile::Builder::new();
    builder.prefix(".m3ret-").suffix(".part");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // As for any new file, the user's umask decides.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let written = builder.tempfile_in(folder).and_then(|temporary| {
        let permissions = temporary.as_file().metadata()?.permissions();
        write(temporary.path())?;
        // `write` may have put another file under this name, with permissions of its own.
        let written = File::open(temporary.path())?;
        written.set_permissions(permissions)?;
        written.sync_all()?;
        temporary.persist(path)?;
        sync_folder(folder)
    });
    written.map_err(Error::io(path))
}

/// Returns a path that is absolute where the current folder is known, without `.` and `..`.
///
/// Names are only joined and dropped: `..` behind a link to a folder leaves the link, not the folder.
pub(crate) fn plain_path(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut plain = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if plain.file_name().is_some() => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}

/// Returns the folder that a file lies in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// Makes a renamed file stay after a power cut.
#[cfg(unix)]
pub(crate) fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
pub(crate) fn sync_folder(_folder: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_fails_leaves_the_old_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        std::fs::write(&path, "old").unwrap();
        let failed = replace(&path, |temporary| {
            std::fs::write(temporary, "half")?;
            Err(std::io::Error::other("no space"))
        });
        let text = failed.unwrap_err().to_string();
        assert!(
            text.contains("state") && text.contains("no space"),
            "{text}"
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
