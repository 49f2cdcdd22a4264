//! numpy's `.npy`: [n, width] of f16, f32 or f64, little-endian.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};

use super::Vectors;

/// Longest header that is read.
const MAX_HEADER_BYTES: usize = 1 << 16;
/// Bytes that are read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// The shape of an array, and where its numbers begin.
struct Shape {
    n_rows: usize,
    width: usize,
    /// Bytes of a number.
    n_bytes: usize,
    /// Bytes in front of the numbers.
    n_start: usize,
}

/// Returns the number of vectors that an array declares.
pub(super) fn n_rows(path: &Path) -> anyhow::Result<usize> {
    let mut file = BufReader::new(File::open(path)?);
    Ok(read_header(&mut file)?.n_rows)
}

fn read_header(file: &mut impl Read) -> anyhow::Result<Shape> {
    let mut start = [0; 10];
    file.read_exact(&mut start)
        .context("found no numpy array")?;
    ensure!(
        start.starts_with(b"\x93NUMPY"),
        "found no numpy array; .npy is wanted"
    );
    let mut n_start = start.len();
    let n_header = if start[6] == 1 {
        usize::from(u16::from_le_bytes([start[8], start[9]]))
    } else {
        let mut more = [0; 2];
        file.read_exact(&mut more)?;
        n_start += more.len();
        u32::from_le_bytes([start[8], start[9], more[0], more[1]]) as usize
    };
    ensure!(
        n_header <= MAX_HEADER_BYTES,
        "found a header of {n_header} bytes"
    );
    let mut header = vec![0; n_header];
    file.read_exact(&mut header)?;
    let header = String::from_utf8_lossy(&header);
    let (n_bytes, [n_rows, width]) = parse(&header)?;
    Ok(Shape {
        n_rows,
        width,
        n_bytes,
        n_start: n_start + n_header,
    })
}

/// Reads an array of vectors.
pub(super) fn read(path: &Path) -> anyhow::Result<Vectors> {
    let file = File::open(path)?;
    let n_file = file.metadata()?.len();
    let mut file = BufReader::with_capacity(CHUNK_BYTES, file);
    let Shape {
        n_rows,
        width,
        n_bytes,
        n_start,
    } = read_header(&mut file)?;
    let n_values = n_rows
        .checked_mul(width)
        .filter(|n| n.checked_mul(8).is_some());
    let n_values = n_values.with_context(|| format!("found {n_rows} x {width} numbers"))?;
    let n_left = n_file.saturating_sub(n_start as u64);
    ensure!(
        n_left == (n_values * n_bytes) as u64,
        "found {n_left} bytes of numbers, and {n_rows} x {width} of {n_bytes} bytes are declared"
    );
    let mut values = Vec::new();
    values
        .try_reserve_exact(n_values)
        .context("the vectors do not fit memory")?;
    let mut bytes = vec![0; CHUNK_BYTES];
    let mut n_left = n_values * n_bytes;
    while n_left > 0 {
        let n = n_left.min(CHUNK_BYTES);
        file.read_exact(&mut bytes[..n])?;
        append(&bytes[..n], n_bytes, &mut values);
        n_left -= n;
    }
    Ok(Vectors { values, width })
}

/// Returns what stands before the numbers of an array of f32, [n, width].
pub(super) fn header(n_rows: usize, width: usize) -> anyhow::Result<Vec<u8>> {
    let dict =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({n_rows}, {width}), }}");
    // Magic, version and length take 10 bytes, the line feed 1; numbers begin at a multiple of 64.
    let n_padding = (64 - (dict.len() + 11) % 64) % 64;
    let n_header = u16::try_from(dict.len() + n_padding + 1)?;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(n_header.to_le_bytes());
    bytes.extend(format!("{dict}{:n_padding$}\n", "").as_bytes());
    Ok(bytes)
}

