//! The description of the API is that of the routes, and each role may do what it says.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{ADMIN, OPERATOR, Serving, VIEWER, shop, walk};
use crate::support::http::request;

/// The methods and paths that the source routes.
fn routed() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/face");
    let mut found = BTreeSet::new();
    for file in walk(&folder.join("web")).into_iter().chain([folder.join("web.rs")]) {
        // Pages are for people.
        if file.to_string_lossy().contains("web/pages") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let prefix = if file.parent().unwrap().ends_with("api") {
            "/api/v1"
        } else {
            ""
        };
        for route in text.split(".route(\"").skip(1) {
            let (path, rest) = route.split_once('"').unwrap();
            let handlers = rest.split(".route").next().unwrap().lines().next().unwrap();
            for method in ["get", "post", "put", "delete"] {
                if handlers.contains(&format!("{method}(")) {
                    found.insert(format!("{method} {prefix}{path}"));
                }
            }
        }
    }
    found
}

fn described(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().iter();
        methods.map(move |(method, operation)| (method.clone(), path.clone(), operation.clone()))
    });
    operations.collect()
}

#[test]
fn the_description_names_every_route_and_each_role_may_do_what_it_says() {
    let database = shop();
    let serving = Serving::of(&database);
    let document = serving.get("/openapi.json");
    assert_eq!(document["openapi"], "3.1.0");
    let operations = described(&document);
    let names: BTreeSet<String> = operations
        .iter()
        .map(|(method, path, _)| format!("{method} {path}"))
        .collect();
    assert_eq!(names, routed());
    for (method, path, operation) in operations {
        let asked: String = path
            .split(['{', '}'])
            .enumerate()
            .map(|(at, part)| if at % 2 == 1 { "x" } else { part })
            .collect();
        let method = method.to_uppercase();
        let needed = match operation["x-role"].as_str() {
            Some("viewer") => 0,
            Some("operator") => 1,
            Some("admin") => 2,
            _ => {
                assert_eq!(
                    request(&method, &serving.endpoint, &asked, &[], "").status,
                    200,
                    "{path}"
                );
                continue;
            }
        };
        // From behind a proxy, so that this machine is no exception.
        let stranger = request(
            &method,
            &serving.endpoint,
            &asked,
            &[("X-Forwarded-For", "192.0.2.1")],
            "",
        );
        let expected = if path == "/" { 303 } else { 401 };
        assert_eq!(stranger.status, expected, "{method} {path}");
        for (token, role) in [(VIEWER, 0), (OPERATOR, 1), (ADMIN, 2)] {
            if path.ends_with("/events") && role >= needed {
                // It has no end.
                continue;
            }
            let answer = serving.ask(token, &method, &asked, "no json");
            assert_eq!(
                answer.status == 403,
                role < needed,
                "{method} {path} as {role}: {}",
                answer.body
            );
            assert!(
                !matches!(answer.status, 401 | 405 | 500),
                "{method} {path} as {role}: {}",
                answer.body
            );
        }
    }
}
