//! What NRRD's axes mean, and where the voxels lie.

use crate::error::{Error, Result};
use crate::geometry::{Affine, length};
use crate::limits::Limits;
use crate::reason::{Code, Reason};
use crate::samples::Scalar;
use crate::volume::Kind;

use super::FORMAT;
use super::header::Header;

/// What one axis is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Space,
    Colour,
    Time,
    List,
    /// One entry that means nothing.
    Single,
}

/// The header's meaning, checked and charged.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axes {
    pub(super) n_values: usize,
    /// C, D, H, W of one part.
    pub(super) shape: [usize; 4],
    /// Numbers between neighbours along C, D, H, W.
    pub(super) strides: [usize; 4],
    pub(super) n_parts: usize,
    pub(super) part_stride: usize,
    /// True if the file holds one part in the very order of a `Volume`.
    pub(super) is_as_stored: bool,
    pub(super) kind: Kind,
    pub(super) affine: Option<Affine>,
    pub(super) spacing: [Option<f64>; 3],
    pub(super) full_scale: Option<f32>,
    pub(super) reasons: Vec<Reason>,
    part_name: &'static str,
}

impl Axes {
    pub(super) fn new(header: &Header, limits: &Limits) -> Result<Self> {
        let product = header
            .sizes
            .iter()
            .try_fold(1_u64, |n, &side| n.checked_mul(side));
        let n_values = limits.voxels([1, 1, 1, product.unwrap_or(u64::MAX)])?;
        let steps = Steps::new(header, limits)?;
        let chosen = Chosen::new(&roles(header)?, &steps)?;
        let Chosen {
            is_video,
            axes,
            third_of_space,
            series,
            ..
        } = chosen;
        let [c, d, h, w] = axes.map(|axis| steps.side(axis));
        limits.frames(d as u64)?;
        let n_parts = steps.side(series);
        limits.parts(n_parts as u64)?;
        let [colour, depth, height, width] = axes;
        let order: Vec<usize> = [width, height, depth, colour]
            .into_iter()
            .flatten()
            .collect();
        let mut axes = Self {
            n_values,
            shape: [c.min(3), d, h, w],
            strides: axes.map(|axis| steps.stride(axis)),
            n_parts,
            part_stride: steps.stride(series),
            is_as_stored: n_parts == 1 && c < 4 && order.is_sorted(),
            kind: match (is_video, d) {
                (true, _) => Kind::Video,
                (false, 1) => Kind::Image,
                (false, _) => Kind::Volume,
            },
            affine: None,
            spacing: [None; 3],
            full_scale: full_scale(header.scalar).filter(|_| c > 1),
            reasons: Vec::new(),
            part_name: chosen.series_name,
        };
        if c == 4 {
            axes.reasons.push(Reason::new(
                Code::AlphaDropped,
                "the fourth colour component",
            ));
        }
        axes.place(header, [width, height, depth.or(third_of_space)])?;
        Ok(axes)
    }

    /// Names a part, where there are several.
    pub(super) fn part(&self, index: usize) -> Option<String> {
        (self.n_parts > 1).then(|| format!("{}={index}", self.part_name))
    }

    /// Sets affine, spacing and their reasons; `axes` are the file's axes of W, H and D.
    fn place(&mut self, header: &Header, axes: [Option<usize>; 3]) -> Result<()> {
        let [width, height, depth] = axes;
        let is_video = self.kind == Kind::Video;
        self.affine = if is_video {
            None
        } else {
            affine(header, axes)?
        };
        if self.kind == Kind::Image {
            // A slice without a usable third axis is still an image.
            self.affine = self.affine.filter(Affine::is_usable);
        }
        self.spacing = match self.affine {
            Some(affine) => affine.spacing_mm().map(Some),
            None => [depth, height, width].map(|axis| spacing_mm(header, axis?)),
        };
        let [along_depth, ..] = &mut self.spacing;
        match self.kind {
            Kind::Image => *along_depth = None,
            Kind::Video => *along_depth = depth.and_then(|axis| spacing_s(header, axis)),
            Kind::Volume => {}
        }
        let n_wanted = if self.kind == Kind::Image { 2 } else { 3 };
        if self.spacing.iter().flatten().count() < n_wanted {
            let detail = "the header states no size for an axis";
            self.reasons.push(Reason::new(Code::SpacingUnknown, detail));
        }
        if self.kind == Kind::Volume && self.affine.is_none() {
            let detail = "no space that is tied to the patient; axes are in storage order";
            self.reasons
                .push(Reason::new(Code::OrientationUnknown, detail));
            if header.kinds.is_empty() && header.directions.is_empty() {
                let detail = "the header does not say what its axes are";
                self.reasons
                    .push(Reason::new(Code::StackAxisUnknown, detail));
            }
        }
        Ok(())
    }
}

