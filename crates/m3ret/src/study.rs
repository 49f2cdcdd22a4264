//! A scaling study: trains and evaluates models of several sizes on several shares of the data, and draws how
//! retrieval grows; see docs/evaluation.md, "Scaling study".

mod report;
mod shares;
mod training;
mod trend;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::error::ensure;
use anyhow::Context as _;
use m3ret_pretrain::{Config, Watcher};
use m3ret_search::evaluation::{Bootstrap, Metric};
use serde::Deserialize;

use super::evaluate::evaluate;
use super::evaluate::options::EvaluateOptions;
use super::evaluation::runs::Run;
use crate::files::{Force, Inputs, Output, Replaces, listed_in, make_folder, write_whole};
use crate::watch::Watch;
use crate::words::counted;
use training::TrainingFacts;
use trend::Scores;

/// The settings of a study in its folder, as they were given.
const SETTINGS: &str = "study.toml";
/// The first line of that file, by which it is known as m3ret's own.
const MARK: &str = "# The settings of this study, as m3ret study scaling read them.\n";

/// Which study is run.
#[derive(Debug, Clone)]
pub struct ScalingOptions {
    /// The TOML file with the settings of the study.
    pub config: PathBuf,
    /// Changes of the config of every run, `KEY=VALUE`.
    pub changes: Vec<String>,
}

/// Makes a watcher for each part of a study; the watcher is dropped when its part ends.
pub trait StudyWatch {
    /// Returns a watcher for the training of the size `size` on `fraction` of the patients (above 0, at most 1).
    ///
    /// # Errors
    /// If the study must not continue; the error ends it.
    fn training(&self, size: &str, fraction: f64) -> anyhow::Result<Box<dyn Watcher>>;

    /// Returns a watcher for the evaluation of a model.
    fn evaluation(&self) -> Box<dyn Watch>;
}

/// The result of a study.
pub struct ScalingResult {
    /// Size by size, as the settings name them, with its shares in their order.
    runs: Vec<StudyRun>,
    /// One for each group of tasks.
    scores: Vec<Scores>,
    /// The metric that is fitted.
    metric: String,
    /// The page that was written.
    pub report: PathBuf,
}

impl ScalingResult {
    /// Returns the table of all runs and the trend of each group, as text.
    pub fn text(&self) -> String {
        report::text(&self.runs, &self.scores, &self.metric)
    }
}

/// The settings of a study. Paths are relative to the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Study {
    /// The folder of everything that the study writes.
    out: PathBuf,
    /// The config of all runs, as `m3ret pretrain` reads it; its `out` and `manifests` are replaced.
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
    /// The metric that is fitted.
    #[serde(default = "default_metric")]
    metric: String,
    /// Continues although patients that are trained on are evaluated too.
    #[serde(default)]
    allow_overlap: bool,
}

/// One size of model.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Size {
    /// A word for tables and folders.
    name: String,
    /// Changes of the config, as with --set.
    set: Vec<String>,
}

fn default_metric() -> String {
    super::evaluation::protocol::GROUP_METRICS[0].to_string()
}

/// A model of a study, trained and evaluated.
struct StudyRun {
    training: TrainingFacts,
    evaluation: Run,
}

/// Trains and evaluates every model of a study that is not finished yet, and writes the reports of the study.
///
/// # Errors
/// If the settings are wrong; if patients are trained on and evaluated; if a run fails, or was made with other
/// settings; if no task is fit for the mean of a group. `Stopped` if the watcher of a training stopped it; the same
/// study then resumes there.
pub fn scaling(options: &ScalingOptions, watch: &dyn StudyWatch) -> crate::Result<ScalingResult> {
    let study = Study::load(&options.config)?;
    let metric: Metric = study.metric.parse().map_err(anyhow::Error::msg)?;
    study.check_overlap()?;
    study.begin(&options.config)?;
    let mut runs = Vec::new();
    for size in &study.sizes {
        for &fraction in &study.fractions {
            let point = StudyPoint { size, fraction };
            runs.push(study.run(point, &options.changes, watch)?);
        }
    }
    let pixels = study.evaluate("pixels", &study.out.join("evaluations/pixels"), watch)?;
    let scores = trend::scores(&runs, &pixels, metric, Bootstrap::default())?;
    report::write(&study.out, &runs, &scores, &study.metric)?;
    Ok(ScalingResult {
        runs,
        scores,
        report: study.out.join("report.html"),
        metric: study.metric,
    })
}

