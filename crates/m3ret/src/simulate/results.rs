//! Results of each image, and totals.

use std::collections::BTreeMap;

use m3ret_imaging::Code;
use serde::Serialize;

use super::disturb::Disturbance;
use crate::check::report::Report;

/// The result of one image, as `m3ret simulate --json` prints it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum RadiographResult {
    /// A radiograph was projected and written.
    Simulated(SimulatedRadiograph),
    /// A radiograph of a manifest was disturbed and written.
    Disturbed(DisturbedRadiograph),
    /// An image was refused, and nothing was written of it.
    Refused(RefusedSource),
}

/// A radiograph that was projected from a CT.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SimulatedRadiograph {
    /// The file that was written.
    pub path: String,
    /// The file of the CT, or the folder of its series.
    pub ct: String,
    /// Which image of the file the CT is; `None` if the file holds one image.
    pub ct_part: Option<String>,
    /// The `pair_id` that the CT and its radiographs share.
    pub pair_id: String,
    /// `drr-ap` (0 degrees), `drr-lat` (90) or `drr-NNN`.
    pub finding: String,
    /// Angle of the view, 0..=359 degrees: 0 is from the front, 90 from the left.
    pub angle_deg: u16,
    /// Height of the written picture in pixels.
    pub height: usize,
    /// Width of the written picture in pixels.
    pub width: usize,
    /// Side of a pixel of the projection, in mm.
    pub pixel_mm: f64,
    /// Integrals that are drawn black and white.
    pub window: [f64; 2],
    /// Largest integral of the picture: attenuation times length, without unit.
    pub max_integral: f64,
    /// How the picture was disturbed; `None` if it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disturbance: Option<Disturbance>,
}

/// A radiograph of a manifest that was disturbed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DisturbedRadiograph {
    /// The file that was written.
    pub path: String,
    /// The file that was read, as the manifest writes it.
    pub radiograph: String,
    /// The `pair_id` of the manifest; empty if it states none.
    pub pair_id: String,
    /// The finding of the manifest; empty if it states none.
    pub finding: String,
    /// Height of the written picture in pixels.
    pub height: usize,
    /// Width of the written picture in pixels.
    pub width: usize,
    /// How the picture was disturbed.
    pub disturbance: Disturbance,
}

/// An image of which nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusedSource {
    /// The file, or the folder of a series.
    pub path: String,
    /// Which image of the file this is; `None` if the file holds one image.
    pub part: Option<String>,
    /// Reason codes, as docs/reason-codes.md defines them.
    pub reason_codes: Vec<Code>,
    /// Why it was refused, as a sentence.
    pub error: Option<String>,
}

/// Totals over all images, as `m3ret simulate --json` prints them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RadiographSummary {
    /// Number of CT volumes that were projected.
    pub n_cts: usize,
    /// Number of radiographs that were projected from them.
    pub n_radiographs: usize,
    /// Number of radiographs of manifests that were disturbed.
    pub n_disturbed: usize,
    /// Number of images that were refused.
    pub n_refused: usize,
    /// Number of rows and images that are no CT volumes.
    pub n_others: usize,
    /// Number of radiographs of manifests that were disturbed already and are skipped.
    pub n_disturbed_before: usize,
    /// Number of files of folders that hold no image format.
    pub n_not_images: usize,
    /// Number of refused images by reason code.
    pub reason_codes: BTreeMap<&'static str, usize>,
    /// The manifest that was written; `None` if nothing was written.
    pub manifest: Option<String>,
    /// The refused images, as `check` describes them.
    #[serde(skip)]
    pub refused: Vec<Report>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_is_the_first_key() {
        let refused = RadiographResult::Refused(RefusedSource {
            path: "a.nii".into(),
            part: None,
            reason_codes: vec![Code::NotHounsfield],
            error: None,
        });
        assert_eq!(
            serde_json::to_string(&refused).unwrap(),
            r#"{"verdict":"refused","path":"a.nii","part":null,"reason_codes":["not_hounsfield"],"error":null}"#
        );
    }
}
