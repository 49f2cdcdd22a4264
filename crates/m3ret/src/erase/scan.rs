//! Searches every file below a gallery for bytes of what was erased.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use m3ret_manifest::text_of;
use m3ret_search::{Gallery, Scanner, Trace, is_gallery};

use super::receipt::Scan;
use crate::error::bail;
use crate::words::printable_path;

/// Most folders below each other that are searched.
const MAX_DEPTH: usize = 32;

/// Lists the regular files below a folder, and what else lies there but folders, in ascending order. Links are not
/// followed.
pub(super) fn files_below(folder: &Path) -> crate::Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut files, mut others) = (Vec::new(), Vec::new());
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        if depth > MAX_DEPTH {
            bail!(
                "folders below {} are nested more than {MAX_DEPTH} deep",
                printable_path(&folder)
            );
        }
        let doing = || format!("listing {}", printable_path(&folder));
        for entry in std::fs::read_dir(&folder).with_context(doing)? {
            let entry = entry.with_context(doing)?;
            let kind = entry.file_type().with_context(doing)?;
            match (kind.is_dir(), kind.is_file()) {
                (true, _) => folders.push((entry.path(), depth + 1)),
                (_, true) => files.push(entry.path()),
                _ => others.push(entry.path()),
            }
        }
    }
    files.sort();
    others.sort();
    Ok((files, others))
}

/// Searches the names and contents of all files below a folder for traces that a gallery made.
///
/// What images that stay hold as well is not counted as found, where it lies in a file that their gallery consists of.
pub(super) fn scan(folder: &Path, gallery: &Gallery, traces: &[Trace]) -> crate::Result<Scan> {
    let scanner = Scanner::new(gallery, traces);
    let (files, others) = files_below(folder)?;
    let below = |path: &Path| text_of(path.strip_prefix(folder).unwrap_or(path));
    let mut scan = Scan {
        n_files: files.len(),
        n_traces: traces.len(),
        not_searched: others.iter().map(|path| below(path)).collect(),
        ..Scan::default()
    };
    // Traces by file, and files whose names hold some.
    let mut hits: BTreeMap<&Path, BTreeSet<usize>> = BTreeMap::new();
    let mut named = BTreeSet::new();
    for path in &files {
        let doing = || format!("searching {}", printable_path(path));
        let mut found = BTreeSet::new();
        let file = m3ret_files::open_regular(path).with_context(doing)?;
        let n_bytes = scanner.scan(file, &mut |hit| _ = found.insert(hit.trace));
        scan.n_bytes += n_bytes.with_context(doing)?;
        let mut in_name = BTreeSet::new();
        scanner.scan(below(path).as_bytes(), &mut |hit| {
            _ = in_name.insert(hit.trace)
        })?;
        if !in_name.is_empty() {
            named.insert(path.as_path());
            found.extend(in_name);
        }
        if !found.is_empty() {
            hits.insert(path, found);
        }
    }
    let shared = take_shared(&mut hits, &named, &scanner)?;
    let found: BTreeSet<usize> = hits.values().flatten().copied().collect();
    scan.n_shared = shared.difference(&found).count();
    scan.n_found = found.len();
    for path in hits.keys() {
        scan.found_in.push(match named.contains(path) {
            true => "a file whose name holds what was erased".to_owned(),
            false => below(path),
        });
    }
    Ok(scan)
}

/// Takes out the hits in files of galleries that images hold which stay; returns which traces these are.
fn take_shared(
    hits: &mut BTreeMap<&Path, BTreeSet<usize>>,
    named: &BTreeSet<&Path>,
    scanner: &Scanner,
) -> crate::Result<BTreeSet<usize>> {
    let folders: BTreeSet<&Path> = hits.keys().filter_map(|path| path.parent()).collect();
    let mut all = BTreeSet::new();
    for folder in folders.into_iter().filter(|folder| is_gallery(folder)) {
        let gallery = Gallery::open(folder)?;
        let shared = gallery.shared_traces(scanner)?;
        let own = gallery.files();
        for (path, found) in hits.iter_mut() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_own = path.parent() == Some(folder) && own.iter().any(|own| *own == name);
            if is_own && !named.contains(path) {
                all.extend(found.iter().copied().filter(|&trace| shared[trace]));
                found.retain(|&trace| !shared[trace]);
            }
        }
    }
    hits.retain(|_, found| !found.is_empty());
    Ok(all)
}
