//! The report of a training run: one page without scripts.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use m3ret_pretrain::Config;
use m3ret_pretrain::config::{MaeTarget, Method};
use m3ret_pretrain::report::words::{
    count, counted, escape, mr_statement, significant, synthetic_statement, teachers_statement,
    thousands,
};
use m3ret_pretrain::report::{Picture, Summary, last_part, method_name, settings_text, times};

use super::chart::{Axis, Chart, Line, Look, as_f64};
use super::picture::figure;
use super::shell::Page;
use crate::files::write_whole;

/// Writes the report of a training run as one HTML page.
///
/// # Errors
/// If the file cannot be written; if the settings cannot be written as TOML; if a picture has another shape than
/// `[3, D, H, W]`.
pub fn write(path: &Path, summary: &Summary<'_>) -> crate::Result<()> {
    let page = page(summary)?;
    write_whole(path, |out| Ok(out.write_all(page.as_bytes())?))
}

/// Returns the page.
///
/// # Errors
/// `Toml` if the settings cannot be written, `Run` if a picture has another shape than `[3, D, H, W]`.
pub(crate) fn page(summary: &Summary<'_>) -> anyhow::Result<String> {
    let body = [
        head(summary),
        numbers(summary),
        section("Learning", &learning(summary)),
        pictures(summary.pictures, summary.config.mae.target)?,
        section("Retrieval", &retrieval(summary)),
        section("How it was driven", &driving(summary)),
        section("Speed", &speed(summary)),
        notes(summary.notes),
        images(summary),
        settings(summary.config)?,
    ];
    let page = Page {
        title: &format!("m3ret pretraining report: {}", summary.title),
        style: include_str!("web/training.css"),
        body: &format!("<main>\n{}</main>\n", body.concat()),
        script: "",
        data: None,
    };
    Ok(page.html())
}

fn section(title: &str, content: &str) -> String {
    if content.is_empty() {
        return String::new();
    }
    format!("<section>\n<h2>{title}</h2>\n<div class=\"figures\">\n{content}</div>\n</section>\n")
}

fn head(summary: &Summary<'_>) -> String {
    let facts = summary.facts;
    let share = 100.0 * as_f64(summary.next_step) / as_f64(facts.n_steps.max(1));
    let state = if summary.next_step >= facts.n_steps {
        "finished"
    } else {
        "not finished"
    };
    let idea = match summary.config.method {
        Method::Mae => {
            "The network sees a small part of each image and learns to fill in the rest."
        }
        Method::SimDino => {
            "The network learns to describe different crops of one image alike, and different images differently."
        }
        Method::Salt => {
            "The network sees a part of each image and learns to predict what frozen teachers say of the rest."
        }
    };
    format!(
        "<header>
<p class=\"eyebrow\">m3ret pretraining report</p>
<h1>{title}</h1>
<p class=\"lead\">{idea}</p>
<p class=\"progress\"><span>step <b>{next}</b> of {all}</span> <span>{percent} %, {state}</span></p>
<div class=\"bar\"><div style=\"width:{share:.2}%\"></div></div>
<dl class=\"tiles\">
{tiles}</dl>
</header>
",
        title = escape(summary.title),
        next = thousands(summary.next_step),
        all = thousands(facts.n_steps),
        // A run is at 100 % when it is finished, not before.
        percent = share.min(100.0).floor(),
        share = share.min(100.0),
        tiles = tiles(summary),
    )
}

fn tiles(summary: &Summary<'_>) -> String {
    let (facts, vit) = (summary.facts, &summary.model.vit);
    let init = summary.config.init.as_deref().map(last_part);
    let start = init.as_deref().map_or("random weights", |name| name);
    let tiles = [
        ("Method", method_name(summary.config).to_owned()),
        (
            "Network",
            format!(
                "ViT, width {}, {}, {}, patch {}",
                vit.embed_dim,
                counted(vit.depth, "block", "blocks"),
                counted(vit.num_heads, "head", "heads"),
                times(&vit.patch)
            ),
        ),
        ("Parameters trained", count(facts.n_parameters)),
        ("Started from", start.to_owned()),
        (
            "Images",
            format!(
                "{} trained on, {} held out",
                count(facts.n_items),
                count(facts.n_validation)
            ),
        ),
        (
            "Batch",
            format!(
                "{} a step",
                counted(summary.config.train.batch, "image", "images")
            ),
        ),
    ];
    tiles
        .iter()
        .map(|(name, value)| format!("<div><dt>{name}</dt><dd>{}</dd></div>\n", escape(value)))
        .collect()
}

