//! The arguments of `m3ret serve` and `m3ret audit`.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use std::time::Duration;

use anyhow::ensure;
use clap::{Args, Subcommand, ValueEnum};
use m3ret_dicomnet::dimse::PeerRule;
use m3ret_server::accounts::Role;

use super::numbers::{bytes, count};
use super::sync::duration;
use super::{ModelArguments, ReadArguments};

/// Serves galleries: a page where an image is dropped and similar ones appear, and an API
///
/// Without --token-file a random token is made, and printed once as an address to open in a browser. Only this machine
/// can reach the server, unless --listen, TLS and accounts are given. Ctrl-C or SIGTERM ends the server and erases what
/// was uploaded. docs/server.md describes routes, roles, limits and the audit trail.
///
/// Exit status: 0 if it was ended, 1 if it could not start, 2 for wrong usage.
#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// A gallery, as `m3ret index build` makes one; may be given several times
    ///
    /// All galleries must be of one model. What is added to a gallery is found without a restart.
    #[arg(
        short = 'd',
        long,
        value_name = "NAME.m3i",
        required_unless_present = "new_token"
    )]
    pub(crate) archive: Vec<PathBuf>,

    /// Where to listen: an address and a port; port 0 for any that is free
    ///
    /// An address that other machines reach needs TLS and accounts, or a proxy that has both.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8000")]
    pub(crate) listen: SocketAddr,

    /// Another name that requests may call the server by, with its port; may be given several times
    #[arg(long, value_name = "NAME:PORT")]
    pub(crate) host: Vec<String>,

    /// Options from a TOML file: `listen = "127.0.0.1:8000"`; those of the command line win
    #[arg(long, value_name = "F")]
    pub(crate) config: Option<PathBuf>,

    /// Certificate in PEM, then those that signed it; read anew when it changes
    #[arg(long, value_name = "F", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// Private key of the certificate
    #[arg(long, value_name = "F", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,

    /// Who knows accounts: the file of tokens alone, an OpenID provider beside it, or a proxy
    #[arg(long, value_name = "HOW", value_enum, default_value = "token")]
    pub(crate) auth: Auth,

    #[command(flatten)]
    pub(crate) oidc: OidcArguments,

    #[command(flatten)]
    pub(crate) proxy: ProxyArguments,

    /// The accounts: a line `blake3:DIGEST ROLE NAME` for each token
    #[arg(long, value_name = "F")]
    pub(crate) token_file: Option<PathBuf>,

    /// Print a new token and its line for --token-file, and serve nothing
    ///
    /// ROLE is reader, curator, indexer, auditor or admin.
    #[arg(long, value_name = "ROLE:NAME", value_parser = role_and_name, exclusive = true)]
    pub(crate) new_token: Option<(Role, String)>,

    /// Folder for what is uploaded, erased after an hour, at the end and at the start [default: a new one]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) spool: Option<PathBuf>,

    /// Write an audit trail into this folder; nothing is answered that cannot be written there
    #[arg(long, value_name = "FOLDER")]
    pub(crate) audit: Option<PathBuf>,

    /// Key by which study and series of hits are opened, and sealed for what is received; made if it is not there
    #[arg(long, value_name = "F")]
    pub(crate) key_file: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) dicom: DicomArguments,

    /// Most patients whose images an account may see in an hour
    #[arg(long, value_name = "N", default_value = "500", value_parser = count)]
    pub(crate) max_patients_per_hour: NonZeroUsize,

    /// Largest upload, such as 500M; units are powers of 1024
    #[arg(long, value_name = "BYTES", default_value = "2G", value_parser = bytes)]
    pub(crate) max_upload: u64,

    #[command(flatten)]
    pub(crate) model: ModelArguments,

    #[command(flatten)]
    pub(crate) reading: ReadArguments,
}

impl ServeArguments {
    /// Refuses options of a sign-in that was not chosen: a server whose owner believes in it would not have it.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.auth == Auth::Oidc || self.oidc.oidc_issuer.is_none(),
            "--oidc-issuer: accounts of an OpenID provider are known with --auth oidc only"
        );
        ensure!(
            self.auth == Auth::Proxy || self.proxy.proxy_from.is_empty(),
            "--proxy-from: accounts that a proxy names are known with --auth proxy only"
        );
        Ok(())
    }
}

/// Objects by DICOM.
#[derive(Debug, Args)]
pub(crate) struct DicomArguments {
    /// Index that takes objects by STOW-RS and C-STORE
    #[arg(long, value_name = "NAME")]
    pub(crate) dicom_into: Option<String>,

