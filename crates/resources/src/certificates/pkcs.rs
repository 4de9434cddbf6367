//! What certificate requests and certificates are made of: PEM and DER.

use super::keys;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Why this is no PEM-encoded PKCS #10 request that its own key has signed.
pub fn check_request(pem: &[u8]) -> Result<(), String> {
    let block = match blocks(pem).next() {
        Some(Ok(block)) if block.label == "CERTIFICATE REQUEST" => block,
        _ => return Err("PEM block type must be CERTIFICATE REQUEST".into()),
    };
    let (rest, request) =
        X509CertificationRequest::from_der(&block.contents).map_err(|error| format!("asn1: {error}"))?;
    if !rest.is_empty() {
        return Err("asn1: syntax error: trailing data".into());
    }
    keys::check_request(&request).map_err(|error| format!("x509: {error}"))
}

/// Why these are no PEM-encoded certificates. None at all is fine.
pub fn check_certificates(pem: &[u8]) -> Result<(), String> {
    if pem.is_empty() {
        return Ok(());
    }
    let mut any = false;
    for block in blocks(pem).map_while(Result::ok) {
        if block.label != "CERTIFICATE" {
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.label));
        }
        any = true;
        let mut rest = block.contents.as_slice();
        if rest.is_empty() {
            return Err("found CERTIFICATE PEM block containing 0 certificates".into());
        }
        while !rest.is_empty() {
            rest = X509Certificate::from_der(rest).map_err(|error| format!("x509: {error}"))?.0;
        }
    }
    if has_headers(pem) {
        return Err("no PEM block headers are permitted".into());
    }
    if any { Ok(()) } else { Err("must contain at least one CERTIFICATE PEM block".into()) }
}

/// What is wrong with these as certificates of authorities, at least one of them and each but once.
pub fn check_authorities(pem: &[u8]) -> Vec<String> {
    let (mut wrong, mut seen) = (Vec::new(), Vec::<Vec<u8>>::new());
    let mut duplicates = std::collections::BTreeMap::<usize, Vec<String>>::new();
    for (i, block) in blocks(pem).map_while(Result::ok).enumerate() {
        if block.label != "CERTIFICATE" {
            wrong.push(format!("entry {i} has bad block type: {}", block.label));
            continue;
        }
        match X509Certificate::from_der(&block.contents) {
            Ok(([], certificate)) => {
                if !certificate.is_ca() {
                    wrong.push(format!("entry {i} does not have the CA bit set"));
                    continue;
                }
            }
            _ => {
                wrong.push(format!("entry {i} does not parse as X.509"));
                continue;
            }
        }
        let first = seen.iter().position(|known| *known == block.contents);
        duplicates.entry(first.unwrap_or(seen.len())).or_default().push(i.to_string());
        if first.is_none() {
            seen.push(block.contents);
        }
    }
    if has_headers(pem) {
        wrong.push("no PEM block headers are permitted".into());
    }
    if !wrong.is_empty() {
        return wrong;
    }
    if seen.is_empty() {
        return vec!["at least one trust anchor must be provided".into()];
    }
    let twice = duplicates.into_values().filter(|places| places.len() > 1);
    twice.map(|places| format!("duplicate trust anchor (indices [{}])", places.join(" "))).collect()
}

/// Why nobody can be trusted by these (upstream's client's `rootCertPool`).
pub fn check_roots(pem: &[u8]) -> Result<(), String> {
    let mut any = false;
    for block in blocks(pem) {
        any = true;
        let block = block.map_err(|_| "unable to parse bytes as PEM block")?;
        if block.label != "CERTIFICATE" {
            continue;
        }
        match X509Certificate::from_der(&block.contents) {
            Ok(_) => return Ok(()),
            Err(error) => return Err(format!("failed to parse certificate: {error}")),
        }
    }
    Err(if any { "no valid certificate authority data seen" } else { "unable to parse bytes as PEM block" }.into())
}

fn blocks(pem: &[u8]) -> impl Iterator<Item = Result<Pem, x509_parser::error::PEMError>> + '_ {
    Pem::iter_from_buffer(pem)
}

/// Whether a line within a block says `Key: value`.
fn has_headers(pem: &[u8]) -> bool {
    let mut inside = false;
    pem.split(|b| *b == b'\n').any(|line| {
        if line.starts_with(b"-----") {
            inside = line.starts_with(b"-----BEGIN");
            return false;
        }
        inside && line.contains(&b':')
    })
}