/// The rows of the table: a name for people, and the series.
const NUMBERS: [(&str, &str); 15] = [
    ("loss", "loss"),
    ("alignment", "alignment"),
    ("alignment of masked patches", "patch_alignment"),
    ("coding rate", "coding_rate"),
    ("effective rank", "effective_rank"),
    ("kNN hit@1, teacher", "knn_teacher/hit_at_1"),
    ("kNN precision@5, teacher", "knn_teacher/precision_at_5"),
    ("kNN hit@1, student", "knn_student/hit_at_1"),
    ("kNN precision@5, student", "knn_student/precision_at_5"),
    ("learning rate", "lr"),
    ("weight decay", "weight_decay"),
    ("momentum of the teacher", "momentum"),
    ("gradient norm", "gradient_norm"),
    ("images a second", "items_per_second"),
    ("passes over the images", "epoch"),
];

fn numbers(summary: &Summary<'_>) -> String {
    let mut rows = String::new();
    for (name, key) in NUMBERS {
        let Some(series) = summary.history.series(key) else {
            continue;
        };
        // MAE and SALT train one network, which needs no name.
        let name = match summary.config.method {
            Method::Mae | Method::Salt => name.trim_end_matches(", student"),
            Method::SimDino => name,
        };
        let (step, last) = series.last();
        let [low, high] = series.extremes();
        let _ = writeln!(
            rows,
            "<tr><th scope=\"row\">{name}</th><td><b>{}</b></td><td>{}</td><td>{}</td><td>{}</td></tr>",
            significant(last),
            thousands(step),
            significant(low),
            significant(high)
        );
    }
    if rows.is_empty() {
        return "<section>\n<p>No step is done yet.</p>\n</section>\n".to_owned();
    }
    format!(
        "<section>
<h2>Latest numbers</h2>
<div class=\"scroll\"><table class=\"numbers\">
<thead><tr><th scope=\"col\">number</th><th scope=\"col\">latest</th><th scope=\"col\">at step</th><th scope=\"col\">lowest so far</th><th scope=\"col\">highest so far</th></tr></thead>
<tbody>
{rows}</tbody></table></div>
</section>
"
    )
}

/// Charts of the numbers of a run.
struct Charts<'a>(&'a Summary<'a>);

