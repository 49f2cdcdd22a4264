//! `m3ret sync`: a PACS into a gallery.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use m3ret::index::{SeriesOptions, spool_beside};
use m3ret::watch::{Stopped, Watch as _};
use m3ret_dicomnet::dimse::Peer;
use m3ret_dicomnet::spool::{Spool, SpoolLimits};
use m3ret_dicomnet::sync::{Desk, Observer, Origin, Summary, SyncOptions, sync};
use m3ret_dicomnet::{Error, HttpOptions, Login, Names, Selection};
use m3ret_search::Numbers;
use m3ret_server::intake::{Intake, IntakeOptions};
use m3ret_server::outside;

use super::write_json_line;
use crate::Outcome;
use crate::cli::{IntakeArguments, Place, SyncArguments};
use crate::out;
use crate::progress::Progress;
use crate::screen::Screen;

/// Syncs once, or until an interrupt comes.
pub(crate) fn run(arguments: &SyncArguments, screen: Screen) -> anyhow::Result<Outcome> {
    let taken = &arguments.intake;
    taken.reading.start_threads()?;
    let progress = Progress::start(screen);
    // What was fetched is added before an interrupt ends the work.
    progress.defer(true);
    let place = opened(arguments.place())?;
    ensure!(
        arguments.since.is_none() || !matches!(place, Place::Folder(_)),
        "--since: the days of studies are not looked up in a folder; leave it out, or sync from a PACS"
    );
    check_places(taken)?;
    let options = options_of(arguments);
    if taken.key_file.is_none() && !options.is_dry {
        progress.note("no --key-file given: hits cannot be opened in a viewer");
    }
    // A dry run leaves nothing behind: neither files that wait, nor a gallery where there was none, nor a key.
    let scratch = options.is_dry.then(tempfile::tempdir).transpose()?;
    let mut opening = intake_options(taken);
    let mut folder = spool_of(taken);
    if let Some(scratch) = &scratch {
        folder = scratch.path().join("spool");
        opening.key_file = None;
        if std::fs::symlink_metadata(&taken.into).is_err() {
            opening.series.gallery = scratch.path().join("gallery");
        }
    }
    let mut intake = Intake::open(&opening, &name_of(&place), &progress)?;
    let mut cursor = intake.cursor(&opening.series.gallery)?;
    let spool = Spool::open(&folder, intake.names(), SpoolLimits::default())?;
    let origin = origin_of(place, arguments, &folder, intake.names())?;
    let observer = Follower {
        progress: &progress,
        is_json: taken.json,
        is_dry: options.is_dry,
    };
    let mut desk = Desk {
        spool: &spool,
        cursor: &mut cursor,
    };
    match sync(&origin, &mut desk, &mut intake, &options, &observer) {
        Ok(summary) => Ok(Outcome::of(summary.n_failed + summary.n_given_up == 0)),
        Err(Error::Stopped) if options.every.is_some() => Ok(Outcome::AllGood),
        Err(error @ Error::Stopped) => Err(Stopped {
            saved: error.to_string(),
        }
        .into()),
        Err(error) => Err(error.into()),
    }
}

/// Returns what distinguishes a source from others.
fn name_of(place: &Place) -> String {
    match place {
        Place::DicomWeb(url) => format!("dicomweb {url}"),
        Place::Orthanc(url) => format!("orthanc {url}"),
        Place::Folder(folder) => format!("folder {}", folder.display()),
        Place::Dimse { ae, address } => format!("dimse {ae}@{address}"),
    }
}

/// Opens the folder that a source is, so that it has one name from everywhere.
fn opened(place: Place) -> anyhow::Result<Place> {
    Ok(match place {
        Place::Folder(folder) => {
            let doing = || format!("opening {}", folder.display());
            Place::Folder(folder.canonicalize().with_context(doing)?)
        }
        other => other,
    })
}

fn origin_of(
    place: Place,
    arguments: &SyncArguments,
    spool: &Path,
    names: Names,
) -> anyhow::Result<Origin> {
    Ok(match place {
        Place::DicomWeb(url) => Origin::DicomWeb(http_of(arguments, url)?),
        Place::Orthanc(url) => Origin::Orthanc(http_of(arguments, url)?),
        Place::Folder(folder) => Origin::Folder(folder),
        Place::Dimse { ae, address } => Origin::Dimse(Peer {
            ae,
            address,
            our_ae: arguments.ae.clone(),
            listen: arguments.listen,
            incoming: spool.join("incoming"),
            names,
        }),
    })
}

