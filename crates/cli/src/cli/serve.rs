//! The arguments of `m3ret serve` and `m3ret audit`.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use m3ret_server::accounts::Role;

use super::numbers::count;
use super::{ModelArguments, ReadArguments};

/// Serves galleries: a page where an image is dropped and similar ones appear, and an API
///
/// Only this machine can reach the server. Without --token-file a random token is made, and printed once as
/// an address to open in a browser. Ctrl-C or SIGTERM ends the server and erases what was uploaded.
/// docs/server.md describes routes, roles, limits and the audit trail.
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

    /// Where to listen: an address of this machine alone, and a port; port 0 for any that is free
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8000", value_parser = loopback)]
    pub(crate) listen: SocketAddr,

    /// Another name that requests may call the server by, with its port; may be given several times
    #[arg(long, value_name = "NAME:PORT")]
    pub(crate) host: Vec<String>,

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

    /// Largest upload in bytes [default: 2 GiB]
    #[arg(long, value_name = "BYTES", value_parser = count)]
    pub(crate) max_upload: Option<NonZeroUsize>,

    #[command(flatten)]
    pub(crate) model: ModelArguments,

    #[command(flatten)]
    pub(crate) reading: ReadArguments,
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "an address and a port are wanted, e.g. 127.0.0.1:8000".to_owned())?;
    match address.ip().is_loopback() {
        true => Ok(address),
        false => Err(
            "found an address that other machines reach, wanted one of this machine, such as 127.0.0.1: \
             the server has no TLS; let a proxy with TLS on this machine pass requests on"
                .to_owned(),
        ),
    }
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
