//! A collector as a server of its own, which keeps what it is told.

use super::*;
use crate::testing::server;
use bytes::Bytes;
use canopus_api::{Gvr, Target, value};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::collections::BTreeMap;
use tokio::sync::mpsc::UnboundedReceiver;

/// A span as it arrived.
#[derive(Debug, Default)]
struct Told {
    name: String,
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
    link: Vec<u8>,
    kind: u64,
    failed: bool,
    attributes: BTreeMap<String, String>,
}

/// The fields of a message: number and contents; a number as its little-endian bytes.
fn fields(mut message: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(message: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let (first, rest) = message.split_first().unwrap();
            *message = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                break;
            }
        }
        value
    }
    let mut all = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let contents = match tag & 7 {
            0 => varint(&mut message).to_le_bytes().to_vec(),
            1 => message.split_off(..8).unwrap().to_vec(),
            _ => {
                let length = varint(&mut message) as usize;
                message.split_off(..length).unwrap().to_vec()
            }
        };
        all.push((tag >> 3, contents));
    }
    all
}

fn number(contents: &[u8]) -> u64 {
    u64::from_le_bytes(contents.try_into().unwrap())
}

fn text(contents: &[u8]) -> String {
    String::from_utf8(contents.to_vec()).unwrap()
}

fn read(span: &[u8]) -> Told {
    let mut told = Told::default();
    for (field, contents) in fields(span) {
        match field {
            1 => told.trace = contents,
            2 => told.id = contents,
            4 => told.parent = contents,
            5 => told.name = text(&contents),
            6 => told.kind = number(&contents),
            9 => {
                let pair = fields(&contents);
                let (kind, value) = &fields(&pair[1].1)[0];
                let value = if *kind == 1 { text(value) } else { number(value).to_string() };
                told.attributes.insert(text(&pair[0].1), value);
            }
            13 => told.link = fields(&contents)[0].1.clone(),
            15 => told.failed = number(&fields(&contents)[0].1) == 2,
            7 | 8 => assert!(number(&contents) > 0),
            other => panic!("field {other}"),
        }
    }
    told
}

/// Its address, and what it is told.
async fn collector() -> (String, UnboundedReceiver<Told>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (told, spans) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let told = told.clone();
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let told = told.clone();
                async move {
                    assert_eq!(request.uri().path(), "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let message = &body[5..];
                    assert_eq!(u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize, message.len());
                    let of = |message: &[u8], wanted: u64| {
                        let all = fields(message).into_iter().filter(|(field, _)| *field == wanted);
                        all.map(|(_, contents)| contents).collect::<Vec<_>>()
                    };
                    for resource in of(message, 1) {
                        assert!(
                            text(&of(&resource, 1)[0].clone().into_iter().filter(u8::is_ascii).collect::<Vec<_>>())
                                .contains("apiserver")
                        );
                        for scope in of(&resource, 2) {
                            of(&scope, 2).iter().for_each(|span| drop(told.send(read(span))));
                        }
                    }
                    let answer = http::Response::builder().header("grpc-status", "0").body(Full::new(Bytes::new()));
                    Ok::<_, std::convert::Infallible>(answer.unwrap())
                }
            });
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, spans)
}

