//! What a claim got, who uses it, and what drivers say about its devices.

use super::request::{reference, references};
use super::rules::{binding, configuration, driver, fits, label, pool, raw, unique};
use crate::checks;
use crate::core::pod::scheduling::node_selector;
use canopus_api::{Errors, Field, Value, names};
use compact_str::{CompactString, format_compact};

/// What tells one allocated device, or share of one, from another.
pub fn device_id(device: &Value) -> CompactString {
    let part = |field: &str| device[field].str().to_string();
    let share = if device["shareID"].is_empty() { String::new() } else { format!("/{}", part("shareID")) };
    format_compact!("{}/{}/{}{share}", part("driver"), part("pool"), part("device"))
}

/// The devices of an allocation.
pub fn allocated(status: &Value) -> Vec<CompactString> {
    status.path(&["allocation", "devices", "results"]).items().iter().map(device_id).collect()
}

/// Changing the status of a claim with these requests.
pub fn validate(new: &Field, old: &Value, deleting: bool, requests: &[String], errors: &mut Errors) {
    let (users, devices, allocation) = (new.at("reservedFor"), new.at("devices"), new.at("allocation"));
    if fits(&users, 256, errors) {
        for user in users.items() {
            for field in ["resource", "name", "uid"] {
                checks::required(&user.at(field), errors);
            }
        }
        unique(&users, |user| user["uid"].str().into(), errors);
    }
    let owned = allocated(new.value);
    devices.items().for_each(|one| device(&one, &owned, errors));
    unique(&devices, device_id, errors);
    if !users.value.is_empty() {
        let added = |user: &&Value| !old["reservedFor"].items().contains(user);
        if allocation.is_unset() {
            errors.forbidden(&users, "may not be specified when `allocated` is not set");
        } else if deleting && users.value.items().iter().any(|user| added(&user)) {
            let why = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            errors.forbidden(&users, why);
        }
    }
    if allocation.is_set() {
        match old["allocation"].is_null() {
            true => result(&allocation, requests, errors),
            false => checks::immutable(&allocation, &old["allocation"], errors),
        }
    }
}

fn result(allocation: &Field, requests: &[String], errors: &mut Errors) {
    let devices = allocation.at("devices");
    let (results, config) = (devices.at("results"), devices.at("config"));
    if fits(&results, 32, errors) {
        for one in results.items() {
            reference(&one.at("request"), requests, errors);
            driver(&one.at("driver"), errors);
            pool(&one.at("pool"), errors);
            label(&one.at("device"), errors);
            binding(&one, errors);
            share(&one.at("shareID"), errors);
        }
    }
    if fits(&config, 64, errors) {
        for one in config.items() {
            checks::required_one_of(&one.at("source"), &["FromClaim", "FromClass"], errors);
            references(&one.at("requests"), requests, errors);
            configuration(&one, errors);
        }
    }
    let nodes = allocation.at("nodeSelector");
    if nodes.is_set() {
        node_selector(&nodes, errors);
    }
}

fn share(id: &Field, errors: &mut Errors) {
    if id.is_unset() {
        return;
    }
    let groups: Vec<&str> = id.str().split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|g| g.len()).collect();
    let hexadecimal = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if lengths != [8, 4, 4, 4, 12] || !groups.iter().all(|g| g.bytes().all(hexadecimal)) {
        let why = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters";
        errors.invalid(id, why);
    }
}

fn device(device: &Field, owned: &[CompactString], errors: &mut Errors) {
    driver(&device.at("driver"), errors);
    pool(&device.at("pool"), errors);
    label(&device.at("device"), errors);
    share(&device.at("shareID"), errors);
    let id = device_id(device.value);
    if !owned.contains(&id) {
        errors.invalid(&device.with(&id.into()), "must be an allocated device in the claim");
    }
    let conditions = device.at("conditions");
    if conditions.value.items().len() > 8 {
        errors.too_many(&conditions, conditions.value.items().len(), 8);
    }
    for condition in conditions.items() {
        let (kind, reason) = (condition.at("type"), condition.at("reason"));
        checks::check(&kind.with(&kind.str().into()), names::qualified_name, errors);
        checks::one_of(&condition.at("status"), &["False", "True", "Unknown"], errors);
        checks::required(&condition.at("lastTransitionTime"), errors);
        checks::required(&reason, errors);
    }
    unique(&conditions, |condition| condition["type"].str().into(), errors);
    let data = device.at("data");
    if data.is_set() {
        raw(&data, 10 * 1024, errors);
    }
    network(&device.at("networkData"), errors);
}

fn network(data: &Field, errors: &mut Errors) {
    for (field, most) in [("interfaceName", 256), ("hardwareAddress", 128)] {
        let field = data.at(field);
        if field.str().len() > most {
            errors.too_long(&field, most);
        }
    }
    let addresses = data.at("ips");
    if !fits(&addresses, 16, errors) {
        return;
    }
    for address in addresses.items() {
        match checks::parse_cidr(address.str()) {
            None => {
                let why = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
                errors.invalid(&address, why);
            }
            Some((ip, _, bits)) if format!("{ip}/{bits}") != address.str() => {
                errors.invalid(&address, format!("must be in canonical form (\"{ip}/{bits}\")"));
            }
            Some(_) => {}
        }
    }
    unique(&addresses, |address| address.str().into(), errors);
}
