//! `report.html`: the evaluation for people, one file that needs nothing else.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;

use m3ret_imaging::archive::read_image;
use m3ret_imaging::{ReadOptions, thumbnail};
use m3ret_manifest::columns::{BODY_PART, DIMS, FINDING, MODALITY};
use m3ret_search::evaluation::{Answer, Embeddings};
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::headline::{Headline, MEANING};
use super::results::{Results, TaskResult};
use super::subject::{Subject, is_identifier};
use crate::embed::ahead::guarded;
use crate::embed::items::Content;
use crate::files::write_whole;
use crate::map::{first_place, layout, n_neighbours, neighbour};
use crate::panics;
use crate::report::shell::{Page, data_url};
use crate::report::viewer;

/// Queries that each task shows, and as many of the worst.
const N_SHOWN: usize = 3;
/// Hits beside each query.
const N_HITS: usize = 6;
/// Most pictures of a page; with more, it is slow to open.
const MAX_PICTURES: usize = 700;
/// Longest side of a picture, in pixels.
const PICTURE_PX: usize = 96;
/// Images on the map; of more, evenly spaced ones.
const MAX_POINTS: usize = 3000;

/// Writes the report.
pub(super) fn write(
    folder: &Path,
    results: &Results,
    subject: &Subject,
    embeddings: &Embeddings<'_>,
    options: &ReadOptions,
) -> anyhow::Result<()> {
    let mut pictures = BTreeSet::new();
    let mut tasks = Vec::with_capacity(results.tasks.len());
    for task in &results.tasks {
        let mut value = serde_json::to_value(task)?;
        value["shown"] = shown(task, subject, &mut pictures);
        tasks.push(value);
    }
    let mut about = serde_json::to_value(results)?;
    // Each image is stored once, with its picture.
    about["tasks"] = Value::Null;
    let data = json!({
        "headline": Headline::of(results, &[]).sentence(),
        "meaning": MEANING,
        "results": about,
        "tasks": tasks,
        "map": map(subject, embeddings),
        "pictures": draw(&pictures, subject, options),
    });
    let page = Page {
        title: "m3ret evaluation",
        style: &[viewer::STYLE, include_str!("../report/web/evaluate.css")].concat(),
        body: include_str!("../report/web/evaluate.html"),
        script: concat!(
            include_str!("../report/web/viewer.js"),
            include_str!("../report/web/bars.js"),
            include_str!("../report/web/evaluate.js")
        ),
        data: Some(&data),
    };
    let page = page.html();
    Ok(write_whole(&folder.join("report.html"), |out| {
        Ok(out.write_all(page.as_bytes())?)
    })?)
}

/// Chooses queries of a task: evenly spaced ones, then the worst.
fn shown(task: &TaskResult, subject: &Subject, pictures: &mut BTreeSet<u32>) -> Value {
    let n = task.answers.len();
    let even: Vec<usize> = (0..N_SHOWN.min(n))
        .map(|i| i * n / N_SHOWN.min(n))
        .collect();
    let mut worst: Vec<usize> = (0..n).filter(|idx| !even.contains(idx)).collect();
    worst.sort_by(|&a, &b| badness(&task.answers[b]).total_cmp(&badness(&task.answers[a])));
    worst.truncate(N_SHOWN);
    let mut cards = |chosen: &[usize], is_worst: bool| -> Vec<Value> {
        let cards = chosen.iter().filter_map(|&idx| {
            let answer = &task.answers[idx];
            let rows = answer
                .hits
                .iter()
                .take(N_HITS)
                .map(|hit| hit.row)
                .chain([answer.query]);
            let rows: Vec<u32> = rows.collect();
            if pictures.len() + rows.len() > MAX_PICTURES {
                return None;
            }
            pictures.extend(rows);
            Some(card(task, answer, subject, is_worst))
        });
        cards.collect()
    };
    let mut all = cards(&even, false);
    all.extend(cards(&worst, true));
    Value::from(all)
}

/// Large where few of the first hits are relevant, and then where the first one scores high.
fn badness(answer: &Answer) -> f64 {
    let n_wrong = answer
        .hits
        .iter()
        .take(N_HITS)
        .filter(|hit| hit.grade <= 0.0)
        .count();
    let first = answer.hits.first().map_or(0.0, |hit| f64::from(hit.score));
    n_wrong as f64 + 0.5 * first
}

