//! `m3ret study scaling`: a ladder of sizes and shares of data, trained, evaluated, and drawn.

mod report;
mod shares;
mod trend;

use std::io::{self, Write as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use m3ret_pretrain::{Begin, Config, train};
use m3ret_search::{Bootstrap, Metric};
use serde::{Deserialize, Serialize};

use super::compare::Run;
use super::evaluate;
use crate::Outcome;
use crate::cli::{EvaluateArguments, StudyAction, StudyArguments, n_cores};
use crate::output::{self, Screen, write_whole};
use crate::progress::Progress;
use crate::verbs::pretrain::Teller;

/// A study. Paths are relative to the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Study {
    /// The folder of everything that is made.
    out: PathBuf,
    /// The config of all runs, as m3ret pretrain takes it; its `out` and `manifests` give way.
    pretrain: PathBuf,
    /// Manifests with the images that are trained on [default: those of `pretrain`].
    #[serde(default)]
    manifests: Vec<PathBuf>,
    /// The manifest that every model is evaluated on.
    evaluate: PathBuf,
    /// Shares of the patients, above 0 and at most 1; smaller ones are part of larger ones.
    fractions: Vec<f64>,
    /// The models.
    sizes: Vec<Size>,
    /// What is fitted.
    #[serde(default = "default_metric")]
    metric: String,
    /// Goes on although patients that are trained on are evaluated, too.
    #[serde(default)]
    allow_overlap: bool,
}

/// One rung of the ladder.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Size {
    /// A word for tables and folders.
    name: String,
    /// Changes of the config, as with --set.
    set: Vec<String>,
}

fn default_metric() -> String {
    super::protocol::GROUP_METRICS[0].to_string()
}

/// What is known of a finished run.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Facts {
    /// Of the settings and of the rows that were trained on.
    settings: String,
    size: String,
    fraction: f64,
    /// Of the encoder.
    n_parameters: u64,
    /// Images that were trained on, and of these different ones at most.
    n_seen: u64,
    n_images: u64,
}

/// A run with its evaluation.
struct Rung {
    facts: Facts,
    run: Run,
}

/// Runs the study that was asked for.
pub(crate) fn run(arguments: &StudyArguments, screen: Screen) -> anyhow::Result<Outcome> {
    let StudyAction::Scaling(arguments) = &arguments.action;
    let n_threads = arguments.threads.map_or_else(n_cores, NonZeroUsize::get);
    rayon::ThreadPoolBuilder::new()
        .num_threads(n_threads)
        .start_handler(|_| crate::panics::guard_this_thread())
        .build_global()?;
    let study = Study::load(&arguments.config)?;
    let metric: Metric = study.metric.parse().map_err(anyhow::Error::msg)?;
    study.check_overlap()?;
    let mut rungs = Vec::new();
    for size in &study.sizes {
        for &fraction in &study.fractions {
            rungs.push(study.rung((size, fraction), &arguments.set, screen)?);
        }
    }
    let pixels = study.evaluate("pixels", &study.out.join("evaluations/pixels"), screen)?;
    let scores = trend::scores(&rungs, &pixels, (metric, Bootstrap::default()))?;
    report::write(&study.out, &rungs, &scores, &study.metric)?;
    let mut out = io::stdout().lock();
    out.write_all(report::text(&rungs, &scores, &study.metric).as_bytes())
        .and_then(|()| writeln!(out, "\n{}", study.out.join("report.html").display()))
        .context("writing to standard output")?;
    Ok(Outcome::AllGood)
}

