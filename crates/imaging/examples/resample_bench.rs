//! Resamples one made-up CT each time a line arrives and prints the CPU and wall seconds it took:
//! the Rust half of benches/compare/resample.py, which alternates it with scipy.
//!
//! `resample_bench resample` does 512 x 512 x 128 -> 128 x 128 x 128, `resample_bench prepare` makes
//! the default model input of the same volume.

#![allow(clippy::print_stdout, reason = "an example talks to its caller")]

use std::hint::black_box;
use std::io::{BufRead as _, stdin};
use std::time::Instant;

use m3ret_imaging::{InputConfig, Kind, Volume, prepare, resample};

const FROM: [usize; 3] = [128, 512, 512];
const TO: [usize; 3] = [128, 128, 128];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mode = std::env::args().nth(1).unwrap_or_default();
    let n_values: u32 = 128 * 512 * 512;
    // 12 bits of noise, as `(i * 7919) % 4096` in the Python half.
    let stored = (0..n_values).map(|i| u16::try_from(u64::from(i) * 7919 % 4096));
    let values = stored
        .map(|v| v.map(f32::from))
        .collect::<Result<Vec<f32>, _>>()?;
    let volume = Volume::new(values, [1, FROM[0], FROM[1], FROM[2]], Kind::Volume)?;
    for line in stdin().lock().lines() {
        line?;
        let (started, cpu_before) = (Instant::now(), cpu_seconds()?);
        match mode.as_str() {
            "resample" => drop(black_box(resample(volume.values(), FROM, TO)?)),
            "prepare" => drop(black_box(prepare(&volume, &InputConfig::default())?)),
            other => return Err(format!("mode is resample or prepare, not '{other}'").into()),
        }
        println!(
            "{} {}",
            cpu_seconds()? - cpu_before,
            started.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

/// CPU time of all threads of this program: the first field of each `schedstat`, in ns.
fn cpu_seconds() -> Result<f64, Box<dyn std::error::Error>> {
    let mut nanoseconds = 0.0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let line = std::fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += line.split(' ').next().unwrap_or_default().parse::<f64>()?;
    }
    Ok(nanoseconds / 1e9)
}
