//! Errors as HTTP answers: `application/problem+json` for the API, the older systems' shape for their paths.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::error::{Code, Error, ErrorReport};

/// Why a request was refused or failed.
#[derive(Debug)]
pub(super) enum Problem {
    /// What pgstow itself says.
    Of(ErrorReport),
    /// What only HTTP knows: its status, and what to do.
    Http(StatusCode, String, String),
}

impl Problem {
    pub fn http(status: StatusCode, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Problem::Http(status, detail.into(), hint.into())
    }

    pub fn not_found(what: impl Into<String>) -> Self {
        Problem::http(
            StatusCode::NOT_FOUND,
            what,
            "look at GET /api/v1/backups and GET /api/v1/runs for what there is",
        )
    }

    pub fn status(&self) -> StatusCode {
        match self {
            Problem::Http(status, ..) => *status,
            Problem::Of(error) => match error.code {
                Code::Config => StatusCode::BAD_REQUEST,
                Code::NotFound => StatusCode::NOT_FOUND,
                Code::Busy | Code::NotCovered | Code::OtherDatabase => StatusCode::CONFLICT,
                Code::Store | Code::ConnErr | Code::Eacces | Code::Enoent => StatusCode::SERVICE_UNAVAILABLE,
                // What this server asked for in the client's name was answered wrongly.
                Code::Auth | Code::Secret | Code::Permission | Code::Integrity | Code::Signature => {
                    StatusCode::BAD_GATEWAY
                }
                Code::Enospc => StatusCode::INSUFFICIENT_STORAGE,
                Code::Deadline => StatusCode::GATEWAY_TIMEOUT,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            },
        }
    }

    /// The code, the sentence and the hint.
    pub fn parts(&self) -> (&str, &str, &str) {
        match self {
            Problem::Of(error) => (error.code.name(), &error.message, &error.hint),
            Problem::Http(status, detail, hint) => (
                match *status {
                    StatusCode::NOT_FOUND => Code::NotFound.name(),
                    StatusCode::TOO_MANY_REQUESTS => Code::Busy.name(),
                    StatusCode::UNAUTHORIZED => Code::Auth.name(),
                    StatusCode::FORBIDDEN => Code::Permission.name(),
                    _ => Code::Config.name(),
                },
                detail,
                hint,
            ),
        }
    }

    fn with_headers(&self, mut response: Response) -> Response {
        let status = self.status();
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if matches!(
            status,
            StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        ) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("30"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Problem::Of(ErrorReport::from(&error))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (code, detail, hint) = self.parts();
        let status = self.status();
        let title = status.canonical_reason().unwrap_or("Error");
        let document = json!({
            "type": "about:blank",
            "title": title,
            "status": status.as_u16(),
            "detail": detail,
            "code": code,
            "hint": hint,
        });
        let mut response = Json(document).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        self.with_headers(response)
    }
}

/// The same in the shape that clients of the older systems read.
#[derive(Debug)]
pub(super) struct OldProblem(pub Problem);

impl<E: Into<Problem>> From<E> for OldProblem {
    fn from(error: E) -> Self {
        OldProblem(error.into())
    }
}

impl IntoResponse for OldProblem {
    fn into_response(self) -> Response {
        let (code, message, hint) = self.0.parts();
        let document = json!({
            "success": false,
            "message": message,
            "error": {"code": code, "message": message, "hint": hint},
        });
        self.0.with_headers(Json(document).into_response())
    }
}
