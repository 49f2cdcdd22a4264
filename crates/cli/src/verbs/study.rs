//! `m3ret study scaling`: a ladder of sizes and shares of data, trained, evaluated, and drawn.

use std::io::Write as _;
use std::num::NonZeroUsize;

use anyhow::Context as _;
use m3ret_pretrain::Watcher;

use crate::Outcome;
use crate::cli::{StudyAction, StudyArguments, n_cores};
use crate::out;
use crate::progress::Progress;
use crate::screen::Screen;
use crate::training::TerminalWatch;
use m3ret::study::{ScalingOptions, StudyWatch, scaling};
use m3ret::watch::Watch;
use m3ret::words::{printable, printable_lines, printable_path};

/// Runs the study that was asked for.
pub(crate) fn run(arguments: &StudyArguments, screen: Screen) -> anyhow::Result<Outcome> {
    let StudyAction::Scaling(arguments) = &arguments.action;
    let n_threads = arguments.threads.map_or_else(n_cores, NonZeroUsize::get);
    rayon::ThreadPoolBuilder::new()
        .num_threads(n_threads)
        .start_handler(|_| m3ret::panics::guard_this_thread())
        .build_global()?;
    let options = ScalingOptions {
        config: arguments.config.clone(),
        changes: arguments.set.clone(),
    };
    let result = scaling(&options, &Terminal { screen })?;
    let mut out = out::stdout();
    out.write_all(printable_lines(&result.text()).as_bytes())
        .and_then(|()| writeln!(out, "\n{}", printable_path(&result.report)))
        .context("writing to standard output")?;
    Ok(Outcome::AllGood)
}

/// Gives every part of a study a progress bar of its own.
struct Terminal {
    screen: Screen,
}

impl StudyWatch for Terminal {
    fn training(&self, size: &str, fraction: f64) -> anyhow::Result<Box<dyn Watcher>> {
        writeln!(
            out::stdout(),
            "Training {} on {fraction} of the data",
            printable(size)
        )
        .context("writing to standard output")?;
        Ok(Box::new(TerminalWatch::new(false, self.screen)))
    }

    fn evaluation(&self) -> Box<dyn Watch> {
        Box::new(Progress::start(self.screen))
    }
}
