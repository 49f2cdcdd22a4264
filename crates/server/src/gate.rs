//! How much work runs and waits at the same time.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::problem::{Problem, Result};

/// Lets some blocking work run, some wait, and refuses the rest.
#[derive(Debug)]
pub(crate) struct Gate {
    running: Arc<Semaphore>,
    /// Those that run and those that wait.
    inside: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn new(n_running: usize, n_waiting: usize) -> Self {
        Self {
            running: Arc::new(Semaphore::new(n_running.max(1))),
            inside: Arc::new(Semaphore::new(n_running.max(1) + n_waiting)),
        }
    }

    /// Runs work on a thread of its own once there is room.
    ///
    /// The room is given back when the work ends, even if its request was given up before.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let inside = Arc::clone(&self.inside).try_acquire_owned();
        let inside = inside.map_err(|_| Problem::busy())?;
        let running = Arc::clone(&self.running).acquire_owned().await;
        let running = running.map_err(|_| Problem::busy())?;
        let done = tokio::task::spawn_blocking(move || {
            let _room = (inside, running);
            work()
        });
        done.await.map_err(|_| Problem::internal("internal_error"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_full_queue_refuses_and_work_that_ends_makes_room() {
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        let gate = Arc::new(Gate::new(1, 1));
        let (release, held) = channel::<()>();
        let held = std::sync::Mutex::new(held);
        let (began, has_begun) = channel::<()>();
        let first = runtime.spawn({
            let gate = Arc::clone(&gate);
            async move {
                let work = move || {
                    began.send(()).unwrap();
                    held.lock().unwrap().recv().unwrap();
                };
                gate.run(work).await.map_err(|_| ())
            }
        });
        has_begun.recv().unwrap();
        let second = runtime.spawn({
            let gate = Arc::clone(&gate);
            async move { gate.run(|| 2).await.map_err(|_| ()) }
        });
        while gate.inside.available_permits() > 0 {
            std::thread::yield_now();
        }
        assert!(runtime.block_on(gate.run(|| 3)).is_err());
        release.send(()).unwrap();
        assert_eq!(runtime.block_on(first).unwrap(), Ok(()));
        assert_eq!(runtime.block_on(second).unwrap(), Ok(2));
        assert_eq!(runtime.block_on(gate.run(|| 4)).ok(), Some(4));
        let panicked: Result<()> = runtime.block_on(gate.run(|| panic!("of a test")));
        assert!(panicked.is_err());
        assert_eq!(runtime.block_on(gate.run(|| 5)).ok(), Some(5));
    }
}
