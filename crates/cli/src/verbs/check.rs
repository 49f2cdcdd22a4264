//! `m3ret check`: reads every object of an archive and says which need a look.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write as _};
use std::time::{Duration, Instant};

use m3ret_imaging::{Code, Severity};

use super::LastLine;
use super::write_json_line;
use crate::Outcome;
use crate::cli::CheckArguments;
use crate::out;
use crate::progress::Progress;
use crate::screen::Screen;
use crate::text::{MAX_GROUPS, Paint, line, rest, section};
use m3ret::check::report::Verdict;
use m3ret::check::tally::Tally;
use m3ret::check::{CheckOptions, check};
use m3ret::words::counted;
use m3ret::words::printable;

/// Prints reports as they come, or what needs a look in the end.
pub(crate) fn run(arguments: &CheckArguments, screen: Screen) -> anyhow::Result<Outcome> {
    arguments.reading.start_threads()?;
    let options = CheckOptions {
        root: arguments.root.clone(),
        is_strict: arguments.strict,
        reading: arguments.reading.reading(),
    };
    let start = Instant::now();
    let progress = Progress::start(screen);
    let mut out = BufWriter::new(out::stdout());
    let tally = check(&options, &progress, |report| {
        if !arguments.json {
            return Ok(());
        }
        progress.beside(|| {
            write_json_line(&mut out, report)?;
            // Whoever reads along sees each object at once.
            out.flush()
        })
    })?;
    progress.clear();
    if arguments.json {
        let summary = &tally.summary();
        write_json_line(&mut out, &LastLine { summary })?;
    } else {
        let paint = Paint {
            is_on: screen.has_colour,
        };
        out.write_all(text(&tally, paint, start.elapsed()).as_bytes())?;
    }
    out.flush()?;
    Ok(Outcome::of(tally.refused.is_empty()))
}

/// Renders the objects that need a look, then the totals.
fn text(tally: &Tally, paint: Paint, elapsed: Duration) -> String {
    let mut text = String::new();
    section(&mut text, paint, Verdict::Refused, &tally.refused);
    section(&mut text, paint, Verdict::Warning, &tally.warned);
    write_duplicates(&mut text, tally, paint);
    write_totals(&mut text, tally, paint, elapsed);
    text
}

fn write_duplicates(text: &mut String, tally: &Tally, paint: Paint) {
    let groups = tally.duplicates();
    if groups.is_empty() {
        return;
    }
    let title = format!(
        "Same pixels ({})",
        counted(groups.len() as u64, "group", "groups")
    );
    line(text, &paint.bold(&title));
    for group in groups.iter().take(MAX_GROUPS) {
        for (idx, member) in group.iter().enumerate() {
            let part = member
                .part
                .as_deref()
                .map_or_else(String::new, |p| format!(" ({p})"));
            let mark = if idx == 0 { "  - " } else { "    " };
            line(
                text,
                &format!("{mark}{}{}", printable(&member.path), printable(&part)),
            );
        }
    }
    rest(text, paint, "  ", groups.len(), MAX_GROUPS);
    line(text, "");
}

