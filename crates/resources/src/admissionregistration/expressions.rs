//! What expressions of policies and match conditions see (upstream `plugin/cel`): `object`, `oldObject`, `request`, `params`,
//! `namespaceObject`, `authorizer` and `variables`. Validation compiles them, admission evaluates them, in the same
//! environment.

use canopus_cel::{DeclKind, DeclType, DeclTypes, Env, ListType, ObjectDecl, Program, Type, TypeProvider, issues_text};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// The type of `variables`.
const VARIABLES: &str = "kubernetes.variables";

/// What an expression may use besides what all may.
#[derive(Clone, Copy, Default)]
pub struct Uses {
    pub params: bool,
    pub authorizer: bool,
    /// `Object{…}` and `JSONPatch{…}`.
    pub patches: bool,
}

/// The environments of one policy: they share its variables, which grow as they are compiled.
#[derive(Clone, Default)]
pub struct Expressions {
    variables: Option<BTreeMap<String, Type>>,
    /// For type checking: what objects and parameters look like.
    typed: Option<Arc<Typed>>,
}

/// The types of `object` and `oldObject`, and of `params`.
struct Typed {
    object: Type,
    params: Option<Type>,
    known: DeclTypes,
}

impl Expressions {
    /// For expressions that know no `variables`.
    pub fn plain() -> Expressions {
        Expressions::default()
    }

    /// For those of a policy that may have variables.
    pub fn composed() -> Expressions {
        Expressions { variables: Some(BTreeMap::new()), typed: None }
    }

    /// For checking those of a policy against what they are about.
    pub fn typed(object: DeclType, params: Option<DeclType>) -> Expressions {
        let (of_object, of_params) = (object.ty(), params.as_ref().map(DeclType::ty));
        let declared = [Some(("object".to_string(), object)), params.map(|params| ("params".to_string(), params))];
        let known = DeclTypes::new(declared.into_iter().flatten());
        let typed = Typed { object: of_object, params: of_params, known };
        Expressions { variables: Some(BTreeMap::new()), typed: Some(Arc::new(typed)) }
    }

    fn env(&self, uses: Uses) -> Env {
        let typed = self.typed.as_deref();
        let object = typed.map_or(Type::Dyn, |t| t.object.clone());
        let mut env = Env::new()
            .variable("object", object.clone())
            .variable("oldObject", object)
            .variable("request", request_type().ty())
            .variable("namespaceObject", namespace_type().ty());
        if uses.params {
            env = env.variable("params", typed.and_then(|t| t.params.clone()).unwrap_or(Type::Dyn));
        }
        if uses.authorizer {
            env = env.variable("authorizer", Type::object("kubernetes.authorization.Authorizer"));
        }
        if uses.authorizer && typed.is_none() {
            env = env.variable("authorizer.requestResource", Type::object("kubernetes.authorization.ResourceCheck"));
        }
        if uses.patches {
            env = env.mutations();
        }
        if self.variables.is_some() {
            env = env.variable("variables", Type::object(VARIABLES));
        }
        env.types(Arc::new(Types { variables: self.variables.clone().unwrap_or_default(), typed: self.typed.clone() }))
    }

    /// What is wrong with an expression, whatever it yields.
    pub fn issues(&self, expression: &str, uses: Uses) -> Option<String> {
        self.env(uses).compile(expression).err().map(|issues| issues_text(&issues))
    }

    /// Compiles an expression that must yield one of `returns`. The error is upstream's.
    pub fn compile(&self, expression: &str, uses: Uses, returns: &[Type]) -> Result<Program, String> {
        let program =
            self.env(uses).compile(expression).map_err(|i| format!("compilation failed: {}", issues_text(&i)))?;
        let result = program.result();
        if returns.is_empty() || returns.contains(result) {
            return Ok(program);
        }
        let name = |t: &Type| match t {
            Type::Null => "null_type".to_string(),
            other => other.to_string(),
        };
        let wanted: Vec<String> = returns.iter().map(name).collect();
        Err(match wanted.as_slice() {
            [one] => format!("must evaluate to {one} but got {}", name(result)),
            many => format!("must evaluate to one of [{}] but got {}", many.join(" "), name(result)),
        })
    }

    /// Compiles a variable, which expressions compiled later may use.
    pub fn compile_variable(&mut self, name: &str, expression: &str, uses: Uses) -> Result<Program, String> {
        let compiled = self.compile(expression, uses, &[]);
        let ty = compiled.as_ref().map_or(Type::Dyn, |p| p.result().clone());
        self.variables.get_or_insert_default().insert(name.into(), ty);
        compiled
    }
}

/// Fields of the request, of the namespace and of the variables.
struct Types {
    variables: BTreeMap<String, Type>,
    typed: Option<Arc<Typed>>,
}

