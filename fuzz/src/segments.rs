//! Marker segments of JPEG 2000 and JPEG-LS: cut, changed, and put together with lengths that fit.

use crate::random::Random;

/// A family of codestreams.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// ITU-T T.800 and T.814.
    Jpeg2000,
    /// ITU-T T.87.
    JpegLs,
}

/// One marker segment, and the coded bytes behind it.
#[derive(Clone)]
pub struct Segment {
    /// The second byte of the marker.
    pub marker: u8,
    /// What its length counts, without the length.
    pub body: Vec<u8>,
    /// What follows SOD or SOS up to the next marker segment.
    pub coded: Vec<u8>,
}

impl Segment {
    /// A segment without coded bytes.
    pub fn new(marker: u8, body: &[u8]) -> Self {
        Self { marker, body: body.to_vec(), coded: Vec::new() }
    }
}

/// Starts a tile-part.
pub const SOT: u8 = 0x90;
/// Ends the header of a tile-part.
pub const SOD: u8 = 0x93;
/// Starts a scan.
pub const SOS: u8 = 0xDA;

/// Cuts a codestream behind its first marker; stops at what is no marker.
pub fn cut(family: Family, stream: &[u8]) -> Option<Vec<Segment>> {
    let start = if family == Family::Jpeg2000 { 0x4F } else { 0xD8 };
    let mut rest = stream.strip_prefix(&[0xFF, start])?;
    let mut segments = Vec::new();
    while let Some((&[0xFF, marker], after)) = rest.split_first_chunk::<2>() {
        if marker == 0xD9 {
            break;
        }
        let (body, after) = match (marker, after.split_first_chunk::<2>()) {
            (SOD, _) if family == Family::Jpeg2000 => (&[][..], after),
            (_, Some((length, _))) => {
                let length = usize::from(u16::from_be_bytes(*length)).clamp(2, after.len());
                (&after[2..length], &after[length..])
            }
            _ => break,
        };
        let n_coded = match (family, marker) {
            (Family::Jpeg2000, SOD) => find(after, |pair, next| pair == [0xFF, SOT] && next == [0, 10]),
            (Family::JpegLs, SOS) => {
                find(after, |pair, _| pair[0] == 0xFF && pair[1] >= 0x80 && !(0xD0..0xD8).contains(&pair[1]))
            }
            _ => 0,
        };
        let (coded, after) = after.split_at(n_coded);
        let coded = coded.strip_suffix(&[0xFF, 0xD9]).unwrap_or(coded).to_vec();
        segments.push(Segment { coded, ..Segment::new(marker, body) });
        rest = after;
    }
    (!segments.is_empty()).then_some(segments)
}

/// Finds the first place where the next two and the following two bytes are as wanted.
fn find(bytes: &[u8], is_wanted: impl Fn([u8; 2], [u8; 2]) -> bool) -> usize {
    let place = |at: &usize| {
        let byte = |offset| bytes.get(at + offset).copied().unwrap_or(0);
        is_wanted([byte(0), byte(1)], [byte(2), byte(3)])
    };
    (0..bytes.len()).find(place).unwrap_or(bytes.len())
}

/// Puts a codestream together; the lengths of tile-parts follow from what they hold.
pub fn join(family: Family, segments: &[Segment]) -> Vec<u8> {
    let is_2000 = family == Family::Jpeg2000;
    let mut out = vec![0xFF, if is_2000 { 0x4F } else { 0xD8 }];
    let mut part = None;
    for segment in segments {
        if is_2000 && segment.marker == SOT {
            let before = part.replace(out.len());
            end_part(&mut out, before);
        }
        out.extend_from_slice(&[0xFF, segment.marker]);
        if !is_2000 || segment.marker != SOD {
            let body = &segment.body[..segment.body.len().min(65_533)];
            out.extend_from_slice(&(body.len() as u16 + 2).to_be_bytes());
            out.extend_from_slice(body);
        }
        out.extend_from_slice(&segment.coded);
    }
    end_part(&mut out, part);
    out.extend_from_slice(&[0xFF, 0xD9]);
    out
}

/// Writes the length of the tile-part that began at `start`.
fn end_part(out: &mut [u8], start: Option<usize>) {
    let Some(start) = start else { return };
    let length = (out.len() - start) as u32;
    if let Some(field) = out.get_mut(start + 6..start + 10) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

/// Places and widths of the numbers in a segment's body.
fn fields(family: Family, segment: &Segment) -> Vec<(usize, usize)> {
    let n = segment.body.len();
    let rest = |from: usize, width: usize| (from..n).step_by(width).map(move |at| (at, width));
    let mut fields: Vec<(usize, usize)> = match (family, segment.marker) {
        (Family::Jpeg2000, 0x51) => (2..34).step_by(4).map(|at| (at, 4)).chain([(0, 2), (34, 2)]).collect(),
        (Family::Jpeg2000, 0x52) => vec![(0, 1), (1, 1), (2, 2), (4, 1)],
        (Family::Jpeg2000, SOT) => vec![(0, 2), (6, 1), (7, 1)],
        (Family::Jpeg2000, 0x5C) => vec![(0, 1)],
        (Family::JpegLs, 0xF7) => vec![(0, 1), (1, 2), (3, 2), (5, 1)],
        (Family::JpegLs, 0xDD) => vec![(0, n.min(4))],
        _ => Vec::new(),
    };
    match (family, segment.marker) {
        (Family::Jpeg2000, 0x51) => fields.extend(rest(36, 1)),
        (Family::Jpeg2000, 0x52) => fields.extend(rest(5, 1)),
        (Family::Jpeg2000, SOT) => {}
        (Family::Jpeg2000, 0x5C) => fields.extend(rest(1, 2)),
        (Family::JpegLs, 0xF7) => fields.extend(rest(6, 1)),
        (Family::JpegLs, 0xF8) => fields.extend([(0, 1)].into_iter().chain(rest(1, 2))),
        (Family::JpegLs, 0xDD) => {}
        _ => fields.extend(rest(0, 1)),
    }
    fields
}

/// Changes what every family of segments has: numbers, order, coded bytes.
pub fn change(family: Family, segments: &mut Vec<Segment>, random: &mut Random) {
    if segments.is_empty() {
        return;
    }
    let n = segments.len();
    let idx = random.below(n);
    match random.below(10) {
        0 => {
            let copy = segments[idx].clone();
            segments.insert(random.below(n + 1), copy);
        }
        1 if n > 1 => drop(segments.remove(idx)),
        2 => segments.swap(idx, random.below(n)),
        3 => random.scramble(&mut segments[idx].body),
        4 | 5 => {
            let coded = segments.iter_mut().filter(|segment| !segment.coded.is_empty());
            let mut coded: Vec<&mut Segment> = coded.collect();
            let chosen = random.below(coded.len());
            if let Some(segment) = coded.get_mut(chosen) {
                random.scramble(&mut segment.coded);
            }
        }
        _ => {
            let fields = fields(family, &segments[idx]);
            if !fields.is_empty() {
                let field = random.of(&fields);
                random.replace(&mut segments[idx].body, field);
            }
        }
    }
}
