//! The boxes of a JP2 or JPH file around its codestream: colours, palette, order of channels.
//!
//! # Source
//! ITU-T T.800 annex I.

use super::header::is_codestream;
use super::{FORMAT, damaged, unsupported};
use crate::error::{Error, Result};
use crate::reason::Code;

const SIGNATURE: &[u8] = b"\0\0\0\x0cjP  \r\n\x87\n";
/// Most channels of a picture.
const MAX_CHANNELS: usize = 64;

/// What three channels mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ColourSpace {
    /// Grey, sRGB, or nothing that is stated in numbers.
    Plain,
    /// Luma and two colour differences, full range.
    Sycc,
    /// The same in a wider range.
    Esycc,
    /// Inks.
    Cmyk,
}

/// Where the samples of one channel come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Channel {
    /// Index of the codestream's component.
    pub(crate) component: usize,
    /// Column of the palette that the component's samples look up.
    pub(crate) column: Option<usize>,
}

/// A table of colours.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Palette {
    /// Bits and sign of each column, as the file writes them.
    pub(crate) depths: Vec<u8>,
    /// Entries in rows, one value a column.
    pub(crate) entries: Vec<f32>,
}

/// The codestream of a file and what is said about its components.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Boxes<'a> {
    /// The codestream alone.
    pub(crate) codestream: &'a [u8],
    /// What the colours are.
    pub(crate) space: ColourSpace,
    /// The palette, where there is one.
    pub(crate) palette: Option<Palette>,
    /// From components to channels, where the file says it.
    mapping: Option<Vec<Channel>>,
    definitions: Vec<Definition>,
}

/// One entry of a channel definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Definition {
    channel: usize,
    is_colour: bool,
    /// 1 is the first colour; 0 and 65,535 are none.
    association: u16,
}

/// The channels of a picture in the order of its colours.
pub(crate) struct Channels {
    /// Colours.
    pub(crate) colours: Vec<Channel>,
    /// Whether there are others: opacity, or what no box explains.
    pub(crate) has_others: bool,
}

struct FileBox<'a> {
    name: [u8; 4],
    body: &'a [u8],
}

/// Returns true if `head` starts a JP2 or JPH file.
pub(crate) fn is_file(head: &[u8]) -> bool {
    head.starts_with(SIGNATURE)
}

impl<'a> Boxes<'a> {
    /// Finds the codestream of a file, or takes a bare one.
    ///
    /// # Errors
    /// `Malformed`, `Unsupported`.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self> {
        let mut found = Self {
            codestream: bytes,
            space: ColourSpace::Plain,
            palette: None,
            mapping: None,
            definitions: Vec::new(),
        };
        if is_codestream(bytes) {
            return Ok(found);
        }
        if !is_file(bytes) {
            return Err(damaged());
        }
        let mut rest = bytes;
        loop {
            let (next, behind) = split_box(rest)?;
            match &next.name {
                b"jp2c" if is_codestream(next.body) => {
                    found.codestream = next.body;
                    return Ok(found);
                }
                b"jp2c" => return Err(damaged()),
                b"jp2h" => found.header(next.body)?,
                _ => {}
            }
            rest = behind;
        }
    }

    fn header(&mut self, mut rest: &[u8]) -> Result<()> {
        let mut has_colour = false;
        while !rest.is_empty() {
            let (next, behind) = split_box(rest)?;
            match &next.name {
                // The first specification counts.
                b"colr" if !has_colour => {
                    self.space = colour_space(next.body);
                    has_colour = true;
                }
                b"pclr" => self.palette = Some(palette(next.body).ok_or_else(damaged)?),
                b"cmap" => self.mapping = Some(mapping(next.body)),
                b"cdef" => self.definitions = definitions(next.body).ok_or_else(damaged)?,
                _ => {}
            }
            rest = behind;
        }
        Ok(())
    }

    /// Sorts the channels of a codestream of `n_components`.
    ///
    /// # Errors
    /// `Malformed` for channels that do not exist; `Unsupported` for too many.
    pub(crate) fn channels(&self, n_components: usize) -> Result<Channels> {
        let plain = |component| Channel {
            component,
            column: None,
        };
        let channels = match (&self.palette, &self.mapping) {
            (Some(palette), None) if n_components == 1 => (0..palette.depths.len())
                .map(|column| Channel {
                    component: 0,
                    column: Some(column),
                })
                .collect(),
            (Some(_), Some(mapping)) => mapping.clone(),
            (Some(_), None) => return Err(damaged()),
            (None, _) => (0..n_components).map(plain).collect::<Vec<_>>(),
        };
        if channels.len() > MAX_CHANNELS {
            return Err(unsupported(format!("{} channels", channels.len())));
        }
        let n_columns = self.palette.as_ref().map_or(0, |p| p.depths.len());
        let exists = |c: &Channel| {
            c.component < n_components && c.column.is_none_or(|column| column < n_columns)
        };
        if !channels.iter().all(exists) {
            return Err(damaged());
        }
        self.sort(&channels)
    }

    fn sort(&self, channels: &[Channel]) -> Result<Channels> {
        if self.definitions.is_empty() {
            // Nothing is said: the second of two and the fourth of four are opacity.
            let n_colours = match channels.len() {
                2 => 1,
                4 if self.space != ColourSpace::Cmyk => 3,
                n => n,
            };
            return Ok(Channels {
                colours: channels.get(..n_colours).unwrap_or_default().to_vec(),
                has_others: n_colours < channels.len(),
            });
        }
        let mut colours: Vec<&Definition> =
            self.definitions.iter().filter(|d| d.is_colour).collect();
        colours.sort_by_key(|definition| definition.association);
        let colours: Option<Vec<Channel>> = colours
            .iter()
            .map(|definition| channels.get(definition.channel).copied())
            .collect();
        let colours = colours.filter(|c| !c.is_empty()).ok_or_else(damaged)?;
        Ok(Channels {
            has_others: colours.len() < channels.len(),
            colours,
        })
    }
}

