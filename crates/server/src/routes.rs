//! The routes, and what all of them share.

mod dicomweb;
mod erasures;
mod fhir;
mod images;
mod items;
mod jobs;
mod query;
pub(crate) mod search;
mod session;
mod similar;
mod volume;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Response, header};
use axum::response::IntoResponse as _;
use axum::routing::get;
use axum::{Extension, middleware};
use http_body_util::BodyExt as _;
use m3ret::index::key_of;
use m3ret::sealed::SealKey;
use m3ret::watch::Watch;
use m3ret_imaging::ReadOptions;
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::accounts::{Accounts, DICOM, Role, random_token};
use crate::audit::{Audit, Entry, Head};
use crate::dicom::Dicom;
use crate::gate::Gate;
use crate::guard::{self, Asker};
use crate::indexes::Indexes;
use crate::jobs::Jobs;
use crate::metrics::Metrics;
use crate::openapi::{Frame, ProblemBody, Refused, answer};
use crate::patients::PatientGuard;
use crate::problem::{Problem, Result};
use crate::sign_in::{Checker, SignIn};
use crate::spool::Spool;
use crate::tls::Tls;
use crate::{Limits, Settings, objects, page};

/// Everything that requests share.
pub(crate) struct Service {
    pub(crate) indexes: Indexes,
    pub(crate) accounts: Accounts,
    /// Knows accounts that other systems keep.
    pub(crate) checker: Checker,
    pub(crate) tls: Option<Tls>,
    /// Whether clients come by TLS of this server.
    pub(crate) is_encrypted: bool,
    pub(crate) patients: PatientGuard,
    pub(crate) metrics: Metrics,
    pub(crate) audit: Option<Audit>,
    pub(crate) spool: Spool,
    pub(crate) limits: Limits,
    /// Searches.
    pub(crate) searches: Gate,
    /// Images that are read and embedded.
    pub(crate) embeddings: Gate,
    /// What requests may call the server.
    pub(crate) hosts: Vec<String>,
    pub(crate) pictures: objects::Pictures,
    /// Work that goes on after its request was answered.
    pub(crate) jobs: Jobs,
    /// Takes objects by DICOM.
    pub(crate) dicom: Option<Dicom>,
    /// Opens the UIDs of hits.
    pub(crate) seal_key: Option<SealKey>,
}

impl Service {
    /// Opens everything; returns the random token, too, if no file names accounts.
    pub(crate) fn open(
        settings: &Settings,
        address: SocketAddr,
        watch: &dyn Watch,
    ) -> anyhow::Result<(Arc<Self>, Option<String>)> {
        watch.step("opening galleries");
        let indexes = Indexes::open(settings, watch)?;
        let (accounts, token) = match (&settings.token_file, &settings.sign_in) {
            (Some(file), _) => (Accounts::read(file)?, None),
            (None, SignIn::Oidc(_) | SignIn::Proxy(_)) => (Accounts::none(), None),
            (None, SignIn::Tokens) => {
                let token = random_token()?;
                (Accounts::of_one_token(&token), Some(token))
            }
        };
        let limits = settings.limits;
        let own = [address.to_string(), format!("localhost:{}", address.port())];
        let seal_key = settings.key_file.as_deref();
        let seal_key = seal_key.map(|file| key_of(&settings.galleries, file));
        let seal_key = seal_key.transpose()?;
        let dicom = settings.dicom.as_ref();
        let dicom = dicom.map(|options| Dicom::open(options, &indexes, seal_key.clone()));
        let service = Self {
            dicom: dicom.transpose()?,
            seal_key,
            indexes,
            accounts,
            checker: Checker::of(&settings.sign_in)?,
            tls: settings.tls.as_ref().map(Tls::open).transpose()?,
            is_encrypted: settings.tls.is_some(),
            patients: PatientGuard::new(limits.max_patients_an_hour),
            metrics: Metrics::new(),
            audit: settings.audit.as_deref().map(Audit::open).transpose()?,
            spool: Spool::open(&settings.spool, limits)?,
            limits,
            searches: Gate::new(limits.n_searches, limits.n_waiting),
            embeddings: Gate::new(1, limits.n_waiting),
            hosts: own
                .into_iter()
                .chain(settings.hosts.iter().cloned())
                .collect(),
            pictures: objects::Pictures::default(),
            jobs: Jobs::default(),
        };
        Ok((Arc::new(service), token))
    }

    /// Returns how uploads are read: as the queries of the first index.
    pub(crate) fn reading(&self) -> ReadOptions {
        let first = self.indexes.all().first().map(|index| index.known());
        let reading = first.map(|first| first.archive.reading().options.clone());
        reading.unwrap_or_default()
    }

