//! How many requests are handled at once, and for how long.

use super::query::Query;
use super::{Body, text_response};
use crate::flowcontrol::Classified;
use crate::request_info::RequestInfo;
use crate::settings::Settings;
use crate::user::{MASTERS, User};
use canopus_api::{Result, Status};
use http::{HeaderValue, Response, StatusCode, header};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// For each request that is handled, how many more may wait for their turn.
const WAITING: usize = 10;

/// Requests being handled, apart from long-running ones, and their limits where there is no priority and fairness.
pub struct Inflight {
    reads: Lane,
    writes: Lane,
    /// Reads and writes that priority and fairness has let in.
    counts: [AtomicUsize; 2],
    patience: Duration,
}

struct Lane {
    limit: usize,
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Lane {
    fn new(limit: usize) -> Lane {
        Lane { limit, free: Arc::new(Semaphore::new(limit)), waiting: AtomicUsize::new(0) }
    }

    async fn enter(&self, patience: Duration) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = self.free.clone().try_acquire_owned() {
            return Some(permit);
        }
        let turn = Turn::take(self)?;
        let permit = tokio::time::timeout(patience, self.free.clone().acquire_owned()).await;
        drop(turn);
        permit.ok()?.ok()
    }
}

/// A place in the queue, given back however waiting ends.
struct Turn<'a>(&'a AtomicUsize);

impl Turn<'_> {
    fn take(lane: &Lane) -> Option<Turn<'_>> {
        let turn = Turn(&lane.waiting);
        let before = lane.waiting.fetch_add(1, Ordering::AcqRel);
        (before < lane.limit.saturating_mul(WAITING)).then_some(turn)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Inflight {
    pub fn new(settings: &Settings) -> Inflight {
        Inflight {
            reads: Lane::new(settings.max_requests_inflight),
            writes: Lane::new(settings.max_mutating_requests_inflight),
            // As long as upstream's queues let a request wait.
            patience: settings.request_timeout / 4,
            counts: Default::default(),
        }
    }

    /// Waits for a turn; None for a request that is not counted. The server's own administrators and health checks
    /// always get through.
    pub async fn enter(&self, info: &RequestInfo, user: &User) -> Result<Option<OwnedSemaphorePermit>> {
        if long_running(info) || user.in_group(MASTERS) || is_probe(info) {
            return Ok(None);
        }
        let lane = if is_read(info) { &self.reads } else { &self.writes };
        let refused = || Status::too_many_requests("Too many requests, please try again later.", 1);
        lane.enter(self.patience).await.map(Some).ok_or_else(refused)
    }

    /// How many of (reads, writes) are being handled.
    pub fn current(&self) -> (usize, usize) {
        let used = |lane: &Lane| lane.limit.saturating_sub(lane.free.available_permits());
        let counted = |i: usize| self.counts[i].load(Ordering::Relaxed);
        (used(&self.reads) + counted(0), used(&self.writes) + counted(1))
    }

    /// Counts a request until the answer is dropped.
    pub fn count(&self, info: &RequestInfo) -> Counted<'_> {
        let count = &self.counts[usize::from(!is_read(info))];
        count.fetch_add(1, Ordering::Relaxed);
        Counted(count)
    }
}

pub struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The answer to a request that is sent away.
pub fn too_many(retry_after: i64) -> Response<Body> {
    let text = b"Too many requests, please try again later.\n".to_vec();
    let mut response = text_response(StatusCode::TOO_MANY_REQUESTS, "text/plain; charset=utf-8", text);
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, retry_after.into());
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// Says in an answer what the request was found to be. By uid, since names might tell too much.
pub fn classified(response: &mut Response<Body>, class: &Classified) {
    let pairs = [
        ("x-kubernetes-pf-flowschema-uid", &class.schema_uid),
        ("x-kubernetes-pf-prioritylevel-uid", &class.level_uid),
    ];
    for (name, uid) in pairs {
        if let Ok(value) = HeaderValue::from_str(uid) {
            response.headers_mut().insert(name, value);
        }
    }
}

