//! Where the galleries of plain folders and manifests are kept.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use m3ret_encoder::Model;
use m3ret_files::{check_own, make_private_folder};
use m3ret_imaging::ReadOptions;
use xxhash_rust::xxh3::xxh3_128;

/// Returns the folder of the gallery of an archive and a model, in `cache` or in the cache of the user.
pub(crate) fn folder_of(
    archive: &Path,
    model: &Model,
    cache: Option<&Path>,
    options: &ReadOptions,
) -> anyhow::Result<PathBuf> {
    let place = match cache {
        Some(place) => place.to_owned(),
        None => user_cache()?.join("m3ret").join("galleries"),
    };
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
