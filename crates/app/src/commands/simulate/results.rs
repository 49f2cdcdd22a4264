//! What came of each image, and of all.

use std::collections::BTreeMap;

use m3ret_imaging::Code;
use serde::Serialize;

use super::disturb::Disturbance;
use crate::report::Report;

/// What came of one image; the names of fields are those of the JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub(crate) enum RadiographResult {
    /// A radiograph was projected and written.
    Simulated(SimulatedRadiograph),
    /// A radiograph of a manifest was disturbed and written.
    Disturbed(DisturbedRadiograph),
    /// Nothing was written of an image.
    Refused(RefusedImage),
}

/// A radiograph that was projected from a CT.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct SimulatedRadiograph {
    /// The file that was written.
    pub(crate) path: String,
    /// The file of the CT, or the folder of its series.
    pub(crate) ct: String,
    /// Which image of the file, where it holds several.
    pub(crate) ct_part: Option<String>,
    /// Shared by the CT and its radiographs.
    pub(crate) pair_id: String,
    /// `drr-` and the view.
    pub(crate) finding: String,
    pub(crate) angle_deg: u16,
    /// Pixels, of the picture as it was written.
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) pixel_mm: f64,
    /// Integrals that are black and white.
    pub(crate) window: [f64; 2],
    pub(crate) max_integral: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disturbance: Option<Disturbance>,
}

/// A radiograph of a manifest that was disturbed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct DisturbedRadiograph {
    /// The file that was written.
    pub(crate) path: String,
    /// The file that was read.
    pub(crate) radiograph: String,
    /// Empty where the manifest says none.
    pub(crate) pair_id: String,
    pub(crate) finding: String,
    /// Pixels, of the picture as it was written.
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) disturbance: Disturbance,
}

/// An image of which nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct RefusedImage {
    pub(crate) path: String,
    /// Which image of the file, where it holds several.
    pub(crate) part: Option<String>,
    pub(crate) reason_codes: Vec<Code>,
    pub(crate) error: Option<String>,
}

/// What all images amount to; the names of fields are those of the JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct RadiographSummary {
    /// CT volumes that were projected.
    pub(crate) n_cts: usize,
    /// Radiographs that were projected from them.
    pub(crate) n_radiographs: usize,
    /// Radiographs of manifests that were disturbed.
    pub(crate) n_disturbed: usize,
    pub(crate) n_refused: usize,
    /// Rows and images that are no CT volumes.
    pub(crate) n_others: usize,
    /// Radiographs of manifests that had been disturbed before, and are not again.
    pub(crate) n_disturbed_before: usize,
    /// Files that hold no image format.
    pub(crate) n_not_images: usize,
    /// How many images were refused for each reason.
    pub(crate) reason_codes: BTreeMap<&'static str, usize>,
    /// The manifest that was written; `None` where nothing was.
    pub(crate) manifest: Option<String>,
    /// The refused images.
    #[serde(skip)]
    pub(crate) refused: Vec<Report>,
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
