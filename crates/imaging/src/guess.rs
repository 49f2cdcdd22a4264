//! What made an image whose file does not say so, guessed from its values alone.
//!
//! A guess is no statement of the file: it is kept beside `Volume::modality` and never fills it. Only rules that
//! are right for at least 95 % of labelled images are here; docs/formats.md lists them with what was measured,
//! and the rules that were left out.

use crate::volume::{Kind, Volume};

/// Most voxels that are looked at, spread over the whole image.
const MAX_SAMPLES: usize = 100_000;

/// Guesses the DICOM Modality of an image; `None` where no rule fits, or the file states it.
pub(crate) fn modality(volume: &Volume) -> Option<&'static str> {
    if volume.modality.is_some() {
        return None;
    }
    let [n_channels, ..] = volume.shape();
    match (n_channels, volume.kind) {
        (1, Kind::Image | Kind::Volume) => is_like_ct(volume).then_some("CT"),
        (3, Kind::Image | Kind::Video) => is_like_endoscopy(volume).then_some("ES"),
        _ => None,
    }
}

/// Positions of at most `MAX_SAMPLES` of `n` voxels, in order: one in each of as many equal stretches. Where in
/// its stretch changes from one to the next, so that no column or slice of the image is met every time.
fn sampled(n: usize) -> impl Iterator<Item = usize> {
    let stride = n.div_ceil(MAX_SAMPLES).max(1);
    (0..n.div_ceil(stride)).map(move |i| (i * stride + i.wrapping_mul(7919) % stride).min(n - 1))
}

/// Numbers of samples by their value in HU. A value that is lower than `NOISE` and comes again and again is a
/// scanner's mark of what it did not see, and is in no band.
#[derive(Debug, Default)]
struct Bands {
    all: usize,
    /// Below what noise makes of air.
    below: usize,
    /// Air around and inside a patient, without the lowest of all values: other images have constant values there.
    air: usize,
    /// The lowest of all values, if it lies among those of air: where it is cut off, or everything outside a mask.
    lowest_air: usize,
    /// Between air and lung.
    mixed: usize,
    /// Between lung and fat: hardly any tissue.
    gap: usize,
    /// Fat, water, muscle and organs.
    soft: usize,
    /// Bone, contrast agent and metal.
    bright: usize,
    /// Above bone.
    above: usize,
}

/// HU below which noise hardly takes air (-1000).
const NOISE: f32 = -1300.0;

impl Bands {
    fn of(values: &[f32]) -> Self {
        let samples = || {
            let values = sampled(values.len()).filter_map(|idx| values.get(idx).copied());
            values.filter(|value| value.is_finite())
        };
        let lowest = samples().fold(f32::INFINITY, f32::min);
        let mut bands = Self::default();
        for value in samples() {
            bands.all += 1;
            match value {
                _ if value <= lowest => {
                    bands.lowest_air += usize::from((-1100.0..-800.0).contains(&value));
                }
                ..NOISE => bands.below += 1,
                ..-1100.0 => {}
                ..-800.0 => bands.air += 1,
                ..-500.0 => bands.mixed += 1,
                ..-200.0 => bands.gap += 1,
                ..400.0 => bands.soft += 1,
                ..3100.0 => bands.bright += 1,
                _ => bands.above += 1,
            }
        }
        bands
    }

    /// Returns whether a number of samples is at least a share of all, in thousandths.
    fn has(&self, n: usize, thousandths: usize) -> bool {
        n * 1000 >= self.all * thousandths
    }
}

/// Returns whether grey values are spread as Hounsfield units of a patient are: air, soft tissue, and hardly
/// anything between.
///
/// Values below -200 alone would say the same of the phase of MR and of differences of images, which are spread
/// evenly or around 0.
fn is_like_ct(volume: &Volume) -> bool {
    if volume.full_scale.is_some() || volume.inverted {
        // Stored values of a picture, no measurements.
        return false;
    }
    let bands = Bands::of(volume.values());
    // Air and soft tissue are two peaks. Where air is one value only, the other one must be clear.
    let is_below_air = |air: usize| bands.gap * 5 <= air * 4;
    let is_valley = is_below_air(bands.air)
        || bands.gap * 20 <= bands.soft
        || (is_below_air(bands.air + bands.lowest_air) && bands.gap * 6 <= bands.soft);
    bands.all > 0
        && bands.has(bands.air, 1)
        && bands.has(bands.mixed + bands.gap, 2)
        && bands.has(bands.soft, 50)
        && is_valley
        && !bands.has(bands.bright + bands.above, 250)
        && !bands.has(bands.above, 5)
        && !bands.has(bands.below, 10)
}

