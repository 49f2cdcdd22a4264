use std::io::Write as _;

use super::*;

/// One member as a writer puts it.
struct Written {
    name: Vec<u8>,
    bytes: Vec<u8>,
    method: u16,
}

fn member(name: &str, bytes: &[u8], method: u16) -> Written {
    Written {
        name: name.as_bytes().to_vec(),
        bytes: bytes.to_vec(),
        method,
    }
}

fn packed(member: &Written) -> Vec<u8> {
    if member.method != 8 {
        return member.bytes.clone();
    }
    let level = flate2::Compression::default();
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), level);
    encoder.write_all(&member.bytes).unwrap();
    encoder.finish().unwrap()
}

/// Writes an archive; with `is_wide`, every number of the list and its end lies in 64 bits.
fn archive(members: &[Written], is_wide: bool) -> Vec<u8> {
    let short = |n: usize| u16::try_from(n).unwrap().to_le_bytes();
    let long = |n: usize| u32::try_from(n).unwrap().to_le_bytes();
    let (mut file, mut list) = (Vec::new(), Vec::new());
    for member in members {
        let stored = packed(member);
        let mut checksum = Crc::new();
        checksum.update(&member.bytes);
        let at = file.len();
        let common = [
            &20_u16.to_le_bytes()[..],
            &[0, 0],
            &member.method.to_le_bytes(),
            &[0; 4],
            &checksum.sum().to_le_bytes(),
        ]
        .concat();
        file.extend([b"PK\x03\x04", &common[..]].concat());
        file.extend([long(stored.len()), long(member.bytes.len())].concat());
        file.extend([short(member.name.len()), short(3)].concat());
        // An extra field of the local header alone moves the bytes behind it.
        file.extend([&member.name, &b"xyz"[..], &stored].concat());
        list.extend([b"PK\x01\x02", &[20, 0][..], &common].concat());
        let mut extra = Vec::new();
        if is_wide {
            extra.extend([short(1), short(24)].concat());
            for number in [member.bytes.len(), stored.len(), at] {
                extra.extend((number as u64).to_le_bytes());
            }
            list.extend([0xff; 8]);
        } else {
            list.extend([long(stored.len()), long(member.bytes.len())].concat());
        }
        list.extend([short(member.name.len()), short(extra.len()), short(0)].concat());
        list.extend([0; 8]);
        list.extend(if is_wide { [0xff; 4] } else { long(at) });
        list.extend([&member.name[..], &extra].concat());
    }
    let list_at = file.len();
    file.extend(&list);
    if is_wide {
        let record_at = file.len();
        file.extend(b"PK\x06\x06");
        file.extend([0; 20]);
        for number in [members.len(), members.len(), list.len(), list_at] {
            file.extend((number as u64).to_le_bytes());
        }
        file.extend(b"PK\x06\x07\0\0\0\0");
        file.extend((record_at as u64).to_le_bytes());
        file.extend([1, 0, 0, 0]);
        file.extend([b"PK\x05\x06", &[0; 4][..], &[0xff; 12], &[0, 0]].concat());
    } else {
        file.extend([b"PK\x05\x06", &[0; 4][..]].concat());
        file.extend([short(members.len()), short(members.len())].concat());
        file.extend([long(list.len()), long(list_at)].concat());
        file.extend([0, 0]);
    }
    file
}

fn saved(bytes: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    file
}

fn open(bytes: &[u8]) -> Result<Zip> {
    Zip::open(saved(bytes).path(), &Limits::default())
}

/// Reads every member of an archive.
fn read_all(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
    let file = saved(bytes);
    let zip = Zip::open(file.path(), &Limits::default())?;
    let read = |name: &Path| {
        let mut member = Vec::new();
        zip.whole_into(&mut member, name, &Limits::default())?;
        Ok((name.to_string_lossy().into_owned(), member))
    };
    zip.names().map(read).collect()
}

fn sound() -> Vec<Written> {
    vec![
        member("a/", b"", 0),
        member("a/stored.bin", b"stored as it is", 0),
        member("b.bin", &[7; 5000], 8),
    ]
}

#[test]
fn members_are_listed_without_folders_and_read_whole_or_in_part() {
    for is_wide in [false, true] {
        let bytes = archive(&sound(), is_wide);
        let wanted = [
            ("a/stored.bin".to_owned(), b"stored as it is".to_vec()),
            ("b.bin".to_owned(), vec![7; 5000]),
        ];
        assert_eq!(read_all(&bytes).unwrap(), wanted, "{is_wide}");
        let file = saved(&bytes);
        let zip = Zip::open(file.path(), &Limits::default()).unwrap();
        assert_eq!(zip.prefix("b.bin".as_ref(), 12).unwrap(), [7; 12]);
        assert_eq!(zip.size("b.bin".as_ref()).unwrap(), 5000);
        assert_eq!(zip.prefix("c".as_ref(), 1).unwrap_err().code(), Code::Io);
    }
}

