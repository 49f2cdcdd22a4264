//! Times the metrics of a self-retrieval: every vector asks for all others.
//!
//!     cargo run --release -p m3ret-search --example evaluate_speed -- N WIDTH N_CLASSES
//!
//! Vectors are random around a direction of their class; patients have ten each. Prints seconds of the
//! wall and of the CPU, the largest memory, and some means.

#![allow(clippy::print_stdout, reason = "a program for benchmarks")]

use std::time::Instant;

use m3ret_search::evaluation::{
    Bootstrap, Clusters, Column, Columns, Embeddings, Interval, Measures, Metric, Task, evaluate,
};
use m3ret_search::normalize;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

const KS: [usize; 4] = [1, 5, 10, 100];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(|word| word.parse::<usize>());
    let mut next = || arguments.next().ok_or("N WIDTH N_CLASSES are wanted");
    let (n, width, n_classes) = (next()??, next()??, next()??);
    let vectors = vectors(n, width, n_classes)?;
    let columns = columns(n, n_classes)?;
    let rows: Vec<u32> = (0..u32::try_from(n)?).collect();
    let task = Task {
        name: "all/label".to_owned(),
        queries: rows.clone(),
        gallery: rows.clone(),
        relevance: "label".to_owned(),
        query_modality: None,
        gallery_modality: None,
        has_unseen: false,
    };
    let metrics = Metric::all(&KS);
    let measures = Measures {
        metrics: &metrics,
        least_grade: 1.0,
        n_hits: 100,
        query_order: &rows,
        tie_order: &rows,
    };
    let start = Instant::now();
    let embeddings = Embeddings::new(&vectors, width)?;
    let rules = [vec!["patient_id".to_owned()], Vec::new()];
    let evaluations = evaluate(&task, &columns, &embeddings, &measures, &rules)?;
    let ranked = start.elapsed().as_secs_f64();
    let answers = evaluations[0].answers.iter();
    let values: Vec<&[f64]> = answers.clone().map(|a| a.values.as_slice()).collect();
    let patients: Vec<u32> = answers.map(|answer| answer.query / 10 + 1).collect();
    let clusters = Clusters::new(&patients);
    let strata = &evaluations[0].strata;
    let intervals = clusters.intervals(&values, metrics.len(), strata, Bootstrap::default());
    let total = start.elapsed().as_secs_f64();
    let draws = total - ranked;
    println!("{n} x {n}, width {width}, {n_classes} classes, two exclusions, k = 100");
    println!("  {total:.1} s, of these {ranked:.1} s for rankings and {draws:.1} s for 2000 draws");
    for (idx, metric) in metrics.iter().enumerate() {
        let value = evaluations[0].mean(|answer| answer.values[idx]);
        let chance = evaluations[0].mean(|answer| answer.chance[idx]);
        if let Some(Interval { low, high }) = intervals[idx] {
            println!("  {metric} {value:.4} [{low:.4}, {high:.4}] chance {chance:.4}");
        }
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM"));
    println!("  {}", peak.unwrap_or_default());
    Ok(())
}

/// The class of a row.
fn class(row: usize, n_classes: usize) -> usize {
    row * 7919 % n_classes
}

/// Unit vectors around the direction of their class.
fn vectors(n: usize, width: usize, n_classes: usize) -> m3ret_search::Result<Vec<f32>> {
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut direction = |scale: f32| -> Vec<f32> {
        let numbers = (0..width).map(|_| scale * (random.random::<f32>() - 0.5));
        numbers.collect()
    };
    let classes: Vec<Vec<f32>> = (0..n_classes).map(|_| direction(1.0)).collect();
    let mut vectors = Vec::with_capacity(n * width);
    for row in 0..n {
        let mut vector = direction(3.0);
        let pairs = vector.iter_mut().zip(&classes[class(row, n_classes)]);
        pairs.for_each(|(x, class)| *x += class);
        normalize(&mut vector)?;
        vectors.extend(vector);
    }
    Ok(vectors)
}

fn columns(n: usize, n_classes: usize) -> m3ret_search::Result<Columns> {
    let column = |of: &dyn Fn(usize) -> usize| {
        let texts: Vec<String> = (0..n).map(|row| of(row).to_string()).collect();
        Column::new(texts.iter().map(String::as_str))
    };
    let mut columns = Columns::new(n);
    columns.insert("label", column(&|row| class(row, n_classes)))?;
    columns.insert("patient_id", column(&|row| row / 10))?;
    Ok(columns)
}
