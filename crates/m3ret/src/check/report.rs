//! The report on one object: what it is, or why it was refused.

mod statistics;

use m3ret_manifest::text_of;
use std::ops::ControlFlow;
use std::path::Path;

use m3ret_imaging::archive::{Object, is_not_an_image, visit_object};
use m3ret_imaging::{Code, Error, Format, Kind, ReadOptions, Reason, Severity, Volume};
use serde::Serialize;

use crate::panics;
pub use statistics::Values;

/// Whether an object can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The image was read without a warning; it may have notes.
    Ok,
    /// The image was read, but a person should look at it.
    Warning,
    /// The object was not read.
    Refused,
    /// The file of a folder holds no image format.
    NotAnImage,
}

/// One object: what it is, or why it was refused.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The file, or the folder of a series.
    pub path: String,
    /// Which image of the path this is; `None` if the path holds one image.
    pub part: Option<String>,
    /// The format that was recognised; `None` if there is none.
    pub format: Option<Format>,
    /// Number of files that the object is read from.
    pub n_files: usize,
    /// What was read; its keys are absent in JSON if the object was refused.
    #[serde(flatten)]
    pub image: Option<Image>,
    /// Whether the image can be used.
    pub verdict: Verdict,
    /// The codes of `reasons`, in the same order.
    pub reason_codes: Vec<Code>,
    /// Everything unusual about the object, as docs/reason-codes.md defines it; empty if there is nothing.
    pub reasons: Vec<Reason>,
    /// Why the object was refused, as a sentence; `None` if it was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What a file without an image is instead, e.g. `a PDF document`; `None` for everything else.
    #[serde(skip)]
    pub what: Option<String>,
    /// The array file that `inspect` wrote; `None` if it wrote none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub npy: Option<String>,
    /// The picture that `inspect` wrote; `None` if it wrote none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thumbnail: Option<String>,
}

/// What was read of an object.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Image {
    /// Whether the depth axis is absent, space or time.
    pub kind: Kind,
    /// Modality as the file states it, e.g. `CT`.
    pub modality: Option<String>,
    /// Modality as the values suggest it; absent in JSON where the file states one or nothing is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modality_guess: Option<&'static str>,
    /// DICOM `BodyPartExamined`, e.g. `CHEST`.
    pub body_part: Option<String>,
    /// Number of voxels, `[C, D, H, W]`.
    pub shape: [usize; 4],
    /// Distance of neighbouring voxels along D, H and W in mm; seconds along D of a video; null where unknown.
    pub spacing: [Option<f64>; 3],
    /// Unit of the first spacing, `mm` or `s`; the other two are in mm.
    pub spacing_unit: Option<&'static str>,
    /// Height of a pixel by its width where the file states only that ratio; absent if it is 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pixel_aspect: Option<f64>,
    /// Directions in the patient in which D, H and W grow, e.g. `SPL`; null if the orientation is unknown.
    pub axis_order: Option<String>,
    /// Maps `(w, h, d, 1)` to mm in the LPS system of DICOM; null if the position is unknown.
    pub affine: Option<[[f64; 4]; 3]>,
    /// Unit of the values, e.g. `HU`; null if the file fixes none.
    pub unit: Option<&'static str>,
    /// Whether low values are shown bright (MONOCHROME1); the values themselves are never inverted.
    pub inverted: bool,
    /// Largest value that the storage format can hold; null for measurements, such as HU.
    pub full_scale: Option<f32>,
    /// Statistics of the values, in `unit`.
    pub value: Values,
}

/// Reads an object and reports on one image in it after the other; most objects hold one.
///
/// A panic in a reader is reported as a refusal with code `internal_error`.
pub(crate) fn visit(
    object: &Object,
    options: &ReadOptions,
    visit: &mut dyn FnMut(Report, Option<Volume>) -> ControlFlow<()>,
) {
    let outcome = panics::guard(|| {
        visit_object(object, options, &mut |volume| {
            visit(Report::new(object, &volume), Some(volume))
        })
    });
    let (code, message) = match outcome {
        Ok(Ok(())) => return,
        Ok(Err(error)) => (error.code(), error.to_string()),
        Err(message) => (Code::InternalError, message),
    };
    let report = Report {
        part: object.part.clone(),
        format: Some(object.format),
        n_files: object.files.len(),
        ..Report::refused(&object.path, code, message)
    };
    let _ = visit(report, None);
}

