//! Parts of files of the table that were read once, kept on a disk of the reader: files of a table never change.
//!
//! Only ranges of `data/` and `_indices/` are kept, each as one file. An erasure begins a new folder, and the old one is
//! removed when the lake is opened again: nothing of a patient stays on readers' disks for longer.

use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use lance_io::object_store::WrappingObjectStore;
use object_store::list::PaginatedListStore;
use object_store::path::Path as ObjectPath;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::environment;

/// The folder of the cache; without it, nothing is kept.
const FOLDER: &str = "M3RET_LAKE_CACHE_DIR";
/// Bytes that are kept, as a person sets them.
const LIMIT: &str = "M3RET_LAKE_CACHE_DIR_BYTES";
/// The same where nobody does.
const DEFAULT_LIMIT: u64 = 16 << 30;
/// Largest range that is kept.
const MAX_RANGE: u64 = 64 << 20;
/// Share of the limit that is left when the oldest ranges are removed.
const KEPT: [u64; 2] = [4, 5];

/// A folder with ranges of files.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    limit: u64,
    n_bytes: AtomicU64,
}

impl Cache {
    /// Opens the cache of a lake as a person sets it, and removes what an erasure has made old. `None` if nobody wants one,
    /// or its folder cannot be made: a reader goes on without.
    pub(crate) fn open(uri: &str, n_purges: u64) -> Option<Arc<Self>> {
        let root = environment::variable(FOLDER)?;
        let limit = environment::number(LIMIT).unwrap_or(DEFAULT_LIMIT);
        Self::at(Path::new(&root), uri, n_purges, limit)
    }

    fn at(root: &Path, uri: &str, n_purges: u64, limit: u64) -> Option<Arc<Self>> {
        let of_lake = root.join(&blake3::hash(uri.as_bytes()).to_hex()[..16]);
        let folder = of_lake.join(n_purges.to_string());
        std::fs::create_dir_all(&folder).ok()?;
        for entry in std::fs::read_dir(&of_lake).ok()?.flatten() {
            let number = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u64>().ok());
            if number.is_some_and(|number| number < n_purges) {
                // What cannot be removed now is removed when the lake is opened again.
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        let sizes = std::fs::read_dir(&folder).ok()?.flatten();
        let sizes = sizes
            .filter_map(|entry| entry.metadata().ok())
            .map(|file| file.len());
        Some(Arc::new(Self {
            n_bytes: AtomicU64::new(sizes.sum()),
            folder,
            limit,
        }))
    }

    fn file(&self, location: &ObjectPath, range: &std::ops::Range<u64>) -> PathBuf {
        let name = format!("{location} {}-{}", range.start, range.end);
        self.folder
            .join(&blake3::hash(name.as_bytes()).to_hex()[..32])
    }

    /// Returns a range and the size of its file, if it is kept whole.
    fn read(&self, file: &Path, n_bytes: u64) -> Option<(Bytes, u64)> {
        let content = std::fs::read(file).ok()?;
        let (size, bytes) = content.split_first_chunk::<8>()?;
        let size = u64::from_le_bytes(*size);
        let is_whole = bytes.len() as u64 == n_bytes;
        is_whole.then(|| (Bytes::copy_from_slice(bytes), size))
    }

    /// Keeps a range. A disk that is full keeps nothing.
    fn keep(&self, file: &Path, size: u64, bytes: &Bytes) {
        let write = || {
            let temporary = file.with_extension(format!("{:x}.part", std::process::id()));
            let mut written = std::fs::File::create(&temporary)?;
            written.write_all(&size.to_le_bytes())?;
            written.write_all(bytes)?;
            drop(written);
            std::fs::rename(&temporary, file)
        };
        if write().is_ok() {
            let n_bytes = bytes.len() as u64 + 8;
            if self.n_bytes.fetch_add(n_bytes, Ordering::Relaxed) + n_bytes > self.limit {
                self.make_room();
            }
        }
    }

    /// Removes the ranges that were written first.
    fn make_room(&self) {
        let Ok(entries) = std::fs::read_dir(&self.folder) else {
            return;
        };
        let files = entries.flatten().filter_map(|entry| {
            let known = entry.metadata().ok()?;
            let written = known.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            Some((written, known.len(), entry.path()))
        });
        let mut files: Vec<_> = files.collect();
        files.sort_unstable();
        let mut n_bytes: u64 = files.iter().map(|(_, n_bytes, _)| n_bytes).sum();
        for (_, size, path) in files {
            if n_bytes <= self.limit / KEPT[1] * KEPT[0] {
                break;
            }
            if std::fs::remove_file(path).is_ok() {
                n_bytes -= size;
            }
        }
        self.n_bytes.store(n_bytes, Ordering::Relaxed);
    }
}

/// Puts the cache before a store.
#[derive(Debug)]
pub(crate) struct Cached(pub(crate) Arc<Cache>);

impl WrappingObjectStore for Cached {
    fn wrap(&self, _prefix: &str, original: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
        Arc::new(CachedStore {
            store: original,
            cache: Arc::clone(&self.0),
        })
    }

    fn wrap_paginated(
        &self,
        _prefix: &str,
        original: Arc<dyn PaginatedListStore>,
    ) -> Option<Arc<dyn PaginatedListStore>> {
        Some(original)
    }
}

/// A store whose files of a table are read once.
#[derive(Debug)]
struct CachedStore {
    store: Arc<dyn ObjectStore>,
    cache: Arc<Cache>,
}

impl fmt::Display for CachedStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cache before {}", self.store)
    }
}