impl TypeProvider for Types {
    fn field(&self, object: &str, field: &str) -> Option<Type> {
        if object == VARIABLES {
            return self.variables.get(field).cloned();
        }
        match self.typed.as_deref().filter(|t| t.known.is_object(object)) {
            Some(typed) => typed.known.field(object, field),
            None => known().field(object, field),
        }
    }

    fn is_object(&self, name: &str) -> bool {
        name == VARIABLES || known().is_object(name) || self.typed.as_deref().is_some_and(|t| t.known.is_object(name))
    }
}

fn known() -> &'static DeclTypes {
    static KNOWN: OnceLock<DeclTypes> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let types = [("request", request_type()), ("namespaceObject", namespace_type())];
        DeclTypes::new(types.map(|(name, ty)| (name.to_string(), ty.clone())))
    })
}

fn object(name: &str, fields: &[(&str, DeclType)]) -> DeclType {
    let fields = fields.iter().map(|(name, ty)| (name.to_string(), ty.clone())).collect();
    DeclType::new(DeclKind::Object(Arc::new(ObjectDecl { name: name.into(), fields })), 2)
}

fn string() -> DeclType {
    DeclType::new(DeclKind::String, 2)
}

fn int() -> DeclType {
    DeclType::new(DeclKind::Int, 1)
}

fn timestamp() -> DeclType {
    DeclType::new(DeclKind::Timestamp, 2)
}

fn list(of: DeclType) -> DeclType {
    DeclType::new(DeclKind::List(Arc::new(of), ListType::Atomic), 2)
}

fn map(of: DeclType) -> DeclType {
    DeclType::new(DeclKind::Map(Arc::new(of)), 2)
}

/// What `request` is.
pub fn request_type() -> &'static DeclType {
    static TYPE: OnceLock<DeclType> = OnceLock::new();
    TYPE.get_or_init(|| {
        let triple =
            |name: &str, last: &str| object(name, &[("group", string()), ("version", string()), (last, string())]);
        let kind = triple("kubernetes.GroupVersionKind", "kind");
        let resource = triple("kubernetes.GroupVersionResource", "resource");
        let user = object(
            "kubernetes.UserInfo",
            &[("username", string()), ("uid", string()), ("groups", list(string())), ("extra", map(list(string())))],
        );
        object(
            "kubernetes.AdmissionRequest",
            &[
                ("kind", kind.clone()),
                ("resource", resource.clone()),
                ("subResource", string()),
                ("requestKind", kind),
                ("requestResource", resource),
                ("requestSubResource", string()),
                ("name", string()),
                ("namespace", string()),
                ("operation", string()),
                ("userInfo", user),
                ("dryRun", DeclType::new(DeclKind::Bool, 4)),
                ("options", DeclType::new(DeclKind::Dyn, 1)),
            ],
        )
    })
}

/// What `namespaceObject` is.
pub fn namespace_type() -> &'static DeclType {
    static TYPE: OnceLock<DeclType> = OnceLock::new();
    TYPE.get_or_init(|| {
        let spec = object("kubernetes.NamespaceSpec", &[("finalizers", list(string()))]);
        let condition = object(
            "kubernetes.NamespaceCondition",
            &[
                ("status", string()),
                ("type", string()),
                ("lastTransitionTime", timestamp()),
                ("message", string()),
                ("reason", string()),
            ],
        );
        let status = object("kubernetes.NamespaceStatus", &[("conditions", list(condition)), ("phase", string())]);
        let metadata = object(
            "kubernetes.NamespaceMetadata",
            &[
                ("name", string()),
                ("generateName", string()),
                ("namespace", string()),
                ("labels", map(string())),
                ("annotations", map(string())),
                ("UID", string()),
                ("creationTimestamp", timestamp()),
                ("deletionGracePeriodSeconds", int()),
                ("deletionTimestamp", timestamp()),
                ("generation", int()),
                ("resourceVersion", string()),
                ("finalizers", list(string())),
            ],
        );
        object("kubernetes.Namespace", &[("metadata", metadata), ("spec", spec), ("status", status)])
    })
}

/// What a match condition yields.
pub const CONDITION: &[Type] = &[Type::Bool];
/// What an audit annotation yields.
pub const ANNOTATION: &[Type] = &[Type::String, Type::Null];
/// What a message expression yields.
pub const MESSAGE: &[Type] = &[Type::String];

/// What the expression of a JSON patch yields.
pub fn json_patch() -> Type {
    Type::list(Type::object("JSONPatch"))
}

/// What the expression of an apply configuration yields.
pub fn apply_configuration() -> Type {
    Type::object("Object")
}
