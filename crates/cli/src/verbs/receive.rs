//! `m3ret receive`: what others send by DICOM into a gallery.

use std::io::Write as _;
use std::net::TcpListener;
use std::sync::Arc;

use anyhow::Context as _;
use m3ret::index::received_beside;
use m3ret::watch::Watch as _;
use m3ret_dicomnet::Error;
use m3ret_dicomnet::collect::{CollectOptions, collect};
use m3ret_dicomnet::dimse::{Receiver, ReceiverOptions};
use m3ret_dicomnet::spool::{Spool, SpoolLimits, SpooledSeries};
use m3ret_dicomnet::sync::{Observer, PutOutcome};
use m3ret_server::intake::{Intake, RECEIVED_FROM};
use serde_json::json;

use super::sync::{check_places, intake_options};
use super::write_json_line;
use crate::Outcome;
use crate::cli::ReceiveArguments;
use crate::out;
use crate::progress::Progress;
use crate::screen::Screen;

/// Receives until an interrupt comes.
pub(crate) fn run(arguments: &ReceiveArguments, screen: Screen) -> anyhow::Result<Outcome> {
    arguments.check();
    let taken = &arguments.intake;
    check_places(taken)?;
    taken.reading.start_threads()?;
    let progress = Progress::start(screen);
    progress.defer(true);
    if taken.key_file.is_none() {
        progress.note("no --key-file given: hits cannot be opened in a viewer");
    }
    let mut options = ReceiverOptions::new(&arguments.ae)?;
    options.peers.clone_from(&arguments.peer);
    let listening = || format!("listening on {}", arguments.listen);
    let listener = TcpListener::bind(arguments.listen).with_context(listening)?;
    let mut intake = Intake::open(&intake_options(taken), RECEIVED_FROM, &progress)?;
    let limits = SpoolLimits::default();
    let beside = received_beside(&taken.into);
    let folder = taken.spool.as_ref().unwrap_or(&beside);
    let spool = Arc::new(Spool::open(folder, intake.names(), limits)?);
    let receiver = Receiver::start(listener, options, Arc::clone(&spool))?;
    let mut out = out::stdout();
    writeln!(out, "{}@{}", arguments.ae, receiver.address())?;
    out.flush()?;
    let options = CollectOptions {
        quiet: arguments.settle,
        keep: arguments.keep,
        ..CollectOptions::default()
    };
    let follower = Follower(&progress);
    let ended = collect(
        &spool,
        &mut intake,
        options,
        &follower,
        &mut |series, put| {
            progress.clear();
            tell(series, put, taken.json)
        },
    );
    let counts = receiver.counts();
    receiver.stop();
    ended?;
    // Late objects of these series come to nobody now.
    spool.erase_added()?;
    let n_waiting = spool.n_waiting();
    if n_waiting > 0 {
        let place = folder.display();
        progress.note(&format!(
            "{n_waiting} series wait in {place}, and are added with the next start"
        ));
    }
    progress.note(&format!(
        "{} objects stored, {} were there already, {} refused",
        counts.n_stored, counts.n_same, counts.n_refused
    ));
    Ok(Outcome::AllGood)
}

struct Follower<'a>(&'a Progress);

impl Observer for Follower<'_> {
    fn is_stopped(&self) -> bool {
        self.0.is_stopped()
    }

    fn note(&self, sentence: &str) {
        self.0.note(sentence);
    }
}

fn tell(series: &[SpooledSeries], put: &PutOutcome, is_json: bool) -> m3ret_dicomnet::Result<()> {
    let mut out = out::stdout();
    let n_objects: usize = series.iter().map(|series| series.n_objects).sum();
    let n_without = put.without_images.len();
    let written = match is_json {
        true => write_json_line(
            &mut out,
            &json!({
                "n_series": series.len(), "n_objects": n_objects, "n_rows": put.n_rows, "n_replaced": put.n_replaced,
                "n_without_images": n_without, "refused": put.refused,
            }),
        ),
        false => writeln!(
            out,
            "{} series received ({n_objects} objects): {} rows added, {} replaced; {n_without} series without an image",
            series.len(),
            put.n_rows,
            put.n_replaced
        ),
    };
    written
        .and_then(|()| out.flush())
        .map_err(|source| Error::Io {
            doing: "writing the results".to_owned(),
            source,
        })
}
