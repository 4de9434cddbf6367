//! Amounts of compute resources, and what a pod asks for (upstream `component-helpers/resource`).

use canopus_api::{Quantity, Value};
use compact_str::CompactString;

/// What a container that doesn't say counts for when nodes are compared (never when they are filtered).
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// Amounts: thousandths of a core, bytes, bytes, and whole units of everything else (extended resources, huge pages).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub milli_cpu: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    /// Sorted by name.
    pub others: Vec<(CompactString, i64)>,
}

impl Resources {
    /// Of a `v1.ResourceList`; the number of pods is not one of them.
    pub fn of(list: &Value) -> Resources {
        let mut out = Resources::default();
        for (name, amount) in list.entries() {
            let Some(amount) = Quantity::from_value(amount) else { continue };
            match name.as_str() {
                "cpu" => out.milli_cpu = amount.milli_value(),
                "memory" => out.memory = amount.value(),
                "ephemeral-storage" => out.ephemeral_storage = amount.value(),
                "pods" => {}
                _ => out.others.push((name.clone(), amount.value())),
            }
        }
        out
    }

    pub fn add(&mut self, more: &Resources) {
        self.combine(more, i64::saturating_add);
    }

    pub fn subtract(&mut self, less: &Resources) {
        self.combine(less, i64::saturating_sub);
    }

    /// Raises every amount to at least that of `other`.
    pub fn raise(&mut self, other: &Resources) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Resources, op: fn(i64, i64) -> i64) {
        self.milli_cpu = op(self.milli_cpu, other.milli_cpu);
        self.memory = op(self.memory, other.memory);
        self.ephemeral_storage = op(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.others {
            match self.others.binary_search_by(|(n, _)| n.cmp(name)) {
                Ok(at) => self.others[at].1 = op(self.others[at].1, *amount),
                Err(at) => self.others.insert(at, (name.clone(), op(0, *amount))),
            }
        }
    }

    pub fn other(&self, name: &str) -> i64 {
        let found = self.others.binary_search_by(|(n, _)| n.as_str().cmp(name));
        found.map_or(0, |at| self.others[at].1)
    }

    pub fn is_zero(&self) -> bool {
        self.milli_cpu == 0
            && self.memory == 0
            && self.ephemeral_storage == 0
            && self.others.iter().all(|(_, amount)| *amount == 0)
    }
}

/// What a pod asks for, twice: as it says, and with defaults for containers that ask for no cpu or memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    pub exact: Resources,
    /// (thousandths of a core, bytes)
    pub non_zero: (i64, i64),
}

impl Requests {
    pub fn of(pod: &Value) -> Requests {
        let exact = total(&pod["spec"], |requests| requests);
        let filled = total(&pod["spec"], |mut requests| {
            if requests.milli_cpu == 0 {
                requests.milli_cpu = DEFAULT_MILLI_CPU;
            }
            if requests.memory == 0 {
                requests.memory = DEFAULT_MEMORY;
            }
            requests
        });
        Requests { exact, non_zero: (filled.milli_cpu, filled.memory) }
    }
}

/// Containers add up; an init container needs its share while only the sidecars before it run (KEP-753); pod-level
/// requests override what containers say (KEP-2837); overhead comes on top.
fn total(spec: &Value, adjust: impl Fn(Resources) -> Resources) -> Resources {
    let requests = |container: &Value| adjust(Resources::of(&container["resources"]["requests"]));
    let mut sum = Resources::default();
    for container in spec["containers"].items() {
        sum.add(&requests(container));
    }
    let (mut sidecars, mut initial) = (Resources::default(), Resources::default());
    for container in spec["initContainers"].items() {
        let mut needed = requests(container);
        if container["restartPolicy"].str() == "Always" {
            sum.add(&needed);
            sidecars.add(&needed);
            needed = sidecars.clone();
        } else {
            needed.add(&sidecars);
        }
        initial.raise(&needed);
    }
    sum.raise(&initial);
    for (name, amount) in spec["resources"]["requests"].entries() {
        let Some(amount) = Quantity::from_value(amount) else { continue };
        match name.as_str() {
            "cpu" => sum.milli_cpu = amount.milli_value(),
            "memory" => sum.memory = amount.value(),
            _ => sum.raise(&Resources { others: vec![(name.clone(), amount.value())], ..Resources::default() }),
        }
    }
    sum.add(&Resources::of(&spec["overhead"]));
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::yaml;

    fn requests(spec: &str) -> Requests {
        Requests::of(&yaml::parse(&format!("{{spec: {spec}}}")).unwrap().value)
    }

    #[test]
    fn containers_add_up() {
        let both = requests(
            "{containers: [{resources: {requests: {cpu: 250m, memory: 64Mi}}}, {resources: {requests: {cpu: 1, example.com/gpu: 2}}}]}",
        );
        assert_eq!((both.exact.milli_cpu, both.exact.memory), (1250, 64 << 20));
        assert_eq!(both.exact.other("example.com/gpu"), 2);
        assert_eq!(both.non_zero, (1250, (64 << 20) + DEFAULT_MEMORY));
    }

    #[test]
    fn init_containers_need_room_beside_earlier_sidecars() {
        let r = requests(
            "{initContainers: [{resources: {requests: {cpu: 3}}}, {restartPolicy: Always, resources: {requests: {cpu: 1}}}, {resources: {requests: {cpu: 4}}}],
              containers: [{resources: {requests: {cpu: 2}}}], overhead: {cpu: 100m}}",
        );
        assert_eq!(r.exact.milli_cpu, 5100);
    }

    #[test]
    fn the_pod_overrides_its_containers() {
        let r = requests(
            "{resources: {requests: {cpu: 500m}}, containers: [{resources: {requests: {cpu: 2, memory: 1Gi}}}]}",
        );
        assert_eq!((r.exact.milli_cpu, r.exact.memory), (500, 1 << 30));
    }
}
