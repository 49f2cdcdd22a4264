//! The arguments of `m3ret sync` and `m3ret receive`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _};
use m3ret_dicomnet::day::{Day, Window};
use m3ret_dicomnet::dimse::{Peer, PeerRule};

use super::{Cli, ModelArguments, ReadArguments};

/// Keeps a gallery in step with a PACS: fetches, embeds and adds what is new
///
/// Files are erased once they are embedded. The same command continues where an earlier one ended, and finds nothing to do if nothing changed. Without
/// --every one round is done. docs/hospital.md describes what is asked of a PACS, what is kept and what not.
///
/// Exit status: 0 if all series were taken or are known to hold no image, 1 if some failed, 2 for wrong usage.
#[derive(Debug, Args)]
pub(crate) struct SyncArguments {
    /// What to sync from: dicomweb URL, orthanc URL, folder DIR, or dimse AE@HOST:PORT
    ///
    /// dicomweb is asked by QIDO-RS and WADO-RS. orthanc is asked for its changes and by DICOMweb; URL is that of
    /// Orthanc itself. dimse is asked by C-FIND, and sends by C-MOVE to --listen under the title --ae.
    #[arg(long, num_args = 2, value_names = ["KIND", "PLACE"], required = true)]
    pub(crate) from: Vec<String>,

    #[command(flatten)]
    pub(crate) intake: IntakeArguments,

    /// Name of an account of the PACS
    #[arg(long, value_name = "NAME", requires = "password_file")]
    pub(crate) user: Option<String>,

    /// File with the password of --user
    #[arg(long, value_name = "F", requires = "user")]
    pub(crate) password_file: Option<PathBuf>,

    /// File with a bearer token
    #[arg(long, value_name = "F", conflicts_with = "user")]
    pub(crate) token_file: Option<PathBuf>,

    /// Certificates of authorities that may sign that of the PACS, PEM [default: those of the system]
    #[arg(long, value_name = "F")]
    pub(crate) ca: Option<PathBuf>,

    /// Our certificate and its key, PEM
    #[arg(long, value_name = "F")]
    pub(crate) client_cert: Option<PathBuf>,

    /// Send --user or --token-file over http to another machine: everyone on the way can read it
    #[arg(long)]
    pub(crate) plain_http: bool,

    /// Only studies from this day on; dimse begins 7 days ago without it
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub(crate) since: Option<Day>,

    /// Only series of these modalities, e.g. CT,MR,DX
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = modality)]
    pub(crate) modality: Vec<String>,

    /// Repeat after this time, e.g. 60s, until interrupted
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) every: Option<Duration>,

    /// Fetch at most so many series, e.g. 30/min
    #[arg(long, value_name = "N/UNIT", value_parser = pace)]
    pub(crate) rate: Option<Duration>,

    /// Take a series once it did not change for this long; studies older than two days are taken at once
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s")]
    pub(crate) settle: Duration,

    /// Ask the PACS only in these hours, in UTC, e.g. 02:00-06:00
    #[arg(long, value_name = "FROM-TO")]
    pub(crate) window: Option<Window>,

    /// Remove rows of series that the PACS has no more, looking so often, e.g. 24h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) reconcile: Option<Duration>,

    /// Only list: fetch nothing and add nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Of dimse: our title, which the PACS must know as a destination
    #[arg(long, value_name = "AE", default_value = "M3RET")]
    pub(crate) ae: String,

    /// Of dimse: where the PACS sends to
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:11112")]
    pub(crate) listen: SocketAddr,
}

/// Receives images by DICOM (C-STORE) into a gallery
///
/// A series is added once it is quiet. Also answers C-ECHO. Objects are on the disk before their sender is told so, and lie there until their series
/// is added and --keep is over. Ctrl-C or SIGTERM ends it; what was not added is added after the next start.
///
/// Exit status: 0 if it was ended, 1 if it could not start or write, 2 for wrong usage.
#[derive(Debug, Args)]
pub(crate) struct ReceiveArguments {
    #[command(flatten)]
    pub(crate) intake: IntakeArguments,

    /// Where to listen; an address that other machines reach needs --peer
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:11112")]
    pub(crate) listen: SocketAddr,

    /// Our title, which callers must name
    #[arg(long, value_name = "AE", default_value = "M3RET")]
    pub(crate) ae: String,

    /// Who may send: a title and the address that it sends from; may be given several times
    #[arg(long, value_name = "AE=ADDRESS")]
    pub(crate) peer: Vec<PeerRule>,

