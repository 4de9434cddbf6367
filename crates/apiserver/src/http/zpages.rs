//! `/statusz` (KEP-4827) and `/flagz` (KEP-4828): for people as text, for programs as objects of `config.k8s.io`.

use super::negotiate::respond;
use super::resource::warn;
use super::{Body, TEXT, accept, health, text_response};
use crate::discovery;
use crate::metrics::process;
use crate::server::Server;
use canopus_api::{Result, Time, Value, value};
use http::{HeaderMap, Response, StatusCode};
use std::collections::BTreeSet;
use std::fmt::Write;

const COMPONENT: &str = "apiserver";
/// As which versions there are objects; the first is deprecated.
const VERSIONS: [&str; 2] = ["v1alpha1", "v1beta1"];
/// So that nobody parses the text.
const DELIMITERS: [&str; 4] = [":", ": ", "=", " "];
const EMULATED: &str = "1.36";
/// Paths for programs.
const NOT_FOR_DEBUGGING: [&str; 5] = ["/apis", "/api", "/openid", "/openapi", "/.well-known"];

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Page {
    Statusz,
    Flagz,
}

impl Page {
    const ALL: [(Page, &str, &str, &str); 2] =
        [(Page::Statusz, "statusz", "Statusz", "ComponentStatusz"), (Page::Flagz, "flagz", "Flagz", "ComponentFlagz")];

    /// The page of a path, if its feature is on.
    pub fn find(server: &Server, path: &str) -> Option<Page> {
        let found = Page::ALL.into_iter().find(|(_, name, ..)| *name == path);
        found.filter(|(.., gate)| server.settings.features.enabled(gate)).map(|(page, ..)| page)
    }
}

pub fn answer(server: &Server, headers: &HeaderMap, page: Page) -> Result<Response<Body>> {
    let (_, name, kind, _) = Page::ALL[usize::from(page == Page::Flagz)];
    let Some((accept, version)) = accept::page(headers, kind, &VERSIONS, server.cbor)? else {
        let delimiter = DELIMITERS[(server.surroundings.random() % 4) as usize];
        let mut text = format!(
            "\n{COMPONENT} {name}\nWarning: This endpoint is not meant to be machine parseable, has no formatting \
             compatibility guarantees and is for debugging purposes only.\n"
        );
        match page {
            Page::Statusz => text += &status_text(&status(server), server.surroundings.now(), delimiter),
            Page::Flagz => flags_text(server, delimiter, &mut text),
        }
        return Ok(text_response(StatusCode::OK, TEXT, text.into_bytes()));
    };
    let mut object = match page {
        Page::Statusz => status(server),
        Page::Flagz => {
            let flags = server.settings.flags.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            value!({"flags": Value::Object(flags.collect())})
        }
    };
    object.set("apiVersion", format!("config.k8s.io/{version}"));
    object.set("kind", kind);
    object.set("metadata", value!({"name": COMPONENT}));
    let mut response = respond(accept, StatusCode::OK, &object);
    if version == VERSIONS[0] {
        warn(
            &mut response,
            &[format!("This version of the {name} endpoint is deprecated. Please use a newer version.")],
        );
    }
    Ok(response)
}

fn status(server: &Server) -> Value {
    let started = process::started().map_or(Time::default(), |seconds| Time::from_unix(seconds as i64));
    let up = server.surroundings.now().since(started).as_secs();
    value!({
        "startTime": started, "uptimeSeconds": i64::try_from(up).unwrap_or(i64::MAX),
        "goVersion": discovery::version()["goVersion"].str(), "binaryVersion": EMULATED, "emulationVersion": EMULATED,
        "paths": debugging(&paths(server)),
    })
}

/// The first parts of those paths that people look at.
fn debugging(paths: &[String]) -> Value {
    let first = |path: &String| Some(format!("/{}", path.split('/').nth(1).filter(|part| !part.is_empty())?));
    let all: BTreeSet<String> = paths.iter().filter_map(first).collect();
    all.into_iter().filter(|path| path != "/statusz" && !NOT_FOR_DEBUGGING.contains(&path.as_str())).collect()
}

/// All paths there are, sorted.
pub fn paths(server: &Server) -> Vec<String> {
    let mut paths = discovery::root_paths(&server.catalog.table());
    paths.extend(health::paths(server));
    let pages = Page::ALL.iter().filter(|(.., gate)| server.settings.features.enabled(gate));
    paths.extend(pages.map(|(_, name, ..)| format!("/{name}")));
    paths.sort();
    paths
}

fn status_text(status: &Value, now: Time, delimiter: &str) -> String {
    let started = Time::parse(status["startTime"].str()).unwrap_or_default();
    let up = now.since(started).as_secs();
    let paths: Vec<&str> = status["paths"].items().iter().map(Value::str).collect();
    let lines = [
        ("Started", started.unix_date()),
        ("Up", format!("{} hr {:02} min {:02} sec", up / 3600, up / 60 % 60, up % 60)),
        ("Go version", status["goVersion"].str().into()),
        ("Binary version", status["binaryVersion"].str().into()),
        ("Emulation version", status["emulationVersion"].str().into()),
        ("Paths", paths.join(" ")),
    ];
    let mut text = "\n".to_string();
    for (name, value) in lines {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name}{delimiter} {value}");
    }
    text
}

fn flags_text(server: &Server, delimiter: &str, text: &mut String) {
    for (name, value) in &server.settings.flags {
        let _ = writeln!(text, "{name}{delimiter}{value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_in_words() {
        let status = value!({
            "startTime": "2026-11-03T09:08:07Z", "goVersion": "", "binaryVersion": "1.36", "emulationVersion": "1.36",
            "paths": ["/healthz", "/metrics"],
        });
        let now = Time::parse("2026-11-04T10:10:10Z").unwrap();
        let expected = "\nStarted= Tue Nov  3 09:08:07 UTC 2026\nUp= 25 hr 02 min 03 sec\nGo version= \n\
            Binary version= 1.36\nEmulation version= 1.36\nPaths= /healthz /metrics\n";
        assert_eq!(status_text(&status, now, "="), expected);
    }

    #[test]
    fn paths_for_people() {
        let paths = ["/apis/apps/v1", "/healthz/etcd", "/healthz", "/metrics", "/", "/openapi/v3", "/statusz"];
        assert_eq!(debugging(&paths.map(String::from)), value!(["/healthz", "/metrics"]));
    }
}
