//! What all pages have: the head, the way to the others, and the spelling of times and sizes.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};
use sha2::{Digest, Sha256};

use crate::face::web::access::Caller;
use crate::face::web::identity::Role;
use crate::face::web::problem::Problem;
use crate::units::human_span;

const STYLE: &str = include_str!("../assets/pgstow.css");

/// Somebody who has logged in. Others are sent to the page where they can.
pub(super) struct Person(pub Caller);

impl<S: Sync> FromRequestParts<S> for Person {
    type Rejection = Redirect;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Redirect> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller.map(Person).ok_or_else(|| Redirect::to("/login"))
    }
}

impl Person {
    pub fn may(&self, role: Role) -> bool {
        self.0.identity.role >= role
    }

    pub fn name(&self) -> &str {
        &self.0.identity.name
    }
}

const PLACES: [(&str, &str); 6] = [
    ("/", "Overview"),
    ("/backups", "Backups"),
    ("/runs", "Runs"),
    ("/restore", "Restore"),
    ("/schedules", "Schedules"),
    ("/audit", "Audit"),
];

/// A page: its title, where it stands, who looks at it, and what is in it.
pub(super) fn page(title: &str, here: &str, who: Option<&Person>, content: &Markup) -> Response {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · pgstow" }
                link rel="stylesheet" href=(style_path());
            }
            body {
                a.skip href="#main" { "To the content" }
                header {
                    a.name href="/" { "pgstow" }
                    @if let Some(who) = who {
                        nav aria-label="Pages" {
                            @for (path, name) in PLACES {
                                @if path != "/audit" || who.may(Role::Admin) {
                                    a href=(path) aria-current=[(path == here).then_some("page")] { (name) }
                                }
                            }
                        }
                        form method="post" action="/logout" {
                            button.quiet type="submit" { "Log out " (who.name()) }
                        }
                    }
                }
                main id="main" { (content) }
                footer { p { "pgstow " (env!("CARGO_PKG_VERSION")) @if who.is_some() { " · this page is as old as its answer from the stores: load it again for a newer one" } } }
            }
        }
    };
    Html(page.into_string()).into_response()
}

/// Why something was refused or failed.
pub(super) fn failed(problem: &Problem, who: Option<&Person>) -> Response {
    let (code, detail, hint) = problem.parts();
    let content = html! {
        h1 { "This did not work" }
        div.banner.risk role="alert" {
            strong { (code) }
            p { (detail) }
        }
        p { (hint) }
        p { a href="/" { "To the overview" } }
    };
    let mut response = page("Error", "", who, &content);
    *response.status_mut() = problem.status();
    response
}

fn style_path() -> String {
    format!("/assets/pgstow-{}.css", &hex::encode(Sha256::digest(STYLE))[..12])
}

/// The style. Its name changes with it, so that it may be kept for ever.
pub(super) async fn style(uri: axum::http::Uri) -> Response {
    if uri.path() != style_path() {
        return StatusCode::NOT_FOUND.into_response();
    }
    let kept = [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    (kept, STYLE).into_response()
}

/// A moment to the second.
pub(super) fn moment(at: Timestamp) -> Markup {
    html! { time datetime=(at) { (at.strftime("%Y-%m-%d %H:%M:%S UTC")) } }
}

/// A number whose digits are read at once.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How long ago it was, and the moment itself for those who want it.
pub(super) fn ago(at: Timestamp, now: Timestamp) -> Markup {
    let seconds = now.duration_since(at).as_secs();
    html! {
        time datetime=(at) title=(at) {
            @if seconds >= 0 { (human_span(seconds)) " ago" } @else { "in " (human_span(-seconds)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_text_stays_text() {
        let problem = Problem::http(StatusCode::NOT_FOUND, "<script>alert(1)</script>\"'", "<b>");
        let (_, detail, _) = problem.parts();
        let shown = html! { p title=(detail) { (detail) } }.into_string();
        assert!(!shown.contains("<script>") && !shown.contains("title=\"<"), "{shown}");
    }

    #[test]
    fn digits_stand_in_groups() {
        assert_eq!(
            [0, 999, 1_000, 53_361, 1_234_567].map(grouped).join(" "),
            "0 999 1,000 53,361 1,234,567"
        );
    }

    #[test]
    fn the_style_is_small_and_asks_nobody_else() {
        assert!(STYLE.len() < 20_000 && !STYLE.contains("url(") && !STYLE.contains("@import"));
    }
}
