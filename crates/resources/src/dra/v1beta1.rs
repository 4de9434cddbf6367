//! What was otherwise in `resource.k8s.io/v1beta1`: a request was its one device, and a device had its parts in `basic`.

use canopus_api::Value;

/// Fields that have moved into `exactly`.
const EXACTLY: &[&str] =
    &["adminAccess", "allocationMode", "capacity", "count", "deviceClassName", "selectors", "tolerations"];
/// What a device has besides its `basic` parts.
const DEVICE: &[&str] = &["name", "basic"];

/// The lists of requests of a claim or of a template of claims.
fn requests(object: &mut Value) -> impl Iterator<Item = &mut Value> {
    let spec = object.get_mut("spec");
    let spec = spec.and_then(|spec| if spec.get("spec").is_some() { spec.get_mut("spec") } else { Some(spec) });
    let list = spec.and_then(|s| s.get_mut("devices")?.get_mut("requests")?.as_array_mut());
    list.into_iter().flatten()
}

pub fn claim_to_storage(object: &mut Value) {
    for request in requests(object) {
        let mut exactly = Value::object();
        for field in EXACTLY {
            if let Some(value) = request.remove(field) {
                exactly.set(field, value);
            }
        }
        if !exactly.is_empty() {
            request.set("exactly", exactly);
        }
    }
}

pub fn claim_from_storage(object: &mut Value) {
    for request in requests(object) {
        for (field, value) in request.remove("exactly").unwrap_or_default().entries() {
            request.set(field, value.clone());
        }
    }
}

fn devices(object: &mut Value) -> impl Iterator<Item = &mut Value> {
    let list = object.get_mut("spec").and_then(|s| s.get_mut("devices")?.as_array_mut());
    list.into_iter().flatten()
}

pub fn slice_to_storage(object: &mut Value) {
    for device in devices(object) {
        for (field, value) in device.remove("basic").unwrap_or_default().entries() {
            device.set(field, value.clone());
        }
    }
    // What was "" and false there is nothing here.
    if let Some(spec) = object.get_mut("spec") {
        for field in ["nodeName", "allNodes"] {
            if spec[field].str().is_empty() && !spec[field].bool() {
                spec.remove(field);
            }
        }
    }
}

pub fn slice_from_storage(object: &mut Value) {
    for device in devices(object) {
        let mut basic = Value::object();
        let moved: Vec<String> =
            device.entries().map(|(field, _)| field.to_string()).filter(|f| !DEVICE.contains(&f.as_str())).collect();
        for field in moved {
            if let Some(value) = device.remove(&field) {
                basic.set(&field, value);
            }
        }
        device.set("basic", basic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn there_and_back() {
        let exactly = value!({"name": "a", "exactly": {"deviceClassName": "c", "count": 2}});
        let flat = value!({"name": "a", "deviceClassName": "c", "count": 2});
        let first = value!({"name": "b", "firstAvailable": [{"name": "x", "deviceClassName": "c"}]});
        for wrap in [
            |requests: Value| value!({"spec": {"devices": {"requests": requests}}}),
            |requests: Value| value!({"spec": {"metadata": {}, "spec": {"devices": {"requests": requests}}}}),
        ] {
            let stored = wrap(value!([(&exactly), (&first)]));
            let mut object = stored.clone();
            claim_from_storage(&mut object);
            assert_eq!(object, wrap(value!([(&flat), (&first)])));
            claim_to_storage(&mut object);
            assert_eq!(object, stored);
        }
        let stored = value!({"spec": {"driver": "d", "devices": [{"name": "d", "attributes": {"a": {"int": 1}}}, {"name": "e"}]}});
        let mut object = stored.clone();
        slice_from_storage(&mut object);
        assert_eq!(
            object["spec"]["devices"],
            value!([{"name": "d", "basic": {"attributes": {"a": {"int": 1}}}}, {"name": "e", "basic": {}}])
        );
        object.set_path(&["spec", "nodeName"], "");
        object.set_path(&["spec", "allNodes"], false);
        slice_to_storage(&mut object);
        assert_eq!(object, stored);
    }
}
