//! `m3ret pretrain`: a config to a trained model folder.

use std::io::Write as _;
use std::num::NonZeroUsize;

use m3ret_pretrain::{Begin, Config, train};

use crate::Outcome;
use crate::cli::{PretrainArguments, n_cores};
use crate::out;
use crate::screen::{self, Screen};
use crate::training::{TerminalWatch, told};
use m3ret::words::{counted, printable_path};

/// Trains, and says how it goes.
///
/// # Errors
/// As `train`; a closed pipe.
pub(crate) fn run(arguments: &PretrainArguments, screen: Screen) -> anyhow::Result<Outcome> {
    let n_threads = arguments.threads.map_or_else(n_cores, NonZeroUsize::get);
    rayon::ThreadPoolBuilder::new()
        .num_threads(n_threads)
        .build_global()?;
    let config = Config::load(&arguments.config, &arguments.set)?;
    let begin = if arguments.resume {
        Begin::Resume
    } else {
        Begin::Fresh
    };
    let mut teller = TerminalWatch::new(arguments.json, screen);
    let outcome = train(&config, begin, &mut teller)?;
    teller.bar.finish_and_clear();
    if let Some(error) = teller.broken.take() {
        // Not as a closed pipe, which other verbs take as the end: the run has not ended.
        anyhow::bail!(
            "standard output cannot be written ({error}); stopped after {}; --resume resumes it",
            counted(outcome.next_step, "step", "steps")
        );
    }
    let Some(model) = outcome.model else {
        let next = counted(outcome.next_step, "step", "steps");
        screen::end_interrupted(&format!("stopped after {next}; --resume resumes it"));
    };
    if !arguments.json {
        // Without the detours of a path that is relative to the config.
        let out = config
            .out
            .canonicalize()
            .unwrap_or_else(|_| config.out.clone());
        let model = out.join(model.file_name().unwrap_or_default());
        let mut screen = out::stdout();
        let steps = counted(outcome.next_step, "step", "steps");
        writeln!(screen, "Trained for {steps}")?;
        if let Some(knn) = teller.knn {
            writeln!(screen, "  retrieval  {}", told(&knn))?;
        }
        writeln!(screen, "  model      {}", printable_path(&model))?;
        let report = printable_path(&out.join("report.html"));
        writeln!(screen, "  report     {report}")?;
        writeln!(
            screen,
            "  use it     m3ret embed SRC --model {} --out vectors.npy",
            printable_path(&model)
        )?;
    }
    Ok(Outcome::AllGood)
}