    /// Writes a line of the audit trail; the answer must wait for it.
    pub(crate) async fn record(self: &Arc<Self>, asker: &Asker, entry: Entry) -> Result<()> {
        self.patients.admit(&asker.name, &entry.patients)?;
        if self.audit.is_none() {
            return Ok(());
        }
        let (service, asker) = (Arc::clone(self), asker.clone());
        let written = tokio::task::spawn_blocking(move || service.write(&asker, entry)).await;
        written.map_err(|_| Problem::internal("internal_error"))?
    }

    /// Writes a line for series that came by DICOM and become rows; `false` if that failed, and they must wait.
    pub(crate) fn received(&self, names: Vec<String>) -> bool {
        let Some(dicom) = &self.dicom else {
            return false;
        };
        let asker = Asker {
            name: DICOM.to_owned(),
            role: Role::Indexer,
            purpose: String::new(),
        };
        let entry = Entry {
            action: "110107 Import".to_owned(),
            index: dicom.index.name.clone(),
            hits: names,
            ..Entry::default()
        };
        self.write(&asker, entry).is_ok()
    }

    /// The same on a thread that may wait.
    pub(crate) fn write(&self, asker: &Asker, entry: Entry) -> Result<()> {
        let entry = Entry {
            who: asker.name.clone(),
            role: asker.role.name().to_owned(),
            purpose: asker.purpose.clone(),
            ..entry
        };
        let written = self
            .audit
            .as_ref()
            .map_or(Ok(()), |audit| audit.write(entry));
        written.map_err(|_| {
            self.metrics.audit_failure();
            let detail = "the audit trail cannot be written, and nothing is answered without it";
            Problem::new(503, "audit", detail)
        })
    }
}

/// Returns the routes of a service. Those of the API describe themselves.
pub(crate) fn router(service: &Arc<Service>) -> Router {
    let api = OpenApiRouter::with_openapi(Frame::openapi())
        .routes(routes!(live))
        .routes(routes!(ready))
        .routes(routes!(metrics))
        .routes(routes!(session::begin, session::who, session::end))
        .routes(routes!(search::indexes))
        .routes(routes!(search::search))
        .routes(routes!(images::images))
        .routes(routes!(items::add))
        .routes(routes!(items::delete))
        .routes(routes!(erasures::begin))
        .routes(routes!(jobs::job))
        .routes(routes!(dicomweb::stow))
        .routes(routes!(dicomweb::stow_study))
        .routes(routes!(dicomweb::similar_series))
        .routes(routes!(dicomweb::similar_studies))
        .routes(routes!(dicomweb::similar_series_of_study))
        .routes(routes!(fhir::similar_studies))
        .routes(routes!(objects::upload))
        .routes(routes!(objects::thumbnail))
        .routes(routes!(volume::nifti))
        .routes(routes!(volume::pictures))
        .routes(routes!(objects::why))
        .routes(routes!(audit));
    let (api, document) = api.split_for_parts();
    let document = Arc::new(document.to_json().unwrap_or_default());
    api.route("/", get(page::html))
        .route("/app.js", get(page::script))
        .route("/app.css", get(page::style))
        .route(page::NIIVUE, get(page::niivue))
        .route("/niivue-license.txt", get(page::niivue_license))
        .route("/v1/openapi.json", get(async move || answer(&document)))
        .fallback(async || Problem::not_found("route"))
        .method_not_allowed_fallback(async || {
            Problem::new(405, "method_not_allowed", "the route has other methods")
        })
        .layer(middleware::from_fn_with_state(
            Arc::clone(service),
            guard::pass,
        ))
        .with_state(Arc::clone(service))
}

/// Says that the server runs.
#[utoipa::path(get, path = "/livez", security(()), responses((status = 200, body = String, content_type = "text/plain")))]
pub(crate) async fn live() -> &'static str {
    "ok\n"
}

/// Says whether searches can be answered.
#[utoipa::path(
    get,
    path = "/readyz",
    security(()),
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = 503, body = ProblemBody, content_type = "application/problem+json")
    )
)]
async fn ready(State(service): State<Arc<Service>>) -> Response<Body> {
    match service.audit.as_ref().is_none_or(Audit::is_well) {
        true => "ok\n".into_response(),
        false => Problem::new(503, "audit", "the audit trail cannot be written").into_response(),
    }
}

