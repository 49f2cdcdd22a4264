use super::super::codestream;
use super::*;

/// The example of T.87 annex H.3: 4 x 4 samples of 8 bits.
const EXAMPLE: [i32; 16] = [
    0, 0, 90, 74, 68, 50, 43, 205, 64, 145, 145, 145, 100, 145, 145, 145,
];
const EXAMPLE_SCAN: [u8; 30] = [
    0xC0, 0x00, 0x00, 0x6C, 0x80, 0x20, 0x8E, 0x01, 0xC0, 0x00, 0x00, 0x57, 0x40, 0x00, 0x00, 0x6E,
    0xE6, 0x00, 0x00, 0x01, 0xBC, 0x18, 0x00, 0x00, 0x05, 0xD8, 0x00, 0x00, 0x91, 0x60,
];

fn example(extra: &[u8], scan_tail: [u8; 3], selector: u8) -> Vec<u8> {
    let mut stream = vec![0xFF, 0xD8];
    stream.extend_from_slice(&[0xFF, 0xF7, 0, 11, 8, 0, 4, 0, 4, 1, 1, 0x11, 0]);
    stream.extend_from_slice(extra);
    stream.extend_from_slice(&[0xFF, 0xDA, 0, 8, 1, 1, selector]);
    stream.extend_from_slice(&scan_tail);
    stream.extend_from_slice(&EXAMPLE_SCAN);
    stream.extend_from_slice(&[0xFF, 0xD9]);
    stream
}

fn read(stream: &[u8]) -> Result<Vec<i32>> {
    decode(stream, &codestream::jpeg(stream)?)
}

#[test]
fn the_example_of_the_standard_is_decoded() {
    let stream = example(&[], [0, 0, 0], 0);
    assert_eq!(read(&stream).unwrap(), EXAMPLE);
    // The end-of-image marker, and the padding behind it, may be missing or not.
    assert_eq!(read(&stream[..stream.len() - 2]).unwrap(), EXAMPLE);
    assert_eq!(
        read(&[stream.as_slice(), &[0, 0]].concat()).unwrap(),
        EXAMPLE
    );
}

#[test]
fn explicit_presets_equal_to_the_defaults_change_nothing() {
    let presets = [0xFF, 0xF8, 0, 13, 1, 0, 255, 0, 3, 0, 7, 0, 21, 0, 64];
    assert_eq!(read(&example(&presets, [0, 0, 0], 0)).unwrap(), EXAMPLE);
    let zeros = [0xFF, 0xF8, 0, 13, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(read(&example(&zeros, [0, 0, 0], 0)).unwrap(), EXAMPLE);
}

#[test]
fn a_stream_cut_anywhere_is_an_error_not_a_panic() {
    let stream = example(&[], [0, 0, 0], 0);
    for length in 0..stream.len() - 3 {
        assert!(read(&stream[..length]).is_err(), "{length}");
    }
}

#[test]
fn what_is_not_decoded_is_refused_by_name() {
    for (stream, word) in [
        (example(&[], [0, 0, 0], 1), "mapping table"),
        (example(&[], [0, 0, 1], 0), "point transform"),
        (
            example(&[0xFF, 0xE8, 0, 7, b'm', b'r', b'f', b'x', 1], [0, 0, 0], 0),
            "colour transform",
        ),
        (example(&[0xFF, 0xF8, 0, 3, 4], [0, 0, 0], 0), "LSE"),
        // T2 below T1, NEAR beyond half of the values, RESET below 3.
        (
            example(
                &[0xFF, 0xF8, 0, 13, 1, 0, 255, 0, 9, 0, 7, 0, 21, 0, 64],
                [0, 0, 0],
                0,
            ),
            "presets",
        ),
        (example(&[], [128, 0, 0], 0), "presets"),
        (
            example(
                &[0xFF, 0xF8, 0, 13, 1, 0, 255, 0, 3, 0, 7, 0, 21, 0, 1],
                [0, 0, 0],
                0,
            ),
            "presets",
        ),
    ] {
        let refused = read(&stream).unwrap_err().to_string();
        assert!(refused.contains(word), "{refused}");
    }
}

#[test]
fn damage_gives_samples_in_range_or_an_error() {
    let stream = example(&[], [0, 0, 0], 0);
    for at in 0..stream.len() {
        for flip in [1, 0x10, 0x80, 0xFF] {
            let mut damaged = stream.clone();
            damaged[at] ^= flip;
            let Ok(declared) = codestream::jpeg(&damaged) else {
                continue;
            };
            if declared.width > 4096 || declared.height > 4096 {
                continue;
            }
            if let Ok(samples) = decode(&damaged, &declared) {
                let largest = (1 << declared.precision) - 1;
                assert!(samples.iter().all(|v| (0..=largest).contains(v)), "{at}");
            }
        }
    }
}
