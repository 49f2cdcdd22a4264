//! The headers of a codestream, of every tile-part too: sides, samples, and how many tiles,
//! precincts and code-blocks a decoder has to build.

use super::{FORMAT, damaged, unsupported};
use crate::error::{Error, Result};

/// Most tiles of one codestream.
const MAX_TILES: u64 = 16_384;
/// Most components of one codestream; pictures have four, DICOM frames three.
const MAX_COMPONENTS: usize = 64;
/// Bits of a sample whose wavelet coefficients an f32 still holds exactly: 20, 3 for the wavelet's
/// gain and 1 for the colour transform.
pub(crate) const MAX_BITS: u8 = 20;
/// The block coder of part 15 hands over at most 16 bits.
const MAX_HIGH_THROUGHPUT_BITS: u8 = 16;
/// What the decoders keep of each tile and component, precinct, code-block, and block and layer.
const TILE_BYTES: u64 = 768;
const PRECINCT_BYTES: u64 = 256;
const BLOCK_BYTES: u64 = 320;
const LAYER_BYTES: u64 = 32;
/// What they keep of each precinct for each change of the progression, before the first packet is read.
const CHANGE_BYTES: u64 = 64;
/// Most changes of the progression in the main header, and in those of one tile; encoders write a few.
const MAX_CHANGES: u64 = 64;
/// Most bytes of the steps of one component: a style, and 2 bytes for each band. The decoders keep all that a segment
/// has, once for each tile and component.
const MAX_STEP_BYTES: usize = 1 + 2 * (3 * MAX_LEVELS as usize + 1);
/// Precincts of all tiles that are built without a look at the bytes there are.
const FREE_PRECINCTS: u64 = 1 << 24;
/// How far `Style::parts` may be above the number of packets of a layer: 2 an axis, and 3 bands.
const PARTS_A_PACKET: u64 = 12;
/// Most levels of the wavelet transform.
const MAX_LEVELS: u8 = 32;

const SIZ: u8 = 0x51;
const COD: u8 = 0x52;
const COC: u8 = 0x53;
const QCD: u8 = 0x5C;
const QCC: u8 = 0x5D;
const POC: u8 = 0x5F;
const SOT: u8 = 0x90;
const SOD: u8 = 0x93;
const EOC: u8 = 0xD9;
const CAP: u8 = 0x50;
/// Packet headers that lie apart from the packets.
const PPM: u8 = 0x60;
const PPT: u8 = 0x61;

/// How the samples of one component are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Component {
    /// Bits of one sample.
    pub(crate) precision: u8,
    /// Whether samples are signed.
    pub(crate) is_signed: bool,
    /// Columns and rows of the reference grid from one sample to the next.
    step: [u8; 2],
}

impl Component {
    /// What was added to a sample to make it unsigned.
    pub(super) fn offset(self) -> f32 {
        if self.is_signed { self.half() } else { 0.0 }
    }

    /// The least sample.
    pub(super) fn least(self) -> f32 {
        if self.is_signed { -self.half() } else { 0.0 }
    }

    /// The largest sample.
    pub(super) fn largest(self) -> f32 {
        2.0 * self.half() - 1.0 - self.offset()
    }

    fn half(self) -> f32 {
        f32::from(2_u8).powi(i32::from(self.precision) - 1)
    }
}

/// What a codestream declares.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Header {
    /// Columns.
    pub(crate) width: u32,
    /// Rows.
    pub(crate) height: u32,
    /// One a sample of a pixel.
    pub(crate) components: Vec<Component>,
    /// Whether blocks are coded by part 15.
    pub(crate) is_high_throughput: bool,
    /// Whether every transform is the reversible one.
    pub(crate) is_reversible: bool,
    /// Bytes that a decoder keeps for tiles, precincts, code-blocks and layers.
    pub(crate) structure_bytes: u64,
    n_tiles: u64,
    n_changes: u64,
    is_whole: bool,
    mixes_transforms: bool,
}