/// Writes what was counted and measured.
#[utoipa::path(
    get,
    path = "/metrics",
    security((), ("token" = []), ("session" = [])),
    responses((status = 200, body = String, content_type = "application/openmetrics-text"), Refused)
)]
async fn metrics(
    State(service): State<Arc<Service>>,
    asker: Option<Extension<Asker>>,
) -> Result<Response<Body>> {
    // Programs of this machine have no account.
    if let Some(Extension(asker)) = asker {
        asker.must(Role::may_audit)?;
    }
    for index in service.indexes.all() {
        let n_rows = index.known().archive.gallery.len();
        service.metrics.vectors(&index.name, n_rows);
    }
    if let Some(dicom) = &service.dicom {
        service.metrics.dicom_waiting(dicom.spool.n_waiting());
    }
    service.jobs.count(&service.metrics);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], service.metrics.text()).into_response())
}

/// Says where the audit trail ends.
#[utoipa::path(get, path = "/v1/audit", responses((status = 200, body = Head), Refused))]
async fn audit(
    State(service): State<Arc<Service>>,
    Extension(asker): Extension<Asker>,
) -> Result<Response<Body>> {
    asker.must(Role::may_audit)?;
    match &service.audit {
        Some(audit) => json(&audit.head()),
        None => Err(Problem::not_found("audit trail")),
    }
}

/// How many are answered where a request does not say.
fn ten() -> usize {
    10
}

/// Answers with JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<Response<Body>> {
    let text = serde_json::to_string(value).map_err(|_| Problem::internal("internal_error"))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

/// Returns the kind of a body: the media type without its parameters, in lower case.
pub(crate) fn kind_of(headers: &HeaderMap) -> String {
    let stated = headers.get(header::CONTENT_TYPE);
    let stated = stated
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    let kind = stated.split(';').next().unwrap_or_default();
    kind.trim().to_ascii_lowercase()
}

/// What is read of a body whose request is refused, so that its client gets to reading the answer.
const MAX_DRAINED: usize = 16 << 20;
/// How long that may take.
const DRAIN: Duration = Duration::from_secs(5);

/// Reads and forgets some of a body.
pub(crate) async fn drain(body: &mut Body) {
    let read = async {
        let mut n_bytes = 0;
        while n_bytes < MAX_DRAINED {
            let Some(Ok(frame)) = body.frame().await else {
                return;
            };
            n_bytes += frame.data_ref().map_or(0, bytes::Bytes::len);
        }
    };
    // A slow client loses its answer.
    let _ = tokio::time::timeout(DRAIN, read).await;
}

/// Passes a body on as it arrives, up to a limit; `what` names it where it is larger.
pub(crate) async fn each_piece(
    body: &mut Body,
    (what, limit): (&str, u64),
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut n_bytes = 0_u64;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| cut_body())?;
        let Ok(piece) = frame.into_data() else {
            continue;
        };
        n_bytes += u64::try_from(piece.len()).unwrap_or(u64::MAX);
        if n_bytes > limit {
            return Err(Problem::too_large(what, limit, "bytes"));
        }
        take(&piece)?;
    }
    Ok(())
}

/// Reads what a request asks for. If that is refused, the rest of its body is read, so that its client gets to reading
/// the answer.
pub(crate) async fn taken<T>(
    mut body: Body,
    read: impl AsyncFnOnce(&mut Body) -> Result<T>,
) -> Result<T> {
    let done = read(&mut body).await;
    if done.is_err() {
        drain(&mut body).await;
    }
    done
}

/// Reads a body of JSON.
pub(crate) async fn read_json<T: DeserializeOwned>(
    body: &mut Body,
    headers: &HeaderMap,
    limits: &Limits,
) -> Result<T> {
    if kind_of(headers) != "application/json" {
        return Err(wrong_kind("application/json"));
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(limits.max_json_bytes).unwrap_or(u64::MAX);
    let take = |piece: &[u8]| {
        bytes.extend_from_slice(piece);
        Ok(())
    };
    each_piece(body, ("JSON", limit), take).await?;
    parse(&bytes)
}

/// Reads JSON; says where it is wrong, and nothing of what it holds.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        match error.classify() {
            serde_json::error::Category::Data => Problem::unprocessable(
                "invalid_request",
                format!("{place}: a field is unknown, missing or of another type"),
            ),
            _ => Problem::new(400, "no_json", format!("{place}: found no JSON")),
        }
    })
}

/// Returns the parts of the path that name something.
pub(crate) fn named<T>(path: std::result::Result<Path<T>, PathRejection>) -> Result<T> {
    let name = path.map(|Path(name)| name);
    name.map_err(|_| Problem::new(400, "no_text", "the path is no UTF-8"))
}

/// The body is of a kind that the route does not take.
pub(crate) fn wrong_kind(wanted: &str) -> Problem {
    Problem::new(
        415,
        "unsupported_media_type",
        format!("a body of the kind {wanted} is wanted"),
    )
}

/// The client ended the body before its end.
fn cut_body() -> Problem {
    Problem::new(400, "cut_body", "the body ends before its end")
}
