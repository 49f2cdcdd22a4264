//! The splitter of bodies: what comes out does not depend on how a body is cut into pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use m3ret_dicomnet::multipart::{Event, Fault, Splitter, part_kind, part_name};

/// The headers and bytes of parts, and what is wrong with the body.
type Parts = (Vec<(Vec<u8>, Vec<u8>)>, Result<(), Fault>);

fn split(body: &[u8], n_bytes: usize) -> Parts {
    let mut parts: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let Ok(mut splitter) = Splitter::new(b"multipart/related; boundary=ab") else {
        return (parts, Err(Fault::NoBoundary));
    };
    for piece in body.chunks(n_bytes) {
        let events = match splitter.push(piece) {
            Ok(events) => events,
            Err(fault) => return (Vec::new(), Err(fault)),
        };
        for event in events {
            match event {
                Event::Begin(headers) => {
                    let _ = (part_name(&headers), part_kind(&headers));
                    parts.push((headers, Vec::new()));
                }
                Event::Bytes(bytes) => {
                    if let Some((_, all)) = parts.last_mut() {
                        all.extend(bytes);
                    }
                }
                Event::End => {}
            }
        }
    }
    let outcome = splitter.finish();
    // Of a body that is cut, how much came out depends on the pieces.
    match outcome {
        Ok(()) => (parts, outcome),
        Err(_) => (Vec::new(), outcome),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let whole = split(bytes, bytes.len().max(1));
    for n_bytes in [1, 3, 7] {
        assert_eq!(split(bytes, n_bytes), whole);
    }
    let _ = Splitter::new(bytes);
});
