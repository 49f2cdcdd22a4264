//! Embeds files: `embed_one MODEL PRECISION THREADS PATH...` prints one vector a line.
//!
//! MODEL is a model folder or `random:PRESET`; PRECISION is f32, bf16 or int8. With `-` as the only
//! path, paths are lines of its input, and each vector is printed at once. A file that cannot be
//! read or embedded prints an empty line and its reason on the error output.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example talks to its caller"
)]

use std::io::stdin;
use std::path::Path;

use m3ret_encoder::{Model, Precision, RunOptions};
use m3ret_imaging::{ReadOptions, read_path};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, precision, n_threads, paths @ ..] = arguments.as_slice() else {
        return Err("usage: embed_one MODEL PRECISION THREADS PATH...|-".into());
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
    let model = match name.strip_prefix("random:") {
        Some(preset) => Model::random(preset, 0, &options)?,
        None => Model::open(Path::new(name), &options)?,
    };
    if paths == ["-"] {
        stdin().lines().try_for_each(|path| {
            print_vector(&model, &path?);
            Ok(())
        })
    } else {
        paths.iter().for_each(|path| print_vector(&model, path));
        Ok(())
    }
}

fn print_vector(model: &Model, path: &str) {
    let vector = embed(model, path).unwrap_or_else(|error| {
        eprintln!("{path}: {error}");
        Vec::new()
    });
    let values: Vec<_> = vector.iter().map(f32::to_string).collect();
    println!("{}", values.join(" "));
}

fn embed(model: &Model, path: &str) -> Result<Vec<f32>, Failure> {
    let volumes = read_path(Path::new(path), &ReadOptions::default())?;
    let volume = volumes.first().ok_or("nothing was read")?;
    let prepared = model.prepare(volume)?;
    Ok(model.embed(&[&prepared])?.remove(0))
}
