//! Upstream v1.36's types: names, fields, required ones, list and merge keys, descriptions. One table for unknown-field
//! checks, patches, server-side apply, OpenAPI and `kubectl explain`. Made at build time; static data, no start-up cost.

mod openapi;

pub use openapi::{openapi_v3_definitions, openapi_v3_schemas};
use std::io::Read;

/// A type of the table.
#[derive(Clone, Copy)]
pub struct TypeId(pub &'static Type);

impl TypeId {
    pub fn get(self) -> &'static Type {
        self.0
    }
}

impl PartialEq for TypeId {
    fn eq(&self, other: &TypeId) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}
impl Eq for TypeId {}

impl std::hash::Hash for TypeId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

impl std::fmt::Debug for TypeId {
    /// The name only: types refer to each other in circles.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TypeId({})", self.0.name)
    }
}

#[derive(Debug)]
pub struct Type {
    /// Position in the table; of no meaning for types made elsewhere (custom resources).
    pub index: usize,
    /// OpenAPI definition name: `io.k8s.api.core.v1.PodSpec`.
    pub name: &'static str,
    pub shape: Shape,
    /// Sorted by name.
    pub fields: &'static [Field],
    /// Replaced as a whole by server-side apply.
    pub atomic: bool,
    /// (group, version, kind) of top-level kinds.
    pub kind: Option<(&'static str, &'static str, &'static str)>,
    /// Its fields as protobuf numbers them, by number.
    pub wire: &'static [WireField],
}

/// One field of a protobuf message.
#[derive(Debug)]
pub struct WireField {
    pub number: u32,
    pub target: WireTarget,
}

#[derive(Debug)]
pub enum WireTarget {
    /// A field of the type, by position. `pointer`: Go holds it by pointer, so that a zero on the wire says something.
    /// `boxed`: a list that is a message of its own with `items`.
    Field { index: usize, pointer: bool, boxed: bool },
    /// A message whose fields are the type's own in JSON.
    Inline(&'static [WireField]),
}

/// What the JSON of a type looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// An object with the type's fields.
    Object,
    Quantity,
    IntOrString,
    Time,
    MicroTime,
    /// An embedded object of a kind unknown here: kept as it is.
    RawExtension,
    Any,
    /// Any JSON (apiextensions).
    Json,
    FieldsV1,
}

#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub ty: FieldType,
    pub required: bool,
    pub empty: Empty,
    /// How server-side apply sees a list; atomic where upstream says nothing.
    pub list: ListKind,
    /// Whether upstream says what kind of list it is.
    pub listed: bool,
    /// A map or object that server-side apply replaces as a whole.
    /// Whether it is replaced as a whole, where the field itself says that of its map or object.
    pub map_atomic: Option<bool>,
    pub patch: PatchStrategy,
    /// JSON.
    pub default: Option<&'static str>,
}

