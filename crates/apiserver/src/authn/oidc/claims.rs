//! From the claims of a token to a user: by claim and prefix or by expression, and the rules that both must meet.

use crate::authn::Unauthenticated;
use crate::user::User;
use canopus_api::Value;
use canopus_cel::{
    DeclKind, DeclType, DeclTypes, Env, ListType, ObjectDecl, PER_CALL_LIMIT, Program, Type, Val, issues_text,
};
use compact_str::CompactString;
use std::sync::{Arc, OnceLock};

use crate::authn::certificates::CREDENTIAL_ID;
use crate::reviews::user_info;
use crate::strict::go_type;

/// Where a part of the user comes from.
pub enum Mapping {
    Claim { name: String, prefix: String },
    Expression(Program),
}

impl Default for Mapping {
    fn default() -> Mapping {
        Mapping::Claim { name: String::new(), prefix: String::new() }
    }
}

impl Mapping {
    /// # Errors
    /// Why the expression does not compile.
    pub fn expression(source: &str) -> Result<Mapping, String> {
        compile(&claims_env(), source).map(Mapping::Expression)
    }
}

/// A condition, and what is said when it does not hold.
pub struct Rule {
    program: Program,
    message: String,
}

impl Rule {
    /// # Errors
    /// Why the expression does not compile, or is no condition.
    pub fn of_claims(source: &str, message: &str) -> Result<Rule, String> {
        Rule::of(&claims_env(), source, message)
    }

    /// # Errors
    /// Why the expression does not compile, or is no condition.
    pub fn of_user(source: &str, message: &str) -> Result<Rule, String> {
        Rule::of(&user_env(), source, message)
    }

    fn of(env: &Env, source: &str, message: &str) -> Result<Rule, String> {
        let program = compile(env, source)?;
        match program.result() {
            Type::Bool => Ok(Rule { program, message: message.into() }),
            _ => Err("must evaluate to bool".into()),
        }
    }

    fn check(&self, variable: &str, value: Val) -> Result<(), String> {
        let source = self.program.source();
        match evaluate(&self.program, variable, value)? {
            Val::Bool(true) => Ok(()),
            Val::Bool(false) => Err(format!("validation expression '{source}' failed: {}", self.message)),
            _ => Err("validation expression must return a boolean".into()),
        }
    }
}

fn compile(env: &Env, source: &str) -> Result<Program, String> {
    env.compile(source).map_err(|issues| format!("compilation failed: {}", issues_text(&issues)))
}

/// Whether an expression asks for a claim.
pub fn selects(source: &str, claim: &str) -> bool {
    Env::selects(source, "claims", claim)
}

fn claims_env() -> Env {
    Env::new().variable("claims", Type::map(Type::String, Type::Dyn))
}

/// Of claims, and of the user's extra: keys are spelled as fields.
fn claims_type() -> &'static DeclType {
    static TYPE: OnceLock<DeclType> = OnceLock::new();
    TYPE.get_or_init(|| DeclType::new(DeclKind::Escaped, 2))
}

fn user_env() -> Env {
    let types = DeclTypes::new([("user".to_string(), user_type().clone())]);
    Env::new().variable("user", user_type().ty()).types(Arc::new(types))
}

/// What `user` is.
fn user_type() -> &'static DeclType {
    static TYPE: OnceLock<DeclType> = OnceLock::new();
    TYPE.get_or_init(|| {
        let string = DeclType::new(DeclKind::String, 2);
        let strings = DeclType::new(DeclKind::List(Arc::new(string.clone()), ListType::Atomic), 2);
        let extra = DeclType::new(DeclKind::Map(Arc::new(strings.clone())), 2);
        let fields = [("username", string.clone()), ("uid", string), ("groups", strings), ("extra", extra)];
        let fields = fields.into_iter().map(|(name, ty)| (name.to_string(), ty)).collect();
        DeclType::new(DeclKind::Object(Arc::new(ObjectDecl { name: "kubernetes.UserInfo".into(), fields })), 2)
    })
}

fn evaluate<'a>(program: &Program, variable: &str, value: Val<'a>) -> Result<Val<'a>, String> {
    let done = program.eval(&[(variable, value)], PER_CALL_LIMIT);
    done.value.map_err(|e| format!("expression '{}' resulted in error: {e}", program.source()))
}

/// How a user is made of claims.
#[derive(Default)]
pub struct Claims {
    pub username: Mapping,
    pub groups: Option<Mapping>,
    pub uid: Option<Mapping>,
    pub extra: Vec<(CompactString, Mapping)>,
    /// Claims that must be there, and their values.
    pub required: Vec<(String, String)>,
    pub rules: Vec<Rule>,
    pub user_rules: Vec<Rule>,
}

impl Claims {
    /// The user whom these claims describe.
    ///
    /// # Errors
    /// Why they describe nobody who may come in.
    pub fn user(&self, claims: &Value) -> Result<User, Unauthenticated> {
        let mut user = User {
            name: self.username(claims)?.into(),
            groups: self.groups(claims)?,
            uid: self.uid(claims)?.into(),
            extra: self.extra(claims)?,
        };
        user.extra.sort();
        for (claim, wanted) in &self.required {
            let Some(found) = claims.get(claim) else {
                return bad(format!("required claim {claim} not present in ID token"));
            };
            let found = text(found).map_err(|e| Unauthenticated(format!("oidc: parse claim {claim}: {e}")))?;
            if found != wanted {
                return bad(format!("required claim {claim} value does not match. Got = {found}, want = {wanted}"));
            }
        }
        for rule in &self.rules {
            let checked = rule.check("claims", Val::declared(claims, claims_type()));
            checked.or_else(|e| bad(format!("error evaluating claim validation expression: {e}")))?;
        }
        if !self.user_rules.is_empty() {
            let info = whole(&user);
            for rule in &self.user_rules {
                let checked = rule.check("user", Val::declared(&info, claims_type()));
                checked.or_else(|e| bad(format!("error evaluating user info validation rule: {e}")))?;
            }
        }
        Ok(user)
    }

