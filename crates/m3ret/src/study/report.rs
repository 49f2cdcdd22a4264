//! A scaling study for people: a table, curves, and the fitted trend, as text, Markdown and HTML.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use super::StudyRun;
use super::trend::{Scores, Slope};
use crate::files::write_whole;
use crate::report::shell::Page;
use crate::words::{aligned, counted};

/// Sides of a chart, in pixels.
const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 260.0;
/// Room for the axes.
const MARGIN: f64 = 46.0;
/// Okabe and Ito's colours, which colour-blind people can distinguish.
const COLOURS: [&str; 6] = [
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9",
];

/// Writes `report.md` with a chart a group beside it, `report.html` with all of them, and `scaling.json`.
pub(super) fn write(
    folder: &Path,
    runs: &[StudyRun],
    scores: &[Scores],
    metric: &str,
) -> anyhow::Result<()> {
    let facts: Vec<_> = runs.iter().map(|run| &run.training).collect();
    write_whole(&folder.join("scaling.json"), |out| {
        let all = serde_json::json!({"metric": metric, "runs": facts, "groups": scores});
        Ok(serde_json::to_writer_pretty(out, &all)?)
    })?;
    let mut body = String::from("<main>");
    let _ = write!(
        body,
        "<h1>How {metric} grows with the model and the data</h1>"
    );
    for scores in scores {
        let chart = chart(runs, scores, metric);
        write_whole(&folder.join(format!("{}.svg", scores.group)), |out| {
            Ok(out.write_all(chart.as_bytes())?)
        })?;
        let _ = write!(
            body,
            "<section><h2>{}</h2>{chart}<p>{}</p></section>",
            scores.group,
            trend(scores)
        );
    }
    let text = markdown(runs, scores, metric);
    let _ = writeln!(
        body,
        "<pre>{}</pre></main>",
        escaped(&self::text(runs, scores, metric))
    );
    write_whole(&folder.join("report.md"), |out| {
        Ok(out.write_all(text.as_bytes())?)
    })?;
    let page = Page {
        title: "m3ret scaling study",
        style: include_str!("../report/web/study.css"),
        body: &body,
        script: "",
        data: None,
    };
    let page = page.html();
    Ok(write_whole(&folder.join("report.html"), |out| {
        Ok(out.write_all(page.as_bytes())?)
    })?)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// The cells of one group: a head, then a row a run.
fn rows(runs: &[StudyRun], scores: &[Scores]) -> Vec<Vec<String>> {
    let head = ["size", "parameters", "share", "images"]
        .map(str::to_owned)
        .into_iter();
    let groups = scores.iter().map(|scores| scores.group.clone());
    let mut rows: Vec<Vec<String>> = vec![head.chain(groups).collect()];
    for (idx, run) in runs.iter().enumerate() {
        let facts = &run.training;
        let mut row = vec![
            facts.size.clone(),
            facts.n_parameters.to_string(),
            facts.fraction.to_string(),
            facts.n_images.to_string(),
        ];
        row.extend(scores.iter().map(|scores| {
            let value = scores.values[idx];
            match scores.intervals[idx] {
                Some(interval) => format!("{value:.3} [{:.3}, {:.3}]", interval.low, interval.high),
                None => format!("{value:.3}"),
            }
        }));
        rows.push(row);
    }
    type Number = fn(&Scores) -> f64;
    let others: [(&str, Number); 2] = [
        ("pixels", |scores| scores.pixels),
        ("chance", |scores| scores.chance),
    ];
    for (name, of) in others {
        let mut row = vec![name.to_owned(), String::new(), String::new(), String::new()];
        row.extend(scores.iter().map(|scores| format!("{:.3}", of(scores))));
        rows.push(row);
    }
    rows
}

fn slope(slope: Slope) -> String {
    format!(
        "{:+.4} [{:+.4}, {:+.4}]",
        slope.value, slope.ci95_low, slope.ci95_high
    )
}

fn trend(scores: &Scores) -> String {
    let about = format!(
        "{}, {} of {}",
        counted(scores.n_tasks as u64, "task", "tasks"),
        counted(scores.n_queries as u64, "query", "queries"),
        counted(scores.n_patients as u64, "patient", "patients")
    );
    match &scores.trend {
        Some(trend) => format!(
            "{about}; twice the parameters {}, twice the images {}; what the fit leaves over: {:.4}",
            slope(trend.per_doubling_of_size),
            slope(trend.per_doubling_of_data),
            trend.residual
        ),
        None => {
            format!("{about}; no trend: sizes and shares must differ, and five patients are needed")
        }
    }
}

/// Writes the study for a terminal.
pub(super) fn text(runs: &[StudyRun], scores: &[Scores], metric: &str) -> String {
    let mut text = format!("{metric}, means of groups\n");
    for line in aligned(&rows(runs, scores), 1..4) {
        let _ = writeln!(text, "  {line}");
    }
    for scores in scores {
        let _ = writeln!(text, "{}: {}", scores.group, trend(scores));
    }
    text
}

fn markdown(runs: &[StudyRun], scores: &[Scores], metric: &str) -> String {
    let mut text = format!("# Scaling study: {metric}\n\n");
    for (idx, row) in rows(runs, scores).iter().enumerate() {
        let _ = writeln!(text, "| {} |", row.join(" | "));
        if idx == 0 {
            let _ = writeln!(text, "|---|{}", "---:|".repeat(row.len() - 1));
        }
    }
    text.push_str(
        "\nMeans over the tasks of a group with n >= 20, chance of precision_at_5 <= 0.8, that of pixels below 0.98, and no\n\
         fixed ranking that reaches 0.8 of the maximum, with\n\
         patient-clustered bootstrap 95 % intervals. The fit is a plane over the logarithms of parameters and images;\n\
         intervals of its slopes come from the same draws of patients, and hold nothing of the seed of training.\n\n",
    );
    for scores in scores {
        let _ = writeln!(text, "- **{}**: {}", scores.group, trend(scores));
    }
    for scores in scores {
        let _ = write!(text, "\n![{0}]({0}.svg)", scores.group);
    }
    text.push('\n');
    text
}

/// Draws a group's values over parameters, a line for each share of the data.
fn chart(runs: &[StudyRun], scores: &Scores, metric: &str) -> String {
    let bounds = |idx: usize| {
        let value = scores.values[idx];
        scores.intervals[idx].map_or([value, value], |interval| [interval.low, interval.high])
    };
    let all = (0..runs.len())
        .flat_map(bounds)
        .chain([scores.pixels, scores.chance]);
    let (low, high) = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| {
        (low.min(x), high.max(x))
    });
    let (low, high) = (low - 0.02, high + 0.02);
    let log = |run: &StudyRun| (run.training.n_parameters.max(1) as f64).log2();
    let (left, right) = runs
        .iter()
        .map(log)
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| {
            (a.min(x), b.max(x))
        });
    let at_x = |x: f64| MARGIN + (x - left + 0.3) / (right - left + 0.6) * (WIDTH - MARGIN - 8.0);
    let at_y = |y: f64| HEIGHT - MARGIN - (y - low) / (high - low) * (HEIGHT - MARGIN - 24.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" font-family=\"sans-serif\" \
         font-size=\"11\"><rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\
         <text x=\"8\" y=\"14\">{} ({metric})</text>",
        scores.group
    );
    for (name, value) in [("pixels", scores.pixels), ("chance", scores.chance)] {
        let y = at_y(value);
        let _ = write!(
            svg,
            "<line x1=\"{MARGIN}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#999\" stroke-dasharray=\"4 3\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#666\">{name}</text>",
            MARGIN + 2.0,
            y - 3.0
        );
    }
    for tick in 0..5 {
        let value = low + (high - low) * f64::from(tick) / 4.0;
        let _ = write!(
            svg,
            "<text x=\"8\" y=\"{:.1}\" fill=\"#444\">{value:.2}</text>",
            at_y(value) + 4.0
        );
    }
    svg.push_str(&names_of_sizes(runs, &at_x));
    svg.push_str(&lines(runs, scores, &at_x, &at_y));
    svg.push_str("</svg>");
    svg
}