#[test]
fn a_comment_that_holds_the_end_record_is_passed_over() {
    let mut bytes = archive(&sound(), false);
    let at = bytes.len() - 2;
    let comment = b"PK\x05\x06 and more words than the record is long";
    bytes[at..].copy_from_slice(&u16::try_from(comment.len()).unwrap().to_le_bytes());
    bytes.extend(comment);
    assert_eq!(read_all(&bytes).unwrap().len(), 2);
}

#[test]
fn an_archive_cut_anywhere_is_truncated() {
    for is_wide in [false, true] {
        let bytes = archive(&sound(), is_wide);
        for end in 0..bytes.len() {
            let refused = open(&bytes[..end]).unwrap_err();
            assert_eq!(refused.code(), Code::Truncated, "{end}");
        }
    }
}

#[test]
fn a_changed_byte_is_refused_or_changes_no_member() {
    for is_wide in [false, true] {
        let bytes = archive(&sound(), is_wide);
        let wanted = read_all(&bytes).unwrap();
        for at in 0..bytes.len() {
            for flip in [1, 0x80] {
                let mut changed = bytes.clone();
                changed[at] ^= flip;
                if let Ok(found) = read_all(&changed) {
                    let contents = |all: &[(String, Vec<u8>)]| {
                        all.iter()
                            .map(|(_, bytes)| bytes.clone())
                            .collect::<Vec<_>>()
                    };
                    let is_subset = contents(&found)
                        .iter()
                        .all(|f| f.is_empty() || contents(&wanted).contains(f));
                    assert!(is_subset, "byte {at}");
                }
            }
        }
    }
}

#[test]
fn what_members_give_is_bounded() {
    let bomb = archive(&[member("x", &vec![0; 1 << 20], 8)], false);
    let limits = Limits {
        ratio_free_bytes: 1000,
        max_decompression_ratio: 10,
        ..Limits::default()
    };
    let file = saved(&bomb);
    let refused = Zip::open(file.path(), &limits).unwrap_err();
    assert_eq!(refused.code(), Code::LimitExceeded);
    // The list may lie about the size: no more than it says is read, and it is no match.
    let mut lie = bomb.clone();
    let at = lie.windows(4).position(|raw| raw == b"PK\x01\x02").unwrap();
    lie[at + 24..at + 28].copy_from_slice(&100_u32.to_le_bytes());
    assert_eq!(read_all(&lie).unwrap_err().code(), Code::Malformed);
    let many: Vec<Written> = (0..20).map(|n| member(&format!("{n}"), b"", 0)).collect();
    let few = Limits {
        max_parts: 19,
        ..Limits::default()
    };
    let file = saved(&archive(&many, false));
    assert_eq!(
        Zip::open(file.path(), &few).unwrap_err().code(),
        Code::LimitExceeded
    );
}

#[test]
fn names_stay_apart_and_lead_nowhere() {
    let names = |written: &[&[u8]]| {
        let members: Vec<Written> = written
            .iter()
            .map(|name| Written {
                name: name.to_vec(),
                bytes: Vec::new(),
                method: 0,
            })
            .collect();
        let zip = open(&archive(&members, false))?;
        let text = |name: &Path| name.to_string_lossy().into_owned();
        Ok::<_, Error>(zip.names().map(text).collect::<Vec<_>>())
    };
    let found = names(&[b"../../up", b"/etc/passwd", b"C:\\x\\y", b"\xe4", b"\xf6"]).unwrap();
    assert_eq!(found, ["C:/x/y", "etc/passwd", "up", "\u{e4}", "\u{f6}"]);
    for pair in [[&b"a"[..], b"a"], [b"a", b"./a"]] {
        assert_eq!(names(&pair).unwrap_err().code(), Code::Malformed);
    }
}

#[test]
fn encrypted_members_and_other_methods_are_refused_by_name() {
    for method in [9, 12, 14, 93, 95, 98] {
        let bytes = archive(&[member("x", b"abc", method)], false);
        assert_eq!(
            read_all(&bytes).unwrap_err().code(),
            Code::Unsupported,
            "{method}"
        );
    }
    let mut locked = archive(&[member("x", b"abc", 0)], false);
    let at = locked
        .windows(4)
        .position(|raw| raw == b"PK\x01\x02")
        .unwrap();
    locked[at + 8] |= 1;
    let refused = read_all(&locked).unwrap_err().to_string();
    assert!(refused.contains("encrypted"), "{refused}");
}
