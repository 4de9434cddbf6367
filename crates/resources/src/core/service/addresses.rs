//! The rules for `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy`.

use super::{is_a, is_headless, legacy_ip};
use crate::checks;
use canopus_api::{Errors, Field, Value};
use std::net::IpAddr;

const FAMILIES: &[&str] = &["IPv4", "IPv6"];
const POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];

/// What the fields may be together. Also for the allocator, before it gives out addresses.
pub fn validate(spec: &Field, old: &Value, errors: &mut Errors) {
    if is_a(spec.value, "ExternalName") {
        return;
    }
    let (ip, ips) = (spec.at("clusterIP"), spec.at("clusterIPs"));
    let empty = Value::Array(Vec::new());
    let shown = if ips.is_set() { ips } else { ips.with(&empty) };
    match (ip.str(), ips.value.items()) {
        ("", []) => {}
        ("", _) => errors.invalid(&shown, "must be empty when `clusterIP` is not specified"),
        (_, []) => errors.required(&ips, ""),
        (one, [first, ..]) if first.str() != one => errors.invalid(&shown, "first value must match `clusterIP`"),
        _ => {}
    }
    families(spec, errors);
    let mut bad = false;
    for (i, address) in ips.items().enumerate() {
        if i == 0 && address.str() == "None" {
            if ips.value.items().len() > 1 {
                bad = true;
                errors.invalid(&ips, "'None' must be the first and only value");
            }
        } else {
            bad |= !legacy_ip(&address, &old["clusterIPs"], errors);
        }
    }
    if ips.value.items().len() > 2 {
        errors.invalid(&ips, "may only hold up to 2 values");
    }
    if !bad {
        together(spec, &ips, errors);
    }
}

fn families(spec: &Field, errors: &mut Errors) {
    let list = spec.at("ipFamilies");
    for (i, family) in list.items().enumerate() {
        checks::one_of(&family, FAMILIES, errors);
        if list.value.items()[..i].contains(family.value) {
            errors.duplicate(&family);
        }
    }
    checks::optional_one_of(&spec.at("ipFamilyPolicy"), POLICIES, errors);
}

/// Two addresses are of different families, and those that `ipFamilies` says.
fn together(spec: &Field, ips: &Field, errors: &mut Errors) {
    let parsed = || ips.value.items().iter().filter_map(|ip| checks::parse_ip(ip.str())).map(|(ip, _)| ip);
    if ips.value.items().len() > 1 && !checks::dual_stack(parsed()) {
        errors.invalid(ips, "may specify no more than one IP for each IP family");
    }
    if is_headless(spec.value) {
        return;
    }
    for (i, (address, family)) in parsed().zip(spec.value["ipFamilies"].items()).enumerate() {
        let actual = if is_v6(address) { "IPv6" } else { "IPv4" };
        if FAMILIES.contains(&family.str()) && family.str() != actual {
            let why = format!("expected an {} value as indicated by `ipFamilies[{i}]`", family.str());
            errors.invalid(&ips.index(i), why);
        }
    }
}

fn is_v6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_none())
}

/// A second address may come and go, the first never changes; so with families. From and to ExternalName all may change.
pub fn changes(spec: &Field, old: &Value, errors: &mut Errors) {
    if is_a(spec.value, "ExternalName") || is_a(old, "ExternalName") {
        return;
    }
    let headless = (is_headless(old), is_headless(spec.value));
    if headless != (true, true) {
        addresses(spec, old, errors);
    }
    if headless == (false, false) {
        family_changes(spec, old, errors);
    }
}

const FIXED: &str = "may not change once set";

fn addresses(spec: &Field, old: &Value, errors: &mut Errors) {
    let list = spec.at("clusterIPs");
    let (new, old) = (list.value.items(), old["clusterIPs"].items());
    // As upstream, errors show the whole list.
    let at = |i: usize, why: &str, errors: &mut Errors| errors.invalid(&list.index(i).with(list.value), why);
    if new.len() == old.len() {
        (0..new.len()).filter(|i| new[*i] != old[*i]).for_each(|i| at(i, FIXED, errors));
        return;
    }
    if new.is_empty() {
        at(0, "primary clusterIP can not be unset", errors);
    } else if !old.is_empty() && new[0] != old[0] {
        at(0, FIXED, errors);
    }
    released(spec, old.len() > new.len() && new.len() == 1, "clusterIP", errors);
}

fn family_changes(spec: &Field, old: &Value, errors: &mut Errors) {
    let list = spec.at("ipFamilies");
    let (new, old) = (list.value.items(), old["ipFamilies"].items());
    let first = |why: &str, errors: &mut Errors| errors.invalid(&list.index(0).with(list.value), why);
    if new.len() == old.len() {
        (0..new.len()).filter(|i| new[*i] != old[*i]).for_each(|_| first(FIXED, errors));
        return;
    }
    if old.len() > new.len() && spec.value["clusterIPs"].is_empty() {
        first("primary ipFamily can not be unset", errors);
    }
    if let ([new, ..], [old, ..]) = (new, old)
        && new != old
    {
        first(FIXED, errors);
    }
    released(spec, old.len() > new.len() && new.len() == 1, "ipFamily", errors);
}

fn released(spec: &Field, second: bool, what: &str, errors: &mut Errors) {
    let policy = spec.at("ipFamilyPolicy");
    if second && policy.str() != "SingleStack" {
        errors.invalid(&policy, format!("must be set to 'SingleStack' when releasing the secondary {what}"));
    }
}
