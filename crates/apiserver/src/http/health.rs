//! `/healthz`, `/livez`, `/readyz` with their checks, and what metrics say of them (`/metrics/slis`).

use super::query::Query;
use super::{Body, TEXT, not_found_page, text_response};
use crate::metrics::family::{Head, labels, sample};
use crate::server::Server;
use http::{Response, StatusCode};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

struct Check {
    name: &'static str,
    result: Result<(), String>,
}

/// The checks of an endpoint. Only readiness depends on it that the server is about to stop, and a server that starts is
/// alive.
async fn checks(server: &Server, endpoint: &str) -> Vec<Check> {
    let started = endpoint == "livez" || server.ready.load(Ordering::Acquire);
    let unless = |bad: bool, why: &str| if bad { Err(why.to_string()) } else { Ok(()) };
    let store = server.health.store(&*server.store).await;
    let mut checks = vec![
        Check { name: "ping", result: Ok(()) },
        Check { name: "log", result: server.health.log() },
        Check { name: "etcd", result: store.clone() },
    ];
    if endpoint == "readyz" {
        checks.push(Check { name: "etcd-readiness", result: store });
        checks.push(Check { name: "informer-sync", result: unless(!started, "not finished") });
    }
    if endpoint != "livez"
        && let Some(encryption) = server.encryption.get()
        && let Some(result) = encryption.check().await
    {
        checks.push(Check { name: "kms-providers", result });
    }
    checks.push(Check { name: "poststarthook/rbac/bootstrap-roles", result: unless(!started, "not finished") });
    if endpoint == "readyz" {
        let closing = server.closing.is_cancelled();
        checks.push(Check { name: "shutdown", result: unless(closing, "process is shutting down") });
    }
    for check in &checks {
        let status = if check.result.is_ok() { "success" } else { "error" };
        server.metrics.health_checks.add([check.name, status, endpoint], 1);
    }
    checks
}

/// `/readyz?verbose&exclude=etcd` and friends, in upstream's format.
pub async fn answer(server: &Server, endpoint: &str, rest: &[&str], query: &Query) -> Response<Body> {
    let checks = checks(server, endpoint).await;
    let say = |code, text: &str| text_response(code, TEXT, text.as_bytes().to_vec());
    if !rest.is_empty() {
        let name = rest.join("/");
        return match checks.iter().find(|check| check.name == name) {
            Some(Check { result: Err(why), .. }) => {
                say(StatusCode::INTERNAL_SERVER_ERROR, &format!("internal server error: {why}\n"))
            }
            Some(_) => say(StatusCode::OK, "ok"),
            None => not_found_page(),
        };
    }
    let asked = query.all("exclude");
    let mut excluded: BTreeSet<&str> = asked.items().iter().map(canopus_api::Value::str).collect();
    let (mut text, mut bad) = (String::new(), false);
    for Check { name, result } in &checks {
        if excluded.remove(name) {
            text += &format!("[+]{name} excluded: ok\n");
        } else if result.is_ok() {
            text += &format!("[+]{name} ok\n");
        } else {
            bad = true;
            text += &format!("[-]{name} failed: reason withheld\n");
        }
    }
    if !excluded.is_empty() {
        let names: Vec<String> = excluded.iter().map(|name| format!("{name:?}")).collect();
        text += &format!("warn: some health checks cannot be excluded: no matches for {}\n", names.join(","));
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
        for check in checks(server, endpoint).await {
            let labels = labels(&["name", "type"], &[check.name, endpoint]);
            sample(head.name, &labels, u8::from(check.result.is_ok()), &mut out);
        }
    }
    server.metrics.health_checks.write(&mut out);
    out
}