fn is_read(info: &RequestInfo) -> bool {
    matches!(info.verb.as_str(), "get" | "list" | "watch")
}

fn is_probe(info: &RequestInfo) -> bool {
    !info.is_resource && ["/healthz", "/livez", "/readyz"].iter().any(|p| info.path.starts_with(p))
}

/// Requests that last as long as the client wishes (upstream's `LongRunningFunc`).
pub fn long_running(info: &RequestInfo) -> bool {
    info.is_resource
        && (info.verb == "watch"
            || matches!(info.target.subresource.as_str(), "attach" | "exec" | "proxy" | "log" | "portforward"))
}

/// How long a request may take: the server's limit, or less if the client says so (`timeout=10s`).
pub fn deadline(info: &RequestInfo, query: &Query, limit: Duration) -> Result<Option<Duration>> {
    if long_running(info) {
        return Ok(None);
    }
    let text = query.get("timeout");
    if text.is_empty() {
        return Ok(Some(limit));
    }
    match go_duration(&text) {
        Some(wanted) if wanted > Duration::ZERO => Ok(Some(wanted.min(limit))),
        Some(_) => Ok(Some(limit)),
        None => Err(Status::bad_request(format!(
            "invalid timeout specified in the request URL - time: invalid duration {text:?}"
        ))),
    }
}

/// Go's `time.ParseDuration`: `1h30m`, `1.5s`, `300ms`. Negative durations count as none.
fn go_duration(text: &str) -> Option<Duration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() || rest.len() > 64 {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (digits, after) = rest.split_at(number);
        let value: f64 = digits.parse().ok()?;
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        seconds += value
            * match unit {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = after;
    }
    if negative { Some(Duration::ZERO) } else { Duration::try_from_secs_f64(seconds).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request_info::parse;

    #[test]
    fn deadlines() {
        let minute = Duration::from_secs(60);
        let ask = |path: &str, query: &str| deadline(&parse("GET", path, query), &Query::parse(query), minute);
        let cases = [
            ("/api/v1/pods", "", Some(60_000)),
            ("/api/v1/pods", "timeout=1.5s", Some(1_500)),
            ("/api/v1/pods", "timeout=1h30m", Some(60_000)),
            ("/api/v1/pods", "timeout=0s", Some(60_000)),
            ("/api/v1/pods", "timeout=-3s", Some(60_000)),
            ("/api/v1/pods", "watch=1&timeout=x", None),
            ("/api/v1/namespaces/a/pods/b/log", "", None),
            ("/healthz", "timeout=250ms", Some(250)),
        ];
        for (path, query, millis) in cases {
            assert_eq!(ask(path, query), Ok(millis.map(Duration::from_millis)), "{path} {query}");
        }
        for bad in ["x", "1", "s", "1x", "1s2", ".s", "1..2s", "--1s"] {
            assert_eq!(ask("/api/v1/pods", &format!("timeout={bad}")).unwrap_err().code, 400, "{bad}");
        }
    }

    #[tokio::test]
    async fn what_is_too_much_is_refused() {
        let settings = Settings {
            max_mutating_requests_inflight: 1,
            request_timeout: Duration::from_millis(40),
            ..Settings::default()
        };
        let inflight = Inflight::new(&settings);
        let (ann, root) = (User::new("ann", &[]), User::new("root", &[MASTERS]));
        let create = parse("POST", "/api/v1/namespaces/a/pods", "");
        let first = inflight.enter(&create, &ann).await.unwrap();
        assert_eq!(inflight.current(), (0, 1));
        let refused = inflight.enter(&create, &ann).await.unwrap_err();
        assert_eq!((refused.code, refused.details.unwrap().retry_after_seconds), (429, 1));
        assert!(inflight.enter(&create, &root).await.unwrap().is_none());
        assert!(inflight.enter(&parse("GET", "/api/v1/pods", ""), &ann).await.unwrap().is_some());
        drop(first);
        assert!(inflight.enter(&create, &ann).await.unwrap().is_some());
    }
}
