//! Reports for people: aligned, short, without identifiers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use m3ret_imaging::{Code, Format, Kind, Severity};

use m3ret::check::report::{Image, Report, Values, Verdict};
use m3ret::words::{counted, format_name, printable};

/// Most reasons, and most groups of duplicates, that are listed for people; JSON lists all.
pub(crate) const MAX_GROUPS: usize = 100;
/// Most paths listed under one reason.
const MAX_PATHS: usize = 20;

/// Colours of the terminal, or none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint {
    pub(crate) is_on: bool,
}

impl Paint {
    pub(crate) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(crate) fn verdict(self, verdict: Verdict, text: &str) -> String {
        match verdict {
            Verdict::Ok => self.paint("32", text),
            Verdict::Warning => self.paint("33", text),
            Verdict::Refused => self.paint("1;31", text),
            Verdict::NotAnImage => self.paint("2", text),
        }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.is_on {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Renders one object as a block of lines.
pub(crate) fn block(report: &Report, paint: Paint) -> String {
    let word = match report.verdict {
        Verdict::Ok => "ok",
        Verdict::Warning => "warning",
        Verdict::Refused => "refused",
        Verdict::NotAnImage => "no image",
    };
    let word = paint.verdict(report.verdict, word);
    let mut text = format!("{}: {word}\n", paint.bold(&name(report)));
    let mut line = |label: &str, value: &str| {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "  {} {value}", paint.dim(&format!("{label:<8}")));
    };
    if let Some(image) = &report.image {
        line("image", &what(report, image));
        line("shape", &shape(image));
        line("spacing", &spacing(image));
        line("values", &values(image));
    }
    for reason in &report.reasons {
        let (label, verdict) = match reason.code.severity() {
            Severity::Note => ("note", Verdict::NotAnImage),
            Severity::Warning => ("warning", Verdict::Warning),
            Severity::Refused => ("error", Verdict::Refused),
        };
        let code = paint.verdict(verdict, reason.code.as_str());
        line(label, &format!("{code}: {}", printable(&reason.detail)));
    }
    for path in [&report.npy, &report.thumbnail].into_iter().flatten() {
        line("written", &printable(path));
    }
    text
}

/// Lists reports under the reasons they share: code and message once, then the paths.
pub(crate) fn section(text: &mut String, paint: Paint, verdict: Verdict, reports: &[Report]) {
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
    let objects = counted(reports.len() as u64, "object", "objects");
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

/// Says how many entries of a list are not shown.
pub(crate) fn rest(text: &mut String, paint: Paint, indent: &str, n_all: usize, n_listed: usize) {
    if n_all > n_listed {
        let more = format!(
            "{indent}... and {} more; --json lists all",
            n_all - n_listed
        );
        line(text, &paint.dim(&more));
    }
}

/// Appends a line to a text.
pub(crate) fn line(text: &mut String, content: &str) {
    // Writing to a `String` cannot fail.
    let _ = writeln!(text, "{content}");
}

/// The path, with the part where there are several.
pub(crate) fn name(report: &Report) -> String {
    let part = report
        .part
        .as_deref()
        .map_or_else(String::new, |part| format!(" ({part})"));
    printable(&format!("{}{part}", report.path))
}

fn what(report: &Report, image: &Image) -> String {
    let mut words = Vec::new();
    // A video file says as much by its kind.
    words.extend(
        report
            .format
            .filter(|&f| f != Format::Video)
            .map(|f| format_name(f).to_owned()),
    );
    words.extend(image.modality.iter().map(|modality| printable(modality)));
    words.push(
        match image.kind {
            Kind::Image => "image",
            Kind::Video => "video",
            Kind::Volume => "volume",
        }
        .into(),
    );
    let mut text = words.join(" ");
    if let Some(guess) = image.modality_guess {
        let _ = write!(text, ", {guess}-like");
    }
    if let Some(body_part) = &image.body_part {
        let _ = write!(text, ", {}", printable(body_part));
    }
    if report.n_files > 1 {
        let _ = write!(text, ", {} files", report.n_files);
    }
    text
}

fn shape(image: &Image) -> String {
    let [n_channels, depth, height, width] = image.shape;
    let colour = if n_channels == 3 { "RGB" } else { "grey" };
    let n_bytes = image.shape.iter().product::<usize>().saturating_mul(4);
    format!(
        "{n_channels} x {depth} x {height} x {width} (C D H W), {colour}, {}",
        size(n_bytes)
    )
}

fn spacing(image: &Image) -> String {
    let [depth, height, width] = image.spacing;
    let side = |side: Option<f64>| side.map_or_else(|| "?".into(), number);
    let plane = match (height, width) {
        (None, None) => None,
        _ => Some(format!("{} x {} mm", side(height), side(width))),
    };
    let mut text = match (image.kind, depth, plane) {
        (Kind::Image, _, Some(plane)) => format!("{plane} (H W)"),
        (Kind::Video, Some(seconds), None) => {
            format!("{} s a frame, pixels unknown", number(seconds))
        }
        (Kind::Video, Some(seconds), Some(plane)) => {
            format!("{} s a frame, {plane} (H W)", number(seconds))
        }
        (Kind::Video, None, Some(plane)) => format!("{plane} (H W), time unknown"),
        (Kind::Volume, None, None) | (Kind::Image | Kind::Video, _, None) => "unknown".into(),
        (Kind::Volume, ..) => {
            format!(
                "{} x {} x {} mm (D H W)",
                side(depth),
                side(height),
                side(width)
            )
        }
    };
    if let Some(aspect) = image.pixel_aspect {
        let _ = write!(text, ", pixels {} times as high as wide", number(aspect));
    }
    if let Some(axis_order) = &image.axis_order {
        let _ = write!(text, ", axes {axis_order}");
    }
    text
}

fn values(image: &Image) -> String {
    let Values {
        min: Some(min),
        max: Some(max),
        mean: Some(mean),
        std: Some(std),
        ..
    } = image.value
    else {
        return "none is finite".into();
    };
    let unit = image
        .unit
        .map_or_else(String::new, |unit| format!(" {unit}"));
    let mut text = format!(
        "{} to {}{unit}, mean {}, std {}",
        number(f64::from(min)),
        number(f64::from(max)),
        number(mean),
        number(std)
    );
    if let Some(full_scale) = image.full_scale {
        let _ = write!(text, ", full scale {}", number(f64::from(full_scale)));
    }
    if image.inverted {
        text.push_str(", low is bright");
    }
    text
}

/// Five significant digits, without trailing zeros.
pub(crate) fn number(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude == 0.0 {
        return "0".into();
    }
    if value.fract() == 0.0 && magnitude < 1e7 {
        return format!("{value:.0}");
    }
    if !(1e-4..1e7).contains(&magnitude) {
        return format!("{value:.4e}");
    }
    let n_decimals = [1.0, 10.0, 100.0, 1e3, 1e4]
        .iter()
        .filter(|&&limit| magnitude < limit)
        .count();
    let text = format!("{value:.n_decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').into()
    } else {
        text
    }
}

/// A speed with three significant digits: more would only flicker.
pub(crate) fn rate(per_second: f64) -> String {
    let n_decimals = match per_second {
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{per_second:.n_decimals$}")
}

/// A number of bytes with three significant digits.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn size(n_bytes: usize) -> String {
    let mut value = n_bytes as f64;
    let mut units = ["bytes", "KiB", "MiB", "GiB", "TiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    while value >= 1024.0 {
        let Some(larger) = units.next() else { break };
        (value, unit) = (value / 1024.0, larger);
    }
    let n_decimals = if value < 10.0 && unit != "bytes" {
        1
    } else {
        0
    };
    format!("{value:.n_decimals$} {unit}")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use m3ret_imaging::archive::Object;
    use m3ret_imaging::{Affine, Reason, Volume};

    const PLAIN: Paint = Paint { is_on: false };

    pub(crate) fn object(path: &str) -> Object {
        Object::of_file(path.into(), Format::Dicom)
    }

    /// A small CT with everything known.
    pub(crate) fn ct() -> Volume {
        let values = (0_u8..24).map(|v| f32::from(v) * 100.0 - 1024.0).collect();
        let mut volume = Volume::new(values, [1, 2, 3, 4], Kind::Volume).unwrap();
        volume.spacing = [Some(2.5), Some(0.703_125), Some(0.703_125)];
        volume.modality = Some("CT".into());
        volume.body_part = Some("CHEST".into());
        volume.unit = Some("HU");
        volume.affine = Some(Affine::from_columns(
            [0.703_125, 0.0, 0.0],
            [0.0, 0.703_125, 0.0],
            [0.0, 0.0, 2.5],
            [-180.0, -180.0, 12.5],
        ));
        volume
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (-1024.0, "-1024"),
            (100.0, "100"),
            (0.703_125, "0.70312"),
            (2.5, "2.5"),
            (-512.345_6, "-512.35"),
            (99_999.5, "100000"),
            (0.000_012_3, "1.2300e-5"),
            (123_456_789.0, "1.2346e8"),
        ] {
            assert_eq!(number(value), text, "{value}");
        }
    }

    #[test]
    fn rates_have_three_digits() {
        let rates = [0.0, 0.123_4, 9.876, 98.76, 987.6].map(rate);
        assert_eq!(rates, ["0.00", "0.12", "9.88", "98.8", "988"]);
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
    }

    #[test]
    fn a_volume_as_text() {
        let mut volume = ct();
        volume.note(
            Code::LossyCompression,
            "the pixels were compressed with loss",
        );
        volume.note(Code::GantryTilt, "slices are tilted by 12.5 degrees");
        let mut report = Report::new(&object("ct/series"), &volume);
        report.part = Some("series=2".into());
        report.n_files = 2;
        report.npy = Some("out.npy".into());
        insta::assert_snapshot!(block(&report, PLAIN), @"
        ct/series (series=2): warning
          image    DICOM CT volume, CHEST, 2 files
          shape    1 x 2 x 3 x 4 (C D H W), grey, 96 bytes
          spacing  2.5 x 0.70312 x 0.70312 mm (D H W), axes SPL
          values   -1024 to 1276 HU, mean 126, std 692.22
          note     lossy_compression: the pixels were compressed with loss
          warning  gantry_tilt: slices are tilted by 12.5 degrees
          written  out.npy
        ");
    }

    #[test]
    fn a_video_a_picture_and_a_refusal_as_text() {
        let values = vec![0.0; 3 * 4 * 2 * 2];
        let mut video = Volume::new(values, [3, 4, 2, 2], Kind::Video).unwrap();
        video.spacing = [Some(0.04), None, None];
        video.full_scale = Some(255.0);
        let mut picture = Volume::new(vec![1.0, f32::NAN], [1, 1, 1, 2], Kind::Image).unwrap();
        picture.inverted = true;
        picture.spacing = [None, Some(0.14), Some(0.14)];
        let reports = [
            Report::new(&object("clip.mp4"), &video),
            Report::new(&object("cr.dcm"), &picture),
            Report::refused(
                "broken.nii".as_ref(),
                Code::Truncated,
                "NIfTI: found 100 bytes, wanted 348".into(),
            ),
        ];
        let text: String = reports.iter().map(|report| block(report, PLAIN)).collect();
        insta::assert_snapshot!(text, @"
        clip.mp4: warning
          image    DICOM video
          shape    3 x 4 x 2 x 2 (C D H W), RGB, 192 bytes
          spacing  0.04 s a frame, pixels unknown
          values   0 to 0, mean 0, std 0, full scale 255
          warning  constant: every voxel has the same value
        cr.dcm: warning
          image    DICOM image
          shape    1 x 1 x 1 x 2 (C D H W), grey, 8 bytes
          spacing  0.14 x 0.14 mm (H W)
          values   1 to 1, mean 1, std 0, low is bright
          warning  non_finite: 1 of 2 voxels is NaN or infinite
        broken.nii: refused
          error    truncated: NIfTI: found 100 bytes, wanted 348
        ");
    }

    #[test]
    fn colours_appear_only_where_wanted() {
        let mut report = Report::new(&object("a"), &ct());
        report.reasons.push(Reason::new(Code::SpacingUnknown, ""));
        assert!(!block(&report, PLAIN).contains('\x1b'));
        assert!(block(&report, Paint { is_on: true }).contains("a\x1b[0m: \x1b[32mok\x1b[0m"));
    }
}
