//! `m3ret simulate radiographs`: CT volumes to pictures, and a manifest that pairs them.

mod dicom;
mod disturb;
mod existing;
mod folder;
mod picture;
mod sources;

use m3ret_manifest::text_of;
use std::collections::BTreeMap;
use std::io::{self, BufWriter, StdoutLock, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use m3ret_imaging::projection::{Projection, Projector};
use m3ret_imaging::{Code, Kind, Volume};
use serde::Serialize;

use super::check::pixel_hash;
use super::embed::Refusal;
use super::embed::ahead::{guarded, volumes_of};
use super::write_json_line;
use crate::Outcome;
use crate::cli::{
    Hounsfield, PictureFormat, RadiographsArguments, SimulateAction, SimulateArguments,
};
use crate::output::{Screen, write_whole};
use crate::progress::Progress;
use crate::report::text::{Paint, printable, section};
use crate::report::{Report, Verdict};
use crate::watch::Watch as _;
use crate::words::counted;
use disturb::Disturbance;
use folder::Folder;
use picture::{Shown, Subject};
use sources::{Ct, Labels, Listing};

/// What a person sees of the range of integrals.
const PERCENTILES: [f64; 2] = [0.5, 99.5];

/// No tissue but lung, and no image other than CT, has values below; fat is at -100 HU.
const AIR_HU: f32 = -200.0;

/// Runs the one thing that is simulated.
pub(crate) fn run(arguments: &SimulateArguments, screen: Screen) -> anyhow::Result<Outcome> {
    match &arguments.action {
        SimulateAction::Radiographs(arguments) => radiographs(arguments, screen),
    }
}

fn radiographs(arguments: &RadiographsArguments, screen: Screen) -> anyhow::Result<Outcome> {
    ensure!(
        arguments.disturb.is_none() || arguments.format == PictureFormat::Png,
        "--disturb changes grey values, which DICOM holds as integrals; leave --format dicom out"
    );
    arguments.reading.start_threads()?;
    let options = arguments.reading.options();
    let progress = Progress::start(screen);
    let folder = Folder::choose(&arguments.out, arguments.force)?;
    let listing = sources::list(
        &arguments.sources,
        &folder,
        &options,
        arguments.disturb.is_some(),
    )?;
    for note in listing.notes(arguments) {
        progress.note(&note);
    }
    progress.count(listing.cts.len() + listing.radiographs.len());
    let mut job = Job::new(arguments, &folder, &progress);
    for ct in &listing.cts {
        job.take(ct, volumes_of(&ct.item, &options))?;
        progress.advance(job.refused.len());
    }
    job.disturb_existing(&listing, &options)?;
    let manifest = job.write_manifest()?;
    progress.clear();
    job.end(&listing, manifest.as_deref(), screen)
}

/// The work and what came of it so far.
struct Job<'a> {
    arguments: &'a RadiographsArguments,
    /// Each angle once, in the order in which they were asked for.
    angles: Vec<u16>,
    folder: &'a Folder,
    progress: &'a Progress,
    out: BufWriter<StdoutLock<'static>>,
    rows: Vec<folder::Row>,
    n_cts: usize,
    n_radiographs: usize,
    /// Radiographs of manifests that were disturbed.
    n_disturbed: usize,
    /// Images of a folder that are no CT volumes.
    n_others: usize,
    refused: Vec<Report>,
}

/// One radiograph as JSON.
#[derive(Debug, Serialize)]
struct Line<'a> {
    verdict: &'static str,
    path: String,
    ct: &'a str,
    ct_part: Option<&'a str>,
    pair_id: &'a str,
    finding: String,
    angle_deg: u16,
    height: usize,
    width: usize,
    pixel_mm: f64,
    /// Integrals that are shown black and white.
    window: [f64; 2],
    max_integral: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    disturbance: Option<Disturbance>,
}

/// A refused image as JSON.
#[derive(Debug, Serialize)]
struct RefusedLine<'a> {
    verdict: &'static str,
    path: &'a str,
    part: Option<&'a str>,
    reason_codes: &'a [Code],
    error: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct LastLine {
    summary: Summary,
}

/// What a run amounts to.
#[derive(Debug, Serialize)]
struct Summary {
    n_cts: usize,
    n_radiographs: usize,
    /// Radiographs of manifests that were disturbed.
    n_disturbed: usize,
    n_refused: usize,
    /// Rows and images that are no CT volumes.
    n_others: usize,
    /// Radiographs of manifests that had been disturbed before, and are not again.
    n_disturbed_before: usize,
    /// Files that hold no image format.
    n_not_images: usize,
    reason_codes: BTreeMap<&'static str, usize>,
    /// Null where nothing was written.
    manifest: Option<String>,
}

