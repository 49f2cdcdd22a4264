//! `m3ret evaluate`: how well models find similar images.

mod told;

use std::io::{self, Write as _};

use anyhow::Context as _;
use m3ret_search::evaluation::Bootstrap;

use super::write_json_line;
use crate::Outcome;
use crate::cli::EvaluateArguments;
use crate::out;
use crate::progress::Progress;
use crate::screen::Screen;
use m3ret::evaluate::options::{EvaluateOptions, NamedModel, NamedVectors};
use m3ret::evaluate::results::Results;
use m3ret::evaluate::{EvaluateResult, evaluate};

/// The word for no column in --exclude.
const NONE: &str = "none";

/// Evaluates every model that was named, and prints how good they are.
pub(crate) fn run(arguments: &EvaluateArguments, screen: Screen) -> anyhow::Result<Outcome> {
    arguments.reading.start_threads()?;
    let progress = Progress::start(screen);
    let result = evaluate(&options_of(arguments), &progress)?;
    progress.clear();
    tell(arguments, &result, screen).context("writing to standard output")?;
    if !result.has_tasks() {
        out::tell("no task could be measured");
    }
    Ok(Outcome::of(result.n_refused() == 0 && result.has_tasks()))
}

fn options_of(arguments: &EvaluateArguments) -> EvaluateOptions {
    let models = arguments.model.iter().chain(&arguments.models);
    let embeddings = arguments.embeddings.iter().map(|vectors| NamedVectors {
        name: vectors.name.clone(),
        path: vectors.path.clone(),
    });
    EvaluateOptions {
        manifest: arguments.manifest.clone(),
        out: arguments.out.clone(),
        is_forced: arguments.force,
        models: models.map(|text| named_model(text)).collect(),
        embeddings: embeddings.collect(),
        normalizes: arguments.normalize,
        relevance: arguments.relevance.clone(),
        least_jaccard: arguments.jaccard,
        exclude: if arguments.exclude == [NONE] {
            Vec::new()
        } else {
            arguments.exclude.clone()
        },
        cutoffs: arguments.k.clone(),
        filters: arguments.filter.clone(),
        is_pooled: arguments.pooled,
        allows_overlap: arguments.allow_overlap,
        bootstrap: Bootstrap {
            n_resamples: arguments.resamples,
            seed: arguments.seed,
        },
        run: arguments.precision.with_threads(arguments.threads),
        reading: arguments.reading.reading(),
    }
}

/// Reads `M` or `NAME=M`.
fn named_model(text: &str) -> NamedModel {
    let (name, place) = text.split_once('=').unwrap_or((text, text));
    NamedModel {
        name: name.to_owned(),
        place: place.to_owned(),
    }
}

fn tell(arguments: &EvaluateArguments, result: &EvaluateResult, screen: Screen) -> io::Result<()> {
    let comparisons = &result.comparisons;
    let mut out = out::stdout();
    for model in &result.models {
        if arguments.json {
            write_json_line(&mut out, &model.results)?;
        } else {
            out.write_all(told::text(model, screen, comparisons.is_empty()).as_bytes())?;
        }
    }
    if !comparisons.is_empty() && !arguments.json {
        let results: Vec<&Results> = result.models.iter().map(|model| &model.results).collect();
        let text = told::side_by_side(&results, comparisons, &arguments.out, screen);
        out.write_all(text.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn the_defaults_of_the_command_line_are_those_of_the_library() {
        let words = ["m3ret", "evaluate", "a.csv", "--model", "m", "--out", "o"];
        let Command::Evaluate(arguments) = Cli::parse_from(words).command else {
            panic!("another verb");
        };
        let wanted = EvaluateOptions::of_model(Path::new("a.csv"), "m", Path::new("o"));
        assert_eq!(
            format!("{:?}", options_of(&arguments)),
            format!("{wanted:?}")
        );
    }

    #[test]
    fn none_is_the_word_for_no_excluded_column() {
        let words = ["m3ret", "evaluate", "a.csv", "-o", "o", "--exclude", "none"];
        let Command::Evaluate(arguments) = Cli::parse_from(words).command else {
            panic!("another verb");
        };
        assert_eq!(options_of(&arguments).exclude, Vec::<String>::new());
    }
}
