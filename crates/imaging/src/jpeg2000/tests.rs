use super::*;
use crate::reason::Code;

/// Sides, tiles and coding style of a stream without data.
struct Stream {
    sides: [u32; 2],
    tile: [u32; 2],
    n_components: u16,
    n_layers: u16,
    n_levels: u8,
    /// Exponents of the sides of blocks, less 2.
    block: [u8; 2],
    precincts: Option<u8>,
    style: u8,
}

const PLAIN: Stream = Stream {
    sides: [64, 64],
    tile: [64, 64],
    n_components: 1,
    n_layers: 1,
    n_levels: 2,
    block: [4, 4],
    precincts: None,
    style: 0,
};

impl Stream {
    fn cod(&self) -> Vec<u8> {
        let [wide, high] = self.block;
        let n_sizes = usize::from(self.n_levels) + 1;
        let sizes = self
            .precincts
            .map_or(Vec::new(), |size| vec![size; n_sizes]);
        let layers = self.n_layers.to_be_bytes();
        let mut body = vec![
            u8::from(self.precincts.is_some()),
            0,
            layers[0],
            layers[1],
            0,
        ];
        body.extend([self.n_levels, wide, high, self.style, 1]);
        body.extend(sizes);
        segment(0x52, &body)
    }

    fn siz(&self) -> Vec<u8> {
        let mut body = vec![0, 0];
        let numbers = [self.sides, [0, 0], self.tile, [0, 0]].concat();
        body.extend(numbers.into_iter().flat_map(u32::to_be_bytes));
        body.extend(self.n_components.to_be_bytes());
        body.extend([7, 1, 1].repeat(usize::from(self.n_components)));
        segment(0x51, &body)
    }

    fn bytes(&self) -> Vec<u8> {
        self.with_tile_header(&[])
    }

    fn with_tile_header(&self, extra: &[u8]) -> Vec<u8> {
        let mut stream = vec![0xFF, 0x4F];
        stream.extend(self.siz());
        stream.extend(self.cod());
        // QCD: no quantisation, one guard bit.
        let n_bands = 3 * usize::from(self.n_levels) + 1;
        stream.extend(segment(0x5C, &[vec![0x20], vec![0x48; n_bands]].concat()));
        let n_packets = (usize::from(self.n_levels) + 1) * usize::from(self.n_components);
        let n_tiles = [0, 1].map(|axis| self.sides[axis].div_ceil(self.tile[axis]));
        for tile in 0..n_tiles[0] * n_tiles[1] {
            let index = u16::try_from(tile).unwrap().to_be_bytes();
            let length = u32::try_from(12 + extra.len() + 2 + n_packets)
                .unwrap()
                .to_be_bytes();
            let body = [&index[..], &length, &[0, 1]].concat();
            stream.extend(segment(0x90, &body));
            stream.extend_from_slice(extra);
            stream.extend([0xFF, 0x93]);
            // One empty packet a resolution and component.
            stream.extend(vec![0; n_packets]);
        }
        stream.extend([0xFF, 0xD9]);
        stream
    }
}

fn segment(marker: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len() + 2).unwrap().to_be_bytes();
    [&[0xFF, marker], &length[..], body].concat()
}

fn read(stream: &[u8]) -> Result<Vec<Vec<f32>>> {
    decode(stream, &Header::read(stream)?, &Limits::default())
}

fn code(stream: &[u8]) -> Code {
    read(stream).unwrap_err().code()
}

