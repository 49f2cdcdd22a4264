//! Simulates radiographs of CT volumes, and writes a manifest that pairs them; see docs/simulate.md.

mod dicom;
mod disturb;
mod existing;
mod folder;
mod picture;
mod results;
mod sources;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::error::ensure;
use m3ret_imaging::projection::{Projection, Projector};
use m3ret_imaging::{Code, Kind, ReadOptions, Volume};
use m3ret_manifest::text_of;

use super::check::pixel_hash;
use super::embed::Refusal;
use super::embed::ahead::{guarded, volumes_of};
use crate::check::report::Report;
use crate::files::write_whole;
use crate::watch::Watch;
pub use disturb::Disturbance;
use folder::Folder;
use picture::{Radiograph, Subject};
pub use results::{
    DisturbedRadiograph, RadiographResult, RadiographSummary, RefusedSource, SimulatedRadiograph,
};
use sources::{Ct, Labels, Listing};

/// The default angles, in degrees: from the front, and from the left.
pub const ANGLES: [u16; 2] = [0, 90];

/// Share of a picture's integrals that lie below black, and below white, by default, in percent.
const PERCENTILES: [f64; 2] = [0.5, 99.5];

/// Volumes with values below this are taken for CT. Of tissues only lung is below it (fat is at -100 HU), and no
/// other modality is.
const AIR_HU: f32 = -200.0;

/// How pictures are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PictureFormat {
    /// Grey values of 8 or 16 bits.
    #[default]
    Png,
    /// Secondary Capture that holds the integrals in 16 bits.
    Dicom,
}

/// Which volumes without a unit are read as Hounsfield units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Hounsfield {
    /// Those of formats other than DICOM that have values below -200.
    #[default]
    WithAir,
    /// All but volumes of another modality than CT.
    All,
}

/// What is projected, how it is shown, and where it is written.
#[derive(Debug, Clone)]
pub struct RadiographOptions {
    /// Files, folders with DICOM series, or manifests, of which rows with modality `CT` and dims `3d` are read.
    pub sources: Vec<PathBuf>,
    /// The folder of the pictures and the manifest.
    pub out: PathBuf,
    /// Whether the folder may hold files; those with the same names are replaced.
    pub is_forced: bool,
    /// Whole degrees, 0..=359, around the axis from feet to head: 0 is the view from the front, 90 from the left.
    pub angles: Vec<u16>,
    /// Length of the longer side in pixels; `None` for pixels as fine as the CT, at most 2048.
    pub side_px: Option<u16>,
    /// How pictures are written.
    pub format: PictureFormat,
    /// Whether a pixel of a PNG has 16 bits instead of 8.
    pub is_16_bits: bool,
    /// Integrals that are drawn black and white, the first below the second; `None` for 0.5 and 99.5 % of each
    /// picture.
    pub window: Option<[f64; 2]>,
    /// The seed by which pictures are disturbed; `None` not to disturb them.
    pub disturb: Option<u64>,
    /// Which volumes without a unit are read as Hounsfield units.
    pub hounsfield: Hounsfield,
    /// Limits on cost.
    pub read_options: ReadOptions,
}

/// Receives the result of each image as soon as it is known.
pub(crate) type ResultSink<'a> = dyn FnMut(&RadiographResult) -> anyhow::Result<()> + 'a;

/// Projects CT volumes to radiographs, and writes these with a manifest that pairs them with their CTs.
///
/// Hands the result of each image to `sink`. A refused image does not end the work. If no image could be used,
/// nothing is written.
///
/// # Errors
/// If pictures are to be disturbed and written as DICOM; if the folder is not empty and not forced, or lies inside or
/// around what is read; if a source cannot be listed or a file cannot be written; errors of `sink`.
pub fn radiographs(
    options: &RadiographOptions,
    sink: &mut ResultSink<'_>,
    watch: &dyn Watch,
) -> crate::Result<RadiographSummary> {
    ensure!(
        options.disturb.is_none() || options.format == PictureFormat::Png,
        "--disturb changes grey values, which DICOM holds as integrals; leave --format dicom out"
    );
    let inputs: Vec<&Path> = options.sources.iter().map(PathBuf::as_path).collect();
    let folder = Folder::choose(&options.out, options.is_forced, &inputs)?;
    let is_disturbing = options.disturb.is_some();
    let listing = sources::list(&options.sources, &options.read_options, is_disturbing)?;
    for note in listing.notes(options) {
        watch.note(&note);
    }
    watch.count(listing.cts.len() + listing.radiographs.len());
    let mut job = Job::new(options, &folder, sink);
    for ct in &listing.cts {
        job.add(ct, volumes_of(&ct.item, &options.read_options))?;
        watch.advance(job.refused.len());
    }
    job.disturb_existing(&listing, watch)?;
    let manifest = job.write_manifest()?;
    Ok(job.into_summary(&listing, manifest.as_deref()))
}

