//! Why an object has no pixels: it is no image, or the file ends before them.
//!
//! # Source
//! DICOM PS3.4 table B.5-1 (storage SOP classes).

use dicom_dictionary_std::{tags, uids};

use super::FORMAT;
use super::dataset::{DataSet, name_of};
use crate::error::Error;
use crate::reason::Code;

/// The root of every storage SOP class.
const STORAGE: &str = "1.2.840.10008.5.1.4.1.1.";
/// What follows the root in classes of images; a number more, e.g. `1.2` of `1`, is one as well.
#[rustfmt::skip]
const IMAGES: [&str; 26] = [
    "1", "2", "3", "4", "5", "6", "7", "12.1", "12.2", "12.3", "13.1", "14", "20", "30", "66.4", "66.7",
    "77.1", "77.2", "128", "130", "481.1", "481.23", "481.24", "501.1", "501.2", "602",
];
/// Classes below those of `IMAGES` that hold no pixels: spectra, and relations of stereo pairs.
const NO_IMAGES: [&str; 2] = ["4.2", "77.1.5.3"];

/// Returns true for SOP classes whose objects always hold pixels.
fn is_image_class(uid: &str) -> bool {
    let Some(class) = uid.strip_prefix(STORAGE) else {
        return false;
    };
    let is_below = |root: &str| {
        let rest = class.strip_prefix(root);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    IMAGES.iter().any(|root| is_below(root)) && !NO_IMAGES.contains(&class)
}

/// Says why a data set holds no pixels; `class` is the SOP class that the file meta states.
///
/// `NoPixels` only for what is known to be no image, or at least says nothing of one: an image
/// that lost its pixels must not pass for a report.
pub(crate) fn reason(class: Option<&str>, set: &DataSet<'_>) -> Error {
    let own = set.text(tags::SOP_CLASS_UID);
    let class = class.or(own.as_deref());
    let refused = |code, found: String, wanted| Error::refused(FORMAT, code, found, wanted);
    let wanted = "PixelData (7FE0,0010)";
    let is_spectrum = class == Some(uids::MR_SPECTROSCOPY_STORAGE);
    if is_spectrum || set.has(tags::SPECTROSCOPY_DATA) {
        return refused(Code::NoPixels, "spectroscopy".into(), "an image");
    }
    if class.is_some_and(is_image_class) {
        let found = format!(
            "an image by its {}, without pixels",
            name_of(tags::SOP_CLASS_UID)
        );
        return refused(Code::Truncated, found, wanted);
    }
    if set.has(tags::ROWS) {
        let found = format!("{} without pixels", name_of(tags::ROWS));
        return refused(Code::Truncated, found, wanted);
    }
    let is_standard = class.is_some_and(|uid| uid.starts_with("1.2.840.10008."));
    if set.is_empty() && !is_standard {
        let found = "no data set behind the file meta".into();
        return refused(Code::Truncated, found, "one");
    }
    if set.has_rest() && !is_standard {
        let found = "a piece of an element at the end of the file".into();
        return refused(Code::Truncated, found, "a whole element");
    }
    refused(
        Code::NoPixels,
        "an object without pixels".into(),
        "an image",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_images_are_told_from_reports_states_and_spectra() {
        let images = [
            uids::CT_IMAGE_STORAGE,
            uids::ENHANCED_MR_IMAGE_STORAGE,
            uids::DIGITAL_MAMMOGRAPHY_X_RAY_IMAGE_STORAGE_FOR_PROCESSING,
            uids::ULTRASOUND_MULTI_FRAME_IMAGE_STORAGE,
            uids::VL_WHOLE_SLIDE_MICROSCOPY_IMAGE_STORAGE,
            uids::SEGMENTATION_STORAGE,
            uids::BREAST_TOMOSYNTHESIS_IMAGE_STORAGE,
        ];
        let others = [
            uids::MR_SPECTROSCOPY_STORAGE,
            uids::BASIC_TEXT_SR_STORAGE,
            uids::GRAYSCALE_SOFTCOPY_PRESENTATION_STATE_STORAGE,
            uids::RT_PLAN_STORAGE,
            uids::RAW_DATA_STORAGE,
            uids::ENCAPSULATED_PDF_STORAGE,
            uids::STEREOMETRIC_RELATIONSHIP_STORAGE,
            "1.2.840.10008.1.3.10",
        ];
        assert!(images.iter().all(|uid| is_image_class(uid)));
        assert!(!others.iter().any(|uid| is_image_class(uid)));
    }
}
