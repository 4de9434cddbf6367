//! Spans as the OpenTelemetry Protocol has them (`opentelemetry/proto/trace/v1/trace.proto`).

use super::{Attribute, Attributes, Span};
use crate::outgoing::message::Message;
use canopus_api::Time;

/// Upstream's instrumentation scopes: of requests, and of what happens within them.
const REQUESTS: &str = "go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp";
const PARTS: &str = "k8s.io/component-base/tracing";
const INTERNAL: u64 = 1;
const SERVER: u64 = 2;
const ERROR: u64 = 2;

fn with_attributes(message: Message, field: u32, attributes: &Attributes) -> Message {
    attributes.iter().fold(message, |message, (key, value)| {
        let value = match value {
            Attribute::Text(text) => Message::default().bytes(1, text.as_bytes()),
            // A negative number is its two's complement.
            Attribute::Number(number) => Message::default().number(3, *number as u64),
        };
        message.message(field, Message::default().bytes(1, key.as_bytes()).message(2, value))
    })
}

/// An ExportTraceServiceRequest.
pub fn request(instance: &str, spans: &[Span]) -> Vec<u8> {
    let about = vec![("service.name", "apiserver".into()), ("service.instance.id", instance.into())];
    let mut of_resource = Message::default().message(1, with_attributes(Message::default(), 1, &about));
    for (scope, server) in [(REQUESTS, true), (PARTS, false)] {
        let scope = Message::default().message(1, Message::default().bytes(1, scope.as_bytes()));
        let mut some = false;
        let of_scope = spans.iter().filter(|s| s.server == server).fold(scope, |message, found| {
            some = true;
            message.message(2, span(found))
        });
        if some {
            of_resource = of_resource.message(2, of_scope);
        }
    }
    Message::default().message(1, of_resource).finish()
}

fn nanoseconds(time: Time) -> u64 {
    u64::try_from(time.0).unwrap_or(0).saturating_mul(1000)
}

fn span(span: &Span) -> Message {
    let mut message = Message::default().bytes(1, &span.trace).bytes(2, &span.id);
    if let Some(parent) = &span.parent {
        message = message.bytes(4, parent);
    }
    message = message
        .bytes(5, span.name.as_bytes())
        .number(6, if span.server { SERVER } else { INTERNAL })
        .fixed(7, nanoseconds(span.start))
        .fixed(8, nanoseconds(span.end));
    message = with_attributes(message, 9, &span.attributes);
    if let Some((trace, id)) = &span.link {
        message = message.message(13, Message::default().bytes(1, trace).bytes(2, id));
    }
    if span.failed {
        message = message.message(15, Message::default().number(3, ERROR));
    }
    message
}