fn card(task: &TaskResult, answer: &Answer, subject: &Subject, is_worst: bool) -> Value {
    let image = |row: u32| {
        let text = |name: &str| subject.columns.text(name, row as usize);
        let labels = [MODALITY, BODY_PART, FINDING].map(text);
        let labels = labels.iter().filter(|label| !label.is_empty());
        json!({
            "row": row,
            "path": subject.path(row),
            "labels": labels.copied().collect::<Vec<_>>().join(" "),
            "label": if is_identifier(&task.relevance) { "" } else { text(&task.relevance) },
        })
    };
    let hits = answer.hits.iter().take(N_HITS).map(|hit| {
        let mut value = image(hit.row);
        value["score"] = json!(hit.score);
        value["grade"] = json!(hit.grade);
        value
    });
    json!({
        "query": image(answer.query),
        "worst": is_worst,
        "n_relevant": answer.n_relevant,
        "n_candidates": answer.n_candidates,
        "hits": hits.collect::<Vec<_>>(),
    })
}

/// Draws images by their row; skips those that cannot be drawn.
fn draw(rows: &BTreeSet<u32>, subject: &Subject, options: &ReadOptions) -> Map<String, Value> {
    let rows: Vec<u32> = rows.iter().copied().collect();
    let drawn = rows.par_iter().filter_map(|&row| {
        let item = &subject.listing.items[subject.rows[row as usize]];
        let Content::Row { path, part } = &item.content else {
            return None;
        };
        let draw = || {
            let volume = guarded(|| read_image(path, part.as_deref(), options)).ok()?;
            thumbnail(&volume, PICTURE_PX).png().ok()
        };
        let bytes = panics::guard(draw).ok()??;
        Some((row.to_string(), Value::from(data_url(&bytes))))
    });
    drawn.collect::<Vec<_>>().into_iter().collect()
}

/// Places the images of all tasks on a map, similar ones close together.
fn map(subject: &Subject, embeddings: &Embeddings<'_>) -> Value {
    let wanted = subject.wanted();
    let takes_part =
        |&row: &u32| wanted[subject.rows[row as usize]] && embeddings.has(row as usize);
    let n_rows = u32::try_from(subject.rows.len()).unwrap_or(u32::MAX);
    let all: Vec<u32> = (0..n_rows).filter(takes_part).collect();
    let n = all.len().min(MAX_POINTS);
    if n < 5 {
        return Value::Null;
    }
    let rows: Vec<u32> = (0..n).map(|i| all[i * all.len() / n]).collect();
    let neighbours: Vec<_> = rows
        .par_iter()
        .map(|&row| nearest(row, &rows, embeddings))
        .collect();
    let start = rows
        .iter()
        .flat_map(|&row| first_place(embeddings.vector(row as usize)));
    let places = layout(&neighbours, start.collect());
    let points = rows
        .iter()
        .zip(places.chunks_exact(2))
        .map(|(&row, place)| {
            let text = |name: &str| subject.columns.text(name, row as usize);
            let kind = format!("{} {}", text(MODALITY), text(DIMS));
            let labels = format!("{} {}", text(BODY_PART), text(FINDING));
            json!([
                place[0],
                place[1],
                kind.trim(),
                labels.trim(),
                subject.path(row)
            ])
        });
    json!({"n_all": all.len(), "points": points.collect::<Vec<_>>()})
}

/// Returns the images of the map that are nearest to one of them.
fn nearest(row: u32, rows: &[u32], embeddings: &Embeddings<'_>) -> Vec<bhtsne::Neighbor<f32>> {
    let own = embeddings.vector(row as usize);
    let mut scores: Vec<(f32, usize)> = rows
        .iter()
        .enumerate()
        .filter(|&(_, &other)| other != row)
        .map(|(idx, &other)| {
            let products = own.iter().zip(embeddings.vector(other as usize));
            (products.map(|(x, y)| x * y).sum(), idx)
        })
        .collect();
    let k = n_neighbours(rows.len()).min(scores.len());
    scores.select_nth_unstable_by(k - 1, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    scores[..k]
        .iter()
        .map(|&(score, idx)| neighbour(idx, score))
        .collect()
}
