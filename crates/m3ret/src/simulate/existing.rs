//! Simulated radiographs that a manifest already has: disturbed, and written beside their CT volumes.

use m3ret_manifest::text_of;
use std::io::Write as _;

use m3ret_imaging::{Code, Volume};

use super::Job;
use super::disturb::{Disturbance, Grey};
use super::picture::grey_png;
use super::results::{DisturbedRadiograph, RadiographResult};
use super::sources::{Ct, Listing};
use crate::embed::Refusal;
use crate::embed::ahead::volumes_of;
use crate::files::write_whole;
use crate::watch::Watch;

impl Job<'_> {
    /// Disturbs every radiograph of the listing; CT volumes that share a pair with one get their rows
    /// without being read.
    pub(super) fn disturb_existing(
        &mut self,
        listing: &Listing,
        watch: &dyn Watch,
    ) -> anyhow::Result<()> {
        let Some(seed) = self.options.disturb else {
            return Ok(());
        };
        for ct in &listing.partners {
            let part = ct.part();
            let row = self.folder.ct_row(ct, part.as_deref(), &ct.labels);
            self.rows.push(row);
        }
        for radiograph in &listing.radiographs {
            let picture =
                volumes_of(&radiograph.item, &self.options.read_options).and_then(|volumes| {
                    let volumes = volumes.into_iter().map(|(_, volume)| volume);
                    grey_of(&volumes.collect::<Vec<_>>())
                });
            match picture {
                Ok(picture) => self.write_disturbed(radiograph, &picture, seed)?,
                Err(refusal) => self.refuse(radiograph, None, refusal)?,
            }
            watch.advance(self.refused.len());
        }
        Ok(())
    }

    fn write_disturbed(
        &mut self,
        radiograph: &Ct,
        picture: &Grey,
        seed: u64,
    ) -> anyhow::Result<()> {
        let disturbance = Disturbance::draw(seed, &radiograph.item.path);
        let picture = disturbance.apply(picture);
        let bytes = grey_png(&picture, self.options.is_16_bits)?;
        self.n_disturbed += 1;
        let name = format!("radiograph-{:05}.png", self.n_disturbed);
        let path = self.folder.path_for(&name)?;
        write_whole(&path, |out| Ok(out.write_all(&bytes)?))?;
        let labels = &radiograph.labels;
        let row = labels.disturbed_row(name, seed);
        self.rows.push(row);
        (self.sink)(&RadiographResult::Disturbed(DisturbedRadiograph {
            path: text_of(&path),
            radiograph: radiograph.item.path.clone(),
            pair_id: labels.pair_id.clone(),
            finding: labels.finding.clone(),
            height: picture.height,
            width: picture.width,
            disturbance,
        }))
    }
}

/// Scales the grey values of a picture from its least (black) to its largest (white); colours are averaged.
fn grey_of(volumes: &[Volume]) -> Result<Grey, Refusal> {
    let mismatch = |found: String| Refusal {
        code: Code::Mismatch,
        message: format!(
            "found {found}; wanted one picture, as the manifest calls it a radiograph"
        ),
    };
    let [volume] = volumes else {
        return Err(mismatch(format!("{} images", volumes.len())));
    };
    let [n_channels, depth, height, width] = volume.shape();
    if depth != 1 {
        return Err(mismatch(format!("{depth} slices or frames")));
    }
    let n = height * width;
    let value = |place: usize| {
        let channels = (0..n_channels).map(|channel| volume.values()[channel * n + place]);
        channels.sum::<f32>() / n_channels as f32
    };
    let values: Vec<f32> = (0..n).map(value).collect();
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    let low = finite().fold(f32::INFINITY, f32::min);
    let high = finite().fold(f32::NEG_INFINITY, f32::max);
    let share = |value: f32| {
        // A picture of one grey value is black.
        let share = (value - low) / (high - low);
        if share.is_finite() { share } else { 0.0 }
    };
    Ok(Grey {
        shares: values.iter().map(|&value| share(value)).collect(),
        height,
        width,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use m3ret_imaging::Kind;

    #[test]
    fn pictures_span_black_to_white_and_others_are_refused() {
        let volume = |values: Vec<f32>, shape| Volume::new(values, shape, Kind::Image).unwrap();
        let grey = grey_of(&[volume(vec![10.0, 20.0, 30.0, f32::NAN], [1, 1, 2, 2])]).unwrap();
        assert_eq!((grey.shares, grey.height), (vec![0.0, 0.5, 1.0, 0.0], 2));
        let colour = grey_of(&[volume(vec![0.0, 9.0, 0.0, 0.0, 0.0, 3.0], [3, 1, 1, 2])]).unwrap();
        assert_eq!(colour.shares, [0.0, 1.0]);
        let flat = grey_of(&[volume(vec![5.0; 4], [1, 1, 2, 2])]).unwrap();
        assert_eq!(flat.shares, [0.0; 4]);
        assert!(grey_of(&[]).is_err());
        let deep = Volume::new(vec![0.0; 8], [1, 2, 2, 2], Kind::Volume).unwrap();
        assert_eq!(grey_of(&[deep]).unwrap_err().code, Code::Mismatch);
    }
}
