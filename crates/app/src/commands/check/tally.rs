//! What a whole archive amounts to.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::time::Duration;

use m3ret_imaging::{Code, Severity};
use serde::Serialize;

use super::Checked;
use crate::report::text::{Paint, format_name, name, printable};
use crate::report::{Report, Verdict};

/// Most reasons, and most groups of duplicates, that are listed for people; JSON lists all.
const MAX_GROUPS: usize = 100;
/// Most paths listed under one reason.
const MAX_PATHS: usize = 20;

/// Everything a walk found, without pixels.
#[derive(Debug, Default)]
pub(super) struct Tally {
    n_ok: u64,
    refused: Vec<Report>,
    warned: Vec<Report>,
    n_not_images: u64,
    kinds: BTreeMap<String, u64>,
    modalities: BTreeMap<String, u64>,
    formats: BTreeMap<&'static str, u64>,
    codes: BTreeMap<Code, u64>,
    same_pixels: HashMap<u128, Vec<Member>>,
}

/// One of several objects with the same pixels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Member {
    path: String,
    part: Option<String>,
}

/// The last line of JSON.
#[derive(Debug, Serialize)]
pub(super) struct Summary<'a> {
    n_objects: u64,
    n_ok: u64,
    n_warning: u64,
    n_refused: u64,
    n_not_images: u64,
    kinds: &'a BTreeMap<String, u64>,
    modalities: &'a BTreeMap<String, u64>,
    formats: BTreeMap<String, u64>,
    reason_codes: BTreeMap<&'static str, u64>,
    duplicate_pixels: Vec<&'a [Member]>,
}

impl Tally {
    pub(super) fn add(&mut self, checked: Checked) {
        let Checked { report, pixels } = checked;
        if report.verdict == Verdict::NotAnImage {
            self.n_not_images += 1;
            return;
        }
        let mut codes = report.reason_codes.clone();
        codes.sort_unstable();
        codes.dedup();
        for code in codes {
            *self.codes.entry(code).or_default() += 1;
        }
        if let Some(format) = report.format {
            *self.formats.entry(format_name(format)).or_default() += 1;
        }
        if let Some(image) = &report.image {
            let kind = format!("{:?}", image.kind).to_lowercase();
            *self.kinds.entry(kind).or_default() += 1;
            let modality = image.modality.clone().unwrap_or_else(|| "unknown".into());
            *self.modalities.entry(modality).or_default() += 1;
        }
        if let Some(pixels) = pixels {
            let member = Member {
                path: report.path.clone(),
                part: report.part.clone(),
            };
            self.same_pixels.entry(pixels).or_default().push(member);
        }
        match report.verdict {
            Verdict::Ok | Verdict::NotAnImage => self.n_ok += 1,
            Verdict::Warning => self.warned.push(report),
            Verdict::Refused => self.refused.push(report),
        }
    }

    pub(super) fn n_refused(&self) -> usize {
        self.refused.len()
    }

