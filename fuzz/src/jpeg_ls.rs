//! Changes JPEG-LS streams as segments, so that mutants reach the decoder.

use crate::random::Random;
use crate::segments::{Family, SOS, Segment, change, cut, join};

/// Changes a stream; `None` if it is none.
pub fn mutate(stream: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let mut segments = cut(Family::JpegLs, stream)?;
    for _ in 0..=random.below(3) {
        if random.once_in(3) {
            special(&mut segments, random);
        } else {
            change(Family::JpegLs, &mut segments, random);
        }
    }
    Some(join(Family::JpegLs, &segments))
}

fn special(segments: &mut Vec<Segment>, random: &mut Random) {
    match random.below(6) {
        0 => parameters(segments, random),
        1 => {
            let lines = random.number(4).to_be_bytes();
            let n = random.of(&[2, 3, 4]);
            segments.insert(random.below(segments.len()), Segment::new(0xDD, &lines[8 - n..]));
        }
        2 => components(segments, random),
        3 => {
            // A mapping table.
            let mut body = vec![random.of(&[2, 3]), random.byte() % 3, random.of(&[1, 2])];
            body.extend((0..random.below(20)).map(|i| i as u8));
            segments.insert(random.below(segments.len()), Segment::new(0xF8, &body));
        }
        4 => {
            let transform = random.below(4) as u8;
            segments.insert(random.below(segments.len()), Segment::new(0xE8, &[b"mrfx", &[transform][..]].concat()));
        }
        _ => {
            // Restart markers within a scan.
            if let Some(scan) = segments.iter_mut().find(|segment| segment.marker == SOS) {
                let place = random.below(scan.coded.len());
                let marker = [0xFF, 0xD0 + random.byte() % 8];
                scan.coded.splice(place..place, marker);
            }
        }
    }
}

/// Presets that keep the order that T.87 wants, mostly.
fn parameters(segments: &mut Vec<Segment>, random: &mut Random) {
    let largest = (1_u64 << (2 + random.below(15))) - 1;
    let mut numbers = [largest, 0, 0, 0, random.number(64)];
    for idx in 1..4 {
        numbers[idx] = match random.below(4) {
            0 => random.number(numbers[idx - 1]),
            _ => numbers[idx - 1] % (largest + 1) + random.below(8) as u64,
        };
    }
    if random.once_in(2) {
        numbers[1..4].sort_unstable();
    }
    let body = numbers.iter().flat_map(|number| (*number as u16).to_be_bytes());
    let body: Vec<u8> = [1].into_iter().chain(body).collect();
    segments.insert(random.below(segments.len()), Segment::new(0xF8, &body));
}

/// Another number of components, in the frame and its scans.
fn components(segments: &mut [Segment], random: &mut Random) {
    let n = random.of(&[1_u8, 2, 3, 3, 4, 5]);
    for segment in segments {
        if segment.marker == 0xF7 && segment.body.len() >= 6 {
            segment.body.truncate(5);
            segment.body.push(n);
            segment.body.extend((1..=n).flat_map(|id| [id, 0x11, 0]));
        }
        if segment.marker == SOS && segment.body.len() >= 4 {
            let near = segment.body[segment.body.len() - 3];
            let interleaving = if n == 1 { 0 } else { random.of(&[0, 1, 2]) };
            let in_scan = if interleaving == 0 { 1 } else { n };
            segment.body = vec![in_scan];
            segment.body.extend((1..=in_scan).flat_map(|id| [id, 0]));
            segment.body.extend([near, interleaving, 0]);
        }
    }
}
