//! Turns upstream's types, as the `k8s-openapi` crate describes them, and the facts in `tables/fields.txt` into static
//! Rust tables (`types.rs`) and one compressed text with all descriptions (`descriptions.z`).

use flate2::Compression;
use flate2::write::ZlibEncoder;
use k8s_openapi::Resource;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

#[derive(Default)]
struct Roots {
    generator: SchemaGenerator,
    /// Definition name → (group, version, kind)
    kinds: BTreeMap<String, (String, String, String)>,
    lists: Vec<String>,
}

impl Roots {
    fn kind<T: JsonSchema + Resource>(&mut self, listed: bool) {
        let name = T::schema_name().to_string();
        self.generator.subschema_for::<T>();
        self.kinds.insert(name.clone(), (T::GROUP.into(), T::VERSION.into(), T::KIND.into()));
        if listed {
            self.lists.push(name);
        }
    }
}

macro_rules! roots {
    ($roots:ident, $listed:literal, $($module:ident :: $version:ident : $($kind:ident)+;)+) => {
        $($($roots.kind::<k8s_openapi::api::$module::$version::$kind>($listed);)+)+
    };
}

fn roots() -> Roots {
    let mut roots = Roots::default();
    roots!(roots, true,
        core::v1: ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume PersistentVolumeClaim Pod PodTemplate
            ReplicationController ResourceQuota Secret Service ServiceAccount;
        apps::v1: ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet;
        batch::v1: CronJob Job;
        rbac::v1: ClusterRole ClusterRoleBinding Role RoleBinding;
        coordination::v1: Lease;
        discovery::v1: EndpointSlice;
        events::v1: Event;
        scheduling::v1: PriorityClass;
        policy::v1: PodDisruptionBudget;
        autoscaling::v1: HorizontalPodAutoscaler;
        autoscaling::v2: HorizontalPodAutoscaler;
        networking::v1: IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR;
        storage::v1: CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment VolumeAttributesClass;
        node::v1: RuntimeClass;
        admissionregistration::v1: MutatingAdmissionPolicy MutatingAdmissionPolicyBinding MutatingWebhookConfiguration ValidatingAdmissionPolicy
            ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration;
        certificates::v1: CertificateSigningRequest;
        flowcontrol::v1: FlowSchema PriorityLevelConfiguration;
        resource::v1: DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice;
        admissionregistration::v1alpha1: MutatingAdmissionPolicy MutatingAdmissionPolicyBinding;
        admissionregistration::v1beta1: MutatingAdmissionPolicy MutatingAdmissionPolicyBinding;
        apiserverinternal::v1alpha1: StorageVersion;
        certificates::v1alpha1: ClusterTrustBundle;
        certificates::v1beta1: ClusterTrustBundle PodCertificateRequest;
        coordination::v1alpha2: LeaseCandidate;
        coordination::v1beta1: LeaseCandidate;
        networking::v1beta1: IPAddress ServiceCIDR;
        resource::v1alpha3: DeviceTaintRule ResourcePoolStatusRequest;
        resource::v1beta1: DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice;
        resource::v1beta2: DeviceClass DeviceTaintRule ResourceClaim ResourceClaimTemplate ResourceSlice;
        scheduling::v1alpha2: PodGroup Workload;
        storage::v1beta1: VolumeAttributesClass;
        storagemigration::v1beta1: StorageVersionMigration;
    );
    roots!(roots, false,
        core::v1: Binding;
        autoscaling::v1: Scale;
        policy::v1: Eviction;
        authentication::v1: SelfSubjectReview TokenRequest TokenReview;
        authorization::v1: LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview;
    );
    roots.kind::<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>(true);
    roots.kind::<k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService>(true);
    use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
    roots.kind::<meta::Status>(false);
    roots.kind::<meta::APIResourceList>(false);
    roots.kind::<meta::APIGroupList>(false);
    roots.kind::<meta::APIVersions>(false);
    roots.generator.subschema_for::<meta::DeleteOptions>();
    roots.generator.subschema_for::<meta::ListMeta>();
    roots
}

