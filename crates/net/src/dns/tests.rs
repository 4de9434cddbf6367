use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::proxy::Protocol;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn port(name: &str, protocol: Protocol, port: u16) -> Port {
    Port { name: name.into(), protocol, port }
}

fn endpoint(address: &str, hostname: Option<&str>) -> Endpoint {
    let ports = vec![port("http", Protocol::Tcp, 8080)];
    Endpoint { ip: ip(address), hostname: hostname.map(Into::into), ports }
}

fn zone() -> Zone {
    let mut zone = Zone::new("Cluster.Local.", vec![ip("10.96.0.10")]);
    let ports = vec![port("http", Protocol::Tcp, 80), port("dns", Protocol::Udp, 53), port("", Protocol::Tcp, 81)];
    let web = Service::Cluster { ips: vec![ip("10.96.0.20"), ip("fd00:96::20")], ports };
    let endpoints =
        vec![endpoint("10.244.1.2", Some("db-0")), endpoint("fd00:244::2", Some("db-0")), endpoint("10.244.1.3", None)];
    zone.set_service("default", "web", Some(web));
    zone.set_service("default", "db", Some(Service::Headless { endpoints }));
    zone.set_service("default", "idle", Some(Service::Headless { endpoints: vec![] }));
    zone.set_service("default", "out", Some(Service::External { name: "www.example.org".into() }));
    zone.set_service("default", "alias", Some(Service::External { name: "web.default.svc.cluster.local".into() }));
    zone.set_namespace("empty", true);
    zone
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn show(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| format!("{} {} {}", record.ttl, record.record_type(), record.data)).collect()
}

#[test]
fn table() {
    use RecordType::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
    let nothing: &[&str] = &[];
    let cases: &[(&str, RecordType, Option<&[&str]>)] = &[
        ("web.default.svc.cluster.local.", A, Some(&["5 A 10.96.0.20"])),
        ("WEB.Default.svc.CLUSTER.local.", A, Some(&["5 A 10.96.0.20"])),
        ("web.default.svc.cluster.local.", AAAA, Some(&["5 AAAA fd00:96::20"])),
        ("web.default.svc.cluster.local.", TXT, Some(nothing)),
        ("other.default.svc.cluster.local.", A, None),
        ("web.other.svc.cluster.local.", A, None),
        ("x.web.default.svc.cluster.local.", A, None),
        ("_http._tcp.web.default.svc.cluster.local.", SRV, Some(&["5 SRV 0 100 80 web.default.svc.cluster.local."])),
        ("_HTTP._TCP.web.default.svc.cluster.local.", SRV, Some(&["5 SRV 0 100 80 web.default.svc.cluster.local."])),
        ("_dns._udp.web.default.svc.cluster.local.", SRV, Some(&["5 SRV 0 100 53 web.default.svc.cluster.local."])),
        ("_dns._tcp.web.default.svc.cluster.local.", SRV, None),
        ("_._tcp.web.default.svc.cluster.local.", SRV, None),
        ("_http._tcp.web.default.svc.cluster.local.", A, Some(nothing)),
        ("_tcp.web.default.svc.cluster.local.", SRV, Some(nothing)),
        ("_sctp.web.default.svc.cluster.local.", SRV, None),
        ("db.default.svc.cluster.local.", A, Some(&["5 A 10.244.1.2", "5 A 10.244.1.3"])),
        ("db.default.svc.cluster.local.", AAAA, Some(&["5 AAAA fd00:244::2"])),
        ("db-0.db.default.svc.cluster.local.", A, Some(&["5 A 10.244.1.2"])),
        ("10-244-1-3.db.default.svc.cluster.local.", A, Some(&["5 A 10.244.1.3"])),
        ("db-1.db.default.svc.cluster.local.", A, None),
        (
            "_http._tcp.db.default.svc.cluster.local.",
            SRV,
            Some(&[
                "5 SRV 0 50 8080 10-244-1-3.db.default.svc.cluster.local.",
                "5 SRV 0 50 8080 db-0.db.default.svc.cluster.local.",
            ]),
        ),
        ("idle.default.svc.cluster.local.", A, None),
        ("out.default.svc.cluster.local.", A, Some(&["5 CNAME www.example.org."])),
        ("out.default.svc.cluster.local.", CNAME, Some(&["5 CNAME www.example.org."])),
        ("10-244-9-9.default.pod.cluster.local.", A, Some(&["5 A 10.244.9.9"])),
        ("fd00--9.default.pod.cluster.local.", AAAA, Some(&["5 AAAA fd00::9"])),
        ("10-244-9-9.other.pod.cluster.local.", A, None),
        ("nonsense.default.pod.cluster.local.", A, None),
        ("dns-version.cluster.local.", TXT, Some(&["5 TXT 1.1.0"])),
        ("cluster.local.", A, Some(nothing)),
        ("cluster.local.", SOA, Some(&["5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 6 7200 1800 86400 5"])),
        ("cluster.local.", NS, Some(&["5 NS ns.dns.cluster.local."])),
        ("ns.dns.cluster.local.", A, Some(&["5 A 10.96.0.10"])),
        ("svc.cluster.local.", A, Some(nothing)),
        ("default.svc.cluster.local.", A, Some(nothing)),
        ("empty.svc.cluster.local.", A, Some(nothing)),
        ("other.svc.cluster.local.", A, None),
        ("20.0.96.10.in-addr.arpa.", PTR, Some(&["5 PTR web.default.svc.cluster.local."])),
        ("3.1.244.10.in-addr.arpa.", PTR, Some(&["5 PTR 10-244-1-3.db.default.svc.cluster.local."])),
        ("2.1.244.10.IN-ADDR.arpa.", PTR, Some(&["5 PTR db-0.db.default.svc.cluster.local."])),
        (
            "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.4.4.2.0.0.0.d.f.ip6.arpa.",
            PTR,
            Some(&["5 PTR db-0.db.default.svc.cluster.local."]),
        ),
    ];
    let zone = zone();
    for (asked, kind, expected) in cases {
        let found = answer(&zone, &Query::query(name(asked), *kind)).expect(asked);
        let shown = show(&found.answers);
        match expected {
            Some(records) => assert_eq!((found.code, shown), (ResponseCode::NoError, to_strings(records)), "{asked}"),
            None => assert_eq!((found.code, shown), (ResponseCode::NXDomain, vec![]), "{asked}"),
        }
        let soa = if found.answers.is_empty() { 1 } else { 0 };
        assert_eq!(found.authorities.len(), soa, "{asked} {kind}");
        assert!(found.answers.iter().all(|record| record.name.eq_case(&name(asked))), "the name as it was asked");
    }
    for foreign in ["example.org.", "local.", "99.0.96.10.in-addr.arpa.", "96.10.in-addr.arpa.", "."] {
        assert_eq!(answer(&zone, &Query::query(name(foreign), A)), None, "{foreign}");
    }
}

