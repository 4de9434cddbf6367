//! Objects, lists and watch events as answers: plain, as tables, or metadata only.

use super::body::{self, Body};
use super::negotiate::{Accept, Encoding, Shape, respond, whole};
use super::resource::Running;
use super::{compress, forms, text_response};
use crate::metrics;
use crate::served::Served;
use bytes::Bytes;
use canopus_api::{List, Object, Result, Status, Time, Value, Watch, WatchEvent, cbor, json, protobuf, value};
use canopus_resources::table::{self, IncludeObject};
use futures::stream::StreamExt;
use http::{Response, StatusCode};
use std::sync::Arc;

/// How many events one HTTP chunk carries at most.
pub const COALESCE: usize = 50;
/// A list is streamed in chunks of about this size.
const CHUNK: usize = 64 * 1024;
/// After so many items that took some work, others have their turn.
const TURN: usize = 128;
/// How much of an encoded list is held before it is sent.
const HELD: usize = 8 << 20;

/// What a table row carries, from the `includeObject` parameter.
pub fn include_object(text: &str) -> Result<IncludeObject> {
    IncludeObject::parse(text).ok_or_else(|| {
        let why = "must be 'Metadata', 'Object', 'None', or empty";
        Status::bad_request(format!(
            "Unable to convert to Table as requested: includeObject: Invalid value: {text:?}: {why}"
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
            (Shape::Plain | Shape::MetadataList, Encoding::Json) if !self.accept.pretty => {
                let mut bytes = Vec::with_capacity(object.body().len() + 40);
                object.write_json(&mut bytes);
                whole(self.accept, code, "application/json", bytes)
            }
            (Shape::Plain | Shape::MetadataList, _) => respond(self.accept, code, &object.value()),
            (Shape::Table, _) => {
                let table = table::of_object(&*self.served.resource, &object.value(), self.table_options(true));
                respond(self.accept, code, &versioned(self.accept, table))
            }
            (Shape::Metadata, _) => {
                respond(self.accept, code, &versioned(self.accept, table::partial_metadata(&object.value())))
            }
        }
    }

    pub async fn list(&self, list: List) -> Response<Body> {
        let mut meta = Value::object();
        if list.revision > 0 {
            meta.set("resourceVersion", list.revision.to_string());
        }
        if !list.continue_token.is_empty() {
            meta.set("continue", &list.continue_token);
        }
        if let Some(remaining) = list.remaining {
            meta.set("remainingItemCount", i64::try_from(remaining).unwrap_or(i64::MAX));
        }
        let info = self.served.info();
        let (kind, api_version) = (format!("{}List", info.kind), info.gvk().api_version());
        match (self.accept.shape, self.accept.encoding, self.served.schema().table()) {
            (Shape::Plain, Encoding::Json, _) if !self.accept.pretty => {
                let meta = json::to_string(&meta);
                let head =
                    format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{meta},\"items\":[");
                let item = if self.types_items() { Object::write_json } else { Object::write_item };
                item_list(self.accept, head.into_bytes(), (b",", b"]}"), list.items, item)
            }
            (Shape::Plain, Encoding::Protobuf, Some(ty)) => {
                protobuf_list(self.accept, ty, (&api_version, &kind), &meta, list.items).await
            }
            (Shape::Plain, Encoding::Cbor, _) => {
                let typed = self.types_items();
                let ty = self.served.schema().table();
                let write =
                    move |object: &Object, out: &mut Vec<u8>| cbor::write(&item(typed, &object.value()), ty, out);
                let head = cbor::list_head(&api_version, &kind, &meta, list.items.len());
                item_list(self.accept, head, (b"", b""), list.items, write)
            }
            (Shape::Plain, _, _) => {
                let typed = self.types_items();
                let items: Value = list.items.iter().map(|o| item(typed, &o.value())).collect();
                let list = value!({"kind": kind, "apiVersion": api_version, "metadata": meta, "items": items});
                respond(self.accept, StatusCode::OK, &list)
            }
            (Shape::Table, _, _) => {
                let options = self.table_options(true);
                let resource = &*self.served.resource;
                let rows = in_turns(&list.items, |o| table::row(resource, &o.value(), options)).await;
                let table = versioned(self.accept, table::of_rows(resource, meta, rows, options));
                respond(self.accept, StatusCode::OK, &table)
            }
            (Shape::Metadata | Shape::MetadataList, _, _) => {
                let items = in_turns(&list.items, |o| table::partial_metadata(&o.value())).await;
                let list = value!({
                    "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "items": items,
                });
                respond(self.accept, StatusCode::OK, &versioned(self.accept, list))
            }
        }
    }

    /// Whether a list's items say what they are: only those of custom resources do.
    fn types_items(&self) -> bool {
        self.served.schema().table().is_none()
    }

    /// A stream of events, up to `together` of them to a chunk when they come fast.
    pub fn watch(
        &self,
        watch: Watch,
        together: usize,
        clock: Arc<dyn crate::surroundings::Surroundings>,
        running: Running,
    ) -> Response<Body> {
        let sent = running.events();
        let (served, accept, include) = (self.served.clone(), self.accept, self.include);
        let mut first = true;
        let chunks = watch.ready_chunks(together).map(move |events| {
            let mut frames = events.iter().map(|event| {
                let _ = &running;
                let headers = std::mem::take(&mut first);
                let frame = frame(&served, accept, event, || table::Options { include, headers, now: clock.now() });
                metrics::sent(&sent, frame.len());
                frame
            });
            match (frames.next(), frames.len()) {
                (Some(one), 0) => one,
                (one, _) => {
                    let mut out = Vec::with_capacity(4096);
                    one.into_iter().chain(frames).for_each(|frame| out.extend_from_slice(&frame));
                    Bytes::from(out)
                }
            }
        });
        let mut response = text_response(StatusCode::OK, accept.encoding.stream_type(), Vec::new());
        *response.body_mut() = body::stream(chunks);
        response
    }
}

/// Makes something of each item, and lets others have their turn now and then.
async fn in_turns<T>(items: &[Arc<Object>], mut make: impl FnMut(&Object) -> T) -> Vec<T> {
    let mut made = Vec::with_capacity(items.len());
    for (i, item) in items.iter().enumerate() {
        if i > 0 && i % TURN == 0 {
            tokio::task::yield_now().await;
        }
        made.push(make(item));
    }
    made
}

/// Items are copied into chunks only as the client takes them: memory does not grow with the list. Between them is
/// `between`, and `tail` behind the last.
fn item_list(
    accept: Accept,
    head: Vec<u8>,
    (between, tail): (&'static [u8], &'static [u8]),
    items: Vec<Arc<Object>>,
    item: impl Fn(&Object, &mut Vec<u8>) + Send + 'static,
) -> Response<Body> {
    let large = items.iter().map(|o| o.body().len()).sum::<usize>() > compress::THRESHOLD;
    let mut items = items.into_iter();
    let mut first = true;
    let write = move |out: &mut Vec<u8>| {
        let Some(object) = items.next() else { return false };
        if !std::mem::take(&mut first) {
            out.extend_from_slice(between);
        }
        item(&object, out);
        true
    };
    streamed(accept.gzip && large, accept.encoding.media_type(), head, write, tail)
}

/// An item of a list that says for all what they are, unless `typed`.
fn item(typed: bool, object: &Value) -> Value {
    let mut item = object.clone();
    if !typed {
        item.remove("apiVersion");
        item.remove("kind");
    }
    item
}

/// A message begins with its length, so that all items have to be encoded before the first is sent. Those that make up
/// more than can be held meanwhile are encoded again.
async fn protobuf_list(
    accept: Accept,
    ty: &'static canopus_schema::Type,
    (api_version, kind): (&str, &str),
    meta: &Value,
    items: Vec<Arc<Object>>,
) -> Response<Body> {
    let (mut length, mut held) = (0, 0);
    let encoded = in_turns(&items, |object| {
        let bytes = protobuf::item(ty, &object.value());
        length += bytes.len();
        (held + bytes.len() <= HELD).then(|| {
            held += bytes.len();
            bytes
        })
    });
    let encoded = encoded.await;
    let frame = protobuf::list_frame(api_version, kind, meta, length);
    let mut items = items.into_iter().zip(encoded);
    let write = move |out: &mut Vec<u8>| {
        let Some((object, encoded)) = items.next() else { return false };
        out.extend_from_slice(&encoded.unwrap_or_else(|| protobuf::item(ty, &object.value())));
        true
    };
    let gzip = accept.gzip && length > compress::THRESHOLD;
    streamed(gzip, accept.encoding.media_type(), frame.head, write, frame.tail)
}

/// An answer in chunks: `head`, what `write` appends until it has no more, and `tail`.
fn streamed(
    gzip: bool,
    kind: &'static str,
    head: Vec<u8>,
    mut write: impl FnMut(&mut Vec<u8>) -> bool + Send + 'static,
    tail: &'static [u8],
) -> Response<Body> {
    let mut pending = Some(head);
    let chunks = std::iter::from_fn(move || {
        let mut out = pending.take()?;
        loop {
            if !write(&mut out) {
                out.extend_from_slice(tail);
                return Some(Bytes::from(out));
            }
            if out.len() >= CHUNK {
                pending = Some(Vec::with_capacity(CHUNK + 8192));
                return Some(Bytes::from(out));
            }
        }
    });
    let mut response = text_response(StatusCode::OK, kind, Vec::new());
    if gzip {
        *response.body_mut() = compress::stream(chunks);
        compress::mark(&mut response);
    } else {
        *response.body_mut() = body::stream(futures::stream::iter(chunks));
    }
    response
}

/// One event as it goes over the wire. What does not depend on who asks is encoded once for all watchers.
fn frame(served: &Served, accept: Accept, event: &Result<WatchEvent>, table: impl FnOnce() -> table::Options) -> Bytes {
    let encoding = accept.encoding;
    let (kind, object) = match event {
        Ok(WatchEvent::Added(o)) => ("ADDED", o),
        Ok(WatchEvent::Modified(o)) => ("MODIFIED", o),
        Ok(WatchEvent::Deleted(o)) => ("DELETED", o),
        Ok(WatchEvent::Bookmark { revision, initial_events_end }) => {
            let object = bookmark(served, accept.shape, *revision, *initial_events_end);
            return tree_frame(encoding, "BOOKMARK", &versioned(accept, object));
        }
        Err(status) => return tree_frame(encoding, "ERROR", &status.to_value()),
    };
    match accept.shape {
        Shape::Plain => {
            forms::shared(object, encoding, accept.shape, kind, || match (encoding, served.schema().table()) {
                (Encoding::Protobuf, Some(ty)) => {
                    let envelope = protobuf::encode_as(ty, &object.value());
                    protobuf::watch_frame(kind, &envelope).into()
                }
                (Encoding::Cbor, _) => cbor::watch_frame(kind, &object.value()).into(),
                _ => line(kind, object.body().len(), |out| object.write_json(out)),
            })
        }
        Shape::Table => {
            let table = table::of_object(&*served.resource, &object.value(), table());
            tree_frame(encoding, kind, &versioned(accept, table))
        }
        Shape::Metadata | Shape::MetadataList if accept.beta => {
            tree_frame(encoding, kind, &versioned(accept, table::partial_metadata(&object.value())))
        }
        Shape::Metadata | Shape::MetadataList => forms::shared(object, encoding, accept.shape, kind, || {
            tree_frame(encoding, kind, &table::partial_metadata(&object.value()))
        }),
    }
}

const BETA: &str = "meta.k8s.io/v1beta1";

/// What was transformed, in the version of `meta.k8s.io` that was asked for.
fn versioned(accept: Accept, mut transformed: Value) -> Value {
    if accept.beta && accept.shape != Shape::Plain {
        let stamp = |partial: &mut Value| {
            if partial["kind"].str() == "PartialObjectMetadata" {
                partial.set("apiVersion", BETA);
            }
        };
        if let Some(rows) = transformed.get_mut("rows").and_then(Value::as_array_mut) {
            rows.iter_mut().filter_map(|row| row.get_mut("object")).for_each(stamp);
        }
        if let Some(items) = transformed.get_mut("items").and_then(Value::as_array_mut) {
            items.iter_mut().for_each(stamp);
        }
        transformed.set("apiVersion", BETA);
    }
    transformed
}

fn tree_frame(encoding: Encoding, kind: &str, object: &Value) -> Bytes {
    match encoding {
        Encoding::Protobuf => protobuf::watch_frame(kind, &protobuf::encode(object).unwrap_or_default()).into(),
        Encoding::Cbor => cbor::watch_frame(kind, object).into(),
        Encoding::Json | Encoding::Yaml => line(kind, 512, |out| json::write(object, out)),
    }
}

fn line(kind: &str, size: usize, object: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = Vec::with_capacity(size + 96);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    object(&mut out);
    out.extend_from_slice(b"}\n");
    Bytes::from(out)
}

fn bookmark(served: &Served, shape: Shape, revision: u64, initial_events_end: bool) -> Value {
    let gvk = served.info().gvk();
    let mut meta = value!({"resourceVersion": revision.to_string()});
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
