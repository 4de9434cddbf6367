//! Where objects live in the store (upstream's key layout), and the store's errors as a client sees them.

use crate::served::Served;
use bytes::Bytes;
use canopus_api::{Object, Status, Value, cbor, json, protobuf};
use canopus_resources::InfoOf;
use canopus_store::Change;

/// `/registry/pods/`: upstream's prefix of a resource's keys.
pub fn prefix(info: &InfoOf) -> String {
    let resource = match (info.group, info.plural) {
        ("", "nodes") => "minions",
        ("", "services") => "services/specs",
        ("", "endpoints") => "services/endpoints",
        ("networking.k8s.io", "ingresses") => "ingress",
        ("", "replicationcontrollers") => "controllers",
        ("apiextensions.k8s.io", "customresourcedefinitions") => "apiextensions.k8s.io/customresourcedefinitions",
        ("apiregistration.k8s.io", "apiservices") => "apiregistration.k8s.io/apiservices",
        (_, plural) => plural,
    };
    format!("/registry/{resource}/")
}

/// A stored value that this process did not write as JSON: its tree, and its bytes as [`Object::encode`] would make them.
/// Upstream's servers write protobuf, CBOR, or JSON in another order. All are read whatever is written here.
pub fn decode(stored: &Bytes) -> Result<(Value, Bytes), String> {
    if is_cbor(stored) {
        let mut value = cbor::decode(stored).map_err(|error| error.to_string())?;
        let body = Object::encode(&mut value);
        return Ok((value, body));
    }
    if stored.starts_with(protobuf::MAGIC) {
        let mut value = protobuf::decode(stored).map_err(|error| error.to_string())?;
        let body = Object::encode(&mut value);
        return Ok((value, body));
    }
    let mut value = json::parse(stored).map_err(|error| error.to_string())?;
    let ours = stored.starts_with(b"{\"apiVersion\":") && stored.ends_with(b"}");
    let body = if ours { stored.clone() } else { Object::encode(&mut value) };
    Ok((value, body))
}

/// Whether a stored value says of itself that it is CBOR.
pub fn is_cbor(stored: &[u8]) -> bool {
    stored.starts_with(cbor::MAGIC)
}

/// The change with a custom resource as CBOR; of everything else upstream stores protobuf, and this server JSON.
pub fn as_cbor(served: &Served, mut change: Change) -> Change {
    if let (None, Change::Put { value, .. }) = (served.schema().table(), &mut change)
        && let Ok(tree) = json::parse(value)
    {
        *value = cbor::encode(&tree).into();
    }
    change
}

pub fn status(error: canopus_store::Error) -> Status {
    match error {
        canopus_store::Error::Compacted { .. } => {
            Status::expired("The resourceVersion for the provided list is too old.")
        }
        other => Status::internal(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_upstream_wrote_is_read() {
        let ours =
            br#"{"apiVersion":"v1","data":{"a":"b"},"kind":"ConfigMap","metadata":{"name":"c","namespace":"n"}}"#;
        let upstreams = concat!(
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"c","namespace":"n"},"#,
            r#""data":{"a":"b"}}"#,
            "\n"
        );
        let protobuf: &[u8] = b"k8s\0\
            \x0a\x0f\x0a\x02v1\x12\x09ConfigMap\
            \x12\x12\x0a\x08\x0a\x01c\x1a\x01n\x42\x00\x12\x06\x0a\x01a\x12\x01b\x1a\x00\x22\x00";
        let cbor: &[u8] = b"\xd9\xd9\xf7\xa4\x44data\xa1\x41a\x41b\x44kind\x49ConfigMap\
            \x48metadata\xa2\x44name\x41c\x49namespace\x41n\x4aapiVersion\x42v1";
        for stored in [&ours[..], upstreams.as_bytes(), protobuf, cbor] {
            let (mut value, body) = decode(&Bytes::copy_from_slice(stored)).unwrap();
            // What protobuf cannot leave out.
            value.remove_path(&["metadata", "creationTimestamp"]);
            assert_eq!(Object::encode(&mut value), &ours[..], "{}", String::from_utf8_lossy(&body));
        }
        for bad in [&b""[..], b"k8s\0\xff", b"\xd9\xd9\xf7\xa1", b"[1]x", b"enc:v1"] {
            assert!(decode(&Bytes::copy_from_slice(bad)).is_err());
        }
    }
}