impl<'a> Job<'a> {
    fn new(
        arguments: &'a RadiographsArguments,
        folder: &'a Folder,
        progress: &'a Progress,
    ) -> Self {
        let mut angles = Vec::with_capacity(arguments.angles.len());
        for &angle in &arguments.angles {
            if !angles.contains(&angle) {
                angles.push(angle);
            }
        }
        Self {
            arguments,
            angles,
            folder,
            progress,
            out: BufWriter::new(io::stdout().lock()),
            rows: Vec::new(),
            n_cts: 0,
            n_radiographs: 0,
            n_disturbed: 0,
            n_others: 0,
            refused: Vec::new(),
        }
    }

    /// Takes what could be read of an input, and goes on whatever became of it.
    fn take(
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
        let side = self.arguments.side.map(usize::from);
        if volume.unit.is_none() && is_hounsfield(&volume, self.arguments.hounsfield) {
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

    /// Writes the pictures of one CT, and notes its rows.
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
            let seed = self.arguments.disturb;
            let fixed = self.arguments.window.map(|window| window.ends);
            let shown = Shown {
                picture,
                window: fixed.unwrap_or_else(|| picture.percentiles(PERCENTILES)),
                angle,
                body_part: &labels.body_part,
                key: subject.key,
                disturbance: seed.map(|seed| Disturbance::draw(seed, &name)),
            };
            self.write_one(ct, part, &labels, shown)?;
        }
        Ok(())
    }

    fn write_one(
        &mut self,
        ct: &Ct,
        part: Option<&str>,
        labels: &Labels,
        shown: Shown<'_>,
    ) -> anyhow::Result<()> {
        let (bytes, extension) = shown.encode(self.arguments)?;
        let view = view_of(shown.angle);
        let name = format!("{:05}-{view}.{extension}", self.n_cts);
        let finding = format!("drr-{view}");
        let path = self.folder.path_for(&name)?;
        write_whole(&path, |out| Ok(out.write_all(&bytes)?))?;
        let row = labels.radiograph_row(name, &finding, self.arguments.disturb);
        self.rows.push(row);
        self.n_radiographs += 1;
        let (height, width) = (shown.picture.height, shown.picture.width);
        let [height, width] = shown.disturbance.map_or([height, width], |disturbance| {
            disturbance.sides(height, width)
        });
        let [_, max_integral] = shown.picture.percentiles([0.0, 100.0]);
        self.tell(&Line {
            verdict: "simulated",
            path: text_of(&path),
            ct: &ct.item.path,
            ct_part: part,
            pair_id: &labels.pair_id,
            finding,
            angle_deg: shown.angle,
            height,
            width,
            pixel_mm: shown.picture.pixel_mm,
            window: shown.window,
            max_integral,
            disturbance: shown.disturbance,
        })
    }

    fn refuse(&mut self, ct: &Ct, part: Option<&str>, refusal: Refusal) -> anyhow::Result<()> {
        let report = Report::refused(ct.item.path.as_ref(), refusal.code, refusal.message);
        let report = Report {
            part: part.map(str::to_owned),
            ..report
        };
        self.tell(&RefusedLine {
            verdict: "refused",
            path: &report.path,
            part,
            reason_codes: &report.reason_codes,
            error: report.error.as_deref(),
        })?;
        self.refused.push(report);
        Ok(())
    }

    /// Prints a line of JSON, where JSON is wanted.
    fn tell(&mut self, line: &impl Serialize) -> anyhow::Result<()> {
        if !self.arguments.json {
            return Ok(());
        }
        let out = &mut self.out;
        let write = || {
            write_json_line(out, line)?;
            // Whoever reads along sees each object at once.
            out.flush()
        };
        Ok(self.progress.beside(write)?)
    }

    /// Writes the manifest, if there is anything to tell.
    fn write_manifest(&self) -> anyhow::Result<Option<PathBuf>> {
        if self.rows.is_empty() {
            return Ok(None);
        }
        self.folder.write_manifest(&self.rows).map(Some)
    }

