//! Names that this crate knows: of columns, by which galleries group images and tasks follow, and of views.

/// Where the image lies.
pub const PATH: &str = "path";
/// The kind of image: CT, DX, US and others.
pub const MODALITY: &str = "modality";
/// Which part of the body is seen.
pub const BODY_PART: &str = "body_part";
/// 2d, 3d or video.
pub const DIMS: &str = "dims";
/// The cell of `DIMS` of an image that is flat.
pub const FLAT: &str = "2d";
/// Whose image it is.
pub const PATIENT: &str = "patient_id";
/// Whose image it is by its own header: without an issuer of the number, and with it.
pub const HEADER_PATIENT: &str = "m3ret:patient_id";
/// As `HEADER_PATIENT`, where the header names the issuer of the number.
pub const ISSUED_PATIENT: &str = "m3ret:issued_patient_id";
/// One visit.
pub const STUDY: &str = "study_id";
/// One series.
pub const SERIES: &str = "series_id";
/// Where the image is from.
pub const SOURCE: &str = "source";
/// `query`, `gallery` or another part of a split.
pub const SPLIT: &str = "split";
/// Images of one object, such as a CT and its radiographs.
pub const PAIR: &str = "pair_id";
/// The seed of a disturbed radiograph; empty for any other image.
pub const DISTURBED: &str = "disturbed";

/// Begins the name of a view that is a slice of a volume, such as `slice 3/8`.
pub const SLICE: &str = "slice ";

/// Returns whether a view is a slice of a volume.
#[must_use]
pub fn is_slice(view: &str) -> bool {
    view.starts_with(SLICE)
}
