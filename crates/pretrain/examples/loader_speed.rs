//! Measures the readers alone: `loader_speed CONFIG.toml N_STEPS [FIRST_STEP]`.
//!
//! CPU seconds are those of this process and of its children, such as ffmpeg.

#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use m3ret_pretrain::Config;
use m3ret_pretrain::dataset::{Items, Loader};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: loader_speed CONFIG.toml N_STEPS [FIRST_STEP]";
    let config = Config::load(Path::new(arguments.first().ok_or(usage)?), &[])?;
    let n_steps: u64 = arguments.get(1).ok_or(usage)?.parse()?;
    let first_step: u64 = arguments.get(2).map_or(Ok(0), |step| step.parse())?;

    let begin = Instant::now();
    let items = Arc::new(Items::load(&config)?);
    let (n, load_s) = (items.len(), begin.elapsed().as_secs_f64());
    println!("{n} items in {load_s:.2} s, peak {} KiB", peak_kib());

    let (begin, cpu, mut n_read) = (Instant::now(), cpu_s(), 0.0);
    let mut refused: BTreeMap<&str, usize> = BTreeMap::new();
    for batch in Loader::start(items, &config, first_step, n_steps)? {
        let batch = batch?;
        if batch.step == first_step {
            println!("first batch in {:.2} s", begin.elapsed().as_secs_f64());
        }
        n_read += batch.samples.iter().map(|_| 1.0).sum::<f64>();
        for (_, code) in batch.refused {
            *refused.entry(code).or_default() += 1;
        }
    }
    let (wall_s, cpu_s) = (begin.elapsed().as_secs_f64(), cpu_s() - cpu);
    let (rate, each_ms) = (n_read / wall_s, 1e3 * cpu_s / n_read);
    println!(
        "{rate:.1} items/s, {each_ms:.2} CPU ms an item, peak {} KiB",
        peak_kib()
    );
    println!("refused: {refused:?}");
    Ok(())
}

fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 to 17 in ticks of 10 ms, counted behind the name, which may hold spaces.
    let fields = stat.rsplit(')').next().unwrap_or_default().split(' ');
    let ticks = fields
        .skip(12)
        .take(4)
        .filter_map(|n| n.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}
