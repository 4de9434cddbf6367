//! Objects, lists and watch events as answers: plain, as tables, or metadata only.

use super::body::{self, Body};
use super::negotiate::{Accept, Encoding, Shape, respond, whole};
use super::{compress, text_response};
use crate::server::Served;
use bytes::Bytes;
use canopus_api::{List, Object, Result, Status, Time, Value, Watch, WatchEvent, json, value};
use canopus_resources::table::{self, IncludeObject};
use futures::stream::StreamExt;
use http::{Response, StatusCode};
use std::sync::Arc;

/// How many events one HTTP chunk carries at most.
const COALESCE: usize = 50;
/// A list is streamed in chunks of about this size.
const CHUNK: usize = 64 * 1024;

/// What a table row carries, from the `includeObject` parameter.
pub fn include_object(text: &str) -> Result<IncludeObject> {
    IncludeObject::parse(text).ok_or_else(|| {
        Status::bad_request(format!(
            "includeObject: Unsupported value: {text:?}: supported values: \"\", \"Metadata\", \"None\", \"Object\""
        ))
    })
}

pub struct View<'a> {
    pub served: &'a Arc<Served>,
    pub accept: Accept,
    pub include: IncludeObject,
    pub now: Time,
}

impl View<'_> {
    fn table_options(&self, headers: bool) -> table::Options {
        table::Options { include: self.include, headers, now: self.now }
    }

    pub fn object(&self, code: StatusCode, object: &Object) -> Response<Body> {
        match (self.accept.shape, self.accept.encoding) {
            (Shape::Plain | Shape::MetadataList, Encoding::Json) => {
                let mut bytes = Vec::with_capacity(object.body().len() + 40);
                object.write_json(&mut bytes);
                whole(self.accept, code, "application/json", bytes)
            }
            (Shape::Plain | Shape::MetadataList, Encoding::Yaml) => respond(self.accept, code, &object.value()),
            (Shape::Table, _) => {
                let table = table::of_object(self.served.resource, &object.value(), self.table_options(true));
                respond(self.accept, code, &table)
            }
            (Shape::Metadata, _) => respond(self.accept, code, &table::partial_metadata(&object.value())),
        }
    }

    pub fn list(&self, list: List) -> Response<Body> {
        let mut meta = value!({"resourceVersion": list.revision.to_string()});
        if !list.continue_token.is_empty() {
            meta.set("continue", &list.continue_token);
        }
        if let Some(remaining) = list.remaining {
            meta.set("remainingItemCount", i64::try_from(remaining).unwrap_or(i64::MAX));
        }
        let info = self.served.info;
        match (self.accept.shape, self.accept.encoding) {
            (Shape::Plain, Encoding::Json) => {
                let head = format!(
                    "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[",
                    info.kind,
                    info.gvk().api_version(),
                    json::to_string(&meta)
                );
                streamed_list(self.accept, head, list.items)
            }
            (Shape::Table, _) => {
                let trees: Vec<Arc<Value>> = list.items.iter().map(|o| o.value()).collect();
                let rows = trees.iter().map(|t| &**t);
                let table = table::of_list(self.served.resource, &meta, rows, self.table_options(true));
                respond(self.accept, StatusCode::OK, &table)
            }
            (Shape::Metadata | Shape::MetadataList, _) => {
                let items: Value = list.items.iter().map(|o| table::partial_metadata(&o.value())).collect();
                let list = value!({
                    "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "items": items,
                });
                respond(self.accept, StatusCode::OK, &list)
            }
            (Shape::Plain, Encoding::Yaml) => {
                let items: Value = list.items.iter().map(|o| Value::from(&*o.value())).collect();
                let list = value!({
                    "kind": format!("{}List", info.kind), "apiVersion": info.gvk().api_version(), "metadata": meta,
                    "items": items,
                });
                respond(self.accept, StatusCode::OK, &list)
            }
        }
    }

    /// A stream of events, several to a chunk when they come fast.
    pub fn watch(&self, watch: Watch, clock: Arc<dyn crate::surroundings::Surroundings>) -> Response<Body> {
        let (served, accept, include) = (self.served.clone(), self.accept, self.include);
        let mut first = true;
        let chunks = watch.ready_chunks(COALESCE).map(move |events| {
            let mut out = Vec::with_capacity(1024);
            for event in events {
                let options = table::Options { include, headers: first, now: clock.now() };
                write_event(&served, accept.shape, &event, options, &mut out);
                first = false;
            }
            Bytes::from(out)
        });
        let mut response = text_response(StatusCode::OK, "application/json", Vec::new());
        *response.body_mut() = body::stream(chunks);
        response
    }
}

