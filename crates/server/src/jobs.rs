//! Work that goes on after its request was answered: one job at a time, each followed by its id.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use m3ret::watch::Watch;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::accounts::random_token;
use crate::metrics::Metrics;
use crate::problem::{Problem, Result};

/// Most jobs that wait.
const MAX_WAITING: usize = 64;
/// Most jobs of one account that wait: others have room, and so has an erasure.
const MAX_OF_ONE: usize = 32;
/// How long a job is remembered after its end.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// Most jobs that are remembered.
const MAX_KEPT: usize = 4096;
/// Characters of an id that are random.
const N_RANDOM: usize = 32;
/// Longest key by which a request is known again.
pub(crate) const MAX_KEY: usize = 128;

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// It waits for others.
    Queued,
    /// It is worked on.
    Running,
    /// It ended; `result` says with what.
    Done,
    /// It ended without its result; `failures` says why.
    Failed,
}

/// Why something failed, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Failure {
    /// A code of docs/reason-codes.md, or of a problem.
    pub(crate) reason: String,
    pub(crate) n: usize,
}

/// A job as clients see it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct JobView {
    /// Its id.
    pub(crate) job: String,
    pub(crate) state: State,
    /// Number of images that were worked on.
    pub(crate) done: usize,
    /// Number of images in all; null where it is not known yet.
    pub(crate) total: Option<usize>,
    pub(crate) failures: Vec<Failure>,
    /// Of an addition the number of rows, of an erasure the receipt; null until the job is done.
    #[schema(value_type = Object, nullable)]
    pub(crate) result: Option<Value>,
}

/// What a job ended with.
pub(crate) struct Outcome {
    pub(crate) done: usize,
    pub(crate) failures: Vec<Failure>,
    /// Nothing for a job that failed.
    pub(crate) result: Option<Value>,
}

/// What a job does, on a thread of its own.
pub(crate) type Work = Box<dyn FnOnce() -> Outcome + Send>;

struct Job {
    owner: String,
    view: JobView,
    /// Under which key its request may be sent again, with the digest of the request.
    key: Option<(String, String)>,
    ended: Option<Instant>,
}

#[derive(Default)]
struct Table {
    all: HashMap<String, Job>,
    waiting: VecDeque<(String, Work)>,
}

/// All jobs.
#[derive(Default)]
pub(crate) struct Jobs {
    is_closed: Arc<AtomicBool>,
    table: Mutex<Table>,
    arrived: Condvar,
}

/// Stops work when the server ends.
pub(crate) struct JobWatch(Arc<AtomicBool>);

