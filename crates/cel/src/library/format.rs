//! `format.dns1123Label().validate(s)`: the formats that names and values have.

use super::kubernetes::Opaque;
use crate::eval::{Context, EvalError, Function, Outcome};
use crate::time::Timestamp;
use crate::val::Val;
use base64::Engine;
use canopus_api::names;

/// A named format.
#[derive(Debug)]
pub struct Format {
    pub(crate) name: &'static str,
    /// What is wrong with a text; nothing if it has the format.
    check: fn(&str) -> Vec<String>,
    /// How long a regular expression would be that says the same: what a check costs.
    pub(crate) regex_size: u64,
}

static FORMATS: [(&str, Format); 13] = [
    ("dns1123Label", Format { name: "DNS1123Label", check: names::dns1123_label, regex_size: 30 }),
    ("dns1123Subdomain", Format { name: "DNS1123Subdomain", check: names::dns1123_subdomain, regex_size: 60 }),
    ("dns1035Label", Format { name: "DNS1035Label", check: names::dns1035_label, regex_size: 30 }),
    ("qualifiedName", Format { name: "QualifiedName", check: names::qualified_name, regex_size: 60 }),
    (
        "dns1123LabelPrefix",
        Format { name: "DNS1123LabelPrefix", check: |s| names::dns1123_label(&prefix(s)), regex_size: 30 },
    ),
    (
        "dns1123SubdomainPrefix",
        Format { name: "DNS1123SubdomainPrefix", check: |s| names::dns1123_subdomain(&prefix(s)), regex_size: 60 },
    ),
    (
        "dns1035LabelPrefix",
        Format { name: "DNS1035LabelPrefix", check: |s| names::dns1035_label(&prefix(s)), regex_size: 30 },
    ),
    ("labelValue", Format { name: "LabelValue", check: names::label_value, regex_size: 40 }),
    ("uri", Format { name: "URI", check: uri, regex_size: 1103 }),
    ("uuid", Format { name: "uuid", check: |s| unless(is_uuid(s), "does not match the UUID format"), regex_size: 97 }),
    ("byte", Format { name: "byte", check: |s| unless(is_base64(s), "invalid base64"), regex_size: 84 }),
    (
        "date",
        Format { name: "date", check: |s| unless(Timestamp::parse_date(s).is_some(), "invalid date"), regex_size: 121 },
    ),
    (
        "datetime",
        Format {
            name: "datetime",
            check: |s| unless(Timestamp::parse(s).is_some(), "invalid datetime"),
            regex_size: 121,
        },
    ),
];

/// A prefix may end in what the name it begins may not.
fn prefix(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format!("{rest}a"),
        _ => text.to_string(),
    }
}

fn unless(right: bool, why: &str) -> Vec<String> {
    if right { Vec::new() } else { vec![why.to_string()] }
}

fn uri(text: &str) -> Vec<String> {
    match super::url::read(text) {
        Ok(_) => Vec::new(),
        Err(why) => vec![format!("parse {text:?}: {why}")],
    }
}

/// With the dashes or without.
fn is_uuid(text: &str) -> bool {
    let digits = text.bytes().filter(|b| *b != b'-').count();
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    digits == 32
        && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
        && (groups == [32] || groups == [8, 4, 4, 4, 12])
}

fn is_base64(text: &str) -> bool {
    !text.is_empty() && base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}

pub(crate) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "validate" => validate,
        "format.named" => named,
        "format.dns1123Label" => |_, _| get("dns1123Label"),
        "format.dns1123Subdomain" => |_, _| get("dns1123Subdomain"),
        "format.dns1035Label" => |_, _| get("dns1035Label"),
        "format.qualifiedName" => |_, _| get("qualifiedName"),
        "format.dns1123LabelPrefix" => |_, _| get("dns1123LabelPrefix"),
        "format.dns1123SubdomainPrefix" => |_, _| get("dns1123SubdomainPrefix"),
        "format.dns1035LabelPrefix" => |_, _| get("dns1035LabelPrefix"),
        "format.labelValue" => |_, _| get("labelValue"),
        "format.uri" => |_, _| get("uri"),
        "format.uuid" => |_, _| get("uuid"),
        "format.byte" => |_, _| get("byte"),
        "format.date" => |_, _| get("date"),
        "format.datetime" => |_, _| get("datetime"),
        _ => return None,
    })
}

fn lookup(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|(n, _)| *n == name).map(|(_, f)| f)
}

fn get<'a>(name: &str) -> Outcome<'a> {
    lookup(name).map(|f| Val::opaque(Opaque::Format(f))).ok_or_else(EvalError::no_such_overload)
}

fn named<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    let [Val::Str(name)] = args else { return Err(EvalError::no_such_overload()) };
    Ok(lookup(name).map_or(Val::Optional(None), |f| Val::some(Val::opaque(Opaque::Format(f)))))
}

fn validate<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    let [Val::Opaque(format), Val::Str(text)] = args else { return Err(EvalError::no_such_overload()) };
    let Opaque::Format(format) = &**format else { return Err(EvalError::no_such_overload()) };
    let why: Vec<Val> = (format.check)(text).into_iter().map(Val::from).collect();
    Ok(if why.is_empty() { Val::Optional(None) } else { Val::some(why.into()) })
}