/// Appends numbers of 2, 4 or 8 bytes.
pub(super) fn append(bytes: &[u8], n_bytes: usize, values: &mut Vec<f32>) {
    #[expect(clippy::cast_possible_truncation, reason = "the gallery stores f32")]
    match n_bytes {
        2 => values.extend(
            bytes
                .as_chunks()
                .0
                .iter()
                .map(|&b| half(u16::from_le_bytes(b))),
        ),
        4 => values.extend(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
        _ => values.extend(
            bytes
                .as_chunks()
                .0
                .iter()
                .map(|&b| f64::from_le_bytes(b) as f32),
        ),
    }
}

/// Converts the bits of an f16.
fn half(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let (exponent, fraction) = (u32::from(bits >> 10 & 0x1f), u32::from(bits & 0x3ff));
    match exponent {
        // Multiples of 2^-24.
        0 => {
            let small = f32::from(bits & 0x3ff) / 16_777_216.0;
            f32::from_bits(small.to_bits() | sign)
        }
        31 => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

/// Reads the bytes of a number and the shape out of a header, which is a Python dictionary.
fn parse(header: &str) -> anyhow::Result<(usize, [usize; 2])> {
    let after = |name: &str| header.split_once(name).map(|(_, rest)| rest.trim_start());
    let kind = after("'descr':").and_then(|rest| rest.split('\'').nth(1));
    let n_bytes = match kind {
        Some("<f2") => 2,
        Some("<f4") => 4,
        Some("<f8") => 8,
        other => bail!(
            "found numbers of type {}; f2, f4 or f8, little-endian, are wanted",
            other.unwrap_or("unknown")
        ),
    };
    let is_c_order = after("'fortran_order':").is_some_and(|rest| rest.starts_with("False"));
    ensure!(
        is_c_order,
        "found an array in Fortran order; save numpy.ascontiguousarray of it"
    );
    let shape = after("'shape':").and_then(|rest| rest.strip_prefix('(')?.split(')').next());
    let shape = shape.unwrap_or_default();
    let sides = shape
        .split(',')
        .map(str::trim)
        .filter(|side| !side.is_empty());
    let sides: Vec<Option<usize>> = sides.map(|side| side.parse().ok()).collect();
    match sides[..] {
        [Some(n_rows), Some(width)] if width > 0 => Ok((n_bytes, [n_rows, width])),
        _ => bail!("found an array of shape ({shape}); [rows, width] is wanted"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(descr: &str, shape: &str, numbers: &[u8]) -> Vec<u8> {
        let header =
            format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(numbers);
        bytes
    }

    fn read_bytes(bytes: &[u8]) -> anyhow::Result<Vectors> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        std::fs::write(&path, bytes).unwrap();
        read(&path)
    }

    #[test]
    fn numbers_of_every_width_are_read() {
        let wanted = [1.0, -0.5, 65504.0, 0.0];
        let halves = [0x3c00_u16, 0xb800, 0x7bff, 0]
            .map(u16::to_le_bytes)
            .concat();
        let singles = wanted.map(f32::to_le_bytes).concat();
        let doubles = wanted.map(|x| f64::from(x).to_le_bytes()).concat();
        for (descr, numbers) in [("<f2", halves), ("<f4", singles), ("<f8", doubles)] {
            let read = read_bytes(&file(descr, "(2, 2)", &numbers)).unwrap();
            assert_eq!((read.values.as_slice(), read.width), (&wanted[..], 2));
        }
        assert_eq!(half(0x0001).to_bits(), (1.0_f32 / 16_777_216.0).to_bits());
        assert!(half(0x7e00).is_nan() && half(0xfc00) == f32::NEG_INFINITY);
    }

    #[test]
    fn arrays_that_are_no_vectors_are_refused() {
        for (bytes, wanted) in [
            (file("<f4", "(2, 2)", &[0; 15]), "15 bytes"),
            (file("<i4", "(1, 1)", &[0; 4]), "type <i4"),
            (file("<f4", "(4,)", &[0; 16]), "shape"),
            (file("<f4", "(1, 0)", &[]), "shape"),
            (
                file("<f4", "(99999999999, 99999999999)", &[]),
                "99999999999",
            ),
            (b"PK".to_vec(), "no numpy array"),
        ] {
            let error = format!("{:#}", read_bytes(&bytes).unwrap_err());
            assert!(error.contains(wanted), "{error}");
        }
    }
}