impl<'a> Charts<'a> {
    fn line(&self, name: &'a str, key: &str, look: Look) -> Line<'a> {
        Line {
            name,
            series: self.0.history.series(key),
            look,
        }
    }

    fn chart(
        &self,
        title: &'a str,
        axis: Axis,
        lines: Vec<Line<'a>>,
        caption: impl Into<String>,
    ) -> String {
        Chart {
            title,
            caption: caption.into(),
            lines,
            axis,
            last_step: self.0.history.last().map_or(0, |entry| entry.step),
        }
        .html()
    }

    /// A chart of one curve.
    fn single(&self, title: &'a str, key: &str, axis: Axis, caption: &str) -> String {
        self.chart(
            title,
            axis,
            vec![self.line("latest", key, Look::First)],
            caption,
        )
    }
}

fn learning(summary: &Summary<'_>) -> String {
    match summary.config.method {
        Method::Mae => {
            let meaning = match summary.config.mae.target {
                MaeTarget::Pixels => MAE_LOSS,
                MaeTarget::Hog => HOG_LOSS,
                MaeTarget::Both => BOTH_LOSS,
            };
            Charts(summary).single("Loss", "loss", Axis::Values, meaning)
        }
        Method::Salt => Charts(summary).single("Loss", "loss", Axis::Values, SALT_LOSS),
        Method::SimDino => [
            Charts(summary).single("Loss", "loss", Axis::Values, SIMDINO_LOSS),
            alignment(summary),
            coding_rate(summary),
            effective_rank(summary),
        ]
        .concat(),
    }
}

const MAE_LOSS: &str = "Mean squared error of the hidden patches, each scaled to mean 0 and variance 1. \
Near 1, the network knows no more than each patch's mean; 0 would be perfect, and out of reach. \
It should fall fast at first, then slowly for the rest of the run.";

const HOG_LOSS: &str = "Mean squared error of the hidden patches' gradients by orientation, 9 numbers of unit length a cell. \
Predicting nothing gives at most 1/9 (0.11); 0 would be perfect, and out of reach. \
It should fall fast at first, then slowly for the rest of the run.";

const BOTH_LOSS: &str = "Mean squared error of the hidden patches' pixels, each patch scaled to mean 0 and variance 1, plus \
that of their gradients by orientation, 9 numbers of unit length a cell. Predicting nothing gives 1 and at most 0.11; 0 would be \
perfect, and out of reach. It should fall fast at first, then slowly for the rest of the run.";

const SALT_LOSS: &str = "Smooth L1 between predicted and real tokens of the teachers at hidden places, each token scaled to \
mean 0 and variance 1. A network that knows nothing is near 0.4; 0 would be perfect.";

const SIMDINO_LOSS: &str = "Minus the alignment (times its weight), minus the coding rate: lower is better, and \
values below 0 are normal. How low it can get depends on the batch, so compare it only between runs of one batch size.";

fn alignment(summary: &Summary<'_>) -> String {
    let lines = vec![
        Charts(summary).line("whole images", "alignment", Look::First),
        Charts(summary).line("masked patches", "patch_alignment", Look::Second),
    ];
    Charts(summary).chart(
        "Alignment",
        Axis::Values,
        lines,
        "How alike the student describes one crop of an image and the teacher another, as a cosine: 1 is the \
         same. An untrained network begins high, because it describes everything alike; read this together \
         with the coding rate.",
    )
}

fn coding_rate(summary: &Summary<'_>) -> String {
    let share = summary.config.monitor.collapse_share;
    let guard = if share > 0.0 {
        format!(
            " After the warm-up, the run stops if the rate falls below {:.0} % of the way from there to its own maximum.",
            100.0 * share
        )
    } else {
        " This run does not stop if that happens (monitor.collapse_share is 0).".to_owned()
    };
    let lines = vec![
        Charts(summary).line("coding rate", "coding_rate", Look::First),
        Charts(summary).line("largest possible", "coding_rate_bound", Look::Reference),
        Charts(summary).line("collapsed", "coding_rate_collapsed", Look::Reference),
    ];
    let caption = format!(
        "How much room the vectors of one batch take up: the more different images differ, the higher. The lower \
         dashed line is the value if all vectors were equal, the upper one the most that this batch allows. It \
         should rise, then stay high. A fall towards the lower line is a collapse: all images begin to look the \
         same to the network.{guard}"
    );
    Charts(summary).chart("Coding rate", Axis::FromZero, lines, caption)
}

fn effective_rank(summary: &Summary<'_>) -> String {
    let most = summary
        .config
        .train
        .batch
        .min(summary.config.simdino.head_out);
    let caption = format!(
        "How many directions the teacher's vectors of one batch use, of at most {most}. Near 1, all images have \
         nearly the same vector."
    );
    Charts(summary).single("Effective rank", "effective_rank", Axis::FromZero, &caption)
}

fn pictures(pictures: &[Picture], target: MaeTarget) -> anyhow::Result<String> {
    let figures: Vec<String> = pictures.iter().map(figure).collect::<anyhow::Result<_>>()?;
    if figures.is_empty() {
        return Ok(String::new());
    }
    let (title, meaning) = match target {
        MaeTarget::Pixels | MaeTarget::Both => (
            "What the network fills in",
            "In the reconstruction, they are what the network makes of the others. It draws only the pattern \
             within each patch, whose mean and contrast are put back from the original, and it is blurred by \
             nature: what matters is that edges and shapes go on where they should.",
        ),
        MaeTarget::Hog => (
            "What the network sees",
            "Of them, the network predicts gradients by orientation, which are not drawn.",
        ),
    };
    Ok(format!(
        "<section>
<h2>{title}</h2>
<p>Grey patches were hidden. {meaning}</p>
<div class=\"pictures\">
{}</div>
</section>
",
        figures.concat()
    ))
}

fn retrieval(summary: &Summary<'_>) -> String {
    let relevance = &summary.config.monitor.knn_relevance;
    let n_queries = summary.history.knn().map_or(0, |knn| knn.last.1.n_queries);
    let (networks, who) = match summary.config.method {
        Method::Mae | Method::Salt => ([("network", "knn_student", Look::First)].to_vec(), ""),
        Method::SimDino => (
            vec![
                ("teacher", "knn_teacher", Look::First),
                ("student", "knn_student", Look::Second),
            ],
            " The teacher is what becomes the model.",
        ),
    };
    let figure = |title, metric: &str, caption: String| {
        let mut lines: Vec<Line<'_>> = networks
            .iter()
            .map(|(name, key, look)| Charts(summary).line(name, &format!("{key}/{metric}"), *look))
            .collect();
        // Under a random order, each place holds a relevant item equally often: both chances are one number.
        let chance = networks
            .iter()
            .find_map(|(_, key, _)| summary.history.series(&format!("{key}/chance_hit_at_1")));
        lines.push(Line {
            name: "chance",
            series: chance,
            look: Look::Reference,
        });
        Charts(summary).chart(title, Axis::FromZero, lines, caption)
    };
    let hit = format!(
        "Share of {} whose most similar one, of another patient, has the same {relevance}. Chance is what a \
         random order would reach.{who}",
        counted(n_queries, "held-out image", "held-out images")
    );
    let precision = format!(
        "Of the five most similar images of other patients, the mean share with the same {relevance}. Labels are \
         used here only; training sees none."
    );
    figure("kNN hit@1", "hit_at_1", hit) + &figure("kNN precision@5", "precision_at_5", precision)
}

fn driving(summary: &Summary<'_>) -> String {
    [
        Charts(summary).single(
            "Learning rate",
            "lr",
            Axis::FromZero,
            "How far each step moves the weights: it rises during the warm-up, then falls along half a cosine.",
        ),
        Charts(summary).single(
            "Gradient norm",
            "gradient_norm",
            Axis::MaybeLog,
            "Length of the whole gradient before it is limited. Single spikes are normal; a rise that lasts is a warning.",
        ),
        Charts(summary).single(
            "Weight decay",
            "weight_decay",
            Axis::FromZero,
            "How strongly each step pulls the weights towards 0, times the learning rate.",
        ),
        Charts(summary).single(
            "Momentum of the teacher",
            "momentum",
            Axis::Values,
            "The part of the teacher that each step keeps; the rest comes from the student. At 1 the teacher stands still.",
        ),
    ]
    .concat()
}

fn speed(summary: &Summary<'_>) -> String {
    [
        Charts(summary).single(
            "Images a second",
            "items_per_second",
            Axis::FromZero,
            "Images trained on, by wall time, reading included.",
        ),
        Charts(summary).single(
            "Waiting for images",
            "waiting",
            Axis::Percent,
            "Share of the time in which the network had nothing to do because images were still being read. If it \
             stays high, set images.cache or raise images.readers.",
        ),
    ]
    .concat()
}

fn notes(notes: &[String]) -> String {
    if notes.is_empty() {
        return String::new();
    }
    let items: String = notes
        .iter()
        .map(|note| format!("<li>{}</li>\n", escape(note)))
        .collect();
    format!("<section>\n<h2>Notes</h2>\n<ul>\n{items}</ul>\n</section>\n")
}

fn images(summary: &Summary<'_>) -> String {
    let items = summary.items;
    let init = summary.config.init.as_deref().map(last_part);
    let mut statement = mr_statement(items, summary.config.images.allow_mr, init.as_deref());
    statement.extend(teachers_statement(summary.config));
    let or = |text: &str| {
        if text.trim().is_empty() {
            "<i>not stated</i>".to_owned()
        } else {
            escape(text)
        }
    };
    let mut rows = String::new();
    for part in &items.parts {
        let _ = writeln!(
            rows,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td></tr>",
            or(&part.source),
            or(&part.modality),
            or(&part.license),
            count(part.n_items)
        );
    }
    format!(
        "<section>
<h2>Images</h2>
<p>{statement}</p>
{synthetic}<div class=\"scroll\"><table class=\"words\">
<thead><tr><th scope=\"col\">source</th><th scope=\"col\">modality</th><th scope=\"col\">licence</th><th scope=\"col\">items</th></tr></thead>
<tbody>
{rows}</tbody>
<tfoot><tr><th scope=\"row\">all that is trained on</th><td></td><td></td><td>{all}</td></tr></tfoot>
</table></div>
</section>
",
        statement = escape(&statement),
        synthetic = synthetic_statement(
            summary.config.images.synthetic,
            summary.n_synthetic_seen
        )
        .map_or_else(String::new, |text| format!("<p>{}</p>\n", escape(&text))),
        all = count(items.n_train),
    )
}

fn settings(config: &Config) -> anyhow::Result<String> {
    let text = escape(&settings_text(config)?);
    Ok(format!(
        "<section>\n<h2>Settings</h2>\n<details>\n<summary>All settings of the run, as TOML</summary>\n<pre>{text}</pre>\n</details>\n</section>\n"
    ))
}

#[cfg(test)]
mod tests;
