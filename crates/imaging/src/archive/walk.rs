//! The files of a folder, through links, each folder once.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use super::Skipped;
use crate::error::{Error, Result};
use crate::reason::Code;

/// Lists the regular files below a folder, and links to such files, in the order of their paths.
///
/// A link to a folder is followed after all plain folders, so that a folder inside the tree keeps
/// its plain path and links in circles end. Everything else is skipped with its reason: links that
/// lead nowhere, links to a folder above, and pipes, sockets and devices.
///
/// # Errors
/// `Io` if `root` itself cannot be listed.
pub(super) fn files_below(root: &Path, skipped: &mut Vec<Skipped>) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::io("listing the folder", e);
    let real_root = root.canonicalize().map_err(failed)?;
    std::fs::read_dir(root).map_err(failed)?;
    let mut walk = Walk {
        real_root: real_root.clone(),
        seen: HashSet::new(),
        plain: vec![(root.to_owned(), real_root)],
        linked: BTreeMap::new(),
        files: Vec::new(),
        skipped,
    };
    loop {
        while let Some((folder, real)) = walk.plain.pop() {
            walk.list(&folder, real);
        }
        let Some(next) = walk.linked.pop_first() else {
            break;
        };
        walk.plain.push(next);
    }
    let mut files = walk.files;
    files.sort();
    Ok(files)
}

struct Walk<'a> {
    real_root: PathBuf,
    /// Folders that were listed, links resolved.
    seen: HashSet<PathBuf>,
    /// Folders to list, each with its path without links.
    plain: Vec<(PathBuf, PathBuf)>,
    /// Folders that only a link was found to, by the path of the link.
    linked: BTreeMap<PathBuf, PathBuf>,
    files: Vec<PathBuf>,
    skipped: &'a mut Vec<Skipped>,
}

impl Walk<'_> {
    /// Lists one folder unless it was listed under another path.
    fn list(&mut self, folder: &Path, real: PathBuf) {
        if self.seen.contains(&real) {
            return;
        }
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(e) => return self.skip(folder.to_owned(), Error::io("listing the folder", e)),
        };
        for entry in entries {
            let kind = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)));
            match kind {
                Ok((path, kind)) if kind.is_file() => self.files.push(path),
                Ok((path, kind)) if kind.is_dir() => {
                    let name = path.file_name().unwrap_or_default();
                    self.plain.push((path.clone(), real.join(name)));
                }
                Ok((path, kind)) if kind.is_symlink() => self.follow(path),
                Ok((path, _)) => self.skip(path, no_file("a pipe, a socket or a device")),
                Err(e) => self.skip(folder.to_owned(), Error::io("listing the folder", e)),
            }
        }
        self.seen.insert(real);
    }

    /// Files a link under what it leads to.
    fn follow(&mut self, link: PathBuf) {
        let status = std::fs::metadata(&link);
        match status {
            Ok(status) if status.is_file() => self.files.push(link),
            Ok(status) if status.is_dir() => match link.canonicalize() {
                // It would lead to all that lies beside the root, up to the whole disk.
                Ok(real) if self.real_root.starts_with(&real) && real != self.real_root => {
                    self.skip(link, no_file("a link to a folder above"));
                }
                Ok(real) => {
                    self.linked.insert(link, real);
                }
                Err(e) => self.skip(link, Error::io("following the link", e)),
            },
            Ok(_) => self.skip(link, no_file("a link to a pipe, a socket or a device")),
            Err(e) => self.skip(link, Error::io("following the link", e)),
        }
    }

    fn skip(&mut self, path: PathBuf, error: Error) {
        self.skipped.push(Skipped { path, error });
    }
}

fn no_file(found: &str) -> Error {
    let wanted = "a regular file or a folder below this one";
    Error::refused("folder", Code::NoPixels, found, wanted)
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Makes files and links (`name -> target`) in a folder.
    fn tree(entries: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for entry in entries {
            let (name, target) = entry.split_once(" -> ").unwrap_or((entry, ""));
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            if target.is_empty() {
                std::fs::write(path, "x").unwrap();
            } else {
                symlink(target, path).unwrap();
            }
        }
        folder
    }

    /// Returns the files below `root` of a tree, and the skipped paths with their codes.
    fn listed(folder: &Path, root: &str) -> (Vec<String>, Vec<(String, Code)>) {
        let root = folder.join(root);
        let mut skipped = Vec::new();
        let files = files_below(&root, &mut skipped).unwrap();
        let name = |path: &Path| {
            let below = path.strip_prefix(&root).unwrap();
            below.to_string_lossy().into_owned()
        };
        let mut skipped: Vec<(String, Code)> = skipped
            .iter()
            .map(|file| (name(&file.path), file.error.code()))
            .collect();
        skipped.sort();
        (files.iter().map(|path| name(path)).collect(), skipped)
    }

    #[test]
    fn a_linked_folder_is_walked_once_and_under_its_plain_path() {
        let folder = tree(&[
            "study/b/1",
            "study/b/2",
            "study/a -> b",
            "study/c -> b",
            "study/outside -> ../elsewhere",
            "study/z -> ../elsewhere/deep",
            "elsewhere/deep/3",
            "elsewhere/back -> ../study/b",
        ]);
        let (files, skipped) = listed(folder.path(), "study");
        assert_eq!(files, ["b/1", "b/2", "outside/deep/3"]);
        assert_eq!(skipped, []);
    }

    #[test]
    fn links_in_circles_end() {
        let folder = tree(&[
            "study/1",
            "study/self -> .",
            "study/a/up -> ..",
            "study/a/b -> ../c",
            "study/c/d -> ../a",
            "study/one -> two",
            "study/two -> one",
            "study/above -> ..",
            "study/disk -> /",
            "beside",
        ]);
        let (files, skipped) = listed(folder.path(), "study");
        assert_eq!(files, ["1"]);
        let skipped: Vec<_> = skipped
            .iter()
            .map(|(name, code)| (&name[..], *code))
            .collect();
        let wanted = [
            ("above", Code::NoPixels),
            ("disk", Code::NoPixels),
            ("one", Code::Io),
            ("two", Code::Io),
        ];
        assert_eq!(skipped, wanted);
    }

    #[test]
    fn dead_links_and_sockets_are_told_and_links_to_files_are_files() {
        let folder = tree(&["study/1", "study/gone.dcm -> nowhere", "study/link -> 1"]);
        let socket = folder.path().join("study/socket");
        let _listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
        let (files, skipped) = listed(folder.path(), "study");
        assert_eq!(files, ["1", "link"]);
        let gone = ("gone.dcm".to_owned(), Code::Io);
        assert_eq!(skipped, [gone, ("socket".to_owned(), Code::NoPixels)]);
    }

    #[test]
    fn a_root_that_is_a_link_is_a_folder_like_any_other() {
        let folder = tree(&[
            "real/1",
            "real/sub/2",
            "root -> real",
            "real/back -> ../root",
        ]);
        assert_eq!(listed(folder.path(), "root").0, ["1", "sub/2"]);
    }
}