fn start(endpoint: String, rate: u32) -> (Arc<Traces>, CancellationToken) {
    let shutdown = CancellationToken::new();
    let around = Arc::new(crate::surroundings::System);
    (Traces::start(Configuration { endpoint, rate }, around, "me".into(), shutdown.clone()), shutdown)
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn saying(parent: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(TRACEPARENT, http::HeaderValue::from_static(parent));
    headers
}

#[tokio::test]
async fn a_write_with_its_parts() {
    let (address, mut spans) = collector().await;
    let (traces, shutdown) = start(address, 0);
    let (server, admin) = (server().await, User::new("admin", &[MASTERS]));
    let trace = traces.begin(&admin, &saying(PARENT), "POST /x".into()).unwrap();
    trace.describe(vec![("http.response.status_code", 201.into())]);
    let notes = Arc::new(crate::notes::Notes::default());
    let outgoing = crate::notes::noting(notes, async {
        crate::notes::traced(trace.clone());
        let _part = crate::notes::part("Create", Vec::new);
        let target = Target::new(&Gvr::new("", "v1", "configmaps"), "default", "c");
        let object = value!({"metadata": {"name": "c"}});
        server.create(&admin, &target, object, &Default::default()).await.unwrap();
        trace.parent().unwrap()
    });
    let outgoing = outgoing.await;
    trace.end(false);
    assert!(trace.part("late", Vec::new()).is_none());
    shutdown.cancel();
    let mut told = Vec::new();
    while told.len() < 3 {
        told.push(spans.recv().await.unwrap());
    }
    let by_name = |name: &str| told.iter().find(|t| t.name == name).unwrap_or_else(|| panic!("{name} in {told:?}"));
    let (root, create, store) = (by_name("POST /x"), by_name("Create"), by_name("Create etcd3"));
    assert_eq!((root.kind, create.kind, root.failed), (2, 1, false));
    assert_eq!(root.parent, [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7], "as the header says");
    assert!(told.iter().all(|t| t.trace == root.trace && t.trace[0] == 0x4b));
    assert_eq!((&create.parent, &store.parent), (&root.id, &create.id));
    assert_eq!(root.attributes["http.response.status_code"], "201");
    assert_eq!(store.attributes["resource"], "configmaps");
    assert!(store.attributes["key"].ends_with("/configmaps/default/c"), "{store:?}");
    let id: String = create.id.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(outgoing, format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{id}-01"), "what a webhook is told");
}

#[tokio::test]
async fn whose_word_counts() {
    let (address, mut spans) = collector().await;
    let (never, _a) = start(address.clone(), 0);
    let (always, shutdown) = start(address, 1_000_000);
    let (admin, joe) = (User::new("admin", &[MASTERS]), User::new("joe", &[]));
    let not_sampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    let none = HeaderMap::new;
    assert!(never.begin(&admin, &none(), String::new()).is_none());
    assert!(never.begin(&joe, &saying(PARENT), String::new()).is_none(), "anybody could make us trace");
    assert!(always.begin(&admin, &saying(not_sampled), String::new()).is_none());
    assert!(always.begin(&admin, &none(), String::new()).is_some());
    always.begin(&joe, &saying(PARENT), "linked".into()).unwrap().end(true);
    shutdown.cancel();
    let told = spans.recv().await.unwrap();
    assert_eq!((told.name.as_str(), told.failed, told.parent.len(), told.link[0]), ("linked", true, 0, 0x4b));
    assert_ne!(told.trace, told.link);
}

#[test]
fn configurations() {
    let read = |body: &str| {
        Configuration::parse(&format!("apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\n{body}"))
    };
    assert_eq!(read(""), Ok(Configuration { endpoint: "localhost:4317".into(), rate: 0 }));
    let said = read("endpoint: 'dns:///otel.svc:4317'\nsamplingRatePerMillion: 5");
    assert_eq!(said, Ok(Configuration { endpoint: "otel.svc:4317".into(), rate: 5 }));
    for (bad, why) in [
        ("samplingRatePerMillion: -1", "sampling rate must be positive"),
        ("samplingRatePerMillion: 1000001", "must be less than or equal to one million"),
        ("endpoint: 'http://x:1'", "unsupported scheme: http"),
        ("endpoint: x", "it is not HOST:PORT"),
        ("endpoints: x", "unknown field"),
    ] {
        let said = read(bad).unwrap_err();
        assert!(said.contains(why), "{bad}: {said}");
    }
    let half = Configuration { endpoint: String::new(), rate: 500_000 };
    let id = |byte: u8| [byte; 16];
    assert!(half.samples(&id(0x00)) && half.samples(&id(0x7f)));
    assert!(!half.samples(&id(0x80)) && !half.samples(&id(0xff)));
}
