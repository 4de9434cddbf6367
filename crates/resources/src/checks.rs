//! Checks that many kinds share. Each adds upstream's errors for what is wrong with one field.

use canopus_api::{Errors, Field, Quantity, Value, names};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const IMMUTABLE: &str = "field is immutable";
pub const NEGATIVE: &str = "must be greater than or equal to 0";

/// Names met so far, to find the ones that are there twice.
pub type Seen = std::collections::BTreeSet<compact_str::CompactString>;

/// Why a string is bad; nothing when it is good. The checks of [`canopus_api::names`] are such.
pub type Check = fn(&str) -> Vec<String>;

/// `Invalid` for each reason that `check` has against the field's string.
pub fn check(field: &Field, check: Check, errors: &mut Errors) {
    for why in check(field.str()) {
        errors.invalid(field, why);
    }
}

/// `Required` when the string is empty, else [`check`].
pub fn required_check(field: &Field, why_bad: Check, errors: &mut Errors) {
    if required(field, errors) {
        check(field, why_bad, errors);
    }
}

/// `Required` when the field is missing or empty; whether it was there.
pub fn required(field: &Field, errors: &mut Errors) -> bool {
    let there = !field.value.is_empty();
    if !there {
        errors.required(field, "");
    }
    there
}

/// `Required` when empty, `NotSupported` when not one of `supported`.
pub fn required_one_of(field: &Field, supported: &[&str], errors: &mut Errors) {
    if required(field, errors) {
        one_of(field, supported, errors);
    }
}

/// `NotSupported` when the string (empty when missing) is not one of `supported`.
pub fn one_of(field: &Field, supported: &[&str], errors: &mut Errors) {
    if !supported.contains(&field.str()) {
        errors.not_supported(&field.with(&field.str().into()), supported);
    }
}

/// [`one_of`] for a field that may be missing.
pub fn optional_one_of(field: &Field, supported: &[&str], errors: &mut Errors) {
    if field.is_set() {
        one_of(field, supported, errors);
    }
}

pub fn nonnegative(field: &Field, errors: &mut Errors) {
    if field.int() < 0 {
        errors.invalid(field, NEGATIVE);
    }
}

/// `must be between low and high, inclusive`.
pub fn in_range(field: &Field, low: i64, high: i64, errors: &mut Errors) {
    if !(low..=high).contains(&field.int()) {
        errors.invalid(field, format!("must be between {low} and {high}, inclusive"));
    }
}

/// A whole number of something, or a share of it like `25%`.
pub fn count_or_percent(field: &Field, errors: &mut Errors) {
    match field.value {
        Value::Str(text) if percent(text).is_none() => {
            let why = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
            errors.invalid(field, why);
        }
        Value::Str(_) => {}
        _ => nonnegative(field, errors),
    }
}

/// The number in `5` or `5%`; 0 when there is none.
pub fn count_or_percent_value(value: &Value) -> i64 {
    value.as_str().map_or(value.int(), |text| percent(text).unwrap_or(0))
}

/// At most `100%`.
pub fn at_most_all(field: &Field, errors: &mut Errors) {
    if field.value.as_str().and_then(percent).is_some_and(|share| share > 100) {
        errors.invalid(field, "must not be greater than 100%");
    }
}

/// `25%` as 25.
fn percent(text: &str) -> Option<i64> {
    let digits = text.strip_suffix('%').filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))?;
    Some(digits.parse().unwrap_or(i64::MAX))
}

/// A user or group id, when set.
pub fn id(field: &Field, errors: &mut Errors) {
    if field.is_set() {
        in_range(field, 0, i64::from(i32::MAX), errors);
    }
}

/// `field is immutable` when the two differ in meaning.
pub fn immutable(new: &Field, old: &Value, errors: &mut Errors) {
    if !crate::semantic::equal(new.value, old) {
        errors.invalid(new, IMMUTABLE);
    }
}

/// A map of labels. As upstream, errors name the map, not the entry.
pub fn labels(field: &Field, errors: &mut Errors) {
    for (key, value) in field.value.entries() {
        for why in names::qualified_name(key) {
            errors.invalid(&field.with(&key.into()), why);
        }
        for why in names::label_value(value.str()) {
            errors.invalid(&field.with(value), why);
        }
    }
}

/// A map of annotations: keys' shape, ignoring case, and the total size.
pub fn annotations(field: &Field, errors: &mut Errors) {
    for (key, _) in field.value.entries() {
        for why in names::qualified_name(&key.to_lowercase()) {
            errors.invalid(&field.with(&key.into()), why);
        }
    }
    annotations_size(field, errors);
}

