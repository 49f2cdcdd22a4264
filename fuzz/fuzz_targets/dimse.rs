//! Command sets: no panic, and what is accepted survives write-then-read; heads of DICOM objects: no panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use m3ret_dicomnet::dimse::Command;
use m3ret_dicomnet::part10::read_ids;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(command) = Command::parse(bytes) {
        assert_eq!(Command::parse(&command.write()).ok(), Some(command.clone()));
        let answer = command.answer(0);
        assert_eq!(Command::parse(&answer.write()).ok(), Some(answer));
    }
    let _ = read_ids(bytes);
});
