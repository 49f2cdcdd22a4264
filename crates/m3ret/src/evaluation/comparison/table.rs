//! Tables of comparisons: their cells, and files in Markdown and LaTeX.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::error::bail;

use super::{COLLAPSED, Comparison, ComparisonRow};
use crate::evaluation::protocol::PROTOCOL;
use crate::files::{check_new_file, write_whole};

/// How a table is written to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A Markdown table.
    Markdown,
    /// A LaTeX `tabular` with the rules of `booktabs`.
    Latex,
}

/// A file that a comparison is written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFile {
    /// The file.
    pub path: PathBuf,
    /// How the table is written.
    pub layout: Layout,
}

impl TableFile {
    /// Chooses the layout by the extension of the name.
    ///
    /// # Errors
    /// If the name ends neither in `.md` nor in `.tex`.
    pub fn of(path: &Path) -> crate::Result<Self> {
        let layout = match path.extension().and_then(|extension| extension.to_str()) {
            Some("md") => Layout::Markdown,
            Some("tex") => Layout::Latex,
            _ => bail!(
                "{}: a name that ends in .md or .tex is wanted",
                path.display()
            ),
        };
        Ok(Self {
            path: path.to_owned(),
            layout,
        })
    }

    /// Refuses to write over a file, so that a slip in a command does not cost a page or a paper; with `is_forced`, any
    /// file but those of `inputs`.
    ///
    /// # Errors
    /// As `Output::check_file`.
    pub fn check(&self, is_forced: bool, inputs: &[&Path]) -> crate::Result<()> {
        Ok(check_new_file(&self.path, is_forced, inputs)?)
    }

    /// Writes a comparison to the file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, comparison: &Comparison) -> crate::Result<()> {
        let text = render(comparison, self.layout);
        write_whole(&self.path, |out| Ok(out.write_all(text.as_bytes())?))
    }
}

/// The cells of a comparison, and the notes below them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComparisonTable {
    /// Titles of the columns.
    pub head: [String; 10],
    /// Cells of each row, in the order of `Comparison::rows`.
    pub rows: Vec<[String; 10]>,
    /// Rules by which the table is read: whole lines, each with its line break.
    pub notes: String,
}

impl ComparisonTable {
    /// Formats a comparison.
    pub fn of(comparison: &Comparison) -> Self {
        let head = [
            "task",
            "metric",
            "n",
            "patients",
            "chance",
            "constant",
            "resolves",
            &comparison.a,
            &comparison.b,
            "difference",
        ];
        Self {
            head: head.map(str::to_owned),
            rows: comparison.rows.iter().map(cells).collect(),
            notes: notes(comparison),
        }
    }
}

/// Returns a comparison as a table for a file, with the rules below it.
pub(crate) fn render(comparison: &Comparison, layout: Layout) -> String {
    let table = ComparisonTable::of(comparison);
    match layout {
        Layout::Markdown => markdown(&table.head, &table.rows) + "\n" + &table.notes,
        Layout::Latex => {
            let mut text = latex(&table.head, &table.rows);
            for line in table.notes.lines() {
                let _ = writeln!(text, "% {line}");
            }
            text
        }
    }
}

fn notes(comparison: &Comparison) -> String {
    let mut notes = format!(
        "Differences are {} minus {}, paired by query, with patient-clustered bootstrap 95 % intervals ({} draws).\n\
         Group means use tasks with n >= 20, chance of precision_at_5 <= 0.8",
        comparison.b, comparison.a, comparison.n_resamples
    );
    if comparison.knows_pixels {
        notes.push_str(", precision_at_5 of pixels below 0.98");
    }
    if comparison.protocol >= 2 {
        notes.push_str(
            ",\nand no fixed ranking (constant) that reaches 0.8 of the maximum; map_at_r decides.\n\
             resolves: the difference to be expected to show, if both models vary between patients as pixels does.\n",
        );
    } else {
        notes.push_str(".\n");
    }
    if comparison.protocol < PROTOCOL {
        let _ = writeln!(
            notes,
            "Both follow protocol {}, which docs/evaluation.md describes under Protocols.",
            comparison.protocol
        );
    }
    let is_collapsed = |row: &ComparisonRow| COLLAPSED.contains(&row.verdict);
    if comparison.rows.iter().any(is_collapsed) {
        notes.push_str(
            "collapsed: all cosines of a model are equal but for rounding, so that its numbers are those of chance; neither is called better.\n",
        );
    }
    if !comparison.knows_pixels {
        notes.push_str("Tasks that pixels solve are among them: name its folder with --pixels to leave them out.\n");
    }
    if !comparison.only_one_has.is_empty() {
        let _ = writeln!(
            notes,
            "Only one has: {}.",
            comparison.only_one_has.join(", ")
        );
    }
    notes
}

