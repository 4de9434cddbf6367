//! What expressions see of objects whose schemas are known (upstream `cel/common.SchemaDeclType`).

use canopus_api::{Gvk, Value};
use canopus_cel::{DeclKind, DeclType, ListType, ObjectDecl, escape, schema};
use canopus_schema::{FieldType, Shape, TypeId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The type of a built-in kind.
pub fn built_in(gvk: &Gvk) -> Option<DeclType> {
    let ty = canopus_schema::kind(&gvk.group, &gvk.version, &gvk.kind)?;
    of(ty, &gvk.kind, &mut Vec::new())
}

/// The type of a custom resource: what its schema says, and the metadata that every object has.
pub fn custom(given: &Value, kind: &str) -> Option<DeclType> {
    let mut declared = schema::declare(given, kind, true)?;
    let DeclKind::Object(object) = &declared.kind else { return Some(declared) };
    let meta = canopus_schema::lookup("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")?;
    let meta = of(meta, &format!("{kind}.metadata"), &mut Vec::new())?;
    let mut fields = object.fields.clone();
    fields.insert("metadata".into(), meta);
    declared.kind = DeclKind::Object(Arc::new(ObjectDecl { name: object.name.clone(), fields }));
    Some(declared)
}

/// `within`: the types that this one is a part of. One of them again is an object of which nothing is known.
fn of(ty: TypeId, name: &str, within: &mut Vec<TypeId>) -> Option<DeclType> {
    let mut fields = BTreeMap::new();
    match ty.get().shape {
        Shape::Object if !within.contains(&ty) => {
            within.push(ty);
            for field in ty.get().fields {
                let declared = field_type(&field.ty, &format!("{name}.{}", field.name), within);
                if let (Some(declared), Some(escaped)) = (declared, escape(field.name)) {
                    fields.insert(escaped, declared);
                }
            }
            within.pop();
        }
        Shape::Object | Shape::RawExtension | Shape::FieldsV1 => {}
        Shape::Time | Shape::MicroTime => return Some(DeclType::new(DeclKind::Timestamp, 2)),
        Shape::IntOrString => return Some(DeclType::new(DeclKind::Dyn, 1)),
        // Their schemas name no type of their own, so expressions do not see them.
        Shape::Quantity | Shape::Any | Shape::Json => return None,
    }
    Some(DeclType::new(DeclKind::Object(Arc::new(ObjectDecl { name: name.into(), fields })), 2))
}

fn field_type(ty: &FieldType, name: &str, within: &mut Vec<TypeId>) -> Option<DeclType> {
    let (kind, least) = match ty {
        FieldType::Ref(to) => return of(*to, name, within),
        FieldType::Any => return None,
        FieldType::String => (DeclKind::String, 2),
        FieldType::Bytes => (DeclKind::Bytes, 2),
        FieldType::Int32 | FieldType::Int64 => (DeclKind::Int, 1),
        FieldType::Double => (DeclKind::Double, 1),
        FieldType::Bool => (DeclKind::Bool, 4),
        FieldType::Array(items) => {
            let items = field_type(items, &format!("{name}.@idx"), within)?;
            (DeclKind::List(Arc::new(items), ListType::Atomic), 2)
        }
        FieldType::Map(values) => (DeclKind::Map(Arc::new(field_type(values, &format!("{name}.@prop"), within)?)), 2),
    };
    Some(DeclType::new(kind, least))
}