impl Watch for JobWatch {
    fn is_stopped(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

impl Jobs {
    /// Returns the job of an earlier request with the same key, if its content was the same.
    pub(crate) fn repeated(&self, owner: &str, key: &str, digest: &str) -> Result<Option<JobView>> {
        self.table().repeated(owner, key, digest)
    }

    /// Lets work wait for its turn. If a request with the same key came in the meantime, its job is returned, and the work
    /// is not done.
    pub(crate) fn add(
        &self,
        owner: &str,
        key: Option<(String, String)>,
        total: Option<usize>,
        work: Work,
    ) -> Result<JobView> {
        let random = random_token().map_err(|_| Problem::internal("internal_error"))?;
        let id = format!("job-{}", random.get(..N_RANDOM).unwrap_or_default());
        let view = JobView {
            job: id.clone(),
            state: State::Queued,
            done: 0,
            total,
            failures: Vec::new(),
            result: None,
        };
        let mut table = self.table();
        if let Some((key, digest)) = &key
            && let Some(known) = table.repeated(owner, key, digest)?
        {
            return Ok(known);
        }
        table.forget_old();
        let is_own =
            |(id, _): &&(String, Work)| table.all.get(id).is_some_and(|job| job.owner == owner);
        let n_own = table.waiting.iter().filter(is_own).count();
        if self.is_closed()
            || table.waiting.len() >= MAX_WAITING
            || n_own >= MAX_OF_ONE
            || table.all.len() >= MAX_KEPT
        {
            return Err(Problem::busy());
        }
        let job = Job {
            owner: owner.to_owned(),
            view: view.clone(),
            key,
            ended: None,
        };
        table.all.insert(id.clone(), job);
        table.waiting.push_back((id, work));
        self.arrived.notify_one();
        Ok(view)
    }

    /// Returns a job of an account, or of anyone for one who may see all.
    pub(crate) fn find(&self, id: &str, owner: &str, sees_all: bool) -> Option<JobView> {
        let table = self.table();
        let job = table.all.get(id)?;
        (sees_all || job.owner == owner).then(|| job.view.clone())
    }

    /// Counts jobs by state.
    pub(crate) fn count(&self, metrics: &Metrics) {
        let table = self.table();
        for (state, name) in [
            (State::Queued, "queued"),
            (State::Running, "running"),
            (State::Done, "done"),
            (State::Failed, "failed"),
        ] {
            let n = table
                .all
                .values()
                .filter(|job| job.view.state == state)
                .count();
            metrics.jobs(name, n);
        }
    }

    /// Works on jobs until `close`; what waits then is left.
    pub(crate) fn work(&self) {
        loop {
            let mut table = self.table();
            let (id, work) = loop {
                if self.is_closed() {
                    return;
                }
                if let Some(next) = table.waiting.pop_front() {
                    break next;
                }
                table = self
                    .arrived
                    .wait(table)
                    .unwrap_or_else(PoisonError::into_inner);
            };
            if let Some(job) = table.all.get_mut(&id) {
                job.view.state = State::Running;
            }
            drop(table);
            let outcome = m3ret::panics::guard(work).unwrap_or_else(|_| failed("internal_error"));
            let mut table = self.table();
            if let Some(job) = table.all.get_mut(&id) {
                job.view.state = match outcome.result {
                    Some(_) => State::Done,
                    None => State::Failed,
                };
                job.view.done = outcome.done;
                job.view.failures = outcome.failures;
                job.view.result = outcome.result;
                job.ended = Some(Instant::now());
            }
        }
    }

    /// Returns what work looks at to learn that the server ends.
    pub(crate) fn watch(&self) -> JobWatch {
        JobWatch(Arc::clone(&self.is_closed))
    }

    /// Begins no further job, and stops the one that runs where it can.
    pub(crate) fn close(&self) {
        // Whoever looks and then waits holds the table in between, and must not miss this.
        let _table = self.table();
        self.is_closed.store(true, Ordering::SeqCst);
        self.arrived.notify_all();
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // A table of jobs is good, whoever panicked while it was locked.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn repeated(&self, owner: &str, key: &str, digest: &str) -> Result<Option<JobView>> {
        let same_key = |job: &&Job| {
            job.owner == owner && job.key.as_ref().is_some_and(|(known, _)| known == key)
        };
        let Some(job) = self.all.values().find(same_key) else {
            return Ok(None);
        };
        match job.key.as_ref().is_some_and(|(_, known)| known == digest) {
            true => Ok(Some(job.view.clone())),
            false => Err(Problem::unprocessable(
                "key_used",
                "Idempotency-Key: another request was sent with this key",
            )),
        }
    }

    fn forget_old(&mut self) {
        self.all
            .retain(|_, job| job.ended.is_none_or(|ended| ended.elapsed() < KEPT));
        if self.all.len() < MAX_KEPT {
            return;
        }
        let ended = self
            .all
            .iter()
            .filter_map(|(id, job)| Some((job.ended?, id.clone())));
        if let Some((_, oldest)) = ended.min() {
            self.all.remove(&oldest);
        }
    }
}

/// A job that failed as a whole.
pub(crate) fn failed(reason: &str) -> Outcome {
    Outcome {
        done: 0,
        failures: vec![Failure {
            reason: reason.to_owned(),
            n: 1,
        }],
        result: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn done(n: usize) -> Work {
        Box::new(move || Outcome {
            done: n,
            failures: Vec::new(),
            result: Some(json!({ "n": n })),
        })
    }

    #[test]
    fn jobs_run_in_turn_and_are_seen_by_their_owner() {
        let jobs = Arc::new(Jobs::default());
        let key = || Some(("key-1".to_owned(), "digest".to_owned()));
        let first = jobs.add("ann", key(), Some(3), done(3)).unwrap();
        let second = jobs
            .add("bob", None, None, Box::new(|| panic!("as a test")))
            .unwrap();
        assert_eq!((first.state, first.total), (State::Queued, Some(3)));
        assert_eq!(
            jobs.repeated("ann", "key-1", "digest")
                .unwrap()
                .unwrap()
                .job,
            first.job
        );
        assert!(jobs.repeated("ann", "key-1", "other").is_err());
        // Two requests that came at the same time: both looked before either was added.
        let again = jobs.add("ann", key(), None, Box::new(|| panic!("done twice")));
        assert_eq!(again.unwrap().job, first.job);
        assert!(jobs.repeated("bob", "key-1", "digest").unwrap().is_none());
        assert!(jobs.find(&first.job, "bob", false).is_none());
        let worker = std::thread::spawn({
            let jobs = Arc::clone(&jobs);
            move || jobs.work()
        });
        let state = |id: &str| jobs.find(id, "", true).unwrap().state;
        while !matches!(state(&second.job), State::Done | State::Failed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let first = jobs.find(&first.job, "ann", false).unwrap();
        assert_eq!(
            (first.state, first.done, first.result),
            (State::Done, 3, Some(json!({"n": 3})))
        );
        let second = jobs.find(&second.job, "bob", false).unwrap();
        assert_eq!(
            (second.state, second.failures[0].reason.as_str()),
            (State::Failed, "internal_error")
        );
        jobs.close();
        worker.join().unwrap();
        assert!(jobs.add("ann", None, None, done(1)).is_err());
    }

    #[test]
    fn as_many_jobs_wait_as_may() {
        let jobs = Jobs::default();
        for owner in ["ann", "bob"] {
            for n in 0..MAX_OF_ONE {
                jobs.add(owner, None, None, done(n)).unwrap();
            }
            assert!(jobs.add(owner, None, None, done(0)).is_err());
        }
        assert!(
            jobs.add("eve", None, None, done(0)).is_err(),
            "all are taken"
        );
    }
}