fn to_strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

#[test]
fn targets_of_services_come_with_their_addresses() {
    let query = Query::query(name("_http._tcp.db.default.svc.cluster.local."), RecordType::SRV);
    let found = answer(&zone(), &query).unwrap();
    assert_eq!(show(&found.additionals), ["5 A 10.244.1.3", "5 A 10.244.1.2", "5 AAAA fd00:244::2"]);
}

#[test]
fn what_is_removed_leaves_nothing() {
    let mut zone = zone();
    for service in ["web", "db", "idle", "out", "alias"] {
        zone.set_service("default", service, None);
    }
    let ask = |asked: &str| answer(&zone, &Query::query(name(asked), RecordType::A)).map(|found| found.code);
    assert_eq!(ask("web.default.svc.cluster.local."), Some(ResponseCode::NXDomain));
    assert_eq!(ask("default.svc.cluster.local."), Some(ResponseCode::NXDomain));
    assert_eq!(ask("20.0.96.10.in-addr.arpa."), None);
}

fn request(asked: &str, kind: RecordType, size: Option<u16>) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(asked), kind));
    if let Some(size) = size {
        let mut edns = Edns::new();
        edns.set_max_payload(size);
        message.set_edns(edns);
    }
    message
}

#[test]
fn hostile_and_odd_messages() {
    let good = request("web.default.svc.cluster.local.", RecordType::A, None);
    let bytes = good.to_vec().unwrap();
    let code = |bytes: &[u8]| match wire::read(bytes) {
        Ok(_) => Some(ResponseCode::NoError),
        Err(refusal) => refusal.map(|bytes| Message::from_vec(&bytes).unwrap().metadata.response_code),
    };
    assert_eq!(code(&bytes), Some(ResponseCode::NoError));
    assert_eq!(code(&bytes[..11]), None, "no header");
    assert_eq!(code(&bytes[..20]), Some(ResponseCode::FormErr), "cut short");
    let mut response = bytes.clone();
    response[2] |= 0x80;
    assert_eq!(code(&response), None, "responses are never answered");
    let mut update = bytes.clone();
    update[2] |= 5 << 3;
    assert_eq!(code(&update), Some(ResponseCode::NotImp));
    let mut two = good.clone();
    two.add_query(good.queries[0].clone());
    assert_eq!(code(&two.to_vec().unwrap()), Some(ResponseCode::FormErr), "two questions");
    assert_eq!(code(&request("a.", RecordType::AXFR, None).to_vec().unwrap()), Some(ResponseCode::NotImp));
    let mut chaos = good.clone();
    chaos.queries[0].set_query_class(hickory_proto::rr::DNSClass::CH);
    assert_eq!(code(&chaos.to_vec().unwrap()), Some(ResponseCode::Refused));
    // A name that points at itself.
    let mut looping = bytes[..12].to_vec();
    looping.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
    assert_eq!(code(&looping), Some(ResponseCode::FormErr));
}