impl Report {
    /// Describes an image that was read, with warnings for constant and non-finite values.
    pub fn new(object: &Object, volume: &Volume) -> Self {
        let value = Values::of(volume);
        let mut reasons = volume.reasons.clone();
        if value.n_non_finite > 0 {
            let verb = if value.n_non_finite == 1 { "is" } else { "are" };
            let n_all = volume.values().len();
            let detail = format!(
                "{} of {n_all} voxels {verb} NaN or infinite",
                value.n_non_finite
            );
            reasons.push(Reason::new(Code::NonFinite, detail));
        } else if value.is_constant() {
            reasons.push(Reason::new(
                Code::Constant,
                if value.n_padding > 0 {
                    "every voxel that is no padding has the same value"
                } else {
                    "every voxel has the same value"
                },
            ));
        }
        let is_warned = reasons
            .iter()
            .any(|reason| reason.code.severity() > Severity::Note);
        Self {
            path: text_of(&object.path),
            part: object.name_of(volume),
            format: Some(object.format),
            n_files: object.files.len(),
            image: Some(Image::new(volume, value)),
            verdict: if is_warned {
                Verdict::Warning
            } else {
                Verdict::Ok
            },
            reason_codes: reasons.iter().map(|reason| reason.code).collect(),
            reasons,
            error: None,
            what: None,
            npy: None,
            thumbnail: None,
        }
    }

    /// Describes a file or object of which nothing was read; `message` is shown to people.
    pub fn refused(path: &Path, code: Code, message: String) -> Self {
        Self {
            path: text_of(path),
            part: None,
            format: None,
            n_files: 1,
            image: None,
            verdict: Verdict::Refused,
            reason_codes: vec![code],
            reasons: vec![Reason::new(code, message.clone())],
            error: Some(message),
            what: None,
            npy: None,
            thumbnail: None,
        }
    }

    /// Describes a file that belongs to no object.
    ///
    /// A README is no fault of an archive, but a file that is named like an image and holds none is. Archives and
    /// images of formats that are not read are refused under any name, because they may be a loss.
    pub(crate) fn skipped(path: &Path, error: &Error, is_strict: bool) -> Self {
        let report = Self::refused(path, error.code(), error.to_string());
        // A DICOM report or the litter of a file system is no image under any name; other names may promise one.
        let is_promised = error.code() != Code::NoPixels && is_named_like_an_image(path);
        let is_foreign = is_not_an_image(error) && !is_promised && !is_strict;
        Self {
            verdict: if is_foreign {
                Verdict::NotAnImage
            } else {
                Verdict::Refused
            },
            what: error.found().filter(|_| is_foreign).map(str::to_owned),
            ..report
        }
    }
}

impl Image {
    fn new(volume: &Volume, value: Values) -> Self {
        let [depth_spacing, ..] = volume.spacing;
        let spacing_unit = match volume.kind {
            Kind::Video => depth_spacing.map(|_| "s"),
            Kind::Image | Kind::Volume => volume.spacing.iter().flatten().next().map(|_| "mm"),
        };
        Self {
            kind: volume.kind,
            modality: volume.modality.clone(),
            modality_guess: volume.modality_guess,
            body_part: volume.body_part.clone(),
            shape: volume.shape(),
            spacing: volume.spacing,
            spacing_unit,
            pixel_aspect: (volume.pixel_aspect.to_bits() != 1_f64.to_bits())
                .then_some(volume.pixel_aspect),
            axis_order: volume.affine.map(|affine| affine.axis_order()),
            affine: volume.affine.map(|affine| affine.rows),
            unit: volume.unit,
            inverted: volume.inverted,
            full_scale: volume.full_scale,
            value,
        }
    }
}

