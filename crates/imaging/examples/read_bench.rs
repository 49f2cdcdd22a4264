//! Reads a file N times and prints the CPU seconds of each read, for benches/compare.
//!
//! usage: `read_bench FILE N`

use std::hint::black_box;
use std::path::Path;

use m3ret_imaging::{ReadOptions, read_path};

/// CPU seconds that this process has used; the kernel counts in ticks of 10 ms, so that N has to
/// be large enough for the sum.
fn cpu_seconds() -> std::io::Result<f64> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    // Fields 14 and 15 (user, system) in ticks of 1/100 s; the name before them may hold spaces.
    let behind_name = text.rsplit(')').next().unwrap_or_default();
    let ticks = behind_name.split_whitespace().skip(11).take(2);
    Ok(ticks
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0)
}

#[allow(clippy::print_stdout, reason = "an example for the terminal")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(n)) = (arguments.next(), arguments.next()) else {
        return Err("usage: read_bench FILE N".into());
    };
    let n_reads: u32 = n.parse()?;
    let options = ReadOptions::default();
    black_box(read_path(Path::new(&path), &options)?);
    let start = cpu_seconds()?;
    for _ in 0..n_reads {
        black_box(read_path(Path::new(&path), &options)?);
    }
    println!("{:.6}", (cpu_seconds()? - start) / f64::from(n_reads));
    Ok(())
}
