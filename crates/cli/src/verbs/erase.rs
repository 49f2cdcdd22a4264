//! `m3ret erase`: patients and images that leave galleries for good.

use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, ensure};

use super::{short, write_json_line};
use crate::Outcome;
use crate::cli::EraseArguments;
use crate::out;
use crate::progress::Progress;
use crate::screen::Screen;
use m3ret::erase::{
    Action, Caches, EraseOptions, ErasedPlace, Patient, Receipt, Scan, Subject, Verification,
    allow_again, erase, verify,
};
use m3ret::files::check_free;
use m3ret::words::{counted, printable, printable_path};
use m3ret_server::clock;

/// Erases, allows again or proves, and prints what was done.
pub(crate) fn run(arguments: &EraseArguments, screen: Screen) -> anyhow::Result<Outcome> {
    let progress = Progress::start(screen);
    if let Some(receipt) = &arguments.verify {
        let patient = patient_of(arguments)?;
        let verified = verify(receipt, &arguments.galleries, patient.as_ref(), &progress)?;
        progress.clear();
        return print_verified(&verified, arguments.json);
    }
    let subject = subject_of(arguments)?;
    if let Some(receipt) = &arguments.receipt {
        check_free(receipt, arguments.force)?;
    }
    let options = EraseOptions {
        snapshots: arguments.snapshots,
        caches: match (&arguments.cache, arguments.caches) {
            (_, false) => Caches::None,
            (None, true) => Caches::OfUser,
            (Some(cache), true) => Caches::At(cache.clone()),
        },
        who: arguments.who.clone().unwrap_or_else(user),
        reason: arguments.reason.clone(),
        time: clock::now(),
        receipt: arguments.receipt.clone(),
        settled: Vec::new(),
        is_dry_run: arguments.dry_run,
    };
    let receipt = match (&subject, arguments.allow_again) {
        (Subject::Patient(patient), true) => allow_again(&arguments.galleries, patient, &options)?,
        _ => erase(&arguments.galleries, &subject, &options, &progress)?,
    };
    progress.clear();
    let mut out = out::stdout();
    match arguments.json {
        true => write_json_line(&mut out, &receipt)?,
        false => print(&mut out, &receipt)?,
    }
    out.flush()?;
    Ok(Outcome::of(receipt.is_proved()))
}

/// Returns the patient, if one is named.
fn patient_of(arguments: &EraseArguments) -> anyhow::Result<Option<Patient>> {
    let issuer = arguments.issuer.as_deref();
    let number = match (&arguments.patient, &arguments.patient_file) {
        (Some(number), _) => number.clone(),
        (None, Some(file)) => line_of(file)?,
        (None, None) => {
            ensure!(
                issuer.is_none(),
                "--issuer belongs to the number of a patient (--patient-file, --patient)"
            );
            return Ok(None);
        }
    };
    Ok(Some(Patient::new(&number, issuer)?))
}

fn subject_of(arguments: &EraseArguments) -> anyhow::Result<Subject> {
    if let Some(patient) = patient_of(arguments)? {
        return Ok(Subject::Patient(patient));
    }
    let Some(file) = &arguments.rows_from else {
        return Ok(Subject::Images(arguments.id.clone()));
    };
    let text = text_of(file, MAX_IDS_BYTES)?;
    let lines = text.lines().filter(|line| !line.is_empty());
    Ok(Subject::Images(lines.map(str::to_owned).collect()))
}

/// Most bytes of a file with the number of a patient.
const MAX_NUMBER_BYTES: u64 = 4096;
/// Most bytes of a file with ids.
const MAX_IDS_BYTES: u64 = 1 << 30;