/// Whether the name promises an image, so that content without one is a broken file.
fn is_named_like_an_image(path: &Path) -> bool {
    const EXTENSIONS: [&str; 30] = [
        "dcm", "dicom", "ima", "nii", "mgh", "mgz", "nrrd", "nhdr", "mha", "mhd", "npy", "png",
        "jpg", "jpeg", "jp2", "j2k", "jpx", "tif", "tiff", "webp", "bmp", "gif", "mp4", "mov",
        "avi", "mkv", "webm", "mpg", "mpeg", "zip",
    ];
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().to_lowercase());
    let name = name.as_deref().unwrap_or_default();
    let name = name.strip_suffix(".gz").unwrap_or(name);
    name.rsplit_once('.')
        .is_some_and(|(_, extension)| EXTENSIONS.contains(&extension))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use m3ret_imaging::Affine;

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
    fn json_has_every_key_that_is_promised() {
        let report = Report::new(&object("a"), &ct());
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["shape"], serde_json::json!([1, 2, 3, 4]));
        assert_eq!(
            json["spacing"],
            serde_json::json!([2.5, 0.703_125, 0.703_125])
        );
        assert_eq!(json["value"]["max"], 1276.0);
        let texts = [
            "kind",
            "axis_order",
            "spacing_unit",
            "unit",
            "verdict",
            "modality",
        ];
        assert_eq!(
            texts.map(|key| json[key].as_str().unwrap()),
            ["volume", "SPL", "mm", "HU", "ok", "CT"]
        );
        assert_eq!(json["affine"][2], serde_json::json!([0.0, 0.0, 2.5, 12.5]));
        for key in [
            "path",
            "part",
            "format",
            "body_part",
            "inverted",
            "full_scale",
            "reasons",
        ] {
            assert!(json.get(key).is_some(), "{key}");
        }
    }

    #[test]
    fn the_weightiest_reason_makes_the_verdict() {
        let verdict = |code: Option<Code>| {
            let mut volume = ct();
            volume
                .reasons
                .extend(code.map(|code| Reason::new(code, "")));
            Report::new(&object("a"), &volume).verdict
        };
        assert_eq!(verdict(None), Verdict::Ok);
        assert_eq!(verdict(Some(Code::SpacingUnknown)), Verdict::Ok);
        assert_eq!(verdict(Some(Code::GantryTilt)), Verdict::Warning);
    }

    #[test]
    fn constant_and_non_finite_values_are_told() {
        let codes = |values: Vec<f32>| {
            let volume = Volume::new(values, [1, 1, 1, 2], Kind::Image).unwrap();
            Report::new(&object("a"), &volume).reason_codes
        };
        assert_eq!(codes(vec![1.0, 2.0]), []);
        assert_eq!(codes(vec![2.0, 2.0]), [Code::Constant]);
        assert_eq!(codes(vec![2.0, f32::NAN]), [Code::NonFinite]);
    }

    #[test]
    fn a_foreign_file_is_refused_only_if_it_is_named_like_an_image_or_strictly() {
        let error = Error::refused("file", Code::UnknownFormat, "text", "an image");
        let verdict = |path: &str, strict| Report::skipped(path.as_ref(), &error, strict).verdict;
        for name in ["a/scan.dcm", "A.NII.GZ", "x.Png"] {
            assert_eq!(verdict(name, false), Verdict::Refused, "{name}");
        }
        for name in ["README", "README.md", "dcm", "notes.gz", "a.dcm/LICENSE"] {
            assert_eq!(verdict(name, false), Verdict::NotAnImage, "{name}");
            assert_eq!(verdict(name, true), Verdict::Refused, "{name}");
        }
    }

    #[test]
    fn litter_is_no_image_under_any_name_and_an_archive_is_refused_under_any_name() {
        let skipped = |path: &str, error: &Error| Report::skipped(path.as_ref(), error, false);
        let litter = Error::refused("file", Code::NoPixels, "an AppleDouble file", "an image");
        let archive = Error::unsupported("file", "a tar archive", "unpack it");
        for name in ["._a.dcm", "notes", "x.tar"] {
            assert_eq!(skipped(name, &litter).verdict, Verdict::NotAnImage);
            assert_eq!(
                skipped(name, &litter).what.as_deref(),
                Some("an AppleDouble file")
            );
            assert_eq!(skipped(name, &archive).verdict, Verdict::Refused);
            assert_eq!(skipped(name, &archive).what, None);
        }
    }
}
