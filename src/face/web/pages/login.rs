//! Logging in, with a token or with a name and a password, and out.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use maud::html;
use serde::Deserialize;

use super::form;
use super::frame::page;
use crate::control::Asked;
use crate::face::web::Web;
use crate::face::web::access::{Address, network};
use crate::face::web::api::write_down;
use crate::face::web::lasting::Lasting;

pub(super) async fn show(State(web): State<Arc<Web>>) -> Response {
    shown(&web, None)
}

fn shown(web: &Web, why: Option<&str>) -> Response {
    let content = html! {
        h1 { "Log in" }
        @if let Some(why) = why {
            div.banner.risk role="alert" { p { (why) } }
        }
        form.fields method="post" action="/login" {
            @if web.access.has_users() {
                label { "Name" input name="name" autocomplete="username" maxlength="100"; }
                label { "Password" input name="password" type="password" autocomplete="current-password" maxlength="1000"; }
            }
            label {
                @if web.access.has_users() { "Or a token" } @else { "Token" }
                input name="token" type="password" autocomplete="off" maxlength="8000";
            }
            div.actions { button type="submit" { "Log in" } }
        }
        @if !web.access.has_users() {
            p.soft { "The token is the one that pgstow printed when it started, or one of BACKUP_API_TOKENS_FILE." }
        }
    };
    page("Log in", "/login", None, &content)
}

#[derive(Deserialize, Default)]
struct Wanted {
    #[serde(default)]
    name: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    token: String,
}

pub(super) async fn log_in(State(web): State<Arc<Web>>, Address(from): Address, body: String) -> Response {
    let wanted: Wanted = form(&body).unwrap_or_default();
    let now = Instant::now();
    let name: String = wanted.name.chars().filter(|c| !c.is_control()).take(100).collect();
    if !web.logins.take(&network(&from), now) || (!name.is_empty() && !web.logins.take(&format!("user {name}"), now)) {
        let mut response = shown(&web, Some("There were too many attempts. Wait a minute."));
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        return response;
    }
    let proved = match wanted.token.trim() {
        "" => {
            let identity = web.access.by_password(&wanted.name, wanted.password).await;
            identity.map(|identity| (identity, Lasting::default()))
        }
        token => web.access.proved(token),
    };
    let asked = |by: &str, role: &str, outcome: &str| Asked {
        by: by.to_owned(),
        role: role.to_owned(),
        from: from.clone(),
        action: "login".to_owned(),
        what: String::new(),
        outcome: outcome.to_owned(),
    };
    let Some((identity, lasting)) = proved else {
        match web.refusals.one(now) {
            Some(0) => write_down(&web, asked(&name, "", "refused")).await,
            Some(silent) => write_down(&web, asked(&name, "", &format!("refused, after {silent} more"))).await,
            None => {}
        }
        let mut response = shown(&web, Some("The name, the password or the token is wrong."));
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        return response;
    };
    write_down(&web, asked(&identity.to_string(), identity.role.name(), "allowed")).await;
    // No session outlives the token that it began with.
    match web.sessions.begin(identity, now, &lasting) {
        Ok(cookie) => ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response(),
        Err(error) => super::frame::failed(&error.into(), None),
    }
}

pub(super) async fn log_out(State(web): State<Arc<Web>>, headers: HeaderMap) -> Response {
    let cookie = web.sessions.end(&headers);
    ([(header::SET_COOKIE, cookie)], Redirect::to("/login")).into_response()
}
