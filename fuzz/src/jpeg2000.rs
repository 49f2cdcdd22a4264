//! Changes JPEG 2000 files as boxes and segments, so that mutants reach the decoders.

use crate::random::Random;
use crate::segments::{Family, SOD, SOT, Segment, change, cut, join};

const SIZ: u8 = 0x51;
const COD: u8 = 0x52;
const QCD: u8 = 0x5C;
/// Boxes that readers know.
const KINDS: [&[u8; 4]; 14] = [
    b"jP  ", b"ftyp", b"jp2h", b"ihdr", b"bpcc", b"colr", b"pclr", b"cmap", b"cdef", b"res ", b"jp2c", b"uuid",
    b"jpch", b"jplh",
];

/// One box of a file; some hold boxes.
#[derive(Clone)]
struct Item {
    kind: [u8; 4],
    content: Content,
}

#[derive(Clone)]
enum Content {
    Bytes(Vec<u8>),
    Items(Vec<Item>),
}

/// Changes a file or a codestream; `None` if it is neither.
pub fn mutate(bytes: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    if bytes.starts_with(&[0xFF, 0x4F]) {
        return codestream(bytes, random);
    }
    let mut items = items_of(bytes)?;
    for _ in 0..=random.below(2) {
        change_items(&mut items, random);
    }
    let mut out = Vec::new();
    put(&items, random.once_in(20), &mut out);
    Some(out)
}

fn items_of(bytes: &[u8]) -> Option<Vec<Item>> {
    let mut items = Vec::new();
    let mut rest = bytes;
    while let Some((&[a, b, c, d, kind @ ..], _)) = rest.split_first_chunk::<8>() {
        let length = match u32::from_be_bytes([a, b, c, d]) as usize {
            0 => rest.len(),
            length => length.clamp(8, rest.len()),
        };
        let (whole, after) = rest.split_at(length);
        let holds = matches!(&kind, b"jp2h" | b"res " | b"jpch" | b"jplh");
        let inner = if holds { items_of(&whole[8..]) } else { None };
        let content = inner.map_or_else(|| Content::Bytes(whole[8..].to_vec()), Content::Items);
        items.push(Item { kind, content });
        rest = after;
    }
    (!items.is_empty()).then_some(items)
}

fn put(items: &[Item], is_wide: bool, out: &mut Vec<u8>) {
    for item in items {
        let start = out.len();
        out.extend_from_slice(&[0, 0, 0, 1]);
        out.extend_from_slice(&item.kind);
        if is_wide {
            out.extend_from_slice(&[0; 8]);
        }
        match &item.content {
            Content::Bytes(bytes) => out.extend_from_slice(bytes),
            Content::Items(items) => put(items, is_wide, out),
        }
        let length = (out.len() - start) as u64;
        if is_wide {
            out[start + 8..start + 16].copy_from_slice(&length.to_be_bytes());
        } else {
            out[start..start + 4].copy_from_slice(&(length as u32).to_be_bytes());
        }
    }
}

fn change_items(items: &mut Vec<Item>, random: &mut Random) {
    let idx = random.below(items.len());
    match random.below(12) {
        0 => items.insert(random.below(items.len() + 1), items[idx].clone()),
        1 if items.len() > 1 => drop(items.remove(idx)),
        2 => {
            let other = random.below(items.len());
            items.swap(idx, other);
        }
        3 => items[idx].kind = *random.of(&KINDS),
        4 => items.push(new_item(random)),
        _ => match &mut items[idx] {
            Item { content: Content::Items(inner), .. } => change_items(inner, random),
            Item { kind: [b'j', b'p', b'2', b'c'], content: Content::Bytes(bytes) } => {
                if let Some(changed) = codestream(bytes, random) {
                    *bytes = changed;
                }
            }
            Item { content: Content::Bytes(bytes), .. } if random.once_in(3) => random.scramble(bytes),
            Item { content: Content::Bytes(bytes), .. } => {
                let field = (random.below(bytes.len()), random.of(&[1, 1, 2, 4]));
                random.replace(bytes, field);
            }
        },
    }
}