/// Share of the full scale from which on a pixel is lit, and its channels differ.
const VISIBLE: f32 = 0.12;

/// Returns whether most of a picture or clip that is not black has the colours of a lit mucosa: more red than
/// green, more green than blue. Grey that is stored as colour, coloured marks on a grey picture and tints of another
/// hue are none.
fn is_like_endoscopy(volume: &Volume) -> bool {
    let Some(full_scale) = volume.full_scale.filter(|&scale| scale > 0.0) else {
        return false;
    };
    // [3, D * H * W]: the channels lie one after another.
    let values = volume.values();
    let n = values.len() / 3;
    let (mut n_all, mut n_lit, mut n_coloured, mut n_red, mut n_warm) = (0, 0, 0, 0, 0);
    for idx in sampled(n) {
        let channel = |c: usize| values.get(c * n + idx).copied().unwrap_or(0.0) / full_scale;
        let [red, green, blue] = [0, 1, 2].map(channel);
        let most = red.max(green).max(blue);
        n_all += 1;
        if most > VISIBLE {
            n_lit += 1;
            if most - red.min(green).min(blue) > VISIBLE {
                n_coloured += 1;
                n_red += usize::from(red >= most);
                n_warm += usize::from(red >= most && green >= blue);
            }
        }
    }
    n_coloured > 0
        && n_lit * 10 >= n_all
        && n_coloured * 2 >= n_lit
        && n_red * 5 >= n_coloured * 4
        && n_warm * 2 >= n_coloured
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(values: Vec<f32>) -> Volume {
        let n = values.len();
        Volume::new(values, [1, 2, n / 4, 2], Kind::Volume).unwrap()
    }

    /// Numbers in 0..1 that look random and are the same each time.
    fn noise(n: usize) -> impl Iterator<Item = f32> {
        let mut state = 1_u64;
        (0..n).map(move |_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            f32::from((state >> 48) as u16) / 65536.0
        })
    }

    /// About normally distributed numbers around 0, of standard deviation 1.
    fn normal(n: usize) -> Vec<f32> {
        let all: Vec<f32> = noise(12 * n).collect();
        all.chunks(12)
            .map(|some| some.iter().sum::<f32>() - 6.0)
            .collect()
    }

    /// Numbers around 0 with long tails: each exponential, half of them negative.
    fn two_sided(scale: f32) -> Vec<f32> {
        let all: Vec<f32> = noise(80_000).collect();
        let pairs = all.chunks(2).map(|pair| match pair {
            [share, sign] if *sign < 0.5 => scale * (1.0 - share).ln(),
            [share, _] => -scale * (1.0 - share).ln(),
            _ => 0.0,
        });
        pairs.collect()
    }

    /// Values of a body in air: half air, a little of everything between, fat, muscle and bone.
    fn body(n: usize) -> Vec<f32> {
        let values = noise(n).zip(normal(n));
        let values = values.map(|(place, noise)| match place {
            ..0.50 => -1000.0 + 20.0 * noise,
            ..0.53 => -1000.0 + 1000.0 * (place - 0.50) / 0.03,
            ..0.70 => -100.0 + 20.0 * noise,
            ..0.96 => 50.0 + 20.0 * noise,
            _ => 700.0 + 200.0 * noise,
        });
        values.collect()
    }

    #[test]
    fn values_of_a_body_in_air_are_ct_whatever_their_padding_and_noise() {
        let body = body(40_000);
        let ct = |change: &dyn Fn(f32) -> f32| {
            let changed = body.iter().map(|&value| change(value)).collect();
            modality(&volume(changed))
        };
        assert_eq!(ct(&|value| value), Some("CT"));
        assert_eq!(ct(&|value| value.max(-1000.0)), Some("CT"));
        assert_eq!(ct(&f32::round), Some("CT"));
        let padded = |value: f32| if value < -1020.0 { -3024.0 } else { value };
        assert_eq!(ct(&padded), Some("CT"));
        let gaps = |value: f32| if value > 1000.0 { f32::NAN } else { value };
        assert_eq!(ct(&gaps), Some("CT"));
        // Coarse steps, with most of the air as one value.
        let coarse = |value: f32| ((value / 32.0).round() * 32.0).max(-992.0);
        assert_eq!(ct(&coarse), Some("CT"));
        // Without the offset of the file, or as a share, nothing is known.
        assert_eq!(ct(&|value| (value + 1024.0).max(0.0)), None);
        assert_eq!(ct(&|value| value / 1000.0), None);
    }

    #[test]
    fn negative_values_of_other_images_are_not_ct() {
        let n = 40_000;
        let spread = |least: f32, most: f32| -> Vec<f32> {
            noise(n)
                .map(|share| least + (most - least) * share)
                .collect()
        };
        let scaled = |factor: f32| -> Vec<f32> {
            normal(n).into_iter().map(|value| factor * value).collect()
        };
        for (values, what) in [
            (spread(-4096.0, 4095.0), "phase of MR"),
            (spread(-1000.0, 1000.0), "phase as thousandths"),
            (spread(-1300.0, 1300.0), "phase with another factor"),
            (spread(-1000.0, 300.0), "one even spread"),
            (scaled(1.0), "standard scores"),
            (scaled(100.0), "a field map"),
            (scaled(300.0), "a difference"),
            (scaled(450.0), "a wide difference"),
            (scaled(1500.0), "a wider difference"),
            (two_sided(135.0), "a difference with long tails"),
            (vec![-1000.0; n], "nothing but padding"),
            (vec![f32::NAN; n], "nothing"),
        ] {
            assert_eq!(modality(&volume(values)), None, "{what}");
        }
        // An MR image of a body whose surroundings were given the value of air.
        let masked = body(n)
            .into_iter()
            .map(|value| if value < -200.0 { -1000.0 } else { value.abs() });
        assert_eq!(modality(&volume(masked.collect())), None);
    }

    /// A picture [3, 1, n / 10, 10] of one colour, with noise.
    fn picture(colour: [f32; 3], kind: Kind) -> Volume {
        let n = 4000;
        let values = colour.into_iter().flat_map(|value| {
            normal(n)
                .into_iter()
                .map(move |noise| (value + 5.0 * noise).clamp(0.0, 255.0))
        });
        let mut volume = Volume::new(values.collect(), [3, 1, n / 10, 10], kind).unwrap();
        volume.full_scale = Some(255.0);
        volume
    }

    #[test]
    fn red_pictures_and_clips_are_endoscopy_and_no_other_colours() {
        let guess = |colour, kind| modality(&picture(colour, kind));
        assert_eq!(guess([190.0, 100.0, 70.0], Kind::Image), Some("ES"));
        assert_eq!(guess([190.0, 100.0, 70.0], Kind::Video), Some("ES"));
        for (colour, what) in [
            ([120.0, 120.0, 120.0], "grey stored as colour"),
            ([90.0, 110.0, 150.0], "a blue tint"),
            ([215.0, 150.0, 195.0], "a stained slide"),
            ([100.0, 180.0, 90.0], "green"),
            ([8.0, 2.0, 2.0], "black"),
        ] {
            assert_eq!(guess(colour, Kind::Image), None, "{what}");
        }
    }

    #[test]
    fn coloured_marks_on_a_grey_picture_are_no_endoscopy() {
        let mut marked = picture([100.0, 100.0, 100.0], Kind::Image);
        let n = marked.values().len() / 3;
        // A third of the picture shows flow in red.
        let reddened = marked.values_mut().get_mut(..n / 3).unwrap();
        reddened.fill(230.0);
        assert_eq!(modality(&marked), None);
    }

    #[test]
    fn what_a_file_states_is_not_guessed() {
        let mut stated = volume(body(40_000));
        stated.modality = Some("MR".to_owned());
        assert_eq!(modality(&stated), None);
    }

    #[test]
    fn a_large_image_is_looked_at_in_few_places_that_meet_every_column() {
        let places: Vec<usize> = sampled(40_000_000).collect();
        assert!(places.len() <= MAX_SAMPLES);
        assert!(places.is_sorted());
        let columns: std::collections::HashSet<usize> =
            places.iter().map(|idx| idx % 400).collect();
        assert_eq!(columns.len(), 400);
        assert_eq!(sampled(0).count(), 0);
        assert_eq!(sampled(3).collect::<Vec<_>>(), [0, 1, 2]);
    }
}