/// How much may be in a map of annotations.
pub fn annotations_size(field: &Field, errors: &mut Errors) {
    const MAX: usize = 256 * 1024;
    let size: usize = field.value.entries().map(|(key, value)| key.len() + value.str().len()).sum();
    if size > MAX {
        errors.too_long(field, MAX);
    }
}

/// `acme.io/foo`: the key of a label that has a domain.
pub fn domain_prefixed_key(field: &Field, errors: &mut Errors) {
    if !required(field, errors) {
        return;
    }
    let wrong = names::qualified_name(field.str());
    if wrong.is_empty() && !field.str().contains('/') {
        errors.invalid(field, "must be a domain-prefixed key (such as \"acme.io/foo\")");
    }
    wrong.into_iter().for_each(|why| errors.invalid(field, why));
}

/// A `metav1.LabelSelector`.
pub fn label_selector(field: &Field, errors: &mut Errors) {
    labels(&field.at("matchLabels"), errors);
    for requirement in field.at("matchExpressions").items() {
        let (operator, values) = (requirement.at("operator"), requirement.at("values"));
        match operator.str() {
            "In" | "NotIn" if values.value.is_empty() => {
                errors.required(&values, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.value.is_empty() => {
                errors.forbidden(&values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
            "Exists" | "DoesNotExist" => {}
            other => errors.invalid(&operator.with(&other.into()), "not a valid selector operator"),
        }
        let key = requirement.at("key");
        check(&key.with(&key.str().into()), names::qualified_name, errors);
        for value in values.items() {
            check(&value, names::label_value, errors);
        }
    }
}

/// `integer` or `string` port: a number or an IANA name.
pub fn port_number_or_name(field: &Field, errors: &mut Errors) {
    match field.value {
        Value::Str(name) => {
            for why in names::port_name(name) {
                errors.invalid(field, why);
            }
        }
        _ => in_range(&field.with(&field.int().into()), 1, 65535, errors),
    }
}

/// An IP address in a field that predates strict parsing (upstream `IsValidIPForLegacyField`).
pub fn ip(field: &Field, errors: &mut Errors) {
    let text = field.str();
    match parse_ip(text) {
        None => {
            let shown: Value = text.into();
            errors.invalid(&field.with(&shown), "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
        }
        Some((_, false)) => errors.invalid(field, "must not have leading 0s"),
        Some((IpAddr::V6(v6), _)) if v6.to_ipv4_mapped().is_some() => {
            errors.invalid(field, "must not be an IPv4-mapped IPv6 address");
        }
        Some(_) => {}
    }
}

/// A CIDR in a field that predates strict parsing (upstream `IsValidCIDRForLegacyField`).
pub fn cidr(field: &Field, errors: &mut Errors) {
    let Some((address, strict, bits)) = parse_cidr(field.str()) else {
        let shown: Value = field.str().into();
        errors.invalid(&field.with(&shown), "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
        return;
    };
    if !strict {
        errors.invalid(field, "must not have leading 0s in IP or prefix length");
        return;
    }
    let stray = match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            errors.invalid(field, "must not have an IPv4-mapped IPv6 address");
            false
        }
        IpAddr::V6(v6) => bits < 128 && v6.to_bits() << bits != 0,
        IpAddr::V4(v4) => bits < 32 && v4.to_bits() << bits != 0,
    };
    if stray {
        errors.invalid(field, "must not have bits set beyond the prefix length");
    }
}

/// Parses an address, allowing leading zeros in IPv4; the flag says whether there were none.
pub fn parse_ip(text: &str) -> Option<(IpAddr, bool)> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some((address, true));
    }
    if text.contains(':') {
        let (head, v4) = text.rsplit_once(':')?;
        let v4 = sloppy_v4(v4)?;
        return format!("{head}:{v4}").parse::<Ipv6Addr>().ok().map(|v6| (v6.into(), false));
    }
    sloppy_v4(text).map(|v4| (v4.into(), false))
}

fn sloppy_v4(text: &str) -> Option<Ipv4Addr> {
    let octet = |part: &str| -> Option<u8> {
        let digits = part.bytes().all(|b| b.is_ascii_digit());
        (digits && !part.is_empty()).then(|| part.parse().ok()).flatten()
    };
    let octets = text.split('.').map(octet).collect::<Option<Vec<u8>>>()?;
    <[u8; 4]>::try_from(octets).ok().map(Ipv4Addr::from)
}

/// Address, whether it was written without leading zeros, and the length of the prefix.
pub fn parse_cidr(text: &str) -> Option<(IpAddr, bool, u32)> {
    let (address, bits) = text.split_once('/')?;
    let (address, strict) = parse_ip(address)?;
    let max = if address.is_ipv4() { 32 } else { 128 };
    if bits.is_empty() || !bits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let zeros = bits.len() > 1 && bits.starts_with('0');
    let bits = bits.parse::<u32>().ok().filter(|b| *b <= max)?;
    Some((address, strict && !zeros, bits))
}

/// The same as [`ip`] for fields and names that know nothing but strict parsing: in canonical form as well (upstream `IsValidIP`).
pub fn canonical_ip(text: &str) -> Vec<String> {
    let value = Value::from(text);
    let (field, mut errors) = (Field::root(&value), Errors::new());
    ip(&field, &mut errors);
    if errors.is_empty()
        && let Some((address, _)) = parse_ip(text)
        && address.to_string() != text
    {
        errors.invalid(&field, format!("must be in canonical form (\"{address}\")"));
    }
    errors.iter().map(|e| e.detail.clone()).collect()
}

/// The same as [`cidr`], and in canonical form (upstream `IsValidCIDR`).
pub fn canonical_cidr(field: &Field, errors: &mut Errors) {
    let before = errors.len();
    cidr(field, errors);
    if errors.len() > before {
        return;
    }
    if let Some((address, _, bits)) = parse_cidr(field.str())
        && format!("{address}/{bits}") != field.str()
    {
        errors.invalid(field, format!("must be in canonical form (\"{address}/{bits}\")"));
    }
}

/// The first address of the block that this one is in.
pub fn network(address: IpAddr, bits: u32) -> IpAddr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & u32::MAX.checked_shl(32 - bits).unwrap_or(0)).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & u128::MAX.checked_shl(128 - bits).unwrap_or(0)).into(),
    }
}

