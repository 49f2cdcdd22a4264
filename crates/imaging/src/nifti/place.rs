//! Where NIfTI's voxels lie: sform, qform, pixdim and their units, as nibabel ranks them.

use crate::error::{Error, Result};
use crate::geometry::Affine;
use crate::reason::{Code, Reason};
use crate::volume::Kind;

use super::header::{Header, Version};
use super::{FORMAT, Grid};

/// Geometry of every part of a file.
pub(super) struct Place {
    pub(super) affine: Option<Affine>,
    /// D, H, W.
    pub(super) spacing: [Option<f64>; 3],
    pub(super) reasons: Vec<Reason>,
}

/// Finds the affine and the spacing.
///
/// The affine is the sform if its code is set, else the qform if its code is set, else nothing:
/// a file without either says nothing about left and right, and keeps its storage order.
///
/// # Errors
/// `Malformed` with `bad_geometry` for a volume whose every stated transform is singular.
pub(super) fn place(header: &Header, grid: &Grid) -> Result<Place> {
    let mut reasons = Vec::new();
    let affine = best_affine(header, grid.kind, &mut reasons)?;
    let mm = mm_per_unit(header.units);
    let [_, pixel_x, pixel_y, pixel_z, pixel_t, ..] = header.pixdim;
    // A negative pixdim means its size; 0 and NaN mean nothing.
    let stated = [pixel_z, pixel_y, pixel_x]
        .map(|size| Some(size.abs() * mm).filter(|size| size.is_finite() && *size > 0.0));
    let mut spacing = stated;
    if let Some(affine) = affine {
        spacing = affine.spacing_mm().map(Some);
        if disagree(spacing, stated, grid.sides) {
            let detail = "pixdim disagrees with the affine, which was used";
            reasons.push(Reason::new(Code::HeaderRepaired, detail));
        }
    } else if header.pixdim.iter().skip(1).take(3).any(|&size| size < 0.0) {
        let detail = "a pixdim is negative; its size was used";
        reasons.push(Reason::new(Code::HeaderRepaired, detail));
    }
    let [along_depth, ..] = &mut spacing;
    match grid.kind {
        Kind::Image => *along_depth = None,
        Kind::Video => *along_depth = seconds(pixel_t, header.units),
        Kind::Volume => {}
    }
    let n_wanted = if grid.kind == Kind::Image { 2 } else { 3 };
    if spacing.iter().flatten().count() < n_wanted {
        let detail = "pixdim or its unit states no size for an axis";
        reasons.push(Reason::new(Code::SpacingUnknown, detail));
    }
    // In a video D is time, and no frame lies beside another.
    let affine = affine.filter(|_| grid.kind != Kind::Video);
    Ok(Place {
        affine,
        spacing,
        reasons,
    })
}

fn best_affine(header: &Header, kind: Kind, reasons: &mut Vec<Reason>) -> Result<Option<Affine>> {
    // Other codes are not in the standard; nibabel sets them to 0.
    let is_set = |code: i64| (1..=5).contains(&code);
    if !is_set(header.sform_code) && !is_set(header.qform_code) {
        let detail = "neither qform_code nor sform_code is set; axes are in storage order";
        reasons.push(Reason::new(Code::OrientationUnknown, detail));
        return Ok(None);
    }
    let mm = mm_per_unit(header.units);
    let sform = is_set(header.sform_code).then_some(header.srow);
    let qform = if is_set(header.qform_code) {
        qform(header)
    } else {
        None
    };
    let candidates =
        [sform, qform].map(|rows| rows.map(|rows| lps(rows, mm)).filter(Affine::is_usable));
    match candidates {
        [Some(affine), _] => Ok(Some(affine)),
        [None, Some(affine)] => {
            if sform.is_some() {
                let detail = "the sform is singular or not finite; the qform was used";
                reasons.push(Reason::new(Code::HeaderRepaired, detail));
            }
            Ok(Some(affine))
        }
        [None, None] => {
            let found = unusable(header, sform.is_some());
            if kind == Kind::Volume {
                let wanted = "three independent axes, or both codes 0";
                return Err(Error::refused(FORMAT, Code::BadGeometry, found, wanted));
            }
            let detail = format!("{found}; axes are in storage order");
            reasons.push(Reason::new(Code::OrientationUnknown, detail));
            Ok(None)
        }
    }
}