/// Returns the range of a question that may be kept.
fn range_to_keep(location: &ObjectPath, options: &GetOptions) -> Option<std::ops::Range<u64>> {
    let is_fixed = location
        .parts()
        .any(|part| ["data", "_indices"].contains(&part.as_ref()));
    let is_plain = options.if_match.is_none()
        && options.if_none_match.is_none()
        && options.if_modified_since.is_none()
        && options.if_unmodified_since.is_none()
        && options.version.is_none()
        && !options.head;
    match &options.range {
        Some(GetRange::Bounded(range)) if is_fixed && is_plain => {
            Some(range.clone()).filter(|range| range.end - range.start <= MAX_RANGE)
        }
        _ => None,
    }
}

impl CachedStore {
    async fn get(&self, location: &ObjectPath, options: GetOptions) -> Result<GetResult> {
        let Some(range) = range_to_keep(location, &options) else {
            return self.store.get_opts(location, options).await;
        };
        let file = self.cache.file(location, &range);
        if let Some((bytes, size)) = self.cache.read(&file, range.end - range.start) {
            return Ok(GetResult {
                payload: GetResultPayload::Stream(
                    futures::stream::once(async move { Ok(bytes) }).boxed(),
                ),
                meta: ObjectMeta {
                    location: location.clone(),
                    last_modified: Default::default(),
                    size,
                    e_tag: None,
                    version: None,
                },
                range,
                attributes: Default::default(),
                extensions: Default::default(),
            });
        }
        let got = self.store.get_opts(location, options).await?;
        let (meta, got_range) = (got.meta.clone(), got.range.clone());
        let (attributes, extensions) = (got.attributes.clone(), got.extensions.clone());
        let bytes = got.bytes().await?;
        if got_range == range {
            self.cache.keep(&file, meta.size, &bytes);
        }
        Ok(GetResult {
            payload: GetResultPayload::Stream(
                futures::stream::once(async move { Ok(bytes) }).boxed(),
            ),
            meta,
            range: got_range,
            attributes,
            extensions,
        })
    }
}

// What the macro `async_trait` makes of the trait, written out: no further dependency.
impl ObjectStore for CachedStore {
    fn get_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b ObjectPath,
        options: GetOptions,
    ) -> BoxFuture<'c, Result<GetResult>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        self.get(location, options).boxed()
    }

    fn put_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b ObjectPath,
        payload: PutPayload,
        options: PutOptions,
    ) -> BoxFuture<'c, Result<PutResult>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        self.store.put_opts(location, payload, options)
    }

    fn put_multipart_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b ObjectPath,
        options: PutMultipartOptions,
    ) -> BoxFuture<'c, Result<Box<dyn MultipartUpload>>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        self.store.put_multipart_opts(location, options)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<ObjectPath>>,
    ) -> BoxStream<'static, Result<ObjectPath>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    fn list_with_delimiter<'a, 'b, 'c>(
        &'a self,
        prefix: Option<&'b ObjectPath>,
    ) -> BoxFuture<'c, Result<ListResult>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        self.store.list_with_delimiter(prefix)
    }

    fn copy_opts<'a, 'b, 'd, 'c>(
        &'a self,
        from: &'b ObjectPath,
        to: &'d ObjectPath,
        options: CopyOptions,
    ) -> BoxFuture<'c, Result<()>>
    where
        'a: 'c,
        'b: 'c,
        'd: 'c,
        Self: 'c,
    {
        self.store.copy_opts(from, to, options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_kept_whole_until_the_folder_is_full_or_old() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path(), "s3://b/l", 3, 1000).unwrap();
        let location = ObjectPath::from("l/vectors.lance/data/a.lance");
        let file = |i: u64| cache.file(&location, &(i..i + 100));
        let bytes = Bytes::from(vec![7; 100]);
        cache.keep(&file(0), 12345, &bytes);
        assert_eq!(cache.read(&file(0), 100), Some((bytes.clone(), 12345)));
        assert_eq!(
            (cache.read(&file(0), 99), cache.read(&file(1), 100)),
            (None, None)
        );
        std::fs::write(file(1), [0; 50]).unwrap();
        assert_eq!(cache.read(&file(1), 100), None, "a file that was cut");
        for i in 2..40 {
            cache.keep(&file(i), 1, &bytes);
        }
        let sizes = std::fs::read_dir(&cache.folder)
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len());
        assert!(sizes.sum::<u64>() <= 1108);
        let old = cache.folder.clone();
        let cache = Cache::at(root.path(), "s3://b/l", 4, 1000).unwrap();
        assert!(
            !old.exists() && cache.folder.exists(),
            "an erasure makes a folder old"
        );
        assert!(
            Cache::at(root.path(), "s3://b/other", 0, 1000)
                .unwrap()
                .folder
                != cache.folder
        );
    }

    #[test]
    fn only_ranges_of_fixed_files_are_kept() {
        let bounded = || GetOptions {
            range: Some(GetRange::Bounded(0..10)),
            ..GetOptions::default()
        };
        let kept =
            |path: &str, options: &GetOptions| range_to_keep(&ObjectPath::from(path), options);
        assert_eq!(
            kept("l/vectors.lance/data/a.lance", &bounded()),
            Some(0..10)
        );
        assert_eq!(
            kept("l/vectors.lance/_indices/x/index.idx", &bounded()),
            Some(0..10)
        );
        for path in [
            "l/vectors.lance/_versions/1.manifest",
            "l/meta.json",
            "l/vectors.lance/_deletions/x.arrow",
        ] {
            assert_eq!(kept(path, &bounded()), None, "{path}");
        }
        let head = GetOptions {
            head: true,
            ..bounded()
        };
        assert_eq!(kept("l/vectors.lance/data/a.lance", &head), None);
        assert_eq!(
            kept("l/vectors.lance/data/a.lance", &GetOptions::default()),
            None
        );
    }
}