/// Which axis of the file plays which part.
struct Chosen {
    is_video: bool,
    /// C, D, H, W.
    axes: [Option<usize>; 4],
    third_of_space: Option<usize>,
    series: Option<usize>,
    series_name: &'static str,
}

impl Chosen {
    fn new(roles: &[Role], steps: &Steps) -> Result<Self> {
        let all = |wanted: Role| -> Vec<usize> {
            let places = roles
                .iter()
                .enumerate()
                .filter(move |&(_, &role)| role == wanted);
            places.map(|(axis, _)| axis).collect()
        };
        let is_long = |axis: &usize| steps.side(Some(*axis)) > 1;
        let space = all(Role::Space);
        let third_of_space = space.get(2).copied();
        let colour = single(&all(Role::Colour), "two colour axes")?;
        let time = single(&all(Role::Time), "two axes of time")?.filter(is_long);
        let list = single(&all(Role::List), "two lists")?.filter(is_long);
        let in_space = third_of_space.filter(is_long);
        let is_video = in_space.is_none() && time.is_some();
        let (depth, time) = if is_video {
            (time, None)
        } else {
            (in_space, time)
        };
        if time.is_some() && list.is_some() {
            let advice = "save one list or one time axis a file";
            return Err(Error::unsupported(FORMAT, "a list beside time", advice));
        }
        Ok(Self {
            is_video,
            axes: [colour, depth, space.get(1).copied(), space.first().copied()],
            third_of_space,
            series: time.or(list),
            series_name: if time.is_some() { "t" } else { "list" },
        })
    }
}

/// Sides and strides of the file's axes.
struct Steps(Vec<(usize, usize)>);

impl Steps {
    fn new(header: &Header, limits: &Limits) -> Result<Self> {
        let mut steps = Vec::with_capacity(header.sizes.len());
        let mut stride = 1;
        for &side in &header.sizes {
            let side = limits.voxels([1, 1, 1, side])?;
            steps.push((side, stride));
            stride *= side;
        }
        Ok(Self(steps))
    }

    /// The length of an axis, 1 for none.
    fn side(&self, axis: Option<usize>) -> usize {
        axis.and_then(|axis| self.0.get(axis))
            .map_or(1, |&(side, _)| side)
    }

    fn stride(&self, axis: Option<usize>) -> usize {
        axis.and_then(|axis| self.0.get(axis))
            .map_or(0, |&(_, stride)| stride)
    }
}

/// Returns the one axis of a role, if any.
fn single(axes: &[usize], name: &str) -> Result<Option<usize>> {
    match axes {
        [] => Ok(None),
        [axis] => Ok(Some(*axis)),
        _ => Err(Error::unsupported(FORMAT, name, "save one image a file")),
    }
}

/// Tells what each axis is, from its kind, else from its space direction.
fn roles(header: &Header) -> Result<Vec<Role>> {
    let n_axes = header.sizes.len();
    let is_colour_type = matches!(header.scalar, Scalar::U8 | Scalar::U16);
    let mut roles = Vec::with_capacity(n_axes);
    for (axis, &side) in header.sizes.iter().enumerate() {
        let kind = header.kinds.get(axis).map_or("none", String::as_str);
        let has_direction = header.directions.get(axis).map(Option::is_some);
        roles.push(match (kind, side) {
            ("domain" | "space", _) => Role::Space,
            ("time", _) => Role::Time,
            ("list" | "point", _) => Role::List,
            ("rgb-color" | "3-color", 3) | ("rgba-color", 4) => Role::Colour,
            ("vector" | "3-vector" | "4-vector", 3 | 4) if is_colour_type => Role::Colour,
            ("none" | "???", _) => match (has_direction, side) {
                (Some(true), _) => Role::Space,
                (_, 1) => Role::Single,
                (Some(false), 3 | 4) if is_colour_type => Role::Colour,
                (Some(false), _) => Role::List,
                (None, _) if n_axes <= 3 && header.kinds.is_empty() => Role::Space,
                (None, _) => return Err(unnamed()),
            },
            ("vector" | "covariant-vector" | "normal" | "scalar" | "stub", 1) => Role::Single,
            _ => {
                // The kind is quoted only where it is one of the format's words.
                let known = KINDS.iter().find(|&&word| word == kind);
                let name = known.map_or("an axis of a kind of its own".to_owned(), |word| {
                    format!("an axis of kind {word} with {side} entries")
                });
                return Err(Error::unsupported(
                    FORMAT,
                    name,
                    "save one scalar or RGB image",
                ));
            }
        });
    }
    match roles.iter().filter(|&&role| role == Role::Space).count() {
        1..=3 => Ok(roles),
        n => {
            let name = format!("{n} axes of space");
            Err(Error::unsupported(
                FORMAT,
                name,
                "save an image with 1 to 3 of them",
            ))
        }
    }
}

