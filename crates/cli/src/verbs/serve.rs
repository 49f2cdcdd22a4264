//! `m3ret serve`: galleries over HTTP.

use std::io::Write as _;
use std::path::PathBuf;

use clap::CommandFactory as _;
use clap::error::ErrorKind;

use crate::Outcome;
use crate::cli::{Auth, Cli, DicomArguments, ServeArguments};
use crate::out;
use crate::progress::Progress;
use crate::screen::Screen;
use m3ret::watch::Watch as _;
use m3ret_server::accounts::{account_line, random_token};
use m3ret_server::{
    DicomOptions, Keys, Limits, OidcOptions, ProxyOptions, ScpOptions, Settings, SignIn, Started,
    TlsFiles, own_spool, serve,
};

/// Serves until an interrupt comes.
pub(crate) fn run(arguments: &ServeArguments, screen: Screen) -> anyhow::Result<Outcome> {
    if let Some((role, name)) = &arguments.new_token {
        let token = random_token()?;
        let mut out = out::stdout();
        writeln!(out, "token  {token}")?;
        writeln!(out, "line   {}", account_line(&token, *role, name)?)?;
        return Ok(Outcome::AllGood);
    }
    let spool = SpoolFolder::of(arguments)?;
    let settings = settings_of(arguments, &spool.path);
    if let Err(error) = arguments.check().and_then(|()| settings.check()) {
        Cli::command()
            .error(ErrorKind::ValueValidation, format!("{error:#}"))
            .exit();
    }
    arguments.reading.start_threads()?;
    let progress = Progress::start(screen);
    // An interrupt ends the server, which erases what was uploaded.
    progress.defer(true);
    if settings.audit.is_none() {
        progress.note("no --audit given: no audit trail is written");
    }
    let head = serve(&settings, &progress, &mut |started| {
        progress.clear();
        Ok(tell(started, settings.tls.is_some())?)
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
fn tell(started: &Started, is_encrypted: bool) -> std::io::Result<()> {
    let mut out = out::stdout();
    let scheme = if is_encrypted { "https" } else { "http" };
    match &started.token {
        Some(token) => writeln!(out, "{scheme}://{}/#token={token}", started.address)?,
        None => writeln!(out, "{scheme}://{}/", started.address)?,
    }
    if let Some(scp) = started.scp {
        writeln!(out, "dicom://{scp}/")?;
    }
    out.flush()
}

fn sign_in_of(arguments: &ServeArguments) -> SignIn {
    let (oidc, proxy) = (&arguments.oidc, &arguments.proxy);
    match arguments.auth {
        Auth::Token => SignIn::Tokens,
        Auth::Oidc => {
            let keys = oidc.oidc_jwks.clone().unwrap_or_default();
            let is_url = keys.contains("://");
            SignIn::Oidc(OidcOptions {
                issuer: oidc.oidc_issuer.clone().unwrap_or_default(),
                audience: oidc.oidc_audience.clone(),
                keys: match is_url {
                    true => Keys::Url(keys),
                    false => Keys::File(keys.into()),
                },
                roles_claim: oidc.roles_claim.clone(),
                name_claim: oidc.name_claim.clone(),
                authorities: oidc.oidc_ca.clone(),
            })
        }
        Auth::Proxy => SignIn::Proxy(ProxyOptions {
            header: proxy.proxy_header.clone(),
            role_header: proxy.proxy_role_header.clone(),
            from: proxy.proxy_from.clone(),
        }),
    }
}

fn dicom_of(arguments: &DicomArguments) -> Option<DicomOptions> {
    let scp = arguments.scp.map(|listen| ScpOptions {
        listen,
        ae: arguments.ae.clone(),
        peers: arguments.peer.clone(),
    });
    Some(DicomOptions {
        into: arguments.dicom_into.clone()?,
        spool: arguments.dicom_spool.clone(),
        scp,
        settle: arguments.settle,
    })
}

fn settings_of(arguments: &ServeArguments, spool: &std::path::Path) -> Settings {
    let limits = Limits {
        max_patients_an_hour: arguments.max_patients_per_hour.get(),
        max_upload_bytes: arguments.max_upload,
        ..Limits::default()
    };
    Settings {
        galleries: arguments.archive.clone(),
        listen: arguments.listen,
        hosts: arguments.host.clone(),
        spool: spool.to_owned(),
        audit: arguments.audit.clone(),
        token_file: arguments.token_file.clone(),
        sign_in: sign_in_of(arguments),
        tls: match (&arguments.tls_cert, &arguments.tls_key) {
            (Some(cert), Some(key)) => Some(TlsFiles {
                cert: cert.clone(),
                key: key.clone(),
            }),
            _ => None,
        },
        dicom: dicom_of(&arguments.dicom),
        key_file: arguments.key_file.clone(),
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
        Ok(Self {
            path: own_spool()?,
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
