use super::*;

const PLAIN: [&str; 4] = [
    "ObjectType = Image",
    "NDims = 3",
    "DimSize = 2 2 2",
    "ElementType = MET_UCHAR",
];

fn lonely(_: &str) -> Result<Vec<u8>> {
    Err(Error::io(
        "opening the file",
        std::io::ErrorKind::NotFound.into(),
    ))
}

fn read_bytes(bytes: &[u8]) -> Result<Vec<Volume>> {
    read(bytes, &lonely, &ReadOptions::default())
}

/// Reads 16 bytes under the plain header, with some lines replaced or added.
fn with(lines: &[&str]) -> Result<Vec<Volume>> {
    let field = |line: &str| line.split(" =").next().map(str::to_owned);
    let local = ["ElementDataFile = LOCAL"];
    let is_new = |old: &&&str| !lines.iter().any(|line| field(line) == field(old));
    let mut text = String::new();
    for line in PLAIN
        .iter()
        .filter(is_new)
        .chain(lines)
        .chain(local.iter().filter(is_new))
    {
        text += line;
        text += "\n";
    }
    let mut bytes = text.into_bytes();
    bytes.extend([7; 16]);
    read_bytes(&bytes)
}

fn code(lines: &[&str]) -> Code {
    with(lines).expect_err("should be refused").code()
}

/// The committed files that need no other file.
fn fixtures() -> Vec<(String, Vec<u8>)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/metaimage");
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.extension().is_some_and(|end| end == "mha"))
        .map(|path| (path.display().to_string(), std::fs::read(path).unwrap()))
        .collect()
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let files = fixtures();
    assert!(files.len() >= 8);
    for (name, bytes) in files {
        assert!(is_metaimage(&bytes) && read_bytes(&bytes).is_ok(), "{name}");
        for end in 0..bytes.len() {
            let _ = is_metaimage(&bytes[..end]);
            assert!(read_bytes(&bytes[..end]).is_err(), "{name} cut at {end}");
        }
    }
}

#[test]
fn a_file_with_any_byte_changed_never_panics() {
    for (_, bytes) in fixtures() {
        for at in 0..bytes.len() {
            for value in [0, b'-', b'9', b' ', b'\n', b'=', 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                let _ = (is_metaimage(&changed), read_bytes(&changed));
            }
        }
    }
}

#[test]
fn other_text_is_not_a_header() {
    for text in [
        "",
        "NDims = 3\n",
        "x = 1\nNDims = 3\nDimSize = 1 1 1\n",
        "NDims\nDimSize = 1\nNDims = 1\n",
    ] {
        assert!(!is_metaimage(text.as_bytes()), "{text}");
    }
    assert!(is_metaimage(
        b"Comment = none\r\nNDims = 3\r\nDimSize = 1 1 1\r\n"
    ));
}

#[test]
fn what_is_not_read_is_named() {
    for (lines, name) in [
        (&["ObjectType = Tube"][..], "no image"),
        (&["NDims = 5", "DimSize = 1 1 1 1 1"], "5 dimensions"),
        (&["ElementNumberOfChannels = 2"], "2 channels"),
        (
            &["ElementType = MET_FLOAT", "ElementNumberOfChannels = 3"],
            "3 channels",
        ),
        (&["ElementType = MET_STRING"], "no number"),
        (&["ElementDataFile = slice%03d.raw 1 2 1"], "pattern"),
    ] {
        let refused = with(lines).unwrap_err();
        assert_eq!(refused.code(), Code::Unsupported, "{lines:?}");
        assert!(refused.to_string().contains(name), "{refused}");
    }
}

#[test]
fn broken_headers_are_refused() {
    for lines in [
        &["NDims = 2"][..],
        &["NDims = x"],
        &["NDims = 0", "DimSize ="],
        &["DimSize = 2 2 0"],
        &["DimSize = 2 2 -2"],
        &["ElementType = MET_NOTHING"],
        &["ElementNumberOfChannels = x"],
        &["ElementSpacing = 1 1"],
        &["TransformMatrix = 1 0 0"],
        &["Offset = a b c"],
        &["CompressedData = maybe"],
        &["DistanceUnits = miles"],
        &["HeaderSize = -2"],
        &["HeaderSize = -1", "CompressedData = True"],
        &["CompressedData = True"],
        &["BinaryData = False"],
        &["ElementDataFile ="],
        &["no field"],
    ] {
        assert_eq!(code(lines), Code::Malformed, "{lines:?}");
    }
    assert_eq!(code(&["HeaderSize = 9223372036854775807"]), Code::Truncated);
    assert_eq!(code(&["DimSize = 999 999 500"]), Code::Truncated);
    assert_eq!(code(&["DimSize = 99999 99999 99999"]), Code::LimitExceeded);
    assert_eq!(
        code(&["DimSize = 18446744073709551615 2 2"]),
        Code::LimitExceeded
    );
    assert_eq!(
        code(&["DimSize = 999 999 500", "CompressedData = True"]),
        Code::Truncated
    );
    assert_eq!(
        code(&["ElementNumberOfChannels = 18446744073709551615"]),
        Code::Unsupported
    );
    assert_eq!(code(&["ElementDataFile = other.raw"]), Code::Io);
    let empty = PLAIN.join("\n") + "\nElementDataFile = LIST\n";
    assert_eq!(
        read_bytes(empty.as_bytes()).unwrap_err().code(),
        Code::Malformed
    );
}

#[test]
fn geometry_is_used_noted_or_refused() {
    let turn = "TransformMatrix = 1 0 0 0 1 0 0 0 1";
    let sizes = "ElementSpacing = 1 2 3";
    let read = with(&[turn, sizes, "DistanceUnits = cm", "Modality = MET_MOD_CT"]).unwrap();
    assert_eq!(read[0].spacing, [Some(30.0), Some(20.0), Some(10.0)]);
    assert_eq!(
        (read[0].reasons.len(), read[0].modality.as_deref()),
        (0, Some("CT"))
    );
    assert_eq!(
        code(&["TransformMatrix = 1 0 0 1 0 0 0 0 1", sizes]),
        Code::BadGeometry
    );
    assert_eq!(code(&[turn, "ElementSpacing = 1 nan 3"]), Code::BadGeometry);
    let codes = |lines: &[&str]| -> Vec<Code> {
        with(lines).unwrap()[0]
            .reasons
            .iter()
            .map(|reason| reason.code)
            .collect()
    };
    assert_eq!(codes(&[sizes]), [Code::OrientationUnknown]);
    assert_eq!(codes(&[]), [Code::SpacingUnknown, Code::OrientationUnknown]);
    let sloped = "ElementToIntensityFunctionSlope = 2";
    assert_eq!(codes(&[turn, sizes, sloped]), [Code::HeaderRepaired]);
}