/// Items are copied into chunks only as the client takes them: memory does not grow with the list.
fn streamed_list(accept: Accept, head: String, items: Vec<Arc<Object>>) -> Response<Body> {
    let gzip = accept.gzip && items.iter().map(|o| o.body().len()).sum::<usize>() > compress::THRESHOLD;
    let mut items = items.into_iter();
    let mut pending = Some(head.into_bytes());
    let mut first = true;
    let chunks = std::iter::from_fn(move || {
        let mut out = pending.take()?;
        loop {
            match items.next() {
                Some(object) => {
                    if !std::mem::take(&mut first) {
                        out.push(b',');
                    }
                    object.write_json(&mut out);
                }
                None => {
                    out.extend_from_slice(b"]}");
                    return Some(Bytes::from(out));
                }
            }
            if out.len() >= CHUNK {
                pending = Some(Vec::with_capacity(CHUNK + 8192));
                return Some(Bytes::from(out));
            }
        }
    });
    let mut response = text_response(StatusCode::OK, "application/json", Vec::new());
    if gzip {
        *response.body_mut() = compress::stream(chunks);
        compress::mark(&mut response);
    } else {
        *response.body_mut() = body::stream(futures::stream::iter(chunks));
    }
    response
}

fn write_event(served: &Served, shape: Shape, event: &Result<WatchEvent>, options: table::Options, out: &mut Vec<u8>) {
    let (kind, object) = match event {
        Ok(WatchEvent::Added(o)) => ("ADDED", o),
        Ok(WatchEvent::Modified(o)) => ("MODIFIED", o),
        Ok(WatchEvent::Deleted(o)) => ("DELETED", o),
        Ok(WatchEvent::Bookmark { revision, initial_events_end }) => {
            let object = bookmark(served, shape, *revision, *initial_events_end);
            return line("BOOKMARK", |out| json::write(&object, out), out);
        }
        Err(status) => return line("ERROR", |out| json::write(&status.to_value(), out), out),
    };
    match shape {
        Shape::Plain => line(kind, |out| object.write_json(out), out),
        Shape::Table => {
            let table = table::of_object(served.resource, &object.value(), options);
            line(kind, |out| json::write(&table, out), out);
        }
        Shape::Metadata | Shape::MetadataList => {
            let partial = table::partial_metadata(&object.value());
            line(kind, |out| json::write(&partial, out), out);
        }
    }
}

fn line(kind: &str, object: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    object(out);
    out.extend_from_slice(b"}\n");
}

fn bookmark(served: &Served, shape: Shape, revision: u64, initial_events_end: bool) -> Value {
    let gvk = served.info.gvk();
    let mut meta = value!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
    if initial_events_end {
        meta.set("annotations", value!({"k8s.io/initial-events-end": "true"}));
    }
    match shape {
        Shape::Plain => value!({"apiVersion": gvk.api_version(), "kind": gvk.kind, "metadata": meta}),
        Shape::Table => value!({
            "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": revision.to_string()},
            "columnDefinitions": null,
            "rows": [{"cells": null, "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta}}],
        }),
        Shape::Metadata | Shape::MetadataList => {
            value!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta})
        }
    }
}