impl Header {
    /// Reads the main header and those of all tile-parts.
    ///
    /// # Errors
    /// `Malformed` without a SIZ or COD segment.
    pub(crate) fn read(codestream: &[u8]) -> Result<Self> {
        let mut walk = Walk::new(codestream)?;
        while let Some(segment) = walk.next_segment() {
            walk.take(&segment)?;
        }
        walk.into_header()
    }

    /// Returns the number of samples of one component.
    pub(crate) fn n_pixels(&self) -> usize {
        self.width as usize * self.height as usize
    }

    /// Refuses what the decoders cannot give exactly.
    ///
    /// # Errors
    /// `Unsupported`, `LimitExceeded`.
    pub(super) fn check(&self) -> Result<()> {
        if self.n_tiles > MAX_TILES {
            return Err(Error::LimitExceeded {
                what: "tiles of a JPEG 2000 codestream",
                allowed: MAX_TILES,
                asked: self.n_tiles,
            });
        }
        if self.n_changes > MAX_CHANGES {
            return Err(Error::LimitExceeded {
                what: "progression changes of a JPEG 2000 tile",
                allowed: MAX_CHANGES,
                asked: self.n_changes,
            });
        }
        let Some(&first) = self.components.first() else {
            return Err(damaged());
        };
        if !self.is_whole {
            return Err(damaged());
        }
        if self.components.iter().any(|c| c.step != [1, 1]) {
            return Err(unsupported("components of different sides"));
        }
        let most = if self.is_high_throughput {
            MAX_HIGH_THROUGHPUT_BITS
        } else {
            MAX_BITS
        };
        if let Some(wide) = self.components.iter().find(|c| c.precision > most) {
            return Err(unsupported(format!("{} bits a sample", wide.precision)));
        }
        let is_usual = matches!(self.components.len(), 1 | 3 | 4)
            && self.components.iter().all(|c| *c == first);
        if self.is_high_throughput && !is_usual {
            return Err(unsupported(
                "HTJ2K of other than 1, 3 or 4 equal components",
            ));
        }
        if self.mixes_transforms {
            return Err(unsupported("tiles with transforms of their own"));
        }
        Ok(())
    }
}

/// Returns true if `bytes` start a codestream.
pub(crate) fn is_codestream(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xFF, 0x4F, 0xFF, SIZ])
}

/// Returns true for a stream, perhaps cut, whose main header says that it turns its first three
/// components into RGB on decoding.
pub(crate) fn states_colour_transform(codestream: &[u8]) -> bool {
    let Ok(mut walk) = Walk::new(codestream) else {
        return false;
    };
    while let Some(segment) = walk.next_segment() {
        match segment.marker {
            COD => return segment.body.get(4) == Some(&1),
            SOT => return false,
            _ => {}
        }
    }
    false
}

struct Segment<'a> {
    marker: u8,
    body: &'a [u8],
}

/// The coding style of a component: the part of COD and COC that decides what is built.
#[derive(Debug, Clone, PartialEq)]
struct Style {
    n_levels: u8,
    /// Exponents of a code-block's sides.
    block: [u32; 2],
    is_high_throughput: bool,
    is_reversible: bool,
    /// Exponents of a precinct's sides, one pair a resolution; empty for the largest.
    precincts: Vec<u8>,
}

impl Style {
    /// Reads the parameters behind the fixed part of COD or COC.
    fn read(body: &[u8], has_precincts: bool) -> Option<Self> {
        let (&[n_levels, wide, high, style, transform], rest) = body.split_first_chunk::<5>()?;
        // A block's sides are 4 to 1,024, its area at most 4,096.
        let block = [wide, high].map(|exponent| u32::from(exponent & 15) + 2);
        if n_levels > MAX_LEVELS || block.iter().sum::<u32>() > 12 {
            return None;
        }
        let precincts = if has_precincts {
            rest.get(..usize::from(n_levels) + 1)?.to_vec()
        } else {
            Vec::new()
        };
        Some(Self {
            n_levels,
            block,
            is_high_throughput: style & 0x40 != 0,
            is_reversible: transform == 1,
            precincts,
        })
    }

    /// Returns the exponents of a precinct's sides at a resolution.
    fn precinct(&self, resolution: u8) -> [u32; 2] {
        let pair = self.precincts.get(usize::from(resolution)).copied();
        let pair = u32::from(pair.unwrap_or(0xFF));
        [pair & 15, pair >> 4]
    }

