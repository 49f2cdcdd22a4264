//! Small objects beside the table, changed by one writer at a time.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt as _;
use lance_io::object_store::ObjectStore as Store;
use m3ret_search::{Error, Result};
use object_store::path::Path as ObjectPath;
use object_store::{
    Error as StoreError, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, UpdateVersion,
};

use crate::place::{Place, io};
use crate::store;

/// Most bytes of a small object.
const MAX_BYTES: u64 = 256 << 20;
/// The file that a local writer holds locked while it changes an object.
const LOCK: &str = "lock";

/// The objects of a lake.
#[derive(Debug, Clone)]
pub(crate) struct Objects {
    store: Arc<dyn ObjectStore>,
    base: ObjectPath,
    place: Place,
}

/// Tells one state of an object from every other.
#[derive(Debug, Clone)]
pub(crate) struct State(UpdateVersion);

/// One object below the folder of a lake.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// Its path below the folder.
    pub(crate) name: String,
    pub(crate) n_bytes: u64,
    path: ObjectPath,
}

impl Objects {
    pub(crate) async fn open(place: &Place) -> Result<Self> {
        let registry = store::session().store_registry();
        store::check(place)?;
        let opened = Store::from_uri_and_params(registry, &place.uri, &store::params(place)).await;
        let (store, base) = opened.map_err(io("opening", &place.path))?;
        Ok(Self {
            store: Arc::clone(&store.inner),
            base,
            place: place.clone(),
        })
    }

    fn path(&self, name: &str) -> ObjectPath {
        ObjectPath::from(format!("{}/{name}", self.base))
    }

    fn named(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("{}/{name}", self.place.uri))
    }

    /// Reads an object; `None` if there is none.
    pub(crate) async fn get(&self, name: &str) -> Result<Option<(Bytes, State)>> {
        let read = async {
            let got = match self.store.get(&self.path(name)).await {
                Err(StoreError::NotFound { .. }) => return Ok(None),
                got => got?,
            };
            if got.meta.size > MAX_BYTES {
                return Ok(Some(Err(got.meta.size)));
            }
            let state = State(UpdateVersion {
                e_tag: got.meta.e_tag.clone(),
                version: got.meta.version.clone(),
            });
            Ok(Some(Ok((got.bytes().await?, state))))
        };
        let read: std::result::Result<_, StoreError> = read.await;
        match read.map_err(io("reading", &self.named(name)))? {
            None => Ok(None),
            Some(Ok(got)) => Ok(Some(got)),
            Some(Err(asked)) => Err(Error::LimitExceeded {
                what: "bytes of a small object of a lake",
                allowed: MAX_BYTES,
                asked,
            }),
        }
    }

    /// Writes an object that is new, or in place of a known state of it; returns whether another writer was faster.
    pub(crate) async fn put(
        &self,
        name: &str,
        bytes: Bytes,
        before: Option<&State>,
    ) -> Result<bool> {
        let (mode, _lock) = match (before, &self.place.folder) {
            (None, _) => (PutMode::Create, None),
            (Some(State(version)), None) => (PutMode::Update(version.clone()), None),
            // Local folders know no conditional writing.
            (Some(State(version)), Some(folder)) => {
                let path = folder.join(LOCK);
                let lock = File::create(&path).and_then(|file| file.lock().map(|()| file));
                let lock = lock.map_err(io("locking", &path))?;
                let now = self.store.head(&self.path(name)).await;
                if now.map_err(io("reading", &self.named(name)))?.e_tag != version.e_tag {
                    return Ok(true);
                }
                (PutMode::Overwrite, Some(lock))
            }
        };
        let options = PutOptions::from(mode);
        match self
            .store
            .put_opts(&self.path(name), bytes.into(), options)
            .await
        {
            Ok(_) => Ok(false),
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => Ok(true),
            Err(error) => Err(io("writing", &self.named(name))(error)),
        }
    }

    /// Removes an object, if it is there.
    pub(crate) async fn remove(&self, name: &str) -> Result<()> {
        match self.store.delete(&self.path(name)).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(io("removing", &self.named(name))(error)),
        }
    }

    /// Lists all objects of the lake.
    pub(crate) async fn list(&self) -> Result<Vec<Found>> {
        let all = self.store.list(Some(&self.base)).map_ok(|meta| Found {
            name: meta
                .location
                .as_ref()
                .trim_start_matches(self.base.as_ref())
                .trim_start_matches('/')
                .to_owned(),
            n_bytes: meta.size,
            path: meta.location,
        });
        all.try_collect()
            .await
            .map_err(io("listing", &self.place.path))
    }

    /// Reads a part of an object that was listed.
    pub(crate) async fn read(&self, found: &Found, range: std::ops::Range<u64>) -> Result<Bytes> {
        let read = self.store.get_range(&found.path, range).await;
        read.map_err(io("reading", &self.named(&found.name)))
    }
}
