//! Writes one radiograph as DICOM: Secondary Capture, 16 bits, explicit VR little endian.
//!
//! # Source
//! DICOM PS3.3 A.8 (Secondary Capture), C.8.6.1 and C.8.6.2, C.7.6.3, C.11.1, C.11.2; PS3.5
//! sections 7.1 and 9.1, annex B (UIDs made of UUIDs, RFC 9562 version 8); PS3.10 section 7.1.

use anyhow::Context as _;
use xxhash_rust::xxh3::Xxh3;

use super::picture::{Radiograph, level};

/// Integrals are stored in steps of 1/4096; 16 bits reach 16, four fifths of a metre of water.
const STEPS_PER_UNIT: f64 = 4096.0;

const SECONDARY_CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";
const EXPLICIT_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2.1";

/// Encodes a radiograph. The integrals are the values; the window is what is shown.
pub(super) fn encode(radiograph: &Radiograph<'_>) -> anyhow::Result<Vec<u8>> {
    let white = f64::from(u16::MAX);
    let integrals = radiograph.picture.values.iter().map(|&x| f64::from(x));
    let stored = integrals.map(|x| level(x * STEPS_PER_UNIT / white, u16::MAX));
    let pixels: Vec<u8> = stored.flat_map(u16::to_le_bytes).collect();
    let uids = Uids::of(radiograph, &pixels);
    let mut set = DataSet::default();
    identify(&mut set, radiograph, &uids)?;
    describe(&mut set, radiograph)?;
    set.pixels(&pixels)?;
    let mut file = vec![0; 128];
    file.extend(b"DICM");
    file.extend(meta(&uids.instance)?);
    file.extend(set.bytes);
    Ok(file)
}

/// The UIDs of a radiograph, which follow from the CT, the angle, the window and the pixels.
struct Uids {
    study: String,
    series: String,
    instance: String,
}

impl Uids {
    fn of(radiograph: &Radiograph<'_>, pixels: &[u8]) -> Self {
        let study = uid(&[b"study", &radiograph.key.to_le_bytes()]);
        let series = uid(&[study.as_bytes(), &radiograph.angle.to_le_bytes()]);
        let window = window_text(radiograph);
        let instance = uid(&[series.as_bytes(), window.as_bytes(), pixels]);
        Self {
            study,
            series,
            instance,
        }
    }
}

fn meta(instance: &str) -> anyhow::Result<Vec<u8>> {
    let mut group = DataSet::default();
    // OB has two bytes of reserve and four of length.
    group.bytes.extend([2, 0, 1, 0]);
    group.bytes.extend(b"OB\0\0\x02\0\0\0\0\x01");
    group.text((0x0002, 0x0002), "UI", SECONDARY_CAPTURE)?;
    group.text((0x0002, 0x0003), "UI", instance)?;
    group.text((0x0002, 0x0010), "UI", EXPLICIT_LITTLE_ENDIAN)?;
    group.text((0x0002, 0x0012), "UI", &uid(&[b"implementation"]))?;
    group.text((0x0002, 0x0013), "SH", "M3RET")?;
    let n_bytes = u32::try_from(group.bytes.len()).context("a header too large for DICOM")?;
    let mut meta = DataSet::default();
    meta.element((0x0002, 0x0000), "UL", &n_bytes.to_le_bytes())?;
    meta.bytes.extend(group.bytes);
    Ok(meta.bytes)
}