fn http_of(arguments: &SyncArguments, url: String) -> anyhow::Result<HttpOptions> {
    let login = match (
        &arguments.user,
        &arguments.password_file,
        &arguments.token_file,
    ) {
        (Some(user), Some(file), _) => Some(Login::Password {
            user: user.clone(),
            password: secret_of(file)?,
        }),
        (_, _, Some(file)) => Some(Login::Token(secret_of(file)?)),
        _ => None,
    };
    Ok(HttpOptions {
        url,
        login,
        ca: arguments.ca.clone(),
        client_cert: arguments.client_cert.clone(),
        allows_plain: arguments.plain_http,
    })
}

/// Reads the first line of a file.
fn secret_of(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path);
    let text = text.with_context(|| format!("reading {}", path.display()))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => bail!("{}: found nothing, wanted one line", path.display()),
    }
}

fn options_of(arguments: &SyncArguments) -> SyncOptions {
    SyncOptions {
        selection: Selection {
            since: arguments.since,
            modalities: arguments.modality.clone(),
        },
        every: arguments.every,
        pace: arguments.rate.unwrap_or_default(),
        quiet: arguments.settle,
        window: arguments.window,
        reconcile: arguments.reconcile,
        is_dry: arguments.dry_run,
        ..SyncOptions::default()
    }
}

/// Returns how series become rows.
pub(super) fn intake_options(arguments: &IntakeArguments) -> IntakeOptions {
    IntakeOptions {
        series: SeriesOptions {
            gallery: arguments.into.clone(),
            origin: String::new(),
            model: arguments.model.choice(),
            reading: arguments.reading.reading(),
            has_thumbnails: arguments.thumbnails,
            views: None,
            numbers: Numbers::F32,
        },
        key_file: arguments.key_file.clone(),
    }
}

/// Refuses a spool or a key within the gallery.
pub(super) fn check_places(arguments: &IntakeArguments) -> anyhow::Result<()> {
    let gallery = std::slice::from_ref(&arguments.into);
    for (option, place) in [
        ("--spool", &arguments.spool),
        ("--key-file", &arguments.key_file),
    ] {
        if let Some(place) = place {
            outside(option, place, gallery)?;
        }
    }
    Ok(())
}

/// Returns where files wait.
fn spool_of(arguments: &IntakeArguments) -> PathBuf {
    let beside = || spool_beside(&arguments.into);
    arguments.spool.clone().unwrap_or_else(beside)
}

/// Shows how a sync goes.
struct Follower<'a> {
    progress: &'a Progress,
    is_json: bool,
    is_dry: bool,
}

impl Observer for Follower<'_> {
    fn is_stopped(&self) -> bool {
        self.progress.is_stopped()
    }

    fn note(&self, sentence: &str) {
        self.progress.note(sentence);
    }

    fn round(&self, summary: &Summary) -> m3ret_dicomnet::Result<()> {
        self.progress.clear();
        let mut out = out::stdout();
        let written = match self.is_json {
            true => write_json_line(&mut out, summary),
            false => out.write_all(text_of(summary, self.is_dry).as_bytes()),
        };
        written
            .and_then(|()| out.flush())
            .map_err(|source| Error::Io {
                doing: "writing the results".to_owned(),
                source,
            })
    }
}

/// Returns one line for a round, and one for each reason of a refusal.
fn text_of(summary: &Summary, is_dry: bool) -> String {
    let verb = if is_dry { "to fetch" } else { "fetched" };
    let mut text = format!(
        "{} series listed: {} known, {} {verb} ({} objects); {} rows added, {} replaced, {} removed\n",
        summary.n_listed,
        summary.n_known,
        summary.n_fetched,
        summary.n_objects,
        summary.n_rows,
        summary.n_replaced,
        summary.n_removed
    );
    for (n, what) in [
        (summary.n_waiting, "series still change and wait"),
        (
            summary.n_without_images,
            "series hold no image that can be embedded",
        ),
        (
            summary.n_failed,
            "series failed and are tried again with the next round",
        ),
        (
            summary.n_given_up,
            "series failed in ten rounds and are not tried again",
        ),
    ] {
        if n > 0 {
            text += &format!("  {n} {what}\n");
        }
    }
    for (reason, n) in &summary.refused {
        text += &format!("  {n} images refused: {reason}\n");
    }
    text
}