/// What becomes of an empty value when Go writes the object (`omitempty`, and whether it is behind a pointer).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Empty {
    /// Always there: the zero of its type where nothing was said.
    Written,
    /// Always there: null where nothing was said.
    Null,
    /// Left out, even when it was said.
    Omitted,
    /// There when it was said.
    Kept,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PatchStrategy {
    pub merge_key: Option<&'static str>,
    pub merge: bool,
    pub replace: bool,
    pub retain_keys: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldType {
    Ref(TypeId),
    String,
    /// Base64.
    Bytes,
    Int32,
    Int64,
    Double,
    Bool,
    Array(&'static FieldType),
    Map(&'static FieldType),
    Any,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListKind {
    Atomic,
    Set,
    /// A map by these keys.
    Map(&'static [&'static str]),
}

include!(concat!(env!("OUT_DIR"), "/types.rs"));

static DESCRIPTIONS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.z"));

/// The type of an OpenAPI definition name.
pub fn lookup(name: &str) -> Option<TypeId> {
    TYPES.binary_search_by(|t| t.name.cmp(name)).ok().map(|i| TypeId(TYPES[i]))
}

/// The type of a top-level kind.
pub fn kind(group: &str, version: &str, kind: &str) -> Option<TypeId> {
    TYPES.iter().find(|t| t.kind == Some((group, version, kind))).map(|t| TypeId(t))
}

/// All types, sorted by name.
pub fn all() -> impl Iterator<Item = TypeId> {
    TYPES.iter().map(|t| TypeId(t))
}

impl Type {
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.binary_search_by(|f| f.name.cmp(name)).ok().map(|i| &self.fields[i])
    }
}

/// All descriptions, inflated: some megabytes that live only while they are needed.
pub struct Descriptions {
    text: String,
    /// Where each type's description starts; its fields' follow.
    starts: Vec<usize>,
}

impl Descriptions {
    pub fn inflate() -> Descriptions {
        let mut text = String::new();
        // The bytes are our own and complete; without them there is just nothing to explain.
        let _ = flate2::read::ZlibDecoder::new(DESCRIPTIONS).read_to_string(&mut text);
        let mut ends = text.match_indices('\0').map(|(i, _)| i + 1);
        let mut starts = Vec::with_capacity(TYPES.len());
        let mut at = 0;
        for ty in TYPES {
            starts.push(at);
            at = ends.nth(ty.fields.len()).unwrap_or(text.len());
        }
        Descriptions { text, starts }
    }

    /// The description of a type, and of its fields in their order.
    pub fn of(&self, ty: TypeId) -> impl Iterator<Item = &str> {
        let start = self.starts[ty.get().index];
        self.text[start..].split('\0').take(1 + ty.get().fields.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(ty: &str, name: &str) -> &'static Field {
        lookup(ty).unwrap().get().field(name).unwrap()
    }

    #[test]
    fn known_facts() {
        let containers = field("io.k8s.api.core.v1.PodSpec", "containers");
        assert_eq!(containers.list, ListKind::Map(&["name"]));
        assert_eq!(containers.patch.merge_key, Some("name"));
        assert!(containers.required);
        let ports = field("io.k8s.api.core.v1.ServiceSpec", "ports");
        assert_eq!(ports.list, ListKind::Map(&["port", "protocol"]));
        assert_eq!(ports.patch.merge_key, Some("port"));
        assert_eq!(field("io.k8s.api.core.v1.ServicePort", "protocol").default, Some("\"TCP\""));
        assert!(field("io.k8s.api.core.v1.ServiceSpec", "selector").map_atomic == Some(true));
        assert_eq!(field("io.k8s.api.core.v1.TypedLocalObjectReference", "apiGroup").empty, Empty::Null);
        assert_eq!(field("io.k8s.api.rbac.v1.RoleRef", "apiGroup").empty, Empty::Written);
        assert!(field("io.k8s.api.apps.v1.DeploymentSpec", "strategy").patch.retain_keys);
        assert_eq!(field("io.k8s.api.core.v1.Secret", "data").ty, FieldType::Map(&FieldType::Bytes));
        assert!(lookup("io.k8s.api.core.v1.ObjectReference").unwrap().get().atomic);
    }

    #[test]
    fn every_merge_key_is_a_field_of_the_element() {
        let element = |f: &Field| match f.ty {
            FieldType::Array(FieldType::Ref(t)) => Some(*t),
            _ => None,
        };
        for ty in all() {
            for f in ty.get().fields {
                let Some(inner) = element(f) else { continue };
                let mut keys: Vec<&str> = f.patch.merge_key.into_iter().collect();
                if let ListKind::Map(of) = f.list {
                    keys.extend(of);
                }
                for key in keys {
                    assert!(inner.get().field(key).is_some(), "{}.{}: {key}", ty.get().name, f.name);
                }
            }
        }
    }

    #[test]
    fn the_table_of_facts_names_fields_that_exist() {
        let mut ty = None;
        for line in include_str!("../tables/fields.txt").lines().filter(|l| !l.starts_with('#')) {
            let first = line.split_whitespace().next().unwrap();
            if line.starts_with(' ') {
                assert!(ty.and_then(|t: TypeId| t.get().field(first)).is_some(), "{ty:?} {first}");
            } else {
                ty = lookup(&format!("io.k8s.{first}"));
                assert!(ty.is_some(), "{first}");
            }
        }
    }

    #[test]
    fn descriptions_belong_to_their_fields() {
        let all = Descriptions::inflate();
        let spec = lookup("io.k8s.api.core.v1.PodSpec").unwrap();
        let texts: Vec<&str> = all.of(spec).collect();
        assert_eq!(texts[0], "PodSpec is a description of a pod.");
        let at = spec.get().fields.iter().position(|f| f.name == "nodeName").unwrap();
        assert!(texts[at + 1].starts_with("NodeName indicates in which node this pod is scheduled"));
    }

    #[test]
    fn values_that_fields_take_are_in_openapi() {
        let claim = lookup("io.k8s.api.core.v1.PersistentVolumeClaimSpec").unwrap();
        let mut found = String::new();
        openapi_v3_definitions(&[claim], &mut |name, json| {
            if name.ends_with("PersistentVolumeClaimSpec") {
                found = String::from_utf8_lossy(json).into_owned();
            }
        });
        for part in [
            r#""items":{"type":"string","enum":["ReadOnlyMany","ReadWriteMany","ReadWriteOnce","ReadWriteOncePod"]}"#,
            r#""type":"string","enum":["Block","Filesystem"]}"#,
        ] {
            assert!(found.contains(part), "{found}");
        }
        let known = include_str!("../tables/enums.txt").lines().filter(|line| !line.starts_with('#'));
        for line in known {
            let (ty, field) = line.split(' ').next().unwrap().rsplit_once('.').unwrap();
            // Types of features that are not served have none.
            let Some(ty) = lookup(&format!("io.k8s.{ty}")) else { continue };
            assert!(ty.get().fields.iter().any(|f| f.name == field), "{line}");
        }
    }

    #[test]
    fn kinds() {
        assert_eq!(kind("apps", "v1", "Deployment"), lookup("io.k8s.api.apps.v1.Deployment"));
        assert!(kind("", "v1", "PodList").is_some());
        assert!(kind("", "v1", "Nope").is_none());
    }
}