    /// Folder in which they wait until their series is complete [default: NAME.received beside the gallery]
    #[arg(long, value_name = "FOLDER", requires = "dicom_into")]
    pub(crate) dicom_spool: Option<PathBuf>,

    /// Receive by C-STORE here
    #[arg(long, value_name = "ADDRESS:PORT", requires = "dicom_into")]
    pub(crate) scp: Option<SocketAddr>,

    /// The title that senders must call
    #[arg(long, value_name = "AE", default_value = "M3RET", requires = "scp")]
    pub(crate) ae: String,

    /// Who may send by C-STORE; may be given several times
    #[arg(long, value_name = "AE=ADDRESS", requires = "scp")]
    pub(crate) peer: Vec<PeerRule>,

    /// How long a series waits for further objects
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration, requires = "dicom_into")]
    pub(crate) settle: Duration,
}

/// Who knows accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Auth {
    Token,
    Oidc,
    Proxy,
}

/// An OpenID provider.
#[derive(Debug, Args)]
pub(crate) struct OidcArguments {
    /// What tokens of the OpenID provider state as iss
    #[arg(long, value_name = "URL", required_if_eq("auth", "oidc"))]
    pub(crate) oidc_issuer: Option<String>,

    /// What they state as aud
    #[arg(
        long,
        value_name = "NAME",
        default_value = "m3ret",
        requires = "oidc_issuer"
    )]
    pub(crate) oidc_audience: String,

    /// The provider's public keys, a JSON Web Key Set: a file, or an address with https
    #[arg(
        long,
        value_name = "FILE|URL",
        required_if_eq("auth", "oidc"),
        requires = "oidc_issuer"
    )]
    pub(crate) oidc_jwks: Option<String>,

    /// Certificates of authorities in PEM, beside those of this machine, for that address
    #[arg(long, value_name = "F", requires = "oidc_issuer")]
    pub(crate) oidc_ca: Option<PathBuf>,

    /// Claim with the roles; dots lead into it, as in realm_access.roles
    #[arg(
        long,
        value_name = "CLAIM",
        default_value = "roles",
        requires = "oidc_issuer"
    )]
    pub(crate) roles_claim: String,

    /// Claim with the name of the account
    #[arg(
        long,
        value_name = "CLAIM",
        default_value = "sub",
        requires = "oidc_issuer"
    )]
    pub(crate) name_claim: String,
}

/// A proxy that knows accounts.
#[derive(Debug, Args)]
pub(crate) struct ProxyArguments {
    /// Header in which the proxy names the account
    #[arg(
        long,
        value_name = "HEADER",
        default_value = "X-Remote-User",
        requires = "proxy_from"
    )]
    pub(crate) proxy_header: String,

    /// Header in which it names the role; without it the account is a reader
    #[arg(
        long,
        value_name = "HEADER",
        default_value = "X-Remote-Role",
        requires = "proxy_from"
    )]
    pub(crate) proxy_role_header: String,

    /// Address of the proxy; may be given several times
    #[arg(long, value_name = "ADDRESS", required_if_eq("auth", "proxy"))]
    pub(crate) proxy_from: Vec<IpAddr>,
}

fn role_and_name(text: &str) -> Result<(Role, String), String> {
    let (role, name) = text.split_once(':').ok_or("ROLE:NAME is wanted")?;
    Ok((role.parse()?, name.to_owned()))
}

/// Proves and exports the audit trail of `m3ret serve`
#[derive(Debug, Args)]
pub(crate) struct AuditArguments {
    #[command(subcommand)]
    pub(crate) action: AuditAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditAction {
    /// Proves that no line was changed, removed, added or moved
    ///
    /// Lines removed at the end are found only with --head: the digest of the last line, which serve prints
    /// when it ends and which is kept elsewhere.
    ///
    /// Exit status: 0 if the trail is whole, 1 if not, 2 for wrong usage.
    Verify(AuditVerifyArguments),
    /// Proves the trail and prints its lines, oldest first: one JSON object a line
    Export(AuditExportArguments),
}

#[derive(Debug, Args)]
pub(crate) struct AuditVerifyArguments {
    /// The folder of --audit
    #[arg(value_name = "FOLDER")]
    pub(crate) folder: PathBuf,

    /// A digest that a line of the trail must have
    #[arg(long, value_name = "DIGEST")]
    pub(crate) head: Option<String>,

    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AuditExportArguments {
    /// The folder of --audit
    #[arg(value_name = "FOLDER")]
    pub(crate) folder: PathBuf,

    /// Only lines from this day on, in UTC
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub(crate) since: Option<String>,

    /// Only lines of this account
    #[arg(long, value_name = "NAME")]
    pub(crate) who: Option<String>,
}
