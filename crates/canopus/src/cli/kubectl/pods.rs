//! Which pod, and which container in it, `logs` and `exec` are about.

use super::select;
use super::session::Session;
use anyhow::{Result, bail};
use canopus_api::{Api, Gvr, LabelSelector, ListOptions, Target, Value};
use std::sync::Arc;

const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The pod that `word` names: a pod's name, `pod/NAME`, or something that selects pods like `deployment/NAME`.
pub async fn find(session: &Session, word: &str) -> Result<Arc<Value>> {
    let pods = Gvr::new("", "v1", "pods");
    if !word.contains('/') {
        return Ok(session.api.get(&Target::new(&pods, &session.namespace, word)).await?.value());
    }
    let discovery = session.discovery().await?;
    let selected = select::parse(discovery, &[word.to_string()])?.remove(0);
    let object = session.api.get(&selected.target(session, false)).await?.value();
    if selected.resource.gvr == pods {
        return Ok(object);
    }
    let options = ListOptions { labels: selector(&object, word)?, ..ListOptions::default() };
    let list = session.api.list(&Target::new(&pods, &session.namespace, ""), &options).await?;
    let mut found: Vec<Arc<Value>> = list.items.iter().map(|pod| pod.value()).collect();
    found.sort_by_key(|pod| readiness(pod));
    let count = found.len();
    let Some(pod) = found.into_iter().next() else { bail!("no pods of {word} found") };
    if count > 1 {
        eprintln!("Found {count} pods, using pod/{}", pod["metadata"]["name"].str());
    }
    Ok(pod)
}

/// The labels of the pods that belong to `object`.
fn selector(object: &Value, word: &str) -> Result<LabelSelector> {
    let selector = &object["spec"]["selector"];
    let structured = selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some();
    let labels = match structured {
        true => LabelSelector::from_value(selector).map_err(anyhow::Error::msg)?,
        false => LabelSelector::from_map(selector),
    };
    if selector.is_empty() || labels.is_everything() {
        bail!("{word} selects no pods");
    }
    Ok(labels)
}

/// Smaller is better: running and ready, then running, then the rest; those that are going last.
fn readiness(pod: &Value) -> u8 {
    let ready = |c: &Value| c["type"].str() == "Ready" && c["status"].str() == "True";
    match (pod["status"]["phase"].str(), pod["status"]["conditions"].items().iter().any(ready)) {
        _ if !pod["metadata"]["deletionTimestamp"].is_null() => 3,
        ("Running", true) => 0,
        ("Running", false) => 1,
        _ => 2,
    }
}

/// The container that is meant: the one named, the one the pod's annotation names, or the first. The second text, if
/// any, tells the user about a choice made for them.
pub fn container(pod: &Value, named: Option<&str>) -> Result<(String, Option<String>)> {
    let kinds = [("containers", ""), ("ephemeralContainers", " (ephem)"), ("initContainers", " (init)")];
    let names = |field: &str| pod["spec"][field].items().iter().map(|c| c["name"].str().to_string());
    let all: Vec<String> =
        kinds.iter().flat_map(|(field, mark)| names(field).map(move |name| format!("{name}{mark}"))).collect();
    let annotated = Some(pod["metadata"]["annotations"][DEFAULT_CONTAINER].str()).filter(|name| !name.is_empty());
    if let Some(name) = named.or(annotated) {
        if !kinds.iter().any(|(field, _)| names(field).any(|n| n == name)) {
            let pod = pod["metadata"]["name"].str();
            bail!("container {name} is not valid for pod {pod} out of: {}", all.join(", "));
        }
        return Ok((name.into(), None));
    }
    let Some(first) = names("containers").next() else { bail!("the pod has no containers") };
    let note = (all.len() > 1).then(|| format!("Defaulted container {first:?} out of: {}", all.join(", ")));
    Ok((first, note))
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn containers_are_chosen_as_kubectl_does() {
        let mut pod = value!({
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]},
        });
        let (name, note) = container(&pod, None).unwrap();
        assert_eq!((name.as_str(), note.as_deref()), ("a", Some("Defaulted container \"a\" out of: a, b, i (init)")));
        assert_eq!(container(&pod, Some("i")).unwrap(), ("i".into(), None));
        let error = container(&pod, Some("x")).unwrap_err().to_string();
        assert_eq!(error, "container x is not valid for pod p out of: a, b, i (init)");
        pod.set_path(&["metadata", "annotations"], value!({DEFAULT_CONTAINER: "b"}));
        assert_eq!(container(&pod, None).unwrap(), ("b".into(), None));
        assert_eq!(container(&value!({"spec": {"containers": [{"name": "a"}]}}), None).unwrap(), ("a".into(), None));
    }

    #[test]
    fn owners_select_pods() {
        for (spec, selector_) in [
            (value!({"selector": {"matchLabels": {"a": "b"}}}), Some("a=b")),
            (value!({"selector": {"a": "b"}}), Some("a=b")),
            (value!({"selector": {}}), None),
            (value!({}), None),
        ] {
            let found = selector(&value!({"spec": spec}), "x/y").map(|s| s.to_string()).ok();
            assert_eq!(found.as_deref(), selector_);
        }
    }
}