/// The state of the work.
struct Job<'a> {
    options: &'a RadiographOptions,
    /// Each angle once, in the order in which they were asked for.
    angles: Vec<u16>,
    folder: &'a Folder,
    sink: &'a mut ResultSink<'a>,
    rows: Vec<folder::Row>,
    n_cts: usize,
    n_radiographs: usize,
    /// Radiographs of manifests that were disturbed.
    n_disturbed: usize,
    /// Images of a folder that are not CT volumes.
    n_others: usize,
    refused: Vec<Report>,
}

impl<'a> Job<'a> {
    fn new(
        options: &'a RadiographOptions,
        folder: &'a Folder,
        sink: &'a mut ResultSink<'a>,
    ) -> Self {
        let mut angles = Vec::with_capacity(options.angles.len());
        for &angle in &options.angles {
            if !angles.contains(&angle) {
                angles.push(angle);
            }
        }
        Self {
            options,
            angles,
            folder,
            sink,
            rows: Vec::new(),
            n_cts: 0,
            n_radiographs: 0,
            n_disturbed: 0,
            n_others: 0,
            refused: Vec::new(),
        }
    }

    /// Projects the volumes that could be read of an input, and reports the others as refused.
    fn add(
        &mut self,
        ct: &Ct,
        read: Result<Vec<(Option<String>, Volume)>, Refusal>,
    ) -> anyhow::Result<()> {
        let volumes = match read {
            Ok(volumes) => volumes,
            Err(refusal) => return self.refuse(ct, None, refusal),
        };
        for (part, volume) in volumes {
            if !ct.is_certain && is_other(&volume) {
                self.n_others += 1;
                continue;
            }
            let part = part.as_deref();
            match self.project(volume) {
                Ok((subject, pictures)) => self.write(ct, part, &subject, &pictures)?,
                Err(refusal) => self.refuse(ct, part, refusal)?,
            }
        }
        Ok(())
    }

    /// Projects a volume to every angle.
    fn project(&self, mut volume: Volume) -> Result<(Subject, Vec<Projection>), Refusal> {
        let side = self.options.side_px.map(usize::from);
        if volume.unit.is_none() && is_hounsfield(&volume, self.options.hounsfield) {
            volume.unit = Some("HU");
        }
        let pictures = guarded(|| {
            let projector = Projector::new(&volume)?;
            let angles = self.angles.iter();
            let pictures = angles.map(|&angle| projector.project(f64::from(angle), side));
            pictures.collect::<Result<Vec<_>, _>>()
        });
        let pictures = pictures.map_err(advised)?;
        let subject = Subject {
            key: pixel_hash(&volume),
            body_part: volume.body_part.take(),
        };
        Ok((subject, pictures))
    }

    /// Writes the pictures of one CT, and keeps its rows for the manifest.
    fn write(
        &mut self,
        ct: &Ct,
        part: Option<&str>,
        subject: &Subject,
        pictures: &[Projection],
    ) -> anyhow::Result<()> {
        self.n_cts += 1;
        let labels = ct.labels.completed(subject);
        self.rows.push(self.folder.ct_row(ct, part, &labels));
        for (angle, picture) in self.angles.clone().into_iter().zip(pictures) {
            let name = format!(
                "{}#{}#{}",
                ct.item.path,
                part.unwrap_or_default(),
                view_of(angle)
            );
            let (seed, window) = (self.options.disturb, self.options.window);
            let radiograph = Radiograph {
                picture,
                window: window.unwrap_or_else(|| picture.percentiles(PERCENTILES)),
                angle,
                body_part: &labels.body_part,
                key: subject.key,
                disturbance: seed.map(|seed| Disturbance::draw(seed, &name)),
            };
            self.write_one(ct, part, &labels, radiograph)?;
        }
        Ok(())
    }

    fn write_one(
        &mut self,
        ct: &Ct,
        part: Option<&str>,
        labels: &Labels,
        radiograph: Radiograph<'_>,
    ) -> anyhow::Result<()> {
        let (bytes, extension) = radiograph.encode(self.options)?;
        let view = view_of(radiograph.angle);
        let name = format!("{:05}-{view}.{extension}", self.n_cts);
        let finding = format!("drr-{view}");
        let path = self.folder.path_for(&name)?;
        write_whole(&path, |out| Ok(out.write_all(&bytes)?))?;
        let row = labels.radiograph_row(name, &finding, self.options.disturb);
        self.rows.push(row);
        self.n_radiographs += 1;
        let Radiograph {
            picture,
            disturbance,
            ..
        } = radiograph;
        let sides = [picture.height, picture.width];
        let [height, width] = disturbance.map_or(sides, |disturbance| {
            disturbance.sides(picture.height, picture.width)
        });
        let [_, max_integral] = picture.percentiles([0.0, 100.0]);
        (self.sink)(&RadiographResult::Simulated(SimulatedRadiograph {
            path: text_of(&path),
            ct: ct.item.path.clone(),
            ct_part: part.map(str::to_owned),
            pair_id: labels.pair_id.clone(),
            finding,
            angle_deg: radiograph.angle,
            height,
            width,
            pixel_mm: picture.pixel_mm,
            window: radiograph.window,
            max_integral,
            disturbance,
        }))
    }

