//! The files that define the input of a public model.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{CLIP, Filter, N_PLANES, PERCENTILES, PlaneInput, Size, Stats};
use crate::config::MAX_TOKENS;
use crate::error::{Error, Result};
use crate::family::Config;
use crate::weights::{parse_json, read_json, shown};

/// The largest side that a config may ask for.
const MAX_SIDE: usize = 1 << 13;

/// `preprocessor_config.json` of Hugging Face, old and new.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Processor {
    do_resize: Option<bool>,
    size: Option<Sides>,
    resample: Option<u32>,
    do_center_crop: Option<bool>,
    crop_size: Option<Sides>,
    do_rescale: Option<bool>,
    rescale_factor: Option<f32>,
    do_normalize: Option<bool>,
    image_mean: Option<Channels>,
    image_std: Option<Channels>,
    image_processor_type: Option<String>,
    feature_extractor_type: Option<String>,
}

/// A size in one of its spellings.
#[derive(Deserialize, Debug, Clone, Copy)]
#[serde(
    untagged,
    expecting = "one side, [height, width], or an object of shortest_edge or height and width"
)]
enum Sides {
    One(usize),
    Both([usize; 2]),
    Named {
        shortest_edge: Option<usize>,
        longest_edge: Option<usize>,
        height: Option<usize>,
        width: Option<usize>,
    },
}

/// One number for all channels, or three.
#[derive(Deserialize, Clone, Copy)]
#[serde(untagged, expecting = "one number, or one for each of three channels")]
enum Channels {
    One(f32),
    Three([f32; 3]),
}

impl Channels {
    fn values(self) -> [f32; 3] {
        match self {
            Self::One(value) => [value; 3],
            Self::Three(values) => values,
        }
    }
}

/// `preprocess_cfg` of `open_clip`.
#[derive(Deserialize, Default)]
#[serde(default)]
struct OpenClip {
    size: Option<Sides>,
    mean: Option<Channels>,
    std: Option<Channels>,
    interpolation: Option<String>,
    resize_mode: Option<String>,
}

impl PlaneInput {
    /// Reads `preprocessor_config.json` beside a config, or `image_processor` of
    /// `processor_config.json`; where there is neither: shortest edge to the model's own image
    /// size, bicubic, the centre of that size, the family's mean and standard deviation.
    ///
    /// # Errors
    /// `Malformed` or `Unsupported`, naming the field.
    pub(crate) fn read(
        config: &Config,
        image: [usize; 2],
        patch: [usize; 2],
        stats: Stats,
    ) -> Result<Self> {
        let path = config.folder().join("preprocessor_config.json");
        let newer = config.folder().join("processor_config.json");
        let (path, processor): (_, Option<Processor>) = if path.exists() {
            let processor = read_json(&path)?;
            (path, Some(processor))
        } else if newer.exists() {
            let mut whole: Value = read_json(&newer)?;
            let inner = whole.get_mut("image_processor").map(Value::take);
            let inner = inner.map(|inner| parse_json(&newer, &inner)).transpose()?;
            (newer, inner)
        } else {
            (path, None)
        };
        let usual = Self::usual(image, patch, stats);
        match processor {
            Some(processor) => processor
                .wanted(&usual)?
                .check(&path, ["size", "crop_size"]),
            None => usual.check(&config.path, ["image_size"; 2]),
        }
    }

    /// Reads `preprocess_cfg` of `open_clip`'s config.
    ///
    /// # Errors
    /// As `read`.
    pub(crate) fn read_open_clip(
        config: &Config,
        image: [usize; 2],
        patch: [usize; 2],
    ) -> Result<Self> {
        let preprocess = match config.value.get("preprocess_cfg") {
            None | Some(Value::Null) => OpenClip::default(),
            Some(value) => parse_json(&config.path, value)?,
        };
        let usual = Self::usual(image, patch, CLIP);
        let (field, size) = match preprocess.size {
            Some(Sides::One(side)) => ("preprocess_cfg.size", [side; 2]),
            Some(Sides::Both(sides)) => ("preprocess_cfg.size", sides),
            Some(Sides::Named { .. }) | None => ("image_size", image),
        };
        let squashes = match preprocess.resize_mode.as_deref() {
            None | Some("shortest") => size[0] != size[1],
            Some("squash") => true,
            Some(other) => {
                return Err(Error::unsupported(
                    format!("resize_mode {}", shown(other)),
                    "supported are shortest and squash",
                ));
            }
        };
        let filter = match preprocess.interpolation.as_deref() {
            None | Some("bicubic" | "random") => Filter::Bicubic,
            Some("bilinear") => Filter::Bilinear,
            Some(other) => {
                return Err(Error::unsupported(
                    format!("interpolation {}", shown(other)),
                    "supported are bicubic and bilinear",
                ));
            }
        };
        let stats = Stats {
            mean: preprocess.mean.map_or(CLIP.mean, Channels::values),
            std: preprocess.std.map_or(CLIP.std, Channels::values),
        };
        Self {
            size: Some(if squashes {
                Size::Exact(size)
            } else {
                Size::ShortestEdge(size[0])
            }),
            filter,
            crop: Some(size),
            rounds_border: true,
            stats,
            ..usual
        }
        .check(&config.path, [field; 2])
    }

