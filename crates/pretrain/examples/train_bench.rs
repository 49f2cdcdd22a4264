//! Times one training step: `train_bench PRESET DEPTH BATCH ROUNDS PRECISION THREADS [DEVICE]`.
//!
//! Images are `[3, DEPTH, 224, 224]`. ROUNDS is a number, or `-`: then it runs three steps to warm up,
//! says `ready`, and runs one for each line of its input, so that benches/compare/train.py can alternate
//! it with PyTorch. Each step prints its wall and CPU seconds, and the loss.

#![allow(clippy::print_stdout, reason = "an example talks to its caller")]

use std::io::{BufRead as _, stdin};
use std::time::Instant;

use m3ret_encoder::VitConfig;
use m3ret_pretrain::config::{Device, TrainPrecision};
use m3ret_pretrain::measure::PlainStep;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [
        preset,
        depth,
        batch,
        rounds,
        precision,
        n_threads,
        device @ ..,
    ] = arguments.as_slice()
    else {
        return Err(
            "usage: train_bench PRESET DEPTH BATCH ROUNDS|- PRECISION THREADS [DEVICE]".into(),
        );
    };
    let n_threads = n_threads.parse()?;
    rayon::ThreadPoolBuilder::new()
        .num_threads(n_threads)
        .build_global()?;
    let mut step = PlainStep {
        vit: VitConfig::named(preset).ok_or("PRESET is tiny, small, base or large")?,
        depth: depth.parse()?,
        side: 224,
        batch: batch.parse()?,
        device: match device.first().map(String::as_str) {
            None | Some("cpu") => Device::Cpu,
            _ => Device::Cuda,
        },
        precision: match precision.as_str() {
            "bf16" => TrainPrecision::Bf16,
            _ => TrainPrecision::F32,
        },
        recompute: false,
    }
    .ready()?;
    if rounds != "-" {
        return (0..rounds.parse()?).try_for_each(|_| time_one(&mut step));
    }
    (0..3).for_each(|_| {
        step();
    });
    println!("ready");
    for line in stdin().lock().lines() {
        line?;
        time_one(&mut step)?;
    }
    Ok(())
}

fn time_one(step: &mut dyn FnMut() -> f64) -> Result<(), Failure> {
    let (started, cpu_before) = (Instant::now(), cpu_seconds()?);
    let loss = step();
    let wall = started.elapsed().as_secs_f64();
    println!("{wall:.5} {:.5} {loss}", cpu_seconds()? - cpu_before);
    Ok(())
}

/// CPU time of all threads of this program: the first field of each `schedstat`, in ns.
fn cpu_seconds() -> Result<f64, Failure> {
    let mut nanoseconds = 0.0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let line = std::fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += line.split(' ').next().unwrap_or_default().parse::<f64>()?;
    }
    Ok(nanoseconds / 1e9)
}
