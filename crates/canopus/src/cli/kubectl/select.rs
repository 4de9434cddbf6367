//! Which objects a command is about: `TYPE [NAME…]`, `TYPE/NAME…`, `TYPE,TYPE`.

use super::discovery::{Discovery, Resource};
use super::session::Session;
use anyhow::{Result, bail};
use canopus_api::Target;

/// Objects of one resource: one of them, or all that a selector lets through.
#[derive(Debug)]
pub struct Selected<'a> {
    pub resource: &'a Resource,
    /// "" for all of them.
    pub name: String,
}

impl Selected<'_> {
    /// Where they are; `all` namespaces or the session's.
    pub fn target(&self, session: &Session, all: bool) -> Target {
        let namespace = if self.resource.namespaced && !all { session.namespace.as_str() } else { "" };
        Target::new(&self.resource.gvr, namespace, &self.name)
    }
}

/// Makes sense of the words of a command line.
pub fn parse<'a>(discovery: &'a Discovery, words: &[String]) -> Result<Vec<Selected<'a>>> {
    let Some(first) = words.first() else {
        bail!("You must specify the type of resource to work with, like `pods`, or `deployment/NAME`");
    };
    if words.iter().any(|word| word.contains('/')) {
        return words.iter().map(|word| object(discovery, word)).collect();
    }
    let mut resources: Vec<&Resource> = Vec::new();
    for word in first.split(',').filter(|word| !word.is_empty()) {
        for resource in discovery.named(word)? {
            if !resources.contains(&resource) {
                resources.push(resource);
            }
        }
    }
    let names = &words[1..];
    if names.is_empty() {
        return Ok(resources.into_iter().map(|resource| Selected { resource, name: String::new() }).collect());
    }
    let of = |resource| names.iter().map(move |name: &String| Selected { resource, name: name.clone() });
    Ok(resources.into_iter().flat_map(of).collect())
}

fn object<'a>(discovery: &'a Discovery, word: &str) -> Result<Selected<'a>> {
    let Some((kind, name)) = word.split_once('/') else {
        bail!(
            "there is no need to specify a resource type as a separate argument when passing arguments in resource/name \
             form (e.g. 'kubectl get resource/<resource_name>' instead of 'kubectl get resource resource/<resource_name>'"
        );
    };
    if kind.is_empty() || name.is_empty() || name.contains('/') {
        bail!("arguments in resource/name form must have a single resource and name");
    }
    match discovery.named(kind)?[..] {
        [resource] => Ok(Selected { resource, name: name.into() }),
        _ => bail!("{kind} names several resource types: a name needs one"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::discovery::testing::sample;
    use super::*;

    fn parsed(words: &str) -> Result<String, String> {
        let words: Vec<String> = words.split_whitespace().map(String::from).collect();
        let discovery = sample();
        let found = parse(&discovery, &words).map_err(|error| error.to_string())?;
        Ok(found.iter().map(|s| format!("{}:{}", s.resource.gvr.resource, s.name)).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn words_select_objects() {
        for (words, selected) in [
            ("pods", "pods:"),
            ("no,po,svc,pods", "nodes: pods: services:"),
            ("pods a b", "pods:a pods:b"),
            ("pod/a deploy/b", "pods:a deployments:b"),
            ("all", "pods: services: deployments:"),
        ] {
            assert_eq!(parsed(words).as_deref(), Ok(selected), "{words}");
        }
        for words in ["", "foo", "pod/", "pods a/b", "pod/a b", "pod/a/b"] {
            assert!(parsed(words).is_err(), "{words}");
        }
    }
}