/// A palette, a mapping or channels with numbers that may fit.
fn new_item(random: &mut Random) -> Item {
    let n = 1 + random.below(4);
    let (kind, bytes): (&[u8; 4], Vec<u8>) = match random.below(3) {
        0 => {
            let n_entries = random.of(&[1_u16, 2, 16, 256, 1024]);
            let mut bytes = [&n_entries.to_be_bytes()[..], &[n as u8]].concat();
            let depth = random.of(&[7_u8, 7, 15, 0x87]);
            bytes.extend(vec![depth; n]);
            let width = if depth == 15 { 2 } else { 1 };
            bytes.extend((0..usize::from(n_entries) * n * width).map(|i| i as u8));
            (b"pclr", bytes)
        }
        1 => (b"cmap", (0..n).flat_map(|i| [0, random.byte() % 3, random.byte() % 2, i as u8]).collect()),
        _ => {
            let entry = |i: usize| [0, i as u8, 0, random.byte() % 3, 0, random.byte() % 5];
            let entries: Vec<u8> = (0..n).flat_map(entry).collect();
            (b"cdef", [&[0, n as u8], &entries[..]].concat())
        }
    };
    Item { kind: *kind, content: Content::Bytes(bytes) }
}

fn codestream(stream: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let mut segments = cut(Family::Jpeg2000, stream)?;
    for _ in 0..=random.below(3) {
        match random.below(14) {
            0 => levels(&mut segments, random),
            1 => components(&mut segments, random),
            2 => tiles(&mut segments, random),
            3 => split_part(&mut segments, random),
            4 => precincts(&mut segments, random),
            5 => insert(&mut segments, random),
            6 => blocks(&mut segments, random),
            _ => change(Family::Jpeg2000, &mut segments, random),
        }
    }
    let mut out = join(Family::Jpeg2000, &segments);
    if random.once_in(16) {
        // A wrong length of a tile-part.
        let places = out.array_windows().enumerate().filter(|(_, four)| *four == &[0xFF, SOT, 0, 10]);
        let places: Vec<usize> = places.map(|(at, _)| at + 6).collect();
        if !places.is_empty() {
            let place = random.of(&places);
            random.replace(&mut out, (place, 4));
        }
    }
    Some(out)
}

fn body_of(segments: &mut [Segment], marker: u8) -> Option<&mut Vec<u8>> {
    let found = segments.iter_mut().find(|segment| segment.marker == marker);
    found.map(|segment| &mut segment.body)
}

/// Another number of levels, with as many precincts and steps.
fn levels(segments: &mut [Segment], random: &mut Random) {
    let n = if random.once_in(4) { random.below(33) } else { random.below(8) };
    let Some(style) = body_of(segments, COD).filter(|style| style.len() >= 10) else {
        return;
    };
    style[5] = n as u8;
    if style[0] & 1 == 1 {
        style.resize(10 + n + 1, 0x77);
    }
    if let Some(steps) = body_of(segments, QCD).filter(|steps| !steps.is_empty()) {
        let n_bytes = match steps[0] & 31 {
            0 => 3 * n + 1,
            1 => 2,
            _ => 2 * (3 * n + 1),
        };
        let last = steps.last().copied().unwrap_or(0x48);
        steps.resize(1 + n_bytes, last);
    }
}

/// Another number of components that are like the first.
fn components(segments: &mut [Segment], random: &mut Random) {
    let n = random.of(&[1, 2, 3, 3, 4, 5, 16, 64, 65]);
    if let Some(size) = body_of(segments, SIZ).filter(|size| size.len() >= 39) {
        let first = [size[36], size[37], size[38]];
        size.truncate(34);
        size.extend([0, n]);
        size.extend((0..n).flat_map(|_| first));
        if random.once_in(4) {
            let field = 36 + random.below(3 * usize::from(n));
            random.replace(size, (field, 1));
        }
    }
    if let Some(transform) = body_of(segments, COD).and_then(|style| style.get_mut(4)) {
        *transform = u8::from(n >= 3 && random.once_in(2));
    }
}

