//! VolumeAttachment: the wish that a volume be attached to a node, and whether it is.

use crate::checks;
use crate::core::persistentvolume::inline_spec;
use crate::core::pod::volumes::csi_driver;
use crate::resource::{Column, Context, Info, Resource, Subresource, age, name};
use crate::strategy;
use canopus_api::{Errors, Field, Time, Value, names};

pub struct VolumeAttachment;

static INFO: Info = Info {
    singular: "volumeattachment",
    namespaced: false,
    unconditional_update: false,
    subresources: &[Subresource::status("storage.k8s.io", "v1", "VolumeAttachment")],
    ..Info::stored("storage.k8s.io", "v1", "VolumeAttachment", "volumeattachments")
};

const MAX_METADATA: usize = 256 * 1024;
const MAX_MESSAGE: usize = 1024;

impl Resource for VolumeAttachment {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        if cx.subresource == "status" {
            strategy::only_status(new, old, strategy::STATUS_METADATA);
        } else {
            strategy::keep(new, old, "status");
        }
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        let (spec, status) = (object.at("spec"), object.at("status"));
        csi_driver(&spec.at("attacher"), errors);
        source(&spec.at("source"), errors);
        let node = spec.at("nodeName");
        checks::check(&node.with(&node.str().into()), names::dns1123_subdomain, errors);
        let told = status.at("attachmentMetadata");
        if told.value.entries().map(|(key, value)| key.len() + value.str().len()).sum::<usize>() > MAX_METADATA {
            errors.too_long(&told, MAX_METADATA);
        }
        for problem in ["attachError", "detachError"] {
            let problem = status.at(problem);
            let (message, code) = (problem.at("message"), problem.at("errorCode"));
            if message.str().len() > MAX_MESSAGE {
                // Upstream names the limit of the metadata here.
                errors.too_long(&message, MAX_METADATA);
            }
            if code.int() < 0 {
                errors.invalid(&code, format!("must be between 0 and {}, inclusive", i32::MAX));
            }
        }
    }

    fn validate_update(&self, new: &Field, old: &Value, _cx: &Context, errors: &mut Errors) {
        self.validate(new, errors);
        checks::immutable(&new.at("spec"), &old["spec"], errors);
    }

    fn columns(&self) -> &'static [Column] {
        const ATTACHER: Column =
            Column { format: "name", ..Column::new("Attacher", "string", "The CSI driver that attaches") };
        const {
            &[
                Column::NAME,
                ATTACHER,
                Column::new("PV", "string", "The volume"),
                Column::new("Node", "string", "The node that the volume is to be attached to"),
                Column::new("Attached", "boolean", "Whether the volume is attached"),
                Column::AGE,
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let spec = &object["spec"];
        vec![
            name(object),
            spec["attacher"].str().into(),
            spec["source"]["persistentVolumeName"].str().into(),
            spec["nodeName"].str().into(),
            object["status"]["attached"].bool().into(),
            age(object, now),
        ]
    }
}

fn source(source: &Field, errors: &mut Errors) {
    let (inline, volume) = (source.at("inlineVolumeSpec"), source.at("persistentVolumeName"));
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (inline.is_set(), volume.is_set()) {
        (false, false) => errors.required(source, ONE),
        (true, true) => errors.forbidden(source, ONE),
        (false, true) if volume.str().is_empty() => {
            errors.required(&volume, "must specify non empty persistentVolumeName");
        }
        (false, true) => {}
        (true, false) => inline_spec(&inline, errors),
    }
    if volume.is_set() {
        checks::check(&volume, names::dns1123_subdomain, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};
    use canopus_api::value;

    fn attachment(source: Value) -> Value {
        value!({"metadata": {"name": "a", "labels": {"k": "v"}}, "spec": {"attacher": "a.b", "nodeName": "n", "source": source}})
    }

    #[test]
    fn attachments() {
        let cases: &[(Value, &[&str])] = &[
            (value!({"persistentVolumeName": "pv"}), &[]),
            (
                value!({}),
                &["spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName"],
            ),
            (
                value!({"inlineVolumeSpec": {"accessModes": ["ReadWriteOnce"], "csi": {"driver": "a.b", "volumeHandle": "h"}}}),
                &[],
            ),
            (
                value!({"inlineVolumeSpec": {"capacity": {"storage": "1"}}}),
                &[
                    "spec.source.inlineVolumeSpec.capacity: Forbidden: may not be specified in the context of inline volumes",
                    "spec.source.inlineVolumeSpec.csi: Required value: has to be specified in the context of inline volumes",
                    "spec.source.inlineVolumeSpec.accessModes: Required value",
                    "spec.source.inlineVolumeSpec: Required value: must specify a volume type",
                ],
            ),
        ];
        for (source, expected) in cases {
            assert_eq!(create(&VolumeAttachment, attachment(source.clone())), *expected, "{source:?}");
        }
    }

    #[test]
    fn the_spec_stays() {
        let old = attachment(value!({"persistentVolumeName": "pv"}));
        let other = attachment(value!({"persistentVolumeName": "qv"}));
        assert_eq!(update(&VolumeAttachment, "", old.clone(), other.clone()).len(), 1);
        let mut new = other;
        new.set_path(&["metadata", "labels"], value!({}));
        new.set("status", value!({"attached": true}));
        assert!(update(&VolumeAttachment, "status", old.clone(), new.clone()).is_empty());
        VolumeAttachment.prepare_update(&mut new, &old, &crate::testing::context("status"));
        assert_eq!(new["metadata"], old["metadata"]);
        assert_eq!(cells(&VolumeAttachment, &new), ["a", "a.b", "pv", "n", "true", "<unknown>"]);
    }
}