/// Adds `PodList` and the like: k8s-openapi has one generic list instead.
fn add_lists(roots: &mut Roots, definitions: &mut Map<String, Value>) {
    for name in std::mem::take(&mut roots.lists) {
        let (group, version, kind) = roots.kinds[&name].clone();
        let list = json!({
            "description": format!("{kind}List is a list of {kind} objects."),
            "type": "object",
            "properties": {
                "apiVersion": definitions[&name]["properties"]["apiVersion"],
                "kind": definitions[&name]["properties"]["kind"],
                "items": {"description": format!("Items is a list of {kind} objects."), "type": "array", "items": {"$ref": format!("#/$defs/{name}")}},
                "metadata": {"description": "Standard list metadata.", "allOf": [{"$ref": format!("#/$defs/{META}.ListMeta")}]},
            },
            "required": ["items"],
        });
        let list_name = format!("{name}List");
        definitions.insert(list_name.clone(), list);
        roots.kinds.insert(list_name, (group, version, format!("{kind}List")));
    }
}

/// Types that answers are made of and k8s-openapi lacks. `name:type`; `[type]` is a list.
const MORE: &[(&str, &str)] = &[
    ("apimachinery.pkg.apis.meta.v1.PartialObjectMetadata", "metadata:ObjectMeta"),
    ("apimachinery.pkg.apis.meta.v1.PartialObjectMetadataList", "metadata:ListMeta items:[PartialObjectMetadata]"),
    ("apimachinery.pkg.apis.meta.v1.Patch", ""),
    ("apimachinery.pkg.apis.meta.v1.WatchEvent", "type:string object:RawExtension"),
    ("apimachinery.pkg.apis.meta.v1.GroupVersionKind", "group:string version:string kind:string"),
    ("api.apidiscovery.v2.APIGroupDiscoveryList", "metadata:ListMeta items:[APIGroupDiscovery]"),
    ("api.apidiscovery.v2.APIGroupDiscovery", "metadata:ObjectMeta versions:[APIVersionDiscovery]"),
    ("api.apidiscovery.v2.APIVersionDiscovery", "version:string resources:[APIResourceDiscovery] freshness:string"),
    (
        "api.apidiscovery.v2.APIResourceDiscovery",
        "resource:string responseKind:GroupVersionKind scope:string singularResource:string verbs:[string] \
         shortNames:[string] categories:[string] subresources:[APISubresourceDiscovery]",
    ),
    (
        "api.apidiscovery.v2.APISubresourceDiscovery",
        "subresource:string responseKind:GroupVersionKind acceptedTypes:[GroupVersionKind] verbs:[string]",
    ),
];

fn add_more(roots: &mut Roots, definitions: &mut Map<String, Value>) {
    let schema = |ty: &str| match ty {
        "string" => json!({"type": "string"}),
        "ObjectMeta" | "ListMeta" | "GroupVersionKind" | "PartialObjectMetadata" => {
            json!({"$ref": format!("#/$defs/{META}.{ty}")})
        }
        "RawExtension" => json!({"$ref": "#/$defs/io.k8s.apimachinery.pkg.runtime.RawExtension"}),
        ty => json!({"$ref": format!("#/$defs/io.k8s.api.apidiscovery.v2.{ty}")}),
    };
    for (name, fields) in MORE {
        let properties: Map<String, Value> = fields
            .split_whitespace()
            .filter_map(|field| field.split_once(':'))
            .map(|(field, ty)| {
                let of = match ty.strip_prefix('[') {
                    Some(item) => json!({"type": "array", "items": schema(item.trim_end_matches(']'))}),
                    None => schema(ty),
                };
                (field.to_string(), of)
            })
            .collect();
        let name = format!("io.k8s.{name}");
        definitions.insert(name.clone(), json!({"type": "object", "properties": properties}));
        for (kind, group, version) in [
            ("PartialObjectMetadata", "meta.k8s.io", "v1"),
            ("PartialObjectMetadataList", "meta.k8s.io", "v1"),
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2"),
        ] {
            if name.ends_with(&format!(".{kind}")) {
                roots.kinds.insert(name.clone(), (group.into(), version.into(), kind.into()));
            }
        }
    }
}

/// The words of `tables/fields.txt`, by type and by (type, field).
fn facts() -> HashMap<(String, String), Vec<String>> {
    let text = std::fs::read_to_string("tables/fields.txt").expect("tables/fields.txt is part of the crate");
    let mut facts = HashMap::new();
    let mut of_type = String::new();
    for line in text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()) {
        let mut words = line.split_whitespace().map(String::from);
        let first = words.next().unwrap_or_default();
        let field = if line.starts_with(' ') {
            first
        } else {
            of_type = format!("io.k8s.{first}");
            String::new()
        };
        facts.insert((of_type.clone(), field), words.collect());
    }
    facts
}