    /// Returns the input of a model without such a file.
    fn usual(image: [usize; 2], patch: [usize; 2], stats: Stats) -> Self {
        Self {
            size: Some(if image[0] == image[1] {
                Size::ShortestEdge(image[0])
            } else {
                Size::Exact(image)
            }),
            filter: Filter::Bicubic,
            crop: Some(image),
            rounds_border: false,
            white: 1.0,
            stats,
            patch,
            n_planes: N_PLANES,
            percentiles: PERCENTILES,
        }
    }

    /// Checks what was read of `path`, where `fields` say the size and the crop.
    fn check(self, path: &Path, fields: [&str; 2]) -> Result<Self> {
        let size = self.size.map(|size| match size {
            // The other side is at least as long.
            Size::ShortestEdge(side) => [side; 2],
            Size::Exact(sides) => sides,
        });
        for (field, sides) in fields.into_iter().zip([size, self.crop]) {
            let [height, width] = sides.unwrap_or([1; 2]);
            if ![height, width]
                .iter()
                .all(|side| (1..=MAX_SIDE).contains(side))
            {
                return Err(Error::malformed(
                    path,
                    format!("{field} {height} x {width}"),
                    format!("sides of 1..={MAX_SIDE}"),
                ));
            }
        }
        let [height, width] = self.crop.or(size).unwrap_or([1; 2]);
        let n_patches = (height / self.patch[0]).saturating_mul(width / self.patch[1]);
        if n_patches > MAX_TOKENS {
            let field = fields[usize::from(self.crop.is_some())];
            return Err(Error::malformed(
                path,
                format!("{field} {height} x {width}, which is {n_patches} patches"),
                format!("at most {MAX_TOKENS} patches"),
            ));
        }
        let Stats { mean, std } = self.stats;
        let is_sound = mean.iter().chain([&self.white]).all(|x| x.is_finite())
            && std.iter().all(|std| std.is_finite() && *std > 0.0);
        if !is_sound {
            return Err(Error::malformed(
                path,
                format!(
                    "a mean of {mean:?}, a standard deviation of {std:?}, white at {}",
                    self.white
                ),
                "finite numbers, standard deviations above 0",
            ));
        }
        Ok(self)
    }
}

impl Processor {
    fn wanted(&self, usual: &PlaneInput) -> Result<PlaneInput> {
        let class = self.image_processor_type.as_ref();
        let class = class.or(self.feature_extractor_type.as_ref());
        // The library's ViT classes resize to a square, bilinearly; the others keep the aspect.
        let is_vit = class.is_some_and(|class| class.contains("ViT"));
        let size = match (self.do_resize, self.size) {
            (Some(false), _) => None,
            (_, None) => usual.size,
            (_, Some(Sides::One(side))) if is_vit => Some(Size::Exact([side; 2])),
            (_, Some(Sides::One(side))) => Some(Size::ShortestEdge(side)),
            (_, Some(sides)) => Some(named(sides)?),
        };
        let filter = match self.resample {
            Some(1) => Filter::Lanczos,
            Some(2) => Filter::Bilinear,
            Some(3) => Filter::Bicubic,
            None if is_vit => Filter::Bilinear,
            None => Filter::Bicubic,
            Some(other) => {
                return Err(Error::unsupported(
                    format!("resample {other}"),
                    "supported are Pillow's 1 (Lanczos), 2 (bilinear) and 3 (bicubic)",
                ));
            }
        };
        let crop = match (self.do_center_crop, self.crop_size) {
            (Some(false), _) | (None, None) => None,
            (_, Some(Sides::One(side))) => Some([side; 2]),
            (_, Some(sides)) => match named(sides)? {
                Size::Exact(sides) => Some(sides),
                Size::ShortestEdge(side) => Some([side; 2]),
            },
            (Some(true), None) => usual.crop,
        };
        let white = if self.do_rescale == Some(false) {
            255.0
        } else {
            self.rescale_factor.map_or(1.0, |factor| 255.0 * factor)
        };
        let stats = if self.do_normalize == Some(false) {
            Stats {
                mean: [0.0; 3],
                std: [1.0; 3],
            }
        } else {
            Stats {
                mean: self.image_mean.map_or(usual.stats.mean, Channels::values),
                std: self.image_std.map_or(usual.stats.std, Channels::values),
            }
        };
        Ok(PlaneInput {
            size,
            filter,
            crop,
            white,
            stats,
            ..usual.clone()
        })
    }
}

fn named(sides: Sides) -> Result<Size> {
    match sides {
        Sides::One(side) => Ok(Size::Exact([side; 2])),
        Sides::Both(sides) => Ok(Size::Exact(sides)),
        Sides::Named {
            height: Some(height),
            width: Some(width),
            ..
        } => Ok(Size::Exact([height, width])),
        Sides::Named {
            shortest_edge: Some(side),
            longest_edge: None,
            ..
        } => Ok(Size::ShortestEdge(side)),
        Sides::Named {
            shortest_edge,
            longest_edge,
            height,
            width,
        } => {
            let fields = [
                ("shortest_edge", shortest_edge),
                ("longest_edge", longest_edge),
                ("height", height),
                ("width", width),
            ];
            let stated = fields
                .into_iter()
                .filter_map(|(name, side)| Some(format!("{name} {}", side?)));
            let stated: Vec<_> = stated.collect();
            Err(Error::unsupported(
                format!(
                    "a size by {}",
                    if stated.is_empty() {
                        "nothing".to_owned()
                    } else {
                        stated.join(", ")
                    }
                ),
                "supported are height with width, and shortest_edge alone",
            ))
        }
    }
}
