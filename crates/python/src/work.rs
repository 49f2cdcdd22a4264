//! Runs work of the library on threads of its own, while the caller's thread answers Python.
//!
//! The caller's thread holds no lock of the interpreter while it waits. It asks for signals several times a second and
//! passes progress on, so that every call into Python comes from the thread that called m3ret.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use m3ret::options::{MAX_THREADS, n_cores};
use m3ret::panics;
use m3ret::watch::Watch;
use pyo3::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::errors::{self, Class};

/// How often signals are asked for.
const PATIENCE: Duration = Duration::from_millis(50);

/// Thread pools by their numbers of threads. They belong to one process: a fork does not copy threads.
#[derive(Default)]
struct Pools {
    process: u32,
    by_size: HashMap<usize, Arc<ThreadPool>>,
}

static POOLS: Mutex<Option<Pools>> = Mutex::new(None);

/// Whether this process is the child of one that had imported the package: rayon's global pool may have no threads.
static IS_FORKED: AtomicBool = AtomicBool::new(false);

/// Forgets the pools of the parent; called in the child after a fork.
#[pyfunction]
pub(crate) fn after_fork() {
    IS_FORKED.store(true, Ordering::Relaxed);
}

/// Returns how many objects are read at the same time, on threads of their own; 0 after a fork, and where one thread is to
/// do everything.
pub(crate) fn n_readers(n_threads: Option<usize>) -> usize {
    match n_threads.unwrap_or_else(n_cores) {
        1 => 0,
        _ if IS_FORKED.load(Ordering::Relaxed) => 0,
        n => n,
    }
}

/// Returns how many threads are meant.
///
/// # Errors
/// `MismatchError` for none, and for more than a machine has any use for.
pub(crate) fn n_threads(py: Python<'_>, asked: Option<usize>) -> PyResult<usize> {
    match asked {
        None => Ok(n_cores()),
        Some(n) if (1..=MAX_THREADS).contains(&n) => Ok(n),
        Some(n) => {
            let sentence = format!(
                "threads: found {n}, wanted 1 to {MAX_THREADS}, or None for one for each core"
            );
            Err(errors::exception(py, Class::Mismatch, sentence))
        }
    }
}

/// Returns the pool of a number of threads. Called with the interpreter's lock, under which processes fork.
fn pool_of(n_threads: usize) -> Result<Arc<ThreadPool>, String> {
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    if let Some(old) = pools.take_if(|pools| pools.process != process) {
        // The threads of these pools are in the parent; nothing must wait for them.
        std::mem::forget(old);
    }
    let pools = pools.get_or_insert_with(|| Pools {
        process,
        by_size: HashMap::new(),
    });
    if let Some(pool) = pools.by_size.get(&n_threads) {
        return Ok(Arc::clone(pool));
    }
    let pool = ThreadPoolBuilder::new()
        .num_threads(n_threads)
        .thread_name(|idx| format!("m3ret-{idx}"))
        .start_handler(|_| panics::guard_this_thread())
        .build()
        .map_err(|error| format!("{n_threads} threads could not be started: {error}"))?;
    let pool = Arc::new(pool);
    pools.by_size.insert(n_threads, Arc::clone(&pool));
    Ok(pool)
}

/// What the work tells the thread that waits for it.
enum Event<T> {
    Step(String),
    Count(usize),
    Advance(usize),
    Note(String),
    Done(T),
}

/// The library's watcher on the side of the work.
struct Teller<'a, T> {
    sender: Sender<Event<T>>,
    stop: &'a AtomicBool,
    is_heard: bool,
}

impl<T> Teller<'_, T> {
    fn tell(&self, event: impl FnOnce() -> Event<T>) {
        if self.is_heard {
            // The waiting thread listens until the work is done.
            let _ = self.sender.send(event());
        }
    }
}

impl<T> Watch for Teller<'_, T> {
    fn step(&self, name: &str) {
        self.tell(|| Event::Step(name.to_owned()));
    }

    fn count(&self, n_objects: usize) {
        self.tell(|| Event::Count(n_objects));
    }

    fn advance(&self, n_refused: usize) {
        self.tell(|| Event::Advance(n_refused));
    }

    fn note(&self, sentence: &str) {
        self.tell(|| Event::Note(sentence.to_owned()));
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// How work is run; by default on all cores, with nobody who follows it.
#[derive(Default)]
pub(crate) struct Run<'a> {
    /// An object with methods `step`, `count`, `advance` and `note`; `None` to follow nothing.
    pub(crate) watch: Option<&'a Bound<'a, PyAny>>,
    /// Number of threads; `None` for one for each core.
    pub(crate) n_threads: Option<usize>,
}

impl Run<'_> {
    /// Runs work without the interpreter's lock and returns its result; a panic becomes an exception.
    ///
    /// # Errors
    /// The exception of the work's error, that of a signal handler (`KeyboardInterrupt`), or that of the watcher.
    pub(crate) fn go<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&dyn Watch) -> m3ret::Result<T> + Send,
    ) -> PyResult<T> {
        let n_threads = n_threads(py, self.n_threads)?;
        let pool =
            pool_of(n_threads).map_err(|sentence| errors::exception(py, Class::Any, sentence))?;
        let watch = self.watch.map(|watch| watch.clone().unbind());
        let stop = AtomicBool::new(false);
        let (sender, receiver) = mpsc::channel();
        let (outcome, raised) = py.detach(move || {
            let (stop, watch) = (&stop, &watch);
            pool.in_place_scope(|scope| {
                scope.spawn(move |_| {
                    let teller = Teller {
                        sender: sender.clone(),
                        stop,
                        is_heard: watch.is_some(),
                    };
                    let outcome = catch_unwind(AssertUnwindSafe(|| work(&teller)));
                    // The waiting thread listens until this comes.
                    let _ = sender.send(Event::Done(outcome));
                });
                let mut raised: Option<PyErr> = None;
                loop {
                    let heard = match receiver.recv_timeout(PATIENCE) {
                        Ok(Event::Done(outcome)) => return (Some(outcome), raised),
                        Ok(event) => Python::attach(|py| pass_on(py, watch.as_ref(), event)),
                        Err(RecvTimeoutError::Timeout) => Python::attach(|py| py.check_signals()),
                        Err(RecvTimeoutError::Disconnected) => return (None, raised),
                    };
                    if let Err(error) = heard {
                        stop.store(true, Ordering::Relaxed);
                        raised.get_or_insert(error);
                    }
                }
            })
        });
        if let Some(error) = raised {
            return Err(error);
        }
        // A signal may have come just before the end.
        py.check_signals()?;
        match outcome {
            Some(Ok(Ok(value))) => Ok(value),
            Some(Ok(Err(error))) => Err(errors::of_library(py, &error)),
            Some(Err(_)) | None => {
                let sentence = "internal error of m3ret; this is a bug".to_owned();
                Err(errors::exception(py, Class::Any, sentence))
            }
        }
    }
}

/// Tells the watcher what happened.
fn pass_on<T>(py: Python<'_>, watch: Option<&Py<PyAny>>, event: Event<T>) -> PyResult<()> {
    py.check_signals()?;
    let Some(watch) = watch else {
        return Ok(());
    };
    match event {
        Event::Step(name) => watch.call_method1(py, "step", (name,))?,
        Event::Count(n_objects) => watch.call_method1(py, "count", (n_objects,))?,
        Event::Advance(n_refused) => watch.call_method1(py, "advance", (n_refused,))?,
        Event::Note(sentence) => watch.call_method1(py, "note", (sentence,))?,
        Event::Done(_) => return Ok(()),
    };
    Ok(())
}
