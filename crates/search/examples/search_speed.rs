//! Times searches of a gallery, for benches/compare/search.py: prints one line of JSON.
//!
//!     search_speed GALLERY.m3i QUERIES.npy --k 10 --batch 1 --rounds 3 [--exact]
//!         [--filter COLUMN=VALUE] [--recall SHARE] [--probe LISTS] [--out FILE]
//!
//! `--out` writes the row numbers of all hits, i64 [n, k]; ids must be numbers.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    missing_docs,
    reason = "a program for measuring"
)]

use std::time::Instant;

use m3ret_search::{Filter, Gallery, Method, Plan, Queries, Recall, RowHit, SearchOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| value_of(&arguments, name);
    let number = |name: &str, default: usize| -> usize {
        value(name).map_or(default, |value| value.parse().unwrap())
    };
    let start = Instant::now();
    let gallery = Gallery::open(arguments[1].as_ref())?;
    let open_s = start.elapsed().as_secs_f64();
    let queries = read_npy(&arguments[2], gallery.width())?;
    let (k, batch) = (number("--k", 10), number("--batch", 2000));
    let options = options_of(&arguments, &gallery, k);
    let n_queries = number("--n", usize::MAX).min(queries.len() / gallery.width());
    let queries = &queries[..n_queries * gallery.width()];
    // The first round reads the files and checks them; the fastest of the others counts.
    let mut hits = run_all(&gallery, queries, batch, &options)?.0;
    let mut best: Option<Cost> = None;
    for _ in 0..number("--rounds", 3) {
        let cost;
        (hits, cost) = run_all(&gallery, queries, batch, &options)?;
        best = Some(match best {
            Some(best) if best.cpu_s <= cost.cpu_s => best,
            _ => cost,
        });
    }
    let Cost {
        cpu_s: cpu,
        wall_s: wall,
        mut latencies,
    } = best.unwrap();
    latencies.sort_by(f64::total_cmp);
    let at = |percent: usize| latencies[latencies.len() * percent / 100] * 1e6;
    let (anonymous, all) = resident_mib()?;
    let numbers = [
        ("cpu_s", cpu),
        ("wall_s", wall),
        ("latency_us_median", at(50)),
        ("latency_us_p99", at(99)),
        ("rss_anonymous_mib", anonymous),
        ("rss_mib", all),
        ("open_s", open_s),
    ];
    let numbers = numbers.map(|(name, number)| format!("\"{name}\":{number}"));
    println!("{{\"n_queries\":{n_queries},{}}}", numbers.join(","));
    match value("--out") {
        Some(out) => write_hits(out, &gallery, &hits, k),
        None => Ok(()),
    }
}

/// The hits of each query.
type Answers = Vec<Vec<RowHit>>;

/// What one round took.
struct Cost {
    cpu_s: f64,
    wall_s: f64,
    latencies: Vec<f64>,
}

/// Searches for all queries, some at a time.
fn run_all(
    gallery: &Gallery,
    queries: &[f32],
    batch: usize,
    options: &SearchOptions,
) -> Result<(Answers, Cost), Box<dyn std::error::Error>> {
    let (cpu, wall) = (cpu_s(), Instant::now());
    let (mut found, mut latencies) = (Vec::new(), Vec::new());
    for vectors in queries.chunks(batch * gallery.width()) {
        let start = Instant::now();
        let queries = Queries {
            vectors,
            ..Queries::default()
        };
        found.extend(gallery.search(queries, options)?);
        latencies.push(start.elapsed().as_secs_f64());
    }
    let cost = Cost {
        cpu_s: cpu_s() - cpu,
        wall_s: wall.elapsed().as_secs_f64(),
        latencies,
    };
    Ok((found, cost))
}

/// Writes the row numbers of all hits, -1 where there are fewer.
fn write_hits(
    out: &str,
    gallery: &Gallery,
    hits: &[Vec<RowHit>],
    k: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut bytes = Vec::new();
    for hits in hits {
        for idx in 0..k {
            let id = hits.get(idx).map(|hit| gallery.id(hit.row)).transpose()?;
            let row: i64 = id.map_or(Ok(-1), str::parse)?;
            bytes.extend(row.to_le_bytes());
        }
    }
    Ok(std::fs::write(out, bytes)?)
}

fn options_of(arguments: &[String], gallery: &Gallery, k: usize) -> SearchOptions {
    let value = |name: &str| value_of(arguments, name);
    let is_exact = arguments.iter().any(|argument| argument == "--exact");
    let probed = value("--probe").and_then(|n_probe| {
        let plan = gallery.calibration()?.plans.first()?;
        Some(Method::Planned(Plan {
            n_probe: n_probe.parse().ok(),
            ..*plan
        }))
    });
    let recall = value("--recall").map(|share| Recall::new(share.parse().unwrap()).unwrap());
    let probed = probed.or(recall.map(Method::Recall));
    if arguments.iter().any(|argument| argument == "--plans") {
        eprintln!("{:?}", gallery.calibration());
    }
    SearchOptions {
        k,
        method: if is_exact {
            Method::Exact
        } else {
            probed.unwrap_or_default()
        },
        filters: value("--filter")
            .into_iter()
            .map(|text| filter(text))
            .collect(),
        ..SearchOptions::default()
    }
}

fn value_of<'a>(arguments: &'a [String], name: &str) -> Option<&'a String> {
    let place = arguments.iter().position(|argument| argument == name);
    place.and_then(|place| arguments.get(place + 1))
}

fn filter(text: &str) -> Filter {
    let (column, value) = text.split_once('=').unwrap();
    Filter {
        column: column.to_owned(),
        values: vec![value.to_owned()],
        is_negated: false,
    }
}

/// Reads a C-ordered array of f32.
fn read_npy(path: &str, width: usize) -> Result<Vec<f32>, Box<dyn std::error::Error>> {
    let bytes = std::fs::read(path)?;
    let length = u16::from_le_bytes([bytes[8], bytes[9]]);
    let header = std::str::from_utf8(&bytes[10..10 + usize::from(length)])?;
    if !header.contains("'<f4'") || !header.contains(&format!(", {width})")) {
        return Err(format!("f32 [n, {width}] is wanted, found {header}").into());
    }
    let values = bytes[10 + usize::from(length)..].as_chunks().0.iter();
    Ok(values.map(|&value| f32::from_le_bytes(value)).collect())
}

/// CPU time of all threads.
fn cpu_s() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    let own: f64 = text.split(' ').next().unwrap().parse().unwrap();
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let all = threads.flatten().filter_map(|entry| {
        let text = std::fs::read_to_string(entry.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    all.sum::<f64>().max(own) * 1e-9
}

/// Resident memory: anonymous, and with mapped files.
fn resident_mib() -> Result<(f64, f64), Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| -> f64 {
        let line = status.lines().find(|line| line.starts_with(name));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number.map_or(0.0, |number| number.parse().unwrap()) / 1024.0
    };
    Ok((field("RssAnon"), field("VmRSS")))
}
