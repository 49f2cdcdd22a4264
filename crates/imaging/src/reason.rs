//! Reason codes: the fixed words with which reports say what is unusual about an object.

/// How much a reason weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Note,
    /// Read, but a person should look.
    Warning,
    /// Not read.
    Refused,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $severity:ident;)*) => {
        /// One fixed word for one unusual thing.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code, in the order of the table in docs/reason-codes.md.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns the word used in JSON and on the terminal.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Returns how much the code weighs.
            #[must_use]
            pub fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }
        }
    };
}

codes! {
    /// No physical pixel size is stated.
    SpacingUnknown = "spacing_unknown", Note;
    /// The in-plane spacing is that of the detector, not of the patient (projection images).
    SpacingAtDetector = "spacing_at_detector", Note;
    /// No usable orientation is stated; axes are in storage order.
    OrientationUnknown = "orientation_unknown", Note;
    /// The third axis is neither stated as space nor as time.
    StackAxisUnknown = "stack_axis_unknown", Note;
    /// The file was compressed with loss.
    LossyCompression = "lossy_compression", Note;
    /// CT values carry no rescale to Hounsfield units.
    NotHounsfield = "not_hounsfield", Warning;
    /// Frames were sampled, not all read.
    FramesSampled = "frames_sampled", Note;
    /// The video decoder reported errors and may have concealed some.
    DamagedFrames = "damaged_frames", Warning;
    /// An alpha channel was dropped.
    AlphaDropped = "alpha_dropped", Note;
    /// Values are masks or segment numbers, not an image.
    LabelMap = "label_map", Warning;
    /// Every voxel has the same value.
    Constant = "constant", Warning;
    /// Some voxels are NaN or infinite.
    NonFinite = "non_finite", Warning;
    /// Some voxels stand for no pixel; they hold the darkest true value.
    Padding = "padding", Note;
    /// The header states both polarities; the photometric interpretation was believed.
    BadPolarity = "bad_polarity", Warning;
    /// Slices are sheared against their normal.
    GantryTilt = "gantry_tilt", Warning;
    /// The same instance came more than once; one copy was kept.
    DuplicateInstance = "duplicate_instance", Warning;
    /// The codestream contradicts the header's sign; the header was believed.
    SignMismatch = "sign_mismatch", Warning;
    /// A header field is broken, or contradicts the bytes: repaired, or not needed.
    HeaderRepaired = "header_repaired", Warning;
    /// More frames are stored than the header declares; only the declared ones were read.
    ExtraFrames = "extra_frames", Warning;
    /// A series was divided where its headers do not say so: by slice distance or image number.
    DividedSeries = "divided_series", Warning;
    /// Other volumes of the series have slices that this one lacks.
    IncompletePart = "incomplete_part", Warning;
    /// A slice of a series of several does not say where it lies.
    UnplacedSlice = "unplaced_slice", Warning;
    /// Two slices of one series lie at the same position.
    DuplicatePosition = "duplicate_position", Refused;
    /// A series has gaps.
    MissingSlices = "missing_slices", Refused;
    /// A series has more than one slice distance.
    MixedSpacing = "mixed_spacing", Refused;
    /// A series says nothing about where its slices lie.
    PositionUnknown = "position_unknown", Refused;
    /// The geometry contradicts itself.
    BadGeometry = "bad_geometry", Refused;
    /// The file ends before its declared content.
    Truncated = "truncated", Refused;
    /// The decoder, a process of its own, was ended by a signal.
    DecoderCrashed = "decoder_crashed", Refused;
    /// The object holds no pixels.
    NoPixels = "no_pixels", Refused;
    /// The leading bytes belong to no known image format.
    UnknownFormat = "unknown_format", Refused;
    /// The file breaks its format.
    Malformed = "malformed", Refused;
    /// The file is valid and needs a feature that is not there.
    Unsupported = "unsupported", Refused;
    /// Reading would cost more than allowed.
    LimitExceeded = "limit_exceeded", Refused;
    /// A model made no vector of it that points anywhere, as of a constant image.
    NoDirection = "no_direction", Refused;
    /// Its patient was erased from the gallery.
    Erased = "erased", Refused;
    /// The machine failed.
    Io = "io", Refused;
    /// The caller's arguments do not fit each other.
    Mismatch = "mismatch", Refused;
    /// This program has a fault; the file may be good.
    InternalError = "internal_error", Refused;
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A code with the sentence that explains it for one object.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Reason {
    /// The fixed word.
    pub code: Code,
    /// What was found, without any patient identifier.
    pub detail: String,
}

impl Reason {
    /// Joins a code and its explanation.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_in_docs_lists_every_code_with_its_weight() {
        let table = include_str!("../../../docs/reason-codes.md");
        for code in Code::ALL {
            let weight = format!("{:?}", code.severity()).to_lowercase();
            let row = format!("| `{code}` | {weight} |");
            assert!(table.contains(&row), "{row}");
        }
        assert_eq!(table.matches("\n| `").count(), Code::ALL.len());
    }
}