#[test]
fn what_a_stream_makes_a_decoder_build_is_charged_before_it_is_built() {
    let one_by_one = |side| Stream {
        sides: [side; 2],
        tile: [side; 2],
        precincts: Some(0),
        block: [0, 0],
        ..PLAIN
    };
    assert_eq!(code(&one_by_one(2000).bytes()), Code::LimitExceeded);
    assert_eq!(code(&one_by_one(8000).bytes()), Code::LimitExceeded);
    let layers = Stream {
        sides: [2000; 2],
        tile: [2000; 2],
        n_layers: 65_535,
        ..PLAIN
    };
    assert_eq!(code(&layers.bytes()), Code::LimitExceeded);
    // The same where only one tile's own header asks for it, or one component's.
    let tile = Stream {
        tile: [2000; 2],
        sides: [2000; 2],
        ..PLAIN
    };
    assert_eq!(
        code(&tile.with_tile_header(&one_by_one(2000).cod())),
        Code::LimitExceeded
    );
    let of_component = segment(0x53, &[0, 1, 2, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(
        code(&tile.with_tile_header(&of_component)),
        Code::LimitExceeded
    );
    let tiles = Stream {
        tile: [1, 1],
        sides: [200, 200],
        ..PLAIN
    };
    assert_eq!(code(&tiles.bytes()), Code::LimitExceeded);
}

/// A stream with further segments in its main header.
fn with_main_header(stream: &Stream, extra: &[u8]) -> Vec<u8> {
    let bytes = stream.bytes();
    let tile = bytes.windows(2).position(|w| w == [0xFF, 0x90]).unwrap();
    [&bytes[..tile], extra, &bytes[tile..]].concat()
}

#[test]
fn changes_of_the_progression_are_charged_for_the_precincts_they_list() {
    // By position: a decoder lists all precincts for each change before it reads a packet.
    let changes = |n: usize| segment(0x5F, &[0, 0, 0, 1, 33, 0, 3].repeat(n));
    let small = Stream {
        sides: [128; 2],
        tile: [128; 2],
        precincts: Some(0x11),
        ..PLAIN
    };
    assert!(read(&with_main_header(&small, &changes(4))).is_ok());
    let many = with_main_header(&small, &changes(9000));
    let in_parts = with_main_header(&small, &changes(10).repeat(10));
    let of_tile = small.with_tile_header(&changes(9000));
    for bomb in [many, in_parts, of_tile] {
        assert_eq!(code(&bomb), Code::LimitExceeded);
    }
    let large = Stream {
        sides: [160; 2],
        tile: [160; 2],
        ..small
    };
    assert!(read(&large.bytes()).is_ok());
    let listed = with_main_header(&large, &changes(64));
    assert_eq!(code(&listed), Code::LimitExceeded);
}

#[test]
fn more_steps_than_bands_are_damage() {
    // A decoder would keep them once for each tile and component.
    for (marker, body) in [(0x5C, vec![0x20; 60_000]), (0x5D, vec![0; 200])] {
        let extra = segment(marker, &body);
        assert_eq!(code(&with_main_header(&PLAIN, &extra)), Code::Malformed);
        assert_eq!(code(&PLAIN.with_tile_header(&extra)), Code::Malformed);
    }
}

#[test]
fn precincts_of_all_tiles_need_bytes_for_their_packets() {
    let stream = Stream {
        sides: [8192; 2],
        tile: [128; 2],
        precincts: Some(0x11),
        block: [0, 0],
        n_levels: 1,
        ..PLAIN
    };
    assert_eq!(code(&stream.bytes()), Code::Malformed);
}

#[test]
fn an_image_of_empty_packets_is_grey_and_cheap() {
    for side in [64, 1000] {
        let stream = Stream {
            sides: [side; 2],
            tile: [side; 2],
            ..PLAIN
        }
        .bytes();
        let header = Header::read(&stream).unwrap();
        assert!(
            header.structure_bytes < 1 << 20,
            "{}",
            header.structure_bytes
        );
        // Nothing was coded: the middle of the range.
        let planes = read(&stream).unwrap();
        assert_eq!(planes, [vec![128.0; (side * side) as usize]]);
    }
}

#[test]
fn styles_that_would_be_read_wrongly_are_refused() {
    let with_colours = [0, 0, 0, 1, 1, 2, 4, 4, 0, 1];
    assert_eq!(
        code(&PLAIN.with_tile_header(&segment(0x52, &with_colours))),
        Code::Unsupported
    );
    let irreversible = [0, 0, 0, 1, 0, 2, 4, 4, 0, 0];
    assert_eq!(
        code(&PLAIN.with_tile_header(&segment(0x52, &irreversible))),
        Code::Unsupported
    );
    let second_size = PLAIN.with_tile_header(&PLAIN.siz());
    assert_eq!(code(&second_size), Code::Malformed);
}

#[test]
fn every_tile_must_be_there() {
    let stream = Stream {
        tile: [32, 32],
        ..PLAIN
    }
    .bytes();
    let last = stream.windows(2).rposition(|w| w == [0xFF, 0x90]).unwrap();
    let cut = [&stream[..last], &[0xFF, 0xD9]].concat();
    assert_eq!(code(&cut), Code::Malformed);
}

#[test]
fn no_damage_of_a_header_makes_the_walk_long_or_panic() {
    let stream = Stream {
        tile: [32, 32],
        ..PLAIN
    }
    .bytes();
    for at in 0..stream.len() {
        for value in [0, 1, 0x4F, 0x52, 0x90, 0x93, 0xD9, 0xFF] {
            let mut damaged = stream.clone();
            damaged[at] = value;
            if let Ok(header) = Header::read(&damaged) {
                let n = u64::from(header.width) * u64::from(header.height);
                if n < 1 << 20 {
                    let _ = decode(&damaged, &header, &Limits::default());
                }
            }
        }
    }
    for length in 0..stream.len() {
        let _ = Header::read(&stream[..length]);
    }
}
