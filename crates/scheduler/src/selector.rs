//! Node selectors: which nodes a pod's nodeSelector and node affinity allow or prefer
//! (upstream `component-helpers/scheduling/corev1/nodeaffinity`).

use crate::node::Node;
use canopus_api::selectors::Op;
use canopus_api::{LabelSelector, Value, value};
use std::collections::BTreeSet;

/// One `v1.NodeSelectorTerm`. A term that says nothing matches nothing.
#[derive(Clone, Debug, PartialEq)]
struct Term {
    labels: LabelSelector,
    fields: LabelSelector,
}

impl Term {
    /// None when it says nothing, or something that validation would have refused.
    fn of(term: &Value) -> Option<Term> {
        if term["matchExpressions"].is_empty() && term["matchFields"].is_empty() {
            return None;
        }
        let of = |list: &Value| LabelSelector::from_value(&value!({"matchExpressions": list.clone()})).ok();
        Some(Term { labels: of(&term["matchExpressions"])?, fields: of(&term["matchFields"])? })
    }

    fn matches(&self, node: &Node) -> bool {
        self.labels.matches_by(|key| node.label(key))
            && self.fields.matches_by(|key| (key == "metadata.name").then_some(node.name.as_str()))
    }
}

/// `spec.nodeSelector` and the required part of the node affinity: both must match; of the terms one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Required {
    labels: LabelSelector,
    terms: Option<Vec<Term>>,
}

impl Required {
    /// None when the pod doesn't care.
    pub fn of(spec: &Value) -> Option<Required> {
        let required = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        if spec["nodeSelector"].is_empty() && required.is_null() {
            return None;
        }
        let terms = || required["nodeSelectorTerms"].items().iter().filter_map(Term::of).collect();
        Some(Required {
            labels: LabelSelector::from_map(&spec["nodeSelector"]),
            terms: (!required.is_null()).then(terms),
        })
    }

    /// The only nodes that can match, when every term names some by `metadata.name`.
    pub fn node_names(&self) -> Option<BTreeSet<&str>> {
        let terms = self.terms.as_ref().filter(|terms| !terms.is_empty())?;
        let mut names = BTreeSet::new();
        for term in terms {
            let sets = term.fields.requirements().iter().filter_map(|r| match &r.op {
                Op::In(values) if r.key == "metadata.name" => Some(values.iter().map(|v| v.as_str()).collect()),
                _ => None,
            });
            names.extend(sets.reduce(|a: BTreeSet<&str>, b| a.intersection(&b).copied().collect())?);
        }
        Some(names)
    }

    pub fn matches(&self, node: &Node) -> bool {
        self.labels.matches_by(|key| node.label(key))
            && self.terms.as_ref().is_none_or(|terms| terms.iter().any(|t| t.matches(node)))
    }
}

/// The preferred part of the node affinity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Preferred(Vec<(i64, Term)>);

impl Preferred {
    /// None when the pod has no preference.
    pub fn of(spec: &Value) -> Option<Preferred> {
        let terms = spec["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"].items();
        let of = |t: &Value| Some((t["weight"].int(), Term::of(&t["preference"])?));
        let terms: Vec<_> = terms.iter().filter_map(of).filter(|(weight, _)| *weight != 0).collect();
        (!terms.is_empty()).then_some(Preferred(terms))
    }

    /// The sum of the weights of what matches.
    pub fn score(&self, node: &Node) -> i64 {
        self.0.iter().filter(|(_, term)| term.matches(node)).map(|(weight, _)| weight).sum()
    }
}
