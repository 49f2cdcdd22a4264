//! The terminal: what it can show, and what an interrupt means.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::out;
use anyhow::Context as _;

/// What the two output streams can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Screen {
    /// Standard output may hold colours.
    pub(crate) has_colour: bool,
    /// Standard error may hold a progress bar.
    pub(crate) has_progress: bool,
    pub(crate) detail: Detail,
}

/// How much is told on standard error beside errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Detail {
    /// Nothing.
    Results,
    /// Notes, and a progress bar on a terminal.
    Notes,
    /// Notes, and progress as lines.
    Steps,
}

impl Screen {
    /// Looks at the streams and at `NO_COLOR` and `TERM`.
    pub(crate) fn detect(detail: Detail) -> Self {
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self {
            has_colour: out::is_terminal() && !is_plain,
            has_progress: out::has_terminal_for_notes() && detail == Detail::Notes,
            detail,
        }
    }
}

/// A program that was interrupted: 128 and the number of SIGINT.
const EXIT_INTERRUPTED: i32 = 130;

/// What an interrupt means now.
static INTERRUPT: AtomicU8 = AtomicU8::new(ENDS);
/// It ends the program at once.
const ENDS: u8 = 0;
/// It is noted: whoever works ends the program as soon as the work is safe.
const IS_NOTED: u8 = 1;
/// It was noted; the next one ends the program at once.
const HAS_COME: u8 = 2;

/// Lets an interrupt be noted, or end the program at once as it usually does. A second one always does.
pub(crate) fn defer_interrupts(is_deferred: bool) {
    let means = if is_deferred { IS_NOTED } else { ENDS };
    INTERRUPT.store(means, Ordering::SeqCst);
}

/// Returns whether an interrupt was noted.
pub(crate) fn has_interrupt_come() -> bool {
    INTERRUPT.load(Ordering::SeqCst) == HAS_COME
}

/// Ends the program as an interrupt does, once the work is safe.
pub(crate) fn end_interrupted(farewell: &str) -> ! {
    if out::has_terminal_for_notes() {
        // The progress bar stays as it was.
        out::end_line_of_notes();
    }
    out::tell(farewell);
    std::process::exit(EXIT_INTERRUPTED)
}

/// Lets Ctrl-C, SIGTERM and SIGHUP remove unfinished files before they end the program.
pub(crate) fn remove_temporaries_on_interrupt() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        let noted =
            INTERRUPT.compare_exchange(IS_NOTED, HAS_COME, Ordering::SeqCst, Ordering::SeqCst);
        if noted.is_ok() {
            return;
        }
        m3ret::files::remove_unfinished(|| {
            if out::has_terminal_for_notes() {
                // The shell's next prompt starts on a line of its own.
                out::end_line_of_notes();
            }
            std::process::exit(EXIT_INTERRUPTED);
        });
    })
    .context("listening for interrupts")
}