/// Reads a file of one line.
fn line_of(file: &Path) -> anyhow::Result<String> {
    let text = text_of(file, MAX_NUMBER_BYTES)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

fn text_of(file: &Path, max_bytes: u64) -> anyhow::Result<String> {
    let doing = || format!("reading {}", printable_path(file));
    let mut bytes = Vec::new();
    let max = max_bytes + 1;
    match file == Path::new("-") {
        true => std::io::stdin().take(max).read_to_end(&mut bytes),
        false => std::fs::File::open(file).and_then(|file| file.take(max).read_to_end(&mut bytes)),
    }
    .with_context(doing)?;
    ensure!(
        bytes.len() as u64 <= max_bytes,
        "{} has more than {max_bytes} bytes",
        printable_path(file)
    );
    // The bytes are not repeated: they are whose they are.
    String::from_utf8(bytes).map_err(|_| anyhow::anyhow!("{} is not UTF-8", printable_path(file)))
}

/// Returns the name of the user of this machine.
fn user() -> String {
    let set = |name: &str| std::env::var(name).ok().filter(|name| !name.is_empty());
    set("LOGNAME")
        .or_else(|| set("USER"))
        .unwrap_or_else(|| "unknown".to_owned())
}

fn print(out: &mut impl std::io::Write, receipt: &Receipt) -> std::io::Result<()> {
    for place in &receipt.places {
        let name = printable(&short(&place.place));
        if receipt.action == Action::AllowAgain {
            writeln!(
                out,
                "allowed   the patient is on the list of {name} no longer"
            )?;
            continue;
        }
        let verb = match receipt.is_dry_run {
            true => "would be ",
            false => "",
        };
        let counts = &place.counts;
        writeln!(
            out,
            "{verb}erased    {} from {name}, {} left",
            counted(counts.n_rows as u64, "image", "images"),
            place.n_rows_left
        )?;
        writeln!(
            out,
            "          {} removed before, {}, {}, {}",
            counts.n_rows_removed_before,
            counted(counts.n_views as u64, "view", "views"),
            counted(counts.n_thumbnails as u64, "thumbnail", "thumbnails"),
            counted(counts.n_refusals as u64, "refused image", "refused images"),
        )?;
        print_notes(out, place)?;
        if !receipt.is_dry_run {
            print_files(out, place)?;
            print_scan(out, &place.scan)?;
        }
    }
    if !receipt.is_dry_run && !receipt.not_reached.is_empty() {
        writeln!(out, "not reached")?;
        for text in &receipt.not_reached {
            writeln!(out, "  {text}")?;
        }
    }
    Ok(())
}

fn print_files(out: &mut impl std::io::Write, place: &ErasedPlace) -> std::io::Result<()> {
    let n_bytes = |files: &[m3ret::erase::FileSize]| files.iter().map(|f| f.n_bytes).sum::<u64>();
    writeln!(
        out,
        "files     {} of {} bytes removed, {} of {} bytes written",
        place.files_removed.len(),
        n_bytes(&place.files_removed),
        place.files_written.len(),
        n_bytes(&place.files_written),
    )
}

fn print_notes(out: &mut impl std::io::Write, place: &ErasedPlace) -> std::io::Result<()> {
    let notes = [
        (
            place.n_sharing,
            "images stay that share another number with erased ones: look at them",
        ),
        (
            place.n_with_issuer,
            "images stay whose number has an issuer: they are compared with --issuer only",
        ),
        (place.n_without_patient, "images stay that name no patient"),
    ];
    for (n, what) in notes.into_iter().filter(|(n, _)| *n > 0) {
        writeln!(out, "note      {n} {what}")?;
    }
    Ok(())
}

fn print_scan(out: &mut impl std::io::Write, scan: &Scan) -> std::io::Result<()> {
    let searched = format!(
        "{}, {} bytes, {}",
        counted(scan.n_files as u64, "file", "files"),
        scan.n_bytes,
        counted(scan.n_traces as u64, "trace", "traces")
    );
    let shared = match scan.n_shared {
        0 => String::new(),
        n => format!("; {n} in images that stay"),
    };
    match scan.n_found {
        0 => writeln!(out, "searched  {searched}: nothing is left{shared}")?,
        n => writeln!(out, "searched  {searched}: {n} ARE LEFT{shared}")?,
    }
    for file in &scan.found_in {
        writeln!(out, "  left in {}", printable(file))?;
    }
    for file in &scan.not_searched {
        writeln!(out, "  not searched: {}", printable(file))?;
    }
    Ok(())
}

fn print_verified(verified: &[Verification], is_json: bool) -> anyhow::Result<Outcome> {
    let mut out = out::stdout();
    for one in verified {
        if is_json {
            write_json_line(&mut out, one)?;
            continue;
        }
        let name = printable(&short(&one.place));
        writeln!(out, "unchanged {name}: the receipt is as it was written")?;
        let n_images = counted(one.n_images as u64, "image", "images");
        writeln!(out, "now       {n_images} of what was erased")?;
        match one.is_listed {
            Some(true) => writeln!(out, "listed    images of the patient are refused")?,
            Some(false) => writeln!(out, "listed    no: images of the patient may be added")?,
            None => {}
        }
        print_scan(&mut out, &one.scan)?;
    }
    out.flush()?;
    Ok(Outcome::of(verified.iter().all(Verification::is_good)))
}