/// Divides the image into tiles, and repeats the first tile-part for each.
fn tiles(segments: &mut Vec<Segment>, random: &mut Random) {
    let Some(size) = body_of(segments, SIZ).filter(|size| size.len() >= 34) else {
        return;
    };
    let read = |size: &[u8], at: usize| u32::from_be_bytes([size[at], size[at + 1], size[at + 2], size[at + 3]]);
    let mut n_tiles = 1;
    for axis in [0, 4] {
        let (end, start) = (read(size, 2 + axis), read(size, 26 + axis));
        let n = 1 + random.below(6) as u32;
        let side = end.saturating_sub(start).div_ceil(n).max(1);
        size[18 + axis..22 + axis].copy_from_slice(&side.to_be_bytes());
        n_tiles *= end.saturating_sub(start).div_ceil(side).max(1);
    }
    let Some(first) = segments.iter().position(|segment| segment.marker == SOT) else {
        return;
    };
    let behind = segments[first + 1..].iter().position(|segment| segment.marker == SOT);
    let n_part = behind.map_or(segments.len() - first, |n| n + 1);
    let part = segments[first..first + n_part].to_vec();
    segments.truncate(first);
    for tile in 0..n_tiles.min(64) as u16 {
        let mut part = part.clone();
        if let Some(field) = part[0].body.get_mut(..2) {
            field.copy_from_slice(&tile.to_be_bytes());
        }
        segments.extend(part);
    }
}

/// Splits a tile-part into two.
fn split_part(segments: &mut Vec<Segment>, random: &mut Random) {
    let data = segments.iter().enumerate().filter(|(_, segment)| segment.marker == SOD);
    let data: Vec<usize> = data.map(|(idx, _)| idx).collect();
    let Some(&idx) = data.get(random.below(data.len())) else {
        return;
    };
    let start = segments[..idx].iter().rposition(|segment| segment.marker == SOT);
    let Some(mut next) = start.map(|start| segments[start].clone()) else {
        return;
    };
    let at = random.below(segments[idx].coded.len());
    let tail = segments[idx].coded.split_off(at);
    if let Some(number) = next.body.get_mut(6) {
        *number = number.wrapping_add(1);
    }
    let place = if random.once_in(3) { segments.len() } else { idx + 1 };
    segments.splice(place..place, [next, Segment { coded: tail, ..Segment::new(SOD, &[]) }]);
}

/// Precincts of their own for each resolution.
fn precincts(segments: &mut [Segment], random: &mut Random) {
    if let Some(style) = body_of(segments, COD).filter(|style| style.len() >= 10) {
        style[0] |= 1;
        style.truncate(10);
        let usual = random.byte();
        for _ in 0..=style[5] {
            style.push(if random.once_in(3) { random.byte() } else { usual });
        }
    }
}

/// Sides and style of code-blocks, the transform, the order and the layers.
fn blocks(segments: &mut [Segment], random: &mut Random) {
    if let Some(style) = body_of(segments, COD).filter(|style| style.len() >= 10) {
        style[6] = random.below(9) as u8;
        style[7] = random.below(9).min(8 - usize::from(style[6]).min(8)) as u8;
        style[1] = random.below(6) as u8;
        if random.once_in(3) {
            style[8] = random.byte() & 0x7F;
        }
        if random.once_in(3) {
            style[9] ^= 1;
        }
        if random.once_in(3) {
            random.replace(style, (2, 2));
        }
    }
}

/// Adds a segment that overrides or describes others.
fn insert(segments: &mut Vec<Segment>, random: &mut Random) {
    let mut copy = |marker: u8| body_of(segments, marker).cloned().unwrap_or_default();
    let (style, steps) = (copy(COD), copy(QCD));
    let component = random.byte() % 4;
    let of_style = style.get(5..).unwrap_or_default();
    let new = match random.below(9) {
        0 => Segment::new(0x53, &[&[component, style.first().copied().unwrap_or(0) & 1], of_style].concat()),
        1 => Segment::new(0x5D, &[&[component], &steps[..]].concat()),
        2 => Segment::new(0x5E, &[component, 0, random.byte() % 40]),
        3 => {
            let order = [random.byte() % 6, 0, 0, random.byte() % 9, random.byte() % 9, 1 + random.byte() % 4];
            Segment::new(0x5F, &[order[0], order[1], 0, order[3], order[4], order[5], random.byte() % 6])
        }
        4 => Segment::new(0x58, &[0, random.byte(), random.byte()]),
        5 => Segment::new(0x55, &[0, 0x50, 0, 0, 0, 0, 0, random.byte()]),
        6 => Segment::new(random.of(&[0x60, 0x61]), &[0, random.byte(), random.byte(), random.byte()]),
        7 => Segment::new(0x50, &[0, 2, 0, 0, random.byte(), random.byte()]),
        _ => Segment::new(COD, &style),
    };
    let place = 1 + random.below(segments.len());
    segments.insert(place.min(segments.len()), new);
}