fn shape(name: &str, definition: &Value) -> &'static str {
    match name.rsplit('.').next().unwrap_or("") {
        "Quantity" => "Quantity",
        "IntOrString" => "IntOrString",
        "Time" => "Time",
        "MicroTime" => "MicroTime",
        "RawExtension" => "RawExtension",
        "FieldsV1" => "FieldsV1",
        "JSON" | "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrStringArray" => "Json",
        _ if definition.get("properties").is_some() || definition["type"] == "object" => "Object",
        _ => "Any",
    }
}

struct Generator<'a> {
    index: HashMap<&'a str, usize>,
    facts: HashMap<(String, String), Vec<String>>,
}

impl Generator<'_> {
    fn reference(&self, schema: &Value) -> Option<usize> {
        let reference = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str())?;
        let name = reference.strip_prefix("#/$defs/").unwrap_or(reference);
        Some(*self.index.get(name).unwrap_or_else(|| panic!("no definition {name}")))
    }

    fn field_type(&self, schema: &Value) -> String {
        if let Some(i) = self.reference(schema) {
            return format!("FieldType::Ref(TypeId(&T{i}))");
        }
        match (schema["type"].as_str(), schema["format"].as_str()) {
            (Some("array"), _) => format!("FieldType::Array(&{})", self.field_type(&schema["items"])),
            (Some("object"), _) if schema["additionalProperties"].is_object() => {
                format!("FieldType::Map(&{})", self.field_type(&schema["additionalProperties"]))
            }
            (Some("string"), Some("byte")) => "FieldType::Bytes".into(),
            (Some("string"), _) => "FieldType::String".into(),
            (Some("integer"), Some("int32")) => "FieldType::Int32".into(),
            (Some("integer"), _) => "FieldType::Int64".into(),
            (Some("number"), _) => "FieldType::Double".into(),
            (Some("boolean"), _) => "FieldType::Bool".into(),
            _ => "FieldType::Any".into(),
        }
    }

    /// `pointer`: Go holds it by pointer.
    fn field(&self, of_type: &str, name: &str, schema: &Value, required: bool, pointer: bool) -> String {
        let none = Vec::new();
        let words = self.facts.get(&(of_type.to_string(), name.to_string())).unwrap_or(&none);
        let word = |prefix: &str| words.iter().find_map(|w| w.strip_prefix(prefix));
        let is_map = schema["additionalProperties"].is_object() || self.reference(schema).is_some();
        let atomic = words.iter().any(|w| w == "atomic");
        let list = if let Some(keys) = word("keys=") {
            format!("ListKind::Map(&{:?})", keys.split(',').collect::<Vec<_>>())
        } else if words.iter().any(|w| w == "set") {
            "ListKind::Set".into()
        } else {
            "ListKind::Atomic".into()
        };
        let said = |word: &str| words.iter().any(|w| w == word);
        let map_atomic = match (said("granular"), atomic && is_map) {
            (true, _) => Some(false),
            (_, true) => Some(true),
            _ => None,
        };
        let required = required && !said("optional");
        let written = if pointer { "Null" } else { "Written" };
        let empty = match (said("always"), said("omitempty"), said("pointer")) {
            (true, _, _) => written,
            (_, true, _) => "Omitted",
            (_, _, true) => "Kept",
            _ if required => written,
            _ if pointer => "Kept",
            _ => "Omitted",
        };
        let strategy = word("patch=").unwrap_or("");
        let has = |s: &str| strategy.split(',').any(|x| x == s);
        format!(
            "Field {{ name: {name:?}, ty: {}, required: {required}, empty: Empty::{empty}, list: {list}, listed: {}, map_atomic: {:?}, patch: PatchStrategy {{ merge_key: {:?}, merge: {}, replace: {}, retain_keys: {} }}, default: {:?} }}",
            self.field_type(schema),
            list_is_said(words),
            map_atomic,
            word("merge="),
            has("merge"),
            has("replace"),
            has("retainKeys"),
            word("default="),
        )
    }
}

/// `tables/protobuf.txt` by message name: its words.
fn messages() -> BTreeMap<String, Vec<String>> {
    let text = std::fs::read_to_string("tables/protobuf.txt").expect("tables/protobuf.txt is part of the crate");
    let lines = text.lines().filter(|l| !l.starts_with('#') && !l.is_empty());
    lines
        .map(|line| {
            let mut words = line.split_whitespace().map(String::from);
            (format!("io.k8s.{}", words.next().unwrap_or_default()), words.collect())
        })
        .collect()
}

/// Whether the field is a pointer in Go, as far as `tables/protobuf.txt` knows.
fn by_pointer(name: &str, field: &str, messages: &BTreeMap<String, Vec<String>>) -> bool {
    let words = messages.get(name).into_iter().flatten();
    words.filter_map(|word| word.split_once('=')).any(|(f, number)| f == field && number.starts_with('*'))
}