    /// Bounds what one tile of `sides` samples of one component is divided into.
    fn parts(&self, sides: [u64; 2]) -> Parts {
        let mut parts = Parts::default();
        for resolution in 0..=self.n_levels {
            let level = self.n_levels - resolution;
            let n_bands = if resolution == 0 { 1 } else { 3 };
            // A band of a resolution above the lowest has half its sides.
            let halved = u32::from(resolution > 0);
            let mut n_precincts = 1_u64;
            let mut n_blocks = 1_u64;
            let axes = sides
                .into_iter()
                .zip(self.precinct(resolution))
                .zip(self.block);
            for ((side, exponent), block) in axes {
                let band = side.div_ceil(1 << (u32::from(level) + halved).min(63));
                let in_band = exponent.saturating_sub(halved);
                // Each precinct may begin and end within a block.
                let along = band.div_ceil(1 << in_band).saturating_add(1);
                let block = block.min(in_band);
                let blocks = band.div_ceil(1 << block).saturating_add(along);
                n_precincts = n_precincts.saturating_mul(along);
                n_blocks = n_blocks.saturating_mul(blocks);
            }
            parts.n_precincts = parts
                .n_precincts
                .saturating_add(n_precincts.saturating_mul(n_bands));
            parts.n_blocks = parts
                .n_blocks
                .saturating_add(n_blocks.saturating_mul(n_bands));
        }
        parts
    }
}

/// How many pieces a tile of one component has.
#[derive(Debug, Clone, Copy, Default)]
struct Parts {
    n_precincts: u64,
    n_blocks: u64,
}

impl Parts {
    fn n_bytes(self, n_layers: u64) -> u64 {
        let of_block = BLOCK_BYTES.saturating_add(n_layers.saturating_mul(LAYER_BYTES));
        let precincts = self.n_precincts.saturating_mul(PRECINCT_BYTES);
        precincts.saturating_add(self.n_blocks.saturating_mul(of_block))
    }
}

struct Walk<'a> {
    /// What follows the last segment.
    rest: &'a [u8],
    /// What follows the current tile-part, once in one.
    behind: &'a [u8],
    is_in_tile: bool,
    /// The tile of the current tile-part.
    tile: usize,
    /// Bytes of packets of each tile.
    tile_bytes: Vec<u64>,
    /// Changes of the progression in the headers of each tile, and the most of the main header or any of them.
    tile_changes: Vec<u64>,
    main_changes: u64,
    most_changes: u64,
    n_bytes: u64,
    has_packed_headers: bool,
    least_layers: u64,
    sides: [u32; 2],
    components: Vec<Component>,
    tile_sides: [u64; 2],
    n_tiles: u64,
    main: Option<Style>,
    is_high_throughput: bool,
    is_reversible: bool,
    has_colour_transform: bool,
    mixes_transforms: bool,
    n_layers: u64,
    /// The most pieces of one tile of one component by any style in the stream.
    most: Parts,
}

impl<'a> Walk<'a> {
    fn new(codestream: &'a [u8]) -> Result<Self> {
        if !is_codestream(codestream) {
            let wanted = "one at the start of the codestream";
            return Err(Error::malformed(FORMAT, "no SIZ segment", wanted));
        }
        let rest = codestream.get(2..).unwrap_or_default();
        // The end marker belongs to no tile.
        let padded = rest.strip_suffix(&[0]).unwrap_or(rest);
        let rest = padded.strip_suffix(&[0xFF, EOC]).unwrap_or(rest);
        let mut walk = Self {
            rest,
            behind: &[],
            is_in_tile: false,
            tile: 0,
            tile_bytes: Vec::new(),
            tile_changes: Vec::new(),
            main_changes: 0,
            most_changes: 0,
            n_bytes: codestream.len() as u64,
            has_packed_headers: false,
            least_layers: u64::MAX,
            sides: [0, 0],
            components: Vec::new(),
            tile_sides: [0, 0],
            n_tiles: 0,
            main: None,
            is_high_throughput: false,
            is_reversible: true,
            has_colour_transform: false,
            mixes_transforms: false,
            n_layers: 1,
            most: Parts::default(),
        };
        let segment = walk.next_segment().ok_or_else(damaged)?;
        walk.size(segment.body)?;
        Ok(walk)
    }

