use super::*;

/// Joins a header of lines with voxels.
fn file(lines: &[&str], voxels: &[u8]) -> Vec<u8> {
    let mut bytes = b"NRRD0004\n".to_vec();
    for line in lines {
        bytes.extend(line.bytes());
        bytes.push(b'\n');
    }
    bytes.push(b'\n');
    bytes.extend(voxels);
    bytes
}

const PLAIN: [&str; 4] = [
    "type: uint8",
    "dimension: 3",
    "sizes: 2 2 2",
    "encoding: raw",
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
    let field = |line: &str| line.split(':').next().map(str::to_owned);
    let kept = PLAIN
        .iter()
        .filter(|old| !lines.iter().any(|line| field(line) == field(old)));
    let all: Vec<&str> = kept.chain(lines).copied().collect();
    read_bytes(&file(&all, &[7; 16]))
}

fn code(lines: &[&str]) -> Code {
    with(lines).expect_err("should be refused").code()
}

/// The committed files that need no other file.
fn fixtures() -> Vec<(String, Vec<u8>)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/nrrd");
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.extension().is_some_and(|end| end == "nrrd"))
        .map(|path| (path.display().to_string(), std::fs::read(path).unwrap()))
        .collect()
}

#[test]
fn a_file_cut_anywhere_never_panics_and_lacks_something() {
    let files = fixtures();
    assert!(files.len() >= 8);
    for (name, bytes) in files {
        assert!(is_nrrd(&bytes) && read_bytes(&bytes).is_ok(), "{name}");
        for end in 0..bytes.len() {
            let cut = read_bytes(&bytes[..end]);
            // Text may lose digits of its last number, and no reader can know.
            assert!(
                cut.is_err() || name.contains("ascii"),
                "{name} cut at {end}"
            );
        }
    }
}

#[test]
fn a_file_with_any_byte_changed_never_panics() {
    for (_, bytes) in fixtures() {
        for at in 0..bytes.len() {
            for value in [0, b'-', b'9', b' ', b'\n', b'(', 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                let _ = read_bytes(&changed);
            }
        }
    }
}

#[test]
fn what_is_not_read_is_named() {
    for (lines, name) in [
        (&["encoding: bzip2"][..], "bzip2"),
        (&["type: block"], "block"),
        (&["kinds: complex domain domain"], "complex"),
        (
            &[
                "type: float",
                "endian: little",
                "kinds: vector domain domain",
                "sizes: 3 1 1",
            ],
            "vector",
        ),
        (&["kinds: nobody domain domain"], "a kind of its own"),
        (&["data file: slice%02d.raw 1 9 1"], "pattern"),
        (&["kinds: list domain list"], "two lists"),
        (&["dimension: 4", "sizes: 2 2 2 2"], "without kind"),
        (&["space: left-posterior-superior-time"], "space with time"),
    ] {
        let refused = with(lines).unwrap_err();
        assert_eq!(refused.code(), Code::Unsupported, "{lines:?}");
        assert!(refused.to_string().contains(name), "{refused}");
    }
}

#[test]
fn broken_headers_are_malformed() {
    for lines in [
        &["sizes: 2 2"][..],
        &["sizes: 2 2 0"],
        &["sizes: 2 -2 2"],
        &["dimension: 17"],
        &["type: nothing"],
        &["encoding: nothing"],
        &["type: int16"],
        &["type: int16", "endian: middle"],
        &["kinds: domain domain"],
        &["space directions: (1,0,0) (0,1,0)"],
        &["space directions: (1,0,0) (0,1,0) (0,0"],
        &["space directions: (1,0,0) (0,1,0) (0,0,x)"],
        &["spacings: 1 x 1"],
        &["line skip: x"],
        &["byte skip: -2"],
        &["encoding: gzip", "byte skip: -1"],
        &["encoding: hex"],
        &["encoding: ascii"],
        &["no colon"],
    ] {
        assert_eq!(code(lines), Code::Malformed, "{lines:?}");
    }
    assert_eq!(code(&["encoding: gzip"]), Code::Malformed);
    assert_eq!(code(&["line skip: 3"]), Code::Truncated);
    assert_eq!(code(&["line skip: 99999999999999"]), Code::Truncated);
    assert_eq!(code(&["byte skip: 9"]), Code::Truncated);
    assert_eq!(code(&["byte skip: 9223372036854775807"]), Code::Truncated);
    assert_eq!(code(&["sizes: 99999 99999 99999"]), Code::LimitExceeded);
    assert_eq!(
        code(&["sizes: 18446744073709551615 2 2"]),
        Code::LimitExceeded
    );
    assert_eq!(code(&["sizes: 1000 1000 500"]), Code::Truncated);
    assert_eq!(
        code(&["sizes: 1000 1000 500", "encoding: gzip"]),
        Code::Truncated
    );
    assert_eq!(code(&["data file: LIST"]), Code::Malformed);
}

#[test]
fn geometry_is_used_noted_or_refused() {
    let codes = |lines: &[&str]| -> Vec<Code> {
        with(lines).unwrap()[0]
            .reasons
            .iter()
            .map(|reason| reason.code)
            .collect()
    };
    let directions = "space directions: (1,0,0) (0,1,0) (0,0,2)";
    assert_eq!(codes(&["space: LPS", directions]), []);
    assert_eq!(codes(&["space: LPS", directions, "space origin: none"]), []);
    let volume = with(&["space: LPS", directions, "space units: \"m\" \"m\" \"m\""]).unwrap();
    assert_eq!(
        volume[0].spacing,
        [Some(2000.0), Some(1000.0), Some(1000.0)]
    );
    assert_eq!(
        codes(&["space: scanner-xyz", directions]),
        [Code::OrientationUnknown]
    );
    let volume = with(&["space: scanner-xyz", directions]).unwrap();
    assert_eq!(volume[0].spacing, [Some(2.0), Some(1.0), Some(1.0)]);
    let flat = "space directions: (1,0,0) (1,0,0) (0,0,2)";
    assert_eq!(code(&["space: LPS", flat]), Code::BadGeometry);
}

#[test]
fn a_list_of_files_must_share_the_voxels() {
    let siblings = |name: &str| {
        if name == "a" {
            Ok(vec![1; 4])
        } else {
            lonely(name)
        }
    };
    let lines = |names: &[&'static str]| {
        let mut lines = PLAIN.to_vec();
        lines.push("data file: LIST");
        lines.extend(names);
        read(&file(&lines, &[]), &siblings, &ReadOptions::default())
    };
    assert_eq!(lines(&["a", "./a"]).unwrap()[0].values(), [1.0; 8]);
    assert_eq!(lines(&["a", "a", "a"]).unwrap_err().code(), Code::Malformed);
    assert_eq!(lines(&["a"]).unwrap_err().code(), Code::Truncated);
    assert_eq!(lines(&["a", "b"]).unwrap_err().code(), Code::Io);
}
