//! Traces of requests for an OpenTelemetry collector (upstream's `--tracing-config-file`, KEP-647): a span for each request that
//! is sampled, within it one for what its handler does and one for each write to the store. Without a configuration
//! nothing is looked at.

pub mod config;
mod context;
mod export;
mod otlp;
#[cfg(test)]
mod tests;

pub use config::Configuration;

use crate::surroundings::Surroundings;
use crate::user::{MASTERS, User};
use canopus_api::Time;
use context::Parent;
use http::HeaderMap;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use context::TRACEPARENT;

/// Spans that wait to be exported; more are dropped (OpenTelemetry's default).
const QUEUE: usize = 2048;
/// Whose word counts on whether a request is traced, besides `system:masters`.
const MONITORING: &str = "system:monitoring";

pub type Attributes = Vec<(&'static str, Attribute)>;

#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    Text(String),
    Number(i64),
}

impl From<&str> for Attribute {
    fn from(text: &str) -> Attribute {
        Attribute::Text(text.into())
    }
}

impl From<i64> for Attribute {
    fn from(number: i64) -> Attribute {
        Attribute::Number(number)
    }
}

type TraceId = [u8; 16];
type SpanId = [u8; 8];

/// What took how long.
#[derive(Clone, Debug)]
struct Span {
    trace: TraceId,
    id: SpanId,
    parent: Option<SpanId>,
    /// What has caused it, where that is not its parent.
    link: Option<(TraceId, SpanId)>,
    name: String,
    /// Of a whole request.
    server: bool,
    start: Time,
    end: Time,
    attributes: Attributes,
    failed: bool,
}

/// Decides which requests are traced, and has their spans exported.
pub struct Traces {
    configuration: Configuration,
    around: Arc<dyn Surroundings>,
    finished: mpsc::Sender<Span>,
    dropped: AtomicU64,
}

impl Traces {
    /// Exports until `shutdown`, then what is left. `instance` is the server's own name.
    pub fn start(
        configuration: Configuration,
        around: Arc<dyn Surroundings>,
        instance: String,
        shutdown: CancellationToken,
    ) -> Arc<Traces> {
        let (finished, queue) = mpsc::channel(QUEUE);
        tokio::spawn(export::run(configuration.endpoint.clone(), instance, queue, shutdown));
        Arc::new(Traces { configuration, around, finished, dropped: AtomicU64::new(0) })
    }

    /// Begins the trace of a request, if it is to be traced. Only administrators' and monitors' word counts on that;
    /// others' traces are linked to (upstream `WithPublicEndpointFn`).
    pub fn begin(self: &Arc<Self>, user: &User, headers: &HeaderMap, name: String) -> Option<Arc<Trace>> {
        let said = Parent::of(headers);
        let trusted = user.in_group(MASTERS) || user.in_group(MONITORING);
        let (parent, link) = if trusted { (said, None) } else { (None, said) };
        let trace = parent.as_ref().map_or_else(|| self.around.random().to_be_bytes(), |p| p.trace);
        let sampled = parent.as_ref().map_or_else(|| self.configuration.samples(&trace), |p| p.sampled);
        if !sampled {
            return None;
        }
        let span = Span {
            trace,
            id: self.id(),
            parent: parent.map(|p| p.span),
            link: link.map(|l| (l.trace, l.span)),
            name,
            server: true,
            start: self.around.now(),
            end: Time(0),
            attributes: Vec::new(),
            failed: false,
        };
        Some(Arc::new(Trace { traces: self.clone(), open: Mutex::new(vec![span.id]), root: Mutex::new(Some(span)) }))
    }

    fn id(&self) -> SpanId {
        let mut id = [0; 8];
        id.copy_from_slice(&self.around.random().to_be_bytes()[..8]);
        id
    }

    /// Never waits: what does not fit is dropped.
    fn finish(&self, mut span: Span) {
        span.end = self.around.now();
        if self.finished.try_send(span).is_err() && self.dropped.fetch_add(1, Ordering::Relaxed).is_multiple_of(1000) {
            tracing::warn!("spans are dropped: the collector does not keep up");
        }
    }
}

/// A request that is traced.
pub struct Trace {
    traces: Arc<Traces>,
    root: Mutex<Option<Span>>,
    /// The spans that are not over, the outermost first.
    open: Mutex<Vec<SpanId>>,
}

impl Trace {
    pub fn describe(&self, attributes: Attributes) {
        if let Some(root) = &mut *self.root.lock() {
            root.attributes.extend(attributes);
        }
    }

    /// The request is over.
    pub fn end(&self, failed: bool) {
        if let Some(mut root) = self.root.lock().take() {
            root.failed = failed;
            self.traces.finish(root);
        }
    }

    /// A part of the request, which lasts as long as what is answered. None: the request is over.
    pub fn part(self: &Arc<Self>, name: &str, attributes: Attributes) -> Option<Part> {
        let trace = self.root.lock().as_ref()?.trace;
        let id = self.traces.id();
        let mut open = self.open.lock();
        let span = Span {
            trace,
            id,
            parent: open.last().copied(),
            link: None,
            name: name.into(),
            server: false,
            start: self.traces.around.now(),
            end: Time(0),
            attributes,
            failed: false,
        };
        open.push(id);
        Some(Part { trace: self.clone(), span: Some(span) })
    }

    /// What whoever is asked on behalf of this request is told about it (W3C Trace Context).
    pub fn parent(&self) -> Option<String> {
        let trace = self.root.lock().as_ref()?.trace;
        let span = *self.open.lock().last()?;
        Some(Parent { trace, span, sampled: true }.to_header())
    }
}

/// A part of a request that goes on.
pub struct Part {
    trace: Arc<Trace>,
    span: Option<Span>,
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(span) = self.span.take() {
            self.trace.open.lock().retain(|id| *id != span.id);
            self.trace.traces.finish(span);
        }
    }
}

/// Ends a request's trace when it goes: kept by what is still to come of the answer.
pub struct Ending(pub Arc<Trace>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end(false);
    }
}
