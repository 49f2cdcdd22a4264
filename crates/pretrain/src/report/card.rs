//! The model card: what a finished model is, what it saw, and what it must not be used for.

use std::collections::BTreeMap;
use std::path::Path;

use m3ret_encoder::{ModelConfig, Pooling, Stem};

use super::history::History;
use super::words::{
    count, counted, mr_statement, synthetic_statement, teachers_statement, thousands,
};
use super::{Knn, last_part, settings_text};
use crate::config::{Config, MaeTarget, Method};
use crate::dataset::{Facts, Part};
use crate::error::Result;
use crate::files::write_whole;

/// What the card is written from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Card<'a> {
    /// The model's name, e.g. that of its folder or run.
    pub(crate) name: &'a str,
    /// The settings, resolved.
    pub(crate) config: &'a Config,
    /// What `config.json` beside the card says.
    pub(crate) model: &'a ModelConfig,
    /// Parameters of the finished encoder, without decoder or head.
    pub(crate) n_parameters: usize,
    /// What it was trained on.
    pub(crate) items: &'a Facts,
    /// Optimiser steps done.
    pub(crate) n_steps: u64,
    /// Items in all batches, repeats included.
    pub(crate) n_items_seen: u64,
    /// Synthetic objects in all batches.
    pub(crate) n_synthetic_seen: u64,
    /// The run.
    pub(crate) history: &'a History,
    /// What the weights of `init` have and this network has not.
    pub(crate) init_notes: &'a [String],
    /// Fingerprints of the frozen teachers, in the order of the settings.
    pub(crate) teachers: &'a [String],
    /// How often images were refused, by the reason's code.
    pub(crate) refused: &'a BTreeMap<String, u64>,
}

/// Writes the card.
///
/// # Errors
/// `Io` if the file cannot be written, `Toml` if the settings cannot.
pub(crate) fn write(path: &Path, card: &Card<'_>) -> Result<()> {
    let text = text(card)?;
    write_whole(path, text.as_bytes())
}

/// Returns the card as Markdown.
///
/// # Errors
/// `Toml` if the settings cannot be written.
pub(crate) fn text(card: &Card<'_>) -> Result<String> {
    let sections = [
        beginning(card),
        network(card),
        training(card),
        images(card),
        validation(card),
        LIMITS.to_owned(),
        settings(card.config)?,
    ];
    Ok(sections.join("\n"))
}

const LIMITS: &str = "\
## Limits

- For research only. This is not a medical device, and it was not evaluated clinically.
- It finds images that look alike to it. That is no diagnosis and no measure of a disease.
- It works best on images like those above; elsewhere, measure before you rely on it.
- Use the weights only as the licences of the images above allow.
";

fn beginning(card: &Card<'_>) -> String {
    let name = plain(card.name);
    let method = method_name(card.config);
    format!(
        "# {name}

An encoder that turns a medical image, volume or video into one unit vector, so that similar ones can be found.
m3ret trained it with {method}, without labels and without text.

## Use

Embed a file, a folder or a manifest; FOLDER is the folder of this file:

    m3ret embed SRC --model FOLDER --out F.npy

Each row of F.npy is one object. The dot product of two rows says how alike they are, 1 at most.
"
    )
}

/// Returns the name of a run's method for people.
#[must_use]
pub fn method_name(config: &Config) -> &'static str {
    match (config.method, config.mae.target) {
        (Method::Mae, MaeTarget::Pixels) => "MAE (masked autoencoding)",
        (Method::Mae, MaeTarget::Hog) => "MAE (masked autoencoding) of gradients by orientation",
        (Method::Mae, MaeTarget::Both) => {
            "MAE (masked autoencoding) of pixels and of gradients by orientation"
        }
        (Method::SimDino, _) => "SimDINO (self-distillation with a coding rate)",
        (Method::Salt, _) => "SALT (prediction of the tokens of frozen teachers)",
    }
}

/// Returns `4 x 16 x 16`.
#[must_use]
pub fn times(sides: &[usize]) -> String {
    let sides: Vec<String> = sides.iter().map(ToString::to_string).collect();
    sides.join(" x ")
}

fn network(card: &Card<'_>) -> String {
    let (vit, input) = (&card.model.vit, &card.model.input);
    let embedding = match card.model.embedding {
        Pooling::Cls => "CLS after the final norm",
        Pooling::Mean => "mean of the patch tokens after the final norm",
    };
    let stem = match vit.stem {
        Stem::Patch => "one linear layer a patch",
        Stem::Conv => "3x3 convolutions, group norm, GELU",
    };
    let rows = [
        (
            "kind",
            "ViT, pre-norm, 3D patches, sin-cos positions".to_owned(),
        ),
        ("parameters", count(card.n_parameters)),
        ("width of the vector", vit.embed_dim.to_string()),
        ("blocks", vit.depth.to_string()),
        ("heads", vit.num_heads.to_string()),
        ("MLP", vit.mlp_hidden.to_string()),
        ("registers", vit.num_registers.to_string()),
        ("stem", stem.to_owned()),
        ("patch, D x H x W", times(&vit.patch)),
        ("input, H x W", times(&input.side)),
        ("largest depth", input.max_depth.to_string()),
        ("vector", embedding.to_owned()),
    ];
    let rows: String = rows
        .iter()
        .map(|(name, value)| format!("| {name} | {value} |\n"))
        .collect();
    format!("## Network\n\n| | |\n|---|---|\n{rows}")
}

