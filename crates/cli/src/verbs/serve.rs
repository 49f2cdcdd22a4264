//! `m3ret serve`: galleries over HTTP.

use std::io::Write as _;
use std::path::PathBuf;

use crate::Outcome;
use crate::cli::ServeArguments;
use crate::out;
use crate::progress::Progress;
use crate::screen::Screen;
use m3ret::watch::Watch as _;
use m3ret_server::accounts::{account_line, random_token};
use m3ret_server::{Limits, Settings, Started, serve};

/// Serves until an interrupt comes.
pub(crate) fn run(arguments: &ServeArguments, screen: Screen) -> anyhow::Result<Outcome> {
    if let Some((role, name)) = &arguments.new_token {
        let token = random_token()?;
        let mut out = out::stdout();
        writeln!(out, "token  {token}")?;
        writeln!(out, "line   {}", account_line(&token, *role, name)?)?;
        return Ok(Outcome::AllGood);
    }
    arguments.reading.start_threads()?;
    let progress = Progress::start(screen);
    // An interrupt ends the server, which erases what was uploaded.
    progress.defer(true);
    let spool = SpoolFolder::of(arguments)?;
    let settings = settings_of(arguments, &spool.path);
    if settings.audit.is_none() {
        progress.note("no --audit given: no audit trail is written");
    }
    let head = serve(&settings, &progress, &mut |started| {
        progress.clear();
        Ok(tell(started)?)
    })?;
    if let Some(head) = head {
        let (n, digest) = (head.n_lines, head.digest);
        progress.note(&format!(
            "the audit trail ends with line {n}, digest {digest}"
        ));
    }
    Ok(Outcome::AllGood)
}

/// Says where the server listens, and with which token.
fn tell(started: &Started) -> std::io::Result<()> {
    let mut out = out::stdout();
    match &started.token {
        Some(token) => writeln!(out, "http://{}/#token={token}", started.address)?,
        None => writeln!(out, "http://{}/", started.address)?,
    }
    out.flush()
}

fn settings_of(arguments: &ServeArguments, spool: &std::path::Path) -> Settings {
    let mut limits = Limits::default();
    if let Some(max_upload) = arguments.max_upload {
        limits.max_upload_bytes = u64::try_from(max_upload.get()).unwrap_or(u64::MAX);
    }
    Settings {
        galleries: arguments.archive.clone(),
        listen: arguments.listen,
        hosts: arguments.host.clone(),
        spool: spool.to_owned(),
        audit: arguments.audit.clone(),
        token_file: arguments.token_file.clone(),
        model: arguments.model.choice(),
        reading: arguments.reading.reading(),
        limits,
    }
}

/// The folder of uploads; one of our own is removed at the end.
struct SpoolFolder {
    path: PathBuf,
    is_own: bool,
}

impl SpoolFolder {
    fn of(arguments: &ServeArguments) -> anyhow::Result<Self> {
        if let Some(path) = &arguments.spool {
            return Ok(Self {
                path: path.clone(),
                is_own: false,
            });
        }
        let name = random_token()?;
        let name = format!("m3ret-spool-{}", name.get(..16).unwrap_or_default());
        Ok(Self {
            path: std::env::temp_dir().join(name),
            is_own: true,
        })
    }
}

impl Drop for SpoolFolder {
    fn drop(&mut self) {
        if self.is_own {
            // It may not have been made.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
