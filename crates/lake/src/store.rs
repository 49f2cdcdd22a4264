//! What all lakes of a process share: threads that wait for the object store, its connections, and caches.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lance_io::object_store::{ObjectStoreParams, StorageOptionsAccessor};
use lancedb::table::ReadParams;
use lancedb::{ObjectStoreRegistry, Session};
use m3ret_search::{Error, Result};
use tokio::runtime::{Builder, Runtime};

use crate::cache::{Cache, Cached};
use crate::environment;
use crate::place::{Place, io, mismatch};

/// Seconds that a search by a plan may take, as a person sets them.
const DEADLINE: &str = "M3RET_LAKE_DEADLINE";
/// The same where nobody does: a store that is down must not hold a reader for longer.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(2);
/// How many times longer may be what reads many rows: an exact search, or cells of all rows.
const LONG: u32 = 60;
/// Bytes of indexes that stay in memory, as a person sets them.
const CACHE: &str = "M3RET_LAKE_CACHE_BYTES";
/// The same where nobody does.
const DEFAULT_CACHE: usize = 1 << 30;
/// Bytes of descriptions of files that stay in memory.
const METADATA_CACHE: usize = 256 << 20;

/// How long one answer may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// A search by a plan, or a few rows.
    Search,
    /// What reads many rows.
    Scan,
    /// A change, which is not left half done.
    Change,
}

/// Waits for an answer of the store.
pub(crate) fn wait<T: Send>(
    patience: Patience,
    action: &'static str,
    path: &Path,
    answer: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    let limit = match patience {
        Patience::Search => Some(deadline()),
        Patience::Scan => Some(deadline() * LONG),
        Patience::Change => None,
    };
    let bounded = async {
        let Some(limit) = limit else {
            return answer.await;
        };
        tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
            let told = format!(
                "no answer within {} s; the object store may be down, or {DEADLINE} sets more seconds",
                limit.as_secs_f32()
            );
            let source = std::io::Error::new(std::io::ErrorKind::TimedOut, told);
            Err(Error::Io {
                action,
                path: path.to_owned(),
                source,
            })
        })
    };
    let runtime = runtime(path)?;
    if tokio::runtime::Handle::try_current().is_err() {
        return runtime.block_on(bounded);
    }
    // A thread that serves other futures must not wait itself.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| runtime.block_on(bounded));
        waiting
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn deadline() -> Duration {
    static KNOWN: OnceLock<Duration> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        let seconds = environment::number(DEADLINE);
        let seconds = seconds.filter(|seconds| (0.01..=3600.0).contains(seconds));
        seconds.map_or(DEFAULT_DEADLINE, Duration::from_secs_f64)
    })
}

fn runtime(path: &Path) -> Result<&'static Runtime> {
    static SHARED: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = SHARED.get() {
        return Ok(runtime);
    }
    let made = Builder::new_multi_thread()
        .thread_name("m3ret-lake")
        .enable_all()
        .build();
    let made = made.map_err(io("starting threads for", path))?;
    Ok(SHARED.get_or_init(|| made))
}

/// Returns the connections and caches of this process.
pub(crate) fn session() -> Arc<Session> {
    static SHARED: OnceLock<Arc<Session>> = OnceLock::new();
    Arc::clone(SHARED.get_or_init(|| {
        let cache = environment::number(CACHE).unwrap_or(DEFAULT_CACHE);
        let registry = Arc::new(ObjectStoreRegistry::default());
        Arc::new(Session::new(cache, METADATA_CACHE, registry))
    }))
}

/// Variables of AWS clients, each with the name that the table's library has for it.
const VARIABLES: [(&str, &str); 8] = [
    ("AWS_ENDPOINT_URL_S3", "aws_endpoint"),
    ("AWS_ENDPOINT_URL", "aws_endpoint"),
    ("AWS_ENDPOINT", "aws_endpoint"),
    ("AWS_ACCESS_KEY_ID", "aws_access_key_id"),
    ("AWS_SECRET_ACCESS_KEY", "aws_secret_access_key"),
    ("AWS_SESSION_TOKEN", "aws_session_token"),
    ("AWS_REGION", "aws_region"),
    ("AWS_ALLOW_HTTP", "allow_http"),
];

/// Returns how the store of a place is reached. What no variable says, the usual chain of AWS clients finds: files of the
/// user, a role of the machine.
pub(crate) fn options(place: &Place) -> HashMap<String, String> {
    let mut options = HashMap::new();
    if place.folder.is_some() {
        return options;
    }
    for (variable, name) in VARIABLES {
        if let Some(value) = environment::text(variable) {
            options.entry(name.to_owned()).or_insert(value);
        }
    }
    // Without encryption only on this machine, or if a person says so.
    let is_own = |endpoint: &String| {
        let own = ["http://127.0.0.1", "http://localhost", "http://[::1]"];
        own.iter().any(|own| endpoint.starts_with(own))
    };
    if options.get("aws_endpoint").is_some_and(is_own) {
        options.insert("allow_http".to_owned(), "true".to_owned());
        options
            .entry("aws_region".to_owned())
            .or_insert_with(|| "us-east-1".to_owned());
    }
    options
}

/// Refuses an address that the store's library would refuse without a reason: one without encryption on another machine.
pub(crate) fn check(place: &Place) -> Result<()> {
    let options = options(place);
    let is_plain = options
        .get("aws_endpoint")
        .is_some_and(|endpoint| endpoint.starts_with("http://"));
    let is_allowed = options.get("allow_http").is_some_and(|set| set == "true");
    if is_plain && !is_allowed {
        return Err(mismatch(
            "AWS_ENDPOINT_URL",
            "https://, or http:// on this machine; AWS_ALLOW_HTTP=true sends everything unencrypted",
            "http:// on another machine",
        ));
    }
    Ok(())
}

/// Returns how objects of a place are read and written.
pub(crate) fn params(place: &Place) -> ObjectStoreParams {
    let options = options(place);
    let accessor = StorageOptionsAccessor::with_static_options(options);
    ObjectStoreParams {
        storage_options_accessor: Some(Arc::new(accessor)),
        ..ObjectStoreParams::default()
    }
}

/// Returns how a table of a place is read through a cache.
pub(crate) fn read_params(place: &Place, cache: Arc<Cache>) -> ReadParams {
    ReadParams {
        session: Some(session()),
        store_options: Some(ObjectStoreParams {
            object_store_wrapper: Some(Arc::new(Cached(cache))),
            ..params(place)
        }),
        ..ReadParams::default()
    }
}
