//! Requests to a PACS: one at a time, no redirects, no compression, bounded answers.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE};
use reqwest::{Certificate, Client, ClientBuilder, Identity, Response, StatusCode, redirect};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::error::{Error, Result};

/// Longest wait for a connection, and for the next bytes of an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Largest answer of JSON.
const MAX_JSON: usize = 64 << 20;

/// Who asks.
#[derive(Clone)]
pub enum Login {
    /// A name and a password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// A token.
    Token(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Login(..)")
    }
}

/// Where a PACS is, and how it is asked.
#[derive(Debug, Clone, Default)]
pub struct HttpOptions {
    /// Begin of all addresses.
    pub url: String,
    /// Who asks; `None` for nobody in particular.
    pub login: Option<Login>,
    /// Certificates of the authorities that may sign the server's, PEM; `None` for those of the system.
    pub ca: Option<PathBuf>,
    /// Our certificate and its key, PEM.
    pub client_cert: Option<PathBuf>,
    /// Whether the login may be sent without encryption to another machine.
    pub allows_plain: bool,
}

/// Asks a PACS.
pub(crate) struct Http {
    runtime: Runtime,
    client: Client,
    url: String,
    login: Option<Login>,
}

/// What is at an address.
pub(crate) enum Answer {
    /// Bytes that are still to come.
    Body(Body),
    /// Nothing matches.
    Empty,
    /// There is no such thing, or not any more.
    Missing,
}

/// An answer whose bytes are still to come.
pub(crate) struct Body {
    response: Response,
}

impl Body {
    /// Returns the header `Content-Type`.
    pub(crate) fn kind(&self) -> &[u8] {
        let kind = self.response.headers().get(CONTENT_TYPE);
        kind.map(|kind| kind.as_bytes()).unwrap_or_default()
    }
}

