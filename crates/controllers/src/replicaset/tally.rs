//! How many pods each controller has, and in which states: counted as they change, because looking at ten thousand pods
//! at every pass of their set costs more than all else that the set does.

use super::plan::Counts;
use crate::pods;
use canopus_api::{LabelSelector, Object};
use canopus_client::Informer;
use compact_str::CompactString;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

type Labels = Box<[(CompactString, CompactString)]>;

/// By the controller's uid, and then by labels: the pods of a template have the same, so a selector is asked once for
/// all of them.
#[derive(Default)]
pub(super) struct Tally(Mutex<HashMap<CompactString, HashMap<Labels, States>>>);

#[derive(Default)]
struct States {
    pods: usize,
    active: usize,
    ready: usize,
    terminating: usize,
}

impl States {
    /// What one pod counts as.
    fn each(&mut self, pod: &Object) -> [(&mut usize, bool); 4] {
        let active = pods::is_active(pod);
        [
            (&mut self.pods, true),
            (&mut self.active, active),
            (&mut self.ready, active && pod.facts.ready.is_some()),
            (&mut self.terminating, pods::is_terminating(pod)),
        ]
    }
}

impl Tally {
    /// Counts `pods` from now on. To be asked for before the queue is told of their changes.
    pub(super) fn of(pods: &Informer) -> Arc<Tally> {
        let tally = Arc::new(Tally::default());
        let kept = tally.clone();
        pods.on_change(move |change| kept.change(change.told.map(|o| &**o), change.new.map(|o| &**o)));
        tally
    }

    fn change(&self, told: Option<&Object>, new: Option<&Object>) {
        let mut owners = self.0.lock();
        if let Some((pod, uid)) = told.and_then(|pod| Some((pod, pod.facts.controller.as_ref()?)))
            && let Some(owned) = owners.get_mut(uid)
            && let Some(states) = owned.get_mut(&pod.facts.labels)
        {
            states.each(pod).into_iter().for_each(|(count, is)| *count -= usize::from(is));
            if states.pods == 0 {
                owned.remove(&pod.facts.labels);
            }
            if owned.is_empty() {
                owners.remove(uid);
            }
        }
        if let Some((pod, uid)) = new.and_then(|pod| Some((pod, pod.facts.controller.as_ref()?))) {
            let owned = match owners.get_mut(uid) {
                Some(owned) => owned,
                None => owners.entry(uid.clone()).or_default(),
            };
            let states = match owned.get_mut(&pod.facts.labels) {
                Some(states) => states,
                None => owned.entry(pod.facts.labels.clone()).or_default(),
            };
            states.each(pod).into_iter().for_each(|(count, is)| *count += usize::from(is));
        }
    }

    /// The pods that `uid` controls, each available as soon as it is ready. None if `selector` doesn't match all of
    /// them: some are to be let go of.
    pub(super) fn counts(&self, uid: &str, selector: &LabelSelector, template: &LabelSelector) -> Option<Counts> {
        let mut counts = Counts::default();
        for (labels, states) in self.0.lock().get(uid).into_iter().flatten() {
            let matches = |selector: &LabelSelector| {
                selector.matches_by(|key| labels.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str()))
            };
            if !matches(selector) {
                return None;
            }
            counts.active += states.active;
            counts.labelled += if matches(template) { states.active } else { 0 };
            counts.ready += states.ready;
            counts.available += states.ready;
            counts.terminating += states.terminating;
        }
        Some(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::{Time, value};

    fn pod(phase: &str, ready: bool, label: &str, deleting: bool) -> Object {
        let mut pod = value!({
            "metadata": {"name": "p", "labels": {"app": label}, "ownerReferences": [{"uid": "u", "controller": true}]},
            "status": {"phase": phase},
        });
        if ready {
            let ready = value!({"type": "Ready", "status": "True", "lastTransitionTime": Time::from_unix(1)});
            pod.set_path(&["status", "conditions"], vec![ready]);
        }
        if deleting {
            pod.set_path(&["metadata", "deletionTimestamp"], Time::from_unix(1));
        }
        Object::from_value(pod, &["spec.nodeName", "status.phase"], 1)
    }

    #[test]
    fn counts_follow_the_pods() {
        let states = [
            None,
            Some(pod("Pending", false, "web", false)),
            Some(pod("Running", true, "web", false)),
            Some(pod("Running", true, "web", true)),
            Some(pod("Failed", false, "web", false)),
            Some(pod("Running", true, "more", false)),
        ];
        let everything = LabelSelector::everything();
        let web = LabelSelector::from_map(&value!({"app": "web"}));
        // All ways from one state to another leave the same count as the state alone.
        for before in &states {
            for after in &states {
                let (tally, alone) = (Tally::default(), Tally::default());
                tally.change(None, before.as_ref());
                tally.change(before.as_ref(), after.as_ref());
                alone.change(None, after.as_ref());
                let of = |tally: &Tally| tally.counts("u", &everything, &web);
                assert_eq!(of(&tally), of(&alone));
                let listed: Vec<Arc<Object>> = after
                    .iter()
                    .map(|p| Arc::new(Object::from_value((*p.value()).clone(), &["status.phase"], 1)))
                    .collect();
                let set = value!({"spec": {"template": {"metadata": {"labels": {"app": "web"}}}}});
                assert_eq!(of(&tally), Some(Counts::of(&listed, &set, Time::from_unix(9))));
                assert_eq!(tally.0.lock().is_empty(), after.is_none());
            }
        }
        let tally = Tally::default();
        tally.change(None, states[5].as_ref());
        assert_eq!(tally.counts("u", &web, &web), None);
        assert_eq!(tally.counts("other", &web, &web), Some(Counts::default()));
    }
}