fn training(card: &Card<'_>) -> String {
    let start = match &card.config.init {
        Some(path) => format!("the weights of {}", plain(&last_part(path))),
        None => "random weights".to_owned(),
    };
    let left_out: String = card
        .init_notes
        .iter()
        .map(|note| format!("- left out of the start: {}\n", plain(note)))
        .collect();
    format!(
        "## Training

| | |
|---|---|
| method | {method} |
| start | {start} |
| steps | {steps} |
| items a step | {batch} |
| items seen, repeats included | {seen} |
| seed | {seed} |
{teachers}{gap}{left_out}",
        gap = if left_out.is_empty() { "" } else { "\n" },
        teachers = teachers(card),
        method = method_name(card.config),
        steps = thousands(card.n_steps),
        batch = count(card.config.train.batch),
        seen = thousands(card.n_items_seen),
        seed = card.config.seed,
    )
}

/// Returns a row of the table for each frozen teacher.
fn teachers(card: &Card<'_>) -> String {
    let folders = card.config.salt.teachers.iter();
    let rows = folders.zip(card.teachers).map(|(folder, fingerprint)| {
        let name = plain(&last_part(folder));
        format!("| frozen teacher | {name}, fingerprint {fingerprint} |\n")
    });
    rows.collect()
}

fn images(card: &Card<'_>) -> String {
    let items = card.items;
    let rows: String = items.parts.iter().map(part_row).collect();
    let init = card.config.init.as_deref().map(last_part);
    let mut statement = mr_statement(items, card.config.images.allow_mr, init.as_deref());
    statement.extend(teachers_statement(card.config));
    let held_out = if items.n_validation == 0 {
        "No items were held out for validation.".to_owned()
    } else {
        format!(
            "{} of other patients were held out for validation. The validation part is never trained on.",
            counted(items.n_validation, "item", "items")
        )
    };
    let refused: String = card
        .refused
        .iter()
        .map(|(code, n)| format!("\nImages were refused {} for {code}.\n", counted_times(*n)))
        .collect();
    format!(
        "## Images

| source | modality | licence | items |
|---|---|---|---:|
{rows}| all | | | {all} |

{synthetic}{statement}

{held_out}
{refused}",
        synthetic = synthetic_statement(card.config.images.synthetic, card.n_synthetic_seen)
            .map_or_else(String::new, |sentence| format!("{sentence}\n\n")),
        all = count(items.n_train),
        statement = plain(&statement),
    )
}

fn counted_times(n: u64) -> String {
    match n {
        1 => "once".to_owned(),
        n => format!("{} times", thousands(n)),
    }
}

fn part_row(part: &Part) -> String {
    let or = |text: &str, absent: &str| {
        if text.trim().is_empty() {
            absent.to_owned()
        } else {
            plain(text)
        }
    };
    format!(
        "| {} | {} | {} | {} |\n",
        or(&part.source, "not stated"),
        or(&part.modality, "not stated"),
        or(&part.license, "not stated"),
        count(part.n_items)
    )
}

fn validation(card: &Card<'_>) -> String {
    let Some(knn) = card.history.knn() else {
        return "## Validation\n\nRetrieval was not measured during training.\n".to_owned();
    };
    let row = |name: &str, (step, knn): (u64, Knn)| {
        format!(
            "| {name} | {} | {:.3} | {:.3} | {:.3} | {} |\n",
            thousands(step),
            knn.hit_at_1,
            knn.precision_at_5,
            knn.chance_hit_at_1,
            count(knn.n_queries)
        )
    };
    format!(
        "## Validation

Each held-out item looks for its nearest among those of other patients; a hit has the same {relevance}.
hit@1 is the share of queries whose nearest is a hit, precision@5 the mean share of hits among the nearest five.
Chance is what a random order would reach in both.

| look | step | hit@1 | precision@5 | chance | queries |
|---|---:|---:|---:|---:|---:|
{first}{best}{last}
The best look is the best of many, so it is a little too good: quote the last.
",
        relevance = plain(&card.config.monitor.knn_relevance),
        first = row("first", knn.first),
        best = row("best", knn.best),
        last = row("last", knn.last),
    )
}

fn settings(config: &Config) -> Result<String> {
    let text = settings_text(config)?;
    // A fence must be longer than any that the text holds.
    let longest = text
        .split(|letter| letter != '`')
        .map(str::len)
        .max()
        .unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    Ok(format!(
        "## Settings\n\nOf paths, only the last part is shown.\n\n{fence}toml\n{}\n{fence}\n",
        text.trim_end()
    ))
}

/// Makes text harmless in a table cell or a sentence of Markdown.
fn plain(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.trim().chars() {
        match letter {
            '\\' | '`' | '*' | '[' | ']' | '<' | '>' | '|' | '~' | '&' | '#' | '!' => {
                safe.push('\\');
                safe.push(letter);
            }
            letter if letter.is_control() => safe.push(' '),
            letter => safe.push(letter),
        }
    }
    safe
}

#[cfg(test)]
mod tests;