/// Says what is wrong with the transforms that are set, none of which can be used.
fn unusable(header: &Header, has_sform: bool) -> String {
    let has_qform = (1..=5).contains(&header.qform_code);
    let [b, c, d] = header.quatern;
    let length = (b * b + c * c + d * d).sqrt();
    let qform = if length.is_finite() && length * length > 1.0 + QUATERNION_ROUNDING {
        format!("a qform whose quaternion b, c, d has the length {length:.6}, above 1")
    } else {
        "a qform that is singular or not finite".to_owned()
    };
    let sform = "an sform that is singular or not finite";
    match (has_sform, has_qform) {
        (true, true) => format!("{sform}, and {qform}"),
        (true, false) => sform.to_owned(),
        (false, _) => qform,
    }
}

/// NIfTI's RAS, in the file's unit, to LPS in mm.
fn lps(rows: [[f64; 4]; 3], mm: f64) -> Affine {
    let [x, y, z] = rows;
    Affine {
        rows: [x.map(|v| -v * mm), y.map(|v| -v * mm), z.map(|v| v * mm)],
    }
}

/// How far the square of b, c, d may pass 1: what they lose when they are written with 4 digits.
const QUATERNION_ROUNDING: f64 = 1e-4;

/// Builds the matrix of the quaternion, or `None` if b, c, d are longer than 1 by more than
/// rounding.
///
/// # Source
/// `nifti1.h`, "METHOD 2"; the tolerance below a half turn is nibabel's. Above it, nibabel refuses
/// what passes 3 steps of the stored float, and ITK takes everything as a half turn.
fn qform(header: &Header) -> Option<[[f64; 4]; 3]> {
    let [b, c, d] = header.quatern;
    let epsilon = match header.magic.version {
        Version::Two => f64::EPSILON,
        _ => f64::from(f32::EPSILON),
    };
    let rest = 1.0 - (b * b + c * c + d * d);
    let a = if rest > 3.0 * epsilon {
        rest.sqrt()
    } else if rest >= -QUATERNION_ROUNDING {
        0.0
    } else {
        return None;
    };
    // At a half turn the quaternion is not quite a unit: divide by its square.
    let s = 2.0 / (a * a + b * b + c * c + d * d);
    let rotation = [
        [
            1.0 - s * (c * c + d * d),
            s * (b * c - a * d),
            s * (b * d + a * c),
        ],
        [
            s * (b * c + a * d),
            1.0 - s * (b * b + d * d),
            s * (c * d - a * b),
        ],
        [
            s * (b * d - a * c),
            s * (c * d + a * b),
            1.0 - s * (b * b + c * c),
        ],
    ];
    let [qfac, x, y, z, ..] = header.pixdim;
    let mirror = if qfac < 0.0 { -1.0 } else { 1.0 };
    let (x, y, z) = (x.abs(), y.abs(), z.abs() * mirror);
    let [[r00, r01, r02], [r10, r11, r12], [r20, r21, r22]] = rotation;
    let [at_x, at_y, at_z] = header.qoffset;
    Some([
        [r00 * x, r01 * y, r02 * z, at_x],
        [r10 * x, r11 * y, r12 * z, at_y],
        [r20 * x, r21 * y, r22 * z, at_z],
    ])
}

/// Returns true if an axis with more than one voxel is stated 1 % longer or shorter.
fn disagree(found: [Option<f64>; 3], stated: [Option<f64>; 3], sides: [usize; 3]) -> bool {
    found
        .iter()
        .zip(stated)
        .zip(sides.iter().rev())
        .any(|((found, stated), &side)| match (found, stated) {
            (Some(found), Some(stated)) => side > 1 && (found - stated).abs() > 0.01 * found,
            _ => false,
        })
}

/// Millimetres per spatial unit; an unset unit means mm, as everyone reads it.
fn mm_per_unit(units: u8) -> f64 {
    match units & 7 {
        1 => 1000.0,
        3 => 0.001,
        _ => 1.0,
    }
}

/// The time step in seconds, where its unit is one of time.
fn seconds(step: f64, units: u8) -> Option<f64> {
    let factor = match units & 0x38 {
        8 => 1.0,
        16 => 1e-3,
        24 => 1e-6,
        _ => return None,
    };
    Some(step.abs() * factor).filter(|step| step.is_finite() && *step > 0.0)
}