    pub(super) fn summary(&self) -> Summary<'_> {
        let (n_warning, n_refused) = (length(&self.warned), length(&self.refused));
        Summary {
            n_objects: self.n_ok + n_warning + n_refused,
            n_ok: self.n_ok,
            n_warning,
            n_refused,
            n_not_images: self.n_not_images,
            kinds: &self.kinds,
            modalities: &self.modalities,
            formats: self
                .formats
                .iter()
                .map(|(name, &n)| (name.to_lowercase(), n))
                .collect(),
            reason_codes: self
                .codes
                .iter()
                .map(|(code, &n)| (code.as_str(), n))
                .collect(),
            duplicate_pixels: self.duplicates(),
        }
    }

    /// Returns the groups of objects with the same pixels, in the order of their first paths.
    fn duplicates(&self) -> Vec<&[Member]> {
        let mut groups: Vec<&[Member]> = self
            .same_pixels
            .values()
            .map(Vec::as_slice)
            .filter(|group| group.len() > 1)
            .collect();
        groups.sort_unstable();
        groups
    }

    /// Renders the objects that need a look, then the totals.
    pub(super) fn text(&self, paint: Paint, elapsed: Duration) -> String {
        let mut text = String::new();
        section(&mut text, paint, Verdict::Refused, &self.refused);
        section(&mut text, paint, Verdict::Warning, &self.warned);
        self.write_duplicates(&mut text, paint);
        self.write_totals(&mut text, paint, elapsed);
        text
    }

    fn write_duplicates(&self, text: &mut String, paint: Paint) {
        let groups = self.duplicates();
        if groups.is_empty() {
            return;
        }
        let title = format!(
            "Same pixels ({})",
            counted(length(&groups), "group", "groups")
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

    fn write_totals(&self, text: &mut String, paint: Paint, elapsed: Duration) {
        let summary = self.summary();
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
        row(text, paint, "kinds", &self.kinds);
        row(text, paint, "modalities", &self.modalities);
        row(text, paint, "formats", &self.formats);
        if self.n_not_images > 0 {
            let files = counted(self.n_not_images, "file holds", "files hold");
            line(
                text,
                &format!("  {} {files} no image format", paint.dim("others    ")),
            );
        }
        if !self.codes.is_empty() {
            line(text, &format!("  {}", paint.dim("reasons")));
        }
        let mut codes: Vec<(Code, u64)> = self.codes.iter().map(|(&code, &n)| (code, n)).collect();
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
}

/// Lists reports under the reasons they share: code and message once, then the paths.
pub(in crate::commands) fn section(
    text: &mut String,
    paint: Paint,
    verdict: Verdict,
    reports: &[Report],
) {
    let (weight, title) = match verdict {
        Verdict::Refused => (Severity::Refused, "Refused"),
        Verdict::Warning => (Severity::Warning, "Warnings"),
        Verdict::Ok | Verdict::NotAnImage => return,
    };
    let mut groups: BTreeMap<(Code, &str), Vec<&Report>> = BTreeMap::new();
    for report in reports {
        for reason in report
            .reasons
            .iter()
            // What a verb refuses may be a mere note to others.
            .filter(|r| verdict == Verdict::Refused || r.code.severity() == weight)
        {
            groups
                .entry((reason.code, &reason.detail))
                .or_default()
                .push(report);
        }
    }
    if groups.is_empty() {
        return;
    }
    let objects = counted(length(reports), "object", "objects");
    line(text, &paint.bold(&format!("{title} ({objects})")));
    for ((code, detail), members) in groups.iter().take(MAX_GROUPS) {
        let code = paint.verdict(verdict, code.as_str());
        line(text, &format!("  {code}: {}", printable(detail)));
        for report in members.iter().take(MAX_PATHS) {
            line(text, &format!("      {}", name(report)));
        }
        rest(text, paint, "      ", members.len(), MAX_PATHS);
    }
    rest(text, paint, "  ", groups.len(), MAX_GROUPS);
    line(text, "");
}

fn rest(text: &mut String, paint: Paint, indent: &str, n_all: usize, n_listed: usize) {
    if n_all > n_listed {
        let more = format!(
            "{indent}... and {} more; --json lists all",
            n_all - n_listed
        );
        line(text, &paint.dim(&more));
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

fn line(text: &mut String, content: &str) {
    // Writing to a `String` cannot fail.
    let _ = writeln!(text, "{content}");
}

fn length<T>(list: &[T]) -> u64 {
    u64::try_from(list.len()).unwrap_or(u64::MAX)
}

pub(in crate::commands) fn counted(n: u64, one: &str, several: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { several })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{ct, object};

    fn read(path: &str, pixels: u128) -> Checked {
        Checked {
            report: Report::new(&object(path), &ct()),
            pixels: Some(pixels),
        }
    }

    fn refused(path: &str, code: Code, message: &str) -> Checked {
        let report = Report::refused(path.as_ref(), code, message.into());
        Checked {
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
        for checked in [read("b", 1), read("a", 1), read("d", 2), tilted, readme] {
            tally.add(checked);
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
        let text = tally().text(Paint { is_on: false }, Duration::from_millis(1234));
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
        let text = Tally::default().text(Paint { is_on: false }, Duration::ZERO);
        assert_eq!(text, "no images found\n");
    }
}
