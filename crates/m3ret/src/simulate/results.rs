//! What came of each image, and of all.

use std::collections::BTreeMap;

use m3ret_imaging::Code;
use serde::Serialize;

use super::disturb::Disturbance;
use crate::check::report::Report;

/// What came of one image; the names of fields are those of the JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum RadiographResult {
    /// A radiograph was projected and written.
    Simulated(SimulatedRadiograph),
    /// A radiograph of a manifest was disturbed and written.
    Disturbed(DisturbedRadiograph),
    /// Nothing was written of an image.
    Refused(RefusedImage),
}

/// A radiograph that was projected from a CT.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SimulatedRadiograph {
    /// The file that was written.
    pub path: String,
    /// The file of the CT, or the folder of its series.
    pub ct: String,
    /// Which image of the file, where it holds several.
    pub ct_part: Option<String>,
    /// Shared by the CT and its radiographs.
    pub pair_id: String,
    /// `drr-` and the view.
    pub finding: String,
    pub angle_deg: u16,
    /// Pixels, of the picture as it was written.
    pub height: usize,
    pub width: usize,
    pub pixel_mm: f64,
    /// Integrals that are black and white.
    pub window: [f64; 2],
    pub max_integral: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disturbance: Option<Disturbance>,
}

/// A radiograph of a manifest that was disturbed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DisturbedRadiograph {
    /// The file that was written.
    pub path: String,
    /// The file that was read.
    pub radiograph: String,
    /// Empty where the manifest says none.
    pub pair_id: String,
    pub finding: String,
    /// Pixels, of the picture as it was written.
    pub height: usize,
    pub width: usize,
    pub disturbance: Disturbance,
}

/// An image of which nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusedImage {
    pub path: String,
    /// Which image of the file, where it holds several.
    pub part: Option<String>,
    pub reason_codes: Vec<Code>,
    pub error: Option<String>,
}

/// What all images amount to; the names of fields are those of the JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RadiographSummary {
    /// CT volumes that were projected.
    pub n_cts: usize,
    /// Radiographs that were projected from them.
    pub n_radiographs: usize,
    /// Radiographs of manifests that were disturbed.
    pub n_disturbed: usize,
    pub n_refused: usize,
    /// Rows and images that are no CT volumes.
    pub n_others: usize,
    /// Radiographs of manifests that had been disturbed before, and are not again.
    pub n_disturbed_before: usize,
    /// Files that hold no image format.
    pub n_not_images: usize,
    /// How many images were refused for each reason.
    pub reason_codes: BTreeMap<&'static str, usize>,
    /// The manifest that was written; `None` where nothing was.
    pub manifest: Option<String>,
    /// The refused images.
    #[serde(skip)]
    pub refused: Vec<Report>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_is_the_first_key() {
        let refused = RadiographResult::Refused(RefusedImage {
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