/// Sends a message by UDP and by TCP.
async fn ask_both(server: SocketAddr, message: &Message) -> (Message, Message) {
    let bytes = message.to_vec().unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    udp.send_to(&bytes, server).await.unwrap();
    let mut buffer = [0; 4096];
    let length = udp.recv(&mut buffer).await.unwrap();
    let by_udp = Message::from_vec(&buffer[..length]).unwrap();

    let mut tcp = TcpStream::connect(server).await.unwrap();
    tcp.write_u16(bytes.len() as u16).await.unwrap();
    tcp.write_all(&bytes).await.unwrap();
    let mut answer = vec![0; tcp.read_u16().await.unwrap().into()];
    tcp.read_exact(&mut answer).await.unwrap();
    (by_udp, Message::from_vec(&answer).unwrap())
}

/// An upstream server that truncates by UDP, and by TCP answers with an alias and an address; it answers a question
/// for `silent.example.` by SERVFAIL.
async fn upstream() -> SocketAddr {
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = udp.local_addr().unwrap();
    let tcp = TcpListener::bind(address).await.unwrap();
    let respond = |bytes: &[u8], truncate: bool| {
        let mut message = Message::from_vec(bytes).unwrap().into_response();
        let asked = message.queries[0].name().clone();
        if asked == name("silent.example.") {
            message.metadata.response_code = ResponseCode::ServFail;
        } else if truncate {
            message.metadata.truncation = true;
        } else {
            let target = name("real.example.org.");
            message.add_answer(Record::from_rdata(asked, 60, RData::CNAME(CNAME(target.clone()))));
            message.add_answer(Record::from_rdata(target, 60, RData::A(A::new(192, 0, 2, 80))));
        }
        message.to_vec().unwrap()
    };
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
            udp.send_to(&respond(&buffer[..length], true), from).await.unwrap();
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let mut buffer = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut buffer).await.unwrap();
            let bytes = respond(&buffer, false);
            stream.write_u16(bytes.len() as u16).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn serves_by_udp_and_tcp_and_forwards() {
    let mut zone = zone();
    let endpoints = (0..200).map(|n| endpoint(&format!("10.244.7.{n}"), None)).collect();
    zone.set_service("default", "crowd", Some(Service::Headless { endpoints }));
    let resolver = Arc::new(Resolver::new(zone, Forwarder::new(vec![upstream().await])));
    let server = DnsServer::bind(resolver.clone(), &["127.0.0.1:0".parse().unwrap()]).await.unwrap();
    let address = server.addresses()[0];
    let _running = AbortOnDropHandle::new(tokio::spawn(server.run()));

    let (udp, tcp) = ask_both(address, &request("web.default.svc.cluster.local.", RecordType::A, None)).await;
    for message in [&udp, &tcp] {
        assert_eq!((message.metadata.id, message.metadata.authoritative), (4711, true));
        assert!(message.metadata.recursion_available && message.edns.is_none());
        assert_eq!(show(&message.answers), ["5 A 10.96.0.20"]);
    }

    let crowd = "crowd.default.svc.cluster.local.";
    let (plain, all) = ask_both(address, &request(crowd, RecordType::A, None)).await;
    assert!(plain.metadata.truncation && !all.metadata.truncation);
    assert_eq!(all.answers.len(), 200);
    let (large, _) = ask_both(address, &request(crowd, RecordType::A, Some(65535))).await;
    assert!(large.metadata.truncation && large.edns.is_some());
    assert!(large.answers.len() > plain.answers.len() && !plain.answers.is_empty());

    let forwarded = ["60 CNAME real.example.org.", "60 A 192.0.2.80"];
    let (udp, tcp) = ask_both(address, &request("www.example.org.", RecordType::A, None)).await;
    assert_eq!((show(&udp.answers), udp.metadata.authoritative), (to_strings(&forwarded), false));
    assert_eq!(tcp.answers.len(), 2, "from the cache");
    let (followed, _) = ask_both(address, &request("out.default.svc.cluster.local.", RecordType::A, None)).await;
    assert_eq!(show(&followed.answers)[0], "5 CNAME www.example.org.");
    assert_eq!(followed.answers.len(), 3);
    let (inside, _) = ask_both(address, &request("alias.default.svc.cluster.local.", RecordType::A, None)).await;
    assert_eq!(show(&inside.answers), ["5 CNAME web.default.svc.cluster.local.", "5 A 10.96.0.20"]);

    let (failed, _) = ask_both(address, &request("silent.example.", RecordType::A, None)).await;
    assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
    resolver.forwarder().set_upstreams(vec![]);
    let (refused, _) = ask_both(address, &request("other.example.", RecordType::A, None)).await;
    assert_eq!(refused.metadata.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn a_question_that_comes_back_ends() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let own = socket.local_addr().unwrap();
    drop(socket);
    let forwarder = Forwarder::new(vec![own]).with_patience(std::time::Duration::from_millis(50));
    let resolver = Arc::new(Resolver::new(zone(), forwarder));
    let server = DnsServer::bind(resolver.clone(), &[own]).await.unwrap();
    let _running = AbortOnDropHandle::new(tokio::spawn(server.run()));
    let (answer, _) = ask_both(own, &request("example.org.", RecordType::A, None)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}