fn write_totals(text: &mut String, tally: &Tally, paint: Paint, elapsed: Duration) {
    let summary = tally.summary();
    if summary.n_objects == 0 {
        line(text, "no images found");
    } else {
        let verdict = |verdict, n: u64, word: &str| {
            let shown = format!("{n} {word}");
            if n == 0 {
                paint.dim(&shown)
            } else {
                paint.verdict(verdict, &shown)
            }
        };
        let objects = counted(summary.n_objects, "object", "objects");
        let verdicts = [
            verdict(Verdict::Ok, summary.n_ok, "ok"),
            verdict(Verdict::Warning, summary.n_warning, "with warnings"),
            verdict(Verdict::Refused, summary.n_refused, "refused"),
        ];
        let took = format!("({:.1} s)", elapsed.as_secs_f64());
        let title = paint.bold(&format!("{objects}:"));
        line(
            text,
            &format!("{title} {} {}", verdicts.join(", "), paint.dim(&took)),
        );
    }
    row(text, paint, "kinds", &tally.kinds);
    row(text, paint, "modalities", &tally.modalities);
    row(text, paint, "formats", &tally.formats);
    if tally.n_not_images > 0 {
        let files = counted(tally.n_not_images, "file holds", "files hold");
        line(
            text,
            &format!("  {} {files} no image format", paint.dim("others    ")),
        );
        row(text, paint, "", &tally.not_images);
    }
    if !tally.codes.is_empty() {
        line(text, &format!("  {}", paint.dim("reasons")));
    }
    let mut codes: Vec<(Code, u64)> = tally.codes.iter().map(|(&code, &n)| (code, n)).collect();
    codes.sort_by_key(|&(code, n)| (std::cmp::Reverse(code.severity()), std::cmp::Reverse(n)));
    for (code, n) in codes {
        let weight = match code.severity() {
            Severity::Refused => "refused",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        line(text, &format!("  {n:>10}  {:<7}  {code}", weight));
    }
}

fn row<K: AsRef<str>>(text: &mut String, paint: Paint, label: &str, counts: &BTreeMap<K, u64>) {
    if counts.is_empty() {
        return;
    }
    let mut counts: Vec<(&str, u64)> = counts.iter().map(|(k, &n)| (k.as_ref(), n)).collect();
    // The commonest first; equal counts stay in the order of their names.
    counts.sort_by_key(|&(_, n)| std::cmp::Reverse(n));
    let shown: Vec<String> = counts
        .iter()
        .map(|(k, n)| format!("{} {n}", printable(k)))
        .collect();
    line(
        text,
        &format!(
            "  {} {}",
            paint.dim(&format!("{label:<10}")),
            shown.join(", ")
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tests::{ct, object};
    use m3ret::check::CheckedImage;
    use m3ret::check::report::Report;

    fn read(path: &str, pixels: u128) -> CheckedImage {
        CheckedImage {
            report: Report::new(&object(path), &ct()),
            pixels: Some(pixels),
        }
    }

    fn refused(path: &str, code: Code, message: &str) -> CheckedImage {
        let report = Report::refused(path.as_ref(), code, message.into());
        CheckedImage {
            report,
            pixels: None,
        }
    }

    fn tally() -> Tally {
        let mut tally = Tally::default();
        let mut tilted = read("c", 3);
        tilted.report.verdict = Verdict::Warning;
        for code in [Code::GantryTilt, Code::SpacingUnknown] {
            tilted.report.reason_codes.push(code);
            tilted
                .report
                .reasons
                .push(m3ret_imaging::Reason::new(code, "by 12 degrees"));
        }
        let mut readme = refused("README", Code::UnknownFormat, "text");
        readme.report.verdict = Verdict::NotAnImage;
        readme.report.what = Some("a text".into());
        for image in [read("b", 1), read("a", 1), read("d", 2), tilted, readme] {
            tally.add(image);
        }
        for idx in 0..22 {
            tally.add(refused(
                &format!("report{idx:02}"),
                Code::NoPixels,
                "no image",
            ));
        }
        tally.add(refused(
            "cut\n.png",
            Code::Truncated,
            "png: found 10 bytes, wanted 20",
        ));
        tally
    }

    #[test]
    fn totals_and_groups_as_text() {
        let text = text(
            &tally(),
            Paint { is_on: false },
            Duration::from_millis(1234),
        );
        insta::assert_snapshot!(text, @r"
        Refused (23 objects)
          truncated: png: found 10 bytes, wanted 20
              cut\n.png
          no_pixels: no image
              report00
              report01
              report02
              report03
              report04
              report05
              report06
              report07
              report08
              report09
              report10
              report11
              report12
              report13
              report14
              report15
              report16
              report17
              report18
              report19
              ... and 2 more; --json lists all

        Warnings (1 object)
          gantry_tilt: by 12 degrees
              c

        Same pixels (1 group)
          - b
            a

        27 objects: 3 ok, 1 with warnings, 23 refused (1.2 s)
          kinds      volume 4
          modalities CT 4
          formats    DICOM 4
          others     1 file holds no image format
                     text 1
          reasons
                  22  refused  no_pixels
                   1  refused  truncated
                   1  warning  gantry_tilt
                   1  note     spacing_unknown
        ");
    }

    #[test]
    fn totals_and_groups_as_json() {
        let json = serde_json::to_value(tally().summary()).unwrap();
        let counts = [
            "n_objects",
            "n_ok",
            "n_warning",
            "n_refused",
            "n_not_images",
        ];
        assert_eq!(
            counts.map(|key| json[key].as_u64().unwrap()),
            [27, 3, 1, 23, 1]
        );
        let group = serde_json::json!([[{"path": "b", "part": null}, {"path": "a", "part": null}]]);
        assert_eq!(json["duplicate_pixels"], group);
        assert_eq!(json["reason_codes"]["no_pixels"], 22);
        assert_eq!(json["kinds"], serde_json::json!({ "volume": 4 }));
        assert_eq!(json["formats"], serde_json::json!({ "dicom": 4 }));
        assert_eq!(json["modalities"], serde_json::json!({ "CT": 4 }));
    }

    #[test]
    fn an_empty_archive_says_so() {
        let text = text(&Tally::default(), Paint { is_on: false }, Duration::ZERO);
        assert_eq!(text, "no images found\n");
    }
}
