//! `m3ret compare`: which of two evaluated models is better, task by task.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use m3ret_search::evaluation::Bootstrap;

use super::write_json_line;
use crate::Outcome;
use crate::cli::CompareArguments;
use crate::out;
use crate::screen::Screen;
use m3ret::compare::{CompareOptions, compare};
use m3ret::evaluation::comparison::Comparison;
use m3ret::evaluation::comparison::table::{ComparisonTable, TableFile};
use m3ret::words::{aligned, printable_lines};

/// Compares, prints, writes.
pub(crate) fn run(arguments: &CompareArguments, _: Screen) -> anyhow::Result<Outcome> {
    let files = arguments.out.iter().map(|path| TableFile::of(path));
    let files: Vec<TableFile> = files.collect::<m3ret::Result<_>>()?;
    let inputs = [
        Some(&arguments.a),
        Some(&arguments.b),
        arguments.pixels.as_ref(),
    ];
    let inputs: Vec<&Path> = inputs.into_iter().flatten().map(PathBuf::as_path).collect();
    for file in &files {
        file.check(arguments.force, &inputs)?;
    }
    let options = CompareOptions {
        a: arguments.a.clone(),
        b: arguments.b.clone(),
        pixels: arguments.pixels.clone(),
        metrics: arguments.metric.clone(),
        bootstrap: Bootstrap {
            n_resamples: arguments.resamples,
            seed: arguments.seed,
        },
    };
    let comparison = compare(&options)?;
    let mut out = out::stdout();
    let told = if arguments.json {
        write_json_line(&mut out, &comparison)
    } else {
        out.write_all(text(&comparison).as_bytes())
    };
    told.context("writing to standard output")?;
    for file in files {
        file.write(&comparison)?;
    }
    Ok(Outcome::AllGood)
}

/// Returns a comparison as a table for a terminal, with the rules below it.
fn text(comparison: &Comparison) -> String {
    let table = ComparisonTable::of(comparison);
    let all = std::iter::once(&table.head).chain(&table.rows);
    let all: Vec<Vec<String>> = all.map(|row| row.to_vec()).collect();
    aligned(&all, 2..9).join("\n") + "\n\n" + &printable_lines(&table.notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use m3ret::evaluation::comparison::ComparisonRow;
    use m3ret::evaluation::protocol::PROTOCOL;

    #[test]
    fn a_table_for_a_terminal() {
        let row = ComparisonRow {
            name: "pair/DX-CT".to_owned(),
            is_group: false,
            metric: "map_at_r".to_owned(),
            n_queries: 120,
            n_patients: 60,
            chance: Some(0.0167),
            constant: Some(0.0213),
            resolution: Some(0.0312),
            is_solved_by_constant: false,
            a: 0.075,
            b: 0.1255,
            difference: 0.0505,
            ci95_low: Some(0.012),
            ci95_high: Some(0.091),
            verdict: "better",
        };
        let group = ComparisonRow {
            name: "pair (1 task)".to_owned(),
            is_group: true,
            ci95_low: None,
            ci95_high: None,
            resolution: None,
            verdict: "too few patients",
            ..row.clone()
        };
        let comparison = Comparison {
            a: "pixels".to_owned(),
            b: "a_model".to_owned(),
            protocol: PROTOCOL,
            knows_pixels: true,
            n_resamples: 2000,
            rows: vec![row, group],
            only_one_has: Vec::new(),
        };
        insta::assert_snapshot!(text(&comparison), @r##"
        task                   metric      n  patients  chance  constant  resolves  pixels  a_model  difference
        pair/DX-CT             map_at_r  120        60   0.017     0.021     0.031   0.075    0.126  +0.051 [+0.012, +0.091] better
        mean of pair (1 task)  map_at_r  120        60   0.017     0.021         -   0.075    0.126  +0.051 too few patients

        Differences are a_model minus pixels, paired by query, with patient-clustered bootstrap 95 % intervals (2000 draws).
        Group means use tasks with n >= 20, chance of precision_at_5 <= 0.8, precision_at_5 of pixels below 0.98,
        and no fixed ranking (constant) that reaches 0.8 of the maximum; map_at_r decides.
        resolves: the difference to be expected to show, if both models vary between patients as pixels does.
        "##);
    }
}
