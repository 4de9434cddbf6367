//! PriorityLevelConfiguration: how many requests of a priority are handled at once, and what becomes of the others.

use super::bootstrap;
use super::flowschema::conditions;
use crate::checks;
use crate::resource::{Column, Context, Info, Resource, Subresource, age, name};
use canopus_api::{Errors, Field, Time, Value};

pub struct PriorityLevelConfiguration;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";

static INFO: Info = Info {
    singular: "prioritylevelconfiguration",
    namespaced: false,
    generation: true,
    subresources: &[Subresource::status(GROUP, "v1", "PriorityLevelConfiguration")],
    ..Info::stored(GROUP, "v1", "PriorityLevelConfiguration", "prioritylevelconfigurations")
};

/// An annotation of v1beta3 that has no meaning here.
const PRESERVE_ZERO: &str = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares";
const TYPES: &[&str] = &["Exempt", "Limited"];
const RESPONSES: &[&str] = &["Queue", "Reject"];
const MAX_QUEUES: i64 = 10_000_000;
/// So many bits of a hash choose a hand of queues.
const HASH_BITS: u32 = 60;

impl Resource for PriorityLevelConfiguration {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec") else { return };
        if let Some(exempt) = spec.get_mut("exempt").filter(|exempt| !exempt.is_null()) {
            exempt.set_default("nominalConcurrencyShares", 0);
            exempt.set_default("lendablePercent", 0);
        }
        let Some(limited) = spec.get_mut("limited").filter(|limited| !limited.is_null()) else { return };
        limited.set_default("nominalConcurrencyShares", 30);
        limited.set_default("lendablePercent", 0);
        let queuing = limited.get_mut("limitResponse").and_then(|response| response.get_mut("queuing"));
        if let Some(queuing) = queuing.filter(|queuing| !queuing.is_null()) {
            for (field, number) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
                if queuing[field].int() == 0 {
                    queuing.set(field, number);
                }
            }
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        crate::strategy::sealed_status(new, old, cx.subresource);
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let (meta, spec) = (object.at("metadata"), object.at("spec"));
        if meta.at("annotations").value.get(PRESERVE_ZERO).is_some() {
            errors.forbidden(&meta.at("annotations"), format!("annotation '{PRESERVE_ZERO}' is forbidden"));
        }
        let name = meta.at("name").str();
        validate_spec(name, &spec, errors);
        validate_mandatory(name, &spec, errors);
        conditions(&object.at("status"), errors);
    }

    fn validate_update(&self, new: &Field, _old: &Value, cx: &Context, errors: &mut Errors) {
        if cx.subresource == "status" {
            conditions(&new.at("status"), errors);
        } else {
            self.validate(new, errors);
        }
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new("Type", "string", "Whether requests of this level are limited"),
                Column::new("NominalConcurrencyShares", "string", "The level's share of the server's seats"),
                Column::new("Queues", "string", "How many queues the level has"),
                Column::new("HandSize", "string", "How many of them a flow may use"),
                Column::new("QueueLengthLimit", "string", "How many requests may wait in one"),
                Column::AGE,
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let spec = &object["spec"];
        let queuing = &spec["limited"]["limitResponse"]["queuing"];
        let number = |of: &Value, field: &str| if of.is_null() { "<none>".into() } else { of[field].int().into() };
        vec![
            name(object),
            spec["type"].str().into(),
            number(&spec["limited"], "nominalConcurrencyShares"),
            number(queuing, "queues"),
            number(queuing, "handSize"),
            number(queuing, "queueLengthLimit"),
            age(object, now),
        ]
    }
}

fn validate_spec(name: &str, spec: &Field, errors: &mut Errors) {
    let kind = spec.at("type");
    if (name == "exempt") != (kind.str() == "Exempt") {
        errors.invalid(&kind, "must be 'Exempt' if and only if `name` is 'exempt'");
    }
    let (exempt, limited) = (spec.at("exempt"), spec.at("limited"));
    match kind.str() {
        "Exempt" => {
            if limited.is_set() {
                errors.forbidden(&limited, "must be nil if the type is not Limited");
            }
            if exempt.is_set() {
                shares(&exempt, errors);
                percent(&exempt, errors);
            }
        }
        "Limited" => {
            if exempt.is_set() {
                errors.forbidden(&exempt, "must be nil if the type is Limited");
            }
            if limited.is_unset() {
                errors.required(&limited, "must not be empty when type is Limited");
            } else {
                validate_limited(&limited, errors);
            }
        }
        _ => errors.not_supported(&kind, TYPES),
    }
}

fn shares(limiter: &Field, errors: &mut Errors) {
    let shares = limiter.at("nominalConcurrencyShares");
    if shares.int() < 0 {
        errors.invalid(&shares, "must be a non-negative integer");
    }
}

fn percent(limiter: &Field, errors: &mut Errors) {
    let lendable = limiter.at("lendablePercent");
    if lendable.is_set() && !(0..=100).contains(&lendable.int()) {
        errors.invalid(&lendable, "must be between 0 and 100, inclusive");
    }
}