    fn refuse(&mut self, ct: &Ct, part: Option<&str>, refusal: Refusal) -> anyhow::Result<()> {
        let report = Report::refused(ct.item.path.as_ref(), refusal.code, refusal.message);
        let report = Report {
            part: part.map(str::to_owned),
            ..report
        };
        (self.sink)(&RadiographResult::Refused(RefusedSource {
            path: report.path.clone(),
            part: report.part.clone(),
            reason_codes: report.reason_codes.clone(),
            error: report.error.clone(),
        }))?;
        self.refused.push(report);
        Ok(())
    }

    /// Writes the manifest, if it has rows.
    fn write_manifest(&self) -> anyhow::Result<Option<PathBuf>> {
        if self.rows.is_empty() {
            return Ok(None);
        }
        self.folder.write_manifest(&self.rows).map(Some)
    }

    fn into_summary(self, listing: &Listing, manifest: Option<&Path>) -> RadiographSummary {
        let mut reason_codes = BTreeMap::new();
        for code in self.refused.iter().flat_map(|report| &report.reason_codes) {
            *reason_codes.entry(code.as_str()).or_default() += 1;
        }
        RadiographSummary {
            n_cts: self.n_cts,
            n_radiographs: self.n_radiographs,
            n_disturbed: self.n_disturbed,
            n_refused: self.refused.len(),
            n_others: self.n_others + listing.n_others,
            n_disturbed_before: listing.n_disturbed,
            n_not_images: listing.n_foreign,
            reason_codes,
            manifest: manifest.map(text_of),
            refused: self.refused,
        }
    }
}

/// Names the view from an angle: `ap`, `lat`, or the angle itself.
fn view_of(angle: u16) -> String {
    match angle {
        0 => "ap".to_owned(),
        90 => "lat".to_owned(),
        _ => format!("{angle:03}"),
    }
}

/// Returns whether an image of a folder is clearly something other than a CT volume.
fn is_other(volume: &Volume) -> bool {
    let is_ct = volume.modality.as_deref().is_none_or(|word| word == "CT");
    volume.kind != Kind::Volume || !is_ct
}

/// Returns whether values without a unit are read as Hounsfield units.
fn is_hounsfield(volume: &Volume, choice: Hounsfield) -> bool {
    match choice {
        Hounsfield::All => true,
        // A CT in DICOM would state its unit.
        Hounsfield::WithAir => {
            let mut values = volume.values().iter();
            volume.modality.is_none() && values.any(|&hu| hu.is_finite() && hu < AIR_HU)
        }
    }
}

/// Adds to a refusal what a person can do about values of unknown meaning.
fn advised(refusal: Refusal) -> Refusal {
    if refusal.code != Code::NotHounsfield {
        return refusal;
    }
    let Refusal { code, message } = refusal;
    let message = format!("{message}; if it is one, say --hounsfield all");
    Refusal { code, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::Quiet;

    #[test]
    fn pictures_are_not_disturbed_as_dicom() {
        let folder = tempfile::tempdir().unwrap();
        let options = RadiographOptions {
            sources: Vec::new(),
            out: folder.path().join("out"),
            is_forced: false,
            angles: ANGLES.to_vec(),
            side_px: None,
            format: PictureFormat::Dicom,
            is_16_bits: false,
            window: None,
            disturb: Some(0),
            hounsfield: Hounsfield::default(),
            read_options: ReadOptions::default(),
        };
        let mut sink = |_: &RadiographResult| Ok(());
        assert!(radiographs(&options, &mut sink, &Quiet).is_err());
        let options = RadiographOptions {
            disturb: None,
            ..options
        };
        let summary = radiographs(&options, &mut sink, &Quiet).unwrap();
        assert_eq!((summary.n_cts, summary.manifest), (0, None));
        assert!(!options.out.exists());
    }

    #[test]
    fn views_have_fixed_names() {
        let names = [0, 90, 45, 180].map(view_of);
        assert_eq!(names, ["ap", "lat", "045", "180"]);
    }

    #[test]
    fn values_without_a_unit_must_hold_air() {
        let make = |value: f32, modality: Option<&str>| {
            let mut volume =
                Volume::new(vec![0.0, value, f32::NAN], [1, 3, 1, 1], Kind::Volume).unwrap();
            volume.modality = modality.map(str::to_owned);
            volume
        };
        for (value, modality, choice, expected) in [
            (-900.0, None, Hounsfield::WithAir, true),
            (-100.0, None, Hounsfield::WithAir, false),
            (f32::NEG_INFINITY, None, Hounsfield::WithAir, false),
            (-900.0, Some("CT"), Hounsfield::WithAir, false),
            (40.0, Some("CT"), Hounsfield::All, true),
        ] {
            let found = is_hounsfield(&make(value, modality), choice);
            assert_eq!(found, expected, "{value} {modality:?} {choice:?}");
        }
    }
}
