//! Paths without detours, and ways between folders.

use std::io;
use std::path::{Component, Path, PathBuf};

/// Returns the folder that a file lies in.
#[must_use]
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// Returns a path that is absolute where the current folder is known, without `.` and `..`.
///
/// Names are only joined and dropped: `..` behind a link to a folder leaves the link, not the folder.
#[must_use]
pub fn plain_path(path: &Path) -> PathBuf {
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

/// Returns the absolute path without links, of a file or folder that may not exist yet.
///
/// # Errors
/// If the current folder is unknown.
pub fn place_of(path: &Path) -> io::Result<PathBuf> {
    let whole = std::path::absolute(path)?;
    for ancestor in whole.ancestors() {
        if let Ok(place) = ancestor.canonicalize() {
            let rest = whole.strip_prefix(ancestor).unwrap_or(Path::new(""));
            return Ok(place.join(rest));
        }
    }
    Ok(whole)
}

/// Returns the way from the folder of a new file to that of another, empty if they are one.
///
/// # Errors
/// If the folder of the new file is not there.
pub fn way_between(new: &Path, other: &Path) -> io::Result<PathBuf> {
    let (from, to) = (
        folder_of(new).canonicalize()?,
        other.parent().unwrap_or(other),
    );
    let n_shared = from
        .components()
        .zip(to.components())
        .take_while(|(a, b)| a == b)
        .count();
    if n_shared == 0 {
        return Ok(to.to_owned());
    }
    let up = from
        .components()
        .skip(n_shared)
        .map(|_| Component::ParentDir);
    Ok(up.chain(to.components().skip(n_shared)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_leads_from_one_folder_to_another() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::create_dir_all(root.join("c")).unwrap();
        for (new, other, expected) in [
            ("a/b/new.csv", "a/b/old.csv", ""),
            ("a/b/new.csv", "a/old.csv", ".."),
            ("a/new.csv", "a/b/old.csv", "b"),
            ("c/new.csv", "a/b/old.csv", "../a/b"),
        ] {
            let way = way_between(&root.join(new), &root.join(other)).unwrap();
            assert_eq!(way, Path::new(expected), "{new} {other}");
        }
    }

    #[test]
    fn a_plain_path_has_no_detours() {
        assert_eq!(plain_path(Path::new("/a/./b/../c")), Path::new("/a/c"));
        assert_eq!(plain_path(Path::new("/../a")), Path::new("/../a"));
    }
}
