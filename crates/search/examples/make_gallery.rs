//! Makes a gallery of vectors alone, to measure building without the command line around it.
//!
//!     make_gallery OUT.m3i VECTORS.npy [PATIENTS.txt, a line for each row]
//!     make_gallery OUT.m3i VECTORS.npy --add     times adding its rows to OUT.m3i
//!
//! Ids are row numbers, the column `bucket` has 100 values, and `tenth` has 10.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a program for measuring"
)]

use std::time::Instant;

use m3ret_search::{Batch, Maker, Numbers, Setup, Writer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let (vectors, width) = read_npy(&arguments[2])?;
    let n = vectors.len() / width;
    let ids: Vec<String> = (0..n).map(|row| row.to_string()).collect();
    let cycle = |name: &str, length: usize| {
        let values: Vec<String> = (0..n).map(|row| (row % length).to_string()).collect();
        (name.to_owned(), values)
    };
    let mut columns = vec![cycle("bucket", 100), cycle("tenth", 10)];
    if let Some(patients) = arguments.get(3).filter(|argument| *argument != "--add") {
        let text = std::fs::read_to_string(patients)?;
        columns.push((
            "patient_id".to_owned(),
            text.lines().map(str::to_owned).collect(),
        ));
    }
    if arguments.iter().any(|argument| argument == "--add") {
        return add(&arguments[1], &vectors, &columns);
    }
    let setup = Setup {
        maker: Maker {
            fingerprint: "bench".into(),
            model: "bench".into(),
            precision: "f32".into(),
        },
        width,
        numbers: Numbers::F32,
    };
    let (start, cpu) = (Instant::now(), cpu_s());
    let mut writer = Writer::create(arguments[1].as_ref(), setup)?;
    let batch = Batch {
        vectors: &vectors,
        ids: &ids,
        columns: &columns,
        ..Batch::default()
    };
    writer.add(batch)?;
    let added = (cpu_s() - cpu, start.elapsed().as_secs_f64());
    writer.compact()?;
    let (cpu_s, wall_s) = (cpu_s() - cpu, start.elapsed().as_secs_f64());
    println!(
        "{{\"n\":{n},\"width\":{width},\"cpu_s\":{cpu_s},\"wall_s\":{wall_s},\"add_cpu_s\":{},\"add_wall_s\":{}}}",
        added.0, added.1
    );
    Ok(())
}

/// Adds rows under new ids and says how long opening, adding and removing them took.
fn add(
    gallery: &str,
    vectors: &[f32],
    columns: &[(String, Vec<String>)],
) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let mut writer = Writer::open(gallery.as_ref())?;
    let open_s = start.elapsed().as_secs_f64();
    let n = columns[0].1.len();
    let ids: Vec<String> = (0..n).map(|row| format!("new/{row}")).collect();
    let batch = Batch {
        vectors,
        ids: &ids,
        columns,
        ..Batch::default()
    };
    let start = Instant::now();
    writer.add(batch)?;
    let add_s = start.elapsed().as_secs_f64();
    let start = Instant::now();
    writer.remove(&ids)?;
    let remove_s = start.elapsed().as_secs_f64();
    println!("{{\"n\":{n},\"open_s\":{open_s},\"add_s\":{add_s},\"remove_s\":{remove_s}}}");
    Ok(())
}

/// Reads a C-ordered array of f32, [n, width].
fn read_npy(path: &str) -> Result<(Vec<f32>, usize), Box<dyn std::error::Error>> {
    let bytes = std::fs::read(path)?;
    let length = u16::from_le_bytes([bytes[8], bytes[9]]);
    let header = std::str::from_utf8(&bytes[10..10 + usize::from(length)])?;
    let shape = header.split(['(', ')']).nth(1).unwrap();
    let width = shape
        .split(", ")
        .nth(1)
        .unwrap()
        .trim_end_matches(',')
        .parse()?;
    let values = bytes[10 + usize::from(length)..].as_chunks().0.iter();
    Ok((
        values.map(|&value| f32::from_le_bytes(value)).collect(),
        width,
    ))
}

/// CPU time of all threads that still run.
fn cpu_s() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let all = threads.flatten().filter_map(|entry| {
        let text = std::fs::read_to_string(entry.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    all.sum::<f64>() * 1e-9
}