/// Whether the block (address, bits) holds the address.
pub fn contains(block: (IpAddr, u32), address: IpAddr) -> bool {
    block.0.is_ipv4() == address.is_ipv4() && network(block.0, block.1) == network(address, block.1)
}

/// At most one address of each family.
pub fn dual_stack(addresses: impl Iterator<Item = IpAddr>) -> bool {
    let (mut v4, mut v6) = (0, 0);
    addresses.for_each(|a| if a.is_ipv4() { v4 += 1 } else { v6 += 1 });
    v4 == 1 && v6 == 1
}

/// Warnings about addresses in a form that others may read differently (upstream `GetWarningsForIP`).
pub fn ip_warning(path: &str, text: &str) -> Option<String> {
    let (address, strict) = parse_ip(text)?;
    let plain = match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map(IpAddr::from),
        IpAddr::V4(_) => None,
    };
    if let Some(plain) = plain.or((!strict).then_some(address)) {
        return Some(format!("{path}: non-standard IP address {text:?} is invalid: use \"{plain}\""));
    }
    (address.is_ipv6() && address.to_string() != text)
        .then(|| format!("{path}: IPv6 address {text:?} should be in RFC 5952 canonical format (\"{address}\")"))
}

/// Warnings about blocks in a form that others may read differently (upstream `GetWarningsForCIDR`).
pub fn cidr_warnings(field: &Field) -> Vec<String> {
    let (path, text) = (field.path(), field.str());
    let Some((address, strict, bits)) = parse_cidr(text) else { return Vec::new() };
    let first = network(address, bits);
    let (first_text, mapped) = match first {
        IpAddr::V6(v6) if bits >= 96 && v6.to_ipv4_mapped().is_some() => {
            (format!("{}/{}", v6.to_canonical(), bits - 96), true)
        }
        _ => (format!("{first}/{bits}"), false),
    };
    let mut out = Vec::new();
    if first != address {
        let all = if address.is_ipv4() { 32 } else { 128 };
        let should = format!("should be {first_text:?} or \"{}/{all}\"?", address.to_canonical());
        out.push(format!("{path}: CIDR value {text:?} is ambiguous in this context ({should})"));
    }
    if !strict || mapped {
        out.push(format!("{path}: non-standard CIDR value {text:?} is invalid: use {first_text:?}"));
    }
    if out.is_empty() && address.is_ipv6() && first_text != text {
        out.push(format!("{path}: IPv6 CIDR value {text:?} should be in RFC 5952 canonical format ({first_text:?})"));
    }
    out
}

