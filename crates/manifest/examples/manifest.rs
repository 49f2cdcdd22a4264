//! Makes and loads large manifests, to measure them: `benches/compare/manifest.py` runs it.
//!
//! ```text
//! manifest make 1000000 OUT.csv|OUT.parquet
//! manifest load|stream FILE
//! ```

#![allow(clippy::print_stdout, reason = "an example speaks to a person")]

use std::path::Path;
use std::time::Instant;

use m3ret_imaging::{Limits, Result};
use m3ret_manifest::{COLUMNS, Layout, Manifest, Writer};

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let start = Instant::now();
    let n_rows = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["make", n_rows, path] => make(n_rows.parse()?, path.as_ref())?,
        ["load", path] => Manifest::open(path.as_ref(), &Limits::default())?
            .load()?
            .len(),
        ["stream", path] => {
            let mut manifest = Manifest::open(path.as_ref(), &Limits::default())?;
            manifest.try_fold(0, |n_rows, batch| batch.map(|rows| n_rows + rows.len()))?
        }
        _ => return Err("manifest make N FILE | load FILE | stream FILE".into()),
    };
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{{\"rows\": {n_rows}, \"seconds\": {seconds}, \"peak_kib\": {}}}",
        peak_kib()
    );
    Ok(())
}

/// Writes rows as varied as those of an archive: 200,000 patients, 40 sources, 9 body parts.
fn make(n_rows: usize, path: &Path) -> Result<usize> {
    let mut writer = Writer::create(path, Layout::for_path(path), &COLUMNS)?;
    for row in 0..n_rows {
        let pick = |words: &[&'static str], salt: usize| {
            words
                .get((row * 7919 + salt) / 11 % words.len())
                .copied()
                .unwrap_or_default()
        };
        let modality = pick(&["CT", "DX", "US", "ES", "MG", "XA"], 1);
        let body_part = pick(
            &[
                "chest", "head", "abdomen", "hand", "pelvis", "breast", "colon", "eye", "",
            ],
            2,
        );
        let finding = pick(
            &["", "normal", "polyp", "pneumonia", "tumor", "fracture"],
            3,
        );
        let source = format!("source-{:02}", row * 40 / n_rows.max(1));
        let patient = format!("{source}-{:06}", row / 5);
        let file = format!(
            "{}/{source}/{source}-{row:07}.nii.gz",
            modality.to_lowercase()
        );
        let split = pick(&["pretrain", "pretrain", "pretrain", "gallery", "query"], 4);
        let dims = pick(&["2d", "3d", "video"], 5);
        let pair = if row % 10 == 0 {
            format!("pair-{}", row / 20)
        } else {
            String::new()
        };
        let cells = [
            &file, modality, body_part, finding, &patient, &source, split, dims,
        ];
        writer.push(cells.into_iter().chain(["CC BY 4.0", &pair]))?;
    }
    writer.finish()?;
    Ok(n_rows)
}

/// Returns the most memory that this process ever held (`VmHWM`), 0 where Linux does not say.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}
