//! `/healthz`, `/livez`, `/readyz` with their checks, and what metrics say of them (`/metrics/slis`).

use super::query::Query;
use super::{Body, TEXT, not_found_page, text_response};
use crate::metrics::family::{Head, labels, sample};
use crate::server::Server;
use http::{Response, StatusCode};
use std::collections::BTreeSet;

/// The checks of an endpoint, in the order in which they are shown. Only readiness depends on it that the server is about
/// to stop.
fn checks(server: &Server, endpoint: &str) -> Vec<&'static str> {
    let ready = endpoint == "readyz";
    let kms = endpoint != "livez" && server.encryption.get().is_some_and(|encryption| encryption.may_have_services());
    let mut checks = vec!["ping", "log", "etcd"];
    checks.extend(ready.then_some("etcd-readiness"));
    checks.extend(kms.then_some("kms-providers"));
    checks.extend(ready.then_some("informer-sync"));
    checks.extend(server.health.hooks().into_iter().map(|(name, _)| name));
    checks.extend(ready.then_some("shutdown"));
    checks
}

/// The paths of all of them.
pub fn paths(server: &Server) -> Vec<String> {
    let of = |endpoint: &str| {
        let each = checks(server, endpoint).into_iter().map(move |name| format!("/{endpoint}/{name}"));
        each.chain([format!("/{endpoint}")]).collect::<Vec<_>>()
    };
    ["healthz", "livez", "readyz"].into_iter().flat_map(of).collect()
}

async fn check(server: &Server, name: &str) -> Result<(), String> {
    let unless = |bad: bool, why: &str| if bad { Err(why.to_string()) } else { Ok(()) };
    match name {
        "log" => server.health.log(),
        "etcd" | "etcd-readiness" => server.health.store(&*server.store).await,
        "kms-providers" => match server.encryption.get() {
            Some(encryption) => encryption.check().await,
            None => Ok(()),
        },
        "shutdown" => unless(server.closing.is_cancelled(), "process is shutting down"),
        // That somebody answers; that caches are filled before anybody is listened to.
        "ping" | "informer-sync" => Ok(()),
        hook => unless(server.health.hooks().iter().any(|(name, done)| *name == hook && !done), "not finished"),
    }
}

/// One of the checks that make up an endpoint's answer.
async fn counted(server: &Server, endpoint: &str, name: &'static str) -> Result<(), String> {
    let result = check(server, name).await;
    let status = if result.is_ok() { "success" } else { "error" };
    server.metrics.health_checks.add([name, status, endpoint], 1);
    result
}

/// `/readyz?verbose&exclude=etcd` and friends, in upstream's format.
pub async fn answer(server: &Server, endpoint: &str, rest: &[&str], query: &Query) -> Response<Body> {
    let checks = checks(server, endpoint);
    let say = |code, text: &str| text_response(code, TEXT, text.as_bytes().to_vec());
    if !rest.is_empty() {
        let name = rest.join("/");
        if !checks.contains(&name.as_str()) {
            return not_found_page();
        }
        return match check(server, &name).await {
            Err(why) => say(StatusCode::INTERNAL_SERVER_ERROR, &format!("internal server error: {why}\n")),
            Ok(()) => say(StatusCode::OK, "ok"),
        };
    }
    let asked = query.all("exclude");
    let excluded: BTreeSet<&str> = asked.items().iter().map(canopus_api::Value::str).collect();
    let known: BTreeSet<&str> = checks.iter().copied().collect();
    let (mut text, mut bad) = (String::new(), false);
    for name in checks {
        if excluded.contains(name) {
            text += &format!("[+]{name} excluded: ok\n");
        } else if counted(server, endpoint, name).await.is_ok() {
            text += &format!("[+]{name} ok\n");
        } else {
            bad = true;
            text += &format!("[-]{name} failed: reason withheld\n");
        }
    }
    let unknown: Vec<String> = excluded.difference(&known).map(|name| format!("{name:?}")).collect();
    if !unknown.is_empty() {
        text += &format!("warn: some health checks cannot be excluded: no matches for {}\n", unknown.join(","));
    }
    text += &format!("{endpoint} check {}\n", if bad { "failed" } else { "passed" });
    match (bad, query.has("verbose")) {
        (true, _) => say(StatusCode::INTERNAL_SERVER_ERROR, &text),
        (false, true) => say(StatusCode::OK, &text),
        (false, false) => say(StatusCode::OK, "ok"),
    }
}

/// `/metrics/slis` (KEP-3466).
pub async fn metrics(server: &Server) -> String {
    let head = Head {
        name: "kubernetes_healthcheck",
        stability: "STABLE",
        help: "This metric records the result of a single healthcheck.",
    };
    let mut out = String::new();
    head.write("gauge", &mut out);
    for endpoint in ["healthz", "livez", "readyz"] {
        for name in checks(server, endpoint) {
            let good = counted(server, endpoint, name).await.is_ok();
            sample(head.name, &labels(&["name", "type"], &[name, endpoint]), u8::from(good), &mut out);
        }
    }
    server.metrics.health_checks.write(&mut out);
    out
}