fn cells(row: &ComparisonRow) -> [String; 10] {
    let number = |x: f64| format!("{x:.3}");
    let known = |x: Option<f64>| x.map_or_else(|| "-".to_owned(), number);
    let difference = match (row.ci95_low, row.ci95_high) {
        (Some(low), Some(high)) => format!(
            "{:+.3} [{low:+.3}, {high:+.3}] {}",
            row.difference, row.verdict
        ),
        _ => format!("{:+.3} {}", row.difference, row.verdict),
    };
    [
        match (row.is_group, row.is_solved_by_constant) {
            (true, _) => format!("mean of {}", row.name),
            (_, true) => format!("{} (constant)", row.name),
            _ => row.name.clone(),
        },
        row.metric.clone(),
        row.n_queries.to_string(),
        row.n_patients.to_string(),
        known(row.chance),
        known(row.constant),
        known(row.resolution),
        number(row.a),
        number(row.b),
        difference,
    ]
}

fn markdown(head: &[String; 10], rows: &[[String; 10]]) -> String {
    let line = |row: &[String; 10]| {
        format!(
            "| {} |\n",
            row.clone().map(|cell| cell.replace('|', "\\|")).join(" | ")
        )
    };
    let mut text = line(head);
    text.push_str("|---|---|---:|---:|---:|---:|---:|---:|---:|---|\n");
    text.extend(rows.iter().map(line));
    text
}

fn latex(head: &[String; 10], rows: &[[String; 10]]) -> String {
    let line = |row: &[String; 10]| {
        format!(
            "{} \\\\\n",
            row.clone().map(|cell| escaped(&cell)).join(" & ")
        )
    };
    let mut text =
        String::from("% needs \\usepackage{booktabs}\n\\begin{tabular}{llrrrrrrrl}\n\\toprule\n");
    text.push_str(&line(head));
    text.push_str("\\midrule\n");
    text.extend(rows.iter().map(line));
    text.push_str("\\bottomrule\n\\end{tabular}\n");
    text
}

/// Keeps LaTeX from reading names as commands.
fn escaped(cell: &str) -> String {
    let mut text = String::new();
    for c in cell.chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => text.extend(['\\', c]),
            '\\' => text.push_str("\\textbackslash{}"),
            '~' => text.push_str("\\textasciitilde{}"),
            '^' => text.push_str("\\textasciicircum{}"),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Comparison {
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
        let apart = ComparisonRow {
            name: "cross/DX-MR/body_part".to_owned(),
            constant: Some(0.9),
            is_solved_by_constant: true,
            ..row.clone()
        };
        Comparison {
            a: "pixels".to_owned(),
            b: "a_model".to_owned(),
            protocol: PROTOCOL,
            knows_pixels: true,
            n_resamples: 2000,
            rows: vec![row, group, apart],
            only_one_has: Vec::new(),
        }
    }

    #[test]
    fn a_table_for_documents_and_papers() {
        insta::assert_snapshot!(render(&example(), Layout::Markdown), @r##"
        | task | metric | n | patients | chance | constant | resolves | pixels | a_model | difference |
        |---|---|---:|---:|---:|---:|---:|---:|---:|---|
        | pair/DX-CT | map_at_r | 120 | 60 | 0.017 | 0.021 | 0.031 | 0.075 | 0.126 | +0.051 [+0.012, +0.091] better |
        | mean of pair (1 task) | map_at_r | 120 | 60 | 0.017 | 0.021 | - | 0.075 | 0.126 | +0.051 too few patients |
        | cross/DX-MR/body_part (constant) | map_at_r | 120 | 60 | 0.017 | 0.900 | 0.031 | 0.075 | 0.126 | +0.051 [+0.012, +0.091] better |

        Differences are a_model minus pixels, paired by query, with patient-clustered bootstrap 95 % intervals (2000 draws).
        Group means use tasks with n >= 20, chance of precision_at_5 <= 0.8, precision_at_5 of pixels below 0.98,
        and no fixed ranking (constant) that reaches 0.8 of the maximum; map_at_r decides.
        resolves: the difference to be expected to show, if both models vary between patients as pixels does.
        "##);
        insta::assert_snapshot!(render(&example(), Layout::Latex), @r##"
        % needs \usepackage{booktabs}
        \begin{tabular}{llrrrrrrrl}
        \toprule
        task & metric & n & patients & chance & constant & resolves & pixels & a\_model & difference \\
        \midrule
        pair/DX-CT & map\_at\_r & 120 & 60 & 0.017 & 0.021 & 0.031 & 0.075 & 0.126 & +0.051 [+0.012, +0.091] better \\
        mean of pair (1 task) & map\_at\_r & 120 & 60 & 0.017 & 0.021 & - & 0.075 & 0.126 & +0.051 too few patients \\
        cross/DX-MR/body\_part (constant) & map\_at\_r & 120 & 60 & 0.017 & 0.900 & 0.031 & 0.075 & 0.126 & +0.051 [+0.012, +0.091] better \\
        \bottomrule
        \end{tabular}
        % Differences are a_model minus pixels, paired by query, with patient-clustered bootstrap 95 % intervals (2000 draws).
        % Group means use tasks with n >= 20, chance of precision_at_5 <= 0.8, precision_at_5 of pixels below 0.98,
        % and no fixed ranking (constant) that reaches 0.8 of the maximum; map_at_r decides.
        % resolves: the difference to be expected to show, if both models vary between patients as pixels does.
        "##);
    }
}