/// `acme.io/foo`: a domain and a path.
pub fn domain_prefixed_path(field: &Field, errors: &mut Errors) {
    if !required(field, errors) {
        return;
    }
    let (host, path) = match field.str().split_once('/') {
        Some((host, path)) if !host.is_empty() && !path.is_empty() => (host, path),
        _ => return errors.invalid(field, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
    };
    check(&field.with(&host.into()), names::dns1123_subdomain, errors);
    if !path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b)) {
        let why = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
        errors.invalid(&field.with(&path.into()), why);
    }
}

/// The name of a signer: `example.com/signer-name`.
pub fn signer_name(field: &Field, errors: &mut Errors) {
    if !required(field, errors) {
        return;
    }
    let (domain, path) = match field.str().split('/').collect::<Vec<_>>().as_slice() {
        [domain, path] => (*domain, *path),
        _ => {
            let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
            return errors.invalid(field, why);
        }
    };
    let labels = |text: &str, why_bad: Check, errors: &mut Errors| {
        let bad = text.split('.').map(|label| (label, why_bad(label))).find(|(_, why)| !why.is_empty());
        for why in bad.iter().flat_map(|(_, why)| why) {
            let label = bad.as_ref().map_or("", |(label, _)| label);
            errors.invalid(&field.with(&text.into()), format!("validating label {label:?}: {why}"));
        }
    };
    if domain.len() > 253 {
        errors.too_long(field, 253);
    }
    labels(domain, names::dns1123_label, errors);
    if !domain.contains('.') {
        let why = "should be a domain with at least two segments separated by dots";
        errors.invalid(&field.with(&domain.into()), why);
    }
    labels(path, names::dns1123_subdomain, errors);
    const MOST: usize = 253 + 1 + 253 + 63 + 1;
    if field.str().len() > MOST {
        errors.too_long(field, MOST);
    }
}

/// A quantity that must not be negative; None (and an error) when it is no quantity at all.
pub fn quantity(field: &Field, errors: &mut Errors) -> Option<Quantity> {
    let Some(quantity) = Quantity::from_value(field.value) else {
        errors.invalid(field, canopus_api::quantity::BadQuantity.to_string());
        return None;
    };
    if quantity.is_negative() {
        errors.invalid(&field.with(&quantity.into()), NEGATIVE);
    }
    Some(quantity)
}

/// Compares errors with the texts expected: the helper of the crate's table tests.
#[cfg(test)]
pub fn texts(errors: &Errors) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn addresses_and_blocks() {
        type Check = fn(&Field, &mut Errors);
        let cases: &[(Check, &str, &str)] = &[
            (ip, "10.0.0.1", ""),
            (ip, "2001:db8::1", ""),
            (ip, "FE80:0:0:0:0:0:0:0abc", ""),
            (ip, "010.0.0.1", "must not have leading 0s"),
            (ip, "::ffff:1.2.3.4", "must not be an IPv4-mapped IPv6 address"),
            (ip, "10.0.0", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
            (cidr, "10.0.0.0/24", ""),
            (cidr, "10.0.0.1/24", "must not have bits set beyond the prefix length"),
            (cidr, "10.0.0.0/024", "must not have leading 0s in IP or prefix length"),
            (cidr, "10.0.0.0/33", "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
            (cidr, "2001:db8::/64", ""),
        ];
        for (check, text, why) in cases {
            let value = value!(*text);
            let mut errors = Errors::new();
            check(&Field::root(&value), &mut errors);
            assert_eq!(errors.iter().map(|e| e.detail.as_str()).collect::<String>(), *why, "{text}");
        }
    }

    #[test]
    fn selectors() {
        let bad = value!({"matchLabels": {"a b": "-"}, "matchExpressions": [
            {"key": "a", "operator": "In"}, {"key": "a", "operator": "Exists", "values": ["b"]}, {"key": "a", "operator": "Is"}]});
        let mut errors = Errors::new();
        label_selector(&Field::root(&bad), &mut errors);
        let found: Vec<_> = errors.iter().map(|e| (e.field.as_str(), e.detail.as_str())).collect();
        assert_eq!(
            found[2..],
            [
                ("matchExpressions[0].values", "must be specified when `operator` is 'In' or 'NotIn'"),
                ("matchExpressions[1].values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"),
                ("matchExpressions[2].operator", "not a valid selector operator"),
            ]
        );
        assert!(found[0].1.starts_with("name part must consist") && found[1].1.starts_with("a valid label must be"));
    }
}