/// Returns whether a study wrote a folder. One of m3ret 0.1 may lack its settings; then it is known by a training.
fn is_of_study(folder: &Path) -> bool {
    let is_training = |path: PathBuf| {
        let facts = std::fs::read(path).ok();
        facts.is_some_and(|facts| serde_json::from_slice::<TrainingFacts>(&facts).is_ok())
    };
    let mut runs = std::fs::read_dir(folder.join("runs"))
        .into_iter()
        .flatten()
        .flatten();
    let settings = std::fs::read_to_string(folder.join(SETTINGS));
    settings.is_ok_and(|text| text.starts_with(MARK)) || runs.any(|entry| is_training(entry.path()))
}

/// One size of model on one share of the data.
#[derive(Clone, Copy)]
struct StudyPoint<'a> {
    size: &'a Size,
    /// Of the patients: above 0, at most 1.
    fraction: f64,
}

impl StudyPoint<'_> {
    /// The word for tables, files and folders.
    fn name(self) -> String {
        format!("{}-{}", self.size.name, self.fraction)
    }
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

    /// Fails if patients that are trained on are evaluated too.
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
            "{} trained on and evaluated; split anew (m3ret split), or set allow_overlap = true",
            counted(n_both as u64, "patient is", "patients are")
        );
        Ok(())
    }

    /// Makes the folder of the study, and writes the settings there, by which the next start knows it.
    fn begin(&self, config: &Path) -> anyhow::Result<()> {
        let named = [config, &self.pretrain, &self.evaluate];
        let manifests = self.manifests.iter().map(PathBuf::as_path);
        let named: Vec<&Path> = named.into_iter().chain(manifests).collect();
        let output = Output {
            path: &self.out,
            replaces: Replaces::Own {
                what: "study",
                is_own: &is_of_study,
            },
            force: Force::Unsupported,
        };
        output.check_folder(&Inputs {
            named: &named,
            listed: &|| listed_in(&named),
        })?;
        make_folder(&self.out)?;
        let text = std::fs::read_to_string(config);
        let text = text.with_context(|| format!("reading {}", config.display()))?;
        Ok(write_whole(&self.out.join(SETTINGS), |out| {
            Ok(out.write_all((MARK.to_owned() + &text).as_bytes())?)
        })?)
    }

    /// Trains and evaluates one model, unless that is done already.
    fn run(
        &self,
        point: StudyPoint<'_>,
        changes: &[String],
        watch: &dyn StudyWatch,
    ) -> anyhow::Result<StudyRun> {
        let name = point.name();
        let doing = || format!("run {name}");
        let path = self.out.join("runs").join(format!("{name}.json"));
        let config = self.config(point, changes).with_context(doing)?;
        let settings = shares::hash_of(&config).with_context(doing)?;
        if !path.is_file() {
            let facts = training::train(point, &config, &settings, watch).with_context(doing)?;
            write_whole(&path, |out| Ok(serde_json::to_writer_pretty(out, &facts)?))?;
        }
        let facts = std::fs::read(&path).with_context(doing)?;
        let facts: TrainingFacts = serde_json::from_slice(&facts).with_context(doing)?;
        ensure!(
            facts.settings == settings,
            "run {name} was trained with other settings or images; name another folder (out), or remove {} and {}",
            path.display(),
            config.out.display()
        );
        let model = config.out.join("model");
        let folder = self.out.join("evaluations").join(&name);
        let evaluation = self
            .evaluate(&model.to_string_lossy(), &folder, watch)
            .with_context(doing)?;
        Ok(StudyRun {
            training: facts,
            evaluation,
        })
    }

    /// Returns the config of a run, and writes the manifests that it trains on.
    fn config(&self, point: StudyPoint<'_>, changes: &[String]) -> anyhow::Result<Config> {
        let all = [point.size.set.as_slice(), changes].concat();
        let mut config = Config::load(&self.pretrain, &all)?;
        if !self.manifests.is_empty() {
            config.manifests.clone_from(&self.manifests);
        }
        let share = shares::Share {
            fraction: point.fraction,
            seed: config.seed,
        };
        let folder = self.out.join("data").join(point.fraction.to_string());
        config.manifests = shares::write_shares(&config.manifests, share, &folder)?;
        config.out = self.out.join("runs").join(point.name());
        Ok(config)
    }

    /// Evaluates a model, unless that is done already.
    fn evaluate(&self, model: &str, folder: &Path, watch: &dyn StudyWatch) -> anyhow::Result<Run> {
        let marker = folder.join("complete");
        let wanted = shares::hash_of_evaluation(&self.evaluate, model)?;
        if std::fs::read_to_string(&marker).ok().as_ref() != Some(&wanted) {
            let options = EvaluateOptions::of_model(&self.evaluate, model, folder);
            evaluate(&options, &*watch.evaluation())?;
            // Written last, so that it marks a complete evaluation.
            write_whole(&marker, |out| Ok(out.write_all(wanted.as_bytes())?))?;
        }
        Run::open(folder)
    }
}
