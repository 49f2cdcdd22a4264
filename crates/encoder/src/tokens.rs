//! Patches: volumes cut into the rows of a matrix, and back.

use crate::error::{Error, Result};

/// Splits one volume into non-overlapping patches, in (z, y, x) order.
///
/// A 2D image (D = 1) is repeated along D to one depth patch.
///
/// # Shapes
/// `values` [C, D, H, W] -> [N, P]; N = (D/pd)(H/ph)(W/pw), P = pd*ph*pw*C, channel fastest.
/// # Errors
/// `Mismatch` if a side is not a multiple of the patch side, or `values` has another length.
/// # Source
/// He et al. 2022, `patchify`. Differs: rectangular and 3D patches, D = 1 repeated.
pub fn patchify(values: &[f32], shape: [usize; 4], patch: [usize; 3]) -> Result<Vec<f32>> {
    let grid = grid_of(shape, patch)?;
    let [channels, depth, height, width] = shape;
    check_len(values.len(), channels * depth * height * width)?;
    let [pd, ph, pw] = patch;
    let [gz, gy, gx] = grid;
    let mut patches = Vec::with_capacity(gz * gy * gx * pd * ph * pw * channels);
    for (z, y, x) in cells(grid) {
        for dz in 0..pd {
            let plane = if depth == 1 { 0 } else { z * pd + dz };
            for dy in 0..ph {
                let row = (plane * height + y * ph + dy) * width + x * pw;
                for column in row..row + pw {
                    let per_channel = depth * height * width;
                    patches.extend((0..channels).map(|c| values[c * per_channel + column]));
                }
            }
        }
    }
    Ok(patches)
}

/// Puts patches back together; the inverse of `patchify`, except that a 2D image comes back with
/// the depth of one patch.
///
/// # Shapes
/// `patches` [N, P] of the given grid -> [C, D, H, W].
/// # Errors
/// `Mismatch` if `patches` has another length.
pub fn unpatchify(
    patches: &[f32],
    grid: [usize; 3],
    patch: [usize; 3],
    channels: usize,
) -> Result<Vec<f32>> {
    let [pd, ph, pw] = patch;
    let [gz, gy, gx] = grid;
    let (depth, height, width) = (gz * pd, gy * ph, gx * pw);
    check_len(patches.len(), depth * height * width * channels)?;
    let mut values = vec![0.0; patches.len()];
    let mut source = patches.iter();
    for (z, y, x) in cells(grid) {
        for dz in 0..pd {
            for dy in 0..ph {
                let row = ((z * pd + dz) * height + y * ph + dy) * width + x * pw;
                for column in row..row + pw {
                    for (c, value) in (0..channels).zip(source.by_ref()) {
                        values[c * depth * height * width + column] = *value;
                    }
                }
            }
        }
    }
    Ok(values)
}

/// Returns the grid `[n_z, n_y, n_x]` of patches of a volume `[C, D, H, W]`.
///
/// # Errors
/// `Mismatch` if a side is 0 or not a multiple of the patch side; D = 1 always fits.
pub fn grid_of(shape: [usize; 4], patch: [usize; 3]) -> Result<[usize; 3]> {
    let [_, depth, height, width] = shape;
    let [pd, ph, pw] = patch;
    let fits = |side: usize, patch: usize| side > 0 && patch > 0 && side.is_multiple_of(patch);
    if (depth == 1 || fits(depth, pd)) && fits(height, ph) && fits(width, pw) {
        return Ok([depth.div_ceil(pd), height / ph, width / pw]);
    }
    Err(Error::mismatch(
        "sides of the input",
        format!("multiples of {pd} (or 1) x {ph} x {pw}"),
        format!("{depth} x {height} x {width}"),
    ))
}

/// Lists the cells of a grid in (z, y, x) order, x fastest.
fn cells([gz, gy, gx]: [usize; 3]) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..gz).flat_map(move |z| (0..gy).flat_map(move |y| (0..gx).map(move |x| (z, y, x))))
}

fn check_len(got: usize, expected: usize) -> Result<()> {
    if got == expected {
        return Ok(());
    }
    Err(Error::mismatch(
        "number of values",
        expected.to_string(),
        got.to_string(),
    ))
}
