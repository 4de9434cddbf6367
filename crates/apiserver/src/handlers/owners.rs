//! Owners that are said twice, which old clients do: they are told, and the second time does not count.

use canopus_api::Value;

const ADVICE: &str = "API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed:";

/// Takes out repeated owners. Answers what to warn of.
pub fn dedup(object: &mut Value, after_admission: bool) -> Option<String> {
    let owners = object["metadata"]["ownerReferences"].items();
    if owners.len() < 2 {
        return None;
    }
    let (mut kept, mut repeated): (Vec<Value>, Vec<String>) = Default::default();
    for owner in owners {
        match kept.contains(owner) {
            true => repeated.push(owner["uid"].str().to_string()),
            false => kept.push(owner.clone()),
        }
    }
    if repeated.is_empty() {
        return None;
    }
    object.set_path(&["metadata", "ownerReferences"], Value::Array(kept));
    let when = if after_admission { " after mutating admission happens" } else { "" };
    let uids = repeated.join(", ");
    Some(format!(".metadata.ownerReferences contains duplicate entries{when}; {ADVICE} {uids}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn said_twice() {
        let owner =
            |uid: &str, controller: bool| value!({"kind": "A", "name": "a", "uid": uid, "controller": controller});
        let mut object =
            value!({"metadata": {"ownerReferences": [(owner("1", true)), (owner("1", false)), (owner("1", true))]}});
        let warning = dedup(&mut object, false).unwrap();
        assert!(
            warning.starts_with(".metadata.ownerReferences contains duplicate entries; API server dedups"),
            "{warning}"
        );
        assert!(warning.ends_with("duplicate UID(s) observed: 1"), "{warning}");
        assert_eq!(object["metadata"]["ownerReferences"].items().len(), 2);
        assert_eq!(dedup(&mut object, true), None);
    }
}
