//! Where the galleries of plain folders and manifests are kept.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use m3ret_encoder::Model;
use m3ret_files::{check_own, make_private_folder};
use m3ret_imaging::ReadOptions;
use m3ret_search::{Gallery, Writer};
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_128;

use super::columns::own_names;
use crate::options::FilePatterns;

/// Returns the folder of the gallery of an archive and a model, in `cache` or in the cache of the user.
pub(crate) fn folder_of(
    archive: &Path,
    model: &Model,
    cache: Option<&Path>,
    options: &ReadOptions,
    files: &FilePatterns,
) -> anyhow::Result<PathBuf> {
    let place = place_of(cache)?;
    let advice = "name another folder with --cache";
    make_private_folder(&place).context(advice)?;
    check_own(&place).context(advice)?;
    let archive = archive
        .canonicalize()
        .with_context(|| format!("opening {}", archive.display()))?;
    let mut words = archive.as_os_str().as_encoded_bytes().to_vec();
    words.push(0);
    words.extend(model.fingerprint().as_bytes());
    // Another number of frames of a video gives another vector.
    words.extend(format!("{:?}", options.n_frames).as_bytes());
    if files.is_given() {
        // Each choice of files has its gallery, so that another choice drops no vectors.
        words.extend(files.text().as_bytes());
    }
    let name = archive.file_name().unwrap_or_default().to_string_lossy();
    let name: String = name
        .chars()
        .filter(|c| c.is_ascii_alphanumeric())
        .take(24)
        .collect();
    let folder = place.join(format!("{name}-{:016x}.m3i", xxh3_128(&words) >> 64));
    keep_private(&folder).context(advice)?;
    Ok(folder)
}

/// Returns the folder of all galleries of plain folders and manifests.
pub(crate) fn place_of(cache: Option<&Path>) -> anyhow::Result<PathBuf> {
    match cache {
        Some(place) => Ok(place.to_owned()),
        None => Ok(user_cache()?.join("m3ret").join("galleries")),
    }
}

/// A gallery of a folder or manifest in the cache.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CachedGallery {
    /// The gallery.
    pub gallery: PathBuf,
    /// The folder that the paths of its first image are relative to; empty if it holds none.
    pub archive: String,
    /// Name of the model that made its vectors.
    pub model: String,
    /// Number of images.
    pub n_items: usize,
    /// Bytes of all its files.
    pub n_bytes: u64,
    /// Days since it was written, or built.
    pub days: f64,
}

/// Lists the galleries of a cache, that of the user without a name, in the order of their names. What cannot be read is
/// left out.
///
/// # Errors
/// If there is no place for a cache.
pub fn cached(cache: Option<&Path>) -> crate::Result<Vec<CachedGallery>> {
    let place = place_of(cache)?;
    let entries = std::fs::read_dir(&place).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.retain(|path| is_of_cache(path));
    paths.sort();
    Ok(paths.iter().filter_map(|path| describe(path)).collect())
}

/// Returns whether a folder has a name that `folder_of` gives, and belongs to this user: galleries that `index build`
/// made may lie beside those of a cache.
fn is_of_cache(path: &Path) -> bool {
    let name = path
        .file_stem()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let is_hash = |hash: &str| hash.len() == 16 && hash.chars().all(|c| c.is_ascii_hexdigit());
    path.extension().is_some_and(|end| end == "m3i")
        && name.rsplit_once('-').is_some_and(|(_, hash)| is_hash(hash))
        && check_own(path).is_ok()
}

fn describe(path: &Path) -> Option<CachedGallery> {
    let is_folder = std::fs::symlink_metadata(path).ok()?.is_dir();
    let gallery = is_folder.then(|| Gallery::open(path).ok())??;
    let (mut n_bytes, mut newest) = (0, None);
    for entry in std::fs::read_dir(path).ok()?.flatten() {
        let status = entry.metadata().ok()?;
        n_bytes += status.len();
        newest = newest.max(status.modified().ok());
    }
    let age = newest
        .and_then(|time| time.elapsed().ok())
        .unwrap_or_default();
    let root = own_names(&gallery).root;
    let first = gallery.rows().next();
    let archive = first.and_then(|row| gallery.value(row, root).ok().map(str::to_owned));
    Some(CachedGallery {
        gallery: path.to_owned(),
        archive: archive.unwrap_or_default(),
        model: gallery.maker().model.clone(),
        n_items: gallery.len(),
        n_bytes,
        days: age.as_secs_f64() / 86_400.0,
    })
}

/// Removes the galleries of a cache that were not written for some days, and returns them. Galleries that somebody
/// writes to stay.
///
/// # Errors
/// If there is no place for a cache; if a gallery cannot be removed.
pub fn clear_cache(cache: Option<&Path>, days: f64) -> crate::Result<Vec<CachedGallery>> {
    let mut removed = cached(cache)?;
    removed.retain(|gallery| gallery.days >= days);
    let mut kept = Vec::new();
    for (idx, cached) in removed.iter().enumerate() {
        match Writer::open(&cached.gallery) {
            Ok(writer) => {
                drop(writer);
                remove_gallery(&cached.gallery)
                    .with_context(|| format!("removing {}", cached.gallery.display()))?;
            }
            // Somebody writes to it, or it is damaged and may be wanted for a repair.
            Err(_) => kept.push(idx),
        }
    }
    for idx in kept.into_iter().rev() {
        removed.remove(idx);
    }
    Ok(removed)
}

/// Removes the files of a gallery, and its folder if nothing else lies there.
fn remove_gallery(folder: &Path) -> std::io::Result<()> {
    for name in m3ret_search::files_of(folder)? {
        std::fs::remove_file(folder.join(name))?;
    }
    match std::fs::remove_dir(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::DirectoryNotEmpty => Err(error),
        _ => Ok(()),
    }
}

/// Makes the folder of a gallery that only this user may enter, and takes the right to read one that is there from
/// others. In a cache that only can be read, a folder that is missing is told when the gallery is made.
fn keep_private(folder: &Path) -> anyhow::Result<()> {
    match std::fs::symlink_metadata(folder) {
        Err(_) => {
            let _ = make_private_folder(folder);
            return Ok(());
        }
        Ok(status) if !status.is_dir() => {
            crate::error::bail!(
                "{} is a link or file, wanted the folder of a gallery; remove it",
                folder.display()
            )
        }
        Ok(_) => {}
    }
    check_own(folder)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let permissions = std::fs::metadata(folder)?.permissions();
        if permissions.mode() & 0o077 != 0 {
            // Not ours, or a disk without permissions: what could be done was checked above.
            let _ = std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700));
        }
    }
    Ok(())
}

/// Returns the folder in which programs of the user cache what they can compute again.
#[expect(
    clippy::disallowed_methods,
    reason = "one of the two places that read the environment: where caches lie"
)]
fn user_cache() -> anyhow::Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let cache = set("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    cache
        .or_else(|| set("HOME").map(|home| Path::new(&home).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set; name a folder with --cache")
}