/// Writes what the picture is; nothing identifies a person.
fn identify(set: &mut DataSet, radiograph: &Radiograph<'_>, uids: &Uids) -> anyhow::Result<()> {
    let description = format!("Simulated radiograph, {} degrees", radiograph.angle);
    let derivation = "Line integrals of linear attenuation along parallel rays through a CT";
    set.text((0x0008, 0x0008), "CS", "DERIVED\\SECONDARY")?;
    set.text((0x0008, 0x0016), "UI", SECONDARY_CAPTURE)?;
    set.text((0x0008, 0x0018), "UI", &uids.instance)?;
    for (number, kind) in [(0x0020, "DA"), (0x0030, "TM"), (0x0050, "SH")] {
        set.text((0x0008, number), kind, "")?;
    }
    set.text((0x0008, 0x0060), "CS", "DX")?;
    // Synthetic image.
    set.text((0x0008, 0x0064), "CS", "SYN")?;
    set.text((0x0008, 0x0070), "LO", "m3ret")?;
    set.text((0x0008, 0x0090), "PN", "")?;
    set.text((0x0008, 0x103e), "LO", &description)?;
    set.text((0x0008, 0x2111), "ST", derivation)?;
    for (number, kind) in [
        (0x0010, "PN"),
        (0x0020, "LO"),
        (0x0030, "DA"),
        (0x0040, "CS"),
    ] {
        set.text((0x0010, number), kind, "")?;
    }
    set.text((0x0012, 0x0062), "CS", "YES")?;
    set.text(
        (0x0012, 0x0063),
        "LO",
        "Nothing was copied but the body part",
    )?;
    let body_part = radiograph.body_part.to_uppercase();
    if is_code(&body_part) {
        set.text((0x0018, 0x0015), "CS", &body_part)?;
    }
    set.text((0x0020, 0x000d), "UI", &uids.study)?;
    set.text((0x0020, 0x000e), "UI", &uids.series)?;
    set.text((0x0020, 0x0010), "SH", "")?;
    set.text((0x0020, 0x0011), "IS", &radiograph.angle.to_string())?;
    set.text((0x0020, 0x0013), "IS", "1")?;
    set.text((0x0020, 0x0020), "CS", orientation(radiograph.angle))
}

/// Writes how to read and show the pixels.
fn describe(set: &mut DataSet, radiograph: &Radiograph<'_>) -> anyhow::Result<()> {
    let side = |side: usize| u16::try_from(side).context("a picture too large for DICOM");
    let spacing = decimal(radiograph.picture.pixel_mm);
    let number = |set: &mut DataSet, number, value: u16| {
        set.element((0x0028, number), "US", &value.to_le_bytes())
    };
    number(set, 0x0002, 1)?;
    set.text((0x0028, 0x0004), "CS", "MONOCHROME2")?;
    number(set, 0x0010, side(radiograph.picture.height)?)?;
    number(set, 0x0011, side(radiograph.picture.width)?)?;
    set.text((0x0028, 0x0030), "DS", &format!("{spacing}\\{spacing}"))?;
    for (element, value) in [(0x0100, 16), (0x0101, 16), (0x0102, 15), (0x0103, 0)] {
        number(set, element, value)?;
    }
    set.text((0x0028, 0x0301), "CS", "NO")?;
    let [centre, width] = centre_and_width(radiograph);
    set.text((0x0028, 0x1050), "DS", &centre)?;
    set.text((0x0028, 0x1051), "DS", &width)?;
    set.text((0x0028, 0x1052), "DS", "0")?;
    set.text((0x0028, 0x1053), "DS", &decimal(1.0 / STEPS_PER_UNIT))?;
    set.text((0x0028, 0x1054), "LO", "US")
}

/// The window in DICOM's words, for its exact-linear function and the usual one alike.
fn centre_and_width(radiograph: &Radiograph<'_>) -> [String; 2] {
    let [low, high] = radiograph.window;
    // A constant picture has no window; the width must be above 0.
    let width = (high - low).max(1.0 / STEPS_PER_UNIT);
    [decimal((low + high) / 2.0), decimal(width)]
}

fn window_text(radiograph: &Radiograph<'_>) -> String {
    centre_and_width(radiograph).join("\\")
}

/// Writes a number in at most 16 characters, as DS asks.
fn decimal(value: f64) -> String {
    let plain = value.to_string();
    if plain.len() <= 16 {
        return plain;
    }
    let short = format!("{value:.8}");
    if value.abs() >= 1e-3 && short.len() <= 16 {
        short
    } else {
        format!("{value:.8e}")
    }
}

/// Where rows and columns lead to: rows to the viewer's right, columns to the feet.
fn orientation(angle: u16) -> &'static str {
    match angle {
        0 => "L\\F",
        1..45 => "LP\\F",
        45..90 => "PL\\F",
        90 => "P\\F",
        91..135 => "PR\\F",
        135..180 => "RP\\F",
        180 => "R\\F",
        181..225 => "RA\\F",
        225..270 => "AR\\F",
        270 => "A\\F",
        271..315 => "AL\\F",
        _ => "LA\\F",
    }
}

/// Returns whether a text may be a DICOM code string.
fn is_code(text: &str) -> bool {
    let may_hold = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || matches!(c, ' ' | '_');
    (1..=16).contains(&text.len()) && text.chars().all(may_hold)
}

