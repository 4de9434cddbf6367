//! PodTemplate: a template of pods by itself, which somebody else makes something of.

use super::pod::{defaults, template, warnings};
use crate::apps::workload::container_cells;
use crate::resource::{Column, Info, Resource, labels_cell, name};
use canopus_api::{Errors, Field, Time, Value};

pub struct PodTemplate;

static INFO: Info =
    Info { singular: "podtemplate", generation: true, ..Info::stored("", "v1", "PodTemplate", "podtemplates") };

impl Resource for PodTemplate {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        defaults::template(object.ensure_object().entry("template", Value::object));
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        template::validate(&object.at("template"), errors);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        match old {
            Some(old) if old["metadata"]["generation"] == object["metadata"]["generation"] => Vec::new(),
            _ => warnings::of(&Field::root(object).at("template"), false),
        }
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new("Containers", "string", "Names of each container in the template."),
                Column::new("Images", "string", "Images referenced by each container in the template."),
                Column::new("Pod Labels", "string", "The labels for the pod template."),
            ]
        }
    }

    fn row(&self, object: &Value, _now: Time) -> Vec<Value> {
        let pods = &object["template"];
        let [containers, images] = container_cells(&pods["spec"]);
        vec![name(object), containers, images, labels_cell(&pods["metadata"]["labels"])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create};
    use canopus_api::value;

    #[test]
    fn a_template_is_checked_defaulted_and_shown() {
        let mut object = value!({"metadata": {"name": "t"}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}});
        assert_eq!(create(&PodTemplate, object.clone()), [""; 0]);
        PodTemplate.default(&mut object);
        assert_eq!(object["template"]["spec"]["restartPolicy"].str(), "Always");
        assert_eq!(cells(&PodTemplate, &object), ["t", "c", "i", "a=b"]);
        assert_eq!(create(&PodTemplate, value!({})), ["template.spec.containers: Required value"]);
    }
}