fn validate_limited(limited: &Field, errors: &mut Errors) {
    shares(limited, errors);
    let response = limited.at("limitResponse");
    let (kind, queuing) = (response.at("type"), response.at("queuing"));
    match kind.str() {
        "Reject" if queuing.is_set() => {
            errors.forbidden(&queuing, "must be nil if limited.limitResponse.type is not Limited");
        }
        "Reject" => {}
        "Queue" if queuing.is_unset() => {
            errors.required(&queuing, "must not be empty if limited.limitResponse.type is Limited");
        }
        "Queue" => validate_queuing(&queuing, errors),
        _ => checks::one_of(&kind, RESPONSES, errors),
    }
    percent(limited, errors);
    let borrowing = limited.at("borrowingLimitPercent");
    if borrowing.is_set() && borrowing.int() < 0 {
        errors.invalid(&borrowing, "if specified, must be a non-negative integer");
    }
}

fn validate_queuing(queuing: &Field, errors: &mut Errors) {
    let (length, queues, hand) = (queuing.at("queueLengthLimit"), queuing.at("queues"), queuing.at("handSize"));
    if length.int() <= 0 {
        errors.invalid(&length, "must be positive");
    }
    if queues.int() <= 0 {
        errors.invalid(&queues, "must be positive");
    } else if queues.int() > MAX_QUEUES {
        errors.invalid(&queues, format!("must not be greater than {MAX_QUEUES}"));
    }
    if hand.int() <= 0 {
        errors.invalid(&hand, "must be positive");
    } else if hand.int() > queues.int() {
        errors.invalid(&hand, format!("should not be greater than queues ({})", queues.int()));
    } else if entropy(queues.int(), hand.int()) > HASH_BITS {
        errors.invalid(
            &hand,
            format!(
                "required entropy bits of deckSize {} and handSize {} should not be greater than {HASH_BITS}",
                queues.int(),
                hand.int()
            ),
        );
    }
}

/// About how many bits it takes to choose any hand.
fn entropy(deck: i64, hand: i64) -> u32 {
    ((deck as f64).log2() * hand as f64).ceil() as u32
}

fn validate_mandatory(name: &str, spec: &Field, errors: &mut Errors) {
    let Some(mandatory) = bootstrap::mandatory("PriorityLevelConfiguration", name) else { return };
    let mut found = spec.value.clone();
    let exempt = name == "exempt";
    if exempt {
        // Its shares are the administrator's.
        found.set("exempt", &mandatory["spec"]["exempt"]);
    }
    if !crate::semantic::equal(&found, &mandatory["spec"]) {
        let but = if exempt { " except the 'spec.exempt' field" } else { "" };
        errors.invalid(spec, format!("spec of '{name}'{but} must equal the fixed value"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create};
    use canopus_api::value;

    fn level(name: &str, spec: Value) -> Value {
        value!({"metadata": {"name": name}, "spec": spec})
    }

    fn queuing(queuing: Value) -> Value {
        level("a", value!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": queuing}}}))
    }

    #[test]
    fn specs() {
        let cases: &[(Value, &[&str])] = &[
            (queuing(value!({})), &[]),
            (
                level("a", value!({"type": "Exempt", "limited": {}})),
                &[
                    "spec.type: Invalid value: \"Exempt\": must be 'Exempt' if and only if `name` is 'exempt'",
                    "spec.limited: Forbidden: must be nil if the type is not Limited",
                ],
            ),
            (
                level("a", value!({"type": "Limited", "exempt": {}})),
                &[
                    "spec.exempt: Forbidden: must be nil if the type is Limited",
                    "spec.limited: Required value: must not be empty when type is Limited",
                ],
            ),
            (
                queuing(value!({"queues": 4, "handSize": 5, "queueLengthLimit": -1})),
                &[
                    "spec.limited.limitResponse.queuing.queueLengthLimit: Invalid value: -1: must be positive",
                    "spec.limited.limitResponse.queuing.handSize: Invalid value: 5: should not be greater than queues (4)",
                ],
            ),
            (
                queuing(value!({"queues": 1024, "handSize": 7})),
                &[
                    "spec.limited.limitResponse.queuing.handSize: Invalid value: 7: required entropy bits of deckSize 1024 and handSize 7 should not be greater than 60",
                ],
            ),
            (queuing(value!({"queues": 1024, "handSize": 6})), &[]),
            (
                level(
                    "a",
                    value!({"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}, "nominalConcurrencyShares": -1, "lendablePercent": 101, "borrowingLimitPercent": -1}}),
                ),
                &[
                    "spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer",
                    "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive",
                    "spec.limited.borrowingLimitPercent: Invalid value: -1: if specified, must be a non-negative integer",
                ],
            ),
        ];
        for (object, expected) in cases {
            assert_eq!(create(&PriorityLevelConfiguration, object.clone()), *expected);
        }
    }

    #[test]
    fn mandatory_ones_are_fixed() {
        for (_, object) in bootstrap::objects().filter(|(kind, _)| *kind == "PriorityLevelConfiguration") {
            assert_eq!(create(&PriorityLevelConfiguration, object.clone()), Vec::<String>::new());
        }
        let exempt = value!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 5}});
        assert_eq!(create(&PriorityLevelConfiguration, level("exempt", exempt)), Vec::<String>::new());
        let other = value!({"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}});
        let errors = create(&PriorityLevelConfiguration, level("catch-all", other));
        assert!(errors[0].ends_with("spec of 'catch-all' must equal the fixed value"), "{errors:?}");
    }

    #[test]
    fn columns() {
        let mut object = queuing(value!({}));
        PriorityLevelConfiguration.default(&mut object);
        assert_eq!(cells(&PriorityLevelConfiguration, &object), ["a", "Limited", "30", "64", "8", "50", "<unknown>"]);
    }
}
