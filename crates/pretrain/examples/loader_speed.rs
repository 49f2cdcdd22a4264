//! Measures the readers alone: `loader_speed CONFIG.toml N_STEPS [FIRST_STEP]`.
//!
//! Prints the time to load the manifests, to the first batch, then items a second, CPU seconds an item
//! (children such as ffmpeg included) and the peak of resident memory.

#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use m3ret_pretrain::Config;
use m3ret_pretrain::dataset::{Items, Loader};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: loader_speed CONFIG.toml N_STEPS [FIRST_STEP]";
    let config: Config =
        toml::from_str(&std::fs::read_to_string(arguments.first().ok_or(usage)?)?)?;
    let n_steps: u64 = arguments.get(1).ok_or(usage)?.parse()?;
    let first_step: u64 = arguments.get(2).map_or(Ok(0), |step| step.parse())?;

    let begin = Instant::now();
    let items = Arc::new(Items::load(&config)?);
    let facts = items.facts();
    println!(
        "{} items, {} for validation",
        facts.n_train, facts.n_validation
    );
    println!(
        "manifests: {:.2} s, peak {}",
        begin.elapsed().as_secs_f64(),
        peak()
    );

    let (begin, cpu) = (Instant::now(), cpu_s());
    let mut n_items = 0;
    let mut refused: BTreeMap<&str, usize> = BTreeMap::new();
    for (n_before, batch) in Loader::start(items, &config, first_step, n_steps)?.enumerate() {
        let batch = batch?;
        if n_before == 0 {
            println!("first batch: {:.2} s", begin.elapsed().as_secs_f64());
        }
        n_items += batch.samples.len();
        for (_, code) in batch.refused {
            *refused.entry(code).or_default() += 1;
        }
    }
    #[allow(clippy::cast_precision_loss, reason = "items are few")]
    let n = n_items as f64;
    let (wall_s, cpu_s) = (begin.elapsed().as_secs_f64(), cpu_s() - cpu);
    println!(
        "{:.1} items/s, {:.2} CPU ms an item, peak {}",
        n / wall_s,
        1e3 * cpu_s / n,
        peak()
    );
    println!("refused: {refused:?}");
    Ok(())
}

/// Returns the CPU time of this process and its ended children, in ticks of 10 ms.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 to 17, counted behind the name, which may hold spaces.
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    fields
        .skip(11)
        .take(4)
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    line.unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .collect::<Vec<_>>()
        .join(" ")
}