impl Http {
    pub(crate) fn new(options: &HttpOptions) -> Result<Self> {
        let url = options.url.trim_end_matches('/').to_owned();
        let is_http = url.starts_with("http://") || url.starts_with("https://");
        if !is_http || url.contains(['?', '#', '@']) {
            return Err(Error::Caller(
                "an address such as https://pacs.example/dicom-web is wanted, without a name, a password, ? and #"
                    .to_owned(),
            ));
        }
        let is_encrypted = url.starts_with("https://");
        if options.login.is_some()
            && !is_encrypted
            && !options.allows_plain
            && !is_of_this_machine(&url)
        {
            return Err(Error::Caller(
                "the connection is not encrypted, and a password or token would be sent in clear; give an address with \
                 https, or --plain-http for a network where nobody else listens"
                    .to_owned(),
            ));
        }
        // Of two programs in one process, the first has chosen already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = ClientBuilder::new()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .http1_only()
            .referer(false)
            .user_agent(concat!("m3ret/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(PATIENCE)
            .read_timeout(PATIENCE);
        if let Some(ca) = &options.ca {
            let all = Certificate::from_pem_bundle(&read(ca)?);
            let all = all.ok().filter(|all| !all.is_empty());
            builder = builder.tls_certs_only(all.ok_or_else(|| no_pem(ca, "certificates"))?);
        }
        if let Some(cert) = &options.client_cert {
            let identity = Identity::from_pem(&read(cert)?);
            builder =
                builder.identity(identity.map_err(|_| no_pem(cert, "a certificate and its key"))?);
        }
        let client = builder.build().map_err(|_| {
            Error::Caller(
                "the certificates cannot be used; --ca and --client-cert want PEM".to_owned(),
            )
        })?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        Ok(Self {
            runtime: runtime.map_err(|source| Error::Io {
                doing: "starting the client".to_owned(),
                source,
            })?,
            client,
            url,
            login: options.login.clone(),
        })
    }

    /// Asks for what is at an address below ours.
    pub(crate) fn open(&self, what: &'static str, path: &str, accept: &str) -> Result<Answer> {
        let mut request = self.client.get(format!("{}{path}", self.url));
        request = match &self.login {
            Some(Login::Password { user, password }) => request.basic_auth(user, Some(password)),
            Some(Login::Token(token)) => request.bearer_auth(token),
            None => request,
        };
        // Orthanc compresses at 55 ms an image where that is allowed.
        let request = request
            .header(ACCEPT, accept)
            .header(ACCEPT_ENCODING, "identity");
        // The request makes its timers when it is sent, which is to be within the runtime.
        let response = self.runtime.block_on(async { request.send().await });
        let response = response.map_err(|error| unreachable(what, &error))?;
        match response.status() {
            StatusCode::OK => Ok(Answer::Body(Body { response })),
            StatusCode::NO_CONTENT => Ok(Answer::Empty),
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(Answer::Missing),
            status => Err(of_status(what, status)),
        }
    }

    /// Returns the next bytes of an answer; `None` at its end.
    pub(crate) fn next(&self, what: &'static str, body: &mut Body) -> Result<Option<Bytes>> {
        let chunk = self.runtime.block_on(async { body.response.chunk().await });
        chunk.map_err(|error| unreachable(what, &error))
    }

    /// Asks for a list in JSON, which is empty if nothing matches.
    pub(crate) fn list(&self, what: &'static str, path: &str) -> Result<Value> {
        let found = self.json(what, path)?;
        found.ok_or_else(|| of_status(what, StatusCode::NOT_FOUND))
    }

    /// Asks for JSON; `None` if there is no such thing.
    pub(crate) fn json(&self, what: &'static str, path: &str) -> Result<Option<Value>> {
        let accept = "application/dicom+json, application/json";
        let mut body = match self.open(what, path, accept)? {
            Answer::Body(body) => body,
            Answer::Empty => return Ok(Some(Value::Array(Vec::new()))),
            Answer::Missing => return Ok(None),
        };
        let mut text = Vec::new();
        while let Some(chunk) = self.next(what, &mut body)? {
            if text.len() + chunk.len() > MAX_JSON {
                return Err(Error::LimitExceeded {
                    what: "bytes of a list",
                    allowed: u64::try_from(MAX_JSON).unwrap_or(u64::MAX),
                });
            }
            text.extend_from_slice(&chunk);
        }
        let value = serde_json::from_slice(&text);
        let value = value.map_err(|_| {
            Error::malformed(what, "no JSON", "JSON; is this the address of a PACS?")
        })?;
        Ok(Some(value))
    }
}

/// Whether an address, as the client reads it, is of this machine.
fn is_of_this_machine(url: &str) -> bool {
    let parsed = reqwest::Url::parse(url).ok();
    let host = parsed.as_ref().and_then(reqwest::Url::host_str);
    let host = host.unwrap_or_default().trim_matches(['[', ']']);
    let address = host.parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(Error::io("reading", path))
}

fn no_pem(path: &Path, wanted: &str) -> Error {
    Error::Caller(format!("{}: {wanted} in PEM are wanted", path.display()))
}

fn of_status(what: &'static str, status: StatusCode) -> Error {
    let found = format!("status {}", status.as_u16());
    if status.is_server_error()
        || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status)
    {
        return Error::Unreachable { what, found };
    }
    let wanted = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "200; give --user and --password-file, or --token-file, of an account that may read"
        }
        status if status.is_redirection() => {
            "200; redirects are not followed: give the address itself"
        }
        StatusCode::NOT_FOUND => "200; give the address below which DICOMweb or Orthanc answers",
        _ => "200",
    };
    Error::Refused {
        what,
        found,
        wanted,
    }
}

/// Returns what TLS complains of, which no repetition cures.
fn tls_fault<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(fault) = error.downcast_ref() {
        return Some(fault);
    }
    let next = match error.downcast_ref::<std::io::Error>() {
        // The source of such an error is that of what is in it.
        Some(error) => error.get_ref().map(|inner| inner as _),
        None => error.source(),
    };
    tls_fault(next?)
}

/// Says in our words what failed: the library's texts hold addresses with UIDs.
fn unreachable(what: &'static str, error: &reqwest::Error) -> Error {
    if let Some(fault) = tls_fault(error) {
        let (found, wanted) = match fault {
            rustls::Error::AlertReceived(_) => (
                "a refusal of our certificate",
                "a certificate that it knows, with its key: --client-cert",
            ),
            _ => (
                "a certificate that is not trusted, or no TLS",
                "one that an authority of --ca has signed for the name in the address",
            ),
        };
        return Error::Refused {
            what,
            found: found.to_owned(),
            wanted,
        };
    }
    let found = if error.is_timeout() {
        "no answer in 60 s"
    } else if error.is_connect() {
        "no connection; is the address right, and its certificate one of --ca?"
    } else {
        "an answer that was cut short"
    };
    Error::Unreachable {
        what,
        found: found.to_owned(),
    }
}