    /// Prints the end, and says how it went.
    fn end(
        mut self,
        listing: &Listing,
        manifest: Option<&std::path::Path>,
        screen: Screen,
    ) -> anyhow::Result<Outcome> {
        let mut reason_codes = BTreeMap::new();
        for code in self.refused.iter().flat_map(|report| &report.reason_codes) {
            *reason_codes.entry(code.as_str()).or_default() += 1;
        }
        let summary = Summary {
            n_cts: self.n_cts,
            n_radiographs: self.n_radiographs,
            n_disturbed: self.n_disturbed,
            n_refused: self.refused.len(),
            n_others: self.n_others + listing.n_others,
            n_disturbed_before: listing.n_disturbed,
            n_not_images: listing.n_foreign,
            reason_codes,
            manifest: manifest.map(text_of),
        };
        let is_good = summary.n_refused == 0 && summary.n_cts + summary.n_disturbed > 0;
        if self.arguments.json {
            write_json_line(&mut self.out, &LastLine { summary })?;
        } else {
            let is_on = screen.has_colour;
            let text = text(&summary, &self.refused, Paint { is_on });
            self.out.write_all(text.as_bytes())?;
        }
        self.out.flush().context("writing to standard output")?;
        Ok(if is_good {
            Outcome::AllGood
        } else {
            Outcome::SomeRefused
        })
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

/// Says whether an image of a folder is plainly something else than a CT volume.
fn is_other(volume: &Volume) -> bool {
    let is_ct = volume.modality.as_deref().is_none_or(|word| word == "CT");
    volume.kind != Kind::Volume || !is_ct
}

/// Says whether values without a unit are taken for Hounsfield units.
fn is_hounsfield(volume: &Volume, choice: Hounsfield) -> bool {
    match choice {
        Hounsfield::All => true,
        // A CT in DICOM would have said so.
        Hounsfield::Told => {
            let mut values = volume.values().iter();
            volume.modality.is_none() && values.any(|&hu| hu.is_finite() && hu < AIR_HU)
        }
    }
}

/// Says what a person can do about values of unknown meaning.
fn advised(refusal: Refusal) -> Refusal {
    if refusal.code != Code::NotHounsfield {
        return refusal;
    }
    let Refusal { code, message } = refusal;
    let message = format!("{message}; if it is one, say --hounsfield all");
    Refusal { code, message }
}

/// Renders the refused images, then the totals.
fn text(summary: &Summary, refused: &[Report], paint: Paint) -> String {
    let mut text = String::new();
    section(&mut text, paint, Verdict::Refused, refused);
    let title = match &summary.manifest {
        Some(manifest) if summary.n_cts == 0 => format!(
            "{} disturbed: {}",
            counted(summary.n_disturbed as u64, "radiograph", "radiographs"),
            printable(manifest)
        ),
        Some(manifest) => format!(
            "{} of {}: {}",
            counted(summary.n_radiographs as u64, "radiograph", "radiographs"),
            counted(summary.n_cts as u64, "CT volume", "CT volumes"),
            printable(manifest)
        ),
        None => "no CT volume was projected, and nothing written".to_owned(),
    };
    text.push_str(&paint.bold(&title));
    text.push('\n');
    let mut line = |n: usize, what: &str| {
        if n > 0 {
            text.push_str(&format!("  {n} {what}\n"));
        }
    };
    if summary.n_cts > 0 {
        line(summary.n_disturbed, "radiographs of the manifest disturbed");
    }
    line(summary.n_refused, "refused");
    line(summary.n_others, "left out: no CT volumes");
    line(
        summary.n_disturbed_before,
        "left out: radiographs that are disturbed already",
    );
    line(summary.n_not_images, "left out: no image format");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

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
            (-900.0, None, Hounsfield::Told, true),
            (-100.0, None, Hounsfield::Told, false),
            (f32::NEG_INFINITY, None, Hounsfield::Told, false),
            (-900.0, Some("CT"), Hounsfield::Told, false),
            (40.0, Some("CT"), Hounsfield::All, true),
        ] {
            let found = is_hounsfield(&make(value, modality), choice);
            assert_eq!(found, expected, "{value} {modality:?} {choice:?}");
        }
    }

    #[test]
    fn the_end_as_text() {
        let summary = Summary {
            n_cts: 2,
            n_radiographs: 4,
            n_disturbed: 0,
            n_refused: 1,
            n_others: 3,
            n_disturbed_before: 0,
            n_not_images: 0,
            reason_codes: BTreeMap::new(),
            manifest: Some("out/manifest.csv".into()),
        };
        let report = Report::refused("in/mr.nii".as_ref(), Code::NotHounsfield, "why".into());
        insta::assert_snapshot!(text(&summary, &[report], Paint { is_on: false }), @r"
        Refused (1 object)
          not_hounsfield: why
              in/mr.nii

        4 radiographs of 2 CT volumes: out/manifest.csv
          1 refused
          3 left out: no CT volumes
        ");
    }
}