type Axis<'a> = &'a dyn Fn(f64) -> f64;

/// Writes below the chart how many parameters each size has.
fn names_of_sizes(runs: &[StudyRun], at_x: Axis<'_>) -> String {
    let mut svg = String::new();
    let mut sizes: Vec<&StudyRun> = Vec::new();
    for run in runs {
        if !sizes
            .iter()
            .any(|other| other.training.size == run.training.size)
        {
            sizes.push(run);
        }
    }
    for run in sizes {
        let (x, y) = (
            at_x((run.training.n_parameters.max(1) as f64).log2()),
            HEIGHT - 28.0,
        );
        let millions = run.training.n_parameters as f64 / 1e6;
        let _ = write!(
            svg,
            "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\" fill=\"#444\">{millions:.2} M</text>"
        );
    }
    svg
}

fn lines(runs: &[StudyRun], scores: &Scores, at_x: Axis<'_>, at_y: Axis<'_>) -> String {
    let mut shares: Vec<f64> = runs.iter().map(|run| run.training.fraction).collect();
    shares.sort_by(f64::total_cmp);
    shares.dedup();
    let mut svg = String::new();
    for (number, share) in shares.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let of_share = runs
            .iter()
            .enumerate()
            .filter(|(_, run)| run.training.fraction.total_cmp(share).is_eq());
        let mut points = Vec::new();
        for (idx, run) in of_share {
            // Shares lie side by side, so that intervals can be told apart.
            let x = at_x((run.training.n_parameters.max(1) as f64).log2())
                + 5.0 * (number as f64 - 1.0);
            let y = at_y(scores.values[idx]);
            points.push(format!("{x:.1},{y:.1}"));
            if let Some(interval) = scores.intervals[idx] {
                let _ = write!(
                    svg,
                    "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" opacity=\"0.5\"/>",
                    at_y(interval.low),
                    at_y(interval.high)
                );
            }
            let _ = write!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
            );
        }
        let _ = write!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{:.0} % of the data</text>",
            points.join(" "),
            MARGIN + 110.0 * (number % 3) as f64,
            HEIGHT - 8.0,
            100.0 * share
        );
    }
    svg
}