/// The format's other words for kinds.
const KINDS: &[&str] = &[
    "rgb-color",
    "rgba-color",
    "3-color",
    "4-color",
    "hsv-color",
    "xyz-color",
    "complex",
    "vector",
    "covariant-vector",
    "normal",
    "2-vector",
    "3-vector",
    "4-vector",
    "3-gradient",
    "3-normal",
    "quaternion",
    "2d-matrix",
    "2d-symmetric-matrix",
    "2d-masked-matrix",
    "2d-masked-symmetric-matrix",
    "3d-matrix",
    "3d-symmetric-matrix",
    "3d-masked-matrix",
    "3d-masked-symmetric-matrix",
    "scalar",
    "stub",
];

fn unnamed() -> Error {
    let advice = "write the field `kinds`";
    Error::unsupported(FORMAT, "an axis without kind or space direction", advice)
}

fn full_scale(scalar: Scalar) -> Option<f32> {
    match scalar {
        Scalar::U8 => Some(255.0),
        Scalar::U16 => Some(65_535.0),
        _ => None,
    }
}

/// Builds the affine, where the space is the patient's and every axis of space has a direction.
fn affine(header: &Header, axes: [Option<usize>; 3]) -> Result<Option<Affine>> {
    let signs = match header.space.as_deref() {
        Some("left-posterior-superior" | "lps") => [1.0, 1.0, 1.0],
        Some("right-anterior-superior" | "ras") => [-1.0, -1.0, 1.0],
        Some("left-anterior-superior" | "las") => [1.0, -1.0, 1.0],
        Some(space) if space.ends_with("-time") || matches!(space, "rast" | "last" | "lpst") => {
            let advice = "save a space of three dimensions and an axis of kind time";
            return Err(Error::unsupported(FORMAT, "a space with time", advice));
        }
        _ => return Ok(None),
    };
    let mut columns = [[0.0; 3]; 3];
    for (column, axis) in columns.iter_mut().zip(axes) {
        let Some(direction) = axis.and_then(|axis| direction(header, axis)) else {
            return Ok(None);
        };
        *column = direction;
    }
    let origin = header
        .origin
        .as_deref()
        .and_then(|origin| origin.try_into().ok());
    // An unstated origin moves the whole image, and turns nothing.
    let origin: [f64; 3] = origin.unwrap_or_default();
    let [w, h, d] = columns;
    let mut affine = Affine::from_columns(w, h, d, origin);
    for ((row, sign), mm) in affine.rows.iter_mut().zip(signs).zip(space_mm(header)) {
        let Some(mm) = mm else { return Ok(None) };
        *row = row.map(|value| value * sign * mm);
    }
    Ok(Some(affine))
}

fn direction(header: &Header, axis: usize) -> Option<[f64; 3]> {
    header.directions.get(axis)?.as_deref()?.try_into().ok()
}

/// Millimetres per unit of each dimension of space; `None` for a unit that is no length.
fn space_mm(header: &Header) -> [Option<f64>; 3] {
    let unit = |i: usize| mm_per_unit(header.space_units.get(i).map_or("", String::as_str));
    [unit(0), unit(1), unit(2)]
}

fn mm_per_unit(unit: &str) -> Option<f64> {
    match unit {
        // Without a unit everyone reads mm.
        "" | "mm" | "millimeter" | "millimeters" | "millimetre" => Some(1.0),
        "cm" | "centimeter" => Some(10.0),
        "m" | "meter" => Some(1000.0),
        "um" | "micron" | "microns" | "micrometer" | "\u{b5}m" | "\u{3bc}m" => Some(0.001),
        _ => None,
    }
}

/// The distance of neighbours along an axis: the length of its direction, else its spacing.
fn spacing_mm(header: &Header, axis: usize) -> Option<f64> {
    let by_direction = direction(header, axis).and_then(|direction| {
        let mut scaled = direction;
        for (value, mm) in scaled.iter_mut().zip(space_mm(header)) {
            *value *= mm?;
        }
        Some(length(scaled))
    });
    let unit = header.units.get(axis).map_or("", String::as_str);
    let stated = header
        .spacings
        .get(axis)
        .and_then(|step| Some(step.abs() * mm_per_unit(unit)?));
    by_direction
        .or(stated)
        .filter(|step| step.is_finite() && *step > 0.0)
}

fn spacing_s(header: &Header, axis: usize) -> Option<f64> {
    let factor = match header.units.get(axis).map_or("", String::as_str) {
        "s" | "sec" | "second" | "seconds" => 1.0,
        "ms" | "msec" | "millisecond" | "milliseconds" => 1e-3,
        "us" | "usec" => 1e-6,
        _ => return None,
    };
    let step = header.spacings.get(axis)?.abs() * factor;
    Some(step).filter(|step| step.is_finite() && *step > 0.0)
}