    /// Splits the next segment off; bodies of tile-parts are jumped over.
    fn next_segment(&mut self) -> Option<Segment<'a>> {
        loop {
            let (&[first, marker], rest) = self.rest.split_first_chunk::<2>()?;
            if first != 0xFF {
                return None;
            }
            if marker == SOD {
                // Taken, so that no stream leads back to the same place.
                let behind = std::mem::take(&mut self.behind);
                let n_bytes = rest.len().saturating_sub(behind.len()) as u64;
                if let Some(total) = self.tile_bytes.get_mut(self.tile) {
                    *total = total.saturating_add(n_bytes);
                }
                self.rest = behind;
                continue;
            }
            let (length, _) = rest.split_first_chunk::<2>()?;
            let n_bytes = usize::from(u16::from_be_bytes(*length)).max(2);
            let body = rest.get(2..n_bytes)?;
            if marker == SOT {
                self.start_tile_part(body)?;
            }
            self.rest = rest.get(n_bytes..)?;
            return Some(Segment { marker, body });
        }
    }

    /// Notes where the tile-part ends that `self.rest` starts.
    fn start_tile_part(&mut self, body: &[u8]) -> Option<()> {
        let length = body.get(2..)?.first_chunk::<4>()?;
        let length = u32::from_be_bytes(*length) as usize;
        self.is_in_tile = true;
        self.tile = u16::from_be_bytes(*body.first_chunk()?).into();
        // 0 is the last tile-part, up to the end.
        self.behind = if length == 0 {
            &[]
        } else {
            self.rest.get(length.max(12)..).unwrap_or_default()
        };
        Some(())
    }

    fn take(&mut self, segment: &Segment<'_>) -> Result<()> {
        match segment.marker {
            // A second size would be another image than the one that was charged.
            SIZ => return Err(damaged()),
            CAP => self.is_high_throughput = true,
            PPM | PPT => self.has_packed_headers = true,
            COD => self.style(segment.body).ok_or_else(damaged)?,
            COC => self.component_style(segment.body).ok_or_else(damaged)?,
            QCD if segment.body.len() > MAX_STEP_BYTES => return Err(damaged()),
            QCC if segment.body.len() > MAX_STEP_BYTES + 2 => return Err(damaged()),
            POC => self.changes(segment.body),
            _ => {}
        }
        Ok(())
    }

    fn size(&mut self, body: &[u8]) -> Result<()> {
        let (fixed, components) = body.split_first_chunk::<36>().ok_or_else(damaged)?;
        let (numbers, _) = fixed.get(2..34).unwrap_or_default().as_chunks::<4>();
        let numbers: Vec<u32> = numbers.iter().map(|raw| u32::from_be_bytes(*raw)).collect();
        let &[x1, y1, x0, y0, tile_width, tile_height, tile_x, tile_y] = numbers.as_slice() else {
            return Err(damaged());
        };
        let n_components = usize::from(u16::from_be_bytes([fixed[34], fixed[35]]));
        if n_components > MAX_COMPONENTS {
            return Err(unsupported(format!("{n_components} components")));
        }
        let (components, _) = components.as_chunks::<3>();
        let components = components.get(..n_components).ok_or_else(damaged)?;
        self.components = components
            .iter()
            .map(|&[depth, x, y]| Component {
                precision: (depth & 0x7F) + 1,
                is_signed: depth & 0x80 != 0,
                step: [x, y],
            })
            .collect();
        self.n_tiles = 1;
        let axes = [(x0, x1, tile_x, tile_width), (y0, y1, tile_y, tile_height)];
        let sides = self.sides.iter_mut().zip(&mut self.tile_sides);
        for ((start, end, tile_start, tile), (side, tile_side)) in axes.into_iter().zip(sides) {
            // The first tile holds a part of the image.
            let holds =
                tile_start <= start && u64::from(tile_start) + u64::from(tile) > start.into();
            if end <= start || !holds {
                return Err(damaged());
            }
            *side = end - start;
            *tile_side = u64::from(tile.min(end - start));
            self.n_tiles *= u64::from(end - tile_start).div_ceil(tile.into());
        }
        let n_listed = usize::try_from(self.n_tiles.min(MAX_TILES)).unwrap_or(0);
        self.tile_bytes = vec![0; n_listed];
        self.tile_changes = vec![0; n_listed];
        Ok(())
    }

    /// COD: the style of all components.
    fn style(&mut self, body: &[u8]) -> Option<()> {
        let (&[scod, _, layers_high, layers_low, transform], rest) = body.split_first_chunk()?;
        let style = Style::read(rest, scod & 1 != 0)?;
        let layers = u16::from_be_bytes([layers_high, layers_low]);
        self.n_layers = self.n_layers.max(layers.into());
        self.least_layers = self.least_layers.min(layers.into());
        let transforms_colours = transform == 1;
        if self.is_in_tile {
            self.mixes_transforms |= transforms_colours != self.has_colour_transform;
        } else {
            self.has_colour_transform = transforms_colours;
        }
        self.add(&style);
        if !self.is_in_tile {
            self.main = Some(style);
        }
        Some(())
    }

    /// POC: changes of the progression.
    fn changes(&mut self, body: &[u8]) {
        let n_change = if self.components.len() < 257 { 7 } else { 9 };
        let n = (body.len() / n_change) as u64;
        let total = match self.tile_changes.get_mut(self.tile) {
            Some(of_tile) if self.is_in_tile => of_tile,
            _ => &mut self.main_changes,
        };
        *total = total.saturating_add(n);
        self.most_changes = self.most_changes.max(*total);
    }

    /// COC: the style of one component.
    fn component_style(&mut self, body: &[u8]) -> Option<()> {
        let n_index = if self.components.len() < 257 { 1 } else { 2 };
        let (&scoc, rest) = body.get(n_index..)?.split_first()?;
        let style = Style::read(rest, scoc & 1 != 0)?;
        self.add(&style);
        Some(())
    }

    fn add(&mut self, style: &Style) {
        if let Some(main) = self.main.as_ref().filter(|_| self.is_in_tile) {
            self.mixes_transforms |= main.is_reversible != style.is_reversible;
        }
        self.is_high_throughput |= style.is_high_throughput;
        self.is_reversible &= style.is_reversible;
        let parts = style.parts(self.tile_sides);
        self.most = Parts {
            n_precincts: self.most.n_precincts.max(parts.n_precincts),
            n_blocks: self.most.n_blocks.max(parts.n_blocks),
        };
    }

    fn into_header(self) -> Result<Header> {
        if self.main.is_none() {
            return Err(damaged());
        }
        // A packet takes at least a byte, and each component has one in each layer.
        let least = self.components.len() as u64 * self.least_layers;
        let has_all = self.has_packed_headers || self.tile_bytes.iter().all(|n| *n >= least);
        let n_components = self.components.len() as u64;
        // Tiles are listed all at once, and built one after the other with all their components.
        let tiles = self.n_tiles.saturating_mul(n_components);
        let precincts = self.most.n_precincts.saturating_mul(n_components);
        let all_precincts = precincts.saturating_mul(self.n_tiles);
        let is_whole = has_all
            && (all_precincts <= FREE_PRECINCTS || all_precincts / PARTS_A_PACKET <= self.n_bytes);
        let changes = precincts.saturating_mul(self.most_changes.saturating_mul(CHANGE_BYTES));
        let one = self
            .most
            .n_bytes(self.n_layers)
            .saturating_mul(n_components)
            .saturating_add(changes);
        Ok(Header {
            width: self.sides[0],
            height: self.sides[1],
            components: self.components,
            is_high_throughput: self.is_high_throughput,
            is_reversible: self.is_reversible,
            structure_bytes: tiles.saturating_mul(TILE_BYTES).saturating_add(one),
            n_tiles: self.n_tiles,
            n_changes: self.most_changes,
            is_whole,
            mixes_transforms: self.mixes_transforms,
        })
    }
}