/// The values that fields take, by `type.field`, as `tables/enums.txt` has them: between bars.
fn enums() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string("tables/enums.txt").expect("tables/enums.txt is there");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(' ')).map(|(f, values)| (format!("io.k8s.{f}"), values.into())).collect()
}

/// The wire fields of message `name`, as parts of a type with the fields `of` (sorted).
fn wire(name: &str, of: &[&String], messages: &BTreeMap<String, Vec<String>>) -> String {
    let mut fields = BTreeMap::new();
    for word in messages.get(name).into_iter().flatten() {
        let Some((field, number)) = word.split_once('=') else { continue };
        let (pointer, boxed) = (number.starts_with('*'), number.starts_with('['));
        let number: u32 = number.trim_start_matches(['*', '[']).parse().expect("tables/protobuf.txt has numbers");
        let target = match field.strip_prefix('@') {
            Some(inline) => format!("WireTarget::Inline(&[{}])", wire(&format!("io.k8s.{inline}"), of, messages)),
            None => match of.iter().position(|f| *f == field) {
                Some(i) => format!("WireTarget::Field {{ index: {i}, pointer: {pointer}, boxed: {boxed} }}"),
                None => continue,
            },
        };
        fields.insert(number, format!("WireField {{ number: {number}, target: {target} }}, "));
    }
    fields.into_values().collect()
}

fn list_is_said(words: &[String]) -> bool {
    words.iter().any(|w| w == "atomic" || w == "set" || w.starts_with("keys="))
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=tables/fields.txt");
    println!("cargo::rerun-if-changed=tables/protobuf.txt");
    println!("cargo::rerun-if-changed=tables/enums.txt");
    let enums = enums();
    let messages = messages();
    let mut roots = roots();
    let mut definitions = roots.generator.take_definitions(false);
    add_lists(&mut roots, &mut definitions);
    add_more(&mut roots, &mut definitions);
    let names: Vec<&str> = definitions.keys().map(String::as_str).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    let index = sorted.iter().enumerate().map(|(i, n)| (*n, i)).collect();
    let generator = Generator { index, facts: facts() };
    let (mut code, mut descriptions) = (String::new(), String::new());
    for (i, name) in sorted.iter().enumerate() {
        let definition = &definitions[*name];
        let text = |schema: &Value| schema["description"].as_str().unwrap_or("").replace('\0', "");
        let required: Vec<&str> =
            definition["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let none = Map::new();
        let properties = definition["properties"].as_object().unwrap_or(&none);
        let mut properties: Vec<(&String, &Value)> = properties.iter().collect();
        properties.sort_by_key(|(name, _)| *name);
        let _ = write!(descriptions, "{}\0", text(definition));
        let mut fields = String::new();
        let names: Vec<&String> = properties.iter().map(|(name, _)| *name).collect();
        let wire = wire(name, &names, &messages);
        for (field, schema) in properties {
            let pointer = by_pointer(name, field, &messages);
            let required = required.contains(&field.as_str());
            let _ = write!(fields, "{}, ", generator.field(name, field, schema, required, pointer));
            // What it takes goes with what is said of it, behind a separator.
            let values = enums.get(&format!("{name}.{field}")).map(|v| format!("\x01{v}")).unwrap_or_default();
            let _ = write!(descriptions, "{}{values}\0", text(schema));
        }
        let none = Vec::new();
        let words = generator.facts.get(&(name.to_string(), String::new())).unwrap_or(&none);
        let kind =
            roots.kinds.get(*name).map(|(g, v, k)| format!("Some(({g:?}, {v:?}, {k:?}))")).unwrap_or("None".into());
        let _ = writeln!(
            code,
            "static T{i}: Type = Type {{ index: {i}, name: {name:?}, shape: Shape::{}, fields: &[{fields}], atomic: {}, kind: {kind}, wire: &[{wire}] }};",
            shape(name, definition),
            words.iter().any(|w| w == "atomic"),
        );
    }
    let list: String = (0..sorted.len()).map(|i| format!("&T{i},")).collect();
    let _ = writeln!(code, "/// All types, by name.\npub(crate) static TYPES: &[&Type] = &[{list}];");
    let out = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    std::fs::write(Path::new(&out).join("types.rs"), code).expect("OUT_DIR is writable");
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(descriptions.as_bytes()).expect("memory is writable");
    let packed = encoder.finish().expect("memory is writable");
    std::fs::write(Path::new(&out).join("descriptions.z"), packed).expect("OUT_DIR is writable");
}
