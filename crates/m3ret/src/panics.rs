//! Panics of readers and models: they end no walk over an archive, and print no content of a file.

use std::cell::Cell;
use std::io::Write as _;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, PoisonError};

thread_local! {
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Where the last guarded panic happened. It is global because the readers' own threads panic on behalf of the
/// guarded thread that waits for them.
static LAST_PLACE: Mutex<String> = Mutex::new(String::new());

/// Installs a panic hook that names the place in the source and nothing else, as the text of a panic may hold
/// values of a patient.
///
/// The hook is global to the process. It prints nothing for threads that are guarded, whose panics become
/// refusals.
pub fn stay_silent_about_values() {
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(String::new, |at| {
            format!("{}:{}", file_name(at.file()), at.line())
        });
        if IS_GUARDED.get() {
            *LAST_PLACE.lock().unwrap_or_else(PoisonError::into_inner) = place;
        } else {
            // A panic while panicking would abort.
            let _ = writeln!(
                std::io::stderr(),
                "m3ret: internal error at {place}; this is a bug"
            );
        }
    }));
}

/// Marks the calling thread as guarded: its panics are passed on to a guarded thread, and the hook prints
/// nothing for them.
///
/// A program calls it when each thread of its rayon pool starts.
pub fn guard_this_thread() {
    IS_GUARDED.set(true);
}

/// Runs `work`; turns a panic into a sentence that names the place in the source.
///
/// # Errors
/// The sentence, if `work` panicked.
pub fn guard<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let was_guarded = IS_GUARDED.replace(true);
    // What `work` could leave half-done is dropped with it.
    let outcome = panic::catch_unwind(AssertUnwindSafe(work));
    IS_GUARDED.set(was_guarded);
    outcome.map_err(|_| {
        let place = std::mem::take(&mut *LAST_PLACE.lock().unwrap_or_else(PoisonError::into_inner));
        format!("internal error at {place}; this is a bug, the file may be good")
    })
}

/// Returns the name of a source file without its folders, which say nothing but how the machine is set up.
fn file_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_sentence_without_its_text() {
        stay_silent_about_values();
        let message = guard(|| panic!("value of a patient")).unwrap_err();
        assert!(
            message.starts_with("internal error at panics.rs:"),
            "{message}"
        );
        assert!(!message.contains("patient"));
        assert_eq!(guard(|| 3), Ok(3));
        // Other tests want their panics in full.
        drop(panic::take_hook());
    }
}
