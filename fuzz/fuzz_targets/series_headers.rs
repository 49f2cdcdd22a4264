//! A folder of slices whose headers are the input's: where they lie, and what may tell them apart.

#![no_main]

use std::collections::HashSet;

use m3ret_fuzz::dicom::{file, text};
use m3ret_fuzz::input::Input;
use m3ret_imaging::archive::{find_objects, read_object};

/// Attributes that may divide a series, as text.
const ATTRIBUTES: [(u16, u16, &str); 11] = [
    (0x08, 0x08, "CS"),
    (0x18, 0x81, "DS"),
    (0x18, 0x86, "IS"),
    (0x18, 0x1060, "DS"),
    (0x18, 0x1210, "SH"),
    (0x18, 0x1314, "DS"),
    (0x20, 0x12, "IS"),
    (0x20, 0x100, "IS"),
    (0x08, 0x32, "TM"),
    (0x54, 0x1300, "DS"),
    (0x20, 0x13, "IS"),
];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let n_files = 2 + input.byte() % 14;
    let stated = u16::from(input.byte()) | u16::from(input.byte()) << 8;
    for number in 0..n_files {
        let file = slice(stated, &mut input);
        std::fs::write(folder.path().join(format!("{number:02}")), file).expect("a writable folder");
    }
    let options = m3ret_fuzz::options();
    let Ok((objects, skipped)) = find_objects(folder.path(), &options) else {
        return;
    };
    // No file is lost, and none is in two objects.
    let mut seen = HashSet::new();
    let files = objects.iter().flat_map(|object| &object.files);
    for path in files.chain(skipped.iter().map(|file| &file.path)) {
        assert!(seen.insert(path.clone()), "{path:?} twice");
    }
    assert_eq!(seen.len(), usize::from(n_files));
    let mut names = HashSet::new();
    for object in &objects {
        assert!(names.insert((&object.path, &object.part)), "{:?}", object.part);
        for volume in read_object(object, &options).ok().into_iter().flatten() {
            m3ret_fuzz::check(&volume);
            assert!(volume.shape()[1] <= object.files.len());
        }
    }
});

fn slice(stated: u16, input: &mut Input<'_>) -> Vec<u8> {
    let mut elements = vec![
        text(0x20, 0x0D, "UI", "1.2"),
        text(0x20, 0x0E, "UI", input.of(&["1.3", "1.3", "1.3", "1.4", ""])),
        text(0x10, 0x20, "LO", input.of(&["a", "a", "a", "b"])),
        text(0x20, 0x37, "DS", "1\\0\\0\\0\\1\\0"),
        text(0x28, 0x30, "DS", "1\\1"),
        text(0x20, 0x32, "DS", &format!("0\\0\\{}", input.decimal())),
    ];
    for (place, (group, element, vr)) in ATTRIBUTES.into_iter().enumerate() {
        if stated >> place & 1 == 1 {
            elements.push(text(group, element, vr, &input.decimal()));
        }
    }
    file(elements, 1, input)
}
