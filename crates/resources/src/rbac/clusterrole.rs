//! ClusterRole: permissions everywhere, or to be bound in namespaces; perhaps gathered from other ClusterRoles.

use super::{GROUP, rule};
use crate::checks;
use crate::resource::{Info, Resource};
use canopus_api::{Errors, Field, names};

pub struct ClusterRole;

static INFO: Info = Info {
    singular: "clusterrole",
    namespaced: false,
    name: names::path_segment,
    create_on_update: true,
    ..Info::stored(GROUP, "v1", "ClusterRole", "clusterroles")
};

impl Resource for ClusterRole {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        rule::validate(&object.at("rules"), false, errors);
        let aggregation = object.at("aggregationRule");
        let selectors = aggregation.at("clusterRoleSelectors");
        if aggregation.is_set() && selectors.value.is_empty() {
            errors.required(&selectors, "at least one clusterRoleSelector required if aggregationRule is non-nil");
        }
        selectors.items().for_each(|selector| checks::label_selector(&selector, errors));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::create;
    use canopus_api::value;

    #[test]
    fn aggregation_needs_selectors() {
        assert_eq!(
            create(&ClusterRole, value!({"aggregationRule": {}})),
            [
                "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil"
            ]
        );
        let good = value!({"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}});
        assert_eq!(create(&ClusterRole, good), Vec::<String>::new());
    }
}
