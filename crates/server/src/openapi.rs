//! The description of the API, OpenAPI 3.1, made of the routes and the types that they take and answer with.

use axum::body::Body;
use axum::http::{Response, header};
use axum::response::IntoResponse as _;
use serde::Serialize;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{IntoResponses, Modify, OpenApi, ToSchema};

use crate::guard::COOKIE;

/// Everything that is not a route.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "m3ret",
        description = "Similar medical images. For research; not a medical device. docs/server.md explains roles, limits and the audit trail."
    ),
    modifiers(&Accounts),
    security(("token" = []), ("session" = []))
)]
pub(crate) struct Frame;

struct Accounts;

impl Modify for Accounts {
    fn modify(&self, document: &mut Document) {
        let Some(components) = document.components.as_mut() else {
            return;
        };
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
        let cookie = ApiKey::Cookie(ApiKeyValue::new(COOKIE));
        components.add_security_scheme("session", SecurityScheme::ApiKey(cookie));
    }
}

/// A failed request, as RFC 9457 writes it.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProblemBody {
    /// `urn:m3ret:problem:` and the code.
    r#type: String,
    title: String,
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong, for programs.
    code: String,
    /// What is wrong, for people. It names limits and codes, never what a header or a file holds.
    detail: String,
}

/// How requests fail.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only described; `Problem` is what is answered")]
pub(crate) enum Refused {
    /// The body is no JSON, no form, or ends too early; or the path is no UTF-8.
    #[response(status = 400, content_type = "application/problem+json")]
    Malformed(#[to_schema] ProblemBody),
    /// No valid token or session.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(#[to_schema] ProblemBody),
    /// The role may not.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(#[to_schema] ProblemBody),
    /// No such index, image, upload or job.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(#[to_schema] ProblemBody),
    /// The request took too long.
    #[response(status = 408, content_type = "application/problem+json")]
    Timeout(#[to_schema] ProblemBody),
    /// Above a limit.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(#[to_schema] ProblemBody),
    /// Another kind of body.
    #[response(status = 415, content_type = "application/problem+json")]
    WrongKind(#[to_schema] ProblemBody),
    /// The request calls the server by a name that is not its own.
    #[response(status = 421, content_type = "application/problem+json")]
    WrongHost(#[to_schema] ProblemBody),
    /// A field, a column or a value is wrong, or the image cannot be read.
    #[response(status = 422, content_type = "application/problem+json")]
    Unprocessable(#[to_schema] ProblemBody),
    /// The account saw as many patients in an hour as it may.
    #[response(status = 429, content_type = "application/problem+json")]
    TooManyPatients(#[to_schema] ProblemBody),
    /// Too much waits, or the audit trail cannot be written; try again after `Retry-After` seconds.
    #[response(status = 503, content_type = "application/problem+json")]
    Busy(#[to_schema] ProblemBody),
}

/// A form with files.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described; forms are read while they arrive")]
pub(crate) struct FileForm {
    /// One image, or the files of one DICOM series.
    #[schema(min_items = 1, format = Binary, content_media_type = "application/octet-stream")]
    file: Vec<String>,
}

/// How often first hits with the score of an answer's agree with their query, among other patients.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described; the library has the values")]
pub(crate) struct AgreementBody {
    /// The column whose cells are equal.
    column: String,
    /// Estimated chance that the first hit agrees.
    #[schema(minimum = 0, maximum = 1)]
    value: f64,
    /// Lower end of its 95 % interval.
    #[schema(minimum = 0, maximum = 1)]
    low: f64,
    /// Upper end.
    #[schema(minimum = 0, maximum = 1)]
    high: f64,
    /// Number of searches that it rests on.
    n: u32,
    /// Which searches these were.
    searches: String,
    /// Whose images these were.
    #[schema(pattern = "^(archive|model)$")]
    measured_on: String,
    /// Whether more than half of such searches agree, by the whole interval.
    is_reliable: bool,
}

/// Labels: from the manifest, else from the file; null where neither states one.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described; the library has the values")]
pub(crate) struct LabelsBody {
    #[schema(example = "CT")]
    modality: Option<String>,
    #[schema(example = "chest")]
    body_part: Option<String>,
    /// What is to be seen; several labels are joined by `|`.
    finding: Option<String>,
    /// The folder that the image lies in, where names of folders are used.
    #[schema(required = false)]
    label: Option<String>,
    /// `2d`, `3d` or `video`.
    dims: Option<String>,
    /// Data set or site.
    source: Option<String>,
}

/// What an index knows of an image.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described; the library has the values")]
pub(crate) struct KnownImageBody {
    id: String,
    /// Which image of the file this is; null if the file holds one image.
    part: Option<String>,
    #[schema(inline)]
    #[serde(flatten)]
    labels: LabelsBody,
}

/// How a hit and its query belong together.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "only described; the library has the values")]
pub(crate) enum RelationBody {
    SameImage,
    SameSeries,
    SameStudy,
    SamePatient,
    OtherPatient,
    Unknown,
}

/// Which patches of two images match.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described; the library has the values")]
pub(crate) struct WhyBody {
    /// Patch of the query, patch of the hit, cosine; the most similar first.
    #[schema(value_type = Vec<Vec<f32>>)]
    matches: Vec<(usize, usize, f32)>,
    /// Cosine of the two vectors.
    score: f32,
    /// Cosine without the patches of the hit that match.
    score_without: f32,
    /// Number of patches of the hit that were left out for that.
    n_left_out: usize,
    /// Number of patches of the hit that show more than one grey.
    n_patches: usize,
    /// What limits the comparison.
    note: Option<String>,
}

/// Answers with the document.
pub(crate) fn answer(document: &str) -> Response<Body> {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (kind, document.to_owned()).into_response()
}
