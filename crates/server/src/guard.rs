//! What every request passes: the name it calls the server by, its account, its time, and headers of its answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::MatchedPath;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::accounts::Role;
use crate::page;
use crate::problem::{Problem, Result};
use crate::routes::{Service, drain};

/// The cookie of a session.
pub(crate) const COOKIE: &str = "m3ret_session";
/// The route of the metrics.
pub(crate) const METRICS: &str = "/metrics";
/// The header with the purpose of a request.
const PURPOSE: &str = "x-purpose";
/// Longest purpose.
const MAX_PURPOSE: usize = 64;

/// What an answer may load and who may show it.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// Browsers use no address without TLS for half a year.
const ENCRYPTED: HeaderValue = HeaderValue::from_static("max-age=15552000");

/// Whoever opened the connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Who asks, and why.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) purpose: String,
}

impl Asker {
    /// Refuses a role that may not.
    pub(crate) fn must(&self, may: impl Fn(Role) -> bool) -> Result<()> {
        match may(self.role) {
            true => Ok(()),
            false => Err(Problem::new(
                403,
                "forbidden",
                "the role of the account does not allow this",
            )),
        }
    }
}

/// Passes a request on if it may, within its time.
pub(crate) async fn pass(
    State(service): State<Arc<Service>>,
    request: Request,
    next: Next,
) -> Response {
    let limit = service.limits.request;
    let began = Instant::now();
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("none", MatchedPath::as_str).to_owned();
    let passed = async {
        let (head, mut body) = request.into_parts();
        match admit(&service, &head).await {
            Ok(asker) => {
                let mut request = Request::from_parts(head, body);
                if let Some(asker) = asker {
                    request.extensions_mut().insert(asker);
                }
                next.run(request).await
            }
            Err(problem) => {
                drain(&mut body).await;
                problem.into_response()
            }
        }
    };
    let passed = tokio::time::timeout(limit, passed).await;
    let mut response = passed.unwrap_or_else(|_| {
        let detail = format!("the request took longer than {} s", limit.as_secs());
        Problem::new(408, "timeout", detail).into_response()
    });
    let status = response.status().as_u16();
    service.metrics.request(&route, status, began.elapsed());
    let headers = response.headers_mut();
    if service.is_encrypted {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, ENCRYPTED);
    }
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    ] {
        headers.insert(name, value);
    }
    headers.insert(
        "cross-origin-resource-policy",
        HeaderValue::from_static("same-origin"),
    );
    response
}

/// Checks what a request calls the server and who asks; `None` for what everyone may see.
async fn admit(service: &Service, head: &Parts) -> Result<Option<Asker>> {
    let mut stated = head.headers.get_all(header::HOST).iter();
    let host = stated.next().and_then(|host| host.to_str().ok());
    let host = host.unwrap_or_default();
    // Whoever looks at one of two names, as a proxy may, must not be told from whoever looks at the other.
    if stated.next().is_some() {
        return Err(Problem::new(400, "two_hosts", "one header Host is wanted"));
    }
    let target = head.uri.authority().map_or(host, |stated| stated.as_str());
    if !target.eq_ignore_ascii_case(host) {
        let detail = "the address of the request and the header Host name different servers";
        return Err(Problem::new(400, "two_hosts", detail));
    }
    // A page of another site that had its name point here would send that name.
    if !service
        .hosts
        .iter()
        .any(|own| own.eq_ignore_ascii_case(host))
    {
        return Err(Problem::new(
            421,
            "wrong_host",
            "the request calls this server by a name that is not its own; --host allows one",
        ));
    }
    match is_public(&head.method, head.uri.path()) || is_own_look(service, head) {
        true => Ok(None),
        false => Ok(Some(asker(service, head).await?)),
    }
}

fn is_public(method: &Method, path: &str) -> bool {
    match *method {
        Method::GET | Method::HEAD => {
            page::PLACES.contains(&path) || ["/livez", "/readyz"].contains(&path)
        }
        Method::POST => path == "/v1/session",
        _ => false,
    }
}

/// Whether a program of this machine reads the metrics. A proxy of this machine passes on what others ask, and says so.
fn is_own_look(service: &Service, head: &Parts) -> bool {
    let peer = head.extensions.get::<Peer>();
    let is_own = peer.is_some_and(|peer| peer.0.ip().to_canonical().is_loopback());
    let is_passed_on = [header::FORWARDED.as_str(), "x-forwarded-for", "via"]
        .iter()
        .any(|name| head.headers.contains_key(*name));
    let is_read = matches!(head.method, Method::GET | Method::HEAD);
    is_read && head.uri.path() == METRICS && is_own && !is_passed_on && !service.checker.is_proxy()
}

async fn asker(service: &Service, head: &Parts) -> Result<Asker> {
    let peer = head.extensions.get::<Peer>().map(|peer| peer.0.ip());
    let asked = (&head.headers, &head.method);
    let account = service
        .checker
        .account(&service.accounts, asked, peer)
        .await?;
    Ok(Asker {
        name: account.name,
        role: account.role,
        purpose: purpose_of(&head.headers)?,
    })
}

/// Returns the purpose that a request states; a word or two, as it becomes part of the audit trail.
fn purpose_of(headers: &HeaderMap) -> Result<String> {
    let Some(stated) = headers.get(PURPOSE) else {
        return Ok(String::new());
    };
    let is_fine = |byte: &u8| byte.is_ascii_alphanumeric() || b" _.-".contains(byte);
    let purpose = stated.to_str().unwrap_or_default();
    if purpose.is_empty() || purpose.len() > MAX_PURPOSE || !purpose.as_bytes().iter().all(is_fine)
    {
        let detail =
            format!("X-Purpose: 1 to {MAX_PURPOSE} letters, digits, spaces or _ . - are wanted");
        return Err(Problem::unprocessable("invalid_purpose", detail));
    }
    Ok(purpose.to_owned())
}

/// Returns what the cookie of a session holds.
pub(crate) fn session_of(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter();
    let texts = all.filter_map(|value| value.to_str().ok());
    let mut cookies = texts.flat_map(|text| text.split(';'));
    cookies.find_map(|cookie| {
        let (name, value) = cookie.trim().split_once('=')?;
        (name == COOKIE).then_some(value)
    })
}
