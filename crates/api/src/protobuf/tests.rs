use super::*;
use crate::value;
use proptest::prelude::*;

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
    out.extend_from_slice(bytes);
    out
}

fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), field(1, &meta), field(2, raw)].concat()
}

#[test]
fn a_deployment() {
    let meta = [field(1, b"web"), field(2, b""), field(11, &[field(1, b"app"), field(2, b"x")].concat())].concat();
    // replicas is held by pointer: its zero counts; minReadySeconds is not.
    let port = [field(1, b"http"), vec![2 << 3, 0], vec![3 << 3, 80]].concat();
    let container = [field(1, b"c"), field(2, b"i"), field(6, &port)].concat();
    let template = field(2, &field(2, &container));
    let spec = [vec![1 << 3, 0], field(3, &template), vec![5 << 3, 0]].concat();
    let body = envelope("apps/v1", "Deployment", &[field(1, &meta), field(2, &spec)].concat());
    assert_eq!(
        decode(&body).unwrap(),
        value!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"app": "x"}},
            "spec": {"replicas": 0, "template": {"spec": {"containers": [
                {"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 80}]}]}}},
        })
    );
}

#[test]
fn secrets_are_base64_and_inlined_messages_are_flat() {
    let data = field(2, &[field(1, b"k"), field(2, b"\x00\xff")].concat());
    assert_eq!(decode(&envelope("v1", "Secret", &data)).unwrap()["data"]["k"].str(), "AP8=");
    let volume = [field(1, b"v"), field(2, &field(6, &field(1, b"s")))].concat();
    let pod = envelope("v1", "Pod", &field(2, &field(1, &volume)));
    let decoded = decode(&pod).unwrap();
    assert_eq!(decoded["spec"]["volumes"][0], value!({"name": "v", "secret": {"secretName": "s"}}));
}

#[test]
fn what_is_not_protobuf() {
    assert_eq!(decode(b"{}"), Err(Error::NoPrefix));
    assert!(matches!(decode(&envelope("v1", "Nope", b"")), Err(Error::UnknownKind { .. })));
    assert_eq!(decode(&envelope("v1", "Pod", &[0x0a, 0x7f])), Err(Error::Truncated));
}

proptest! {
    #[test]
    fn never_panics(raw in prop::collection::vec(any::<u8>(), 0..120)) {
        let _ = decode(&envelope("v1", "Pod", &raw));
        let _ = decode(&[MAGIC, &raw].concat());
    }
}
