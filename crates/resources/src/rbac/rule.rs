//! What a rule of a role may say.

use canopus_api::{Errors, Field};

/// All that is wrong with `rules`. Those of a namespace cannot be about URLs.
pub fn validate(rules: &Field, namespaced: bool, errors: &mut Errors) {
    rules.items().for_each(|item| rule(&item, namespaced, errors));
}

fn rule(rule: &Field, namespaced: bool, errors: &mut Errors) {
    let empty = |key: &str| rule.value[key].is_empty();
    if empty("verbs") {
        errors.required(&rule.at("verbs"), "verbs must contain at least one value");
    }
    if !empty("nonResourceURLs") {
        let urls = rule.at("nonResourceURLs");
        if namespaced {
            errors.invalid(&urls, "namespaced rules cannot apply to non-resource URLs");
        }
        if !(empty("apiGroups") && empty("resources") && empty("resourceNames")) {
            errors.invalid(&urls, "rules cannot apply to both regular resources and non-resource URLs");
        }
        return;
    }
    if empty("apiGroups") {
        errors.required(&rule.at("apiGroups"), "resource rules must supply at least one api group");
    }
    if empty("resources") {
        errors.required(&rule.at("resources"), "resource rules must supply at least one resource");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::{Value, value};

    #[test]
    fn rules() {
        let cases: &[(bool, Value, &[&str])] = &[
            (true, value!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]), &[]),
            (false, value!([{"verbs": ["get"], "nonResourceURLs": ["/x"]}]), &[]),
            (
                true,
                value!([{}]),
                &[
                    "[0].verbs: Required value: verbs must contain at least one value",
                    "[0].apiGroups: Required value: resource rules must supply at least one api group",
                    "[0].resources: Required value: resource rules must supply at least one resource",
                ],
            ),
            (
                true,
                value!([{"verbs": ["get"], "nonResourceURLs": ["/x"], "apiGroups": [""]}]),
                &[
                    "[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs",
                    "[0].nonResourceURLs: Invalid value: [\"/x\"]: rules cannot apply to both regular resources and non-resource URLs",
                ],
            ),
        ];
        for (namespaced, rules, expected) in cases {
            let mut errors = Errors::new();
            validate(&Field::root(rules), *namespaced, &mut errors);
            assert_eq!(crate::checks::texts(&errors), *expected);
        }
    }
}