    fn username(&self, claims: &Value) -> Result<String, Unauthenticated> {
        let failed = |e: String| Unauthenticated(format!("oidc: error evaluating username claim expression: {e}"));
        match &self.username {
            Mapping::Expression(program) => match one(program, claims).map_err(failed)? {
                Some(name) if name.is_empty() => bad("empty username via CEL expression is not allowed"),
                Some(name) => Ok(name),
                None => Err(failed("username claim expression must return a string".into())),
            },
            Mapping::Claim { name, prefix } => {
                let found = claim(claims, name)
                    .map_err(|e| Unauthenticated(format!("oidc: parse username claims {name:?}: {e}")))?;
                if name == "email"
                    && let Some(verified) = claims.get("email_verified")
                {
                    match verified.as_bool() {
                        Some(true) => {}
                        Some(false) => return bad("email not verified"),
                        None => return bad(format!("parse 'email_verified' claim: {}", not("bool", verified))),
                    }
                }
                Ok(format!("{prefix}{found}"))
            }
        }
    }

    fn groups(&self, claims: &Value) -> Result<Vec<CompactString>, Unauthenticated> {
        match &self.groups {
            None => Ok(Vec::new()),
            Some(Mapping::Expression(program)) => several(program, claims)
                .map_err(|e| Unauthenticated(format!("oidc: error evaluating group claim expression: {e}"))),
            Some(Mapping::Claim { name, prefix }) => {
                let Some(found) = claims.get(name) else { return Ok(Vec::new()) };
                // Some have a single one, and no list of it.
                let found = if found.as_str().is_some() { std::slice::from_ref(found) } else { found.items() };
                if found.is_empty() && claims[name.as_str()].as_array().is_none() && !claims[name.as_str()].is_null() {
                    let why = not("string", &claims[name.as_str()]);
                    return bad(format!("parse groups claim {name:?}: {why}"));
                }
                let prefixed = |group: &Value| text(group).map(|g| format!("{prefix}{g}").into());
                let groups: Result<Vec<CompactString>, String> = found.iter().map(prefixed).collect();
                groups.or_else(|e| bad(format!("parse groups claim {name:?}: {e}")))
            }
        }
    }

    fn uid(&self, claims: &Value) -> Result<String, Unauthenticated> {
        let failed = |e: String| Unauthenticated(format!("oidc: error evaluating uid claim expression: {e}"));
        match &self.uid {
            None => Ok(String::new()),
            Some(Mapping::Claim { name, .. }) => claim(claims, name)
                .map(str::to_string)
                .map_err(|e| Unauthenticated(format!("oidc: parse uid claim {name:?}: {e}"))),
            Some(Mapping::Expression(program)) => one(program, claims)
                .map_err(failed)?
                .ok_or_else(|| failed("uid claim expression must return a string".into())),
        }
    }

    fn extra(&self, claims: &Value) -> Result<Vec<(CompactString, Vec<CompactString>)>, Unauthenticated> {
        let mut extra = Vec::new();
        if let Some(id) = claims["jti"].as_str().filter(|id| !id.is_empty()) {
            extra.push((CREDENTIAL_ID.into(), vec![format!("JTI={id}").into()]));
        }
        for (key, mapping) in &self.extra {
            let Mapping::Expression(program) = mapping else { continue };
            let values = several(program, claims).map_err(|e| {
                Unauthenticated(format!("oidc: error evaluating extra claim expression: {}: {e}", program.source()))
            })?;
            if !values.is_empty() {
                extra.push((key.clone(), values));
            }
        }
        Ok(extra)
    }
}

fn bad<T>(why: impl std::fmt::Display) -> Result<T, Unauthenticated> {
    Err(Unauthenticated(format!("oidc: {why}")))
}

/// What Go says about a value of another type.
fn not(wanted: &str, found: &Value) -> String {
    format!("json: cannot unmarshal {} into Go value of type {wanted}", go_type(found))
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| not("string", value))
}

fn claim<'a>(claims: &'a Value, name: &str) -> Result<&'a str, String> {
    text(claims.get(name).ok_or("claim not present")?)
}

/// The text that an expression yields; None: something else.
fn one(program: &Program, claims: &Value) -> Result<Option<String>, String> {
    let value = evaluate(program, "claims", Val::declared(claims, claims_type()))?;
    Ok(value.as_str().map(str::to_string))
}

/// The texts that an expression yields, but for empty ones.
fn several(program: &Program, claims: &Value) -> Result<Vec<CompactString>, String> {
    const WRONG: &str = "expression must return a string or a list of strings";
    let mut all = Vec::new();
    match evaluate(program, "claims", Val::declared(claims, claims_type()))? {
        Val::Str(text) => all.push(CompactString::from(&*text)),
        Val::List(list) => {
            for item in list.iter() {
                all.push(item.as_str().ok_or(WRONG)?.into());
            }
        }
        Val::Null => {}
        _ => return Err(WRONG.into()),
    }
    all.retain(|text| !text.is_empty());
    Ok(all)
}

/// A user with every field, as expressions see it.
fn whole(user: &User) -> Value {
    let mut info = user_info(user);
    for field in ["uid", "username"] {
        info.set_default(field, "");
    }
    info.set_default("groups", Value::Array(Vec::new()));
    info.set_default("extra", Value::object());
    info
}