impl Study {
    fn load(path: &Path) -> anyhow::Result<Self> {
        let doing = || format!("reading {}", path.display());
        let text = std::fs::read_to_string(path).with_context(doing)?;
        let mut study: Self = toml::from_str(&text).with_context(doing)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let own = [&mut study.out, &mut study.pretrain, &mut study.evaluate];
        for path in own.into_iter().chain(&mut study.manifests) {
            *path = std::path::absolute(folder.join(&*path))?;
        }
        study.check().with_context(doing)?;
        Ok(study)
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            !self.sizes.is_empty(),
            "sizes: found none, wanted at least one"
        );
        let is_share = |share: &f64| *share > 0.0 && *share <= 1.0;
        ensure!(
            !self.fractions.is_empty() && self.fractions.iter().all(is_share),
            "fractions: found {:?}, wanted numbers above 0, and at most 1",
            self.fractions
        );
        let is_word = |size: &Size| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            !size.name.is_empty() && size.name.chars().all(is_plain)
        };
        ensure!(
            self.sizes.iter().all(is_word),
            "sizes: names of letters, digits, - and _ are wanted"
        );
        let mut names: Vec<&str> = self.sizes.iter().map(|size| size.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        ensure!(names.len() == self.sizes.len(), "sizes: a name comes twice");
        Ok(())
    }

    /// Fails if patients that are trained on are evaluated, too.
    fn check_overlap(&self) -> anyhow::Result<()> {
        let config = Config::load(&self.pretrain, &[])?;
        let own = if self.manifests.is_empty() {
            &config.manifests
        } else {
            &self.manifests
        };
        let n_both = shares::n_common_patients(own, &config.images.split, &self.evaluate)?;
        ensure!(
            n_both == 0 || self.allow_overlap,
            "{n_both} patients are trained on and evaluated; split anew (m3ret split), or set allow_overlap = true"
        );
        Ok(())
    }

    /// Trains and evaluates one model, as far as that is not yet done.
    fn rung(
        &self,
        (size, fraction): (&Size, f64),
        changes: &[String],
        screen: Screen,
    ) -> anyhow::Result<Rung> {
        let name = format!("{}-{fraction}", size.name);
        let doing = || format!("run {name}");
        let facts_path = self.out.join("runs").join(format!("{name}.json"));
        let config = self
            .config(&name, size, changes, fraction)
            .with_context(doing)?;
        let settings = shares::hash_of(&config).with_context(doing)?;
        if !facts_path.is_file() {
            let facts = self
                .train(&config, (size, fraction, &settings), screen)
                .with_context(doing)?;
            write_whole(&facts_path, |out| {
                Ok(serde_json::to_writer_pretty(out, &facts)?)
            })?;
        }
        let facts = std::fs::read(&facts_path).with_context(doing)?;
        let facts: Facts = serde_json::from_slice(&facts).with_context(doing)?;
        ensure!(
            facts.settings == settings,
            "run {name} was trained with other settings or images; name another folder (out), or remove {} and {}",
            facts_path.display(),
            config.out.display()
        );
        let model = config.out.join("model");
        let folder = self.out.join("evaluations").join(&name);
        let run = self
            .evaluate(&model.to_string_lossy(), &folder, screen)
            .with_context(doing)?;
        Ok(Rung { facts, run })
    }

    fn config(
        &self,
        name: &str,
        size: &Size,
        changes: &[String],
        fraction: f64,
    ) -> anyhow::Result<Config> {
        let all = [size.set.as_slice(), changes].concat();
        let mut config = Config::load(&self.pretrain, &all)?;
        if !self.manifests.is_empty() {
            config.manifests.clone_from(&self.manifests);
        }
        let folder = self.out.join("data").join(fraction.to_string());
        config.manifests = shares::shares(&config.manifests, (fraction, config.seed), &folder)?;
        config.out = self.out.join("runs").join(name);
        Ok(config)
    }

    fn train(
        &self,
        config: &Config,
        (size, fraction, settings): (&Size, f64, &str),
        screen: Screen,
    ) -> anyhow::Result<Facts> {
        let mut out = io::stdout().lock();
        writeln!(out, "Training {} on {fraction} of the data", size.name)
            .context("writing to standard output")?;
        drop(out);
        // Whatever a stopped run left, it goes on from there.
        let begin = if config.out.join("config.toml").is_file() {
            Begin::Resume
        } else {
            Begin::Fresh
        };
        let mut teller = Teller::new(false, screen);
        let outcome = train(config, begin, &mut teller)?;
        teller.bar.finish_and_clear();
        let Some(model) = outcome.model else {
            output::end_interrupted(&format!(
                "stopped after {} steps; the same command goes on from there",
                outcome.next_step
            ));
        };
        let n_images = teller.n_items;
        let n_seen = outcome.next_step * config.train.batch as u64;
        Ok(Facts {
            settings: settings.to_owned(),
            size: size.name.clone(),
            fraction,
            n_parameters: n_parameters(&model)?,
            n_seen,
            n_images: n_images as u64,
        })
    }

    /// Evaluates a model, unless that is done.
    fn evaluate(&self, model: &str, folder: &Path, screen: Screen) -> anyhow::Result<Run> {
        let marker = folder.join("complete");
        let wanted = shares::hash_of_evaluation(&self.evaluate, model)?;
        if std::fs::read_to_string(&marker).ok().as_ref() != Some(&wanted) {
            let arguments = EvaluateArguments::of_model(&self.evaluate, model, folder)?;
            let progress = Progress::start(screen);
            evaluate::evaluate(&arguments, &progress)?;
            // Written last: whoever finds it finds everything.
            write_whole(&marker, |out| Ok(out.write_all(wanted.as_bytes())?))?;
        }
        Run::open(folder)
    }
}

/// Counts the numbers of a finished model.
fn n_parameters(model: &Path) -> anyhow::Result<u64> {
    let path = model.join("model.safetensors");
    let doing = || format!("reading {}", path.display());
    let bytes = std::fs::read(&path).with_context(doing)?;
    let length = bytes
        .first_chunk()
        .map(|&length| u64::from_le_bytes(length));
    let header = length.and_then(|length| bytes.get(8..8 + usize::try_from(length).ok()?));
    let header: serde_json::Value =
        serde_json::from_slice(header.unwrap_or_default()).with_context(doing)?;
    let Some(tensors) = header.as_object() else {
        bail!("{}: found no safetensors header", path.display());
    };
    let sides = tensors
        .values()
        .filter_map(|tensor| tensor.get("shape")?.as_array());
    Ok(sides
        .map(|sides| {
            sides
                .iter()
                .filter_map(serde_json::Value::as_u64)
                .product::<u64>()
        })
        .sum())
}