/// Makes a UID that follows from words: a UUID of version 8 as a number below 2.25.
fn uid(words: &[&[u8]]) -> String {
    let mut hasher = Xxh3::new();
    hasher.update(b"m3ret simulate radiographs");
    for word in words {
        hasher.update(&(word.len() as u64).to_le_bytes());
        hasher.update(word);
    }
    let version = 8_u128 << 76;
    let variant = 2_u128 << 62;
    let free = !((0xf_u128 << 76) | (3_u128 << 62));
    format!("2.25.{}", (hasher.digest128() & free) | version | variant)
}

/// Elements on their way into a file, in ascending order.
#[derive(Debug, Default)]
struct DataSet {
    bytes: Vec<u8>,
}

impl DataSet {
    /// Appends an element whose length fits 16 bits.
    fn element(&mut self, tag: (u16, u16), kind: &str, value: &[u8]) -> anyhow::Result<()> {
        let length = u16::try_from(value.len()).context("a value too long for DICOM")?;
        self.tag(tag, kind);
        self.bytes.extend(length.to_le_bytes());
        self.bytes.extend(value);
        Ok(())
    }

    /// Appends a text, padded to an even length.
    fn text(&mut self, tag: (u16, u16), kind: &str, text: &str) -> anyhow::Result<()> {
        let mut value = text.as_bytes().to_vec();
        if value.len() % 2 == 1 {
            value.push(if kind == "UI" { 0 } else { b' ' });
        }
        self.element(tag, kind, &value)
    }

    /// Appends the pixels, which are always even in number of bytes.
    fn pixels(&mut self, pixels: &[u8]) -> anyhow::Result<()> {
        let length = u32::try_from(pixels.len()).context("a picture too large for DICOM")?;
        self.tag((0x7fe0, 0x0010), "OW");
        self.bytes.extend([0, 0]);
        self.bytes.extend(length.to_le_bytes());
        self.bytes.extend(pixels);
        Ok(())
    }

    fn tag(&mut self, tag: (u16, u16), kind: &str) {
        let (group, number) = tag;
        self.bytes.extend(group.to_le_bytes());
        self.bytes.extend(number.to_le_bytes());
        self.bytes.extend(kind.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use m3ret_imaging::projection::Projection;
    use m3ret_imaging::{Kind, ReadOptions, read_bytes};

    use super::*;

    fn picture() -> Projection {
        Projection {
            values: vec![0.0, 0.5, 1.0, 2.5, 15.0, 99.0],
            height: 2,
            width: 3,
            pixel_mm: 0.703_125,
        }
    }

    fn encoded(angle: u16) -> Vec<u8> {
        encode(&Radiograph {
            picture: &picture(),
            window: [0.5, 3.0],
            angle,
            body_part: "chest",
            key: 17,
            disturbance: None,
        })
        .unwrap()
    }

    #[test]
    fn our_own_reader_finds_the_integrals() {
        let volumes = read_bytes(&encoded(0), &ReadOptions::default()).unwrap();
        let [volume] = &volumes[..] else {
            panic!("{} images", volumes.len());
        };
        assert_eq!((volume.shape(), volume.kind), ([1, 1, 2, 3], Kind::Image));
        assert_eq!(volume.modality.as_deref(), Some("DX"));
        assert_eq!(volume.body_part.as_deref(), Some("CHEST"));
        assert_eq!(volume.spacing[1..], [Some(0.703_125); 2]);
        let white = 65535.0 / 4096.0;
        for (found, wanted) in volume
            .values()
            .iter()
            .zip([0.0, 0.5, 1.0, 2.5, 15.0, white])
        {
            assert!((found - wanted).abs() < 1e-4, "{found} for {wanted}");
        }
        assert!(volume.identifiers.patient_id.is_none());
    }

    #[test]
    fn the_same_picture_has_the_same_uids_and_another_has_others() {
        assert_eq!(encoded(0), encoded(0));
        let uids: std::collections::BTreeSet<String> =
            [b"a", b"b", b"c"].map(|word| uid(&[word])).into();
        assert_eq!(uids.len(), 3);
        for uid in uids {
            let number: u128 = uid.strip_prefix("2.25.").unwrap().parse().unwrap();
            assert_eq!((number >> 76 & 15, number >> 62 & 3), (8, 2));
        }
    }

    #[test]
    fn numbers_fit_into_16_characters() {
        for (value, expected) in [
            (0.0, "0"),
            (0.000_244_140_625, "0.000244140625"),
            (2.0 / 3.0, "0.66666667"),
            (12_345.678_901_234_567, "12345.67890123"),
            (1.0 / 30000.0, "3.33333333e-5"),
        ] {
            assert_eq!(decimal(value), expected);
        }
    }
}
