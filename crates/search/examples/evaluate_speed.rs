//! Times the metrics of a self-retrieval: every vector asks for all others.
//!
//!     cargo run --release -p m3ret-search --example evaluate_speed -- N WIDTH N_CLASSES
//!
//! Vectors are random around a direction of their class; patients have ten each. Prints seconds of the
//! wall and of the CPU, the largest memory, and some means.

#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a program for benchmarks"
)]

use std::time::Instant;

use m3ret_search::{
    Bootstrap, Clusters, Column, Columns, Embeddings, Measures, Metric, Task, evaluate, normalize,
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(|word| word.parse::<usize>());
    let mut next = || arguments.next().ok_or("N WIDTH N_CLASSES are wanted");
    let (n, width, n_classes) = (next()??, next()??, next()??);
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut direction = |scale: f32| -> Vec<f32> {
        (0..width)
            .map(|_| scale * (random.random::<f32>() - 0.5))
            .collect()
    };
    let classes: Vec<Vec<f32>> = (0..n_classes).map(|_| direction(1.0)).collect();
    let mut vectors = Vec::with_capacity(n * width);
    for i in 0..n {
        let mut vector = direction(3.0);
        let pairs = vector.iter_mut().zip(&classes[i * 7919 % n_classes]);
        pairs.for_each(|(x, class)| *x += class);
        normalize(&mut vector)?;
        vectors.extend(vector);
    }
    let mut columns = Columns::new(n);
    let labels: Vec<String> = (0..n)
        .map(|i| format!("{}", i * 7919 % n_classes))
        .collect();
    let patients: Vec<String> = (0..n).map(|i| format!("{}", i / 10)).collect();
    columns.insert("label", Column::new(labels.iter().map(String::as_str)))?;
    columns.insert(
        "patient_id",
        Column::new(patients.iter().map(String::as_str)),
    )?;
    let rows: Vec<u32> = (0..u32::try_from(n)?).collect();
    let task = Task {
        name: "all/label".to_owned(),
        queries: rows.clone(),
        gallery: rows.clone(),
        relevance: "label".to_owned(),
        query_modality: None,
        gallery_modality: None,
    };
    let metrics = Metric::all(&[1, 5, 10, 100]);
    let measures = Measures {
        metrics: &metrics,
        least_grade: 1.0,
        n_hits: 100,
        tie_order: &rows,
    };
    let start = Instant::now();
    let embeddings = Embeddings::new(&vectors, width)?;
    let rules = [vec!["patient_id".to_owned()], Vec::new()];
    let evaluations = evaluate(&task, &columns, &embeddings, &measures, &rules)?;
    let ranked = start.elapsed().as_secs_f64();
    let answers = &evaluations[0].answers;
    let values: Vec<&[f64]> = answers
        .iter()
        .map(|answer| answer.values.as_slice())
        .collect();
    let patients: Vec<u32> = answers.iter().map(|answer| answer.query / 10 + 1).collect();
    let intervals =
        Clusters::new(&patients).intervals(&values, metrics.len(), Bootstrap::default());
    let total = start.elapsed().as_secs_f64();
    println!("{n} x {n}, width {width}, {n_classes} classes, two exclusions, k = 100");
    println!(
        "  {total:.1} s, of these {ranked:.1} s for rankings and {:.1} s for 2000 draws",
        total - ranked
    );
    for (idx, metric) in metrics.iter().enumerate() {
        let (value, chance) = evaluations[0].mean(idx);
        if let Some(interval) = intervals[idx] {
            println!(
                "  {metric:<20} {value:.4} [{:.4}, {:.4}] chance {chance:.4}",
                interval.low, interval.high
            );
        }
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM"));
    println!("  {}", peak.unwrap_or_default());
    Ok(())
}