    /// Add a series once it got no object for this long
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s")]
    pub(crate) settle: Duration,

    /// Keep files for this long after their series was added, so that late ones join them
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10m")]
    pub(crate) keep: Duration,
}

impl ReceiveArguments {
    /// Ends the program if anyone in the network could send.
    pub(crate) fn check(&self) {
        if !self.listen.ip().is_loopback() && self.peer.is_empty() {
            wrong_usage(
                "--listen: found an address that other machines reach, and no --peer; name who may send",
            );
        }
    }
}

/// A kind of source and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    DicomWeb(String),
    Orthanc(String),
    Folder(PathBuf),
    Dimse { ae: String, address: String },
}

impl SyncArguments {
    /// Reads what `--from` names; ends the program if it is nothing.
    pub(crate) fn place(&self) -> Place {
        place_of(&self.from).unwrap_or_else(|message| wrong_usage(&message))
    }
}

fn place_of(from: &[String]) -> Result<Place, String> {
    let [kind, place] = from else {
        return Err("--from: a kind and a place are wanted".to_owned());
    };
    let url = || place.trim_end_matches('/').to_owned();
    match kind.as_str() {
        "dicomweb" => Ok(Place::DicomWeb(url())),
        "orthanc" => Ok(Place::Orthanc(url())),
        "folder" => Ok(Place::Folder(PathBuf::from(place))),
        "dimse" => {
            let peer = Peer::parse(place);
            let (ae, address) = peer.map_err(|wanted| format!("--from dimse: {wanted}"))?;
            Ok(Place::Dimse { ae, address })
        }
        _ => Err(format!(
            "--from: found {kind:?}, wanted dicomweb, orthanc, folder or dimse"
        )),
    }
}

/// Ends the program as for any wrong usage.
fn wrong_usage(message: &str) -> ! {
    Cli::command()
        .error(ErrorKind::ValueValidation, message)
        .exit()
}

/// Where images go.
#[derive(Debug, Args)]
pub(crate) struct IntakeArguments {
    /// The gallery, which is made if it is not there
    #[arg(long, value_name = "NAME.m3i")]
    pub(crate) into: PathBuf,

    /// Folder for files until they are embedded; they hold patient data
    ///
    /// Default: NAME.spool beside the gallery; for receive, NAME.received.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) spool: Option<PathBuf>,

    /// Store study and series of each image, sealed under the key in this file, which is made if it is not there
    ///
    /// Only who has the file can open a hit in a viewer. It must not lie in the gallery.
    #[arg(long, value_name = "F")]
    pub(crate) key_file: Option<PathBuf>,

    /// Store a small picture of each image
    #[arg(long)]
    pub(crate) thumbnails: bool,

    /// Print one JSON object a round, or a batch of series received
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) model: ModelArguments,

    #[command(flatten)]
    pub(crate) reading: ReadArguments,
}

/// Reads a time such as `90s`, `5m`, `24h` or `7d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "a time is wanted, such as 60s, 5m, 24h or 7d".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number = text
        .strip_suffix(unit)
        .and_then(|number| number.parse().ok());
    let number: u32 = number.ok_or_else(wrong)?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

/// Reads a number for a unit of time, and returns the time from one to the next.
fn pace(text: &str) -> Result<Duration, String> {
    let wrong = || "a number for a unit is wanted, such as 2/s, 30/min or 500/h".to_owned();
    let (number, unit) = text.split_once('/').ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1.0,
        "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    match number {
        0 => Err(wrong()),
        number => Ok(Duration::from_secs_f64(seconds / f64::from(number))),
    }
}

/// Reads a modality as DICOM codes it.
fn modality(text: &str) -> Result<String, String> {
    let is_code = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    match (1..=16).contains(&text.len()) && text.bytes().all(is_code) {
        true => Ok(text.to_owned()),
        false => Err("codes of DICOM are wanted, such as CT,MR,DX".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_rates_are_read() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(pace("30/min"), Ok(Duration::from_secs(2)));
        for wrong in ["", "s", "1", "-1s", "1.5h", "1w"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "30", "0/s", "1/day", "x/s"] {
            assert!(pace(wrong).is_err(), "{wrong}");
        }
        let words = |kind: &str, place: &str| place_of(&[kind.to_owned(), place.to_owned()]);
        let url = Place::Orthanc("http://a".to_owned());
        assert_eq!(words("orthanc", "http://a/"), Ok(url));
        assert!(words("dimse", "a").is_err() && words("ftp", "a").is_err());
        assert!(modality("CT").is_ok() && modality("CT&x=1").is_err());
    }
}