/// Splits the first box off.
fn split_box(bytes: &[u8]) -> Result<(FileBox<'_>, &[u8])> {
    let missing = || {
        let found = "an end before the codestream";
        Error::refused(FORMAT, Code::Truncated, found, "a whole file")
    };
    let (length, behind) = bytes.split_first_chunk::<4>().ok_or_else(missing)?;
    let (&name, body) = behind.split_first_chunk::<4>().ok_or_else(missing)?;
    let (size, n_head) = match u32::from_be_bytes(*length) {
        // Up to the end of the file.
        0 => (bytes.len() as u64, 8),
        1 => {
            let long = body.first_chunk::<8>().ok_or_else(missing)?;
            (u64::from_be_bytes(*long), 16)
        }
        size => (size.into(), 8),
    };
    let size = usize::try_from(size).map_err(|_| missing())?;
    if size < n_head {
        return Err(damaged());
    }
    // The codestream may be cut: that is for the decoder to say.
    let end = if &name == b"jp2c" {
        size.min(bytes.len())
    } else {
        size
    };
    let body = bytes.get(n_head..end).ok_or_else(missing)?;
    Ok((FileBox { name, body }, bytes.get(end..).unwrap_or_default()))
}

/// An ICC profile (method 2) is not applied.
fn colour_space(body: &[u8]) -> ColourSpace {
    let number = body.get(3..).and_then(|rest| rest.first_chunk::<4>());
    match (body.first(), number.map(|raw| u32::from_be_bytes(*raw))) {
        (Some(1), Some(12)) => ColourSpace::Cmyk,
        (Some(1), Some(18)) => ColourSpace::Sycc,
        (Some(1), Some(24)) => ColourSpace::Esycc,
        _ => ColourSpace::Plain,
    }
}

fn palette(body: &[u8]) -> Option<Palette> {
    let (&[high, low, n_columns], rest) = body.split_first_chunk::<3>()?;
    let n_entries = usize::from(u16::from_be_bytes([high, low]));
    let (depths, mut values) = rest.split_at_checked(usize::from(n_columns))?;
    if !(1..=1024).contains(&n_entries) || depths.is_empty() {
        return None;
    }
    let mut entries = Vec::with_capacity(n_entries * depths.len());
    for _ in 0..n_entries {
        for depth in depths {
            let n_bits = (depth & 0x7F) + 1;
            // Signed and wide columns are refused where they are used.
            let (raw, behind) = values.split_at_checked(usize::from(n_bits.div_ceil(8)))?;
            let value = raw
                .iter()
                .fold(0_u32, |value, byte| value << 8 | u32::from(*byte));
            entries.push(value as f32);
            values = behind;
        }
    }
    Some(Palette {
        depths: depths.to_vec(),
        entries,
    })
}

fn mapping(body: &[u8]) -> Vec<Channel> {
    let (entries, _) = body.as_chunks::<4>();
    let channels = entries.iter().map(|&[high, low, kind, column]| Channel {
        component: usize::from(u16::from_be_bytes([high, low])),
        column: (kind == 1).then_some(usize::from(column)),
    });
    channels.collect()
}

fn definitions(body: &[u8]) -> Option<Vec<Definition>> {
    let (count, rest) = body.split_first_chunk::<2>()?;
    let (entries, _) = rest.as_chunks::<6>();
    let entries = entries.get(..usize::from(u16::from_be_bytes(*count)))?;
    let number = |high, low| u16::from_be_bytes([high, low]);
    let read = entries.iter().map(|&[c0, c1, t0, t1, a0, a1]| Definition {
        channel: number(c0, c1).into(),
        is_colour: number(t0, t1) == 0,
        association: number(a0, a1),
    });
    Some(read.collect())
}
