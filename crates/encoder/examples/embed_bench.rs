//! Times one network: `embed_bench MODEL DEPTH BATCH ROUNDS PRECISION THREADS`.
//!
//! MODEL is a model folder or a preset (random weights); DEPTH and BATCH are of the input
//! `[BATCH, 3, DEPTH, 224, 224]`, or `[BATCH, 3, D, SIDE, SIDE]` where DEPTH is `DxSIDE`; PRECISION is f32, bf16 or int8. ROUNDS is a number, or `-`: then
//! it loads, runs twice to warm up, says `ready`, and runs once for each line of its input, so that
//! benches/compare/encode.py can alternate it with others. Each run prints its wall and CPU
//! seconds, and one value of the result.

#![allow(clippy::print_stdout, reason = "an example talks to its caller")]

use std::io::{BufRead as _, stdin};
use std::time::Instant;

use m3ret_encoder::{Model, Precision, RunOptions, View};
use m3ret_imaging::Input;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, depth, batch, rounds, precision, n_threads] = arguments.as_slice() else {
        return Err("usage: embed_bench MODEL DEPTH BATCH ROUNDS|- PRECISION THREADS".into());
    };
    let options = RunOptions {
        precision: Some(match precision.as_str() {
            "f32" => Precision::F32,
            "bf16" => Precision::Bf16,
            "int8" => Precision::Int8,
            other => return Err(format!("precision is f32, bf16 or int8, not {other}").into()),
        }),
        n_threads: Some(n_threads.parse()?),
    };
    let folder = std::path::Path::new(model);
    let model = if folder.is_dir() {
        Model::open(folder, &options)?
    } else {
        Model::random(model, 0, &options)?
    };
    let (depth, side) = depth.split_once('x').unwrap_or((depth, "224"));
    let side = side.parse()?;
    let shape = [3, depth.parse()?, side, side];
    let n_values: usize = shape.iter().product();
    let values = (0..n_values).map(|i| (i * 37 % 101) as f32 / 100.0);
    let input = Input::new(values.collect(), shape)?;
    let view = View {
        input: &input,
        left_out: &[],
    };
    let views = vec![view; batch.parse()?];

    if rounds != "-" {
        return (0..rounds.parse()?).try_for_each(|_| time_one(&model, &views));
    }
    for _ in 0..2 {
        model.tokens(&views)?;
    }
    println!("ready");
    for line in stdin().lock().lines() {
        line?;
        time_one(&model, &views)?;
    }
    Ok(())
}

fn time_one(model: &Model, views: &[View<'_>]) -> Result<(), Failure> {
    let (started, cpu_before) = (Instant::now(), cpu_seconds()?);
    let tokens = model.tokens(views)?;
    let wall = started.elapsed().as_secs_f64();
    let cpu = cpu_seconds()? - cpu_before;
    println!("{wall:.5} {cpu:.5} {}", tokens[0].cls()[0]);
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
