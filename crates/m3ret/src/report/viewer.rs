//! Pictures that a page lets people look through: an image, planes of a volume, frames of a clip.
//!
//! `web/viewer.js` draws them; search and map share it.

use std::path::Path;

use m3ret_imaging::archive::read_image;
use m3ret_imaging::{
    Cut, HU_LEVELS, Kind, ReadOptions, Sheet, Strip, Volume, has_axial_slices, has_three_planes,
    read_bytes, strip,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::shell::{data_url, jpeg_url};
use crate::embed::ahead::guarded;
use crate::panics;

/// The style that pages with pictures share.
pub(crate) const STYLE: &str = include_str!("web/viewer.css");

/// Longest side of a 2D image, in pixels.
const IMAGE_PX: usize = 512;
/// Longest sides of slices and frames, best first: smaller ones are for pages with many images.
const SLICE_PX: [usize; 3] = [256, 192, 128];
/// Longest side of the two other planes of a volume.
const PLANE_PX: usize = 256;
/// Most slices of a volume.
const MAX_SLICES: usize = 32;
/// Most frames of a clip.
const MAX_FRAMES: usize = 12;
/// Qualities of JPEG, best first.
const QUALITIES: [u8; 4] = [85, 75, 65, 50];

/// All pictures of one image.
#[derive(Debug, Clone, Serialize)]
pub struct Pictures {
    /// `image`, `volume`, `clip`, or `stored` for a small picture out of a gallery.
    pub kind: &'static str,
    /// Whether levels stand for HU, by `hu_levels`.
    pub is_hu: bool,
    /// What the image is, such as `512 x 512 x 40, 0.7 x 0.7 x 5 mm`.
    pub facts: String,
    /// Whether the first view has the slices that `imaging::slice_views` counts.
    pub has_slices_first: bool,
    /// The planes: of a volume those across D, then H, then W.
    pub views: Vec<View>,
}

/// One plane, or planes to scroll through.
#[derive(Debug, Clone, Serialize)]
pub struct View {
    /// `axial`, `coronal`, `sagittal`; `slices`, `plane 2` and `plane 3` where the orientation is unknown; else empty.
    pub name: &'static str,
    /// A data URL: planes row by row.
    pub src: String,
    /// Number of planes in a row.
    pub columns: usize,
    /// Rows and columns of a plane's place.
    pub cell: [usize; 2],
    /// Rows and columns of a plane.
    pub size: [usize; 2],
    /// Which planes of the object are shown, from 0.
    pub planes: Vec<usize>,
    /// How many it has.
    pub n_all: usize,
}

/// Returns the levels of HU as the pages read them: pairs of HU and grey.
#[must_use]
pub fn hu_levels() -> Value {
    json!(HU_LEVELS.map(|(hu, level)| [hu, f64::from(level)]))
}

/// Reads an image for people to look at.
///
/// # Errors
/// A sentence that says why it cannot be read.
pub(crate) fn read(
    file: &Path,
    part: Option<&str>,
    options: &ReadOptions,
) -> Result<Volume, String> {
    guarded(|| read_image(file, part, options)).map_err(|refusal| refusal.message)
}

/// HU below which no other image has values.
const AIR_HU: f32 = -200.0;

/// Takes the values of an object for HU where its label says CT and some lie far below 0, as in air: formats such as NIfTI do
/// not say what values mean. For pictures only.
pub(crate) fn assume_hu(volume: &mut Volume, modality: Option<&str>) {
    let is_ct = modality == Some("CT") && volume.unit.is_none() && volume.full_scale.is_none();
    if is_ct && volume.values().iter().any(|&value| value < AIR_HU) {
        volume.unit = Some("HU");
    }
}

impl Pictures {
    /// Draws an image within about `max_chars` of the page; at least one small plane is drawn.
    ///
    /// # Errors
    /// A sentence that says why it cannot be drawn.
    pub fn of(volume: &Volume, max_chars: usize) -> Result<Self, String> {
        panics::guard(|| drawn(volume, max_chars)).and_then(|drawn| drawn)
    }

    /// Shows the small picture that a gallery holds; `None` if it holds none.
    pub(crate) fn stored(png: &[u8]) -> Option<Self> {
        let volume = read_bytes(png, &ReadOptions::default()).ok()?.pop()?;
        let [_, _, height, width] = volume.shape();
        let view = View {
            name: "",
            src: data_url(png),
            columns: 1,
            cell: [height, width],
            size: [height, width],
            planes: vec![0],
            n_all: 1,
        };
        Some(Self {
            kind: "stored",
            is_hu: false,
            facts: String::new(),
            has_slices_first: false,
            views: vec![view],
        })
    }
}

fn drawn(volume: &Volume, max_chars: usize) -> Result<Pictures, String> {
    let [_, depth, ..] = volume.shape();
    let is_canonical = volume
        .affine
        .is_some_and(|affine| affine.axis_order() == "SPL");
    let mut views = Vec::new();
    let kind = if has_three_planes(volume) {
        let names = match is_canonical {
            true => ["axial", "coronal", "sagittal"],
            false => ["slices", "plane 2", "plane 3"],
        };
        for (name, cut) in names
            .into_iter()
            .zip([Cut::Depth, Cut::Height, Cut::Width])
            .skip(1)
        {
            let sheet = Drawing::new(volume, cut, 1, PLANE_PX);
            views.push(sheet.view(name, QUALITIES[1])?);
        }
        let spent: usize = views.iter().map(|view| view.src.len()).sum();
        let room = max_chars.saturating_sub(spent);
        views.insert(0, fitting(volume, names[0], MAX_SLICES, room)?);
        "volume"
    } else if volume.kind == Kind::Video && depth > 1 {
        views.push(fitting(volume, "", MAX_FRAMES, max_chars)?);
        "clip"
    } else {
        views.push(fitting_image(volume, max_chars)?);
        "image"
    };
    Ok(Pictures {
        kind,
        is_hu: volume.unit == Some("HU"),
        facts: facts(volume),
        has_slices_first: has_axial_slices(volume),
        views,
    })
}

/// Planes of one size, before they are compressed.
struct Drawing {
    strip: Strip,
    sheet: Sheet,
    n_all: usize,
}

impl Drawing {
    fn new(volume: &Volume, cut: Cut, n_planes: usize, max_side: usize) -> Self {
        let strip = strip(volume, cut, n_planes, max_side);
        let [_, depth, height, width] = volume.shape();
        Self {
            sheet: strip.sheet(),
            strip,
            n_all: match cut {
                Cut::Depth => depth,
                Cut::Height => height,
                Cut::Width => width,
            },
        }
    }

    fn view(&self, name: &'static str, quality: u8) -> Result<View, String> {
        let jpeg = self
            .sheet
            .jpeg(quality)
            .map_err(|error| error.to_string())?;
        Ok(View {
            name,
            src: jpeg_url(&jpeg),
            columns: self.sheet.n_columns,
            cell: self.sheet.cell,
            size: self.strip.size,
            planes: self.strip.planes.clone(),
            n_all: self.n_all,
        })
    }
}

/// Draws slices or frames: the largest that fit, then fewer of the smallest.
fn fitting(
    volume: &Volume,
    name: &'static str,
    n_planes: usize,
    room: usize,
) -> Result<View, String> {
    let sizes = SLICE_PX.map(|side| (side, n_planes));
    let [.., smallest] = SLICE_PX;
    let fewer = [2, 4, 8].map(|part| (smallest, n_planes.div_ceil(part)));
    let mut sizes = sizes.into_iter().chain(fewer).peekable();
    while let Some((side, n_planes)) = sizes.next() {
        let drawing = Drawing::new(volume, Cut::Depth, n_planes, side);
        // Poor quality is the last resort: a smaller picture is worth more than a blotched one.
        let [best, good, fair, poor] = QUALITIES;
        let is_last = sizes.peek().is_none();
        let qualities: &[u8] = if is_last {
            &[fair, poor]
        } else {
            &[best, good]
        };
        let mut view = drawing.view(name, fair)?;
        // A better quality makes the picture about 1.3 and 1.8 times as large: do not try what cannot fit.
        if view.src.len() > room && !is_last {
            continue;
        }
        for &quality in qualities {
            let tried = drawing.view(name, quality)?;
            if tried.src.len() <= room {
                view = tried;
                break;
            }
        }
        return Ok(view);
    }
    Err("nothing to draw".to_owned())
}

fn fitting_image(volume: &Volume, room: usize) -> Result<View, String> {
    let [_, good, _, poor] = QUALITIES;
    for (side, quality) in [(IMAGE_PX, 90), (IMAGE_PX, good), (IMAGE_PX / 2, good)] {
        let view = Drawing::new(volume, Cut::Depth, 1, side).view("", quality)?;
        if view.src.len() <= room {
            return Ok(view);
        }
    }
    let [.., smallest] = SLICE_PX;
    Drawing::new(volume, Cut::Depth, 1, smallest).view("", poor)
}

/// Says how large an image is: `W x H x D`, and its spacing in the same order.
fn facts(volume: &Volume) -> String {
    let [_, depth, height, width] = volume.shape();
    let mut text = format!("{width} x {height}");
    let [d, h, w] = volume.spacing;
    match volume.kind {
        Kind::Video => {
            text += &format!(" px, {depth} frames");
            if let Some(step) = d.filter(|step| *step > 0.0) {
                text += &format!(", {} s apart", short(step));
            }
        }
        Kind::Volume if depth > 1 => {
            text += &format!(" x {depth}");
            if let (Some(d), Some(h), Some(w)) = (d, h, w) {
                text += &format!(" voxels, {} x {} x {} mm", short(w), short(h), short(d));
            }
        }
        Kind::Image | Kind::Volume => {
            text += " px";
            if let (Some(h), Some(w)) = (h, w) {
                text += &format!(", {} x {} mm", short(w), short(h));
            }
        }
    }
    text
}

/// Writes a number with two digits after the point, without closing zeros.
fn short(x: f64) -> String {
    let text = format!("{x:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(shape: [usize; 4], kind: Kind) -> Volume {
        let n: usize = shape.iter().product();
        let values = (0..n as u64).map(|i| {
            let mixed = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            f32::from(u16::try_from(mixed >> 50).unwrap())
        });
        Volume::new(values.collect(), shape, kind).unwrap()
    }

    #[test]
    fn a_volume_has_three_planes_and_slices_within_its_room() {
        // Noise is the worst case for JPEG.
        let mut volume = noise([1, 40, 200, 200], Kind::Volume);
        volume.spacing = [Some(2.5), Some(0.7), Some(0.75)];
        let drawn = Pictures::of(&volume, 400_000).unwrap();
        assert_eq!((drawn.kind, drawn.views.len()), ("volume", 3));
        assert_eq!(drawn.facts, "200 x 200 x 40 voxels, 0.75 x 0.7 x 2.5 mm");
        let slices = &drawn.views[0];
        assert_eq!(slices.n_all, 40);
        assert!(slices.src.len() <= 400_000, "{}", slices.src.len());
        assert!(slices.src.starts_with("data:image/jpeg;base64,"));
        let quiet =
            Volume::new(vec![0.0; 40 * 400 * 400], [1, 40, 400, 400], Kind::Volume).unwrap();
        let slices = &Pictures::of(&quiet, 400_000).unwrap().views[0];
        assert_eq!((slices.planes.len(), slices.size), (32, [256, 256]));
    }

    #[test]
    fn images_and_clips_have_one_view() {
        let image = noise([3, 1, 700, 900], Kind::Image);
        let drawn = Pictures::of(&image, 2_000_000).unwrap();
        assert_eq!((drawn.kind, &*drawn.facts), ("image", "900 x 700 px"));
        assert_eq!(drawn.views[0].size, [398, 512]);
        let clip = Pictures::of(&noise([1, 30, 64, 64], Kind::Video), 400_000).unwrap();
        assert_eq!((clip.kind, clip.views[0].planes.len()), ("clip", 12));
        assert_eq!(clip.views[0].n_all, 30);
    }

    #[test]
    fn values_of_a_ct_without_a_unit_are_hu_if_some_are_air() {
        let check = |values: [f32; 2], modality, is_hu| {
            let mut volume = Volume::new(values.to_vec(), [1, 1, 1, 2], Kind::Image).unwrap();
            assume_hu(&mut volume, modality);
            assert_eq!(Pictures::of(&volume, 9999).unwrap().is_hu, is_hu);
        };
        check([-1000.0, 40.0], Some("CT"), true);
        check([0.0, 40.0], Some("CT"), false);
        check([-1000.0, 40.0], Some("MR"), false);
        check([-1000.0, 40.0], None, false);
    }

    #[test]
    fn a_stored_picture_is_shown_as_it_is() {
        let volume = noise([1, 1, 20, 30], Kind::Image);
        let png = m3ret_imaging::thumbnail(&volume, 64).png().unwrap();
        let stored = Pictures::stored(&png).unwrap();
        assert_eq!(stored.kind, "stored");
        assert!(stored.views[0].src.starts_with("data:image/png"));
        assert!(Pictures::stored(b"").is_none() && Pictures::stored(b"no picture").is_none());
    }
}
